"""A task of shared work, from its claim to its record, in whatever process it is done."""

from __future__ import annotations

import _thread
import errno
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from heterodyne._errors import HeterodyneError, InterruptedRunError
from heterodyne._events import Event, EventSink, Progress
from heterodyne.io._claims import host
from heterodyne.io._heartbeat import Heartbeat, Stop
from heterodyne.io.work_folder import Claim, Record, WorkFolder
from heterodyne.optimization.cmc.backends._workers import Answer, attempt

Doing = Callable[[Path, str, EventSink], Mapping[str, Any]]

KINDS = {
    "shard": ("heterodyne.optimization.cmc._shard_task", "perform_shard"),
    "run": ("heterodyne.cli._batch", "sample_member"),
}
"""Module and function that do a task of each kind: with the folder of the run, the name of the
task and a sink of events; it returns the figures of the record."""

# The task has not failed where the machine has: it is done elsewhere, or later.
_OF_THE_MACHINE = {errno.ENOSPC, errno.EIO, errno.ESTALE, getattr(errno, "EDQUOT", errno.ENOSPC)}
_LEAST_INTERVAL_S = 2.0
# Keeps the log of a long task short.
_INTERVAL_SHARE = 0.05


def perform(folder: str, name: str) -> str | None:
    """Do a task of the work folder of a run, unless it is settled or someone does it.

    It may be called in any process on any machine that sees the folder. Whatever goes wrong in
    the task becomes the problem in its record.

    Args:
        folder: Folder of the run.
        name: Name of the task.

    Returns:
        Why there is no result: the problem in the record, or why there is no record yet. None
        where there is a result.

    Raises:
        KeyboardInterrupt, InterruptedRunError: This process was stopped; the task is free.
        ConfigError: There is no such work folder.
    """
    work = WorkFolder.open(folder)
    record = work.record(name)
    if record is not None:
        return record.problem
    if work.cancelled:
        return f"{name}: {Stop.CANCELLED.value}"
    try:
        claim = work.claim(name)
    except HeterodyneError as error:
        return str(error)
    if claim is not None:
        return _Attempt(Path(folder), work, claim).run()
    record = work.record(name)
    return f"{name}: {work.claims.look(name)} works on it" if record is None else record.problem


class _Attempt:
    """One attempt at a task that this process has claimed."""

    def __init__(self, folder: Path, work: WorkFolder, claim: Claim) -> None:
        self._folder, self._work, self._claim = folder, work, claim
        self._reason: Stop | None = None
        self._begun = time.monotonic()

    def run(self) -> str | None:
        """Do the task; return the problem or None."""
        claim, limit = self._claim, self._work.rules.attempts
        try:
            if claim.attempt > limit:
                return self._settle(
                    f"{limit} attempts came to nothing, for their workers died or fell silent; "
                    f"the last one was {claim.before}"
                )
            self._log("begun", attempt=claim.attempt)
            return self._finish(self._answer())
        except (KeyboardInterrupt, InterruptedRunError):
            claim.give_back()
            self._log("stopped")
            raise

    def _answer(self) -> Answer:
        """Call the function of the kind; an interrupt that was ours is an answer."""
        rules, claim = self._work.rules, self._claim
        try:
            with self._interruptible() as stop:
                beats = Heartbeat(claim, rules.beat, rules.task, lambda: self._work.cancelled, stop)
                with beats:
                    return attempt(self._call)
        except KeyboardInterrupt:
            if self._reason is None:
                raise
            return Answer(None, self._reason.value)

    def _call(self) -> tuple[Mapping[str, Any], Exception | None]:
        """Figures of the task, and the error that has a meaning of its own."""
        try:
            function = _function(self._work.kind)
            return function(
                self._folder, self._claim.name, _Log(self._work, self._claim.name)
            ), None
        except HeterodyneError as error:
            return {}, error
        except OSError as error:
            if error.errno not in _OF_THE_MACHINE:
                raise
            return {}, error
        except SystemExit as error:
            raise RuntimeError(f"the task ended its process with exit code {error.code}") from error

    def _finish(self, answer: Answer) -> str | None:
        if answer.problem is not None and self._reason in (Stop.LOST, Stop.CANCELLED):
            return self._leave(f"{self._claim.name}: {answer.problem}")
        if answer.problem is not None:
            return self._settle(self._explained(answer.problem), details=answer.details)
        figures, error = answer.value
        if error is None:
            return self._settle(None, figures)
        if isinstance(error, InterruptedRunError):
            return self._interrupted(error)
        if _is_of_the_machine(error):
            return self._leave(f"{self._claim.name}: {error}")
        return self._settle(str(error))

    def _interrupted(self, error: InterruptedRunError) -> str | None:
        """Go on after a task that turned an interrupt into an error of its own."""
        if self._reason is None:
            raise error
        return self._finish(Answer(None, self._reason.value))

    def _explained(self, problem: str) -> str:
        if self._reason is not Stop.OVERDUE:
            return problem
        return f"it took longer than {self._work.rules.task:g} s"

    def _settle(
        self, problem: str | None, figures: Mapping[str, Any] | None = None, details: str = ""
    ) -> str | None:
        """Write the record."""
        seconds = time.monotonic() - self._begun
        attempts = min(self._claim.attempt, self._work.rules.attempts)
        record = Record(problem, seconds, attempts, host(), figures or {})
        try:
            written = self._work.settle(self._claim, record)
        except (HeterodyneError, OSError) as error:
            return self._leave(f"{self._claim.name}: {error}")
        if not written:
            return self._leave(f"{self._claim.name}: {Stop.LOST.value}")
        self._log("settled", problem=problem, seconds=seconds, traceback=details or None)
        return problem

    def _leave(self, why: str) -> str:
        """Let others have the task."""
        self._claim.give_back()
        self._log("left", text=why)
        return why

    def _log(self, event: str, **about: object) -> None:
        self._work.log(self._claim.name, event, **about)

    @contextmanager
    def _interruptible(self) -> Iterator[Callable[[Stop], None]]:
        """Let SIGTERM interrupt the task, and give a function that interrupts it for a reason.

        Another thread than the main one gets no signals, so its tasks run to their end.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self._note
            return

        def interrupt(reason: Stop) -> None:
            self._note(reason)
            _thread.interrupt_main(signal.SIGTERM)

        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            yield interrupt
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)

    def _note(self, reason: Stop) -> None:
        self._reason = self._reason or reason


class _Log:
    """Sink that writes the events of a task into the log of the work."""

    def __init__(self, work: WorkFolder, name: str) -> None:
        self._work, self._name = work, name
        self._begun = time.monotonic()
        self._next = -1.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._progress(event)
        else:
            self._work.log(self._name, "message", text=event.text, severity=event.severity)

    def _progress(self, event: Progress) -> None:
        elapsed = time.monotonic() - self._begun
        if elapsed < self._next:
            return
        self._next = elapsed + max(_LEAST_INTERVAL_S, _INTERVAL_SHARE * elapsed)
        about = {"stage": event.stage, "done": event.done, "total": event.total}
        self._work.log(self._name, "progress", **about, detail=dict(event.detail))


def _function(kind: str) -> Doing:
    if kind not in KINDS:
        raise HeterodyneError(
            f"tasks of the kind '{kind}' are not known",
            allowed=", ".join(KINDS),
            remedy="Use the version of heterodyne that made the work folder",
        )
    module, function = KINDS[kind]
    return getattr(import_module(module), function)


def _is_of_the_machine(error: BaseException) -> bool:
    """Whether an error is one of the file system, such as a full disk."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _OF_THE_MACHINE:
            return True
        seen = seen.__cause__ or seen.__context__
    return False
