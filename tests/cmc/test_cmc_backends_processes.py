"""Worker processes: what they do, how they fail, and that nothing of them is left."""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import backend_cases
import numpy as np
import pytest
from backend_cases import MarkedModel, model, prepare, prepared, refuse_all, refuse_first, work
from test_cmc_backends_shards import CONFIG, SPACE, drawn_here, here, payload, shard

from heterodyne._cores import usable_cores
from heterodyne._errors import ConfigError, SamplingError
from heterodyne.config.cmc import CMCConfig
from heterodyne.core._jax import jax
from heterodyne.optimization.cmc.backends import worker_pool
from heterodyne.optimization.cmc.backends._dispatch import dispatch
from heterodyne.optimization.cmc.backends._schedule import Limits
from heterodyne.optimization.cmc.backends._workers import Job
from heterodyne.optimization.cmc.backends.cpu_backend import CPUBackend
from heterodyne.optimization.cmc.backends.multiprocessing import (
    MultiprocessingBackend,
    run_joint_pooled_shards_parallel,
)
from heterodyne.optimization.cmc.backends.pjit import PjitBackend
from heterodyne.optimization.cmc.backends.worker_pool import (
    PersistentWorkerPool,
    WorkerPoolBackend,
    should_use_persistent_pool,
)

LOG = "heterodyne"
KEY = jax.random.PRNGKey(5)
QUICK = CMCConfig(num_warmup=300, num_samples=200, num_chains=3, dense_mass=False)
HERE = Path(__file__).parent
posix = pytest.mark.skipif(os.name != "posix", reason="signals")


@pytest.fixture(autouse=True)
def nothing_left():
    """No process and no shared memory outlives a test."""
    with backend_cases.no_segments_left():
        yield
    assert multiprocessing.active_children() == []


def run(tasks, *, limits=None, n_workers=1, job=None, costs=None, **how):
    """Dispatch with limits that fit a test."""
    limits = limits or Limits(job=30.0, silence=20.0, startup=60.0)
    costs = costs or [1.0] * len(tasks)
    job = job or Job(work, beat=0.2)
    return dispatch(tasks, costs, job, n_workers=n_workers, limits=limits, **how)


# Tasks on workers


def test_tasks_come_back_in_order_and_problems_as_data(caplog):
    with caplog.at_level(logging.INFO, logger=LOG):
        found = run(
            [
                {"do": "double", "x": 1.0},
                {"do": "raise", "x": 2.0},
                {"do": "closure"},
                {"do": "log", "x": 4},
                {"do": "double", "x": -5.0},
            ],
            wrong=lambda value: "it is negative" if value["x"] < 0 else None,
        )
    assert found[0].value["x"] == 2.0
    assert found[0].value["pid"] != os.getpid()
    assert [one.problem for one in found[1:]] == [
        "ValueError: cannot do 2.0",
        found[2].problem,
        None,
        "it is negative",
    ]
    assert "cannot" not in found[0].details
    assert "raise ValueError" in found[1].details
    assert "pickle" in found[2].problem
    assert [one.value for one in found][1:] == [None, None, {"x": 4}, None]
    assert found[0].outcome.seconds > 0.0
    # What workers log is heard here, at the level of the parent.
    said = {r.name: r.getMessage() for r in caplog.records}
    assert said["heterodyne.work"] == "heterodyne worker 0: seen 4"
    lines = [r.getMessage() for r in caplog.records if "of 5 shards done" in r.getMessage()]
    assert len(lines) == 5
    assert lines[-1].startswith("5 of 5 shards done, 3 failed, 0 running")
    assert "Shard 1: ValueError: cannot do 2.0." in caplog.text


@posix
def test_lost_frozen_and_endless_tasks(tmp_path, caplog):
    """A killed worker's task is tried again; one that kills every worker is given up."""
    limits = Limits(job=4.0, silence=2.5, startup=60.0)
    with caplog.at_level(logging.INFO, logger=LOG):
        found = run(
            [
                {"do": "kill_once", "x": 1.0, "mark": str(tmp_path / "mark")},
                {"do": "kill"},
                {"do": "leave"},
                {"do": "freeze"},
                {"do": "double", "x": 1.0, "seconds": 100.0},
                {"do": "double", "x": 2.0},
            ],
            limits=limits,
            n_workers=3,
            shown=False,
        )
    assert found[0].value == {"x": 1.0}
    assert [one.outcome.attempts for one in found] == [2, 2, 2, 2, 1, 1]
    assert found[1].problem == "its process was ended by SIGKILL, as when memory runs out"
    assert found[2].problem == "its process ended with exit code 7"
    assert found[3].problem == "its worker gave no sign of life for 2.5 s"
    assert found[4].problem == "it took longer than 4 s"
    assert found[5].value["x"] == 4.0
    assert "done" not in caplog.text


def test_workers_that_cannot_be_set_up_end_the_run():
    found = run([{"do": "double", "x": 1.0}], job=Job(work, setup=refuse_all))
    assert found[0].problem == ("no worker is left; the last problem: RuntimeError: no licence")
    with pytest.raises(ConfigError, match=r"top level of a \.py file"):
        run([1], job=Job(lambda task: task))
    with pytest.raises(ConfigError, match="shard 0 cannot be pickled"):
        run([lambda: 1])


def test_too_many_failures_end_the_run_early():
    tasks = [{"do": "raise", "x": k} for k in range(3)]
    tasks.append({"do": "double", "x": 1.0, "seconds": 100.0})
    began = time.monotonic()
    found = run(tasks, costs=[4, 3, 2, 1], n_workers=2, limits=Limits(least_share=0.5))
    assert time.monotonic() - began < 50.0
    assert found[3].problem == "given up, since 3 of 4 others failed"


def test_ctrl_c_leaves_no_process(monkeypatch):
    """The parent decides: workers do not hear Ctrl-C, and end with the run."""

    def interrupt(value):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([{"do": "double", "x": 1.0}, {"do": "double", "x": 1.0}], wrong=interrupt)


def test_libraries_of_workers_share_the_cores(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    found = run([{"do": "environment"}], job=Job(work, threads=3))[0].value
    assert found["NPROC"] == found["OMP_NUM_THREADS"] == "3"
    # Sums over several threads are rounded differently, and draws with them.
    assert found["OPENBLAS_NUM_THREADS"] == found["MKL_NUM_THREADS"] == "1"
    assert found["JAX_PLATFORMS"] == "cpu"
    assert found["JAX_COMPILATION_CACHE_DIR"] == jax.config.jax_compilation_cache_dir
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "NPROC" not in os.environ


@posix
def test_workers_end_with_their_parent():
    """Also where the parent is killed, and cannot tell them."""
    code = """
import sys, time
sys.path.insert(0, sys.argv[1])
import backend_cases
from heterodyne.optimization.cmc.backends._workers import Job, Worker
if __name__ == "__main__":
    job = Job(backend_cases.work, beat=0.1)
    worker = Worker(0, job, job.pickled(), lambda worker, message: print(message.kind, flush=True))
    worker.give(0, __import__("pickle").dumps({"do": "double", "x": 1.0, "seconds": 60.0}))
    print(worker.pid, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(HERE)], stdout=subprocess.PIPE, text=True
    ) as parent:
        worker = int(next(line for line in parent.stdout if line.strip().isdigit()))
        parent.kill()
    deadline = time.monotonic() + 20.0
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        if "Z" in Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0]:
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{worker}").exists()


# The pool


@posix
def test_a_pool_goes_round_and_survives_a_worker(tmp_path):
    arguments = {"factor": 3.0}
    with PersistentWorkerPool(2, partial(work), arguments) as pool:
        assert pool.n_workers == 2
        assert not pool.results_pending()
        numbers = [pool.submit({"do": "double", "x": float(k)}) for k in range(4)]
        assert numbers == [0, 1, 2, 3]
        found = [pool.get_result(20.0) for _ in range(4)]
        assert sorted(one["x"] for one in found) == [0.0, 3.0, 6.0, 9.0]
        # In turn: each worker had every other task.
        by_worker = {}
        for one in found:
            by_worker.setdefault(one["pid"], set()).add(one["x"] / 3.0 % 2)
        assert sorted(map(sorted, by_worker.values())) == [[0.0], [1.0]]
        with pytest.raises(queue.Empty):
            pool.get_result(60.0)
    with PersistentWorkerPool(2, work) as pool:
        for task in ("kill", "double", "double", "double", "nothing", "number", "raise"):
            pool.submit({"do": task, "x": 1.0})
        lost, good, bad = [], [], []
        for _ in range(6):
            try:
                one = pool.get_result(20.0)
            except SamplingError as error:
                lost.append(str(error))
            else:
                (good if one.get("success", True) else bad).append(one)
        assert len(lost) == 1
        assert "task 0 is lost: its process was ended by SIGKILL" in lost[0]
        assert [one["x"] for one in good] == [2.0] * 3
        errors = {one["task"]: one["error"] for one in bad}
        assert errors == {
            5: "TypeError: worker_fn returned a int; allowed: a dict, or None",
            6: "ValueError: cannot do 1.0",
        }
        assert all("Traceback" in one["traceback"] for one in bad)
        # The other worker takes all tasks now, until it ends as well.
        pool.submit({"do": "kill", "seconds": 0.5})
        pool.submit({"do": "double", "x": 1.0})
        for task in (7, 8):
            with pytest.raises(SamplingError, match=f"task {task} is lost"):
                pool.get_result(20.0)
        with pytest.raises(SamplingError, match="no process is left: worker 0: its process"):
            pool.submit({"do": "double", "x": 1.0})


def test_a_pool_is_prepared_once_and_goes_on_without_a_broken_worker(tmp_path, caplog):
    folder = {"folder": str(tmp_path)}
    with PersistentWorkerPool(2, prepared, folder, prepare) as pool:
        pool.submit({})
        pool.submit({})
        found = [pool.result_queue.get(timeout=20.0) for _ in range(2)]
        assert found == [{"ready": ["ready-0", "ready-1"]}] * 2
        with pytest.raises(ConfigError, match="task 2 cannot be pickled"):
            pool.submit({"x": lambda: 1})
        pool.submit({})
        while not pool.results_pending():
            time.sleep(0.01)
    pool.shutdown()
    with pytest.raises(SamplingError, match="shut down"):
        pool.submit({})
    with PersistentWorkerPool(2, prepared, folder, refuse_first) as pool:
        for _ in range(3):
            pool.submit({})
            assert pool.get_result(20.0)["ready"]
    assert "1 of 2 workers are ready: worker 0: RuntimeError: no licence." in caplog.text


def test_a_pool_does_not_wait_for_ever(tmp_path, caplog):
    folder = {"folder": str(tmp_path)}
    with PersistentWorkerPool(2, prepared, folder, backend_cases.sleep_first, 4.0) as pool:
        assert "1 of 2 workers are ready: not ready after 4 s" in caplog.text
        pool.submit({})
        assert pool.get_result(20.0) == {"ready": []}
    with pytest.raises(SamplingError, match=r"none of 1 workers is ready: .* no licence"):
        PersistentWorkerPool(1, work, None, refuse_all)
    with PersistentWorkerPool(1, work) as pool:
        pool.submit({"do": "double", "x": 1.0, "seconds": 100.0})
        pool.submit({"do": "double", "x": 1.0})
        with pytest.raises(queue.Empty):
            pool.get_result(0.3)
        began = time.monotonic()
        pool.shutdown(0.2)
        assert time.monotonic() - began < 10.0
    assert "1 tasks were not begun" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0, work), "n_workers"),
        ((1, lambda task: task), "cannot be pickled"),
        ((1, work, {"x": lambda: 1}), "cannot be pickled"),
        ((1, work, None, None, 0.0), "startup_timeout"),
    ],
)
def test_pools_that_cannot_be_are_refused(arguments, said):
    with pytest.raises(ConfigError, match=said):
        PersistentWorkerPool(*arguments)


@pytest.mark.parametrize(("n_shards", "worth"), [(1, False), (2, False), (3, True), (100, True)])
def test_a_pool_is_worth_it_from_three_shards_on(n_shards, worth):
    for n_workers in (1, 8):
        assert should_use_persistent_pool(n_shards, n_workers) is worth
        assert WorkerPoolBackend.should_use_pool(n_shards, n_workers) is worth


# Backends


def test_a_number_of_workers():
    assert WorkerPoolBackend().n_workers == usable_cores()
    assert WorkerPoolBackend(3).n_workers == 3
    with pytest.raises(ConfigError, match="n_workers"):
        WorkerPoolBackend(0)


@posix
def test_chains_in_processes_are_those_of_one_processor(tmp_path):
    """Also where a process is killed: its chain is drawn again."""
    starts = {"level": np.array([0.0, 1.0]), "rate": np.array([1.0, 2.0])}
    two = replace(QUICK, num_chains=2, num_samples=50)
    found = WorkerPoolBackend(1).run(MarkedModel(tmp_path), two, KEY, starts)
    expected = CPUBackend().run(model, two, KEY, starts)
    assert set(found) == {"level", "rate"}
    for name, x in expected.items():
        np.testing.assert_array_equal(found[name], x)


@pytest.mark.parametrize("n_chains", [1, 3])
def test_chains_go_out_one_by_one(monkeypatch, n_chains):
    monkeypatch.setattr(worker_pool, "dispatch", here)
    config = replace(QUICK, num_chains=n_chains, per_shard_timeout=50, heartbeat_timeout=6)
    # Keys of both kinds.
    found = WorkerPoolBackend(2).run(model, config, jax.random.key(5))
    np.testing.assert_array_equal(found["level"], CPUBackend().run(model, config, KEY)["level"])
    assert here.seen["limits"] == Limits(job=50, silence=6, least_share=1.0)
    assert here.seen["n_workers"] == min(2, n_chains)
    assert here.seen["job"].beat == 1.5
    assert len(here.seen["costs"]) == n_chains


def test_models_that_no_process_can_have_are_refused():
    def inner():
        model()

    with pytest.raises(ConfigError, match=r"cannot be pickled.*top level of a \.py file.*cpu"):
        WorkerPoolBackend(1).run(inner, QUICK, KEY)
    with pytest.raises(ConfigError, match="each of the 3 chains"):
        WorkerPoolBackend(1).run(model, QUICK, KEY, {"level": np.ones(2)})
    with pytest.raises(ConfigError, match="num_samples"):
        WorkerPoolBackend(1).run(model, replace(QUICK, num_samples=0), KEY)


def test_chains_that_fail_name_the_reason():
    one = replace(QUICK, num_chains=1, init_strategy="init_to_value")
    with pytest.raises(RuntimeError, match=r"chain 0 \(counted from 0\): ConfigError: init_params"):
        WorkerPoolBackend(1).run(model, one, KEY)


def test_devices_change_no_draw(tmp_path):
    """Three chains on two devices against one device, and the memory that they take."""
    code = """
import sys, numpy as np
sys.path.insert(0, sys.argv[1])
from dataclasses import replace
from test_cmc_backends_processes import KEY, QUICK, model
from heterodyne.optimization.cmc.backends.pjit import PjitBackend
found = PjitBackend()
assert found.get_capabilities().max_parallel_shards == 2
np.savez(sys.argv[2], **found.run(model, QUICK, KEY))
"""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    file = tmp_path / "draws.npz"
    subprocess.run(
        [sys.executable, "-c", code, str(HERE), str(file)],
        check=True,
        timeout=120,
        env=os.environ | {"XLA_FLAGS": flags},
    )
    expected = PjitBackend().run(model, QUICK, KEY)
    with np.load(file) as found:
        assert set(found) == set(expected)
        for name, x in expected.items():
            np.testing.assert_array_equal(found[name], x)


@pytest.mark.slow
def test_shards_in_processes_are_those_drawn_here():
    given = [shard(0), shard(1)]
    found = MultiprocessingBackend(1).run_shards(given, CONFIG, parameter_space=SPACE)
    for one, other in zip(found, drawn_here(), strict=True):
        assert one["shard_idx"] == other["shard_idx"]
        assert one["duration"] > 0.0
        for name, x in other["samples"].items():
            np.testing.assert_array_equal(one["samples"][name], x)


def test_pooled_shards_that_fail_or_take_too_long_say_so():
    bad = payload(0, phi_unique=np.array([0.0]))
    found = run_joint_pooled_shards_parallel(
        [bad, payload(1)], n_workers=2, num_chains=1, per_shard_timeout=0.5, progress_bar=False
    )
    assert "longer than 0.5 s" in found[1].metadata["failed"]
    assert found[1].wall_time_seconds >= 0.5
    assert [one.metadata["shard"] for one in found] == [0, 1]
    assert not any(one.convergence_passed or one.samples for one in found)
