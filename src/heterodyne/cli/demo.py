"""``python -m heterodyne.cli.demo FOLDER``: from simulated speckles to the truth and back."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from heterodyne._errors import HeterodyneError
from heterodyne.cli import _output
from heterodyne.cli.main import USAGE
from heterodyne.cli.main import main as heterodyne

FIT_PICTURE = "fit.png"
CURVES_PICTURE = "curves.png"
_DONE = (0, 3)
"""Exit codes after which there are results to look at."""


def main(
    args: Sequence[str] | None = None,
    *,
    simulate: Sequence[str] = (),
    sample: Sequence[str] = (),
) -> int:
    """Simulate a creeping flow, find its parameters, and print them beside the truth.

    Args:
        args: The folder to work in; the arguments of the process by default.
        simulate: Further arguments of ``heterodyne simulate``.
        sample: Further arguments of ``heterodyne sample``.

    Returns:
        The exit code of ``heterodyne sample``, or of the command that failed before it.
    """
    words = sys.argv[1:] if args is None else args
    if len(words) != 1 or words[0].startswith("-"):
        _output.talk("Usage: python -m heterodyne.cli.demo FOLDER")
        return USAGE
    folder = Path(words[0])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _output.talk(f"{folder}: the folder cannot be made ({error.strerror}).")
        return USAGE
    data, run_file, results = folder / "two_time.h5", folder / "run.yaml", folder / "results"
    for command in (
        ["simulate", f"{data}", "--force", *simulate],
        ["init", f"{data}", "-o", f"{run_file}", "--force"],
        ["check", f"{run_file}"],
    ):
        code = _run(command)
        if code:
            return code
    outcome = _run(["sample", f"{run_file}", "--force", *sample])
    if outcome not in _DONE:
        return outcome
    code = _run(["report", f"{results}"])
    if code:
        return code
    try:
        _output.say(f"\n{comparison(data, results)}")
        draw(data, results, folder)
    except HeterodyneError as error:
        _output.talk(f"{error}")
        return error.exit_code
    _output.say(f"\nPictures: {folder / FIT_PICTURE}, {folder / CURVES_PICTURE}")
    _output.say(f"Report, for a browser: {results / 'report.html'}")
    return outcome


def _run(words: Sequence[str]) -> int:
    """Run a command of the command line in this process, as if it had been typed."""
    _output.talk(f"\n$ heterodyne {shlex.join(words)}")
    with _typed(words):
        return heterodyne(words)


@contextmanager
def _typed(words: Sequence[str]) -> Iterator[None]:
    """Let the record of a run name its own command."""
    before = sys.argv
    sys.argv = ["heterodyne", *words]
    try:
        yield
    finally:
        sys.argv = before


def comparison(data: Path, results: Path) -> str:
    """Table of true values and intervals, and how many of these hold the truth.

    Args:
        data: File with the truth.
        results: Run folder of its posterior.

    Raises:
        HeterodyneError: The truth or the results cannot be read.
    """
    from heterodyne.data.truth import read_truth
    from heterodyne.io.run_folder import DATA, SUMMARY, RunFolder

    folder = RunFolder.open(results)
    rows = folder.read_json(SUMMARY)["rows"]
    truth = _known(read_truth(data), folder.read_json(DATA), rows)
    shown = [row for row in rows if row["name"] in truth]
    kinds = {"plain": shown, "corrected": [row for row in shown if row["corrected"]]}
    counts = [
        f"{sum(_holds(_bounds(row, kind), truth[row['name']]) for row in held)} of {len(held)} "
        f"{kind} intervals"
        for kind, held in kinds.items()
        if held
    ]
    header = ("name", "truth", "median", "plain 95 %", "in", "corrected 95 %", "in")
    cells = [_cells(row, truth[row["name"]]) for row in shown]
    table = _output.table(header, cells, left=(0, 4, 6))
    return f"{table}\n\nThe truth is inside {' and '.join(counts)}."


def _known(
    truth: Mapping[str, float], facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """True value of every row that has one, by its name."""
    import numpy as np

    from heterodyne.optimization.derived import Derived

    derived = Derived.of(np.linspace(facts["t_first"], facts["t_last"], facts["n_frames"]))
    values = derived.batch(np.array([_physics(truth)]))[0].tolist()
    known = dict(zip(derived.names, values, strict=True))
    for row in rows:
        name = row["name"]
        base = name.rpartition("_")[0] if row["kind"] == "scaling" and "_" in name else name
        if base in truth:
            known[name] = truth[base]
    return known


def _physics(truth: Mapping[str, float]) -> list[float]:
    """True physics parameters in canonical order."""
    from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES

    return [truth[name] for name in PHYSICS_PARAM_NAMES]


def _bounds(row: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return row if kind == "plain" else row["corrected"]


def _holds(interval: Mapping[str, Any], value: float) -> bool:
    return interval["low"] <= value <= interval["high"]


def _cells(row: Mapping[str, Any], true: float) -> tuple[str, ...]:
    best = row["corrected"] or row
    median = _output.measured(best["median"], best["sd"])[0]
    intervals = []
    for one in (row, row["corrected"]):
        if one is None:
            intervals += ["–", "–"]
            continue
        low, high = (_output.measured(one[end], one["sd"])[0] for end in ("low", "high"))
        intervals += [f"{low} to {high}", "yes" if _holds(one, true) else "no"]
    return (row["name"], _output.number(true, 5), median, *intervals)


def draw(data: Path, results: Path, folder: Path) -> None:
    """Draw the fit of the first angle, and the posterior with the true curves.

    Args:
        data: File with the truth.
        results: Run folder of its posterior.
        folder: Where the pictures go.

    Raises:
        HeterodyneError: The truth or the results cannot be read.
    """
    import numpy as np

    from heterodyne.data.truth import read_truth
    from heterodyne.io.files import replacing
    from heterodyne.io.run_folder import CURVES, MAPS, RunFolder
    from heterodyne.optimization.cmc._quantities import curve_bands
    from heterodyne.viz import fits, posterior, style

    run = RunFolder.open(results)
    maps, curves = run.read_npz(MAPS), run.read_npz(CURVES)
    measured, model, residual, phi = (
        maps[key][:1] for key in ("measured", "model", "residual", "phi")
    )
    known = curve_bands(np.array([_physics(read_truth(data))]), curves["t"])
    pictures = {
        FIT_PICTURE: fits.fit_maps(measured, model, residual, maps["t"], phi),
        CURVES_PICTURE: posterior.bands(
            curves["t"], curves, {name: quantiles[1] for name, quantiles in known.items()}
        ),
    }
    for name, figure in pictures.items():
        with replacing(folder / name) as partial:
            partial.write_bytes(style.png(figure))


if __name__ == "__main__":
    sys.exit(main())
