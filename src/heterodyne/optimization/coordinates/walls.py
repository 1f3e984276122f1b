"""A smooth bijection of the real line onto an interval that is the identity inside it.

    x = low + w [softplus((y - low) / w) - softplus((y - high) / w)]

Away from the walls x = y up to exp(-distance / w), so coordinates chosen because the data
inform them keep their meaning; a wall bends only its own neighbourhood.
"""

from __future__ import annotations

from heterodyne._typing import JaxArray
from heterodyne.core._jax import jax, jnp

Scalar = JaxArray | float


def bend(y: Scalar, low: Scalar, high: Scalar, width: Scalar) -> tuple[JaxArray, JaxArray]:
    """Map y to the open interval (low, high).

    Args:
        y: Real number.
        low: Lower wall, finite.
        high: Upper wall, finite and above ``low``.
        width: Distance from a wall over which the map bends, > 0.

    Returns:
        x, and log dx/dy.
    """
    softplus = jax.nn.softplus
    above, below = (y - low) / width, (high - y) / width
    lift, drop = softplus(-above), softplus(-below)
    # Three forms of the same function; each is free of cancellation in its own region.
    near_low = low + width * (softplus(above) - drop)
    near_high = high - width * (softplus(below) - lift)
    inside = y + width * (lift - drop)
    x = jnp.where(above < 1.0, near_low, jnp.where(below < 1.0, near_high, inside))
    return x, jnp.log(-jnp.expm1((low - high) / width)) - lift - drop


def unbend(x: Scalar, low: Scalar, high: Scalar, width: Scalar) -> JaxArray:
    """Return the y that ``bend`` maps to x; x lies strictly between the walls."""
    above, below = (x - low) / width, (high - x) / width
    return x + width * (jnp.log(-jnp.expm1(-above)) - jnp.log(-jnp.expm1(-below)))
