import errno
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from heterodyne._errors import ConfigError, SamplingError
from heterodyne.io import files
from heterodyne.io._claims import Claims, Owner, Seen, place
from heterodyne.io._heartbeat import Heartbeat, Stop
from heterodyne.io._work_state import state_of
from heterodyne.io.work_folder import Record, Rules, Status, Task, WorkFolder
from work_cases import FakeClock, until, with_clock

TASKS = [Task("a", 1.0), Task("b", 3.0, {"x": [1, 2]}), Task("c.1", 2.0)]
DONE = Record(None, 1.0, 1, "here", {"r_hat": 1.01, "divergences": 2})


@pytest.fixture
def work(tmp_path):
    return WorkFolder.create(tmp_path, "toy", TASKS)


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def age(work, name, seconds, number=1):
    """Let a claim be without a sign of life for some time."""
    path = work.claims.path / f"{name}.{number}.json"
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_tasks_come_back_as_they_were(tmp_path, work):
    again = WorkFolder.open(tmp_path)
    assert (again.kind, list(again.tasks.values()), again.rules) == ("toy", TASKS, Rules())
    assert tree(tmp_path) == ["work", "work/claims", "work/done", "work/rules.json",
                              "work/tasks.json"]  # fmt: skip


def test_the_same_tasks_take_the_folder_up_with_new_rules_and_its_records(tmp_path, work):
    work.settle(work.claim("a"), DONE)
    before = (work.path / "tasks.json").read_bytes()
    again = WorkFolder.create(tmp_path, "toy", TASKS, Rules(silence=7.0, task=math.inf))
    assert again.record("a") == DONE
    assert WorkFolder.open(tmp_path).rules == Rules(silence=7.0)
    assert (work.path / "tasks.json").read_bytes() == before


@pytest.mark.parametrize(
    ("kind", "tasks", "said"),
    [
        ("run", TASKS, "of the kind toy, not run"),
        ("toy", TASKS[:2], "c.1 there before and not now"),
        ("toy", [*TASKS, Task("d")], "d new"),
        ("toy", [replace(TASKS[0], cost=2.0), *TASKS[1:]], "a changed"),
        ("toy", [TASKS[0], replace(TASKS[1], details={"x": [1, 3]}), TASKS[2]], "b changed"),
        ("toy", TASKS[::-1], "their order differs"),
        ("toy", [Task(f"n{k}") for k in range(7)], "n4 and 2 more new"),
    ],
)
def test_other_tasks_are_refused_and_nothing_is_changed(tmp_path, work, kind, tasks, said):
    before = (work.path / "tasks.json").read_bytes()
    with pytest.raises(ConfigError, match=r"work.*other tasks: .*--force") as caught:
        WorkFolder.create(tmp_path, kind, tasks)
    assert said in str(caught.value)
    assert (work.path / "tasks.json").read_bytes() == before


@pytest.mark.parametrize(
    "name", ["", ".a", "-a", "a/b", "..", "a\n", "a.", "ä", "a" * 101, "a b", "a\\b", "A:"]
)
def test_names_that_are_no_file_names_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="cannot name a task"):
        WorkFolder.create(tmp_path, "toy", [Task(name)])
    assert tree(tmp_path) == []


def test_names_that_some_file_systems_take_for_one_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="two tasks"):
        WorkFolder.create(tmp_path, "toy", [Task("a"), Task("A")])
    with pytest.raises(ConfigError, match="no task"):
        WorkFolder.create(tmp_path, "toy", [])


def test_of_many_that_make_the_folder_at_once_one_wins(tmp_path):
    barrier = threading.Barrier(8)

    def create(k):
        barrier.wait()
        try:
            return WorkFolder.create(tmp_path, "toy", [Task(f"from-{k % 2}")]).tasks
        except ConfigError:
            return None

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(create, range(8)))
    winner = WorkFolder.open(tmp_path).tasks
    assert [one for one in made if one is not None] == [winner] * 4
    assert [path for path in tree(tmp_path) if path.startswith(".")] == []


def test_a_folder_that_is_missing_or_damaged_is_named(tmp_path, work):
    with pytest.raises(ConfigError, match="no folder of work"):
        WorkFolder.open(tmp_path / "nowhere")
    path = work.path / "tasks.json"
    text = path.read_text()
    for damaged in (text[:-20], text.replace('"cost": 3.0', '"cost": 4.0'), "[]", ""):
        path.write_text(damaged)
        with pytest.raises(ConfigError, match=r"tasks\.json"):
            WorkFolder.open(tmp_path)
    WorkFolder.remove(tmp_path)
    assert tree(tmp_path) == []
    WorkFolder.remove(tmp_path)


def test_damaged_rules_leave_the_default(tmp_path, work, caplog):
    (work.path / "rules.json").write_text('{"silence"')
    assert WorkFolder.open(tmp_path).rules == Rules()
    assert "rules cannot be read" in caplog.text


def test_a_task_has_one_holder(work):
    claim = work.claim("a")
    assert (claim.attempt, claim.lost) == (1, False)
    assert work.claim("a") is None
    assert work.claim("b") is not None
    seen = work.claims.look("a")
    assert (seen.owner.pid, seen.attempts) == (os.getpid(), 1)
    assert str(os.getpid()) in str(seen)


@pytest.mark.parametrize("taken_over", [False, True])
def test_of_many_that_claim_at_once_one_wins(work, taken_over):
    first = work.claim("a") if taken_over else None
    if first is not None:
        age(work, "a", 1000.0)
    barrier = threading.Barrier(8)

    def take(k):
        barrier.wait()
        return work.claim("a")

    with ThreadPoolExecutor(8) as pool:
        won = [claim for claim in pool.map(take, range(8)) if claim is not None]
    assert [claim.attempt for claim in won] == [2 if taken_over else 1]
    assert first is None or (first.lost and not first.beat())
    assert not won[0].lost


def test_a_takeover_decided_on_an_old_look_fails(work):
    work.claim("a")
    age(work, "a", 1000.0)
    old = work.claims.look("a")
    second = work.claim("a")
    assert work.take(old) is None
    assert not second.lost
    second.give_back()
    assert work.take(old) is None
    third = work.claim("a")
    assert (third.number, third.attempt) == (3, 2)


def test_clocks_of_machines_do_not_matter(work, monkeypatch):
    claim = work.claim("a")
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert work.claim("a", 60.0) is None
    monkeypatch.setattr(time, "time", lambda: 1e12)
    assert work.claim("a", 60.0) is None
    assert claim.beat()


def test_the_claim_of_a_process_that_is_gone_is_void_at_once(tmp_path, work):
    code = (
        "import sys; from heterodyne.io.work_folder import WorkFolder;"
        "WorkFolder.open(sys.argv[1]).claim('a')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
    claim = work.claim("a")
    assert claim is not None
    assert claim.attempt == 2


def test_processes_elsewhere_are_not_taken_for_gone():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = Owner("h", gone.pid, place(), 0.0)
    assert here.dead
    assert not replace(here, place="another").dead
    assert not replace(here, pid=os.getpid()).dead
    assert not replace(here, pid=1).dead


def test_a_task_that_is_given_back_is_free_and_its_attempt_does_not_count(work):
    for _ in range(5):
        claim = work.claim("a")
        assert claim.attempt == 1
        claim.give_back()
        assert claim.lost
        claim.give_back()
    age_of = work.claim("a")
    age(work, "a", 1000.0, age_of.number)
    assert work.claim("a").attempt == 2


def test_heartbeats_keep_a_claim_alive_and_end_with_the_block(work):
    claim = work.claim("a")
    age(work, "a", 1000.0)
    reasons = []
    with Heartbeat(claim, 0.01, math.inf, lambda: False, reasons.append):
        until(lambda: work.claims.look("a").alive(work.claims.now(), 60.0))
    assert reasons == []
    age(work, "a", 1000.0)
    assert work.claim("a") is not None


@pytest.mark.parametrize("reason", list(Stop))
def test_a_heartbeat_says_why_a_task_has_to_stop(work, reason):
    claim = work.claim("a")
    reasons = []
    longest = 0.0 if reason is Stop.OVERDUE else math.inf
    if reason is Stop.LOST:
        age(work, "a", 1000.0)
        work.claim("a")
    if reason is Stop.CANCELLED:
        work.cancel()
    age(work, "a", 500.0)
    with Heartbeat(claim, 0.01, longest, lambda: work.cancelled, reasons.append):
        until(lambda: len(reasons) > 2)
        silent = work.claims.now() - (work.claims.path / "a.1.json").stat().st_mtime > 100
    assert set(reasons) == {reason}
    # Who is overdue or has lost the task gives no sign of life.
    assert silent == (reason is not Stop.CANCELLED)


def test_records_settle_tasks(tmp_path, work):
    assert work.settle(work.claim("b"), DONE)
    again = WorkFolder.open(tmp_path)
    assert again.records() == {"b": DONE}
    assert [task.name for task in again.unsettled()] == ["a", "c.1"]
    assert again.claim("b") is None


def test_who_lost_the_task_writes_no_record(work):
    first = work.claim("a")
    age(work, "a", 1000.0)
    second = work.claim("a")
    assert not work.settle(first, replace(DONE, host="first"))
    assert work.record("a") is None
    assert work.settle(second, replace(DONE, host="second"))
    assert not work.settle(first, replace(DONE, host="first"))
    assert not work.settle(second, replace(DONE, host="again"))
    assert work.record("a").host == "second"


def test_numbers_that_are_not_finite_are_kept_out_of_figures(work):
    work.settle(work.claim("a"), replace(DONE, figures={"r_hat": math.nan, "divergences": 1}))
    assert work.record("a").figures == {"r_hat": None, "divergences": 1}
    assert math.isnan(work.state().worst_r_hat)


def test_a_record_that_is_cut_off_anywhere_counts_as_none(work, caplog):
    work.settle(work.claim("a"), DONE)
    path = work.path / "done" / "a.json"
    whole = path.read_bytes()
    for length in range(len(whole) - 2):
        path.write_bytes(whole[:length])
        assert work.records() == {}
    assert "a.json: the record is damaged" in caplog.text
    for other in (
        b"[]",
        b'{"problem": null}',
        b"\xff\xfe",
        b"null",
        b'{"problem": 1, "seconds": {}',
    ):
        path.write_bytes(other)
        assert work.record("a") is None
    age(work, "a", 1000.0)
    claim = work.claim("a")
    assert work.settle(claim, replace(DONE, attempts=2))
    assert work.record("a").attempts == 2


def test_a_claim_that_is_cut_off_anywhere_is_void_once_it_is_silent(work):
    work.claim("a")
    path = work.claims.path / "a.1.json"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert work.claim("a") is None
    assert str(work.claims.look("a")) == "an unknown process"
    age(work, "a", 1000.0)
    assert work.claim("a").attempt == 2


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half(path, content):
    with path.open("wb") as stream:
        stream.write(content[: len(content) // 2])
    full()


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, work, monkeypatch):
    claim = work.claim("a")
    before = tree(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", half)
        with pytest.raises(ConfigError, match="No space left"):
            work.settle(claim, DONE)
        with pytest.raises(ConfigError, match="No space left"):
            WorkFolder.create(tmp_path / "other", "toy", TASKS)
    with monkeypatch.context() as patched:
        patched.setattr(json, "dumps", full)
        with pytest.raises(
            SamplingError, match=r"b\.1\.json: the task cannot be claimed \(No space"
        ):
            work.claim("b")
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        with pytest.raises(SamplingError, match="No space left"):
            work.claim("b")
        work.log("a", "begun")
    shutil.rmtree(tmp_path / "other", ignore_errors=True)
    assert [path for path in tree(tmp_path) if ".clock" not in path] == [
        path for path in before if ".clock" not in path
    ]
    assert work.settle(claim, DONE)
    assert work.claim("b").attempt == 1


def fill(path):
    with path.open("wb", buffering=0) as stream:
        while True:
            stream.write(b"x" * 4096)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a file system")
def test_a_file_system_without_room_is_said_and_leaves_nothing(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        work = WorkFolder.create(tmp_path, "toy", TASKS)
        claim = work.claim("a")
        with pytest.raises(OSError, match="No space"):
            fill(tmp_path / "fill")
        before = tree(tmp_path)
        with pytest.raises(ConfigError, match="No space left"):
            work.settle(claim, DONE)
        assert tree(tmp_path) == before
        (tmp_path / "fill").unlink()
        assert work.settle(claim, DONE)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_failed_tasks_are_freed_with_all_their_attempts(work):
    for number in (1, 2):
        claim = work.claim("a")
        assert claim.attempt == number
        age(work, "a", 1000.0, number)
    work.settle(work.claim("a"), replace(DONE, problem="no"))
    work.settle(work.claim("b"), DONE)
    assert work.free_failed() == ["a"]
    assert work.records() == {"b": DONE}
    assert work.claim("a").attempt == 1


def test_cancelled_work_goes_on_with_the_same_call(tmp_path, work):
    assert not work.cancelled
    work.cancel()
    work.cancel()
    assert WorkFolder.open(tmp_path).cancelled
    assert not WorkFolder.create(tmp_path, "toy", TASKS).cancelled


def test_events_of_many_writers_are_whole_lines(work):
    def log(k):
        for n in range(50):
            work.log("a", "progress", writer=k, n=n, text="x" * 300)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(log, range(4)))
    events, end = work.events()
    assert len(events) == 200
    assert end == (work.path / "events.jsonl").stat().st_size
    assert {event["pid"] for event in events} == {os.getpid()}
    assert work.events(end) == ([], end)


def test_damaged_lines_of_the_log_are_left_out(work):
    assert work.events() == ([], 0)
    work.log("a", "begun", value=math.nan)
    with (work.path / "events.jsonl").open("ab") as stream:
        stream.write(b'{"time": 1, "ta\n[]\n\xff\n{}\n')
    work.log("b", "begun")
    with (work.path / "events.jsonl").open("ab") as stream:
        stream.write(b'{"time": 1, "task": "c.1", "ev')
    events, end = work.events()
    assert [event["task"] for event in events] == ["a", "b"]
    assert events[0]["value"] is None
    with (work.path / "events.jsonl").open("ab") as stream:
        stream.write(b'ent": "begun"}\n')
    assert [event["task"] for event in work.events(end)[0]] == ["c.1"]
    assert [event["task"] for event in work.events(-30)[0]] == []


def test_what_killed_writers_left_is_removed_once_it_is_old(tmp_path, work):
    old, new, other = (tmp_path / name for name in
                       (f".{'a' * 32}.old.npz", f".{'b' * 32}.new.npz", ".other"))  # fmt: skip
    for path in (old, new, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (1.0, 1.0))
    work.tidy()
    assert [path.exists() for path in (old, new, other)] == [False, True, True]


# How far the work is.

SEEN = Seen("x", 1, True, 1, Owner("h", 1, "elsewhere", 0.0), 100.0)


def tasks_of(costs):
    return [Task(f"t{k}", cost) for k, cost in enumerate(costs)]


def test_states_of_tasks():
    tasks = tasks_of([1.0] * 6)
    seen = {
        "t1": SEEN,
        "t2": replace(SEEN, beat=0.0),
        "t3": replace(SEEN, held=False),
        "t4": SEEN,
        "t5": SEEN,
    }
    records = {"t4": DONE, "t5": replace(DONE, problem="no", figures={"r_hat": 3.0})}
    state = state_of(tasks, records, seen, 110.0, 60.0)
    assert [one.status.value for one in state.tasks] == [
        "waiting", "running", "silent", "waiting", "done", "failed"
    ]  # fmt: skip
    assert (state.tasks[1].elapsed, state.tasks[1].quiet) == (110.0, 10.0)
    assert (state.worst_r_hat, state.divergences, state.settled) == (3.0, 2, False)


def test_time_left_of_equal_tasks_on_two_workers():
    # Four of cost 1 took 10 s each; two begin just now, and three wait for one of the two.
    tasks = tasks_of([1.0] * 9)
    records = {f"t{k}": replace(DONE, seconds=10.0) for k in range(4)}
    seen = {f"t{k}": replace(SEEN, owner=replace(SEEN.owner, since=100.0)) for k in (4, 5)}
    state = state_of(tasks, records, seen, 100.0, 60.0)
    assert state.seconds_left == pytest.approx(30.0)
    assert state.share == pytest.approx(4 / 9)
    later = state_of(tasks, records, seen, 105.0, 60.0)
    assert later.seconds_left == pytest.approx(25.0)
    assert later.share == pytest.approx(5 / 9)


def test_time_left_is_open_without_a_worker_or_a_result():
    tasks = tasks_of([1.0, 1.0])
    assert math.isnan(state_of(tasks, {}, {"t0": SEEN}, 110.0, 60.0).seconds_left)
    assert math.isnan(state_of(tasks, {"t0": DONE}, {}, 110.0, 60.0).seconds_left)
    assert state_of(tasks, {"t0": DONE, "t1": DONE}, {}, 110.0, 60.0).seconds_left == 0.0


@given(
    st.lists(
        st.tuples(
            st.floats(0.0, 1e6), st.sampled_from(["new", "live", "silent", "done", "failed"]),
            st.floats(0.0, 1e3),
        ),
        min_size=1,
    )
)  # fmt: skip
def test_counts_shares_and_times_hold_together(drawn):
    now, silence = 1e4, 60.0
    tasks = tasks_of(cost for cost, _, _ in drawn)
    records, seen = {}, {}
    for task, (_, what, seconds) in zip(tasks, drawn, strict=True):
        if what in ("done", "failed"):
            problem = None if what == "done" else "no"
            records[task.name] = replace(DONE, problem=problem, seconds=seconds)
        elif what != "new":
            beat = now if what == "live" else now - 2 * silence
            seen[task.name] = replace(
                SEEN, name=task.name, beat=beat, owner=replace(SEEN.owner, since=now - seconds)
            )
    state = state_of(tasks, records, seen, now, silence)
    words = {"new": "waiting", "live": "running"}
    assert [one.status.value for one in state.tasks] == [words.get(w, w) for _, w, _ in drawn]
    assert sum(len(state.of(status)) for status in Status) == len(tasks)
    assert -1e-9 <= state.share <= 1.0 + 1e-9
    assert state.settled == all(w in ("done", "failed") for _, w, _ in drawn)
    left, n_live = state.seconds_left, len(state.of(Status.RUNNING))
    if not math.isnan(left) and n_live:
        # Between all work shared evenly, and all of it on one worker.
        work = state.seconds_per_cost * sum(task.cost for task in tasks) * (1.0 - state.share)
        assert work / n_live * (1 - 1e-6) - 1e-3 <= left <= work * (1 + 1e-6) + 1e-3


# Claims in any order of steps.


class ClaimMachine(RuleBasedStateMachine):
    """Workers look, claim, give signs of life, die and settle; time passes."""

    WORKERS = st.integers(0, 2)
    NAMES = st.sampled_from(["a", "b"])

    def __init__(self):
        super().__init__()
        self.folder = tempfile.mkdtemp()
        self.clock = FakeClock()
        made = WorkFolder.create(self.folder, "toy", [Task("a"), Task("b")])
        self.work = with_clock(made, self.clock)
        self.silence = self.work.rules.silence
        self.looks = {}
        self.claims = {}
        self.owner = {}
        self.alive_at = {}
        self.settled = {}

    def teardown(self):
        self.clock.time += 10 * self.silence
        for name in ("a", "b"):
            claim = self.work.claim(name)
            assert (claim is None) == (name in self.settled)
        shutil.rmtree(self.folder)

    @rule(worker=WORKERS, name=NAMES)
    def look(self, worker, name):
        seen = self.work.claims.look(name)
        free = not seen.alive(self.clock.time, self.silence)
        if free and self.work.record(name) is None:
            holder = self.owner.get(name)
            if holder is not None:
                assert self.clock.time - self.alive_at[name] > self.silence
            self.looks[worker, name] = seen
        else:
            self.looks.pop((worker, name), None)

    @precondition(lambda self: self.looks)
    @rule(data=st.data())
    def take(self, data):
        worker, name = data.draw(st.sampled_from(sorted(self.looks)))
        seen = self.looks.pop((worker, name))
        before = self.work.claims.look(name)
        claim = self.work.take(seen)
        if before.number != seen.number or name in self.settled:
            assert claim is None
        else:
            assert claim is not None
            self.claims[worker, name] = claim
            self.owner[name] = claim.number
            self.alive_at[name] = self.clock.time

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def beat(self, data):
        key = data.draw(st.sampled_from(sorted(self.claims)))
        claim = self.claims[key]
        holds = self.owner.get(key[1]) == claim.number
        assert claim.beat() == holds
        if holds:
            self.alive_at[key[1]] = self.clock.time

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def settle(self, data):
        key = data.draw(st.sampled_from(sorted(self.claims)))
        claim = self.claims.pop(key)
        holds = self.owner.get(key[1]) == claim.number and key[1] not in self.settled
        record = replace(DONE, host=f"worker {key[0]} claim {claim.number}")
        assert self.work.settle(claim, record) == holds
        if holds:
            self.settled[key[1]] = record

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def give_back(self, data):
        key = data.draw(st.sampled_from(sorted(self.claims)))
        claim = self.claims.pop(key)
        if self.owner.get(key[1]) == claim.number and key[1] not in self.settled:
            self.owner[key[1]] = None
        claim.give_back()

    @rule(worker=WORKERS)
    def die(self, worker):
        for kept in (self.looks, self.claims):
            for key in [key for key in kept if key[0] == worker]:
                del kept[key]

    @rule(seconds=st.floats(0.0, 300.0))
    def time_passes(self, seconds):
        self.clock.time += seconds

    @invariant()
    def a_task_has_at_most_one_holder(self):
        for name in ("a", "b"):
            holders = [c for (_, n), c in self.claims.items() if n == name and not c.lost]
            assert len(holders) <= 1

    @invariant()
    def records_stay(self):
        assert self.work.records() == self.settled


ClaimMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
TestClaimMachine = ClaimMachine.TestCase


def test_files_of_the_claims_folder_that_are_no_claims_do_no_harm(work):
    for name in ("README", ".x.json", "a.json", "a.x.json", "a.1.txt", "a.1.json.bak"):
        (work.claims.path / name).touch()
    assert Claims(work.claims.path).look_at_all() == {}
    assert files.read_json(work.path / "tasks.json")["kind"] == "toy"
