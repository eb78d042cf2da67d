"""The trainings of `segments`, and what each one's gradient is worth where a part of it ends."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

import gradlab
from estimators import FOG, TruncatedBPTT
from gradlab.foundation.placement import device
from gradlab.gradients.measurement import measure
from gradlab.gradients.sampling import Sampler, block_generator
from gradlab.problems.problem import Problem
from gradlab.statistics import Interval
from gradlab.study import Artefact, Cell, Saved
from gradlab.training.algorithm import Algorithm
from gradlab.training.state import TrainingState
from studies.segments.config import Config, arms, setup
from studies.shared.curves import parts
from studies.shared.curves.arms import Arm

Params = dict[str, Tensor]
MEASURED = parts.MEASURED
QUANTITIES = ("bias", "cosine", "variance")  # of the gradient; variance over ‖truth‖²
LENGTH = "window"  # the mean length of windows then [steps]
BATCH = 100  # of which a report gives an error that is not used here [episodes]
FEW = 64  # episodes that it is the mean of


def artefacts(config: Config) -> Iterator[Artefact]:
    """The parts of every training."""
    for artefact in parts.artefacts(config, arms(config), build):
        yield replace(artefact, payload={**artefact.payload, "episodes": config.episodes})


def cells(config: Config) -> Iterator[Cell]:
    """One per training."""
    return parts.cells(config, arms(config))


def run_cell(config: Config, cell: Cell, needs: Mapping[str, Saved]) -> Iterator[dict[str, Any]]:
    """One row per evaluation; those at the end of a part say what the gradient is worth there."""
    nothing = {f"{name}{end}": None for name in QUANTITIES for end in ("", "_low", "_high")}
    nothing[LENGTH] = None
    for row in parts.run_cell(config, cell, needs):
        yield {**nothing, **row}


def build(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """One part of a training, and its gradient at the end of it."""
    saved = parts.train_part(artefact, needs, setup)
    payload = artefact.payload
    problem, algorithm = setup(Arm(payload["task"], payload["algorithm"], payload["variant"]))
    assert isinstance(algorithm, Algorithm)
    state = TrainingState.unpacked(saved, device())
    log = list(saved.metadata["log"])
    seed = 2 * payload["seed"]
    log[-1] = {**log[-1], **worth(problem, algorithm, state, payload["episodes"], seed)}
    return state.packed({"log": log})


def worth(
    problem: Problem, algorithm: Algorithm, state: TrainingState, episodes: int, seed: int
) -> dict[str, float]:
    """Bias, cosine and variance of an update's estimator at its policy, with its critic of now.

    Against FOG of as many other episodes, whose error is in the intervals.
    """
    problem = problem.replace(buffers=state.buffers or None)
    if algorithm.critic is not None:
        problem = problem.replace(critic=algorithm.critic.critic(problem, state.target))
    known = measure(FOG(), problem, state.params, episodes, seed=seed + 1)
    truth = gradlab.OracleGradient.sampled(known.single, "whole episodes")
    found = measure(algorithm.estimator, problem, state.params, episodes, seed=seed)
    group = algorithm.estimator.group
    (report,) = found.compare(truth, batch=group * math.ceil(BATCH / group)).values()
    row = report.overall
    values = {
        "bias": row.relative_bias,
        "cosine": row.cosine,
        "variance": Interval(*(end / row.truth_norm**2 for end in row.variance)),
    }
    found_of = {}
    for name, three in values.items():
        found_of |= dict(zip((name, f"{name}_low", f"{name}_high"), map(float, three), strict=True))
    return {**found_of, LENGTH: mean_window(problem, algorithm.estimator, state.params, seed)}


def mean_window(problem: Problem, estimator: Sampler, params: Params, seed: int) -> float:
    """T over the mean number of windows of an episode [steps]."""
    if not isinstance(estimator, TruncatedBPTT):
        return float(problem.horizon)
    noise = problem.draw(FEW, block_generator(seed, 0))
    cut = estimator.windows(problem, params, noise).cut
    return problem.horizon / (1 + float(cut.double().sum(-1).mean()))
