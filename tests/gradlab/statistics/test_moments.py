"""Streaming moments: the laws of merging, a naive twin, groups, halves and non-finite samples."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from scipy import stats
from torch import Tensor

from gradlab.foundation.errors import BadShape, BadValue, NotFinite
from gradlab.statistics import Moments, OracleGradient
from gradlab.statistics.parts import parts
from tests.helpers.dense_moments import DenseMoments

BLOCKS = 64
TOLERANCE = 1e-12  # relative: float64 sums of a thousand numbers


def gradients(n: int = 1000, seed: int = 0) -> dict[str, Tensor]:
    """Skewed samples whose mean is large against their spread."""
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape: int) -> Tensor:
        noise = torch.randn(n, *shape, generator=generator, dtype=torch.float64)
        return 50.0 + noise.exp()

    return {"layers.0.weight": leaf(3, 4), "layers.0.bias": leaf(3), "log_std": leaf(2)}


def streamed(
    g: dict[str, Tensor], edges: Sequence[int], order: Sequence[int] | None = None, group: int = 1
) -> Moments:
    """Moments of the pieces between `edges`, merged in that order."""
    pilot = {name: torch.full(x.shape[1:], 51.0, dtype=torch.float64) for name, x in g.items()}
    spans = list(itertools.pairwise(edges))
    pieces = [
        Moments.of(
            {name: x[a:b] for name, x in g.items()},
            start=a,
            pilot=pilot,
            group=group,
            per_parameter=True,
        )
        for a, b in spans
    ]
    total: Moments | None = None
    for k in order if order is not None else range(len(pieces)):
        total = pieces[k] if total is None else total.merge(pieces[k])
    assert total is not None
    return total


def assert_same(a: Moments, b: Moments) -> None:
    assert torch.equal(a.block_count, b.block_count)
    assert (a.count, a.nonfinite, a.group) == (b.count, b.nonfinite, b.group)
    for x, y in (
        (a.block_sum, b.block_sum),
        (a.half_m2, b.half_m2),
        (a.norm_mean, b.norm_mean),
        (a.norm_m2, b.norm_m2),
        (a.norm_m3, b.norm_m3),
        (a.norm_m4, b.norm_m4),
    ):
        for name in x:
            torch.testing.assert_close(x[name], y[name], rtol=TOLERANCE, atol=0)


def test_against_two_passes() -> None:
    g = gradients()
    moments = streamed(g, [0, 17, 256, 257, 900, 1000])
    mean = {name: x.mean(0) for name, x in g.items()}
    trace = {name: ((x - mean[name]) ** 2).sum().item() / 999 for name, x in g.items()}
    for name, x in g.items():
        torch.testing.assert_close(moments.mean[name], mean[name], rtol=TOLERANCE, atol=0)
        m2 = ((x - mean[name]) ** 2).sum(0)
        torch.testing.assert_close(moments.m2[name], m2, rtol=1e-11, atol=0)
        error = x.std(0) / 1000**0.5
        torch.testing.assert_close(moments.stderr()[name], error, rtol=1e-11, atol=0)
        blocks = torch.stack([x[k::BLOCKS].mean(0) for k in range(BLOCKS)])
        torch.testing.assert_close(moments.block_mean[name], blocks, rtol=TOLERANCE, atol=0)
        assert moments.variance(name) == pytest.approx(trace[name], rel=1e-11)
    both = trace["layers.0.weight"] + trace["layers.0.bias"]
    assert moments.variance("layers.0") == pytest.approx(both, rel=1e-11)
    assert moments.variance() == pytest.approx(sum(trace.values()), rel=1e-11)
    squares = sum(((g[n] - moments.pilot[n]) ** 2).flatten(1).sum(1) for n in g)
    error = float(squares.std()) / 1000**0.5 / sum(trace.values())
    assert moments.variance_relative_stderr() == pytest.approx(error, rel=1e-9)
    tails = stats.skew(squares.numpy()), stats.kurtosis(squares.numpy(), fisher=False)
    assert moments.variance_tails() == pytest.approx(tails, rel=1e-9)


def test_merge_is_associative_and_commutative() -> None:
    g = gradients()
    a, b, c = (streamed(g, [k, k + 300]) for k in (0, 300, 600))
    assert_same(a.merge(b).merge(c), a.merge(b.merge(c)))
    assert_same(a.merge(b).merge(c), c.merge(b).merge(a))


@pytest.mark.parametrize("chunk", [1, 7, 64, 250, 1000])
def test_chunk_size_changes_nothing(chunk: int) -> None:
    count = 1000 if chunk > 1 else 200
    g = gradients(count)
    assert_same(streamed(g, [*range(0, count, chunk), count]), streamed(g, [0, 150, count]))


def test_digits_survive_a_mean_far_above_the_spread() -> None:
    x = torch.randn(640, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    far = Moments.of({"w": 1e6 + x})
    near = Moments.of({"w": x})
    assert far.variance() == pytest.approx(near.variance(), rel=1e-9)
    naive = (1e6 + x).square().mean(0) - (1e6 + x).mean(0).square()
    assert float(naive.sum()) * 640 / 639 != pytest.approx(near.variance(), rel=1e-9)


def test_float32_samples_have_float64_statistics() -> None:
    g = {name: x.float() for name, x in gradients().items()}
    moments = streamed(g, [0, 1000])
    DenseMoments.of(g).check(moments, 1e-6)
    assert all(x.dtype == torch.float64 for x in moments.mean.values())


def test_halves_are_the_even_and_the_odd_blocks() -> None:
    g = gradients()
    moments = streamed(g, [0, 100, 1000])
    for half, parity in zip(moments.split(), (0, 1), strict=True):
        own = {name: x[parity::2] for name, x in g.items()}
        assert half.count == 500
        for name, x in own.items():
            torch.testing.assert_close(half.mean[name], x.mean(0), rtol=TOLERANCE, atol=0)
        trace = sum(float(x.var(0).sum()) for x in own.values())
        assert half.variance() == pytest.approx(trace, rel=1e-11)
    even, odd = moments.split()
    assert_same(even.merge(odd), moments)


def test_groups_are_replicates() -> None:
    g = gradients(960)
    grouped = streamed(g, [0, 240, 960], group=8)
    means = {name: x.unflatten(0, (120, 8)).mean(1) for name, x in g.items()}
    direct = Moments.of(means, pilot=grouped.pilot, per_parameter=True)
    assert grouped.group == 8
    assert grouped.count == 120
    assert grouped.variance() == pytest.approx(direct.variance(), rel=1e-12)
    with pytest.raises(BadValue, match="whole groups"):
        Moments.of(g, group=7)
    with pytest.raises(BadShape, match="group"):
        grouped.merge(direct)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nonfinite_samples_are_left_out_and_counted(value: float) -> None:
    g = gradients()
    broken = {name: x.clone() for name, x in g.items()}
    broken["log_std"][3, 0] = value
    broken["layers.0.weight"][700, 1, 1] = value
    moments = streamed(broken, [0, 250, 1000])
    keep = torch.ones(1000, dtype=torch.bool)
    keep[[3, 700]] = False
    assert (moments.count, moments.nonfinite) == (998, 2)
    for name, x in g.items():
        torch.testing.assert_close(moments.mean[name], x[keep].mean(0), rtol=TOLERANCE, atol=0)
        blocks = x[BLOCKS + 3 :: BLOCKS].mean(0)  # block 3 without sample 3
        torch.testing.assert_close(moments.block_mean[name][3], blocks, rtol=TOLERANCE, atol=0)
    trace = sum(float(x[keep].var(0).sum()) for x in g.values())
    assert moments.variance() == pytest.approx(trace, rel=1e-11)
    with pytest.raises(NotFinite, match="2 of 1000"):
        OracleGradient.sampled(moments, "truth")


def test_one_pilot_for_all_pieces() -> None:
    g = gradients()
    with pytest.raises(NotFinite, match="pilot"):
        Moments.of(g, pilot={name: x[0] * torch.nan for name, x in g.items()})
    first = Moments.of({name: x[:500] for name, x in g.items()})
    second = Moments.of({name: x[500:] for name, x in g.items()}, start=500)
    with pytest.raises(BadValue, match="pilot"):
        first.merge(second)


def test_second_moments_of_parameters_are_kept_where_asked_for() -> None:
    g = gradients()
    without, kept = Moments.of(g), Moments.of(g, per_parameter=True)
    assert without.variance() == kept.variance() and not without.half_m2
    for read in (lambda: without.m2, without.stderr):
        with pytest.raises(BadValue, match="per_parameter=True"):
            read()
    with pytest.raises(BadValue, match="in both moments or in neither"):
        kept.merge(Moments.of(g, pilot=kept.pilot))


def test_everything_layers_and_leaves() -> None:
    names = ("layers.0.weight", "layers.0.bias", "layers.1.weight", "log_std")
    assert list(parts(names)) == ["all", "layers.0", *names]


def test_truth_knows_its_error() -> None:
    moments = streamed(gradients(), [0, 1000])
    truth = OracleGradient.sampled(moments, "large sample")
    squared = sum(float(x.square().sum()) for x in moments.mean.values())
    error = moments.variance() / 1000
    assert truth.relative_stderr == pytest.approx((error / (squared - error)) ** 0.5)
    assert OracleGradient.exact(moments.mean, "formula").relative_stderr == 0
    with pytest.raises(NotFinite, match="'w'"):
        OracleGradient.exact({"w": torch.tensor([float("nan")])}, "formula")
    with pytest.raises(BadShape, match="log_std"):
        truth.check_leaves({**moments.mean, "log_std": torch.zeros(3)})
