"""Studies take problems and estimators of users by name, and notice when their files change."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gradlab
from gradlab.foundation import naming
from gradlab.foundation.errors import BadValue, GradlabError, Missing, UnknownName
from gradlab.problems import registry
from gradlab.problems.problem import Problem
from gradlab.study import Study, file_name, read_rows
from gradlab.study.cells import check_name
from gradlab.study.sources import Code
from studies import bias_vs_relaxation, loss_landscape
from studies.shared import stages
from tests.gradlab.problems.test_registry import MINE
from tests.helpers.forked import run_module

PORT = """
import gradlab

def port():
    return gradlab.make("landing", horizon=6, hidden=(4,))

def relaxed():
    return port().relaxed(0.3)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "port.py").write_text(PORT)
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def test_names_become_parts_of_files() -> None:
    assert file_name("bias_vs.relaxation-0.5") == "bias_vs.relaxation-0.5"
    assert file_name("my_file.py:docking") == "my_file.py=docking"
    assert file_name("../a b/my.py:x") == "a=b=my.py=x"
    for odd in ("../..", "/", "a:b", "ü"):
        check_name("cell", f"{file_name(odd)}/all")


def test_cells_of_a_problem_and_an_estimator_of_ones_own(here: Path) -> None:
    config = bias_vs_relaxation.STUDY.config(
        tasks=("port.py:port",), estimators=("pg", "mine.py:Mine", "qg"), widths=(0.5,)
    )
    cells = {cell.key: cell for cell in bias_vs_relaxation.STUDY.cells(config)}
    assert set(cells) == {
        f"port.py=port-60/{n}" for n in ("pg", "mine.py=Mine", "qg-none", "qg-full")
    }
    assert cells["port.py=port-60/mine.py=Mine"].payload["estimator"] == "mine.py:Mine"
    made = {artefact.name for artefact in bias_vs_relaxation.STUDY.artefacts(config)}
    assert all(need in made for cell in cells.values() for need in cell.needs)
    setting = stages.setting_of("port.py:port")
    assert (setting.event, setting.horizon) == ("success", 6)

    config = loss_landscape.STUDY.config(
        tasks=("port.py:port",), estimators=("fog", "mine.py:Mine")
    )
    keys = {cell.key for cell in loss_landscape.STUDY.cells(config)}
    assert any(key.endswith("/arrows-mine.py=Mine") for key in keys)
    assert all(key.startswith("port.py=port-") for key in keys)


def test_a_task_of_ones_own_is_trained_to_the_stages_asked_for(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the width and learning rate that are asked for, as the advice to change them says."""
    config = bias_vs_relaxation.STUDY.config(
        tasks=("port.py:port",), stages=(30, 20), train_width=0.7, learning_rate=1e-2
    )
    list(bias_vs_relaxation.STUDY.cells(config))
    artefact = next(iter(bias_vs_relaxation.STUDY.artefacts(config)))
    assert artefact.payload["stages"] == [20, 30]
    asked: list[tuple[float, float]] = []

    class Still(stages.Ascent):
        def __init__(self, problem: Problem, setting: stages.Setting, seed: int) -> None:
            asked.append((setting.width, setting.learning_rate))
            super().__init__(problem, setting, seed)

        def run(self, updates: int) -> None:
            self.updates += updates

    monkeypatch.setattr(stages, "Ascent", Still)
    rates = iter([0.1, 0.25, *[0.25] * 1000])
    monkeypatch.setattr(stages, "success_rate", lambda *_, **__: next(rates))
    with pytest.raises(GradlabError, match=r"not 30 %; try --train-width 1\.4 or --learning-rate"):
        stages.train_to_stages(artefact, {})
    assert asked == [(0.7, 1e-2)]
    with pytest.raises(BadValue, match="between 1 and 99"):
        list(bias_vs_relaxation.STUDY.cells(dataclasses.replace(config, stages=(100,))))


@pytest.mark.parametrize("name", ["bias_vs_relaxation", "leaderboard", "loss_landscape"])
def test_a_name_that_leads_nowhere_is_said_before_anything_runs(name: str, here: Path) -> None:
    study = Study.of(f"studies.{name}")
    for changes, error, words in (
        ({"tasks": ("hoverign",)}, UnknownName, "did you mean hovering"),
        ({"tasks": ("port.py:prot",)}, UnknownName, "did you mean port"),
        ({"estimators": ("mine.py:Mien",)}, UnknownName, "did you mean Mine"),
        ({"estimators": ("gone.py:Mine",)}, Missing, "not there"),
    ):
        with pytest.raises(error, match=words):
            list(study.cells(study.config(**changes)))


def test_a_task_without_an_event_to_succeed_in_is_refused() -> None:
    with pytest.raises(BadValue, match="event to succeed in, got 'lq'"):
        list(bias_vs_relaxation.STUDY.cells(bias_vs_relaxation.STUDY.config(tasks=("lq",))))
    with pytest.raises(BadValue, match="single episodes, got 'inverse_variance'"):
        list(
            loss_landscape.STUDY.cells(
                loss_landscape.STUDY.config(estimators=("inverse_variance",))
            )
        )


@pytest.mark.parametrize("name", ["bias_vs_relaxation", "critic_quality", "horizon"])
def test_a_task_that_is_relaxed_already_is_refused(name: str, here: Path) -> None:
    """Its gradient would be reported as that of the hard task."""
    study = Study.of(f"studies.{name}")
    with pytest.raises(
        BadValue, match=r"hard events.*got 'port.py:relaxed' with Sigmoid\(width=0.3"
    ):
        list(study.cells(study.config(tasks=("port.py:relaxed",))))


def test_an_edit_of_what_is_registered_is_noticed(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of what is named by its file: results of before are not taken for those of after."""
    (here / "harbour.py").write_text(PORT)
    monkeypatch.setitem(registry.PROBLEMS.builders, "harbour", PORT)  # restored afterwards
    del registry.PROBLEMS.builders["harbour"]
    gradlab.register("harbour", naming.load("harbour.py:port", "problem"))
    config = bias_vs_relaxation.STUDY.config(tasks=("harbour",), estimators=("fog",))
    with naming.noted() as named:
        list(bias_vs_relaxation.STUDY.cells(config))
    assert named == {"harbour"}
    before = Code.of([bias_vs_relaxation.STUDY.cells], named)
    (here / "harbour.py").write_text(PORT.replace("horizon=6", "horizon=7"))
    after = Code.of([bias_vs_relaxation.STUDY.cells], named)
    assert after.changes(dataclasses.asdict(before)) == "changed since: harbour"


def test_an_edit_of_an_estimators_file_is_noticed(here: Path) -> None:
    config = bias_vs_relaxation.STUDY.config(tasks=("gate",), estimators=("fog", "mine.py:Mine"))
    with naming.noted() as named:
        list(bias_vs_relaxation.STUDY.cells(config))
    assert named == {"mine"}
    before = Code.of([bias_vs_relaxation.STUDY.cells], named)
    (here / "mine.py").write_text(f"# only a remark\n{MINE}")
    assert Code.of([bias_vs_relaxation.STUDY.cells], named) == before
    (here / "mine.py").write_text(MINE.replace("self.scale *", "2 * self.scale *"))
    after = Code.of([bias_vs_relaxation.STUDY.cells], named)
    assert after.changes(dataclasses.asdict(before)) == "changed since: mine"


@pytest.mark.slow
def test_a_study_measures_an_estimator_of_ones_own_and_notices_its_edits(here: Path) -> None:
    options = (
        "--preset", "smoke", "--tasks", "gate", "--estimators", "fog", "mine.py:Mine",
        "--widths", "0.5", "--samples", "1000", "--jobs", "1", "--out", "out",
    )  # fmt: skip
    code, _, err = run_module("studies.bias_vs_relaxation", *options, cwd=here)
    assert code == 0, err
    rows = read_rows(here / "out").query("part == 'all' and experiment == 'B'")
    fog, mine = (
        rows[rows["estimator"] == name]["relative_bias"].item() for name in ("fog", "mine.py:Mine")
    )
    assert fog == pytest.approx(mine, rel=1e-9)  # it is FOG
    (here / "mine.py").write_text(MINE.replace("self.scale *", "2 * self.scale *"))
    code, _, err = run_module("studies.bias_vs_relaxation", *options, cwd=here)
    assert code == 2 and "(changed since: mine)" in err
