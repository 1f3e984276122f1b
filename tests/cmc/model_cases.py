"""One simulated measurement for the tests of the NumPyro models, and its density in NumPy."""

from __future__ import annotations

import numpy as np
from numpyro.infer.util import log_density
from scipy import stats

from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jnp
from heterodyne.core.jax_backend import compute_c2_heterodyne
from heterodyne.core.simulate import Experiment, simulate_pairs

N, DT, Q, PHI, SIGMA = 20, 0.1, 0.0054, (0.0, 40.0, 75.0), 0.01
CONTRAST, OFFSET = np.array([0.2, 0.3, 0.25]), np.array([1.0, 1.02, 0.98])
START = {"D0_ref": 2e4, "D0_sample": 5e3, "v0": 500.0, "f0": 0.3, "alpha_ref": 0.2}
SPACE = ParameterSpace().with_values(START)
TRUTH = np.array([SPACE[name].value for name in PHYSICS_PARAM_NAMES])
T = DT * np.arange(1.0, N + 1)
C2 = simulate_pairs(Experiment(TRUTH, N, DT, Q, PHI), CONTRAST, OFFSET, SIGMA, 0)
ALL_POINTS = np.meshgrid(np.arange(3), np.arange(N), np.arange(N), indexing="ij")


def pooled(keep=slice(None), t=T):
    """Arguments of the pooled models: the kept points of the raveled matrices."""
    angle, i, j = (x.ravel()[keep] for x in ALL_POINTS)
    return {
        "data": C2.ravel()[keep],
        "t": t,
        "q": Q,
        "dt": DT,
        "phi_unique": np.array(PHI),
        "phi_indices": angle,
        "i1_indices": i,
        "i2_indices": j,
        "noise_scale": SIGMA,
    }


def density_of(model, args=(), kwargs=None):
    """Log density of the sites' values by name; not compiled, since it is called a few times."""
    return lambda values: log_density(
        model, args, kwargs or {}, {name: jnp.asarray(value) for name, value in values.items()}
    )[0]


def random_values(space, seed, names=None):
    """Values of the varying parameters between start and prior centre, and of sigma."""
    rng = np.random.default_rng(seed)
    values = {}
    for name in space.varying_names:
        p = space[name]
        for site in (names or {}).get(name, [name]):
            width = min(p.prior.std, 0.2 * (p.max - p.min))
            low, high = max(p.min, p.value - width), min(p.max, p.value + width)
            values[site] = rng.uniform(low, high)
    return values | {"sigma": rng.uniform(0.5, 2.0) * SIGMA}


def log_prior(space, name, value):
    """Log density of a documented prior, by SciPy."""
    p = space[name]
    prior = p.prior
    if prior.kind.value == "lognormal":
        ends = (np.log([p.min, p.max]) - prior.loc) / prior.scale
        normal = stats.truncnorm(*ends, prior.loc, prior.scale)
        return normal.logpdf(np.log(value)) - np.log(value)
    ends = (np.array([p.min, p.max]) - prior.loc) / prior.scale
    return stats.truncnorm(*ends, prior.loc, prior.scale).logpdf(value)


def physics(space, values):
    return np.array([values.get(n, space[n].value) for n in PHYSICS_PARAM_NAMES])


def log_likelihood(parameters, contrast, offset, sigma, t=T, phi=PHI, c2=C2):
    """Sum over unique pairs off the diagonal and later than t = 0, in NumPy."""
    i, j = np.triu_indices(N, 1)
    keep = (t[i] > 0) & (t[j] > 0)
    total = 0.0
    for k, angle in enumerate(phi):
        model = compute_c2_heterodyne(parameters, t, Q, DT, angle, contrast[k], offset[k])
        difference = (c2[k] - np.asarray(model))[i[keep], j[keep]]
        total += stats.norm(scale=sigma).logpdf(difference).sum()
    return total


def log_joint(space, values, contrast, offset, scaling_names=None, t=T, num_shards=1):
    """Priors and likelihood of values by site name, in NumPy."""
    names = {site: name for name, sites in (scaling_names or {}).items() for site in sites}
    prior = sum(
        log_prior(space, names.get(site, site), value)
        for site, value in values.items()
        if site != "sigma"
    )
    width = 1.5 * SIGMA * np.sqrt(num_shards)
    prior += stats.halfnorm(scale=width).logpdf(values["sigma"])
    at = physics(space, values)
    return prior + log_likelihood(at, contrast, offset, values["sigma"], t)
