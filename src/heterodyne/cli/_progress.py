"""Progress of long work on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from heterodyne._events import Event, EventSink, Message, Progress
from heterodyne.cli._output import duration

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

PATIENCE_S = 2.0
"""Work shorter than this shows nothing."""

INTERVAL_S = 10.0
"""Least time between two lines where stderr is no terminal."""


@contextmanager
def progress(quiet: bool = False) -> Iterator[EventSink]:
    """Show the events of some work on stderr while the block runs.

    Args:
        quiet: Show warnings and errors only.

    Yields:
        The sink to hand to the work.
    """
    if quiet:
        yield _quiet
        return
    shown = _OnTerminal() if sys.stderr.isatty() else Lines(sys.stderr)
    try:
        yield shown
    finally:
        shown.close()


def _quiet(event: Event) -> None:
    if isinstance(event, Message) and event.severity != "info":
        sys.stderr.write(f"{_spoken(event)}\n")


def _spoken(message: Message) -> str:
    return message.text if message.severity == "info" else f"{message.severity}: {message.text}"


def _figures(event: Progress) -> str:
    return ", ".join(f"{name} {value}" for name, value in event.detail.items())


class Lines:
    """Plain lines, at most one in ``INTERVAL_S``.

    Args:
        stream: Where to write.
        clock: Time in s.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._started: dict[str, float] = {}
        self._next = clock() + PATIENCE_S

    def __call__(self, event: Event) -> None:
        if isinstance(event, Message):
            self._write(_spoken(event))
            return
        now = self._clock()
        start = self._started.setdefault(event.stage, now)
        if now < self._next:
            return
        self._next = now + INTERVAL_S
        self._write(_line(event, now - start))

    def close(self) -> None:
        """Nothing is left open."""

    def _write(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()


def _line(event: Progress, elapsed: float) -> str:
    share = event.done / event.total if event.total > 0 else 0.0
    known = 0 < share < 1 and elapsed > 0
    left = f", about {duration(elapsed * (1 / share - 1))} left" if known else ""
    figures = _figures(event)
    return f"{event.stage}: {share:.0%}{left}{'; ' + figures if figures else ''}"


class _OnTerminal:
    """Bars that appear once the work has lasted ``PATIENCE_S``, even between two events."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._latest: dict[str, Progress] = {}
        self._closed = False
        self._timer = threading.Timer(PATIENCE_S, self._appear)
        self._timer.daemon = True
        self._timer.start()

    def __call__(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, Progress):
                self._latest[event.stage] = event
                self._draw(event)
            elif self._bars is not None:
                self._bars.console.print(_spoken(event), markup=False, highlight=False)
            else:
                sys.stderr.write(f"{_spoken(event)}\n")

    def close(self) -> None:
        """Leave the bars as they are and give the terminal back."""
        self._timer.cancel()
        with self._lock:
            self._closed = True
            if self._bars is not None:
                self._bars.stop()

    def _appear(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._bars = _make_bars()
            self._bars.start()
            for event in self._latest.values():
                self._draw(event)

    def _draw(self, event: Progress) -> None:
        if self._bars is None:
            return
        if event.stage not in self._tasks:
            self._tasks[event.stage] = self._bars.add_task(event.stage, figures="")
        figures: dict[str, Any] = {"figures": _figures(event)}
        task = self._tasks[event.stage]
        self._bars.update(task, completed=event.done, total=event.total, **figures)


def _make_bars() -> Bars:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        console=Console(stderr=True),
    )
