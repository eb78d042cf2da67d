"""An episode that has ended is worth what it has earned, value and gradient, at any horizon."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import estimators as E
import gradlab
from estimators.base import Estimator
from gradlab.events import Arctan, Event, Hard, Sigmoid, Step, last_margin
from gradlab.foundation.noise import Noise
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.problems.critic import Critic, View
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import Trajectory, rollout
from gradlab.tasks.base import Memoryless, Transition, ending_margins
from gradlab.tasks.racing import Racing
from tests.helpers.flights import flight_problem
from tests.helpers.forked import run_code

SHORT, LONG = 12, 24
PUBLISHED = "visfly-0.46kg"


@dataclass(frozen=True)
class Runaway:
    """x' = x + 0.3 + 0.1 a + 0.02 w + x⁴: slow below 1, and some five steps above it not finite."""

    state_dim: int = 1
    action_dim: int = 1
    noise_dim: int = 1

    def start(self, coordinates: Tensor) -> Tensor:
        return coordinates

    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        return state + 0.3 + 0.1 * action + 0.02 * noise + state**4


@dataclass(frozen=True)
class Wall(Memoryless):
    """Passing x = 0.4 pays once and x = 1 ends the episode, unless there is no wall.

    The length of a step has an infinite derivative for whoever stands still.
    """

    there: bool = True
    name: str = "wall"
    observation_dim: int = 2
    initial_dim: int = 1
    default_horizon: int = SHORT

    @property
    def events(self) -> tuple[Event, ...]:
        return Event("passed", bonus=2.0), Event("wall", -1.0, terminates=self.there)

    def draw_initial(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.rand(n, 1, generator=generator, dtype=torch.float64)

    def initial(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        return 0.5 * noise - 0.3, noise[..., :0]

    def observe(self, state: Tensor, memory: Tensor, step: Tensor) -> Tensor:
        return torch.cat([state, (0.1 * step)[..., None].expand_as(state)], dim=-1)

    def terms(self, transition: Transition) -> dict[str, Tensor]:
        moved = (transition.after - transition.before).square().sum(-1).sqrt()
        return {
            "moved": -0.1 * moved,
            "action": -0.1 * transition.action[..., 0] ** 2,
            "x": -(transition.after[..., 0] ** 2),
        }

    def margins(self, transition: Transition) -> Tensor:
        return torch.cat([transition.after - 0.4, transition.after - 1], dim=-1)


def _q(view: View, action: Tensor) -> Tensor:
    return torch.exp(view.state[..., 0] ** 2) * (1 + action[..., 0]) + view.step


def _v(view: View) -> Tensor:
    return torch.exp(view.state[..., 0] ** 2) * view.obs[..., 0]


def problem_of(horizon: int, step: Step | None = None) -> Problem:
    policy = GaussianPolicy(2, 1, hidden=(4,), std=0.3, head_gain=1.0)
    critic = Critic(_q, _v, "not finite where nobody is alive")
    return Problem(
        "wall", Runaway(), Wall(), policy, horizon, 0.97, critic, step or Hard(), torch.float64
    )


def params_of(problem: Problem) -> dict[str, Tensor]:
    return problem.init(torch.Generator().manual_seed(0))


def noise_of(horizon: int, count: int = 8) -> Noise:
    """The same episodes for every horizon."""
    noise = problem_of(LONG).draw(count, torch.Generator().manual_seed(1))
    return noise._replace(action=noise.action[:, :horizon], process=noise.process[:, :horizon])


def every_estimator(engine: str) -> dict[str, Estimator]:
    e = {"engine": engine}
    fog, pg = E.FOG(**e), E.PG(**e)
    return {
        "fog": fog,
        "pg": pg,
        "pg-v": E.PG(baseline="v", **e),
        "pg-q": E.PG(baseline="q", **e),
        "pg-loo": E.PG(baseline="loo", group_size=4, **e),
        "pg-gae": E.PG(returns="gae", **e),
        "relaxed": E.RelaxedFOG(0.05, **e),
        "relaxed-arctan": E.RelaxedFOG(0.05, "arctan", **e),
        "split": E.Split(0.05, **e),
        "split-none": E.Split(None, **e),
        "qg": E.QG(entropy=0.1, **e),
        "nstep": E.NStep(3, **e),
        "tiled": E.NStep(3, "tiled", **e),
        "tiled-v": E.NStep(3, "tiled", "v", **e),
        "lambda": E.LambdaReturn(0.8, 4, "tiled", **e),
        "abpt": E.ABPT(5, **e),
        "abpt-all": E.ABPT(3, "all", **e),
        "agpo": E.AGPO(3, starts="tiled", source=E.Same(8), **e),
        "mixture": E.Mixture((fog, pg), E.InverseVariance(), "layer", E.Cross(8)),
        "evolution": E.EvolutionStrategies(0.01),
    }


STEPS: dict[str, Step] = {"hard": Hard(), "sigmoid": Sigmoid(0.05), "arctan": Arctan(0.05)}


@pytest.mark.parametrize("name", every_estimator("pullback"))
@pytest.mark.parametrize("kind", ["hard", "sigmoid"])
def test_gradients_do_not_depend_on_what_comes_after_the_end(kind: str, name: str) -> None:
    step = STEPS[kind]
    for engine in ("pullback", "vmap", "loop") if kind == "hard" else ("pullback", "vmap"):
        found = []
        for horizon in (SHORT, LONG):
            problem = problem_of(horizon, step)
            params, noise = params_of(problem), noise_of(horizon)
            estimator = every_estimator(engine)[name]
            found.append(estimator(problem, params, noise).per_sample())
        for leaf, short in found[0].items():
            assert short.isfinite().all()
            # the same products in sums of other lengths
            scale = float(short.abs().max())
            assert (found[1][leaf] - short).abs().max() <= 1e-12 * scale, (engine, leaf)
        assert any(leaf.abs().max() > 0 for leaf in found[0].values())


@pytest.mark.parametrize("kind", ["hard", "sigmoid"])
def test_critics_are_not_told_of_an_end(kind: str) -> None:
    def value(view: View) -> Tensor:
        return torch.log(1 - view.events[..., 1]) * view.state[..., 0] + view.obs[..., 1]

    critic = Critic(lambda view, action: value(view) * (1 + action[..., 0]), value, "infinite at 1")
    for estimator in (E.QG(), E.NStep(3, "tiled", "v")):
        found = []
        for horizon in (SHORT, LONG):
            problem = problem_of(horizon, STEPS[kind]).replace(critic=critic)
            found.append(estimator(problem, params_of(problem), noise_of(horizon)).per_sample())
        for leaf, short in found[0].items():
            assert short.isfinite().all() and found[1][leaf].isfinite().all()
            assert (found[1][leaf] - short).abs().max() <= 1e-12 * short.abs().max()


@pytest.mark.parametrize("kind", STEPS)
def test_values_do_not_depend_on_what_comes_after_the_end(kind: str) -> None:
    """The twin stops at the end: each episode alone, no longer than it lives."""
    problem = problem_of(LONG, STEPS[kind])
    params, noise = params_of(problem), noise_of(LONG, 32)
    policy = problem.bind(params)
    path = rollout(problem, policy, noise)
    result = evaluate(problem, path)
    length = (~path.ended).sum(-1)
    assert length.max() < SHORT and len(length.unique()) > 1
    for i, steps in enumerate(length.tolist()):
        one = rollout(problem, policy, noise.rows(i, i + 1), length=steps)
        own = evaluate(problem, one).value[0]
        torch.testing.assert_close(result.value[i, :steps], own, rtol=1e-12, atol=1e-15)
        assert not result.value[i, steps:].any() and not result.alive[i, steps:].any()
        assert (path.state[i, steps:] == path.state[i, steps]).all()


def test_alive_and_not_finite_is_still_seen() -> None:
    problem = problem_of(LONG).replace(task=Wall(there=False))
    params, noise = params_of(problem), noise_of(LONG)
    value = evaluate(problem, rollout(problem, problem.bind(params), noise)).value
    assert not value.sum(-1).isfinite().any()
    assert not any(x.isfinite().all() for x in E.FOG()(problem, params, noise).mean().values())


def other_ways_agree(way: str) -> None:
    for kind in ("hard", "sigmoid"):
        plain = problem_of(LONG, STEPS[kind])
        params, noise = params_of(plain), noise_of(LONG)
        for estimator in (E.FOG(), E.NStep(3, "tiled")):
            expected = estimator(plain, params, noise).per_sample()
            got = estimator(plain.replace(**{way: True}), params, noise).per_sample()
            for name, leaf in expected.items():
                torch.testing.assert_close(got[name], leaf, rtol=1e-10, atol=1e-12)


def test_checkpointed_steps_end_too() -> None:
    other_ways_agree("checkpoint")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")
def test_compiled_steps_end_too() -> None:
    """In a process of its own: run-time type checks of the tests cannot be compiled."""
    code = "from tests.contracts.test_ended_episodes import other_ways_agree as run; run('compile')"
    done = run_code(code)
    assert done.returncode == 0, done.stderr[-2000:]


def lost(name: str, horizon: int, count: int, dtype: torch.dtype, **options: str) -> int:
    problem = gradlab.make(name, horizon=horizon, dtype=dtype, **options)
    params = problem.init(torch.Generator().manual_seed(0))
    noise = problem.draw(count, torch.Generator().manual_seed(1))
    with torch.no_grad():
        path = rollout(problem, problem.bind(params), noise)
        return int((~evaluate(problem, path).value.sum(-1).isfinite()).sum())


@pytest.mark.parametrize("name", ["hovering", "landing", "racing", "tracking"])
def test_long_flights_lose_no_episode(name: str) -> None:
    """157, 150, 157 and 242 of these 256 were lost when rollouts went on after the end."""
    assert lost(name, 256, 256, torch.float32, drone=PUBLISHED) == 0


@pytest.mark.slow
def test_longer_flights_lose_no_episode() -> None:
    for name in ("hovering", "landing", "racing", "tracking"):
        assert lost(name, 256, 256, torch.float64, drone=PUBLISHED) == 0
    assert lost("racing", 1000, 64, torch.float32) == 0


@pytest.mark.parametrize("estimator", [E.FOG(), E.RelaxedFOG(0.1), E.Split(0.05), E.Split(None)])
def test_gradients_of_a_long_flight_are_finite(estimator: Estimator) -> None:
    problem = gradlab.make("hovering", horizon=128, drone=PUBLISHED)
    params = problem.init(torch.Generator().manual_seed(0))
    noise = problem.draw(16, torch.Generator().manual_seed(1))
    path = rollout(problem, problem.bind(params), noise)
    assert path.ended[:, -1].all()
    assert estimator(problem, params, noise).squared_norms().isfinite().all()


def step_of(path: Trajectory, steps: Tensor, t: int) -> Transition:
    """Step t of a batch of trajectories."""
    ends = path.state[:, t], path.action[:, t], path.state[:, t + 1]
    return Transition(*ends, path.memory[:, t], steps[t])


def without_an_end(problem: Problem, params: dict[str, Tensor], noise: Noise) -> Tensor:
    """The values of hard events when rollouts go on after the end, by plain bookkeeping."""
    task, policy, steps = problem.task, problem.policy, problem.steps
    state, memory, *_ = problem.start(noise)
    alive = torch.ones_like(state[:, 0])
    over = [torch.zeros_like(alive, dtype=torch.bool) for _ in task.events]
    values = []
    for t in range(problem.horizon):
        obs = task.observe(state, memory, steps[t])
        latent = policy.latent(problem.bind(params)(obs), noise.action[:, t])
        action = policy.action(latent)
        after = problem.simulator.step(state, action, noise.process[:, t])
        made = Transition(state, action, after, memory, steps[t])
        terms = task.terms(made.alone())
        dense = torch.stack(list(terms.values())).sum(0)[:, 0]
        value, margins = alive * dense, task.margins(made.alone())[:, 0]
        ended = [over[i] for i, event in enumerate(task.events) if event.terminates]
        for i, event in enumerate(task.events):
            hit = (margins[:, i] > 0) & (event.switches | ~over[i])
            value = value + alive * event.bonus * hit.to(value)
            value = value + alive * event.survival * (~(over[i] | hit)).to(value)
        over = [o | (margins[:, i] > 0) for i, o in enumerate(over)]
        ended = [over[i] for i, event in enumerate(task.events) if event.terminates]
        values.append(problem.discounts[t] * value)
        alive = alive * torch.stack(ended).any(0).logical_not().to(alive) if ended else alive
        state, memory = after, task.advance(made)
    return torch.stack(values, dim=-1)


@pytest.mark.parametrize("name", ["racing", "landing", "hovering", "course", "hopper"])
def test_what_was_finite_keeps_every_bit(name: str) -> None:
    """Against rollouts that go on after the end: the same values of every step, to the last bit."""
    if name == "hopper":
        # the five of the 16 episodes that end within 24 steps end within 18
        problem = gradlab.make(name, horizon=18, dtype=torch.float64)
        params = problem.init(torch.Generator().manual_seed(0))
    else:
        problem, params = flight_problem(name, horizon=40)
    noise = problem.draw(16, torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = without_an_end(problem, params, noise)
        path = rollout(problem, problem.bind(params), noise)
        value = evaluate(problem, path).value
    assert path.ended[:, -1].any()
    finite = expected.isfinite().all(-1)
    assert finite.any()
    assert torch.equal(value[finite], expected[finite])


def test_where_survival_is_below_what_a_dtype_resolves() -> None:
    for dtype in (torch.float32, torch.float64):
        eps = torch.finfo(dtype).eps
        assert last_margin(Hard(), dtype) == 0
        for width in (0.01, 1.0):
            margin = last_margin(Sigmoid(width), dtype)
            # half of eps below 1, or a quarter where rounding is to nearest, and sigmoid's own last
            # bit
            assert eps / 8 < torch.exp(torch.tensor(-margin / width, dtype=torch.float64)) < eps
            beyond = torch.linspace(1.001, 50, 1000, dtype=dtype) * margin
            assert (Sigmoid(width)(beyond) == 1).all()
            assert (Arctan(width)(beyond[:1]) < 1).all()
            far = last_margin(Arctan(width), dtype)
            assert 1 / 8 < width / (torch.pi * far) / eps < 1
    assert last_margin(lambda m: 0.5 * torch.sigmoid(m), torch.float32) == float("inf")


def test_a_window_starts_from_a_constant() -> None:
    """Terms that read the state before a step see no gradient of the window before it."""
    problem = problem_of(SHORT)
    params = {name: leaf.requires_grad_() for name, leaf in params_of(problem).items()}
    path = rollout(problem, problem.bind(params), noise_of(SHORT), cut_every=2)
    for t, wanted in ((1, True), (2, False)):
        total = path.before[~path.ended[:, t], t].sum()
        grads = torch.autograd.grad(total, list(params.values()), retain_graph=True)
        assert any(bool(g.any()) for g in grads) is wanted


@pytest.mark.parametrize("name", ["hovering", "tracking", "landing", "racing", "course", "hopper"])
def test_the_margins_after_one_step_are_those_of_the_trajectory(name: str) -> None:
    """Also those that a task works out without the rest."""
    if name in ("hopper", "tracking"):
        problem = gradlab.make(name, horizon=12, dtype=torch.float64)
        params = problem.init(torch.Generator().manual_seed(0))
    else:
        problem, params = flight_problem(name, horizon=40)
    noise = problem.draw(16, torch.Generator().manual_seed(2))
    path = rollout(problem, problem.bind(params), noise)
    margins = evaluate(problem, path).margins
    ends = [i for i, event in enumerate(problem.task.events) if event.terminates]
    asked = ending_margins(problem.task)
    for t in (0, 3, problem.horizon - 1):
        found = asked(step_of(path, problem.steps, t))
        assert torch.equal(found, margins[:, t, ends])


def test_a_subclass_with_its_own_end_is_asked_for_it() -> None:
    @dataclass(frozen=True)
    class Fast(Racing):
        @property
        def events(self) -> tuple[Event, ...]:
            return *super().events, Event("fast", terminates=True)

        def margins(self, transition: Transition) -> Tensor:
            fast = transition.after[..., 7:10].norm(dim=-1, keepdim=True) - 5.0
            return torch.cat([super().margins(transition), fast], dim=-1)

    problem, params = flight_problem("racing", horizon=40)
    path = rollout(problem, problem.bind(params), problem.draw(4, torch.Generator()))
    fifth = step_of(path, problem.steps, 4)
    assert ending_margins(problem.task)(fifth).shape == (4, 1)
    found = ending_margins(Fast())(fifth)
    assert torch.equal(found[:, 1], fifth.after[:, 7:10].norm(dim=-1) - 5.0)
