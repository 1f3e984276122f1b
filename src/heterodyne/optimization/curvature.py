"""Linear maps that give a likelihood another curvature: the algebra of the adjustment."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from heterodyne._typing import FloatArray

_ROUNDING = 1e-12


def adjust(
    information: FloatArray, variance: FloatArray, prior: FloatArray, first: int
) -> tuple[FloatArray, FloatArray]:
    """Return a map A with A' F A = F V^-1 F where the data say more than the prior.

    The map leads the first coordinates to themselves, so that coordinates in which the
    likelihood is Gaussian, if they come last, stay such. In coordinates in which the
    posterior for independent errors has unit covariance, it is symmetric on the first
    coordinates with the last ones integrated out, and on the last ones with the first ones
    given, with factors from 0 to 1 each.

    Args:
        information: Fisher information F for independent errors, shape (n, n).
        variance: Covariance V of the score, shape (n, n).
        prior: Curvature of minus the log prior density, shape (n, n), without elements
            between first and last coordinates; its positive semidefinite part counts. Where
            the data say nothing beside it, A is the identity.
        first: Number of first coordinates, at least 1; n for one symmetric map.

    Returns:
        The map and the adjusted information A' F A, shape (n, n) each.
    """
    n = len(information)
    scale = 1.0 / np.sqrt(np.maximum(np.diagonal(information) + np.abs(np.diagonal(prior)), 1e-300))
    outer = scale[:, None] * scale
    values, vectors = np.linalg.eigh(prior * outer)
    # A trace of curvature keeps directions that neither data nor prior inform finite.
    prior_part = (vectors * np.maximum(values, 0.0)) @ vectors.T + _ROUNDING * np.eye(n)
    both, spread = information * outer + prior_part, variance * outer + prior_part
    matrix = _nested(both, spread, first) * scale[:, None] / scale
    return matrix, matrix.T @ information @ matrix


def _nested(curvature: FloatArray, variance: FloatArray, first: int) -> FloatArray:
    """The map, block triangular, for positive definite matrices of curvature and score."""
    n = len(curvature)
    if first == n:
        return _shrinking(curvature, variance)
    a, b = slice(0, first), slice(first, n)
    corner = cho_factor(curvature[b, b])
    onto = cho_solve(corner, curvature[b, a])
    # The score of the first coordinates with the last ones profiled out.
    profiled = curvature[a, a] - onto.T @ curvature[b, a]
    crossed = variance[b, a] - variance[b, b] @ onto
    score = variance[a, a] - onto.T @ variance[b, a] - crossed.T @ onto
    known = cho_solve(cho_factor(0.5 * (score + score.T)), crossed.T).T
    rest = variance[b, b] - known @ crossed.T
    matrix = np.zeros((n, n))
    matrix[a, a] = _shrinking(profiled, score)
    matrix[b, b] = _shrinking(curvature[b, b], rest)
    # What the last estimates are when the first ones are known.
    regression = cho_solve(corner, known @ profiled - curvature[b, a])
    matrix[b, a] = -matrix[b, b] @ regression - onto @ matrix[a, a]
    return matrix


def _shrinking(curvature: FloatArray, variance: FloatArray) -> FloatArray:
    """The map that is symmetric where the curvature is the unit matrix."""
    lower = np.linalg.cholesky(0.5 * (curvature + curvature.T))
    half = solve_triangular(lower, variance, lower=True)
    score = solve_triangular(lower, half.T, lower=True)
    values, vectors = np.linalg.eigh(0.5 * (score + score.T))
    shrink = 1.0 / np.sqrt(np.maximum(values, 1.0))
    back = solve_triangular(lower.T, vectors * shrink)
    return back @ vectors.T @ lower.T
