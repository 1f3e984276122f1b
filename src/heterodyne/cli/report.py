"""``heterodyne report``: the report of a run folder, built anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heterodyne.cli import _output
from heterodyne.cli._options import Json

if TYPE_CHECKING:
    from heterodyne.io.batch_folder import BatchFolder


def command(
    folder: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="Folder of a run.")],
    as_json: Json = False,
) -> None:
    """Build the report of a run folder, or of a batch, anew."""
    from heterodyne.io.batch_folder import BatchFolder
    from heterodyne.io.run_folder import SUMMARY, RunFolder

    if BatchFolder.exists(folder):
        _report_batch(BatchFolder.open(folder), as_json)
        return
    run = RunFolder.open(folder)
    summary = run.read_json(SUMMARY)
    path = write_report(run.path)
    if as_json:
        _output.say_json({"folder": folder, "report": path} | summary)
    else:
        _output.say(_output.wrapped(summary["verdict"]["headline"]))
        _output.say(f"Report: {path}")


def _report_batch(batch: BatchFolder, as_json: bool) -> None:
    from heterodyne.io.batch_folder import DOCUMENT, PAGE
    from heterodyne.io.files import read_json
    from heterodyne.io.run_folder import SUMMARY
    from heterodyne.report.batch import write

    known = read_json(batch.path / DOCUMENT)["members"]
    for name in batch.members:
        run = batch.run(name)
        if run.file(SUMMARY).is_file():
            write_report(run.path)
    found = write(batch, {one["name"]: one["problem"] for one in known if one["problem"]})
    if as_json:
        _output.say_json({"folder": batch.path, "report": batch.path / PAGE} | found)
    else:
        _output.say(_output.wrapped(found["verdict"]["headline"]))
        _output.say(f"Report: {batch.path / PAGE}")


def write_report(folder: Path) -> Path:
    """Build the report of a run folder and return its path."""
    from heterodyne.report import build

    return build(folder)
