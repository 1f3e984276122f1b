"""A smooth bijection of the real line onto an interval that is the identity inside it.

    x = low + w [softplus((y - low) / w) - softplus((y - high) / w)]

Away from the walls x = y up to exp(-distance / w), so coordinates chosen because the data
inform them keep their meaning; a wall bends only its own neighbourhood.
"""

from __future__ import annotations

from heterodyne._typing import JaxArray, Numeric
from heterodyne.core._jax import jnp


def bend(y: Numeric, low: Numeric, high: Numeric, width: Numeric) -> tuple[JaxArray, JaxArray]:
    """Map y to the open interval (low, high), elementwise.

    Args:
        y: Real numbers.
        low: Lower walls, finite.
        high: Upper walls, finite and above ``low``.
        width: Distance from a wall over which the map bends, > 0.

    Returns:
        x, and log dx/dy.
    """
    above, below = (y - low) / width, (high - y) / width
    # With softplus(a) = max(a, 0) + log1p(exp(-|a|)) the linear parts add up to a clip,
    # and nothing cancels on either side of either wall.
    at_low = jnp.log1p(jnp.exp(-jnp.abs(above)))
    at_high = jnp.log1p(jnp.exp(-jnp.abs(below)))
    x = jnp.clip(y, low, high) + width * (at_low - at_high)
    outside = jnp.minimum(above, 0.0) + jnp.minimum(below, 0.0)
    return x, jnp.log(-jnp.expm1((low - high) / width)) + outside - at_low - at_high


def unbend(x: Numeric, low: Numeric, high: Numeric, width: Numeric) -> JaxArray:
    """Return the y that ``bend`` maps to x; x lies strictly between the walls."""
    above, below = (x - low) / width, (high - x) / width
    return (jnp.log(-jnp.expm1(-above)) - jnp.log(-jnp.expm1(-below))) * width + x
