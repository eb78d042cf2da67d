"""Segments of episodes: a problem that begins at given moments, as a trainer's updates do.

The `Moment` of each episode is written into the numbers that a task would have drawn for its
initial state. So it is chunked, mapped and repeated with the rest of the noise, and every
estimator, engine and statistic works on segments as it does on whole episodes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.arguments import got
from gradlab.foundation.errors import BadShape, BadValue
from gradlab.foundation.moment import Moment

_SCALARS = ("step", "discounted", "ended")  # one number per episode, without an axis of their own


class Widths(NamedTuple):
    """How many numbers a moment of a problem has."""

    state: int
    memory: int
    carry: int
    events: int
    process: int
    action: int

    @property
    def parts(self) -> dict[str, int]:
        """Of each of its tensors, in their order."""
        before = {"state": self.state, "memory": self.memory, "carry": self.carry}
        now = {"step": 1, "discounted": 1, "running": self.events, "ended": 1}
        held = {"held_state": self.state, "held_memory": self.memory}
        held |= {"held_process": self.process, "held_action": self.action}
        return {**before, **now, **held, "held_carry": self.carry}


@dataclass(frozen=True)
class Segment:
    """What a problem of a few steps knows of the episodes that its steps are from."""

    episode: int  # T of the whole problem [steps]
    bootstrap: bool = True  # whether the state after the last step is worth V of the critic
    discount_from: Literal["segment", "episode"] = "segment"  # where γ begins to count
    moments: Moment | None = field(default=None, compare=False)  # what `Problem.draw` takes from

    def __post_init__(self) -> None:
        if self.discount_from not in ("segment", "episode"):
            raise BadValue(
                f"discount_from must be 'segment' or 'episode', got {self.discount_from!r}"
            )

    @property
    def summary(self) -> str:
        """For a reader of the problem."""
        end = "worth V at its end" if self.bootstrap else "worth nothing at its end"
        return f"of episodes of {self.episode} steps, {end}"

    def unpacked(self, rows: Float[Tensor, "*batch K"], widths: Widths) -> Moment:
        """The moment of `packed`; γ has counted nothing if it begins to count with the segment."""
        sizes = widths.parts
        parts = dict(zip(sizes, rows.split(list(sizes.values()), dim=-1), strict=True))
        parts |= {name: parts[name].squeeze(-1) for name in _SCALARS}
        parts["ended"] = parts["ended"] > 0.5
        if self.discount_from == "segment":
            parts["discounted"] = torch.zeros_like(parts["step"])
        return Moment(**parts)


def packed(moment: Moment) -> Float[Tensor, "*batch K"]:
    """A moment as one row of numbers per episode, constants."""
    parts = moment.detach()._asdict()
    rows = (part[..., None] if name in _SCALARS else part for name, part in parts.items())
    return torch.cat([row.to(moment.state.dtype) for row in rows], dim=-1)


def check_moment(
    moment: object, widths: Widths, batch: tuple[int, ...] | None, dtype: torch.dtype, name: str
) -> None:
    """Raise unless this is a moment of the problem `name`.

    `BadValue` for what is none; `BadShape` for one of other episodes (`batch`; None: any number of
    them, along one axis), another problem or another dtype.
    """
    if not isinstance(moment, Moment):
        raise BadValue(
            f"start should be a Moment, got {got(moment)}; try problem.start(noise), or "
            "gradlab.moment_at(path, outcome) for the end of a rollout"
        )
    if batch is None:
        batch = tuple(moment.step.shape)
        if len(batch) != 1 or not batch[0]:
            raise BadShape(
                f"start.step should be one number for each of at least 1 episode, got {list(batch)}"
            )
    sizes = widths.parts
    for part in ("state", "memory", "carry", "running", "step"):
        shape = batch if part in _SCALARS else (*batch, sizes[part])
        came = tuple(getattr(moment, part).shape)
        if came != shape:
            raise BadShape(
                f"start.{part} should be {list(shape)} for {name} and this noise, "
                f"got {list(came)}; start.take(index) and noise.take(index) choose episodes"
            )
    if moment.state.dtype != dtype:
        raise BadShape(
            f"start should be {dtype} for {name}, got {moment.state.dtype}; "
            f"try problem.replace(dtype={moment.state.dtype})"
        )


def check_time(moment: Moment, length: int, episode: int, name: str) -> None:
    """Raise `BadValue` unless there is time for `length` steps in episodes of `episode` steps.

    A GPU would have to be waited for, and is not asked.
    """
    steps = torch.func.debug_unwrap(torch.maximum(moment.step, moment.discounted).detach())
    if steps.device.type == "cpu" and bool((steps + length > episode).any()):
        raise BadValue(
            f"{length} steps from step {float(steps.max()):g} go past the horizon of {name}, "
            f"{episode}; take fewer, or problem.replace(horizon=...)"
        )
