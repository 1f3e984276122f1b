"""Steps that the commands on a run file share."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heterodyne.cli import _output

if TYPE_CHECKING:
    from heterodyne.config.schema import RunConfig
    from heterodyne.data import TwoTimeData
    from heterodyne.io.run_folder import RunFolder


def load(path: Path, settings: Sequence[str] | None) -> RunConfig:
    """Read a run file with the settings of the command line.

    Raises:
        ConfigError: With one line per problem.
    """
    from heterodyne.config.load import load_run_config

    return load_run_config(path, settings or ())


def open_folder(config: RunConfig, data: TwoTimeData, *, force: bool) -> RunFolder:
    """Make or take the run folder and write what the run is made of.

    Raises:
        ConfigError: The folder belongs to another run, or cannot be written.
    """
    from heterodyne.data.run_data import describe_data, describe_source
    from heterodyne.io import run_folder

    settings = config.model_dump(mode="json")
    manifest = run_folder.make_manifest(
        settings,
        describe_source(data),
        command=["heterodyne", *sys.argv[1:]],
        seed=config.cmc_config().seed,
    )
    folder = run_folder.RunFolder.create(config.output.directory, manifest, force=force)
    folder.write_json(run_folder.CONFIG, settings)
    folder.write_json(run_folder.DATA, describe_data(data))
    return folder


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
