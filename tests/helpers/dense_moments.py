"""The obvious twin of `Moments`: dense gradients in float64, every statistic by its definition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.statistics import Moments
from gradlab.statistics.parts import parts

BLOCKS = 64


@dataclass(frozen=True)
class DenseMoments:
    """Statistics of samples {leaf: [N, *param]}, all at once, about the moments' pilot."""

    rows: dict[str, Tensor]  # of finite replicates, float64, [n, p]
    block: Tensor  # that each is in
    lost: int

    @staticmethod
    def of(samples: Mapping[str, Tensor], start: int = 0, group: int = 1) -> DenseMoments:
        rows = {
            name: x.detach().double().reshape(len(x) // group, group, -1).mean(1)
            for name, x in samples.items()
        }
        kept = torch.isfinite(torch.stack([x.square().sum(1) for x in rows.values()]).sum(0))
        block = (start // group + torch.arange(len(kept))) % BLOCKS
        return DenseMoments(
            {name: x[kept] for name, x in rows.items()}, block[kept], int((~kept).sum())
        )

    def check(self, found: Moments, tolerance: float) -> None:
        """Every field and read-out of `found`, to a relative error of its own scale."""

        def close(a: Tensor, b: Tensor, scale: Tensor | float, what: str) -> None:
            error = float(torch.linalg.vector_norm(a.flatten() - b.flatten()))
            assert error <= tolerance * float(scale), (what, error, float(scale))

        count = torch.bincount(self.block, minlength=BLOCKS)
        assert torch.equal(count, found.block_count) and self.lost == found.nonfinite
        squares = {}
        for name, x in self.rows.items():
            total = torch.zeros(BLOCKS, x.shape[1], dtype=x.dtype).index_add_(0, self.block, x)
            size = x.square().sum().sqrt()  # of what is added up
            close(found.block_sum[name], total, size, f"block sums of {name}")
            gap = x - found.pilot[name].flatten()
            squares[name] = gap.square().sum(1)
            m2 = (x - x.mean(0)).square().sum(0)
            if found.half_m2:
                close(found.m2[name], m2, m2.norm(), f"m2 of {name}")
            trace = m2.sum() / (len(x) - 1)
            close(
                torch.tensor(found.variance(name), dtype=x.dtype),
                trace,
                trace,
                f"variance of {name}",
            )
        for part, names in parts(self.rows).items():
            square = torch.stack([squares[name] for name in names]).sum(0)
            for half in (0, 1):
                mine = square[self.block % 2 == half]
                close(found.norm_mean[part][half], mine.mean(), mine.mean(), f"mean of {part}")
                spread = mine - mine.mean()
                for k, power in ((2, found.norm_m2), (3, found.norm_m3), (4, found.norm_m4)):
                    # what a relative error of the values does, to first and to last order
                    scale = k * (mine * spread.abs().pow(k - 1)).sum()
                    scale = scale + tolerance ** (k - 1) * mine.pow(k).sum()
                    close(power[part][half], spread.pow(k).sum(), scale, f"power {k} of {part}")
