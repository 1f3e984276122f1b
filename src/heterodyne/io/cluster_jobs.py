"""Jobs of a batch system that hold the workers of a run: their ids on disk, and how to free them.

The ids are written as soon as a job is submitted, so that jobs of a process that was killed can be
freed by another. Only one process at a time may submit jobs for a run: it holds a claim.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heterodyne._errors import ConfigError, HeterodyneError
from heterodyne.config._job_text import JOB_IDS
from heterodyne.io import files
from heterodyne.io._claims import Claim, Claims, Seen

FILE = "cluster.json"
"""Name of the file with the ids, in the folder of work."""

LOGS = "parsl"
"""Name of the folder of scripts and logs of jobs, in the folder of work."""

SILENCE_S = 120.0
"""Time without a sign of life after which another process may submit jobs for a run, in s."""

_DRIVER = "driver"
_COMMAND_S = 120.0
# Workers end the block of draws that they are in, and save it.
_PATIENCE_S, _LOOK_S = 20.0, 0.1
_OVER = frozenset(("cancelled", "completed", "failed", "timeout", "missing", "scaled_in"))


class ClusterError(HeterodyneError, RuntimeError):
    """Jobs that a batch system does not take, start or end."""


@dataclass(frozen=True)
class Programs:
    """Programs of a batch system.

    Attributes:
        submit: Submits a job.
        look: Shows the queue.
        cancel: Cancels jobs.
        over: What ``cancel`` says of a job that is over or not known, as a regular expression.
    """

    submit: str
    look: str
    cancel: str
    over: str

    def missing(self) -> list[str]:
        """Those that are not on PATH."""
        needed = (self.submit, self.look, self.cancel)
        return [name for name in needed if shutil.which(name) is None]


PROGRAMS = {
    "pbspro": Programs("qsub", "qstat", "qdel", "has finished|Unknown Job Id"),
    "slurm": Programs("sbatch", "squeue", "scancel", "Invalid job id|already compl"),
    "grid_engine": Programs("qsub", "qstat", "qdel", "does not exist"),
    "lsf": Programs("bsub", "bjobs", "bkill", "already finished|No matching job|not found"),
}
"""Programs of each batch system."""


def check_programs(scheduler: str) -> None:
    """Check that jobs can be submitted from here.

    Args:
        scheduler: Name of the batch system, or ``local``.

    Raises:
        ClusterError: A program is not on PATH.
    """
    programs = PROGRAMS.get(scheduler)
    missing = [] if programs is None else programs.missing()
    if missing:
        raise ClusterError(
            f"{', '.join(missing)} not found on PATH",
            where=f"cluster.scheduler, {scheduler}",
            remedy="Run this on a machine from which jobs are submitted, or take the scheduler "
            "local",
        )


def driver_of(work: Path) -> Seen:
    """Say who submits jobs for a run.

    Args:
        work: Folder of the work.
    """
    return Claims(work / LOGS).look(_DRIVER)


def is_driven(work: Path) -> bool:
    """Whether a process that submits jobs for a run is alive, as far as can be known."""
    claims = Claims(work / LOGS)
    return (work / LOGS).is_dir() and claims.look(_DRIVER).alive(claims.now(), SILENCE_S)


def drive(work: Path) -> Claim:
    """Let this process, and no other, submit jobs for a run.

    Raises:
        ClusterError: Another process does.
        SamplingError: The claim cannot be written.
    """
    (work / LOGS).mkdir(exist_ok=True)
    claims = Claims(work / LOGS)
    seen = claims.look(_DRIVER)
    claim = None if is_driven(work) else claims.take(seen)
    if claim is None:
        raise ClusterError(
            f"{driver_of(work)} submits jobs for this run already",
            where=work,
            remedy="Follow it with 'heterodyne watch', or stop it with 'heterodyne cancel'",
        )
    return claim


class ClusterJobs:
    """Jobs of a run, in memory and on disk; may be used by several threads.

    Args:
        work: Folder of the work.
        scheduler: Name of the batch system, or ``local``.
        states: State of each job by id, in small letters.
    """

    def __init__(self, work: Path, scheduler: str, states: Mapping[str, str] | None = None) -> None:
        self.scheduler = scheduler
        self._work, self._lock = work, threading.Lock()
        self._states = dict(states or {})

    @classmethod
    def read(cls, work: Path) -> ClusterJobs | None:
        """Read the jobs of a run; None if it had none.

        Args:
            work: Folder of the work.

        Raises:
            ConfigError: The file is damaged.
        """
        path = work / FILE
        if not path.exists():
            return None
        content = files.read_json(path)
        try:
            scheduler, jobs = content["scheduler"], content["jobs"]
            states = {str(job["id"]): str(job["state"]) for job in jobs}
            wrong = [i for i in states if not re.fullmatch(JOB_IDS[scheduler], i)]
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"the jobs cannot be read ({type(error).__name__}: {error})",
                where=path,
                remedy=_BY_HAND,
            ) from None
        if wrong:
            raise ConfigError(f"{wrong[0]!r} is no id of a job", where=path, remedy=_BY_HAND)
        return cls(work, scheduler, states)

    @property
    def left(self) -> list[str]:
        """Ids of the jobs that are not over, as far as is known."""
        with self._lock:
            return [job for job, state in self._states.items() if state not in _OVER]

    def add(self, job: str) -> None:
        """Write down a job that was submitted a moment ago."""
        self.update({job: "submitted"})

    def update(self, states: Mapping[str, str]) -> None:
        """Write down what became of jobs, if that is new."""
        with self._lock:
            changed = {job: s for job, s in states.items() if self._states.get(job) != s}
            self._states |= changed
            jobs = [{"id": job, "state": state} for job, state in self._states.items()]
            if changed:
                content: dict[str, Any] = {"scheduler": self.scheduler, "jobs": jobs}
                files.write_json(self._work / FILE, content)

    def free(self) -> list[str]:
        """Cancel the jobs that are not over; return their ids.

        Raises:
            ClusterError: The batch system does not do it.
        """
        jobs = self.left
        if jobs and self.scheduler in PROGRAMS:
            _cancel(PROGRAMS[self.scheduler], jobs)
        elif jobs:
            jobs = [job for job in jobs if end_group(int(job), str(self._work / LOGS))]
        self.update(dict.fromkeys(self.left, "cancelled"))
        return jobs


_BY_HAND = "Look for jobs of this run with the programs of the batch system"


def _cancel(programs: Programs, jobs: Sequence[str]) -> None:
    """Cancel jobs one by one, for a job that is over must not hide what is said of another."""
    for job in jobs:
        done = shell(f"{programs.cancel} {job}", _COMMAND_S)
        said = (done.stderr + done.stdout).strip()
        if done.returncode != 0 and not re.search(programs.over, said):
            raise ClusterError(
                f"{programs.cancel} ended with exit status {done.returncode}: {said[-1000:]}",
                where=f"job {job}",
                remedy="Run this where jobs are submitted, or cancel these jobs by hand: "
                + ", ".join(jobs),
            )


def shell(command: str, patience: float) -> subprocess.CompletedProcess[str]:
    """Run a command of a batch system, out of reach of Ctrl-C.

    Args:
        command: The command; the caller has checked every word of it.
        patience: Longest time in s; a command that takes longer has the exit status 124.
    """
    try:
        return subprocess.run(
            command,
            shell=True,
            capture_output=True,
            text=True,
            timeout=patience,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no answer within {patience:g} s")


def end_group(leader: int, mark: str, process: subprocess.Popen[bytes] | None = None) -> bool:
    """End the processes of a job of this machine, which first may save what they have.

    Args:
        leader: Number of the first of them.
        mark: Text of its command line, by which it is told from later processes.
        process: The first of them, if it is a child.

    Returns:
        Whether there was one.
    """
    if process is None and mark not in _command_line(leader):
        return False
    _signal(leader, signal.SIGTERM)
    end = time.monotonic() + _PATIENCE_S
    while _signal(leader, 0) and time.monotonic() < end:
        time.sleep(_LOOK_S)
        if process is not None:
            process.poll()
    _signal(leader, signal.SIGKILL)
    if process is not None:
        process.wait()
    return True


def _signal(group: int, number: int) -> bool:
    """Send a signal to a group of processes; return whether there is one."""
    try:
        os.killpg(group, number)
    except OSError:
        return False
    return True


def _command_line(process: int) -> str:
    """Command line of a process of this machine; empty if there is none."""
    done = shell(f"ps -ww -o command= -p {process}", _COMMAND_S)
    return done.stdout if done.returncode == 0 else ""
