import pytest

from heterodyne.optimization import _score_noise, cost
from heterodyne.optimization.cost import Rates, predict

RATES = Rates(
    compile_s=10.0,
    search_s=1.0,
    search_s_per_pair=0.001,
    polish_s_per_pair=1e-6,
    point_s=0.001,
    point_s_per_pair=1e-8,
    points=1000,
    gradient_s=0.01,
    gradient_s_per_pair=1e-6,
    gradients_per_draw=20.0,
    draws=50,
    passes=2,
)


def test_pairs_are_those_above_the_diagonal():
    assert predict(4, 3, 14).n_pairs == 3 * 6


def test_time_of_the_fit_is_compilation_search_on_averages_and_polish():
    few = predict(100, 2, 14, rates=RATES).fit_s
    assert few == pytest.approx(10.0 + 1.0 + 0.001 * 100**2)
    many = predict(1001, 2, 7, rates=RATES).fit_s
    assert many == pytest.approx(10.0 + 0.5 * (1.0 + 0.001 * 256**2) + 1e-6 * 1001 * 1000)


def test_time_of_sampling_is_that_of_points_or_of_gradients():
    pairs = 1001 * 1000
    points = predict(1001, 2, 14, 4, 25, rates=RATES).sampling_s
    assert points == pytest.approx(2 * 1000 * (0.001 + 1e-8 * pairs))
    nuts = predict(1001, 2, 14, 4, 25, nuts=True, rates=RATES).sampling_s
    assert nuts == pytest.approx(2 * 100 * 20 * (0.01 + 1e-6 * pairs))


def test_passes_mostly_end_before_the_largest_number_of_draws():
    few, many = (predict(100, 1, 14, 4, n, nuts=True, rates=RATES).sampling_s for n in (50, 5000))
    assert few == many > 0


def test_a_fit_alone_draws_nothing():
    assert predict(100, 1, 14).sampling_s == 0.0


def test_memory_grows_by_the_packed_pairs_the_weights_and_the_copies_of_the_reader():
    """Above the frames up to which matrices are multiplied for the noise of the score."""
    size = 3 * 3000**2 * 8
    empty = predict(0, 0, 14).memory_bytes
    assert predict(3000, 3, 14).memory_bytes - empty == pytest.approx(size * 1.5)
    assert predict(3000, 3, 14, weighted=True).memory_bytes - empty == pytest.approx(size * 2)


@pytest.mark.parametrize(("n_parameters", "products"), [(14, 16), (5, 7), (0, 16)])
def test_memory_has_room_for_the_matrices_of_one_angle(n_parameters, products):
    one, exact = 2000**2 * 8, predict(2000, 1, n_parameters).memory_bytes
    rest = predict(0, 0, n_parameters).memory_bytes + 1.5 * one
    assert exact - rest == pytest.approx((2 * products + 4) * one)
    three = predict(2000, 3, n_parameters).memory_bytes
    assert three - exact == pytest.approx(2 * 1.5 * one)


def test_matrices_are_multiplied_for_as_many_frames_as_memory_is_predicted_for():
    assert cost._EXACT_FRAMES == _score_noise._EXACT_FRAMES
