import base64
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
from make_run_folder import OPEN, TRUTH, make_run_folder

from heterodyne._errors import ConfigError
from heterodyne.report import build
from heterodyne.report.facts import sampler
from heterodyne.report.page import render
from heterodyne.report.run import read

VOID = {"meta", "img", "br", "hr", "link", "input"}
ANCHORS = [
    "quantities", "fit", "parameters", "identifiability", "priors", "sampler", "data", "noise",
    "provenance", "words",
]  # fmt: skip


class Page(HTMLParser):
    """Text, elements and rows of a page; fails where elements are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.words, self.style = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            self.style += data
        elif data.strip():
            self.words.append(data.strip())

    @property
    def text(self):
        return " ".join(self.words)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    good = make_run_folder(root / "good", n_frames=40)
    bad = make_run_folder(root / "bad", converged=False, corrected=False, n_frames=40)
    return {"good": good, "bad": bad}


@pytest.fixture(scope="module")
def pages(folders):
    return {name: build(folder).read_text(encoding="utf-8") for name, folder in folders.items()}


@pytest.fixture
def copy(folders, tmp_path):
    """A folder of its own, without the fit's maps, which take longest to draw."""
    folder = tmp_path / "run"
    shutil.copytree(folders["good"], folder)
    (folder / "maps.npz").unlink()
    return folder


def change(folder, name, edit):
    path = folder / name
    value = json.loads(path.read_text(encoding="utf-8"))
    edit(value)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.mark.parametrize("name", ["good", "bad"])
def test_page_is_whole_and_loads_nothing(pages, name):
    page = Page(pages[name])
    assert "http://" not in pages[name]
    assert "https://" not in pages[name]
    assert "url(" not in page.style
    assert "@import" not in page.style
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.elements}
    sources = [attrs["src"] for _, attrs in page.elements if "src" in attrs]
    assert len(sources) >= 10
    for source in sources:
        kind, _, content = source.partition(";base64,")
        start = base64.b64decode(content)[:8]
        assert start == b"\x89PNG\r\n\x1a\n" if kind == "data:image/png" else start == b"<?xml ve"
    assert len(pages[name]) < 5_000_000


@pytest.mark.parametrize("name", ["good", "bad"])
def test_verdict_comes_first_and_the_rest_in_order(pages, name):
    body = pages[name].partition("<body>")[2]
    assert body.index('<header class="verdict') < body.index("<nav")
    order = [body.index(f'id="{anchor}"') for anchor in ANCHORS]
    assert order == sorted(order)
    assert body.index("<nav") < order[0]
    page = Page(pages[name])
    links = [attrs["href"] for tag, attrs in page.elements if tag == "a"]
    assert links == [f"#{anchor}" for anchor in ANCHORS]
    assert [tag for tag, _ in page.elements].count("h1") == 1


def test_pictures_say_what_they_show(pages):
    pictures = [attrs for tag, attrs in Page(pages["good"]).elements if tag == "img"]
    assert all(len(attrs["alt"]) > 10 for attrs in pictures)


def test_converged_run_says_so_and_what_to_believe(pages):
    top = Page(pages["good"].partition("<nav")[0].partition("<body>")[2] + "</main>").text
    assert top.startswith("✓ The sampler has converged")
    assert "Believe the corrected intervals." in top
    assert "Quote J, v and s" in top
    assert "not converged" not in Page(pages["good"]).text


def test_run_that_did_not_converge_says_so_on_top(pages):
    words = Page(pages["bad"]).words
    start = words.index("✗")
    assert words[start + 1] == "The sampler has not converged: do not use these numbers."
    believe = words.index("What to believe")
    assert words[believe + 1] == "Nothing yet."
    assert words[believe + 2].startswith("The sampler has not converged")
    assert words[start - 1].endswith("heterodyne report")
    assert "Believe the" not in Page(pages["bad"]).text
    assert pages["bad"].count('<table class="doubtful">') == 3


def test_a_run_whose_model_does_not_fit_says_so_on_top(folders, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(folders["good"], folder)
    path = folder / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8"))
    summary["verdict"] |= {"fits": False, "headline": "The model does not fit."}
    path.write_text(json.dumps(summary), encoding="utf-8")
    text = render(read(folder))
    words = Page(text).words
    assert words[words.index("✗") + 1] == "The model does not fit."
    assert words[words.index("What to believe") + 1] == "Nothing yet."
    assert "has not converged" not in Page(text).text
    assert text.count('<table class="doubtful">') == 3


def test_names_and_units_of_every_quantity_appear(pages, folders):
    summary = json.loads((folders["good"] / "summary.json").read_text(encoding="utf-8"))
    page = Page(pages["good"])
    titles = {attrs.get("title") for _, attrs in page.elements}
    for row in summary["rows"]:
        assert row["name"] in page.words
        assert row["description"] in page.words
        assert not row["unit"] or row["unit"] in titles
    assert "diffusion" not in pages["good"].lower()


def rows_of(page, name):
    """Cells of the table row of a quantity."""
    row = re.search(rf"<tr[^>]*><th[^>]*><code>{re.escape(name)}</code>.*?</tr>", page)
    assert row is not None
    return [re.sub("<.*?>", "", cell) for cell in re.findall("<td.*?</td>", row[0])], row[0]


def test_intervals_to_believe_stand_out(pages):
    _, good = rows_of(pages["good"], "v0")
    believed = re.findall(r'<td class="number (?:from|to) (believed|other)">', good)
    assert believed == ["other", "other", "believed", "believed"]
    cells, _ = rows_of(pages["bad"], "v0")
    assert len(cells) == 8


def test_numbers_of_a_row_are_those_of_the_run(pages, folders):
    summary = json.loads((folders["good"] / "summary.json").read_text(encoding="utf-8"))
    row = next(r for r in summary["rows"] if r["name"] == "v0")
    cells, _ = rows_of(pages["good"], "v0")
    sd = row["corrected"]["sd"]
    assert float(cells[1]) == pytest.approx(row["mean"], abs=0.05 * sd)
    assert float(cells[2]) == pytest.approx(sd, rel=0.05)
    assert [float(x) for x in cells[3:5]] == pytest.approx([row["low"], row["high"]], abs=0.6)
    assert float(cells[5]) == pytest.approx(row["corrected"]["low"], abs=0.05 * sd)


def test_parameters_that_the_data_leave_open_are_named(pages):
    page = Page(pages["good"])
    start = page.words.index("Not identified by the data:")
    named = [word for word in page.words[start + 1 : start + 8] if word in TRUTH]
    assert named == list(OPEN)
    assert page.words.count("set by the prior") == len(OPEN)


def test_failed_checks_are_marked(pages):
    assert pages["good"].count("✗ fails") == 0
    assert pages["bad"].count("✗ fails") == 5
    assert "too bad" not in pages["bad"]


@pytest.mark.parametrize(("divergences", "word"), [(3, "✓ passes"), (4, "✗ fails")])
def test_few_divergences_pass_where_the_run_allows_a_share(copy, divergences, word):
    def set_share(summary):
        summary["thresholds"]["divergent_share"] = 0.002
        summary["sampler"]["divergences"] = divergences

    change(copy, "summary.json", set_share)
    rows = re.findall("<tr><th[^>]*>Divergences.*?</tr>", str(sampler(read(copy))))
    assert len(rows) == 1
    assert word in rows[0]
    assert "at most 3" in rows[0]


def test_every_angle_is_shown(pages):
    page = Page(pages["good"])
    captions = [word for word in page.words if "measured c2, model" in word]
    assert [word.split(":")[0] for word in captions] == ["φ = −30°", "φ = 15°", "φ = 75°"]


def test_findings_noise_and_provenance_appear(pages):
    text = Page(pages["good"]).text
    for words in (
        "Frames 40 and 41 are darker than their neighbours by 31 %.",
        "The data inform f0·exp(−f1·f2), not f0 and f2 apart.",
        "Errors of neighbouring pairs move together",
        "ab12" * 16,
        "heterodyne sample run.yaml",
        "/data/2024-3/sheared <gel> & ink.hdf",
        "numpyro 0.22.0",
        '"end_frame": 96',
    ):
        assert words in text


def test_texts_of_files_are_escaped(copy):
    evil = '<script>alert("x")</script>'

    def spoil(summary):
        summary["verdict"]["headline"] = summary["noise"]["text"] = evil
        summary["verdict"]["sentences"] = summary["verdict"]["advice"] = [evil]
        for row in summary["rows"]:
            row["description"] = row["unit"] = evil

    change(copy, "summary.json", spoil)
    change(
        copy, "manifest.json", lambda m: m["data"].update({"path": evil, "details": {evil: evil}})
    )
    change(copy, "data.json", lambda d: d.update(notes=[evil], time_origin=evil))
    change(copy, "fit.json", lambda f: f.update(message=evil, fixed={evil: 1.0}))
    change(copy, "config.json", lambda c: c.update({evil: evil}))
    page = render(read(copy))
    assert "<script" not in page
    text = Page(page).text
    assert text.count(evil) > 20


def test_optional_files_and_groups_may_be_missing(copy):
    (copy / "curves.npz").unlink()
    with xr.open_datatree(copy / "posterior.nc", engine="h5netcdf") as tree:
        kept = {name: tree[name].load().to_dataset() for name in ("posterior", "derived")}
    xr.DataTree.from_dict(kept).to_netcdf(copy / "posterior.nc", engine="h5netcdf")
    text = Page(render(read(copy))).text
    assert "This run left no maps." in text
    assert "bands over the window" not in text
    assert "Steps in energy" not in text
    assert "The least settled quantities" in text


def test_weighted_points_are_explained(copy):
    def weigh(summary):
        kept = ("chains", "draws", "r_hat_max", "ess_bulk_min", "ess_tail_min")
        sampler = {name: summary["sampler"][name] for name in kept}
        weights = {"k_hat": 0.42, "kish": 900.0, "points": 8192, "rounds": 2}
        summary["sampler"] = sampler | weights | {"engine": "importance"}
        summary["thresholds"] |= {"k_hat": 0.7, "kish": 1000.0}

    change(copy, "summary.json", weigh)
    page = render(read(copy))
    text = Page(page).text
    assert "Importance sampling draws points" in text
    assert "NUTS walks" not in text
    assert "from 8192 weighted points" in text
    assert "The least settled quantities" not in text
    (k_hat,) = re.findall("<tr><th[^>]*>Stability of the weights.*?</tr>", page)
    assert "✓ passes" in k_hat
    assert "at most 0.7" in k_hat
    (kish,) = re.findall("<tr><th[^>]*>Independent draws.*?</tr>", page)
    assert "✗ fails" in kish


@pytest.mark.parametrize(("growth", "verdict"), [(-0.05, "✗ fails"), (0.01, "✓ passes")])
def test_intervals_that_grow_or_shrink_while_walkers_move_fail(copy, growth, verdict):
    def walk(summary):
        summary["sampler"] |= {"engine": "ensemble", "growth": growth}
        summary["thresholds"]["growth"] = 0.02

    change(copy, "summary.json", walk)
    (row,) = re.findall("<tr><th[^>]*>Change of the widths.*?</tr>", render(read(copy)))
    assert verdict in row
    assert "at most 0.02" in row


def test_averaged_frames_are_explained(copy):
    def averaged(summary):
        summary["sampler"] |= {"engine": "ensemble of averaged frames", "k_hat": 0.2}

    change(copy, "summary.json", averaged)
    text = str(sampler(read(copy)))
    assert "walkers moved given averages of neighbouring frames" in text
    assert "weighed by the posterior of all pairs" in text
    assert "Importance sampling draws points" not in text


@pytest.mark.parametrize(
    ("engine", "others"),
    [("ensemble", ()), ("importance (plain), ensemble (corrected)", ("Importance sampling",))],
)
def test_walkers_are_explained(copy, engine, others):
    def walk(summary):
        kept = ("chains", "draws", "r_hat_max", "ess_bulk_min", "ess_tail_min")
        sampler = {name: summary["sampler"][name] for name in kept}
        walks = {"walkers": 1024, "steps": 80, "powers": 49, "acceptance": 0.65}
        walks |= {"k_hat": 0.42, "kish": 2000.0} if others else {"acceptance_of_jumps": 0.39}
        summary["sampler"] = sampler | walks | {"engine": engine}

    change(copy, "summary.json", walk)
    text = str(sampler(read(copy)))
    for words in (
        "Half of the groups start at weighted points",
        "drawn from the priors",
        "differential evolution",
        "draw from a mixture",
        "Contrast and offset are integrated out",
        "If groups of different starts describe the same values, early and late (R-hat)",
        "from 80 steps of 1024 walkers",
    ):
        assert words in text
    assert "NUTS walks" not in text
    assert ("Importance sampling draws points" in text) == bool(others)
    found = Page(render(read(copy))).text
    assert "one colour per group of walkers" in found
    assert "colour per chain" not in found


def test_numbers_that_a_run_could_not_find_are_dashes(copy):
    def forget(summary):
        for row in summary["rows"]:
            row.update(r_hat=None, ess_bulk=None, ess_tail=None, contraction=None)
        summary["sampler"] = {"engine": "nuts", "r_hat_max": None}
        summary["noise"] = {}

    change(copy, "summary.json", forget)
    page = render(read(copy))
    cells, _ = rows_of(page, "f1")
    assert cells[-3:] == ["–", "–", "–"]
    assert "nan" not in Page(page).text.lower().split()


@pytest.mark.parametrize(
    "name",
    ["config.json", "manifest.json", "data.json", "fit.json", "summary.json", "posterior.nc"],
)
def test_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(ConfigError, match=re.escape(name)):
        build(copy)
    assert not list(copy.glob(".*report*"))


@pytest.mark.parametrize(
    ("name", "content", "seen"),
    [
        ("summary.json", b"{", "summary.json: not valid JSON"),
        ("summary.json", b"{}", "there is no 'verdict'"),
        ("fit.json", b"[]", "holds no mapping"),
        ("posterior.nc", b"no netcdf", "posterior.nc: the draws cannot be read"),
        ("curves.npz", b"no zip", "curves.npz: the arrays cannot be read"),
    ],
)
def test_broken_file_is_named(copy, name, content, seen):
    (copy / name).write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(seen)):
        build(copy)


class Trap:
    def __reduce__(self):
        return pytest.fail, ("a pickled object was loaded",)


@pytest.mark.parametrize("name", ["maps.npz", "curves.npz"])
def test_pickled_objects_are_never_loaded(copy, name):
    np.savez(copy / name, t=np.array([Trap()], dtype=object))
    with pytest.raises(ConfigError, match=f"{name}: the arrays cannot be read"):
        build(copy)


def shards_of(summary, failed, problem):
    """Three shards, of which some failed."""
    derived = [row for row in summary["rows"] if row["kind"] == "derived"]
    each = [
        {
            "shard": k, "n_pairs": 4000 + k, "r_hat_max": 1.004, "ess_bulk_min": 900.0,
            "ess_tail_min": 800.0, "divergences": 0, "k_hat": None, "converged": k not in failed,
        }
        for k in range(3)
    ]  # fmt: skip
    compared = {
        row["name"]: {
            "shards": [[row["low"], row["median"], row["high"]]] * 3,
            "combined": [row["low"], row["median"], row["high"]],
        }
        for row in derived
    }
    if problem:
        each[failed[0]] |= dict.fromkeys(("r_hat_max", "ess_bulk_min", "divergences"))
        each[failed[0]]["problem"] = problem
        for found in compared.values():
            found["shards"][failed[0]] = [None] * 3
    return {
        "num_shards": 3, "strategy": "stratified", "seed": 7, "method": "consensus_mc",
        "failed": failed, "k_hat": 0.81, "kish": 321.0, "shift": 0.56,
        "held_against_all": "corrected", "each": each, "compared": compared,
    }  # fmt: skip


@pytest.mark.parametrize("problem", [None, "it took longer than 7200 s <b>"])
def test_shards_have_a_section(copy, problem):
    def divide(summary):
        summary["thresholds"]["k_hat"] = 0.7
        summary["shards"] = shards_of(summary, [1], problem)

    change(copy, "summary.json", divide)
    text = render(read(copy))
    page = Page(text)
    links = [attrs["href"] for tag, attrs in page.elements if tag == "a"]
    assert links[5:8] == ["#sampler", "#shards", "#data"]
    (shown,) = re.findall('<section id="shards">.*?</section>', text, re.DOTALL)
    words = re.sub("<[^>]*>", " ", shown)
    assert "3 shards (stratified, seed 7), 1 of them left out" in words
    assert '<span class="wrong">0.81 (needed below 0.7)</span>' in shown
    assert "0.56 standard deviations" in words
    assert "Importance sampling of all pairs, which went on from the combined draws." in words
    assert shown.count("<img") == 1
    rows = re.findall("<tr><td.*?</tr>", shown)
    assert [re.findall("<td[^>]*>(.*?)</td>", row)[:2] for row in rows] == [
        ["1", "4000"], ["2", "4001"], ["3", "4002"],
    ]  # fmt: skip
    assert [("✓ used" in row, "✗" in row) for row in rows] == [
        (True, False), (False, True), (True, False),
    ]  # fmt: skip
    if problem is None:
        assert "✗ left out: did not converge" in rows[1]
    else:
        assert "✗ not drawn: it took longer than 7200 s &lt;b&gt;" in rows[1]
        assert rows[1].count("–") == 3


def test_folder_of_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no run folder"):
        build(tmp_path)


def test_many_angles_are_folded_and_stay_small(copy, folders):
    n = 7
    with np.load(folders["good"] / "maps.npz") as stored:
        maps = dict(stored)
    for key, values in maps.items():
        if len(values) == 3:
            maps[key] = np.resize(values, (n, *values.shape[1:]))
    np.savez(copy / "maps.npz", **maps)
    page = render(read(copy))
    assert "Angles 7 to 7" in Page(page).text
    assert page.count("measured c2, model") == 2 * n
    assert len(page) < 4_000_000
