"""`compare` and `compare_pair` on simulated samples with known answers, and Holm's correction."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from gradlab.foundation.errors import BadShape, BadValue
from gradlab.statistics import (
    CrossMoments,
    Interval,
    Moments,
    OracleGradient,
    compare,
    compare_pair,
    holm,
)
from gradlab.statistics.batches import batch_cosine, samples_to_cosine

F64 = torch.float64


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=F64)


def leaves(x: Tensor) -> dict[str, Tensor]:
    """Ten parameters in two layers."""
    return {"a.weight": x[..., :6].unflatten(-1, (2, 3)), "a.bias": x[..., 6:8], "b": x[..., 8:]}


def inside(value: float, interval: Interval) -> bool:
    return interval.low - 1e-12 <= value <= interval.high + 1e-12


G = torch.linspace(1.0, 2.0, 10, dtype=F64)
BIAS = 0.3 * torch.tensor([1.0, -1, 0, 0, 2, 0, 0, 1, 0, -1], dtype=F64)
SCALE = torch.linspace(0.5, 4.0, 10, dtype=F64)


@pytest.mark.statistical
@pytest.mark.parametrize("exact", [True, False])
def test_known_answers(exact: bool) -> None:
    """Every interval of one large simulation holds its true value (seed fixed, 95 % each)."""
    generator = torch.Generator().manual_seed(3)
    n = 40_000
    moments = Moments.of(leaves(G + BIAS + SCALE * normal(generator, n, 10)))
    truth = OracleGradient.exact(leaves(G), "formula")
    if not exact:
        truth = OracleGradient.sampled(
            Moments.of(leaves(G + SCALE * normal(generator, n, 10))), "large sample"
        )
    target = OracleGradient.exact(leaves(G + BIAS), "target")
    report = compare(moments, truth, target, batch=100)
    row = report.overall
    mean, trace = G + BIAS, float(SCALE.square().sum())
    cosine = float(mean @ G / mean.norm() / G.norm())
    assert inside(float(BIAS @ BIAS), row.squared_bias)
    assert inside(float(BIAS.norm() / G.norm()), row.relative_bias)
    assert row.relative_bias_target is not None
    assert row.relative_bias_target.low == 0
    assert row.relative_bias.low > 0
    assert inside(trace, row.variance)
    assert inside(cosine, row.cosine)
    assert inside(math.sqrt(1 - cosine**2), row.left_after_scaling)
    assert inside(float(mean.norm() / G.norm()), row.relative_norm)
    assert inside(trace / 100 + float(BIAS @ BIAS), row.mse)
    assert inside(float(mean @ mean) / trace, row.snr)
    assert row.snr.high / row.snr.low < 1.1
    batches = mean + SCALE / 10 * normal(generator, 20_000, 10)
    seen = (batches @ G / batches.norm(dim=1) / G.norm()).mean()
    assert row.cosine_batch.estimate == pytest.approx(float(seen), abs=0.01)
    assert inside(cosine / math.sqrt(1 + trace / 100 / float(mean @ mean)), row.cosine_batch)
    least = trace / ((float(mean @ G) / 0.9 / float(G.norm())) ** 2 - float(mean @ mean))
    assert inside(math.ceil(least), row.samples_to_cosine)
    assert row.samples_to_cosine.estimate == pytest.approx(least, rel=0.1)
    assert row.status == "ok"
    layer = BIAS[:8]
    assert inside(float(layer @ layer), report["a"].squared_bias)
    assert list(report.rows) == ["all", "a", "a.weight", "a.bias", "b"]
    table = report.table()
    assert table[0]["relative_bias"] == row.relative_bias.estimate
    assert table[0]["relative_bias_low"] == row.relative_bias.low
    assert "relative bias" in str(report)


def batch_for(cosine: float, snr: float) -> float:
    """Least batch whose cosine is 0.9, solved by hand."""
    if cosine <= 0.9:
        return math.inf
    return max(math.ceil(1 / (snr * ((cosine / 0.9) ** 2 - 1))), 1)


@pytest.mark.statistical
@pytest.mark.parametrize("ratio", [0.0, 2.0, 10.0])
def test_coverage_of_the_other_intervals(ratio: float) -> None:
    """Relative bias, cosine, relative norm, MSE, SNR, batches:
    60 repeats, truth as noisy as the estimator.
    """
    generator = torch.Generator().manual_seed(int(ratio))
    n, repeats = 256, 60
    scale = SCALE / SCALE.norm() * math.sqrt(n / 2)  # tr C = 1 for the difference of the means
    g = 8 * G / G.norm()
    missed: Counter[str] = Counter()
    for _ in range(repeats):
        b = normal(generator, 10)
        b = b / b.norm() * ratio
        mean = g + b
        moments = Moments.of({"w": mean + scale * normal(generator, n, 10)})
        truth = OracleGradient.sampled(
            Moments.of({"w": g + scale * normal(generator, n, 10)}), "truth"
        )
        row = compare(moments, truth, batch=64).overall
        trace = n / 2
        true = {
            "relative_bias": ratio / 8,
            "cosine": float(mean @ g / mean.norm() / 8),
            "relative_norm": float(mean.norm()) / 8,
            "mse": trace / 64 + ratio**2,
            "variance": trace,
            "snr": float(mean @ mean) / trace,
        }
        true["cosine_batch"] = true["cosine"] / math.sqrt(1 + 1 / (64 * true["snr"]))
        true["samples_to_cosine"] = batch_for(true["cosine"], true["snr"])
        for name, value in true.items():
            missed[name] += not inside(value, getattr(row, name))
    # At a coverage of 92 % more than 14 misses of 60 have probability 1e-4.
    assert all(count <= 14 for count in missed.values()), missed


@pytest.mark.statistical
@pytest.mark.parametrize("size", [0.3, 3.0])
def test_coverage_of_the_batch_intervals_of_an_unbiased_estimator(size: float) -> None:
    """Cosine exactly 1, the end of its range, and an expectation near or below its noise."""
    generator = torch.Generator().manual_seed(8)
    n, repeats = 512, 60
    mean = size * G / G.norm() / math.sqrt(n) * math.sqrt(float(SCALE.square().sum()))
    truth = OracleGradient.exact({"w": mean}, "g")
    snr = float(mean @ mean / SCALE.square().sum())
    true = {"snr": snr, "cosine_batch": 1 / math.sqrt(1 + 1 / (64 * snr))}
    # a batch size is rounded up to a whole number: the interval may hold either
    least = 1 / (snr * ((1 / 0.9) ** 2 - 1))
    missed: Counter[str] = Counter()
    for _ in range(repeats):
        row = compare(
            Moments.of({"w": mean + SCALE * normal(generator, n, 10)}), truth, batch=64
        ).overall
        for name, value in true.items():
            missed[name] += not inside(value, getattr(row, name))
        batch = row.samples_to_cosine
        missed["samples_to_cosine"] += not batch.low - 1 <= least <= batch.high
        if not math.isnan(row.cosine_batch.estimate):
            assert inside(row.cosine_batch.estimate, row.cosine_batch)
    assert all(count <= 14 for count in missed.values()), missed


def test_an_expectation_lost_in_noise_leaves_the_batch_open() -> None:
    """A debiased squared length below zero: no estimate, and ends that exclude nothing possible."""
    cosine, snr = Interval(math.nan, -1.0, 1.0), Interval(-1.5e-4, 0.0, 1e-3)
    batch = batch_cosine(cosine, snr, 100)
    assert math.isnan(batch.estimate)
    assert batch.high == -batch.low == pytest.approx(1 / math.sqrt(1 + 1 / (100 * 1e-3)))
    wanted = samples_to_cosine(cosine, snr, 0.9, 1)
    assert math.isnan(wanted.estimate)
    assert (wanted.low, wanted.high) == (batch_for(1.0, 1e-3), math.inf)


def test_batch_intervals_at_their_ends() -> None:
    """A cosine that reaches 1 adds nothing to the SNR's reach;
    an SNR below 0 leaves no estimate.
    """
    snr = Interval(0.01, 0.005, 0.02)
    batch = batch_cosine(Interval(0.98, 0.9, 1.0), snr, 100)
    assert batch.high == pytest.approx(1 / math.sqrt(1 + 1 / (100 * 0.02)))
    mirrored = batch_cosine(Interval(-0.98, -1.0, -0.9), snr, 100)
    assert mirrored == pytest.approx((-batch.estimate, -batch.high, -batch.low))
    lost = batch_cosine(Interval(0.5, 0.1, 0.9), Interval(-0.01, 0.0, 0.02), 100)
    assert math.isnan(lost.estimate) and lost.low == 0.0 and lost.high > 0.7


def test_cosine_above_one_is_capped_and_kept() -> None:
    """Debiasing takes off more than there is: the rule of the docstring, on a constructed case."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        x = G + 3.0 * normal(generator, 256, 10)
        row = compare(Moments.of({"w": x}), OracleGradient.exact({"w": G}, "g")).overall
        assert row.cosine.high <= 1
        if row.cosine_raw > 1:
            assert row.cosine.estimate == 1
            assert row.left_after_scaling.estimate == 0
            assert row.cosine.low < 1
            return
    pytest.fail("no cosine above 1 in 200 draws: the noise correction is missing")


def test_unbiased_but_deterministic() -> None:
    """No variance and no bias: nothing divides by zero."""
    row = compare(Moments.of({"w": G.expand(128, 10)}), OracleGradient.exact({"w": G}, "g")).overall
    assert row.relative_bias.high < 1e-6
    assert row.cosine.estimate == pytest.approx(1)
    assert row.samples_to_cosine == (1, 1, 1)


def test_nonfinite_samples_mark_every_row() -> None:
    generator = torch.Generator().manual_seed(0)
    x = G + normal(generator, 256, 10)
    x[5, 0] = math.nan
    report = compare(Moments.of(leaves(x)), OracleGradient.exact(leaves(G), "g"))
    assert all(row["status"] == "1 of 256 samples not finite" for row in report.table())
    assert "not finite" in str(report)


def test_groups_scale_the_variance() -> None:
    """Group means are the replicates; MSE(B) at B of a group is the mean's own."""
    generator = torch.Generator().manual_seed(0)
    common = normal(generator, 200, 1, 10).expand(
        200, 20, 10
    )  # what a group shares does not average
    x = (G + common + normal(generator, 200, 20, 10)).reshape(4000, 10)
    truth = OracleGradient.exact({"w": G}, "g")
    row = compare(Moments.of({"w": x}, group=20), truth, batch=20).overall
    assert inside(10 * (1 + 1 / 20), row.mse)
    assert row.count == 4000
    with pytest.raises(BadValue, match="whole groups of 20"):
        compare(Moments.of({"w": x}, group=20), truth, batch=50)


def test_other_parameters_are_refused() -> None:
    moments = Moments.of({"w": G.expand(128, 10)})
    with pytest.raises(BadShape, match="differ in w"):
        compare(moments, OracleGradient.exact({"w": G[:5]}, "g"))
    with pytest.raises(BadValue, match="blocks"):
        compare(Moments.of({"w": G.expand(4, 10)}), OracleGradient.exact({"w": G}, "g"))


def pair(
    generator: torch.Generator, first: Tensor, second: Tensor, shared: float, rank: int
) -> tuple[CrossMoments, OracleGradient]:
    """Two estimators with biases `first` and `second` whose noise is mostly shared."""
    n = 256
    mask = (torch.arange(10) < rank).to(F64)
    common = normal(generator, n, 10) * mask * math.sqrt(n / rank)

    def own() -> Tensor:
        return normal(generator, n, 10) * mask * math.sqrt(n / rank)

    mix = math.sqrt(1 - shared**2)
    a = G + first + shared * common + mix * own()
    b = G + second + shared * common + mix * own()
    truth = OracleGradient.sampled(Moments.of({"w": G + own()}), "truth")
    halves = [
        CrossMoments.of(
            {"w": a[i : i + 128]}, {"w": b[i : i + 128]}, start=i, pilots=({"w": G}, {"w": G})
        )
        for i in (0, 128)
    ]
    return halves[0].merge(halves[1]), truth


# Rank, bias and shared noise: of the eight, the four that have every two of them together; the
# others are slow.
CORNERS = [
    pytest.param(rank, bias, shared, marks=pytest.mark.slow if rest else ())
    for rank in (1, 10)
    for bias in (0.0, 2.0)
    for shared in (0.0, 0.95)
    for rest in [((rank > 1) + (bias > 0) + (shared > 0)) % 2]
]


@pytest.mark.statistical
@pytest.mark.parametrize(("rank", "bias", "shared"), CORNERS)
def test_paired_coverage(rank: int, bias: float, shared: float) -> None:
    generator = torch.Generator().manual_seed(rank)
    first = bias * torch.eye(10, dtype=F64)[0]
    second = 0.5 * bias * torch.eye(10, dtype=F64)[1]
    true = float(first @ first - second @ second)
    repeats, covered, estimates = 200, 0, []
    for _ in range(repeats):
        cross, truth = pair(generator, first, second, shared, rank)
        row = compare_pair(cross, truth).overall
        covered += inside(true, row.difference)
        estimates.append(row.difference.estimate)
        assert (row.p_value < 0.05) == (row.difference.low > 0 or row.difference.high < 0)
    values = torch.tensor(estimates, dtype=F64)
    assert covered >= 0.88 * repeats  # P(fewer) < 1e-4 at 95 %
    z = (values.mean() - true) / (values.std() / math.sqrt(repeats))
    assert abs(float(z)) < 4


@pytest.mark.statistical
def test_paired_decides_where_two_intervals_do_not() -> None:
    """Nearly shared noise: the difference is clear, while each interval is wide."""
    generator = torch.Generator().manual_seed(0)
    first = torch.full((10,), 0.5, dtype=F64)
    second = 0.8 * first
    decided = apart = 0
    for _ in range(40):
        cross, truth = pair(generator, first, second, 0.999, 10)
        decided += compare_pair(cross, truth).overall.p_value < 0.05
        a = compare(cross.first, truth).overall.squared_bias
        b = compare(cross.second, truth).overall.squared_bias
        apart += a.low > b.high or b.low > a.high
    assert apart == 0
    assert decided >= 20


def test_a_sample_lost_by_one_is_lost_by_both() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = G + normal(generator, 256, 10), G + normal(generator, 256, 10)
    a[3, 0] = math.nan
    b[200, 4] = math.inf
    cross = CrossMoments.of(leaves(a), leaves(b))
    assert cross.first.count == cross.second.count == 254
    report = compare_pair(cross, OracleGradient.exact(leaves(G), "g"))
    assert all(row["status"] == "2 of 256 samples not finite" for row in report.table())
    with pytest.raises(BadShape, match="same samples"):
        compare_pair(
            CrossMoments(cross.first, Moments.of(leaves(G + normal(generator, 256, 10)))),
            OracleGradient.exact(leaves(G), "g"),
        )


def test_same_estimator_twice_differs_by_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    a = leaves(G + normal(generator, 256, 10))
    row = compare_pair(CrossMoments.of(a, a), OracleGradient.exact(leaves(G), "g")).overall
    assert row.difference == pytest.approx((0, 0, 0), abs=1e-12)


def test_choosing_and_reporting_on_independent_halves() -> None:
    """Choosing the least of many unbiased candidates flatters it on its own half only."""
    generator = torch.Generator().manual_seed(1)
    truth = OracleGradient.exact({"w": G}, "g")
    chosen, reported = [], []
    for _ in range(20):
        rows = []
        for _ in range(4):
            even, odd = Moments.of({"w": G + normal(generator, 256, 10)}).split()
            rows.append([compare(h, truth).overall.squared_bias.estimate for h in (even, odd)])
        best = min(rows)
        chosen.append(best[0])
        reported.append(best[1])
    own, other = torch.tensor(chosen), torch.tensor(reported)
    assert float(own.mean() / own.std() * 20**0.5) < -4
    assert abs(float(other.mean() / other.std() * 20**0.5)) < 4


def test_holm() -> None:
    # Holm (1979): sorted p times (m, m−1, ...), made monotone.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    adjusted = holm([0.01, math.nan, 0.5])
    assert adjusted[0] == pytest.approx(0.03)
    assert math.isnan(adjusted[1])
    with pytest.raises(BadValue, match="p-values"):
        holm([1.5])
