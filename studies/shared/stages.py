"""Policies at stages of training, defined by how often they succeed on the hard task.

At 0 % and at 100 % success an event has no gradient to find, so estimators are compared on policies
in between. Spawns and horizons are chosen such that success can happen within the horizon.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

import estimators
from gradlab.foundation.errors import BadValue, GradlabError
from gradlab.gradients.occurrence import event_counts
from gradlab.gradients.sampling import block_generator
from gradlab.oracle.closed_forms.relaxation import WIDEST
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.problems import registry
from gradlab.problems.problem import Problem
from gradlab.study import Artefact, Saved, file_name, seed_for
from gradlab.study.progress import Notes

Params = dict[str, Tensor]


class Setting(NamedTuple):
    """A flight task as the studies use it."""

    options: dict[str, Any]  # of `gradlab.make`
    horizon: int  # [steps]
    event: str  # success
    width: float  # of the relaxation that the policy is trained on, fraction of the margin's scale
    learning_rate: float  # of the first update; times DECAY after each


FLIGHTS = {
    "landing": Setting(
        {"spawn_mean": (2.0, 0.0, 0.35), "spawn_half_range": (0.2, 0.2, 0.1)},
        48,
        "success",
        0.3,
        2e-3,
    ),
    "racing": Setting({"gates": 1}, 48, "passed", 0.5, 5e-4),
    "hovering": Setting(
        {"success_event": True, "spawn_half_range": (0.5, 0.5, 0.3)}, 48, "success", 0.5, 2e-3
    ),
}
KNOWN = ("gate", "heaviside", "terminal_gate")
WIDTH, LEARNING_RATE = 0.3, 5e-4  # for tasks of users
STAGES = (10, 60, 95)  # per cent of episodes that succeed
HIDDEN = (64, 64)


def setting_of(task: str) -> Setting:
    """How a task is trained; one of a user's succeeds where its first event with a bonus happens.

    Raises `UnknownName` for a task that `gradlab.make` does not know either, `BadValue` for one
    without such an event.
    """
    if task in FLIGHTS:
        return FLIGHTS[task]
    problem = registry.make(task)
    for event in problem.task.events:
        if event.bonus > 0:
            return Setting({}, problem.horizon, event.name, WIDTH, LEARNING_RATE)
    raise BadValue(
        f"expected a task with an event to succeed in, got {task!r}, which has none with a bonus; "
        f"try one of {', '.join([*FLIGHTS, *KNOWN])}"
    )


def check_training(width: float, learning_rate: float) -> None:
    """Raises `BadValue` for options with which no policy of a user's task can be trained."""
    if not 0 < width <= WIDEST:
        raise BadValue(
            f"train_width must be positive and at most {WIDEST:g} margin scales, got {width:g}; "
            f"try {WIDTH:g}"
        )
    if not 0 < learning_rate < 1:
        raise BadValue(
            f"learning_rate must be between 0 and 1, got {learning_rate:g}; try {LEARNING_RATE:g}"
        )


def problem_of(task: str) -> Problem:
    """The problem of a task as the studies set it, and any other as `gradlab.make` does.

    Raises what `setting_of` does, and `BadValue` for one whose events are relaxed.
    """
    if task in KNOWN:
        return registry.make(task, dtype=torch.float64)
    setting = setting_of(task)
    if task not in FLIGHTS:
        return hard(task, registry.make(task))
    problem = registry.make(task, horizon=setting.horizon, **setting.options)
    policy = GaussianPolicy(problem.task.observation_dim, 4, hidden=HIDDEN, input_gain=10.0)
    return problem.replace(policy=policy)


def hard(task: str, problem: Problem) -> Problem:
    """The problem of a task, if its events are hard: studies relax by widths that they tell.

    Raises `BadValue` for a relaxed one.
    """
    if not problem.hard:
        raise BadValue(
            f"expected a task with hard events, which the study relaxes itself, got {task!r} with "
            f"{problem.event_step}; give it without .relaxed(...)"
        )
    return problem


def success_rate(
    problem: Problem, params: Params, event: str, count: int = 4096, seed: int = 0
) -> float:
    """Share of episodes in which the hard event happens while alive."""
    return event_counts(problem, params, count, seed)[event] / count


def policies(
    task: str,
    seed: int,
    asked: Iterable[int] = STAGES,
    width: float = WIDTH,
    learning_rate: float = LEARNING_RATE,
) -> Artefact:
    """The artefact with one task's policies at the stages that are asked for [%].

    The flights have theirs at all `STAGES`, with the width [margin scale] and learning rate of
    their own.
    """
    setting = setting_of(task)
    if task not in FLIGHTS:
        setting = setting._replace(width=width, learning_rate=learning_rate)
    payload = {
        "task": task,
        "seed": seed,
        "stages": list(STAGES) if task in FLIGHTS else sorted(asked),
        "setting": list(setting._replace(options={})) + [str(setting.options)],
        "hidden": list(HIDDEN),
        "ascent": [EVALUATE_EVERY, BATCH, DECAY],
    }
    return Artefact(policies_name(task), train_to_stages, payload, cost=600.0)


def policies_name(task: str) -> str:
    """Of the artefact with one task's policies."""
    return f"policies/{file_name(task)}"


def read_policy(saved: Saved, stage: int) -> Params:
    """One stage's parameters out of the artefact."""
    prefix = f"{stage}/"
    return {n.removeprefix(prefix): v for n, v in saved.tensors.items() if n.startswith(prefix)}


def train_to_stages(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """Seeded Adam ascent of the relaxed objective, stopped where the hard success rate is reached.

    When a stage lies between two evaluations, the policy on the straight line between the two that
    has the stage's rate (by bisection, on common random numbers) is kept. Raises `GradlabError` for
    a stage that is out of reach, and for one that an untrained policy is beyond.
    """
    task, seed = artefact.payload["task"], artefact.payload["seed"]
    setting, problem = _setting_in(artefact), problem_of(task)
    eval_seed = seed_for(seed, artefact.name, "evaluation")

    def rate(params: Params) -> float:
        return success_rate(problem, params, setting.event, seed=eval_seed)

    ascent = Ascent(problem, setting, seed_for(seed, artefact.name, "ascent"))
    before = ascent.params
    tensors: Params = {}
    metadata: dict[str, Any] = {"command": "python -m studies.bias_vs_relaxation --retrain"}
    left = list(artefact.payload["stages"])
    untrained = rate(before)
    if untrained >= left[0] / 100:
        raise GradlabError(
            f"stage {left[0]} of {task} cannot be had: an untrained policy succeeds in "
            f"{untrained:.0%} of episodes; try a harder start of the task, or --stages above that"
        )
    tell = Notes()
    while left:
        ascent.run(EVALUATE_EVERY)
        after, rate_after = ascent.params, rate(ascent.params)
        tell(f"{artefact.name}: {ascent.updates} updates, success {rate_after:.1%}")
        while left and rate_after >= left[0] / 100:
            stage = left.pop(0)
            params = _between(before, after, stage / 100, rate)
            tensors |= {f"{stage}/{name}": value for name, value in params.items()}
            metadata[str(stage)] = {"success_rate": rate(params), "updates": ascent.updates}
        if ascent.updates > MAX_UPDATES:
            raise GradlabError(
                f"{task} reached {rate_after:.0%} success after {ascent.updates} updates, not "
                f"{left[0]} %; {_advice(task, setting)}"
            )
        before = after
    return Saved(tensors, metadata)


def _setting_in(artefact: Artefact) -> Setting:
    """The task's, with the width and the learning rate that the artefact says."""
    *_, width, learning_rate, _ = artefact.payload["setting"]
    setting = setting_of(artefact.payload["task"])
    return setting._replace(width=width, learning_rate=learning_rate)


def _advice(task: str, setting: Setting) -> str:
    if task in FLIGHTS:
        return "try another learning rate or width in studies.shared.stages.FLIGHTS"
    return (
        f"try --train-width {min(2 * setting.width, WIDEST):g} or --learning-rate "
        f"{4 * setting.learning_rate:g} (they were {setting.width:g} and "
        f"{setting.learning_rate:g}), lower --stages, or an easier start of the task"
    )


EVALUATE_EVERY = 10  # updates
MAX_UPDATES = 1500
BATCH = 128  # episodes per update
DECAY = 0.996  # of the learning rate, per update [1]


class Ascent:
    """Adam on the relaxed objective, by its first-order gradient."""

    def __init__(self, problem: Problem, setting: Setting, seed: int) -> None:
        self.problem = problem
        self.estimator = estimators.RelaxedFOG(setting.width)
        self.seed = seed
        self.updates = 0
        start = problem.init(block_generator(seed, -1))
        self._leaves = {name: torch.nn.Parameter(value) for name, value in start.items()}
        self._adam = torch.optim.Adam(
            self._leaves.values(), lr=setting.learning_rate, betas=(0.9, 0.95)
        )

    @property
    def params(self) -> Params:
        """A copy of the parameters."""
        return {name: leaf.detach().clone() for name, leaf in self._leaves.items()}

    def run(self, updates: int) -> None:
        """So many updates, each on fresh episodes, with the gradient's norm limited to 1."""
        for _ in range(updates):
            noise = self.problem.draw(BATCH, block_generator(self.seed, self.updates))
            gradient = self.estimator(self.problem, self.params, noise).mean()
            for name, leaf in self._leaves.items():
                leaf.grad = -gradient[name]
            torch.nn.utils.clip_grad_norm_(self._leaves.values(), 1.0)
            self._adam.step()
            self._adam.param_groups[0]["lr"] *= DECAY
            self.updates += 1


def _between(before: Params, after: Params, target: float, rate: Any) -> Params:
    """The first point found on the line from `before` to `after` with a rate near the target."""
    low, high = 0.0, 1.0
    middle = after
    for _ in range(8):
        share = 0.5 * (low + high)
        middle = {name: before[name] + share * (after[name] - before[name]) for name in before}
        here = rate(middle)
        if abs(here - target) < 0.01:
            break
        low, high = (share, high) if here < target else (low, share)
    return middle


def known_policy(task: str) -> Params:
    """The skewed policy of a known-answer problem."""
    return problem_of(task).reference
