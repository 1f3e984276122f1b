"""The data that a run file names, read and selected as it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from heterodyne._errors import ConfigError, DataError
from heterodyne.data.quality import assess
from heterodyne.data.readers import open_two_time
from heterodyne.data.select import select
from heterodyne.data.two_time import TwoTimeData, TwoTimeFile

if TYPE_CHECKING:
    from heterodyne.config.schema import RunConfig


def open_run_file(config: RunConfig) -> TwoTimeFile:
    """Open the two-time file of a run file; its matrices are not read.

    Raises:
        DataError: The file cannot be read or contradicts the run file.
        ConfigError: The run file names several files.
    """
    source = config.experimental_data
    if not isinstance(source.file_path, str):
        raise _a_batch(f"{len(source.file_path)} files", "experimental_data.file_path")
    keys = {} if source.keys is None else source.keys.model_dump(exclude_none=True)
    return open_two_time(
        source.file_path,
        dt=config.analyzer_parameters.dt,
        layout=None if source.layout == "auto" else source.layout,
        keys=keys,
    )


def read_run_data(config: RunConfig, *, strict: bool = True) -> TwoTimeData:
    """Read the data of a run file, select what it asks for, and judge that.

    Args:
        config: The run file.
        strict: Whether to refuse data that cannot be fitted as they are.

    Returns:
        The data; their findings include those of ``assess``.

    Raises:
        DataError: The data cannot be read or selected, or, where ``strict``, a finding
            is an error.
        ConfigError: The run file names several files or wavevectors.
    """
    analyzer = config.analyzer_parameters
    q = analyzer.scattering.wavevector_q
    if isinstance(q, str | tuple):
        raise _a_batch("several q", "analyzer_parameters.scattering.wavevector_q")
    data = select(
        open_run_file(config),
        q=q,
        q_tolerance=analyzer.scattering.q_tolerance,
        phi_ranges=config.phi_filtering.ranges,
        frames=(analyzer.start_frame, analyzer.end_frame),
        bad_frames=analyzer.bad_frames,
        time_origin=analyzer.time_origin,
        asymmetric=config.experimental_data.asymmetric,
    )
    data = replace(data, findings=assess(data))
    if strict:
        _refuse_errors(data)
    return data


def _a_batch(seen: str, where: str) -> ConfigError:
    return ConfigError(
        f"{seen} make a batch, not a run",
        where=where,
        remedy="Take its members one by one, with heterodyne.data.batch.find_members",
    )


def _refuse_errors(data: TwoTimeData) -> None:
    errors = [finding for finding in data.findings if finding.severity == "error"]
    if errors:
        raise DataError(
            " ".join(finding.text for finding in errors).removesuffix("."),
            where=data.provenance.path,
            remedy=errors[0].advice,
        )


def describe_data(data: TwoTimeData) -> dict[str, Any]:
    """What a run folder says about its data, as plain values.

    Args:
        data: Selected and judged data.
    """
    return {
        "q": data.q,
        "dt": data.dt,
        "t_first": float(data.t[0]),
        "t_last": float(data.t[-1]),
        "time_origin": data.provenance.details.get("time_origin"),
        "n_frames": data.n_frames,
        "n_fitted_frames": int(np.count_nonzero(data.fitted)),
        "unique_pairs": data.unique_pairs * data.n_angles,
        "bins": [asdict(one) for one in data.bins],
        "findings": [asdict(finding) for finding in data.findings],
        "notes": list(data.notes),
    }


def describe_source(data: TwoTimeData) -> Mapping[str, Any]:
    """Path, digest, layout and details of the file, as plain values."""
    source = data.provenance
    return {
        "path": source.path,
        "sha256": source.sha256,
        "layout": source.layout.value,
        "details": dict(source.details),
    }
