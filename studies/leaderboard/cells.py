"""What `leaderboard` measures: a cell per case, budget and estimator."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from estimators.base import Estimator
from gradlab.foundation.errors import BadValue, Missing
from gradlab.foundation.noise import concatenate
from gradlab.foundation.placement import wait_for
from gradlab.gradients.sampling import noise_stream
from gradlab.oracle import ORACLE_SEED
from gradlab.statistics import Moments, OracleGradient, compare
from gradlab.statistics.parts import ALL
from gradlab.study import Artefact, Cell, Saved, file_name, seed_for
from studies.leaderboard.cases import Bench, Case, problem_of, set_up
from studies.leaderboard.config import Config, check
from studies.leaderboard.roster import bought, built, reads_critic, roster, whole_groups
from studies.leaderboard.steps import best_length, length_of, mean_returns, moved
from studies.leaderboard.truths import artefacts_of, case_in, cases_of
from studies.shared.guests import LEAST, blamed

MEASURED = ("seconds_fixed", "seconds_per_sample")  # columns that a clock fills in
CHUNK = 512  # episodes at once
TIMED = (48, 144)  # episodes, in whole groups, at which estimators are timed
ROUNDS = 3  # of timing, all estimators in turn
ERROR, STEP, START, TIME, LEFT_OUT = "error", "step", "start", "time", "left_out"
FEW = "cannot afford"  # begins the reason of who has no samples at a budget


# ------------------------------------------------------------------------------------ artefacts


def artefacts(config: Config) -> Iterator[Artefact]:
    """Policies, critics and truths; per case the unit of lengths, and the times of all."""
    check(config)
    yield from artefacts_of(config)
    for case in cases_of(config):
        payload = {"task": case.task, "stage": case.stage}
        needs = (*case.policy, *case.truth)
        yield Artefact(_unit_name(case), find_unit, payload, needs, cost=4.0)
        payload = {**payload, "estimators": roster(config.estimators)}
        needs = (*case.policy, *_critic(case, config))
        yield Artefact(_times_name(case), time_all, payload, needs, cost=10.0)


def _unit_name(case: Case) -> str:
    return f"units/{case.name}"


def _times_name(case: Case) -> str:
    return f"times/{case.name}"


def _critic(case: Case, config: Config) -> tuple[str, ...]:
    """The artefact with its critic where somebody reads it: fitting one takes a minute."""
    if case.known:
        return ()
    problem = problem_of(case.task)
    asked = any(reads_critic(built(name, problem), problem) for name in roster(config.estimators))
    return case.critic if asked else ()


def find_unit(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """The length of the best step along the true gradient."""
    bench = set_up(case_in(artefact), needs)
    seed = seed_for(ORACLE_SEED, artefact.name)
    unit = best_length(bench.problem, bench.params, _truth(bench).mean, seed)
    return Saved({"unit": torch.tensor(unit, dtype=torch.float64)}, {})


def time_all(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """Seconds of a call and of a sample in it, by name.

    The least of several rounds in which all take turns, since what disturbs a clock makes times
    longer. In time of this process, so that other processes do not count. Those that cannot run
    have none.
    """
    bench = set_up(case_in(artefact), needs)
    able = {
        name: estimator
        for name in artefact.payload["estimators"]
        if not _hindrance(estimator := built(name, bench.problem), bench)
    }
    sizes = {name: [_at_least(n, one.group) for n in TIMED] for name, one in able.items()}
    times: dict[tuple[str, int], list[float]] = {}
    for turn in range(ROUNDS + 1):  # the first warms up
        for (name, estimator), k in itertools.product(able.items(), (0, 1)):
            if turn == 0 and k == 1:
                continue
            seconds = _seconds(name, estimator, bench, sizes[name][k])
            if turn > 0:
                times.setdefault((name, k), []).append(seconds)
    tensors = {}
    for name in able:
        few, many = (min(times[name, k]) for k in (0, 1))
        slope = max(many - few, 0.1 * many) / (sizes[name][1] - sizes[name][0])
        fixed = max(few - slope * sizes[name][0], 0.0)
        tensors[name] = torch.tensor([fixed, slope], dtype=torch.float64)
    return Saved(tensors, {})


def _at_least(count: int, group: int) -> int:
    """Whole groups, no fewer samples than `count`."""
    return -(-count // group) * group


def _seconds(name: str, estimator: Estimator, bench: Bench, count: int) -> float:
    (noise,) = noise_stream(bench.problem, count, 0, count)
    with blamed(name, bench.case.task):
        wait_for(bench.problem.device)
        begin = time.process_time()
        estimator(bench.problem, bench.params, noise).mean()
        wait_for(bench.problem.device)
        return time.process_time() - begin


# ---------------------------------------------------------------------------------------- cells


def cells(config: Config) -> Iterator[Cell]:
    """Per case one of times and one of the start, and one per budget and estimator."""
    check(config)
    for case in cases_of(config):
        critic = _critic(case, config)
        named = {"task": case.task, "stage": case.stage}
        base = (*case.policy, *case.truth, _unit_name(case))
        times = (_times_name(case),)
        yield Cell(f"{case.name}/start", {**named, "kind": START}, base, 4.0)
        yield Cell(f"{case.name}/times", {**named, "kind": TIME}, times, 0.1)
        for (currency, amount), name in itertools.product(
            config.budgets, roster(config.estimators)
        ):
            budget = {"currency": currency, "amount": amount}
            payload = {**named, "kind": STEP, **budget, "estimator": name}
            timed = times if currency == "seconds" else ()
            key = f"{case.name}/{amount:g}-{currency}/{file_name(name)}"
            yield Cell(key, payload, (*base, *critic, *timed), 1.0 if case.known else 4.0)


def run_cell(config: Config, cell: Cell, needs: Mapping[str, Saved]) -> Iterator[dict[str, Any]]:
    """Rows of a case's times, of its start, or of one estimator at one budget."""
    payload = cell.payload
    case = Case(payload["task"], payload["stage"])
    described = {"task": case.task, "stage": case.stage, "known": case.known}
    described |= {"level": config.level}
    if payload["kind"] == TIME:
        rows = _time_rows(needs[_times_name(case)])
    else:
        bench = set_up(case, needs)
        unit = float(needs[_unit_name(case)].tensors["unit"])
        lengths = [unit * length for length in config.lengths]
        if payload["kind"] == START:
            rows = _start_rows(config, bench, lengths)
        else:
            timed = needs.get(_times_name(case))
            rows = _estimator_rows(config, bench, lengths, payload, timed)
            described |= {k: payload[k] for k in ("currency", "amount", "estimator")}
    for row in rows:
        yield {**described, **row}


def _time_rows(saved: Saved) -> Iterator[dict[str, Any]]:
    for name, (fixed, slope) in saved.tensors.items():
        yield {
            "kind": TIME,
            "estimator": name,
            "seconds_fixed": float(fixed),
            "seconds_per_sample": float(slope),
        }


def _start_rows(config: Config, bench: Bench, lengths: Sequence[float]) -> Iterator[dict[str, Any]]:
    """The objective before any step and after steps along the truth, for every repeat."""
    truth = _truth(bench)
    points = moved(bench.params, truth.mean, [0.0, *lengths])
    for repeat in range(config.repeats):
        values = mean_returns(bench.problem, points, config.episodes, _judge(config, bench, repeat))
        for length, value in zip((0.0, *config.lengths), values.tolist(), strict=True):
            yield {
                "kind": START,
                "repeat": repeat,
                "length": length,
                "value": value,
                "unit": lengths[0] / config.lengths[0],
                "truth": truth.name,
                "truth_relative_stderr": truth.relative_stderr,
            }


def _estimator_rows(
    config: Config,
    bench: Bench,
    lengths: Sequence[float],
    payload: Mapping[str, Any],
    timed: Saved | None,
) -> Iterator[dict[str, Any]]:
    """The error of the mean of all that the budget buys, and the objective after every step."""
    name = payload["estimator"]
    estimator = built(name, bench.problem)
    reason = _hindrance(estimator, bench)
    count = 0 if reason else _samples(name, estimator, bench, payload, timed)
    if not count:
        each = f"a sample costs {estimator.cost(bench.problem).environment_steps:g} steps"
        reason = reason or f"{FEW} one group of {estimator.group} samples; {each}"
        yield {"kind": LEFT_OUT, "reason": reason}
        return
    gradients = _Gradients(estimator, bench, count)
    rows = []
    with blamed(name, bench.case.task):
        seeds = [_episodes(config, bench, repeat) for repeat in range(config.repeats)]
        for repeat, direction in enumerate(gradients.means(seeds)):
            rows += _step_rows(config, bench, lengths, repeat, direction)
    total = gradients.total
    if total is None or total.count < LEAST:
        lost = f"only {0 if total is None else total.count} of its means are finite"
        yield {"kind": LEFT_OUT, "reason": f"{lost}; look for a division by zero"}
        return
    yield from rows
    cost = estimator.cost(bench.problem)
    report = compare(total, _truth(bench), batch=count, only=lambda part: part == ALL)
    yield {
        **report.table()[0],
        "kind": ERROR,
        "label": estimator.label,
        "samples": count,
        "group": estimator.group,
        "needs_critic": reads_critic(estimator, bench.problem),
        "environment_steps": cost.environment_steps,
        "backward_passes": cost.backward_passes,
    }


def _step_rows(
    config: Config,
    bench: Bench,
    lengths: Sequence[float],
    repeat: int,
    direction: Mapping[str, torch.Tensor],
) -> Iterator[dict[str, Any]]:
    """The squared distance of one gradient to the truth, and the objective after steps along it."""
    truth = {name: leaf.to(bench.problem.device) for name, leaf in _truth(bench).mean.items()}
    error = length_of({name: value - truth[name] for name, value in direction.items()}) ** 2
    points = moved(bench.params, direction, lengths)
    values = mean_returns(bench.problem, points, config.episodes, _judge(config, bench, repeat))
    for length, value in zip(config.lengths, values.tolist(), strict=True):
        yield {
            "kind": STEP,
            "repeat": repeat,
            "length": length,
            "value": value,
            "squared_error": error,
        }


def _samples(
    name: str,
    estimator: Estimator,
    bench: Bench,
    payload: Mapping[str, Any],
    timed: Saved | None,
) -> int:
    """How many samples the budget buys, in whole groups."""
    if timed is None:
        return bought(payload["amount"], estimator, bench.problem)
    fixed, slope = timed.tensors[name].tolist()
    return whole_groups((payload["amount"] - fixed) / slope, estimator.group)


def _truth(bench: Bench) -> OracleGradient:
    """∇J, which the cell's needs hold or a formula gives."""
    assert bench.truth is not None
    return bench.truth


def _hindrance(estimator: Estimator, bench: Bench) -> str:
    """Why it cannot run on the problem; empty if it can."""
    try:
        estimator.check(bench.problem)
    except (Missing, BadValue) as error:
        return str(error)
    return ""


class _Gradients:
    """Batches of one estimator, each as a mean, and the statistics of all of them."""

    def __init__(self, estimator: Estimator, bench: Bench, count: int) -> None:
        self.estimator, self.bench, self.count = estimator, bench, count
        self.total: Moments | None = None

    def means(self, seeds: Sequence[int]) -> Iterator[dict[str, torch.Tensor]]:
        """The mean of the batch of every seed, {name: [*param]} in float64, in order.

        Samples that are not finite are left out. Small batches are run together: a call takes long
        beside its samples.
        """
        size = max(1, CHUNK // self.estimator.group) * self.estimator.group
        together = max(1, size // self.count)
        for first in range(0, len(seeds), together):
            some = range(first, min(first + together, len(seeds)))
            streams = [noise_stream(self.bench.problem, self.count, seeds[b], size) for b in some]
            batches: list[Moments | None] = [None for _ in some]
            done = 0
            for chunk in zip(*streams, strict=True):  # one of each seed, equally long
                samples = self.estimator(
                    self.bench.problem, self.bench.params, concatenate(list(chunk))
                )
                length = chunk[0].count
                for k, b in enumerate(some):
                    part = samples.rows(k * length, (k + 1) * length)
                    pilot = next((m.pilot for m in (self.total, *batches) if m is not None), None)
                    piece = part.moments(start=b * self.count + done, pilot=pilot)
                    batches[k] = _merged(batches[k], piece)
                done += length
            for batch in batches:
                assert batch is not None
                self.total = _merged(self.total, batch)
                yield batch.mean


def _merged(first: Moments | None, second: Moments) -> Moments:
    return second if first is None else first.merge(second)


def _episodes(config: Config, bench: Bench, repeat: int) -> int:
    """The seed of a repeat's gradients: all estimators begin with the same episodes."""
    return seed_for(config.seed, bench.case.task, bench.case.stage, "gradients", repeat)


def _judge(config: Config, bench: Bench, repeat: int) -> int:
    """The seed of the fresh episodes by which a repeat's steps are judged."""
    return seed_for(config.seed, bench.case.task, bench.case.stage, "judged", repeat)
