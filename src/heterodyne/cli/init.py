"""``heterodyne init``: a run file for a two-time file."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heterodyne._errors import ConfigError
from heterodyne.cli import _output
from heterodyne.cli._options import DataFile, Force, FrameTime, Wavevector

if TYPE_CHECKING:
    from heterodyne.data import TwoTimeFile


def command(
    file: DataFile,
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="RUN.yaml", help="Run file to write.")
    ] = Path("run.yaml"),
    q: Wavevector = None,
    dt: FrameTime = None,
    force: Force = False,
) -> None:
    """Write a run file for a two-time file.

    q, dt, angles and frames are filled in; parameters keep their default priors.
    """
    from heterodyne.cli._survey import survey
    from heterodyne.config.template import render_template
    from heterodyne.io.files import write_text

    if out.exists() and not force:
        raise ConfigError(
            "the file exists", where=out, remedy="Choose another with -o, or use --force"
        )
    seen = survey(file, dt=dt, q=q)
    chosen = _chosen_q(seen.file, q, seen.data.q)
    near = [one.phi for one in seen.file.bins if abs(one.q - chosen) <= 5e-4 * chosen]
    text = render_template(
        file_path=os.path.relpath(file, out.parent),
        q=chosen,
        dt=seen.file.dt,
        angles=near,
        n_frames=seen.file.n_frames,
    )
    write_text(out, text)
    _output.say(f"Wrote {out}; next: heterodyne check {out}")
    advice = [asdict(one) for one in seen.findings if one.severity != "info"]
    if advice:
        _output.talk(f"Before a fit:\n{_output.findings(advice)}")


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
            remedy=f"Choose one, such as --q {known[0]}",
        )
    if asked is not None and abs(nearest - asked) > 0.02 * asked:
        raise ConfigError(
            f"the q nearest to {asked:g} 1/Å is {nearest:.6g} 1/Å",
            where="--q",
            allowed=listed,
        )
    return float(f"{nearest:.6g}")
