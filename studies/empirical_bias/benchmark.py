"""What reviewers of DDCG asked: every rule on the same problems and the same budget, with its test
or weights from the batch that it weights or from another one, and how many batches tell them apart.

A replicate is the mean gradient of a batch of N episodes, and its loss the squared distance to the
exact gradient: the mean loss is the MSE of an update, bias and variance together. All replicates of
a problem are on the same episodes, so that rules are compared pair by pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import estimators
import gradlab
from estimators import (
    FOG,
    PG,
    AlphaOrder,
    BestLinear,
    Cross,
    InverseVariance,
    Mixture,
    Same,
    Switch,
    Weights,
)
from estimators.base import Estimator
from estimators.mixtures.rules import Rule
from gradlab.foundation.noise import Noise
from gradlab.gradients.samples import GradientSamples
from gradlab.gradients.sampling import block_generator
from gradlab.oracle import closed_forms
from gradlab.problems.problem import Problem
from gradlab.statistics import Moments, OracleGradient, compare
from gradlab.study import seed_for
from gradlab.study.tables import flat
from studies.empirical_bias.statistics import mean_interval, replicates_needed
from studies.empirical_bias.toys import Params

RULES: dict[str, Rule] = {
    # γ in standard errors of PG; L = 0, since the term with L is in units of the gradient
    "aobg": AlphaOrder(gamma=10.0, relative=True, failure_probability=0.05, bound=0.0),
    "aobg_strict": AlphaOrder(gamma=3.0, relative=True, failure_probability=0.05, bound=0.0),
    "ivw": InverseVariance(),
    "ivwh": InverseVariance("IVW-H"),
    "best": BestLinear(),
    "best_unbiased": BestLinear(unbiased=1),
}
TESTS = ("ddcg", "jump")
LEAST_SIZE = 32  # of a batch: the jump test needs half of that, and a half is what `cross` has
SOURCES = ("same", "cross", "pilot")
BASELINES = ("shared", "apart")
CHUNK = 2000  # episodes at once, of which whole batches are taken


@dataclass(frozen=True)
class Variant:
    """A rule, where its weights (and its Var f) come from, and the baseline of PG.

    `same`: the batch itself; `cross`: the other half of the batch; `pilot`: another batch, whose
    episodes are not counted. The baseline is the mean return of the other episodes of the batch or
    half that PG is taken from (`shared`), or that of a batch of its own, not counted (`apart`).
    """

    rule: str  # of RULES or TESTS; "fog" and "pg" are the parts; else one of `estimators.make`
    source: str = ""  # "" where nothing is weighted
    baseline: str = "shared"

    @property
    def name(self) -> str:
        return "/".join(part for part in (self.rule, self.source, self.baseline) if part)


def variants(own: tuple[str, ...] = ()) -> Iterator[Variant]:
    """All of them: parts, every rule and test from every source, and a baseline apart for some."""
    yield Variant("fog", baseline="")
    for baseline in BASELINES:
        yield Variant("pg", baseline=baseline)
    for rule in (*RULES, *TESTS):
        for source in SOURCES if rule != "aobg_strict" else ("same",):
            yield Variant(rule, source)
    for rule in ("ddcg", "ivwh", "aobg"):
        yield Variant(rule, "same", "apart")
    for name in own:
        yield Variant(name, baseline="")


@dataclass(frozen=True)
class Bench:
    """A problem of which everything is known, and a batch."""

    problem: Problem
    params: Params
    truth: Params  # ∇J
    size: int  # N

    @classmethod
    def of(cls, name: str, size: int) -> Bench:
        """With the exact critic, which only estimators of one's own may need."""
        problem = gradlab.make(name, dtype=torch.float64)
        params = problem.reference
        known = closed_forms.solve(problem, params)
        exact = {leaf: x.to(problem.device) for leaf, x in known.gradient.items()}
        return cls(problem.replace(critic=known.critic), params, exact, size)


def losses(gradients: Params, truth: Params) -> Float[Tensor, " R"]:
    """Squared distances of R gradients to the truth."""
    gaps = [(gradients[name] - leaf).square() for name, leaf in truth.items()]
    return torch.stack([gap.reshape(len(gap), -1).sum(-1) for gap in gaps]).sum(0)


def replicates(bench: Bench, variant: Variant, count: int, seed: int) -> Params:
    """Mean gradients [R, *param] of R batches."""
    each = max(1, min(count, CHUNK // bench.size))
    parts = []
    for begin in range(0, count, each):
        some = min(each, count - begin) * bench.size
        noise = bench.problem.draw(some, block_generator(seed, begin))
        other = bench.problem.draw(some, block_generator(seed_for(seed, "other"), begin))
        rows = mixed(bench, variant, noise, other).per_sample()
        parts.append(
            {n: v.double().unflatten(0, (-1, bench.size)).mean(1) for n, v in rows.items()}
        )
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def mixed(bench: Bench, variant: Variant, noise: Noise, other: Noise) -> GradientSamples:
    """Samples of a variant on `noise`; what it takes from elsewhere is found on `other`."""
    problem, params = bench.problem, bench.params
    if variant.baseline == "apart":
        problem = _with_value(problem, params, other)
    if variant.rule == "fog":
        return FOG()(problem, params, noise)
    if variant.rule == "pg":
        return _pg(variant, bench.size)(problem, params, noise)
    if variant.rule not in (*RULES, *TESTS):
        return estimators.make(variant.rule)(problem, params, noise)
    estimator = weighing(variant, bench.size)
    if variant.source == "same" or isinstance(estimator, Mixture) and variant.source == "cross":
        return estimator(problem, params, noise)
    weights = estimator.weights(problem, params, other if variant.source == "pilot" else noise)
    if variant.source == "cross":
        weights = swapped(weights)
    first, second = parts_of(estimator)
    return weights.mix([first(problem, params, noise), second(problem, params, noise)])


def weighing(variant: Variant, size: int) -> Mixture | Switch:
    """The estimator that says the weights."""
    half = variant.source == "cross"
    group = size // 2 if half else size
    pg = _pg(variant, group)
    if variant.rule in TESTS:
        return Switch(variant.rule, source=Same(group), zeroth=pg)  # pyright: ignore[reportArgumentType]
    level = "output" if variant.rule == "ivwh" else "global"
    source = Cross(size) if half else Same(size)
    return Mixture((FOG(), pg), RULES[variant.rule], level, source)


def parts_of(estimator: Mixture | Switch) -> tuple[Estimator, Estimator]:
    """First and zeroth order."""
    if isinstance(estimator, Switch):
        return FOG(), estimator.zeroth
    first, second = estimator.parts
    return first, second


def swapped(weights: Weights) -> Weights:
    """Each block gets the weights of the other of its couple."""
    return Weights(
        weights.level,
        {n: v.unflatten(0, (-1, 2)).flip(1).flatten(0, 1) for n, v in weights.values.items()},
    )


def _pg(variant: Variant, group: int) -> PG:
    if variant.baseline == "apart":
        return PG(baseline="v")
    return PG(baseline="loo", group_size=group)


def _with_value(problem: Problem, params: Params, other: Noise) -> Problem:
    """A critic that knows the mean return to go at every step of other episodes."""
    with torch.no_grad():
        path = gradlab.rollout(problem, problem.bind(params), other)
        value = gradlab.evaluate(problem, path).value
    left = value.flip(-1).cumsum(-1).flip(-1).mean(0) / problem.discounts[:-1]
    left = torch.cat([left, left.new_zeros(1)])

    def v(view: gradlab.View) -> Tensor:
        return left[view.step.long()].expand(view.state.shape[:-1])

    return problem.replace(critic=gradlab.Critic(v=v, name="mean return"))


def benchmark_rows(
    name: str, size: int, count: int, own: tuple[str, ...], seed: int
) -> Iterator[dict[str, Any]]:
    """One row per variant: bias, variance and MSE of an update, and what tells it from PG."""
    bench = Bench.of(name, size)
    square = sum(float(leaf.square().sum()) for leaf in bench.truth.values())
    truth = OracleGradient.exact(bench.truth, "closed form")
    found = {v: replicates(bench, v, count, seed) for v in variants(own)}
    scored = {v: losses(gradients, bench.truth) / square for v, gradients in found.items()}
    reference = scored[Variant("pg")]
    for variant, gradients in found.items():
        loss = scored[variant]
        row = compare(Moments.of(gradients), truth, batch=1).overall
        same = scored.get(replace(variant, source="same"), loss)
        yield {
            "kind": "benchmark",
            "problem": name,
            "variant": variant.name,
            "rule": variant.rule,
            "source": variant.source,
            "baseline": variant.baseline,
            "batch": size,
            "batches": count,
            **flat("relative_bias", row.relative_bias),
            **flat("variance", type(row.variance)(*(end / square for end in row.variance))),
            **flat("mse", mean_interval(loss)),
            **flat("over_pg", mean_interval(loss - reference)),
            **flat("needed", replicates_needed(loss - reference)),
            **flat("over_same", mean_interval(loss - same)),
        }
