"""The public index of the package."""

import subprocess
import sys

import pytest

import heterodyne


@pytest.mark.parametrize("name", heterodyne.__all__)
def test_every_public_name_is_there(name):
    assert getattr(heterodyne, name).__name__ == name


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        _ = heterodyne.fit


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, heterodyne; dir(heterodyne); "
        "print(*({'jax', 'numpy', 'numpyro', 'matplotlib', 'pydantic', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
