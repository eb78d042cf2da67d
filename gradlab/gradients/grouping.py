"""What statistics are made of where samples looked at each other: the means of their groups."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from gradlab.foundation.per_sample import PerSample
from gradlab.statistics.moments import BLOCKS
from gradlab.statistics.rows import DenseRows


@runtime_checkable
class Samples(Protocol):
    """Gradient samples, as far as they are asked here."""

    @property
    def group(self) -> int: ...

    def __len__(self) -> int: ...

    def products(self) -> PerSample: ...

    def mean(self) -> dict[str, Tensor]: ...

    def rows(self, begin: int, end: int) -> Samples: ...

    def group_means(self, size: int) -> Samples: ...


def replicates(samples: Samples) -> PerSample:
    """The samples, or the means of their groups; N samples are whole groups.

    No more means than the blocks that statistics keep anyway are formed in full, each by one
    product over all calls of its group.
    """
    size = samples.group
    if size == 1:
        return samples.products()
    if len(samples) > BLOCKS * size:
        return samples.group_means(size).products()
    means = [samples.rows(begin, begin + size).mean() for begin in range(0, len(samples), size)]
    return DenseRows({name: torch.stack([mean[name] for mean in means]) for name in means[0]})
