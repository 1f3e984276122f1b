"""Simulation-based calibration: ranks of truths, drawn from the priors, among posterior draws.

Truths are drawn from the priors, data from the likelihood of independent errors, and posteriors
from the package. The rank of a truth among draws of its posterior is then uniform, for every
quantity (Talts, Betancourt, Simpson, Vehtari and Gelman, arXiv:1804.06788).

``python -m benchmarks.calibrate sbc sbc_documented`` runs both. Each data set adds a line to a file
in build/sbc, so that an interrupted study goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.performance import Section, machine
from benchmarks.uniformity import band, counts_below, levels, p_value, rank
from heterodyne._errors import HeterodyneError
from heterodyne._events import ignore_events
from heterodyne._typing import FloatArray, JaxArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.config.load import load_run_config
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jax
from heterodyne.core.likelihood import PairData, pack_pairs
from heterodyne.core.simulate import Experiment, simulate_pairs
from heterodyne.io.files import write_bytes
from heterodyne.optimization.cmc._passes import Keeper, Passes
from heterodyne.optimization.cmc._quantities import Quantities, prior_draws
from heterodyne.optimization.cmc._sampler import Schedule
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.derived import Derived
from heterodyne.optimization.nlsq.core import fit_problem
from heterodyne.optimization.posterior import Posterior, Unknowns
from heterodyne.optimization.problem import Problem
from heterodyne.optimization.scaling import Scaling, ScalingMode
from heterodyne.viz import style

_ROOT = Path(__file__).parents[1]
RUN_FILE = Path(__file__).with_name("sbc.yaml")
RESULTS = _ROOT / "build" / "sbc"
IMAGES = _ROOT / "docs" / "images"
ANGLES = (-30.0, 15.0, 70.0)
# Scales the prior of sigma in place of the noise seen in the data, which are not to inform it.
NOISE = 0.01
# Steps of walkers, or draws of NUTS, after which a set that has not converged is given up.
SETTINGS = (("num_samples", 1600),)
# Draws of a posterior that a truth is ranked among, far apart in chains.
N_RANKED = 199
WORKERS = 2
# Frames under the documented priors, which walkers take long to explore.
DOCUMENTED_FRAMES = 30
# Neighbouring times have similar ranks; more quantities than these are seldom out together.
MANY = 6
PROBABILITY = 0.99
LEVELS = (0.5, 0.8, 0.9, 0.95)
LOG_LIKELIHOOD = "log likelihood"
COLUMNS = (
    "quantity", "all: p", "mean rank", "in 90 %", "converged: p", "mean rank", "in 90 %",
)  # fmt: skip


@dataclass(frozen=True)
class Study:
    """Priors, geometry and settings from which data sets follow by their numbers.

    Attributes:
        name: Name of the study and of its files.
        space: Priors of truths and posteriors.
        n_frames: Number of frames.
        dt: Frame spacing in s.
        q: Wavevector in 1/Å.
        settings: Fields of CMCConfig that differ from their defaults.
    """

    name: str
    space: ParameterSpace
    n_frames: int
    dt: float
    q: float
    settings: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, name: str) -> Study:
        """Set up ``sbc``, with the priors of the run file, or ``sbc_documented``."""
        config = load_run_config(RUN_FILE)
        at = config.analyzer_parameters
        assert at.end_frame
        assert at.dt
        assert isinstance(at.scattering.wavevector_q, float)
        space, n_frames = ParameterSpace(), DOCUMENTED_FRAMES
        if name == "sbc":
            space, n_frames = config.parameter_space(), at.end_frame
        return cls(name, space, n_frames, at.dt, at.scattering.wavevector_q, SETTINGS)

    @property
    def times(self) -> FloatArray:
        """Frame times in s."""
        return self.dt * np.arange(1.0, self.n_frames + 1.0)

    @property
    def posterior(self) -> Posterior:
        """Map and density of the unknowns."""
        scaling = Scaling.of(ScalingMode.INDIVIDUAL, self.space, len(ANGLES))
        return Posterior(PhysicsCoordinates.of(self.space, self.times, phi=ANGLES), scaling)

    @property
    def derived(self) -> Derived:
        """Rates and fraction at reference times."""
        return Derived.of(self.times)

    @property
    def stem(self) -> str:
        """Start of the names of files with results, which changes with whatever decides them."""
        # The texts of parameters do not.
        space = [(n, p.min, p.max, p.vary, p.prior) for n, p in self.space.parameters.items()]
        decides = (space, self.n_frames, self.dt, self.q, self.settings, ANGLES, NOISE, N_RANKED)
        return f"{self.name}-{hashlib.sha256(repr(decides).encode()).hexdigest()[:8]}"

    def truth(self, number: int) -> Quantities:
        """Draw a truth from the priors."""
        return prior_draws(self.posterior, NOISE, self.derived, 1, 3 * number)

    def data(self, number: int, truth: Quantities) -> FloatArray:
        """Simulate c2 of a truth, shape (n_angles, N, N)."""
        experiment = Experiment(truth.physics[0, 0], self.n_frames, self.dt, self.q, ANGLES)
        values = {name: float(x[0, 0]) for name, x in truth.parameters.items()}
        contrast, offset = (
            [values[f"{kind}_{k}"] for k in range(len(ANGLES))] for kind in ("contrast", "offset")
        )
        return simulate_pairs(experiment, contrast, offset, values["sigma"], 3 * number + 1)

    def passes(self, number: int, c2: FloatArray) -> Passes:
        """Fit data, and set up the draws of their posterior."""
        posterior = self.posterior
        packed = pack_pairs(c2, self.times, self.q, self.dt, ANGLES)
        fit = fit_problem(Problem(packed, posterior.coordinates, posterior.scaling))
        # Draws that have their random numbers in common would have their errors in common.
        config = CMCConfig(seed=3 * number + 2, **dict(self.settings))
        return Passes(
            fit=fit,
            posterior=posterior,
            derived=self.derived,
            schedule=Schedule.of(config, c2.size, posterior.size),
            engine="auto",
            scale=NOISE,
            keeper=Keeper(),
            on_event=ignore_events,
        )


def examined(study: Study, number: int) -> dict[str, Any]:
    """Simulate a data set, draw from its posterior and rank its truth."""
    started = time.perf_counter()
    truth = study.truth(number)
    fraction = [float(x[0, 0]) for name, x in truth.derived.items() if name.startswith("s(")]
    record: dict[str, Any] = {"number": number, "constant": len({*fraction}) == 1}
    try:
        passes = study.passes(number, study.data(number, truth))
        sampled = passes.plain()
    except (HeterodyneError, ValueError, np.linalg.LinAlgError) as error:
        return record | {"error": f"{type(error).__name__}: {error}"}
    d, data = sampled.diagnosis, passes.fit.problem.data
    draws = quantities(study.posterior, thinned(sampled.quantities), data)
    known = quantities(study.posterior, truth, data)
    rng = np.random.default_rng((number, 3))
    return record | {
        "engine": sampled.draws.engine,
        "converged": d.passed(),
        "r_hat": d.worst_r_hat,
        "ess": d.worst_ess_bulk,
        "divergences": d.divergences,
        "n_draws": d.n_draws,
        "k_hat": d.k_hat,
        "kish": d.kish,
        "seconds": time.perf_counter() - started,
        "log_likelihoods": [known[LOG_LIKELIHOOD][0], draws[LOG_LIKELIHOOD].max()],
        "ranks": {name: rank(known[name][0], x, rng) for name, x in draws.items()},
    }


def thinned(drawn: Quantities, count: int = N_RANKED) -> Quantities:
    """Take draws that lie far apart in all chains."""
    size = drawn.physics.shape[0] * drawn.physics.shape[1]
    chosen = ((np.arange(count) + 0.5) * size / count).astype(int)

    def part(x: FloatArray) -> FloatArray:
        return x.reshape(size, *x.shape[2:])[None, chosen]

    parameters, derived = (
        {name: part(x) for name, x in named.items()} for named in (drawn.parameters, drawn.derived)
    )
    return Quantities(parameters, derived, part(drawn.physics))


def quantities(posterior: Posterior, drawn: Quantities, data: PairData) -> dict[str, FloatArray]:
    """Parameters, derived quantities and log likelihood of one chain, shape (n,) each."""
    columns = drawn.parameters
    scaling = [columns[name][0] for name in posterior.scaling.names]
    unknowns = Unknowns(drawn.physics[0], np.stack(scaling, axis=-1), columns["sigma"][0])
    values = {name: x[0] for name, x in drawn.all().items()}
    return values | {LOG_LIKELIHOOD: np.asarray(_log_likelihoods(unknowns, data, posterior))}


@partial(jax.jit, static_argnames="posterior")
def _log_likelihoods(unknowns: Unknowns, data: PairData, posterior: Posterior) -> JaxArray:
    return jax.lax.map(lambda one: posterior.log_likelihood(one, data), unknowns)


def work(name: str, count: int, worker: int) -> None:
    """Examine every second data set, those that are done left out."""
    os.nice(10)
    if hasattr(os, "sched_setaffinity"):
        # Threads of two workers would wait for each other.
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[worker % len(cores)]})
    study = Study.of(name)
    done = {record["number"] for record in records(study)}
    RESULTS.mkdir(parents=True, exist_ok=True)
    with (RESULTS / f"{study.stem}.{worker}.jsonl").open("a", encoding="utf-8") as file:
        for number in range(worker, count, WORKERS):
            if number not in done:
                print(json.dumps(examined(study, number)), file=file, flush=True)


def records(study: Study) -> Iterator[dict[str, Any]]:
    """Read what is known about data sets."""
    for path in sorted(RESULTS.glob(f"{study.stem}.*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            # An interrupted worker may leave half a line.
            if line.endswith("}"):
                yield json.loads(line)


def run(study: Study, count: int) -> list[dict[str, Any]]:
    """Examine data sets in worker processes; returns the records of all, in order."""
    words = [sys.executable, "-m", "benchmarks.sbc", study.name, str(count)]
    # Workers share the cores already.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen([*words, str(k)], cwd=_ROOT, env=environment) for k in range(WORKERS)
    ]
    codes = [worker.wait() for worker in workers]
    if any(codes):
        raise SystemExit(f"workers of {study.name} ended with {codes}")
    found = {record["number"]: record for record in records(study)}
    return [found[number] for number in range(count)]


@style.styled
def draw(found: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the differences between ECDFs of ranks and the uniform one, with their bands."""
    ranked = [r for r in found if "ranks" in r]
    chosen = {
        "all": (ranked, style.PLAIN),
        "converged": ([r for r in ranked if r["converged"]], style.CORRECTED),
    }
    z = levels(N_RANKED)
    low, high = (x / len(ranked) - z for x in band(len(ranked), z, PROBABILITY))
    names = list(ranked[0]["ranks"])
    figure, panels = style.small_panels(len(names), 1.15, columns=6)
    for panel, name in zip(panels, names, strict=True):
        panel.fill_between(z, low, high, color=style.RULE, lw=0, alpha=0.7)
        for label, (sets, colour) in chosen.items():
            if sets:
                below = counts_below([r["ranks"][name] for r in sets], N_RANKED) / len(sets)
                panel.plot(z, below - z, color=colour, lw=1.0, label=f"{label}: {len(sets)}")
        panel.set_title(name, fontsize=7.5)
        panel.set(xlim=(0, 1), xticks=[0, 0.5, 1])
        style.few_ticks(panel, x=None, y=3)
    # Beside the last panel, where the grid has room.
    legend = panels[-1].legend(loc="center left", bbox_to_anchor=(1.2, 0.5), title="data sets")
    legend.set_in_layout(False)
    style.footnote(
        figure,
        "Share of data sets whose truth has a smaller rank, less the rank as a share of the "
        f"draws, against that share. Grey: where a uniform ECDF of {len(ranked)} ranks stays "
        f"everywhere with {PROBABILITY:.0%} probability.",
    )
    write_bytes(path, style.png(figure))


def section(title: str, text: str, study: Study, count: int) -> Section:
    """Run a study, draw it and describe it."""
    found = run(study, count)
    draw(found, IMAGES / f"{study.name}.png")
    ranked = [r for r in found if "ranks" in r]
    converged = [r for r in ranked if r["converged"]]
    rows = []
    for name in ranked[0]["ranks"]:
        cells = [cell for sets in (ranked, converged) for cell in described(name, sets)]
        rows.append([name, *cells])
    return Section(title, f"{text}\n\n{accounts(found)}\n\n{image(study, title)}", COLUMNS, rows)


def described(name: str, sets: Sequence[Mapping[str, Any]]) -> list[str]:
    """p, mean rank, and share of the truths in central intervals, of one quantity."""
    if not sets:
        return ["–"] * 3
    ranks = np.array([r["ranks"][name] for r in sets])
    inside = np.abs((ranks + 0.5) / (N_RANKED + 1) - 0.5) < 0.45
    p = p_value(ranks.tolist(), N_RANKED)
    middle = (ranks.mean() + 0.5) / (N_RANKED + 1)
    # Smaller probabilities are rounding.
    text = f"{p:.1g}" if p > 1e-12 else "< 1e-12"
    text = f"**{text}**" if p < 1.0 - PROBABILITY else f"{p:.2f}"
    return [text, f"{middle:.3f}", f"{inside.mean():.1%}"]


def image(study: Study, title: str) -> str:
    """Markdown of the figure."""
    return f"![{title}: ECDF differences of all quantities](images/{study.name}.png)"


def accounts(found: Sequence[Mapping[str, Any]]) -> str:
    """Say how many data sets failed or did not converge, on which engine."""
    ranked = [r for r in found if "ranks" in r]
    errors = Counter(r["error"] for r in found if "error" in r)
    engines = []
    for engine in sorted({r["engine"] for r in ranked}):
        mine = [r for r in ranked if r["engine"] == engine]
        passed = sum(r["converged"] for r in mine)
        seconds = np.array([r["seconds"] for r in mine])
        engines.append(
            f"{engine} {len(mine)} ({passed} converged; median {np.median(seconds):.1f} s, "
            f"longest {seconds.max():.0f} s)"
        )
    failed = "; ".join(f"{n} times `{text}`" for text, n in errors.items()) or "none"
    constant = sum(r["constant"] for r in found)
    lost = [r for r in ranked if sum(k in (0, N_RANKED) for k in r["ranks"].values()) > MANY]
    believed = sum(r["converged"] for r in lost)
    return (
        f"{len(found)} data sets, {constant} of them with a fraction that is the same at all "
        f"reference times. Engines: {', '.join(engines)}. Failed without draws: {failed}. In "
        f"{len(lost)} sets, {believed} of them converged, more than {MANY} quantities of the truth "
        f"lie beyond all draws, as where the truth is in a mode that was not drawn from. "
        f"On average over the quantities {held(ranked)}. Machine: {machine()}."
    )


def held(sets: Sequence[Mapping[str, Any]]) -> str:
    """Say how many truths central intervals hold; errors are those of the mean over the sets."""
    ranks = (np.array([list(r["ranks"].values()) for r in sets]) + 0.5) / (N_RANKED + 1)
    texts = []
    for level in LEVELS:
        inside = 100.0 * (np.abs(ranks - 0.5) < 0.5 * level).mean(axis=1)
        error = inside.std(ddof=1) / np.sqrt(len(sets))
        texts.append(f"{level:.0%} intervals hold {inside.mean():.1f} ± {error:.1f} %")
    return ", ".join(texts)


_TEXT = (
    "Ranks of truths among {ranked} thinned draws of the posterior, engine `auto`, {angles} angles "
    "of {frames} frames, independent errors, priors {priors}, half-normal prior of sigma of scale "
    "{width:g}. p is the probability that uniform ranks stray as far as these from the diagonal "
    "at any place; **bold** leaves the {probability:.0%} band of the figure, as one of {once} "
    "quantities does by chance. A mean rank is 0.5 where truths and draws agree; in 90 % is the "
    "share of truths in central 90 % intervals. A set that did not converge is one that the "
    "verdict tells not to believe; leaving such sets out selects truths, so ranks need not be "
    "uniform then. Walkers step, and NUTS draws, {settings}."
)


def _text(study: Study, priors: str) -> str:
    counts = dict(study.settings)
    return _TEXT.format(
        ranked=N_RANKED, angles=len(ANGLES), frames=study.n_frames, priors=priors,
        width=Posterior.sigma_width(NOISE), probability=PROBABILITY,
        once=round(1.0 / (1.0 - PROBABILITY)),
        settings=f"at most {counts['num_samples']} times in each chain, to bound the time",
    )  # fmt: skip


def informed(count: int) -> Section:
    """Ranks under the priors of the run file, with which the data inform."""
    study = Study.of("sbc")
    text = _text(study, "of `benchmarks/sbc.yaml`, truncated at bounds")
    return section("Simulation-based calibration", text, study, count)


def documented(count: int) -> Section:
    """Ranks under the documented priors."""
    study = Study.of("sbc_documented")
    text = _text(study, "as documented")
    return section("Simulation-based calibration, documented priors", text, study, count)


if __name__ == "__main__":
    work(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
