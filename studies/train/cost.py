"""What an update costs beside what it cannot do without, in processor time:
`python -m studies.train.cost --algorithm shac --task hovering`.

The rest is one forward and backward pass of the estimator's own loss for the whole batch, by
ordinary autograd through its rollouts, and the critic's steps. A mixture has the losses of its
parts, each with a rollout of its own.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
import tyro
from torch import Tensor

from estimators import FOG, Mixture, Switch
from estimators.base import SurrogateEstimator, TwoPassEstimator
from gradlab.foundation.arguments import whole
from gradlab.foundation.errors import BadValue
from gradlab.foundation.generators import generator
from gradlab.foundation.memory import keep_freed_memory
from gradlab.foundation.noise import Noise
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.problem import Problem
from gradlab.study.commandline import guarded, read_options
from gradlab.training.algorithm import Algorithm
from gradlab.training.ascent import gradient_of, segment_of
from gradlab.training.loop import init, update
from gradlab.training.state import TrainingState
from studies.shared.medians import median_interval
from studies.train.algorithms import ALGORITHMS, FAMILIES, named

Losses = SurrogateEstimator | TwoPassEstimator


@dataclass(frozen=True)
class Options:
    """Which update to time."""

    algorithm: Annotated[str, tyro.conf.arg(help=f"One of {', '.join(ALGORITHMS)}.")] = "shac"
    task: Annotated[str, tyro.conf.arg(help=f"One of {', '.join(FAMILIES)}.")] = "hovering"
    rounds: int = 21
    """Rounds, in each of which the update and its parts run once, in turn."""


def loss_of(problem: Problem, algorithm: Algorithm, state: TrainingState) -> Callable[[], object]:
    """One forward and backward pass of the mean of the estimator's surrogate, or of each part's.

    Raises `BadValue` for an estimator without one, as evolution strategies are.
    """
    segment = segment_of(problem, algorithm, state)
    parts = _parts(algorithm.now(state).estimator)
    noise = segment.noise_from(state.episodes, generator("cost"))

    def work() -> object:
        leaves = {n: value.detach().requires_grad_() for n, value in state.params.items()}
        policy = segment.bind(leaves)
        return [
            torch.autograd.grad(
                _surrogate(part, segment, policy, noise).mean(), list(leaves.values()),
                allow_unused=True,
            )
            for part in parts
        ]  # fmt: skip

    return work


def _parts(estimator: object) -> tuple[Losses, ...]:
    """Those that have a loss."""
    if isinstance(estimator, Losses):
        return (estimator,)
    if isinstance(estimator, Mixture):
        return tuple(loss for part in estimator.parts for loss in _parts(part))
    if isinstance(estimator, Switch):
        return (FOG(), *_parts(estimator.zeroth))
    raise BadValue(f"{estimator} has no loss of its own; try --algorithm shac")


def _surrogate(estimator: Losses, segment: Problem, policy: BoundPolicy, noise: Noise) -> Tensor:
    if isinstance(estimator, SurrogateEstimator):
        return estimator.surrogate(segment, policy, noise)
    with torch.no_grad():
        given = estimator.first_pass(segment, policy.frozen, noise)
    return estimator.surrogate(segment, policy, noise, given)


def fit_of(problem: Problem, algorithm: Algorithm, state: TrainingState) -> Callable[[], object]:
    """The critic's steps after a segment, and nothing before them."""
    recipe = algorithm.critic
    if recipe is None:
        return lambda: None
    ascent = gradient_of(problem, algorithm, state)
    policy = ascent.segment.bind(state.params).frozen
    common = ascent.segment, policy, state.target, ascent.path, ascent.result
    wanted = recipe.targets(*common, generator("cost"))
    start = ascent.segment, state.critic, state.critic_memory, wanted
    return lambda: recipe.fit(*start, generator("cost"), 0.0)


def times(problem: Problem, algorithm: Algorithm, rounds: int) -> dict[str, list[float]]:
    """Processor time of the update, the loss and the fit in every round [s]."""
    state = init(problem, algorithm, 0)
    for _ in range(3):
        state, _ = update(problem, algorithm, state)
    calls = {
        "update": lambda: update(problem, algorithm, state),
        "loss": loss_of(problem, algorithm, state),
        "fit": fit_of(problem, algorithm, state),
    }
    for call in calls.values():  # the first is of another price
        call()
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.process_time()
            call()
            spent[name].append(time.process_time() - begin)
    return spent


def report(options: Options) -> str:
    """The ratio with its interval, and the parts."""
    rounds = whole("--rounds", options.rounds, 6)  # fewer have no interval at 95 %
    problem, algorithm = named(options.algorithm, options.task)
    spent = times(problem, algorithm, rounds)
    by_round = zip(*spent.values(), strict=True)
    ratio = median_interval(update / (loss + fit) for update, loss, fit in by_round)
    middle = {name: 1e3 * median_interval(values).estimate for name, values in spent.items()}
    return (
        f"An update of {options.algorithm} on {options.task} takes {ratio.estimate:.2f} "
        f"[{ratio.low:.2f}, {ratio.high:.2f}] of its loss, forward and backward, and its critic's "
        f"steps: {middle['update']:.0f} ms beside {middle['loss']:.0f} + {middle['fit']:.0f} ms "
        f"(processor time, medians of {rounds} rounds, {algorithm.episodes} episodes of "
        f"{algorithm.length} steps)."
    )


def main(args: list[str]) -> str:
    """The report that a command line asks for."""
    torch.set_num_threads(1)
    keep_freed_memory()
    about = "Times one update beside its parts."
    names = ["--algorithm", "--task", "--rounds"]
    return report(read_options(Options, args, Options(), names, "studies.train.cost", about))


if __name__ == "__main__":
    given = sys.argv[1:]
    guarded("cost", shlex.join(["python", "-m", "studies.train.cost", *given]), lambda: main(given))
