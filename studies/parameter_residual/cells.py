"""What `parameter_residual` measures: distances of trainings, gradients on the way, critics."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import estimators
import gradlab
from gradlab.critics.pairs import judge, output_pairs
from gradlab.critics.quality import Estimate
from gradlab.foundation.moment import Moment
from gradlab.foundation.placement import device
from gradlab.problems.problem import Problem
from gradlab.statistics import Interval, OracleGradient, compare
from gradlab.statistics.parts import ALL as WHOLE
from gradlab.study import Artefact, Cell, seed_for
from gradlab.study.tables import flat
from gradlab.training.critic import CriticRecipe
from gradlab.training.evaluation import evaluate_policy
from gradlab.training.loop import init, segment_of
from gradlab.training.state import TrainingState
from studies.parameter_residual.config import Config, check
from studies.parameter_residual.distances import action_gap, distance, visit
from studies.parameter_residual.trainings import (
    FULL,
    METHODS,
    NONE,
    Arm,
    Needs,
    Sizes,
    checkpoints,
    stage_name,
    stages,
)

DISTANCES, GRADIENTS, CRITICS = "distances", "gradients", "critics"  # what a cell measures
REFERENCES = ("full", "own")  # the n-step return's full gradient; that of the same method
NORMAL = 1.96  # standard errors in half a 95 % interval
SHARPNESS = 0.02  # of Split behind the truth of a critic's gradient [margin scale]


def arms(config: Config) -> list[Arm]:
    """Every kind of training, the full one first."""
    return [
        *(Arm(method, NONE, other) for other in (False, True) for method in METHODS),
        *(Arm(method, part) for part in config.parts for method in METHODS),
    ]


def seeds_of(config: Config, number: int) -> tuple[int, int]:
    """Of policy and noise, and of other noise."""
    return seed_for(config.seed, "training", number), seed_for(config.seed, "other", number)


def artefacts(config: Config) -> Iterator[Artefact]:
    """All trainings, in stages."""
    check(config)
    for number, arm in itertools.product(range(config.seeds), arms(config)):
        yield from stages(config, number, seeds_of(config, number), arm)


def cells(config: Config) -> Iterator[Cell]:
    """Per seed: at every checkpoint distances and gradients, these before training too, and critics
    at the end.
    """
    check(config)
    chosen = arms(config)
    for number in range(config.seeds):
        for at in checkpoints(config):
            payload = {"number": number, "updates": at}
            every = tuple(stage_name(number, arm, at) for arm in chosen)
            cost = 0.003 * config.evaluations * len(chosen)
            yield Cell(f"{DISTANCES}/{number}-{at}", {**payload, "of": DISTANCES}, every, cost)
        for at in (0, *checkpoints(config)):
            payload = {"number": number, "updates": at, "of": GRADIENTS}
            full = (stage_name(number, FULL, at),) if at else ()
            cost = 0.001 * config.samples * len(chosen)
            yield Cell(f"{GRADIENTS}/{number}-{at}", payload, full, cost)
        end = {"number": number, "updates": config.updates, "of": CRITICS}
        judged = tuple(stage_name(number, arm, config.updates) for arm in _judged(config))
        yield Cell(f"{CRITICS}/{number}", end, judged, 0.01 * config.pairs * len(judged))


def _judged(config: Config) -> list[Arm]:
    """Trainings whose critics are judged: the full one, and those with the 0-step return."""
    return [arm for arm in arms(config) if arm == FULL or arm.method == "abpt" and not arm.other]


def run_cell(config: Config, cell: Cell, needs: Needs) -> Iterator[dict[str, Any]]:
    """Rows of one seed, at one checkpoint."""
    number, at = cell.payload["number"], cell.payload["updates"]
    found = {DISTANCES: _distances, GRADIENTS: _gradients, CRITICS: _critics}[cell.payload["of"]]
    for row in found(config, number, at, needs):
        yield {"kind": cell.payload["of"], "number": number, "updates": at, **row}


def _distances(config: Config, number: int, at: int, needs: Needs) -> Iterator[dict[str, Any]]:
    """Every training against its references."""
    sizes = Sizes.of(config)
    problem, seed = sizes.problem(), seed_for(config.seed, "evaluation", number)
    policies = {
        arm: TrainingState.unpacked(needs[stage_name(number, arm, at)], device()).params
        for arm in arms(config)
    }
    first = init(problem, sizes.algorithm("nstep"), seeds_of(config, number)[0]).params
    returns = {
        arm: evaluate_policy(problem, params, episodes=config.evaluations, seed=seed).returns
        for arm, params in policies.items()
    }
    for name in REFERENCES:
        for method in METHODS[:1] if name == "full" else METHODS[1:]:
            reference = Arm(method, NONE)
            theirs = policies[reference]
            visited = visit(problem, theirs, config.evaluations, config.length, seed)
            moved = distance(theirs, first)
            for arm, params in policies.items():
                if arm == reference or (name == "own" and arm.method != method):
                    continue
                away = distance(params, theirs)
                gain = (returns[arm] - returns[reference]).double()
                yield {
                    **arm._asdict(),
                    "reference": name,
                    "distance": away,
                    "moved": moved,
                    "relative": away / moved,
                    "actions": action_gap(problem, params, theirs, visited),
                    "return": float(returns[arm].double().mean()),
                    "reference_return": float(returns[reference].double().mean()),
                    "gain": float(gain.mean()),
                }


def _gradients(config: Config, number: int, at: int, needs: Needs) -> Iterator[dict[str, Any]]:
    """Gradients with parts detached against those with none, at segments of the full training and
    with its critic.
    """
    sizes = Sizes.of(config)
    if at:
        state = TrainingState.unpacked(needs[stage_name(number, FULL, at)], device())
    else:
        first = seeds_of(config, number)[0]
        state = init(sizes.problem(), sizes.algorithm(FULL.method), first)
    seed = seed_for(config.seed, "gradients", number, at)
    count = max(2, math.ceil(config.samples * config.length / config.horizon))
    moments = visit(sizes.problem(), state.params, count, config.length, seed).segments
    found = {
        part: _measured(config, sizes, state, part, moments, seed) for part in (NONE, *config.parts)
    }
    again = seed_for(config.seed, "gradients again", number, at)
    full = _measured(config, sizes, state, NONE, moments, again)
    for part, method in itertools.product(found, METHODS):
        for name, of in zip(REFERENCES, (FULL.method, method), strict=True):
            if name == "own" and method == FULL.method:
                continue
            truth = OracleGradient.sampled(full[of], f"{of}, nothing detached")
            row = compare(found[part][method], truth, batch=1, only=lambda p: p == WHOLE).overall
            yield {
                **Arm(method, part)._asdict(),
                "reference": name,
                **flat("cosine", row.cosine),
                **flat("length", row.relative_norm),
                "truth_relative_stderr": truth.relative_stderr,
            }


def _measured(
    config: Config, sizes: Sizes, state: TrainingState, part: str, moments: Moment, seed: int
) -> gradlab.Measurement:
    """Both methods on the same segments from these moments, as an update of the state has them."""
    segment = segment_of(sizes.problem(part), sizes.algorithm("abpt"), state)
    assert segment.segment is not None
    segment = segment.replace(segment=replace(segment.segment, moments=moments))
    both = {method: sizes.estimator(method) for method in METHODS}
    return gradlab.measure(both, segment, state.params, config.samples, seed)


def _critics(config: Config, number: int, at: int, needs: Needs) -> Iterator[dict[str, Any]]:
    """How well each critic knows which action is better, where its own policy goes."""
    sizes = Sizes.of(config)
    problem, seed = sizes.problem(), seed_for(config.seed, "critics", number)
    for arm in _judged(config):
        state = TrainingState.unpacked(needs[stage_name(number, arm, at)], device())
        recipe = sizes.algorithm(arm.method).critic
        assert recipe is not None
        yield {**arm._asdict(), **_quality(problem, state, recipe, config.pairs, seed)}


def _quality(
    problem: Problem, state: TrainingState, recipe: CriticRecipe, count: int, seed: int
) -> dict[str, float]:
    """Cosine and relative length of ∇_u Q of the target critic, in the first half of episodes:
    the critic's task goes on for ever, the truth's ends with the episode.
    """
    split, half = estimators.Split(SHARPNESS), max(1, problem.horizon // 2)
    pairs = output_pairs(problem, state.params, split, count, seed, within=half)
    found = judge(problem, recipe.critic(problem, state.target), pairs)
    return {
        **flat("cosine", _interval(found.cosine, -1.0, 1.0)),
        **flat("length", _interval(found.relative_norm, 0.0, math.inf)),
    }


def _interval(found: Estimate, least: float, most: float) -> Interval:
    ends = (found.value, found.value - NORMAL * found.stderr, found.value + NORMAL * found.stderr)
    return Interval(*(min(max(end, least), most) for end in ends))
