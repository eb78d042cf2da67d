"""Arrows of `loss_landscape`: the slope of the return on the plane,
and what each estimator takes it for.

The slope is that of `landscapes.slopes_by_differences`: differences of returns with steps of their
own, which have nothing to do with the grid that the surface is drawn on, and with their error of
step. It is made once for a policy; every estimator is then judged on the same episodes, so that
what both see cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

import estimators
from estimators.base import Estimator
from gradlab import landscapes
from gradlab.foundation.errors import BadValue
from gradlab.foundation.noise import Noise
from gradlab.gradients.sampling import block_generator, noise_stream
from gradlab.landscapes import Plane
from gradlab.problems.problem import Problem
from gradlab.study import Artefact, Saved, file_name, seed_for
from studies.loss_landscape import policies

CHUNK = 256  # episodes of gradients at once
MIX = 64  # episodes behind a weight α of a mixture's arrows, as many as AGPO has environments
# weights α behind one arrow, at least: a single one would leave its error out of the arrow's
UNITS = 8
TRUTH = "difference"  # name of the slope itself among the arrows


def _mixture(other: Estimator) -> Callable[[int], Estimator]:
    def build(group: int) -> Estimator:
        parts = (estimators.FOG(), other)
        source = estimators.Cross(group)
        return estimators.Mixture(parts, estimators.InverseVariance(), source=source)

    return build


# name: estimator, of the episodes in a group. PG has the baseline of AGPO, appendix B; it stays
# unbiased with any
ARROWS: Mapping[str, Callable[[int], Estimator]] = {
    "fog": lambda group: estimators.FOG(),
    "pg": lambda group: estimators.PG(baseline="q"),
    "qg": lambda group: estimators.QG(),
    "sg_pg": _mixture(estimators.PG(baseline="q")),
    "sg_qg": _mixture(estimators.QG()),
}
MIXED = ("sg_pg", "sg_qg")


def arrow_of(name: str, group: int = 1) -> Estimator:
    """The estimator of an arrow: one of `ARROWS`, of `group` episodes, or one of `estimators.make`.

    Raises what `estimators.make` does, `BadValue` for another estimator that looks across episodes.
    """
    if name in ARROWS:
        return ARROWS[name](group)
    estimator = estimators.make(name)
    if estimator.group > 1:
        raise BadValue(
            f"arrows want estimators of single episodes, got {name!r}, which looks at groups of "
            f"{estimator.group}; try one of {', '.join(ARROWS)}"
        )
    return estimator


def points_of(radius: float, arrows: int) -> Float[Tensor, "points 2"]:
    """Centres of the squares of a coarse grid, so that arrows stay inside the plane."""
    side = (torch.arange(arrows, dtype=torch.float64) + 0.5) / arrows
    return landscapes.mesh(radius * (2 * side - 1))


def plane_of(problem: Problem, path: Saved, payload: Mapping[str, Any]) -> Plane:
    """The plane around the policy `label` of a task's path;
    the same for all cells of one policy.
    """
    task, label, directions = (payload[name] for name in ("task", "label", "directions"))
    centre = policies.read_policy(path, label)
    if directions == "pca":
        return landscapes.path_plane(centre, policies.read_path(path, task))
    seed = seed_for(payload["seed"], task, label)
    return landscapes.random_plane(centre, block_generator(seed, -1), directions)


def group_of(name: str, episodes: int) -> int:
    """Episodes that an estimator looks at together, when there are `episodes` per arrow."""
    return max(2, min(MIX, episodes // UNITS)) * 2 if name in MIXED else 1


def count_of(name: str, episodes: int) -> int:
    """Episodes behind one arrow; a mixture has twice as many,
    since half of a group has its α from the other.
    """
    if name not in MIXED:
        return episodes
    group = group_of(name, episodes)
    return max(1, 2 * episodes // group) * group


# ------------------------------------------------------------------------------------ the truth


def truth_name(task: str, label: int) -> str:
    return f"slopes/{file_name(task)}-{label}"


def truth_artefact(payload: Mapping[str, Any]) -> Artefact:
    """The slopes of one policy's return; `payload` has task, label, seed, directions,
    radius, arrows, episodes.
    """
    task, label = payload["task"], payload["label"]
    cost = 1e-3 * payload["arrows"] ** 2 * payload["episodes"]
    return Artefact(
        truth_name(task, label), build_truth, payload, (policies.path_name(task),), cost
    )


def build_truth(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """Samples of the slope, errors of step and steps at every arrow's point."""
    at = artefact.payload
    task = at["task"]
    problem = policies.problem_of(task)
    plane = plane_of(problem, needs[policies.path_name(task)], at)
    fast = policies.compiled(problem)
    found = []
    for k, point in enumerate(points_of(at["radius"], at["arrows"])):
        noise = _episodes(problem, at, k, max(count_of(name, at["episodes"]) for name in ARROWS))
        found.append(landscapes.slopes_by_differences(fast, plane, point, noise))
    tensors = {
        "samples": torch.stack([one.samples for one in found]),
        "truncation": torch.stack([one.truncation for one in found]),
        "step": torch.tensor([one.step for one in found], dtype=torch.float64),
    }
    return Saved(tensors)


def _episodes(problem: Problem, at: Mapping[str, Any], arrow: int, count: int) -> Noise:
    """The episodes of one arrow, the same for the truth and for every estimator."""
    seed = seed_for(seed_for(at["seed"], at["task"], at["label"]), f"arrows {arrow}")
    return next(noise_stream(problem, count, seed, count))


# ---------------------------------------------------------------------------------------- rows


def truth_rows(payload: Mapping[str, Any], truth: Saved) -> Iterator[dict[str, Any]]:
    """The slope at every point, with its error of step."""
    for k, (a, b) in enumerate(points_of(payload["radius"], payload["arrows"]).tolist()):
        yield {
            "kind": "arrow", "estimator": TRUTH, "a": a, "b": b,
            "step_of_difference": float(truth.tensors["step"][k]),
            **_columns("slope", mean_of(truth.tensors["samples"][k])),
            **_ends("truncation", truth.tensors["truncation"][k]),
            "episodes": truth.tensors["samples"].shape[1],
        }  # fmt: skip


def arrow_rows(
    problem: Problem, plane: Plane, payload: Mapping[str, Any], truth: Saved
) -> Iterator[dict[str, Any]]:
    """An estimator's expected gradient on the plane,
    and how far it is from the slope on the same episodes.

    Half of a group of a mixture's episodes has its α from the other half; groups are independent,
    and the standard error is that of their means, so that it has α's.
    """
    name, episodes = payload["estimator"], payload["episodes"]
    group, count = group_of(name, episodes), count_of(name, episodes)
    chunk = max(group, CHUNK // group * group)
    fast = policies.compiled(problem)
    estimator = arrow_of(name, group)
    for k, (a, b) in enumerate(points_of(payload["radius"], payload["arrows"]).tolist()):
        params = plane.point(a, b)
        noise = _episodes(problem, payload, k, count)
        slopes = torch.cat(
            [
                plane.slopes(estimator(fast, params, noise.rows(begin, begin + chunk)).per_sample())
                for begin in range(0, count, chunk)
            ]
        )
        true = truth.tensors["samples"][k, :count]
        yield {
            "kind": "arrow", "estimator": name, "a": a, "b": b,
            **_columns("true", mean_of(true, group)), **_columns("slope", mean_of(slopes, group)),
            **_columns("gap", mean_of(slopes - true, group)),
            **_ends("truncation", truth.tensors["truncation"][k]), "episodes": count,
        }  # fmt: skip


class Mean(NamedTuple):
    """A mean of slopes with its error."""

    value: Float[Tensor, "2"]
    stderr: Float[Tensor, "2"]
    freedom: Float[Tensor, "2"]  # of Student's law for the mean over its standard error
    lost: int  # episodes that are not finite: left out, which is a bias


def mean_of(samples: Float[Tensor, "N 2"], group: int = 1) -> Mean:
    """The mean over episodes; the standard error is that of independent groups of them.

    The degrees of freedom are the groups that the variance rests on, (Σ d²)²/Σ d⁴, less one: few
    where a jump in a handful of episodes makes all of it, and none where one episode does.
    """
    finite = samples.isfinite().all(1)
    whole = samples.unflatten(0, (-1, group))
    kept = whole[finite.unflatten(0, (-1, group)).all(1)].mean(1)
    value = kept.mean(0)
    squares = (kept - value).square()
    count = len(kept)
    stderr = (squares.sum(0) / (count - 1) / count).sqrt()
    fourth = squares.square().sum(0)
    rests = torch.where(fourth > 0, squares.sum(0).square() / fourth.where(fourth > 0, 1.0), count)
    return Mean(value, stderr, rests - 1, int((~finite).sum()))


def _columns(name: str, mean: Mean) -> dict[str, float]:
    return {
        **_ends(name, mean.value), **_ends(f"{name}_stderr", mean.stderr),
        **_ends(f"{name}_freedom", mean.freedom), "nonfinite": mean.lost,
    }  # fmt: skip


def _ends(name: str, pair: Float[Tensor, "2"]) -> dict[str, float]:
    return {f"{name}_a": float(pair[0]), f"{name}_b": float(pair[1])}
