"""A result as a table, in text and in HTML."""

from __future__ import annotations

import math
from collections.abc import Iterator
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


def text_table(result: CMCResult, ci_level: str = "95", width: int = 80) -> str:
    """Write the parameters of a result below each other.

    Args:
        result: The result.
        ci_level: Probability of the intervals in percent, ``95`` or ``89``.
        width: Width of the table in characters; names are cut to fit.

    Raises:
        ConfigError: A level that a result does not hold.
    """
    head = heads(ci_level)
    room = max(_SHORTEST_NAME, width - sum(_WIDTHS))

    def line(entries: tuple[str, ...]) -> str:
        name = entries[0] if len(entries[0]) < room else entries[0][: room - 2] + "… "
        return name.ljust(room) + "".join(
            entry.rjust(size) for entry, size in zip(entries[1:], _WIDTHS, strict=True)
        )

    rule = "-" * (room + sum(_WIDTHS))
    return "\n".join([line(head), rule, *map(line, rows(result, ci_level))])


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
