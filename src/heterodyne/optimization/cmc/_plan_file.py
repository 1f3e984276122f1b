"""The plan of shards as a file of arrays and text, which reading cannot make run code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from heterodyne import __version__
from heterodyne._errors import ConfigError
from heterodyne._typing import ArrayLike, PathArg
from heterodyne.config.schema import EngineName
from heterodyne.core.likelihood import PairData
from heterodyne.io import files
from heterodyne.optimization.cmc._assign import Sharding
from heterodyne.optimization.cmc._frame import Frame
from heterodyne.optimization.cmc._sampler import Schedule
from heterodyne.optimization.cmc._shard_plan import ShardPlan
from heterodyne.optimization.derived import Derived
from heterodyne.optimization.posterior import Posterior

_VERSION, _SETTINGS = "version", "settings"
_DATA, _FRAME = "data_", "frames_"
# Blocks and weights of pairs are in a file of their own.
_STORED = tuple(name for name in PairData._fields if name not in ("blocks", "weights"))


@dataclass(frozen=True)
class _Settings:
    """What is no array in a plan, as its fields there."""

    sharding: Sharding
    posterior: Posterior
    derived: Derived
    schedule: Schedule
    engine: EngineName
    scale: float
    weight: float


def write_plan(path: PathArg, plan: ShardPlan) -> None:
    """Write a plan at once.

    Raises:
        ConfigError: The file cannot be written.
    """
    settings = {name: getattr(plan, name) for name in _Settings.__dataclass_fields__}
    text = json.dumps(_adapter().dump_python(_Settings(**settings), mode="python"), default=_plain)
    arrays: dict[str, ArrayLike] = {_VERSION: np.array(__version__), _SETTINGS: np.array(text)}
    arrays |= {f"{_DATA}{name}": getattr(plan.data, name) for name in _STORED}
    for field in Frame._fields:
        arrays[f"{_FRAME}{field}"] = np.stack([getattr(frame, field) for frame in plan.frames])
    files.write_npz(path, arrays)


def read_plan(path: PathArg) -> ShardPlan:
    """Read a plan as it was written, to the last bit.

    Raises:
        ConfigError: The file is missing or damaged, or another version wrote it.
    """
    arrays = files.read_npz(path)
    version = str(arrays.get(_VERSION, "unknown"))
    if version != __version__:
        raise ConfigError(
            f"the shards were prepared by heterodyne {version}, and this is {__version__}",
            where=path,
            remedy="Use that version, or start anew with --force",
        )
    try:
        return _plan(arrays)
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"this is no plan of shards: {error}",
            where=path,
            remedy="Start the run again with --force",
        ) from None


def _plan(arrays: Mapping[str, Any]) -> ShardPlan:
    settings = _adapter().validate_python(json.loads(str(arrays[_SETTINGS])))
    data = PairData(**{name: arrays[f"{_DATA}{name}"] for name in _STORED}, blocks=(), weights=None)
    columns = [arrays[f"{_FRAME}{field}"] for field in Frame._fields]
    frames = tuple(Frame(*parts) for parts in zip(*columns, strict=True))
    known = {name: getattr(settings, name) for name in _Settings.__dataclass_fields__}
    return ShardPlan(data=data, frames=frames, **known)


def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(_Settings)


def _plain(value: Any) -> Any:
    """What JSON can hold of an enumeration or a NumPy number."""
    return value.value if isinstance(value, Enum) else value.item()
