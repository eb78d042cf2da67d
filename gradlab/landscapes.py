"""Planes in parameter space, and functions of the parameters drawn over them.

A plane is θ(a, b) = centre + a·first + b·second. Grid points are one more batch dimension: the
parameters of a chunk of points are stacked [points, *shape] and mapped over by `torch.func.vmap`,
every point on the same episodes (common random numbers), so that differences between points are
those of the function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.errors import BadShape, BadValue
from gradlab.foundation.noise import Noise
from gradlab.policies.stacked import StackedPolicy
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import rollout

Params = dict[str, Tensor]
KINDS = ("plain", "filter", "pca")
MEMORY_EPISODES = 8192  # of 64 steps at once; about 200 MiB on a quadrotor in float32
# steps of differences, each half of the one before, in lengths of a direction [1]
STEPS = tuple(0.016 / 2**k for k in range(7))
AGREED = 0.1  # of its standard error: a change of a slope that is as good as none


@dataclass(frozen=True)
class Plane:
    """θ(a, b) = centre + a·first + b·second; the directions need not be orthogonal."""

    centre: Params
    first: Params
    second: Params

    def __post_init__(self) -> None:
        shapes = [{n: tuple(v.shape) for n, v in p.items()} for p in self._parts]
        if not shapes[0] == shapes[1] == shapes[2]:
            raise BadShape(
                "a plane needs directions with the names and shapes of its centre; "
                "build them from the same policy's parameters"
            )

    @property
    def _parts(self) -> tuple[Params, Params, Params]:
        return self.centre, self.first, self.second

    def at(self, points: Float[Tensor, "points 2"]) -> Params:
        """Parameters of every point, stacked: {name: [points, *shape]}."""
        stacked: Params = {}
        for name, centre in self.centre.items():
            a, b = (points[:, k].to(centre).reshape(-1, *[1] * centre.ndim) for k in (0, 1))
            stacked[name] = centre + a * self.first[name] + b * self.second[name]
        return stacked

    def point(self, a: float, b: float) -> Params:
        """Parameters of one point."""
        one = self.at(torch.tensor([[a, b]], dtype=torch.float64))
        return {name: value[0] for name, value in one.items()}

    def slopes(self, gradients: Params) -> Float[Tensor, "N 2"]:
        """⟨g_i, first⟩ and ⟨g_i, second⟩ of gradients {name: [N, *shape]}, in float64.

        These are the derivatives along a and b, so they are the gradient of the surface as drawn,
        for orthogonal and for oblique directions alike.
        """
        columns = []
        for direction in (self.first, self.second):
            parts = [
                gradients[n].reshape(len(gradients[n]), -1).double() @ d.flatten().double()
                for n, d in direction.items()
            ]
            columns.append(torch.stack(parts).sum(0))
        return torch.stack(columns, dim=-1)


def random_plane(centre: Params, generator: torch.Generator, kind: str = "plain") -> Plane:
    """A plane through `centre` along two random directions.

    - "plain": Gaussian, orthogonal to each other, both as long as the parameters together.
    - "filter": each row of a weight matrix (what feeds one unit) is as long as the centre's row,
      and parameters of one dimension (biases, log std) do not move: Li et al. 2018, *Visualizing
      the loss landscape of neural nets*, section 4. Nearly, not exactly, orthogonal.

    Directions are drawn in float64 on the CPU and cast. Raises `BadValue` for another kind and for
    a policy with fewer than two parameters that can move.
    """
    if kind not in ("plain", "filter"):
        raise BadValue(f"a random plane's kind must be plain or filter, got {kind!r}")
    drawn = [
        {
            n: torch.randn(v.shape, generator=generator, dtype=torch.float64)
            for n, v in centre.items()
        }
        for _ in range(2)
    ]
    if kind == "filter":
        first, second = ({n: _like_rows(d[n], v) for n, v in centre.items()} for d in drawn)
        flat = torch.stack([_flat(first), _flat(second)])
        if torch.linalg.matrix_rank(flat) < 2:
            raise BadValue(
                "filter normalisation leaves no plane here: the weights are zero or there is only "
                "one of them; try directions='plain'"
            )
        return _plane(centre, first, second)
    first, second = (_flat(d) for d in drawn)
    if len(first) < 2:
        raise BadValue(f"a plane needs at least two parameters, this policy has {len(first)}")
    length = _flat(centre).norm()
    if not length > 0:
        raise BadValue("a plain direction is as long as the parameters, and they are all zero")
    first = first / first.norm()
    second = second - (second @ first) * first
    return _plane(
        centre, _unflat(first * length, centre), _unflat(second * (length / second.norm()), centre)
    )


def path_plane(centre: Params, path: Sequence[Params]) -> Plane:
    """The plane of the first two principal components of path − centre, as in Li et al. 2018, 7.

    Each direction is as long as the path's largest excursion along it, so that the path lies within
    ±1. Raises `BadValue` if the path has fewer than two points away from one line through the
    centre.
    """
    flat = torch.stack([_flat(p) for p in path]) - _flat(centre)
    _, sizes, directions = torch.linalg.svd(flat, full_matrices=False)
    # rank as torch.linalg.matrix_rank defines it
    threshold = max(flat.shape) * torch.finfo(flat.dtype).eps * float(sizes[0])
    if len(sizes) < 2 or not float(sizes[1]) > threshold:
        raise BadValue(
            f"the {len(path)} points of the training path span no plane around the centre; "
            "keep more of the path, or try directions='plain'"
        )
    # the sign of a singular vector is arbitrary: the path's end is on the positive side
    lengths = (flat @ directions[:2].mT).abs().amax(0)
    signs = torch.where(flat[-1] @ directions[:2].mT < 0, -1.0, 1.0)
    first, second = (_unflat(directions[k] * lengths[k] * signs[k], centre) for k in range(2))
    return _plane(centre, first, second)


def grid(radius: float, points: int) -> Float[Tensor, "points"]:
    """`points` coordinates from −radius to radius, the middle one exactly 0; `points` is odd."""
    if points < 3 or points % 2 == 0:
        raise BadValue(f"a grid needs an odd number of points, 3 or more, got {points}; try 51")
    if not (radius > 0 and math.isfinite(radius)):
        raise BadValue(f"a grid's radius must be a positive number, got {radius}; try 0.5")
    half = points // 2
    return torch.arange(-half, half + 1, dtype=torch.float64) * (radius / half)


def mesh(axis: Float[Tensor, "n"]) -> Float[Tensor, "n_squared 2"]:
    """Points (a, b) of the square grid, b running fastest."""
    return torch.cartesian_prod(axis, axis)


def over_plane(
    function: Callable[[Params], Any],
    plane: Plane,
    points: Float[Tensor, "points 2"],
    chunk: int,
) -> Any:
    """`function(params)` at every point: its tensors (or a dict of them) get a leading [points].

    `function` sees the parameters of one point and must be pure torch; `chunk` points are in memory
    at once and change nothing else.
    """
    if chunk < 1:
        raise BadValue(f"chunk must be at least 1 point, got {chunk}")
    pieces = []
    with torch.no_grad():
        mapped = torch.func.vmap(function)
        for part in points.split(chunk):
            pieces.append(mapped(plane.at(part)))
    if isinstance(pieces[0], dict):
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
    return torch.cat(pieces)


def returns_over_plane(
    problem: Problem,
    plane: Plane,
    points: Float[Tensor, "points 2"],
    noise: Noise,
    chunk: int | None = None,
) -> Float[Tensor, "points N"]:
    """The return Σ_t γ^t alive_t r_t of every episode of `noise` at every point, in the problem's
    dtype.

    `chunk` points at once; by default as many as make about `MEMORY_EPISODES` episodes of 64 steps.
    Only the policy is mapped over points; to the simulator they are more episodes, so that it may
    be compiled. Raises `BadShape` if noise or parameters are another problem's.
    """
    problem.check_noise(noise)
    problem.policy.check(plane.centre, problem.dtype)
    chunk = min(chunk or points_at_once(problem, noise.count), len(points))
    if chunk < 1:
        raise BadValue(f"expected at least 1 point and a chunk of at least 1, got {chunk}")
    mapped, buffers = StackedPolicy(problem.policy), problem.bind(plane.centre).buffers
    pieces = []
    with torch.no_grad():
        for part in points.split(chunk):
            # compiled code is made for one number of points
            full = torch.cat((part, part[-1:].expand(chunk - len(part), 2)))
            episodes = Noise(*(x.expand(chunk, *x.shape) for x in noise))
            path = rollout(problem, mapped.bind(plane.at(full), buffers), episodes)
            pieces.append(evaluate(problem, path).value.sum(-1)[: len(part)])
    return torch.cat(pieces)


class Slopes(NamedTuple):
    """The gradient of the mean return on a plane at one point,
    from differences of returns alone.
    """

    samples: Float[Tensor, "N 2"]  # one per episode, in float64; NaN where a return is not finite
    truncation: Float[Tensor, "2"]  # what half the step changes in their mean: their error of step
    step: float  # h; the samples are Richardson's, from h and h/2


def slopes_by_differences(
    problem: Problem,
    plane: Plane,
    point: Float[Tensor, "2"],
    noise: Noise,
    steps: Sequence[float] = STEPS,
) -> Slopes:
    """∂J/∂a and ∂J/∂b at one point, by central differences of every episode's return.

    With D(h) the difference over 2h, Richardson's R(h) = (4 D(h/2) − D(h))/3 has an error of order
    h⁴. From the largest of `steps` down (each half of the one before, three at least), the first
    R(h) is taken that agrees with R(h/2) within the paired noise of the two, on both axes together;
    where none does, the last one. Large steps come first because the return of an episode with a
    hard event jumps: the variance of D grows as 1/h. R(h) − R(h/2) is held as `truncation`,
    whatever it is: an error that more episodes do not lessen. A jump that happened in no episode of
    `noise` is in neither error.
    """
    if len(steps) < 3 or any(abs(b / a - 0.5) > 1e-9 for a, b in pairwise(steps)):
        raise BadValue(
            f"expected three steps or more, each half of the one before, got {tuple(steps)}; "
            "try (0.004, 0.002, 0.001)"
        )
    axes = torch.tensor([[1, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)

    def central(h: float) -> Float[Tensor, "N 2"]:
        ends = returns_over_plane(problem, plane, point + h * axes, noise).double()
        return ((ends[0::2] - ends[1::2]) / (2 * h)).mT

    differences = [central(h) for h in steps[:2]]
    found = (4 * differences[1] - differences[0]) / 3
    gap, k = torch.zeros_like(found), 0
    for k, last in enumerate(steps[2:]):
        differences.append(central(last))
        finer = (4 * differences[-1] - differences[-2]) / 3
        kept = (found.isfinite() & finer.isfinite()).all(1)
        gap = (found - finer)[kept]
        if _as_good(gap, found[kept]) or k + 3 == len(steps):
            break
        found = finer
    return Slopes(found, gap.mean(0).abs(), steps[k])


def _as_good(gap: Float[Tensor, "N 2"], slopes: Float[Tensor, "N 2"]) -> bool:
    """Whether the mean of `gap` is what its noise explains,
    or next to nothing of that of `slopes`.
    """
    size = float(gap.mean(0).square().sum())
    noise, error = (float(x.var(0).sum()) / len(x) for x in (gap, slopes))
    return size <= 2 * noise or size <= AGREED**2 * error


def points_at_once(problem: Problem, episodes: int) -> int:
    """Points per chunk, so that memory does not grow with the grid, the episodes or the horizon."""
    return max(1, MEMORY_EPISODES * 64 // (episodes * max(64, problem.horizon)))


def _like_rows(direction: Tensor, like: Tensor) -> Tensor:
    """Rows as long as those of `like`; nothing for a vector."""
    if like.ndim < 2:
        return torch.zeros_like(direction)
    ours, theirs = (x.flatten(1).norm(dim=1) for x in (direction, like.double()))
    return direction * (theirs / ours).reshape(-1, *[1] * (like.ndim - 1))


def _flat(params: Params) -> Float[Tensor, " P"]:
    return torch.cat([value.detach().flatten().double() for value in params.values()])


def _unflat(flat: Float[Tensor, " P"], like: Params) -> Params:
    parts = flat.split([value.numel() for value in like.values()])
    return {n: part.reshape(v.shape) for (n, v), part in zip(like.items(), parts, strict=True)}


def _plane(centre: Params, first: Params, second: Params) -> Plane:
    first, second = ({n: d[n].to(v) for n, v in centre.items()} for d in (first, second))
    return Plane({n: v.detach() for n, v in centre.items()}, first, second)
