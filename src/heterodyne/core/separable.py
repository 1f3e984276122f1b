"""Sums over all unique pairs of frames at the price of matrix-vector products.

For i < j every term of G is (a function of frame i) times (a function of frame j):
G is a strictly upper triangular semiseparable matrix of rank 4. The sums a Gaussian
likelihood needs, S_dG = sum w d G, S_G = sum w G and S_GG = sum w G**2, therefore cost
one pass over the data and O(N log N) exponentials instead of one per pair.

The factors exp(+F) would overflow, so the triangle is split at midpoints recursively:
a block off the diagonal has its rows before a midpoint m and its columns after it, and
both factors exp(F_i - F_m) and exp(F_m - F_j) are at most 1. The blocks left on the
diagonal are so small that their factors stay in range.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from heterodyne._typing import FloatArray, JaxArray
from heterodyne.core._jax import jnp
from heterodyne.core.frames import FrameFunctions, phase_rate
from heterodyne.core.rates import cumulative_trapezoid
from heterodyne.core.rows import row_slices

_LARGEST_LEAF = 19
# exp(-36) is below the rounding of 1, and 36 * 19 / 2 leaves exp and its square in range.
_LARGEST_STEP = 36.0
# Rows of the factor matrices: reference, sample, cross cosine, cross sine.
DECAY_OF_ROW = np.array([0, 1, 2, 2])


class Layout(NamedTuple):
    """How N frames are cut into blocks.

    Attributes:
        n_frames: N.
        levels: Number of recursive halvings.
        leaf: Frames in each block that is left on the diagonal.
    """

    n_frames: int
    levels: int
    leaf: int

    @classmethod
    def of(cls, n_frames: int) -> Layout:
        """Choose the fewest halvings that leave small diagonal blocks."""
        levels = max(0, math.ceil(math.log2(n_frames / _LARGEST_LEAF)))
        while -(-n_frames // 2**levels) > _LARGEST_LEAF:
            levels += 1
        return cls(n_frames, levels, -(-n_frames // 2**levels))

    @property
    def padded(self) -> int:
        """Number of frames after padding to equal blocks."""
        return self.leaf * 2**self.levels

    def corners(self) -> Iterator[tuple[int, int, int, int]]:
        """Say where each block lies: its level, its number there, first row and first column."""
        for level in range(self.levels + 1):
            count = 2**level
            leaf = level == self.levels
            height = self.padded // (count if leaf else 2 * count)
            for n in range(count):
                row = n * height if leaf else 2 * n * height
                yield level, n, row, row if leaf else row + height

    def split(self, matrix: FloatArray) -> tuple[FloatArray, ...]:
        """Cut the strict upper triangle of (..., N, N) into blocks.

        Returns:
            One array (..., 2**l, h, h) for each level l, h = padded / 2**(l+1), and last
            the diagonal blocks (..., 2**levels, leaf, leaf) with zeros on and below
            their diagonals.
        """
        blocks = self.empty_blocks(*matrix.shape[:-2])
        for rows in row_slices(self.n_frames, self.n_frames):
            self.place(blocks, rows.start, matrix[..., rows, rows.start :])
        return blocks

    def empty_blocks(self, *leading: int) -> tuple[FloatArray, ...]:
        """Return blocks as ``split`` does, all zero, with leading axes of some lengths."""
        sizes = [self.padded // 2 ** (level + 1) for level in range(self.levels)]
        blocks = [_zeros((*leading, 2**k, size, size)) for k, size in enumerate(sizes)]
        return (*blocks, _zeros((*leading, 2**self.levels, self.leaf, self.leaf)))

    def place(self, blocks: tuple[FloatArray, ...], first: int, upper: FloatArray) -> None:
        """Write some rows of the strict upper triangle into blocks.

        Args:
            blocks: What ``empty_blocks`` returned; changed.
            first: First of the m rows.
            upper: The rows from column ``first`` on, shape (..., m, N - first).
        """
        last = first + upper.shape[-2]
        for level, block in enumerate(blocks):
            size = block.shape[-1]
            leaf = level == self.levels
            step = size if leaf else 2 * size
            for k in range(first // step, -(-last // step)):
                low, high = max(first, k * step), min(last, k * step + size)
                if low >= high:
                    continue
                start = low if leaf else k * step + size
                part = upper[..., low - first : high - first, start - first :]
                part = part[..., : (k + 1) * step - start]
                rows = slice(low - k * step, high - k * step)
                begin = start - k * step - (0 if leaf else size)
                columns = slice(begin, begin + part.shape[-1])
                block[..., k, rows, columns] = np.triu(part, 1) if leaf else part


def _zeros(shape: tuple[int, ...]) -> FloatArray:
    """Zeros that JAX takes over without a copy, since they begin at a whole 64 bytes."""
    size = math.prod(shape)
    room = np.zeros(size + 8)
    shift = -room.ctypes.data % 64 // 8
    return room[shift : shift + size].reshape(shape)


class Terms(NamedTuple):
    """The separable form of G at all angles, before any block is chosen.

    Attributes:
        decays: Dimensionless decay exponents of the reference, sample and cross terms,
            not decreasing along the frames, shape (3, padded).
        amplitudes: Factors of the rows per frame, shape (n_angles, 4, padded); zero at
            frames that are not fitted.
    """

    decays: JaxArray
    amplitudes: JaxArray


class PairSums(NamedTuple):
    """Sums over the unique fitted pairs of each angle, shape (n_angles,) each.

    Attributes:
        dg: sum of w d G.
        g: sum of w G.
        gg: sum of w G**2.
    """

    dg: JaxArray
    g: JaxArray
    gg: JaxArray


def separable_terms(
    functions: FrameFunctions,
    q: JaxArray | float,
    dt: JaxArray | float,
    phi: JaxArray,
    mask: JaxArray,
) -> Terms:
    """Factor G into functions of single frames.

    Args:
        functions: Rates and fraction at the N frames.
        q: Wavevector in 1/Å.
        dt: Frame spacing in s.
        phi: Detector angles in degrees, shape (n_angles,).
        mask: 1 for fitted frames and 0 for others, shape (N,).
    """
    layout = Layout.of(mask.shape[0])
    s = functions.fraction
    r = 1.0 - s
    scale = mask / (r**2 + s**2)
    phase = phase_rate(q, phi, functions.phi0)[:, None] * cumulative_trapezoid(
        functions.velocity, dt
    )
    cross = math.sqrt(2.0) * r * s * scale
    shape = (phase.shape[0], 2, mask.shape[0])
    own = jnp.broadcast_to(jnp.stack([r**2 * scale, s**2 * scale]), shape)
    moving = jnp.stack([cross * jnp.cos(phase), cross * jnp.sin(phase)], axis=1)
    amplitudes = jnp.concatenate([own, moving], axis=1)
    padding = layout.padded - layout.n_frames
    return Terms(
        jnp.pad(_decays(functions, q, dt), ((0, 0), (0, padding)), mode="edge"),
        jnp.pad(amplitudes, ((0, 0), (0, 0), (0, padding))),
    )


def _decays(functions: FrameFunctions, q: JaxArray | float, dt: JaxArray | float) -> JaxArray:
    rate = jnp.stack([functions.transport_reference, functions.transport_sample])
    steps = 0.5 * q**2 * dt * (rate[:, 1:] + rate[:, :-1])
    steps = jnp.concatenate([steps, 0.5 * steps.sum(axis=0, keepdims=True)])
    steps = jnp.minimum(steps, _LARGEST_STEP)
    return jnp.pad(jnp.cumsum(steps, axis=1), ((0, 0), (1, 0)))


def _halves(terms: Terms, level: int) -> tuple[JaxArray, JaxArray]:
    """Return the factors of the rows and columns of the blocks of one level.

    Both have the shape (n_angles, 4, 2**level, h).
    """
    count = 2**level
    decays = terms.decays.reshape(3, count, 2, -1)
    middle = decays[:, :, 1, :1]
    before = jnp.exp(decays[:, :, 0] - middle)[DECAY_OF_ROW]
    after = jnp.exp(middle - decays[:, :, 1])[DECAY_OF_ROW]
    amplitudes = terms.amplitudes.reshape(terms.amplitudes.shape[0], 4, count, 2, -1)
    return amplitudes[:, :, :, 0] * before, amplitudes[:, :, :, 1] * after


def _leaf_correlation(terms: Terms, levels: int, leaf: int) -> JaxArray:
    """Return G in the diagonal blocks, shape (n_angles, 2**levels, leaf, leaf)."""
    decays = terms.decays.reshape(3, 2**levels, leaf)
    exponent = (decays - decays[:, :, leaf // 2, None])[DECAY_OF_ROW]
    amplitudes = terms.amplitudes.reshape(terms.amplitudes.shape[0], 4, 2**levels, leaf)
    rows, columns = amplitudes * jnp.exp(exponent), amplitudes * jnp.exp(-exponent)
    g = jnp.einsum("akni,aknj->anij", rows, columns)
    return jnp.where(np.triu(np.ones((leaf, leaf), bool), 1), g, 0.0)


def pair_sums(
    terms: Terms, blocks: tuple[JaxArray, ...], weights: tuple[JaxArray, ...] | None = None
) -> PairSums:
    """Sum w d G, w G and w G**2 over the unique pairs of each angle.

    Args:
        terms: Separable form of G.
        blocks: w d cut by ``Layout.split``, each (n_angles, n, h, h).
        weights: w cut likewise, or None where every pair of fitted frames counts 1.
    """
    levels, leaf = len(blocks) - 1, blocks[-1].shape[-1]
    g = _leaf_correlation(terms, levels, leaf)
    weighted = g if weights is None else weights[-1] * g
    dg = jnp.einsum("anij,anij->a", blocks[-1], g)
    total, square = weighted.sum((1, 2, 3)), (weighted * g).sum((1, 2, 3))
    for level in range(levels):
        rows, columns = _halves(terms, level)
        dg += _bilinear(rows, blocks[level], columns)
        if weights is None:
            total += (rows.sum(3) * columns.sum(3)).sum((1, 2))
            square += _product_sum(rows, rows, columns, columns)
        else:
            total += _bilinear(rows, weights[level], columns)
            square += _weighted_product_sum(rows, rows, weights[level], columns, columns)
    return PairSums(dg, total, square)


def _bilinear(rows: JaxArray, matrix: JaxArray, columns: JaxArray) -> JaxArray:
    # In this order of axes XLA multiplies with the matrix as it lies in memory; with k before
    # i it would copy the transposed matrix at every call.
    product = jnp.einsum("anij,aknj->anik", matrix, columns)
    return jnp.einsum("anik,akni->a", product, rows)


def _product_sum(
    rows: JaxArray, rows2: JaxArray, columns: JaxArray, columns2: JaxArray
) -> JaxArray:
    left = jnp.einsum("akni,alni->ankl", rows, rows2)
    right = jnp.einsum("aknj,alnj->ankl", columns, columns2)
    return jnp.einsum("ankl,ankl->a", left, right)


def _weighted_product_sum(
    rows: JaxArray, rows2: JaxArray, weights: JaxArray, columns: JaxArray, columns2: JaxArray
) -> JaxArray:
    shape = (rows.shape[0], 16, *rows.shape[2:])
    left = (rows[:, :, None] * rows2[:, None]).reshape(shape)
    right = (columns[:, :, None] * columns2[:, None]).reshape(shape)
    return _bilinear(left, weights, right)


def multiply(terms: Terms, vectors: JaxArray) -> JaxArray:
    """Multiply G, with zeros on its diagonal and where frames are not fitted, with vectors.

    Args:
        terms: Separable form of G.
        vectors: Columns to multiply with, shape (n_angles, N, k).

    Returns:
        Array of the shape of ``vectors``.
    """
    layout = Layout.of(vectors.shape[1])
    v = jnp.pad(vectors, ((0, 0), (0, layout.padded - layout.n_frames), (0, 0)))
    n_angles, _, k = v.shape
    g = _leaf_correlation(terms, layout.levels, layout.leaf)
    leaves = v.reshape(n_angles, -1, layout.leaf, k)
    total = jnp.einsum("anij,anjv->aniv", g + g.swapaxes(2, 3), leaves).reshape(v.shape)
    for level in range(layout.levels):
        rows, columns = _halves(terms, level)
        before, after = jnp.moveaxis(v.reshape(n_angles, 2**level, 2, -1, k), 2, 0)
        upper = _outer_times(rows, columns, after)
        lower = _outer_times(columns, rows, before)
        total += jnp.stack([upper, lower], axis=2).reshape(v.shape)
    return total[:, : layout.n_frames]


def _outer_times(left: JaxArray, right: JaxArray, vectors: JaxArray) -> JaxArray:
    """Sum of the outer products of left and right factors, times vectors."""
    return jnp.einsum("akni,aknv->aniv", left, jnp.einsum("aknj,anjv->aknv", right, vectors))
