"""What `loss_landscape` measures: the return, one-step objectives and arrows around each policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import scipy  # its parts are imported when they are used
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab import landscapes
from gradlab.foundation.noise import Noise
from gradlab.gradients.sampling import block_generator, noise_stream
from gradlab.landscapes import Plane
from gradlab.problems.problem import Problem
from gradlab.statistics.roughness import compare_roughness, roughness
from gradlab.study import Artefact, Cell, Saved, file_name, seed_for
from gradlab.study.tables import flat
from studies.loss_landscape import arrows, objectives, policies
from studies.loss_landscape.config import RETURN, Config, check

CONFIDENCE = 0.95


def artefacts(config: Config) -> Iterator[Artefact]:
    """Training paths, the critics of the chosen policies,
    and the slopes that arrows are judged by.
    """
    yield from policies.artefacts_of(config.tasks, config.policies, config.seed)
    for task in config.tasks:
        for label in policies.chosen(task, config.policies, config.seed):
            yield arrows.truth_artefact(_arrow_payload(config, task, label))


def _arrow_payload(config: Config, task: str, label: int) -> dict[str, Any]:
    return {
        "task": task, "label": label, "seed": config.seed, "directions": config.directions,
        "radius": config.radius, "arrows": config.arrows, "episodes": config.arrow_episodes,
    }  # fmt: skip


def cells(config: Config) -> Iterator[Cell]:
    """Per policy: the return, each step of the simulation, and each estimator's arrows."""
    check(config)
    size = config.points**2 * config.episodes / 1e4
    for task in config.tasks:
        horizon = policies.problem_of(task).horizon
        for label in policies.chosen(task, config.policies, config.seed):
            needs = (
                policies.path_name(task),
                policies.critic_name(task, label),
            )
            payload = _arrow_payload(config, task, label)
            judged = (*needs, arrows.truth_name(task, label))
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
    truth = needs.get(arrows.truth_name(payload["task"], payload["label"]))
    if payload["part"] == "arrows":
        assert truth is not None
        rows = arrows.arrow_rows(bench.problem, bench.plane, payload, truth)
    elif payload["part"] == "return":
        assert truth is not None
        rows = chain(_return_rows(config, bench), arrows.truth_rows(payload, truth))
    else:
        rows = _step_rows(config, bench, payload["step"])
    for row in rows:
        yield {**bench.described, **row}


def _bench(config: Config, cell: Cell, needs: Mapping[str, Saved]) -> Bench:
    task, label = cell.payload["task"], cell.payload["label"]
    problem = policies.problem_of(task)
    plane = arrows.plane_of(problem, needs[policies.path_name(task)], cell.payload)
    critic = policies.read_critic(needs[policies.critic_name(task, label)])
    described = {
        "task": task,
        "label": label,
        "policy": policies.describe(task, label),
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
    fast = policies.compiled(bench.problem)
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
        return objectives.objectives_over_plane(
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
    quantile = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, values.shape[1] - 1))
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
            **flat("share", found.share), **flat("variance", found.variance),
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
            **flat("difference", found.variance), "p_value": found.variance_p_value,
            **flat("share_difference", found.share), "share_p_value": found.share_p_value,
        }  # fmt: skip


def _scale(config: Config, stride: int) -> dict[str, float]:
    """What the stride is in the plane's coordinates."""
    return {"scale": stride * 2 * config.radius / (config.points - 1)}
