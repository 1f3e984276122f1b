import json
from dataclasses import dataclass

import pytest

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


SMALL = ("--frames", "24", "--pixels", "200", "--quiet")


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    """A small file of simulated speckles."""
    path = tmp_path_factory.mktemp("simulated") / "small.h5"
    assert main(["simulate", str(path), *SMALL]) == 0
    return path


RUN_FILE = """\
experimental_data: {{file_path: {path}}}
analyzer_parameters: {{scattering: {{wavevector_q: 0.0054}}}}
parameters:
  reference: {{alpha_ref: {{vary: false}}, D_offset_ref: {{vary: false}}}}
  sample: {{alpha_sample: {{vary: false}}, D_offset_sample: {{vary: false}}}}
  velocity: {{beta: {{vary: false}}, v_offset: {{vary: false}}}}
  fraction: {{f1: {{vary: false}}, f2: {{vary: false}}, f3: {{vary: false}}}}
  angle: {{phi0: {{vary: false}}}}
optimization: {{nlsq: {{n_starts: 2}}}}
"""


@pytest.fixture
def run_file(tmp_path, simulated):
    """A run file in which four physics parameters vary."""
    path = tmp_path / "run.yaml"
    path.write_text(RUN_FILE.format(path=simulated))
    return path
