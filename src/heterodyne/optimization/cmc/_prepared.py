"""Matrices of several angles as one row of points with weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from heterodyne._errors import ConfigError, DataError
from heterodyne._log import get_logger
from heterodyne._typing import BoolArray, FloatArray, IntArray
from heterodyne.data.quality import STEP_RTOL
from heterodyne.data.two_time import check_time_axis
from heterodyne.optimization.cmc._array_checks import (
    both_halves,
    finite,
    likelihood_weights,
    of_shape,
)
from heterodyne.optimization.cmc._pooled import extract_phi_info

_LOG = get_logger(__name__)

_REQUIRED = ("c2_data", "phi_angles", "time_array", "q", "dt")
_SETTINGS = {"normalize_weights": True, "require_positive_diagonal": True}


class MissingEntryError(DataError, KeyError):
    """An entry that should be there and is not."""

    __str__ = Exception.__str__


@dataclass(frozen=True, eq=False)
class PreparedData:
    """Points of all angles, one after the other.

    A symmetric matrix holds each pair twice, and its diagonal holds shot noise. Both are
    kept; a likelihood counts a pair once and leaves the diagonal out. Which frames a point
    belongs to stands in ``metadata``.

    Attributes:
        c2_data: Measured correlation, shape (n_total,).
        weights: Weight of each point, shape (n_total,); None where all are equal.
        time_array: Frame times in s, shape (n_times,).
        phi_angles: Angle of each point, in the unit in which it was given, shape (n_total,).
        q: Wavevector in 1/Å.
        dt: Time between frames in s.
        metadata: ``t1_index`` and ``t2_index``, the frames of each point counted from 0,
            shape (n_total,), and anything else.
        n_angles: Number of distinct angles; 0 has them counted.
        n_times: Number of frames; 0 has them counted.
    """

    c2_data: FloatArray
    weights: FloatArray | None
    time_array: FloatArray
    phi_angles: FloatArray
    q: float
    dt: float
    metadata: dict[str, Any] = field(default_factory=dict)
    n_angles: int = 0
    n_times: int = 0

    def __post_init__(self) -> None:
        if self.n_angles == 0 and np.size(self.phi_angles):
            object.__setattr__(self, "n_angles", extract_phi_info(self.phi_angles)[0].size)
        if self.n_times == 0:
            object.__setattr__(self, "n_times", np.size(self.time_array))


def prepare_data(
    raw_data: Mapping[str, Any], config: Mapping[str, Any] | None = None
) -> PreparedData:
    """Check measured matrices and put their points into one row.

    A half of a matrix that holds only zeros was not stored and is filled from the other.
    Halves that differ are kept, and logged.

    Args:
        raw_data: ``c2_data``, shape (n_angles, n_t, n_t), or (n_t, n_t) for one angle;
            ``phi_angles``, shape (n_angles,); ``time_array``, increasing times in s, shape
            (n_t,); ``q`` in 1/Å; ``dt`` in s. Optionally ``weights`` and ``mask``, of the
            shape of ``c2_data``. Points where the mask is True are left out; so a pair is
            left out where both its points are masked.
        config: ``normalize_weights`` (True): divide the weights by their mean over the
            points that are kept. ``require_positive_diagonal`` (True): refuse values on the
            diagonal that are not above 0. Other entries are not used, which is logged.

    Returns:
        The points by angle, first frame and second frame. ``metadata`` holds their frames,
        the number of masked points, the settings, and by what the weights were divided.

    Raises:
        MissingEntryError: A required entry is missing (a ``KeyError`` and ``ValueError``).
        DataError: Shapes that do not match, values that are not finite, times that do not
            increase, a diagonal as above, or no point that is left.
        ConfigError: A setting that is neither True nor False.
    """
    settings = _settings(config or {})
    _require(raw_data)
    times, q, dt = _axis(raw_data)
    phi = np.atleast_1d(finite(raw_data["phi_angles"], "phi_angles"))
    c2 = _matrices(raw_data, phi, times.size)
    kept = np.flatnonzero(~np.isnan(c2))
    angle, i, j = (k.astype(np.int64) for k in np.unravel_index(kept, c2.shape))
    values = c2.reshape(-1)[kept]
    if settings["require_positive_diagonal"]:
        refuse_diagonal(values, i, j)
    weights, divisor = _weights(raw_data, kept, settings["normalize_weights"])
    _log_lost_angles(phi, angle)
    about = {"n_masked": c2.size - kept.size, "weights_divided_by": divisor, **settings}
    metadata = {"t1_index": i, "t2_index": j, **about}
    return PreparedData(values, weights, times, phi[angle], q, dt, metadata)


def _settings(config: Mapping[str, Any]) -> dict[str, bool]:
    unknown = sorted(str(name) for name in config if name not in _SETTINGS)
    if unknown:
        _LOG.warning(
            "config: %s not used; known entries are %s.", ", ".join(unknown), ", ".join(_SETTINGS)
        )
    settings = {name: config.get(name, default) for name, default in _SETTINGS.items()}
    for name, value in settings.items():
        if not isinstance(value, bool):
            raise ConfigError(
                f"the value is {value!r}", where=f"config[{name!r}]", allowed="True or False"
            )
    return settings


def _require(raw_data: Mapping[str, Any]) -> None:
    missing = [name for name in _REQUIRED if raw_data.get(name) is None]
    if missing:
        raise MissingEntryError(
            f"{', '.join(missing)} missing; there is {', '.join(map(str, raw_data)) or 'nothing'}",
            where="raw_data",
            allowed=f"{', '.join(_REQUIRED)}; optionally weights and mask",
        )


def _axis(raw_data: Mapping[str, Any]) -> tuple[FloatArray, float, float]:
    """Frame times, q and dt."""
    times = finite(raw_data["time_array"], "time_array")
    if times.ndim != 1 or times.size < 2:
        raise DataError(
            f"the shape is {times.shape}", where="time_array", allowed="(n_t,), at least 2 times"
        )
    check_time_axis(times, "time_array")
    scalars = []
    for name, unit in (("q", "1/Å"), ("dt", "s")):
        value = finite(raw_data[name], name)
        if value.size != 1 or value.reshape(-1)[0] <= 0:
            raise DataError(
                f"the value is {value}", where=name, allowed=f"one number > 0, in {unit}"
            )
        scalars.append(float(value.reshape(-1)[0]))
    q, dt = scalars
    step = float(np.median(np.diff(times)))
    if abs(step - dt) > STEP_RTOL * dt:
        _LOG.warning("dt is %g s, but the times are %g s apart: rates scale with dt.", dt, step)
    return times, q, dt


def _matrices(raw_data: Mapping[str, Any], phi: FloatArray, n_times: int) -> FloatArray:
    """Matrices with both halves, NaN where they are masked, shape (n_angles, n_t, n_t)."""
    given = np.asarray(raw_data["c2_data"])
    stacked = (phi.size, n_times, n_times)
    if phi.ndim != 1 or (given[None] if given.ndim == 2 else given).shape != stacked:
        raise DataError(
            f"the shape is {given.shape}, with phi_angles of shape {phi.shape} and {n_times} times",
            where="c2_data",
            allowed=f"(n_angles, n_t, n_t), or (n_t, n_t) for one angle: {stacked}",
        )
    mask = _mask(raw_data.get("mask"), given.shape).reshape(stacked)
    c2 = finite(np.where(mask, 0.0, given.reshape(stacked)), "c2_data")
    c2[mask] = np.nan
    for k in np.flatnonzero(~mask.all((1, 2))):
        c2[k] = both_halves(c2[k], f"c2_data[{k}]")
    c2[mask] = np.nan
    return c2


def _mask(given: object, shape: tuple[int, ...]) -> BoolArray:
    if given is None:
        return np.zeros(shape, bool)
    mask = np.asarray(given)
    of_shape(mask, shape, "mask", "c2_data")
    if mask.dtype != bool:
        raise DataError(
            f"the values are of type {mask.dtype}",
            where="mask",
            allowed="True where a point is left out, False elsewhere",
        )
    if mask.all():
        raise DataError(
            f"all {mask.size} points are masked",
            where="mask",
            allowed="True where a point is left out",
            remedy="If True marks good points, give ~mask",
        )
    return mask


def refuse_diagonal(values: FloatArray, i: IntArray, j: IntArray) -> None:
    """Refuse values on the diagonal that are not above 0.

    Args:
        values: Value of each point, shape (n,).
        i: First frame of each point, shape (n,).
        j: Second frame of each point, shape (n,).

    Raises:
        DataError: With the first such value.
    """
    wrong = np.flatnonzero((i == j) & (values <= 0))
    if wrong.size:
        raise DataError(
            f"{wrong.size} values on the diagonal are not above 0, such as "
            f"{values[wrong[0]]:g} at frame {i[wrong[0]]} (counted from 0)",
            where="c2_data",
            allowed="> 0",
            remedy="The diagonal is not fitted: where it is not measured, mask it, or set "
            "require_positive_diagonal to False",
        )


def _weights(
    raw_data: Mapping[str, Any], kept: IntArray, normalize: bool
) -> tuple[FloatArray | None, float]:
    """Weights of the kept points, and what they were divided by."""
    if raw_data.get("weights") is None:
        return None, 1.0
    whole = np.asarray(raw_data["weights"])
    of_shape(whole, np.shape(raw_data["c2_data"]), "weights", "c2_data")
    weights = likelihood_weights(whole.reshape(-1)[kept], kept.shape)
    divisor = float(weights.mean()) if normalize else 1.0
    return weights / divisor, divisor


def _log_lost_angles(phi: FloatArray, angle: IntArray) -> None:
    lost = np.setdiff1d(np.arange(phi.size), angle)
    if lost.size:
        listed = ", ".join(f"{value:g}" for value in phi[lost])
        _LOG.warning("All points at phi = %s are masked: the data do not hold them.", listed)
