"""Tasks of a work folder on processes of this machine, which others may share in."""

from __future__ import annotations

import math
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from heterodyne._cores import usable_cores
from heterodyne._errors import InterruptedRunError, SamplingError
from heterodyne._events import EventSink, Message, Progress, ignore_events
from heterodyne._log import get_logger
from heterodyne.io._claims import host
from heterodyne.io._work_state import Status, WorkState
from heterodyne.io.work_folder import Record, Task, WorkFolder
from heterodyne.optimization.cmc.backends._dispatch import dispatch
from heterodyne.optimization.cmc.backends._schedule import Limits, Outcome
from heterodyne.optimization.cmc.backends._workers import Job

_LOG = get_logger(__name__)

Perform = Callable[[str, str], str | None]

# Begins the names of the processes of _workers.
WORKER = "heterodyne worker"
_LOOK_S = 2.0
# Blocks of draws end before a signal acts; Slurm kills half a minute after it.
_PATIENCE_S = 20.0
# A task that takes too long is first stopped by its own process, which writes the record.
_GRACE_S = 30.0
_FRUITLESS_ROUNDS = 2


@dataclass(frozen=True)
class LocalWork:
    """How this machine works tasks off.

    Attributes:
        workers: Largest number of processes; None for one on each usable processor.
        startup: Longest time until a new process is ready in s.
    """

    workers: int | None = None
    startup: float = Limits().startup

    def count(self, n_tasks: int) -> int:
        """Number of processes for some tasks."""
        return max(1, min(n_tasks, usable_cores() if self.workers is None else self.workers))


def run_tasks(
    perform: Perform,
    folder: Path,
    tasks: Sequence[Task],
    settings: LocalWork,
    on_event: EventSink = ignore_events,
) -> None:
    """Do tasks of the work folder of a run in spawned processes, the largest first.

    Tasks that workers elsewhere hold are waited for, and taken over if these workers die. It
    returns once every task is settled, the work is cancelled, or repeated attempts settle nothing
    more; what is left is said then.

    Args:
        perform: Does a task, given the folder and the name; a function of a module.
        folder: Folder of the run.
        tasks: The tasks.
        settings: How many processes.
        on_event: Receives progress and messages, also from another thread.

    Raises:
        KeyboardInterrupt: This process was stopped; so are its workers, and all tasks are free.
        SamplingError: No process could be started.
    """
    work = WorkFolder.open(folder)
    names = {task.name for task in tasks}
    with Watch(work, names, on_event), _workers_stopped_first():
        reasons = _rounds(partial(_round, perform, folder, work, settings), work, names)
    work.tidy()
    left = [task.name for task in work.unsettled() if task.name in names]
    if left:
        on_event(Message(what_is_left(work, left, reasons), "warning"))


def _rounds(
    do: Callable[[Sequence[Task]], dict[str, str]], work: WorkFolder, names: set[str]
) -> dict[str, str]:
    """Do what is free as long as something comes of it; return why tasks have no result."""
    fruitless, reasons = 0, dict[str, str]()
    while fruitless < _FRUITLESS_ROUNDS and not work.cancelled:
        state = work.state()
        left = [one for one in state.tasks if one.record is None and one.task.name in names]
        free = [one.task for one in left if one.status is not Status.RUNNING]
        if not left:
            break
        if not free:
            time.sleep(min(_LOOK_S, work.rules.beat))
            continue
        if fruitless:
            time.sleep(work.rules.beat)
        reasons |= do(free)
        now = [task for task in work.unsettled() if task.name in names]
        fruitless = fruitless + 1 if len(now) == len(left) else 0
    return reasons


def _round(
    perform: Perform, folder: Path, work: WorkFolder, settings: LocalWork, tasks: Sequence[Task]
) -> dict[str, str]:
    """Give each task to a worker once; return why tasks have no result."""
    n_workers, rules = settings.count(len(tasks)), work.rules
    longest = rules.task + _GRACE_S
    finished = dispatch(
        [task.name for task in tasks],
        [task.cost for task in tasks],
        Job(
            work=_work,
            arguments={"perform": perform, "folder": str(folder)},
            threads=max(1, usable_cores() // n_workers),
            beat=rules.beat,
        ),
        n_workers=n_workers,
        limits=Limits(
            job=longest,
            silence=rules.silence,
            startup=settings.startup,
            # The folder counts attempts, also those of others.
            retries=rules.attempts,
        ),
        what=work.kind,
        shown=False,
    )
    reasons = {}
    for task, one in zip(tasks, finished, strict=True):
        reason = one.value if one.problem is None else one.problem
        if reason is not None:
            reasons[task.name] = reason
        if one.outcome.attempts == 0:
            raise SamplingError(
                f"{task.name} was not begun: {one.problem}",
                where=folder,
                remedy="The same command goes on with what is there",
            )
        if one.outcome.seconds >= longest:
            _settle(work, task.name, one.outcome)
    return reasons


def _work(name: str, *, perform: Perform, folder: str) -> str | None:
    """Do a task in a worker, which ends if it is stopped."""
    try:
        return perform(folder, name)
    except (KeyboardInterrupt, InterruptedRunError) as error:
        raise SystemExit(InterruptedRunError.exit_code) from error


def _settle(work: WorkFolder, name: str, outcome: Outcome) -> None:
    """Write the record of a task that its worker could not end in time, if it is free."""
    claim = work.claim(name)
    if claim is not None:
        work.settle(claim, Record(outcome.problem, outcome.seconds, claim.attempt - 1, host()))
        work.log(name, "settled", problem=outcome.problem)


def what_is_left(work: WorkFolder, left: Sequence[str], reasons: dict[str, str]) -> str:
    """Say which tasks have no result, and why.

    Args:
        work: The folder of work.
        left: Names of these tasks.
        reasons: What is known of why, by name.
    """
    why = [f"{name}: {reasons[name]}" for name in left if name in reasons]
    if work.cancelled:
        why = ["the work was cancelled"]
    text = f"{len(left)} of {len(work.tasks)} tasks have no result ({', '.join(left)})"
    return f"{text}. {'; '.join(why)}" if why else text


class Watch:
    """A thread that reports what the folder tells while the block runs.

    Args:
        work: The folder of work.
        names: Names of the tasks that count.
        on_event: Receives progress and messages, in the thread.
    """

    def __init__(self, work: WorkFolder, names: set[str], on_event: EventSink) -> None:
        self._work, self._names, self._on_event = work, names, on_event
        self._position = work.events()[1]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *ended: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_LOOK_S):
            self._report()
        self._report()

    def _report(self) -> None:
        try:
            self._tell()
        except OSError as error:  # a file system that does not answer may do so later
            _LOG.warning("%s", error)

    def _tell(self) -> None:
        events, self._position = self._work.events(self._position)
        for event in events:
            message = _message(event)
            if message is not None and event["task"] in self._names:
                self._on_event(message)
        chosen = tuple(one for one in self._work.state().tasks if one.task.name in self._names)
        self._on_event(progress(self._work.kind, WorkState(chosen)))


def progress(kind: str, state: WorkState) -> Progress:
    """Say how far tasks are.

    Args:
        kind: What the tasks are.
        state: The tasks.
    """
    failed = len(state.of(Status.FAILED))
    detail: dict[str, str | int | float] = {
        "done": f"{len(state.of(Status.DONE))}/{len(state.tasks)}",
        "running": len(state.of(Status.RUNNING)),
    }
    if failed:
        detail["failed"] = failed
    if math.isfinite(state.worst_r_hat):
        detail["R-hat"] = f"{state.worst_r_hat:.3f}"
    seen = state.divergences
    if seen is not None:
        detail["divergences"] = seen
    if math.isfinite(state.seconds_left):
        detail["minutes left"] = f"{state.seconds_left / 60:.1f}"
    return Progress(f"{kind}s", state.share * len(state.tasks), len(state.tasks), detail)


def _message(event: Mapping[str, Any]) -> Message | None:
    """What a person should read of an event in the log of the work."""
    who = f"{event['task']} on {event.get('host')}"
    if event["event"] == "message" and event.get("severity") in ("warning", "error"):
        return Message(f"{who}: {event.get('text')}", event["severity"])
    if event["event"] == "settled" and event.get("problem"):
        return Message(f"{who}: {event['problem']}", "warning")
    return None


@contextmanager
def _workers_stopped_first() -> Iterator[None]:
    """On SIGTERM and Ctrl-C let workers free their tasks before this process is interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            _stop_workers()
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _stop_workers() -> None:
    """Ask the workers of this process to stop, and wait for that; the rest is killed later."""
    workers = [one for one in multiprocessing.active_children() if one.name.startswith(WORKER)]
    for worker in workers:
        worker.terminate()
    end = time.monotonic() + _PATIENCE_S
    for worker in workers:
        worker.join(max(0.0, end - time.monotonic()))
