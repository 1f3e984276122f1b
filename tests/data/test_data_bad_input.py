"""Files that cannot be used are refused by name and value."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import layouts
import numpy as np
import pytest
from layouts import SAMPLE, WRITERS

from heterodyne._errors import DataError
from heterodyne.data import from_arrays, open_two_time

FRAME_TIME = "/entry/instrument/detector_1/frame_time"
MAPS = "/xpcs/twotime/correlation_map"


def refusal(path, *texts, **options):
    """The error of opening and loading; it names the file and every given text."""
    with pytest.raises(DataError) as caught:
        open_two_time(path, **options).load()
    for text in (str(path), *texts):
        assert text in str(caught.value)
    return caught.value


def edited(path: Path, changes: dict) -> Path:
    with h5py.File(path, "r+") as f:
        for name, value in changes.items():
            if name in f:
                del f[name]
            if value is not None:
                f[name] = value
    return path


REQUIRED = {
    "aps_u": [
        MAPS,
        "/xpcs/twotime/processed_bins",
        "/xpcs/twotime/config/stride_frame",
        "/xpcs/twotime/config/avg_frame",
        "/xpcs/twotime/config/begin_frame",
        "/xpcs/qmap/dynamic_v_list_dim0",
        "/xpcs/qmap/dynamic_v_list_dim1",
        "/xpcs/qmap/map_names",
        "/xpcs/qmap/map_units",
        "/xpcs/qmap/dynamic_num_pts",
        "/xpcs/qmap/dynamic_index_mapping",
        FRAME_TIME,
    ],
    "data_exchange": [
        "/exchange/C2T_all",
        "/xpcs/dqlist",
        "/xpcs/dphilist",
        "/xpcs/stride_frames",
        "/xpcs/avg_frames",
        "/measurement/instrument/detector/exposure_period",
    ],
    "chx": ["/g12b", "/qval_dict", "/md"],
    "nexus": [
        "/entry/twotime/two_time_corr_func",
        "/entry/instrument/masks/dynamic_q_list",
        "/entry/instrument/detector_1/frame_time",
    ],
    "generic": ["q"],
}


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, names in REQUIRED.items() for n in names])
def test_missing_path_is_named(tmp_path, kind, name):
    path = WRITERS[kind](tmp_path / "data")
    with h5py.File(path, "r+") as f:
        if name == "/exchange/C2T_all":
            f.create_group("/exchange/other")
        del f[name]
    options = {"layout": "chx"} if kind == "chx" else {}
    refusal(path, name, "missing", **options)


def test_missing_path_says_what_is_there_instead(tmp_path):
    path = edited(layouts.write_aps_u(tmp_path / "a"), {"/xpcs/qmap/dynamic_num_pts": None})
    refusal(path, "/xpcs/qmap holds", "dynamic_index_mapping")


@pytest.mark.parametrize("kind", ["chx", "npz"])
def test_missing_dt_is_refused_unless_given(tmp_path, kind):
    if kind == "chx":
        path = layouts.write_chx(tmp_path / "data", time_name="exposure")
    else:
        path = layouts.write_npz(tmp_path / "data", t=None)
    refusal(path, "missing", "analyzer_parameters.dt")
    file = open_two_time(path, dt=0.25)
    np.testing.assert_allclose(file.t, SAMPLE.t)
    assert file.details["dt_source"] == "the argument dt"


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_useless_dt_in_the_file_is_named(tmp_path, value):
    path = edited(layouts.write_aps_u(tmp_path / "a"), {FRAME_TIME: value})
    refusal(path, FRAME_TIME, f"is {value} s")
    assert open_two_time(path, dt=0.1).dt == 0.1


@pytest.mark.parametrize("kind", WRITERS)
def test_dt_that_contradicts_the_file_names_both(tmp_path, kind):
    path = WRITERS[kind](tmp_path / "data")
    text = str(refusal(path, "dt = 0.2503 s", "the argument dt", "0.25 s", dt=0.2503))
    assert any(name in text for name in ("frame_time", "exposure_period", "steps of t"))


@pytest.mark.parametrize("dt", [0.0, -0.1, np.inf, np.nan])
def test_dt_by_hand_must_be_positive(tmp_path, dt):
    with pytest.raises(DataError, match=f"dt is {dt} s"):
        open_two_time(layouts.write_aps_u(tmp_path / "a"), dt=dt)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9])
@pytest.mark.parametrize("kind", WRITERS)
def test_truncated_file(tmp_path, kind, share):
    path = WRITERS[kind](tmp_path / "data")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "\n" not in str(refusal(path))


def test_damaged_chunk(tmp_path):
    path = layouts.write_aps_u(tmp_path / "a")
    with h5py.File(path) as f:
        chunk = f[f"{MAPS}/c2_00003"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
    path.write_bytes(bytes(content))
    file = open_two_time(path)
    assert file.load([0, 1]).n_angles == 2
    with pytest.raises(DataError, match="cannot be read") as caught:
        file.load([2])
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", [f"{MAPS}/c2_00003", "/xpcs/qmap/dynamic_num_pts", "/xpcs"])
def test_damaged_header(tmp_path, name):
    path = layouts.write_aps_u(tmp_path / "a")
    with h5py.File(path) as f:
        address = h5py.h5o.get_info(f[name].id).addr
    content = bytearray(path.read_bytes())
    content[address : address + 16] = b"\xff" * 16
    path.write_bytes(bytes(content))
    refusal(path, "cannot be read")


def test_no_file(tmp_path):
    refusal(tmp_path / "absent.h5", "No such file")
    refusal(tmp_path, "directory")


def test_pickles_are_never_read(tmp_path):
    path = tmp_path / "data.npz"
    path.write_bytes(pickle.dumps({"c2": SAMPLE.c2}))
    refusal(path, "neither HDF5 nor .npz")
    np.savez(path, c2=np.array([{"a": 1}], dtype=object), q=0.1)
    refusal(path, "c2", "never unpickled")


def test_unknown_content_lists_what_is_there(tmp_path):
    path = tmp_path / "data"
    layouts.write_npz(path, c2=None, t=None, phi=None, q=None, picture=np.eye(3))
    refusal(path, "picture", "aps_u", "keys")
    with h5py.File(path, "w") as f:
        f["xpcs/qmap/x"] = 1
    refusal(path, "xpcs", "keys")


class TestShapes:
    def test_matrices_that_are_not_square(self, tmp_path):
        path = edited(layouts.write_aps_u(tmp_path / "a"), {f"{MAPS}/c2_00001": np.ones((16, 15))})
        refusal(path, f"{MAPS}/c2_00001", "(16, 15)", "(N, N)")

    def test_matrices_of_different_size(self, tmp_path):
        path = edited(layouts.write_aps_u(tmp_path / "a"), {f"{MAPS}/c2_00004": np.eye(12)})
        refusal(path, f"{MAPS}/c2_00004", "(12, 12)", "(16, 16)")

    def test_more_matrices_than_labels(self, tmp_path):
        path = edited(
            layouts.write_aps_u(tmp_path / "a"), {"/xpcs/twotime/processed_bins": [1, 2, 3]}
        )
        refusal(path, "processed_bins has 3", "9 matrices")

    @pytest.mark.parametrize("kind", ["chx", "nexus", "generic"])
    def test_stack_that_is_no_stack(self, tmp_path, kind):
        path = WRITERS[kind](tmp_path / "data")
        name = {"chx": "g12b", "nexus": "entry/twotime/two_time_corr_func", "generic": "c2"}[kind]
        with h5py.File(path, "r+") as f:
            attributes = dict(f[name].attrs)
            del f[name]
            f[name] = np.ones((4, 5, 6))
            f[name].attrs.update(attributes)
        refusal(path, name, "(4, 5, 6)", "N, N")

    @pytest.mark.parametrize("kind", ["nexus", "npz", "chx"])
    def test_another_number_of_q_than_of_matrices(self, tmp_path, kind):
        if kind == "npz":
            path = layouts.write_npz(tmp_path / "data", q=SAMPLE.q[:4])
        elif kind == "nexus":
            path = layouts.write_nexus(tmp_path / "data")
            edited(path, {"entry/instrument/masks/dynamic_q_list": SAMPLE.q[:4]})
        else:
            path = layouts.write_chx(tmp_path / "data")
            with h5py.File(path, "r+") as f:
                for k in range(4, 9):
                    del f["qval_dict"].attrs[str(k)]
        refusal(path, "(4,)", "(16, 16, 9)" if kind == "chx" else "(9, 16, 16)")

    def test_time_axis_of_another_length(self, tmp_path):
        refusal(layouts.write_npz(tmp_path / "data", t=SAMPLE.t[:-1]), "(15,)", "(9, 16, 16)")

    def test_time_grid_that_is_none(self, tmp_path):
        grid = np.random.default_rng(0).random((16, 16))
        refusal(layouts.write_cache(tmp_path / "data", t1=grid), "t1", "both directions")

    def test_different_axes(self, tmp_path):
        path = layouts.write_cache(tmp_path / "data", t2=SAMPLE.t + 1)
        refusal(path, "t1 and t2")

    def test_time_that_runs_back(self, tmp_path):
        refusal(layouts.write_npz(tmp_path / "data", t=SAMPLE.t[::-1]), "3.75 s", "position 2")

    def test_list_shorter_than_the_bins(self, tmp_path):
        path = edited(layouts.write_data_exchange(tmp_path / "d"), {"/xpcs/dqlist": [[0.1, 0.2]]})
        refusal(path, "/xpcs/dqlist", "bin 3", "2 entries")


class TestGeometry:
    @pytest.mark.parametrize("unit", ["1/m", "pixel", "nm", "1/µm", "deg"])
    def test_units_of_q_are_refused_by_name(self, tmp_path, unit):
        refusal(layouts.write_aps_u(tmp_path / "a", unit=unit), repr(unit), "map_units")

    def test_units_of_lists_are_refused_by_name(self, tmp_path):
        path = layouts.write_nexus(tmp_path / "data")
        with h5py.File(path, "r+") as f:
            f["entry/instrument/masks/dynamic_q_list"].attrs["units"] = "furlong"
        refusal(path, "'furlong'", "dynamic_q_list")

    def test_maps_of_other_axes_are_refused_by_name(self, tmp_path):
        path = layouts.write_aps_u(tmp_path / "a")
        edited(path, {"/xpcs/qmap/map_names": [b"x", b"y"], "/xpcs/qmap/map_units": [b"px", b"px"]})
        refusal(path, "map axes are x, y in px, px", "map_names", "q and phi")

    def test_label_outside_the_mapping(self, tmp_path):
        labels = [1, 2, 3, 4, 5, 6, 7, 8, 10]
        path = edited(layouts.write_aps_u(tmp_path / "a"), {"/xpcs/twotime/processed_bins": labels})
        refusal(path, "value 10", "1 to 9", "processed_bins")

    def test_cell_outside_the_grid(self, tmp_path):
        cells = [1, 2, 4, 5, 7, 8, 9, 10, 12]
        path = edited(
            layouts.write_aps_u(tmp_path / "a"), {"/xpcs/qmap/dynamic_index_mapping": cells}
        )
        refusal(path, "value 12", "0 to 11", "dynamic_index_mapping")

    def test_grid_that_is_not_that_of_the_axes(self, tmp_path):
        path = edited(layouts.write_aps_u(tmp_path / "a"), {"/xpcs/qmap/dynamic_num_pts": [4, 3]})
        refusal(path, "(4, 3)", "3 and 4 values")

    def test_q_that_is_no_q(self, tmp_path):
        refusal(layouts.write_npz(tmp_path / "data", q=SAMPLE.q * 0), "q = 0 1/Å", "bin 1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("storage_mode", "one_array"),
        ("baseline_reference", 2),
        ("time_origin_location", "lower_right"),
        ("populated_elements", "unknown"),
    ],
)
def test_nexus_attribute_of_unknown_value(tmp_path, name, value):
    path = layouts.write_nexus(tmp_path / "data")
    with h5py.File(path, "r+") as f:
        f["entry/twotime/two_time_corr_func"].attrs[name] = value
    refusal(path, name, f"{str(value)!r}", "two_time_corr_func", "Allowed")


def test_nexus_without_storage_mode(tmp_path):
    path = layouts.write_nexus(tmp_path / "data")
    with h5py.File(path, "r+") as f:
        del f["entry/twotime/two_time_corr_func"].attrs["storage_mode"]
    refusal(path, "storage_mode is missing", "one_array_q_first")


def test_averaging_that_is_no_number_of_frames(tmp_path):
    name = "/xpcs/twotime/config/avg_frame"
    refusal(edited(layouts.write_aps_u(tmp_path / "a"), {name: 0}), name, "value is 0")
    refusal(edited(tmp_path / "a", {name: [1, 2]}), name, "(2,)", "one value")
    refusal(edited(tmp_path / "a", {name: "two"}), name, "real numbers")


class TestAsymmetry:
    @staticmethod
    def write(tmp_path, size):
        c2 = SAMPLE.c2
        c2[3, 2, 9] += size
        return layouts.write_npz(tmp_path / "data", c2=c2)

    def test_is_refused_with_its_size_and_place(self, tmp_path):
        path = self.write(tmp_path, 0.125)
        error = refusal(path, "bin 4", "0.125", "frames 3 and 10", "asymmetric to average")
        assert error.exit_code == 2

    def test_is_averaged_on_request(self, tmp_path):
        data = open_two_time(self.write(tmp_path, 0.125)).load(asymmetric="average")
        assert data.c2[3, 2, 9] == data.c2[3, 9, 2] == pytest.approx(SAMPLE.c2[3, 2, 9] + 0.0625)
        (finding,) = data.findings
        assert (finding.code, finding.severity) == ("asymmetry_averaged", "warning")
        assert "0.125" in finding.text

    def test_rounding_is_no_asymmetry(self, tmp_path):
        data = open_two_time(self.write(tmp_path, 2e-6)).load()
        np.testing.assert_array_equal(data.c2, data.c2.transpose(0, 2, 1))
        assert data.findings == ()

    def test_frames_are_numbered_as_in_the_file(self, tmp_path):
        with pytest.raises(DataError, match="frames 3 and 10"):
            open_two_time(self.write(tmp_path, 0.125)).load(frames=(2, 12))
        assert open_two_time(self.write(tmp_path, 0.125)).load(frames=(4, 16)).findings == ()


def test_empty_matrix_is_named(tmp_path):
    c2 = SAMPLE.c2
    c2[5] = np.eye(SAMPLE.N)
    refusal(layouts.write_npz(tmp_path / "data", c2=c2), "bin 6", "no value off its diagonal")


@pytest.mark.parametrize("indices", [[9], [-1], []])
def test_matrices_that_do_not_exist(tmp_path, indices):
    with pytest.raises(DataError, match="0 to 8"):
        open_two_time(layouts.write_npz(tmp_path / "data")).load(indices)


def test_keys_that_mean_nothing(tmp_path):
    path = layouts.write_npz(tmp_path / "data")
    with pytest.raises(DataError, match=r"'theta'.*c2, t, t2, phi, q, dt"):
        open_two_time(path, keys={"theta": "phi"})
    refusal(path, "map is missing", keys={"c2": "map"})
    with pytest.raises(DataError, match="cannot be combined with the layout chx"):
        open_two_time(path, keys={"c2": "c2"}, layout="chx")


def test_arrays_that_do_not_fit():
    with pytest.raises(DataError, match=r"t has shape \(15,\), but c2 has shape \(9, 16, 16\)"):
        from_arrays(SAMPLE.c2, q=SAMPLE.q, phi=SAMPLE.phi, t=SAMPLE.t[1:])
    with pytest.raises(DataError, match="dt, is missing"):
        from_arrays(SAMPLE.c2, q=0.01)
    with pytest.raises(DataError, match=r"0.3 s.*0.25 s from the steps of t"):
        from_arrays(SAMPLE.c2, q=0.01, t=SAMPLE.t, dt=0.3)
    with pytest.raises(DataError, match=r"bins have q from 0.004 to 0.009"):
        _ = from_arrays(SAMPLE.c2, q=SAMPLE.q, dt=0.25).q
