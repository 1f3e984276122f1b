"""``heterodyne cancel``: stop the work on a run, wherever it is done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heterodyne.cli import _output
from heterodyne.cli._options import Json

if TYPE_CHECKING:
    from heterodyne.io.work_folder import WorkFolder

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]


def command(run: RunFolder, as_json: Json = False) -> None:
    """Stop the work on a run.

    Workers on all machines stop and save what they have. Jobs of a batch system are cancelled,
    also those of a process that was killed. The command that began the work goes on with what is
    there.
    """
    from heterodyne.io.work_folder import WorkFolder

    work = WorkFolder.open(run)
    before = work.cancelled
    work.cancel()
    document = {"run": run, "cancelled_before": before} | _jobs(work) | _tasks(work)
    if as_json:
        _output.say_json(document)
    else:
        _output.say(_output.wrapped(_describe(document)))


def _jobs(work: WorkFolder) -> dict[str, Any]:
    """Free the jobs of a run, unless the process that submitted them does."""
    from heterodyne.io.cluster_jobs import ClusterJobs, driver_of, is_driven

    jobs = ClusterJobs.read(work.path)
    if jobs is None:
        return {"scheduler": None, "driver": None, "freed": []}
    if is_driven(work.path):
        return {"scheduler": jobs.scheduler, "driver": str(driver_of(work.path)), "freed": []}
    return {"scheduler": jobs.scheduler, "driver": None, "freed": jobs.free()}


def _tasks(work: WorkFolder) -> dict[str, Any]:
    done = len(work.records())
    return {"tasks": len(work.tasks), "settled": done}


def _describe(document: dict[str, Any]) -> str:
    again = " again" if document["cancelled_before"] else ""
    texts = [
        f"{document['run']}: the work is cancelled{again}; {document['settled']} of "
        f"{document['tasks']} tasks are done."
    ]
    freed, driver = document["freed"], document["driver"]
    if driver is not None:
        texts.append(f"{driver[:1].upper()}{driver[1:]} stops, and cancels its jobs.")
    elif freed:
        texts.append(f"Jobs of {document['scheduler']} were cancelled: {', '.join(freed)}.")
    elif document["scheduler"] is not None:
        texts.append("No job of it is left.")
    return " ".join(texts)
