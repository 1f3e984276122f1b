"""A quadratic change of coordinates in which a bent posterior is nearly normal.

Well-known combinations of the parameters depend on little-known ones in a curved way, so that
the posterior is a thin sheet, bent by many of its thicknesses. With z the coordinates in which
the information g is the unit matrix at the mode, the model is there

    f = f_0 + e_k (z_k + c_kij z_i z_j / 2) + what is normal to all e_k,
    c_kij = (d_i g_jk + d_j g_ik - d_k g_ij) / 2,

the Christoffel symbols of the information (Bates and Watts, J. R. Stat. Soc. B 42, 1, 1980: the
parameter effects of the curvature). In u_k = z_k + c_kij z_i z_j / 2 the posterior is normal up
to that order. Axes are turned such that those come first that bend others, and only c_kij with
i and j before k are taken: so the map is a bijection of volume 1, and what is left out is small.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
from jax.scipy.linalg import block_diag

from heterodyne._cores import usable_cores
from heterodyne._typing import FloatArray, JaxArray
from heterodyne.core._jax import RUNS_ONCE, jax, jnp
from heterodyne.optimization.cmc._frame import Frame
from heterodyne.optimization.cmc._linear import narrowed, ridge_place, searched
from heterodyne.optimization.cmc._nuts import Target
from heterodyne.optimization.informed import NormalLikelihood, quantities
from heterodyne.optimization.nlsq.derivatives import differentiate
from heterodyne.optimization.posterior import Posterior
from heterodyne.optimization.prior import LogPrior
from heterodyne.optimization.problem import Problem, profiled_information

# Difference over which the information is differentiated, in posterior standard deviations.
_STEP = 0.05
# Distance from the mode, likewise, beyond which an axis bends others no further, and how far it
# bends them at most: a parabola is no guide to what is bent by more.
_REACH, _FARTHEST = 5.0, 100.0


class Bend(NamedTuple):
    """The map from u, in which the posterior is nearly normal, to the z of a frame.

    Attributes:
        axes: Directions in z of the axes of u, as columns, shape (m, m), orthogonal.
        pull: Symbols c_kij along these, zero unless i and j are below k, shape (m, m, m).
        reach: Where each axis ceases to bend others, shape (m,).
    """

    axes: FloatArray
    pull: FloatArray
    reach: FloatArray

    @classmethod
    def of(cls, symbols: FloatArray) -> Bend:
        """Turn axes and choose what is taken of the symbols c_kij, shape (m, m, m)."""
        axes = _drivers_first(symbols)
        turned = np.einsum("kij,ka,ib,jc->abc", symbols, axes, axes, axes, optimize=True)
        below = np.tri(len(axes), k=-1, dtype=bool)
        pull = np.where(below[:, :, None] & below[:, None, :], turned, 0.0)
        strongest = np.abs(pull).max(axis=(0, 1))
        reach = np.sqrt(2.0 * _FARTHEST / np.maximum(strongest, 2.0 * _FARTHEST / _REACH**2))
        return cls(axes, pull, reach)

    def place(self, u: FloatArray) -> FloatArray:
        """Map u to z, shape (..., m)."""
        return (u - self._shift(u)) @ self.axes.T

    def find(self, z: FloatArray) -> FloatArray:
        """Map z to u, shape (..., m)."""
        turned = z @ self.axes
        u = np.zeros(turned.shape)
        for k in range(turned.shape[-1]):
            u[..., k] = turned[..., k] + self._shift(u)[..., k]
        return u

    def carried(self, centre: FloatArray, factor: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Take a normal distribution of z, by centre and Cholesky factor, to u."""
        u, steps = self.find(centre), _STEP * np.eye(centre.size)
        slopes = (self.place(u + steps) - self.place(u - steps)).T / (2.0 * _STEP)
        _, upper = np.linalg.qr(np.linalg.solve(slopes, factor).T)
        return u, upper.T * np.sign(np.diagonal(upper))

    def _shift(self, u: FloatArray) -> FloatArray:
        near = self.reach * np.tanh(u / self.reach)
        return 0.5 * np.einsum("kij,...i,...j->...k", self.pull, near, near, optimize=True)


def bend_at(posterior: Posterior, target: Target, frame: Frame) -> Bend:
    """Return the map around a mode.

    Args:
        posterior: Map and density.
        target: What it is conditioned on.
        frame: Normal approximation of the mode, in all coordinates.
    """
    inner = narrowed(posterior, frame)
    # Sigma, the last coordinate, bends nothing.
    factor = np.asarray(inner.factor)[:-1, :-1]
    steps, centre = _STEP * factor.T, np.asarray(frame.centre)
    ends = (_information(posterior, target, centre, sign * steps) for sign in (1.0, -1.0))
    after, before = (factor.T @ found @ factor for found in ends)
    symbols = symbols_of((after - before) / (2.0 * _STEP))
    if not np.isfinite(symbols).all():
        symbols = np.zeros(symbols.shape)
    return Bend.of(np.pad(symbols, (0, 1)))


def symbols_of(slopes: FloatArray) -> FloatArray:
    """Christoffel symbols c_kij where the information is the unit matrix.

    Args:
        slopes: Derivatives of the information, d_l g_ij at [l, i, j], shape (m, m, m).
    """
    return 0.5 * (slopes.transpose(2, 0, 1) + slopes.transpose(2, 1, 0) - slopes)


def _drivers_first(symbols: FloatArray) -> FloatArray:
    """Orthogonal axes, from those that bend others to those that are bent, as columns."""
    drivers = np.einsum("kil,kjl->ij", symbols, symbols)
    driven = np.einsum("kij,lij->kl", symbols, symbols)
    _, vectors = np.linalg.eigh(drivers - driven)
    return vectors[:, ::-1]


def _information(
    posterior: Posterior, target: Target, centre: FloatArray, steps: FloatArray
) -> FloatArray:
    """Information of data and priors on the physics coordinates that are searched.

    Args:
        posterior: Map and density.
        target: What it is conditioned on.
        centre: Coordinates, shape (d,).
        steps: Steps from there in the coordinates that are searched, shape (n, m).

    Returns:
        Array of shape (n, m, m); contrast, offset and f2 are left free.
    """
    kept = searched(posterior)[:-1]
    y = np.tile(centre[: posterior.coordinates.size], (len(steps), 1))
    y[:, kept] += steps
    if target.normal is None:
        whole = _of_pairs(y, target, posterior)
    else:
        whole = np.asarray(_of_quantities(y, target.normal, target.prior_weight, posterior))
    place = ridge_place(posterior)
    inner = whole[:, kept[:, None], kept]
    if place is None:
        return inner
    column = whole[:, kept, place]
    return inner - column[:, :, None] * column[:, None, :] / whole[:, place, place, None, None]


def _of_pairs(y: FloatArray, target: Target, posterior: Posterior) -> FloatArray:
    problem, n = Problem(target.data, posterior.coordinates, posterior.scaling), len(y)
    with ThreadPoolExecutor(usable_cores()) as pool:
        every, beat = np.ones(n, bool), np.full(n, np.inf)
        found = differentiate(problem, y, every, beat, float(target.prior_weight), pool)
    return np.asarray(found.curvature)


@partial(jax.jit, static_argnames="posterior", compiler_options=RUNS_ONCE)
def _of_quantities(
    y: JaxArray, normal: NormalLikelihood, prior_weight: JaxArray | float, posterior: Posterior
) -> JaxArray:
    coordinates = posterior.coordinates
    prior = LogPrior.of(coordinates.space, coordinates.names)

    def informed(x: JaxArray) -> tuple[JaxArray, JaxArray]:
        parameters, _ = coordinates.forward(x)
        varying = parameters[coordinates.indices]
        return quantities(parameters, normal.times), prior.standardised(varying)

    def one(x: JaxArray) -> JaxArray:
        slopes, of_prior = jax.jacfwd(informed)(x)
        every = block_diag(slopes, jnp.eye(posterior.scaling.size))
        full = every.T @ normal.precision @ every
        own = profiled_information(full, coordinates.size)
        return own + prior_weight * of_prior.T @ of_prior

    return jax.lax.map(one, y)
