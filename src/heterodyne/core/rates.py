"""Time-dependent rates of the model: transport coefficients, velocity, fraction.

Source: He et al., PNAS 121 (31), 2024, doi 10.1073/pnas.2401162121; PNAS 122 (42),
2025, doi 10.1073/pnas.2514216122.
"""

from __future__ import annotations

from heterodyne._typing import JaxArray
from heterodyne.core._jax import jnp

_LARGEST_EXPONENT = 500.0


def power_of_time(t: JaxArray, exponent: JaxArray) -> JaxArray:
    """Return t**exponent with the value 0 at t = 0.

    Args:
        t: Times in s, not negative, shape (N,).
        exponent: Exponent, scalar.

    Returns:
        Array of shape (N,).
    """
    positive = t > 0
    log_t = jnp.log(jnp.where(positive, t, 1.0))
    return jnp.where(positive, jnp.exp(exponent * log_t), 0.0)


def transport_coefficient(
    t: JaxArray, prefactor: JaxArray, exponent: JaxArray, offset: JaxArray
) -> JaxArray:
    """Return J(t) = max(D0 t**alpha + D_offset, 0) in Å²/s.

    Args:
        t: Times in s, shape (N,).
        prefactor: D0 in Å²/s^(1+alpha).
        exponent: alpha.
        offset: D_offset in Å²/s.
    """
    return jnp.maximum(prefactor * power_of_time(t, exponent) + offset, 0.0)


def velocity(t: JaxArray, prefactor: JaxArray, exponent: JaxArray, offset: JaxArray) -> JaxArray:
    """Return v(t) = v0 t**beta + v_offset in Å/s, sign kept.

    Args:
        t: Times in s, shape (N,).
        prefactor: v0 in Å/s^(1+beta).
        exponent: beta.
        offset: v_offset in Å/s.
    """
    return prefactor * power_of_time(t, exponent) + offset


def sample_fraction(
    t: JaxArray, f0: JaxArray, f1: JaxArray, f2: JaxArray, f3: JaxArray
) -> JaxArray:
    """Return s(t) = clip(f0 exp(f1 (t - f2)) + f3, 0, 1), an amplitude fraction.

    Args:
        t: Times in s, shape (N,).
        f0: Amplitude.
        f1: Rate of change in 1/s.
        f2: Time origin in s.
        f3: Offset.
    """
    # The cap lies where the fraction is clipped anyway; it keeps gradients finite.
    growth = jnp.exp(jnp.minimum(f1 * (t - f2), _LARGEST_EXPONENT))
    return jnp.clip(f0 * growth + f3, 0.0, 1.0)


def cumulative_trapezoid(rate: JaxArray, dt: JaxArray | float) -> JaxArray:
    """Integrate a rate from the first frame on the frame grid.

    Args:
        rate: Rate at each frame, shape (N,).
        dt: Frame spacing in s.

    Returns:
        Integral up to each frame, shape (N,); the first entry is 0.
    """
    steps = 0.5 * dt * (rate[1:] + rate[:-1])
    return jnp.concatenate([jnp.zeros(1, steps.dtype), jnp.cumsum(steps)])
