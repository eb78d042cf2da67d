"""Episodes as frames, and frames as files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gradlab.foundation.errors import BadShape, BadValue, NotFinite, Unavailable, UnknownName
from gradlab.problems.problem import Problem
from gradlab.rendering.mujoco_frames import MujocoRenderer
from gradlab.rendering.protocols import HasMujocoModel
from gradlab.rendering.scenes import Snapshot, picture
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import Trajectory
from gradlab.simulators.base import Timed

RENDERERS = ("auto", "figure", "mujoco")
SIZE = (640, 480)  # (width, height) [px]
DEFAULT_RATE = 10  # frames per second of simulators without a time step [1/s]


class FilmStrip:
    """Remembers N episodes so far and draws where they are.

    `renderer`: "figure" (matplotlib), "mujoco", or "auto": MuJoCo's where the simulator has a model
    and OpenGL works, else matplotlib. Raises `UnknownName` for another, `Unavailable` for "mujoco"
    where it does not work, `BadValue` for a size below 64 x 64 pixels.
    """

    def __init__(
        self, problem: Problem, count: int, size: tuple[int, int] = SIZE, renderer: str = "auto"
    ) -> None:
        if renderer not in RENDERERS:
            raise UnknownName("renderer", renderer, RENDERERS)
        if min(size) < 64:
            raise BadValue(f"frames should have at least 64 x 64 pixels, got {size[0]} x {size[1]}")
        self.problem, self.size = problem, size
        self._states: list[list[NDArray]] = [[] for _ in range(count)]
        self._memory: list[NDArray] = [np.zeros(0)] * count
        self._mujoco = _mujoco(problem, size, renderer)

    @property
    def renderer(self) -> str:
        """The one in use: "figure" or "mujoco"."""
        return "figure" if self._mujoco is None else "mujoco"

    def begin(self, states: NDArray, memory: NDArray, rows: Iterable[int]) -> None:
        """New episodes in these rows of states [N, ns] and memories [N, nm]."""
        rows = list(rows)
        for i in rows:
            self._states[i] = []
        self.append(states, memory, rows)

    def append(self, states: NDArray, memory: NDArray, rows: Iterable[int]) -> None:
        """One more step of the episodes in these rows."""
        for i in rows:
            self._states[i].append(states[i])
            self._memory[i] = memory[i]

    def frame(self, row: int = 0, whole: NDArray | None = None) -> NDArray:
        """uint8 [height, width, 3] of one episode now; `whole` as for `scenes.picture`."""
        states = self._states[row]
        if not states:
            raise BadValue("there is nothing to draw yet; call reset first")
        if not np.isfinite(states[-1]).all():
            raise NotFinite(
                f"{self.problem.name}: the state after step {len(states) - 1} is not finite; "
                "draw the steps before it"
            )
        if self._mujoco is not None:
            return self._mujoco.frame(states[-1])
        from gradlab.rendering.figures import draw  # matplotlib: only where it is needed

        now = Snapshot(np.stack(states), self._memory[row])
        return draw(picture(self.problem, now, whole), self.size)

    def close(self) -> None:
        """Free what the renderer holds."""
        if self._mujoco is not None:
            self._mujoco.close()


def frames(
    problem: Problem,
    path: Trajectory,
    episode: int = 0,
    *,
    every: int = 1,
    size: tuple[int, int] = SIZE,
    renderer: str = "auto",
    beyond: bool = False,
) -> NDArray:
    """uint8 [frames, height, width, 3] of one episode of a rollout,
    every so many steps and at the end.

    The last frame shows the step that ended the episode; `beyond=True` goes on to the end of the
    path, in which an ended episode stands still. The view of matplotlib frames is the same in all
    of them. Raises `BadShape` for an episode that the path does not have, and the errors of
    `FilmStrip`.
    """
    states = _array(path.state.flatten(0, -3)) if path.state.dim() > 2 else _array(path.state[None])
    count, length = states.shape[:2]
    memory = _array(path.memory).reshape(count, length, path.memory.shape[-1])
    if episode not in range(count):
        raise BadShape(f"the path has episodes 0..{count - 1}, got {episode}")
    if every < 1:
        raise BadValue(f"every should be at least 1 step, got {every}")
    strip = FilmStrip(problem, 1, size, renderer)
    if not beyond:
        alive = evaluate(problem.unrelaxed, path).alive
        length = 1 + int(alive.reshape(count, length)[episode, :-1].sum())
    whole = states[episode, :length]
    drawn = []
    for t in range(length):
        strip.append(whole[None, t], memory[episode, None, t], [0])
        if t % every == 0 or t == length - 1:
            drawn.append(strip.frame(0, whole))
    strip.close()
    return np.stack(drawn)


def frames_per_second(problem: Problem) -> int:
    """Frames that show an episode in real time [1/s]; 10 where steps have no duration."""
    simulator = problem.simulator
    if isinstance(simulator, Timed):
        return max(1, round(1 / simulator.dt))
    return DEFAULT_RATE


def save_png(path: str | Path, frame: NDArray) -> Path:
    """Write one frame [height, width, 3]; missing folders are made. Returns the path."""
    from PIL import Image

    _check(frame, 3)
    target = _target(path)
    Image.fromarray(frame).save(target, format="PNG")
    return target


def save_gif(path: str | Path, frames: NDArray, rate: float = 25.0) -> Path:
    """Write frames [n, height, width, 3] as a GIF that repeats; `rate` in frames per second [1/s].

    The format counts in 10 ms and viewers play at most 50 frames per second, so the rate is
    rounded to 50, 33, 25, 20, ... Missing folders are made. Returns the path.
    """
    from PIL import Image

    _check(frames, 4)
    if not rate > 0:
        raise BadValue(f"rate should be a positive number of frames per second, got {rate}")
    images = [Image.fromarray(frame) for frame in frames]
    duration = max(2, round(100 / rate)) * 10  # [ms]
    target = _target(path)
    images[0].save(
        target, format="GIF", save_all=True, append_images=images[1:], duration=duration, loop=0
    )
    return target


def _mujoco(problem: Problem, size: tuple[int, int], renderer: str) -> MujocoRenderer | None:
    """MuJoCo's renderer if it is asked for or can be had."""
    if renderer == "figure":
        return None
    if not isinstance(problem.simulator, HasMujocoModel):
        if renderer == "auto":
            return None
        raise Unavailable(
            f'{problem.name} has no MuJoCo model to draw; use renderer="figure" or "auto"'
        )
    try:
        return MujocoRenderer(problem.simulator.mjcf_model(), size)
    except Unavailable:
        if renderer == "auto":
            return None
        raise


def _array(values: Tensor) -> NDArray:
    """float64 numbers of their own."""
    return values.detach().cpu().numpy().astype(np.float64)


def _check(frames: NDArray, dimensions: int) -> None:
    fine = frames.dtype == np.uint8 and frames.ndim == dimensions and frames.shape[-1] == 3
    if not (fine and len(frames)):
        shape = "[height, width, 3]" if dimensions == 3 else "[n, height, width, 3]"
        raise BadShape(f"expected uint8 {shape}, got {frames.dtype} {list(frames.shape)}")


def _target(path: str | Path) -> Path:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target
