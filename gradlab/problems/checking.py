"""A dry run of a problem's parts: two episodes through every method of a task and a simulator.

A method with a mistake is named before anything is estimated: one line says what it should take or
give, what it does, and what to try. Only sizes and dtypes are looked at, never a number.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradlab.events import Event
from gradlab.foundation.arguments import got, whole
from gradlab.foundation.errors import BadShape, BadValue, GradlabError
from gradlab.policies.policy import Policy
from gradlab.simulators.base import Simulator
from gradlab.tasks.base import KnowsItsEnd, Task, Transition

COUNT = 2  # episodes: one alone would hide a sum over them
PAGES = {
    "task": "docs/extending.md, A task",
    "simulator": "docs/extending.md, A simulator",
    "policy": "docs/policies.md, Your own network",
}
MEMBERS = {
    "task": (
        "name", "observation_dim", "initial_dim", "memory_dim", "events", "default_horizon",
        "draw_initial", "initial", "observe", "advance", "terms", "margins",
    ),
    "simulator": ("state_dim", "action_dim", "noise_dim", "start", "step"),
}  # fmt: skip
DIMS = {
    "task": ("observation_dim", "initial_dim", "memory_dim"),
    "simulator": ("state_dim", "action_dim", "noise_dim"),
}
LEAST = {"memory_dim": 0, "noise_dim": 0, "initial_dim": 0}
# what a method takes, as a message says it
TAKES = {
    "draw_initial": "(n, generator)",
    "initial": "the drawn numbers alone, (noise)",
    "observe": "(state, memory, step)",
    "advance": "one Transition",
    "terms": "one Transition",
    "margins": "one Transition",
    "ending_margins": "one Transition",
    "start": "the coordinates alone, (coordinates)",
    "step": "(state, action, noise)",
}
OURS = "gradlab."
SLOW = "gradlab.simulators.articulated"  # a step takes up to 0.4 s, elsewhere all takes 1 to 2 ms


def check_policy(policy: object) -> None:
    """Raise `BadValue` unless it is a policy."""
    if not isinstance(policy, Policy):
        kind = policy if isinstance(policy, type) else type(policy)
        module = issubclass(kind, torch.nn.Module)
        hint = "gradlab.ModulePolicy(module)" if module else "gradlab.GaussianPolicy()"
        raise BadValue(f"policy should be a policy, got {got(policy)}; try {hint}")
    if not type(policy).__module__.startswith(OURS):
        _check_equality("policy", policy)


def check_buffers(
    buffers: dict[str, Tensor], first: dict[str, Tensor], name: str
) -> dict[str, Tensor]:
    """The buffers in the dtypes and on the device of the policy's first ones.

    Raises `BadShape` unless they are the policy's.
    """
    expected = {key: tuple(value.shape) for key, value in first.items()}
    came = {key: tuple(value.shape) for key, value in buffers.items()}
    if came != expected:
        raise BadShape(
            f"the buffers of {name}'s policy should be {expected or 'none'}, "
            f"got {came or 'none'}; try buffers=None for its first ones"
        )
    return {key: value.to(first[key]) for key, value in buffers.items()}


def check_part(kind: str, part: object) -> None:
    """Raise `BadValue` unless the "task" or "simulator" has the members of one, sizes included."""
    if isinstance(part, type):
        raise BadValue(
            f"{kind} should be an instance, got the class {part.__name__}; try {part.__name__}()"
        )
    missing = [member for member in MEMBERS[kind] if not hasattr(part, member)]
    if missing:
        hint = "inherit from gradlab.tasks.Memoryless if there is nothing to remember, or "
        hint = hint if set(missing) & {"memory_dim", "advance"} else ""
        raise BadValue(
            f"{kind} should have {', '.join(missing)}, got {got(part)} without; "
            f"{hint}see {PAGES[kind]}"
        )
    if type(part).__module__.startswith(OURS):
        return
    _check_equality(kind, part)
    for dim in DIMS[kind]:
        whole(f"{type(part).__name__}.{dim}", getattr(part, dim), LEAST.get(dim, 1))
    events = getattr(part, "events", ())
    if not isinstance(events, tuple) or not all(isinstance(event, Event) for event in events):
        raise BadValue(
            f"{type(part).__name__}.events should be a tuple of Event, got {got(events)}; "
            'try events = (Event("docked", bonus=5.0),), or () for none'
        )


def _check_equality(kind: str, part: object) -> None:
    """Raise `BadValue` for what equals another that it differs from.

    Steps are kept for equal parts. A class that inherits from a dataclass without being one has its
    equality, which knows nothing of attributes that came with the class.
    """
    own = type(part)
    if {"__dataclass_params__", "__eq__"} & vars(own).keys() or own.__eq__ is object.__eq__:
        return
    if not dataclasses.is_dataclass(part) or not {"__init__", "__post_init__"} & vars(own).keys():
        return
    known = {field.name for field in dataclasses.fields(part)}
    derived = {
        name
        for one in own.__mro__
        for name, value in vars(one).items()
        if isinstance(value, functools.cached_property)
    }
    known |= _of_fields(part)
    if unknown := sorted(getattr(part, "__dict__", {}).keys() - known - derived):
        raise BadValue(
            f"{kind} {own.__name__} should be a frozen dataclass, got attributes that its equality "
            f"does not know ({', '.join(unknown)}); put @dataclass(frozen=True) above the class and "
            f"make fields of them, see {PAGES[kind]}"
        )


def _of_fields(part: Any) -> set[str]:
    """The attributes that the nearest dataclass above makes of its fields, as policies do.

    None where it cannot be made: it is abstract.
    """
    above = next(one for one in type(part).__mro__ if "__dataclass_params__" in vars(one))
    if inspect.isabstract(above):
        return set()
    fields = {f.name: getattr(part, f.name) for f in dataclasses.fields(above) if f.init}
    return set(vars(above(**fields)))


def can_run(device: torch.device | str) -> bool:
    """Whether a dry run would see plain tensors: no transform, compiler, mode or meta device."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._functorch.peek_interpreter_stack() is not None  # type: ignore[attr-defined]
        or torch._C._len_torch_dispatch_stack() > 0
        or "meta" in (torch.device(device).type, torch.get_default_device().type)
    )


def check_parts(
    simulator: Simulator, task: Task, dtype: torch.dtype, device: torch.device | str
) -> None:
    """Take two episodes through one step; once for equal parts.

    Bodies of a MuJoCo file are spared with gradlab's own tasks, where a step takes long.

    Raises `BadValue` for a method with another signature, one that raises (chained to what it
    raised) or one that returns something else than tensors; `BadShape` for tensors of another shape
    or dtype. Draws from generators of its own, and leaves torch's as they are.
    """
    if type(simulator).__module__.startswith(SLOW) and type(task).__module__.startswith(OURS):
        return
    key = simulator, task, dtype, torch.device(device)
    try:
        hash(key)
    except TypeError:  # parts that hold lists or dicts are checked once per problem
        _dry_run(*key)
        return
    _once(*key)


def _dry_run(simulator: Simulator, task: Task, dtype: torch.dtype, device: torch.device) -> None:
    cast = {"dtype": dtype, "device": device}
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.no_grad():
        run = _Run(dtype, device)
        drawn = run.call(task, "draw_initial", COUNT, torch.Generator().manual_seed(0))
        drawing = _Run(torch.float64, torch.device("cpu"))
        drawing.sized(task, "draw_initial", drawn, (COUNT, task.initial_dim))
        coordinates, memory = _first(run, task, drawn.to(**cast))
        before = run.call(simulator, "start", coordinates)
        run.sized(simulator, "start", before, (COUNT, simulator.state_dim))
        step = torch.zeros((), **cast)
        obs = run.call(task, "observe", before, memory, step)
        run.sized(task, "observe", obs, (COUNT, task.observation_dim))
        action = torch.zeros(COUNT, simulator.action_dim, **cast)
        process = torch.zeros(COUNT, simulator.noise_dim, **cast)
        after = run.call(simulator, "step", before, action, process)
        run.sized(simulator, "step", after, (COUNT, simulator.state_dim))
        _judge(run, task, Transition(before, action, after, memory, step))


_once = functools.lru_cache(maxsize=64)(_dry_run)  # what raises is not kept, and is run again


def _first(run: _Run, task: Task, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates and the first memory."""
    first: Any = run.call(task, "initial", noise)
    if not isinstance(first, tuple) or len(first) != 2:
        raise BadValue(
            f"{_where(task, 'initial')} should return (coordinates, memory), got {_short(first)}; "
            "try noise[..., :0] as the memory of a task that remembers nothing"
        )
    coordinates, memory = first
    sizes = tuple(coordinates.shape[1:]) if isinstance(coordinates, Tensor) else ()
    wanted = (COUNT, sizes[0] if len(sizes) == 1 else "nc")
    run.sized(task, "initial", coordinates, wanted, "as coordinates")
    run.sized(task, "initial", memory, (COUNT, task.memory_dim), "as memory")
    return coordinates, memory


def _judge(run: _Run, task: Task, made: Transition) -> None:
    """What the task says of a step."""
    run.sized(task, "advance", run.call(task, "advance", made), (COUNT, task.memory_dim))
    alone = made.alone()
    terms: Any = run.call(task, "terms", alone)
    if not isinstance(terms, dict):
        raise BadValue(
            f"{_where(task, 'terms')} should return a dict of tensors, got {_short(terms)}; "
            'try {"position": the term}'
        )
    for name, term in terms.items():
        run.sized(task, "terms", term, (COUNT, 1), f"as {name!r}")
    events, ends = len(task.events), sum(event.terminates for event in task.events)
    if events:  # nobody asks for the margins of no events
        margins = run.call(task, "margins", alone)
        what = f"(a column for each of {events} events)"
        run.sized(task, "margins", margins, (COUNT, 1, events), what)
    if ends and isinstance(task, KnowsItsEnd):
        ending = run.call(task, "ending_margins", made)
        run.sized(task, "ending_margins", ending, (COUNT, ends))


class _Run(NamedTuple):
    """Calls methods and looks at what they return."""

    dtype: torch.dtype
    device: torch.device

    def call(self, part: object, method: str, *given: Any) -> Any:
        """What the method makes of the arguments."""
        function: Callable[..., Any] = getattr(part, method)
        _check_signature(part, method, function, given)
        try:
            return function(*given)
        except GradlabError:
            raise  # says already what to try
        except Exception as error:
            text = " ".join(str(error).split())
            shapes = ", ".join(_short(each) for each in given)
            raise BadValue(
                f"{_where(part, method)} should run on {COUNT} episodes, "
                f"{shapes}; it raised {type(error).__name__}: {text[:200]}; "
                f"see {PAGES[_kind(part)]}, and the error above"
            ) from error

    def sized(
        self, part: object, method: str, value: Any, wanted: tuple[int | str, ...], what: str = ""
    ) -> None:
        """Raise unless the value is a tensor of this shape, dtype and device."""
        where, what = _where(part, method), f" {what}" if what else ""
        if not isinstance(value, Tensor):
            raise BadValue(
                f"{where} should return a tensor{what}, got {_short(value)}; see {PAGES[_kind(part)]}"
            )
        if tuple(value.shape) != wanted:
            raise BadShape(
                f"{where} should return {_list(wanted)}{what} for {COUNT} episodes"
                f"{_of_steps(method)}, got {_list(value.shape)}; {_hint(method, value, wanted)}"
            )
        place = self.dtype, self.device.type
        if (value.dtype, value.device.type) != place:
            raise BadShape(
                f"{where} should return {_dtype(self.dtype)} on {self.device.type}{what}, "
                f"got {_dtype(value.dtype)} on {value.device.type}; "
                + (
                    "try torch.randn(n, ..., generator=generator, dtype=torch.float64)"
                    if method == "draw_initial"
                    else "give new tensors the dtype and the device of the arguments, "
                    "such as torch.zeros_like or new_zeros"
                )
            )


def _check_signature(
    part: object, method: str, function: Callable[..., Any], given: tuple[Any, ...]
) -> None:
    if not callable(function):
        raise BadValue(
            f"{_where(part, method)} should be a method, got {got(function)}; "
            f"see {PAGES[_kind(part)]}"
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # code that is not Python's may have none
        return
    try:
        signature.bind(*given)
    except TypeError:
        names = {"one Transition": "transition"}.get(TAKES[method])
        takes = f"(self, {names or ', '.join(_arguments(method))})"
        raise BadValue(
            f"{_where(part, method)} should take {TAKES[method]} ({PAGES[_kind(part)]}), "
            f"got ({', '.join(signature.parameters)}); try def {method}{takes}"
        ) from None


def _arguments(method: str) -> Iterator[str]:
    inside = TAKES[method].rpartition("(")[2].rstrip(")")
    return (name.strip() for name in inside.split(","))


def _hint(method: str, value: Tensor, wanted: tuple[int | str, ...]) -> str:
    if method == "terms":
        return "one number per step: reduce the last dimension alone (.sum(-1)), no other"
    if method in ("margins", "ending_margins"):
        return "try torch.stack([one margin per event], dim=-1)"
    if method == "start":
        return "give it the coordinates that it asks for (does the task belong to this simulator?)"
    if method == "draw_initial":
        return "draw initial_dim numbers per episode"
    if value.ndim == len(wanted) and value.shape[0] == wanted[0]:
        return f"change what {method} returns, or the size that its class states"
    return "keep the leading dimensions, and index the last one, as in state[..., 0]"


def _of_steps(method: str) -> str:
    return " of 1 step" if method in ("terms", "margins") else ""


def _kind(part: object) -> str:
    return "task" if hasattr(part, "draw_initial") else "simulator"


def _where(part: object, method: str) -> str:
    return f"{type(part).__name__}.{method}"


def _short(value: Any) -> str:
    """What came: a shape for tensors."""
    if isinstance(value, Transition):
        return "a Transition"
    if isinstance(value, torch.Generator):
        return "a generator"
    if isinstance(value, Tensor):
        return f"a tensor {_list(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return got(value)


def _list(shape: Any) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
