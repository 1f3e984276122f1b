"""Sections of the configuration of Consensus Monte Carlo, and the spellings of its keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from enum import Enum
from types import MappingProxyType
from typing import Any

from heterodyne._errors import ConfigError
from heterodyne.config._suggest import not_known

KeyPath = tuple[str, ...]


class Section(Enum):
    """Where a field stands in the nested form; its value is the key."""

    TOP = ""
    PER_ANGLE = "per_angle"
    SHARDING = "sharding"
    BACKEND = "backend_config"
    MCMC = "per_shard_mcmc"
    VALIDATION = "validation"
    NLSQ = "nlsq"
    COMBINATION = "combination"
    TIMEOUT = "timeout"
    REPARAMETERIZATION = "reparameterization"

    def path(self, name: str) -> KeyPath:
        """Keys that lead to a field of this section."""
        return (self.value, name) if self.value else (name,)


_SYNONYMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "target_accept_prob": ("target_accept",),
        "max_r_hat": ("r_hat_threshold", "max_rhat"),
        "nlsq_prior_width_factor": ("prior_width_factor",),
    }
)
_SHORT: Mapping[str, str] = MappingProxyType(
    {
        "per_angle_mode": "mode",
        "sharding_strategy": "strategy",
        "backend_name": "name",
        "combination_method": "method",
        "reparameterization_d_total": "d_total",
        "reparameterization_log_gamma": "log_gamma",
    }
)


def spellings(name: str, section: Section) -> tuple[KeyPath, ...]:
    """Key paths under which a field is accepted, the one that is written first."""
    synonyms = _SYNONYMS.get(name, ())
    inside = (name, *synonyms, *((_SHORT[name],) if name in _SHORT else ()))
    paths = [section.path(key) for key in inside] if section is not Section.TOP else []
    return (*paths, *((key,) for key in (name, *synonyms)))


def gather(
    config: Mapping[str, Any], sections: Mapping[str, Section]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a nested or flat configuration into fields and what is left over.

    Args:
        config: Configuration in any accepted spelling.
        sections: Section of each field.

    Returns:
        Values by field name, and the entries that no field took, nested as given.
    """
    left: dict[str, Any] = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in config.items()
    }
    values: dict[str, Any] = {}
    for name, section in sections.items():
        for path in spellings(name, section):
            holder = left.get(path[0]) if len(path) == 2 else left
            if isinstance(holder, MutableMapping) and path[-1] in holder:
                values[name] = holder.pop(path[-1])
                break
    empty = [key for key in _keys(sections) & left.keys() if left[key] is None or left[key] == {}]
    for key in empty:
        del left[key]
    return values, left


def nest(values: Mapping[str, Any], sections: Mapping[str, Section]) -> dict[str, Any]:
    """Arrange fields in sections, in the order of the fields."""
    nested: dict[str, Any] = {}
    for name, section in sections.items():
        if name in values:
            holder = nested.setdefault(section.value, {}) if section.value else nested
            holder[name] = values[name]
    return nested


def unused_keys(left: Mapping[str, Any], sections: Mapping[str, Section]) -> Iterator[str]:
    """Say what ``gather`` left over, one text per key.

    Raises:
        ConfigError: A section holds something other than a mapping.
    """
    for key, value in left.items():
        if key not in _keys(sections):
            yield not_known("key", key, (*sections, *_keys(sections)))
            continue
        inside = [name for name, section in sections.items() if section.value == key]
        if not isinstance(value, Mapping):
            raise ConfigError(
                f"the section {key} is {value!r}", allowed=f"a mapping with {', '.join(inside)}"
            )
        for inner in value:
            yield not_known("key", f"{key}.{inner}", [f"{key}.{name}" for name in inside])


def _keys(sections: Mapping[str, Section]) -> set[str]:
    return {section.value for section in sections.values()} - {""}
