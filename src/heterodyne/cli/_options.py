"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunFile = Annotated[Path, typer.Argument(metavar="RUN.yaml", help="Run file.")]
DataFile = Annotated[Path, typer.Argument(metavar="FILE", help="Two-time file.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace an entry of the run file, such as optimization.nlsq.seed=3; repeatable.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Wavevector = Annotated[
    float | None, typer.Option("--q", metavar="Q", help="Wavevector in 1/Å; the nearest is taken.")
]
FrameTime = Annotated[
    float | None,
    typer.Option("--dt", metavar="DT", help="Time between frames in s, if the file has none."),
]
