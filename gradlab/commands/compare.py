"""`gradlab compare`: estimators on a problem of your own, or on one of gradlab's."""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
from torch import Tensor

from gradlab.commands import comparison
from gradlab.foundation import naming
from gradlab.foundation.checkpoints import check_shapes, load
from gradlab.foundation.errors import BadShape, BadValue
from gradlab.foundation.generators import generator
from gradlab.foundation.memory import keep_freed_memory
from gradlab.foundation.placement import Placement, placed
from gradlab.gradients.measurement import measure
from gradlab.policies.normalised import MEAN
from gradlab.problems import registry
from gradlab.problems.problem import Problem
from gradlab.statistics import OracleGradient
from gradlab.study.progress import note
from gradlab.training.optimiser import Tensors
from gradlab.training.state import FORMAT, TrainingState

# in what a training's state has another policy than the problem of the same name
OF_TRAINING = (
    "a training by name has a policy of its own: prepared(Options('shac', 'hovering'))[0] of "
    "studies.train.options is its problem, to be named as my_file.py:problem"
)
_LINE_EVERY = 5.0  # of a truth that is being sampled [s]


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
        "that returns one), or robot.xml, an MJCF file",
    )  # fmt: skip
    parser.add_argument(
        "--simplify", nargs="+", default=[], metavar="WHAT",
        help="of an MJCF file: contacts, friction, to be left out where they are not simulated",
    )  # fmt: skip
    for name, text in (
        ("place", "the body or site that the task is about (default: by the task)"),
        ("keyframe", "where episodes start, by name or number (default: the first, if any)"),
    ):
        parser.add_argument(f"--{name}", metavar="NAME", help=f"of an MJCF file: {text}")
    parser.add_argument(
        "--task", metavar="NAME", help="of an MJCF file: reach, track, stand or run (default: stand)",
    )  # fmt: skip
    parser.add_argument(
        "--estimators", nargs="+", default=["fog", "pg", "split"], metavar="NAME",
        help="names of estimators.names(), or my_file.py:Mine (default: fog pg split)",
    )  # fmt: skip
    parser.add_argument(
        "--params", metavar="FILE", help="whose gradients: a file that gradlab.checkpoints.save wrote, the "
        "state.safetensors of studies.train, or "
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
    parser.add_argument(
        "--device", default="cpu", help="where the problem is made: cpu or cuda (%(default)s)"
    )
    parser.add_argument(
        "--noise", choices=("cpu", "device"), help="where noise is drawn: cpu, the same numbers for "
        "every device, or device, by counting (default: device on a GPU, cpu elsewhere)",
    )  # fmt: skip
    parser.add_argument(
        "--figure", metavar="FILE", help="the comparison as a picture: FILE.png and FILE.svg"
    )
    parser.add_argument("--csv", metavar="FILE", help="all rows, by layer too, for another program")
    return parser


def run(args: Sequence[str]) -> None:
    """Compares estimators on a problem: my_file.py:problem --estimators fog pg mine.py:Mine."""
    keep_freed_memory()
    given = _parser().parse_args(args)
    placement = Placement(given.device, given.noise)
    placement.check()
    with placed(placement):
        _compare(given)


def _compare(given: argparse.Namespace) -> None:
    for name in ("count", "batch", "most"):
        if getattr(given, name) < 1:
            raise BadValue(f"expected --{name} of at least 1, got {getattr(given, name)}")
    if not given.stderr > 0:
        raise BadValue(f"expected a positive --stderr, got {given.stderr}; try 0.05")
    if len(set(given.estimators)) < len(given.estimators):
        raise BadValue("expected different --estimators, got one twice; leave it out")
    estimators = importlib.import_module("estimators")
    of_file: dict[str, Any] = {"simplify": given.simplify} if given.simplify else {}
    if given.place is not None:
        of_file["place"] = given.place
    if given.keyframe is not None:
        of_file["keyframe"] = int(given.keyframe) if given.keyframe.isdigit() else given.keyframe
    problem = registry.make(given.problem, task=given.task, **of_file)
    samplers = {name: estimators.make(name) for name in given.estimators}
    for sampler in samplers.values():
        sampler.check(problem)
    problem, params, policy = _policy(problem, given.params, given.seed)
    oracle = estimators.PG() if given.truth == "pg" else estimators.Split(comparison.TRUTH_WIDTH)
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
    checks = comparison.spot_checks(problem, params, samplers, given.seed)
    happened = comparison.event_sentences(problem, params, measured, given.seed)
    compared = comparison.comparison_of(problem, measured, truth, batch, policy, checks, happened)
    print(compared)
    if given.figure is not None:
        compared.figure(given.figure)
    if given.csv is not None:
        _write(given.csv, compared.to_frame())


def _told(wanted: float) -> Callable[[OracleGradient], None]:
    """Says now and then how well a truth is known."""
    last = [time.monotonic()]

    def tell(truth: OracleGradient) -> None:
        if time.monotonic() - last[0] > _LINE_EVERY:
            last[0] = time.monotonic()
            note(f"truth: known to {truth.relative_stderr:.1%} ({wanted:.1%} wanted)")

    return tell


def _policy(problem: Problem, given: str | None, seed: int) -> tuple[Problem, Tensors, str]:
    """The problem with the statistics of observations that belong to the parameters; these, in its
    dtype and on its device; and whose they are, in words.
    """
    cast = {"dtype": problem.dtype, "device": problem.device}
    fresh = problem.init(generator("policy", seed))
    if given is None:
        if problem.skewed:
            with suppress(BadShape):  # its policy was replaced
                return problem, problem.reference, "the problem's own policy"
        return problem, fresh, f"a new policy, not trained (seed {seed}; --params takes yours)"
    statistics, trained = problem.buffers, False
    if ":" in given and not Path(given).is_file():
        found: Any = naming.load(given, "params")
        found = found(problem) if callable(found) else found
    else:
        saved = load(given)
        found = saved.tensors
        trained = saved.metadata.get("format") == FORMAT
        if trained:  # with its statistics
            state = TrainingState.unpacked(saved)
            found, statistics = state.params, state.buffers or None
    if not isinstance(found, dict) or not all(isinstance(p, Tensor) for p in found.values()):
        raise BadValue(
            f"expected a dict of tensors from --params {given}, got {type(found).__name__}"
        )
    try:
        check_shapes(found, {n: tuple(p.shape) for n, p in fresh.items()}, f"--params {given}")
    except BadShape as error:
        if not trained:
            raise
        raise BadShape(f"{error} ({OF_TRAINING})") from None
    if statistics is None and MEAN in problem.bind(fresh).buffers:
        raise BadValue(
            f"the policy of {problem.name} standardises what it observes, and --params {given} has no "
            "statistics for it; try the state.safetensors of a training, or a problem with buffers="
        )
    params = {name: p.detach().to(**cast) for name, p in found.items()}
    return problem.replace(buffers=statistics), params, f"the policy of {given}"


def _write(path: str, rows: pd.DataFrame) -> None:
    try:
        rows.to_csv(path, index=False)
    except OSError as error:
        raise BadValue(f"cannot write {path}: {error.strerror}; try another --csv") from None
