"""A task or a simulator with a mistake is refused with one line that names the method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import gradlab
from gradlab.foundation.errors import BadShape, BadValue, GradlabError, UnknownName
from gradlab.problems import checking
from gradlab.problems import problem as problem_module
from gradlab.problems.problem import Problem
from tests.helpers.checking import off
from tests.helpers.toy import Pendulum, Swing, toy_problem


@pytest.fixture
def own_stream() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def with_parts(task: Any = None, simulator: Any = None) -> Problem:
    """The toy problem in float64 with some part replaced."""
    parts = {"task": task or Swing(), "simulator": simulator or Pendulum()}
    return toy_problem().replace(dtype=torch.float64, **parts)


def other(kind: type, **members: Any) -> Any:
    """An instance of a subclass with other members, as a user would have written it."""
    return type(f"My{kind.__name__}", (kind,), members)()


def nan_of(*shape: int, dtype: torch.dtype = torch.float64) -> Callable[..., torch.Tensor]:
    return lambda *_: torch.full(shape, torch.nan, dtype=dtype)


def summed(self, transition):
    return {"all": transition.after.sum()}


def over_batch(self, transition):
    return {"effort": transition.action.sum((0, -1))}


def old(self, before, action, after, memory, step):
    return {"angle": after[..., 0]}


def raising(self, *_):
    raise IndexError("too many\nindices")


THIRTY_TWO = torch.float32
MISTAKES = {
    "old terms": (Swing, {"terms": old}, BadValue, 
        r"MySwing.terms should take one Transition \(docs/extending.md, A task\), got \(before, action, after, memory, step\); try def terms\(self, transition\)"),
    "old margins": (Swing, {"margins": old}, BadValue, "MySwing.margins should take one Transition"),
    "old advance": (Swing, {"advance": old}, BadValue, "MySwing.advance should take one Transition"),
    "observe without a step": (Swing, {"observe": lambda self, state, memory: state}, BadValue,
        r"MySwing.observe should take \(state, memory, step\).*got \(state, memory\)"),
    "initial with a generator": (Swing, {"initial": lambda self, noise, generator: (noise, noise)}, BadValue,
        r"MySwing.initial should take .*try def initial\(self, noise\)"),
    "drawing without a generator": (Swing, {"draw_initial": lambda self, n: torch.randn(n, 2)}, BadValue,
        r"MySwing.draw_initial should take \(n, generator\)"),
    "a tensor of terms": (Swing, {"terms": nan_of(2, 1)}, BadValue,
        r"terms should return a dict of tensors, got a tensor \[2, 1\]"),
    "a number as a term": (Swing, {"terms": lambda *_: {"a": 0.5}}, BadValue,
        "terms should return a tensor as 'a', got 0.5"),
    "a term summed over everything": (Swing, {"terms": summed}, BadShape,
        r"MySwing.terms should return \[2, 1\] as 'all' for 2 episodes of 1 step, got \[\]; one number per step"),
    "a term summed over the batch": (Swing, {"terms": over_batch}, BadShape, r"as 'effort' .* got \[1\]"),
    "a term per component": (Swing, {"terms": lambda _, made: {"a": made.after}}, BadShape,
        r"as 'a' .* got \[2, 1, 2\]"),
    "a term of another dtype": (Swing, {"terms": lambda *_: {"a": torch.zeros(2, 1)}}, BadShape,
        "should return float64 on cpu as 'a', got float32 on cpu"),
    "margins without events' axis": (Swing, {"margins": nan_of(2, 1)}, BadShape,
        r"margins should return \[2, 1, 3\] \(a column for each of 3 events\).*got \[2, 1\]; try torch.stack"),
    "too few margins": (Swing, {"margins": nan_of(2, 1, 2)}, BadShape, r"got \[2, 1, 2\]"),
    "ending margins": (Swing, {"ending_margins": nan_of(2, 1)}, BadShape, r"ending_margins should return \[2, 2\]"),
    "a list of events' names": (Swing, {"events": ("crash",)}, BadValue, "events should be a tuple of Event"),
    "observe of another size": (Swing, {"observe": lambda self, state, memory, step: state}, BadShape,
        r"observe should return \[2, 3\] for 2 episodes, got \[2, 2\]"),
    "no memory": (Swing, {"initial": lambda _, noise: noise}, BadValue,
        r"initial should return \(coordinates, memory\), got a tensor \[2, 2\]"),
    "too much memory": (Swing, {"initial": lambda _, noise: (noise, noise)}, BadShape,
        r"initial should return \[2, 0\] as memory .* got \[2, 2\]"),
    "None as memory": (Swing, {"initial": lambda _, noise: (noise, None)}, BadValue,
        "initial should return a tensor as memory, got None"),
    "coordinates of one": (Swing, {"initial": lambda _, noise: (noise[0], noise[..., :0])}, BadShape,
        r"initial should return \[2, nc\] as coordinates|initial should return \[2, 2\] as coordinates"),
    "memory after the step": (Swing, {"advance": nan_of(2, 1)}, BadShape, r"advance should return \[2, 0\]"),
    "too few drawn": (Swing, {"draw_initial": nan_of(2, 1)}, BadShape, r"draw_initial should return \[2, 2\]"),
    "drawn in float32": (Swing, {"draw_initial": nan_of(2, 2, dtype=THIRTY_TWO)}, BadShape,
        "draw_initial should return float64 on cpu, got float32 on cpu; try torch.randn"),
    "something raised": (Swing, {"terms": raising}, BadValue, "it raised IndexError: too many indices"),
    "start in float32": (Pendulum, {"start": nan_of(2, 2, dtype=THIRTY_TWO)}, BadShape,
        "start should return float64 on cpu, got float32"),
    "start of another size": (Pendulum, {"start": nan_of(2, 3)}, BadShape, r"start should return \[2, 2\]"),
    "step in float32": (Pendulum, {"step": nan_of(2, 2, dtype=THIRTY_TWO)}, BadShape,
        "MyPendulum.step should return float64 on cpu, got float32"),
    "step of another size": (Pendulum, {"step": nan_of(2, 1)}, BadShape, r"step should return \[2, 2\]"),
    "step without noise": (Pendulum, {"step": lambda self, state, action: state}, BadValue,
        r"step should take \(state, action, noise\) \(docs/extending.md, A simulator\), got \(state, action\)"),
    "step that returns nothing": (Pendulum, {"step": lambda *_: None}, BadValue, "should return a tensor, got None"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "members", "error", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named(kind: type, members: Any, error: type, message: str) -> None:
    part = other(kind, **members)
    with pytest.raises(error, match=message) as caught:
        with_parts(**{"task" if kind is Swing else "simulator": part}).draw(3, generator())
    assert "\n" not in str(caught.value)


def test_what_was_raised_is_kept() -> None:
    with pytest.raises(BadValue) as caught:
        with_parts(other(Swing, terms=raising)).draw(3, generator())
    assert isinstance(caught.value.__cause__, IndexError)


@pytest.mark.parametrize("name", ["task", "simulator"])
def test_a_part_that_is_none_is_refused(name: str) -> None:
    part = {"task": Swing, "simulator": Pendulum}[name]
    for wrong, message in [
        (None, f"{name} should have .*, got None"),
        (part, rf"{name} should be an instance, got the class {part.__name__}; try {part.__name__}\(\)"),
        (toy_problem(), f"{name} should have "),
    ]:  # fmt: skip
        with off(), pytest.raises(BadValue, match=message):
            toy_problem().replace(**{name: wrong})


@pytest.mark.parametrize(
    "part",
    [
        Pendulum(state_dim=0),
        Pendulum(noise_dim=-1),
        dataclasses.replace(Swing(), observation_dim=0),
    ],
)
def test_sizes_are_whole_numbers(part: Any) -> None:
    name = "task" if isinstance(part, Swing) else "simulator"
    with pytest.raises(BadValue, match="_dim should be a whole number of at least"):
        toy_problem().replace(**{name: part})


@pytest.mark.parametrize(
    ("option", "near"), [("horizn", "horizon"), ("simulater", "simulator"), ("tasks", "task")]
)
def test_an_unknown_field_is_told_the_nearest(option: str, near: str) -> None:
    with pytest.raises(UnknownName, match=f"'{option}'; did you mean {near}"):
        toy_problem().replace(**{option: 4})


def counted(kind: type, method: str, calls: list[str]) -> dict[str, Any]:
    """A member that counts its calls."""

    def inner(self, *given):
        calls.append(method)
        return getattr(kind, method)(self, *given)

    return {method: inner}


def test_equal_parts_are_run_once_and_a_mistake_every_time() -> None:
    calls: list[str] = []
    task = other(Swing, **counted(Swing, "terms", calls))
    for _ in range(2):
        with_parts(dataclasses.replace(task)).draw(3, generator())
    assert len(calls) == 1
    with_parts(dataclasses.replace(task)).replace(dtype=torch.float32).draw(3, generator())
    assert len(calls) == 2
    wrong = with_parts(other(Swing, terms=nan_of(2, 1)))
    for _ in range(2):
        with pytest.raises(BadValue):
            wrong.draw(3, generator())


def test_parts_without_a_hash_are_run_once_per_problem() -> None:
    calls: list[str] = []
    loose = type("Loose", (Swing,), {**counted(Swing, "terms", calls), "__hash__": None})()
    problem = with_parts(loose)
    for _ in range(2):
        problem.draw(3, generator())
    assert calls == ["terms"]
    with pytest.raises(GradlabError):
        broken = type("Loose", (Swing,), {"terms": raising, "__hash__": None})()
        with_parts(broken).draw(3, generator())


@pytest.mark.usefixtures("own_stream")
def test_numbers_and_random_streams_are_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(self, n, generator):  # draws from torch's own stream
        return torch.randn(n, 2, dtype=torch.float64)

    torch.manual_seed(7)
    with_parts(other(Swing, draw_initial=careless)).draw(3, generator())
    drawn = torch.randn(2)
    torch.manual_seed(7)
    torch.randn(3, 2, dtype=torch.float64)
    assert torch.equal(drawn, torch.randn(2))

    problem = with_parts(other(Swing))
    checked = problem.draw(3, generator())
    monkeypatch.setattr(problem_module, "check_parts", lambda *_: None)
    for came, expected in zip(checked, problem.replace().draw(3, generator()), strict=True):
        assert torch.equal(came, expected)


def test_transforms_modes_and_meta_are_left_alone() -> None:
    wrong = with_parts(other(Swing, terms=raising))

    def drawn(x: torch.Tensor) -> torch.Tensor:
        return x * wrong.draw(3, generator()).action.sum()

    torch.func.grad(drawn)(torch.ones((), dtype=torch.float64))
    with torch.device("meta"):
        assert not checking.can_run("cpu")
    assert not checking.can_run("meta")
    assert checking.can_run("cpu")
    with torch.inference_mode(), pytest.raises(BadValue, match="raised IndexError"):
        wrong.draw(3, generator())


@pytest.mark.parametrize("name", ["tracking", "racing", "lq", "gate", "ball_with_wall", "hopper"])
def test_shipped_parts_pass(name: str) -> None:
    problem = gradlab.make(name, dtype=torch.float64)
    checking._dry_run(problem.simulator, problem.task, problem.dtype, torch.device("cpu"))


def test_a_step_that_takes_long_is_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[object] = []
    monkeypatch.setattr(checking, "_once", lambda *key: ran.append(key))
    hopper = gradlab.make("hopper")
    hopper.draw(1, generator())
    assert ran == []
    task: Any = hopper.task
    fields = {part.name: getattr(task, part.name) for part in dataclasses.fields(task)}
    mine = type("Mine", (type(task),), {"__module__": "mine"})(**fields)
    hopper.replace(task=mine).draw(1, generator())
    assert len(ran) == 1


def test_shipped_parts_that_do_not_fit_are_refused() -> None:
    problem = gradlab.make(
        "lq", task=gradlab.make("tracking").task, policy=gradlab.GaussianPolicy()
    )
    with pytest.raises(BadShape, match=r"PointMass.start should return \[2, 4\] .*got \[2, 13\]"):
        problem.draw(1, generator())


class Weighed(Swing):
    """A task with an attribute of its own, which the equality that it inherits does not know."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        object.__setattr__(self, "weight", weight)

    def observe(self, state: Tensor, memory: Tensor, step: Tensor) -> Tensor:
        return vars(self)["weight"] * super().observe(state, memory, step)


class Plainer(Swing):
    """One without any."""


class Scaled(gradlab.GaussianPolicy):
    """A policy with an attribute of its own, beside those that are made of its fields."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        object.__setattr__(self, "scale", scale)

    def sized(self, observation_dim: int, action_dim: int) -> gradlab.GaussianPolicy:
        return self

    def action(self, latent: Tensor) -> Tensor:
        return vars(self)["scale"] * super().action(latent)


class Doubled(gradlab.GaussianPolicy):
    """One whose attributes are all the base's."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", (8,))
        super().__post_init__()


def test_equal_parts_must_be_equal() -> None:
    """A second task would otherwise be run by the steps of the first."""
    assert Weighed(1.0) == Weighed(2.0)
    with pytest.raises(BadValue, match=r"task Weighed should be a frozen dataclass.*\(weight\)"):
        toy_problem().replace(task=Weighed(1.0))
    toy_problem().replace(task=Plainer())
    assert Scaled(1.0) == Scaled(2.0)
    with pytest.raises(BadValue, match=r"policy Scaled should be a frozen.*\(scale\).*policies.md"):
        toy_problem().replace(policy=Scaled(1.0))
    assert toy_problem().replace(policy=Doubled()).policy.hidden == (8,)
