"""Fewer frames that stand for all, for a search that costs far less.

Groups of m neighbouring frames become one frame, and c2 between two groups is the mean over
their m pairs of the same lag. So decays and phases, which depend on the lag, are not smeared,
and where rates change little over m frames the landscape of minima stays. Only the search
uses such data; what it finds is optimised on all pairs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from heterodyne._typing import BoolArray, FloatArray, JaxArray
from heterodyne.core.likelihood import PairData, pack_pairs
from heterodyne.core.separable import Layout
from heterodyne.optimization.nlsq.starts import decay_lag
from heterodyne.optimization.problem import Problem

# Fewer frames than this are searched as they are.
_FRAMES = 256
# Groups that a decay must span for a search.
_PER_DECAY = 4.0
# Share of the frames that whole groups must hold.
_LEAST_SHARE = 0.8


class Groups(NamedTuple):
    """Neighbouring frames that become one.

    Attributes:
        first: First frame of the first group.
        size: Number of frames in a group.
        whole: Which groups consist of fitted frames, shape (count,).
    """

    first: int
    size: int
    whole: BoolArray

    @property
    def number(self) -> int:
        """Number of groups."""
        return self.whole.size

    def times(self, data: PairData) -> FloatArray:
        """Mean time of each group in s, shape (count,)."""
        t = np.asarray(data.t)[self.first : self.first + self.number * self.size]
        return t.reshape(self.number, self.size).mean(axis=1)

    def packed(self, c2: FloatArray, data: PairData, weights: FloatArray | None = None) -> PairData:
        """Pack averages between groups, taken from data.

        Args:
            c2: Averages, shape (n_angles, count, count).
            data: What they were taken from.
            weights: Their weights, likewise; None where all count 1.
        """
        return pack_pairs(
            c2,
            self.times(data),
            float(data.q),
            float(data.dt) * self.size,
            np.asarray(data.phi),
            mask=self.whole,
            weights=weights,
        )


def grouped_frames(data: PairData, per_decay: float = _PER_DECAY) -> Groups | None:
    """Choose groups over which rates change little.

    Args:
        data: Measured pairs.
        per_decay: Number of groups that a decay must span.

    Returns:
        The groups; None where there are few frames, decays are fast or frames are missing.
    """
    fitted = np.flatnonzero(np.asarray(data.mask) > 0)
    size = min(-(-fitted.size // _FRAMES), int(decay_lag(data) / per_decay))
    if size < 2:
        return None
    first = int(fitted[0])
    count = (data.t.shape[0] - first) // size
    mask = np.asarray(data.mask)[first : first + count * size]
    whole = mask.reshape(count, size).min(axis=1) > 0
    if whole.sum() * size < _LEAST_SHARE * fitted.size:
        return None
    return Groups(first, size, whole)


def coarsened(problem: Problem) -> Problem:
    """Return a problem in the same coordinates on fewer frames.

    Args:
        problem: Data, coordinates and scaling.

    Returns:
        The problem itself where frames cannot be grouped.
    """
    groups = grouped_frames(problem.data)
    if groups is None:
        return problem
    return replace(problem, data=_averaged(problem.data, groups))


def _averaged(data: PairData, groups: Groups) -> PairData:
    """Average pairs of the same lag between groups of frames."""
    size = groups.size
    values = _summed(data.blocks, data.layout, groups)
    weights = None
    if data.weights is None:
        values /= size
    else:
        weights = _summed(data.weights, data.layout, groups)
        values = np.divide(values, weights, out=np.zeros_like(values), where=weights > 0)
    return groups.packed(values + np.asarray(data.baseline)[:, None, None], data, weights)


def _summed(blocks: tuple[JaxArray, ...], layout: Layout, groups: Groups) -> FloatArray:
    """Sum what ``Layout.split`` has cut over pairs of the same lag of all pairs of groups.

    Returns:
        Array of shape (n_angles, count, count), its lower triangle zero.
    """
    first, size, count = groups.first, groups.size, groups.number
    total = np.zeros((blocks[0].shape[0], count, count))
    parts = [np.asarray(block) for block in blocks]
    for level, n, row, column in layout.corners():
        part = parts[level][:, n]
        height = part.shape[-1]
        for k in range(size):
            rows, to_rows = _strided(row, height, first + k, size, count)
            columns, to_columns = _strided(column, height, first + k, size, count)
            total[:, to_rows, to_columns] += part[:, rows, columns]
    return total


def _strided(start: int, height: int, origin: int, size: int, count: int) -> tuple[slice, slice]:
    """Which of the frames start ... start + height belong to origin + size * group.

    Returns:
        Their places among the frames, and their groups.
    """
    low = max(0, -(-(start - origin) // size))
    high = min(count, -(-(start + height - origin) // size))
    high = max(low, high)
    begin = origin + low * size - start
    return slice(begin, begin + (high - low) * size, size), slice(low, high)
