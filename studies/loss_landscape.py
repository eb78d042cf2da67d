"""What does the objective look like around a policy, and is it smoother under SG+QG than under SG?

Around policies from random steps of training, on a plane of two random directions (plain,
normalised by filter, or the principal components of the training path), this study draws

- the return J over the whole episode, with its slope (differences of returns, with their error of
  step) and each estimator's expected gradient as arrows on the plane, judged on the same episodes;
- at random steps of the simulation, the one-step objectives of AGPO (Gao et al. 2024, Figure 3):
  SG, SG+PG and SG+QG, and Q alone;
- cuts along the first direction with 95 % bands, and the roughness of every surface with its
  interval.

Every point sees the same episodes (common random numbers). The paper's text does not say what
Figure 3 draws; the reading here is its objective of one step (equation 4 with h = 1), with states
and noise held fixed and α from equation 3 once in the centre (as the constant of equation 4 that it
is), and for comparison anew at every point. `studies/landscape_objectives.py` has the formulas.
Critics belong to the policy in the centre and are left alone as the policy moves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from gradlab import landscapes
from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.foundation.noise import Noise
from gradlab.gradients.sampling import block_generator, noise_stream
from gradlab.landscapes import Plane
from gradlab.problems.problem import Problem
from gradlab.statistics import Interval
from gradlab.statistics.roughness import compare_roughness, roughness
from gradlab.study import Artefact, Cell, Saved, cli, file_name, seed_for
from studies import landscape_arrows, landscape_objectives, landscape_policies
from studies.landscape_answer import answer
from studies.landscape_arrows import ARROWS, arrow_of, group_of
from studies.landscape_figures import plot
from studies.landscape_report import RETURN, summarise

__all__ = [
    "MINUTES",
    "PRESETS",
    "Config",
    "answer",
    "artefacts",
    "cells",
    "plot",
    "run_cell",
    "summarise",
]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Config:
    tasks: tuple[str, ...] = ("hovering",)
    """Any problem of gradlab.make; runners may name their preset, as in ant-dflex (tens of minutes;
    ant, with gymnasium's RK4 and convex contact: hours). Landing and racing (one gate) use the
    committed policies."""
    policies: int = 2
    """Policies per task, drawn at random from the training path."""
    simulation_steps: int = 3
    """Random steps t of the episode at which the one-step objectives are drawn."""
    directions: str = "plain"
    """plain (Gaussian, orthogonal), filter (rows as long as the policy's own, Li et al. 2018) or
    pca (principal components of the training path)."""
    radius: float = 0.1
    """Half the side of the plane, in lengths of the direction: of all parameters (plain), of each
    filter, or of the path's extent (pca) [1]."""
    points: int = 51
    """Grid points along each side; odd, so that the centre is one."""
    cut_points: int = 201
    """Points of the cuts along the first direction; odd."""
    episodes: int = 64
    """Episodes behind every point, the same for all."""
    strides: tuple[int, ...] = (1, 2, 4)
    """Scales of the roughness, in grid spacings."""
    alphas: tuple[str, ...] = landscape_objectives.ALPHAS
    """Where the mixtures' α is computed: centre, point. The first is the one that is drawn."""
    estimators: tuple[str, ...] = tuple(ARROWS)
    """Whose arrows are drawn: fog (SG), pg, qg, sg_pg, sg_qg (inverse-variance mixtures)."""
    arrows: int = 5
    """Arrows along each side."""
    arrow_episodes: int = 512
    """Episodes behind every arrow; a mixture, and the slope that all are judged
    by, have twice as many.
    """
    seed: int = 0
    """Seed of the choice of policies and steps, of directions and of episodes; not of training."""


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "policies": 1,
        "simulation_steps": 1,
        "points": 15,
        "cut_points": 31,
        "episodes": 16,
        "strides": (1, 2),
        "arrows": 3,
        "arrow_episodes": 64,
        "jobs": 1,
    },
    "default": {},
    "paper": {
        "tasks": ("hovering", "landing", "racing"),
        "policies": 3,
        "simulation_steps": 6,
        "episodes": 512,
        "strides": (1, 2, 4, 8),
        "arrows": 7,
        "arrow_episodes": 4096,
    },
}
MINUTES = {"smoke": 0.5}  # of the presets that were timed, on two free cores


def artefacts(config: Config) -> Iterator[Artefact]:
    """Training paths, the critics of the chosen policies,
    and the slopes that arrows are judged by.
    """
    yield from landscape_policies.artefacts_of(config.tasks, config.policies, config.seed)
    for task in config.tasks:
        for label in landscape_policies.chosen(task, config.policies, config.seed):
            yield landscape_arrows.truth_artefact(_arrow_payload(config, task, label))


def _arrow_payload(config: Config, task: str, label: int) -> dict[str, Any]:
    return {
        "task": task, "label": label, "seed": config.seed, "directions": config.directions,
        "radius": config.radius, "arrows": config.arrows, "episodes": config.arrow_episodes,
    }  # fmt: skip


def cells(config: Config) -> Iterator[Cell]:
    """Per policy: the return, each step of the simulation, and each estimator's arrows."""
    _check(config)
    size = config.points**2 * config.episodes / 1e4
    for task in config.tasks:
        horizon = landscape_policies.problem_of(task).horizon
        for label in landscape_policies.chosen(task, config.policies, config.seed):
            needs = (
                landscape_policies.path_name(task),
                landscape_policies.critic_name(task, label),
            )
            payload = _arrow_payload(config, task, label)
            judged = (*needs, landscape_arrows.truth_name(task, label))
            yield Cell(
                f"{file_name(task)}-{label}/return", {**payload, "part": "return"}, judged, size
            )
            for step in _simulation_steps(config, task, label, horizon):
                key, cost = f"{file_name(task)}-{label}/step-{step}", 0.5 * size
                yield Cell(key, {**payload, "part": "step", "step": step}, needs, cost)
            for name in config.estimators:
                key, cost = f"{file_name(task)}-{label}/arrows-{file_name(name)}", 0.2 * size
                yield Cell(key, {**payload, "part": "arrows", "estimator": name}, judged, cost)


def _simulation_steps(config: Config, task: str, label: int, horizon: int) -> list[int]:
    generator = block_generator(seed_for(config.seed, task, label, "simulation steps"), 0)
    return sorted(torch.randperm(horizon, generator=generator)[: config.simulation_steps].tolist())


def _check(config: Config) -> None:
    for task in config.tasks:
        landscape_policies.problem_of(task)
    if not config.tasks or len(set(config.tasks)) < len(config.tasks):
        raise BadValue(f"expected different tasks, got {config.tasks}; try --tasks hovering")
    if config.directions not in landscapes.KINDS:
        raise UnknownName("directions", config.directions, landscapes.KINDS)
    for name in config.estimators:
        arrow_of(name, group_of(name, config.arrow_episodes))
    for alpha in config.alphas:
        if alpha not in landscape_objectives.ALPHAS:
            raise UnknownName("alpha", alpha, landscape_objectives.ALPHAS)
    for name, least in {
        "policies": 1, "simulation_steps": 0, "episodes": 5, "arrows": 1, "arrow_episodes": 8,
    }.items():  # fmt: skip
        if getattr(config, name) < least:
            raise BadValue(f"{name} must be at least {least}, got {getattr(config, name)}")
    for points in (config.points, config.cut_points):
        landscapes.grid(config.radius, points)
    for stride in config.strides:
        if not 1 <= stride <= (config.points - 1) // 3:
            raise BadValue(
                f"strides must lie between 1 and {(config.points - 1) // 3} for {config.points} "
                f"points a side, got {stride}; try --strides 1"
            )


# ---------------------------------------------------------------------------------------- cells


@dataclass(frozen=True)
class Bench:
    """A policy, the plane around it and the columns that all rows of a cell share."""

    problem: Problem  # with the policy's critic
    plane: Plane
    described: dict[str, Any]
    seed: int

    def noise(self, name: str, count: int) -> Noise:
        """Episodes of their own for each name, whatever the count."""
        return next(noise_stream(self.problem, count, seed_for(self.seed, name), count))


def run_cell(config: Config, cell: Cell, needs: Mapping[str, Saved]) -> Iterator[dict[str, Any]]:
    """Rows of one policy's return, of one step of the simulation, or of one estimator's arrows."""
    bench, payload = _bench(config, cell, needs), cell.payload
    truth = needs.get(landscape_arrows.truth_name(payload["task"], payload["label"]))
    if payload["part"] == "arrows":
        assert truth is not None
        rows = landscape_arrows.arrow_rows(bench.problem, bench.plane, payload, truth)
    elif payload["part"] == "return":
        assert truth is not None
        rows = chain(_return_rows(config, bench), landscape_arrows.truth_rows(payload, truth))
    else:
        rows = _step_rows(config, bench, payload["step"])
    for row in rows:
        yield {**bench.described, **row}


def _bench(config: Config, cell: Cell, needs: Mapping[str, Saved]) -> Bench:
    task, label = cell.payload["task"], cell.payload["label"]
    problem = landscape_policies.problem_of(task)
    plane = landscape_arrows.plane_of(
        problem, needs[landscape_policies.path_name(task)], cell.payload
    )
    critic = landscape_policies.read_critic(needs[landscape_policies.critic_name(task, label)])
    described = {
        "task": task,
        "label": label,
        "policy": landscape_policies.describe(task, label),
        **critic.quality["q"].columns(),
        "directions": config.directions,
    }
    seed = seed_for(config.seed, task, label)
    return Bench(problem.replace(critic=critic.critic(problem)), plane, described, seed)


def _return_rows(config: Config, bench: Bench) -> Iterator[dict[str, Any]]:
    """The surface, the cut and the roughness of J."""
    noise = bench.noise("return", config.episodes)
    surface = landscapes.mesh(landscapes.grid(config.radius, config.points))
    key = {"objective": RETURN, "alpha": "-", "step": None}
    fast = landscape_policies.compiled(bench.problem)
    values = landscapes.returns_over_plane(fast, bench.plane, surface, noise)
    yield from _surface_rows(key, surface, values)
    yield from _roughness_rows(config, key, values)
    line = _line(config)
    values = landscapes.returns_over_plane(fast, bench.plane, line, noise)
    yield from _cut_rows(key, line, values)


def _step_rows(config: Config, bench: Bench, step: int) -> Iterator[dict[str, Any]]:
    """The surfaces, cuts and roughness of the one-step objectives at one step of the simulation."""
    noise = bench.noise(f"step {step}", config.episodes)
    pilot = bench.noise(f"pilot {step}", config.episodes)
    surface = landscapes.mesh(landscapes.grid(config.radius, config.points))

    def drawn(points: Tensor) -> tuple[dict, dict]:
        return landscape_objectives.objectives_over_plane(
            bench.problem, bench.plane, points, noise, pilot, step, config.alphas
        )

    values, weights = drawn(surface)
    for name, alpha in values:
        key = {"objective": name, "alpha": alpha, "step": step}
        mine = values[name, alpha]
        yield from _surface_rows(key, surface, mine, weights.get((name, alpha)))
        yield from _roughness_rows(config, key, mine)
        if name != "sg":
            yield from _pair_rows(config, key, mine, values["sg", "-"])
    line = _line(config)
    values, weights = drawn(line)
    for name, alpha in values:
        key = {"objective": name, "alpha": alpha, "step": step}
        yield from _cut_rows(key, line, values[name, alpha], weights.get((name, alpha)))


# ----------------------------------------------------------------------------------------- rows


def _line(config: Config) -> Float[Tensor, "points 2"]:
    axis = landscapes.grid(config.radius, config.cut_points)
    return torch.stack([axis, torch.zeros_like(axis)], dim=-1)


def _mean(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean over the first axis, its standard error and the number of values that are not finite.

    Those are left out, which is a bias: their number is in the row.
    """
    values = values.double()
    finite = values.isfinite()
    count = finite.sum(0)
    kept = values.where(finite, 0.0)
    mean = kept.sum(0) / count
    spread = (kept - mean).where(finite, 0.0).square().sum(0)
    return mean, (spread / (count - 1) / count).sqrt(), len(values) - count


def _points(
    kind: str,
    key: Mapping[str, Any],
    points: Float[Tensor, "points 2"],
    values: Float[Tensor, "points N"],
    alpha: Tensor | None,
) -> Iterator[dict[str, Any]]:
    """A row per point: the value, and its change from the centre on the same episodes."""
    centre = values[len(values) // 2]
    columns = (*_mean(values.mT), *_mean((values - centre).mT)[:2])
    level, level_error, lost, change, change_error = (column.tolist() for column in columns)
    weights = [None] * len(points) if alpha is None else alpha.tolist()
    for i, (a, b) in enumerate(points.tolist()):
        yield {
            "kind": kind, **key, "a": a, "b": b, "value": level[i], "stderr": level_error[i],
            "change": change[i], "change_stderr": change_error[i], "weight": weights[i],
            "episodes": values.shape[1], "nonfinite": lost[i],
        }  # fmt: skip


def _surface_rows(
    key: Mapping[str, Any], points: Tensor, values: Tensor, alpha: Tensor | None = None
) -> Iterator[dict[str, Any]]:
    return _points("surface", key, points, values, alpha)


def _cut_rows(
    key: Mapping[str, Any], points: Tensor, values: Tensor, alpha: Tensor | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of a cut, with a 95 % band (at each point) of the value and of the change."""
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, values.shape[1] - 1))
    for row in _points("cut", key, points, values, alpha):
        for name in ("value", "change"):
            error = row["stderr" if name == "value" else "change_stderr"]
            row[f"{name}_low"] = row[name] - quantile * error
            row[f"{name}_high"] = row[name] + quantile * error
        yield row


def _on_grid(config: Config, values: Float[Tensor, "points N"]) -> Float[Tensor, "N side side"]:
    return values.mT.unflatten(1, (config.points, config.points))


def _roughness_rows(
    config: Config, key: Mapping[str, Any], values: Float[Tensor, "points N"]
) -> Iterator[dict[str, Any]]:
    for stride in config.strides:
        found = roughness(_on_grid(config, values), stride, CONFIDENCE)
        yield {
            "kind": "roughness", **key, "stride": stride, **_scale(config, stride),
            **_flat("share", found.share), **_flat("variance", found.variance),
            "share_seen": found.seen, "spread": found.spread,
            "episodes": found.episodes, "nonfinite": found.nonfinite,
        }  # fmt: skip


def _pair_rows(
    config: Config, key: Mapping[str, Any], values: Tensor, sg: Tensor
) -> Iterator[dict[str, Any]]:
    """Roughness minus that of SG on the same episodes, in the objectives' unit and as a share."""
    for stride in config.strides:
        found = compare_roughness(_on_grid(config, values), _on_grid(config, sg), stride)
        yield {
            "kind": "pair", **key, "stride": stride, **_scale(config, stride),
            **_flat("difference", found.variance), "p_value": found.variance_p_value,
            **_flat("share_difference", found.share), "share_p_value": found.share_p_value,
        }  # fmt: skip


def _scale(config: Config, stride: int) -> dict[str, float]:
    """What the stride is in the plane's coordinates."""
    return {"scale": stride * 2 * config.radius / (config.points - 1)}


def _flat(name: str, interval: Interval) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), interval, strict=True))


if __name__ == "__main__":
    cli("studies.loss_landscape")
