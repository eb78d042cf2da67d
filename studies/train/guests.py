"""Tasks and algorithms of users, named by where they are: "my_file.py:docking"."""

from __future__ import annotations

from typing import Any

import gradlab
from gradlab.foundation import naming
from gradlab.foundation.arguments import got
from gradlab.foundation.errors import BadValue, GradlabError, UnknownName
from gradlab.problems.problem import Problem
from gradlab.training.algorithm import Algorithm
from studies.shared.guests import is_guest
from studies.train.families import FAMILIES


def problem_of(task: str, **options: Any) -> Problem:
    """What `gradlab.make` makes of a name, "my_file.py:docking" or "robot.xml"; it has its own
    policy. Raises `UnknownName` with the names that would have been understood.
    """
    if not (is_guest(task) or task.endswith(".xml") or task in gradlab.names()):
        raise UnknownName("task", task, list(dict.fromkeys([*FAMILIES, *gradlab.names()])))
    return gradlab.make(task, **options)


def algorithm_of(name: str, task: str, problem: Problem) -> Algorithm:
    """The `Algorithm` of that name, or what the function of that name makes of the problem.

    Raises `Missing` or `UnknownName` where there is none, `BadValue` for something else, and
    `GradlabError` for a mistake in the function.
    """
    function = naming.load(name, "algorithm")
    found = function
    if not isinstance(function, Algorithm):
        try:
            found = function(problem)
        except GradlabError:
            raise
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise GradlabError(f"{name} failed on {task}: {said}; mend it") from error
    if not isinstance(found, Algorithm):
        raise BadValue(
            f"{name} should be a gradlab.training.algorithm.Algorithm, or a function of the "
            f"problem that returns one, got {got(found)}"
        )
    return found
