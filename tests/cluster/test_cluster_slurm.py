"""Tasks in jobs of a real Slurm, which .ci/slurm starts for these tests.

The test whose job runs into its time limit waits for Slurm to notice, about once a minute; the
others are done meanwhile.
"""

import json
import os
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("parsl")
import cluster_toys as toys

from heterodyne.cli._tasks import perform
from heterodyne.cli.main import main
from heterodyne.config._cluster import Cluster
from heterodyne.data import from_arrays
from heterodyne.io.cluster_jobs import ClusterError, ClusterJobs, is_driven
from heterodyne.io.run_folder import RunFolder
from heterodyne.io.work_folder import Rules
from heterodyne.optimization.bind import bind, fit_scaled
from heterodyne.optimization.cmc._analysis import analyse
from heterodyne.optimization.cmc._assign import Sharding
from heterodyne.optimization.cmc._shard_task import Elsewhere
from heterodyne.optimization.cmc.backends.cluster import run_on_cluster
from heterodyne.optimization.scaling import ScalingMode

pytestmark = pytest.mark.slurm


def slurm(program, *arguments):
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


@pytest.fixture(scope="module", autouse=True)
def of_the_tests():
    """Submit nothing to a Slurm that others use."""
    config = Path(os.environ.get("SLURM_CONF", ""))
    if shutil.which("sbatch") is None or not config.is_file():
        pytest.skip("no Slurm of the tests runs; .ci/slurm starts one")
    assert "ClusterName=test" in config.read_text()


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    toys.hurry(monkeypatch.setattr)


def section(**given):
    address = {"address": "127.0.0.1", "poll_interval": 2, "workers_per_node": 1}
    return toys.section("slurm", **(address | given))


def queue():
    """Ids of the jobs that Slurm has."""
    return set(slurm("squeue", "--noheader", "--states=PD,R,CF", "--format=%A").split())


def jobs_of(folder):
    """Ids of all jobs that a run had."""
    content = json.loads((folder / "work" / "cluster.json").read_text())
    return [job["id"] for job in content["jobs"]]


def errors_of(folder):
    return "".join(path.read_text() for path in folder.rglob("*.stderr"))


def problems(folder):
    return {name: one.problem for name, one in toys.WorkFolder.open(folder).records().items()}


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    """A run with jobs of a minute, the first of which has only tasks that do not end."""
    folder = tmp_path_factory.mktemp("limited") / "run"
    toys.make_work(folder, 12, 0.2, stuck=2)
    given = section(workers_per_node=2, walltime="00:01:00", drain=0)
    log = folder / "driver.log"
    with log.open("wb") as stream:
        driver = toys.start_driver(folder, given, stdout=stream, stderr=stream)
    yield folder, driver
    if driver.poll() is None:
        driver.kill()
        driver.wait()


def test_twelve_tasks_are_done(tmp_path, limited):
    folder = tmp_path / "run"
    work = toys.make_work(folder, 12, 0.5)
    toys.work_off(folder, section(max_blocks=2))
    assert problems(folder) == dict.fromkeys(work.tasks)
    assert len(jobs_of(folder)) == 2
    assert ClusterJobs.read(work.path).left == []
    toys.wait_for(lambda: not queue() & set(jobs_of(folder)))


def test_tasks_of_a_job_that_is_cancelled_in_mid_run_are_done(tmp_path, limited):
    folder = tmp_path / "run"
    work = toys.make_work(folder, 12, 1.0)
    cancelled = []

    def cancel():
        toys.wait_for(lambda: len(toys.begun(folder)) >= 3)
        cancelled.append(jobs_of(folder)[0])
        slurm("scancel", cancelled[0])

    thread = threading.Thread(target=cancel)
    thread.start()
    toys.work_off(folder, section(workers_per_node=2))
    thread.join()
    assert problems(folder) == dict.fromkeys(work.tasks)
    assert len(jobs_of(folder)) >= 2
    assert f"JOB {cancelled[0]} " in errors_of(folder)
    toys.wait_for(lambda: not queue() & set(jobs_of(folder)))


def test_a_job_that_slurm_refuses_is_told_in_its_words(tmp_path, limited):
    folder = tmp_path / "run"
    toys.make_work(folder, 2, 0.1)
    with pytest.raises(ClusterError, match=r"takes no job.*invalid partition specified: nowhere"):
        toys.work_off(folder, section(queue="nowhere"))


def test_cancel_frees_the_jobs_of_a_driver_that_was_killed(tmp_path, limited, capsys):
    folder = tmp_path / "run"
    work = toys.make_work(folder, 3, 600.0)
    driver = toys.start_driver(folder, section(max_blocks=2))
    toys.wait_for(lambda: len(toys.begun(folder)) >= 2)
    assert is_driven(work.path)
    driver.kill()
    driver.wait()
    jobs = jobs_of(folder)
    assert set(jobs) <= queue()
    assert main(["cancel", str(folder)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "0 of 3 tasks are done." in said
    assert f"Jobs of slurm were cancelled: {', '.join(jobs)}." in said
    toys.wait_for(lambda: not queue() & set(jobs))
    toys.wait_for(lambda: not toys.processes(folder))
    assert main(["cancel", str(folder)]) == 0
    assert "No job of it is left." in " ".join(capsys.readouterr().out.split())


@pytest.fixture
def analysed(monkeypatch):
    """Draws of a small posterior in two shards, by this process or by others."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "cmc")
    from core_cases import ANGLES, DT, SMALL, Q, make_model, simulate

    model = make_model()
    data = from_arrays(simulate(ANGLES), q=Q, phi=ANGLES, t=model.t, dt=DT)
    fit = fit_scaled(bind(data, model.param_manager), ScalingMode.INDIVIDUAL)
    config = replace(SMALL, min_ess=30)

    def draw(elsewhere=None):
        return analyse(
            fit, np.asarray(data.c2), config, engine="nuts", sharding=Sharding(2),
            elsewhere=elsewhere,
        )  # fmt: skip

    return draw


def test_shards_of_a_posterior_are_those_of_one_process(tmp_path, limited, analysed):
    def transport(tasks):
        given = Cluster.model_validate(section(workers_per_node=2))
        run_on_cluster(perform, tmp_path, tasks, given)

    alone = analysed()
    found = analysed(Elsewhere(RunFolder(tmp_path), transport, Rules()))
    np.testing.assert_array_equal(found.draws.y, alone.draws.y)
    assert problems(tmp_path) == {"shard-0001": None, "shard-0002": None}
    assert len(jobs_of(tmp_path)) == 1


def test_tasks_of_jobs_that_reach_their_time_limit_are_done(limited):
    folder, driver = limited
    assert driver.wait(180) == 0, (folder / "driver.log").read_text()
    assert problems(folder) == dict.fromkeys(toys.WorkFolder.open(folder).tasks)
    assert "DUE TO TIME LIMIT" in errors_of(folder)
    assert len(jobs_of(folder)) >= 2
    # What the limit interrupted was begun once more.
    assert sorted(toys.begun(folder)) == sorted([*problems(folder), "task_10", "task_11"])
    toys.wait_for(lambda: not queue() & set(jobs_of(folder)))
