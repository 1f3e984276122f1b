"""Decisions about jobs and workers, as tables of events; nothing sleeps here."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heterodyne._errors import ConfigError
from heterodyne.optimization.cmc.backends._schedule import (
    Beat,
    Done,
    Ended,
    Kill,
    Limits,
    Ready,
    Schedule,
    Send,
    Start,
    Tick,
)
from heterodyne.optimization.cmc.backends.multiprocessing import (
    LPTScheduler,
    _estimate_shard_time,
)

LIMITS = Limits(job=100.0, silence=10.0, startup=20.0)


def played(costs, n_workers, table, limits=LIMITS):
    """Play a table of (time, event, expected actions); return the schedule."""
    schedule = Schedule(costs, n_workers, limits)
    assert schedule.begin(0.0) == [Start(k) for k in range(min(n_workers, len(costs)))]
    for now, event, expected in table:
        assert schedule.handle(event, now) == expected, (now, event)
    return schedule


def test_jobs_go_out_longest_first_and_workers_go_on_with_the_next():
    schedule = played(
        [1.0, 3.0, 2.0],
        2,
        [
            (1.0, Ready(1), [Send(1, 1)]),
            (2.0, Ready(0), [Send(0, 2)]),
            (5.0, Done(1), [Send(1, 0)]),
            (7.0, Done(0), []),
            (9.0, Done(1), []),
        ],
    )
    assert schedule.finished
    assert [schedule.outcomes[k].seconds for k in range(3)] == [4.0, 4.0, 5.0]
    assert all(o.problem is None and o.attempts == 1 for o in schedule.outcomes.values())


def test_no_more_workers_than_jobs_are_started():
    assert len(Schedule([1.0], 8, LIMITS).begin(0.0)) == 1
    assert Schedule([], 2, LIMITS).finished


def test_a_job_that_its_worker_reports_as_failed_is_not_tried_again():
    schedule = played(
        [2.0, 1.0],
        1,
        [
            (1.0, Ready(0), [Send(0, 0)]),
            (2.0, Done(0, "ValueError: x"), [Send(0, 1)]),
            (3.0, Done(0), []),
        ],
    )
    assert schedule.outcomes[0].problem == "ValueError: x"
    assert schedule.outcomes[1].problem is None
    assert not schedule.gave_up


def test_a_job_whose_worker_ends_is_tried_once_more_before_the_others():
    schedule = played(
        [2.0, 1.0],
        1,
        [
            (1.0, Ready(0), [Send(0, 0)]),
            (2.0, Ended(0, "killed"), [Start(0)]),
            (3.0, Ready(0), [Send(0, 0)]),
            (4.0, Ended(0, "killed again"), [Start(0)]),
            (5.0, Ready(0), [Send(0, 1)]),
            (6.0, Done(0), []),
        ],
    )
    assert schedule.outcomes[0].problem == "killed again"
    assert schedule.outcomes[0].attempts == 2
    assert schedule.outcomes[1].problem is None


def test_a_lost_job_goes_to_a_worker_that_has_nothing_to_do():
    schedule = played(
        [2.0, 1.0],
        2,
        [
            (1.0, Ready(0), [Send(0, 0)]),
            (1.0, Ready(1), [Send(1, 1)]),
            (2.0, Done(1), []),
            (3.0, Ended(0, "killed"), [Send(1, 0)]),
            (4.0, Ended(0, "a late word of the same end"), []),
            (5.0, Done(1), []),
        ],
    )
    assert schedule.outcomes[0].attempts == 2
    assert schedule.outcomes[0].problem is None


def test_a_job_that_takes_too_long_is_ended_for_good():
    schedule = played(
        [2.0, 1.0],
        1,
        [
            (1.0, Ready(0), [Send(0, 0)]),
            *((now, Beat(0), []) for now in (10.0, 19.0, 28.0, 37.0, 46.0, 55.0, 64.0)),
            *((now, Beat(0), []) for now in (73.0, 82.0, 91.0, 100.0)),
            (100.9, Tick(), []),
            (101.0, Tick(), [Kill(0), Start(0)]),
            (102.0, Done(0), []),
            (103.0, Ready(0), [Send(0, 1)]),
            (104.0, Done(0), []),
        ],
    )
    assert schedule.outcomes[0].problem == "it took longer than 100 s"
    assert schedule.outcomes[0].attempts == 1
    assert schedule.outcomes[0].seconds == 100.0


def test_a_silent_worker_is_replaced_and_its_job_tried_again():
    schedule = played(
        [1.0],
        1,
        [
            (1.0, Ready(0), [Send(0, 0)]),
            (9.0, Beat(0), []),
            (18.9, Tick(), []),
            (19.0, Tick(), [Kill(0), Start(0)]),
            (20.0, Ready(0), [Send(0, 0)]),
            (30.0, Tick(), [Kill(0)]),
        ],
    )
    assert schedule.finished
    assert schedule.outcomes[0].problem == "its worker gave no sign of life for 10 s"


def test_silence_of_a_worker_without_a_job_is_no_matter():
    schedule = played(
        [1.0, 1.0],
        2,
        [
            (1.0, Ready(0), [Send(0, 0)]),
            (1.0, Ready(1), [Send(1, 1)]),
            (2.0, Done(1), []),
            (9.0, Beat(0), []),
            (15.0, Tick(), []),
        ],
    )
    assert schedule.running == 1
    assert schedule.deadline() == 19.0


def test_deadlines_are_the_next_limits():
    schedule = Schedule([1.0], 1, LIMITS)
    schedule.begin(5.0)
    assert schedule.deadline() == 25.0
    schedule.handle(Ready(0), 6.0)
    assert schedule.deadline() == 16.0
    schedule.handle(Beat(0), 14.0)
    assert schedule.deadline() == 24.0
    for now in range(20, 105, 5):
        schedule.handle(Beat(0), float(now))
    assert schedule.deadline() == 106.0
    schedule.handle(Done(0), 105.0)
    assert schedule.deadline() == math.inf


@pytest.mark.parametrize(
    ("event", "late", "word"),
    [(Ended(0, "exit code 1"), 2.0, "exit code 1"), (Tick(), 40.0, "not ready after 20 s")],
)
def test_workers_that_never_become_ready_end_the_run(event, late, word):
    limits = Limits(startup=20.0, retries=1)
    killed = [Kill(0)] if isinstance(event, Tick) else []
    table = [(late, event, [*killed, Start(0)]), (2 * late, event, killed)]
    schedule = played([1.0, 1.0], 1, table, limits)
    assert schedule.finished
    for outcome in schedule.outcomes.values():
        assert outcome.problem.startswith("no worker is left; the last problem: ")
        assert word in outcome.problem
        assert outcome.attempts == 0


def test_other_workers_go_on_without_one_that_never_becomes_ready():
    schedule = played(
        [3.0, 2.0, 1.0],
        2,
        [
            (1.0, Ready(0), [Send(0, 0)]),
            (1.0, Ended(1, "exit code 1"), [Start(1)]),
            (2.0, Ended(1, "exit code 1"), []),
            (3.0, Done(0), [Send(0, 1)]),
            (4.0, Done(0), [Send(0, 2)]),
            (5.0, Done(0), []),
        ],
    )
    assert all(o.problem is None for o in schedule.outcomes.values())


def test_a_run_is_given_up_as_soon_as_too_few_can_succeed():
    schedule = played(
        [4.0, 3.0, 2.0, 1.0],
        2,
        [
            (1.0, Ready(0), [Send(0, 0)]),
            (1.0, Ready(1), [Send(1, 1)]),
            (2.0, Done(0, "bad"), [Send(0, 2)]),
            (3.0, Done(1), [Send(1, 3)]),
            # Two of four are out: 0.75 is out of reach.
            (4.0, Done(1, "bad"), [Kill(0), Kill(1)]),
        ],
        Limits(least_share=0.75),
    )
    assert schedule.gave_up
    assert schedule.finished
    assert schedule.outcomes[1].problem is None
    assert schedule.outcomes[2].problem == "given up, since 2 of 4 others failed"


def test_a_share_that_is_just_reached_does_not_end_the_run():
    schedule = played(
        [2.0, 1.0],
        1,
        [
            (1.0, Ready(0), [Send(0, 0)]),
            (2.0, Done(0, "bad"), [Send(0, 1)]),
            (3.0, Done(0), []),
        ],
        Limits(least_share=0.5),
    )
    assert not schedule.gave_up


@settings(max_examples=200)
@given(data=st.data())
def test_every_job_ends_once_whatever_happens(data):
    """Random events, among them senseless ones, at random times."""
    n_jobs, n_workers = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 3))
    limits = Limits(job=30.0, silence=12.0, startup=20.0, retries=data.draw(st.integers(0, 2)))
    costs = data.draw(st.lists(st.floats(0, 10), min_size=n_jobs, max_size=n_jobs))
    schedule = Schedule(costs, n_workers, limits)
    now, sent, running = 0.0, [0] * n_jobs, set()

    def follow(actions):
        for action in actions:
            if isinstance(action, Start):
                assert action.worker not in running
                running.add(action.worker)
            elif isinstance(action, Kill):
                running.remove(action.worker)
            else:
                assert action.worker in running
                assert action.job not in schedule.outcomes
                sent[action.job] += 1

    follow(schedule.begin(now))
    workers = st.integers(0, min(n_jobs, n_workers) - 1)
    events = st.one_of(
        workers.map(Ready),
        workers.map(Beat),
        workers.map(Done),
        workers.map(lambda k: Done(k, "bad")),
        workers.map(lambda k: Ended(k, "gone")),
        st.just(Tick()),
    )
    for _ in range(data.draw(st.integers(0, 40))):
        now += data.draw(st.floats(0, 15))
        event = data.draw(events)
        if isinstance(event, Ended):
            running.discard(event.worker)
        follow(schedule.handle(event, now))
    # From here on nothing but time passes, and that alone ends everything.
    for _ in range(4 * (n_jobs + n_workers) * 4):
        if schedule.finished:
            break
        deadline = schedule.deadline()
        assert math.isfinite(deadline)
        follow(schedule.handle(Tick(), deadline))
    assert schedule.finished
    assert set(schedule.outcomes) == set(range(n_jobs))
    assert all(count <= limits.retries + 1 for count in sent)
    assert [schedule.outcomes[k].attempts for k in range(n_jobs)] == sent


COSTS = st.lists(st.integers(1, 30), min_size=1, max_size=7)


@given(costs=COSTS, n_workers=st.integers(1, 4))
def test_shards_are_handed_out_once_and_longest_first(costs, n_workers):
    scheduler = LPTScheduler(costs, n_workers)
    order = list(scheduler._shard_order)
    taken = []
    while (shard := scheduler.next_shard()) is not None:
        taken.append(shard)
    assert taken == order
    assert sorted(taken) == list(range(len(costs)))
    assert [costs[k] for k in taken] == sorted(costs, reverse=True)
    assert scheduler.next_shard() is None
    assert scheduler.n_workers == n_workers


def makespan(costs, order, n_workers):
    """Time of all shards where each goes to the worker that is free first."""
    free = [0.0] * n_workers
    for shard in order:
        k = min(range(n_workers), key=free.__getitem__)
        free[k] += costs[shard]
    return max(free)


def shortest(costs, n_workers):
    """The shortest time of all assignments."""
    best = math.inf
    for owners in itertools.product(range(n_workers), repeat=len(costs)):
        loads = [0] * n_workers
        for owner, cost in zip(owners, costs, strict=True):
            loads[owner] += cost
        best = min(best, max(loads))
    return best


@settings(max_examples=60)
@given(costs=COSTS, n_workers=st.integers(2, 3))
def test_the_last_shard_ends_within_a_third_of_the_optimum(costs, n_workers):
    order = LPTScheduler(costs, n_workers)._shard_order
    bound = (4 / 3 - 1 / (3 * n_workers)) * shortest(costs, n_workers)
    assert makespan(costs, order, n_workers) <= bound + 1e-9


def test_shortest_first_would_take_longer():
    costs = [2, 1, 1]
    assert makespan(costs, LPTScheduler(costs, 2)._shard_order, 2) == 2
    assert makespan(costs, [1, 2, 0], 2) == 3


def test_costs_follow_the_size_of_the_data():
    shards = [{"c2_data": np.zeros((n, n))} for n in (300, 1000, 500)]
    scheduler = LPTScheduler.from_shard_data(shards, 2)
    assert list(scheduler._shard_order) == [1, 2, 0]
    costs = [_estimate_shard_time(shards[1], 14, n) for n in (500, 1000)]
    assert costs[1] == pytest.approx(2 * costs[0])
    assert _estimate_shard_time(shards[1], 30, 500) > costs[0]


@pytest.mark.parametrize("costs", [[1.0, -1.0], [math.nan], [math.inf]])
def test_costs_that_are_none_are_refused(costs):
    with pytest.raises(ConfigError, match="finite, at least 0"):
        LPTScheduler(costs, 1)


def test_a_scheduler_needs_a_worker():
    with pytest.raises(ConfigError, match="n_workers"):
        LPTScheduler([1.0], 0)
