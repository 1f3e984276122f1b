"""The spine: a run file's data are fitted, sampled, judged and written, in that order."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heterodyne._errors import ConfigError, InterruptedRunError
from heterodyne._events import EventSink, Message, ignore_events
from heterodyne._typing import FloatArray
from heterodyne.data import TwoTimeData
from heterodyne.io import run_folder
from heterodyne.io.run_folder import RunFolder
from heterodyne.optimization.bind import fit_run
from heterodyne.optimization.cmc import _record
from heterodyne.optimization.cmc._analysis import Analysis, NoiseSettings, analyse
from heterodyne.optimization.cmc._passes import ENGINES, PASSES, Keeper, state_key
from heterodyne.optimization.cmc._verdict import Verdict
from heterodyne.optimization.nlsq.record import fit_record

if TYPE_CHECKING:
    from heterodyne.config.schema import RunConfig


@dataclass(frozen=True)
class Finished:
    """A run whose results are written.

    Attributes:
        verdict: Whether to believe them.
        summary: What ``summary.json`` holds.
    """

    verdict: Verdict
    summary: Mapping[str, Any]


def run(
    config: RunConfig,
    data: TwoTimeData,
    folder: RunFolder,
    on_event: EventSink = ignore_events,
    *,
    resume: bool = False,
) -> Finished:
    """Fit, sample, judge and write the data of a run file.

    An interrupted run goes on from its last block to the draws it would have had. The states
    that it goes on from stay in the folder until they are removed, so that nothing is drawn
    again if what follows the draws is interrupted.

    Args:
        config: The run file.
        data: Its data.
        folder: Where results go.
        on_event: Receives the progress.
        resume: Whether there must be an interrupted run to go on with.

    Raises:
        InterruptedRunError: The run was stopped; the same command goes on with it.
        ConfigError: There is nothing to resume.
    """
    checkpoint = _Checkpoint(folder)
    if resume and not checkpoint.exists:
        raise ConfigError(
            "there is no interrupted run to go on with",
            where=folder.path,
            remedy="Leave out --resume to start one",
        )
    started = time.monotonic()
    try:
        fit = fit_run(config, data, on_event)
        fit_seconds = time.monotonic() - started
        folder.write_json(run_folder.FIT, fit_record(fit.result))
        if checkpoint.exists:
            on_event(Message("Going on with the interrupted run in this folder."))
        analysis = analyse(
            fit,
            np.asarray(data.c2),
            config.cmc_config(),
            noise_settings(config, data),
            engine=config.optimization.engine,
            keeper=Keeper(checkpoint.load, checkpoint.save),
            on_event=on_event,
        )
    except KeyboardInterrupt:
        raise InterruptedRunError(
            "the run was stopped",
            where=folder.path,
            remedy="The same command goes on with it"
            if checkpoint.exists
            else "Nothing was drawn yet; the same command starts anew",
        ) from None
    return write(analysis, data, folder, fit_seconds)


def noise_settings(config: RunConfig, data: TwoTimeData) -> NoiseSettings:
    """Collect what run file and data say about the noise."""
    speckles = config.noise.effective_speckles
    return NoiseSettings(data.diagonal_is_raw, None if speckles == "auto" else float(speckles))


def write(analysis: Analysis, data: TwoTimeData, folder: RunFolder, fit_seconds: float) -> Finished:
    """Write an analysis into a run folder; the summary, which tells that it is whole, last."""
    folder.write_npz(run_folder.MAPS, _record.maps(analysis.fit, data))
    times = np.asarray(data.t)[np.asarray(data.fitted)]
    folder.write_npz(run_folder.CURVES, _record.curves(analysis, times))
    with folder.replacing(run_folder.POSTERIOR) as path:
        _record.data_tree(analysis).to_netcdf(path, engine="h5netcdf")
    summary = _record.summary(analysis, fit_seconds)
    folder.write_json(run_folder.SUMMARY, summary)
    return Finished(analysis.verdict, summary)


@dataclass(frozen=True)
class _Checkpoint:
    """States in a run folder, one file for each pass and engine."""

    folder: RunFolder

    @property
    def _files(self) -> list[Path]:
        return [self._file(state_key(name, engine)) for name in PASSES for engine in ENGINES]

    @property
    def exists(self) -> bool:
        return any(file.is_file() for file in self._files)

    def _file(self, key: str) -> Path:
        return self.folder.file(run_folder.checkpoint(key))

    def save(self, key: str, arrays: Mapping[str, FloatArray]) -> None:
        self.folder.write_npz(run_folder.checkpoint(key), arrays)

    def load(self, key: str) -> Mapping[str, FloatArray] | None:
        if not self._file(key).is_file():
            return None
        return self.folder.read_npz(run_folder.checkpoint(key))
