"""The model in plain NumPy, from its formula, sharing nothing with the package.

Numbers are extended to long double, so that rounding of the reference never matters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LONG = np.longdouble
# Steps in which parameters are changed and gradients are stated: D0, alpha, D_offset of the
# reference and of the sample, v0, beta, v_offset, f0, f1, f2, f3, phi0.
UNITS = np.array([1e3, 1, 1e3, 1e3, 1, 1e3, 1e2, 1, 1e2, 0.5, 1, 1, 0.5, 10])


@dataclass(frozen=True)
class Grid:
    """Times in s, wavevector in 1/Å, frame spacing in s, detector angles in degrees."""

    t: np.ndarray
    q: float
    dt: float
    phi: np.ndarray


def power_law(t, prefactor, exponent, offset):
    power = np.array([x**exponent if x > 0 else LONG(0) for x in t])
    return prefactor * power + offset


def unclipped(parameters, t):
    """Both transport coefficients and the fraction before they are limited."""
    p, t = np.asarray(parameters, LONG), np.asarray(t, LONG)
    fraction = p[9] * np.exp(p[10] * (t - p[11])) + p[12]
    return power_law(t, *p[0:3]), power_law(t, *p[3:6]), fraction


def integral(rate, dt):
    steps = LONG(dt) * (rate[1:] + rate[:-1]) / 2
    return np.concatenate([[LONG(0)], np.cumsum(steps)])


def correlation(parameters, grid):
    """G at all pairs of frames, shape (n_angles, N, N)."""
    p, q = np.asarray(parameters, LONG), LONG(grid.q)
    rate_r, rate_s, fraction = unclipped(p, grid.t)
    s = np.minimum(np.maximum(fraction, 0), 1)
    r = 1 - s
    decay_r, decay_s = (
        q**2 * np.abs(np.subtract.outer(x, x))
        for x in (integral(np.maximum(rate, 0), grid.dt) for rate in (rate_r, rate_s))
    )
    travel = integral(power_law(np.asarray(grid.t, LONG), *p[6:9]), grid.dt)
    rr, ss = np.outer(r, r), np.outer(s, s)
    norm = np.outer(r**2 + s**2, r**2 + s**2)
    angle = (np.asarray(grid.phi, LONG) + p[13]) * (LONG(4) * np.arctan(LONG(1)) / 180)
    phase = q * np.cos(angle)[:, None, None] * np.subtract.outer(travel, travel)
    own = rr**2 * np.exp(-decay_r) + ss**2 * np.exp(-decay_s)
    cross = 2 * rr * ss * np.exp(-(decay_r + decay_s) / 2) * np.cos(phase)
    return (own + cross) / norm


def sum_of_squares(parameters, contrast, offset, grid, c2, weights):
    """Weighted squares of all pairs i < j, shape (n_angles,)."""
    model = np.asarray(offset)[:, None, None] + LONG(1) * np.asarray(contrast)[
        :, None, None
    ] * correlation(parameters, grid)
    used = np.triu(weights, 1) > 0
    return (np.where(used, weights, 0) * np.where(used, c2 - model, 0) ** 2).sum((1, 2))


def gradient(parameters, contrast, offset, grid, c2, weights):
    """Slopes of the sum over all angles per unit, to fourth order, (14 + 2 n_angles,)."""
    n = contrast.size
    units = np.concatenate([UNITS, np.ones(2 * n)]).astype(LONG)
    point = np.concatenate([parameters, contrast, offset]).astype(LONG)

    def total(x):
        return sum_of_squares(x[:14], x[14 : 14 + n], x[14 + n :], grid, c2, weights).sum()

    step = LONG(1e-5)
    slopes = []
    for k, unit in enumerate(units):
        change = np.zeros_like(point)
        change[k] = step * unit
        near, far = (total(point + x) - total(point - x) for x in (change, 2 * change))
        slopes.append((8 * near - far) / (12 * step))
    return np.array(slopes)


def draw_parameters(count, t, rng):
    """Parameter sets that meet every branch of the model, none on a kink."""
    sets = []
    while len(sets) < count:
        p = _one_set(len(sets), t, rng)
        if not on_a_kink(p, t):
            sets.append(p)
    return np.array(sets)


def on_a_kink(parameters, t):
    """Whether a rate or the fraction is close to its limit at some frame."""
    rate_r, rate_s, fraction = unclipped(parameters, t[t > 0])
    closest = [np.abs(rate).min() for rate in (rate_r, rate_s)]
    edges = np.minimum(np.abs(fraction), np.abs(fraction - 1)).min()
    return min(closest) < 0.2 or edges < 1e-4


def _one_set(k, t, rng):
    p = np.empty(14)
    middle = rng.uniform(t[len(t) // 4], t[-len(t) // 4])
    for first in (0, 3):
        p[first : first + 3] = 10 ** rng.uniform(2, 3.5), rng.uniform(-1, 1), rng.uniform(5, 500)
    p[6:9] = 10 ** rng.uniform(1, 2.3), rng.uniform(-0.8, 0.8), rng.uniform(-20, 20)
    p[9:13] = rng.uniform(0.1, 0.3), rng.uniform(-0.1, 0.1), middle, rng.uniform(0.1, 0.5)
    p[13] = rng.uniform(-10, 10)
    if k % 3 == 0:
        p[8] = -p[6] * middle ** p[7]
    if k % 4 == 1:
        first = 3 * (k % 8 == 1)
        p[first + 2] = -p[first] * middle ** p[first + 1]
    if k % 5 == 2:
        first = 3 * (k % 2)
        p[first] = 10 ** rng.uniform(6, 7)
        p[first + 1] = rng.uniform(-0.3, 0.3)
    if k % 5 == 3:
        p[9:13] = 0.5, rng.choice([-1, 1]) * rng.uniform(0.3, 1), middle, rng.uniform(0.4, 0.6)
    if k % 5 == 4:
        p[9:13] = -0.3, rng.choice([-1, 1]) * rng.uniform(0.3, 1), middle, rng.uniform(0.2, 0.4)
    return p
