"""The catalogue of the running database beside what the entities and the revisions need; read-only, as any login."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from sqlalchemy import Column, Connection, Index, Table, text
from sqlalchemy.dialects import postgresql

from stemmadb import _heads
from stemmadb._doctor._kinds import KINDS, finding
from stemmadb.migrations._drift import inspect
from stemmadb.migrations._entities import tables_of
from stemmadb.reports import Finding

_COLUMNS = text(
    """
    SELECT pg_class.relname::text AS table, attname::text AS name, pg_catalog.format_type(atttypid, atttypmod) AS type,
           attnotnull AS required, atthasdef OR attidentity <> '' AS has_default
      FROM pg_catalog.pg_attribute
      JOIN pg_catalog.pg_class ON pg_class.oid = attrelid
     WHERE relnamespace = pg_catalog.to_regnamespace('stemma') AND relkind IN ('r', 'p') AND attnum > 0 AND NOT attisdropped
    """
)
_KEPT = text(
    """
    SELECT pg_class.relname::text AS table, conname::text AS name
      FROM pg_catalog.pg_constraint JOIN pg_catalog.pg_class ON pg_class.oid = conrelid
     WHERE relnamespace = pg_catalog.to_regnamespace('stemma')
     UNION ALL
    SELECT tables.relname::text, indexes.relname::text
      FROM pg_catalog.pg_index
      JOIN pg_catalog.pg_class AS indexes ON indexes.oid = indexrelid
      JOIN pg_catalog.pg_class AS tables ON tables.oid = indrelid
     WHERE tables.relnamespace = pg_catalog.to_regnamespace('stemma')
    """
)
_DISABLED_KEYS = text(
    """
    SELECT DISTINCT relname::text
      FROM pg_catalog.pg_trigger JOIN pg_catalog.pg_class ON pg_class.oid = tgrelid
     WHERE relnamespace = pg_catalog.to_regnamespace('stemma') AND tgisinternal AND tgenabled NOT IN ('O', 'A')
     ORDER BY 1
    """
)
_RULES = text(
    "SELECT tablename || '.' || rulename FROM pg_catalog.pg_rules WHERE schemaname = 'stemma' AND rulename <> '_RETURN' ORDER BY 1"
)
_DEFINERS = text(
    """
    SELECT oid::pg_catalog.regprocedure::text
      FROM pg_catalog.pg_proc
     WHERE pronamespace = pg_catalog.to_regnamespace('stemma') AND prosecdef
       AND NOT EXISTS (SELECT FROM pg_catalog.unnest(proconfig) AS setting (said) WHERE setting.said LIKE 'search_path=%')
     ORDER BY 1
    """
)
# Whoever owns a view reads its tables, unless the view is told otherwise.
_VIEWS = text(
    """
    SELECT DISTINCT views.oid::pg_catalog.regclass::text AS name, rolname::text AS owner
      FROM pg_catalog.pg_rewrite
      JOIN pg_catalog.pg_class AS views ON views.oid = ev_class AND views.relkind IN ('v', 'm')
      JOIN pg_catalog.pg_roles ON pg_roles.oid = views.relowner AND (rolsuper OR rolbypassrls)
      JOIN pg_catalog.pg_depend ON classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND objid = pg_rewrite.oid
      JOIN pg_catalog.pg_class AS tables ON tables.oid = refobjid AND refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
     WHERE tables.relnamespace = pg_catalog.to_regnamespace('stemma') AND tables.relrowsecurity
       AND NOT coalesce(views.reloptions && ARRAY['security_invoker=true', 'security_invoker=on', 'security_invoker=1'], false)
     ORDER BY 1
    """
)
# Extensions' own and PUBLIC's EXECUTE are no concern here: only who may make things on the search path of our transactions.
_OPEN_SCHEMAS = text(
    """
    SELECT nspname::text AS schema, CASE grantee WHEN 0 THEN 'public' ELSE pg_catalog.pg_get_userbyid(grantee)::text END AS role
      FROM pg_catalog.pg_namespace, pg_catalog.aclexplode(nspacl)
     WHERE nspname IN ('stemma', 'public') AND privilege_type = 'CREATE' AND grantee <> nspowner
       AND (grantee = 0 OR grantee NOT IN (SELECT oid FROM pg_catalog.pg_roles WHERE rolsuper)
            AND grantee NOT IN (SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname = 'stemma'))
     ORDER BY 1, 2
    """
)
_COLUMN_GRANTS = text(
    """
    SELECT DISTINCT relname || '.' || attname AS column,
           CASE grantee WHEN 0 THEN 'public' ELSE pg_catalog.pg_get_userbyid(grantee)::text END AS role
      FROM pg_catalog.pg_attribute
      JOIN pg_catalog.pg_class ON pg_class.oid = attrelid, pg_catalog.aclexplode(attacl)
     WHERE relnamespace = pg_catalog.to_regnamespace('stemma') AND relkind IN ('r', 'p') AND grantee <> relowner
     ORDER BY 1, 2
    """
)
_VACUUM = text(
    """
    SELECT pg_class.relname::text AS name,
           coalesce(reloptions && ARRAY['autovacuum_enabled=false', 'autovacuum_enabled=off'], false) AS off,
           coalesce(n_live_tup, 0) AS live, coalesce(n_dead_tup, 0) AS dead
      FROM pg_catalog.pg_class
      LEFT JOIN pg_catalog.pg_stat_all_tables ON pg_stat_all_tables.relid = pg_class.oid
     WHERE relnamespace = pg_catalog.to_regnamespace('stemma') AND relkind = 'r'
     ORDER BY 1
    """
)
_MANY_DEAD = 10_000
# A newer release may have brought them, or made them anew.
_OF_A_NEWER_RELEASE = frozenset(
    {"foreign_policy", "foreign_trigger", "foreign_function", "changed_trigger", "changed_function", "changed_labels", "changed_column"}
)


def examine_tables(connection: Connection, found: Collection[str]) -> list[Finding]:
    """
    Say what is wrong with tables, policies, triggers, functions and grants. Changes the search path until the transaction ends.

    Args:
        connection: of any login.
        found: the rows of the version table.
    """
    connection.exec_driver_sql("SET LOCAL search_path = pg_catalog")
    tables = tables_of({_heads.branch_of(id) for id in _heads.installed(found)})
    findings = [
        *(_named(drift) for drift in inspect(connection, tables, found)),
        *_columns(connection, tables),
        *_keys_and_indexes(connection, tables),
        *_around(connection),
        *_upkeep(connection),
    ]
    absent = {finding.object for finding in findings if finding.code == "missing_table"}
    newer = bool(_heads.unknown(found))
    return [
        finding
        for finding in findings
        if not (newer and finding.code in _OF_A_NEWER_RELEASE)
        # Of a table that is gone, its parts need not be named.
        and (finding.code == "missing_table" or finding.object.partition(".")[0] not in absent)
    ]


def _named(drift: Finding) -> Finding:
    """Return what ``migrate check`` says too, in the words of ``doctor``."""
    return KINDS[drift.code].finding(drift.code, drift.object, detail=drift.message)


# ----------------------------------------------------------------------------------------------------------------- entities


def _columns(connection: Connection, tables: Collection[Table]) -> Iterator[Finding]:
    have = {(row.table, row.name): row for row in connection.execute(_COLUMNS)}
    present = {table for table, _ in have}
    for table in tables:
        if table.name not in present:
            yield finding("missing_table", table.name)
            continue
        for column in table.columns:
            name, wanted = f"{table.name}.{column.name}", type_of(column)
            row = have.pop((table.name, column.name), None)
            if row is None:
                yield finding("missing_column", name, type=wanted)
            elif row.type != wanted or row.required != (not column.nullable):
                yield finding(
                    "changed_column",
                    name,
                    type=_with_null(wanted, required=not column.nullable),
                    found=_with_null(row.type, required=row.required),
                )
    ours = {table.name for table in tables}
    for (of_table, name), row in sorted(have.items()):
        if of_table in ours and row.required and not row.has_default:
            yield finding("required_column", f"{of_table}.{name}")


_SPELLED = {
    "char": "character",
    "varchar": "character varying",
    "float": "double precision",
    "decimal": "numeric",
    "timestamp": "timestamp without time zone",
}


def type_of(column: Column[object]) -> str:
    """Return a column's type as ``format_type`` spells it with nothing but pg_catalog on the search path."""
    written = column.type.compile(dialect=postgresql.dialect()).lower().replace(", ", ",")  # type: ignore[no-untyped-call]
    head = re.match(r"[a-z_.]+( precision| with(out)? time zone| varying)?", written)
    name = head[0] if head else written
    return _SPELLED.get(name, name) + written[len(name) :]


def _with_null(type: str, *, required: bool) -> str:
    return f"{type} NOT NULL" if required else type


def _keys_and_indexes(connection: Connection, tables: Collection[Table]) -> Iterator[Finding]:
    have = {(row.table, row.name) for row in connection.execute(_KEPT)}
    for table in tables:
        for index in sorted(table.indexes, key=_name):
            if (table.name, _name(index)) not in have:
                yield finding("missing_index", f"{table.name}.{_name(index)}")
        for name in sorted(str(constraint.name) for constraint in table.constraints if constraint.name is not None):
            if (table.name, name) not in have:
                yield finding("missing_constraint", f"{table.name}.{name}")


def _name(index: Index) -> str:
    return str(index.name)


# -------------------------------------------------------------------------------------------------------------------- others


def _around(connection: Connection) -> Iterator[Finding]:
    for table in connection.scalars(_DISABLED_KEYS):
        yield finding("disabled_foreign_keys", table)
    for rule in connection.scalars(_RULES):
        yield finding("foreign_rule", rule)
    for function in connection.scalars(_DEFINERS):
        yield finding("unsafe_definer", function)
    for view in connection.execute(_VIEWS):
        yield finding("view_bypasses_policies", view.name, owner=view.owner)
    for grant in connection.execute(_OPEN_SCHEMAS):
        yield finding("schema_open", grant.schema, role=grant.role)
    for grant in connection.execute(_COLUMN_GRANTS):
        yield finding("column_grant", grant.column, role=grant.role)


def _upkeep(connection: Connection) -> Iterator[Finding]:
    for row in connection.execute(_VACUUM):
        if row.off:
            yield finding("table_without_autovacuum", row.name)
        if row.dead > max(row.live, _MANY_DEAD):
            yield finding("dead_rows", row.name, dead=row.dead, live=row.live)
