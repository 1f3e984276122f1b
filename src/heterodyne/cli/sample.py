"""``heterodyne sample``: draws from the posterior, and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heterodyne._cores import use_one_blas_thread
from heterodyne._errors import ConfigError
from heterodyne.cli import _batch, _output, _run
from heterodyne.cli._options import Force, Json, Quiet, RunFile, Settings
from heterodyne.cli._progress import progress
from heterodyne.cli.report import write_report

if TYPE_CHECKING:
    from heterodyne.config.schema import RunConfig

_NOT_CONVERGED = 3


def command(
    run: RunFile,
    settings: Settings = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run.")
    ] = False,
    force: Force = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            help="Processes that share the members of a batch, or the shards of a run.",
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw from the posterior and report.

    Fits first, then draws, and writes all results into the run folder. A run file of several
    files or q is a batch: each member gets a run folder, and a summary lies beside them.
    """
    use_one_blas_thread()
    from heterodyne.data.batch import is_batch
    from heterodyne.data.run_data import read_run_data
    from heterodyne.io.run_folder import RunFolder

    config = _run.load(run, settings)
    _check(run, config, force=force, resume=resume)
    if is_batch(config):
        asked = {"force": force, "resume": resume, "workers": workers}
        _batch.sample(config, **asked, as_json=as_json, quiet=quiet)
        return
    if workers is not None:
        _check_divided(config)
    if resume:
        RunFolder.open(config.output.directory)
    data = read_run_data(config)
    folder = _run.open_folder(config, data, force=force)
    with progress(quiet) as on_event:
        from heterodyne.cli._transport import transport_of
        from heterodyne.optimization.cmc import _pipeline

        transport = transport_of(config, folder, on_event, workers)
        done = _pipeline.run(config, data, folder, on_event, resume=resume, transport=transport)
    report = write_report(folder.path)
    folder.remove_checkpoints()
    if as_json:
        _output.say_json({"folder": folder.path, "report": report} | dict(done.summary))
    else:
        describe(done.summary)
        _output.say(f"\nReport: {report}")
    if not done.verdict.usable:
        raise typer.Exit(_NOT_CONVERGED)


def _check(run: Path, config: RunConfig, *, force: bool, resume: bool) -> None:
    """Refuse what cannot be meant.

    Raises:
        ConfigError: There is nothing to draw, or options contradict each other.
    """
    if config.optimization.method != "cmc":
        raise ConfigError(
            f"optimization.method is {config.optimization.method}, so there is nothing to draw",
            where=run,
            remedy="Use 'heterodyne fit', or --set optimization.method=cmc",
        )
    if force and resume:
        raise ConfigError(
            "--force starts anew and --resume goes on",
            where="sample",
            remedy="Give one of them",
        )


def _check_divided(config: RunConfig) -> None:
    """Refuse processes for a run that has nothing to share.

    Raises:
        ConfigError: The run is not divided into shards.
    """
    from heterodyne.optimization.cmc._divide import asks_for_shards

    if not asks_for_shards(config.cmc_config()):
        raise ConfigError(
            "this is one run over all pairs, and processes share the shards of a run or the runs "
            "of a batch",
            where="--workers",
            remedy="Leave it out, or divide the pairs with --set "
            "optimization.cmc.sharding.num_shards=8",
        )


def describe(summary: Mapping[str, Any]) -> None:
    """Print the verdict, then the table of results.

    Args:
        summary: The contents of ``summary.json``.
    """
    verdict = summary["verdict"]
    _output.say(_output.wrapped(verdict["headline"]))
    for text in verdict["sentences"]:
        _output.say(_output.wrapped(text, "  "))
    for text in verdict["advice"]:
        _output.say(_output.wrapped(f"Advice: {text}", "  "))
    _output.say(f"\n{_values(summary['rows'])}")
    if verdict["usable"]:
        _output.say(f"\nIntervals to believe: {verdict['believe']}.")


def _values(rows: Sequence[Mapping[str, Any]]) -> str:
    """Table of the results; what does not fit on the page is left to the report."""
    corrected = any(row["corrected"] for row in rows)
    intervals = ("plain 95 %", "corrected 95 %") if corrected else ("95 % interval", "sd")
    header = ("name", "median", *intervals, "informed", "unit")
    text = _output.table(header, [_cells(row, corrected) for row in rows], left=(0, 5))
    if max(map(len, text.splitlines())) <= _output.WIDTH:
        return text
    shorter = [(*cells[:4], cells[5]) for cells in (_cells(row, corrected) for row in rows)]
    return _output.table((*header[:4], header[5]), shorter, left=(0, 4))


def _cells(row: Mapping[str, Any], corrected: bool) -> tuple[str, ...]:
    best = row["corrected"] or row
    median, sd = _output.measured(best["median"], best["sd"])
    second = sd
    if corrected:
        second = _interval(row["corrected"], row["corrected"]["sd"]) if row["corrected"] else "–"
    contraction = row["contraction"]
    informed = "–" if contraction is None else f"{max(contraction, 0.0):.0%}"
    return (row["name"], median, _interval(row, row["sd"]), second, informed, row["unit"] or "–")


def _interval(row: Mapping[str, Any], sd: float | None) -> str:
    low, high = (_output.measured(row[end], sd)[0] for end in ("low", "high"))
    return f"{low} to {high}"
