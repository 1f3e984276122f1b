"""Smooth bounds and standardised coordinates, one parameter at a time.

A number z on the real line stands for center + scale * z, which a tanh bends into the bounds
of the parameter. The bend acts on the whole range: only the middle of the bounds maps to
itself, and the ends of the bounds, taken as numbers before the bend, map to 0.76 of the half
width. So z = 0 is ``center`` where ``center`` is the middle, and lies inwards of it
elsewhere.

The sampler of the package has coordinates of its own (``optimization.coordinates``); these
serve NumPyro models that a user writes. A density in z is one in the parameter only with the
factor d parameter / d z.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from heterodyne._errors import ConfigError
from heterodyne._log import get_logger
from heterodyne._typing import FloatArray, JaxArray, Numeric
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jnp
from heterodyne.core.traced import traced
from heterodyne.optimization.cmc._unique import unique

__all__ = [
    "ParameterScaling",
    "compute_scaling_factors",
    "log_scaling_factors",
    "smooth_bound",
    "smooth_bound_inverse",
    "transform_initial_values_to_z",
    "transform_samples_from_z",
]

_log = get_logger(__name__)

_SUFFIX = "_z"
_DEFAULT_SCALE = 1.0 / 6.0
# A standard normal z has one peak in the parameter up to this scale, and two, at the
# bounds, above it: -u**2 / (2 s**2) + 2 log cosh(u) is concave at 0 for s**2 <= 1/2.
_WIDEST_SCALE = 0.5 / math.sqrt(2.0)
_LARGEST_SHIFT = 0.5


def smooth_bound(raw: Numeric, low: Numeric, high: Numeric) -> JaxArray:
    """Bend real numbers into an interval: mid + half * tanh((raw - mid) / half).

    The map is increasing and has a gradient everywhere. In float64 it reaches a bound where
    ``raw`` is about 19 half widths away from the middle.

    Args:
        raw: Real numbers, any shape; NumPy, JAX or plain.
        low: Lower bounds, finite; a scalar or the shape of ``raw``.
        high: Upper bounds, finite and above ``low``.

    Returns:
        Numbers between the bounds, the shape of ``raw``.

    Raises:
        ConfigError: Bounds that are no interval (not checked while JAX traces).
    """
    _check_interval(low, high, "low, high")
    mid, half = _middle(low, high)
    # Rounding of the sum would pass a bound by a last digit.
    return jnp.clip(mid + half * jnp.tanh((raw - mid) / half), low, high)


def smooth_bound_inverse(value: Numeric, low: Numeric, high: Numeric) -> JaxArray:
    """Return the number that ``smooth_bound`` bends to a value.

    This is mid + half * arctanh((value - mid) / half), finite at every value between the
    bounds however close to one.

    Args:
        value: Numbers strictly between the bounds, any shape; NumPy, JAX or plain.
        low: Lower bounds, finite; a scalar or the shape of ``value``.
        high: Upper bounds, finite and above ``low``.

    Raises:
        ConfigError: Bounds that are no interval, or a value at or outside a bound. While JAX
            traces nothing is checked: the result is infinite at a bound and NaN outside.
    """
    return _unbend(value, low, high, "value")


def _unbend(value: Numeric, low: Numeric, high: Numeric, where: str) -> JaxArray:
    _check_interval(low, high, "low, high")
    if not traced(value, low, high):
        x, bottom, top = np.broadcast_arrays(value, low, high)
        outside = ~((x > bottom) & (x < top))
        if outside.any():
            seen, bottom, top = (a[outside][0] for a in (x, bottom, top))
            raise ConfigError(
                f"{seen} has no counterpart on the real line",
                where=where,
                allowed=f"strictly between {bottom} and {top}",
                remedy="Move it off its bounds first",
            )
    mid, half = _middle(low, high)
    # The quotient may round to 1, of which the arctanh is infinite; a difference is not 0.
    log_odds = jnp.log(value - low) - jnp.log(high - value)
    return mid + 0.5 * half * log_odds


def _middle(low: Numeric, high: Numeric) -> tuple[JaxArray, JaxArray]:
    bottom, top = jnp.asarray(low, float), jnp.asarray(high, float)
    return 0.5 * (bottom + top), 0.5 * (top - bottom)


def _check_interval(low: Numeric, high: Numeric, where: str) -> None:
    if traced(low, high):
        return
    width = np.subtract(high, low)
    if not (np.isfinite(width) & (width > 0)).all():
        raise ConfigError(
            f"the bounds {low} and {high} are no interval",
            where=where,
            allowed="finite numbers, low < high",
        )


@dataclass(frozen=True)
class ParameterScaling:
    """The coordinate z of one parameter.

    Attributes:
        name: Name of the parameter.
        center: Where z counts from, usually the least-squares value, in the parameter's unit.
        scale: Unit of z before the bend, > 0, in the parameter's unit.
        low: Lower bound of the parameter.
        high: Upper bound.
    """

    name: str
    center: float
    scale: float
    low: float
    high: float

    def __post_init__(self) -> None:
        _check_interval(self.low, self.high, self.name)
        if not math.isfinite(self.center):
            raise ConfigError(f"center {self.center}", where=self.name, allowed="a finite number")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ConfigError(f"scale {self.scale}", where=self.name, allowed="finite, > 0")

    def to_normalized(self, value: Numeric) -> Numeric:
        """Return (value - center) / scale: the distance from the centre, without the bend.

        ``to_original`` does not undo this; what it undoes is ``z_of``.

        Args:
            value: Values of the parameter, any shape.
        """
        return (value - self.center) / self.scale

    def to_original(self, z_value: Numeric) -> JaxArray:
        """Return the parameter at z: ``smooth_bound`` of center + scale * z.

        Args:
            z_value: Real numbers, any shape.
        """
        return smooth_bound(self.center + self.scale * z_value, self.low, self.high)

    def z_of(self, value: Numeric) -> JaxArray:
        """Return the z at which ``to_original`` gives a value.

        Args:
            value: Values strictly between the bounds, any shape.

        Raises:
            ConfigError: A value at or outside a bound.
        """
        return (_unbend(value, self.low, self.high, self.name) - self.center) / self.scale


def compute_scaling_factors(
    space: ParameterSpace,
    nlsq_values: Mapping[str, float] | None = None,
    nlsq_uncertainties: Mapping[str, float] | None = None,
    width_factor: float = 2.0,
) -> dict[str, ParameterScaling]:
    """Set up the coordinate z of every varying parameter.

    The center is the least-squares value and the scale ``width_factor`` standard errors.
    Without a value the center is the middle of the bounds; without a value or without a
    standard error the scale is a sixth of the range. What is missing or unusable is logged as
    a warning. So is a center from which the bend moves z = 0 by more than half a scale: a
    standard normal z is no prior around the least-squares value there.

    Args:
        space: Bounds, and what varies.
        nlsq_values: Least-squares values by name.
        nlsq_uncertainties: Standard errors by name. NaN and 0 count as missing. The scale is
            limited to 0.354 of the range, above which a standard normal z would pile up at
            both bounds.
        width_factor: Scale in standard errors, > 0.

    Returns:
        Scalings by name, in canonical order.

    Raises:
        ConfigError: A value outside its bounds, a negative standard error, or a factor that
            is not positive.
    """
    if not (math.isfinite(width_factor) and width_factor > 0):
        raise ConfigError(f"{width_factor}", where="width_factor", allowed="finite, > 0")
    values, errors = dict(nlsq_values or {}), dict(nlsq_uncertainties or {})
    for name, error in errors.items():
        if error < 0:
            raise ConfigError(f"{error:g}", where=f"nlsq_uncertainties[{name!r}]", allowed=">= 0")
    wanted = {n: width_factor * e for n, e in errors.items() if n in values and e > 0}
    scalings: dict[str, ParameterScaling] = {}
    for name in space.varying_names:
        low, high = space.bounds[name]
        center = _center(name, values, low, high)
        scale = min(wanted.get(name, _DEFAULT_SCALE * (high - low)), _WIDEST_SCALE * (high - low))
        scalings[name] = ParameterScaling(name, center, scale, low, high)
    _report({*values, *errors} - {*space}, "left aside, not in the parameter space")
    if values or errors:
        fitted = [name for name in scalings if name in values]
        _report(scalings.keys() - values.keys(), "no least-squares value, the bounds are used")
        _report(set(fitted) - wanted.keys(), "no standard error, the scale is a sixth of the range")
        limited = {name for name in fitted if wanted.get(name, 0.0) > scalings[name].scale}
        _report(limited, "scale limited by the bounds")
        far = {name for name in fitted if _shift(scalings[name]) > _LARGEST_SHIFT}
        _report(far, "z = 0 lies more than half a scale from the least-squares value")
    return scalings


def _center(name: str, values: Mapping[str, float], low: float, high: float) -> float:
    if name not in values:
        return 0.5 * (low + high)
    center = float(values[name])
    if not low <= center <= high:
        raise ConfigError(
            f"{center:g} lies outside the bounds",
            where=f"nlsq_values[{name!r}]",
            allowed=f"{low:g} to {high:g}",
            remedy="Fit and sample with the same bounds",
        )
    return center


def _shift(scaling: ParameterScaling) -> float:
    """Distance of z = 0 from the center in scales."""
    return abs(float(scaling.to_original(0.0)) - scaling.center) / scaling.scale


def _report(names: Iterable[str], what: str) -> None:
    """Log what happened to some parameters, if there are any."""
    listed = ", ".join(sorted(names))
    if listed:
        _log.warning("scaling of %s: %s", listed, what)


def log_scaling_factors(scalings: Mapping[str, ParameterScaling]) -> None:
    """Log how many scalings there are (INFO), and each of them (DEBUG)."""
    _log.info("scalings of %d parameters", len(scalings))
    for name, s in scalings.items():
        _log.debug(
            "%s: center %g, scale %g, bounds %g to %g", name, s.center, s.scale, s.low, s.high
        )


def transform_initial_values_to_z(
    initial_values: Mapping[str, float], scalings: Mapping[str, ParameterScaling]
) -> dict[str, float]:
    """Turn start values into start values of z, which ``to_original`` turns back exactly.

    Args:
        initial_values: Values by name, strictly between their bounds.
        scalings: Scalings by name of the parameter.

    Returns:
        ``name_z`` in the place of each ``name`` that has a scaling; the others unchanged.

    Raises:
        ConfigError: A value at or outside a bound, or two entries with one name.
    """
    entries = (
        (name + _SUFFIX, float(scalings[name].z_of(value))) if name in scalings else (name, value)
        for name, value in initial_values.items()
    )
    return unique(entries, "initial_values")


def transform_samples_from_z(
    samples: Mapping[str, Numeric], scalings: Mapping[str, ParameterScaling]
) -> dict[str, FloatArray]:
    """Turn draws of z into draws of the parameters.

    Args:
        samples: Draws by name, any shape.
        scalings: Scalings by name of the parameter.

    Returns:
        ``name`` in the place of each ``name_z`` that has a scaling; the others, such as
        ``sigma``, unchanged.

    Raises:
        ConfigError: Two entries with one name, such as ``name`` beside ``name_z``.
    """

    def entries() -> Iterator[tuple[str, FloatArray]]:
        for key, draws in samples.items():
            name = key.removesuffix(_SUFFIX)
            if name != key and name in scalings:
                yield name, np.asarray(scalings[name].to_original(jnp.asarray(draws)))
            else:
                yield key, np.asarray(draws)

    return unique(entries(), "samples")
