"""Priors as NumPyro distributions, and start values for sampling.

All priors are truncated to the bounds of their parameters, as those of ``ParameterSpace``.
"""

from heterodyne.optimization.cmc._priors_build import (
    PriorBuilder,
    build_default_priors,
    build_log_space_priors,
    build_nlsq_informed_priors,
)
from heterodyne.optimization.cmc._priors_checks import summarize_priors, validate_priors
from heterodyne.optimization.cmc._priors_estimates import (
    estimate_contrast_offset_from_data,
    estimate_per_angle_scaling,
)
from heterodyne.optimization.cmc._priors_families import temper_priors
from heterodyne.optimization.cmc._priors_start import (
    BOUNDARY_INTERIOR_MARGIN,
    build_init_values_dict,
    clamp_params_to_interior,
    clamp_to_interior,
    extract_nlsq_values_for_cmc,
    get_param_names_in_order,
    validate_init_values_order,
    validate_initial_value_bounds,
)
from heterodyne.optimization.cmc.variants import (
    build_default_priors_via_builder,
    build_log_space_priors_via_builder,
)

__all__ = [
    "build_nlsq_informed_priors",
    "build_default_priors",
    "build_log_space_priors",
    "temper_priors",
    "validate_priors",
    "summarize_priors",
    "get_param_names_in_order",
    "validate_initial_value_bounds",
    "build_init_values_dict",
    "extract_nlsq_values_for_cmc",
    "estimate_per_angle_scaling",
    "estimate_contrast_offset_from_data",
    "validate_init_values_order",
    "BOUNDARY_INTERIOR_MARGIN",
    "clamp_params_to_interior",
    "clamp_to_interior",
    "PriorBuilder",
    "build_default_priors_via_builder",
    "build_log_space_priors_via_builder",
]
