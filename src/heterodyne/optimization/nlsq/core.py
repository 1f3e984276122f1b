"""The joint least-squares fit of all angles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from heterodyne._errors import ConfigError, DataError
from heterodyne._events import EventSink, ignore_events
from heterodyne._typing import ArrayLike, FloatArray, JaxArray
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.core._jax import RUNS_ONCE, jax, jnp
from heterodyne.core.correlation import correlate_pairs
from heterodyne.core.frames import frame_functions
from heterodyne.core.heterodyne_model import HeterodyneModel
from heterodyne.core.kept import kept
from heterodyne.core.likelihood import pack_pairs
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.derived import Derived
from heterodyne.optimization.measured import two_time_data
from heterodyne.optimization.nlsq.config import NLSQConfig
from heterodyne.optimization.nlsq.identifiability import identify
from heterodyne.optimization.nlsq.results import NLSQResult
from heterodyne.optimization.nlsq.search import distinct, search
from heterodyne.optimization.nlsq.solve import Solutions, solve
from heterodyne.optimization.nlsq.uncertainty import invert_information, propagate
from heterodyne.optimization.problem import Problem, profiled_information
from heterodyne.optimization.scaling import Scaling, ScalingMode

# Below this share of the variance of the data, a sum of squares is rounding.
_NOISELESS = 1e-12
_LEADING = 4


@dataclass(frozen=True)
class Fit:
    """A fit in sampling coordinates, from which sampling starts.

    Attributes:
        problem: What was fitted.
        modes: Posterior modes found, best first, in units of chi-square.
        least_squares: The least-squares fit, one row.
        sigma: Root mean square residual there.
        result: The fit for users.
    """

    problem: Problem
    modes: Solutions
    least_squares: Solutions
    sigma: float
    result: NLSQResult

    @property
    def parameters(self) -> FloatArray:
        """The 14 physics parameters of the least-squares fit."""
        y = jnp.asarray(self.least_squares.y[0])
        derived = Derived.of(self.problem.fitted_times)
        return np.asarray(_values_and_slopes(y, self.problem.coordinates, derived)[0])


def fit_problem(
    problem: Problem, config: NLSQConfig | None = None, on_event: EventSink = ignore_events
) -> Fit:
    """Fit all angles of a data set jointly.

    Args:
        problem: Data, coordinates and scaling.
        config: Settings; defaults if None.
        on_event: Receives the progress.

    Raises:
        ConfigError: No physics parameter varies.
        DataError: The sum of squares is not finite anywhere.
    """
    if problem.coordinates.size == 0:
        raise ConfigError(
            "no physics parameter varies",
            where="parameters",
            allowed="at least one with vary: true",
            remedy="Let one of them vary; to see how held values fit, let phi0 or v_offset vary",
        )
    config = config or NLSQConfig()
    modes = search(problem, config, on_event)
    if not np.isfinite(modes.score[0]):
        raise DataError(
            "the sum of squares is not finite at any start",
            remedy="Inspect the data for infinite or huge values",
        )
    # Modes that compete, and the ways that lead along the valley of the best one.
    leading = np.concatenate([distinct(modes, _LEADING), modes.y[:_LEADING]])
    final = solve(
        problem,
        np.unique(leading, axis=0),
        prior_weight=0.0,
        max_iterations=config.max_iterations,
        tolerance=config.tolerance,
        batch=len(modes.y),
    ).best(1)
    return summarised(problem, modes, final)


def summarised(problem: Problem, modes: Solutions, least_squares: Solutions) -> Fit:
    """Put a fit together from what was found.

    Args:
        problem: What was fitted.
        modes: Posterior modes found, best first.
        least_squares: The least-squares fit, one row.

    Raises:
        DataError: Nothing is left to call noise.
    """
    squares = float(least_squares.squares[0])
    total = float(np.asarray(problem.data.square).sum())
    if not squares > _NOISELESS * total:
        raise DataError(
            "the model goes through every pair: the data hold no noise",
            remedy="Give measured data; errors cannot be told from noiseless ones",
        )
    sigma = float(np.sqrt(squares / problem.degrees_of_freedom))
    result = _summarise(problem, modes, least_squares, sigma)
    return Fit(problem, modes, least_squares, sigma, result)


def _summarise(problem: Problem, modes: Solutions, final: Solutions, sigma: float) -> NLSQResult:
    coordinates, scaling, data = problem.coordinates, problem.scaling, problem.data
    full, scales = final.information[0], (final.contrast[0], final.offset[0])
    y = final.y[0]
    p, varying = coordinates.size, coordinates.indices
    derived = Derived.of(problem.fitted_times)
    parameters, values_there, full_jacobian, of_derived = map(
        np.asarray, _values_and_slopes(y, coordinates, derived)
    )
    jacobian = np.eye(p + scaling.size)
    jacobian[:p, :p] = full_jacobian[varying]
    unit = np.concatenate([np.maximum(final.floor[0], 1e-300), np.ones(scaling.size)])
    inverse = invert_information(full / sigma**2, unit)
    covariance = propagate(inverse, jacobian)
    unknowns = np.asarray(scaling.collapse(*map(jnp.asarray, scales)))
    slopes = np.zeros((len(derived.names), p + scaling.size))
    slopes[:, :p] = of_derived
    errors = np.sqrt(np.diagonal(propagate(inverse, slopes)))
    reduced = np.asarray(_profiled(full, p)) / sigma**2
    to_documented = np.linalg.pinv(jacobian[:p, :p])
    names = coordinates.names
    values = dict(zip(names, parameters[varying].tolist(), strict=True))
    noise = float(np.sqrt(np.mean(np.asarray(data.noise) ** 2)))
    others = (modes.score - modes.score[0])[modes.converged]
    success = bool(final.converged[0])
    return NLSQResult(
        parameters=np.concatenate([parameters[varying], unknowns]),
        parameter_names=(*names, *scaling.names),
        uncertainties=np.sqrt(np.diagonal(covariance)),
        covariance=covariance,
        success=success,
        fixed_parameters={
            n: float(v)
            for n, v in zip(PHYSICS_PARAM_NAMES, parameters, strict=True)
            if n not in names
        },
        message="converged" if success else "stopped before the steps became small",
        sum_of_squares=float(final.squares[0]),
        n_pairs=problem.n_pairs,
        sigma=sigma,
        reduced_chi_square=(sigma / noise) ** 2 if noise > 0 else float("nan"),
        identifiability=identify(
            coordinates.space, values, to_documented.T @ reduced @ to_documented
        )
        if p
        else None,
        derived={
            name: (float(v), float(e))
            for name, v, e in zip(derived.names, values_there, errors, strict=True)
        },
        modes=tuple(float(x) for x in np.unique(np.round(others[others > 1.0], 1))),
        details={"noise": noise},
    )


@kept("coordinates", "derived", returns=lambda *found: found, compiler_options=RUNS_ONCE)
def _values_and_slopes(
    y: JaxArray, coordinates: PhysicsCoordinates, derived: Derived
) -> tuple[JaxArray, JaxArray, JaxArray, JaxArray]:
    """The 14 parameters, derived quantities, and the derivatives of both by y."""

    def both(y: JaxArray) -> tuple[JaxArray, JaxArray]:
        parameters = coordinates.forward(y)[0]
        return parameters, derived(parameters)

    return (*both(y), *jax.jacfwd(both)(y))


_profiled = partial(jax.jit, static_argnames="p")(profiled_information)


def pair_residuals(fit: Fit, c2: FloatArray) -> FloatArray:
    """Return c2 minus fit at the fitted unique pairs, angle after angle.

    Args:
        fit: The fit.
        c2: Measured correlation, shape (n_angles, N, N).
    """
    data = fit.problem.data
    contrast, offset = fit.least_squares.contrast[0], fit.least_squares.offset[0]
    functions = frame_functions(jnp.asarray(fit.parameters), data.t)
    i, j = np.nonzero(np.triu(np.outer(data.mask, data.mask), 1))
    parts = []
    for k, phi in enumerate(np.asarray(data.phi)):
        g = np.asarray(correlate_pairs(functions, i, j, data.q, data.dt, phi))
        parts.append(c2[k, i, j] - offset[k] - contrast[k] * g)
    return np.concatenate(parts)


def fit_nlsq_jax(
    model: HeterodyneModel,
    c2_data: ArrayLike,
    phi_angle: float | ArrayLike = 0.0,
    config: NLSQConfig | None = None,
) -> NLSQResult:
    """Fit a model to two-time correlations by least squares.

    Args:
        model: Time grid, wavevector and parameters.
        c2_data: Measured c2, shape (N, N), or (n_angles, N, N) for a joint fit; NaN at all pairs
            of frames to leave out.
        phi_angle: Detector angle in degrees, or one for each matrix.
        config: Settings; defaults if None.

    Returns:
        Fitted values with standard errors for independent pairs.

    Raises:
        DataError: Shapes that do not match, or data that cannot be fitted.
    """
    measured = two_time_data(model, c2_data, phi_angle)
    c2 = np.asarray(measured.c2, float)
    angles = np.atleast_1d(np.asarray(phi_angle, float))
    data = pack_pairs(c2, model.t, model.q, model.dt, angles, mask=measured.frame_mask)
    space = model.param_manager
    # One matrix has one contrast and one offset, under their plain names.
    mode = ScalingMode.AVERAGED if angles.size == 1 else ScalingMode.INDIVIDUAL
    scaling = Scaling.of(mode, space, angles.size)
    problem = Problem(data, PhysicsCoordinates.of(space, model.t, phi=angles), scaling)
    fit = fit_problem(problem, config)
    return replace(fit.result, residuals=pair_residuals(fit, c2))
