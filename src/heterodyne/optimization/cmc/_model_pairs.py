"""What NumPyro models of the correlation observe: whole matrices, or lists of pairs.

Both count every unique pair i < j once. The diagonal and frames at t = 0 are not fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpyro
import numpyro.distributions as dist

from heterodyne._errors import DataError
from heterodyne._log import get_logger
from heterodyne._typing import ArrayLike, FloatArray, IntArray, JaxArray
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jnp
from heterodyne.core.correlation import correlate_pairs
from heterodyne.core.frames import frame_functions
from heterodyne.core.heterodyne_model import HeterodyneModel
from heterodyne.core.likelihood import (
    PairData,
    fitted_frames,
    log_likelihood_of_squares,
    pack_pairs,
    sum_of_squares,
)
from heterodyne.core.physics_cmc import ShardGrid
from heterodyne.core.traced import traced
from heterodyne.data.arrays import from_arrays
from heterodyne.optimization.cmc._array_checks import finite, of_shape
from heterodyne.optimization.cmc._pair_split import UniquePairs, pair_keys

_LOG = get_logger(__name__)


class Pairs(Protocol):
    """Measured pairs that a model can be held against."""

    @property
    def n_angles(self) -> int:
        """Number of detector angles."""
        ...

    def observe(
        self, parameters: JaxArray, contrast: JaxArray, offset: JaxArray, sigma: JaxArray
    ) -> None:
        """Add the log likelihood of independent normal errors to the model that runs.

        Args:
            parameters: The 14 physics parameters in canonical order.
            contrast: Contrast of each angle, shape (n_angles,).
            offset: Offset of each angle, shape (n_angles,).
            sigma: Standard deviation of the errors.
        """
        ...


@dataclass(frozen=True, eq=False)
class MatrixPairs:
    """All pairs of whole matrices, through the separable kernel (site ``log_likelihood``).

    Attributes:
        data: Pairs in the form that the kernel reads.
    """

    data: PairData

    @property
    def n_angles(self) -> int:
        """Number of detector angles."""
        return self.data.n_angles

    def observe(
        self, parameters: JaxArray, contrast: JaxArray, offset: JaxArray, sigma: JaxArray
    ) -> None:
        """See ``Pairs.observe``."""
        squares = sum_of_squares(parameters, contrast, offset, self.data).sum()
        value = log_likelihood_of_squares(squares, sigma, self.data.n_pairs.sum())
        numpyro.factor("log_likelihood", value)


@dataclass(frozen=True, eq=False)
class ListedPairs:
    """Chosen pairs, evaluated one by one (observed site ``obs``).

    Attributes:
        t: Frame times in s, shape (N,).
        q: Wavevector in 1/Å.
        dt: Frame spacing in s.
        phi: Detector angles in degrees, shape (n_angles,).
        angle: Index of the angle of each point, shape (n,).
        i: Frame of the first time of each point, shape (n,).
        j: Frame of the second time, shape (n,).
        values: Measured correlation, shape (n,).
        weights: 1 over the number of points of the same pair, shape (n,).
    """

    t: FloatArray
    q: float
    dt: float
    phi: FloatArray
    angle: IntArray
    i: IntArray
    j: IntArray
    values: FloatArray
    weights: FloatArray

    @property
    def n_angles(self) -> int:
        """Number of detector angles."""
        return self.phi.size

    def observe(
        self, parameters: JaxArray, contrast: JaxArray, offset: JaxArray, sigma: JaxArray
    ) -> None:
        """See ``Pairs.observe``."""
        functions = frame_functions(parameters, jnp.asarray(self.t))
        phi = jnp.asarray(self.phi[self.angle])
        g = correlate_pairs(functions, self.i, self.j, self.q, self.dt, phi)
        expected = offset[self.angle] + contrast[self.angle] * g
        with numpyro.handlers.scale(scale=self.weights):
            numpyro.sample("obs", dist.Normal(expected, sigma), obs=jnp.asarray(self.values))


def grid_of(t: ArrayLike, q: float, dt: float, space: ParameterSpace) -> HeterodyneModel:
    """Return frame times, wavevector and spacing as plain arrays and numbers.

    Args:
        t: Frame times in s, equally spaced, shape (N,).
        q: Wavevector in 1/Å.
        dt: Frame spacing in s.
        space: Values, bounds and priors.

    Raises:
        ConfigError: A time axis, q or dt that cannot be used.
    """
    return HeterodyneModel(np.asarray(t, float), float(q), float(dt), space)


def matrix_pairs(grid: HeterodyneModel, c2: ArrayLike, phi: ArrayLike) -> MatrixPairs:
    """Take all unique pairs of symmetric matrices.

    Args:
        grid: Frame times, wavevector and frame spacing.
        c2: Measured correlation, shape (N, N) or (n_angles, N, N).
        phi: Detector angles in degrees, a number or shape (n_angles,).

    Raises:
        DataError: Shapes that do not match, halves that differ, NaN in a fitted frame.
    """
    angles = _angles(phi)
    matrices = np.asarray(c2, float)
    matrices = matrices[None] if matrices.ndim == 2 else matrices
    shape = (angles.size, grid.t.size, grid.t.size)
    if matrices.shape != shape:
        raise DataError(
            f"the shape is {np.shape(c2)} for {angles.size} angles and {grid.t.size} times",
            where="c2_data",
            allowed=f"two-time matrices, {shape[1:]} for one angle or {shape}",
            remedy="For chosen pairs give shard_grid as well",
        )
    data = from_arrays(matrices, q=grid.q, phi=angles, t=grid.t, dt=grid.dt, source="c2_data")
    mask = np.asarray(data.frame_mask)
    return MatrixPairs(pack_pairs(data.c2, data.t, grid.q, grid.dt, angles, mask=mask))


def grid_pairs(
    grid: HeterodyneModel,
    values: Any,
    phi: ArrayLike,
    shard_grids: Sequence[ShardGrid],
) -> ListedPairs:
    """Take the pairs that grids name, one grid per angle.

    Args:
        grid: Frame times, wavevector and frame spacing.
        values: Rows with the measured correlation of each angle at the pairs of its grid,
            shape (n_pairs,) each.
        phi: Detector angles in degrees, a number or shape (n_angles,).
        shard_grids: The pairs of each angle.

    Raises:
        DataError: Numbers or shapes that do not match, or a grid of other frame times.
    """
    angles = _angles(phi)
    if not len(values) == len(shard_grids) == angles.size:
        raise DataError(
            f"{len(shard_grids)} grids and {len(values)} rows of data for {angles.size} angles",
            where="shard_grid",
            allowed="one grid and one row of data per angle",
        )
    rows = [finite(row, "c2_data") for row in values]
    for row, pairs in zip(rows, shard_grids, strict=True):
        of_shape(row, np.shape(pairs.i1), "c2_data", "i1 of its grid")
        times = np.asarray(pairs.t, float)
        if times.shape != grid.t.shape or not np.allclose(times, grid.t, 0.0, 1e-3 * grid.dt):
            raise DataError(
                f"the grid has {times.size} frame times that are not the {grid.t.size} of t",
                where="shard_grid",
                remedy="Make it by precompute_shard_grid with the t of the model",
            )
    index = np.repeat(np.arange(angles.size), [row.size for row in rows])
    ends = ([getattr(g, name) for g in shard_grids] for name in ("i1", "i2"))
    i, j = (np.concatenate([_concrete(x, "shard_grid") for x in parts]) for parts in ends)
    return listed_pairs(grid, np.concatenate(rows), angles, index, i, j)


def listed_pairs(
    grid: HeterodyneModel,
    values: ArrayLike,
    phi: ArrayLike,
    angle: ArrayLike,
    i: ArrayLike,
    j: ArrayLike,
) -> ListedPairs:
    """Take points by the frames of their two times.

    Points of the same pair, such as (i, j) and (j, i), share the weight of one pair.

    Args:
        grid: Frame times, wavevector and frame spacing.
        values: Measured correlation, shape (n,).
        phi: Detector angles in degrees, shape (n_angles,).
        angle: Index of the angle of each point, shape (n,).
        i: Frame of the first time of each point, counted from 0, shape (n,).
        j: Frame of the second time, shape (n,).

    Raises:
        DataError: Shapes that do not match, indices out of range, values that are not
            finite at a fitted point, no point to fit, or an array that JAX traces.
    """
    angles, n_frames = _angles(phi), grid.t.size
    raw = _concrete(values, "data")
    if raw.ndim != 1:
        raise DataError(f"the shape is {raw.shape}", where="data", allowed="(n_total,)")
    limits = {"phi_indices": angles.size, "i1_indices": n_frames, "i2_indices": n_frames}
    index = [
        _indices(x, raw.shape, limit, name)
        for x, (name, limit) in zip((angle, i, j), limits.items(), strict=True)
    ]
    frames = fitted_frames(grid.t) > 0
    used = (index[1] != index[2]) & frames[index[1]] & frames[index[2]]
    if not used.any():
        raise DataError(
            f"none of {raw.size} points is left to fit",
            where="i1_indices, i2_indices",
            allowed="points off the diagonal and later than t = 0",
        )
    if not used.all():
        left = int(np.count_nonzero(~used))
        _LOG.info("%d of %d points lie on the diagonal or at t = 0: not fitted.", left, raw.size)
    angle_of, first, second = (x[used] for x in index)
    unique = UniquePairs.of(pair_keys(angle_of, first, second, n_frames))
    weights = 1.0 / np.bincount(unique.of_point)[unique.of_point]
    kept = finite(raw[used], "data")
    return ListedPairs(grid.t, grid.q, grid.dt, angles, angle_of, first, second, kept, weights)


def _angles(phi: ArrayLike) -> FloatArray:
    angles = np.atleast_1d(finite(_concrete(phi, "phi"), "phi"))
    if angles.ndim != 1 or angles.size == 0:
        raise DataError(
            f"the shape is {angles.shape}", where="phi", allowed="a number, or (n_phi,)"
        )
    return angles


def _indices(values: ArrayLike, shape: tuple[int, ...], limit: int, where: str) -> IntArray:
    found = _concrete(values, where)
    of_shape(found, shape, where, "data")
    if found.dtype.kind not in "iu":
        raise DataError(f"the type is {found.dtype}", where=where, allowed="whole numbers")
    wrong = found[(found < 0) | (found >= limit)]
    if wrong.size:
        raise DataError(f"index {wrong[0]}", where=where, allowed=f"0 to {limit - 1}")
    return found.astype(np.int64)


def _concrete(values: Any, where: str) -> np.ndarray:
    """Return an array that exists, not one that JAX will compute."""
    if traced(values):
        raise DataError(
            "the array is traced by JAX, and what counts once cannot be told from it",
            where=where,
            remedy="Bind the data outside of jit, with get_heterodyne_pooled_model_for_mode",
        )
    return np.asarray(values)
