"""What cannot be used is refused in one paragraph that says where, and nothing is written."""

import h5py
import numpy as np
import pytest

MAP = "/xpcs/twotime/correlation_map/c2_00001"


def plain(path, **changes):
    lag = np.abs(np.subtract.outer(np.arange(30), np.arange(30)))
    arrays = {
        "c2": 1.0 + 0.2 * np.exp(-lag / 5.0),
        "t": np.arange(1, 31) * 0.1,
        "q": 0.0054,
        "phi": 0.0,
    }
    with path.open("wb") as stream:
        np.savez(stream, **(arrays | changes))


def truncated(path, simulated):
    content = simulated.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def missing(path, simulated):
    path.write_bytes(simulated.read_bytes())
    with h5py.File(path, "r+") as file:
        del file["/xpcs/qmap/dynamic_index_mapping"]


def nan_block(path, simulated):
    path.write_bytes(simulated.read_bytes())
    with h5py.File(path, "r+") as file:
        matrix = file[MAP][()]
        matrix[4:7, 10:13] = np.nan
        file[MAP][...] = matrix


def asymmetric(path, simulated):
    c2 = 1.2 + np.random.default_rng(0).normal(scale=0.1, size=(30, 30))
    plain(path, c2=c2)


def wrong_shape(path, simulated):
    plain(path, c2=np.ones((30, 20)))


def other_length(path, simulated):
    plain(path, t=np.arange(1, 26) * 0.1)


def no_data(path, simulated):
    path.write_text("hello")


DATA = {
    truncated: ["cut short"],
    missing: ["/xpcs/qmap/dynamic_index_mapping"],
    nan_block: ["bin 1", "not finite in frames 5, 6, 7", "bad_frames: [5, 6, 7]"],
    asymmetric: ["halves", "differ"],
    wrong_shape: ["(30, 20)"],
    other_length: ["25", "30"],
    no_data: ["neither HDF5 nor .npz"],
}


def expect_refusal(done, code, where, *texts):
    assert done.code == code
    assert done.out == ""
    assert done.err.startswith(f"heterodyne: {where}")
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err
    for text in texts:
        assert text in done.err


@pytest.mark.parametrize("verb", ["check", "fit", "sample"])
@pytest.mark.parametrize("damage", DATA, ids=lambda damage: damage.__name__)
def test_bad_data_of_a_run_file(run, tmp_path, simulated, damage, verb):
    damage(tmp_path / "bad", simulated)
    (tmp_path / "run.yaml").write_text("experimental_data: {file_path: bad}\n")
    expect_refusal(run(verb, "run.yaml"), 2, tmp_path / "bad", *DATA[damage])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "run.yaml"]


@pytest.mark.parametrize("verb", ["inspect", "init"])
@pytest.mark.parametrize("damage", [truncated, missing, wrong_shape, other_length, no_data])
def test_bad_data_at_first_sight(run, tmp_path, simulated, damage, verb):
    damage(tmp_path / "bad", simulated)
    expect_refusal(run(verb, "bad"), 2, "bad", *DATA[damage])
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


def test_dt_that_contradicts_the_file(run, run_file, simulated, tmp_path):
    done = run("fit", run_file, "--set", "analyzer_parameters.dt=0.2")
    expect_refusal(done, 2, simulated, "0.2 s", "contradicts 0.1 s", "frame_time")
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


@pytest.mark.parametrize(
    ("line", "place", "texts"),
    [
        ("analyser: {}", "2:1", ["analyser is not a known key", "analyzer_parameters"]),
        ("analyzer_parameters: {dt: -1}", "2:27", ["dt is -1", "above 0 in s"]),
        ("parameters: {fraction: {f0: {value: 2}}}", "2:", ["f0 = 2", "0 to 1"]),
        ("optimization: {nlsq: {n_starts: few}}", "2:33", ["'few'", "an integer"]),
        ("experimental_data: [", "", ["not valid YAML"]),
    ],
)
@pytest.mark.parametrize("verb", ["check", "fit", "sample"])
def test_bad_run_file(run, tmp_path, verb, line, place, texts):
    (tmp_path / "run.yaml").write_text(f"experimental_data: {{file_path: a.h5}}\n{line}\n")
    expect_refusal(run(verb, "run.yaml"), 1, f"run.yaml:{place}", *texts)
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


@pytest.mark.parametrize("verb", ["check", "fit", "sample"])
def test_missing_files(run, tmp_path, verb):
    expect_refusal(run(verb, "nowhere.yaml"), 1, "nowhere.yaml", "cannot be read")
    (tmp_path / "run.yaml").write_text("experimental_data: {file_path: nowhere.h5}\n")
    expect_refusal(run(verb, "run.yaml"), 2, tmp_path / "nowhere.h5", "No such file")
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_setting_that_is_none(run, run_file):
    expect_refusal(run("check", run_file, "--set", "dt"), 1, "--set: 'dt' is no setting")
