"""NUTS on a user's model, against exact posteriors and NumPyro's own driver."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from arviz_stats.base.array import array_stats
from numpyro.infer import HMC, MCMC, NUTS, init_to_median
from scipy import stats as scipy_stats

from heterodyne._errors import ConfigError, SamplingError
from heterodyne.core._jax import jax, jnp
from heterodyne.optimization.cmc import sampler as documented
from heterodyne.optimization.cmc._chain_starts import scattered_starts
from heterodyne.optimization.cmc._run_health import remarks, tree_depths
from heterodyne.optimization.cmc.sampler import (
    NUTSSampler,
    SamplingPlan,
    SamplingStats,
)

LOG = "heterodyne.optimization.cmc"
DATA = np.array([1.2, 0.4, 2.2, 1.0])
PLAN = SamplingPlan(num_warmup=300, num_samples=400, num_chains=2, seed=5)
SHORT = SamplingPlan(num_warmup=60, num_samples=80, num_chains=1, seed=1)


def known():
    """Level with a normal posterior, and a rate that the data say nothing about."""
    level = numpyro.sample("level", dist.Normal(0.0, 10.0))
    numpyro.sample("rate", dist.Gamma(3.0, 2.0))
    numpyro.sample("y", dist.Normal(level, 1.0), obs=DATA)


LEVEL = scipy_stats.norm(DATA.sum() / (4 + 0.01), 1.0 / np.sqrt(4 + 0.01))
RATE = scipy_stats.gamma(3.0, scale=0.5)


def impossible(low=0.0):
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.factor("wall", jnp.where(x > low, 0.0, -jnp.inf))


def everything(centre=1.0):
    """One site of each kind of support."""
    numpyro.sample("both", dist.Normal(0.0, 100.0).expand([2]).to_event(1))
    numpyro.sample("positive", dist.LogNormal(0.0, 1.0))
    numpyro.sample("between", dist.Uniform(-2.0, 3.0))
    with numpyro.plate("angles", 3):
        numpyro.sample("each", dist.HalfNormal(centre))


VALUES = {"both": [0.0, -50.0], "positive": 4.0, "between": -1.5, "each": [0.1, 1.0, 5.0]}


@pytest.fixture(scope="module")
def finished():
    sampler = NUTSSampler.from_plan(PLAN, known)
    return sampler, sampler.run()


@pytest.fixture(scope="module")
def plain():
    """The same run by NumPyro alone."""
    kernel = NUTS(known, dense_mass=True, init_strategy=init_to_median)
    mcmc = MCMC(
        kernel,
        num_warmup=300,
        num_samples=400,
        num_chains=2,
        chain_method="sequential",
        progress_bar=False,
    )
    fields = ("num_steps", "potential_energy", "accept_prob")
    mcmc.run(jax.random.PRNGKey(5), extra_fields=fields)
    return mcmc


@pytest.fixture(scope="module")
def bare():
    """Nothing adapted but a diagonal mass matrix, and short trajectories."""
    plan = replace(SHORT, adapt_step_size=False, dense_mass=False, max_tree_depth=2)
    sampler = NUTSSampler.from_plan(plan, known)
    sampler.run()
    return sampler


def test_draws_follow_the_exact_posterior(finished):
    _, samples = finished
    assert samples.keys() == {"level", "rate"}
    for name, exact in (("level", LEVEL), ("rate", RATE)):
        x = samples[name].reshape(2, -1)
        assert samples[name].shape == (800,)
        error = float(array_stats.mcse(x, method="mean"))
        assert error < 0.1 * exact.std()
        assert x.mean() == pytest.approx(exact.mean(), abs=4 * error)
        assert x.std() == pytest.approx(exact.std(), rel=0.15)


def test_draws_are_those_of_numpyro_with_the_seed_of_the_plan(finished, plain):
    sampler, samples = finished
    for name, x in plain.get_samples().items():
        np.testing.assert_array_equal(samples[name], x)
    np.testing.assert_array_equal(sampler.mcmc.get_samples()["rate"], samples["rate"])
    assert sampler.plan is PLAN


def test_divergences_and_depths_are_those_of_numpyro(finished, plain):
    sampler, _ = finished
    steps = np.asarray(plain.get_extra_fields()["num_steps"])
    depths = np.array([len(bin(n)) - 2 for n in steps])
    assert sampler.get_divergence_stats() == {
        "divergence_rate": 0.0,
        "mean_tree_depth": pytest.approx(depths.mean()),
        "max_tree_depth_fraction": 0.0,
    }
    stats = sampler.stats
    assert (stats.num_samples, stats.num_warmup, stats.num_divergences) == (400, 300, 0)
    accepted = np.asarray(plain.get_extra_fields()["accept_prob"])
    assert stats.mean_accept_prob == pytest.approx(accepted.mean())
    assert stats.wall_time_seconds > 0.0
    assert stats.is_healthy


def test_a_run_is_seen_by_arviz(finished):
    sampler, samples = finished
    tree = sampler.get_diagnostics()
    level, rate = tree["posterior"]["level"].values, tree["posterior"]["rate"].values
    np.testing.assert_array_equal(level.ravel(), samples["level"])
    stats = tree["sample_stats"]
    assert {"energy", "diverging", "n_steps", "tree_depth", "acceptance_rate"} <= set(stats)
    # Log density in NumPyro's coordinates, with the Jacobian of log(rate).
    exact = scipy_stats.norm(0, 10).logpdf(level) + RATE.logpdf(rate) + np.log(rate)
    exact += scipy_stats.norm(level[..., None], 1.0).logpdf(DATA).sum(axis=-1)
    np.testing.assert_allclose(stats["lp"].values, exact)
    np.testing.assert_array_equal(stats["tree_depth"], tree_depths(stats["n_steps"].values))
    np.testing.assert_array_equal(tree["observed_data"]["y"], DATA)


def test_the_outcome_of_adaptation_is_kept(finished, bare):
    sampler, _ = finished
    adapted = sampler.get_diagnostics()["adaptation"]
    assert adapted.attrs["num_warmup"] == 300
    steps = sampler.get_diagnostics()["sample_stats"]["step_size"]
    np.testing.assert_array_equal(adapted["step_size"], steps[:, -1])
    matrix = adapted["inverse_mass_matrix"]
    assert matrix.shape == (2, 2, 2)
    k = matrix.attrs["sites"].index("level")
    np.testing.assert_allclose(matrix[:, k, k], LEVEL.var(), rtol=0.5)
    assert bare.get_diagnostics()["adaptation"]["inverse_mass_matrix"].shape == (1, 2)


def test_the_adaptation_is_logged(finished, bare, caplog):
    sampler, _ = finished
    own = logging.getLogger("test.adapter")
    with caplog.at_level(logging.INFO):
        sampler.log_adapter_diagnostics(own)
        bare.log_adapter_diagnostics()
    lines = [r.getMessage() for r in caplog.records if r.name == "test.adapter"]
    sizes = np.asarray(sampler.mcmc.last_state.adapt_state.step_size)
    assert lines[0] == f"step size of each chain: {sizes[0]:.3g}, {sizes[1]:.3g}"
    (matrices,) = sampler.mcmc.last_state.adapt_state.inverse_mass_matrix.values()
    worst = max(np.linalg.cond(np.asarray(m)) for m in matrices)
    assert lines[1].startswith("inverse mass matrix of level, rate: dense, variances from ")
    assert lines[1].endswith(f"condition number up to {worst:.3g}")
    energy = sampler.mcmc.get_extra_fields()["potential_energy"]
    assert lines[4].startswith(f"potential_energy: mean {float(energy.mean()):.4g}, ")
    assert lines[2].startswith("accept_prob")
    assert lines[3].startswith("num_steps")
    shown = [r.getMessage() for r in caplog.records if r.name.startswith(LOG)]
    assert shown[0] == "step size of each chain: 1"
    assert shown[1].startswith("inverse mass matrix of level, rate: diagonal, variances from ")


def test_settings_reach_the_kernel(bare):
    fields = bare.mcmc.get_extra_fields()
    assert np.all(fields["adapt_state.step_size"] == 1.0)
    assert set(np.unique(fields["num_steps"])) <= {1, 2, 3}
    stats = bare.get_divergence_stats()
    at_limit = (np.asarray(fields["num_steps"]) >= 2).mean()
    assert stats["max_tree_depth_fraction"] == pytest.approx(at_limit)
    assert 0 < stats["max_tree_depth_fraction"] <= 1
    assert bare.stats.max_tree_depth_fraction == stats["max_tree_depth_fraction"]


def test_a_start_and_a_higher_target(finished, caplog):
    sampler = NUTSSampler.from_plan(
        replace(PLAN, num_chains=1, target_accept=0.97), known, "init_to_value"
    )
    with caplog.at_level(logging.INFO, logger=LOG):
        samples = sampler.run_with_init_values({"level": 1.0, "rate": 1.5}, jax.random.key(8))
    assert "own random key" in caplog.text
    assert samples["level"].mean() == pytest.approx(LEVEL.mean(), abs=0.3)
    careful = sampler.mcmc.last_state.adapt_state.step_size
    usual = finished[0].mcmc.last_state.adapt_state.step_size
    assert careful < 0.8 * usual.min()


def test_a_second_run_gives_the_same_draws():
    def nested():
        top = numpyro.sample("top", dist.HalfNormal(2.0))
        share = numpyro.sample("share", dist.Uniform(0.0, top))
        numpyro.deterministic("twice", 2.0 * share)
        with numpyro.plate("angles", 2):
            numpyro.sample("each", dist.Normal(share, 1.0))

    plan = SamplingPlan(20, 30, num_chains=2, seed=4, chain_method="vectorized")
    sampler = NUTSSampler.from_plan(plan, nested)
    values = {"top": 2, "each": [0.5, -1.0]}
    first, second = sampler.run(init_params=values), sampler.run_with_init_values(values)
    assert first.keys() == {"top", "share", "twice", "each"}
    assert first["each"].shape == (60, 2)
    for name, x in first.items():
        np.testing.assert_array_equal(second[name], x)
    assert np.all(first["share"] < first["top"])


def test_the_way_of_running_chains():
    assert NUTSSampler.from_plan(SHORT, known).mcmc.chain_method == "sequential"
    plan = SamplingPlan(chain_method="vectorized", num_chains=3)
    assert NUTSSampler.from_plan(plan, known).mcmc.chain_method == "vectorized"
    changed = NUTSSampler.from_plan(SamplingPlan(), known, chain_method="vectorized")
    assert changed.mcmc.chain_method == changed.plan.chain_method == "vectorized"
    if jax.local_device_count() == 1:
        with pytest.warns(UserWarning, match="not enough devices"):
            NUTSSampler.from_plan(SamplingPlan(), known, chain_method="parallel")
    with pytest.raises(ConfigError, match="chain_method is 'both'"):
        NUTSSampler.from_plan(SamplingPlan(), known, chain_method="both")  # type: ignore[arg-type]


def test_strategies_are_numpyro_s():
    with pytest.raises(ConfigError, match="did you mean 'init_to_median'") as raised:
        NUTSSampler.from_plan(SHORT, known, "init_to_medium")
    assert "init_to_median, init_to_sample, init_to_value" in str(raised.value)
    with pytest.raises(ConfigError, match="init_to_value without values"):
        NUTSSampler.from_plan(SHORT, known, "init_to_value").run()


@pytest.mark.parametrize(
    "ask",
    [
        NUTSSampler.get_divergence_stats,
        NUTSSampler.get_diagnostics,
        NUTSSampler.log_adapter_diagnostics,
        lambda sampler: sampler.stats,
    ],
)
def test_there_is_nothing_to_tell_before_a_run(ask):
    with pytest.raises(RuntimeError, match="there is no finished run"):
        ask(NUTSSampler.from_plan(SHORT, known))


def test_a_driver_and_its_plan_agree():
    driver = MCMC(NUTS(known), num_warmup=60, num_samples=80, progress_bar=False)
    assert NUTSSampler(driver, SHORT).mcmc is driver
    with pytest.raises(ConfigError, match="num_warmup is 60, and 300 in the plan"):
        NUTSSampler(driver, replace(PLAN, num_chains=1))
    with pytest.raises(ConfigError, match="the kernel is HMC"):
        NUTSSampler(MCMC(HMC(known), num_warmup=60, num_samples=80, progress_bar=False), SHORT)
    kernel = NUTS(potential_fn=lambda z: 0.5 * z["x"] ** 2)
    with pytest.raises(ConfigError, match="the kernel is NUTS without a model"):
        NUTSSampler(MCMC(kernel, num_warmup=60, num_samples=80, progress_bar=False), SHORT)


def starts_of(values=VALUES, strategy="init_to_value", n_chains=40, model=everything):
    keys = jax.random.split(jax.random.PRNGKey(0), n_chains)
    given = {name: jnp.asarray(value) for name, value in values.items()}
    return scattered_starts(model, given, strategy, keys)


def test_chains_start_near_the_values_and_within_the_support():
    starts = starts_of()
    both, positive = starts["both"], np.exp(starts["positive"])
    between = -2.0 + 5.0 / (1.0 + np.exp(-starts["between"]))
    each = np.exp(starts["each"])
    assert both.shape == (40, 2)
    assert each.shape == (40, 3)
    assert np.all(both[:, 0] == 0.0)
    for x, centre, spread in (
        (both[:, 1], -50.0, 0.5),
        (positive, 4.0, 0.04),
        (between, -1.5, 0.01 * 5.0 * 0.1 * 0.9),
        (each[:, 2], 5.0, 0.05),
    ):
        assert np.unique(x).size == 40
        assert np.std(x) == pytest.approx(spread, rel=0.4)
        assert np.all(np.abs(x - centre) < 5 * spread)


def test_what_is_not_given_starts_where_the_strategy_puts_it(caplog):
    values = {name: VALUES[name] for name in ("positive", "between")}
    with caplog.at_level(logging.INFO, logger=LOG):
        starts = starts_of(values, "init_to_sample", 2)
    assert [r.getMessage() for r in caplog.records] == [
        "init_to_sample gives the start of both, each"
    ]
    assert starts.keys() == VALUES.keys()
    assert abs(starts["both"][0, 0] - starts["both"][1, 0]) > 1.0
    with pytest.raises(ConfigError, match="init_to_value has no value for both, each"):
        starts_of(values)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"positiv": 1.0}, ConfigError, "unknown site 'positiv'"),
        ({"positive": [1.0, 2.0]}, ConfigError, r"positive has shape \(2,\)\. Allowed: \(\)"),
        ({"each": 1.0}, ConfigError, r"each has shape \(\)\. Allowed: \(3,\)"),
        ({"positive": -4.0}, SamplingError, r"positive = -4\. lies outside"),
        ({"both": [0.0, np.nan]}, SamplingError, r"both = \[ 0\. nan\] lies outside"),
        ({"between": 3.0}, SamplingError, r"between = 3\. lies on the edge"),
    ],
)
def test_a_start_outside_of_the_support_is_named(change, error, text):
    with pytest.raises(error, match=text):
        starts_of({**VALUES, **change})


def test_a_start_without_density_is_named():
    sampler = NUTSSampler.from_plan(SHORT, impossible)
    with pytest.raises(RuntimeError, match=r"site wall is -inf at x = -0\.5"):
        sampler.run_with_init_values({"x": -0.5})
    with pytest.raises(SamplingError, match="site wall"):
        sampler.run(init_params={"x": -0.5})


def test_values_far_out_are_the_only_valid_start():
    """NumPyro alone finds no start of this model; nor does it look for one here."""

    def far():
        impossible(low=20.0)

    few = replace(SHORT, num_warmup=5, num_samples=5)
    assert NUTSSampler.from_plan(few, far).run(init_params={"x": 21.0})["x"].min() > 20.0


def test_a_chain_that_cannot_be_moved_starts_at_the_values(caplog):
    def needle():
        impossible(low=1.0 - 1e-12)

    starts = starts_of({"x": 1.0}, n_chains=6, model=needle)["x"]
    stays = starts == 1.0
    assert 0 < stays.sum() < 6
    assert caplog.text.count("a chain starts at the given values themselves") == stays.sum()


def test_a_model_without_a_valid_start_is_refused():
    sampler = NUTSSampler.from_plan(SHORT, lambda: impossible(low=1e9))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(SamplingError, match="Cannot find valid initial parameters"):
            sampler.run()
    # Traced, NumPyro does not notice; the draws give it away.
    few = replace(SHORT, num_warmup=5, num_samples=5, num_chains=2)
    driver = MCMC(
        NUTS(lambda: impossible(low=1e9)),
        num_warmup=5,
        num_samples=5,
        num_chains=2,
        chain_method=jax.vmap,
        progress_bar=False,
    )
    traced = NUTSSampler(driver, few)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Some donated buffers")
        with pytest.raises(SamplingError, match="the log density of some draws is not finite"):
            traced.run()
    with pytest.raises(SamplingError, match="there is no finished run"):
        traced.get_divergence_stats()


def stats_of(rate=0.0, accept=0.9):
    return SamplingStats(100, 50, int(100 * rate), rate, accept, 0.0, 1.0)


@pytest.mark.parametrize(
    ("rate", "accept", "healthy"),
    [
        (0.0499, 0.601, True),
        (0.05, 0.9, False),
        (0.0, 0.6, False),
        (float("nan"), 0.9, False),
        (0.0, float("nan"), False),
    ],
)
def test_health_has_limits(rate, accept, healthy):
    stats = SamplingStats(100, 50, 0, rate, accept, 0.0, 1.0)
    assert stats.is_healthy is healthy


def test_limits_are_as_documented():
    assert documented.DIVERGENCE_RATE_TARGET == 0.01
    assert documented.DIVERGENCE_RATE_HIGH == 0.05
    assert documented.DIVERGENCE_RATE_CRITICAL == 0.1


def test_remarks_say_what_to_do():
    assert remarks(stats_of(0.01)) == []
    assert "raise target_accept" in remarks(stats_of(0.02))[0]
    assert "other parameters" in remarks(stats_of(0.11))[0]
    assert "step size is too large" in remarks(stats_of(0.0, 0.5))[0]
    assert len(remarks(stats_of(0.2, float("nan")))) == 2


def test_depth_counts_doublings():
    np.testing.assert_array_equal(
        tree_depths(np.array([1, 2, 3, 4, 7, 8, 1023])), [1, 2, 2, 3, 3, 4, 10]
    )
