"""Quantities that data inform directly: rates and fraction at reference times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heterodyne._typing import ArrayLike, FloatArray, JaxArray
from heterodyne.core._jax import jax, jnp
from heterodyne.core.frames import frame_functions

_BLOCK = 256
_POSITIONS = (0.1, 0.5, 0.9)
_CURVES = (("J_ref", "Å²/s"), ("J_sample", "Å²/s"), ("v", "Å/s"), ("s", ""))


def unit_of(name: str) -> str:
    """Unit of a quantity by its name, such as ``J_ref(12.5 s)``; empty where it has none."""
    return dict(_CURVES)[name.partition("(")[0]]


def curves_at(parameters: JaxArray, times: JaxArray) -> JaxArray:
    """J of both components, v and s at times in s, shape (4 n,), from the 14 parameters."""
    f = frame_functions(parameters, times)
    return jnp.concatenate([f.transport_reference, f.transport_sample, f.velocity, f.fraction])


@dataclass(frozen=True)
class Derived:
    """J of both components, v and s at three times of the window.

    Attributes:
        times: Reference times in s: 10, 50 and 90 % of the fitted frames.
    """

    times: tuple[float, ...]

    @classmethod
    def of(cls, t: ArrayLike) -> Derived:
        """Choose the reference times among the fitted frames, t > 0."""
        fitted = np.asarray(t, float)
        fitted = fitted[fitted > 0]
        index = [round(p * (fitted.size - 1)) for p in _POSITIONS]
        return cls(tuple(float(fitted[k]) for k in index))

    @property
    def names(self) -> tuple[str, ...]:
        """Names such as ``J_ref(12.5 s)``."""
        return tuple(f"{curve}({t:.4g} s)" for curve, _ in _CURVES for t in self.times)

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of each quantity; empty where it has none."""
        return tuple(unit for _, unit in _CURVES for _ in self.times)

    def __call__(self, parameters: JaxArray) -> JaxArray:
        """Evaluate the quantities, shape (12,), from the 14 physics parameters."""
        return curves_at(parameters, jnp.asarray(self.times))

    def batch(self, parameters: ArrayLike) -> FloatArray:
        """Evaluate many draws, shape (n, 14) to (n, 12)."""
        rows, times = np.asarray(parameters, float), np.asarray(self.times)
        # Blocks of one shape, so that any number of draws shares compiled code.
        padded = np.concatenate([rows, np.repeat(rows[-1:], -len(rows) % _BLOCK, axis=0)])
        blocks = padded.reshape(-1, _BLOCK, rows.shape[1])
        found = [np.asarray(_batch(block, times)) for block in blocks]
        return np.concatenate(found)[: len(rows)]


_batch = jax.jit(jax.vmap(curves_at, in_axes=(0, None)))
