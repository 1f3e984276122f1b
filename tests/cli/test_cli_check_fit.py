import json
import sys

import pytest

from heterodyne.cli.main import main
from heterodyne.data.truth import read_truth

PHYSICS = ["D0_ref", "D0_sample", "v0", "f0"]


def test_check_says_what_would_be_fitted(run, run_file, tmp_path):
    done = run("check", run_file)
    assert done.code == 0
    assert done.out.startswith(f"{run_file} is valid.\n")
    assert "3: 1 (0°), 2 (45°), 3 (90°)" in done.out
    assert "unique pairs  828" in done.out
    table = done.out.partition("\nfitted ")[2].splitlines()
    assert [row.split()[0] for row in table[2:8]] == [*PHYSICS, "contrast", "offset"]
    assert "phi0 = 0" in done.out.partition("\nfixed")[2]
    assert "Only 24 frames are fitted." in done.out
    assert max(len(x) for x in done.out.splitlines() if str(tmp_path) not in x) <= 100
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_check_prints_json_with_the_prediction(run, run_file):
    fit_only = "optimization.method=nlsq"
    document = run("check", run_file, "--json").document
    assert document["varying"] == [*PHYSICS, "contrast", "offset"]
    assert document["data"]["unique_pairs"] == 828 == document["predicted"]["n_pairs"]
    assert document["parameters"]["v0"]["unit"] == "Å/s^(1+beta)"
    assert document["predicted"]["sampling_s"] > 0
    without = run("check", run_file, "--json", "--set", fit_only).document
    assert without["method"] == "nlsq"
    assert without["predicted"]["sampling_s"] == 0


def test_settings_of_the_command_line_act(run, run_file):
    args = (
        "--set",
        "analyzer_parameters.end_frame=20",
        "--set",
        "analyzer_parameters.bad_frames=[3]",
    )
    data = run("check", run_file, "--json", *args).document["data"]
    assert (data["n_frames"], data["n_fitted_frames"]) == (20, 19)


def test_check_prints_data_that_cannot_be_fitted_with_the_code_of_data(run, run_file):
    done = run("check", run_file, "--set", "analyzer_parameters.end_frame=8")
    assert done.code == 2
    assert "error" in done.out
    assert "Only 8 frames are fitted." in done.out


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, simulated):
    """The run folder of a fit in which four physics parameters vary from the truth."""
    folder = tmp_path_factory.mktemp("fit")
    truth = read_truth(simulated)
    fixed = ("alpha_ref", "D_offset_ref", "alpha_sample", "D_offset_sample", "beta", "v_offset",
             "f1", "f2", "f3", "phi0")  # fmt: skip
    run_file = folder / "run.yaml"
    parameters = {name: {"value": truth[name], "vary": False} for name in fixed}
    groups = {
        "reference": [n for n in fixed if n.endswith("_ref")],
        "sample": [n for n in fixed if n.endswith("_sample")],
        "velocity": ["beta", "v_offset"],
        "fraction": ["f1", "f2", "f3"],
        "angle": ["phi0"],
    }
    document = {
        "experimental_data": {"file_path": str(simulated)},
        "parameters": {g: {n: parameters[n] for n in names} for g, names in groups.items()},
        "optimization": {"nlsq": {"n_starts": 2}},
    }
    run_file.write_text(json.dumps(document))
    assert main(["fit", str(run_file), "--quiet"]) == 0
    return run_file


def read(run_file, name):
    text = (run_file.parent / "results" / name).read_text(encoding="utf-8")
    return json.loads(text, parse_constant=pytest.fail)


def test_fit_writes_a_run_folder(fitted, simulated):
    folder = fitted.parent / "results"
    names = {"config.json", "data.json", "fit.json", "manifest.json"}
    assert {path.name for path in folder.iterdir()} == names
    manifest = read(fitted, "manifest.json")
    assert manifest["data"]["path"] == str(simulated)
    assert len(manifest["data"]["sha256"]) == len(manifest["config_sha256"]) == 64
    assert manifest["command"][1:] == sys.argv[1:]
    assert read(fitted, "config.json")["experimental_data"]["file_path"] == str(simulated)
    assert read(fitted, "data.json")["unique_pairs"] == 828


def test_fit_record_has_values_near_the_truth(fitted, simulated):
    record, truth = read(fitted, "fit.json"), read_truth(simulated)
    assert record["success"] is True
    by_name = {one["name"]: one for one in record["parameters"]}
    assert list(by_name)[:4] == PHYSICS
    assert list(by_name)[4:] == [f"{w}_{k}" for w in ("contrast", "offset") for k in range(3)]
    assert by_name["v0"]["value"] == pytest.approx(truth["v0"], rel=0.1)
    assert by_name["v0"]["error"] > 0
    assert (by_name["v0"]["unit"], by_name["contrast_1"]["unit"]) == ("Å/s^(1+beta)", "")
    assert record["fixed"]["beta"] == truth["beta"]
    assert record["derived"][0]["unit"] == "Å²/s"
    assert record["n_pairs"] == 828
    directions = record["identifiability"]
    assert directions["names"] == PHYSICS
    assert len(directions["directions"]) == 4
    assert set(directions["contraction"]) == set(PHYSICS)


def test_fit_prints_the_table_and_the_same_document(run, fitted):
    done = run("fit", fitted, "--quiet", "--json")
    assert done.code == 0
    assert done.err == ""
    document = done.document
    assert document.pop("folder") == str(fitted.parent / "results")
    assert document == read(fitted, "fit.json")
    done = run("fit", fitted, "--quiet")
    lines = done.out.splitlines()
    assert lines[0] == "The fit converged."
    row = next(line.split() for line in lines if line.startswith("v0 "))
    v0 = next(one for one in document["parameters"] if one["name"] == "v0")
    assert row[2] == "±"
    assert float(row[1]) == pytest.approx(v0["value"], abs=v0["error"] / 10)
    assert float(row[3]) == pytest.approx(v0["error"], rel=0.06)
    assert max(len(line) for line in lines if str(fitted.parent) not in line) <= 100


def test_fit_refuses_the_folder_of_other_settings(run, fitted):
    before = read(fitted, "fit.json")
    done = run("fit", fitted, "--set", "optimization.nlsq.seed=5")
    assert done.code == 1
    assert "results: it holds results of other settings" in done.err
    assert "--force" in done.err
    assert read(fitted, "fit.json") == before


def test_fit_that_does_not_converge_is_written_with_code_3(run, fitted, tmp_path):
    settings = ("optimization.nlsq.max_iterations=1", "optimization.nlsq.tolerance=1e-15",
                f"output.directory={tmp_path / 'other'}")  # fmt: skip
    done = run("fit", fitted, "--quiet", *(a for s in settings for a in ("--set", s)))
    assert done.code == 3
    assert "stopped before the steps became small" in done.out
    assert (tmp_path / "other" / "fit.json").exists()
