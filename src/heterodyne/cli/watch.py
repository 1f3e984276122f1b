"""``heterodyne watch``: how far a run is, from another shell or another machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from heterodyne.cli import _output
from heterodyne.cli._options import Json


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run.")],
    once: Annotated[bool, typer.Option("--once", help="Show it once and stop.")] = False,
    interval: Annotated[
        float,
        typer.Option("--interval", metavar="SECONDS", min=0.1, help="Time between two looks."),
    ] = 2.0,
    as_json: Json = False,
) -> None:
    """Show how far a run is, until it ends.

    Reads the folder only, so it works on any machine that sees it: what is done, what runs where
    and since when, what failed and why, the worst R-hat, and the time left.
    """
    from heterodyne.cli._watch_facts import facts
    from heterodyne.cli._watch_view import page

    if as_json:
        _output.say_json(facts(run))
    elif once:
        _output.say(page(facts(run)))
    elif sys.stdout.isatty():
        _follow_on_terminal(run, interval)
    else:
        _follow_in_lines(run, interval)


def _follow_on_terminal(run: Path, interval: float) -> None:
    from rich.live import Live

    from heterodyne.cli._watch_facts import facts
    from heterodyne.cli._watch_view import view

    about = facts(run)
    try:
        with Live(view(about), auto_refresh=False) as live:
            while not _is_over(about):
                time.sleep(interval)
                about = facts(run)
                live.update(view(about), refresh=True)
    except KeyboardInterrupt:
        # To stop looking is no failure.
        return


def _follow_in_lines(run: Path, interval: float) -> None:
    """Print a line whenever there is news, and the whole at the end."""
    from heterodyne.cli._watch_facts import facts
    from heterodyne.cli._watch_view import line, page

    about, shown = facts(run), ""
    while not _is_over(about):
        text = line(about)
        if text != shown:
            _output.say(text)
            sys.stdout.flush()
        shown = text
        time.sleep(interval)
        about = facts(run)
    _output.say(page(about))


def _is_over(about: Mapping[str, Any]) -> bool:
    """Whether nothing changes any more unless someone starts it."""
    work = about.get("work", {"settled": False, "cancelled": False, "running": 0})
    stopped = work["cancelled"] and not work["running"]
    return about["finished"] or work["settled"] or stopped
