"""From selected data and parameter settings to what is fitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from heterodyne._errors import DataError
from heterodyne._events import EventSink, Message, ignore_events
from heterodyne._typing import FloatArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core.likelihood import pack_pairs
from heterodyne.data import TwoTimeData
from heterodyne.optimization.coordinates.physics import ALL_CHARTS, PhysicsCoordinates
from heterodyne.optimization.nlsq.config import NLSQConfig
from heterodyne.optimization.nlsq.core import Fit, fit_problem
from heterodyne.optimization.problem import Problem
from heterodyne.optimization.scaling import Scaling, ScalingMode

if TYPE_CHECKING:
    from heterodyne.config.schema import RunConfig


def bind(
    data: TwoTimeData,
    space: ParameterSpace,
    per_angle_mode: ScalingMode | str = ScalingMode.INDIVIDUAL,
    *,
    contrast: Sequence[float] | None = None,
    offset: Sequence[float] | None = None,
    charts: tuple[bool, bool, bool, bool] = ALL_CHARTS,
) -> Problem:
    """Bind data of one q to the unknowns that describe them.

    Args:
        data: Selected data.
        space: Start values, bounds and priors.
        per_angle_mode: How contrast and offset depend on the angle.
        contrast: Contrast of each angle, needed by the constant modes.
        offset: Offset of each angle, needed by the constant modes.
        charts: Which curves have level and slope for coordinates.

    Raises:
        DataError: Bins of several q, or an angle that is not known.
        ConfigError: A mode that is not known, or a constant mode without values.
    """
    mode = per_angle_mode
    mode = mode if isinstance(mode, ScalingMode) else ScalingMode.parse(mode)
    phi = _angles(data)
    packed = pack_pairs(data.c2, data.t, data.q, data.dt, phi, mask=np.asarray(data.frame_mask))
    scaling = Scaling.of(mode, space, data.n_angles, contrast=contrast, offset=offset)
    times = np.asarray(data.t)[np.asarray(data.fitted)]
    return Problem(packed, PhysicsCoordinates.of(space, times, charts, phi), scaling)


def fit_scaled(
    problem: Problem,
    mode: ScalingMode,
    config: NLSQConfig | None = None,
    on_event: EventSink = ignore_events,
    before: Callable[[Problem], None] | None = None,
) -> Fit:
    """Fit a problem of individual scaling, then in the mode that is wanted.

    The constant modes hold contrast and offset at what a fit with one pair per angle finds.

    Args:
        problem: Data and coordinates; its scaling is replaced.
        mode: How contrast and offset depend on the angle.
        config: Settings of the fit.
        on_event: Receives progress and what was fixed.
        before: Called with the problem of a mode whose contrast and offset are sampled, before
            its fit: what follows can be prepared then.
    """
    space, n_angles = problem.coordinates.space, problem.data.n_angles

    def fitted(scaling: Scaling) -> Fit:
        return fit_problem(replace(problem, scaling=scaling), config, on_event)

    if mode.sampled:
        scaling = Scaling.of(mode, space, n_angles)
        if before is not None:
            before(replace(problem, scaling=scaling))
        return fitted(scaling)
    first = fitted(Scaling.of(ScalingMode.INDIVIDUAL, space, n_angles)).least_squares
    on_event(
        Message(
            f"Contrast and offset are held at the values of a fit (per_angle_mode {mode.value}): "
            "intervals do not include their uncertainty."
        )
    )
    contrast, offset = first.contrast[0].tolist(), first.offset[0].tolist()
    return fitted(Scaling.of(mode, space, n_angles, contrast=contrast, offset=offset))


def fit_run(
    config: RunConfig,
    data: TwoTimeData,
    on_event: EventSink = ignore_events,
    before: Callable[[Problem], None] | None = None,
) -> Fit:
    """Fit the data of a run file by least squares, as its settings say.

    Args:
        config: The run file.
        data: Its data.
        on_event: Receives progress and what was fixed.
        before: As for ``fit_scaled``.
    """
    settings = config.cmc_config()
    mode = ScalingMode.parse(settings.get_effective_per_angle_mode(data.n_angles))
    problem = bind(data, config.parameter_space(), charts=charts_of(settings))
    return fit_scaled(problem, mode, NLSQConfig.of(config.optimization.nlsq), on_event, before)


def charts_of(config: CMCConfig) -> tuple[bool, bool, bool, bool]:
    """Which of J_ref, J_sample, v and s have coordinates that the data identify."""
    if not config.use_reparam:
        return False, False, False, False
    transport, velocity = config.reparameterization_d_total, config.reparameterization_log_gamma
    return transport, transport, velocity, True


def _angles(data: TwoTimeData) -> FloatArray:
    phi = data.phi
    missing = np.isnan(phi)
    # A single angle is degenerate with the velocity's prefactor, so its value is a convention.
    if missing.all() and phi.size == 1:
        return np.zeros(1)
    if missing.any():
        unknown = ", ".join(str(b) for b, m in zip(data.bins, missing, strict=True) if m)
        raise DataError(
            f"no angle is known for {unknown}",
            where=data.provenance.path,
            remedy="Give phi in degrees under experimental_data.keys, or select other bins",
        )
    return phi
