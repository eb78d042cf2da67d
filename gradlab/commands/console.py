"""The command `gradlab`: studies, a comparison on a problem of your own,
and what is installed here.

It is inside `gradlab` so that no other folder named `studies` or `estimators` can take its place.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import torch
from torch import Tensor

from gradlab.commands import comparison
from gradlab.foundation import naming, siblings
from gradlab.foundation.checkpoints import check_shapes, load
from gradlab.foundation.errors import BadShape, BadValue, GradlabError, UnknownName
from gradlab.foundation.generators import generator
from gradlab.gradients.measurement import Measurement, measure
from gradlab.problems import registry
from gradlab.problems.problem import Problem
from gradlab.statistics import OracleGradient
from gradlab.statistics.report import Report
from gradlab.study.commandline import cli, fail
from gradlab.study.progress import note
from gradlab.version import __version__

TRUTH_WIDTH = 0.1  # of the Split behind a truth: unbiased at any width
_LINE_EVERY = 5.0  # of a truth that is being sampled [s]
_PACKAGES = ("torch", "numpy", "scipy", "mujoco", "gymnasium", "pandas", "pyarrow")


def main(args: Sequence[str] | None = None) -> None:
    """Runs a command line (default: this process's).

    Exits with 2 after one line for anything that the user can mend, with 130 when interrupted;
    `doctor` with 1 where it found something wrong.
    """
    args = sys.argv[1:] if args is None else list(args)
    # `python -m` looks in this folder too; last, so that nothing in it hides a package
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    if not args or args[0] in ("-h", "--help"):
        print(_help())
        return
    if args[0] == "--version":
        print(f"gradlab {__version__}")
        return
    try:
        if args[0] not in COMMANDS:
            raise UnknownName("command", args[0], [*COMMANDS, "--help", "--version"])
        COMMANDS[args[0]](args[1:])
    except GradlabError as error:
        fail("gradlab", " ".join(str(error).split()), 2)
    except KeyboardInterrupt:
        fail("gradlab", "stopped", 130)


def _help() -> str:
    said = {
        name: " ".join((run.__doc__ or "").partition("\n\n")[0].split())
        for name, run in COMMANDS.items()
    }
    return "\n".join(
        [
            "Measures policy-gradient estimators in differentiable simulators.",
            "",
            *(f"  gradlab {name:8} {line}" for name, line in said.items()),
            "",
            "Each has --help. gradlab --version says which this is.",
        ]
    )


# ---------------------------------------------------------------------------------------- study


def study(args: Sequence[str]) -> None:
    """Runs a study (the same as python -m studies.NAME), or lists them."""
    siblings.check(*siblings.PACKAGES)
    # by name, as a user asks for it: nothing in gradlab knows a study
    listing = importlib.import_module("studies.__main__")
    if not args or args[0] in ("-h", "--help"):
        print(listing.text("gradlab study "))
        return
    known = listing.studies()
    if args[0] not in known:
        raise UnknownName("study", args[0], known)
    cli(f"studies.{args[0]}", args[1:])


# -------------------------------------------------------------------------------------- compare


class _Parser(argparse.ArgumentParser):
    """One line for an error, as every command."""

    def error(self, message: str) -> NoReturn:
        raise BadValue(f"compare: {message}; see gradlab compare --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gradlab compare",
        description="Estimators on a problem, on the same episodes, against one truth: bias, direction, "
        "variance and error, each with its 95 % interval.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "problem", help="a name of gradlab.names(), or my_file.py:problem (a Problem, or a function "
        "that returns one)",
    )  # fmt: skip
    parser.add_argument(
        "--estimators", nargs="+", default=["fog", "pg", "split"], metavar="NAME",
        help="names of estimators.names(), or my_file.py:Mine (default: fog pg split)",
    )  # fmt: skip
    parser.add_argument(
        "--params", metavar="FILE", help="whose gradients: a file that gradlab.checkpoints.save wrote, or "
        "my_file.py:params (a dict of tensors, or a function of the problem that returns one); default: "
        "a new policy, of a known-answer problem its own",
    )  # fmt: skip
    for name, kind, default, text in (
        ("count", int, 4000, "episodes of each estimator"),
        ("batch", int, 100, "the B of MSE(B)"),
        ("seed", int, 0, "of the episodes and of a new policy; the truth has its own"),
        ("stderr", float, 0.05, "relative standard error that the truth is sampled to"),
        ("most", int, 1_000_000, "episodes of the truth"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{text} (%(default)s)")
    parser.add_argument(
        "--truth", choices=("split", "pg"), default="split",
        help="what samples the truth where no formula is known; pg wants far more episodes, and "
        "holds where the simulator itself jumps (default: split)",
    )  # fmt: skip
    parser.add_argument("--csv", metavar="FILE", help="all rows, by layer too, for another program")
    return parser


def compare(args: Sequence[str]) -> None:
    """Compares estimators on a problem: my_file.py:problem --estimators fog pg mine.py:Mine."""
    given = _parser().parse_args(args)
    siblings.check("estimators")
    for name in ("count", "batch", "most"):
        if getattr(given, name) < 1:
            raise BadValue(f"expected --{name} of at least 1, got {getattr(given, name)}")
    if not given.stderr > 0:
        raise BadValue(f"expected a positive --stderr, got {given.stderr}; try 0.05")
    if len(set(given.estimators)) < len(given.estimators):
        raise BadValue("expected different --estimators, got one twice; leave it out")
    estimators = importlib.import_module("estimators")
    problem = registry.make(given.problem)
    samplers = {name: estimators.make(name) for name in given.estimators}
    for sampler in samplers.values():
        sampler.check(problem)
    params, policy = _params(problem, given.params, given.seed)
    oracle = estimators.PG() if given.truth == "pg" else estimators.Split(TRUTH_WIDTH)
    count = comparison.whole_groups(given.count, samplers)
    batch = comparison.whole_groups(given.batch, samplers)
    truth = comparison.truth_of(
        problem, params, oracle, given.stderr, given.most, _told(given.stderr)
    )
    measured = measure(samplers, problem, params, count, given.seed, progress=True)
    if truth.relative_stderr > given.stderr:
        note(
            f"the truth is known to {truth.relative_stderr:.1%} after {given.most} episodes, not to "
            f"{given.stderr:.1%}; a larger --most would help"
        )
    print(comparison.answer_of(problem, measured, truth, batch, policy))
    if given.csv is not None:
        _write(given.csv, measured, measured.compare(truth, batch=batch))


def _told(wanted: float) -> Callable[[OracleGradient], None]:
    """Says now and then how well a truth is known."""
    last = [time.monotonic()]

    def tell(truth: OracleGradient) -> None:
        if time.monotonic() - last[0] > _LINE_EVERY:
            last[0] = time.monotonic()
            note(f"truth: known to {truth.relative_stderr:.1%} ({wanted:.1%} wanted)")

    return tell


def _params(problem: Problem, given: str | None, seed: int) -> tuple[dict[str, Tensor], str]:
    """The parameters, in the problem's dtype and on its device, and whose they are, in words."""
    cast = {"dtype": problem.dtype, "device": problem.device}
    fresh = problem.init(generator("policy", seed))
    if given is None:
        if problem.skewed:
            with suppress(BadShape):  # its policy was replaced
                return problem.reference, "the problem's own policy"
        return fresh, f"a new policy, not trained (seed {seed}; --params takes yours)"
    if ":" in given and not Path(given).is_file():
        found: Any = naming.load(given, "params")
        found = found(problem) if callable(found) else found
    else:
        found = load(given).tensors
    if not isinstance(found, dict) or not all(isinstance(p, Tensor) for p in found.values()):
        raise BadValue(
            f"expected a dict of tensors from --params {given}, got {type(found).__name__}"
        )
    check_shapes(found, {name: tuple(p.shape) for name, p in fresh.items()}, f"--params {given}")
    return {name: p.detach().to(**cast) for name, p in found.items()}, f"the policy of {given}"


def _write(path: str, measured: Measurement, reports: Mapping[str, Report]) -> None:
    rows = [
        {"estimator": name, **row, "seconds_per_sample": measured.seconds[name]}
        for name, report in reports.items()
        for row in report.table()
    ]
    try:
        pd.DataFrame(rows).to_csv(path, index=False)
    except OSError as error:
        raise BadValue(f"cannot write {path}: {error.strerror}; try another --csv") from None


# --------------------------------------------------------------------------------------- doctor


def doctor(args: Sequence[str]) -> None:
    """Says which versions, devices and compiler there are, and whether anything is in the way."""
    if args and args[0] in ("-h", "--help"):
        print(f"usage: gradlab doctor\n\n{doctor.__doc__}")
        return
    if args:
        raise BadValue(f"doctor takes no arguments, got {args[0]!r}")
    wrong = []
    for name, (said, fine) in _findings().items():
        print(f"{name:22} {said}")
        wrong += [] if fine else [name]
    print("\nNothing is in the way." if not wrong else f"\nLook at: {', '.join(wrong)}.")
    if wrong:
        raise SystemExit(1)


def _findings() -> dict[str, tuple[str, bool]]:
    """What there is, and whether it is in order, by name."""
    found: dict[str, tuple[str, bool]] = {
        "gradlab": (f"{__version__} in {siblings.HOME / 'gradlab'}", True),
        "python": (f"{platform.python_version()} on {platform.platform()}", True),
    }
    for package in _PACKAGES:
        try:
            found[package] = (metadata.version(package), True)
        except metadata.PackageNotFoundError:
            found[package] = ("not installed", False)
    found["device"] = (_device(), True)
    compiler = shutil.which("g++") or shutil.which("clang++")
    found["compiler"] = (compiler or "none (g++ or clang++): compile=True is not available", True)
    for package in siblings.PACKAGES:
        said = siblings.complaint(package)
        found[package] = (said or str(siblings.found(package)), said is None)
    tables = [registry.PROBLEMS]
    if found["estimators"][1]:
        tables.append(importlib.import_module("estimators.registry").ESTIMATORS)
    for table in tables:
        for name in table.offered():
            try:
                said, fine = naming.place(table.find(name)), True
            except GradlabError as error:
                said, fine = str(error), False
            found[f"{table.kind} {name}"] = (said, fine)
    return found


def _device() -> str:
    cores = f"CPU, {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}; {cores}"
    return f"{cores}; no GPU that torch can use"


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "study": study,
    "compare": compare,
    "doctor": doctor,
}

if __name__ == "__main__":
    main()
