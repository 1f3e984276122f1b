"""What is compiled ahead is what fit and draws use: no function is compiled again for them."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from core_cases import DT, SMALL, TRUTH, Q, make_model
from jax import monitoring

from heterodyne.core.simulate import Experiment, simulate_pairs
from heterodyne.data import from_arrays
from heterodyne.optimization.bind import bind, fit_scaled
from heterodyne.optimization.cmc._analysis import analyse, compile_analysis
from heterodyne.optimization.scaling import ScalingMode

AHEAD = {
    "importance": {"_differentiate", "_prior_curvature", "_standardised_slopes", "complete"},
    "nuts": {"_differentiate", "_prior_curvature", "_standardised_slopes", "advance"},
}


@pytest.mark.parametrize(("engine", "n_frames"), [("importance", 23), ("nuts", 25)])
def test_long_compilations_are_done_ahead_and_once(engine, n_frames):
    seen = []

    def listen(event, duration, **about):
        if event.endswith("backend_compile_duration"):
            name = about.get("fun_name", "").removeprefix("jit(").removesuffix(")")
            seen.append((name, threading.current_thread().name.partition("_")[0]))

    # A number of frames that no other test has, so that nothing is there before.
    experiment = Experiment(TRUTH, n_frames, DT, Q, [15.0])
    c2 = simulate_pairs(experiment, np.array([0.2]), np.array([1.0]), 0.01, seed=1)
    data = from_arrays(c2, q=Q, phi=[15.0], t=experiment.t, dt=DT)
    space = make_model().param_manager
    monitoring.register_event_duration_secs_listener(listen)
    try:
        fit = fit_scaled(
            bind(data, space),
            ScalingMode.INDIVIDUAL,
            before=lambda problem: compile_analysis(problem, SMALL, engine=engine),
        )
        analyse(fit, c2, SMALL, engine=engine)
    finally:
        monitoring.unregister_event_duration_listener(listen)
    for name in AHEAD[engine]:
        where = [thread for found, thread in seen if found == name]
        assert where[:1] == ["compiler"], (name, where)
    counts = {name: sum(found == name for found, _ in seen) for name in AHEAD[engine]}
    # Draws may end with a shorter block.
    assert all(n == 1 for name, n in counts.items() if name != "advance"), counts
    assert counts.get("advance", 1) <= 2, counts
