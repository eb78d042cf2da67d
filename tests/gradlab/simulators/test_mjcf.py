"""From files and texts to models: what is read again, the file's own settings,
switches and clamps.
"""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.simulators.articulated import Articulated, Convex, from_file, from_mujoco, from_string
from tests.helpers.trees import forward, gymnasium_model, reference, states

# gymnasium's humanoid still asks for a total mass in the way that MuJoCo 4.0 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.*settotalmass.*")

ARM = """<mujoco><option {option}/><worldbody><body><joint name="j" damping="{damping}"/>
<geom size=".1" mass="2" pos=".3 0 0"/></body></worldbody><actuator>{motor}</actuator></mujoco>"""


def arm(motor: str = '<motor joint="j"/>', option: str = "", damping: float = 0.0) -> str:
    return ARM.format(motor=motor, option=option, damping=damping)


# -------------------------------------------------------------------------------------- read again

OUTER = """<mujoco><include file="part.xml"/><asset><mesh name="stone" file="stone.obj"/></asset>
<worldbody><body><freejoint/><geom type="mesh" mesh="stone" contype="0" conaffinity="0"/></body></worldbody></mujoco>"""
PART = '<mujoco><option timestep="{step}"/></mujoco>'
STONE = "v 0 0 0\nv {side} 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"


def test_an_edit_of_any_file_that_the_model_reads_is_seen(tmp_path: Path) -> None:
    outer, part, stone = (tmp_path / name for name in ("outer.xml", "part.xml", "stone.obj"))
    outer.write_text(OUTER)
    part.write_text(PART.format(step=0.001))
    stone.write_text(STONE.format(side=1))
    first = from_file(outer)
    assert from_file(outer) is first
    part.write_text(PART.format(step=0.004))
    second = from_file(outer)
    assert (first.timestep, second.timestep) == (0.001, 0.004)
    stone.write_text(STONE.format(side=2))
    third = from_file(outer)
    assert third.inertia[0, 3, 3] == pytest.approx(2 * second.inertia[0, 3, 3])


def test_text_that_includes_a_file_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    xml = arm().replace("<mujoco>", '<mujoco><include file="part.xml"/>').replace("<option />", "")
    for step in (0.001, 0.004):
        Path("part.xml").write_text(PART.format(step=step))
        assert from_string(xml).timestep == step


def test_a_compiled_model_is_copied() -> None:
    compiled = mujoco.MjModel.from_xml_string(arm())
    model = from_mujoco(compiled)
    compiled.opt.timestep = 0.5
    assert model.compiled.opt.timestep == model.timestep != 0.5
    assert from_mujoco(compiled).timestep == 0.5


def test_what_does_not_compile_is_one_line() -> None:
    with pytest.raises(BadValue, match="MuJoCo cannot compile the MJCF text: .*nonsense") as caught:
        from_string("<mujoco><nonsense/></mujoco>")
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------ the file's settings


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('damping=".1"', 'damping="nan"'), "joint 'j': dof_damping is NaN or infinite"),
        (('damping=".1"', 'frictionloss="inf"'), "joint 'j': dof_frictionloss is NaN or infinite"),
        (('damping=".1"', 'limited="true" range="nan 1"'), "joint 'j': jnt_range is NaN"),
        (('damping=".1"', 'limited="true" range="0 inf"'), "joint 'j': a range without end"),
        (('gear="2"', 'gear="inf"'), "actuator 'm': actuator_gear is NaN or infinite"),
        (
            ('ctrlrange="-inf inf"', 'ctrllimited="true" ctrlrange="-1 nan"'),
            "'m': actuator_ctrlrange",
        ),
        (('pos="0 0 1"', 'pos="0 nan 1"'), "body 'b': body_pos is NaN or infinite"),
        (('gravity="0 0 -9"', 'gravity="0 0 nan"'), "the option: gravity is NaN or infinite"),
        (('qpos=".1"', 'qpos="nan"'), "key 'k': key_qpos is NaN or infinite"),
        (('qpos=".1"', 'qvel="inf"'), "key 'k': key_qvel is NaN or infinite"),
    ],
)
def test_numbers_that_are_none_are_refused(change: tuple[str, str], words: str) -> None:
    """MuJoCo's compiler lets them pass, and every state would be NaN."""
    xml = """<mujoco><option gravity="0 0 -9"/><worldbody><body name="b" pos="0 0 1"><joint name="j" damping=".1"/>
    <geom size=".1"/></body></worldbody><actuator><motor name="m" joint="j" gear="2" ctrlrange="-inf inf"/></actuator>
    <keyframe><key name="k" qpos=".1"/></keyframe></mujoco>"""
    from_string(xml)  # infinite ends of control ranges are none
    with pytest.raises(BadValue, match=words):
        from_string(xml.replace(*change))


def test_time_step_and_integrator_are_the_files() -> None:
    model = from_string(arm(option='timestep="0.004" integrator="RK4"'))
    alone = Articulated(model)
    assert (alone.integrator, alone.dt, alone.substeps) == ("rk4", 0.004, 1)
    assert Articulated(model, substeps=5).dt == pytest.approx(0.02)
    assert Articulated(model, dt=0.02).substeps == 5
    given = Articulated(model, integrator="explicit_damping", dt=0.02, substeps=1)
    assert (given.integrator, given.dt, given.substeps) == ("explicit_damping", 0.02, 1)
    with pytest.raises(BadValue, match="no whole number of the file's time steps"):
        Articulated(model, dt=0.021)
    for dt in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(BadValue, match="dt > 0 s"):
            Articulated(model, dt=dt)


def test_mujocos_words_mean_what_mujoco_means() -> None:
    for word, ours in (("Euler", "implicit_damping"), ("implicitfast", "implicitfast")):
        option = f'timestep="0.01" integrator="{word}"'
        assert from_string(arm(option=option)).integrator == ours
    with pytest.raises(BadValue, match="MuJoCo's is 'implicit_damping'"):
        Articulated(from_string(arm()), integrator="euler")


@pytest.mark.parametrize("name", ["ant", "humanoid"])
def test_implicitfast_is_implicit_damping_where_free_bodies_carry_joints(name: str) -> None:
    compiled, _ = reference(gymnasium_model(name))
    compiled.opt.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    compiled.dof_damping[:] *= 5
    model = from_mujoco(compiled)
    qpos, qvel, control = states(model, 5, 3)
    after = Articulated(model, Convex()).step(torch.cat((qpos, qvel), -1), control, control[:, :0])
    data = mujoco.MjData(compiled)
    for k in range(5):
        forward(compiled, data, qpos[k], qvel[k], control[k])
        mujoco.mj_step(compiled, data)
        error = np.abs(after[k, model.nq :].numpy() - data.qvel).max() / np.abs(data.qvel).max()
        assert error < 1e-9


# ------------------------------------------------------------------------------------------- motors


def test_the_force_range_clamps_gain_times_control() -> None:
    motor = '<general joint="j" gainprm="10" gear="2" forcerange="-1 1" ctrlrange="-5 5"/>'
    model = from_string(arm(motor))
    action = torch.tensor([[0.5], [0.05], [-3.0]], dtype=torch.float64, requires_grad=True)
    force = Articulated(model, Convex()).actuation(action)
    assert force.squeeze(-1).tolist() == [2.0, 1.0, -2.0]
    (slope,) = torch.autograd.grad(force.sum(), action)
    assert slope.squeeze(-1).tolist() == [0.0, 20.0, 0.0]
    data = mujoco.MjData(model.compiled)
    for control, wanted in zip(action[:, 0].tolist(), force[:, 0].tolist(), strict=True):
        data.ctrl[0] = control
        mujoco.mj_forward(model.compiled, data)
        assert data.qfrc_actuator[0] == wanted


# ------------------------------------------------------------------------- what is left out by name

MIXED = """<mujoco><option cone="elliptic" impratio="5"/>
<asset><mesh name="rock" vertex="0 0 0 .1 0 0 0 .1 0 0 0 .1"/></asset>
<worldbody><geom name="floor" type="plane" size="3 3 1" condim="6"/>
<body name="one" pos="0 0 .2"><freejoint/><geom name="crate" type="box" size=".1 .1 .1"/>
<geom name="stone" type="mesh" mesh="rock" pos="0 0 .1"/></body>
<body name="two" pos=".12 0 .2"><freejoint/><geom name="ball" size=".1" condim="4"/>
<geom name="tube" type="cylinder" size=".02 .1"/></body></worldbody></mujoco>"""


def test_what_may_be_left_out_is_said_and_left_out() -> None:
    """MuJoCo, of the model that is left, agrees; nothing is left out unasked."""
    with pytest.raises(BadValue, match=r"simplify=\[.friction.\].*simplify=\['contacts'\]"):
        from_string(MIXED)
    with pytest.raises(BadValue, match="elliptic") as caught:
        from_string(MIXED, simplify=["contacts"])
    assert "contact of these two shapes" not in str(caught.value)
    model = from_string(MIXED, simplify=["contacts", "friction"])
    names = [{model.shapes[p.first].name, model.shapes[p.second].name} for p in model.pairs]
    assert sorted(map(sorted, names)) == [["ball", "floor"], ["crate", "floor"]]
    assert {p.dim for p in model.pairs} == {3}
    told = "; ".join(model.left_out)
    for words in (
        "'crate' and geom 'ball'",
        "'stone'",
        "'tube'",
        "pyramidal",
        "condim 3 of geom 'ball', not 4",
    ):
        assert words in told
    compiled, data = reference(model)
    rng = np.random.default_rng(2)
    qpos = torch.tensor(model.qpos0 + 0.02 * rng.normal(size=(5, model.nq)))
    qpos[:, [2, 9]] -= 0.15
    for at in (3, 10):
        qpos[:, at : at + 4] /= qpos[:, at : at + 4].norm(dim=-1, keepdim=True)
    qvel, none = torch.tensor(rng.normal(size=(5, model.nv))), torch.zeros(5, 0).double()
    after = Articulated(model, Convex()).step(torch.cat((qpos, qvel), -1), none, none)
    for k in range(5):
        forward(compiled, data, qpos[k], qvel[k], none[k])
        assert data.nefc > 0
        mujoco.mj_step(compiled, data)
        np.testing.assert_allclose(
            after[k, model.nq :], data.qvel, atol=1e-7 * abs(data.qvel).max()
        )


def test_what_can_be_left_out_has_a_name() -> None:
    with pytest.raises(UnknownName, match="simplification: 'contact'; did you mean contacts"):
        from_string(arm(), simplify=["contact"])
    assert from_string(arm(), simplify=["contacts", "friction"]).left_out == ()
