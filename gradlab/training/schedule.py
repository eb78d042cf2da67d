"""Numbers that change over a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gradlab.foundation.arguments import number
from gradlab.foundation.errors import BadValue


@dataclass(frozen=True)
class Schedule:
    """A number from `first` to `last` as a training goes from 0 to 1, and `last` afterwards.

    "linear" is first + done (last − first), "exponential" first (last/first)^done.
    """

    first: float
    last: float
    shape: Literal["linear", "exponential"] = "linear"

    def __post_init__(self) -> None:
        for name in ("first", "last"):
            if number(name, getattr(self, name)) < 0:
                raise BadValue(f"{name} should be at least 0, got {getattr(self, name)}")
        if self.shape not in ("linear", "exponential"):
            raise BadValue(f"shape should be 'linear' or 'exponential', got {self.shape!r}")
        if self.shape == "exponential" and not (self.first > 0 and self.last > 0):
            raise BadValue(
                f"an exponential schedule needs positive ends, got {self.first} and {self.last}; "
                "try shape='linear'"
            )

    def at(self, done: float) -> float:
        """The number when the fraction `done` of the training is over."""
        done = min(max(done, 0.0), 1.0)
        if self.shape == "linear":
            return self.first + done * (self.last - self.first)
        return self.first * (self.last / self.first) ** done


def at(value: float | Schedule, done: float) -> float:
    """A number or a schedule, when the fraction `done` is over."""
    return value.at(done) if isinstance(value, Schedule) else value
