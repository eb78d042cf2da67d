"""Episodes one step at a time, for whoever chooses the actions as they go: environments, trainers.

The other way through a problem, with gradients and all actions at once, is `gradlab.rollout`.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.noise import Noise
from gradlab.outcome import StepOutcome, evaluate_step, nothing_carried
from gradlab.problem import Problem
from gradlab.rollout import compiled_step


class VectorEpisodes:
    """N episodes between two steps: no gradients, and no resets but those asked for by `begin`.

    `state` [N, ns], `memory` [N, nm] and `time` [N] (steps taken, int64) are those of now.
    """

    def __init__(self, problem: Problem, count: int) -> None:
        def zeros(*size: int) -> Tensor:
            return torch.zeros(count, *size, dtype=problem.dtype, device=problem.device)

        simulator, task = problem.simulator, problem.task
        self.problem = problem
        self.state = zeros(simulator.state_dim)
        self.memory = zeros(task.memory_dim)
        self.time = np.zeros(count, dtype=np.int64)  # steps taken
        self._process = zeros(problem.horizon, simulator.noise_dim)
        self._carried = nothing_carried(problem, count)
        self._step = compiled_step(simulator) if problem.compile else simulator.step

    @torch.no_grad()
    def begin(self, rows: list[int], noise: Noise) -> None:
        """The first states of these episodes, one row of noise each."""
        self.state[rows], self.memory[rows] = self.problem.start(noise)
        self._process[rows] = noise.process
        self._carried[rows] = nothing_carried(self.problem, len(rows))
        self.time[rows] = 0

    @torch.no_grad()
    def step(self, action: Tensor) -> StepOutcome:
        """Advance all of them; an episode that is over goes on, and its numbers mean nothing."""
        task, before, memory = self.problem.task, self.state, self.memory
        now = np.minimum(self.time, self.problem.horizon - 1)
        index = torch.as_tensor(now, device=before.device)
        steps = index.to(before.dtype)
        process = self._process[torch.arange(len(now), device=before.device), index]
        # a new tensor each: what has been handed out stays as it was
        after = self._step(before, action, process).clone()
        outcome = evaluate_step(self.problem, before, action, after, memory, steps, self._carried)
        self.state, self.memory = after, task.advance(memory, after, steps).clone()
        self._carried = outcome.carried
        self.time += 1
        return outcome

    @torch.no_grad()
    def observe(self) -> Float[Tensor, "N no"]:
        """Observations of now."""
        steps = torch.as_tensor(self.time, device=self.state.device).to(self.state.dtype)
        return self.problem.task.observe(self.state, self.memory, steps)
