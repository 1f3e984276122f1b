"""Mixtures of Student t distributions, and how they are adapted to weighted points.

The posterior has one or more modes, and around each it is bent. A mode is therefore covered
by several components, fitted to the weighted points near it by expectation maximisation
(Cappé, Douc, Guillin, Marin and Robert, Statistics and Computing 18, 447, 2008).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln, logsumexp

from heterodyne._typing import BoolArray, FloatArray
from heterodyne.optimization.cmc._draws import kish
from heterodyne.optimization.cmc._frame import inverse_factor

# (share, factor on the width, degrees of freedom) of the components around a mode.
_FIRST = ((0.9, 1.05, 8.0), (0.1, 1.6, 4.0))
_BENT = (0.72, 1.0, 8.0)
_WIDE = (0.2, 1.5, 5.0)
_ANCHOR = (0.08, 1.2, 5.0)
# Width and degrees of freedom around points of equal weight.
_AROUND = (1.3, 5.0)
# A mode keeps at least this share of the points, however light it is.
_LEAST_SHARE = 0.02
# A covariance is trusted like that of this many more points of the old one.
_SHRINKAGE = 10.0
# Most components around a mode, and how many points of equal weight, over the number of
# coordinates, each of them needs.
_MOST, _FOR_ONE = 6, 8.0
# Points that components are fitted to, and iterations.
_FITTED, _ITERATIONS = 2500, 8
# Variance of a component before it is fitted, over that around its mode.
_LOCAL = 0.6
# Added to correlation matrices.
_ROUNDING = 1e-9
# What a covariance of few points is pulled to counts like so many, over the number of
# coordinates, and how many a component needs in all.
_PULL, _FEWEST, _ALONE = 2.0, 2.0, 0.01
# A component of a smaller share is dropped.
_LEAST_COMPONENT = 1e-3


class Component(NamedTuple):
    """A Student t distribution in a mixture.

    Attributes:
        share: Share of the points.
        centre: Shape (d,).
        factor: Cholesky factor of its scale matrix, shape (d, d).
        degrees: Degrees of freedom.
    """

    share: float
    centre: FloatArray
    factor: FloatArray
    degrees: float

    def draw(self, rng: np.random.Generator, n: int) -> FloatArray:
        """Draw n points, shape (n, d)."""
        normal = rng.normal(size=(n, self.centre.size))
        stretch = np.sqrt(rng.chisquare(self.degrees, n) / self.degrees)
        return self.centre + (normal / stretch[:, None]) @ self.factor.T

    def whitened(self, z: FloatArray) -> FloatArray:
        """Return z such that this distribution has the unit matrix as scale, shape (n, d)."""
        return (z - self.centre) @ inverse_factor(self.factor).T

    def squared_distance(self, z: FloatArray) -> FloatArray:
        """Return squared distances from the centre in widths, shape (n, d) to (n,)."""
        return (self.whitened(z) ** 2).sum(1)

    def log_density(self, z: FloatArray) -> FloatArray:
        """Return the log density of points, shape (n, d) to (n,)."""
        return self.log_density_at(self.squared_distance(z))

    def log_density_at(self, squared_distance: FloatArray) -> FloatArray:
        """Return the log density at squared distances."""
        d, nu = self.centre.size, self.degrees
        norm = gammaln(0.5 * (nu + d)) - gammaln(0.5 * nu) - 0.5 * d * np.log(nu * np.pi)
        norm -= np.log(np.diagonal(self.factor)).sum()
        return norm - 0.5 * (nu + d) * np.log1p(squared_distance / nu)


Mixture = tuple[Component, ...]


class Round(NamedTuple):
    """What a round of importance sampling draws from.

    Attributes:
        mixture: The mixture.
        cores: For each mode one component with the moments around it.
    """

    mixture: Mixture
    cores: Mixture


def first_round(modes: Sequence[tuple[FloatArray, FloatArray]]) -> Round:
    """Cover the normal approximations of modes, given by centre and Cholesky factor."""
    share = 1.0 / len(modes)
    return Round(
        tuple(
            Component(share * part, centre, width * factor, degrees)
            for centre, factor in modes
            for part, width, degrees in _FIRST
        ),
        tuple(Component(share, centre, factor, _FIRST[0][2]) for centre, factor in modes),
    )


def next_round(
    z: FloatArray, weights: FloatArray, last: Round, first: Round, rng: np.random.Generator
) -> Round:
    """Cover weighted points around each mode.

    Args:
        z: Points, shape (n, d).
        weights: Weights that add up to 1, shape (n,).
        last: The round before.
        first: The first round, which stays as a defence.
        rng: Random numbers for the start of the fit.
    """
    members = _nearest(z, last.cores)
    shares = np.maximum([weights[m].sum() for m in members], _LEAST_SHARE)
    shares /= shares.sum()
    mixture: list[Component] = []
    cores = []
    for share, mine, core, anchor in zip(shares, members, last.cores, first.cores, strict=True):
        centre, factor = moments(z[mine], weights[mine], core)
        cores.append(core._replace(share=share, centre=centre, factor=factor))
        bent = _bent(z[mine], weights[mine], cores[-1], rng)
        mixture.extend(c._replace(share=share * _BENT[0] * c.share) for c in bent)
        for (part, width, degrees), at in ((_WIDE, cores[-1]), (_ANCHOR, anchor)):
            mixture.append(Component(share * part, at.centre, width * at.factor, degrees))
    return Round(tuple(mixture), tuple(cores))


def around_modes(
    x: FloatArray,
    weights: FloatArray,
    modes: Sequence[tuple[FloatArray, FloatArray]],
    rng: np.random.Generator,
) -> Mixture:
    """Cover weighted points around modes, each mode with the same share, however light it is.

    Args:
        x: Points, shape (n, d).
        weights: Weights, shape (n,).
        modes: Centre and Cholesky factor of their normal approximations.
        rng: Random numbers for the start of the fit.
    """
    first = first_round(modes)
    even = np.zeros(len(x))
    for mine in _nearest(x, first.cores):
        if weights[mine].sum() > 0:
            even[mine] = weights[mine] / weights[mine].sum()
    return next_round(x, even / even.sum(), first, first, rng).mixture


def _nearest(z: FloatArray, cores: Mixture) -> list[BoolArray]:
    """Which points are nearest to each core."""
    nearest = np.argmax([core.log_density(z) for core in cores], axis=0)
    return [nearest == k for k in range(len(cores))]


def _bent(
    z: FloatArray, weights: FloatArray, core: Component, rng: np.random.Generator
) -> list[Component]:
    """Components with shares that add up to 1, fitted to the points around one mode."""
    d, worth = core.centre.size, kish(weights)
    count = int(np.clip(worth / (_FOR_ONE * d), 1, _MOST))
    degrees = _BENT[2]
    if count == 1:
        return [core._replace(share=1.0, degrees=degrees)]
    picked = rng.choice(len(z), size=_FITTED, p=weights / weights.sum())
    # Copies of a point tell no more than the point.
    copies = max(1.0, _FITTED / worth)
    return _fitted_around(core, z[picked], count, rng, _Care(_ITERATIONS, copies, _PULL))


def fitted(x: FloatArray, count: int, rng: np.random.Generator) -> Mixture:
    """Fit a mixture to points of equal weight.

    Args:
        x: Points, shape (n, d).
        count: Most components.
        rng: Random numbers for the start of the fit.
    """
    mean = x.mean(axis=0)
    # All points may be copies of one.
    spread = np.maximum(x.std(axis=0), _ROUNDING * (1.0 + np.abs(mean)))
    wide = Component(1.0, mean, np.diag(spread), _BENT[2])
    centre, factor = moments(x, np.full(len(x), 1.0 / len(x)), wide)
    core = Component(1.0, centre, factor, _BENT[2])
    # Modes may be narrower than all points together by orders.
    return tuple(_fitted_around(core, x, count, rng, _Care(2 * _ITERATIONS, 1.0, _ALONE)))


class _Care(NamedTuple):
    """How expectation maximisation goes about.

    Attributes:
        iterations: Number of steps.
        copies: How many points there are for one that tells something.
        pull_in: How many points, over d, a fraction of the unit matrix counts like in each
            covariance.
    """

    iterations: int
    copies: float
    pull_in: float


def _fitted_around(
    core: Component, z: FloatArray, count: int, rng: np.random.Generator, care: _Care
) -> list[Component]:
    """At most so many components, with shares that add up to 1, fitted to points around a core."""
    x, factor = core.whitened(z), np.sqrt(_LOCAL) * np.eye(core.centre.size)
    found = [Component(1.0 / count, c, factor, _BENT[2]) for c in _spread_out(x, count, rng)]
    for _ in range(care.iterations):
        found = _improved(x, found, care)
    return [
        c._replace(centre=core.centre + core.factor @ c.centre, factor=core.factor @ c.factor)
        for c in found
    ]


def covering(x: FloatArray, count: int, broad: float, rng: np.random.Generator) -> Mixture:
    """Fit a mixture to points of equal weight, with a component that is wider than all.

    Args:
        x: Points, shape (n, d).
        count: Most components of the fit.
        broad: Share of the wide component.
        rng: Random numbers for the start of the fit.
    """
    (whole,) = fitted(x, 1, np.random.default_rng(0))
    wide = whole._replace(factor=_AROUND[0] * whole.factor, degrees=_AROUND[1], share=broad)
    return (*weighed(fitted(x, count, rng), 1.0 - broad), wide)


def weighed(mixture: Mixture, share: float) -> Mixture:
    """Return a mixture as a part of another one."""
    return tuple(c._replace(share=share * c.share) for c in mixture)


def _spread_out(x: FloatArray, count: int, rng: np.random.Generator) -> list[FloatArray]:
    """Pick at most so many points far from each other (k-means++)."""
    chosen = [x[rng.integers(len(x))]]
    while len(chosen) < count:
        distance = np.min([((x - c) ** 2).sum(1) for c in chosen], axis=0)
        # Copies of few points have no more places.
        if not distance.sum() > 0:
            break
        chosen.append(x[rng.choice(len(x), p=distance / distance.sum())])
    return chosen


def _improved(x: FloatArray, components: list[Component], care: _Care) -> list[Component]:
    """One step of expectation maximisation for Student t distributions.

    Args:
        x: Points whose covariance is the unit matrix, shape (n, d).
        components: The components before.
        care: How to go about it.
    """
    d = x.shape[1]
    distances = [c.squared_distance(x) for c in components]
    pairs = zip(components, distances, strict=True)
    log_parts = np.array([np.log(c.share) + c.log_density_at(r) for c, r in pairs])
    parts = np.exp(log_parts - logsumexp(log_parts, axis=0))
    found = []
    for c, part, distance in zip(components, parts, distances, strict=True):
        share, known = part.mean(), kish(part) / care.copies
        if share < _LEAST_COMPONENT or known < d * (_FEWEST - care.pull_in):
            continue
        pull = part * (c.degrees + d) / (c.degrees + distance)
        centre = pull @ x / pull.sum()
        moved = (x - centre) * np.sqrt(pull)[:, None]
        trust = known / (known + care.pull_in * d)
        covariance = trust * moved.T @ moved / part.sum() + (1.0 - trust) * _LOCAL * np.eye(d)
        found.append(Component(float(share), centre, np.linalg.cholesky(covariance), c.degrees))
    total = sum(c.share for c in found)
    return [c._replace(share=c.share / total) for c in found]


def log_mixture(mixture: Mixture, z: FloatArray) -> FloatArray:
    """Return the log density of a mixture at points, shape (n, d) to (n,)."""
    return np.asarray(logsumexp([np.log(c.share) + c.log_density(z) for c in mixture], axis=0))


def draw_mixture(mixture: Mixture, rng: np.random.Generator, n: int) -> FloatArray:
    """Draw from a mixture, in random order, so that every group gets of every component."""
    counts = rng.multinomial(n, [c.share for c in mixture])
    z = np.concatenate([c.draw(rng, m) for c, m in zip(mixture, counts, strict=True)])
    return z[rng.permutation(n)]


def independent(
    x: FloatArray, mixture: Mixture, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Propose draws from a mixture in place of points, shape (n, d).

    Returns:
        The points, and log density of the mixture at the old ones over that at these.
    """
    new = draw_mixture(mixture, rng, len(x))
    return new, log_mixture(mixture, x) - log_mixture(mixture, new)


def marginal(mixture: Mixture, places: BoolArray) -> Mixture:
    """Return the distribution of some of the coordinates, chosen by a mask of shape (d,)."""

    def one(c: Component) -> Component:
        rows = c.factor[places]
        # The triangular factor of a product, without its rounding.
        upper = np.asarray(np.linalg.qr(rows.T, mode="r"))
        factor = upper.T * np.sign(np.diagonal(upper))
        return c._replace(centre=c.centre[places], factor=factor)

    return tuple(one(c) for c in mixture)


def tempered(log_weights: FloatArray, least: float) -> FloatArray:
    """Return weights raised to the largest power, at most 1, at which enough points count.

    Args:
        log_weights: Shape (n,).
        least: Number of points of equal weight that must be worth as much.
    """
    top = log_weights.max()
    if not np.isfinite(top):
        return np.full(log_weights.size, 1.0 / log_weights.size)
    power = 1.0
    while True:
        weights = np.exp(power * (log_weights - top))
        weights /= weights.sum()
        if kish(weights) >= least or power < 1e-3:
            return weights
        power *= 0.8


def moments(z: FloatArray, weights: FloatArray, old: Component) -> tuple[FloatArray, FloatArray]:
    """Weighted mean, and Cholesky factor of the weighted covariance, as far as they are known."""
    worth = kish(weights)
    if worth < old.centre.size:
        return old.centre, old.factor
    w = weights / weights.sum()
    mean = w @ z
    centred = (z - mean) * np.sqrt(w)[:, None]
    trust = worth / (worth + _SHRINKAGE)
    covariance = trust * centred.T @ centred + (1.0 - trust) * old.factor @ old.factor.T
    # Flat directions are wider than others by many orders, beyond what Cholesky's rounding bears.
    scale = np.sqrt(np.diagonal(covariance))
    unit = covariance / scale[:, None] / scale
    return mean, scale[:, None] * np.linalg.cholesky(unit + _ROUNDING * np.eye(scale.size))
