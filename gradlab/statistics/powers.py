"""Central sums of powers of ‖g − c‖², streamed: how heavy the tails behind a variance are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Powers(NamedTuple):
    """Mean of n values, and Σ (value − mean)^k for k = 2, 3, 4; even and odd blocks apart."""

    mean: Float[Tensor, "*rows 2"]
    m2: Float[Tensor, "*rows 2"]
    m3: Float[Tensor, "*rows 2"]
    m4: Float[Tensor, "*rows 2"]

    @staticmethod
    def of(values: Float[Tensor, "rows n"], lost: Bool[Tensor, " n"], first: int) -> Powers:
        """Of replicates from block `first` on; values are 0 where lost, and count there no more."""
        halves = []
        for half in (0, 1):
            rows = slice((half - first) % 2, None, 2)  # blocks alternate, so halves do
            out = lost[rows]
            mean = values[:, rows].sum(1) / (~out).sum().clamp(min=1)
            gap = (values[:, rows] - mean[:, None]).masked_fill(out, 0.0)
            square = gap.square()
            halves.append((mean, *(x.sum(1) for x in (square, square * gap, square.square()))))
        return Powers(*(torch.stack(pair, -1) for pair in zip(*halves, strict=True)))

    def merge(self, n: Tensor, other: Powers, m: Tensor) -> Powers:
        """Of n and m values together (Pébay 2008)."""
        gap, n, m = other.mean - self.mean, n.to(torch.float64), m.to(torch.float64)
        both = (n + m).clamp(min=1)
        share, others = n / both, m / both
        m2 = self.m2 + other.m2 + n * others * gap**2
        m3 = (
            self.m3
            + other.m3
            + n * others * (share - others) * gap**3
            + 3 * gap * (share * other.m2 - others * self.m2)
        )
        m4 = (
            self.m4
            + other.m4
            + n * others * (share**2 - share * others + others**2) * gap**4
            + 6 * gap**2 * (share**2 * other.m2 + others**2 * self.m2)
            + 4 * gap * (share * other.m3 - others * self.m3)
        )
        return Powers(self.mean + gap * others, m2, m3, m4)
