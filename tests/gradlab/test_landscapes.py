"""Directions, evaluations over a plane, and the roughness of known surfaces with its coverage."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import gradlab
from gradlab import landscapes
from gradlab.foundation.errors import BadShape, BadValue
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.statistics.roughness import compare_roughness, roughness, third_differences

PARAMS = {
    "layers.0.weight": torch.tensor([[1.0, 2.0, 2.0], [0.0, 4.0, 3.0]], dtype=torch.float64),
    "layers.0.bias": torch.tensor([0.5, -0.5], dtype=torch.float64),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flat(params: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in params.values()])


def small(name: str, **options: object) -> tuple[Problem, dict[str, Tensor]]:
    """A float64 problem with a small policy."""
    problem = gradlab.make(name, dtype=torch.float64, **options)
    if len(problem.policy.hidden):
        policy = GaussianPolicy(problem.task.observation_dim, 4, hidden=(8,))
        problem = problem.replace(policy=policy)
    return problem, problem.init(generator())


# ----------------------------------------------------------------------------------- directions


def test_plain_directions_are_orthogonal_and_as_long_as_the_parameters() -> None:
    plane = landscapes.random_plane(PARAMS, generator(), "plain")
    first, second, centre = flat(plane.first), flat(plane.second), flat(PARAMS)
    torch.testing.assert_close(first.norm(), centre.norm())
    torch.testing.assert_close(second.norm(), centre.norm())
    assert abs(float(first @ second)) < 1e-12 * float(centre.norm()) ** 2


def test_filter_directions_have_the_rows_lengths_and_leave_biases_alone() -> None:
    plane = landscapes.random_plane(PARAMS, generator(), "filter")
    for direction in (plane.first, plane.second):
        rows = direction["layers.0.weight"].norm(dim=1)
        torch.testing.assert_close(rows, torch.tensor([3.0, 5.0], dtype=torch.float64))
        assert not direction["layers.0.bias"].any()


def test_path_directions_are_its_principal_components() -> None:
    """A path in the plane of two known axes: the plane is theirs, and the path lies within ±1."""
    axes = torch.linalg.qr(torch.randn(8, 2, generator=generator(), dtype=torch.float64))[0]
    where = torch.tensor([[0.0, 0.0], [2.0, 0.5], [5.0, -0.5], [9.0, 0.2]], dtype=torch.float64)
    points = flat(PARAMS) + where @ axes.mT
    path = [{"layers.0.weight": p[:6].reshape(2, 3), "layers.0.bias": p[6:]} for p in points]
    plane = landscapes.path_plane(PARAMS, path)
    first, second = flat(plane.first), flat(plane.second)
    for direction in (first, second):  # in the span of the axes
        torch.testing.assert_close(axes @ (axes.mT @ direction), direction)
    assert abs(float(first @ second)) < 1e-12
    coordinates = torch.stack(
        [(points - flat(PARAMS)) @ d / (d @ d) for d in (first, second)], dim=-1
    )
    torch.testing.assert_close(coordinates.abs().amax(0), torch.ones(2, dtype=torch.float64))
    assert coordinates[-1, 0] == pytest.approx(1.0)  # the end of the path is on the positive side


def test_planes_that_do_not_exist_are_refused() -> None:
    with pytest.raises(BadValue, match="plain or filter"):
        landscapes.random_plane(PARAMS, generator(), "pca")
    with pytest.raises(BadValue, match="at least two"):
        landscapes.random_plane({"x": torch.ones(1)}, generator())
    with pytest.raises(BadValue, match="filter"):
        landscapes.random_plane({"x": torch.ones(3)}, generator(), "filter")
    with pytest.raises(BadValue, match="no plane"):
        landscapes.path_plane(PARAMS, [PARAMS, PARAMS])
    with pytest.raises(BadShape, match="same policy"):
        landscapes.Plane(PARAMS, PARAMS, {"x": torch.ones(1)})


@pytest.mark.parametrize(("radius", "points"), [(0.5, 4), (0.5, 1), (0.0, 5), (math.inf, 5)])
def test_grids_without_a_centre_are_refused(radius: float, points: int) -> None:
    with pytest.raises(BadValue):
        landscapes.grid(radius, points)


def test_grid_has_its_centre_and_its_ends() -> None:
    axis = landscapes.grid(0.3, 7)
    assert axis[3] == 0.0 and axis[0] == -axis[-1] == -0.3
    assert landscapes.mesh(axis)[24].tolist() == [0.0, 0.0]


# ----------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize("name", ["hovering", "landing", "racing", "gate", "lq"])
def test_returns_over_a_plane_equal_a_loop_over_its_points(name: str) -> None:
    """The obvious twin: one ordinary rollout per point; and any chunk gives the same."""
    options = {"horizon": 6} if name != "lq" else {}
    problem, params = small(name, **options)
    plane = landscapes.random_plane(params, generator(1))
    points = landscapes.mesh(landscapes.grid(0.5, 3))
    noise = problem.draw(4, generator(2))
    fast = landscapes.returns_over_plane(problem, plane, points, noise, chunk=4)
    for row, (a, b) in zip(fast, points.tolist(), strict=True):
        policy = problem.bind(plane.point(a, b))
        slow = evaluate(problem, gradlab.rollout(problem, policy, noise)).value.sum(-1)
        torch.testing.assert_close(row, slow, rtol=1e-9, atol=1e-9)
    again = landscapes.returns_over_plane(problem, plane, points, noise, chunk=9)
    torch.testing.assert_close(fast, again, rtol=1e-12, atol=1e-12)


def test_points_are_independent() -> None:
    """Moving one point changes its own row alone."""
    problem, params = small("lq")
    plane = landscapes.random_plane(params, generator(1))
    points = landscapes.mesh(landscapes.grid(0.5, 3))
    noise = problem.draw(3, generator(2))
    before = landscapes.returns_over_plane(problem, plane, points, noise)
    points[5] += 0.1
    after = landscapes.returns_over_plane(problem, plane, points, noise)
    changed = (before != after).any(1)
    assert changed.tolist() == [k == 5 for k in range(9)]


def test_slopes_are_the_surfaces_own_derivatives() -> None:
    """Projected first-order gradients against central differences, on oblique directions too."""
    problem, params = small("lq")
    plane = landscapes.random_plane(params, generator(1))
    mixed = {n: plane.first[n] + plane.second[n] for n in plane.first}
    plane = landscapes.Plane(plane.centre, plane.first, mixed)
    noise = problem.draw(3, generator(2))
    import estimators

    slopes = plane.slopes(estimators.FOG()(problem, plane.point(0.1, -0.2), noise).per_sample())
    h = 1e-5
    points = torch.tensor([[0.1, -0.2]], dtype=torch.float64)
    shifts = h * torch.tensor([[1, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)
    ends = landscapes.returns_over_plane(problem, plane, points + shifts, noise)
    differences = ((ends[0::2] - ends[1::2]) / (2 * h)).mT
    # error of a central difference: h² times a third derivative, plus rounding over h
    torch.testing.assert_close(slopes, differences, rtol=1e-7, atol=1e-8)


def drawn_by(monkeypatch: pytest.MonkeyPatch, value: Callable[[Tensor, Tensor], Tensor]) -> tuple:
    """Arguments of `slopes_by_differences` for a return
    that is `value(points [P, 2], noise [N])`.
    """
    problem, params = small("lq")
    plane = landscapes.random_plane(params, generator(1))
    monkeypatch.setattr(
        landscapes,
        "returns_over_plane",
        lambda problem, plane, points, noise: value(points, noise.initial[:, 0]),
    )
    return problem, plane


def test_slopes_by_differences_equal_first_order_gradients_of_each_episode() -> None:
    problem, params = small("lq")
    plane = landscapes.random_plane(params, generator(1))
    noise = problem.draw(5, generator(2))
    import estimators

    found = landscapes.slopes_by_differences(problem, plane, torch.tensor([0.1, -0.2]), noise)
    slopes = plane.slopes(estimators.FOG()(problem, plane.point(0.1, -0.2), noise).per_sample())
    # the return is a polynomial of degree 2T in the gains: the error is of order h⁴, and held
    assert bool((found.truncation < 1e-5 * slopes.abs().mean(0)).all())
    torch.testing.assert_close(found.samples, slopes, rtol=1e-5, atol=1e-6)


def test_slopes_by_differences_are_not_those_of_a_grid_that_misses_a_wave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A wave shorter than a drawing grid's spacing turns a difference over that spacing round."""
    spacing, length = 0.004, 0.006

    def value(points: Tensor, noise: Tensor) -> Tensor:
        a, b = points[:, :1], points[:, 1:]
        wave = torch.sin(2 * math.pi * a / length)
        return a + 2 * b + 6 * length / (2 * math.pi) * wave * (1 + 0.1 * noise)

    problem, plane = drawn_by(monkeypatch, value)
    noise = problem.draw(400, generator(2))
    noise = noise._replace(initial=torch.randn(400, 1, generator=generator(3), dtype=torch.float64))
    ends = value(
        torch.tensor([[spacing, 0.0], [-spacing, 0.0]], dtype=torch.float64), noise.initial[:, 0]
    )
    true = torch.tensor([7.0, 2.0], dtype=torch.float64)  # 1 + 6 cos 0, 2
    assert float((ends[0] - ends[1]).mean()) / (2 * spacing) < 0
    found = landscapes.slopes_by_differences(
        problem, plane, torch.zeros(2, dtype=torch.float64), noise
    )
    error = 5 * found.samples.std(0) / 20 + found.truncation  # 5 standard errors: 6e-7
    assert bool(((found.samples.mean(0) - true).abs() <= error + 1e-9).all())
    assert found.step < spacing and float(found.truncation[0]) < 0.1 * float(true[0])


@pytest.mark.statistical
def test_slopes_by_differences_of_a_jump_are_noisy_but_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """1[a > ε/10] has the slope 10 φ(0), which no gradient of an episode sees."""

    def value(points: Tensor, noise: Tensor) -> Tensor:
        return (points[:, :1] > noise / 10).double() + points[:, 1:]

    problem, plane = drawn_by(monkeypatch, value)
    count = 20_000
    noise = problem.draw(count, generator(2))
    noise = noise._replace(
        initial=torch.randn(count, 1, generator=generator(3), dtype=torch.float64)
    )
    found = landscapes.slopes_by_differences(
        problem, plane, torch.zeros(2, dtype=torch.float64), noise
    )
    error = 5 * found.samples.std(0) / count**0.5 + found.truncation
    true = torch.tensor([10 / math.sqrt(2 * math.pi), 1.0], dtype=torch.float64)
    assert bool(((found.samples.mean(0) - true).abs() <= error + 1e-9).all())
    assert float(error[0]) < 0.3 * float(true[0])


@pytest.mark.parametrize("steps", [(0.1, 0.05), (0.1, 0.05, 0.02)])
def test_steps_that_do_not_halve_are_refused(steps: tuple[float, ...]) -> None:
    problem, params = small("lq")
    plane = landscapes.random_plane(params, generator(1))
    with pytest.raises(BadValue, match="half of the one before"):
        landscapes.slopes_by_differences(
            problem, plane, torch.zeros(2), problem.draw(5, generator()), steps
        )


# ------------------------------------------------------------------------------------ roughness

SIDE = 13
X = torch.arange(SIDE, dtype=torch.float64)
QUADRATIC = (0.1 * X[:, None] ** 2 + 0.3 * X[:, None] * X - X) / 10
KAPPA = 2 * math.pi * 2 / (SIDE - 3)  # whole periods over the windows, so that cos² averages to ½
SINUSOID = torch.sin(KAPPA * X)[:, None].expand(SIDE, SIDE)
SINUSOID_ROUGHNESS = 0.5 * 0.5 * (2 * math.sin(KAPPA / 2)) ** 6 / 20  # along one axis of two


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_a_quadratic_is_smooth(stride: int) -> None:
    found = roughness(QUADRATIC.expand(8, -1, -1), stride)
    size = float(QUADRATIC.abs().max())
    rounding = (8 * size * torch.finfo(torch.float64).eps) ** 2  # 1 + 3 + 3 + 1 rounded numbers
    assert abs(found.variance.estimate) < rounding
    assert found.spread == pytest.approx(float(QUADRATIC.std(unbiased=False)))


def test_a_sinusoid_has_its_known_roughness() -> None:
    found = roughness(SINUSOID.expand(8, -1, -1))
    assert found.variance.estimate == pytest.approx(SINUSOID_ROUGHNESS, rel=1e-12)
    whole = float(SINUSOID.var(unbiased=False))
    assert found.share.estimate == found.seen == pytest.approx(SINUSOID_ROUGHNESS / whole)
    line = roughness(SINUSOID[:, 0].expand(8, -1))
    assert line.variance.estimate == pytest.approx(2 * SINUSOID_ROUGHNESS, rel=1e-12)


def test_independent_values_have_their_variance() -> None:
    """The mean of (Δ³)²/20 is s² exactly on average: 5 standard errors of 400 surfaces."""
    values = 0.7 * torch.randn(400, SIDE, SIDE, generator=generator(), dtype=torch.float64)
    found = third_differences(values).square().sum(1)
    error = float(found.std()) / math.sqrt(400)
    assert error < 0.01 * 0.49  # a precision gate
    assert abs(float(found.mean()) - 0.49) < 5 * error


def test_roughness_grows_with_the_scale_as_the_kind_of_surface_says() -> None:
    """64 times per doubling where it is smooth, 8 times at kinks,
    2 times at jumps, not for noise.
    """
    x = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    surfaces = {
        6: torch.sin(3 * x),
        3: (x - 0.1234).abs(),
        1: (x > 0.1234).double(),
    }
    for order, surface in surfaces.items():
        sizes = [
            float(third_differences(surface[None], stride).square().sum()) for stride in (16, 32)
        ]
        # next order: the scale 32·h = 0.016 squared (sine), the windows lost at the ends (others)
        assert math.log2(sizes[1] / sizes[0]) == pytest.approx(order, abs=0.05)


def episodes(
    surface: Tensor, count: int, common: float, rough: float, rng: torch.Generator
) -> Tensor:
    """Surfaces of single episodes: a shift and a wave that all points share,
    and noise of points.
    """
    shift, wave = torch.randn(2, count, 1, 1, generator=rng, dtype=torch.float64)
    noise = torch.randn(count, SIDE, SIDE, generator=rng, dtype=torch.float64)
    return surface + common * (3 * shift + wave * torch.sin(X)[:, None]) + rough * noise


def misses_allowed(trials: int, rate: float = 0.05, false_alarm: float = 1e-4) -> int:
    """More misses than this happen with less than `false_alarm` if the coverage is 1 − rate."""
    total = 0.0
    for k in range(trials + 1):
        total += math.comb(trials, k) * rate**k * (1 - rate) ** (trials - k)
        if total >= 1 - false_alarm:
            return k
    return trials


NOISES = [(0.5, 0.5), (2.0, 0.1), (0.1, 3.0)]
SURFACES = {"smooth": QUADRATIC, "rough": SINUSOID + QUADRATIC}


def check_coverage(kind: str, common: float, rough: float, trials: int) -> None:
    """Intervals of 32 episodes hold the known values as often as they say; the mean is debiased."""
    rng, surface = generator(5), SURFACES[kind]
    variance = float(third_differences(surface[None]).square().sum())
    share = variance / float(surface.var(unbiased=False))
    misses = {"variance": 0, "share": 0}
    estimates = []
    tiny = 1e-20  # a quadratic's own rounding
    for _ in range(trials):
        found = roughness(episodes(surface, 32, common, rough, rng))
        for name, true in (("variance", variance), ("share", share)):
            interval = getattr(found, name)
            misses[name] += not interval.low - tiny <= true <= interval.high + tiny
        estimates.append(found.variance.estimate)
    assert max(misses.values()) <= misses_allowed(trials), misses
    mean = torch.tensor(estimates, dtype=torch.float64)
    assert abs(float(mean.mean()) - variance) < 5 * float(mean.std()) / math.sqrt(trials)


@pytest.mark.statistical
@pytest.mark.parametrize("kind", SURFACES)
def test_intervals_cover_the_roughness_of_the_expected_surface(kind: str) -> None:
    """40 repeats: a coverage of 65 % would be found nine times in ten, 60 % nearly always."""
    check_coverage(kind, 0.5, 0.5, 40)


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("kind", SURFACES)
def test_intervals_cover_for_noise_of_every_kind(kind: str, noise: tuple[float, float]) -> None:
    """Common to all points, independent between them, large and small; 500 repeats."""
    check_coverage(kind, *noise, trials=500)


@pytest.mark.statistical
def test_the_plug_in_would_call_noise_rough() -> None:
    """Power: the interval excludes what the drawn surface shows when that is noise."""
    found = roughness(episodes(QUADRATIC, 32, 0.5, 3.0, generator(7)))
    assert found.seen > 2 * found.share.high
    rough = roughness(episodes(QUADRATIC + SINUSOID, 32, 0.5, 0.5, generator(8)))
    assert rough.share.low > 0.5 * rough.share.estimate > 0


@pytest.mark.statistical
def test_paired_comparison_covers_and_decides() -> None:
    """Half the sinusoid on the same episodes: covered, seen in the variance and in the share."""
    rng, trials = generator(9), 30
    surfaces = QUADRATIC + 0.5 * SINUSOID, QUADRATIC + SINUSOID
    sizes = [float(third_differences(s[None]).square().sum()) for s in surfaces]
    shares = [v / float(s.var(unbiased=False)) for v, s in zip(sizes, surfaces, strict=True)]
    misses = {"variance": 0, "share": 0}
    for _ in range(trials):
        noise = episodes(torch.zeros(SIDE, SIDE), 32, 0.5, 0.5, rng)
        found = compare_roughness(surfaces[0] + noise, surfaces[1] + noise)
        assert found.variance_p_value < 0.05 and found.share_p_value < 0.05
        for name, true in (("variance", sizes), ("share", shares)):
            interval = getattr(found, name)
            misses[name] += not interval.low <= true[0] - true[1] <= interval.high
    assert max(misses.values()) <= misses_allowed(trials), misses


@pytest.mark.statistical
def test_paired_comparison_of_equals_seldom_decides() -> None:
    rng, trials = generator(11), 30
    false = 0
    for _ in range(trials):
        pair = [episodes(QUADRATIC + SINUSOID, 32, 0.5, 0.5, rng) for _ in range(2)]
        found = compare_roughness(*pair)
        false += found.variance_p_value < 0.05 or found.share_p_value < 0.05
    assert false <= misses_allowed(trials, rate=0.1)  # two tests at 5 %


def test_shares_of_pure_noise_are_not_told_apart() -> None:
    """Where a surface is not seen through its noise, its share is unknown:
    no verdict, never a sure one.
    """
    rng, unknown = generator(12), 0
    for _ in range(40):
        found = compare_roughness(*torch.randn(2, 64, 9, 9, generator=rng).unbind())
        assert -1 <= found.share.low <= found.share.high <= 1
        if math.isnan(found.share.estimate):
            unknown += 1
            assert found.share == (pytest.approx(math.nan, nan_ok=True), -1.0, 1.0)
            assert found.share_p_value == 1.0
        else:
            assert abs(found.share.estimate) <= 1 and found.share_p_value > 0
    assert unknown > 20


def test_a_smaller_surface_is_smoother_in_variance_and_equal_in_share() -> None:
    values = episodes(QUADRATIC + SINUSOID, 32, 0.5, 0.5, generator())
    found = compare_roughness(0.5 * values, values)
    assert found.variance.high < 0
    assert abs(found.share.estimate) < 1e-12


def test_episodes_that_are_not_finite_are_counted_and_left_out() -> None:
    values = episodes(QUADRATIC + SINUSOID, 32, 0.5, 0.5, generator())
    spoilt = values.clone()
    spoilt[3, 4, 5] = math.nan
    spoilt[9, 0, 0] = math.inf
    found = roughness(spoilt)
    assert (found.episodes, found.nonfinite) == (30, 2)
    kept = torch.ones(32, dtype=torch.bool)
    kept[[3, 9]] = False
    assert found.variance.estimate == pytest.approx(roughness(values[kept]).variance.estimate)
    pair = compare_roughness(spoilt, values)
    assert math.isfinite(pair.share.estimate)


@pytest.mark.parametrize(
    "call",
    [
        lambda v: roughness(v, 5),
        lambda v: roughness(v[:, 0, 0]),
        lambda v: third_differences(v, 0),
    ],
)
def test_grids_too_small_for_the_stride_are_refused(call: Callable[[Tensor], object]) -> None:
    with pytest.raises(BadShape, match="third differences"):
        call(torch.zeros(8, SIDE, SIDE, dtype=torch.float64))


def test_too_few_episodes_are_refused() -> None:
    with pytest.raises(BadValue, match="at least 5"):
        roughness(torch.zeros(3, SIDE, SIDE, dtype=torch.float64))
