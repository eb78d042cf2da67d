"""The least time that every sample's gradient takes on a machine, by its own measured rates.

What cannot be left out is to write [N, P] numbers once, and the matrix products of the policy: of
every call one forward, one backward to its input and one for the gradient of its weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gradlab.foundation.noise import Noise
from gradlab.foundation.placement import wait_for
from gradlab.problems.problem import Problem

SIDE = {"cuda": 8192, "cpu": 1024}  # of the square matrices whose product tells the rate
NUMBERS = {"cuda": 2**28, "cpu": 2**24}  # copied to tell the bandwidth: more than any cache holds


class Limit:
    """Measures both rates at every call of `seconds`, and says what the setting takes by them."""

    def __init__(self, problem: Problem, params: dict[str, Tensor], noise: Noise) -> None:
        like = noise.action
        kind = like.device.type
        side, numbers = (table.get(kind, table["cpu"]) for table in (SIDE, NUMBERS))
        self.bytes = noise.count * sum(x.numel() for x in params.values()) * like.element_size()
        weights = sum(x.numel() for x in params.values() if x.ndim == 2)
        self.operations = 6 * noise.count * problem.horizon * weights
        self._from, self._to = (like.new_ones(numbers) for _ in range(2))
        self._a, self._b = (like.new_ones(side, side) for _ in range(2))

    def __call__(self) -> None:
        """Nothing is done but to measure."""
        self.seconds(lambda: 0.0)

    def seconds(self, clock: Callable[[], float]) -> float:
        """The limit [s], by the bandwidth of a copy (read and written bytes) and by the rate of a
        product of square matrices, measured now."""
        copied = self._time(clock, lambda: self._to.copy_(self._from))
        product = self._time(clock, lambda: torch.mm(self._a, self._b))
        bandwidth = 2 * self._to.numel() * self._to.element_size() / copied if copied else math.inf
        rate = 2 * len(self._a) ** 3 / product if product else math.inf
        return self.bytes / bandwidth + self.operations / rate

    def _time(self, clock: Callable[[], float], work: Callable[[], object]) -> float:
        """Of the second of two runs."""
        work()
        wait_for(self._to.device)
        begin = clock()
        work()
        wait_for(self._to.device)
        return clock() - begin
