"""``heterodyne init``: a run file for a two-time file."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from heterodyne._errors import ConfigError
from heterodyne.cli import _output
from heterodyne.cli._options import DataFile, Force, FrameTime

if TYPE_CHECKING:
    from heterodyne.data import TwoTimeFile

ALL: Literal["all"] = "all"
"""Word for every wavevector of a file."""


def command(
    file: DataFile,
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="RUN.yaml", help="Run file to write.")
    ] = Path("run.yaml"),
    q: Annotated[
        str | None,
        typer.Option(
            "--q", metavar="Q|all", help="Wavevector in 1/Å; the nearest is taken. all: each one."
        ),
    ] = None,
    dt: FrameTime = None,
    force: Force = False,
) -> None:
    """Write a run file for a two-time file.

    q, dt, angles and frames are filled in; parameters keep their default priors.
    """
    from heterodyne.cli._survey import survey
    from heterodyne.config.template import render_template
    from heterodyne.io.files import write_text

    if out.resolve() == file.resolve():
        raise ConfigError(
            "the run file would replace the data", where=out, remedy="Choose another with -o"
        )
    if out.exists() and not force:
        raise ConfigError(
            "the file exists", where=out, remedy="Choose another with -o, or use --force"
        )
    asked = _number(q)
    seen = survey(file, dt=dt, q=asked)
    chosen = seen.data.q if q == ALL else _chosen_q(seen.file, asked, seen.data.q)
    near = [one.phi for one in seen.file.bins if abs(one.q - chosen) <= 5e-4 * chosen]
    text = render_template(
        file_path=os.path.relpath(file, out.parent),
        q=ALL if q == ALL else chosen,
        dt=seen.file.dt,
        angles=near,
        n_frames=seen.file.n_frames,
    )
    write_text(out, text)
    _output.say(f"Wrote {out}; next: heterodyne check {out}")
    advice = [asdict(one) for one in seen.findings if one.severity != "info"]
    if advice:
        _output.talk(f"Before a fit:\n{_output.findings(advice)}")


def _number(q: str | None) -> float | None:
    """The q asked for; None where there is none, or all are."""
    if q is None or q == ALL:
        return None
    try:
        return float(q)
    except ValueError:
        raise ConfigError(
            f"{q!r} is no wavevector", where="--q", allowed=f"a number above 0 in 1/Å, or {ALL}"
        ) from None


def _chosen_q(file: TwoTimeFile, asked: float | None, nearest: float) -> float:
    """The q to write; where there are several, one must be asked for."""
    import numpy as np

    from heterodyne.data.two_time import one_q

    known = sorted({f"{one.q:.6g}" for one in file.bins}, key=float)
    listed = f"q = {', '.join(known)} 1/Å"
    if asked is None and not one_q(np.array([one.q for one in file.bins])):
        raise ConfigError(
            f"the file has {len(known)} wavevectors",
            where=file.path,
            allowed=listed,
            remedy=f"Choose one, such as --q {known[0]}, or each of them with --q {ALL}",
        )
    if asked is not None and abs(nearest - asked) > 0.02 * asked:
        raise ConfigError(
            f"the q nearest to {asked:g} 1/Å is {nearest:.6g} 1/Å",
            where="--q",
            allowed=listed,
        )
    return float(f"{nearest:.6g}")
