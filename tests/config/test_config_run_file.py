import json
import os
import textwrap

import pytest

from heterodyne._errors import ConfigError
from heterodyne.config.cmc import CMCConfig
from heterodyne.config.load import check_run_config, load_run_config, override
from heterodyne.config.parameter_space import ParameterSpace, PriorKind

MEASURED = """\
experimental_data:
  file_path: ../raw/creep.hdf
  asymmetric: average
analyzer_parameters:
  dt: 1e-1
  start_frame: 1
  end_frame: 1e3
  bad_frames: [17, 400]
  time_origin: window
  scattering: {wavevector_q: 2.37e-2, q_tolerance: 0.05}
  geometry:
    stator_rotor_gap: 2000000
phi_filtering:
  target_ranges:
    - {min_angle: -10, max_angle: 10}
    - {min_angle: 170, max_angle: -170.0}
parameters:
  reference:
    D0_ref: {value: 100}
    alpha_ref: {value: 0.298, prior: {mean: 0.3, std: 0.1}}
    D_offset_ref: {value: 183, min: -1e3, max: 1e3}
  sample:
    D0_sample: {vary: false}
    D_offset_sample: {value: -2860}
  velocity:
    v0: {value: 472, prior: {type: normal, mean: 500, std: 100}}
    beta:
  fraction:
optimization:
  method: cmc
  nlsq: {n_starts: 4, tolerance: 1e-6}
  cmc:
    enable: always
    sharding: {strategy: angle_balanced, num_shards: 3}
    per_shard_mcmc: {target_accept: 0.8, num_samples: 1e3}
    run_id: "20240101"
noise: {effective_speckles: 1e4}
output: {directory: out}
"""


def write(folder, text, name="run.yaml"):
    path = folder / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


MINIMAL = "experimental_data: {file_path: a.hdf}\n"


def test_run_file_of_a_measurement(tmp_path):
    run = load_run_config(write(tmp_path, MEASURED))
    analyzer = run.analyzer_parameters
    assert analyzer.dt == 0.1
    assert (analyzer.start_frame, analyzer.end_frame) == (1, 1000)
    assert analyzer.bad_frames == (17, 400)
    assert analyzer.time_origin == "window"
    assert analyzer.scattering.wavevector_q == 0.0237
    assert analyzer.scattering.q_tolerance == 0.05
    assert analyzer.geometry.stator_rotor_gap == 2e6
    assert run.phi_filtering.ranges == ((-10, 10), (170, -170))
    assert run.optimization.nlsq.n_starts == 4
    assert run.noise.effective_speckles == 1e4
    assert run.experimental_data.asymmetric == "average"


def test_parameters_reach_the_space(tmp_path):
    space = load_run_config(write(tmp_path, MEASURED)).parameter_space()
    assert space.values == ParameterSpace().values | {
        "D0_ref": 100,
        "alpha_ref": 0.298,
        "D_offset_ref": 183,
        "D_offset_sample": -2860,
        "v0": 472,
    }
    assert space.fixed_names == ["D0_sample"]
    assert space.bounds["D_offset_ref"] == (-1000, 1000)
    assert (space["alpha_ref"].prior.mean, space["alpha_ref"].prior.std) == (0.3, 0.1)
    assert space["v0"].prior.kind is PriorKind.NORMAL


def test_settings_of_the_draws(tmp_path):
    assert load_run_config(write(tmp_path, MEASURED)).cmc_config() == CMCConfig(
        enable="always",
        per_angle_mode="individual",
        sharding_strategy="angle_balanced",
        num_shards=3,
        target_accept_prob=0.8,
        num_samples=1000,
        run_id="20240101",
    )


def test_what_a_file_leaves_out(tmp_path):
    run = load_run_config(write(tmp_path, MINIMAL))
    assert run.parameter_space() == ParameterSpace()
    assert run.cmc_config() == CMCConfig(per_angle_mode="individual")
    assert run.phi_filtering.ranges == ()
    assert run.optimization.method == "cmc"
    assert run.noise.effective_speckles == "auto"
    assert run.analyzer_parameters.end_frame is None


def test_ranges_that_are_switched_off():
    arcs = {"enabled": False, "target_ranges": [{"min_angle": 0, "max_angle": 5}]}
    run = check_run_config({"experimental_data": {"file_path": "a"}, "phi_filtering": arcs})
    assert run.phi_filtering.ranges == ()


@pytest.mark.parametrize("word", ["auto", "averaged", "constant"])
def test_treatment_of_angles_as_the_file_says(tmp_path, word):
    text = f"{MINIMAL}optimization: {{cmc: {{per_angle_mode: {word}}}}}\n"
    assert load_run_config(write(tmp_path, text)).cmc_config().per_angle_mode == word


def test_relative_paths_start_at_the_run_file(tmp_path, monkeypatch):
    folder = tmp_path / "runs"
    folder.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    text = MEASURED + "  # end\n"
    path = write(folder, text.replace("enable: always", "backend_config: {checkpoint_dir: c}"))
    run = load_run_config(path)
    assert run.experimental_data.file_path == str(tmp_path / "raw" / "creep.hdf")
    assert run.output.directory == str(folder / "out")
    assert run.cmc_config().checkpoint_dir == str(folder / "c")
    relative = load_run_config(os.path.relpath(path))
    assert relative == run
    changed = load_run_config(path, ["experimental_data.file_path=b.hdf", "output.directory=o"])
    assert changed.experimental_data.file_path == str(elsewhere / "b.hdf")
    assert changed.output.directory == str(elsewhere / "o")


def test_default_paths(tmp_path):
    run = load_run_config(write(tmp_path, MINIMAL))
    assert run.output.directory == str(tmp_path / "results")
    assert run.cmc_config().checkpoint_dir == "./checkpoints/cmc"
    absolute = write(tmp_path, "experimental_data: {file_path: /data/a.hdf}", "b.yaml")
    assert load_run_config(absolute).experimental_data.file_path == "/data/a.hdf"


def test_json(tmp_path):
    content = {
        "experimental_data": {"file_path": "Über 1.hdf"},
        "analyzer_parameters": {"dt": 1e-05, "bad_frames": [1, 2]},
    }
    path = tmp_path / "run.json"
    path.write_text(json.dumps(content, indent="\t"), encoding="utf-8")
    run = load_run_config(path)
    assert run.experimental_data.file_path == str(tmp_path / "Über 1.hdf")
    assert run.analyzer_parameters.dt == 1e-5


def test_anchors_and_merges(tmp_path):
    text = """\
        experimental_data: {file_path: a}
        parameters:
          reference:
            alpha_ref: &exponent {min: -1, max: 1}
          sample:
            alpha_sample:
              <<: *exponent
              max: 0.5
        """
    space = load_run_config(write(tmp_path, text)).parameter_space()
    assert space.bounds["alpha_ref"] == (-1, 1)
    assert space.bounds["alpha_sample"] == (-1, 0.5)


def test_layout_words_follow_the_readers(tmp_path):
    data = pytest.importorskip("heterodyne.data")
    from heterodyne.data.readers.plain import NAMES

    for layout in data.Layout:
        config = {"experimental_data": {"file_path": "a", "layout": layout.value}}
        assert check_run_config(config).experimental_data.layout == layout
    for origin in data.TimeOrigin:
        config = {"experimental_data": {"file_path": "a"}, "analyzer_parameters": {}}
        config["analyzer_parameters"]["time_origin"] = origin.value
        assert check_run_config(config).analyzer_parameters.time_origin == origin
    config = {"experimental_data": {"file_path": "a", "keys": dict.fromkeys(NAMES, "x")}}
    assert set(check_run_config(config).experimental_data.keys.model_dump()) == set(NAMES)
    short = check_run_config({"experimental_data": {"file_path": "a", "layout": "apsu"}})
    assert short.experimental_data.layout == data.Layout.APS_U


def test_values_in_place_of_names():
    keys = {"q": 0.0054, "phi": [0, 45.5], "t": "times", "dt": 1}
    run = check_run_config({"experimental_data": {"file_path": "a", "keys": keys}})
    assert run.experimental_data.keys.phi == (0, 45.5)
    assert run.experimental_data.keys.q == 0.0054


# Settings on the command line


def test_override_returns_a_changed_copy():
    config = {"optimization": {"method": "cmc"}}
    settings = [
        "optimization.method=nlsq",
        "optimization.nlsq.tolerance=1e-4",
        "experimental_data.file_path=a=b.hdf",
        "phi_filtering.target_ranges=[{min_angle: 0, max_angle: 5}]",
        "analyzer_parameters.dt=",
    ]
    assert override(config, settings) == {
        "optimization": {"method": "nlsq", "nlsq": {"tolerance": 1e-4}},
        "experimental_data": {"file_path": "a=b.hdf"},
        "phi_filtering": {"target_ranges": [{"min_angle": 0, "max_angle": 5}]},
        "analyzer_parameters": {"dt": None},
    }
    assert config == {"optimization": {"method": "cmc"}}


def test_override_replaces_every_spelling(tmp_path):
    text = f"{MINIMAL}optimization: {{cmc: {{num_samples: 5, sharding: {{strategy: random}}}}}}\n"
    settings = [
        "optimization.cmc.per_shard_mcmc.num_samples=200",
        "optimization.cmc.sharding_strategy=contiguous",
    ]
    config = load_run_config(write(tmp_path, text), settings).cmc_config()
    assert (config.num_samples, config.sharding_strategy) == (200, "contiguous")


def test_last_setting_wins(tmp_path):
    settings = ["noise.effective_speckles=5", "noise.effective_speckles=6"]
    run = load_run_config(write(tmp_path, MINIMAL), settings)
    assert run.noise.effective_speckles == 6


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optimization.method", r"^--set: 'optimization.method' is no setting.*key=value"),
        ("a..b=1", r"^--set: 'a..b=1' is no setting"),
        ("noise.effective_speckles=[", r"^--set noise.effective_speckles=\[: not valid YAML"),
        (
            "experimental_data.file_path.x=1",
            r"^--set .*: experimental_data.file_path is no mapping.*Set it as a whole",
        ),
        (
            "optimization.cmc.per_shard_mcmc.num_samples=-1",
            r"^--set optimization.cmc.per_shard_mcmc.num_samples=-1: .*num_samples is -1; "
            r"allowed: an integer of at least 1\.$",
        ),
        ("nois.effective_speckles=3", r"^--set nois.*did you mean 'noise'"),
        (
            "parameters.reference.D0_ref.value=1",
            r"^--set parameters.reference.D0_ref.value=1: .*100 to 1e\+06 Å²/s\^\(1\+alpha\)",
        ),
    ],
)
def test_settings_that_are_refused(tmp_path, setting, message):
    with pytest.raises(ConfigError, match=message):
        load_run_config(write(tmp_path, MINIMAL), [setting])


def test_prefactors_of_a_run_file_may_have_normal_priors(tmp_path):
    text = f"{MINIMAL}parameters: {{velocity: {{v0: {{prior: {{mean: 300, std: 50}}}}}}}}\n"
    usual = load_run_config(write(tmp_path, text)).parameter_space()
    text += "optimization: {cmc: {nlsq: {use_log_space_priors: false}}}\n"
    normal = load_run_config(write(tmp_path, text)).parameter_space()
    assert usual["v0"].prior.kind is PriorKind.LOGNORMAL
    for name in usual:
        assert normal[name].prior.kind is PriorKind.NORMAL
        assert (normal[name].prior.mean, normal[name].prior.std) == (
            usual[name].prior.mean,
            usual[name].prior.std,
        )
