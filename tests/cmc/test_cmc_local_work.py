import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import work_cases
from heterodyne._errors import ConfigError, SamplingError
from heterodyne._events import Message, Progress
from heterodyne.io import files
from heterodyne.io.work_folder import Record, Rules, Task, WorkFolder
from heterodyne.optimization.cmc.backends._local_work import LocalWork, progress, run_tasks
from work_cases import KIND, perform, runs, until, value

TWO = LocalWork(workers=2)
QUICK = Rules(silence=1.0, attempts=2)


def tasks_of(**doing):
    return [Task(name, 1.0, {"do": do}) for name, do in doing.items()]


def run(folder, tasks, rules=QUICK, do=perform, settings=TWO):
    work = WorkFolder.create(folder, KIND, tasks, rules)
    events = []
    run_tasks(do, folder, tasks, settings, events.append)
    return work, events


def texts(events):
    return [event.text for event in events if isinstance(event, Message)]


def check_results(folder, names):
    for name in names:
        assert files.read_json(folder / f"{name}.result.json") == value(name)


def test_workers_that_die_or_freeze_cost_an_attempt_each(tmp_path):
    tasks = tasks_of(a="nothing", b="kill_once", c="stop_once", d="kill", e="refuse", f="leave")
    work, events = run(tmp_path, tasks)
    records = work.records()
    assert {name: record.problem is None for name, record in records.items()} == {
        "a": True, "b": True, "c": True, "d": False, "e": False, "f": False
    }  # fmt: skip
    assert {name: records[name].attempts for name in "abcd"} == {"a": 1, "b": 2, "c": 2, "d": 2}
    assert "2 attempts came to nothing" in records["d"].problem
    assert records["e"].problem == "toy: data that cannot be used."
    assert "exit code 7" in records["f"].problem
    check_results(tmp_path, "abc")
    assert [runs(tmp_path, name) for name in "abcdef"] == [1, 1, 1, 0, 0, 0]
    said = "\n".join(texts(events))
    assert "e on" in said
    assert "a warning before" in said
    last = [event for event in events if isinstance(event, Progress)][-1]
    assert (last.stage, last.done, last.total) == ("toys", 6, 6)
    assert last.detail["done"] == "3/6"
    assert last.detail["failed"] == 3
    run_tasks(perform, tmp_path, tasks, TWO)
    assert work.records() == records


def test_a_task_that_takes_too_long_is_stopped_and_said(tmp_path):
    work, _ = run(tmp_path, tasks_of(a="wait", b="nothing"), Rules(silence=1.0, task=0.5))
    assert work.record("a").problem == "it took longer than 0.5 s"
    assert work.record("b").problem is None


def test_a_full_disk_leaves_the_task_free_and_is_said(tmp_path):
    tasks = tasks_of(a="full", b="nothing")
    work, events = run(tmp_path, tasks)
    assert [task.name for task in work.unsettled()] == ["a"]
    said = texts(events)[-1]
    assert said.startswith("1 of 2 tasks have no result (a). a: a: ")
    assert "No space left" in said
    (tmp_path / "room").touch()
    work, events = run(tmp_path, tasks)
    assert work.unsettled() == []
    assert work.record("a").attempts == 1
    check_results(tmp_path, "ab")


def test_tasks_of_workers_elsewhere_are_waited_for_or_taken_over(tmp_path):
    tasks = tasks_of(alive="nothing", silent="nothing", mine="nothing")
    work = WorkFolder.create(tmp_path, KIND, tasks, QUICK)
    alive, silent = work.claim("alive"), work.claim("silent")
    elsewhere(silent)

    def finish():
        until(lambda: work.record("silent") is not None)
        work.settle(alive, Record(None, 1.0, 1, "elsewhere", {}))

    stop = threading.Event()
    beats = threading.Thread(target=lambda: keep_alive(alive, stop))
    ends = threading.Thread(target=finish)
    beats.start()
    ends.start()
    run_tasks(perform, tmp_path, tasks, TWO)
    stop.set()
    beats.join()
    ends.join()
    assert work.unsettled() == []
    assert {name: record.attempts for name, record in work.records().items()} == {
        "alive": 1, "silent": 2, "mine": 1
    }  # fmt: skip
    assert [runs(tmp_path, task.name) for task in tasks] == [0, 1, 1]


def keep_alive(claim, stop):
    while not stop.wait(0.05):
        claim.beat()


def elsewhere(claim):
    """Let a claim be that of a process on another machine."""
    path = claim._path
    about = files.read_json(path)
    path.write_text(files.to_json(about | {"host": "node7", "place": "node7 1"}))


def test_cancelled_work_stops_and_can_go_on(tmp_path):
    tasks = tasks_of(a="interrupted", b="wait", c="nothing", d="nothing")
    work = WorkFolder.create(tmp_path, KIND, tasks, QUICK)

    def cancel():
        until(lambda: all((tmp_path / f"{name}.waits").exists() for name in "ab"))
        work.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    events = []
    run_tasks(perform, tmp_path, tasks, TWO, events.append)
    thread.join()
    assert work.records() == {}
    assert texts(events)[-1].endswith("(a, b, c, d). the work was cancelled")
    assert work.claims.look("a").attempts == 0
    (tmp_path / "go").touch()
    work, _ = run(tmp_path, tasks)
    assert {record.attempts for record in work.records().values()} == {1}


def test_no_process_that_can_start_is_an_error(tmp_path):
    with pytest.raises(SamplingError, match="a was not begun"):
        run(tmp_path, tasks_of(a="nothing"), settings=LocalWork(workers=1, startup=0.0))


def test_what_cannot_be_pickled_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be pickled"):
        run(tmp_path, tasks_of(a="nothing"), do=lambda folder, name: None)


def test_numbers_of_processes():
    assert LocalWork(workers=3).count(2) == 2
    assert LocalWork(workers=3).count(9) == 3
    assert 1 <= LocalWork().count(100) <= os.cpu_count()


def test_progress_tells_what_the_folder_holds(tmp_path):
    work = WorkFolder.create(tmp_path, KIND, tasks_of(a="nothing", b="nothing"))
    event = progress(KIND, work.state())
    assert (event.stage, event.done, event.total) == ("toys", 0, 2)
    assert event.detail == {"done": "0/2", "running": 0}
    work.settle(work.claim("a"), Record(None, 90.0, 1, "h", {"r_hat": 1.01, "divergences": 2}))
    work.claim("b")
    detail = progress(KIND, work.state()).detail
    assert detail == {
        "done": "1/2", "running": 1, "R-hat": "1.010", "divergences": 2, "minutes left": "1.5"
    }  # fmt: skip


DRIVER = """
import sys
from pathlib import Path
import work_cases
from heterodyne.io.work_folder import WorkFolder
from heterodyne.optimization.cmc.backends._local_work import LocalWork, run_tasks
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    tasks = list(WorkFolder.open(folder).tasks.values())
    run_tasks(work_cases.perform, folder, tasks, LocalWork(workers=2))
"""


def drive(folder):
    script = folder / "driver.py"
    script.write_text(DRIVER)
    path = os.pathsep.join([str(Path(work_cases.__file__).parent), *sys.path])
    return subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )


def workers_of(work):
    return {one.seen.owner.pid for one in work.state().tasks if one.seen.owner is not None}


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_driver_that_is_stopped_leaves_no_process_and_goes_on_later(tmp_path, number):
    tasks = tasks_of(a="wait", b="interrupted", c="nothing")
    work = WorkFolder.create(tmp_path, KIND, tasks, QUICK)
    driver = drive(tmp_path)
    until(lambda: all((tmp_path / f"{name}.waits").exists() for name in "ab"))
    pids = workers_of(work)
    driver.send_signal(number)
    _, said = driver.communicate(timeout=60)
    until(lambda: all(map(gone, pids)))
    assert len(pids) == 2
    assert work.record("a") is None
    if number != signal.SIGKILL:
        assert [work.claims.look(name).held for name in "ab"] == [False, False]
        assert said.count("Traceback") <= 1
    (tmp_path / "go").touch()
    run_tasks(perform, tmp_path, tasks, TWO)
    assert work.unsettled() == []
    attempts = {name: record.attempts for name, record in work.records().items()}
    assert attempts["a"] == attempts["b"] == (2 if number == signal.SIGKILL else 1)
    check_results(tmp_path, "abc")
    assert [runs(tmp_path, name) for name in "abc"] == [1, 1, 1]
