"""Random MJCF trees inside the subset of `gradlab.simulators.articulated`,
and random states of any model.

Hypothesis draws what there is (bodies, joints, shapes, options), a seeded generator the numbers.
"""

from __future__ import annotations

import copy
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import mujoco
import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from gradlab.simulators.articulated import Model, from_file, gymnasium_asset
from gradlab.simulators.articulated.model import FREE

GYMNASIUM = ("ant", "hopper", "walker2d", "half_cheetah", "humanoid")
# spheres and capsules touch each other and the plane, boxes only the plane
MASKS = {"sphere": (1, 1), "capsule": (1, 1), "box": (0, 2)}


@st.composite
def trees(draw: st.DrawFn, contacts: bool = True) -> str:
    """MJCF text: 1 to 5 bodies with 0 to 3 joints each or a free one, near a tilted plane."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    root = Element("mujoco", model="tree")
    gravity = rng.normal(scale=3, size=3) - [0, 0, 8]
    option = SubElement(root, "option", timestep="0.005", gravity=_text(gravity))
    if draw(st.booleans()):
        option.set("impratio", "2.5")
    world = SubElement(root, "worldbody")
    if contacts:
        tilt = _text(rng.normal(scale=5, size=3))
        mask = {"contype": "3", "conaffinity": "0"}
        plane = SubElement(
            world, "geom", name="floor", type="plane", size="5 5 1", euler=tilt, **mask
        )
        _contact(draw, rng, plane)
    places, joints = [world], []
    for k in range(draw(st.integers(1, 5))):
        parent = places[draw(st.integers(0, len(places) - 1))]
        body = SubElement(parent, "body", name=f"body{k}", pos=_text(rng.normal(scale=0.3, size=3)))
        body.set("quat", _text(rng.normal(size=4)))
        # the first body moves, so that the model has joints
        kind = draw(st.sampled_from(["free", "joints"] if k == 0 else ["free", "joints", "static"]))
        if kind == "free" and parent is world:
            SubElement(body, "freejoint", name=f"free{k}")
        elif kind != "static":
            for j in range(draw(st.integers(1, 3))):
                joints.append(_joint(draw, rng, body, f"joint{k}{j}"))
        for _ in range(draw(st.integers(1, 2))):
            _geom(draw, rng, body, contacts)
        places.append(body)
    actuators = SubElement(root, "actuator")
    for name in joints:
        if draw(st.booleans()):
            _actuator(draw, rng, actuators, name)
    return tostring(root, encoding="unicode")


def _actuator(draw: st.DrawFn, rng: np.random.Generator, actuators: Element, joint: str) -> None:
    kind = draw(st.sampled_from(["motor", "motor", "position", "velocity", "damper", "general"]))
    actuator = SubElement(actuators, kind, joint=joint, gear=f"{rng.uniform(-5, 5)}")
    if kind == "position":
        actuator.set("kp", f"{rng.uniform(0, 3)}")
    if kind in ("position", "velocity", "damper"):
        actuator.set("kv", f"{rng.uniform(0, 0.3)}")
    if kind == "general":
        for word in ("gain", "bias"):
            actuator.set(f"{word}type", "affine")
            actuator.set(f"{word}prm", _text(rng.normal(scale=0.2, size=3)))
    if kind == "damper" or draw(st.booleans()):
        actuator.set("ctrlrange", "0 0.6" if kind == "damper" else "-0.5 0.6")
    if draw(st.booleans()):
        actuator.set("forcerange", "-0.4 0.3")


def _joint(draw: st.DrawFn, rng: np.random.Generator, body: Element, name: str) -> str:
    kind = draw(st.sampled_from(["hinge", "slide"]))
    joint = SubElement(body, "joint", name=name, type=kind, axis=_text(rng.normal(size=3)))
    joint.set("pos", _text(rng.normal(scale=0.1, size=3)))
    joint.set("armature", f"{rng.uniform(0.01, 0.3)}")
    joint.set("damping", f"{draw(st.sampled_from([0.0, 0.7]))}")
    degrees = 57.3 if kind == "hinge" else 1.0
    if draw(st.booleans()):
        joint.set("ref", f"{rng.normal(scale=0.2) * degrees}")
    if draw(st.booleans()):
        joint.set("stiffness", f"{rng.uniform(0, 5)}")
        joint.set("springref", f"{rng.normal(scale=0.3) * degrees}")
    if draw(st.booleans()):
        low = rng.uniform(-0.8, 0.0)
        joint.set("range", f"{low * degrees} {(low + rng.uniform(0.3, 1.5)) * degrees}")
        joint.set("margin", f"{draw(st.sampled_from([0.0, 0.05]))}")
        joint.set("solreflimit", draw(st.sampled_from(["0.02 1", "0.001 0.7", "-300 -20"])))
        joint.set("solimplimit", draw(st.sampled_from(["0.9 0.95 0.001", "0.5 0.99 0.1 0.3 3"])))
    if draw(st.booleans()):
        joint.set("actuatorfrcrange", "-1 1")
    if draw(st.booleans()):
        joint.set("frictionloss", f"{draw(st.sampled_from([0.03, 0.6]))}")
        joint.set("solreffriction", draw(st.sampled_from(["0.02 1", "0.001 0.7", "-300 -20"])))
        joint.set("solimpfriction", draw(st.sampled_from(["0.9 0.95 0.001", "0.5 0.99 0.1 0.3 3"])))
    return name


def _geom(draw: st.DrawFn, rng: np.random.Generator, body: Element, contacts: bool) -> None:
    kind = draw(st.sampled_from(["sphere", "capsule", "box"]))
    counts = {"sphere": 1, "capsule": 2, "box": 3}
    geom = SubElement(body, "geom", type=kind, density=f"{rng.uniform(200, 2000)}")
    geom.set("size", _text(rng.uniform(0.04, 0.2, size=counts[kind])))
    geom.set("pos", _text(rng.normal(scale=0.1, size=3)))
    geom.set("quat", _text(rng.normal(size=4)))
    contype, conaffinity = MASKS[kind] if contacts else (0, 0)
    geom.set("contype", f"{contype}")
    geom.set("conaffinity", f"{conaffinity}")
    _contact(draw, rng, geom)


def _contact(draw: st.DrawFn, rng: np.random.Generator, geom: Element) -> None:
    geom.set("condim", draw(st.sampled_from(["1", "3"])))
    geom.set("friction", f"{draw(st.sampled_from([0.1, 0.4, 1.0, 1.7]))}")
    geom.set("margin", f"{draw(st.sampled_from([0.0, 0.01, 0.05]))}")
    geom.set("gap", f"{draw(st.sampled_from([0.0, 0.02]))}")
    geom.set("priority", f"{draw(st.sampled_from([0, 0, 1]))}")
    geom.set("solmix", f"{draw(st.sampled_from([0.0, 1.0, 3.0]))}")
    geom.set("solref", draw(st.sampled_from(["0.02 1", "0.002 0.8", "-500 -30"])))
    geom.set(
        "solimp", draw(st.sampled_from(["0.9 0.95 0.001", "0.3 0.99 0.1 0.4 2.5", "0.8 0.8 0"]))
    )


def _text(values: Any) -> str:
    return " ".join(f"{v:.17g}" for v in values)


def gymnasium_model(name: str) -> Model:
    """One of the five models that come with gymnasium."""
    return from_file(gymnasium_asset(name))


def states(model: Model, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Positions, velocities and controls, float64,
    of which a good part touches or is at a limit.
    """
    rng = np.random.default_rng(seed)
    qpos = model.qpos0 + rng.normal(scale=0.5, size=(count, model.nq))
    for link in np.flatnonzero(model.kind == FREE):
        first = int(model.qpos_index[link])
        qpos[:, first + 2] = rng.uniform(0.0, 0.8, size=count)
        quaternion = qpos[:, first + 3 : first + 7]
        quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    if model.name in ("hopper", "walker2d", "cheetah"):
        qpos[:, 1] = model.qpos0[1] + rng.uniform(-1.0, 0.2, size=count)
    speed = rng.choice([0.1, 1.0, 5.0], size=(count, 1))
    qvel = speed * rng.normal(size=(count, model.nv))
    control = rng.uniform(-1.2, 1.2, size=(count, model.nu))
    return torch.tensor(qpos), torch.tensor(qvel), torch.tensor(control)


def reference(model: Model, integrator: str = "euler") -> tuple[Any, Any]:
    """MuJoCo's own model and data: Newton to the last digit, pyramidal cone.

    A copy that may be changed.
    """
    compiled = copy.copy(model.compiled)
    compiled.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    compiled.opt.cone = mujoco.mjtCone.mjCONE_PYRAMIDAL
    compiled.opt.tolerance = 0.0
    compiled.opt.ls_tolerance = 1e-6
    compiled.opt.iterations = compiled.opt.ls_iterations = 200
    kinds = {"euler": mujoco.mjtIntegrator.mjINT_EULER, "rk4": mujoco.mjtIntegrator.mjINT_RK4}
    compiled.opt.integrator = kinds[integrator]
    return compiled, mujoco.MjData(compiled)


def forward(compiled: Any, data: Any, qpos: Tensor, qvel: Tensor, control: Tensor) -> Any:
    """MuJoCo's quantities of one state, from a cold start."""
    mujoco.mj_resetData(compiled, data)
    data.qpos[:], data.qvel[:], data.ctrl[:] = qpos.numpy(), qvel.numpy(), control.numpy()
    mujoco.mj_forward(compiled, data)
    return data
