"""``heterodyne fit``: least squares, without draws."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from heterodyne._errors import DataError
from heterodyne.cli import _output, _run
from heterodyne.cli._options import Force, Json, Quiet, RunFile, Settings
from heterodyne.cli._progress import progress

if TYPE_CHECKING:
    from heterodyne._events import EventSink
    from heterodyne.config.schema import RunConfig
    from heterodyne.data import TwoTimeData

_NOT_CONVERGED = 3


def command(
    run: RunFile,
    settings: Settings = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit by least squares.

    Prints the values and writes them into the run folder.
    """
    from heterodyne.data.batch import is_batch

    config = _run.load(run, settings)
    if is_batch(config):
        _fit_batch(config, force=force, as_json=as_json, quiet=quiet)
        return
    folder, record = _fit_one(config, force, quiet)
    if as_json:
        _output.say_json({"folder": folder} | record)
    else:
        _describe(record)
        _output.say(f"\nResults: {folder}")
    if not record["success"]:
        raise typer.Exit(_NOT_CONVERGED)


def _fit_one(config: RunConfig, force: bool, quiet: bool) -> tuple[Path, dict[str, Any]]:
    """Fit the data of a run; returns its folder and the record of the fit."""
    from heterodyne.data.run_data import read_run_data
    from heterodyne.io.run_folder import FIT

    data = read_run_data(config)
    if not force:
        _run.check_folder(config, data)
    with progress(quiet) as on_event:
        record = _fit(config, data, on_event)
    folder = _run.open_folder(config, data, force=force)
    folder.write_json(FIT, record)
    return folder.path, record


def _fit_batch(config: RunConfig, *, force: bool, as_json: bool, quiet: bool) -> None:
    """Fit all members of a batch, one after the other."""
    from heterodyne.data.batch import find_members

    found: list[dict[str, Any]] = []
    for one in find_members(config):
        about = {"member": one.name, "folder": one.config.output.directory}
        try:
            _, record = _fit_one(one.config, force, quiet)
        except DataError as error:
            record = {"success": False, "problem": str(error)}
        found.append(about | record)
        if not as_json:
            _output.say(f"{one.name}\n{'-' * len(one.name)}")
            _describe_member(found[-1])
    if as_json:
        _output.say_json({"members": found})
    if all("problem" in one for one in found):
        raise typer.Exit(DataError.exit_code)
    if not all(one["success"] for one in found):
        raise typer.Exit(_NOT_CONVERGED)


def _describe_member(record: Mapping[str, Any]) -> None:
    if "problem" in record:
        _output.say(f"{_output.wrapped(record['problem'])}\n")
    else:
        _describe(record)
        _output.say(f"\nResults: {record['folder']}\n")


def _fit(config: RunConfig, data: TwoTimeData, on_event: EventSink) -> dict[str, Any]:
    from heterodyne.optimization.bind import fit_run
    from heterodyne.optimization.nlsq.record import fit_record

    return fit_record(fit_run(config, data, on_event).result)


def _describe(record: Mapping[str, Any]) -> None:
    _output.say(f"The fit {record['message']}.\n")
    for title, entries in (("parameter", record["parameters"]), ("derived", record["derived"])):
        if entries:
            _output.say(f"{_values(title, entries)}\n")
    if record["fixed"]:
        fixed = ", ".join(f"{name} = {value:g}" for name, value in record["fixed"].items())
        _output.say(_output.pairs([("fixed", fixed)]))
    _output.say(_output.pairs(_quality(record)))
    found = record["identifiability"]
    if found is not None and found["sentences"]:
        _output.say("\nWhat the data inform:")
        for sentence in found["sentences"]:
            _output.say(_output.wrapped(sentence, "  "))


def _values(title: str, entries: list[Mapping[str, Any]]) -> str:
    rows = []
    for one in entries:
        value, error = _output.measured(one["value"], one["error"])
        rows.append((one["name"], value, "±", error, one["unit"] or "–"))
    return _output.table((title, "value", "", "error", "unit"), rows, left=(0, 4))


def _quality(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    entries = [
        ("unique pairs", f"{record['n_pairs']:,}"),
        ("residual", f"{_output.number(record['sigma'])} (root mean square)"),
        ("reduced chi²", _output.number(record["reduced_chi_square"], 3)),
    ]
    if record["modes"]:
        others = ", ".join(_output.number(x, 3) for x in record["modes"][:5])
        entries.append(("other minima", f"chi² higher by {others}"))
    return entries
