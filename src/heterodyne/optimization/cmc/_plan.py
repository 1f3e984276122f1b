"""How many steps NUTS takes, and how, for one data set or one shard of it."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from pydantic import Field

from heterodyne._errors import ConfigError
from heterodyne._log import get_logger
from heterodyne.config._cmc_fields import field_problems
from heterodyne.config._cmc_sections import Section
from heterodyne.config.cmc import (
    _REFERENCE_SHARD_SIZE,
    DENSE_MASS_WARMUP_FLOOR,
    CMCConfig,
    Count,
    effective_warmup_floor,
)

_log = get_logger(__name__)

_SEEDS = 2**32
# A shard keeps at least this part of the steps of the whole.
_SMALLEST_PART = 10

ChainMethod = Literal["sequential", "parallel", "vectorized"]


@dataclass(frozen=True)
class SamplingPlan:
    """Settings of one NUTS run; checked on construction.

    Attributes:
        num_warmup: Steps of adaptation of each chain.
        num_samples: Draws of each chain.
        num_chains: Number of chains.
        target_accept: Acceptance probability that the step size is adapted to, between 0 and 1.
        max_tree_depth: Largest number of doublings of a trajectory, 1 to 20.
        adapt_step_size: Adapt the step size; false keeps NumPyro's first one, 1.
        dense_mass: Adapt a full mass matrix rather than a diagonal one.
        chain_method: How NumPyro runs the chains: ``sequential``, ``parallel`` (a device
            each) or ``vectorized``.
        seed: Seed of all random numbers, from 0 to 2³² - 1; None draws one.
        fast_warmup: Allow a dense mass matrix fewer warm-up steps than
            ``DENSE_MASS_WARMUP_FLOOR``; for tests.

    Raises:
        ConfigError: A field is outside its limits.
    """

    num_warmup: Annotated[Count, Section.MCMC] = 500
    num_samples: Annotated[Count, Section.MCMC] = 1000
    num_chains: Annotated[Count, Section.MCMC] = 4
    target_accept: Annotated[float, Section.MCMC, Field(gt=0, lt=1)] = 0.8
    max_tree_depth: Annotated[int, Section.MCMC, Field(ge=1, le=20)] = 10
    adapt_step_size: Annotated[bool, Section.MCMC] = True
    dense_mass: Annotated[bool, Section.MCMC] = True
    chain_method: Annotated[ChainMethod, Section.MCMC] = "sequential"
    seed: Annotated[int | None, Section.MCMC, Field(ge=0, le=_SEEDS - 1)] = None
    fast_warmup: Annotated[bool, Section.MCMC] = False
    # Drawn on construction, so that copies sent to other processes agree on it.
    _drawn_seed: int = field(
        default_factory=lambda: secrets.randbelow(_SEEDS), init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        problems = field_problems(self)
        if problems:
            raise ConfigError("; ".join(problems), where="SamplingPlan")

    @property
    def effective_seed(self) -> int:
        """The seed, or the one that was drawn for this plan; always the same for one plan."""
        return self._drawn_seed if self.seed is None else self.seed

    @classmethod
    def from_config(
        cls, config: CMCConfig, n_data: int | None = None, n_params: int | None = None
    ) -> SamplingPlan:
        """Read the settings of a configuration.

        With ``config.adaptive_sampling``, counts shrink in proportion to the number of
        points as in ``CMCConfig.get_adaptive_sample_counts``. A dense mass matrix has its
        floor of warm-up steps in every case, unless ``config.fast_warmup`` is set.

        Args:
            config: Settings.
            n_data: Number of points of the shard; None keeps the configured counts.
            n_params: Number of unknowns, with ``n_data`` the smallest number of draws;
                None stands for the 14 parameters of the model.

        Raises:
            ConfigError: ``n_data`` or ``n_params`` is not positive, or the configuration
                holds a value outside its limits.
        """
        warmup, samples = config.num_warmup, config.num_samples
        if n_params is not None:
            _check_positive(n_params=n_params)
        if n_data is not None:
            _check_positive(n_data=n_data)
            unknowns = () if n_params is None else (int(n_params),)
            warmup, samples = config.get_adaptive_sample_counts(int(n_data), *unknowns)
        return cls(
            num_warmup=_enough_warmup(warmup, config.dense_mass, config.fast_warmup),
            num_samples=samples,
            num_chains=config.num_chains,
            target_accept=config.target_accept_prob,
            max_tree_depth=config.max_tree_depth,
            dense_mass=config.dense_mass,
            chain_method=config.chain_method,
            seed=config.seed,
            fast_warmup=config.fast_warmup,
        )

    def for_shard(self, shard_size: int, full_size: int) -> SamplingPlan:
        """Return the plan of a shard, with the same seed.

        Counts scale with sqrt(shard_size / full_size), rounded down, and keep at least a
        tenth, and 1. A dense mass matrix has its floor of warm-up steps, which may be more
        than this plan has, unless ``fast_warmup`` is set.

        Args:
            shard_size: Number of points of the shard.
            full_size: Number of points of all shards.

        Raises:
            ConfigError: A size is not positive, or the shard is larger than the whole.
        """
        _check_positive(shard_size=shard_size, full_size=full_size)
        if shard_size > full_size:
            raise ConfigError(
                f"a shard of {shard_size} points is larger than the whole",
                where="shard_size",
                allowed=f"1 to full_size, which is {full_size}",
            )
        return self._scaled(
            math.sqrt(shard_size / full_size),
            max(1, self.num_warmup // _SMALLEST_PART),
            max(1, self.num_samples // _SMALLEST_PART),
        )

    def _scaled(self, scale: float, least_warmup: int, least_samples: int) -> SamplingPlan:
        warmup = max(least_warmup, int(self.num_warmup * scale))
        return replace(
            self,
            num_warmup=_enough_warmup(warmup, self.dense_mass, self.fast_warmup),
            num_samples=max(least_samples, int(self.num_samples * scale)),
            seed=self.effective_seed,
        )


@dataclass(frozen=True)
class AdaptiveSamplingPlan:
    """A plan scaled to the number of points of a shard.

    Attributes:
        base_plan: Plan of a shard of the reference size.
        shard_size: Number of points of the shard.
        n_params: Number of unknowns, which sets the smallest counts.

    Raises:
        ConfigError: A size or number is not positive.
    """

    base_plan: SamplingPlan
    shard_size: int
    n_params: int
    _reference_shard_size: int = _REFERENCE_SHARD_SIZE

    def __post_init__(self) -> None:
        _check_positive(
            shard_size=self.shard_size,
            n_params=self.n_params,
            _reference_shard_size=self._reference_shard_size,
        )

    def get_plan(self) -> SamplingPlan:
        """Return the scaled plan, with the same seed.

        Counts scale with sqrt(shard_size / reference size), rounded down; a shard above the
        reference size has more steps. There are at least max(50, 5 n_params) warm-up steps
        and max(100, 10 n_params) draws. A dense mass matrix has its own floor of warm-up
        steps, unless ``fast_warmup`` is set.
        """
        return self.base_plan._scaled(
            math.sqrt(self.shard_size / self._reference_shard_size),
            max(50, 5 * int(self.n_params)),
            max(100, 10 * int(self.n_params)),
        )


def _enough_warmup(requested: int, dense_mass: bool, fast_warmup: bool) -> int:
    enough = effective_warmup_floor(requested, dense_mass=dense_mass, fast_warmup=fast_warmup)
    if enough > requested:
        _log.info(
            "%d warm-up steps instead of %d: a dense mass matrix needs at least %d",
            enough,
            requested,
            DENSE_MASS_WARMUP_FLOOR,
        )
    return enough


def _check_positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if not number > 0:
            raise ConfigError(f"{name} is {number}", allowed="an integer of at least 1")
