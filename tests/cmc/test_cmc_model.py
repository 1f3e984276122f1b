"""NumPyro models: what they sample, and that their density is that of every pair once."""

from __future__ import annotations

import logging
import pickle
from functools import cache

import numpy as np
import numpyro.distributions as dist
import pytest
from model_cases import (
    ALL_POINTS,
    C2,
    CONTRAST,
    DT,
    OFFSET,
    PHI,
    SIGMA,
    SPACE,
    START,
    TRUTH,
    N,
    Q,
    T,
    density_of,
    log_joint,
    log_prior,
    pooled,
    random_values,
)
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, init_to_value
from scipy import stats

from heterodyne._errors import ConfigError, DataError
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jax
from heterodyne.core.physics_cmc import ShardGrid, precompute_shard_grid
from heterodyne.optimization.cmc import model
from heterodyne.optimization.cmc.reparameterization import ReparamConfig
from heterodyne.optimization.nlsq.results import NLSQResult

FROM_ZERO = DT * np.arange(N)
PER_ANGLE = {name: [f"{name}_{k}" for k in range(3)] for name in ("contrast", "offset")}
UPPER = (ALL_POINTS[1] < ALL_POINTS[2]).ravel()
PHYSICS = set(PHYSICS_PARAM_NAMES)
COMMON = (T, Q, DT, PHI, C2, SIGMA, SPACE)
FIXED = {"fixed_contrast": CONTRAST, "fixed_offset": OFFSET}
XPCS = {
    "scaled": (model.xpcs_model_heterodyne_scaled, {}),
    "constant": (model.xpcs_model_heterodyne_constant, FIXED),
    "averaged": (model.xpcs_model_heterodyne_averaged, {}),
    "constant_averaged": (
        model.xpcs_model_heterodyne_constant_averaged,
        {"fixed_contrast": 0.25, "fixed_offset": 1.01},
    ),
}
SCALING_SITES = {
    "scaled": {*PER_ANGLE["contrast"], *PER_ANGLE["offset"]},
    "averaged": {"contrast", "offset"},
    "constant": set(),
    "constant_averaged": set(),
}
SYNONYMS = {"individual": "scaled", "auto": "averaged"}


@cache
def small_space():
    names = PHYSICS - {"alpha_ref", "v0"}
    wide = {"v0": {"prior": {"mean": 500.0, "std": 500.0}}}
    return ParameterSpace.from_config(wide).with_values(START).fix(*names)


def sampled(built, args=(), kwargs=None):
    """Latent sites of a model, with their distributions."""
    trace = handlers.trace(handlers.seed(built, 0)).get_trace(*args, **(kwargs or {}))
    return {
        name: site["fn"]
        for name, site in trace.items()
        if site["type"] == "sample" and not site["is_observed"]
    }


def site_names(built, args=(), kwargs=None):
    """Names of the latent sites, without computing anything."""
    found = []
    jax.eval_shape(lambda: found.extend(sampled(built, args, kwargs)))
    return set(found)


def somewhere(built):
    """Values of all latent sites of a model."""
    places = {"D0_ref": 2e4, "alpha_ref": 0.1, "v0": 400.0, "sigma": 0.01}
    places |= {"contrast_z": np.full(3, 0.2), "offset_z": np.full(3, -0.1)}
    kinds = {"contrast": 0.21, "offset": 1.02}
    return {n: places.get(n, kinds.get(n.split("_")[0], 0.3)) for n in site_names(built)}


def scaling_of(mode, values):
    """Contrast and offset of the three angles in a mode."""
    if mode == "scaled":
        return [np.array([values[s] for s in PER_ANGLE[n]]) for n in ("contrast", "offset")]
    if mode == "averaged":
        return [np.full(3, values[n]) for n in ("contrast", "offset")]
    return [np.broadcast_to(v, 3) for v in XPCS[mode][1].values()]


def values_of(mode, seed):
    names = {"scaled": PER_ANGLE}.get(mode, {})
    values = random_values(SPACE, seed, names)
    return values if mode in ("scaled", "averaged") else without_scaling(values)


def without_scaling(values):
    return {n: v for n, v in values.items() if n not in ("contrast", "offset")}


@pytest.mark.parametrize("t", [T, FROM_ZERO], ids=["after zero", "from zero"])
@pytest.mark.parametrize("mode", XPCS)
def test_pooled_points_count_each_pair_once(mode, t):
    names = PER_ANGLE if mode == "scaled" else {}
    settings = {"space": SPACE, **XPCS[mode][1]}
    both_halves = density_of(XPCS[mode][0], (), {**pooled(t=t), **settings})
    one_half = density_of(
        model.get_heterodyne_pooled_model_for_mode(mode, **pooled(UPPER, t), **settings)
    )
    for seed in range(3):
        values = values_of(mode, seed)
        expected = log_joint(SPACE, values, *scaling_of(mode, values), names, t)
        np.testing.assert_allclose(both_halves(values), expected, rtol=1e-10)
        np.testing.assert_allclose(one_half(values), expected, rtol=1e-10)


@pytest.mark.parametrize("t", [T, FROM_ZERO], ids=["after zero", "from zero"])
def test_matrices_count_each_pair_once(t):
    data = C2.copy()
    # The diagonal is not read.
    data[:, np.arange(N), np.arange(N)] += 5.0
    whole = density_of(model.get_heterodyne_model(t, Q, DT, PHI, data, SIGMA, SPACE))
    for seed in range(3):
        values = values_of("averaged", seed)
        scaling = scaling_of("averaged", values)
        expected = log_joint(SPACE, values, *scaling, t=t)
        np.testing.assert_allclose(whole(values), expected, rtol=1e-10)


def grid_of(points, angle=0):
    i, j = points
    return ShardGrid(T, i, j), C2[angle][i, j]


def test_chosen_pairs_have_the_density_of_the_matrix():
    grid, values = grid_of(np.indices((N, N)).reshape(2, -1))
    settings = (T, Q, DT, PHI[0])
    listed = model.get_heterodyne_model(*settings, values, SIGMA, SPACE, shard_grid=grid)
    whole = model.get_heterodyne_model(*settings, C2[0], SIGMA, SPACE)
    listed, whole = density_of(listed), density_of(whole)
    for seed in range(3):
        at = random_values(SPACE, seed)
        np.testing.assert_allclose(listed(at), whole(at), rtol=1e-10)


def test_points_given_twice_are_one_pair():
    once, twice = np.array([[3, 5, 1], [7, 9, 4]]), np.array([[3, 7, 3, 5, 1], [7, 3, 7, 9, 4]])
    densities = []
    for points in (once, twice):
        grid, values = grid_of(points)
        built = model.get_heterodyne_model(T, Q, DT, PHI[0], values, SIGMA, SPACE, shard_grid=grid)
        densities.append(density_of(built)(random_values(SPACE, 0)))
    np.testing.assert_allclose(*densities, rtol=1e-12)


def individual_values(seed):
    """Values by documented name, and by the names of the sites."""
    values = random_values(SPACE, seed, PER_ANGLE)
    centres = {"contrast": np.array([0.4, 0.5, 0.6]), "offset": np.full(3, 1.0)}
    sites = {n: v for n, v in values.items() if n in PHYSICS or n == "sigma"}
    for name, parts in PER_ANGLE.items():
        per_angle = np.array([values[s] for s in parts])
        sites[f"{name}_z"] = (per_angle - centres[name]) / 0.25
    return values, sites


def test_one_prior_per_angle():
    built = model.get_heterodyne_model_individual(
        *COMMON, contrast_prior_loc=[0.4, 0.5, 0.6], num_shards=4
    )
    density = density_of(built)
    for seed in range(2):
        values, sites = individual_values(seed)
        contrast, offset = scaling_of("scaled", values)
        space_free = {n: v for n, v in values.items() if n in PHYSICS or n == "sigma"}
        expected = log_joint(SPACE, space_free, contrast, offset, num_shards=4)
        for x, centre, (low, high) in [
            (contrast, np.array([0.4, 0.5, 0.6]), (0.0, 1.0)),
            (offset, np.ones(3), (0.5, 1.5)),
        ]:
            ends = (low - centre) / 0.25, (high - centre) / 0.25
            expected += stats.truncnorm(*ends).logpdf((x - centre) / 0.25).sum()
        np.testing.assert_allclose(density(sites), expected, rtol=1e-10)


def test_one_prior_per_angle_with_grids():
    chosen = np.random.default_rng(1).permutation(np.array(np.triu_indices(N, 1)).T).T
    cuts = [chosen[:, :150], chosen[:, :100], chosen]
    grids, values = zip(*(grid_of(p, k) for k, p in enumerate(cuts)), strict=True)
    built = model.get_heterodyne_model_individual(
        T, Q, DT, PHI, values, SIGMA, SPACE, shard_grids=grids
    )
    keep = np.concatenate([k * N * N + p[0] * N + p[1] for k, p in enumerate(cuts)])
    other = density_of(model.xpcs_model_heterodyne_scaled, (), {**pooled(keep), "space": SPACE})
    at, sites = individual_values(3)
    contrast = np.array([at[n] for n in PER_ANGLE["contrast"]])
    sites["contrast_z"] = (contrast - 0.5) / 0.25
    # Densities of z and of the values differ by the width of each of the six priors.
    expected = other(at) + 6 * np.log(0.25)
    np.testing.assert_allclose(density_of(built)(sites), expected, rtol=1e-10)


def test_values_per_angle_follow_from_the_plate():
    built = model.get_heterodyne_model_individual(*COMMON)
    at = {"contrast_z": np.array([-1.0, 0.0, 1.0]), "offset_z": np.zeros(3)}
    trace = handlers.trace(handlers.seed(handlers.substitute(built, at), 0)).get_trace()
    assert trace["contrast_z"]["cond_indep_stack"][0].name == "angles"
    found = [float(trace[name]["value"]) for name in PER_ANGLE["contrast"]]
    assert found == pytest.approx([0.25, 0.5, 0.75])
    assert float(trace["offset_2"]["value"]) == 1.0


@pytest.mark.parametrize("mode", [*XPCS, *SYNONYMS])
def test_sites_of_the_modes(mode):
    key = SYNONYMS.get(mode, mode)
    function, fixed = XPCS[key]
    expected = PHYSICS | SCALING_SITES[key] | {"sigma"}
    built = model.get_heterodyne_pooled_model_for_mode(mode, **pooled(), space=SPACE, **fixed)
    assert site_names(built) == expected
    assert site_names(function, (), {**pooled(), "space": SPACE, **fixed}) == expected


def models_of_matrices(space):
    common = (*COMMON[:-1], space)
    return {
        "auto": model.get_heterodyne_model(*common, contrast=0.2, offset=1.01),
        "reparam": model.get_heterodyne_model_reparam(
            *common, contrast=0.2, offset=1.01, reparam_config=ReparamConfig()
        ),
        "constant": model.get_heterodyne_model_constant(*common, CONTRAST, OFFSET),
        "constant_averaged": model.get_heterodyne_model_constant_averaged(*common, 0.2, 1.01),
        "individual": model.get_heterodyne_model_individual(*common),
    }


def test_fixed_parameters_are_not_sampled():
    space = SPACE.fix("D0_ref", "alpha_sample", "f2", "contrast", "offset")
    free = set(space.varying_names) | {"sigma"}
    built = models_of_matrices(space)
    coordinates = {
        {"D0_sample": "log_D0_sample_at_tref", "v0": "log_v0_at_tref"}.get(n, n) + "_z"
        for n in space.varying_names
    }
    assert site_names(built.pop("reparam")) == coordinates | {"sigma"}
    assert {name: site_names(one) for name, one in built.items()} == dict.fromkeys(built, free)
    pooled_model = model.get_heterodyne_pooled_model_for_mode("scaled", **pooled(), space=space)
    assert site_names(pooled_model) == free


@pytest.mark.parametrize(
    ("name", "contrast", "offset"),
    [
        ("auto", np.full(3, 0.2), np.full(3, 1.01)),
        ("constant", CONTRAST, OFFSET),
        ("constant_averaged", np.full(3, 0.2), np.full(3, 1.01)),
        ("individual", np.full(3, 0.5), np.full(3, 1.0)),
    ],
)
def test_fixed_contrast_and_offset(name, contrast, offset):
    space = SPACE.fix("contrast", "offset", *PHYSICS - {"D0_ref", "v0"})
    values = random_values(space, 0)
    found = density_of(models_of_matrices(space)[name])(values)
    np.testing.assert_allclose(found, log_joint(space, values, contrast, offset), rtol=1e-10)


def test_contrast_that_contradicts_the_space_is_logged(caplog):
    model.get_heterodyne_model(*COMMON)
    assert not caplog.records
    model.get_heterodyne_model(*COMMON, contrast=0.3)
    assert "contrast = 0.3 is not used: the parameter space samples it" in caplog.text
    model.get_heterodyne_model(*COMMON[:-1], SPACE.fix("offset"), offset=1.1)
    assert "offset is held at the argument, 1.1, not at the value" in caplog.text


def test_sigma_has_the_documented_prior():
    arguments = {**pooled(), "space": SPACE, "num_shards": 9}
    width = SIGMA * 1.5 * 3.0
    for function, fixed in XPCS.values():
        sigma = sampled(function, (), arguments | fixed)["sigma"]
        assert isinstance(sigma, dist.HalfNormal)
        assert float(sigma.scale) == pytest.approx(width)
    builders = [
        (model.get_heterodyne_model, ()),
        (model.get_heterodyne_model_reparam, ()),
        (model.get_heterodyne_model_constant, (0.2, 1.0)),
        (model.get_heterodyne_model_constant_averaged, (0.2, 1.0)),
        (model.get_heterodyne_model_individual, ()),
    ]
    for builder, extra in builders:
        sigma = sampled(builder(*COMMON, *extra, num_shards=9))["sigma"]
        assert float(sigma.scale) == pytest.approx(width)


def test_priors_are_those_of_the_space_unless_replaced(caplog):
    given = {"beta": dist.Uniform(-1.0, 1.0), "f2": dist.Normal(0.0, 3.0)}
    sites = sampled(model.get_heterodyne_model(*COMMON, priors_override=given))
    assert sites["beta"] is given["beta"]
    assert sites["f2"] is given["f2"]
    for name, value in (("D0_ref", 3e4), ("alpha_ref", 0.4), ("contrast", 0.2)):
        expected = log_prior(SPACE, name, value)
        np.testing.assert_allclose(sites[name].log_prob(value), expected, rtol=1e-12)
    with pytest.raises(ConfigError, match=r"unknown parameter 'btea' \(did you mean 'beta'\?\)"):
        model.get_heterodyne_model(*COMMON, priors_override={"btea": given["beta"]})
    assert not caplog.records
    model.get_heterodyne_model(*COMMON[:-1], SPACE.fix("f2"), priors_override=given)
    assert "f2 is fixed, and its prior is not used" in caplog.text


MODES = {
    "auto": (model.get_heterodyne_model, {}),
    "averaged": (model.get_heterodyne_model, {}),
    "constant": (model.get_heterodyne_model_constant, FIXED),
    "constant_averaged": (
        model.get_heterodyne_model_constant_averaged,
        {"mean_contrast": 0.2, "mean_offset": 1.0},
    ),
    "individual": (model.get_heterodyne_model_individual, {"phi_angles": PHI}),
    "scaled": (
        model.get_heterodyne_model_individual,
        {"phi_angles": PHI, "offset_prior_scale": 0.1},
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_chooses_its_model(mode):
    builder, extra = MODES[mode]
    common = (*COMMON[:-1], small_space())
    chosen = model.get_model_for_mode(mode, *common, num_shards=2, **extra)
    own = {n: v for n, v in extra.items() if n != "phi_angles"}
    direct = builder(*common, num_shards=2, **own)
    at = somewhere(direct)
    np.testing.assert_allclose(density_of(chosen)(at), density_of(direct)(at), rtol=1e-12)


def test_a_mode_with_a_reference_time_counts_from_the_fit(caplog):
    fit = NLSQResult(
        parameters=np.array([3e4, 0.3]),
        parameter_names=("D0_ref", "alpha_ref"),
        uncertainties=None,
        covariance=None,
        success=True,
        fixed_parameters={"v0": 700.0},
    )
    settings = {"nlsq_result": fit, "reparam_config": ReparamConfig(t_ref=0.5)}
    built = model.get_model_for_mode("auto", *COMMON, **settings)
    zeros = dict.fromkeys(site_names(built), 0.0) | {"sigma": SIGMA}
    trace = handlers.trace(handlers.substitute(built, zeros)).get_trace()
    found = {n: float(trace[n]["value"]) for n in ("D0_ref", "alpha_ref", "v0", "D0_sample")}
    expected = {"D0_ref": 3e4, "alpha_ref": 0.3, "v0": 700.0, "D0_sample": START["D0_sample"]}
    assert found == pytest.approx(expected)
    assert not caplog.records
    model.get_model_for_mode("constant", *COMMON, **settings, **FIXED)
    assert "nlsq_result is not used" in caplog.text
    assert "reparam_config is not used" in caplog.text


def test_unknown_modes_are_refused():
    message = r"unknown scaling mode 'individul' \(did you mean 'individual'\?\)\. Allowed: .*auto"
    with pytest.raises(ConfigError, match=message):
        model.get_model_for_mode("individul", *COMMON)
    with pytest.raises(ConfigError, match=message):
        model.get_heterodyne_pooled_model_for_mode("individul", **pooled(), space=SPACE)
    with pytest.raises(ConfigError, match=message):
        model.get_model_param_count(3, "individul")


@pytest.mark.parametrize("mode", ["constant", "constant_averaged", "individual"])
def test_what_a_mode_needs_must_be_given(mode):
    names = " and ".join(n for n in MODES[mode][1] if n != "offset_prior_scale")
    with pytest.raises(ConfigError, match=f"{names} must be given"):
        model.get_model_for_mode(mode, *COMMON)


@pytest.mark.parametrize("mode", ["constant", "constant_averaged"])
def test_pooled_modes_need_contrast_and_offset(mode):
    with pytest.raises(ConfigError, match=r"fixed_contrast: the mode .* needs the contrast"):
        model.get_heterodyne_pooled_model_for_mode(mode, **pooled(), space=SPACE, fixed_offset=1.0)


def test_pooled_modes_that_sample_do_not_use_given_values(caplog):
    built = model.get_heterodyne_pooled_model_for_mode("auto", **pooled(), space=SPACE, **FIXED)
    assert "contrast" in site_names(built)
    assert "fixed_contrast is not used: the mode averaged samples the contrast" in caplog.text


def test_points_that_are_left_out_are_logged(caplog):
    with caplog.at_level(logging.INFO):
        model.get_heterodyne_pooled_model_for_mode("auto", **pooled(t=FROM_ZERO), space=SPACE)
    # The diagonal, and the row and column of t = 0, at three angles.
    assert f"{3 * (N + 2 * (N - 1))} of {3 * N * N} points" in caplog.text


def changed(c2):
    matrix = C2.copy()
    matrix[1, 2, 5] = c2
    return matrix


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"c2_data": C2[0]}, r"c2_data: the shape is \(20, 20\) for 3 angles and 20 times"),
        ({"c2_data": C2[:, 0]}, r"Allowed: two-time matrices, \(20, 20\) for one angle"),
        ({"c2_data": changed(7.0)}, "the halves of .* differ"),
        ({"c2_data": changed(np.nan)}, "not finite in frames 3"),
        ({"phi_angle": [0.0, np.nan, 1.0]}, "phi: 1 of 3 values are not finite"),
        ({"dt": 0.2}, "not spaced by dt = 0.2 s"),
        ({"q": -1.0}, "q = -1.0 1/Å"),
        ({"noise_scale": 0.0}, "noise_scale: 0. Allowed: finite, > 0"),
        ({"noise_scale": np.nan}, "noise_scale: nan"),
        ({"num_shards": 0}, "num_shards: .* 0"),
        ({"contrast": np.ones(2)}, r"contrast: \[1. 1.\] for 1 angles"),
        ({"offset": np.inf}, "offset: inf"),
    ],
)
def test_what_cannot_be_modelled_is_refused(changes, message):
    names = ("t", "q", "dt", "phi_angle", "c2_data", "noise_scale", "space")
    with pytest.raises((ConfigError, DataError), match=message):
        model.get_heterodyne_model(**dict(zip(names, COMMON, strict=True)) | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": C2}, r"data: the shape is \(3, 20, 20\). Allowed: \(n_total,\)"),
        ({"data": np.full(3 * N * N, np.nan)}, "data: 1140 of 1140 values are not finite"),
        ({"phi_indices": np.zeros(4, int)}, r"phi_indices: the shape is \(4,\)"),
        ({"phi_indices": pooled()["phi_indices"] + 1}, "phi_indices: index 3. Allowed: 0 to 2"),
        ({"i1_indices": pooled()["i1_indices"] - 1}, "i1_indices: index -1. Allowed: 0 to 19"),
        ({"i2_indices": pooled()["i2_indices"] * 1.0}, "i2_indices: the type is float64"),
        ({"i2_indices": pooled()["i1_indices"]}, "none of 1200 points is left to fit"),
        ({"fixed_contrast": np.ones(2)}, r"fixed_contrast: \[1. 1.\] for 3 angles"),
    ],
)
def test_points_that_cannot_be_modelled_are_refused(changes, message):
    arguments = {**pooled(), "space": SPACE, **FIXED} | changes
    with pytest.raises((ConfigError, DataError), match=message):
        model.get_heterodyne_pooled_model_for_mode("constant", **arguments)


def test_points_that_jax_traces_are_refused():
    arguments = {**pooled(), "space": SPACE}

    @jax.jit
    def density(indices):
        return density_of(
            model.xpcs_model_heterodyne_averaged, (), arguments | {"i1_indices": indices}
        )(values_of("averaged", 0))

    with pytest.raises(DataError, match="i1_indices: the array is traced by JAX"):
        density(arguments["i1_indices"])


@pytest.mark.parametrize(
    ("grid", "values", "phi", "message"),
    [
        (ShardGrid(T, [0, 1], [2, 3]), [1.0, 1.0, 1.0], 0.0, r"c2_data: the shape is \(3,\)"),
        (ShardGrid(T[:-1], [0, 1], [2, 3]), [1.0, 1.0], 0.0, "the grid has 19 frame times"),
        (ShardGrid(T + 1.0, [0, 1], [2, 3]), [1.0, 1.0], 0.0, "not the 20 of t"),
        (ShardGrid(T, [0, 1], [2, 3]), [1.0, 1.0], PHI, "1 grids and 1 rows of data for 3 angles"),
    ],
)
def test_grids_that_do_not_match_are_refused(grid, values, phi, message):
    grid = grid._replace(i1=np.array(grid.i1), i2=np.array(grid.i2))
    with pytest.raises(DataError, match=message):
        model.get_heterodyne_model(T, Q, DT, phi, values, SIGMA, SPACE, shard_grid=grid)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contrast_prior_scale": 0.0}, "contrast_prior_scale: 0.0. Allowed: finite, > 0"),
        ({"offset_prior_loc": [1.0, 1.0]}, r"offset_prior_loc: .* for 3 angles"),
    ],
)
def test_priors_per_angle_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        model.get_heterodyne_model_individual(*COMMON, **changes)


@cache
def picklable():
    grid = precompute_shard_grid(T, T[:-3], T[3:])
    listed = C2[0][np.arange(N - 3), np.arange(3, N)]
    space = small_space()
    override = {"alpha_ref": dist.Normal(0.0, 1.0)}
    one_angle = (T, Q, DT, 0.0, listed, SIGMA, space)
    return {
        **models_of_matrices(space),
        "override": model.get_heterodyne_model(*COMMON[:-1], space, priors_override=override),
        "listed": model.get_heterodyne_model(*one_angle, shard_grid=grid),
        "pooled": model.get_heterodyne_pooled_model_for_mode("scaled", **pooled(), space=space),
    }


@pytest.mark.parametrize("name", [*models_of_matrices(SPACE), "override", "listed", "pooled"])
def test_models_can_be_pickled(name):
    built = picklable()[name]
    copy = pickle.loads(pickle.dumps(built))
    at = somewhere(built)
    found = float(density_of(copy)(at))
    assert np.isfinite(found)
    assert found == float(density_of(built)(at))


@pytest.mark.slow
def test_numpyro_takes_the_pooled_models_with_arguments():
    arguments = {**pooled(UPPER), "space": small_space().fix("alpha_ref"), **FIXED}
    start = init_to_value(values={"v0": START["v0"], "sigma": SIGMA})
    kernel = NUTS(model.xpcs_model_heterodyne_constant, init_strategy=start, max_tree_depth=5)
    mcmc = MCMC(kernel, num_warmup=150, num_samples=150, progress_bar=False)
    mcmc.run(jax.random.key(1), **arguments)
    values = np.asarray(mcmc.get_samples()["v0"])
    assert values.std() > 0
    assert abs(values.mean() - START["v0"]) < 4.0 * values.std()


def test_chosen_pairs_can_be_predicted():
    grid, values = grid_of(np.array([[0, 2], [5, 9]]))
    space = SPACE.fix(*SPACE)
    arguments = (T, Q, DT, PHI[0], values, SIGMA, space, CONTRAST[0], OFFSET[0])
    built = model.get_heterodyne_model(*arguments, shard_grid=grid)
    trace = handlers.trace(handlers.seed(built, 0)).get_trace()
    # Errors of the data are SIGMA.
    np.testing.assert_allclose(trace["obs"]["fn"].mean, values, atol=5 * SIGMA)


@pytest.mark.parametrize(
    ("c2", "valid"),
    [
        ([1.0, 1.2], True),
        ([-1.0, 10.0], True),
        ([1.0, -1.001], False),
        ([1.0, 10.001], False),
        ([1.0, np.nan], False),
        ([np.inf, 1.0], False),
        ([], False),
    ],
)
@pytest.mark.parametrize("params", [TRUTH, START], ids=["array", "mapping"])
def test_model_output_is_judged(c2, valid, params, caplog):
    assert model.validate_model_output(np.array(c2), params) is valid
    assert ("20000.0" in caplog.text) is not valid


def test_parameters_are_counted():
    counts = {mode: model.get_model_param_count(3, mode) for mode in MODES}
    assert counts == {
        "auto": 14,
        "averaged": 14,
        "constant": 14,
        "constant_averaged": 14,
        "individual": 20,
        "scaled": 20,
    }
    assert model.get_model_param_count(5) == 24
    for mode in XPCS:
        extra = len(SCALING_SITES[mode]) if mode == "scaled" else 0
        assert model.get_model_param_count(3, mode) == len(PHYSICS) + extra
    with pytest.raises(ConfigError, match="n_phi"):
        model.get_model_param_count(0)
