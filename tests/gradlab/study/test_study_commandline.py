"""What a user types and reads: help, presets, one line for an error."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from gradlab.foundation.errors import BadValue, GradlabError
from gradlab.study import Study, cli
from gradlab.study.commandline import parse
from gradlab.study.definition import INFINITE, as_json, check_choices, check_numbers
from gradlab.study.progress import Notes, Progress
from studies.__main__ import listed
from tests.helpers import toy_study
from tests.helpers.forked import run_module

STUDY = Study.of(toy_study)
ROOT = Path(__file__).parents[3]


def attempt(args: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = 0
    try:
        cli("tests.helpers.toy_study", args)
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
    assert err.startswith(
        "1 of 1 cells and 2 artefacts to do in runs/toy_study/smoke with 1 worker; about 1 min"
    )
    assert "3/3" in err  # the progress of a run without a terminal
    assert (tmp_path / "runs" / "toy_study" / "smoke" / "rows.parquet").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--shapes", "sqare"], "unknown shape 'sqare'; did you mean square?"),
        (["--repeats", "0"], "expected repeats >= 1, got 0; try 2"),
        (["--preset", "smoek"], "unknown preset 'smoek'; did you mean smoke?"),
        (["--jobs", "0"], "expected jobs >= 1, got 0"),
        (["--repeats", "x"], "--repeats should be a whole number, got 'x'; see --help"),
        (["--repeats", "1.5"], "--repeats should be a whole number, got '1.5'; see --help"),
        (["--jobs", "two"], "--jobs should be a whole number, got 'two'; see --help"),
        (["--seconds", "soon"], "--seconds should be a number, got 'soon'; see --help"),
        (["--repeat", "1"], "unknown option '--repeat'; did you mean --repeats"),
        (["--shaeps", "wide"], "unknown option '--shaeps'; did you mean --shapes"),
        (["--out", ""], "expected a folder for --out, got ''"),
        (["--seconds", "1e300"], "expected numbers that float32 holds"),
        (["--seconds", "nan"], "expected numbers that float32 holds"),
        (["--fresh", "--keep"], "expected one of --fresh and --keep, got both"),
        (["--seed"], "--seed"),
        (["stray"], "stray"),
    ],
)
def test_an_error_is_one_line(
    args: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = attempt(["--out", str(tmp_path / "out"), *args], capsys)
    assert not (tmp_path / "out" / "cells").exists()
    assert code == 2
    assert out == ""
    assert err.startswith("toy_study: ") and err.count("\n") == 1
    assert words in err


def test_infinity_is_a_number_where_a_field_says_so() -> None:
    @dataclasses.dataclass(frozen=True)
    class Config:
        bounds: tuple[float, ...] = dataclasses.field(default=(1.0, math.inf), metadata=INFINITE)
        width: float = 0.1
        seed: int = 0

    check_numbers(Config())
    assert json.dumps(as_json(Config()), allow_nan=False)  # the manifest is JSON for any reader
    for wrong in (Config(bounds=(math.nan,)), Config(bounds=(1e300,)), Config(width=math.inf)):
        with pytest.raises(BadValue, match="expected numbers that float32 holds"):
            check_numbers(wrong)


@pytest.mark.parametrize("names, what", [((), "none"), (("a", "b", "a"), "a twice")])
def test_choices_are_there_and_different(names: tuple[str, ...], what: str) -> None:
    @dataclasses.dataclass(frozen=True)
    class Config:
        names: tuple[str, ...]
        count: int = 3

    check_choices(Config(("a", "b")))
    with pytest.raises(BadValue, match=f"one or more different names, got {what}; try"):
        check_choices(Config(names))


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
        "tests.helpers.toy_study",
        "--shapes",
        "wid",
        "--out",
        str(tmp_path / "out"),
    ]
    result = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == "toy_study: unknown shape 'wid'; did you mean wide?\n"


def test_a_folder_of_other_things_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thesis.tex").touch()
    monkeypatch.chdir(tmp_path)
    code, _, err = attempt(["--out", "."], capsys)
    assert code == 2 and "which holds thesis.tex; try another --out" in err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.skipif(sys.platform == "win32", reason="a limit of the shell")
@pytest.mark.parametrize("jobs", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_full_disk_is_one_line_and_nothing_is_lost(tmp_path: Path, jobs: str) -> None:
    """No file may be larger than 16 KiB: artefacts fit, a cell of 1,000 rows does not."""
    arguments = [sys.executable, "-m", "tests.helpers.toy_study", "--jobs", jobs, "--out", "run"]
    rows = ["--shapes", "flat", "wide", "--repeats", "1000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    limited = ["bash", "-c", 'ulimit -f 16; exec "$@"', "-", *arguments, *rows]
    result = subprocess.run(
        limited, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    assert last.startswith("toy_study: cannot write run/cells/") and "(File too large)" in last
    assert last.endswith(
        f"python -m tests.helpers.toy_study --jobs {jobs} --out run {' '.join(rows)}"
    )
    assert not list(tmp_path.rglob(".*.tmp"))
    again = ["--jobs", "1", "--out", "run", *rows]  # any number of workers goes on
    free = run_module("tests.helpers.toy_study", *again, cwd=tmp_path)
    assert free.returncode == 0 and "2000 products" in free.stdout, free.stderr


@pytest.mark.parametrize("jobs", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_sigterm_says_how_to_go_on(tmp_path: Path, jobs: str) -> None:
    arguments = [
        sys.executable,
        "-m",
        "tests.helpers.toy_study",
        "--jobs",
        jobs,
        "--out",
        "run",
        "--fresh",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TOY_LOG": str(tmp_path / "log")}
    with subprocess.Popen(
        [*arguments, "--seconds", "20"],
        env=environment,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while (
            "begun" not in (tmp_path / "log").read_text() if (tmp_path / "log").exists() else True
        ):
            assert process.poll() is None
            time.sleep(0.05)
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        err = process.stderr.read()
    assert process.returncode == 143 and time.monotonic() - begin < 10
    assert "Traceback" not in err
    # without --fresh, which would delete what is done
    assert err.splitlines()[-1] == (
        "toy_study: stopped by SIGTERM; what is done is kept. To go on: "
        f"python -m tests.helpers.toy_study --jobs {jobs} --out run --seconds 20"
    )
    assert not list(tmp_path.rglob(".*.tmp"))


def test_a_log_is_never_silent_for_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradlab.study.progress._SILENT_AT_MOST", 0.5)
    bar = Progress("toy", 2, 2.0)
    with bar.shown():
        bar.started("cell a")
        time.sleep(2.5)
    lines = capsys.readouterr().err.splitlines()
    assert lines and all(line.endswith("at work: cell a") for line in lines)


def test_the_studies_are_listed() -> None:
    found = dict(listed(ROOT / "studies"))
    assert {"bias_vs_relaxation", "throughput"} <= set(found)
    assert all(line.endswith("?") for line in found.values())
    assert dict(listed(ROOT / "gradlab")) == {}


def test_only_packages_that_define_a_study_are_listed_and_none_is_run(tmp_path: Path) -> None:
    for name, text in (
        ("whole", '"""Is it\nlisted?\n\nMore."""\nSTUDY = 1 / 0\n'),
        ("shared", '"""Tools."""\n'),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    (tmp_path / "flat.py").write_text("STUDY = 1\n")
    assert dict(listed(tmp_path)) == {"whole": "Is it listed?"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="takes from a POSIX Python what Windows lacks")
def test_a_study_runs_without_what_windows_lacks(tmp_path: Path) -> None:
    program = """
import os, sys, warnings
for name in ("fcntl", "resource", "pwd", "grp"):
    sys.modules[name] = None  # importing it raises ImportError
del os.sched_getaffinity, os.getloadavg
warnings.simplefilter("ignore")  # filelock says that it falls back on another kind of lock
import studies.throughput
from gradlab.study import cli
cli("tests.helpers.toy_study", ["--preset", "smoke", "--out", sys.argv[1]])
cli("tests.helpers.toy_study", ["--preset", "smoke", "--out", sys.argv[1]])
"""
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("2 products of one policy") == 2


def test_notes_that_follow_soon_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter([0.0, 10.0, 29.0, 30.0, 59.0, 61.0])
    clock = SimpleNamespace(monotonic=lambda: next(times))
    monkeypatch.setattr("gradlab.study.progress.time", clock)
    tell = Notes(30.0)
    for k in range(6):
        tell(f"update {k}")
    assert capsys.readouterr().err.split("\n") == ["update 0", "update 3", "update 5", ""]
