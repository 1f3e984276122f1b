"""Every field of CMCConfig changes the draws, the schedule, the files or the verdict."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from core_cases import ANGLES, SMALL, fit_result, make_model, simulate

from heterodyne._errors import HeterodyneError
from heterodyne._events import ignore_events
from heterodyne.config.cmc import CMCConfig
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.optimization.bind import charts_of
from heterodyne.optimization.cmc import _sharded
from heterodyne.optimization.cmc._agreement import refuse_contradiction
from heterodyne.optimization.cmc._diagnostics import limits_of
from heterodyne.optimization.cmc._divide import divided
from heterodyne.optimization.cmc._inputs import informed, with_priors
from heterodyne.optimization.cmc._sampler import Schedule
from heterodyne.optimization.cmc._shard_store import shard_keeper
from heterodyne.optimization.cmc._surroundings import profiled, with_modes
from heterodyne.optimization.cmc._warm_start import refuse_degenerate, started
from heterodyne.optimization.cmc.backends.base import select_backend
from heterodyne.optimization.cmc.core import fit_cmc_multi_phi

POINTS, ANGLES_MANY = 500, 3
FULL = CMCConfig(dense_mass=False, adaptive_sampling=False)
SHARDED = CMCConfig(enable="always", min_points_per_shard=100, min_points_per_param=10)


def schedule(config):
    """How much is sampled of a small shard."""
    return Schedule.of(config, POINTS, 20)


def division(config):
    return divided(config, 316, 3, "nuts", ignore_events)


def told(config):
    """What is said about the choice of one pass."""
    messages = []
    divided(config, 316, 3, "nuts", messages.append)
    return messages


def raised(call):
    try:
        return call()
    except HeterodyneError as error:
        return type(error), str(error)


def degenerate(config):
    return raised(lambda: refuse_degenerate({"f0": 0.01}, ParameterSpace(), config, "nlsq_result"))


def start(config):
    return raised(lambda: started(make_model().param_manager, [fit_result(v0=500.0)], config))


def start_without_fit(config):
    return raised(lambda: started(make_model().param_manager, [], config))


def fit_with_errors():
    fit = fit_result(D0_ref=8e3, v0=300.0)
    return replace(fit, uncertainties=np.array([100.0, 5.0]))


def literal_priors(config):
    return informed(make_model().param_manager, [fit_with_errors()], config)


def priors(config):
    return with_priors(make_model().param_manager, config)


def contradiction(config):
    return raised(
        lambda: refuse_contradiction(
            {"v0": 1.5}, config, "random", speckles=False, on_event=ignore_events
        )
    )


class Shard:
    """A shard that did or did not converge."""

    def __init__(self, good):
        self.diagnosis = self
        self.good = good

    def passed(self, limits):
        return self.good


def success(config):
    """What is made of one failed shard of four."""
    events = []
    passes = type("Passes", (), {"on_event": staticmethod(events.append)})
    shards = [Shard(k > 0) for k in range(4)]
    return raised(lambda: _sharded._successful(shards, None, config, passes)[1]), events


@pytest.fixture(scope="module")
def two_modes():
    """A result whose draws have two modes, 3:1, four standard deviations of each apart."""
    result = fit_cmc_multi_phi(make_model(), simulate(ANGLES), ANGLES, SMALL)
    rng = np.random.default_rng(0)
    draws = np.where(rng.random((2, 300)) < 0.25, 6.0, 0.0) + rng.normal(size=(2, 300))
    return replace(result, samples=result.samples | {"v0": draws})


CHANGES = {
    "enable": ({"enable": "always"}, division),
    "min_points_for_cmc": ({"min_points_for_cmc": 10**7}, told),
    "per_angle_mode": (
        {"per_angle_mode": "constant"},
        lambda c: c.get_effective_per_angle_mode(ANGLES_MANY),
    ),
    "constant_scaling_threshold": (
        {"constant_scaling_threshold": 9},
        lambda c: c.get_effective_per_angle_mode(ANGLES_MANY),
    ),
    "sharding_strategy": ({"sharding_strategy": "contiguous"}, division, SHARDED),
    "num_shards": ({"num_shards": 5}, division),
    "max_points_per_shard": ({"max_points_per_shard": 50_000}, division),
    "min_points_per_shard": ({"min_points_per_shard": 150_000}, division, SHARDED),
    "min_points_per_param": ({"min_points_per_param": 10_000}, division, SHARDED),
    # Counts are upper limits: adaptation ends after 400 steps at most.
    "num_warmup": ({"num_warmup": 100}, schedule, FULL),
    "num_samples": ({"num_samples": 3000}, schedule, FULL),
    "num_chains": ({"num_chains": 7}, schedule),
    "target_accept_prob": ({"target_accept_prob": 0.7}, schedule),
    "max_tree_depth": ({"max_tree_depth": 5}, schedule),
    "seed": ({"seed": 3}, schedule),
    "dense_mass": ({"dense_mass": False}, schedule, CMCConfig(adaptive_sampling=False)),
    "init_strategy": ({"init_strategy": "init_to_value"}, schedule),
    "adaptive_sampling": ({"adaptive_sampling": False}, schedule),
    "min_warmup": ({"min_warmup": 300}, schedule, CMCConfig(dense_mass=False)),
    "min_samples": ({"min_samples": 1400}, schedule),
    "fast_warmup": ({"fast_warmup": True}, schedule),
    "chain_method": ({"chain_method": "sequential"}, schedule),
    "max_r_hat": ({"max_r_hat": 1.02}, limits_of),
    "min_ess": ({"min_ess": 10}, limits_of),
    "min_bfmi": ({"min_bfmi": 0.1}, limits_of),
    "max_divergence_rate": ({"max_divergence_rate": 0.5}, limits_of),
    "require_nlsq_warmstart": ({"require_nlsq_warmstart": True}, start_without_fit),
    "allow_degenerate_warmstart": ({"allow_degenerate_warmstart": True}, degenerate),
    "max_parameter_cv": ({"max_parameter_cv": 2.0}, contradiction),
    "heterogeneity_abort": ({"heterogeneity_abort": False}, contradiction),
    "use_nlsq_warmstart": ({"use_nlsq_warmstart": False}, start),
    "use_nlsq_informed_priors": ({"use_nlsq_informed_priors": "literal"}, literal_priors),
    "nlsq_prior_width_factor": (
        {"nlsq_prior_width_factor": 5.0},
        literal_priors,
        CMCConfig(use_nlsq_informed_priors="literal"),
    ),
    "use_log_space_priors": ({"use_log_space_priors": False}, priors),
    "min_success_rate": ({"min_success_rate": 0.5}, success),
    "min_success_rate_warning": (
        {"min_success_rate_warning": 0.1},
        success,
        CMCConfig(min_success_rate=0.5),
    ),
    "use_reparam": ({"use_reparam": False}, charts_of),
    "reparameterization_d_total": ({"reparameterization_d_total": False}, charts_of),
    "reparameterization_log_gamma": ({"reparameterization_log_gamma": False}, charts_of),
}
# These have a test of their own below, or in the tests of the backends.
ELSEWHERE = {
    "backend_name", "enable_checkpoints", "checkpoint_dir", "prior_tempering",
    "combination_method", "per_shard_timeout", "heartbeat_timeout", "enable_jax_profiling",
    "jax_profile_dir", "bimodal_min_weight", "bimodal_min_separation", "run_id",
}  # fmt: skip


def test_no_field_is_left_out():
    names = {f.name for f in fields(CMCConfig) if not f.name.startswith("_")}
    assert set(CHANGES) | ELSEWHERE == names
    assert not set(CHANGES) & ELSEWHERE


@pytest.mark.filterwarnings("ignore:fast_warmup")
@pytest.mark.parametrize("name", CHANGES)
def test_the_field_acts(name):
    changes, effect, *base = CHANGES[name]
    before = base[0] if base else CMCConfig()
    after = replace(before, **changes)
    assert effect(before) != effect(after)


def sharded(**changes):
    config = replace(SMALL, num_shards=2, min_ess=30, **changes)
    return fit_cmc_multi_phi(make_model(), simulate(ANGLES), ANGLES, config)


@pytest.fixture(scope="module")
def by_default():
    return sharded()


@pytest.mark.parametrize(
    "changes", [{"prior_tempering": False}, {"combination_method": "simple_average"}]
)
def test_rules_of_combination_change_the_combined_draws(by_default, changes):
    other = sharded(**changes)
    assert not np.array_equal(other.samples["v0"], by_default.samples["v0"])
    assert other.metadata["combination"] != by_default.metadata["combination"]


def test_shards_are_kept_and_taken_up_again(by_default, tmp_path, monkeypatch):
    kept = sharded(enable_checkpoints=True, checkpoint_dir=f"{tmp_path}", run_id="first")
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("first_")
    assert {file.name for file in folder.iterdir()} == {"shard1_nuts.npz", "shard2_nuts.npz"}
    np.testing.assert_array_equal(kept.samples["v0"], by_default.samples["v0"])
    assert kept.metadata["run_id"] == "first"
    taken = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    again = sharded(enable_checkpoints=True, checkpoint_dir=f"{tmp_path}", run_id="first")
    np.testing.assert_array_equal(again.samples["v0"], kept.samples["v0"])
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == taken
    # Other draws have a folder of their own.
    sharded(enable_checkpoints=True, checkpoint_dir=f"{tmp_path}", run_id="first", seed=9)
    assert len(list(tmp_path.iterdir())) == 2


def test_nothing_is_kept_without_shards_or_checkpoints():
    config = CMCConfig(checkpoint_dir="/nowhere")
    for given in ((config, None), (replace(config, enable_checkpoints=False), object())):
        keeper = shard_keeper(None, None, *given)
        keeper.save("shard1", {})
        assert keeper.load("shard1") is None


def test_a_profile_is_recorded_where_it_is_asked_for(tmp_path):
    import jax.numpy as jnp

    folder = tmp_path / "profile"
    with profiled(CMCConfig(jax_profile_dir=f"{folder}")):
        jnp.arange(3).sum()
    assert not folder.exists()
    with profiled(CMCConfig(jax_profile_dir=f"{folder}", enable_jax_profiling=True)):
        jnp.arange(3).sum().block_until_ready()
    assert any(file.is_file() for file in folder.rglob("*"))


def test_two_modes_are_named_within_the_limits(two_modes):
    seen = with_modes(two_modes, CMCConfig())
    assert set(seen.metadata["bimodal"]) == {"v0"}
    low, high = seen.metadata["bimodal"]["v0"]["means"]
    assert (low, high) == pytest.approx((0.0, 6.0), abs=0.4)
    assert "v0 have two modes" in seen.metadata["verdict"]["sentences"][-1]
    for limits in ({"bimodal_min_weight": 0.4}, {"bimodal_min_separation": 3.0}):
        assert with_modes(two_modes, CMCConfig(**limits)).metadata["bimodal"] == {}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("cpu", "CPUBackend"), ("multiprocessing", "MultiprocessingBackend"),
     ("pjit", "PjitBackend"), ("worker_pool", "WorkerPoolBackend")],
)  # fmt: skip
def test_backends_are_chosen_by_name(name, kind):
    assert type(select_backend(CMCConfig(backend_name=name))).__name__ == kind
