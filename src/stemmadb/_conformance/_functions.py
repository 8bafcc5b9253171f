"""Query functions: decorated, typed, documented, and named for what they return."""

from __future__ import annotations

import ast
import inspect
import logging
import re
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

from stemmadb import errors, tenancy
from stemmadb._conformance._sources import Sources
from stemmadb.errors import StemmaError
from stemmadb.paging import Page
from stemmadb.reports import Finding

# What any function may raise is said once, in the documentation.
_GENERAL = (
    errors.TenancyError,
    errors.ValidationError,
    errors.DatabaseError,
)
_ERROR_NAME = re.compile(r"\b[A-Z]\w*Error\b")
_HEADING = re.compile(r"[A-Z][a-z]+:")


def check(sources: Sources) -> Iterator[Finding]:
    """Yield what is wrong with the query functions of a pack."""
    with_functions = {}
    for module, name, function in sources.functions():
        with_functions[module.__name__] = module
        place = f"{module.__name__}.{name}"
        if function.__module__ != module.__name__:
            message = f"its messages name {function.__module__}, which nobody imports from: set its __module__ to {module.__name__}"
            yield Finding("hidden_home", "error", place, message)
        mark = getattr(function, "__stemma_query__", None)
        if mark is None:
            message = "what the driver raises would get out, and no workspace is asked for: decorate it with @query or @tenant_query"
            yield Finding("undecorated_function", "error", place, message)
        hints = _hints(function)
        yield from _typed(place, function, hints)
        yield from _documented(place, function)
        if hints:
            yield from _named(place, name, function, hints.get("return"))
            if mark == "global" and any(isinstance(kind, type) and tenancy.is_tenant(kind) for kind in _within(hints.get("return"))):
                yield Finding("unscoped_function", "error", place, "it returns rows of a workspace: decorate it with @tenant_query")
    for name, module in with_functions.items():
        if not any(isinstance(value, logging.Logger) and value.name == name for value in vars(module).values()):
            yield Finding("module_without_logger", "error", name, f'it logs under its own name: logging.getLogger("{name}")')


# ------------------------------------------------------------------------------------------------------------------- types


def _hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the annotations, resolved; none when one of them names nothing."""
    try:
        return get_type_hints(function)
    except (NameError, TypeError):
        return {}


def _typed(place: str, function: Callable[..., Any], hints: Mapping[str, Any]) -> Iterator[Finding]:
    for name in (*inspect.signature(function).parameters, "return"):
        if name not in hints:
            yield Finding("untyped_function", "error", place, f"{name} has no type that can be resolved")
        elif _is_open(hints[name]):
            yield Finding("open_type", "error", place, f"{name} is {hints[name]}: Any is for the values of JSON objects only")


def _is_open(hint: Any) -> bool:
    """Return whether Any stands in a type, other than as the value of a JSON object."""
    if hint is Any:
        return True
    arguments = get_args(hint)
    if get_origin(hint) in (dict, Mapping) and arguments == (str, Any):
        return False
    return any(_is_open(argument) for argument in arguments)


def _within(hint: Any) -> Iterator[Any]:
    """Yield a type and all types that it is made of."""
    yield hint
    for argument in get_args(hint):
        yield from _within(argument)


# ----------------------------------------------------------------------------------------------------------- documentation


def _documented(place: str, function: Callable[..., Any]) -> Iterator[Finding]:
    doc = inspect.getdoc(function) or ""
    if not doc.strip():
        yield Finding("undocumented_function", "error", place, "say what it returns, in which order, and what it raises")
        return
    told = _raises_section(doc)
    inner = inspect.unwrap(function)
    for raised in _raised(inner):
        if raised is None:
            if told is None:
                yield Finding("undocumented_error", "error", place, "it raises, and its docstring has no section Raises")
        elif not issubclass(raised, _GENERAL) and not _is_told(raised, told or frozenset()):
            yield Finding("undocumented_error", "error", place, f"it raises {raised.__name__}, of which its section Raises says nothing")


def _raises_section(doc: str) -> frozenset[str] | None:
    """Return the errors that the section Raises names; None when there is no such section."""
    lines = iter(doc.splitlines())
    if not any(line == "Raises:" for line in lines):
        return None
    section: list[str] = []
    for line in lines:
        if _HEADING.fullmatch(line):
            break
        section.append(line)
    return frozenset(_ERROR_NAME.findall("\n".join(section)))


def _is_told(raised: type[StemmaError], told: frozenset[str]) -> bool:
    return any(kind.__name__ in told for kind in raised.__mro__ if kind is not StemmaError)


def _raised(function: Callable[..., Any]) -> Iterator[type[StemmaError] | None]:
    """Yield the errors that the function's own lines raise; None for one that another function makes."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError):
        return
    known: Mapping[str, Any] = getattr(function, "__globals__", {})
    for node in ast.walk(tree):
        if not isinstance(node, ast.Raise) or node.exc is None:
            continue
        made = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        if isinstance(made, ast.Name):
            value = known.get(made.id)
            if isinstance(value, type):
                yield value if issubclass(value, StemmaError) else None
            elif value is not None:
                yield None
            # Else it is a variable: an error that was caught, and is raised again.


# ------------------------------------------------------------------------------------------------------------------- names


def _named(place: str, name: str, function: Callable[..., Any], returned: Any) -> Iterator[Finding]:
    """Compare the verb with what comes back: get raises, find may return None, list_... returns a page."""
    parts = set(_within(returned))
    if name.startswith("list_") and Page not in (returned, get_origin(returned)):
        yield Finding("list_without_page", "error", place, "a list grows: return a Page")
    optional = get_origin(returned) in (Union, types.UnionType) and type(None) in get_args(returned)
    if (name == "find" or name.startswith("find_")) and not (optional or get_origin(returned) is list):
        yield Finding("find_without_none", "error", place, "what is not there is None, or an empty list; get raises")
    if name == "get" or name.startswith("get_"):
        if optional or type(None) in parts:
            yield Finding("get_with_none", "error", place, "get raises NotFoundError; find may return None")
        # get_or_... makes what is not there.
        elif not name.startswith("get_or_") and "NotFoundError" not in (_raises_section(inspect.getdoc(function) or "") or ()):
            yield Finding("get_without_not_found", "error", place, "its section Raises names NotFoundError")
