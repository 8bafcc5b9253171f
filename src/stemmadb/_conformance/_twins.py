"""Async twins: the same names with the same parameters, for an AsyncSession."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

from stemmadb._conformance._sources import Sources, takes_session
from stemmadb.reports import Finding


def check(sources: Sources) -> Iterator[Finding]:
    """Yield where the twins of a pack differ from its query functions."""
    seen: set[str] = set()
    for module, _, _ in sources.functions():
        if module.__name__ in seen:
            continue
        seen.add(module.__name__)
        name = _name_of(sources, module)
        try:
            twins = import_module(name)
        except ModuleNotFoundError as error:
            if not name.startswith(error.name or name):
                raise
            yield Finding("missing_twins", "error", name, f"there is no such module: make one, with the twins of {module.__name__}")
            continue
        yield from _compare(module, twins)


def _name_of(sources: Sources, module: ModuleType) -> str:
    return sources.twins + module.__name__.removeprefix(sources.package)


def _compare(module: ModuleType, twins: ModuleType) -> Iterator[Finding]:
    exported: tuple[str, ...] = tuple(getattr(twins, "__all__", ()))
    for name in module.__all__:
        place = f"{twins.__name__}.{name}"
        value, twin = getattr(module, name), getattr(twins, name, None)
        if twin is None or name not in exported:
            yield Finding("missing_twin", "error", place, f"export it: {name}: Final = twin(_sync.{name}), and in __all__")
        elif not takes_session(value):
            if twin is not value:
                yield Finding("changed_twin", "error", place, "what takes no session is the same object in both modules")
        else:
            yield from _function(place, value, twin)
    for name in exported:
        if name not in module.__all__:
            yield Finding("extra_twin", "error", f"{twins.__name__}.{name}", f"{module.__name__} has no such name")


def _function(place: str, function: Callable[..., Any], twin: Callable[..., Any]) -> Iterator[Finding]:
    if getattr(twin, "__stemma_twin__", function) is not function:
        yield Finding("changed_twin", "error", place, "it is the twin of another function")
    streams = inspect.isgeneratorfunction(inspect.unwrap(function))
    if streams and not inspect.isasyncgenfunction(twin):
        yield Finding("changed_twin", "error", place, "it is no async generator: use twin_iter()")
    elif not streams and not inspect.iscoroutinefunction(twin):
        yield Finding("changed_twin", "error", place, "it is no coroutine function: use twin()")
    elif _parameters(function) != _parameters(twin):
        yield Finding("changed_twin", "error", place, "its parameters are not those of the function")


def _parameters(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    """Return name, kind and default of the parameters behind the session."""
    return [(item.name, item.kind, item.default) for item in list(inspect.signature(function).parameters.values())[1:]]
