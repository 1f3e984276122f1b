"""The least-squares fit on simulated data with known truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from heterodyne._errors import ConfigError, DataError
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jax, jnp
from heterodyne.core.correlation import correlate_pairs
from heterodyne.core.frames import frame_functions
from heterodyne.core.heterodyne_model import HeterodyneModel
from heterodyne.core.likelihood import expand_squares, pack_pairs, sums
from heterodyne.core.simulate import Experiment, simulate_pairs
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.nlsq.config import NLSQConfig
from heterodyne.optimization.nlsq.core import fit_nlsq_jax, fit_problem, pair_residuals
from heterodyne.optimization.nlsq.record import fit_record
from heterodyne.optimization.nlsq.results import NLSQResult
from heterodyne.optimization.nlsq.search import search
from heterodyne.optimization.nlsq.solve import _log_determinants, solve
from heterodyne.optimization.nlsq.starts import starting_points, to_coordinates
from heterodyne.optimization.problem import (
    Problem,
    exact_hessian,
    profiled_information,
    profiled_squares,
)
from heterodyne.optimization.scaling import Scaling, ScalingMode

Q, DT, N_FRAMES, ANGLES = 0.0054, 0.1, 76, np.array([-30.0, 15.0, 70.0])
T = DT * np.arange(1.0, N_FRAMES + 1.0)
TRUTH = np.array([8e3, 0.5, 1e3, 2.5e4, -0.4, 2e3, 300.0, 0.3, 20.0, 0.3, 0.25, 4.0, 0.2, 3.0])
CONTRAST, OFFSET, SIGMA = np.array([0.2, 0.3, 0.25]), np.array([1.0, 1.02, 0.99]), 0.01
FEW = NLSQConfig(n_starts=4, n_candidates=256, n_rounds=2)
TRUE = dict(zip(PHYSICS_PARAM_NAMES, TRUTH.tolist(), strict=True))


def simulate(seed=1, truth=TRUTH):
    experiment = Experiment(truth, N_FRAMES, DT, Q, ANGLES.tolist())
    return simulate_pairs(experiment, CONTRAST, OFFSET, SIGMA, seed)


def make_problem(c2, space, phi=ANGLES):
    data = pack_pairs(c2, T, Q, DT, phi)
    scaling = Scaling.of(ScalingMode.INDIVIDUAL, space, phi.size)
    return Problem(data, PhysicsCoordinates.of(space, T), scaling)


def squares_at(parameters, problem):
    s = jax.jit(sums)(jnp.asarray(parameters), problem.data)
    best = problem.scaling.profile(s, problem.data)
    return float(expand_squares(s, *best, problem.data).sum())


def dense_jacobian(fit):
    """d c2 / d (varying parameters, contrasts, offsets) at all pairs, and these names."""
    i, j = np.triu_indices(N_FRAMES, 1)
    varying, fitted = fit.problem.coordinates.indices, jnp.asarray(fit.parameters)

    @jax.jit
    def model(x):
        parameters = fitted.at[varying].set(x)
        functions = frame_functions(parameters, jnp.asarray(T))
        return jnp.stack([correlate_pairs(functions, i, j, Q, DT, phi) for phi in ANGLES])

    x = fitted[varying]
    g, slopes = np.asarray(model(x)), np.asarray(jax.jit(jax.jacfwd(model))(x))
    contrast = fit.least_squares.contrast[0]
    eye = np.eye(ANGLES.size)[:, None]
    blocks = [
        slopes * contrast[:, None, None],
        g[:, :, None] * eye,
        np.ones_like(g)[..., None] * eye,
    ]
    return np.concatenate(blocks, axis=2).reshape(g.size, -1)


@pytest.fixture(scope="module")
def c2():
    return simulate()


@pytest.fixture(scope="module")
def full(c2):
    """A fit in which everything varies, from start values that are a quarter off."""
    rng = np.random.default_rng(2)
    start = {n: v * np.exp(rng.normal(scale=0.25)) for n, v in TRUE.items()}
    return fit_problem(make_problem(c2, ParameterSpace().with_values(start)), FEW)


FIXED = ("alpha_ref", "D_offset_ref", "D_offset_sample", "beta", "v_offset", "f2", "phi0")


@pytest.fixture(scope="module")
def reduced(c2):
    """A fit without open directions: seven parameters are known."""
    return fit_problem(make_problem(c2, ParameterSpace().with_values(TRUE).fix(*FIXED)), FEW)


def test_a_needle_of_the_density_has_no_mass(full):
    # As the amplitude of the fraction vanishes at a rate f1 that does not, the density of
    # the coordinates grows without limit along an ever thinner needle.
    names = full.problem.coordinates.names
    points = []
    for log_amplitude in (-110.0, -180.0):
        needle = full.modes.y[0].copy()
        needle[[names.index(n) for n in ("f0", "f1", "f2")]] = (
            log_amplitude, -0.128 * np.exp(log_amplitude), 0.0
        )  # fmt: skip
        points.append(needle)
    settings = {"max_iterations": 0, "tolerance": 1e-4}
    found = solve(full.problem, np.stack(points), prior_weight=1.0, **settings)
    assert found.squares[0] == pytest.approx(found.squares[1])
    assert found.objective[1] < found.objective[0] - 100
    assert found.score[1] == pytest.approx(found.score[0], abs=10)
    plain = solve(full.problem, np.stack(points), prior_weight=0.0, **settings)
    np.testing.assert_array_equal(plain.score, plain.objective)


def test_scores_are_masses_of_normal_densities(full):
    found = solve(full.problem, full.modes.y, prior_weight=1.0, max_iterations=0, tolerance=1e-4)
    p, n = full.problem.coordinates.size, full.problem.n_pairs
    rise = found.score - found.objective
    for k in range(2):
        data = profiled_information(jnp.asarray(found.information[k]), p) * n / found.squares[k]
        # The rest, that of the priors, is diagonal in units of their widths.
        least = np.linalg.slogdet(np.asarray(data) + np.diag(found.floor[k]))[1]
        assert rise[k] == pytest.approx(least, rel=0.2)


@pytest.mark.parametrize("open_", [0.0, 1e-40])
def test_directions_that_nothing_informs_count_alike(open_):
    rng = np.random.default_rng(3)
    halves = rng.normal(size=(6, 3, 5))
    matrices = halves @ halves.swapaxes(1, 2)
    known = np.linalg.slogdet(matrices)[1]
    whole = np.zeros((6, 4, 4))
    whole[:, :3, :3] = matrices
    whole[:, 3, 3] = open_ * rng.random(6)
    found = _log_determinants(whole, np.ones(6, bool))
    np.testing.assert_allclose(found - found[0], known - known[0], atol=4.0 if open_ else 1e-9)
    np.testing.assert_allclose(_log_determinants(matrices, np.ones(6, bool)), known)
    assert (_log_determinants(whole, np.zeros(6, bool)) == 0).all()


def test_fit_is_no_worse_than_the_truth(full):
    assert full.result.success
    assert full.result.sum_of_squares <= squares_at(TRUTH, full.problem) * (1 + 1e-9)
    assert full.result.sum_of_squares > 0.9 * SIGMA**2 * full.problem.n_pairs
    assert squares_at(full.parameters, full.problem) == pytest.approx(
        full.result.sum_of_squares, rel=1e-9
    )
    assert full.result.sigma == pytest.approx(SIGMA, rel=0.05)
    assert full.result.reduced_chi_square == pytest.approx(1.0, abs=0.1)


def test_identified_quantities_lie_within_their_errors_of_the_truth(full):
    for name, (value, error) in full.result.derived.items():
        curve, _, time = name.removesuffix(" s)").partition("(")
        t = float(time)
        p = TRUE
        expected = {
            "J_ref": p["D0_ref"] * t ** p["alpha_ref"] + p["D_offset_ref"],
            "J_sample": p["D0_sample"] * t ** p["alpha_sample"] + p["D_offset_sample"],
            "v": p["v0"] * t ** p["beta"] + p["v_offset"],
            "s": p["f0"] * np.exp(p["f1"] * (t - p["f2"])) + p["f3"],
        }[curve]
        assert np.isfinite(error)
        assert abs(value - expected) < 4.5 * error


def test_degeneracies_are_told(full):
    found = full.result.identifiability
    assert any("f0" in s and "f2" in s for s in found.sentences)
    assert found.names == PHYSICS_PARAM_NAMES
    np.testing.assert_allclose(found.directions.T @ found.directions, np.eye(14), atol=1e-9)
    assert found.information.min() < 1e-3 * found.information.max()
    assert min(found.contraction.values()) < 0.5 < max(found.contraction.values())


def test_an_open_direction_has_infinite_uncertainty(full):
    result = full.result
    assert result.get_uncertainty("f0") == result.get_uncertainty("f2") == np.inf
    for name in ("alpha_ref", "v0", "f1", "f3", "contrast_1", "offset_2"):
        assert np.isfinite(result.get_uncertainty(name))
    record = {row["name"]: row for row in fit_record(result)["parameters"]}
    assert record["f0"]["error"] is None
    assert record["contrast_1"]["error"] > 0


def test_standard_errors_are_those_of_dense_least_squares(reduced):
    result, dense = reduced.result, dense_jacobian(reduced)
    sigma = np.sqrt(result.sum_of_squares / (dense.shape[0] - dense.shape[1]))
    assert result.sigma == pytest.approx(sigma, rel=1e-9)
    scale = np.linalg.norm(dense, axis=0)
    covariance = np.linalg.inv((dense / scale).T @ (dense / scale)) * sigma**2
    expected = covariance / scale[:, None] / scale
    np.testing.assert_allclose(result.uncertainties, np.sqrt(np.diagonal(expected)), rtol=1e-5)
    errors = result.uncertainties
    correlation = result.covariance / errors[:, None] / errors
    np.testing.assert_allclose(correlation, expected / errors[:, None] / errors, rtol=0, atol=1e-5)


def test_parameters_lie_within_their_errors_of_the_truth(reduced):
    result = reduced.result
    truth = TRUE | {f"contrast_{k}": c for k, c in enumerate(CONTRAST)}
    truth |= {f"offset_{k}": o for k, o in enumerate(OFFSET)}
    for name in result.parameter_names:
        deviation = (result.get_param(name) - truth[name]) / result.get_uncertainty(name)
        assert abs(deviation) < 4.5, name


def test_fit_is_stationary_for_dense_least_squares(reduced, c2):
    residuals, dense = pair_residuals(reduced, c2), dense_jacobian(reduced)
    assert residuals @ residuals == pytest.approx(reduced.result.sum_of_squares, rel=1e-9)
    scale = np.linalg.norm(dense, axis=0)
    step = lsq_linear(dense / scale, residuals).x / scale
    assert np.abs(step / reduced.result.uncertainties).max() < 0.02


def test_exact_hessian_is_that_of_gradient_differences(c2, reduced):
    # Few frames compile in a fraction of the time.
    data = pack_pairs(c2[:, :18, :18], T[:18], Q, DT, ANGLES)
    parts = (data, reduced.problem.coordinates, reduced.problem.scaling)
    slope = jax.jit(jax.grad(lambda x: profiled_squares(x, *parts)))
    y = jnp.asarray(reduced.least_squares.y[0])
    found = np.asarray(exact_hessian(y, *parts))
    unit = SIGMA / np.sqrt(np.abs(np.diagonal(found)))
    columns = [
        (slope(y.at[k].add(h)) - slope(y.at[k].add(-h))) / (2 * h)
        for k, h in enumerate(1e-3 * unit)
    ]
    difference = (np.stack(columns, axis=1) - found) * unit[:, None] * unit / SIGMA**2
    assert np.abs(difference).max() < 1e-4
    np.testing.assert_allclose(found, found.T, rtol=1e-8, atol=1e-8 * np.abs(found).max())


@pytest.mark.parametrize(
    ("name", "d0", "contrast", "expected"),
    [("D0_ref", 20.0, 0.2, (100.0, 110.0)), ("contrast_0", 8e3, 1.2, (1.0, 1.0))],
)
def test_bounds_hold_where_the_optimum_lies_outside(reduced, name, d0, contrast, expected):
    truth = np.array([d0, *TRUTH[1:]])
    experiment = Experiment(truth, N_FRAMES, DT, Q, ANGLES.tolist())
    c2 = simulate_pairs(experiment, [contrast, 0.3, 0.25], OFFSET, SIGMA, seed=1)
    space = reduced.problem.coordinates.space
    result = fit_problem(make_problem(c2, space), FEW).result
    assert expected[0] <= result.get_param(name) <= expected[1]
    for varying in result.parameter_names[:-6]:
        low, high = space.bounds[varying]
        assert low < result.get_param(varying) < high


def test_the_seed_decides(c2, reduced):
    again = fit_problem(reduced.problem, FEW)
    np.testing.assert_array_equal(again.result.parameters, reduced.result.parameters)
    other = fit_problem(reduced.problem, replace(FEW, seed=3))
    assert other.result.sum_of_squares == pytest.approx(reduced.result.sum_of_squares, rel=1e-7)
    assert (other.modes.y != again.modes.y).any()


def test_events_report_progress(reduced):
    events = []
    fit_problem(reduced.problem, FEW, events.append)
    done = [e.done for e in events]
    assert done == sorted(done)
    assert done[-1] == events[-1].total


def model_with(space):
    return HeterodyneModel(T, Q, DT, space)


def test_one_matrix_has_one_contrast_and_offset(c2):
    model = model_with(ParameterSpace().with_values(TRUE).fix(*FIXED))
    for stored, phi in ((c2[1], 15.0), (c2[1:2], [15.0])):
        result = fit_nlsq_jax(model, stored, phi, FEW)
        assert isinstance(result, NLSQResult)
        assert result.parameter_names[-2:] == ("contrast", "offset")
        assert result.get_param("contrast") == pytest.approx(0.3, abs=0.05)
        assert result.residuals.shape == (N_FRAMES * (N_FRAMES - 1) // 2,)
        assert result.residuals.std() == pytest.approx(SIGMA, rel=0.05)


def test_joint_fit_has_one_contrast_an_angle(c2, reduced):
    model = model_with(reduced.problem.coordinates.space)
    result = fit_nlsq_jax(model, c2, ANGLES, FEW)
    np.testing.assert_array_equal(result.parameters, reduced.result.parameters)
    assert result.parameter_names == (
        *(n for n in PHYSICS_PARAM_NAMES if n not in FIXED),
        *(f"contrast_{k}" for k in range(3)),
        *(f"offset_{k}" for k in range(3)),
    )
    assert result.residuals.size == result.n_pairs == 3 * N_FRAMES * (N_FRAMES - 1) // 2


def test_result_answers_by_name(reduced):
    result = reduced.result
    assert result.fixed_parameters == {n: TRUE[n] for n in FIXED}
    assert result.get_param("alpha_ref") == TRUE["alpha_ref"]
    assert result.get_uncertainty("alpha_ref") == 0.0
    assert result.get_param("D0_ref") == result.parameters[0]
    assert result.get_uncertainty("D0_ref") == result.uncertainties[0]
    assert set(result.as_dict()) == {*PHYSICS_PARAM_NAMES, *result.parameter_names}
    with pytest.raises(KeyError, match="nonsense"):
        result.get_param("nonsense")
    assert np.isnan(replace(result, uncertainties=None).get_uncertainty("D0_ref"))


def test_shapes_that_do_not_match_are_refused(c2):
    model = model_with(ParameterSpace())
    with pytest.raises(DataError, match=r"\(3, 76, 76\)"):
        fit_nlsq_jax(model, c2, 15.0, FEW)
    with pytest.raises(DataError, match=r"\(1, 70, 70\)"):
        fit_nlsq_jax(model, c2[0, :70, :70], 15.0, FEW)


@pytest.mark.parametrize(
    "setting", [{"n_starts": 0}, {"max_iterations": 0}, {"tolerance": 0.0}, {"n_rounds": -1}]
)
def test_settings_out_of_range_are_refused(setting):
    (name,) = setting
    with pytest.raises(ConfigError, match=name):
        NLSQConfig(**setting)


def test_data_without_a_finite_sum_of_squares_are_refused(c2, reduced):
    bad = c2.copy()
    bad[0, 3, 20] = np.nan
    with pytest.raises(DataError):
        fit_problem(make_problem(bad, reduced.problem.coordinates.space), FEW)


def test_a_fit_needs_a_parameter_that_varies(c2):
    held = ParameterSpace().fix(*PHYSICS_PARAM_NAMES)
    with pytest.raises(ConfigError, match=r"no physics parameter varies.*vary: true"):
        fit_problem(make_problem(c2, held), FEW)


@pytest.mark.slow
def test_the_search_finds_a_fraction_that_stays_at_one():
    truth = TRUTH.copy()
    truth[[PHYSICS_PARAM_NAMES.index(n) for n in ("f0", "f1", "f2")]] = 0.3, 0.2, -8.0
    priors = {
        name: {"prior": {"mean": mean, "std": std}}
        for name, mean, std in (
            ("f0", 0.3, 0.1), ("f1", 0.0, 0.15), ("f2", 0.0, 6.0), ("f3", 0.2, 0.1),
            ("D0_ref", 1.5e4, 2e4), ("D0_sample", 1.5e4, 2e4), ("v0", 300.0, 450.0),
        )
    }  # fmt: skip
    space = ParameterSpace.from_config({"parameters": priors})
    problem = make_problem(simulate(truth=truth), space)
    there = problem.coordinates.inside(truth[None])
    start = to_coordinates(there, problem.coordinates)
    near = solve(problem, start, prior_weight=1.0, max_iterations=200, tolerance=1e-4)
    found = search(problem, NLSQConfig())
    assert found.score[0] <= near.score[0] + 2.0


def test_starting_points_know_priors_and_data():
    # A fraction that grows by e in a frame leaves the range of the coordinates.
    priors = {name: {"prior": {"mean": 0, "std": 0.2}} for name in ("f1", "f2")}
    space = ParameterSpace.from_config({"parameters": priors}).with_values(TRUE)
    problem = make_problem(simulate(), space)
    points = starting_points(problem, 401, np.random.default_rng(0))
    forward = jax.jit(jax.vmap(lambda y: problem.coordinates.forward(y)[0]))
    drawn = np.asarray(forward(jnp.asarray(points)))
    np.testing.assert_allclose(drawn[0], TRUTH, rtol=1e-6)
    beta = drawn[1:, PHYSICS_PARAM_NAMES.index("beta")]
    prior = space["beta"].prior
    # Those scaled by the data have a narrower spread than the prior.
    assert beta[:200].std() == pytest.approx(0.4, rel=0.15)
    assert abs(beta[200:].mean() - prior.loc) < 0.2 * prior.scale
