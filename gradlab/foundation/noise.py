"""All the randomness of N episodes, drawn before anything is transformed or differentiated.

Drawing first gives common random numbers, the same answer for any chunk size or worker count, and
finite differences for free. Nothing draws random numbers inside a rollout.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.foundation.display import line


class Noise(NamedTuple):
    """Randomness of N episodes; a NamedTuple, so that it passes through `torch.func` as it is."""

    initial: Float[Tensor, "*N ni"]  # as the task draws it
    action: Float[Tensor, "*N T nu"]  # standard normal [1]
    process: Float[Tensor, "*N T nw"]  # standard normal [1]
    seed: Int[Tensor, "*N"]  # of whatever else an estimator perturbs, one per episode

    def __repr__(self) -> str:
        shapes = {
            name: str(list(part.shape)) for name, part in zip(self._fields, self, strict=True)
        }
        return line("Noise", {**shapes, "dtype": str(self.action.dtype)})

    @property
    def count(self) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Number of episodes N."""
        return self.initial.shape[0]

    def rows(self, begin: int, end: int) -> Noise:
        """Episodes begin..end−1."""
        return Noise(*(part[begin:end] for part in self))

    def during(self, begin: int, end: int) -> Noise:
        """What steps begin..end−1 of a rollout use, for one that goes on from a `Moment`."""
        return self._replace(
            action=self.action[..., begin:end, :], process=self.process[..., begin:end, :]
        )

    def take(self, index: Int[Tensor, " M"]) -> Noise:
        """The episodes of an index tensor, in its order."""
        return Noise(*(part[index] for part in self))


def concatenate(parts: list[Noise]) -> Noise:
    """Episodes of several draws, one after another."""
    return Noise(*(torch.cat(column) for column in zip(*parts, strict=True)))
