import csv
import io
import json
import math

import pytest
from make_run_folder import make_run_folder
from test_report_page import Page, change

from heterodyne.io import files
from heterodyne.io.batch_folder import BatchFolder
from heterodyne.report import batch as pages
from heterodyne.report.members import COLUMNS, summarise, to_csv

WAVEVECTORS = {"q0.003": 0.003, "q0.0054": 0.0054, "q0.0165": 0.0165, "q0.03": 0.03}
FILE = "/data/2024-3/sheared <gel> & ink.hdf"
REFUSED = "only 8 frames are left & that is <too few>."


def settings(file, q):
    return {
        "experimental_data": {"file_path": file},
        "analyzer_parameters": {"scattering": {"wavevector_q": q}},
        "output": {"directory": "elsewhere"},
    }


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """Four members: corrected, plain, not converged, and one without results."""
    folder = tmp_path_factory.mktemp("batch") / "results"
    configs = {name: settings(FILE, q) for name, q in WAVEVECTORS.items()}
    made = BatchFolder.create(folder, configs)
    kinds = ({}, {"corrected": False}, {"converged": False})
    for seed, (name, kind) in enumerate(zip(WAVEVECTORS, kinds, strict=False)):
        run = make_run_folder(folder / name, n_frames=24, phi=(15.0,), seed=seed, **kind)
        change(run, "data.json", lambda data, q=WAVEVECTORS[name]: data.update(q=q))
        (run / "report.html").write_text("<p>")
    return made


@pytest.fixture(scope="module")
def found(batch):
    return pages.write(batch, {"q0.03": REFUSED})


def read(batch, name):
    return json.loads((batch.path / name).read_text(encoding="utf-8"))


def test_verdict_counts_members_and_names_those_that_cannot_be_used(found, batch):
    verdict = found["verdict"]
    assert verdict["converged"] is False
    assert verdict["headline"] == "2 of 4 members converged; 1 did not, 1 without results."
    assert (verdict["n_members"], verdict["n_converged"], verdict["n_without_results"]) == (4, 2, 1)
    bad, none, believe = verdict["sentences"]
    summary = read(batch, "q0.0165/summary.json")
    r_hat = summary["sampler"]["r_hat_max"]
    assert bad.startswith(f"q0.0165 did not converge, do not use it: R-hat {r_hat:.3f} (needed: at")
    assert "BFMI 0.120 (needed: at least 0.3)" in bad
    assert none == f"q0.03 has no results: {REFUSED}"
    assert believe.startswith("Believe the corrected intervals of q0.003 and the plain ones of")


def test_every_quantity_has_the_interval_to_believe(found, batch):
    for one, layer in zip(found["members"][:2], ("corrected", "plain"), strict=True):
        rows = read(batch, f"{one['name']}/summary.json")["rows"]
        assert [row["quantity"] for row in one["rows"]] == [row["name"] for row in rows]
        for row, source in zip(one["rows"], rows, strict=True):
            believed = source["corrected"] if layer == "corrected" else source
            assert row["interval"] == layer
            assert row["informed"] is source["identified"]
            assert [row[k] for k in ("median", "sd", "low", "high")] == [
                believed[k] for k in ("median", "sd", "low", "high")
            ]


def test_figures_of_a_member_are_those_of_its_sampler(found, batch):
    for one in found["members"][:3]:
        sampler = read(batch, f"{one['name']}/summary.json")["sampler"]
        assert one["r_hat"] == sampler["r_hat_max"]
        assert one["ess"] == min(sampler["ess_bulk_min"], sampler["ess_tail_min"])
        assert one["divergences"] == sampler.get("divergences")
    assert [one["converged"] for one in found["members"]] == [True, True, False, None]


def test_document_is_what_is_written(found, batch):
    assert read(batch, "batch.json") == json.loads(files.to_json(found))


def test_table_has_a_line_for_each_quantity(found, batch):
    with (batch.path / "batch.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == tuple(COLUMNS)
    expected = [(one, row) for one in found["members"] for row in one["rows"]]
    assert len(rows) == len(expected) + 1
    for line, (one, row) in zip(rows, expected, strict=False):
        assert (line["member"], line["file"], line["quantity"]) == (
            one["name"],
            FILE,
            row["quantity"],
        )
        assert float(line["q"]) == one["q"]
        assert float(line["low"]) == row["low"]
        assert line["informed"] == str(row["informed"])
        assert line["converged"] == str(one["converged"])
    last = rows[-1]
    assert (last["member"], last["q"], last["problem"]) == ("q0.03", "0.03", REFUSED)
    assert last["median"] == last["converged"] == ""


def test_page_is_whole_loads_nothing_and_leads_to_the_members(found, batch):
    text = (batch.path / "batch.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "http://" not in text
    assert "https://" not in text
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.elements}
    body = text.partition("<body>")[2]
    assert body.index('<header class="verdict mixed"') < body.index("<nav") < body.index("<section")
    links = [attrs["href"] for tag, attrs in page.elements if tag == "a"]
    anchors = [attrs["id"] for tag, attrs in page.elements if tag == "section"]
    for link in links:
        assert link.removeprefix("#") in anchors or (batch.path / link).is_file()
    assert [link for link in links if link.endswith(".html")] == [
        f"{name}/report.html" for name in list(WAVEVECTORS)[:3]
    ]
    assert "2 of 4 members converged" in page.text
    assert REFUSED in page.text
    pictures = [attrs["src"] for tag, attrs in page.elements if tag == "img"]
    assert len(pictures) == 1
    assert (batch.path / "batch.png").read_bytes().startswith(b"\x89PNG")


def test_values_of_a_member_that_did_not_converge_do_not_stand_out(found, batch):
    body = (batch.path / "batch.html").read_text(encoding="utf-8").partition('id="values"')[2]
    table = body.partition("<table")[2].partition("</table>")[0]
    lines = {line.partition("</code>")[0]: line for line in table.split("<code>")[1:]}
    assert lines["q0.003"].count("believed") == 3
    assert "believed" not in lines["q0.0165"]
    assert "q0.03" not in lines


def test_a_batch_without_results_has_a_page_too(tmp_path):
    batch = BatchFolder.create(tmp_path / "none", {"q0.01": settings(FILE, 0.01)})
    found = pages.write(batch, {})
    assert found["verdict"]["headline"] == "The one member has no results."
    assert found["members"][0]["problem"] == "not sampled yet"
    text = (batch.path / "batch.html").read_text(encoding="utf-8")
    assert 'class="verdict bad"' in text
    assert Page(text).text.count("No member has results yet.") == 1
    assert not (batch.path / "batch.png").exists()


def member(file, q, name="m"):
    rows = [
        {"quantity": f"{curve}({t} s)", "median": 2.0, "sd": 0.1, "low": 1.0, "high": 3.0,
         "informed": True}
        for curve in ("J_ref", "J_sample", "v", "s") for t in (1, 5, 9)
    ]  # fmt: skip
    return {"name": name, "file": file, "q": q, "rows": rows, "converged": True}


def layout(*members):
    found = pages._layout(members)
    labels = [found.label(one, k) for one in members for k in range(3)]
    return found.names, [found.x(one) for one in members], labels


def test_q_is_the_axis_where_one_file_has_several():
    names, x, labels = layout(member("/d/a.h5", 0.01), member("/d/a.h5", 0.02))
    assert (names, x) == (None, [0.01, 0.02])
    assert labels == ["t = 1 s", "t = 5 s", "t = 9 s"] * 2


def test_files_are_the_axis_where_each_has_the_same_q():
    names, x, labels = layout(*(member(f"/d/{f}.h5", 0.01) for f in "abc"))
    assert (names, x) == (["a", "b", "c"], [0, 1, 2])
    assert labels[:3] == ["t = 1 s", "t = 5 s", "t = 9 s"]


def test_q_is_the_axis_where_each_file_has_its_own():
    names, x, _ = layout(member("/d/a.h5", 0.01), member("/d/b.h5", 0.02))
    assert (names, x) == (None, [0.01, 0.02])


def test_the_rarer_of_files_and_q_is_drawn_as_series():
    few_files = [member(f"/d/{f}.h5", q) for f in "ab" for q in (0.01, 0.02, 0.03)]
    names, x, labels = layout(*few_files)
    assert (names, x[:3]) == (None, [0.01, 0.02, 0.03])
    assert [label for label in labels if label] == ["a"] * 3 + ["b"] * 3
    few_q = [member(f"/d/{f}.h5", q) for f in "abc" for q in (0.01, 0.02)]
    names, x, labels = layout(*few_q)
    assert (names, x) == (["a", "b", "c"], [0, 0, 1, 1, 2, 2])
    assert [label for label in labels if label][:2] == ["q = 0.01 1/Å", "q = 0.02 1/Å"]


def test_files_of_one_name_are_told_apart():
    names, *_ = layout(*(member(f"/d/{folder}/scan.h5", 0.01) for folder in "ab"))
    assert names == ["a/scan.h5", "b/scan.h5"]


def test_times_that_differ_are_named_by_their_place():
    short, long = member("/d/a.h5", 0.01), member("/d/a.h5", 0.02)
    for row in long["rows"]:
        row["quantity"] = row["quantity"].replace("(9 s)", "(90 s)")
    assert layout(short, long)[2][2] == "90 % of the window"


def test_numbers_that_are_not_finite_leave_cells_empty():
    one = member("/d/a.h5", 0.01) | {"problem": None}
    one["rows"][0]["sd"] = None
    line = next(csv.DictReader(io.StringIO(to_csv([one]))))
    assert line["sd"] == ""
    assert math.isclose(float(line["median"]), 2.0)


def test_the_folder_may_be_seen_under_another_path(batch, tmp_path):
    (tmp_path / "seen").symlink_to(batch.path)
    there = BatchFolder.open(tmp_path / "seen")
    for name, config in there.members.items():
        assert config["output"]["directory"] == str(tmp_path / "seen" / name)
    assert summarise(there, {})["verdict"]["n_converged"] == 2
