"""Backends in one process: one function that draws, devices, memory, shared data, shards."""

from __future__ import annotations

import inspect
import json
import logging
from dataclasses import replace
from multiprocessing.shared_memory import SharedMemory

import backend_cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from heterodyne._errors import ConfigError, DataError, SamplingError
from heterodyne.config.cmc import CMCConfig
from heterodyne.core._jax import jax, jnp
from heterodyne.optimization.cmc.backends import pjit
from heterodyne.optimization.cmc.backends._draw import draw
from heterodyne.optimization.cmc.backends._memory import process_gb
from heterodyne.optimization.cmc.backends._shared import (
    load_shared_array,
    load_shared_bytes,
    load_shared_dict,
    load_shared_shard,
)
from heterodyne.optimization.cmc.backends.base import CMCBackend, select_backend
from heterodyne.optimization.cmc.backends.cpu_backend import CPUBackend
from heterodyne.optimization.cmc.backends.multiprocessing import (
    _SHARD_ARRAY_KEYS,
    ArraySpec,
    MultiprocessingBackend,
    SharedDataManager,
)
from heterodyne.optimization.cmc.backends.pjit import PjitBackend, combine_shard_samples
from heterodyne.optimization.cmc.backends.worker_pool import WorkerPoolBackend

LOG = "heterodyne.optimization.cmc"
KEY = jax.random.PRNGKey(5)
QUICK = CMCConfig(num_warmup=300, num_samples=200, num_chains=3, dense_mass=False)
# Two measured numbers of unit noise and a wide normal prior: conjugate.
PRECISION = 0.01 + len(backend_cases.DATA)
LEVEL = stats.norm(sum(backend_cases.DATA) / PRECISION, PRECISION**-0.5)


@pytest.fixture(scope="module")
def drawn():
    """Draws of one processor."""
    return CPUBackend().run(backend_cases.model, QUICK, KEY)


@pytest.fixture
def segments():
    """Nothing is left in shared memory."""
    with backend_cases.no_segments_left():
        yield


# Drawing from a user's own model


def test_draws_are_those_of_the_posterior(drawn):
    assert set(drawn) == {"level", "rate"}
    assert all(x.shape == (600,) and isinstance(x, np.ndarray) for x in drawn.values())
    assert stats.kstest(drawn["level"][::3], LEVEL.cdf).pvalue > 1e-3
    rate = stats.lognorm(0.5, scale=np.exp(0.5))
    assert stats.kstest(drawn["rate"][::3], rate.cdf).pvalue > 1e-3


def test_the_key_decides_and_the_seed_does_not(drawn):
    again = CPUBackend().run(backend_cases.model, replace(QUICK, seed=7), KEY)
    np.testing.assert_array_equal(again["level"], drawn["level"])
    other = CPUBackend().run(backend_cases.model, QUICK, jax.random.PRNGKey(6))
    assert not np.any(other["level"] == drawn["level"])


def test_multiprocessing_runs_a_model_as_one_processor_does(drawn):
    found = MultiprocessingBackend(2).run(backend_cases.model, QUICK, KEY)
    for name, x in drawn.items():
        np.testing.assert_array_equal(found[name], x)


def test_a_chain_depends_on_its_own_key_and_start_only(drawn):
    """So it does not matter where a chain runs, with starts or without."""
    key = jax.random.split(KEY, 3)[1]
    alone = draw(backend_cases.model, replace(QUICK, num_chains=1), key)
    np.testing.assert_array_equal(alone["level"], drawn["level"][200:400])
    starts = {"level": np.array([1.0, -3.0]), "rate": np.array([1.5, 4.0])}
    two = replace(QUICK, num_chains=2, num_warmup=20, num_samples=20)
    both = draw(backend_cases.model, two, KEY, starts)
    own = {name: x[1:] for name, x in starts.items()}
    key = jax.random.split(KEY, 2)[1]
    alone = draw(backend_cases.model, replace(two, num_chains=1), key, own)
    np.testing.assert_array_equal(alone["level"], both["level"][20:])


def test_chains_start_near_their_values():
    config = replace(QUICK, num_warmup=1, num_samples=1, num_chains=2, max_tree_depth=1)
    starts = {"level": np.array([50.0, -50.0]), "rate": np.array([0.5, 20.0])}
    found = draw(backend_cases.model, replace(config, init_strategy="init_to_value"), KEY, starts)
    assert found["level"] == pytest.approx([50.0, -50.0], rel=0.2)
    assert found["rate"][1] > 4 * found["rate"][0]
    with pytest.raises(ConfigError, match="init_to_value without values"):
        draw(backend_cases.model, replace(config, init_strategy="init_to_value"), KEY)


@pytest.mark.parametrize(
    ("starts", "said"),
    [
        ({"level": np.array([1.0, 2.0])}, r"shape \(3, ...\)"),
        ({"level": 1.0}, "each of the 3 chains"),
        ({"levl": np.ones(3)}, "did you mean 'level'"),
    ],
)
def test_starts_that_do_not_fit_are_refused(starts, said):
    with pytest.raises(ConfigError, match=said):
        draw(backend_cases.model, QUICK, KEY, starts)


def test_settings_act(monkeypatch):
    """Each of them reaches the sampler that NumPyro runs."""
    seen = []

    def run(sampler, key, init_params=None):
        seen.append(sampler)
        return {}

    monkeypatch.setattr("heterodyne.optimization.cmc._nuts_sampler.NUTSSampler.run", run)
    config = CMCConfig(
        num_warmup=200,
        num_samples=70,
        num_chains=2,
        target_accept_prob=0.77,
        max_tree_depth=4,
        dense_mass=True,
        init_strategy="init_to_sample",
    )
    draw(backend_cases.model, config, KEY)
    draw(backend_cases.model, replace(config, dense_mass=False, chain_method="parallel"), KEY)
    for sampler, warmup, dense in zip(seen, (1500, 200), (True, False), strict=True):
        mcmc, kernel = sampler.mcmc, sampler.mcmc.sampler
        assert (mcmc.num_warmup, mcmc.num_samples, mcmc.num_chains) == (warmup, 70, 2)
        assert (kernel._target_accept_prob, kernel._max_tree_depth) == (0.77, 4)
        assert kernel._dense_mass is dense
        assert sampler._strategy == "init_to_sample"
        assert mcmc.chain_method == "sequential"


def test_settings_that_cannot_be_used_are_refused():
    for run in (CPUBackend().run, PjitBackend().run, MultiprocessingBackend(1).run):
        with pytest.raises(ConfigError, match="num_samples"):
            run(backend_cases.model, replace(QUICK, num_samples=0), KEY)


def bottomless():
    import numpyro

    level = numpyro.sample("level", numpyro.distributions.Normal(0.0, 1.0))
    numpyro.factor("nowhere", jnp.nan * level)


def test_a_model_without_a_density_fails_as_a_runtime_error():
    config = replace(QUICK, num_warmup=2, num_samples=2, num_chains=1)
    with pytest.raises(RuntimeError, match="initial parameters") as raised:
        CPUBackend().run(bottomless, config, KEY)
    assert isinstance(raised.value, SamplingError)


# Devices


def test_one_device_runs_all_chains(drawn, caplog):
    with caplog.at_level(logging.INFO, logger=LOG):
        found = PjitBackend().run(backend_cases.model, QUICK, KEY)
    n = jax.local_device_count()
    assert f"3 chains on {min(n, 3)} of {n} devices." in caplog.text
    assert {name: x.shape for name, x in found.items()} == {"level": (600,), "rate": (600,)}
    assert stats.kstest(found["level"][::3], LEVEL.cdf).pvalue > 1e-3
    # The same chains, compiled in another way.
    assert stats.ks_2samp(found["level"], drawn["level"]).pvalue > 1e-3


def test_capabilities_follow_the_devices(monkeypatch, caplog):
    for n in (1, 4):
        monkeypatch.setattr(pjit.jax, "local_devices", lambda n=n: [None] * n)
        found = PjitBackend().get_capabilities()
        assert found.supports_sharding is found.supports_parallel_chains is (n > 1)
        assert found.max_parallel_shards == n
        caplog.clear()
        PjitBackend().validate_resources()
        assert ("JAX has one device" in caplog.text) is (n == 1)


def test_no_device_is_a_runtime_error(monkeypatch):
    def none(*platform):
        raise RuntimeError("no backend")

    monkeypatch.setattr(pjit.jax, "local_devices", none)
    monkeypatch.setattr(pjit.jax, "devices", none)
    for make in (CPUBackend, PjitBackend, MultiprocessingBackend):
        with pytest.raises(RuntimeError, match="no backend"):
            make().validate_resources()


def test_draws_of_devices_are_put_behind_each_other():
    parts = [{"a": np.arange(3.0), "b": np.ones(3)}, {"a": np.arange(2.0), "b": np.zeros(2)}]
    found = combine_shard_samples(parts)
    np.testing.assert_array_equal(found["a"], [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(found["b"], [1, 1, 1, 0, 0])
    with pytest.raises(DataError, match="no shard"):
        combine_shard_samples([])
    with pytest.raises(DataError, match="names"):
        combine_shard_samples([{"a": np.ones(2)}, {"b": np.ones(2)}])


def test_vectors_of_devices_are_put_behind_each_other():
    parts = [
        {"a": np.arange(float(n)), "v": np.arange(2.0 * n).reshape(n, 2), "m": np.ones((n, 2, 2))}
        for n in (3, 2)
    ]
    found = combine_shard_samples(parts)
    np.testing.assert_array_equal(found["a"], [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(found["v"], [[0, 1], [2, 3], [4, 5], [0, 1], [2, 3]])
    assert found["m"].shape == (5, 2, 2)
    wider = parts[1] | {"v": np.ones((2, 3))}
    with pytest.raises(DataError, match=r"shard_results\[1\].*v \(2, 3\)"):
        combine_shard_samples([parts[0], wider])
    for other in (np.ones((3, 2)), np.array(1.0)):
        with pytest.raises(DataError, match=r"shard_results\[1\].*one n_draws"):
            combine_shard_samples([parts[0], parts[1] | {"v": other}])


# What a backend says of itself


def test_backends_say_what_they_can_do():
    cpu = CPUBackend().get_capabilities()
    assert (cpu.supports_sharding, cpu.supports_parallel_chains) == (False, False)
    assert cpu.max_parallel_shards == 1
    several = MultiprocessingBackend(3).get_capabilities()
    assert (several.supports_sharding, several.max_parallel_shards) == (True, 3)
    assert several.supports_parallel_chains is False
    for made in (CPUBackend(), MultiprocessingBackend()):
        made.validate_resources()
        assert isinstance(made, CMCBackend)
        made.cleanup()
        made.cleanup()


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("cpu", CPUBackend),
        ("pjit", PjitBackend),
        ("multiprocessing", MultiprocessingBackend),
        ("jax", MultiprocessingBackend),
        ("worker_pool", WorkerPoolBackend),
    ],
)
def test_backends_are_found_by_name(word, kind):
    assert type(select_backend(CMCConfig(backend_name=word))) is kind


def test_memory_grows_with_what_is_held():
    cpu, several = CPUBackend(), MultiprocessingBackend(3)
    base = cpu.estimate_memory(1000, 14, 4)
    assert cpu.estimate_memory(10**6, 14, 4) > base
    assert cpu.estimate_memory(1000, 30, 4) > base
    assert cpu.estimate_memory(1000, 14, 8) > base
    # One chain works at a time: further chains cost their draws only.
    draws = 8 * (14 + 1) * CMCConfig().num_samples / 1e9
    more = cpu.estimate_memory(10**6, 14, 5) - cpu.estimate_memory(10**6, 14, 4)
    assert draws < more < 10 * draws
    # A process without data takes some hundred MB, and each has the arrays of its shard.
    assert 0.3 < base < 1.5
    for made, n in ((cpu, 1), (several, 3)):
        data = made.estimate_memory(10**8, 14, 4) - made.estimate_memory(1, 14, 4)
        assert 10 < data / (n * 8 * 10**8 / 1e9) < 300
    three = several.estimate_memory(1, 14, 4)
    assert three == pytest.approx(3 * cpu.estimate_memory(1, 14, 4), rel=1e-3)


def test_memory_of_a_device_is_that_of_its_chains(monkeypatch):
    monkeypatch.setattr(pjit.jax, "local_devices", lambda: [None] * 4)
    found = [PjitBackend().estimate_memory(1000, 14, n) for n in (1, 4, 5, 8)]
    assert found == [process_gb(1000, 14, n) for n in (1, 1, 2, 2)]
    with pytest.raises(ConfigError, match="n_chains"):
        PjitBackend().estimate_memory(1000, 14, 0)


@pytest.mark.parametrize("n_workers", [0, -1, 1.5, True])
def test_a_number_of_workers_is_checked(n_workers):
    with pytest.raises(ConfigError, match="n_workers"):
        MultiprocessingBackend(n_workers)


@pytest.mark.parametrize("method", ["fork", "forkserver", "spwan"])
def test_processes_are_spawned_only(method):
    with pytest.raises(ValueError, match=r"spawn_method.*locks up"):
        MultiprocessingBackend(spawn_method=method)
    assert MultiprocessingBackend().spawn_method == "spawn"
    assert MultiprocessingBackend().n_workers >= 1


# Shared memory


@pytest.mark.usefixtures("segments")
def test_what_is_shared_comes_back():
    settings_ = CMCConfig(num_shards=3, run_id="µ").to_dict()
    array = np.arange(12.0, dtype=np.float32).reshape(3, 4)[:, ::2]
    with SharedDataManager() as manager:
        refs = [
            manager.create_shared_bytes("bytes", b"\x00abc"),
            manager.create_shared_bytes("nothing", b""),
            manager.create_shared_array("array", array),
            manager.create_shared_array("number", np.float64(2.5)),
            manager.create_shared_dict("settings", settings_),
        ]
        assert len(manager._shared_blocks) == len(manager._refs) == 5
        refs = json.loads(json.dumps(refs))
        assert load_shared_bytes(refs[0]) == b"\x00abc"
        assert load_shared_bytes(refs[1]) == b""
        found = load_shared_array(refs[2])
        np.testing.assert_array_equal(found, array)
        assert found.dtype == np.float32
        assert found.flags.writeable
        assert load_shared_array(refs[3]) == 2.5
        assert CMCConfig.from_dict(load_shared_dict(refs[4])) == CMCConfig.from_dict(settings_)
    with pytest.raises(FileNotFoundError):
        SharedMemory(refs[0]["shm_name"])


@pytest.mark.usefixtures("segments")
def test_nothing_stays_in_shared_memory_after_an_error():
    with SharedDataManager() as manager:
        manager.create_shared_array("array", np.ones(100))
        with pytest.raises(DataError, match="there is no shard"):
            manager.create_shared_shard_arrays([])
    manager = SharedDataManager()
    with pytest.raises(DataError, match="numbers"):
        manager.create_shared_array("objects", np.array([object()]))
    with pytest.raises(DataError, match="JSON serializable"):
        manager.create_shared_dict("arrays", {"x": np.ones(2)})
    manager.create_shared_bytes("one", b"1")
    with pytest.raises(DataError, match="shared already"):
        manager.create_shared_bytes("one", b"2")
    # Another process may have removed a segment.
    manager._shared_blocks[0].unlink()
    manager.create_shared_bytes("two", b"2")
    manager.cleanup()
    manager.cleanup()
    assert manager._shared_blocks == []


def a_shard(n, **changes):
    """Random arrays of a shard of n frames."""
    rng = np.random.default_rng(n)
    return {"c2_data": rng.normal(size=(n, n)), "t": np.arange(1.0, n + 1)} | changes


NUMBERS = hnp.arrays(
    st.sampled_from(["<f8", "<f4", "<i8", "<i2"]),
    st.integers(2, 5).map(lambda n: (n, n)),
    elements=st.integers(-100, 100),
)


@settings(max_examples=25)
@given(matrices=st.lists(NUMBERS, min_size=1, max_size=5), data=st.data())
def test_shards_are_packed_into_one_segment_for_each_kind_of_array(matrices, data):
    shards = []
    for c2 in matrices:
        optional = {
            key: c2 * 2.0 if data.draw(st.booleans()) else None for key in ("sigma", "weights")
        }
        shards.append({"c2_data": c2, "t": np.arange(len(c2)), "noise_scale": 0.5, **optional})
    with SharedDataManager() as manager:
        refs = manager.create_shared_shard_arrays(shards)
        assert len(manager._shared_blocks) == len(_SHARD_ARRAY_KEYS) == 4
        assert len({ref["c2_data"]["shm_name"] for ref in refs}) == 1
        for shard, ref in zip(shards, json.loads(json.dumps(refs)), strict=True):
            found = load_shared_shard(ref)
            assert set(found) == {"c2_data", "sigma", "t", "weights", "noise_scale"}
            assert found["noise_scale"] == 0.5
            for key in _SHARD_ARRAY_KEYS:
                if shard[key] is None:
                    assert found[key] is None
                else:
                    np.testing.assert_array_equal(found[key], shard[key])
                    assert found[key].dtype == shard[key].dtype


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"c2_data": None}, "shard 1, c2_data: the two-time correlation is missing"),
        ({"t": None}, "the frame times in s is missing"),
        ({"t": np.ones(3)}, r"shape \(3,\) and the type float64. Allowed: \(4,\), as c2_data"),
        ({"weights": np.ones(4)}, r"weights of the pairs has the shape \(4,\)"),
        ({"sigma": np.ones((4, 3))}, "standard deviation of the errors has the shape"),
        ({"c2_data": np.ones((4, 3))}, r"Allowed: \(N, N\) or \(n_phi, N, N\), of type float64"),
    ],
)
@pytest.mark.usefixtures("segments")
def test_arrays_that_do_not_fit_are_named(changes, said):
    with SharedDataManager() as manager, pytest.raises(DataError, match=said):
        manager.create_shared_shard_arrays([a_shard(4), a_shard(4, **changes)])


def test_a_number_may_stand_for_all_errors():
    with SharedDataManager() as manager:
        refs = manager.create_shared_shard_arrays([a_shard(4, sigma=np.array(0.1))])
        assert load_shared_shard(refs[0])["sigma"] == 0.1
        with pytest.raises(DataError, match="no shard"):
            manager.create_shared_shard_arrays([])


def test_an_array_spec_holds_three_facts():
    spec = ArraySpec("float64", True, "weights")
    assert (spec.expected_dtype, spec.allow_none, spec.description) == ("float64", True, "weights")
    assert list(inspect.signature(ArraySpec).parameters) == [
        "expected_dtype", "allow_none", "description"
    ]  # fmt: skip
