"""Texts that get into job scripts and command lines of batch systems.

Nothing passes that a shell or a batch system could read as a command of its own.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from heterodyne._errors import ConfigError

NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_IN_NAME = r"A-Za-z0-9_.-"
_ON_A_LINE = r"\w .,:=+@/%-"
_NO_CONTROL = r"^\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029"
_UNITS = "kKmMgGtTpPbB"
# So many characters are named.
_NAMED = 8


class TextRule(NamedTuple):
    """Form of a text.

    Attributes:
        pattern: Regular expression of the whole text.
        longest: Largest number of characters.
        allowed: The rule in words.
        characters: All that the text may have, as within the brackets of a regular expression.
        prefix: How the text begins, whatever its characters.
    """

    pattern: str
    longest: int
    allowed: str
    characters: str
    prefix: str = ""

    def offending(self, value: str) -> list[str]:
        """Characters that the text may not have, in the order of their first place."""
        rest = value.removeprefix(self.prefix)
        return list(dict.fromkeys(re.findall(f"(?s:(?![{self.characters}]).)", rest)))


QUEUE = TextRule(
    rf"{NAME}(@{NAME})?",
    64,
    "the name of a queue, or queue@server, of at most 64 letters, digits, _ . and -",
    f"@{_IN_NAME}",
)
ACCOUNT = TextRule(NAME, 64, "a name of at most 64 letters, digits, _ . and -", _IN_NAME)
WALLTIME = TextRule(r"[0-9]{2,4}:[0-5][0-9]:[0-5][0-9]", 10, "HH:MM:SS, above 00:00:00", "0-9:")
MEMORY = TextRule(
    r"[1-9][0-9]*([kKmMgGtTpP]?[bB])",
    12,
    "a whole number with its unit, such as 4gb or 512mb",
    f"0-9{_UNITS}",
)
PATH = TextRule(
    r"[\w.+/][\w.+/@=,-]*",
    1024,
    "a path without spaces and characters that a shell interprets, at most 1024 characters",
    r"\w.+/@=,-",
)
OPTIONS = TextRule(
    rf"[{_ON_A_LINE}]+",
    1024,
    "letters, digits, spaces and _ . , : = + @ / % -, at most 1024",
    _ON_A_LINE,
)
RESOURCES = TextRule(
    r"[A-Za-z][\w.,:=+@/%-]*",
    1024,
    "resources such as system=polaris:ngpus=4, without spaces, at most 1024 characters",
    r"\w.,:=+@/%-",
)
ADDRESS = TextRule(
    r"[A-Za-z0-9:][A-Za-z0-9.:-]*",
    255,
    "an address such as 10.0.0.5, or the name of a host",
    "A-Za-z0-9.:-",
)
INTERFACE = TextRule(NAME, 64, "the name of a network interface, such as bond0 or hsn0", _IN_NAME)
COMMAND = TextRule(
    rf"[{_NO_CONTROL}]+",
    1024,
    "exactly one line of a shell script, at most 1024 characters",
    _NO_CONTROL,
)

MOST_LINES = 64
"""Largest number of directives or commands."""

JOB_IDS = {
    "local": r"[1-9][0-9]{0,9}",
    "pbspro": r"[0-9]+(\[[0-9]*\])?(\.[A-Za-z0-9_.:-]+)?",
    "slurm": r"[0-9]+(_[0-9]+)?",
    "grid_engine": r"[0-9]+(\.[0-9]+)?",
    "lsf": r"[0-9]+(\[[0-9]+\])?",
}
"""Ids of jobs by batch system; without one, the id of a process."""


def directive_rule(prefix: str, more: str = "", *, words: bool = False) -> TextRule:
    """Form of a line that a batch system reads.

    Args:
        prefix: What such a line begins with, as ``#PBS``.
        more: Further characters that it may have.
        words: Whether options may be words, as ``--qos``.
    """
    dashes, option = ("--?", "--option") if words else ("-", "-X")
    characters = f"{re.escape(more)}{_ON_A_LINE}"
    also = f" and {' '.join(more)}" if more else ""
    return TextRule(
        rf"{re.escape(prefix)} +{dashes}[A-Za-z][{characters}]*",
        1024,
        f"exactly one line '{prefix} {option} value' of letters, digits, spaces and "
        f"_ . , : = + @ / % -{also}, at most 1024 characters",
        characters,
        prefix,
    )


def refuse(
    name: str,
    value: object,
    allowed: str,
    *,
    where: object = None,
    remedy: str | None = None,
    fault: str = "",
) -> NoReturn:
    """Raise a ConfigError about a value, of which only the beginning is shown."""
    raise ConfigError(
        f"{name} is {reprlib.repr(value)}{fault}", where=where, allowed=allowed, remedy=remedy
    )


def check_text(name: str, value: Any, rule: TextRule, *, where: object = None) -> None:
    """Raise a ConfigError unless a text has the form of a rule."""
    if not isinstance(value, str):
        refuse(name, value, rule.allowed, where=where)
    long = f", of {len(value)} characters," if len(value) > rule.longest else ""
    wrong = [repr(character) for character in rule.offending(value)]
    others = " and others" if wrong[_NAMED:] else ""
    fault = f", which may not have {', '.join(wrong[:_NAMED])}{others}" if wrong else ""
    if long or wrong or not re.fullmatch(rule.pattern, value):
        refuse(f"{name}{long}", value, rule.allowed, where=where, fault=fault)


def check_walltime(name: str, value: Any, *, where: object = None) -> None:
    """Raise a ConfigError unless a text is a time above zero."""
    check_text(name, value, WALLTIME, where=where)
    if not any(digit in "123456789" for digit in value):
        refuse(name, value, WALLTIME.allowed, where=where)


def check_lines(name: str, lines: Any, rule: TextRule, *, where: object = None) -> None:
    """Raise a ConfigError unless all lines have the form of a rule, and are not too many."""
    if not isinstance(lines, Sequence) or isinstance(lines, str) or len(lines) > MOST_LINES:
        refuse(name, lines, f"a list of at most {MOST_LINES} lines", where=where)
    for k, line in enumerate(lines):
        check_text(f"{name}[{k}]", line, rule, where=where)


def flags(line: str, *, whole: bool = False) -> list[str]:
    """Options of a directive, without their values.

    Args:
        line: The directive.
        whole: Whether ``-abc`` is one option, not the option ``-a`` with a value.
    """
    return re.findall(rf"(?<= )(--[A-Za-z][A-Za-z-]*|-[A-Za-z]{'+' if whole else ''})", line)


def resources(line: str) -> list[str]:
    """Names of the resources that the ``-l`` options of a directive ask for."""
    values = re.findall(r"(?<= )-l *([^ ]+)", line)
    return [part.partition("=")[0] for value in values for part in value.split(",")]


def seconds(walltime: str) -> int:
    """Length of ``HH:MM:SS`` in s."""
    hours, minutes, rest = (int(part) for part in walltime.split(":"))
    return 3600 * hours + 60 * minutes + rest


def times(count: int, memory: str) -> str:
    """Multiply a size such as ``512mb``, and keep its unit."""
    digits = memory.rstrip(_UNITS)
    return f"{count * int(digits)}{memory[len(digits) :]}"


def gibibytes(memory: str) -> float:
    """Size of a text such as ``512mb`` in GiB."""
    digits = memory.rstrip(_UNITS)
    powers = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
    power = powers[memory[len(digits) :].lower().removesuffix("b")]
    return int(digits) * 1024.0 ** (power - 3)
