"""What `estimator_in_training` measures: a cell is one training of one algorithm."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from estimators import Split
from estimators.base import Estimator
from gradlab.problems.problem import Problem
from gradlab.statistics import Interval
from gradlab.study import Cell, Saved
from gradlab.study.tables import flat
from gradlab.training.algorithm import Algorithm
from gradlab.training.ascent import segment_of
from gradlab.training.evaluation import evaluate_policy
from gradlab.training.loop import init, update
from gradlab.training.quality import Against, Yardstick, update_quality
from gradlab.training.state import TrainingState
from studies.estimator_in_training.config import Config, check
from studies.train.algorithms import named

WIDTH = 0.2  # of Split behind truths, as in studies.train [margin scale]
SECONDS = {"agpo": 1.5, "abpt": 1.3, "best_linear": 1.2}  # beside the others, roughly


def cells(config: Config) -> Iterator[Cell]:
    """Every algorithm on every task with every seed."""
    check(config)
    for task in config.tasks:
        for number in range(config.seed, config.seed + config.trainings):
            for algorithm in config.algorithms:
                payload = {"task": task, "algorithm": algorithm, "training": number}
                yield Cell(f"{task}/{number}/{algorithm}", payload, cost=SECONDS.get(algorithm, 1))


def run_cell(config: Config, cell: Cell, needs: Mapping[str, Saved]) -> Iterator[dict[str, Any]]:
    """Rows of one training: the return at every evaluation, the gradient at every state."""
    name, task = cell.payload["algorithm"], cell.payload["task"]
    problem, algorithm = named(name, task, config.sizes)
    updates = config.updates * config.length // algorithm.length or 1
    algorithm = dataclasses.replace(algorithm, updates=updates, on_nonfinite="skip")
    yardstick = Yardstick(
        Split(WIDTH), gradients=config.gradients, truth=config.truth, steps=config.steps,
        whole=max(5, config.truth // 2), pairs=8, action_pairs=2,
    )  # fmt: skip
    state = init(problem, algorithm, cell.payload["training"])
    returns: dict[int, float] = {}
    told = dict(cell.payload)
    looks = {*config.states, *(at + config.ahead for at in config.states), 0, updates}
    measured: dict[int, dict[str, Any]] = {}
    for number in range(updates + 1):
        if number in looks:
            found = evaluate_policy(
                problem, state.params, state.buffers, episodes=config.evaluations
            )
            returns[number] = found.mean.estimate
            yield {**told, "kind": "return", "updates": number, "return": returns[number]}
        if number in config.states:
            measured[number] = _measured(problem, algorithm, state, yardstick)
        if number < updates:
            state, _ = update(problem, algorithm, state)
    for number, row in measured.items():
        gain = returns[number + config.ahead] - returns[number]
        yield {**told, "kind": "state", "updates": number, "gain": gain, **row}


def _measured(
    problem: Problem, algorithm: Algorithm, state: TrainingState, yardstick: Yardstick
) -> dict[str, Any]:
    """The gradient of the next update, and what it costs over the steps of its segments."""
    found = update_quality(problem, algorithm, state, yardstick)
    segment = segment_of(problem, algorithm, state)
    estimator = algorithm.estimator
    assert isinstance(estimator, Estimator) and found.whole is not None
    cost = estimator.cost(segment).environment_steps / segment.horizon
    return {**_columns("segment", found.segment), **_columns("whole", found.whole), "cost": cost}


def _columns(name: str, one: Against) -> dict[str, float]:
    parts: dict[str, Interval] = {"bias": one.bias, "noise": one.noise, "cosine": one.cosine}
    row = {f"{name}_error": one.truth_error}
    for part, interval in parts.items():
        row |= flat(f"{name}_{part}", interval)
    return row
