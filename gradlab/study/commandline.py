"""`python -m studies.<name>`: the study's config as a command line, and errors as one line."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, NoReturn

import tyro

from gradlab.foundation.errors import BadValue, GradlabError, NotWritten, UnknownName
from gradlab.foundation.memory import keep_freed_memory
from gradlab.foundation.pipes import DISK, readers_may_leave, say
from gradlab.foundation.placement import Placement
from gradlab.study.definition import Study
from gradlab.study.runner import Result, run_study

_STOPPED = 128 + signal.SIGTERM  # what a shell reports for a process that SIGTERM ended


@dataclass(frozen=True)
class RunOptions:
    """How to run; of this the device, where noise is drawn, `--retrain` and `--keep` may change the
    table."""

    preset: str = "default"
    """Named set of values for the options of the study; options given beside it win."""
    out: Annotated[
        str | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: runs/STUDY/PRESET)")
    ] = None
    """Folder for results. A run that was stopped goes on where it was."""
    jobs: Annotated[
        int | None,
        tyro.conf.arg(
            metavar="INT",
            help_behavior_hint="(default: what the preset says, else one for each usable core)",
        ),
    ] = None
    """Worker processes. On a GPU one, unless asked otherwise."""
    device: str = "cpu"
    """Where tensors live: cpu or cuda. Another device is another run."""
    noise: Annotated[
        Literal["cpu", "device"] | None,
        tyro.conf.arg(help_behavior_hint="(default: device on a GPU, cpu elsewhere)"),
    ] = None
    """Where noise is drawn: cpu, the same numbers for every device, or device, by counting."""
    retrain: bool = False
    """Build the artefacts that come with the repository anew."""
    fresh: bool = False
    """Delete the results in the folder and do them again."""
    keep: bool = False
    """Go on with results in the folder that other code made (recorded in manifest.json)."""


class Stopped(BaseException):
    """SIGTERM came."""


def cli(study: str | ModuleType | Study, args: Sequence[str] | None = None) -> None:
    """Runs a study from the command line (`args`, default: this process's).

    A study's `__main__` is `if __name__ == "__main__": cli("studies.its_name")`. The name, rather
    than the running module, lets workers import its functions.

    Exits with 2 after one line for anything that the user can mend, with 1 where the disk is full
    or a worker was killed, with 130 when interrupted and 143 after SIGTERM.
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
    # --fresh would delete what the stopped run has done
    again = shlex.join(["python", "-m", name, *(arg for arg in args if arg != "--fresh")])

    def answer() -> str:
        result = _run(Study.of(study), args, command)
        files = "figure.png, rows.parquet (the table), summary.txt (the long form)"
        return f"{result.answer}\n\nAll in {result.out}: {files}"

    guarded(short, again, answer)


def guarded(short: str, again: str, run: Callable[[], str]) -> None:
    """Prints what `run` returns, or one line that names the command `short` and exits.

    With 2 for anything that the user can mend, with 1 where the disk is full or a worker was
    killed, with 130 when interrupted, 143 after SIGTERM and 141 where nobody reads what is printed
    any more; `again` is the command that goes on.
    """
    with readers_may_leave():
        _guarded(short, again, run)


def _guarded(short: str, again: str, run: Callable[[], str]) -> None:
    _never_fail_to_print()
    try:
        with _sigterm_raises():
            answer = run()
    except NotWritten as error:
        fail(short, f"{_in_one_line(error)}; what is done is kept. To go on: {again}", 1)
    except GradlabError as error:
        fail(short, _in_one_line(error), 2)
    except OSError as error:
        if error.errno not in DISK:
            raise
        fail(short, f"{error.strerror or error}; what is done is kept. To go on: {again}", 1)
    except BrokenExecutor:
        fail(short, "a worker was killed, perhaps for lack of memory; what is done is kept: "
             f"run the same command with fewer --jobs: {again}", 1)  # fmt: skip
    except KeyboardInterrupt:
        fail(short, f"stopped; what is done is kept. To go on: {again}", 130)
    except Stopped:
        fail(short, f"stopped by SIGTERM; what is done is kept. To go on: {again}", _STOPPED)
    else:
        print(answer)


def _run(definition: Study, args: Sequence[str], command: str) -> Result:
    options, config, jobs = parse(definition, args)
    if options.out is not None and not options.out.strip():
        raise BadValue(f"expected a folder for --out, got {options.out!r}; try leaving it out")
    keep_freed_memory()
    return run_study(
        definition,
        config,
        Path(options.out or Path("runs") / definition.name / options.preset),
        jobs=jobs,
        placement=Placement(options.device, options.noise),
        retrain=options.retrain,
        fresh=options.fresh,
        keep=options.keep,
        preset=options.preset,
        command=command,
    )


def _in_one_line(error: GradlabError) -> str:
    where = "".join(f" ({line})" for line in getattr(error, "__notes__", ()))
    return f"{' '.join(str(error).split())}{where}"


def _never_fail_to_print() -> None:
    """Letters that the terminal lacks (∇ on an old Windows console) become question marks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Inside, SIGTERM raises `Stopped` in the main thread: files are whole or not there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def fail(name: str, message: str, code: int) -> NoReturn:
    say(f"{name}: {message}")
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
    parsed = read_options(
        tyro.conf.OmitArgPrefixes[arguments],
        args,
        arguments(RunOptions(preset=preset), config),
        _options(study),
        study.module,
        f"{(study.description or study.name).strip()}\n\nPresets: {', '.join(study.presets)}.",
    )
    return parsed.run, parsed.study, parsed.run.jobs if parsed.run.jobs is not None else jobs


def read_options(
    kind: Any,
    args: Sequence[str],
    default: Any,
    names: Sequence[str],
    module: str,
    description: str,
) -> Any:
    """`args` as `kind`, a dataclass with options as fields; exits with 0 after --help.

    A line that tyro cannot read becomes one line on stderr, with the nearest of the `names` for an
    unknown option, and exit code 2.
    """
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            return tyro.cli(
                kind,
                args=list(args),
                default=default,
                prog=f"python -m {module}",
                description=description,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        fail(module.rpartition(".")[2], _one_line(shown.getvalue(), names), 2)


def _options(study: Study) -> list[str]:
    fields = [*dataclasses.fields(RunOptions), *dataclasses.fields(study.config)]
    return [f"--{field.name}" for field in fields]


def _one_line(box: str, options: Sequence[str]) -> str:
    """The sentences of tyro's error box, without its frame, its copy of the help and its colours;
    for an unknown option the nearest names."""
    lines = [line.strip("│╭╮╰╯| \t") for line in box.splitlines()[1:]]
    kept: list[str] = []
    for line in lines:
        if line.startswith(("Argument helptext", "For full helptext")):
            break
        if line.strip("─-") and not line.startswith("(default"):
            kept.append(line)
    said = " ".join(kept) or "cannot read the options"
    if unknown := re.search(r"Unrecognized options?: (--[\w-]+)", said):
        return str(UnknownName("option", unknown[1].replace("_", "-"), options))
    return _plainly(said) or f"{said}; see --help"


def _plainly(said: str) -> str | None:
    """What an option should be and what came, where tyro gives a converter's own words."""
    found = re.search(r"Error parsing (--[\w-]+): ", said)
    if not found:
        return None
    # of an option that may be None the words of its other type are the ones that help
    one = re.search(
        r"(invalid literal for int|could not convert string to float)[^']*('.*?')", said
    )
    if one:
        kind = "a whole number" if "int" in one[1] else "a number"
        return f"{found[1]} should be {kind}, got {one[2]}; see --help"
    several = re.search(r"Could not find valid parse for arguments: \[(.*)\]", said)
    if several:
        return f"{found[1]} cannot take {several[1]}; see --help"
    return None
