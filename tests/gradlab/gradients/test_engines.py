"""Three engines, one answer: pullback against vmap against a plain loop, for every estimator."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from functools import partial

import pytest
import torch

import estimators as E
from estimators.base import Estimator
from gradlab.foundation.compilation import compile_step
from gradlab.foundation.errors import BadShape, Unavailable
from gradlab.gradients.samples import Dense, Factored
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import rollout
from tests.helpers.forked import run_code
from tests.helpers.toy import toy_params, toy_problem

TOLERANCE = 1e-9  # of each leaf's largest entry


def build(engine: str) -> dict[str, Estimator]:
    """Every estimator with an engine, in all the forms that take different paths."""
    e = {"engine": engine}
    fog, pg = E.FOG(**e), E.PG(**e)
    return {
        "pg": pg,
        "pg-loo": E.PG(baseline="loo", group_size=4, **e),
        "pg-v": E.PG(baseline="v", **e),
        "pg-q": E.PG(baseline="q", **e),
        "pg-discounted": E.PG(returns="discounted", **e),
        "pg-gae": E.PG(returns="gae", **e),
        "fog": fog,
        "relaxed_fog": E.RelaxedFOG(0.1, **e),
        "relaxed_fog-arctan": E.RelaxedFOG(0.1, "arctan", **e),
        "split": E.Split(0.05, **e),
        "split-none": E.Split(None, **e),
        "qg": E.QG(**e),
        "zero_step": E.ZeroStep(entropy=0.1, **e),
        "nstep": E.NStep(**e),
        "nstep-3": E.NStep(3, **e),
        "nstep-3-tiled": E.NStep(3, "tiled", **e),
        "nstep-3-tiled-v": E.NStep(3, "tiled", "v", **e),
        "lambda": E.LambdaReturn(0.8, **e),
        "lambda-3-tiled": E.LambdaReturn(0.8, 3, "tiled", **e),
        "abpt": E.ABPT(4, **e),
        "abpt-all": E.ABPT(3, "all", entropy=0.1, **e),
        "agpo": E.AGPO(4, source=E.Same(4), **e),
        "agpo-tiled": E.AGPO(3, E.Quantile(0.2, 1.0), "tiled", E.Same(4), 0.3, **e),
        "agpo-fixed": E.AGPO(3, (0.9, 0.5, 0.4), "tiled", average=True, **e),
        "sum": 2.0 * fog + pg,
        "ivw-same": E.Mixture((fog, pg), E.InverseVariance(), "global", E.Same(4)),
        "aobg-same": E.Mixture((fog, pg), E.AlphaOrder(6.0, relative=True), source=E.Same(8)),
        "aobg-separate-layer": E.Mixture(
            (fog, pg), E.AlphaOrder(math.inf), "layer", E.Same(8), "separate"
        ),
        "best-linear-cross": E.Mixture((fog, pg), E.BestLinear(), source=E.Cross(8)),
        "best-linear-layer-same": E.Mixture(
            (fog, pg, E.QG(**e)), E.BestLinear(unbiased=1), "layer", E.Same(8)
        ),
        "ivw-layer-cross": E.Mixture((fog, pg), E.InverseVariance(), "layer", E.Cross(8)),
        "ivw-3-parameter-pilot": E.Mixture(
            (fog, pg, E.QG(**e)), E.InverseVariance(), "parameter", E.Independent(size=8)
        ),
        "propagation-same": E.TotalPropagation(source=E.Same(4), **e),
        "propagation-cross": E.TotalPropagation("action", True, 2, E.Cross(8), **e),
        "propagation-pilot": E.TotalPropagation(source=E.Independent(size=8), **e),
    }


PROBLEMS = {
    "smooth": toy_problem(with_events=False),
    "hard": toy_problem(),
    "relaxed": toy_problem(std="global").relaxed(0.2),
    "switching": toy_problem(switching=True, std=0.3),
}


@pytest.mark.parametrize("name", build("pullback"))
@pytest.mark.parametrize("kind", PROBLEMS)
def test_engines_agree(kind: str, name: str) -> None:
    problem = PROBLEMS[kind]
    params = toy_params(problem)
    # the loop takes one after the other: as few as a group asks for
    count = max(4, build("pullback")[name].group)
    noise = problem.draw(count, torch.Generator().manual_seed(1))
    answers = [
        build(engine)[name](problem, params, noise).per_sample()
        for engine in ("pullback", "vmap", "loop")
    ]
    assert any(leaf.abs().max() > 0 for leaf in answers[0].values())
    for other in answers[1:]:
        for leaf, value in answers[0].items():
            scale = value.abs().max()
            assert (value - other[leaf]).abs().max() <= TOLERANCE * scale, leaf


def _samples(problem: Problem, name: str = "split") -> tuple[Factored, Dense]:
    params = toy_params(problem)
    noise = problem.draw(6, torch.Generator().manual_seed(2))
    factored = build("pullback")[name](problem, params, noise)
    assert isinstance(factored, Factored)
    return factored, Dense(factored.per_sample())


@pytest.mark.parametrize("std", ["state", "global", 0.3])
def test_factored_read_outs_equal_dense_ones(std: str | float) -> None:
    problem = toy_problem(std=std)
    factored, dense = _samples(problem)
    torch.testing.assert_close(factored.squared_norms(), dense.squared_norms(), rtol=1e-10, atol=0)
    for name, value in factored.mean().items():
        torch.testing.assert_close(value, dense.mean()[name], rtol=1e-10, atol=1e-12)
    params, noise = factored.params, problem.draw(6, torch.Generator().manual_seed(2))
    other = E.FOG()(problem, params, noise)
    expected = dense.inner(Dense(other.per_sample()))
    torch.testing.assert_close(factored.inner(other), expected, rtol=1e-9, atol=1e-10)


def test_wide_layers_use_gram_matrices_with_the_same_answer() -> None:
    """K = 16 calls against layers of 5 x 4 take the dense path, a wide policy the Gram path."""
    policy = toy_problem().policy
    wide = toy_problem().replace(
        policy=type(policy)(3, 1, hidden=(64, 64), std="state", head_gain=1.0)
    )
    factored, dense = _samples(wide)
    torch.testing.assert_close(factored.squared_norms(), dense.squared_norms(), rtol=1e-10, atol=0)


def test_algebra_of_samples() -> None:
    factored, dense = _samples(toy_problem())
    weights = torch.arange(6.0, dtype=torch.float64)
    for combine in (lambda s: 2.0 * s + s * 0.5, lambda s: s * weights, lambda s: s.rows(1, 4)):
        a, b = combine(factored).per_sample(), combine(dense).per_sample()
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-12, atol=1e-12)
    mixed = (factored + dense).per_sample()
    for name, leaf in dense.leaves.items():
        torch.testing.assert_close(mixed[name], 2 * leaf, rtol=1e-12, atol=1e-12)


def test_step_weights_sum_to_the_gradient_and_zero_one_weights_select() -> None:
    problem = toy_problem()
    factored, dense = _samples(problem)
    parts = [factored.at_step(t).per_sample() for t in range(problem.horizon)]
    for name, leaf in dense.leaves.items():
        torch.testing.assert_close(sum(p[name] for p in parts), leaf, rtol=1e-10, atol=1e-12)
    one = torch.zeros(problem.horizon, dtype=torch.float64)
    one[3] = 1.0
    for name, value in factored.weight_steps(one).per_sample().items():
        torch.testing.assert_close(value, parts[3][name], rtol=1e-12, atol=1e-14)


COMPILED = """
import sys
import torch
from tests.helpers.toy import toy_params, toy_problem
import estimators as E

problem = toy_problem()  # 8 steps: two blocks, or windows of a block and a single step
params = toy_params(problem)
noise = problem.draw(5, torch.Generator().manual_seed(3))
relaxed = [E.Split(0.1)] if "relaxed" in sys.argv else []  # graphs of its own
for estimator in (E.FOG(), E.NStep(5), *relaxed):
    eager = estimator(problem, params, noise).per_sample()
    compiled = estimator(problem.replace(compile=True), params, noise).per_sample()
    for name, value in eager.items():
        assert (value - compiled[name]).abs().max() <= 1e-12 * value.abs().max(), name
print("same")
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")
@pytest.mark.parametrize("more", [(), pytest.param(("relaxed",), marks=pytest.mark.slow)])
def test_compiled_step_gives_the_same_gradient(more: tuple[str, ...]) -> None:
    """In a process of its own: the annotation checks of the tests cannot be compiled."""
    done = run_code(COMPILED, *more)
    assert done.stdout.strip() == "same", done.stderr[-2000:]


RUNNER = """
import sys
import torch
import estimators as E
import gradlab
from gradlab import landscapes

name, preset, contact = sys.argv[1:4]
if "traced" in sys.argv:  # no code is generated
    import gradlab.simulators.articulated.simulator as simulator
    simulator.compile_step = lambda step: torch.compile(
        step, backend="aot_eager", dynamic=False, fullgraph=True
    )
problem = gradlab.make(name, preset=preset, contact=contact, horizon=3, dtype=torch.float64)
params = problem.init(torch.Generator().manual_seed(0))
noise = problem.draw(4, torch.Generator().manual_seed(3))
eager = E.FOG()(problem, params, noise).per_sample()
fast = problem.replace(compile=True)
compiled = E.FOG()(fast, params, noise).per_sample()
for key, value in eager.items():
    assert (value - compiled[key]).abs().max() <= 1e-8 * value.abs().max(), key
if "landscape" in sys.argv:
    plane = landscapes.random_plane(params, torch.Generator().manual_seed(4))
    points = landscapes.mesh(landscapes.grid(0.1, 3))
    # the last chunk is not full
    returns = [landscapes.returns_over_plane(p, plane, points, noise, chunk=4) for p in (problem, fast)]
    torch.testing.assert_close(*returns, rtol=1e-9, atol=1e-9)
print("same")
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")
@pytest.mark.parametrize(
    "runner",
    [
        "hopper dflex compliant traced",
        *(
            pytest.param(runner, marks=pytest.mark.slow)
            for runner in (
                "hopper dflex compliant", "ant dflex compliant landscape", "ant brax convex landscape", "hopper gymnasium convex",
                "ant brax brax", "hopper dflex smoothed", "half_cheetah gymnasium convex",
            )
        ),
    ],
)  # fmt: skip
def test_compiled_runners_give_the_same_gradient(runner: str) -> None:
    """One sub-step is compiled, for RK4 one acceleration;
    and many policies at once go through it.
    """
    done = run_code(RUNNER, *runner.split())
    assert done.stdout.strip() == "same", done.stderr[-2000:]


@pytest.mark.parametrize("engine", ["pullback", "vmap"])
def test_checkpointed_steps_give_the_same_gradient(engine: str) -> None:
    """Steps run again in the backward pass do the same arithmetic: equal to the last bit."""
    problem = toy_problem()
    params = toy_params(problem)
    noise = problem.draw(5, torch.Generator().manual_seed(3))
    for make in (E.FOG, E.PG, partial(E.Split, 0.1)):
        plain = make(engine=engine)(problem, params, noise).per_sample()
        again = make(engine=engine)(problem.replace(checkpoint=True), params, noise).per_sample()
        for name, value in plain.items():
            assert torch.equal(value, again[name]), name


def test_no_compiler_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(Unavailable, match="needs a C\\+\\+ compiler"):
        compile_step(lambda x: x)


@dataclass(frozen=True)
class Wrong(E.SurrogateEstimator):
    """Mistakes: the mean over samples instead of one number each, or one number per step."""

    reduce: bool = True

    def surrogate(self, problem, policy, noise):
        value = evaluate(problem, rollout(problem, policy, noise)).value
        return value.sum(-1).mean() if self.reduce else value

    def call_weights(self, problem):
        return torch.ones(problem.horizon, dtype=problem.dtype)


@pytest.mark.parametrize(
    ("reduce", "engine"),
    [(True, "pullback"), (False, "pullback"), (False, "vmap"), (False, "loop")],
)
def test_a_surrogate_of_the_wrong_shape_is_refused(reduce: bool, engine: str) -> None:
    problem = toy_problem()
    noise = problem.draw(4, torch.Generator().manual_seed(0))
    with pytest.raises(BadShape, match="one number per sample"):
        Wrong(reduce=reduce, engine=engine)(problem, toy_params(problem), noise)


def test_samples_know_their_group() -> None:
    """Moments of a leave-one-out PG are those of group means, however the samples were made."""
    problem = toy_problem()
    params = toy_params(problem)
    noise = problem.draw(64, torch.Generator().manual_seed(5))
    loo = E.PG(baseline="loo", group_size=8)
    samples = loo(problem, params, noise, chunk_size=16)
    assert samples.group == 8
    assert samples.moments().count == 8
    assert (2.0 * samples).group == 8
    assert (samples + E.FOG()(problem, params, noise)).group == 8
    assert samples.group_means(8).group == 1
    moments = samples.moments(per_parameter=True)
    streamed = samples.group_means(8).moments(per_parameter=True)
    for name, value in moments.stderr().items():
        torch.testing.assert_close(value, streamed.stderr()[name])


def test_parameters_of_another_dtype_are_refused() -> None:
    problem = toy_problem()
    params = problem.policy.init(torch.Generator().manual_seed(0))
    noise = problem.draw(2, torch.Generator().manual_seed(0))
    with pytest.raises(BadShape, match="problem.init"):
        E.FOG()(problem, params, noise)
