"""What a task is: initial states, observations, smooth reward terms and the margins of events."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.events import Event


class Transition(NamedTuple):
    """A step, or the steps of a trajectory with a dimension T before the last, as a task sees it.

    Step t goes from state t (`before`) to state t+1 (`after`); its reward belongs to time t+1. A
    task treats the steps one by one: what it says of a step depends on nothing but that step.
    """

    before: Float[Tensor, "*batch ns"]
    action: Float[Tensor, "*batch nu"]
    after: Float[Tensor, "*batch ns"]
    memory: Float[Tensor, "*batch nm"]  # before the step
    step: Float[Tensor, "..."]  # t; without the last dimension of the others, and any leading ones

    def detach(self) -> Transition:
        """The same numbers as constants."""
        return Transition(*(part.detach() for part in self))

    def alone(self) -> Transition:
        """A single step as a trajectory of one step."""
        before, action, after, memory = (part.unsqueeze(-2) for part in self[:4])
        return Transition(before, action, after, memory, self.step.unsqueeze(-1))


@runtime_checkable
class Task(Protocol):
    """Everything about an episode except the dynamics; frozen dataclasses implement it.

    `step` is always a float tensor holding the index t of a step.
    """

    @property
    def name(self) -> str: ...

    @property
    def observation_dim(self) -> int: ...

    @property
    def initial_dim(self) -> int:
        """Pre-drawn random numbers that one initial state consumes."""
        ...

    @property
    def memory_dim(self) -> int:
        """Hard bookkeeping carried through time, such as a gate index; 0 for most tasks."""
        ...

    @property
    def events(self) -> tuple[Event, ...]: ...

    @property
    def default_horizon(self) -> int: ...

    def draw_initial(self, n: int, generator: torch.Generator) -> Float[Tensor, "n ni"]:
        """The randomness of n initial states, float64 on the CPU."""
        ...

    def initial(
        self, noise: Float[Tensor, "*batch ni"]
    ) -> tuple[Float[Tensor, "*batch nc"], Float[Tensor, "*batch nm"]]:
        """Coordinates for `Simulator.start`, and the first memory."""
        ...

    def observe(
        self,
        state: Float[Tensor, "*batch ns"],
        memory: Float[Tensor, "*batch nm"],
        step: Float[Tensor, "..."],
    ) -> Float[Tensor, "*batch no"]: ...

    def advance(self, transition: Transition) -> Float[Tensor, "*batch nm"]:
        """The memory after a step, a hard function of the state that the step reached."""
        ...

    def terms(self, transition: Transition) -> dict[str, Float[Tensor, "*batch T"]]:
        """Named smooth reward terms of every step of a trajectory."""
        ...

    def margins(self, transition: Transition) -> Float[Tensor, "*batch T E"]:
        """Scaled margins [1] of `events`, in order; an event happens when its margin is > 0."""
        ...


@runtime_checkable
class KnowsItsEnd(Protocol):
    """A task with a cheap way to its terminating events: a rollout asks after every single step."""

    def ending_margins(self, transition: Transition) -> Float[Tensor, "*batch k"]:
        """The columns of `margins` that belong to events that terminate, for one step."""
        ...


@runtime_checkable
class Pursuing(Protocol):
    """A task with a point that the first three numbers of a state should be at."""

    def goal(self, step: Float[Tensor, "*times"]) -> Float[Tensor, "*times 3"]:
        """That point after so many steps [m]."""
        ...


@runtime_checkable
class Detachable(Protocol):
    """A task whose rewards and margins can treat parts of the state as constants."""

    def with_detached(self, *parts: str) -> Task:
        """A copy that passes no gradient on to these parts. Raises `UnknownName` for others."""
        ...


def ending_margins(task: Task) -> Callable[[Transition], Tensor]:
    """Scaled margins [..., k] of the terminating events after one step, as a function of the step.

    A task's own way is taken unless a subclass has other events or margins than
    the class that wrote it.
    """
    if isinstance(task, KnowsItsEnd):
        author = _author(task, "ending_margins")
        if all(issubclass(author, _author(task, name)) for name in ("margins", "events")):
            return task.ending_margins
    ends = [i for i, event in enumerate(task.events) if event.terminates]

    def of_one_step(transition: Transition) -> Tensor:
        margins = task.margins(transition.alone())
        return torch.stack([margins[..., 0, i] for i in ends], dim=-1)

    return of_one_step


def _author(task: Task, name: str) -> type:
    """The class that `name` comes from."""
    return next(part for part in type(task).__mro__ if name in vars(part))


class Memoryless:
    """A base class for tasks with nothing to remember: an empty memory is passed on."""

    @property
    def memory_dim(self) -> int:
        """0."""
        return 0

    def advance(self, transition: Transition) -> Float[Tensor, "*batch 0"]:
        """The memory as it is."""
        return transition.memory
