"""The public surface: recorded, typed, twinned, logged under its own names, and used by some test."""

from __future__ import annotations

import ast
import difflib
import doctest
import inspect
import logging
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from matplotlib.axes import Axes
from sqlalchemy.orm import Session
from tests.record_public_names import FILE, exported, public_modules, public_names

import stemmadb
from stemmadb._conformance._functions import _is_open
from stemmadb._conformance._sources import sources_of
from stemmadb.errors import NotFoundError
from stemmadb.evaluation import definitions
from stemmadb.packs import packs

TESTS = Path(__file__).parent

Function = tuple[ModuleType, str, Callable[..., Any]]


def query_functions() -> Iterator[Function]:
    """Every query function of the packs."""
    for pack in packs():
        yield from sources_of(pack).functions()


def exported_functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every function that a public module exports, and every public method of a class at its home, without the twins."""
    for module in public_modules():
        if module.__name__.startswith("stemmadb.aio."):
            continue
        for name in exported(module):
            value = getattr(module, name)
            if isinstance(value, type):
                yield from (found for found in _methods(f"{module.__name__}.{name}", value) if value.__module__ == module.__name__)
            elif inspect.isroutine(value) and value.__module__.startswith("stemmadb"):
                yield f"{module.__name__}.{name}", value


def _methods(place: str, kind: type[Any]) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, value in vars(kind).items():
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if not name.startswith("_") and inspect.isfunction(function) and inspect.unwrap(function).__module__.startswith("stemmadb"):
            yield f"{place}.{name}", function


# ---------------------------------------------------------------------------------------------------------------- recorded


@pytest.mark.offline
@pytest.mark.requirement("VR-027", "TN-053")
def test_the_public_names_are_those_recorded() -> None:
    """A change of a name or a signature is a change of a line of tests/public_names.txt."""
    recorded, found = FILE.read_text().splitlines(), public_names()
    changes = [line for line in difflib.ndiff(recorded, found) if line[0] in "+-"]
    assert not changes, "after a change that is meant: python -m tests.record_public_names\n" + "\n".join(changes)


@pytest.mark.offline
@pytest.mark.requirement("VR-027")
def test_the_package_exports_the_kernel() -> None:
    """What the package exports is there, and nothing else that is public is at its top."""
    for name in stemmadb.__all__:
        assert getattr(stemmadb, name) is not None
    assert set(dir(stemmadb)) == set(stemmadb.__all__)
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = stemmadb.nothing_such


@pytest.mark.offline
@pytest.mark.parametrize("module", public_modules(), ids=lambda module: module.__name__)
def test_what_a_module_exports_is_there(module: ModuleType) -> None:
    """Every name in __all__ exists, once, and the module says what it is about."""
    names = list(getattr(module, "__all__", ()))
    assert sorted(set(names)) == sorted(names)
    for name in names:
        assert hasattr(module, name), name
    assert module.__doc__


@pytest.mark.offline
@pytest.mark.requirement("VR-024", "VR-025")
def test_modules_are_nouns_where_they_are_looked_for() -> None:
    """The modules that the evaluation design names exist, with the functions under the names of its contracts."""
    for name, functions in {
        "evaluation.definitions": (
            *("create", "fork", "get", "find", "get_with_content", "list_all", "update", "ancestors", "descendants", "tree"),
        ),
        "evaluation.runs": ("create", "get", "find", "get_with_transcripts", "list_all", "set_status", "report_progress", "list_for_tree"),
        "evaluation.documents": ("load_definition_content",),
        "accounts.users": ("create", "get_by_email", "find_by_email", "get", "find"),
        "accounts.api_keys": ("create", "issue", "get_by_prefix", "find_by_prefix", "list_for_user", "delete"),
        "documents": ("load_document", "dump_document", "register_upcaster", "content_hash"),
    }.items():
        module = import_module(f"stemmadb.{name}")
        assert set(functions) <= set(module.__all__), name


@pytest.mark.offline
@pytest.mark.requirement("TN-049")
def test_examples_in_docstrings_run() -> None:
    """What a docstring shows with a prompt happens so."""
    results = [doctest.testmod(module) for module in public_modules()]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) > 0


# ------------------------------------------------------------------------------------------------------------------- typed


@pytest.mark.offline
@pytest.mark.requirement("TN-074")
def test_the_package_says_that_it_is_typed() -> None:
    """py.typed is beside the modules. (How complete the types are is asked by ``pyright --verifytypes`` in tox.)"""
    assert (Path(stemmadb.__file__).parent / "py.typed").is_file()


@pytest.mark.offline
@pytest.mark.requirement("TN-075")
def test_deprecations_are_errors(pytestconfig: pytest.Config) -> None:
    """The suite fails on any warning, the deprecations of what we depend on included."""
    assert pytestconfig.getini("filterwarnings") == ["error"]


# Any in a public signature is the value of a JSON object, or one of these.
OPEN = {
    "stemmadb.aio.twin": "what a coroutine sends and takes is the event loop's business",
    "stemmadb.evaluation.documents.load_definition_content": "any decoded JSON value",
    "stemmadb.paging.page": "rows of any statement",
    "stemmadb.documents.": "SQL expressions and columns of any type",
    "stemmadb.data.DataObject.of": "what is to be checked",
    "stemmadb.database.Database.run": "arguments of the caller's function",
    "stemmadb.database.Database.arun": "arguments of the caller's function",
    "stemmadb.entity.Entity.": "options that go to pydantic",
    "stemmadb.entity.Field": "a field specifier: type checkers take the annotation (PEP 681)",
    "stemmadb.entity.document_field": "a field specifier",
    "stemmadb.entity.enum_field": "a field specifier",
    "stemmadb.entity.generated_field": "a field specifier",
    "stemmadb.entity.ordered_field": "a field specifier",
    "stemmadb.entity.vocabulary_field": "a field specifier",
    "stemmadb.entity.lineage_key": "what __table_args__ takes",
    "stemmadb.packs.Pack.load_": "what another module holds",
    "stemmadb.query.EntityStatement.": "parameters of any statement",
    "stemmadb.query.RowStatement.": "parameters and columns of any statement",
    "stemmadb.repository.Repository.": "keys of any entity",
    "stemmadb.settings.Settings.serverless": "settings by their names",
}


def _names_for_hints() -> dict[str, Any]:
    """What annotations name that are only evaluated by type checkers."""
    return {name: getattr(module, name) for module in public_modules() for name in exported(module)} | {"Axes": Axes}


def _hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    return typing.get_type_hints(function, localns=_NAMES)


_NAMES = _names_for_hints()


@pytest.mark.offline
@pytest.mark.requirement("VR-002", "TN-053", "TN-076")
def test_signatures_are_complete() -> None:
    """Every parameter and result of every exported function has a type; Any stands only where the list above says why."""
    wrong, used = [], set()
    for place, function in exported_functions():
        hints = _hints(function)
        names = [*inspect.signature(function).parameters, "return"]
        if inspect.isclass(getattr(function, "__self__", None)) or place.count(".") > 2:
            names = [name for name in names if name not in ("self", "cls", "mcs")]
        wrong += [f"{place}: {name} has no type" for name in names if name not in hints]
        if any(_is_open(hints[name]) for name in names if name in hints):
            reason = next((start for start in OPEN if place.startswith(start)), None)
            used.add(reason)
            wrong += [] if reason else [f"{place} takes or gives Any"]
    assert wrong == []
    assert set(OPEN) == used, "nothing of this name takes or gives Any any more: take it off the list"


@pytest.mark.offline
@pytest.mark.requirement("VR-002", "TN-049")
def test_every_exported_function_is_documented() -> None:
    """Whatever is exported says in its first line what it does."""
    assert [place for place, function in exported_functions() if not (inspect.getdoc(function) or "").strip()] == []


# ----------------------------------------------------------------------------------------------------------------- twinned


@pytest.mark.offline
@pytest.mark.requirement("AD-027", "VR-024")
def test_every_query_function_has_its_twin() -> None:
    """The async twin has the name, the documentation and the parameters of the function that it runs."""
    seen = 0
    for module, name, function in query_functions():
        twin = getattr(import_module(module.__name__.replace("stemmadb.", "stemmadb.aio.", 1)), name)
        assert (twin.__name__, twin.__doc__) == (function.__name__, function.__doc__)
        ours, theirs = (list(inspect.signature(each).parameters.values()) for each in (function, twin))
        # A callable that is given is a coroutine function there.
        awaited = [re.sub(r"collections\.abc\.Awaitable\[([\w.]+)\]", r"\1", str(parameter)) for parameter in theirs[1:]]
        assert [str(parameter) for parameter in ours[1:]] == awaited
        assert _hints(function)[ours[0].name] is Session
        assert twin.__stemma_twin__ is function
        seen += 1
    assert seen > 80


# ------------------------------------------------------------------------------------------------------------------ logged


@pytest.mark.offline
@pytest.mark.requirement("VR-010")
def test_every_query_module_has_a_logger_of_its_name() -> None:
    """stemmadb.evaluation.definitions logs as stemmadb.evaluation.definitions, whatever files it is made of."""
    for module in {module for module, _, _ in query_functions()}:
        assert module.__name__ in logging.root.manager.loggerDict


@pytest.mark.requirement("VR-010")
def test_a_read_is_logged_with_its_id(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """DEBUG with the id before the query, WARNING with the id for a row that is not there."""
    missing = "00000000-0000-7000-8000-000000000000"
    with caplog.at_level(logging.DEBUG), pytest.raises(NotFoundError):
        definitions.get(session, missing)
    found = [record for record in caplog.records if record.name == "stemmadb.evaluation.definitions" and missing in record.getMessage()]
    assert [record.levelname for record in found] == ["DEBUG", "WARNING"]


# ------------------------------------------------------------------------------------------------------------------ tested


class _Uses(ast.NodeVisitor):
    """Collects the dotted names that a file uses, each as the import says that it is called."""

    def __init__(self) -> None:
        self.imported: dict[str, str] = {}
        self.found: set[str] = set()

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self.imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.imported[alias.asname or alias.name.partition(".")[0]] = alias.name if alias.asname else alias.name.partition(".")[0]

    def visit_Attribute(self, node: ast.Attribute) -> None:
        parts = [node.attr]
        inner: ast.expr = node.value
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name) and inner.id in self.imported:
            self.found.add(".".join([self.imported[inner.id], *reversed(parts)]))
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in self.imported:
            self.found.add(self.imported[node.id])


def _used_in(paths: Iterable[Path]) -> set[str]:
    found: set[str] = set()
    for path in paths:
        uses = _Uses()
        tree = ast.parse(path.read_text())
        # Imports may stand inside functions, behind what uses them in the order of the tree.
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                uses.visit(node)
        uses.visit(tree)
        found |= uses.found
    return found


def _exported_as() -> dict[int, set[str]]:
    """Every public name of each object: it counts by whichever it is called."""
    found: dict[int, set[str]] = {}
    for module in public_modules():
        for name in exported(module):
            found.setdefault(id(getattr(module, name)), set()).add(f"{module.__name__}.{name}")
    return found


@pytest.mark.offline
@pytest.mark.requirement("VR-011")
def test_every_exported_function_is_used_by_a_test() -> None:
    """Some test names each function as callers do; of the kernel's, those that the packs are built from are tested with the packs."""
    in_tests = _used_in(TESTS.rglob("test_*.py"))
    modules = [module for pack in packs() for module in sources_of(pack).modules]
    in_packs = _used_in(Path(path) for module in modules if (path := inspect.getsourcefile(module)))
    of_packs = {id(function) for _, _, function in query_functions()}
    names = _exported_as()
    unused = []
    for place, function in exported_functions():
        known = names.get(id(function))
        # A method has no name of its own in a module; mypy and the recorded list know it.
        if known and not known & (in_tests if id(function) in of_packs else in_tests | in_packs):
            unused.append(place)
    assert unused == []
