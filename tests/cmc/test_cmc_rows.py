"""The table of results, from draws with known moments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.optimization.cmc._diagnostics import diagnose
from heterodyne.optimization.cmc._quantities import Quantities
from heterodyne.optimization.cmc._rows import IDENTIFIED, make_rows, prior_text
from heterodyne.optimization.derived import Derived

SPACE = ParameterSpace()
DERIVED = Derived((0.1, 0.5, 0.9))
NAMES = ("D0_ref", "phi0", "contrast_1", "offset_0", "sigma")
CENTRES = {"D0_ref": 2e4, "phi0": 1.0, "contrast_1": 0.2, "offset_0": 1.01, "sigma": 0.01}
WIDTHS = {"D0_ref": 500.0, "phi0": 4.9, "contrast_1": 0.01, "offset_0": 1e-3, "sigma": 2e-4}
PRIORS = {"D0_ref": 5e3, "phi0": 5.0, "contrast_1": 0.25, "offset_0": 0.25, "sigma": 0.01}
SHAPE = (4, 1000)


def quantities(widths, shape=SHAPE, seed=0):
    rng = np.random.default_rng(seed)
    values = {n: CENTRES[n] + widths[n] * rng.normal(size=shape) for n in NAMES}
    derived = {n: 3.0 + 0.1 * rng.normal(size=shape) for n in DERIVED.names}
    return Quantities(values, derived, np.zeros((*shape, len(PHYSICS_PARAM_NAMES))))


PLAIN = quantities(WIDTHS)
PRIOR = replace(
    quantities(PRIORS, (1, 4000), 1),
    derived={n: np.random.default_rng(2).normal(size=(1, 4000)) for n in DERIVED.names},
)
DIAGNOSIS = diagnose(PLAIN.all(), PLAIN.parameters["sigma"], np.zeros(SHAPE, bool))


def rows_of(plain=PLAIN, corrected=None, prior=PRIOR):
    rows = make_rows(plain, corrected, prior, DIAGNOSIS, SPACE, DERIVED)
    return {row.name: row for row in rows}


def test_rows_name_and_describe_every_quantity():
    rows = rows_of()
    assert tuple(rows) == (*NAMES, *DERIVED.names)
    kinds = ["parameter", "parameter", "scaling", "scaling", "noise", *["derived"] * 12]
    assert [row.kind for row in rows.values()] == kinds
    assert rows["D0_ref"].unit == "Å²/s^(1+alpha)"
    assert rows["contrast_1"].description == "Speckle contrast of angle 1"
    assert rows["J_ref(0.5 s)"].unit == "Å²/s"
    assert rows["v(0.5 s)"].unit == "Å/s"
    assert (rows["s(0.9 s)"].unit, rows["s(0.9 s)"].prior) == ("", None)


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_those_of_the_draws(name):
    row, width = rows_of()[name], WIDTHS[name]
    assert row.mean == pytest.approx(CENTRES[name], abs=0.1 * width)
    assert row.median == pytest.approx(CENTRES[name], abs=0.1 * width)
    assert row.sd == pytest.approx(width, rel=0.05)
    ends = CENTRES[name] + 1.96 * width * np.array([-1, 1])
    np.testing.assert_allclose([row.low, row.high], ends, atol=0.15 * width)
    assert row.r_hat == DIAGNOSIS.r_hat[name]
    assert row.ess_bulk == DIAGNOSIS.ess_bulk[name]
    assert row.ess_tail == DIAGNOSIS.ess_tail[name]


@pytest.mark.parametrize("name", NAMES)
def test_contraction_compares_posterior_with_prior(name):
    row = rows_of()[name]
    expected = 1.0 - WIDTHS[name] / PRIORS[name]
    assert row.contraction == pytest.approx(expected, abs=0.07)
    assert row.identified is (expected >= IDENTIFIED)
    assert row.prior is not None
    assert row.prior["sd"] == pytest.approx(PRIORS[name], rel=0.05)


def test_only_parameters_that_the_prior_sets_are_not_identified():
    assert [name for name, row in rows_of().items() if not row.identified] == ["phi0"]


def test_heavy_tails_do_not_hide_what_the_data_say():
    plain = quantities(WIDTHS)
    plain.parameters["D0_ref"][0, :8] = 1e9
    assert rows_of(plain)["D0_ref"].identified
    assert rows_of(plain)["D0_ref"].sd > PRIORS["D0_ref"]


def test_corrected_intervals_stand_beside_plain_ones():
    wider = {name: 3.0 * width for name, width in WIDTHS.items()}
    plain, both = rows_of(), rows_of(corrected=quantities(wider, seed=5))
    assert all(row.corrected is None and row.inflation == 1.0 for row in plain.values())
    for name in NAMES:
        row = both[name]
        assert (row.sd, row.low, row.high) == (
            plain[name].sd, plain[name].low, plain[name].high,
        )  # fmt: skip
        assert row.corrected is not None
        assert row.corrected["sd"] == pytest.approx(3.0 * WIDTHS[name], rel=0.05)
        assert row.inflation == pytest.approx(3.0, rel=0.05)
        assert row.corrected["high"] - row.corrected["low"] > 2.5 * (row.high - row.low)
    # What the data decide is judged by the interval to believe.
    expected = 1.0 - 3.0 * WIDTHS["D0_ref"] / PRIORS["D0_ref"]
    assert both["D0_ref"].contraction == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("name", "setting", "text"),
    [
        ("D0_ref", {}, "log-normal, median 10000 Å²/s^(1+alpha), factor 2, "
         "within 100 to 1e+06 Å²/s^(1+alpha)"),
        ("alpha_ref", {}, "normal, 0 ± 1, within -5 to 5"),
        ("v_offset", {"prior": {"type": "uniform"}}, "uniform within -100 to 100 Å/s"),
        ("offset", {"prior": {"mean": 1.02, "std": 0.05}, "min": 0.9},
         "normal, 1.02 ± 0.05, within 0.9 to 1.5"),
    ],
    ids=lambda x: x if isinstance(x, str) and " " not in x else "",
)  # fmt: skip
def test_priors_are_said_in_words(name, setting, text):
    assert prior_text(ParameterSpace.from_config({name: setting})[name]) == text


def test_rows_turn_into_plain_values():
    row = rows_of()["D0_ref"]
    found = row.as_dict()
    assert found["name"] == "D0_ref"
    assert found["contraction"] == row.contraction
    assert found["prior"]["text"].startswith("log-normal")
