"""Where a run computes and where its noise is drawn, for every problem that is made inside of it.

A study's problems are made in many places, in workers too, from names and options that say nothing
of the machine. The run says it once, around all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch

from gradlab.foundation.arguments import check_device
from gradlab.foundation.errors import BadValue, Unavailable

NOISES = ("cpu", "device")


@dataclass(frozen=True)
class Placement:
    """A device, and where noise is drawn: None is there on a GPU and on the CPU elsewhere."""

    device: str = "cpu"
    noise: str | None = None

    def check(self) -> None:
        """Raise `BadValue` for what is no device or no way to draw,
        `Unavailable` for a device that is not there or lacks float64."""
        check_noise(self.noise)
        try:
            check_device(self.device)
        except Unavailable:
            there = torch.cuda.device_count() if torch.cuda.is_available() else 0
            raise Unavailable(
                f"expected a CUDA device for --device {self.device}, and torch finds "
                f"{there or 'none'}; try --device {'cuda' if there else 'cpu'}"
            ) from None
        if torch.device(self.device).type == "cuda":
            return  # nothing is put there yet: that would take memory of its own
        try:
            probe = torch.zeros(1, dtype=torch.float64, device=self.device)
            probe.item()  # "meta" keeps no numbers
        except (RuntimeError, TypeError, ImportError, AssertionError):
            raise Unavailable(
                f"torch keeps no float64 on --device {self.device} here, in which noise is drawn and "
                "moments are kept; try --device cpu or --device cuda"
            ) from None

    @property
    def on_cpu(self) -> bool:
        """Whether tensors live on the CPU."""
        return torch.device(self.device).type == "cpu"

    @property
    def drawn(self) -> str:
        """Where noise is drawn, "cpu" or "device"."""
        return "device" if drawn_there(self.noise, self.device) else "cpu"


def check_noise(noise: object) -> None:
    """Raise `BadValue` unless it is a way to draw noise."""
    if noise not in (None, *NOISES):
        raise BadValue(
            'noise should be "cpu", "device", or None for what the device is used to, '
            f"got {noise!r}; noise that was drawn is given to an estimator"
        )


def drawn_there(noise: str | None, device: torch.device | str) -> bool:
    """Whether noise is drawn on the device, by counting: `problem.noise`."""
    return noise == "device" or (noise is None and torch.device(device).type == "cuda")


def wait_for(device: torch.device | str) -> None:
    """Until the device has done what it was told: a GPU is told long before, a clock must wait."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


_HERE: ContextVar[Placement | None] = ContextVar("placement", default=None)


@contextmanager
def placed(placement: Placement) -> Iterator[None]:
    """Inside, `gradlab.make` puts every problem there, unless it is told another device."""
    before = _HERE.set(placement)
    try:
        yield
    finally:
        _HERE.reset(before)


def current() -> Placement | None:
    """Where problems are put; None outside of a run."""
    return _HERE.get()


def here() -> dict[str, Any]:
    """The options that put a problem, which `gradlab.make` does not make, where the run is."""
    placement = _HERE.get() or Placement()
    return {"device": placement.device, "noise": placement.noise}


def device() -> str:
    """The run's device; "cpu" outside of a run."""
    return (_HERE.get() or Placement()).device
