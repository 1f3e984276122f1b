"""The documented way from a model and arrays to a judged posterior."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from heterodyne._errors import ConfigError, DataError
from heterodyne._events import Event, Message
from heterodyne._log import get_logger
from heterodyne._typing import ArrayLike
from heterodyne.config.cmc import CMCConfig
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core.heterodyne_model import HeterodyneModel
from heterodyne.data import TwoTimeData, from_arrays
from heterodyne.optimization.bind import bind, fit_scaled
from heterodyne.optimization.cmc._analysis import NoiseSettings, analyse
from heterodyne.optimization.cmc._to_result import result_of
from heterodyne.optimization.cmc.results import CMCResult
from heterodyne.optimization.nlsq.results import NLSQResult
from heterodyne.optimization.scaling import ScalingMode

_LOG = get_logger(__name__)
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def fit_cmc_multi_phi(
    model: HeterodyneModel,
    c2_data: ArrayLike,
    phi_angles: ArrayLike,
    config: CMCConfig | None = None,
    nlsq_results: Sequence[NLSQResult] | None = None,
    sigma: ArrayLike | None = None,
) -> CMCResult:
    """Sample the posterior of all angles jointly.

    The physics parameters are common to all angles. A least-squares fit, which searches
    from many starts, always comes first; all unique pairs enter it and the draws once.

    Args:
        model: Time grid, wavevector and parameters.
        c2_data: Measured correlation, shape (N, N) or (n_phi, N, N), symmetric; a pair and
            its mirror image count once, the diagonal is not fitted.
        phi_angles: Detector angles in degrees, shape (n_phi,).
        config: Settings; None samples one contrast and offset per angle with the defaults.
        nlsq_results: Earlier fits; the best of them gives the search its start values.
        sigma: Estimate of the standard deviation of the errors, a number or an array that
            fits ``c2_data``. Sigma is sampled; its root mean square scales the prior.

    Returns:
        The posterior with its verdict.

    Raises:
        ConfigError: Settings or a sigma that cannot be used.
        DataError: Shapes that do not match, halves that differ, or data that cannot be fitted.
        SamplingError: The density is not finite near the fit.
    """
    config, mode = _settings(config, np.size(phi_angles))
    data = _two_time_data(model, c2_data, phi_angles)
    noise = NoiseSettings(data.diagonal_is_raw, scale=_scale(sigma, data.c2.shape))
    space = model.param_manager
    if nlsq_results and config.use_nlsq_warmstart:
        space = _started(space, nlsq_results)
    fit = fit_scaled(bind(data, space), ScalingMode.parse(mode), on_event=_log_event)
    analysis = analyse(fit, np.asarray(data.c2), config, noise, engine="nuts", on_event=_log_event)
    return result_of(analysis, config, mode)


def _settings(config: CMCConfig | None, n_phi: int) -> tuple[CMCConfig, str]:
    """Check settings, and choose the treatment of contrast and offset."""
    if config is None:
        return CMCConfig(), ScalingMode.INDIVIDUAL.value
    problems = config.validate()
    if problems:
        raise ConfigError("; ".join(problems), where="CMCConfig")
    if config.num_shards not in ("auto", 1):
        _LOG.warning("All pairs are sampled in one pass: num_shards is not used.")
    return config, config.get_effective_per_angle_mode(n_phi)


def _two_time_data(model: HeterodyneModel, c2: ArrayLike, phi: ArrayLike) -> TwoTimeData:
    matrices = np.asarray(c2, float)
    matrices = matrices[None] if matrices.ndim == 2 else matrices
    angles = np.atleast_1d(np.asarray(phi, float))
    shape = (angles.size, model.t.size, model.t.size)
    if angles.ndim != 1 or matrices.shape != shape:
        raise DataError(
            f"{angles.size} angles and {model.t.size} times with c2 of shape {matrices.shape}",
            where="c2_data",
            allowed=f"(N, N) for one angle, or (n_phi, N, N): {shape}",
        )
    return from_arrays(matrices, q=model.q, phi=angles, t=model.t, dt=model.dt, source="c2_data")


def _scale(sigma: ArrayLike | None, shape: tuple[int, ...]) -> float | None:
    """Root mean square of an estimate of the errors, over the pairs."""
    if sigma is None:
        return None
    given = np.asarray(sigma, float)
    try:
        full = np.broadcast_to(given, shape)
    except ValueError:
        raise ConfigError(
            f"sigma has the shape {given.shape}",
            where="sigma",
            allowed=f"a number, or an array that fits c2_data, {shape}",
        ) from None
    pairs = full[:, *np.triu_indices(shape[-1], 1)]
    wrong = pairs[~(np.isfinite(pairs) & (pairs > 0))]
    if wrong.size:
        raise ConfigError(
            f"{wrong.size} pairs have a sigma such as {wrong[0]:g}",
            where="sigma",
            allowed="finite, > 0",
        )
    return float(np.sqrt(np.mean(pairs**2)))


def _started(space: ParameterSpace, results: Sequence[NLSQResult]) -> ParameterSpace:
    """Take the start values of the varying physics parameters from the best fit."""
    best = min(results, key=_badness)
    found = best.as_dict()
    values: dict[str, float] = {}
    for name in space.varying_names:
        if name not in PHYSICS_PARAM_NAMES or name not in found:
            continue
        value, setting = found[name], space[name]
        if not np.isfinite(value):
            _LOG.warning(
                "The fit has %s = %g: its start value stays %g.", name, value, setting.value
            )
            continue
        values[name] = min(max(value, setting.min), setting.max)
        if values[name] != value:
            _LOG.warning(
                "The fit has %s = %g, outside its bounds %g to %g: sampling starts at %g.",
                name, value, setting.min, setting.max, values[name],
            )  # fmt: skip
    return space.with_values(values)


def _badness(result: NLSQResult) -> tuple[bool, float]:
    return not result.success, float(np.nan_to_num(result.sigma, nan=np.inf))


def _log_event(event: Event) -> None:
    if isinstance(event, Message):
        _LOG.log(_LEVELS[event.severity], event.text)
