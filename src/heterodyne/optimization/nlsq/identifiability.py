"""What the data inform, in numbers and in words.

The Fisher information is expressed in units of the prior widths (logarithms for
log-normal priors). An eigenvalue is then the information of the data on a direction over
that of the prior: far above 1 the data decide, below 1 the prior does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heterodyne._typing import FloatArray
from heterodyne.config.parameter_space import ParameterSpace, PriorKind
from heterodyne.optimization.prior import prior_width

_MENTIONED = 0.25


@dataclass(frozen=True)
class Identifiability:
    """Directions in parameter space, from the most to the least informed.

    Attributes:
        names: The varying physics parameters, shape (p,).
        information: Information of the data over that of the prior, shape (p,).
        directions: Unit vectors in prior widths as columns, shape (p, p).
        contraction: 1 - posterior width / prior width of each parameter in the normal
            approximation: 1 if the data decide, 0 if the prior does.
        sentences: The findings in words.
    """

    names: tuple[str, ...]
    information: FloatArray
    directions: FloatArray
    contraction: dict[str, float]
    sentences: tuple[str, ...]


def _prior_widths(space: ParameterSpace, parameters: dict[str, float]) -> FloatArray:
    """Width of each varying prior at a point, in the parameter's unit, shape (p,)."""
    widths = []
    for name, value in parameters.items():
        logarithmic = space[name].prior.kind is PriorKind.LOGNORMAL
        width = prior_width(space[name], logarithmic=logarithmic)
        widths.append(abs(value) * width if logarithmic else width)
    return np.array(widths)


def identify(
    space: ParameterSpace, parameters: dict[str, float], fisher: FloatArray
) -> Identifiability:
    """Find what the data inform.

    Args:
        space: Bounds and priors.
        parameters: Fitted values of the varying physics parameters, in order.
        fisher: Fisher information of these parameters, contrast and offset eliminated,
            shape (p, p).
    """
    names = tuple(parameters)
    widths = _prior_widths(space, parameters)
    scaled = fisher * widths[:, None] * widths
    values, vectors = np.linalg.eigh(0.5 * (scaled + scaled.T))
    order = np.argsort(values)[::-1]
    values, vectors = np.maximum(values[order], 0.0), vectors[:, order]
    spread = np.sqrt(((vectors**2) / (1.0 + values)).sum(axis=1))
    contraction = {n: float(1.0 - s) for n, s in zip(names, spread, strict=True)}
    sentences = (*_known(names, parameters), *_weak(names, values, vectors))
    return Identifiability(names, values, vectors, contraction, sentences)


def _known(names: tuple[str, ...], parameters: dict[str, float]) -> list[str]:
    """Degeneracies that hold whatever the data."""
    found = []
    if "f0" in names and "f2" in names:
        found.append("The data inform f0·exp(−f1·f2), not f0 and f2 apart.")
    if "v0" in names and "v_offset" in names:
        found.append("The data inform the velocity up to its sign: v and −v look the same.")
    pairs = (
        ("D0_ref", "alpha_ref", "D_offset_ref", "J of the reference"),
        ("D0_sample", "alpha_sample", "D_offset_sample", "J of the sample"),
        ("v0", "beta", "v_offset", "the velocity"),
    )
    for prefactor, exponent, offset, curve in pairs:
        near_zero = abs(parameters.get(exponent, 1.0)) < 0.05
        if prefactor in names and offset in names and near_zero:
            found.append(
                f"With {exponent} near 0 the data inform {prefactor} + {offset}, "
                f"the level of {curve}, not the two apart."
            )
    return found


def _weak(names: tuple[str, ...], values: FloatArray, vectors: FloatArray) -> list[str]:
    """Directions on which the prior has more to say than the data."""
    found = []
    for value, vector in zip(values, vectors.T, strict=True):
        if value >= 1.0:
            continue
        largest = np.abs(vector).max()
        members = [k for k in np.argsort(-np.abs(vector)) if abs(vector[k]) > _MENTIONED * largest]
        lead = np.sign(vector[members[0]])
        words = [f"{names[k]} {'up' if lead * vector[k] > 0 else 'down'}" for k in members]
        share = f"the data hold {value:.2g} times the information of the prior"
        if len(words) == 1:
            found.append(f"{names[members[0]]} is set by its prior ({share}).")
        else:
            found.append(f"Moving {', '.join(words)} together is set by the priors ({share}).")
    return found
