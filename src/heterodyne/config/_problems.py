"""What is wrong with a run file, in sentences."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from heterodyne._errors import ConfigError
from heterodyne.config._document import Document, Place
from heterodyne.config._fields import allowed, allowed_by, words
from heterodyne.config._suggest import nearest

_LONGEST = 60


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        place: The entry it is about.
        text: A sentence without its full stop.
        on_key: Whether the key is at fault rather than the value.
    """

    place: Place
    text: str
    on_key: bool = False


def dotted(place: Place) -> str:
    """Write a place as ``section.list[0].key``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.lstrip(".")


def from_validation(
    errors: Sequence[ErrorDetails],
    model: type[BaseModel],
    document: Document,
    written: Callable[[Place], Place],
) -> Iterator[Problem]:
    """Turn pydantic's errors into problems, one per entry.

    Args:
        errors: Errors of ``model``.
        model: Model of the whole file.
        document: The file.
        written: Maps a place of the model to the place where the file has it.
    """
    entries = {error["loc"]: _resolve(model, error["loc"]) for error in errors}
    seen = {entry.place[:end] for entry in entries.values() for end in range(len(entry.place))}
    for error in errors:
        entry = entries[error["loc"]]
        if entry.place in seen:
            # The other arm of a union, or a mapping that is wrong because of an entry.
            continue
        seen.add(entry.place)
        place = written(entry.place)
        if error["type"] in ("extra_forbidden", "invalid_key"):
            text = _unknown_key(entry.place, entry.hint, model)
            yield Problem(entry.place, text, on_key=True)
        elif error["type"] == "missing":
            yield Problem(
                place, f"{dotted(place)} is missing; it must be {entry.allowed()}", on_key=True
            )
        elif error["type"] == "value_error":
            yield _refused(place, error)
        else:
            yield Problem(place, _wrong_value(place, entry, error["input"], document))


@dataclass(frozen=True)
class _Entry:
    """A place in the model, with the field there or the hint of a list's items.

    Attributes:
        place: Keys and indices, without the arms of unions.
        hint: Type at the place; that of the mapping where the key is unknown.
        field: Field at the place, if it is one.
    """

    place: Place
    hint: Any
    field: Any = None

    def allowed(self) -> str:
        return allowed_by(self.hint) if self.field is None else allowed(self.field)


def _resolve(model: type[BaseModel], loc: tuple[int | str, ...]) -> _Entry:
    entry = _Entry((), model)
    for part in loc:
        mapping, items = _mapping_model(entry.hint), _item_hint(entry.hint)
        if mapping is not None and part in mapping.model_fields:
            found = mapping.model_fields[str(part)]
            entry = _Entry((*entry.place, part), found.annotation, found)
        elif items is not None and isinstance(part, int):
            entry = _Entry((*entry.place, part), items)
        elif mapping is not None and part == loc[-1]:
            return _Entry((*entry.place, str(part)), entry.hint)
        # Whatever else is in a location names the arm of a union.
    return entry


def _arms(hint: Any) -> Iterator[Any]:
    origin = get_origin(hint)
    if origin is Annotated:
        yield from _arms(get_args(hint)[0])
    elif origin in (Union, types.UnionType):
        for arm in get_args(hint):
            yield from _arms(arm)
    else:
        yield hint


def _mapping_model(hint: Any) -> type[BaseModel] | None:
    models = (arm for arm in _arms(hint) if isinstance(arm, type) and issubclass(arm, BaseModel))
    return next(models, None)


def _item_hint(hint: Any) -> Any:
    return next((get_args(arm)[0] for arm in _arms(hint) if get_origin(arm) is tuple), None)


def _unknown_key(place: Place, hint: Any, model: type[BaseModel]) -> str:
    holder = _mapping_model(hint)
    known = list(holder.model_fields) if holder else []
    key = str(place[-1])
    close = nearest(key, known)
    if close is None:
        elsewhere = _paths(model)
        name = nearest(key, elsewhere)
        close = elsewhere[name] if name is not None else None
    question = "" if close is None else f" (did you mean {close!r}?)"
    return f"{dotted(place)} is not a known key{question}; known here: {', '.join(known)}"


@cache
def _paths(model: type[BaseModel]) -> dict[str, str]:
    """Shortest dotted path of each key of the schema."""
    found: dict[str, str] = {}
    for place in sorted(_places(model, ()), key=len):
        found.setdefault(str(place[-1]), dotted(place))
    return found


def _places(model: type[BaseModel], place: Place) -> Iterator[Place]:
    for name, info in model.model_fields.items():
        yield (*place, name)
        inner = _mapping_model(info.annotation)
        is_setting = place[:1] == ("parameters",) and len(place) == 2
        if inner is not None and not is_setting:
            yield from _places(inner, (*place, name))


def _refused(place: Place, error: ErrorDetails) -> Problem:
    cause = error.get("ctx", {}).get("error")
    if not isinstance(cause, ConfigError):
        return Problem(place, f"{dotted(place)}: {cause}")
    inner: Place = tuple((cause.where or dotted(place)).split("."))
    parts = [f"{dotted(inner)}: {cause.problem}"]
    if cause.allowed is not None:
        parts.append(f"allowed: {cause.allowed}")
    if cause.remedy is not None:
        parts.append(cause.remedy[:1].lower() + cause.remedy[1:])
    return Problem(inner, "; ".join(parts))


def _wrong_value(place: Place, entry: _Entry, value: object, document: Document) -> str:
    hints = (entry.hint, *(entry.field.metadata if entry.field is not None else ()))
    close = nearest(value, [word for hint in hints for word in words(hint)])
    question = f" (did you mean {close!r}?)" if isinstance(value, str) and close else ""
    seen = _seen(value, document.text(place))
    unquoted = value is not None and not isinstance(value, str | dict | list)
    remedy = "; put it in quotes" if unquoted and str in _arms(entry.hint) else ""
    return f"{dotted(place)} is {seen}{question}; allowed: {entry.allowed()}{remedy}"


def _seen(value: object, text: str | None) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    shown = repr(value) if isinstance(value, str) or text is None else text
    if value is None:
        return "empty"
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."
