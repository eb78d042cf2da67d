"""APG against PPO: ratios and verdicts of made-up curves, and what both have in common."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch

import gradlab
from gradlab.training.schedule import Schedule
from studies import apg_suite
from studies.apg_suite.crossing import ratio, ratios, verdict
from studies.shared.curves.arms import Arm, plain
from studies.shared.curves.baselines import Baseline, _rate
from studies.shared.curves.claims import FAILS, HOLDS, UNKNOWN
from studies.shared.curves.rows import Curve, by_task, curves
from studies.train.algorithms import ALGORITHMS, named
from studies.train.families import FAMILIES, SUITE

POINTS = 6


def rows(task: str, algorithm: str, slope: float, per_point: int) -> list[dict[str, Any]]:
    """Ten seeds whose return rises from −20 by about `slope` per point."""
    draws = np.random.default_rng(0)
    found = []
    for seed in range(10):
        rise = slope * (1 + 0.05 * draws.normal())
        for point in range(POINTS):
            steps = 100 * point * per_point
            found.append({
                "task": task, "algorithm": algorithm, "variant": "", "seed": seed, "point": point,
                "steps": steps, "gradient_steps": point * per_point, "skipped": 0,
                "seconds": float(point), "return": -20 + rise * point, "length": 30.0,
                "goal": 0.1 * point, "goal_name": "success",
            })  # fmt: skip
    return found


def table(task: str, apg: float, ppo: float) -> pd.DataFrame:
    return pd.DataFrame([*rows(task, "apg", apg, 10), *rows(task, "ppo", ppo, 100)])


def first(task: str, apg: float, ppo: float) -> Any:
    """The ratio by the paper's threshold."""
    return ratios(by_task(curves(table(task, apg, ppo))), "gradient steps")[0]


def test_a_ratio_is_that_of_what_the_middle_seeds_spend() -> None:
    """Both rise by 5 per point: to −10 at point 2, of 10 and of 100 gradient steps."""
    found = first("point_mass_navigate", 5.0, 5.0)
    assert found.published and not found.censored
    assert found.ours == pytest.approx(20, rel=0.05) and found.theirs == pytest.approx(
        200, rel=0.05
    )
    assert found.ratio.low <= found.ratio.estimate <= found.ratio.high
    assert found.ratio.estimate == pytest.approx(10, rel=0.1)
    assert (found.fewer, found.within) == (HOLDS, HOLDS)


@pytest.mark.parametrize(
    ("apg", "ppo", "fewer", "within"),
    [
        (5.0, 1.0, HOLDS, FAILS),  # PPO never gets there: 500/20, and more
        (2.5, 1.0, HOLDS, UNKNOWN),  # 500/40 at least
        (1.0, 5.0, UNKNOWN, UNKNOWN),  # APG never does, in 50 where PPO takes 200
        (1.0, 1.0, UNKNOWN, UNKNOWN),  # neither does
        (5.0, 2.1, HOLDS, FAILS),  # 480/20
    ],
)
def test_verdicts_on_one_task(apg: float, ppo: float, fewer: str, within: str) -> None:
    found = first("point_mass_navigate", apg, ppo)
    assert (found.fewer, found.within) == (fewer, within)


def crossing(known: float, seeds: int, per_point: int, algorithm: str) -> Curve:
    """Ten trainings, of which `seeds` get to 1, after a share `known` of their steps."""
    spent = np.tile(per_point * np.arange(11.0), (10, 1))
    earned = (spent >= known * spent[:, -1:]) & (np.arange(10) < seeds)[:, None]
    arm = Arm("push_t", algorithm)
    many = tuple(range(10))
    return Curve(arm, many, spent, spent, spent, earned.astype(float), None, "", 0)


@pytest.mark.parametrize(
    ("apg", "ppo", "least", "most", "fewer", "within"),
    [
        # (crosses after this share, seeds that do, gradient steps per point)
        ((0.5, 10, 10), (0.3, 10, 50), 3.0, 3.0, HOLDS, FAILS),
        ((0.5, 10, 10), (0.3, 6, 50), 3.0, math.inf, HOLDS, HOLDS),  # who knows of the other four
        ((0.9, 10, 100), (0.9, 0, 50), 5 / 9, math.inf, UNKNOWN, UNKNOWN),  # PPO had less than APG
        ((0.9, 0, 10), (0.5, 10, 50), 0.0, 2.5, UNKNOWN, FAILS),  # APG had less than PPO took
        ((0.9, 0, 50), (0.5, 10, 50), 0.0, 0.5, FAILS, FAILS),
        ((0.9, 0, 10), (0.9, 0, 50), 0.0, math.inf, UNKNOWN, UNKNOWN),
    ],
)
def test_ends_are_open_where_somebody_did_not_cross(
    apg: tuple[float, int, int], ppo: tuple[float, int, int],
    least: float, most: float, fewer: str, within: str,
) -> None:  # fmt: skip
    found = ratio(crossing(*apg, "apg"), crossing(*ppo, "ppo"), "gradient steps", 1.0, True)
    assert found.ratio.low == pytest.approx(least) and found.ratio.high == pytest.approx(most)
    assert (found.fewer, found.within) == (fewer, within)


def test_a_claim_holds_on_all_tasks_or_fails_on_one() -> None:
    assert verdict([HOLDS, HOLDS]) == HOLDS and verdict([]) == UNKNOWN
    assert verdict([HOLDS, UNKNOWN]) == UNKNOWN and verdict([FAILS, UNKNOWN]) == FAILS


def test_what_costs_nothing_counts_as_a_step() -> None:
    """A threshold below the first return: both at once."""
    known = by_task(curves(table("push_t", 5.0, 5.0)))["push_t"]
    found = ratio(known[0], known[1], "gradient steps", -30.0, True)
    assert found.ratio == (1.0, 1.0, 1.0) and found.fewer == UNKNOWN


def test_answer_report_and_figures(tmp_path: Path) -> None:
    parts = [table("push_t", 5.0, 1.0), table("point_mass_1d", 5.0, 5.0)]
    both = pd.concat(parts, ignore_index=True)
    said = apg_suite.STUDY.answer(both)
    assert "By the paper's thresholds: fewer" in said.answer and len(said.table) == 4
    long = apg_suite.STUDY.summarise(both)
    assert "A. PPO over APG" in long and "3.9" in long and "fixed before any run" in long
    apg_suite.STUDY.plot(both, tmp_path / "figure")
    for name in ("figure.png", "figure_success.png"):
        assert (tmp_path / name).stat().st_size > 10_000


@pytest.mark.parametrize("task", SUITE)
def test_both_have_the_papers_network_and_optimiser(task: str) -> None:
    problem, apg = named("apg", task)
    policy = problem.policy
    assert isinstance(policy, gradlab.GaussianPolicy)
    own = gradlab.make(task).policy
    assert own == policy, "the problem's own policy is the suite's"
    assert apg.length == problem.horizon and not apg.average and apg.critic is None
    assert apg.optimiser.learning_rate == Schedule(2.5e-4, 0.0)
    assert (apg.optimiser.epsilon, apg.optimiser.max_norm) == (1e-5, 0.5)
    ppo = cast(Baseline, plain(Arm(task, "ppo")).algorithm)
    assert (ppo.length, ppo.epochs, ppo.entropy, ppo.value_clip) == (128, 4, 0.01, 0.2)
    assert ppo.hidden == policy.hidden and ppo.std == policy.initial_std and ppo.normed
    assert abs(ppo.steps - apg.updates * apg.episodes * apg.length) < 4000
    rate = _rate(ppo)
    assert callable(rate) and (rate(1.0), rate(0.5), rate(0.0)) == (2.5e-4, 1.25e-4, 0.0)


def test_stable_baselines_starts_from_the_same_kind_of_network() -> None:
    """Orthogonal with gains √2, √2 and 0.01, tanh, log std −2: as `problems.apg.agent`."""
    pytest.importorskip("stable_baselines3")
    from gradlab.environments.baselines import BaselineVecEnv
    from studies.shared.curves.baselines import _model

    problem, chosen = plain(Arm("push_t", "ppo"))
    kept = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        model = _model(cast(Baseline, chosen), BaselineVecEnv(problem, 32), problem.discount, 0)
    np.random.set_state(kept)
    ours = problem.init(torch.Generator().manual_seed(0))
    theirs = [p.detach() for p in model.policy.mlp_extractor.policy_net.parameters()]
    theirs += [p.detach() for p in model.policy.action_net.parameters()]
    for name, value in zip(("0", "1", "2"), theirs[::2], strict=True):
        own = ours[f"layers.{name}.weight"]
        assert own.shape == value.shape
        singular = torch.linalg.svdvals(own) - torch.linalg.svdvals(value)
        assert float(singular.abs().max()) < 1e-5
    assert "Tanh" in str(model.policy.mlp_extractor)
    assert torch.allclose(model.policy.log_std.detach(), torch.full((3,), -2.0))
    group = model.policy.optimizer.defaults
    assert group["eps"] == 1e-5 and group["betas"] == (0.9, 0.999)
    assert model.max_grad_norm == 0.5 and model.gae_lambda == 0.95 and model.vf_coef == 0.5


def test_windows_of_the_named_algorithms() -> None:
    family = FAMILIES["push_t"]
    mc, critic = (ALGORITHMS[name].build(family) for name in ("apg_mc", "apg_critic"))
    assert (mc.estimator.window, mc.estimator.tail, mc.estimator.weighted) == (10, "none", False)  # pyright: ignore
    assert critic.estimator.tail == "v" and critic.critic is not None  # pyright: ignore
    assert critic.critic.keep == 0.0 and critic.critic.passes == 1
    short = dataclasses.replace(family, horizon=4)
    assert ALGORITHMS["apg_mc"].build(short).estimator.window == 4  # pyright: ignore
