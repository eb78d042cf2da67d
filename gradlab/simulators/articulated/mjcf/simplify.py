"""What of a model may be left out or changed for another, where a user asks for it by name."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.simulators.articulated.mjcf import shapes, subset
from gradlab.simulators.articulated.mjcf.package import mujoco_package

SIMPLIFICATIONS = ("contacts", "friction")
_PLANES_ONLY = 1 << 30  # a bit of the masks, for boxes that are left with planes to touch


def simplified(m: Any, names: Iterable[str]) -> tuple[Any, tuple[str, ...]]:
    """An edited copy of a compiled model, and what is different in it, a line for each.

    "contacts": shapes whose contact is not simulated (meshes, cylinders, boxes with anything but
    planes, ...) no longer touch. "friction": elliptic cones become pyramids, and contacts with
    torsional or rolling friction (condim 4 and 6) keep the sliding one (3). MuJoCo simulates the
    copy as this project does. Raises `UnknownName` for another name, `BadValue` for no names.
    """
    if not isinstance(names, Iterable):
        raise BadValue(
            f"simplify should be names, got {names!r}; expected some of {', '.join(SIMPLIFICATIONS)}, "
            'try simplify=["contacts"]'
        )
    chosen = (names,) if isinstance(names, str) else tuple(names)
    for name in chosen:
        if name not in SIMPLIFICATIONS:
            raise UnknownName("simplification:", name, SIMPLIFICATIONS)
    if not chosen:
        return m, ()
    out = copy.copy(m)
    done: list[str] = []
    if "contacts" in chosen:
        done += _without_contacts(out)
    if "friction" in chosen:
        done += _with_sliding_friction(out)
    return out, tuple(done)


def _without_contacts(m: Any) -> list[str]:
    pairs = shapes.touching(m)
    lost = [pair for pair in pairs if not subset.collides(*(int(m.geom_type[g]) for g in pair))]
    planes = {g for pair in pairs for g in pair if m.geom_type[g] == shapes.PLANE}
    for g in {g for pair in lost for g in pair}:
        kind = int(m.geom_type[g])
        if kind not in shapes.KINDS:
            m.geom_contype[g] = m.geom_conaffinity[g] = 0
        elif kind == shapes.BOX:
            grounded = any(g in pair and planes & set(pair) for pair in pairs)
            m.geom_contype[g], m.geom_conaffinity[g] = 0, _PLANES_ONLY if grounded else 0
    for g in planes:
        m.geom_contype[g] |= _PLANES_ONLY
    for whole, own in ((m.body_contype, m.geom_contype), (m.body_conaffinity, m.geom_conaffinity)):
        whole[:] = 0
        for body, mask in zip(m.geom_bodyid, own, strict=True):
            whole[body] |= mask
    names = [subset.name_of(m, "geom", g) for g in range(m.ngeom)]
    return [f"no contact of {names[a]} and {names[b]}" for a, b in lost]


def _with_sliding_friction(m: Any) -> list[str]:
    done = []
    pyramids = mujoco_package().mjtCone.mjCONE_PYRAMIDAL
    if m.opt.cone != pyramids:
        m.opt.cone = pyramids
        done.append('option cone="pyramidal"')
    for g in range(m.ngeom):
        if m.geom_condim[g] > 3:
            done.append(f"condim 3 of {subset.name_of(m, 'geom', g)}, not {m.geom_condim[g]}")
            m.geom_condim[g] = 3
    return done
