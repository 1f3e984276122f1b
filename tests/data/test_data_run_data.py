import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
from layouts import SAMPLE, write_aps_u, write_generic, write_npz

from heterodyne._errors import DataError
from heterodyne.config.load import check_run_config
from heterodyne.data.run_data import describe_data, describe_source, read_run_data
from heterodyne.data.truth import add_truth, read_truth
from heterodyne.data.writers import write_layout_a

LONG = replace(SAMPLE, N=60)


@pytest.fixture
def path(tmp_path):
    return write_aps_u(tmp_path / "a.hdf", LONG)


def config(path, *, q=0.006, **sections):
    analyzer = {"scattering": {"wavevector_q": q}} | sections.pop("analyzer", {})
    source = {"file_path": str(path)} | sections.pop("source", {})
    return check_run_config(
        {"experimental_data": source, "analyzer_parameters": analyzer} | sections
    )


def labels(data):
    return [one.label for one in data.bins]


def test_a_bare_run_file_takes_all_angles_and_frames_of_its_q(path):
    data = read_run_data(config(path))
    assert data.q == 0.006
    assert labels(data) == [3, 4, 5]
    assert (data.n_frames, data.t[0], data.dt) == (60, 0.25, 0.25)
    assert np.array_equal(data.c2, LONG.c2[2:5])


def test_q_and_its_tolerance_act(path):
    assert labels(read_run_data(config(path, q=0.004))) == [1, 2]
    with pytest.raises(DataError, match=r"up to 2\.00%"):
        read_run_data(config(path, q=0.0063))
    wide = {"scattering": {"wavevector_q": 0.0063, "q_tolerance": 0.1}}
    assert labels(read_run_data(config(path, analyzer=wide))) == [3, 4, 5]


def test_frames_act(path):
    window = {"start_frame": 5, "end_frame": 50, "bad_frames": [7, 9]}
    analyzer = window | {"scattering": {"wavevector_q": 0.006}}
    data = read_run_data(config(path, analyzer=analyzer))
    assert (data.frames[0], data.frames[-1], data.t[0]) == (5, 50, 1.25)
    assert data.frames[~data.fitted].tolist() == [7, 9]


def test_time_origin_acts(path):
    analyzer = {"start_frame": 5, "time_origin": "window", "scattering": {"wavevector_q": 0.006}}
    data = read_run_data(config(path, analyzer=analyzer))
    assert data.t[0] == data.dt
    assert describe_data(data)["time_origin"] == "window"


def test_angles_act(path):
    arcs = [{"min_angle": -70, "max_angle": -50}]
    data = read_run_data(config(path, phi_filtering={"target_ranges": arcs}))
    assert data.phi.tolist() == [-60.0]
    all_of_them = {"enabled": False, "target_ranges": arcs}
    assert len(read_run_data(config(path, phi_filtering=all_of_them)).bins) == 3


def test_dt_acts_where_the_file_has_none_and_is_compared_where_it_has(path, tmp_path):
    bare = write_npz(tmp_path / "a.npz", LONG, t=None)
    with pytest.raises(DataError, match="time between frames"):
        read_run_data(config(bare))
    analyzer = {"dt": 0.5, "scattering": {"wavevector_q": 0.006}}
    assert read_run_data(config(bare, analyzer=analyzer)).t[1] == 1.0
    with pytest.raises(DataError, match=r"0\.5 s .* contradicts 0\.25 s"):
        read_run_data(config(path, analyzer=analyzer))


def test_keys_and_layout_act(tmp_path):
    path = write_generic(tmp_path / "a.h5", LONG, names={"c2": "maps", "q": "k"})
    with pytest.raises(DataError):
        read_run_data(config(path))
    keys = {"c2": "maps", "q": "k", "t": "t", "phi": "phi"}
    data = read_run_data(config(path, source={"keys": keys}))
    assert np.array_equal(data.c2, LONG.c2[2:5])
    with pytest.raises(DataError, match="chx"):
        read_run_data(config(path, source={"keys": keys, "layout": "chx"}))


def test_asymmetric_acts(tmp_path):
    c2 = LONG.c2
    c2[:, 0, 1] += 0.1
    path = write_npz(tmp_path / "a.npz", LONG, c2=c2)
    with pytest.raises(DataError, match="halves"):
        read_run_data(config(path))
    data = read_run_data(config(path, source={"asymmetric": "average"}))
    assert np.allclose(data.c2[:, 0, 1], LONG.c2[2:5, 0, 1] + 0.05)


def test_data_that_cannot_be_fitted_are_refused_with_advice(tmp_path):
    path = write_npz(tmp_path / "a.npz", LONG, phi=None)
    with pytest.raises(DataError, match=r"a\.npz: No angle is known.*Supply phi"):
        read_run_data(config(path))
    found = read_run_data(config(path), strict=False).findings
    assert "angle_missing" in [one.code for one in found]


def test_one_angle_that_is_not_known_is_no_error(tmp_path):
    one = replace(LONG, cells=np.array([4]))
    data = read_run_data(config(write_npz(tmp_path / "a.npz", one, phi=None)))
    assert [x.severity for x in data.findings if x.code == "angle_missing"] == ["warning"]


def test_description_is_plain_and_complete(path):
    analyzer = {"bad_frames": [3], "scattering": {"wavevector_q": 0.006}}
    data = read_run_data(config(path, analyzer=analyzer))
    facts = json.loads(json.dumps(describe_data(data), allow_nan=False))
    assert facts["unique_pairs"] == 3 * (59 * 58 // 2)
    assert (facts["n_frames"], facts["n_fitted_frames"]) == (60, 59)
    assert facts["bins"][0] == {"label": 3, "q": 0.006, "phi": -150.0}
    assert (facts["q"], facts["dt"], facts["t_first"], facts["t_last"]) == (0.006, 0.25, 0.25, 15.0)
    assert facts["findings"][0].keys() == {"code", "severity", "text", "advice"}
    source = json.loads(json.dumps(describe_source(data)))
    assert (source["path"], source["layout"]) == (str(path), "aps_u")
    assert len(source["sha256"]) == 64


def test_truth_beside_data_is_read_back_and_passed_over(tmp_path):
    path = write_layout_a(
        tmp_path / "a.h5", LONG.c2[:2], q_axis=[0.006], phi_axis=[0.0, 90.0], frame_time=0.25
    )
    plain = read_run_data(config(path))
    add_truth(path, {"D0_ref": 1e4, "beta": -0.25}, {"noise": "speckles", "seed": 3})
    assert read_truth(path) == {"D0_ref": 1e4, "beta": -0.25}
    with h5py.File(path) as file:
        assert file["/simulation"].attrs["noise"] == "speckles"
    assert np.array_equal(read_run_data(config(path)).c2, plain.c2)


def test_a_file_without_truth_is_named(path, tmp_path):
    with pytest.raises(DataError, match=r"a\.hdf: there is no /simulation"):
        read_truth(path)
    with pytest.raises(DataError, match=r"nowhere\.h5: the file cannot be read"):
        read_truth(tmp_path / "nowhere.h5")
