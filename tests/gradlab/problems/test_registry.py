"""Problems and estimators by name: registered, of installed packages, and by where they are."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import estimators as E
import gradlab
from estimators.registry import ESTIMATORS
from gradlab import environments
from gradlab.foundation import naming
from gradlab.foundation.errors import BadValue, GradlabError, Missing, UnknownName
from gradlab.problems import flights, known_answers, registry, runners

MINE = """
from dataclasses import dataclass
import torch
import estimators
import gradlab

def docking(depth=2, horizon=5):
    return gradlab.make("lq", horizon=horizon, dtype=torch.float64).replace(name=f"docking{depth}")

ready = gradlab.make("lq", horizon=3)
nothing = lambda: None
number = 7

@dataclass(frozen=True)
class Mine(estimators.SurrogateEstimator):
    scale: float = 1.0

    def surrogate(self, problem, policy, noise):
        path = gradlab.rollout(problem, policy, noise)
        return self.scale * gradlab.evaluate(problem, path).value.sum(-1)

    def call_weights(self, problem):
        return torch.ones(problem.horizon)
"""


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What a test registers or imports is gone after it."""
    tables = [(table, dict(table.builders)) for table in (registry.PROBLEMS, ESTIMATORS)]
    modules, path = set(sys.modules), list(sys.path)
    yield
    for table, builders in tables:
        table.builders.clear()
        table.builders.update(builders)
    for name in set(sys.modules) - modules:
        if not name.startswith(("gradlab.", "estimators.", "torch", "mujoco")):
            del sys.modules[name]
    sys.path[:] = path


def install(folder: Path, package: str, entry_points: str, source: str = MINE) -> None:
    """A package as pip leaves it: a module, and a dist-info folder that lists its entry points."""
    folder.mkdir(exist_ok=True)
    (folder / f"{package}.py").write_text(source)
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)


def one_line(caught: pytest.ExceptionInfo[GradlabError]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


def docking(depth: int = 2) -> gradlab.Problem:
    return gradlab.make("lq", horizon=depth)


# ------------------------------------------------------------------------------------- registered


def test_a_registered_problem_is_made_by_name_with_its_signature_as_options() -> None:
    gradlab.register("berth", docking)
    assert gradlab.names()[-1] == "berth"
    assert gradlab.make("berth") == docking()
    assert gradlab.make("berth", depth=4).horizon == 4
    with pytest.raises(UnknownName, match="did you mean depth") as caught:
        gradlab.make("berth", dpeth=4)
    one_line(caught)
    with pytest.raises(UnknownName, match="did you mean horizon"):
        gradlab.make("berth", horizn=4)


def test_what_a_builder_does_not_take_replaces_fields_of_its_problem() -> None:
    gradlab.register("berth", docking)
    critic = gradlab.Critic(name="none of use")
    made = gradlab.make(
        "berth", horizon=7, discount=0.5, hidden=(3,), dtype=torch.float64, critic=critic
    )
    assert (made.horizon, made.discount, made.dtype, made.critic) == (7, 0.5, torch.float64, critic)
    assert made.policy == dataclasses.replace(docking().policy, hidden=(3,))
    # what is left out is as the builder has it
    gradlab.register("exact", lambda: docking().replace(dtype=torch.float64, discount=0.3))
    assert gradlab.make("exact").dtype == torch.float64
    assert gradlab.make("exact", discount=0.4).discount == 0.4


def test_a_builder_gets_the_shared_options_that_it_has_a_parameter_for() -> None:
    seen = {}

    def builder(horizon: int = 3, hidden: tuple[int, ...] = ()) -> gradlab.Problem:
        seen.update(horizon=horizon, hidden=hidden)
        return docking(horizon)

    gradlab.register("own", builder)
    gradlab.make("own", horizon=4, hidden=(8, 8))
    assert seen == {"horizon": 4, "hidden": (8, 8)}


def test_a_name_belongs_to_one() -> None:
    gradlab.register("berth", docking)
    gradlab.register("berth", docking)  # a notebook's cell that runs twice
    for name, builder in (("berth", lambda: None), ("lq", docking), ("hovering", docking)):
        with pytest.raises(
            BadValue, match=f"{name!r} is registered already, by .*another"
        ) as caught:
            gradlab.register(name, builder)
        one_line(caught)
    with pytest.raises(BadValue, match="'fog' is registered already, by estimators.pathwise.FOG"):
        E.register("fog", E.PG)
    gradlab.register("anonymous", lambda: docking())
    with pytest.raises(BadValue, match="registered already"):  # all lambdas have one name
        gradlab.register("anonymous", lambda: docking())


@pytest.mark.parametrize("name", ["", "  ", "a:b"])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(BadValue, match="without a colon") as caught:
        gradlab.register(name, docking)
    one_line(caught)


def test_a_builder_that_builds_no_problem_is_one_line() -> None:
    gradlab.register("empty", lambda: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(
        BadValue, match=r"should build a gradlab.Problem.*'empty', got None"
    ) as caught:
        gradlab.make("empty")
    one_line(caught)
    E.register("problem", docking)  # type: ignore[arg-type]
    with pytest.raises(BadValue, match="should build an Estimator"):
        E.make("problem")


def test_options_that_are_missing_are_one_line_and_errors_of_the_builder_stay_its_own() -> None:
    def deep(depth: int) -> gradlab.Problem:
        return docking(depth + len(depth))  # type: ignore[arg-type]

    gradlab.register("deep", deep)
    with pytest.raises(BadValue, match="'deep' does not take these options: missing.*'depth'"):
        gradlab.make("deep")
    with pytest.raises(TypeError, match="has no len"):
        gradlab.make("deep", depth=1)


def test_a_registered_estimator_is_made_by_name() -> None:
    E.register("wide", E.RelaxedFOG)
    assert "wide" in E.names()
    assert E.make("wide", width=0.5) == E.RelaxedFOG(0.5)


def test_a_registered_problem_is_an_environment() -> None:
    gradlab.register("berth", docking)
    env = environments.ProblemEnv("berth", depth=3)
    env.reset(seed=0)


# -------------------------------------------------------------------------- hidden, for all of them


@pytest.mark.parametrize(
    "name", [*flights.FLIGHTS, *known_answers.PRESETS, *(f"{name}*" for name in runners.RUNNERS)]
)
def test_hidden_sets_the_layers_of_every_problem(name: str) -> None:
    options = {"contact": "compliant"} if name.endswith("*") else {}
    name = name.removesuffix("*")
    plain, wide = gradlab.make(name, **options), gradlab.make(name, hidden=(5, 4), **options)
    assert wide.policy == dataclasses.replace(plain.policy, hidden=(5, 4))
    assert plain == wide.replace(policy=plain.policy)


def test_the_options_of_a_problem_are_its_signature() -> None:
    for name in gradlab.names():
        parameters = inspect.signature(registry.PROBLEMS.find(name)).parameters
        assert all(p.default is not p.empty for p in parameters.values()), name
    assert {"gates", "drone", "task", "simulator"} <= set(
        inspect.signature(registry.PROBLEMS.find("racing")).parameters
    )
    assert list(inspect.signature(registry.PROBLEMS.find("gate")).parameters) == [
        "horizon",
        "process_std",
        "bonus",
    ]


# ---------------------------------------------------------------------- packages that are installed


def test_an_installed_package_offers_problems_and_estimators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(
        tmp_path,
        "dockyard",
        "[gradlab.problems]\nslip = dockyard:docking\n[gradlab.estimators]\nmine = dockyard:Mine\n",
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert "slip" in gradlab.names() and "mine" in E.names()
    assert "dockyard" not in sys.modules  # until it is asked for
    made = gradlab.make("slip", depth=9, horizon=4)
    assert (made.name, made.horizon, made.dtype) == ("docking9", 4, torch.float64)
    assert E.make("mine", scale=2.0).scale == 2.0  # type: ignore[attr-defined]
    with pytest.raises(UnknownName, match="did you mean scale"):
        E.make("mine", scael=2.0)
    with pytest.raises(UnknownName, match="did you mean slip"):
        gradlab.make("slipp")


def test_a_package_whose_import_fails_breaks_its_own_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(
        tmp_path, "broken", "[gradlab.problems]\nhalf = broken:half\n", "import no_such_thing\n"
    )
    install(tmp_path, "whole", "[gradlab.problems]\nfull = whole:docking\n")
    install(tmp_path, "lost", "[gradlab.problems]\nlost = lost:not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert {"half", "full", "lost"} <= set(gradlab.names())
    assert gradlab.make("full").name == "docking2" and gradlab.make("lq").name == "lq"
    with pytest.raises(Missing, match="'half'.*no_such_thing.*package broken") as caught:
        gradlab.make("half")
    one_line(caught)
    with pytest.raises(Missing, match="'lost'.*not_there.*package lost"):
        gradlab.make("lost")


def test_a_name_that_two_offer_is_one_line_and_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "first", "[gradlab.problems]\nboth = first:docking\nlq = first:docking\n")
    install(tmp_path, "second", "[gradlab.problems]\nboth = second:docking\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert gradlab.names().count("both") == 1 and gradlab.names().count("lq") == 1
    with pytest.raises(
        BadValue, match="'both' is offered twice, by package .* and by package"
    ) as c:
        gradlab.make("both")
    one_line(c)
    with pytest.raises(
        BadValue, match="'lq' is offered twice, by gradlab.problems.known_answers.lq and by"
    ):
        gradlab.make("lq")
    assert gradlab.make("gate").name == "gate"


# -------------------------------------------------------------------------------- by where they are


def test_problems_and_estimators_by_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wharf.py").write_text(MINE)
    file = f"{tmp_path}/wharf.py"
    assert gradlab.make(f"{file}:docking", depth=3).name == "docking3"
    assert gradlab.make(f"{file}:ready").horizon == 3  # a problem as it stands
    assert gradlab.make(f"{file}:ready", horizon=2).horizon == 2
    mine = E.make(f"{file}:Mine", scale=3.0)
    assert mine == E.make(f"{file}:Mine", scale=3.0)  # the file is read once
    monkeypatch.chdir(tmp_path)
    assert E.make("wharf.py:Mine", scale=3.0) == mine
    assert E.make("wharf:Mine", scale=3.0) == mine  # its folder can be imported from by now
    assert "wharf" in sys.modules


def test_a_file_hides_no_module_and_is_hidden_by_none(tmp_path: Path) -> None:
    (tmp_path / "estimators.py").write_text(MINE)
    made = E.make(f"{tmp_path}/estimators.py:Mine")
    assert type(made).__name__ == "Mine"
    assert sys.modules["estimators"] is E and sys.path[-1] == str(tmp_path)


def test_a_file_may_import_the_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mooring.py").write_text("horizon = 6\n")
    (tmp_path / "quay.py").write_text(
        "import gradlab, mooring\ndef bay():\n    return gradlab.make('lq', horizon=mooring.horizon)\n"
    )
    assert gradlab.make(f"{tmp_path}/quay.py:bay").horizon == 6


@pytest.mark.parametrize(
    ("reference", "kind", "words"),
    [
        ("no_such_module:x", Missing, "no_such_module.*give the path of a .py file"),
        ("{folder}/gone.py:x", Missing, "not there"),
        ("{folder}/pier.py:dockign", UnknownName, "did you mean docking"),
        ("{folder}/pier.py:number", BadValue, "should be a gradlab.Problem or a function.*got 7"),
        ("{folder}/pier.py:nothing", BadValue, "should build a gradlab.Problem.*got None"),
        ("{folder}/bad.py:x", Missing, "SyntaxError"),
        ("{folder}/raises.py:x", Missing, "RuntimeError: two lines"),
    ],
)
def test_a_reference_that_leads_nowhere_is_one_line(
    reference: str, kind: type[GradlabError], words: str, tmp_path: Path
) -> None:
    (tmp_path / "pier.py").write_text(MINE)
    (tmp_path / "bad.py").write_text("def (:\n")
    (tmp_path / "raises.py").write_text("raise RuntimeError('two\\nlines')\n")
    with pytest.raises(kind, match=words) as caught:
        gradlab.make(reference.format(folder=tmp_path))
    one_line(caught)


def test_modules_that_names_lead_to_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "harbour", "[gradlab.problems]\nport = harbour:docking\n")
    (tmp_path / "jetty.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    for _ in range(2):  # also when they are imported already
        with naming.noted() as found:
            gradlab.make("port")
            gradlab.make("lq")
            E.make("jetty:Mine")
        assert found == {"harbour", "jetty"}
