import math
import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from heterodyne.report.markup import Html, escaped, facts, tag
from heterodyne.report.numbers import (
    Rounding,
    duration,
    exact,
    moment,
    plus_minus,
    significant,
    unit,
)

RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")


def parsed(text):
    """Number that a reader takes from a text."""
    number, _, power = text.partition("×10")
    plain = number.replace("\u202f", "").replace("−", "-")
    return float(plain) * 10.0 ** int(power.translate(RAISED) or "0")


@pytest.mark.parametrize(
    ("value", "sd", "text"),
    [
        (1.23456, 0.0123, "1.235 ± 0.012"),
        (31000.0, 1712.0, "31\u202f000 ± 1700"),
        (8412.0, 312.0, "8410 ± 310"),
        (-0.351, 0.0996, "−0.35 ± 0.10"),
        (20.0, 923.0, "20 ± 920"),
        (-0.0004, 0.3, "0.00 ± 0.30"),
        (0.012, 0.00003, "0.012000 ± 0.000030"),
        (1.5e-8, 2.1e-9, "(1.50 ± 0.21)×10⁻⁸"),
        (3.21e8, 4.5e6, "(3.210 ± 0.045)×10⁸"),
        (2.0, None, "2.000"),
        (None, 0.1, "– ± 0.10"),
        (None, None, "–"),
    ],
)
def test_values_have_the_digits_of_their_uncertainty(value, sd, text):
    assert plus_minus(value, sd) == text


@given(
    st.floats(1e-9, 1e9).flatmap(lambda x: st.sampled_from([x, -x])),
    st.floats(1e-9, 1e9),
)
def test_rounded_numbers_are_within_a_twentieth_of_the_uncertainty(value, sd):
    rounding = Rounding.of(sd, value)
    # An uncertainty of 99.5 is rounded like 100.
    assert abs(parsed(rounding(value)) - value) <= 0.0503 * sd + 1e-12 * abs(value)
    assert abs(parsed(rounding(sd)) - sd) <= 0.0501 * sd


@example(value=5e-324, digits=2)
@given(st.floats(-1e12, 1e12), st.integers(2, 6))
def test_significant_digits(value, digits):
    shown = parsed(significant(value, digits))
    assert math.isclose(shown, value, rel_tol=0.51 * 10.0 ** (1 - digits), abs_tol=1e-300)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_what_is_no_number_is_a_dash(value):
    assert significant(value) == exact(value) == Rounding(2)(value) == duration(value) == "–"


@pytest.mark.parametrize(
    ("value", "text"), [(0.0054, "0.0054"), (0.25, "0.25"), (-30.0, "−30"), (400, "400")]
)
def test_settings_have_no_zeros_at_the_end(value, text):
    assert exact(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2 s"), (125, "2 min 5 s"), (7384, "2 h 3 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_moments_are_given_in_utc():
    assert moment("2026-11-25T09:30:00+02:00") == "2026-11-25 07:30 UTC"
    assert moment("yesterday") == "yesterday"
    assert moment(None) is None


def test_units_are_raised_and_kept_as_written():
    assert str(unit("Å²/s^(1+alpha)")).count("<sup>1+α</sup>") == 1
    assert 'title="Å²/s^(1+alpha)"' in unit("Å²/s^(1+alpha)")
    assert unit("") == unit(None) == "–"


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.text, self.attributes = "", []

    def handle_starttag(self, tag, attrs):
        self.attributes.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_every_text_comes_back_as_it_was_and_adds_no_element(text):
    reader = Reader()
    reader.feed(tag("p", text, title=text))
    reader.close()
    assert reader.text == text
    assert reader.attributes == [("p", {"title": text})]


def test_html_is_not_escaped_twice():
    assert tag("p", tag("b", "<")) == "<p><b>&lt;</b></p>"
    assert escaped(Html("<br>")) == "<br>"


def test_facts_without_a_value_are_left_out():
    found = facts([("a", 1), ("b", None), ("c", 0)])
    assert re.findall("<dt>(.*?)</dt>", found) == ["a", "c"]
