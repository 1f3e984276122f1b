"""Reading and judging in stretches of rows, in the precision of the file."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import h5py
import layouts
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import SAMPLE

from heterodyne._errors import DataError
from heterodyne.core import rows
from heterodyne.data import (
    assess,
    file_from_arrays,
    from_arrays,
    open_two_time,
    write_layout_a,
)
from heterodyne.data._matrices import (
    Populated,
    complete,
    diagonal_is_raw,
    examine,
    kept_precision,
)
from heterodyne.data.quality import levels, outlier_frames
from heterodyne.data.select import exclude_frames

ONE_ROW = 1
THREE_ROWS = 8 * SAMPLE.N * 3 + 7
HALVES = {"upper": np.triu, "lower": np.tril, "all": np.array}


@pytest.fixture(params=[ONE_ROW, THREE_ROWS])
def few_rows(request, monkeypatch):
    monkeypatch.setattr(rows, "STRETCH_BYTES", request.param)


def completed_at_once(stored, declared):
    """The rules of completion, on whole matrices."""
    m = np.array(stored, np.float64)
    upper, lower = (
        bool(np.any((half != 0) & ~np.isnan(half))) for half in (np.triu(m, 1), np.tril(m, -1))
    )
    if not (upper or lower):
        return None
    if upper and lower and declared in (Populated.UNKNOWN, Populated.ALL):
        off = np.where(np.eye(len(m)), 0.0, m)
        both = np.isfinite(off) & np.isfinite(off.T)
        differences = np.where(both, np.abs(np.nan_to_num(off) - np.nan_to_num(off.T)), 0.0)
        if differences.max() > 1e-5 * np.abs(off[np.isfinite(off)]).max():
            return (m + m.T) / 2
    if not upper or (lower and declared is Populated.LOWER):
        m = m.T
    return np.triu(m) + np.triu(m, 1).T


@given(
    st.integers(2, 12),
    st.sampled_from(list(HALVES)),
    st.sampled_from(list(Populated)),
    st.sampled_from([np.float32, np.float64, np.int32]),
    st.sampled_from([0.0, 1e-7, 0.25]),
    st.integers(1, 500),
    st.integers(0, 2**32 - 1),
)
def test_completion_does_not_depend_on_the_stretches(n, half, declared, kind, off, size, seed):
    rng = np.random.default_rng(seed)
    matrix = rng.integers(1, 9, (n, n)) * 1.0
    matrix = HALVES[half]((matrix + matrix.T) + off * rng.random((n, n))).astype(kind)
    if kind is not np.int32 and n > 3:
        matrix[2, :] = matrix[:, 2] = np.nan
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "STRETCH_BYTES", size)
        check_completion(matrix, declared)


def check_completion(matrix, declared):
    expected, found = completed_at_once(matrix, declared), complete(matrix, declared)
    if expected is None:
        assert found is None
        return
    assert found is not None
    full, asymmetry = found
    np.testing.assert_array_equal(full, expected)
    assert full.dtype == (np.float64 if asymmetry.significant else kept_precision(matrix.dtype))
    # In place, where the precision allows it.
    plan = examine(matrix, declared)
    if plan is not None and matrix.dtype == plan.dtype:
        plan.fill(matrix)
        np.testing.assert_array_equal(matrix, expected)


def test_place_of_the_largest_difference(few_rows):
    matrix = SAMPLE.c2[0].copy()
    matrix[11, 4] += 0.5
    matrix[3, 9] += 0.25
    matrix[8, 8] = 90.0
    matrix[2, 14] = np.inf
    _, asymmetry = complete(matrix)
    assert (asymmetry.row, asymmetry.column) == (4, 11)
    assert asymmetry.difference == pytest.approx(0.5)
    off = matrix[~np.eye(16, dtype=bool)]
    assert asymmetry.scale == off[np.isfinite(off)].max()


@pytest.mark.parametrize(
    ("stored", "kept"),
    [("f2", "f4"), ("f4", "f4"), (">f4", "f4"), ("f8", "f8"), ("i4", "f8"), ("u1", "f8")],
)
def test_float32_is_kept_where_it_is_exact(stored, kept):
    assert kept_precision(np.dtype(stored)) == np.dtype(kept)


def test_float32_file_is_the_float64_file(tmp_path, few_rows):
    single, double = tmp_path / "a.h5", tmp_path / "b.npz"
    layouts.write_generic(single)
    with h5py.File(single, "r+") as file:
        c2 = file["c2"][()]
        del file["c2"]
        file["c2"] = c2.astype(np.float32)
    layouts.write_npz(double)
    one, other = open_two_time(single).load(), open_two_time(double).load()
    assert (one.c2.dtype, other.c2.dtype) == (np.float32, np.float64)
    np.testing.assert_array_equal(one.c2, other.c2)
    assert one.diagonal_is_raw is other.diagonal_is_raw is True
    used = np.ones(16, bool)
    assert [levels(m, used) for m in one.c2] == [levels(m, used) for m in other.c2]
    found = [[f for f in assess(data) if f.code != "dt_given"] for data in (one, other)]
    assert found[0] == found[1]


def test_a_shifted_baseline_keeps_its_digits(tmp_path):
    path = layouts.write_nexus(tmp_path / "a", baseline=0)
    with h5py.File(path, "r+") as file:
        name = "entry/twotime/two_time_corr_func"
        values, attributes = file[name][()].astype(np.float32), dict(file[name].attrs)
        del file[name]
        file[name] = values
        file[name].attrs.update(attributes)
    data = open_two_time(path).load()
    assert data.c2.dtype == np.float64
    np.testing.assert_array_equal(data.c2, values.astype(np.float64) + 1.0)


def test_the_mean_of_two_halves_is_float64(tmp_path):
    c2 = SAMPLE.c2[:2].astype(np.float32)
    c2[1, 3, 9] += np.float32(0.125)
    layouts.write_npz(tmp_path / "a", c2=c2, phi=SAMPLE.phi[:2], q=0.01)
    file = open_two_time(tmp_path / "a")
    assert file.load([0]).c2.dtype == np.float32
    data = file.load(asymmetric="average")
    assert data.c2.dtype == np.float64
    np.testing.assert_array_equal(data.c2[0], c2[0])
    assert data.c2[1, 9, 3] == np.mean([c2[1, 3, 9], c2[1, 9, 3]], dtype=np.float64)


def test_values_that_are_not_finite_are_found_in_any_row(few_rows):
    c2 = SAMPLE.c2.astype(np.float32)
    c2[:, range(16), range(16)] = np.nan
    c2[2, 5, :] = c2[2, :, 5] = np.inf
    data = replace(from_arrays(SAMPLE.c2, q=0.01, phi=SAMPLE.phi, t=SAMPLE.t), c2=c2)
    with pytest.raises(DataError, match=r"bin 3 .* is not finite in frames 6"):
        exclude_frames(data, ())
    left = exclude_frames(data, [6])
    assert left.c2.dtype == np.float32
    finite = np.isfinite(c2)
    np.testing.assert_array_equal(left.c2[finite], c2[finite])
    assert (left.c2[~finite] == 0).all()
    (finding,) = (f for f in left.findings if f.code == "nan_replaced")
    assert finding.text.startswith(f"{np.count_nonzero(~finite)} values")
    assert np.isnan(c2[0, 0, 0])


def test_outlier_frames_do_not_depend_on_the_stretches(monkeypatch):
    rng = np.random.default_rng(0)
    t = 0.1 * np.arange(1, 61)
    noise = np.triu(rng.normal(0, 0.02, (60, 60)), 1)
    c2 = 1 + 0.4 * np.exp(-np.abs(np.subtract.outer(t, t))) + noise + noise.T
    c2[30] *= 1.1
    c2[:, 30] *= 1.1
    data = from_arrays(c2, q=0.01, dt=0.1, bad_frames=[3])
    expected = outlier_frames(data)
    assert expected.tolist() == [31]
    monkeypatch.setattr(rows, "STRETCH_BYTES", 8 * 60 * 7)
    assert outlier_frames(data).tolist() == [31]


@pytest.mark.parametrize("half", HALVES)
def test_written_files_do_not_depend_on_the_stretches(tmp_path, few_rows, half):
    c2 = HALVES[half](SAMPLE.c2[0])[None].astype(np.float32)
    path = write_layout_a(tmp_path / "a", c2, q_axis=[0.01], phi_axis=[0.0], frame_time=0.1)
    np.testing.assert_array_equal(open_two_time(path).load().c2, SAMPLE.c2[:1])


def test_diagonals_are_judged_alike_in_both_precisions():
    c2 = SAMPLE.c2
    beside = np.diagonal(c2, 1, 1, 2)
    for diagonal in (np.diagonal(c2, 0, 1, 2), 1.0, np.append(beside, beside[:, -1:], axis=1)):
        c2[:, range(16), range(16)] = diagonal
        assert diagonal_is_raw(c2.astype(np.float32)) == diagonal_is_raw(c2)


def test_arrays_of_the_caller_are_not_changed():
    c2 = np.triu(SAMPLE.c2[0])
    file = file_from_arrays(c2, q=0.01, dt=0.25)
    np.testing.assert_array_equal(file.load().c2[0], SAMPLE.c2[0])
    np.testing.assert_array_equal(c2, np.triu(SAMPLE.c2[0]))
    # A file in memory can be read again.
    np.testing.assert_array_equal(file.load().c2[0], SAMPLE.c2[0])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("n_matrices", [1, 2])
def test_reading_needs_room_for_its_matrices(tmp_path, monkeypatch, n_matrices, kind):
    n = 1000
    monkeypatch.setattr(rows, "STRETCH_BYTES", 2**16)
    with h5py.File(tmp_path / "a", "w") as stream:
        stream["c2"] = np.ones((n_matrices, n, n), kind)
    file = open_two_time(tmp_path / "a", dt=0.1, keys={"c2": "c2", "q": 0.01})
    size = n**2 * np.dtype(kind).itemsize
    tracemalloc.start()
    try:
        data = exclude_frames(file.load(), ())
        assess(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert data.c2.nbytes == n_matrices * size
    # A single matrix is completed in place; of several one more is held.
    assert peak < (1.0 if n_matrices == 1 else n_matrices + 1.0) * size + 3e6
