"""Learned critics: networks as pure functions, fits and their quality against
the exact LQ critic.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from estimators.value import QG
from gradlab.critics.episodes import episodes
from gradlab.critics.fitted import SHORT, Fit, FittedCritic, load_critic
from gradlab.critics.fitting import fit_critic
from gradlab.critics.networks import ValueNetwork, expected_value, features
from gradlab.critics.quality import Estimate, action_gradients, explained_variance, measure
from gradlab.foundation.checkpoints import load
from gradlab.foundation.errors import BadShape, BadValue, Corrupt, Missing
from gradlab.oracle import closed_forms
from gradlab.problems.critic import Critic, View
from gradlab.problems.problem import Problem
from tests.helpers.known import build

F64 = torch.float64


@pytest.fixture(scope="module")
def lq() -> tuple[Problem, dict[str, Tensor], Critic]:
    """The LQ problem with horizon 6 in float32, its skewed policy and its exact critic."""
    problem, params = build("lq", horizon=6)
    exact = closed_forms.solve(problem, params).critic
    cast = {name: value.float() for name, value in params.items()}
    return problem.replace(dtype=torch.float32), cast, exact


QUICK = Fit(kind="both", steps=600, batch=512, episodes=3000, hidden=(48, 48), held_out=1024)


@pytest.fixture(scope="module")
def fitted(lq) -> FittedCritic:
    return fit_critic(lq[0], lq[1], QUICK)


def some_view(problem: Problem, count: int = 7, seed: int = 0) -> tuple[View, Tensor]:
    """Views [count, T] and actions of on-policy episodes."""
    params = problem.init(torch.Generator().manual_seed(seed))
    seen = episodes(problem, params, problem.draw(count, torch.Generator().manual_seed(seed)))
    return seen.view, seen.action


# networks


def test_the_value_depends_on_time_and_is_zero_at_the_horizon(lq, fitted) -> None:
    problem = lq[0]
    view, action = some_view(problem)
    critic = fitted.critic(problem)
    early = view._replace(step=torch.zeros_like(view.step))
    late = view._replace(step=torch.full_like(view.step, 6.0))
    assert not torch.allclose(
        critic.q(early, action), critic.q(view._replace(step=early.step + 3), action)
    )
    assert critic.q(late, action).abs().max() == 0 and critic.v(late).abs().max() == 0
    # the network itself reads the clock, not only its output statistics
    network = fitted.sizes.network(fitted.fit, "v")
    params = dict(fitted.head("v"))
    params["output.centre"] = torch.zeros(7)
    params["output.scale"] = torch.ones(7)
    first = network.apply(params, features(early, (), 6), early.step)
    moved = network.apply(params, features(early._replace(step=early.step + 3), (), 6), early.step)
    assert (first - moved).abs().max() > 1e-2


def test_twins_reduce_by_minimum_or_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    least = ValueNetwork(3, 4, (8,), members=2, reduction="min")
    mean = dataclasses.replace(least, reduction="mean")
    params = least.init(generator, dtype=F64)
    inputs, step = torch.randn(5, 3, generator=generator, dtype=F64), torch.zeros(5, dtype=F64)
    each = least.each(params, inputs, step)
    assert each.shape == (5, 2) and not torch.allclose(each[:, 0], each[:, 1])
    assert torch.equal(least.apply(params, inputs, step), torch.minimum(*each.unbind(-1)))
    torch.testing.assert_close(mean.apply(params, inputs, step), each.mean(-1))
    assert (least.apply(params, inputs, step) <= mean.apply(params, inputs, step)).all()


def test_any_batch_shape_and_vmap_give_the_same(lq, fitted) -> None:
    problem = lq[0].replace(dtype=F64)
    view, action = some_view(problem)
    critic = fitted.critic(problem)
    whole = critic.q(view, action)
    assert whole.shape == (7, 6) and whole.dtype == F64
    torch.testing.assert_close(torch.func.vmap(torch.func.vmap(critic.q))(view, action), whole)
    one = critic.q(View(*(part[2, 3] for part in view)), action[2, 3])
    torch.testing.assert_close(one, whole[2, 3])
    single = torch.func.vmap(torch.func.grad(lambda a, v: critic.q(v, a).sum()))(action, view)
    leaf = action.clone().requires_grad_()
    (batched,) = torch.autograd.grad(critic.q(view, leaf).sum(), leaf)
    torch.testing.assert_close(single, batched)


def test_engines_agree_through_a_fitted_critic(lq, fitted) -> None:
    problem = lq[0].replace(dtype=F64)
    params = {name: value.double() for name, value in lq[1].items()}
    problem = problem.replace(critic=fitted.critic(problem))
    noise = problem.draw(5, torch.Generator().manual_seed(2))
    fast = QG()(problem, params, noise).per_sample()
    slow = QG(engine="vmap")(problem, params, noise).per_sample()
    for name, leaf in slow.items():
        torch.testing.assert_close(fast[name], leaf, rtol=1e-9, atol=1e-9 * float(leaf.abs().max()))


def test_expected_value_of_the_exact_q_is_the_exact_v(lq) -> None:
    problem, params = build("lq", horizon=6)
    view = View(*(part[:, :2] for part in some_view(problem)[0]))
    assert lq[2].q is not None and lq[2].v is not None
    # Q is quadratic in a, so two Gauss-Hermite nodes per action component are exact
    eps = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=F64)
    value = expected_value(lq[2].q, problem.bind(params), eps)(view)
    torch.testing.assert_close(value, lq[2].v(view), rtol=1e-10, atol=1e-10)


# fits


def test_exploration_changes_one_action_and_keeps_its_targets_exact(lq) -> None:
    problem, params, exact = lq
    noise = problem.draw(4096, torch.Generator().manual_seed(3))
    plain, explored = episodes(problem, params, noise), episodes(problem, params, noise, 0.5)
    assert explored.q_rows.sum(1).eq(1).all()
    times = torch.arange(6)
    first = explored.q_rows.int().argmax(1, keepdim=True)
    assert torch.equal(explored.v_rows, times > first)
    before = times < first
    assert torch.equal(explored.action[before], plain.action[before])
    moved = (explored.action - plain.action)[explored.q_rows]
    std = params["log_std"].exp() if "log_std" in params else torch.tensor(problem.policy.std)
    eps = noise.action[explored.q_rows]
    torch.testing.assert_close(
        moved, (0.5 / std * std * eps).expand_as(moved), atol=2e-5, rtol=1e-4
    )
    # E[G − Q] = 0 on the explored row: a z-score at a false-alarm rate of 1e-5
    assert exact.q is not None
    error = explored.returns(problem.discount) - exact.q(explored.view, explored.action)
    rows = error[explored.q_rows].double()
    z = rows.mean() / rows.std() * len(rows) ** 0.5
    assert abs(z) < 4.5
    earlier = error[before].double()  # returns before τ are not those of the policy
    assert abs(earlier.mean() / earlier.std() * len(earlier) ** 0.5) > 4.5


def against_exact(problem, params, guess, exact, kind) -> float:
    """1 − E(V̂ − V)²/Var V over fresh on-policy rows: what is left to learn."""
    noise = problem.draw(1024, torch.Generator().manual_seed(99))
    seen = episodes(problem, params, noise)
    if kind == "q":
        pair = exact.q(seen.view, seen.action), guess.q(seen.view, seen.action)
    else:
        pair = exact.v(seen.view), guess.v(seen.view)
    return explained_variance(*pair, seen.q_rows).value


@pytest.mark.parametrize("kind", ["q", "v"])
def test_regression_reaches_the_exact_critic(lq, fitted, kind: str) -> None:
    """Least squares with p parameters on n independent targets of residual variance s² misses the
    truth by s²·p/n. At each time a quadratic holds the truth, and n is the number of episodes;
    three times that, and 0.02, are allowed for what minibatches and the network's shape add."""
    problem, params, exact = lq
    best = measure(problem, params, exact, kind, 1024)
    noise_to_signal = (1 - best.overall.value) / best.overall.value
    size = 4 + 2 if kind == "q" else 4
    parameters = (size + 1) * (size + 2) / 2
    bound = 1 - 3 * noise_to_signal * parameters / QUICK.episodes - 0.02
    got = against_exact(problem, params, fitted.critic(problem), exact, kind)
    assert bound < got < 1
    quality = fitted.quality[kind]
    slack = 4 * (quality.overall.stderr + best.overall.stderr)
    assert abs(quality.overall.value - best.overall.value) < slack + 0.02


def test_td_lambda_reaches_the_exact_critic(lq) -> None:
    problem, params, exact = lq
    fit = dataclasses.replace(QUICK, kind="q", method="td_lambda", lam=0.8, tau=0.05, twin=True)
    got = fit_critic(problem, params, fit)
    assert against_exact(problem, params, got.critic(problem), exact, "q") > 0.96


def test_action_gradients_point_the_right_way(lq, fitted) -> None:
    problem, params, exact = lq
    got = action_gradients(problem, params, fitted.critic(problem), exact)
    assert got.cosine.value > 0.95 and got.at_start.value > 0.95
    same = action_gradients(problem, params, exact, exact)
    assert same.cosine.value == pytest.approx(1, abs=1e-6)
    assert same.relative_norm.value == pytest.approx(1, abs=1e-6)

    def opposite(view: View, action: Tensor) -> Tensor:
        leaf = action.clone().requires_grad_()
        assert exact.q is not None
        return -2 * torch.autograd.grad(exact.q(view, leaf).sum(), leaf)[0]

    turned = action_gradients(problem, params, exact, opposite)
    assert turned.cosine.value == pytest.approx(-1, abs=1e-6)
    assert turned.relative_norm.value == pytest.approx(0.5, abs=1e-6)


def test_exploration_helps_where_the_policy_is_narrow(lq) -> None:
    """With std 0.003 the action is nearly a function of the state: on-policy data do not say what
    an action does, though they explain the variance just as well."""
    problem, params, _ = lq
    narrow = {**params, "log_std": torch.full_like(params["log_std"], math.log(0.003))}
    exact = closed_forms.solve(problem, narrow).critic
    fit = dataclasses.replace(QUICK, kind="q", episodes=6000)
    cosines = []
    for exploration in (0.0, 0.3):
        got = fit_critic(problem, narrow, fit, exploration=exploration)
        cosines.append(action_gradients(problem, narrow, got.critic(problem), exact).cosine.value)
        assert (
            got.quality["q"].overall.value
            > 0.85 * measure(problem, narrow, exact, "q").overall.value
        )
    assert cosines[1] > 0.95 and cosines[1] > cosines[0] + 0.3


def test_same_seed_same_critic_and_a_poor_fit_is_poorer(lq) -> None:
    problem, params, exact = lq
    poor = dataclasses.replace(SHORT, steps=20, episodes=200, held_out=512)
    seen: list[float] = []
    first = fit_critic(problem, params, poor, progress=seen.append)
    again, other = fit_critic(problem, params, poor), fit_critic(problem, params, poor, seed=1)
    assert all(torch.equal(value, again.params[name]) for name, value in first.params.items())
    assert first.quality == again.quality
    assert not torch.equal(
        first.params["q.members.0.layers.0.weight"], other.params["q.members.0.layers.0.weight"]
    )
    assert seen == [(i + 1) / 20 for i in range(20)]
    relaxed = fit_critic(problem.relaxed(0.1), params, poor)
    assert torch.equal(relaxed.params["q.output.centre"], first.params["q.output.centre"])
    untrained = fit_critic(problem, params, poor, steps=0)
    scores = [
        against_exact(problem, params, f.critic(problem), exact, "q") for f in (untrained, first)
    ]
    assert scores[0] < scores[1] < 0.95


# quality


def test_explained_variance_is_about_each_times_mean() -> None:
    target = torch.tensor([[1.0, 10.0], [3.0, 14.0]], dtype=F64)
    rows = torch.ones(2, 2, dtype=torch.bool)
    assert explained_variance(target, target, rows) == (1.0, 0.0)
    clock = torch.tensor([[2.0, 12.0], [2.0, 12.0]], dtype=F64)
    assert explained_variance(target, clock, rows).value == 0.0
    rows[1, 1] = False  # now the second time has no variance
    assert explained_variance(target, clock, rows).value == 1 - (1 + 1 + 4) / 2
    assert math.isnan(explained_variance(target[:1], clock[:1], rows[:1]).value)


@pytest.mark.statistical
@pytest.mark.parametrize("kind", ["q", "v"])
def test_the_exact_critic_reaches_the_ceiling(lq, kind: str) -> None:
    """Two estimates of one number; 4.5 standard errors, were they independent, is 7e-6."""
    problem, params, exact = lq
    got = measure(problem, params, exact, kind, 8192)
    error = math.hypot(got.at_start.stderr, got.ceiling_at_start.stderr)
    assert error < 0.02
    assert abs(got.at_start.value - got.ceiling_at_start.value) < 4.5 * error


def test_standard_errors_are_those_of_repeats(lq, fitted) -> None:
    problem, params, exact = lq
    guess = fitted.critic(problem)
    runs: dict[str, list[Estimate]] = {}
    for seed in range(48):
        quality = measure(problem, params, exact, "q", 256, seed)
        pointing = action_gradients(problem, params, guess, exact, 64, seed)
        parts = {
            name: getattr(quality, name) for name in ("overall", "at_start", "ceiling_at_start")
        }
        parts.update({f"gradient {name}": value for name, value in pointing._asdict().items()})
        for name, estimate in parts.items():
            runs.setdefault(name, []).append(estimate)
    for name, estimates in runs.items():
        values = torch.tensor([e.value for e in estimates], dtype=F64)
        said = sum(e.stderr for e in estimates) / len(estimates)
        # a standard deviation of 48 normal values has a relative error of 1/√94: four of them
        assert 1 / 1.42 < float(values.std()) / said < 1.42, name


# files and errors


def test_a_saved_critic_comes_back_exactly(lq, fitted, tmp_path: Path) -> None:
    path = tmp_path / "critic.safetensors"
    fitted.save(path)
    back = load_critic(path)
    assert back.fit == fitted.fit and back.sizes == fitted.sizes and back.quality == fitted.quality
    assert all(torch.equal(value, back.params[name]) for name, value in fitted.params.items())
    assert back.params.keys() == fitted.params.keys()
    json.dumps(fitted.metadata, allow_nan=False)
    view, action = some_view(lq[0])
    # to the last bit where both lie in memory alike: a file's tensors begin at any address, and
    # products of matrices there may be added up in another order
    back = dataclasses.replace(back, params={name: x.clone() for name, x in back.params.items()})
    assert torch.equal(back.critic(lq[0]).q(view, action), fitted.critic(lq[0]).q(view, action))


def test_bad_files_get_one_line(fitted, tmp_path: Path) -> None:
    path = tmp_path / "critic.safetensors"
    with pytest.raises(Missing) as missing:
        load_critic(path)
    fitted.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(Corrupt) as corrupt:
        load_critic(path)
    fitted.save(path)
    tensors, metadata = load(path)
    smaller = {**metadata, "fit": {**metadata["fit"], "hidden": [48, 24]}}
    with pytest.raises(BadShape) as shape:
        FittedCritic.of(tensors, smaller)
    with pytest.raises(Corrupt) as foreign:
        FittedCritic.of(tensors, {})
    assert "members.0.layers.1.weight" in str(shape.value)
    for error in (missing, corrupt, shape, foreign):
        assert "\n" not in str(error.value)


def test_a_critic_of_another_problem_is_refused(lq, fitted) -> None:
    with pytest.raises(BadShape, match="fitted for horizon 6, but lq has 5"):
        fitted.critic(lq[0].replace(horizon=5))
    with pytest.raises(BadShape, match="observation_dim 4"):
        fitted.critic(build("gate", horizon=6)[0])


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "w"},
        {"method": "td"},
        {"reduction": "max"},
        {"lam": 1.5},
        {"tau": -0.1},
        {"steps": -1},
        {"held_out": 1},
        {"learning_rate": 0.0},
        {"exploration": -1.0},
        {"exploration": 0.3, "method": "td_lambda"},
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, object]) -> None:
    fit = dataclasses.replace(Fit())
    for name, value in change.items():
        object.__setattr__(fit, name, value)  # past the type checker of the tests
    with pytest.raises(BadValue):
        fit.__post_init__()


def test_a_critic_without_the_asked_function_is_missing_it(lq) -> None:
    problem, params, exact = lq
    with pytest.raises(Missing):
        measure(problem, params, Critic(q=exact.q), "v", 4)
    with pytest.raises(BadValue, match="smooth"):
        ValueNetwork(3, 4, activation="relu")
