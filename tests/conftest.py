"""Where tests keep compiled code and what they write for a user; set before JAX is imported."""

import getpass
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# Functions are called a few times, so compiling them decides the time.
_QUICK_COMPILER = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
_ENVIRONMENT = {
    "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {_QUICK_COMPILER}".strip(),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


# Compiling, and other work on the machine, decide how long an example takes.
settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")


def pytest_configure(config):
    os.environ.update(_ENVIRONMENT)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_shared(config, "compiled"))
    os.environ["MPLCONFIGDIR"] = str(_shared(config, "matplotlib"))
    # A worker may find a file that another is still writing; it compiles then.
    config.addinivalue_line(
        "filterwarnings", "ignore:Error (reading|writing) persistent compilation cache"
    )


def _shared(config, name):
    """Folder that all workers and later runs use."""
    if config.pluginmanager.has_plugin("cacheprovider"):
        return config.cache.mkdir(name)
    folder = Path(tempfile.gettempdir()) / f"heterodyne-tests-{getpass.getuser()}" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """Keep the home of the user out of reach."""
    folder = tmp_path_factory.getbasetemp() / "home"
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("HOME", str(folder))
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return folder
