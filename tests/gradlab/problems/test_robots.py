"""`gradlab.robot`: from a file to a problem, for the feature mixtures of known robots."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

import estimators
import gradlab
from gradlab.commands import compare
from gradlab.foundation.errors import BadValue, Missing, UnknownName
from gradlab.problems.robots import scaled_controls
from gradlab.simulators.articulated import Articulated, Convex, from_string
from gradlab.simulators.articulated.places import place_of
from tests.gradlab.simulators.test_actuators import played, stepped
from tests.helpers.forked import run_code
from tests.helpers.robots import MIXTURES

DOUBLE = {"dtype": torch.float64}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", MIXTURES)
def test_every_mixture_is_mujocos_for_fifty_steps(name: str) -> None:
    """From the keyframe, under controls in and beyond their ranges."""
    model = from_string(MIXTURES[name])
    m = model.compiled
    rng = np.random.default_rng(4)
    state = np.concatenate((m.key_qpos[0], 0.1 * rng.normal(size=m.nv)))
    middle = m.key_ctrl[0] if m.key_ctrl.any() else np.zeros(m.nu)
    controls = torch.tensor(middle + 0.3 * rng.normal(size=(50, m.nu)))
    ours = played(Articulated(model, Convex()), torch.tensor(state), controls)
    wanted = stepped(model, torch.tensor(state), controls)
    error = (ours - wanted).abs().max() / (wanted - torch.tensor(state)).abs().max()
    assert error < (1e-7 if name == "go1" else 1e-9)  # go1's constraints are firm


def test_it_is_as_in_the_file() -> None:
    problem = gradlab.robot(MIXTURES["iiwa14"], "reach", **DOUBLE)
    simulator: Any = problem.simulator
    assert (simulator.integrator, simulator.dt, simulator.substeps) == ("implicitfast", 0.02, 5)
    start, _ = problem.task.initial(torch.zeros(problem.task.initial_dim, **DOUBLE))
    assert start[:6].tolist() == [0, -1.5, 1.5, -1.5, -1.5, 0]
    assert isinstance(simulator.contact, Convex)
    assert gradlab.robot(MIXTURES["iiwa14"], substeps=2).simulator.dt == pytest.approx(0.008)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["fr3", "spot", "h1"])
def test_actions_are_shares_of_the_control_ranges(name: str) -> None:
    """The step is that of the file's model under the control m + h a; clamped beyond ±1."""
    model = from_string(MIXTURES[name])
    low, high = torch.tensor(model.control_range).unbind(-1)
    scaled = Articulated(scaled_controls(model), Convex())
    plain = Articulated(model, Convex())
    state = torch.tensor(np.concatenate((model.compiled.key_qpos[0], np.zeros(model.nv))))
    for seed in range(3):
        action = 1.2 * torch.randn(model.nu, generator=generator(seed), **DOUBLE)
        control = (low + high) / 2 + action * (high - low) / 2
        one = scaled.step(state, action, action[:0])
        torch.testing.assert_close(
            one, plain.step(state, control, action[:0]), rtol=1e-9, atol=1e-11
        )


def test_to_stand_an_action_of_0_is_the_keyframes_control() -> None:
    """Which holds the posture; the farther end of a range is an action of 1 or of −1."""
    model = from_string(MIXTURES["fr3"])
    home = torch.tensor(model.compiled.key_ctrl[0])
    low, high = torch.tensor(model.control_range).unbind(-1)
    assert bool((home != (low + high) / 2).any())
    plain = Articulated(model, Convex(), substeps=10)
    for task, middle in (("stand", home), ("reach", (low + high) / 2)):
        problem = gradlab.robot(MIXTURES["fr3"], task, substeps=10, **DOUBLE)
        state = torch.tensor(problem.task.start).to(**DOUBLE)  # type: ignore[attr-defined]
        state = torch.cat((state, torch.zeros(model.nv, **DOUBLE)))
        half = torch.maximum(high - middle, middle - low)
        for action in (
            torch.zeros(model.nu, **DOUBLE),
            torch.ones(model.nu, **DOUBLE),
            -half / half,
        ):
            control = (middle + action * half).clamp(low, high)
            found, known = (
                simulator.step(state, one, action[:0])
                for simulator, one in ((problem.simulator, action), (plain, control))
            )
            torch.testing.assert_close(found, known, rtol=1e-9, atol=1e-11)
    outside = scaled_controls(model, (90.0, *map(float, home[1:])))
    np.testing.assert_array_equal(outside.bias, scaled_controls(model).bias)


def test_a_servo_without_a_control_range_has_its_joints() -> None:
    xml = """<mujoco><compiler angle="radian" autolimits="true"/><worldbody><body><joint name="j" range="-1 2"/>
    <geom size=".1"/></body></worldbody><actuator><position joint="j" kp="10" gear="-2"/><motor joint="j"/></actuator></mujoco>"""
    model = scaled_controls(from_string(xml))
    np.testing.assert_allclose(model.gain[:, 0], [10 * 3, 1])
    np.testing.assert_allclose(model.bias[:, 0], [10 * -1, 0])
    assert model.control_range.tolist() == [[-1, 1], [-np.inf, np.inf]]


def test_places_are_mujocos() -> None:
    model = from_string(MIXTURES["go1"])
    data = mujoco.MjData(model.compiled)
    rng = np.random.default_rng(0)
    data.qpos[:] = model.qpos0 + 0.3 * rng.normal(size=model.nq)
    data.qpos[3:7] /= np.linalg.norm(data.qpos[3:7])
    mujoco.mj_forward(model.compiled, data)
    qpos = torch.tensor(data.qpos)
    calf = place_of(model, "RL_calf")(qpos)
    np.testing.assert_allclose(calf[:, 3], data.body("RL_calf").xpos, atol=1e-12)
    np.testing.assert_allclose(calf[:, :3].flatten(), data.body("RL_calf").xmat, atol=1e-12)
    np.testing.assert_allclose(
        place_of(model, "imu")(qpos)[:, 3], data.site("imu").xpos, atol=1e-12
    )


# -------------------------------------------------------------------------------------------- tasks

CASES = [("fr3", "reach"), ("fr3", "track"), ("fr3", "stand"), ("go1", "stand"), ("h1", "run")]


@pytest.mark.parametrize(("name", "task"), CASES)
def test_engines_agree_and_gradients_are_differences(name: str, task: str) -> None:
    problem = gradlab.robot(MIXTURES[name], task, horizon=2, substeps=2, hidden=(8,), **DOUBLE)
    params, noise = problem.init(generator()), problem.draw(3, generator(1))
    fast = estimators.FOG()(problem, params, noise).per_sample()
    slow = estimators.FOG(engine="vmap")(problem, params, noise).per_sample()
    way = {n: torch.randn(w.shape, generator=generator(2), **DOUBLE) for n, w in params.items()}
    for leaf in fast:
        torch.testing.assert_close(fast[leaf], slow[leaf], rtol=1e-7, atol=1e-9)

    def returns(sign: int) -> torch.Tensor:
        moved = {n: w + sign * 1e-6 * way[n] for n, w in params.items()}
        path = gradlab.rollout(problem, problem.bind(moved), noise)
        return gradlab.evaluate(problem, path).value.sum(-1)

    slope = sum((fast[n] * way[n]).flatten(1).sum(1) for n in params)
    difference = (returns(1) - returns(-1)) / 2e-6
    assert slope.abs().max() > 0
    torch.testing.assert_close(slope, difference, rtol=2e-4, atol=1e-6)


def test_reach_has_goals_that_can_be_reached() -> None:
    problem = gradlab.robot(MIXTURES["fr3"], "reach", turning=0.5, place="flange", **DOUBLE)
    task: Any = problem.task
    drawn = task.draw_initial(50, generator())
    state, goal = task.initial(drawn)
    assert problem.task.observation_dim == 14 + 24 and goal.shape == (50, 12)
    rotation = goal[:, 3:].unflatten(-1, (3, 3))
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3, **DOUBLE).expand(50, 3, 3))
    away = (goal[:, :3] - task.place(state[:, :7])[..., 3]).norm(dim=-1)
    assert 0.05 < away.median() < 1.5
    # where the body is at its goal the terms are their best and the event has happened
    there = gradlab.tasks.Transition(state[:, None], drawn[:, None, :7] * 0, state[:, None],
                                     task._flat(task.place(state[:, :7]))[:, None], torch.zeros(1))  # fmt: skip
    terms = task.terms(there)
    torch.testing.assert_close(sum(terms.values()), torch.ones(50, 1, **DOUBLE))
    assert (task.margins(there) == 1).all()


def test_who_lies_has_fallen_and_who_stands_has_not() -> None:
    task: Any = gradlab.robot(MIXTURES["go1"], "stand", **DOUBLE).task
    up = torch.tensor([*task.start, *[0.0] * task.nv], **DOUBLE)
    low, leaning = up.clone(), up.clone()
    low[2] = 0.1
    leaning[3:7] = torch.tensor([0.7, 0.7, 0.0, 0.0])
    states = torch.stack((up, low, leaning))[:, None]
    margins = task.margins(
        gradlab.tasks.Transition(states, states[..., :12], states, states[..., :0], 0)
    )
    assert (margins[:, 0, 0] > 0).tolist() == [False, True, True]
    assert task.events[0].name == "fallen" and task.events[0].terminates
    assert gradlab.robot(MIXTURES["fr3"], "stand").task.events == ()


def test_track_follows_its_path() -> None:
    task: Any = gradlab.robot(
        MIXTURES["fr3"], "track", radius=0.2, period=1.0, axes=(1, 2), **DOUBLE
    ).task
    steps = torch.arange(51, **DOUBLE)
    path = task.goal(steps)
    torch.testing.assert_close(path[0], path[50])
    assert (path[:, 0] == path[0, 0]).all()
    assert (path[:, 1] - path[0, 1]).max() == pytest.approx(0.2, rel=0.01)


# ------------------------------------------------------------------------- who else can run with it


def test_it_is_a_problem_for_files_environments_and_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "dog.xml"
    file.write_text(MIXTURES["h1"])
    made = gradlab.make(str(file), task="run", horizon=2, hidden=(4,))
    assert (made.name, made.horizon, type(made.task).__name__) == ("dog run", 2, "Run")
    assert gradlab.make(str(file)).task.name == "stand"
    hinge = tmp_path / "hinge.xml"
    hinge.write_text(HINGE)
    compare.run([str(hinge), "--task", "stand", "--estimators", "fog", "pg", "--count", "40",
                 "--batch", "10", "--most", "200"])  # fmt: skip
    assert "cosine" in capsys.readouterr().out


BOX_FIRST = """<mujoco model="table"><worldbody><body name="box"><freejoint/><geom size=".1"/></body>
<body name="arm" pos="1 0 0"><joint name="j" axis="0 1 0"/><geom size=".1" pos=".3 0 0"/><body name="hand" pos=".3 0 0">
<joint axis="0 1 0"/><geom size=".1" pos=".3 0 0"/></body></body>
<body name="r1" pos="3 0 0"><joint/><geom size=".1" pos=".3 0 0"/><body><joint/><geom size=".1" pos=".3 0 0"/><body name="rope">
<joint/><geom size=".1" pos=".3 0 0"/></body></body></body></worldbody>
<actuator><motor joint="j" ctrlrange="-2 6"/></actuator></mujoco>"""


def test_tasks_are_about_what_has_actuators() -> None:
    """Neither the box before the arm nor the passive rope, which is longer; the box is seen."""
    for task, link in (("stand", 1), ("reach", 2), ("track", 2)):
        built: Any = gradlab.robot(BOX_FIRST, task).task
        assert (built.place.link, built.unseen) == (link, 0)


def test_goals_are_where_actuators_can_bring_a_body() -> None:
    """What has no actuator stays: the box, the hand's hinge, the rope."""
    task: Any = gradlab.robot(BOX_FIRST, "reach").task
    moved = [k for k, (low, high) in enumerate(zip(task.low, task.high, strict=True)) if low < high]
    assert moved == [7]  # of the joint "j", behind the box's seven numbers


def test_control_ranges_scale_where_their_clamp_is_disabled() -> None:
    flag = '<option><flag clampctrl="disable"/></option><worldbody>'
    model = from_string(BOX_FIRST.replace("<worldbody>", flag))
    simulator = Articulated(scaled_controls(model), Convex())
    zeros = torch.zeros(3, model.nq + model.nv, **DOUBLE)
    forces = simulator.actuation(
        torch.tensor([[-1.0], [0.0], [2.0]], **DOUBLE), zeros[:, : model.nq], zeros[:, model.nq :]
    )
    assert forces[:, 6].tolist() == [-2, 2, 10]


@pytest.mark.parametrize("damping", [0.0, 30.0])
@pytest.mark.parametrize("integrator", ["explicit_damping", "implicit_damping", "implicitfast"])
def test_servos_that_are_too_stiff_are_told_where_they_diverge(
    damping: float, integrator: str
) -> None:
    """A slide of 1 kg at steps of 0.01 s: just below the bound it stays, just above it leaves."""
    h = 0.01
    part = {"implicitfast": 1.0}.get(integrator, -1.0)  # h² k = 4 m + 2 h c, or − 2 h c
    bound = (4 + part * 2 * h * damping) / h**2
    for share, far in ((0.97, False), (1.03, True)):
        xml = f"""<mujoco model="slide"><option gravity="0 0 0"/><worldbody><body>
        <joint name="j" type="slide" axis="1 0 0"/><geom size=".1" mass="1"/></body></worldbody>
        <actuator><position joint="j" kp="{share * bound}" kv="{damping}"/></actuator></mujoco>"""
        model = from_string(xml)
        options: dict = {"integrator": integrator, "dt": h, "substeps": 1}
        simulator = Articulated(model, Convex(), **options)
        state = torch.tensor([1e-3, 0.0], **DOUBLE)
        for _ in range(200):
            state = simulator.step(state, torch.zeros(1, **DOUBLE), state[:0])
        assert (not bool(state.abs().max() < 10)) == far
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            gradlab.robot(xml, **options)
        assert len(said) == far
        if far:
            words = str(said[0].message)
            assert "the servos of slide are 1" in words and "\n" not in words
            assert words.endswith('integrator="implicitfast", or dt=0.01 with substeps=2')


def test_a_keyframe_gives_the_start_its_velocity() -> None:
    key = '<keyframe><key/><key name="going" qpos=".2" qvel="3"/></keyframe></mujoco>'
    xml = HINGE.replace("</mujoco>", key)
    for task in ("reach", "track", "stand"):
        resting, going = (
            gradlab.robot(xml, task, keyframe=k, **DOUBLE).task for k in (None, "going")
        )
        zeros = torch.zeros(going.initial_dim, **DOUBLE)
        assert going.initial(zeros)[0].tolist() == [0.2, 3.0]
        assert resting.initial(zeros)[0].tolist() == [0.0, 0.0]


def test_integrators_by_mujocos_words_and_a_policy_of_the_sizes(tmp_path: Path) -> None:
    off = HINGE.replace("/>", '><flag eulerdamp="disable"/></option>', 1)
    names = {"Euler": "implicit_damping", "RK4": "rk4", "implicitfast": "implicitfast"}
    for word, ours in names.items():
        assert gradlab.robot(HINGE, integrator=word).simulator.integrator == ours  # type: ignore[attr-defined]
    assert gradlab.robot(off, integrator="Euler").simulator.integrator == "explicit_damping"  # type: ignore[attr-defined]
    (tmp_path / "hinge.XML").write_text(HINGE)
    sizes = []

    def policy(*given: int) -> gradlab.GaussianPolicy:
        sizes.append(given)
        return gradlab.GaussianPolicy(hidden=(3,))

    problem = gradlab.make(str(tmp_path / "hinge.XML"), policy=policy)
    assert problem.policy.hidden == (3,) and sizes == [(2, 1)]  # type: ignore[attr-defined]


HINGE = """<mujoco model="hinge"><option timestep="0.02"/><worldbody><body><joint name="j" damping=".1"/>
<geom size=".1" pos="0 0 -.3"/></body></worldbody><actuator><position joint="j" kp="5" ctrlrange="-1 1"/></actuator></mujoco>"""


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: gradlab.robot("no.xml"), Missing, "no MJCF file at no.xml"),
        (lambda: gradlab.robot("no\nsuch " + "file" * 2000), Missing, "no MJCF file at no such file"),
        (lambda: gradlab.robot("\n<robot>\n</robot>"), BadValue, "without joints"),
        (lambda: gradlab.robot(3), BadValue, "got int; try gradlab.robot"),
        (lambda: gradlab.robot(HINGE, "jump"), UnknownName, "task of a robot: 'jump'; known: reach"),
        (lambda: gradlab.robot(HINGE, keyframe="up"), BadValue, "hinge has no keyframes"),
        (lambda: gradlab.robot(MIXTURES["go1"], keyframe="up"), UnknownName, "keyframe of dog: 'up'"),
        (lambda: gradlab.robot(MIXTURES["go1"], keyframe=True), UnknownName, "keyframe of dog: 'True'"),
        (lambda: gradlab.robot(HINGE, gradlab.robot(HINGE).task, place="x"), BadValue, "place is for tasks"),
        (lambda: gradlab.robot(HINGE, gradlab.robot(HINGE).task, keyframe=0), BadValue, "keyframe is for"),
        (lambda: gradlab.robot(from_string(HINGE), simplify=["x"]), BadValue, "simplify is for files"),
        (lambda: gradlab.robot(HINGE, hidden=(3,), policy=gradlab.GaussianPolicy()), BadValue, "give one of"),
        (lambda: gradlab.robot(HINGE, control_cost=float("nan")), BadValue, "control_cost should be finite"),
        (lambda: gradlab.robot(HINGE, "reach", place="tol"), UnknownName, "body or site of hinge: 'tol'"),
        (lambda: gradlab.robot(HINGE, "reach", place="world"), BadValue, "fixed to the world"),
        (lambda: gradlab.robot(HINGE, "run"), BadValue, "cannot run, its base is hinged"),
        (lambda: gradlab.robot(HINGE.replace("<joint", "<joint type='slide' axis='0 1 0'"), "run"), BadValue,
         "cannot run, its base cannot move along x"),
        (lambda: gradlab.robot(HINGE, "reach", turn=1), UnknownName, "option of robot: 'turn'; did you"),
        (lambda: gradlab.robot(HINGE, "reach", low=(1,)), UnknownName, "option of robot: 'low'"),
        (lambda: gradlab.robot(HINGE.split("<actuator>")[0] + "</mujoco>"), BadValue, "no actuators"),
        (lambda: gradlab.make("hovering", task="stand"), BadValue, "robots of MJCF files"),
        (lambda: gradlab.robot(HINGE, fall=2.0), BadValue, "fall within"),
        (lambda: gradlab.robot(HINGE, "track", axes=(0, 3)), BadValue, "axes should be two"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words.replace("(", r"\(")) as caught:
        call()
    assert "\n" not in str(caught.value)


UNCHECKED = """
import sys
import gradlab

cases = {
    "task should be one of reach, track": [{"task": 3}, {"task": None}],
    "simplify should be names": [{"simplify": 3}, {"simplify": None}],
    "contact should be a law": [{"contact": "convex"}],
    "whole substeps >= 1": [{"substeps": 1.5}],
    "dt [s] should be one number": [{"dt": "x"}],
    "axes should be two": [{"task": "track", "axes": 3}],
    "turning should be one number": [{"task": "reach", "turning": "x"}],
}
for words, given in cases.items():
    for options in given:
        try:
            gradlab.robot(sys.argv[1], **options)
        except gradlab.errors.BadValue as error:
            assert words in str(error), error
        else:
            raise AssertionError(options)
"""


def test_options_of_other_types_are_one_line() -> None:
    """In a process without the tests' checks of annotations."""
    done = run_code(UNCHECKED, HINGE)
    assert done.returncode == 0, done.stderr
