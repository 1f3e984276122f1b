"""Fisher information of the correlation, without evaluating a pair.

For a model c2 = offset + contrast * G and independent errors the Fisher information is
built from the inner products over unique pairs of the functions dG/dy_1 ... dG/dy_p, G
and 1. dG/dy has the rank of G doubled, so these products cost O(p**2 N log N).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from heterodyne._typing import JaxArray
from heterodyne.core._jax import jax, jnp
from heterodyne.core.likelihood import PairData, separable_form
from heterodyne.core.separable import DECAY_OF_ROW, Layout, Terms


class _Tangents(NamedTuple):
    """Terms and their derivatives; the last row of each leading axis is the value."""

    decays: JaxArray  # (p, 3, padded)
    amplitudes: JaxArray  # (p, n_angles, 4, padded)
    terms: Terms


def gram(parameters_of: Callable[[JaxArray], JaxArray], y: JaxArray, data: PairData) -> JaxArray:
    """Inner products over unique pairs of (dG/dy_1, ..., dG/dy_p, G, 1).

    Args:
        parameters_of: Map from coordinates, shape (p,), to the 14 physics parameters.
        y: Coordinates, shape (p,).
        data: Measured pairs; the measured values are not used.

    Returns:
        Array of shape (n_angles, p + 2, p + 2), each sum weighted like the likelihood.
    """

    def terms_of(y: JaxArray) -> Terms:
        return separable_form(parameters_of(y), data)

    terms = terms_of(y)
    jacobian = jax.jacfwd(terms_of)(y)
    tangents = _Tangents(
        jnp.moveaxis(jacobian.decays, -1, 0), jnp.moveaxis(jacobian.amplitudes, -1, 0), terms
    )
    layout = data.layout
    weights = data.weights
    total = _leaf_gram(
        tangents, layout.levels, layout.leaf, data.mask, None if weights is None else weights[-1]
    )
    for level in range(layout.levels):
        rows, columns = _half_tangents(tangents, level)
        if weights is None:
            total += _separable_gram(rows, columns, _half_masks(data.mask, level))
        else:
            total += _dense_gram(_block_functions(rows, columns), weights[level])
    return total


def _half_tangents(tangents: _Tangents, level: int) -> tuple[JaxArray, JaxArray]:
    """Factors of the blocks of a level and their derivatives.

    Returns:
        Rows and columns, each of shape (p + 1, n_angles, 4, 2**level, h): p derivatives,
        then the value.
    """
    count = 2**level
    decays = tangents.terms.decays.reshape(3, count, 2, -1)
    slopes = tangents.decays.reshape(tangents.decays.shape[0], 3, count, 2, -1)
    amplitudes = tangents.terms.amplitudes
    shape = (amplitudes.shape[0], 4, count, 2, decays.shape[-1])
    amplitudes = amplitudes.reshape(shape)
    changes = tangents.amplitudes.reshape(-1, *shape)
    middle, middle_slope = decays[:, :, 1, :1], slopes[:, :, :, 1, :1]
    rows = _product_rule(
        amplitudes[:, :, :, 0],
        changes[:, :, :, :, 0],
        decays[:, :, 0] - middle,
        slopes[:, :, :, 0] - middle_slope,
    )
    columns = _product_rule(
        amplitudes[:, :, :, 1],
        changes[:, :, :, :, 1],
        middle - decays[:, :, 1],
        middle_slope - slopes[:, :, :, 1],
    )
    return rows, columns


def _product_rule(
    amplitude: JaxArray, change: JaxArray, exponent: JaxArray, slope: JaxArray
) -> JaxArray:
    """Derivatives and value of amplitude * exp(exponent), stacked on the first axis."""
    growth = jnp.exp(exponent)[DECAY_OF_ROW]
    value = amplitude * growth
    derivative = change * growth + value * slope[:, None, DECAY_OF_ROW]
    return jnp.concatenate([derivative, value[None]])


def _half_masks(mask: JaxArray, level: int) -> tuple[JaxArray, JaxArray]:
    layout = Layout.of(mask.shape[0])
    halves = jnp.pad(mask, (0, layout.padded - layout.n_frames)).reshape(2**level, 2, -1)
    return halves[:, 0], halves[:, 1]


def _separable_gram(
    rows: JaxArray, columns: JaxArray, masks: tuple[JaxArray, JaxArray]
) -> JaxArray:
    """Inner products over the blocks of one level, shape (n_angles, p + 2, p + 2)."""
    left = jnp.einsum("pakni,qalni->anpkql", rows, rows)
    right = jnp.einsum("pakni,qalni->anpkql", columns, columns)
    # Each function is (its rows) x (columns of G) + (rows of G) x (its columns); for G
    # itself, the last one, that is 2 G.
    products = jnp.einsum("anpkql,ankl->apq", left, right[:, :, -1, :, -1])
    products += jnp.einsum("anpkl,ankql->apq", left[:, :, :, :, -1], right[:, :, -1])
    products += jnp.einsum("ankql,anpkl->apq", left[:, :, -1], right[:, :, :, :, -1])
    products += jnp.einsum("ankl,anpkql->apq", left[:, :, -1, :, -1], right)
    row_sums = jnp.einsum("pakni,ni->pakn", rows, masks[0])
    column_sums = jnp.einsum("pakni,ni->pakn", columns, masks[1])
    with_one = jnp.einsum("pakn,akn->ap", row_sums, column_sums[-1])
    with_one += jnp.einsum("akn,pakn->ap", row_sums[-1], column_sums)
    scale = np.ones(rows.shape[0])
    scale[-1] = 0.5
    products, with_one = products * scale[:, None] * scale, with_one * scale
    count = jnp.broadcast_to((masks[0].sum(1) * masks[1].sum(1)).sum(), with_one[:, :1].shape)
    last = jnp.concatenate([with_one, count], axis=1)
    top = jnp.concatenate([products, with_one[..., None]], axis=-1)
    return jnp.concatenate([top, last[:, None]], axis=1)


def _block_functions(rows: JaxArray, columns: JaxArray) -> JaxArray:
    """dG/dy and G at every pair of a block, shape (p + 1, n_angles, n, h, h)."""
    derivative = jnp.einsum("pakni,aknj->panij", rows[:-1], columns[-1])
    derivative += jnp.einsum("akni,paknj->panij", rows[-1], columns[:-1])
    value = jnp.einsum("akni,aknj->anij", rows[-1], columns[-1])
    return jnp.concatenate([derivative, value[None]])


def _dense_gram(functions: JaxArray, weights: JaxArray) -> JaxArray:
    functions = jnp.concatenate([functions, jnp.ones_like(functions[:1])])
    return jnp.einsum("panij,qanij,anij->apq", functions, functions, weights)


def _leaf_gram(
    tangents: _Tangents, levels: int, leaf: int, mask: JaxArray, weights: JaxArray | None
) -> JaxArray:
    count = 2**levels
    shape = (tangents.terms.amplitudes.shape[0], 4, count, leaf)
    decays = tangents.terms.decays.reshape(3, count, leaf)
    slopes = tangents.decays.reshape(-1, 3, count, leaf)
    exponent = decays - decays[:, :, leaf // 2, None]
    slope = slopes - slopes[:, :, :, leaf // 2, None]
    amplitudes = tangents.terms.amplitudes.reshape(shape)
    changes = tangents.amplitudes.reshape(-1, *shape)
    rows = _product_rule(amplitudes, changes, exponent, slope)
    columns = _product_rule(amplitudes, changes, -exponent, -slope)
    upper = np.triu(np.ones((leaf, leaf), bool), 1)
    functions = jnp.where(upper, _block_functions(rows, columns), 0.0)
    if weights is None:
        fitted = jnp.pad(mask, (0, count * leaf - mask.shape[0])).reshape(count, leaf)
        weights = jnp.broadcast_to(
            upper * fitted[:, :, None] * fitted[:, None, :], (shape[0], count, leaf, leaf)
        )
    return _dense_gram(functions, weights)
