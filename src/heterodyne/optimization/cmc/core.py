"""The documented ways from a model and arrays to a judged posterior.

All of them fit from many starts, sample on one engine, judge, and return a ``CMCResult``. All
unique pairs enter once, whether they are sampled in one pass or divided into shards.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from heterodyne._events import log_events
from heterodyne._log import get_logger
from heterodyne._typing import ArrayLike, FloatArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.core.heterodyne_model import HeterodyneModel
from heterodyne.io.files import folder_of
from heterodyne.optimization.bind import bind, charts_of, fit_scaled
from heterodyne.optimization.cmc._analysis import Analysis, NoiseSettings, analyse, compile_analysis
from heterodyne.optimization.cmc._assign import Sharding
from heterodyne.optimization.cmc._divide import divided
from heterodyne.optimization.cmc._inputs import (
    checked,
    method_settings,
    noise_scale,
    only_sigma,
    prepared,
)
from heterodyne.optimization.cmc._passes import Keeper
from heterodyne.optimization.cmc._pool import Pool
from heterodyne.optimization.cmc._retry import LARGEST_TARGET
from heterodyne.optimization.cmc._run_health import DIVERGENCE_RATE_HIGH
from heterodyne.optimization.cmc._shard_store import shard_keeper
from heterodyne.optimization.cmc._surroundings import profiled, with_modes
from heterodyne.optimization.cmc._to_result import result_of
from heterodyne.optimization.cmc._warm_start import (
    CMC_ALPHA_SAFE_ZONE,
    CMC_ALPHA_SINGULARITY,
    CMC_F0_DEGEN_THRESHOLD,
    CMC_F0_SAFE_ZONE,
    best_values,
    refuse_degenerate,
)
from heterodyne.optimization.cmc.io import save_result
from heterodyne.optimization.cmc.results import CMCResult
from heterodyne.optimization.measured import two_time_data
from heterodyne.optimization.nlsq.core import Fit
from heterodyne.optimization.nlsq.results import NLSQResult
from heterodyne.optimization.scaling import ScalingMode

__all__ = [
    "CMC_ALPHA_SAFE_ZONE",
    "CMC_ALPHA_SINGULARITY",
    "CMC_F0_DEGEN_THRESHOLD",
    "CMC_F0_SAFE_ZONE",
    "fit_cmc_jax",
    "fit_cmc_multi_phi",
    "fit_cmc_sharded",
    "fit_mcmc_jax",
    "run_cmc_analysis",
]

_LOG = get_logger(__name__)
_log_event = log_events(_LOG)
# How often a run is repeated with smaller steps, and by how much each aims higher.
_RETRIES, _STEP = 3, 0.05


def fit_cmc_jax(
    model: HeterodyneModel,
    c2_data: ArrayLike,
    phi_angle: float | ArrayLike = 0.0,
    config: CMCConfig | None = None,
    sigma: ArrayLike | None = None,
    nlsq_result: NLSQResult | None = None,
    t_override: ArrayLike | None = None,
    priors_override: Mapping[str, Any] | None = None,
    prior_width_multiplier: float = 1.0,
) -> CMCResult:
    """Sample the posterior of one angle in one pass.

    Contrast and offset of the angle are sampled under their plain names.

    Args:
        model: Time grid, wavevector and parameters.
        c2_data: Measured correlation, shape (N, N), symmetric; a pair and its mirror image
            count once, the diagonal is not fitted. Frames that are NaN throughout are left out.
        phi_angle: Detector angle in degrees.
        config: Settings; defaults if None.
        sigma: Estimate of the standard deviation of the errors, a number or an array that
            fits ``c2_data``. Sigma is sampled; its root mean square scales the prior.
        nlsq_result: An earlier fit, which gives the search its start values.
        t_override: Frame times in s that take the place of the model's, shape (N,).
        priors_override: NumPyro distributions that take the place of priors, by name, also of
            those that are centred on a fit (``use_nlsq_informed_priors: literal``).
        prior_width_multiplier: Factor on the width of every prior, on top of
            ``nlsq_prior_width_factor``.

    Returns:
        The posterior with its verdict.

    Raises:
        ConfigError: Settings, priors or a sigma that cannot be used.
        DataError: Shapes that do not match, halves that differ, or data that cannot be fitted.
        SamplingError: The density is not finite near the fit.
    """
    config = checked(config)
    if t_override is not None:
        model = replace(model, t=np.asarray(t_override, float))
    mode = _single_angle_mode(config)
    results = [] if nlsq_result is None else [nlsq_result]
    return _sampled(
        model, c2_data, phi_angle, config, mode, results, sigma, None,
        priors_override, prior_width_multiplier,
    )  # fmt: skip


def fit_cmc_sharded(
    model: HeterodyneModel,
    c2_data: ArrayLike,
    phi_angle: float | ArrayLike = 0.0,
    config: CMCConfig | None = None,
    sigma: ArrayLike | None = None,
    nlsq_result: NLSQResult | None = None,
    num_shards: int = 4,
    sharding_strategy: str = "random",
    shard_seed: int | None = None,
) -> CMCResult:
    """Sample the pairs of one angle in shards and combine these.

    Each unique pair belongs to one shard, whose prior density in sampling coordinates is that
    of all data to the power 1/K. Draws are combined with full covariances and held against
    the posterior of all pairs.

    Args:
        model: Time grid, wavevector and parameters.
        c2_data: As in ``fit_cmc_jax``.
        phi_angle: Detector angle in degrees.
        config: Settings; defaults if None.
        sigma: As in ``fit_cmc_jax``.
        nlsq_result: An earlier fit, which gives the search its start values.
        num_shards: Number of shards K, at least 2.
        sharding_strategy: ``random``, ``contiguous`` (bands of mean time), ``stratified``
            or ``angle_balanced``.
        shard_seed: Seed of the assignment; None draws one, which the result names.

    Returns:
        The posterior with its verdict; ``metadata["shard_diagnostics"]`` has the shards,
        ``metadata["combination"]`` what is known about their combination.

    Raises:
        ConfigError: Settings, a strategy or a sigma that cannot be used, or fewer than 2 shards.
        DataError: As ``fit_cmc_jax``.
        SamplingError: Too few shards converged, they contradict each other, or the earlier
            fit leaves the transport of the sample undetermined.
    """
    config = checked(config)
    seed = int(np.random.SeedSequence().generate_state(1)[0]) if shard_seed is None else shard_seed
    sharding = Sharding(num_shards, sharding_strategy, seed)
    results = [] if nlsq_result is None else [nlsq_result]
    refuse_degenerate(best_values(results), model.param_manager, config, "nlsq_result")
    mode = _single_angle_mode(config)
    return _sampled(model, c2_data, phi_angle, config, mode, results, sigma, sharding)


def fit_cmc_multi_phi(
    model: HeterodyneModel,
    c2_data: ArrayLike,
    phi_angles: ArrayLike,
    config: CMCConfig | None = None,
    nlsq_results: Sequence[NLSQResult] | None = None,
    sigma: ArrayLike | None = None,
) -> CMCResult:
    """Sample the posterior of all angles jointly.

    The physics parameters are common to all angles. All pairs are sampled in one pass unless
    shards are asked for: by ``enable: always``, or by a number or a largest size of shards.

    Args:
        model: Time grid, wavevector and parameters.
        c2_data: Measured correlation, shape (N, N) or (n_phi, N, N), symmetric, as in
            ``fit_cmc_jax``.
        phi_angles: Detector angles in degrees, shape (n_phi,).
        config: Settings; None samples one contrast and offset per angle with the defaults.
        nlsq_results: Earlier fits; the best of them gives the search its start values.
        sigma: As in ``fit_cmc_jax``.

    Returns:
        The posterior with its verdict.

    Raises:
        ConfigError: Settings or a sigma that cannot be used.
        DataError: Shapes that do not match, halves that differ, or data that cannot be fitted.
        SamplingError: The density is not finite near the fit, too few shards converged, or
            they contradict each other.
    """
    angle_mode = ScalingMode.INDIVIDUAL.value
    if config is not None:
        angle_mode = config.get_effective_per_angle_mode(np.size(phi_angles))
    config = checked(config)
    results = list(nlsq_results or ())
    return _as_asked(model, c2_data, phi_angles, config, angle_mode, results, sigma)


def fit_mcmc_jax(
    data: np.ndarray,
    t1: np.ndarray,
    t2: np.ndarray,
    phi: np.ndarray,
    q: float,
    L: float,
    analysis_mode: str,
    method: str = "mcmc",
    cmc_config: Mapping[str, Any] | CMCConfig | None = None,
    initial_values: Mapping[str, float] | None = None,
    parameter_space: Any = None,
    dt: float | None = None,
    output_dir: Any = None,
    progress_bar: bool = True,
    run_id: str | None = None,
    nlsq_result: NLSQResult | Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> CMCResult:
    """Sample pooled values, given one by one; a single angle has the names of ``fit_cmc_jax``.

    Args:
        data: Measured correlation, shape (n,): all pairs of a grid of times at each angle.
        t1: First time of each value in s, shape (n,).
        t2: Second time of each value in s, shape (n,).
        phi: Angle of each value in degrees, shape (n,).
        q: Wavevector in 1/Å.
        L: Gap of the shear cell; the model has no use for it.
        analysis_mode: Not used; there is one model.
        method: ``mcmc``, ``nuts`` or ``cmc``: all the same, ``cmc_config`` decides on shards.
        cmc_config: Settings, as an object or as its dictionary.
        initial_values: Start values by name.
        parameter_space: Bounds and priors; defaults if None.
        dt: Time between frames in s; None takes the spacing of the times.
        output_dir: Folder into which the result is written; None writes nothing.
        progress_bar: Whether progress is logged.
        run_id: Name of the run, in ``metadata`` and file names.
        nlsq_result: An earlier fit; a dictionary is not used, with a warning.
        **kwargs: ``sigma``, as in ``fit_cmc_jax``.

    Raises:
        ConfigError: Settings that cannot be used, or an argument that is not known.
        DataError: Lengths that differ, or values that do not fill a grid of times.
        SamplingError: As ``fit_cmc_multi_phi``.
    """
    if output_dir is not None:
        folder_of(output_dir)
    pool = Pool.of(data, t1, t2, phi, q, dt, parameter_space, initial_values)
    config = method_settings(method, cmc_config)
    config = checked(replace(config, run_id=run_id or config.run_id))
    if isinstance(nlsq_result, Mapping):
        _LOG.warning("nlsq_result is a dictionary and not used: give an NLSQResult.")
        nlsq_result = None
    results, n_phi = [] if nlsq_result is None else [nlsq_result], pool.phi.size
    mode = config.get_effective_per_angle_mode(n_phi) if n_phi > 1 else _single_angle_mode(config)
    with _progress(progress_bar):
        result = _as_asked(*pool, config, mode, results, only_sigma(kwargs))
    if output_dir is not None:
        save_result(result, output_dir, config.run_id)
    return result


@contextmanager
def _progress(shown: bool) -> Iterator[None]:
    """Log what happens, or only what is wrong."""
    before = _LOG.level
    if not shown:
        _LOG.setLevel(logging.WARNING)
    try:
        yield
    finally:
        _LOG.setLevel(before)


def run_cmc_analysis(
    model: HeterodyneModel, c2_data: ArrayLike, config: CMCConfig | None = None, **kwargs: Any
) -> CMCResult:
    """Call ``fit_cmc_jax`` with the same arguments."""
    return fit_cmc_jax(model, c2_data, config=config, **kwargs)


def _as_asked(
    model: HeterodyneModel,
    c2: ArrayLike,
    phi: ArrayLike,
    config: CMCConfig,
    mode: str,
    results: Sequence[NLSQResult],
    sigma: ArrayLike | None,
) -> CMCResult:
    """Sample in one pass, or in shards where settings ask for them."""
    sharding = divided(config, model.t.size, np.size(phi), "nuts", _log_event)
    if sharding is not None:
        refuse_degenerate(best_values(results), model.param_manager, config, "nlsq_results")
    return _sampled(model, c2, phi, config, mode, results, sigma, sharding)


def _single_angle_mode(config: CMCConfig) -> str:
    """One angle has one contrast and offset, whether its own or common to all."""
    mode = config.get_effective_per_angle_mode(1)
    return "auto" if mode == ScalingMode.INDIVIDUAL.value else mode


def _sampled(
    model: HeterodyneModel,
    c2: ArrayLike,
    phi: ArrayLike,
    config: CMCConfig,
    mode: str,
    results: Sequence[NLSQResult],
    sigma: ArrayLike | None,
    sharding: Sharding | None,
    priors: Mapping[str, Any] | None = None,
    prior_width: float = 1.0,
) -> CMCResult:
    data = two_time_data(model, c2, phi)
    noise = NoiseSettings(data.diagonal_is_raw, scale=noise_scale(sigma, data.c2.shape))
    space, notes = prepared(model.param_manager, results, config, priors, prior_width)
    problem = bind(data, space, charts=charts_of(config))
    matrices = np.asarray(data.c2, float)
    with profiled(config):
        fit = fit_scaled(
            problem,
            ScalingMode.parse(mode),
            on_event=_log_event,
            before=partial(compile_analysis, config=config, engine="nuts"),
        )
        keeper = shard_keeper(fit, matrices, config, sharding)
        plan = Plan(config, noise, sharding, keeper, notes)
        analysis = _retried(fit, matrices, plan)
    return with_modes(result_of(analysis, config, mode), config)


@dataclass(frozen=True)
class Plan:
    """How one data set is sampled, whatever the attempt.

    Attributes:
        config: Settings.
        noise: What is known about the noise.
        sharding: How pairs are divided; None for one pass.
        keeper: Where states are kept.
        notes: Sentences for the verdict.
    """

    config: CMCConfig
    noise: NoiseSettings
    sharding: Sharding | None
    keeper: Keeper
    notes: tuple[str, ...] = ()


def _retried(fit: Fit, c2: FloatArray, plan: Plan) -> Analysis:
    """Sample; where many draws diverge, again with smaller steps; keep what diverged least."""
    best: Analysis | None = None
    for attempt in range(_RETRIES + 1):
        accept = min(plan.config.target_accept_prob + attempt * _STEP, LARGEST_TARGET)
        found = analyse(
            fit,
            c2,
            replace(plan.config, target_accept_prob=accept),
            plan.noise,
            engine="nuts",
            sharding=plan.sharding,
            # A retry must not go on from the draws that it is to replace.
            keeper=plan.keeper if attempt == 0 else None,
            notes=plan.notes,
            on_event=_log_event,
        )
        share = found.diagnosis.divergent_share
        if best is None or share < best.diagnosis.divergent_share:
            best = found
        if share <= DIVERGENCE_RATE_HIGH or accept == LARGEST_TARGET:
            break
        _LOG.warning(
            "%.1f %% of the draws diverged: sampling again with target_accept_prob above %.2f.",
            100 * share, accept,
        )  # fmt: skip
    assert best is not None
    return best
