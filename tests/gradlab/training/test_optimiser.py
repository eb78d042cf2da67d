"""Adam as a pure function is torch's Adam; schedules go where they should."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gradlab.foundation.errors import BadValue
from gradlab.training.optimiser import ALL, Adam, joined, norm_of, parted, shaped
from gradlab.training.schedule import Schedule, at


def start() -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(0)
    return {
        "a": torch.randn(3, 2, generator=draws, dtype=torch.float64),
        "b": torch.randn(4, generator=draws, dtype=torch.float64),
    }


def slopes(params: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a function that is no quadratic."""
    return {name: value.sin() + 0.5 * value.pow(3) for name, value in params.items()}


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (Adam(0.05), torch.optim.Adam, {}),
        (Adam(0.05, (0.7, 0.95), epsilon=1e-5), torch.optim.Adam, {"betas": (0.7, 0.95), "eps": 1e-5}),
        (Adam(0.05, weight_decay=0.1), torch.optim.Adam, {"weight_decay": 0.1}),
        (Adam(0.05, weight_decay=0.1, decoupled=True), torch.optim.AdamW, {"weight_decay": 0.1}),
        (Adam(0.05, max_norm=0.3), torch.optim.Adam, {}),
    ],
)  # fmt: skip
def test_twenty_steps_are_those_of_torch(ours: Adam, theirs: Any, options: dict) -> None:
    params, memory = start(), None
    leaves = [value.clone().requires_grad_() for value in params.values()]
    other = theirs(leaves, lr=0.05, **options)
    memory = ours.init(params)
    for _ in range(20):
        gradient = slopes(params)
        for leaf, slope in zip(
            leaves, slopes(dict(zip(params, leaves, strict=True))).values(), strict=True
        ):
            leaf.grad = slope.detach()
        if ours.max_norm is not None:
            torch.nn.utils.clip_grad_norm_(leaves, ours.max_norm)
        other.step()
        params, memory, norm = ours.step(params, gradient, memory, 0.0)
        assert float(norm) == pytest.approx(float(norm_of(gradient)), rel=1e-14)
    for leaf, value in zip(leaves, params.values(), strict=True):
        torch.testing.assert_close(value, leaf.detach(), rtol=1e-12, atol=1e-14)


def test_a_step_of_all_as_one_vector_is_a_step_of_each() -> None:
    params, adam = start(), Adam(0.05, max_norm=0.3, weight_decay=0.1)
    memory = adam.init(params)
    vector, kept = joined(params, memory)
    for _ in range(3):
        gradient = slopes(shaped(vector, params))
        params, memory, _ = adam.step(params, gradient, memory, 0.5)
        slope, _ = joined(gradient, adam.init(gradient))
        moved, kept, _ = adam.step({ALL: vector}, {ALL: slope}, kept, 0.5)
        vector = moved[ALL]
    ours, ours_kept = parted(vector, kept, params)
    assert list(ours) == list(params) and list(ours_kept) == list(memory)
    for name, value in {**params, **memory}.items():
        torch.testing.assert_close({**ours, **ours_kept}[name], value, rtol=1e-13, atol=1e-16)


def test_nothing_that_comes_in_is_written_to() -> None:
    params, adam = start(), Adam(0.1)
    memory, gradient = adam.init(params), slopes(params)
    before = [part.clone() for group in (params, memory, gradient) for part in group.values()]
    adam.step(params, gradient, memory, 0.0)
    after = [part for group in (params, memory, gradient) for part in group.values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_schedules() -> None:
    linear, exponential = Schedule(1.0, 0.2), Schedule(1.0, 0.01, "exponential")
    assert [linear.at(x) for x in (0, 0.5, 1, 3)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    assert [exponential.at(x) for x in (0, 0.5, 1)] == pytest.approx([1.0, 0.1, 0.01])
    assert at(0.3, 0.7) == 0.3 and at(linear, 0.5) == pytest.approx(0.6)
    adam = Adam(Schedule(0.1, 0.0))
    params = start()
    moved, _, _ = adam.step(params, slopes(params), adam.init(params), 1.0)
    assert all(torch.equal(moved[name], value) for name, value in params.items())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Adam(0.0), "learning_rate"),
        (lambda: Adam(betas=(0.9, 1.0)), "betas"),
        (lambda: Adam(max_norm=-1.0), "max_norm"),
        (lambda: Schedule(1.0, 0.0, "exponential"), "positive ends"),
        (lambda: Schedule(-1.0, 0.0), "at least 0"),
    ],
)
def test_bad_options_are_one_line(make: Any, words: str) -> None:
    with pytest.raises(BadValue, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
