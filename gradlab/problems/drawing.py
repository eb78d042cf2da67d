"""The randomness of episodes: drawn, and recognised as that of a problem."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.errors import BadShape, BadValue
from gradlab.foundation.noise import Noise


def drawn(
    initial: Float[Tensor, "N ni"],
    sizes: tuple[int, int, int],
    generator: torch.Generator,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Noise:
    """Noise of N episodes that begin with `initial`; `sizes` are T, nu and nw.

    Drawn in float64 on the CPU and then cast, so that every dtype and device sees the same numbers.
    """
    horizon, actions, processes = sizes
    kwargs = {"generator": generator, "dtype": torch.float64}
    action = torch.randn(len(initial), horizon, actions, **kwargs)
    process = torch.randn(len(initial), horizon, processes, **kwargs)
    seed = torch.randint(2**62, (len(initial),), generator=generator)
    cast = {"dtype": dtype, "device": device}
    return Noise(initial.to(**cast), action.to(**cast), process.to(**cast), seed.to(device))


def check_noise(
    noise: object,
    shapes: Mapping[str, tuple[int, ...]],
    name: str,
    dtype: torch.dtype,
    device: torch.device | str,
) -> None:
    """Raise `BadShape` unless the noise has these shapes, after N, for the problem `name`,
    `BadValue` if it is empty.
    """
    if not isinstance(noise, Noise):
        raise BadValue(
            f"noise should be Noise, got {type(noise).__name__}; "
            "draw it with problem.draw(N, generator)"
        )
    if noise.action.ndim > 2 and noise.action.shape[0] == 0:
        raise BadValue("noise should hold at least 1 episode, got 0; draw it with problem.draw")
    for part, shape in shapes.items():
        came = tuple(getattr(noise, part).shape[1:])
        if came != shape:
            raise BadShape(
                f"noise.{part} should be [N, {', '.join(map(str, shape))}] for {name}, "
                f"got [N, {', '.join(map(str, came))}]; draw it with problem.draw(N, generator)"
            )
    if noise.action.device.type != torch.device(device).type:
        raise BadShape(
            f"noise should be on {device} for {name}, got {noise.action.device}; "
            "draw it with problem.draw(N, generator)"
        )
    if noise.action.dtype != dtype:
        raise BadShape(
            f"noise should be {dtype} for {name}, got {noise.action.dtype}; "
            f"draw it with problem.draw, or use problem.replace(dtype={noise.action.dtype})"
        )
