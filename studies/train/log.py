"""The log of a run: a row per evaluation, and what the updates since the last one add up to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from gradlab.foundation.files import write_whole
from gradlab.training.algorithm import Algorithm
from gradlab.training.evaluation import Evaluation
from gradlab.training.loop import Info
from gradlab.training.quality import UpdateQuality
from gradlab.training.state import TrainingState

STATE, LOG = "state.safetensors", "log.csv"
Row = dict[str, Any]


class Tally(NamedTuple):
    """Counts over the updates since the last row."""

    updates: int = 0
    clipped: int = 0  # whose gradient was longer than the limit of its norm
    segments: int = 0  # of episodes
    nonfinite: int = 0  # of these, with a number that was not finite

    def add(self, info: Info, algorithm: Algorithm) -> Tally:
        """One more update."""
        limit = algorithm.optimiser.max_norm
        return Tally(
            self.updates + 1,
            self.clipped + (limit is not None and float(info.norm) > limit),
            self.segments + algorithm.episodes,
            self.nonfinite + int(info.nonfinite),
        )

    @property
    def shares(self) -> Row:
        """Of clipped updates, and of episodes that were not finite."""
        if not self.updates:
            return {}
        return {
            "clipped": self.clipped / self.updates,
            "not finite": self.nonfinite / self.segments,
        }


class Standing(NamedTuple):
    """How far a run is: one thing, so that a stop finds a state with all of its rows."""

    state: TrainingState
    log: list[Row]
    since: Tally = Tally()

    def save(self, folder: Path, run: Row) -> None:
        """The state with its log, and the log as a table; each whole or not at all."""
        kept = {"run": run, "log": json.dumps(self.log), "since": list(self.since)}
        self.state.save(folder / STATE, kept)
        self.write_table(folder)

    def write_table(self, folder: Path) -> None:
        """The log as a table, also after a stop between the state's file and its own."""
        frame = pd.DataFrame(self.log)
        write_whole(folder / LOG, lambda path: frame.to_csv(path, index=False))

    @staticmethod
    def read(folder: Path, device: str) -> tuple[Standing, Row | None]:
        """What was saved, and which run it is of."""
        state, metadata = TrainingState.read(folder / STATE, device)
        since = Tally(*metadata.get("since", ()))
        return Standing(state, json.loads(metadata["log"]), since), metadata.get("run")


def row_of(
    state: TrainingState,
    info: Info | None,
    found: Evaluation,
    since: Tally,
    quality: UpdateQuality | None,
) -> Row:
    """What the log says of a state; `info` is that of its last update."""
    mean = found.mean
    row: Row = {
        "updates": int(state.updates),
        "steps": int(state.steps),
        "return": mean.estimate,
        "low": mean.low,
        "high": mean.high,
        "length": float(found.lengths.mean()),
    }
    row |= {f"event {i}": float(mean) for i, mean in enumerate(found.counts.double().mean(0))}
    if info is not None:
        row |= {
            "gradient norm": float(info.norm),
            "critic loss": float(info.loss),
            "training reward": float(info.reward),
            "entropy": float(info.entropy),
        }
    return {**row, **since.shares, **({} if quality is None else quality.columns())}
