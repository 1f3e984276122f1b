"""Settings of Consensus Monte Carlo: every field once, with its limits and its section."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from heterodyne._errors import ConfigError
from heterodyne.config._cmc_fields import field_problems, problem, sections_of
from heterodyne.config._cmc_sections import Section, gather, nest, unused_keys
from heterodyne.config._fields import described
from heterodyne.config._suggest import not_known
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES

DENSE_MASS_WARMUP_FLOOR = 1500
"""Smallest number of warm-up steps with a dense mass matrix."""

_N_PARAMS_HETERODYNE = len(PHYSICS_PARAM_NAMES)
_REFERENCE_SHARD_SIZE = 10_000

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
FolderName = Annotated[str, Field(min_length=1)]
AngleMode = Literal["auto", "individual", "scaled", "averaged", "constant", "constant_averaged"]
_MODE_SYNONYMS = {"scaled": "individual", "averaged": "auto"}


def effective_warmup_floor(requested: int, *, dense_mass: bool, fast_warmup: bool = False) -> int:
    """Return the number of warm-up steps that adaptation needs.

    Args:
        requested: Number asked for.
        dense_mass: Whether a dense mass matrix is adapted.
        fast_warmup: Take the number as it is, with a warning; for tests.
    """
    if not dense_mass or requested >= DENSE_MASS_WARMUP_FLOOR:
        return requested
    if not fast_warmup:
        return DENSE_MASS_WARMUP_FLOOR
    # One location and no figures: the default filter shows it once per process.
    warnings.warn(
        f"fast_warmup: fewer than {DENSE_MASS_WARMUP_FLOOR} warm-up steps for a dense mass "
        "matrix; do not use the draws for results.",
        UserWarning,
        stacklevel=1,
    )
    return requested


@dataclass
class CMCConfig:
    """Settings of one Consensus Monte Carlo run.

    Nothing is checked on construction; ``validate`` tells what is wrong. Meaning, limits
    and section of each field stand in its annotation, and in the JSON schema of run files.
    """

    enable: Annotated[
        bool | Literal["auto", "always", "never"],
        Section.TOP,
        described("Whether to use shards; auto: from min_points_for_cmc points on"),
    ] = "auto"
    min_points_for_cmc: Annotated[
        int, Section.TOP, described("Number of points from which enable: auto uses shards", ge=0)
    ] = 100_000
    per_angle_mode: Annotated[
        AngleMode,
        Section.PER_ANGLE,
        described(
            "Contrast and offset: individual (or scaled) samples a pair per angle, averaged one "
            "pair; auto is averaged from constant_scaling_threshold angles on and individual "
            "below; constant and constant_averaged fix them"
        ),
    ] = "auto"
    constant_scaling_threshold: Annotated[
        Count,
        Section.PER_ANGLE,
        described("Number of angles from which auto samples one pair of contrast and offset"),
    ] = 3
    sharding_strategy: Annotated[
        Literal["random", "contiguous", "stratified", "angle_balanced"],
        Section.SHARDING,
        described("How points are assigned to shards"),
    ] = "random"
    num_shards: Annotated[
        Count | Literal["auto"], Section.SHARDING, described("Number of shards")
    ] = "auto"
    max_points_per_shard: Annotated[
        Count | Literal["auto"], Section.SHARDING, described("Largest shard; auto: no limit")
    ] = "auto"
    min_points_per_shard: Annotated[
        Count, Section.SHARDING, described("Smallest shard, in points")
    ] = 10_000
    min_points_per_param: Annotated[
        Count, Section.SHARDING, described("Smallest number of points of a shard per parameter")
    ] = 1500
    backend_name: Annotated[
        Literal["auto", "cpu", "multiprocessing", "jax", "pjit", "pbs", "worker_pool"],
        Section.BACKEND,
        described("Where shards run; jax means multiprocessing"),
    ] = "auto"
    enable_checkpoints: Annotated[
        bool, Section.BACKEND, described("Keep the result of each finished shard on disk")
    ] = True
    checkpoint_dir: Annotated[
        FolderName, Section.BACKEND, described("Folder of the finished shards")
    ] = "./checkpoints/cmc"
    chain_method: Annotated[
        Literal["parallel", "sequential"],
        Section.BACKEND,
        described("How the chains of one shard run"),
    ] = "parallel"
    num_warmup: Annotated[
        Count, Section.MCMC, described("Most warm-up steps of a chain; fits take 400 at most")
    ] = 1500
    num_samples: Annotated[Count, Section.MCMC, described("Number of draws of each chain")] = 1500
    num_chains: Annotated[Count, Section.MCMC, described("Number of chains of each shard")] = 4
    target_accept_prob: Annotated[
        float,
        Section.MCMC,
        described("Acceptance probability that the step size is adapted to", ge=0.5, le=0.99),
    ] = 0.9
    max_tree_depth: Annotated[
        int, Section.MCMC, described("Largest number of doublings of a trajectory", ge=1, le=20)
    ] = 10
    seed: Annotated[
        int, Section.MCMC, described("Seed of all random numbers", ge=0, le=2**32 - 1)
    ] = 42
    dense_mass: Annotated[
        bool, Section.MCMC, described("Adapt a full mass matrix rather than a diagonal one")
    ] = True
    init_strategy: Annotated[
        Literal["init_to_median", "init_to_sample", "init_to_value"],
        Section.MCMC,
        described("Where chains start"),
    ] = "init_to_median"
    adaptive_sampling: Annotated[
        bool,
        Section.MCMC,
        described(f"Fewer steps for shards of less than {_REFERENCE_SHARD_SIZE} points"),
    ] = True
    min_warmup: Annotated[
        Count, Section.MCMC, described("Smallest number of warm-up steps of a small shard")
    ] = 100
    min_samples: Annotated[
        Count, Section.MCMC, described("Smallest number of draws of a small shard")
    ] = 200
    fast_warmup: Annotated[
        bool,
        Section.MCMC,
        described(f"Allow dense mass below {DENSE_MASS_WARMUP_FLOOR} warm-up steps; for tests"),
    ] = False
    max_r_hat: Annotated[
        float, Section.VALIDATION, described("Largest R-hat that counts as converged", gt=1)
    ] = 1.1
    min_ess: Annotated[
        int, Section.VALIDATION, described("Smallest effective number of draws", ge=0)
    ] = 400
    min_bfmi: Annotated[
        Share,
        Section.VALIDATION,
        described("Smallest energy-based fraction of missing information"),
    ] = 0.3
    max_divergence_rate: Annotated[
        Share, Section.VALIDATION, described("Largest share of divergent draws of a shard")
    ] = 0.1
    require_nlsq_warmstart: Annotated[
        bool, Section.VALIDATION, described("Stop where there is no least-squares fit to start at")
    ] = False
    allow_degenerate_warmstart: Annotated[
        bool,
        Section.VALIDATION,
        described("Sample although the fit leaves the transport of the sample undetermined"),
    ] = False
    max_parameter_cv: Annotated[
        Positive,
        Section.VALIDATION,
        described("Largest distance of shards' means in posterior widths, if beyond chance (1 %)"),
    ] = 1.0
    heterogeneity_abort: Annotated[
        bool, Section.VALIDATION, described("Stop where the shards contradict each other")
    ] = True
    use_nlsq_warmstart: Annotated[
        bool, Section.NLSQ, described("Start chains at the least-squares fit")
    ] = True
    use_nlsq_informed_priors: Annotated[
        bool | Literal["literal"],
        Section.NLSQ,
        described(
            "true: an earlier fit sets start and scale; literal: it also centres the priors, "
            "which counts the data twice"
        ),
    ] = True
    nlsq_prior_width_factor: Annotated[
        Positive, Section.NLSQ, described("Width of such priors in standard errors of the fit")
    ] = 2.0
    use_log_space_priors: Annotated[
        bool, Section.NLSQ, described("Log-normal priors of prefactors; false: truncated normal")
    ] = True
    prior_tempering: Annotated[
        bool, Section.TOP, described("Give each of K shards the prior to the power 1/K")
    ] = True
    combination_method: Annotated[
        Literal[
            "robust_consensus_mc", "consensus_mc", "weighted_gaussian", "simple_average", "auto"
        ],
        Section.COMBINATION,
        described("How shards are combined"),
    ] = "robust_consensus_mc"
    min_success_rate: Annotated[
        Share, Section.COMBINATION, described("Share of converged shards below which a run fails")
    ] = 0.9
    min_success_rate_warning: Annotated[
        Share, Section.COMBINATION, described("Share of converged shards below which a run warns")
    ] = 0.8
    per_shard_timeout: Annotated[
        Count, Section.TIMEOUT, described("Longest time for a shard", "s")
    ] = 7200
    heartbeat_timeout: Annotated[
        Count, Section.TIMEOUT, described("Longest silence of a worker", "s")
    ] = 600
    enable_jax_profiling: Annotated[
        bool, Section.TOP, described("Record a profile of the computation")
    ] = False
    jax_profile_dir: Annotated[FolderName, Section.TOP, described("Folder of the profile")] = (
        "./profiles/jax"
    )
    use_reparam: Annotated[
        bool, Section.REPARAMETERIZATION, described("Sample in coordinates that the data identify")
    ] = True
    reparameterization_d_total: Annotated[
        bool,
        Section.REPARAMETERIZATION,
        described("Sample each transport coefficient at a reference time"),
    ] = True
    reparameterization_log_gamma: Annotated[
        bool, Section.REPARAMETERIZATION, described("Sample the velocity at a reference time")
    ] = True
    bimodal_min_weight: Annotated[
        float,
        Section.REPARAMETERIZATION,
        described("Smallest weight of a second mode", ge=0, le=0.5),
    ] = 0.2
    bimodal_min_separation: Annotated[
        float,
        Section.REPARAMETERIZATION,
        described("Smallest distance of two modes in standard deviations", ge=0),
    ] = 0.5
    run_id: Annotated[
        Annotated[str, Field(pattern=r"^\w[\w .+-]*$")] | None,
        Section.TOP,
        described("Name of the run in messages and paths"),
    ] = None
    _validation_errors: list[str] = field(default_factory=list, repr=False, compare=False)

    def validate(self) -> list[str]:
        """Check every field.

        Returns:
            One sentence per problem, empty if there is none.
        """
        found = field_problems(self)
        if self.require_nlsq_warmstart is True and self.use_nlsq_warmstart is False:
            found.append("require_nlsq_warmstart is true and use_nlsq_warmstart is false")
        self._validation_errors = found
        return list(found)

    def is_valid(self) -> bool:
        """Whether ``validate`` finds no problem."""
        return not self.validate()

    def should_enable_cmc(self, n_points: int, analysis_mode: str | None = None) -> bool:
        """Decide between shards and a single run.

        Args:
            n_points: Number of data points.
            analysis_mode: Not used; there is one model.

        Raises:
            ConfigError: ``enable`` is none of its words.
        """
        if self.enable in (True, "always"):
            return True
        if self.enable in (False, "never"):
            return False
        if self.enable == "auto":
            return n_points >= self.min_points_for_cmc
        raise ConfigError(problem(self, "enable"))

    def get_num_shards(
        self, n_points: int, n_phi: int, n_params: int = _N_PARAMS_HETERODYNE
    ) -> int:
        """Number of shards, at least 1.

        With ``auto`` there are as many as angles (at least 2), fewer where shards would
        fall below their smallest size, more where they would exceed the largest.

        Args:
            n_points: Number of data points.
            n_phi: Number of angles.
            n_params: Number of parameters.

        Raises:
            ConfigError: ``num_shards`` is neither a number nor ``auto``.
        """
        if isinstance(self.num_shards, int):
            return max(1, self.num_shards)
        if self.num_shards != "auto":
            raise ConfigError(problem(self, "num_shards"))
        shards = min(
            max(n_phi, 2),
            n_points // self.min_points_per_shard,
            n_points // (n_params * self.min_points_per_param),
        )
        if isinstance(self.max_points_per_shard, int):
            shards = max(shards, math.ceil(n_points / self.max_points_per_shard))
        return max(1, min(shards, n_points))

    def get_adaptive_sample_counts(
        self, shard_size: int, n_params: int = _N_PARAMS_HETERODYNE
    ) -> tuple[int, int]:
        """Number of warm-up steps and of draws for a shard.

        Both shrink in proportion to the shard below 10,000 points, down to their
        minima; a dense mass matrix keeps its own floor of warm-up steps.

        Args:
            shard_size: Number of points of the shard.
            n_params: Number of parameters; there are at least as many draws.
        """
        if not self.adaptive_sampling:
            return self.num_warmup, self.num_samples
        scale = min(max(shard_size / _REFERENCE_SHARD_SIZE, 0.0), 1.0)
        warmup = max(self.min_warmup, round(self.num_warmup * scale))
        samples = max(self.min_samples, round(self.num_samples * scale), n_params)
        warmup = effective_warmup_floor(
            warmup, dense_mass=self.dense_mass, fast_warmup=self.fast_warmup
        )
        return warmup, samples

    def get_effective_per_angle_mode(
        self,
        n_phi: int,
        nlsq_per_angle_mode: str | None = None,
        has_nlsq_warmstart: bool = False,
    ) -> str:
        """Treatment of contrast and offset for a data set.

        Args:
            n_phi: Number of angles.
            nlsq_per_angle_mode: Treatment in the preceding fit, which is kept.
            has_nlsq_warmstart: Whether that fit is there to start at.

        Returns:
            ``auto`` (one sampled pair), ``individual``, ``constant`` or ``constant_averaged``.

        Raises:
            ConfigError: A mode is not known.
        """
        own = _angle_mode(self.per_angle_mode)
        if nlsq_per_angle_mode is not None:
            fitted = _angle_mode(nlsq_per_angle_mode)
            both_auto = fitted == own == "auto"
            return "constant_averaged" if both_auto and has_nlsq_warmstart else fitted
        if own != "auto" or self.per_angle_mode != "auto":
            return own
        return "auto" if n_phi >= self.constant_scaling_threshold else "individual"

    def to_dict(self) -> dict[str, Any]:
        """Nested form, which ``from_dict`` reads back without loss."""
        sections = sections_of(type(self))
        return nest({name: getattr(self, name) for name in sections}, sections)

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any]) -> CMCConfig:
        """Read a nested or flat configuration; what is absent has its default.

        Besides the field names, older and shorter keys are read, such as
        ``target_accept``, or ``strategy`` within ``sharding``. Unknown keys are ignored
        with a ``UserWarning``.

        Raises:
            ConfigError: A section is not a mapping.
        """
        values, left = gather(config_dict, sections_of(cls))
        for message in unused_keys(left, sections_of(cls)):
            warnings.warn(f"CMCConfig ignores the {message}", UserWarning, stacklevel=2)
        return cls(**values)


def _angle_mode(word: str) -> str:
    if word not in get_args(AngleMode):
        raise ConfigError(not_known("mode", word, get_args(AngleMode)), where="per_angle_mode")
    return _MODE_SYNONYMS.get(word, word)
