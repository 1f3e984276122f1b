"""Points in two groups."""

from __future__ import annotations

import numpy as np
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import pdist, squareform

from heterodyne._typing import BoolArray, FloatArray


def upper_group(points: FloatArray) -> BoolArray:
    """Divide points into two groups with small sums of squares within.

    On one axis the sum is the smallest that there is; on several the groups are those of
    2-means, started at the two points farthest apart. Points that hardly differ are divided
    as well, those that do not differ are one group.

    Args:
        points: Points, shape (K, n).

    Returns:
        Whether each point is in the group that is higher on average, shape (K,).
    """
    if len(points) < 2 or np.ptp(points, axis=0).max() == 0:
        return np.zeros(len(points), bool)
    if points.shape[1] == 1:
        return _cut(points[:, 0])
    apart = squareform(pdist(points))
    farthest = np.unravel_index(np.argmax(apart), apart.shape)
    centres, labels = kmeans2(points, points[list(farthest)], minit="matrix", missing="raise")
    return labels != int(np.argmin(centres.mean(axis=1)))


def _cut(values: FloatArray) -> BoolArray:
    """Which values lie above the best of all cuts, shape (K,)."""
    order = np.argsort(values)
    ordered = values[order]
    spread = [
        ordered[:k].var() * k + ordered[k:].var() * (len(values) - k) for k in range(1, len(values))
    ]
    high = np.zeros(len(values), bool)
    high[order[1 + int(np.argmin(np.array(spread))) :]] = True
    return high
