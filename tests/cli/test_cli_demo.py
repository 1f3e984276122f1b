import math
from types import SimpleNamespace

import numpy as np
import pytest
from cli_files import SMALL
from matplotlib.figure import Figure
from PIL import Image

from heterodyne import report
from heterodyne.cli import demo
from heterodyne.data.truth import read_truth
from heterodyne.io.run_folder import CURVES, MAPS, RunFolder
from heterodyne.optimization.cmc import _pipeline
from heterodyne.optimization.cmc._verdict import Verdict
from heterodyne.viz import posterior


def interval(low, high):
    return {"median": (low + high) / 2, "sd": (high - low) / 4, "low": low, "high": high}


def row(name, low, high, *, kind="parameter", corrected=None):
    known = {"name": name, "kind": kind, "unit": "", "contraction": 0.9, **interval(low, high)}
    return known | {"corrected": corrected and interval(*corrected)}


# The times are 10, 50 and 90 % of 24 frames that are 0.1 s apart; there f1 = -0.08, f2 = 1.
FRACTION = {t: 0.4 * math.exp(-0.08 * (t - 1)) + 0.25 for t in (0.3, 1.3, 2.2)}
ROWS = [
    row("v0", 900.0, 990.0, corrected=(850.0, 1100.0)),
    row("beta", -0.5, -0.3, corrected=(-0.6, -0.2)),
    row("contrast_0", 0.19, 0.21, kind="scaling"),
    row("contrast_1", 0.21, 0.22, kind="scaling"),
    row("sigma", 0.1, 0.2, kind="noise"),
    *(row(f"s({t} s)", x - 1e-6, x + 1e-6, kind="derived") for t, x in FRACTION.items()),
    row("s(9 s)", 0.0, 1.0, kind="derived"),
]


@pytest.fixture
def sampler(monkeypatch):
    """A sampler that finds what a test says."""
    calls = SimpleNamespace(converged=True, commands=[])

    def run(config, data, folder, on_event, *, resume=False, transport=None):
        verdict = Verdict(calls.converged, True, "Drawn.", (), (), "corrected")
        summary = {"verdict": verdict.as_dict(), "rows": ROWS}
        calls.commands.append(folder.manifest["command"])
        folder.write_json("summary.json", summary)
        return SimpleNamespace(verdict=verdict, summary=summary)

    def build(folder):
        path = folder / "report.html"
        path.write_text("<p>")
        return path

    monkeypatch.setattr(_pipeline, "run", run)
    monkeypatch.setattr(report, "build", build)
    monkeypatch.setattr(demo, "draw", lambda *_: None)
    return calls


@pytest.fixture
def run_demo(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(**options):
        code = demo.main(["demo"], simulate=SMALL, **options)
        return SimpleNamespace(code=code, **capsys.readouterr()._asdict())

    return call


def test_demo_runs_the_commands_that_it_shows(run_demo, sampler):
    done = run_demo()
    assert done.code == 0
    shown = [line for line in done.err.splitlines() if line.startswith("$ ")]
    assert shown == [
        f"$ heterodyne simulate demo/two_time.h5 --force {' '.join(SMALL)}",
        "$ heterodyne init demo/two_time.h5 -o demo/run.yaml --force",
        "$ heterodyne check demo/run.yaml",
        "$ heterodyne sample demo/run.yaml --force",
        "$ heterodyne report demo/results",
    ]
    assert sampler.commands == [["heterodyne", "sample", "demo/run.yaml", "--force"]]
    assert done.out.splitlines()[-1].endswith("demo/results/report.html")


def test_demo_counts_the_intervals_that_hold_the_truth(run_demo, sampler):
    lines = run_demo().out.splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("name") and "truth" in line)
    table = {line.split("  ")[0]: line.split() for line in lines[start + 2 : start + 9]}
    assert list(table) == [
        "v0",
        "beta",
        "contrast_0",
        "contrast_1",
        *(f"s({t} s)" for t in FRACTION),
    ]
    assert " ".join(table["v0"]) == "v0 1000 975 900 to 990 no 850 to 1100 yes"
    assert table["contrast_1"][-3:] == ["no", "–", "–"]
    assert all(table[f"s({t} s)"][-3:] == ["yes", "–", "–"] for t in FRACTION)
    assert "The truth is inside 5 of 7 plain intervals and 2 of 2 corrected intervals." in lines


def test_demo_again_replaces_its_own_files_only(run_demo, sampler, tmp_path):
    sampler.converged = False
    assert run_demo().code == 3
    other = tmp_path / "demo" / "notes.txt"
    other.write_text("mine")
    before = (tmp_path / "demo" / "results" / "manifest.json").stat().st_mtime_ns
    sampler.converged = True
    assert run_demo().code == 0
    assert other.read_text() == "mine"
    assert (tmp_path / "demo" / "results" / "manifest.json").stat().st_mtime_ns > before


def test_demo_stops_at_the_command_that_fails(run_demo, sampler, tmp_path):
    (tmp_path / "demo" / "run.yaml").mkdir(parents=True)
    done = run_demo()
    assert done.code == 1
    assert done.err.count("$ heterodyne") == 2
    assert sampler.commands == []


@pytest.mark.parametrize("words", [[], ["--help"], ["a", "b"]])
def test_demo_needs_one_folder(words, capsys):
    assert demo.main(words) == 1
    assert capsys.readouterr().err == "Usage: python -m heterodyne.cli.demo FOLDER\n"


def test_demo_says_where_a_folder_cannot_be(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    assert demo.main([str(file)]) == 1
    assert capsys.readouterr().err.startswith(f"{file}: the folder cannot be made")


def test_demo_draws_the_true_curves_over_the_bands(simulated, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(posterior, "bands", lambda *args: drawn.append(args) or Figure((2, 1)))
    folder = RunFolder.create(tmp_path / "results", {})
    matrices = {name: np.ones((3, 8, 8)) for name in ("measured", "model", "residual")}
    folder.write_npz(MAPS, matrices | {"t": 0.1 * np.arange(1.0, 9.0), "phi": np.zeros(3)})
    t = np.array([0.5, 1.0, 2.0])
    folder.write_npz(CURVES, {"t": t, "s_plain": np.ones((3, 3))})
    demo.draw(simulated, folder.path, tmp_path)
    truth = drawn[0][2]
    p = read_truth(simulated)
    np.testing.assert_allclose(truth["s"], p["f0"] * np.exp(p["f1"] * (t - p["f2"])) + p["f3"])
    np.testing.assert_allclose(truth["v"], p["v0"] * t ** p["beta"] + p["v_offset"])
    power = p["D0_ref"] * t ** p["alpha_ref"]
    np.testing.assert_allclose(truth["J_ref"], power + p["D_offset_ref"])
    assert {path.name for path in tmp_path.glob("*.png")} == {"fit.png", "curves.png"}
    with Image.open(tmp_path / "fit.png") as image:
        assert image.size[0] > 500
