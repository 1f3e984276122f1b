"""PBS jobs on a stand-in server: retries, lost jobs, limits, resumption, and real draws."""

from __future__ import annotations

import logging
import sys
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from pbs_cases import Cluster, draws_of

from heterodyne._errors import ConfigError, SamplingError
from heterodyne.config.cmc import CMCConfig
from heterodyne.core._jax import jax
from heterodyne.optimization.cmc.backends import _pbs_jobs
from heterodyne.optimization.cmc.backends._draw import draw
from heterodyne.optimization.cmc.backends.base import select_backend
from heterodyne.optimization.cmc.backends.pbs import PBSBackend, PBSConfig, ShardResult

CONFIG = CMCConfig(
    num_warmup=150, num_samples=150, num_chains=2, dense_mass=False, per_shard_timeout=60
)
MODEL = """
import numpyro
import numpyro.distributions as dist

def mean_of(y, scale):
    mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
    numpyro.sample("y", dist.Normal(mu, scale), obs=y)
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    made = Cluster(tmp_path)
    monkeypatch.setenv("PATH", f"{made.programs}:/usr/bin:/bin")
    monkeypatch.setattr(_pbs_jobs, "_SETTLING_SECONDS", 0.02)
    yield made
    made.close()


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model in a module that only this process has on its path."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "pbs_mean_model.py").write_text(MODEL)
    monkeypatch.syspath_prepend(folder)
    yield __import__("pbs_mean_model").mean_of
    del sys.modules["pbs_mean_model"]


def backend_of(cluster, **settings):
    given = {
        "python_executable": cluster.python,
        "working_dir": str(cluster.shared),
        "poll_interval": 0.02,
        **settings,
    }
    return PBSBackend(PBSConfig(**given))


def shards_of(n):
    return [{"y": np.full(3, float(k)), "scale": 1.0} for k in range(n)]


def run_shards(backend, model, n=3, config=CONFIG):
    return backend.run_shards(shards_of(n), model, config, list(range(n)))


def folders(cluster):
    return list(cluster.shared.iterdir())


def test_shards_are_one_array_and_come_back_in_their_order(cluster, model):
    cluster.plan(shard_0="slow")
    backend = backend_of(cluster)
    results = run_shards(backend, model)
    assert [r.shard_id for r in results] == [0, 1, 2]
    assert [r.job_id for r in results] == [f"12[{k}].pbs.test" for k in range(3)]
    for k, result in enumerate(results):
        assert isinstance(result, ShardResult)
        assert result.success
        assert not result.error_message
        np.testing.assert_array_equal(result.samples["x"], draws_of(k))
    assert len(cluster.calls("qsub")) == 1
    # One look at the queue asks for all that are not done.
    assert cluster.calls("qstat")[0] == ["-x", "-f", "-F", "json", *[r.job_id for r in results]]
    # No file is left, and PBS could still write what the jobs printed.
    assert not folders(cluster)
    assert not cluster.undelivered()


def test_a_single_shard_is_a_plain_job_and_files_may_be_kept(cluster, model):
    backend = backend_of(cluster, cleanup_on_success=False)
    (result,) = run_shards(backend, model, n=1)
    assert result.job_id == "12.pbs.test"
    (folder,) = folders(cluster)
    assert "-J" not in (folder / "job_001.sh").read_text()
    backend.cleanup()
    backend.cleanup()
    assert not folders(cluster)


def test_only_failed_shards_run_again(cluster, model):
    cluster.plan(shard_1="fail good", shard_3="damaged fail good")
    results = run_shards(backend_of(cluster), model, n=5)
    assert all(r.success for r in results)
    np.testing.assert_array_equal(results[3].samples["x"], draws_of(3))
    assert sorted(cluster.starts()) == [0, 1, 1, 2, 3, 3, 3, 4]


def test_a_shard_that_keeps_failing_is_reported_with_its_log(cluster, model, caplog):
    cluster.plan(shard_1="fail fail good")
    with caplog.at_level(logging.WARNING, "heterodyne"):
        results = run_shards(backend_of(cluster, max_retries=1), model)
    assert [r.success for r in results] == [True, False, True]
    message = results[1].error_message
    assert "shard 1 (job 13.pbs.test)" in message
    assert "exit status 3" in message
    assert message.endswith("ValueError: shard 1 is broken")
    assert results[1].samples == {}
    # What succeeded stays, and the same call draws only what is missing.
    (folder,) = folders(cluster)
    assert str(folder) in caplog.text
    started = len(cluster.starts())
    assert all(r.success for r in run_shards(backend_of(cluster), model))
    assert cluster.starts()[started:] == [1]
    assert not folders(cluster)


@pytest.mark.parametrize("settings", [{}, {"no_history": True}])
def test_jobs_that_vanish_without_a_result_are_not_waited_for(cluster, model, settings):
    cluster.settings(**settings)
    cluster.plan(shard_1="silent")
    results = run_shards(backend_of(cluster, max_retries=0), model)
    assert [r.success for r in results] == [True, False, True]
    how = "does not know it any more" if settings else "exit status 0"
    assert f"{how}, and there is no result" in results[1].error_message


def test_a_queue_that_forgets_a_running_job(cluster, model):
    cluster.plan(shard_0="hang good")
    backend = backend_of(cluster, max_retries=0)
    job_id = backend.submit_shard(shards_of(1)[0], model, {"num_warmup": 5}, 0, 1)
    cluster.wait_until(cluster.starts)
    cluster.purge()
    (result,) = backend.wait_for_jobs([job_id])
    assert not result.success
    assert job_id in result.error_message


def test_a_kill_at_walltime_is_not_repeated(cluster, model):
    cluster.plan(shard_0="hang")
    backend = backend_of(cluster, walltime="00:00:01", max_retries=5)
    results = run_shards(backend, model, n=2)
    assert [r.success for r in results] == [False, True]
    assert "walltime" in results[0].error_message
    assert sorted(cluster.starts()) == [0, 1]


def test_shards_that_run_for_too_long_are_cancelled_and_the_others_kept(cluster, model):
    cluster.plan(shard_1="hang")
    config = CMCConfig(**{**vars_of(CONFIG), "per_shard_timeout": 1})
    with pytest.raises(TimeoutError, match=r"per_shard_timeout[^$]*shard 1 \(job 12\[1\]"):
        run_shards(backend_of(cluster), model, config=config)
    assert cluster.calls("qdel") == [["12[1].pbs.test"]]
    # A longer time is no other run: only the missing shard is drawn.
    assert all(r.success for r in run_shards(backend_of(cluster), model))
    assert sorted(cluster.starts()) == [0, 1, 1, 2]


def test_time_in_the_queue_does_not_count(cluster, model):
    cluster.settings(never_start=True)
    backend = backend_of(cluster)
    job_id = backend.submit_shard(shards_of(1)[0], model, {}, 0, 1)
    with pytest.raises(TimeoutError, match=job_id):
        backend.wait_for_jobs([job_id], timeout=0.1)
    assert not cluster.calls("qdel")
    backend.cleanup([job_id])
    backend.cleanup([job_id])
    assert cluster.calls("qdel")[0] == [job_id]
    assert [job["state"] for job in cluster.jobs()] == ["F"]
    assert not folders(cluster)


def test_a_driver_that_dies_is_followed_by_one_that_goes_on(cluster, model, monkeypatch):
    cluster.plan(shard_0="slow")

    def interrupted(seconds):
        cluster.wait_until(lambda: len(cluster.starts()) == 3)
        raise KeyboardInterrupt

    clock = SimpleNamespace(sleep=interrupted, monotonic=time.monotonic)
    monkeypatch.setattr(_pbs_jobs, "time", clock)
    with pytest.raises(KeyboardInterrupt):
        run_shards(backend_of(cluster), model)
    monkeypatch.setattr(_pbs_jobs, "time", time)
    results = run_shards(backend_of(cluster), model)
    assert all(r.success for r in results)
    assert len(cluster.calls("qsub")) == 1
    assert sorted(cluster.starts()) == [0, 1, 2]
    assert not folders(cluster)


def test_cleanup_cancels_what_runs_and_deletes_its_files(cluster, model):
    cluster.plan(shard_0="hang", shard_1="hang")
    backend = backend_of(cluster)
    ids = [backend.submit_shard(shards_of(1)[0], model, {}, k, k) for k in range(2)]
    cluster.wait_until(lambda: len(cluster.starts()) == 2)
    backend.cleanup(ids[:1])
    assert len(folders(cluster)) == 1
    backend.cleanup()
    assert not folders(cluster)
    cluster.wait_until(lambda: all(job["state"] == "F" for job in cluster.jobs()))
    backend.cleanup(["99.pbs.test"])
    assert cluster.calls("qdel")[-1] == ["99.pbs.test"]
    with pytest.raises(ConfigError, match="no job id"):
        backend.cleanup(["-Wforce"])


def test_the_id_of_an_array_stands_for_its_jobs(cluster, model):
    cluster.plan(shard_0="hang", shard_1="fail")
    config = CMCConfig(**{**vars_of(CONFIG), "per_shard_timeout": 1})
    backend = backend_of(cluster, max_retries=0)
    with pytest.raises(TimeoutError):
        run_shards(backend, model, n=2, config=config)
    assert len(folders(cluster)) == 1
    backend.cleanup(["12[].pbs.test"])
    assert not folders(cluster)


def test_a_refused_submission_says_what_pbs_said(cluster, model):
    backend = backend_of(cluster, extra_pbs_directives=["#PBS -l filesystems=home:eagle"])
    with pytest.raises(RuntimeError, match=r"(?s)Unknown resource.*no such resource"):
        run_shards(backend, model)
    assert not folders(cluster)
    cluster.settings(known=["filesystems"])
    assert all(r.success for r in run_shards(backend, model))


def test_looks_that_fail_are_repeated_but_not_for_ever(cluster, model, monkeypatch):
    cluster.plan(shard_0="slow", shard_1="slow")
    cluster.settings(failing=2)
    assert all(r.success for r in run_shards(backend_of(cluster), model, n=2))
    cluster.settings(failing=1000)
    cluster.plan(shard_0="hang")
    monkeypatch.setattr(_pbs_jobs.pbs, "MOST_FAILED_LOOKS", 3)
    with pytest.raises(RuntimeError, match="no answer 3 times"):
        run_shards(backend_of(cluster), model, n=1)


def test_results_are_never_unpickled(cluster, model):
    cluster.plan(shard_0="pickled")
    (result,) = run_shards(backend_of(cluster, max_retries=0), model, n=1)
    assert not result.success
    assert "cannot be read" in result.error_message


def test_without_pbs_there_is_one_sentence(monkeypatch, model, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="qsub, qstat, qdel not found on PATH"):
        PBSBackend().validate_resources()
    with pytest.raises(RuntimeError, match="not found on PATH"):
        run_shards(PBSBackend(), model)
    with pytest.raises(RuntimeError, match="not found on PATH"):
        select_backend(CMCConfig(backend_name="pbs"))


@pytest.mark.parametrize(
    ("shards", "seeds", "message"),
    [
        ([], [], "0 shards"),
        (shards_of(2), [1], "2 shards and 1 seeds"),
        ([{"y": 1.0}], [1], "missing a required argument"),
        ([{"y": 1.0, "scale": 1.0, "z": 1.0}], [1], "unexpected keyword"),
        ([{"y": object(), "scale": 1.0}], [1], "of type object"),
        ([{"y": 1.0, "scale": 1.0, "init_params": {"mu": 1.0}}], [1], "each of the 2 chains"),
        (shards_of(1), [-1], "seed is -1"),
        (shards_of(1), [2**63], "seed is"),
        (shards_of(1), [True], "seed is True"),
    ],
)
def test_shards_that_cannot_be_used_are_refused_before_a_job(
    cluster, model, shards, seeds, message
):
    with pytest.raises(ValueError, match=message):
        backend_of(cluster).run_shards(shards, model, CONFIG, seeds)
    assert not cluster.calls("qsub")


def test_what_the_backend_says_of_itself(cluster, model):
    assert backend_of(cluster).get_capabilities().supports_sharding
    few = backend_of(cluster, max_running_shards=4).get_capabilities()
    assert few.max_parallel_shards == 4
    # A job has a node of its own, so the number of shards does not count.
    assert few.supports_sharding
    memory = backend_of(cluster).estimate_memory
    assert memory(10**6, 14, 1) > memory(10**4, 14, 1) > 0
    with pytest.raises(ConfigError, match=r"12\.pbs\.test is not known"):
        backend_of(cluster).wait_for_jobs(["12.pbs.test"])
    with pytest.raises(ConfigError, match="shard_id"):
        backend_of(cluster).submit_shard({}, model, {}, -1, 0)


def test_the_default_folder_is_warned_of(cluster, model, caplog, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(cluster.shared))
    with caplog.at_level(logging.WARNING, "heterodyne"):
        results = run_shards(backend_of(cluster, working_dir=None), model, n=1)
    assert results[0].success
    assert f"{cluster.shared}, which other nodes can rarely see" in caplog.text


def test_chains_on_jobs_are_the_chains_of_this_process(cluster, model):
    """The whole way, with NumPyro in the jobs: the draws are those of ``draw`` here."""
    rng = np.random.default_rng(3)
    y, scale = rng.normal(2.0, 0.5, 40), 0.5
    bound, key = partial(model, y=y, scale=scale), jax.random.PRNGKey(5)
    starts = {"mu": np.array([1.0, 3.0])}
    backend = backend_of(cluster, python_executable=sys.executable, poll_interval=0.2)
    samples = backend.run(bound, CONFIG, key, starts)
    assert samples["mu"].shape == (300,)
    np.testing.assert_array_equal(samples["mu"], draw(bound, CONFIG, key, starts)["mu"])
    # Normal prior and normal data of known width.
    variance = 1 / (1 / 10.0**2 + y.size / scale**2)
    mean = variance * y.sum() / scale**2
    assert samples["mu"].mean() == pytest.approx(mean, abs=5 * np.sqrt(variance / 60))
    assert samples["mu"].std() == pytest.approx(np.sqrt(variance), rel=0.3)
    assert not folders(cluster)


def test_a_chain_that_fails_fails_the_run(cluster, model):
    cluster.plan(shard_1="fail")
    bound = partial(model, y=1.0, scale=1.0)
    with pytest.raises(SamplingError, match=r"(?s)1 of 2 chains failed.*shard 1.*is broken"):
        backend_of(cluster, max_retries=0).run(bound, CONFIG, jax.random.PRNGKey(0))
    with pytest.raises(ConfigError, match="each of the 2 chains"):
        backend_of(cluster).run(bound, CONFIG, jax.random.PRNGKey(0), {"mu": np.zeros(3)})


def vars_of(config):
    return {k: v for k, v in vars(config).items() if not k.startswith("_")}
