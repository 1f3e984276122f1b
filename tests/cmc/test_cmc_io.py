"""Files of results: what is written is read back, and nothing else is trusted."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray
from cmc_results import CHAINS, DRAWS, NAMES, make_draws, make_result
from hypothesis import given
from hypothesis import strategies as st

from heterodyne._errors import ConfigError, DataError
from heterodyne.data import open_two_time
from heterodyne.optimization.cmc import io
from heterodyne.optimization.cmc.results import cmc_result_to_arviz


def test_draws_are_read_back(tmp_path):
    result = make_result(divergences=3, num_warmup=50, num_shards=2, per_angle_mode="individual")
    path = io.save_samples_npz(result, tmp_path / "samples.npz")
    found = io.load_samples_npz(path)
    np.testing.assert_array_equal(found["posterior_samples"], make_draws())
    assert found["posterior_samples"].shape == (CHAINS, DRAWS, len(NAMES))
    assert found["param_names"] == NAMES
    for name in ("r_hat", "ess_bulk", "ess_tail", "bfmi"):
        np.testing.assert_array_equal(found[name], getattr(result, name))
    assert (found["divergences"], found["num_warmup"], found["num_shards"]) == (3, 50, 2)
    assert (found["convergence_status"], found["per_angle_mode"]) == ("converged", "individual")
    tree = io.samples_to_arviz(found)
    xarray.testing.assert_identical(tree["posterior"].to_dataset().drop_attrs(), plain(result))
    np.testing.assert_array_equal(tree["sample_stats"]["bfmi"], result.bfmi)
    assert [p.name for p in tmp_path.iterdir()] == ["samples.npz"]


def plain(result):
    return cmc_result_to_arviz(result)["posterior"].to_dataset().drop_attrs()


def test_draws_of_sigma_come_back_beside_those_of_the_parameters(tmp_path):
    draws, sigma = make_draws(), np.random.default_rng(1).uniform(1, 2, (CHAINS, DRAWS))
    samples = {name: draws[..., k] for k, name in enumerate(NAMES)} | {"sigma": sigma}
    result = make_result(samples=samples)
    found = io.load_samples_npz(io.save_samples_npz(result, tmp_path / "a.npz"))
    assert found["posterior_samples"].shape == (CHAINS, DRAWS, len(NAMES))
    assert found["other_names"] == ["sigma"]
    np.testing.assert_array_equal(found["other_samples"][..., 0], sigma)
    tree = io.samples_to_arviz(found)
    xarray.testing.assert_identical(tree["posterior"].to_dataset().drop_attrs(), plain(result))
    with pytest.raises(DataError, match="other_samples: draws of the shape"):
        io.samples_to_arviz(found | {"other_names": ["sigma", "f0"]})


def test_missing_draws_stay_missing(tmp_path):
    result = make_result(samples={"alpha_ref": make_draws()[..., 1]}, r_hat=None)
    found = io.load_samples_npz(io.save_samples_npz(result, tmp_path / "a.npz"))
    assert np.isnan(found["posterior_samples"][..., [0, 2, 3]]).all()
    np.testing.assert_array_equal(found["posterior_samples"][..., 1], make_draws()[..., 1])
    assert "r_hat" not in found


def test_a_result_without_draws_is_not_written(tmp_path):
    with pytest.raises(DataError, match="no draws"):
        io.save_samples_npz(make_result(samples=None), tmp_path / "a.npz")
    with pytest.raises(DataError, match="no draws"):
        io.save_shard_results(make_result(samples=None), tmp_path, 0)
    for write in (
        lambda: io.save_samples_npz(make_result(samples={"D0_ref": None}), tmp_path / "a.npz"),
        lambda: io.save_shard_results({"D0_ref": None}, tmp_path, 0),
    ):
        with pytest.raises(DataError, match="no draws"):
            write()
    assert list(tmp_path.iterdir()) == []


READERS = [
    lambda path: io.load_samples_npz(path / "a.npz"),
    lambda path: io.load_inference_data(path / "a.nc"),
    lambda path: io.load_shard_results(path, 3),
]


@pytest.mark.parametrize("read", READERS)
def test_a_file_that_is_not_there_is_named(tmp_path, read):
    with pytest.raises(FileNotFoundError, match=r"(a\.npz|a\.nc|shard_3\.npz): there is no"):
        read(tmp_path)


def test_only_archives_of_draws_are_read(tmp_path):
    (tmp_path / "a.txt").write_text("draws")
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "b.npz").write_text("draws")
    np.savez(tmp_path / "c.npz", other=np.ones(3))
    for name, text in (
        ("a.txt", "npz"), ("folder.npz", "regular"), ("b.npz", "read"), ("c.npz", "no param_names")
    ):  # fmt: skip
        with pytest.raises(ValueError, match=text):
            io.load_samples_npz(tmp_path / name)
    with pytest.raises(ConfigError, match=r"\*\.npz"):
        io.save_samples_npz(make_result(), tmp_path / "a.txt")


class Trap:
    def __reduce__(self):
        return pytest.fail, ("a pickled object was loaded",)


@pytest.mark.parametrize("read", [READERS[0], READERS[2]])
def test_pickled_objects_are_never_loaded(tmp_path, read):
    trap = np.array([Trap()], dtype=object)
    for name in ("a", "shard_3"):
        np.savez(tmp_path / f"{name}.npz", posterior_samples=trap, param_names=np.array(["x"]))
    with pytest.raises(ValueError, match="cannot be read"):
        read(tmp_path)


def test_draws_that_do_not_fit_their_names_are_refused():
    for draws, names in ((np.zeros((2, 3, 4)), ["a"]), (np.zeros((2, 3)), ["a"] * 3)):
        with pytest.raises(DataError, match="shape"):
            io.samples_to_arviz({"posterior_samples": draws, "param_names": names})


def test_groups_are_read_back(tmp_path):
    tree = cmc_result_to_arviz(make_result())
    path = io.save_inference_data(tree, tmp_path / "posterior.nc")
    again = io.load_inference_data(path)
    for group in ("posterior", "sample_stats"):
        xarray.testing.assert_equal(again[group].to_dataset(), tree[group].to_dataset())
    # The file is closed: it can be replaced, and its values stay.
    path.unlink()
    np.testing.assert_array_equal(again["posterior"]["D0_ref"], make_draws()[..., 0])
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_netcdf_is_refused(tmp_path):
    (tmp_path / "a.nc").write_bytes(b"no netcdf")
    with pytest.raises(ValueError, match=r"a\.nc"):
        io.load_inference_data(tmp_path / "a.nc")


def strict(path):
    """Read JSON as the standard has it, without NaN."""

    def refuse(word):
        raise AssertionError(word)

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_parameters_are_written_with_words_for_what_is_not_finite(tmp_path):
    result = make_result(
        posterior_std=np.array([np.inf, -np.inf, np.nan, 0.5]),
        samples=None,
        metadata={"units": {"D0_ref": "Å²/s"}, "fixed_parameters": {"phi0": 3.0}},
    )
    found = strict(io.save_parameters_json(result, tmp_path / "p.json"))
    assert [found["parameters"][name]["std"] for name in NAMES] == [
        "Infinity", "-Infinity", None, 0.5
    ]  # fmt: skip
    assert found["parameters"]["D0_ref"]["unit"] == "Å²/s"
    assert found["parameters"]["D0_ref"]["95"] == list(result.credible_intervals["D0_ref"]["95"])
    assert found["fixed_parameters"] == {"phi0": 3.0}


def test_parameters_are_written_with_the_stats_of_their_draws(tmp_path):
    result = make_result()
    found = strict(io.save_parameters_json(result, tmp_path / "p.json"))["parameters"]
    for name, figures in result.get_posterior_stats().items():
        assert {key: found[name][key] for key in figures} == pytest.approx(figures)


def test_diagnostics_are_written(tmp_path):
    result = make_result(r_hat=np.array([np.nan, np.inf, 1.0, 1.01]), divergences=4)
    found = strict(io.save_diagnostics_json(result, tmp_path / "d.json", ["Look here."]))
    assert found["r_hat"] == dict(zip(NAMES, [None, "Infinity", 1.0, 1.01], strict=True))
    assert found["ess_tail"]["offset_0"] == 830.0
    assert found["bfmi"] == [0.9, 1.0, 1.1]
    assert (found["divergences"], found["convergence_status"]) == (4, "converged")
    assert (found["num_chains"], found["num_samples"]) == (CHAINS, DRAWS)
    assert found["warnings"] == ["Look here."]
    assert strict(io.save_diagnostics_json(result, tmp_path / "d.json"))["warnings"] == []


def test_fitted_data_are_written_with_their_residuals(tmp_path):
    rng = np.random.default_rng(0)
    c2, fitted = rng.normal(size=(2, 2, 5, 5))
    t, phi = np.arange(5.0), np.array([0.0, 30.0])
    result = make_result()
    path = io.save_fitted_data_npz(
        result, c2, fitted, None, t, t + 1, phi, 0.0054, tmp_path / "fit.npz"
    )
    with np.load(path) as found:
        assert "c2_fitted_std" not in found
        np.testing.assert_array_equal(found["residuals"], c2 - fitted)
        np.testing.assert_array_equal(found["t2"], t + 1)
        np.testing.assert_array_equal(found["phi_angles"], phi)
        np.testing.assert_array_equal(found["parameters"], result.posterior_mean)
        assert found["parameter_names"].tolist() == NAMES
        assert float(found["q"]) == 0.0054
    with pytest.raises(ValueError, match=r"c2_fitted_std \(1, 5, 5\)"):
        io.save_fitted_data_npz(result, c2, fitted, fitted[:1], t, t, phi, 0.1, tmp_path / "f.npz")


T, PHI, Q = np.arange(1.0, 6.0), np.array([0.0, 30.0]), 0.0054


def save_fit(path, c2=None, phi=PHI):
    rng = np.random.default_rng(3)
    c2 = symmetric(rng.normal(1.1, 0.01, size=(2, 5, 5))) if c2 is None else c2
    t1, t2 = np.meshgrid(T, T, indexing="ij")
    return io.save_fitted_data_npz(make_result(), c2, c2 + 0.1, None, t1, t2, phi, Q, path)


def symmetric(c2):
    return (c2 + np.swapaxes(c2, -1, -2)) / 2


def test_fitted_data_are_read_back_as_measured_data_with_their_angles(tmp_path):
    c2 = symmetric(np.random.default_rng(0).normal(1.1, 0.01, size=(2, 5, 5)))
    opened = open_two_time(save_fit(tmp_path / "fit.npz", c2))
    assert [one.phi for one in opened.bins] == PHI.tolist()
    assert [one.q for one in opened.bins] == [Q, Q]
    np.testing.assert_array_equal(opened.t, T)
    np.testing.assert_array_equal(opened.load().c2, c2)
    single = open_two_time(save_fit(tmp_path / "one.npz", c2[1], 30.0))
    assert [one.phi for one in single.bins] == [30.0]
    with pytest.raises(DataError, match=r"phi_angles: 3 angles for 2 matrices"):
        save_fit(tmp_path / "wrong.npz", c2, [0.0, 30.0, 60.0])


def test_shards_are_read_back_in_order_of_their_numbers(tmp_path):
    folder = tmp_path / "new" / "shards"
    assert io.list_shards(folder) == []
    for shard_id in (10, 2, 0):
        draws = {"D0_ref": np.full((2, 3), float(shard_id)), "x": np.arange(6.0)}
        path = io.save_shard_results(draws, folder, shard_id)
        assert path == folder / f"shard_{shard_id}.npz"
    io.save_shard_results(make_result(), folder, 3)
    for other in ("shard_a.npz", "shard_1.txt", "shard_1.npz.bak", "shard_-1.npz"):
        (folder / other).touch()
    assert io.list_shards(folder) == [0, 2, 3, 10]
    np.testing.assert_array_equal(
        io.load_shard_results(folder, 10)["D0_ref"], np.full((2, 3), 10.0)
    )
    found = io.load_shard_results(folder, 3)
    np.testing.assert_array_equal(found["alpha_ref"], make_draws()[..., 1])
    with pytest.raises(ValueError, match="shard -1"):
        io.save_shard_results(draws, folder, -1)


def test_a_shard_comes_back_without_the_draws_that_it_lacks(tmp_path):
    draws = {"D0_ref": np.arange(4.0), "f0": None}
    io.save_shard_results(draws, tmp_path, 0)
    io.save_shard_results(make_result(samples=draws), tmp_path, 1)
    for shard_id in (0, 1):
        found = io.load_shard_results(tmp_path, shard_id)
        assert list(found) == ["D0_ref"]
        np.testing.assert_array_equal(found["D0_ref"], np.arange(4.0))
    with pytest.raises(
        DataError, match=r"shard_2\.npz: f0 holds Python objects \(NoneType, float\)"
    ):
        io.save_shard_results({"f0": [1.0, None]}, tmp_path, 2)
    assert io.list_shards(tmp_path) == [0, 1]


WRITERS = {
    "samples.npz": io.save_samples_npz,
    "parameters.json": io.save_parameters_json,
    "diagnostics.json": io.save_diagnostics_json,
    "posterior.nc": lambda result, path: io.save_inference_data(cmc_result_to_arviz(result), path),
    "fit.npz": lambda result, path: save_fit(path),
    "shard_0.npz": lambda result, path: io.save_shard_results(result, path.parent, 0),
}


@pytest.mark.parametrize(("name", "write"), WRITERS.items())
def test_every_file_is_written_into_a_folder_that_is_made_for_it(tmp_path, name, write):
    path = write(make_result(), tmp_path / "new" / "folder" / name)
    assert path == tmp_path / "new" / "folder" / name
    assert path.is_file()
    (tmp_path / "taken").touch()
    with pytest.raises(ConfigError, match="taken: the folder cannot be made"):
        write(make_result(), tmp_path / "taken" / name)


@given(st.recursive(st.floats() | st.text(max_size=2), lambda x: st.lists(x, max_size=3)))
def test_every_figure_survives_json(value):
    from heterodyne.io.files import to_json

    def back(x):
        if isinstance(x, list):
            return [back(entry) for entry in x]
        return {"Infinity": np.inf, "-Infinity": -np.inf, None: np.nan}.get(x, x)

    found = back(json.loads(to_json(io._worded({"x": value})))["x"])
    assert repr(found) == repr(value)
