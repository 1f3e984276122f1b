"""Per-frame functions of the model, from which every correlation is built."""

from __future__ import annotations

from typing import NamedTuple

from heterodyne._typing import JaxArray
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.core import rates
from heterodyne.core._jax import jnp


class FrameFunctions(NamedTuple):
    """What the model says about each frame.

    Attributes:
        transport_reference: J of the reference in Å²/s, shape (N,).
        transport_sample: J of the sample in Å²/s, shape (N,).
        velocity: v in Å/s, shape (N,).
        fraction: Sample fraction s, shape (N,).
        phi0: Flow angle in degrees, scalar.
    """

    transport_reference: JaxArray
    transport_sample: JaxArray
    velocity: JaxArray
    fraction: JaxArray
    phi0: JaxArray


def frame_functions(parameters: JaxArray, t: JaxArray) -> FrameFunctions:
    """Evaluate rates and fraction at the frame times.

    Args:
        parameters: The 14 physics parameters in canonical order, in their units.
        t: Frame times in s, shape (N,).
    """
    p = dict(zip(PHYSICS_PARAM_NAMES, parameters, strict=True))
    return FrameFunctions(
        rates.transport_coefficient(t, p["D0_ref"], p["alpha_ref"], p["D_offset_ref"]),
        rates.transport_coefficient(t, p["D0_sample"], p["alpha_sample"], p["D_offset_sample"]),
        rates.velocity(t, p["v0"], p["beta"], p["v_offset"]),
        rates.sample_fraction(t, p["f0"], p["f1"], p["f2"], p["f3"]),
        p["phi0"],
    )


def phase_rate(q: JaxArray | float, phi: JaxArray, phi0: JaxArray) -> JaxArray:
    """Return q cos(phi + phi0), the phase per Å of displacement, in 1/Å.

    Args:
        q: Wavevector in 1/Å.
        phi: Detector angles in degrees, any shape.
        phi0: Flow angle in degrees.
    """
    return q * jnp.cos(jnp.deg2rad(phi + phi0))
