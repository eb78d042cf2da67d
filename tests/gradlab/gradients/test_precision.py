"""Float32 against float64 on the same episodes."""

from __future__ import annotations

import pytest
import torch

import gradlab
from estimators import FOG, PG
from gradlab.foundation.errors import BadValue


def test_rounding_is_what_is_measured() -> None:
    """By hand, on a problem without chaos: a few units in the last place of float32."""
    problem = gradlab.make("hovering", horizon=8, hidden=(8,))
    params = problem.init(torch.Generator().manual_seed(0))
    found = gradlab.precision_check(FOG(), problem, params, count=5, seed=3)
    (noise,) = gradlab.noise_stream(problem, 5, 3)
    low = FOG()(problem, params, noise).per_sample()
    wide = problem.replace(dtype=torch.float64)
    exact = FOG()(
        wide,
        {name: value.double() for name, value in params.items()},
        type(noise)(*(x.double() if x.is_floating_point() else x for x in noise)),
    ).per_sample()
    for i in range(5):
        off = sum(float((low[n][i].double() - exact[n][i]).square().sum()) for n in low)
        size = sum(float(exact[n][i].square().sum()) for n in exact)
        assert float(found.errors[i]) == pytest.approx((off / size) ** 0.5, rel=1e-9)
    assert 0 < float(found.errors.max()) < 1e-4 and found.of_mean < 1e-4
    assert found.share_off == 0.0
    assert str(found).startswith("float32 against float64 on 5 episodes: 0% of the gradients off")


def test_a_gradient_that_is_lost_counts_as_off() -> None:
    found = gradlab.PrecisionCheck(torch.float32, torch.tensor([0.01, 0.2, float("nan"), 0.0]), 0.3)
    assert found.share_off == 0.5


def test_a_problem_in_float64_is_refused() -> None:
    problem = gradlab.make("hovering", horizon=2, hidden=(4,), dtype=torch.float64)
    with pytest.raises(BadValue, match="is in float64, expected a lower precision"):
        gradlab.precision_check(PG(), problem, {})


@pytest.mark.slow
def test_the_ant_needs_float64() -> None:
    """Chaotic with gymnasium's convex contact, calm with dFlex's springs over the same horizon."""
    found = {}
    for preset in ("gymnasium", "dflex"):
        problem = gradlab.make("ant", preset=preset, horizon=32)
        params = problem.init(torch.Generator().manual_seed(0))
        found[preset] = gradlab.precision_check(FOG(), problem, params, count=64, seed=1)
        print(f"\n{preset}: {found[preset]}")
    assert found["dflex"].share_off == 0.0
    assert found["gymnasium"].of_mean > 100 * found["dflex"].of_mean
