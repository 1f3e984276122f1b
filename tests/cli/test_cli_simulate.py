import h5py
import numpy as np
import pytest
from cli_files import SMALL

from heterodyne.config.load import load_run_config
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.core.simulate import Detector, creep_flow, simulate_speckles
from heterodyne.data import open_two_time, select
from heterodyne.data.truth import read_truth

EXACT = ("--independent-errors", "1e-9", "--frames", "12", "--quiet")


def read(path):
    return select(open_two_time(path))


def test_default_data_are_the_speckles_of_the_creep_flow(simulated):
    data = read(simulated)
    expected = simulate_speckles(creep_flow(24), Detector(200, 5), seed=0)
    assert np.allclose(data.c2, expected, rtol=1e-6)
    assert data.phi.tolist() == [0.0, 45.0, 90.0]
    assert (data.q, data.dt, data.t[0]) == (0.0054, 0.1, 0.1)


def test_truth_is_in_the_file(simulated):
    truth = read_truth(simulated)
    assert [truth[name] for name in PHYSICS_PARAM_NAMES] == creep_flow().parameters.tolist()
    assert (truth["contrast"], truth["offset"]) == (0.2, 1.0)
    with h5py.File(simulated) as file:
        assert dict(file["/simulation"].attrs) == {
            "noise": "speckles",
            "modes": 5,
            "pixels": 200,
            "seed": 0,
        }


def test_correlations_of_the_creep_flow_decay_over_10_to_100_frames():
    flow = creep_flow()
    G = flow.correlation()
    assert flow.n_frames == 300
    for matrix in G:
        for start in (5, 150):
            after = matrix[start, start:]
            assert after[2] > 0.7
            assert np.abs(after[100:]).max() < 0.2
    still = G[2, 150, 150:]
    assert 10 < np.argmax(still < np.exp(-1)) < 100


def test_options_act(run):
    done = run(
        "simulate", "a.h5", *EXACT, "--dt", 0.5, "--q", 0.01, "--angle", -30, "--angle", 60,
        "--parameters", "v0=50", "--parameters", "contrast=0.4", "--parameters", "offset=1.1",
        "--json",
    )  # fmt: skip
    assert done.code == 0
    data = read("a.h5")
    assert (data.dt, data.q, data.n_frames, data.phi.tolist()) == (0.5, 0.01, 12, [-30.0, 60.0])
    truth = done.document["truth"]
    assert (truth["v0"], truth["contrast"], truth["beta"]) == (50.0, 0.4, -0.4)
    assert read_truth("a.h5") == truth
    assert np.allclose(np.diagonal(data.c2, axis1=1, axis2=2), 1.5, atol=1e-6)


def test_seed_modes_and_photons_act(run):
    diagonals = []
    for k, args in enumerate([(), ("--seed", 1), ("--modes", 1), ("--photons", 2)]):
        assert run("simulate", f"{k}.h5", *SMALL, *args).code == 0
        diagonals.append(np.diagonal(read(f"{k}.h5").c2, axis1=1, axis2=2).mean())
    first, seeded, coherent, counted = diagonals
    assert seeded != first
    assert coherent - 1 == pytest.approx(1.0, rel=0.15)
    assert counted - first == pytest.approx(1 / 2, rel=0.15)


def test_a_run_file_gives_truths_and_its_bounds(run, tmp_path):
    (tmp_path / "run.yaml").write_text(
        "experimental_data: {file_path: a.h5}\n"
        "parameters: {velocity: {v0: {value: 2e4, max: 1e5}}, scaling: {contrast: {value: 0.3}}}\n"
    )
    args = ("--parameters", "run.yaml", "--parameters", "beta=0.5")
    assert run("simulate", "a.h5", *EXACT, *args).code == 0
    truth = read_truth("a.h5")
    values = load_run_config("run.yaml").parameter_space().values
    assert truth == values | {"beta": 0.5}


def test_an_existing_file_is_kept_unless_forced(run, tmp_path):
    (tmp_path / "a.h5").write_text("mine")
    done = run("simulate", "a.h5", *SMALL)
    assert done.code == 1
    assert "a.h5: the file exists" in done.err
    assert (tmp_path / "a.h5").read_text() == "mine"
    assert run("simulate", "a.h5", *SMALL, "--force").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
    assert read("a.h5").n_frames == 24


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--dt", 0), "--dt: the value is 0. Allowed: above 0."),
        (("--q", "nan"), "--q: the value is nan"),
        (("--photons", -1), "--photons: the value is -1"),
        (("--independent-errors", 0), "--independent-errors: the value is 0"),
        (("--parameters", "D0_re=1"), "did you mean 'D0_ref'?"),
        (("--parameters", "v0=fast"), "'fast' is not a number"),
        (("--parameters", "v0=1e9"), "v0 = 1e+09 Å/s^(1+beta) lies outside its bounds"),
        (("--parameters", "contrast=0.3"), "Set --modes, or simulate with --independent-errors"),
        (("--parameters", "nowhere.yaml"), "nowhere.yaml: the run file cannot be read"),
    ],
)
def test_bad_options_are_refused_and_nothing_is_written(run, tmp_path, args, said):
    done = run("simulate", "a.h5", *SMALL, *args)
    assert done.code == 1
    assert said in done.err
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(run):
    done = run("simulate", "nowhere/a.h5", *SMALL)
    assert done.code == 1
    assert done.err.startswith("heterodyne: nowhere: the folder does not exist")
