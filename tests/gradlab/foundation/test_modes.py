"""Nothing depends on the grad mode that a caller happens to be in,
nor on where tensors were made.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import estimators as E
import gradlab
from estimators.base import Estimator
from gradlab.critics.fitting import fit_critic
from gradlab.critics.quality import action_gradients
from gradlab.gradients.samples import Dense
from gradlab.oracle import FiniteDifference, LargeSample, closed_forms
from tests.contracts.test_contracts import registered
from tests.gradlab.gradients.test_engines import build
from tests.helpers.toy import toy_params, toy_problem

ALL: dict[str, Estimator] = {
    **{name: e for name, e in registered().items() if name not in ("qg", "pg")},
    **{f"{name}-{engine}": build(engine)[name] for engine in ("vmap", "loop")
       for name in ("fog", "pg-loo", "qg")},
}  # fmt: skip
MODES: dict[str, Callable] = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ALL)
def test_gradients_are_the_same_in_every_mode(name: str, mode: str) -> None:
    """The noise is drawn in that mode too, and what was made there serves outside as well."""
    estimator, problem = ALL[name], toy_problem()
    params = toy_params(problem)
    noise = problem.draw(8, torch.Generator().manual_seed(1))
    expected = estimator(problem, params, noise)
    with MODES[mode]():
        made = {n: v + 0.0 for n, v in params.items()}
        drawn = problem.draw(8, torch.Generator().manual_seed(1))
        samples = estimator(problem, made, drawn)
        twice = 2.0 * samples
        norms, inner = twice.squared_norms(), twice.inner(samples)
        mean, rows = samples.mean(), twice.per_sample()
    torch.testing.assert_close(norms, 4 * expected.squared_norms())
    torch.testing.assert_close(inner, 2 * expected.squared_norms())
    for leaf, value in expected.per_sample().items():
        torch.testing.assert_close(rows[leaf], 2 * value)
        torch.testing.assert_close(mean[leaf], value.mean(0))
        assert value.abs().max() > 0
    later = estimator(problem, made, drawn).per_sample()
    for leaf, value in expected.per_sample().items():
        torch.testing.assert_close(later[leaf], value)
        assert not later[leaf].requires_grad


@pytest.mark.parametrize("engine", ["pullback", "vmap", "loop"])
def test_parameters_that_require_a_gradient_give_plain_samples(engine: str) -> None:
    """A user's leaves: no graph is kept, and their `.grad` stays empty."""
    problem = toy_problem()
    leaves = {n: v.clone().requires_grad_() for n, v in toy_params(problem).items()}
    noise = problem.draw(4, torch.Generator().manual_seed(1))
    for name in ("fog", "pg-loo", "split", "abpt-all", "ivw-same"):
        rows = build(engine)[name](problem, leaves, noise).per_sample()
        assert not any(leaf.requires_grad for leaf in rows.values()), name
    rows = E.EvolutionStrategies()(problem, leaves, noise).per_sample()
    assert not any(leaf.requires_grad for leaf in rows.values())
    assert all(leaf.grad is None for leaf in leaves.values())


def _toy() -> tuple:
    problem = toy_problem(with_events=False)
    return problem, {n: v + 0.0 for n, v in toy_params(problem).items()}


def _solved(name: str) -> dict[str, Tensor]:
    problem = gradlab.make(name, dtype=torch.float64)
    return closed_forms.solve(problem, problem.reference).gradient


def _fitted() -> dict[str, Tensor]:
    options = {"steps": 3, "episodes": 20, "held_out": 8, "kind": "both"}
    return {k: v.clone() for k, v in fit_critic(*_toy(), **options).params.items()}  # type: ignore[arg-type]


def _action_gradients() -> dict[str, Tensor]:
    problem, params = _toy()
    fitted = fit_critic(problem, params, steps=3, episodes=20, held_out=8).critic(problem)
    found = action_gradients(problem, params, fitted, problem.critic, 16)
    return {"": torch.tensor(found.cosine.value)}


def _fog_with(method: str) -> dict[str, Tensor]:
    problem, params = _toy()
    fitted = fit_critic(problem, params, method=method, steps=3, episodes=20, held_out=8)
    problem = problem.replace(critic=fitted.critic(problem))
    noise = problem.draw(4, torch.Generator().manual_seed(1))
    return E.NStep(2)(problem, params, noise).mean()


def _moments(problem, params) -> dict[str, Tensor]:
    return gradlab.measure(E.FOG() - E.PG(), problem, params, 64, 0, chunk_size=32).single.mean


WHOLE: dict[str, Callable[[], dict[str, Tensor]]] = {
    **{f"solve {n}": lambda n=n: _solved(n) for n in ("lq", "gate", "terminal_gate", "soft_heaviside")},
    "fit_critic": _fitted,
    "action_gradients": _action_gradients,
    "td_lambda, then NStep": lambda: _fog_with("td_lambda"),
    "stream": lambda: _moments(*_toy()),
    "LargeSample": lambda: LargeSample(E.FOG(), 0.9, seed=3, max_count=256)(*_toy()).mean,
    "FiniteDifference": lambda: FiniteDifference(count=4, seed=3)(*_toy()).mean,
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", WHOLE)
def test_whatever_differentiates_works_in_every_mode(name: str, mode: str) -> None:
    expected = WHOLE[name]()
    with MODES[mode]():
        found = WHOLE[name]()
    for leaf, value in expected.items():
        torch.testing.assert_close(found[leaf], value)


def test_sums_of_samples_of_two_modes() -> None:
    problem, params = _toy()
    noise = problem.draw(4, torch.Generator().manual_seed(1))
    outside = E.FOG()(problem, params, noise)
    with torch.inference_mode():
        inside = 0.5 * E.PG()(problem, params, noise)
    total = (outside + inside).per_sample()
    dense = Dense(outside.per_sample()) + Dense(inside.per_sample())
    for leaf, value in dense.per_sample().items():
        torch.testing.assert_close(total[leaf], value)
