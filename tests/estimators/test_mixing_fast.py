"""What mixtures find without a loop or [N, P], beside slow twins of plain definitions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import estimators as E
import gradlab
from estimators.mixtures.blended import Blended
from estimators.mixtures.calls import centred_products, exact, step_products
from estimators.mixtures.covariances import _moments, products
from estimators.mixtures.dealing import Batches
from estimators.mixtures.elementwise import (
    LEAST_LEFT,
    by_columns,
    by_name,
    pair_moments,
    parameter_variances,
    tiles,
)
from estimators.mixtures.least_error import _by_eigenvectors, best_weights
from estimators.mixtures.weights import Level, layer_of
from gradlab.gradients.samples import Dense, Factored, GradientSamples
from gradlab.policies.factors import Factors, LinearFactor
from gradlab.policies.pulls import LayerPull
from gradlab.statistics.rows import DenseRows
from tests.gradlab.statistics.test_rows import Largest
from tests.helpers.dense_moments import DenseMoments
from tests.helpers.toy import toy_params, toy_problem

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-6}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCES, ids=["float64", "float32"])


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=generator(seed), dtype=torch.float64)


def close(found: Tensor, expected: Tensor, scale: Tensor | float, tolerance: float) -> None:
    """To a relative error of the scale that each number has."""
    assert found.shape == expected.shape
    error = (found - expected).abs() / scale
    assert float(error.max()) <= tolerance, float(error.max())


def sampled(dtype: torch.dtype, count: int = 24) -> list[GradientSamples]:
    problem = toy_problem(dtype=dtype)
    noise = problem.draw(count, generator(1))
    return [part(problem, toy_params(problem), noise) for part in (E.FOG(), E.PG())]


# Two parts, number by number.


def pair(kind: str, dtype: torch.dtype, count: int) -> tuple[Tensor, Tensor]:
    a, b = 3 + normal(count, 60), -1 + 2 * normal(count, 60, seed=1)
    if kind == "alike":
        b = a + 1e-2 * b
    elif kind == "quiet":
        b = 1e-3 * b
    elif kind == "far":
        a = 100 * a
    return a.to(dtype), b.to(dtype)


@DTYPES
@pytest.mark.parametrize("kind", ["any", "alike", "quiet", "far"])
@pytest.mark.parametrize("count", [5, 40])
def test_pairs_are_as_any_number_of_parts(kind: str, dtype: torch.dtype, count: int) -> None:
    """Beside the matrices of every sample, of the same rows in float64."""
    rows = pair(kind, dtype, count)
    given = torch.stack([x.double() for x in rows], -1)
    found = pair_moments([rows], count)
    centred = given - given.mean(0)
    covariance, _, _, excess = _moments(centred[..., :, None] * centred[..., None, :])
    size = covariance.diagonal(dim1=-2, dim2=-1)
    tolerance = TOLERANCES[dtype]
    close(found.first, covariance[:, 0, 0], size[:, 0], tolerance)
    close(found.second, covariance[:, 1, 1], size[:, 1], tolerance)
    close(found.both, covariance[:, 0, 1], size.prod(-1).sqrt(), tolerance)
    # what is left of parts that are nearly alike is as exact as they are themselves
    apart = (given[..., 0] - given[..., 1]).var(0)
    of_parts = found.first + found.second - 2 * found.both
    close(of_parts, apart, (apart * size.amax(-1)).sqrt() + apart, tolerance)
    # rounding is larger by the ratio of what cancels, and where one sample all but decides the fit;
    # in float64 it is the twin's, which subtracts squares
    d = centred[..., 0] - centred[..., 1]
    left = (1 - 1 / count - d.square() / d.square().sum(0)).clamp(min=LEAST_LEFT).amin(0)
    worst = (size.sum(-1) / torch.minimum(apart, size.amin(-1))).sqrt() / left
    power = 1 if dtype == torch.float32 else 2
    close(found.excess, excess, excess * worst**power, tolerance)
    gap = given[..., 0].mean(0) - given[..., 1].mean(0)
    close(found.means[0] - found.means[1], gap, given.mean(0).abs().sum(-1), tolerance)


def test_pairs_without_variance() -> None:
    """One part that is constant, both of them, and two that are the same."""
    a, b = pair("any", torch.float32, 9)
    still = torch.full_like(a, 0.1)
    tiles_ = (still, b), (a, still), (still, 2 * still), (a, a)
    found = pair_moments([[x.clone() for x in tile] for tile in tiles_], 9)
    first, second, both, excess = (x.unflatten(0, (4, -1)) for x in found[:4])
    assert (first[[0, 2]] == 0).all() and (second[[1, 2]] == 0).all() and (both[:3] == 0).all()
    assert (excess == 0).all() and (first[3] == second[3]).all() and (first[1] > 0).all()
    found = products([Dense({"w": still}), Dense({"w": b})], "parameter", 1)["w"]
    assert (found.best == torch.tensor([1.0, 0.0]).double()).all()


def test_what_is_not_a_number_has_equal_weights() -> None:
    a, b = pair("any", torch.float64, 9)
    a[3, 7] = torch.nan
    found = products([Dense({"w": a}), Dense({"w": b})], "parameter", 1)["w"]
    assert (found.covariance[7] == 0).all() and float(found.excess[7]) == 0.0
    assert found.covariance.isfinite().all() and (found.covariance[:7, 0, 0] > 0).all()
    assert found.best[7].tolist() == found.alone[7].tolist() == [0.5, 0.5]
    assert (
        E.BestLinear()([Dense({"w": a}), Dense({"w": b})], "parameter", 1, True)["w"]
        .isfinite()
        .all()
    )


def test_two_weights_in_closed_form_are_those_by_eigenvectors() -> None:
    factor = normal(500, 2, 3) * (3 * normal(500, 2, 1, seed=1)).exp()
    matrices = factor @ factor.mT
    for k, rows in enumerate(([3.0, 3.0, 3.0], [1.0, 2.0, 4.0], [0.0, 0.0, 4.0], [0.0, 0.0, 0.0])):
        matrices[k] = torch.tensor([rows[:2], rows[1:]]).double()
    matrices[4] = (1 + 1e-9) * torch.eye(2).double() + 1
    matrices[4] -= torch.eye(2).double()
    found, expected = best_weights(matrices), _by_eigenvectors(matrices)
    close(found, expected, expected.abs() + 1e-12, 1e-6)  # rounding over the 1e-9 of one of them
    torch.testing.assert_close(found[:4], expected[:4], rtol=1e-11, atol=0)


@DTYPES
def test_tiles_are_every_number_once(dtype: torch.dtype) -> None:
    """Of layers by columns and of gradients in full, in one order."""
    samples = sampled(dtype)[0]
    walks = by_columns([samples]), [DenseRows(samples.per_sample())]
    for parts in walks:
        whole = torch.cat([rows for (rows,) in tiles(parts)], 1)
        for name, leaf in by_name(parts[0], whole.mT).items():
            expected = samples.per_sample()[name]
            found = leaf.movedim(-1, 0)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    scalar = Dense({"a": normal(9), "b": normal(9, 2, 3), "c": normal(9, 4)})
    found = parameter_variances(scalar)
    assert {name: tuple(x.shape) for name, x in found.items()} == {"a": (), "b": (2, 3), "c": (4,)}
    for name, x in found.items():
        torch.testing.assert_close(x, scalar.leaves[name].var(0), rtol=1e-12, atol=0)


@DTYPES
@pytest.mark.parametrize("rule", [E.InverseVariance(), E.BestLinear(), E.BestLinear(unbiased=1)])
def test_weights_of_parameters_are_those_of_gradients_in_full(
    rule: E.Rule, dtype: torch.dtype
) -> None:
    parts = sampled(dtype, 40)
    dense = [Dense({n: x.double() for n, x in part.per_sample().items()}) for part in parts]
    found, expected = (rule(some, "parameter", 8, True) for some in (parts, dense))
    for name, weights in expected.items():
        close(found[name], weights, 1.0, 1e3 * TOLERANCES[dtype])


# Steps.


def factors(count: int, sizes: Sequence[tuple[int, int]], shift: float, seed: int) -> Factors:
    linear = [
        LinearFactor(f"layers.{i}", shift + normal(count, 3, a, seed=seed + i), shift / 2 + normal(count, 3, b, seed=seed + 9 + i))
        for i, (a, b) in enumerate(sizes)
    ]  # fmt: skip
    return Factors(linear, {"log_std": normal(count, 3, 2, seed=seed + 20)})


@DTYPES
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shift", [0.0, 1e3])
@pytest.mark.parametrize("count", [6, 40])
def test_products_of_steps_are_those_of_outer_products(
    count: int, shift: float, bias: bool, dtype: torch.dtype
) -> None:
    """By all products of samples (6 of them) and by the mean (40), however far the mean is."""
    three = [factors(count, [(3, 20), (20, 17), (17, 2)], shift, 30 * k) for k in range(3)]
    given = [part.map(lambda x: x.to(dtype)) for part in three]
    rows = []
    for part in given:
        double = part.map(torch.Tensor.double)
        leaves = [(c[..., :, None] * x[..., None, :]).flatten(2) for _, x, c in double.linear]
        leaves += [c for _, _, c in double.linear] if bias else []
        whole = torch.cat([*leaves, *double.direct.values()], -1)
        rows.append(whole - whole.mean(0))
    expected = torch.einsum("kntp,lntp->ntkl", torch.stack(rows), torch.stack(rows))
    size = expected.diagonal(dim1=-2, dim2=-1).mean(0).sqrt()
    found, squared = centred_products(given, bias)
    slack = 1e2 if dtype == torch.float64 and shift else 1.0
    close(found, expected, size[..., :, None] * size[..., None, :], slack * TOLERANCES[dtype])
    assert squared.shape == (3, 3) and (squared > 0).all()


def test_steps_of_parts_that_nearly_agree_go_by_float64() -> None:
    parts = sampled(torch.float32)
    assert isinstance(parts[0], Factored)
    near = parts[0].with_cotangent(parts[0].cotangent * (1 + 1e-4 * normal(24, 1, 1).float()))
    found = step_products([parts[0], near], 8)
    assert found is not None
    double = [exact(part) for part in (parts[0], near)]
    expected = step_products(double, 8)
    assert expected is not None and torch.equal(found, expected)


# Mixed samples.


def dense_twin(samples: Blended) -> Dense:
    """Σ_k w_k ⊙ g_k row by row."""
    rows = [part.per_sample() for part in samples.parts]
    out: dict[str, list[Tensor]] = {name: [] for name in rows[0]}
    for r in range(len(samples.parts[0])):
        chosen = (samples.start + r) // samples.size % samples.sets
        for name, leaves in out.items():
            weights = samples.weights[name][chosen].to(rows[0][name])
            leaves.append(sum(w * row[name][r] for w, row in zip(weights, rows, strict=True)))  # type: ignore[arg-type]
    means = {
        name: torch.stack(x).unflatten(0, (-1, samples.average)).mean(1) for name, x in out.items()
    }
    return Dense(means)


def blended(level: Level, blocks: int, count: int = 24) -> Blended:
    parts = sampled(torch.float64, count)
    values = {}
    for seed, (name, leaf) in enumerate(parts[0].rows(0, 1).mean().items()):
        key, shape = (layer_of(name), ()) if level == "layer" else (name, leaf.shape)
        values[key] = normal(blocks, 2, *shape, seed=seed)
    found = E.Weights(level, values).mix(parts)
    assert isinstance(found, Blended)
    return found


FORMS = {
    "whole": lambda x: x,
    "rows": lambda x: x.rows(5, 23),
    "twice": lambda x: x.rows(4, 24).rows(2, 14),
    "means": lambda x: x.group_means(4),
    "means across sets": lambda x: x.group_means(12),
    "means of rows": lambda x: x.rows(6, 24).group_means(6),
    "means of means": lambda x: x.group_means(2).group_means(6),
    "rows of means": lambda x: x.group_means(6).rows(1, 3),
    "multiple": lambda x: -2.5 * x,
    "multiple of means": lambda x: x.group_means(12) * torch.tensor([0.5, 3.0]),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("level", ["layer", "parameter"])
def test_mixed_parameters_are_their_rows_in_full(level: Level, blocks: int, form: str) -> None:
    base = blended(level, blocks)
    found, expected = FORMS[form](base), FORMS[form](dense_twin(base))
    rows = expected.per_sample()
    assert len(found) == len(expected) and found.group == expected.group
    for name, leaf in rows.items():
        torch.testing.assert_close(found.per_sample()[name], leaf, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(found.per_sample(2)[name], leaf, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(found.mean()[name], leaf.mean(0), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.squared_norms(), expected.squared_norms(), rtol=1e-10, atol=0)
    other = Dense({name: normal(*leaf.shape) for name, leaf in rows.items()})
    torch.testing.assert_close(found.inner(other), expected.inner(other), rtol=1e-9, atol=1e-9)
    total = (found + other).per_sample()
    for name, leaf in rows.items():
        torch.testing.assert_close(total[name], leaf + other.leaves[name], rtol=1e-9, atol=1e-11)
    DenseMoments.of(rows).check(found.moments(per_parameter=True), 1e-12)


@pytest.mark.parametrize("level", ["global", "layer", "parameter", "step"])
def test_statistics_of_groups_are_those_of_their_means(level: Level) -> None:
    """Of few groups in full, and of more than are kept by their calls."""
    problem = toy_problem()
    params = toy_params(problem)
    for size, count in ((8, 24), (4, 272)):
        mixture = E.Mixture((E.FOG(), E.PG()), E.BestLinear(), level, E.Cross(size))
        found = mixture(problem, params, problem.draw(count, generator(3)))
        twin = DenseMoments.of(found.per_sample(), group=size)
        twin.check(found.moments(per_parameter=True), 1e-11)


@pytest.mark.parametrize("batches", ["shared", "separate"])
@pytest.mark.parametrize("level", ["layer", "parameter"])
@pytest.mark.parametrize("rule", [E.InverseVariance(), E.BestLinear()])
def test_no_tensor_of_a_mixture_has_a_number_for_every_sample_and_parameter(
    rule: E.Rule, level: Level, batches: Batches
) -> None:
    problem = toy_problem(dtype=torch.float32)
    problem = problem.replace(policy=gradlab.GaussianPolicy(3, 1, hidden=(128, 128)))
    params, count = problem.init(generator(0)), 512
    mixture = E.Mixture((E.FOG(), E.PG()), rule, level, E.Cross(count), batches)
    layer, factors_ = 128 * 128, count * problem.horizon * 128
    with Largest() as seen:
        mixture(problem, params, problem.draw(count, generator(1))).moments()
    assert seen.size <= max(130 * layer, factors_) < count * layer


def test_an_unknown_policy_and_parts_of_other_forms_are_mixed_in_full() -> None:
    problem = toy_problem()
    params = toy_params(problem)
    noise = problem.draw(16, generator(1))
    mixed = E.Mixture((E.FOG(engine="vmap"), E.PG()), E.BestLinear(), "parameter", E.Same(16))
    known = dataclasses.replace(mixed, parts=(E.FOG(), E.PG()))
    expected = known(problem, params, noise).per_sample()
    for name, leaf in mixed(problem, params, noise).per_sample().items():
        torch.testing.assert_close(leaf, expected[name], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("source", [E.Cross(8), E.Same(8), E.Cross(12, folds=3)])
def test_means_of_folds_are_those_that_the_weights_were_found_with(
    source: E.Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights by parameter form all samples of a fold, so that nothing is left to be found of it.

    Of three folds the weights come from two at a time, which are no run of one set.
    """
    problem = toy_problem()
    params, noise = toy_params(problem), problem.draw(24, generator(1))
    mixture = E.Mixture((E.FOG(), E.PG()), E.BestLinear(), "parameter", source)
    found = mixture(problem, params, noise)
    calls: list[int] = []
    mean = LayerPull.mean

    def counted(self: LayerPull, *args: Any) -> Any:
        calls.append(1)
        return mean(self, *args)

    monkeypatch.setattr(LayerPull, "mean", counted)
    total = found.mean()
    moments = found.moments()
    assert bool(calls) == (source == E.Cross(12, folds=3))
    for name, leaf in found.per_sample().items():
        torch.testing.assert_close(total[name], leaf.mean(0), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(moments.mean[name], leaf.mean(0), rtol=1e-12, atol=1e-14)
