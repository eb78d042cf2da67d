"""PPO, SAC and TD3 of stable-baselines3 (extra `baselines`), trained and looked at like the rest.

Networks are as wide as the project's for the task, observations are standardised where those are,
and everything else is the library's default but what `Baseline` names: nothing was tuned.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gradlab.foundation.errors import Missing
from gradlab.foundation.generators import generator
from gradlab.foundation.placement import Placement
from gradlab.gradients.sampling import NOISE_BLOCK
from gradlab.problems.problem import Problem
from gradlab.rollouts.stepping import VectorEpisodes
from gradlab.training.algorithm import Algorithm
from gradlab.training.evaluation import Evaluation
from studies.train.algorithms import Family

RATES = {"ppo": 1e-3, "sac": 3e-4, "td3": 1e-3}  # Table 4 of ABPT for hovering; the library's
EPOCHS, MINIBATCHES = 5, 4  # of PPO: ABPT's "critic steps per minibatch"; ours

CPU_PART = "what PPO, SAC and TD3 of stable-baselines3 train is"
Act = Callable[[NDArray], NDArray]
Look = Callable[[int, int, float, Act], None]


@dataclass(frozen=True)
class Baseline:
    """One algorithm of the library, for so many steps of so many episodes at once."""

    name: str
    episodes: int
    length: int  # steps between two updates of PPO
    steps: int  # of the whole training
    hidden: tuple[int, ...]
    normed: bool  # observations are standardised
    learning_rate: float
    std: float  # PPO's first exploration [1]
    # of PPO alone
    last_rate: float | None = None  # to which the learning rate goes down; None: it stays
    epochs: int = EPOCHS
    entropy: float = 0.0  # its weight in the loss [1]
    value_clip: float | None = None  # of the critic's change [reward]

    @property
    def rounds(self) -> int:
        """Steps of all episodes at once."""
        return max(1, self.steps // self.episodes)


def baseline(name: str, family: Family, like: Algorithm) -> Baseline:
    """With as many steps as an algorithm of ours has on a task."""
    steps = like.updates * like.episodes * like.length
    own = Baseline(
        name, like.episodes, like.length, steps, family.hidden, family.normed, RATES[name],
        family.std,
    )  # fmt: skip
    return replace(own, **family.ppo) if name == "ppo" else own


def on_cpu(problem: Problem) -> Problem:
    """The problem where the library trains, with the same noise as on the problem's device."""
    noise = Placement(str(problem.device), problem.noise).drawn
    return problem.replace(device="cpu", noise=noise)


def check_installed(name: str) -> None:
    """Raises `Missing`, in one line, without the library."""
    if importlib.util.find_spec("stable_baselines3") is None:
        raise Missing(
            f"{name} is stable-baselines3's, which is not installed; "
            "try: pip install 'gradlab[baselines]'"
        )


def train(problem: Problem, chosen: Baseline, seed: int, rounds: list[int], look: Look) -> None:
    """Train, and show `look` the policy after each of these numbers of rounds (ascending).

    `look(rounds, gradient steps, seconds, act)`: seconds of processor time without its own.
    """
    check_installed(chosen.name)
    problem = on_cpu(problem)
    with torch.random.fork_rng(devices=[]):
        kept = np.random.get_state()
        try:
            _train(problem, chosen, seed, rounds, look)
        finally:
            np.random.set_state(kept)


def _train(problem: Problem, chosen: Baseline, seed: int, rounds: list[int], look: Look) -> None:
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import VecEnv, VecNormalize

    from gradlab.environments.baselines import BaselineVecEnv

    env: VecEnv = BaselineVecEnv(problem, chosen.episodes)
    if chosen.normed:
        env = VecNormalize(env, norm_reward=False, clip_obs=np.inf)
    model = _model(chosen, env, problem.discount, seed)

    def act(obs: NDArray) -> NDArray:
        seen = env.normalize_obs(obs) if isinstance(env, VecNormalize) else obs
        return model.predict(seen, deterministic=True)[0]

    class Watch(BaseCallback):
        """Looks at the policy when it is time, and takes no time for it."""

        def __init__(self) -> None:
            super().__init__()
            self.left, self.begin, self.own = list(rounds), time.process_time(), 0.0

        def _on_step(self) -> bool:
            self.watch()
            return bool(self.left)

        def watch(self) -> None:
            done = model.num_timesteps // chosen.episodes
            while self.left and done >= self.left[0]:
                now = time.process_time()
                # PPO counts epochs, of which each is several steps
                many = MINIBATCHES if chosen.name == "ppo" else 1
                look(self.left.pop(0), model._n_updates * many, now - self.begin - self.own, act)
                self.own += time.process_time() - now

    watch = Watch()
    watch.init_callback(model)
    watch.watch()  # before anything was learnt, if that is asked for
    if watch.left:
        # PPO counts whole rollouts, of which the last may be longer than what is left
        model.learn(rounds[-1] * chosen.episodes, callback=watch)


def _model(chosen: Baseline, env: Any, discount: float, seed: int) -> Any:
    """The library's object."""
    from stable_baselines3 import PPO, SAC, TD3

    shared: dict[str, Any] = {
        "learning_rate": _rate(chosen),
        "gamma": discount,
        "seed": seed,
        "device": "cpu",
    }
    network: dict[str, Any] = {"net_arch": list(chosen.hidden)}
    if chosen.name == "ppo":
        network["log_std_init"] = float(np.log(chosen.std))
        size = chosen.episodes * chosen.length // MINIBATCHES
        return PPO(
            "MlpPolicy", env, n_steps=chosen.length, batch_size=size, n_epochs=chosen.epochs,
            ent_coef=chosen.entropy, clip_range_vf=chosen.value_clip, policy_kwargs=network,
            **shared,
        )  # fmt: skip
    kind = {"sac": SAC, "td3": TD3}[chosen.name]
    noise = {} if chosen.name == "sac" else {"action_noise": _td3_noise(env, chosen.std)}
    return kind(
        "MlpPolicy", env, batch_size=256, learning_starts=10 * chosen.episodes, train_freq=1,
        gradient_steps=1, policy_kwargs=network, buffer_size=200_000, **noise, **shared,
    )  # fmt: skip


def _rate(chosen: Baseline) -> float | Callable[[float], float]:
    """The learning rate, or what the library calls with the share of the training that is left."""
    first, last = chosen.learning_rate, chosen.last_rate
    return first if last is None else lambda left: last + left * (first - last)


def _td3_noise(env: Any, std: float) -> Any:
    from stable_baselines3.common.noise import NormalActionNoise, VectorizedActionNoise

    shape = env.action_space.shape
    return VectorizedActionNoise(
        NormalActionNoise(np.zeros(shape), std * np.ones(shape)), env.num_envs
    )


def evaluated(problem: Problem, act: Act, episodes: int, seed: int) -> Evaluation:
    """`evaluate_policy` of a function of observations (float32), on the very same episodes."""
    parts = [
        _evaluated(problem, act, min(NOISE_BLOCK, episodes - begin), seed, block)
        for block, begin in enumerate(range(0, episodes, NOISE_BLOCK))
    ]
    return Evaluation(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _evaluated(problem: Problem, act: Act, episodes: int, seed: int, block: int) -> Evaluation:
    """The first so many episodes of a block."""
    problem = on_cpu(problem).replace(discount=1.0)
    noise = problem.draw(episodes, generator("evaluation", seed, block))
    run = VectorEpisodes(problem, episodes)
    run.begin(list(range(episodes)), noise)
    total, length = (torch.zeros(episodes, dtype=problem.dtype) for _ in range(2))
    counts = torch.zeros(episodes, len(problem.task.events), dtype=problem.dtype)
    for _ in range(problem.horizon):
        alive = ~run.now.ended
        action = torch.as_tensor(act(run.observe().float().numpy())).to(total)
        outcome = run.step(action)
        total += torch.where(alive, outcome.reward, 0.0)
        length += alive
        counts += outcome.happened & alive[:, None]
        if not alive.any():
            break
    return Evaluation(total, length, counts)
