"""NUTS on a user's own NumPyro model: plans, starts, retries and what a run says of itself.

The posterior of the package's own model has a faster way, ``fit_cmc_multi_phi``.
"""

from heterodyne.optimization.cmc._nuts_sampler import NUTSSampler
from heterodyne.optimization.cmc._plan import AdaptiveSamplingPlan, SamplingPlan
from heterodyne.optimization.cmc._retry import run_nuts_with_retry
from heterodyne.optimization.cmc._run_health import (
    DIVERGENCE_RATE_CRITICAL,
    DIVERGENCE_RATE_HIGH,
    DIVERGENCE_RATE_TARGET,
    SamplingStats,
)
from heterodyne.optimization.cmc._safe_start import compute_mcmc_safe_initial_values

__all__ = [
    "SamplingPlan",
    "AdaptiveSamplingPlan",
    "NUTSSampler",
    "SamplingStats",
    "run_nuts_with_retry",
    "compute_mcmc_safe_initial_values",
    "DIVERGENCE_RATE_TARGET",
    "DIVERGENCE_RATE_HIGH",
    "DIVERGENCE_RATE_CRITICAL",
]
