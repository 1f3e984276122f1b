"""One small posterior and its schedule, so that all tests share compiled code."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.special import ndtr

from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_registry import DEFAULT_REGISTRY
from heterodyne.config.schema import RunConfig
from heterodyne.core._jax import jax, jnp
from heterodyne.core.simulate import Experiment, simulate_pairs
from heterodyne.data.arrays import from_arrays
from heterodyne.optimization.bind import bind
from heterodyne.optimization.cmc._frame import Frame
from heterodyne.optimization.cmc._nuts import Target
from heterodyne.optimization.cmc._sampler import Sampler, Schedule
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.informed import NormalLikelihood, quantities
from heterodyne.optimization.posterior import Posterior, Unknowns
from heterodyne.optimization.scaling import Scaling, ScalingMode

Q, DT, N_FRAMES, PHI, SIGMA = 0.0054, 0.1, 16, 20.0, 0.01
T = DT * np.arange(1.0, N_FRAMES + 1.0)
CONTRAST, OFFSET = 0.3, 1.0
FIXED = {"D0_ref": 2e4, "D0_sample": 5e3, "v0": 500.0, "f0": 0.3, "offset": OFFSET}
VARYING = ("alpha_ref", "D_offset_ref", "contrast")


def _settings():
    groups: dict[str, dict[str, object]] = {}
    for name, info in DEFAULT_REGISTRY.items():
        if name not in VARYING:
            setting = {"value": FIXED.get(name, info.default), "vary": False}
            groups.setdefault(info.group, {})[name] = setting
    groups["reference"]["D_offset_ref"] = {"prior": {"mean": 0.0, "std": 1e4}}
    return groups


CMC = {
    "num_chains": 2,
    "num_warmup": 200,
    "num_samples": 150,
    "target_accept_prob": 0.8,
    "max_tree_depth": 8,
    "adaptive_sampling": False,
    "seed": 3,
}
CONFIG = RunConfig.model_validate(
    {
        "experimental_data": {"file_path": "small.h5"},
        "parameters": _settings(),
        "optimization": {"nlsq": {"n_starts": 2}, "cmc": CMC},
    }
)
SPACE = CONFIG.parameter_space()
SCHEDULE = Schedule.of(CONFIG.cmc_config(), N_FRAMES**2, 4)
SCALING = Scaling.of(ScalingMode.INDIVIDUAL, SPACE, 1)
POSTERIOR = Posterior(PhysicsCoordinates.of(SPACE, T), SCALING)
# What the chains start from: rough widths of the four coordinates.
WIDTHS = np.array([0.1, 1e3, 2e-3, 0.07])


def truth(alpha, level):
    """The 14 parameters."""
    values = SPACE.values | {"alpha_ref": alpha, "D_offset_ref": level}
    return np.array([values[n] for n in PHYSICS_PARAM_NAMES])


def experiment(alpha, level):
    return Experiment(truth(alpha, level), N_FRAMES, DT, Q, [PHI])


def measured(c2, phi=(PHI,)):
    return from_arrays(c2, q=Q, phi=phi, t=T, dt=DT)


@cache
def target_of(alpha, level, seed=0):
    """Simulated data with independent errors."""
    c2 = simulate_pairs(experiment(alpha, level), CONTRAST, OFFSET, SIGMA, seed)
    return Target(bind(measured(c2), SPACE).data, jnp.asarray(SIGMA))


def coordinates_of(alpha, level):
    scaling, sigma = jnp.array([CONTRAST]), jnp.asarray(SIGMA)
    return np.asarray(POSTERIOR.inverse(Unknowns(jnp.asarray(truth(alpha, level)), scaling, sigma)))


def frame_of(alpha, level):
    return Frame(jnp.asarray(coordinates_of(alpha, level)), jnp.diag(jnp.asarray(WIDTHS)))


def sampler_of(target, schedule=SCHEDULE):
    return Sampler(POSTERIOR, target, schedule)


_BATCH = 1024


@jax.jit
def _densities(y, target):
    def both(row):
        density = POSTERIOR.log_density(row, *target)
        u = POSTERIOR.forward(row)[0]
        named = u.parameters[POSTERIOR.coordinates.indices]
        return density, jnp.concatenate([named, u.scaling, u.sigma[None]])

    return jax.vmap(both)(y)


def densities(y, target):
    """Log density and documented parameters of many coordinates, (n, 4)."""
    missing = -y.shape[0] % _BATCH
    padded = np.concatenate([y, np.repeat(y[-1:], missing, axis=0)]).reshape(-1, _BATCH, 4)
    parts = [[np.asarray(x) for x in _densities(jnp.asarray(part), target)] for part in padded]
    density, parameters = (np.concatenate(x)[: y.shape[0]] for x in zip(*parts, strict=True))
    return density, parameters


# At alpha = 0 prefactor and offset are one; with a negative offset J is on its floor early.
FLAT, FLOOR = (0.0, 0.0), (1.0, -1.5e4)
PARAMETERS = ("alpha_ref", "D_offset_ref", "contrast", "sigma")


def normal_likelihood(parameters, scaling, width, scaling_width, squares, n_pairs):
    """A likelihood that is normal, with correlations, in what the data inform.

    ``width`` is that of the quantities relative to themselves.
    """
    times = jnp.asarray([0.3, 0.8, 1.4])
    informed = np.asarray(quantities(jnp.asarray(parameters), times))
    widths = np.append(width * np.abs(informed) + 0.01, scaling_width)
    n = len(widths)
    turn = np.eye(n) + 0.3 * np.eye(n, k=1) + 0.2 * np.eye(n, k=-4)
    precision = turn @ turn.T / widths[:, None] / widths
    parts = (times, np.append(informed, scaling), precision, squares, n_pairs)
    return NormalLikelihood(*(jnp.asarray(x) for x in parts))


def normal(case):
    """The target of a case with a likelihood that is normal in rates and contrast."""
    n_pairs = N_FRAMES * (N_FRAMES - 1) / 2
    likelihood = normal_likelihood(
        truth(*case), [CONTRAST], 0.1, [0.1 * CONTRAST + 0.01], n_pairs * SIGMA**2, n_pairs
    )
    return target_of(*case)._replace(normal=likelihood)


def on_grid(target, y):
    """Nodes and weights of the posterior on a turned grid that covers draws y."""
    flat = y.reshape(-1, 4)
    axis = np.linspace(-7.0, 7.0, 17)
    z = np.stack([x.ravel() for x in np.meshgrid(*[axis] * 4, indexing="ij")], axis=1)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    inside = np.linalg.norm(z, axis=1) <= 7.0
    factor = np.linalg.cholesky(np.cov(flat, rowvar=False)) @ turn
    log_density, parameters = densities(flat.mean(axis=0) + z[inside] @ factor.T, target)
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    rim = np.linalg.norm(z[inside], axis=1) > 6.0
    assert weights[rim].sum() < 1e-3
    return parameters, weights


def assert_means_agree(rows, others, sd=None):
    """Rows have the means of others within Monte Carlo errors, and their sd within a share."""
    known = {row.name: row for row in others}
    for row in rows:
        other = known[row.name]
        error = np.hypot(row.sd / np.sqrt(row.ess_bulk), other.sd / np.sqrt(other.ess_bulk))
        assert row.mean == pytest.approx(other.mean, abs=4 * error), row.name
        assert sd is None or row.sd == pytest.approx(other.sd, rel=sd), row.name


def functions_of(node, weights):
    """Functions whose means fix mean, variance and the tails of the nodes.

    Shares below a quantile are smoothed over half a standard deviation, which a grid
    integrates well.
    """
    mean, order = weights @ node, np.argsort(node)
    cumulative = np.cumsum(weights[order])
    quantiles = node[order][np.searchsorted(cumulative, [0.05, 0.5, 0.95])]
    width = 0.5 * np.sqrt(weights @ (node - mean) ** 2)
    functions = [lambda v: v, lambda v: (v - mean) ** 2]
    return functions + [lambda v, q=q: ndtr((q - v) / width) for q in quantiles]
