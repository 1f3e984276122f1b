"""``heterodyne worker``: works off the tasks of a run from any job script."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heterodyne._cores import use_one_blas_thread
from heterodyne._errors import ConfigError
from heterodyne.cli import _output
from heterodyne.cli._options import Json, Quiet

if TYPE_CHECKING:
    from heterodyne.io.work_folder import Task, WorkFolder

_NOT_ALL_WELL = 3
_LOOK_S = 2.0
# A task that this machine could not do, as with a full disk, is left alone for so long.
_REST_S = 30.0
_WALLTIME = re.compile(r"(?:(?P<d>\d+)-)?(?P<h>\d+):(?P<m>[0-5]\d)(?::(?P<s>[0-5]\d))?")
_STARTED = time.monotonic()


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run.")],
    tasks: Annotated[
        int | None, typer.Option("--tasks", min=1, help="Stop after so many tasks.")
    ] = None,
    until_idle: Annotated[
        float,
        typer.Option(
            "--until-idle",
            metavar="SECONDS",
            min=0.0,
            help="Stop after so long without a task to do; also how long to wait for the run.",
        ),
    ] = 300.0,
    walltime: Annotated[
        str | None,
        typer.Option("--walltime", metavar="HH:MM:SS", help="Time the job has from now on."),
    ] = None,
    stop_before: Annotated[
        float,
        typer.Option(
            "--stop-before",
            metavar="SECONDS",
            min=0.0,
            help="Begin no task once less than this is left of the walltime.",
        ),
    ] = 0.0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Work off tasks of a run, beside other workers.

    For job scripts of any scheduler: start as many as there is room for, on any machine that
    sees the folder of the run. The largest task is taken first. A worker that dies loses its task
    to another; SIGTERM stops it at the next checkpoint, and its task is free at once.
    """
    use_one_blas_thread()
    if stop_before and walltime is None:
        raise ConfigError(
            "--stop-before needs to know when the job ends",
            where="worker",
            remedy="Give --walltime HH:MM:SS as well",
        )
    limits = Limits(
        tasks,
        until_idle,
        None if walltime is None else _STARTED + seconds_of(walltime) - stop_before,
    )
    work = _wait_for(run, limits)
    _report(work, Worker(run, work, limits, quiet).run(), as_json)


def _report(work: WorkFolder, ended: Ended, as_json: bool) -> None:
    """Print what a worker did and how far the work is.

    Raises:
        Exit: With code 3 if some record has a problem.
    """
    records = work.records()
    failed = sorted(name for name, record in records.items() if record.problem is not None)
    left = len(work.tasks) - len(records)
    if as_json:
        _output.say_json({"done": ended.done, "left": left, "failed": failed, "why": ended.why})
    else:
        _output.say(f"Did {ended.done} tasks, and stopped because {ended.why}.")
        _output.say(f"{len(records)} of {len(work.tasks)} are settled.")
        for name in failed:
            _output.say(_output.wrapped(f"{name}: {records[name].problem}", "  "))
    if failed:
        raise typer.Exit(_NOT_ALL_WELL)


@dataclass(frozen=True)
class Limits:
    """When a worker stops.

    Attributes:
        tasks: Largest number of tasks; None for no limit.
        idle: Longest time without a task to do in s.
        last_start: Latest time to begin a task, on the monotonic clock in s; None for no limit.
    """

    tasks: int | None
    idle: float
    last_start: float | None


@dataclass
class Ended:
    """What a worker did.

    Attributes:
        done: Number of tasks that it brought to a record.
        why: Why it stopped.
    """

    done: int = 0
    why: str = ""


@dataclass
class Worker:
    """One process that takes task after task.

    Attributes:
        folder: Folder of the run.
        work: Its tasks.
        limits: When to stop.
        quiet: Whether only problems are said.
    """

    folder: Path
    work: WorkFolder
    limits: Limits
    quiet: bool = False
    _resting: dict[str, float] = field(default_factory=dict)

    def run(self) -> Ended:
        """Work until there is a reason to stop."""
        ended, busy = Ended(), time.monotonic()
        while not (why := self._why_stop(ended.done)):
            task = self._next()
            if task is not None:
                ended.done += self._do(task)
                busy = time.monotonic()
            elif not self.work.unsettled():
                why = "every task is settled"
                break
            elif (idle := time.monotonic() - busy) >= self.limits.idle:
                why = f"there was no task to do for {_output.duration(idle)}"
                break
            else:
                time.sleep(min(_LOOK_S, self.work.rules.beat, self.limits.idle))
        ended.why = why
        return ended

    def _next(self) -> Task | None:
        """The largest task that is free; None if there is none."""
        from heterodyne.io.work_folder import Status
        from heterodyne.optimization.cmc.backends._schedule import longest_first

        now = time.monotonic()
        state = self.work.state()
        free: Sequence[Task] = [
            one.task
            for one in state.of(Status.WAITING, Status.SILENT)
            if self._resting.get(one.task.name, now) <= now
        ]
        order = longest_first(task.cost for task in free)
        return free[order[0]] if free else None

    def _do(self, task: Task) -> int:
        """Do a task; return whether it has a record now."""
        from heterodyne.cli._tasks import perform

        if not self.quiet:
            _output.talk(f"{task.name} begins")
        begun = time.monotonic()
        problem = perform(str(self.folder), task.name)
        took = _output.duration(time.monotonic() - begun)
        if self.work.record(task.name) is None:
            seen = self.work.claims.look(task.name)
            if not seen.alive(self.work.claims.now(), self.work.rules.silence):
                self._resting[task.name] = time.monotonic() + _REST_S
                _output.talk(f"warning: {problem}")
            return 0
        if problem is not None:
            _output.talk(f"warning: {task.name} after {took}: {problem}")
        elif not self.quiet:
            _output.talk(f"{task.name} done after {took}")
        return 1

    def _why_stop(self, done: int) -> str:
        """Why no further task is begun; empty to go on."""
        if self.work.cancelled:
            return "the work was cancelled"
        if self.limits.tasks is not None and done >= self.limits.tasks:
            return "that is the number of tasks asked for"
        if self.limits.last_start is not None and time.monotonic() >= self.limits.last_start:
            return "the job ends soon"
        return ""


def seconds_of(walltime: str) -> float:
    """Read a time as schedulers write it.

    Args:
        walltime: ``HH:MM``, ``HH:MM:SS`` or ``D-HH:MM:SS``.

    Raises:
        ConfigError: It is none.
    """
    found = _WALLTIME.fullmatch(walltime.strip())
    if found is None:
        raise ConfigError(
            f"'{walltime}' is no time", where="--walltime", allowed="HH:MM:SS or D-HH:MM:SS"
        )
    d, h, m, s = (int(found[unit] or 0) for unit in "dhms")
    return 86400.0 * d + 3600.0 * h + 60.0 * m + s


def _wait_for(run: Path, limits: Limits) -> WorkFolder:
    """Wait until a run has tasks.

    Raises:
        ConfigError: It has none after the longest time without a task.
    """
    from heterodyne.io.work_folder import WorkFolder

    end = time.monotonic() + limits.idle
    while not WorkFolder.is_in(run) and (left := end - time.monotonic()) > 0:
        time.sleep(min(_LOOK_S, left))
    return WorkFolder.open(run)
