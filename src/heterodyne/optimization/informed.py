"""A likelihood that is normal in what the data inform.

c2 depends on the parameters through J, v and s, and is nearly linear in their values at a few
times of the window, in phi0, contrast and offset, over ranges in which it is far from linear
in the parameters. A likelihood of which only the maximum and the curvature there are known
is therefore taken as normal in these quantities.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from heterodyne._typing import FloatArray, JaxArray
from heterodyne.core._jax import jnp
from heterodyne.core.likelihood import log_likelihood_of_squares
from heterodyne.optimization.derived import curves_at

# Directions of the quantities that the coordinates change by less, relative to the most
# changed one, count as fixed.
_RANK = 1e-7


class NormalLikelihood(NamedTuple):
    """Normal likelihood of the quantities that the data inform, and of sigma (a JAX pytree).

    Attributes:
        times: Reference times in s, shape (T,).
        centre: Quantities at the maximum, then contrasts and offsets, shape (4 T + 1 + k,).
        precision: Inverse of their covariance, shape (4 T + 1 + k, 4 T + 1 + k).
        squares: Sum of squares at the maximum, which informs sigma.
        n_pairs: Number of pairs, which do too.
    """

    times: JaxArray
    centre: JaxArray
    precision: JaxArray
    squares: JaxArray
    n_pairs: JaxArray

    def distance(self, parameters: JaxArray, scaling: JaxArray) -> JaxArray:
        """Quantities, contrasts and offsets minus those at the maximum."""
        return jnp.concatenate([quantities(parameters, self.times), scaling]) - self.centre

    def log_density(self, parameters: JaxArray, scaling: JaxArray, sigma: JaxArray) -> JaxArray:
        """Return the log likelihood, scalar.

        Args:
            parameters: The 14 physics parameters in canonical order.
            scaling: Contrasts, then offsets, shape (k,).
            sigma: Standard deviation of the errors.
        """
        d = self.distance(parameters, scaling)
        of_sigma = log_likelihood_of_squares(self.squares, sigma, self.n_pairs)
        return of_sigma - 0.5 * d @ self.precision @ d


def quantities(parameters: JaxArray, times: JaxArray) -> JaxArray:
    """J of both components, v and s at the times, and phi0, shape (4 T + 1,)."""
    return jnp.append(curves_at(parameters, times), parameters[-1])


def carried_over(information: FloatArray, slopes: FloatArray) -> FloatArray:
    """Return the precision M of quantities with S' M S = F, of the least rank.

    Args:
        information: Information F of coordinates, shape (n, n).
        slopes: Derivatives S of the quantities by the coordinates, shape (m, n).
    """
    width = np.diagonal(information).copy()
    width = 1.0 / np.sqrt(np.maximum(width, 1e-12 * width.max(initial=1e-300)))
    size = np.abs(slopes * width).max(axis=1, initial=0.0)
    size = np.where(size > 0, size, 1.0)
    back = np.linalg.pinv(slopes * width / size[:, None], rcond=_RANK)
    inner = back.T @ (information * width[:, None] * width) @ back
    return 0.5 * (inner + inner.T) / size[:, None] / size
