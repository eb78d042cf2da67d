"""One training from the command line: progress, a log, checkpoints, and where it stands at the end.

Everything that a run has done is in its folder: `state.safetensors`, from which it goes on to the
bit, and `log.csv`, one row per evaluation. Both are written whole or not at all.
"""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pandas as pd
import torch
import tyro
from tqdm import tqdm

from gradlab.foundation.arguments import whole
from gradlab.foundation.errors import BadValue
from gradlab.foundation.files import write_whole
from gradlab.foundation.memory import keep_freed_memory
from gradlab.problems.problem import Problem
from gradlab.study import figures
from gradlab.study.commandline import read_options
from gradlab.training.algorithm import Algorithm
from gradlab.training.evaluation import Evaluation, evaluate_policy
from gradlab.training.loop import Info, init, update
from gradlab.training.state import TrainingState
from studies.train.algorithms import ALGORITHMS, FAMILIES, named

STATE, LOG = "state.safetensors", "log.csv"


class Standing(NamedTuple):
    """How far a run is: one thing, so that a stop finds a state with all of its rows."""

    state: TrainingState
    log: list[dict[str, Any]]


@dataclass(frozen=True)
class Options:
    """What to train, and how to run it."""

    algorithm: Annotated[str, tyro.conf.arg(help=f"One of {', '.join(ALGORITHMS)}.")] = "shac"
    task: Annotated[str, tyro.conf.arg(help=f"One of {', '.join(FAMILIES)}.")] = "hovering"
    seed: int = 0
    """Of the policy, the critic and all noise."""
    updates: int | None = None
    """Updates of the whole training, in which learning rates go down (default: the algorithm's)."""
    out: Annotated[
        str | None, tyro.conf.arg(help_behavior_hint="(default: runs/train/ALGORITHM-TASK-SEED)")
    ] = None
    """Folder of the run. A run that was stopped goes on where it was."""
    every: int = 20
    """Updates between two evaluations and checkpoints."""
    evaluations: int = 64
    """Episodes of an evaluation, of fixed seeds that the training does not use."""
    on_nonfinite: str = "stop"
    """What a gradient that is not finite does: stop, or skip the update and count it."""
    compile: bool = False
    """Compile the step of the simulation: worth it for long trainings."""
    device: str = "cpu"
    """Where tensors live, such as cuda."""
    fresh: bool = False
    """Delete what is in the folder and begin again."""

    @property
    def folder(self) -> Path:
        """That of the run."""
        return Path(self.out or f"runs/train/{self.algorithm}-{self.task}-{self.seed}")

    def check(self) -> None:
        """Raise `BadValue` for numbers out of range."""
        for name in ("every", "evaluations"):
            whole(f"--{name}", getattr(self, name))
        if self.updates is not None:
            whole("--updates", self.updates)


def settings(options: Options) -> dict[str, Any]:
    """What makes a run this run: where it differs, its state is another run's."""
    kept = dataclasses.asdict(options)
    return {name: kept[name] for name in ("algorithm", "task", "seed", "updates", "on_nonfinite")}


def prepared(options: Options) -> tuple[Problem, Algorithm]:
    """The problem and the algorithm that the options name. Raises `UnknownName` or `BadValue`."""
    options.check()
    problem, algorithm = named(options.algorithm, options.task)
    problem = problem.replace(compile=options.compile, device=options.device)
    changes: dict[str, Any] = {"on_nonfinite": options.on_nonfinite}
    if options.updates is not None:
        changes["updates"] = options.updates
    return problem, dataclasses.replace(algorithm, **changes)


def run(options: Options) -> str:
    """Train to the end, or go on with what the folder has; returns the report."""
    keep_freed_memory()
    problem, algorithm = prepared(options)
    now = _begun(options, problem, algorithm)
    begin, updates = time.monotonic(), int(now.state.updates)
    left = algorithm.updates - updates
    saved = updates
    with tqdm(total=algorithm.updates, initial=updates, desc=options.folder.name) as bar:
        try:
            while int(now.state.updates) < algorithm.updates:
                state, info = update(problem, algorithm, now.state)
                number = int(state.updates)
                if number % options.every and number < algorithm.updates:
                    now = now._replace(state=state)
                else:
                    row = _row(state, info, _evaluated(options, problem, state))
                    now = Standing(state, [*now.log, row])
                    _save(options, now)
                    saved = number
                    bar.set_postfix_str(f"return {row['return']:.4g}")
                bar.update()
        finally:  # whatever stops it: an update is whole, with its row, or was not made
            if int(now.state.updates) > saved:
                _save(options, now)
    seconds = time.monotonic() - begin
    _draw(options, now.log)
    return report(options, problem, now.log, seconds if left == algorithm.updates else None)


def _begun(options: Options, problem: Problem, algorithm: Algorithm) -> Standing:
    """A new state, or that of the folder with its log."""
    path = options.folder / STATE
    if options.fresh:
        for name in (STATE, LOG, "return.png", "return.svg"):
            (options.folder / name).unlink(missing_ok=True)
    if not path.is_file():
        state = init(problem, algorithm, options.seed)
        return Standing(state, [_row(state, None, _evaluated(options, problem, state))])
    state, metadata = TrainingState.read(path, options.device)
    theirs, ours = metadata.get("run"), settings(options)
    if theirs != ours:
        differs = [name for name in ours if not theirs or theirs.get(name) != ours[name]]
        raise BadValue(
            f"{options.folder} holds another run (--{differs[0].replace('_', '-')} was "
            f"{(theirs or {}).get(differs[0])!r}, not {ours[differs[0]]!r}); try another --out, or --fresh"
        )
    return Standing(state, json.loads(metadata["log"]))


def _evaluated(options: Options, problem: Problem, state: TrainingState) -> Evaluation:
    return evaluate_policy(problem, state.params, state.buffers, episodes=options.evaluations)


def _row(state: TrainingState, info: Info | None, found: Evaluation) -> dict[str, Any]:
    """What the log says of a state; `info` is that of its last update."""
    mean = found.mean
    row: dict[str, Any] = {
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
            "not finite": int(info.nonfinite),
        }
    return row


def _save(options: Options, now: Standing) -> None:
    kept = {"run": settings(options), "log": json.dumps(now.log)}
    now.state.save(options.folder / STATE, kept)
    frame = pd.DataFrame(now.log)
    write_whole(options.folder / LOG, lambda path: frame.to_csv(path, index=False))


def _draw(options: Options, log: list[dict[str, Any]]) -> None:
    """The learning curve, with the interval of every evaluation."""
    frame = pd.DataFrame(log)
    with figures.style():
        figure, axes = figures.panels(1, 1)
        one = axes[0, 0]
        one.fill_between(frame["steps"], frame["low"], frame["high"], alpha=0.2, linewidth=0)
        one.plot(frame["steps"], frame["return"], marker="o", markersize=3)
        one.set_xlabel("environment steps [1]")
        one.set_ylabel("return of the mean action, undiscounted")
        one.set_title(f"{options.algorithm} on {options.task}, seed {options.seed}")
        figures.save(figure, options.folder / "return")


def report(
    options: Options,
    problem: Problem,
    log: list[dict[str, Any]],
    seconds: float | None,
) -> str:
    """Where the training stands, in one sentence, and what that rests on."""
    first, last = log[0], log[-1]
    best = max(log, key=lambda row: row["return"])
    took = "" if seconds is None else f" in {seconds:.0f} s"
    answer = (
        f"After {last['updates']} updates ({last['steps']:,} steps{took}), {options.algorithm} earns "
        f"{_of(last)} per episode of {options.task}; before training it was {_of(first)}."
    )
    basis = (
        f"Evaluated on {options.evaluations} episodes of {problem.horizon} steps that the training "
        "does not use, with the mean action, undiscounted; 95 % intervals over these episodes, not "
        "over seeds."
    )
    lines = [answer, "", basis, f"Episodes last {last['length']:.0f} steps on average."]
    for i, event in enumerate(problem.task.events):
        found = last[f"event {i}"]
        often = (
            f"{found:.2f} times per episode"
            if event.switches
            else f"in {found:.0%} of the episodes"
        )
        lines.append(f"{event.name}: {often}.")
    if best["high"] > 0 and best["low"] > last["high"]:
        lines.append(f"It had been better: {_of(best)} after {best['updates']} updates.")
    skipped = sum(row.get("not finite", 0) > 0 for row in log)
    if skipped:
        lines.append(
            f"Episodes that were not finite in {skipped} of the {len(log)} updates logged."
        )
    algorithm = ALGORITHMS[options.algorithm]
    lines += ["", f"Algorithm: {algorithm.about}. Numbers: {algorithm.family(options.task).published}.",
              f"All in {options.folder}: {STATE}, {LOG}, return.png"]  # fmt: skip
    return "\n".join(lines)


def _of(row: dict[str, Any]) -> str:
    return f"{row['return']:.4g} [{row['low']:.4g}, {row['high']:.4g}]"


def main(args: list[str]) -> str:
    """The report of the run that a command line asks for."""
    torch.set_num_threads(1)
    names = [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Options)]
    about = "Trains a policy by a named algorithm, with its critic, on segments of episodes."
    return run(read_options(Options, args, Options(), names, "studies.train", about))
