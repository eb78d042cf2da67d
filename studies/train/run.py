"""One training from the command line: progress, a log, checkpoints, and where it stands at the end.

Everything that a run has done is in its folder: `state.safetensors`, from which it goes on to the
bit, and `log.csv`, one row per evaluation. Both are written whole or not at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time

import torch
from torch import Tensor
from tqdm import tqdm

from gradlab.foundation.errors import BadValue
from gradlab.foundation.files import check_writable
from gradlab.foundation.memory import keep_freed_memory
from gradlab.problems.problem import Problem
from gradlab.study.commandline import read_options
from gradlab.tasks.base import Pursuing
from gradlab.training.algorithm import Algorithm
from gradlab.training.evaluation import distances_to_goal, evaluate_policy
from gradlab.training.loop import Info, init, update
from gradlab.training.quality import update_quality
from gradlab.training.state import TrainingState
from studies.train.extras import EVENTS, FILM, Board, film
from studies.train.figures import draw
from studies.train.log import LOG, STATE, Row, Standing, Tally, row_of
from studies.train.options import Options, prepared, settings
from studies.train.report import FIGURE, REPORT, page, report

LAST = 150  # of an episode, in which a flight should be at its goal: three seconds [steps]


def run(options: Options) -> str:
    """Train to the end, or go on with what the folder has; returns the report."""
    keep_freed_memory()
    problem, algorithm = prepared(options)
    check_writable(options.folder)
    now = _begun(options, problem, algorithm)
    board = Board(options.folder, now.log) if options.tensorboard else None
    begin, left = time.monotonic(), algorithm.updates - int(now.state.updates)
    with contextlib.ExitStack() as stack:
        if board is not None:
            stack.callback(board.close)
        now = _trained(options, problem, algorithm, now, board)
    seconds = time.monotonic() - begin if left == algorithm.updates else None
    draw(options, now.log, options.folder / FIGURE)
    written = [STATE, LOG, REPORT, f"{FIGURE}.png", f"{FIGURE}.svg"]
    written += [film(problem, now.state, options.folder)] if options.render else []
    written += [EVENTS] if options.tensorboard else []
    distances = _distances(options, problem, now.state)
    said = report(options, problem, now.log, seconds, written, distances)
    (options.folder / REPORT).write_text(page(options, said, now.log), encoding="utf-8")
    return said


def _distances(options: Options, problem: Problem, state: TrainingState) -> Tensor | None:
    """[N, last] to what the task pursues, over the last three seconds; None where it does not."""
    if not isinstance(problem.task, Pursuing):
        return None
    last = min(LAST, problem.horizon)
    return distances_to_goal(
        problem, state.params, state.buffers, last=last, episodes=options.evaluations
    )


def _trained(
    options: Options, problem: Problem, algorithm: Algorithm, now: Standing, board: Board | None
) -> Standing:
    """All updates that are left."""
    saved = int(now.state.updates)
    steps, begin = int(now.state.steps), time.monotonic()
    with tqdm(total=algorithm.updates, initial=saved, desc=options.folder.name) as bar:
        try:
            while int(now.state.updates) < algorithm.updates:
                state, info = update(problem, algorithm, now.state)
                number, since = int(state.updates), now.since.add(info, algorithm)
                if not options.due(number, algorithm.updates):
                    now = Standing(state, now.log, since)
                else:
                    row = _row(options, problem, algorithm, state, info, since)
                    now = Standing(state, [*now.log, row])
                    now.save(options.folder, settings(options))
                    saved = number
                    if board is not None:
                        board.add(row)
                rate = (int(state.steps) - steps) / (time.monotonic() - begin)
                said = f"return {now.log[-1]['return']:.4g}, {rate:,.0f} steps/s"
                bar.set_postfix_str(said, refresh=False)
                bar.update()
        finally:  # whatever stops it: an update is whole, with its row, or was not made
            if int(now.state.updates) > saved:
                now.save(options.folder, settings(options))
    return now


def _begun(options: Options, problem: Problem, algorithm: Algorithm) -> Standing:
    """A new state, or that of the folder with its log."""
    if options.fresh:
        for name in (STATE, LOG, REPORT, FILM, f"{FIGURE}.png", f"{FIGURE}.svg"):
            (options.folder / name).unlink(missing_ok=True)
        shutil.rmtree(options.folder / EVENTS, ignore_errors=True)
    if not (options.folder / STATE).is_file():
        state = init(problem, algorithm, options.seed)
        return Standing(state, [_row(options, problem, algorithm, state, None, Tally())])
    now, said = Standing.read(options.folder, options.device)
    first = {"noise": "cpu", "observations": None}  # what all were before there was a choice
    ours, theirs = settings(options), said and {**first, **said}
    if theirs != ours:
        differs = [name for name in ours if not theirs or theirs.get(name) != ours[name]]
        raise BadValue(
            f"{options.folder} holds another run (--{differs[0].replace('_', '-')} was "
            f"{(theirs or {}).get(differs[0])!r}, not {ours[differs[0]]!r}); try another --out, or --fresh"
        )
    now.write_table(options.folder)
    return now


def _row(
    options: Options,
    problem: Problem,
    algorithm: Algorithm,
    state: TrainingState,
    info: Info | None,
    since: Tally,
) -> Row:
    """What the log says of a state: how good its policy is, and where asked its gradient."""
    found = evaluate_policy(problem, state.params, state.buffers, episodes=options.evaluations)
    quality = None
    if options.looks(int(state.updates), algorithm.updates):
        quality = update_quality(problem, algorithm, state, options.yardstick)
    return row_of(state, info, found, since, quality)


def main(args: list[str]) -> str:
    """The report of the run that a command line asks for."""
    torch.set_num_threads(1)
    names = [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Options)]
    about = "Trains a policy by a named algorithm, with its critic, on segments of episodes."
    return run(read_options(Options, args, Options(), names, "studies.train", about))
