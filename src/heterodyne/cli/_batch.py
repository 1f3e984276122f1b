"""A run file of several files or wavevectors: each member is sampled as a run of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from heterodyne._errors import DataError, HeterodyneError, InterruptedRunError
from heterodyne._events import Message
from heterodyne.cli import _output, _run
from heterodyne.cli._progress import progress
from heterodyne.cli.report import write_report

if TYPE_CHECKING:
    from heterodyne._events import EventSink
    from heterodyne.config.schema import RunConfig
    from heterodyne.data.batch import Member
    from heterodyne.io.batch_folder import BatchFolder

_ALL_REFUSED = DataError.exit_code
_NOT_CONVERGED = 3
_PROCESSES = ("multiprocessing", "worker_pool")
_SHOWN = {"J_ref": "Å²/s", "J_sample": "Å²/s", "v": "Å/s", "s": ""}


def members(config: RunConfig) -> list[Member]:
    """List the runs that a run file asks for, each with its own run file and folder."""
    from heterodyne.data.batch import find_members

    return list(find_members(config))


def sample(
    config: RunConfig,
    *,
    force: bool = False,
    resume: bool = False,
    workers: int | None = None,
    as_json: bool = False,
    quiet: bool = False,
) -> None:
    """Sample all members of a batch and summarise them.

    Args:
        config: A run file of several files or wavevectors.
        force: Whether results that are there are replaced.
        resume: Whether there must be a batch to go on with.
        workers: Number of processes; by default as the run file says.
        as_json: Print one JSON document.
        quiet: Show no progress.

    Raises:
        DataError: A file is missing, or no file has a q that is asked for.
        ConfigError: The folder belongs to other settings.
        InterruptedRunError: The batch was stopped; the same command goes on with it.
        Exit: With code 3 if a member has not converged, with 2 if none has results.
    """
    from heterodyne.io.batch_folder import BatchFolder

    if resume:
        BatchFolder.open(config.output.directory)
    listed = {one.name: one.config for one in members(config)}
    described = {name: one.model_dump(mode="json") for name, one in listed.items()}
    batch = BatchFolder.create(config.output.directory, described, force=force)
    if workers is None and config.cluster is None and not _asks_for_processes(config):
        problems = _one_after_the_other(batch, list(listed), quiet)
    else:
        problems = _shared(batch, config, listed, workers, quiet)
    report(batch, problems, as_json)


def _asks_for_processes(config: RunConfig) -> bool:
    return config.cmc_config().backend_name in _PROCESSES


def report(batch: BatchFolder, problems: Mapping[str, str], as_json: bool) -> None:
    """Write what a batch has found, and print it.

    Args:
        batch: The folder.
        problems: Why a member has no results, by its name.
        as_json: Print one JSON document.

    Raises:
        Exit: With code 3 if a member has not converged, with 2 if none has results.
    """
    from heterodyne.io.batch_folder import PAGE
    from heterodyne.report.batch import write

    found = write(batch, problems)
    page = batch.path / PAGE
    if as_json:
        _output.say_json({"folder": batch.path, "report": page} | found)
    else:
        describe(found)
        _output.say(f"\nReport: {page}")
    judged = found["verdict"]
    if judged["n_without_results"] == judged["n_members"]:
        raise typer.Exit(_ALL_REFUSED)
    if not judged["converged"]:
        raise typer.Exit(_NOT_CONVERGED)


def _one_after_the_other(batch: BatchFolder, names: Sequence[str], quiet: bool) -> dict[str, str]:
    """Sample all members in this process; returns the problems of those without results."""
    problems: dict[str, str] = {}
    for k, name in enumerate(names, 1):
        with progress(quiet) as on_event:
            on_event(Message(f"{name}, {k} of {len(names)}"))
            try:
                done = sample_member(batch.path, name, on_event)
            except InterruptedRunError:
                raise
            except HeterodyneError as error:
                problems[name] = str(error)
                on_event(Message(f"{name}: {error}", "warning"))
            else:
                on_event(Message(outcome(name, done)))
    return problems


def _shared(
    batch: BatchFolder,
    config: RunConfig,
    listed: Mapping[str, RunConfig],
    workers: int | None,
    quiet: bool,
) -> dict[str, str]:
    """Sample members in other processes; returns the problems of those without results."""
    from heterodyne.cli._tasks import perform
    from heterodyne.io.work_folder import Task

    tasks = [Task(name, _cost(one)) for name, one in listed.items()]
    work = batch.work(tasks)
    with progress(quiet) as on_event:
        if config.cluster is not None and workers is None:
            from heterodyne.optimization.cmc.backends.cluster import run_on_cluster

            run_on_cluster(perform, batch.path, tasks, config.cluster, on_event)
        else:
            from heterodyne.optimization.cmc.backends._local_work import LocalWork, run_tasks

            run_tasks(perform, batch.path, tasks, LocalWork(workers), on_event)
    records = work.records()
    return {name: one.problem for name, one in records.items() if one.problem is not None}


def _cost(config: RunConfig) -> float:
    """Cost of a member beside others, for the order in which they are begun."""
    from heterodyne.data.run_data import open_run_file

    try:
        return float(open_run_file(config).n_frames) ** 2
    except DataError:
        return 1.0


def outcome(name: str, figures: Mapping[str, Any]) -> str:
    """Say in a line how a member went.

    Args:
        name: Name of the member.
        figures: From ``sample_member``.
    """
    verdict = "converged" if figures["converged"] else "not converged"
    r_hat, ess = (_output.number(figures[key]) for key in ("r_hat", "ess"))
    return f"{name}: {verdict}, R-hat {r_hat}, {ess} effective draws"


def sample_member(folder: Path, name: str, on_event: EventSink) -> Mapping[str, Any]:
    """Read, fit, sample and report one member, as a run of its own would.

    A member that is finished is left as it is; an interrupted one goes on.

    Args:
        folder: Folder of the batch.
        name: Name of the member.
        on_event: Receives the progress.

    Returns:
        ``r_hat``, ``ess``, ``divergences`` and ``converged``.

    Raises:
        DataError: Its data cannot be used.
        ConfigError: Its folder belongs to other data or settings.
        InterruptedRunError: It was stopped.
    """
    from heterodyne.config.load import check_run_config
    from heterodyne.io.batch_folder import BatchFolder
    from heterodyne.report.members import figures

    config = check_run_config(BatchFolder.open(folder).members[name])
    summary = _finished(config)
    return figures(_sampled(config, on_event) if summary is None else summary)


def _finished(config: RunConfig) -> Mapping[str, Any] | None:
    """Summary of a run that is whole; None if it is still to be done.

    Raises:
        ConfigError: The folder belongs to other data or settings.
    """
    from heterodyne.data.run_data import open_run_file
    from heterodyne.io.run_folder import MANIFEST, REPORT, SUMMARY, RunFolder

    folder = RunFolder(Path(config.output.directory))
    if not all(folder.file(name).is_file() for name in (MANIFEST, SUMMARY, REPORT)):
        return None
    _run.check_source(config, open_run_file(config))
    return folder.read_json(SUMMARY)


def _sampled(config: RunConfig, on_event: EventSink) -> Mapping[str, Any]:
    from heterodyne.data.run_data import read_run_data
    from heterodyne.optimization.cmc import _pipeline

    data = read_run_data(config)
    folder = _run.open_folder(config, data, force=False)
    done = _pipeline.run(config, data, folder, on_event)
    write_report(folder.path)
    folder.remove_checkpoints()
    return done.summary


def describe(found: Mapping[str, Any]) -> None:
    """Print the verdict of a batch, then a table with a line for each member.

    Args:
        found: What ``batch.json`` holds.
    """
    judged = found["verdict"]
    _output.say(_output.wrapped(judged["headline"]))
    for text in judged["sentences"]:
        _output.say(_output.wrapped(text, "  "))
    with_rows = [one for one in found["members"] if one["rows"]]
    if with_rows:
        header = ("member", *(f"{n} ({u})" if u else n for n, u in _SHOWN.items()), "believe")
        rows = [_line(one) for one in with_rows]
        _output.say("\nIn the middle of the window, median ± sd:\n")
        _output.say(_output.table(header, rows, left=(0, 5)))


def _line(one: Mapping[str, Any]) -> tuple[str, ...]:
    cells = []
    for curve in _SHOWN:
        rows = [row for row in one["rows"] if row["quantity"].startswith(f"{curve}(")]
        cells.append(_cell(rows[len(rows) // 2]) if rows else "–")
    return (one["name"], *cells, one["believe"] if one["converged"] else "nothing")


def _cell(row: Mapping[str, Any]) -> str:
    return " ± ".join(_output.measured(row["median"], row["sd"]))
