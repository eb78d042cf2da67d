"""Where segments begin, how long they are, and how often one is used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.foundation.arguments import number, whole
from gradlab.foundation.errors import BadValue
from gradlab.foundation.moment import Moment
from gradlab.problems.problem import Problem
from gradlab.training.optimiser import Tensors
from gradlab.training.schedule import Schedule, at


@dataclass(frozen=True)
class Replay:
    """Some episodes begin at moments that earlier ones have reached, from a ring of the last ones.

    Of every segment a moment is remembered where the episode was alive and had time left, at one
    step of the segment for all, drawn anew for each update: `capacity` moments at most, the oldest
    forgotten. The share `share` of restarts begins at one of them, drawn with replacement. They
    keep their time t and, of a recurrent policy, what it remembered then.
    Gradients and targets of a segment are as exact as before, but the mean over segments is over
    other starts than the task's. Episodes that began so are in no mean return.

    `when="over"`: restarts are those of episodes that are over; "always": no segment goes on from
    the one before (ABPT algorithm 1, where the states are drawn anew for every update).
    """

    share: float = 0.5  # [1]
    capacity: int = 10_000
    when: Literal["over", "always"] = "over"

    def __post_init__(self) -> None:
        if not 0 <= number("share", self.share) <= 1:
            raise BadValue(f"share should lie in [0, 1], got {self.share}; try 0.5")
        whole("capacity", self.capacity)
        if self.when not in ("over", "always"):
            raise BadValue(f"when should be 'over' or 'always', got {self.when!r}")

    def remembered(
        self, visited: Float[Tensor, "M K"], seen: Float[Tensor, "V K"]
    ) -> Float[Tensor, "M2 K"]:
        """The ring with these moments, as `packed`."""
        return torch.cat([visited, seen])[-self.capacity :]

    def drawn(
        self, visited: Float[Tensor, "M K"], problem: Problem, count: int, draws: torch.Generator
    ) -> tuple[Moment, Bool[Tensor, " N"]]:
        """A moment of the ring for each of N episodes, and which of them shall begin there."""
        chosen = torch.rand(count, generator=draws) < self.share
        rows = torch.randint(len(visited), (count,), generator=draws).to(visited.device)
        segment = problem.from_moments(1, bootstrap=False, discount_from="episode").segment
        assert segment is not None
        return segment.unpacked(visited[rows], problem.widths), chosen.to(visited.device)


@dataclass(frozen=True)
class AdaptiveLength:
    """AHAC's length H of segments: shorter where contact is stiff, or longer.

    After each update the multipliers of its steps go λ_t ← λ_t − η(C − c_t), with c_t the mean
    stiffness over the episodes that were alive, and H ← H ± η Σ_t λ_t within [least, most]; a
    segment has round(H) steps, and the multipliers of steps beyond it are 0. `sign="released"` is
    + as in AHAC's code, where contact that is softer than C makes H *smaller*; "dual" is −, the
    step of a dual ascent. The penalty λ_t(c_t − C) of the paper's eq. 10 is in neither. A simulator
    without contact has c = 0.
    """

    least: int = 8
    most: int = 64
    limit: float = 500.0  # C [1]
    rate: float | Schedule = field(default_factory=lambda: Schedule(5e-4, 1e-5))  # η
    sign: Literal["released", "dual"] = "dual"

    def __post_init__(self) -> None:
        if not whole("least", self.least) <= whole("most", self.most):
            raise BadValue(f"least should be at most most, got {self.least} and {self.most}")
        if self.sign not in ("released", "dual"):
            raise BadValue(f"sign should be 'released' or 'dual', got {self.sign!r}")

    def init(self) -> Tensors:
        """H, and λ of up to `most` steps; both stay on the CPU."""
        return {
            "steps": torch.tensor(float(self.least), dtype=torch.float64),
            "multipliers": torch.zeros(self.most, dtype=torch.float64),
        }

    def steps(self, length: Tensors) -> int:
        """round(H)."""
        return round(float(length["steps"]))

    def followed(self, length: Tensors, stiffness: Float[Tensor, " L"], done: float) -> Tensors:
        """H and λ after a segment with this mean stiffness in each of its steps."""
        rate, now = at(self.rate, done), self.steps(length)
        multipliers = length["multipliers"].clone()
        multipliers[:now] -= rate * (self.limit - stiffness.double().cpu())
        sign = 1.0 if self.sign == "released" else -1.0
        steps = length["steps"] + sign * rate * multipliers[:now].sum()
        steps = steps.clamp(self.least, self.most)
        multipliers[round(float(steps)) :] = 0.0
        return {"steps": steps, "multipliers": multipliers}


@dataclass(frozen=True)
class Reuse:
    """Several steps of the optimiser on one segment (RPO): `epochs` in all, the first as ever.

    Later ones keep the gradient of the segment's return by each latent u, and move the policy's
    u = mean + std·ε with ε held to what gives the same u now; each step weighs ρ = π(u)/π_old(u),
    or 0 where ρ leaves [1 − low, 1 + high]. The gradient by u stays that of the policy which ran
    the segment, at its states: later steps are biased, the more the further the policy has moved.
    """

    epochs: int = 5
    low: float = 0.8  # [1]
    high: float = 1.0  # [1]

    def __post_init__(self) -> None:
        whole("epochs", self.epochs)
        if not 0 <= number("low", self.low) <= 1 or number("high", self.high) < 0:
            raise BadValue(
                f"low should lie in [0, 1] and high be at least 0, got {self.low} and {self.high}"
            )

    def weights(self, log_ratio: Float[Tensor, "N L"]) -> Float[Tensor, "N L"]:
        """ρ within its range, and 0 outside, as constants."""
        ratio = log_ratio.detach().exp()
        inside = (ratio >= 1 - self.low) & (ratio <= 1 + self.high)
        return torch.where(inside, ratio, 0.0)
