import io
import json
import os
import threading

import pytest
from rich.console import Console

from heterodyne._errors import ConfigError
from heterodyne.cli import watch
from heterodyne.cli._watch_facts import facts
from heterodyne.cli._watch_view import line, page, view
from heterodyne.io import files
from heterodyne.io.work_folder import Record, Rules, Task, WorkFolder
from work_cases import until

NAMES = [f"shard-{k}" for k in range(8)]
PROBLEM = "the density is not finite near the fit, at D0_ref = 1.2e4 Å²/s. Check the bounds."


def shift(work, name, seconds, **about):
    """Let a claim be that of another machine, some time ago."""
    path = work.claims.path / f"{name}.1.json"
    then = path.stat().st_mtime - seconds
    found = files.read_json(path)
    changes = {"host": "node7", "pid": 4711, "place": "node7", "since": found["since"] - 600.0}
    path.write_text(files.to_json(found | changes | about))
    os.utime(path, (then, then))


@pytest.fixture
def work(tmp_path):
    """Two shards done, one failed, two running, one whose worker is silent, two waiting."""
    folder = tmp_path / "het"
    folder.mkdir()
    made = WorkFolder.create(folder, "shard", [Task(name) for name in NAMES], Rules(silence=60.0))
    for name, figures in (
        (NAMES[0], {"r_hat": 1.004, "divergences": 1}),
        (NAMES[1], {"r_hat": 1.021, "divergences": 2}),
    ):
        made.settle(made.claim(name), Record(None, 900.0, 1, "node7", figures))
    made.settle(made.claim(NAMES[2]), Record(PROBLEM, 5.0, 1, "node7", {}))
    for k, seconds in ((3, 2.0), (4, 3.0), (5, 3600.0)):
        made.claim(NAMES[k])
        shift(made, NAMES[k], seconds)
    about = {"stage": "sampling", "done": 30, "total": 120, "detail": {"divergences": 0}}
    for pid, done in ((1, 90), (4711, 30)):
        event = {"time": 0.0, "task": NAMES[3], "pid": pid, "event": "progress", **about}
        with (made.path / "events.jsonl").open("a") as stream:
            stream.write(json.dumps(event | {"done": done}) + "\n")
    return made


def on_terminal(about, width=80):
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(view(about))
    return console.file.getvalue()


@pytest.mark.parametrize("show", [page, on_terminal])
def test_all_that_matters_is_shown(work, show):
    text = " ".join(show(facts(work.path.parent)).split())
    for said in (
        "2 done, 2 running, 1 without sign of life, 1 failed, 2 waiting",
        "worst R-hat 1.021, 3 divergences",
        # Two tasks that run have 300 s left of 900 s, and three wait for them.
        "about 35 min left", "54%",
        "node7:4711", "10 min", "sampling 25%", "no sign of life", NAMES[2], "1.2e4 Å²/s",
    ):  # fmt: skip
        assert said in text
    assert NAMES[6] not in text


def test_the_view_fits_a_terminal_of_80_columns(work):
    shift(work, NAMES[3], 0.0, host="x3004c0s13b0n0.hostmgmt2004.cm.example.org", pid=4194304)
    lines = on_terminal(facts(work.path.parent)).splitlines()
    assert max(map(len, lines)) <= 80
    assert any("x3004c0s13b0n0:4194304" in one and "20 min" in one for one in lines)


def test_long_names_and_words_go_on_in_a_second_line(work):
    about = facts(work.path.parent)
    name = "scan_0123456789_sheared_gel_q0.0054"
    for task in about["work"]["tasks"][2:5]:
        task["name"] = name
    about["work"]["tasks"][3] |= {"stage": "plain draws (populations)", "attempts": 2}
    text = on_terminal(about)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert {"running", "where", "for", "heard", "doing"} <= set(text.split())
    assert "10 min" in text
    assert "2 s ago" in text
    lines = text.splitlines()
    head = next(one for one in lines if one.startswith("running"))
    table = lines[lines.index(head) + 1 :]
    # Read down a column: the pieces of a cell stand below each other.
    names = "".join(one[: head.index("where")].strip() for one in table)
    doing = " ".join(one[head.index("doing") :].strip() for one in table)
    assert name in names
    assert "plain draws (populations) 25% (attempt 2)" in doing
    assert set(PROBLEM.split()) <= set(text.split())


def test_the_line_says_it_in_one(work):
    text = line(facts(work.path.parent))
    assert "\n" not in text
    assert text.startswith("54%: 2 done, 2 running")
    assert text.endswith("worst R-hat 1.021, 3 divergences; about 35 min left")


def test_many_tasks_do_not_fill_the_screen(tmp_path):
    work = WorkFolder.create(tmp_path, "shard", [Task(f"t{k}") for k in range(60)])
    for k in range(30):
        work.claim(f"t{k}")
    for k in range(30, 60):
        work.settle(work.claim(f"t{k}"), Record("no", 1.0, 1, "h", {}))
    text = page(facts(tmp_path))
    assert "and 18 more" in text
    assert text.count("and 18 more") == 2
    assert len(text.splitlines()) < 40


def test_the_document_holds_every_task(run, work):
    done = run("watch", work.path.parent, "--json")
    about = done.document["work"]
    assert done.code == 0
    assert [task["name"] for task in about["tasks"]] == NAMES
    assert [about[key] for key in ("total", "done", "running", "silent", "failed", "waiting")] == [
        8, 2, 2, 1, 1, 2
    ]  # fmt: skip
    assert about["tasks"][2]["problem"] == PROBLEM
    assert about["tasks"][3]["done"] == 30
    assert about["tasks"][3]["seconds"] == pytest.approx(600.0, abs=60.0)
    assert about["seconds_left"] == pytest.approx(2100.0, abs=60.0)


def test_it_is_shown_once(run, work):
    done = run("watch", work.path.parent, "--once")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{work.path.parent}: 8 tasks of the kind shard\n54%: 2 done")


def test_lines_follow_until_all_is_settled(run, tmp_path, monkeypatch):
    work = WorkFolder.create(tmp_path, "shard", [Task("a"), Task("b")])
    steps = iter([lambda: None, lambda: None, lambda: settle("a"), lambda: settle("b")])

    def settle(name):
        work.settle(work.claim(name), Record(None, 60.0, 1, "h", {}))

    monkeypatch.setattr(watch.time, "sleep", lambda seconds: next(steps)())
    done = run("watch", tmp_path)
    assert done.code == 0
    # What has not changed is not said again.
    assert done.out.splitlines() == [
        "0%: 0 done, 2 waiting",
        "50%: 1 done, 1 waiting",
        f"{tmp_path}: 2 tasks of the kind shard",
        "100%: 2 done",
        "",
        "Every task is settled; 'heterodyne sample' writes the results.",
    ]


def test_cancelled_work_ends_the_view(run, work):
    work.cancel()
    for name in NAMES[3:5]:
        shift(work, name, 3600.0)
    done = run("watch", work.path.parent)
    assert done.out.splitlines()[-1].startswith("The work was cancelled")


def test_the_live_view_ends_with_the_work(tmp_path, monkeypatch, capsys):
    work = WorkFolder.create(tmp_path, "shard", [Task("a")])
    monkeypatch.setattr(watch.sys.stdout, "isatty", lambda: True, raising=False)
    thread = threading.Thread(
        target=lambda: work.settle(work.claim("a"), Record(None, 1.0, 1, "h", {}))
    )
    thread.start()
    watch.command(tmp_path, interval=0.01)
    thread.join()
    until(lambda: work.record("a") is not None)
    assert "Every task is settled" in capsys.readouterr().out


def test_leaving_the_live_view_is_no_failure(work, monkeypatch, capsys):
    monkeypatch.setattr(watch.sys.stdout, "isatty", lambda: True, raising=False)

    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(watch.time, "sleep", interrupted)
    watch.command(work.path.parent)
    assert "2 done" in capsys.readouterr().out


# Runs without a folder of work.


def make_run(folder, *names):
    folder.mkdir()
    for age, name in enumerate(reversed(names), 1):
        path = folder / name
        path.write_text("{}")
        then = path.stat().st_mtime - 600.0 * age
        os.utime(path, (then, then))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("manifest.json",), "het: begun 10 min ago"),
        (("manifest.json", "fit.json"), "het: fitted 10 min ago"),
        (
            ("manifest.json", "fit.json", "checkpoint_full_nuts.npz"),
            "het: drawing, last checkpoint (full_nuts) 10 min ago",
        ),
        (("manifest.json", "fit.json", "summary.json"), "het: finished 10 min ago"),
    ],
)
def test_a_run_in_one_process_tells_by_its_files(run, tmp_path, names, said):
    make_run(tmp_path / "het", *names)
    assert said in run("watch", tmp_path / "het", "--once").out
    assert said in on_terminal(facts(tmp_path / "het"))
    assert line(facts(tmp_path / "het")) == said
    assert facts(tmp_path / "het")["finished"] == ("summary.json" in names)


def test_members_of_a_batch_are_listed(run, tmp_path):
    config = {"output": {"directory": "x"}}
    files.write_json(tmp_path / "members.json", {"a": config, "b": config})
    make_run(tmp_path / "a", "manifest.json", "summary.json")
    done = run("watch", tmp_path, "--once")
    assert done.out.splitlines()[1:] == ["  a: finished 10 min ago", "  b: not begun"]
    assert not facts(tmp_path)["finished"]
    make_run(tmp_path / "b", "manifest.json", "summary.json")
    assert run("watch", tmp_path).code == 0


def test_a_folder_of_no_run_is_refused(run, tmp_path):
    with pytest.raises(ConfigError, match="no run folder"):
        facts(tmp_path)
    done = run("watch", tmp_path / "nowhere")
    assert (done.code, done.out) == (1, "")


def test_nothing_is_written_but_the_clock(run, work):
    before = {path: path.stat().st_mtime for path in work.path.rglob("*") if path.is_file()}
    run("watch", work.path.parent, "--once")
    after = {path: path.stat().st_mtime for path in work.path.rglob("*") if path.is_file()}
    changed = {path.name for path in after if after[path] != before.get(path)}
    assert changed <= {".clock"}
