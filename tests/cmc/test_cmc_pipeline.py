"""A run from its file to its folder, on a tiny simulation."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import xarray
from cmc_cases import CMC, CONFIG, DT, FIXED, N_FRAMES, PHI, SPACE, T, experiment, measured

from heterodyne._errors import ConfigError, DataError, InterruptedRunError
from heterodyne._events import Message, Progress
from heterodyne.cli._tasks import perform
from heterodyne.config.schema import Noise, RunConfig
from heterodyne.core.simulate import Detector, simulate_speckles
from heterodyne.data.select import exclude_frames
from heterodyne.io.run_folder import RunFolder, checkpoint
from heterodyne.io.work_folder import WorkFolder
from heterodyne.optimization import bind as bind_module
from heterodyne.optimization.bind import bind, fit_scaled
from heterodyne.optimization.cmc import _pipeline
from heterodyne.optimization.scaling import ScalingMode

FILES = {"fit.json", "maps.npz", "curves.npz", "posterior.nc", "summary.json"}
ROWS = ("alpha_ref", "D_offset_ref", "contrast_0", "sigma")
CURVES = ("J_ref", "J_sample", "v", "s")
DERIVED = tuple(f"{curve}({t:.4g} s)" for curve in CURVES for t in T[[2, 8, 14]])


def speckles():
    """Data whose neighbouring pairs are correlated."""
    return measured(simulate_speckles(experiment(0.0, 0.0), Detector(400, 3), 1))


@dataclass(frozen=True)
class Run:
    folder: RunFolder
    finished: _pipeline.Finished
    events: list
    kept: set

    def read(self, name):
        return json.loads(self.folder.file(name).read_text(encoding="utf-8"))


def with_engine(name):
    optimization = CONFIG.optimization.model_copy(update={"engine": name})
    return CONFIG.model_copy(update={"optimization": optimization})


def go(path, on_event, engine="nuts", **options):
    folder = RunFolder(path)
    finished = _pipeline.run(with_engine(engine), speckles(), folder, on_event, **options)
    folder.remove_checkpoints()
    return finished


def checkpoints(path):
    return {file.name for file in path.glob(checkpoint("*"))}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """An undisturbed run."""
    path, events, kept = tmp_path_factory.mktemp("run"), [], set()

    def on_event(event):
        events.append(event)
        kept.update(checkpoints(path))

    return Run(RunFolder(path), go(path, on_event), events, kept)


def test_a_run_leaves_the_files_of_its_folder(done):
    assert {file.name for file in done.folder.path.iterdir()} == FILES
    # Each pass kept its states while it ran.
    assert done.kept == {checkpoint("plain_nuts"), checkpoint("corrected_nuts")}


def test_the_summary_holds_what_its_readers_need(done):
    summary = done.read("summary.json")
    assert set(summary) == {"verdict", "rows", "sampler", "noise", "thresholds"}
    verdict = summary["verdict"]
    assert set(verdict) == {
        "converged", "fits", "usable", "headline", "sentences", "advice", "believe",
    }  # fmt: skip
    assert verdict["believe"] == "corrected"
    assert verdict["headline"] == done.finished.verdict.headline
    # What the held parameters alone decide is no result.
    informed = [name for name in DERIVED if name.startswith("J_ref")]
    assert [row["name"] for row in summary["rows"]] == [*ROWS, *informed]
    assert {row["kind"] for row in summary["rows"]} == {
        "parameter", "scaling", "noise", "derived"
    }  # fmt: skip
    for row in summary["rows"]:
        assert {"unit", "description", "mean", "sd", "median", "low", "high", "r_hat"} <= set(row)
        assert row["low"] <= row["median"] <= row["high"]
        assert {"sd", "low", "high"} <= set(row["corrected"])
    sampler = summary["sampler"]
    assert (sampler["engine"], sampler["chains"]) == ("nuts", 2)
    assert (sampler["draws"], sampler["warmup"]) == (150, 200)
    assert sampler["gradients_per_draw"] >= 1
    assert sampler["seconds_fit"] > 0
    noise = summary["noise"]
    assert noise["likely_speckle"] is True
    assert len(noise["effective_speckles"]) == len(noise["shot_noise"]) == 1
    assert set(noise["inflation"]) == {*ROWS, *informed}
    assert noise["inflation"]["contrast_0"] > 1.5
    assert abs(noise["misfit"]) < 6.0
    assert {"r_hat", "ess", "bfmi"} <= set(summary["thresholds"])


def test_the_draws_are_read_by_xarray(done):
    tree = xarray.open_datatree(done.folder.file("posterior.nc"), engine="h5netcdf")
    with tree:
        assert {
            "posterior", "derived", "corrected", "prior", "sample_stats", "corrected_sample_stats"
        } == set(tree.children)  # fmt: skip
        posterior, corrected = tree["posterior"], tree["corrected"]
        assert set(posterior.data_vars) == set(ROWS)
        assert set(tree["derived"].data_vars) == set(DERIVED)
        assert set(corrected.data_vars) == {*ROWS, *DERIVED}
        assert dict(posterior.sizes) == {"chain": 2, "draw": 150}
        assert dict(tree["prior"].sizes) == {"chain": 1, "draw": 2000}
        assert {"diverging", "energy", "n_steps", "acceptance_rate", "tree_depth"} <= set(
            tree["sample_stats"].data_vars
        )
        # The table is a summary of these draws.
        rows = {row["name"]: row for row in done.read("summary.json")["rows"]}
        for name in ROWS:
            x, y = posterior[name].values, corrected[name].values
            assert rows[name]["mean"] == pytest.approx(x.mean())
            assert rows[name]["corrected"]["sd"] == pytest.approx(y.std(ddof=1))
            np.testing.assert_allclose(
                [rows[name]["low"], rows[name]["high"]], np.quantile(x, [0.025, 0.975])
            )
        assert posterior["D_offset_ref"].attrs["units"] == "Å²/s"
        rate = 2e4 * T[2] ** posterior["alpha_ref"].values + posterior["D_offset_ref"].values
        derived = tree["derived"]["J_ref(0.3 s)"].values
        np.testing.assert_allclose(derived, np.maximum(rate, 0.0), rtol=1e-9)


def test_curves_and_maps_are_those_of_draws_and_fit(done):
    curves = done.folder.read_npz("curves.npz")
    np.testing.assert_allclose(curves["t"], T)
    names = {f"{name}_{layer}" for name in CURVES for layer in ("plain", "corrected")}
    assert set(curves) == {"t", *names}
    for name in names:
        assert curves[name].shape == (3, N_FRAMES)
        assert (np.diff(curves[name], axis=0) >= 0).all()
    np.testing.assert_allclose(curves["v_plain"], FIXED["v0"])
    wider = np.ptp(curves["J_ref_corrected"], axis=0) / np.ptp(curves["J_ref_plain"], axis=0)
    assert wider.min() > 1.5
    maps = done.folder.read_npz("maps.npz")
    data = speckles()
    shape = (1, N_FRAMES, N_FRAMES)
    assert maps["measured"].shape == maps["model"].shape == maps["residual"].shape == shape
    off = ~np.eye(N_FRAMES, dtype=bool)
    np.testing.assert_allclose(maps["measured"][0][off], data.c2[0][off], rtol=1e-6)
    expected = (data.c2[0] - maps["model"][0])[off]
    np.testing.assert_allclose(maps["residual"][0][off], expected, atol=1e-6)
    assert np.isnan(np.diagonal(maps["residual"][0])).all()
    np.testing.assert_allclose(maps["lags"], DT * np.arange(1, N_FRAMES))
    for k in (1, 7, 15):
        mean = np.diagonal(data.c2[0], k).mean()
        assert maps["lag_measured"][0, k - 1] == pytest.approx(mean)
    fit = done.read("fit.json")
    assert [p["name"] for p in fit["parameters"]] == [n for n in ROWS if n != "sigma"]
    assert fit["sum_of_squares"] == pytest.approx(np.nansum(maps["residual"] ** 2) / 2, rel=1e-4)


def test_the_simulated_truth_lies_where_the_draws_say(done):
    rows = {row["name"]: row for row in done.read("summary.json")["rows"]}
    truth = {"J_ref(0.9 s)": 2e4, "J_ref(1.5 s)": 2e4, "contrast_0": 1 / 3}
    for name, value in truth.items():
        corrected = rows[name]["corrected"]
        middle = 0.5 * (corrected["low"] + corrected["high"])
        assert abs(value - middle) < 4.0 * corrected["sd"], name


def test_progress_has_a_stage_for_each_pass(done):
    stages = {e.stage for e in done.events if isinstance(e, Progress)}
    assert {"plain draws", "corrected draws"} <= stages


def interrupting(stage, steps):
    """A sink during which the user presses Ctrl-C."""

    def on_event(event):
        if isinstance(event, Progress) and event.stage == stage and event.done >= steps:
            raise KeyboardInterrupt

    return on_event


def test_an_interrupted_run_goes_on_to_the_draws_it_would_have_had(done, tmp_path):
    with pytest.raises(InterruptedRunError, match="The same command goes on with it"):
        go(tmp_path, interrupting("plain draws", 300))
    assert checkpoints(tmp_path) == {checkpoint("plain_nuts")}
    assert not (tmp_path / "summary.json").exists()
    with pytest.raises(InterruptedRunError):
        go(tmp_path, interrupting("corrected draws", 150), resume=True)
    assert checkpoints(tmp_path) == {checkpoint("plain_nuts"), checkpoint("corrected_nuts")}
    events = []
    go(tmp_path, events.append)
    assert Message("Going on with the interrupted run in this folder.") in events
    first = {s: min(e.done for e in events if isinstance(e, Progress) and e.stage == s)
             for s in ("plain draws", "corrected draws")}  # fmt: skip
    assert first == {"plain draws": 350, "corrected draws": 150}
    assert {file.name for file in tmp_path.iterdir()} == FILES
    ours, theirs = (
        xarray.load_datatree(path, engine="h5netcdf")
        for path in (tmp_path / "posterior.nc", done.folder.file("posterior.nc"))
    )
    assert ours.identical(theirs)


def test_weighted_draws_are_interrupted_and_written_alike(done, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for path in (whole, parts):
        path.mkdir()
    go(whole, print, "auto")
    with pytest.raises(InterruptedRunError, match="The same command goes on with it"):
        go(parts, interrupting("plain weights", 2048), "auto")
    assert checkpoints(parts) == {checkpoint("plain_importance")}
    events = []
    go(parts, events.append, "auto", resume=True)
    done_before = min(e.done for e in events if getattr(e, "stage", "") == "plain weights")
    assert done_before == 2048
    assert {file.name for file in whole.iterdir()} == FILES
    ours, theirs = (
        xarray.load_datatree(path / "posterior.nc", engine="h5netcdf") for path in (parts, whole)
    )
    assert ours.identical(theirs)
    assert set(ours["sample_stats"].data_vars) == {"lp"}
    summary = json.loads((whole / "summary.json").read_text(encoding="utf-8"))
    sampler = summary["sampler"]
    assert sampler["engine"] == "importance"
    assert sampler["k_hat"] < 0.7
    assert sampler["kish"] >= 1000
    assert not {"divergences", "bfmi_min", "step_size"} & set(sampler)
    # Both engines describe one posterior.
    walked = {row["name"]: row for row in done.read("summary.json")["rows"]}
    for row in summary["rows"]:
        other = walked[row["name"]]
        assert row["mean"] == pytest.approx(other["mean"], abs=0.4 * other["sd"]), row["name"]
        assert row["sd"] == pytest.approx(other["sd"], rel=0.25), row["name"]


SHARDS = CMC | {"num_shards": 2, "min_ess": 20, "max_r_hat": 1.5, "heterogeneity_abort": False}


def go_sharded(path, on_event=print, transport=None):
    document = CONFIG.model_dump(mode="json")
    document["optimization"]["cmc"] = SHARDS
    document["optimization"]["engine"] = "nuts"
    config = RunConfig.model_validate(document)
    return _pipeline.run(config, speckles(), RunFolder(path), on_event, transport=transport)


def by_hand(path):
    return lambda tasks: [perform(str(path), task.name) for task in tasks]


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """A run of two shards in one process."""
    path, events = tmp_path_factory.mktemp("sharded"), []
    return Run(RunFolder(path), go_sharded(path, events.append), events, checkpoints(path))


def test_a_run_file_may_divide_the_data(sharded):
    told = [event.text for event in sharded.events if isinstance(event, Message)]
    assert "The pairs are divided into 2 shards (random), since num_shards is 2." in told
    assert {checkpoint("shard1_nuts"), checkpoint("shard2_nuts")} <= sharded.kept
    shards = sharded.read("summary.json")["shards"]
    assert (shards["num_shards"], shards["strategy"]) == (2, "random")
    assert sum(one["n_pairs"] for one in shards["each"]) == N_FRAMES * (N_FRAMES - 1) // 2
    assert all(one["converged"] for one in shards["each"])
    rows = {row["name"] for row in sharded.read("summary.json")["rows"] if row["kind"] == "derived"}
    assert set(shards["compared"]) == rows
    for found in shards["compared"].values():
        assert np.shape(found["shards"]) == (2, 3)
        assert (np.diff([*found["shards"], found["combined"]], axis=1) >= 0).all()
    text = " ".join(sharded.finished.verdict.sentences)
    assert "divided into 2 shards (random)" in text
    assert "Held against all pairs" in text


def test_workers_leave_the_files_of_one_process(sharded, tmp_path):
    go_sharded(tmp_path, transport=by_hand(tmp_path))
    ours, theirs = (
        xarray.load_datatree(path / "posterior.nc", engine="h5netcdf")
        for path in (tmp_path, sharded.folder.path)
    )
    assert ours.identical(theirs)
    RunFolder(tmp_path).remove_checkpoints()
    assert {file.name for file in tmp_path.iterdir()} == {*FILES, "work"}
    assert len(WorkFolder.open(tmp_path).records()) == 2
    RunFolder(tmp_path).clear()
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_among_workers_keeps_what_they_did(sharded, tmp_path):
    def interrupted(tasks):
        perform(str(tmp_path), tasks[0].name)
        raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match="The same command goes on with it"):
        go_sharded(tmp_path, transport=interrupted)
    asked, events = [], []

    def rest(tasks):
        asked.extend(task.name for task in WorkFolder.open(tmp_path).unsettled())
        by_hand(tmp_path)(tasks)

    go_sharded(tmp_path, events.append, rest)
    assert asked == ["shard-0002"]
    assert Message("Going on with the interrupted run in this folder.") in events
    ours, theirs = (
        xarray.load_datatree(path / "posterior.nc", engine="h5netcdf")
        for path in (tmp_path, sharded.folder.path)
    )
    assert ours.identical(theirs)


def test_a_run_stopped_before_its_first_draw_starts_anew(tmp_path, monkeypatch):
    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(_pipeline, "fit_run", stopped)
    with pytest.raises(InterruptedRunError, match="the same command starts anew"):
        go(tmp_path, print)
    assert list(tmp_path.iterdir()) == []


def test_settings_about_an_earlier_fit_are_told_to_have_no_effect(tmp_path, monkeypatch):
    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(_pipeline, "fit_run", stopped)
    asked = {
        "nlsq": {"nlsq_prior_width_factor": 3.0},
        "validation": {"require_nlsq_warmstart": True, "allow_degenerate_warmstart": True},
    }
    config = RunConfig.model_validate(
        CONFIG.model_dump() | {"optimization": {"cmc": {**CMC, **asked}}}
    )
    events = []
    with pytest.raises(InterruptedRunError):
        _pipeline.run(config, speckles(), RunFolder(tmp_path), events.append)
    said = {e.text.split(":")[0] for e in events if e.severity == "warning"}
    assert said == {
        "nlsq_prior_width_factor", "require_nlsq_warmstart", "allow_degenerate_warmstart"
    }  # fmt: skip
    assert events[0].text.endswith("always starts its draws at a fit of its own.")
    usual = CONFIG.cmc_config()
    assert list(_pipeline.without_effect(usual)) == []
    (told,) = _pipeline.without_effect(replace(usual, use_nlsq_warmstart=False))
    assert told.startswith("use_nlsq_warmstart: false has no effect")


def test_resume_needs_an_interrupted_run(tmp_path):
    with pytest.raises(ConfigError, match=r"no interrupted run to go on with.*Leave out --resume"):
        go(tmp_path, print, resume=True)
    assert list(tmp_path.iterdir()) == []


def test_speckles_of_the_run_file_reach_the_correction():
    known = CONFIG.model_copy(update={"noise": Noise(effective_speckles=321)})
    assert _pipeline.noise_settings(known, speckles()).effective_speckles == 321.0
    assert _pipeline.noise_settings(CONFIG, speckles()).effective_speckles is None
    for raw in (True, False, None):
        data = replace(speckles(), diagonal_is_raw=raw)
        assert _pipeline.noise_settings(CONFIG, data).diagonal_is_raw is raw


@pytest.mark.parametrize(("phi", "used"), [((PHI,), PHI), (None, 0.0)])
def test_a_single_angle_may_be_unknown(phi, used):
    problem = bind(measured(np.ones((1, N_FRAMES, N_FRAMES)), phi), SPACE)
    assert np.asarray(problem.data.phi).tolist() == [used]


def test_one_of_several_angles_must_be_known():
    data = measured(np.ones((2, N_FRAMES, N_FRAMES)), (10.0, 70.0))
    data = replace(data, bins=(data.bins[0], replace(data.bins[1], phi=None)))
    with pytest.raises(DataError, match=r"no angle is known for bin 2.*Give phi in degrees"):
        bind(data, SPACE)


@pytest.mark.parametrize(
    ("word", "mode", "names"),
    [
        ("individual", ScalingMode.INDIVIDUAL, ("contrast_0", "contrast_1")),
        ("scaled", ScalingMode.INDIVIDUAL, ("contrast_0", "contrast_1")),
        ("averaged", ScalingMode.AVERAGED, ("contrast",)),
        ("auto", ScalingMode.AVERAGED, ("contrast",)),
        ("constant", ScalingMode.CONSTANT, ()),
        ("constant_averaged", ScalingMode.CONSTANT_AVERAGED, ()),
    ],
)
def test_each_word_is_a_way_to_scale(word, mode, names):
    data = measured(np.ones((2, N_FRAMES, N_FRAMES)), (10.0, 70.0))
    scaling = bind(data, SPACE, word, contrast=[0.2, 0.4], offset=[1.0, 1.0]).scaling
    assert (scaling.mode, scaling.names) == (mode, names)
    if not names:
        expected = (0.2, 0.4) if mode is ScalingMode.CONSTANT else (0.3, 0.3)
        assert scaling.contrast.low == pytest.approx(expected)


def test_bind_refuses_other_words_and_constants_without_values():
    data = measured(np.ones((2, N_FRAMES, N_FRAMES)), (10.0, 70.0))
    with pytest.raises(ConfigError, match=r"unknown scaling mode 'each'.*individual"):
        bind(data, SPACE, "each")
    with pytest.raises(ConfigError, match="scaling mode 'constant' without values of the contrast"):
        bind(data, SPACE, "constant")


def test_bad_frames_are_not_fitted():
    data = exclude_frames(speckles(), [3, 4])
    problem = bind(data, SPACE)
    assert problem.n_pairs == data.unique_pairs == 14 * 13 // 2
    np.testing.assert_allclose(problem.fitted_times, np.delete(T, [2, 3]))


def test_constant_modes_hold_what_a_fit_with_a_pair_per_angle_finds(monkeypatch):
    found = SimpleNamespace(contrast=np.array([[0.2, 0.4]]), offset=np.array([[1.0, 1.0]]))
    asked = []

    def fit(problem, config, on_event):
        asked.append(problem.scaling)
        return SimpleNamespace(problem=problem, least_squares=found)

    monkeypatch.setattr(bind_module, "fit_problem", fit)
    data = measured(np.ones((2, N_FRAMES, N_FRAMES)), (10.0, 70.0))
    events = []
    fit_scaled(bind(data, SPACE), ScalingMode.CONSTANT, on_event=events.append)
    assert [s.mode for s in asked] == [ScalingMode.INDIVIDUAL, ScalingMode.CONSTANT]
    assert asked[1].contrast.low == asked[1].contrast.high == (0.2, 0.4)
    assert "do not include their uncertainty" in events[0].text
    asked.clear()
    fit_scaled(bind(data, SPACE), ScalingMode.AVERAGED)
    assert [s.mode for s in asked] == [ScalingMode.AVERAGED]
