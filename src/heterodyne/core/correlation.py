"""Two-time correlation evaluated directly, pair by pair or as a matrix.

These functions define the model; the separable kernel is tested against them.
Formula: two-component two-time correlation of He et al., PNAS 122 (42), 2025,
doi 10.1073/pnas.2514216122, supporting information.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from heterodyne._typing import FloatArray, IntArray, JaxArray, Numeric
from heterodyne.core._jax import jax, jnp
from heterodyne.core.frames import FrameFunctions, frame_functions, phase_rate
from heterodyne.core.rates import cumulative_trapezoid
from heterodyne.core.rows import row_slices


def correlate_pairs(
    functions: FrameFunctions,
    i: Numeric,
    j: Numeric,
    q: JaxArray | float,
    dt: JaxArray | float,
    phi: JaxArray | float,
) -> JaxArray:
    """Return G(t_i, t_j), which is 1 where i = j.

    Args:
        functions: Rates and fraction at the N frames.
        i: Frame indices, any shape.
        j: Frame indices, same shape.
        q: Wavevector in 1/Å.
        dt: Frame spacing in s.
        phi: Detector angle in degrees.

    Returns:
        Array of the shape of ``i``.
    """
    f = functions
    decay_r = q**2 * cumulative_trapezoid(f.transport_reference, dt)
    decay_s = q**2 * cumulative_trapezoid(f.transport_sample, dt)
    displacement = cumulative_trapezoid(f.velocity, dt)
    phase = phase_rate(q, jnp.asarray(phi), f.phi0) * (displacement[j] - displacement[i])
    difference_r = jnp.abs(decay_r[j] - decay_r[i])
    difference_s = jnp.abs(decay_s[j] - decay_s[i])
    s = f.fraction
    r = 1.0 - s
    weight = r**2 + s**2
    numerator = (
        (r[i] * r[j]) ** 2 * jnp.exp(-difference_r)
        + (s[i] * s[j]) ** 2 * jnp.exp(-difference_s)
        + 2.0
        * (r[i] * r[j] * s[i] * s[j])
        * jnp.exp(-0.5 * (difference_r + difference_s))
        * jnp.cos(phase)
    )
    return numerator / (weight[i] * weight[j])


def correlation_matrix(
    parameters: JaxArray,
    t: JaxArray,
    q: JaxArray | float,
    dt: JaxArray | float,
    phi: JaxArray | float,
) -> JaxArray:
    """Return G for all pairs of frames at one detector angle.

    Args:
        parameters: The 14 physics parameters in canonical order.
        t: Frame times in s, shape (N,).
        q: Wavevector in 1/Å.
        dt: Frame spacing in s.
        phi: Detector angle in degrees.

    Returns:
        Symmetric array of shape (N, N) with ones on the diagonal.
    """
    index = jnp.arange(t.shape[0])
    functions = frame_functions(parameters, t)
    return correlate_pairs(functions, index[:, None], index[None, :], q, dt, phi)


def correlation_stretches(
    parameters: JaxArray,
    t: JaxArray,
    q: JaxArray | float,
    dt: JaxArray | float,
    phi: JaxArray | float,
    frames: IntArray | None = None,
    *,
    multiple: int = 1,
) -> Iterator[tuple[slice, FloatArray]]:
    """Return G between some frames at one detector angle, in stretches of rows.

    Args:
        parameters: The 14 physics parameters in canonical order.
        t: Times of all frames in s, shape (N,).
        q: Wavevector in 1/Å.
        dt: Frame spacing in s.
        phi: Detector angle in degrees.
        frames: Indices of the n frames; None for all.
        multiple: What the number of rows of every stretch but the last is a multiple of.

    Yields:
        Which of the n rows, and those m rows, shape (m, n).
    """
    index = np.arange(t.shape[0]) if frames is None else frames
    height = 0
    for rows in row_slices(index.size, index.size, multiple):
        # All stretches have one shape, for which code is compiled once.
        height = max(height, rows.stop - rows.start)
        filled = np.minimum(np.arange(rows.start, rows.start + height), index.size - 1)
        block = _block(parameters, t, q, dt, phi, index[filled], index)
        yield rows, np.asarray(block)[: rows.stop - rows.start]


@jax.jit
def _block(
    parameters: JaxArray,
    t: JaxArray,
    q: JaxArray | float,
    dt: JaxArray | float,
    phi: JaxArray | float,
    i: JaxArray,
    j: JaxArray,
) -> JaxArray:
    functions = frame_functions(parameters, t)
    return correlate_pairs(functions, i[:, None], j[None, :], q, dt, phi)
