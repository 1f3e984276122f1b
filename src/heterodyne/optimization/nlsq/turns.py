"""Phases that a fit has missed, read off its residuals.

If the phase turns often, the sum of squares falls in a narrow valley only, which random points
seldom meet. But the cross term cos(phase(t2) - phase(t1)) lives at lags within the decay, where
the phase runs at the local rate q v cos(phi + phi0). So spectra over small lags, one for each
angle and part of the window, show it from anywhere: a matched filter at each rate, then a scan
over v and phi0 that sums what the filters found along the rates to be expected.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from heterodyne._typing import BoolArray, FloatArray, IntArray
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import Parameter
from heterodyne.core.likelihood import PairData
from heterodyne.optimization.nlsq.band import Band, band_at
from heterodyne.optimization.nlsq.starts import decay_lag
from heterodyne.optimization.problem import Problem

# Lags that are looked at: these many decays, within these bounds.
_DECAYS, _FEWEST, _MOST = 2.0, 24, 64
# Parts of the window, and frames in each.
_SEGMENTS, _FRAMES = 16, 4
# Decays over all lags: those of cross terms, and those that need no phase.
_OF_TEMPLATES = (0.8, 2.0, 5.0)
_SMOOTH = np.array([0.0, 1.0, 4.0, 10.0])
# Mean and standard deviation of the largest of the gains from noise that the templates have,
# where amplitudes below zero gain nothing.
_OF_NOISE, _SPREAD = 0.66, 1.2
# The scan chooses the best of many sums, so that noise reaches some standard deviations.
_DEVIATIONS = 9.0
_STEEPEST = 1.5
# Steps of beta, and of phi0 in degrees, over those of the rate.
_PER_RATE = (1.2, 30.0)
_MOST_STEPS = 120
_LOOKED_AT = 300
_PEAKS = 2
# Distance of two peaks in steps of the rate.
_APART = 4.0
_INDEX = {name: k for k, name in enumerate(PHYSICS_PARAM_NAMES)}


class Spectra(NamedTuple):
    """What a cross term of one rate in one part of the window would gain.

    Attributes:
        gain: Gain in units of the variance of the residuals, 0 on average in noise, shape
            (n_angles, n_segments, n_rates).
        amplitude: Amplitude of the term at lag 0, likewise.
        times: Middle of each part in s, shape (n_segments,).
        step: Difference of neighbouring rates in rad per frame; the first is 0.
        current: What the cross term that the model has gains in all parts.
    """

    gain: FloatArray
    amplitude: FloatArray
    times: FloatArray
    step: float
    current: float

    @property
    def least(self) -> float:
        """Sum of gains from which on another cross term is better than the model's."""
        n_angles, n_segments, _ = self.gain.shape
        return self.current + _DEVIATIONS * _SPREAD * np.sqrt(n_angles * n_segments)


class Turn(NamedTuple):
    """A motion that turns the phase.

    Attributes:
        speed: q v dt at the reference time in rad per frame.
        angle: phi0 in degrees.
        exponent: beta.
        share: Amplitude of the cross term at lag 0 over the contrast.
    """

    speed: float
    angle: float
    exponent: float
    share: float


class _Grid(NamedTuple):
    """Motions that are compared.

    Attributes:
        speeds: q v dt at the reference time in rad per frame, shape (n_speeds,).
        angles: phi0 in degrees, shape (n_phi0,).
        exponents: beta, shape (n_exponents,).
        growth: v over that at the reference time, shape (n_exponents, n_segments).
        slopes: |cos(phi + phi0)|, shape (n_angles, n_phi0).
        allowed: Whether v0 is within its bounds, shape (n_speeds, n_exponents).
    """

    speeds: FloatArray
    angles: FloatArray
    exponents: FloatArray
    growth: FloatArray
    slopes: FloatArray
    allowed: BoolArray


def turned_points(
    problem: Problem, parameters: FloatArray, contrast: FloatArray, offset: FloatArray
) -> FloatArray:
    """Look for a phase that explains more than the one of a fit.

    Args:
        problem: Data and bounds.
        parameters: The 14 physics parameters of the fit.
        contrast: Contrast of each angle, shape (n_angles,).
        offset: Offset of each angle, shape (n_angles,).

    Returns:
        Parameters of points with such a phase, inside their bounds, shape (n, 14). There are
        none where no other phase explains significantly more.
    """
    data, space = problem.data, problem.coordinates.space
    n = data.t.shape[0]
    n_lags = int(min(np.clip(_DECAYS * decay_lag(data), _FEWEST, _MOST), n // 2))
    if not space["v0"].vary or n_lags < _FEWEST // 2:
        return np.empty((0, len(PHYSICS_PARAM_NAMES)))
    found = spectra(band_at(parameters, contrast, offset, data, n_lags), data)
    turns = peaks(found, _grid(found, problem, parameters), contrast)
    points = [_moved(problem, parameters, turn) for turn in turns]
    return np.concatenate([np.empty((0, len(PHYSICS_PARAM_NAMES))), *points])


def spectra(band: Band, data: PairData) -> Spectra:
    """Fit a cross term to the residuals of each angle in each part of the window.

    What a fit may be wrong about without any phase, a constant and decays, is left out.

    Args:
        band: Residuals at small lags.
        data: Measured pairs.
    """
    n_lags = band.weights.shape[-1]
    lags = np.arange(1.0, n_lags + 1.0)
    edges = _edges(data)
    root = np.sqrt(_by_segment(band.weights, edges))
    basis = np.linalg.qr(root[..., None] * np.exp(-lags[:, None] * _SMOOTH / n_lags))[0]
    whole, without = (
        _rough(np.divide(x, root, out=np.zeros_like(root), where=root > 0), basis)
        for x in (_by_segment(band.whole, edges), _by_segment(band.without, edges))
    )
    spare = np.maximum((root > 0).sum(axis=2) - len(_SMOOTH), 0).sum(axis=1)
    # Unlike the noise of the data this counts errors that neighbouring pairs share.
    level = np.maximum((whole**2).sum(axis=(1, 2)) / np.maximum(spare, 1), 1e-300)
    current = ((without**2 - whole**2).sum(axis=(1, 2)) / level).sum()
    step = np.pi / (2 * n_lags)
    waves = np.cos(np.outer(lags, step * np.arange(2 * n_lags + 1)))
    gain = np.zeros((*root.shape[:2], waves.shape[1]))
    amplitude = np.zeros_like(gain)
    for rate in _OF_TEMPLATES:
        template = np.exp(-lags * rate / n_lags)[:, None] * waves
        full = root**2 @ template**2
        inside = (root[..., None] * basis).swapaxes(2, 3) @ template
        power = np.maximum(full - (inside**2).sum(axis=2), 0.05 * full + 1e-300)
        line = np.maximum((root * without) @ template, 0.0)
        single = line**2 / power / level[:, None, None]
        better = single > gain
        gain = np.where(better, single, gain)
        amplitude = np.where(better, line / power, amplitude)
    times = float(np.asarray(data.t)[0]) + float(data.dt) * 0.5 * (edges[1:] + edges[:-1] - 1.0)
    return Spectra(gain - _OF_NOISE, amplitude, times, step, float(current))


def _rough(x: FloatArray, basis: FloatArray) -> FloatArray:
    """Remove what lies in a basis, shapes (.., L) and (.., L, k)."""
    inside = (basis * x[..., None]).sum(axis=-2, keepdims=True)
    return x - (basis * inside).sum(axis=-1)


def _edges(data: PairData) -> FloatArray:
    """Limits of the parts of the window in frames, shape (n_segments + 1,)."""
    fitted = np.flatnonzero(np.asarray(data.mask) > 0)
    count = int(np.clip(fitted.size // _FRAMES, 1, _SEGMENTS))
    return np.linspace(fitted[0], fitted[-1] + 1.0, count + 1)


def _by_segment(band: FloatArray, edges: FloatArray) -> FloatArray:
    """Sum over the pairs whose middle is in a part, (.., N, L) to (.., n_segments, L)."""
    n, n_lags = band.shape[-2:]
    total = np.concatenate([np.zeros_like(band[:, :1]), band.cumsum(axis=1)], axis=1)
    begin = np.ceil(edges[:, None] - 0.5 * np.arange(1, n_lags + 1)).astype(int)
    return np.diff(total[:, np.clip(begin, 0, n), np.arange(n_lags)], axis=1)


def _grid(found: Spectra, problem: Problem, parameters: FloatArray) -> _Grid:
    """Choose motions within the bounds; what is fixed keeps its value."""
    data, space, phi0 = problem.data, problem.coordinates.space, problem.coordinates.space["phi0"]
    exponents = _steps(space["beta"], _PER_RATE[0] * found.step, -_STEEPEST, _STEEPEST)
    # Half a turn on, cos(phase) is the same; with one angle phi0 only scales the speed.
    angles = parameters[_INDEX["phi0"]][None]
    if data.n_angles > 1:
        middle = phi0.prior.mean
        angles = _steps(phi0, _PER_RATE[1] * found.step, middle - 90.0, middle + 90.0)
    slopes = np.abs(np.cos(np.deg2rad(np.asarray(data.phi)[:, None] + angles)))
    speeds = found.step * np.arange(found.gain.shape[2]) / max(float(slopes.max()), 1e-3)
    time = problem.coordinates.log_time
    v0 = speeds[:, None] / (float(data.q) * float(data.dt)) * time**-exponents
    allowed = (v0 > space["v0"].min) & (v0 < space["v0"].max)
    growth = (found.times / time) ** exponents[:, None]
    return _Grid(speeds, angles, exponents, growth, slopes, allowed)


def _steps(parameter: Parameter, step: float, low: float, high: float) -> FloatArray:
    """Values of a parameter from low to high, as far as its bounds allow."""
    if not parameter.vary:
        return np.array([parameter.value])
    low, high = np.clip([low, high], parameter.min, parameter.max)
    return np.linspace(low, high, int(min(np.ceil((high - low) / step), _MOST_STEPS)) + 1)


def _scores(found: Spectra, grid: _Grid) -> FloatArray:
    """Sum the gains along the rates of each motion, (n_speeds, n_phi0, n_exponents)."""
    rates = found.step * np.arange(found.gain.shape[2])
    # Parts of one angle depend on its rate and beta alone, so they are summed once for all phi0.
    by_rate = np.zeros((len(found.gain), rates.size, grid.exponents.size))
    for k in range(found.times.size):
        by_rate += found.gain[:, k][:, _nearest(rates[:, None] * grid.growth[:, k], found.step)]
    scores = np.zeros((grid.speeds.size, grid.angles.size, grid.exponents.size))
    for slopes, sums in zip(grid.slopes, by_rate, strict=True):
        scores += sums[_nearest(grid.speeds[:, None] * slopes, found.step)]
    return np.where(grid.allowed[:, None], scores, -np.inf)


def peaks(found: Spectra, grid: _Grid, contrast: FloatArray) -> list[Turn]:
    """The best motions that differ, best first, of those that gain significantly.

    Args:
        found: Spectra.
        grid: Motions.
        contrast: Contrast of each angle, shape (n_angles,).
    """
    scores = _scores(found, grid)
    values = scores.ravel()
    count = min(_LOOKED_AT, values.size)
    best = np.argpartition(values, values.size - count)[values.size - count :]
    best = best[values[best] > found.least]
    i, j, k = np.unravel_index(best[np.argsort(-values[best])], scores.shape)
    local = grid.speeds[i, None, None] * grid.slopes[:, j].T[:, :, None] * grid.growth[k][:, None]
    at = _nearest(local, found.step)
    chosen: list[int] = []
    for n in range(best.size):
        if len(chosen) < _PEAKS and all(np.abs(at[n] - at[m]).mean() > _APART for m in chosen):
            chosen.append(n)
    return [
        Turn(
            float(grid.speeds[i[n]]),
            float(grid.angles[j[n]]),
            float(grid.exponents[k[n]]),
            _share(found, at[n], contrast),
        )
        for n in chosen
    ]


def _share(found: Spectra, at: IntArray, contrast: FloatArray) -> float:
    """Amplitude over contrast at some rates, those that gain most weighted most.

    Args:
        found: Spectra.
        at: Places of the rates, shape (n_angles, n_segments).
        contrast: Contrast of each angle, shape (n_angles,).
    """
    where = (*np.ogrid[: at.shape[0], : at.shape[1]], at)
    shares = found.amplitude[where] / np.maximum(contrast, 1e-3)[:, None]
    return float(np.average(shares, weights=np.maximum(found.gain[where], 0.0)))


def _nearest(rates: FloatArray, step: float) -> IntArray:
    """Which of the rates from 0 to half a turn per frame is the same at whole lags."""
    folded = np.abs(np.remainder(rates + np.pi, 2.0 * np.pi) - np.pi)
    return np.rint(folded / step).astype(int)


def _moved(problem: Problem, parameters: FloatArray, turn: Turn) -> FloatArray:
    """Points with a motion and the fractions that may go with it, shape (n, 14)."""
    space, unit = problem.coordinates.space, float(problem.data.q) * float(problem.data.dt)
    v0 = turn.speed / unit * problem.coordinates.log_time**-turn.exponent
    # The share is 2 x**2 / (1 + x**2)**2 in the ratio x of the amplitudes of the components,
    # whichever is the larger. What a fit without the phase says about them may be wrong.
    root = min(1.0, np.sqrt(2.0 * turn.share))
    smaller = 0.5 * (1.0 - np.sqrt((1.0 - root) / (1.0 + root)))
    varying = [name for name in ("f0", "f3") if space[name].vary]
    fixed = sum(space[name].value for name in ("f0", "f3") if name not in varying)
    moved = np.tile(parameters, (3 if varying else 1, 1))
    motion = [_INDEX[name] for name in ("v0", "beta", "v_offset", "phi0")]
    moved[:, motion] = v0, turn.exponent, 0.0, turn.angle
    for row, fraction in zip(moved[1:], (smaller, 1.0 - smaller), strict=False):
        row[_INDEX["f1"]] = 0.0
        for name in varying:
            row[_INDEX[name]] = (fraction - fixed) / len(varying)
    return problem.coordinates.inside(moved)
