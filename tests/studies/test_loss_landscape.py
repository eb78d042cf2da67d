"""The landscape study on a small problem, its one-step objectives, its policies and its errors."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pandas as pd
import pytest
import torch

import gradlab
from gradlab import landscapes
from gradlab.foundation.checkpoints import read_artefact
from gradlab.foundation.errors import GradlabError, Missing
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.problems import flights, known_answers
from gradlab.problems.critic import Critic
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate, views
from gradlab.study import Study, read_rows, run_study
from gradlab.study.cells import identities
from gradlab.study.tables import read
from studies import loss_landscape
from studies.loss_landscape import STUDY, arrows, judgement, objectives, policies, report
from studies.loss_landscape.answer import answer
from studies.loss_landscape.config import Config
from studies.loss_landscape.rows import ESTIMATORS, NAMES, Arrow
from studies.shared.borrowed import borrow
from tests.helpers.runs import shared, undrawn

COMMITTED = Path(loss_landscape.__file__).parent / "artefacts"
TINY = Config(
    tasks=("gate",),
    policies=1,
    simulation_steps=1,
    points=7,
    cut_points=5,
    episodes=12,
    strides=(1, 2),
    estimators=("fog", "sg_qg"),
    arrows=2,
    arrow_episodes=32,
)


def run(out: Path, study: Study = STUDY) -> pd.DataFrame:
    """A short path and a poor critic: what is tested does not depend on either."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policies, "UPDATES", 2)
        patch.setattr(policies, "KEEP_EVERY", 1)
        patch.setattr(policies, "FIT", dataclasses.replace(policies.FIT, steps=5, episodes=256))
        return run_study(study, TINY, out, jobs=1).rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Path]:
    out = shared(tmp_path_factory, "loss_landscape", run)
    return read_rows(out), out


def test_rows_of_every_kind(rows: tuple[pd.DataFrame, Path]) -> None:
    table, out = rows
    counts = table.groupby("kind").size()
    surfaces = 1 + 2 + 2 * len(TINY.alphas)  # return; SG and Q; two mixtures per alpha
    assert counts["surface"] == 49 * surfaces
    assert counts["cut"] == 5 * surfaces
    assert counts["roughness"] == 2 * surfaces
    assert counts["pair"] == 2 * (surfaces - 2)
    assert counts["arrow"] == 4 * (len(TINY.estimators) + 1)
    for name in ("figure", "figure_return", "figure_cuts", "figure_roughness"):
        assert (out / f"{name}.png").stat().st_size > 0
    assert list(out.glob("figure_steps_gate-*.png"))


def test_the_centre_does_not_change(rows: tuple[pd.DataFrame, Path]) -> None:
    surface = rows[0][rows[0]["kind"] == "surface"]
    centre = surface[(surface["a"] == 0) & (surface["b"] == 0)]
    assert len(centre) and (centre["change"] == 0).all() and (centre["change_stderr"] == 0).all()
    others = surface[(surface["a"] != 0) & (surface["objective"] == "return")]
    assert (others["stderr"] > 0).all()


def test_both_alphas_agree_in_the_centre(rows: tuple[pd.DataFrame, Path]) -> None:
    table = rows[0]
    centre = table[(table["kind"] == "surface") & (table["a"] == 0) & (table["b"] == 0)]
    for mixture in objectives.MIXTURES:
        mine = centre[centre["objective"] == mixture].set_index("alpha")
        assert mine.loc["centre", "weight"] == mine.loc["point", "weight"]
        assert 0 <= mine.loc["point", "weight"] <= 1


def test_bands_hold_their_value(rows: tuple[pd.DataFrame, Path]) -> None:
    cut = rows[0][rows[0]["kind"] == "cut"]
    for name in ("value", "change"):
        assert (cut[f"{name}_low"] <= cut[name]).all() and (cut[name] <= cut[f"{name}_high"]).all()


def test_summary_names_every_surface_and_estimator(rows: tuple[pd.DataFrame, Path]) -> None:
    text = report.summarise(rows[0])
    drawn = [ESTIMATORS[name] for name in TINY.estimators]
    for name in (*NAMES.values(), *drawn):
        assert name in text
    assert "α at each point" in text and "Holm" in text


def test_a_second_run_does_nothing_again_and_says_the_same(
    rows: tuple[pd.DataFrame, Path],
) -> None:
    table, out = rows
    before = {p: p.stat().st_mtime_ns for p in (out / "cells").rglob("*.parquet")}
    again = run(out, undrawn(STUDY))
    assert {p: p.stat().st_mtime_ns for p in (out / "cells").rglob("*.parquet")} == before
    pd.testing.assert_frame_equal(again, table)


# ------------------------------------------------------------------------------------ objectives


def q(view, action):
    """A Q with a known gradient: −|o|² − |a|² + o₀ a₀, and less with time."""
    bend = view.obs[..., 0] * action[..., 0]
    return bend - view.obs.square().sum(-1) - action.square().sum(-1) - 0.1 * view.step


def flight(name: str, horizon: int = 6) -> tuple[Problem, landscapes.Plane]:
    problem = gradlab.make(name, horizon=horizon, dtype=torch.float64)
    policy = GaussianPolicy(problem.task.observation_dim, 4, hidden=(8,), head_gain=1.0)
    problem = problem.replace(policy=policy, critic=Critic(q=q))
    params = policy.init(torch.Generator().manual_seed(0), dtype=torch.float64)
    return problem, landscapes.random_plane(params, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["hovering", "landing", "racing"])
@pytest.mark.parametrize("step", [0, 3, 5])
def test_objectives_over_the_plane_equal_a_loop(name: str, step: int) -> None:
    """The obvious twin evaluates one point at a time, and mixes by hand."""
    problem, plane = flight(name)
    points = landscapes.mesh(landscapes.grid(0.5, 3))
    noise, pilot = (problem.draw(5, torch.Generator().manual_seed(k)) for k in (2, 3))
    values, weights = objectives.objectives_over_plane(problem, plane, points, noise, pilot, step)
    held = objectives.held_at(problem, plane.centre, noise, step)
    other = objectives.held_at(problem, plane.centre, pilot, step)
    for k, (a, b) in enumerate(points.tolist()):
        slow = objectives.objectives_at(problem, plane.point(a, b), held)
        alpha = objectives.weights_at(problem, plane.point(a, b), other)
        for pure in objectives.PURE:
            torch.testing.assert_close(values[pure, "-"][k], slow[pure], rtol=1e-9, atol=1e-9)
        for mixture in objectives.MIXTURES:
            found = weights[mixture, "point"][k]
            torch.testing.assert_close(found, alpha[mixture], rtol=1e-9, atol=1e-12)
            mixed = alpha[mixture] * slow["sg"] + (1 - alpha[mixture]) * slow["q"]
            torch.testing.assert_close(values[mixture, "point"][k], mixed, rtol=1e-9, atol=1e-9)


def test_one_step_objective_of_the_centre_is_the_episodes_own() -> None:
    """SG in the centre: the reward of step t in an ordinary rollout, and Q at its next step."""
    problem, plane = flight("hovering")
    noise, step = problem.draw(5, torch.Generator().manual_seed(2)), 3
    held = objectives.held_at(problem, plane.centre, noise, step)
    found = objectives.objectives_at(problem, plane.centre, held)
    path = gradlab.rollout(problem, problem.bind(plane.centre), noise)
    result = evaluate(problem, path)
    view = views(problem, path, result, slice(0, problem.horizon))
    values = q(view, path.action)
    discount = problem.discounts
    following = discount[step + 1] * result.alive[:, step + 1] * values[:, step + 1]
    expected = (result.value[:, step] + following) / discount[step]
    torch.testing.assert_close(found["sg"], expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found["q"], result.alive[:, step] * values[:, step])


def test_weights_are_equation_three() -> None:
    """By hand from the gradients of single episodes with respect to the latent's mean."""
    problem, plane = flight("hovering")
    pilot, step = problem.draw(6, torch.Generator().manual_seed(2)), 2
    held = objectives.held_at(problem, plane.centre, pilot, step)
    z = problem.bind(plane.centre)(held.obs)
    mean, std = z[:, :4].clone().requires_grad_(), z[:, 4:].exp()
    values = objectives.objectives_at(problem, plane.centre, held, mean)
    sg, qg = (
        torch.autograd.grad(values[name].sum(), mean, retain_graph=True)[0] for name in ("sg", "q")
    )
    eps = pilot.action[:, step]
    view_obs = held.obs
    u, mu = (torch.tanh(x) for x in (z[:, :4] + std * eps, z[:, :4]))
    bend = view_obs[:, 0] * (u[:, 0] - mu[:, 0])
    advantage = bend - u.square().sum(-1) + mu.square().sum(-1)
    pg = eps / std * (held.alive * advantage)[:, None]
    spread = {k: g.var(0).sum() for k, g in (("sg", sg), ("qg", qg), ("pg", pg))}
    found = objectives.weights_at(problem, plane.centre, held)
    for mixture, other in objectives.MIXTURES.items():
        expected = spread[other] / (spread[other] + spread["sg"])
        torch.testing.assert_close(found[mixture], expected.detach(), rtol=1e-9, atol=1e-12)


def test_one_step_landscapes_need_a_critic() -> None:
    problem, plane = flight("hovering")
    noise = problem.draw(5, torch.Generator().manual_seed(2))
    with pytest.raises(Missing, match="Q critic"):
        objectives.held_at(problem.replace(critic=None), plane.centre, noise, 0)


# -------------------------------------------------------------------------------------- policies


def test_the_default_presets_need_no_training() -> None:
    """Every artefact that smoke and default ask for is committed or borrowed,
    as it would be made.
    """
    for preset in ("smoke", "default"):
        config, _ = STUDY.preset(preset)
        known = {artefact.name: artefact for artefact in STUDY.artefacts(config)}
        for name, identity in identities(known).items():
            if name.startswith("slopes/"):
                continue  # made by every run: they depend on its sizes
            _, header = read_artefact(COMMITTED / f"{name}.safetensors")
            assert header["identity"] == identity, f"{name} was made with other settings"


def test_landing_and_racing_borrow_their_policies() -> None:
    for task in policies.STAGED:
        saved = borrow(policies.path_artefact(task), {})
        assert len(policies.read_path(saved, task)) == len(policies.labels_of(task))
        problem = policies.problem_of(task)
        problem.policy.check(policies.read_policy(saved, 60), problem.dtype)
        critic = borrow(policies.critic_artefact(task, 60), {})
        policies.read_critic(critic).critic(problem)


def test_more_policies_add_to_fewer() -> None:
    few, many = (set(policies.chosen("hovering", n, seed=0)) for n in (2, 5))
    assert len(few) == 2 and len(many) == 5 and few < many
    assert policies.chosen("racing", 99, seed=1) == (10, 60, 95)


@pytest.mark.parametrize("task", [*flights.FLIGHTS, *known_answers.PRESETS])
def test_every_problem_has_cells(task: str) -> None:
    config = dataclasses.replace(TINY, tasks=(task,))
    keys = [cell.key for cell in STUDY.cells(config)]
    assert len(keys) == len(set(keys)) == 2 + len(config.estimators)


@pytest.mark.parametrize(
    "changes",
    [
        {"tasks": ("hoovering",)},
        {"tasks": ()},
        {"tasks": ("gate", "gate")},
        {"directions": "random"},
        {"estimators": ("sg",)},
        {"alphas": ("mean",)},
        {"points": 6},
        {"radius": -1.0},
        {"radius": math.nan},
        {"strides": (3,)},
        {"episodes": 4},
    ],
)
def test_wrong_options_are_refused_in_one_line(changes: dict) -> None:
    with pytest.raises(GradlabError) as caught:
        list(STUDY.cells(dataclasses.replace(TINY, **changes)))
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------- arrows


def arrow_table(bias: float, stderr: float, count: int = 200, freedom: float = 1e6) -> pd.DataFrame:
    """Arrows of an estimator that is `bias` too long,
    with known noise in what they are judged by.
    """
    generator = torch.Generator().manual_seed(3)
    angle = 2 * math.pi * torch.rand(count, generator=generator, dtype=torch.float64)
    true = torch.stack([angle.cos(), angle.sin()], -1)
    noise = stderr * torch.randn(count, 2, generator=generator, dtype=torch.float64)
    columns = {"true": true, "slope": (1 + bias) * true + noise, "gap": bias * true + noise}
    table = {f"{n}_{e}": x[:, i].numpy() for n, x in columns.items() for i, e in enumerate("ab")}
    known = {"gap_stderr": stderr, "slope_stderr": stderr, "true_stderr": 0.0, "truncation": 0.0}
    table |= {f"{n}_{e}": value for n, value in known.items() for e in "ab"}
    return pd.DataFrame(table | {f"gap_freedom_{e}": freedom for e in "ab"})


def judged(table: pd.DataFrame) -> judgement.Judged:
    arrows = read(Arrow, table.assign(estimator="fog", episodes=64))
    return judgement.judged(arrows)


@pytest.mark.statistical
def test_arrows_that_could_show_a_bias_of_a_fifth_show_it() -> None:
    """Precise arrows are counted and find it in four of five; vague ones are not counted."""
    precise = judged(arrow_table(bias=0.2, stderr=0.035))
    assert precise.could == precise.arrows == 200
    # at least 160 are expected; fewer than 140 in 1e-3 of repetitions (binomial, standard deviation
    # 5.7)
    assert precise.apart >= 140
    vague = judged(arrow_table(bias=0.2, stderr=0.1))
    assert vague.could == 0 and vague.apart < 100
    none = judged(arrow_table(bias=0.0, stderr=0.035))
    assert none.apart <= 9  # 2 of 200 expected at 1 %; more than 9 in 1e-4 of repetitions


def test_direction_and_length_of_arrows_are_free_of_noise() -> None:
    """Arrows of the right direction, 20 % too long, under noise of their own size."""
    found = judged(arrow_table(bias=0.2, stderr=1.0, count=20_000))
    assert found.cosine.low <= 1.0 and found.cosine.estimate == pytest.approx(1.0, abs=0.03)
    assert found.length.estimate == pytest.approx(1.2, abs=0.03)  # three jackknife errors


def test_one_episode_that_makes_all_of_the_variance_tells_nothing() -> None:
    samples = torch.zeros(64, 2, dtype=torch.float64)
    samples[5, 0] = 100.0  # one jump in the first direction
    mean = arrows.mean_of(samples)
    # the 63 others share a sixty-fourth of the jump: (64·63)²/(63⁴ + 63)·... is 1 to 0.05
    assert mean.freedom[0] == pytest.approx(0.0, abs=0.1)
    assert mean.freedom[1] == 63
    table = arrow_table(bias=0.0, stderr=1e-6, count=4, freedom=0.0)
    found = judged(table)
    assert found.apart == 0 and found.could == 0


def test_the_error_of_step_is_part_of_the_verdict() -> None:
    table = arrow_table(bias=0.3, stderr=1e-3)
    assert judged(table).apart == 200
    table[["truncation_a", "truncation_b"]] = 0.31
    vague = judged(table)
    assert vague.apart == 0 and vague.could == 0


def test_arrows_are_judged_on_the_truths_own_episodes(
    rows: tuple[pd.DataFrame, Path],
) -> None:
    """The gap is the difference of what both say of the same episodes,
    and the text has its counts.
    """
    table = rows[0][rows[0]["kind"] == "arrow"]
    mine = table[table["estimator"] != arrows.TRUTH]
    for end in "ab":
        gap = mine[f"slope_{end}"] - mine[f"true_{end}"]
        assert (gap - mine[f"gap_{end}"]).abs().max() < 1e-9 * mine[f"slope_{end}"].abs().max()
    assert (table["truncation_a"] >= 0).all()
    assert (table["step_of_difference"].dropna() > 0).all()
    assert "could have shown a bias of 20 %" in report.summarise(rows[0])
    said = answer(rows[0])
    assert "could show 20 %" in said.table.columns and len(str(said).splitlines()) <= 40
