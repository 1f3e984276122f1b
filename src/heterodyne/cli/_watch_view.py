"""How work that goes on is shown: as lines, and as a view that is drawn anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from heterodyne.cli import _output
from heterodyne.cli._watch_facts import tasks_in
from heterodyne.io.work_folder import Status

if TYPE_CHECKING:
    from rich.console import RenderableType

_MOST_ROWS = 12
_STYLES = {
    Status.DONE: "green",
    Status.RUNNING: "cyan",
    Status.SILENT: "yellow",
    Status.FAILED: "red",
    Status.WAITING: "dim",
}
_WORDS = {Status.SILENT: "without sign of life"}
_HEADER = ("running", "where", "for", "heard", "doing")


def line(about: Mapping[str, Any]) -> str:
    """Say in one line how far the work is.

    Args:
        about: From ``facts``.
    """
    if "work" not in about:
        return "; ".join(_stage_text(one) for one in about["runs"])
    work = about["work"]
    text = f"{work['share']:.0%}: {', '.join(text for _, text in _counts(work))}"
    return "; ".join([text, *_figures(work)])


def page(about: Mapping[str, Any]) -> str:
    """Say all there is in lines.

    Args:
        about: From ``facts``.
    """
    if "work" not in about:
        return "\n".join([about["folder"], *(f"  {_stage_text(one)}" for one in about["runs"])])
    work = about["work"]
    parts = [f"{about['folder']}: {work['total']} tasks of the kind {work['kind']}", line(about)]
    rows = _running(work)
    if rows:
        parts += ["", _output.table(_HEADER, rows, left=(0, 1, 4))]
    problems = _problems(work)
    if problems:
        parts += ["", _output.pairs(problems)]
    note = _note(about)
    return "\n".join([*parts, "", note] if note else parts)


def view(about: Mapping[str, Any]) -> RenderableType:
    """Make what a terminal shows.

    Args:
        about: From ``facts``.
    """
    from rich.console import Group
    from rich.text import Text

    if "work" not in about:
        return Text(page(about))
    work = about["work"]
    head = Text.assemble((about["folder"], "bold"), f"  {work['total']} tasks ({work['kind']})")
    counts = Text(", ").join(Text(text, _STYLES[status]) for status, text in _counts(work))
    parts: list[RenderableType] = [head, _bar(work), counts]
    figures = _figures(work)
    if figures:
        parts.append(Text(", ".join(figures)))
    rows = _running(work)
    if rows:
        parts += [Text(), _table(rows)]
    problems = _problems(work)
    if problems:
        parts += [Text(), _grid(problems)]
    note = _note(about)
    return Group(*parts, Text(), Text(note, "bold")) if note else Group(*parts)


def _bar(work: Mapping[str, Any]) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    grid = Table.grid(padding=(0, 1))
    grid.add_row(
        ProgressBar(1.0, work["share"], width=50, complete_style="cyan"), f"{work['share']:.0%}"
    )
    return grid


def _table(rows: Sequence[Sequence[str]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in _HEADER:
        right = name in ("for", "heard")
        # Where the terminal is narrow, names and words go on in a second line.
        table.add_column(name, justify="right" if right else "left", no_wrap=right, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _grid(problems: Sequence[tuple[str, str]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="red", overflow="fold")
    grid.add_column(overflow="fold")
    for name, problem in problems:
        grid.add_row(Text(name), Text(problem))
    return grid


def _counts(work: Mapping[str, Any]) -> list[tuple[Status, str]]:
    return [
        (status, f"{work[status.value]} {_WORDS.get(status, status.value)}")
        for status in _STYLES
        if work[status.value] or status is Status.DONE
    ]


def _figures(work: Mapping[str, Any]) -> list[str]:
    found = []
    if work["r_hat"] is not None:
        seen = "" if work["divergences"] is None else f", {work['divergences']} divergences"
        found.append(f"worst R-hat {work['r_hat']:.3f}{seen}")
    if work["seconds_left"] is not None and not work["settled"]:
        found.append(f"about {_output.duration(work['seconds_left'])} left")
    return found


def _running(work: Mapping[str, Any]) -> list[tuple[str, ...]]:
    tasks = tasks_in(work, Status.RUNNING, Status.SILENT)
    rows = [
        (
            task["name"],
            f"{task.get('host', '?').partition('.')[0]}:{task.get('pid', '?')}",
            _output.duration(task["seconds"] or 0.0),
            f"{_output.duration(task['quiet'] or 0.0)} ago",
            _doing(task),
        )
        for task in tasks[:_MOST_ROWS]
    ]
    if len(tasks) > _MOST_ROWS:
        rows.append((f"and {len(tasks) - _MOST_ROWS} more", "", "", "", ""))
    return rows


def _doing(task: Mapping[str, Any]) -> str:
    if task["status"] == Status.SILENT.value:
        return "no sign of life"
    attempt = f" (attempt {task['attempts']})" if task["attempts"] > 1 else ""
    if "stage" not in task:
        return attempt.strip()
    share = f" {task['done'] / task['total']:.0%}" if task["total"] else ""
    return f"{task['stage']}{share}{attempt}"


def _problems(work: Mapping[str, Any]) -> list[tuple[str, str]]:
    failed = tasks_in(work, Status.FAILED)
    found = [(task["name"], task["problem"]) for task in failed[:_MOST_ROWS]]
    if len(failed) > _MOST_ROWS:
        found.append(("...", f"and {len(failed) - _MOST_ROWS} more"))
    return found


def _note(about: Mapping[str, Any]) -> str:
    if about["finished"]:
        return "The run is finished."
    work = about["work"]
    if work["settled"]:
        return "Every task is settled; 'heterodyne sample' writes the results."
    return "The work was cancelled; the same command goes on with it." if work["cancelled"] else ""


def _stage_text(run: Mapping[str, Any]) -> str:
    """Say how far a run without tasks is."""
    ages, stage = run["ages"], run["stage"]
    if stage == "not begun":
        return f"{run['name']}: not begun"
    if stage == "drawing":
        name, age = min(run["checkpoints"].items(), key=lambda one: one[1])
        return f"{run['name']}: drawing, last checkpoint ({name}) {_output.duration(age)} ago"
    age = ages["begun" if stage == "begun" else stage]
    return f"{run['name']}: {stage} {_output.duration(age)} ago"
