"""Names, signatures and defaults of the documented interface."""

from __future__ import annotations

import ast
import inspect
import json
from importlib import import_module
from pathlib import Path

import pytest

INVENTORY = json.loads((Path(__file__).parent / "api_inventory.json").read_text(encoding="utf-8"))
SKIPPED = {"self", "cls", "args", "kwargs"}


def ident(entry):
    return f"{entry['module']}.{entry['name']}"


def documented(signature):
    """Names in order, with the defaults that are literals."""
    factory = "<factory>" in signature
    found = ast.parse(f"def f{signature.replace('<factory>', 'None')}: pass").body[0].args
    positional = [*found.posonlyargs, *found.args]
    defaults = [None] * (len(positional) - len(found.defaults)) + list(found.defaults)
    pairs = [*zip(positional, defaults, strict=True)]
    pairs += zip(found.kwonlyargs, found.kw_defaults, strict=True)
    names, literals = [], {}
    for argument, default in pairs:
        if argument.arg in SKIPPED:
            continue
        names.append(argument.arg)
        try:
            literals[argument.arg] = ast.literal_eval(default) if default is not None else ...
        except ValueError:
            continue
        if default is None or (factory and literals[argument.arg] is None):
            del literals[argument.arg]
    return names, literals


def check_signature(thing, signature):
    actual = inspect.signature(thing).parameters
    names, literals = documented(signature)
    assert [name for name in actual if name in names] == names
    for name, value in literals.items():
        given = actual[name].default
        assert given == value or (isinstance(value, tuple) and tuple(given) == value), name
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for name, parameter in actual.items():
        if name not in names and name not in SKIPPED and parameter.kind not in variable:
            assert parameter.default is not inspect.Parameter.empty, f"{name} is required"


def has_member(thing, name):
    fields = getattr(thing, "__dataclass_fields__", {})
    annotated = any(name in getattr(c, "__annotations__", {}) for c in thing.__mro__)
    # Attributes that __init__ sets are documented like fields.
    return hasattr(thing, name) or name in fields or annotated or set_by_init(thing, name)


def set_by_init(thing, name):
    return f"self.{name}" in inspect.getsource(thing.__init__)


def test_the_inventory_is_whole():
    assert len(INVENTORY) == 164


@pytest.mark.parametrize("entry", INVENTORY, ids=ident)
def test_documented_names_hold(entry):
    module = import_module(f"heterodyne.optimization.cmc.{entry['module']}")
    thing = getattr(module, entry["name"])
    if entry["kind"] == "function" and "signature" in entry:
        check_signature(thing, entry["signature"])
    if "value" in entry:
        assert thing == ast.literal_eval(entry["value"])
    for name, signature in entry.get("members", {}).items():
        assert has_member(thing, name), name
        if signature and name != "__init__":
            check_signature(getattr(thing, name), signature)
        elif signature and "args" not in signature:
            check_signature(thing, signature)
