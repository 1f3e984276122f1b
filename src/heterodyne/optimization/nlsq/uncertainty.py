"""Standard errors of a fit, infinite where the data leave a parameter open."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from heterodyne._typing import FloatArray

# Information below this fraction of the largest is rounding.
_RANK_TOLERANCE = 1e-11


class Inverse(NamedTuple):
    """Pseudo-inverse of an information matrix.

    Attributes:
        covariance: Inverse on the directions that carry information, shape (n, n).
        null: Orthonormal directions without information, shape (n, k), in units of
            ``scale``.
        scale: Unit of each coordinate, shape (n,).
    """

    covariance: FloatArray
    null: FloatArray
    scale: FloatArray


def invert_information(information: FloatArray, unit: FloatArray) -> Inverse:
    """Invert an information matrix where it carries information.

    Args:
        information: Positive semidefinite matrix, shape (n, n).
        unit: Information that would count as little on each coordinate, such as that of
            its prior, > 0, shape (n,).
    """
    scale = 1.0 / np.sqrt(np.maximum(np.diagonal(information), unit))
    values, vectors = np.linalg.eigh(information * scale[:, None] * scale)
    informed = values > _RANK_TOLERANCE * max(float(values.max(initial=0.0)), 1e-300)
    kept = vectors[:, informed]
    inverse = (kept / values[informed]) @ kept.T
    return Inverse(inverse * scale[:, None] * scale, vectors[:, ~informed], scale)


def propagate(inverse: Inverse, jacobian: FloatArray) -> FloatArray:
    """Return the covariance of functions of the coordinates.

    Args:
        inverse: Inverted information of the coordinates.
        jacobian: Derivatives of the functions, shape (m, n).

    Returns:
        Matrix of shape (m, m); a function that moves along a direction without
        information has an infinite variance and undefined (NaN) covariances.
    """
    covariance = jacobian @ inverse.covariance @ jacobian.T
    along = np.abs((jacobian * inverse.scale) @ inverse.null).max(axis=1, initial=0.0)
    size = np.abs(jacobian * inverse.scale).max(axis=1, initial=0.0)
    open_ = along > 1e-5 * np.maximum(size, 1e-300)
    covariance[open_, :] = np.nan
    covariance[:, open_] = np.nan
    covariance[open_, open_] = np.inf
    return covariance
