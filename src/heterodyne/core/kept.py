"""Functions to compile, whose traces are kept for later processes.

JAX keeps compiled code, but a process finds it only after it has traced and lowered a function,
which takes longer than a fit of few frames. What is kept here is the lowered function.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import uuid
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from importlib.metadata import version
from pathlib import Path
from threading import RLock
from typing import Any, Generic, TypeVar

import numpy as np

from heterodyne.core._jax import export, jax
from heterodyne.core.traced import traced

T = TypeVar("T")

_PACKAGE = Path(__file__).parents[1]
# What writes the code that tracing leads to.
_WRITERS = ("jax", "jaxlib", "numpy", "numpyro", "scipy")
_FOLDER, _SUFFIX = "traces", ".trace"
# Files that are kept; a run adds about fifteen, of 40 KiB.
_MOST_FILES = 500


@dataclass(frozen=True)
class _Form:
    """What code is compiled for.

    Attributes:
        static: Static arguments by name.
        tree: Structure of the other arguments.
        types: Shape and type of each of their arrays.
    """

    static: tuple[tuple[str, Hashable], ...]
    tree: Hashable
    types: tuple[tuple[tuple[int, ...], Any], ...]


class Kept(Generic[T]):
    """A compiled function like one of ``jax.jit``, made by ``kept``.

    Within another function that is traced it is traced as well, and not kept.
    """

    def __init__(
        self,
        function: Callable[..., T],
        static_argnames: Sequence[str],
        returns: Callable[..., T],
        compiler_options: Mapping[str, Any] | None,
    ) -> None:
        """Use ``kept``."""
        self._function, self._static, self._returns = function, static_argnames, returns
        self._options = None if compiler_options is None else dict(compiler_options)
        self._within = jax.jit(function, static_argnames=static_argnames)
        self._signature = inspect.signature(function)
        self._programs: dict[_Form, Any] = {}
        self._lock = RLock()
        self.__name__, self.__doc__ = function.__name__, function.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> T:
        """Call the compiled function."""
        form, leaves = self._formed(args, kwargs)
        if traced(*leaves):
            return self._within(*args, **kwargs)
        return self._returns(*self._program(form)(*leaves))

    def lower(self, *args: Any, **kwargs: Any) -> jax.stages.Lowered:
        """Lower for arguments, as functions of ``jax.jit`` do."""
        form, leaves = self._formed(args, kwargs)
        return self._program(form).lower(*leaves)

    def clear_cache(self) -> None:
        """Forget the code that this process has compiled."""
        with self._lock:
            self._programs.clear()

    def _formed(self, args: Any, kwargs: Any) -> tuple[_Form, list[Any]]:
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = dict(bound.arguments)
        static = tuple((name, given.pop(name)) for name in self._static)
        leaves, tree = jax.tree.flatten(given)
        return _Form(static, tree, tuple(map(_type_of, leaves))), leaves

    def _program(self, form: _Form) -> Any:
        """The function of arrays alone, for ``jax.jit`` to compile."""
        found = self._programs.get(form)
        if found is None:
            # A thread that compiles ahead must not do the work twice.
            with self._lock:
                found = self._programs.get(form)
                if found is None:
                    found = self._programs[form] = self._taken_over(form)
        return found

    def _taken_over(self, form: _Form) -> Any:
        program, path = self._flat(form), self._path(form)
        exported = None if path is None else _read(path) or _exported(program, form, path)
        if exported is not None:
            program = exported.call

        def named(*leaves: Any) -> Any:
            return program(*leaves)

        named.__name__ = named.__qualname__ = self.__name__
        return jax.jit(named, compiler_options=self._options)

    def _flat(self, form: _Form) -> Callable[..., Any]:
        def flat(*leaves: Any) -> tuple[Any, ...]:
            given = jax.tree.unflatten(form.tree, leaves)
            return tuple(jax.tree.leaves(self._function(**given, **dict(form.static))))

        return flat

    def _path(self, form: _Form) -> Path | None:
        """File of the trace; None where none is kept."""
        folder = jax.config.values.get("jax_compilation_cache_dir")
        if not folder:
            return None
        try:
            static = "".join(_described(form.static))
        except TypeError:
            return None
        name = f"{self._function.__module__}.{self._function.__qualname__}"
        text = "\n".join([_code(), name, static, str(form.tree), repr(form.types)])
        digest = hashlib.sha256(text.encode()).hexdigest()
        return Path(folder) / _FOLDER / f"{self.__name__}-{digest}{_SUFFIX}"


def kept(
    *static_argnames: str,
    returns: Callable[..., Any] | None = None,
    compiler_options: Mapping[str, Any] | None = None,
) -> Callable[[Callable[..., T]], Kept[T]]:
    """Compile a function as ``jax.jit`` does, and keep its trace beside the compiled code.

    A trace is taken over for the same source code of this package and versions of the
    libraries, static arguments, shapes and types. Static arguments may consist of plain values,
    tuples, mappings and data classes of this package; with others nothing is kept.

    Args:
        *static_argnames: Arguments that the code is compiled for.
        returns: Makes what the function returns from its arrays; None for a single one.
        compiler_options: As for ``jax.jit``.
    """

    def decorated(function: Callable[..., T]) -> Kept[T]:
        return Kept(function, static_argnames, returns or _single, compiler_options)

    return decorated


def _single(array: Any) -> Any:
    return array


def _type_of(leaf: Any) -> tuple[tuple[int, ...], Any]:
    array = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return tuple(array.shape), array.dtype


def _described(value: object) -> Iterator[str]:
    """Text that tells values apart, the same in all processes.

    Raises:
        TypeError: The value has parts of which nothing is known.
    """
    kind = type(value)
    yield f"{kind.__module__}.{kind.__qualname__}("
    if isinstance(value, Enum):
        yield value.name
    elif isinstance(value, float):
        yield value.hex()
    elif value is None or isinstance(value, bool | int | str):
        yield repr(value)
    elif isinstance(value, tuple):
        for part in value:
            yield from _described(part)
    elif isinstance(value, Mapping):
        for item in value.items():
            yield from _described(item)
    elif is_dataclass(value) and kind.__module__.partition(".")[0] == _PACKAGE.name:
        for field in fields(value):
            yield from _described(getattr(value, field.name))
    else:
        raise TypeError(f"{kind} is not described")
    yield ")"


@cache
def _code() -> str:
    """What traces follow from, but for the arguments: code, versions, kind of processor."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    versions = [f"{name} {version(name)}" for name in _WRITERS]
    precision = f"{jax.config.values.get('jax_default_matmul_precision')}"
    return " ".join([digest.hexdigest(), *versions, jax.default_backend(), precision])


def _exported(program: Callable[..., Any], form: _Form, path: Path) -> export.Exported | None:
    """Trace a function of arrays and keep the trace; None where it cannot be written down."""
    try:
        given = [jax.ShapeDtypeStruct(*each) for each in form.types]
        exported = export.export(jax.jit(program))(*given)
    except ValueError:
        # As for some operations; what else is wrong shows in the call.
        return None
    _write(path, exported)
    return exported


def _read(path: Path) -> export.Exported | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    size = hashlib.sha256().digest_size
    if hashlib.sha256(content[size:]).digest() != content[:size]:
        return None
    with suppress(OSError):
        os.utime(path)
    return export.deserialize(bytearray(content[size:]))


def _write(path: Path, exported: export.Exported) -> None:
    """Keep a trace; a folder that cannot be written costs time, nothing else."""
    content = bytes(exported.serialize())
    partial = path.with_name(f".{uuid.uuid4().hex}")
    with suppress(OSError):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(hashlib.sha256(content).digest() + content)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        _tidy(path.parent)


def _tidy(folder: Path) -> None:
    """Remove the files that were not used for longest, beyond the most that are kept."""
    files = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files[_MOST_FILES:]:
        file.unlink(missing_ok=True)
