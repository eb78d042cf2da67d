"""Problems for stable-baselines3, vectorised as one batch (extra `baselines`).

    from stable_baselines3 import PPO
    from gradlab.environments.baselines import BaselineVecEnv

    model = PPO("MlpPolicy", BaselineVecEnv("hovering", 64, horizon=256))

Actions are those of the environment's Box, [−1, 1] where the problem's policy squashes. Who keeps
within it is the library's algorithm: PPO draws from a normal law without bounds and *clips* what it
hands to the environment, while its probabilities are those of the number before that; SAC
*squashes* by tanh and TD3's mean is one, with clipped noise. The project's own policies squash by
tanh and have their noise before it.

Raises `Missing` on import where stable-baselines3 is not installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from gradlab.environments.vector import ProblemVectorEnv
from gradlab.foundation.errors import BadValue, Missing
from gradlab.problems.problem import Problem

try:
    from stable_baselines3.common.vec_env import VecEnv
except ModuleNotFoundError as error:  # an extra
    raise Missing(
        f"stable-baselines3 is not installed ({error}); try: pip install 'gradlab[baselines]'"
    ) from error


class BaselineVecEnv(VecEnv):
    """N episodes of a problem as a `VecEnv`, each at a time of its own, simulated as one batch.

    Arguments, spaces and rewards are those of `ProblemVectorEnv`; rewards come as float32, which
    the library stores. An episode that is over begins anew in the same step. Its `infos[i]` then
    has the last observation of the old one, `terminal_observation`; `TimeLimit.truncated`, whether
    only its time was over, so that the library bootstraps there and nowhere else; and `episode`,
    its return "r", undiscounted, and length "l", as the library's monitor writes them.

    `seed(s)` is used by the next `reset`: environment i has the episodes of seed s + i.
    """

    def __init__(self, problem: str | Problem, num_envs: int = 1, **options: Any) -> None:
        # "Disabled": this class resets, so that info holds only what the library reads
        self.batch = ProblemVectorEnv(
            problem, num_envs, autoreset_mode=AutoresetMode.DISABLED, **options
        )
        self.problem = self.batch.problem
        self._actions = np.zeros(self.batch.action_space.shape or (), dtype=np.float32)
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, dtype=np.int64)
        super().__init__(
            num_envs, self.batch.single_observation_space, self.batch.single_action_space
        )

    def reset(self) -> NDArray:
        """First observations of new episodes, float32 [N, no]."""
        known = any(seed is not None for seed in self._seeds)
        observation, _ = self.batch.reset(seed=self._seeds if known else None)
        self._reset_seeds()
        self._reset_options()
        self._returns[:], self._lengths[:] = 0.0, 0
        self.reset_infos = [{} for _ in range(self.num_envs)]
        return observation

    def step_async(self, actions: NDArray) -> None:
        """Take note of the actions [N, nu]."""
        self._actions = actions

    def step_wait(self) -> tuple[NDArray, NDArray, NDArray, list[dict[str, Any]]]:
        """Observations, rewards, ends and infos after a step; see the class."""
        observation, reward, terminated, truncated, _ = self.batch.step(self._actions)
        over = terminated | truncated
        self._returns += reward
        self._lengths += 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in map(int, np.flatnonzero(over)):
            infos[i] = {
                "terminal_observation": observation[i].copy(),
                "TimeLimit.truncated": bool(truncated[i] and not terminated[i]),
                "episode": {"r": float(self._returns[i]), "l": int(self._lengths[i])},
            }
        if over.any():
            observation, _ = self.batch.reset(options={"reset_mask": over})
            self._returns[over], self._lengths[over] = 0.0, 0
        return observation, reward.astype(np.float32), over, infos

    def close(self) -> None:
        """Let go of the renderer."""
        self.batch.close()

    def get_images(self) -> Sequence[NDArray | None]:
        """A frame per environment, or None without a render mode."""
        frames = self.batch.render()
        return [None] * self.num_envs if frames is None else list(frames)

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute of the batch, once per environment that is asked for."""
        return [getattr(self.batch, attr_name) for _ in self._rows(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refused: the environments are one batch. Raises `BadValue`."""
        raise BadValue(
            f"{attr_name} cannot be set for single environments of a batch; "
            "give it when the environments are made"
        )

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Refused, as `set_attr` is. Raises `BadValue`."""
        raise BadValue(
            f"{method_name} cannot be called for single environments of a batch; "
            "call it on `.batch`, which has all of them"
        )

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """No environment is wrapped by itself."""
        return [False for _ in self._rows(indices)]

    def _rows(self, indices: Any) -> Iterable[int]:
        return self._get_indices(indices)
