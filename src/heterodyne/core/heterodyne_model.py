"""The two-component heterodyne model on one time grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from heterodyne._errors import ConfigError
from heterodyne._typing import ArrayLike, FloatArray
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace


@dataclass(frozen=True)
class ModelScaling:
    """Start values of the per-angle scaling.

    Attributes:
        contrast: Speckle contrast.
        offset: Baseline of c2.
    """

    contrast: float
    offset: float


@dataclass(frozen=True)
class HeterodyneModel:
    """Time grid, wavevector and parameters of a measurement.

    Attributes:
        t: Frame times in s, equally spaced, shape (N,).
        q: Wavevector in 1/Å.
        dt: Frame spacing in s.
        param_manager: Start values, bounds and priors of the parameters.
    """

    t: FloatArray
    q: float
    dt: float
    param_manager: ParameterSpace

    def __post_init__(self) -> None:
        t = np.asarray(self.t, float)
        object.__setattr__(self, "t", t)
        if t.ndim != 1 or t.size < 2:
            raise ConfigError(f"a time axis of shape {t.shape}", where="t", allowed="(N,), N > 1")
        for name, unit in (("q", "1/Å"), ("dt", "s")):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise ConfigError(f"{name} = {value!r} {unit}", where=name, allowed=f"> 0 {unit}")
        uneven = np.abs(np.diff(t) - self.dt).max()
        if uneven > 1e-3 * self.dt:
            raise ConfigError(
                f"the times are not spaced by dt = {self.dt:g} s; they differ by {uneven:g} s",
                where="t",
                remedy="The integrals of the model run over an even frame grid; mask bad "
                "frames instead of removing them",
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> HeterodyneModel:
        """Build a model from the sections of a run file.

        Args:
            config: ``analyzer_parameters`` with dt (s), start_frame, end_frame (1-based,
                inclusive), time_origin (``absolute``: frame i is at i dt; ``window``:
                the first frame is at dt) and scattering.wavevector_q (1/Å); and
                ``parameters``.

        Raises:
            ConfigError: A value that is missing or out of range.
        """
        where = "analyzer_parameters"
        section = config.get(where, {})
        scattering = section.get("scattering", {})
        dt = _required(section, "dt", where)
        q = _required(scattering, "wavevector_q", f"{where}.scattering")
        start, end = section.get("start_frame", 1), _required(section, "end_frame", where)
        if not (isinstance(start, int) and isinstance(end, int) and 1 <= start < end):
            raise ConfigError(
                f"frames {start} to {end}",
                where=where,
                allowed="whole numbers, 1 <= start_frame < end_frame",
            )
        origin = section.get("time_origin", "absolute")
        if origin not in ("absolute", "window"):
            raise ConfigError(
                f"time origin {origin!r}",
                where=f"{where}.time_origin",
                allowed="absolute, window",
            )
        first = start if origin == "absolute" else 1
        t = dt * np.arange(first, first + end - start + 1)
        space = ParameterSpace.from_config(config.get("parameters"))
        return cls(t, float(q), float(dt), space)

    @property
    def scaling(self) -> ModelScaling:
        """Start values of contrast and offset."""
        values = self.param_manager.values
        return ModelScaling(values["contrast"], values["offset"])

    @property
    def parameters(self) -> FloatArray:
        """Start values of the 14 physics parameters in canonical order."""
        values = self.param_manager.values
        return np.array([values[n] for n in PHYSICS_PARAM_NAMES])

    def c2(
        self,
        phi_angle: float,
        parameters: ArrayLike | None = None,
        contrast: float | None = None,
        offset: float | None = None,
    ) -> FloatArray:
        """Return the model's c2 at one angle, shape (N, N).

        Args:
            phi_angle: Detector angle in degrees.
            parameters: The 14 physics parameters; the start values if None.
            contrast: Contrast; the start value if None.
            offset: Offset; the start value if None.
        """
        from heterodyne.core.jax_backend import compute_c2_heterodyne

        start = self.scaling
        return np.asarray(
            compute_c2_heterodyne(
                self.parameters if parameters is None else parameters,
                self.t,
                self.q,
                self.dt,
                phi_angle,
                start.contrast if contrast is None else contrast,
                start.offset if offset is None else offset,
            )
        )


def _required(section: Mapping[str, Any], key: str, where: str) -> Any:
    value = section.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{key} is {value!r}", where=where, allowed="a number")
    return value
