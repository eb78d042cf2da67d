"""Oracles against closed forms and against their own stated errors; rates.

Statistical tests: |z| < 4.9 has a false-alarm rate of 1e-6 for a normal z; where a χ²/F law is used
the quantile is that of 1e-6. About 2e-5 for the whole file.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import estimators as E
import gradlab
from gradlab.foundation.errors import BadValue, NotFinite
from gradlab.oracle import ClosedForm, FiniteDifference, LargeSample, Quadrature, closed_forms
from gradlab.oracle.closed_forms import Answer
from gradlab.problems.problem import Problem
from gradlab.statistics import OracleGradient
from gradlab.statistics.gram import contrasts
from gradlab.statistics.saving import from_tensors, to_tensors
from gradlab.testing import fixed_directions, project
from tests.helpers.known import build
from tests.helpers.toy import toy_params, toy_problem

Z = 4.9  # two-sided 1e-6


@functools.cache
def known(name: str, **options: object) -> tuple[Problem, dict[str, Tensor], Answer]:
    problem, params = build(name, **options)
    return problem, params, closed_forms.solve(problem, params)


def norm(leaves: dict[str, Tensor]) -> float:
    return math.sqrt(sum(float(x.square().sum()) for x in leaves.values()))


def difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: a[name] - b[name] for name in a}


def largest_z(found: OracleGradient, exact: dict[str, Tensor]) -> float:
    """Largest |z| along the truth's direction, its layers' and random ones, by block means."""
    assert found.moments is not None
    _, directions = fixed_directions(OracleGradient.exact(exact, "exact"), seed=0)
    gap = difference(found.mean, exact)
    z = project({n: x[None] for n, x in gap.items()}, directions)[0]
    errors = project(contrasts(found.moments), directions).square().mean(0).sqrt()
    return float((z / errors).abs().max())


def test_closed_form_is_exact() -> None:
    problem, params, answer = known("lq")
    truth = ClosedForm(lambda p, q: closed_forms.solve(p, q).gradient, "riccati")(problem, params)
    assert truth.name == "riccati" and truth.relative_stderr == 0
    assert norm(difference(truth.mean, answer.gradient)) == 0
    with pytest.raises(NotFinite, match="NaN"):
        ClosedForm(lambda p, q: {"w": torch.tensor([math.nan])})(problem, params)


def test_quadrature_converges_on_smooth_landscapes() -> None:
    problem, params, answer = known("quadratic")
    for estimator in (E.PG(), E.FOG()):
        truth = Quadrature(estimator, nodes=8)(problem, params)
        assert norm(difference(truth.mean, answer.gradient)) <= 1e-11 * norm(answer.gradient)
    relaxed = known("heaviside")[0].relaxed(0.1)
    _, params, _ = known("heaviside")
    exact = closed_forms.solve(relaxed, params).gradient
    for estimator in (E.PG(), E.FOG()):
        truth = Quadrature(estimator, nodes=160)(relaxed, params)
        assert norm(difference(truth.mean, exact)) <= 1e-6 * norm(exact)


def test_quadrature_refuses_jumps_and_random_starts() -> None:
    problem, params, _ = known("heaviside")
    with pytest.raises(BadValue, match="nodes"):
        Quadrature(E.PG())(problem, params)
    for name in ("lq", "terminal_gate"):
        problem, params, _ = known(name)
        with pytest.raises(BadValue, match="LargeSample"):
            Quadrature(E.PG())(problem, params)


@pytest.mark.statistical
def test_finite_differences_agree_with_the_closed_form() -> None:
    problem, params, answer = known("lq")
    truth = FiniteDifference(count=2048)(problem, params)
    assert truth.relative_stderr < 0.05
    assert largest_z(truth, answer.gradient) < Z


@pytest.mark.statistical
def test_finite_differences_of_a_hard_event_are_noisy_but_right() -> None:
    problem, params, answer = known("heaviside")
    truth = FiniteDifference(count=16_384)(problem, params)
    assert 0 < truth.relative_stderr < 0.2
    assert largest_z(truth, answer.gradient) < Z


def bent(monkeypatch: pytest.MonkeyPatch, bend: float) -> tuple:
    """A problem whose return is Σ_i (a_i + bend a_i⁵) + 4 noise·a_0, a the parameters."""
    problem = toy_problem()
    params = {"a": torch.tensor([0.5, -0.3], dtype=torch.float64)}

    def returns(self, problem, params, noise):
        a = params["a"]
        return (a + bend * a**5).sum() + 4 * a[0] * noise.action.flatten(1)[:, 0].double()

    monkeypatch.setattr(FiniteDifference, "_returns", returns)
    return problem, params, 1 + 5 * bend * params["a"] ** 4


def test_finite_differences_hold_their_error_of_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the step is too large for the function,
    the standard error says so; it is of order h⁴.
    """
    problem, params, true = bent(monkeypatch, 3.0)
    steps = (0.4, 0.2, 0.1)
    truth = FiniteDifference(count=64, steps=steps)(problem, params)
    miss = (truth.mean["a"] - true).abs()
    # of a⁵, Richardson's from h and h/2 misses −h⁴/4 of it; the central difference h⁴ + 10 a² h²
    torch.testing.assert_close(miss[1], torch.tensor(3 * 0.4**4 / 4, dtype=torch.float64))
    # the second coordinate has no noise: all of its error is that of the step, 15/16 of the miss
    assert float(truth.stderr()["a"][1]) == pytest.approx(15 / 16 * float(miss[1]), rel=0.02)
    assert truth.error() >= 2 * float((15 / 16 * miss[1]).square()) * 0.98


def test_finite_differences_want_three_falling_steps() -> None:
    for steps in ((0.1, 0.05), (0.1, 0.2, 0.05)):
        with pytest.raises(BadValue, match="three falling steps"):
            FiniteDifference(steps=steps)(toy_problem(), {"a": torch.zeros(1)})


def test_finite_differences_refuse_large_policies() -> None:
    problem = toy_problem()
    with pytest.raises(BadValue, match="max_parameters"):
        FiniteDifference(max_parameters=10)(problem, toy_params(problem))


@pytest.mark.statistical
@pytest.mark.parametrize("estimator", [E.FOG(), E.PG(baseline="loo", group_size=8)], ids=["f", "p"])
def test_large_samples_reach_the_precision_they_promise(estimator: E.Estimator) -> None:
    problem, params, answer = known("lq")
    seen: list[float] = []
    oracle = LargeSample(estimator, until_relative_stderr=0.03, batch=2048)
    truth = oracle(problem, params, progress=lambda now: seen.append(now.relative_stderr))
    assert truth.relative_stderr <= 0.03
    assert seen[-1] == truth.relative_stderr
    assert largest_z(truth, answer.gradient) < Z
    # the stated error is the size of the true one: a weighted χ² of at least ~2 degrees of freedom
    assert norm(difference(truth.mean, answer.gradient)) < 4 * 0.03 * norm(answer.gradient)


def test_large_samples_say_when_they_fall_short() -> None:
    problem, params, _ = known("lq")
    oracle = LargeSample(E.PG(), until_relative_stderr=1e-3, max_count=4096, batch=2048)
    truth = oracle(problem, params)
    assert truth.count * 16 == 4096
    assert truth.relative_stderr > 1e-3
    with pytest.raises(BadValue, match="until_relative_stderr"):
        LargeSample(E.PG(), until_relative_stderr=-1e-3)(problem, params)


def test_a_large_sample_of_a_fixed_size_has_no_pilot() -> None:
    """With 0 as the goal: exactly `max_count` episodes, the first of the stream."""
    problem, params, _ = known("lq")
    drawn = LargeSample(E.FOG(), until_relative_stderr=0, max_count=2048)(problem, params)
    assert drawn.count * 16 == 2048
    (stream,) = drawn.streams
    assert (stream.begin, stream.end) == (0, 2048)
    samples = gradlab.measure(E.FOG(), problem, params, 2048, stream.seed).single
    for leaf, value in samples.mean.items():
        torch.testing.assert_close(drawn.mean[leaf], value, rtol=1e-12, atol=1e-12)


@pytest.mark.statistical
@pytest.mark.parametrize("estimator", [E.FOG(), E.PG(), E.Split(0.1)], ids=lambda e: e.label)
def test_targets_are_weighted_sums_of_calls(estimator: E.Estimator) -> None:
    problem, params, answer = known("lq")
    weightings = {
        "all": None,
        "first": E.ZeroStep().call_weights(problem),
        "window": E.NStep(2).call_weights(problem),
        "lambda": E.LambdaReturn(0.7).call_weights(problem),
        "discounted": E.PG(returns="discounted").call_weights(problem),
    }
    oracle = LargeSample(estimator, until_relative_stderr=0.05, batch=4096)
    targets = oracle.targets(problem, params, weightings)
    assert list(targets) == list(weightings)
    for name, weights in weightings.items():
        assert largest_z(targets[name], closed_forms.total(answer.per_call, weights)) < Z
    alone = oracle(problem, params)
    assert norm(difference(alone.mean, targets["all"].mean)) == 0


@pytest.mark.statistical
def test_targets_of_hard_events() -> None:
    """Each call's part of Split and of PG is a sample of that call's own g_k."""
    problem, params, answer = known("terminal_gate")
    one = torch.zeros(problem.horizon, dtype=torch.float64)
    one[2] = 1.0
    for estimator in (E.PG(), E.Split(0.3)):
        oracle = LargeSample(estimator, until_relative_stderr=0.04)
        targets = oracle.targets(problem, params, {"": None, "third": one})
        exact = closed_forms.total(answer.per_call, one)
        assert largest_z(targets["third"], exact) < Z


def test_targets_need_policy_calls() -> None:
    problem, params, _ = known("lq")
    weights = {"w": torch.ones(problem.horizon, dtype=torch.float64)}
    for estimator in (E.EvolutionStrategies(), E.FOG(engine="vmap")):
        with pytest.raises(BadValue, match="call weights"):
            LargeSample(estimator).targets(problem, params, weights)


def test_seeds_are_independent_and_repeatable() -> None:
    problem, params, _ = known("lq")

    def mean(seed: int, chunk_size: int = 512, batch: int = 2048) -> dict[str, Tensor]:
        oracle = LargeSample(
            E.FOG(), 1e-9, max_count=2048, batch=batch, chunk_size=chunk_size, seed=seed
        )
        return oracle(problem, params).mean

    first, again, other = mean(1), mean(1, 256, 1024), mean(2)
    assert norm(difference(first, again)) <= 1e-12 * norm(first)
    assert norm(difference(first, other)) > 1e-3 * norm(first)
    judged = gradlab.measure(E.FOG(), problem, params, 2048, seed=0).single.mean
    assert norm(difference(mean(LargeSample(E.FOG()).seed), judged)) > 1e-3 * norm(first)


@pytest.mark.statistical
def test_different_seeds_are_uncorrelated() -> None:
    """Means of 400 pairs of neighbouring seeds: a correlation of 0 within Z/√400."""
    problem, _params, _ = known("quadratic")
    rows = []
    for seed in range(401):
        noise = next(iter(gradlab.noise_stream(problem, 64, seed)))
        rows.append(float(noise.action.mean()))
    x = np.array(rows)
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < Z / math.sqrt(400)


@pytest.mark.parametrize("sampled", [True, False])
def test_truths_survive_storage(sampled: bool, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    problem, params, answer = known("lq")
    if sampled:
        truth = LargeSample(E.PG(baseline="loo", group_size=4), 0.5, batch=1024)(problem, params)
    else:
        truth = OracleGradient.exact(answer.gradient, "closed form", 1.5)
    save_file(to_tensors(truth, "truth/"), tmp_path / "truth.safetensors")
    tensors = load_file(tmp_path / "truth.safetensors")
    back = from_tensors(tensors, {"name": truth.name, "seconds": truth.seconds}, "truth/")
    assert back.name == truth.name and back.seconds == truth.seconds
    assert norm(difference(back.mean, truth.mean)) == 0
    assert back.relative_stderr == truth.relative_stderr and back.count == truth.count
    for leaf, error in truth.stderr().items():
        assert torch.equal(back.stderr()[leaf], error)
    if truth.moments is not None:
        assert back.moments is not None
        assert back.moments.group == truth.moments.group
        assert back.moments.variance() == truth.moments.variance()


def test_compact_storage_keeps_the_mean_and_rounds_its_error() -> None:
    """Block means to float16: relative rounding 2⁻¹¹ of the largest of a leaf, far below what a
    standard error from 64 blocks is known to (9 %). The mean and the blocks' grand mean stay."""
    problem, params, _ = known("lq")
    truth = LargeSample(E.PG(baseline="loo", group_size=4), 0.5, batch=1024)(problem, params)
    metadata = {"name": truth.name, "seconds": truth.seconds}
    tensors = to_tensors(truth, "truth/", compact=True)
    back = from_tensors(tensors, metadata, "truth/")
    assert norm(difference(back.mean, truth.mean)) == 0
    assert truth.moments is not None and back.moments is not None
    for leaf, blocks in truth.moments.block_mean.items():
        largest = (blocks - truth.mean[leaf]).abs().max()
        assert (back.moments.block_mean[leaf] - blocks).abs().max() <= 2**-11 * largest
    assert back.relative_stderr == pytest.approx(truth.relative_stderr, rel=1e-6)
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    whole = sum(t.numel() * t.element_size() for t in to_tensors(truth).values())
    assert size < 0.35 * whole


# Rates.


@pytest.mark.statistical
@pytest.mark.parametrize(
    "estimator",
    [
        E.FOG(),
        E.PG(baseline="loo", group_size=4),
        E.Mixture((E.FOG(), E.QG()), E.InverseVariance(), source=E.Cross(4)),
    ],
    ids=["fog", "pg-loo", "mixture"],
)
def test_the_variance_of_the_mean_falls_as_one_over_n(estimator: E.Estimator) -> None:
    """Slope −1 of log variance against log N; the band is that of the fit's own points."""
    problem, params, answer = known("lq")
    problem = problem.replace(critic=answer.critic)
    noise = problem.draw(2**12, torch.Generator().manual_seed(3))
    samples = estimator(problem, params, noise)
    sizes, logs, errors = [4, 8, 16, 32], [], []
    for size in sizes:
        # for N = size one disjoint part of the episodes, so that the points are independent
        part = samples.rows(2**10 * len(logs), 2**10 * (len(logs) + 1))
        means = part.group_means(size).per_sample()
        rows = torch.cat([x.flatten(1) for x in means.values()], dim=1)
        squares = (rows - rows.mean(0)).square().sum(1)
        count = len(squares)
        logs.append(math.log(float(squares.sum()) / (count - 1)))
        errors.append(float(squares.std() / squares.mean()) / math.sqrt(count))
    x = np.log(sizes)
    weight = 1 / np.square(errors)
    centre = (weight * x).sum() / weight.sum()
    spread = (weight * (x - centre) ** 2).sum()
    slope = float((weight * (x - centre) * np.array(logs)).sum() / spread)
    band = float(stats.t.isf(5e-7, 30)) / math.sqrt(spread)
    assert band < 0.5  # so that neither a floor nor 1/√N nor 1/N² passes
    assert abs(slope + 1) < band, f"slope {slope:.3f}, allowed −1 ± {band:.3f}"


def test_the_variance_of_relaxed_gradients_grows_as_one_over_width() -> None:
    """Exactly, by quadrature over the noise of a one-dimensional event: slope −1 as width → 0."""
    problem, params, _ = known("heaviside")
    mean, std = float(params["layers.0.weight"]), float(params["log_std"].exp())
    widths = [0.02, 0.01, 0.005, 0.0025]
    second = []
    for width in widths:
        x = torch.linspace(-40 * width, 40 * width, 40_001, dtype=torch.float64)
        density = torch.exp(-0.5 * ((x - mean) / std).square()) / (std * math.sqrt(2 * math.pi))
        noise = problem.draw(len(x), torch.Generator().manual_seed(0))
        noise = noise._replace(action=((x - mean) / std)[:, None, None])
        samples = E.RelaxedFOG(width)(problem, params, noise).per_sample()
        square = samples["layers.0.weight"].flatten().square()
        second.append(float(torch.trapezoid(square * density, x)))
    slopes = np.diff(np.log(second)) / np.diff(np.log(widths))
    assert abs(slopes[-1] + 1) < 0.02
    assert abs(slopes[-1] + 1) < abs(slopes[0] + 1)
    # ∫ (s'/w)² du = 1/(6 w) for a sigmoid: the constant of the rate
    density = math.exp(-0.5 * (mean / std) ** 2) / (std * math.sqrt(2 * math.pi))
    assert second[-1] == pytest.approx(density / (6 * widths[-1]), rel=0.01)
