import copy
import importlib.metadata
import subprocess
import sys
from datetime import UTC, datetime

import pytest

import heterodyne
from heterodyne._errors import ConfigError
from heterodyne.config.cmc import CMCConfig
from heterodyne.io import run_folder
from heterodyne.io.run_folder import RunFolder, config_sha256, make_manifest

CONFIG = {
    "experimental_data": {"file_path": "/data/a.h5", "layout": "auto"},
    "optimization": {"method": "cmc", "cmc": CMCConfig().to_dict()},
    "output": {"directory": "/results"},
}
DATA = {"path": "/data/a.h5", "sha256": "12ab", "layout": "aps_u", "details": {"t_first": 0.1}}


def manifest(config=CONFIG, **data):
    return make_manifest(config, DATA | data, command=["heterodyne", "fit"], seed=7)


def test_manifest_says_what_made_the_run():
    made = manifest()
    assert made["heterodyne"] == heterodyne.__version__
    assert made["versions"]["numpy"] == importlib.metadata.version("numpy")
    assert {"jax", "numpyro", "arviz-stats"} <= made["versions"].keys()
    assert (made["seed"], made["command"]) == (7, ["heterodyne", "fit"])
    assert made["data"] == DATA
    age = datetime.now(UTC) - datetime.fromisoformat(made["created"])
    assert -1 <= age.total_seconds() < 60


def test_versions_are_known_without_importing_the_packages():
    code = (
        "import sys; from heterodyne.io.run_folder import make_manifest;"
        "made = make_manifest({}, dict.fromkeys(('path', 'sha256', 'layout', 'details')),"
        " command=[], seed=0); assert made['versions']['jax'];"
        "print(*({'jax', 'numpy', 'numpyro', 'scipy'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


def changed(*path, value):
    config = copy.deepcopy(CONFIG)
    holder = config
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return config


@pytest.mark.parametrize(
    ("path", "same"),
    [
        (("experimental_data", "file_path"), True),
        (("output", "directory"), True),
        (("optimization", "engine"), False),
        (("experimental_data", "layout"), False),
        (("optimization", "method"), False),
        (("optimization", "cmc", "timeout", "per_shard_timeout"), True),
        (("optimization", "cmc", "backend_config", "backend_name"), True),
        (("optimization", "cmc", "enable_jax_profiling"), True),
        (("optimization", "cmc", "backend_config", "chain_method"), False),
        (("optimization", "cmc", "per_shard_mcmc", "seed"), False),
    ],
)
def test_digest_counts_settings_but_not_places(path, same):
    assert (config_sha256(CONFIG) == config_sha256(changed(*path, value="new"))) is same


def test_digest_does_not_depend_on_the_order_of_keys():
    assert config_sha256(dict(reversed(CONFIG.items()))) == config_sha256(CONFIG)


def test_a_folder_is_taken_again_by_the_same_run(tmp_path):
    folder = RunFolder.create(tmp_path / "a" / "b", manifest())
    folder.write_json(run_folder.FIT, {"success": True})
    again = RunFolder.create(tmp_path / "a" / "b", manifest(path="/moved/a.h5"))
    assert again.read_json(run_folder.FIT) == {"success": True}
    assert again.manifest["data"]["path"] == "/moved/a.h5"
    assert RunFolder.open(tmp_path / "a" / "b") == folder


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            manifest(sha256="34cd", path="/data/b.h5"),
            r"other data \(/data/a\.h5, not /data/b\.h5\)",
        ),
        (manifest(changed("optimization", "method", value="nlsq")), "other settings"),
    ],
)
def test_a_folder_of_another_run_is_refused_unless_forced(tmp_path, other, said):
    folder = RunFolder.create(tmp_path, manifest())
    folder.write_json(run_folder.FIT, {})
    (tmp_path / "notes.txt").write_text("mine")
    before = folder.manifest
    with pytest.raises(ConfigError, match=said + r".*--set output\.directory.*--force"):
        RunFolder.create(tmp_path, other)
    assert folder.manifest == before
    assert folder.file(run_folder.FIT).exists()
    RunFolder.create(tmp_path, other, force=True)
    assert folder.manifest == other
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.json", "notes.txt"]


def test_a_broken_manifest_is_refused_unless_forced(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ConfigError, match="not valid JSON"):
        RunFolder.create(tmp_path, manifest())
    assert RunFolder.create(tmp_path, manifest(), force=True).manifest["seed"] == 7


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", ["maps.npz", "config.json"])
def test_files_that_no_run_has_made_are_never_replaced(tmp_path, name, force):
    tmp_path.joinpath(name).write_bytes(b"measured")
    with pytest.raises(ConfigError, match=f"would replace {name}, which no run has made"):
        RunFolder.create(tmp_path, manifest(), force=force)
    assert tmp_path.joinpath(name).read_bytes() == b"measured"
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("force", [False, True])
def test_data_in_the_folder_of_another_run_are_never_replaced(tmp_path, force):
    RunFolder.create(tmp_path, manifest())
    data = tmp_path / "maps.npz"
    data.write_bytes(b"measured")
    with pytest.raises(ConfigError, match=r"would replace maps.npz.*move the file"):
        RunFolder.create(tmp_path, manifest(path=str(data)), force=force)
    assert data.read_bytes() == b"measured"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file: the folder cannot be made.*output\.directory"):
        RunFolder.create(tmp_path / "file", manifest())


def test_only_a_run_folder_opens(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no manifest\.json"):
        RunFolder.open(tmp_path)
    with pytest.raises(ConfigError, match="there is no such folder"):
        RunFolder.open(tmp_path / "nowhere")
