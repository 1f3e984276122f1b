"""The bijection between sampling coordinates and the 14 physics parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from heterodyne._typing import ArrayLike, FloatArray, JaxArray
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jnp
from heterodyne.optimization.coordinates.charts import (
    Chart,
    FractionChart,
    PowerLawChart,
    ScalarChart,
)

_MARGIN = 1e-3


@dataclass(frozen=True)
class PhysicsCoordinates:
    """Unconstrained coordinates of the varying physics parameters.

    Attributes:
        space: Bounds, priors, and values of fixed parameters.
        charts: One chart per group of parameters.
    """

    space: ParameterSpace
    charts: tuple[Chart, ...]

    @classmethod
    def of(cls, space: ParameterSpace, t: ArrayLike) -> PhysicsCoordinates:
        """Choose reference times for a time grid.

        Args:
            space: The parameters of the run.
            t: Times of the fitted frames in s, shape (N,); t = 0 is ignored.
        """
        times = np.asarray(t, float)
        times = times[times > 0]
        log_mid, mid = float(np.exp(np.log(times).mean())), float(times.mean())
        p = space.parameters
        charts: tuple[Chart, ...] = (
            PowerLawChart.of(p["D0_ref"], p["alpha_ref"], p["D_offset_ref"], log_mid),
            PowerLawChart.of(p["D0_sample"], p["alpha_sample"], p["D_offset_sample"], log_mid),
            PowerLawChart.of(p["v0"], p["beta"], p["v_offset"], log_mid),
            FractionChart.of(p["f0"], p["f1"], p["f2"], p["f3"], mid),
            ScalarChart(p["phi0"]),
        )
        return cls(space, charts)

    @property
    def names(self) -> tuple[str, ...]:
        """Varying physics parameters in canonical order."""
        return tuple(n for n in PHYSICS_PARAM_NAMES if self.space[n].vary)

    @property
    def labels(self) -> tuple[str, ...]:
        """What each coordinate is, shape (size,)."""
        return tuple(
            label for chart in self.charts for label in chart.labels if _varies(chart, self.space)
        )

    @property
    def size(self) -> int:
        """Number of coordinates, equal to the number of varying parameters."""
        return len(self.names)

    def forward(self, y: JaxArray) -> tuple[JaxArray, JaxArray]:
        """Map coordinates to parameters.

        Args:
            y: Coordinates, shape (size,).

        Returns:
            All 14 parameters in canonical order, and the logarithm of
            |d varying parameters / d y|.
        """
        values: dict[str, JaxArray] = {}
        log_det = jnp.zeros(())
        start = 0
        for chart in self.charts:
            if not _varies(chart, self.space):
                values |= {n: jnp.asarray(self.space[n].value) for n in chart.names}
                continue
            stop = start + len(chart.labels)
            part, change = chart.forward(y[start:stop])
            values |= part
            log_det += change
            start = stop
        return jnp.stack([values[n] for n in PHYSICS_PARAM_NAMES]), log_det

    def inverse(self, parameters: ArrayLike) -> JaxArray:
        """Map parameters strictly inside their bounds to coordinates, shape (size,)."""
        p = jnp.asarray(parameters)
        values: Mapping[str, JaxArray] = dict(zip(PHYSICS_PARAM_NAMES, p, strict=True))
        parts = [c.inverse(values) for c in self.charts if _varies(c, self.space)]
        return jnp.concatenate(parts) if parts else jnp.zeros(0)

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


def _varies(chart: Chart, space: ParameterSpace) -> bool:
    return any(space[n].vary for n in chart.names)
