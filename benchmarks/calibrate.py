"""Whether intervals hold what they promise: ``python -m benchmarks.calibrate [NAME [COUNT] ...]``.

Known truths are simulated, fitted and sampled; the figures go to docs/calibration.md. A count
after a name is the number of data sets, as in ``sbc 100``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from benchmarks.performance import Section, machine, write
from benchmarks.recovery import ANGLES, bound, draw_experiment
from heterodyne._typing import FloatArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.core._jax import jnp
from heterodyne.core.simulate import (
    Detector,
    Experiment,
    creep_flow,
    simulate_pairs,
    simulate_speckles,
)
from heterodyne.optimization.cmc._analysis import Analysis, NoiseSettings, analyse, compile_analysis
from heterodyne.optimization.nlsq.core import fit_problem

PATH = Path(__file__).parents[1] / "docs" / "calibration.md"
_HEAD = "# Calibration\n\nWritten by `make calibrate`: intervals against known truths.\n"
# What the demo simulates.
DEMO = Detector(n_pixels=4000, n_modes=5)


def analysed(
    experiment: Experiment, c2: FloatArray, diagonal_is_raw: bool | None
) -> tuple[Analysis, float]:
    """Fit and sample one data set with the default settings; returns the seconds, too."""
    started = time.perf_counter()
    problem = bound(experiment, c2)
    compile_analysis(problem, CMCConfig())
    fit = fit_problem(problem)
    analysis = analyse(fit, c2, CMCConfig(), NoiseSettings(diagonal_is_raw))
    return analysis, time.perf_counter() - started


def truths(
    analysis: Analysis, experiment: Experiment, contrast: FloatArray, offset: FloatArray
) -> dict[str, float]:
    """True values of rates and fraction at reference times, contrasts and offsets."""
    values = np.asarray(analysis.derived(jnp.asarray(experiment.parameters)))
    known = dict(zip(analysis.derived.names, values.tolist(), strict=True))
    known |= {f"contrast_{k}": float(c) for k, c in enumerate(contrast)}
    return known | {f"offset_{k}": float(o) for k, o in enumerate(offset)}


def z_scores(analysis: Analysis, known: Mapping[str, float]) -> dict[str, float]:
    """Distance of the truth from the posterior mean in standard deviations."""
    rows = {row.name: row for row in analysis.rows if row.identified}
    middle = analysis.derived.names[7]
    # Only cos(phase) enters the model, so that no data tell v from -v.
    sign = np.sign(rows[middle].mean * known[middle]) if middle in rows else 1.0
    signed = {n: x * (sign if n.startswith("v(") else 1.0) for n, x in known.items()}
    return {n: (signed[n] - rows[n].mean) / rows[n].sd for n in known if n in rows}


def independent(count: int = 20) -> Section:
    """Posterior z-scores for independent errors."""
    lines, every = [], []
    for seed in range(count):
        experiment, contrast, offset, sigma = draw_experiment(seed)
        c2 = simulate_pairs(experiment, contrast, offset, sigma, seed)
        analysis, seconds = analysed(experiment, c2, None)
        z = np.array(
            list(z_scores(analysis, truths(analysis, experiment, contrast, offset)).values())
        )
        every.append(z)
        d = analysis.diagnosis
        lines.append(
            [f"{seed}", f"{z.size}", f"{np.mean(z**2):.2f}", f"{np.abs(z).max():.1f}",
             f"{d.worst_r_hat[1]:.3f}", f"{d.worst_ess_bulk[1]:.0f}", f"{d.divergences}",
             f"{seconds:.0f}"]
        )  # fmt: skip
        print(" ".join(lines[-1]), flush=True)
    pooled = np.concatenate(every)
    inside = np.mean(np.abs(pooled) < 1.96)
    return Section(
        "Independent errors",
        f"{count} random truths, {len(ANGLES)} angles of 200 frames, independent errors, default "
        f"priors and settings ({machine()}). z is the distance of the truth from the posterior "
        "mean in posterior standard deviations, for J, v and s at reference times, contrasts "
        "and offsets that the data inform, v up to its sign, which no data inform. Mean square "
        f"of all {pooled.size}: "
        f"**{np.mean(pooled**2):.2f}**; within 1.96: {inside:.1%}.",
        ["seed", "quantities", "mean z²", "largest z", "R-hat", "bulk ESS", "divergences", "s"],
        lines,
    )


def speckles(count: int = 40) -> Section:
    """Coverage of plain and corrected intervals on the demo's speckle experiment."""
    experiment = creep_flow()
    n_angles = len(experiment.phi)
    contrast, offset = np.full(n_angles, 1.0 / DEMO.n_modes), np.ones(n_angles)
    lines, plain_all, corrected_all = [], [], []
    for seed in range(count):
        c2 = simulate_speckles(experiment, DEMO, seed)
        analysis, seconds = analysed(experiment, c2, True)
        known = truths(analysis, experiment, contrast, offset)
        rows = [row for row in analysis.rows if row.name in known and row.identified]
        plain = [row.low <= known[row.name] <= row.high for row in rows]
        corrected = [
            row.corrected is not None
            and row.corrected["low"] <= known[row.name] <= row.corrected["high"]
            for row in rows
        ]
        plain_all += plain
        corrected_all += corrected
        d = analysis.diagnosis
        missed = [row.name for row, hit in zip(rows, corrected, strict=True) if not hit]
        lines.append(
            [f"{seed}", f"{len(rows)}", f"{sum(plain)}", f"{sum(corrected)}",
             ", ".join(missed) or "–", f"{d.worst_r_hat[1]:.3f}", f"{d.worst_ess_bulk[1]:.0f}",
             f"{d.divergences}", f"{seconds:.0f}"]
        )  # fmt: skip
        print(" | ".join(lines[-1]), flush=True)
    return Section(
        "Speckle noise",
        f"{count} simulations of the demo ({n_angles} angles of {experiment.n_frames} frames, "
        f"{DEMO.n_pixels} pixels, {DEMO.n_modes} modes, no shot noise). "
        "How many of the truths of identified quantities lie within the 95 % intervals: "
        f"plain **{np.mean(plain_all):.1%}**, corrected **{np.mean(corrected_all):.1%}** of "
        f"{len(plain_all)}.",
        ["seed", "quantities", "in plain", "in corrected", "missed by corrected", "R-hat",
         "bulk ESS", "divergences", "s"],
        lines,
    )  # fmt: skip


# Benchmarks of whole runs import this module, and are not to wait for what these draw with.
def ranks(count: int = 500) -> Section:
    """Ranks of truths under priors with which the data inform."""
    from benchmarks import sbc

    return sbc.informed(count)


def documented_ranks(count: int = 100) -> Section:
    """Ranks of truths under the documented priors."""
    from benchmarks import sbc

    return sbc.documented(count)


def misfits(count: int = 12) -> Section:
    """Whether models that do not fit are noticed."""
    from benchmarks import misfit

    return misfit.section(count)


SECTIONS: dict[str, Callable[..., Section]] = {
    "independent": independent,
    "speckles": speckles,
    "misfit": misfits,
    "sbc": ranks,
    "sbc_documented": documented_ranks,
}


def main(words: list[str]) -> int:
    """Run calibrations, all or those that are named, and write their sections."""
    counts: dict[str, list[int]] = {}
    for word in words:
        if word in SECTIONS:
            counts[word] = []
        elif word.isdecimal() and counts:
            counts[[*counts][-1]] = [int(word)]
        else:
            print(f"no calibration {word}; there are {', '.join(SECTIONS)}")
            return 2
    for name, count in (counts or {key: [] for key in SECTIONS}).items():
        section = SECTIONS[name](*count)
        print(section.markdown())
        write(section, PATH, _HEAD)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
