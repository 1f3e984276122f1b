"""From a run file to a checked configuration, with every error located."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from heterodyne._errors import ConfigError
from heterodyne._typing import PathArg
from heterodyne.config._cmc_fields import sections_of
from heterodyne.config._cmc_sections import spellings
from heterodyne.config._document import (
    Document,
    Place,
    Repeated,
    parse_value,
    read_document,
)
from heterodyne.config._problems import Problem, dotted, from_validation
from heterodyne.config.cmc import CMCConfig
from heterodyne.config.schema import Output, RunConfig

_CMC: Place = ("optimization", "cmc")
_PATHS: tuple[tuple[str, ...], ...] = (
    ("experimental_data", "file_path"),
    ("output", "directory"),
    ("optimization", "cmc", "backend_config", "checkpoint_dir"),
    ("optimization", "cmc", "jax_profile_dir"),
)


def load_run_config(path: PathArg, overrides: Sequence[str] = ()) -> RunConfig:
    """Read and check a run file in YAML 1.2 or JSON.

    Relative paths in the file start at the file's folder, those in ``overrides`` at
    the working directory.

    Args:
        path: The run file.
        overrides: Settings ``dotted.key=value`` that replace what the file says.

    Raises:
        ConfigError: With one line per problem, each with file, line and column.
    """
    file = Path(path)
    document = _overridden(read_document(file), overrides)
    return _checked(_with_absolute_paths(document, file.parent))


def check_run_config(config: Mapping[str, Any]) -> RunConfig:
    """Check a configuration that is a mapping already; relative paths are kept.

    Raises:
        ConfigError: With one line per problem.
    """
    return _checked(Document(dict(config)))


def override(config: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Return a copy of a configuration with some entries replaced.

    Args:
        config: Configuration as in a run file.
        settings: ``dotted.key=value`` each, the value in YAML.

    Raises:
        ConfigError: A setting cannot be read or leads through a value.
    """
    return _overridden(Document(dict(config)), settings).data


def _overridden(document: Document, settings: Sequence[str]) -> Document:
    for setting in settings:
        key, equals, text = setting.partition("=")
        place = tuple(key.strip().split("."))
        if not equals or not all(place):
            raise ConfigError(
                f"{setting!r} is no setting",
                where="--set",
                allowed="dotted.key=value, such as optimization.method=nlsq",
            )
        value = parse_value(text, f"--set {setting}")
        for same in _spellings(place):
            document = document.without(same)
        document = document.with_entry(place, value, setting)
    return document


def _spellings(place: Place) -> tuple[Place, ...]:
    """All places at which the field of CMCConfig at a place may stand, itself included."""
    inside = place[len(_CMC) :]
    if place[: len(_CMC)] != _CMC or not inside:
        return ()
    for name, section in sections_of(CMCConfig).items():
        paths = spellings(name, section)
        if inside in paths:
            return tuple((*_CMC, *path) for path in paths)
    return ()


def _with_absolute_paths(document: Document, folder: Path) -> Document:
    data = document.data
    if not isinstance(data.get("output", {}), Mapping | None):
        return document
    default = Output.model_fields["directory"].default
    data = data | {"output": {"directory": default} | (data.get("output") or {})}
    for place in _PATHS:
        for same in _spellings(place) or (place,):
            base = Path() if same in document.given else folder
            data = _replaced(data, same, base)
    return Document(data, document.name, document.marks, document.repeated, document.given)


def _replaced(data: dict[str, Any], place: Place, base: Path) -> dict[str, Any]:
    """Copy of nested mappings with the path at one place made absolute."""
    key, *rest = place
    value = data.get(str(key))
    if rest:
        inner = _replaced(value, tuple(rest), base) if isinstance(value, dict) else value
        return data | {str(key): inner} if inner is not value else data
    if isinstance(value, list):
        return data | {str(key): [_absolute(entry, base) for entry in value]}
    return data | {str(key): _absolute(value, base)} if value else data


def _absolute(path: Any, base: Path) -> Any:
    """A path made absolute; what is no path is left to the checks."""
    if not isinstance(path, str) or not path:
        return path
    return os.path.abspath(base / Path(path).expanduser())


def _checked(document: Document) -> RunConfig:
    lines = [_repeated_line(again, document) for again in document.repeated]
    try:
        config = RunConfig.model_validate(document.data)
    except ValidationError as error:
        found = from_validation(error.errors(), RunConfig, document, _written(document))
        lines += [_line(problem, document) for problem in found]
        config = None
    if config is None or lines:
        lines.sort(key=lambda line: line[0])
        raise ConfigError("\n".join(f"{text}." for _, text in lines))
    return config


def _repeated_line(again: Repeated, document: Document) -> tuple[tuple[int, int], str]:
    line, column = again.mark
    text = f"{dotted(again.place)} occurs twice, first in line {again.first}; keep one of them"
    return again.mark, f"{document.name}:{line}:{column}: {text}"


def _line(problem: Problem, document: Document) -> tuple[tuple[int, int], str]:
    where = document.where(problem.place, on_key=problem.on_key)
    text = problem.text if where is None else f"{where}: {problem.text}"
    return document.position(problem.place), text


def _written(document: Document) -> Callable[[Place], Place]:
    """Map from a place of the model to the spelling that the file uses."""

    def written(place: Place) -> Place:
        return next((same for same in _spellings(place) if document.knows(same)), place)

    return written
