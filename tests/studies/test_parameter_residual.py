"""The parameter residual: trainings that resume, distances by hand, the rules of the verdict."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from scipy import stats

from gradlab.foundation.errors import BadValue, GradlabError, UnknownName
from gradlab.statistics import Interval
from gradlab.study import Artefact, Saved, read_rows, run_study
from gradlab.study.cells import in_order
from gradlab.tasks.hovering import Hovering
from gradlab.training.loop import init, train
from gradlab.training.state import TrainingState
from studies.parameter_residual import STUDY, report
from studies.parameter_residual.answer import DEPENDS, HOLDS, NOT, UNTOLD, answer, claim, one
from studies.parameter_residual.cells import arms, artefacts, cells, seeds_of
from studies.parameter_residual.config import PRESETS, Config
from studies.parameter_residual.distances import action_gap, distance, mean_actions, visit
from studies.parameter_residual.rows import Found, Gap, over_seeds, paired_ratio
from studies.parameter_residual.trainings import (
    FULL,
    NONE,
    Arm,
    Sizes,
    checkpoints,
    stage_name,
    train_stage,
)
from tests.helpers.runs import shared

TINY = Config(
    parts=("rates", "all"),
    seeds=2,
    checkpoints=2,
    updates=2,
    episodes=4,
    length=2,
    horizon=4,
    hidden=(8,),
    passes=1,
    evaluations=4,
    samples=64,
    pairs=8,
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def run(out: Path) -> None:
        run_study(STUDY, TINY, out, jobs=1)

    return shared(tmp_path_factory, "parameter_residual", run)


@pytest.fixture(scope="module")
def rows(out: Path) -> pd.DataFrame:
    return read_rows(out)


@pytest.fixture(scope="module")
def found(rows: pd.DataFrame) -> Found:
    return Found.of(rows)


# ------------------------------------------------------------------------------------- trainings


def artefact_of(arm: Arm, until: int) -> Artefact:
    named = {artefact.name: artefact for artefact in artefacts(TINY)}
    return named[stage_name(0, arm, until)]


def stage(arm: Arm, until: int, before: Saved | None = None) -> Saved:
    artefact = artefact_of(arm, until)
    return train_stage(artefact, {} if before is None else {artefact.needs[0]: before})


def test_stages_are_one_training() -> None:
    """In two artefacts, each through a file's order of names, as in one go: to the bit."""
    arm = Arm("abpt", "rates")
    first = stage(arm, 1)
    shuffled = Saved(dict(sorted(first.tensors.items())), first.metadata)
    last = TrainingState.unpacked(stage(arm, 2, shuffled))
    sizes = Sizes.of(TINY)
    whole = train(sizes.problem("rates"), sizes.algorithm("abpt"), seed=seeds_of(TINY, 0)[0])
    same_states(last, whole)


def same_states(one: TrainingState, other: TrainingState) -> None:
    left, right = one.packed(), other.packed()
    assert left.metadata == right.metadata
    assert all(torch.equal(left.tensors[name], right.tensors[name]) for name in right.tensors)


def test_all_trainings_of_a_seed_begin_alike() -> None:
    """One update in: the same start; those that detach nothing but the noise differ by it alone."""
    sizes = Sizes.of(TINY)
    first = init(sizes.problem(), sizes.algorithm("nstep"), seeds_of(TINY, 0)[0])
    again = init(sizes.problem("all"), sizes.algorithm("abpt"), seeds_of(TINY, 0)[0])
    same_states(first, again)
    full, other = (
        TrainingState.unpacked(stage(arm, 1)) for arm in (FULL, FULL._replace(other=True))
    )
    assert distance(full.params, first.params) > 0
    assert distance(full.params, other.params) > 0
    assert int(full.seed) != int(other.seed)


def test_parts_are_detached_by_name() -> None:
    sizes = Sizes.of(TINY)
    for part, expected in {
        NONE: (),
        "rates": ("rates",),
        "all": ("position", "attitude", "velocity", "rates"),
    }.items():
        task = sizes.problem(part).task
        assert isinstance(task, Hovering) and task.detached == expected


def test_every_artefact_knows_all_that_decides_it() -> None:
    """Two seeds, and two options of a training, are never the same artefact."""
    ordered = in_order(artefacts(TINY), cells(TINY))
    assert len(ordered) == len(arms(TINY)) * TINY.seeds * len(checkpoints(TINY))
    payloads = [repr(sorted(artefact.payload.items())) for artefact in ordered.values()]
    assert len(set(payloads)) == len(payloads)
    longer = dataclasses.replace(TINY, learning_rate=1e-3)
    other = next(iter(artefacts(longer)))
    assert other.payload != ordered[other.name].payload


# ------------------------------------------------------------------------------------- distances


def test_distances_by_hand() -> None:
    one = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]])}
    other = {"a": torch.tensor([1.0, 5.0]), "b": torch.tensor([[7.0]])}
    assert distance(one, other) == 5.0 and distance(one, one) == 0.0


def test_a_gap_in_actions_is_a_share_of_their_range() -> None:
    """A last layer of zeros acts by its bias alone: tanh(b) in every state."""
    problem = Sizes.of(TINY).problem()
    params = problem.init(torch.Generator().manual_seed(0))
    visited = visit(problem, params, 4, TINY.length, 0)
    last = [name for name in params if name.endswith("weight")][-1]
    bias = last.replace("weight", "bias")
    flat = {**params, last: torch.zeros_like(params[last])}
    high = {**flat, bias: torch.full_like(params[bias], 0.5)}
    low = {**flat, bias: torch.full_like(params[bias], -0.5)}
    acted = mean_actions(problem, high, visited.obs)
    gap = float(acted.flatten()[0]) * 2 / 2
    assert math.isclose(action_gap(problem, high, low, visited), gap, rel_tol=1e-5)
    assert action_gap(problem, params, params, visited) == 0.0
    # segments begin at the first step and after every `length` of them
    assert sorted(set(visited.segments.step.tolist())) == [0.0, 2.0]


# ---------------------------------------------------------------------------------- over seeds


def test_intervals_over_seeds_are_students() -> None:
    values = [1.0, 2.0, 4.0, 5.0]
    mean = over_seeds(values)
    low, high = stats.t.interval(0.95, 3, loc=3.0, scale=stats.sem(values))
    assert math.isclose(mean.low, low) and math.isclose(mean.high, high)
    many = over_seeds(values, many=5)
    low, high = stats.t.interval(1 - 0.05 / 5, 3, loc=3.0, scale=stats.sem(values))
    assert math.isclose(many.low, low) and math.isclose(many.high, high)
    assert math.isnan(over_seeds([1.0]).low)


def gap(number: int, relative: float) -> Gap:
    return Gap(number, 2, "abpt", "all", False, "full", 1.0, 1.0, relative, 1.0, 0.0, 0.0, 0.0)


def test_ratios_are_paired_by_seed() -> None:
    """Twice in every seed, however far seeds are from each other."""
    top, bottom = [gap(k, 2.0 * 10**k) for k in range(3)], [gap(k, 10.0**k) for k in range(3)]
    ratio = paired_ratio(top, bottom, "relative")
    assert all(math.isclose(end, 2.0) for end in ratio)


@pytest.mark.parametrize(
    "ratio, word",
    [
        (Interval(0.5, 0.3, 0.99), HOLDS),
        (Interval(0.95, 0.92, 0.99), HOLDS),
        (Interval(0.95, 0.91, 1.01), NOT),
        (Interval(1.5, 1.1, 2.0), NOT),
        (Interval(0.8, 0.5, 1.2), UNTOLD),
        (Interval(math.nan, math.nan, math.nan), UNTOLD),
    ],
)
def test_the_rule_of_one_part(ratio: Interval, word: str) -> None:
    assert one(ratio) == word


YES, NO, OPEN = Interval(0.5, 0.4, 0.6), Interval(2.0, 1.5, 3.0), Interval(1.0, 0.5, 2.0)


@pytest.mark.parametrize(
    "ratios, word",
    [
        ([YES, YES], HOLDS),
        ([YES, OPEN], HOLDS),
        ([YES, OPEN, OPEN], UNTOLD),
        ([NO, NO, OPEN], NOT),
        ([YES, NO, OPEN, OPEN, OPEN], DEPENDS),
        ([OPEN, OPEN], UNTOLD),
    ],
)
def test_the_rule_of_all_parts(ratios: list[Interval], word: str) -> None:
    assert claim({str(k): ratio for k, ratio in enumerate(ratios)}) == word


# ------------------------------------------------------------------------------------- the study


def test_rows_of_every_training(found: Found) -> None:
    assert found.parts == ["rates", "all"] and found.updates == [1, 2] and found.seeds == 2
    for part in found.parts:
        for updates in found.updates:
            assert len(found.of_arm("nstep", part, updates=updates)) == 2
            assert len(found.of_arm("abpt", part, updates=updates)) == 2
            assert len(found.of_arm("abpt", part, "own", updates=updates)) == 2
    angles = {(angle.method, angle.part, angle.reference) for angle in found.angles}
    parts = (NONE, *found.parts)
    kinds = (("nstep", "full"), ("abpt", "full"), ("abpt", "own"))
    assert angles == {(method, part, against) for part in parts for method, against in kinds}
    # the same gradient on other episodes: as far as samples can tell, of the same length
    same = [a for a in found.angles if (a.method, a.part) == ("nstep", NONE)]
    assert all(angle.length.low <= 1 <= angle.length.high for angle in same)
    assert len(found.of_arm("nstep", NONE, other=True)) == 2
    assert len(found.of_arm("abpt", NONE, "own", other=True)) == 2
    assert not found.of_arm("nstep", NONE)  # the reference itself
    for row in found.gaps:
        assert math.isclose(row.relative, row.distance / row.moved)
        assert math.isclose(row.gain, row.earned - row.reference_return, abs_tol=1e-6)
    assert {judged.part for judged in found.critics} == {NONE, "rates", "all"}


def test_the_answer_fits_a_screen(rows: pd.DataFrame, out: Path) -> None:
    said = str(answer(rows))
    assert len(said.splitlines()) <= 40 and max(map(len, said.splitlines())) <= 100
    assert "other noise" in said
    assert "4. Critics" in report.summarise(rows)
    assert (out / "figure.png").stat().st_size > 0


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_can_be_asked_for(preset: str) -> None:
    config, _ = STUDY.preset(preset)
    assert in_order(STUDY.artefacts(config), STUDY.cells(config))
    sizes = Sizes.of(config)
    sizes.algorithm("abpt").check(sizes.problem("all"))


@pytest.mark.parametrize(
    "changes, error",
    [
        ({"parts": ("heading",)}, UnknownName),
        ({"parts": ()}, BadValue),
        ({"parts": ("all", "all")}, BadValue),
        ({"seeds": 1}, BadValue),
        ({"updates": 61}, BadValue),
        ({"length": 256}, BadValue),
        ({"hidden": ()}, BadValue),
        ({"hidden": (8, 0)}, BadValue),
        ({"learning_rate": 0.0}, BadValue),
        ({"target_keep": 1.0}, BadValue),
        ({"samples": 8}, BadValue),
        ({"episodes": 0}, BadValue),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    changes: dict[str, object], error: type[GradlabError]
) -> None:
    with pytest.raises(error) as caught:
        list(STUDY.cells(Config(**changes)))  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(caught.value)
