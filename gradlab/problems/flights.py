"""The four flights of the quadrotor, as builders for `gradlab.make`."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from gradlab.foundation.naming import check_options
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.problems.problem import Problem
from gradlab.simulators.base import Simulator, Timed
from gradlab.simulators.quadrotor import Quadrotor
from gradlab.tasks.base import Task
from gradlab.tasks.hovering import Hovering
from gradlab.tasks.landing import Landing
from gradlab.tasks.racing import Racing
from gradlab.tasks.tracking import Tracking

FLIGHTS: dict[str, Any] = {
    "hovering": Hovering,
    "tracking": Tracking,
    "landing": Landing,
    "racing": Racing,
}
DISCOUNT = 0.99  # ABPT, Tables 2-9
PARTS = ("task", "simulator")  # each replaces one, and then has no options


def _builder(name: str, kind: Any) -> Callable[..., Problem]:
    """The builder of one flight: its options are the fields of its task and of `Quadrotor`."""

    def build(
        task: Task | None = None, simulator: Simulator | None = None, **options: Any
    ) -> Problem:
        kinds = {Quadrotor: simulator, kind: task}
        free = [kind for kind, given in kinds.items() if given is None]
        check_options(name, options, options_of(free))
        for given in (simulator, task):
            if isinstance(given, Timed):  # the part that is built counts the time of the given one
                options = {"dt": given.dt} | options
        built = {k: k(**{o: v for o, v in options.items() if o in _fields(k)}) for k in free}
        flight = task or built[kind]
        return Problem(
            name=name,
            simulator=simulator or built[Quadrotor],
            task=flight,
            policy=GaussianPolicy(hidden=(64, 64)),
            horizon=flight.default_horizon,
            discount=DISCOUNT,
        )

    build.__signature__ = options_of([kind, Quadrotor], PARTS)  # type: ignore[attr-defined]
    build.__qualname__ = build.__name__ = name
    return build


def options_of(
    kinds: list[Any], more: tuple[str, ...] = (), but: frozenset[str] = frozenset()
) -> inspect.Signature:
    """A signature with the fields of some dataclasses and `more` as options, without `but`."""
    fields = [field for kind in kinds for field in _fields(kind) if field not in but]
    keyword = inspect.Parameter.KEYWORD_ONLY
    optional = [
        inspect.Parameter(n, keyword, default=None) for n in dict.fromkeys([*more, *fields])
    ]
    return inspect.Signature(optional)


def _fields(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


BUILDERS = {name: _builder(name, kind) for name, kind in FLIGHTS.items()}
