"""The spine: a run file's data are fitted, sampled, judged and written, in that order."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from heterodyne._errors import ConfigError, InterruptedRunError
from heterodyne._events import EventSink, Message, ignore_events
from heterodyne.config.cmc import CMCConfig
from heterodyne.data import TwoTimeData
from heterodyne.io import run_folder
from heterodyne.io.run_folder import RunFolder
from heterodyne.optimization.bind import fit_run
from heterodyne.optimization.cmc import _record
from heterodyne.optimization.cmc._analysis import (
    Analysis,
    NoiseSettings,
    analyse,
    compile_analysis,
)
from heterodyne.optimization.cmc._divide import asks_for_shards, divided
from heterodyne.optimization.cmc._shard_plan import compile_shards
from heterodyne.optimization.cmc._shard_store import run_keeper
from heterodyne.optimization.cmc._shard_task import Elsewhere, Transport, rules_of
from heterodyne.optimization.cmc._verdict import Verdict
from heterodyne.optimization.nlsq.core import Fit
from heterodyne.optimization.nlsq.record import fit_record
from heterodyne.optimization.problem import Problem

if TYPE_CHECKING:
    from heterodyne.config.schema import RunConfig

_ABOUT_EARLIER_FITS = (
    "use_nlsq_warmstart", "require_nlsq_warmstart", "allow_degenerate_warmstart",
    "nlsq_prior_width_factor",
)  # fmt: skip


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
    transport: Transport | None = None,
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
        transport: Has shards drawn by workers; None draws them here, one after the other.

    Raises:
        InterruptedRunError: The run was stopped; the same command goes on with it.
        ConfigError: There is nothing to resume.
    """
    interrupted = folder.has_checkpoints
    if resume and not interrupted:
        raise ConfigError(
            "there is no interrupted run to go on with",
            where=folder.path,
            remedy="Leave out --resume to start one",
        )
    for text in without_effect(config.cmc_config()):
        on_event(Message(text, "warning"))
    started = time.monotonic()
    try:
        fit = fit_run(config, data, on_event, partial(_prepare, config))
        fit_seconds = time.monotonic() - started
        folder.write_json(run_folder.FIT, fit_record(fit.result))
        if interrupted:
            on_event(Message("Going on with the interrupted run in this folder."))
        analysis = _analysed(fit, config, data, folder, transport, on_event)
    except KeyboardInterrupt:
        raise InterruptedRunError(
            "the run was stopped",
            where=folder.path,
            remedy="The same command goes on with it"
            if folder.has_checkpoints
            else "Nothing was drawn yet; the same command starts anew",
        ) from None
    return write(analysis, data, folder, fit_seconds)


def without_effect(settings: CMCConfig) -> Iterator[str]:
    """Say which settings a run file has in vain, since they are about an earlier fit."""
    usual = CMCConfig()
    for name in _ABOUT_EARLIER_FITS:
        value = getattr(settings, name)
        if value != getattr(usual, name):
            yield (
                f"{name}: {str(value).lower()} has no effect: a run takes no earlier fit, and "
                "always starts its draws at a fit of its own."
            )


def _prepare(config: RunConfig, problem: Problem) -> None:
    """Have code compiled while the data are fitted."""
    settings, engine = config.cmc_config(), config.optimization.engine
    compile_analysis(problem, settings, engine=engine)
    # The nodes of a cluster keep compiled code of their own.
    if asks_for_shards(settings) and engine != "nuts" and config.cluster is None:
        compile_shards(problem)


def _analysed(
    fit: Fit,
    config: RunConfig,
    data: TwoTimeData,
    folder: RunFolder,
    transport: Transport | None,
    on_event: EventSink,
) -> Analysis:
    settings, engine = config.cmc_config(), config.optimization.engine
    return analyse(
        fit,
        np.asarray(data.c2),
        settings,
        noise_settings(config, data),
        engine=engine,
        sharding=divided(settings, data.n_frames, data.n_angles, engine, on_event),
        elsewhere=transport and Elsewhere(folder, transport, rules_of(settings)),
        keeper=run_keeper(folder),
        on_event=on_event,
    )


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
