"""The parts of ``benchmarks.gpu``: each runs in a process of its own and prints JSON lines.

Run by hand as ``python -m benchmarks._gpu_parts kernel 200 1000``.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np

from benchmarks import kernel
from benchmarks.gpu import STARTED
from heterodyne._events import Event, Progress
from heterodyne._typing import FloatArray, JaxArray
from heterodyne.config.schema import EngineName
from heterodyne.core._jax import jax, jnp
from heterodyne.core.likelihood import PairData, pack_pairs, sum_of_squares
from heterodyne.core.simulate import Experiment, simulate_pairs

BATCH = 64
# Points that are weighed, and how many at a time besides what the package does.
_WEIGHED, _AT_A_TIME = 4096, (8, 64, 256)
_SIZES_WEIGHED = (1000,)
# What one evaluation is repeated for, in s, and at least and at most how often.
_SPAN, _FEWEST, _MOST = 0.8, 5, 300
_EVERY = 5.0  # s between two lines about progress
_COMPILED = "/jax/core/compile/backend_compile_duration"


def emit(**line: Any) -> None:
    """Print a JSON line."""
    print(json.dumps(line), flush=True)


def devices() -> dict[str, Any]:
    """The processor, and the device that JAX computes with by default."""
    return {"cpu": jax.devices("cpu")[0], "gpu": jax.devices()[0]}


def smoke() -> None:
    """Say what is there, and compare a gradient with the one evaluated pair by pair."""
    device = jax.devices()[0]
    machine = {"cores": os.cpu_count(), "processor": platform.machine()}
    emit(platform=device.platform, kind=device.device_kind, jax=jax.__version__, **machine)
    found = kernel.measure(200)
    emit(
        separable=1e3 * float(np.median(found.separable)),
        direct=1e3 * float(np.median(found.direct)),
        value_differs=found.value_difference,
        gradient_differs=found.gradient_difference,
    )


def _value(x: JaxArray, data: PairData) -> JaxArray:
    contrast, offset = x[14:].reshape(2, -1)
    return sum_of_squares(x[:14], contrast, offset, data).sum()


GRADIENT = jax.value_and_grad(_value)
EVALUATIONS: dict[str, Any] = {
    "gradient": jax.jit(GRADIENT),
    "batch": jax.jit(jax.vmap(GRADIENT, (0, None))),
}


@dataclass(frozen=True)
class Compiled:
    """An evaluation that is ready for a device.

    Attributes:
        frames: Number of frames.
        what: Which evaluation.
        device: Which device.
        run: Evaluates.
        seconds: Time of the compilation beside others.
        mib: Memory of data, results and intermediate results in MiB; None if not known.
    """

    frames: int
    what: str
    device: str
    run: Callable[[], tuple[JaxArray, JaxArray]]
    seconds: float
    mib: float | None


def kernels(sizes: Iterable[int]) -> None:
    """Compare value and gradient on both devices."""
    cases = {n: _case(n) for n in sizes}
    jobs = [(n, what, name) for n in cases for what in EVALUATIONS for name in devices()]
    # Compiling side by side saves the time of the machine; what is timed runs alone.
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda job: _guarded(partial(_compiled, *job, cases[job[0]])), jobs))
    by_job = dict(zip(jobs, done, strict=True))
    for n in cases:
        for what in EVALUATIONS:
            pair = [by_job[n, what, name] for name in devices()]
            _guarded(partial(_compare, pair), frames=n, what=what)
        stats = devices()["gpu"].memory_stats() or {}
        emit(frames=n, what="memory", peak=stats.get("peak_bytes_in_use"))
        if n in _SIZES_WEIGHED:
            for name in devices():
                _guarded(partial(_weigh, cases[n], name), frames=n, what="weigh", device=name)


def _guarded(work: Callable[[], Any], **about: Any) -> Any:
    """Do work whose failure is to lose itself only."""
    try:
        return work()
    except Exception:  # noqa: BLE001  # told as data, and the next work goes on
        emit(**about, failed=traceback.format_exc())


def _case(n: int) -> tuple[FloatArray, Experiment, PairData]:
    experiment = Experiment(kernel.PARAMETERS, n, kernel.DURATION / n, 0.02, kernel.PHI)
    e = experiment
    with jax.default_device(devices()["cpu"]):
        c2 = simulate_pairs(e, kernel.CONTRAST, kernel.OFFSET, kernel.SIGMA, seed=1)
        data = pack_pairs(c2, e.t, e.q, e.dt, e.phi)
    scaling = np.repeat([kernel.CONTRAST, kernel.OFFSET], len(kernel.PHI))
    x = np.concatenate([kernel.PARAMETERS, scaling])
    spread = 1.0 + 0.01 * np.random.default_rng(2).normal(size=(BATCH, x.size))
    return np.concatenate([x[None], x * spread]), experiment, data


def _compiled(
    n: int, what: str, name: str, case: tuple[FloatArray, Experiment, PairData]
) -> Compiled:
    points, _, data = case
    x = points[0] if what == "gradient" else points[1:]
    args = jax.device_put((x, data), devices()[name])
    before = time.perf_counter()
    code = EVALUATIONS[what].lower(*args).compile()
    seconds = time.perf_counter() - before
    return Compiled(n, what, name, lambda: code(*args), seconds, _mib(code))


def _mib(code: Any) -> float | None:
    found = code.memory_analysis()
    if found is None:
        return None
    parts = ("argument", "output", "temp")
    return sum(getattr(found, f"{part}_size_in_bytes") for part in parts) / 2**20


def _compare(pair: list[Compiled | None]) -> None:
    """Time an evaluation on each device, and say how far results differ."""
    results = []
    for one in pair:
        if one is None:
            continue
        times, found, same = _timed(one.run)
        results.append(found)
        emit(
            frames=one.frames,
            what=one.what,
            device=one.device,
            compilation=one.seconds,
            mib=one.mib,
            least=1e3 * float(times.min()),
            median=1e3 * float(np.median(times)),
            repeats=times.size,
            repeatable=same,
        )
        if len(results) == 2:
            value, slope = _differences(*results)
            about = {"frames": one.frames, "what": f"{one.what} differs"}
            emit(**about, value=value, gradient=slope)


def _timed(run: Callable[[], Any]) -> tuple[FloatArray, list[FloatArray], bool]:
    """Seconds of each evaluation, its result, and whether results are the same bit by bit."""
    first = [np.asarray(part) for part in run()]
    again = [np.asarray(part) for part in run()]
    times: list[float] = []
    last: Any = again
    while len(times) < _FEWEST or (sum(times) < _SPAN and len(times) < _MOST):
        before = time.perf_counter()
        last = jax.block_until_ready(run())
        times.append(time.perf_counter() - before)
    same = all(
        np.array_equal(a, b) and np.array_equal(a, np.asarray(c))
        for a, b, c in zip(first, again, last, strict=True)
    )
    return np.array(times), first, same


def _differences(expected: list[FloatArray], found: list[FloatArray]) -> tuple[float, float]:
    """Largest relative difference of values, and of gradients over their norm."""
    value = np.abs(found[0] / expected[0] - 1.0).max()
    norm = np.linalg.norm(expected[1], axis=-1)
    slope = (np.linalg.norm(found[1] - expected[1], axis=-1) / norm).max()
    return float(value), float(slope)


def _weigh(case: tuple[FloatArray, Experiment, PairData], name: str) -> None:
    """Time what importance sampling does, for several numbers of points at a time."""
    from benchmarks.recovery import bound
    from heterodyne.optimization.cmc import _linear
    from heterodyne.optimization.cmc._nuts import Target
    from heterodyne.optimization.cmc._walkers import Density
    from heterodyne.optimization.posterior import Posterior

    _, experiment, data = case
    n, device = experiment.n_frames, devices()[name]
    problem = bound(experiment, np.ones((len(experiment.phi), n, n)))
    posterior = Posterior(problem.coordinates, problem.scaling)
    target = jax.device_put(Target(data, jnp.asarray(kernel.SIGMA)), device)
    centre = jax.device_put(Density(posterior, target)._centre, device)
    rng = np.random.default_rng(3)
    k = _linear.n_drawn(posterior)
    points = 0.1 * rng.normal(size=(_WEIGHED, posterior.size - k))
    normal = rng.normal(size=(_WEIGHED, k))
    standard, complete = _linear.at_once, cast(Any, _linear.complete)
    for at_a_time in _AT_A_TIME if name == "gpu" else (standard(n),):
        _linear.at_once = lambda _, count=at_a_time: count
        complete.clear_cache()
        before = time.perf_counter()
        _linear.complete_all(points[: _linear.PART], normal, target, centre, posterior)
        compiled = time.perf_counter()
        found = _linear.complete_all(points, normal, target, centre, posterior)
        seconds = time.perf_counter() - compiled
        emit(
            frames=n,
            what="weigh",
            device=name,
            at_a_time=at_a_time,
            compilation=compiled - before,
            rate=_WEIGHED / seconds,
            finite=int(np.isfinite(found[1]).sum()),
            total=float(found[1][np.isfinite(found[1])].sum()),
        )
    _linear.at_once = standard


def _reporter() -> Callable[[Event], None]:
    """A sink that prints how far the work is, now and then."""
    last = [time.monotonic()]

    def report(event: Event) -> None:
        if isinstance(event, Progress) and time.monotonic() - last[0] > _EVERY:
            last[0] = time.monotonic()
            emit(progress=[event.stage, event.done, event.total], detail=dict(event.detail))

    return report


def whole(n_frames: int, engine: EngineName, repeats: int) -> None:
    """Analyse simulated data some times over, as ``benchmarks.whole`` does."""
    from benchmarks import recovery

    recovery.N_FRAMES = n_frames
    compiled = _listen()
    ready = time.time()
    waited = ready - float(os.environ.get(STARTED, ready))
    emit(imported=waited)
    for seed in range(repeats):
        _analysed(seed, engine, waited if seed == 0 else 0.0)
        longest = sorted(compiled, key=lambda one: -one[1])[:8]
        total = sum(seconds for _, seconds in compiled)
        emit(compilations=len(compiled), compilation=total, longest=longest)
        compiled.clear()


def _listen() -> list[tuple[str, float]]:
    """A list that gets name and time of everything compiled from now on."""
    found: list[tuple[str, float]] = []

    def note(event: str, duration_secs: float, **about: Any) -> None:
        if event == _COMPILED:
            found.append((str(about.get("fun_name")), duration_secs))

    jax.monitoring.register_event_duration_secs_listener(note)
    return found


def _analysed(seed: int, engine: EngineName, waited: float) -> None:
    """Fit and sample one data set; the simulation of its data does not count."""
    from benchmarks.recovery import bound, draw_experiment
    from heterodyne.config.cmc import CMCConfig
    from heterodyne.optimization.cmc._analysis import analyse, compile_analysis
    from heterodyne.optimization.nlsq.core import fit_problem

    e, contrast, offset, sigma = draw_experiment(seed)
    c2 = simulate_pairs(e, contrast, offset, sigma, seed)
    before = time.perf_counter()
    problem = bound(e, c2)
    compile_analysis(problem, CMCConfig(), engine=engine)
    fit = fit_problem(problem)
    fitted = time.perf_counter()
    emit(data_set=seed, fit=fitted - before, squares=fit.result.sum_of_squares)
    analysis = analyse(fit, c2, CMCConfig(), engine=engine, on_event=_reporter())
    seconds = time.perf_counter() - before + waited
    d, walks = analysis.diagnosis, analysis.draws.trajectories
    gradients = None
    if walks is not None:
        gradients = int(walks.n_gradients.sum()) + walks.warmup_gradients
    stats = jax.devices()[0].memory_stats() or {}
    emit(
        data_set=seed,
        seconds=seconds,
        fit=fitted - before,
        engine=analysis.draws.engine,
        gradients=gradients,
        r_hat=d.worst_r_hat[1],
        ess=d.worst_ess_bulk[1],
        peak=stats.get("peak_bytes_in_use"),
        rows={row.name: [row.mean, row.sd] for row in analysis.rows},
    )


def main(words: list[str]) -> None:
    """Run the part that is named."""
    name, *rest = words
    if name == "smoke":
        smoke()
    elif name == "kernel":
        kernels(map(int, rest))
    else:
        n_frames, engine, repeats = rest
        chosen: Any = engine
        whole(int(n_frames), chosen, int(repeats))


if __name__ == "__main__":
    main(sys.argv[1:])
