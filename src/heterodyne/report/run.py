"""What a report needs, read from the folder of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from heterodyne._errors import ConfigError
from heterodyne._typing import FloatArray
from heterodyne.io import run_folder
from heterodyne.io.run_folder import RunFolder

Row = Mapping[str, Any]
Arrays = Mapping[str, FloatArray]


def usable(verdict: Mapping[str, Any]) -> bool:
    """Whether a recorded verdict says that the numbers can be used."""
    return bool(verdict.get("converged") and verdict.get("fits", True))


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run.

    Attributes:
        path: The folder.
        config: Resolved run file.
        manifest: What made the folder.
        data: Geometry, bins and findings of the data.
        fit: Result of the least-squares fit.
        summary: Verdict, rows of quantities, sampler and noise.
        draws: Groups of draws, each a mapping from name to shape (chains, draws).
        maps: Arrays for pictures of the fit; None if the run left none.
        curves: Bands over the window; None if the run left none.
    """

    path: Path
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]
    data: Mapping[str, Any]
    fit: Mapping[str, Any]
    summary: Mapping[str, Any]
    draws: Mapping[str, Arrays]
    maps: Arrays | None
    curves: Arrays | None

    @property
    def verdict(self) -> Mapping[str, Any]:
        """Headline, sentences and advice."""
        return self.summary["verdict"]

    @property
    def converged(self) -> bool:
        """Whether the draws have converged."""
        return bool(self.verdict.get("converged"))

    @property
    def usable(self) -> bool:
        """Whether the numbers can be used."""
        return usable(self.verdict)

    @property
    def believes_corrected(self) -> bool:
        """Whether the corrected intervals are the ones to believe."""
        return self.verdict.get("believe") == "corrected"

    def rows(self, *kinds: str) -> list[Row]:
        """Rows of quantities of some kinds, in order."""
        return [row for row in self.summary["rows"] if row["kind"] in kinds]

    def chains(self, name: str) -> FloatArray | None:
        """Plain draws of a parameter or a derived quantity, shape (chains, draws)."""
        for group in ("posterior", "derived"):
            if name in self.draws.get(group, {}):
                return self.draws[group][name]
        return None


def read(path: Path) -> Run:
    """Read the folder of a run.

    Raises:
        ConfigError: It is no run folder, or a file that every run leaves is missing or
            cannot be read.
    """
    folder = RunFolder.open(path)
    return Run(
        path=folder.path,
        config=_mapping(folder, run_folder.CONFIG),
        manifest=_mapping(folder, run_folder.MANIFEST),
        data=_mapping(folder, run_folder.DATA),
        fit=_mapping(folder, run_folder.FIT),
        summary=_mapping(folder, run_folder.SUMMARY, "verdict", "rows"),
        draws=_draws(folder.file(run_folder.POSTERIOR)),
        maps=_arrays(folder, run_folder.MAPS),
        curves=_arrays(folder, run_folder.CURVES),
    )


def _mapping(folder: RunFolder, name: str, *needed: str) -> Mapping[str, Any]:
    value = folder.read_json(name)
    missing = [key for key in needed if not isinstance(value, Mapping) or key not in value]
    if missing or not isinstance(value, Mapping):
        raise ConfigError(
            f"there is no {missing[0]!r}" if missing else "the file holds no mapping",
            where=folder.file(name),
            remedy="Run 'heterodyne sample' again",
        )
    return value


def _draws(path: Path) -> Mapping[str, Arrays]:
    import xarray as xr

    if not path.is_file():
        raise ConfigError(
            "there is no such file",
            where=path,
            remedy="Run 'heterodyne sample' again; an unfinished run has no draws",
        )
    try:
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            return {
                str(group): {
                    str(name): np.asarray(values.values, float)
                    for name, values in tree[group].data_vars.items()
                }
                for group in tree.children
            }
    except (OSError, ValueError) as error:
        raise ConfigError(f"the draws cannot be read ({error})", where=path) from error


def _arrays(folder: RunFolder, name: str) -> Arrays | None:
    if not folder.file(name).is_file():
        return None
    return {key: np.asarray(x, float) for key, x in folder.read_npz(name).items()}
