"""Coverage of the interval for a squared bias, on simulated per-sample gradients.

Every repeat draws N samples of an estimator and M of a truth, streams them into `Moments` and asks
for the interval. One draw serves every bias: b is a third source without error, added with weight.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from gradlab.foundation.errors import BadValue
from gradlab.statistics import (
    Interval,
    Moments,
    OracleGradient,
    ratio_interval,
    squared_norm_interval,
)
from gradlab.statistics.gram import grams

RATIOS = (0.0, 0.5, 1.0, 2.0, 4.0, 10.0)  # ‖b‖ over sqrt(tr C), C the covariance of ḡ − ĝ*
N, M, P = 256, 512, 60


def misses(
    rank: int, direction: str, repeats: int, seed: int
) -> tuple[dict[float, tuple[int, int]], float]:
    """Intervals (above, below) ‖b‖² per ratio, and the z-score of the debiased ‖b‖² at b = 0."""
    generator = torch.Generator().manual_seed(seed)

    def draw(n: int) -> dict[str, torch.Tensor]:
        samples = torch.zeros(n, P, dtype=torch.float64)
        noise = torch.randn(n, rank, generator=generator, dtype=torch.float64)
        samples[:, :rank] = noise / math.sqrt(rank * (1 / N + 1 / M))  # tr C = 1
        return {"w": 1.0 + samples}

    count = {ratio: [0, 0] for ratio in RATIOS}
    unbiased = []
    for _ in range(repeats):
        b = torch.randn(P, generator=generator, dtype=torch.float64)
        if direction == "top":
            b = torch.eye(P, dtype=torch.float64)[0]
        bias = OracleGradient.exact({"w": b / b.norm()}, "b")
        truth = OracleGradient.sampled(Moments.of(draw(M)), "truth")
        gram = grams([Moments.of(draw(N)), truth, bias])["all"]
        for ratio in RATIOS:
            gap = gram.combine([1, -1, ratio])
            estimate, low, high = gram.interval(gap, sum(gram.errors), 0.95)
            count[ratio][0] += low > ratio**2
            count[ratio][1] += high < ratio**2
            if ratio == 0:
                unbiased.append(estimate)
    z = np.mean(unbiased) / (np.std(unbiased) / math.sqrt(repeats))
    return {ratio: (above, below) for ratio, (above, below) in count.items()}, float(z)


def check(rank: int, direction: str, repeats: int, seed: int) -> None:
    """Coverage within 92-99.5 %, and 93-97 % at 10, with the room that `repeats` leaves."""
    count, z = misses(rank, direction, repeats, seed)
    print(rank, direction, {r: f"{1 - sum(c) / repeats:.3f}" for r, c in count.items()}, f"{z:.1f}")
    for ratio, (above, below) in count.items():
        low, high = (0.93, 0.97) if ratio >= 10 else (0.92, 0.995)
        hits = repeats - above - below
        # A one-sided 1e-4 test that coverage lies outside the band: none for 4,000 repeats.
        strict = repeats >= 4000
        least = low * repeats if strict else stats.binom.ppf(1e-4, repeats, low)
        most = high * repeats if strict else stats.binom.ppf(1 - 1e-4, repeats, high)
        assert least <= hits <= most, (rank, direction, ratio, hits / repeats)
    assert abs(z) < 4  # debiased: zero on average without bias


@pytest.mark.statistical
@pytest.mark.parametrize(("rank", "direction"), [(1, "top"), (3, "random"), (30, "random")])
def test_coverage(rank: int, direction: str) -> None:
    check(rank, direction, repeats=100, seed=rank)


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("direction", ["random", "top"])
@pytest.mark.parametrize("rank", [1, 3, 30])
def test_coverage_over_4000_repeats(rank: int, direction: str) -> None:
    check(rank, direction, repeats=4000, seed=10 * rank)


def test_plug_in_and_normal_interval_would_not_do() -> None:
    """The plug-in squared bias of an unbiased estimator is all noise: the reason for all this."""
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(256, 40, generator=generator, dtype=torch.float64)
    truth = OracleGradient.exact({"w": torch.zeros(40, dtype=torch.float64)}, "zero")
    gram = grams([Moments.of({"w": samples}), truth])["all"]
    gap = gram.combine([1, -1])
    plug_in = gram.inner(gap, gap)
    estimate, low, high = gram.interval(gap, sum(gram.errors), 0.95)
    assert plug_in == pytest.approx(40 / 256, rel=0.5)
    assert abs(estimate) < 0.5 * plug_in
    assert low == 0 < high


def test_exact_law_at_rank_one() -> None:
    """With rank 1 and b along it, Q/λ is noncentral χ² with one degree
    of freedom: ends by scipy.
    """
    spread, seen = 0.5, 9.0
    x = np.full(300, spread)  # 300 contrasts of exactly that spread
    interval = squared_norm_interval(seen, spread**2, np.outer(x, x), x * math.sqrt(seen))
    tail = float(stats.norm.sf(stats.t.ppf(0.975, 300)))
    for end, level in ((interval.low, 1 - tail), (interval.high, tail)):
        law = stats.ncx2.cdf(seen / spread**2, 1, end / spread**2)
        assert law == pytest.approx(level, rel=2e-3)
    assert interval.estimate == pytest.approx(seen - spread**2)


def test_no_noise_no_width() -> None:
    interval = squared_norm_interval(4.0, 0.0, np.zeros((63, 63)), np.zeros(63))
    assert interval == Interval(4.0, 4.0, 4.0)


def test_far_from_zero_the_interval_is_finite_and_narrow() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(63, 5)) * 1e-6
    b = np.full(5, 1e3)
    low, high = squared_norm_interval(b @ b, 5e-12, x @ x.T, x @ b)[1:]
    assert 0 < b @ b - low < 1e-2 * b @ b
    assert 0 < high - b @ b < 1e-2 * b @ b


def test_an_unluckily_small_length_does_not_prove_that_there_is_no_bias() -> None:
    """Three standard deviations below tr C every ‖b‖² is rejected, and {0} would claim too much."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(63, 30)) / math.sqrt(30)
    d = rng.normal(size=30)
    d *= math.sqrt(0.35) / np.linalg.norm(d)
    interval = squared_norm_interval(0.35, 1.0, x @ x.T, x @ d)
    assert interval.estimate < 0
    assert interval.low == 0
    assert interval.high > 0.03


@pytest.mark.parametrize("blocks", [2, 4])
def test_too_few_blocks(blocks: int) -> None:
    gram = np.eye(blocks - 1)
    with pytest.raises(BadValue, match="blocks"):
        squared_norm_interval(1.0, 1.0, gram, np.ones(blocks - 1))
    with pytest.raises(BadValue, match="confidence"):
        squared_norm_interval(1.0, 1.0, np.eye(8), np.ones(8), confidence=95)


def test_ratio() -> None:
    exact = Interval(4.0, 4.0, 4.0)
    low, high = ratio_interval(Interval(2.0, 1.0, 4.0), exact)[1:]
    assert (low, high) == pytest.approx((0.25, 1.0))
    low, high = ratio_interval(exact, Interval(2.0, 1.0, 4.0))[1:]
    assert (low, high) == pytest.approx((1.0, 4.0))
    # A ratio of a quantity to itself is known exactly.
    same = Interval(4.0, 3.0, 5.0)
    assert ratio_interval(same, same, correlation=1.0)[1:] == pytest.approx((1.0, 1.0))
    assert ratio_interval(same, Interval(1.0, 0.0, 2.0)).high == math.inf
    assert math.isnan(ratio_interval(same, Interval(-1.0, 0.0, 2.0)).estimate)
