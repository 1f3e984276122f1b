"""Properties that hold for any input: maps invert, order does not matter, files keep all."""

from __future__ import annotations

import json
import math
from functools import cache

import jax
import numpy as np
import pytest
from cmc_results import NAMES, make_result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jnp
from heterodyne.optimization.cmc import io
from heterodyne.optimization.cmc._two_groups import upper_group
from heterodyne.optimization.cmc.combine import (
    METHODS,
    combine_shard_samples,
    combine_shard_samples_bimodal,
)
from heterodyne.optimization.cmc.reparameterization import reparam_to_physics_jax
from heterodyne.optimization.cmc.results import merge_shard_cmc_results
from heterodyne.optimization.cmc.scaling import ParameterScaling
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.posterior import Posterior, Unknowns
from heterodyne.optimization.scaling import Scaling, ScalingMode

SPACE = ParameterSpace()
T = 0.5 * np.arange(1.0, 41.0)
INSIDE = [8e3, 0.5, 1e3, 2.5e4, -0.4, 2e3, 300.0, 0.3, 20.0, 0.3, 0.05, 4.0, 0.2, 3.0]
ORDERS = st.permutations(range(5))
TMP = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


# Maps: each with its inverse, and its determinant against that of the traced Jacobian.


@cache
def maps_of(mode, n_angles):
    """A posterior, and at unknowns: the coordinates, these unknowns again, and determinants."""
    scaling = Scaling.of(ScalingMode.parse(mode), SPACE, n_angles)
    posterior = Posterior(PhysicsCoordinates.of(SPACE, T), scaling)

    def flat(y):
        unknowns, log_det = posterior.forward(y)
        return jnp.concatenate([*unknowns[:2], unknowns.sigma[None]]), log_det

    @jax.jit
    def both_ways(unknowns):
        y = posterior.inverse(unknowns)
        jacobian, log_det = jax.jacfwd(flat, has_aux=True)(y)
        return flat(y)[0], jacobian, log_det

    return posterior, both_ways


@pytest.mark.parametrize(("mode", "n_angles"), [("auto", 1), ("auto", 3), ("individual", 3)])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15)
def test_all_unknowns_together_are_a_bijection(mode, n_angles, seed):
    posterior, both_ways = maps_of(mode, n_angles)
    centres = [{"contrast": 0.3, "offset": 1.0}[kind] for kind in posterior.scaling_kinds]
    unknowns = np.array([*INSIDE, *centres, 0.01])
    unknowns *= 1.0 + 0.08 * np.random.default_rng(seed).normal(size=unknowns.size)
    # The 14 physics parameters vary, in coordinates of their own order.
    back, jacobian, log_det = map(
        np.asarray, both_ways(Unknowns(unknowns[:14], unknowns[14:-1], unknowns[-1]))
    )
    np.testing.assert_allclose(back, unknowns, rtol=1e-7, atol=1e-9)
    # Rows and columns are scaled so that the reference determinant keeps its digits.
    rows = np.abs(jacobian).max(axis=1)
    columns = np.abs(jacobian / rows[:, None]).max(axis=0)
    _, logs = np.linalg.slogdet(jacobian / rows[:, None] / columns)
    expected = logs + np.log(rows).sum() + np.log(columns).sum()
    assert float(log_det) == pytest.approx(expected, abs=1e-6)


@given(
    st.floats(-5.0, 20.0), st.floats(-3.0, 3.0), st.floats(1e-3, 1e4), st.sampled_from([0.0, 2.0])
)
@settings(max_examples=100)
def test_value_at_the_reference_time_is_a_bijection(log_value, exponent, t_ref, shift):
    exponent += shift

    def prefactor_and_exponent(x):
        return jnp.stack([reparam_to_physics_jax(x[0], x[1], t_ref), x[1]])

    x = jnp.array([log_value, exponent])
    prefactor, _ = map(float, prefactor_and_exponent(x))
    assert math.log(prefactor) + exponent * math.log(t_ref) == pytest.approx(log_value, abs=1e-9)
    # The shear leaves areas alone, so only the logarithm of the prefactor counts.
    _, log_det = jnp.linalg.slogdet(jax.jacfwd(prefactor_and_exponent)(x))
    assert float(log_det) == pytest.approx(math.log(prefactor), abs=1e-8)


@given(
    st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.floats(0.05, 0.95), st.floats(0.01, 0.35),
    st.floats(-4.0, 4.0),
)  # fmt: skip
@settings(max_examples=100)
def test_normalized_parameters_are_a_bijection(low, span, part, width, z):
    one = ParameterScaling("x", low + part * span, width * span, low, low + span)
    value = float(one.to_original(z))
    assert low <= value <= low + span
    half = 0.5 * span
    off = (value - low - half) / half
    if abs(off) < 1 - 1e-6:
        rounding = 1e-13 * (abs(low) + span) / span / (1 - off**2) / width
        assert float(one.z_of(value)) == pytest.approx(z, abs=1e-8 + rounding)
        slope = float(jax.grad(lambda u: one.to_original(u))(z))
        assert slope == pytest.approx(one.scale * (1 - off**2), rel=1e-6 + 10 * rounding)


# Shards: their order does not matter.


def shards_of(seed, centres=(0.0,) * 5):
    rng = np.random.default_rng(seed)
    factor = np.tril(rng.normal(size=(2, 2))) + 2.0 * np.eye(2)
    draws = [c + rng.normal(size=(2, 60, 2)) @ factor.T for c in centres]
    return [{"alpha_ref": x[..., 0], "D0_ref": np.exp(0.1 * x[..., 1])} for x in draws]


def means(samples):
    return [np.mean(samples["alpha_ref"]), np.mean(np.log(samples["D0_ref"]))]


@pytest.mark.parametrize("method", METHODS)
@given(order=ORDERS, seed=st.integers(0, 50))
@settings(max_examples=15)
def test_combined_means_do_not_depend_on_the_order_of_shards(method, order, seed):
    # Which draws are paired does depend on it, which leaves the mean alone.
    shards = shards_of(seed)
    one = combine_shard_samples(shards, method=method)
    other = combine_shard_samples([shards[k] for k in order], method=method)
    np.testing.assert_allclose(means(other), means(one), rtol=0, atol=1e-10)


@given(order=ORDERS, seed=st.integers(0, 50))
@settings(max_examples=15)
def test_modes_do_not_depend_on_the_order_of_shards(order, seed):
    shards = shards_of(seed, (0.0, 40.0, 0.0, 40.0, 0.0))
    one = combine_shard_samples_bimodal(shards, cluster_param="alpha_ref")
    other = combine_shard_samples_bimodal([shards[k] for k in order], cluster_param="alpha_ref")
    assert list(one) == list(other) == ["mode_low", "mode_high"]
    for mode, samples in one.items():
        np.testing.assert_allclose(means(other[mode]), means(samples), rtol=0, atol=1e-10)


@given(seed=st.integers(0, 10_000), n=st.integers(1, 3), count=st.integers(2, 12))
@settings(max_examples=60)
def test_groups_do_not_depend_on_the_order_of_points(seed, n, count):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, n)) + 3.0 * rng.integers(0, 2, size=(count, 1))
    order = rng.permutation(count)
    high = upper_group(points)
    assert 0 < high.sum() < count
    np.testing.assert_array_equal(upper_group(points[order]), high[order])
    assert points[high].mean() > points[~high].mean()


@given(seed=st.integers(0, 10_000), count=st.integers(2, 9))
@settings(max_examples=40)
def test_groups_on_one_axis_have_the_smallest_sum_of_squares(seed, count):
    x = np.random.default_rng(seed).normal(size=count)

    def squares(high):
        return sum(x[part].var() * part.sum() for part in (high, ~high))

    ways = ((np.arange(2**count)[:, None] >> np.arange(count)) & 1).astype(bool)
    best = min(squares(way) for way in ways if 0 < way.sum() < count)
    assert squares(upper_group(x[:, None])) == pytest.approx(best, abs=1e-12)


@given(order=ORDERS, seed=st.integers(0, 50), drawn=st.booleans())
@settings(max_examples=15)
def test_merged_results_do_not_depend_on_the_order_of_shards(order, seed, drawn):
    rng = np.random.default_rng(seed)

    def shard():
        draws = rng.normal(size=(len(NAMES), 2, 50))
        draws[0] = np.exp(draws[0])
        return make_result(
            posterior_mean=rng.normal(size=len(NAMES)),
            posterior_std=rng.uniform(0.5, 2.0, len(NAMES)),
            r_hat=rng.uniform(1.0, 1.1, len(NAMES)),
            samples=dict(zip(NAMES, draws, strict=True)) if drawn else None,
            num_chains=2,
            divergences=int(rng.integers(9)),
        )

    results = [shard() for _ in range(5)]
    one = merge_shard_cmc_results(results)
    other = merge_shard_cmc_results([results[k] for k in order])
    for what in ("r_hat", "ess_bulk", "divergences"):
        np.testing.assert_array_equal(getattr(other, what), getattr(one, what))
    # D0_ref is averaged on a logarithmic axis, where pairing moves the mean a little.
    free = slice(1, None) if drawn else slice(None)
    np.testing.assert_allclose(
        other.posterior_mean[free], one.posterior_mean[free], rtol=0, atol=1e-10
    )
    if not drawn:
        np.testing.assert_allclose(other.posterior_std, one.posterior_std, rtol=1e-12)


# Files keep every bit.

NUMBERS = st.floats(width=64)
DRAWS = arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(3, 6)), elements=NUMBERS)


@TMP
@given(draws=DRAWS, counts=st.tuples(st.integers(0, 99), st.integers(1, 99)))
def test_draws_survive_npz(tmp_path, draws, counts):
    chains, n = draws.shape
    result = make_result(
        samples={name: np.roll(draws, k, axis=1) for k, name in enumerate(NAMES)},
        num_chains=chains, num_samples=n, divergences=counts[0], num_shards=counts[1],
    )  # fmt: skip
    found = io.load_samples_npz(io.save_samples_npz(result, tmp_path / "a.npz"))
    for k, name in enumerate(found["param_names"]):
        np.testing.assert_array_equal(found["posterior_samples"][..., k], result.samples[name])
    assert (found["divergences"], found["num_shards"]) == counts
    io.save_shard_results(result, tmp_path, 7)
    back = io.load_shard_results(tmp_path, 7)
    for name, x in result.samples.items():
        np.testing.assert_array_equal(back[name], x)


@TMP
@given(draws=DRAWS)
def test_draws_survive_netcdf(tmp_path, draws):
    samples = {"posterior_samples": draws[..., None], "param_names": ["x"], "bfmi": draws[:, 0]}
    tree = io.samples_to_arviz(samples)
    again = io.load_inference_data(io.save_inference_data(tree, tmp_path / "a.nc"))
    np.testing.assert_array_equal(again["posterior"]["x"], draws)
    np.testing.assert_array_equal(again["sample_stats"]["bfmi"], draws[:, 0])


@TMP
@given(values=arrays(np.float64, (3, len(NAMES)), elements=NUMBERS))
def test_figures_survive_json(tmp_path, values):
    words = {"Infinity": math.inf, "-Infinity": -math.inf, None: math.nan}
    result = make_result(
        posterior_mean=values[0], r_hat=values[1], ess_bulk=values[2], samples=None
    )
    parameters = json.loads(io.save_parameters_json(result, tmp_path / "p.json").read_text())
    diagnostics = json.loads(io.save_diagnostics_json(result, tmp_path / "d.json").read_text())
    for k, name in enumerate(NAMES):
        found = (
            parameters["parameters"][name]["mean"],
            diagnostics["r_hat"][name],
            diagnostics["ess_bulk"][name],
        )
        back = [words.get(x, x) if not isinstance(x, float) else x for x in found]
        np.testing.assert_array_equal(back, values[:, k])
