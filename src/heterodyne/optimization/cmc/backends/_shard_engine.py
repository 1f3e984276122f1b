"""One shard on the package's own engine: a fit, then NUTS in its coordinates.

The likelihood is that of the shard's pairs. The prior of a parameter is widened by a factor, on
the axis on which it is normal. With a factor of sqrt(K) it is the prior to the power 1/K there,
so that the posteriors of K shards multiply to the posterior of all data on the axes on which
``combine_shard_samples`` combines them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from heterodyne._errors import DataError
from heterodyne._events import log_events
from heterodyne._log import get_logger
from heterodyne._typing import ArrayLike, FloatArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jnp
from heterodyne.core.likelihood import PairData, pack_pairs
from heterodyne.data import from_arrays
from heterodyne.data._matrices import ASYMMETRY_RTOL
from heterodyne.optimization.bind import charts_of, fit_scaled
from heterodyne.optimization.cmc._analysis import noise_seen
from heterodyne.optimization.cmc._diagnostics import Diagnosis
from heterodyne.optimization.cmc._inputs import with_priors
from heterodyne.optimization.cmc._model_pairs import grid_of, listed_pairs
from heterodyne.optimization.cmc._nuts import Target
from heterodyne.optimization.cmc._passes import Keeper, Passes, Sampled
from heterodyne.optimization.cmc._sampler import Schedule
from heterodyne.optimization.cmc._warm_start import (
    refuse_degenerate,
    refuse_missing_fit,
    safe_start,
)
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.derived import Derived
from heterodyne.optimization.nlsq.core import Fit, fit_problem
from heterodyne.optimization.posterior import Posterior
from heterodyne.optimization.problem import Problem
from heterodyne.optimization.scaling import Scaling, ScalingMode

_LOG = get_logger(__name__)
# Shards are many: what is said of each is for those who look closely.
_log_event = log_events(_LOG, info=logging.DEBUG)


@dataclass(frozen=True)
class ShardSettings:
    """How a shard is drawn.

    Attributes:
        space: Start values, bounds and priors, before they are widened.
        config: Counts and settings of NUTS.
        mode: Documented word for how contrast and offset depend on the angle.
        noise_scale: Estimate of the error of a pair, which scales the prior of sigma; None
            takes what the fit leaves over.
        seed: Seed of all random numbers.
        prior_width: Factor on the widths of priors.
        sigma_width: Factor on the width of the prior of sigma.
        contrast: Contrast of each angle for the constant modes; None takes those of a fit.
        offset: Offset of each angle, likewise.
    """

    space: ParameterSpace
    config: CMCConfig
    mode: str
    noise_scale: float | None
    seed: int
    prior_width: float = 1.0
    sigma_width: float = 1.0
    contrast: tuple[float, ...] | None = None
    offset: tuple[float, ...] | None = None


@dataclass(frozen=True)
class ShardDraws:
    """A drawn shard.

    Attributes:
        sampled: Draws and their convergence.
        fit: The fit from which sampling started.
        posterior: Map and density.
        target: Data, and scale of the prior of sigma.
    """

    sampled: Sampled
    fit: Fit
    posterior: Posterior
    target: Target

    @property
    def named(self) -> dict[str, FloatArray]:
        """Draws of the parameters and sigma, shape (chains, draws) each."""
        return dict(self.sampled.quantities.parameters)


def widening(n_shards: int, config: CMCConfig) -> float:
    """Factor on the widths of priors that makes those of all shards one prior."""
    return math.sqrt(n_shards) if config.prior_tempering else 1.0


def warm_started(
    space: ParameterSpace, values: Mapping[str, Any] | None, config: CMCConfig
) -> ParameterSpace:
    """Take start values of the varying parameters from an earlier fit.

    Args:
        space: Bounds and priors.
        values: Fitted values by name.
        config: Whether they are used, and whether they are required.

    Raises:
        ConfigError: They are required and missing; a name that is not known, or a value
            outside its bounds.
        SamplingError: They leave the transport of the sample undetermined, as
            ``refuse_degenerate``.
    """
    if not values:
        refuse_missing_fit(config, "initial_values")
        return space
    if not config.use_nlsq_warmstart:
        _LOG.info("initial_values are not used: use_nlsq_warmstart is false.")
        return space
    held = [name for name in values if name in space.fixed_names]
    if held:
        _LOG.warning("initial_values of %s are not used: they do not vary.", ", ".join(held))
    refuse_degenerate(values, space, config, "initial_values")
    return space.with_values({n: _start(n, x, space) for n, x in values.items() if n not in held})


def _start(name: str, value: Any, space: ParameterSpace) -> float:
    given = float(value)
    safe = safe_start(name, given)
    return given if safe == given else min(max(safe, space[name].min), space[name].max)


def matrix_pairs(
    c2: ArrayLike, weights: ArrayLike | None, t: ArrayLike, q: float, dt: float, phi: ArrayLike
) -> PairData:
    """Take the pairs of symmetric matrices, all or by weight.

    Args:
        c2: Measured correlation, shape (N, N) or (n_phi, N, N); anything where a weight is 0.
        weights: Weights of the pairs, symmetric, of the same shape; None for all.
        t: Frame times in s, shape (N,).
        q: Wavevector in 1/Å.
        dt: Frame spacing in s.
        phi: Detector angles in degrees, shape (n_phi,).

    Raises:
        DataError: Halves that differ, a pair with a weight that is not finite, or no pair.
    """
    stack, angles = np.asarray(c2, float), np.atleast_1d(np.asarray(phi, float))
    stack = stack[None] if stack.ndim == 2 else stack
    if weights is None:
        data = from_arrays(stack, q=q, phi=angles, t=t, dt=dt, source="c2_data")
        return pack_pairs(data.c2, t, q, dt, angles)
    weighed = np.broadcast_to(np.asarray(weights, float), stack.shape)
    used = weighed > 0
    used[:, *np.diag_indices(stack.shape[-1])] = False
    values = np.where(used, stack, 0.0)
    for name, x in (("weights", np.where(used, weighed, 0.0)), ("c2_data", values)):
        _check_symmetric(name, x)
    return pack_pairs(values, t, q, dt, angles, weights=weighed)


def _check_symmetric(name: str, x: FloatArray) -> None:
    if not np.isfinite(x).all():
        raise DataError(
            "a value is not finite", where=name, allowed="finite where the weight is above 0"
        )
    difference = float(np.abs(x - x.swapaxes(1, 2)).max())
    if difference > ASYMMETRY_RTOL * float(np.abs(x).max()):
        raise DataError(
            f"the halves differ by up to {difference:.3g}",
            where=name,
            allowed="symmetric matrices, as (t1, t2) and (t2, t1) are one pair",
        )


def pooled_pairs(
    data: ArrayLike,
    t: ArrayLike,
    q: float,
    dt: float,
    phi_unique: ArrayLike,
    phi_indices: ArrayLike,
    i1_indices: ArrayLike,
    i2_indices: ArrayLike,
) -> PairData:
    """Take points by the frames of their two times; the points of one pair are averaged.

    Args:
        data: Measured correlation, shape (n,).
        t: Frame times in s, shape (N,).
        q: Wavevector in 1/Å.
        dt: Frame spacing in s.
        phi_unique: Detector angles in degrees, shape (n_phi,).
        phi_indices: Index of the angle of each point, shape (n,).
        i1_indices: Frame of the first time of each point, counted from 0, shape (n,).
        i2_indices: Frame of the second time, shape (n,).

    Raises:
        ConfigError: A time axis, q or dt that cannot be used.
        DataError: As ``listed_pairs``, or an angle without points.
    """
    grid = grid_of(t, q, dt, ParameterSpace())
    found = listed_pairs(grid, data, phi_unique, phi_indices, i1_indices, i2_indices)
    places = (found.angle, np.minimum(found.i, found.j), np.maximum(found.i, found.j))
    c2, weights = np.zeros((2, found.n_angles, grid.t.size, grid.t.size))
    np.add.at(c2, places, found.weights * found.values)
    weights[places] = 1.0
    return pack_pairs(c2, grid.t, grid.q, grid.dt, found.phi, weights=weights)


def draw_shard(data: PairData, settings: ShardSettings) -> ShardDraws:
    """Fit the pairs of a shard, and draw from their posterior.

    Args:
        data: The pairs.
        settings: How.

    Raises:
        ConfigError: Settings that cannot be used.
        DataError: Pairs that cannot be fitted.
        SamplingError: The density is not finite near the fit.
    """
    config, noise = settings.config, settings.noise_scale
    if noise is not None:
        # Neighbours among the pairs of a shard are too few to measure it.
        data = data._replace(noise=jnp.full(data.n_angles, noise))
    fit = _fitted(data, settings)
    posterior = Posterior(fit.problem.coordinates, fit.problem.scaling)
    if noise is None:
        noise = noise_seen(fit) if data.weights is None else fit.sigma
    points = 2 * fit.problem.n_pairs
    plan = Schedule.of(config, points, posterior.size)
    passes = Passes(
        posterior,
        Derived.of(fit.problem.fitted_times),
        replace(plan, seed=settings.seed, parallel=False),
        "nuts",
        Keeper(),
        _log_event,
        fit,
        noise,
    )
    target = Target(data, jnp.asarray(noise * settings.sigma_width))
    return ShardDraws(passes.sample("shard", target, passes.frames()), fit, posterior, target)


def _fitted(data: PairData, settings: ShardSettings) -> Fit:
    mode = ScalingMode.parse(settings.mode)
    if mode is ScalingMode.INDIVIDUAL and data.n_angles == 1:
        # One angle has one contrast and offset, under their plain names.
        mode = ScalingMode.AVERAGED
    space = with_priors(settings.space, settings.config, None, settings.prior_width)
    times = np.asarray(data.t)[np.asarray(data.mask) > 0]
    charts = charts_of(settings.config)
    coordinates = PhysicsCoordinates.of(space, times, charts, np.asarray(data.phi))
    given = {"contrast": settings.contrast, "offset": settings.offset}
    if mode.sampled or None in given.values():
        free = Scaling.of(ScalingMode.INDIVIDUAL, space, data.n_angles)
        return fit_scaled(Problem(data, coordinates, free), mode, on_event=_log_event)
    held = Scaling.of(mode, space, data.n_angles, **given)
    return fit_problem(Problem(data, coordinates, held), on_event=_log_event)


def shortcoming(found: Diagnosis) -> str:
    """Say how far draws are from having converged."""
    figures = (
        f"R-hat {found.worst_r_hat[1]:.3g} of {found.worst_r_hat[0]}",
        f"{found.worst_ess_bulk[1]:.0f} effective draws of {found.worst_ess_bulk[0]}",
        f"{found.worst_ess_tail[1]:.0f} in the tails of {found.worst_ess_tail[0]}",
        f"BFMI {found.worst_bfmi:.2g}",
        f"{found.divergences} of {found.n_draws} draws divergent",
    )
    return f"it did not converge ({', '.join(figures)})"
