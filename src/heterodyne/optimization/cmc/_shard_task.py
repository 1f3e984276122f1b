"""Shards as tasks of a work folder: prepared once, drawn by any process that sees the folder.

A worker makes the same call for a shard as a run in one process, and keeps its states in the run
folder. Whoever makes the call again goes on from the last state, and returns at once from that of
a finished sampler. So the one that combines the shards calls for each of them as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from heterodyne._errors import ConfigError, InterruptedRunError
from heterodyne._events import EventSink
from heterodyne._typing import IntArray, StoredArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.io.run_folder import SHARD_DATA, SHARD_PLAN, RunFolder
from heterodyne.io.work_folder import Rules, Task, WorkFolder
from heterodyne.optimization.cmc._passes import Keeper
from heterodyne.optimization.cmc._plan_file import read_plan, write_plan
from heterodyne.optimization.cmc._shard_plan import ShardPlan, await_compilation
from heterodyne.optimization.cmc._shard_store import run_keeper

KIND = "shard"

Transport = Callable[[Sequence[Task]], None]
"""Has the tasks of a work folder done, and returns when none is left that it can do."""


@dataclass(frozen=True)
class Elsewhere:
    """Where shards are drawn, if not by the process that combines them.

    Attributes:
        folder: Folder of the run, which every worker sees.
        transport: Hands tasks to workers.
        rules: How long things may take.
    """

    folder: RunFolder
    transport: Transport
    rules: Rules

    @property
    def keeper(self) -> Keeper:
        """Where workers keep the states of shards."""
        return run_keeper(self.folder)

    def settled(self, plan: ShardPlan, c2: StoredArray) -> tuple[ShardPlan, dict[int, str]]:
        """Have all shards drawn.

        Args:
            plan: What the shards share.
            c2: Measured correlation, shape (n_angles, N, N).

        Returns:
            The plan that workers went by, which is an earlier one where a run goes on, and what
            kept shards from being drawn, by their numbers counted from 0.

        Raises:
            InterruptedRunError: Shards are left that no worker draws.
        """
        work = prepare_shards(plan, c2, self.folder, self.rules)
        if work.unsettled():
            await_compilation()
            self.transport(list(work.tasks.values()))
        left = len(work.unsettled())
        if left:
            why = "the work was cancelled" if work.cancelled else "no worker is left"
            raise InterruptedRunError(
                f"{left} of {len(work.tasks)} shards are not drawn: {why}",
                where=self.folder.path,
                remedy="The same command goes on with the rest",
            )
        problems = {
            int(work.tasks[name].details["shard"]): record.problem
            for name, record in work.records().items()
            if record.problem is not None
        }
        digest = next(iter(work.tasks.values())).details["plan"]
        return _plan(self.folder.path, str(digest)), problems


def rules_of(config: CMCConfig) -> Rules:
    """How long a shard and a silence may last, by the settings of a run."""
    return Rules(silence=config.heartbeat_timeout, task=config.per_shard_timeout)


def prepare_shards(plan: ShardPlan, c2: StoredArray, folder: RunFolder, rules: Rules) -> WorkFolder:
    """Write once what workers need, or take up what an interrupted run has written.

    Shards that could not be drawn are tasks again; drawn ones stay.

    Args:
        plan: What the shards share.
        c2: Measured correlation, shape (n_angles, N, N).
        folder: Folder of the run.
        rules: How long things may take.

    Raises:
        ConfigError: The folder cannot be written.
    """
    prepared = folder.file(SHARD_PLAN).is_file() and folder.file(SHARD_DATA).is_file()
    if prepared and WorkFolder.is_in(folder.path):
        tasks = list(WorkFolder.open(folder.path).tasks.values())
        work = WorkFolder.create(folder.path, KIND, tasks, rules)
        work.free_failed()
        return work
    WorkFolder.remove(folder.path)
    write_plan(folder.file(SHARD_PLAN), plan)
    with folder.replacing(SHARD_DATA) as path, path.open("wb") as stream:
        np.save(stream, c2, allow_pickle=False)
    digests = {"plan": _sha256(folder.file(SHARD_PLAN)), "data": _sha256(folder.file(SHARD_DATA))}
    tasks = [
        Task(f"shard-{k + 1:04d}", float(size), {"shard": k, **digests})
        for k, size in enumerate(plan.sizes(plan.labels(c2)))
    ]
    return WorkFolder.create(folder.path, KIND, tasks, rules)


def perform_shard(folder: Path, name: str, on_event: EventSink) -> Mapping[str, Any]:
    """Draw one shard of a run, or go on with it from its last block.

    Args:
        folder: Folder of the run.
        name: Name of the task.
        on_event: Receives the progress.

    Returns:
        Figures of its convergence.

    Raises:
        ConfigError: What was prepared is missing or has been changed.
        SamplingError: The density is not finite near the fit.
    """
    task = WorkFolder.open(folder).tasks[name]
    given = _given(folder, str(task.details["plan"]), str(task.details["data"]))
    number, keeper = int(task.details["shard"]), run_keeper(RunFolder(folder))
    found = given.plan.draw(number, given.c2, given.labels, keeper, on_event)
    d = found.diagnosis
    figures = {
        "r_hat": d.worst_r_hat[1],
        "ess": min(d.worst_ess_bulk[1], d.worst_ess_tail[1]),
        "draws": found.draws.n_chains * found.draws.n_draws,
    }
    known = {"divergences": d.divergences, "k_hat": d.k_hat}
    return figures | {name: x for name, x in known.items() if x is not None}


@dataclass(frozen=True, eq=False)
class _Given:
    """What was prepared."""

    plan: ShardPlan
    c2: StoredArray
    labels: IntArray


@lru_cache(maxsize=1)
def _given(folder: Path, plan: str, data: str) -> _Given:
    """Read what was prepared, once for all shards that a process draws.

    Args:
        folder: Folder of the run.
        plan: SHA-256 of the plan.
        data: SHA-256 of the data.

    Raises:
        ConfigError: A file is missing, or is not the one that was prepared.
    """
    found = _plan(folder, plan)
    c2 = _load(_checked(folder / SHARD_DATA, data))
    return _Given(found, c2, found.labels(c2))


def _load(file: Path) -> StoredArray:
    # Mapped, so that the processes of a machine share the memory.
    return np.load(file, mmap_mode="r", allow_pickle=False)


def _plan(folder: Path, digest: str) -> ShardPlan:
    """Read what the shards share.

    Raises:
        ConfigError: It is missing, not what was prepared, or of another version.
    """
    return read_plan(_checked(folder / SHARD_PLAN, digest))


def _checked(file: Path, digest: str) -> Path:
    if not file.is_file():
        raise ConfigError(
            "there is no such file",
            where=file,
            remedy="Start the run again: it prepares its shards anew",
        )
    if _sha256(file) != digest:
        raise ConfigError(
            "the file is not the one that the shards were prepared with",
            where=file,
            allowed="the SHA-256 in work/tasks.json",
            remedy="Start anew with --force",
        )
    return file


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
