"""The passes over one data set: for independent errors, and corrected for speckle noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import numpy as np

from heterodyne._events import EventSink, Message, Progress
from heterodyne._typing import FloatArray
from heterodyne.config.schema import EngineName
from heterodyne.core._jax import jnp
from heterodyne.optimization.cmc._averages import averages, possible, weighed
from heterodyne.optimization.cmc._bend import Bend, bend_at
from heterodyne.optimization.cmc._diagnostics import (
    THRESHOLDS,
    Diagnosis,
    Thresholds,
    diagnose,
    diagnose_walks,
    diagnose_weighted,
)
from heterodyne.optimization.cmc._draws import Draws, Proposals
from heterodyne.optimization.cmc._engine import Engine, drive
from heterodyne.optimization.cmc._ensemble import EnsembleSampler
from heterodyne.optimization.cmc._frame import (
    Frame,
    competing_frames,
    laplace_frame,
    posterior_mode,
)
from heterodyne.optimization.cmc._importance import FEW, MOST, ImportanceSampler, weighted_frame
from heterodyne.optimization.cmc._nuts import Target
from heterodyne.optimization.cmc._plateaus import plateau_frames
from heterodyne.optimization.cmc._quantities import Quantities
from heterodyne.optimization.cmc._sampler import Sampler, Schedule
from heterodyne.optimization.derived import Derived
from heterodyne.optimization.nlsq.core import Fit
from heterodyne.optimization.posterior import Posterior
from heterodyne.optimization.sandwich import SpeckleNoise, correction

S = TypeVar("S")
PLAIN, CORRECTED = "plain", "corrected"
# Stages of adaptation that NUTS needs from a frame of weighted points.
_REFINED_STAGES = 1
# In simulations intervals were too narrow with weights near the limit, where priors set the
# tails, so that adaptation goes on while points are cheap.
_STRICT = replace(THRESHOLDS, k_hat=0.5)
# Walkers that have enough draws go on until intervals change by no more than their noise.
_STEADY = replace(THRESHOLDS, growth=0.015)
# Most pairs with which points are cheap, and for ensemble sampling; with more, gradients pay.
_CHEAP_PAIRS, _MOST_PAIRS = 100_000, 500_000
# Most pairs with which all points together take less time than walkers of averaged frames.
_POINT_PAIRS = 5_000_000
# Draws that importance sampling picks, over the effective draws that a run asks for.
_PICKED_SHARE = 2.0
# What straightens the best mode distorts others and plateaus: with more, simulations lost by it.
_MOST_BENT = 2
# Draws given averages that are weighed by all pairs: at first, and if these are not enough.
_WEIGHED = (4096, 16384)
_NOT_WEIGHED = "{} draws: averaged frames do not stand in for all pairs here, so NUTS takes over."


@dataclass(frozen=True)
class Keeper:
    """Where states are kept, as arrays by name, for each pass and engine.

    Attributes:
        load: Returns the state to go on from, if there is one.
        save: Receives the state after every block.
    """

    load: Callable[[str], Mapping[str, FloatArray] | None] = lambda key: None
    save: Callable[[str, Mapping[str, FloatArray]], None] = lambda key, arrays: None


@dataclass(frozen=True)
class Sampled:
    """Draws of one pass.

    Attributes:
        draws: Draws of the coordinates.
        quantities: The draws by name.
        diagnosis: Their convergence.
    """

    draws: Draws
    quantities: Quantities
    diagnosis: Diagnosis


@dataclass(frozen=True)
class Drawing:
    """How draws are taken from one posterior, whatever it is conditioned on.

    Attributes:
        posterior: Map and density.
        derived: Quantities at reference times.
        schedule: How much to sample.
        engine: What draws; ``auto`` takes importance sampling where its weights are good,
            elsewhere ensemble sampling, for many pairs of averaged frames, and NUTS where
            these cannot stand in for all pairs.
        keeper: Where states are kept.
        on_event: Receives the progress.
    """

    posterior: Posterior
    derived: Derived
    schedule: Schedule
    engine: EngineName
    keeper: Keeper
    on_event: EventSink
    wanted: ClassVar[Thresholds] = THRESHOLDS
    """Limits at which importance sampling ends early, where points are cheap."""

    def sample(self, name: str, target: Target, frames: tuple[Frame, ...]) -> Sampled:
        """Draw with the engine of the run, importance sampling before any other.

        Args:
            name: Name of the pass in messages and of its kept states.
            target: What the posterior is conditioned on.
            frames: Normal approximations of the modes, the best one first.
        """
        plan, frame = self.schedule, frames[0]
        if self.engine == "nuts":
            return self._along_gradients(name, target, plan, frame)
        ensemble = self.engine == "ensemble" or _affordable(target, _MOST_PAIRS)
        averaged = self.engine == "auto" and not ensemble and possible(target)
        few = averaged and not _affordable(target, _POINT_PAIRS)
        found = self._weighed(name, target, frames, few=few)
        enough = self.engine == "auto" and found.diagnosis.mixed(self._strict(THRESHOLDS))
        if self.engine == "importance" or enough:
            return found
        points = found.draws.proposals
        assert points is not None
        if self.engine == "auto":
            to = "ensemble sampling" if ensemble or averaged else "NUTS"
            to += " of averaged frames" if averaged else ""
            limits = self._strict(THRESHOLDS)
            self.on_event(Message(_handed_over(name, found.diagnosis, limits, to)))
        if ensemble:
            return self._walked(name, target, points, frames, f"{name} draws")
        weighed = self._on_averages(name, target, frame, points) if averaged else None
        if weighed is not None:
            return weighed
        refined = weighted_frame(points, frame)
        if refined is not None:
            frame, plan = refined, replace(plan, n_stages=min(plan.n_stages, _REFINED_STAGES))
        return self._along_gradients(name, target, plan, frame)

    def _strict(self, limits: Thresholds) -> Thresholds:
        """Return limits at which drawing ends: those of the run where they are stricter."""
        return limits.at_least(self.schedule.max_r_hat, self.schedule.min_ess)

    def _along_gradients(self, name: str, target: Target, plan: Schedule, frame: Frame) -> Sampled:
        nuts = Sampler(self.posterior, target, plan, f"{name} draws")
        return self._driven(name, nuts, lambda: nuts.start(frame))

    def _weighed(
        self, name: str, target: Target, frames: tuple[Frame, ...], *, few: bool
    ) -> Sampled:
        n_groups = max(2, self.schedule.n_chains)
        # No more effective draws can be asked for than are picked.
        picked = math.ceil(_PICKED_SHARE * self.schedule.min_ess / n_groups)
        weigh = ImportanceSampler(
            self.posterior,
            target,
            frames,
            self.schedule.seed,
            self._bend(target, frames),
            n_groups=n_groups,
            n_draws=max(ImportanceSampler.n_draws, picked),
            stage=f"{name} weights",
            most=FEW if few else MOST,
        )
        limits = self.wanted if _affordable(target, _CHEAP_PAIRS) else THRESHOLDS
        return self._driven(name, weigh, weigh.start, limits)

    def _bend(self, target: Target, frames: tuple[Frame, ...]) -> Bend | None:
        # For pairs that count alike the fit has compiled what this takes.
        bent = target.data.weights is None and len(frames) <= _MOST_BENT
        return bend_at(self.posterior, target, frames[0]) if bent else None

    def _on_averages(
        self, name: str, target: Target, frame: Frame, points: Proposals
    ) -> Sampled | None:
        """Walk given averages of frames, and weigh the draws by all pairs; None if that fails."""
        means = averages(self.posterior, target, np.asarray(frame.centre))
        moved = replace(points, y=means.of_averages(points.y))
        stage = f"{name} draws of averaged frames"
        walked = self._walked(f"{name}_averaged", means.target, moved, (), stage)
        found: Sampled | None = None
        for count in _WEIGHED if walked.diagnosis.mixed(THRESHOLDS) else ():
            self.on_event(Progress(f"{name} weights of all pairs", 0, count))
            draws = weighed(self.posterior, target, means, walked.draws, count, self.schedule.seed)
            found = self.named(draws)
            found = replace(found, diagnosis=found.diagnosis.after(walked.diagnosis))
            if found.diagnosis.mixed(self._strict(THRESHOLDS)):
                break
        # For so many pairs NUTS takes far longer, and may not reach limits of the run either.
        if found is not None and found.diagnosis.mixed(THRESHOLDS):
            return found
        self.on_event(Message(_NOT_WEIGHED.format(name.capitalize())))
        return None

    def _walked(
        self,
        name: str,
        target: Target,
        points: Proposals,
        frames: tuple[Frame, ...],
        stage: str,
    ) -> Sampled:
        walk = EnsembleSampler(
            self.posterior,
            target,
            points,
            self.schedule.seed,
            n_groups=max(2, self.schedule.n_chains),
            n_steps=self.schedule.n_draws,
            frames=frames,
            stage=stage,
        )
        return self._driven(name, walk, walk.start, _STEADY)

    def _driven(
        self,
        name: str,
        engine: Engine[S],
        start: Callable[[], S],
        limits: Thresholds = THRESHOLDS,
    ) -> Sampled:
        key = state_key(name, engine.name)
        kept = self.keeper.load(key)
        last: Sampled | None = None

        def enough(draws: Draws) -> bool:
            nonlocal last
            last = self.named(draws)
            return last.diagnosis.mixed(self._strict(limits))

        draws = drive(
            engine,
            start() if kept is None else engine.from_arrays(kept),
            enough,
            lambda state: self.keeper.save(key, engine.to_arrays(state)),
            self.on_event,
        )
        return last if last is not None and last.draws is draws else self.named(draws)

    def named(self, draws: Draws) -> Sampled:
        """Name draws of the coordinates and measure their convergence."""
        quantities = Quantities.of(self.posterior, draws.y, self.derived)
        values = quantities.all() | {"log density": draws.log_density}
        if draws.trajectories is not None:
            walks = draws.trajectories
            return Sampled(draws, quantities, diagnose(values, walks.energy, walks.diverging))
        seen = draws.proposals
        if seen is None:
            assert draws.walks is not None
            return Sampled(draws, quantities, diagnose_walks(values, draws.walks))
        of_points = Quantities.of(self.posterior, seen.y[None], self.derived).all()
        points = {name: x[0] for name, x in of_points.items()} | {"log density": seen.log_density}
        return Sampled(draws, quantities, diagnose_weighted(values, points, seen))


@dataclass(frozen=True)
class Passes(Drawing):
    """What the passes over one data set share.

    Attributes:
        fit: The fit of the data, from which sampling starts.
        scale: Estimate of sigma that scales its prior.
    """

    fit: Fit
    scale: float
    wanted: ClassVar[Thresholds] = _STRICT

    def plain(self) -> Sampled:
        """Sample with the likelihood of independent errors."""
        target = Target(self.fit.problem.data, jnp.asarray(self.scale))
        return self.sample(PLAIN, target, self.frames())

    def corrected(self, noise: SpeckleNoise) -> tuple[Sampled, SpeckleNoise]:
        """Sample with the likelihood corrected for speckle noise, around the best mode.

        Returns:
            The draws, and the noise with that included which the fit has absorbed.
        """
        modes, data = self.fit.modes, self.fit.problem.data
        mode = posterior_mode(self.posterior, self.fit)
        change = correction(
            self.posterior,
            mode,
            data,
            noise,
            float(modes.squares[0]),
            modes.by_angle[0],
            self.derived.times,
            self.on_event,
        )
        target = Target(data, jnp.asarray(self.scale), change.likelihood)
        n_pairs = self.fit.problem.n_pairs
        frame = laplace_frame(self.posterior, mode, change.information, self.scale, n_pairs)
        noise = replace(noise, effective_speckles=change.effective_speckles)
        return self.sample(CORRECTED, target, (frame,)), noise

    def frames(self) -> tuple[Frame, ...]:
        """Normal approximations, for independent errors, of modes and plateaus that compete."""
        parts = (self.posterior, self.fit, self.scale)
        modes = competing_frames(*parts)
        return (*modes.values(), *plateau_frames(*parts, tuple(modes), self.schedule.seed))


def state_key(name: str, engine: str) -> str:
    """Name under which the state of an engine in a pass is kept."""
    return f"{name}_{engine}"


def _affordable(target: Target, most_pairs: int) -> bool:
    """Whether so many pairs, or moments that stand in for them, can be evaluated often."""
    return target.normal is not None or int(target.data.n_pairs.sum()) <= most_pairs


def _handed_over(name: str, d: Diagnosis, limits: Thresholds, to: str) -> str:
    figures = (
        f"Pareto k-hat {d.k_hat:.2f}, wanted below {limits.k_hat:g}; worth {d.kish:.0f} "
        f"independent draws, wanted {limits.kish:g}"
    )
    if d.well_weighted(limits):
        ess = min(d.worst_ess_bulk[1], d.worst_ess_tail[1])
        figures = (
            f"R-hat {d.worst_r_hat[1]:.3f}, wanted {limits.r_hat:g} at most; {ess:.0f} effective "
            f"draws, wanted {limits.ess:g}"
        )
    return (
        f"{name.capitalize()} draws: importance sampling is not good enough here ({figures}), so "
        f"{to} takes over."
    )
