"""Documented entry point for the full correlation matrix."""

from __future__ import annotations

from heterodyne._typing import ArrayLike, JaxArray
from heterodyne.core._jax import jnp
from heterodyne.core.correlation import correlation_matrix


def compute_c2_heterodyne(
    params: ArrayLike,
    t: ArrayLike,
    q: float,
    dt: float,
    phi_angle: float,
    contrast: float = 1.0,
    offset: float = 1.0,
) -> JaxArray:
    """Return c2 = offset + contrast * G for all pairs of frames at one angle.

    Args:
        params: The 14 physics parameters in canonical order.
        t: Frame times in s, shape (N,).
        q: Wavevector in 1/Å.
        dt: Frame spacing in s.
        phi_angle: Detector angle in degrees.
        contrast: Speckle contrast.
        offset: Baseline.

    Returns:
        Array of shape (N, N).
    """
    g = correlation_matrix(jnp.asarray(params), jnp.asarray(t), q, dt, phi_angle)
    return offset + contrast * g
