"""Arrays and settings in shared memory: written once, read by every worker.

Nothing is pickled: arrays are raw bytes beside their type and shape, settings are JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from typing import Any, Self

import numpy as np

from heterodyne._errors import DataError

# Every array starts at a multiple of this many bytes, enough for any type of number.
_ALIGNMENT = 16

Ref = dict[str, Any]
"""Where something is: the name of its segment, and how to read it; plain values only."""


@dataclass(frozen=True)
class ArraySpec:
    """What one kind of array of a shard is.

    Attributes:
        expected_dtype: Its usual type, for messages; arrays keep the type that they have.
        allow_none: Whether None may stand for it.
        description: What to call it in messages.
    """

    expected_dtype: str
    allow_none: bool
    description: str


SHARD_ARRAYS: Mapping[str, ArraySpec] = {
    "c2_data": ArraySpec("float64", False, "two-time correlation"),
    "sigma": ArraySpec("float64", True, "standard deviation of the errors"),
    "t": ArraySpec("float64", False, "frame times in s"),
    "weights": ArraySpec("float64", True, "weights of the pairs"),
}
"""The arrays of a shard, by key."""


class SharedDataManager:
    """Owns segments of shared memory, and removes them.

    Use it as a context manager, or call ``cleanup`` in a ``finally``. What the methods return
    are references: plain dicts that the functions ``load_shared_...`` beside this class turn
    back, in any process, while the segments exist.
    """

    def __init__(self) -> None:
        self._shared_blocks: list[SharedMemory] = []
        self._refs: dict[str, Ref] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.cleanup()

    def create_shared_bytes(self, name: str, data: bytes) -> Ref:
        """Put bytes into a segment.

        Args:
            name: A name of the caller's, not used before.
            data: The bytes.

        Raises:
            DataError: The name was used before.
        """
        block = self._segment(name, len(data))
        _buffer(block)[: len(data)] = data
        self._refs[name] = {"shm_name": block.name, "size": len(data)}
        return dict(self._refs[name])

    def create_shared_array(self, name: str, array: np.ndarray) -> Ref:
        """Put an array into a segment.

        Args:
            name: A name of the caller's, not used before.
            array: Numbers of any type and shape.

        Raises:
            DataError: The name was used before, or the array holds Python objects.
        """
        values = _numbers(array, name)
        block = self._segment(name, values.nbytes)
        self._refs[name] = _put(values, block, 0)
        return dict(self._refs[name])

    def create_shared_dict(self, name: str, d: Mapping[str, Any]) -> Ref:
        """Put plain settings into a segment, as JSON.

        Args:
            name: A name of the caller's, not used before.
            d: Numbers, texts, true, false, None, and lists and dicts of them.

        Raises:
            DataError: The name was used before, or something else is in it.
        """
        try:
            text = json.dumps(d)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{error}",
                where=name,
                allowed="numbers, texts, true, false, None, lists and dicts",
                remedy="Share arrays with create_shared_array",
            ) from error
        return self.create_shared_bytes(name, text.encode())

    def create_shared_shard_arrays(self, shard_data_list: Sequence[Mapping[str, Any]]) -> list[Ref]:
        """Put the arrays of all shards into one segment for each kind of array.

        Args:
            shard_data_list: For each shard the arrays ``c2_data`` and ``t``, ``sigma`` and
                ``weights`` or None, and the number ``noise_scale``.

        Returns:
            For each shard where its arrays are, and its ``noise_scale``.

        Raises:
            DataError: There is no shard, an array is missing, or has not the shape that
                ``c2_data`` asks for.
        """
        if not shard_data_list:
            raise DataError("there is no shard", where="shard_data_list", allowed="at least one")
        refs: list[Ref] = [{"noise_scale": shard.get("noise_scale")} for shard in shard_data_list]
        checked = [_checked(shard, k) for k, shard in enumerate(shard_data_list)]
        for key in SHARD_ARRAYS:
            arrays = [shard[key] for shard in checked]
            starts = np.cumsum([0] + [-(-x.nbytes // _ALIGNMENT) * _ALIGNMENT for x in arrays])
            name = f"{key} of shards, segment {len(self._shared_blocks)}"
            block = self._segment(name, int(starts[-1]))
            for ref, start, values in zip(refs, starts[:-1], arrays, strict=True):
                ref[key] = _put(values, block, int(start))
        return refs

    def cleanup(self) -> None:
        """Remove all segments; may be called more than once."""
        while self._shared_blocks:
            block = self._shared_blocks.pop()
            block.close()
            with suppress(FileNotFoundError):
                block.unlink()
        self._refs.clear()

    def _segment(self, name: str, size: int) -> SharedMemory:
        if name in self._refs:
            raise DataError(f"{name!r} is shared already", where="name", allowed="a new name")
        block = SharedMemory(create=True, size=max(1, size))
        self._shared_blocks.append(block)
        self._refs[name] = {"shm_name": block.name}
        return block


def _checked(shard: Mapping[str, Any], number: int) -> dict[str, np.ndarray]:
    """Return the arrays of a shard; an empty one stands for None."""
    found = {}
    for key, spec in SHARD_ARRAYS.items():
        where = f"shard {number}, {key}"
        if shard.get(key) is not None:
            found[key] = _numbers(shard[key], where)
        elif spec.allow_none:
            found[key] = np.empty(0)
        else:
            raise DataError(
                f"the {spec.description} is missing",
                where=where,
                allowed=f"an array of {spec.expected_dtype}",
            )
    c2 = found["c2_data"]
    if c2.ndim not in (2, 3) or c2.shape[-1] != c2.shape[-2] or c2.size == 0:
        _refuse(c2, number, "c2_data", "(N, N) or (n_phi, N, N)")
    if found["t"].shape != c2.shape[-1:]:
        _refuse(found["t"], number, "t", f"{c2.shape[-1:]}, as c2_data")
    for key in ("sigma", "weights"):
        x = found[key]
        given = shard.get(key) is not None
        if given and x.shape != c2.shape and not (key == "sigma" and x.ndim == 0):
            _refuse(x, number, key, f"{c2.shape}, as c2_data")
    return found


def _refuse(x: np.ndarray, number: int, key: str, allowed: str) -> None:
    spec = SHARD_ARRAYS[key]
    raise DataError(
        f"the {spec.description} has the shape {x.shape} and the type {x.dtype}",
        where=f"shard {number}, {key}",
        allowed=f"{allowed}, of type {spec.expected_dtype}",
    )


def _numbers(array: Any, where: str) -> np.ndarray:
    values = np.ascontiguousarray(array) if np.ndim(array) else np.asarray(array)
    if values.dtype.kind not in "biufc":
        raise DataError(f"the type is {values.dtype}", where=where, allowed="numbers")
    return values


def _buffer(block: SharedMemory) -> memoryview:
    assert block.buf is not None, "the segment is closed"
    return block.buf


def _put(values: np.ndarray, block: SharedMemory, start: int) -> Ref:
    # An array on the segment itself would keep it from being closed.
    _buffer(block)[start : start + values.nbytes] = values.reshape(-1).view(np.uint8).data
    return {
        "shm_name": block.name,
        "size": values.nbytes,
        "offset": start,
        "dtype": values.dtype.str,
        "shape": list(values.shape),
    }


def load_shared_bytes(ref: Mapping[str, Any]) -> bytes:
    """Copy bytes out of shared memory."""
    block = SharedMemory(ref["shm_name"])
    try:
        start = ref.get("offset", 0)
        return bytes(_buffer(block)[start : start + ref["size"]])
    finally:
        block.close()


def load_shared_array(ref: Mapping[str, Any]) -> np.ndarray:
    """Copy an array out of shared memory."""
    flat = np.frombuffer(load_shared_bytes(ref), np.dtype(ref["dtype"]))
    return flat.reshape(ref["shape"]).copy()


def load_shared_dict(ref: Mapping[str, Any]) -> dict[str, Any]:
    """Read settings from shared memory."""
    return json.loads(load_shared_bytes(ref))


def load_shared_shard(ref: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the arrays of a shard out of shared memory; what was None is None again."""
    arrays = {key: load_shared_array(ref[key]) for key in SHARD_ARRAYS}
    optional = {key for key, spec in SHARD_ARRAYS.items() if spec.allow_none}
    return {key: None if key in optional and not x.size else x for key, x in arrays.items()} | {
        "noise_scale": ref["noise_scale"]
    }
