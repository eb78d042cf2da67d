"""How good a critic is, on episodes that it has not seen, each number with its standard error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.critics.episodes import Episodes, episode_stream, episodes, per_time, seed_of
from gradlab.foundation.errors import BadValue, Missing
from gradlab.foundation.modes import differentiating, ordinary
from gradlab.gradients.sampling import noise_stream
from gradlab.problems.critic import Critic, View
from gradlab.problems.problem import Problem

Params = dict[str, Tensor]
ActionGradient = Callable[[View, Tensor], Tensor]  # (view, action [..., nu]) -> [..., nu]


class Estimate(NamedTuple):
    """A number and its standard error; NaN where there was nothing to measure."""

    value: float
    stderr: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.stderr:.3f}"


@dataclass(frozen=True)
class Quality:
    """Explained variance 1 − Σ(G − Ĝ)²/Σ(G − Ḡ_t)² of hard returns to go, discounted from t.

    Ḡ_t is the mean at the same time t, so knowing the clock explains nothing; a constant error
    counts against the critic. Returns are noisy: no critic reaches 1. `ceiling_at_start` is what
    the best one would reach at t = 0, from pairs of episodes that share what the critic sees there.
    Standard errors take episodes as independent.
    """

    overall: Estimate  # alive rows of all t
    at_start: Estimate  # t = 0
    ceiling_at_start: Estimate
    episodes: int

    def columns(self, prefix: str = "critic") -> dict[str, float]:
        """Columns of a row: what is explained overall and at t = 0, and the ceiling there."""
        parts = {"quality": self.overall, "start": self.at_start, "ceiling": self.ceiling_at_start}
        return {
            f"{prefix}_{name}{end}": value
            for name, part in parts.items()
            for end, value in zip(("", "_stderr"), part, strict=True)
        }

    @staticmethod
    def in_words(row: Any, prefix: str = "critic") -> str:
        """What the columns of a row of a table (a mapping or a pandas Series) say: "at t = 0
        50 ± 5 % where the best one would reach 70 ± 4 %"."""
        start, ceiling = (
            f"{100 * row[f'{prefix}_{name}']:.0f} ± {100 * row[f'{prefix}_{name}_stderr']:.0f} %"
            for name in ("start", "ceiling")
        )
        return f"at t = 0 {start} where the best one would reach {ceiling}"


class GradientQuality(NamedTuple):
    """∇_a Q̂ against the true action gradient h at visited (s_t, a_t), weighted by γ^t alive_t.

    `cosine` = Σ⟨∇Q̂, h⟩/√(Σ‖∇Q̂‖² Σ‖h‖²) over all of them, `at_start` the same at t = 0 alone;
    `relative_norm` = √(Σ‖∇Q̂‖²/Σ‖h‖²).
    """

    cosine: Estimate
    at_start: Estimate
    relative_norm: Estimate


def measure(
    problem: Problem,
    params: Params,
    critic: Critic,
    kind: Literal["q", "v"],
    count: int = 2048,
    seed: int = 0,
) -> Quality:
    """Quality of a Q or a V on `count` on-policy episodes of the stream `seed` of its own.

    Raises `Missing` if the critic has no such function, `BadValue` for fewer than two episodes.
    """
    if kind not in ("q", "v"):
        raise BadValue(f"kind must be 'q' or 'v', got {kind!r}")
    if count < 2:
        raise BadValue(f"a quality needs at least 2 episodes, got {count}; try 2048")
    if (critic.q if kind == "q" else critic.v) is None:
        raise Missing(f"critic {critic.name!r} has no {kind}; fit one with kind='both'")
    target, again, predicted, rows = [], [], [], []
    first = noise_stream(problem, count, seed_of(seed, "quality"))
    second = noise_stream(problem, count, seed_of(seed, "quality again"))
    for noise, other in zip(first, second, strict=True):
        seen = episodes(problem, params, noise)
        target.append(seen.returns(problem.discount))
        rows.append(seen.q_rows)
        with torch.no_grad():
            predicted.append(_predict(critic, kind, seen))
        # other episodes from the same start, for a Q also with the same first action
        shared = 1 if kind == "q" else 0
        action = torch.cat([noise.action[:, :shared], other.action[:, shared:]], dim=1)
        other = other._replace(initial=noise.initial, action=action)
        again.append(episodes(problem, params, other).returns(problem.discount)[:, 0])
    alive = torch.cat(rows)
    truth, guess = torch.cat(target), torch.cat(predicted)
    return Quality(
        explained_variance(truth, guess, alive),
        explained_variance(truth[:, :1], guess[:, :1], alive[:, :1]),
        shared_variance(truth[:, 0], torch.cat(again)),
        count,
    )


def explained_variance(
    target: Float[Tensor, "N T"], predicted: Float[Tensor, "N T"], rows: Tensor
) -> Estimate:
    """1 − Σ(y − ŷ)²/Σ(y − ȳ_t)² over `rows` [N, T], with the delta method over episodes."""
    mean, _ = per_time(target, rows)
    zero = torch.zeros((), dtype=torch.float64, device=target.device)
    exact = target.double()
    missed = torch.where(rows, exact - predicted.double(), zero).square().sum(1)
    spread = torch.where(rows, exact - mean, zero).square().sum(1)
    ratio = _ratio(missed, spread)
    return Estimate(1 - ratio.value, ratio.stderr)


@differentiating()
def action_gradients(
    problem: Problem,
    params: Params,
    critic: Critic,
    truth: Critic | ActionGradient,
    count: int = 1024,
    seed: int = 0,
) -> GradientQuality:
    """Compare ∇_a Q̂ with an exact critic's, or with `truth(view, action)`,
    on on-policy episodes.
    """
    params = ordinary(params)
    mine = _gradient_of(critic)
    exact = _gradient_of(truth) if isinstance(truth, Critic) else truth
    parts = []
    for seen in episode_stream(problem, params, count, seed_of(seed, "action gradients")):
        got = mine(seen.view, seen.action).double()
        want = exact(seen.view, seen.action).double()
        weight = problem.discounts[:-1].double() * seen.q_rows
        products = [(got * want).sum(-1), got.square().sum(-1), want.square().sum(-1)]
        safe = [torch.where(seen.q_rows, p, torch.zeros_like(p)) * weight for p in products]
        parts.append(torch.stack(safe, dim=-1))  # [n, T, 3]
    sums = torch.cat(parts)
    return gradient_quality(sums.sum(1), sums[:, 0])


def gradient_quality(sums: Float[Tensor, "N 3"], at_start: Float[Tensor, "M 3"]) -> GradientQuality:
    """From ⟨∇Q̂, h⟩, ‖∇Q̂‖², ‖h‖² of independent episodes, over all of each and at t = 0 alone."""
    return GradientQuality(_cosine(sums), _cosine(at_start), _root_ratio(sums[:, 1], sums[:, 2]))


def _gradient_of(critic: Critic) -> ActionGradient:
    q = critic.q
    if q is None:
        raise Missing(f"critic {critic.name!r} has no q, so no action gradient")

    def gradient(view: View, action: Tensor) -> Tensor:
        leaf = action.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(q(view, leaf).sum(), leaf)[0]

    return gradient


def _predict(critic: Critic, kind: str, seen: Episodes) -> Tensor:
    if kind == "q":
        assert critic.q is not None
        return critic.q(seen.view, seen.action)
    assert critic.v is not None
    return critic.v(seen.view)


def _ratio(top: Float[Tensor, " N"], bottom: Float[Tensor, " N"]) -> Estimate:
    """Σ top/Σ bottom of independent pairs, by the delta method."""
    total = float(bottom.sum())
    if not total > 0:
        return Estimate(math.nan, math.nan)
    value = float(top.sum()) / total
    return Estimate(value, float((top - value * bottom).square().sum().sqrt()) / total)


def _root_ratio(top: Float[Tensor, " N"], bottom: Float[Tensor, " N"]) -> Estimate:
    ratio = _ratio(top, bottom)
    root = math.sqrt(ratio.value) if ratio.value > 0 else ratio.value
    return Estimate(root, ratio.stderr / (2 * root) if root > 0 else ratio.stderr)


def shared_variance(first: Float[Tensor, " N"], second: Float[Tensor, " N"]) -> Estimate:
    """Cov/Var of two returns that are independent given what they share."""
    first, second = first.double(), second.double()
    mean = 0.5 * (first.mean() + second.mean())
    a, b = first - mean, second - mean
    return _ratio(a * b, 0.5 * (a.square() + b.square()))


def _cosine(sums: Float[Tensor, "N 3"]) -> Estimate:
    """Cosine of pooled vectors from per-episode (⟨g, h⟩, ‖g‖², ‖h‖²), with the delta method."""
    product, mine, exact = (float(s) for s in sums.sum(0))
    if not (mine > 0 and exact > 0):
        return Estimate(math.nan, math.nan)
    norm = math.sqrt(mine * exact)
    value = product / norm
    influence = sums[:, 0] / norm - 0.5 * value * (sums[:, 1] / mine + sums[:, 2] / exact)
    return Estimate(value, float(influence.square().sum().sqrt()))
