"""What is compiled ahead is what fit and draws use: no function is compiled again for them."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import numpy as np
import pytest
from core_cases import DT, SMALL, TRUTH, Q, make_model
from jax import monitoring

from heterodyne.core.ahead import import_ahead
from heterodyne.core.simulate import Experiment, simulate_pairs
from heterodyne.data import from_arrays
from heterodyne.optimization.bind import bind, fit_scaled
from heterodyne.optimization.cmc._analysis import analyse, compile_analysis
from heterodyne.optimization.cmc._assign import Sharding
from heterodyne.optimization.cmc._combination import SOUND
from heterodyne.optimization.cmc._shard_plan import compile_shards
from heterodyne.optimization.scaling import ScalingMode

AHEAD = {
    "importance": {"_differentiate", "_prior_curvature", "_standardised_slopes", "complete"},
    "nuts": {"_differentiate", "_prior_curvature", "_standardised_slopes", "advance"},
}


@contextmanager
def compiled():
    """Names of functions that are compiled meanwhile, and of the threads that do it."""
    seen = []

    def listen(event, duration, **about):
        if event.endswith("backend_compile_duration"):
            name = about.get("fun_name", "").removeprefix("jit(").removesuffix(")")
            seen.append((name, threading.current_thread().name.rpartition("_")[0]))

    monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        monitoring.unregister_event_duration_listener(listen)


def measured(n_frames):
    """Data with a number of frames that no other test has, so that nothing is there before."""
    experiment = Experiment(TRUTH, n_frames, DT, Q, [15.0])
    c2 = simulate_pairs(experiment, np.array([0.2]), np.array([1.0]), 0.01, seed=1)
    return from_arrays(c2, q=Q, phi=[15.0], t=experiment.t, dt=DT), c2


@pytest.mark.parametrize(("engine", "n_frames"), [("importance", 23), ("nuts", 25)])
def test_long_compilations_are_done_ahead_and_once(engine, n_frames):
    data, c2 = measured(n_frames)
    space = make_model().param_manager

    def before(problem):
        compile_analysis(problem, SMALL, engine=engine)
        # A short fit overtakes the thread, and then compiles what is left of the queue.
        import_ahead("math").result()

    with compiled() as seen:
        fit = fit_scaled(bind(data, space), ScalingMode.INDIVIDUAL, before=before)
        analyse(fit, c2, SMALL, engine=engine)
    for name in AHEAD[engine]:
        where = [thread for found, thread in seen if found == name]
        assert where[:1] == ["compiler"], (name, where)
    counts = {name: sum(found == name for found, _ in seen) for name in AHEAD[engine]}
    # Draws may end with a shorter block.
    assert all(n == 1 for name, n in counts.items() if name != "advance"), counts
    assert counts.get("advance", 1) <= 2, counts


def test_code_of_shards_is_compiled_ahead_and_once():
    data, c2 = measured(27)
    with compiled() as seen:
        fit = fit_scaled(
            bind(data, make_model().param_manager),
            ScalingMode.INDIVIDUAL,
            before=lambda problem: compile_shards(problem).result(),
        )
        found = analyse(fit, c2, SMALL, engine="importance", sharding=Sharding(2))
    where = [thread for name, thread in seen if name == "complete"]
    assert found.combination is not None
    # Once more for all pairs, if these are drawn from as well.
    assert len(where) == (1 if found.combination.held == SOUND else 2), where
    assert where[0] == "shard compiler"
