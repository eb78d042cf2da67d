"""Philox, bit for bit, and the normal numbers made of it."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from gradlab.foundation import counters
from gradlab.foundation.generators import generator

ALARM = 1e-6  # chance of a false alarm of one assertion
MASK = 0xFFFFFFFF
# counter, key, words: lines "philox4x32 10" of tests/kat_vectors of Random123 (Salmon et al. 2011)
KNOWN = [
    ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((MASK,) * 4, (MASK,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def slow_philox(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """The definition in whole numbers of any size (Salmon et al. 2011, section 3.3)."""
    a, b, c, d = counter
    for r in range(10):
        left, right = ((k + r * w) % 2**32 for k, w in zip(key, (0x9E3779B9, 0xBB67AE85)))  # noqa: B905
        first, second = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = second >> 32 ^ b ^ left, second & MASK, first >> 32 ^ d ^ right, first & MASK
    return a, b, c, d


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_known_answers(counter: tuple, key: tuple, words: tuple) -> None:
    assert slow_philox(counter, key) == words
    assert counters.philox(counter, key) == words
    made = counters.philox(tuple(map(torch.tensor, counter)), tuple(map(torch.tensor, key)))  # pyright: ignore
    assert tuple(int(word) for word in made) == words


def test_every_word_is_that_of_the_definition() -> None:
    """Random positions and keys, and those at the ends, where a product is largest."""
    draws = generator("words", 1)
    given = torch.randint(2**32, (6, 300), generator=draws)
    given[:, :64] = torch.tensor([[x >> i & 1 for x in range(64)] for i in range(6)]) * MASK
    made = torch.stack(counters.philox(tuple(given[:4]), tuple(given[4:])), -1)  # pyright: ignore
    slow = [slow_philox(tuple(x[:4]), tuple(x[4:])) for x in given.T.tolist()]
    assert made.tolist() == [list(words) for words in slow]


def _keys(*numbers: int) -> Tensor:
    return torch.stack([counters.key(generator("key", number)) for number in numbers])


def test_a_number_depends_on_its_key_and_place_alone() -> None:
    many = counters.normals(_keys(1, 2, 3), 40, (5, 3), 0)
    assert torch.equal(many[40:80], counters.normals(_keys(2), 40, (5, 3), 0))
    assert torch.equal(many[:7], counters.normals(_keys(1), 7, (5, 3), 0))
    assert torch.equal(many[:40, :2], counters.normals(_keys(1), 40, (2, 3), 0))  # a short horizon
    assert torch.equal(counters.seeds(_keys(1, 2), 9, 2)[9:], counters.seeds(_keys(2), 9, 2))


def test_numbers_are_at_the_counters_that_are_said() -> None:
    """Box and Muller, one number at a time."""
    keys = _keys(5)
    made = counters.normals(keys, 3, (7,), 1)
    for i in range(3):
        for j in range(7):
            w = slow_philox((j // 2, i, 1, 0), tuple(keys[0].tolist()))
            u, v = (((x << 21) | (y >> 11)) / 2**53 for x, y in (w[:2], w[2:]))
            turn = math.sin if j % 2 else math.cos
            expected = math.sqrt(-2 * math.log(u + 2**-53)) * turn(2 * math.pi * v)
            assert math.isclose(made[i, j], expected, rel_tol=1e-12, abs_tol=1e-14)


def test_the_normal_law() -> None:
    """Kolmogorov and Smirnov's distance, the first four moments and the tails."""
    x = counters.normals(_keys(*range(8)), 1000, (25,), 0).flatten()
    n = len(x)
    assert stats.kstest(x.numpy(), "norm").pvalue > ALARM
    bound = stats.norm.isf(ALARM / 2)
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        z = float((x**power).mean() - mean) / math.sqrt(variance / n)
        assert abs(z) < bound, (power, z)
    beyond = int((x.abs() > 3).sum())
    assert stats.binomtest(beyond, n, 2 * stats.norm.sf(3)).pvalue > ALARM


def test_streams_are_unrelated() -> None:
    """Keys, rows, parts, steps, the two numbers of a counter: neither they nor their squares."""
    whole = counters.normals(_keys(1, 2), 4000, (8,), 0).reshape(2, 4000, 8)
    other = counters.normals(_keys(1), 4000, (8,), 1)
    pairs = {
        "key": (whole[0], whole[1]),
        "part": (whole[0], other),
        "row": (whole[0, 1:], whole[0, :-1]),
        "step": (whole[0, :, 2:], whole[0, :, :-2]),
        "pair": (whole[0, :, ::2], whole[0, :, 1::2]),
    }
    bound = stats.norm.isf(ALARM / 2)
    for name, (a, b) in pairs.items():
        for power in (1, 2):
            left, right = (x if power == 1 else x.square() - 1 for x in (a, b))
            z = float((left * right).mean()) * math.sqrt(left.numel()) / power
            assert abs(z) < bound, (name, power, z)


def test_seeds_are_of_62_bits_and_different() -> None:
    seeds = counters.seeds(_keys(1, 2), 2000, 2)
    assert len(set(seeds.tolist())) == 4000
    assert 0 <= int(seeds.min()) and int(seeds.max()) < 2**62
    ones = sum(((seeds >> bit) & 1).double().mean() for bit in range(62)) / 62
    assert abs(float(ones) - 0.5) < stats.norm.isf(ALARM / 2) * 0.5 / math.sqrt(4000 * 62)


def test_no_numbers_at_all() -> None:
    assert counters.normals(_keys(1), 4, (6, 0), 1).shape == (4, 6, 0)
