"""A progress bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tqdm import tqdm

_LOG_EVERY = 5.0  # [s]
_SILENT_AT_MOST = 30.0  # in a log, while nothing ends [s]


def note(message: str) -> None:
    """One line to stderr, above the bar if there is one."""
    tqdm.write(message, file=sys.stderr)


@dataclass
class Notes:
    """`note` now and then: messages that follow another within `every` seconds are left out."""

    every: float = _SILENT_AT_MOST
    _last: float = -math.inf

    def __call__(self, message: str) -> None:
        now = time.monotonic()
        if now - self._last >= self.every:
            self._last = now
            note(message)


@dataclass
class Progress:
    """Counts units (artefacts and cells) done; the time left is estimated from their costs."""

    name: str
    units: int
    total_cost: float
    units_done: int = 0
    cost_done: float = 0.0
    running: list[str] = field(default_factory=list)
    _begin: float = field(default_factory=time.monotonic)
    _cost_before: float = 0.0
    _last_line: float = -_LOG_EVERY

    def skip(self, units: int, cost: float) -> None:
        """Units that an earlier run has done, and their cost together."""
        self.units_done += units
        self.cost_done += cost
        self._cost_before += cost

    def started(self, unit: str) -> None:
        self.running.append(unit)

    def finished(self, unit: str, cost: float) -> None:
        self.running.remove(unit)
        self.units_done += 1
        self.cost_done += cost
        self._line(unit)

    def text(self) -> str:
        elapsed = time.monotonic() - self._begin
        gained = self.cost_done - self._cost_before
        left = "?"
        if gained > 0:
            left = tqdm.format_interval(elapsed / gained * (self.total_cost - self.cost_done))
        return f"{self.units_done}/{self.units} [{tqdm.format_interval(elapsed)}<{left}]"

    def _line(self, unit: str, every: float = _LOG_EVERY) -> None:
        now = time.monotonic()
        if sys.stderr.isatty() or (now - self._last_line < every and self.units_done < self.units):
            return
        self._last_line = now
        print(f"{self.name} {self.text()} {unit}", file=sys.stderr, flush=True)

    @contextmanager
    def shown(self) -> Iterator[Progress]:
        """Draws the bar twice a second while inside, so that time is seen to pass during a long
        cell; a log gets a line at least every half minute."""
        if self.units_done == self.units:
            yield self
            return
        if not sys.stderr.isatty():
            with _ticking(1.0, self._still_running):
                yield self
            return
        layout = "{desc} {percentage:3.0f}%|{bar}| {postfix}"
        bar = tqdm(total=max(self.total_cost, 1e-9), desc=self.name, bar_format=layout, leave=True)

        def draw() -> None:
            bar.n = min(self.cost_done, bar.total)
            bar.postfix = f"{self.text()} {', '.join(self.running[:3])}"
            bar.refresh()

        try:
            with _ticking(0.5, draw):
                yield self
        finally:
            draw()
            bar.close()

    def _still_running(self) -> None:
        self._last_line = max(self._last_line, self._begin)
        self._line(f"at work: {', '.join(self.running[:3])}", every=_SILENT_AT_MOST)


@contextmanager
def _ticking(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    """Calls `act` from a thread every few seconds while inside."""
    stop = threading.Event()
    ticker = threading.Thread(target=_every, args=(seconds, stop, act), daemon=True)
    ticker.start()
    try:
        yield
    finally:
        stop.set()
        ticker.join()


def _every(seconds: float, stop: threading.Event, act: Callable[[], None]) -> None:
    while not stop.wait(seconds):
        act()
