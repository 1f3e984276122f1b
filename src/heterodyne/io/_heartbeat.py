"""The thread that gives signs of life for a task, and says when the task has to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import Enum
from types import TracebackType
from typing import Self

from heterodyne._log import get_logger
from heterodyne.io._claims import Claim

_LOG = get_logger(__name__)


class Stop(Enum):
    """Why a task has to stop before its end."""

    LOST = "another worker has taken the task over"
    CANCELLED = "the work was cancelled"
    OVERDUE = "the task took too long"


class Heartbeat:
    """Signs of life of a claim for as long as the block runs.

    Once the task has to stop, ``stop`` is called at every beat until the block ends, for a signal
    may be lost in a callback. A task that has taken too long gets no further signs of life, so
    that others can have it even if it does not stop.

    Args:
        claim: The claim.
        interval: Time between two beats in s.
        longest: Longest time of the task in s.
        cancelled: Says whether all work has to stop.
        stop: Called in the thread.
    """

    def __init__(
        self,
        claim: Claim,
        interval: float,
        longest: float,
        cancelled: Callable[[], bool],
        stop: Callable[[Stop], None],
    ) -> None:
        self._claim, self._interval, self._longest = claim, interval, longest
        self._cancelled, self._stop = cancelled, stop
        self._over = threading.Event()
        # Held while stop is called, so that nothing is stopped after the block.
        self._stopping = threading.Lock()
        self._begun = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._begun = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stopping:
            self._over.set()
        self._thread.join()

    def _run(self) -> None:
        reason: Stop | None = None
        while not self._over.wait(self._interval):
            reason = reason or self._reason()
            if reason is not Stop.OVERDUE and not self._beat():
                reason = reason or Stop.LOST
            if reason is None:
                continue
            with self._stopping:
                if not self._over.is_set():
                    self._stop(reason)

    def _reason(self) -> Stop | None:
        if time.monotonic() - self._begun > self._longest:
            return Stop.OVERDUE
        return Stop.CANCELLED if self._cancelled() else None

    def _beat(self) -> bool:
        """Give a sign of life; a file system that does not answer is asked again later."""
        try:
            return self._claim.beat()
        except OSError as error:
            _LOG.warning("No sign of life for %s: %s", self._claim.name, error)
            return True
