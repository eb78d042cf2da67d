"""What can be asked of the training command, and the problem and algorithm that are meant."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from estimators import Split
from gradlab.foundation.arguments import got, whole
from gradlab.foundation.errors import BadValue
from gradlab.foundation.placement import Placement
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.problems.problem import Problem
from gradlab.study.cells import file_name
from gradlab.tasks.base import Detachable
from gradlab.training.algorithm import Algorithm
from gradlab.training.quality import LEAST, Yardstick
from studies.train.algorithms import ALGORITHMS, FAMILIES, FLIGHTS, named

# what a training's numbers depend on: a compiled step and another device round otherwise
SETTINGS = (
    *("algorithm", "task", "seed", "updates", "hidden", "detached", "on_nonfinite"),
    *("restart", "observations", "compile", "device", "noise"),
)
WIDTH = 0.2  # of Split behind truths: on hovering less noise than 0.05 or 0.5 [margin scale]


@dataclass(frozen=True)
class Options:
    """What to train, and how to run it."""

    algorithm: Annotated[
        str,
        tyro.conf.arg(
            help=f"One of {', '.join(ALGORITHMS)}; or my_file.py:mine, a gradlab.training.algorithm."
            "Algorithm, or a function of the problem that returns one."
        ),
    ] = "shac"
    task: Annotated[
        str,
        tyro.conf.arg(
            help=f"One of {', '.join(FAMILIES)}; or my_file.py:problem, a gradlab.Problem, or a "
            "function that returns one, with its own policy; or another of gradlab.names(), or "
            "robot.xml. Sizes of such tasks are those of hovering."
        ),
    ] = "hovering"
    seed: int = 0
    """Of the policy, the critic and all noise."""
    updates: int | None = None
    """Updates of the whole training, in which learning rates go down (default: the algorithm's)."""
    out: Annotated[
        str | None, tyro.conf.arg(help_behavior_hint="(default: runs/train/ALGORITHM-TASK-SEED)")
    ] = None
    """Folder of the run. A run that was stopped goes on where it was."""
    every: int = 20
    """Updates between two evaluations and checkpoints."""
    evaluations: int = 64
    """Episodes of an evaluation, of fixed seeds that the training does not use."""
    quality: int = 0
    """Updates between two measurements of how good the algorithm's own gradient is: its bias, noise
    and direction, whether the return jumps, and its critic. 0: none."""
    quality_steps: int = 192
    """Steps of the returns against which the critic's share of the bias is seen; 0 leaves that
    out."""
    quality_truth: int = 64
    """Updates' worth of episodes behind the segment's true gradient; a quarter behind that of the
    return. More where a measurement says that it cannot tell."""
    hidden: tuple[int, ...] = ()
    """Widths of the policy's layers, such as 256 256 (default: the task's)."""
    detached: tuple[str, ...] = ()
    """Parts of the state through which a flight's rewards pass no gradient: position, attitude,
    velocity, rates. Returns stay what they are."""
    on_nonfinite: str = "stop"
    """What a gradient that is not finite does: stop, or skip the update and count it."""
    restart: Literal["between", "inside"] | None = None
    """Where episodes that are over begin anew: between two segments, or at once inside of one, as
    the released SHAC does (default: the algorithm's)."""
    observations: Literal["raw", "standardised"] | None = None
    """What networks see: numbers of the simulator, or those by running mean and deviation, which
    are constants within a segment (default: the task's; raw on flights)."""
    compile: bool = False
    """Compile the step of the simulation: worth it for long trainings."""
    device: str = "cpu"
    """Where tensors live, such as cuda."""
    noise: Annotated[
        Literal["cpu", "device"] | None,
        tyro.conf.arg(help_behavior_hint="(default: device on a GPU, cpu elsewhere)"),
    ] = None
    """Where noise is drawn: cpu, the same numbers for every device, or device, by counting."""
    render: bool = False
    """Write a GIF of an episode of the trained policy at the end."""
    tensorboard: bool = False
    """Write the log for TensorBoard too (extra tensorboard)."""
    fresh: bool = False
    """Delete what is in the folder and begin again."""

    @property
    def folder(self) -> Path:
        """That of the run."""
        algorithm, task = file_name(self.algorithm), file_name(self.task)
        return Path(self.out or f"runs/train/{algorithm}-{task}-{self.seed}")

    def check(self) -> None:
        """Raise `BadValue` for numbers out of range."""
        for name in ("every", "evaluations"):
            whole(f"--{name}", getattr(self, name))
        for name in ("quality", "quality_steps"):
            whole(f"--{name.replace('_', '-')}", getattr(self, name), 0)
        whole("--quality-truth", self.quality_truth, 4 * LEAST)
        if self.updates is not None:
            whole("--updates", self.updates)
        for width in self.hidden:
            whole("--hidden", width, hint="try --hidden 64 64")

    def due(self, number: int, last: int) -> bool:
        """Whether the state after this many updates gets a row."""
        return number % self.every == 0 or number == last or self.looks(number, last)

    def looks(self, number: int, last: int) -> bool:
        """Whether the gradient of that state is measured."""
        return self.quality > 0 and (number % self.quality == 0 or number == last)

    @property
    def yardstick(self) -> Yardstick:
        """What the gradient is measured by."""
        truth = self.quality_truth
        return Yardstick(Split(WIDTH), truth=truth, whole=truth // 4, steps=self.quality_steps)


def settings(options: Options) -> dict[str, Any]:
    """What makes a run this run: where it differs, its state is another run's."""
    kept = {name: getattr(options, name) for name in SETTINGS}
    kept["noise"] = Placement(options.device, options.noise).drawn
    return {name: list(v) if isinstance(v, tuple) else v for name, v in kept.items()}


def prepared(options: Options) -> tuple[Problem, Algorithm]:
    """The problem and the algorithm that the options name. Raises `UnknownName` or `BadValue`."""
    options.check()
    sizes = {"hidden": options.hidden} if options.hidden else None
    problem, algorithm = named(options.algorithm, options.task, sizes)
    if options.detached:
        if not isinstance(problem.task, Detachable):
            raise BadValue(
                f"--detached is for flights, got {options.task}; try one of {', '.join(FLIGHTS)}"
            )
        problem = problem.replace(task=problem.task.with_detached(*options.detached))
    if options.observations is not None:
        if not isinstance(problem.policy, GaussianPolicy):
            raise BadValue(
                f"--observations is for a GaussianPolicy, got {got(problem.policy)}; give yours "
                "normalise=True where it is made"
            )
        normalise = options.observations == "standardised"
        problem = problem.replace(policy=dataclasses.replace(problem.policy, normalise=normalise))
    placement = Placement(options.device, options.noise)
    placement.check()
    place = {"device": placement.device, "noise": placement.noise}
    problem = problem.replace(compile=options.compile, **place)
    changes: dict[str, Any] = {"on_nonfinite": options.on_nonfinite}
    if options.updates is not None:
        changes["updates"] = options.updates
    if options.restart is not None:
        changes["restart"] = options.restart
    return problem, dataclasses.replace(algorithm, **changes)
