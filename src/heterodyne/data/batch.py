"""The members of a batch: each file and each q of a run file is a run of its own."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from heterodyne._errors import ConfigError, DataError
from heterodyne._typing import FloatArray
from heterodyne.data.run_data import open_run_file
from heterodyne.data.select import listed_q
from heterodyne.data.two_time import COMMON_Q_RTOL, TwoTimeFile

if TYPE_CHECKING:
    from heterodyne.config.schema import RunConfig

RESERVED = ("work",)
"""Names in the folder of a batch that no member may have."""

_MAGIC = "*?["
# Without dots no member is called like a file of the batch.
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST = 60


@dataclass(frozen=True)
class Member:
    """A run of a batch.

    Attributes:
        name: Name of the member and of its folder.
        config: Run file of this member alone: one file, at most one q, its own folder.
    """

    name: str
    config: RunConfig


def is_batch(config: RunConfig) -> bool:
    """Whether a run file asks for a list of runs, be it of one entry, rather than for a run."""
    path = config.experimental_data.file_path
    q = config.analyzer_parameters.scattering.wavevector_q
    return not isinstance(path, str) or _is_pattern(path) or isinstance(q, str | tuple)


def find_members(config: RunConfig) -> tuple[Member, ...]:
    """List the runs that a run file asks for, by file and within a file by q.

    Files keep the order of the run file, those of a pattern the order of the numbers in their
    names. A file whose wavevectors cannot be read stays one member, so that the others are
    not held up by it.

    Args:
        config: A run file for which ``is_batch`` holds.

    Raises:
        DataError: Files are missing, all of them named, or no file has a q that is asked for.
        ConfigError: A file or a q is asked for twice.
    """
    paths = _paths(config)
    asked = config.analyzer_parameters.scattering.wavevector_q
    given = config.experimental_data.file_path
    several = not isinstance(given, str) or _is_pattern(given)
    wavevectors = {path: _asked_of(_single(config, path), asked, len(paths)) for path in paths}
    if isinstance(asked, tuple):
        _check_known(config, paths, asked)
    found: dict[str, RunConfig] = {}
    for path, stem in zip(paths, _stems(paths), strict=True):
        for q in wavevectors[path]:
            parts = [stem] if several else []
            if isinstance(asked, str | tuple) and q is not None:
                parts.append(f"q{q:.6g}")
            name = "_".join(parts or [stem])
            found[name] = _single(config, path, q, name)
    return tuple(Member(name, one) for name, one in found.items())


def natural(text: str) -> list[tuple[int, int, str]]:
    """Key that sorts the numbers in texts as numbers, so that 10 comes after 2."""
    parts = re.split(r"(\d+)", text)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]


def _single(
    config: RunConfig, path: str, q: float | None = None, name: str | None = None
) -> RunConfig:
    """The run file of one file, one q and a folder of its own."""
    scattering = config.analyzer_parameters.scattering.model_copy(update={"wavevector_q": q})
    analyzer = config.analyzer_parameters.model_copy(update={"scattering": scattering})
    source = config.experimental_data.model_copy(update={"file_path": path})
    changes = {"experimental_data": source, "analyzer_parameters": analyzer}
    if name is not None:
        folder = str(Path(config.output.directory) / name)
        changes["output"] = config.output.model_copy(update={"directory": folder})
    return config.model_copy(update=changes)


def _is_pattern(path: str) -> bool:
    return any(sign in path for sign in _MAGIC) and not Path(path).exists()


def _paths(config: RunConfig) -> list[str]:
    """All files, patterns replaced by what they match."""
    given = config.experimental_data.file_path
    found, missing = [], []
    for entry in [given] if isinstance(given, str) else given:
        if _is_pattern(entry):
            matches = sorted(filter(_is_file, glob.glob(entry, recursive=True)), key=natural)
            found += matches
            missing += [] if matches else [f"{entry} (a pattern that no file matches)"]
        elif _is_file(entry):
            found.append(entry)
        else:
            missing.append(entry)
    if missing:
        count = len(missing)
        raise DataError(
            f"{count} {'file does' if count == 1 else 'files do'} not exist: {', '.join(missing)}",
            where="experimental_data.file_path",
            remedy="Check the paths; relative ones start at the folder of the run file",
        )
    twice = [path for path in dict.fromkeys(found) if found.count(path) > 1]
    if twice:
        raise ConfigError(
            f"{', '.join(twice)} is named more than once",
            where="experimental_data.file_path",
            remedy="Take it out of the list, or narrow the pattern",
        )
    return found


def _is_file(path: str) -> bool:
    return Path(path).is_file()


def _stems(paths: Sequence[str]) -> list[str]:
    """A name for each file that is safe in a file system and used once."""
    plain = [_safe(Path(path).stem) for path in paths]
    folders = [_safe(f"{Path(path).parent.name}_{Path(path).stem}") for path in paths]
    names: list[str] = []
    for stem, longer in zip(plain, folders, strict=True):
        names.append(_unused(longer if _count(stem, plain) > 1 else stem, (*names, *RESERVED)))
    return names


def _safe(text: str) -> str:
    # The end tells the files of a series apart.
    return _UNSAFE.sub("_", text)[-_LONGEST:].strip("_-") or "file"


def _count(name: str, names: Iterable[str]) -> int:
    # Some file systems do not tell capitals from small letters.
    return sum(other.casefold() == name.casefold() for other in names)


def _unused(name: str, used: Sequence[str]) -> str:
    candidates: Iterator[str] = (f"{name}-{k}" for k in range(2, len(used) + 3))
    return name if not _count(name, used) else next(n for n in candidates if not _count(n, used))


def _asked_of(
    config: RunConfig, asked: float | str | tuple[float, ...] | None, n_files: int
) -> Sequence[float | None]:
    """The q to fit in one file, ascending; None where it is to come from the file."""
    if asked is None or isinstance(asked, float | int):
        return [asked]
    if not isinstance(asked, str):
        return sorted(asked)
    try:
        return [float(f"{q:.6g}") for q in distinct_q(open_run_file(config))]
    except DataError:
        if n_files == 1:
            raise
        return [None]


def distinct_q(file: TwoTimeFile) -> list[float]:
    """Wavevectors of a file in 1/Å, ascending; bins that ``select`` takes together count once."""
    values = np.unique([one.q for one in file.bins])
    found: list[float] = []
    while values.size:
        group = values[values <= values[0] * (1 + COMMON_Q_RTOL)]
        middle = 0.5 * (group[0] + group[-1])
        found.append(float(group[np.argmin(np.abs(group - middle))]))
        values = values[group.size :]
    return found


def _check_known(config: RunConfig, paths: Sequence[str], asked: Sequence[float]) -> None:
    """Refuse a q that no file has, and two that are the same q of a file."""
    tolerance = config.analyzer_parameters.scattering.q_tolerance
    files: dict[str, TwoTimeFile] = {}
    for path in paths:
        try:
            files[path] = open_run_file(_single(config, path))
        except DataError:
            if len(paths) == 1:
                raise
    where = "analyzer_parameters.scattering.wavevector_q"
    taken = {path: _taken(asked, distinct_q(file), tolerance) for path, file in files.items()}
    unknown = [q for q in asked if not any(q in found for found in taken.values())]
    # A file that cannot be read may have it.
    if unknown and len(files) == len(paths):
        bins = [one for file in files.values() for one in file.bins]
        raise DataError(
            f"no file has q = {', '.join(f'{q:.6g}' for q in unknown)} 1/Å",
            where=where,
            allowed=f"a distance up to {tolerance:.2%}; the files have {listed_q(bins)}",
            remedy="Choose among these, or write all",
        )
    for path, found in taken.items():
        _check_distinct(path, found, where)


def _taken(asked: Sequence[float], known: list[float], tolerance: float) -> dict[float, float]:
    """The q of a file that each q asked for takes; those too far off take none."""
    values: FloatArray = np.asarray(known)
    nearest = {q: float(values[np.argmin(np.abs(values - q))]) for q in asked}
    return {q: near for q, near in nearest.items() if abs(near - q) <= tolerance * q}


def _check_distinct(path: str, taken: Mapping[float, float], where: str) -> None:
    by_file: dict[float, list[float]] = {}
    for q, near in taken.items():
        by_file.setdefault(near, []).append(q)
    for near, asked in by_file.items():
        if len(asked) > 1:
            raise ConfigError(
                f"{' and '.join(f'{q:.6g}' for q in asked)} 1/Å both take q = {near:.6g} 1/Å "
                f"of {path}",
                where=where,
                remedy="Keep one of them",
            )
