"""Choosing frames, q and angles."""

from __future__ import annotations

import layouts
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import SAMPLE

from heterodyne._errors import DataError
from heterodyne.data import file_from_arrays, from_arrays, open_two_time, select
from heterodyne.data.select import in_range


@pytest.fixture
def file(tmp_path):
    return open_two_time(layouts.write_aps_u(tmp_path / "a"))


def test_nearest_q_is_taken_and_every_bin_reported(file):
    data = select(file, q=0.00605)
    assert [b.label for b in data.bins] == [3, 4, 5]
    assert data.q == 0.006
    np.testing.assert_allclose(data.c2, SAMPLE.c2[2:5])
    notes = " ".join(data.notes)
    for text in ("0.00605", "0.83%", "bin 3 (q = 0.006 1/Å, phi = -150°)", "bin 5 (q = 0.006"):
        assert text in notes


def test_q_too_far_away_lists_what_exists(file):
    with pytest.raises(
        DataError, match=r"0.007 1/Å is 0.006 1/Å, 14.29% away.*0.004, 0.006, 0.009"
    ):
        select(file, q=0.007)
    assert select(file, q=0.007, q_tolerance=0.15).q == 0.006


def test_q_is_needed_where_there_are_several(file):
    with pytest.raises(DataError, match=r"more than one q.*q = 0.004, 0.006, 0.009 1/Å"):
        select(file)
    assert select(file_from_arrays(SAMPLE.c2, q=0.01, dt=0.25)).n_angles == 9


@pytest.mark.parametrize("q", [0.0, -0.01, np.nan])
def test_q_must_be_positive(file, q):
    with pytest.raises(DataError, match=f"q is {q}"):
        select(file, q=q)


def test_bins_of_slightly_other_q_are_reported_not_mixed(tmp_path):
    q = np.array([0.01, 0.010004, 0.01015, 0.02])
    file = file_from_arrays(SAMPLE.c2[:4], q=q, phi=[0, 1, 2, 3], dt=0.25)
    data = select(file, q=0.01)
    assert [b.label for b in data.bins] == [1, 2]
    (finding,) = data.findings
    assert finding.code == "other_q_near"
    assert "bin 3" in finding.text
    assert "bin 4" not in finding.text


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([(-180, 180)], [-150, -60, 30, 120]),
        ([(0, 360)], [-150, -60, 30, 120]),
        ([(200, 220)], [-150]),
        ([(110, -140)], [-150, 120]),
        ([(290, 40)], [-60, 30]),
        ([(30, 30)], [30]),
        ([(390, 395), (-61, -59)], [-60, 30]),
        ([], [-150, -60, 30, 120]),
    ],
)
def test_angles_wrap(file, ranges, expected):
    assert select(file, q=0.009, phi_ranges=ranges).phi.tolist() == expected


def test_no_angle_in_range_lists_what_exists(file):
    with pytest.raises(DataError, match=r"no angle lies in 40 to 50, 60 to 70.*-150, -60, 30, 120"):
        select(file, q=0.009, phi_ranges=[(40, 50), (60, 70)])
    with pytest.raises(DataError, match="the file gives no angles"):
        select(file_from_arrays(SAMPLE.c2, q=0.01, dt=0.25), phi_ranges=[(0, 90)])


whole_degrees = st.integers(-720, 720)


@given(whole_degrees, whole_degrees, whole_degrees, st.integers(-3, 3))
def test_in_range_is_a_walk_along_the_arc(phi, low, high, turns):
    width = 360 if high - low >= 360 else (high - low) % 360
    walked = {(low + step) % 360 for step in range(width + 1)}
    assert in_range(phi, low, high) == (phi % 360 in walked)
    assert in_range(phi + 360 * turns, low, high) == in_range(phi, low, high)


@given(st.floats(-360, 360), st.floats(-360, 360), st.floats(0, 359))
def test_ends_belong_to_a_range(low, turn, width):
    assert in_range(low, low, low + width)
    assert in_range(low + width, low, low + width)


@given(st.integers(1, 15).flatmap(lambda a: st.tuples(st.just(a), st.integers(a + 1, 16))))
def test_window_keeps_the_files_times(frames):
    file = file_from_arrays(SAMPLE.c2, q=0.01, phi=SAMPLE.phi, dt=0.25)
    start, end = frames
    data = select(file, frames=frames)
    np.testing.assert_allclose(data.t, np.arange(start, end + 1) * 0.25)
    np.testing.assert_array_equal(data.c2, SAMPLE.c2[:, start - 1 : end, start - 1 : end])
    assert data.provenance.details["time_origin"] == "absolute"
    shifted = select(file, frames=frames, time_origin="window")
    np.testing.assert_allclose(shifted.t, np.arange(1, end - start + 2) * 0.25)
    assert shifted.provenance.details["time_origin"] == "window"
    assert shifted.provenance.details["frames"] == [start, end]
    assert shifted.frames.tolist() == data.frames.tolist()


def test_window_without_a_last_frame_runs_to_the_end(file):
    assert select(file, q=0.009, frames=(13, None)).frames.tolist() == [13, 14, 15, 16]


@pytest.mark.parametrize("frames", [(0, 5), (5, 5), (7, 3), (1, 17)])
def test_windows_that_do_not_exist(file, frames):
    with pytest.raises(DataError, match=rf"frames {frames[0]} to {frames[1]} .*within 1 to 16"):
        select(file, q=0.009, frames=frames)


def test_words_that_mean_nothing(file):
    with pytest.raises(DataError, match=r"time_origin: 'relative'.*absolute, window"):
        select(file, q=0.009, time_origin="relative")
    with pytest.raises(DataError, match=r"asymmetric: 'keep'.*refuse, average"):
        select(file, q=0.009, asymmetric="keep")


def test_bad_frames_are_numbers_of_the_file(file):
    data = select(file, q=0.009, frames=(4, 12), bad_frames=[2, 5, 11])
    assert data.frames[~data.frame_mask].tolist() == [5, 11]
    assert data.unique_pairs == 7 * 6 // 2
    assert data.provenance.details["bad_frames"] == [5, 11]
    with pytest.raises(DataError, match=r"bad frame 17 .*1 to 16"):
        select(file, q=0.009, bad_frames=[17])


def gaps(frames, kind=np.nan):
    c2 = SAMPLE.c2
    for frame in frames:
        c2[2, frame - 1, :] = c2[2, :, frame - 1] = kind
    return c2


@pytest.mark.parametrize("kind", [np.nan, np.inf])
def test_unknown_values_name_frames_and_bin(kind):
    file = file_from_arrays(gaps([3, 9], kind), q=0.01, phi=SAMPLE.phi, dt=0.25)
    with pytest.raises(DataError, match=r"bin 3 .*frames 3, 9\..*bad_frames: \[3, 9\]"):
        select(file)
    with pytest.raises(DataError, match=r"bad_frames: \[9\]"):
        select(file, frames=(5, 16), bad_frames=[3])


def test_unknown_values_of_bad_frames_become_zero():
    file = file_from_arrays(gaps([3, 9]), q=0.01, phi=SAMPLE.phi, dt=0.25)
    data = select(file, bad_frames=[9, 3])
    assert np.isfinite(data.c2).all()
    assert data.c2[2, 2].tolist() == [0.0] * 16
    np.testing.assert_array_equal(data.c2[0], SAMPLE.c2[0])
    good = data.fitted
    np.testing.assert_array_equal(data.c2[:, good][:, :, good], SAMPLE.c2[:, good][:, :, good])
    assert [f.code for f in data.findings] == ["nan_replaced"]


def test_unknown_diagonal_and_first_row_at_zero_time_need_no_bad_frames():
    c2 = gaps([1])
    for matrix in c2:
        np.fill_diagonal(matrix, np.nan)
    data = from_arrays(c2, q=0.01, phi=SAMPLE.phi, t=SAMPLE.t - SAMPLE.t[0])
    assert np.isfinite(data.c2).all()
    assert data.frame_mask.all()
    assert data.diagonal_is_raw is False


@given(st.sets(st.integers(1, 16), min_size=1, max_size=6))
def test_named_frames_are_the_ones_to_exclude(frames):
    c2 = gaps(frames)
    with pytest.raises(DataError) as caught:
        from_arrays(c2, q=0.01, dt=0.25)
    assert f"bad_frames: {sorted(frames)}" in str(caught.value)
    assert np.isfinite(from_arrays(c2, q=0.01, dt=0.25, bad_frames=sorted(frames)).c2).all()
