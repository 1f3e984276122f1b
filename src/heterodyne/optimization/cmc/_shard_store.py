"""Where states of the sampler are kept, so that an interrupted run goes on with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from heterodyne._typing import FloatArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.io import files, run_folder
from heterodyne.io.run_folder import RunFolder
from heterodyne.optimization.cmc._assign import Sharding
from heterodyne.optimization.cmc._passes import Keeper
from heterodyne.optimization.nlsq.core import Fit

# Settings that do not change a draw.
_WITHOUT_EFFECT = ("checkpoint_dir", "enable_checkpoints", "run_id", "jax_profile_dir")


def shard_keeper(fit: Fit, c2: FloatArray, config: CMCConfig, sharding: Sharding | None) -> Keeper:
    """Keep the states of shards in a folder of their own.

    The folder is named by the run, where it has a name, and by a digest of data, fit, settings
    and division: the same call finds its shards, and no other does.

    Args:
        fit: The fit from which shards start.
        c2: Measured correlation, shape (n_angles, N, N).
        config: ``checkpoint_dir`` is where the folder is made; ``enable_checkpoints: false``
            keeps nothing.
        sharding: How the pairs are divided; without shards nothing is kept.
    """
    if sharding is None or not config.enable_checkpoints:
        return Keeper()
    stem = "" if config.run_id is None else f"{config.run_id}_"
    folder = Path(config.checkpoint_dir) / f"{stem}{_digest(fit, c2, config, sharding)}"

    def load(key: str) -> Mapping[str, FloatArray] | None:
        file = folder / f"{key}.npz"
        return files.read_npz(file) if file.is_file() else None

    def save(key: str, arrays: Mapping[str, FloatArray]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        files.write_npz(folder / f"{key}.npz", arrays)

    return Keeper(load, save)


def run_keeper(folder: RunFolder) -> Keeper:
    """Keep states in the folder of a run, one file for each pass or shard and engine."""

    def load(key: str) -> Mapping[str, FloatArray] | None:
        name = run_folder.checkpoint(key)
        return folder.read_npz(name) if folder.file(name).is_file() else None

    def save(key: str, arrays: Mapping[str, FloatArray]) -> None:
        folder.write_npz(run_folder.checkpoint(key), arrays)

    return Keeper(load, save)


def _digest(fit: Fit, c2: FloatArray, config: CMCConfig, sharding: Sharding) -> str:
    settings = {k: v for k, v in asdict(config).items() if k not in _WITHOUT_EFFECT}
    coordinates = fit.problem.coordinates
    parts = (json.dumps(settings, default=str), repr(sharding), repr(coordinates))
    digest = hashlib.sha256("\n".join(parts).encode())
    for array in (c2, fit.modes.y[0], fit.problem.data.t, fit.problem.data.phi):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
