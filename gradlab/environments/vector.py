"""N episodes of a problem as one gymnasium batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from gradlab.environments.given import (
    RENDER_MODES,
    checked_render_mode,
    problem_of,
    seeds_of,
    spaces_of,
)
from gradlab.environments.given import (
    autoreset_mode as mode_of,
)
from gradlab.foundation.errors import BadShape, BadValue, NotFinite, UnknownName
from gradlab.foundation.generators import generator
from gradlab.foundation.noise import Noise, concatenate
from gradlab.problems.bounds import action_bound
from gradlab.problems.problem import Problem
from gradlab.rendering import FilmStrip, frames_per_second
from gradlab.rollouts.outcome import StepOutcome
from gradlab.rollouts.stepping import VectorEpisodes

ROUNDING = 4 * float(np.finfo(np.float32).eps)  # this far outside the Box is inside, rounded [1]
OPTIONS = ("noise", "reset_mask")


class ProblemVectorEnv(VectorEnv[NDArray, NDArray, NDArray]):
    """N episodes of a problem as one batch, each at a time of its own.

    `problem` is a name for `gradlab.make`, which gets the `options`, or a `Problem`; its policy
    only says whether actions are squashed, and its `compile` applies to the simulator's step.

    Observations are float32 [N, no], in a Box without bounds. Actions are [N, nu] and are
    computed with in the problem's dtype; the Box is [−1, 1] for policies that squash, that at which
    the simulator clamps where it does (what lies a few float32 roundings outside is clipped, the
    rest refused), else it has no bounds. Rewards are
    float64 [N]: smooth terms plus the bonuses of hard events, undiscounted, so that Σ γ^t r_t of an
    episode is the problem's return of the same actions and noise. An event with `terminates`
    terminates; after `max_episode_steps` (default: the problem's horizon) an episode is truncated,
    and it may be both at once.

    `autoreset_mode`: "NextStep" (the step after the last ignores the action and returns the first
    observation of the next episode with reward 0), "SameStep" (the last step returns it, with
    `final_obs` and `final_info`), or "Disabled" (`reset(options={"reset_mask": mask})` does it).

    `info` has `reward_terms` and `bonuses`, whose sum is the reward, and `events`, whether each
    happened in this step; every entry of name k has a mask `_k`, as in `SyncVectorEnv`.

    Raises `BadValue` for a relaxed problem, a number of environments or steps below 1, or options
    beside a `Problem`; `UnknownName` for a name, an option, an autoreset or a render mode.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  (gymnasium declares it so)
        "render_modes": RENDER_MODES,
        "render_fps": 50,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        problem: str | Problem,
        num_envs: int = 1,
        *,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        renderer: str = "auto",
        width: int = 640,
        height: int = 480,
        **options: Any,
    ) -> None:
        if num_envs < 1:
            raise BadValue(f"expected num_envs of at least 1, got {num_envs}")
        self.problem = problem_of(problem, options, max_episode_steps)
        self.num_envs = num_envs
        self.autoreset_mode = mode_of(autoreset_mode)
        self.render_mode = checked_render_mode(render_mode)
        self.metadata = {
            "render_modes": RENDER_MODES,
            "render_fps": frames_per_second(self.problem),
            "autoreset_mode": self.autoreset_mode,
        }
        self.single_observation_space, self.single_action_space = spaces_of(self.problem)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._episodes = VectorEpisodes(self.problem, num_envs)
        self._over = np.ones(num_envs, dtype=bool)  # waits for a reset
        self._observation = np.zeros(self.observation_space.shape or (), dtype=np.float32)
        self._generators: list[torch.Generator] = []
        self._film = None
        if render_mode is not None:
            self._film = FilmStrip(self.problem, num_envs, (width, height), renderer)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[NDArray, dict[str, Any]]:
        """Start every episode, or those of `options["reset_mask"]` (bool [N]).

        Environment i draws its episodes by `problem.draw(1, generator)` from a generator of its
        own, `gradlab.generator("environment", seed + i)` (or of `seed[i]`), so it does not depend
        on the others; without a seed the generators go on. `options["noise"]`, N episodes drawn by
        `env.problem.draw`, starts those instead. Raises `BadValue`, `BadShape` or `UnknownName` for
        anything else.
        """
        noise, mask = self._options(options or {})
        self._seed(seed)
        rows = _rows(mask)
        self._begin(rows, None if noise is None else noise.take(torch.tensor(rows)))
        return self._observation.copy(), {}

    def step(
        self, actions: NDArray | Tensor
    ) -> tuple[NDArray, NDArray, NDArray, NDArray, dict[str, Any]]:
        """One step of every episode; see the class for what happens at their ends.

        Returns observations, rewards, terminations, truncations and infos. Raises `BadShape` or
        `BadValue` for actions of another shape or outside the action space, `BadValue` before the
        first `reset`, `NotFinite` where the simulation breaks down.
        """
        if not self._generators:
            raise BadValue("step was called before reset; call env.reset(seed=...) first")
        action = self._action(actions)
        playing = ~self._over
        if self.autoreset_mode is AutoresetMode.DISABLED and not playing.all():
            raise BadValue(
                f"environments {np.flatnonzero(~playing).tolist()} are over; call "
                'env.reset(options={"reset_mask": mask}), or use autoreset_mode="NextStep"'
            )
        outcome = self._episodes.step(action)
        reward = np.where(playing, _numbers(outcome.reward), 0.0)
        terminated = playing & _numbers(outcome.terminated)
        truncated = playing & (self._episodes.time >= self.problem.horizon)
        self._observation = _numbers(self._episodes.observe(), np.float32)
        self._check_finite(playing, reward)
        if self._film is not None:
            self._film.append(
                _numbers(self._episodes.now.state),
                _numbers(self._episodes.now.memory),
                _rows(playing),
            )
        info = self._info(outcome, playing)
        again = ~playing
        self._over = terminated | truncated
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            again = self._over
            info = self._final(outcome, again)
        self._begin(_rows(again))
        return self._observation.copy(), reward, terminated, truncated, info

    def render(self) -> tuple[NDArray, ...] | None:  # type: ignore[override]
        """A frame [height, width, 3] (uint8, RGB) of every environment;
        None without a render mode.
        """
        if self._film is None:
            return None
        return tuple(self._film.frame(i) for i in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        """Let go of the renderer."""
        if self._film is not None:
            self._film.close()

    def _seed(self, seed: int | Sequence[int | None] | None) -> None:
        """Generators for the seeds; new ones without seeds, if there are none yet."""
        seeds = seeds_of(seed, self.num_envs)
        if any(s is not None for s in seeds):
            # gymnasium's own generator; nothing is drawn from it here
            super().reset(seed=next(s for s in seeds if s is not None))
        if not self._generators:
            fresh = self.np_random.integers(2**62, size=self.num_envs)
            self._generators = [generator("environment", int(s)) for s in fresh]
        for i, own in enumerate(seeds):
            if own is not None:
                self._generators[i] = generator("environment", own)

    def _begin(self, rows: list[int], noise: Noise | None = None) -> None:
        """First states of these episodes."""
        if not rows:
            return
        if noise is None:
            noise = concatenate([self.problem.draw(1, self._generators[i]) for i in rows])
        self._episodes.begin(rows, noise)
        self._over[rows] = False
        self._observation = _numbers(self._episodes.observe(), np.float32)
        if self._film is not None:
            self._film.begin(
                _numbers(self._episodes.now.state), _numbers(self._episodes.now.memory), rows
            )

    def _options(self, options: dict[str, Any]) -> tuple[Noise | None, NDArray]:
        """The noise and the mask of `reset`."""
        for name in options:
            if name not in OPTIONS:
                raise UnknownName("option of reset:", name, OPTIONS)
        noise, mask = options.get("noise"), options.get("reset_mask")
        if noise is not None:
            if not isinstance(noise, Noise) or noise.count != self.num_envs:
                raise BadShape(
                    f'options["noise"] should be {self.num_envs} episodes of Noise; '
                    f"draw it with env.problem.draw({self.num_envs}, generator)"
                )
            self.problem.check_noise(noise)
        if mask is None:
            return noise, np.ones(self.num_envs, dtype=bool)
        mask = np.asarray(mask)
        if mask.dtype != np.bool_ or mask.shape != (self.num_envs,) or not mask.any():
            raise BadShape(
                f'options["reset_mask"] should be bool [{self.num_envs}] with at least one True, '
                f"got {mask.dtype} {list(mask.shape)}"
            )
        if not self._generators and not mask.all():
            raise BadValue('reset the first time without options["reset_mask"]')
        return noise, mask

    def _action(self, actions: NDArray | Tensor) -> Tensor:
        """Actions as a tensor of the problem, checked."""
        action = torch.as_tensor(actions).detach()
        action = action.to(dtype=self.problem.dtype, device=self.problem.device)
        expected = (self.num_envs, self.problem.simulator.action_dim)
        if tuple(action.shape) != expected:
            raise BadShape(
                f"actions should be {list(expected)} for {self.problem.name}, "
                f"got {list(action.shape)}"
            )
        largest = float(action.abs().max())
        bound = action_bound(self.problem)
        if bound < largest <= bound + ROUNDING:
            return action.clamp(-bound, bound)
        if not largest <= bound or math.isinf(largest):
            wanted = f"lie in [-{bound:g}, {bound:g}]" if bound < math.inf else "be finite"
            raise BadValue(
                f"actions of {self.problem.name} should {wanted}, got {largest} in magnitude; "
                "clip them, for instance with gymnasium.wrappers.vector.ClipAction"
            )
        return action

    def _check_finite(self, playing: NDArray, reward: NDArray) -> None:
        fine = np.isfinite(self._observation).all(-1) & np.isfinite(reward)
        if not (fine | ~playing).all():
            first = int(np.flatnonzero(playing & ~fine)[0])
            raise NotFinite(
                f"{self.problem.name}: observation or reward of environment {first} is not finite "
                f"after step {int(self._episodes.time[first])}; try smaller actions or a smaller dt"
            )

    def _info(self, outcome: StepOutcome, rows: NDArray) -> dict[str, Any]:
        """Terms, bonuses and events of the environments in a mask,
        as `SyncVectorEnv` lays them out.
        """
        if not rows.any():
            return {}
        info: dict[str, Any] = {}
        for key, columns in _columns(self.problem, outcome).items():
            info[key] = {}
            for name, values in columns.items():
                info[key][name] = np.where(rows, values, np.zeros_like(values))
                info[key][f"_{name}"] = rows.copy()
            info[f"_{key}"] = rows.copy()
        return info

    def _final(self, outcome: StepOutcome, ended: NDArray) -> dict[str, Any]:
        """The info of a step after which the `ended` start afresh at once."""
        info: dict[str, Any] = {}
        if ended.any():
            last = np.full(self.num_envs, None, dtype=object)
            for i in np.flatnonzero(ended):
                last[i] = self._observation[i].copy()
            final = self._info(outcome, ended)
            info = {
                "final_obs": last,
                "_final_obs": ended.copy(),
                "final_info": final,
                "_final_info": ended.copy(),
            }
        return info | self._info(outcome, ~ended)


def _columns(problem: Problem, outcome: StepOutcome) -> dict[str, dict[str, NDArray]]:
    """What an info tells of a step, [N] each."""
    return {
        "reward_terms": {name: _numbers(x) for name, x in outcome.terms.items()},
        "bonuses": {name: _numbers(x) for name, x in outcome.bonuses.items()},
        "events": {
            event.name: _numbers(outcome.happened[:, i])
            for i, event in enumerate(problem.task.events)
        },
    }


def _rows(mask: NDArray) -> list[int]:
    """Where a mask is True."""
    return [int(i) for i in np.flatnonzero(mask)]


def _numbers(values: Tensor, dtype: type[np.floating] = np.float64) -> NDArray:
    """A copy in memory of its own; booleans stay what they are."""
    array = values.detach().cpu().numpy()
    return array.copy() if array.dtype == np.bool_ else array.astype(dtype)
