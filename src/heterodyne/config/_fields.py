"""Fields with a description and a unit, and what they allow, in words."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic.fields import FieldInfo

_NOUNS = {int: "an integer", float: "a number", bool: "true or false", type(None): "null"}


def described(text: str, unit: str = "", **constraints: Any) -> Any:
    """Annotation with a description, the unit added to it and to the JSON schema.

    Args:
        text: Description without a full stop; the unit goes before its first semicolon.
        unit: Unit as printed; empty for figures without one.
        **constraints: Bounds and the like, as of ``pydantic.Field``.
    """
    if not unit:
        return Field(description=f"{text}.", **constraints)
    figure, semicolon, rest = text.partition(";")
    description = f"{figure} ({unit}){semicolon}{rest}."
    return Field(description=description, json_schema_extra={"unit": unit}, **constraints)


def as_tuple(value: object) -> object:
    """Take a list of a run file as the tuple that frozen sections hold."""
    return tuple(value) if isinstance(value, list) else value


def _each_once(value: object) -> object:
    if isinstance(value, tuple):
        if not value:
            raise ValueError("the list is empty; give at least one entry")
        again = [f"{entry}" for entry in dict.fromkeys(value) if value.count(entry) > 1]
        if again:
            raise ValueError(f"{', '.join(again)} occurs more than once; keep one")
    return value


MEMBERS = (BeforeValidator(as_tuple), AfterValidator(_each_once))
"""Annotations of a key that may hold a list, each entry of which is fitted on its own."""


def allowed(field: FieldInfo) -> str:
    """Say what values a field accepts, with their unit."""
    return allowed_by(field.annotation, field.metadata, unit_of(field))


def unit_of(field: FieldInfo) -> str:
    """Unit of a field as printed; empty for figures without one."""
    extra = field.json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, Mapping) else ""


def words(hint: Any) -> tuple[str, ...]:
    """Texts that a type accepts literally."""
    origin = get_origin(hint)
    if origin is Literal:
        return tuple(word for word in get_args(hint) if isinstance(word, str))
    arms = get_args(hint)[:1] if origin is Annotated else get_args(hint)
    return tuple(word for arm in arms for word in words(arm))


def allowed_by(hint: Any, metadata: Iterable[Any] = (), unit: str = "") -> str:
    """Say what values a type accepts.

    Args:
        hint: Type, annotated or not.
        metadata: Constraints beside the type.
        unit: Unit of numbers.
    """
    origin = get_origin(hint)
    if origin is Annotated:
        base, *inner = get_args(hint)
        return allowed_by(base, [*metadata, *inner], unit)
    if origin in (Union, types.UnionType):
        return ", or ".join(allowed_by(arm, metadata, unit) for arm in get_args(hint))
    if origin is Literal:
        return ", ".join(str(word) for word in get_args(hint))
    if origin in (tuple, list):
        return f"a list, each {allowed_by(get_args(hint)[0], (), unit)}"
    if hint is str:
        return _text(metadata)
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return f"a mapping with {', '.join(hint.model_fields)}"
    if hint not in _NOUNS:
        return "a mapping"
    if hint not in (int, float):
        return _NOUNS[hint]
    return f"{_NOUNS[hint]}{_range(metadata)}{f' in {unit}' if unit else ''}"


def _bounds(metadata: Iterable[Any]) -> dict[str, Any]:
    """Constraints by name; those of a nested field are on its own metadata."""
    found: dict[str, Any] = {}
    for item in metadata:
        if isinstance(item, FieldInfo):
            found |= _bounds(item.metadata)
        for name in ("ge", "gt", "le", "lt", "pattern", "min_length"):
            if getattr(item, name, None) is not None:
                found[name] = getattr(item, name)
    return found


def _range(metadata: Iterable[Any]) -> str:
    bounds = _bounds(metadata)
    if "ge" in bounds and "le" in bounds:
        return f" from {bounds['ge']:g} to {bounds['le']:g}"
    phrases = {"gt": "above", "ge": "of at least", "lt": "below", "le": "of at most"}
    parts = [f"{phrase} {bounds[name]:g}" for name, phrase in phrases.items() if name in bounds]
    return f" {' and '.join(parts)}" if parts else ""


def _text(metadata: Iterable[Any]) -> str:
    bounds = _bounds(metadata)
    if "pattern" in bounds:
        return f"text that matches {bounds['pattern']}"
    return "text that is not empty" if "min_length" in bounds else "text"
