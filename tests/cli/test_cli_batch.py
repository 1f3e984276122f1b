import csv
import json
import logging
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from heterodyne import report
from heterodyne._errors import DataError, InterruptedRunError
from heterodyne._events import ignore_events
from heterodyne.cli import _batch
from heterodyne.cli.main import main
from heterodyne.config.load import load_run_config
from heterodyne.core.simulate import Detector, creep_flow, simulate_speckles
from heterodyne.data import open_two_time, select
from heterodyne.io.batch_folder import BatchFolder
from heterodyne.io.work_folder import Record, Task, WorkFolder
from heterodyne.optimization.cmc import _passes, _pipeline
from heterodyne.optimization.cmc._verdict import Verdict

WAVEVECTORS = ("0.004", "0.0054", "0.012")
NAMES = [f"q{q}" for q in WAVEVECTORS]
FIXED = """\
parameters:
  reference: {alpha_ref: {vary: false}, D_offset_ref: {vary: false}}
  sample: {alpha_sample: {vary: false}, D_offset_sample: {vary: false}}
  velocity: {beta: {vary: false}, v_offset: {vary: false}}
  fraction: {f1: {vary: false}, f2: {vary: false}, f3: {vary: false}}
  angle: {phi0: {vary: false}}
"""


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A file of three q."""
    path = tmp_path_factory.mktemp("several") / "several.h5"
    at = [arg for q in WAVEVECTORS for arg in ("--q", q)]
    assert main(["simulate", str(path), "--frames", "24", "--pixels", "200", *at, "--quiet"]) == 0
    return path


@pytest.fixture
def batch_file(several, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        f"experimental_data: {{file_path: {several}}}\n"
        "analyzer_parameters: {scattering: {wavevector_q: all}}\n"
    )
    return path


def test_simulated_q_have_speckles_of_their_own(several):
    file = open_two_time(several)
    assert [one.q for one in file.bins] == [float(q) for q in WAVEVECTORS for _ in range(3)]
    for k, q in enumerate(WAVEVECTORS):
        expected = simulate_speckles(replace(creep_flow(24), q=float(q)), Detector(200, 5), seed=k)
        assert np.allclose(select(file, q=float(q)).c2, expected, rtol=1e-6)


def summary(q, *, converged=True, fits=True):
    units = {"J_ref": "Å²/s", "J_sample": "Å²/s", "v": "Å/s", "s": ""}
    rows = [
        {"name": f"{curve}({t} s)", "unit": unit, "kind": "derived", "median": 1e6 * q, "sd": 100.0,
         "low": 1e6 * q - 200, "high": 1e6 * q + 200, "corrected": None, "identified": True}
        for curve, unit in units.items() for t in (0.3, 1.2, 2.2)
    ]  # fmt: skip
    return {
        "verdict": Verdict(converged, fits, "H.", ("Why.",), (), "plain").as_dict(),
        "rows": rows,
        "sampler": {"engine": "importance", "r_hat_max": 1.0 if converged else 1.5,
                    "ess_bulk_min": 900.0, "ess_tail_min": 800.0},
        "thresholds": {"r_hat": 1.01, "ess": 400},
    }  # fmt: skip


@pytest.fixture
def sampler(monkeypatch):
    """A sampler that does for each q what a test says instead of drawing."""
    calls, outcomes = [], {}

    def run(config, data, folder, on_event, **more):
        calls.append(SimpleNamespace(config=config, data=data, folder=folder))
        found = outcomes.get(data.q, summary(data.q))
        if isinstance(found, BaseException):
            raise found
        folder.write_json("summary.json", found)
        return SimpleNamespace(summary=found)

    def build(folder):
        (folder / "report.html").write_text("<p>")
        return folder / "report.html"

    monkeypatch.setattr(_pipeline, "run", run)
    monkeypatch.setattr(report, "build", build)
    return SimpleNamespace(calls=calls, outcomes=outcomes)


def test_each_member_is_a_run_and_the_summary_lies_beside(run, batch_file, sampler, tmp_path):
    done = run("sample", batch_file)
    assert done.code == 0
    assert [call.data.q for call in sampler.calls] == [0.004, 0.0054, 0.012]
    assert {call.data.n_angles for call in sampler.calls} == {3}
    results = tmp_path / "results"
    assert [call.folder.path for call in sampler.calls] == [results / name for name in NAMES]
    for name in NAMES:
        written = json.loads((results / name / "config.json").read_text())
        assert written["analyzer_parameters"]["scattering"]["wavevector_q"] == float(name[1:])
        assert (results / name / "manifest.json").is_file()
    lines = done.out.splitlines()
    assert lines[0] == "All 3 members converged."
    assert lines[5].split() == [
        "member", "J_ref", "(Å²/s)", "J_sample", "(Å²/s)", "v", "(Å/s)", "s", "believe",
    ]  # fmt: skip
    assert lines[7].split() == ["q0.004", *["4000", "±", "100"] * 4, "plain"]
    assert lines[-1] == f"Report: {results / 'batch.html'}"
    assert "q0.0054, 2 of 3\nq0.0054: converged, R-hat 1, 800 effective draws\n" in done.err
    assert max(map(len, lines[:-1])) <= 100
    with (results / "batch.csv").open(encoding="utf-8") as stream:
        assert {row["member"] for row in csv.DictReader(stream)} == set(NAMES)


def test_a_member_without_results_or_convergence_leaves_the_others_alone(
    run, batch_file, sampler, tmp_path
):
    sampler.outcomes |= {
        0.004: DataError("the beam was off", where="several.h5"),
        0.0054: summary(0.0054, converged=False),
    }
    done = run("sample", batch_file, "--json", "--quiet")
    assert done.code == 3
    document = done.document
    assert [one["converged"] for one in document["members"]] == [None, False, True]
    assert document["members"][0]["problem"] == "several.h5: the beam was off."
    assert document["members"][1]["reasons"] == ["R-hat 1.500 (needed: at most 1.01)"]
    assert document["verdict"]["headline"] == (
        "1 of 3 members converged; 1 did not, 1 without results."
    )
    assert done.err == "warning: q0.004: several.h5: the beam was off.\n"
    assert json.loads((tmp_path / "results" / "batch.json").read_text()).items() <= document.items()


def test_a_member_whose_model_does_not_fit_is_not_to_be_used(run, batch_file, sampler):
    sampler.outcomes |= {0.0054: summary(0.0054, fits=False)}
    done = run("sample", batch_file, "--json", "--quiet")
    assert done.code == 3
    assert [one["converged"] for one in done.document["members"]] == [True, False, True]
    assert done.document["members"][1]["reasons"] == ["the model does not fit"]


def test_a_batch_without_any_results_has_the_code_of_data(run, batch_file, sampler):
    sampler.outcomes |= dict.fromkeys((0.004, 0.0054, 0.012), DataError("no"))
    done = run("sample", batch_file, "--quiet")
    assert done.code == 2
    assert "q0.012 has no results: no." in done.out


def test_finished_members_are_not_sampled_again_and_others_are(run, batch_file, sampler, tmp_path):
    sampler.outcomes[0.0054] = DataError("not yet")
    assert run("sample", batch_file, "--quiet").code == 3
    assert len(sampler.calls) == 3
    sampler.outcomes.clear()
    assert run("sample", batch_file, "--quiet", "--resume").code == 0
    assert [call.data.q for call in sampler.calls[3:]] == [0.0054]
    (tmp_path / "results" / "q0.012" / "report.html").unlink()
    assert run("sample", batch_file, "--quiet").code == 0
    assert [call.data.q for call in sampler.calls[4:]] == [0.012]
    assert run("sample", batch_file, "--quiet", "--force").code == 0
    assert len(sampler.calls) == 8


def test_a_batch_may_grow(run, batch_file, sampler):
    fewer = "analyzer_parameters.scattering.wavevector_q=[0.0054]"
    assert run("sample", batch_file, "--quiet", "--set", fewer).code == 0
    assert run("sample", batch_file, "--quiet").code == 0
    assert [call.data.q for call in sampler.calls] == [0.0054, 0.004, 0.012]


def test_a_finished_run_of_one_q_becomes_a_member(run, batch_file, sampler, tmp_path):
    alone = ("--set", "analyzer_parameters.scattering.wavevector_q=0.0054",
             "--set", "output.directory=results/q0.0054")  # fmt: skip
    config = load_run_config(batch_file, alone[1::2])
    _batch._sampled(config, ignore_events)
    assert run("sample", batch_file, "--quiet").code == 0
    assert [call.data.q for call in sampler.calls] == [0.0054, 0.004, 0.012]


def test_folders_of_other_settings_are_refused_before_any_work(run, batch_file, sampler, tmp_path):
    assert run("sample", batch_file, "--quiet").code == 0
    done = run("sample", batch_file, "--set", "optimization.nlsq.seed=5")
    assert done.code == 1
    assert "q0.004: it holds results of other settings" in done.err
    assert len(sampler.calls) == 3
    (tmp_path / "single").mkdir()
    (tmp_path / "single" / "manifest.json").write_text("{}")
    done = run("sample", batch_file, "--set", "output.directory=single")
    assert (done.code, "holds the results of a single run" in done.err) == (1, True)
    assert "there is no members.json" in run(
        "sample", batch_file, "--resume", "--set", "output.directory=nowhere"
    ).err  # fmt: skip


def test_changed_data_of_a_finished_member_are_noticed(run, sampler, tmp_path):
    at = ("--q", "0.004", "--frames", "24", "--pixels", "200", "--quiet", "--force")
    assert run("simulate", "a.h5", *at).code == 0
    Path("run.yaml").write_text("experimental_data: {file_path: [a.h5]}")
    assert run("sample", "run.yaml", "--quiet").code == 0
    assert run("simulate", "a.h5", *at, "--seed", 1).code == 0
    done = run("sample", "run.yaml", "--quiet")
    assert done.code == 2
    # Where lines are broken depends on the length of the path.
    assert "results of other data" in " ".join(done.out.split())


def test_an_interrupted_batch_has_code_130_and_goes_on(run, batch_file, sampler, tmp_path):
    sampler.outcomes[0.0054] = InterruptedRunError("the run was stopped", where="q0.0054")
    done = run("sample", batch_file, "--quiet")
    assert (done.code, done.out) == (130, "")
    assert not (tmp_path / "results" / "batch.json").exists()
    sampler.outcomes.clear()
    assert run("sample", batch_file, "--quiet").code == 0
    assert [call.data.q for call in sampler.calls] == [0.004, 0.0054, 0.0054, 0.012]


def test_termination_while_data_are_read_stops_the_batch(run, batch_file, sampler, monkeypatch):
    def stopped(config, **more):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("heterodyne.data.run_data.read_run_data", stopped)
    assert run("sample", batch_file, "--quiet").code == 130


def test_missing_files_are_refused_before_any_work(run, batch_file, sampler, tmp_path):
    gone = ("--set", "experimental_data.file_path=[gone.h5, lost_*.h5]")
    done = run("sample", batch_file, *gone)
    assert done.code == 2
    assert f"{tmp_path / 'gone.h5'}, {tmp_path / 'lost_*.h5'} (a pattern" in done.err
    assert not (tmp_path / "results").exists()


def test_other_processes_share_the_members(run, batch_file, sampler, tmp_path, monkeypatch):
    shared = []

    def run_tasks(perform, folder, tasks, settings, on_event):
        shared.append([(task.name, task.cost) for task in tasks] + [settings.workers])
        for task in tasks:
            perform(str(folder), task.name)

    local = "heterodyne.optimization.cmc.backends._local_work.run_tasks"
    monkeypatch.setattr(local, run_tasks)
    sampler.outcomes[0.004] = DataError("the beam was off")
    done = run("sample", batch_file, "--workers", 2, "--json", "--quiet")
    assert done.code == 3
    assert shared == [[*((name, 24.0**2) for name in NAMES), 2]]
    assert [one["problem"] for one in done.document["members"]] == ["the beam was off.", None, None]
    records = WorkFolder.open(tmp_path / "results").records()
    assert records["q0.0054"].figures == {
        "r_hat": 1.0,
        "ess": 800.0,
        "divergences": None,
        "converged": True,
    }
    sampler.outcomes.clear()
    by_backend = ("--set", "optimization.cmc.backend_config.name=multiprocessing", "--force")
    assert run("sample", batch_file, *by_backend, "--quiet").code == 0
    assert shared[1][-1] is None
    assert len(sampler.calls) == 6


def test_workers_are_refused_for_a_single_run_that_is_not_divided(run, run_file, sampler, tmp_path):
    done = run("sample", run_file, "--workers", 2)
    assert done.code == 1
    assert "this is one run over all pairs" in done.err
    assert "--set optimization.cmc.sharding.num_shards=8" in " ".join(done.err.split())
    assert not (tmp_path / "results").exists()


def test_a_folder_of_work_for_other_members_makes_way(tmp_path):
    batch = BatchFolder(tmp_path)
    first = [Task("a"), Task("b")]
    work = batch.work(first)
    claim = work.claim("a")
    work.settle(claim, Record("the disk was full", 1.0, 1, "here"))
    claim.give_back()
    assert [task.name for task in batch.work(first).unsettled()] == ["a", "b"]
    grown = batch.work([*first, Task("c")])
    assert list(grown.tasks) == ["a", "b", "c"]
    claim = grown.claim("b")
    grown.settle(claim, Record(None, 1.0, 1, "here"))
    claim.give_back()
    assert [task.name for task in batch.work([*first, Task("c")]).unsettled()] == ["a", "b", "c"]


def test_report_of_a_batch_is_built_anew(run, batch_file, sampler, tmp_path):
    sampler.outcomes[0.012] = DataError("the beam was off")
    assert run("sample", batch_file, "--quiet").code == 3
    results = tmp_path / "results"
    for name in ("batch.html", "batch.csv", "q0.004/report.html"):
        (results / name).unlink()
    done = run("report", "results")
    assert done.code == 0
    assert done.out.splitlines() == [
        "2 of 3 members converged; 1 without results.",
        "Report: results/batch.html",
    ]
    assert (results / "q0.004" / "report.html").is_file()
    assert "the beam was off" in (results / "batch.html").read_text()


def test_check_shows_the_members_and_their_cost(run, batch_file, several, tmp_path):
    done = run("check", batch_file)
    assert done.code == 0
    assert done.out.startswith(f"{batch_file} is valid; a batch of 3 members.\n")
    rows = [line.split()[:5] for line in done.out.splitlines() if line.startswith("q0")]
    assert rows == [[name, name[1:], "3", "24", "828"] for name in NAMES]
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]
    document = run("check", batch_file, "--json").document
    alone = run(
        "check", batch_file, "--json", "--set", "analyzer_parameters.scattering.wavevector_q=0.004"
    ).document["predicted"]
    assert document["predicted"]["n_pairs"] == 3 * alone["n_pairs"]
    assert document["predicted"]["memory_bytes"] == alone["memory_bytes"]
    assert alone["fit_s"] < document["predicted"]["fit_s"] < 3 * alone["fit_s"]


def test_check_names_members_that_cannot_be_used(run, batch_file, several, tmp_path):
    (tmp_path / "broken.h5").write_text("no data")
    files = f"experimental_data.file_path=[{several}, broken.h5]"
    done = run("check", batch_file, "--set", files)
    assert done.code == 2
    assert "broken" in done.out.partition("Findings:")[2]
    assert "neither HDF5 nor .npz" in done.out.replace("\n", " ")
    short = run("check", batch_file, "--set", "analyzer_parameters.end_frame=8", "--json")
    assert short.code == 2
    assert all("Only 8 frames" in one["problem"] for one in short.document["members"])


def test_init_writes_all_q_on_request(run, several):
    assert "or each of them with --q all" in run("init", several).err
    assert run("init", several, "--q", "all").code == 0
    config = load_run_config("run.yaml")
    assert config.analyzer_parameters.scattering.wavevector_q == "all"
    assert [one.name for one in _batch.members(config)] == NAMES
    done = run("init", several, "-o", "b.yaml", "--q", "every")
    assert (done.code, "--q: 'every' is no wavevector" in done.err) == (1, True)


@pytest.fixture(scope="module")
def real(several, tmp_path_factory):
    """Two q of a file and a damaged file, fitted and sampled; compilations of each member."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "broken.h5").write_text("no data")
    run_file = folder / "run.yaml"
    run_file.write_text(
        f"experimental_data: {{file_path: [{several}, broken.h5]}}\n"
        "analyzer_parameters: {scattering: {wavevector_q: [0.0054, 0.012]}}\n"
        f"{FIXED}"
        "optimization:\n"
        "  engine: importance\n"
        "  nlsq: {n_starts: 2}\n"
        "  cmc: {per_shard_mcmc: {num_chains: 2, num_samples: 300}}\n"
    )
    compiled = _Compiled()
    with pytest.MonkeyPatch.context() as patch, jax.log_compiles(), compiled:
        member = _batch.sample_member

        def counted(folder, name, on_event):
            compiled.counts[name] = 0
            return member(folder, name, on_event)

        patch.setattr(_batch, "sample_member", counted)
        patch.setattr(_passes, "MOST", 4096)
        code = main(["sample", str(run_file), "--quiet"])
    results = folder / "results"
    return SimpleNamespace(code=code, run_file=run_file, folder=results, compiled=compiled.counts)


class _Compiled(logging.Handler):
    """Counts compilations under the name that came last."""

    def __init__(self):
        super().__init__()
        self.counts = {}

    def __enter__(self):
        self._logger = logging.getLogger("jax")
        self._propagate, self._logger.propagate = self._logger.propagate, False
        self._logger.addHandler(self)

    def __exit__(self, *ended):
        self._logger.removeHandler(self)
        self._logger.propagate = self._propagate

    def emit(self, record):
        if record.getMessage().startswith("Compiling ") and self.counts:
            self.counts[list(self.counts)[-1]] += 1


def test_a_real_batch_samples_its_members(real):
    document = json.loads((real.folder / "batch.json").read_text(encoding="utf-8"))
    names = [one["name"] for one in document["members"]]
    assert names == ["several_q0.0054", "several_q0.012", "broken_q0.0054", "broken_q0.012"]
    assert real.code == 3
    assert document["verdict"]["n_without_results"] == 2
    for one in document["members"][:2]:
        assert one["r_hat"] < 1.1
        assert (real.folder / one["report"]).stat().st_size > 1e5
        velocity = next(row for row in one["rows"] if row["quantity"].startswith("v("))
        assert velocity["low"] < velocity["median"] < velocity["high"]
        assert velocity["interval"] == one["believe"]
    assert "neither HDF5" in document["members"][2]["problem"]


def test_members_of_one_shape_are_compiled_once(real):
    first, second, *_ = real.compiled.values()
    assert first > 50
    assert second < 0.1 * first


def test_fit_fits_the_members_and_names_those_it_cannot(run, real, tmp_path):
    args = ("fit", real.run_file, "--set", f"output.directory={tmp_path / 'fits'}", "--quiet")
    done = run(*args, "--json")
    found = done.document["members"]
    assert done.code == 3
    assert ["problem" in one for one in found] == [False, False, True, True]
    for one in found[:2]:
        assert one["success"]
        written = json.loads((Path(one["folder"]) / "fit.json").read_text(encoding="utf-8"))
        assert written.items() <= one.items()
    lines = run(*args).out.splitlines()
    assert lines[:3] == ["several_q0.0054", "---------------", "The fit converged."]
    assert "broken_q0.012" in lines
