"""``heterodyne report``: the report of a run folder, built anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heterodyne.cli import _output
from heterodyne.cli._options import Json


def command(
    folder: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="Folder of a run.")],
    as_json: Json = False,
) -> None:
    """Build the report of a run folder anew."""
    from heterodyne.io.run_folder import SUMMARY, RunFolder

    run = RunFolder.open(folder)
    summary = run.read_json(SUMMARY)
    path = write_report(run.path)
    if as_json:
        _output.say_json({"folder": folder, "report": path} | summary)
    else:
        _output.say(_output.wrapped(summary["verdict"]["headline"]))
        _output.say(f"Report: {path}")


def write_report(folder: Path) -> Path:
    """Build the report of a run folder and return its path."""
    from heterodyne.report import build

    return build(folder)
