import os
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

import work_cases
from heterodyne._errors import ConfigError, HeterodyneError
from heterodyne.cli import _tasks, worker
from heterodyne.cli._tasks import perform
from heterodyne.cli.main import main
from heterodyne.io import files
from heterodyne.io.work_folder import Record, Rules, Task, WorkFolder
from work_cases import KIND, runs, until, value

QUICK = Rules(silence=0.6, attempts=2)
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


def make(folder, rules=QUICK, **doing):
    tasks = [Task(name, k + 1.0, {"do": do}) for k, (name, do) in enumerate(doing.items())]
    return WorkFolder.create(folder, KIND, tasks, rules)


def events(work, name):
    return [event["event"] for event in work.events()[0] if event["task"] == name]


# One task.


def test_a_task_is_done_once_and_its_events_are_kept(tmp_path):
    work = make(tmp_path, a="nothing")
    assert perform(str(tmp_path), "a") is None
    assert perform(str(tmp_path), "a") is None
    assert runs(tmp_path, "a") == 1
    record = work.record("a")
    assert (record.problem, record.attempts, record.figures["divergences"]) == (None, 1, 1)
    assert events(work, "a") == ["begun", "progress", "settled"]


@pytest.mark.parametrize(
    ("do", "problem"),
    [
        ("raise", "ValueError: a value that is wrong"),
        ("refuse", "toy: data that cannot be used."),
        ("leave", "RuntimeError: the task ended its process with exit code 7"),
    ],
)
def test_what_goes_wrong_in_a_task_is_in_its_record(tmp_path, do, problem):
    work = make(tmp_path, a=do)
    assert perform(str(tmp_path), "a") == problem
    assert perform(str(tmp_path), "a") == problem
    assert work.record("a").problem == problem
    last = work.events()[0][-1]
    assert last["problem"] == problem
    assert (do == "refuse") == (last["traceback"] is None)


def test_a_kind_that_is_not_known_is_said(tmp_path):
    WorkFolder.create(tmp_path, "future", [Task("a")])
    assert "kind 'future' are not known" in perform(str(tmp_path), "a")


def test_a_task_that_someone_works_on_is_left_alone(tmp_path):
    work = make(tmp_path, a="nothing")
    work.claim("a")
    assert perform(str(tmp_path), "a").startswith(f"a: process {os.getpid()} on ")
    assert work.record("a") is None


def test_cancelled_work_is_not_begun(tmp_path):
    make(tmp_path, a="nothing").cancel()
    assert perform(str(tmp_path), "a") == "a: the work was cancelled"
    assert runs(tmp_path, "a") == 0


@posix
@pytest.mark.parametrize("do", ["wait", "interrupted"])
def test_work_that_is_cancelled_meanwhile_stops(tmp_path, do):
    work = make(tmp_path, a=do)
    thread = threading.Thread(target=lambda: (until((tmp_path / "a.waits").exists), work.cancel()))
    thread.start()
    before = signal.getsignal(signal.SIGTERM)
    assert perform(str(tmp_path), "a") == "a: the work was cancelled"
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before
    assert not work.claims.look("a").held


@posix
def test_a_task_that_another_took_over_stops_and_keeps_the_record_of_the_other(tmp_path):
    work = make(tmp_path, a="wait")

    def take_over():
        until((tmp_path / "a.waits").exists)
        claim = work.take(work.claims.look("a"))
        work.settle(claim, Record(None, 1.0, 2, "another", {}))

    thread = threading.Thread(target=take_over)
    thread.start()
    assert perform(str(tmp_path), "a") == "a: another worker has taken the task over"
    thread.join()
    assert work.record("a").host == "another"


@posix
def test_sigterm_frees_the_task(tmp_path):
    work = make(tmp_path, a="wait")
    thread = threading.Thread(
        target=lambda: (until((tmp_path / "a.waits").exists), os.kill(os.getpid(), signal.SIGTERM))
    )
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        perform(str(tmp_path), "a")
    thread.join()
    assert (work.claims.look("a").held, work.record("a")) == (False, None)
    assert events(work, "a")[-1] == "stopped"


@posix
def test_a_task_that_takes_too_long_has_a_record(tmp_path):
    work = make(tmp_path, Rules(silence=0.2, task=0.05), a="interrupted")
    assert perform(str(tmp_path), "a") == "it took longer than 0.05 s"
    assert work.record("a").problem == "it took longer than 0.05 s"


def test_attempts_are_counted_over_all_workers(tmp_path):
    work = make(tmp_path, a="nothing")
    for _ in range(2):
        path = work.claim("a")._path
        os.utime(path, (1.0, 1.0))
    problem = perform(str(tmp_path), "a")
    assert problem.startswith("2 attempts came to nothing")
    assert f"process {os.getpid()} on" in problem
    assert work.record("a").attempts == 2
    assert runs(tmp_path, "a") == 0
    assert work.free_failed() == ["a"]
    assert perform(str(tmp_path), "a") is None


def test_a_full_disk_is_no_failure_of_the_task(tmp_path, monkeypatch):
    work = make(tmp_path, a="full", b="nothing")
    assert "No space left" in perform(str(tmp_path), "a")
    assert (work.record("a"), work.claims.look("a").held) == (None, False)
    with monkeypatch.context() as patched:
        patched.setattr(WorkFolder, "settle", refuse)
        assert perform(str(tmp_path), "b") == "b: no room."
    assert (work.record("b"), work.claims.look("b").held) == (None, False)
    (tmp_path / "room").touch()
    assert [perform(str(tmp_path), name) for name in "ab"] == [None, None]


def refuse(*args):
    raise HeterodyneError("no room")


def test_a_record_that_is_cut_off_is_written_anew(tmp_path):
    work = make(tmp_path, a="nothing")
    perform(str(tmp_path), "a")
    (work.path / "done" / "a.json").write_text('{"problem": nu')
    os.utime(work.claims.path / "a.1.json", (1.0, 1.0))
    assert perform(str(tmp_path), "a") is None
    assert work.record("a").attempts == 2


def test_progress_is_logged_now_and_then(tmp_path, monkeypatch):
    work = make(tmp_path, a="nothing")
    now = [0.0]
    monkeypatch.setattr(_tasks.time, "monotonic", lambda: now[0])
    log = _tasks._Log(work, "a")
    for k in range(10_000):
        now[0] = k * 0.1
        log(work_cases.Progress("draws", k, 10_000))
    shown = [event["done"] for event in work.events()[0]]
    assert shown[:3] == [0, 20, 40]
    gaps = [(b - a) / a for a, b in pairwise(shown) if a > 400]
    assert all(0.04 < gap < 0.06 for gap in gaps)


# The command.


def test_a_worker_does_all_tasks_the_largest_first(run, tmp_path):
    work = make(tmp_path, a="nothing", b="nothing", c="nothing")
    done = run("worker", tmp_path)
    assert (done.code, done.out.splitlines()) == (
        0,
        ["Did 3 tasks, and stopped because every task is settled.", "3 of 3 are settled."],
    )
    begun = [event["task"] for event in work.events()[0] if event["event"] == "begun"]
    assert begun == ["c", "b", "a"]
    again = run("worker", tmp_path, "--json")
    assert again.document == {
        "done": 0, "left": 0, "failed": [], "why": "every task is settled"
    }  # fmt: skip


def test_a_problem_in_a_record_is_exit_code_3(run, tmp_path):
    make(tmp_path, a="raise", b="nothing")
    done = run("worker", tmp_path, "--quiet")
    assert done.code == 3
    assert "a: ValueError: a value that is wrong" in done.out
    assert done.err.startswith("warning: a after 0 s: ValueError")


def test_a_worker_stops_after_some_tasks_or_before_the_job_ends(run, tmp_path, monkeypatch):
    make(tmp_path, a="nothing", b="nothing", c="nothing")
    done = run("worker", tmp_path, "--tasks", "2", "--json")
    assert (done.code, done.document["done"], done.document["left"]) == (0, 2, 1)
    started = worker._STARTED
    monkeypatch.setattr(worker, "_STARTED", time.monotonic() - 3600.0)
    limits = ("--walltime", "01:05:00", "--stop-before")
    done = run("worker", tmp_path, *limits, "301", "--json")
    assert (done.document["done"], done.document["why"]) == (0, "the job ends soon")
    done = run("worker", tmp_path, *limits, "100", "--json")
    assert done.document["done"] == 1
    assert started < time.monotonic()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:10:00", 600.0), ("36:00:01", 129601.0), ("2-01:00:00", 176400.0), ("1:30", 5400.0)],
)
def test_times_as_schedulers_write_them(text, seconds):
    assert worker.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "1:60:00", "-1:00:00", "1:00:00:00", "an hour"])
def test_other_times_are_refused(run, tmp_path, text):
    with pytest.raises(ConfigError, match="is no time"):
        worker.seconds_of(text)
    done = run("worker", tmp_path, "--walltime=" + text)
    assert (done.code, done.out) == (1, "")


def test_a_worker_needs_to_know_when_the_job_ends(run, tmp_path):
    done = run("worker", tmp_path, "--stop-before", "60")
    assert done.code == 1
    assert "--walltime" in done.err


def test_a_worker_waits_for_the_run_and_then_says_that_there_is_none(run, tmp_path):
    done = run("worker", tmp_path / "later", "--until-idle", "0")
    assert done.code == 1
    assert "no folder of work" in done.err
    (tmp_path / "later").mkdir()
    thread = threading.Thread(target=lambda: make(tmp_path / "later", a="nothing"))
    timer = threading.Timer(0.05, thread.start)
    timer.start()
    assert run("worker", tmp_path / "later").code == 0
    timer.join()
    thread.join()


def test_a_worker_without_a_task_leaves_after_a_while(run, tmp_path):
    work = make(tmp_path, Rules(silence=1000.0), a="nothing")
    work.claim("a")
    done = run("worker", tmp_path, "--until-idle", "0.05", "--json")
    assert (done.code, done.document["left"]) == (0, 1)
    assert done.document["why"].startswith("there was no task to do for")


def test_a_task_this_machine_cannot_do_is_not_tried_again_at_once(run, tmp_path):
    work = make(tmp_path, a="full")
    done = run("worker", tmp_path, "--until-idle", "0.1")
    assert done.code == 0
    assert done.err.count("No space left") == 1
    assert events(work, "a").count("begun") == 1


# Several real workers.


def start(folder, *args):
    path = os.pathsep.join([str(Path(work_cases.__file__).parent), *sys.path])
    return subprocess.Popen(
        [sys.executable, work_cases.__file__, "worker", str(folder), *args],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def held_by(work, process):
    return [one.task.name for one in work.state().tasks
            if one.seen.owner is not None and one.seen.owner.pid == process.pid]  # fmt: skip


@posix
def test_workers_share_the_tasks_of_those_that_die_freeze_or_are_stopped(tmp_path):
    names = [f"t{k}" for k in range(8)]
    work = make(tmp_path, **dict.fromkeys(names, "wait"))
    killed, frozen, stopped, last = (start(tmp_path) for _ in range(4))
    for process in (killed, frozen, stopped, last):
        until(lambda p=process: held_by(work, p))
    lost = held_by(work, killed) + held_by(work, frozen)
    killed.kill()
    frozen.send_signal(signal.SIGSTOP)
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait(60) == 130
    assert "interrupted" in stopped.stderr.read()
    (tmp_path / "go").touch()
    assert last.wait(60) == 0, last.stderr.read()
    records = work.records()
    assert sorted(records) == names
    assert {name for name in names if records[name].attempts == 2} == set(lost)
    frozen.send_signal(signal.SIGCONT)
    assert frozen.wait(60) == 0, frozen.stderr.read()
    assert work.records() == records
    for name in names:
        assert files.read_json(tmp_path / f"{name}.result.json") == value(name)
    for process in (killed, frozen, stopped, last):
        process.communicate()


def test_numpy_computes_with_one_thread_unless_the_user_decided(monkeypatch, tmp_path):
    """Sums over several threads are rounded differently, and draws with them."""
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "3")
    monkeypatch.delenv("MKL_NUM_THREADS")
    WorkFolder.create(tmp_path, KIND, [Task("a", 1.0, {"do": "nothing"})], QUICK)
    assert main(["worker", str(tmp_path), "--quiet"]) == 0
    assert os.environ["OPENBLAS_NUM_THREADS"] == "3"
    assert os.environ["MKL_NUM_THREADS"] == "1"
