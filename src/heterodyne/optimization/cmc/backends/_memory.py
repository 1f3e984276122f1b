"""Upper limits of the memory that drawing takes."""

from __future__ import annotations

from heterodyne.config.cmc import CMCConfig
from heterodyne.optimization.cmc._array_checks import count

_GB = 1e9
_FLOAT = 8
# Interpreter, JAX, NumPyro and the compiler, without data.
_PROCESS = 0.8
NUMPYRO_POINT = 2000
"""Peak in bytes per data point, measured on the models of ``heterodyne.optimization.cmc.model``.

NumPyro compiles data into the code, and the gradient keeps what each step of the model returned.
"""
ENGINE_POINT = 300
"""The same of the package's engine, to which data are an argument."""
# Fields of NumPyro's state beside the parameters, and copies of the draws while they are mapped
# and stacked.
_FIELDS, _COPIES = 6, 3


def process_gb(n_data: int, n_params: int, n_chains: int, per_point: int = NUMPYRO_POINT) -> float:
    """Return the memory in GB of one process that runs chains one after the other.

    The working memory is that of one chain; the draws of all chains are kept.

    Args:
        n_data: Number of data points.
        n_params: Number of parameters.
        n_chains: Number of chains, of as many draws as ``CMCConfig`` has by default.
        per_point: Working memory per data point in bytes.

    Raises:
        ConfigError: A number that is not at least 1.
    """
    points, parameters = count(n_data, "n_data"), count(n_params, "n_params")
    chains = count(n_chains, "n_chains")
    of_draw = _FLOAT * _COPIES * (parameters + _FIELDS)
    metric = _FLOAT * parameters**2
    draws = chains * CMCConfig.num_samples * of_draw
    return _PROCESS + (points * per_point + metric + draws) / _GB
