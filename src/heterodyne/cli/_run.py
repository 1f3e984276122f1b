"""Steps that the commands on a run file share."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heterodyne.cli import _output

if TYPE_CHECKING:
    from heterodyne.config.schema import RunConfig
    from heterodyne.data import TwoTimeData, TwoTimeFile
    from heterodyne.io.run_folder import RunFolder


def load(path: Path, settings: Sequence[str] | None) -> RunConfig:
    """Read a run file with the settings of the command line.

    Raises:
        ConfigError: With one line per problem.
    """
    from heterodyne.config.load import load_run_config

    return load_run_config(path, settings or ())


def check_folder(config: RunConfig, data: TwoTimeData) -> None:
    """Refuse the run folder of another run, before any work and without writing.

    Raises:
        ConfigError: The folder belongs to other data or settings.
    """
    from heterodyne.io.run_folder import RunFolder

    RunFolder(Path(config.output.directory)).check(_manifest(config, data))


def check_source(config: RunConfig, file: TwoTimeFile) -> None:
    """Refuse the run folder of another run, before the matrices are read.

    Raises:
        ConfigError: The folder belongs to other data or settings.
    """
    from heterodyne.io.run_folder import RunFolder

    source = {"path": file.path, "sha256": file.digest(), "layout": file.layout.value}
    RunFolder(Path(config.output.directory)).check(_manifest_of(config, source | {"details": {}}))


def open_folder(config: RunConfig, data: TwoTimeData, *, force: bool) -> RunFolder:
    """Make or take the run folder and write what the run is made of.

    Raises:
        ConfigError: The folder belongs to another run, or cannot be written.
    """
    from heterodyne.data.run_data import describe_data
    from heterodyne.io import run_folder

    manifest = _manifest(config, data)
    folder = run_folder.RunFolder.create(config.output.directory, manifest, force=force)
    folder.write_json(run_folder.CONFIG, config.model_dump(mode="json"))
    folder.write_json(run_folder.DATA, describe_data(data))
    return folder


def _manifest(config: RunConfig, data: TwoTimeData) -> dict[str, Any]:
    from heterodyne.data.run_data import describe_source

    return _manifest_of(config, describe_source(data))


def _manifest_of(config: RunConfig, source: Mapping[str, Any]) -> dict[str, Any]:
    from heterodyne.io.run_folder import make_manifest

    return make_manifest(
        config.model_dump(mode="json"),
        source,
        command=["heterodyne", *sys.argv[1:]],
        seed=config.cmc_config().seed,
    )


def data_lines(facts: Mapping[str, Any]) -> str:
    """Say which data are fitted.

    Args:
        facts: From ``describe_data``.
    """
    bins = ", ".join(
        f"{one['label']}" + (f" ({one['phi']:g}°)" if one["phi"] is not None else "")
        for one in facts["bins"]
    )
    left_out = facts["n_frames"] - facts["n_fitted_frames"]
    entries = [
        ("q", f"{facts['q']:.6g} 1/Å"),
        ("bins", f"{len(facts['bins'])}: {bins}"),
        (
            "frames",
            f"{facts['n_fitted_frames']}" + (f", {left_out} left out" if left_out else "")
            + f"; {facts['dt']:g} s apart, {facts['t_first']:g} to {facts['t_last']:g} s "
            f"(time origin: {facts['time_origin']})",
        ),
        ("unique pairs", f"{facts['unique_pairs']:,}"),
    ]  # fmt: skip
    return _output.pairs(entries)
