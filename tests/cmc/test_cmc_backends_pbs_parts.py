"""Fields, scripts, decisions and payloads of the PBS backend, without a queue."""

from __future__ import annotations

import pickle
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heterodyne._errors import ConfigError
from heterodyne.config.cmc import CMCConfig
from heterodyne.core._jax import jax
from heterodyne.optimization.cmc.backends import _pbs_folder, _pbs_job
from heterodyne.optimization.cmc.backends._pbs_config import PBSConfig
from heterodyne.optimization.cmc.backends._pbs_folder import JobFolder
from heterodyne.optimization.cmc.backends._pbs_payload import Payload, ShardInput, settings_of
from heterodyne.optimization.cmc.backends._pbs_queue import (
    Phase,
    Result,
    Seen,
    Task,
    advanced,
    delay,
    element_id,
    to_submit_again,
)
from heterodyne.optimization.cmc.backends._pbs_script import job_script

DIGEST = "0" * 64
SETTINGS = settings_of(CMCConfig())
KEY = jax.random.PRNGKey(1)


def model(y, scale=1.0):
    """Never called: only its name travels."""


# Fields


def test_defaults_are_documented_and_valid():
    config = PBSConfig()
    assert (config.queue, config.walltime, config.memory) == ("batch", "01:00:00", "4gb")
    assert (config.nodes, config.ppn, config.max_retries) == (1, 1, 2)
    assert (config.python_executable, config.working_dir) == ("python", None)
    assert (config.poll_interval, config.cleanup_on_success) == (30.0, True)
    assert config.extra_pbs_directives == []
    assert config.extra_pbs_directives is not PBSConfig().extra_pbs_directives


@pytest.mark.parametrize(
    "fields",
    [
        {"queue": "prod@server-1.site"},
        {"walltime": "168:00:00"},
        {"memory": "512MB"},
        {"python_executable": "/opt/py-3.11/bin/python3.11"},
        {"working_dir": "/eagle/projects/müller_2/run,1"},
        {"extra_pbs_directives": ["#PBS -A my-project", "#PBS -l filesystems=home:eagle"]},
        {"extra_pbs_directives": ["#PBS -l select=2:system=polaris -l place=scatter"], "ppn": 32},
        {"extra_pbs_directives": ["#PBS -M me@site.org -m abe"]},
    ],
)
def test_what_sites_need_is_accepted(fields):
    PBSConfig(**fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("queue", ""),
        ("queue", "batch; rm -rf /"),
        ("queue", "-q"),
        ("queue", "batch\n"),
        ("queue", "b" * 65),
        ("queue", None),
        ("walltime", "1:00:00"),
        ("walltime", "01:60:00"),
        ("walltime", "01:00"),
        ("walltime", "00:00:00"),
        ("walltime", "99999:00:00"),
        ("walltime", 3600),
        ("walltime", "01:00:00\n#PBS -q other"),
        ("memory", "4"),
        ("memory", "0gb"),
        ("memory", "4.5gb"),
        ("memory", "4gb,place=x"),
        ("memory", "9" * 20 + "gb"),
        ("nodes", 0),
        ("nodes", True),
        ("nodes", 1.5),
        ("nodes", "1"),
        ("nodes", 10_001),
        ("ppn", -1),
        ("ppn", 100_000),
        ("python_executable", "python -c x"),
        ("python_executable", "-c"),
        ("python_executable", "$(which python)"),
        ("python_executable", "p" * 1025),
        ("working_dir", "/tmp/a b"),
        ("working_dir", "/tmp/'x'"),
        ("working_dir", ""),
        ("poll_interval", 0.0),
        ("poll_interval", float("nan")),
        ("poll_interval", float("inf")),
        ("max_retries", -1),
        ("max_retries", 101),
        ("cleanup_on_success", 1),
        ("max_running_shards", 0),
        ("extra_pbs_directives", "#PBS -A x"),
        ("extra_pbs_directives", ["#PBS -A x"] * 65),
        ("extra_pbs_directives", ["#PBS -A x\nrm -rf /"]),
        ("extra_pbs_directives", ["#PBS -A x\r"]),
        ("extra_pbs_directives", ["echo hello"]),
        ("extra_pbs_directives", ["# PBS -A x"]),
        ("extra_pbs_directives", ["#PBS"]),
        ("extra_pbs_directives", ["#PBS -v A=`id`"]),
        ("extra_pbs_directives", ["#PBS -A " + "x" * 1024]),
        ("extra_pbs_directives", [3]),
        ("extra_pbs_directives", ["#PBS -q other"]),
        ("extra_pbs_directives", ["#PBS -A x -J 0-3"]),
        ("extra_pbs_directives", ["#PBS -l walltime=02:00:00"]),
        ("extra_pbs_directives", ["#PBS -l select=1,mem=8gb"]),
        ("extra_pbs_directives", ["#PBS -l nodes=2:ppn=4"]),
        ("extra_pbs_directives", ["#PBS -W block=true"]),
    ],
)
def test_malformed_fields_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=rf"(?s)PBSConfig: {field}.* is .*Allowed: ") as caught:
        PBSConfig(**{field: value})
    assert isinstance(caught.value, ConfigError)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        (
            "queue",
            "batch; rm -rf /;",
            "queue is 'batch; rm -rf /;', which may not have ';', ' ', '/'.",
        ),
        ("queue", "-q", "queue is '-q'"),
        (
            "walltime",
            "01:00:00\n#PBS",
            r"of 13 characters, is '01:00:00\n#PBS', which may not have '\n', '#', 'P', 'B', 'S'",
        ),
        ("memory", "4.5gb", "memory is '4.5gb', which may not have '.'"),
        (
            "python_executable",
            "$(x)",
            "python_executable is '$(x)', which may not have '$', '(', ')'",
        ),
        ("working_dir", "/tmp/a b", "working_dir is '/tmp/a b', which may not have ' '"),
        ("working_dir", "/a" * 40 + "`" + "/a" * 40, "/a', which may not have '`'"),
        (
            "working_dir",
            "!$&*()|<>?",
            "may not have '!', '$', '&', '*', '(', ')', '|', '<' and others",
        ),
    ],
)
def test_a_refused_text_is_named_with_the_characters_that_it_may_not_have(field, value, named):
    with pytest.raises(ConfigError) as caught:
        PBSConfig(**{field: value})
    assert named in str(caught.value)


def test_a_refused_directive_is_named_with_the_characters_that_it_may_not_have():
    for line, named in (
        ("#PBS -A a#b", "extra_pbs_directives[1] is '#PBS -A a#b', which may not have '#'"),
        ("#PBS -A x\r", r"extra_pbs_directives[1] is '#PBS -A x\r', which may not have '\r'"),
        ("#PBS", "extra_pbs_directives[1] is '#PBS'"),
    ):
        with pytest.raises(ConfigError) as caught:
            PBSConfig(extra_pbs_directives=["#PBS -A ok", line])
        assert named in str(caught.value)


TEXTS = ("queue", "walltime", "memory", "python_executable", "working_dir")


@given(
    st.sampled_from(TEXTS),
    st.text(max_size=8),
    st.sampled_from(list(";&|<>$`\\'\"(){}[]*?!#~^ \t\n\r\x00\x7f")),
    st.text(max_size=8),
)
def test_no_text_with_a_character_of_the_shell_passes(field, before, bad, after):
    with pytest.raises(ConfigError):
        PBSConfig(**{field: f"{before}{bad}{after}"})
    with pytest.raises(ConfigError):
        PBSConfig(**{field: f"{getattr(PBSConfig(), field) or '/tmp'}{bad}"})


@given(st.text(max_size=6), st.sampled_from(list(";&|<>$`\\'\"\n\r\x0b\x0c\x1c\x85\u2028\x00")))
def test_no_directive_leaves_its_line(value, bad):
    with pytest.raises(ConfigError):
        PBSConfig(extra_pbs_directives=[f"#PBS -A {value}{bad}x"])


@pytest.mark.parametrize("field", [{"nodes": 2}, {"memory": "8gb"}])
def test_fields_that_select_replaces_keep_their_defaults(field):
    with pytest.raises(ConfigError, match=next(iter(field))):
        PBSConfig(extra_pbs_directives=["#PBS -l select=2"], **field)


# Script


def directives(script):
    return [line for line in script.splitlines() if line.startswith("#PBS")]


def test_the_script_of_a_job():
    config = PBSConfig(
        queue="prod",
        walltime="02:30:00",
        nodes=2,
        ppn=8,
        memory="16gb",
        extra_pbs_directives=["#PBS -A beam"],
    )
    text = job_script(config, Path("/shared/run"), DIGEST, 1, [4])
    assert directives(text) == [
        "#PBS -N heterodyne",
        "#PBS -S /bin/sh",
        "#PBS -j oe",
        "#PBS -q prod",
        "#PBS -l walltime=02:30:00",
        "#PBS -l nodes=2:ppn=8,mem=32gb",
        "#PBS -A beam",
    ]
    lines = text.splitlines()
    assert lines[0] == "#!/bin/sh"
    # PBS stops reading directives at the first command.
    assert lines[1 + len(directives(text))] == "set -eu"
    assert "export OMP_NUM_THREADS=8" in lines


@pytest.mark.parametrize(
    ("nodes", "memory", "total"),
    [(1, "4gb", "4gb"), (3, "512MB", "1536MB"), (10_000, "9999999b", "99999990000b")],
)
def test_memory_is_that_of_a_node_and_asked_for_all(nodes, memory, total):
    config = PBSConfig(nodes=nodes, memory=memory)
    script = job_script(config, Path("/x"), DIGEST, 1, [0])
    assert f"#PBS -l nodes={nodes}:ppn=1,mem={total}" in directives(script)


def test_the_script_of_an_array_and_of_select():
    config = PBSConfig(max_running_shards=3, extra_pbs_directives=["#PBS -l select=1:ncpus=4"])
    text = job_script(config, Path("/shared/run"), DIGEST, 2, [1, 5, 6])
    assert "#PBS -J 0-2%3" in directives(text)
    assert not re.search("nodes=|mem=", text)
    assert "#PBS -J 0-2" in directives(job_script(PBSConfig(), Path("/x"), DIGEST, 1, [0, 1, 2]))
    with pytest.raises(ConfigError, match="10001 shards"):
        job_script(PBSConfig(), Path("/x"), DIGEST, 1, range(10_001))


def test_a_config_that_was_changed_behind_its_back_is_checked_again():
    config = PBSConfig()
    object.__setattr__(config, "queue", "x\nrm -rf /")
    with pytest.raises(ConfigError, match="queue"):
        job_script(config, Path("/x"), DIGEST, 1, [0])


def test_the_shell_takes_nothing_of_a_path_for_a_command(tmp_path):
    folder = tmp_path / "it's $(touch harm) `touch harm`; touch harm"
    folder.mkdir()
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o700)
    text = job_script(PBSConfig(python_executable=str(python)), folder, DIGEST, 7, [3, 8, 9])
    environment = {"PBS_ARRAY_INDEX": "2", "PATH": "/usr/bin:/bin"}
    subprocess.run(["/bin/sh", "-c", text], env=environment, cwd=tmp_path, check=True)
    printed = (folder / "job_007.2.log").read_text().splitlines()
    assert printed == [
        "-m",
        "heterodyne.optimization.cmc.backends._pbs_job",
        str(folder),
        DIGEST,
        "9",
    ]
    assert {p.name for p in folder.iterdir()} == {"job_007.2.log"}
    assert not (tmp_path / "harm").exists()
    outside = {**environment, "PBS_ARRAY_INDEX": "3"}
    assert subprocess.run(["/bin/sh", "-c", text], env=outside, check=False).returncode != 0


# Decisions


TASK = Task(JobFolder(Path("/shared")), 2, "12[2].host", "job_001.2.log")
GONE, DONE = Seen(), Seen("F", 0)


def after(*looks, task=TASK, limit=None):
    """Follow a task over looks (seen, result) at times 0, 1, 2, ... s."""
    for now, (seen, result) in enumerate(looks):
        task = advanced(task, seen, result, float(now), limit)
    return task


NONE = Result.ABSENT


@pytest.mark.parametrize(
    ("looks", "phase"),
    [
        ([(Seen("Q"), NONE)], Phase.WAITING),
        ([(Seen("R"), NONE), (Seen("E"), NONE)], Phase.WAITING),
        # The result decides, whatever the queue says of the job.
        ([(Seen("R"), Result.GOOD)], Phase.DONE),
        ([(GONE, Result.GOOD)], Phase.DONE),
        ([(None, Result.GOOD)], Phase.DONE),
        ([(Seen("F", 1), Result.GOOD)], Phase.DONE),
        ([(Seen("F", -29), Result.GOOD)], Phase.DONE),
        ([(Seen("R"), Result.DAMAGED)], Phase.FAILED),
        # A file may show late on a shared file system.
        ([(DONE, NONE)] * 2, Phase.WAITING),
        ([(DONE, NONE), (DONE, NONE), (DONE, Result.GOOD)], Phase.DONE),
        ([(GONE, NONE)] * 3, Phase.FAILED),
        ([(GONE, NONE), (GONE, NONE), (Seen("R"), NONE), (GONE, NONE)], Phase.WAITING),
        # An exit status leaves no hope for a file.
        ([(Seen("F", 1), NONE)], Phase.FAILED),
        ([(Seen("X", 271), NONE)], Phase.FAILED),
        # A look that failed says nothing.
        ([(None, NONE)] * 100, Phase.WAITING),
        ([(Seen("H"), NONE)] * 100, Phase.WAITING),
    ],
)
def test_phases(looks, phase):
    assert after(*looks).phase is phase


def test_time_counts_from_the_first_look_at_which_a_job_runs():
    queued, running = (Seen("Q"), NONE), (Seen("R"), NONE)
    waiting = after(*[queued] * 50, running, running, running, limit=2.0)
    assert waiting.phase is Phase.WAITING
    assert waiting.running_since == 50.0
    late = advanced(waiting, Seen("R"), NONE, 52.5, 2.0)
    assert late.phase is Phase.OVERDUE
    assert "2 s" in late.reason
    # Also while the queue gives no answer.
    assert advanced(waiting, None, NONE, 52.5, 2.0).phase is Phase.OVERDUE
    assert advanced(waiting, Seen("R"), Result.GOOD, 52.5, 2.0).phase is Phase.DONE


def test_what_is_over_stays_as_it_is():
    failed = after((Seen("F", 1), NONE))
    assert advanced(failed, Seen("R"), Result.GOOD, 9.0, 1.0) is failed


def test_which_shards_run_again():
    done, failed = after((DONE, Result.GOOD)), after((Seen("F", 1), NONE))
    killed = after((Seen("F", -29), NONE))
    assert killed.phase is Phase.FAILED
    assert to_submit_again([done, failed, killed, TASK], 1) == [failed]
    assert to_submit_again([failed], 0) == []
    second = after((Seen("F", 1), NONE), task=Task(TASK.folder, 2, "13.host", "log", attempts=2))
    assert to_submit_again([second], 1) == []
    assert to_submit_again([second], 2) == [second]


def test_delays_double_up_to_a_limit():
    assert [delay(30.0, k) for k in range(7)] == [30.0, 60.0, 120.0, 240.0, 480.0, 480.0, 480.0]


def test_ids_of_elements():
    assert element_id("12[].host", 3) == "12[3].host"
    assert element_id("12.host", 0) == "12.host"


# Payload


def test_a_result_without_draws_is_none(tmp_path):
    folder = JobFolder.fresh(tmp_path)
    folder.write_result(0, {}, [])
    with pytest.raises(ConfigError, match="no draws"):
        folder.read_result(0)
    assert not folder.has_result(0, folder.names())


def test_a_folder_goes_though_a_job_writes_its_last_lines_meanwhile(tmp_path, monkeypatch, caplog):
    remove = shutil.rmtree
    monkeypatch.setattr(_pbs_folder, "_PAUSES_S", (0.0, 0.0))

    def disturbed(times):
        left = [OSError(39, "Directory not empty")] * times

        def rmtree(path):
            if left:
                raise left.pop()
            remove(path)

        return rmtree

    folder = JobFolder.fresh(tmp_path)
    monkeypatch.setattr(_pbs_folder.shutil, "rmtree", disturbed(3))
    folder.remove()
    assert folder.path.exists()
    assert "could not be removed: [Errno 39]" in caplog.text
    caplog.clear()
    monkeypatch.setattr(_pbs_folder.shutil, "rmtree", disturbed(2))
    folder.remove()
    folder.remove()
    assert not folder.path.exists()
    assert not caplog.text


def test_a_test_run_is_called_one_before_it_is_submitted():
    few = CMCConfig(num_warmup=5, fast_warmup=True)
    with pytest.warns(UserWarning, match="do not use the draws"):
        assert settings_of(few)["fast_warmup"]
    with pytest.raises(ConfigError, match="num_chains"):
        settings_of(CMCConfig(num_chains=0))


def inputs_of(y=1.0, key=KEY, starts=None):
    shard = {"y": np.array([y, 2.0])} | ({} if starts is None else {"init_params": starts})
    return {0: ShardInput.of(shard, model, key, 1)}


@pytest.mark.parametrize("kind", ["lambda", "closure", "partial"])
def test_a_model_that_has_no_module_is_refused(kind):
    def closure():
        return kind

    models = {"lambda": lambda: None, "closure": closure, "partial": partial(closure)}
    with pytest.raises(ConfigError, match=r"cannot be pickled.*\.py file"):
        Payload.of(models[kind], SETTINGS)


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: partial(f, y=1)])
def test_a_model_of_a_script_is_refused(wrap, monkeypatch):
    monkeypatch.setattr(model, "__module__", "__main__")
    with pytest.raises(ConfigError, match="model is defined in a script or notebook"):
        Payload.of(wrap(model), SETTINGS)


def test_a_run_has_its_folder_by_all_that_decides_on_its_draws():
    payload = Payload.of(model, SETTINGS)
    same = payload.fingerprint(inputs_of())
    assert Payload.of(model, SETTINGS).fingerprint(inputs_of()) == same
    others = [
        payload.fingerprint(inputs_of(y=1.5)),
        payload.fingerprint(inputs_of(key=jax.random.PRNGKey(2))),
        payload.fingerprint(inputs_of(starts={"mu": np.zeros(1)})),
        payload.fingerprint(inputs_of(starts={})),
        payload.fingerprint({1: inputs_of()[0]}),
        Payload.of(partial(model, scale=2.0), SETTINGS).fingerprint(inputs_of()),
        Payload.of(model, SETTINGS | {"num_samples": 7}).fingerprint(inputs_of()),
        Payload(payload.model, SETTINGS, payload.search, {"m": "x"}).fingerprint(inputs_of()),
    ]
    assert len({same, *others}) == 1 + len(others)
    changed = settings_of(CMCConfig(per_shard_timeout=9, seed=3, run_id="other"))
    assert Payload.of(model, changed).fingerprint(inputs_of()) == same
    assert Payload.of(model, SETTINGS).sources.keys() == {__name__}


def test_inputs_come_back_as_they_were(tmp_path):
    shard = {"a": np.arange(3), "b": None, "c": 2, "d": float("nan"), "e": "x", "f": np.float64(1)}
    starts = {"mu": np.array([[1.0, 2.0]])}
    key = jax.random.key(7)
    given = ShardInput.of(shard | {"init_params": starts}, lambda **k: None, key, 1)
    folder = JobFolder.fresh(tmp_path)
    digest = folder.write_inputs(Payload.of(model, SETTINGS), {3: given})
    found = folder.read_input(3)
    assert found.arguments.keys() == shard.keys()
    np.testing.assert_equal(found.arguments, shard)
    assert type(found.arguments["c"]) is int
    np.testing.assert_equal(found.starts, starts)
    np.testing.assert_array_equal(found.key, jax.random.key_data(key))
    pickled, settings, search = folder.read_task(digest)
    assert pickle.loads(pickled) is model
    assert settings == SETTINGS
    assert str(Path(__file__).parent) in search


def test_keys_of_other_generators_are_refused():
    with pytest.raises(ConfigError, match=r"shape \(4,\)"):
        inputs_of(key=jax.random.key(0, impl="rbg"))


def test_a_job_unpickles_only_what_was_submitted(tmp_path, monkeypatch):
    folder = JobFolder.fresh(tmp_path)
    digest = folder.write_inputs(Payload.of(model, SETTINGS), inputs_of())
    monkeypatch.setattr(_pbs_job.pickle, "loads", lambda content: pytest.fail("unpickled"))
    model_file, task = folder.path / "model.pkl", folder.path / "task.json"
    was = model_file.read_bytes()
    model_file.write_bytes(was + b" ")
    with pytest.raises(ConfigError, match=r"model\.pkl: the file is not the one"):
        _pbs_job.draw_shard(folder, digest, 0)
    model_file.write_bytes(was)
    task.write_bytes(task.read_bytes() + b" ")
    with pytest.raises(ConfigError, match=r"task\.json: the file is not the one"):
        _pbs_job.draw_shard(folder, digest, 0)
    folder.path.chmod(0o770)
    with pytest.raises(ConfigError, match="drwxrwx---"):
        _pbs_job.draw_shard(folder, digest, 0)


def test_a_folder_of_somebody_else_is_refused(tmp_path, monkeypatch):
    folder = JobFolder.of_run(tmp_path, DIGEST)
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert JobFolder.of_run(tmp_path, DIGEST) == folder
    link = tmp_path / f"heterodyne-pbs-{'1' * 24}"
    link.symlink_to(folder.path)
    with pytest.raises(ConfigError, match="lrwx"):
        JobFolder.of_run(tmp_path, "1" * 64)
    monkeypatch.setattr("os.getuid", lambda: 12345)
    with pytest.raises(ConfigError, match="of user 12345"):
        JobFolder.of_run(tmp_path, DIGEST)
    with pytest.raises(ConfigError, match="working_dir"):
        JobFolder.fresh(tmp_path / "missing")


def test_a_job_draws_with_the_arguments_and_key_of_its_shard(tmp_path, monkeypatch, caplog):
    folder = JobFolder.fresh(tmp_path)
    config = CMCConfig(num_samples=17, num_chains=1)
    starts = {"mu": np.zeros(1)}
    payload = Payload.of(model, settings_of(config))
    digest = folder.write_inputs(payload, inputs_of(starts=starts))
    seen = {}

    def fake(bound, config, key, init_params):
        seen.update(bound=bound, config=config, key=key, starts=init_params)
        _pbs_job.logging.getLogger("heterodyne.x").warning("%d divergences", 3)
        return {"mu": np.ones(17), "file": np.zeros(17)}

    monkeypatch.setattr(_pbs_job, "draw", fake)
    _pbs_job.draw_shard(folder, digest, 0)
    draws, remarks = folder.read_result(0)
    assert draws.keys() == {"mu", "file"}
    assert remarks == ["3 divergences"]
    np.testing.assert_array_equal(seen["bound"].keywords["y"], [1.0, 2.0])
    assert seen["bound"].func is model
    assert seen["config"].num_samples == 17
    np.testing.assert_array_equal(seen["key"], KEY)
    np.testing.assert_equal(seen["starts"], starts)
