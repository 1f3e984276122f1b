"""Renamed entries of a mapping that do not hide each other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from heterodyne._errors import ConfigError

T = TypeVar("T")


def unique(entries: Iterable[tuple[str, T]], where: str) -> dict[str, T]:
    """Collect entries in a new mapping.

    Args:
        entries: Names and values after a change of variables.
        where: Argument that they come from.

    Raises:
        ConfigError: Two entries have one name.
    """
    collected: dict[str, T] = {}
    for name, value in entries:
        if name in collected:
            raise ConfigError(
                f"{name} is given twice, as it is and in other coordinates",
                where=where,
                remedy="Leave one of them out",
            )
        collected[name] = value
    return collected
