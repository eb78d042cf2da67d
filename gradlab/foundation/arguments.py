"""Checks of what users hand in: one line with what was expected, what came and what to try."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradlab.foundation.errors import BadShape, BadValue, Unavailable


def got(value: object) -> str:
    """A value and its type, shortened to fit a line."""
    text = " ".join(repr(value).split())
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return f"{text} ({type(value).__name__})"


def whole(name: str, value: Any, least: int = 1, hint: str = "") -> int:
    """The value as an int. Raises `BadValue` unless it is a whole number of at least `least`."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        more = f"; {hint}" if hint else ""
        raise BadValue(
            f"{name} should be a whole number of at least {least}, got {got(value)}{more}"
        )
    return number


def layer_sizes(hidden: Any) -> tuple[int, ...]:
    """The sizes of hidden layers. Raises `BadValue` unless they are whole numbers from 1 on."""
    if not isinstance(hidden, Sequence) or isinstance(hidden, str):
        raise BadValue(
            f"hidden should be the sizes of the layers, got {got(hidden)}; "
            "try hidden=(64, 64), or hidden=() for none"
        )
    return tuple(whole("a size in hidden", size) for size in hidden)


def number(name: str, value: Any, hint: str = "") -> float:
    """The value as a float. Raises `BadValue` unless it is one number."""
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        more = f"; {hint}" if hint else ""
        raise BadValue(f"{name} should be one number, got {got(value)}{more}") from None


def check_positive(part: object, *names: str, hint: str = "try 1.0") -> None:
    """Raise `BadValue` unless these fields of `part` are positive numbers."""
    for name in names:
        value = getattr(part, name)
        if not number(name, value) > 0:
            raise BadValue(f"{name} should be positive, got {value}; {hint}")


def check_dtype(dtype: Any) -> None:
    """Raise `BadValue` unless it is a floating dtype of torch."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise BadValue(
            f"dtype should be a floating dtype of torch, got {got(dtype)}; "
            "try dtype=torch.float32 or dtype=torch.float64"
        )


def check_device(device: Any) -> None:
    """Raise `BadValue` unless torch knows the device, `Unavailable` for a GPU that is not there."""
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError):
        raise BadValue(
            f'device should be one of torch, got {got(device)}; try device="cpu" or device="cuda"'
        ) from None
    if place.type != "cuda":
        return
    if not torch.cuda.is_available():
        raise Unavailable(f'device={device!r} needs a GPU that torch can use; try device="cpu"')
    count = torch.cuda.device_count()
    if (place.index or 0) >= count:
        raise Unavailable(
            f'device={device!r} is not one of the {count} GPUs here, from 0 on; try device="cuda"'
        )


def check_compile(value: Any) -> None:
    """Raise `BadValue` unless it is True, False or "graph"."""
    if not (isinstance(value, bool) or value == "graph"):
        raise BadValue(
            f'compile should be True, False or "graph" (on a GPU), got {got(value)}; '
            "try compile=True"
        )


def check_generator(generator: Any) -> None:
    """Raise `BadValue` unless it is a generator of torch."""
    if not isinstance(generator, torch.Generator):
        raise BadValue(
            f"generator should be a torch.Generator, got {got(generator)}; "
            "try torch.Generator().manual_seed(0)"
        )


def check_params(params: Any, device: torch.device | str | None = None) -> None:
    """Raise unless it is a dict of tensors, all on the device if one is given."""
    if not isinstance(params, Mapping) or not all(isinstance(p, Tensor) for p in params.values()):
        kind = type(params).__name__
        raise BadValue(
            f"params should be a dict of tensors, got {kind}; try problem.init(generator)"
        )
    if device is None:
        return
    wanted = torch.device(device).type
    for name, value in params.items():
        if value.device.type != wanted:
            raise BadShape(
                f"parameters should be on {wanted} like the problem, {name} is on "
                f"{value.device.type}; try problem.init(generator)"
            )
