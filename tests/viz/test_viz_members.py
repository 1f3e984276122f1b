import math

import numpy as np
import pytest
from matplotlib.colors import to_hex

from heterodyne.viz import style
from heterodyne.viz.members import Point, over_members
from heterodyne.viz.posterior import CURVES

Q = (0.003, 0.0054, 0.0165)


def series(median, *, x=Q, width=0.1, **changes):
    return [Point(q, m, m * (1 - width), m * (1 + width), **changes)
            for q, m in zip(x, np.broadcast_to(median, len(x)), strict=True)]  # fmt: skip


def everything(points, label="t = 1 s"):
    return {curve: {label: points} for curve in CURVES}


def panels(figure):
    return {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_visible()}


def guides(panel):
    return [line for line in panel.get_lines() if line.get_linestyle() == "--"]


def markers(panel):
    return [line for line in panel.get_lines() if line.get_marker() not in ("", "None", None)]


def words(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_each_curve_has_a_panel_with_points_and_intervals_over_q():
    figure = over_members(everything(series([3.0, 4.0, 5.0])))
    assert list(panels(figure)) == [style.with_unit(*CURVES[curve]) for curve in CURVES]
    for panel in panels(figure).values():
        assert panel.get_xscale() == "log"
        assert [line.get_ydata()[0] for line in markers(panel)] == [3.0, 4.0, 5.0]
        ends = [line.get_ydata() for line in panel.get_lines() if len(line.get_xdata()) == 2]
        for median in (3.0, 4.0, 5.0):
            assert any(np.allclose(end, [0.9 * median, 1.1 * median]) for end in ends)
        assert [tick.get_text() for tick in panel.get_xticklabels()] == [
            "0.003",
            "0.0054",
            "0.0165",
        ]
    assert words(figure) == ["t = 1 s", "weighted mean"]


def test_series_of_one_q_stand_side_by_side():
    curves = {"v": {f"t = {k} s": series(100.0 + k) for k in range(3)}}
    panel = next(iter(panels(over_members(curves)).values()))
    x = np.array([line.get_xdata()[0] for line in markers(panel)]).reshape(3, 3)
    assert np.all(np.diff(x, axis=0) > 0)
    assert np.allclose(x[1], Q)
    assert np.all(x[2, :-1] < x[0, 1:])


@pytest.mark.parametrize("q", [Q, (0.004, 0.005), (0.0054,)])
@pytest.mark.parametrize("n", [1, 3, 9])
def test_no_point_lies_at_the_edge_of_its_panel(q, n):
    curves = {"v": {f"t = {k} s": series(100.0 + k, x=q) for k in range(n)}}
    panel = next(iter(panels(over_members(curves)).values()))
    low, high = np.log(panel.get_xlim())
    x = np.log([line.get_xdata()[0] for line in markers(panel)])
    assert low + 0.03 * (high - low) < x.min()
    assert x.max() < high - 0.03 * (high - low)


def test_only_j_and_v_have_a_mean_and_only_over_q():
    flat = panels(over_members(everything(series([3.0, 4.0, 5.0]))))
    assert [len(guides(panel)) for panel in flat.values()] == [1, 1, 1, 0]
    by_file = over_members(everything(series(3.0, x=(0, 1, 2))), names=["a", "b", "c"])
    assert not any(guides(panel) for panel in panels(by_file).values())
    assert "weighted mean" not in words(by_file)


def test_mean_weighs_by_precision_and_j_by_its_logarithm():
    points = [Point(0.01, 10.0, 9.0, 11.0), Point(0.02, 20.0, 16.0, 24.0)]
    shown = panels(over_members({"J_ref": {"t": points}, "v": {"t": points}}))
    rate, velocity = (guides(panel)[0].get_ydata()[0] for panel in shown.values())
    assert velocity == pytest.approx((10 / 1 + 20 / 16) / (1 / 1 + 1 / 16))
    spreads = [math.log(11 / 9), math.log(24 / 16)]
    weights = [s**-2 for s in spreads]
    logs = [math.log(10), math.log(20)]
    expected = math.exp(sum(w * x for w, x in zip(weights, logs, strict=True)) / sum(weights))
    assert rate == pytest.approx(expected)


def test_members_that_did_not_converge_are_hollow_and_leave_the_mean_alone():
    good = series(100.0, x=Q[:2])
    bad = [Point(Q[2], 140.0, 0.0, 1e6, converged=False)]
    figure = over_members({"v": {"t": good + bad}}, note="Not converged: q0.0165.")
    panel = next(iter(panels(figure).values()))
    faces = [to_hex(line.get_markerfacecolor()) for line in markers(panel)]
    assert faces == [style.CYCLE[0].lower()] * 2 + ["#ffffff"]
    assert guides(panel)[0].get_ydata()[0] == pytest.approx(100.0)
    assert 140.0 < panel.get_ylim()[1] < 200.0
    assert "not converged" in words(figure)
    assert figure._supxlabel.get_text() == "Not converged: q0.0165."


def test_values_that_the_prior_sets_are_faint():
    points = [*series(1.0, x=Q[:2]), Point(Q[2], 1.0, 0.5, 2.0, informed=False)]
    figure = over_members({"v": {"t": points}})
    panel = next(iter(panels(figure).values()))
    assert [line.get_alpha() for line in markers(panel)] == [1.0, 1.0, 0.35]
    assert "set by the prior" in words(figure)


def test_rates_are_on_a_logarithmic_axis_unless_one_is_zero():
    def scale(points):
        return next(iter(panels(over_members({"J_ref": {"t": points}})).values())).get_yscale()

    assert scale([Point(0.01, 10.0, 0.0, 20.0), Point(0.02, 5.0, 4.0, 6.0)]) == "log"
    assert scale([Point(0.01, 0.0, 0.0, 20.0), Point(0.02, 5.0, 4.0, 6.0)]) == "linear"


def test_files_are_named_along_the_axis_in_order():
    names = [f"scan_{k}_of_a_very_long_measurement_{k}" for k in range(30)]
    figure = over_members({"v": {"t": series(1.0, x=range(30))}}, names=names)
    panel = next(iter(panels(figure).values()))
    ticks = [tick.get_text() for tick in panel.get_xticklabels()]
    assert len(ticks) == 10
    assert all(len(tick) <= 18 for tick in ticks)
    assert ticks[1].endswith("_3")
    assert panel.get_xlim() == (-0.5, 29.5)


def test_one_member_can_be_drawn_and_saved():
    figure = over_members(everything([Point(0.0054, 5.0, 4.0, 6.0)]))
    assert style.svg(figure).startswith(b"<?xml")
    assert not any(guides(panel) for panel in panels(figure).values())
