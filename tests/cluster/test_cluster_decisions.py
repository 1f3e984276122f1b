"""When jobs are submitted, tasks given out and hope given up: without Parsl and without waiting."""

import json
import subprocess
from concurrent.futures import Future

import pytest

from heterodyne._errors import ConfigError
from heterodyne._events import Progress
from heterodyne.io.cluster_jobs import ClusterError, ClusterJobs, drive, driver_of, is_driven
from heterodyne.io.work_folder import Record, Rules, Task, WorkFolder
from heterodyne.optimization.cmc.backends import _cluster_work
from heterodyne.optimization.cmc.backends._cluster_gate import Gate
from heterodyne.optimization.cmc.backends._cluster_work import ClusterWork


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def gate(tmp_path, clock):
    return Gate(ClusterJobs(tmp_path, "slurm"), tmp_path / "logs", clock)


def said(text, code=1):
    return subprocess.CompletedProcess("sbatch", code, "", text)


def test_a_refusal_is_followed_by_longer_and_longer_pauses(gate, clock):
    gate.submitted("1")
    gate.noted({"1": "running"}, {"1"})
    pauses = []
    for _ in range(8):
        assert gate.is_open
        gate.refused()
        start = clock.now
        while not gate.is_open:
            clock.now += 1.0
        pauses.append(clock.now - start)
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300]
    # A job runs, so that there is hope.
    assert gate.problem is None


def test_three_refusals_without_a_job_end_it_with_the_words_of_the_batch_system(gate):
    for k in range(3):
        assert gate.problem is None
        gate.heard(said(f"error: no such account, {k}"))
        gate.refused("Parsl says less")
    assert gate.problem == (
        "the batch system takes no job, exit status 1: error: no such account, 2"
    )


def test_what_is_no_refusal_is_told_with_its_error(gate):
    gate.heard(said("Submitted batch job 7", 0))
    gate.submitted("7")
    gate.noted({"7": "missing"}, set())
    for _ in range(2):
        gate.asked()
        gate.refused("the disk is full")
    assert gate.problem == "the batch system takes no job, the disk is full"


def test_jobs_whose_workers_report_take_failures_back(gate):
    gate.refused()
    gate.refused()
    gate.submitted("3")
    gate.noted({"3": "running"}, {"3"})
    assert gate.is_open
    gate.noted({"3": "completed"}, {"3"})
    gate.refused()
    assert gate.problem is None


def test_jobs_that_end_in_vain_end_it(gate):
    for k in range(10):
        assert gate.problem is None
        gate.submitted(f"{k}")
        before = {f"{j}": "timeout" for j in range(k)}
        gate.noted(before | {f"{k}": "running"}, {f"{k}"})
        gate.noted(before | {f"{k}": "timeout"}, {f"{k}"})
    assert gate.problem == "10 jobs in a row ended and no task was settled"


def test_jobs_that_settle_tasks_may_be_many(gate):
    for k in range(30):
        gate.noted({f"{k}": "running"}, {f"{k}"})
        gate.settled()
        gate.noted({f"{k}": "timeout"}, {f"{k}"})
    assert gate.problem is None


def test_jobs_are_shown_beside_the_progress(gate):
    seen = []
    gate.noted({"1": "pending", "2": "pending", "3": "running", "4": "failed"}, {"2"})
    gate.beside(seen.append)(Progress("shards", 1, 2, {"done": "1/2"}))
    assert seen == [Progress("shards", 1, 2, {"done": "1/2", "jobs": 1, "jobs waiting": 2})]


def test_ids_are_on_disk_as_soon_as_they_are_known(gate, tmp_path):
    gate.submitted("17")
    assert ClusterJobs.read(tmp_path).left == ["17"]
    gate.noted({"17": "running"}, {"17"})
    gate.close()
    assert ClusterJobs.read(tmp_path).left == []


@pytest.mark.parametrize(
    "content",
    [
        {"scheduler": "slurm", "jobs": [{"id": "1; id", "state": "running"}]},
        {"scheduler": "slurm", "jobs": [{"id": "-u root", "state": "running"}]},
        {"scheduler": "local", "jobs": [{"id": "0", "state": "running"}]},
        {"scheduler": "unheard", "jobs": [{"id": "1", "state": "running"}]},
        {"scheduler": "slurm", "jobs": [{"id": "1"}]},
        [],
    ],
)
def test_a_damaged_list_of_jobs_is_refused(tmp_path, content):
    (tmp_path / "cluster.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"cluster\.json"):
        ClusterJobs.read(tmp_path)


def test_one_process_submits_jobs_for_a_run(tmp_path):
    claim = drive(tmp_path)
    assert is_driven(tmp_path)
    with pytest.raises(ClusterError, match="submits jobs for this run already"):
        drive(tmp_path)
    claim.give_back()
    assert not is_driven(tmp_path)
    drive(tmp_path).give_back()
    assert driver_of(tmp_path).number == 2


class Pilot:
    """Does tasks at once; ``answers`` says what comes of each attempt."""

    def __init__(self, work, answers=None):
        self.work, self.answers = work, answers or {}
        self.asked, self.settled_ones = [], 0

    def submit(self, rank, name):
        self.asked.append((rank, name))
        future = Future()
        answers = self.answers.get(name, [])
        answer = answers.pop(0) if answers else None
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            if answer is None:
                self.settle(name)
            future.set_result(answer)
        return future

    def settle(self, name):
        self.work.settle(self.work.claim(name), Record(None, 0.0, 1, "here"))

    def is_lost(self, error):
        return isinstance(error, ConnectionError)

    def settled(self):
        self.settled_ones += 1

    def check(self):
        return


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.setattr(_cluster_work, "_TICK_S", 0.01)
    monkeypatch.setattr(_cluster_work, "_LOOK_S", 0.02)
    tasks = [Task("small", 1.0), Task("large", 9.0), Task("middle", 4.0)]
    return WorkFolder.create(tmp_path, "toy", tasks, Rules())


def run(work, pilot):
    messages = []
    ClusterWork(work, list(work.tasks.values()), pilot, lambda: None).run(messages.append)
    return [message.text for message in messages]


def test_the_largest_task_comes_first(work):
    pilot = Pilot(work)
    assert run(work, pilot) == []
    assert pilot.asked == [(0, "large"), (1, "middle"), (2, "small")]
    assert pilot.settled_ones == 3


def test_a_task_that_comes_to_nothing_three_times_is_left_and_named(work):
    pilot = Pilot(work, {"middle": [ValueError("odd"), "the disk is full", "the disk is full"]})
    (text,) = run(work, pilot)
    assert "1 of 3 tasks have no result (middle). middle: the disk is full" in text
    assert [name for _, name in pilot.asked].count("middle") == 3


def test_where_nothing_can_be_done_that_is_an_error(work):
    pilot = Pilot(work, {name: [ImportError("no jax")] * 3 for name in work.tasks})
    with pytest.raises(ClusterError, match=r"no task can be done; .*: ImportError: no jax"):
        run(work, pilot)


def test_a_lost_job_does_not_count_against_its_tasks(work):
    pilot = Pilot(work, {"small": [ConnectionError("lost")] * 7})
    assert run(work, pilot) == []
    assert [name for _, name in pilot.asked].count("small") == 8


def test_a_task_that_another_process_does_is_waited_for(work):
    claim = work.claim("large")
    pilot = Pilot(work)
    looks = []

    def settle_after_some_looks():
        looks.append(None)
        if len(looks) == 3:
            work.settle(claim, Record(None, 0.0, 1, "elsewhere"))

    ClusterWork(work, list(work.tasks.values()), pilot, settle_after_some_looks).run(pytest.fail)
    assert {name for _, name in pilot.asked} == {"middle", "small"}
    assert len(looks) >= 3


def test_cancelled_work_ends(work):
    work.cancel()
    pilot = Pilot(work)
    (text,) = run(work, pilot)
    assert "3 of 3 tasks have no result" in text
    assert pilot.asked == []
