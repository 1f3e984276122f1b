"""Files that are complete or not there: written under another name and renamed."""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from heterodyne._errors import ConfigError, DataError

if TYPE_CHECKING:
    from heterodyne._typing import ArrayLike, PathArg


def folder_of(path: PathArg, remedy: str = "Choose another place") -> Path:
    """Return a folder, made if it is missing.

    Args:
        path: The folder.
        remedy: What to do where it cannot be made.

    Raises:
        ConfigError: It cannot be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the folder cannot be made ({error.strerror})",
            where=folder,
            remedy=remedy,
        ) from None
    return folder


@contextmanager
def replacing(path: PathArg) -> Iterator[Path]:
    """Give a name to write to, which becomes the file once the block has succeeded.

    The name is in the same folder and hidden; it is removed if the block fails.

    Args:
        path: File to write; an existing one is replaced.

    Raises:
        ConfigError: The folder or the file cannot be written.
    """
    target = Path(path)
    partial = target.with_name(f".{uuid.uuid4().hex}.{target.name}")
    try:
        yield partial
        with partial.open("rb+") as stream:
            os.fsync(stream.fileno())
        partial.replace(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            f"the file cannot be written ({reason})",
            where=target,
            remedy="Check that the folder exists and has room, or choose another place",
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: PathArg, content: bytes) -> Path:
    """Write a file at once.

    Raises:
        ConfigError: It cannot be written.
    """
    with replacing(path) as partial:
        partial.write_bytes(content)
    return Path(path)


def write_text(path: PathArg, text: str) -> Path:
    """Write text as UTF-8 at once.

    Raises:
        ConfigError: It cannot be written.
    """
    return write_bytes(path, text.encode("utf-8"))


def write_json(path: PathArg, value: object) -> Path:
    """Write a JSON document at once.

    Raises:
        ConfigError: It cannot be written.
    """
    return write_text(path, to_json(value) + "\n")


def read_json(path: PathArg) -> Any:
    """Read a JSON document.

    Raises:
        ConfigError: It is missing or no JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"the file cannot be read ({error.strerror})",
            where=path,
            remedy="Check the path; an unfinished run has no such file",
        ) from None
    except ValueError as error:
        raise ConfigError(f"not valid JSON: {error}", where=path) from None


def write_npz(path: PathArg, arrays: Mapping[str, ArrayLike]) -> Path:
    """Write arrays by name, compressed, at once.

    Raises:
        ConfigError: The file cannot be written.
        DataError: An array of Python objects, None among them, which only a pickle could hold.
    """
    import numpy as np

    plain: dict[str, Any] = {name: np.asarray(values) for name, values in arrays.items()}
    for name, array in plain.items():
        if array.dtype.hasobject:
            raise DataError(
                f"{name} holds Python objects ({_types(array)})",
                where=path,
                allowed="arrays of numbers or texts, each of one type",
                remedy=f"Turn {name} into such an array, or leave it out",
            )
    with replacing(path) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, **plain)
    return Path(path)


def _types(objects: Any) -> str:
    return ", ".join(sorted({type(x).__name__ for x in objects.ravel().tolist()}))


def read_npz(path: PathArg) -> dict[str, Any]:
    """Read arrays by name; pickled objects are refused.

    Raises:
        ConfigError: The file is missing or damaged.
    """
    import numpy as np

    try:
        # Opened here, because NumPy leaves a damaged file open.
        with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise ConfigError(
            f"the arrays cannot be read ({error})",
            where=path,
            remedy="Remove the file, and run again",
        ) from None


def to_json(value: object) -> str:
    """Write a value as JSON; numbers that are not finite become null.

    Args:
        value: Mappings, sequences, texts and numbers, NumPy's included.
    """
    return json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return _plain(value.value)
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(entry) for key, entry in value.items()}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return [_plain(entry) for entry in value]
