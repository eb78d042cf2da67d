"""What a user types and reads: help, presets, one line for an error."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradlab.errors import GradlabError
from gradlab.study import Study, cli
from gradlab.study.commandline import parse
from tests import toy_study

STUDY = Study.of(toy_study)
ROOT = Path(__file__).parent.parent


def attempt(args: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = 0
    try:
        cli("tests.toy_study", args)
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_documents_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = attempt(["--help"], capsys)
    assert code == 0
    for field in dataclasses.fields(toy_study.Config):
        assert f"--{field.name}" in out
    words = " ".join(out.replace("│", " ").split())
    for text in (
        "Seed of everything.",
        "Matrices to multiply.",
        "Worker processes.",
        "smoke, default, paper",
    ):
        assert text in words
    assert "How large is the mean" in out


def test_flags_win_over_the_preset_and_the_preset_over_defaults() -> None:
    options, config, jobs = parse(STUDY, ["--preset", "smoke", "--seed", "3"])
    assert (options.preset, config, jobs) == (
        "smoke",
        toy_study.Config(seed=3, shapes=("square",)),
        1,
    )
    _, config, jobs = parse(STUDY, ["--preset=smoke", "--shapes", "tall", "wide", "--jobs", "4"])
    assert (config.shapes, jobs) == (("tall", "wide"), 4)
    options, config, jobs = parse(STUDY, [])
    assert (options.preset, config, jobs) == ("default", toy_study.Config(), None)


def test_a_run_prints_the_summary_and_where_things_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = attempt(["--preset", "smoke"], capsys)
    assert code == 0
    assert out.startswith("Question:        How large is the mean")
    assert "over 1 shapes" in out and "All in runs/toy_study/smoke: figure.png" in out
    long_form = "2 rows over 1 shapes"
    assert long_form not in out
    answer = "\n".join(out.splitlines()[:-2])
    whole = (tmp_path / "runs" / "toy_study" / "smoke" / "summary.txt").read_text()
    assert whole == f"{answer}\n\n\n{long_form}\n"
    assert "3/3" in err  # the progress of a run without a terminal
    assert (tmp_path / "runs" / "toy_study" / "smoke" / "rows.parquet").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--shapes", "sqare"], "unknown shape 'sqare'; did you mean square?"),
        (["--repeats", "0"], "expected repeats >= 1, got 0; try 2"),
        (["--preset", "smoek"], "unknown preset 'smoek'; did you mean smoke?"),
        (["--jobs", "0"], "expected jobs >= 1, got 0"),
        (["--repeats", "x"], "--repeats"),
        (["--repeat", "1"], "--repeats"),
        (["--seed"], "--seed"),
        (["stray"], "stray"),
    ],
)
def test_an_error_is_one_line(
    args: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = attempt([*args, "--out", str(tmp_path / "out")], capsys)
    assert code == 2
    assert out == ""
    assert err.startswith("toy_study: ") and err.count("\n") == 1
    assert words in err


def failing_cell(config: object, cell: object, needs: object) -> list:
    raise GradlabError("two\nlines")


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_error_in_a_worker_is_one_line_that_names_the_cell(
    jobs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = dataclasses.replace(STUDY, run_cell=failing_cell)
    with pytest.raises(SystemExit) as stop:
        cli(study, ["--out", str(tmp_path), "--shapes", "tall", "wide", "--jobs", jobs])
    assert stop.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("toy_study: two lines (in cell shape/")


def test_no_traceback_from_a_shell(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = [
        sys.executable,
        "-m",
        "tests.toy_study",
        "--shapes",
        "wid",
        "--out",
        str(tmp_path / "out"),
    ]
    result = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == "toy_study: unknown shape 'wid'; did you mean wide?\n"
