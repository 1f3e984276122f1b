import json
from dataclasses import dataclass

import pytest
from cli_files import RUN_FILE, SMALL

from heterodyne.cli.main import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def document(self):
        return json.loads(self.out, parse_constant=pytest.fail)


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run the command line in a working directory of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    """A small file of simulated speckles."""
    path = tmp_path_factory.mktemp("simulated") / "small.h5"
    assert main(["simulate", str(path), *SMALL]) == 0
    return path


@pytest.fixture
def run_file(tmp_path, simulated):
    """A run file in which four physics parameters vary."""
    path = tmp_path / "run.yaml"
    path.write_text(RUN_FILE.format(path=simulated))
    return path
