"""What studies of learning curves share: parts, rows, claims; and what each of them trains."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch

from estimators import ABPT, NStep
from gradlab.foundation.errors import BadValue, GradlabError, Missing, UnknownName
from gradlab.study import Artefact, Cell, Saved, read_rows, run_study
from gradlab.training import evaluation
from gradlab.training.algorithm import Algorithm
from gradlab.training.evaluation import evaluate_policy
from gradlab.training.loop import init, train
from gradlab.training.schedule import Schedule
from studies import ablation, learning_curves, learning_rate_robustness, reward_robustness
from studies.ablation.variants import FULL, OPTIONS, PARTS, VARIANTS
from studies.learning_curves.config import Config
from studies.shared.curves import baselines, parts, words
from studies.shared.curves.arms import Arm, Trainings, check, plain, shortened
from studies.shared.curves.baselines import Baseline
from studies.shared.curves.claims import FAILS, HOLDS, UNKNOWN, Claim, against, judge, versus
from studies.shared.curves.rows import Curve, curves, goals, last, learnt, unsteadiness
from studies.train.algorithms import FAMILIES
from tests.helpers.runs import undrawn

TINY = {"episodes": 8, "length": 4, "horizon": 8, "passes": 1, "hidden": (8,), "critic": (8,)}
STUDIES = (ablation, learning_curves, reward_robustness, learning_rate_robustness)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer episodes of fewer steps, so that an update takes no time."""
    for name, family in FAMILIES.items():
        changed = dataclasses.replace(family, **TINY, updates=12)  # pyright: ignore[reportArgumentType]
        monkeypatch.setitem(FAMILIES, name, changed)


def build(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    return parts.train_part(artefact, needs, plain)


def trained(config: Trainings, arm: Arm) -> list[Saved]:
    """All parts of an arm's trainings, one after the other."""
    made: dict[str, Saved] = {}
    for artefact in parts.artefacts(config, [arm], build):
        needs = {name: made[name] for name in artefact.needs}
        made[artefact.name] = artefact.build(artefact, needs)
    return list(made.values())


def without_time(saved: Saved) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in saved.metadata["log"]]


# ------------------------------------------------------------------------------------- trainings


@pytest.mark.parametrize("algorithm", ["abpt_full", "bptt"])
def test_parts_end_where_a_whole_training_does(algorithm: str) -> None:
    """To the bit, state and log; and both where `gradlab.training` ends."""
    arm = Arm("racing", algorithm)
    config = Trainings(seeds=(3,), share=0.5, points=5, parts=3, evaluations=4)
    pieces = trained(config, arm)
    (whole,) = trained(dataclasses.replace(config, parts=1), arm)
    assert len(pieces) == 3 and len(whole.metadata["log"]) == 6
    assert without_time(pieces[-1]) == without_time(whole)
    assert all(torch.equal(whole.tensors[n], value) for n, value in pieces[-1].tensors.items())

    problem, found = plain(arm)
    short = cast(Algorithm, shortened(found, 0.5))
    state = train(problem, short, state=init(problem, short, 3))
    for name, value in state.params.items():
        assert torch.equal(whole.tensors[f"params.{name}"], value)
    row = whole.metadata["log"][-1]
    mean = float(evaluate_policy(problem, state.params, state.buffers, episodes=4).returns.mean())
    assert row["steps"] == int(state.steps) and row["gradient_steps"] == short.updates
    assert math.isclose(row["return"], mean, rel_tol=1e-6) and row["goal_name"] == "passed"


def test_a_longer_training_is_not_a_shorter_one() -> None:
    """All that decides a part is in its payload; parts are as many as evaluations at most."""
    arm = Arm("hovering", "shac")
    base = Trainings(seeds=(0,), points=4, parts=9)
    made = list(parts.artefacts(base, [arm], build))
    assert [a.payload["to"] for a in made] == [1, 2, 3, 4]
    assert [len(a.needs) for a in made] == [0, 1, 1, 1]
    changes = ({"share": 0.5}, {"evaluations": 3}, {"seed": 1}, {"points": 5}, {"compile": True})
    for change in changes:
        other = next(parts.artefacts(dataclasses.replace(base, **change), [arm], build))
        assert other.payload != made[0].payload
    paths = {Arm("t", "a").path, Arm("t", "a", "b").path, Arm("t", "x.py:a").path}
    assert len(paths) == 3


def test_a_run_is_resumed_and_its_table_is_that_of_one_go(tmp_path: Path) -> None:
    study = undrawn(learning_curves.STUDY)
    config = Config(
        tasks=("hovering",), algorithms=("shac",), seeds=(0, 1), share=0.5, points=2, evaluations=4
    )
    first = run_study(study, config, tmp_path / "a", jobs=1)
    assert list(first.rows["point"]) == [0, 1, 2] * 2
    assert "seconds" not in pd.read_parquet(tmp_path / "a" / "rows.parquet")
    assert first.rows["seconds"].iloc[0] == 0 < first.rows["seconds"].iloc[2]
    # what a kill leaves: the first part of one training
    (tmp_path / "a" / "cells" / "hovering" / "shac" / "1.parquet").unlink()
    end = tmp_path / "a" / "artefacts" / "trainings" / "hovering" / "shac" / "1" / "1.safetensors"
    end.unlink()
    run_study(study, config, tmp_path / "a", jobs=1)
    run_study(study, config, tmp_path / "b", jobs=1)
    one, two = (pd.read_parquet(tmp_path / side / "rows.parquet") for side in "ab")
    pd.testing.assert_frame_equal(one, two)
    assert "3. Until learnt" in first.summary and "4. All pairs" not in first.summary


def test_wrong_arms_are_refused_in_one_line(tmp_path: Path) -> None:
    own = tmp_path / "mine_for_curves.py"
    own.write_text(
        "import estimators\nfrom gradlab.training.algorithm import Algorithm\n"
        "def good(problem):\n    return Algorithm(estimators.FOG(), episodes=4, length=2)\n"
        "def bad(problem):\n    return 1 / 0\n"
        "def other(problem):\n    return 3\n"
        "import gradlab\n"
        "def bounded():\n    return gradlab.make('hovering', horizon=8, hidden=(4,))\n"
        "def unbounded():\n    return gradlab.make('gate', horizon=8)\n"
    )
    problem, mine = plain(Arm(f"{own}:bounded", f"{own}:good"))
    assert problem.horizon == 8 and cast(Algorithm, mine).episodes == 4
    theirs = cast(Baseline, plain(Arm(f"{own}:bounded", "ppo")).algorithm)
    assert theirs.length == 8 and theirs.episodes == 64  # as `shac` there
    with pytest.raises(BadValue, match="ppo of stable-baselines3 needs actions within bounds"):
        plain(Arm(f"{own}:unbounded", "ppo"))
    assert cast(Algorithm, plain(Arm("landing", f"{own}:good")).algorithm).episodes == 4
    wrong = {
        "nothing": (UnknownName, "unknown algorithm 'nothing'.*known"),
        f"{own}:bad": (GradlabError, "bad failed on landing: ZeroDivisionError.*mend it"),
        f"{own}:other": (BadValue, "should be a gradlab.training.algorithm.Algorithm.*got"),
        "no_such:thing": (Missing, "algorithm 'no_such:thing' cannot be imported"),
    }
    for name, (kind, said) in wrong.items():
        with pytest.raises(kind, match=said):
            plain(Arm("landing", name))
    with pytest.raises(UnknownName, match="unknown task 'walking'"):
        plain(Arm("walking", "shac"))
    for bad in ({"share": 0.0}, {"points": 0}, {"seeds": (1, 1)}, {"seeds": (-1,)}):
        with pytest.raises(BadValue):
            check(Trainings(**bad), [], plain)
    with pytest.raises(BadValue, match="rates should be between 0 and 1"):
        learning_rate_robustness.config.arms(learning_rate_robustness.config.Config(rates=(2.0,)))


# ------------------------------------------------------------------------------ stable-baselines3


@pytest.mark.parametrize("block", [1024, 4])
def test_a_function_is_evaluated_on_the_episodes_of_policies(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (baselines, evaluation):
        monkeypatch.setattr(module, "NOISE_BLOCK", block)
    problem, algorithm = plain(Arm("racing", "shac"))
    state = init(problem, cast(Algorithm, algorithm), 1)
    policy = problem.bind(state.params)

    def act(obs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return policy.mean_action(policy(torch.as_tensor(obs))).numpy()

    ours = evaluate_policy(problem, state.params, episodes=6, seed=2)
    theirs = baselines.evaluated(problem, act, 6, 2)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["ppo", "sac", "td3"])
def test_the_librarys_trainings_have_the_same_rows(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("stable_baselines3", reason="the extra `baselines` is not installed")
    # observations are standardised, as on runners
    normed = dataclasses.replace(FAMILIES["hovering"], normed=name == "ppo")
    monkeypatch.setitem(FAMILIES, "hovering", normed)
    config = Trainings(seeds=(0,), points=3, parts=3, evaluations=2)
    arm = Arm("hovering", name)
    before = torch.get_rng_state()
    (once,) = trained(config, arm)
    assert torch.equal(torch.get_rng_state(), before)
    log = without_time(once)
    assert [row["point"] for row in log] == [0, 1, 2, 3]
    rounds = cast(Baseline, plain(arm).algorithm).rounds
    assert [row["steps"] for row in log] == [8 * round(rounds * k / 3) for k in range(4)]
    assert log[0]["gradient_steps"] == 0 < log[-1]["gradient_steps"]
    assert log[0]["return"] != log[-1]["return"]
    (again,) = trained(config, arm)
    assert without_time(again) == log


def test_without_the_library_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(baselines.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Missing, match=r"^ppo is stable-baselines3's.*pip install 'gradlab\[base"):
        check(Trainings(), [Arm("hovering", "ppo")], plain)


# --------------------------------------------------------------------------------- rows and claims


def curve(name: str, finals: list[float], start: float = 0.0, task: str = "racing") -> Curve:
    """One that goes from `start` to the given ends in two steps of 10."""
    ends = np.array(finals)
    earned = np.stack([np.full_like(ends, start), (start + ends) / 2, ends], axis=1)
    spent = np.tile([0.0, 10.0, 20.0], (len(ends), 1))
    goal = np.zeros_like(earned)
    seeds = tuple(range(len(ends)))
    return Curve(Arm(task, name), seeds, spent, spent, spent, earned, goal, "passed", 0)


def test_what_counts_as_learnt_and_what_it_took() -> None:
    good, poor = curve("a", [10.0, 10.0, 10.0]), curve("b", [4.0, 4.0, 10.0])
    assert learnt([good, poor]) == 9.0  # 0.9 of the way to the best, from 0
    assert list(good.first(9.0, good.steps)) == [18.0, 18.0, 18.0]
    assert list(poor.first(9.0, poor.steps)) == [math.inf, math.inf, 18.0]
    assert words.middle(poor.first(9.0, poor.steps)) == "not reached"
    assert learnt([curve("a", [-1.0])]) == math.inf
    assert list(unsteadiness(curve("a", [1.0, 2.0, 9.0]))) == [1.0, 0.0, 7.0]


def test_a_policy_that_is_lost_is_the_worst() -> None:
    rows = [
        {"task": "hovering", "algorithm": "a", "variant": "", "seed": s, "point": p, "steps": p,
         "gradient_steps": p, "skipped": 0, "seconds": 0.0, "length": 1.0,
         "return": math.nan if s else 1.0}
        for s in (0, 1) for p in (0, 1)
    ]  # fmt: skip
    (found,) = curves(pd.DataFrame(rows)).values()
    assert list(last(found)) == [1.0, -math.inf]
    assert found.goal is None and list(goals(found)) == [1.0, -math.inf]


def test_the_ladder_of_verdicts() -> None:
    """4 against 4 that are apart have p = 2/70; 3 against 3 cannot be told."""
    high, low, mixed = [5.0, 6.0, 7.0, 8.0], [1.0, 2.0, 3.0, 4.0], [0.0, 9.0, 5.5, 3.5]
    known = {one.arm: one for one in (curve("h", high), curve("l", low), curve("m", mixed))} | {
        Arm("racing", "l2"): curve("l2", [x - 0.5 for x in low])
    }
    h, low_arm, m, l2 = (Arm("racing", name) for name in ("h", "l", "m", "l2"))

    def verdict(*pairs: tuple, **options: Any) -> str:
        return judge(Claim("", "", tuple(pairs), **options), known).verdict

    assert verdict(against(h, low_arm)) == HOLDS
    assert verdict(against(low_arm, h)) == FAILS
    assert verdict(against(m, h)) == UNKNOWN
    # all: each at its own 5 %; any: p = 2/70 doubled is above 5 %
    assert verdict(against(h, low_arm), against(h, l2)) == HOLDS
    assert verdict(against(h, low_arm), against(h, m)) == UNKNOWN
    assert verdict(against(h, low_arm), against(h, l2), need="any") == UNKNOWN
    assert verdict(against(h, low_arm), need="any") == HOLDS
    # one of several the other way round must be told beside the others, too
    assert verdict(against(low_arm, h), against(h, l2)) == UNKNOWN
    assert verdict(against(low_arm, h), against(l2, h), need="any") == FAILS
    few = {arm: curve(arm.algorithm, list(last(c)[:3])) for arm, c in known.items()}
    assert judge(Claim("", "", (against(h, low_arm),)), few).verdict == UNKNOWN


def test_strata_are_kept_apart_and_the_worst_is_by_seed() -> None:
    a = [curve("a", [2.0, 3.0]), curve("a", [12.0, 13.0])]
    b = [curve("b", [0.0, 1.0]), curve("b", [10.0, 11.0])]
    apart = versus(a, b)
    assert apart.chance.estimate == 1.0
    assert math.isclose(apart.p, 2 / 6)  # whole seeds: not 2 of 36, as if strata had their own
    worst = versus(a, [curve("b", [9.0, 1.0]), curve("b", [1.0, 9.0])], worst=True)
    assert worst.chance.estimate == 1.0 and math.isclose(worst.p, 2 / 6)


def test_claims_of_what_was_not_trained_are_not_judged() -> None:
    table = pd.DataFrame(_rows("hovering", "shac") + _rows("hovering", "split", 1.0))
    found = learning_curves.answer.answer(table)
    assert found.answer.startswith("On hovering, split earns most")
    assert "2 against 2 cannot have p below 0.33" in found.rests_on
    both = pd.DataFrame(_rows("racing", "bptt") + _rows("racing", "split", 1.0))
    said = learning_curves.answer.answer(both).answer
    assert said == "None of 2 claims can be told at this budget (all in summary.txt)."
    assert "BPTT is worst on racing" in learning_curves.STUDY.summarise(both)
    assert len(str(found).splitlines()) <= 40


def test_what_is_told_comes_first_and_the_rest_is_one_sentence() -> None:
    known = {one.arm: one for one in (curve("h", [5.0, 6.0, 7.0, 8.0]), curve("l", [1.0, 2.0, 3.0, 4.0]),
                                      curve("m", [0.0, 9.0, 5.5, 3.5]))}  # fmt: skip
    h, low, m = (Arm("racing", name) for name in ("h", "l", "m"))

    def said(*pairs: tuple) -> str:
        claims = [Claim(f"Claim {i}", "", (pair,)) for i, pair in enumerate(pairs)]
        return words._said([judge(claim, known) for claim in claims])

    yes, no, open_ = against(h, low), against(low, h), against(m, h)
    assert said(open_) == "Claim 0: cannot be told at this budget."
    found = said(open_, no, yes, open_)
    assert found.startswith("Claim 2: holds (h over l P = 1.00 [1.00, 1.00], p = 0.029). Claim 1: ")
    assert found.endswith("). 2 of 4 claims cannot be told at this budget (all in summary.txt).")
    many = said(*[yes] * 12)
    assert many.startswith("Claim 0: holds (p = 0.029). ") and "more that are told" not in many
    lots = said(*[yes] * 40)
    assert len(lots) < words.ROOM + 80 and lots.endswith("more that are told (all in summary.txt).")


def _rows(task: str, name: str, more: float = 0.0, variant: str = "") -> list[dict[str, Any]]:
    return [
        {"task": task, "algorithm": name, "variant": variant, "seed": s, "point": p,
         "steps": 10 * p, "gradient_steps": p, "skipped": 0, "seconds": 0.1 * p, "length": 4.0,
         "return": 0.1 * s + p * (1 + more), "goal": float(p + more), "goal_name": "passed"}
        for s in (0, 1) for p in (0, 1, 2)
    ]  # fmt: skip


# ---------------------------------------------------------------------------------- the studies


@pytest.mark.parametrize("study", STUDIES)
def test_every_preset_can_be_trained(study: Any) -> None:
    pytest.importorskip("stable_baselines3", reason="the extra `baselines` is not installed")
    for name in study.STUDY.presets:
        config, _ = study.STUDY.preset(name)
        cells = list(study.STUDY.cells(config))
        made = {artefact.name for artefact in study.STUDY.artefacts(config)}
        assert cells and all(set(cell.needs) <= made for cell in cells)
        assert len({cell.key for cell in cells}) == len(cells)


def test_an_ablation_takes_one_part_away() -> None:
    setup, parts_of_abpt = ablation.config.setup, (FULL, *PARTS)
    full, zero, entropy, replay = (
        cast(Algorithm, setup(Arm("landing", "abpt_full", name)).algorithm)
        for name in parts_of_abpt
    )
    assert full.entropy is not None and full.replay is not None
    assert isinstance(full.estimator, ABPT) and zero.estimator == NStep(full.estimator.window)
    assert dataclasses.replace(zero, estimator=full.estimator) == full
    assert entropy == dataclasses.replace(full, entropy=None)
    assert replay == dataclasses.replace(full, replay=None)
    # hovering has no entropy, as published: there is nothing to take away
    arms = ablation.config.arms(ablation.config.Config(tasks=("hovering", "racing")))
    assert [arm.variant for arm in arms if arm.task == "racing"] == list(parts_of_abpt)
    assert "without entropy" not in [arm.variant for arm in arms if arm.task == "hovering"]


CHANGED = {  # of shac, where; and nothing else is changed there
    "without gradient limits": ("optimiser.max_norm", "critic.optimiser.max_norm"),
    "constant rate": ("optimiser.learning_rate",),
    "exponential rate": ("optimiser.learning_rate.shape",),
    "without target critic": ("critic.keep",),
    "two critics": ("critic.members",),
    "one-step targets": ("critic.lam",),
    "returns as targets": ("critic.lam",),
    "with entropy": ("entropy",),
    "with KL penalty": ("kl",),
    "with replay": ("replay",),
    "restarts inside": ("restart",),
    "standardised observations": ("policy.normalise",),
}


def test_an_option_changes_what_it_says_and_nothing_else() -> None:
    assert set(CHANGED) == {*OPTIONS} - {"one critic"}  # shac has one
    config, _ = ablation.STUDY.preset("options")
    arms = ablation.config.arms(config)
    assert {arm.variant for arm in arms} == {FULL, *CHANGED}
    full = _flat(ablation.config.setup(Arm("landing", "shac", FULL)))
    for variant, where in CHANGED.items():
        flat = _flat(ablation.config.setup(Arm("landing", "shac", variant)))
        differ = {key for key in full.keys() | flat.keys() if full.get(key) != flat.get(key)}
        assert all(any(key.startswith(place) for place in where) for key in differ), variant
        assert all(any(key.startswith(place) for key in differ) for place in where), variant


def _flat(prepared: Any) -> dict[str, Any]:
    """Every number of an algorithm, and the fields of the policy, by their paths."""

    def walk(name: str, value: Any) -> Iterator[tuple[str, Any]]:
        if dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                yield from walk(f"{name}.{field.name}", getattr(value, field.name))
        else:
            yield name[1:], value

    policy = prepared.problem.policy
    fields = {f"policy.{f.name}": getattr(policy, f.name) for f in dataclasses.fields(policy)}
    return {**dict(walk("", prepared.algorithm)), **fields}


def test_a_variant_that_cannot_be_is_told() -> None:
    setup = ablation.config.setup
    with pytest.raises(UnknownName, match="unknown variant"):
        setup(Arm("landing", "abpt_full", "nothing"))
    with pytest.raises(BadValue, match="0-step return can be taken from ABPT alone, got FOG"):
        setup(Arm("landing", "shac", "without 0-step return"))
    with pytest.raises(BadValue, match="of a critic, and this algorithm has none"):
        setup(Arm("landing", "bptt", "two critics"))
    with pytest.raises(BadValue, match="ppo has no such parts"):
        setup(Arm("landing", "ppo", FULL))
    with pytest.raises(BadValue, match="restart='inside' needs"):
        setup(Arm("landing", "abpt", "restarts inside"))


def test_restarts_inside_are_not_compiled() -> None:
    config, _ = ablation.STUDY.preset("options")
    with pytest.raises(BadValue, match="would be compiled anew; try compile=False"):
        ablation.config.arms(dataclasses.replace(config, compile=True))
    rest = tuple(variant for variant in config.variants if variant != "restarts inside")
    ablation.config.arms(dataclasses.replace(config, compile=True, variants=rest))


def test_an_option_is_claimed_to_be_of_use_whichever_way_it_is_tried() -> None:
    trained = (FULL, "without target critic", "two critics", "with replay", "one-step targets")
    table = pd.DataFrame(
        [row for k, v in enumerate(trained) for row in _rows("landing", "shac", 0.5 * k, v)]
    )
    target, second, replay, targets = ablation.answer.claims(table)
    assert target.text == "On landing a target critic improves what training reaches"
    full = Arm("landing", "shac", FULL)
    assert target.pairs == (against(full, full._replace(variant="without target critic")),)
    assert second.pairs == (against(full._replace(variant="two critics"), full),)
    assert replay.text == "On landing restarts at visited states speed learning"
    assert replay.pairs == (against(full._replace(variant="with replay"), full),)
    assert targets.text == "On landing TD(λ) instead of TD(0) improves what training reaches"
    assert ablation.STUDY.answer(table).question == "Which options of a training are of use?"


def test_rewards_differ_and_nothing_else() -> None:
    setup = reward_robustness.config.setup
    position, velocity = (setup(Arm("racing", "shac", name)) for name in ("position", "velocity"))
    assert cast(Any, position.problem.task).gates == 4
    assert cast(Any, velocity.problem.task).reward == "velocity"
    assert position.algorithm == velocity.algorithm
    assert dataclasses.replace(cast(Any, velocity.problem.task), reward="position") == (
        position.problem.task
    )


def test_rates_are_the_policys_and_the_critics_if_asked() -> None:
    setup = learning_rate_robustness.config.setup
    one = cast(Algorithm, setup(Arm("hovering", "shac", "rate 0.003")).algorithm)
    assert one.optimiser.learning_rate == 0.003
    assert one.critic is not None and isinstance(one.critic.optimiser.learning_rate, Schedule)
    both = cast(Algorithm, setup(Arm("hovering", "shac", "rate 1e-05 for both")).algorithm)
    assert both.critic is not None
    assert both.optimiser.learning_rate == both.critic.optimiser.learning_rate == 1e-5
    ppo = cast(Baseline, setup(Arm("hovering", "ppo", "rate 0.01")).algorithm)
    assert ppo.learning_rate == 0.01
    config = learning_rate_robustness.config.Config(both=True, algorithms=("shac",))
    arms = learning_rate_robustness.config.arms(config)
    assert [arm.variant for arm in arms][:2] == ["rate 0.01 for both", "rate 0.003 for both"]


@pytest.mark.parametrize("study", STUDIES)
def test_answers_reports_and_figures_of_a_table(study: Any, tmp_path: Path) -> None:
    arms = {
        ablation: [("landing", "abpt_full", v) for v in VARIANTS],
        learning_curves: [("racing", n, "") for n in ("bptt", "shac", "abpt", "split")],
        reward_robustness: [
            ("racing", n, v) for v in ("position", "velocity") for n in ("bptt", "shac", "abpt")
        ],
        learning_rate_robustness: [
            ("hovering", n, f"rate {r}") for n in ("shac", "abpt") for r in (0.01, 0.001)
        ],
    }[study]
    table = pd.DataFrame(
        [row for k, (t, n, v) in enumerate(arms) for row in _rows(t, n, 0.5 * k, v)]
    )
    said = study.STUDY.answer(table)
    assert "can be told at this budget" in said.answer and len(said.table) == len(arms)
    assert "cannot be told at this budget" in study.STUDY.summarise(table)
    study.STUDY.plot(table, tmp_path / "figure")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_the_command_reads_what_it_wrote(tmp_path: Path) -> None:
    config = Config(
        tasks=("racing",), algorithms=("bptt", "split"), seeds=(0,), share=0.2, points=1,
        evaluations=2,
    )  # fmt: skip
    result = run_study(undrawn(learning_curves.STUDY), config, tmp_path, jobs=1)
    assert read_rows(tmp_path).equals(result.rows)
    cell = Cell("racing/bptt/0")
    assert set(result.rows["cell"]) == {cell.key, "racing/split/0"}
    # one seed has no interval, and nothing is told of it
    assert "Seeds per arm: 1;" in result.answer.rests_on
