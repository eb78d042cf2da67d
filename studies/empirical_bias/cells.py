"""What `empirical_bias` measures, in cells of a few seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gradlab.study import Artefact, Cell, Saved, file_name, seed_for
from studies.empirical_bias.ascent import ascent_rows, flow_rows
from studies.empirical_bias.benchmark import benchmark_rows
from studies.empirical_bias.config import Config, check
from studies.empirical_bias.methods import METHODS, usable
from studies.empirical_bias.sweep import sweep_rows
from studies.empirical_bias.toys import Toy, toy_of

SWEEP, ASCENT, FLOW, BENCHMARK = "sweep", "ascent", "flow", "benchmark"


def artefacts(config: Config) -> Iterator[Artefact]:
    """None: nothing is trained."""
    check(config)
    yield from ()


def cells(config: Config) -> Iterator[Cell]:
    """A point of a coordinate, a run of an ascent, a problem of the benchmark each."""
    check(config)
    for toy in map(toy_of, config.toys):
        for place in toy.grid:
            payload = {"part": SWEEP, "toy": toy.name, "coordinate": place}
            yield Cell(f"sweep/{toy.name}/{place:g}", payload, cost=2.0 if toy.exact else 8.0)
    for toy in map(toy_of, config.ascents):
        if toy.exact:
            payload = {"part": FLOW, "toy": toy.name}
            yield Cell(f"flow/{toy.name}", payload, cost=2.0)
        for name in config.ascent_methods:
            if not usable(name, _size(config, toy)):
                continue
            for trial in range(config.trials):
                payload = {"part": ASCENT, "toy": toy.name, "method": name, "trial": trial}
                key = f"ascent/{toy.name}/{file_name(name)}/{trial}"
                yield Cell(key, payload, cost=5.0)
    for problem in config.problems:
        for size in config.sizes:
            payload = {"part": BENCHMARK, "problem": problem, "size": size}
            yield Cell(f"benchmark/{file_name(problem)}/{size}", payload, cost=10.0)


def run_cell(config: Config, cell: Cell, needs: Mapping[str, Saved]) -> Iterator[dict[str, Any]]:
    """The rows of one of them."""
    payload = cell.payload
    if payload["part"] == BENCHMARK:
        own = tuple(name for name in config.methods if name not in METHODS)
        problem, size = payload["problem"], payload["size"]
        seed = seed_for(config.seed, "benchmark", problem, size)
        yield from benchmark_rows(problem, size, config.replicates, own, seed)
        return
    toy = toy_of(payload["toy"])
    size = _size(config, toy)
    updates = (config.updates if toy.exact else config.long_updates) or toy.iterations
    if payload["part"] == FLOW:
        yield from flow_rows(toy, updates)
    elif payload["part"] == ASCENT:
        name, trial = payload["method"], payload["trial"]
        seed = seed_for(config.seed, "ascent", toy.name, trial)
        yield from ascent_rows(toy, name, trial, size, updates, seed)
    else:
        count = config.batches if toy.exact else config.long_batches
        count = config.tennis_batches if toy.name == "tennis" else count
        place = payload["coordinate"]
        seed = seed_for(config.seed, "sweep", toy.name, place)
        yield from sweep_rows(toy, place, config.methods, size, count, config.truth_episodes, seed)


def _size(config: Config, toy: Toy) -> int:
    """N of a batch."""
    return config.tennis_batch if toy.name == "tennis" else toy.batch
