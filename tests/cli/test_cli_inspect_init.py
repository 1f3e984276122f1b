import h5py
import numpy as np
import pytest

from heterodyne.config.load import load_run_config
from heterodyne.data import write_layout_a
from heterodyne.data.run_data import read_run_data


@pytest.fixture
def two_q(tmp_path):
    """A file of two q with three and two angles."""
    lag = np.abs(np.subtract.outer(np.arange(60), np.arange(60)))
    c2 = 1.0 + 0.3 * np.exp(-lag / 8.0)[None] * np.ones((5, 1, 1))
    c2 += np.random.default_rng(0).normal(scale=1e-3, size=(1, 1, 60)) * np.eye(60)
    return write_layout_a(
        tmp_path / "two.h5",
        c2,
        q_axis=[0.004, 0.008],
        phi_axis=[0.0, 45.0, 90.0],
        cells=[0, 1, 2, 3, 5],
        frame_time=0.5,
    )


def rows_of(text):
    lines = text.splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("---")) + 1
    end = lines.index("", start)
    return [line.split() for line in lines[start:end]]


def test_inspect_shows_bins_times_and_findings(run, two_q):
    done = run("inspect", two_q)
    assert done.code == 0
    assert rows_of(done.out) == [
        ["1", "0.004", "0.00"],
        ["2", "0.004", "45.00"],
        ["3", "0.004", "90.00"],
        ["4", "0.008", "0.00"],
        ["5", "0.008", "90.00"],
    ]
    assert "60, 0.5 s apart" in done.out
    assert "0.5 to 30 s (time origin: absolute)" in done.out
    assert "Looked at 3 of 3 angles at q = 0.004 1/Å, frames 1 to 60 of 60." in done.out
    assert "aps_u" in done.out
    assert max(map(len, done.out.splitlines())) <= 100


def test_inspect_draws_in_the_working_directory(run, two_q, tmp_path):
    done = run("inspect", two_q)
    assert done.out.endswith("Picture: two.maps.png\n")
    assert (tmp_path / "two.maps.png").read_bytes().startswith(b"\x89PNG")


def test_inspect_draws_where_it_is_told_or_not_at_all(run, two_q, tmp_path):
    assert run("inspect", two_q, "--picture", "x.pdf").code == 0
    assert (tmp_path / "x.pdf").read_bytes().startswith(b"%PDF")
    (tmp_path / "x.pdf").unlink()
    assert run("inspect", two_q, "--no-picture").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["two.h5"]
    assert run("inspect", two_q, "--picture", "x.foo").code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["two.h5"]


def test_inspect_takes_the_nearest_q_and_prints_json(run, two_q):
    document = run("inspect", two_q, "--q", 0.0079, "--no-picture", "--json").document
    assert document["looked_at"].startswith("Looked at 2 of 2 angles at q = 0.008 1/Å")
    assert document["bins"][3] == {"label": 4, "q": 0.008, "phi": 0.0}
    assert (document["n_frames"], document["dt"], document["t_last"]) == (60, 0.5, 30.0)
    assert document["layout"] == "aps_u"
    assert document["picture"] is None


def test_inspect_shows_data_that_cannot_be_fitted(run, two_q):
    with h5py.File(two_q, "r+") as file:
        maps = file["/xpcs/twotime/correlation_map"]
        matrix = maps["c2_00002"][()]
        matrix[:, 30] = np.nan
        matrix[30, :] = np.nan
        maps["c2_00002"][...] = matrix
    document = run("inspect", two_q, "--json").document
    found = {one["code"]: one for one in document["findings"]}
    assert found["not_finite"]["severity"] == "error"
    assert "bin 2" in found["not_finite"]["text"]
    assert "bad_frames: [31]" in found["not_finite"]["advice"]


def test_inspect_lists_many_bins_by_q(run, tmp_path):
    path = write_layout_a(
        tmp_path / "many.h5",
        np.broadcast_to(1 + 0.2 * np.eye(12) + 0.1, (60, 12, 12)),
        q_axis=np.linspace(0.002, 0.03, 5),
        phi_axis=np.arange(12) * 30.0,
        frame_time=0.1,
    )
    rows = rows_of(run("inspect", path, "--no-picture").out)
    assert len(rows) == 5
    assert rows[0][:4] == ["0.002", "12", "0.00,", "30.00,"]


def test_init_fills_in_what_the_file_says(run, two_q, tmp_path):
    (tmp_path / "sub").mkdir()
    done = run("init", two_q, "-o", "sub/mine.yaml", "--q", 0.008)
    assert done.code == 0
    assert done.out == "Wrote sub/mine.yaml; next: heterodyne check sub/mine.yaml\n"
    config = load_run_config("sub/mine.yaml")
    analyzer = config.analyzer_parameters
    assert (analyzer.dt, analyzer.end_frame, analyzer.scattering.wavevector_q) == (0.5, 60, 0.008)
    assert config.experimental_data.file_path == str(two_q)
    assert "../two.h5" in (tmp_path / "sub" / "mine.yaml").read_text()
    assert "Angles of the file (deg): 0, 90\n" in (tmp_path / "sub" / "mine.yaml").read_text()
    assert [one.label for one in read_run_data(config).bins] == [4, 5]


def test_init_asks_for_q_where_there_are_several(run, two_q, tmp_path):
    done = run("init", two_q)
    assert done.code == 1
    assert "two.h5: the file has 2 wavevectors. Allowed: q = 0.004, 0.008 1/Å." in done.err
    assert "--q 0.004" in done.err
    assert not (tmp_path / "run.yaml").exists()


def test_init_refuses_a_q_that_is_not_there(run, two_q, tmp_path):
    done = run("init", two_q, "--q", 0.006)
    assert done.code == 1
    assert "Allowed: q = 0.004, 0.008 1/Å" in done.err
    assert not (tmp_path / "run.yaml").exists()


def test_init_never_replaces_the_data(run, simulated):
    before = simulated.read_bytes()
    done = run("init", simulated, "-o", simulated, "--force")
    assert done.code != 0
    assert "the run file would replace the data" in " ".join(done.err.split())
    assert simulated.read_bytes() == before


def test_init_keeps_a_run_file_unless_forced(run, simulated, tmp_path):
    (tmp_path / "run.yaml").write_text("mine")
    assert run("init", simulated).code == 1
    assert (tmp_path / "run.yaml").read_text() == "mine"
    done = run("init", simulated, "--force")
    assert done.code == 0
    assert load_run_config("run.yaml").analyzer_parameters.end_frame == 24
    assert "Only 24 frames are fitted." in done.err


def test_init_gives_dt_to_a_file_without_one(run, tmp_path):
    np.savez(tmp_path / "a.npz", c2=1.1 + 0.2 * np.eye(20), q=0.01, phi=0.0)
    done = run("init", "a.npz")
    assert done.code == 2
    assert "time between frames" in done.err
    assert run("init", "a.npz", "--dt", 0.2).code == 0
    assert load_run_config("run.yaml").analyzer_parameters.dt == 0.2
