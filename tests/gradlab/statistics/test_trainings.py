"""Scores by seeds: hand-computed means and probabilities, an exact test against scipy's."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from gradlab.foundation.errors import BadValue
from gradlab.statistics.trainings import (
    coverage,
    improvement,
    iqm,
    iqm_interval,
    same_by_chance,
    steps_to,
)


def test_the_interquartile_mean_by_hand() -> None:
    assert iqm([7.0]) == 7.0
    assert iqm([1.0, 3.0]) == 2.0
    assert math.isclose(iqm([9.0, 0.0, 3.0]), (0.0 + 4 * 3.0 + 9.0) / 6)  # sorted first
    # of five the outer two do not count, their neighbours for three quarters
    assert math.isclose(iqm([-1e9, 1.0, 2.0, 5.0, 1e9]), (3 * 1 + 4 * 2 + 3 * 5) / 10)
    with pytest.raises(BadValue, match="at least one training"):
        iqm([])


@pytest.mark.parametrize("count", [4, 8, 20])
def test_of_a_multiple_of_four_it_is_the_trimmed_mean(count: int) -> None:
    scores = np.random.default_rng(count).normal(size=(count, 3))
    assert np.allclose(iqm(scores), stats.trim_mean(scores, 0.25), rtol=1e-12)
    assert np.allclose(iqm(scores.T, axis=1), iqm(scores), rtol=1e-12)


def test_intervals_hold_their_estimate_and_bands_are_whole_curves() -> None:
    scores = np.random.default_rng(0).normal(size=(6, 4))
    scores[:, 3] = scores[:, 0] + 10  # a point that moves with another
    band = iqm_interval([scores])
    assert len(band) == 4
    assert all(one.low < one.estimate < one.high for one in band)
    for part, other in zip(band[0], band[3], strict=True):
        assert math.isclose(part + 10, other)
    assert iqm_interval([scores]) == band


def test_a_bootstrap_is_stratified() -> None:
    """Two tasks of two levels: a resample never has more of one, so that no interval is wide."""
    tasks = [np.full(5, 0.0), np.full(5, 100.0)]
    (one,) = iqm_interval(tasks)
    assert one == (50.0, 50.0, 50.0)
    (mixed,) = iqm_interval([np.concatenate(tasks)])
    assert mixed.high - mixed.low > 30


def test_one_seed_has_no_interval() -> None:
    (one,) = iqm_interval([[3.0]])
    assert one.estimate == 3.0 and math.isnan(one.low) and math.isnan(one.high)
    assert math.isnan(improvement([[3.0]], [[1.0, 2.0]]).low)


def test_the_probability_of_improvement_by_hand() -> None:
    # of six pairs three are won, one is a draw; in the other task all of two
    x, y = [1.0, 3.0], [0.0, 3.0, 4.0]
    assert improvement([x], [y]).estimate == 2.5 / 6
    assert math.isclose(improvement([x, [5.0]], [y, [1.0, 2.0]]).estimate, (2.5 / 6 + 1) / 2)
    assert improvement([x], [x]).estimate == 0.5
    found = improvement([x], [y])
    back = improvement([y], [x])
    assert math.isclose(found.estimate + back.estimate, 1)
    assert 0 <= found.low <= found.estimate <= found.high <= 1


def test_intervals_of_separated_seeds_are_a_point_and_the_test_is_not() -> None:
    low, high = [0.0, 1.0, 2.0], [3.0, 4.0, 5.0]
    assert improvement([high], [low]) == (1.0, 1.0, 1.0)
    assert math.isclose(same_by_chance([high], [low]), 2 / math.comb(6, 3))
    assert math.isclose(same_by_chance([[*high, 6.0, 7.0]], [[*low, -1.0, -2.0]]), 2 / 252)


@pytest.mark.parametrize("sizes", [(3, 5), (6, 6), (7, 4)])
def test_one_task_is_mann_and_whitneys(sizes: tuple[int, int]) -> None:
    draws = np.random.default_rng(sizes[0])
    x, y = draws.normal(size=sizes[0]) + 0.7, draws.normal(size=sizes[1])
    exact = stats.mannwhitneyu(x, y, alternative="two-sided", method="exact").pvalue
    assert math.isclose(same_by_chance([x], [y]), exact, rel_tol=1e-9)


def test_a_training_that_is_lost_is_the_worst() -> None:
    assert iqm([-math.inf, 1.0, 1.0, 2.0]) == 1.0
    assert iqm([-math.inf, -math.inf, 1.0, 2.0]) == -math.inf
    lost = [-math.inf, -math.inf]
    assert improvement([[0.0, 1.0]], [lost]).estimate == 1.0
    assert improvement([lost], [lost]).estimate == 0.5


def test_two_tasks_are_tested_together() -> None:
    """Of two tasks with 2 against 2 all is won: 1/6 · 1/6 on either side."""
    assert math.isclose(same_by_chance([[3, 4], [7, 8]], [[1, 2], [5, 6]]), 2 / 36)
    # one won, one lost: nothing is told
    assert same_by_chance([[3, 4], [5, 6]], [[1, 2], [7, 8]]) == 1.0
    # ties are neither
    assert same_by_chance([[1, 1]], [[1, 1]]) == 1.0


def test_drawn_relabellings_are_near_the_exact_ones() -> None:
    """12 against 12 cannot be listed: within five standard errors of Mann and Whitney's test."""
    draws = np.random.default_rng(3)
    x, y = draws.normal(size=12) + 0.8, draws.normal(size=12)
    exact = stats.mannwhitneyu(x, y, alternative="two-sided", method="exact").pvalue
    assert abs(same_by_chance([x], [y]) - exact) < 5 * math.sqrt(exact * (1 - exact) / 20_000)


@pytest.mark.parametrize("sides", [([], []), ([[1.0]], [[1.0], [2.0]]), ([[]], [[1.0]])])
def test_scores_that_do_not_fit_are_refused(sides: tuple) -> None:
    for function in (improvement, same_by_chance):
        with pytest.raises(BadValue, match="per task for both sides"):
            function(*sides)
    with pytest.raises(BadValue, match=r"\[seeds"):
        iqm_interval([[1.0, 2.0], np.ones((2, 3))])


def test_steps_to_a_threshold() -> None:
    steps, scores = np.array([0.0, 10.0, 20.0, 30.0]), np.array([0.0, 4.0, 2.0, 8.0])
    assert steps_to(2.0, steps, scores) == 5.0
    assert steps_to(5.0, steps, scores) == 25.0
    assert steps_to(8.0, steps, scores) == 30.0
    assert steps_to(-1.0, steps, scores) == 0.0
    assert steps_to(9.0, steps, scores) == math.inf


def test_seeds_that_tasks_share_are_told_apart_as_one() -> None:
    """Three tasks that say the same are one: 2 of 70 relabellings, not of 70^3."""
    ours, theirs = [np.arange(4.0) + 10], [np.arange(4.0)]
    assert same_by_chance(ours * 3, theirs * 3, together=True) == pytest.approx(2 / 70)
    assert same_by_chance(ours * 3, theirs * 3) < 1e-3
    draws = np.random.default_rng(5)
    x, y = draws.normal(size=(3, 4)), draws.normal(size=(3, 5))
    both = np.concatenate([x, y], axis=1)

    def won(chosen: tuple[int, ...]) -> float:
        other = np.delete(both, chosen, axis=1)
        return float((both[:, list(chosen), None] > other[:, None]).mean())

    far = [abs(won(c) - 0.5) for c in itertools.combinations(range(9), 4)]
    exact = np.mean([f >= far[0] - 1e-9 for f in far])  # the first is what was seen
    assert same_by_chance(list(x), list(y), together=True) == pytest.approx(exact)
    # and a bootstrap of three tasks that say the same is that of one
    one = improvement([x[0]], [y[0]])
    assert improvement([x[0]] * 3, [y[0]] * 3, together=True) == pytest.approx(one)
    with pytest.raises(BadValue, match="as many in each"):
        same_by_chance([[1, 2], [1, 2, 3]], [[1, 2], [3, 4]], together=True)


def test_a_p_value_from_draws_is_never_0() -> None:
    tasks = [np.arange(5.0)] * 3  # of 252^3 relabellings two put it as far
    best = [scores + 10 for scores in tasks]
    assert same_by_chance(best, tasks) == pytest.approx(1 / 20_001)
    assert same_by_chance([np.arange(10.0) + 20], [np.arange(10.0)]) == pytest.approx(
        2 / math.comb(20, 10), abs=3 / 20_000
    )
    assert same_by_chance([np.arange(10.0) + 20], [np.arange(10.0)]) > 0


def test_the_interval_of_lost_trainings_ends_at_minus_infinity() -> None:
    (found,) = iqm_interval([[-math.inf, 1.0, 2.0, 3.0, 4.0]])
    assert found.low == -math.inf
    assert 2.0 < found.high <= 4.0


@pytest.mark.parametrize("side", [0, 1])
def test_scores_that_are_not_numbers_are_refused(side: int) -> None:
    both = [[[1.0, 2.0]], [[1.0, 2.0]]]
    both[side] = [[1.0, math.nan]]
    for of in (improvement, same_by_chance):
        with pytest.raises(BadValue, match="got NaN; try -inf"):
            of(*both)
    for scores in ([1.0, math.nan], [[1.0, math.nan]]):
        with pytest.raises(BadValue, match="got NaN"):
            iqm(scores)
        with pytest.raises(BadValue, match="got NaN"):
            iqm_interval([scores])


@pytest.mark.parametrize("seeds, said", [(3, 0.75), (5, 0.91)])
def test_how_short_intervals_of_few_seeds_are(seeds: int, said: float) -> None:
    """What the docstring says, within five standard errors of a smaller sample."""
    found = coverage(seeds, sets=300, resamples=100, seed=1)
    assert abs(found - said) < 5 * math.sqrt(said * (1 - said) / 300) + 0.02
