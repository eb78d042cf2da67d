"""Every study runs where it is told to, and says so.

A device that no machine lacks stands in for a GPU: tests/helpers/pretend.py.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import estimators as E
import gradlab
from estimators.base import call_weights_of
from gradlab.commands import compare
from gradlab.foundation.errors import Conflict, Unavailable
from gradlab.foundation.placement import Placement
from gradlab.foundation.tensors import constant
from gradlab.study import Study, read_rows, run_study
from gradlab.study.commandline import parse
from studies.__main__ import studies
from studies.train.options import Options, prepared, settings
from tests.contracts.test_contracts import registered
from tests.helpers.pretend import DEVICE, pretended
from tests.helpers.runs import undrawn
from tests.helpers.toy import toy_problem

ROOT = Path(__file__).parents[2]
STUDIES = sorted(studies())
CPU_ONLY = {"original_engines"}
CPU_PART = {"learning_curves", "learning_rate_robustness", "reward_robustness", "apg_suite"}
# the smallest configs that there are, of tests/studies
TINY = {
    "bias_vs_relaxation": ("test_bias_vs_relaxation", "SMALL"),
    "jumps": ("test_jumps_study", "TINY"),
    **{
        name: (f"test_{name}", "TINY")
        for name in (
            "contact_stiffness", "critic_quality", "empirical_bias", "horizon", "leaderboard",
            "loss_landscape", "mixture_ratio", "mixture_weights", "parameter_residual", "rollout_variance",
        )
    },
}  # fmt: skip
# those whose smallest run is a minute or two there
COMPARED = (
    "critic_quality", "empirical_bias", "horizon", "leaderboard", "parameter_residual", "rollout_variance",
)  # fmt: skip
THERE = Placement(DEVICE, "cpu")


def study_of(name: str) -> Study:
    return Study.of(f"studies.{name}")


def tiny(name: str) -> Any:
    module, constant = TINY[name]
    return getattr(importlib.import_module(f"tests.studies.{module}"), constant)


@pytest.mark.parametrize("name", STUDIES)
def test_the_options_are_every_study_s(name: str) -> None:
    run, _, _ = parse(study_of(name), ["--device", "cuda", "--noise", "cpu"])
    assert (run.device, run.noise) == ("cuda", "cpu")
    here, _, _ = parse(study_of(name), [])
    assert (here.device, here.noise) == ("cpu", None)


@pytest.mark.parametrize("name", STUDIES)
def test_what_is_on_the_cpu_alone_says_so_before_anything_is_done(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And so does a machine without a GPU; nothing is written."""
    study = study_of(name)
    config, _ = study.preset("smoke")
    assert (study.cpu_only is not None) == (name in CPU_ONLY)
    assert (study.cpu_part is not None) == (name in CPU_PART)
    if study.cpu_only is not None:
        with pytest.raises(Unavailable, match="runs on the CPU alone, since .*; leave out"):
            run_study(study, config, tmp_path / "out", placement=THERE)
    elif not torch.cuda.is_available():
        with pytest.raises(Unavailable, match="expected a CUDA device for --device cuda, and"):
            run_study(study, config, tmp_path / "out", placement=Placement("cuda"))
    assert not (tmp_path / "out").exists()


def calls(names: set[str]) -> Iterator[tuple[str, ast.Call]]:
    """Where the studies call functions of these names, or methods."""
    for path in sorted((ROOT / "studies").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                function = node.func
                name = function.attr if isinstance(function, ast.Attribute) else ""
                name = function.id if isinstance(function, ast.Name) else name
                if name in names:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_nothing_but_the_run_says_where_problems_are() -> None:
    """`make` asks the run; a `Problem` that is put together by hand is put where the run is."""
    for place, call in calls({"make", "robot"}):
        told = {keyword.arg for keyword in call.keywords} & {"device", "noise"}
        assert not told or place.startswith("studies/throughput/stopwatch.py"), place
    for place, call in calls({"Problem"}):
        whole = [keyword.value for keyword in call.keywords if keyword.arg is None]
        assert any("here()" in ast.unparse(value) for value in whole), place


def test_training_too(monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(device=DEVICE, noise="device")
    with pretended():
        problem, _ = prepared(options)
    assert (str(problem.device), problem.noise) == (DEVICE, "device")
    kept = settings(options)
    assert (kept["device"], kept["noise"]) == (DEVICE, "device")
    assert settings(Options())["noise"] == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(Unavailable, match="--device cuda, and torch finds none"):
            prepared(Options(device="cuda"))


# ------------------------------------------------------------------------- what is done there


def small() -> tuple[Study, Any]:
    study = undrawn(study_of("jumps"))
    return study, dataclasses.replace(tiny("jumps"), cases=("quadratic",))


def test_a_run_there_is_that_of_the_cpu_and_another_run(tmp_path: Path) -> None:
    study, config = small()
    here = run_study(study, config, tmp_path / "cpu", jobs=1).rows
    with pretended():
        there = run_study(study, config, tmp_path / "there", jobs=1, placement=THERE).rows
    assert there.equals(here)
    manifest = json.loads((tmp_path / "there" / "manifest.json").read_text())
    assert (manifest["device"], manifest["noise"]) == (DEVICE, "cpu")
    for placement, what in ((Placement(), "device there"), (Placement(DEVICE, "device"), "noise")):
        with pretended(), pytest.raises(Conflict, match=f"another config .*{what}"):
            run_study(study, config, tmp_path / "there", jobs=1, placement=placement)
    assert read_rows(tmp_path / "there").equals(there)


def test_a_run_there_goes_on(tmp_path: Path) -> None:
    """As the tests of a GPU have it: `tests/contracts/test_gpu.py`."""
    from tests.contracts.test_gpu import goes_on

    study, config = small()
    with pretended():
        first = run_study(study, config, tmp_path, jobs=1, placement=THERE).rows
        goes_on(study, config, tmp_path, THERE, first)


def test_noise_of_the_device_is_another_run_with_other_numbers(tmp_path: Path) -> None:
    study, config = small()
    here = run_study(study, config, tmp_path / "cpu", jobs=1).rows
    placement = Placement("cpu", "device")
    counted = run_study(study, config, tmp_path / "counted", jobs=1, placement=placement).rows
    with pretended():
        placement = Placement(DEVICE, "device")
        there = run_study(study, config, tmp_path / "there", jobs=1, placement=placement).rows
    assert there.equals(counted) and not counted.equals(here)
    manifest = json.loads((tmp_path / "counted" / "manifest.json").read_text())
    assert (manifest["device"], manifest["noise"]) == ("cpu", "device")


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPARED)
def test_every_table_is_the_same_there(name: str, tmp_path: Path) -> None:
    """No tensor of the host meets one of the device, and numpy gets copies."""
    study, config = undrawn(study_of(name)), tiny(name)
    measured = [*study.measured, "seconds"]
    here = run_study(study, config, tmp_path / "cpu", jobs=1).rows
    with pretended():
        there = run_study(study, config, tmp_path / "there", jobs=1, placement=THERE).rows
    left = [column for column in here.columns if column not in measured]
    assert there[left].equals(here[left])


@pytest.mark.parametrize("noise", ["cpu", "device"])
@pytest.mark.parametrize("name", ["racing", "lq"])
def test_estimators_there(name: str, noise: str) -> None:
    means = []
    for device in ("cpu", DEVICE):
        with pretended():
            options: dict[str, Any] = {"device": device, "noise": noise, "dtype": torch.float64}
            problem = gradlab.make(name, horizon=4, **options)
            params = problem.init(torch.Generator().manual_seed(0))
            measured = gradlab.measure(E.Split(0.1), problem, params, 70, 1, chunk_size=32)
            means.append({n: x.cpu() for n, x in measured.single.mean.items()})
    for leaf, value in means[0].items():
        assert torch.equal(value, means[1][leaf])


def test_combinations_compare_and_add_call_weights_there() -> None:
    """Those of every estimator are on the host, wherever episodes are."""
    with pretended():
        problem = toy_problem(horizon=4).replace(device=DEVICE, noise="cpu")
        params = problem.init(torch.Generator().manual_seed(0))
        noise = problem.draw(8, torch.Generator().manual_seed(1))
        for name, estimator in registered().items():
            assert call_weights_of(estimator, problem).device.type == "cpu", name
        (E.FOG() + E.TruncatedBPTT(2))(problem, params, noise).mean()


def test_estimators_are_compared_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`gradlab compare --device`: all but the last column, the time, is that of the CPU."""
    places, measured = [], compare.measure

    def measure(samplers: Any, problem: Any, *rest: Any, **options: Any) -> Any:
        places.append(str(problem.device))
        return measured(samplers, problem, *rest, **options)

    monkeypatch.setattr(compare, "measure", measure)
    options = ["gate", "--estimators", "fog", "pg", "--count", "50", "--device"]
    printed = []
    with pretended():
        for place in ("cpu", DEVICE):
            compare.run([*options, place])
            printed.append(re.sub(r"\S+$", "", capsys.readouterr().out, flags=re.MULTILINE))
    assert places == ["cpu", DEVICE]
    assert printed[0] == printed[1] and "fog  " in printed[0]


def test_constants_of_the_stand_in_are_not_those_of_a_device_without_numbers() -> None:
    """Both are kept under one name, and each is forgotten before the other is asked for."""
    nowhere = torch.empty(2, device=DEVICE)
    assert constant((1.0, 2.0), nowhere).is_meta
    with pretended():
        there = torch.zeros(2, device=DEVICE)
        assert (constant((1.0, 2.0), there) + there).tolist() == [1.0, 2.0]
    assert type(constant((1.0, 2.0), nowhere)) is Tensor


def test_the_stand_in_refuses_what_a_gpu_does() -> None:
    with pretended():
        there = torch.ones(3).to(DEVICE)
        with pytest.raises(RuntimeError, match="a tensor of the host"):
            there + torch.ones(3)
        with pytest.raises((RuntimeError, TypeError)):
            there.numpy()
        assert (there + torch.tensor(1.0)).tolist() == [2.0] * 3  # a single number goes along
        assert torch.tensor([1.0, 2.0], device=DEVICE).sum().item() == 3.0
