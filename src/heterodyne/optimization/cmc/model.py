"""NumPyro models of the two-time correlation, for users who run them themselves.

``fit_cmc_multi_phi`` does not use them: its coordinates cost fewer gradients. The models
take the errors of all pairs as independent. Pairs that share a frame share its speckles, so
that intervals from measured data are too narrow; ``fit_cmc_multi_phi`` corrects them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from heterodyne._log import get_logger
from heterodyne._typing import ArrayLike
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.optimization.cmc._array_checks import count
from heterodyne.optimization.cmc._models_matrix import (
    get_heterodyne_model,
    get_heterodyne_model_constant,
    get_heterodyne_model_individual,
    get_heterodyne_model_reparam,
)
from heterodyne.optimization.cmc._models_mode import get_model_for_mode
from heterodyne.optimization.cmc._models_pooled import get_heterodyne_pooled_model_for_mode
from heterodyne.optimization.cmc._noise_estimate import estimate_sigma
from heterodyne.optimization.cmc.variants import (
    get_heterodyne_model_constant_averaged,
    xpcs_model_heterodyne_averaged,
    xpcs_model_heterodyne_constant,
    xpcs_model_heterodyne_constant_averaged,
    xpcs_model_heterodyne_scaled,
)
from heterodyne.optimization.scaling import ScalingMode

__all__ = [
    "xpcs_model_heterodyne_scaled",
    "xpcs_model_heterodyne_constant",
    "xpcs_model_heterodyne_averaged",
    "xpcs_model_heterodyne_constant_averaged",
    "get_heterodyne_pooled_model_for_mode",
    "get_heterodyne_model",
    "get_heterodyne_model_reparam",
    "get_heterodyne_model_constant",
    "get_heterodyne_model_constant_averaged",
    "get_heterodyne_model_individual",
    "get_model_for_mode",
    "estimate_sigma",
    "validate_model_output",
    "get_model_param_count",
]

_LOG = get_logger(__name__)

_LOWEST, _HIGHEST = -1.0, 10.0


def validate_model_output(c2_theory: ArrayLike, params: ArrayLike | Mapping[str, float]) -> bool:
    """Whether modelled c2 is finite and lies between -1 and 10.

    c2 of two components can be negative, since the phase between them turns.

    Args:
        c2_theory: Modelled correlation, any shape, at least one value.
        params: Parameters it was computed from; named in the log where the answer is no.
    """
    c2 = np.asarray(c2_theory, float)
    finite = np.isfinite(c2)
    inside = finite & (c2 >= _LOWEST) & (c2 <= _HIGHEST)
    if c2.size and inside.all():
        return True
    _LOG.warning(
        "Of %d modelled values of c2 %d are not finite and %d lie outside %g to %g, at the "
        "parameters %s.",
        c2.size, np.count_nonzero(~finite), np.count_nonzero(finite & ~inside), _LOWEST, _HIGHEST,
        dict(params) if isinstance(params, Mapping) else np.asarray(params).tolist(),
    )  # fmt: skip
    return False


def get_model_param_count(n_phi: int, per_angle_mode: str = "individual") -> int:
    """Count the sampled parameters of a model with all 14 physics parameters varying.

    Individual (or scaled) adds a contrast and an offset per angle; constant and
    constant_averaged add nothing. Sigma is not counted, nor are the one contrast and the
    one offset that auto (or averaged) takes from the parameter space where they vary.

    Args:
        n_phi: Number of detector angles.
        per_angle_mode: Treatment of contrast and offset.

    Raises:
        ConfigError: A mode that is not known, or no angle.
    """
    angles = count(n_phi, "n_phi")
    each = ScalingMode.parse(per_angle_mode) is ScalingMode.INDIVIDUAL
    return len(PHYSICS_PARAM_NAMES) + 2 * angles * each
