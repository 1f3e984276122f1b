"""What a job is given: a model, settings, and the data, starts and random key of its shard."""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from heterodyne import __version__
from heterodyne._errors import ConfigError
from heterodyne._typing import JaxArray
from heterodyne.config.cmc import CMCConfig
from heterodyne.core._jax import jax, jnp
from heterodyne.optimization.cmc._inputs import checked
from heterodyne.optimization.cmc._plan import SamplingPlan
from heterodyne.optimization.cmc.backends._draw import check_starts
from heterodyne.optimization.cmc.backends._pickling import pickled

STARTS = "init_params"
# Settings that act on the draws of a shard; a run that goes on may change the others.
SETTINGS = (
    "num_warmup",
    "num_samples",
    "num_chains",
    "target_accept_prob",
    "max_tree_depth",
    "dense_mass",
    "init_strategy",
    "fast_warmup",
)
_PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class ShardInput:
    """Random key, arguments of the model and start values of a shard.

    Attributes:
        key: Data of its JAX random key, shape (2,), uint32.
        values: Arguments of the model that are plain values, by name.
        arrays: Arguments that are arrays, by name.
        starts: Start values by name, shape (num_chains, ...); None without any.
    """

    key: np.ndarray
    values: dict[str, Any]
    arrays: dict[str, np.ndarray]
    starts: dict[str, np.ndarray] | None

    @classmethod
    def of(
        cls, shard: Mapping[str, Any], model: Callable[..., Any], key: JaxArray, n_chains: int
    ) -> ShardInput:
        """Read a shard.

        Args:
            shard: ``init_params``, if there are any, and the arguments of the model.
            model: The model, which must take these arguments.
            key: JAX random key of the shard.
            n_chains: Number of chains.

        Raises:
            ConfigError: Something is no array or plain value, or has a wrong shape, or the
                model does not take it.
        """
        arguments = {name: x for name, x in shard.items() if name != STARTS}
        _check_call(model, arguments)
        values = {name: x for name, x in arguments.items() if type(x) in _PLAIN}
        arrays = {name: _array(name, x) for name, x in arguments.items() if name not in values}
        starts = shard.get(STARTS)
        if starts is not None:
            check_starts(starts, n_chains)
            starts = {name: _array(name, x) for name, x in starts.items()}
        return cls(_key_data(key), values, arrays, starts)

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of the model by name."""
        return {**self.values, **self.arrays}

    def add_to(self, digest: Any) -> None:
        """Add everything to a digest of ``hashlib``."""
        plain = [self.key.tolist(), self.values, self.starts is None]
        digest.update(json.dumps(plain, sort_keys=True).encode())
        for kind, arrays in (("argument", self.arrays), ("start", self.starts or {})):
            for name in sorted(arrays):
                x = arrays[name]
                digest.update(f"{kind} {name} {x.dtype.str} {x.shape}".encode())
                digest.update(np.ascontiguousarray(x).data)


def settings_of(config: CMCConfig) -> dict[str, Any]:
    """Return the settings of a configuration that act on the draws of a shard.

    Raises:
        ConfigError: A field of the configuration is outside its limits.
    """
    # Warns here, where the user sees it, of too few steps of adaptation.
    SamplingPlan.from_config(checked(config))
    return {name: getattr(config, name) for name in SETTINGS}


@dataclass(frozen=True)
class Payload:
    """What all shards of a run share.

    Attributes:
        model: The pickled model.
        settings: Settings of the sampler.
        search: Folders from which a job may import, after its own.
        sources: SHA-256 of the source of each module that the pickle names.
    """

    model: bytes
    settings: dict[str, Any]
    search: list[str]
    sources: dict[str, str]

    @classmethod
    def of(cls, model: Callable[..., Any], settings: Mapping[str, Any]) -> Payload:
        """Pickle a model with the standard library.

        Args:
            model: A function of a module, a ``functools.partial`` of one, or an object
                of a module's class.
            settings: From ``settings_of``.

        Raises:
            ConfigError: The model cannot be pickled, or could not be imported by a job.
        """
        modules: set[str] = set()

        def dumps(content: object) -> bytes:
            stream = io.BytesIO()
            _Pickler(stream, modules).dump(content)
            return stream.getvalue()

        content = pickled(model, "the model", "model", dumps=dumps, otherwise="")
        return cls(content, dict(settings), _search(), _sources(modules))

    @property
    def task(self) -> bytes:
        """What a job reads first; its digest goes with the job script."""
        content = {
            "model": hashlib.sha256(self.model).hexdigest(),
            "settings": self.settings,
            "search": self.search,
        }
        return json.dumps(content, sort_keys=True).encode()

    def fingerprint(self, inputs: Mapping[int, ShardInput]) -> str:
        """Digest of everything that decides on the draws.

        Beside model, settings, data, starts and keys these are the source of the modules
        that the pickle names (not of those that they import), and the versions of this
        package, JAX and NumPyro.
        """
        packages = {name: version(name) for name in ("jax", "numpyro")}
        about = [__version__, packages, self.sources]
        digest = hashlib.sha256(self.task)
        digest.update(json.dumps(about, sort_keys=True).encode())
        for shard in sorted(inputs):
            digest.update(str(shard).encode())
            inputs[shard].add_to(digest)
        return digest.hexdigest()


class _Pickler(pickle.Pickler):
    """Notes the modules that a pickle names, and refuses those that a job has not."""

    def __init__(self, stream: io.BytesIO, modules: set[str]) -> None:
        super().__init__(stream, protocol=4)
        self.modules = modules

    def reducer_override(self, obj: Any) -> Any:
        if inspect.isroutine(obj) or isinstance(obj, type):
            module = str(getattr(obj, "__module__", ""))
            if module == "__main__":
                raise ConfigError(
                    f"{obj.__qualname__} is defined in a script or notebook (__main__)",
                    where="model",
                    allowed="a function of a module, or functools.partial of one with its data",
                    remedy="Put the model into a .py file, and bind its data with "
                    "functools.partial",
                )
            self.modules.add(module)
        return NotImplemented


def _search() -> list[str]:
    """Folders from which this process imports, without those of its Python."""
    own = {Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)}
    folders = [Path(entry).resolve() for entry in sys.path]
    return [str(p) for p in folders if p.is_dir() and not own & {p, *p.parents}]


def _sources(modules: set[str]) -> dict[str, str]:
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in modules}
    return {
        name: hashlib.sha256(Path(file).read_bytes()).hexdigest()
        for name, file in files.items()
        if file is not None and Path(file).is_file()
    }


def _check_call(model: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    try:
        inspect.signature(model).bind(**arguments)
    except TypeError as error:
        given = ", ".join(arguments) or "none"
        raise ConfigError(
            f"the model cannot be called with these arguments: {error}",
            where="shard",
            allowed=f"{STARTS}, and what the model takes (given: {given})",
        ) from None


def _key_data(key: JaxArray) -> np.ndarray:
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    data = np.asarray(jax.random.key_data(key) if typed else key)
    if data.shape != (2,) or data.dtype != np.uint32:
        raise ConfigError(
            f"the key has shape {data.shape} and type {data.dtype}",
            where="rng_key",
            allowed="a key of jax.random.PRNGKey or jax.random.key, of JAX's own generator",
        )
    return data


def _array(name: str, x: Any) -> np.ndarray:
    array = np.asarray(x)
    if array.dtype.kind not in "biufc":
        raise ConfigError(
            f"{name} is of type {type(x).__name__}",
            where="shard",
            allowed="arrays of numbers, and single numbers, texts, true, false and None",
            remedy="Bind other arguments to the model with functools.partial",
        )
    return array
