"""Trainings as artefacts, one per part, and their rows as cells.

Part k goes on from the state of part k − 1, to the bit: a training can be stopped at any moment and
loses the part at work. The log of a training travels with its state; processor seconds are in it,
so that the file of a part is not the same in two runs, but for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from gradlab.foundation.placement import device
from gradlab.problems.problem import Problem
from gradlab.study import Artefact, Cell, Saved
from gradlab.training.algorithm import Algorithm
from gradlab.training.evaluation import Evaluation, evaluate_policy
from gradlab.training.loop import init, update
from gradlab.training.state import TrainingState
from studies.shared.curves import baselines
from studies.shared.curves.arms import Arm, Setup, Trainings, shortened
from studies.shared.curves.baselines import Act, Baseline
from studies.train.algorithms import BASELINES

MEASURED = ("seconds",)  # what a clock fills in
SECONDS = {  # of SHAC, roughly
    "hovering": 50.0, "tracking": 50.0, "landing": 80.0, "racing": 150.0,
    "point_mass_1d": 60.0, "point_mass_navigate": 70.0, "push_t": 50.0, "franka_reach": 80.0,
}  # fmt: skip

Log = list[dict[str, Any]]
Build = Callable[[Artefact, Mapping[str, Saved]], Saved]


# ------------------------------------------------------------------------------------ the units


def artefacts(config: Trainings, arms: Iterable[Arm], build: Build) -> Iterator[Artefact]:
    """Every part of every training; `build` is the study's, which calls `train_part`."""
    for arm in arms:
        count = _parts(config, arm)
        ends = [round(config.points * (k + 1) / count) for k in range(count)]
        for seed in config.seeds:
            for k, end in enumerate(ends):
                payload = {
                    **arm._asdict(),
                    "seed": seed,
                    "share": config.share,
                    "from": ends[k - 1] if k else 0,
                    "to": end,
                    "points": config.points,
                    "evaluations": config.evaluations,
                    "evaluation_seed": config.seed,
                    "compile": config.compile,
                }
                before = (_name(arm, seed, k - 1),) if k else ()
                # a little more for what much comes after, so that trainings go on side by side
                left = 1 + 0.1 * (count - 1 - k)
                cost = config.share * (end - payload["from"]) / config.points * _cost(arm) * left
                yield Artefact(_name(arm, seed, k), build, payload, before, cost)


def cells(config: Trainings, arms: Iterable[Arm]) -> Iterator[Cell]:
    """One per training, which reads its log."""
    for arm in arms:
        last = _parts(config, arm) - 1
        for seed in config.seeds:
            payload = {**arm._asdict(), "seed": seed}
            needs = (_name(arm, seed, last),)
            yield Cell(f"{arm.path}/{seed}", payload, needs, cost=1e-3)


def run_cell(config: Trainings, cell: Cell, needs: Mapping[str, Saved]) -> Iterator[dict[str, Any]]:
    """One row per evaluation."""
    (saved,) = needs.values()
    for row in saved.metadata["log"]:
        yield {**cell.payload, **row}


def _name(arm: Arm, seed: int, part: int) -> str:
    return f"trainings/{arm.path}/{seed}/{part}"


def _parts(config: Trainings, arm: Arm) -> int:
    """The library keeps its state in objects, which go into no file here."""
    return 1 if arm.algorithm in BASELINES else min(config.parts, config.points)


def _cost(arm: Arm) -> float:
    """Rough processor seconds of a whole training, for the progress bar and the order."""
    algorithm = {"bptt": 0.7, "abpt": 1.3, "abpt_full": 1.4, "split": 1.6, "ppo": 0.5}.get(
        arm.algorithm, 1.0
    )
    return algorithm * SECONDS.get(arm.task, 1000.0)


# ----------------------------------------------------------------------------------- one part


def train_part(artefact: Artefact, needs: Mapping[str, Saved], setup: Setup) -> Saved:
    """The state and the log after this part of a training."""
    payload = artefact.payload
    problem, algorithm = setup(Arm(payload["task"], payload["algorithm"], payload["variant"]))
    problem = problem.replace(compile=payload["compile"])
    algorithm = shortened(algorithm, payload["share"])
    if isinstance(algorithm, Baseline):
        return _library(payload, problem, algorithm)
    if artefact.needs:
        before = needs[artefact.needs[0]]
        state, log = TrainingState.unpacked(before, device()), list(before.metadata["log"])
    else:
        state = init(problem, algorithm, payload["seed"])
        log = [_row(problem, 0, _standing(state, 0, 0.0), _looked(payload, problem, state))]
    seconds, skipped = log[-1]["seconds"], log[-1]["skipped"]
    for point in range(payload["from"] + 1, payload["to"] + 1):
        goal = round(algorithm.updates * point / payload["points"])
        begin = time.process_time()
        state, more = _updated(problem, algorithm, state, goal)
        seconds, skipped = seconds + time.process_time() - begin, skipped + more
        seen = _looked(payload, problem, state)
        log.append(_row(problem, point, _standing(state, skipped, seconds), seen))
    return state.packed({"log": log})


def _updated(
    problem: Problem, algorithm: Algorithm, state: TrainingState, goal: int
) -> tuple[TrainingState, int]:
    """The state after so many updates in all, and how many of the new ones changed nothing."""
    skipped = 0
    while int(state.updates) < goal:
        state, info = update(problem, algorithm, state)
        skipped += not bool(info.norm.isfinite())
    return state, skipped


def _looked(payload: Mapping[str, Any], problem: Problem, state: TrainingState) -> Evaluation:
    kept = {"episodes": payload["evaluations"], "seed": payload["evaluation_seed"]}
    return evaluate_policy(problem, state.params, state.buffers, **kept)


def _standing(state: TrainingState, skipped: int, seconds: float) -> dict[str, Any]:
    return {
        "gradient_steps": int(state.memory["count"]),
        "steps": int(state.steps),
        "skipped": skipped,
        "seconds": seconds,
    }


def _row(
    problem: Problem, point: int, standing: Mapping[str, Any], seen: Evaluation
) -> dict[str, Any]:
    """One line of the log. The goal is the task's first event that pays, or one named success."""
    row: dict[str, Any] = {
        "point": point,
        **standing,
        "return": float(seen.returns.double().mean()),
        "length": float(seen.lengths.double().mean()),
    }
    for i, event in enumerate(problem.task.events):
        if event.bonus > 0 or event.name == "success":
            counted = float(seen.counts[:, i].double().mean())
            return row | {"goal": counted, "goal_name": event.name}
    return row


def _library(payload: Mapping[str, Any], problem: Problem, chosen: Baseline) -> Saved:
    """A training of stable-baselines3, whole."""
    marks = [round(chosen.rounds * k / payload["points"]) for k in range(payload["points"] + 1)]
    log: Log = []

    def look(rounds: int, gradient_steps: int, seconds: float, act: Act) -> None:
        seen = baselines.evaluated(problem, act, payload["evaluations"], payload["evaluation_seed"])
        standing = {
            "gradient_steps": gradient_steps,
            "steps": rounds * chosen.episodes,
            "skipped": 0,
            "seconds": seconds,
        }
        log.append(_row(problem, len(log), standing, seen))

    baselines.train(problem, chosen, payload["seed"], marks, look)
    return Saved({}, {"log": log})
