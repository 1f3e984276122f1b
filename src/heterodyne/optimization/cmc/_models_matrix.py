"""NumPyro models of two-time matrices, or of chosen pairs of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from heterodyne._errors import ConfigError
from heterodyne._typing import ArrayLike
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core.heterodyne_model import HeterodyneModel
from heterodyne.core.physics_cmc import ShardGrid
from heterodyne.optimization.cmc._model_coordinates import CoordinateSites, centres_of
from heterodyne.optimization.cmc._model_pairs import Pairs, grid_of, grid_pairs, matrix_pairs
from heterodyne.optimization.cmc._model_sites import (
    DocumentedSites,
    OnPlate,
    PairModel,
    ScalingSite,
    held,
    one_value,
    shared,
    sigma_width,
)
from heterodyne.optimization.cmc.reparameterization import ReparamConfig
from heterodyne.optimization.cmc.scaling import ParameterScaling

Model = Callable[[], None]
"""A NumPyro model without arguments."""


def get_heterodyne_model(
    t: ArrayLike,
    q: float,
    dt: float,
    phi_angle: ArrayLike,
    c2_data: ArrayLike,
    noise_scale: float,
    space: ParameterSpace,
    contrast: float = 1.0,
    offset: float = 1.0,
    shard_grid: ShardGrid | None = None,
    priors_override: Mapping[str, Any] | None = None,
    num_shards: int = 1,
) -> Model:
    """Build a NumPyro model in the documented parameters.

    Every parameter that varies in ``space``, contrast and offset among them, is a site of
    its own name; sigma is HalfNormal(noise_scale * 1.5 * sqrt(num_shards)). Each unique pair
    off the diagonal and later than t = 0 counts once, with an error of its own. Whole
    matrices enter as one factor ``log_likelihood``; chosen pairs are the observed site
    ``obs``.

    Args:
        t: Frame times in s, equally spaced, shape (N,).
        q: Wavevector in 1/Å.
        dt: Frame spacing in s.
        phi_angle: Detector angle in degrees, or several, shape (n_phi,), which then share
            contrast and offset.
        c2_data: Measured correlation, symmetric, shape (N, N) or (n_phi, N, N); with
            ``shard_grid`` the values at its pairs, shape (n_pairs,).
        noise_scale: Estimate of the error of a pair, > 0.
        space: Values, bounds and priors.
        contrast: Contrast where ``space`` does not let it vary.
        offset: Offset where ``space`` does not let it vary.
        shard_grid: Pairs to fit, at one angle; needs no N x N array.
        priors_override: NumPyro distributions that replace priors, by parameter name.
        num_shards: Number of shards K. It widens the prior of sigma only; give the other
            priors to the power 1/K by ``priors_override``.

    Returns:
        A model without arguments, which can be pickled.

    Raises:
        ConfigError: Settings that cannot be used.
        DataError: Data that do not match or cannot be fitted.
    """
    grid = grid_of(t, q, dt, space)
    sites = DocumentedSites(space, dict(priors_override or {}))
    return PairModel(
        sites,
        shared(sites, space, "contrast", contrast),
        shared(sites, space, "offset", offset),
        sigma_width(noise_scale, num_shards),
        _pairs(grid, c2_data, phi_angle, shard_grid),
    )


def get_heterodyne_model_reparam(
    t: ArrayLike,
    q: float,
    dt: float,
    phi_angle: ArrayLike,
    c2_data: ArrayLike,
    noise_scale: float,
    space: ParameterSpace,
    nlsq_params: ArrayLike | None = None,
    reparam_config: ReparamConfig | None = None,
    scalings: Mapping[str, ParameterScaling] | None = None,
    contrast: float = 1.0,
    offset: float = 1.0,
    shard_grid: ShardGrid | None = None,
    num_shards: int = 1,
) -> Model:
    """Build a NumPyro model in unbounded coordinates.

    The site of a parameter ``x`` is ``x_z``, a number on the real line, and ``x`` is a
    deterministic site. With ``reparam_config`` the prefactors of the power laws are sampled
    by their values at a reference time, for example ``log_D0_ref_at_tref_z``, from which
    ``log_D0_ref_at_tref`` and ``D0_ref`` follow.

    The posterior is that of ``get_heterodyne_model``: each site has the prior of its
    parameter with the exact Jacobian, and a fit only says where z counts from. z = 0 is the
    fit (or the centre of the prior), a good start for chains.

    Warning:
        ``scalings`` replace priors: z is then standard normal. Where they come from a fit
        of the same data, the data count twice, and errors come out too small.

    Args:
        t: Frame times in s; this and what is not named here as in ``get_heterodyne_model``.
        q: Wavevector in 1/Å.
        dt: Frame spacing in s.
        phi_angle: Detector angle, or several, in degrees.
        c2_data: Measured correlation.
        noise_scale: Estimate of the error of a pair, > 0.
        space: Values, bounds and priors.
        nlsq_params: Where z = 0 is: the 14 physics parameters in canonical order, shape
            (14,), or with contrast and offset, (16,). Without it, centres of the priors.
        reparam_config: Reference time and power laws to sample there; without it none.
        scalings: Coordinates to use in place of priors, by the name of the parameter or of
            the value at the reference time.
        contrast: Contrast where ``space`` does not let it vary.
        offset: Offset where ``space`` does not let it vary.
        shard_grid: Pairs to fit, at one angle.
        num_shards: Number of shards.
    """
    grid = grid_of(t, q, dt, space)
    sites = CoordinateSites(
        space, centres_of(space, nlsq_params), reparam_config, dict(scalings or {})
    )
    return PairModel(
        sites,
        shared(sites, space, "contrast", contrast),
        shared(sites, space, "offset", offset),
        sigma_width(noise_scale, num_shards),
        _pairs(grid, c2_data, phi_angle, shard_grid),
    )


def get_heterodyne_model_constant(
    t: ArrayLike,
    q: float,
    dt: float,
    phi_angle: ArrayLike,
    c2_data: ArrayLike,
    noise_scale: float,
    space: ParameterSpace,
    fixed_contrast: ArrayLike,
    fixed_offset: ArrayLike,
    shard_grid: ShardGrid | None = None,
    num_shards: int = 1,
) -> Model:
    """Build a NumPyro model with given contrast and offset of each angle.

    Args:
        t: Frame times in s, equally spaced, shape (N,).
        q: Wavevector in 1/Å.
        dt: Frame spacing in s.
        phi_angle: Detector angle in degrees, or several, shape (n_phi,).
        c2_data: Measured correlation, as for ``get_heterodyne_model``.
        noise_scale: Estimate of the error of a pair, > 0.
        space: Values, bounds and priors of the physics parameters.
        fixed_contrast: Contrast, a number or shape (n_phi,); not sampled.
        fixed_offset: Offset, a number or shape (n_phi,); not sampled.
        shard_grid: Pairs to fit, at one angle; needs no N x N array.
        num_shards: Number of shards; it widens the prior of sigma only.

    Returns:
        A model without arguments, which can be pickled.

    Raises:
        ConfigError: Settings that cannot be used.
        DataError: Data that do not match or cannot be fitted.
    """
    grid = grid_of(t, q, dt, space)
    pairs = _pairs(grid, c2_data, phi_angle, shard_grid)
    return PairModel(
        DocumentedSites(space),
        held(fixed_contrast, pairs.n_angles, "fixed_contrast"),
        held(fixed_offset, pairs.n_angles, "fixed_offset"),
        sigma_width(noise_scale, num_shards),
        pairs,
    )


def get_heterodyne_model_individual(
    t: ArrayLike,
    q: float,
    dt: float,
    phi_angles: ArrayLike,
    c2_data: ArrayLike,
    noise_scale: float,
    space: ParameterSpace,
    contrast_prior_loc: ArrayLike = 0.5,
    contrast_prior_scale: float = 0.25,
    offset_prior_loc: ArrayLike = 1.0,
    offset_prior_scale: float = 0.25,
    shard_grids: Sequence[ShardGrid] | None = None,
    num_shards: int = 1,
) -> Model:
    """Build a NumPyro model with one sampled contrast and offset per angle.

    Sites ``contrast_z`` and ``offset_z`` hold all angles, in widths from the centre of the
    prior, on the plate ``angles``; ``contrast_0``, ``offset_0``, ... follow from them. The
    normal priors are truncated to the bounds in ``space``. One that does not vary in
    ``space`` keeps its value there at every angle. The physics parameters are shared.

    Args:
        t: Frame times in s, equally spaced, shape (N,).
        q: Wavevector in 1/Å.
        dt: Frame spacing in s.
        phi_angles: Detector angles in degrees, shape (n_phi,).
        c2_data: Measured correlation, symmetric, shape (n_phi, N, N); with ``shard_grids``
            one row per angle of the values at the pairs of its grid.
        noise_scale: Estimate of the error of a pair, > 0.
        space: Values, bounds and priors of the physics parameters; bounds of the scaling.
        contrast_prior_loc: Centre of the prior of the contrast, a number or shape (n_phi,).
        contrast_prior_scale: Its width, > 0.
        offset_prior_loc: Centre of the prior of the offset, a number or shape (n_phi,).
        offset_prior_scale: Its width, > 0.
        shard_grids: Pairs to fit, one grid per angle; needs no N x N arrays.
        num_shards: Number of shards; it widens the prior of sigma only.

    Returns:
        A model without arguments, which can be pickled.

    Raises:
        ConfigError: Settings that cannot be used.
        DataError: Data that do not match or cannot be fitted.
    """
    grid = grid_of(t, q, dt, space)
    if shard_grids is None:
        pairs: Pairs = matrix_pairs(grid, c2_data, phi_angles)
    else:
        pairs = grid_pairs(grid, c2_data, phi_angles, shard_grids)
    contrast = ("contrast", contrast_prior_loc, contrast_prior_scale)
    offset = ("offset", offset_prior_loc, offset_prior_scale)
    return PairModel(
        DocumentedSites(space),
        _per_angle(space, pairs.n_angles, *contrast),
        _per_angle(space, pairs.n_angles, *offset),
        sigma_width(noise_scale, num_shards),
        pairs,
    )


def _pairs(
    grid: HeterodyneModel, c2: ArrayLike, phi: ArrayLike, shard_grid: ShardGrid | None
) -> Pairs:
    if shard_grid is None:
        return matrix_pairs(grid, c2, phi)
    return grid_pairs(grid, [c2], phi, [shard_grid])


def _per_angle(
    space: ParameterSpace, n_angles: int, name: str, centre: ArrayLike, width: float
) -> ScalingSite:
    centres = held(centre, n_angles, f"{name}_prior_loc")(n_angles)
    if not (np.isfinite(width) and width > 0):
        raise ConfigError(f"{width}", where=f"{name}_prior_scale", allowed="finite, > 0")
    setting = space[name]
    if not setting.vary:
        return one_value(setting.value, name)
    return OnPlate(name, np.asarray(centres), float(width), setting.min, setting.max)
