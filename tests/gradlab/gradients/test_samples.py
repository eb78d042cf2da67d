"""Factored samples carry the factors of every layer along,
so that the policy does not run again, but for sums.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

import estimators as E
import gradlab
from gradlab.gradients import samples as module
from gradlab.gradients.samples import Dense, Factored, concatenate
from gradlab.policies.perceptron import Perceptron

N, T = 12, 5
Operation = Callable[[Factored, Factored], Factored]


@pytest.fixture(params=["state", "global"])
def pair(request: pytest.FixtureRequest) -> tuple[Factored, Factored]:
    """FOG and PG of the same episodes: the same calls."""
    problem = gradlab.make("hovering", horizon=T, dtype=torch.float64)
    policy = replace(problem.policy, std=request.param, hidden=(8, 4))
    problem = problem.replace(policy=policy)
    params = policy.init(torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = problem.draw(N, torch.Generator().manual_seed(1))
    samples = [estimator(problem, params, noise) for estimator in (E.FOG(), E.PG())]
    first, second = (part for part in samples if isinstance(part, Factored))
    assert first.known is not None and second.known is not None
    return first, second


def weights(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


OPERATIONS: dict[str, Operation] = {
    "one step": lambda a, b: a.at_step(3),
    "rows": lambda a, b: a.rows(2, 7),
    "means of groups": lambda a, b: a.group_means(3),
    "chunks": lambda a, b: concatenate([a.rows(0, 5), a.rows(5, N)]),
    "all": lambda a, b: concatenate([a.rows(0, 8), a.rows(8, N)]).group_means(4).at_step(1),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_factors_go_along(
    name: str, pair: tuple[Factored, Factored], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same gradients as from the cotangents, and the policy runs for those alone."""
    found = OPERATIONS[name](*pair)
    expected = replace(found, known=None).per_sample()

    def never(*_: object) -> None:
        raise AssertionError("the policy runs again")

    monkeypatch.setattr(Perceptron, "probed", never)
    for leaf, value in found.per_sample().items():
        size = sum(float(part.per_sample()[leaf].abs().max()) for part in pair)
        assert (value - expected[leaf]).abs().max() <= 1e-13 * size
    assert found.squared_norms().shape == (len(found),)
    with pytest.raises(AssertionError, match="the policy runs again"):
        replace(found, known=None).mean()


def test_many_chunks_keep_no_factors(
    pair: tuple[Factored, Factored], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a chunk size saves is not kept after all."""
    first, _ = pair
    monkeypatch.setattr(module, "KEPT_NUMBERS", 100)
    joined = concatenate([first.rows(0, 5), first.rows(5, N)])
    assert isinstance(joined, Factored) and joined.known is None
    for leaf, value in joined.per_sample().items():
        torch.testing.assert_close(value, first.per_sample()[leaf], rtol=1e-12, atol=1e-15)


def test_new_cotangents_make_their_factors_anew(pair: tuple[Factored, Factored]) -> None:
    """All terms of a sum in one pass through the policy, where nearly equal ones are rounded alike;
    and no factors are weighted only for a sum to drop them."""
    first, second = pair
    weighted = first * 0.3, first * weights(N), first.weight_steps(weights(T))
    for found in (*weighted, first + second, first + second.at_step(2)):
        assert isinstance(found, Factored) and found.known is None


@pytest.mark.parametrize("dense", [False, True])
def test_a_remembered_mean_is_of_the_same_rows_alone(
    dense: bool, pair: tuple[Factored, Factored]
) -> None:
    """Whoever slices the same rows again finds it, and nothing that is made of them does."""
    whole = Dense(pair[0].per_sample()) if dense else pair[0]
    rows = whole.rows(2, 8)
    expected = rows.mean()
    mark = {name: torch.full_like(leaf, 7.0) for name, leaf in expected.items()}
    rows.remember(mark)
    assert whole.rows(0, 10).rows(2, 8).mean() == mark == rows.mean()
    others = [whole.rows(2, 7), whole.rows(3, 8), rows * 2.0, rows.grouped(2), rows.group_means(2)]
    for other in [*others, (rows * torch.ones(6, dtype=torch.float64))]:
        own = other.mean()
        leaves = other.per_sample()
        for name, leaf in own.items():
            torch.testing.assert_close(leaf, leaves[name].mean(0), rtol=1e-10, atol=1e-12)
