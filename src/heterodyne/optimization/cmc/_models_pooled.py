"""NumPyro models of the points of all angles in one row."""

from __future__ import annotations

from collections.abc import Callable

from heterodyne._errors import ConfigError
from heterodyne._log import get_logger
from heterodyne._typing import ArrayLike
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.optimization.cmc._model_pairs import grid_of, listed_pairs
from heterodyne.optimization.cmc._model_sites import (
    DocumentedSites,
    PairModel,
    PerAngle,
    ScalingSite,
    Shared,
    held,
    one_value,
    sigma_width,
)
from heterodyne.optimization.scaling import ScalingMode

_LOG = get_logger(__name__)


def get_heterodyne_pooled_model_for_mode(
    per_angle_mode: str,
    *,
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
    fixed_contrast: ArrayLike | None = None,
    fixed_offset: ArrayLike | None = None,
    num_shards: int = 1,
) -> Callable[[], None]:
    """Build the model of points of all angles for a treatment of contrast and offset.

    individual or scaled is ``xpcs_model_heterodyne_scaled``, auto or averaged
    ``xpcs_model_heterodyne_averaged``, constant ``xpcs_model_heterodyne_constant`` and
    constant_averaged ``xpcs_model_heterodyne_constant_averaged``. The data are bound, so that
    what counts once is found once, not each time a sampler reads the model.

    Args:
        per_angle_mode: One of the modes.
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
        fixed_contrast: For constant the contrast of each angle, shape (n_phi,); for
            constant_averaged one number; the other modes do not use it.
        fixed_offset: The offset, likewise.
        num_shards: Number of shards; it widens the prior of sigma only.

    Returns:
        A model without arguments, which can be pickled.

    Raises:
        ConfigError: A mode that is not known, or settings that cannot be used.
        DataError: Arrays that do not match or cannot be fitted.
    """
    points = (data, t, q, dt, phi_unique, phi_indices, i1_indices, i2_indices)
    mode, fixed = ScalingMode.parse(per_angle_mode), (fixed_contrast, fixed_offset)
    return pooled_model(mode, *points, noise_scale, space, num_shards, *fixed)


def pooled_model(
    mode: ScalingMode,
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
    num_shards: int,
    fixed_contrast: ArrayLike | None = None,
    fixed_offset: ArrayLike | None = None,
) -> PairModel:
    """Build the model of points of all angles, as ``get_heterodyne_pooled_model_for_mode``."""
    grid = grid_of(t, q, dt, space)
    pairs = listed_pairs(grid, data, phi_unique, phi_indices, i1_indices, i2_indices)
    sites = DocumentedSites(space)
    contrast, offset = (
        _scaling(mode, sites, name, values, pairs.n_angles)
        for name, values in (("contrast", fixed_contrast), ("offset", fixed_offset))
    )
    return PairModel(sites, contrast, offset, sigma_width(noise_scale, num_shards), pairs)


def _scaling(
    mode: ScalingMode, sites: DocumentedSites, name: str, values: ArrayLike | None, n_angles: int
) -> ScalingSite:
    where = f"fixed_{name}"
    if mode.sampled:
        if values is not None:
            _LOG.warning("%s is not used: the mode %s samples the %s.", where, mode.value, name)
        return Shared(name, sites) if mode.shared else PerAngle(name, sites)
    if values is None:
        raise ConfigError(
            f"the mode {mode.value} needs the {name}",
            where=where,
            allowed="one number" if mode.shared else f"{n_angles} numbers, one per angle",
        )
    return one_value(values, where) if mode.shared else held(values, n_angles, where)
