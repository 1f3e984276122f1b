"""Results of draws with known moments."""

from __future__ import annotations

import numpy as np

from heterodyne.optimization.cmc.results import CMCResult

NAMES = ["D0_ref", "alpha_ref", "contrast_0", "offset_0"]
CENTRES = np.array([1e4, -0.5, 0.2, 1.0])
WIDTHS = np.array([300.0, 0.1, 0.01, 1e-3])
CHAINS, DRAWS = 3, 400


def make_draws(seed: int = 0) -> np.ndarray:
    """Independent normal draws, shape (chains, draws, names)."""
    rng = np.random.default_rng(seed)
    return CENTRES + WIDTHS * rng.normal(size=(CHAINS, DRAWS, len(NAMES)))


def make_result(**changes) -> CMCResult:
    draws = make_draws()
    flat = draws.reshape(-1, len(NAMES))
    ends = {"95": (2.5, 97.5), "89": (5.5, 94.5)}
    given = {
        "parameter_names": list(NAMES),
        "posterior_mean": flat.mean(axis=0),
        "posterior_std": flat.std(axis=0, ddof=1),
        "credible_intervals": {
            name: {level: tuple(np.percentile(x, e).tolist()) for level, e in ends.items()}
            for name, x in zip(NAMES, flat.T, strict=True)
        },
        "convergence_passed": True,
        "r_hat": np.array([1.001, 1.002, 1.003, 1.004]),
        "ess_bulk": np.array([900.0, 910.0, 920.0, 930.0]),
        "ess_tail": np.array([800.0, 810.0, 820.0, 830.0]),
        "bfmi": np.array([0.9, 1.0, 1.1]),
        "samples": {name: draws[..., k] for k, name in enumerate(NAMES)},
        "num_samples": DRAWS,
        "num_chains": CHAINS,
        "convergence_status": "converged",
    }
    return CMCResult(**(given | changes))
