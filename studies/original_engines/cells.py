"""What `original_engines` measures: per simulator and horizon FOG, PG and the jump test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import estimators
import gradlab
from gradlab.gradients.sampling import block_generator
from gradlab.problems.problem import Problem
from gradlab.statistics import OracleGradient, compare
from gradlab.study import Artefact, Cell, Saved, seed_for
from gradlab.study.tables import flat
from gradlab.testing import detect_jump
from studies.original_engines.config import BRAX, GROUP, OURS, Config, check

HIDDEN = (32, 32)  # layers of the random policy
POLICY_SEED = 0
CHUNK = 512  # episodes at once


@lru_cache(maxsize=8)
def problem_of(simulator: str, horizon: int) -> Problem:
    """Brax's ant task without its end of an episode, which would be a hard event of its own.

    Raises `Missing` for one of Brax's engines without the extra `peers`.
    """
    options: dict[str, Any] = {"horizon": horizon, "height": None, "hidden": HIDDEN}
    if simulator in BRAX:
        from gradlab.simulators.brax import brax_ant  # an extra

        own = brax_ant(simulator)
        return gradlab.make("ant", preset="brax", simulator=own, **options)
    return gradlab.make("ant", preset="brax", contact=OURS[simulator], **options)


def artefacts(config: Config) -> Iterator[Artefact]:
    """None: the policy is a seeded random one."""
    check(config)
    yield from ()


def cells(config: Config) -> Iterator[Cell]:
    """One per simulator and horizon."""
    check(config)
    for simulator in config.simulators:
        for horizon in config.horizons:
            payload = {"simulator": simulator, "horizon": horizon}
            yield Cell(f"{simulator}/{horizon}", payload, (), 10.0 * horizon)


def run_cell(config: Config, cell: Cell, needs: Mapping[str, Saved]) -> Iterator[dict[str, Any]]:
    """Two rows of estimates, each against the other, and one of the jump test."""
    simulator, horizon = cell.payload["simulator"], cell.payload["horizon"]
    problem = problem_of(simulator, horizon)
    params = problem.init(block_generator(POLICY_SEED, -1))
    described = {"simulator": simulator, "horizon": horizon}
    used = {
        "fog": (estimators.FOG(), config.samples),
        "pg": (estimators.PG(baseline="loo", group_size=GROUP), config.pg_samples),
    }
    moments = {
        name: gradlab.measure(
            one, problem, params, count, seed_for(config.seed, cell.key, name), chunk_size=CHUNK
        ).single
        for name, (one, count) in used.items()
    }
    truths = {
        "fog": OracleGradient.sampled(moments["pg"], f"pg x {config.pg_samples}"),
        # PG's row stands for its variance: samples of FOG that are not finite are left out here
        "pg": OracleGradient(moments["fog"].mean, f"fog x {config.samples}", moments["fog"]),
    }
    for name, truth in truths.items():
        report = compare(moments[name], truth, batch=GROUP, only=lambda part: part == "all")
        (row,) = report.table()
        yield {"kind": "estimate", **described, "estimator": name, **row}
    level = config.level / len(config.simulators) / len(config.horizons)
    seed = seed_for(config.seed, cell.key, "pairs")
    found = detect_jump(problem, params, count=config.pairs, seed=seed, level=level).jumps[0]
    yield {
        "kind": "jump", **described, "pairs": found.pairs, **flat("share", found.share),
        "p_value": found.p_value, "level": level, "detectable": found.detectable,
    }  # fmt: skip
