"""Shards for worker processes: checked and shared in the parent, drawn in a worker."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from heterodyne._errors import ConfigError, DataError
from heterodyne._log import get_logger
from heterodyne._typing import FloatArray
from heterodyne.config._suggest import not_known
from heterodyne.config.cmc import CMCConfig
from heterodyne.config.parameter_space import ParameterSpace, Prior, PriorKind
from heterodyne.core.heterodyne_model import HeterodyneModel
from heterodyne.optimization.cmc._array_checks import finite, likelihood_weights
from heterodyne.optimization.cmc._diagnostics import limits_of
from heterodyne.optimization.cmc._inputs import LITERAL, noise_scale
from heterodyne.optimization.cmc.backends._shard_engine import (
    ShardDraws,
    ShardSettings,
    draw_shard,
    matrix_pairs,
    shortcoming,
    widening,
)
from heterodyne.optimization.cmc.backends._shared import (
    SHARD_ARRAYS,
    Ref,
    SharedDataManager,
    load_shared_dict,
    load_shared_shard,
)
from heterodyne.optimization.scaling import ScalingMode

_LOG = get_logger(__name__)
_NUMBERS = ("q", "dt", "noise_scale")
_SCALING = ("contrast", "offset")
_BY_ANGLE = ("phi_angle", *_SCALING)
_KEYS = (*SHARD_ARRAYS, *_NUMBERS, *_BY_ANGLE, "reparam_config_dict")


@dataclass(frozen=True)
class ShardPlan:
    """What all shards of a run share.

    Attributes:
        config: Counts, limits and settings of NUTS.
        space: Start values, bounds and priors.
        n_shards: Number of shards.
        prior_width: Factor on the widths of priors.
        fitted: Parameters whose priors are centred on a fit.
    """

    config: CMCConfig
    space: ParameterSpace
    n_shards: int
    prior_width: float
    fitted: tuple[str, ...] = ()

    def share(self, shards: Sequence[Mapping[str, Any]], manager: SharedDataManager) -> list[Ref]:
        """Put everything into shared memory, and return a task for each shard.

        Raises:
            ConfigError: A contrast or offset that cannot be held.
        """
        for k, shard in enumerate(shards):
            held(self.space, shard, f"shard {k}")
        self._say_what_is_not_used(shards)
        about = {
            "config": manager.create_shared_dict("config", self.config.to_dict()),
            "space": manager.create_shared_dict("parameter space", space_as_dict(self.space)),
            "n_shards": self.n_shards,
            "prior_width": self.prior_width,
            "fitted": list(self.fitted),
        }
        arrays = manager.create_shared_shard_arrays(shards)
        small = (*_NUMBERS, *_BY_ANGLE)
        return [
            {"shard_idx": k, "arrays": arrays[k], **about, **{key: shard[key] for key in small}}
            for k, shard in enumerate(shards)
        ]

    def _say_what_is_not_used(self, shards: Sequence[Mapping[str, Any]]) -> None:
        for name in _SCALING:
            given = [len(shard["phi_angle"]) for shard in shards if shard[name] is not None]
            modes = {self.config.get_effective_per_angle_mode(n) for n in given}
            if self.space[name].vary and any(ScalingMode.parse(mode).sampled for mode in modes):
                _LOG.warning(
                    "%s is sampled, and the values of the shards are not used: fix it in the "
                    "parameter space, or choose per_angle_mode constant.",
                    name,
                )


def checked_shards(shards: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Check shards, and fill in what may be left out.

    Raises:
        DataError: There is none, an array is missing, or values cannot be used.
        ConfigError: A key that is not known, or a number that cannot be used.
    """
    if not shards:
        raise DataError("there is no shard", where="shards", allowed="at least one")
    found = [_checked(shard, f"shard {k}") for k, shard in enumerate(shards)]
    if any(shard.get("reparam_config_dict") for shard in shards):
        _LOG.info(
            "reparam_config_dict is not used: the posterior does not depend on it, and shards are "
            "drawn in the coordinates of the package."
        )
    if any(shard.get("t") is None for shard in shards):
        _LOG.warning(
            "Shards without t: their first frame is taken to be at dt. Prefactors depend on the "
            "origin of time, so give t for parts of a longer measurement."
        )
    return found


def _checked(shard: Mapping[str, Any], where: str) -> dict[str, Any]:
    for key in shard:
        if key not in _KEYS:
            raise ConfigError(not_known("key", key, _KEYS), where=where, allowed=", ".join(_KEYS))
    known: dict[str, Any] = {key: shard.get(key) for key in _KEYS}
    if known["c2_data"] is None:
        raise DataError("there is no c2_data", where=where, allowed="(N, N) or (n_phi, N, N)")
    known["c2_data"] = np.asarray(known["c2_data"], float)
    if known["c2_data"].ndim not in (2, 3):
        raise DataError(
            f"the shape is {known['c2_data'].shape}",
            where=f"{where}, c2_data",
            allowed="(N, N) or (n_phi, N, N)",
            remedy="Put points into a matrix, with weights of 0 where there is none",
        )
    for key in _NUMBERS:
        if known[key] is not None:
            known[key] = _positive(known[key], f"{where}, {key}")
    if known["q"] is None:
        raise ConfigError("there is no q", where=where, allowed="the wavevector in 1/Å")
    n_angles = 1 if known["c2_data"].ndim == 2 else len(known["c2_data"])
    return known | _times(known, where) | _angles(known, n_angles, where) | _noise(known, where)


def _positive(value: Any, where: str) -> float:
    number = float(finite(value, where))
    if not number > 0:
        raise ConfigError(f"it is {number:g}", where=where, allowed="> 0")
    return number


def _times(known: Mapping[str, Any], where: str) -> dict[str, Any]:
    n_frames = known["c2_data"].shape[-1]
    if known["t"] is None:
        if known["dt"] is None:
            raise DataError("there is neither t nor dt", where=where, allowed="times in s")
        return {"t": known["dt"] * np.arange(1.0, n_frames + 1.0)}
    t = finite(known["t"], f"{where}, t")
    if t.shape != (n_frames,) or n_frames < 2:
        raise DataError(
            f"{t.shape} times for {n_frames} frames", where=f"{where}, t", allowed="one each"
        )
    dt = known["dt"] or float(t[-1] - t[0]) / (n_frames - 1)
    # Refuses a grid that is not even.
    HeterodyneModel(t, known["q"], dt, ParameterSpace())
    return {"t": t, "dt": dt}


def _angles(known: Mapping[str, Any], n_angles: int, where: str) -> dict[str, Any]:
    """Values by angle as lists; None where they are left out."""
    found: dict[str, Any] = {}
    for key in _BY_ANGLE:
        if known[key] is None:
            found[key] = None
            continue
        values = np.atleast_1d(finite(known[key], f"{where}, {key}"))
        if values.shape != (n_angles,) and (key == "phi_angle" or values.shape != (1,)):
            raise DataError(
                f"{values.size} values for {n_angles} angles",
                where=f"{where}, {key}",
                allowed=f"{n_angles}",
            )
        found[key] = np.broadcast_to(values, n_angles).tolist()
    if found["phi_angle"] is None:
        if n_angles > 1:
            raise DataError("there is no phi_angle", where=where, allowed=f"{n_angles} in degrees")
        # The angle of a single matrix only sets the unit of the velocity.
        found["phi_angle"] = [0.0]
    return found


def _noise(known: Mapping[str, Any], where: str) -> dict[str, Any]:
    shape = known["c2_data"].shape
    if known["weights"] is not None:
        likelihood_weights(known["weights"], shape)
    if known["sigma"] is None:
        return {}
    stacked = shape if len(shape) == 3 else (1, *shape)
    given = noise_scale(known["sigma"], stacked)
    if known["noise_scale"] is not None:
        _LOG.info("%s: noise_scale takes the place of sigma.", where)
        return {}
    return {"noise_scale": given}


def prior_width(multiplier: float, n_shards: int, config: CMCConfig) -> float:
    """Factor on the widths of priors: what is asked for, or sqrt(K) for 1 with tempering.

    Raises:
        ConfigError: A factor that is not above 0.
    """
    width = _positive(multiplier, "prior_width_multiplier")
    return widening(n_shards, config) if width == 1.0 else width


def around_fit(
    space: ParameterSpace,
    values: Mapping[str, float],
    errors: Mapping[str, float],
    factor: float,
    config: CMCConfig,
) -> tuple[ParameterSpace, tuple[str, ...]]:
    """Give parameters normal priors around fitted values, where a configuration says so.

    Args:
        space: Bounds and priors.
        values: Fitted values by name.
        errors: Standard errors by name.
        factor: Width of a prior over the error.
        config: ``use_nlsq_informed_priors``: ``literal`` centres priors.

    Returns:
        The parameters, and the names of those whose priors were centred.

    Raises:
        ConfigError: A parameter that does not vary or has no value, an error or a factor that
            is not above 0, or no errors where priors are to be centred.
    """
    if config.use_nlsq_informed_priors != LITERAL:
        if errors:
            _LOG.info("nlsq_uncertainties are not used: priors stay as they are.")
        return space, ()
    if not errors:
        raise ConfigError(
            "priors are to be centred on a fit, and there are no errors of one",
            where="nlsq_uncertainties",
            remedy="Give them, or leave use_nlsq_informed_priors at true",
        )
    factor = _positive(factor, "nlsq_prior_width_factor")
    parameters = dict(space.parameters)
    for name, error in errors.items():
        if name not in space.varying_names or name not in values:
            raise ConfigError(
                f"an error of {name}, which does not vary or has no initial value",
                where="nlsq_uncertainties",
                allowed=", ".join(n for n in values if n in space.varying_names) or "none",
            )
        width = factor * _positive(error, f"nlsq_uncertainties, {name}")
        prior = Prior(PriorKind.NORMAL, float(values[name]), width)
        parameters[name] = replace(parameters[name], prior=prior)
    _LOG.warning(
        "The priors of %s are those of a fit. If it is one of the same data, these count twice, "
        "and errors come out too small by a factor of %.3g.",
        ", ".join(errors), factor / math.hypot(1.0, factor),
    )  # fmt: skip
    return ParameterSpace(parameters), tuple(errors)


def held(space: ParameterSpace, shard: Mapping[str, Any], where: str) -> ParameterSpace:
    """Hold contrast and offset at the values of a shard where a space does not let them vary.

    Raises:
        ConfigError: Values that differ between angles, or outside the bounds.
    """
    for name in _SCALING:
        values = shard[name]
        if values is None or space[name].vary:
            continue
        if len(set(values)) > 1:
            raise ConfigError(
                f"the angles have {values}, and the parameter space holds one value",
                where=f"{where}, {name}",
                remedy="Give one value, or let it vary with per_angle_mode constant",
            )
        space = space.with_values({name: values[0]})
    return space


def space_as_dict(space: ParameterSpace) -> dict[str, Mapping[str, object]]:
    """Write a parameter space in the form that ``ParameterSpace.from_config`` reads."""
    return {
        name: {
            "value": p.value,
            "min": p.min,
            "max": p.max,
            "vary": p.vary,
            "prior": {"type": p.prior.kind.value, "mean": p.prior.mean, "std": p.prior.std},
        }
        for name, p in space.parameters.items()
    }


def draw_task(task: Mapping[str, Any]) -> dict[str, Any]:
    """Draw the shard of a task, in a worker."""
    config = CMCConfig.from_dict(load_shared_dict(task["config"]))
    space = ParameterSpace.from_config(load_shared_dict(task["space"]))
    shard = load_shared_shard(task["arrays"])
    contrast, offset = (None if task[key] is None else tuple(task[key]) for key in _SCALING)
    mode = config.get_effective_per_angle_mode(len(task["phi_angle"]))
    settings = ShardSettings(
        space=held(space, task, f"shard {task['shard_idx']}"),
        config=config,
        mode=mode,
        noise_scale=task["noise_scale"],
        # Shards of one seed would be drawn in step.
        seed=config.seed + task["shard_idx"] + 1,
        prior_width=task["prior_width"],
        sigma_width=widening(task["n_shards"], config),
        contrast=contrast,
        offset=offset,
    )
    data = matrix_pairs(
        shard["c2_data"], shard["weights"], shard["t"], task["q"], task["dt"], task["phi_angle"]
    )
    return _as_dict(draw_shard(data, settings), settings, task)


def _as_dict(drawn: ShardDraws, settings: ShardSettings, task: Mapping[str, Any]) -> dict[str, Any]:
    draws, found = drawn.sampled.draws, drawn.sampled.diagnosis
    walks = draws.trajectories
    assert walks is not None
    return {
        "shard_idx": task["shard_idx"],
        "samples": drawn.named,
        "n_chains": draws.n_chains,
        "n_samples": draws.n_draws,
        "param_names": [name for name in drawn.named if name != "sigma"],
        "extra_fields": {
            "log_density": draws.log_density,
            "energy": walks.energy,
            "diverging": walks.diverging,
            "accept_prob": walks.acceptance,
            "num_steps": walks.n_gradients,
        },
        "stats": {
            "num_divergent": found.divergences,
            "num_warmup": walks.warmup_steps,
            "r_hat_max": found.worst_r_hat[1],
            "ess_bulk_min": found.worst_ess_bulk[1],
            "ess_tail_min": found.worst_ess_tail[1],
            "bfmi_min": found.worst_bfmi,
            "n_pairs": drawn.fit.problem.n_pairs,
            "noise_scale": float(drawn.target.noise_scale) / settings.sigma_width,
            "prior_width": settings.prior_width,
            "priors_around_fit": task["fitted"],
            "problem": None if found.passed(limits_of(settings.config)) else shortcoming(found),
        },
    }


def wrong(result: Mapping[str, Any]) -> str | None:
    """Say why the draws of a shard cannot be used; None where they can."""
    shape = (result["n_chains"], result["n_samples"])
    for name, draws in result["samples"].items():
        values: FloatArray = np.asarray(draws)
        if values.shape != shape or not np.isfinite(values).all():
            return f"draws of {name} are missing or not finite"
    return result["stats"]["problem"]
