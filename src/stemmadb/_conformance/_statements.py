"""SQL constants: they name their columns, and ask for the workspace of every tenant table that they touch."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from sqlalchemy import TextClause
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.selectable import SelectBase

from stemmadb._conformance._tables import is_tenant_table
from stemmadb.entity import metadata
from stemmadb.query import EntityStatement, RowStatement
from stemmadb.reports import Finding

# A dotted name is one word. What stands in a literal or a comment is none.
_TOKEN = re.compile(
    r"""(?P<skipped>\s+|--[^\n]*|/\*.*?\*/)|(?P<literal>'(?:[^']|'')*'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|"[^"]*")"""
    r"""|(?P<word>:?:?[A-Za-z_]\w*(?:\s*\.\s*[A-Za-z_]\w*)*(?:\s*\.)?)|(?P<sign>\S)""",
    re.DOTALL,
)
_SQL = re.compile(r"\b(?:SELECT|INSERT\s+INTO|UPDATE|DELETE\s+FROM|RETURNING)\b")
_STARTS = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "WITH"})
_SET_OPERATORS = frozenset({"UNION", "INTERSECT", "EXCEPT"})
# What may follow a table that has no alias.
_NO_ALIAS = frozenset(
    {
        *("AND", "AS", "CROSS", "DEFAULT", "FETCH", "FOR", "FROM", "FULL", "GROUP", "HAVING", "INNER", "JOIN", "LEFT", "LIMIT", "NATURAL"),
        *(
            "OFFSET",
            "ON",
            "OR",
            "ORDER",
            "OVERRIDING",
            "RETURNING",
            "RIGHT",
            "SELECT",
            "SET",
            "TABLESAMPLE",
            "USING",
            "VALUES",
            "WHERE",
            "WINDOW",
        ),
    }
)
_BEFORE_A_COLUMN_LIST = frozenset({"SELECT", "DISTINCT", "ALL", "RETURNING", ","})


def check(modules: Iterable[ModuleType]) -> Iterator[Finding]:
    """Yield what is wrong with the SQL of these modules."""
    for module in modules:
        yield from _stars(module)
        for name, statement in _constants(module):
            for table in unguarded(statement):
                message = f"nothing compares the workspace_id of {table} in one of its parts: the policy is the second line, not the first"
                yield Finding("statement_without_workspace", "error", f"{module.__name__}.{name}", message)


def _stars(module: ModuleType) -> Iterator[Finding]:
    """Look at every string of a module's source: a text may be put together of parts, or stand inside a function."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _SQL.search(node.value) and has_star(node.value):
            message = "a prepared SELECT * fails after the next migration: name the columns"
            yield Finding("statement_with_star", "error", f"{module.__name__}:{node.lineno}", message)


def _constants(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Yield the name and the SQL of each statement that a module holds, in tuples and mappings too."""
    for name, value in sorted(vars(module).items()):
        for statement in _in(value):
            if (text := _text_of(statement)) is not None:
                yield name, text


def _in(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, list | tuple | frozenset | set):
        for item in value:
            yield from _in(item)
    else:
        yield value


def _text_of(value: Any) -> str | None:
    if isinstance(value, RowStatement):
        return value.text.text
    if isinstance(value, EntityStatement):
        return value._source
    if isinstance(value, TextClause):
        return value.text
    # A statement about entities gets its conditions from the session that runs it; one about plain tables does not.
    if isinstance(value, SelectBase | UpdateBase) and value._propagate_attrs.get("compile_state_plugin") != "orm":
        return str(value.compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
    return None


# ----------------------------------------------------------------------------------------------------------- reading SQL


def has_star(statement: str) -> bool:
    """Return whether a column list of the statement is ``*`` or ``table.*``. ``count(*)`` and a multiplication are none."""
    before = ""
    for word in _words(statement):
        if word == "*" and (before.upper() in _BEFORE_A_COLUMN_LIST or before.endswith(".")):
            return True
        before = word
    return False


def unguarded(statement: str) -> list[str]:
    """
    Return the tenant tables that a part of the statement touches without comparing, or giving, their workspace_id.

    The parts are the queries that it is made of: each arm of a UNION and each sub-select has a condition of its own.
    """
    tenants = {table.name for table in metadata.tables.values() if is_tenant_table(table)}
    return [table for part in _parts(list(_words(statement))) for table in _unguarded(part, tenants)]


def _words(statement: str) -> Iterator[str]:
    for match in _TOKEN.finditer(statement):
        if match["skipped"] is None:
            yield "''" if match["literal"] else re.sub(r"\s", "", match[0])


def _parts(words: list[str]) -> list[list[str]]:
    """Split a statement into its queries; parentheses that begin no query stay in the one around them."""
    current: list[str] = []
    parts, around = [current], [current]
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "(":
            around.append(current)
            if following.upper() in _STARTS:
                current = []
                parts.append(current)
            else:
                current.append(word)
        elif word == ")" and len(around) > 1:
            inner, current = current, around.pop()
            if current is inner:
                current.append(word)
        elif word.upper() in _SET_OPERATORS:
            current = []
            parts.append(current)
        else:
            current.append(word)
    return parts


def _unguarded(part: list[str], tenants: set[str]) -> list[str]:
    targets = [(place, word.removeprefix("stemma.")) for place, word in enumerate(part) if word.startswith("stemma.")]
    touched = [(place, table) for place, table in targets if table in tenants]
    compared = _compared(part)
    missing = []
    for place, table in touched:
        names = {f"{_alias(part, place)}.workspace_id", f"stemma.{table}.workspace_id"}
        if len(touched) == 1 or "USING" in compared:
            names.add("workspace_id")
        if not names & compared and not _is_inserted(part, place):
            missing.append(table)
    return missing


def _alias(part: list[str], place: int) -> str:
    following = [*part[place + 1 : place + 3], "", ""]
    name = following[1] if following[0].upper() == "AS" else following[0]
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) and name.upper() not in _NO_ALIAS else part[place].removeprefix("stemma.")


def _compared(part: list[str]) -> set[str]:
    """Return the names of workspaces that stand beside an equals sign, in a row that is compared, or in USING (...)."""
    found: set[str] = set()
    for place, word in enumerate(part):
        if word.rpartition(".")[2] != "workspace_id":
            continue
        before, after = part[place - 1] if place else "", part[place + 1] if place + 1 < len(part) else ""
        using = before == "(" and place > 1 and part[place - 2].upper() == "USING"
        # (workspace_id, id) = (...) and (workspace_id, id) IN (...)
        row = before == "(" and after == "," and _after_row(part, place) in ("=", "IN")
        if "=" in (before, after) or using or row:
            found |= {word, "USING"} if using else {word}
    return found


def _after_row(part: list[str], place: int) -> str:
    for position in range(place, len(part)):
        if part[position] == ")":
            return part[position + 1].upper() if position + 1 < len(part) else ""
    return ""


def _is_inserted(part: list[str], place: int) -> bool:
    """Return whether the table at this place is what an INSERT fills, workspace_id among the columns given."""
    if not place or part[place - 1].upper() != "INTO":
        return False
    try:
        opened = part.index("(", place)
        return "workspace_id" in part[opened : part.index(")", opened)]
    except ValueError:
        return False
