"""Start values whose field correlation has not died out, so that the data can be felt."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy.integrate import cumulative_trapezoid

from heterodyne._errors import ConfigError
from heterodyne._log import get_logger
from heterodyne._typing import ArrayLike, FloatArray
from heterodyne.config.parameter_registry import DEFAULT_REGISTRY
from heterodyne.core._jax import jnp
from heterodyne.core.rates import transport_coefficient

_log = get_logger(__name__)

_COMPONENTS = ("ref", "sample")
_ROUNDING = 1e-9


def compute_mcmc_safe_initial_values(
    initial_values: Mapping[str, float] | None,
    *,
    q: float,
    dt: float,
    time_grid: ArrayLike,
    target_g1: float = 0.5,
    g1_threshold: float = 0.1,
) -> dict[str, float] | None:
    """Slow down a transport that has decayed before the data show it.

    Where the field correlation g1 = exp(-q²/2 integral of J dt) of a component vanishes,
    the likelihood is flat and a chain that starts there does not find back. Each component
    is judged at a typical lag, the geometric mean of ``dt`` and the length of the grid, by
    the median of the integral over all windows of that length. Scaling D0 and D_offset
    scales J, and so this integral, by the same factor, which brings g1 to the target.

    Fast transport may be right: a repair is logged, and a fit to good data needs none.

    Args:
        initial_values: Parameters by name, in their units, such as those of a fit. A
            component without its D0 is left alone; without its alpha or D_offset, their
            defaults are taken.
        q: Wavevector in 1/Å.
        dt: Shortest lag in s.
        time_grid: Frame times in s, increasing, shape (N,).
        target_g1: g1 at the typical lag after a repair.
        g1_threshold: g1 at the typical lag below which a component is repaired.

    Returns:
        A copy with other values of D0 and D_offset of the slowed components; None where no
        component needs it, or without values.

    Raises:
        ConfigError: An argument is outside its limits, or a value is not finite.
    """
    times = np.asarray(time_grid, float)
    _check(q, dt, times, target_g1, g1_threshold)
    if initial_values is None:
        return None
    changes: dict[str, float] = {}
    lag = math.sqrt(dt * (times[-1] - times[0]))
    for component in _COMPONENTS:
        name = f"D0_{component}"
        if name not in initial_values:
            continue
        decay = 0.5 * q**2 * _typical_integral(initial_values, component, times, lag)
        if decay <= -math.log(g1_threshold):
            continue
        factor = -math.log(target_g1) / decay
        offset = f"D_offset_{component}"
        changes |= {n: factor * initial_values[n] for n in (name, offset) if n in initial_values}
        _tell(component, decay, lag, factor)
    return {**initial_values, **changes} if changes else None


def _tell(component: str, decay: float, lag: float, factor: float) -> None:
    _log.warning(
        "g1 of the %s is %.2g at a lag of %.3g s: its D0 and D_offset are multiplied by %.3g, "
        "which makes it %.2g",
        "reference" if component == "ref" else "sample",
        math.exp(-decay),
        lag,
        factor,
        math.exp(-decay * factor),
    )


def _typical_integral(
    values: Mapping[str, float], component: str, times: FloatArray, lag: float
) -> float:
    """Median integral of J over all windows of a lag, in Å²."""
    names = [f"{name}_{component}" for name in ("D0", "alpha", "D_offset")]
    given = [float(values.get(name, DEFAULT_REGISTRY[name].default)) for name in names]
    rate = np.asarray(transport_coefficient(jnp.asarray(times), *map(jnp.asarray, given)))
    until = cumulative_trapezoid(rate, times, initial=0.0)
    # A little more, so that rounding does not lose the last window.
    starts = times[times <= times[-1] - (1.0 - _ROUNDING) * lag]
    windows = np.interp(starts + lag, times, until) - np.interp(starts, times, until)
    typical = float(np.median(windows))
    if not math.isfinite(typical):
        raise ConfigError(
            f"the transport coefficient is not finite at {dict(zip(names, given, strict=True))}",
            where="initial_values",
            allowed="finite values",
        )
    return typical


def _check(q: float, dt: float, times: FloatArray, target_g1: float, g1_threshold: float) -> None:
    for name, value, unit in (("q", q, "1/Å"), ("dt", dt, "s")):
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name} is {value}", allowed=f"a number above 0 in {unit}")
    if times.ndim != 1 or times.size < 2 or not np.all(np.diff(times) > 0) or times[0] < 0:
        raise ConfigError(
            f"time_grid has shape {times.shape} and is not increasing from 0 or later",
            allowed="at least two times in s, each later than the one before",
        )
    if dt > times[-1] - times[0]:
        raise ConfigError(
            f"dt is {dt:g} s, longer than the time grid", allowed="the spacing of the grid in s"
        )
    if not 0.0 < g1_threshold <= target_g1 < 1.0:
        raise ConfigError(
            f"target_g1 is {target_g1} and g1_threshold {g1_threshold}",
            allowed="0 < g1_threshold <= target_g1 < 1",
        )
