"""Shards on the package's engine: what is drawn, from what, and what is refused."""

from __future__ import annotations

import logging
import pickle
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpyro.infer.util import log_density
from scipy import stats
from test_cmc_core import ANGLES, DT, FREE, SIGMA, SMALL, N, Q, make_model, simulate

from heterodyne._errors import ConfigError, DataError, SamplingError
from heterodyne.config.cmc import CMCConfig
from heterodyne.config.parameter_names import PHYSICS_PARAM_NAMES
from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core._jax import jnp
from heterodyne.optimization.bind import charts_of
from heterodyne.optimization.cmc._inputs import with_priors
from heterodyne.optimization.cmc.backends import _joint, _shard_engine, _shards
from heterodyne.optimization.cmc.backends import multiprocessing as backend
from heterodyne.optimization.cmc.backends._dispatch import Finished
from heterodyne.optimization.cmc.backends._schedule import Outcome
from heterodyne.optimization.cmc.backends._shard_engine import matrix_pairs, pooled_pairs
from heterodyne.optimization.cmc.backends._workers import attempt
from heterodyne.optimization.cmc.backends.base import combine_shard_samples
from heterodyne.optimization.cmc.backends.multiprocessing import (
    MultiprocessingBackend,
    run_joint_pooled_shards_parallel,
)
from heterodyne.optimization.cmc.model import get_heterodyne_pooled_model_for_mode
from heterodyne.optimization.cmc.results import CMCResult
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.posterior import Posterior, Unknowns
from heterodyne.optimization.scaling import Scaling, ScalingMode

LOG = "heterodyne.optimization.cmc"
C2, MODEL = simulate(ANGLES), make_model()
SPACE = MODEL.param_manager
CONFIG = replace(SMALL, min_ess=30, per_angle_mode="individual")
NAMES = [*FREE, "contrast_0", "contrast_1", "offset_0", "offset_1"]


def labels(n_shards, seed=0):
    """Shard of each pair, symmetric, shape (n_angles, N, N)."""
    drawn = np.triu(np.random.default_rng(seed).integers(0, n_shards, C2.shape), 1)
    return drawn + drawn.swapaxes(1, 2)


SHARD = labels(2)


def shard(k=0, **changes):
    """One of two shards as ``run_shards`` takes them."""
    arrays = {"c2_data": C2, "t": MODEL.t, "weights": (k == SHARD).astype(float)}
    numbers = {"q": Q, "dt": DT, "phi_angle": ANGLES, "noise_scale": SIGMA}
    given = arrays | numbers | changes
    return {key: value for key, value in given.items() if value is not None}


def payload(k=0, **changes):
    """The same shard as points in a row."""
    angle, i, j = (x[k == SHARD] for x in np.indices(C2.shape))
    points = {
        "data": C2[k == SHARD],
        "t": MODEL.t,
        "q": Q,
        "dt": DT,
        "phi_unique": np.array(ANGLES),
        "phi_indices": angle,
        "i1_indices": i,
        "i2_indices": j,
        "noise_scale": SIGMA,
        "space": SPACE,
    }
    return points | {"config": CONFIG, "per_angle_mode": "individual", "num_shards": 2} | changes


def here(tasks, costs, job, **how):
    """Do what ``dispatch`` does, in this process."""
    found = []
    for task in tasks:
        answer = attempt(job.work, pickle.loads(pickle.dumps(task)), **job.arguments)
        problem = answer.problem
        if problem is None:
            answer = answer._replace(value=pickle.loads(pickle.dumps(answer.value)))
            problem = how.get("wrong", lambda value: None)(answer.value)
        value = answer.value if problem is None else None
        found.append(Finished(value, Outcome(problem, 1.5, 1), answer.details))
    here.seen = {"costs": costs, "job": job, **how}
    return found


@pytest.fixture
def inline(monkeypatch):
    """Shards are drawn in this process."""
    monkeypatch.setattr(backend, "dispatch", here)
    monkeypatch.setattr(_joint, "dispatch", here)


@cache
def drawn_here():
    """Both shards, drawn in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "dispatch", here)
        run = MultiprocessingBackend(2)
        found = run.run_shards([shard(0), shard(1)], CONFIG, parameter_space=SPACE)
        assert run._shared_mgr is None
        return found


@pytest.fixture
def drawn():
    return drawn_here()


def test_results_hold_what_is_documented(drawn):
    assert [one["shard_idx"] for one in drawn] == [0, 1]
    for k, one in enumerate(drawn):
        assert set(one) == {
            "shard_idx", "samples", "n_chains", "n_samples", "param_names", "extra_fields",
            "duration", "stats",
        }  # fmt: skip
        assert one["param_names"] == NAMES
        assert set(one["samples"]) == {*NAMES, "sigma"}
        shape = (one["n_chains"], one["n_samples"])
        assert shape[0] == 2
        assert shape[1] <= 300
        for x in (*one["samples"].values(), *one["extra_fields"].values()):
            assert x.shape == shape
        assert one["duration"] == 1.5
        assert one["stats"]["num_divergent"] == one["extra_fields"]["diverging"].sum()
        assert one["stats"]["n_pairs"] == np.triu(k == SHARD, 1).sum()
        assert one["stats"]["prior_width"] == pytest.approx(np.sqrt(2))
        assert one["stats"]["noise_scale"] == pytest.approx(SIGMA)
        assert one["stats"]["priors_around_fit"] == []
        assert one["stats"]["problem"] is None


def test_shards_combine_to_the_posterior_of_all_data(drawn):
    """Against the curvature of the least-squares fit of all pairs, at weak priors."""
    truth = {"D0_ref": 8e3, "v0": 300.0, "contrast_0": 0.2, "contrast_1": 0.3}
    combined = combine_shard_samples([one["samples"] for one in drawn])
    for name, value in truth.items():
        x = combined[name]
        widths = [one["samples"][name].std() for one in drawn]
        assert x.std() == pytest.approx(np.sqrt(1 / np.sum(1 / np.square(widths))), rel=0.15)
        assert abs(x.mean() - value) < 4.5 * x.std()
    assert combined["sigma"].mean() == pytest.approx(SIGMA, rel=0.1)


def density(pairs, space, noise_scale, points):
    """Log density of documented parameters under the engine's posterior."""
    scaling = Scaling.of(ScalingMode.INDIVIDUAL, space, pairs.n_angles)
    posterior = Posterior(PhysicsCoordinates.of(space, MODEL.t), scaling)
    found = []
    for point in points:
        values = np.array([point.get(n, space[n].value) for n in PHYSICS_PARAM_NAMES])
        scaling = np.array([point[n] for n in posterior.scaling.names])
        unknowns = Unknowns(jnp.asarray(values), jnp.asarray(scaling), jnp.asarray(point["sigma"]))
        log_prior = posterior.log_prior(unknowns, noise_scale)
        found.append(float(log_prior + posterior.log_likelihood(unknowns, pairs)))
    return np.array(found)


def test_the_density_is_that_of_the_numpyro_model_of_the_shard():
    """Both forms of the pairs against the independent evaluation, pair by pair."""
    points_ = payload(1)
    arguments = {k: v for k, v in points_.items() if k not in ("config", "per_angle_mode")}
    model = get_heterodyne_pooled_model_for_mode("individual", **arguments)
    rng = np.random.default_rng(3)
    centre = {"D0_ref": 8e3, "v0": 300.0, "contrast_0": 0.2, "contrast_1": 0.3}
    centre |= {"offset_0": 1.0, "offset_1": 1.02, "sigma": 0.01}
    points = [{n: x * rng.uniform(0.95, 1.05) for n, x in centre.items()} for _ in range(3)]
    exact = [float(log_density(model, (), {}, point)[0]) for point in points]
    one = shard(1)
    matrices = matrix_pairs(one["c2_data"], one["weights"], MODEL.t, Q, DT, ANGLES)
    names = ("data", "t", "q", "dt", "phi_unique", "phi_indices", "i1_indices", "i2_indices")
    listed = pooled_pairs(**{name: points_[name] for name in names})
    for pairs in (matrices, listed):
        found = density(pairs, SPACE, SIGMA * np.sqrt(2), points)
        np.testing.assert_allclose(np.diff(found), np.diff(exact), rtol=1e-6)


def test_pooled_shards_draw_the_same_as_matrices(inline, drawn):
    found = run_joint_pooled_shards_parallel(
        [payload(0), payload(1, seed=0, data=np.full(payload(1)["data"].shape, np.nan))],
        n_workers=2,
        num_chains=2,
        per_shard_timeout=77,
    )
    assert here.seen["limits"].job == 77
    assert here.seen["limits"].silence == CONFIG.heartbeat_timeout
    good, failed = found
    for name, x in drawn[0]["samples"].items():
        np.testing.assert_allclose(good.samples[name], x, rtol=1e-4)
    assert isinstance(good, CMCResult)
    assert good.parameter_names == NAMES
    assert (good.num_chains, good.num_samples) == drawn[0]["samples"]["v0"].shape
    assert good.posterior_mean[1] == pytest.approx(drawn[0]["samples"]["v0"].mean())
    assert good.convergence_passed
    assert good.convergence_status == "converged"
    assert good.r_hat.max() == pytest.approx(drawn[0]["stats"]["r_hat_max"], abs=0.05)
    assert good.metadata["n_pairs"] == drawn[0]["stats"]["n_pairs"]
    assert good.metadata["shard"] == 0
    # A shard without draws shows no figures, and says why.
    assert failed.parameter_names == []
    assert failed.posterior_mean.size == failed.posterior_std.size == failed.num_samples == 0
    assert failed.samples is None
    assert not failed.convergence_passed
    assert failed.convergence_status == "failed"
    assert failed.metadata["failed"].startswith("DataError: data: ")
    assert "finite" in failed.metadata["traceback"]
    assert str(failed).startswith("No draws: DataError: data: ")


def test_pooled_shards_need_their_arguments(inline):
    def run(one, **how):
        given = {"n_workers": 1, "num_chains": 2} | how
        return run_joint_pooled_shards_parallel([one], **given)

    with pytest.raises(ConfigError, match=r"payloads\[0\].*did you mean 'data'"):
        run(payload(dat=1))
    with pytest.raises(ConfigError, match="q, space missing"):
        run(payload(q=None, space=None))
    with pytest.raises(ConfigError, match="n_workers"):
        run(payload(), n_workers=0)
    with pytest.raises(ConfigError, match="num_chains"):
        run(payload(), num_chains=0)
    with pytest.raises(ConfigError, match="per_shard_timeout"):
        run(payload(), per_shard_timeout=0)
    assert run_joint_pooled_shards_parallel([], n_workers=1, num_chains=2) == []


def settings_of(monkeypatch, given, config=CONFIG, **arguments):
    """Settings and pairs that a worker would draw with, without drawing."""
    seen = []

    def draw_shard(data, settings):
        seen.append((data, settings))
        raise ValueError("enough")

    monkeypatch.setattr(_shards, "draw_shard", draw_shard)
    monkeypatch.setattr(backend, "dispatch", here)
    with pytest.raises(SamplingError, match="ValueError: enough"):
        MultiprocessingBackend(3).run_shards(given, config, **arguments)
    return seen


def test_arguments_reach_the_worker(monkeypatch):
    given = [shard(k) for k in range(2)]
    (_, first), (_, second) = settings_of(
        monkeypatch, given, initial_values={"v0": 250.0}, parameter_space=SPACE
    )
    assert first.space == SPACE.with_values({"v0": 250.0})
    assert first.config == CONFIG
    assert (first.seed, second.seed) == (CONFIG.seed + 1, CONFIG.seed + 2)
    assert first.mode == "individual"
    assert first.noise_scale == SIGMA
    assert first.prior_width == first.sigma_width == pytest.approx(np.sqrt(2))
    (_, default), _ = settings_of(monkeypatch, given)
    assert default.space == ParameterSpace()


def test_start_values_of_a_fit(monkeypatch, caplog):
    fit = {"v0": 250.0, "beta": 0.2}
    ((_, found),) = settings_of(monkeypatch, [shard()], initial_values=fit, parameter_space=SPACE)
    assert found.space == SPACE.with_values({"v0": 250.0})
    assert "initial_values of beta are not used: they do not vary" in caplog.text
    config = replace(CONFIG, use_nlsq_warmstart=False)
    ((_, found),) = settings_of(
        monkeypatch, [shard()], config, initial_values=fit, parameter_space=SPACE
    )
    assert found.space == SPACE
    with pytest.raises(ConfigError, match="require_nlsq_warmstart is true"):
        MultiprocessingBackend(1).run_shards(
            [shard()], replace(CONFIG, require_nlsq_warmstart=True)
        )
    joint = _joint.JointShard(**payload(initial_values=fit)).settings()
    assert joint.space == SPACE.with_values({"v0": 250.0})
    assert joint.prior_width == joint.sigma_width == pytest.approx(np.sqrt(2))


def test_degenerate_start_values_are_refused_before_any_process(monkeypatch, inline, caplog):
    monkeypatch.setattr(backend, "dispatch", lambda *a, **k: pytest.fail("it was dispatched"))
    monkeypatch.setattr(_joint, "dispatch", lambda *a, **k: pytest.fail("it was dispatched"))
    space = ParameterSpace()
    for name, value in (("f0", 0.05), ("alpha_sample", -1.7)):
        said = f"initial_values: the fit has {name} = {value}"
        start = {"initial_values": {name: value}}
        with pytest.raises(RuntimeError, match=said):
            MultiprocessingBackend(1).run_shards([shard()], CONFIG, parameter_space=space, **start)
        with pytest.raises(RuntimeError, match=rf"payloads\[0\], {said}"):
            run_joint_pooled_shards_parallel(
                [payload(space=space, **start)], n_workers=1, num_chains=2
            )


def test_degenerate_start_values_that_are_allowed_are_moved_and_told(monkeypatch, caplog):
    config = replace(CONFIG, allow_degenerate_warmstart=True)
    fit = {"f0": 0.05, "alpha_sample": -1.7, "v0": 250.0}
    ((_, found),) = settings_of(monkeypatch, [shard()], config, initial_values=fit)
    safe = {"f0": 0.2, "alpha_sample": -1.0, "v0": 250.0}
    assert found.space == ParameterSpace().with_values(safe)
    assert caplog.text.count("the search starts at") == 2


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_reparam": False},
        {"reparameterization_d_total": False},
        {"reparameterization_log_gamma": False},
    ],
)
def test_coordinates_of_a_shard_are_those_of_the_configuration(monkeypatch, changes):
    class StopError(Exception):
        pass

    def stop(problem, *args, **kwargs):
        raise StopError(problem.coordinates)

    monkeypatch.setattr(_shard_engine, "fit_scaled", stop)
    config = replace(CONFIG, **changes)
    given = _joint.JointShard(**payload(config=config))
    with pytest.raises(StopError) as caught:
        _shard_engine._fitted(given.pairs(), given.settings())
    times = np.asarray(given.t)
    (found,) = caught.value.args
    widened = with_priors(given.space, config, None, given.settings().prior_width)
    expected = PhysicsCoordinates.of(
        widened, times, charts_of(config), np.asarray(given.phi_unique)
    )
    assert found == expected
    assert (expected == PhysicsCoordinates.of(
        widened, times, phi=np.asarray(given.phi_unique)
    )) is (not changes)  # fmt: skip


@pytest.mark.parametrize(
    ("multiplier", "tempered", "width", "of_sigma"),
    [(1.0, True, 2.0, 2.0), (1.0, False, 1.0, 1.0), (3.0, True, 3.0, 2.0), (3.0, False, 3.0, 1.0)],
)
def test_widths_of_priors(monkeypatch, multiplier, tempered, width, of_sigma):
    """sqrt(4) with tempering, unless another factor is asked for."""
    config = replace(CONFIG, prior_tempering=tempered)
    found = settings_of(monkeypatch, [shard()] * 4, config, prior_width_multiplier=multiplier)
    assert [s.prior_width for _, s in found] == [width] * 4
    assert [s.sigma_width for _, s in found] == [of_sigma] * 4


def test_priors_around_a_fit_only_where_the_configuration_says_so(monkeypatch, caplog):
    fit = {"v0": 290.0, "D0_ref": 7e3}
    literal = replace(CONFIG, use_nlsq_informed_priors="literal")
    given = {"initial_values": fit, "parameter_space": SPACE, "nlsq_prior_width_factor": 3.0}
    errors = {"v0": 5.0}
    with caplog.at_level(logging.INFO, logger=LOG):
        ((_, found),) = settings_of(monkeypatch, [shard()], nlsq_uncertainties=errors, **given)
    assert found.space == SPACE.with_values(fit)
    assert "nlsq_uncertainties are not used" in caplog.text
    ((_, found),) = settings_of(monkeypatch, [shard()], literal, nlsq_uncertainties=errors, **given)
    prior = found.space["v0"].prior
    assert (prior.kind.value, prior.mean, prior.std) == ("normal", 290.0, 15.0)
    assert found.space["D0_ref"].prior == SPACE["D0_ref"].prior
    assert "too small by a factor of 0.949" in caplog.text
    for wrong, factor, said in (
        ({"beta": 1.0}, 2.0, "does not vary or has no initial value"),
        ({"v0": 0.0}, 2.0, "> 0"),
        ({"v0": 1.0}, -2.0, "nlsq_prior_width_factor"),
        (None, 2.0, "there are no errors of one"),
    ):
        with pytest.raises(ConfigError, match=said):
            MultiprocessingBackend(1).run_shards([shard()], literal, fit, SPACE, 1.0, wrong, factor)


def test_what_may_be_left_out_of_a_shard(monkeypatch, caplog):
    one = {"c2_data": C2[0], "q": Q, "dt": DT}
    config = replace(CONFIG, per_angle_mode="auto")
    ((data, found),) = settings_of(monkeypatch, [one], config)
    np.testing.assert_allclose(data.t, DT * np.arange(1.0, N + 1))
    assert "their first frame is taken to be at dt" in caplog.text
    assert np.asarray(data.phi).tolist() == [0.0]
    assert data.weights is None
    assert int(data.n_pairs[0]) == N * (N - 1) // 2
    assert found.noise_scale is None
    # Without dt, times give it; sigma gives the noise, its root mean square.
    sigma = np.full((N, N), 0.02)
    sigma[:, :] += np.where(np.arange(N) % 2, 0.01, -0.01)
    one = {"c2_data": C2[0], "q": Q, "t": 5.0 + DT * np.arange(N), "sigma": sigma}
    ((data, found),) = settings_of(monkeypatch, [one], config)
    assert float(data.dt) == pytest.approx(DT)
    pairs = sigma[np.triu_indices(N, 1)]
    assert found.noise_scale == pytest.approx(np.sqrt(np.mean(pairs**2)))
    with caplog.at_level(logging.INFO, logger=LOG):
        ((_, found),) = settings_of(monkeypatch, [one | {"noise_scale": 0.5}], config)
    assert found.noise_scale == 0.5
    assert "noise_scale takes the place of sigma" in caplog.text


def test_contrast_and_offset_are_held_where_they_are_not_sampled(monkeypatch, caplog):
    given = {"contrast": [0.2, 0.3], "offset": 1.01}
    config = replace(CONFIG, per_angle_mode="constant")
    ((_, found),) = settings_of(monkeypatch, [shard(**given)], config)
    assert (found.contrast, found.offset) == ((0.2, 0.3), (1.01, 1.01))
    fixed = SPACE.fix("offset")
    ((_, found),) = settings_of(monkeypatch, [shard(offset=1.01)], parameter_space=fixed)
    assert found.space["offset"].value == 1.01
    assert not found.space["offset"].vary
    run = MultiprocessingBackend(1).run_shards
    with pytest.raises(ConfigError, match=r"shard 0, offset: .* holds one value"):
        run([shard(offset=[1.0, 1.1])], CONFIG, parameter_space=fixed)
    assert "offset" not in caplog.text
    settings_of(monkeypatch, [shard(contrast=0.2)])
    assert "contrast is sampled, and the values of the shards are not used" in caplog.text


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"c2_data": None}, DataError, "shard 0: there is no c2_data"),
        ({"wieghts": C2}, ConfigError, "did you mean 'weights'"),
        ({"c2_data": C2.ravel()}, DataError, "Put points into a matrix"),
        ({"q": None}, ConfigError, "there is no q"),
        ({"q": -1.0}, ConfigError, "shard 0, q: it is -1"),
        ({"t": None, "dt": None}, DataError, "neither t nor dt"),
        ({"t": np.ones(3)}, DataError, r"\(3,\) times for 30 frames"),
        ({"t": MODEL.t**1.1}, ConfigError, "not spaced by dt"),
        ({"phi_angle": [1.0]}, DataError, "1 values for 2 angles"),
        ({"phi_angle": None}, DataError, "there is no phi_angle"),
        ({"weights": -np.ones(C2.shape)}, DataError, "at least 0"),
        ({"weights": np.ones((N, N))}, DataError, "weights"),
        ({"sigma": 0.0, "noise_scale": None}, ConfigError, "sigma"),
        ({"noise_scale": np.nan}, DataError, "noise_scale"),
    ],
)
def test_shards_that_cannot_be_used_are_refused_before_any_process(changes, error, said):
    with pytest.raises(error, match=said):
        MultiprocessingBackend(1).run_shards([shard(**changes)], CONFIG)


def test_there_must_be_shards_and_settings():
    run = MultiprocessingBackend(1).run_shards
    with pytest.raises(ValueError, match="there is no shard"):
        run([], CONFIG)
    with pytest.raises(ConfigError, match="num_samples"):
        run([shard()], replace(CONFIG, num_samples=0))
    with pytest.raises(ConfigError, match="prior_width_multiplier"):
        run([shard()], CONFIG, prior_width_multiplier=0.0)
    with pytest.raises(ConfigError, match="v1"):
        run([shard()], CONFIG, initial_values={"v1": 1.0})


@pytest.mark.parametrize("name", ["c2_data", "weights"])
def test_halves_that_differ_are_refused(name):
    one = shard()
    one[name] = one[name].copy()
    one[name][0, 3, 7] += 0.5
    with pytest.raises(DataError, match=f"{name}: the halves differ"):
        matrix_pairs(one["c2_data"], one["weights"] + (name == "c2_data"), MODEL.t, Q, DT, ANGLES)


def test_values_without_weight_may_be_missing():
    one = shard()
    holed = np.where(one["weights"] > 0, C2, np.nan)
    found = matrix_pairs(holed, one["weights"], MODEL.t, Q, DT, ANGLES)
    np.testing.assert_allclose(
        found.square, matrix_pairs(C2, one["weights"], MODEL.t, Q, DT, ANGLES).square
    )
    with pytest.raises(DataError, match="finite where the weight is above 0"):
        matrix_pairs(np.full_like(C2, np.nan), one["weights"], MODEL.t, Q, DT, ANGLES)


def outcome(problem, value=None):
    return Finished(value if problem is None else None, Outcome(problem, 2.0, 1))


@pytest.mark.parametrize(
    ("failed", "least", "warning", "raises", "level"),
    [
        (1, 0.9, 0.8, True, None),
        (1, 0.75, 0.8, False, "WARNING"),
        (1, 0.5, 0.5, False, "INFO"),
        (4, 0.0, 0.0, True, None),
        (0, 0.9, 0.8, False, None),
    ],
)
def test_success_rates(monkeypatch, caplog, failed, least, warning, raises, level):
    found = [outcome("worker died" if k < failed else None, {"shard_idx": k}) for k in range(4)]
    monkeypatch.setattr(backend, "dispatch", lambda *tasks, **how: found)
    config = replace(CONFIG, min_success_rate=least, min_success_rate_warning=warning)
    run = MultiprocessingBackend(1)
    with caplog.at_level(logging.INFO, logger=LOG):
        if raises:
            with pytest.raises(RuntimeError, match=f"{failed} of 4 shards failed .shard 0: work"):
                run.run_shards([shard()] * 4, config)
            return
        results = run.run_shards([shard()] * 4, config)
    assert results == [{"shard_idx": k, "duration": 2.0} for k in range(failed, 4)]
    about = [r.levelname for r in caplog.records if "left out" in r.getMessage()]
    assert about == ([] if level is None else [level])


def test_limits_and_costs_go_to_the_schedule(monkeypatch):
    config = replace(CONFIG, per_shard_timeout=70, heartbeat_timeout=8, min_success_rate=0.6)
    small = shard(c2_data=C2[:, :9, :9], t=MODEL.t[:9], weights=None)
    settings_of(monkeypatch, [small, shard()], config, progress_bar=False)
    limits = here.seen["limits"]
    assert (limits.job, limits.silence, limits.least_share) == (70, 8, 0.6)
    assert here.seen["job"].beat == 2.0
    assert here.seen["costs"][0] < here.seen["costs"][1]
    assert here.seen["n_workers"] == 2
    assert here.seen["shown"] is False


def test_draws_that_cannot_be_used_count_as_failed(drawn):
    assert _shards.wrong(drawn[0]) is None
    bad = dict(drawn[0], samples=drawn[0]["samples"] | {"v0": np.full((2, 3), np.nan)})
    assert _shards.wrong(bad) == "draws of v0 are missing or not finite"
    short = dict(drawn[0], n_samples=7)
    assert "are missing" in _shards.wrong(short)


def test_a_shard_that_does_not_converge_fails(inline):
    config = replace(CONFIG, min_ess=10**6)
    with pytest.raises(SamplingError, match=r"shard 0: it did not converge \(R-hat .* of \w+, \d+"):
        MultiprocessingBackend(1).run_shards([shard()], config, parameter_space=SPACE)


def test_priors_of_two_shards_multiply_to_the_prior():
    """On the axis on which it is normal, and on which draws are combined."""
    wide = with_priors(SPACE, CONFIG, None, np.sqrt(2))
    names = ("D0_ref", "v0")
    grid = np.array([[5e3, 100.0], [2e4, 900.0], [9e4, 2000.0]])
    for k, name in enumerate(names):
        p, q = SPACE[name], wide[name]
        logarithmic = p.info.log_space
        x = np.log(grid[:, k]) if logarithmic else grid[:, k]
        one = stats.norm(p.prior.loc, p.prior.scale).logpdf(x)
        two = 2 * stats.norm(q.prior.loc, q.prior.scale).logpdf(x)
        np.testing.assert_allclose(np.diff(two), np.diff(one), rtol=1e-12)
        assert (q.min, q.max) == (p.min, p.max)


def test_results_of_shards_survive_a_pipe(drawn):
    again = pickle.loads(pickle.dumps(drawn[0]))
    np.testing.assert_array_equal(again["samples"]["v0"], drawn[0]["samples"]["v0"])
    assert CMCConfig.from_dict(CONFIG.to_dict()) == CONFIG
    changed = SPACE.with_values({"v0": 123.456789012345}).fix("beta")
    assert ParameterSpace.from_config(_shards.space_as_dict(changed)) == changed
