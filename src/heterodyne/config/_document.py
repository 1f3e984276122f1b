"""YAML 1.2 and JSON as plain data that remember where each entry stands."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from heterodyne._errors import ConfigError

Place = tuple[str | int, ...]
"""Keys and indices that lead to an entry."""

_MERGE = "tag:yaml.org,2002:merge"
_DEEPEST = 40


@dataclass(frozen=True)
class Mark:
    """Where an entry stands.

    Attributes:
        key: Line and column of its key, or of the entry itself in a list, from 1.
        value: Line and column of its value.
        text: The value as written, where it is neither mapping nor list.
    """

    key: tuple[int, int]
    value: tuple[int, int]
    text: str | None = None


@dataclass(frozen=True)
class Repeated:
    """A key that occurs again in its mapping.

    Attributes:
        place: The entry.
        first: Line of the first occurrence.
        mark: Line and column of the repetition.
    """

    place: Place
    first: int
    mark: tuple[int, int]


@dataclass(frozen=True)
class Document:
    """Plain data, where they came from, and what the command line changed.

    Attributes:
        data: The top mapping.
        name: File as the user named it; None for data without a file.
        marks: Where each entry stands.
        repeated: Keys that occur twice.
        given: Entries set on the command line, with the text of each setting.
    """

    data: dict[str, Any]
    name: str | None = None
    marks: Mapping[Place, Mark] = field(default_factory=dict)
    repeated: tuple[Repeated, ...] = ()
    given: Mapping[Place, str] = field(default_factory=dict)

    def knows(self, place: Place) -> bool:
        """Whether an entry was written, in the file or on the command line."""
        return place in self.marks or place in self.given

    def position(self, place: Place) -> tuple[int, int]:
        """Line and column at or above a place, for sorting; zeros for the command line."""
        known = self._known(place)
        return self.marks[known].value if known in self.marks else (0, 0)

    def where(self, place: Place, *, on_key: bool = False) -> str | None:
        """Say where an entry came from, as ``file:line:column`` or ``--set``.

        Args:
            place: The entry; where it is not known, the nearest one above it is named.
            on_key: Point at its key rather than at its value.
        """
        known = self._known(place)
        if known in self.given:
            return f"--set {self.given[known]}"
        if self.name is None:
            return None
        mark = self.marks.get(known)
        line, column = (1, 1) if mark is None else mark.value
        if mark is not None and (on_key or known != place):
            line, column = mark.key
        return f"{self.name}:{line}:{column}"

    def text(self, place: Place) -> str | None:
        """The value as written in the file; None where it is not a plain one."""
        mark = self.marks.get(place)
        return None if mark is None or place in self.given else mark.text

    def _known(self, place: Place) -> Place:
        if place and not self.knows(place):
            below = [given for given in self.given if given[: len(place)] == place]
            if below:
                return below[-1]
        ends = range(len(place), 0, -1)
        return next((place[:end] for end in ends if self.knows(place[:end])), ())

    def with_entry(self, place: tuple[str, ...], value: object, setting: str) -> Document:
        """Set one entry as the command line asks.

        Raises:
            ConfigError: The way to the entry leads through something that is no mapping.
        """
        data = copy.deepcopy(self.data)
        holder: Any = data
        for depth, key in enumerate(place[:-1], 1):
            if holder.get(key) is None:
                holder[key] = {}
            holder = holder[key]
            if not isinstance(holder, dict):
                raise ConfigError(
                    f"{'.'.join(place[:depth])} is no mapping, so nothing in it can be set",
                    where=f"--set {setting}",
                    remedy=f"Set it as a whole: {'.'.join(place[:depth])}=...",
                )
        holder[place[-1]] = value
        kept = {p: mark for p, mark in self.marks.items() if p[: len(place)] != place}
        given = {p: text for p, text in self.given.items() if p[: len(place)] != place}
        return replace(self, data=data, marks=kept, given=given | {place: setting})

    def without(self, place: Place) -> Document:
        """Drop one entry if it is there."""
        data = copy.deepcopy(self.data)
        holder: Any = data
        for key in place[:-1]:
            holder = holder.get(key) if isinstance(holder, dict) else None
        if not isinstance(holder, dict) or place[-1] not in holder:
            return self
        del holder[place[-1]]
        marks = {p: mark for p, mark in self.marks.items() if p[: len(place)] != place}
        return replace(self, data=data, marks=marks)


def read_document(path: Path) -> Document:
    """Read a YAML or JSON file.

    Raises:
        ConfigError: It cannot be read, is not YAML, or holds no mapping.
    """
    name = str(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"the run file cannot be read ({error.strerror})", where=name, remedy="Check its path"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"byte {error.start + 1} of the run file is not UTF-8 text", where=name
        ) from None
    if path.suffix.lower() == ".json":
        # JSON may be indented by tabs, YAML may not; one column stays one column.
        text = text.replace("\t", " ")
    node, data = _parse(text, name)
    if not isinstance(data, dict):
        raise ConfigError(
            "the run file is empty" if data is None else f"the run file holds {data!r:.40}",
            where=f"{name}:1:1",
            allowed="a mapping of sections, experimental_data among them",
        )
    marks: dict[Place, Mark] = {}
    repeated = tuple(_walk(node, (), marks))
    return Document(data, name, marks, repeated)


def parse_value(text: str, where: str) -> Any:
    """Read one YAML value.

    Raises:
        ConfigError: It is not YAML.
    """
    try:
        return _parse(text, "")[1]
    except ConfigError as error:
        raise ConfigError(error.problem, where=where) from None


def _parse(text: str, name: str) -> tuple[Any, Any]:
    """Node and data of the one document of a text."""
    yaml = YAML(typ="safe", pure=True)
    yaml.allow_duplicate_keys = True
    try:
        return yaml.compose(text), yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = name if mark is None else f"{name}:{mark.line + 1}:{mark.column + 1}"
        reason = ", ".join(part.strip() for part in (error.context, error.problem) if part)
        raise ConfigError(f"not valid YAML: {reason}", where=where) from None
    except ReaderError as error:
        before = text[: error.position].split("\n")
        where = f"{name}:{len(before)}:{len(before[-1]) + 1}"
        code = f"U+{ord(text[error.position]):04X}"
        raise ConfigError(f"the character {code} is not allowed", where=where) from None
    except (YAMLError, ValueError, LookupError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"not valid YAML: {reason}", where=name) from None


def _walk(node: Node | None, place: Place, marks: dict[Place, Mark]) -> Iterator[Repeated]:
    """Note where the entries below a node stand; yields keys that occur twice."""
    if len(place) > _DEEPEST:
        return
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            here = (*place, index)
            marks.setdefault(here, Mark(_position(item), _position(item), _scalar(item)))
            yield from _walk(item, here, marks)
    elif isinstance(node, MappingNode):
        yield from _walk_mapping(node.value, place, marks)


def _walk_mapping(
    pairs: Sequence[tuple[Node, Node]], place: Place, marks: dict[Place, Mark]
) -> Iterator[Repeated]:
    merged = [value for key, value in pairs if key.tag == _MERGE]
    seen: dict[Place, int] = {}
    for key, value in pairs:
        if key.tag == _MERGE or not isinstance(key, ScalarNode):
            continue
        here = (*place, str(key.value))
        if here in seen:
            yield Repeated(here, seen[here], _position(key))
            continue
        seen[here] = _position(key)[0]
        marks.setdefault(here, Mark(_position(key), _position(value), _scalar(value)))
        yield from _walk(value, here, marks)
    for value in merged:
        parts = value.value if isinstance(value, SequenceNode) else [value]
        for part in parts:
            yield from _walk(part, place, marks)


def _position(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _scalar(node: Node) -> str | None:
    return str(node.value) if isinstance(node, ScalarNode) else None
