"""Numbers as they are written: with the digits that their uncertainty leaves."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TypeGuard

from heterodyne.report.markup import Html, escaped, tag

NONE = "–"
"""What stands where there is no number."""

_DIGITS = 2
_MOST_DECIMALS = 6
_LARGEST = 1e7
_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_GREEK = {"alpha": "α", "beta": "β"}


@dataclass(frozen=True)
class Rounding:
    """Digits that a group of numbers shares.

    Attributes:
        decimals: Digits after the point; negative where tens or hundreds are rounded.
        exponent: Power of ten taken out of every number.
    """

    decimals: int
    exponent: int = 0

    @classmethod
    def of(cls, sd: float | None, *values: float | None) -> Rounding:
        """Give an uncertainty two significant digits, and every value the same last place.

        Args:
            sd: The uncertainty; if there is none, the largest value gets four digits.
            values: Numbers that will be written.
        """
        sizes = [abs(v) for v in values if known(v)]
        largest = max([*sizes, abs(sd) if known(sd) else 0.0], default=0.0)
        if known(sd) and sd > 0:
            decimals = _DIGITS - 1 - _power(sd, _DIGITS)
        elif largest > 0:
            decimals = 3 - _power(largest, 4)
        else:
            return cls(0)
        if decimals > _MOST_DECIMALS or largest >= _LARGEST:
            exponent = _power(largest, 1)
            return cls(max(decimals + exponent, 0), exponent)
        return cls(decimals)

    def __call__(self, value: float | None) -> str:
        """Write a number; a dash where there is none."""
        if not known(value):
            return NONE
        # The power itself may be too small for a float.
        scaled = float(Decimal(value).scaleb(-self.exponent))
        rounded = round(scaled, self.decimals) + 0.0
        text = f"{rounded:,.{max(self.decimals, 0)}f}"
        power = f"×10{str(self.exponent).translate(_RAISED)}" if self.exponent else ""
        return _spaced(text) + power


def _power(size: float, digits: int) -> int:
    """Power of ten of the first digit, after rounding to some significant digits."""
    return int(f"{abs(size):.{digits - 1}e}".partition("e")[2])


def _spaced(text: str) -> str:
    """Narrow spaces between thousands from 10 000 on, and a proper minus."""
    whole, point, rest = text.partition(".")
    groups = whole.lstrip("-").split(",")
    if len(groups) == 2 and len(groups[0]) == 1:
        whole = whole.replace(",", "")
    return whole.replace(",", "\u202f").replace("-", "−") + point + rest


def known(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def plus_minus(value: float | None, sd: float | None) -> str:
    """Write a value with its uncertainty; powers of ten stand behind both."""
    if not known(sd):
        return significant(value, 4)
    rounding = Rounding.of(sd, value)
    if rounding.exponent:
        plain = Rounding(rounding.decimals)
        scale = 10.0**rounding.exponent
        power = str(rounding.exponent).translate(_RAISED)
        centre = NONE if value is None else plain(value / scale)
        return f"({centre} ± {plain(sd / scale)})×10{power}"
    return f"{rounding(value)} ± {rounding(sd)}"


def significant(value: float | None, digits: int = 3) -> str:
    """Write a number without an uncertainty."""
    if not known(value):
        return NONE
    if value == 0:
        return "0"
    power = _power(value, digits)
    if not -5 < power < 7:
        return Rounding(digits - 1, power)(value)
    return Rounding(digits - 1 - power)(value)


def exact(value: float | None, digits: int = 6) -> str:
    """Write a setting: a number without an error, with no zeros at its end."""
    if not known(value):
        return NONE
    return _spaced(f"{value:.{digits}g}".replace("e-0", "e-").replace("e+0", "e+"))


def count(value: float | None) -> str:
    """Write a whole number."""
    return Rounding(0)(value)


def percent(share: float | None) -> str:
    """Write a share as a percentage."""
    return NONE if not known(share) else f"{significant(100.0 * share, 2)} %"


def duration(seconds: float | None) -> str:
    """Write a time span in the unit that suits it."""
    if not known(seconds):
        return NONE
    if seconds < 100:
        return f"{significant(seconds, 2)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def moment(text: str | None) -> str | None:
    """Write an ISO time to the minute, in UTC; other texts stay as they are."""
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        return text
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def unit(text: str | None) -> Html:
    """Write a unit with raised exponents; the original is shown on hovering."""
    if not text:
        return Html(NONE)
    shown = str(escaped(text))
    for word, letter in _GREEK.items():
        shown = shown.replace(word, letter)
    raised = re.sub(r"\^\(?([^)\s]+)\)?", r"<sup>\1</sup>", shown)
    return tag("span", Html(raised), class_="unit", title=text)
