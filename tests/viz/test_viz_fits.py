import numpy as np
import pytest

from heterodyne.viz.fits import age_cut, fit_cuts, fit_maps


def arrays(n=2, M=50):
    rng = np.random.default_rng(1)
    t = 0.1 * np.arange(1, M + 1)
    lag = np.abs(t[:, None] - t)
    model = np.broadcast_to(1 + 0.2 * np.exp(-lag), (n, M, M)).copy()
    residual = 0.01 * rng.normal(size=model.shape)
    measured = model + residual
    residual[:, np.arange(M), np.arange(M)] = np.nan
    return measured, model, residual, t, np.linspace(0, 90, n)


def test_each_angle_has_measured_model_and_residual():
    measured, model, residual, t, phi = arrays()
    figure = fit_maps(measured, model, residual, t, phi)
    images = [axes.get_images()[0] for axes in figure.axes if axes.get_images()]
    assert len(images) == 6
    for k, (shown_data, shown_model, shown_rest) in enumerate(
        images[3 * i : 3 * i + 3] for i in range(2)
    ):
        np.testing.assert_array_equal(shown_data.get_array(), measured[k])
        np.testing.assert_array_equal(shown_model.get_array(), model[k])
        assert shown_data.get_clim() == shown_model.get_clim()
        low, high = shown_rest.get_clim()
        assert low == -high
        assert 0.02 < high < 0.03
        assert shown_rest.get_array().mask.sum() == len(t)


def test_scales_can_be_given():
    figure = fit_maps(*arrays(1), limits=(0.0, 2.0), residual_limit=0.5)
    images = [axes.get_images()[0] for axes in figure.axes if axes.get_images()]
    assert [image.get_clim() for image in images] == [(0.0, 2.0), (0.0, 2.0), (-0.5, 0.5)]


def test_cut_at_one_age_is_the_closed_form_of_a_stationary_matrix():
    _, model, _, t, _ = arrays(1)
    lags, means = age_cut(model[0], t, 5)
    np.testing.assert_allclose(means, 1 + 0.2 * np.exp(-lags))
    assert lags[0] == pytest.approx(0.1)


def test_cut_follows_the_age():
    t = np.arange(1.0, 21.0)
    ageing = np.minimum(t[:, None], t)
    _, early = age_cut(ageing, t, 2)
    _, late = age_cut(ageing, t, 14)
    assert set(early) == {3.0}
    assert set(late) == {15.0}


def test_cut_skips_frames_that_were_not_fitted():
    _, model, _, t, _ = arrays(1)
    holes = model[0].copy()
    holes[:, 9] = holes[9, :] = np.nan
    lags, means = age_cut(holes, t, 5)
    known = np.isfinite(means)
    assert known.sum() >= len(lags) - 1
    np.testing.assert_allclose(means[known], 1 + 0.2 * np.exp(-lags[known]))


def test_cuts_show_the_points_and_the_line_that_were_given():
    measured, model, residual, t, _ = arrays(1)
    lags = t - t[0]
    mean = np.array([np.diagonal(measured[0], k).mean() for k in range(len(t))])
    line = 1 + 0.2 * np.exp(-lags)
    figure = fit_cuts(measured[0], model[0], residual[0], t, lags, mean, line, 12.0)
    over_lag, at_ages, histogram = figure.axes
    points, curve = over_lag.get_lines()
    np.testing.assert_array_equal(points.get_ydata(), mean[1:])
    np.testing.assert_array_equal(curve.get_ydata(), line[1:])
    assert over_lag.get_xscale() == "log"
    assert len(at_ages.get_lines()) == 6
    normal = histogram.get_lines()[0]
    area = np.trapezoid(normal.get_ydata(), normal.get_xdata())
    assert area == pytest.approx(1.0, abs=1e-3)
    assert normal.get_ydata().max() == pytest.approx(1 / (0.01 * np.sqrt(2 * np.pi)), rel=0.1)


def test_many_lags_are_drawn_by_few_points_and_a_whole_line():
    measured, model, residual, t, _ = arrays(1)
    lags = np.arange(1.0, 2001.0)
    c2 = 1 + 1 / lags
    figure = fit_cuts(measured[0], model[0], residual[0], t, lags, c2, c2, 0.0)
    points, curve = figure.axes[0].get_lines()
    assert len(points.get_xdata()) <= 120
    assert {1.0, 2000.0} <= set(points.get_xdata())
    assert len(curve.get_xdata()) == 2000


def test_a_residual_without_values_leaves_an_empty_histogram():
    measured, model, residual, t, _ = arrays(1)
    empty = np.full_like(residual[0], np.nan)
    figure = fit_cuts(measured[0], model[0], empty, t, t, t, t, 0.0)
    assert figure.axes[2].get_lines()[:] == []
