"""Mixtures: shares by a rule, where weights come from, what is used, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import estimators as E
from estimators.base import Estimator
from estimators.mixtures.rules import inverse_variance_shares, leaf_moments, variances
from estimators.mixtures.sources import Source
from estimators.mixtures.weights import LEVELS, Level, layer_of
from gradlab.foundation.errors import BadShape, BadValue
from gradlab.foundation.noise import Noise
from gradlab.gradients.samples import Dense, Factored, GradientSamples
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.problem import Problem
from gradlab.rollouts.rollout import rollout
from tests.helpers.toy import toy_params, toy_problem

IV = E.InverseVariance()
THREE = E.FOG(), E.PG(), E.QG()
PARTS = {2: THREE[:2], 3: THREE}
SOURCES: dict[str, Source] = {
    "same": E.Same(8),
    "cross": E.Cross(8),
    "three folds": E.Cross(12, folds=3),
    "independent": E.Independent(seed=3, size=8),
}
COUNT = 24  # whole groups of every source


def posed(seed: int = 1, count: int = COUNT) -> tuple[Problem, dict[str, Tensor], Noise]:
    problem = toy_problem()
    noise = problem.draw(count, torch.Generator().manual_seed(seed))
    return problem, toy_params(problem), noise


# Shares.


def shares(*variance: float) -> list[float]:
    return inverse_variance_shares(torch.tensor(variance, dtype=torch.float64)).tolist()


def test_two_shares_are_the_formula_to_the_last_bit() -> None:
    a, b = torch.rand(2, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = inverse_variance_shares(torch.stack([a, b]))
    assert torch.equal(found[0], b / (a + b)) and torch.equal(found[1], 1 - b / (a + b))


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_shares_are_inverse_variances(parts: int) -> None:
    generator = torch.Generator().manual_seed(1)
    variance = torch.randn(parts, 100, generator=generator, dtype=torch.float64).exp()
    expected = (1 / variance) / (1 / variance).sum(0)
    torch.testing.assert_close(inverse_variance_shares(variance), expected, rtol=1e-12, atol=1e-15)


def test_shares_where_nothing_varies_and_at_any_size() -> None:
    third = pytest.approx(1 / 3, abs=1e-15)
    assert shares(0, 0) == [0.5, 0.5]
    assert shares(0, 0, 0) == [third, third, third]
    assert shares(0, 1, 0) == [0.5, 0.0, 0.5] and shares(1, 0, 0) == [0.0, 0.5, 0.5]
    assert shares(0, 3, 1) == [1.0, 0.0, 0.0] and shares(3, 1, 0) == [0.0, 0.0, 1.0]
    for scale in (1e-160, 1e-300, 1e200, 1e300):  # products of three would leave float64
        assert shares(scale, scale, scale) == [third, third, third]
        assert shares(scale, 1, scale)[1] == pytest.approx(scale / (scale + 2), rel=1e-12)
    nan = float("nan")
    assert shares(nan, 1.0) == [0.5, 0.5] and shares(1.0, nan, 0.0) == [third, third, third]


# What is used.


def by_hand(
    parts: Sequence[dict[str, Tensor]], weights: dict[str, Tensor], level: Level
) -> dict[str, Tensor]:
    """Σ_k w_k g_k of one block, of dense samples."""
    out = {}
    for name in parts[0]:
        key = {"global": "", "layer": layer_of(name), "parameter": name}[level]
        out[name] = torch.stack(
            [w * p[name] for w, p in zip(weights[key], parts, strict=True)]
        ).sum(0)
    return out


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("level", LEVELS)
def test_the_weights_are_those_that_are_used_and_sum_to_one(
    level: Level, source: str, parts: int
) -> None:
    problem, params, noise = posed()
    mixture = E.Mixture(PARTS[parts], IV, level, SOURCES[source])
    weights = mixture.weights(problem, params, noise)
    for value in weights.values.values():
        assert value.dtype == torch.float64 and value.shape[:2] == (weights.blocks, parts)
        assert (value.sum(1) - 1).abs().max() <= 1e-15
        assert value.min() >= 0
    found = mixture(problem, params, noise).per_sample()
    samples = [part(problem, params, noise) for part in PARTS[parts]]
    size = COUNT // weights.blocks
    assert size == {"same": 8, "cross": 4, "three folds": 4, "independent": COUNT}[source]
    for b in range(weights.blocks):
        rows = [part.rows(b * size, (b + 1) * size) for part in samples]
        mine = {key: value[b] for key, value in weights.values.items()}
        if level in ("step", "output"):
            expected = _by_steps(rows, mine[""])
        else:
            expected = by_hand([part.per_sample() for part in rows], mine, level)
        for name, value in expected.items():
            block = found[name][b * size : (b + 1) * size]
            torch.testing.assert_close(block, value, rtol=1e-12, atol=1e-13)


def _by_steps(parts: Sequence[GradientSamples], weights: Tensor) -> dict[str, Tensor]:
    total: dict[str, Any] = {}
    for k, part in enumerate(parts):
        assert isinstance(part, Factored)
        for t in range(weights.shape[1]):
            calls = part.at_step(t)
            for name, value in (
                calls.with_cotangent(calls.cotangent * weights[k, t]).per_sample().items()
            ):
                total[name] = total.get(name, 0) + value
    return total


@pytest.mark.parametrize("level", LEVELS)
def test_a_quiet_part_among_three_gets_all_and_equal_parts_give_either(level: Level) -> None:
    problem, params, noise = posed()
    part = E.FOG()(problem, params, noise).per_sample()
    same = E.Mixture((E.FOG(), E.FOG(), E.FOG()), IV, level, E.Same(8))(problem, params, noise)
    for name, value in same.per_sample().items():
        torch.testing.assert_close(value, part[name], rtol=1e-12, atol=1e-14)
    if level in ("step", "output"):
        return
    for parts in ((Quiet(), *THREE[:2]), (THREE[0], Quiet(), THREE[1]), (*THREE[:2], Quiet())):
        mixed = E.Mixture(parts, IV, level, E.Cross(8))(problem, params, noise)
        assert all(value.abs().max() == 0 for value in mixed.per_sample().values())


@dataclasses.dataclass(frozen=True)
class Quiet(E.SurrogateEstimator):
    """An estimate of zero, without variance."""

    def surrogate(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Tensor:
        return 0.0 * rollout(problem, policy, noise).output.sum((-2, -1))

    def call_weights(self, problem: Problem) -> Tensor:
        return torch.ones(problem.horizon, dtype=problem.dtype)


# Where weights come from.


@pytest.mark.parametrize("source", ["same", "cross", "three folds"])
def test_weights_look_at_the_episodes_that_the_source_says(source: str) -> None:
    """Another episode in one block changes the weights of:
    its own (same), all others of its group (cross).
    """
    problem, params, noise = posed()
    mixture = E.Mixture(THREE, IV, source=SOURCES[source])
    other = problem.draw(COUNT, torch.Generator().manual_seed(5))
    before = mixture.weights(problem, params, noise)
    touched = 5  # in the first group, and in its second fold of four
    mixed = Noise(
        *(
            torch.cat([a[:touched], b[touched : touched + 1], a[touched + 1 :]])
            for a, b in zip(noise, other, strict=True)
        )
    )
    after = mixture.weights(problem, params, mixed)
    changed = (before.values[""] != after.values[""]).any(1).tolist()
    expected = {"same": [0], "cross": [0], "three folds": [0, 2]}[source]
    assert [b for b, flag in enumerate(changed) if flag] == expected


@pytest.mark.parametrize("level", LEVELS)
def test_a_pilot_depends_on_parameters_and_seed_alone(level: Level) -> None:
    problem, params, noise = posed()
    mixture = E.Mixture(THREE, IV, level, E.Independent(seed=3, size=8))
    assert mixture.group == 1
    weights = mixture.weights(problem, params, noise)
    again = mixture.weights(problem, params, noise.rows(0, 5))
    assert all(torch.equal(again.values[key], value) for key, value in weights.values.items())
    moved = {name: value + 0.3 for name, value in params.items()}
    for changed in (
        mixture.weights(problem, moved, noise),
        dataclasses.replace(mixture, source=E.Independent(seed=4, size=8)).weights(
            problem, params, noise
        ),
    ):
        assert any(not torch.equal(changed.values[k], v) for k, v in weights.values.items())
    whole = mixture(problem, params, noise).per_sample()
    parts = mixture(problem, params, noise, chunk_size=7).per_sample()
    for leaf, value in whole.items():
        torch.testing.assert_close(parts[leaf], value, rtol=1e-10, atol=1e-12)
    # another set of parameters in between leaves nothing behind
    mixture(problem, moved, noise)
    for leaf, value in mixture(problem, params, noise).per_sample().items():
        assert torch.equal(value, whole[leaf])


@pytest.mark.parametrize("level", LEVELS)
def test_fitted_weights_are_the_rules_and_stay(level: Level) -> None:
    problem, params, noise = posed()
    pilot = problem.draw(10, torch.Generator().manual_seed(7))
    mixture = E.Mixture(THREE, IV, level)
    fixed = mixture.fitted(problem, params, pilot)
    samples = [part(problem, params, pilot) for part in THREE]
    expected = IV(samples, level, problem.horizon, True)
    assert fixed.weights.blocks == 1 and fixed.weights.level == level
    for key, value in expected.items():
        assert torch.equal(fixed.weights.values[key][0], value)
    assert fixed.group == 1 and fixed.label == mixture.label == "IVW(FOG, PG, QG)"
    assert fixed.cost(problem) == mixture.cost(problem)
    # an odd number of episodes, one by one or at once
    whole = fixed(problem, params, noise.rows(0, 5)).per_sample()
    alone = fixed(problem, params, noise.rows(3, 4)).per_sample()
    for leaf, value in alone.items():
        torch.testing.assert_close(value[0], whole[leaf][3], rtol=1e-10, atol=1e-12)


def test_parts_with_groups_of_their_own_share_them() -> None:
    loo = E.PG(baseline="loo", group_size=6)
    expected = {"same": 24, "cross": 24, "three folds": 36, "independent": 6}
    for name, group in expected.items():
        assert E.Mixture((E.FOG(), loo), IV, source=SOURCES[name]).group == group
    problem, params, noise = posed()
    mixture = E.Mixture((E.FOG(), loo), IV, source=E.Cross(8))
    assert len(mixture(problem, params, noise)) == COUNT


def test_mixtures_of_mixtures_and_in_sums() -> None:
    problem, params, noise = posed()
    inner = E.Mixture((E.FOG(), E.QG()), IV, source=E.Same(8))
    outer = 2.0 * E.Mixture([inner, E.PG()], IV, source=E.Cross(8)) + E.FOG()
    assert outer.label == "2 IVW(IVW(FOG, QG), PG) + FOG" and outer.group == 16
    samples = outer(problem, params, noise.rows(0, 16))
    assert isinstance(samples, Factored) and samples.group == 16


# Rules.


@dataclasses.dataclass(frozen=True)
class Given:
    """Weights that are there already."""

    found: dict[str, Tensor] = dataclasses.field(hash=False)
    label: str = "given"

    def __call__(
        self, parts: Sequence[GradientSamples], level: Level, horizon: int, paired: bool
    ) -> dict[str, Tensor]:
        return self.found


def test_a_rule_of_ones_own_may_subtract() -> None:
    problem, params, noise = posed()
    rule = Given({"": torch.tensor([2.0, -1.5, 0.5])})
    mixture = E.Mixture(THREE, rule, source=E.Same(8))
    assert mixture.label == "given(FOG, PG, QG)"
    found = mixture(problem, params, noise).per_sample()
    sum_of = (2.0 * THREE[0] - 1.5 * THREE[1] + 0.5 * THREE[2])(problem, params, noise).per_sample()
    for leaf, value in found.items():
        torch.testing.assert_close(value, sum_of[leaf], rtol=1e-12, atol=1e-13)


def test_given_weights_at_every_level() -> None:
    """A part alone, by its weight of one: that part to the last bit where products are exact."""
    problem, params, noise = posed()
    shapes: dict[Level, dict[str, tuple[int, ...]]] = {
        "global": {"": ()},
        "layer": {layer_of(name): () for name in params},
        "parameter": {name: tuple(value.shape) for name, value in params.items()},
        "step": {"": (problem.horizon,)},
        "output": {"": (problem.horizon, problem.policy.output_dim)},
    }
    for k, part in enumerate(THREE):
        own = part(problem, params, noise).per_sample()
        for level, units in shapes.items():
            values = {}
            for key, shape in units.items():
                values[key] = torch.zeros(1, 3, *shape)
                values[key][:, k] = 1
            fixed = E.FixedMixture(THREE, E.Weights(level, values))
            assert fixed.label == "Fixed(FOG, PG, QG)"
            for leaf, value in fixed(problem, params, noise).per_sample().items():
                torch.testing.assert_close(value, own[leaf], rtol=1e-12, atol=1e-14)


def test_weights_show_themselves_in_a_line() -> None:
    weights = E.Weights("global", {"": torch.tensor([[0.25, 0.75], [0.75, 0.25]])})
    assert repr(weights) == (
        "Weights(level: global, parts: 2, blocks of episodes: 2, on average: 0.5, 0.5)"
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_step_variances_of_nearly_equal_samples(dtype: torch.dtype) -> None:
    """A spread of 1e-5 of the mean, against the variance of the gradients
    in full and in float64.
    """
    problem = toy_problem(dtype=dtype)
    generator = torch.Generator().manual_seed(2)

    def near(*size: int) -> torch.Tensor:
        return 1 + 1e-5 * torch.randn(50, *size, generator=generator, dtype=torch.float64)

    samples = Factored(
        problem.policy,
        toy_params(problem),
        near(problem.horizon, 3).to(dtype),
        near(problem.horizon, 2).to(dtype),
        torch.arange(problem.horizon),
    )
    double = dataclasses.replace(
        samples,
        params={n: v.double() for n, v in samples.params.items()},
        obs=samples.obs.double(),
        cotangent=samples.cotangent.double(),
    )
    dense = [
        sum(leaf.var(0).sum() for leaf in double.at_step(t).per_sample().values())
        for t in range(problem.horizon)
    ]
    found = variances([samples], "step", problem.horizon)[""][0]
    torch.testing.assert_close(found, torch.stack(dense), rtol=1e-4, atol=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("first", [1.0, 1e3])
@pytest.mark.parametrize("made", ["factors", "dense"])
def test_moments_of_leaves_are_their_plain_twins(made: str, first: float) -> None:
    """Lengths about the first sample, however far out it lies: it is one of the samples."""
    problem, params, noise = posed()
    samples = E.FOG()(problem, params, noise) * torch.tensor([first] + [1.0] * (COUNT - 1))
    rows = {name: leaf.double() for name, leaf in samples.per_sample().items()}
    found = leaf_moments(samples if made == "factors" else Dense(samples.per_sample()))
    for name, leaf in rows.items():
        torch.testing.assert_close(found.mean[name], leaf.mean(0), rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(found.variance[name], leaf.var(0).sum(), rtol=1e-10, atol=0)


def test_samples_that_are_all_the_same_have_no_variance() -> None:
    leaves = {"w": torch.full((9, 3), 0.1), "b": torch.zeros(9, 2)}
    found = leaf_moments(Dense(leaves))
    assert all(float(value) == 0.0 for value in found.variance.values())
    leaves["b"][0, 1] = float("nan")
    assert all(bool(value.isnan()) for value in leaf_moments(Dense(leaves)).variance.values())


@pytest.mark.parametrize("level", ["global", "step"])
def test_a_mixture_keeps_the_layer_factors_of_its_parts(level: Level) -> None:
    """Those of the weighted sum, as one pass of it through the policy finds them."""
    problem, params, noise = posed()
    mixed = E.Mixture((E.FOG(), E.PG()), E.InverseVariance(), level, E.Same(COUNT))(
        problem, params, noise
    )
    assert isinstance(mixed, Factored) and mixed.known is not None
    anew = dataclasses.replace(mixed, known=None).factors()
    for mine, other in zip(mixed.known.linear, anew.linear, strict=True):
        torch.testing.assert_close(mine.input, other.input, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(mine.cotangent, other.cotangent, rtol=1e-10, atol=1e-12)


# What is refused, one line each; values of another type are in test_arguments.py.


def run(mixture: Estimator) -> object:
    problem, params, noise = posed()
    return mixture(problem, params, noise)


def ruled(found: dict[str, Tensor], level: Level = "global") -> Callable[[], object]:
    return lambda: run(E.Mixture(THREE, Given(found), level, E.Same(8)))


@dataclasses.dataclass(frozen=True)
class Timeless(E.SurrogateEstimator):
    """Calls the policy without saying at which steps."""

    def surrogate(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Tensor:
        path = rollout(problem, policy.frozen, noise)
        return policy(path.obs.detach()).sum((-2, -1))

    def call_weights(self, problem: Problem) -> Tensor:
        return torch.ones(problem.horizon, dtype=problem.dtype)


WRONG: dict[str, tuple[type[Exception], str, Callable[[], object]]] = {
    "no parts": (BadValue, "at least two parts.*got", lambda: E.Mixture((), IV)),
    "one part": (BadValue, "at least two parts.*got", lambda: E.Mixture((E.FOG(),), IV)),
    "one fixed": (
        BadValue,
        "at least two parts",
        lambda: E.FixedMixture((E.FOG(),), E.Weights("global", {"": torch.ones(1, 1)})),
    ),
    "class for rule": (
        BadValue,
        r"rule should be a rule.*try InverseVariance\(\)",
        lambda: E.Mixture(THREE, E.InverseVariance),  # type: ignore[arg-type]
    ),
    "small group": (
        BadValue,
        "size of Same.*at least 4, got 3",
        lambda: run(E.Mixture(THREE, IV, source=E.Same(3))),
    ),
    "small cross": (
        BadValue,
        "size of Cross.*at least 4, got 2",
        lambda: run(E.Mixture(THREE, IV, source=E.Cross(2))),
    ),
    "one fold": (
        BadValue,
        "folds.*at least 2, got 1",
        lambda: run(E.Mixture(THREE, IV, source=E.Cross(8, folds=1))),
    ),
    "small pilot": (
        BadValue,
        "size of Independent.*got 0",
        lambda: run(E.Mixture(THREE, IV, source=E.Independent(size=0))),
    ),
    "small fit": (
        BadValue,
        "pilot should have at least 4 episodes, got 3",
        lambda: E.Mixture(THREE, IV).fitted(*posed(count=3)),
    ),
    "part of a group": (
        BadValue,
        "groups of 50 samples, got 24",
        lambda: E.Mixture(THREE, IV).weights(*posed()),
    ),
    "sum": (
        BadValue,
        "rule given should sum to 1 over the parts, got 1.2",
        ruled({"": torch.tensor([0.5, 0.4, 0.3])}),
    ),
    "sum of a layer": (
        BadValue,
        "for 'layers.1', got 0.9",
        ruled(
            {f"layers.{i}": torch.tensor([0.5, 0.25, 0.25 - 0.1 * (i == 1)]) for i in range(3)},
            "layer",
        ),
    ),
    "not a number": (BadValue, "got nan", ruled({"": torch.tensor([0.5, 0.5, float("nan")])})),
    "number of parts": (
        BadShape,
        r"shape \(3,\).*got \(2,\).*dimension is that of the parts",
        ruled({"": torch.tensor([0.5, 0.5])}),
    ),
    "another level": (BadShape, "got absent", ruled({"": torch.ones(3) / 3}, "layer")),
    "fixed weights of another level": (
        BadShape,
        "Fixed",
        lambda: run(E.FixedMixture(THREE, E.Weights("step", {"": torch.ones(1, 3) / 3}))),
    ),
    "fixed weights of two blocks": (
        BadShape,
        "one block of episodes, got 2",
        lambda: run(E.FixedMixture(THREE, E.Weights("global", {"": torch.ones(2, 3) / 3}))),
    ),
    "blocks that do not fit": (
        BadShape,
        "24 samples do not make 5 blocks",
        lambda: E.Weights("global", {"": torch.ones(5, 3) / 3}).mix(
            [part(*posed()) for part in THREE]
        ),
    ),
    "steps of dense parts": (
        BadValue,
        'level="step" needs the time step.*FOG does not',
        lambda: run(E.Mixture((E.PG(), E.FOG(engine="vmap")), IV, "step", E.Same(8))),
    ),
    "steps of parameters": (
        BadValue,
        'level="step" needs the time step.*EvolutionStrategies',
        lambda: run(E.Mixture((E.FOG(), E.EvolutionStrategies()), IV, "step", E.Same(8))),
    ),
    "unknown steps": (
        BadValue,
        'level="step" needs the time step.*Timeless',
        lambda: run(E.Mixture((E.FOG(), Timeless()), IV, "step", E.Same(8))),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_refused_is_one_line(name: str) -> None:
    kind, pattern, attempt = WRONG[name]
    with pytest.raises(kind, match=pattern) as caught:
        attempt()
    assert "\n" not in str(caught.value)
