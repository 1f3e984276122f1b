"""Contrast, offset and f2 given everything else: drawn, not searched.

Given the other unknowns the likelihood is Gaussian in contrasts and offsets, and the sums
over pairs that one evaluation needs also give its mean and curvature. So a proposal for the
other unknowns alone is completed by a draw from this conditional density. The log density of
the whole point minus that of the draw is the log density of the other unknowns with contrast
and offset integrated out, exactly where bounds and priors leave the conditional Gaussian;
elsewhere it is a weight that makes up for what the Gaussian lacks. f2, which the likelihood does
not know where f0 varies too, is drawn from its prior along the ridge of both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np

from heterodyne._cores import usable_cores
from heterodyne._typing import FloatArray, IntArray, JaxArray
from heterodyne.core._jax import jax, jnp
from heterodyne.core.kept import kept
from heterodyne.core.likelihood import sums
from heterodyne.optimization.cmc._frame import Frame
from heterodyne.optimization.cmc._nuts import Target
from heterodyne.optimization.cmc._ridge_draw import draw_along_ridge
from heterodyne.optimization.posterior import Posterior, Unknowns
from heterodyne.optimization.prior import LogPrior

S = TypeVar("S")
T = TypeVar("T")
# Points of one call of the compiled code.
PART = 256
# Points that are evaluated at once: so few that they fit the caches of a processor, and enough for
# its vector instructions. A GPU computes all of them in the time of one.
_FEWEST, _MOST, _FRAMES = 8, 32, 8192


class Completed(NamedTuple):
    """A point with contrast and offset drawn.

    Attributes:
        y: Coordinates of all unknowns, shape (d,).
        log_density: Log density of these, up to a constant; minus infinity where there is none.
        log_integrated: The same minus the log density of the draw.
    """

    y: JaxArray
    log_density: JaxArray
    log_integrated: JaxArray


def searched(posterior: Posterior) -> IntArray:
    """Places of the coordinates that are not drawn."""
    places = np.append(np.arange(posterior.coordinates.size), posterior.size - 1)
    ridge = ridge_place(posterior)
    return places if ridge is None else np.delete(places, ridge)


def ridge_place(posterior: Posterior) -> int | None:
    """Place of f2 where it runs along the ridge of f0 and f2."""
    coordinates = posterior.coordinates
    return coordinates.names.index("f2") if coordinates.on_ridge else None


def n_drawn(posterior: Posterior) -> int:
    """Number of coordinates that are drawn."""
    return posterior.size - len(searched(posterior))


def narrowed(posterior: Posterior, frame: Frame) -> Frame:
    """Return a frame of the coordinates that are searched, from one of all."""
    kept = searched(posterior)
    rows = np.asarray(frame.factor)[kept]
    factor = np.linalg.cholesky(rows @ rows.T)
    return Frame(*jax.device_put((np.asarray(frame.centre)[kept], factor)))


@kept("posterior", returns=Completed)
def complete(
    points: JaxArray, normal: JaxArray, target: Target, centre: JaxArray, posterior: Posterior
) -> Completed:
    """Draw contrast, offset and f2 at many points.

    Args:
        points: Coordinates that are searched, shape (n, d - k).
        normal: Standard normal numbers, shape (n, k), that of f2 last.
        target: What the posterior is conditioned on.
        centre: Coordinates about which contrast and offset are expanded, shape (d,).
        posterior: Map and density.

    Returns:
        Arrays with n as the leading axis.
    """

    def one(part: tuple[JaxArray, JaxArray]) -> Completed:
        return _complete(*part, target, centre, posterior)

    return mapped(one, (points, normal), 1 if target.normal is not None else target.data.t.shape[0])


def mapped(one: Callable[..., S], points: object, n_frames: int = 1) -> S:
    """Evaluate a function of one point at many, as many at once as suits the processor.

    Args:
        one: Receives the arrays of one point.
        points: Arrays with the points as the leading axis.
        n_frames: Number of frames that the function evaluates a model at.
    """
    return jax.lax.map(one, points, batch_size=at_once(n_frames))


def at_once(n_frames: int) -> int:
    """Number of points to evaluate at once, of a model at some number of frames."""
    if jax.default_backend() != "cpu":
        return PART
    fitting = 2 ** int(math.log2(max(_FRAMES / n_frames, 1.0)))
    return min(max(fitting, _FEWEST), _MOST)


def complete_all(
    points: FloatArray, normal: FloatArray, target: Target, centre: JaxArray, posterior: Posterior
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Draw contrast, offset and f2 at any number of points, on all cores.

    Args:
        points: As for ``complete``.
        normal: Likewise.
        target: Likewise.
        centre: Likewise.
        posterior: Likewise.

    Returns:
        The fields of ``Completed``, with n as the leading axis.
    """
    n = len(points)
    run = partial(complete, target=target, centre=centre, posterior=posterior)

    def part(chosen: IntArray) -> tuple[FloatArray, ...]:
        found = run(points[chosen], normal[chosen])
        return tuple(np.asarray(column) for column in found)

    y, log_density, log_integrated = zip(*in_parts(part, n), strict=True)
    return (
        np.concatenate(y)[:n],
        np.concatenate(log_density)[:n],
        np.concatenate(log_integrated)[:n],
    )


def in_parts(evaluate: Callable[[IntArray], T], n: int) -> list[T]:
    """Evaluate rows 0 ... n - 1 on all cores, ``PART`` at a time, for which code is compiled.

    Args:
        evaluate: Receives the numbers of the rows; those that fill the last part are copies.
        n: Number of rows.
    """
    rows = np.minimum(np.arange(-(-n // PART) * PART), n - 1).reshape(-1, PART)
    with ThreadPoolExecutor(usable_cores()) as pool:
        return [*pool.map(evaluate, rows)]


class _Parabola(NamedTuple):
    """The log likelihood as a function of steps of contrasts and offsets.

    Attributes:
        value: Where the step is zero.
        slope: Minus the gradient there, shape (k,).
        curvature: Minus the second derivatives, shape (k, k).
    """

    value: JaxArray
    slope: JaxArray
    curvature: JaxArray

    @classmethod
    def of(cls, at: Unknowns, target: Target, posterior: Posterior) -> _Parabola:
        """Expand the likelihood about unknowns."""
        if target.normal is not None:
            normal, k = target.normal, posterior.scaling.size
            pull = normal.precision @ normal.distance(at.parameters, at.scaling)
            first = pull.shape[0] - k
            return cls(normal.log_density(*at), pull[first:], normal.precision[first:, first:])
        s = sums(at.parameters, target.data)
        parts = posterior.scaling
        slope, curvature = parts.quadratic(s, *parts.expand(at.scaling), target.data)
        value = posterior.log_likelihood_of(s, at, target.data)
        return cls(value, slope / at.sigma**2, curvature / at.sigma**2)


def _complete(
    point: JaxArray, normal: JaxArray, target: Target, centre: JaxArray, posterior: Posterior
) -> Completed:
    physics, log_drawn = _physics(point, normal, target, posterior)
    p, normal = physics.shape[0], normal[: posterior.scaling.size]
    start, _ = posterior.forward(jnp.concatenate([physics, centre[p:-1], point[-1:]]))
    parabola = _Parabola.of(start, target, posterior)
    scaling, density = start.scaling, parabola.value
    if posterior.scaling.size > 0:
        step, log_step = _draw(scaling, normal, parabola, posterior)
        log_drawn += log_step
        scaling += step
        density -= parabola.slope @ step + 0.5 * step @ parabola.curvature @ step
    y = jnp.concatenate([physics, posterior.unbend_scaling(scaling), point[-1:]])
    drawn, log_det = posterior.forward(y)
    prior = posterior.log_prior(drawn, target.noise_scale) + log_det
    density += target.prior_weight * prior
    log_drawn += posterior.bend_scaling(y[p:-1])[1].sum()
    # Beyond a bound the coordinate is not a number.
    sound = jnp.isfinite(density) & jnp.isfinite(y).all() & jnp.isfinite(log_drawn)
    density = jnp.where(sound, density, -jnp.inf)
    return Completed(
        jnp.where(sound, y, centre), density, jnp.where(sound, density - log_drawn, -jnp.inf)
    )


def _physics(
    point: JaxArray, normal: JaxArray, target: Target, posterior: Posterior
) -> tuple[JaxArray, JaxArray]:
    """Coordinates of the physics parameters, f2 drawn, and the log density of that draw."""
    place = ridge_place(posterior)
    if place is None:
        return point[:-1], jnp.zeros(())
    physics = jnp.insert(point[:-1], place, 0.0)
    drawn, log_drawn = draw_along_ridge(physics, normal[-1], target.prior_weight, posterior)
    return physics.at[place].set(drawn), log_drawn


def _draw(
    scaling: JaxArray, normal: JaxArray, parabola: _Parabola, posterior: Posterior
) -> tuple[JaxArray, JaxArray]:
    """Draw a step of contrasts and offsets; returns it and its log density.

    Args:
        scaling: Contrasts and offsets, shape (k,).
        normal: Standard normal numbers, shape (k,).
        parabola: Log likelihood of steps from there.
        posterior: Map and density.
    """
    prior = LogPrior.of(posterior.space, posterior.scaling_kinds)
    slope = prior.standardised_slopes(scaling)
    # The range confines one that neither data nor prior inform.
    full = parabola.curvature + jnp.diag(slope**2 + posterior.scaling_range**-2.0)
    pull = -parabola.slope - slope * prior.standardised(scaling)
    lower = _cholesky(full)
    step = _solve_upper(lower, _solve_lower(lower, pull) + normal)
    log_density = jnp.log(jnp.diagonal(lower)).sum() - 0.5 * (normal**2).sum()
    return step, log_density - 0.5 * len(normal) * math.log(2.0 * math.pi)


# XLA hands linear algebra to LAPACK and waits for its own threads, which never come when
# all of them evaluate points: two threads that factor matrices of 46 rows lock each other.
def _cholesky(a: JaxArray) -> JaxArray:
    """Return the lower Cholesky factor, shape (k, k); NaN where there is none."""
    rows = jnp.arange(a.shape[0])

    def column(j: JaxArray, lower: JaxArray) -> JaxArray:
        rest = a[:, j] - lower @ lower[j]
        return lower.at[:, j].set(jnp.where(rows >= j, rest / jnp.sqrt(rest[j]), 0.0))

    return jax.lax.fori_loop(0, len(rows), column, jnp.zeros_like(a))


def _solve_lower(lower: JaxArray, b: JaxArray) -> JaxArray:
    """Solve lower x = b by forward substitution, shape (k,)."""

    def row(j: JaxArray, x: JaxArray) -> JaxArray:
        return x.at[j].set((b[j] - lower[j] @ x) / lower[j, j])

    return jax.lax.fori_loop(0, len(b), row, jnp.zeros_like(b))


def _solve_upper(lower: JaxArray, b: JaxArray) -> JaxArray:
    """Solve lower' x = b by backward substitution, shape (k,)."""

    def row(n: JaxArray, x: JaxArray) -> JaxArray:
        j = len(b) - 1 - n
        return x.at[j].set((b[j] - lower[:, j] @ x) / lower[j, j])

    return jax.lax.fori_loop(0, len(b), row, jnp.zeros_like(b))
