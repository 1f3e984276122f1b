import subprocess
import sys

import pytest

CODE = "import sys, {module}; print(*(m for m in {names} if m in sys.modules))"
HEAVY = ["numpy", "jax", "numpyro", "matplotlib", "arviz", "arviz_base", "arviz_stats", "scipy"]


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("heterodyne.config.load", HEAVY),
        ("heterodyne.config.template", HEAVY),
        ("heterodyne.config.parameter_space", [*HEAVY, "pydantic", "ruamel.yaml"]),
    ],
)
def test_configuration_does_without(module, names):
    code = CODE.format(module=module, names=names)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []
