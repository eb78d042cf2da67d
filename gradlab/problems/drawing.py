"""The randomness of episodes: drawn, and recognised as that of a problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation import counters
from gradlab.foundation.errors import BadShape, BadValue
from gradlab.foundation.noise import Noise, concatenate

_ACTION, _PROCESS, _SEED = range(3)  # sub-streams of a counted draw


def drawn(
    begin: Callable[[torch.Generator], Float[Tensor, "N ni"]],
    generators: Sequence[torch.Generator],
    sizes: tuple[int, int, int],
    dtype: torch.dtype,
    device: torch.device | str,
    *,
    counted: bool,
) -> Noise:
    """Noise of N episodes for each generator, which begin with `begin(generator)`.

    `sizes` are T, nu and nw. Drawn in float64 and then cast, so that every dtype sees the same
    numbers: on the CPU, where every device sees the same, or `counted`, on the device by Philox.
    There a generator gives the key, and whatever is drawn for an episode depends on the key and on
    the episode's number alone, its first steps not on the horizon.
    """
    horizon, actions, processes = sizes
    cast = {"dtype": dtype, "device": device}
    if not counted:
        parts = []
        for generator in generators:
            initial = begin(generator)
            kwargs = {"generator": generator, "dtype": torch.float64}
            action = torch.randn(len(initial), horizon, actions, **kwargs)
            process = torch.randn(len(initial), horizon, processes, **kwargs)
            seed = torch.randint(2**62, (len(initial),), generator=generator)
            parts.append(
                Noise(initial.to(**cast), action.to(**cast), process.to(**cast), seed.to(device))
            )
        return concatenate(parts) if len(parts) > 1 else parts[0]
    keys = torch.stack([counters.key(generator) for generator in generators]).to(device)
    starts = [begin(generator) for generator in generators]
    rows = len(starts[0])
    action = counters.normals(keys, rows, (horizon, actions), _ACTION)
    process = counters.normals(keys, rows, (horizon, processes), _PROCESS)
    seed = counters.seeds(keys, rows, _SEED)
    return Noise(torch.cat(starts).to(**cast), action.to(dtype), process.to(dtype), seed)


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
