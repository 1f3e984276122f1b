"""What a run folder tells about work that goes on, as one plain document."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from heterodyne.io.batch_folder import DOCUMENT, BatchFolder
from heterodyne.io.run_folder import FIT, MANIFEST, SUMMARY, RunFolder, checkpoint
from heterodyne.io.work_folder import Status, TaskState, WorkFolder

# The end of the log tells what the tasks that run are doing.
_LOG_BYTES = 2**22


def facts(run: Path) -> dict[str, Any]:
    """Say how far a run is.

    Args:
        run: Folder of a run or of a batch, with or without a folder of work.

    Returns:
        ``folder``, ``finished``, and either ``work`` with counts, figures and tasks, or ``runs``
        with the stage of the run or of each member.

    Raises:
        ConfigError: It is no such folder, or its work cannot be read.
    """
    about: dict[str, Any] = {"folder": str(run), "finished": _is_finished(run)}
    if WorkFolder.is_in(run):
        return about | {"work": _work(WorkFolder.open(run))}
    if BatchFolder.exists(run):
        batch = BatchFolder.open(run)
        runs = [_stage(name, batch.run(name)) for name in batch.members]
        return about | {"finished": all(one["stage"] == "finished" for one in runs), "runs": runs}
    return about | {"runs": [_stage(run.name, RunFolder.open(run))]}


def _is_finished(run: Path) -> bool:
    return any((run / name).is_file() for name in (SUMMARY, DOCUMENT))


def _work(work: WorkFolder) -> dict[str, Any]:
    state = work.state()
    doing = _progress(work)
    counts = {status.value: len(state.of(status)) for status in Status}
    return {
        "kind": work.kind,
        "total": len(state.tasks),
        **counts,
        "settled": state.settled,
        "cancelled": work.cancelled,
        "share": state.share,
        "seconds_left": _finite(state.seconds_left),
        "r_hat": _finite(state.worst_r_hat),
        "divergences": state.divergences,
        "tasks": [_task(one, doing.get(one.task.name)) for one in state.tasks],
    }


def _task(one: TaskState, doing: Mapping[str, Any] | None) -> dict[str, Any]:
    owner, record = one.seen.owner, one.record
    about: dict[str, Any] = {
        "name": one.task.name,
        "status": one.status.value,
        "attempts": one.seen.attempts if record is None else record.attempts,
    }
    if record is not None:
        about |= {"host": record.host, "seconds": record.seconds, "problem": record.problem}
        return about | {"figures": dict(record.figures)}
    if owner is not None and one.seen.held:
        about |= {"host": owner.host, "pid": owner.pid}
    about |= {"seconds": _finite(one.elapsed), "quiet": _finite(one.quiet)}
    if doing is not None and owner is not None and doing["pid"] == owner.pid:
        about |= {key: doing[key] for key in ("stage", "done", "total", "detail")}
    return about


def _progress(work: WorkFolder) -> dict[str, Mapping[str, Any]]:
    """The latest progress of each task, as far back as the end of the log reaches."""
    keys = {"pid", "stage", "done", "total", "detail"}
    return {
        event["task"]: event
        for event in work.events(-_LOG_BYTES)[0]
        if event["event"] == "progress" and keys <= set(event)
    }


def _stage(name: str, folder: RunFolder) -> dict[str, Any]:
    """How far a run without a folder of work is, from the ages of its files in s."""
    states = {
        path.name.removeprefix("checkpoint_").removesuffix(".npz"): age
        for path in sorted(folder.path.glob(checkpoint("*")))
        if (age := _age(path)) is not None
    }
    ages = {key: _age(folder.file(file)) for key, file in
            (("begun", MANIFEST), ("fitted", FIT), ("finished", SUMMARY))}  # fmt: skip
    if ages["finished"] is not None:
        stage = "finished"
    elif states:
        stage = "drawing"
    elif ages["fitted"] is not None:
        stage = "fitted"
    else:
        stage = "not begun" if ages["begun"] is None else "begun"
    return {"name": name, "stage": stage, "ages": ages, "checkpoints": states}


def _age(path: Path) -> float | None:
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except FileNotFoundError:
        return None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def tasks_in(work: Mapping[str, Any], *statuses: Status) -> Sequence[Mapping[str, Any]]:
    """Tasks of a document that are in one of some states."""
    wanted = {status.value for status in statuses}
    return [task for task in work["tasks"] if task["status"] in wanted]
