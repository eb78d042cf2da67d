"""The adapter to stable-baselines3 against gymnasium's single environment, step by step."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
import torch

import gradlab
from gradlab.environments import ProblemEnv
from gradlab.foundation.errors import BadValue, Missing
from gradlab.problems.problem import Problem

pytest.importorskip("stable_baselines3", reason="the extra `baselines` is not installed")

from gradlab.environments.baselines import BaselineVecEnv


def racing(horizon: int = 12) -> Problem:
    """The course of four gates, over by time; near the ground, over by collision as well."""
    boxes = ((2.0, 2.0, 1.0), (6.0, 2.0, 0.15), (6.0, -2.0, 1.5), (2.0, 0.0, 1.0))
    return gradlab.make(
        "racing", gates=4, horizon=horizon, spawn_means=boxes, spawn_half_range=(0.2, 0.2, 0.02)
    )


def actions_of(count: int, steps: int, dim: int) -> np.ndarray:
    draws = np.random.default_rng(0)
    return draws.uniform(-1, 0.3, size=(steps, count, dim)).astype(np.float32)  # some sink


@pytest.mark.parametrize("name", ["racing", "lq"])
def test_every_number_is_that_of_the_single_environment(name: str) -> None:
    problem = racing() if name == "racing" else gradlab.make(name, horizon=5)
    count, steps = 6, 40 if name == "racing" else 12
    actions = actions_of(count, steps, problem.simulator.action_dim)
    batch = BaselineVecEnv(problem, count)
    batch.seed(3)
    seen = batch.reset()
    singles = [ProblemEnv(problem) for _ in range(count)]
    for i, one in enumerate(singles):
        np.testing.assert_allclose(one.reset(seed=3 + i)[0], seen[i], rtol=1e-6)
    ends = {"terminated": 0, "truncated": 0}
    returns = np.zeros(count)
    for action in actions:
        seen, rewards, dones, infos = batch.step(action)
        assert rewards.dtype == np.float32 and seen.dtype == np.float32
        for i, one in enumerate(singles):
            last, reward, terminated, truncated, _ = one.step(action[i])
            returns[i] += reward
            assert np.isclose(rewards[i], reward, rtol=1e-5, atol=1e-6)
            assert dones[i] == (terminated or truncated)
            if not dones[i]:
                assert infos[i] == {}
                np.testing.assert_allclose(seen[i], last, rtol=1e-5, atol=1e-6)
                continue
            ends["terminated" if terminated else "truncated"] += 1
            # the last observation of the old episode, and not the first of the next one
            final = infos[i]["terminal_observation"]
            np.testing.assert_allclose(final, last, rtol=1e-5, atol=1e-6)
            assert infos[i]["TimeLimit.truncated"] == (truncated and not terminated)
            assert np.isclose(infos[i]["episode"]["r"], returns[i], rtol=1e-4, atol=1e-5)
            first, _ = one.reset()
            np.testing.assert_allclose(seen[i], first, rtol=1e-6)
            returns[i] = 0.0
    assert ends["truncated"] > 0
    assert ends["terminated"] > 0 or name != "racing"


def test_the_next_episode_does_not_write_over_the_last_observation() -> None:
    batch = BaselineVecEnv("hovering", 3, horizon=2)
    batch.seed(0)
    batch.reset()
    still = np.zeros((3, 4), dtype=np.float32)
    batch.step(still)
    seen, _, dones, infos = batch.step(still)
    assert dones.all()
    kept = [info["terminal_observation"].copy() for info in infos]
    batch.step(still)
    for info, before, first in zip(infos, kept, seen, strict=True):
        np.testing.assert_array_equal(info["terminal_observation"], before)
        assert not np.array_equal(before, first)


def test_ppo_bootstraps_at_time_limits_and_not_at_terminations() -> None:
    """The library adds γ V of the terminal observation to rewards, at time limits alone."""
    from stable_baselines3 import PPO

    problem = racing(horizon=8)
    with torch.random.fork_rng(devices=[]):
        before = np.random.get_state()
        batch = BaselineVecEnv(problem, 8)
        model = PPO("MlpPolicy", batch, n_steps=24, batch_size=32, n_epochs=1, seed=0, device="cpu")
        model.learn(8 * 24)
        np.random.set_state(before)
    buffer = model.rollout_buffer
    assert buffer.full and np.isfinite(buffer.returns).all()
    # the same actions again, clipped as the library does: the difference of rewards is γ V there
    again = BaselineVecEnv(problem, 8)
    again.seed(0)
    again.reset()
    limits = falls = 0
    actions = buffer.actions.reshape(8, 24, -1)  # the library has laid them out by environment
    for step in range(24):
        raw = actions[:, step]
        _, rewards, dones, _ = again.step(np.clip(raw, -1, 1))
        extra = buffer.rewards[step] - rewards
        for i in map(int, np.flatnonzero(~dones)):
            assert abs(extra[i]) < 1e-5
        limits += int((dones & (np.abs(extra) > 1e-5)).sum())
        falls += int((dones & (np.abs(extra) < 1e-5)).sum())
    assert limits > 0 and falls > 0


def test_what_cannot_be_done_for_one_of_a_batch_is_refused() -> None:
    batch = BaselineVecEnv("hovering", 2, horizon=4)
    assert batch.get_attr("problem", [1]) == [batch.problem]
    assert batch.env_is_wrapped(object) == [False, False]
    assert batch.render_mode is None and list(batch.get_images()) == [None, None]
    with pytest.raises(BadValue, match="dt cannot be set for single environments"):
        batch.set_attr("dt", 0.1)
    with pytest.raises(BadValue, match=r"reset cannot be called .* `\.batch`"):
        batch.env_method("reset")


def test_without_the_library_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("stable_baselines3", "stable_baselines3.common.vec_env"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "gradlab.environments.baselines")
    with pytest.raises(Missing, match=r"not installed .*pip install 'gradlab\[baselines\]'$"):
        importlib.import_module("gradlab.environments.baselines")
