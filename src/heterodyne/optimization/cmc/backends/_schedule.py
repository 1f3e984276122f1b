"""What to start, what has taken too long, and when to give up: decisions without effects.

A ``Schedule`` is told what happened and when, and answers with what to do. It starts no process,
sends nothing and reads no clock.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class Limits:
    """How long things may take, and how much may fail.

    Attributes:
        job: Longest time for a job in s.
        silence: Longest time without a sign of life from a worker that has a job, in s.
        startup: Longest time until a new worker is ready, in s.
        retries: Further attempts at a job whose worker ended or fell silent, and further
            starts of a worker that did not become ready.
        least_share: Share of the jobs that must succeed; once that is out of reach, the rest
            is given up.
    """

    job: float = math.inf
    silence: float = math.inf
    startup: float = 120.0
    retries: int = 1
    least_share: float = 0.0


@dataclass(frozen=True)
class Ready:
    """A worker can take jobs."""

    worker: int


@dataclass(frozen=True)
class Beat:
    """A worker gave a sign of life."""

    worker: int


@dataclass(frozen=True)
class Done:
    """A worker finished its job; ``problem`` says what failed, if anything."""

    worker: int
    problem: str | None = None


@dataclass(frozen=True)
class Ended:
    """The process of a worker ended by itself, or could not be set up."""

    worker: int
    problem: str


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


Event = Ready | Beat | Done | Ended | Tick


@dataclass(frozen=True)
class Start:
    """Start the process of a worker."""

    worker: int


@dataclass(frozen=True)
class Send:
    """Give a worker a job."""

    worker: int
    job: int


@dataclass(frozen=True)
class Kill:
    """End the process of a worker; no event of it is to follow."""

    worker: int


Action = Start | Send | Kill


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        problem: Why there is no result; None where there is one.
        seconds: Time of the last attempt.
        attempts: Number of attempts.
    """

    problem: str | None
    seconds: float
    attempts: int


class _State(Enum):
    OFF = "off"
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"


@dataclass
class _Worker:
    state: _State = _State.OFF
    since: float = 0.0
    heard: float = 0.0
    job: int = -1
    failed_starts: int = 0


def longest_first(costs: Iterable[float]) -> list[int]:
    """Return the numbers of jobs by falling cost; equal costs keep their order."""
    costs = list(costs)
    return sorted(range(len(costs)), key=lambda k: -costs[k])


class Schedule:
    """Jobs on workers: longest first, with retries and limits.

    A job whose worker ends or falls silent is tried again. One that its worker reports as failed,
    or that takes too long, is not: it would again.

    Args:
        costs: Expected cost of each job, in any unit.
        n_workers: Number of workers, at least 1.
        limits: How long things may take, and how much may fail.
    """

    def __init__(self, costs: Sequence[float], n_workers: int, limits: Limits) -> None:
        self.outcomes: dict[int, Outcome] = {}
        self._limits = limits
        self._n_jobs = len(costs)
        self._pending = deque(longest_first(costs))
        self._attempts = [0] * len(costs)
        self._workers = {k: _Worker() for k in range(min(n_workers, len(costs)))}
        self._last_problem = ""
        self._hopeless = False

    @property
    def finished(self) -> bool:
        """Whether every job has an outcome."""
        return len(self.outcomes) == self._n_jobs

    @property
    def running(self) -> int:
        """Number of jobs that workers have."""
        return sum(w.state is _State.BUSY for w in self._workers.values())

    @property
    def gave_up(self) -> bool:
        """Whether jobs were given up because too many others failed."""
        return self._hopeless

    def is_ready(self, worker: int) -> bool:
        """Whether the process of a worker was set up."""
        return self._workers[worker].state in (_State.IDLE, _State.BUSY)

    def begin(self, now: float) -> list[Action]:
        """Start as many workers as there are jobs for.

        Args:
            now: Time in s on any clock that does not go back, the same for all calls.
        """
        return [self._start(k, now) for k in self._workers]

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take in an event.

        Events that a worker cannot cause in its state, such as one that was ended before, are
        ignored.

        Args:
            event: What happened.
            now: When.

        Returns:
            What to do, in this order.
        """
        if self.finished:
            return []
        if isinstance(event, Tick):
            actions = [action for k in self._workers for action in self._overdue(k, now)]
        else:
            actions = self._of_worker(event, now)
        return actions + self._give_up(now)

    def deadline(self) -> float:
        """Return when the next limit is reached, if nothing happens before; may be infinite."""
        limits, times = self._limits, [math.inf]
        for w in self._workers.values():
            if w.state is _State.STARTING:
                times.append(w.since + limits.startup)
            elif w.state is _State.BUSY:
                times.append(min(w.since + limits.job, w.heard + limits.silence))
        return min(times)

    def _of_worker(self, event: Ready | Beat | Done | Ended, now: float) -> list[Action]:
        w = self._workers[event.worker]
        if w.state is _State.OFF:
            return []
        w.heard = now
        if isinstance(event, Ended):
            return self._lost(event.worker, event.problem, now)
        if isinstance(event, Ready) and w.state is _State.STARTING:
            w.state, w.failed_starts = _State.IDLE, 0
            return self._next(event.worker, now)
        if isinstance(event, Done) and w.state is _State.BUSY:
            self._settle(w.job, event.problem, now - w.since)
            w.state = _State.IDLE
            return self._next(event.worker, now)
        return []

    def _overdue(self, worker: int, now: float) -> list[Action]:
        w, limits = self._workers[worker], self._limits
        if w.state is _State.STARTING and now >= w.since + limits.startup:
            problem = f"a worker was not ready after {limits.startup:g} s"
            return [Kill(worker), *self._lost(worker, problem, now)]
        if w.state is not _State.BUSY:
            return []
        if now >= w.since + limits.job:
            self._settle(w.job, f"it took longer than {limits.job:g} s", now - w.since)
            w.state = _State.OFF
            return [Kill(worker), *self._restart(worker, now)]
        if now >= w.heard + limits.silence:
            problem = f"its worker gave no sign of life for {limits.silence:g} s"
            return [Kill(worker), *self._lost(worker, problem, now)]
        return []

    def _lost(self, worker: int, problem: str, now: float) -> list[Action]:
        """Go on after the end of a process."""
        w, self._last_problem = self._workers[worker], problem
        if w.state is _State.BUSY:
            if self._attempts[w.job] <= self._limits.retries:
                self._pending.appendleft(w.job)
            else:
                self._settle(w.job, problem, now - w.since)
        elif w.state is _State.STARTING:
            w.failed_starts += 1
        w.state = _State.OFF
        return self._restart(worker, now)

    def _restart(self, worker: int, now: float) -> list[Action]:
        """Hand a lost job to an idle worker, or start a new process for what is pending."""
        idle = [k for k, w in self._workers.items() if w.state is _State.IDLE]
        if idle:
            return self._next(idle[0], now)
        if not self._pending or self._workers[worker].failed_starts > self._limits.retries:
            return []
        return [self._start(worker, now)]

    def _start(self, worker: int, now: float) -> Action:
        w = self._workers[worker]
        w.state, w.since, w.heard = _State.STARTING, now, now
        return Start(worker)

    def _next(self, worker: int, now: float) -> list[Action]:
        if not self._pending:
            return []
        w, job = self._workers[worker], self._pending.popleft()
        w.state, w.job, w.since, w.heard = _State.BUSY, job, now, now
        self._attempts[job] += 1
        return [Send(worker, job)]

    def _settle(self, job: int, problem: str | None, seconds: float) -> None:
        self.outcomes[job] = Outcome(problem, seconds, self._attempts[job])

    def _give_up(self, now: float) -> list[Action]:
        """Give everything up if no worker is left, or too many jobs failed."""
        if self.finished:
            return []
        failed = sum(one.problem is not None for one in self.outcomes.values())
        reachable = (self._n_jobs - failed) / self._n_jobs
        if all(w.state is _State.OFF for w in self._workers.values()):
            problem = f"no worker is left; the last problem: {self._last_problem}"
        elif reachable < self._limits.least_share:
            self._hopeless = True
            problem = f"given up, since {failed} of {self._n_jobs} others failed"
        else:
            return []
        actions: list[Action] = []
        for k, w in self._workers.items():
            if w.state is _State.BUSY:
                self._settle(w.job, problem, now - w.since)
            if w.state is not _State.OFF:
                actions.append(Kill(k))
                w.state = _State.OFF
        for job in range(self._n_jobs):
            if job not in self.outcomes:
                self._settle(job, problem, 0.0)
        self._pending.clear()
        return actions
