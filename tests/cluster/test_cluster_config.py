"""The section cluster: what it takes, what it refuses, and what jobs ask for in the end."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given
from ruamel.yaml import YAML

from heterodyne._errors import ConfigError
from heterodyne.config import _job_text as job_text
from heterodyne.config._cluster import Cluster
from heterodyne.config.load import check_run_config, load_run_config
from heterodyne.config.template import json_schema
from heterodyne.io.cluster_jobs import PROGRAMS
from heterodyne.io.run_folder import config_sha256
from heterodyne.optimization.cmc.backends._cluster_script import (
    launcher_options,
    n_workers,
    provider_options,
    whole_minutes,
    worker_script,
)

RUN = {"experimental_data": {"file_path": "a.h5"}}
# The least that each batch system has to be told.
LEAST = {
    "local": {},
    "pbspro": {"workers_per_node": 4},
    "slurm": {},
    "grid_engine": {"workers_per_node": 4},
    "lsf": {},
}
DIRECTIVES = {
    "pbspro": "#PBS -l filesystems=home:eagle",
    "slurm": "#SBATCH --qos=regular",
    "grid_engine": "#$ -pe smp 4",
    "lsf": '#BSUB -R "rusage[mem=4096]"',
}


def cluster(scheduler="slurm", **given):
    section = {"scheduler": scheduler} | LEAST[scheduler] | given
    return check_run_config(RUN | {"cluster": section}).cluster


@pytest.mark.parametrize("scheduler", LEAST)
def test_the_least_section(scheduler):
    made = cluster(scheduler)
    assert made.scheduler == scheduler
    assert (made.min_blocks, made.first_blocks, made.max_blocks) == (0, 1, 1)
    assert made.starts_with == "single_node"


def test_a_run_file_without_the_section_runs_here():
    assert check_run_config(RUN).cluster is None
    assert check_run_config(RUN | {"cluster": None}).cluster is None


def test_where_work_is_done_is_not_in_the_digest_of_a_run():
    digests = {
        config_sha256(check_run_config(RUN | {"cluster": section}).model_dump(mode="json"))
        for section in (None, {"scheduler": "local"}, {"scheduler": "slurm", "queue": "x"})
    }
    assert len(digests) == 1
    older = check_run_config(RUN).model_dump(mode="json")
    del older["cluster"]
    assert digests == {config_sha256(older)}


def test_a_full_section_from_a_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        """\
experimental_data: {file_path: a.h5}
cluster:
  scheduler: pbspro
  nodes_per_block: 2
  workers_per_node: 16
  cores_per_worker: 2
  memory_per_worker: 8gb
  max_blocks: 4
  walltime: 06:00:00
  queue: prod
  account: beam_time
  select_options: system=polaris
  extra_directives: ['#PBS -l filesystems=home:eagle', '#PBS -l place=scatter']
  worker_init: [module use /soft/modulefiles, source /eagle/venv/bin/activate]
  launcher: pals
  interface: bond0
"""
    )
    made = load_run_config(path).cluster
    assert (made.walltime_s, made.drain_s) == (21_600, 300)
    assert made.memory_gib == 8.0
    assert provider_options(made) == {
        "queue": "prod",
        "account": "beam_time",
        "cpus_per_node": 32,
        "select_options": "system=polaris:mem=128gb",
        "scheduler_options": "#PBS -l filesystems=home:eagle\n#PBS -l place=scatter",
    }
    assert launcher_options(made) == "--ppn 1"


@pytest.mark.parametrize(
    ("walltime", "drain", "expected"),
    [("01:00:00", None, 300), ("00:10:00", None, 60), ("00:10:00", 0, 0), ("00:10:00", 599, 599)],
)
def test_drain(walltime, drain, expected):
    assert cluster(walltime=walltime, drain=drain).drain_s == expected


@pytest.mark.parametrize(("low", "first"), [(0, 1), (1, 1), (3, 3)])
def test_first_blocks_follow_the_least(low, first):
    assert cluster(min_blocks=low, max_blocks=5).first_blocks == first


REFUSED = [
    ("slurm", "queue", "a;b"),
    ("slurm", "queue", "q" * 65),
    ("slurm", "queue", 7),
    ("slurm", "account", "a$(id)"),
    ("slurm", "walltime", "1h"),
    ("slurm", "walltime", "00:00:00"),
    ("slurm", "walltime", "01:60:00"),
    ("slurm", "drain", 3600),
    ("slurm", "drain", -1),
    ("slurm", "memory_per_worker", "4"),
    ("slurm", "memory_per_worker", "4gb; id"),
    ("slurm", "nodes_per_block", 0),
    ("slurm", "workers_per_node", 1025),
    ("slurm", "cores_per_worker", 1.5),
    ("slurm", "max_blocks", 0),
    ("slurm", "poll_interval", 0),
    ("slurm", "worker_init", "module load x"),
    ("slurm", "worker_init", ["module load x\nid"]),
    ("slurm", "worker_init", ["m" * 1025]),
    ("slurm", "worker_init", [""]),
    ("slurm", "extra_directives", ["#PBS -A x"]),
    ("slurm", "extra_directives", ["#SBATCH --qos=x\nid"]),
    ("slurm", "extra_directives", ["#SBATCH --qos=`id`"]),
    ("slurm", "extra_directives", ["#SBATCH"]),
    ("slurm", "extra_directives", ["#SBATCH --qos=x"] * 65),
    ("slurm", "extra_directives", ["#SBATCH --time=10"]),
    ("slurm", "extra_directives", ["#SBATCH -t 10"]),
    ("slurm", "extra_directives", ["#SBATCH --qos=x -N 4"]),
    ("slurm", "launcher_options", "--x; id"),
    ("slurm", "launcher", "parallel"),
    ("slurm", "address", "10.0.0.1 && id"),
    ("slurm", "address", "-p"),
    ("slurm", "interface", "eth0;id"),
    ("slurm", "select_options", "system=x"),
    ("pbspro", "select_options", "system=x -l a=b"),
    ("pbspro", "extra_directives", ["#PBS -l walltime=01:00:00"]),
    ("pbspro", "extra_directives", ["#PBS -l select=2:system=x"]),
    ("pbspro", "extra_directives", ["#PBS -A x -q y"]),
    ("pbspro", "workers_per_node", None),
    ("grid_engine", "nodes_per_block", 2),
    ("grid_engine", "extra_directives", ["#$ -sync y"]),
    ("grid_engine", "extra_directives", ["#$ -l h_rt=100"]),
    ("lsf", "extra_directives", ["#BSUB -nnodes 4"]),
    ("lsf", "extra_directives", ["#BSUB -R $(id)"]),
    ("local", "queue", "debug"),
    ("local", "walltime", "01:00:00"),
]


@pytest.mark.parametrize(("scheduler", "key", "value"), REFUSED)
def test_what_is_refused_is_named_with_what_is_allowed(scheduler, key, value):
    with pytest.raises(ConfigError, match=rf"cluster\.{key}(:| is|\[).*allowed: \S") as caught:
        cluster(scheduler, **{key: value})
    assert "\n" not in str(caught.value)


def test_a_batch_system_that_is_not_known_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"cluster\.scheduler is 'slrum' .*did you mean 'slurm'"):
        check_run_config(RUN | {"cluster": {"scheduler": "slrum"}})


def test_numbers_of_blocks_do_not_fall():
    with pytest.raises(ConfigError, match=r"cluster\.max_blocks: .* are 2, 2 and 1; allowed"):
        cluster(min_blocks=2)


def test_nodes_without_a_launcher_are_refused():
    with pytest.raises(ConfigError, match=r"nodes_per_block: it is 2, .* one node only"):
        cluster(nodes_per_block=2, launcher="single_node")


def test_address_and_interface_exclude_each_other():
    with pytest.raises(ConfigError, match=r"cluster\.interface: .* one of the two"):
        cluster(address="10.0.0.1", interface="eth0")


SHELL = ";&|<>$`\\'\"(){}*?!#~^\t\n\r\x00\x7f\x0b\x1c\x85\u2028"
TEXTS = {
    "queue": "debug",
    "account": "beam",
    "walltime": "01:00:00",
    "memory_per_worker": "4gb",
    "select_options": "system=x",
    "launcher_options": "--exact",
    "address": "10.0.0.1",
    "interface": "eth0",
}


@given(
    st.sampled_from(list(TEXTS)), st.text(max_size=6), st.sampled_from(SHELL), st.text(max_size=6)
)
def test_no_text_with_a_character_of_the_shell_passes(key, before, bad, after):
    for value in (f"{before}{bad}{after}", f"{TEXTS[key]}{bad}", f"{TEXTS[key]}{bad}{after}"):
        with pytest.raises(ConfigError):
            cluster("pbspro", **{key: value})


@given(
    st.sampled_from(list(DIRECTIVES)),
    st.text(max_size=6),
    st.sampled_from(";&|<>$`\\'\n\r\x0b\x85\u2028"),
)
def test_no_directive_leaves_its_line(scheduler, text, bad):
    with pytest.raises(ConfigError):
        cluster(scheduler, extra_directives=[f"{DIRECTIVES[scheduler]}{text}{bad}id"])


@pytest.mark.parametrize(("scheduler", "line"), DIRECTIVES.items())
def test_directives_of_each_batch_system(scheduler, line):
    options = provider_options(cluster(scheduler, extra_directives=[line]))
    assert options["scheduler_options"] == line


def test_what_slurm_is_asked_for():
    shared = cluster(workers_per_node=4, cores_per_worker=2, memory_per_worker="1500mb")
    options = provider_options(shared)
    # 4 times 1500 MiB are 5.86 GiB.
    assert (options["cores_per_node"], options["mem_per_node"]) == (8, 6)
    assert options["exclusive"] is False
    whole = provider_options(cluster(memory_per_worker="4gb"))
    assert (whole["cores_per_node"], whole["mem_per_node"], whole["exclusive"]) == (
        None,
        None,
        True,
    )


def test_accounts_reach_each_batch_system():
    for scheduler in PROGRAMS:
        options = provider_options(cluster(scheduler, account="beam42"))
        assert "beam42" in " ".join(str(value) for value in options.values())


@pytest.mark.parametrize(
    ("scheduler", "launcher"), [("slurm", "srun"), ("pbspro", "mpiexec"), ("lsf", "jsrun")]
)
def test_several_nodes_take_the_launcher_of_the_batch_system(scheduler, launcher):
    assert cluster(scheduler, nodes_per_block=2).starts_with == launcher


def test_options_of_launchers_end_with_those_given():
    made = cluster(nodes_per_block=2, launcher_options="--mem=0")
    assert launcher_options(made).endswith(" --mem=0")
    assert "--cpu-bind=none" in launcher_options(made)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(60, "00:01:00"), (61, "00:02:00"), (3599, "01:00:00"), (360_000, "100:00:00")],
)
def test_batch_systems_get_whole_minutes(seconds, text):
    assert whole_minutes(seconds) == text
    assert job_text.seconds(text) - seconds in range(60)


@pytest.mark.parametrize(
    ("text", "gib"),
    [("4gb", 4), ("512mb", 0.5), ("1TB", 1024), ("1048576kb", 1), ("2147483648b", 2)],
)
def test_memory_in_gib(text, gib):
    assert job_text.gibibytes(text) == gib


def test_local_workers_fill_the_processors(monkeypatch):
    monkeypatch.setattr(
        "heterodyne.optimization.cmc.backends._cluster_script.usable_cores", lambda: 7
    )
    assert n_workers(cluster("local", cores_per_worker=2)) == 3
    assert n_workers(cluster("local", cores_per_worker=64)) == 1
    assert n_workers(cluster("slurm")) is None


def run_script(made, tmp_path, **environment):
    """What a stand-in of Parsl's worker pool sees when the script is run."""
    work = tmp_path / "run" / "work"
    (work / "parsl").mkdir(parents=True)
    programs = tmp_path / "it's bin"
    programs.mkdir()
    pool = programs / "process_worker_pool.py"
    pool.write_text('#!/bin/sh\nenv\necho "ARGS=$*"\necho "CWD=$(pwd)"\n')
    pool.chmod(0o700)
    script = worker_script(made, work, programs)
    done = subprocess.run(
        ["/bin/bash", "-c", script, "workers.sh", "--port=1"],
        env={"PATH": "/usr/bin:/bin"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return work, dict(re.findall(r"^(\w+)=(.*)$", done.stdout, re.M))


def test_the_script_sets_threads_and_a_shared_cache(tmp_path):
    made = cluster(workers_per_node=3, cores_per_worker=2, worker_init=["export A=1; export B=$A"])
    work, seen = run_script(made, tmp_path)
    assert seen["OMP_NUM_THREADS"] == seen["NPROC"] == "2"
    # Sums over several threads are rounded differently, and draws with them.
    assert seen["OPENBLAS_NUM_THREADS"] == seen["MKL_NUM_THREADS"] == "1"
    assert seen["PARSL_CORES"] == "6"
    assert seen["JAX_COMPILATION_CACHE_DIR"] == str(work / "compiled")
    assert (seen["A"], seen["B"]) == ("1", "1")
    assert seen["ARGS"] == "--port=1"
    assert seen["CWD"] == str(work / "parsl")


def test_lines_and_settings_of_the_user_win(tmp_path):
    made = cluster(worker_init=["export OMP_NUM_THREADS=9"])
    _, seen = run_script(made, tmp_path, JAX_COMPILATION_CACHE_DIR="/fast/cache")
    assert seen["OMP_NUM_THREADS"] == "9"
    assert seen["JAX_COMPILATION_CACHE_DIR"] == "/fast/cache"
    assert "PARSL_CORES" not in seen


def test_the_schema_states_forms_and_units():
    keys = json_schema()["$defs"]["Cluster"]["properties"]
    assert set(keys) == set(Cluster.model_fields)
    text = next(arm for arm in keys["queue"]["anyOf"] if arm["type"] == "string")
    assert re.fullmatch(text["pattern"], "debug@server")
    assert not re.fullmatch(text["pattern"], "a;b")
    assert keys["drain"]["unit"] == "s"
    assert json.dumps(keys)


def test_examples_of_the_documentation_can_be_used():
    text = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S)
    sections = [YAML(typ="safe", pure=True).load(io.StringIO(block)) for block in blocks]
    made = [check_run_config(RUN | section).cluster for section in sections]
    assert [one.starts_with for one in made if one] == ["single_node", "srun", "pals"]
    keys = re.findall(r"`(\w+)`", text.partition("| key | what |")[2].partition("\n\n")[0])
    assert set(Cluster.model_fields) <= set(keys)


def test_reading_a_run_file_does_not_load_parsl():
    code = (
        "import sys; from heterodyne.config.load import check_run_config;"
        "check_run_config({'experimental_data': {'file_path': 'a'}, 'cluster': "
        "{'scheduler': 'lsf'}});"
        "import heterodyne.optimization.cmc.backends.cluster;"
        "print('parsl' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
