"""Paths of result files, checked before they are read or written."""

from __future__ import annotations

from pathlib import Path

from heterodyne._errors import ConfigError
from heterodyne._typing import PathArg
from heterodyne.io import files


class MissingFileError(ConfigError, FileNotFoundError):
    """A file that is not there."""


def npz_path(path: PathArg) -> Path:
    """Return the path of an archive of arrays.

    Raises:
        ConfigError: Its name does not end in .npz.
    """
    if Path(path).suffix != ".npz":
        raise ConfigError("the file is no archive of arrays", where=path, allowed="a name *.npz")
    return Path(path)


def in_folder(path: PathArg) -> Path:
    """Return the path of a file to write, whose folder is made if it is missing.

    Raises:
        ConfigError: The folder cannot be made.
    """
    return files.folder_of(Path(path).parent) / Path(path).name


def existing(path: PathArg) -> Path:
    """Return the path of a file to read.

    Raises:
        MissingFileError: There is none.
        ConfigError: It is a folder or something else.
    """
    found = Path(path)
    if not found.exists():
        raise MissingFileError("there is no such file", where=found, remedy="Check the path")
    if not found.is_file():
        raise ConfigError("not a regular file", where=found)
    return found
