"""Batches of their own: a mixture's episodes dealt out among its parts, and their samples gathered.

Letters: N episodes in blocks of consecutive ones, each block dealt out among k parts in shares of
one size, the first share of every block to the first part, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from gradlab.foundation.errors import BadValue
from gradlab.foundation.noise import Noise
from gradlab.foundation.reading import same
from gradlab.gradients.samples import Dense, Factored, GradientSamples

Batches = Literal["shared", "separate"]


def check_batches(batches: object) -> None:
    """Raise `BadValue` for a word that is none of `Batches`."""
    if batches not in get_args(Batches):
        raise BadValue(f"batches must be shared or separate, got {batches!r}")


def dealt(noise: Noise, parts: int, block: int) -> list[Noise]:
    """Each part's N/k episodes, in their order; N is whole blocks, a block whole shares."""
    order = torch.arange(noise.count, device=noise.action.device)
    shares = order.unflatten(0, (-1, parts, block // parts))
    return [noise.take(shares[:, k].flatten()) for k in range(parts)]


def gathered(samples: Sequence[GradientSamples], block: int) -> GradientSamples:
    """The samples of each part's N/k episodes as those of all N, in the order before `dealt`.

    They stay factored where all parts call the policy at the same time steps.
    """
    share = block // len(samples)

    def joined(parts: Sequence[Tensor]) -> Tensor:
        return torch.stack([part.unflatten(0, (-1, share)) for part in parts], 1).flatten(0, 2)

    factored = [part for part in samples if isinstance(part, Factored)]
    if len(factored) == len(samples) and all(_alike(factored[0], part) for part in factored):
        return Factored(
            factored[0].policy,
            factored[0].params,
            joined([part.obs for part in factored]),
            joined([part.cotangent for part in factored]),
            factored[0].steps,
            buffers=factored[0].buffers,
        )
    rows = [part.per_sample() for part in samples]
    return Dense({name: joined([row[name] for row in rows]) for name in rows[0]})


def _alike(a: Factored, b: Factored) -> bool:
    """Whether samples of both may stand one after another."""
    return a.same_policy(b) and same(a.steps, b.steps)
