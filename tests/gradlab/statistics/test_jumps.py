"""The jump test on functions whose D is known: its mean, its size, its power."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from gradlab.foundation.errors import BadShape, BadValue, NotFinite
from gradlab.statistics import jumps
from gradlab.statistics.jumps import Pairs, jump, pairs_of
from tests.helpers import checking

Function = Callable[[Tensor], Tensor]


class Case(NamedTuple):
    """f and its pathwise derivative at θ + σε, and D as published for it, to two digits."""

    value: Function
    slope: Function
    centre: float  # θ
    std: float  # σ
    expected: float  # D in units of θ, D/σ² [1]


CASES = {
    "square": Case(lambda x: x**2, lambda x: 2 * x, 0.2, 0.5, 0.0),
    "sine": Case(lambda x: torch.sin(3 * x), lambda x: 3 * torch.cos(3 * x), 0.2, 0.6, -2.04),
    "absolute": Case(torch.abs, torch.sign, 0.1, 0.5, -0.27),
    "relu": Case(torch.relu, lambda x: (x > 0).double(), 0.1, 0.5, -0.07),
    "step": Case(lambda x: (x > 0).double(), torch.zeros_like, 0.1, 0.5, 1.95),
}


def exact(case: Case) -> tuple[float, float]:
    """D and 2 Var f in the space of the noise, on a fine grid."""
    eps = torch.linspace(-9, 9, 1_800_001, dtype=torch.float64)
    weight = torch.exp(-0.5 * eps**2)
    weight /= weight.sum()
    x = case.centre + case.std * eps
    f, g = case.value(x), case.std * case.slope(x)
    variance = (weight * f**2).sum() - (weight * f).sum() ** 2
    mean = (weight * g).sum()
    d = 2 * variance - 2 * mean**2 - ((weight * g**2).sum() - mean**2)
    return float(d), float(2 * variance)


def drawn(case: Case, count: int, seed: int) -> Pairs:
    draws = torch.Generator().manual_seed(seed)
    eps = torch.randn(2, count, generator=draws, dtype=torch.float64)
    x = case.centre + case.std * eps
    return pairs_of(case.value(x), (case.std * case.slope(x))[..., None])


@pytest.mark.parametrize("name", CASES)
def test_the_mean_of_pairs_is_the_integral(name: str) -> None:
    """D by quadrature beside the mean of 400,000 pairs: |z| < 4.5, false alarms 7e-5 in all."""
    case = CASES[name]
    d, twice = exact(case)
    seen = drawn(case, 400_000, 1)
    error = float(seen.statistic.std()) / math.sqrt(400_000)
    assert abs(float(seen.statistic.mean()) - d) < 4.5 * error + 1e-12
    assert abs(float(seen.squared.mean()) - twice) < 4.5 * float(seen.squared.std()) / 632
    found = jump(name, seen)
    assert found.statistic.low <= found.statistic.estimate <= found.statistic.high
    assert found.statistic.high - found.statistic.low == pytest.approx(2 * 1.96 * error, rel=1e-3)
    assert found.share.estimate == pytest.approx(float(seen.statistic.mean() / seen.squared.mean()))


@pytest.mark.parametrize("name", CASES)
def test_quadrature_values(name: str) -> None:
    case = CASES[name]
    assert exact(case)[0] / case.std**2 == pytest.approx(case.expected, abs=0.005)


@pytest.mark.parametrize("name", ["square", "sine", "absolute", "relu"])
@pytest.mark.parametrize("level", [0.05, 0.01])
@pytest.mark.parametrize("pairs", [8, 100])
def test_size_on_what_is_continuous(name: str, level: float, pairs: int) -> None:
    """2,000 repeats: false alarms at most the level and 3.5 of their errors, few pairs or many."""
    seen = drawn(CASES[name], 2000 * pairs, 2).statistic.view(2000, pairs).numpy()
    t = seen.mean(1) / (seen.std(1, ddof=1) / math.sqrt(pairs))
    rate = float((stats.t.sf(t, pairs - 1) < level).mean())
    assert rate <= level + 3.5 * math.sqrt(level * (1 - level) / 2000)
    one = jump(name, Pairs(torch.from_numpy(seen[0]), torch.ones(pairs).double()), level)
    assert one.p_value == pytest.approx(stats.t.sf(t[0], pairs - 1))


def test_a_ramp_is_called_where_no_episode_falls_on_it() -> None:
    """The limit of the level: without a sample on it, which has probability (1 − q)^2n, a ramp is a
    step; with one it is not called. 2,000 repeats of 64 pairs, within 3.5 errors.
    """
    width, pairs = 0.05, 64  # [σ]
    ramp = Case(
        lambda x: (x / width).clamp(0, 1),
        lambda x: ((x > 0) & (x < width)).double() / width,
        0.0, 1.0, math.nan,
    )  # fmt: skip
    seen = drawn(ramp, 2000 * pairs, 6).statistic.view(2000, pairs).numpy()
    t = seen.mean(1) / (seen.std(1, ddof=1) / math.sqrt(pairs))
    rate = float((stats.t.sf(t, pairs - 1) < 0.01).mean())
    missed = float((1 - (stats.norm.cdf(width) - 0.5)) ** (2 * pairs))
    assert abs(rate - missed) < 3.5 * math.sqrt(missed * (1 - missed) / 2000)
    assert jumps.steepest(pairs, missed) == pytest.approx(stats.norm.cdf(width) - 0.5)


def test_power_on_the_step() -> None:
    """A step 0.5 σ away at the published σ = 0.2: found by 40 pairs in 95 % of 2,000 repeats."""
    case = CASES["step"]._replace(centre=-0.1, std=0.2)
    seen = drawn(case, 80_000, 3).statistic.view(2000, 40).numpy()
    spread = seen.std(1, ddof=1) / math.sqrt(40)
    t = seen.mean(1) / np.where(spread > 0, spread, np.inf)
    assert float((stats.t.sf(t, 39) < 0.05).mean()) >= 0.95


def test_intervals_hold() -> None:
    """95 % intervals of D and of the share, 800 repeats of 400 pairs: within 3.5 errors."""
    for name in ("sine", "step"):
        d, twice = exact(CASES[name])
        seen = drawn(CASES[name], 320_000, 4)
        held = np.zeros(2)
        for i in range(800):
            rows = slice(400 * i, 400 * (i + 1))
            found = jump(name, Pairs(seen.statistic[rows], seen.squared[rows]))
            held += (
                found.statistic.low <= d <= found.statistic.high,
                found.share.low <= d / twice <= found.share.high,
            )
        off = np.abs(held / 800 - 0.95) / math.sqrt(0.95 * 0.05 / 800)
        assert off[0] < 3.5
        # every pair of the step says 1: there is nothing to miss
        assert held[1] == 800 if name == "step" else off[1] < 3.5


def test_several_objectives_share_the_level() -> None:
    """Holm: the surest first, each at its share of the level that is left."""
    names = ["square", "step", "sine"]
    report = jumps.tested(names, [drawn(CASES[n], 500, 5) for n in names], level=0.01)
    assert [one.name for one in report.found] == ["step"]
    assert report["step"].p_value < 0.01 / 3 < report["square"].p_value
    assert report.names == tuple(names)
    assert "step" in repr(report) and "share" in repr(report)
    with pytest.raises(BadValue, match="no objective 'cube'"):
        report["cube"]


def test_edges() -> None:
    flat = torch.zeros(10, dtype=torch.float64)
    nothing = jump("flat", Pairs(flat, flat))
    assert nothing.p_value == 1 and nothing.share == (0, 0, 0)
    ones = jump("sure", Pairs(flat + 1, flat + 1))  # every pair is on both sides
    assert ones.p_value == 0 and ones.share.estimate == 1
    with pytest.raises(BadValue, match="at least 8 pairs"):
        jump("few", Pairs(flat[:7], flat[:7]))
    with pytest.raises(BadValue, match="level"):
        jump("level", Pairs(flat, flat), level=0.0)
    with pytest.raises(NotFinite, match="1 of 10 pairs"):
        jump("lost", Pairs(flat, flat.index_fill(0, torch.tensor([3]), math.nan)))
    with checking.off(), pytest.raises(BadShape, match=r"values \[2, n\]"):
        pairs_of(torch.zeros(2, 4), torch.zeros(2, 5, 1))
