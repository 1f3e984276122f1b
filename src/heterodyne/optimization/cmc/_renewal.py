"""Steps that draw some parameters anew from their priors.

What the data hardly see follows its prior, whose tails reach far: walkers that step along
differences of each other take very long to get there. A draw from the prior is there at once,
and is accepted by the ratio of the likelihoods alone. Of a curve whose value the data do see,
but not its shape, prefactor and exponent are drawn, and the offset keeps that value. Where data
do not tell which component is which, the two transports change places.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from heterodyne._typing import BoolArray, FloatArray, IntArray, JaxArray
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.core._jax import jax, jnp
from heterodyne.optimization.cmc._linear import in_parts, mapped, ridge_place, searched
from heterodyne.optimization.cmc._mixture import Mixture, independent
from heterodyne.optimization.cmc._ridge_draw import log_prior_across
from heterodyne.optimization.coordinates.curves import CURVE_PARAMETERS
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.nlsq.starts import to_coordinates
from heterodyne.optimization.posterior import Posterior
from heterodyne.optimization.prior import LogPrior, draw_columns, log_prior_of

_REFERENCE, _SAMPLE, _VELOCITY, _FRACTION = CURVE_PARAMETERS
# Parameters that may be unseen together: a component that is invisible or still takes the phase
# with it. f2 is among the coordinates only where it does not run along the ridge.
_GROUPS = (
    _REFERENCE,
    _SAMPLE,
    _VELOCITY,
    (*_FRACTION, "f2"),
    ("phi0",),
    (*_REFERENCE, *_VELOCITY, "phi0"),
    (*_SAMPLE, *_VELOCITY, "phi0"),
)
_PLACES = {name: k for k, name in enumerate(PHYSICS_PARAM_NAMES)}
_ROWS: IntArray = np.array([[_PLACES[name] for name in curve] for curve in CURVE_PARAMETERS])
_F2, _OF_FRACTION = _PLACES["f2"], len(CURVE_PARAMETERS) - 1
# Parameters in the order in which they take the places of _EITHER when components are swapped.
_EITHER, _OTHER = (*_REFERENCE, *_SAMPLE), (*_SAMPLE, *_REFERENCE)
# Share of fractions drawn from the priors while the rest is drawn from a mixture.
_FROM_PRIORS = 0.5
# Where a curve keeps its value, in spreads from the reference time: anywhere in the window.
_REACH = 3.0**0.5


def renewed(
    x: FloatArray, posterior: Posterior, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Propose to draw one group of parameters of each walker from the priors.

    Args:
        x: Points, shape (n, m).
        posterior: Map and priors.
        rng: Random numbers.

    Returns:
        The points, and the log density of proposing the old points over that of these.
    """
    members = _members(posterior, _GROUPS)
    members = members[members.any(axis=1)]
    if len(members) == 0:
        return x, np.zeros(len(x))
    return _renewed(x, members[rng.integers(0, len(members), len(x))], posterior, rng)


def beside_fraction(
    x: FloatArray, mixture: Mixture, posterior: Posterior, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Propose draws from a mixture of all but the fraction, which stays or comes from the priors.

    Args:
        x: Points, shape (n, m).
        mixture: What the coordinates without those of the fraction are drawn from.
        posterior: Map and priors.
        rng: Random numbers.

    Returns:
        The points, and the log density of proposing the old points over that of these.
    """
    fraction = of_fraction(posterior)
    drawn, ratio = independent(x[:, ~fraction], mixture, rng)
    moved = x.copy()
    moved[:, ~fraction] = drawn
    from_priors = rng.random((len(x), 1)) < _FROM_PRIORS
    new, of_priors = _renewed(moved, fraction & from_priors, posterior, rng)
    return new, ratio + of_priors


def of_fraction(posterior: Posterior) -> BoolArray:
    """Which of the coordinates that are searched are the fraction's, shape (m,)."""
    return _members(posterior, ((*_FRACTION, "f2"),))[0]


def of_course(posterior: Posterior) -> BoolArray:
    """Which of them tell how the fraction changes, shape (m,).

    What the data inform of a fraction that does not change is its level; prefactor, rate and
    onset follow their priors then.
    """
    return _members(posterior, ((*_FRACTION[:2], "f2"),))[0]


def _renewed(
    x: FloatArray, chosen: BoolArray, posterior: Posterior, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Draw the chosen parameters of each walker from the priors."""
    drawn = physics_from_prior(posterior.coordinates, len(x), rng)
    new = _exchanged(x, chosen, drawn, posterior)
    return new, log_prior(x, posterior) - log_prior(new, posterior)


def reshaped(
    x: FloatArray, posterior: Posterior, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Propose to draw prefactor and exponent of one curve of each walker from the priors.

    The offset changes such that the curve keeps its value at a time that is chosen at random.
    The volume of prefactor, exponent and that value is the volume of the parameters, so that
    of the priors those of the offset remain in the ratio.

    Args:
        x: Points, shape (n, m).
        posterior: Map and priors.
        rng: Random numbers.

    Returns:
        The points, and the log density of proposing the old points over that of these.
    """
    space, n = posterior.coordinates.space, len(x)
    free = np.flatnonzero([all(space[name].vary for name in c) for c in CURVE_PARAMETERS])
    if len(free) == 0:
        return x, np.zeros(n)
    curve, at = rng.choice(free, n), rng.uniform(-_REACH, _REACH, n)
    drawn = draw_columns(space, PHYSICS_PARAM_NAMES, rng, n)
    members = _members(posterior, tuple((*c, "f2") for c in CURVE_PARAMETERS))
    return _led(x, members[curve], posterior, _reshaped, drawn, curve, at)


def swapped(
    x: FloatArray, posterior: Posterior, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Propose that the transports of reference and sample change places.

    With this goes either a fraction drawn from the priors, or f3 to 1 - f3, which exchanges the
    amplitudes of a fraction that does not change.

    Args:
        x: Points, shape (n, m).
        posterior: Map and priors.
        rng: Random numbers.

    Returns:
        The points, and the log density of proposing the old points over that of these.
    """
    space, n = posterior.coordinates.space, len(x)
    if not all(space[name].vary for name in (*_EITHER, "f3")):
        return x, np.zeros(n)
    mirrored = rng.random(n) < 0.5
    drawn = draw_columns(space, PHYSICS_PARAM_NAMES, rng, n)
    members = _members(posterior, ((*_EITHER, *_FRACTION, "f2"),))
    return _led(x, members[0], posterior, _swapped, drawn, mirrored)


def _led(
    x: FloatArray,
    chosen: BoolArray,
    posterior: Posterior,
    step: Callable[..., tuple[JaxArray, JaxArray]],
    *drawn: np.ndarray,
) -> tuple[FloatArray, FloatArray]:
    """Put points where a step leads, which keeps a part of the priors out of the proposal.

    Args:
        x: Points, shape (n, m).
        chosen: Coordinates that change.
        posterior: Map and priors.
        step: Returns coordinates of the physics parameters, and the log prior of what it moved
            over that before; it receives those of the points and what was drawn.
        drawn: For each point.

    Returns:
        The points, and the log density of proposing the old points over that of these.
    """
    n, y = len(x), _physics(x, posterior)
    parts = in_parts(
        lambda rows: [*map(np.asarray, step(y[rows], *(a[rows] for a in drawn), posterior))], n
    )
    reached, of_moved = (np.concatenate(column)[:n] for column in zip(*parts, strict=True))
    new = _replaced(x, chosen, reached, posterior)
    ratio = log_prior(x, posterior) - log_prior(new, posterior)
    return new, ratio + np.where((new != x).any(axis=1), of_moved, 0.0)


def log_prior(x: FloatArray, posterior: Posterior) -> FloatArray:
    """Log prior density of the physics coordinates that are searched, (n, m) to (n,)."""
    n, y = len(x), _physics(x, posterior)
    parts = in_parts(lambda rows: np.asarray(_log_priors(y[rows], posterior)), n)
    return np.concatenate(parts)[:n]


def physics_from_prior(
    coordinates: PhysicsCoordinates, count: int, rng: np.random.Generator
) -> FloatArray:
    """Draw coordinates of the physics parameters from the priors, shape (count, p).

    Args:
        coordinates: Map, priors and bounds.
        count: Number of draws.
        rng: Random numbers.
    """
    drawn = draw_columns(coordinates.space, PHYSICS_PARAM_NAMES, rng, count)
    parts = in_parts(lambda rows: to_coordinates(drawn[rows], coordinates), count)
    return np.concatenate(parts)[:count]


def _physics(x: FloatArray, posterior: Posterior) -> FloatArray:
    """Coordinates of the physics parameters, that of f2 at 0 where it is not searched."""
    place = ridge_place(posterior)
    return x[:, :-1] if place is None else np.insert(x[:, :-1], place, 0.0, axis=1)


def _exchanged(
    x: FloatArray, chosen: BoolArray, drawn: FloatArray, posterior: Posterior
) -> FloatArray:
    """Exchange parameters of points for drawn ones, given by their coordinates, (n, p)."""
    coordinates = posterior.coordinates
    if coordinates.axis is None:
        return _replaced(x, chosen, drawn, posterior)
    # Priors do not tie velocity and flow angle together, the projection onto the axis does.
    along = _turned(_physics(x, posterior), coordinates, to_axis=False)
    drawn = _turned(drawn, coordinates, to_axis=False)
    velocity, angle = _members(posterior, (_VELOCITY, ("phi0",)))
    taken = _physics(chosen.astype(float), posterior) > 0.0
    mixed = np.where(taken, drawn, along)
    reached = chosen | (velocity & chosen[:, angle])
    return _replaced(x, reached, _turned(mixed, coordinates, to_axis=True), posterior)


def _turned(y: FloatArray, coordinates: PhysicsCoordinates, *, to_axis: bool) -> FloatArray:
    """Coordinates with the velocity along the axis, or along the flow, (n, p)."""
    parts = in_parts(lambda rows: np.asarray(_turn(y[rows], coordinates, to_axis)), len(y))
    return np.concatenate(parts)[: len(y)]


@partial(jax.jit, static_argnames=("coordinates", "to_axis"))
def _turn(y: JaxArray, coordinates: PhysicsCoordinates, to_axis: bool) -> JaxArray:
    return mapped(coordinates.of_axis if to_axis else coordinates.of_flow, y)


def _replaced(
    x: FloatArray, chosen: BoolArray, physics: FloatArray, posterior: Posterior
) -> FloatArray:
    """Put coordinates of the physics parameters, (n, p), in the chosen places of points."""
    y = np.zeros((len(x), posterior.size))
    y[:, : posterior.coordinates.size] = physics
    new = np.where(chosen, y[:, searched(posterior)], x)
    # What the coordinates do not hold leaves the walker where it is.
    return np.where(np.isfinite(new).all(axis=1, keepdims=True), new, x)


@partial(jax.jit, static_argnames="posterior")
def _log_priors(physics: JaxArray, posterior: Posterior) -> JaxArray:
    def one(y: JaxArray) -> JaxArray:
        if posterior.coordinates.on_ridge:
            return log_prior_across(y, posterior)
        return log_prior_of(*posterior.coordinates.forward(y), posterior.coordinates)

    return jnp.nan_to_num(mapped(one, physics), nan=-jnp.inf)


@partial(jax.jit, static_argnames="posterior")
def _reshaped(
    physics: JaxArray, drawn: JaxArray, curve: JaxArray, at: JaxArray, posterior: Posterior
) -> tuple[JaxArray, JaxArray]:
    """Coordinates with curves redrawn, and the log prior of the new offsets over the old."""
    coordinates = posterior.coordinates
    low, high = _bounds(coordinates)
    offsets = _ROWS[:, 2]
    prior = LogPrior.of(coordinates.space, tuple(PHYSICS_PARAM_NAMES[k] for k in offsets))

    def one(part: tuple[JaxArray, ...]) -> tuple[JaxArray, JaxArray]:
        y, drawn, curve, at = part
        old = coordinates.forward(y)[0]
        prefactor, exponent, offset = jnp.asarray(_ROWS)[curve]
        of_fraction = curve == _OF_FRACTION
        log_t = jnp.log(coordinates.log_time) + at * coordinates.log_spread
        t = coordinates.mid_time + at * coordinates.spread

        def grown(p: JaxArray) -> JaxArray:
            steps = jnp.where(of_fraction, t - p[_F2], log_t)
            return p[prefactor] * jnp.exp(p[exponent] * steps)

        new = old.at[prefactor].set(drawn[prefactor]).at[exponent].set(drawn[exponent])
        new = new.at[_F2].set(jnp.where(of_fraction, drawn[_F2], old[_F2]))
        new = new.at[offset].add(grown(old) - grown(new))
        inside = (low[offset] < new[offset]) & (new[offset] < high[offset])
        # Beyond the bounds there is no density; what has none is left in place.
        reached = jnp.where(inside, coordinates.inverse(jnp.where(inside, new, old)), jnp.nan)
        return reached, prior(new[offsets]) - prior(old[offsets])

    return mapped(one, (physics, drawn, curve, at))


@partial(jax.jit, static_argnames="posterior")
def _swapped(
    physics: JaxArray, drawn: JaxArray, mirrored: JaxArray, posterior: Posterior
) -> tuple[JaxArray, JaxArray]:
    """Coordinates with components swapped, and the log prior of what was moved over the old."""
    coordinates = posterior.coordinates
    either, other, fraction = (
        np.array([_PLACES[n] for n in names]) for names in (_EITHER, _OTHER, (*_FRACTION, "f2"))
    )
    f3 = _PLACES["f3"]
    moved = np.append(either, f3)
    low, high = (bound[moved] for bound in _bounds(coordinates))
    of_transports = LogPrior.of(coordinates.space, _EITHER)
    of_f3 = LogPrior.of(coordinates.space, ("f3",))

    def one(part: tuple[JaxArray, ...]) -> tuple[JaxArray, JaxArray]:
        y, drawn, mirrored = part
        old = coordinates.forward(y)[0]
        new = old.at[either].set(old[other])
        drawn = new.at[fraction].set(drawn[fraction])
        new = jnp.where(mirrored, new.at[f3].set(1.0 - old[f3]), drawn)
        inside = ((low < new[moved]) & (new[moved] < high)).all()
        reached = jnp.where(inside, coordinates.inverse(jnp.where(inside, new, old)), jnp.nan)
        # What is drawn from its prior is proposed with it; the rest takes its prior along.
        gained = of_transports(new[either]) - of_transports(old[either])
        changed = of_f3(new[f3][None]) - of_f3(old[f3][None])
        return reached, gained + jnp.where(mirrored, changed, 0.0)

    return mapped(one, (physics, drawn, mirrored))


def _bounds(coordinates: PhysicsCoordinates) -> tuple[JaxArray, JaxArray]:
    """Bounds of all physics parameters, shape (14,) each."""
    rows = [coordinates.space[name] for name in PHYSICS_PARAM_NAMES]
    return jnp.asarray([p.min for p in rows]), jnp.asarray([p.max for p in rows])


def _members(posterior: Posterior, groups: tuple[tuple[str, ...], ...]) -> BoolArray:
    """Which of the coordinates that are searched are in each group, (groups, m)."""
    names: IntArray = searched(posterior)
    varying = posterior.coordinates.names
    labels = [varying[k] if k < len(varying) else "" for k in names.tolist()]
    return np.array([[label in group for label in labels] for group in groups])
