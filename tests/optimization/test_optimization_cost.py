import pytest

from heterodyne.optimization.cost import Rates, predict

RATES = Rates(
    compile_s=10.0,
    search_s=1.0,
    search_s_per_pair=0.0,
    gradient_s=0.01,
    gradient_s_per_pair=1e-6,
    gradients_per_draw=20.0,
    draws=50,
    passes=2,
)


def test_pairs_are_those_above_the_diagonal():
    assert predict(4, 3, 14).n_pairs == 3 * 6


def test_time_is_compilation_search_and_gradients():
    cost = predict(1001, 2, 14, 4, 25, rates=RATES)
    assert cost.fit_s == pytest.approx(11.0)
    assert cost.sampling_s == pytest.approx(2 * 100 * 20 * (0.01 + 1e-6 * 1001 * 1000))


def test_passes_mostly_end_before_the_largest_number_of_draws():
    few, many = (predict(100, 1, 14, 4, n, rates=RATES).sampling_s for n in (50, 5000))
    assert few == many > 0


def test_a_fit_alone_draws_nothing():
    assert predict(100, 1, 14).sampling_s == 0.0


def test_memory_grows_by_the_packed_pairs_the_weights_and_the_copies_of_the_reader():
    size = 3 * 1000**2 * 8
    empty = predict(0, 0, 14).memory_bytes
    assert predict(1000, 3, 14).memory_bytes - empty == pytest.approx(size * 3.5)
    assert predict(1000, 3, 14, weighted=True).memory_bytes - empty == pytest.approx(size * 4)
