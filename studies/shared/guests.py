"""Estimators of users, named as "my_file.py:Mine" or "package.module:Mine", in a study."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor

import gradlab
from estimators.base import Estimator
from gradlab.foundation.errors import GradlabError
from gradlab.gradients.measurement import Measurement
from gradlab.problems.problem import Problem
from gradlab.statistics import Moments

Value = TypeVar("Value")

LEAST = 5  # finite samples, or means of groups, that statistics need


def is_guest(name: str) -> bool:
    """Whether a name says where something of a user is."""
    return ":" in name


@contextmanager
def blamed(name: str, task: str) -> Iterator[None]:
    """A mistake in an estimator of a user, as one line with the place.

    Raises `GradlabError` for it; errors of estimators that come with the project stay what they
    are.
    """
    try:
        yield
    except GradlabError:
        raise
    except Exception as error:
        if not is_guest(name):
            raise
        where = _file(name)
        frames = [f for f in traceback.extract_tb(error.__traceback__) if where in f.filename]
        line = f" in line {frames[-1].lineno}" if frames else ""
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise GradlabError(f"{name} failed on {task}{line}: {said}; mend it") from error


def _file(name: str) -> str:
    """What the path of its file ends with, or close to."""
    place = name.rpartition(":")[0]
    return place if place.endswith(".py") else place.replace(".", "/")


def measured(
    named: Mapping[str, Estimator],
    problem: Problem,
    params: dict[str, Tensor],
    count: int,
    seed: int,
    *,
    chunk_size: int,
) -> Measurement:
    """`gradlab.measure`, those of users each by itself on the same episodes.

    A sample that one estimator loses is left out of all that are measured with it: what a user's
    loses must not change the others. Raises `GradlabError` where hardly any of its samples are
    finite, with its name.
    """
    ours = {name: one for name, one in named.items() if not is_guest(name)}
    guests = {name: one for name, one in named.items() if is_guest(name)}
    parts: list[Measurement] = []
    if ours:
        parts.append(gradlab.measure(ours, problem, params, count, seed, chunk_size=chunk_size))
    for name, one in guests.items():
        with blamed(name, problem.name):
            part = gradlab.measure({name: one}, problem, params, count, seed, chunk_size=chunk_size)
        _check_finite(name, part.single, problem)
        parts.append(part)
    return Measurement(*(_joined(getattr(part, kind) for part in parts) for kind in FIELDS))


FIELDS = ("moments", "seconds", "lost", "shared")


def _joined(parts: Iterable[Mapping[str, Value]]) -> dict[str, Value]:
    return {name: value for part in parts for name, value in part.items()}


def _check_finite(name: str, moments: Moments, problem: Problem) -> None:
    if moments.count < LEAST:
        total = moments.count + moments.nonfinite
        raise GradlabError(
            f"{name}: {moments.nonfinite} of {total} samples are not finite on {problem.name}; look "
            "for a division by zero, or a torch.where around one"
        )
