"""The folder of a run: what is in it, and which data and settings it belongs to."""

from __future__ import annotations

import copy
import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import heterodyne
from heterodyne._errors import ConfigError
from heterodyne.io import files
from heterodyne.io.work_folder import WorkFolder

if TYPE_CHECKING:
    from heterodyne._typing import ArrayLike, PathArg

MANIFEST = "manifest.json"
CONFIG = "config.json"
DATA = "data.json"
FIT = "fit.json"
SUMMARY = "summary.json"
MAPS = "maps.npz"
CURVES = "curves.npz"
POSTERIOR = "posterior.nc"
REPORT = "report.html"
RESULTS = (CONFIG, DATA, FIT, SUMMARY, MAPS, CURVES, POSTERIOR, REPORT)
"""Files that a run may leave beside its manifest."""

SHARD_PLAN, SHARD_DATA = "checkpoint_shards.npz", "checkpoint_shards_c2.npy"
"""Files that workers draw shards from."""

_CHECKPOINT = "checkpoint_"
_PACKAGES = ("arviz-base", "arviz-stats", "h5py", "jax", "jaxlib", "numpy", "numpyro", "scipy")
_CMC = ("optimization", "cmc")
_CIRCUMSTANCES = (
    ("experimental_data", "file_path"),
    ("output",),
    ("cluster",),
    (*_CMC, "timeout"),
    *(
        (*_CMC, "backend_config", key)
        for key in ("backend_name", "enable_checkpoints", "checkpoint_dir")
    ),
    (*_CMC, "enable_jax_profiling"),
    (*_CMC, "jax_profile_dir"),
)


@dataclass(frozen=True)
class RunFolder:
    """A folder with the files of one run.

    Attributes:
        path: The folder.
    """

    path: Path

    @classmethod
    def create(
        cls, path: PathArg, manifest: Mapping[str, Any], *, force: bool = False
    ) -> RunFolder:
        """Make the folder of a run, or take the one of the same data and settings.

        Args:
            path: The folder.
            manifest: From ``make_manifest``; it is written.
            force: Whether the results of any run there are removed first.

        Raises:
            ConfigError: The folder belongs to other data or settings, holds files that are no
                results but have their names, or cannot be written.
        """
        remedy = "Choose another folder with --set output.directory=..."
        folder = cls(files.folder_of(path, remedy))
        folder.check_names(manifest)
        if force:
            folder.clear()
        else:
            folder.check(manifest)
        folder.write_json(MANIFEST, manifest)
        return folder

    @classmethod
    def open(cls, path: PathArg) -> RunFolder:
        """Take an existing folder of a run.

        Raises:
            ConfigError: It is none.
        """
        folder = cls(Path(path))
        if not folder.file(MANIFEST).is_file():
            raise ConfigError(
                f"there is no {MANIFEST}, so this is no run folder" if folder.path.is_dir()
                else "there is no such folder",
                where=path,
                remedy="Give the output.directory of a run that 'heterodyne sample' has finished",
            )  # fmt: skip
        return folder

    def file(self, name: str) -> Path:
        """Path of a file of the folder."""
        return self.path / name

    @property
    def manifest(self) -> dict[str, Any]:
        """What made the folder.

        Raises:
            ConfigError: The manifest cannot be read.
        """
        return self.read_json(MANIFEST)

    def check_names(self, manifest: Mapping[str, Any]) -> None:
        """Refuse a folder where results would take the place of files that no run has made.

        Args:
            manifest: That of the run that wants the folder; the data of it may lie there.

        Raises:
            ConfigError: The data, or in a folder of no run any file, have the name of a result.
        """
        mine = [MANIFEST, *RESULTS]
        data = Path(_source(manifest) or "").resolve()
        foreign = [name for name in mine if self.file(name).resolve() == data]
        if not self.file(MANIFEST).exists():
            foreign += [name for name in RESULTS if self.file(name).exists()]
        if foreign:
            raise ConfigError(
                f"the run would replace {', '.join(dict.fromkeys(foreign))}, which no run has made",
                where=self.path,
                remedy="Choose another folder with --set output.directory=..., or move the file",
            )

    def check(self, manifest: Mapping[str, Any]) -> None:
        """Refuse a folder that belongs to another run; one of no run passes.

        Runs are the same where ``data.sha256`` of their manifests, the content of the data file,
        and their ``config_sha256`` agree. Versions, command line and the path of the data may
        differ.

        Args:
            manifest: That of the run that wants the folder.

        Raises:
            ConfigError: Its manifest names other data or other settings, or cannot be read.
        """
        if not self.file(MANIFEST).exists():
            return
        known = self.manifest
        if _sha256(known) != _sha256(manifest):
            seen = f"it holds results of other data ({_source(known)}, not {_source(manifest)})"
        elif known.get("config_sha256") != manifest.get("config_sha256"):
            seen = "it holds results of other settings of the run file"
        else:
            return
        raise ConfigError(
            seen,
            where=self.path,
            remedy="Choose another folder with --set output.directory=..., or replace the "
            "results with --force",
        )

    def clear(self) -> None:
        """Remove the files of a run, its folder of work and its manifest; others stay."""
        for name in (*RESULTS, MANIFEST):
            self.file(name).unlink(missing_ok=True)
        WorkFolder.remove(self.path)
        self.remove_checkpoints()

    @property
    def has_checkpoints(self) -> bool:
        """Whether there are states that a run could go on from."""
        return any(self.path.glob(f"{_CHECKPOINT}*"))

    def remove_checkpoints(self) -> None:
        """Remove the states that a run could go on from, and what its shards were given."""
        for file in self.path.glob(f"{_CHECKPOINT}*"):
            file.unlink()

    def write_json(self, name: str, value: object) -> Path:
        """Write a JSON document of the folder at once."""
        return files.write_json(self.file(name), value)

    def read_json(self, name: str) -> Any:
        """Read a JSON document of the folder.

        Raises:
            ConfigError: It is missing or no JSON.
        """
        return files.read_json(self.file(name))

    def write_npz(self, name: str, arrays: Mapping[str, ArrayLike]) -> Path:
        """Write arrays into the folder at once."""
        return files.write_npz(self.file(name), arrays)

    def read_npz(self, name: str) -> dict[str, Any]:
        """Read arrays of the folder.

        Raises:
            ConfigError: The file is missing or damaged.
        """
        return files.read_npz(self.file(name))

    def replacing(self, name: str) -> AbstractContextManager[Path]:
        """Give a name to write to, which becomes a file of the folder on success."""
        return files.replacing(self.file(name))


def checkpoint(name: str) -> str:
    """Name of the file that keeps the state of a pass of the sampler."""
    return f"{_CHECKPOINT}{name}.npz"


def make_manifest(
    config: Mapping[str, Any], data: Mapping[str, Any], *, command: Sequence[str], seed: int
) -> dict[str, Any]:
    """Say what a run is made of.

    Args:
        config: Resolved run file.
        data: ``path``, ``sha256``, ``layout`` and ``details`` of the data file.
        command: The command line.
        seed: Seed of the draws.
    """
    return {
        "heterodyne": heterodyne.__version__,
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "seed": seed,
        "config_sha256": config_sha256(config),
        "data": {key: data[key] for key in ("path", "sha256", "layout", "details")},
    }


def config_sha256(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the settings that act on results, whatever the order of the keys.

    It covers the whole resolved run file, with seed, engine and defaults that nobody wrote,
    except what says where things are, who works and how long that may take:
    ``experimental_data.file_path``, ``output``, ``cluster``, and in ``optimization.cmc`` the
    ``timeout``, the profile and all of ``backend_config`` but ``chain_method``. So a run that a
    time limit has stopped goes on with a longer one. The content of the data file has a digest of
    its own. ``RunFolder.check`` refuses a folder in which one of the two differs.

    Args:
        config: Resolved run file, as ``config.json`` holds it.
    """
    settings = copy.deepcopy(dict(config))
    for *path, last in _CIRCUMSTANCES:
        holder = settings
        for key in path:
            holder = holder.get(key) or {}
        holder.pop(last, None)
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _sha256(manifest: Mapping[str, Any]) -> object:
    return (manifest.get("data") or {}).get("sha256")


def _source(manifest: Mapping[str, Any]) -> str | None:
    return (manifest.get("data") or {}).get("path")
