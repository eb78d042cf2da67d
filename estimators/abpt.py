"""ABPT: a 0-step and an n-step return along one path."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from estimators.base import Cost, Params, SurrogateEstimator, check_window, samples_of
from estimators.outputs import reads_outputs
from estimators.value import QG, NStep, n_step_along, value_along, window_label, windows
from gradlab.foundation.errors import BadValue
from gradlab.foundation.noise import Noise
from gradlab.gradients.engines import Context
from gradlab.gradients.samples import GradientSamples
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.problem import Problem


@dataclass(frozen=True)
class ABPT(SurrogateEstimator):
    """Half a 0-step return and half an n-step return.

    Estimates: as published (`zero_step="start"`), ½ (ZeroStep + NStep(n)) from s_0, call weights
    (1, ½, ..., ½, 0, ...); with `zero_step="all"`, ½ (QG(all) + tiled NStep(n)), call weights 1.
    Requires: a Q critic. `window=None` means the whole horizon.
    Unbiased when: zero_step="all", and QG(all) and tiled NStep both are.
    Cost: n environment steps and n/T of a backward pass ("start"); T and 1 ("all").
    Reference: ABPT eq. 9 and 10.
    """

    window: int | None = None
    zero_step: Literal["start", "all"] = "start"
    entropy: float = field(default=0.0, hash=False)  # κ of V = Q + κ·entropy [reward]

    @property
    def label(self) -> str:
        form = "first" if self.zero_step == "start" else "all"
        return f"ABPT({window_label(self.window, form)})"

    def check(self, problem: Problem) -> None:
        if self.zero_step not in ("start", "all"):
            raise BadValue(f"ABPT zero_step must be 'start' or 'all', got {self.zero_step!r}")
        check_window(self._window(problem), problem, "ABPT")
        problem.require_q("ABPT")

    def _window(self, problem: Problem) -> int:
        return problem.horizon if self.window is None else self.window

    @property
    def _starts(self) -> Literal["first", "tiled"]:
        return "first" if self.zero_step == "start" else "tiled"

    def surrogate(
        self, problem: Problem, policy: BoundPolicy, noise: Noise
    ) -> Float[Tensor, "*batch"]:
        window, starts = self._window(problem), self._starts
        path, result = windows(problem, policy, noise, window, starts)
        along = problem, policy, noise, path, result
        n_steps = n_step_along(*along, window, starts, "q", self.entropy)
        length = 1 if self.zero_step == "start" else problem.horizon
        return 0.5 * (value_along(*along, length, self.entropy) + n_steps)

    def sample(
        self, problem: Problem, params: Params, noise: Noise, context: Context
    ) -> GradientSamples:
        """As the half sum it is, where the 0-step return needs no policy calls of its own."""
        parts = NStep(self.window, "tiled", entropy=self.entropy), QG(entropy=self.entropy)
        if self.zero_step == "start" or not reads_outputs(self, ABPT, problem, layers=False):
            return super().sample(problem, params, noise, context)
        first, second = samples_of(parts, problem, params, noise, context, layers=False)
        return 0.5 * (first + second)

    def call_weights(self, problem: Problem) -> Float[Tensor, " T"]:
        windows = NStep(self.window, self._starts).call_weights(problem)
        return 0.5 * (windows + QG(at=self.zero_step).call_weights(problem))

    def cost(self, problem: Problem) -> Cost:
        windows = NStep(self.window, self._starts).cost(problem)
        if self.zero_step == "start":  # at the first state of the window
            return windows + Cost(0, 1 / problem.horizon)
        return windows + QG().cost(problem)
