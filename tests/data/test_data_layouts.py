"""Every layout leads to the same data."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import h5py
import layouts
import numpy as np
import pytest
from layouts import LAYOUT_OF, SAMPLE, WRITERS

from heterodyne._errors import DataError
from heterodyne.data import open_two_time

# boost_corr and xpcs-eigen write float32, the other samples float64.
STORED_AS_FLOAT32 = ("aps_u", "data_exchange")


def assert_is_sample(data, s=SAMPLE):
    np.testing.assert_allclose(data.c2, s.c2, rtol=0, atol=3e-7)
    np.testing.assert_array_equal(data.c2, data.c2.transpose(0, 2, 1))
    np.testing.assert_allclose([b.q for b in data.bins], s.q, rtol=1e-12)
    np.testing.assert_allclose(data.phi, s.phi, rtol=1e-12)
    np.testing.assert_allclose(data.t, s.t, rtol=1e-12)
    assert data.dt == pytest.approx(s.dt, rel=1e-12)
    assert data.frames.tolist() == list(range(1, s.N + 1))
    assert data.diagonal_is_raw is True
    assert data.frame_mask.all()


@pytest.mark.parametrize("kind", WRITERS)
def test_layouts_agree_whatever_the_name_of_the_file(tmp_path, kind):
    path = WRITERS[kind](tmp_path / "measurement.dat")
    file = open_two_time(path)
    assert file.layout == LAYOUT_OF.get(kind, kind)
    assert file.n_frames == SAMPLE.N
    data = file.load()
    assert_is_sample(data)
    assert data.c2.dtype == (np.float32 if kind in STORED_AS_FLOAT32 else np.float64)
    assert data.provenance.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert data.provenance.path == str(path)


@pytest.mark.parametrize("kind", WRITERS)
def test_input_is_read_only_and_stays_as_it_was(tmp_path, kind):
    path = WRITERS[kind](tmp_path / "data")
    path.chmod(0o444)
    before = path.read_bytes(), path.stat().st_mtime_ns
    opened = []
    original = h5py.File.__init__

    def watch(self, name, mode="r", *args, **kwargs):
        opened.append(mode)
        original(self, name, mode, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(h5py.File, "__init__", watch)
        open_two_time(path).load([0, 2])
    assert set(opened) <= {"r"}
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("frames", [(1, 16), (3, 9), (15, 16)])
def test_some_matrices_and_a_window(tmp_path, kind, frames):
    data = open_two_time(WRITERS[kind](tmp_path / "data")).load([7, 2], frames=frames)
    cut = slice(frames[0] - 1, frames[1])
    np.testing.assert_allclose(data.c2, SAMPLE.c2[[7, 2], cut, cut], atol=3e-7)
    np.testing.assert_allclose([b.q for b in data.bins], SAMPLE.q[[7, 2]])
    np.testing.assert_allclose(data.t, SAMPLE.t[cut])
    assert data.frames.tolist() == list(range(frames[0], frames[1] + 1))


class TestApsU:
    def test_empty_cells_shift_labels_against_the_grid(self, tmp_path):
        bins = open_two_time(layouts.write_aps_u(tmp_path / "a")).bins
        assert [b.label for b in bins] == list(range(1, 10))
        for one, cell in zip(bins, SAMPLE.cells, strict=True):
            row, column = divmod(int(cell), 4)
            assert (one.q, one.phi) == (SAMPLE.q_axis[row], SAMPLE.phi_axis[column])

    def test_label_minus_one_would_be_wrong_on_this_file(self, tmp_path):
        bins = open_two_time(layouts.write_aps_u(tmp_path / "a")).bins
        naive_q = SAMPLE.q_axis[[(b.label - 1) // 4 for b in bins]]
        naive_phi = SAMPLE.phi_axis[[(b.label - 1) % 4 for b in bins]]
        wrong_q = np.abs(naive_q / [b.q for b in bins] - 1) > 0.05
        assert wrong_q.mean() > 0.3
        assert np.mean(naive_phi != [b.phi for b in bins]) > 0.8

    def test_kth_key_belongs_to_kth_processed_bin(self, tmp_path):
        path = layouts.write_aps_u(tmp_path / "a")
        labels = [9, 2, 5, 1, 3, 4, 8, 6, 7]
        with h5py.File(path, "r+") as f:
            f["/xpcs/twotime/processed_bins"][...] = labels
        data = open_two_time(path).load()
        assert [b.label for b in data.bins] == labels
        np.testing.assert_allclose([b.q for b in data.bins], SAMPLE.q[np.array(labels) - 1])
        np.testing.assert_allclose(data.c2[0], SAMPLE.c2[0])

    @pytest.mark.parametrize("unit", ["1/nm", "nm^-1", "nm⁻¹", "nm-1", " 1/NM ", "nm^{-1}"])
    def test_inverse_nanometres_are_converted(self, tmp_path, unit):
        path = layouts.write_aps_u(tmp_path / "a", unit=unit)
        np.testing.assert_allclose([b.q for b in open_two_time(path).bins], SAMPLE.q)

    @pytest.mark.parametrize(
        "unit", ["1/Å", "Å^-1", "Å⁻¹", "\u212b-1", "1/A", "A^-1", "Angstrom^-1"]
    )
    def test_inverse_angstroms_in_any_spelling(self, tmp_path, unit):
        path = layouts.write_aps_u(tmp_path / "a", unit=unit)
        np.testing.assert_allclose([b.q for b in open_two_time(path).bins], SAMPLE.q)

    def test_phi_may_be_the_first_axis(self, tmp_path):
        path = layouts.write_aps_u(tmp_path / "a")
        with h5py.File(path, "r+") as f:
            qmap = f["/xpcs/qmap"]
            q, phi = qmap["dynamic_v_list_dim0"][()], qmap["dynamic_v_list_dim1"][()]
            for name, value in {
                "dynamic_v_list_dim0": phi,
                "dynamic_v_list_dim1": q,
                "dynamic_num_pts": [4, 3],
                "map_names": [b"phi", b"q"],
                "map_units": [b"deg", b"1/A"],
            }.items():
                del qmap[name]
                qmap[name] = value
        bins = open_two_time(path).bins
        assert [(b.q, b.phi) for b in bins] == [
            (SAMPLE.q_axis[m % 3], SAMPLE.phi_axis[m // 3]) for m in SAMPLE.cells
        ]

    @pytest.mark.parametrize(("stride", "avg", "begin"), [(1, 1, 1), (1, 1, 101), (2, 3, 5)])
    def test_times_are_the_means_of_the_frames_averaged(self, tmp_path, stride, avg, begin):
        path = layouts.write_aps_u(tmp_path / "a")
        with h5py.File(path, "r+") as f:
            for name, value in (("stride", stride), ("avg", avg), ("begin", begin)):
                f[f"/xpcs/twotime/config/{name}_frame"][...] = value
        file = open_two_time(path)
        assert file.dt == pytest.approx(SAMPLE.dt * stride * avg)
        used = begin + stride * np.arange(SAMPLE.N * avg)
        np.testing.assert_allclose(file.t, (used * SAMPLE.dt).reshape(SAMPLE.N, avg).mean(axis=1))
        assert file.details["begin_frame"] == begin
        assert file.details["time_origin"] == "absolute"

    def test_dt_by_hand_settles_the_frame_time(self, tmp_path):
        path = layouts.write_aps_u(tmp_path / "a")
        with h5py.File(path, "r+") as f:
            del f["/entry/instrument/detector_1/frame_time"]
            f["/xpcs/twotime/config/avg_frame"][...] = 2
        file = open_two_time(path, dt=0.5)
        np.testing.assert_allclose(file.t, 0.25 * 1.5 + 0.5 * np.arange(SAMPLE.N))


@pytest.mark.parametrize("write", [layouts.write_aps_u, layouts.write_data_exchange])
def test_matrices_are_paired_by_number_not_by_text(tmp_path, write):
    s = layouts.many_bins()
    path = write(tmp_path / "data", s, digits=1)
    with h5py.File(path) as f:
        group = next(f[n] for n in ("/xpcs/twotime/correlation_map", "/exchange/C2T_all") if n in f)
        assert [name[-2:] for name in group][:4] == ["_1", "10", "11", "12"]
    assert_is_sample(open_two_time(path).load(), s)


def test_regions_of_chx_are_paired_by_number_not_by_text(tmp_path):
    s = layouts.many_bins()
    data = open_two_time(layouts.write_chx(tmp_path / "data", s)).load()
    assert [b.label for b in data.bins] == list(range(12))
    assert_is_sample(data, s)


def test_number_in_data_exchange_is_the_bin(tmp_path):
    path = layouts.write_data_exchange(tmp_path / "data")
    with h5py.File(path, "r+") as f:
        for k in (1, 2, 4):
            del f[f"/exchange/C2T_all/g2_{k:05d}"]
        f["/xpcs/avg_frames"][...] = 4
    file = open_two_time(path)
    assert [b.label for b in file.bins] == [3, 5, 6, 7, 8, 9]
    np.testing.assert_allclose([b.q for b in file.bins], SAMPLE.q[[2, 4, 5, 6, 7, 8]])
    assert file.dt == SAMPLE.dt * 4


def test_chx_takes_the_acquire_period_and_regions_without_angle(tmp_path):
    path = layouts.write_chx(tmp_path / "data", time_name="acquire period")
    with h5py.File(path, "r+") as f:
        for k, q in enumerate(SAMPLE.q):
            f["qval_dict"].attrs[str(k)] = [q]
    file = open_two_time(path)
    assert file.dt == SAMPLE.dt
    assert {b.phi for b in file.bins} == {None}
    assert np.isnan(file.load([0]).phi).all()


@pytest.mark.parametrize("storage", ["one_array_q_first", "one_array_q_last", "data_exchange_keys"])
@pytest.mark.parametrize("origin", ["upper_left", "lower_left"])
@pytest.mark.parametrize("populated", ["all", "upper_half", "lower_half"])
@pytest.mark.parametrize("baseline", [0, 1])
def test_nexus_attributes(tmp_path, storage, origin, populated, baseline):
    path = layouts.write_nexus(
        tmp_path / "data", storage=storage, origin=origin, populated=populated, baseline=baseline
    )
    file = open_two_time(path)
    assert_is_sample(file.load())
    assert file.details["energy_keV"] == pytest.approx(10.92)
    window = file.load([4], frames=(2, 5))
    np.testing.assert_allclose(window.c2[0], SAMPLE.c2[4, 1:5, 1:5], atol=3e-7)


def test_nexus_attribute_decides_where_both_halves_hold_values(tmp_path):
    path = layouts.write_nexus(tmp_path / "data", populated="upper_half")
    with h5py.File(path, "r+") as f:
        stored = f["entry/twotime/two_time_corr_func"]
        stored[...] += np.tril(np.full((SAMPLE.N, SAMPLE.N), 99.0), -1)
    assert_is_sample(open_two_time(path).load())


def test_nexus_without_detector_names_or_angles(tmp_path):
    path = layouts.write_nexus(tmp_path / "data")
    with h5py.File(path, "r+") as f:
        f.move("entry/instrument", "entry/beamline")
        f["entry/beamline"].attrs["NX_class"] = "NXinstrument"
        f.move("entry/beamline/detector_1", "entry/beamline/eiger")
        del f["entry/beamline/masks/dynamic_phi_list"]
        f.move("entry", "scan_4")
    file = open_two_time(path)
    assert file.dt == pytest.approx(SAMPLE.dt)
    assert file.bins[0].phi is None


class TestPlain:
    def test_keys_name_arrays_or_give_values(self, tmp_path):
        names = {"c2": "run/map", "t": "run/clock", "phi": "run/chi", "q": "run/k"}
        path = layouts.write_generic(tmp_path / "data", names=names)
        assert_is_sample(open_two_time(path, keys=names).load())
        given = open_two_time(path, keys={**names, "q": 0.005, "phi": SAMPLE.phi.tolist()})
        assert given.load().q == 0.005

    def test_time_axis_may_start_at_zero_and_wins(self, tmp_path):
        t = SAMPLE.t - SAMPLE.t[0]
        file = open_two_time(layouts.write_npz(tmp_path / "data", t=t, dt=np.float64(SAMPLE.dt)))
        np.testing.assert_array_equal(file.t, t)
        assert (file.details["time_origin"], file.details["t_first"]) == ("file", 0.0)
        data = file.load([0])
        assert data.fitted.tolist() == [False] + [True] * (SAMPLE.N - 1)
        assert data.unique_pairs == (SAMPLE.N - 1) * (SAMPLE.N - 2) // 2

    @pytest.mark.parametrize("indexing", ["ij", "xy"])
    def test_grids_of_time_in_either_order(self, tmp_path, indexing):
        t1, t2 = np.meshgrid(SAMPLE.t, SAMPLE.t, indexing=indexing)
        assert_is_sample(open_two_time(layouts.write_cache(tmp_path / "d", t1=t1, t2=t2)).load())

    def test_single_matrix_and_single_q(self, tmp_path):
        path = layouts.write_npz(tmp_path / "data", c2=SAMPLE.c2[0], q=0.004, phi=[30.0])
        data = open_two_time(path).load(frames=(2, 6))
        np.testing.assert_allclose(data.c2[0], SAMPLE.c2[0, 1:6, 1:6])
        assert (data.q, data.phi.tolist()) == (0.004, [30.0])

    def test_dt_in_the_file_that_contradicts_its_times_is_reported(self, tmp_path):
        data = open_two_time(layouts.write_npz(tmp_path / "data", dt=np.array(0.3))).load()
        (finding,) = data.findings
        assert finding.code == "dt_contradicts_times"
        assert "0.3 s" in finding.text
        assert "0.25 s" in finding.text

    def test_pickled_extras_are_left_alone(self, tmp_path):
        path = layouts.write_npz(tmp_path / "data", config=np.array([{"a": 1}], dtype=object))
        assert_is_sample(open_two_time(path).load())

    def test_hdf5_behind_a_user_block(self, tmp_path):
        path = tmp_path / "data"
        with h5py.File(path, "w", userblock_size=1024) as f:
            for name in ("c2", "t", "phi", "q"):
                f[name] = getattr(SAMPLE, name)
        assert_is_sample(open_two_time(path).load())


def test_dt_that_agrees_is_accepted_and_the_files_kept(tmp_path):
    file = open_two_time(layouts.write_aps_u(tmp_path / "a"), dt=SAMPLE.dt * (1 + 1e-6))
    assert file.dt == SAMPLE.dt


def test_layout_by_name(tmp_path):
    path = layouts.write_aps_u(tmp_path / "a")
    assert_is_sample(open_two_time(path, layout="aps_u").load())
    with pytest.raises(DataError, match=r"g12b is missing"):
        open_two_time(path, layout="chx")
    with pytest.raises(DataError, match=r"'hdf'.*aps_u, data_exchange, chx, nexus, plain"):
        open_two_time(path, layout="hdf")


@pytest.mark.parametrize("frames", [(1, 150), (20, 147)])
@pytest.mark.parametrize("origin", ["upper_left", "lower_left"])
def test_long_series_with_q_last(tmp_path, frames, origin):
    s = replace(SAMPLE, cells=np.array([3, 5, 6]), N=150)
    cut = slice(frames[0] - 1, frames[1])
    nexus = layouts.write_nexus(tmp_path / "n", s, storage="one_array_q_last", origin=origin)
    for path in (nexus, layouts.write_chx(tmp_path / "c", s)):
        data = open_two_time(path).load([2, 0], frames=frames)
        np.testing.assert_array_equal(data.c2, s.c2[[2, 0], cut, cut])


def test_size_of_the_map_does_not_matter(tmp_path):
    s = replace(SAMPLE, cells=np.array([11]), N=4)
    data = open_two_time(layouts.write_aps_u(tmp_path / "a", s)).load()
    np.testing.assert_allclose(data.c2, s.c2)
    assert (data.q, data.phi[0]) == (0.009, 120.0)
