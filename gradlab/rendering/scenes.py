"""Which picture belongs to which simulator and task.

`scenery` is a `functools.singledispatch` function: register landmarks of a task of your own with
`@scenery.register(MyTask)`.
"""

from __future__ import annotations

from functools import singledispatch
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from gradlab.problems.problem import Problem
from gradlab.rendering.pictures import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    RED,
    Faces,
    Line,
    Picture,
    capsules,
    circle,
)
from gradlab.rendering.protocols import HasShapes
from gradlab.simulators import rotations
from gradlab.simulators.base import Timed
from gradlab.simulators.drones import Drone
from gradlab.simulators.point_mass import PointMass
from gradlab.simulators.quadrotor import Quadrotor
from gradlab.simulators.static import Static
from gradlab.tasks import hovering, landing, racing
from gradlab.tasks.base import Task
from gradlab.tasks.gate import Gate, TerminalGate
from gradlab.tasks.hovering import Hovering
from gradlab.tasks.landing import Landing
from gradlab.tasks.lq import Regulation
from gradlab.tasks.racing import Racing
from gradlab.tasks.static import Decision
from gradlab.tasks.tracking import Tracking

SPACE = ("x [m]", "y [m]", "z [m]")
SMALLEST = 1.0  # edge of the box that a view of flights shows at least [m]


class Snapshot(NamedTuple):
    """An episode so far: what a frame is drawn from."""

    states: NDArray  # [t + 1, ns], the last one now
    memory: NDArray  # [nm], now

    @property
    def step(self) -> int:
        """Steps taken, t."""
        return len(self.states) - 1


def picture(problem: Problem, now: Snapshot, whole: NDArray | None = None) -> Picture:
    """The frame of an episode at a moment of it.

    `whole` are the states [T + 1, ns] of all frames of a clip:
    with them the view stays where it is.
    """
    whole = now.states if whole is None else whole
    simulator = problem.simulator
    if isinstance(simulator, HasShapes):
        return _body(problem, simulator, now, whole)
    if isinstance(simulator, Quadrotor):
        return _flight(problem, simulator, now, whole)
    if isinstance(simulator, Static) and isinstance(problem.task, Decision):
        return _decision(problem, problem.task, now)
    if isinstance(simulator, PointMass) and simulator.state_dim == 4:
        return _plane(problem, now, whole)
    return _series(problem, now, whole)


@singledispatch
def scenery(task: Task, now: Snapshot) -> tuple[Line, ...]:
    """Landmarks of a task, in the coordinates of its picture; none unless registered."""
    return ()


@scenery.register
def _(task: Hovering, now: Snapshot) -> tuple[Line, ...]:
    return _ball(task.target, hovering.SUCCESS_DISTANCE, GREEN, "target")


@scenery.register
def _(task: Landing, now: Snapshot) -> tuple[Line, ...]:
    x, y = task.mark
    d, h = landing.OFFSET, landing.HEIGHT
    square = np.array([(x - d, y - d), (x + d, y - d), (x + d, y + d), (x - d, y + d)])
    ring = np.concatenate([square, square[:1]])
    flat = np.column_stack([ring, np.zeros(5)])
    lines = [
        Line(flat, GREEN, 2.5),
        Line(flat + (0, 0, h), GREEN, 1.0, ":"),
        Line(flat[[0, 2]], GREEN, 1.0),
        Line(flat[[1, 3]], GREEN, 1.0, label="landing mark"),
    ]
    return tuple(lines)


@scenery.register
def _(task: Racing, now: Snapshot) -> tuple[Line, ...]:
    if task.gates == 1:
        return _ball(racing.GATES[task.first_gate or 0], racing.GATE_RADIUS, GREEN, "gate")
    lines: list[Line] = []
    for i, gate in enumerate(racing.GATES):
        is_next = i == int(now.memory[0])
        colour, label = (GREEN, f"gate {i}, next") if is_next else (GREY, f"gate {i}")
        lines += _ball(gate, racing.GATE_RADIUS, colour, label)
    return tuple(lines)


@scenery.register
def _(task: Tracking, now: Snapshot) -> tuple[Line, ...]:
    time = torch.tensor(now.step * task.dt, dtype=torch.float64)
    target = task.target(time).numpy()
    orbit = circle(np.array(task.centre), task.radius)
    return (
        Line(orbit, GREEN, 1.0, "--"),
        Line(target[None], GREEN, 1.0, marker="o", label="target"),
    )


@scenery.register
def _(task: Regulation, now: Snapshot) -> tuple[Line, ...]:
    return (Line(np.array([task.goal[:2]]), GREEN, 2.0, marker="X", label="goal"),)


def _flight(problem: Problem, simulator: Quadrotor, now: Snapshot, whole: NDArray) -> Picture:
    """A quadrotor with its trail, the trail's shadow and the landmarks."""
    trail = now.states[:, :3]
    landmarks = scenery(problem.task, now)
    seen = np.concatenate([whole[:, :3], *(line.points for line in landmarks)])
    low, high = _view(seen)
    low[2] = 0.0 if seen[:, 2].min() >= 0 else low[2]  # the ground
    drone = simulator.constants
    # a drone of 0.3 m in a view of 6 m would be a dot
    scale = max(1, round(0.09 * float((high - low).max()) / drone.arm_length))
    place = now.states[-1]
    ground = np.column_stack([trail[:, :2], np.full(len(trail), low[2])])
    lines = (
        *landmarks,
        Line(ground, FAINT, 1.2),
        Line(np.stack([trail[-1], ground[-1]]), FAINT, 0.8, ":"),
        Line(trail, BLUE, 1.8),
    )
    note = f"drone drawn {scale} times as large" if scale > 1 else ""
    faces = _quadrotor(drone, place, float(scale))
    return Picture(_title(problem, now), SPACE, low, high, lines, faces, note)


def _quadrotor(drone: Drone, state: NDArray, scale: float) -> tuple[Faces, ...]:
    """Arms, hull and rotor discs; the front pair of rotors is orange."""
    arm = scale * drone.arm_length
    turn = rotations.matrix(torch.as_tensor(state[3:7], dtype=torch.float64)).numpy()

    def world(points: NDArray) -> NDArray:
        return state[:3] + points @ turn.T

    corner = arm / np.sqrt(2)
    rotors = np.array([(1, 1, 0), (1, -1, 0), (-1, -1, 0), (-1, 1, 0)]) * corner
    arms = np.stack([np.zeros_like(rotors), rotors], axis=1)
    hull = np.array([[(-0.25 * arm, 0, 0), (0.25 * arm, 0, 0)]])
    frame = world(capsules(np.concatenate([arms, hull]), np.array([0.06] * 4 + [0.2]) * arm))
    disc = circle(np.zeros(3), 0.5 * arm, corners=20)[:-1] + (0, 0, 0.12 * arm)
    discs = world(rotors[:, None, :] + disc)
    return (
        Faces(frame, "#4d4d4d"),
        Faces(discs[[0, 3]], ORANGE, True),
        Faces(discs[1:3], BLUE, True),
    )


def _body(problem: Problem, simulator: HasShapes, now: Snapshot, whole: NDArray) -> Picture:
    """Capsules and spheres on the ground, the view travelling with them."""
    ends, radii = _shapes(problem, simulator, now.states)
    size = np.asarray(radii)
    first, _ = _shapes(problem, simulator, whole[:1])
    spread = first[0].reshape(-1, 3)
    reach = 0.65 * float((spread.max(0) - spread.min(0)).max()) + float(size.max())
    centre = ends.reshape(len(ends), -1, 3).mean(1)
    low = centre[-1] - reach
    low[2], high = 0.0, centre[-1] + reach
    lowest = float((ends[-1, ..., 2] - size[:, None]).min())
    low[2] = min(low[2], lowest)  # contacts give way a little
    high[2] = max(high[2], low[2] + 1.4 * reach)
    shadow = np.column_stack([centre[:, :2], np.full(len(centre), low[2])])
    inside = ((shadow >= low) & (shadow <= high)).all(-1)
    lines = (*scenery(problem.task, now), Line(shadow[inside], BLUE, 1.8))
    faces = (Faces(capsules(ends[-1], size), "#d9a066"),)
    return Picture(_title(problem, now), SPACE, low, high, lines, faces)


def _shapes(problem: Problem, simulator: HasShapes, states: NDArray) -> tuple[NDArray, NDArray]:
    """Ends [t + 1, shapes, 2, 3] and radii [shapes]."""
    with torch.no_grad():
        given = torch.as_tensor(states, dtype=problem.dtype, device=problem.device)
        ends, radii = simulator.shapes(given)
    return ends.double().cpu().numpy(), radii.double().cpu().numpy()


def _plane(problem: Problem, now: Snapshot, whole: NDArray) -> Picture:
    """A point mass in the plane, state [x, y, vx, vy], with its velocity as an arrow."""
    landmarks = scenery(problem.task, now)
    velocity = now.states[-1, 2:4]
    here = now.states[-1, :2]
    seen = [whole[:, :2], *(line.points for line in landmarks)]
    low, high = _view(np.concatenate(seen), smallest=0.5)
    ahead = np.stack([here, here + 0.25 * velocity])
    lines = (
        *landmarks,
        Line(now.states[:, :2], BLUE, 1.8, marker="."),
        Line(ahead, ORANGE, 2.5),
        Line(here[None], INK, 1.0, marker="o"),
    )
    note = "orange: the way of 0.25 s at the present velocity"
    return Picture(_title(problem, now), ("x [m]", "y [m]"), low, high, lines, note=note)


def _decision(problem: Problem, task: Decision, now: Snapshot) -> Picture:
    """A landscape with the decision on it: a curve for one number, components for several."""
    chosen = now.states[-1]
    if task.landscape.dim != 1:
        return _series(problem, now, now.states)
    reach = max(1.0, 1.2 * float(np.abs(now.states).max()))
    grid = np.linspace(-reach, reach, 801)
    curve, dot = _landscape(problem, task, grid), _landscape(problem, task, chosen)
    span = max(float(np.ptp(curve)), 1e-9)
    low = np.array([-reach, curve.min() - 0.08 * span])
    high = np.array([reach, curve.max() + 0.08 * span])
    lines = (
        Line(np.column_stack([grid, curve]), BLUE, 1.8),
        Line(np.array([[chosen[0], dot[0]]]), RED, 1.0, marker="o", label="decision"),
    )
    axes = ("decision x", "reward f(x) [1]")
    return Picture(_title(problem, now), axes, low, high, lines, equal=False)


def _landscape(problem: Problem, task: Decision, x: NDArray) -> NDArray:
    """Reward and hard bonuses of decisions [n]."""
    point = torch.as_tensor(x, dtype=torch.float64)[:, None]
    value = task.landscape.reward(point)
    margins = task.landscape.margins(point)
    for i, event in enumerate(task.events):
        value = value + event.bonus * problem.event_step(margins[:, i])
    return value.numpy()


def _series(problem: Problem, now: Snapshot, whole: NDArray) -> Picture:
    """Every component of the state against the step; a single one is a position in metres."""
    steps = np.arange(now.step + 1)
    task, dim = problem.task, whole.shape[1]
    single = dim == 1 and isinstance(problem.simulator, PointMass)
    lines: list[Line] = []
    edge = max(len(whole) - 1, 1)
    values = [whole.ravel()]
    if isinstance(task, (Gate, TerminalGate)):
        level = np.array([(0, task.gate), (edge, task.gate)])
        lines.append(Line(level, GREEN, 2.0, "--", label="gate"))
        values.append(level[:, 1])
    colours = (BLUE, ORANGE, GREEN, RED, INK, GREY)
    for i in range(dim):
        label = "" if single else f"s[{i}]"
        points = np.column_stack([steps, now.states[:, i]])
        lines.append(Line(points, colours[i % len(colours)], 1.8, marker=".", label=label))
        lines.append(Line(points[-1:], colours[i % len(colours)], 1.0, marker="o"))
    bottom, top = _view(np.concatenate(values)[:, None], smallest=0.5)
    low, high = np.array([0.0, bottom[0]]), np.array([1.12 * edge, top[0]])
    axes = ("step t [1]", "position x [m]" if single else "state")
    return Picture(_title(problem, now), axes, low, high, tuple(lines), equal=False)


def _ball(centre: tuple[float, ...], radius: float, colour: str, label: str) -> tuple[Line, ...]:
    """Three great circles of a sphere."""
    middle = np.array(centre)
    rings = tuple(Line(circle(middle, radius, n), colour, 1.6) for n in range(3))
    top = middle + (0.0, 0.0, 1.3 * radius)
    return (*rings, Line(top[None], colour, 1.0, label=label))


def _view(points: NDArray, smallest: float = SMALLEST) -> tuple[NDArray, NDArray]:
    """Corners around the points, on a coarse grid so that they seldom move between frames."""
    low, high = points.min(0), points.max(0)
    grain = smallest / 2
    low = np.floor((low - 0.15 * smallest) / grain) * grain
    high = np.ceil((high + 0.15 * smallest) / grain) * grain
    short = np.maximum(smallest - (high - low), 0.0)
    return low - short / 2, high + short / 2


def _title(problem: Problem, now: Snapshot) -> str:
    """Name and time."""
    simulator = problem.simulator
    name = problem.name.replace("_", " ")
    if isinstance(simulator, Timed):
        return f"{name}, t = {now.step * simulator.dt:.2f} s"
    return f"{name}, step {now.step}"
