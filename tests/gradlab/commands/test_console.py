"""The command `gradlab`: what a user types and reads."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import estimators as E
import gradlab
from gradlab.commands import compare, comparison, console
from gradlab.foundation import checkpoints, siblings
from gradlab.problems.problem import Problem
from gradlab.study import cli
from gradlab.training.algorithm import Algorithm
from gradlab.training.critic import CriticRecipe
from gradlab.training.loop import init, update
from tests.gradlab.problems.test_registry import MINE, install

ROOT = Path(__file__).parents[3]

PROBLEM = """
import torch
import gradlab

def short(horizon=3):
    return gradlab.make("gate", horizon=horizon, dtype=torch.float64).replace(name="short")

def params(problem):
    return gradlab.make("gate").reference

wrong_params = [1, 2]
"""


@pytest.fixture(autouse=True)
def as_before(tmp_path: Path) -> Iterator[None]:
    """What a test imports from its own folder is gone after it."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a user's, and the user in it."""
    (tmp_path / "my_file.py").write_text(PROBLEM)
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def attempt(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = 0
    try:
        console.main(args)
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_is_installed_as_gradlab() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert '\n[project.scripts]\ngradlab = "gradlab.commands.console:main"\n' in text
    assert console.__file__ == str(ROOT / "gradlab" / "commands" / "console.py")


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for args in ([], ["--help"], ["-h"]):
        code, out, err = attempt(capsys, *args)
        assert (code, err) == (0, "")
        for name in console.COMMANDS:
            assert f"  gradlab {name}" in out
    assert attempt(capsys, "--version") == (0, f"gradlab {gradlab.__version__}\n", "")
    for name in console.COMMANDS:
        code, out, err = attempt(capsys, name, "--help")
        assert (code, err) == (0, "") and "gradlab" in out


def test_help_and_a_list_wait_for_no_torch() -> None:
    program = (
        "import sys; from gradlab.commands.console import main; main([]); main(['study']); "
        "import gradlab; print(gradlab.__version__, 'torch' in sys.modules, 'pandas' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"{gradlab.__version__} False False"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["studdy"], "unknown command 'studdy'; did you mean study"),
        (["study", "bias_vs_relaxatoin"], "unknown study .*did you mean bias_vs_relaxation"),
        (["compare"], "compare: .*problem; see gradlab compare --help"),
        (["compare", "gaet"], "unknown problem 'gaet'; did you mean gate"),
        (["compare", "gate", "--estimators", "fgo"], "unknown estimator 'fgo'; did you mean fog"),
        (["compare", "gate", "--estimators", "fog", "fog"], "different --estimators"),
        (["compare", "gate", "--count", "x"], "--count: invalid int value: 'x'"),
        (["compare", "gate", "--count", "0"], "expected --count of at least 1, got 0"),
        (["compare", "gate", "--device", "gpu"], "device should be one of torch, got 'gpu'"),
        (["compare", "gate", "--device", "meta"], "keeps no float64 on --device meta here"),
        (["compare", "gate", "--stderr", "nan"], "expected a positive --stderr, got nan"),
        (["compare", "gate", "--estimators", "qg"], "needs a Q critic"),
        (["compare", "gate", "--params", "gone.safetensors"], "no checkpoint at gone.safetensors"),
        (["compare", "gate", "--params", "my_file.py:wrong_params"], "dict of tensors .*got list"),
        (["compare", "lq", "--params", "my_file.py:params"], "should have layers.0.weight of shape"),
        (["compare", "my_file.py:shrt"], "did you mean short"),
        (["compare", "gate", "--coutn", "3"], "unrecognized arguments: --coutn 3"),
        (["doctor", "who"], "doctor takes no arguments"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_code_2(
    args: list[str], words: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = attempt(capsys, *args)
    assert (code, out) == (2, "")
    assert err.startswith("gradlab: ") and err.count("\n") == 1
    assert re.search(words, err), err


# ---------------------------------------------------------------------------------------- study


def test_studies_are_listed_and_run_as_by_python_m(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = attempt(capsys, "study")
    assert code == 0
    assert re.search(r"^gradlab study bias_vs_relaxation +Does the 0-step", out, re.MULTILINE)
    ran = []
    monkeypatch.setattr(
        "gradlab.study.commandline.cli", lambda name, args: ran.append((name, list(args)))
    )
    attempt(capsys, "study", "throughput", "--preset", "smoke", "--help")
    assert ran == [("studies.throughput", ["--preset", "smoke", "--help"])]


def test_a_study_says_and_returns_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--preset", "smoek"]
    with pytest.raises(SystemExit) as stop:
        cli("studies.throughput", args)
    said = capsys.readouterr()
    assert attempt(capsys, "study", "throughput", *args) == (stop.value.code, said.out, said.err)
    assert stop.value.code == 2 and "did you mean smoke" in said.err


@pytest.mark.parametrize("args", [["study"], ["compare", "gate"]])
def test_a_folder_of_the_same_name_is_one_line(args: list[str], tmp_path: Path) -> None:
    (tmp_path / "estimators.py").touch()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "gradlab", *args],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"gradlab: import estimators finds {tmp_path}/estimators.py")
    assert done.stderr.count("\n") == 1


# -------------------------------------------------------------------------------------- compare


def test_compare_measures_problems_and_estimators_of_ones_own(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table holds what `measure` gives, on the same episodes for all."""
    code, out, err = attempt(
        capsys, "compare", "my_file.py:short", "--params", "my_file.py:params",
        "--estimators", "fog", "split", "mine.py:Mine", "--count", "600", "--seed", "5",
        "--csv", "rows.csv",
    )  # fmt: skip
    assert code == 0, err
    problem = gradlab.make("my_file.py:short")
    params = {n: p.double() for n, p in gradlab.make("gate").reference.items()}
    truth = gradlab.oracle.ClosedForm()(problem, params)
    samplers = {n: E.make(n) for n in ("fog", "split", "mine.py:Mine")}
    expected = gradlab.measure(samplers, problem, params, 600, 5).compare(truth, batch=100)
    rows = pd.read_csv("rows.csv").query("part == 'all'").set_index("estimator")
    for name, report in expected.items():
        for end in ("", "_low", "_high"):
            assert rows[f"relative_bias{end}"][name] == report.overall.flat()[f"relative_bias{end}"]
        assert f"\n{name} " in out
    # an estimator of one's own that is FOG
    assert rows["mse"]["fog"] == pytest.approx(rows["mse"]["mine.py:Mine"], rel=1e-9)
    assert "Answer:          split has the least error" in out and "closed form, exact" in out
    assert "the policy of my_file.py:params" in " ".join(out.split()) and "600 episodes" in out


def test_compare_samples_a_truth_to_the_error_that_is_asked_for(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--estimators", "fog", "--count", "200", "--stderr", "0.2")
    code, out, err = attempt(capsys, "compare", "gate", *options, "--most", "100000")
    assert code == 0 and "exact" in out  # a formula is asked first
    # another policy has no formula
    (here / "odd.py").write_text(
        "import gradlab\ndef odd():\n    return gradlab.make('gate', hidden=(4,)).replace(name='odd')\n"
    )
    code, out, err = attempt(capsys, "compare", "odd.py:odd", *options, "--most", "200000")
    assert code == 0, err
    said = " ".join(out.split())
    assert "the truth is Split" in said and "all rows share its error" in said
    assert "a new policy, not trained (seed 0" in said
    assert float(said.partition("known to ")[2].partition("%")[0]) < 25
    options = ("--estimators", "fog", "--count", "200", "--stderr", "0.01", "--most", "1000")
    code, out, err = attempt(capsys, "compare", "odd.py:odd", *options)
    assert code == 0 and "after 1000 episodes, not to 1.0%; a larger --most would help" in err


def test_compare_reads_a_checkpoint(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params = gradlab.make("heaviside", dtype=torch.float64).reference
    checkpoints.save("policy.safetensors", {n: p + 0.1 for n, p in params.items()}, {})
    outs = []
    for options in ([], ["--params", "policy.safetensors"]):
        code, out, _ = attempt(
            capsys, "compare", "heaviside", "--estimators", "pg", "--count", "200", *options
        )
        assert code == 0
        outs.append(out.splitlines()[-1])
    assert outs[0] != outs[1]


SEEN = """
import torch
import gradlab

policy = gradlab.GaussianPolicy(hidden=(4,), normalise=True)
problem = gradlab.make("hovering", horizon=8, policy=policy)

def params(problem):
    return problem.init(torch.Generator().manual_seed(0))
"""


def test_compare_reads_a_training_with_its_statistics_of_observations(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "seen.py").write_text(SEEN)
    problem = gradlab.make("seen.py:problem")
    algorithm = Algorithm(E.FOG(), CriticRecipe(hidden=(4,), passes=1), episodes=4, length=4)
    state, _ = update(problem, algorithm, init(problem, algorithm))
    state.save("state.safetensors")
    looked: list[Problem] = []
    measured = compare.measure

    def measure(samplers: Any, problem: Problem, params: Any, *rest: Any, **options: Any) -> Any:
        looked.append(problem)
        assert all(torch.equal(value, state.params[name]) for name, value in params.items())
        return measured(samplers, problem, params, *rest, **options)

    monkeypatch.setattr(compare, "measure", measure)
    few = ("--estimators", "fog", "--count", "20", "--most", "80")
    code, out, err = attempt(
        capsys, "compare", "seen.py:problem", "--params", "state.safetensors", *few
    )
    assert code == 0, err
    assert "the policy of state.safetensors" in " ".join(out.split())
    statistics = looked[0].bind(state.params).buffers
    assert state.buffers and all(
        torch.equal(value, statistics[name]) for name, value in state.buffers.items()
    )
    code, out, err = attempt(capsys, "compare", "hovering", "--params", "state.safetensors", *few)
    assert (code, out) == (2, "") and "prepared(Options('shac', 'hovering'))[0]" in err
    args = ("compare", "seen.py:problem", "--params", "seen.py:params", *few)
    code, out, err = attempt(capsys, *args)
    assert (code, out) == (2, "") and "standardises what it observes, and --params" in err


def test_compare_draws_noise_where_it_is_asked_to(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--noise device` counts, `cpu` (the default there) draws in order: other episodes."""
    few = ("--estimators", "fog", "--count", "200", "--seed", "5", "--csv", "rows.csv")
    params = gradlab.make("gate").reference
    seen = {}
    for noise, options in {"cpu": (), "device": ("--noise", "device")}.items():
        code, _, err = attempt(capsys, "compare", "gate", *few, *options)
        assert code == 0, err
        problem = gradlab.make("gate", noise=noise)
        truth = gradlab.oracle.ClosedForm()(problem, params)
        report = gradlab.measure(E.FOG(), problem, params, 200, 5).compare(truth, batch=100)["FOG"]
        seen[noise] = pd.read_csv("rows.csv").query("part == 'all'")["mse"].item()
        assert seen[noise] == pytest.approx(report.overall.mse.estimate, rel=1e-9)
    assert seen["cpu"] != seen["device"]
    code, out, err = attempt(capsys, "compare", "gate", *few, "--noise", "gpu")
    assert (code, out) == (2, "") and "cpu" in err and err.count("\n") == 1


def test_counts_become_whole_groups(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samplers = {"a": E.PG(baseline="loo", group_size=30), "b": E.PG(baseline="loo", group_size=8)}
    assert comparison.whole_groups(100, samplers) == 120
    assert comparison.whole_groups(120, samplers) == 120
    assert comparison.whole_groups(7, {"fog": E.FOG()}) == 7


def test_samples_that_are_not_finite_are_counted(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "lossy.py").write_text(
        """
from dataclasses import dataclass
import torch
import estimators

@dataclass(frozen=True)
class Lossy(estimators.SurrogateEstimator):
    def surrogate(self, problem, policy, noise):
        value = estimators.FOG().surrogate(problem, policy, noise)
        lost = noise.action[..., 0, 0] > 1.5
        return value * torch.where(lost, torch.nan, 1.0)

    def call_weights(self, problem):
        return torch.ones(problem.horizon)
"""
    )
    code, out, _ = attempt(
        capsys, "compare", "gate", "--estimators", "fog", "lossy.py:Lossy", "--count", "600"
    )
    assert code == 0
    noise = next(iter(gradlab.noise_stream(gradlab.make("gate"), 600, 0)))
    lost = int((noise.action[:, 0, 0] > 1.5).sum())
    last = {line.split()[0]: line.split()[-2] for line in out.splitlines()[-2:]}
    assert lost > 0 and last == {"fog": "0", "lossy.py:Lossy": str(lost)}
    assert f"{lost} of 600 samples not finite" in " ".join(out.split())


# --------------------------------------------------------------------------------------- doctor


def test_doctor_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = attempt(capsys, "doctor")
    assert code == 0 and out.endswith("Nothing is in the way.\n")
    lines = dict(line.split(None, 1) for line in out.splitlines() if line)
    assert lines["torch"] == importlib.metadata.version("torch")
    assert lines["estimators"] == str(ROOT / "estimators")
    assert "CPU" in lines["device"]


def test_doctor_finds_what_is_in_the_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "whole", "[gradlab.problems]\nfull = whole:docking\n")
    install(
        tmp_path, "broken", "[gradlab.estimators]\nhalf = broken:half\n", "import nothing_here\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        siblings, "complaint", lambda package: "hidden" if package == "studies" else None
    )
    code, out, _ = attempt(capsys, "doctor")
    assert code == 1
    assert "problem full           whole.docking" in out
    assert "estimator half         estimator 'half' cannot be imported" in out
    assert out.endswith("Look at: studies, estimator half.\n")
