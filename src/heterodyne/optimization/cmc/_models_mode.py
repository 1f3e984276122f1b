"""The NumPyro model of two-time matrices for a treatment of contrast and offset."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from heterodyne._errors import ConfigError
from heterodyne._log import get_logger
from heterodyne._typing import ArrayLike, FloatArray
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.optimization.cmc._array_checks import finite
from heterodyne.optimization.cmc._models_matrix import (
    Model,
    get_heterodyne_model,
    get_heterodyne_model_constant,
    get_heterodyne_model_individual,
    get_heterodyne_model_reparam,
)
from heterodyne.optimization.cmc.reparameterization import ReparamConfig
from heterodyne.optimization.cmc.variants import get_heterodyne_model_constant_averaged
from heterodyne.optimization.scaling import ScalingMode

if TYPE_CHECKING:
    from heterodyne.optimization.nlsq.results import NLSQResult

_LOG = get_logger(__name__)

_NEEDED = {
    ScalingMode.AVERAGED: (),
    ScalingMode.CONSTANT: ("fixed_contrast", "fixed_offset"),
    ScalingMode.CONSTANT_AVERAGED: ("mean_contrast", "mean_offset"),
    ScalingMode.INDIVIDUAL: ("phi_angles",),
}


_BUILDERS: dict[ScalingMode, Callable[..., Model]] = {
    ScalingMode.AVERAGED: get_heterodyne_model,
    ScalingMode.CONSTANT: get_heterodyne_model_constant,
    ScalingMode.CONSTANT_AVERAGED: get_heterodyne_model_constant_averaged,
    ScalingMode.INDIVIDUAL: get_heterodyne_model_individual,
}


def get_model_for_mode(
    per_angle_mode: str,
    t: ArrayLike,
    q: float,
    dt: float,
    phi_angle: ArrayLike,
    c2_data: ArrayLike,
    noise_scale: float,
    space: ParameterSpace,
    nlsq_result: NLSQResult | None = None,
    reparam_config: ReparamConfig | None = None,
    num_shards: int = 1,
    **kwargs: Any,
) -> Model:
    """Build the model of a treatment of contrast and offset.

    auto or averaged is ``get_heterodyne_model``, or ``get_heterodyne_model_reparam`` with
    ``reparam_config``; constant, constant_averaged, and individual or scaled are
    ``get_heterodyne_model_constant``, ``_constant_averaged`` and ``_individual``.

    Args:
        per_angle_mode: One of the modes.
        t: Frame times in s, equally spaced, shape (N,).
        q: Wavevector in 1/Å.
        dt: Frame spacing in s.
        phi_angle: Detector angle in degrees; individual takes ``phi_angles`` instead.
        c2_data: Measured correlation, as the model takes it.
        noise_scale: Estimate of the error of a pair, > 0.
        space: Values, bounds and priors.
        nlsq_result: A fit, from which the coordinates of the reparametrised model count.
        reparam_config: Reference time of that model.
        num_shards: Number of shards; it widens the prior of sigma only.
        **kwargs: Further arguments of the model, some of which it needs: fixed_contrast and
            fixed_offset; mean_contrast and mean_offset; phi_angles.

    Returns:
        A model without arguments, which can be pickled.

    Raises:
        ConfigError: A mode that is not known, or an argument that its model needs.
    """
    mode = ScalingMode.parse(per_angle_mode)
    missing = [name for name in _NEEDED[mode] if name not in kwargs]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} must be given", where=f"per_angle_mode {per_angle_mode!r}"
        )
    builder = _BUILDERS[mode]
    if mode is ScalingMode.AVERAGED and reparam_config is not None:
        centre = None if nlsq_result is None else _values_of(nlsq_result, space)
        builder = get_heterodyne_model_reparam
        kwargs = {"nlsq_params": centre, "reparam_config": reparam_config} | kwargs
    else:
        _log_unused(nlsq_result=nlsq_result, reparam_config=reparam_config)
    angle = kwargs.pop("phi_angles") if mode is ScalingMode.INDIVIDUAL else phi_angle
    common = (t, q, dt, angle, c2_data, noise_scale, space)
    return builder(*common, num_shards=num_shards, **kwargs)


def _log_unused(**given: object) -> None:
    for name, value in given.items():
        if value is not None:
            _LOG.warning(
                "%s is not used: only auto with reparam_config samples other coordinates.", name
            )


def _values_of(result: NLSQResult, space: ParameterSpace) -> FloatArray:
    """Physics parameters of a fit; of those that it does not have, the start values."""
    values = space.values | result.as_dict()
    return finite([values[name] for name in PHYSICS_PARAM_NAMES], "nlsq_result")
