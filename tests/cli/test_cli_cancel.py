"""The command cancel: it stops work everywhere, also jobs whose driver has died."""

import os
import subprocess
import sys

import pytest

from heterodyne.io import cluster_jobs
from heterodyne.io.cluster_jobs import ClusterJobs, drive
from heterodyne.io.work_folder import Record, Task, WorkFolder


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    made = WorkFolder.create(folder, "shard", [Task("shard-0001"), Task("shard-0002")])
    made.settle(made.claim("shard-0001"), Record(None, 1.0, 1, "node"))
    return made


def words(text):
    return " ".join(text.split())


def stand_in(tmp_path, monkeypatch, name, text):
    """A program that writes down how it was called."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f'#!/bin/sh\necho "$@" >>{folder}/{name}.calls\n{text}\n')
    (folder / name).chmod(0o700)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder / f"{name}.calls"


def test_work_without_jobs_is_cancelled_and_again(run, work):
    done = run("cancel", "results")
    assert done.code == 0
    assert words(done.out) == "results: the work is cancelled; 1 of 2 tasks are done."
    assert work.cancelled
    assert "is cancelled again; 1 of 2" in words(run("cancel", "results").out)
    assert work.cancelled


@pytest.mark.parametrize(
    ("scheduler", "program", "ids", "over"),
    [
        ("slurm", "scancel", ["17", "18"], "scancel: error: Invalid job id specified"),
        ("pbspro", "qdel", ["17.host", "18.host"], "qdel: Job has finished 17.host"),
        ("grid_engine", "qdel", ["17", "18"], 'denied: job "17" does not exist'),
        ("lsf", "bkill", ["17", "18"], "Job <17>: Job has already finished"),
    ],
)
def test_jobs_of_a_dead_driver_are_freed_once(
    run, work, tmp_path, monkeypatch, scheduler, program, ids, over
):
    # The first of them is over already, which the program calls an error.
    calls = stand_in(
        tmp_path, monkeypatch, program, f"[ \"$1\" = {ids[1]} ] || {{ echo '{over}' >&2; exit 1; }}"
    )
    ClusterJobs(work.path, scheduler).update(dict.fromkeys(ids, "running") | {"9": "completed"})
    done = run("cancel", "results", "--json")
    assert done.code == 0
    assert done.document["freed"] == ids
    assert done.document["scheduler"] == scheduler
    assert calls.read_text().split() == ids
    assert "No job of it is left." in words(run("cancel", "results").out)
    assert calls.read_text().split() == ids


def test_a_batch_system_that_does_not_answer_is_quoted(run, work, tmp_path, monkeypatch):
    stand_in(
        tmp_path, monkeypatch, "scancel", "echo 'Unable to contact slurm controller' >&2; exit 1"
    )
    ClusterJobs(work.path, "slurm").add("17")
    done = run("cancel", "results")
    assert done.code == 1
    assert "job 17: scancel ended with exit status 1: Unable to contact" in words(done.err)
    # Workers stop all the same, and the job is not forgotten.
    assert work.cancelled
    assert ClusterJobs.read(work.path).left == ["17"]


def test_a_missing_program_is_named(run, work, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    ClusterJobs(work.path, "slurm").add("17")
    done = run("cancel", "results")
    assert done.code == 1
    assert "scancel" in done.err
    assert "Run this where jobs are submitted" in words(done.err)


def test_a_driver_that_lives_frees_its_jobs_itself(run, work, tmp_path, monkeypatch):
    calls = stand_in(tmp_path, monkeypatch, "scancel", "exit 0")
    claim = drive(work.path)
    ClusterJobs(work.path, "slurm").add("17")
    done = run("cancel", "results")
    assert done.code == 0
    assert f"Process {os.getpid()} on" in words(done.out)
    assert "stops, and cancels its jobs." in words(done.out)
    assert not calls.exists()
    claim.give_back()
    assert run("cancel", "results", "--json").document["freed"] == ["17"]


def test_processes_of_a_dead_driver_are_ended_and_no_others(run, work):
    script = work.path / "parsl" / "job.sh"
    script.parent.mkdir()
    script.write_text("sleep 600\n")
    # An orphan, as after the end of a driver.
    start = f"setsid bash {script} >/dev/null 2>&1 & echo $!"
    job = int(subprocess.run(["sh", "-c", start], capture_output=True, check=True).stdout)
    other = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        ClusterJobs(work.path, "local").update({f"{job}": "running", f"{other.pid}": "running"})
        assert run("cancel", "results", "--json").document["freed"] == [f"{job}"]
        with pytest.raises(ProcessLookupError):
            os.kill(job, 0)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_ids_that_are_none_reach_no_program(run, work, tmp_path, monkeypatch):
    calls = stand_in(tmp_path, monkeypatch, "scancel", "exit 0")
    ClusterJobs(work.path, "slurm").add("17; touch harm")
    done = run("cancel", "results")
    assert done.code == 1
    assert "is no id of a job" in words(done.err)
    assert not calls.exists()
    assert not (tmp_path / "harm").exists()


def test_a_folder_without_work_is_told(run, tmp_path):
    (tmp_path / "empty").mkdir()
    done = run("cancel", "empty")
    assert done.code == 1
    assert "there is no folder of work" in words(done.err)


def test_cancel_needs_neither_jax_nor_parsl(run, work):
    code = (
        "import sys; from heterodyne.cli.main import main; main(['cancel', sys.argv[1]]);"
        "print(*({'jax', 'parsl', 'numpy'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(work.path.parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == ""


def test_the_list_of_programs_is_that_of_the_section(run):
    assert set(cluster_jobs.PROGRAMS) | {"local"} == set(cluster_jobs.JOB_IDS)
