"""A study gives the same table however it is run, stopped, damaged and resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock

from gradlab.foundation.checkpoints import read_artefact, write_artefact
from gradlab.foundation.errors import BadValue, Conflict, Missing
from gradlab.study import Cell, Study, run_study
from tests.helpers import toy_study

STUDY = Study.of(toy_study)
ROOT = Path(__file__).parents[3]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "log"
    path.touch()
    monkeypatch.setenv("TOY_LOG", str(path))
    return path


def lines(log: Path) -> Counter[str]:
    return Counter(log.read_text().split("\n")[:-1])


def run(out: Path, jobs: int = 1, **settings: object) -> bytes:
    retrain = bool(settings.pop("retrain", False))
    run_study(STUDY, toy_study.Config(**settings), out, jobs=jobs, retrain=retrain)
    return (out / "rows.parquet").read_bytes()


def command(out: Path, *options: str) -> tuple[list[str], dict[str, str]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return [
        sys.executable,
        "-m",
        "tests.helpers.toy_study",
        "--out",
        str(out),
        *options,
    ], environment


def test_the_table_is_the_same_for_any_number_of_jobs(tmp_path: Path) -> None:
    assert run(tmp_path / "1") == run(tmp_path / "2", jobs=2)
    assert run(tmp_path / "1") != run(tmp_path / "3", seed=1)
    rows = pd.read_parquet(tmp_path / "2" / "rows.parquet")
    assert list(rows["cell"]) == [f"shape/{s}" for s in toy_study.SHAPES for _ in range(2)]
    assert "stopwatch" not in rows
    timings = pd.read_parquet(tmp_path / "2" / "timings.parquet")
    assert list(timings["cell"]) == list(rows["cell"]) and (timings["stopwatch"] > 0).all()


def test_a_cell_does_not_depend_on_the_others(tmp_path: Path) -> None:
    run(tmp_path / "all")
    run(tmp_path / "one", shapes=("wide",))
    everything = pd.read_parquet(tmp_path / "all" / "rows.parquet")
    alone = pd.read_parquet(tmp_path / "one" / "rows.parquet")
    wide = everything[everything["shape"] == "wide"].reset_index(drop=True)
    pd.testing.assert_frame_equal(wide, alone, check_exact=True)


def test_the_manifest_says_what_was_run(tmp_path: Path) -> None:
    run(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["completed"] is True
    assert manifest["config"]["shapes"] == list(toy_study.SHAPES)
    assert manifest["cells"]["shape/tall"]["rows"] == 2
    assert manifest["cells"]["shape/tall"]["seconds"] > 0
    assert set(manifest["artefacts"]) == {"policy", "truth/all"}
    assert {"torch", "numpy"} <= set(manifest["versions"])
    text = (tmp_path / "summary.txt").read_text()
    assert text.startswith("Question:") and text.endswith("\n\n\n8 rows over 4 shapes\n")
    assert (tmp_path / "figure.txt").read_text() == "True"  # the plot saw the measured column


def test_a_finished_study_does_nothing_again(tmp_path: Path, log: Path) -> None:
    first = run(tmp_path / "out")
    before = lines(log)
    assert run(tmp_path / "out") == first
    assert lines(log) == before
    assert set(before.values()) == {1}
    assert "built unneeded" not in before


def test_killed_in_the_middle_and_run_again(tmp_path: Path, log: Path) -> None:
    out = tmp_path / "out"
    arguments, environment = command(out, "--jobs", "2", "--seconds", "0.4")
    with subprocess.Popen(
        arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while not list((out / "cells").rglob("[!.]*.parquet")):
            assert process.poll() is None, "the study ended before it was killed"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    for lock in (out / ".locks").iterdir():
        with FileLock(lock):
            pass  # this worker has stopped
    kept = {f"shape/{path.stem}" for path in (out / "cells").rglob("[!.]*.parquet")}
    assert 1 <= len(kept) < 4
    assert not (out / "rows.parquet").exists()
    before = lines(log)

    table = run(out, seconds=0.4)
    begun = {line.split()[1]: n for line, n in (lines(log) - before).items() if "begun" in line}
    assert begun == {f"shape/{s}": 1 for s in toy_study.SHAPES if f"shape/{s}" not in kept}
    assert [n for line, n in lines(log).items() if "built" in line] == [1, 1]
    assert table == run(tmp_path / "other")


def test_a_worker_stops_when_its_study_was_killed(tmp_path: Path) -> None:
    worker = (
        "import os, time; from gradlab.study.worker import stop_when_alone; "
        "stop_when_alone(os.getppid()); print(os.getpid(), flush=True); "
        "time.sleep(60)"
    )
    study = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    _, environment = command(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", study], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 0
        assert process.poll() is None
        process.kill()
        begin = time.monotonic()
        process.stdout.read()  # ends when the last process that could write has ended
        assert time.monotonic() - begin < 30


@pytest.mark.parametrize("kind", ["cell", "artefact"])
def test_a_truncated_file_is_named_and_made_again(
    tmp_path: Path, log: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    out = tmp_path / "out"
    table = run(out)
    names = {"cell": "cells/shape/tall.parquet", "artefact": "artefacts/policy.safetensors"}
    path = out / names[kind]
    whole, before = path.read_bytes(), lines(log)
    path.write_bytes(whole[: len(whole) // 2])
    capfd.readouterr()
    assert run(out) == table
    assert f"{path} is damaged" in capfd.readouterr().err
    expected = {
        "cell": {"begun shape/tall": 1, "did shape/tall": 1},
        "artefact": {"built policy": 1},
    }
    assert lines(log) - before == expected[kind]


def test_a_folder_of_another_config_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    table = (tmp_path / "rows.parquet").read_bytes()
    with pytest.raises(Conflict, match=r"\(seed there 0, now 5; repeats there 2, now 3\)"):
        run(tmp_path, seed=5, repeats=3)
    with pytest.raises(Conflict, match="retrain there False, now True"):
        run(tmp_path, retrain=True)
    assert (tmp_path / "rows.parquet").read_bytes() == table


def test_one_process_at_a_time(tmp_path: Path) -> None:
    tmp_path.joinpath(".holder").write_text("123")
    used = pytest.raises(Conflict, match=r"in use by another run \(process 123\)")
    with FileLock(tmp_path / ".lock"), used:
        run(tmp_path)
    run(tmp_path)


def test_a_run_waits_for_the_workers_of_an_earlier_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".locks").mkdir()
    at_work = threading.Event()

    def orphan() -> None:
        with FileLock(tmp_path / ".locks" / "123"):
            at_work.set()
            time.sleep(0.5)

    thread = threading.Thread(target=orphan)
    thread.start()
    at_work.wait()
    run(tmp_path)
    assert not thread.is_alive()
    thread.join()
    assert "waiting for the workers of an earlier run" in capfd.readouterr().err


def test_committed_artefacts_are_used_unless_retrained(tmp_path: Path, log: Path) -> None:
    first = run(tmp_path / "a")
    committed = tmp_path / "committed"
    shutil.copytree(tmp_path / "a" / "artefacts", committed)
    study = replace(STUDY, committed=committed)
    before = lines(log)
    run_study(study, toy_study.Config(), tmp_path / "b", jobs=1)
    assert not [line for line in lines(log) - before if "built" in line]
    assert (tmp_path / "b" / "rows.parquet").read_bytes() == first
    assert json.loads((tmp_path / "b" / "manifest.json").read_text())["artefacts"]["policy"][
        "source"
    ] == ("committed")

    before = lines(log)
    run_study(study, toy_study.Config(), tmp_path / "c", jobs=1, retrain=True)
    run_study(
        study, toy_study.Config(seed=1), tmp_path / "d", jobs=1
    )  # another policy than the committed
    assert {k: v for k, v in (lines(log) - before).items() if "built" in k} == {
        "built policy": 2,
        "built truth/all": 2,
    }


def test_cells_made_from_other_artefacts_are_done_again(tmp_path: Path, log: Path) -> None:
    run(tmp_path / "a")
    run(tmp_path / "b", seed=1)
    before = lines(log)
    # A truth that was rebuilt by other code: whole, of the right identity, with another content.
    path = tmp_path / "a" / "artefacts" / "truth" / "all.safetensors"
    saved, header = read_artefact(path)
    saved.tensors["mean"] += 1.0
    write_artefact(path, saved, header)
    run(tmp_path / "a")
    assert {k for k in lines(log) - before if "begun" in k} == {
        f"begun shape/{s}" for s in toy_study.SHAPES
    }


def test_contradicting_cells_and_studies_are_refused(tmp_path: Path) -> None:
    twice = replace(STUDY, cells=lambda config: [Cell("a"), Cell("a")])
    with pytest.raises(BadValue, match="'a' twice"):
        run_study(twice, toy_study.Config(), tmp_path)
    with pytest.raises(BadValue, match="jobs >= 1, got 0"):
        run_study(STUDY, toy_study.Config(), tmp_path, jobs=0)
    with pytest.raises(Missing, match="json does not define STUDY"):
        Study.of(json)
    with pytest.raises(Missing, match="'default'"):
        replace(STUDY, presets={})
