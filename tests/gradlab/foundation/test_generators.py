"""Streams of noise: distinct for distinct names, and MT19937's as numpy has it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import gradlab
from gradlab.foundation.generators import FIRST_WORD, WORDS, generator
from gradlab.gradients.sampling import block_generator

# (seed, block): pairs that had one and the same noise while generators kept 32 bits of their seed
ALIKE = [((22, 324), (55, 262)), ((97, 987), (172, 663)), ((110, 387), (176, 52))]


def first_words(made: torch.Generator) -> tuple[int, ...]:
    """128 bits of the stream."""
    return tuple(torch.randint(2**62, (2,), generator=made).tolist())


def test_streams_that_were_alike_differ() -> None:
    for one, other in ALIKE:
        assert first_words(block_generator(*one)) != first_words(block_generator(*other))


@pytest.mark.slow
def test_no_two_of_200_seeds_by_1000_blocks_are_alike() -> None:
    """The chance that 200,000 streams share their first 124 bits by accident is 1e-27."""
    seen = {first_words(block_generator(s, b)) for s in range(200) for b in range(1000)}
    assert len(seen) == 200_000


def test_names_and_their_order_matter() -> None:
    names = [(1, 2), (2, 1), (12,), ("1", 2), (1, 2, 0), (-1, 2), (2**70,), (2**70 + 2**33,), ()]
    assert len({first_words(generator(*each)) for each in names}) == len(names)
    assert first_words(generator("noise", 3, 4)) == first_words(block_generator(3, 4))
    assert first_words(gradlab.generator("a")) == first_words(generator("a"))


def test_the_stream_is_that_of_numpys_mersenne_twister() -> None:
    """The state is set word by word: numpy's own MT19937 with these words
    draws the same numbers.
    """
    made = generator("noise", 0, 0)
    words = made.get_state().numpy().view(np.int64)[FIRST_WORD : FIRST_WORD + WORDS]
    twister = np.random.MT19937()
    twister.state = {
        "bit_generator": "MT19937",
        "state": {"key": words.astype(np.uint32), "pos": WORDS},
    }
    ours = torch.randint(2**16, (3 * WORDS,), generator=made).numpy()
    assert (ours == twister.random_raw(3 * WORDS) % 2**16).all()


def test_numbers_of_a_stream_stay_what_they_are() -> None:
    """The same on every machine and version of torch: these were drawn with torch 2.13."""
    uniform = torch.rand(3, generator=generator("noise", 0, 0), dtype=torch.float64)
    normal = torch.randn(64, generator=generator("noise", 0, 1), dtype=torch.float64)
    assert uniform.tolist() == [0.5955127473951962, 0.4755779778083421, 0.2178734307001171]
    torch.testing.assert_close(
        normal[[0, 31, 63]].tolist(),
        [0.49309829389053605, -0.7713973422701914, -0.5847760444337906],
        rtol=1e-14,
        atol=0,
    )


def test_normal_draws_have_the_moments_of_normal_draws() -> None:
    """Over 64 blocks of 4,096: mean, variance and neighbours within 5 standard errors (1.7e-6)."""
    draws = torch.stack(
        [torch.randn(4096, generator=block_generator(7, b), dtype=torch.float64) for b in range(64)]
    )
    count = draws.numel()
    assert abs(float(draws.mean())) < 5 / count**0.5
    assert abs(float(draws.square().mean()) - 1) < 5 * (2 / count) ** 0.5
    across = (draws[1:] * draws[:-1]).mean()
    assert abs(float(across)) < 5 / (count - 4096) ** 0.5
