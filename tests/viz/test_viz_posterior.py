import numpy as np
import pytest
from matplotlib.colors import to_hex
from scipy import stats

from heterodyne.viz import style
from heterodyne.viz.posterior import bands, density, forest, marginals, support_of

RNG = np.random.default_rng(5)


def row(name, unit="Å²/s", corrected=True):
    wide = {"sd": 3.0, "low": 4.0, "high": 16.0} if corrected else None
    return {
        "name": name, "unit": unit, "median": 10.0, "low": 8.0, "high": 12.0, "corrected": wide,
    }  # fmt: skip


def test_density_of_normal_draws_is_the_normal_density():
    grid, height = density(RNG.normal(3.0, 2.0, 40_000), (-9.0, 15.0))
    np.testing.assert_allclose(height, stats.norm.pdf(grid, 3.0, 2.0), atol=0.01)


def test_density_does_not_fall_off_at_a_bound():
    grid, height = density(RNG.uniform(0.0, 1.0, 40_000), (-0.5, 1.5))
    inner = (grid > 0.001) & (grid < 0.999)
    np.testing.assert_allclose(height[inner], 1.0, atol=0.12)
    assert grid.min() == pytest.approx(0.0, abs=1e-3)


def test_density_within_a_narrow_window_keeps_its_scale():
    grid, height = density(RNG.normal(0.0, 1.0, 200_000), (-0.2, 0.2))
    np.testing.assert_allclose(height[1:-1], stats.norm.pdf(grid[1:-1]), atol=0.03)


@pytest.mark.parametrize("seed", range(20))
def test_density_of_few_normal_draws_ends_without_a_step(seed):
    draws = np.random.default_rng(seed).normal(size=250)
    _, height = density(draws, (-5.0, 5.0))
    assert max(height[1], height[-2]) < 0.03


def test_density_stays_within_known_bounds():
    draws, window = RNG.beta(2.0, 2.0, (2, 500)), (-0.5, 1.5)
    assert support_of(draws, window)[0] < 0.0
    low, high = support_of(draws, window, (0.0, 1.0))
    assert 0.0 <= low < high <= 1.0
    for chain in draws:
        grid, height = density(chain, window, (low, high))
        assert (grid[0], grid[-1]) == (low, high)
        assert np.trapezoid(height, grid) == pytest.approx(1.0, abs=0.03)


def test_density_is_not_cut_off_at_the_window():
    draws = RNG.normal(size=4000)
    grid, height = density(draws, (-1.0, 1.0))
    edge = np.interp([-1.0, 1.0], grid, height)
    np.testing.assert_allclose(edge, stats.norm.pdf(1.0), atol=0.04)


def test_density_of_equal_draws_is_empty():
    _, height = density(np.full(100, 2.0), (1.0, 3.0))
    assert not height.any()


def test_each_quantity_has_a_panel_with_its_unit():
    plain = {name: RNG.normal(size=(4, 100)) for name in ("D0_ref", "f0", "v_offset")}
    units = {"D0_ref": "Å²/s^(1+alpha)", "v_offset": "Å/s"}
    figure = marginals(plain, prior=plain, corrected=plain, units=units, truth={"f0": 0.3})
    panels = [axes for axes in figure.axes if axes.get_visible()]
    titles = [axes.get_title(loc="left") for axes in panels]
    assert titles == [r"D0_ref (Å²/s$^{1+\alpha}$)", "f0", "v_offset (Å/s)"]
    assert [len(axes.get_lines()) for axes in panels] == [2, 3, 2]
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["prior", "plain", "corrected for shared speckle noise", "truth"]


def test_window_shows_a_prior_of_like_width_and_zooms_past_a_far_wider_one():
    narrow = {"a": RNG.normal(0.0, 1.0, 4000)}
    near = marginals(narrow, prior={"a": RNG.normal(0.0, 2.0, 4000)}).axes[0].get_xlim()
    far = marginals(narrow, prior={"a": RNG.normal(0.0, 500.0, 4000)}).axes[0].get_xlim()
    assert near[0] < -4.5
    assert near[1] > 4.5
    assert -6.0 < far[0] < far[1] < 6.0


def test_forest_puts_quantities_of_one_kind_into_one_panel():
    rows = [row("J_ref(2 s)"), row("J_ref(5 s)"), row("s(2 s)", ""), row("contrast_10", "")]
    figure = forest(rows, truth={"J_ref(5 s)": 11.0})
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["J_ref (Å²/s)", "s", "contrast"]
    labels = [[text.get_text() for text in axes.get_yticklabels()] for axes in figure.axes]
    assert labels == [["2 s", "5 s"], ["2 s"], ["10"]]


def test_forest_draws_the_intervals_that_were_given():
    lines = forest([row("J_ref(2 s)")]).axes[0].get_lines()
    ends = {to_hex(line.get_color()): list(line.get_xdata()) for line in lines[:2]}
    assert ends[style.CORRECTED.lower()] == [4.0, 16.0]
    assert ends[style.PLAIN.lower()] == [8.0, 12.0]


def test_forest_without_correction_says_nothing_of_one():
    figure = forest([row("J_ref(2 s)", corrected=False)])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["plain"]
    assert len(figure.axes[0].get_lines()) == 2


@pytest.mark.parametrize("corrected", [True, False])
def test_bands_have_a_panel_per_curve_and_never_say_diffusion(corrected):
    t = np.linspace(1.0, 9.0, 20)
    one = np.stack([t, 2 * t, 3 * t])
    curves = {f"{name}_plain": one for name in ("J_ref", "J_sample", "v", "s")}
    if corrected:
        curves |= {f"{name}_corrected": one * [[0.5], [1.0], [2.0]] for name in ("J_ref", "s")}
    figure = bands(t, curves)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [
        "Transport coefficient J, reference (Å²/s)",
        "Transport coefficient J, sample (Å²/s)",
        "Velocity v (Å/s)",
        "Sample fraction s",
    ]
    assert [len(axes.collections) for axes in figure.axes] == (
        [2, 1, 1, 2] if corrected else [1] * 4
    )
    np.testing.assert_array_equal(figure.axes[0].get_lines()[0].get_ydata(), 2 * t)


def test_bands_over_many_decades_are_logarithmic():
    t = np.linspace(1.0, 9.0, 20)
    wide = np.stack([t, 10 * t, 100 * t])
    curves = {"J_ref_plain": wide, "v_plain": wide - 50.0}
    scales = [axes.get_yscale() for axes in bands(t, curves).axes if axes.get_visible()]
    assert scales == ["log", "linear"]
