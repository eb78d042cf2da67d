"""`gradlab.robot`: a problem from a MuJoCo file in one call."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradlab.foundation.arguments import got
from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.foundation.naming import check_options
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.problems.flights import options_of
from gradlab.problems.problem import Problem
from gradlab.problems.runners import DISCOUNT, HIDDEN
from gradlab.simulators.articulated import (
    Articulated,
    Convex,
    Model,
    from_file,
    from_mujoco,
    from_string,
)
from gradlab.simulators.articulated.contact import ContactModel
from gradlab.simulators.articulated.mjcf import mujoco_package
from gradlab.simulators.articulated.mjcf.package import disabled
from gradlab.simulators.articulated.model import FREE, HINGE
from gradlab.simulators.articulated.places import (
    Place,
    driven_roots,
    end_place,
    floor_height,
    place_of,
    root_place,
)
from gradlab.simulators.articulated.servos import servo_stiffness
from gradlab.tasks.base import Task
from gradlab.tasks.robots import Posed, Reach, Run, Stand, Track

TASKS: dict[str, type[Posed]] = {"reach": Reach, "track": Track, "stand": Stand, "run": Run}
PERIOD = 0.02  # control period, as near as whole time steps of the file come [s]
_STILL = 1e-9  # slope of a place along x by a slide, below which it does not go there [1]
SPREAD = 0.3  # of goals to reach: share of a joint's range on both sides of the start
WORDS = {"Euler": "implicit_damping", "RK4": "rk4"}  # MuJoCo's, by ours
UNLIMITED = {"hinge": 2 * math.pi, "slide": 1.0}  # range of a joint without limits [rad, m]

# fields of tasks that come from the model; `robot` has options of its own for some
OF_MODEL = frozenset(
    {
        "start",
        "start_velocity",
        "nv",
        "dt",
        "place",
        "unseen",
        "quaternions",
        "low",
        "high",
        "centre",
        "posture",
    }
    | {"height", "floor", "upright"}
)
SIMULATED = ("contact", "integrator", "dt", "substeps", "mass_every")
SHARED = ("horizon", "discount", "policy", "hidden", "critic", "dtype", "device", "compile")


def robot(
    model: str | Path | Model | Any,
    task: str | Task = "stand",
    *,
    place: str | None = None,
    keyframe: str | int | None = None,
    scale_controls: bool = True,
    simplify: Iterable[str] = (),
    **options: Any,
) -> Problem:
    """A problem from an MJCF file, as the file has it: `gradlab.robot("robot.xml", task="reach")`.

    `model` is a path, MJCF text, a compiled `mujoco.MjModel` or a `Model`. The integrator, contact
    (`Convex()`, MuJoCo's) and time step are the file's; one action lasts as many of its steps as
    come nearest to 0.02 s. The episode starts at the positions and velocities of `keyframe`, a name
    or a number, by default the file's first one, or at rest in its reference positions.

    Actions in [−1, 1] are scaled to the control range of each actuator, a servo without one to its
    joint's range; what has neither takes the action as it is. An action of 0 is the middle of the
    range; to "stand", the keyframe's control, where it has any that is not 0 and within its ranges.
    `scale_controls=False` leaves all in the file's units. `simplify=["contacts", "friction"]`
    leaves out contacts that are not simulated here, and what is more than sliding friction in
    pyramids; `Model.left_out` lists what it was.

    `task`: "reach" a pose with a body, "track" a path, "stand", "run", or one of your own. `place`
    names the body or site that it is about: by default the end of the longest chain for the first
    two, the first body that moves for the others, of what has actuators. Other options are fields
    of the task (`gradlab.tasks.robots`: `turning`, `radius`, `fall`, ...), of `Articulated`
    (`contact`, `dt`, `integrator`, by MuJoCo's words too, `substeps`, `mass_every`) and of
    `Problem` (`horizon`, `discount`, `policy`, `hidden`, `critic`, `dtype`, `device`, `compile`).

    Servos that are too stiff for the time step are one line of warning.

    Raises `BadValue` for what is outside the subset of MJCF (docs/own_mjcf.md) or cannot be run,
    `UnknownName` for a task, keyframe, place or option, `Missing` for a file that is not there.
    """
    found = _model(model, simplify)
    if found.nu == 0:
        raise BadValue(
            f"robot: {found.name} has no actuators; expected at least one, add "
            '<actuator><motor joint="..."/></actuator> to the file'
        )
    kind = _kind(task)
    _check(kind, task, place, keyframe, options)
    kinds = [] if kind is None else [kind]
    check_options("robot", options, options_of(kinds, (*SIMULATED, *SHARED), OF_MODEL - {"dt"}))
    run = {k: v for k, v in options.items() if k in SIMULATED}
    if "integrator" in run:
        run["integrator"] = _integrator(found, run["integrator"])
    if "dt" not in run and "substeps" not in run:
        run["substeps"] = max(1, round(PERIOD / found.timestep))
    start, velocity, rest = _start(found, keyframe)
    controlled = scaled_controls(found, rest if kind is Stand else ()) if scale_controls else found
    simulator = Articulated(controlled, run.pop("contact", Convex()), **run)
    _warn_of_servos(simulator, start)
    if kind is None:
        built: Any = task
    else:
        own = {f.name for f in dataclasses.fields(kind)} - OF_MODEL
        built = _task(kind, found, simulator.dt, (start, velocity), place)
        built = dataclasses.replace(built, **{k: v for k, v in options.items() if k in own})
    shared = {k: v for k, v in options.items() if k in SHARED}
    hidden = shared.pop("hidden", HIDDEN)
    values = {
        "policy": GaussianPolicy(hidden=hidden), "horizon": built.default_horizon, "discount": DISCOUNT,
    }  # fmt: skip
    return Problem(f"{found.name} {built.name}", simulator, built, **(values | shared))


def _warn_of_servos(simulator: Articulated, start: np.ndarray) -> None:
    """One line where servos are too stiff for the time step."""
    share = servo_stiffness(simulator, start)
    if share >= 1:
        h = simulator.dt / simulator.substeps
        more = math.ceil(simulator.substeps * math.sqrt(share) * 1.2)
        warnings.warn(
            f"robot: the servos of {simulator.model.name} are {share:.2g} times as stiff as steps of "
            f'{h:g} s take; try integrator="implicitfast", or dt={simulator.dt:g} with '
            f"substeps={more}",
            stacklevel=3,
        )


def _model(given: Any, simplify: Iterable[str]) -> Model:
    if isinstance(given, Model):
        if simplify:
            raise BadValue(
                "robot: simplify is for files, text and compiled models, got a Model; give it where "
                'that is read: from_file("robot.xml", simplify=["contacts"])'
            )
        return given
    if isinstance(given, str) and given.lstrip().startswith("<"):
        return from_string(given, simplify)
    if isinstance(given, str | Path):
        return from_file(given, simplify)
    if isinstance(given, mujoco_package().MjModel):
        return from_mujoco(given, simplify)
    raise BadValue(
        f"robot: expected the path of an MJCF file, its text, a Model or a mujoco.MjModel, got "
        f'{type(given).__name__}; try gradlab.robot("robot.xml")'
    )


def _kind(task: str | Task) -> type[Posed] | None:
    """The class of a task by name; None for one of the user's own."""
    if not isinstance(task, str):
        if not isinstance(task, Task) and not isinstance(task, type):
            raise BadValue(
                f"robot: task should be one of {', '.join(TASKS)}, or a Task, got {got(task)}; "
                'try task="stand"'
            )
        return None
    if task not in TASKS:
        raise UnknownName("task of a robot:", task, TASKS)
    return TASKS[task]


def _check(kind: Any, task: Any, place: Any, keyframe: Any, options: dict[str, Any]) -> None:
    """Raise `BadValue` for options that would have no effect beside others, or are no law."""
    for name, value in (("place", place), ("keyframe", keyframe)):
        if kind is None and value is not None:
            raise BadValue(
                f"robot: {name} is for tasks by name ({', '.join(TASKS)}), got {name}={value!r} beside "
                f"a {type(task).__name__}; leave it out, and build it into the task"
            )
    if options.get("hidden") is not None and options.get("policy") is not None:
        raise BadValue("policy and hidden both say what the policy is; give one of them")
    law = options.get("contact", Convex())
    if not isinstance(law, ContactModel):
        raise BadValue(f"robot: contact should be a law, got {got(law)}; try contact=Convex()")


def _integrator(model: Model, word: Any) -> Any:
    """The name that `Articulated` has for one of MuJoCo's words; other names as they are."""
    if word == "Euler" and disabled(model.compiled, "EULERDAMP"):
        return "explicit_damping"
    return WORDS.get(word, word) if isinstance(word, str) else word


def _range_of(
    model: Model, a: int, own: np.ndarray, limits: dict[int, tuple[float, float]]
) -> tuple[float, float]:
    """The range of an actuator's control: its own, or of a position servo without one its joint's.

    Not finite where there is neither.
    """
    m = model.compiled
    low, high = m.actuator_ctrlrange[a] if m.actuator_ctrllimited[a] else own
    dof = int(np.argmax(np.abs(model.gear[a])))
    servo = model.bias[a, 1] == -model.gain[a, 0] != 0
    if not math.isfinite(high - low) and servo and dof in limits:
        low, high = sorted(model.gear[a, dof] * end for end in limits[dof])
    return float(low), float(high)


@lru_cache(maxsize=64)
def scaled_controls(model: Model, rest: tuple[float, ...] = ()) -> Model:
    """A model whose controls in [−1, 1] stand for the control ranges.

    (g₀ + ...) (m + h a) + b of middle m and half-width h is again affine in the action a. Of an
    actuator without `ctrlrange` whose force falls with its length as it rises with control (a
    position servo) the range is that of its joint. Where the file disables the clamp of controls
    (the flag `clampctrl`), its ranges scale too, and actions beyond ±1 go beyond them.

    With controls `rest` (one per actuator) m is the control at rest and h reaches to the farther
    end of the range; the nearer one clamps actions before −1 or 1. Where one of them is outside of
    its range, m is the middle for all.
    """
    middle, half = np.zeros(model.nu), np.ones(model.nu)
    limits = {limit.dof: (limit.low, limit.high) for limit in model.limits}
    ranges, m = np.array(model.control_range), model.compiled
    clamps = not disabled(m, "CLAMPCTRL")
    found = [_range_of(model, a, ranges[a], limits) for a in range(model.nu)]
    inside = all(low <= c <= high for c, (low, high) in zip(rest, found, strict=False))
    for a, (low, high) in enumerate(found):
        if not math.isfinite(high - low):
            continue
        middle[a], half[a] = (low + high) / 2, (high - low) / 2
        ends = -1.0, 1.0
        if rest and inside and high > low:
            middle[a], half[a] = rest[a], max(high - rest[a], rest[a] - low)
            ends = (low - rest[a]) / half[a], (high - rest[a]) / half[a]
        ranges[a] = ends if clamps else ranges[a]
    return dataclasses.replace(
        model,
        gain=model.gain * half[:, None],
        bias=model.bias + model.gain * middle[:, None],
        control_range=ranges,
    )


def _start(
    model: Model, keyframe: str | int | None
) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """q and q̇ of a keyframe, [nq] and [nv], and its controls; () if they are 0."""
    m, mujoco = model.compiled, mujoco_package()
    names = [mujoco.mj_id2name(m, mujoco.mjtObj.mjOBJ_KEY, k) or f"{k}" for k in range(int(m.nkey))]
    if keyframe is None:
        if not names:
            return np.array(model.qpos0), np.zeros(model.nv), ()
        keyframe = 0
    if isinstance(keyframe, bool) or not (isinstance(keyframe, int) and 0 <= keyframe < len(names)):
        if not names:
            raise BadValue(
                f"robot: {model.name} has no keyframes, got keyframe={keyframe!r}; add "
                '<keyframe><key name="home" qpos="..."/></keyframe> to the file, or leave it out'
            )
        if str(keyframe) not in names:
            raise UnknownName(f"keyframe of {model.name}:", str(keyframe), names)
        keyframe = names.index(str(keyframe))
    # a file that says nothing of controls has 0 there
    rest = tuple(map(float, m.key_ctrl[keyframe])) if m.key_ctrl[keyframe].any() else ()
    return np.array(m.key_qpos[keyframe]), np.array(m.key_qvel[keyframe]), rest


def _task(
    kind: type[Posed], model: Model, dt: float, begin: tuple[np.ndarray, ...], name: str | None
) -> Posed:
    """A task with what the model says of it; it begins at q and q̇ of `begin`."""
    start, velocity = begin
    fallback = end_place if kind in (Reach, Track) else root_place
    place = fallback(model) if name is None else place_of(model, name)
    free = [int(model.qpos_index[k]) for k in np.flatnonzero(model.kind == FREE)]
    shared: dict[str, Any] = {
        "start": tuple(map(float, start)),
        "start_velocity": tuple(map(float, velocity)) if velocity.any() else (),
        "nv": model.nv, "dt": dt, "place": place,
        "unseen": 2 if 0 in free and 0 in driven_roots(model) else 0,
        "quaternions": tuple(at + 3 for at in free),
    }  # fmt: skip
    pose = place(torch.tensor(start)).numpy()
    if kind is Reach:
        low, high = _around(model, start)
        return Reach(**shared, low=low, high=high)
    if kind is Track:
        return Track(**shared, centre=tuple(map(float, pose[:, 3])))
    return _upright(kind, model, place, pose, shared)


def _upright(
    kind: type[Posed], model: Model, place: Place, pose: np.ndarray, shared: dict[str, Any]
) -> Posed:
    """A task of standing or running. Raises `BadValue` to run where the base cannot move."""
    base = model.kind[model.ancestors(place.link)[-1]]
    if kind is Run and (base == HINGE or not _goes_along_x(model, place, shared["start"])):
        why = "is hinged to the world" if base == HINGE else "cannot move along x"
        raise BadValue(
            f"robot: {model.name} cannot run, its base {why}; expected a free joint or "
            'slides there, try task="stand" or "reach"'
        )
    floor = floor_height(model)
    height = float(pose[2, 3]) - floor
    joints = np.flatnonzero(model.kind != FREE)
    return kind(
        **shared,
        posture=tuple(int(model.qpos_index[k]) for k in joints),  # type: ignore[call-arg]
        height=height if base != HINGE and height > 0 else None,  # type: ignore[call-arg]
        floor=floor,  # type: ignore[call-arg]
        upright=tuple(float(x) for x in pose[2, :3]),  # type: ignore[call-arg]
    )


def _goes_along_x(model: Model, place: Place, start: tuple[float, ...]) -> bool:
    """Whether a free joint or a slide below a place moves it along x."""
    slope = torch.func.jacrev(lambda q: place(q)[0, 3])(torch.tensor(start, dtype=torch.float64))
    carried = [k for k in model.ancestors(place.link) if model.kind[k] != HINGE]
    return any(abs(float(slope[model.qpos_index[k]])) > _STILL for k in carried)


def _around(model: Model, start: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """q between which goals are: joints with actuators near the start, in their ranges.

    Others stay as they are at the start: no one could hold them elsewhere (a walker's base in the
    air).
    """
    low, high = start.copy(), start.copy()
    limits = {limit.qpos: (limit.low, limit.high) for limit in model.limits}
    for link in np.flatnonzero(model.kind != FREE):
        if not model.gear[:, model.dof_index[link]].any():
            continue
        at = int(model.qpos_index[link])
        kind = "hinge" if model.kind[link] == HINGE else "slide"
        least, most = limits.get(at, (-math.inf, math.inf))
        wide = most - least if at in limits else UNLIMITED[kind]
        low[at] = min(max(start[at] - SPREAD * wide, least), most)
        high[at] = min(max(start[at] + SPREAD * wide, least), most)
    return tuple(map(float, low)), tuple(map(float, high))
