"""What check says of the section cluster, without starting anything."""

import shutil

import pytest

JOBS = """
cluster:
  scheduler: slurm
  workers_per_node: 4
  cores_per_worker: 2
  memory_per_worker: 2gb
  nodes_per_block: 2
  max_blocks: 3
  walltime: 02:00:00
"""


def words(text):
    return " ".join(text.split())


@pytest.fixture
def with_jobs(run_file):
    run_file.write_text(run_file.read_text() + JOBS)
    return run_file


def test_the_jobs_are_summarised_where_they_can_be_submitted(run, with_jobs, monkeypatch, tmp_path):
    pytest.importorskip("parsl")
    for name in ("sbatch", "squeue", "scancel"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/called\n")
        (tmp_path / name).chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run("check", with_jobs)
    assert done.code == 0
    assert "cluster slurm can be used here" in words(done.out)
    assert (
        "jobs 1 at the start, at most 3; each for 2.0 h, with no new task in the last 5 min, on 2 "
        "nodes; on a node 4 workers of 2 cores and 2gb" in words(done.out)
    )
    found = run("check", with_jobs, "--json").document["cluster"]
    assert (found["walltime_s"], found["drain_s"], found["problem"]) == (7200, 300, None)
    assert found["section"]["max_blocks"] == 3
    assert not (tmp_path / "called").exists()


def test_what_is_missing_is_named_and_no_error_of_the_run(run, with_jobs, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run("check", with_jobs)
    assert done.code == 0
    assert "cluster slurm cannot be used here." in words(done.out)
    assert shutil.which("sbatch") is None


def test_without_parsl_the_remedy_is_told(run, with_jobs, monkeypatch):
    monkeypatch.setattr(
        "heterodyne.optimization.cmc.backends._cluster_script.find_spec", lambda name: None
    )
    done = run("check", with_jobs)
    assert "Parsl is not installed. Install it with: pip install" in words(done.out)


def test_a_run_file_without_the_section_says_nothing_of_it(run, run_file):
    assert "cluster" not in run("check", run_file).out
    assert run("check", run_file, "--json").document["cluster"] is None


def test_a_problem_of_the_section_is_located(run, with_jobs):
    with_jobs.write_text(with_jobs.read_text().replace("02:00:00", "2h"))
    done = run("check", with_jobs)
    assert done.code == 1
    assert "cluster.walltime: it is '2h', which may not have 'h'; allowed: HH:" in words(done.err)
