"""Frames by MuJoCo's own renderer, for simulators that have a compiled model.

It needs OpenGL: a display, or `MUJOCO_GL=egl` (a GPU or Mesa) or `MUJOCO_GL=osmesa` (software,
the library libOSMesa), set before Python starts. `gradlab.rendering.figures` works without.
"""

from __future__ import annotations

import copy
import os
import sys
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradlab.foundation.errors import Unavailable

CAMERA = "track"  # the name of the camera that follows the body in gymnasium's models
ADVICE = (
    "set MUJOCO_GL=egl (a GPU or Mesa) or MUJOCO_GL=osmesa (software, needs libOSMesa) before "
    'Python starts, or use renderer="figure"'
)


class MujocoRenderer:
    """Draws states of one model. Raises `Unavailable` where MuJoCo cannot draw, with what to do."""

    def __init__(self, model: Any, size: tuple[int, int]) -> None:
        width, height = size
        if sys.platform == "linux" and not _has_display():
            # GLFW would fail with a warning and a log file in the working folder
            raise Unavailable(f"MuJoCo's renderer found no display; {ADVICE}")
        try:
            # a broken library shows as nearly any exception, at import or when a context is made
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import mujoco

                self._mujoco: Any = mujoco
                self._model = copy.copy(model)
                frame = self._model.vis.global_
                frame.offwidth = max(frame.offwidth, width)
                frame.offheight = max(frame.offheight, height)
                self._renderer = mujoco.Renderer(self._model, height, width)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            raise Unavailable(
                f"MuJoCo's renderer does not work here ({reason}); {ADVICE}"
            ) from error
        self._data = self._mujoco.MjData(self._model)

    def frame(self, state: NDArray) -> NDArray:
        """uint8 [height, width, 3] of a state [qpos, ...]."""
        mujoco, model, data = self._mujoco, self._model, self._data
        data.qpos[:] = state[: model.nq]
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)  # cameras and lights may follow the centre of mass
        mujoco.mj_camlight(model, data)
        self._renderer.update_scene(data, self._camera())
        return np.array(self._renderer.render())

    def close(self) -> None:
        """Free the OpenGL context."""
        self._renderer.close()

    def _camera(self) -> Any:
        """The model's own camera, else one that looks at the centre of mass."""
        kind = self._mujoco.mjtObj.mjOBJ_CAMERA
        if self._mujoco.mj_name2id(self._model, kind, CAMERA) >= 0:
            return CAMERA
        camera = self._mujoco.MjvCamera()
        self._mujoco.mjv_defaultFreeCamera(self._model, camera)
        camera.lookat[:] = self._data.subtree_com[0]
        return camera


def _has_display() -> bool:
    """Whether a way to OpenGL is named: a backend without windows, or a window system."""
    if os.environ.get("MUJOCO_GL", "").strip().lower() in ("egl", "osmesa"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
