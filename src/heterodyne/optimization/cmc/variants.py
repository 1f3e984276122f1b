"""Documented names that say again what another one says, each body one call."""

from __future__ import annotations

from collections.abc import Iterable

import numpyro.distributions as dist

from heterodyne._typing import ArrayLike
from heterodyne.config.parameter_registry import ParameterRegistry
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core.physics_cmc import ShardGrid
from heterodyne.optimization.cmc._model_sites import one_value
from heterodyne.optimization.cmc._models_matrix import Model, get_heterodyne_model_constant
from heterodyne.optimization.cmc._models_pooled import pooled_model
from heterodyne.optimization.cmc._priors_build import PriorBuilder, build_log_space_priors
from heterodyne.optimization.scaling import ScalingMode


def get_heterodyne_model_constant_averaged(
    t: ArrayLike,
    q: float,
    dt: float,
    phi_angle: ArrayLike,
    c2_data: ArrayLike,
    noise_scale: float,
    space: ParameterSpace,
    mean_contrast: float,
    mean_offset: float,
    shard_grid: ShardGrid | None = None,
    num_shards: int = 1,
) -> Model:
    """Build a NumPyro model with one given contrast and offset for all angles.

    This is ``get_heterodyne_model_constant`` with numbers only.

    Args:
        t: Frame times in s, equally spaced, shape (N,).
        q: Wavevector in 1/Å.
        dt: Frame spacing in s.
        phi_angle: Detector angle in degrees, or several, shape (n_phi,).
        c2_data: Measured correlation, as for ``get_heterodyne_model``.
        noise_scale: Estimate of the error of a pair, > 0.
        space: Values, bounds and priors of the physics parameters.
        mean_contrast: Contrast of all angles; not sampled.
        mean_offset: Offset of all angles; not sampled.
        shard_grid: Pairs to fit, at one angle; needs no N x N array.
        num_shards: Number of shards; it widens the prior of sigma only.

    Raises:
        ConfigError: Settings that cannot be used.
        DataError: Data that do not match or cannot be fitted.
    """
    return get_heterodyne_model_constant(
        t, q, dt, phi_angle, c2_data, noise_scale, space,
        one_value(mean_contrast, "mean_contrast").values,
        one_value(mean_offset, "mean_offset").values,
        shard_grid, num_shards,
    )  # fmt: skip


def xpcs_model_heterodyne_scaled(
    data: ArrayLike,
    t: ArrayLike,
    q: float,
    dt: float,
    phi_unique: ArrayLike,
    phi_indices: ArrayLike,
    i1_indices: ArrayLike,
    i2_indices: ArrayLike,
    noise_scale: float,
    space: ParameterSpace,
    num_shards: int = 1,
) -> None:
    """Model points of several angles, with a sampled contrast and offset of each angle.

    A NumPyro model: hand it and its arguments to a sampler. Sites are the varying physics
    parameters, ``contrast_0``, ``offset_0``, ... with the priors of ``space``, and sigma,
    HalfNormal(noise_scale * 1.5 * sqrt(num_shards)). All points are one observed site
    ``obs``. Points of the same pair, such as (i, j) and (j, i), share the weight of one;
    those on the diagonal and at t = 0 are not fitted.

    Args:
        data: Measured correlation, shape (n_total,).
        t: Frame times in s, equally spaced, shape (N,).
        q: Wavevector in 1/Å.
        dt: Frame spacing in s.
        phi_unique: Detector angles in degrees, shape (n_phi,).
        phi_indices: Index of the angle of each point, shape (n_total,).
        i1_indices: Frame of the first time of each point, counted from 0, shape (n_total,).
        i2_indices: Frame of the second time, shape (n_total,).
        noise_scale: Estimate of the error of a pair, > 0.
        space: Values, bounds and priors.
        num_shards: Number of shards; it widens the prior of sigma only.

    Raises:
        ConfigError: Settings that cannot be used.
        DataError: Arrays that do not match, cannot be fitted, or are traced by JAX.
    """
    pooled_model(
        ScalingMode.INDIVIDUAL, data, t, q, dt,
        phi_unique, phi_indices, i1_indices, i2_indices, noise_scale, space, num_shards,
    )()  # fmt: skip


def xpcs_model_heterodyne_constant(
    data: ArrayLike,
    t: ArrayLike,
    q: float,
    dt: float,
    phi_unique: ArrayLike,
    phi_indices: ArrayLike,
    i1_indices: ArrayLike,
    i2_indices: ArrayLike,
    noise_scale: float,
    space: ParameterSpace,
    fixed_contrast: ArrayLike,
    fixed_offset: ArrayLike,
    num_shards: int = 1,
) -> None:
    """Model points of several angles, with given contrast and offset of each angle.

    As ``xpcs_model_heterodyne_scaled``, but contrast and offset are not sampled.

    Args:
        data: Measured correlation, shape (n_total,).
        t: Frame times in s, equally spaced, shape (N,).
        q: Wavevector in 1/Å.
        dt: Frame spacing in s.
        phi_unique: Detector angles in degrees, shape (n_phi,).
        phi_indices: Index of the angle of each point, shape (n_total,).
        i1_indices: Frame of the first time of each point, counted from 0, shape (n_total,).
        i2_indices: Frame of the second time, shape (n_total,).
        noise_scale: Estimate of the error of a pair, > 0.
        space: Values, bounds and priors of the physics parameters.
        fixed_contrast: Contrast of each angle, shape (n_phi,).
        fixed_offset: Offset of each angle, shape (n_phi,).
        num_shards: Number of shards; it widens the prior of sigma only.

    Raises:
        ConfigError: Settings that cannot be used.
        DataError: Arrays that do not match, cannot be fitted, or are traced by JAX.
    """
    pooled_model(
        ScalingMode.CONSTANT, data, t, q, dt,
        phi_unique, phi_indices, i1_indices, i2_indices, noise_scale, space, num_shards,
        fixed_contrast, fixed_offset,
    )()  # fmt: skip


def xpcs_model_heterodyne_averaged(
    data: ArrayLike,
    t: ArrayLike,
    q: float,
    dt: float,
    phi_unique: ArrayLike,
    phi_indices: ArrayLike,
    i1_indices: ArrayLike,
    i2_indices: ArrayLike,
    noise_scale: float,
    space: ParameterSpace,
    num_shards: int = 1,
) -> None:
    """Model points of several angles, with one sampled contrast and offset for all.

    As ``xpcs_model_heterodyne_scaled``, but the sites are ``contrast`` and ``offset``.

    Args:
        data: Measured correlation, shape (n_total,).
        t: Frame times in s, equally spaced, shape (N,).
        q: Wavevector in 1/Å.
        dt: Frame spacing in s.
        phi_unique: Detector angles in degrees, shape (n_phi,).
        phi_indices: Index of the angle of each point, shape (n_total,).
        i1_indices: Frame of the first time of each point, counted from 0, shape (n_total,).
        i2_indices: Frame of the second time, shape (n_total,).
        noise_scale: Estimate of the error of a pair, > 0.
        space: Values, bounds and priors.
        num_shards: Number of shards; it widens the prior of sigma only.

    Raises:
        ConfigError: Settings that cannot be used.
        DataError: Arrays that do not match, cannot be fitted, or are traced by JAX.
    """
    pooled_model(
        ScalingMode.AVERAGED, data, t, q, dt,
        phi_unique, phi_indices, i1_indices, i2_indices, noise_scale, space, num_shards,
    )()  # fmt: skip


def xpcs_model_heterodyne_constant_averaged(
    data: ArrayLike,
    t: ArrayLike,
    q: float,
    dt: float,
    phi_unique: ArrayLike,
    phi_indices: ArrayLike,
    i1_indices: ArrayLike,
    i2_indices: ArrayLike,
    noise_scale: float,
    space: ParameterSpace,
    fixed_contrast: float,
    fixed_offset: float,
    num_shards: int = 1,
) -> None:
    """Model points of several angles, with one given contrast and offset for all.

    As ``xpcs_model_heterodyne_scaled``, but contrast and offset are not sampled.

    Args:
        data: Measured correlation, shape (n_total,).
        t: Frame times in s, equally spaced, shape (N,).
        q: Wavevector in 1/Å.
        dt: Frame spacing in s.
        phi_unique: Detector angles in degrees, shape (n_phi,).
        phi_indices: Index of the angle of each point, shape (n_total,).
        i1_indices: Frame of the first time of each point, counted from 0, shape (n_total,).
        i2_indices: Frame of the second time, shape (n_total,).
        noise_scale: Estimate of the error of a pair, > 0.
        space: Values, bounds and priors of the physics parameters.
        fixed_contrast: Contrast of all angles.
        fixed_offset: Offset of all angles.
        num_shards: Number of shards; it widens the prior of sigma only.

    Raises:
        ConfigError: Settings that cannot be used.
        DataError: Arrays that do not match, cannot be fitted, or are traced by JAX.
    """
    pooled_model(
        ScalingMode.CONSTANT_AVERAGED, data, t, q, dt,
        phi_unique, phi_indices, i1_indices, i2_indices, noise_scale, space, num_shards,
        fixed_contrast, fixed_offset,
    )()  # fmt: skip


def build_default_priors_via_builder(
    param_space: ParameterSpace,
    registry: ParameterRegistry | None = None,
    use_log_space_priors: bool = True,
) -> dict[str, dist.Distribution]:
    """Build the priors of a ``PriorBuilder`` in one call, with its checks."""
    return PriorBuilder(registry, use_log_space_priors).build(param_space)


def build_log_space_priors_via_builder(
    param_names: Iterable[str], registry: ParameterRegistry | None = None
) -> dict[str, dist.Distribution]:
    """Build log-normal priors as ``build_log_space_priors``, with the check of ``PriorBuilder``."""
    return build_log_space_priors(param_names, PriorBuilder(registry).registry)
