"""Compiling and importing ahead: in a thread, while the work that comes before goes on."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from typing import Any

_COMPILER = ThreadPoolExecutor(1, thread_name_prefix="compiler")


def compile_ahead(function: Any, *args: Any, **kwargs: Any) -> Future[None]:
    """Compile a jitted function in the background for a call that will come.

    The call finds the code ready, or waits for the rest of the compilation only if it asks for
    it in the same form: positional and keyword arguments, shapes and types as here. What fails
    here fails again, and is seen, in that call.

    Args:
        function: Made by ``jax.jit``.
        *args: As in the call; of arrays only shape and type matter.
        **kwargs: Likewise.

    Returns:
        When the code is ready.
    """
    return compile_in(_COMPILER, function, *args, **kwargs)


def compile_in(pool: ThreadPoolExecutor, function: Any, *args: Any, **kwargs: Any) -> Future[None]:
    """Compile like ``compile_ahead``, in other threads.

    Args:
        pool: The threads.
        function: As for ``compile_ahead``.
        *args: Likewise.
        **kwargs: Likewise.
    """

    def compiled() -> None:
        function.lower(*args, **kwargs).compile()

    return pool.submit(compiled)


def import_ahead(module: str) -> Future[None]:
    """Import a module in the background, after what is compiled there.

    Args:
        module: Its name.

    Returns:
        When it is imported.
    """

    def imported() -> None:
        import_module(module)

    return _COMPILER.submit(imported)
