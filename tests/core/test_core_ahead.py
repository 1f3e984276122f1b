"""Compiling ahead against the number of compilations that JAX reports."""

from __future__ import annotations

import sys
from contextlib import contextmanager, redirect_stdout
from functools import partial
from io import StringIO

import numpy as np
import pytest
from jax import monitoring

from heterodyne.core._jax import jax, jnp
from heterodyne.core.ahead import compile_ahead, import_ahead


@contextmanager
def compilations(name):
    """Count compilations of a function by name."""
    seen = []

    def listen(event, duration, **details):
        if event.endswith("backend_compile_duration") and name in details.get("fun_name", ""):
            seen.append(duration)

    monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        monitoring.unregister_event_duration_listener(listen)


def test_a_call_of_the_same_form_finds_the_code_ready():
    @partial(jax.jit, static_argnames="power")
    def cubed_ahead(x, scale, power):
        return scale * x**power

    with compilations("cubed_ahead") as seen:
        compile_ahead(cubed_ahead, jnp.zeros(5), jnp.asarray(1.0), power=3).result()
        assert len(seen) == 1
        found = cubed_ahead(jnp.arange(5.0), jnp.asarray(2.0), power=3)
        assert len(seen) == 1
        cubed_ahead(jnp.arange(6.0), jnp.asarray(2.0), power=3)
        assert len(seen) == 2
    np.testing.assert_array_equal(found, 2.0 * np.arange(5.0) ** 3)


def test_what_cannot_be_compiled_fails_in_the_call_only():
    @jax.jit
    def refused(x):
        raise ValueError("not this")

    compile_ahead(refused, jnp.zeros(2)).exception()
    with pytest.raises(ValueError, match="not this"):
        refused(jnp.zeros(2))


def test_a_module_is_imported_in_the_background():
    sys.modules.pop("this", None)
    with redirect_stdout(StringIO()):
        import_ahead("this").result()
    assert "this" in sys.modules
