"""What PBS says of jobs, and what follows from it.

Exit codes and states are those of PBS Pro, whose server answered them. Decisions are pure
functions of what was seen, so that they can be tested without waiting.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from heterodyne._errors import SamplingError
from heterodyne._log import get_logger
from heterodyne.config._job_text import JOB_IDS
from heterodyne.optimization.cmc.backends._pbs_folder import JobFolder

_log = get_logger(__name__)

JOB_ID = JOB_IDS["pbspro"]
# What qstat and qdel answer for a finished job and for one that is not known.
_FINISHED, _UNKNOWN = 35, 153
_WALLTIME_KILL = -29
_REFUSED = {
    6: "PBS takes no nodes beside select or place",
    124: "The job may have been submitted all the same; look with qstat",
    187: "This site has no such resource; look at extra_pbs_directives",
}
_RUNNING = frozenset("RE")
_OVER = frozenset("FXC")
_COMMAND_SECONDS = 120
# Looks at the queue that a job without a result stays away for before it counts as lost: a
# shared file system may show a file late.
PATIENCE = 3
# Looks that may fail one after the other, each after twice the time, up to 16 times.
MOST_FAILED_LOOKS = 10
_LONGEST_DELAY = 16


@dataclass(frozen=True)
class Seen:
    """A job as PBS shows it.

    Attributes:
        state: Letter of the state; empty for a job that PBS does not show.
        exit_status: Exit status, once it is over and known.
    """

    state: str = ""
    exit_status: int | None = None

    @property
    def alive(self) -> bool:
        """Whether it may still leave a result."""
        return bool(self.state) and self.state not in _OVER


class Result(Enum):
    """What there is of the result of a shard."""

    ABSENT = "absent"
    GOOD = "good"
    DAMAGED = "damaged"


class ShardTimeoutError(SamplingError, TimeoutError):
    """Shards that took longer than they may."""


class Phase(Enum):
    """How far a shard is."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"
    OVERDUE = "overdue"


@dataclass(frozen=True)
class Task:
    """A shard and the job that draws it.

    Attributes:
        folder: Folder with its input and its result.
        shard: Number of the shard.
        job_id: Id of its latest job.
        log: Name of the file that takes what the job prints.
        attempts: How many jobs it had.
        phase: How far it is.
        state: State of the job when last seen, a letter of PBS.
        running_since: Time at which it was first seen running in s; None before that.
        unseen: Looks in a row at which the job was over and there was no result.
        reason: Why it failed.
        hopeless: Whether a further job would fail in the same way.
    """

    folder: JobFolder
    shard: int
    job_id: str
    log: str
    attempts: int = 1
    phase: Phase = Phase.WAITING
    state: str = ""
    running_since: float | None = None
    unseen: int = 0
    reason: str = ""
    hopeless: bool = False


def advanced(
    task: Task, seen: Seen | None, result: Result, now: float, limit: float | None
) -> Task:
    """Return a task after one look at the queue and at its result.

    The result decides; the queue only says whether one may still come.

    Args:
        task: Before.
        seen: Its job; None where the look failed.
        result: Its result, looked for after the queue.
        now: Time of the look in s.
        limit: Longest time that it may run in s; None for no limit.
    """
    if task.phase is not Phase.WAITING:
        return task
    if result is Result.GOOD:
        return replace(task, phase=Phase.DONE)
    if result is Result.DAMAGED:
        return replace(task, phase=Phase.FAILED, reason="its result cannot be read")
    if seen is not None and not seen.alive:
        return _over(replace(task, unseen=task.unseen + 1), seen)
    if seen is not None:
        task = replace(task, unseen=0, state=seen.state)
        if seen.state in _RUNNING and task.running_since is None:
            task = replace(task, running_since=now)
    if limit is None or task.running_since is None or now - task.running_since <= limit:
        return task
    reason = f"it ran for more than {limit:g} s (per_shard_timeout)"
    return replace(task, phase=Phase.OVERDUE, reason=reason)


def _over(task: Task, seen: Seen) -> Task:
    """Decide on a task whose job is over and has left no result so far."""
    status = seen.exit_status
    if status == _WALLTIME_KILL:
        # The same seed would take the same time again.
        reason = "PBS killed it at its walltime; raise PBSConfig.walltime, or draw less"
        return replace(task, phase=Phase.FAILED, reason=reason, hopeless=True)
    if status:
        return replace(task, phase=Phase.FAILED, reason=f"it ended with exit status {status}")
    if task.unseen < PATIENCE:
        return task
    how = "PBS does not know it any more" if status is None else "it ended with exit status 0"
    return replace(task, phase=Phase.FAILED, reason=f"{how}, and there is no result")


def to_submit_again(tasks: Sequence[Task], max_retries: int) -> list[Task]:
    """Tasks that failed and may have another job."""
    return [
        task
        for task in tasks
        if task.phase is Phase.FAILED and not task.hopeless and task.attempts <= max_retries
    ]


def delay(interval: float, failed_looks: int) -> float:
    """Time until the next look in s, longer after looks that failed.

    Args:
        interval: Time between looks in s.
        failed_looks: Looks that failed since the last one that did not.
    """
    return interval * min(2**failed_looks, _LONGEST_DELAY)


def element_id(job_id: str, index: int) -> str:
    """Id of one job of an array; a job that is no array keeps its id."""
    return job_id.replace("[]", f"[{index}]", 1)


def array_id(job_id: str) -> str:
    """Id of the array of a job; a job of no array keeps its id."""
    return re.sub(r"\[[0-9]+\]", "[]", job_id, count=1)


def check_programs() -> None:
    """Raise a SamplingError unless the programs of PBS are on PATH."""
    missing = [name for name in ("qsub", "qstat", "qdel") if shutil.which(name) is None]
    if missing:
        raise SamplingError(
            f"{', '.join(missing)} not found on PATH",
            where="PBS",
            remedy="Run this on a node from which jobs are submitted, or choose another backend",
        )


def submit(script: Path) -> str:
    """Submit a job script from its folder and return the id that PBS gave.

    Raises:
        SamplingError: qsub refuses it, or answers something else than an id.
    """
    done = _call("qsub", script.name, cwd=script.parent)
    job_id = done.stdout.strip()
    if done.returncode == 0 and re.fullmatch(JOB_ID, job_id):
        return job_id
    raise SamplingError(
        f"qsub ended with exit status {done.returncode}: {_said(done)}",
        where=script,
        remedy=_REFUSED.get(done.returncode, "Look at the directives of the script"),
    )


class Queue:
    """The queue as qstat shows it."""

    def __init__(self) -> None:
        # A server may keep no history of finished jobs, and says so on the first look.
        self._history = ["-x"]

    def look(self, job_ids: Sequence[str]) -> dict[str, Seen] | None:
        """Look at all jobs at once.

        Args:
            job_ids: Ids.

        Returns:
            What PBS shows for each id; None if it gave no answer.
        """
        if not job_ids:
            return {}
        done = _call("qstat", *self._history, "-f", "-F", "json", *job_ids)
        if self._history and "history" in done.stderr.lower():
            _log.info("this server keeps no history of jobs")
            self._history = []
            done = _call("qstat", "-f", "-F", "json", *job_ids)
        shown = _shown(done)
        if shown is None:
            _log.warning("qstat ended with exit status %d: %s", done.returncode, _said(done))
            return None
        return {job_id: shown.get(_key(job_id), Seen()) for job_id in job_ids}


def cancel(job_ids: Sequence[str]) -> None:
    """Cancel jobs; those that are over or not known count as cancelled.

    Raises:
        SamplingError: qdel fails in another way.
    """
    if not job_ids:
        return
    done = _call("qdel", *job_ids)
    if done.returncode not in (0, _FINISHED, _UNKNOWN):
        raise SamplingError(
            f"qdel ended with exit status {done.returncode}: {_said(done)}",
            where=", ".join(job_ids),
            remedy="Cancel these jobs with qdel",
        )


def _call(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program of PBS; one that hangs ends with the exit status of ``timeout``, 124."""
    try:
        return subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        said = f"no answer within {_COMMAND_SECONDS} s"
        return subprocess.CompletedProcess(command, 124, "", said)
    except OSError as error:
        raise SamplingError(f"{command[0]} cannot be run ({error.strerror})", where="PBS") from None


def _shown(done: subprocess.CompletedProcess[str]) -> dict[str, Seen] | None:
    """Jobs that qstat lists, by the part of their id before the server."""
    if done.returncode not in (0, _FINISHED, _UNKNOWN):
        return None
    if not done.stdout.strip():
        return {}
    try:
        jobs = json.loads(done.stdout, strict=False).get("Jobs", {})
        return {_key(job_id): _seen(job) for job_id, job in jobs.items()}
    except (ValueError, AttributeError, TypeError):
        return None


def _seen(job: Mapping[str, object]) -> Seen:
    status = job.get("Exit_status")
    return Seen(str(job.get("job_state", "")), None if status is None else int(str(status)))


def _key(job_id: str) -> str:
    return job_id.partition(".")[0]


def _said(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr.strip() or done.stdout.strip() or "no message")[-1000:]
