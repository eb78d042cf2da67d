"""What rounding does to gradients: a few episodes again in float64.

Where a system is chaotic, rounding grows with the horizon as any other change of the state does.
Then gradients in float32 are exact for episodes other than those that were asked for, one by one
and in their mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.arguments import whole
from gradlab.foundation.errors import BadValue
from gradlab.foundation.noise import Noise
from gradlab.gradients.sampling import Sampler, noise_stream
from gradlab.problems.problem import Problem

LARGE = 0.1  # error of one sample's gradient that is counted, as a share of its length


@dataclass(frozen=True)
class PrecisionCheck:
    """Gradients of the same episodes in the problem's dtype against float64;
    NaN where one is not finite.
    """

    dtype: torch.dtype
    errors: Float[Tensor, " N"]  # ‖g − g₆₄‖/‖g₆₄‖ of each episode [1]
    of_mean: float  # the same of the mean over the episodes [1]

    @property
    def share_off(self) -> float:
        """Share of episodes off by more than 10 %, those that are not finite among them [1]."""
        return float((~(self.errors <= LARGE)).double().mean())

    def __str__(self) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        return (
            f"{kind} against float64 on {len(self.errors)} episodes: {self.share_off:.0%} of the gradients off by "
            f"more than {LARGE:.0%} (median {float(self.errors.nanmedian()):.1g}), their mean by "
            f"{self.of_mean:.2g} of its length"
        )


def precision_check(
    estimator: Sampler, problem: Problem, params: dict[str, Tensor], count: int = 32, seed: int = 0
) -> PrecisionCheck:
    """Gradients of `count` episodes of the stream `seed`,
    in the problem's dtype and again in float64.

    Both runs get the same numbers: initial states, noise and parameters as the problem's dtype
    rounds them. A critic is used as it is. Raises `BadValue` where the problem is in float64
    already.
    """
    count = whole("count", count)
    if problem.dtype == torch.float64:
        raise BadValue(
            f"precision_check: {problem.name} is in float64, expected a lower precision to "
            "compare with it; try problem.replace(dtype=torch.float32)"
        )
    (noise,) = noise_stream(problem, count, seed, chunk_size=count)
    params = {name: value.to(problem.dtype) for name, value in params.items()}
    exact = Noise(*(x.double() if x.is_floating_point() else x for x in noise))
    wide = {name: value.double() for name, value in params.items()}
    low = _rows(estimator(problem, params, noise).per_sample())
    high = _rows(estimator(problem.replace(dtype=torch.float64), wide, exact).per_sample())
    off, off_mean = (low - high), (low - high).mean(0)
    return PrecisionCheck(
        problem.dtype, _relative(off, high), float(_relative(off_mean, high.mean(0)))
    )


def _rows(samples: dict[str, Tensor]) -> Tensor:
    return torch.cat([x.detach().double().flatten(1) for x in samples.values()], -1)


def _relative(error: Tensor, exact: Tensor) -> Tensor:
    """Lengths of `error` over those of `exact`; 0 where both are 0."""
    size, length = (torch.linalg.vector_norm(x, dim=-1) for x in (error, exact))
    return torch.where(size == 0, 0.0, size / length)
