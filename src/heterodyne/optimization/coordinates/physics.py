"""The bijection between sampling coordinates and the 14 physics parameters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from heterodyne._typing import ArrayLike, FloatArray, IntArray, JaxArray
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jnp
from heterodyne.optimization.coordinates.curves import (
    CURVE_PARAMETERS,
    EXPONENTS,
    OFFSETS,
    PREFACTORS,
    WALL,
    CurveCoordinates,
    Curves,
    CurveValues,
)
from heterodyne.optimization.coordinates.ridge import Ridge
from heterodyne.optimization.coordinates.walls import bend, unbend

ALL_CHARTS = (True, True, True, True)

_MARGIN = 1e-3
_INDEX = {name: k for k, name in enumerate(PHYSICS_PARAM_NAMES)}
_ROWS = tuple(np.array([_INDEX[n] for n in names]) for names in (PREFACTORS, EXPONENTS, OFFSETS))
_F2, _PHI0 = _INDEX["f2"], _INDEX["phi0"]
_V0, _BETA, _V_OFFSET = (_INDEX[name] for name in CURVE_PARAMETERS[2])
# Degrees between flow and axis up to which what is seen of the velocity tells it.
_MOST_OBLIQUE = 80.0
# Mean of cos 2 (phi - axis) below which no direction is seen better than others.
_LEAST_ALIGNED = 0.1


@dataclass(frozen=True)
class PhysicsCoordinates:
    """Unconstrained coordinates of the varying physics parameters.

    There is one coordinate for each varying parameter, in canonical order: in the place
    of a prefactor the log amplitude at the reference time, of an exponent the slope (the
    exponent where another parameter of the curve is fixed), of an offset the level, of f2
    the position on the (f0, f2) ridge.

    Attributes:
        space: Bounds, priors, and values of fixed parameters.
        log_time: Reference time of the power laws in s.
        mid_time: Reference time of the fraction in s.
        log_spread: Standard deviation of log times.
        spread: Standard deviation of times in s.
        charts: Whether each of J_ref, J_sample, v and s has level and slope for coordinates
            rather than offset and exponent.
        axis: Direction in degrees onto which coordinates of the velocity are projected, since
            data of a single angle inform v cos(phi + phi0) and neither factor; None for none.
    """

    space: ParameterSpace
    log_time: float
    mid_time: float
    log_spread: float
    spread: float
    charts: tuple[bool, bool, bool, bool] = ALL_CHARTS
    axis: float | None = None

    @classmethod
    def of(
        cls,
        space: ParameterSpace,
        t: ArrayLike,
        charts: tuple[bool, bool, bool, bool] = ALL_CHARTS,
        phi: ArrayLike | None = None,
    ) -> PhysicsCoordinates:
        """Choose reference times for a time grid, and an axis for detector angles.

        Args:
            space: The parameters of the run.
            t: Times of the fitted frames in s, shape (N,); t = 0 is ignored.
            charts: Which curves have level and slope for coordinates.
            phi: Detector angles in degrees, any shape; without them, or without level and slope
                of the velocity, nothing is projected.
        """
        times = np.asarray(t, float)
        times = times[times > 0]
        log = np.log(times)
        return cls(
            space,
            float(np.exp(log.mean())),
            float(times.mean()),
            float(log.std()),
            float(times.std()),
            charts,
            None if phi is None or not charts[2] else _axis_of(np.asarray(phi, float), space),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Varying physics parameters in canonical order."""
        return tuple(n for n in PHYSICS_PARAM_NAMES if self.space[n].vary)

    @property
    def size(self) -> int:
        """Number of coordinates, equal to the number of varying parameters."""
        return len(self.names)

    @cached_property
    def indices(self) -> IntArray:
        """Places of the varying parameters among the 14, shape (size,)."""
        return np.array([_INDEX[n] for n in self.names], int)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """What each coordinate is."""
        words = dict.fromkeys(PHYSICS_PARAM_NAMES, "")
        velocity = "velocity" if self.axis is None else f"velocity along {self.axis:.4g} deg"
        curves = ("J reference", "J sample", velocity, "fraction")
        sheared = self.curves.sheared
        for k, curve in enumerate(curves):
            words[PREFACTORS[k]] = f"log amplitude of {curve}"
            words[EXPONENTS[k]] = f"{'slope' if sheared[k] else 'exponent'} of {curve}"
            words[OFFSETS[k]] = f"level of {curve}"
        words |= {"f2": "f2 along the (f0, f2) ridge" if self.on_ridge else "f2", "phi0": "phi0"}
        return tuple(words[n] for n in self.names)

    @property
    def on_ridge(self) -> bool:
        """Whether the coordinate of f2 runs along the ridge of f0 and f2."""
        # At f1 = 0 for good there is no ridge: f0 alone is the amplitude.
        f1 = self.space["f1"]
        turning = f1.vary or f1.value != 0.0
        return turning and self.space["f0"].vary and self.space["f2"].vary

    @cached_property
    def curves(self) -> Curves:
        """Chart of transports, velocity and fraction."""
        knots = (self.log_spread, self.log_spread, self.log_spread, self.spread)
        return Curves(self.space, self.on_ridge, knots, self.charts)

    @cached_property
    def _ridge(self) -> Ridge:
        return Ridge(self.space["f0"], self.space["f2"], self.mid_time)

    @cached_property
    def _placement(self) -> FloatArray:
        """Matrix that puts coordinates in the places of their parameters, (14, size)."""
        return np.eye(len(PHYSICS_PARAM_NAMES))[:, self.indices]

    def _linear(self, name: str) -> tuple[float, float, float]:
        p = self.space[name]
        return p.min, p.max, WALL * (p.max - p.min)

    def _shift(self, f2: JaxArray | float) -> JaxArray:
        log_time = np.log(self.log_time)
        fraction = jnp.asarray(self.mid_time - f2)
        return jnp.concatenate([jnp.full(3, log_time), fraction[None]])

    def forward(self, y: JaxArray) -> tuple[JaxArray, JaxArray]:
        """Map coordinates to parameters.

        Args:
            y: Coordinates, shape (size,).

        Returns:
            All 14 parameters in canonical order, and the logarithm of
            |d varying parameters / d y|.
        """
        places = jnp.asarray(self._placement) @ y
        phi0, log_det = self._phi0(places[_PHI0])
        places, change = self._turned(places, phi0, -1.0)
        log_det += change
        f2 = jnp.asarray(self.space["f2"].value)
        if self.space["f2"].vary and not self.on_ridge:
            f2, change = bend(places[_F2], *self._linear("f2"))
            log_det += change
        amplitude, exponent, level = (places[rows] for rows in _ROWS)
        parts = CurveCoordinates(amplitude, exponent, level)
        curve, change = self.curves.forward(parts, self._shift(f2))
        log_det += change
        if self.on_ridge:
            at = (curve.log_amplitude[3], curve.exponent[3])
            f2, change = self._ridge.forward(places[_F2], *at)
            log_det += change
        log_prefactor = curve.log_amplitude - curve.exponent * self._shift(f2)
        vary = self.curves.prefactor.vary
        log_det += jnp.where(vary, log_prefactor, 0.0).sum()
        fixed = np.array([self.space[n].value for n in PREFACTORS])
        prefactor = jnp.where(vary, jnp.exp(log_prefactor), fixed)
        parameters = jnp.concatenate(
            [prefactor, curve.exponent, curve.offset, f2[None], phi0[None]]
        )
        return parameters[_ORDER], log_det

    def inverse(self, parameters: ArrayLike) -> JaxArray:
        """Map parameters strictly inside their bounds to coordinates, shape (size,)."""
        p = jnp.asarray(parameters)
        prefactor, exponent, offset = (p[rows] for rows in _ROWS)
        shift = self._shift(p[_F2])
        log_m = jnp.log(prefactor) + exponent * shift
        y = self.curves.inverse(CurveValues(log_m, exponent, offset), shift)
        if self.on_ridge:
            f2 = self._ridge.inverse(p[_F2], log_m[3], exponent[3])
        else:
            f2 = unbend(p[_F2], *self._linear("f2"))
        phi0 = unbend(p[_PHI0], *self._linear("phi0"))
        places = jnp.concatenate([*y, f2[None], phi0[None]])[_ORDER]
        places, _ = self._turned(places, p[_PHI0], 1.0)
        return places[self.indices]

    def of_flow(self, y: JaxArray) -> JaxArray:
        """Take the velocity along the flow for that along the axis, shape (size,)."""
        return self._moved(y, -1.0)

    def of_axis(self, y: JaxArray) -> JaxArray:
        """Invert ``of_flow``."""
        return self._moved(y, 1.0)

    def _moved(self, y: JaxArray, sign: float) -> JaxArray:
        places = jnp.asarray(self._placement) @ y
        phi0, _ = self._phi0(places[_PHI0])
        return self._turned(places, phi0, sign)[0][self.indices]

    def _phi0(self, y: JaxArray) -> tuple[JaxArray, JaxArray]:
        """Flow angle in degrees, and log of its derivative by its coordinate."""
        phi0 = self.space["phi0"]
        if not phi0.vary:
            return jnp.asarray(phi0.value), jnp.zeros(())
        return bend(y, *self._linear("phi0"))

    @cached_property
    def _projected(self) -> tuple[FloatArray, FloatArray]:
        """Which coordinates grow by the logarithm of a factor, and which by the factor, (14,)."""
        by_log, by_factor = np.zeros((2, len(PHYSICS_PARAM_NAMES)))
        by_log[_V0] = 1.0
        by_factor[_BETA] = self.curves.sheared[2]
        by_factor[_V_OFFSET] = self.space["v_offset"].vary
        return by_log, by_factor

    def _turned(self, places: JaxArray, phi0: JaxArray, sign: float) -> tuple[JaxArray, JaxArray]:
        """Project the velocity onto the axis (sign 1), or undo it (-1).

        Returns:
            Coordinates in the places of their parameters, and log of the volume gained.
        """
        if self.axis is None:
            return places, jnp.zeros(())
        by_log, by_factor = self._projected
        step = sign * jnp.log(jnp.cos(jnp.deg2rad(self.axis + phi0)))
        return (places + by_log * step) * jnp.exp(by_factor * step), by_factor.sum() * step

    def ridge_centred(self, y: ArrayLike) -> FloatArray:
        """Move points to the centre of f2's conditional prior on the (f0, f2) ridge.

        The data do not change along the ridge, so nothing but the prior is lost or gained.

        Args:
            y: Coordinates, shape (..., size).
        """
        moved = np.array(y, float)
        if self.on_ridge:
            moved[..., self.names.index("f2")] = 0.0
        return moved

    def along_ridge(self, y: JaxArray, u: JaxArray) -> tuple[JaxArray, JaxArray, JaxArray]:
        """Return f0, f2 and the volume element along the ridge, up to a constant factor.

        Args:
            y: Coordinates, shape (size,); that of f2 is not used.
            u: Coordinates of f2, shape (n,).

        Returns:
            Arrays of shape (n,): f0, f2 in s, and log |d (f0, f2) / d (y, u)|.
        """
        log_m, f1 = self._fraction(y)
        f2, change = self._ridge.forward(u, log_m, f1)
        log_f0 = log_m - f1 * (self.mid_time - f2)
        return jnp.exp(log_f0), f2, change + log_f0

    def ridge_centre(self, y: JaxArray) -> JaxArray:
        """Coordinate of f2 around which its prior lies, scalar."""
        return self._ridge.nearest(*self._fraction(y))

    def _fraction(self, y: JaxArray) -> tuple[JaxArray, JaxArray]:
        """Log amplitude of the fraction at the reference time, and f1."""
        places = jnp.asarray(self._placement) @ y
        parts = CurveCoordinates(*(places[rows] for rows in _ROWS))
        curve, _ = self.curves.forward(parts, self._shift(0.0))
        return curve.log_amplitude[3], curve.exponent[3]

    def inside(self, parameters: ArrayLike) -> FloatArray:
        """Move parameters off their bounds, by a thousandth of the range at most.

        Args:
            parameters: The 14 parameters in canonical order, shape (..., 14); fixed
                ones are replaced by their values.
        """
        p = np.array(parameters, float)
        for k, name in enumerate(PHYSICS_PARAM_NAMES):
            setting = self.space[name]
            if not setting.vary:
                p[..., k] = setting.value
                continue
            low, high = setting.min, setting.max
            if setting.info.log_space:
                edge = (high / low) ** _MARGIN
                p[..., k] = np.clip(p[..., k], low * edge, high / edge)
            else:
                edge = _MARGIN * (high - low)
                p[..., k] = np.clip(p[..., k], low + edge, high - edge)
        return p


def _axis_of(phi: FloatArray, space: ParameterSpace) -> float | None:
    """Direction along which a velocity is best seen, in degrees; None where none stands out."""
    phi0 = space["phi0"]
    if not phi0.vary:
        return None
    turn = 2.0 * np.deg2rad(phi)
    cosine, sine = np.cos(turn).mean(), np.sin(turn).mean()
    axis = float(np.rad2deg(0.5 * np.arctan2(sine, cosine)))
    reached = all(abs(axis + end) <= _MOST_OBLIQUE for end in (phi0.min, phi0.max))
    return axis if reached and np.hypot(cosine, sine) > _LEAST_ALIGNED else None


# Where each parameter stands in (prefactors, exponents, offsets, f2, phi0).
_ORDER = np.argsort(np.concatenate([*_ROWS, [_F2, _PHI0]]))
