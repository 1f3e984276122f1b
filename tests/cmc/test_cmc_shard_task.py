"""Shards as tasks: whoever draws them, and however often it is stopped, the draws are the same."""

from __future__ import annotations

import json
import math
import os
import pickle
import threading
import time
from dataclasses import fields, is_dataclass, replace
from enum import Enum

import numpy as np
import pytest
from core_cases import ANGLES, DT, SMALL, Q, make_model, simulate

from heterodyne._errors import ConfigError, InterruptedRunError, SamplingError
from heterodyne._events import Progress, ignore_events
from heterodyne.cli._tasks import perform
from heterodyne.data import from_arrays
from heterodyne.io.run_folder import RunFolder
from heterodyne.io.work_folder import Rules, WorkFolder
from heterodyne.optimization.bind import bind, fit_scaled
from heterodyne.optimization.cmc import _plan_file, _shard_plan, _shard_task
from heterodyne.optimization.cmc._analysis import analyse
from heterodyne.optimization.cmc._assign import Sharding
from heterodyne.optimization.cmc._frame import Frame
from heterodyne.optimization.cmc._plan_file import read_plan, write_plan
from heterodyne.optimization.cmc._shard_task import Elsewhere, perform_shard, rules_of
from heterodyne.optimization.cmc.backends._local_work import LocalWork, run_tasks
from heterodyne.optimization.scaling import ScalingMode

CONFIG = replace(SMALL, min_ess=30)
SHARDING = Sharding(3)
NAMES = ["shard-0001", "shard-0002", "shard-0003"]


@pytest.fixture(scope="module")
def measured():
    model = make_model()
    data = from_arrays(simulate(ANGLES), q=Q, phi=ANGLES, t=model.t, dt=DT)
    fit = fit_scaled(bind(data, model.param_manager), ScalingMode.INDIVIDUAL)
    return fit, np.asarray(data.c2)


def analysed(measured, engine="nuts", elsewhere=None, **changes):
    return analyse(
        *measured, replace(CONFIG, **changes), engine=engine, sharding=SHARDING, elsewhere=elsewhere
    )


@pytest.fixture(scope="module", params=["nuts", "importance"])
def here(request, measured):
    """Draws of one process, and their engine."""
    return analysed(measured, request.param), request.param


def by_hand(path):
    """Does tasks one after the other, the last one first."""

    def transport(tasks):
        for task in reversed(tasks):
            perform(str(path), task.name)

    return transport


def elsewhere(path, transport=None):
    return Elsewhere(RunFolder(path), transport or by_hand(path), rules_of(CONFIG))


def assert_same(ours, theirs):
    np.testing.assert_array_equal(ours.draws.y, theirs.draws.y)
    assert ours.combination.of_shards() == theirs.combination.of_shards()
    assert ours.verdict == theirs.verdict


def test_tasks_give_the_draws_of_one_process(here, measured, tmp_path):
    alone, engine = here
    found = analysed(measured, engine, elsewhere(tmp_path))
    assert_same(found, alone)
    work = WorkFolder.open(tmp_path)
    assert list(work.tasks) == NAMES
    assert sum(task.cost for task in work.tasks.values()) == 2 * 30 * 29 // 2
    for record, shard in zip(work.records().values(), found.combination.of_shards(), strict=True):
        assert record.problem is None
        assert record.figures["r_hat"] == shard["r_hat_max"]
        assert record.figures["ess"] == min(shard["ess_bulk_min"], shard["ess_tail_min"])
        assert record.figures.get("divergences") == shard["divergences"]
        assert record.figures["draws"] >= 200


def test_processes_give_the_draws_of_one_process(measured, here, tmp_path):
    alone, engine = here
    if engine != "nuts":
        pytest.skip("one engine is enough to see what other processes change")

    def transport(tasks):
        run_tasks(perform, tmp_path, tasks, LocalWork(workers=2), ignore_events)

    assert_same(analysed(measured, engine, elsewhere(tmp_path, transport)), alone)


def test_data_of_shards_are_never_pickled(monkeypatch, tmp_path):
    monkeypatch.setattr(_shard_task, "write_plan", lambda path, plan: None)
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        _shard_task.prepare_shards(
            None, np.array([[[None]]]), RunFolder(tmp_path), rules_of(CONFIG)
        )


class StopError(Exception):
    """Ends a worker in the midst of a shard."""


def stopped_after(steps):
    def on_event(event):
        if isinstance(event, Progress) and event.done >= steps:
            raise StopError

    return on_event


def test_a_shard_that_was_killed_goes_on_to_the_same_draws(here, measured, tmp_path):
    alone, engine = here
    steps = {"nuts": 200, "importance": 2048}[engine]
    seen = []

    def transport(tasks):
        for task in tasks:
            with pytest.raises(StopError):
                perform_shard(tmp_path, task.name, stopped_after(steps))
        for task in tasks:
            perform_shard(tmp_path, task.name, seen.append)
            claim = WorkFolder.open(tmp_path).claim(task.name)
            assert claim is not None
            claim.give_back()
        by_hand(tmp_path)(tasks)

    assert_same(analysed(measured, engine, elsewhere(tmp_path, transport)), alone)
    progress = [event for event in seen if isinstance(event, Progress)]
    first = {e.stage: e.done for e in reversed(progress)}
    assert len(first) == 3
    assert set(first.values()) == {steps}


def test_drawn_shards_are_not_drawn_again(here, measured, tmp_path):
    alone, engine = here
    if engine != "nuts":
        pytest.skip("the folder is the same for every engine")

    def interrupted(tasks):
        perform(str(tmp_path), "shard-0002")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        analysed(measured, engine, elsewhere(tmp_path, interrupted))
    state = tmp_path / "checkpoint_shard2_nuts.npz"
    record = tmp_path / "work" / "done" / "shard-0002.json"
    before = [file.stat().st_mtime_ns for file in (state, record)]
    # The fit may differ in its last digits from one process to another; the plan may not.
    fit, c2 = measured
    modes = fit.modes._replace(y=fit.modes.y + 1e-9)
    again = analysed((replace(fit, modes=modes), c2), engine, elsewhere(tmp_path))
    assert [file.stat().st_mtime_ns for file in (state, record)] == before
    for k, shard in enumerate(again.combination.of_shards()):
        assert shard == alone.combination.of_shards()[k]


def test_a_shard_without_draws_is_left_out_and_named(measured, tmp_path, monkeypatch):
    draw = _shard_task.ShardPlan.draw

    def failing(self, number, *rest):
        if number == 1:
            raise SamplingError("the posterior density is not finite near the fit")
        return draw(self, number, *rest)

    monkeypatch.setattr(_shard_task.ShardPlan, "draw", failing)
    with pytest.raises(SamplingError) as caught:
        analysed(measured, elsewhere=elsewhere(tmp_path))
    text = "number 2 was not drawn: the posterior density is not finite near the fit"
    assert "1 of 3 shards did not converge (number 2, counted from 1; " in str(caught.value)
    assert text in str(caught.value)
    # What failed is tried again, and fails again.
    found = analysed(measured, elsewhere=elsewhere(tmp_path), min_success_rate=0.6)
    assert found.combination.failed == (1,)
    assert any(text in sentence for sentence in found.verdict.sentences)
    shard = found.combination.of_shards()[1]
    assert (shard["converged"], shard["r_hat_max"]) == (False, None)
    assert shard["problem"].startswith("the posterior density")
    assert np.isnan(found.combination.intervals["v0"][1]).all()
    # With the cause gone, the same command draws it.
    monkeypatch.undo()
    assert analysed(measured, elsewhere=elsewhere(tmp_path)).combination.failed == ()


def test_a_run_whose_shards_nobody_draws_can_go_on(measured, tmp_path):
    def only_one(tasks):
        perform(str(tmp_path), tasks[0].name)

    with pytest.raises(InterruptedRunError, match="2 of 3 shards are not drawn: no worker is left"):
        analysed(measured, elsewhere=elsewhere(tmp_path, only_one))

    def cancelled(tasks):
        WorkFolder.open(tmp_path).cancel()

    with pytest.raises(InterruptedRunError, match="the work was cancelled"):
        analysed(measured, elsewhere=elsewhere(tmp_path, cancelled))
    assert analysed(measured, elsewhere=elsewhere(tmp_path)).combination.failed == ()


def test_workers_begin_when_the_code_is_compiled(measured, tmp_path):
    compiled = threading.Event()

    def slowly():
        time.sleep(0.5)
        compiled.set()

    def begin(tasks):
        assert compiled.is_set()
        by_hand(tmp_path)(tasks)

    _shard_plan._COMPILER.submit(slowly)
    assert analysed(measured, elsewhere=elsewhere(tmp_path, begin)).combination.failed == ()


def stop(tasks):
    raise KeyboardInterrupt


@pytest.fixture
def prepared(measured, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        analysed(measured, elsewhere=elsewhere(tmp_path, stop))
    return tmp_path


@pytest.mark.parametrize("name", ["checkpoint_shards.npz", "checkpoint_shards_c2.npy"])
def test_what_was_changed_is_refused(prepared, name):
    file = prepared / name
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{name}: the file is not the one .*SHA-256"):
        perform_shard(prepared, "shard-0001", ignore_events)
    file.unlink()
    with pytest.raises(ConfigError, match="Start the run again"):
        perform_shard(prepared, "shard-0001", ignore_events)


def leaves(value):
    """Everything that a value consists of, with the types of what holds it."""
    if is_dataclass(value):
        value = {one.name: getattr(value, one.name) for one in fields(value)}
    if isinstance(value, dict):
        return [leaf for name, x in value.items() for leaf in (name, *leaves(x))]
    if isinstance(value, tuple | list):
        return [type(value).__name__, *(leaf for x in value for leaf in leaves(x))]
    if isinstance(value, Enum | str | None):
        return [value]
    return [np.asarray(value).tobytes()]


def test_a_plan_is_read_as_it_was_written(prepared, tmp_path):
    plan = read_plan(prepared / "checkpoint_shards.npz")
    priors = plan.posterior.space.parameters
    assert len({p.prior.kind for p in priors.values()}) > 1
    assert all(isinstance(f, Frame) for f in plan.frames)
    # A third is no finite binary number, and no bound need be one.
    odd = replace(plan, scale=1 / 3, weight=math.inf)
    write_plan(tmp_path / "other.npz", odd)
    found = read_plan(tmp_path / "other.npz")
    assert leaves(found) == leaves(odd)
    assert found.posterior == odd.posterior
    assert hash(found.posterior) == hash(odd.posterior)


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("how", ["pickle", "object array", "no settings", "settings"])
def test_no_other_file_is_taken_for_a_plan(prepared, tmp_path, how):
    file = prepared / "checkpoint_shards.npz"
    arrays = dict(np.load(file))
    if how == "pickle":
        file.write_bytes(pickle.dumps(Evil(tmp_path / "mark")))
    elif how == "object array":
        np.savez(file, **arrays | {"settings": np.array([Evil(tmp_path / "mark")], object)})
    elif how == "no settings":
        np.savez(file, version=arrays["version"])
    else:
        np.savez(file, **arrays | {"settings": np.array('{"scale": "wide"}')})
    with pytest.raises(ConfigError, match=r"checkpoint_shards\.npz"):
        read_plan(file)
    assert not (tmp_path / "mark").exists()


def test_another_version_is_refused(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(_plan_file, "__version__", "0.0.1")

    def later(tasks):
        monkeypatch.undo()
        perform_shard(tmp_path, "shard-0001", ignore_events)

    with pytest.raises(ConfigError, match=r"prepared by heterodyne 0\.0\.1"):
        analysed(measured, elsewhere=elsewhere(tmp_path, later))


def test_work_whose_states_are_gone_starts_anew(measured, tmp_path):
    first = analysed(measured, elsewhere=elsewhere(tmp_path))
    RunFolder(tmp_path).remove_checkpoints()
    work = WorkFolder.open(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"work"}
    assert set(work.records()) == set(NAMES)
    assert (work.path / "events.jsonl").stat().st_size > 0
    assert_same(analysed(measured, elsewhere=elsewhere(tmp_path)), first)
    assert (tmp_path / "checkpoint_shard1_nuts.npz").is_file()


def test_limits_of_the_settings_are_those_of_the_work(measured, prepared):
    rules = WorkFolder.open(prepared).rules
    assert (rules.task, rules.silence) == (CONFIG.per_shard_timeout, CONFIG.heartbeat_timeout)
    shorter = replace(CONFIG, per_shard_timeout=5, heartbeat_timeout=7)
    assert rules_of(shorter) == Rules(silence=7, task=5)
    with pytest.raises(KeyboardInterrupt):
        analysed(measured, elsewhere=Elsewhere(RunFolder(prepared), stop, rules_of(shorter)))
    assert WorkFolder.open(prepared).rules == rules_of(shorter)
    kept = json.loads((prepared / "work" / "tasks.json").read_text())
    assert [task["name"] for task in kept["tasks"]] == NAMES
