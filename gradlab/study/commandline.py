"""`python -m studies.<name>`: the study's config as a command line, and errors as one line."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import shlex
import sys
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NoReturn

import tyro

from gradlab.errors import GradlabError
from gradlab.study.definition import Study
from gradlab.study.runner import run_study


@dataclass(frozen=True)
class RunOptions:
    """How to run; none of this changes the table (`--retrain` may)."""

    preset: str = "default"
    """Named set of values for the options of the study; options given beside it win."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder for results. A run that was stopped goes on where it was. Default:
    runs/STUDY/PRESET."""
    jobs: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Worker processes. Default: what the preset says, else one for each usable core."""
    retrain: bool = False
    """Build the artefacts that come with the repository anew."""


def cli(study: str | ModuleType | Study, args: Sequence[str] | None = None) -> None:
    """Runs a study from the command line (`args`, default: this process's).

    A study module ends in `if __name__ == "__main__": cli("studies.its_name")`. The name, rather
    than the running module, lets workers import its functions.

    Exits with 2 after one line for anything that the user can mend, with 130 when interrupted.
    """
    args = sys.argv[1:] if args is None else list(args)
    name = (
        study
        if isinstance(study, str)
        else study.__name__
        if isinstance(study, ModuleType)
        else study.name
    )
    short = name.rpartition(".")[2]
    command = shlex.join(["python", "-m", name, *args])
    try:
        definition = Study.of(study)
        options, config, jobs = parse(definition, args)
        out = options.out or Path("runs") / definition.name / options.preset
        result = run_study(
            definition,
            config,
            out,
            jobs=jobs,
            retrain=options.retrain,
            preset=options.preset,
            command=command,
        )
    except GradlabError as error:
        where = "".join(f" ({line})" for line in getattr(error, "__notes__", ()))
        fail(short, f"{' '.join(str(error).split())}{where}", 2)
    except BrokenExecutor:
        fail(short, "a worker was killed, perhaps for lack of memory; what is done is kept: "
             "run the same command with fewer --jobs", 1)  # fmt: skip
    except KeyboardInterrupt:
        fail(short, f"stopped; what is done is kept. To go on: {command}", 130)
    else:
        print(result.answer)
        print(
            f"\nAll in {result.out}: figure.png, rows.parquet (the table), summary.txt (the long form)"
        )


def fail(name: str, message: str, code: int) -> NoReturn:
    print(f"{name}: {message}", file=sys.stderr)
    raise SystemExit(code)


def parse(study: Study, args: Sequence[str]) -> tuple[RunOptions, Any, int | None]:
    """Run options, config and number of jobs. Raises `UnknownName` for a preset, exits for --help.

    A line that tyro cannot read becomes one line on stderr and exit code 2.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--preset", nargs="?", default="default")
    preset = finder.parse_known_args(args)[0].preset or "default"
    config, jobs = study.preset(preset)
    arguments = dataclasses.make_dataclass(
        "Arguments", [("run", RunOptions), ("study", study.config)], frozen=True
    )
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            parsed = tyro.cli(
                tyro.conf.OmitArgPrefixes[arguments],
                args=list(args),
                default=arguments(RunOptions(preset=preset), config),
                prog=f"python -m {study.module or study.name}",
                description=f"{study.description.strip()}\n\nPresets: {', '.join(study.presets)}.",
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        fail(study.name, _one_line(shown.getvalue()), 2)
    return parsed.run, parsed.study, parsed.run.jobs if parsed.run.jobs is not None else jobs


def _one_line(box: str) -> str:
    """The sentences of tyro's error box, without its frame, its copy of the help and its
    colours."""
    lines = [line.strip("│╭╮╰╯ \t") for line in box.splitlines()[1:]]
    kept: list[str] = []
    for line in lines:
        if line.startswith(("Argument helptext", "For full helptext")):
            break
        if line.strip("─") and not line.startswith("(default"):
            kept.append(line)
    return f"{' '.join(kept) or 'cannot read the options'}; see --help"
