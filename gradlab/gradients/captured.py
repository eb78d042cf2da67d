"""The whole of a chunk as one graph of a GPU: `compile="graph"`.

Rollout, backward pass, layer factors and, in a measurement, the statistics are captured once for
each shape and replayed with other parameters and noise (`foundation/graphs.py`). Numbers are those
of `compile=True`, up to the rounding of other kernels.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Hashable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch

from gradlab.foundation.graphs import Graphs
from gradlab.foundation.modes import differentiating, ordinary
from gradlab.foundation.noise import Noise
from gradlab.gradients.engines import Context
from gradlab.gradients.samples import Dense, Factored, GradientSamples
from gradlab.gradients.sampling import Sampler
from gradlab.policies.factors import Factors
from gradlab.problems.problem import Problem
from gradlab.statistics.moments import BLOCKS
from gradlab.statistics.rows import Chunk

Params = dict[str, torch.Tensor]

GRAPHS = Graphs()  # of this process
PLAIN = (bool, int, float, complex, str, type(None))
_OTHERS: set[Hashable] = set()  # estimators whose samples are of another form than `Parts`


def release_graphs() -> None:
    """Give up all captured graphs (`compile="graph"`) and the GPU memory that they hold.

    At most 16 are kept; those that are needed again are captured anew, in a few seconds each.
    """
    GRAPHS.release()


def uncaptured(problem: Problem) -> Problem:
    """The problem as it runs where nothing is captured: itself, or with compiled steps.

    Raises `Unavailable` where it asks for graphs and its device has none.
    """
    if problem.compile != "graph":
        return problem
    GRAPHS.backend.check(torch.device(problem.device))
    return problem.replace(compile=GRAPHS.backend.compiles)


class Parts(NamedTuple):
    """The tensors of samples; either of policy calls or of whole gradients."""

    calls: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None  # obs, cotangent, steps
    known: Factors | None
    leaves: Params | None


@runtime_checkable
class Sampling(Sampler, Protocol):
    """A sampler that gives the samples of a chunk without checking what it is called with."""

    def sample(
        self, problem: Problem, params: Params, noise: Noise, context: Context
    ) -> GradientSamples:
        """The samples; not known to be dependent within groups."""
        ...


def sampled(who: Sampling, problem: Problem, params: Params, noise: Noise) -> GradientSamples:
    """Samples of one chunk: by a replay where the problem asks for that.

    What is not finite and what is neither of policy calls nor whole gradients (weights of layers
    or parameters) runs as `compile=True`. Raises `Unavailable` for what cannot be captured.
    """
    me, plain = _known(who), uncaptured(problem)
    if plain is problem or me in _OTHERS:
        return who.sample(plain, params, noise, Context())

    def work(inputs: Any, compiled: bool) -> Parts:
        still = _still(problem, inputs, compiled)
        return _parts(who.sample(still, inputs[0], inputs[1], Context()))

    parts = GRAPHS.run(("samples", me, _known(problem)), work, _inputs(problem, params, noise))
    if parts is not None and parts.leaves is not None:
        return Dense(parts.leaves)
    if parts is not None and parts.calls is not None:
        buffers = problem.bind(params).buffers
        obs, cotangent, steps = parts.calls
        known = parts.known
        return Factored(problem.policy, params, obs, cotangent, steps, known, buffers=buffers)
    if parts is not None:
        _OTHERS.add(me)
    return who.sample(plain, params, noise, Context())


def summed(
    who: Sampler,
    problem: Problem,
    params: Params,
    noise: Noise,
    start: int,
    pilot: Params | None,
) -> Chunk | None:
    """`who(problem, params, noise).summed(start, pilot)` by a replay; None where samples are not
    finite and must be looked for.

    `start` must be whole groups. One graph serves all chunks: it sums as if they began in block 0.
    """

    def work(inputs: Any, compiled: bool) -> Chunk:
        still = _still(problem, inputs, compiled)
        with differentiating():
            if isinstance(who, Sampling):
                found = who.sample(still, inputs[0], inputs[1], Context()).grouped(who.group)
            else:
                found = who(still, inputs[0], inputs[1])
            return found.prepared().summed(0, inputs[3])

    key = "sums", _known(who), _known(problem)
    chunk = GRAPHS.run(key, work, (*_inputs(problem, params, noise), pilot))
    if chunk is None:
        return None
    if pilot is not None and all(c.dtype == pilot[n].dtype for n, c in chunk.pilot.items()):
        chunk = chunk._replace(pilot=pilot)
    first = start // who.group % BLOCKS
    if not first:
        return chunk
    turned = {name: rows.roll(first, 0) for name, rows in chunk.deviation.items()}
    return chunk._replace(first=first, deviation=turned)


def _inputs(problem: Problem, params: Params, noise: Noise) -> tuple[Any, ...]:
    return ordinary(params), ordinary(noise), problem.bind(params).buffers


def _still(problem: Problem, inputs: Any, compiled: bool) -> Problem:
    """The problem with the static buffers, to be run by itself."""
    return problem.replace(compile=compiled, buffers=inputs[2])


def _parts(samples: GradientSamples) -> Parts:
    if isinstance(samples, Factored):
        return Parts((samples.obs, samples.cotangent, samples.steps), samples.known, None)
    return Parts(None, None, samples.leaves if isinstance(samples, Dense) else None)


class _Same(NamedTuple):
    """Something by its identity; it is kept, so that no other gets its place."""

    place: int
    thing: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.thing is other.thing

    def __hash__(self) -> int:
        return hash(self.place)


def _known(thing: Any) -> Hashable:
    """What tells it from others: its class, and what it is made of.

    A frozen dataclass is its fields, by the same rule. Whatever is none is itself alone (a class
    without the decorator inherits an equality which knows nothing of its own attributes), with its
    numbers and words of now, its class's too: those of a user may be changed between calls.
    """
    kind = type(thing)
    if isinstance(thing, PLAIN):
        return kind, thing
    if isinstance(thing, tuple):
        return kind, *(_known(part) for part in thing)
    settings = vars(kind).get("__dataclass_params__")
    if settings is not None and settings.frozen and settings.eq:
        names = [part.name for part in dataclasses.fields(thing) if part.compare]
        return kind, *(_known(getattr(thing, name)) for name in names)
    by_itself = kind.__hash__ in (None, object.__hash__, torch.Tensor.__hash__)
    if by_itself or dataclasses.is_dataclass(kind):
        held = {
            name: value for part in reversed(kind.__mro__) for name, value in vars(part).items()
        }
        held |= getattr(thing, "__dict__", {})
        ordered = sorted(held.items(), key=operator.itemgetter(0))
        plain = tuple(item for item in ordered if isinstance(item[1], PLAIN))
        return kind, _Same(id(thing), thing), plain
    return kind, thing
