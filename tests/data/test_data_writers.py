"""Writing the APS-U layout."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layouts import SAMPLE

from heterodyne._errors import DataError
from heterodyne.data import open_two_time, write_layout_a

GRID = {"q_axis": SAMPLE.q_axis, "phi_axis": SAMPLE.phi_axis, "frame_time": 0.25}


def test_what_is_written_is_read_back(tmp_path):
    path = write_layout_a(
        tmp_path / "a.h5",
        SAMPLE.c2,
        cells=SAMPLE.cells,
        avg_frame=2,
        begin_frame=11,
        energy_kev=10.9,
        **GRID,
    )
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]
    file = open_two_time(path)
    data = file.load()
    np.testing.assert_array_equal(data.c2, SAMPLE.c2)
    np.testing.assert_array_equal([b.q for b in data.bins], SAMPLE.q)
    np.testing.assert_array_equal(data.phi, SAMPLE.phi)
    assert data.dt == 0.5
    assert data.t[0] == pytest.approx(11.5 * 0.25)
    assert (file.details["energy_keV"], file.details["end_frame"]) == (10.9, 42)


def test_form_is_that_of_boost_corr(tmp_path):
    with h5py.File(write_layout_a(tmp_path / "a", SAMPLE.c2, cells=SAMPLE.cells, **GRID)) as f:
        matrix = f["/xpcs/twotime/correlation_map/c2_00002"]
        assert (matrix.dtype, matrix.compression) == (np.float32, "lzf")
        np.testing.assert_array_equal(matrix[()], np.triu(SAMPLE.c2[1]).astype(np.float32))
        assert f["/xpcs/twotime/processed_bins"].compression == "lzf"
        assert f["/xpcs/qmap/map_names"].asstr()[()].tolist() == ["q", "phi"]
        assert f["/xpcs/qmap/dynamic_index_mapping"][()].tolist() == SAMPLE.cells.tolist()
        assert f["/xpcs/qmap/dynamic_num_pts"][()].tolist() == [3, 4]
        assert f["/entry/instrument/detector_1/frame_time"].attrs["units"] == "s"
        assert "/entry/schema_version" in f


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_empty_cells_and_any_order_of_labels(tmp_path, data):
    nq, nphi = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    cells = sorted(data.draw(st.sets(st.integers(0, nq * nphi - 1), min_size=1)))
    labels = data.draw(st.permutations(range(1, len(cells) + 1)))
    labels = labels[: data.draw(st.integers(1, len(labels)))]
    q_axis, phi_axis = 0.001 * np.arange(1, nq + 1), 10.0 * np.arange(nphi)
    c2 = np.array([np.full((3, 3), float(label)) for label in labels])
    path = write_layout_a(
        tmp_path / "a",
        c2,
        q_axis=q_axis,
        phi_axis=phi_axis,
        frame_time=0.1,
        cells=cells,
        labels=labels,
        overwrite=True,
    )
    read = open_two_time(path).load()
    assert [b.label for b in read.bins] == list(labels)
    for one, matrix in zip(read.bins, read.c2, strict=True):
        iq, iphi = divmod(cells[one.label - 1], nphi)
        assert (one.q, one.phi) == (q_axis[iq], phi_axis[iphi])
        assert (matrix == one.label).all()


def test_upper_triangle_is_enough(tmp_path):
    path = write_layout_a(tmp_path / "a", np.triu(SAMPLE.c2), cells=SAMPLE.cells, **GRID)
    np.testing.assert_array_equal(open_two_time(path).load().c2, SAMPLE.c2)


def test_existing_file_is_kept_unless_told_otherwise(tmp_path):
    path = tmp_path / "a"
    path.write_text("mine")
    with pytest.raises(DataError, match=f"{path}: the file exists"):
        write_layout_a(path, SAMPLE.c2, cells=SAMPLE.cells, **GRID)
    assert path.read_text() == "mine"
    write_layout_a(path, SAMPLE.c2, cells=SAMPLE.cells, overwrite=True, **GRID)
    assert open_two_time(path).n_frames == 16


def test_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("heterodyne.data.writers._write_entry", fail)
    with pytest.raises(OSError, match="disk full"):
        write_layout_a(tmp_path / "a", SAMPLE.c2, cells=SAMPLE.cells, **GRID)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"cells": range(8)}, r"labels are \[1, 2, 3, 4, 5, 6, 7, 8, 9\].*1 to 8"),
        ({"cells": [*range(8), 12]}, r"cells are .*12\].*0 to 11"),
        ({"cells": [0] * 9}, "each once"),
        ({"labels": [1, 2]}, r"2 labels for c2 of shape \(9, 16, 16\)"),
        ({"frame_time": 0.0}, "frame_time is 0.0 s"),
        ({"avg_frame": 0}, "avg_frame is 0"),
        ({"c2": np.ones((3, 4))}, r"c2 has shape \(3, 4\)"),
        ({"c2": np.arange(36.0).reshape(1, 6, 6)}, "label 1 differ by up to 25"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path, changes, text):
    arguments = {"c2": SAMPLE.c2, **GRID} | changes
    with pytest.raises(DataError, match=text):
        write_layout_a(tmp_path / "a", **arguments)
    with pytest.raises(DataError, match="folder does not exist"):
        write_layout_a(tmp_path / "no" / "a", SAMPLE.c2, **GRID)
