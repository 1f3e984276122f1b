"""How far shared work is, from what its folder holds: decisions without effects."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from heterodyne.io._claims import Seen

R_HAT, DIVERGENCES = "r_hat", "divergences"
"""Figures of a record that are shown for all tasks."""


@dataclass(frozen=True)
class Task:
    """A piece of work.

    Attributes:
        name: Its name, which is also that of its files.
        cost: Expected cost in any unit, the same for all tasks.
        details: What belongs to it; plain data.
    """

    name: str
    cost: float = 1.0
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """What came out of a task; its existence settles the task.

    Attributes:
        problem: Why there is no result; None where there is one.
        seconds: Time of the last attempt.
        attempts: Number of attempts.
        host: Name of the machine.
        figures: What is worth showing, such as ``r_hat``, ``ess`` and ``divergences``.
    """

    problem: str | None
    seconds: float
    attempts: int
    host: str
    figures: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Record:
        """Make a record from what its file holds.

        Raises:
            KeyError, TypeError, ValueError: It is damaged.
        """
        problem = content["problem"]
        return cls(
            None if problem is None else str(problem),
            float(content["seconds"]),
            int(content["attempts"]),
            str(content["host"]),
            dict(content["figures"]),
        )


class Status(Enum):
    """Where a task is."""

    WAITING = "waiting"
    RUNNING = "running"
    SILENT = "silent"
    """Its worker died or gives no sign of life; the task is free for another."""
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class TaskState:
    """A task at some moment.

    Attributes:
        task: The task.
        status: Where it is.
        seen: Its claims.
        record: What came out; None if it is not settled.
        elapsed: Time since the claim in s; nan if nobody works on it.
        quiet: Time since the last sign of life in s; nan if nobody works on it.
    """

    task: Task
    status: Status
    seen: Seen
    record: Record | None = None
    elapsed: float = math.nan
    quiet: float = math.nan


@dataclass(frozen=True)
class WorkState:
    """All tasks at some moment.

    Attributes:
        tasks: The tasks in their order.
    """

    tasks: tuple[TaskState, ...]

    def of(self, *statuses: Status) -> list[TaskState]:
        """Tasks that are in one of some states."""
        return [one for one in self.tasks if one.status in statuses]

    @property
    def settled(self) -> bool:
        """Whether every task has a record."""
        return all(one.record is not None for one in self.tasks)

    @property
    def worst_r_hat(self) -> float:
        """Largest R-hat of the tasks that are done; nan if none tells."""
        return max(self._figures(R_HAT), default=math.nan)

    @property
    def divergences(self) -> int | None:
        """Number of divergences of the tasks that are done; None if none tells."""
        found = self._figures(DIVERGENCES)
        return round(sum(found)) if found else None

    @property
    def seconds_per_cost(self) -> float:
        """Time that a unit of cost took so far in s; nan before anything is done."""
        done = [(one.record.seconds, one.task.cost) for one in self.tasks
                if one.record is not None and one.record.problem is None]  # fmt: skip
        cost = sum(cost for _, cost in done)
        return sum(seconds for seconds, _ in done) / cost if cost > 0 else math.nan

    @property
    def share(self) -> float:
        """Share of the work that is done by cost; running tasks count by their time."""
        whole = sum(one.task.cost for one in self.tasks)
        if whole <= 0:
            return 1.0 if self.settled else 0.0
        rate = self.seconds_per_cost
        left = sum(_left(one, rate) for one in self.tasks)
        return 1.0 - left / whole

    @property
    def seconds_left(self) -> float:
        """Time to the end in s with the workers of this moment; nan where it cannot be told.

        The tasks that wait are given to the workers by falling cost.
        """
        rate = self.seconds_per_cost
        ends = [rate * _left(one, rate) for one in self.of(Status.RUNNING)]
        if self.settled or math.isnan(rate) or not ends:
            return 0.0 if self.settled else math.nan
        heapq.heapify(ends)
        waiting = (one.task.cost for one in self.of(Status.WAITING, Status.SILENT))
        for cost in sorted(waiting, reverse=True):
            heapq.heapreplace(ends, ends[0] + rate * cost)
        return max(ends)

    def _figures(self, name: str) -> list[float]:
        found = [one.record.figures.get(name) for one in self.tasks if one.record is not None]
        return [float(x) for x in found if isinstance(x, int | float) and math.isfinite(x)]


def state_of(
    tasks: Iterable[Task],
    records: Mapping[str, Record],
    seen: Mapping[str, Seen],
    now: float,
    silence: float,
) -> WorkState:
    """Say how far the work is.

    Args:
        tasks: The tasks.
        records: What came out, by name.
        seen: Claims by name.
        now: Time by the clock of the file system in s.
        silence: Longest time without a sign of life in s.
    """
    return WorkState(
        tuple(
            _state(task, records.get(task.name), seen.get(task.name, Seen(task.name)), now, silence)
            for task in tasks
        )
    )


def _state(task: Task, record: Record | None, seen: Seen, now: float, silence: float) -> TaskState:
    if record is not None:
        status = Status.DONE if record.problem is None else Status.FAILED
        return TaskState(task, status, seen, record)
    if not seen.held:
        return TaskState(task, Status.WAITING, seen)
    since = seen.beat if seen.owner is None else seen.owner.since
    status = Status.RUNNING if seen.alive(now, silence) else Status.SILENT
    return TaskState(task, status, seen, None, max(0.0, now - since), max(0.0, now - seen.beat))


def _left(one: TaskState, rate: float) -> float:
    """Cost that is left of a task, at some seconds for a unit of cost."""
    if one.record is not None:
        return 0.0
    if one.status is not Status.RUNNING or not rate > 0:
        return one.task.cost
    return max(0.0, one.task.cost - one.elapsed / rate)
