"""The annotations of the packages are checked in the tests:
types, shapes, and sizes that must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.rollouts.outcome import reward_to_go
from gradlab.statistics import Moments
from tests.helpers.checking import CALLS, begin, checked, jaxtyped, off

check = jaxtyped(typechecker=checked)


@check
def total(a: Float[Tensor, "n k"], b: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    return a.sum(-1) + b


@check
def wrong(a: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    return a.sum(0)


@check
def both(a: Float[Tensor, "n k"], b: Float[Tensor, " n"]) -> Iterator[Tensor]:
    yield total(a, b)


@check
def scaled(factor: float) -> Callable[[Tensor], Tensor]:
    @check
    def nested(a: Float[Tensor, "n n"], times: float = factor) -> Float[Tensor, "n n"]:
        return times * a

    return nested


@check
@dataclass
class Pair:
    a: Float[Tensor, " n"]
    b: Float[Tensor, " n"]


def test_what_fits_passes() -> None:
    a, b = torch.ones(2, 3), torch.ones(2)
    assert total(a, b).tolist() == [4.0, 4.0]
    assert [x.tolist() for x in both(a, b)] == [[4.0, 4.0]]
    for factor in (2, 3.0):  # an int is a float, and one checker serves both functions
        assert scaled(factor)(torch.ones(2, 2)).sum() == 4 * factor
    Pair(b, b)


@pytest.mark.parametrize(
    "call",
    [
        lambda: total(torch.ones(2, 3), torch.ones(3)),
        lambda: total(torch.ones(2), torch.ones(2)),
        lambda: total(torch.ones(2, 3), [1.0, 1.0]),  # type: ignore[arg-type]
        lambda: total(torch.ones(2, 3, dtype=torch.int64), torch.ones(2)),
        lambda: wrong(torch.ones(2, 3)),
        lambda: list(both(torch.ones(2, 3), torch.ones(3))),
        lambda: scaled(2.0)(torch.ones(2, 3)),
        lambda: scaled(2.0)(torch.ones(2, 2), "3"),  # type: ignore[call-arg]
        lambda: scaled("2"),  # type: ignore[arg-type]
        lambda: Pair(torch.ones(2), torch.ones(3)),
    ],
)  # fmt: skip
def test_what_does_not_fit_raises(call: Callable[[], object]) -> None:
    scaled(2.0)(torch.ones(2, 2))  # the nested function's checker is known already
    with pytest.raises(Exception, match="(?i)violates|type-check"):
        call()


def test_the_packages_are_checked() -> None:
    """A function, a method, and one whose annotations name what only type checkers import."""
    with pytest.raises(Exception, match="(?i)violates|type-check"):
        reward_to_go([1.0])  # type: ignore[arg-type]
    with pytest.raises(Exception, match="(?i)violates|type-check"):
        Moments.of([1.0], group="2")  # type: ignore[arg-type]


def test_off_is_over_when_it_ends() -> None:
    with off():
        assert wrong(torch.ones(2, 3)).shape == (3,)
        assert scaled(2.0)(torch.ones(2, 3)).shape == (2, 3)
    for call in (lambda: wrong(torch.ones(2, 3)), lambda: scaled(2.0)(torch.ones(2, 3))):
        with pytest.raises(Exception, match="(?i)violates|type-check"):
            call()


@pytest.mark.parametrize(
    "call", [lambda: wrong(torch.ones(2, 3)), lambda: scaled(2.0)(torch.ones(2, 3))]
)
def test_the_first_calls_of_every_test_are_checked(call: Callable[[], object]) -> None:
    for _ in range(2):
        begin()
        for _ in range(CALLS):
            with pytest.raises(Exception, match="(?i)violates|type-check"):
                call()
        call()
