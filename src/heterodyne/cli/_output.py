"""Text for terminals: tables, values with errors, paragraphs, JSON documents."""

from __future__ import annotations

import math
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from heterodyne.optimization.cost import duration as duration
from heterodyne.optimization.cost import memory as memory

WIDTH = 100
"""Widest line that is printed."""


def say(text: str = "") -> None:
    """Print a line of the result."""
    sys.stdout.write(f"{text}\n")


def say_json(document: object) -> None:
    """Print the one JSON document of a command."""
    from heterodyne.io.files import to_json

    say(to_json(document))


def talk(text: str) -> None:
    """Print a paragraph to the person at the terminal, not to the result.

    It is wrapped where someone looks at it and stays one line for programs.
    """
    if sys.stderr.isatty():
        width = min(WIDTH, shutil.get_terminal_size().columns)
        text = "\n".join(wrapped(line, width=width) for line in text.splitlines())
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def wrapped(text: str, indent: str = "", *, width: int = WIDTH) -> str:
    """Wrap a paragraph; words, paths among them, stay whole."""
    return textwrap.fill(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, left: Sequence[int] = (0,)
) -> str:
    """Align cells in columns, two spaces apart.

    Args:
        header: Names of the columns.
        rows: Cells, as many as names in each row.
        left: Columns that are aligned at the left; the others at the right.
    """
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(header))]

    def written(line: Sequence[str]) -> str:
        cells = (
            cell.ljust(width) if k in left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([written(lines[0]), rule, *(written(line) for line in lines[1:])])


def pairs(entries: Iterable[tuple[str, str]], indent: str = "") -> str:
    """Align names and what is said about them; long texts go on below their start."""
    known = list(entries)
    width = max(len(name) for name, _ in known) + 2
    hanging = indent + " " * width
    return "\n".join(
        textwrap.fill(
            text,
            WIDTH,
            initial_indent=f"{indent}{name.ljust(width)}",
            subsequent_indent=hanging,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name, text in known
    )


def number(value: float | None, digits: int = 4) -> str:
    """Shortest text of a number to some significant digits."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.{digits}g}"


def measured(value: float, error: float | None) -> tuple[str, str]:
    """Write a value to the digits that its error allows, and the error to two digits.

    Args:
        value: The value.
        error: Its standard error; None or infinite where it is open, 0 where it is exact.

    Returns:
        Texts of value and error with equal decimals, each with the same power of ten.
    """
    if error is None or not math.isfinite(error):
        return number(value, 3), "open"
    if error == 0:
        return number(value, 6), "0"
    largest = max(abs(value), error)
    power = math.floor(math.log10(largest))
    shift = power if not -3 <= power < 6 else 0
    decimals = min(max(0, 1 - math.floor(math.log10(error)) + shift), 12)
    suffix = f"e{shift:+03d}" if shift else ""
    scale = 10.0**shift
    # Adding 0 turns the -0 of a small negative value into 0.
    rounded = round(value / scale, decimals) + 0.0
    return f"{rounded:.{decimals}f}{suffix}", f"{error / scale:.{decimals}f}{suffix}"


def findings(found: Iterable[Mapping[str, Any]]) -> str:
    """List findings, each with its advice.

    Args:
        found: Mappings with ``severity``, ``text`` and ``advice``.
    """
    entries = [(one["severity"], f"{one['text']} {one['advice']}") for one in found]
    return pairs(entries, "  ") if entries else "  none"
