import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heterodyne.cli import _output


def test_table_aligns_columns():
    text = _output.table(
        ("name", "value", "unit"), [("a", "1.5", "Å"), ("long", "-10", "s")], left=(0, 2)
    )
    assert text.splitlines() == [
        "name  value  unit",
        "----  -----  ----",
        "a       1.5  Å",
        "long    -10  s",
    ]


@pytest.mark.parametrize(
    ("value", "error", "written"),
    [
        (0.25646, 0.00058, ("0.25646", "0.00058")),
        (15638.2, 336.4, ("15638", "336")),
        (-2.0608, 0.89, ("-2.06", "0.89")),
        (3.0, 20.0, ("3", "20")),
        (1234567.0, 4321.0, ("1.2346e+06", "0.0043e+06")),
        (1.5e-5, 2e-7, ("1.500e-05", "0.020e-05")),
        (0.0, 0.5, ("0.00", "0.50")),
        (-0.3, 15.0, ("0", "15")),
        (12.3456, None, ("12.3", "open")),
        (12.3456, math.inf, ("12.3", "open")),
        (2.0, 0.0, ("2", "0")),
    ],
)
def test_value_and_error_have_the_same_decimals(value, error, written):
    assert _output.measured(value, error) == written


@given(
    st.floats(-1e12, 1e12).filter(lambda x: abs(x) > 1e-12 or x == 0),
    st.floats(1e-6, 1e6).map(lambda x: x),
)
def test_rounding_stays_well_within_the_error(value, error):
    value_text, error_text = _output.measured(value, error)
    exact = max(abs(value), error) * 1e-12
    assert abs(float(value_text) - value) <= 0.06 * error + exact
    assert abs(float(error_text) - error) <= 0.06 * error + exact


def test_no_line_is_wider_than_the_page_and_paths_stay_whole():
    path = "/" + "a-long-name/" * 12
    text = _output.wrapped(f"{'word ' * 40}{path} {'word ' * 40}", "  ")
    lines = text.splitlines()
    assert f"  {path}" in lines
    assert max(len(line) for line in lines if path not in line) <= _output.WIDTH
    assert all(line.startswith("  ") for line in lines)


def test_pairs_hang_below_their_start():
    lines = _output.pairs([("a", "word " * 40), ("name", "b")]).splitlines()
    assert lines[0].startswith("a     word")
    assert lines[1].startswith("      word")
    assert lines[-1] == "name  b"


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.4, "3 s"), (59, "59 s"), (90, "2 min"), (5400, "1.5 h")]
)
def test_durations_are_rounded_as_people_do(seconds, text):
    assert _output.duration(seconds) == text


def test_memory_in_binary_units():
    assert _output.memory(3 * 2**20) == "3 MiB"
    assert _output.memory(1.5 * 2**30) == "1.5 GiB"
