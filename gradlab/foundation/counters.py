"""Random numbers by counting: a keyed function of a position, made where it is asked for.

Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3",
section 3.3 and table 2) turns a counter of four 32-bit words and a key of two into four random
words. No number depends on another, so that each episode's are the same however many are drawn and
in whatever order. Words are kept in int64, and no product exceeds 2⁴⁹: the bits are the same on
every device. Normal numbers go through logarithms and cosines, which devices round differently.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

Words: TypeAlias = "Tensor | int"  # 32 bits in int64 [*shape], or the same for all

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # what the key grows by from round to round
_MASK = 0xFFFFFFFF


def key(generator: torch.Generator) -> Int[Tensor, " 2"]:
    """The key of a stream: the next two 32-bit words of a generator of the CPU."""
    return torch.randint(2**32, (2,), generator=generator)


def philox(
    counter: tuple[Words, Words, Words, Words], key: tuple[Words, Words]
) -> tuple[Words, Words, Words, Words]:
    """Four random words at each position; what is given is broadcast."""
    a, b, c, d = counter
    left, right = key
    for number in range(ROUNDS):
        if number:
            left, right = (left + WEYL[0]) & _MASK, (right + WEYL[1]) & _MASK
        high_a, low_a = _product(a, MULTIPLIERS[0])
        high_c, low_c = _product(c, MULTIPLIERS[1])
        a, b, c, d = high_c ^ b ^ left, low_c, high_a ^ d ^ right, low_a
    return a, b, c, d


def _product(word: Words, multiplier: int) -> tuple[Words, Words]:
    """The upper and the lower 32 bits of a product, from 16 bits of the multiplier at a time."""
    upper, lower = word * (multiplier >> 16), word * (multiplier & 0xFFFF)
    return (upper + (lower >> 16)) >> 16, (((upper & 0xFFFF) << 16) + lower) & _MASK


def normals(
    keys: Int[Tensor, "B 2"], rows: int, shape: tuple[int, ...], part: int
) -> Float[Tensor, "B_rows *shape"]:
    """Standard normal numbers [1] of `rows` episodes for each key, one block after another.

    Float64, on the device of the keys. Number j of row i is that of the counter (j // 2, i, part,
    0): Box & Muller (1958) makes two of each, from 53 bits for the radius, which reaches 8.5, and
    53 for the angle.
    """
    size = math.prod(shape)
    if not size:
        return torch.zeros(len(keys) * rows, *shape, dtype=torch.float64, device=keys.device)
    pair = torch.arange(-(-size // 2), device=keys.device)
    first, second, third, fourth = _at(keys, rows, pair, part)
    radius = (-2 * (_fraction(first, second) + 2.0**-53).log()).sqrt()  # of numbers in (0, 1]
    angle = 2 * math.pi * _fraction(third, fourth)
    both = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)
    return both.flatten(-2)[..., :size].reshape(-1, *shape)


def seeds(keys: Int[Tensor, "B 2"], rows: int, part: int) -> Int[Tensor, " B_rows"]:
    """Whole numbers of 62 bits, one for each of `rows` episodes for each key."""
    first, second, _, _ = _at(keys, rows, torch.zeros_like(keys[0, :1]), part)
    return ((first << 30) | (second >> 2)).reshape(-1)


def _at(keys: Int[Tensor, "B 2"], rows: int, pair: Tensor, part: int) -> tuple[Tensor, ...]:
    """The four words [B, rows, pairs] of each key, row and pair."""
    row = torch.arange(rows, device=keys.device)[:, None]
    left, right = keys[:, 0, None, None], keys[:, 1, None, None]
    words = philox((pair, row, part, 0), (left, right))
    return tuple(torch.as_tensor(word) for word in words)


def _fraction(first: Tensor, second: Tensor) -> Float[Tensor, "..."]:
    """53 bits as a number in [0, 1)."""
    return ((first << 21) | (second >> 11)).double() * 2.0**-53
