"""``heterodyne inspect``: what is in a two-time file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heterodyne._errors import ConfigError
from heterodyne.cli import _output
from heterodyne.cli._options import DataFile, FrameTime, Json, Wavevector

if TYPE_CHECKING:
    from heterodyne.cli._survey import Survey

_FORMATS = (".png", ".pdf", ".svg")


def command(
    file: DataFile,
    q: Wavevector = None,
    dt: FrameTime = None,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Picture to write; NAME.maps.png here by default."),
    ] = None,
    no_picture: Annotated[bool, typer.Option("--no-picture", help="Draw nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a two-time file holds.

    A picture of its maps is drawn beside, and what stands out is listed with advice.
    """
    from heterodyne.cli._survey import survey

    target = None if no_picture else picture or Path(f"{file.stem}.maps.png")
    if target is not None and target.suffix not in _FORMATS:
        raise ConfigError(
            f"a picture cannot have the ending {target.suffix!r}",
            where="--picture",
            allowed=", ".join(_FORMATS),
        )
    seen = survey(file, dt=dt, q=q)
    if target is not None:
        _draw(seen, target)
    if as_json:
        found = [asdict(finding) for finding in seen.findings]
        document = {"looked_at": seen.note, "findings": found, "picture": target}
        _output.say_json(seen.geometry() | document)
    else:
        _describe(seen, target)


def _draw(seen: Survey, target: Path) -> None:
    from heterodyne.io.files import replacing
    from heterodyne.viz.maps import two_time_maps

    data = seen.data
    figure = two_time_maps(data.c2, data.t, data.phi, q=data.q, title=Path(seen.file.path).name)
    with replacing(target) as partial:
        figure.savefig(partial, format=target.suffix.removeprefix("."))


def _describe(seen: Survey, target: Path | None) -> None:
    from heterodyne.cli._survey import bin_table

    file, facts = seen.file, seen.geometry()
    entries = [
        ("file", file.path),
        ("layout", file.layout.value),
        ("frames", f"{file.n_frames}, {file.dt:g} s apart"),
        ("times", f"{file.t[0]:g} to {file.t[-1]:g} s (time origin: {facts['time_origin']})"),
        ("bins", str(len(file.bins))),
    ]
    _output.say(_output.pairs(entries))
    _output.say(f"\n{bin_table(file)}\n")
    _output.say(_output.wrapped(seen.note))
    _output.say(f"Findings:\n{_output.findings([asdict(one) for one in seen.findings])}")
    if target is not None:
        _output.say(f"Picture: {target}")
