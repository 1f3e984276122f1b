"""Sizes, exceptions and imports of the whole package, measured on its source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
LONGEST_MODULE = 400
LONGEST_FUNCTION = 60
# Documented signatures: their length is given, not chosen.
EXEMPT = ("CMCConfig", "CMCResult")
# Functions that may catch everything because a worker's failure is data to its parent,
# as "module.function".
CATCH_ALL: tuple[str, ...] = ("heterodyne.optimization.cmc.backends._workers.attempt",)
HEAVY = ("jax", "numpyro", "numpy", "scipy", "matplotlib", "pydantic", "arviz_base", "h5py")


@cache
def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted((SOURCE / "heterodyne").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


def path_of(module: str) -> Path:
    path = SOURCE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def named(tree: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    """Every node with the qualified name of the function or class that holds it."""
    for node in ast.iter_child_nodes(tree):
        inner = prefix
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{prefix}.{node.name}"
        yield inner, node
        yield from named(node, inner)


def everywhere() -> Iterator[tuple[str, ast.AST]]:
    for module, tree in modules().items():
        yield from named(tree, module)


def report(rule: str, offenders: list[str]) -> str:
    return "\n  ".join([f"{rule}: {len(offenders)} offenders", *offenders])


def test_modules_are_short():
    lengths = {m: len(path_of(m).read_text(encoding="utf-8").splitlines()) for m in modules()}
    assert len(lengths) > 50
    long = [f"{m}: {n} lines" for m, n in lengths.items() if n > LONGEST_MODULE]
    assert not long, report(f"modules of more than {LONGEST_MODULE} lines", long)


def test_functions_are_short():
    long = []
    for name, node in everywhere():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST_FUNCTION and not set(EXEMPT) & set(name.split(".")):
                long.append(f"{name}, line {node.lineno}: {length} lines")
    assert not long, report(f"functions of more than {LONGEST_FUNCTION} lines", long)


def catches_all(handler: ast.ExceptHandler) -> bool:
    """Whether every exception ends here; one that is raised again after cleaning up does not."""
    last = handler.body[-1]
    if isinstance(last, ast.Raise) and last.exc is None:
        return False
    if handler.type is None:
        return True
    names = {n.id for n in ast.walk(handler.type) if isinstance(n, ast.Name)}
    return bool(names & {"Exception", "BaseException"})


def test_nothing_but_worker_boundaries_catches_everything():
    found = [
        (name, f"{name}, line {node.lineno}")
        for name, node in everywhere()
        if isinstance(node, ast.ExceptHandler) and catches_all(node)
    ]
    broad = [text for name, text in found if name not in CATCH_ALL]
    assert not broad, report("handlers of every exception", broad)
    unused = sorted(set(CATCH_ALL) - {name for name, _ in found})
    assert not unused, report("worker boundaries that catch nothing", unused)


def for_typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports_at_start(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif for_typing_only(node):
            for other in node.orelse:
                yield from imports_at_start(ast.Module([other], []))
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports_at_start(node)


def targets(node: ast.Import | ast.ImportFrom, module: str, known: frozenset[str]) -> set[str]:
    """Modules of the package that a statement names, as written in a module."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names} & known
    base = node.module or ""
    if node.level:
        is_package = path_of(module).name == "__init__.py"
        parts = module.split(".")
        parts = parts[: len(parts) - node.level + is_package]
        base = ".".join([*parts, *([base] if base else [])])
    full = {f"{base}.{alias.name}" for alias in node.names}
    inside = full & known
    return inside if len(inside) == len(full) else inside | ({base} & known)


def with_packages(target: str, module: str) -> set[str]:
    """A module and the packages that importing it runs first."""
    parts = target.split(".")
    packages = {".".join(parts[:k]) for k in range(1, len(parts))}
    return {target} | {p for p in packages if not f"{module}.".startswith(f"{p}.")}


def import_graph() -> dict[str, set[str]]:
    known = frozenset(modules())
    return {
        module: {
            full
            for node in imports_at_start(tree)
            for target in targets(node, module, known)
            for full in with_packages(target, module)
        }
        for module, tree in modules().items()
    }


def cycles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Groups of modules that reach each other."""
    reach = {}
    for start in graph:
        seen: set[str] = set()
        waiting = set(graph[start])
        while waiting:
            module = waiting.pop()
            seen.add(module)
            waiting |= graph[module] - seen
        reach[start] = seen
    groups = {frozenset(m for m in reach[s] if s in reach[m]) for s in graph if s in reach[s]}
    return [set(group) for group in groups]


def test_cycles_are_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a", "e"}, "e": set(), "f": {"f"}}
    assert sorted(map(sorted, cycles(graph))) == [["a", "b", "c"], ["f"]]


def test_imports_are_read():
    graph = import_graph()
    assert "heterodyne.core.separable" in graph["heterodyne.core.likelihood"]
    assert "heterodyne.core.rates" in graph["heterodyne.core.frames"]
    assert "heterodyne.core.jax_backend" not in graph["heterodyne.core.heterodyne_model"]


def test_imports_have_no_cycles():
    groups = [" <-> ".join(sorted(group)) for group in cycles(import_graph())]
    assert not groups, report("cycles of imports", sorted(groups))


def test_importing_the_package_loads_nothing_heavy():
    code = f"import sys, heterodyne; print(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []
