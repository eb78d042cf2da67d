"""The study of the original engines: a tiny run of gradlab's own ants, words, refusals."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pandas as pd
import pytest

from gradlab.foundation.errors import BadValue, Missing, UnknownName
from gradlab.simulators import jax
from gradlab.statistics import Interval
from gradlab.study import read_rows, run_study
from studies.original_engines import STUDY
from studies.original_engines.answer import answer, line, summarise
from studies.original_engines.cells import cells, problem_of
from studies.original_engines.config import Config
from studies.original_engines.rows import Setting
from tests.helpers.runs import shared

TINY = Config(
    simulators=("gradlab_compliant",), horizons=(1, 2), samples=128, pg_samples=1024, pairs=16
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    def run(out: Path) -> object:
        return run_study(STUDY, TINY, out, jobs=1)

    return read_rows(shared(tmp_path_factory, "original_engines", run))


def test_every_setting_has_both_estimators_and_a_test(rows: pd.DataFrame) -> None:
    settings = Setting.all(rows)
    assert [one.fog.horizon for one in settings] == [1, 2]
    for one in settings:
        assert (one.fog.count, one.pg.count) == (128, 1024)
        assert one.fog.truth == "pg x 1024" and one.fog.nonfinite == 0
        assert 0 < one.fog.variance.estimate < one.pg.variance.estimate
        assert one.test.level == pytest.approx(0.05 / 2)


def test_words(rows: pd.DataFrame) -> None:
    """What is said of a setting follows its interval and its p-value."""
    assert "for 2 of 2 settings it cannot be told" in answer(rows).answer
    assert "gradlab_compliant" in summarise(rows)
    (one, _) = Setting.all(rows)
    moved = dataclasses.replace(one.test, p_value=1e-4)
    assert line(dataclasses.replace(one, test=moved))["jump p"] == "0.0001 called"
    table = rows.assign(relative_bias=0.5, relative_bias_low=0.4, relative_bias_high=0.6)
    said = answer(table).answer
    assert "more than 20% in gradlab_compliant (T = 1) and gradlab_compliant (T = 2)" in said
    assert Interval(0.5, 0.4, 0.6) == Setting.all(table)[0].fog.relative_bias


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"simulators": ("bullet",)}, UnknownName, "unknown simulator 'bullet'"),
        ({"horizons": (0,)}, BadValue, "horizons must be at least 1"),
        ({"samples": 100}, BadValue, "samples must be a multiple of 128"),
        ({"pairs": 1}, BadValue, "pairs must be at least"),
        ({"level": 0.0}, BadValue, "level must be in"),
    ],
)
def test_what_it_refuses(changes: dict, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        list(cells(dataclasses.replace(TINY, **changes)))


def test_without_jax_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    jax.jax.cache_clear()
    problem_of.cache_clear()
    monkeypatch.setitem(sys.modules, "jax", None)  # as if it were not installed
    with pytest.raises(Missing, match=r"pip install 'gradlab\[peers\]'"):
        problem_of("spring", 2)
