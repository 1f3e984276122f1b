"""Whether further jobs may be submitted: decisions from what became of the ones before.

It is told by Parsl's threads, and asked by them and by the one that waits for the tasks.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from heterodyne._events import Event, EventSink, Progress
from heterodyne.io.cluster_jobs import ClusterJobs

_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 300.0
# Jobs in a row that were refused, or ended before their workers reported.
_MOST_FAILURES = 3
# Jobs in a row that ended while no task was settled; tasks may need more than one.
_MOST_IN_VAIN = 10
_ALIVE = frozenset(("unknown", "pending", "running", "held"))
_ENDED = frozenset(("cancelled", "completed", "failed", "timeout"))
_LONGEST_WORDS = 1000


class Gate:
    """Jobs, what became of them, and whether to go on.

    Args:
        jobs: The jobs on disk.
        logs: Folder of scripts and logs of jobs.
        clock: Time in s.
    """

    def __init__(
        self, jobs: ClusterJobs, logs: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.logs = logs
        self.problem: str | None = None
        """Why there is no hope; None while there is."""
        self._jobs, self._clock = jobs, clock
        self._said = ""
        self._failures = self._in_vain = 0
        self._opens = -float("inf")
        self._states: dict[str, str] = {}
        self._connected: set[str] = set()

    @property
    def is_open(self) -> bool:
        """Whether a job may be submitted; after a failure, not for a while."""
        return self._clock() >= self._opens

    @property
    def shown(self) -> dict[str, int]:
        """Numbers of jobs, for people."""
        alive = {job for job, state in self._states.items() if state in _ALIVE}
        # Workers report sooner than the queue is looked at.
        running = len(alive & self._connected)
        return {"jobs": running, "jobs waiting": len(alive) - running}

    def beside(self, on_event: EventSink) -> EventSink:
        """Make a sink that adds the numbers of jobs to progress, and passes it on."""

        def sink(event: Event) -> None:
            if isinstance(event, Progress):
                event = replace(event, detail={**event.detail, **self.shown})
            on_event(event)

        return sink

    def heard(self, done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
        """Note what a program of the batch system said, and pass it on."""
        said = (done.stderr.strip() or done.stdout.strip())[-_LONGEST_WORDS:]
        self._said = f"exit status {done.returncode}: {said or 'no message'}"
        return done.returncode, done.stdout, done.stderr

    def asked(self) -> None:
        """Note that a job is about to be submitted."""
        self._said = ""

    def submitted(self, job: str) -> None:
        """Note a job."""
        self._jobs.add(job)

    def refused(self, error: str = "") -> None:
        """Note that no job could be submitted.

        Args:
            error: Why not, where the batch system has not said so itself.
        """
        self._failed(f"the batch system takes no job, {self._said or error}")

    def settled(self) -> None:
        """Note that a task was settled."""
        self._in_vain = 0

    def look(self, executor: Any, status: Mapping[str, Any]) -> None:
        """Note what became of blocks.

        Args:
            executor: Parsl's executor.
            status: State of each block by its number; those without a job were refused.
        """
        ids = dict(executor.blocks_to_job_id)
        seen = {block: status[block].state.name.lower() for block in ids if block in status}
        self.noted({ids[b]: state for b, state in seen.items()}, {
            ids[b] for b in executor.connected_blocks() if b in ids
        })  # fmt: skip

    def noted(self, states: Mapping[str, str], connected: set[str]) -> None:
        """Decide after a look.

        Args:
            states: State of each job, in small letters.
            connected: Jobs whose workers have reported.
        """
        before, self._states = self._states, dict(states)
        self._jobs.update(states)
        if connected - self._connected:
            self._failures, self._opens = 0, -float("inf")
        self._connected |= connected
        new = [state for job, state in states.items() if before.get(job) != state]
        self._in_vain += sum(state in _ENDED for state in new)
        if "missing" in new:
            self._failed(f"jobs end before their workers report{_last_words(self.logs)}")
        if self._in_vain >= _MOST_IN_VAIN:
            self.problem = f"{self._in_vain} jobs in a row ended and no task was settled"

    def close(self) -> None:
        """Note that all jobs were cancelled, and remove the keys of their connections."""
        self._jobs.update(dict.fromkeys(self._jobs.left, "cancelled"))
        for keys in self.logs.glob("*/*/certificates"):
            shutil.rmtree(keys, ignore_errors=True)

    def _failed(self, problem: str) -> None:
        self._failures += 1
        pause = min(_PAUSE_S * 2 ** (self._failures - 1), _LONGEST_PAUSE_S)
        self._opens = self._clock() + pause
        alive = any(state in _ALIVE for state in self._states.values())
        if self._failures >= _MOST_FAILURES and not alive:
            self.problem = problem


def _last_words(logs: Path) -> str:
    """End of what the latest job wrote to its standard error."""
    files = list(logs.glob("*/submit_scripts/*.stderr"))
    if not files:
        return ""
    newest = max(files, key=lambda path: path.stat().st_mtime)
    text = newest.read_text(encoding="utf-8", errors="replace").strip()[-_LONGEST_WORDS:]
    return f"; the last one wrote: {text}" if text else f"; {newest} is empty"
