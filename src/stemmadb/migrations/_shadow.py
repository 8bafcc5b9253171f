"""
Tables as the entities describe them, beside the tables as they are.

PostgreSQL keeps expressions in a form of its own, so texts of CHECKs, defaults, generated columns and indexes only compare after it has
read both. The entities' tables are therefore made in a schema that is gone when the transaction is rolled back.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, MetaData, Table, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateSchema

from stemmadb.migrations._connection import SCHEMA, VERSION_TABLE
from stemmadb.reports import Finding

_SHADOW = "stemma_shadow"

_COLUMNS = text(
    """
    SELECT pg_class.relname || '.' || attname AS name,
           format_type(atttypid, atttypmod)
             || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END
             || CASE attgenerated WHEN 's' THEN ' GENERATED ALWAYS AS (' || pg_get_expr(adbin, adrelid) || ') STORED'
                                  ELSE coalesce(' DEFAULT ' || pg_get_expr(adbin, adrelid), '') END AS definition
      FROM pg_attribute
      JOIN pg_class ON pg_class.oid = attrelid
      LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
     WHERE relnamespace = CAST(:schema AS regnamespace) AND relkind IN ('r', 'p') AND attnum > 0 AND NOT attisdropped
    """
)
# From 18 on NOT NULL is a constraint too; the columns already say it.
_CONSTRAINTS = text(
    """
    SELECT relname || '.' || conname AS name, pg_get_constraintdef(pg_constraint.oid) AS definition
      FROM pg_constraint
      JOIN pg_class ON pg_class.oid = conrelid
     WHERE relnamespace = CAST(:schema AS regnamespace) AND contype IN ('c', 'f', 'p', 'u', 'x')
    """
)
_INDEXES = text(
    """
    SELECT tables.relname || '.' || indexes.relname AS name, pg_get_indexdef(indexrelid) AS definition
      FROM pg_index
      JOIN pg_class AS indexes ON indexes.oid = indexrelid
      JOIN pg_class AS tables ON tables.oid = indrelid
     WHERE tables.relnamespace = CAST(:schema AS regnamespace)
       AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u', 'x'))
    """
)
_ENUMS = text(
    """
    SELECT typname AS name, string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder) AS definition
      FROM pg_enum
      JOIN pg_type ON pg_type.oid = enumtypid
     WHERE typnamespace = CAST(:schema AS regnamespace)
     GROUP BY typname
    """
)
_TABLES = text(
    "SELECT relname::text FROM pg_class WHERE relnamespace = CAST(:schema AS regnamespace) AND relkind IN ('r', 'p', 'v', 'm') "
    "AND relname <> :version_table"
)
_KINDS = {"column": _COLUMNS, "constraint": _CONSTRAINTS, "index": _INDEXES, "enum": _ENUMS}


def compare(connection: Connection, metadata: MetaData, tables: Collection[Table]) -> list[Finding]:
    """
    Compare tables, columns, constraints, indexes and enums with the entities.

    Changes nothing: whatever it makes is rolled back. Locks none of the real tables.

    Args:
        connection: of a login that may create a schema; no transaction is open.
        metadata: the library's tables.
        tables: those that the database should have, with every table that they refer to.
    """
    transaction = connection.begin()
    try:
        expected = _make(connection, metadata, tables)
        found = _read(connection, SCHEMA)
        present = set(connection.scalars(_TABLES, {"schema": SCHEMA, "version_table": VERSION_TABLE}))
    except DBAPIError as error:
        return [Finding("entities_refused", "error", "entities", f"PostgreSQL refuses the tables of the entities: {error.orig}")]
    finally:
        transaction.rollback()
    names = {table.name for table in tables}
    return [
        *(
            Finding("missing_table", "error", name, "the entities have it, the database does not: write a revision")
            for name in sorted(names - present)
        ),
        *(
            Finding("extra_table", "error", name, "no entity describes it: write one, or keep your own tables in another schema")
            for name in sorted(present - names)
        ),
        *(finding for kind in _KINDS for finding in _differences(kind, expected[kind], found[kind], names & present)),
    ]


def _make(connection: Connection, metadata: MetaData, tables: Collection[Table]) -> dict[str, dict[str, str]]:
    connection.execute(CreateSchema(_SHADOW))
    connection.exec_driver_sql(f"SET LOCAL search_path = {SCHEMA}")
    # Only for this transaction and this object: the caller's connection keeps its own options.
    shadowed = connection.execution_options(schema_translate_map={SCHEMA: _SHADOW})
    try:
        metadata.create_all(shadowed, tables=list(tables), checkfirst=False)
    finally:
        connection.execution_options(schema_translate_map=None)
    return _read(connection, _SHADOW)


def _read(connection: Connection, schema: str) -> dict[str, dict[str, str]]:
    # Nothing but pg_catalog on the path, so that every name is written with its schema.
    connection.exec_driver_sql("SET LOCAL search_path = pg_catalog")
    found: dict[str, dict[str, str]] = {}
    for kind, statement in _KINDS.items():
        rows: Any = connection.execute(statement, {"schema": schema})
        found[kind] = {row.name: _normal(row.definition) for row in rows}
    return found


def _normal(definition: str) -> str:
    return re.sub(rf"\b{_SHADOW}\.", f"{SCHEMA}.", definition)


def _differences(kind: str, expected: dict[str, str], found: dict[str, str], tables: Collection[str]) -> list[Finding]:
    findings = []
    for name in sorted(expected.keys() | found.keys()):
        table = name.partition(".")[0]
        if kind != "enum" and table not in tables:
            continue
        want, have = expected.get(name), found.get(name)
        if have is None:
            findings.append(Finding(f"missing_{kind}", "error", name, f"the entities say {want}; the database has none"))
        elif want is None:
            findings.append(Finding(f"extra_{kind}", "error", name, f"the database has {have}; no entity says so"))
        elif want != have:
            findings.append(Finding(f"changed_{kind}", "error", name, f"the entities say {want}; the database has {have}"))
    return findings
