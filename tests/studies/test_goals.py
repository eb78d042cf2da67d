"""`make gpu` without a GPU: its table, its verdicts, what is left out, and how it goes on."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

import gradlab
from gradlab.foundation.errors import BadValue, Unavailable
from studies.throughput import goals
from studies.throughput.contenders import CONTENDERS
from studies.throughput.limit import Limit
from studies.throughput.stopwatch import PROBLEMS, Race

ROOT = Path(__file__).parents[2]


def told(race: Race, **seconds: float) -> dict[str, Any]:
    """A result of three rounds."""
    rounds = {name: [s, 1.1 * s, 0.9 * s] for name, s in seconds.items()}
    skipped = {name: "not installed" for name in race.contenders if name not in seconds}
    return {"seconds": rounds, "skipped": skipped}


def test_races_have_known_contenders_and_every_goal_a_race() -> None:
    races = goals.races()
    for race in races.values():
        assert set(race.contenders) <= CONTENDERS.keys() and race.problem in PROBLEMS
    for goal in goals.goals():
        assert set(goal.ours + goal.others) <= set(races[goal.race].contenders)


def test_goals_are_met_by_what_is_fast_enough_alone() -> None:
    race = goals.races()["hovering 256"]
    first = next(iter(goals.goals()))
    fast = told(race, pullback_graph=2.0, pullback_compiled=5.0, jax=4.0, jax_unrolled_8=2.5)
    assert first.measured(fast) == pytest.approx(0.8)  # of the faster of each
    slow = told(race, pullback_compiled=3.0, jax=4.0, jax_unrolled_8=2.5)
    assert first.measured(slow) == pytest.approx(1.2)
    # the faster of two is not known where one did not run
    assert first.measured(told(race, pullback_graph=2.0, jax=4.0)) == "not installed"
    lines = goals.table({"hovering 256": fast}, "7 passed").splitlines()
    assert "0.80" in lines[1] and lines[1].endswith("met") and "NOT" not in lines[1]
    assert goals.table({"hovering 256": slow}, "7 passed").splitlines()[1].endswith("NOT MET")
    assert lines[-1] == "tests: 7 passed"
    assert len(lines) < 20 and max(map(len, lines)) < 120  # one screen
    assert "hovering 256 without pullback_graph: not installed" in goals.table(
        {"hovering 256": slow}, ""
    )
    assert "without" not in goals.table({"hovering 256": fast}, "")


def test_a_missing_peer_is_a_row() -> None:
    """As is a race that failed, or that there was no time for."""
    races = goals.races()
    results = {
        "hovering 256": told(races["hovering 256"], pullback_graph=1.0, moments_graph=1.0),
        "ant 64": {"failed": "race of ant took over 20 s"},
    }
    rows = {line.split("  ")[0]: line for line in goals.table(results, "").splitlines()[1:]}
    assert "not installed" in rows["hovering 256"]
    assert "took over 20 s" in rows["ant 64"]
    assert "not measured" in rows["ant_convex 1024"]


def test_it_goes_on_where_it_was_and_stops_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def run(race: Race, timeout: float) -> dict[str, Any]:
        assert timeout > 0
        asked.append(f"{race.problem} {race.samples}")
        if asked[-1] == "ant 64" and asked.count("ant 64") == 1:
            raise BadValue("race of ant failed: out of memory")
        return told(race, **dict.fromkeys(race.contenders, 1.0))

    monkeypatch.setattr(goals, "separately", run)
    said: list[str] = []
    first = goals.measured(tmp_path, lambda: 100.0, said.append)
    assert asked == list(goals.races())
    assert first["ant 64"] == {"failed": "race of ant failed: out of memory"}
    again = goals.measured(tmp_path, lambda: 100.0, said.append)
    assert asked[len(goals.races()) :] == ["ant 64"]  # what failed is tried again, and nothing else
    assert all("failed" not in result for result in again.values())
    late = goals.measured(tmp_path / "late", lambda: goals.LEAST - 1, said.append)
    assert {result["failed"] for result in late.values()} == {"no time left; run it again"}


def test_exit_codes_tell_what_is_met_from_what_is_missed_or_not_known() -> None:
    won = {
        name: told(race, **{who: 1.0 if who in goals.QUAD[:3] else 9.0 for who in race.contenders})
        for name, race in goals.races().items()
    }
    assert goals.status(won, "36 passed") == 0
    assert goals.status(won, "1 failed, 35 passed") == 2
    assert goals.status(won, "not run, no time left; run it again") == 3
    ant = goals.races()["ant 64"]
    assert goals.status({**won, "ant 64": told(ant, pullback_graph=1.0)}, "36 passed") == 3
    slow = told(ant, pullback_graph=1.0, brax_generalized=1.0)
    assert goals.status({**won, "ant 64": slow}, "36 passed") == 2
    assert goals.status({}, "36 passed") == 3
    unknown = told(ant, pullback_graph=math.nan, brax_generalized=1.0)
    assert goals.status({**won, "ant 64": unknown}, "36 passed") == 2  # as the table says
    assert goals.table({"ant 64": unknown}, "").count("NOT MET") == 1
    assert goals.status(won, "failed: pytest ended with status -11 before it was through") == 2
    assert goals.status(won, "35 passed, 1 xfailed") == 0


def test_a_race_is_run_again_once_a_peer_that_it_lacked_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def run(race: Race, timeout: float) -> dict[str, Any]:
        asked.append(race.problem)
        return told(race, **{n: 1.0 for n in race.contenders if not n.startswith("brax")})

    there: dict[str, bool] = {}
    monkeypatch.setattr(goals, "separately", run)
    monkeypatch.setattr(goals.importlib.util, "find_spec", lambda name: there.get(name))
    both = ("brax", "jax")  # which may be without a GPU: another call is of no use
    cases = (((), 7), ((), 0), (("brax",), 4), (both, 0), ((*both, "jax_cuda13_plugin"), 4))
    for installed, again in cases:
        there.clear()
        there.update(dict.fromkeys(installed, True))
        asked.clear()
        goals.measured(tmp_path, lambda: 100.0, lambda _: None)
        assert len(asked) == again


def test_compilers_are_asked_once_for_all_but_the_largest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Race] = []

    def run(race: Race, timeout: float) -> dict[str, Any]:
        asked.append(race)
        raise BadValue("no memory")

    monkeypatch.setattr(goals, "separately", run)
    monkeypatch.setattr(goals, "usable_cores", lambda: 16)
    (tmp_path / "ant_64.json").write_text("{}", encoding="utf-8")
    goals.compiled(tmp_path, lambda: 100.0)
    assert {(race.repeats, race.threads) for race in asked} == {(1, 16)}
    assert len(asked) == len(goals.races()) - 2


def test_other_code_is_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = []
    for revision in ("abc", "abc+changes-1", "abc"):
        monkeypatch.setattr(goals, "git_revision", lambda revision=revision: revision)
        places.append(goals.folder_of(tmp_path, "NVIDIA H100"))
    assert places[0] == places[2] != places[1]
    assert places[0].parent == places[1].parent  # where what compilers keep is


def test_without_a_gpu_it_says_so_in_one_line() -> None:
    done = subprocess.run(
        [ROOT / ".ci" / "gpu"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "make gpu needs a CUDA device, and torch finds none here\n"


def test_a_python_that_is_given_and_is_none_is_not_passed_over() -> None:
    done = subprocess.run(
        [ROOT / ".ci" / "gpu"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHON": "/nowhere/python3.11"},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("make gpu needs Python 3.11 or newer, and /nowhere/python3.11 is")


def test_wheels_come_beside_what_a_virtual_environment_has(tmp_path: Path) -> None:
    """Which is what `make` installs into; wheel and torch are one file each."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "gpu", tmp_path / ".ci" / "gpu")
    goals_here = tmp_path / "studies" / "throughput" / "goals.py"
    goals_here.parent.mkdir(parents=True)
    goals_here.write_text("import torch, extra\nprint(torch.here, extra.here)\n")
    outer = tmp_path / ".venv"
    venv.create(outer, symlinks=True)
    (next(outer.glob("lib/python3*/site-packages")) / "torch.py").write_text("here = 'outer'\n")
    wheels = tmp_path / "wheels"
    wheels.mkdir()

    def run() -> subprocess.CompletedProcess[str]:
        given = {"WHEELS": str(wheels), "PYTHON": ""}
        return subprocess.run(
            [tmp_path / ".ci" / "gpu"],
            capture_output=True,
            text=True,
            check=False,
            env={**{n: v for n, v in os.environ.items() if n != "PYTHONPATH"}, **given},
        )

    none = run()
    assert (none.returncode, none.stderr.count("\n")) == (1, 1)
    assert "WHEELS should be a folder of wheels" in none.stderr
    with zipfile.ZipFile(wheels / "extra-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("extra.py", "here = 'wheel'\n")
        about = "extra-1.0.dist-info"
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n")
        words = "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{about}/WHEEL", words)
        wheel.writestr(f"{about}/RECORD", "extra.py,,\n")
    done = run()
    assert (done.stdout, done.returncode) == ("outer wheel\n", 0), done.stderr


def test_the_limit_is_that_of_its_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = gradlab.make("hovering", horizon=4, hidden=(6,))
    params = problem.init(torch.Generator().manual_seed(0))
    limit = Limit(problem, params, problem.draw(8, torch.Generator().manual_seed(1)))
    weights = 13 * 6 + 6 * 8
    numbers = weights + 6 + 8
    assert (limit.bytes, limit.operations) == (4 * 8 * numbers, 6 * 8 * 4 * weights)
    ticks = iter(range(100))  # every clocked piece takes a second
    bandwidth, rate = 2 * 4 * 2**24, 2 * 1024**3
    expected = limit.bytes / bandwidth + limit.operations / rate
    assert limit.seconds(lambda: float(next(ticks))) == pytest.approx(expected, rel=1e-12)
    assert limit.seconds(lambda: 0.0) == 0.0 or math.isfinite(limit.seconds(lambda: 0.0))


def test_mujoco_takes_the_same_control_periods() -> None:
    pytest.importorskip("mujoco")
    problem = gradlab.make("ant", preset="dflex", substeps=5, horizon=3)
    params = problem.init(torch.Generator().manual_seed(0))
    noise = problem.draw(2, torch.Generator().manual_seed(1))
    data: Any = CONTENDERS["mujoco"](problem, params, noise)()
    assert data.time == pytest.approx(3 * problem.simulator.dt)
    assert problem.simulator.mjcf_model().opt.timestep != problem.simulator.dt / 5  # not written to
    with pytest.raises(Unavailable, match="articulated"):
        CONTENDERS["mujoco"](gradlab.make("hovering"), params, noise)


@pytest.mark.parametrize(
    ("code", "printed", "told"),
    [
        (0, "..\n== 2 passed in 3 s ==\n", "2 passed in 3 s"),
        (1, "F.\n== 1 failed, 1 passed in 3 s ==\n", "1 failed, 1 passed in 3 s"),
        (-11, "..F", "failed: pytest ended with status -11 before it was through"),
        (5, "no tests ran in 1 s\n", "no tests ran in 1 s"),
    ],
)
def test_tests_that_end_in_a_crash_are_not_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, printed: str, told: str
) -> None:
    """And asked again the next time, as those that fail."""

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        files = [part for part in command if part.startswith("tests/")]
        assert files == ["tests/contracts/test_gpu.py", "tests/gradlab/simulators/test_warp.py"]
        assert options["env"]["TORCHINDUCTOR_COMPILE_THREADS"] == "16"
        return subprocess.CompletedProcess([], code, printed, "")

    monkeypatch.setattr(goals, "usable_cores", lambda: 16)
    monkeypatch.setattr(goals.subprocess, "run", run)
    assert goals.tested(tmp_path, lambda: 100.0, lambda _: None) == told
    assert (tmp_path / "tests.txt").exists() == (code == 0)


def test_tests_that_nobody_had_time_for_are_not_run(tmp_path: Path) -> None:
    assert goals.tested(tmp_path, lambda: 0.0, print) == "not run, no time left; run it again"
    (tmp_path / "tests.txt").write_text("36 passed", encoding="utf-8")
    assert goals.tested(tmp_path, lambda: 0.0, print) == "36 passed"
