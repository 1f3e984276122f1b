"""Tasks on worker processes: does what a schedule decides, and tells it what happens."""

from __future__ import annotations

import pickle
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from heterodyne._log import get_logger
from heterodyne.optimization.cmc.backends import _schedule
from heterodyne.optimization.cmc.backends._pickling import pickled
from heterodyne.optimization.cmc.backends._schedule import Limits, Outcome, Schedule
from heterodyne.optimization.cmc.backends._workers import Answer, Job, Message, Worker

_LOG = get_logger(__name__)
_REPORT = 30.0
UNGUARDED = (
    'A script that starts workers needs the line if __name__ == "__main__": before its first call'
)
"""What to do where processes end at once: each of them runs the script's top level again."""


@dataclass(frozen=True)
class Finished:
    """What became of a task.

    Attributes:
        value: What the worker returned; None where there is a problem.
        outcome: How it went.
        details: Traceback of a worker's exception, if there was one.
    """

    value: Any
    outcome: Outcome
    details: str = ""

    @property
    def problem(self) -> str | None:
        """Why there is no value; None where there is one."""
        return self.outcome.problem


def nothing_wrong(value: Any) -> str | None:
    """Accept every value."""
    return None


def dispatch(
    tasks: Sequence[Any],
    costs: Sequence[float],
    job: Job,
    *,
    n_workers: int,
    limits: Limits,
    what: str = "shard",
    shown: bool = True,
    wrong: Callable[[Any], str | None] = nothing_wrong,
) -> list[Finished]:
    """Have worker processes do tasks, and wait for all.

    No process is left behind, whatever happens.

    Args:
        tasks: What is pickled for the workers.
        costs: Expected cost of each, in any unit; the largest is done first.
        job: What workers do.
        n_workers: Largest number of processes.
        limits: How long things may take, and how much may fail.
        what: What a task is called in the log.
        shown: Whether progress is logged.
        wrong: Says what is wrong with a value, which then counts as failed.

    Returns:
        What became of each task, in their order.

    Raises:
        ConfigError: The job or a task cannot be pickled.
    """
    return _Dispatch(tasks, costs, job, n_workers, limits, what, shown, wrong).run()


class _Dispatch:
    def __init__(
        self,
        tasks: Sequence[Any],
        costs: Sequence[float],
        job: Job,
        n_workers: int,
        limits: Limits,
        what: str,
        shown: bool,
        wrong: Callable[[Any], str | None],
    ) -> None:
        self._tasks, self._job, self._pickled = tasks, job, job.pickled()
        self._schedule = Schedule(costs, n_workers, limits)
        self._what, self._shown, self._wrong = what, shown, wrong
        self._inbox: queue.Queue[tuple[Worker, Message]] = queue.Queue()
        self._workers: dict[int, Worker] = {}
        self._answers: dict[int, Answer] = {}
        self._begun = self._reported = time.monotonic()

    def run(self) -> list[Finished]:
        try:
            self._act(self._schedule.begin(time.monotonic()))
            while not self._schedule.finished:
                self._step()
        finally:
            for worker in self._workers.values():
                worker.close()
        outcomes = [self._schedule.outcomes[k] for k in range(len(self._tasks))]
        return [self._finished(k, outcome) for k, outcome in enumerate(outcomes)]

    def _finished(self, task: int, outcome: Outcome) -> Finished:
        answer = self._answers.get(task, Answer(None))
        return Finished(answer.value if outcome.problem is None else None, outcome, answer.details)

    def _step(self) -> None:
        """Wait for one message or limit, and act on it."""
        before = len(self._schedule.outcomes)
        wait = min(self._schedule.deadline() - time.monotonic(), _REPORT)
        try:
            worker, message = self._inbox.get(timeout=max(wait, 0.0))
        except queue.Empty:
            event: _schedule.Event | None = None
        else:
            event = self._event(worker, message)
        if event is not None:
            self._act(self._schedule.handle(event, time.monotonic()))
        if time.monotonic() >= self._schedule.deadline():
            self._act(self._schedule.handle(_schedule.Tick(), time.monotonic()))
        self._report(len(self._schedule.outcomes) > before)

    def _event(self, worker: Worker, message: Message) -> _schedule.Event | None:
        """Return what a message means; None for one of a worker that was replaced."""
        number = worker.number
        if self._workers.get(number) is not worker:
            return None
        if message.kind == "answer":
            return _schedule.Done(number, self._take(message.task, message.content))
        if message.kind in ("broken", "ended"):
            ready = self._schedule.is_ready(number)
            problem = worker.how_it_ended() if message.kind == "ended" else message.content.problem
            if message.kind == "ended" and not ready:
                problem = f"{problem} before it was ready. {UNGUARDED}"
            _LOG.warning("Worker %d: %s.", number, problem)
            self._close(number)
            return _schedule.Ended(number, problem)
        return _schedule.Ready(number) if message.kind == "ready" else _schedule.Beat(number)

    def _take(self, task: int, answer: Answer) -> str | None:
        """Keep an answer; return its problem."""
        if answer.problem is None:
            answer = Answer(pickle.loads(answer.value))
            answer = answer._replace(problem=self._wrong(answer.value))
        self._answers[task] = answer
        if answer.problem is not None:
            _LOG.warning("%s %d: %s.", self._what.capitalize(), task, answer.problem)
        return answer.problem

    def _act(self, actions: Sequence[_schedule.Action]) -> None:
        for action in actions:
            if isinstance(action, _schedule.Start):
                self._workers[action.worker] = Worker(
                    action.worker, self._job, self._pickled, lambda *said: self._inbox.put(said)
                )
            elif isinstance(action, _schedule.Send):
                task = pickled(self._tasks[action.job], f"{self._what} {action.job}", "task")
                self._workers[action.worker].give(action.job, task)
            else:
                self._close(action.worker)

    def _close(self, number: int) -> None:
        worker = self._workers.pop(number, None)
        if worker is not None:
            worker.close()

    def _report(self, news: bool) -> None:
        now = time.monotonic()
        if not self._shown or not (news or now - self._reported >= _REPORT):
            return
        self._reported = now
        outcomes = self._schedule.outcomes.values()
        failed = sum(one.problem is not None for one in outcomes)
        _LOG.info(
            "%d of %d %ss done, %d failed, %d running, %.0f s.",
            len(outcomes), len(self._tasks), self._what, failed, self._schedule.running,
            now - self._begun,
        )  # fmt: skip
