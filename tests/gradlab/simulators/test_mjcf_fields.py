"""Every field of a compiled MuJoCo model is refused, or simulated as MuJoCo does.

One rich model inside the subset; one number of one field is changed at a time. Then `from_mujoco`
refuses the model, or one step of the file agrees with MuJoCo's in states that touch, press and
exceed ranges. What cannot be changed alone is listed with the reason; a field of MuJoCo that is in
no list fails.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import mujoco
import numpy as np
import pytest
import torch

from gradlab.foundation.errors import BadValue
from gradlab.simulators.articulated import Articulated, Convex, Model, from_mujoco

RICH = """<mujoco model="rich">
<compiler autolimits="true"/>
<option timestep="0.004" gravity="0.3 -0.2 -9" impratio="1.7"/>
<size nuser_body="1" nuser_jnt="1" nuser_geom="1" nuser_site="1" nuser_tendon="1" nuser_actuator="1"
 nuser_sensor="1" nuser_cam="1"/>
<visual><global offwidth="64"/></visual>
<asset>
 <texture name="tex" type="2d" builtin="checker" width="4" height="4"/>
 <material name="mat" texture="tex" specular=".3"/>
 <mesh name="mesh" vertex="0 0 0 .1 0 0 0 .1 0 0 0 .1"/>
 <hfield name="hills" nrow="2" ncol="2" size=".1 .1 .1 .1" elevation="0 1 1 0"/>
</asset>
<worldbody>
 <light name="sun" pos="0 0 3"/>
 <camera name="eye" pos="0 -2 1"/>
 <geom name="floor" type="plane" size="3 3 1" pos=".1 .2 .02" euler="2 3 4" condim="3" friction=".8"
  margin=".01" gap=".02" contype="3" conaffinity="0" material="mat"/>
 <geom name="hill" type="hfield" hfield="hills" contype="0" conaffinity="0"/>
 <body name="box" pos=".02 .03 .35" quat=".9 .1 .2 .1">
  <freejoint name="root"/>
  <geom name="crate" type="box" size=".1 .15 .2" pos=".02 -.03 .04" euler="10 20 30" contype="0" conaffinity="2"
   density="300" friction=".5" solref=".015 .9" solimp=".8 .95 .02 .4 2.5" margin=".02"/>
  <geom name="ornament" type="mesh" mesh="mesh" contype="0" conaffinity="0" density="200" pos=".1 .05 0"/>
  <site name="spot" pos=".1 0 0"/>
 </body>
 <body name="upper" pos=".6 .1 .7" euler="20 10 5">
  <joint name="swing" axis=".3 1 .2" pos=".01 .02 .03" range="-30 40" margin=".03" damping=".3" armature=".05"
   stiffness="2" springref="10" ref="5" actuatorfrcrange="-2 1.5" solreflimit=".03 .8" solimplimit=".7 .9 .05 .3 2"/>
  <geom name="arm" type="capsule" size=".06 .2" pos=".02 .01 -.2" euler="12 0 9" density="700" solmix="2"/>
  <body name="lower" pos=".05 0 -.45" euler="5 30 -10">
   <joint name="push" type="slide" axis=".1 .2 -1" range="-.1 .15" damping=".4" armature=".02" stiffness="30" frictionloss="2"
    springref=".05"/>
   <geom name="tip" type="sphere" size=".09" pos=".01 .02 -.05" density="900" friction=".6" solref=".01 1.1"/>
  </body>
 </body>
 <body name="ball" pos=".6 -.1 .25" euler="30 20 10">
  <joint name="roll" axis="1 .2 .1" armature=".02" damping=".1" frictionloss=".3" solreffriction=".03 .9" solimpfriction=".7 .9 .01"/>
  <joint name="lift" type="slide" axis="0 .3 1" damping=".2"/>
  <geom name="pebble" type="sphere" size=".12" pos=".03 .02 .01" density="500" condim="1" priority="1" solref="-400 -30"/>
 </body>
</worldbody>
<contact><exclude body1="box" body2="ball"/></contact>
<tendon><fixed name="idle"><joint joint="swing" coef="1"/></fixed></tendon>
<actuator>
 <general name="strong" joint="swing" gainprm="3" gear="1.7" ctrlrange="-.6 .5" forcerange="-1.1 1.2"/>
 <motor name="slider" joint="push" gear="-4" ctrlrange="-.9 .9" group="2" damping=".2" armature=".01"/>
 <general name="free" joint="lift" gainprm="-2" gear="3" forcerange="-1 .7" damping=".1"/>
 <motor name="second" joint="lift" gear=".5" ctrlrange="-1 1" armature=".4"/>
 <position name="turn" joint="roll" kp="3" kv=".4" gear="1.2" ctrlrange="-.8 .7" forcerange="-2.5 2"/>
 <general name="all" joint="push" gaintype="affine" gainprm="1.5 .4 -.3" biastype="affine" biasprm=".2 -2 -.3"
  gear=".8" forcerange="-3 3"/>
</actuator>
<sensor><accelerometer site="spot"/><jointpos joint="swing" noise=".1"/></sensor>
<keyframe><key name="home"/></keyframe>
<custom><numeric name="n" data="1 2"/><text name="t" data="x"/><tuple name="u"><element objtype="body" objname="box" prm="1"/></tuple></custom>
</mujoco>"""

# What cannot be changed alone, by why. Fields of all kinds first, then integers only.
APART = {
    r"(flex|flexedge|eq|pair|skin|wrap|efm0|oct)_.*|key_(act|mpos|mquat|plastic)|plugin_attr|mesh_texcoord": "empty "
    "here: refused when there are any, drawn only, or parts of what is refused",
    r"geom_aabb|bvh_aabb|body_margin": "bounds by which MuJoCo skips pairs, computed from sizes and margins",
    r"body_subtreemass": "sum of body_mass, by which MuJoCo divides",
    r"opt.(tolerance|ls_tolerance|iterations|ls_iterations|solver)": "how near MuJoCo's own solver comes to what is "
    "solved here to the end",
}
ADDRESSES = {
    r".*(adr|num|id|nnz|colind|_perm|parentid|sameframe|_simple|simplenum|history|_map)\d?|names_map|map[MD]2[MD]|"
    r"[BMD]_.*|efm.*|plugin.*|bvh_(child|depth)|exclude_signature|actuator_plugin": "addresses and findings of the "
    "compiler, by which MuJoCo itself finds its memory",
    r"body_contype|body_conaffinity": "of all geoms of a body together: changed with them",
    r"(cam|light|mat|tex|site|mesh|hfield|sensor|text|tuple|numeric|tendon)_.*|.*_(plugin|group)": "drawn, "
    "measured, stored or refused with the arrays of the same element",
    r"actuator_ctrlspec": "of gain types that are refused",
}
# integers that are choices, and the other choices
CHOICES: dict[str, tuple[int, ...]] = {
    "jnt_type": (1, 2, 3),
    "geom_type": (0, 2, 3, 4, 5, 6),
    "geom_condim": (1, 3, 4, 6),
    "geom_contype": (0, 1, 2, 3),
    "geom_conaffinity": (0, 1, 2, 3),
    "geom_priority": (0, 1, 2),
    "actuator_trntype": (0, 1, 3, 4, 5),
    "actuator_dyntype": (0, 1, 2, 3, 4),
    "actuator_gaintype": (0, 1, 2),
    "actuator_biastype": (0, 1, 2),
    "actuator_group": (0, 1, 2),
    "tree_sleep_policy": (0, 1, 2, 3, 4, 5),
    "opt.integrator": (0, 1, 2, 3, 4),
    "opt.cone": (0, 1),
    "opt.jacobian": (0, 1, 2),
    "opt.disableflags": tuple(1 << k for k in range(int(mujoco.mjtDisableBit.mjNDISABLE))),
    "opt.enableflags": tuple(1 << k for k in range(int(mujoco.mjtEnableBit.mjNENABLE))),
    "opt.disableactuator": (1, 2, 4, 7),
    "opt.noslip_iterations": (1,),
    "opt.ccd_iterations": (1,),
    "opt.sdf_initpoints": (1,),
    "opt.sdf_iterations": (1,),
}
# lengths one: a number changed alone would leave them
UNIT = {"body_quat", "body_iquat", "geom_quat", "jnt_axis", "mesh_quat"}
AGREE = 1e-8  # relative; both solve to the end
COUNT = 6  # states
SAMPLE = 25  # changes of the quick test
# what once was taken for something else
SLIPPED = (
    ("actuator_forcerange", (0, 1), 0.4),
    ("actuator_gainprm", (0, 0), -7.0),
    ("actuator_dampingpoly", (1, 0), 1.0),
    ("actuator_damping", (1,), 0.6),
    ("actuator_armature", (1,), 0.02),
    ("geom_gap", (5,), -0.05),
    ("opt.integrator", (0,), 1),
    ("opt.integrator", (0,), 2),
    ("opt.integrator", (0,), 3),
    ("opt.timestep", (0,), 0.007),
    ("opt.disableflags", (0,), int(mujoco.mjtDisableBit.mjDSBL_EULERDAMP)),
    ("opt.disableflags", (0,), int(mujoco.mjtDisableBit.mjDSBL_GRAVITY)),
)


class Change(NamedTuple):
    """One number of one field."""

    field: str
    place: tuple[int, ...]
    value: Any


def rich() -> Any:
    """The model, its solver set to go to the last digit."""
    m = mujoco.MjModel.from_xml_string(RICH)
    m.opt.tolerance, m.opt.ls_tolerance = 0.0, 1e-6
    m.opt.iterations = m.opt.ls_iterations = 200
    return m


def holder(m: Any, field: str) -> tuple[Any, str]:
    return (m.opt, field[4:]) if field.startswith("opt.") else (m, field)


def fields(m: Any) -> list[str]:
    """Arrays of the model, and all options."""
    arrays = [k for k in dir(m) if not k.startswith("_") and isinstance(getattr(m, k), np.ndarray)]
    return arrays + [f"opt.{k}" for k in dir(m.opt) if not k.startswith("_")]


def reason(field: str, dtype: np.dtype) -> str | None:
    """Why a field is not changed; None where it is."""
    if field in CHOICES:
        return None
    tables = (APART,) if dtype.kind in "fb" else (APART, ADDRESSES)
    return next(
        (why for table in tables for name, why in table.items() if re.fullmatch(name, field)), None
    )


def changes(m: Any, field: str) -> Iterator[Change]:
    """Every number of a field, up and down; every choice of every element;
    every switch the other way.
    """
    values = np.atleast_1d(getattr(*holder(m, field)))
    for index in np.ndindex(values.shape):
        old = values[index]
        if field in CHOICES:
            if field == "jnt_type" and old == mujoco.mjtJoint.mjJNT_FREE:
                continue  # the other joints have fewer numbers
            yield from (Change(field, index, c) for c in CHOICES[field] if c != old)
        elif values.dtype.kind == "b":
            yield Change(field, index, not old)
        else:
            size = 0.06 * max(1.0, abs(float(old)))
            yield Change(field, index, float(old) + size)
            yield Change(field, index, -float(old) - size if old else -size)


def changed(m: Any, change: Change) -> Any:
    """A copy with one number changed, and what the compiler derives from it."""
    out = copy.copy(m)
    owner, name = holder(out, change.field)
    if np.ndim(getattr(owner, name)) == 0:
        setattr(owner, name, type(getattr(owner, name))(change.value))
    else:
        getattr(owner, name)[change.place] = change.value
    if change.field in UNIT:
        row = getattr(owner, name)[change.place[0]]
        row /= np.linalg.norm(row)
    if change.field in ("geom_contype", "geom_conaffinity"):
        whole = getattr(out, f"body_{name[5:]}")
        whole[:] = 0
        for body, mask in zip(out.geom_bodyid, getattr(out, name), strict=True):
            whole[body] |= mask
    return out


# --------------------------------------------------------------------------------- both simulators


@lru_cache(maxsize=1)
def situation() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """q, q̇ and controls, in which shapes touch and ranges are exceeded."""
    m = rich()
    rng = np.random.default_rng(3)
    qpos = m.qpos0 + 0.12 * rng.normal(size=(COUNT, m.nq))
    qpos[:, 2] = rng.uniform(0.05, 0.3, size=COUNT)
    qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
    return qpos, rng.normal(size=(COUNT, m.nv)), rng.uniform(-1.2, 1.2, size=(COUNT, m.nu))


def theirs(m: Any) -> np.ndarray:
    """Change of the state per second over one step of MuJoCo: [COUNT, nq + nv]."""
    data, out = mujoco.MjData(m), []
    for qpos, qvel, control in zip(*situation(), strict=True):
        mujoco.mj_resetData(m, data)
        data.qpos[:], data.qvel[:], data.ctrl[:] = qpos, qvel, control
        mujoco.mj_step(m, data)
        out.append(np.concatenate((data.qpos - qpos, data.qvel - qvel)) / m.opt.timestep)
    return np.array(out)


def ours(model: Model) -> np.ndarray:
    """The same here, with the file's integrator and time step."""
    qpos, qvel, control = map(torch.tensor, situation())
    state = torch.cat((qpos, qvel), -1)
    simulator = Articulated(model, Convex())
    return ((simulator.step(state, control, control[:, :0]) - state) / simulator.dt).numpy()


def different(one: np.ndarray, two: np.ndarray) -> float:
    """Largest difference of any state, over the largest entry of that state."""
    return float((np.abs(one - two).max(1) / np.abs(two).max(1)).max())


def equal(one: Model, two: Model) -> bool:
    """Whether all that is simulated is the same."""
    pairs = (
        (getattr(one, f.name), getattr(two, f.name))
        for f in dataclasses.fields(Model)
        if f.name not in ("compiled", "shapes", "left_out")
    )
    same = all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in pairs)
    return same and all(
        (a.kind, a.link, a.size) == (b.kind, b.link, b.size) and np.array_equal(a.pose, b.pose)
        for a, b in zip(one.shapes, two.shapes, strict=True)
    )


@lru_cache(maxsize=1)
def unchanged() -> tuple[Any, Model, np.ndarray, np.ndarray]:
    m = rich()
    model = from_mujoco(m)
    return m, model, ours(model), theirs(m)


def fault(change: Change) -> str | None:
    """What is wrong with one changed number, if anything is."""
    base, model, still, _ = unchanged()
    m = changed(base, change)
    try:
        found = from_mujoco(m)
    except BadValue:
        return None
    result = still if equal(found, model) and not change.field.startswith("opt.") else ours(found)
    error = different(result, theirs(m))
    return None if error < AGREE else f"{change}: off by {error:.1e}"


# -------------------------------------------------------------------------------------------- tests


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo logs some warnings in the current folder."""
    monkeypatch.chdir(tmp_path)


def all_changes() -> list[Change]:
    m = rich()
    dtype = {field: np.asarray(getattr(*holder(m, field))).dtype for field in fields(m)}
    return [c for f in fields(m) if reason(f, dtype[f]) is None for c in changes(m, f)]


def test_every_field_is_in_a_list_or_changed() -> None:
    """A field that a new MuJoCo adds fails here: decide whether it is simulated,
    refused or seen only.
    """
    m = rich()
    for field in fields(m):
        values = np.asarray(getattr(*holder(m, field)))
        if reason(field, values.dtype) is None:
            assert values.size and (values.dtype.kind in "fb" or field in CHOICES), field
    assert CHOICES.keys() <= set(fields(m))


def test_what_once_slipped_through() -> None:
    assert [f for f in (fault(Change(*change)) for change in SLIPPED) if f] == []


def test_the_states_are_telling() -> None:
    """Both simulators agree without a change, and contact and limits act:
    what is simulated moves.
    """
    base, _, still, wanted = unchanged()
    assert different(still, wanted) < AGREE
    for field, index, value in (("geom_friction", (0, 0), 0.9), ("jnt_range", (1, 1), 0.1)):
        assert different(theirs(changed(base, Change(field, index, value))), wanted) > 1e-6


def test_some_changes_are_refused_or_agree() -> None:
    every = all_changes()
    picked = np.random.default_rng(7).choice(len(every), SAMPLE, replace=False)
    assert [f for f in (fault(every[k]) for k in picked) if f] == []


@pytest.mark.slow
def test_all_changes_are_refused_or_agree() -> None:
    every = all_changes()
    print(f"\n{len(every)} changes of {len({c.field for c in every})} fields")
    assert [f for f in map(fault, every) if f] == []
