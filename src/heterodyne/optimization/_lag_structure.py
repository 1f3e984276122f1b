"""Whether speckles explain what residuals averaged over pairs of the same lag have left.

Errors that speckles make are correlated, so that they average out slowly, and how slowly depends
on the dynamics. A model that misses a part of the signal leaves more. How much speckles alone
leave is simulated with the fitted model, and what a fit would have absorbed of that is taken out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from heterodyne._typing import FloatArray
from heterodyne.core._jax import jnp
from heterodyne.core.simulate import Detector, Experiment, simulate_speckles
from heterodyne.core.speckle_moments import ResidualMoments, lag_share, share_of_lags
from heterodyne.optimization.problem import Problem

# Simulated data sets, their pixels and most modes: shares depend on the dynamics in units of the
# window, and on little else.
_REPEATS, _PIXELS, _MODES = 12, 100, 2
# Fewest and most frames of these, and pairs of all angles that they aim at.
_FEWEST, _FRAMES, _PAIRS = 64, 96, 28_000
_SEED = 20
# Steps of coordinates for derivatives, whose units are about 1.
_STEP = 1e-4
# What a fit cannot tell apart is left out of its derivatives.
_RANK = 1e-7


def beyond_speckles(
    problem: Problem, y: FloatArray, contrast: FloatArray, moments: Sequence[ResidualMoments]
) -> float:
    """Return by how much the share of residuals that depends on the lag exceeds that of speckles.

    Args:
        problem: What was fitted.
        y: Coordinates of the physics parameters of the fit, shape (p,).
        contrast: Contrast of each angle, shape (n_angles,).
        moments: Sums over the residuals of each angle.

    Returns:
        The share above that of simulated speckles, in standard deviations of these.
    """
    shares = _simulated(problem, y, contrast)
    spread = shares.std(ddof=1)
    # Two or three frames have nothing else than lags.
    return float((lag_share(moments) - shares.mean()) / spread) if spread > 0 else 0.0


def _simulated(problem: Problem, y: FloatArray, contrast: FloatArray) -> FloatArray:
    """Shares of simulated data sets, shape (repeats,)."""
    experiment = _experiment(problem, y)
    first, second = np.triu_indices(experiment.n_frames, 1)
    correlation = experiment.correlation()
    seen = _seen(problem, y, correlation)[:, :, first, second]
    # What a fit absorbs is the projection on all that it can change.
    basis, sizes, _ = np.linalg.svd(seen.reshape(len(seen), -1).T, full_matrices=False)
    basis = basis[:, sizes > _RANK * sizes[0]]
    modes = int(np.clip(round(1.0 / max(float(np.mean(contrast)), 1.0 / _MODES)), 1, _MODES))
    detector, shares = Detector(_PIXELS, modes), []
    for k in range(_REPEATS):
        errors = simulate_speckles(experiment, detector, _SEED + k) - 1.0 - correlation / modes
        off = errors[:, first, second].ravel()
        left = (off - basis @ (basis.T @ off)).reshape(len(errors), -1)
        shares.append(np.mean([share_of_lags(one, second - first) for one in left]))
    return np.array(shares)


def _experiment(problem: Problem, y: FloatArray) -> Experiment:
    """The fitted window with the angles, in frames so few that it is simulated quickly."""
    t, data = problem.fitted_times, problem.data
    # Frames that are left out in between leave lags as they are.
    most = int(np.clip(math.sqrt(_PAIRS / data.n_angles), _FEWEST, _FRAMES))
    count = min(round((t[-1] - t[0]) / float(data.dt)) + 1, most)
    dt = float((t[-1] - t[0]) / (count - 1))
    phi = np.asarray(data.phi).tolist()
    parameters = np.asarray(problem.coordinates.forward(jnp.asarray(y))[0])
    return Experiment(parameters, count, dt, float(data.q), phi, start=float(t[0]) - dt)


def _seen(problem: Problem, y: FloatArray, correlation: FloatArray) -> FloatArray:
    """Directions in which a fit can change its matrices, (directions, n_angles, n, n)."""
    steps = _STEP * np.eye(y.size)
    moved = [_experiment(problem, y + step).correlation() - correlation for step in steps]
    scale = np.abs(correlation).max()
    known = [m * (scale / np.abs(m).max()) for m in moved if np.abs(m).max() > 0]
    each = np.eye(len(correlation))[:, :, None, None]
    of_scaling = each * correlation, each * np.ones_like(correlation)
    return np.concatenate([np.reshape(known, (-1, *correlation.shape)), *of_scaling])
