"""The default engine against slow references: ``python -m benchmarks.against_reference``.

References are those of ``benchmarks.reference``; the table goes to docs/performance.md.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from benchmarks.performance import Section, machine, write
from benchmarks.reference import CASES, PATH, Reference
from heterodyne.config.cmc import CMCConfig
from heterodyne.optimization.cmc._analysis import NoiseSettings, analyse

# Draws of several seeds, so that the error of the reference decides.
SEEDS = 4
COLUMNS = (
    "data", "engine", "means differ by, Monte Carlo errors", "in sd", "sd differ by",
    "Monte Carlo error of that",
)  # fmt: skip
TEXT = (
    "2 angles of 60 frames, independent errors; unknowns: {unknowns}. The reference evaluates the "
    "likelihood pair by pair, integrates nothing out and is drawn by NumPyro's `MCMC`, 4 chains "
    "of 2,500 draws with R-hat below 1.01 (`tests/cmc/reference_posteriors.json`). Ours are whole "
    "analyses with default settings and {seeds} seeds. The largest differences over all unknowns, "
    "with their names. Machine: {machine}."
)


def row(name: str, stored: dict[str, Any]) -> list[str]:
    """Compare one case."""
    reference, names = Reference.of(name), stored["names"]
    configs = (CMCConfig(seed=seed) for seed in range(SEEDS))
    runs = [analyse(reference.fit, reference.c2, c, NoiseSettings(scale=1.0)) for c in configs]
    draws = np.array([[run.plain.parameters[n] for n in names] for run in runs])
    ess = sum(np.array([run.diagnosis.ess_bulk[n] for n in names]) for run in runs)
    draws = np.moveaxis(draws, 1, 0).reshape(len(names), -1)
    mean, sd, of_mean, of_sd = (np.array(stored[k]) for k in ("mean", "sd", "ess_mean", "ess_sd"))
    shift = np.abs(draws.mean(axis=1) - mean) / sd
    errors = shift / np.sqrt(1.0 / of_mean + 1.0 / ess)
    width, error = draws.std(axis=1) / sd - 1.0, np.sqrt(0.5 / of_sd + 0.5 / ess)
    far, wide = int(errors.argmax()), int(np.abs(width).argmax())
    cells = [
        name,
        ", ".join(sorted({run.draws.engine for run in runs})),
        f"{errors[far]:.1f} ({names[far]})",
        f"{shift[far]:.3f}",
        f"{width[wide]:+.1%} ({names[wide]})",
        f"{error[wide]:.1%}",
    ]
    print(" | ".join(cells), flush=True)
    return cells


def section() -> Section:
    """Compare all cases."""
    cases = json.loads(PATH.read_text("utf-8"))["cases"]
    unknowns = len(next(iter(cases.values()))["names"])
    text = TEXT.format(unknowns=unknowns, seeds=SEEDS, machine=machine())
    return Section("Slow references", text, COLUMNS, [row(name, cases[name]) for name in CASES])


if __name__ == "__main__":
    write(section())
