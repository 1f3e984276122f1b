"""One data set bound to its coordinates and scaling: what is fitted and sampled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from heterodyne._typing import FloatArray, JaxArray
from heterodyne.core._jax import jax, jnp
from heterodyne.core.information import gram
from heterodyne.core.likelihood import PairData, expand_squares, sums
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.scaling import Scaling


@dataclass(frozen=True)
class Problem:
    """A data set with the unknowns that describe it.

    Attributes:
        data: Measured pairs.
        coordinates: Coordinates of the varying physics parameters.
        scaling: Contrast and offset.
    """

    data: PairData
    coordinates: PhysicsCoordinates
    scaling: Scaling

    @property
    def n_pairs(self) -> int:
        """Number of fitted unique pairs of all angles."""
        return int(np.asarray(self.data.n_pairs).sum())

    @property
    def fitted_times(self) -> FloatArray:
        """Times of the fitted frames in s."""
        return np.asarray(self.data.t)[np.asarray(self.data.mask) > 0]

    @property
    def degrees_of_freedom(self) -> int:
        """Number of pairs minus number of unknowns, at least 1."""
        return max(1, self.n_pairs - self.coordinates.size - self.scaling.size)


class Profile(NamedTuple):
    """Sum of squares of all angles at the best contrast and offset of each angle."""

    squares: JaxArray
    contrast: JaxArray
    offset: JaxArray


def profile_at(parameters: JaxArray, data: PairData, scaling: Scaling) -> Profile:
    """Minimise the sum of squares over contrast and offset.

    Args:
        parameters: The 14 physics parameters in canonical order.
        data: Measured pairs.
        scaling: Contrast and offset.
    """
    s = sums(parameters, data)
    contrast, offset = scaling.profile(s, data)
    return Profile(expand_squares(s, contrast, offset, data).sum(), contrast, offset)


def profiled_squares(
    y: JaxArray, data: PairData, coordinates: PhysicsCoordinates, scaling: Scaling
) -> JaxArray:
    """Sum of squares of all angles with the best contrast and offset, scalar.

    Args:
        y: Coordinates of the physics parameters, shape (p,).
        data: Measured pairs.
        coordinates: Map to the physics parameters.
        scaling: Contrast and offset.
    """
    return profile_at(coordinates.forward(y)[0], data, scaling).squares


def information_at(
    y: JaxArray, data: PairData, coordinates: PhysicsCoordinates, scaling: Scaling
) -> tuple[JaxArray, JaxArray, JaxArray]:
    """Information of coordinates, contrasts and offsets at the best scaling.

    Returns:
        The matrix of shape (p + scaling.size, p + scaling.size), which over sigma**2 is
        the Fisher information, and contrast and offset of each angle.
    """
    _, contrast, offset = profile_at(coordinates.forward(y)[0], data, scaling)
    products = gram(lambda x: coordinates.forward(x)[0], y, data)
    return scaling.information(products, contrast), contrast, offset


def profiled_information(full: JaxArray, p: int) -> JaxArray:
    """Eliminate contrast and offset from an information matrix, shape (p, p)."""
    corner = full[p:, p:]
    scale = jnp.sqrt(jnp.maximum(jnp.diagonal(corner), 1e-300))
    regular = corner / scale[:, None] / scale + 1e-13 * jnp.eye(corner.shape[0])
    side = full[p:, :p] / scale[:, None]
    return full[:p, :p] - side.T @ jnp.linalg.solve(regular, side)


_STATIC = ("coordinates", "scaling")
exact_hessian = partial(jax.jit, static_argnames=_STATIC)(jax.hessian(profiled_squares))
information = partial(jax.jit, static_argnames=_STATIC)(information_at)
