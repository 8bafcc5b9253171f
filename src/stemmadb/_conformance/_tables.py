"""Tables as the entities describe them: names, keys, times, references, and what a tenant table has beside."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    DateTime,
    Enum,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
    UniqueConstraint,
    Uuid,
)

from stemmadb import tenancy
from stemmadb.entity import Entity, NativeEnum
from stemmadb.packs import Pack
from stemmadb.reports import Finding

_SUFFIXES: dict[type[Any], str] = {
    PrimaryKeyConstraint: "_pkey",
    UniqueConstraint: "_key",
    ForeignKeyConstraint: "_fkey",
    CheckConstraint: "_check",
}
_MOST_BYTES = 63
# Citus appends the number of a shard.
_MOST_BYTES_OF_A_TENANT = 50
_SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LABEL = re.compile(r"[A-Z][A-Z0-9_]*")
# What is only compared is kept as a digest, and its column is called so. What must be read back is kept as a ciphertext in a secret column.
_COMPARED = re.compile(r"(?:.*_)?(?:password|passwd|passphrase|pin|cvv|cvc)")
_READ_BACK = re.compile(r"(?:.*_)?(?:secret|token|api_key|private_key)")


def check(pack: Pack) -> Iterator[Finding]:
    """Yield what is wrong with the tables of a pack."""
    for entity in pack.entities:
        table = entity.__table__
        yield from _names(table)
        yield from _columns(table)
        yield from _references(table)
        yield from _tenant(table) if tenancy.is_tenant(entity) else _global(entity)


def is_tenant_table(table: Table) -> bool:
    """Return whether the rows of a table belong to a workspace."""
    return "workspace_id" in table.primary_key.columns


def _error(code: str, place: str, message: str) -> Finding:
    return Finding(code, "error", place, message)


# ------------------------------------------------------------------------------------------------------------------- names


def _names(table: Table) -> Iterator[Finding]:
    most = _MOST_BYTES_OF_A_TENANT if is_tenant_table(table) else _MOST_BYTES
    for name in (table.name, *(column.name for column in table.columns)):
        if not _SNAKE_CASE.fullmatch(name):
            place = table.name if name == table.name else f"{table.name}.{name}"
            yield _error("unconventional_name", place, "tables and columns are named in snake case")
    named = [(str(item.name or ""), _suffix(item)) for item in table.constraints]
    named += [(str(item.name or ""), "_key" if item.unique else "_idx") for item in table.indexes]
    for name, suffix in sorted(named):
        if not (name.startswith(f"{table.name}_") and name.endswith(suffix)) and name != f"{table.name}{suffix}":
            yield _error("unconventional_name", f"{table.name}.{name or 'unnamed'}", f"its name is {table.name}_<what>{suffix}")
    for name in (table.name, *sorted(name for name, _ in named)):
        if len(name.encode()) > most:
            yield _error("long_name", name, f"it has {len(name.encode())} bytes, and {most} is the most")


def _suffix(constraint: Any) -> str:
    return next((suffix for kind, suffix in _SUFFIXES.items() if isinstance(constraint, kind)), "")


# ----------------------------------------------------------------------------------------------------------------- columns


def _columns(table: Table) -> Iterator[Finding]:
    for name in ("created_at", "updated_at"):
        column = table.columns.get(name)
        if (
            column is None
            or column.nullable
            or column.server_default is None
            or not isinstance(column.type, DateTime)
            or not column.type.timezone
        ):
            yield _error("missing_time", f"{table.name}.{name}", "every table has it: timestamptz NOT NULL DEFAULT now()")
    key = table.columns.get("id")
    if key is not None and (not isinstance(key.type, Uuid) or key.server_default is None):
        yield _error("key_without_default", f"{table.name}.id", "an id is a uuid that the database makes where Python did not")
    if "deleted_at" in table.columns and not any("deleted_at" in (*_names_in(index), _where(index)) for index in _about_deletion(table)):
        yield _error("unindexed_deletion", table.name, "deleted rows are left out of every list: index deleted_at, for those that have it")
    for column in table.columns:
        if not isinstance(column.type, String | LargeBinary):
            continue
        if _COMPARED.fullmatch(column.name):
            yield _error("readable_secret", f"{table.name}.{column.name}", f"keep a digest of it, in {column.name}_hash")
        elif _READ_BACK.fullmatch(column.name) and not column.info["secret"]:
            yield _error("readable_secret", f"{table.name}.{column.name}", "keep a ciphertext of it, in a column with secret=True")


def _about_deletion(table: Table) -> Iterator[Index]:
    return (index for index in table.indexes if "deleted_at" in _names_in(index) or "deleted_at" in _where(index))


def _names_in(index: Index) -> list[str]:
    """Return the columns of an index in its order; of an expression, its first word."""
    return [getattr(expression, "name", None) or str(expression).split()[0] for expression in index.expressions]


def _where(index: Index) -> str:
    where = index.dialect_options["postgresql"].get("where")
    return "" if where is None else str(where)


# -------------------------------------------------------------------------------------------------------------- references


def _references(table: Table) -> Iterator[Finding]:
    for key in sorted(table.foreign_key_constraints, key=lambda key: str(key.name)):
        place = f"{table.name}.{key.name}"
        if key.ondelete is None:
            yield _error("reference_without_rule", place, "say what a deletion does: ondelete=CASCADE, SET NULL, RESTRICT or NO ACTION")
        if not _is_indexed(table, key):
            columns = ", ".join(_identifying(key))
            yield _error("reference_without_index", place, f"each deletion over there reads the whole table: add an index on {columns}")
        if is_tenant_table(key.referred_table) and not is_tenant_table(table):
            yield _error("reference_into_a_workspace", place, "a global row that hangs on a workspace's row belongs to it: make it tenant")


def _identifying(key: ForeignKeyConstraint) -> list[str]:
    """Return the columns that tell which row is meant: a lineage key repeats facts about that row beside."""
    return [element.parent.name for element in key.elements if element.column.primary_key] or list(key.column_keys)


def _is_indexed(table: Table, key: ForeignKeyConstraint) -> bool:
    wanted = _identifying(key)
    unique = [item for item in table.constraints if isinstance(item, PrimaryKeyConstraint | UniqueConstraint)]
    leading = [[column.name for column in item.columns] for item in unique]
    # NULL refers to nothing, so an index may leave it out; any other condition leaves out rows that are looked for.
    full = ("", *(f"{name} IS NOT NULL" for name in wanted))
    leading += [_names_in(index) for index in table.indexes if _where(index) in full]
    return any(sorted(names[: len(wanted)]) == sorted(wanted) for names in leading)


# ------------------------------------------------------------------------------------------------------ tenant, and global


def _tenant(table: Table) -> Iterator[Finding]:
    workspaces = [key for key in table.foreign_key_constraints if key.column_keys == ["workspace_id"]]
    if not any(key.referred_table.name == "workspaces" and key.ondelete == "CASCADE" for key in workspaces):
        yield _error("workspace_without_cascade", table.name, "a deleted workspace takes its rows along: add *WorkspaceEntity.keys()")
    for key in sorted(table.foreign_key_constraints, key=lambda key: str(key.name)):
        place = f"{table.name}.{key.name}"
        if is_tenant_table(key.referred_table):
            pairs = {(element.parent.name, element.column.name) for element in key.elements}
            if ("workspace_id", "workspace_id") not in pairs:
                yield _error("reference_across_workspaces", place, "on an id alone, rows can hang on another workspace's: use reference()")
            if key.ondelete not in (None, "CASCADE", "NO ACTION"):
                yield _error("unsafe_rule", place, f"{key.ondelete} would touch workspace_id, or refuse a whole tree: CASCADE or NO ACTION")
    yield from _leading(table)
    for column in table.columns:
        if isinstance(column.type, NativeEnum | Enum):
            message = "row-level security turns its comparison into a filter: use vocabulary_field()"
            yield _error("native_enum_in_tenant_table", f"{table.name}.{column.name}", message)


def _leading(table: Table) -> Iterator[Finding]:
    """Find keys and indexes that do not start with the workspace, but for indexes of references to global rows."""
    elsewhere = {
        element.parent.name for key in table.foreign_key_constraints for element in key.elements if not is_tenant_table(key.referred_table)
    }
    keys = [item for item in table.constraints if isinstance(item, PrimaryKeyConstraint | UniqueConstraint)]
    found = [(str(item.name), [column.name for column in item.columns], True) for item in keys]
    found += [(str(index.name), _names_in(index), bool(index.unique)) for index in table.indexes if not _has_workspace_word(index)]
    for name, columns, unique in sorted(found):
        if columns[0] != "workspace_id" and (unique or columns[0] not in elsewhere):
            yield _error(
                "key_without_workspace", f"{table.name}.{name}", "it starts with workspace_id, as the condition of every statement"
            )


def _has_workspace_word(index: Index) -> bool:
    """Whether the workspace is one of the words that an index of words has: it has no order that could start with something."""
    return index.dialect_options["postgresql"]["using"] == "gin" and "workspace_id" in str(next(iter(index.expressions)))


def _global(entity: type[Entity]) -> Iterator[Finding]:
    table = entity.__table__
    column = table.columns.get("workspace_id")
    if column is not None and not column.nullable:
        message = "each of its rows belongs to a workspace: derive from WorkspaceEntity, which filters and guards them"
        yield _error("unscoped_table", table.name, message)
    for column in table.columns:
        place = f"{table.name}.{column.name}"
        if isinstance(column.type, Enum):
            yield _error("enum_without_python", place, "Python has no StrEnum of these labels to compare with: use enum_field()")
        if isinstance(column.type, NativeEnum):
            for member in column.type.enum:
                if not _LABEL.fullmatch(member.value):
                    yield _error("unconventional_name", f"{place}.{member.value}", "labels of enums are written in capitals")
