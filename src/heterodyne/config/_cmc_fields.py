"""What the annotations of a configuration's fields say, as sections, limits and problems."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from heterodyne.config._cmc_sections import Section
from heterodyne.config._fields import allowed


@cache
def sections_of(cls: type) -> dict[str, Section]:
    """Section of every public field of a dataclass, in the order of its signature."""
    hints = _hints(cls)
    return {
        f.name: next(item for item in get_args(hints[f.name]) if isinstance(item, Section))
        for f in fields(cls)
        if not f.name.startswith("_")
    }


def definitions_of(cls: type) -> dict[str, Any]:
    """Annotation and default of every public field, as ``create_model`` takes them."""
    hints = _hints(cls)
    return {f.name: (hints[f.name], f.default) for f in fields(cls) if f.name in sections_of(cls)}


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def field_problems(config: Any) -> list[str]:
    """Check the fields of a dataclass one by one.

    Returns:
        One sentence per field that is outside its limits.
    """
    values = {name: getattr(config, name) for name in sections_of(type(config))}
    try:
        _model(type(config)).model_validate(values)
    except ValidationError as error:
        names = dict.fromkeys(str(entry["loc"][0]) for entry in error.errors())
        return [problem(config, name) for name in names]
    return []


def problem(config: Any, name: str) -> str:
    """Say what a field holds and what it may hold."""
    limits = allowed(_model(type(config)).model_fields[name])
    return f"{name} is {getattr(config, name)!r}; allowed: {limits}"


@cache
def _model(cls: type) -> type[BaseModel]:
    strict = ConfigDict(strict=True, allow_inf_nan=False)
    definitions: dict[str, Any] = definitions_of(cls)
    return create_model(cls.__name__, __config__=strict, **definitions)
