"""The information that a likelihood has when its errors are not what it takes them for."""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve_triangular

from heterodyne._typing import FloatArray

_ROUNDING = 1e-12


def adjusted_information(
    information: FloatArray, variance: FloatArray, prior: FloatArray
) -> FloatArray:
    """Return F V^-1 F where the data say more than the prior, and never more than F.

    Where the data say nothing beside the prior, F stays as it is.

    Args:
        information: Fisher information F for independent errors, shape (n, n).
        variance: Covariance V of the score, shape (n, n).
        prior: Curvature of minus the log prior density, shape (n, n); its positive
            semidefinite part counts.

    Returns:
        A' F A with a map A that, where the posterior for independent errors has unit
        covariance, is symmetric with factors from 0 to 1.
    """
    n = len(information)
    scale = 1.0 / np.sqrt(np.maximum(np.diagonal(information) + np.abs(np.diagonal(prior)), 1e-300))
    outer = scale[:, None] * scale
    values, vectors = np.linalg.eigh(prior * outer)
    # A trace of curvature keeps directions that neither data nor prior inform finite.
    prior_part = (vectors * np.maximum(values, 0.0)) @ vectors.T + _ROUNDING * np.eye(n)
    lower = np.linalg.cholesky(information * outer + prior_part)
    half = solve_triangular(lower, variance * outer + prior_part, lower=True)
    score = solve_triangular(lower, half.T, lower=True)
    values, vectors = np.linalg.eigh(0.5 * (score + score.T))
    shrink = 1.0 / np.sqrt(np.maximum(values, 1.0))
    back = solve_triangular(lower.T, vectors * shrink)
    matrix = (back @ vectors.T @ lower.T) * scale[:, None] / scale
    return matrix.T @ information @ matrix
