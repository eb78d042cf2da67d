"""What a run writes for others to look at: event files of TensorBoard, and a film of the policy."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import gradlab
from gradlab.foundation.errors import GradlabError, Missing
from gradlab.foundation.generators import generator
from gradlab.problems.problem import Problem
from gradlab.rollouts.rollout import rollout
from gradlab.training.state import TrainingState

FRAMES, SIZE = 100, (480, 360)  # of a film, at most [1] and each [px]
EVENTS, FILM = "tensorboard", "policy.gif"


class Board:
    """The rows of a log as TensorBoard's scalars, by environment steps.

    The folder is written anew from the whole log when a run goes on, so that no row is missing in
    it or is there twice. Raises `Missing` without TensorBoard.
    """

    def __init__(self, folder: Path, log: Sequence[Mapping[str, Any]]) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise Missing(
                f"--tensorboard needs TensorBoard, which is not installed ({error}); "
                "try: pip install 'gradlab[tensorboard]'"
            ) from None
        shutil.rmtree(folder / EVENTS, ignore_errors=True)
        self._writer = SummaryWriter(str(folder / EVENTS))
        for row in log:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> None:
        """One more row."""
        for name, value in row.items():
            if name not in ("updates", "steps") and math.isfinite(value):
                self._writer.add_scalar(name, value, row["steps"])
        self._writer.flush()

    def close(self) -> None:
        """Nothing more will come."""
        self._writer.close()


def film(problem: Problem, state: TrainingState, folder: Path) -> str:
    """One episode of the policy with its mean action as a GIF; what was written, or why not."""
    problem = problem.replace(buffers=state.buffers or None)
    noise = problem.draw(1, generator("evaluation", 0, 0))
    noise = noise._replace(action=torch.zeros_like(noise.action))
    every = max(1, math.ceil(problem.horizon / FRAMES))
    with torch.no_grad():
        path = rollout(problem, problem.bind(state.params), noise)
    try:
        clip = gradlab.rendering.frames(problem, path, every=every, size=SIZE)
    except GradlabError as error:  # the training is done: a film that fails is no loss of it
        return f"no film: {error}"
    rate = gradlab.rendering.frames_per_second(problem) / every
    gradlab.rendering.save_gif(folder / FILM, clip, rate=rate)
    return FILM
