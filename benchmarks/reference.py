"""Slow reference posteriors: ``python -m benchmarks.reference [CASE ...]``.

The likelihood is evaluated pair by pair, nothing is integrated out, priors are those of
NumPyro, and the volume element of the coordinates is the determinant of their differentiated
map. NumPyro's own MCMC draws. Means, standard deviations and their Monte Carlo errors go to
``tests/cmc/reference_posteriors.json``, with which the tests compare the samplers.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from arviz_stats.base import array_stats
from numpyro.distributions import HalfNormal
from numpyro.infer import MCMC, NUTS

from heterodyne._typing import FloatArray, JaxArray
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jax, jnp
from heterodyne.core.likelihood import direct_sum_of_squares, log_likelihood_of_squares
from heterodyne.core.simulate import Experiment, simulate_pairs
from heterodyne.data import from_arrays
from heterodyne.optimization.bind import bind, fit_scaled
from heterodyne.optimization.cmc._frame import mode_frame
from heterodyne.optimization.nlsq.core import Fit
from heterodyne.optimization.posterior import SIGMA_PRIOR, Posterior
from heterodyne.optimization.scaling import ScalingMode

PATH = Path(__file__).parents[1] / "tests/cmc/reference_posteriors.json"
Q, DT, N_FRAMES, PHI = 0.0054, 0.1, 60, (-20.0, 35.0)
CONTRAST, OFFSET, SIGMA, SEED = (0.3, 0.25), (1.0, 1.02), 0.01, 11
CHAINS, WARMUP, DRAWS = 4, 600, 2500
TRUTH = {
    "D0_ref": 8e3, "alpha_ref": 0.3, "D_offset_ref": 500.0,
    "D0_sample": 2e4, "alpha_sample": -0.3, "D_offset_sample": 200.0,
    "v0": 1.2e3, "beta": -0.2, "v_offset": 10.0,
    "f0": 0.4, "f1": -0.15, "f2": 1.0, "f3": 0.25, "phi0": 2.0,
}  # fmt: skip
CASES: dict[str, dict[str, float]] = {
    "alpha spans 0": {"alpha_ref": 0.0, "alpha_sample": 0.0, "beta": 0.0},
    "f1 near 0": {"f1": 0.0, "f0": 0.2, "f3": 0.2},
    "rate on its floor": {"D0_ref": 2e4, "alpha_ref": 1.0, "D_offset_ref": -1.5e4},
    "f3 at its bound": {"f3": 0.0, "f0": 0.5},
}
PRIORS = {"reference": {"D_offset_ref": {"prior": {"mean": 0.0, "std": 1e4}}}}
# Where f1 may vanish, f0, f2 and f3 lie in a needle that priors alone confine, and the components
# can be exchanged, for 1 - s is a fraction like s. With the documented priors a direct sampler
# does not come to an end, and with any that bear both fractions it stays with one of them.
CONFINED = {
    "f0": {"prior": {"mean": 0.2, "std": 0.03}},
    "f1": {"prior": {"mean": 0.0, "std": 0.05}},
    "f2": {"prior": {"mean": 0.0, "std": 6.0}},
    "f3": {"prior": {"mean": 0.2, "std": 0.03}},
}
CASE_PRIORS: dict[str, dict[str, Any]] = {"f1 near 0": PRIORS | {"fraction": CONFINED}}


@dataclass(frozen=True)
class Reference:
    """One data set and the density of its posterior, evaluated the slow way."""

    fit: Fit
    posterior: Posterior
    c2: FloatArray

    @classmethod
    def of(cls, name: str) -> Reference:
        """Simulate and fit a case."""
        truth = TRUTH | CASES[name]
        parameters = np.array([truth[n] for n in PHYSICS_PARAM_NAMES])
        experiment = Experiment(parameters, N_FRAMES, DT, Q, PHI)
        c2 = simulate_pairs(experiment, CONTRAST, OFFSET, SIGMA, SEED)
        data = from_arrays(c2, q=Q, phi=PHI, t=experiment.t, dt=DT)
        space = ParameterSpace.from_config(CASE_PRIORS.get(name, PRIORS))
        fit = fit_scaled(bind(data, space), ScalingMode.INDIVIDUAL)
        posterior = Posterior(fit.problem.coordinates, fit.problem.scaling)
        return cls(fit, posterior, c2)

    def unknowns(self, y: JaxArray) -> JaxArray:
        """Map coordinates to physics parameters, contrasts, offsets and sigma, shape (d,)."""
        found, _ = self.posterior.forward(y)
        return jnp.concatenate([found.parameters, found.scaling, found.sigma[None]])

    def log_density(self, y: JaxArray) -> JaxArray:
        """Return the log density of the coordinates, scalar."""
        x, data, n_angles = self.unknowns(y), self.fit.problem.data, len(PHI)
        contrast, offset, sigma = x[14 : 14 + n_angles], x[14 + n_angles : -1], x[-1]
        squares = direct_sum_of_squares(x[:14], contrast, offset, data, jnp.asarray(self.c2)).sum()
        priors = self.posterior.space.priors
        density = log_likelihood_of_squares(squares, sigma, data.n_pairs.sum())
        for name, value in zip(PHYSICS_PARAM_NAMES, x[:14], strict=True):
            density += priors[name].log_prob(value)
        density += priors["contrast"].log_prob(contrast).sum()
        density += priors["offset"].log_prob(offset).sum()
        density += HalfNormal(SIGMA_PRIOR).log_prob(sigma)
        return density + jnp.linalg.slogdet(jax.jacfwd(self.unknowns)(y))[1]

    def sample(self, seed: int) -> tuple[FloatArray, int]:
        """Draw with NumPyro's MCMC; returns unknowns, (chains, draws, d), and divergences."""
        frame = mode_frame(self.posterior, self.fit, 1.0)

        def potential(z: JaxArray) -> JaxArray:
            return -self.log_density(frame.place(z))

        kernel = NUTS(potential_fn=potential, dense_mass=True, target_accept_prob=0.97)
        how = {"num_warmup": WARMUP, "num_samples": DRAWS, "num_chains": CHAINS}
        mcmc = MCMC(kernel, **how, chain_method="sequential", progress_bar=False)
        starts = 0.5 * jax.random.normal(jax.random.PRNGKey(seed), (CHAINS, self.posterior.size))
        mcmc.run(jax.random.PRNGKey(seed + 1), init_params=starts, extra_fields=("diverging",))
        z = mcmc.get_samples(group_by_chain=True)
        unknowns = jax.jit(jax.vmap(jax.vmap(lambda x: self.unknowns(frame.place(x)))))(z)
        return np.asarray(unknowns), int(np.sum(mcmc.get_extra_fields()["diverging"]))


def measured(name: str) -> dict[str, Any]:
    """Draw the posterior of one case and describe it."""
    started = time.perf_counter()
    reference = Reference.of(name)
    draws, divergences = reference.sample(SEED)
    statistics: Any = array_stats
    columns = np.moveaxis(draws, -1, 0)
    ess = [float(statistics.ess(x, chain_axis=0, draw_axis=1, method="mean")) for x in columns]
    r_hat = [float(statistics.rhat(x, chain_axis=0, draw_axis=1)) for x in columns]
    deviation = [float(x.std(ddof=1)) for x in columns]
    wide = [float(statistics.ess(x, chain_axis=0, draw_axis=1, method="sd")) for x in columns]
    seconds = time.perf_counter() - started
    print(
        f"{name}: {seconds:.0f} s, {divergences} divergences, R-hat {max(r_hat):.4f}, "
        f"ESS {min(ess):.0f}, of the deviations {min(wide):.0f}",
        flush=True,
    )
    return {
        "truth": TRUTH | CASES[name],
        "priors": CASE_PRIORS.get(name, PRIORS),
        "names": list(reference.posterior.names),
        "mean": [float(x.mean()) for x in columns],
        "sd": deviation,
        "ess_mean": ess,
        "ess_sd": wide,
        "r_hat": r_hat,
        "divergences": divergences,
    }


def main(chosen: list[str]) -> None:
    """Draw the cases named, or all, and store what was found."""
    for name in chosen or CASES:
        found = measured(name)
        stored = json.loads(PATH.read_text("utf-8")) if PATH.exists() else {}
        stored["experiment"] = {
            "q": Q, "dt": DT, "n_frames": N_FRAMES, "phi": PHI, "contrast": CONTRAST,
            "offset": OFFSET, "sigma": SIGMA, "seed": SEED, "noise_scale": 1.0,
        }  # fmt: skip
        stored.setdefault("cases", {})[name] = found
        PATH.write_text(json.dumps(stored, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
