"""One episode of a problem at a time."""

from __future__ import annotations

from typing import Any

import gymnasium
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from torch import Tensor

from gradlab.environments.given import RENDER_MODES, seeds_of
from gradlab.environments.vector import ProblemVectorEnv
from gradlab.foundation.errors import BadShape
from gradlab.problems.problem import Problem


class ProblemEnv(gymnasium.Env[NDArray, NDArray]):
    """One episode of a problem at a time: `ProblemVectorEnv` with a batch of one and no autoreset.

    `info` has a number (or a bool) per term, bonus and event. Arguments and errors are those of
    `ProblemVectorEnv`.
    """

    metadata: dict[str, Any] = {"render_modes": RENDER_MODES, "render_fps": 50}  # noqa: RUF012

    def __init__(
        self,
        problem: str | Problem,
        *,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        renderer: str = "auto",
        width: int = 640,
        height: int = 480,
        **options: Any,
    ) -> None:
        self._batch = ProblemVectorEnv(
            problem,
            max_episode_steps=max_episode_steps,
            autoreset_mode=AutoresetMode.DISABLED,
            render_mode=render_mode,
            renderer=renderer,
            width=width,
            height=height,
            **options,
        )
        self.problem = self._batch.problem
        self.render_mode = render_mode
        self.metadata = {
            "render_modes": RENDER_MODES,
            "render_fps": self._batch.metadata["render_fps"],
        }
        self.observation_space = self._batch.single_observation_space
        self.action_space = self._batch.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray, dict[str, Any]]:
        """Start an episode: `problem.draw(1, generator)`, or `options["noise"]`."""
        seeds_of(seed, 1)  # refused here in the project's words
        super().reset(seed=seed)
        observation, _ = self._batch.reset(seed=seed, options=options)
        return observation[0], {}

    def step(self, action: NDArray | Tensor) -> tuple[NDArray, float, bool, bool, dict[str, Any]]:
        """One step; see `ProblemVectorEnv.step`."""
        row = torch.as_tensor(action)
        expected = (self.problem.simulator.action_dim,)
        if tuple(row.shape) != expected:
            raise BadShape(
                f"the action should be {list(expected)} for {self.problem.name}, "
                f"got {list(row.shape)}"
            )
        observation, reward, terminated, truncated, info = self._batch.step(row[None])
        own = {
            key: {name: column[0].item() for name, column in info[key].items() if name[0] != "_"}
            for key in info
            if key[0] != "_"
        }
        return observation[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), own

    def render(self) -> NDArray | None:  # type: ignore[override]
        """A frame [height, width, 3] (uint8, RGB), or None without a render mode."""
        frames = self._batch.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        """Let go of the renderer."""
        self._batch.close()
