"""A result as a table, in text and in HTML."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from heterodyne._errors import ConfigError

if TYPE_CHECKING:
    from heterodyne.optimization.cmc.results import CMCResult

LEVELS = ("95", "89")
NOT_KNOWN = "N/A"
PLAIN = "For independent pairs, which is too narrow under speckle noise:"
_NOT_CONVERGED = "Not converged: do not use these numbers."
_WIDTHS = (12, 11, 12, 12, 7, 7)
_SHORTEST_NAME = 12
_WIDTH = 80
# Beyond these, figures are written with a power of ten.
_MOST_DECIMALS, _MOST_DIGITS = 7, 8


def headlines(result: CMCResult) -> Iterator[str]:
    """Say whether to believe a result, the verdict first."""
    verdict = result.metadata.get("verdict")
    if verdict is None:
        yield "Converged." if result.convergence_passed else _NOT_CONVERGED
        return
    yield str(verdict["headline"])
    if result.convergence_passed and not verdict["converged"]:
        limits = result.metadata["limits"]
        yield (
            f"The wider limits of the configuration were reached (R-hat {limits['r_hat']:g}, "
            f"{limits['ess']:g} effective draws)."
        )


def text_table(result: CMCResult, ci_level: str = "95", width: int | None = None) -> str:
    """Write the parameters of a result below each other.

    Args:
        result: The result.
        ci_level: Probability of the intervals in percent, ``95`` or ``89``.
        width: Width of the table in characters; gaps and then names are cut to fit. None takes
            80, or more where the figures need it.

    Raises:
        ConfigError: A level that a result does not hold, or a width in which the figures do
            not fit.
    """
    lines = [heads(ci_level), *rows(result, ci_level)]
    room, *sizes = _widths(lines, width)

    def line(entries: tuple[str, ...]) -> str:
        name = entries[0] if len(entries[0]) < room else entries[0][: room - 2] + "… "
        return name.ljust(room) + "".join(
            entry.rjust(size) for entry, size in zip(entries[1:], sizes, strict=True)
        )

    head, *body = map(line, lines)
    return "\n".join([head, "-" * len(head), *body])


def _widths(lines: Sequence[tuple[str, ...]], width: int | None) -> list[int]:
    """Widths of the columns, the names first; each entry has a space beside it."""
    names, *figures = ([len(entry) + 1 for entry in column] for column in zip(*lines, strict=True))
    sizes = [max(column) for column in figures]
    room = min(_SHORTEST_NAME, max(names))
    least = room + sum(sizes)
    total = max(_WIDTH, least) if width is None else width
    if total < least:
        raise ConfigError(
            f"a table of {total} characters",
            where="width",
            allowed=f"at least {least}, which these figures need",
        )
    spare = total - least
    longer = min(spare, max(names) - room)
    room, spare = room + longer, spare - longer
    wanted = [max(pair) for pair in zip(sizes, _WIDTHS, strict=True)]
    while spare and sizes != wanted:
        gaps = [most - size for most, size in zip(wanted, sizes, strict=True)]
        sizes[gaps.index(max(gaps))] += 1
        spare -= 1
    return [room + spare, *sizes]


def html_table(result: CMCResult, ci_level: str = "95") -> str:
    """Write the parameters of a result as an HTML table."""

    def row(entries: tuple[str, ...], tag: str) -> str:
        return "".join(f"<{tag}>{escape(entry)}</{tag}>" for entry in entries)

    body = "".join(f"<tr>{row(entries, 'td')}</tr>" for entries in rows(result, ci_level))
    return (
        f"<table><thead><tr>{row(heads(ci_level), 'th')}</tr></thead><tbody>{body}</tbody></table>"
    )


def heads(ci_level: str) -> tuple[str, ...]:
    """Return the heads of the columns.

    Raises:
        ConfigError: A level that a result does not hold.
    """
    if ci_level not in LEVELS:
        raise ConfigError(f"level {ci_level!r}", where="ci_level", allowed=", ".join(LEVELS))
    return ("Parameter", "Mean", "Std", f"{ci_level}% low", f"{ci_level}% high", "R-hat", "ESS")


def rows(result: CMCResult, ci_level: str) -> Iterator[tuple[str, ...]]:
    """Return the entries of the table, one row for each parameter."""
    for name in result.parameter_names:
        at = result.get_param_summary(name)
        std = float(at["std"])
        low, high = at.get(ci_level, (math.nan, math.nan))
        values = (at["mean"], std, low, high)
        ess = at["ess_bulk"]
        yield (
            name,
            *(figure(float(x), std) for x in values),
            f"{at['r_hat']:.3f}" if math.isfinite(at["r_hat"]) else NOT_KNOWN,
            f"{ess:.0f}" if math.isfinite(ess) else NOT_KNOWN,
        )


def figure(x: float, std: float) -> str:
    """Write a number to two digits of its standard deviation."""
    if not math.isfinite(x):
        return NOT_KNOWN if math.isnan(x) else f"{x:g}"
    if not (math.isfinite(std) and std > 0):
        return f"{x:.5g}"
    decimals = max(0, 1 - math.floor(math.log10(std)))
    if decimals > _MOST_DECIMALS or abs(x) >= 10.0**_MOST_DIGITS:
        return f"{x:.3e}"
    return f"{x:.{decimals}f}"
