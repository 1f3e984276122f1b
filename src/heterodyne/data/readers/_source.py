"""Opening files by their content, and small reads that name what they could not read."""

from __future__ import annotations

import os
import re
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from heterodyne._errors import DataError, HeterodyneError
from heterodyne._typing import FloatArray, IntArray

Source = h5py.File | NpzFile

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")
_BROKEN = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
)
"""What h5py and NumPy raise on damaged files, found by damaging files at random."""

_LISTED = 12


@contextmanager
def open_source(path: str) -> Iterator[Source]:
    """Open an HDF5 or .npz file for reading; pickled content is never loaded.

    Args:
        path: File to open.

    Yields:
        The open file.

    Raises:
        DataError: If the file is missing, of another kind, or damaged.
    """
    kind = _signature(path)
    try:
        with kind(path) as source:
            yield source
    except HeterodyneError:
        raise
    except _BROKEN as error:
        reason = " ".join(str(error).split()).strip("'")
        raise DataError(
            f"the file cannot be read ({reason})",
            where=path,
            remedy="It is damaged, cut short or still being written: copy it again from its source",
        ) from error


def _open_hdf5(path: str) -> h5py.File:
    return h5py.File(path, "r")


@contextmanager
def _open_npz(path: str) -> Iterator[NpzFile]:
    with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        yield archive


def _signature(path: str) -> Any:
    try:
        with Path(path).open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            head = stream.read(8)
            if head.startswith(_ZIP_SIGNATURES):
                return _open_npz
            if head == _HDF5_SIGNATURE or _has_user_block(stream, size):
                return _open_hdf5
    except OSError as error:
        raise DataError(
            f"the file cannot be opened ({error.strerror})", where=path, remedy="Check the path"
        ) from error
    seen = "is empty" if size == 0 else f"starts with {head!r}"
    raise DataError(
        f"the file {seen}, which is neither HDF5 nor .npz",
        where=path,
        allowed="HDF5 and .npz files",
        remedy="For arrays in other files use heterodyne.data.from_arrays",
    )


def _has_user_block(stream: Any, size: int) -> bool:
    """Whether the HDF5 signature follows at 512, 1024, 2048, ... bytes."""
    offset = 512
    while offset < size:
        stream.seek(offset)
        if stream.read(8) == _HDF5_SIGNATURE:
            return True
        offset *= 2
    return False


def missing(path: str, name: str, source: Source, remedy: str | None = None) -> DataError:
    """Build the error for a dataset that a file should have and has not."""
    parent, held = "the file", sorted(map(str, source))
    if isinstance(source, h5py.File):
        group = source
        for part in name.strip("/").split("/")[:-1]:
            child = group.get(part)
            if not isinstance(child, h5py.Group):
                break
            group, parent, held = child, child.name, sorted(map(str, child))
    more = ", ..." if len(held) > _LISTED else ""
    return DataError(
        f"{name} is missing; {parent} holds {', '.join(held[:_LISTED]) or 'nothing'}{more}",
        where=path,
        remedy=remedy,
    )


def dataset(source: Source, path: str, name: str) -> Any:
    """Look up a dataset or array by name.

    Returns:
        An ``h5py.Dataset``, or the array of an .npz file.

    Raises:
        DataError: If it is missing, a group, or only readable by unpickling.
    """
    if name not in source:
        raise missing(path, name, source)
    try:
        found = source[name]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        raise DataError(
            "the array holds Python objects, which are never unpickled",
            where=f"{path}:{name}",
            allowed="arrays of numbers",
        ) from error
    if not isinstance(found, h5py.Dataset | np.ndarray):
        raise DataError("a dataset was expected, not a group", where=f"{path}:{name}")
    return found


def floats(values: object, where: str) -> FloatArray:
    """Convert what a file holds to float64.

    Raises:
        DataError: If the values are no real numbers.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"the values are of type {array.dtype}", where=where, allowed="real numbers"
        )
    return array.astype(np.float64)


def vector(source: Source, path: str, name: str) -> FloatArray:
    """Read all values of a dataset of any shape, in order, shape (n,)."""
    return floats(dataset(source, path, name)[()], f"{path}:{name}").reshape(-1)


def integers(source: Source, path: str, name: str) -> IntArray:
    """Read all values of a dataset of any shape as whole numbers, shape (n,).

    Raises:
        DataError: If a value has a fraction.
    """
    values = vector(source, path, name)
    wrong = values[values != np.round(values)]
    if len(wrong):
        raise DataError(
            f"the value {wrong[0]} has a fraction", where=f"{path}:{name}", allowed="whole numbers"
        )
    return values.astype(np.int64)


def scalar(source: Source, path: str, name: str) -> float:
    """Read the one value of a dataset, whatever its number of dimensions.

    Raises:
        DataError: If the dataset holds another number of values.
    """
    found = dataset(source, path, name)
    values = floats(found[()], f"{path}:{name}").reshape(-1)
    if len(values) != 1:
        raise DataError(
            f"the dataset has shape {found.shape}", where=f"{path}:{name}", allowed="one value"
        )
    return float(values[0])


def count(source: Source, path: str, name: str) -> int:
    """Read the one value of a dataset as a whole number of at least 1.

    Raises:
        DataError: If the value is another.
    """
    value = scalar(source, path, name)
    if not (value >= 1 and value.is_integer()):
        raise DataError(
            f"the value is {value:g}", where=f"{path}:{name}", allowed="whole numbers from 1"
        )
    return int(value)


def words(value: object) -> tuple[str, ...]:
    """Texts from what a file holds: bytes or text, alone or in an array."""
    entries = np.asarray(value, dtype=object).reshape(-1)
    return tuple(
        entry.decode("utf-8", "replace") if isinstance(entry, bytes) else str(entry)
        for entry in entries
    )


def attribute(holder: Any, name: str) -> str | None:
    """Text of an attribute of a dataset or group; None if it has no such attribute."""
    attributes = getattr(holder, "attrs", {})
    return words(attributes[name])[0] if name in attributes else None


def members(source: Source, group: str) -> dict[str, Any]:
    """Members of an HDF5 group by name; none where there is no such group."""
    found = source.get(group)
    return {str(k): v for k, v in found.items()} if isinstance(found, h5py.Group) else {}


def numbered(source: Source, path: str, group: str) -> list[tuple[int, str]]:
    """Pair the names in a group with the number they end in, ordered by the number.

    Names without a number are left out.

    Raises:
        DataError: If there is no such name, or two with the same number.
    """
    pairs = sorted(
        (int(match.group(1)), name)
        for name in members(source, group)
        if (match := re.search(r"(\d+)$", name))
    )
    if not pairs:
        raise DataError("no matrix is stored here", where=f"{path}:{group}")
    for (first, one), (second, other) in pairwise(pairs):
        if first == second:
            raise DataError(f"{one} and {other} have the same number", where=f"{path}:{group}")
    return pairs


def square(path: str, names: Sequence[str], source: Source) -> int:
    """Number of frames N of matrices that are all (N, N).

    Raises:
        DataError: If one is not square, or unlike the first.
    """
    shapes = [(name, dataset(source, path, name).shape) for name in names]
    first, expected = shapes[0]
    if len(expected) != 2 or expected[0] != expected[1]:
        raise DataError(
            f"the matrix has shape {expected}", where=f"{path}:{first}", allowed="(N, N)"
        )
    for name, shape in shapes:
        if shape != expected:
            raise DataError(
                f"the matrix has shape {shape}, but {first} has shape {expected}",
                where=f"{path}:{name}",
                allowed="one shape for all",
            )
    return expected[0]


def read_named(
    path: str, names: Sequence[str], flip: bool, indices: Sequence[int], window: slice
) -> Iterator[NDArray[np.generic]]:
    """Yield matrices stored one by one; ``flip`` turns the first axis around."""
    with open_source(path) as source:
        for index in indices:
            yield cut(dataset(source, path, names[index]), window, flip)


def read_stacked(
    path: str, name: str, flip: bool, indices: Sequence[int], window: slice
) -> Iterator[NDArray[np.generic]]:
    """Yield matrices of an array of shape (n, N, N)."""
    with open_source(path) as source:
        stack = dataset(source, path, name)
        for index in indices:
            yield cut(_Layer(stack, index), window, flip)


def read_interleaved(
    path: str, name: str, flip: bool, indices: Sequence[int], window: slice
) -> Iterator[NDArray[np.generic]]:
    """Yield matrices of an array of shape (N, N, n).

    The values of one matrix lie far apart in such a file, so all matrices are
    picked from each stretch of rows at once.
    """
    with open_source(path) as source:
        stack = dataset(source, path, name)
        size = window.stop - window.start
        rows = _rows(stack.shape[0], window, flip)
        picked = np.empty((len(indices), size, size), dtype=stack.dtype)
        for start in range(0, size, 64):
            stop = min(start + 64, size)
            block = stack[rows.start + start : rows.start + stop, window, :]
            picked[:, start:stop] = np.moveaxis(block[:, :, list(indices)], 2, 0)
    for matrix in picked:
        yield matrix[::-1] if flip else matrix


class _Layer:
    """One matrix of a stack, sliced in the file rather than in memory."""

    def __init__(self, stack: Any, index: int) -> None:
        self._stack, self._index = stack, index
        self.shape: tuple[int, ...] = stack.shape[1:]

    def __getitem__(self, window: tuple[slice, slice]) -> NDArray[np.generic]:
        return self._stack[(self._index, *window)]


def cut(matrix: Any, window: slice, flip: bool) -> NDArray[np.generic]:
    """Cut a window of frames out of a matrix, turning its first axis around where asked."""
    block = matrix[_rows(matrix.shape[0], window, flip), window]
    return block[::-1] if flip else block


def _rows(N: int, window: slice, flip: bool) -> slice:
    return slice(N - window.stop, N - window.start) if flip else window
