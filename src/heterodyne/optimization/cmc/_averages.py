"""Averages of neighbouring frames that stand in for all pairs while walkers explore.

With m frames in a group, N**2 / 2 pairs become m**2 times fewer. c2 between two groups is taken
as the model at a fit plus the mean residual of all m**2 pairs. So the stand-in has its minimum
where all pairs have it, and, where residuals and derivatives of the model change little over m
frames, the same shape around it. What differs is measured: draws are weighed by all pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from heterodyne._typing import FloatArray, IntArray
from heterodyne.core._jax import jnp
from heterodyne.core.correlation import correlation_stretches
from heterodyne.core.likelihood import PairData
from heterodyne.optimization.cmc._draws import Draws, Proposals
from heterodyne.optimization.cmc._importance import picked, smoothed
from heterodyne.optimization.cmc._linear import searched
from heterodyne.optimization.cmc._nuts import Target
from heterodyne.optimization.cmc._walkers import Density
from heterodyne.optimization.nlsq.coarse import Groups, grouped_frames
from heterodyne.optimization.posterior import Posterior, Unknowns

# Draws of each group that are picked by weight.
_DRAWS = 1000
# Groups that a decay must span: fewer do not show how the model bends within one.
_PER_DECAY = 12.0


@dataclass(frozen=True)
class Averages:
    """A posterior of averaged frames.

    Attributes:
        target: What it is conditioned on.
        log_sigma: Logarithm of sigma of single pairs where the averages were taken.
        log_size: Logarithm of the number of frames in a group; the errors of averages are as
            many times smaller.
        shrinkage: Relative width of sigma given all pairs over that given the averages.
    """

    target: Target
    log_sigma: float
    log_size: float
    shrinkage: float

    def of_all(self, y: FloatArray) -> FloatArray:
        """Map coordinates of this posterior, log sigma last, to those given all pairs."""
        moved = y.copy()
        step = moved[..., -1] + self.log_size - self.log_sigma
        moved[..., -1] = self.log_sigma + self.shrinkage * step
        return moved

    def of_averages(self, y: FloatArray) -> FloatArray:
        """Invert ``of_all``."""
        moved = y.copy()
        step = (moved[..., -1] - self.log_sigma) / self.shrinkage
        moved[..., -1] = self.log_sigma - self.log_size + step
        return moved


def possible(target: Target) -> bool:
    """Whether frames can be averaged: pairs count alike, and groups of frames are whole."""
    plain = target.data.weights is None and target.normal is None
    return plain and grouped_frames(target.data, _PER_DECAY) is not None


def averages(posterior: Posterior, target: Target, y: FloatArray) -> Averages:
    """Average the frames of a data set where that is possible.

    Args:
        posterior: Map of the coordinates.
        target: What the posterior is conditioned on.
        y: Coordinates of a fit, shape (d,), at which averages and pairs agree.
    """
    data, groups = target.data, grouped_frames(target.data, _PER_DECAY)
    assert groups is not None
    at, _ = posterior.forward(jnp.asarray(y))
    means = _averaged(data, groups, at, np.asarray(posterior.scaling.expand(at.scaling)[0]))
    share = float(means.n_pairs.sum()) / float(data.n_pairs.sum())
    return Averages(
        target._replace(data=means, noise_scale=target.noise_scale / groups.size),
        float(y[-1]),
        float(np.log(groups.size)),
        float(np.sqrt(share)),
    )


def weighed(
    posterior: Posterior, target: Target, means: Averages, walked: Draws, count: int, seed: int
) -> Draws:
    """Weigh draws given averages by all pairs, and pick by weight.

    Args:
        posterior: Map and density.
        target: All pairs.
        means: The averages.
        walked: Draws given the averages.
        count: Number of draws that are weighed, evenly chosen; at most all.
        seed: Seed of the random numbers.
    """
    rows = np.linspace(0, walked.n_draws - 1, count // walked.n_chains).round().astype(int)
    # Groups take turns, as ``picked`` divides them.
    y = walked.y[:, np.unique(rows)].swapaxes(0, 1).reshape(-1, walked.y.shape[-1])
    rng, kept = np.random.default_rng((seed, 5)), searched(posterior)
    before = Density(posterior, means.target).at(y[:, kept], rng)
    now = Density(posterior, target).at(means.of_all(y)[:, kept], rng)
    possible = np.isfinite(now.log_likelihood) & np.isfinite(before.log_likelihood)
    log_weights = np.full(len(y), -np.inf)
    log_weights[possible] = now.log_likelihood[possible] - before.log_likelihood[possible]
    weights, k_hat = smoothed(log_weights)
    chosen = picked(weights, walked.n_chains, _DRAWS, rng)
    return Draws(
        now.y[chosen],
        now.log_density[chosen],
        proposals=Proposals(now.y, now.log_density, weights, k_hat),
        walks=walked.walks,
    )


def _averaged(data: PairData, groups: Groups, at: Unknowns, contrast: FloatArray) -> PairData:
    size, times = groups.size, jnp.asarray(groups.times(data))
    means = _block_means(data, groups) + np.asarray(data.baseline)[:, None, None]
    dt = float(data.dt)
    for k, phi in enumerate(np.asarray(data.phi)):
        coarse = [g for _, g in correlation_stretches(at.parameters, times, data.q, dt * size, phi)]
        means[k] += contrast[k] * np.concatenate(coarse)
        frames = np.arange(groups.first, groups.first + groups.number * size)
        done = 0
        for rows, g in correlation_stretches(
            at.parameters, data.t, data.q, data.dt, phi, frames, multiple=size
        ):
            n = (rows.stop - rows.start) // size
            blocks = g.reshape(n, size, groups.number, size)
            means[k, done : done + n] -= contrast[k] * blocks.mean(axis=(1, 3))
            done += n
    upper = np.triu(means, 1)
    return groups.packed(upper + upper.swapaxes(1, 2), data)


def _block_means(data: PairData, groups: Groups) -> FloatArray:
    """Mean of c2 - baseline between groups, above the diagonal, (n_angles, count, count)."""
    total = np.zeros((data.n_angles, groups.number, groups.number))
    parts = [np.asarray(block) for block in data.blocks]
    for level, n, row, column in data.layout.corners():
        part = parts[level][:, n]
        height = part.shape[-1]
        rows, columns = _Span.of(row, height, groups), _Span.of(column, height, groups)
        if rows.first == rows.last or columns.first == columns.last:
            continue
        part = part[:, rows.first : rows.last, columns.first : columns.last]
        part = np.add.reduceat(np.add.reduceat(part, rows.cuts, axis=1), columns.cuts, axis=2)
        total[:, rows.groups[:, None], columns.groups] += part
    return total / groups.size**2


class _Span(NamedTuple):
    """Frames of a block that are in groups.

    Attributes:
        first: The first one, counted from the start of the block.
        last: The one after the last, likewise.
        cuts: Where groups begin, counted from the first, shape (n,).
        groups: Numbers of these groups, shape (n,).
    """

    first: int
    last: int
    cuts: IntArray
    groups: IntArray

    @classmethod
    def of(cls, start: int, height: int, groups: Groups) -> _Span:
        """Find the groups of frames start ... start + height."""
        begin, size = groups.first, groups.size
        low = max(start, begin)
        high = max(low, min(start + height, begin + groups.number * size))
        numbers = np.arange((low - begin) // size, -(-(high - begin) // size))
        cuts = np.maximum(begin + numbers * size, low) - low
        return cls(low - start, high - start, cuts, numbers)
