"""Traces that later processes take over; a new object stands for a new process."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heterodyne.config.parameter_space import ParameterSpace
from heterodyne.core import kept as module
from heterodyne.core._jax import RUNS_ONCE, jax, jnp
from heterodyne.core.ahead import compile_ahead
from heterodyne.core.kept import Kept, kept
from heterodyne.optimization.coordinates.physics import PhysicsCoordinates
from heterodyne.optimization.posterior import Posterior, Unknowns
from heterodyne.optimization.scaling import Scaling, ScalingMode

X = np.array([0.3, 1.7, 2.9])


@pytest.fixture
def folder(tmp_path):
    """Folder of compiled code, where traces are kept, too."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield tmp_path / "traces"
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture
def powers():
    """Makes the same function anew, and counts how often it is traced."""
    traced = []

    def power(x, exponent=2.0, *, shift):
        traced.append(exponent)
        return jnp.sin(x) ** exponent + shift["by"]

    def made(**options):
        return kept("exponent", **options)(power)

    made.function, made.traced = power, traced
    return made


def test_the_second_process_does_not_trace(folder, powers):
    first, second = powers(), powers()
    expected = jax.jit(powers.function, static_argnames="exponent")(X, 3.0, shift={"by": 0.5})
    powers.traced.clear()
    found = [f(X, exponent=3.0, shift={"by": 0.5}) for f in (first, first, second, second)]
    assert powers.traced == [3.0]
    assert len([*folder.iterdir()]) == 1
    for each in found:
        np.testing.assert_array_equal(each, expected)


@pytest.mark.parametrize(
    "other",
    [
        ((X,), {"exponent": 2.5, "shift": {"by": 0.5}}),
        ((X[:2],), {"shift": {"by": 0.5}}),
        ((X.astype(np.float32),), {"shift": {"by": 0.5}}),
        ((X,), {"shift": {"by": X}}),
        ((X,), {"shift": {"by": 0.5, "more": 1.0}}),
    ],
)
def test_what_the_code_depends_on_is_traced_anew(folder, powers, other):
    powers()(X, shift={"by": 0.5})
    args, kwargs = other
    exponent = kwargs.get("exponent", 2.0)
    found = powers()(*args, **kwargs)
    assert powers.traced == [2.0, exponent]
    np.testing.assert_allclose(
        found, np.sin(args[0]) ** exponent + kwargs["shift"]["by"], rtol=1e-6
    )


def test_values_of_arrays_do_not_matter(folder, powers):
    powers()(X, shift={"by": 0.5})
    found = powers()(2.0 * X, shift={"by": 1.5})
    assert len(powers.traced) == 1
    np.testing.assert_allclose(found, np.sin(2.0 * X) ** 2 + 1.5, rtol=1e-14)


def test_other_source_code_is_traced_anew(folder, powers, monkeypatch):
    powers()(X, shift={"by": 0.5})
    monkeypatch.setattr(module, "_code", lambda: "other code")
    powers()(X, shift={"by": 0.5})
    assert len(powers.traced) == 2


def test_source_code_of_the_package_counts(tmp_path, monkeypatch):
    def code():
        return module._code.__wrapped__()

    here = code()
    assert here == code()
    monkeypatch.setattr(module, "_PACKAGE", tmp_path)
    (tmp_path / "part.py").write_text("x = 1")
    first = code()
    (tmp_path / "part.py").write_text("x = 2")
    assert len({here, first, code()}) == 3


@pytest.mark.parametrize("keep", [0, 10, 40, -1])
def test_a_broken_file_is_replaced(folder, powers, keep):
    expected = powers()(X, shift={"by": 0.5})
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:keep] if keep >= 0 else whole[:-1] + bytes([whole[-1] ^ 1]))
    np.testing.assert_array_equal(powers()(X, shift={"by": 0.5}), expected)
    assert len(powers.traced) == 2
    assert path.read_bytes() != b""
    powers()(X, shift={"by": 0.5})
    assert len(powers.traced) == 2


def test_unknown_static_arguments_are_not_kept(folder):
    class Exponent:
        value = 3.0

    function = kept("exponent")(lambda x, exponent: x**exponent.value)
    np.testing.assert_allclose(function(X, Exponent()), X**3, rtol=1e-14)
    assert not folder.exists()


def test_nothing_is_kept_without_a_folder(powers):
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        found = powers()(X, shift={"by": 0.5})
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    np.testing.assert_allclose(found, np.sin(X) ** 2 + 0.5, rtol=1e-14)


def test_a_folder_that_cannot_be_written_does_no_harm(folder, powers):
    folder.write_text("a file in its place")
    found = powers()(X, shift={"by": 0.5})
    np.testing.assert_allclose(found, np.sin(X) ** 2 + 0.5, rtol=1e-14)
    assert folder.read_text() == "a file in its place"


def test_within_other_traces_it_is_part_of_them(folder, powers):
    power = powers(compiler_options=RUNS_ONCE)
    slopes = jax.vmap(jax.grad(lambda x: power(x, shift={"by": 0.5})))(X)
    np.testing.assert_allclose(slopes, np.sin(2.0 * X), rtol=1e-14)
    assert not folder.exists()


def test_compiling_ahead_is_what_the_call_uses(folder, powers, monkeypatch):
    power = powers()
    compile_ahead(power, np.zeros(3), shift={"by": 1.0}).result()
    monkeypatch.setattr(Kept, "_taken_over", None)
    np.testing.assert_allclose(power(X, shift={"by": 0.5}), np.sin(X) ** 2 + 0.5, rtol=1e-14)
    assert len(powers.traced) == 1


def test_arrays_are_put_together_as_told(folder):
    def map_point(x):
        return Unknowns(x, 2.0 * x, x.sum())

    for _ in range(2):
        found = kept(returns=Unknowns)(map_point)(X)
        assert isinstance(found, Unknowns)
        np.testing.assert_array_equal(found.scaling, 2.0 * X)


def test_errors_are_those_of_the_function(folder):
    @kept()
    def wrong(x):
        raise ValueError("no such point")

    with pytest.raises(ValueError, match="no such point"):
        wrong(X)


def test_the_oldest_files_go(folder, powers, monkeypatch):
    monkeypatch.setattr(module, "_MOST_FILES", 3)
    for k in range(5):
        powers()(X, exponent=float(k), shift={"by": 0.5})
        for path in folder.iterdir():
            os.utime(path, (0, path.stat().st_mtime - 100))
    powers.traced.clear()
    for k in (4, 3, 2):
        powers()(X, exponent=float(k), shift={"by": 0.5})
    assert not powers.traced
    assert len([*folder.iterdir()]) == 3


def test_a_posterior_is_described():
    space = ParameterSpace()
    scaling = Scaling.of(ScalingMode.INDIVIDUAL, space, 3)

    def text(dt):
        t = dt * np.arange(1.0, 30.0)
        return "".join(module._described(Posterior(PhysicsCoordinates.of(space, t), scaling)))

    assert text(0.1) == text(0.1)
    assert text(0.1) != text(0.1 * (1.0 + 1e-15))


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(allow_nan=False) | st.text("a(',)"),
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text("ab", max_size=2), inner, max_size=2)
    ),
    max_leaves=6,
)


@given(_VALUES, _VALUES)
def test_different_values_have_different_descriptions(a, b):
    """``repr`` tells the values apart, too, types included."""
    same = "".join(module._described(a)) == "".join(module._described(b))
    assert same == (repr(a) == repr(b))
