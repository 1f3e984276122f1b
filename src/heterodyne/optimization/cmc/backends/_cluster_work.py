"""Which tasks are given to the workers of a cluster, and when to give up."""

from __future__ import annotations

import queue
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

from heterodyne._events import EventSink, Message
from heterodyne.io._work_state import Status, Task
from heterodyne.io.cluster_jobs import ClusterError
from heterodyne.io.work_folder import WorkFolder
from heterodyne.optimization.cmc.backends._local_work import what_is_left
from heterodyne.optimization.cmc.backends._schedule import longest_first

_TICK_S, _LOOK_S = 1.0, 5.0
_FRUITLESS = 3


class Pilot(Protocol):
    """Has tasks done by workers."""

    def submit(self, rank: int, name: str) -> Future[str | None]:
        """Have a task done; of those that wait, the one of the lowest rank comes first."""
        ...

    def is_lost(self, error: BaseException | None) -> bool:
        """Whether there is no answer because the worker or its job is gone."""
        ...

    def settled(self) -> None:
        """Note that a task was settled."""
        ...

    def check(self) -> None:
        """Check that tasks may still be done.

        Raises:
            ClusterError: They cannot.
        """
        ...


class ClusterWork:
    """Tasks of a work folder, and which of them workers have.

    Args:
        work: The work folder.
        tasks: The tasks.
        pilot: Has them done.
        beat: Called now and then as a sign of life.
    """

    def __init__(
        self,
        work: WorkFolder,
        tasks: Sequence[Task],
        pilot: Pilot,
        beat: Callable[[], object],
    ) -> None:
        self._work, self._pilot, self._beat = work, pilot, beat
        order = longest_first(task.cost for task in tasks)
        self._rank = {tasks[k].name: rank for rank, k in enumerate(order)}
        self._in_flight: set[str] = set()
        self._fruitless: Counter[str] = Counter()
        self._reasons: dict[str, str] = {}
        self._inbox: queue.Queue[tuple[str, Future[str | None]]] = queue.Queue()

    def run(self, on_event: EventSink) -> None:
        """Do what is free as long as something may come of it, and say what is left.

        Raises:
            ClusterError: No task can be done.
        """
        before = len(self._left())
        while not self._work.cancelled and self._submit_free():
            self._beat()
            self._follow(time.monotonic() + _LOOK_S)
        left = self._left()
        if not left:
            return
        if len(left) == before and self._reasons and not self._work.cancelled:
            name, reason = next(iter(self._reasons.items()))
            raise ClusterError(f"no task can be done; {name}: {reason}", where=self._work.path)
        on_event(Message(what_is_left(self._work, left, self._reasons), "warning"))

    def _left(self) -> list[str]:
        return [task.name for task in self._work.unsettled() if task.name in self._rank]

    def _submit_free(self) -> bool:
        """Submit the tasks that nobody does; return whether any may still be settled."""
        ours = [one for one in self._work.state().tasks if one.task.name in self._rank]
        left = [one for one in ours if one.record is None]
        held = {one.task.name for one in left if one.status is Status.RUNNING}
        names = {one.task.name for one in left} - held - self._in_flight
        free = [name for name in names if self._fruitless[name] < _FRUITLESS]
        for name in sorted(free, key=self._rank.__getitem__):
            self._submit(name)
        # Tasks in flight that another process has settled need not be waited for.
        self._in_flight &= {one.task.name for one in left}
        return bool(self._in_flight or held)

    def _submit(self, name: str) -> None:
        self._in_flight.add(name)
        future = self._pilot.submit(self._rank[name], name)
        future.add_done_callback(lambda done: self._inbox.put((name, done)))

    def _follow(self, end: float) -> None:
        """Take in what comes back until some time, or until nothing is in flight."""
        while time.monotonic() < end and not self._work.cancelled:
            self._pilot.check()
            try:
                name, future = self._inbox.get(timeout=_TICK_S)
            except queue.Empty:
                continue
            # What is not settled is tried again after the pause only.
            if self._take(name, future) and not self._in_flight:
                return

    def _take(self, name: str, future: Future[str | None]) -> bool:
        """Take a task back; return whether it is settled."""
        self._in_flight.discard(name)
        if self._work.record(name) is not None:
            self._reasons.pop(name, None)
            self._pilot.settled()
            return True
        error = future.exception()
        self._reasons[name] = f"{type(error).__name__}: {error}" if error else f"{future.result()}"
        if not self._pilot.is_lost(error) and not self._is_held(name):
            self._fruitless[name] += 1
        return False

    def _is_held(self, name: str) -> bool:
        claims = self._work.claims
        return claims.look(name).alive(claims.now(), self._work.rules.silence)
