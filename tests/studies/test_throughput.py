"""The throughput study, its JAX twin and the memory of streams. No test looks at a clock."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import gradlab
from estimators.pathwise import FOG
from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.problems.problem import Problem
from gradlab.study import run_study
from studies.shared.medians import median_interval
from studies.throughput import STUDY, cells, contenders, report, stopwatch
from studies.throughput.combinations import COMBINATIONS, GROUP
from studies.throughput.config import Config
from studies.throughput.contenders import CONTENDERS, batched
from studies.throughput.rows import LABELS, STREAM_GROWTH, STREAM_LIMIT
from studies.throughput.stopwatch import (
    LINUX,
    Mixing,
    Race,
    Stream,
    mixed,
    race,
    separately,
)

TINY = {
    "problems": ("hovering",),
    "contenders": ("batched", "pullback", "vmap"),
    "samples": (4, 8),
    "horizons": (3,),
    "hidden": (8,),
    "repeats": 3,
    "combinations": ("sum", "abpt"),
    "stream_counts": (),
}
RACE = Race("hovering", ("batched", "pullback", "vmap"), 4, 3, (8,), 2, "wall", 1, "cpu", 0)
STREAM = Stream("lq", 8_000, 1024, 4, (32,), 1, "cpu", 0)
from tests.helpers.forked import run_code


def flying(dtype: torch.dtype, **changes: object) -> Problem:
    policy = GaussianPolicy(13, 4, hidden=(16, 8))
    return gradlab.make("hovering", horizon=12, policy=policy, dtype=dtype, **changes)


def test_study_gives_a_row_per_contender_and_a_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = {Race: race, Mixing: mixed}
    monkeypatch.setattr(cells, "separately", lambda task: run[type(task)](task))  # no new processes
    result = run_study(STUDY, Config(**TINY), tmp_path, jobs=1)
    together = result.rows[result.rows["kind"] == "combination"]
    assert list(together["contender"]) == ["sum", "abpt"]
    assert (together["over_parts_low"] <= together["over_parts_high"]).all()
    assert "times the sum of its parts (" in result.answer.answer
    races = result.rows[result.rows["kind"] == "race"]
    assert len(races) == 2 * len(TINY["contenders"])
    assert set(races["status"]) == {"ok"}
    slow = races[races["contender"] == "vmap"]
    assert slow["over_vmap"].isna().all()
    quick = races[races["contender"] == "pullback"]
    assert (quick["over_vmap_low"] <= quick["over_vmap"]).all()
    assert (quick["over_vmap"] <= quick["over_vmap_high"]).all()
    assert "times as fast as vmap" in result.summary
    assert (tmp_path / "figure.png").stat().st_size > 0
    kept = set(dataclasses.asdict(Config())) & set(races)
    assert not kept & set(STUDY.measured)


def test_every_peer_and_the_limit_are_set_beside_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours takes 2 s here, and all others 3 s."""
    peers = [name for name in CONTENDERS if name.startswith(("jax", "brax"))]
    contenders = ("pullback", "forward", *peers, "limit")

    def told(task: Race) -> dict[str, Any]:
        times = {name: 2.0 if name in contenders[:2] else 3.0 for name in task.contenders}
        seconds = {name: [time] * task.repeats for name, time in times.items()}
        return {
            "seconds": seconds, "first_seconds": times, "peak_mib": times, "skipped": {}, "load": 0.0,
        }  # fmt: skip

    monkeypatch.setattr(cells, "separately", told)
    config = Config(**{**TINY, "contenders": contenders, "combinations": ()})
    said = run_study(STUDY, config, tmp_path, jobs=1).summary
    for name in peers:
        assert f"1.50 [1.50, 1.50] times as fast as {LABELS[name]}" in said, name
    assert f"0.67 [0.67, 0.67] times the {LABELS['limit']}" in said


def test_contender_that_cannot_run_is_left_out_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = race(dataclasses.replace(RACE, contenders=("pullback", "jax")))
    assert list(result["seconds"]) == ["pullback"]
    assert "peers" in result["skipped"]["jax"]


@pytest.mark.slow
def test_race_runs_in_a_process_of_its_own() -> None:
    result = separately(dataclasses.replace(RACE, contenders=("pullback",)))
    assert len(result["seconds"]["pullback"]) == RACE.repeats
    with pytest.raises(BadValue, match="unknown problem"):
        separately(dataclasses.replace(RACE, problem="hoovering"))


@pytest.mark.parametrize("name", COMBINATIONS)
def test_combinations_have_parts_that_estimate_the_same(name: str) -> None:
    """What a combination is to be compared with: each of its parts, on the same episodes."""
    whole, parts = COMBINATIONS[name](12)
    problem = flying(torch.float32)
    weights = [part.call_weights(problem) for part in parts]
    assert len(parts) == 2 and all(torch.equal(weights[0], other) for other in weights)
    share = 2.0 if name == "sum" else 1.0
    assert torch.allclose(whole.call_weights(problem), share * weights[0])
    assert GROUP % whole.group == 0


@pytest.mark.parametrize(
    "field, value", [("problems", ("x",)), ("contenders", ("x",)), ("combinations", ("x",))]
)
def test_unknown_names_are_refused(field: str, value: tuple[str, ...]) -> None:
    with pytest.raises(UnknownName):
        list(STUDY.cells(Config(**{field: value})))


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(BadValue):
        list(STUDY.cells(Config(samples=(0,))))


def test_contenders_compute_the_same_gradient() -> None:
    problem = flying(torch.float64)
    params = problem.init(torch.Generator().manual_seed(0))
    noise = problem.draw(5, torch.Generator().manual_seed(1))
    mean = batched(problem, params, noise)
    for name in ("pullback", "vmap"):
        rows = CONTENDERS[name](problem, params, noise)()
        for leaf, expected in mean.items():
            torch.testing.assert_close(rows[leaf].mean(0), expected, rtol=1e-10, atol=1e-14)
    found = CONTENDERS["moments"](problem, params, noise)()
    for leaf, expected in mean.items():
        torch.testing.assert_close(found.mean[leaf], expected, rtol=1e-10, atol=1e-14)


def test_interval_of_a_median_covers_as_often_as_it_says() -> None:
    # 9 values: the second to the eighth hold the median unless 8 or 9 fall on one side,
    # with probability 2·(1 + 9)/2⁹ = 3.9 %
    assert median_interval(range(1, 10)) == (5, 2, 8)
    assert median_interval([3.0, 1.0, 2.0], extremes=True) == (2.0, 1.0, 3.0)
    assert np.isnan(median_interval([3.0, 1.0, 2.0])[1:]).all()
    draws = torch.rand(4000, 21, generator=torch.Generator().manual_seed(0)).tolist()
    hits = 0
    for values in draws:
        _, low, high = median_interval(values)
        hits += low <= 0.5 <= high
    expected = 1 - 2 * sum(math.comb(21, k) for k in range(6)) / 2**21  # sixth to sixteenth
    error = math.sqrt(expected * (1 - expected) / 4000)
    assert abs(hits / 4000 - expected) < 5 * error


def test_summary_says_when_memory_grows() -> None:
    import pandas as pd

    row = {"kind": "stream", "problem": "lq", "horizon": 4, "device": "cpu", "threads": 1}
    rows = pd.DataFrame(
        {**row, "samples": n, "status": "ok", "samples_per_second": 1.0, "peak_mib": peak}
        for n, peak in ((1000, 300.0), (10_000, 400.0))
    )
    assert "memory does GROW" in report.summarise(rows)
    rows.loc[1, "peak_mib"] = 301.0
    assert "memory does not grow" in report.summarise(rows)


@pytest.mark.parametrize(
    "dtype, tolerance", [("float64", 1e-12), ("float32", 2e-5)], ids=["float64", "float32"]
)
def test_jax_twin_has_the_same_returns_and_gradients(dtype: str, tolerance: float) -> None:
    """Twin and original share no code: this also checks the simulator's tables against formulas.

    Entries are compared on the scale of each leaf's largest one.
    """
    jax = pytest.importorskip("jax")
    from studies.throughput.peers import jax_quadrotor

    problem = flying(getattr(torch, dtype), spawn_half_range=(2.0, 2.0, 1.7))
    params = problem.init(torch.Generator().manual_seed(0))
    params = {name: 3 * value for name, value in params.items()}  # let it tumble
    noise = problem.draw(64, torch.Generator().manual_seed(1))
    with jax.enable_x64(dtype == "float64"):
        twin = jax_quadrotor.per_sample(problem)
        returns, gradients = twin(*jax_quadrotor.arrays(params, noise))
        returns = torch.tensor(returns.tolist(), dtype=torch.float64)
        gradients = {k: torch.tensor(g.tolist(), dtype=torch.float64) for k, g in gradients.items()}
    policy = problem.bind(params)
    expected = FOG().surrogate(problem, policy, noise).double()
    torch.testing.assert_close(returns, expected, rtol=tolerance, atol=tolerance)
    for name, rows in FOG()(problem, params, noise).per_sample().items():
        scale = rows.abs().max()
        error = (gradients[name] - rows.double()).abs().max() / scale
        assert error < tolerance, f"{name}: {float(error):.1e}"


def test_jax_twin_refuses_what_it_does_not_know() -> None:
    pytest.importorskip("jax")
    from studies.throughput.peers import jax_quadrotor

    with pytest.raises(BadValue, match="hovering"):
        jax_quadrotor.per_sample(flying(torch.float32, integrator="rk4"))


@pytest.mark.slow
@pytest.mark.skipif(not LINUX, reason="reads the high-water mark of Linux")
def test_memory_of_a_stream_does_not_grow() -> None:
    """Five times the samples; keeping each sample's gradient (1,124 bytes here) would add 36 MB."""
    short = separately(STREAM)
    long = separately(dataclasses.replace(STREAM, count=5 * STREAM.count))
    assert short["count"] == STREAM.count and long["count"] == 5 * STREAM.count
    assert long["peak_mib"] < short["peak_mib"] + 12


def test_memory_on_a_gpu_is_torch_s_own_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch allocates above what is held, and unknown of JAX and MuJoCo, which it does not
    see; of a stream all, and not what the host has."""
    peak = 5 * stopwatch.MIB
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 5 * stopwatch.MIB)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: peak)
    assert math.isnan(stopwatch._peak(lambda: None, True))
    peak = 8 * stopwatch.MIB
    assert stopwatch._peak(lambda: None, True) == 3.0
    there = gradlab.make("lq")
    object.__setattr__(there, "device", "cuda")
    measured = SimpleNamespace(single=SimpleNamespace(count=7))
    monkeypatch.setattr(stopwatch, "build", lambda task: (there, {}))
    monkeypatch.setattr(gradlab, "measure", lambda *_, **__: measured)
    assert stopwatch.streamed(Stream("lq", 7, 7, 4, (4,), 1, "cuda", 0))["peak_mib"] == 8.0


def test_jax_multiplies_in_the_same_precision_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default float32 is TensorFloat32 there, and in torch it is not."""
    jax = pytest.importorskip("jax")
    before = jax.config.jax_default_matmul_precision, jax.config.jax_default_device
    monkeypatch.setattr(jax, "devices", lambda kind: [jax.local_devices()[0]])
    try:
        contenders._jax_on("jax", "cpu")
        assert jax.config.jax_default_matmul_precision == before[0]
        contenders._jax_on("jax", "cuda")
        assert jax.config.jax_default_matmul_precision == "highest"
    finally:
        for name, value in zip(("matmul_precision", "device"), before, strict=True):
            jax.config.update(f"jax_default_{name}", value)


@pytest.mark.slow
@pytest.mark.skipif(not LINUX, reason="reads the high-water mark of Linux")
def test_memory_of_a_stream_is_not_that_of_who_started_it() -> None:
    held = torch.ones(int(STREAM_LIMIT * 2**20) // 4, dtype=torch.float64)  # twice the limit
    assert separately(STREAM)["peak_mib"] < STREAM_LIMIT
    del held


@pytest.mark.slow
@pytest.mark.skipif(not LINUX, reason="reads the high-water mark of Linux")
def test_million_samples_stay_below_the_limit() -> None:
    hovering = Stream("hovering", 100_000, 256, 4, (64, 64), 1, "cpu", 0)
    short = separately(hovering)
    long = separately(dataclasses.replace(hovering, count=1_000_000))
    assert long["peak_mib"] < STREAM_LIMIT
    assert long["peak_mib"] < short["peak_mib"] * STREAM_GROWTH


@pytest.mark.slow
def test_two_graphs_serve_every_step_and_horizon() -> None:
    """Counted without generating code, in a process without the checks of annotations."""
    program = """
import torch, gradlab, gradlab.rollouts.passage
from estimators.pathwise import FOG
from gradlab.policies.gaussian import GaussianPolicy
gradlab.rollouts.passage.compile_step = lambda step: torch.compile(
    step, backend="aot_eager", dynamic=False, fullgraph=True
)
problem = gradlab.make("hovering", policy=GaussianPolicy(13, 4, hidden=(8,)), compile=True)
params = problem.init(torch.Generator().manual_seed(0))
for horizon in (6, 3, 12):
    shorter = problem.replace(horizon=horizon)
    FOG()(shorter, params, shorter.draw(4, torch.Generator().manual_seed(1)))
from torch._dynamo.utils import counters
print(counters["stats"]["unique_graphs"])
"""
    done = run_code(program)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.splitlines()[-1]) == 2
