"""From an MJCF file, text or compiled model to a `Model`.

The model of equal contents is one object: what it is built for (constants, compiled sub-steps) is
kept for it. Equal means the whole compiled model, so that an edit of anything the file reads (an
included file, a mesh, a height field, a texture) gives another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from gradlab.foundation.errors import BadValue, Missing
from gradlab.simulators.articulated.mjcf import joints, shapes, subset
from gradlab.simulators.articulated.mjcf.links import Links
from gradlab.simulators.articulated.mjcf.package import disabled, mujoco_package
from gradlab.simulators.articulated.mjcf.simplify import simplified
from gradlab.simulators.articulated.model import Model

_BINARY = "model.mjb"  # a name in memory


def from_file(path: str | Path, simplify: Iterable[str] = ()) -> Model:
    """The model of an MJCF file, with what `simplify` names changed: see `from_mujoco`.

    Raises `Missing` for no such file, `BadValue` outside the subset.
    """
    try:
        there = Path(path).is_file()
    except (OSError, ValueError):  # no path at all: too long, or with a zero byte
        there = False
    if not there:
        shown = " ".join(str(path).split())
        shown = shown if len(shown) <= 200 else f"{shown[:200]}..."
        raise Missing(f"no MJCF file at {shown}; give the path of an .xml file")
    compiler = mujoco_package().MjModel.from_xml_path
    return from_mujoco(_compiled(compiler, str(path), f"MJCF file {path}"), simplify)


def from_string(xml: str, simplify: Iterable[str] = ()) -> Model:
    """The model of MJCF text. Raises `BadValue` outside the subset."""
    compiler = mujoco_package().MjModel.from_xml_string
    return from_mujoco(_compiled(compiler, xml, "MJCF text"), simplify)


def from_mujoco(compiled: Any, simplify: Iterable[str] = ()) -> Model:
    """The model of a compiled one, a copy of which is kept as `Model.compiled`.

    `simplify` names what may be left out of it, "contacts" and "friction"
    (`mjcf.simplify.simplified`); what was is in `Model.left_out`, and `Model.compiled` is without
    it too. Raises `BadValue`, naming every element and flag outside the subset, `UnknownName` for
    another name.
    """
    compiled, left_out = simplified(compiled, simplify)
    subset.refuse(compiled)
    mujoco = mujoco_package()
    buffer = np.empty(mujoco.mj_sizeModel(compiled), dtype=np.uint8)
    mujoco.mj_saveModel(compiled, None, buffer)
    return _read(buffer.tobytes(), left_out)


def gymnasium_asset(name: str) -> Path:
    """Path of one of the models that come with gymnasium:
    ant, hopper, walker2d, half_cheetah, humanoid.
    """
    import gymnasium

    return Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / f"{name}.xml"


def _compiled(compiler: Any, source: str, what: str) -> Any:
    mujoco = mujoco_package()
    # MuJoCo's compiler keeps meshes and the like by name and time in seconds: an edit may not show
    mujoco.mj_clearCache(mujoco.mj_getCache())
    try:
        return compiler(source)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise BadValue(f"MuJoCo cannot compile the {what}: {reason}") from None


@lru_cache(maxsize=64)
def _read(content: bytes, left_out: tuple[str, ...]) -> Model:
    """The model of a saved compiled model that is inside the subset."""
    m = mujoco_package().MjModel.from_binary_path(_BINARY, {_BINARY: content})
    links = Links(m)
    return Model(
        name=m.names[: m.names.index(b"\0")].decode() or "model",
        compiled=m,
        left_out=left_out,
        nq=m.nq,
        nv=m.nv,
        nu=m.nu,
        timestep=float(m.opt.timestep),
        integrator=subset.integrator(m),
        gravity=np.zeros(3) if disabled(m, "GRAVITY") else np.array(m.opt.gravity),
        qpos0=np.array(m.qpos0),
        qpos_spring=np.array(m.qpos_spring),
        parent=links.parent,
        kind=links.kind,
        before=links.before,
        axis=links.axis,
        anchor=links.anchor,
        qpos_index=links.qpos_index,
        dof_index=links.dof_index,
        body_link=links.of_body,
        body_frame=links.frame_of_body,
        inertia=links.inertia,
        invweight=np.array(m.body_invweight0)[:, 0],
        dof_invweight=np.array(m.dof_invweight0),
        armature=joints.armature(m),
        damping=joints.damping(m),
        stiffness=joints.stiffness(m),
        gain=joints.gain(m),
        bias=joints.bias(m),
        gear=joints.gear(m),
        control_range=joints.control_range(m),
        force_range=joints.force_range(m),
        joint_force_range=joints.joint_force_range(m),
        limits=joints.limits(m),
        frictions=joints.frictions(m),
        shapes=tuple(shapes.shape(m, links, g) for g in range(m.ngeom)),
        pairs=tuple(shapes.pairs(m)),
    )
