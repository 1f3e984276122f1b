"""Contrast and offset: how many there are, their bounds, and their best values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from heterodyne._errors import ConfigError
from heterodyne._typing import FloatArray, JaxArray
from heterodyne.config._suggest import not_known
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jnp
from heterodyne.core.likelihood import PairData
from heterodyne.core.separable import PairSums


class ScalingMode(Enum):
    """How contrast and offset depend on the detector angle."""

    INDIVIDUAL = "individual"
    AVERAGED = "averaged"
    CONSTANT = "constant"
    CONSTANT_AVERAGED = "constant_averaged"

    @classmethod
    def parse(cls, word: str) -> ScalingMode:
        """Read a mode from a documented word.

        Raises:
            ConfigError: The word is not one of them.
        """
        synonyms = {"scaled": "individual", "auto": "averaged"}
        try:
            return cls(synonyms.get(word, word))
        except ValueError:
            words = [*(m.value for m in cls), *synonyms]
            raise ConfigError(
                not_known("scaling mode", word, words),
                where="per_angle_mode",
                allowed=", ".join(words),
            ) from None

    @property
    def shared(self) -> bool:
        """Whether all angles have the same contrast and offset."""
        return self in (ScalingMode.AVERAGED, ScalingMode.CONSTANT_AVERAGED)

    @property
    def sampled(self) -> bool:
        """Whether contrast and offset are unknowns."""
        return self in (ScalingMode.INDIVIDUAL, ScalingMode.AVERAGED)


@dataclass(frozen=True)
class ScalingParameter:
    """Contrast or offset at all angles.

    Attributes:
        name: ``contrast`` or ``offset``.
        low: Lower bound of each angle, equal to ``high`` where it is fixed.
        high: Upper bound of each angle.
        free: Number of unknowns: one per angle, one, or none.
        shared: Whether all angles have the same value.
    """

    name: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    free: int
    shared: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the unknowns."""
        if self.shared:
            return (self.name,) * self.free
        return tuple(f"{self.name}_{k}" for k in range(self.free))

    def spread(self) -> FloatArray:
        """Matrix that copies the unknowns to the angles, shape (n_angles, free)."""
        n = len(self.low)
        return np.ones((n, 1))[:, : self.free] if self.shared else np.eye(n)[:, : self.free]


@dataclass(frozen=True)
class Scaling:
    """Contrast and offset of one data set.

    Attributes:
        mode: How they depend on the angle.
        contrast: The contrast of each angle.
        offset: The offset of each angle.
    """

    mode: ScalingMode
    contrast: ScalingParameter
    offset: ScalingParameter

    @classmethod
    def of(
        cls,
        mode: ScalingMode,
        space: ParameterSpace,
        n_angles: int,
        *,
        contrast: Sequence[float] | None = None,
        offset: Sequence[float] | None = None,
    ) -> Scaling:
        """Set up the scaling of a run.

        Args:
            mode: How contrast and offset depend on the angle.
            space: Their bounds; one that does not vary keeps its value at every angle.
            n_angles: Number of detector angles.
            contrast: Values per angle, needed by the constant modes.
            offset: Values per angle, needed by the constant modes.

        Raises:
            ConfigError: A constant mode without values.
        """
        given = {"contrast": contrast, "offset": offset}
        parts = [cls._part(name, mode, space, n_angles, given[name]) for name in given]
        return cls(mode, *parts)

    @staticmethod
    def _part(
        name: str,
        mode: ScalingMode,
        space: ParameterSpace,
        n_angles: int,
        given: Sequence[float] | None,
    ) -> ScalingParameter:
        setting = space[name]
        if not setting.vary:
            fixed = (setting.value,) * n_angles
            return ScalingParameter(name, fixed, fixed, 0, mode.shared)
        if mode.sampled:
            free = 1 if mode.shared else n_angles
            low, high = (setting.min,) * n_angles, (setting.max,) * n_angles
            return ScalingParameter(name, low, high, free, mode.shared)
        if given is None:
            raise ConfigError(
                f"scaling mode {mode.value!r} without values of the {name}",
                remedy=f"Give the fixed {name} of each angle, or choose individual",
            )
        values = np.broadcast_to(np.asarray(given, float), n_angles)
        if mode.shared:
            values = np.full(n_angles, values.mean())
        fixed = tuple(float(v) for v in values)
        return ScalingParameter(name, fixed, fixed, 0, mode.shared)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the unknowns, contrasts first."""
        return (*self.contrast.names, *self.offset.names)

    @property
    def size(self) -> int:
        """Number of unknowns."""
        return self.contrast.free + self.offset.free

    def expand(self, unknowns: JaxArray) -> tuple[JaxArray, JaxArray]:
        """Return contrast and offset of each angle, shape (n_angles,) each.

        Args:
            unknowns: Contrasts, then offsets, shape (size,).
        """
        c, o = self.contrast, self.offset
        parts = (unknowns[: c.free], unknowns[c.free :])
        contrast, offset = (
            jnp.asarray(p.spread()) @ x if p.free else jnp.asarray(p.low)
            for p, x in zip((c, o), parts, strict=True)
        )
        return contrast, offset

    def collapse(self, contrast: JaxArray, offset: JaxArray) -> JaxArray:
        """Return the unknowns of given values per angle: the inverse of ``expand``."""
        parts = [
            x.mean()[None][: p.free] if p.shared else x[: p.free]
            for p, x in ((self.contrast, contrast), (self.offset, offset))
        ]
        return jnp.concatenate(parts)

    def profile(self, s: PairSums, data: PairData) -> tuple[JaxArray, JaxArray]:
        """Minimise the sum of squares over contrast and offset within their bounds.

        Returns:
            Contrast and offset of each angle, shape (n_angles,) each.
        """
        reference = data.baseline.mean()
        shift = data.baseline - reference
        gg, g, n = s.gg, s.g, data.total_weight
        dg, d = s.dg + shift * s.g, data.residue + shift * n
        if self.mode.shared:
            gg, g, n, dg, d = (jnp.broadcast_to(x.sum(), x.shape) for x in (gg, g, n, dg, d))
        limits = [jnp.asarray(x) for p in (self.contrast, self.offset) for x in (p.low, p.high)]
        c_low, c_high, o_low, o_high = limits
        variance = jnp.maximum(gg - g**2 / n, 1e-12 * gg + 1e-300)
        contrast = jnp.clip((dg - g * d / n) / variance, c_low, c_high)
        offset = jnp.clip((d - contrast * g) / n + reference, o_low, o_high)
        inner = jnp.maximum(gg, 1e-300)
        contrast = jnp.clip((dg - (offset - reference) * g) / inner, c_low, c_high)
        return contrast, jnp.clip((d - contrast * g) / n + reference, o_low, o_high)

    def quadratic(
        self, s: PairSums, contrast: JaxArray, offset: JaxArray, data: PairData
    ) -> tuple[JaxArray, JaxArray]:
        """Half the gradient and the curvature of the sum of squares in the unknowns.

        Args:
            s: Sums over pairs.
            contrast: Contrast of each angle, shape (n_angles,).
            offset: Offset of each angle, shape (n_angles,).
            data: Measured pairs.

        Returns:
            Arrays of shape (size,) and (size, size).
        """
        above = offset - data.baseline
        by_contrast = contrast * s.gg + above * s.g - s.dg
        by_offset = contrast * s.g + above * data.total_weight - data.residue
        c, o = (jnp.asarray(part.spread()) for part in (self.contrast, self.offset))
        gradient = jnp.concatenate([c.T @ by_contrast, o.T @ by_offset])
        crossed = (c * s.g[:, None]).T @ o
        rows = [
            jnp.concatenate([(c * s.gg[:, None]).T @ c, crossed], axis=1),
            jnp.concatenate([crossed.T, (o * data.total_weight[:, None]).T @ o], axis=1),
        ]
        return gradient, jnp.concatenate(rows)

    def information(self, gram: JaxArray, contrast: JaxArray) -> JaxArray:
        """Inner products of dc2/d(coordinates, contrasts, offsets), summed over angles.

        Args:
            gram: Inner products from ``core.information.gram``.
            contrast: Contrast of each angle, shape (n_angles,).

        Returns:
            Array of shape (p + size, p + size); over sigma**2 it is the Fisher information.
        """
        return self.information_by_angle(gram, contrast).sum(0)

    def information_by_angle(self, gram: JaxArray, contrast: JaxArray) -> JaxArray:
        """The terms of ``information``, shape (n_angles, p + size, p + size)."""
        p = gram.shape[-1] - 2
        n_angles = gram.shape[0]
        eye = jnp.broadcast_to(jnp.eye(p), (n_angles, p, p)) * contrast[:, None, None]
        basis = jnp.zeros((n_angles, p + 2, p + self.size)).at[:, :p, :p].set(eye)
        split = p + self.contrast.free
        basis = basis.at[:, p, p:split].set(self.contrast.spread())
        basis = basis.at[:, p + 1, split:].set(self.offset.spread())
        return jnp.einsum("aij,aik,akl->ajl", basis, gram, basis)
