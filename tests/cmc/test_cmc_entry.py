"""The documented functions beyond the joint fit: what they hand to the engine."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import numpyro.distributions as dist
import pytest
from core_cases import ANGLES, DT, SMALL, N, Q, StopError, fit_result, make_model, simulate

from heterodyne._errors import ConfigError, DataError, SamplingError
from heterodyne.config.cmc import CMCConfig
from heterodyne.config.parameter_space import ParameterSpace, PriorKind
from heterodyne.optimization.cmc import core
from heterodyne.optimization.cmc._analysis import NoiseSettings
from heterodyne.optimization.cmc._inputs import prepared
from heterodyne.optimization.cmc._passes import Keeper
from heterodyne.optimization.cmc.core import (
    CMC_ALPHA_SAFE_ZONE,
    CMC_F0_SAFE_ZONE,
    fit_cmc_jax,
    fit_cmc_multi_phi,
    fit_mcmc_jax,
    run_cmc_analysis,
)
from heterodyne.optimization.cmc.io import load_samples_npz
from heterodyne.optimization.scaling import ScalingMode

LIMITS = {"min_ess": 50}


@pytest.fixture
def handed(monkeypatch):
    """Runs a call up to the fit: returns what it would fit, and in which mode."""

    def stop(problem, mode, on_event, before):
        raise StopError(problem, mode)

    monkeypatch.setattr(core, "fit_scaled", stop)

    def call(function, *args, **kwargs):
        with pytest.raises(StopError) as caught:
            function(*args, **kwargs)
        return caught.value

    return call


def pooled(c2, angles, keep=None):
    """Values one by one, in a random order."""
    t = DT * np.arange(1.0, N + 1.0)
    k, i, j = (x.ravel() for x in np.indices(c2.shape))
    order = np.random.default_rng(0).permutation(k.size)
    order = order[keep(i[order], j[order])] if keep else order
    k, i, j = k[order], i[order], j[order]
    return c2[k, i, j], t[i], t[j], np.asarray(angles)[k]


@pytest.fixture(scope="module")
def one_angle():
    return fit_cmc_jax(make_model(), simulate([15.0])[0], 15.0, replace(SMALL, **LIMITS))


def test_one_angle_has_plain_names(one_angle):
    assert one_angle.parameter_names == ["D0_ref", "v0", "contrast", "offset"]
    assert (one_angle.num_shards, one_angle.metadata["engine"]) == (1, "nuts")
    truth = {"D0_ref": 8e3, "v0": 300.0, "contrast": 0.2, "offset": 1.0}
    for name, true in truth.items():
        at = one_angle.get_param_summary(name)
        assert abs(at["mean"] - true) < 4.5 * at["std"], name


def test_all_forms_of_the_data_give_the_same_posterior(handed):
    """Matrices, one half of them, and pooled values in any order."""
    c2, model = simulate(ANGLES), make_model()
    whole = handed(fit_cmc_multi_phi, model, c2, ANGLES).problem
    half = handed(fit_cmc_multi_phi, model, np.triu(c2), ANGLES).problem
    forms = [half]
    for keep in (None, lambda i, j: i <= j, lambda i, j: i < j):
        at = handed(
            fit_mcmc_jax, *pooled(c2, ANGLES, keep), Q, 2e6, "heterodyne",
            parameter_space=model.param_manager,
        )  # fmt: skip
        assert at.mode is ScalingMode.INDIVIDUAL
        forms.append(at.problem)
    for problem in forms:
        assert problem.n_pairs == whole.n_pairs
        assert problem.coordinates.space == whole.coordinates.space
        np.testing.assert_allclose(problem.data.t, whole.data.t, rtol=1e-12)
        for first, second in zip(problem.data.blocks, whole.data.blocks, strict=True):
            np.testing.assert_allclose(first, second, rtol=1e-12, atol=1e-15)


def test_a_folder_that_cannot_be_made_is_refused_before_the_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(core, "fit_scaled", None)
    blocked = tmp_path / "file"
    blocked.write_text("kept")
    with pytest.raises(ConfigError, match="folder cannot be made"):
        fit_mcmc_jax(*pooled(simulate([15.0]), [15.0]), Q, 2e6, "static", dt=DT, output_dir=blocked)
    assert blocked.read_text() == "kept"


def test_pooled_values_make_the_same_draws_and_files(one_angle, tmp_path):
    folder = tmp_path / "run"
    result = fit_mcmc_jax(
        *pooled(simulate([15.0]), [15.0]), Q, 2e6, "static",
        cmc_config=replace(SMALL, **LIMITS).to_dict(),
        parameter_space=make_model().param_manager,
        dt=DT, output_dir=folder, run_id="first", progress_bar=False,
    )  # fmt: skip
    assert result.parameter_names == one_angle.parameter_names
    np.testing.assert_allclose(result.posterior_mean, one_angle.posterior_mean, rtol=1e-6)
    assert result.metadata["run_id"] == "first"
    assert {file.name for file in folder.iterdir()} == {
        "first_samples.npz",
        "first_parameters.json",
        "first_diagnostics.json",
        "first_posterior.nc",
    }
    kept = load_samples_npz(folder / "first_samples.npz")
    np.testing.assert_array_equal(kept["posterior_samples"], result.get_samples_array())


@pytest.mark.parametrize("method", ["mcmc", "nuts", "cmc"])
@pytest.mark.parametrize(
    ("config", "n_shards", "said"),
    [
        ({"num_shards": 4}, 4, "into 4 shards (random), since num_shards is 4"),
        ({"enable": "always", "num_shards": 2}, 2, "since enable is always"),
        ({"enable": "never", "num_shards": 4}, None, "one pass, since enable is never"),
        ({}, None, "one pass, since they are few"),
    ],
)
def test_the_configuration_decides_on_shards_whatever_the_method(
    monkeypatch, caplog, method, config, n_shards, said
):
    seen = []
    monkeypatch.setattr(core, "_sampled", lambda *a: seen.append(a[-1]))
    values = pooled(simulate([15.0]), [15.0])
    with caplog.at_level(logging.INFO):
        fit_mcmc_jax(*values, Q, 1.0, "static", method=method, cmc_config=CMCConfig(**config))
    assert [None if s is None else s.n_shards for s in seen] == [n_shards]
    assert said in caplog.text


def test_one_angle_of_pooled_values_has_plain_names_too(handed):
    modes = {"auto": ScalingMode.AVERAGED, "constant": ScalingMode.CONSTANT}
    for word, mode in modes.items():
        values = pooled(simulate([15.0]), [15.0])
        at = handed(fit_mcmc_jax, *values, Q, 1.0, "", cmc_config={"per_angle_mode": word})
        assert at.mode is mode


def without_first(c2):
    return tuple(x[1:] for x in pooled(c2, [15.0], lambda i, j: i < j))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: (v[0][:-1], *v[1:]), "as data"),
        (lambda v: (np.where(np.arange(v[0].size) == 7, np.nan, v[0]), *v[1:]), r"position \(7,\)"),
        (lambda v: tuple(np.append(x, x[0]) for x in v), "2 values at t1"),
        (lambda v: (v[0], v[1] + 0.03 * (v[1] > 1.55), *v[2:]), "not a whole number of steps"),
    ],
)
def test_pooled_values_that_fill_no_grid_are_refused(change, said):
    values = change(pooled(simulate([15.0]), [15.0]))
    with pytest.raises(DataError, match=said):
        fit_mcmc_jax(*values, Q, 1.0, "static", dt=DT)


def test_a_missing_pair_is_named():
    values = pooled(simulate([15.0]), [15.0], lambda i, j: (i < j) & ~((i == 2) & (j == 5)))
    with pytest.raises(DataError, match=r"1 pairs of the 30 times are missing, the first at 0\.3"):
        fit_mcmc_jax(*values, Q, 1.0, "static")


def test_arguments_that_nothing_uses_are_refused_or_told(caplog, handed):
    values = pooled(simulate([15.0]), [15.0])
    with pytest.raises(ConfigError, match="unknown arguments sgima"):
        fit_mcmc_jax(*values, Q, 1.0, "static", sgima=3.0)
    with pytest.raises(ConfigError, match="did you mean 'nuts'"):
        fit_mcmc_jax(*values, Q, 1.0, "static", method="nut")
    handed(fit_mcmc_jax, *values, Q, 1.0, "static", nlsq_result={"D0_ref": 1.0})
    assert "nlsq_result is a dictionary and not used" in caplog.text


def space_of(handed, config=None, **kwargs):
    at = handed(fit_cmc_jax, make_model(), simulate([15.0]), 15.0, config, **kwargs)
    return at.problem.coordinates.space


def test_priors_are_replaced_and_widened(handed):
    before = make_model().param_manager
    given = {
        "D0_ref": dist.LogNormal(np.log(2e4), 0.5),
        "v0": dist.TruncatedNormal(500.0, 80.0, low=100.0, high=900.0),
        "contrast": dist.Uniform(0.1, 0.4),
        "offset": dist.Normal(1.1, 0.2),
    }
    space = space_of(handed, priors_override=given)
    for name, distribution in given.items():
        x = np.linspace(*(0.3 * b + 0.7 * space[name].value for b in space.bounds[name]), 5)
        ours, theirs = (
            np.asarray(d.log_prob(x)) for d in (ParameterSpace.priors.fget(
                ParameterSpace({n: replace(p, vary=True) for n, p in space.parameters.items()})
            )[name], distribution)
        )  # fmt: skip
        np.testing.assert_allclose(np.diff(ours), np.diff(theirs), rtol=1e-6, atol=1e-9)
    assert space.bounds["v0"] == (100.0, 900.0)
    wide = space_of(handed, prior_width_multiplier=3.0)
    for name in ("D0_ref", "alpha_ref", "offset"):
        assert wide[name].prior.scale == pytest.approx(3.0 * before[name].prior.scale)
        assert wide[name].prior.loc == pytest.approx(before[name].prior.loc)


def test_priors_around_a_fit_are_replaced_and_widened_too(handed):
    """The factor comes on top of that of the fit, and a given prior takes the place of both."""
    config = CMCConfig(use_nlsq_informed_priors="literal", nlsq_prior_width_factor=2.0)
    fit = replace(
        fit_result(D0_ref=8e3, v0=310.0), uncertainties=np.array([100.0, 5.0]), success=True
    )
    given = {"v0": dist.TruncatedNormal(500.0, 80.0, low=100.0, high=900.0)}
    space = space_of(
        handed, config, nlsq_result=fit, priors_override=given, prior_width_multiplier=3.0
    )
    priors = {name: space[name].prior for name in ("D0_ref", "v0")}
    assert (priors["D0_ref"].mean, priors["D0_ref"].std) == pytest.approx((8e3, 3 * 2 * 100.0))
    assert (priors["v0"].mean, priors["v0"].std) == pytest.approx((500.0, 3 * 80.0))
    assert space["v0"].value == 310.0
    alone = space_of(handed, config, nlsq_result=fit)
    assert alone["v0"].prior.std == pytest.approx(2 * 5.0)


def test_the_verdict_says_how_wide_priors_around_a_fit_are():
    config = CMCConfig(use_nlsq_informed_priors="literal", nlsq_prior_width_factor=2.0)
    fit = replace(fit_result(D0_ref=8e3, v0=310.0), uncertainties=np.array([100.0, 5.0]))
    space, given = make_model().param_manager, {"v0": dist.Normal(0.0, 1.0)}
    _, (note,) = prepared(space, [fit], config, given, 3.0)
    assert note.startswith("The priors but those of v0 are centred on a fit, with 6 of its")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"priors_override": {"D0": dist.Normal(0.0, 1.0)}}, "no parameter 'D0'"),
        ({"priors_override": {"v0": dist.Gamma(2.0, 1.0)}}, "family Gamma"),
        ({"priors_override": {"v0": dist.Uniform(2e4, 3e4)}}, "not below max"),
        ({"prior_width_multiplier": 0.0}, "above 0"),
    ],
)
def test_priors_that_cannot_be_used_are_refused(given, said):
    with pytest.raises(ConfigError, match=said):
        fit_cmc_jax(make_model(), simulate([15.0]), 15.0, SMALL, **given)


def test_prefactors_may_have_normal_priors(handed):
    space = space_of(handed, CMCConfig(use_log_space_priors=False))
    assert space["D0_ref"].prior.kind is PriorKind.NORMAL
    assert space_of(handed)["D0_ref"].prior.kind is PriorKind.LOGNORMAL


def test_times_take_the_place_of_those_of_the_model(handed):
    later = DT * np.arange(11.0, N + 11.0)
    at = handed(fit_cmc_jax, make_model(), simulate([15.0]), 15.0, t_override=later)
    np.testing.assert_array_equal(at.problem.data.t, later)


def free_fraction():
    """A model in which the guarded parameters vary."""
    model = make_model()
    parameters = {
        n: replace(p, vary=p.vary or n in ("f0", "alpha_sample"))
        for n, p in model.param_manager.parameters.items()
    }
    return replace(model, param_manager=ParameterSpace(parameters))


def test_a_degenerate_start_is_moved_and_told(handed, caplog):
    fit = fit_result(f0=0.02, alpha_sample=-2.0)
    with caplog.at_level(logging.WARNING):
        at = handed(fit_cmc_jax, free_fraction(), simulate([15.0]), 15.0, nlsq_result=fit)
    values = at.problem.coordinates.space.values
    assert values["f0"] == CMC_F0_SAFE_ZONE
    assert values["alpha_sample"] == CMC_ALPHA_SAFE_ZONE
    assert caplog.text.count("the search starts at") == 2
    near = fit_result(f0=0.1, alpha_sample=-1.5)
    at = handed(fit_cmc_jax, free_fraction(), simulate([15.0]), 15.0, nlsq_result=near)
    assert at.problem.coordinates.space.values["f0"] == 0.1


def test_a_fit_that_is_required_must_be_there():
    config = CMCConfig(require_nlsq_warmstart=True)
    with pytest.raises(ConfigError, match="require_nlsq_warmstart is true"):
        fit_cmc_jax(make_model(), simulate([15.0]), 15.0, config)


def test_the_convenience_function_passes_everything_on(monkeypatch):
    seen = {}
    monkeypatch.setattr(core, "fit_cmc_jax", lambda *a, **k: seen.update(args=a, kwargs=k))
    run_cmc_analysis("model", "c2", "config", phi_angle=3.0, sigma=0.1)
    assert seen == {
        "args": ("model", "c2"),
        "kwargs": {"config": "config", "phi_angle": 3.0, "sigma": 0.1},
    }


class Diverging:
    """Analyses whose share of divergent draws falls with smaller steps, or does not."""

    def __init__(self, shares):
        self.shares, self.accepts = iter(shares), []

    def __call__(self, fit, c2, config, *args, **kwargs):
        self.accepts.append(config.target_accept_prob)
        share = next(self.shares)
        diagnosis = type("Diagnosis", (), {"divergent_share": share})
        return type("Analysis", (), {"diagnosis": diagnosis})


@pytest.mark.parametrize(
    ("shares", "accepts", "kept"),
    [
        ([0.0], [0.9], 0.0),
        ([0.05], [0.9], 0.05),
        ([0.2, 0.01], [0.9, 0.95], 0.01),
        ([0.2, 0.3, 0.25], [0.9, 0.95, 0.99], 0.2),
    ],
)
def test_divergent_runs_are_repeated_with_smaller_steps(monkeypatch, shares, accepts, kept):
    analyse = Diverging(shares)
    monkeypatch.setattr(core, "analyse", analyse)
    plan = core.Plan(CMCConfig(), NoiseSettings(), None, Keeper())
    found = core._retried(None, None, plan)
    assert analyse.accepts == pytest.approx(accepts)
    assert found.diagnosis.divergent_share == kept


def test_errors_are_of_the_documented_kinds():
    assert issubclass(SamplingError, RuntimeError)
    assert issubclass(ConfigError, ValueError)
    assert issubclass(DataError, ValueError)
