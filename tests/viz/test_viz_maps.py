import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heterodyne.viz.maps import angle_text, robust_limits, symmetric_limit, two_time_maps
from heterodyne.viz.thin import block_means


def matrices(n=3, N=40, seed=0):
    rng = np.random.default_rng(seed)
    t = 0.5 * np.arange(1, N + 1)
    lag = np.abs(t[:, None] - t)
    noise = 0.01 * rng.normal(size=(n, N, N))
    return 1 + 0.2 * np.exp(-lag) + noise + noise.swapaxes(1, 2), t


def direct_block_means(matrix, size):
    """Means over explicit lists of pairs."""
    N = len(matrix)
    step = -(-N // size)
    blocks = [range(k, min(k + step, N)) for k in range(0, N, step)]
    means = np.empty((len(blocks), len(blocks)))
    for a, rows in enumerate(blocks):
        for b, columns in enumerate(blocks):
            pairs = [matrix[i, j] for i in rows for j in columns if step == 1 or i != j]
            finite = [x for x in pairs if np.isfinite(x)]
            means[a, b] = np.mean(finite) if finite else np.nan
    return means


@given(st.integers(2, 30), st.integers(1, 30), st.integers(0, 5))
def test_thinning_agrees_with_means_over_listed_pairs(N, size, holes):
    rng = np.random.default_rng(N * size)
    matrix = rng.normal(size=(N, N))
    matrix[rng.integers(0, N, holes), rng.integers(0, N, holes)] = np.nan
    thinned, times = block_means(matrix[None], np.arange(1.0, N + 1), size)
    assert len(times) <= size
    np.testing.assert_allclose(thinned[0], direct_block_means(matrix, size), atol=1e-12)


def test_thinned_times_are_the_means_of_their_blocks():
    _, times = block_means(np.ones((1, 7, 7)), np.arange(1.0, 8.0), 3)
    np.testing.assert_allclose(times, [2.0, 5.0, 7.0])


def test_thinning_leaves_the_input_alone():
    c2, t = matrices(1, 8)
    thinned, _ = block_means(c2, t)
    thinned[:] = 0.0
    assert c2.min() > 0.5


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 13, 24])
def test_every_angle_has_a_map_on_one_scale(n):
    c2, t = matrices(n, 12)
    phi = np.linspace(-170.0, 160.0, n)
    figure = two_time_maps(c2, t, phi, 0.0054)
    panels = [axes for axes in figure.axes if axes.get_visible() and axes.get_images()]
    maps = [axes.get_images()[0] for axes in panels]
    assert len(maps) == n
    assert {image.get_clim() for image in maps} == {robust_limits(c2)}
    assert [axes.get_title(loc="left") for axes in panels] == [angle_text(p) for p in phi]
    assert "0.0054 1/Å" in figure.get_suptitle()


def test_more_angles_than_fit_are_counted_in_the_title():
    c2, t = matrices(25, 6)
    figure = two_time_maps(c2, t, np.arange(25.0), title="Run 4")
    assert sum(bool(axes.get_images()) for axes in figure.axes) == 24
    assert figure.get_suptitle() == "Run 4, first 24 of 25 angles"


def test_axes_are_times_in_seconds_with_pixels_around_them():
    c2, t = matrices(1, 10)
    panel = two_time_maps(c2, t, [0.0]).axes[0]
    np.testing.assert_allclose(panel.get_images()[0].get_extent(), [0.25, 5.25, 0.25, 5.25])
    assert panel.get_xlabel() == "t1 (s)"
    assert panel.get_ylabel() == "t2 (s)"


def test_large_matrices_are_thinned_for_the_picture():
    c2, t = matrices(1, 600)
    image = two_time_maps(c2, t, [0.0]).axes[0].get_images()[0]
    assert image.get_array().shape == (200, 200)


def test_scale_ignores_the_diagonal_and_holes():
    c2, _ = matrices(2, 30)
    expected = robust_limits(c2)
    raised = c2 + 50.0 * np.eye(30)
    raised[0, 3, 4] = np.inf
    assert robust_limits(raised) == pytest.approx(expected, abs=0.01)
    assert robust_limits(np.full((1, 4, 4), np.nan)) == (0.0, 1.0)
    low, high = robust_limits(np.ones((1, 4, 4)))
    assert low < 1.0 < high


def test_residual_scale_is_a_robust_magnitude():
    residual = np.full((1, 20, 20), -0.5)
    residual[0, 0, 0] = 40.0
    residual[0, 1, 1] = np.nan
    assert symmetric_limit(residual) == 0.5
    assert symmetric_limit(np.full((1, 2, 2), np.nan)) == 1.0


@pytest.mark.parametrize(
    ("phi", "text"),
    [(-30.0, "φ = −30°"), (22.52, "φ = 22.5°"), (np.nan, "no angle")],
)
def test_angles_are_named(phi, text):
    assert angle_text(phi) == text
