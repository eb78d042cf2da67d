"""Where episodes are between two steps: all that their future takes from their past.

A rollout begins at a `Moment` and an evaluated trajectory gives the one at its end
(`gradlab.moment_at`), so that a long rollout is the same as several short ones, joined. Episodes
in one `Moment` may be at different times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Moment(NamedTuple):
    """Episodes at times of their own; a NamedTuple, so that it passes through `torch.func`.

    Survival is not kept, since it follows from the margins so far (`outcome.survival`).
    """

    state: Float[Tensor, "*batch ns"]
    memory: Float[Tensor, "*batch nm"]
    carry: Float[Tensor, "*batch nc"]  # what a recurrent policy remembers; no number for others
    step: Float[Tensor, "*batch"]  # t, the index of the step that comes next [steps]
    discounted: Float[Tensor, "*batch"]  # steps γ has counted: the next reward weighs γ^discounted
    running: Float[Tensor, "*batch E"]  # M_{t−1}, every margin's maximum so far; −inf at first [1]
    ended: Bool[Tensor, "*batch"]  # what follows is the last step again
    # inputs of the last step, as constants: an episode that has ended repeats them
    held_state: Float[Tensor, "*batch ns"]
    held_memory: Float[Tensor, "*batch nm"]
    held_process: Float[Tensor, "*batch nw"]
    held_action: Float[Tensor, "*batch nu"]
    held_carry: Float[Tensor, "*batch nc"]

    def map(self, function: Callable[[Tensor], Tensor]) -> Moment:
        """`function` of every tensor."""
        return Moment(*(function(part) for part in self))

    def detach(self) -> Moment:
        """The same numbers as constants: what follows passes no gradient back."""
        return self.map(torch.Tensor.detach)

    def take(self, index: Int[Tensor, " M"]) -> Moment:
        """The episodes of an index tensor, in its order."""
        return self.map(lambda part: part[index])

    def repeat(self, count: int) -> Moment:
        """Every episode `count` times, copies beside each other."""
        return self.map(lambda part: part.repeat_interleave(count, dim=0))


def beginning(
    state: Float[Tensor, "*batch ns"],
    memory: Float[Tensor, "*batch nm"],
    *,
    events: int,
    noise_dim: int,
    action_dim: int,
    carry_dim: int,
) -> Moment:
    """The moment before step 0; a recurrent policy begins with zeros."""
    batch = state.shape[:-1]
    zero = state.new_zeros(batch)
    return Moment(
        state=state,
        memory=memory,
        carry=state.new_zeros((*batch, carry_dim)),
        step=zero,
        discounted=zero,
        running=state.new_full((*batch, events), -torch.inf),
        ended=torch.zeros(batch, dtype=torch.bool, device=state.device),
        held_state=state.detach(),
        held_memory=memory.detach(),
        held_process=state.new_zeros((*batch, noise_dim)),
        held_action=state.new_zeros((*batch, action_dim)),
        held_carry=state.new_zeros((*batch, carry_dim)),
    )


def concatenate(parts: list[Moment]) -> Moment:
    """Episodes of several moments, one after another."""
    return Moment(*(torch.cat(column) for column in zip(*parts, strict=True)))
