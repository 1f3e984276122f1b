import json
import os
import signal
from types import SimpleNamespace

import pytest

from heterodyne import _cores, report
from heterodyne._errors import InterruptedRunError
from heterodyne._events import Message
from heterodyne.cli._tasks import perform
from heterodyne.io.work_folder import Task, WorkFolder
from heterodyne.optimization.cmc import _pipeline
from heterodyne.optimization.cmc._verdict import Verdict
from heterodyne.optimization.cmc.backends import _local_work, cluster


def row(name, *, corrected=None, contraction=0.9, unit="Å/s"):
    low_high = {"low": 900.0, "high": 1100.0}
    return {
        "name": name, "unit": unit, "median": 1000.0, "sd": 50.0, **low_high,
        "corrected": corrected, "contraction": contraction,
    }  # fmt: skip


def verdict_of(converged, fits=True):
    headline = "The chains agree." if converged else "The chains do not agree."
    return Verdict(converged, fits, headline, ("All is well.",), ("Use it.",), "corrected")


def summary(converged=True, fits=True, **changes):
    verdict = json.loads(json.dumps(verdict_of(converged, fits).as_dict()))
    rows = [
        row("v0", corrected={"median": 1000.0, "sd": 80.0, "low": 840.0, "high": 1160.0}),
        row("f0", unit="", contraction=-0.5),
    ]
    return {"verdict": verdict, "rows": rows} | changes


@pytest.fixture
def pipeline(monkeypatch):
    """A sampler that does what a test says instead of drawing."""
    calls = []

    def install(outcome):
        def run(config, data, folder, on_event, *, resume=False, transport=None):
            found = set(folder.path.glob("checkpoint_*"))
            calls.append(
                SimpleNamespace(
                    config=config,
                    data=data,
                    folder=folder,
                    resume=resume,
                    found=found,
                    transport=transport,
                )
            )
            on_event(Message("Drawing."))
            found = outcome()
            folder.write_json("summary.json", found)
            verdict = verdict_of(found["verdict"]["converged"], found["verdict"]["fits"])
            return SimpleNamespace(verdict=verdict, summary=found)

        def build(folder):
            (folder / "report.html").write_text("<p>")
            return folder / "report.html"

        monkeypatch.setattr(_pipeline, "run", run)
        monkeypatch.setattr(report, "build", build)
        return calls

    return install


def test_sample_prints_the_verdict_then_the_table_then_the_report(
    run, run_file, pipeline, tmp_path
):
    calls = pipeline(summary)
    done = run("sample", run_file)
    assert done.code == 0
    assert done.out.splitlines() == [
        "The chains agree.",
        "  All is well.",
        "  Advice: Use it.",
        "",
        "name  median   plain 95 %  corrected 95 %  informed  unit",
        "----  ------  -----------  --------------  --------  ----",
        "v0      1000  900 to 1100     840 to 1160       90%  Å/s",
        "f0      1000  900 to 1100               –        0%  –",
        "",
        "Intervals to believe: corrected.",
        "",
        f"Report: {tmp_path / 'results' / 'report.html'}",
    ]
    assert done.err == "Drawing.\n"
    assert calls[0].resume is False
    assert calls[0].data.n_frames == 24
    assert json.loads((tmp_path / "results" / "manifest.json").read_text())["seed"] == 42


def test_sample_prints_json(run, run_file, pipeline, tmp_path):
    pipeline(summary)
    document = run("sample", run_file, "--json").document
    assert document.pop("folder") == str(tmp_path / "results")
    assert document.pop("report") == str(tmp_path / "results" / "report.html")
    assert document == summary()


def test_a_table_without_corrected_intervals_has_no_such_column(run, run_file, pipeline):
    pipeline(lambda: summary(rows=[row("v0", contraction=None)]))
    done = run("sample", run_file, "--quiet")
    assert "corrected" not in done.out.partition("Intervals to believe")[0]
    assert done.out.splitlines()[6].split() == ["v0", "1000", "900", "to", "1100", "50", "–", "Å/s"]
    assert done.err == ""


def test_a_wide_table_stays_on_the_page(run, run_file, pipeline):
    wide = {"sd": 123.0, "median": 1000.0, "low": -1.2345678e8, "high": 1.2345678e8}
    pipeline(lambda: summary(rows=[row("v0", corrected=wide, unit="Å²/s^(1+alpha)") | wide]))
    lines = run("sample", run_file).out.partition("Report: ")[0].splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[4].split() == [
        "name",
        "median",
        "plain",
        "95",
        "%",
        "corrected",
        "95",
        "%",
        "unit",
    ]


@pytest.mark.parametrize("bad", ["converged", "fits"])
def test_a_run_that_cannot_be_used_is_reported_with_code_3(run, run_file, pipeline, tmp_path, bad):
    pipeline(lambda: summary(**{bad: False}))
    done = run("sample", run_file)
    assert done.code == 3
    assert done.out.startswith("The chains do not agree." if bad == "converged" else "The chains")
    assert "to believe" not in done.out
    assert (tmp_path / "results" / "report.html").exists()


def interrupt():
    raise InterruptedRunError("the run was stopped", where="results", remedy="Run it again")


def test_an_interrupted_run_has_code_130_and_says_how_to_go_on(run, run_file, pipeline):
    pipeline(interrupt)
    done = run("sample", run_file, "--quiet")
    assert (done.code, done.out) == (130, "")
    assert done.err == "heterodyne: results: the run was stopped. Run it again.\n"


def test_a_termination_signal_reaches_the_sampler_as_an_interrupt(run, run_file, pipeline):
    def terminated():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        interrupt()

    pipeline(terminated)
    assert run("sample", run_file, "--quiet").code == 130


def test_resume_goes_on_and_force_starts_anew(run, run_file, pipeline, tmp_path):
    calls = pipeline(summary)
    nowhere = run("sample", run_file, "--resume")
    assert nowhere.code == 1
    assert not (tmp_path / "results").exists()
    assert run("sample", run_file).code == 0
    checkpoint = tmp_path / "results" / "checkpoint_plain.npz"
    checkpoint.write_bytes(b"")
    assert run("sample", run_file, "--resume").code == 0
    assert calls[-1].resume is True
    checkpoint.write_bytes(b"")
    assert run("sample", run_file, "--force").code == 0
    assert calls[-1].found == set()
    both = run("sample", run_file, "--force", "--resume")
    assert both.code == 1
    assert "Give one of them" in both.err


def test_states_stay_until_the_report_is_written(run, run_file, pipeline, tmp_path, monkeypatch):
    checkpoint = tmp_path / "results" / "checkpoint_plain.npz"

    def drawn():
        checkpoint.write_bytes(b"")
        return summary()

    pipeline(drawn)
    build = report.build

    def stopped(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "build", stopped)
    done = run("sample", run_file)
    assert done.code == 130
    assert done.err.endswith("heterodyne: interrupted.\n")
    assert checkpoint.exists()
    monkeypatch.setattr(report, "build", build)
    assert run("sample", run_file).code == 0
    assert not checkpoint.exists()


def test_a_run_file_for_least_squares_is_not_sampled(run, run_file, tmp_path):
    done = run("sample", run_file, "--set", "optimization.method=nlsq")
    assert done.code == 1
    assert "Use 'heterodyne fit', or --set optimization.method=cmc" in done.err
    assert not (tmp_path / "results").exists()


def test_report_is_built_anew(run, run_file, pipeline, tmp_path):
    pipeline(summary)
    run("sample", run_file, "--quiet")
    (tmp_path / "results" / "report.html").unlink()
    done = run("report", "results")
    assert (done.code, done.out) == (0, "The chains agree.\nReport: results/report.html\n")
    assert (tmp_path / "results" / "report.html").exists()
    assert run("report", "results", "--json").document["verdict"] == summary()["verdict"]


def test_report_of_no_run_is_refused(run, tmp_path):
    assert "there is no such folder" in run("report", "nowhere").err
    (tmp_path / "empty").mkdir()
    done = run("report", "empty")
    assert done.code == 1
    assert "this is no run folder" in done.err
    assert list((tmp_path / "empty").iterdir()) == []


SHARDS = ("--set", "optimization.cmc.sharding.num_shards=3")


def backend(name):
    return ("--set", f"optimization.cmc.backend_config.name={name}")


@pytest.mark.parametrize(
    "args", [(), backend("multiprocessing"), (*SHARDS, *backend("cpu"))], ids=len
)
def test_this_process_draws_all_pairs_and_shards_of_one_processor(run, run_file, pipeline, args):
    calls = pipeline(summary)
    assert run("sample", run_file, *args).code == 0
    assert calls[0].transport is None


def chains(number):
    return ("--set", f"optimization.cmc.per_shard_mcmc.num_chains={number}")


@pytest.mark.parametrize(
    ("cores", "args", "drawn_here"),
    [
        (4, chains(4), True),
        (5, chains(4), False),
        (2, chains(1), False),
        (2, ("--set", "optimization.cmc.backend_config.chain_method=sequential"), False),
        (1, chains(1), True),
        (1, backend("multiprocessing"), True),
    ],
)
def test_processes_are_taken_where_chains_leave_processors_idle(
    run, run_file, pipeline, monkeypatch, cores, args, drawn_here
):
    monkeypatch.setattr(_cores, "usable_cores", lambda: cores)
    calls = pipeline(summary)
    assert run("sample", run_file, *SHARDS, *args).code == 0
    assert (calls[0].transport is None) == drawn_here


@pytest.mark.parametrize("name", ["multiprocessing", "worker_pool"])
def test_processes_draw_shards(run, run_file, pipeline, monkeypatch, tmp_path, name):
    monkeypatch.setattr(_cores, "usable_cores", lambda: 4)
    asked = []
    monkeypatch.setattr(_local_work, "run_tasks", lambda *args: asked.append(args))
    calls = pipeline(summary)
    assert run("sample", run_file, *SHARDS, *backend(name)).code == 0
    calls[0].transport(["a task"])
    ((work, folder, tasks, settings, _),) = asked
    assert (work, folder, tasks) == (perform, tmp_path / "results", ["a task"])
    assert settings == _local_work.LocalWork()


@pytest.mark.parametrize(
    "args",
    [(), backend("cpu"), backend("pbs"), ("--set", "cluster.scheduler=slurm")],
    ids=["auto", "cpu", "pbs", "cluster"],
)
def test_so_many_processes_draw_shards_as_workers_asks_for(
    run, run_file, pipeline, monkeypatch, tmp_path, args
):
    monkeypatch.setattr(_cores, "usable_cores", lambda: 1)
    asked = []
    monkeypatch.setattr(_local_work, "run_tasks", lambda *args: asked.append(args))
    calls = pipeline(summary)
    assert run("sample", run_file, *SHARDS, *args, "--workers", 3).code == 0
    calls[0].transport(["a task"])
    ((work, folder, tasks, settings, _),) = asked
    assert (work, folder, tasks) == (perform, tmp_path / "results", ["a task"])
    assert settings == _local_work.LocalWork(workers=3)


def test_a_cluster_draws_shards(run, run_file, pipeline, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(cluster, "run_on_cluster", lambda *args: asked.append(args))
    calls = pipeline(summary)
    section = ("--set", "cluster.scheduler=slurm")
    undivided = run("sample", run_file, *section, "--force")
    assert undivided.code == 0
    assert "warning: The section cluster is not used" in undivided.err
    assert calls.pop().transport is None
    assert run("sample", run_file, *SHARDS, *section, "--force").code == 0
    calls[0].transport(["a task"])
    ((work, folder, tasks, settings, _),) = asked
    assert (work, folder, tasks) == (perform, tmp_path / "results", ["a task"])
    assert settings == calls[0].config.cluster


@pytest.mark.parametrize("name", ["pbs", "pjit"])
def test_backends_that_draw_no_shards_are_refused(run, run_file, pipeline, name):
    pipeline(summary)
    done = run("sample", run_file, *SHARDS, *backend(name))
    assert done.code == 1
    assert f"the backend '{name}' draws no shards of a run" in done.err
    assert "Choose one of these, or describe a cluster in the section cluster" in done.err


def test_force_clears_the_folder_of_work(run, run_file, pipeline, tmp_path):
    pipeline(summary)
    run("sample", run_file)
    WorkFolder.create(tmp_path / "results", "shard", [Task("shard-0001")])
    assert run("sample", run_file).code == 0
    assert WorkFolder.is_in(tmp_path / "results")
    assert run("sample", run_file, "--force").code == 0
    assert not (tmp_path / "results" / "work").exists()
