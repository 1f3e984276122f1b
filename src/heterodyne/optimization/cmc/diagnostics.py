"""Diagnostics of draws: convergence, divergences, modes and precision."""

from heterodyne.optimization.cmc._bimodal import (
    BimodalResult,
    check_shard_bimodality,
    detect_bimodal,
)
from heterodyne.optimization.cmc._convergence import (
    ConvergenceReport,
    validate_convergence,
    validate_convergence_sharded,
)
from heterodyne.optimization.cmc._criteria import (
    DEFAULT_MAX_DIVERGENCE_RATE,
    DEFAULT_MAX_RHAT,
    DEFAULT_MIN_ESS,
    check_convergence,
    create_diagnostics_dict,
    get_convergence_recommendations,
    log_analysis_summary,
    summarize_diagnostics,
)
from heterodyne.optimization.cmc._precision import (
    compute_nlsq_comparison_metrics,
    compute_posterior_contraction,
    compute_precision_analysis,
    log_precision_analysis,
)
from heterodyne.optimization.cmc._shard_modes import (
    BimodalConsensusResult,
    ModeCluster,
    cluster_shard_modes,
    summarize_cross_shard_bimodality,
)
from heterodyne.optimization.cmc._traces import (
    DivergenceReport,
    analyze_divergences,
    compute_bfmi,
    compute_ess,
    compute_pair_correlations,
    compute_r_hat,
    compute_trace_diagnostics,
)

__all__ = [
    "DEFAULT_MAX_DIVERGENCE_RATE",
    "DEFAULT_MAX_RHAT",
    "DEFAULT_MIN_ESS",
    "BimodalConsensusResult",
    "BimodalResult",
    "ConvergenceReport",
    "DivergenceReport",
    "ModeCluster",
    "analyze_divergences",
    "check_convergence",
    "check_shard_bimodality",
    "cluster_shard_modes",
    "compute_bfmi",
    "compute_ess",
    "compute_nlsq_comparison_metrics",
    "compute_pair_correlations",
    "compute_posterior_contraction",
    "compute_precision_analysis",
    "compute_r_hat",
    "compute_trace_diagnostics",
    "create_diagnostics_dict",
    "detect_bimodal",
    "get_convergence_recommendations",
    "log_analysis_summary",
    "log_precision_analysis",
    "summarize_cross_shard_bimodality",
    "summarize_diagnostics",
    "validate_convergence",
    "validate_convergence_sharded",
]
