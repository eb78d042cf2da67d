"""Episodes one step at a time, for whoever chooses the actions as they go: environments, trainers.

The other way through a problem, with gradients and all actions at once, is `gradlab.rollout`.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from gradlab.foundation.moment import Moment, beginning
from gradlab.foundation.noise import Noise
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import StepOutcome, evaluate_step
from gradlab.rollouts.passage import compiled_step


class VectorEpisodes:
    """N episodes between two steps: no gradients, and no resets but those asked for by `begin`.

    `now` is where they are. A rollout may go on from there.
    """

    def __init__(self, problem: Problem, count: int) -> None:
        problem.require_whole("an environment")
        simulator, task = problem.simulator, problem.task
        like = {"dtype": problem.dtype, "device": problem.device}
        self.problem = problem
        self.now = beginning(
            torch.zeros(count, simulator.state_dim, **like),
            torch.zeros(count, task.memory_dim, **like),
            events=len(task.events),
            noise_dim=simulator.noise_dim,
            action_dim=simulator.action_dim,
            carry_dim=problem.policy.carry_dim,
        )
        self._process = torch.zeros(count, problem.horizon, simulator.noise_dim, **like)
        self._step = compiled_step(simulator) if problem.compile else simulator.step

    @property
    def time(self) -> NDArray:
        """Steps that each has taken (int64)."""
        return self.now.step.cpu().numpy().astype(np.int64)

    @torch.no_grad()
    def begin(self, rows: list[int], noise: Noise) -> None:
        """The first states of these episodes, one row of noise each."""
        parts = []
        for part, first in zip(self.now, self.problem.start(noise), strict=True):
            part = part.clone()  # what has been handed out stays as it was
            part[rows] = first
            parts.append(part)
        self.now = Moment(*parts)
        self._process[rows] = noise.process

    @torch.no_grad()
    def step(self, action: Tensor) -> StepOutcome:
        """Advance all of them; an episode that is over goes on, and its numbers mean nothing."""
        latest = self.now.step.clamp(max=self.problem.horizon - 1)
        now = self.now._replace(step=latest)
        rows = torch.arange(len(latest), device=latest.device)
        process = self._process[rows, latest.long()]
        # compiled code may give out the same memory again
        after = self._step(now.state, action, process).clone()
        outcome = evaluate_step(self.problem, now, action, after, process)
        self.now = outcome.end
        return outcome

    @torch.no_grad()
    def observe(self) -> Float[Tensor, "N no"]:
        """Observations of now."""
        now = self.now
        return self.problem.task.observe(now.state, now.memory, now.step)
