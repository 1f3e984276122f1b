"""Jobs of a backend, from their submission to their results."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from heterodyne._errors import ConfigError, SamplingError
from heterodyne._log import get_logger
from heterodyne._typing import FloatArray
from heterodyne.optimization.cmc.backends import _pbs_queue as pbs
from heterodyne.optimization.cmc.backends._pbs_config import PBSConfig
from heterodyne.optimization.cmc.backends._pbs_folder import JobFolder
from heterodyne.optimization.cmc.backends._pbs_queue import Phase, Result, ShardTimeoutError, Task
from heterodyne.optimization.cmc.backends._pbs_script import job_script, log_name

_log = get_logger(__name__)

Key = tuple[JobFolder, int]
# Longest time between looks for the end of jobs whose files are to be removed, in s.
_SETTLING_SECONDS = 5.0


@dataclass(frozen=True)
class Limits:
    """How long and how often to try.

    Attributes:
        retries: Further jobs of a shard that failed.
        shard_seconds: Longest time that a job may run in s; None for no limit.
        wait_seconds: Longest time to wait for all in s; None for no limit.
    """

    retries: int = 0
    shard_seconds: float | None = None
    wait_seconds: float | None = None


class Jobs:
    """All jobs of a backend.

    Attributes:
        tasks: Shards by folder and number, each with its latest job.
        draws: Draws of the shards that are done.
    """

    def __init__(self, config: PBSConfig) -> None:
        self.tasks: dict[Key, Task] = {}
        self.draws: dict[Key, dict[str, FloatArray]] = {}
        self._config = config
        self._queue = pbs.Queue()

    def start(self, folder: JobFolder, digest: str, shards: Sequence[int]) -> None:
        """Submit shards, except those that have a result or a job already.

        Args:
            folder: Folder with their inputs.
            digest: SHA-256 of their task.
            shards: Numbers of the shards.

        Raises:
            SamplingError: qsub fails, or qstat does not tell about jobs of an earlier process.
        """
        known = {shard: Task(folder, shard, *job) for shard, job in folder.read_jobs().items()}
        seen = self._queue.look([task.job_id for task in known.values()])
        names, taken = folder.names(), set[int]()
        for shard in shards:
            self.tasks.pop((folder, shard), None)
            task = known.get(shard, Task(folder, shard, "", ""))
            if self._read(task, names) is Result.GOOD:
                self._put(replace(task, phase=Phase.DONE))
            elif shard not in known:
                continue
            elif seen is None:
                raise SamplingError(
                    "qstat does not tell whether jobs of an earlier call still run",
                    where=folder.path,
                    remedy="Try again later",
                )
            elif seen[task.job_id].alive:
                self._put(task)
            if (folder, shard) in self.tasks:
                taken.add(shard)
        if taken:
            _log.info("%d of %d shards were submitted before", len(taken), len(shards))
        self.submit(folder, digest, [shard for shard in shards if shard not in taken])

    def submit(self, folder: JobFolder, digest: str, shards: Sequence[int]) -> None:
        """Submit shards of a folder, several of them as one array.

        Raises:
            SamplingError: qsub fails; a folder that has had no job is removed.
        """
        if not shards:
            return
        number = folder.next_number()
        text = job_script(self._config, folder.path, digest, number, shards)
        try:
            whole = pbs.submit(folder.write_script(text, number))
        except SamplingError:
            if not folder.read_jobs():
                folder.remove()
            raise
        _log.info("job %s of %d shards, in %s", whole, len(shards), folder.path)
        jobs = folder.read_jobs()
        for index, shard in enumerate(shards):
            jobs[shard] = (pbs.element_id(whole, index), log_name(number, index))
            before = self.tasks.get((folder, shard))
            attempts = 1 if before is None else before.attempts + 1
            self._put(Task(folder, shard, *jobs[shard], attempts=attempts))
        folder.write_jobs(jobs)

    def follow(
        self,
        keys: Sequence[Key],
        limits: Limits,
        again: Callable[[Sequence[int]], None] = lambda shards: None,
    ) -> list[Task]:
        """Wait until every shard has a result, or has failed for good.

        Args:
            keys: Shards to wait for.
            limits: How long and how often to try.
            again: Submits shards that failed.

        Returns:
            The shards in their order, at their end.

        Raises:
            ShardTimeoutError: The time to wait is over; jobs go on.
            SamplingError: PBS gives no answer for long, or refuses a job.
        """
        began, failed_looks, told = time.monotonic(), 0, ""
        while True:
            failed_looks = 0 if self._step(keys, limits) else failed_looks + 1
            failed = pbs.to_submit_again(self._at(keys), limits.retries)
            for task in failed:
                _log.warning("%s\nIt is submitted again", failure(task))
            if failed:
                again([task.shard for task in failed])
            counts = _counts(self._at(keys))
            if counts != told:
                _log.info("PBS: %s", counts)
            told = counts
            if not self._waiting(keys):
                return self._at(keys)
            if failed_looks >= pbs.MOST_FAILED_LOOKS:
                raise SamplingError(
                    f"qstat gave no answer {failed_looks} times in a row",
                    where="PBS",
                    remedy="The jobs go on; the same call takes up their results later",
                )
            pause = pbs.delay(self._config.poll_interval, failed_looks)
            time.sleep(min(pause, self._left(keys, began, limits.wait_seconds)))

    def remove(self, keys: Collection[Key]) -> None:
        """Cancel jobs, and remove the files of their shards.

        Args:
            keys: Shards.

        Raises:
            SamplingError: qdel fails; the files stay.
        """
        pbs.cancel([task.job_id for task in self._waiting(keys)])
        self._let_end(self._at(keys))
        for key in keys:
            del self.tasks[key]
            self.draws.pop(key, None)
        used = {folder for folder, _ in self.tasks}
        for folder in {folder for folder, _ in keys}:
            if folder not in used:
                folder.remove()
        for folder, shard in keys:
            if folder in used:
                folder.remove_shard(shard)

    def _let_end(self, tasks: Sequence[Task]) -> None:
        """Wait a little for jobs to end, so that PBS can still write their output."""
        ids = [task.job_id for task in tasks if task.job_id]
        for _ in range(pbs.PATIENCE):
            seen = self._queue.look(ids)
            if seen is not None and not any(job.alive for job in seen.values()):
                return
            time.sleep(min(self._config.poll_interval, _SETTLING_SECONDS))

    def _step(self, keys: Sequence[Key], limits: Limits) -> bool:
        """Look at the queue and for results once; return whether the queue answered."""
        waiting = self._waiting(keys)
        seen = self._queue.look([task.job_id for task in waiting])
        now = time.monotonic()
        # After the queue, so that a job seen as over has had its time to write.
        names = {folder: folder.names() for folder in {task.folder for task in waiting}}
        for task in waiting:
            result = self._read(task, names[task.folder])
            job = None if seen is None else seen[task.job_id]
            after = pbs.advanced(task, job, result, now, limits.shard_seconds)
            self._put(after)
            if after.phase is Phase.OVERDUE:
                _cancel_overdue(after)
        return seen is not None

    def _read(self, task: Task, names: Collection[str]) -> Result:
        """Read the result of a shard, if it is there."""
        if not task.folder.has_result(task.shard, names):
            return Result.ABSENT
        try:
            draws, remarks = task.folder.read_result(task.shard)
        except ConfigError as error:
            _log.warning("%s", error)
            return Result.DAMAGED
        for remark in remarks:
            _log.warning("shard %d: %s", task.shard, remark)
        self.draws[task.folder, task.shard] = draws
        return Result.GOOD

    def _left(self, keys: Sequence[Key], began: float, limit: float | None) -> float:
        """Time that is left to wait in s."""
        left = float("inf") if limit is None else began + limit - time.monotonic()
        if left > 0:
            return left
        waiting = self._waiting(keys)
        raise ShardTimeoutError(
            f"after {limit:g} s there is no result of "
            + ", ".join(f"shard {task.shard} (job {task.job_id})" for task in waiting),
            where="PBS",
            remedy="The jobs go on; wait again, or call cleanup to cancel them",
        )

    def _put(self, task: Task) -> None:
        self.tasks[task.folder, task.shard] = task

    def _at(self, keys: Collection[Key]) -> list[Task]:
        return [self.tasks[key] for key in keys]

    def _waiting(self, keys: Collection[Key]) -> list[Task]:
        return [task for task in self._at(keys) if task.phase is Phase.WAITING]


def failure(task: Task) -> str:
    """Say which shard failed and why, with the end of its log."""
    text = f"shard {task.shard} (job {task.job_id}): {task.reason}."
    tail = task.folder.log_tail(task.log, task.job_id)
    if tail:
        return f"{text} Its log ends with:\n{tail}"
    return f"{text} It left no log; perhaps its node does not see {task.folder.path}"


def _counts(tasks: Sequence[Task]) -> str:
    """Say how many shards are how far."""
    found = Counter(task.phase for task in tasks)
    states = Counter(task.state for task in tasks if task.phase is Phase.WAITING)
    text = (
        f"{found[Phase.DONE]} of {len(tasks)} shards done, {states['R']} running, "
        f"{states.total() - states['R']} waiting, "
        f"{found[Phase.FAILED] + found[Phase.OVERDUE]} failed"
    )
    return f"{text}; {states['H']} held until released with qrls" if states["H"] else text


def _cancel_overdue(task: Task) -> None:
    try:
        pbs.cancel([task.job_id])
    except SamplingError as error:
        _log.warning("%s", error)
