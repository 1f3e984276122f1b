"""A look at some bins of a file, whatever their state."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from heterodyne._errors import ConfigError, DataError

if TYPE_CHECKING:
    from pathlib import Path

    from heterodyne.data import Finding, TwoTimeData, TwoTimeFile

MOST_BINS = 6
MOST_FRAMES = 2000
_MOST_LISTED = 40


@dataclass(frozen=True)
class Survey:
    """What some bins look like.

    Attributes:
        file: The file.
        data: The bins that were read, NaN included.
        findings: What was noticed about them.
        note: What was read, in one sentence.
    """

    file: TwoTimeFile
    data: TwoTimeData
    findings: tuple[Finding, ...]
    note: str

    def geometry(self) -> dict[str, Any]:
        """The facts about the file, as plain values."""
        file = self.file
        return {
            "file": file.path,
            "layout": file.layout.value,
            "n_frames": file.n_frames,
            "dt": file.dt,
            "t_first": float(file.t[0]),
            "t_last": float(file.t[-1]),
            "time_origin": file.details.get("time_origin"),
            "bins": [asdict(one) for one in file.bins],
        }


def survey(path: Path, *, dt: float | None = None, q: float | None = None) -> Survey:
    """Open a file and read the first bins of one q, up to a number of frames.

    Args:
        path: Two-time file.
        dt: Time between frames in s, for files that do not give it.
        q: Wavevector in 1/Å, of which the nearest is taken; the file's first by default.

    Raises:
        ConfigError: q or dt is not positive.
        DataError: The file cannot be read.
    """
    from heterodyne.data import open_two_time

    for name, value in (("--q", q), ("--dt", dt)):
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"the value is {value:g}", where=name, allowed="above 0")
    file = open_two_time(path, dt=dt)
    values = [one.q for one in file.bins]
    chosen_q = values[0] if q is None else min(values, key=lambda known: abs(known - q))
    same = [k for k, known in enumerate(values) if abs(known - chosen_q) <= 5e-4 * chosen_q]
    chosen = same[:MOST_BINS]
    last = min(file.n_frames, MOST_FRAMES)
    data = file.load(chosen, frames=(1, last), asymmetric="average")
    note = (
        f"Looked at {len(chosen)} of {len(same)} angles at q = {chosen_q:.6g} 1/Å, "
        f"frames 1 to {last} of {file.n_frames}."
    )
    return Survey(file, data, _findings(data), note)


def _findings(data: TwoTimeData) -> tuple[Finding, ...]:
    from heterodyne.data import Finding, assess
    from heterodyne.data.select import exclude_frames

    try:
        return assess(exclude_frames(data, ()))
    except DataError as error:
        found = Finding("not_finite", "error", f"{error.problem}.", f"{error.remedy}.")
        return (*data.findings, found)


def bin_table(file: TwoTimeFile) -> str:
    """Table of the bins of a file; one row per q where there are many."""
    from heterodyne.cli._output import table

    def angle(phi: float | None) -> str:
        return "–" if phi is None else f"{phi:.2f}"

    if len(file.bins) <= _MOST_LISTED:
        rows = [(str(b.label), f"{b.q:.6g}", angle(b.phi)) for b in file.bins]
        return table(("bin", "q (1/Å)", "phi (deg)"), rows, left=())
    counts = Counter(f"{one.q:.6g}" for one in file.bins)
    rows = [
        (q, str(count), ", ".join(angle(b.phi) for b in file.bins if f"{b.q:.6g}" == q)[:60])
        for q, count in counts.items()
    ]
    return table(("q (1/Å)", "bins", "phi (deg)"), rows, left=(2,))
