"""Runners against gymnasium's own environments, the sources' tables, and finite differences."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import sys
import types
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

import estimators as E
import gradlab
from gradlab.events import Event
from gradlab.foundation.errors import BadValue, GradlabError, UnknownName
from gradlab.foundation.moment import Moment
from gradlab.foundation.noise import Noise
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.problems import runners
from gradlab.problems.critic import Critic, View
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate, evaluate_step, moment_at
from gradlab.simulators.articulated.simulator import Articulated
from gradlab.simulators.articulated.variants import CentreOfMass, variant
from gradlab.tasks.base import Task, Transition
from gradlab.tasks.locomotion import Locomotion
from gradlab.tasks.locomotion_dflex import FreeRunner
from tests.contracts.test_contracts import SMALL
from tests.helpers.toy import Swing, toy_params, toy_problem

if importlib.util.find_spec("imageio") is None:
    # gymnasium imports it for the screenshots of its viewer, which nothing here opens
    sys.modules["imageio"] = types.ModuleType("imageio")

EVERY = [(name, preset) for name in runners.RUNNERS for preset in runners.presets(name)]
# without contact forces, inertias, ...: what gradlab leaves out
WITHOUT: dict[str, dict[str, Any]] = {
    "ant": {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0.0},
    "humanoid": {
        "contact_cost_weight": 0.0,
        **{
            f"include_{block}_in_observation": False
            for block in ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")
        },
    },
}
ENVIRONMENTS = {
    "ant": "Ant-v5",
    "hopper": "Hopper-v5",
    "walker2d": "Walker2d-v5",
    "half_cheetah": "HalfCheetah-v5",
    "humanoid": "Humanoid-v5",
}


def small(name: str, preset: str, horizon: int = 4, hidden: int = 8, **options: Any) -> Problem:
    """A float64 problem with compliant contact and a small network."""
    options = {"contact": "compliant", "dtype": torch.float64} | options
    problem = gradlab.make(name, preset=preset, horizon=horizon, **options)
    policy = GaussianPolicy(problem.task.observation_dim, problem.simulator.action_dim, (hidden,))
    return problem.replace(policy=policy)


def drawn(problem: Problem, count: int, seed: int = 0) -> tuple[dict[str, Tensor], Noise]:
    params = problem.init(torch.Generator().manual_seed(seed))
    return params, problem.draw(count, torch.Generator().manual_seed(seed + 1))


def aloft(problem: Problem) -> Problem:
    """The same, starting three metres up: nothing touches the ground within a short horizon."""
    start = list(problem.task.start)  # type: ignore[attr-defined]
    start[2 if len(start) in (15, 24, 28) else 1] += 3.0
    return problem.replace(task=dataclasses.replace(problem.task, start=tuple(start)))  # type: ignore[type-var]


def states_of(task: Task, simulator: Any, count: int, seed: int) -> Tensor:
    """States around the start, some of them fallen."""
    noise = task.draw_initial(count, torch.Generator().manual_seed(seed))
    state = simulator.start(task.initial(noise)[0])
    return state + 0.3 * torch.randn(
        state.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=state.dtype
    )


# --- models ---------------------------------------------------------------------------------------


def test_brax_ant_has_the_published_inertias() -> None:
    """google/brax@0b96d05, compiled: masses, centres, inertias and inverse weights."""
    m = variant("ant", "brax").model.compiled
    names = [mujoco.mj_id2name(m, mujoco.mjtObj.mjOBJ_BODY, b) for b in range(m.nbody)]
    assert len(names) == 10
    leg, foot = 0.03915775, 0.0675922
    np.testing.assert_allclose(m.body_mass[1:], [0.48388025, *(leg, foot) * 4], rtol=1e-6)
    assert m.body_mass.sum() == pytest.approx(0.91088008, rel=1e-8)
    np.testing.assert_allclose(
        m.body_invweight0[1:, 0], [1.1014375, *(1.80877623, 3.98441333) * 4], rtol=1e-8
    )
    joints = (0.98263596, 0.99510243) * 4
    np.testing.assert_allclose(
        m.dof_invweight0, [*(1.1014375,) * 3, *(6.53604023,) * 3, *joints], rtol=1e-8
    )
    for b, (xx, zz, xy, reach) in {
        1: (0.011120357, 0.0135857155, 0.0, 0.0),
        2: (3.43203991e-4, 5.67966083e-4, -2.24762093e-4, 0.1),
        3: (1.44211140e-3, 2.67479066e-3, -1.23267926e-3, 0.2),
    }.items():
        turn = np.zeros(9)
        mujoco.mju_quat2Mat(turn, m.body_iquat[b])
        turn = turn.reshape(3, 3)
        inertia = turn @ np.diag(m.body_inertia[b]) @ turn.T
        np.testing.assert_allclose(inertia, [[xx, xy, 0], [xy, xx, 0], [0, 0, zz]], atol=2e-11)
        np.testing.assert_allclose(m.body_ipos[b], [reach, reach, 0], atol=1e-12)
    touching = [m.geom(g).name for g in range(m.ngeom) if m.geom_contype[g]]
    assert sorted(touching) == ["foot_1", "foot_2", "foot_3", "foot_4"]


@pytest.mark.parametrize(
    ("name", "preset", "total", "some"),
    [
        ("hopper", "brax", 15.8200, [3.66519, 4.05789, 2.78136, 5.31557]),
        ("walker2d", "brax", 23.6771, [3.66519, 4.05789, 2.78136, 3.16673]),
        ("half_cheetah", "brax", 14.0, [6.25021, 1.54351, 1.58745, 1.09540, 1.43808]),
        ("humanoid", "brax", 42.1160, [8.90746, 2.26195, 6.61619, 4.75175, 4.52284]),
        ("half_cheetah", "gymnasium", 14.0, [6.25021, 1.54351, 1.58745, 1.09540, 1.43808]),
        ("hopper", "dflex", 15.8200, [3.66519, 4.05789, 2.78136, 5.31557]),
    ],
)
def test_masses(name: str, preset: str, total: float, some: list[float]) -> None:
    mass = variant(name, preset).model.inertia[:, 3, 3]
    assert mass.sum() == pytest.approx(total, rel=1e-5)
    heavy = [x for x in mass if x > 0]
    np.testing.assert_allclose(heavy[: len(some)], some, rtol=1e-5)


def test_dflex_ant_is_heavy() -> None:
    """Densities of 1000 kg/m³: 96.78 kg of torso, 7.83 kg per leg, 13.52 kg per foot."""
    found = variant("ant", "dflex")
    mass = found.model.inertia[:, 3, 3]
    assert mass.sum() == pytest.approx(182.2, abs=0.05)
    np.testing.assert_allclose(mass, [96.78, *(7.83, 13.52) * 4], atol=5e-3)
    assert (found.dt, found.substeps, found.mass_every) == (1 / 60, 16, 16)
    model = found.model
    assert set(model.armature[6:]) == {0.05} and set(model.damping[6:]) == {1.0}
    np.testing.assert_array_equal(model.gear[:, 6:], 200 * np.eye(8))
    ranges = np.rad2deg([(limit.low, limit.high) for limit in model.limits])
    hip, out, back = [-40, 40], [30, 100], [-100, -30]
    np.testing.assert_allclose(ranges, [hip, out, hip, back, hip, back, hip, out])


def test_dflex_humanoid_has_ankles() -> None:
    found = variant("humanoid", "dflex")
    model, weight = found.model, found.model.inertia[:, 3, 3]
    assert (model.nq, model.nv, model.nu) == (28, 27, 21)
    assert (found.dt, found.substeps, found.mass_every) == (1 / 60, 48, 48)
    assert weight.sum() == pytest.approx(40.844, abs=1e-3)  # capsules and spheres of 1000 kg/m³
    np.testing.assert_allclose(weight[9] / weight[15], 1.0)  # feet
    leg, arm = [200, 200, 600, 400, 100, 100], [100, 100, 200]
    strengths = [200] * 3 + 2 * leg + 2 * arm
    np.testing.assert_allclose(model.gear[:, 6:], 0.35 * np.diag(strengths))
    problem = gradlab.make("humanoid", preset="dflex")
    assert problem.task.observation_dim == 76


@pytest.mark.parametrize(("name", "preset"), EVERY)
def test_every_runner_can_be_compliant(name: str, preset: str) -> None:
    """The constants pass `check`, with the sizes of the published experiments."""
    for contact in ("compliant", "smoothed"):
        problem = gradlab.make(name, preset=preset, contact=contact)
        assert problem.policy.hidden == (256, 128, 64)
        assert problem.horizon == 32 and problem.discount == 0.99
        assert isinstance(problem.simulator, Articulated)
        assert problem.simulator.dt == pytest.approx(problem.task.dt)  # type: ignore[attr-defined]


def test_contact_is_chosen_by_name_or_given() -> None:
    laws = {
        c: type(gradlab.make("ant", contact=c).simulator.contact).__name__
        for c in ("convex", "brax")
    }  # type: ignore[attr-defined]
    assert laws == {"convex": "Convex", "brax": "BraxLike"}
    given = variant("ant", "brax").compliant
    assert gradlab.make("ant", preset="brax", contact=given).simulator.contact is given  # type: ignore[attr-defined]
    assert type(gradlab.make("ant").simulator.contact).__name__ == "Convex"  # type: ignore[attr-defined]
    fine = gradlab.make("ant", preset="dflex", substeps=32, mass_every=1)
    assert fine.simulator.substeps == 32  # type: ignore[attr-defined]
    fast = gradlab.make("ant", preset="brax", contact="compliant", dt=0.02, substeps=4)
    assert fast.simulator.dt == fast.task.dt == 0.02  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "braks"}, "preset of ant.*brax"),
        ({"contact": "convexx"}, "contact.*convex"),
        ({"control_costs": 1.0}, "control_cost"),
        ({"start": (0.0,)}, "option of ant"),
    ],
)
def test_mistakes_are_one_clear_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownName, match=message) as caught:
        gradlab.make("ant", **options)
    assert "\n" not in str(caught.value)


def test_a_given_simulator_takes_no_contact() -> None:
    simulator = gradlab.make("ant", preset="dflex").simulator
    assert gradlab.make("ant", preset="dflex", simulator=simulator).simulator is simulator
    with pytest.raises(UnknownName, match="option of ant: 'contact'"):
        gradlab.make("ant", preset="dflex", simulator=simulator, contact="smoothed")


def test_missing_presets_are_refused_by_name() -> None:
    with pytest.raises(GradlabError, match="brax, gymnasium"):
        gradlab.make("walker2d", preset="mjx")
    with pytest.raises(UnknownName, match="preset of walker2d"):
        gradlab.make("walker2d", preset="dflex")
    with pytest.raises(BadValue, match="too stiff"):
        gradlab.make("ant", preset="brax", contact=variant("ant", "dflex").compliant)


# --- tasks against gymnasium ----------------------------------------------------------------------


def reference(name: str) -> Any:
    """gymnasium's environment, its positions of bodies those of its state.

    It reads torso and centre of mass as the last integrator stage left them;
    brought up to date here.
    """
    env: Any = gymnasium.make(ENVIRONMENTS[name], **WITHOUT.get(name, {})).unwrapped
    simulate = env.do_simulation

    def refreshed(control: np.ndarray, frames: int) -> None:
        simulate(control, frames)
        mujoco.mj_forward(env.model, env.data)

    env.do_simulation = refreshed
    return env


def unit(state: Tensor) -> Tensor:
    """With the quaternion of a free root normalised, as MuJoCo does when it steps."""
    if len(state) in (29, 47):
        state = state.clone()
        state[3:7] /= state[3:7].norm()
    return state


def state_in(env: Any) -> Tensor:
    return torch.from_numpy(np.concatenate((env.data.qpos, env.data.qvel)))


def nowhere(problem: Problem) -> Moment:
    """The first moment of one episode, whatever its state."""
    return problem.start(problem.draw(1, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", runners.RUNNERS)
def test_task_agrees_with_gymnasium_step_by_step(name: str) -> None:
    """Observation, reward terms and termination; the trajectory is gymnasium's, falls included."""
    env, problem = reference(name), gradlab.make(name, dtype=torch.float64, contact="compliant")
    task, scale = problem.task, 0.4 if name == "humanoid" else 1.0
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    ended, now = 0, nowhere(problem)
    for k in range(150):
        before = state_in(env)[None]
        none = before[:, :0]
        action = rng.uniform(-1, 1, problem.simulator.action_dim)
        obs, reward, terminated, _, info = env.step(scale * action)
        after = state_in(env)[None]
        time = torch.tensor([float(k)], dtype=torch.float64)
        np.testing.assert_allclose(task.observe(after, none, time)[0], obs, atol=1e-12)
        now = now._replace(state=before, step=time)
        got = evaluate_step(problem, now, torch.from_numpy(action)[None], after, none)
        ended += bool(terminated)
        assert bool(got.terminated) == terminated
        assert float(got.reward) == pytest.approx(reward, abs=1e-10)
        terms = got.terms | got.bonuses
        for term, theirs in (("forward", "reward_forward"), ("control", "reward_ctrl")):
            assert float(terms[term]) == pytest.approx(info[theirs], abs=1e-10)
        if task.events:
            assert float(terms["unhealthy"]) == pytest.approx(info["reward_survive"], abs=1e-12)
        now = got.end
        if terminated:
            env.reset(seed=100 + k)
            now = nowhere(problem)
    assert ended > 0 or name in ("half_cheetah", "ant")
    env.close()


@pytest.mark.parametrize("name", runners.RUNNERS)
def test_rollouts_agree_with_gymnasium(name: str) -> None:
    """Whole environments over a few control steps with convex contact;
    MuJoCo's solver converged.
    """
    env = reference(name)
    env.model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    env.model.opt.tolerance, env.model.opt.iterations = 0.0, 100
    problem = gradlab.make(name, dtype=torch.float64)
    env.reset(seed=3)
    state = unit(state_in(env))
    scale = 0.4 if name == "humanoid" else 1.0
    rng = np.random.default_rng(1)
    for _ in range(3):
        action = rng.uniform(-1, 1, problem.simulator.action_dim)
        env.step(scale * action)
        state = problem.simulator.step(state, torch.from_numpy(action), state[:0])
        torch.testing.assert_close(state, state_in(env), rtol=1e-10, atol=1e-10)
    env.close()


@pytest.mark.parametrize("name", runners.RUNNERS)
def test_starts_are_drawn_as_in_gymnasium(name: str) -> None:
    env, task = reference(name), gradlab.make(name, contact="compliant").task
    theirs = []
    for seed in range(200):
        env.reset(seed=seed)
        theirs.append(unit(state_in(env)))
    env.close()
    mine, memory = task.initial(task.draw_initial(4000, torch.Generator().manual_seed(0)))
    assert memory.shape == (4000, 0)
    sample = torch.stack(theirs)
    spread = mine.std(0)
    # 4.9 standard errors over at most 47 entries
    assert bool(
        ((sample.mean(0) - mine.mean(0)).abs() < 4.9 * spread * (1 / 200 + 1 / 4000) ** 0.5).all()
    )
    ratio = sample.std(0) / spread
    assert bool(((ratio > 0.72) & (ratio < 1.3)).all())
    nq = len(task.start)  # type: ignore[attr-defined]
    start = torch.tensor([*task.start], dtype=torch.float64)  # type: ignore[attr-defined]
    kept = torch.tensor([not (nq in (15, 24) and 3 <= i < 7) for i in range(nq)])
    reach = (mine[:, :nq] - start).abs().amax(0)[kept]
    assert float(reach.max()) <= task.position_noise  # type: ignore[attr-defined]
    assert float(reach.min()) > 0.99 * task.position_noise  # type: ignore[attr-defined]


# --- Brax and dFlex, by hand ----------------------------------------------------------------------


def test_brax_pays_health_until_the_end() -> None:
    problem = gradlab.make("ant", preset="brax", contact="compliant", dtype=torch.float64)
    task = problem.task
    assert isinstance(task, Locomotion)
    np.testing.assert_array_equal(task.start, [0, 0, 0.55, 1, 0, 0, 0, 0, 1, 0, -1, 0, -1, 0, 1])
    before, after = torch.zeros(1, 29).double(), torch.zeros(1, 29).double()
    after[0, 0], after[0, 2] = 0.1, 0.15
    action = torch.full((1, 8), 2.0, dtype=torch.float64)
    now = nowhere(problem)._replace(state=before)
    got = evaluate_step(problem, now, action, after, before[:, :0])
    assert float(got.reward) == pytest.approx(0.1 / 0.05 + 1 - 0.5 * 8 * 4)
    assert bool(got.terminated)
    margin = task.margins(Transition(before, action, after, after[:, :0], torch.zeros(1)))
    assert float(margin) == pytest.approx((0.2 - 0.15) / 0.2)
    assert task.observation_dim == 27


def test_dflex_ant_by_hand() -> None:
    problem = gradlab.make("ant", preset="dflex", dtype=torch.float64)
    task, simulator = problem.task, problem.simulator
    assert isinstance(task, FreeRunner) and task.observation_dim == 37
    half = math.pi / 6  # a turn of 60 degrees about z: heading cos 60°, up 1
    state = simulator.start(torch.zeros(1, 29, dtype=torch.float64))
    state[0, 2:7] = torch.tensor([0.5, math.cos(half), 0, 0, math.sin(half)])
    state[0, 15:21] = torch.tensor([1.5, 0.2, 0.1, 1.0, 0.0, 2.0])  # v world, ω body
    state[0, 29:] = 0.7
    obs = task.observe(state, state[:, :0], torch.zeros(1))[0]
    turned = [math.cos(2 * half), math.sin(2 * half), 2.0]
    np.testing.assert_allclose(obs[:11], [*state[0, 2:7], 1.5, 0.2, 0.1, *turned], atol=1e-12)
    np.testing.assert_allclose(obs[27:29], [1.0, 0.5], atol=1e-9)
    np.testing.assert_allclose(obs[29:], 0.7)
    action = torch.full((1, 8), 0.7, dtype=torch.float64)
    made = Transition(state, action, state, state[:, :0], torch.zeros(1))
    terms = task.terms(made)
    total = float(torch.stack(list(terms.values())).sum())
    assert total == pytest.approx(1.5 + 0.1 + 0.5 + (0.5 - 0.27), abs=1e-9)
    assert float(task.margins(made)) == pytest.approx(-0.23 / 0.2)


def test_dflex_hopper_by_hand() -> None:
    problem = gradlab.make("hopper", preset="dflex", dtype=torch.float64)
    state = torch.zeros(3, 12, dtype=torch.float64)
    state[:, 1] = torch.tensor([0.0, -0.4, 0.5], dtype=torch.float64)
    state[:, 2], state[:, 6] = 0.1, 2.0
    action = torch.full((3, 3), 0.5, dtype=torch.float64)
    none = state[:, :0]
    terms = problem.task.terms(Transition(state, action, state, none, torch.zeros(3)))
    np.testing.assert_allclose(terms["height"], [0.3, -200 * 0.1**2, 0.3])
    np.testing.assert_allclose(terms["level"], 1 - (0.6 / math.pi) ** 2)
    np.testing.assert_allclose(terms["control"], -0.1 * 0.75)
    np.testing.assert_allclose(terms["forward"], 2.0)
    assert problem.task.observation_dim == 11


def test_dflex_starts_are_turned_by_at_most_a_24th_of_pi() -> None:
    task = gradlab.make("ant", preset="dflex").task
    start = task.initial(task.draw_initial(2000, torch.Generator().manual_seed(0)))[0]
    quaternion = start[:, 3:7]
    torch.testing.assert_close(quaternion.norm(dim=1), torch.ones(2000).double())
    angle = 2 * torch.atan2(quaternion[:, 1:].norm(dim=1), quaternion[:, 0])
    assert 0.99 * math.pi / 24 < float(angle.max()) <= math.pi / 24 + 1e-12
    away = (start[:, 7:15] - torch.tensor(runners.ANT_JOINTS)).abs().amax(0)
    assert bool(((away > 0.198) & (away <= 0.2)).all())
    assert bool((start[:, 15:].abs().amax(0) <= 0.25).all())


# --- contracts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "preset"), EVERY)
def test_any_batch_shape_and_vmap(name: str, preset: str) -> None:
    problem = gradlab.make(name, preset=preset, contact="compliant", dtype=torch.float64)
    task = problem.task
    state = states_of(task, problem.simulator, 12, 0).view(3, 4, -1)
    nu = problem.simulator.action_dim
    action = torch.randn(3, 4, nu, generator=torch.Generator().manual_seed(9)).double()
    steps, none = torch.arange(4.0), state[..., :0]

    def everything(s: Tensor, a: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        made = Transition(s, a, s.roll(1, -2), m, steps)
        dense = torch.stack(list(task.terms(made).values())).sum(0)
        return dense, task.margins(made), task.observe(s, m, steps)

    whole = everything(state, action, none)
    mapped = torch.vmap(everything)(state, action, none)
    single = [torch.stack(x) for x in zip(*map(everything, state, action, none), strict=True)]
    for a, b, c in zip(whole, mapped, single, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(a, c, rtol=1e-12, atol=1e-12)
    assert whole[2].shape == (3, 4, task.observation_dim)
    assert whole[1].shape == (3, 4, len(task.events))
    low = state.float()
    assert task.observe(low, low[..., :0], steps).dtype == torch.float32
    assert all(
        x.dtype == torch.float32
        for x in task.terms(Transition(low, action.float(), low, low[..., :0], steps)).values()
    )

    def score(s: Tensor) -> Tensor:
        dense, margins, obs = everything(s, action, none)
        return dense.sum() + margins.sum() + obs.sin().sum()

    slope = torch.func.grad(score)(state)
    assert bool(slope.isfinite().all())
    shift = torch.randn(state.shape, generator=torch.Generator().manual_seed(4)).double()
    numeric = (score(state + 1e-6 * shift) - score(state - 1e-6 * shift)) / 2e-6
    assert float((slope * shift).sum()) == pytest.approx(float(numeric), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("contact", ["compliant", "smoothed"])
@pytest.mark.parametrize("preset", ["brax", "dflex"])
def test_samples_are_finite(preset: str, contact: str, dtype: torch.dtype) -> None:
    problem = small("ant", preset, horizon=3, contact=contact, dtype=dtype)
    params, noise = drawn(problem, 8)
    for estimator in (E.FOG(), E.PG()):
        samples = estimator(problem, params, noise)
        assert bool(samples.squared_norms().isfinite().all())


@pytest.mark.parametrize(
    ("name", "preset"),
    [("ant", "brax"), ("ant", "dflex"), ("hopper", "brax"), ("half_cheetah", "dflex")],
)
def test_fog_is_the_finite_difference_of_each_sample(name: str, preset: str) -> None:
    problem = aloft(small(name, preset, horizon=2)).relaxed(0.5)
    params, noise = drawn(problem, 3)
    rows = E.FOG()(problem, params, noise).per_sample()
    direction = {
        k: torch.randn(v.shape, generator=torch.Generator().manual_seed(5)).double()
        for k, v in params.items()
    }

    def values(scale: float) -> Tensor:
        moved = {k: v + scale * direction[k] for k, v in params.items()}
        path = gradlab.rollout(problem, problem.bind(moved), noise)
        return evaluate(problem, path).value.sum(-1)

    numeric = (values(1e-6) - values(-1e-6)) / 2e-6
    slope = sum((rows[k] * direction[k]).flatten(1).sum(1) for k in params)
    torch.testing.assert_close(slope, numeric, rtol=1e-6, atol=1e-7)


def test_engines_agree_on_ant() -> None:
    problem = small("ant", "dflex", horizon=2, hidden=4).relaxed(0.3)
    params, noise = drawn(problem, 3)
    fast, slow = (
        E.FOG(engine=e)(problem, params, noise).per_sample() for e in ("pullback", "vmap")
    )
    for leaf in params:
        torch.testing.assert_close(fast[leaf], slow[leaf], rtol=1e-9, atol=1e-9)


def _critic() -> Critic:
    def q(view: View, action: Tensor) -> Tensor:
        return view.obs.sin().sum(-1) - action.square().sum(-1)

    return Critic(q=q, v=lambda view: view.obs.cos().sum(-1), name="made up")


@pytest.mark.parametrize("name", E.names())
def test_every_estimator_runs_on_ant(name: str) -> None:
    problem = small("ant", "brax", horizon=2).replace(critic=_critic())
    params, noise = drawn(problem, 8)
    options = SMALL.get(name, {})
    samples = E.make(name, **options)(problem, params, noise)
    assert len(samples) == 8 and bool(samples.squared_norms().isfinite().all())


def agreement(problem: Problem, params: dict[str, Tensor], count: int) -> None:
    """FOG and PG have the same mean along that of FOG (from other samples),
    at a false-alarm rate of 1e-6.
    """
    pilot = problem.draw(64, torch.Generator().manual_seed(7))
    mean = E.FOG()(problem, params, pilot).mean()
    found = []
    for seed, estimator in enumerate((E.FOG(), E.PG(baseline="loo", group_size=4))):
        values = []
        for k in range(count // 1024):
            noise = problem.draw(1024, torch.Generator().manual_seed(1000 * seed + k + 100))
            rows = estimator(problem, params, noise).per_sample()
            values.append(sum((rows[n] * mean[n]).flatten(1).sum(1) for n in mean))
        along = torch.cat(values).view(-1, 4).mean(1)  # groups of the baseline
        found.append((float(along.mean()), float(along.std() / len(along) ** 0.5)))
    (a, sa), (b, sb) = found
    error = math.hypot(sa, sb)
    assert abs(a - b) < 4.9 * error, found
    assert error < 0.1 * abs(a), f"too few samples to tell: {found}"


@pytest.mark.slow
@pytest.mark.statistical
def test_fog_and_pg_agree_on_a_relaxed_ant() -> None:
    """Survival is the only thing that matters much here: the fall is relaxed and near."""
    problem = small("ant", "dflex", horizon=2, hidden=4, contact="smoothed", fall=0.7)
    problem = problem.relaxed(0.5)
    agreement(problem, drawn(problem, 1)[0], 32768)


# --- finite gradients -----------------------------------------------------------------------------


def reached(problem: Problem) -> tuple[Tensor, Tensor]:
    """States of episodes of a fresh policy, and whether they are alive there; finite ones only."""
    params, noise = drawn(problem, 24, 3)
    with torch.no_grad():
        path = gradlab.rollout(problem, problem.bind(params), noise)
        alive = evaluate(problem, path).alive > 0
    state, alive = path.state.flatten(0, 1), alive.flatten()
    kept = state.isfinite().all(-1)
    return state[kept], alive[kept]


def thrown(simulator: Articulated, count: int, speed: float) -> Tensor:
    """Any attitude close to the ground, joints within their ranges,
    velocities of this size; float32.
    """
    model, rng = simulator.model, np.random.default_rng(4)
    qpos = np.tile(model.qpos0, (count, 1))
    for limit in model.limits:
        qpos[:, limit.qpos] = rng.uniform(limit.low, limit.high, count)
    if model.nq > model.nv:  # a free root
        qpos[:, 2] = rng.uniform(0.4, 0.9, count)
        turn = rng.normal(size=(count, 4))
        qpos[:, 3:7] = turn / np.linalg.norm(turn, axis=1, keepdims=True)
    else:
        qpos[:, 1] = model.qpos0[1] - rng.uniform(0, 0.5, count)
        qpos[:, 2] = rng.uniform(-np.pi, np.pi, count)
    state = np.concatenate((qpos, rng.normal(scale=speed, size=(count, model.nv))), 1)
    return simulator.start(torch.tensor(state, dtype=torch.float32))


def lost(simulator: Articulated, states: Tensor) -> Tensor:
    """Whether the state a control period later, or its gradient, is not finite."""
    generator, found = torch.Generator().manual_seed(5), []
    for state in states.split(128):
        leaf = state.clone().requires_grad_()
        action = torch.rand(len(state), simulator.action_dim, generator=generator) * 2 - 1
        action = action.to(state).requires_grad_()
        after = simulator.step(leaf, action, state[:, :0])
        weights = torch.randn(after.shape, generator=generator).to(state)
        gradients = torch.autograd.grad((after * weights).sum(), (leaf, action))
        found.append(~torch.cat((after, *gradients), -1).isfinite().all(-1))
    return torch.cat(found)


@pytest.mark.slow
@pytest.mark.parametrize("contact", ["compliant", "smoothed", "convex", "brax"])
@pytest.mark.parametrize(("name", "preset"), EVERY)
def test_gradients_of_a_control_period_are_finite(name: str, preset: str, contact: str) -> None:
    """Whole control periods of what ships, float32: none is lost where a policy gets alive.

    States after the end of an episode, and bodies thrown into the ground, are counted and told.
    """
    problem = small(name, preset, 32, contact=contact, dtype=torch.float32)
    simulator = problem.simulator
    assert isinstance(simulator, Articulated)
    state, alive = reached(problem)
    bad = lost(simulator, state)
    counts = [f"{int((bad & alive).sum())} of {int(alive.sum())} alive"]
    counts.append(f"{int((bad & ~alive).sum())} of {int((~alive).sum())} after the end")
    for speed in (1.0, 10.0):
        flown = lost(simulator, thrown(simulator, 300, speed))
        counts.append(f"{int(flown.sum())} of 300 thrown at {speed:g}")
    print(f"\n{name} {preset} {contact}: {', '.join(counts)} not finite")
    assert not (bad & alive).any()


# --- survival rewards -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Surviving(Swing):
    """The toy, with rewards for not having crashed, and for not having passed."""

    @property
    def events(self) -> tuple[Event, ...]:
        passing, crash, goal = super().events
        crash = dataclasses.replace(crash, survival=3.0)
        return dataclasses.replace(passing, survival=0.7), crash, goal


def surviving(width: float | None) -> tuple[Problem, dict[str, Tensor]]:
    problem = toy_problem().replace(task=Surviving())
    return problem if width is None else problem.relaxed(width), toy_params(problem)


@pytest.mark.parametrize("width", [None, 0.2])
def test_survival_is_paid_until_its_event_happens(width: float | None) -> None:
    """c·(1 − Step(M_t)), weighted by the survival of the other terminations;
    nothing else changes.
    """
    problem, params = surviving(width)
    noise = problem.draw(200, torch.Generator().manual_seed(3))
    path = gradlab.rollout(problem, problem.bind(params), noise)
    got = evaluate(problem, path)
    plain = evaluate(problem.replace(task=Swing()), path)
    happened = problem.event_step(got.running)
    others = 1 - problem.event_step(got.running[..., 2])  # the goal
    started = torch.cat((torch.ones_like(others[..., :1]), others[..., :-1]), -1)
    weight = (got.alive[..., :-1], started)
    extra = sum(
        c * w * (1 - happened[..., i])
        for i, (c, w) in enumerate(zip((0.7, 3.0), weight, strict=True))
    )
    torch.testing.assert_close(got.value - plain.value, extra * problem.discounts[:-1])
    if width is None:
        # a survivor earns it in every step, the step of the crash does not
        crashed = happened[..., 1].bool()
        assert 0.05 < float(crashed[:, -1].double().mean()) < 0.95
        paid = (got.reward - plain.reward) - 0.7 * (1 - happened[..., 0])
        torch.testing.assert_close(paid, 3.0 * (~crashed).double())


def test_survival_is_the_same_one_step_at_a_time() -> None:
    problem, params = surviving(0.2)
    noise = problem.draw(50, torch.Generator().manual_seed(3))
    path = gradlab.rollout(problem, problem.bind(params), noise)
    whole = evaluate(problem, path)
    now = moment_at(path, whole, 0)
    for t in range(problem.horizon):
        now = now._replace(state=path.state[:, t], memory=path.memory[:, t])
        step = evaluate_step(
            problem, now, path.action[:, t], path.state[:, t + 1], path.process[:, t]
        )
        torch.testing.assert_close(step.reward, whole.reward[:, t])
        total = sum(step.terms.values()) + sum(step.bonuses.values())
        torch.testing.assert_close(step.reward, total)
        now = step.end


def test_fog_and_pg_agree_with_relaxed_survival() -> None:
    problem, params = surviving(0.3)
    agreement(problem, params, 32768)


# --- what renderers use ---------------------------------------------------------------------------


def test_the_centre_of_mass_is_mujocos() -> None:
    model = variant("humanoid", "gymnasium").model
    data = mujoco.MjData(model.compiled)
    qpos = torch.randn(24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data.qpos[:] = qpos
    mujoco.mj_forward(model.compiled, data)
    np.testing.assert_allclose(CentreOfMass(model)(qpos), data.subtree_com[0], atol=1e-12)


@pytest.mark.parametrize("name", runners.RUNNERS)
def test_shapes_are_where_mujoco_has_them(name: str) -> None:
    simulator = gradlab.make(name, contact="compliant").simulator
    assert isinstance(simulator, Articulated)
    m = simulator.mjcf_model()
    data = mujoco.MjData(m)
    state = torch.randn(2, simulator.state_dim, generator=torch.Generator().manual_seed(0)).double()
    ends, radii = simulator.shapes(state)
    moving = [g for g in range(m.ngeom) if m.geom_bodyid[g] > 0]
    assert ends.shape == (2, len(moving), 2, 3) and radii.shape == (len(moving),)
    data.qpos[:] = state[1, : m.nq]
    mujoco.mj_forward(m, data)
    np.testing.assert_allclose(ends[1].mean(1), data.geom_xpos[moving], atol=1e-12)
    capsule = m.geom_type[moving] == mujoco.mjtGeom.mjGEOM_CAPSULE
    length = (ends[1, :, 1] - ends[1, :, 0]).norm(dim=-1)
    np.testing.assert_allclose(length, 2 * m.geom_size[moving, 1] * capsule, atol=1e-12)
    np.testing.assert_array_equal(radii, m.geom_size[moving, 0])
