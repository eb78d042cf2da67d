"""The same numbers on a GPU, where there is one (`pytest -m gpu`)."""

from __future__ import annotations

import gc
import importlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import estimators as E
import gradlab
from gradlab.foundation import counters, tensors
from gradlab.foundation.errors import Conflict, Unavailable
from gradlab.foundation.generators import generator
from gradlab.foundation.placement import Placement
from gradlab.gradients.sampling import noise_stream
from gradlab.problems.problem import Problem
from gradlab.study import Study, run_study
from studies.__main__ import studies
from tests.contracts.test_contracts import registered
from tests.contracts.test_devices import TINY, tiny
from tests.helpers.runs import undrawn
from tests.helpers.toy import toy_problem

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

ESTIMATORS = [E.FOG(), E.PG(), E.PG(baseline="loo", group_size=16), E.Split(0.1), E.RelaxedFOG(0.1),
              E.EvolutionStrategies(), E.Mixture((E.FOG(), E.PG()), E.InverseVariance(), source=E.Cross(16))]  # fmt: skip


@pytest.mark.parametrize("name", ["hovering", "tracking", "landing", "racing", "lq"])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.label)
def test_same_gradients_on_cpu_and_gpu(name: str, estimator: E.Estimator) -> None:
    """Noise is the CPU's, so float64 gradients differ by rounding alone."""
    means = []
    for device in ("cpu", "cuda"):
        problem = gradlab.make(name, horizon=8, dtype=torch.float64, device=device, noise="cpu")
        generator = torch.Generator().manual_seed(0)
        params = problem.init(generator)
        noise = problem.draw(32, torch.Generator().manual_seed(1))
        samples = estimator(problem, params, noise)
        assert samples.moments().count == 32 // estimator.group
        means.append({name: value.cpu() for name, value in samples.mean().items()})
    for leaf, value in means[0].items():
        assert (value - means[1][leaf]).abs().max() <= 1e-9 * value.abs().max()


# torch advises TensorFloat32, whose products have three digits: not for gradients that are compared
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning")
def test_compiled_step_on_gpu() -> None:
    problem = gradlab.make("hovering", horizon=8, device="cuda")
    params = problem.init(torch.Generator().manual_seed(0))
    noise = problem.draw(32, torch.Generator().manual_seed(1))
    eager = E.FOG()(problem, params, noise).mean()
    compiled = E.FOG()(problem.replace(compile=True), params, noise).mean()
    for leaf, value in eager.items():  # float32, T = 8 steps
        assert (value - compiled[leaf]).abs().max() <= 1e-4 * value.abs().max()


def test_words_are_the_same_bits_and_normal_numbers_the_same_to_rounding() -> None:
    """Counted on either device; √, log and cos differ by a few units in the last place there."""
    keys = torch.stack([counters.key(generator("gpu", k)) for k in range(3)])
    assert torch.equal(counters.seeds(keys, 500, 2), counters.seeds(keys.cuda(), 500, 2).cpu())
    given = torch.randint(2**32, (6, 10_000), generator=generator("gpu", "words"))
    here, there = (
        torch.stack(counters.philox(tuple(x[:4]), tuple(x[4:]))).cpu()  # pyright: ignore
        for x in (given, given.cuda())
    )
    assert torch.equal(here, there)
    here, there = (counters.normals(k, 500, (8, 4), 0).cpu() for k in (keys, keys.cuda()))
    # numbers of up to 9 from angles of up to 2π: a few units of 2⁻⁵² in each
    assert (here - there).abs().max() <= 1e-13


def test_noise_of_the_device_is_that_device_s_stream() -> None:
    """Drawn there without being asked, the same for any chunk, and the CPU's when counted too."""
    there = gradlab.make("hovering", horizon=8, dtype=torch.float64, device="cuda")
    whole = next(noise_stream(there, 3000, 7, 3000))
    assert whole.action.is_cuda and whole.seed.is_cuda and whole.initial.is_cuda
    parts = [part.action for part in noise_stream(there, 3000, 7, 700)]
    assert torch.equal(torch.cat(parts), whole.action)
    counted = next(noise_stream(there.replace(device="cpu", noise="device"), 3000, 7, 3000))
    assert (counted.action - whole.action.cpu()).abs().max() <= 1e-13
    assert torch.equal(counted.initial, whole.initial.cpu())
    host = next(noise_stream(there.replace(noise="cpu"), 3000, 7, 3000))
    assert not torch.equal(host.action, whole.action)


def test_drawing_there_is_fast() -> None:
    """32,768 episodes; the CPU takes 150 ms and more for theirs."""
    problem = gradlab.make("hovering", horizon=64, device="cuda")
    chunks = noise_stream(problem, 4 * 32_768, 1, 32_768)
    next(chunks)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    next(chunks)
    torch.cuda.synchronize()
    assert time.perf_counter() - begin < 0.1


@pytest.mark.parametrize("name", ["jumps", "original_engines"])
def test_a_study_on_the_gpu(name: str, tmp_path: Path) -> None:
    """The smallest run that there is, its manifest and how it goes on; or why there is none."""
    study = undrawn(Study.of(f"studies.{name}"))
    config = tiny(name) if name in TINY else study.preset("smoke")[0]
    if study.cpu_only is not None:
        with pytest.raises(Unavailable, match="runs on the CPU alone"):
            run_study(study, config, tmp_path, jobs=1, placement=Placement("cuda"))
        return
    first = run_study(study, config, tmp_path, jobs=1, placement=Placement("cuda")).rows
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["device"], manifest["noise"]) == ("cuda", "device")
    assert manifest["gpu"] == torch.cuda.get_device_name()
    goes_on(study, config, tmp_path, Placement("cuda"), first)


def goes_on(study: Study, config: Any, out: Path, there: Placement, first: pd.DataFrame) -> None:
    """Interrupted after all but one cell it makes that one alone; and never on another device."""
    cells = {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*.parquet")}
    lost = min(cells)
    lost.unlink()
    again = run_study(study, config, out, jobs=1, placement=there).rows
    changed = {path for path, made in cells.items() if path.stat().st_mtime_ns != made}
    assert changed == {lost}
    timed = [name for name in first.columns if "seconds" in name]
    # sums that a GPU adds in any order are not ordered
    pd.testing.assert_frame_equal(again.drop(columns=timed), first.drop(columns=timed), rtol=1e-3)
    other = Placement(there.device, "cpu" if there.drawn == "device" else "device")
    with pytest.raises(Conflict, match="noise"):
        run_study(study, config, out, jobs=1, placement=other)


def test_statistics_without_a_look_are_the_same() -> None:
    problem = gradlab.make("hovering", horizon=8, device="cuda")
    params = problem.init(torch.Generator().manual_seed(0))
    samples = E.FOG()(problem, params, problem.draw(64, torch.Generator().manual_seed(1)))
    blind, seen = samples.summed(look=False), samples.summed()
    assert torch.equal(blind.squares, seen.squares)
    for leaf, value in seen.deviation.items():
        assert torch.equal(blind.deviation[leaf], value)


# ------------------------------------------------------------------------------- captured graphs

GRAPHED = {
    name: one
    for name, one in registered().items()
    if name
    not in ("evolution_strategies", "mixture-pilot", "total-propagation-pilot", "mixture-bias")
}
FEW = ("fog", "pg-loo", "difference", "nstep-tiled", "mixture-fixed", "inverse_variance")
LAWS = {
    "compliant": {"preset": "dflex", "contact": "compliant"},
    "smoothed": {"preset": "dflex", "contact": "smoothed"},
    "convex": {"preset": "gymnasium", "contact": "convex"},
    "brax": {"preset": "brax", "contact": "brax"},
}


@pytest.fixture
def released() -> Iterator[None]:
    """Nothing of a graph is left for another test."""
    yield
    gradlab.release_graphs()


def same_in_graphs(estimator: E.Estimator, problem: Problem, count: int = 32) -> None:
    """Three settings by one graph, and statistics; float64, so that all but rounding is seen.

    The steps in the graph are compiled, so that they round otherwise than eager ones.
    """
    graph = problem.replace(compile="graph")
    given = []
    for seed in (0, 1, 2):
        params = problem.init(torch.Generator().manual_seed(seed))
        given.append((params, problem.draw(count, torch.Generator().manual_seed(seed + 9))))
    handed = [estimator(graph, *each) for each in given]
    for each, samples in zip(given, handed, strict=True):
        expected, found = estimator(problem, *each).per_sample(), samples.per_sample()
        for leaf, value in expected.items():
            assert (value - found[leaf]).abs().max() <= 1e-8 * (1e-6 + value.abs().max()), leaf
    plain, sums = (
        gradlab.measure(estimator, one, given[0][0], 3 * 64, 5, chunk_size=64).single
        for one in (problem, graph)
    )
    assert (sums.count, sums.nonfinite) == (plain.count, plain.nonfinite)
    assert sums.variance() == pytest.approx(plain.variance(), rel=1e-7)
    for leaf, value in plain.mean.items():
        assert (value - sums.mean[leaf]).abs().max() <= 1e-8 * (1e-6 + value.abs().max()), leaf


@pytest.mark.usefixtures("released")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in FEW else pytest.mark.slow) for n in sorted(GRAPHED)]
)
def test_graphs_of_estimators(name: str) -> None:
    problem = toy_problem(horizon=4).replace(device="cuda")
    same_in_graphs(GRAPHED[name], problem)


@pytest.mark.usefixtures("released")
@pytest.mark.parametrize("name", ["hovering", "tracking", "landing", "racing", "lq", "gate"])
def test_graphs_of_problems(name: str) -> None:
    problem = gradlab.make(name, hidden=(16, 16), dtype=torch.float64, device="cuda")
    same_in_graphs(E.Split(0.1), problem.replace(horizon=min(problem.horizon, 6)))


@pytest.mark.usefixtures("released")
@pytest.mark.parametrize("law", LAWS)
def test_graphs_of_contact_laws(law: str) -> None:
    made = gradlab.make("hopper", horizon=2, dtype=torch.float64, device="cuda", **LAWS[law])
    same_in_graphs(E.FOG(), made)


@pytest.mark.usefixtures("released")
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning")
def test_graphs_in_float32() -> None:
    problem = gradlab.make("hovering", horizon=8, device="cuda")
    params = problem.init(torch.Generator().manual_seed(0))
    noise = problem.draw(64, torch.Generator().manual_seed(1))
    eager = E.FOG()(problem, params, noise).mean()
    graph = E.FOG()(problem.replace(compile="graph"), params, noise).mean()
    for leaf, value in eager.items():
        assert (value - graph[leaf]).abs().max() <= 1e-4 * value.abs().max()


@pytest.mark.usefixtures("released")
def test_tables_that_are_forgotten_stay_as_long_as_a_graph() -> None:
    """Constants are kept for all, and forgotten where there are too many of them."""
    problem = gradlab.make("hovering", horizon=4, dtype=torch.float64, device="cuda")
    params = problem.init(torch.Generator().manual_seed(0))
    noise = problem.draw(32, torch.Generator().manual_seed(1))
    graph = problem.replace(compile="graph")
    before = E.FOG()(graph, params, noise).mean()
    tensors._tensor.cache_clear()
    gc.collect()
    torch.cuda.empty_cache()
    filling = [torch.full((n,), 7.0, device="cuda", dtype=torch.float64) for n in range(1, 400)]
    after = E.FOG()(graph, params, noise).mean()
    assert filling and all(torch.equal(value, after[leaf]) for leaf, value in before.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(studies()) - {"original_engines"}))
def test_smoke_preset(name: str, tmp_path: Path) -> None:
    study = importlib.import_module(f"studies.{name}").STUDY
    config, _ = study.preset("smoke")
    run = {"jobs": 1, "placement": Placement("cuda")}
    first = run_study(study, config, tmp_path / "out", **run)
    again = run_study(study, config, tmp_path / "out", **run)  # goes on: nothing is left to do
    assert len(first.rows) == len(again.rows) > 0
