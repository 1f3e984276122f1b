"""What a measurement looks like before anything is fitted to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from heterodyne._typing import BoolArray, FloatArray, IntArray, StoredArray
from heterodyne.config.parameter_registry import DEFAULT_REGISTRY
from heterodyne.core.rows import row_slices
from heterodyne.data.findings import Finding
from heterodyne.data.readers._common import DT_ARGUMENT
from heterodyne.data.two_time import TwoTimeData

__all__ = ["Finding", "assess", "Levels", "levels", "outlier_frames"]

MIN_FRAMES = 10
FEW_FRAMES = 50
BASELINE_ATOL = 0.05
STEP_RTOL = 1e-3
_SIGMAS = 3.0
_OUTLIER_SIGMAS = 6.0
_OUTLIER_SHARE = 0.05
_WINDOW = 11
_MAD_TO_SIGMA = 1.4826
_MEDIAN_TO_MEAN = 1.2533


def assess(data: TwoTimeData) -> tuple[Finding, ...]:
    """Judge data before a fit.

    Args:
        data: Selected data.

    Returns:
        What reading and selecting noticed, then what the values show. Nothing is
        repeated, so findings may be stored back into the data and assessed again.
    """
    checks = (_time_axis, _frame_count, _angles, _dt_source, _diagonal, _scales, _outliers)
    seen = (finding for check in checks for finding in check(data))
    return tuple(dict.fromkeys((*data.findings, *seen)))


def _time_axis(data: TwoTimeData) -> Iterator[Finding]:
    steps = np.diff(data.t)
    rounding = float(np.spacing(np.float32(np.abs(data.t).max())))
    wrong = np.abs(steps - data.dt) > STEP_RTOL * data.dt + 2 * rounding
    if not wrong.any():
        return
    if wrong.all() and np.ptp(steps) <= STEP_RTOL * data.dt + 2 * rounding:
        yield Finding(
            "dt_contradicts_times",
            "error",
            f"dt is {data.dt:g} s, but the frame times are {steps[0]:g} s apart.",
            "Correct dt or the times; the fit would mix two time scales.",
        )
        return
    k = int(np.argmax(wrong))
    yield Finding(
        "nonuniform_times",
        "error",
        f"The time axis is not uniform: frames {data.frames[k]} and {data.frames[k + 1]} are "
        f"{steps[k]:g} s apart, with dt = {data.dt:g} s; {np.count_nonzero(wrong)} steps differ.",
        "The model needs a uniform grid: select a window with even steps, or interpolate first.",
    )


def _frame_count(data: TwoTimeData) -> Iterator[Finding]:
    count = int(np.count_nonzero(data.fitted))
    if count >= FEW_FRAMES:
        return
    yield Finding(
        "few_frames",
        "error" if count < MIN_FRAMES else "warning",
        f"Only {count} frames are fitted.",
        f"Take a longer window: from {FEW_FRAMES} frames on, rates can be told from their change.",
    )


def _angles(data: TwoTimeData) -> Iterator[Finding]:
    without = [one for one in data.bins if one.phi is None]
    if without:
        yield Finding(
            "angle_missing",
            "error" if data.n_angles > 1 else "warning",
            f"No angle is known for {', '.join(map(str, without))}.",
            "Supply phi in degrees: the velocity acts through the angle to the flow.",
        )
    phi = np.round(np.mod(data.phi, 360.0), 6) % 360.0
    values, counts = np.unique(phi[np.isfinite(phi)], return_counts=True)
    for value in values[counts > 1]:
        names = [str(one) for one, angle in zip(data.bins, phi, strict=True) if angle == value]
        yield Finding(
            "angle_repeated",
            "warning",
            f"The angle {value:g}° comes {len(names)} times: {', '.join(names)}.",
            "Leave out all but one, unless they are separate measurements.",
        )


def _dt_source(data: TwoTimeData) -> Iterator[Finding]:
    if data.provenance.details.get("dt_source") == DT_ARGUMENT:
        yield Finding(
            "dt_given",
            "info",
            f"The source does not give dt; {data.dt:g} s was given by hand.",
            "Check it against the measurement's log: every rate scales with it.",
        )


def _diagonal(data: TwoTimeData) -> Iterator[Finding]:
    if data.diagonal_is_raw is None:
        return
    seen = "measured" if data.diagonal_is_raw else "constant, or computed from its neighbours"
    yield Finding(
        "diagonal_raw" if data.diagonal_is_raw else "diagonal_replaced",
        "info",
        f"The diagonal is {seen}.",
        "Nothing needs to be done; the diagonal is drawn and never fitted.",
    )


@dataclass(frozen=True)
class Levels:
    """Robust levels of one matrix.

    Attributes:
        far: Median over the pairs farthest from the diagonal.
        near: Median over the three diagonals next to the main one.
        far_error: Standard error of ``far``, with one independent value per frame.
        near_error: Standard error of ``near``, likewise.
    """

    far: float
    near: float
    far_error: float
    near_error: float

    @property
    def contrast(self) -> float:
        """Difference of the two levels, a lower bound of the contrast."""
        return self.near - self.far

    @property
    def contrast_error(self) -> float:
        """Standard error of the difference."""
        return float(np.hypot(self.far_error, self.near_error))


def levels(matrix: StoredArray, fitted: BoolArray) -> Levels:
    """Measure the level near the diagonal and far from it.

    Args:
        matrix: Full matrix, shape (N, N).
        fitted: Frames to use, shape (N,), at least four of them.

    Returns:
        The levels. Frames are taken as the independent values, because pairs that share a
        frame share its speckle.
    """
    used = np.flatnonzero(fitted)
    edge = max(2, len(used) // 8)
    corner = matrix[np.ix_(used[:edge], used[-edge:])].astype(np.float64)
    bands = [matrix[used[:-lag], used[lag:]].astype(np.float64) for lag in (1, 2, 3)]
    far_noise, near_noise = _noise(np.diff(corner, axis=1)), _noise(np.diff(bands[0]))
    return Levels(
        far=float(np.median(corner)),
        near=float(np.median(np.concatenate(bands))),
        far_error=_MEDIAN_TO_MEAN * far_noise / np.sqrt(edge),
        near_error=_MEDIAN_TO_MEAN * near_noise / np.sqrt(len(used)),
    )


def _noise(differences: FloatArray) -> float:
    """Standard deviation of noise from differences of neighbours, robust to outliers."""
    return _MAD_TO_SIGMA * float(np.median(np.abs(differences))) / np.sqrt(2)


def _scales(data: TwoTimeData) -> Iterator[Finding]:
    if np.count_nonzero(data.fitted) < MIN_FRAMES:
        return
    measured = [levels(matrix, data.fitted) for matrix in data.c2]
    yield from _baselines(data, measured)
    yield from _contrasts(data, measured)


def _baselines(data: TwoTimeData, measured: list[Levels]) -> Iterator[Finding]:
    bounds = DEFAULT_REGISTRY["offset"]
    span = f"the model's offset may be {bounds.min_bound:g} to {bounds.max_bound:g}"
    low = [x.far < 1 - max(BASELINE_ATOL, _SIGMAS * x.far_error) for x in measured]
    high = [x.far > 1 + max(BASELINE_ATOL, _SIGMAS * x.far_error) for x in measured]
    values = [x.far for x in measured]
    if any(low):
        yield Finding(
            "baseline_low",
            "warning",
            f"Far from the diagonal c2 lies below 1: {_named(data, values, low)} ({span}).",
            "Check the normalisation: no decay brings c2 below its baseline, and c2 - 1 is "
            "a common convention.",
        )
    if any(high):
        yield Finding(
            "baseline_high",
            "warning",
            f"Far from the diagonal c2 lies above 1: {_named(data, values, high)} ({span}).",
            "Either the decay is slower than the window, which is no fault, or the normalisation "
            "is off; the data alone do not tell, so a longer window or its author must.",
        )


def _contrasts(data: TwoTimeData, measured: list[Levels]) -> Iterator[Finding]:
    values = [x.contrast for x in measured]
    limit = DEFAULT_REGISTRY["contrast"].max_bound
    high = [x.contrast > limit + _SIGMAS * x.contrast_error for x in measured]
    none = [x.contrast <= _SIGMAS * x.contrast_error for x in measured]
    if any(high):
        yield Finding(
            "contrast_high",
            "warning",
            f"c2 drops by more than {limit:g} from the diagonal: {_named(data, values, high)}.",
            "Check the normalisation; speckle contrast cannot exceed 1.",
        )
    if any(none):
        yield Finding(
            "contrast_low",
            "warning",
            "c2 near the diagonal is not clearly above c2 far from it: "
            f"{_named(data, values, none)} for the difference.",
            "The decay is faster than a frame, slower than the window, or the signal is too weak; "
            "in each case rates stay unknown, so change the window or leave these bins out.",
        )


def _named(data: TwoTimeData, values: list[float], chosen: list[bool]) -> str:
    return ", ".join(
        f"{value:.4g} in {one}"
        for value, one, take in zip(values, data.bins, chosen, strict=True)
        if take
    )


def _outliers(data: TwoTimeData) -> Iterator[Finding]:
    frames = outlier_frames(data)
    if len(frames) == 0:
        return
    listed = ", ".join(map(str, frames.tolist()))
    yield Finding(
        "outlier_frames",
        "warning",
        f"The mean of c2 with all other frames jumps in frames {listed}.",
        f"Look at them, and if they are faulty exclude them with bad_frames: [{listed}].",
    )


def outlier_frames(data: TwoTimeData) -> IntArray:
    """Find frames whose mean correlation leaves the run of their neighbours.

    Args:
        data: Selected data.

    Returns:
        Numbers of the frames in the file, in order; none where fewer than 20 are fitted.
    """
    used = np.flatnonzero(data.fitted)
    if len(used) < 2 * _WINDOW - 2:
        return np.empty(0, dtype=np.int64)
    odd = np.zeros(len(used), dtype=bool)
    for matrix in data.c2:
        level = levels(matrix, data.fitted)
        means = _means_of_others(matrix, used)
        windows = np.lib.stride_tricks.sliding_window_view(_continued(means), _WINDOW)
        jumps = np.abs(means - np.median(windows, axis=1))
        sigma = _MAD_TO_SIGMA * float(np.median(jumps))
        odd |= jumps > max(_OUTLIER_SIGMAS * sigma, _OUTLIER_SHARE * abs(level.contrast))
    return data.frames[used[odd]]


def _means_of_others(matrix: StoredArray, used: IntArray) -> FloatArray:
    """Mean of the pairs of each of the n used frames with the other n - 1, shape (n,)."""
    sums = np.empty(len(used))
    for rows in row_slices(len(used), len(used)):
        sums[rows] = matrix[np.ix_(used[rows], used)].astype(np.float64).sum(axis=1)
    return (sums - matrix[used, used]) / (len(used) - 1)


def _continued(values: FloatArray) -> FloatArray:
    """Continue a series at both ends by half a window, shape (N,) to (N + 10,).

    Values are reflected through the median of the last three, which keeps a slope
    and does not follow a last value that is itself an outlier.
    """
    half = _WINDOW // 2
    start = 2 * np.median(values[:3]) - values[half + 2 : 2 : -1]
    end = 2 * np.median(values[-3:]) - values[-4 : -half - 4 : -1]
    return np.concatenate([start, values, end])
