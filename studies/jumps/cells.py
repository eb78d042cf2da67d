"""What `jumps` measures: per case the jump test of return and terms, and the bias of FOG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import estimators
import gradlab
from estimators.base import Estimator
from gradlab.oracle import ORACLE_SEED, closed_forms
from gradlab.problems.problem import Problem
from gradlab.statistics import Moments, OracleGradient, compare
from gradlab.statistics.jumps import Jump
from gradlab.statistics.saving import from_tensors, to_tensors
from gradlab.study import Artefact, Cell, Saved, seed_for
from gradlab.study.tables import flat
from gradlab.testing import detect_jump
from studies.jumps.cases import STAGE, Case, Params, case_of
from studies.jumps.config import BATCH, GROUP, Config, check
from studies.shared.borrowed import borrowed

CHUNK = 512  # episodes at once
BIAS, RETURN, TERMS = "bias", "return", "terms"  # what a cell measures
COSTS = {"known": 1.0, "flight": 8.0, "runner": 20.0}


# ------------------------------------------------------------------------------------ artefacts


def artefacts(config: Config) -> Iterator[Artefact]:
    """The policies of flights, and truths: the committed ones, and those by sampling."""
    check(config)
    flights = [case for case in map(case_of, config.cases) if case.family == "flight"]
    for task in dict.fromkeys(case.task for case in flights):
        yield borrowed(f"policies/{task}", f"policies/{task}")
    for case in flights:
        if not case.relaxed:
            yield borrowed(_truth_name(case), f"truths/{case.task}-{STAGE}-hard")
            continue
        payload = {"case": case.name, "count": config.pg_samples}
        yield Artefact(_truth_name(case), sample_truth, payload, (f"policies/{case.task}",), 20.0)


def _truth_name(case: Case) -> str:
    return f"truths/{case.name}"


def sample_truth(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """∇J of a relaxed flight's own objective by PG, which is not FOG's own sum."""
    case, count = case_of(artefact.payload["case"]), artefact.payload["count"]
    problem = case.problem(horizon=1)
    params = case.policy(problem, needs[f"policies/{case.task}"])
    pg = estimators.PG(baseline="loo", group_size=GROUP)
    moments = _measured(pg, problem, params, count, seed_for(ORACLE_SEED, artefact.name))
    name = f"PG x {count}"
    truth = OracleGradient(moments.mean, name, moments)
    return Saved(to_tensors(truth, compact=True), {"name": name, "seconds": 0.0})


def _measured(
    estimator: Estimator, problem: Problem, params: Params, count: int, seed: int
) -> Moments:
    return gradlab.measure(estimator, problem, params, count, seed, chunk_size=CHUNK).single


# ---------------------------------------------------------------------------------------- cells


def cells(config: Config) -> Iterator[Cell]:
    """Per case one of the return, one of the terms, and one of FOG's bias where there is a
    truth."""
    check(config)
    for case in map(case_of, config.cases):
        policy = (f"policies/{case.task}",) if case.family == "flight" else ()
        for part in (RETURN, TERMS, BIAS):
            if part == BIAS and case.family == "runner":
                continue
            truth = (_truth_name(case),) if part == BIAS and policy else ()
            payload = {"case": case.name, "part": part}
            yield Cell(f"{case.name}/{part}", payload, (*policy, *truth), COSTS[case.family])


class Bench(NamedTuple):
    """A case that is set up."""

    case: Case
    problem: Problem
    params: Params


def run_cell(config: Config, cell: Cell, needs: Mapping[str, Saved]) -> Iterator[dict[str, Any]]:
    """Rows of one case: tests at every number of pairs, tests of terms, or FOG's bias."""
    case = case_of(cell.payload["case"])
    problem = case.problem(config.horizon)
    params = case.policy(problem, needs.get(f"policies/{case.task}"))
    bench = Bench(case, problem, params)
    rows = {RETURN: _return_rows, TERMS: _term_rows}
    described = {"case": case.name, "family": case.family, "built": case.built}
    if cell.payload["part"] == BIAS:
        found = [_bias_row(config, bench, needs.get(_truth_name(case)))]
    else:
        found = rows[cell.payload["part"]](config, bench)
    for row in found:
        yield {**described, "horizon": problem.horizon, **row}


def _return_rows(config: Config, bench: Bench) -> Iterator[dict[str, Any]]:
    level = config.level / len(config.cases)
    runner = bench.case.family == "runner"
    seed = seed_for(config.seed, bench.case.name, "pairs")
    for count in config.runner_pairs if runner else config.pairs:
        found = detect_jump(bench.problem, bench.params, count=count, seed=seed, level=level)
        yield _test_row(found.jumps[0], "return", level)


def _term_rows(config: Config, bench: Bench) -> Iterator[dict[str, Any]]:
    """The level of a case is shared by its terms."""
    runner = bench.case.family == "runner"
    count = config.runner_term_pairs if runner else config.term_pairs
    level = config.level / len(config.cases)
    seed = seed_for(config.seed, bench.case.name, "pairs of terms")
    found = detect_jump(
        bench.problem, bench.params, of="terms", count=count, seed=seed, level=level
    )
    for jump in found.jumps:
        yield _test_row(jump, "term", level / len(found.jumps))


def _test_row(jump: Jump, kind: str, level: float) -> dict[str, Any]:
    return {
        "kind": kind,
        "objective": jump.name,
        "pairs": jump.pairs,
        **flat("statistic", jump.statistic),
        **flat("share", jump.share),
        "p_value": jump.p_value,
        "level": level,
        "detectable": jump.detectable,
        "skewness": jump.skewness,
    }


def _bias_row(config: Config, bench: Bench, saved: Saved | None) -> dict[str, Any]:
    """FOG against the gradient of the case's own objective."""
    if saved is None:
        exact = closed_forms.solve(bench.problem, bench.params).gradient
        truth = OracleGradient.exact(exact, "closed form")
    else:
        prefix = "" if bench.case.relaxed else "|"
        truth = from_tensors(saved.tensors, saved.metadata, prefix)
    seed = seed_for(config.seed, bench.case.name, "bias")
    moments = _measured(estimators.FOG(), bench.problem, bench.params, config.samples, seed)
    report = compare(moments, truth, batch=BATCH, only=lambda part: part == "all")
    (row,) = report.table()
    return {"kind": "bias", "estimator": "fog", **row}
