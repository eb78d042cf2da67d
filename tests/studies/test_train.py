"""The training command: names, files, stops, and what it says at the end."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.training.evaluation import Evaluation
from gradlab.training.state import TrainingState
from studies.train import run as command
from studies.train.algorithms import ALGORITHMS, FAMILIES, named
from studies.train.run import Options, main, run
from tests.helpers import checking


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer episodes of fewer steps, so that an update takes no time."""
    tiny = {"episodes": 8, "length": 4, "horizon": 12, "passes": 1, "hidden": (8,), "critic": (8,)}
    for name, family in FAMILIES.items():
        monkeypatch.setitem(FAMILIES, name, dataclasses.replace(family, **tiny))


@pytest.mark.parametrize("task", FAMILIES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_fits_every_task(algorithm: str, task: str) -> None:
    problem, found = named(algorithm, task)
    found.check(problem)
    critic = found.critic
    assert (critic is None) == (found.tail == "none")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_takes_a_step(algorithm: str, tmp_path: Path) -> None:
    options = Options(algorithm, "landing", updates=1, every=1, evaluations=4, out=str(tmp_path))
    said = run(options)
    assert said.startswith("After 1 updates (")
    assert "before training it was" in said
    log = pd.read_csv(tmp_path / "log.csv")
    assert list(log["updates"]) == [0, 1]
    assert log["gradient norm"].iloc[1] > 0
    assert (tmp_path / "return.png").stat().st_size > 0


def test_a_run_that_was_stopped_ends_as_if_it_had_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Options("shac", "racing", updates=6, every=4, evaluations=4, out=str(tmp_path / "a"))
    run(whole)
    original, calls = command.update, []

    def stopping(*args: object) -> object:
        calls.append(None)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*args)  # type: ignore[arg-type]

    stopped = Options("shac", "racing", updates=6, every=4, evaluations=4, out=str(tmp_path / "b"))
    monkeypatch.setattr(command, "update", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(stopped)
    assert int(TrainingState.load(tmp_path / "b" / "state.safetensors").updates) == 3
    run(stopped)
    a, b = (TrainingState.load(tmp_path / side / "state.safetensors") for side in "ab")
    assert all(torch.equal(a.params[name], value) for name, value in b.params.items())
    logs = [pd.read_csv(tmp_path / side / "log.csv") for side in "ab"]
    pd.testing.assert_frame_equal(*logs)
    monkeypatch.setattr(command, "update", lambda *_: pytest.fail("a run that is over is not run"))
    assert "After 6 updates" in run(stopped)


def test_a_stop_in_an_evaluation_loses_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the last one, without which the report would be of an earlier policy."""
    sides = {
        s: Options("bptt", "landing", updates=2, every=1, evaluations=4, out=str(tmp_path / s))
        for s in "ab"
    }
    said = run(sides["a"])
    original, calls = command.evaluate_policy, []

    def stopping(*args: Any, **options: Any) -> Evaluation:
        calls.append(None)
        if len(calls) == 3:  # before training, after update 1, after update 2
            raise KeyboardInterrupt
        return original(*args, **options)

    monkeypatch.setattr(command, "evaluate_policy", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(sides["b"])
    again = run(sides["b"])
    logs = [pd.read_csv(tmp_path / side / "log.csv") for side in "ab"]
    pd.testing.assert_frame_equal(*logs)
    assert said.partition("steps")[0] == again.partition("steps")[0] and "After 2 updates" in again


def test_another_run_is_not_overwritten(tmp_path: Path) -> None:
    first = ["--task", "landing", "--updates", "1", "--evaluations", "4", "--out", str(tmp_path)]
    main(first)
    with pytest.raises(BadValue, match=r"another run \(--seed was 0, not 3\)"):
        main([*first, "--seed", "3"])
    assert "After 1 updates" in main([*first, "--seed", "3", "--fresh"])


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        (["--algorithm", "shacc"], UnknownName, "shac"),
        (["--task", "hover"], UnknownName, "hovering"),
        (["--updates", "0"], BadValue, "--updates"),
        (["--evaluations", "0"], BadValue, "--evaluations"),
        (["--on-nonfinite", "x"], BadValue, "'stop' or 'skip'"),
    ],
)
def test_wrong_options_are_one_line(
    args: list[str], error: type[Exception], words: str, tmp_path: Path
) -> None:
    with checking.off(), pytest.raises(error, match=words) as caught:
        main([*args, "--out", str(tmp_path)])
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_unknown_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--frsh"])
    assert caught.value.code == 2
    said = capsys.readouterr().err.strip()
    assert "--fresh" in said and "\n" not in said
