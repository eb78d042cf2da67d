"""The training command: names, files, stops, and what it says at the end."""

from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest
import torch

import gradlab
from estimators import FOG, EvolutionStrategies, Split
from gradlab.foundation.errors import BadValue, GradlabError, Missing, UnknownName
from gradlab.training.evaluation import Evaluation
from gradlab.training.loop import Info, init, update
from gradlab.training.quality import Yardstick
from gradlab.training.schedule import Schedule
from gradlab.training.state import TrainingState
from studies.train import cost
from studies.train import run as command
from studies.train.algorithms import ALGORITHMS, FAMILIES, named
from studies.train.log import Tally
from studies.train.options import Options, prepared
from studies.train.report import beside, quality, report
from studies.train.run import main, run
from tests.helpers import checking


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer episodes of fewer steps, so that an update takes no time."""
    tiny = {"episodes": 8, "length": 4, "horizon": 12, "passes": 1, "hidden": (8,), "critic": (8,)}
    for name, family in FAMILIES.items():
        monkeypatch.setitem(FAMILIES, name, dataclasses.replace(family, **tiny))


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """All algorithms in the sizes of the tasks."""
    for name, algorithm in ALGORITHMS.items():
        monkeypatch.setitem(ALGORITHMS, name, dataclasses.replace(algorithm, tasks={}))


@pytest.mark.parametrize("task", FAMILIES)
def test_every_algorithm_fits_every_task(task: str) -> None:
    problem, first = named("shac", task)
    assert first.tail == "v"
    for name, algorithm in ALGORITHMS.items():
        family = algorithm.family(task)
        found = algorithm.build(family)
        found.check(problem.replace(horizon=family.horizon))
        assert (found.critic is None) == (found.tail == "none") or name == "apg_critic"
        own = algorithm.tasks.get(task, {})
        assert found.episodes == own.get("episodes", FAMILIES[task].episodes), name


def test_published_numbers_are_those_of_the_papers() -> None:
    """Where they differ from SHAC's: AGPO's table 1, AHAC, RPO, SAPO."""
    problem, agpo = named("agpo", "humanoid")
    assert agpo.critic is not None and agpo.critic.hidden == (256, 128, 64)
    assert (agpo.critic.keep, agpo.critic.minibatches, agpo.optimiser.learning_rate) == (
        0.8, 8, Schedule(7e-4, 7e-4),
    )  # fmt: skip
    assert agpo.kl is not None and agpo.kl.coefficient == pytest.approx(10 * 0.3)
    assert named("rpo", "hopper")[1].episodes == 1024
    ahac, released = (named(name, "ant")[1].adaptive for name in ("ahac", "ahac_released"))
    assert ahac is not None and released is not None
    assert (ahac.sign, released.sign, ahac.limit) == ("dual", "released", 500.0)
    problem, sapo = named("sapo", "ant")
    policy = problem.policy
    assert isinstance(policy, gradlab.GaussianPolicy)
    assert (policy.std, policy.log_std_range, policy.activation) == ("state", (-5.0, 2.0), "silu")
    assert sapo.optimiser.decoupled and sapo.optimiser.max_norm == 0.5
    assert named("abpt_full", "hovering")[1].entropy is None
    assert named("abpt_full", "landing")[1].entropy is not None
    problem, abpt = named("abpt_published", "racing")
    assert (problem.horizon, abpt.episodes, abpt.length, abpt.updates) == (512, 100, 96, 625)
    assert abpt.entropy is not None and abpt.optimiser.weight_decay == 1e-5
    assert named("abpt_published", "tracking")[1].entropy is None


VARIANTS = (
    "apg_mc",
    "apg_critic",
    "apg_adaptive",
    "agpo_fixed",
    "agpo_maxnorm",
    "agpo_quantile",
    "ahac_released",
    "abpt_published",
)


@pytest.mark.parametrize(
    "algorithm",
    [pytest.param(n, marks=pytest.mark.slow if n in VARIANTS else ()) for n in ALGORITHMS],
)
@pytest.mark.usefixtures("ours")
def test_every_algorithm_takes_a_step(algorithm: str, tmp_path: Path) -> None:
    options = Options(algorithm, "landing", updates=1, every=1, evaluations=4, out=str(tmp_path))
    said = run(options)
    assert said.startswith("After 1 updates (")
    assert "before training it was" in said
    log = pd.read_csv(tmp_path / "log.csv")
    assert list(log["updates"]) == [0, 1]
    assert log["gradient norm"].iloc[1] > 0
    assert (tmp_path / "report.png").stat().st_size > 0
    assert said in (tmp_path / "report.md").read_text(encoding="utf-8")


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
    with pytest.raises(BadValue, match=r"another run \(--restart was None, not 'inside'\)"):
        main([*first, "--restart", "inside"])
    with pytest.raises(BadValue, match=r"another run \(--observations was None, not 'raw'\)"):
        main([*first, "--observations", "raw"])
    log, whole = tmp_path / "log.csv", (tmp_path / "log.csv").read_text()
    log.write_text("".join(whole.splitlines(keepends=True)[:-1]))  # stopped between two writes
    main(first)
    assert log.read_text() == whole
    asked = ["--restart", "inside", "--observations", "standardised"]
    said = main([*first, "--seed", "3", "--fresh", *asked])
    assert "After 1 updates" in said
    assert "Observations: standardised, as asked" in said and "Restarts: inside, as asked" in said


@pytest.mark.parametrize(("task", "usual"), [("landing", "raw"), ("hopper", "standardised")])
def test_networks_see_what_is_asked(task: str, usual: str) -> None:
    """The same numbers as by the task's own policy where that is asked for, others otherwise."""
    states = {}
    for asked in (None, "raw", "standardised"):
        problem, algorithm = prepared(Options("shac", task, observations=asked))
        algorithm = dataclasses.replace(algorithm, episodes=4, length=4)
        state = init(problem, algorithm, 0)
        for _ in range(2):
            state, _ = update(problem, algorithm, state)
        standard = asked == "standardised" or (asked is None and usual == "standardised")
        assert bool(state.buffers) is standard
        states[asked] = state.params
    other = {"raw": "standardised", "standardised": "raw"}[usual]
    for name, value in states[None].items():
        assert torch.equal(value, states[usual][name]), name
    assert any(not torch.equal(value, states[other][name]) for name, value in states[None].items())


OWN = """
import torch
from torch import nn

import gradlab
from estimators import Split
from gradlab.training.algorithm import Algorithm
from gradlab.training.critic import CriticRecipe

def docking(horizon=6, hidden=(4,)):
    return gradlab.make("gate", horizon=horizon, hidden=hidden)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, obs):
        return self.layer(obs).tanh()

def module():
    with torch.random.fork_rng():
        return docking().replace(policy=gradlab.ModulePolicy(Net()))

def mine(problem):
    return Algorithm(Split(), CriticRecipe(hidden=(4,)), episodes=4, length=3, updates=2)

def wrong(problem):
    return 3

def broken(problem):
    return 1 / 0
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user with a file of theirs."""
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("algorithm", ["shac", "abpt", "own.py:mine"])
@pytest.mark.parametrize("task", ["own.py:docking", "own.py:module"])
def test_a_task_and_an_algorithm_of_ones_own_are_trained(
    algorithm: str, task: str, own: Path
) -> None:
    """With their own policy; a run that is done says the same again; its folder has no colon."""
    few = ["--algorithm", algorithm, "--task", task, "--evaluations", "4", "--updates"]
    said = main([*few, "2", "--out", "whole"])
    assert f"{algorithm} earns" in said and f"per episode of {task}" in said
    assert "tuned for this task" in said or "with its own numbers" in said
    problem, _ = prepared(Options(algorithm, task))
    assert problem.horizon == 6 and problem.policy.shapes() == gradlab.make(task).policy.shapes()
    state = TrainingState.load("whole/state.safetensors")
    for name, value in problem.init(torch.Generator().manual_seed(0)).items():
        assert state.params[name].shape == value.shape
    assert not set(":/") & set(Options(algorithm, task).folder.name)
    same = main([*few, "2", "--out", "whole"])
    assert same.partition("earns")[2] == said.partition("earns")[2]


@pytest.mark.parametrize(
    ("algorithm", "task"), [("shac", "racing"), ("own.py:mine", "own.py:module")]
)
def test_a_run_that_was_stopped_ends_as_if_it_had_not(
    algorithm: str, task: str, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = {
        side: Options(algorithm, task, updates=6, every=4, evaluations=4, out=str(own / side))
        for side in "ab"
    }
    run(sides["a"])
    original, calls = command.update, []

    def stopping(*args: object) -> object:
        calls.append(None)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(command, "update", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(sides["b"])
    assert int(TrainingState.load(own / "b" / "state.safetensors").updates) == 3
    run(sides["b"])
    a, b = (TrainingState.load(own / side / "state.safetensors") for side in "ab")
    assert all(torch.equal(a.params[name], value) for name, value in b.params.items())
    logs = [pd.read_csv(own / side / "log.csv") for side in "ab"]
    pd.testing.assert_frame_equal(*logs)
    monkeypatch.setattr(command, "update", lambda *_: pytest.fail("a run that is over is not run"))
    assert "After 6 updates" in run(sides["b"])


@pytest.mark.parametrize(
    ("args", "kind", "words"),
    [
        (["--task", "own.py:dokcing"], UnknownName, "did you mean docking"),
        (["--task", "gaet"], UnknownName, "unknown task 'gaet'; did you mean gate"),
        (["--algorithm", "own.py:wrong"], BadValue, r"or a function of the problem.*, got 3"),
        (["--algorithm", "own.py:broken"], GradlabError, "failed on hovering: ZeroDivisionError"),
        (["--task", "own.py:module", "--observations", "raw"], BadValue, "for a GaussianPolicy"),
    ],
)
def test_a_mistake_in_what_is_ones_own_is_one_line(
    args: list[str], kind: type[Exception], words: str, own: Path
) -> None:
    with pytest.raises(kind, match=words) as caught:
        main(args)
    assert "\n" not in str(caught.value)


def test_layers_of_a_task_of_ones_own(own: Path) -> None:
    problem, _ = prepared(Options("shac", "own.py:docking", hidden=(5, 3)))
    assert problem.policy.hidden == (5, 3)


def test_layers_may_be_as_wide_as_asked() -> None:
    problem, _ = prepared(Options("shac", "hovering", hidden=(5, 3)))
    shapes = problem.policy.shapes()
    assert shapes["layers.0.weight"][0] == 5 and shapes["layers.1.weight"] == (3, 5)


def test_a_folder_that_cannot_be_written_is_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadValue, match="expected a folder to write to"):
        main(["--out", str(tmp_path / "file" / "run")])


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        (["--algorithm", "shacc"], UnknownName, "shac"),
        (["--algorithm", "ppo"], BadValue, "learning_curves --tasks hovering --algorithms ppo"),
        (["--task", "hover"], UnknownName, "hovering"),
        (["--updates", "0"], BadValue, "--updates"),
        (["--evaluations", "0"], BadValue, "--evaluations"),
        (["--on-nonfinite", "x"], BadValue, "'stop' or 'skip'"),
        (["--quality", "-1"], BadValue, "--quality"),
        (["--hidden", "8", "0"], BadValue, "--hidden"),
        (["--quality-truth", "3"], BadValue, "--quality-truth"),
    ],
)
def test_wrong_options_are_one_line(
    args: list[str], error: type[Exception], words: str, tmp_path: Path
) -> None:
    with checking.off(), pytest.raises(error, match=words) as caught:
        main([*args, "--out", str(tmp_path)])
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_cost_of_an_update_is_measured_beside_its_parts() -> None:
    for name in ("shac", "agpo"):
        said = cost.main(["--algorithm", name, "--task", "landing", "--rounds", "6"])
        assert said.startswith(f"An update of {name} on landing takes ")


@pytest.mark.parametrize("name", ["aobg", "ddcg", "ivwh", "best_linear"])
def test_a_mixture_costs_its_parts(name: str) -> None:
    """Which it begins with: the mean of FOG's surrogate has the gradient of FOG's samples."""
    problem, algorithm = named(name, "landing")
    state = init(problem, algorithm, 0)
    fog, pg = cast(Any, cost.loss_of(problem, algorithm, state)())
    assert all((g != 0).any() for part in (fog, pg) for g in part if g is not None)
    alone = dataclasses.replace(algorithm, estimator=FOG())
    (same,) = cast(Any, cost.loss_of(problem, alone, state)())
    assert all(torch.equal(a, b) for a, b in zip(fog, same, strict=True) if a is not None)


def test_an_estimator_without_a_loss_is_told() -> None:
    problem, algorithm = named("shac", "landing")
    state = init(problem, algorithm, 0)
    other = dataclasses.replace(algorithm, estimator=EvolutionStrategies())
    with pytest.raises(BadValue, match="no loss of its own; try --algorithm shac"):
        cost.loss_of(problem, other, state)


def test_an_unknown_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--frsh"])
    assert caught.value.code == 2
    said = capsys.readouterr().err.strip()
    assert "--fresh" in said and "\n" not in said


@pytest.mark.parametrize("algorithm", ["shac", "agpo"])
def test_measuring_the_gradient_changes_no_bit(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And every row that is due is there: evaluations, measurements and the end."""
    few = Yardstick(Split(), gradients=5, truth=5, steps=6, whole=5, pairs=8, action_pairs=8)
    monkeypatch.setattr(Options, "yardstick", few)
    looked = Options(
        algorithm, "landing", updates=4, every=2, quality=3, evaluations=4, out=str(tmp_path / "a")
    )
    said = run(looked)
    monkeypatch.setattr(command, "draw", lambda *_: None)
    run(dataclasses.replace(looked, quality=0, out=str(tmp_path / "b")))
    a, b = (TrainingState.load(tmp_path / side / "state.safetensors") for side in "ab")
    for name, value in a.params.items():
        assert torch.equal(b.params[name], value)
    log = pd.read_csv(tmp_path / "a" / "log.csv")
    assert list(log["updates"]) == [0, 2, 3, 4]
    assert list(log["bias"].notna()) == [True, False, True, True]
    assert list(log["clipped"].notna()) == [False, True, True, True]
    assert ("action cosine" in log) == (algorithm == "agpo") == ("weight alpha" in log)
    assert "The gradient of the next update after 4 updates" in said
    assert "bias to the whole return" in said and len(said.splitlines()) < 40
    page = (tmp_path / "a" / "report.md").read_text(encoding="utf-8")
    assert "| 3 |" in page and "Healthy ranges" in page


def test_a_stop_keeps_the_counts_since_the_last_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "draw", lambda *_: None)
    sides = {
        s: Options("shac", "landing", updates=3, every=3, evaluations=4, out=str(tmp_path / s))
        for s in "ab"
    }
    run(sides["a"])
    original, calls = command.update, []

    def stopping(*args: object) -> object:
        calls.append(None)
        if len(calls) == 2:  # between two rows
            raise KeyboardInterrupt
        return original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(command, "update", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(sides["b"])
    run(sides["b"])
    logs = [pd.read_csv(tmp_path / side / "log.csv") for side in "ab"]
    pd.testing.assert_frame_equal(*logs)


def test_tally_counts_what_was_clipped_and_lost() -> None:
    algorithm = named("shac", "landing")[1]
    limit = algorithm.optimiser.max_norm
    assert limit is not None
    info = Info(*(torch.tensor(0.0) for _ in Info._fields))
    since = Tally()
    for norm, lost in ((2 * limit, 0), (limit / 2, 2), (torch.nan, 0)):
        since = since.add(
            info._replace(norm=torch.tensor(norm), nonfinite=torch.tensor(lost)), algorithm
        )
    assert since.shares == {"clipped": 1 / 3, "not finite": 2 / (3 * algorithm.episodes)}
    assert Tally().shares == {}


def test_a_film_of_the_policy(tmp_path: Path) -> None:
    options = Options("bptt", "landing", updates=1, evaluations=4, out=str(tmp_path), render=True)
    assert "policy.gif" in run(options)
    assert (tmp_path / "policy.gif").read_bytes()[:3] == b"GIF"


def test_tensorboard_is_one_line_where_it_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    args = ["--task", "landing", "--updates", "1", "--out", str(tmp_path), "--tensorboard"]
    with pytest.raises(Missing, match=r"gradlab\[tensorboard\]") as caught:
        main(args)
    assert "\n" not in str(caught.value)


def test_tensorboard_has_every_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a run that goes on: its folder is written anew."""
    seen: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            seen.clear()

        def add_scalar(self, name: str, value: float, step: int) -> None:
            seen.append((name, value, step))

        def flush(self) -> None: ...

        def close(self) -> None: ...

    module = types.ModuleType("torch.utils.tensorboard.writer")
    vars(module)["SummaryWriter"] = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", module)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.ModuleType("tensorboard"))
    options = Options(
        "bptt", "landing", updates=2, every=1, evaluations=4, out=str(tmp_path), tensorboard=True
    )
    run(options)
    log = pd.read_csv(tmp_path / "log.csv")
    steps = [step for name, _, step in seen if name == "return"]
    assert steps == list(log["steps"])
    first = list(seen)
    run(options)
    assert seen == first


def reported(returns: list[float], distances: torch.Tensor | None = None) -> str:
    """Of a run on hovering with these returns, each known to 0.1."""
    options, rows = Options(updates=2), []
    for i, value in enumerate(returns):
        known = {"return": value, "low": value - 0.1, "high": value + 0.1}
        rows.append({"updates": i, "steps": i, "length": 9.0, "event 0": 0.0, **known})
    return report(options, prepared(options)[0], rows, None, [], distances)


def test_a_policy_that_was_better_is_told_of_negative_returns_too() -> None:
    assert "It had been better: -1 [-1.1, -0.9] after 1 updates." in reported([-3.0, -1.0, -2.0])
    assert "It had been better" not in reported([-3.0, -2.0, -1.0])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shac", []),
        ("sapo", ["Both truths are of rewards alone: the entropy in this algorithm's gradient"]),
        (
            "rpo",
            ["Not in the gradient that was measured: the bonus for entropy and the KL penalty."],
        ),
    ],
)
def test_what_the_truths_do_not_have_is_said(name: str, said: list[str]) -> None:
    found = list(beside(named(name, "hovering")[1]))
    assert len(found) == len(said)
    assert all(line.startswith(words) for line, words in zip(found, said, strict=True))


def test_weights_have_names() -> None:
    row = {"updates": 0, "quality steps": 1, "weight 1": 0.25, "weight alpha": 0.5}
    last = list(quality([row]))
    assert "Weights of the estimator, on average: part 1 0.25, alpha 0.5." in last


def test_distances_are_of_episodes_that_were_not_over() -> None:
    far = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, torch.inf]])
    assert ": 3 m on average over episodes, 4 m at most." in reported([1.0], far[:2])
    assert (
        ": 3 m on average over episodes (the 2 of 3 that were not over), 4 m at most."
        in reported([1.0], far)
    )
    assert "Every episode had ended before its last step" in reported([1.0], far[2:])


def test_detached_parts_change_the_training_and_not_the_returns(tmp_path: Path) -> None:
    kind = {"updates": 2, "every": 1, "evaluations": 4}
    plain = Options("bptt", "tracking", out=str(tmp_path / "plain"), **kind)
    cut = Options("bptt", "tracking", out=str(tmp_path / "cut"), detached=("velocity",), **kind)
    said = run(plain), run(cut)
    logs = [pd.read_csv(tmp_path / name / "log.csv") for name in ("plain", "cut")]
    assert logs[0]["return"][0] == logs[1]["return"][0]
    assert logs[0]["gradient norm"][1] != logs[1]["gradient norm"][1]
    assert "Rewards pass no gradient through: velocity." in said[1]
    assert all("Farthest from its goal in the last 12 steps: " in one for one in said)
    with pytest.raises(BadValue, match="--detached was"):
        run(dataclasses.replace(plain, detached=("velocity",)))
    with pytest.raises(BadValue, match="--detached is for flights, got ant"):
        prepared(Options("shac", "ant", detached=("velocity",)))
    with pytest.raises(UnknownName, match="speed"):
        prepared(Options("shac", "tracking", detached=("speed",)))
