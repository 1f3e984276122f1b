"""Start values with a field correlation that is seen, against the model itself."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from heterodyne._errors import ConfigError
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_registry import DEFAULT_REGISTRY
from heterodyne.core.jax_backend import compute_c2_heterodyne
from heterodyne.optimization.cmc.sampler import compute_mcmc_safe_initial_values

Q, DT = 0.01, 0.1
# The geometric mean of the shortest lag and 100 frames is 10 frames.
TIMES = DT * np.arange(1, 102)
LAG = 10
DEFAULTS = {name: DEFAULT_REGISTRY[name].default for name in PHYSICS_PARAM_NAMES}
FAST_REFERENCE = {"D0_ref": 3e5, "alpha_ref": 0.4, "D_offset_ref": 2e4}
ON_THE_FLOOR = {"D0_sample": 9e5, "alpha_sample": -1.5, "D_offset_sample": -2e4}


def repaired(values, **options):
    options = {"q": Q, "dt": DT, "time_grid": TIMES, **options}
    return compute_mcmc_safe_initial_values(values, **options)


def g1_of(values, component):
    """Median of |g1| at the typical lag, from the correlation of one component alone."""
    alone = {"f0": 0.0 if component == "ref" else 1.0, "f1": 0.0, "f2": 0.0, "f3": 0.0}
    parameters = np.array([{**DEFAULTS, **values, **alone}[n] for n in PHYSICS_PARAM_NAMES])
    g2 = np.asarray(compute_c2_heterodyne(parameters, TIMES, Q, DT, 0.0, 1.0, 0.0))
    return float(np.median(np.sqrt(np.diagonal(g2, LAG))))


@pytest.mark.parametrize("target", [0.5, 0.2])
@pytest.mark.parametrize(
    ("values", "component"), [(FAST_REFERENCE, "ref"), (ON_THE_FLOOR, "sample")]
)
def test_a_repair_reaches_the_target(values, component, target, caplog):
    assert g1_of(values, component) < 0.1
    found = repaired({**DEFAULTS, **values}, target_g1=target)
    assert found is not None
    assert g1_of(found, component) == pytest.approx(target, rel=1e-9)
    factor = found[f"D0_{component}"] / values[f"D0_{component}"]
    offset = f"D_offset_{component}"
    assert found[offset] == pytest.approx(factor * values[offset])
    changed = {name for name in found if found[name] != {**DEFAULTS, **values}[name]}
    assert changed == {f"D0_{component}", offset}
    assert ("the reference" if component == "ref" else "the sample") in caplog.text
    assert repaired(found, target_g1=target) is None


def test_both_components_are_looked_at(caplog):
    values = {**FAST_REFERENCE, **ON_THE_FLOOR}
    found = repaired(values)
    assert found is not None
    assert g1_of(found, "ref") == pytest.approx(0.5)
    assert g1_of(found, "sample") == pytest.approx(0.5)
    assert len(caplog.records) == 2
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    assert values == {**FAST_REFERENCE, **ON_THE_FLOOR}


def test_the_threshold_decides():
    values = {"D0_ref": 3e4}
    g1 = g1_of(values, "ref")
    assert 0.1 < g1 < 0.5
    assert repaired(values) is None
    assert repaired(values, g1_threshold=0.99 * g1) is None
    found = repaired(values, g1_threshold=1.01 * g1)
    assert found is not None
    assert found.keys() == {"D0_ref"}


def test_there_may_be_nothing_to_do():
    assert repaired(None) is None
    assert repaired({}) is None
    assert repaired(DEFAULTS) is None
    assert repaired({"alpha_ref": 5.0, "D_offset_ref": 1e5}) is None
    # Without any transport g1 stays 1.
    assert repaired({"D0_ref": 100.0, "D_offset_ref": -1e5}) is None


def test_arguments_set_the_lag():
    """A shorter shortest lag, wavevector or grid makes the same transport acceptable."""
    assert repaired(FAST_REFERENCE) is not None
    assert repaired(FAST_REFERENCE, dt=DT / 1e4) is None
    assert repaired(FAST_REFERENCE, q=Q / 10) is None
    assert repaired(FAST_REFERENCE, time_grid=TIMES[:2] / 10, dt=DT / 10) is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"q": 0.0}, "q is 0.0"),
        ({"q": float("nan")}, "q is nan"),
        ({"dt": -1.0}, "dt is -1.0"),
        ({"dt": 11.0}, "longer than the time grid"),
        ({"time_grid": [1.0]}, "time_grid"),
        ({"time_grid": [2.0, 1.0]}, "time_grid"),
        ({"time_grid": [[1.0, 2.0]]}, "time_grid"),
        ({"target_g1": 1.0}, "target_g1 is 1.0"),
        ({"target_g1": 0.05}, "g1_threshold 0.1"),
        ({"g1_threshold": 0.0}, "g1_threshold 0.0"),
    ],
)
def test_arguments_have_limits(options, text):
    with pytest.raises(ConfigError, match=text):
        repaired(FAST_REFERENCE, **options)


def test_values_are_finite():
    with pytest.raises(ConfigError, match=r"transport coefficient is not finite.*D0_ref.*nan"):
        repaired({**FAST_REFERENCE, "alpha_ref": float("nan")})
