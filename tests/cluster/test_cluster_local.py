"""Tasks on Parsl's workers, on this machine: nothing is lost and nothing is left, whoever dies."""

import json
import os
import shutil
import signal
import sys
from contextlib import suppress

import pytest

pytest.importorskip("parsl")
import cluster_toys as toys
import psutil

from heterodyne._errors import ConfigError
from heterodyne._events import Progress
from heterodyne.io.cluster_jobs import ClusterError, ClusterJobs, is_driven

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Parsl needs POSIX")


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    toys.hurry(monkeypatch.setattr)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)


@pytest.fixture
def folder(tmp_path):
    """Folder of a run, of which no process is left in the end."""
    yield tmp_path / "run"
    toys.wait_for(lambda: not toys.processes(tmp_path / "run"), 10.0)


def records(folder):
    return toys.WorkFolder.open(folder).records()


def test_all_tasks_are_done_the_largest_first_and_that_of_a_killed_worker_again(folder, capfd):
    work = toys.make_work(folder, 6, 0.2)
    (folder / "die_task_00").touch()
    events = []
    given = toys.section(workers_per_node=1, cores_per_worker=2, worker_init=["export TOY=story"])
    toys.work_off(folder, given, on_event=events.append)
    assert {name: r.problem for name, r in records(folder).items()} == dict.fromkeys(work.tasks)
    assert toys.begun(folder) == [*sorted(work.tasks, reverse=True), "task_00"]
    attempts = {name: record.attempts for name, record in records(folder).items()}
    assert attempts == {name: 1 + (name == "task_00") for name in work.tasks}
    figures = [record.figures for record in records(folder).values()]
    assert {one["OMP_NUM_THREADS"] for one in figures} == {"2"}
    assert {one["TOY"] for one in figures} == {"story"}
    assert {one["JAX_COMPILATION_CACHE_DIR"] for one in figures} == {str(work.path / "compiled")}
    shown = [event.detail["jobs"] for event in events if isinstance(event, Progress)]
    assert set(shown) <= {0, 1}
    # Parsl's files are in the folder of work, its keys are gone, and nothing was printed.
    assert {path.name for path in folder.iterdir()} == {"work", "begun.txt"}
    assert not list(folder.rglob("*.key*"))
    assert capfd.readouterr() == ("", "")
    assert json.loads((work.path / "cluster.json").read_text())["scheduler"] == "local"
    assert ClusterJobs.read(work.path).left == []
    assert not is_driven(work.path)


def test_a_driver_that_was_killed_goes_on_where_it_was(folder):
    work = toys.make_work(folder, 6, 0.4)
    given = toys.section(workers_per_node=2)
    driver = toys.start_driver(folder, given)
    toys.wait_for(lambda: len(records(folder)) >= 2)
    assert is_driven(work.path)
    with pytest.raises(ClusterError, match=f"process {driver.pid} on .* submits jobs"):
        toys.work_off(folder, given)
    driver.kill()
    driver.wait()
    assert not is_driven(work.path)
    before = {path.name: path.read_bytes() for path in (work.path / "done").iterdir()}
    left = ClusterJobs.read(work.path).left
    said = toys.work_off(folder, given)
    assert said == [f"Jobs of an earlier process were cancelled: {left[0]}."]
    assert len(records(folder)) == 6
    after = {path.name: path.read_bytes() for path in (work.path / "done").iterdir()}
    assert before.items() <= after.items()


def test_workers_end_without_their_driver(folder):
    toys.make_work(folder, 2, 600.0)
    driver = toys.start_driver(folder, toys.section(workers_per_node=1))
    toys.wait_for(lambda: toys.begun(folder))
    driver.kill()
    driver.wait()
    toys.wait_for(lambda: not toys.processes(folder), toys.SILENCE_S + 20.0)


def test_a_driver_that_is_stopped_leaves_nothing_behind(folder):
    work = toys.make_work(folder, 3, 600.0)
    log = folder / "driver.log"
    with log.open("wb") as stream:
        driver = toys.start_driver(folder, toys.section(workers_per_node=2), stderr=stream)
    toys.wait_for(lambda: len(toys.begun(folder)) == 2)
    # As a terminal does, to all processes of its session.
    os.killpg(driver.pid, signal.SIGINT)
    driver.wait()
    assert "KeyboardInterrupt" in log.read_text()
    assert toys.processes(folder) == []
    assert [task.name for task in work.unsettled()] == list(work.tasks)
    assert not any(seen.held for seen in work.claims.look_at_all().values())


def test_work_that_is_cancelled_stops(folder):
    work = toys.make_work(folder, 3, 600.0)

    def cancel(event):
        if toys.begun(folder):
            work.cancel()

    said = toys.work_off(folder, toys.section(workers_per_node=1), on_event=cancel)
    assert "3 of 3 tasks have no result" in said[-1]
    assert "cancelled" in said[-1]


def test_what_fails_on_the_nodes_is_told(folder):
    toys.make_work(folder, 3, 0.1)
    with pytest.raises(ClusterError, match=r"no task can be done.*no module of that name"):
        toys.work_off(folder, toys.section(workers_per_node=1), toys.fail)


def test_jobs_whose_workers_never_report_are_told_with_their_last_words(folder):
    toys.make_work(folder, 2, 0.1)
    given = toys.section(worker_init=["echo no such module: heavy >&2", "exit 3"])
    with pytest.raises(ClusterError, match=r"before their workers report.*no such module: heavy"):
        toys.work_off(folder, given)
    assert len(list(folder.rglob("*.stderr"))) >= 3


def stand_in(folder, monkeypatch, **programs):
    """Programs of a batch system that say and do what a test wants."""
    folder.mkdir()
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\necho {name} >>{folder}/calls\n{text}\n")
        (folder / name).chmod(0o700)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return lambda: (folder / "calls").read_text().split()


@pytest.mark.parametrize(
    ("scheduler", "programs"),
    [
        ("slurm", ("sbatch", "squeue", "scancel")),
        ("pbspro", ("qsub", "qstat", "qdel")),
        ("grid_engine", ("qsub", "qstat", "qdel")),
        ("lsf", ("bsub", "bjobs", "bkill")),
    ],
)
def test_a_batch_system_that_refuses_is_quoted(folder, tmp_path, monkeypatch, scheduler, programs):
    toys.make_work(folder, 2, 0.1)
    submit, look, cancel = programs
    refusal = f"echo '{submit}: error: Invalid account' >&2; exit 7"
    calls = stand_in(
        tmp_path / "bin", monkeypatch, **{submit: refusal, look: "exit 0", cancel: "exit 0"}
    )
    given = toys.section(scheduler, workers_per_node=1, address="127.0.0.1")
    with pytest.raises(ClusterError, match=f"takes no job.*status 7.*{submit}: error: Invalid"):
        toys.work_off(folder, given)
    assert calls().count(submit) == 3


QSUB = """
echo "$@" >>{folder}/arguments
for script; do :; done
setsid bash "$script" >/dev/null 2>&1 </dev/null &
echo "$!.pbs"
"""
QSTAT = """
shift 4
comma=""
printf '{{"Jobs": {{'
for job; do
    state=F
    kill -s 0 "${{job%.pbs}}" 2>/dev/null && state=R
    printf '%s"%s": {{"job_state": "%s"}}' "$comma" "$job" "$state"
    comma=", "
done
printf '}}}}'
"""
QDEL = """
for job; do
    kill -s TERM -- "-${{job%.pbs}}" 2>/dev/null || exit 35
done
"""
MPIEXEC = """
for script; do :; done
sh "$script" &
sh "$script" &
wait
"""


def test_jobs_of_two_nodes_of_pbs(folder, tmp_path, monkeypatch):
    """With stand-ins that run a job here, and each of its nodes as a process."""
    toys.make_work(folder, 4, 0.3)
    programs = {"qsub": QSUB, "qstat": QSTAT, "qdel": QDEL, "mpiexec": MPIEXEC}
    texts = {name: text.format(folder=tmp_path) for name, text in programs.items()}
    stand_in(tmp_path / "bin", monkeypatch, **texts)
    monkeypatch.chdir(tmp_path)
    asked = {"queue": "prod", "account": "beam", "select_options": "system=x", "poll_interval": 1}
    given = toys.section(
        "pbspro", nodes_per_block=2, workers_per_node=1, address="127.0.0.1", **asked
    )
    toys.work_off(folder, given)
    assert {record.problem for record in records(folder).values()} == {None}
    assert len({record.figures["pid"] for record in records(folder).values()}) == 2
    (script,) = (folder / "work" / "parsl" / "000" / "submit_scripts").glob("parsl*[0-9]")
    assert "\n#PBS -l select=2:ncpus=1:system=x\n" in script.read_text()
    assert (tmp_path / "arguments").read_text().split() == ["-q", "prod", "-A", "beam", str(script)]
    # What launchers write is in the folder of work as well.
    assert {path.name for path in tmp_path.iterdir()} == {"run", "bin", "arguments"}


def test_a_missing_program_is_told_before_anything_starts(folder, monkeypatch):
    work = toys.make_work(folder, 1, 0.1)
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(ClusterError, match="slurm: sbatch, squeue, scancel not found on PATH"):
        toys.work_off(folder, toys.section("slurm"))
    assert not (work.path / "parsl").exists()


def test_a_folder_that_a_shell_would_take_apart_is_refused(folder, tmp_path):
    odd = tmp_path / "run; touch harm"
    toys.make_work(odd, 1, 0.1)
    with pytest.raises(ConfigError, match=r"output\.directory.*a path without spaces"):
        toys.work_off(odd, toys.section())
    shutil.rmtree(odd)


def test_an_interchange_that_was_killed_is_told(folder):
    toys.make_work(folder, 3, 600.0)

    def kill(event):
        if toys.begun(folder):
            for process in toys.processes(folder):
                with suppress(psutil.Error):  # a process may end meanwhile
                    if "interchange" in " ".join(process.cmdline()):
                        process.kill()

    with pytest.raises(ClusterError, match="hands tasks to jobs was killed"):
        toys.work_off(folder, toys.section(workers_per_node=1), on_event=kill)
