"""Functions of tensors that are captured once and replayed: on a GPU a launch instead of hundreds.

A graph reads and writes fixed memory. So what goes in is copied into static tensors, and what comes
out is copied from them before the next replay can overwrite it. A function may read nothing of the
device but through `reading`, draw nothing and depend on nothing but its arguments and constants.
"""

from __future__ import annotations

import gc
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from gradlab.foundation.errors import Unavailable
from gradlab.foundation.reading import Reads

MOST = 16  # graphs kept; the one that was not replayed for longest goes first
TRIES = 3  # of one key: captures whose answers did not last, or runs that were not as usual

# (static inputs, whether its steps may be compiled) -> a tree of tensors
Work = Callable[[Any, bool], Any]


@runtime_checkable
class Captured(Protocol):
    """A captured graph."""

    def replay(self) -> None:
        """Run it again on what its static inputs hold now."""
        ...

    def release(self) -> None:
        """Give its memory back."""
        ...


@runtime_checkable
class Backend(Protocol):
    """What captures."""

    compiles: bool  # whether what is captured may have compiled steps

    def check(self, device: torch.device) -> None:
        """Raise `Unavailable` where nothing can be captured on the device."""
        ...

    def warm(self, work: Callable[[], Any]) -> Any:
        """Run the function before it is captured."""
        ...

    def capture(self, work: Callable[[], Any]) -> tuple[Any, Captured]:
        """Capture one run: its outputs, whose memory every replay writes to, and the graph."""
        ...


@dataclass
class _Pool:
    """Memory of graphs, and how many of them there are."""

    handle: Any
    graphs: int = 0


class Cuda:
    """`torch.cuda.graph`, after runs on the stream that it captures on; one pool of memory for all.

    Graphs may share memory in whatever order they are replayed, since nobody keeps what is in it:
    outputs are copied right after their replay, on the same stream. Torch takes no pool again whose
    graphs are all gone, nor one in which a capture has failed: then there is another.
    """

    compiles = True

    def __init__(self) -> None:
        self._stream: Any = None
        self._pool: _Pool | None = None

    def check(self, device: torch.device) -> None:
        if device.type != "cuda":
            raise Unavailable(
                f'compile="graph" captures graphs of a CUDA device, got device={str(device)!r}; '
                "use compile=True"
            )
        if device.index not in (None, torch.cuda.current_device()):
            raise Unavailable(
                f"graphs are captured on the current GPU, got device={str(device)!r}; "
                f"try torch.cuda.set_device({device.index})"
            )

    def warm(self, work: Callable[[], Any]) -> Any:
        if self._stream is None:
            self._stream = torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = work()
        torch.cuda.current_stream().wait_stream(self._stream)
        return result

    def capture(self, work: Callable[[], Any]) -> tuple[Any, Captured]:
        if self._pool is None or not self._pool.graphs:
            self._pool = _Pool(torch.cuda.graph_pool_handle())
        graph, pool, before = torch.cuda.CUDAGraph(), self._pool, torch.cuda.current_stream()
        reason: list[RuntimeError] = []  # of the work itself: torch says another at the end
        gc.collect()  # a graph that is destroyed during a capture breaks it
        try:
            with torch.cuda.graph(graph, pool=pool.handle, stream=self._stream):
                try:
                    output = work()
                except RuntimeError as error:
                    reason.append(error)
                    raise
        except BaseException as error:
            self._pool = None
            torch.cuda.set_stream(before)  # of a capture that is broken torch leaves its own
            if not isinstance(error, RuntimeError):
                raise
            words = str((*reason, error)[0]).partition("\n")[0]
            raise Unavailable(
                f"it cannot be captured as a graph ({words}); use compile=True"
            ) from error
        pool.graphs += 1
        return output, _CudaGraph(graph, pool)


@dataclass(frozen=True)
class _CudaGraph:
    graph: Any  # torch.cuda.CUDAGraph
    pool: _Pool

    def replay(self) -> None:
        self.graph.replay()

    def release(self) -> None:
        self.graph.reset()
        self.pool.graphs -= 1


@dataclass(frozen=True)
class _Graph:
    inputs: list[Tensor]  # read by a replay
    output: Any  # written by it
    right: Tensor  # [2], too: `Reads.right`
    replay: Captured
    held: list[Tensor]  # what else it reads


class Graphs:
    """Captured functions by key, at most `most` of them."""

    def __init__(self, backend: Backend | None = None, most: int = MOST) -> None:
        self.backend = Cuda() if backend is None else backend
        self.most = most
        self._kept: OrderedDict[Hashable, _Graph] = OrderedDict()
        self._dropped: Counter[Hashable] = Counter()
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._kept)

    def release(self) -> None:
        """Give up all graphs and their memory."""
        with self._lock:
            for graph in self._kept.values():
                graph.replay.release()
            self._kept.clear()
            self._dropped.clear()

    def run(self, key: Hashable, work: Work, inputs: Any) -> Any | None:
        """`work(inputs, ...)` by a replay, as tensors of their own.

        None where the captured run does not hold for these inputs, as where numbers are not finite
        and rows must be looked for: the caller then runs it as it is. `key` says all that the
        function depends on beside the numbers of its inputs. Raises `Unavailable` for a device or
        a function that cannot be captured.
        """
        parts, names = tree_flatten(inputs)  # the same shapes under other names are another graph
        given = [part for part in parts if isinstance(part, Tensor)]
        self.backend.check(given[0].device)
        key = (key, names, tuple((x.shape, x.dtype, x.device) for x in given), _modes())
        with self._lock:
            if self._dropped[key] >= TRIES:
                return None
            graph = self._kept.get(key) or self._captured(key, work, inputs)
            if graph is None:
                return None
            self._kept.move_to_end(key)
            for static, now in zip(graph.inputs, given, strict=True):
                static.copy_(now.detach())
            graph.replay.replay()
            kept, usual = graph.right.tolist()
            if not kept:
                self._dropped[key] += 1
                self._kept.pop(key).replay.release()
            return tree_map(_copied, graph.output) if kept and usual else None

    def _captured(self, key: Hashable, work: Work, inputs: Any) -> _Graph | None:
        while len(self._kept) >= self.most:
            self._kept.popitem(last=False)[1].replay.release()
        static, backend = tree_map(_copied, inputs), self.backend
        reads, outside = Reads(), Outside()

        def read() -> None:
            with reads.watching(again=False), outside:
                work(static, False)

        for _ in range(2):  # what is done once in a process: checks, compilation, handles
            backend.warm(lambda: work(static, backend.compiles))
        backend.warm(read)
        if reads.unusual:
            self._dropped[key] += 1
            return None
        with reads.watching(again=True):
            leaf = next(x for x in tree_leaves(static) if isinstance(x, Tensor))
            (output, right), replay = backend.capture(
                lambda: (work(static, backend.compiles), reads.right(leaf))
            )
        tensors = [part for part in tree_leaves(static) if isinstance(part, Tensor)]
        held = [*outside.held.values(), *reads.asked]
        graph = _Graph(tensors, output, right, replay, held)
        self._kept[key] = graph
        return graph


class Outside(TorchDispatchMode):
    """The tensors that a run takes from outside of it.

    A graph reads their memory at every replay, so that they must live as long: tables that are kept
    for all, for instance, are forgotten where there are too many.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, Tensor] = {}  # by the place of their memory
        self._made: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for part in tree_leaves((args, kwargs)):
            if isinstance(part, Tensor) and (place := _place(part)) not in self._made:
                self.held.setdefault(place, part)
        out = func(*args, **kwargs)
        for part in tree_leaves(out):
            if isinstance(part, Tensor) and (place := _place(part)) not in self.held:
                self._made.add(place)
        return out


def _place(part: Tensor) -> int:
    return part.untyped_storage().data_ptr()


def _copied(part: Any) -> Any:
    return part.detach().clone() if isinstance(part, Tensor) else part


def _modes() -> tuple[Hashable, ...]:
    """What else decides on the numbers of an operation."""
    return (
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
    )
