"""What goes on around an analysis: a profile of it, and a look for second modes after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from heterodyne._log import get_logger
from heterodyne.config.cmc import CMCConfig
from heterodyne.core._jax import jax
from heterodyne.optimization.cmc._bimodal import BimodalResult, detect_bimodal
from heterodyne.optimization.cmc.results import CMCResult

_LOG = get_logger(__name__)


@contextmanager
def profiled(config: CMCConfig) -> Iterator[None]:
    """Record a profile of the computation where the configuration asks for one."""
    if not config.enable_jax_profiling:
        yield
        return
    with jax.profiler.trace(config.jax_profile_dir):
        yield
    _LOG.info("The profile is in %s.", config.jax_profile_dir)


def with_modes(result: CMCResult, config: CMCConfig) -> CMCResult:
    """Add to ``metadata["bimodal"]`` which parameters have two modes, and say so.

    Without scikit-learn nothing is looked for, and the entry is None.

    Args:
        result: A result with draws.
        config: ``bimodal_min_weight`` and ``bimodal_min_separation``.
    """
    samples, found = result.samples or {}, {}
    for name in result.parameter_names:
        draws = samples.get(name)
        if draws is None or np.ptp(draws) == 0:
            continue
        try:
            seen = detect_bimodal(
                draws,
                name,
                min_weight=config.bimodal_min_weight,
                min_separation=config.bimodal_min_separation,
            )
        except ImportError:
            return replace(result, metadata=result.metadata | {"bimodal": None})
        if seen.is_bimodal:
            found[name] = _described(seen)
    metadata: dict[str, Any] = result.metadata | {"bimodal": found}
    if found:
        listed = ", ".join(found)
        verdict = dict(metadata["verdict"])
        note = f"The draws of {listed} have two modes: a mean between them describes neither."
        verdict["sentences"] = (*verdict["sentences"], note)
        metadata["verdict"] = verdict
        _LOG.warning("%s", note)
    return replace(result, metadata=metadata)


def _described(seen: BimodalResult) -> dict[str, Any]:
    return {"means": seen.means, "weights": seen.weights, "delta_bic": seen.delta_bic}
