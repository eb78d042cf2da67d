"""Events: rewards and terminations given by the sign of a margin, hard or relaxed.

An event happens when its scaled margin m(s) is positive. A `Step` turns a margin into a value in
[0, 1]: `Hard` is the indicator, with no gradient to find; `Sigmoid` and `Arctan` are relaxations
whose `width` is a fraction of the margin's scale. One-time events are relaxed through the running
extremum of their margin: the value of the event up to time t is Step(max_{k<=t} m_k), so bonuses
telescope and the one-step bounds below hold for any horizon.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gradlab.foundation.arguments import number
from gradlab.foundation.errors import BadValue


@dataclass(frozen=True)
class Event:
    """What a task says of one event; its margin is a column of `Task.margins`."""

    name: str
    bonus: float = 0.0  # reward when it happens [1]
    survival: float = 0.0  # reward of every step up to which it has not happened [1]
    terminates: bool = False  # later rewards no longer count
    switches: bool = False  # it changes the observation or the dense reward, and it repeats


@runtime_checkable
class Step(Protocol):
    """A nondecreasing function of a margin from 0 (far below zero) to 1 (far above)."""

    def __call__(self, margin: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Hard:
    """The indicator 1[m > 0]. Its gradient is exactly zero: the event is invisible to autograd.

    A margin of NaN stays NaN, as with the other steps: nobody knows whether the event has happened.
    """

    def __call__(self, margin: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        fixed = margin.detach()
        return torch.where(fixed.isnan(), fixed, (fixed > 0).to(margin.dtype))


@dataclass(frozen=True)
class Sigmoid:
    """1 / (1 + exp(−m/width)).

    |Sigmoid − Hard| ≤ exp(−|m|/width), and the integral of |Sigmoid − Hard| over m is
    2·width·ln 2.
    """

    width: float  # fraction of the margin's scale [1]

    def __post_init__(self) -> None:
        _check_width(self.width)

    def __call__(self, margin: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return torch.sigmoid(margin / self.width)


@dataclass(frozen=True)
class Arctan:
    """½ + arctan(m/width)/π: a heavier tail, so a gradient from further away.

    |Arctan − Hard| ≤ width/(π|m|); the integral of the difference does not exist.
    """

    width: float  # fraction of the margin's scale [1]

    def __post_init__(self) -> None:
        _check_width(self.width)

    def __call__(self, margin: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return 0.5 + torch.atan(margin / self.width) / math.pi


STEPS = {"sigmoid": Sigmoid, "arctan": Arctan}


@functools.lru_cache(maxsize=256)
def last_margin(step: Step, dtype: torch.dtype) -> float:
    """The largest margin of a terminating event at which survival 1 − Step(m) is not 0 in `dtype`.

    An episode has ended once a margin is above it. That is 0 for `Hard`. For `Sigmoid` it is where
    exp(−m/width) falls below about a quarter of the dtype's epsilon: 17.3 widths in float32, 37.4
    in float64; for `Arctan`, about 10⁷ and 6·10¹⁵ widths. A step that never reaches 1 has inf: its
    episodes never end. Found by bisection, so for any nondecreasing step.
    """

    def gone(margin: float) -> bool:
        return bool(step(torch.tensor([margin], dtype=dtype, device="cpu"))[0] >= 1)

    largest = torch.finfo(dtype).max
    low, high = (-largest, 0.0) if gone(0.0) else (0.0, largest)
    if not gone(high):
        return math.inf
    while True:
        middle = float(torch.tensor(0.5 * low + 0.5 * high, dtype=dtype))
        if middle in (low, high):
            return low
        low, high = (low, middle) if gone(middle) else (middle, high)


def _check_width(width: float) -> None:
    number("width", width, "try width=0.1")
    if not (width > 0 and math.isfinite(width)):
        raise BadValue(
            f"width must be a positive number (a fraction of the margin's scale), got {width}; "
            "try width=0.1, or Hard() for the unrelaxed event"
        )


def running_maximum(
    margins: Float[Tensor, "*batch T E"],
    cuts: int | Bool[Tensor, "*batch T"] | None = None,
    carried: Float[Tensor, "*batch E"] | None = None,
) -> Float[Tensor, "*batch T E"]:
    """M_t = max_{k<=t} m_k along time; `carried` is the maximum of what came before.

    Where several steps tie, the gradient goes to one of them. With `cuts=n` the extremum
    carried into each window of n steps is a constant (as the state there is); with flags, into the
    windows that begin at the steps where they are True.
    """
    if isinstance(cuts, Tensor):
        return _cut_maximum(margins, cuts, carried)
    horizon = margins.shape[-2]
    window = cuts or horizon
    pieces: list[Tensor] = []
    for begin in range(0, horizon, window):
        piece = margins[..., begin : begin + window, :]
        if not pieces and carried is not None:
            piece = torch.cat([carried.unsqueeze(-2), piece], dim=-2)
            piece = torch.cummax(piece, dim=-2).values[..., 1:, :]
        else:
            piece = torch.cummax(piece, dim=-2).values
        if pieces:
            piece = torch.maximum(piece, pieces[-1][..., -1:, :].detach())
        pieces.append(piece)
    return torch.cat(pieces, dim=-2)


def _cut_maximum(
    margins: Float[Tensor, "*batch T E"],
    cut: Bool[Tensor, "*batch T"],
    carried: Float[Tensor, "*batch E"] | None,
) -> Float[Tensor, "*batch T E"]:
    """`running_maximum` whose gradient goes to steps of t's own window alone."""
    begin = window_begins(cut)
    if carried is None:
        running, where = torch.cummax(margins, dim=-2)
    else:
        running, where = torch.cummax(torch.cat([carried.unsqueeze(-2), margins], dim=-2), dim=-2)
        # what is carried stands before step 0, in the first window
        running, where = running[..., 1:, :], where[..., 1:, :] - 1
        begin = torch.where(begin == 0, -1, begin)
    return torch.where(where >= begin.unsqueeze(-1), running, running.detach())


def window_begins(cut: Bool[Tensor, "*batch T"]) -> Int[Tensor, "*batch T"]:
    """The first step of the window that each step is in, 0 of the first one."""
    index = torch.arange(cut.shape[-1], device=cut.device)
    return torch.where(cut, index, 0).cummax(dim=-1).values


def running_maximum_since_switch(
    margins: Float[Tensor, "*batch T"],
    visit: Float[Tensor, "*batch T"],
    cuts: int | Bool[Tensor, "*batch T"] | None = None,
    carried: Float[Tensor, "*batch"] | None = None,
) -> Float[Tensor, "*batch T"]:
    """max of m_k over the steps k <= t of the same visit (as numbered by `visit`).

    Used for an event that repeats: after it happens, the next occurrence starts afresh. `carried`
    is the maximum so far of the visit that is number 0 here.
    """
    horizon = margins.shape[-1]
    index = torch.arange(horizon, device=margins.device)
    same = (visit[..., :, None] == visit[..., None, :]) & (index[:, None] >= index[None, :])
    grid = margins[..., None, :]
    window = index if cuts is None else _windows(cuts, index)
    if cuts is not None:
        earlier = window[..., :, None] > window[..., None, :]
        grid = torch.where(earlier, grid.detach(), grid)
    running = torch.where(same, grid, -torch.inf).max(dim=-1).values
    if carried is None:
        return running
    before = carried.unsqueeze(-1).expand(running.shape)
    if cuts is not None:
        before = torch.where(window > 0, before.detach(), before)
    # `max` along a dimension, not `maximum`, which halves the gradient where the two tie
    longer = torch.stack([running, before], dim=-1).max(dim=-1).values
    return torch.where(visit == 0, longer, running)


def _windows(cuts: int | Bool[Tensor, "*batch T"], index: Int[Tensor, " T"]) -> Tensor:
    """A number for the window that each step is in, 0 for the first one."""
    return window_begins(cuts) if isinstance(cuts, Tensor) else index // cuts
