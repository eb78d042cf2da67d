"""Intervals of a variance under heavy tails, and when they say that they cannot be trusted."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from gradlab.foundation.generators import generator
from gradlab.statistics import Moments, OracleGradient, compare
from gradlab.statistics.coverage import LAWS, coverage
from gradlab.statistics.parts import ALL
from gradlab.statistics.report import CARRIED_BY_FEW, HEAVY_TAILS
from gradlab.statistics.spread import (
    FEW,
    carrying_samples,
    decisive_samples,
    heavy_tailed,
    variance_interval,
)


def drawn(law: str, rank: int, count: int, seed: int) -> Moments:
    draws = generator("spread", law, rank, count, seed)
    return Moments.of({"w": LAWS[law](draws, count, rank)})


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("law", "count"), [("normal", 64), ("log-normal radius", 64), ("log-normal radius", 256)]
)
@pytest.mark.parametrize("rank", [1, 30])
def test_variances_are_covered(law: str, count: int, rank: int) -> None:
    """200 repeats at 95 %: 176 hits or fewer have probability 1e-4. A normal law of the logarithm
    with Student's quantile hit 67 to 79 % of the log-normal ones."""
    hits = 0
    for seed in range(200):
        _, low, high = variance_interval(drawn(law, rank, count, seed), ALL, 0.95)
        hits += low <= rank <= high
    assert hits > 176


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("count", [64, 256, 1024])
@pytest.mark.parametrize("rank", [1, 30])
@pytest.mark.parametrize("law", ["normal", "log-normal radius", "t5"])
def test_coverage_of_variances_over_4000_repeats(law: str, rank: int, count: int) -> None:
    hits = flagged = 0
    for seed in range(4000):
        moments = drawn(law, rank, count, seed)
        _, low, high = variance_interval(moments, ALL, 0.95)
        hits += low <= rank <= high
        flagged += heavy_tailed(moments, ALL)
    print(law, rank, count, f"covered {hits / 4000:.3f}, flagged {flagged / 4000:.3f}")
    assert 0.93 * 4000 <= hits <= 0.99 * 4000


@pytest.mark.statistical
def test_tails_without_a_fourth_moment_are_flagged() -> None:
    """t with 3 degrees of freedom: seen in most draws of 1,024; never for normal samples."""
    seen = sum(heavy_tailed(drawn("t3", 10, 1024, seed), ALL) for seed in range(50))
    assert seen >= 30
    assert not any(heavy_tailed(drawn("normal", 10, 1024, seed), ALL) for seed in range(50))


def test_one_sample_that_decides() -> None:
    """One outlier among 400: the error rests on it alone, and the report says so."""
    draws = generator("decides")
    x = torch.randn(400, 5, generator=draws, dtype=torch.float64)
    truth = OracleGradient.exact({"w": torch.ones(5, dtype=torch.float64)}, "ones")
    plain = compare(Moments.of({"w": 1 + x}), truth).overall
    assert plain.status == "ok" and not plain.heavy_tails
    x[7] *= 300
    moments = Moments.of({"w": 1 + x})
    row = compare(moments, truth).overall
    assert decisive_samples(moments, ALL) == pytest.approx(1, abs=0.05)
    assert row.status == CARRIED_BY_FEW and row.spread_samples < 1.1
    assert row.variance.high > 50 * row.variance.estimate
    x[9, 0] = math.nan
    status = compare(Moments.of({"w": 1 + x}), truth).overall.status
    assert status == f"1 of 400 samples not finite; {CARRIED_BY_FEW}"


def test_few_that_carry_the_mean_put_the_bias_in_doubt() -> None:
    """An event in 5 of 2,000 samples; the same tails from 30 of them carry the mean well enough."""
    truth = OracleGradient.exact({"w": torch.ones(5, dtype=torch.float64)}, "ones")
    x = 0.01 * torch.randn(2000, 5, generator=generator("few"), dtype=torch.float64)
    rare, wide = x.clone(), x.clone()
    rare[:5] += 10
    moments = Moments.of({"w": rare})
    assert carrying_samples(moments, ALL) == pytest.approx(5, rel=0.02)
    row = compare(moments, truth).overall
    assert row.status == CARRIED_BY_FEW and "bias, cosine" in row.status
    assert row.flat()["status"] == row.status and "carried_by_few" not in row.flat()
    wide[:30] += 10
    wide[:3] += 20
    moments = Moments.of({"w": wide})
    assert heavy_tailed(moments, ALL) and carrying_samples(moments, ALL) > FEW
    assert compare(moments, truth).overall.status == HEAVY_TAILS
    # ten replicates are few in themselves
    ten = x[:10].clone()
    ten[0] += 10
    assert compare(Moments.of({"w": ten}), truth).overall.status == HEAVY_TAILS


def test_light_tails_pay_next_to_nothing() -> None:
    """4,096 normal samples in ten dimensions:
    Student's interval of the logarithm to 1 % of its width.
    """
    moments = drawn("normal", 10, 4096, 0)
    trace, low, high = variance_interval(moments, ALL, 0.95)
    reach = float(stats.t.ppf(0.975, 4095)) * moments.variance_relative_stderr()
    assert math.log(high / trace) == pytest.approx(reach, rel=0.05)
    assert math.log(trace / low) == pytest.approx(reach, rel=0.01)


def test_powers_that_overflow_or_were_not_kept_count_as_the_heaviest() -> None:
    huge = Moments.of({"w": 1e60 * torch.arange(64, dtype=torch.float64)[:, None]})
    assert huge.variance_tails() == (8.0, 64.0)
    assert heavy_tailed(huge, ALL)
    same = Moments.of({"w": torch.ones(64, 3, dtype=torch.float64)})
    assert variance_interval(same, ALL, 0.95) == (0.0, 0.0, 0.0)
    assert not heavy_tailed(same, ALL)


def test_the_simulation_of_coverage_runs() -> None:
    found = coverage("normal", 3, 64, repeats=3)
    assert all(0 <= share <= 1 for share in found.values())
    assert found["variance"] > 0
