"""Geoms of a compiled model as shapes, and which pairs of them may touch,
under which contact law.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlab.simulators.articulated.mjcf.links import Links, pose
from gradlab.simulators.articulated.mjcf.package import disabled, mujoco_package
from gradlab.simulators.articulated.model import ContactLaw, Pair, Shape

PLANE, SPHERE, CAPSULE, BOX = 0, 2, 3, 6  # mjtGeom
KINDS = {PLANE: "plane", SPHERE: "sphere", CAPSULE: "capsule", BOX: "box"}


def shape(m: Any, links: Links, g: int) -> Shape:
    """One geom, in the frame of its link."""
    body = int(m.geom_bodyid[g])
    place = links.frame_of_body[body] @ pose(m.geom_pos[g], m.geom_quat[g])
    kind = KINDS.get(int(m.geom_type[g]), "other")
    name = mujoco_package().mj_id2name(m, mujoco_package().mjtObj.mjOBJ_GEOM, g) or f"geom {g}"
    size = tuple(float(x) for x in m.geom_size[g])
    return Shape(name, kind, int(links.of_body[body]), body, place, size)


def touching(m: Any) -> list[tuple[int, int]]:
    """Pairs of geoms that may collide: masks, not the same rigid body, not parent and child."""
    if disabled(m, "CONTACT") or disabled(m, "CONSTRAINT"):
        return []
    excluded = {(int(s) >> 16, int(s) & 0xFFFF) for s in m.exclude_signature}
    out = []
    for first in range(m.ngeom):
        for second in range(first + 1, m.ngeom):
            a, b = int(m.geom_bodyid[first]), int(m.geom_bodyid[second])
            masks = (m.geom_contype[first] & m.geom_conaffinity[second]) or (
                m.geom_contype[second] & m.geom_conaffinity[first]
            )
            welded, other = int(m.body_weldid[a]), int(m.body_weldid[b])
            if not masks or welded == other or (a, b) in excluded or (b, a) in excluded:
                continue
            up = int(m.body_weldid[m.body_parentid[welded]])
            down = int(m.body_weldid[m.body_parentid[other]])
            related = welded != 0 and other != 0 and (welded == down or other == up)
            if related and not disabled(m, "FILTERPARENT"):
                continue
            out.append((first, second))
    return out


def dimension(m: Any, first: int, second: int) -> int:
    """condim of a pair."""
    if m.geom_priority[first] != m.geom_priority[second]:
        winner = max((first, second), key=lambda g: int(m.geom_priority[g]))
        return int(m.geom_condim[winner])
    return int(max(m.geom_condim[first], m.geom_condim[second]))


def pairs(m: Any) -> list[Pair]:
    """Contact parameters of every pair, mixed by MuJoCo's rules (priority,
    solmix, larger friction).
    """
    out = []
    for first, second in touching(m):
        # the shape whose type has the lower number comes first, as in MuJoCo
        if m.geom_type[first] > m.geom_type[second]:
            first, second = second, first
        a, b = int(m.geom_priority[first]), int(m.geom_priority[second])
        if a != b:
            winner = first if a > b else second
            friction = float(m.geom_friction[winner, 0])
            solref, solimp = m.geom_solref[winner], m.geom_solimp[winner]
        else:
            friction = float(max(m.geom_friction[first, 0], m.geom_friction[second, 0]))
            mix = _mix(float(m.geom_solmix[first]), float(m.geom_solmix[second]))
            standard = m.geom_solref[first, 0] > 0 and m.geom_solref[second, 0] > 0
            refs = np.array([m.geom_solref[first], m.geom_solref[second]])
            solref = mix * refs[0] + (1 - mix) * refs[1] if standard else refs.min(0)
            solimp = mix * m.geom_solimp[first] + (1 - mix) * m.geom_solimp[second]
        margin = float(m.geom_margin[first] + m.geom_margin[second])
        gap = float(m.geom_gap[first] + m.geom_gap[second])
        dim = dimension(m, first, second)
        law = ContactLaw(tuple(map(float, solref)), tuple(map(float, solimp)))
        out.append(Pair(first, second, dim, friction, margin, gap, law))
    return out


def _mix(first: float, second: float) -> float:
    tiny = 1e-15  # mjMINVAL
    if first >= tiny and second >= tiny:
        return first / (first + second)
    if first < tiny and second < tiny:
        return 0.5
    return 0.0 if first < tiny else 1.0
