"""Windows of backpropagation: variants, what a gradient is worth, answers of made-up tables."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from estimators import FOG, JacobianGrowth, JumpWindow, Same, TruncatedBPTT
from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.training.algorithm import Algorithm
from gradlab.training.loop import init
from studies import segments
from studies.segments.answer import claims
from studies.segments.cells import QUANTITIES, worth
from studies.segments.config import WHOLE, Config, Variant, setup
from studies.shared.curves.arms import Arm
from studies.shared.curves.claims import judged
from studies.shared.curves.rows import curves

NAMES = (
    "10 constant", "25 constant", "10 critic", "10 constant weighted", WHOLE, "growth 1.2 constant",
    "jump constant",
)  # fmt: skip


def test_a_variant_is_its_name() -> None:
    for name in NAMES:
        assert Variant.of(name).name == name
    assert Variant.of(WHOLE).estimator == FOG()
    assert Variant.of("10 critic weighted").estimator == TruncatedBPTT(10, "v", True)
    assert Variant.of("25 constant").estimator == TruncatedBPTT(25, "none", False)
    growth = TruncatedBPTT(JacobianGrowth(1.2, shortest=10), "v", False)
    assert Variant.of("growth 1.2 critic").estimator == growth
    jumps = JumpWindow((10, 25, 50, None), source=Same(16))
    assert Variant.of("jump constant").estimator == TruncatedBPTT(jumps, "none", False)
    for wrong in ("constant", "10 mean", "10 critic heavy", "10", "growth critic", "jump 3 critic"):
        with pytest.raises(UnknownName, match="variant"):
            Variant.of(wrong)
    with pytest.raises(UnknownName, match="task"):
        setup(Arm("hovering", "apg", WHOLE))
    for wrong in ("0 constant", "300 critic"):
        with pytest.raises(BadValue, match="window between 1 and the horizon 100"):
            setup(Arm("push_t", "apg", wrong))


def test_too_few_episodes_are_refused_before_anything_is_trained() -> None:
    """As the command line does: the first thing that it asks for is the arms."""
    for episodes, variants, said in (
        (1, ("10 constant", WHOLE), "episodes should be at least 5 to measure a gradient, got 1"),
        (0, ("10 constant",), "episodes"),
        (64, ("jump constant",), "at least 80, a multiple of 16, to measure a gradient, got 64"),
        (100, ("jump constant",), "at least 80, a multiple of 16, to measure a gradient, got 100"),
    ):
        config = Config(tasks=("point_mass_navigate",), variants=variants, episodes=episodes)
        with pytest.raises(BadValue, match=said):
            list(segments.STUDY.artefacts(config))


def test_a_critic_is_there_where_it_is_asked_for() -> None:
    for name in NAMES[:-1]:
        problem, algorithm = setup(Arm("point_mass_1d", "apg", name))
        assert isinstance(algorithm, Algorithm) and problem.horizon == 200
        assert algorithm.length == 200 and not algorithm.average
        assert (algorithm.critic is None) == ("critic" not in name)


def test_what_a_gradient_is_worth() -> None:
    """Against other episodes: whole ones have no bias, and a fresh critic has nearly all of it."""
    found: dict[str, dict[str, float]] = {}
    for name in (WHOLE, "10 critic", "growth 0.5 constant", "jump constant"):
        problem, algorithm = setup(Arm("point_mass_navigate", "apg", name))
        algorithm = dataclasses.replace(cast(Algorithm, algorithm), length=30)
        problem = problem.replace(horizon=30)
        if name.startswith("jump"):
            jumps = TruncatedBPTT(JumpWindow((10, None), source=Same(16)), weighted=False)
            algorithm = dataclasses.replace(algorithm, estimator=jumps)
        found[name] = worth(problem, algorithm, init(problem, algorithm, 0), 256, 0)
    whole, critic = found[WHOLE], found["10 critic"]
    assert whole["bias_low"] <= 0.1 and whole["cosine"] > 0.9
    assert critic["bias_low"] > 0.2
    windows = {name: each["window"] for name, each in found.items()}
    assert windows[WHOLE] == 30 and windows["10 critic"] == 10
    assert windows["growth 0.5 constant"] == 10  # an untrained policy: 0.64 by then
    assert 10 <= windows["jump constant"] <= 30
    assert all(np.isfinite(list(each.values())).all() for each in found.values())


def _table(names: tuple[str, ...] = NAMES, apart: float = 5.0) -> pd.DataFrame:
    draws, found = np.random.default_rng(0), []
    for k, name in enumerate(names):
        for seed in range(4):
            for point in range(3):
                row: dict[str, Any] = {
                    "task": "point_mass_1d", "algorithm": "apg", "variant": name, "seed": seed,
                    "point": point, "steps": 100 * point, "gradient_steps": point, "skipped": 0,
                    "seconds": 1.0, "return": -20 + (apart * k + draws.normal()) * point,
                    "length": 200.0, "goal": 0.1, "goal_name": "success",
                }  # fmt: skip
                worths = {f"{q}{e}": 0.5 for q in QUANTITIES for e in ("", "_low", "_high")}
                worths["window"] = 12.5
                found.append({**row, **(worths if point else dict.fromkeys(worths))})
    return pd.DataFrame(found)


def test_claims_answers_and_figures(tmp_path: Path) -> None:
    table = _table()
    said = {one.claim.text: one.verdict for one in judged(claims(table), curves(table))}
    constants, critic, short, weights, growth, jumps = said.values()
    assert constants == "holds"  # 10 < 25 < whole in every seed
    assert critic == "holds" and short == "does not hold" and weights == "holds"
    assert growth == jumps == "holds"  # above 10, 25 and whole episodes
    answer = segments.STUDY.answer(table)
    assert len(answer.table) == len(NAMES) and "0.5 (0.5 to 0.5)" in set(answer.table["bias"])
    assert set(answer.table["steps"]) == {"12.5"}
    assert "Gradients" in segments.STUDY.summarise(table)
    segments.STUDY.plot(table, tmp_path / "figure")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


@pytest.mark.parametrize("apart", [0.0, 5.0])
def test_the_printed_answer_of_the_default_preset_fits_a_screen(apart: float) -> None:
    """Whether nothing is told or nearly everything, and with the table of all its arms."""
    tables = []
    for task in Config().tasks:
        table = _table(Config().variants, apart)
        tables.append(table.assign(task=task))
    said = segments.STUDY.answer(pd.concat(tables))
    lines = str(said).splitlines()
    assert len(lines) <= 37 and max(map(len, lines)) <= 130
    assert sum("point_mass_" in line[:12] for line in lines) >= 21
    assert ("None of 12 claims can be told" in said.answer) == (apart == 0)
