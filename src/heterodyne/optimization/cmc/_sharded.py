"""Consensus Monte Carlo on the engines: each shard drawn, combined, and held against all data.

The likelihood of a shard is that of its pairs, and its prior density in sampling coordinates is
that of all data to the power 1/K: the K densities multiply to the posterior. Their draws are
combined in sampling coordinates with full covariances. What that leaves to be desired is
measured: the combined draws are weighted by the posterior of all data over their own density,
taken as normal, and the shape of the tail of these weights tells whether that can be trusted.
Where it cannot, importance sampling of all data goes on from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from heterodyne._errors import SamplingError
from heterodyne._events import Message, ignore_events
from heterodyne._typing import FloatArray, JaxArray, StoredArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.core._jax import jax, jnp
from heterodyne.optimization.cmc._agreement import distances, refuse_contradiction
from heterodyne.optimization.cmc._assign import Sharding
from heterodyne.optimization.cmc._combination import (
    CORRECTED,
    SOUND,
    UNSOUND,
    Combination,
    interval_of_shards,
    which_failed,
)
from heterodyne.optimization.cmc._diagnostics import (
    THRESHOLDS,
    Diagnosis,
    Thresholds,
    diagnose,
)
from heterodyne.optimization.cmc._draws import Draws, Proposals
from heterodyne.optimization.cmc._frame import Frame
from heterodyne.optimization.cmc._importance import picked, smoothed
from heterodyne.optimization.cmc._nuts import Target
from heterodyne.optimization.cmc._passes import Passes, Sampled
from heterodyne.optimization.cmc._quantities import Quantities
from heterodyne.optimization.cmc._shard_plan import ShardPlan
from heterodyne.optimization.cmc._shard_task import Elsewhere
from heterodyne.optimization.cmc.combine import combined_draws
from heterodyne.optimization.posterior import Posterior

_BATCH = 8


def sample_shards(
    passes: Passes,
    c2: StoredArray,
    sharding: Sharding,
    config: CMCConfig,
    limits: Thresholds,
    elsewhere: Elsewhere | None = None,
    *,
    speckles: bool = False,
) -> tuple[Sampled, Combination]:
    """Draw every shard for independent errors and combine them.

    Args:
        passes: What all share.
        c2: Measured correlation, shape (n_angles, N, N).
        sharding: How pairs are divided.
        config: Rules of combination, and what to do about shards that fail or disagree.
        limits: What a shard must reach.
        elsewhere: Where shards are drawn; None draws them here, one after the other.
        speckles: Whether speckle noise is likely.

    Raises:
        SamplingError: Too few shards converged, or they contradict each other.
        InterruptedRunError: Shards are left that nobody draws.
    """
    found, pairs, problems = _shards(passes, c2, sharding, config, elsewhere)
    kept, failed = _successful(found, limits, config, passes, problems)
    apart = distances([one.quantities.all() for one in kept])
    refuse_contradiction(
        apart, config, sharding.strategy, speckles=speckles, on_event=passes.on_event
    )
    y = combined_draws(_of_one_length(kept), config.combination_method, passes.schedule.seed)
    whole = Target(passes.fit.problem.data, jnp.asarray(passes.scale))
    draws, held = _held_against_all(y, whole, passes)
    combined = Quantities.of(passes.posterior, y, passes.derived).all()
    if held == SOUND:
        sampled = passes.named(draws)
        of_chains = _of_chains(combined, kept)
        diagnosis = replace(sampled.diagnosis, kish=None).joined(of_chains)
        sampled = replace(sampled, diagnosis=diagnosis)
    else:
        sampled, held = _corrected(y, draws, whole, passes)
    assert draws.proposals is not None
    return sampled, Combination(
        sharding,
        config.combination_method,
        tuple(None if one is None else one.diagnosis for one in found),
        pairs,
        failed,
        problems,
        apart,
        draws.proposals.k_hat,
        draws.proposals.kish,
        _shift(sampled.quantities.all(), combined),
        held,
        combined,
        interval_of_shards(found),
    )


def _shards(
    passes: Passes,
    c2: StoredArray,
    sharding: Sharding,
    config: CMCConfig,
    elsewhere: Elsewhere | None,
) -> tuple[list[Sampled | None], tuple[int, ...], dict[int, str]]:
    """Draw every shard.

    Returns:
        The draws of each, None where there are none; its number of pairs; and why there are no
        draws.
    """
    plan = ShardPlan.of(passes, sharding, config)
    keeper, on_event = passes.keeper, passes.on_event
    problems: dict[int, str] = {}
    if elsewhere is not None:
        plan, problems = elsewhere.settled(plan, c2)
        # Their progress was seen while they were drawn.
        keeper, on_event = elsewhere.keeper, ignore_events
    labels = plan.labels(c2)
    found = [
        None if k in problems else plan.draw(k, c2, labels, keeper, on_event)
        for k in range(sharding.n_shards)
    ]
    return found, plan.sizes(labels), problems


def _successful(
    found: Sequence[Sampled | None],
    limits: Thresholds,
    config: CMCConfig,
    passes: Passes,
    problems: Mapping[int, str] | None = None,
) -> tuple[list[Sampled], tuple[int, ...]]:
    """Leave out shards that did not converge; say so, or give up where they are many."""
    drawn = {k: one for k, one in enumerate(found) if one is not None}
    good = {k: one for k, one in drawn.items() if one.diagnosis.passed(limits)}
    failed = tuple(k for k in range(len(found)) if k not in good)
    share = len(good) / len(found)
    if share < config.min_success_rate or not good:
        raise SamplingError(
            f"{len(failed)} of {len(found)} shards did not converge "
            f"({which_failed(failed, problems or {})})",
            where="combination",
            allowed=f"at least {config.min_success_rate:.0%} converged (min_success_rate)",
            remedy="Sample all data in one pass, use fewer shards, or raise num_samples",
        )
    if failed:
        words = f"{len(failed)} of {len(found)} shards did not converge and are left out"
        severity = "warning" if share < config.min_success_rate_warning else "info"
        text = f"{words}: the combination lacks their data."
        passes.on_event(Message(text, severity))
    return list(good.values()), failed


def _of_chains(values: Mapping[str, FloatArray], kept: Sequence[Sampled]) -> Diagnosis:
    """Convergence of combined draws as chains, and what went wrong in the shards."""
    shape = next(iter(values.values())).shape
    found = diagnose(values, np.full(shape, np.nan), np.zeros(shape, bool))
    # The log density is that of all data, which no chain has followed.
    unknown = {"log density": float("nan")}
    shards = [one.diagnosis for one in kept]
    divergences = [one.divergences for one in shards if one.divergences is not None]
    return Diagnosis(
        {**found.r_hat, **unknown},
        {**found.ess_bulk, **unknown},
        {**found.ess_tail, **unknown},
        tuple(x for one in shards for x in one.bfmi),
        sum(divergences) if divergences else None,
        sum(one.n_draws for one in shards),
    )


def _of_one_length(found: Sequence[Sampled]) -> list[FloatArray]:
    """Draws of the shards, cut to the fewest."""
    chains = min(one.draws.n_chains for one in found)
    count = min(one.draws.n_draws for one in found)
    return [one.draws.y[:chains, -count:] for one in found]


def _held_against_all(y: FloatArray, target: Target, passes: Passes) -> tuple[Draws, str]:
    """Weigh combined draws by the posterior of all data; pick by the weights if they hold.

    Args:
        y: Combined draws, shape (chains, draws, d).
        target: All data.
        passes: Posterior and seed.

    Returns:
        Draws with their weights, and ``SOUND`` or ``UNSOUND``.
    """
    flat = y.reshape(-1, y.shape[-1])
    points = jnp.asarray(_padded(flat))
    density = np.asarray(_log_densities(points, target, passes.posterior))
    density = np.nan_to_num(density[: len(flat)], nan=-np.inf)
    weights, k_hat = smoothed(density - _log_normal(flat))
    proposals = Proposals(flat, density, weights, k_hat)
    if not k_hat < THRESHOLDS.k_hat:
        return Draws(y, density.reshape(y.shape[:2]), proposals=proposals), UNSOUND
    rng = np.random.default_rng((passes.schedule.seed, 3))
    chosen = picked(weights, y.shape[0], y.shape[1], rng)
    return Draws(flat[chosen], density[chosen], proposals=proposals), SOUND


def _corrected(y: FloatArray, draws: Draws, target: Target, passes: Passes) -> tuple[Sampled, str]:
    """Go on from unsound combined draws by rounds of importance sampling of all data.

    Args:
        y: Combined draws, shape (chains, draws, d).
        draws: The same with their weights.
        target: All data.
        passes: What all share.

    Returns:
        The corrected draws and ``CORRECTED``, or the combined ones and ``UNSOUND``.
    """
    frame = _normal_frame(y.reshape(-1, y.shape[-1]))
    weigh = replace(passes, engine="importance")
    found = weigh.sample("combined", target, (frame,))
    if found.diagnosis.mixed(THRESHOLDS):
        return found, CORRECTED
    sampled = passes.named(draws)
    return replace(sampled, diagnosis=replace(sampled.diagnosis, kish=None)), UNSOUND


def _shift(final: Mapping[str, FloatArray], combined: Mapping[str, FloatArray]) -> float:
    """Largest distance of the combined means from the final ones, in standard deviations."""
    moved = [
        abs(float(combined[n].mean() - x.mean())) / float(x.std())
        for n, x in final.items()
        if x.std() > 0
    ]
    return max(moved, default=0.0)


def _normal_frame(y: FloatArray) -> Frame:
    """Frame of the normal approximation of draws, shape (n, d)."""
    factor = np.linalg.cholesky(np.cov(y, rowvar=False))
    return Frame(jnp.asarray(y.mean(axis=0)), jnp.asarray(factor))


def _log_normal(y: FloatArray) -> FloatArray:
    """Log density, up to a constant, of draws, shape (n, d), under their normal approximation."""
    # Coordinates differ in size by many orders, which SciPy's normal takes for a singularity.
    return -0.5 * (_normal_frame(y).find(y) ** 2).sum(axis=-1)


def _padded(y: FloatArray) -> FloatArray:
    """Repeat the last row to a multiple of 1,024 rows, so that compiled code is shared."""
    return np.concatenate([y, np.repeat(y[-1:], -len(y) % 1024, axis=0)])


@partial(jax.jit, static_argnames="posterior")
def _log_densities(y: JaxArray, target: Target, posterior: Posterior) -> JaxArray:
    return jax.lax.map(lambda row: posterior.log_density(row, *target), y, batch_size=_BATCH)
