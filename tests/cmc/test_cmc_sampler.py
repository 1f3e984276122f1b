"""NUTS in resumable blocks against dense integration of the same density."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from arviz_stats.base.array import array_stats
from cmc_cases import (
    FLAT,
    FLOOR,
    PARAMETERS,
    POSTERIOR,
    SCHEDULE,
    T,
    densities,
    frame_of,
    functions_of,
    normal,
    on_grid,
    sampler_of,
    target_of,
)

from heterodyne._errors import SamplingError
from heterodyne._events import Progress
from heterodyne.config.cmc import CMCConfig
from heterodyne.core._jax import jax, jnp
from heterodyne.optimization.cmc import _sampler
from heterodyne.optimization.cmc._engine import drive
from heterodyne.optimization.cmc._nuts import Steps
from heterodyne.optimization.cmc._sampler import Schedule

MANY = replace(SCHEDULE, n_draws=800)
FEW = replace(SCHEDULE, n_draws=100)


def never(draws):
    return False


@cache
def draws_of(case, schedule=FEW):
    sampler = sampler_of(target_of(*case), schedule)
    return drive(sampler, sampler.start(frame_of(*case)), never)


def assert_same_posterior(draws, target):
    """Means, variances and quantiles agree within the Monte Carlo error."""
    nodes, weights = on_grid(target, draws.y)
    _, found = densities(draws.y.reshape(-1, 4), target)
    found = found.reshape(*draws.y.shape[:2], 4)
    for k, name in enumerate(PARAMETERS):
        x, node = found[..., k], nodes[:, k]
        for j, test in enumerate(functions_of(node, weights)):
            values = test(x)
            error = float(array_stats.mcse(values, method="mean"))
            assert error < 0.08 * values.std()
            # What the grid leaves open is far below the spread of the values. Of forty
            # comparisons with errors that are estimates, one may be off by more than four.
            allowed = 5.0 * error + 0.005 * values.std()
            assert values.mean() == pytest.approx(weights @ test(node), abs=allowed), (name, j)


@pytest.mark.parametrize("case", [FLAT, FLOOR], ids=["alpha_0", "floor"])
def test_draws_follow_the_posterior(case):
    draws = draws_of(case, MANY)
    assert draws.trajectories.diverging.mean() < 0.05
    _, parameters = densities(draws.y.reshape(-1, 4), target_of(*case))
    alpha, level = parameters[:, 0], parameters[:, 1]
    if case == FLAT:
        assert 0.02 < (alpha < 0).mean() < 0.98
    else:
        on_floor = (2e4 * T[:, None] ** alpha + level < 0).sum(axis=0)
        assert on_floor.min() >= 1
        assert np.unique(on_floor).size > 1
    assert_same_posterior(draws, target_of(*case))


def test_draws_follow_a_normal_likelihood():
    target = normal(FLAT)
    sampler = sampler_of(target, MANY)
    draws = drive(sampler, sampler.start(frame_of(*FLAT)), never)
    assert_same_posterior(draws, target)
    plain = draws_of(FLAT, MANY).y.reshape(-1, 4).std(axis=0)
    assert (draws.y.reshape(-1, 4).std(axis=0)[:3] > 1.3 * plain[:3]).all()


def test_the_recorded_density_is_that_of_the_draws():
    draws = draws_of(FLAT)
    expected, _ = densities(draws.y.reshape(-1, 4), target_of(*FLAT))
    np.testing.assert_allclose(draws.log_density.ravel(), expected, rtol=1e-9)
    assert draws.y.shape == (2, 100, 4)
    assert (draws.n_chains, draws.n_draws) == (2, 100)
    walks = draws.trajectories
    assert (draws.engine, draws.proposals) == ("nuts", None)
    assert walks.warmup_steps == 4 * 50
    assert walks.warmup_gradients >= 2 * walks.warmup_steps
    assert walks.n_gradients.min() >= 1
    # Energies hold the kinetic energy beside the potential one.
    assert (walks.energy >= -draws.log_density).all()


def test_the_seed_decides_the_draws():
    sampler = sampler_of(target_of(*FLAT), FEW)
    again = drive(sampler, sampler.start(frame_of(*FLAT)), never)
    np.testing.assert_array_equal(again.y, draws_of(FLAT).y)
    other = draws_of(FLAT, replace(FEW, seed=4))
    assert not np.isin(other.y, again.y).any()
    chains = again.y.reshape(2, -1)
    assert np.unique(chains, axis=0).shape == chains.shape


def test_chains_one_after_another_give_the_same_draws():
    sequential = draws_of(FLAT, replace(FEW, parallel=False))
    np.testing.assert_array_equal(sequential.y, draws_of(FLAT).y)


def test_a_diagonal_frame_scales_each_axis():
    sampler = sampler_of(target_of(*FLAT), replace(FEW, full_frame=False))
    state = sampler.start(frame_of(*FLAT))
    while state.stage < 4:
        state = sampler.advance(state)
    factor = np.asarray(state.frame.factor)
    np.testing.assert_array_equal(factor, np.diag(np.diagonal(factor)))
    widths = draws_of(FLAT, MANY).y.reshape(-1, 4).std(axis=0)
    np.testing.assert_allclose(np.diagonal(factor), widths, rtol=0.4)


def test_the_last_frame_is_that_of_the_posterior():
    sampler = sampler_of(target_of(*FLAT), FEW)
    state = sampler.start(frame_of(*FLAT))
    while state.stage < 4:
        state = sampler.advance(state)
    factor = np.asarray(state.frame.factor)
    covariance = np.cov(draws_of(FLAT, MANY).y.reshape(-1, 4), rowvar=False)
    inverse = np.linalg.inv(factor)
    widths = np.linalg.eigvalsh(inverse @ covariance @ inverse.T)
    assert widths.min() > 0.4
    assert widths.max() < 2.5


@pytest.fixture(scope="module")
def states():
    """The state after each block of an undisturbed run: 4 of adaptation, 2 of draws."""
    sampler, seen = sampler_of(target_of(*FLAT), FEW), []
    drive(sampler, sampler.start(frame_of(*FLAT)), never, seen.append)
    return seen


@pytest.mark.parametrize("block", range(6))
def test_a_run_goes_on_to_the_same_draws_after_any_block(block, states, tmp_path):
    assert len(states) == 6
    np.savez(tmp_path / "state.npz", **sampler_of(target_of(*FLAT), FEW).to_arrays(states[block]))
    sampler = sampler_of(target_of(*FLAT), FEW)
    with np.load(tmp_path / "state.npz") as arrays:
        state = sampler.from_arrays(arrays)
    assert (state.stage, state.n_steps) == (states[block].stage, states[block].n_steps)
    draws, expected = drive(sampler, state, never), draws_of(FLAT)
    np.testing.assert_array_equal(draws.y, expected.y)
    np.testing.assert_array_equal(draws.log_density, expected.log_density)
    for name, found in asdict(draws.trajectories).items():
        np.testing.assert_array_equal(found, getattr(expected.trajectories, name))


def test_a_state_from_a_file_shares_the_compiled_block(states):
    sampler = sampler_of(target_of(*FLAT), FEW)
    started = sampler.start(frame_of(*FLAT))
    loaded = sampler.from_arrays(sampler.to_arrays(started))

    def kinds(state):
        leaves = jax.tree.leaves((state.chains[0], state.frame))
        return [(x.shape, x.dtype, x.weak_type) for x in leaves]

    assert kinds(loaded) == kinds(started) == kinds(states[-1])


@pytest.fixture
def walk(monkeypatch):
    """Take independent normal steps in place of NUTS, and report how many at a time."""
    lengths = []

    def advance(state, target, frame, kernel, length):
        lengths.append(length)
        rng = np.random.default_rng(len(lengths))
        one = np.ones(length)
        steps = Steps(rng.normal(size=(length, 4)), -one, one, 3 * one, one, one > 2, 0.5 * one)
        return state, steps

    monkeypatch.setattr(_sampler, "advance", advance)
    return lengths


def schedule(**changes):
    return replace(SCHEDULE, n_chains=1, **changes)


def test_blocks_fill_stages_and_draws(walk):
    plan = schedule(n_adapt=70, n_stages=2, block=50, n_draws=120)
    sampler = sampler_of(target_of(*FLAT), plan)
    draws = drive(sampler, sampler.start(frame_of(*FLAT)), never)
    assert walk == [50, 20, 50, 20, 50, 50, 20]
    walks = draws.trajectories
    assert (draws.n_draws, walks.warmup_steps, walks.warmup_gradients) == (120, 140, 420)


@pytest.mark.parametrize("block", [50, 30])
def test_whether_draws_suffice_is_asked_at_growing_intervals(walk, block):
    plan = schedule(n_adapt=50, n_stages=1, block=block, n_draws=1000)
    sampler, asked = sampler_of(target_of(*FLAT), plan), []

    def enough(draws):
        asked.append(draws.n_draws)
        return False

    drive(sampler, sampler.start(frame_of(*FLAT)), enough)
    assert asked == sorted(plan.looks())
    assert len(asked) > 5
    assert all(n % block == 0 for n in asked)
    assert asked[0] == -(-100 // block) * block
    assert max(b / a for a, b in pairwise(asked)) <= 1.25 + 2 * block / 100


def test_sampling_stops_where_draws_suffice(walk):
    plan = schedule(n_adapt=50, n_stages=1, block=50, n_draws=1000)
    sampler = sampler_of(target_of(*FLAT), plan)
    draws = drive(sampler, sampler.start(frame_of(*FLAT)), lambda draws: draws.n_draws >= 300)
    assert draws.n_draws == min(n for n in plan.looks() if n >= 300)


def test_progress_counts_to_its_total(walk):
    plan = schedule(n_adapt=50, n_stages=2, block=50, n_draws=150)
    sampler, events = sampler_of(target_of(*FLAT), plan), []
    drive(sampler, sampler.start(frame_of(*FLAT)), never, on_event=events.append)
    assert all(isinstance(e, Progress) and e.stage == "draws" for e in events)
    assert [e.done for e in events] == [0, 50, 100, 150, 200, 250]
    assert {e.total for e in events} == {250}
    assert events[-1].detail["draws"] == 150


def test_a_density_that_is_not_finite_is_refused():
    target = target_of(*FLAT)
    broken = target._replace(noise_scale=jnp.asarray(np.nan))
    sampler = sampler_of(broken, FEW)
    with pytest.raises(SamplingError, match="not finite"):
        sampler.advance(sampler.start(frame_of(*FLAT)))


ACTING = {
    "num_chains": (2, {"n_chains": 2}),
    "num_samples": (700, {"n_draws": 700}),
    "num_warmup": (800, {"n_adapt": 100}),
    "target_accept_prob": (0.95, {"target_accept": 0.95}),
    "max_tree_depth": (6, {"max_tree_depth": 6}),
    "dense_mass": (False, {"full_frame": False}),
    "chain_method": ("sequential", {"parallel": False}),
    "seed": (11, {"seed": 11}),
}
BASE = CMCConfig(adaptive_sampling=False, num_warmup=200, num_samples=500, dense_mass=True)


@pytest.mark.parametrize("name", ACTING)
def test_each_setting_acts(name):
    value, expected = ACTING[name]
    changed = Schedule.of(replace(BASE, **{name: value}), 1000, 5)
    before = Schedule.of(BASE, 1000, 5)
    assert changed == replace(before, **expected)
    assert changed != before


@pytest.mark.parametrize("warmup", [1, 49, 120, 399, 400, 5000])
@pytest.mark.parametrize("draws", [1, 49, 50, 1500])
def test_counts_are_upper_limits(warmup, draws):
    plan = Schedule.of(replace(BASE, num_warmup=warmup, num_samples=draws), 1000, 5)
    assert 1 <= plan.n_stages * plan.n_adapt <= warmup
    assert plan.n_draws == draws
    assert plan.block <= draws
    assert max(plan.looks(), default=0) <= draws + plan.block


def test_small_data_take_fewer_draws():
    config = replace(BASE, adaptive_sampling=True, num_samples=1500, min_samples=100)
    assert Schedule.of(config, 2000, 5).n_draws == 300
    assert Schedule.of(config, 10**6, 5).n_draws == 1500


def test_settings_reach_the_kernel():
    kernel = sampler_of(target_of(*FLAT)).kernel
    assert kernel.posterior is POSTERIOR
    assert (kernel.n_adapt, kernel.target_accept, kernel.max_tree_depth) == (50, 0.8, 8)
