"""
The catalogue beside the entities and the revisions: what row-level security, triggers, functions and grants are, and should be.

Only reads, so that ``stemmadb doctor`` may ask as the run-time login too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, Table, text

from stemmadb import _heads
from stemmadb.migrations._connection import VERSION_TABLE
from stemmadb.migrations._expected import Expected, expected
from stemmadb.migrations._grants import MAINTENANCE
from stemmadb.reports import Finding

# As pg_get_expr writes them, on 16, 17 and 18 alike.
_WORKSPACE = "(NULLIF(current_setting('stemma.workspace_id'::text, true), ''::text))::uuid"
_IN_WORKSPACE = f"(workspace_id = {_WORKSPACE})"
_IN_WORKSPACE_OR_NONE = f"(NOT (workspace_id IS DISTINCT FROM {_WORKSPACE}))"
_OWN_ROWS = "(user_id = (NULLIF(current_setting('stemma.user_id'::text, true), ''::text))::uuid)"

_SETTLE_PATH = text("SELECT set_config('search_path', 'pg_catalog', true)")
_TABLES = text(
    """
    SELECT relname AS name, relrowsecurity AS enabled, relforcerowsecurity AS forced, pg_get_userbyid(relowner) AS owner,
           (SELECT attnotnull FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'workspace_id') AS tenant
      FROM pg_class
     WHERE relnamespace = to_regnamespace('stemma') AND relkind IN ('r', 'p')
    """
)
_POLICIES = text(
    """
    SELECT relname AS table, polname AS name, polpermissive AS permissive, polcmd::text AS command,
           ARRAY(SELECT CASE role WHEN 0 THEN 'public' ELSE pg_get_userbyid(role)::text END FROM unnest(polroles) AS role) AS roles,
           pg_get_expr(polqual, polrelid) AS visible, pg_get_expr(polwithcheck, polrelid) AS writable
      FROM pg_policy
      JOIN pg_class ON pg_class.oid = polrelid
     WHERE relnamespace = to_regnamespace('stemma')
    """
)
_TRIGGERS = text(
    """
    SELECT relname AS table, tgname AS name, tgenabled::text AS enabled, pg_get_triggerdef(pg_trigger.oid) AS definition
      FROM pg_trigger
      JOIN pg_class ON pg_class.oid = tgrelid
     WHERE relnamespace = to_regnamespace('stemma') AND NOT tgisinternal
    """
)
_FUNCTIONS = text("SELECT proname AS name, prosrc AS body FROM pg_proc WHERE pronamespace = to_regnamespace('stemma')")
_ENUMS = text(
    """
    SELECT typname AS name, array_agg(enumlabel::text ORDER BY enumsortorder) AS labels
      FROM pg_enum
      JOIN pg_type ON pg_type.oid = enumtypid
     WHERE typnamespace = to_regnamespace('stemma')
     GROUP BY typname
    """
)
_CHECKS = text(
    """
    SELECT relname AS table, conname AS name, pg_get_constraintdef(pg_constraint.oid) AS definition, convalidated AS validated
      FROM pg_constraint
      JOIN pg_class ON pg_class.oid = conrelid
     WHERE relnamespace = to_regnamespace('stemma') AND contype IN ('c', 'f')
    """
)
_INVALID_INDEXES = text(
    """
    SELECT relname AS name
      FROM pg_index
      JOIN pg_class ON pg_class.oid = indexrelid
     WHERE relnamespace = to_regnamespace('stemma') AND NOT (indisvalid AND indisready)
    """
)
_GRANTS = text(
    """
    SELECT relname AS table, CASE grantee WHEN 0 THEN 'public' ELSE pg_get_userbyid(grantee)::text END AS role,
           array_agg(privilege_type ORDER BY privilege_type) AS privileges
      FROM pg_class, aclexplode(relacl)
     WHERE relnamespace = to_regnamespace('stemma') AND relkind IN ('r', 'p') AND grantee <> relowner
     GROUP BY 1, 2
    """
)
_ROLES = text("SELECT rolname::text FROM pg_roles WHERE rolname IN ('stemma_app', 'stemma_maintenance')")
_UNUSABLE = text(
    """
    SELECT 'function' AS kind, oid::regprocedure::text AS name
      FROM pg_proc WHERE pronamespace = to_regnamespace('stemma') AND NOT has_function_privilege(CAST(:role AS text), oid, 'EXECUTE')
     UNION ALL
    SELECT 'schema', 'stemma' WHERE NOT has_schema_privilege(CAST(:role AS text), to_regnamespace('stemma'), 'USAGE')
    """
)


def inspect(connection: Connection, tables: Collection[Table], found: Collection[str]) -> list[Finding]:
    """
    Compare policies, triggers, functions, enums, vocabularies, indexes and grants with what they should be.

    Works in the caller's transaction and ends nothing.

    Args:
        connection: of any login that may use the schema.
        tables: the entities' tables that the database should have.
        found: the rows of the version table.
    """
    connection.execute(_SETTLE_PATH)
    made = expected(_heads.installed(found))
    rows = {row.name: row for row in connection.execute(_TABLES)}
    return [
        *_row_security(connection, rows, made),
        *_triggers(connection, made),
        *_functions(connection, made),
        *_labels(connection, tables),
        *_unfinished(connection),
        *_ownership(rows.values()),
        *_grants(connection, rows),
    ]


def _row_security(connection: Connection, tables: dict[str, Row[Any]], made: Expected) -> Iterator[Finding]:
    policies = {(row.table, row.name): row for row in connection.execute(_POLICIES)}
    maintenance = MAINTENANCE in set(connection.scalars(_ROLES))
    guarded = {name for name, row in tables.items() if row.tenant} | {table for table, _ in made.policies}
    wanted = set(made.policies) | {(name, f"{name}_tenant") for name, row in tables.items() if row.tenant}
    if maintenance:
        wanted |= {(name, f"{name}_maintenance") for name in guarded if name in tables}
    for name in sorted(guarded & tables.keys()):
        if not tables[name].enabled:
            yield Finding("row_security_off", "error", name, "row-level security is not enabled: every workspace sees every row")
        if not tables[name].forced:
            yield Finding("row_security_not_forced", "error", name, "row-level security is not forced: its owner sees every row")
    for table, name in sorted(wanted):
        if table in tables and (table, name) not in policies:
            yield Finding(
                "missing_policy", "error", f"{table}.{name}", "the policy is missing: run stemmadb migrate up, or create it again"
            )
    for key, row in sorted(policies.items()):
        if key not in wanted:
            yield Finding(
                "foreign_policy", "error", ".".join(key), "no revision made this policy, and one more may only let more rows through"
            )
        elif (rule := _rule(row, bool(tables[row.table].tenant))) is not None and rule != _as_written(row):
            yield Finding("changed_policy", "error", ".".join(key), f"it should be {rule}, and is {_as_written(row)}")


def _rule(policy: Row[Any], tenant: bool) -> tuple[Any, ...] | None:
    """Return what a policy should say; None for one that only a revision knows."""
    table = policy.table
    if policy.name == f"{table}_tenant":
        rule = _IN_WORKSPACE if tenant else _IN_WORKSPACE_OR_NONE
        return (True, "*", ("public",), rule, rule)
    if policy.name == f"{table}_maintenance":
        return (True, "*", (MAINTENANCE,), "true", "true")
    if policy.name == "workspace_members_self":
        return (True, "r", ("public",), _OWN_ROWS, None)
    return None


def _as_written(policy: Row[Any]) -> tuple[Any, ...]:
    return (policy.permissive, policy.command, tuple(policy.roles), policy.visible, policy.writable)


def _triggers(connection: Connection, made: Expected) -> Iterator[Finding]:
    rows = {(row.table, row.name): row for row in connection.execute(_TRIGGERS)}
    for key, definition in sorted(made.triggers.items()):
        name = ".".join(key)
        if key not in rows:
            yield Finding("missing_trigger", "error", name, "the trigger is missing: create it again, as its revision does")
        elif rows[key].enabled != "O":
            yield Finding("disabled_trigger", "error", name, f"ALTER TABLE stemma.{key[0]} ENABLE TRIGGER {key[1]} puts it back")
        elif _plain(rows[key].definition) != _plain(definition):
            yield Finding("changed_trigger", "error", name, f"it should be {' '.join(definition.split())}, and is {rows[key].definition}")
    for key in sorted(rows.keys() - made.triggers.keys()):
        yield Finding("foreign_trigger", "warning", ".".join(key), "no revision made this trigger")


def _plain(definition: str) -> str:
    """Return a definition without what differs between how it is written and how PostgreSQL shows it."""
    return re.sub(r"[\s()]|or replace", "", definition.lower())


def _functions(connection: Connection, made: Expected) -> Iterator[Finding]:
    rows = {row.name: row.body for row in connection.execute(_FUNCTIONS)}
    for name, bodies in sorted(made.functions.items()):
        if name not in rows:
            yield Finding("missing_function", "error", name, "the function is missing: create it again, as its revision does")
        elif rows[name] not in bodies:
            yield Finding("changed_function", "error", name, "its body is not that of its revision")
    for name in sorted(rows.keys() - made.functions.keys()):
        yield Finding("foreign_function", "warning", name, "no revision made this function: keep your own in another schema")


def _labels(connection: Connection, tables: Collection[Table]) -> Iterator[Finding]:
    """Compare enums, and the CHECKs of text vocabularies, with the StrEnums of Python."""
    enums = {row.name: tuple(row.labels) for row in connection.execute(_ENUMS)}
    checks = {(row.table, row.name): row.definition for row in connection.execute(_CHECKS)}
    for table in sorted(tables, key=lambda table: table.name):
        for column in table.columns:
            enum: type[StrEnum] | None = getattr(column.type, "enum", None)
            if not (isinstance(enum, type) and issubclass(enum, StrEnum)):
                continue
            wanted = tuple(member.value for member in enum)
            native = getattr(column.type, "name", None)
            name = f"{table.name}.{column.name}"
            if native is not None:
                have = enums.get(native, ())
            else:
                check = checks.get((table.name, f"{table.name}_{column.name}_check"), "")
                have = tuple(re.findall(r"'([^']*)'::text", check))
            if set(have) != set(wanted) or (native is not None and have != wanted):
                yield Finding(
                    "changed_labels",
                    "error",
                    name,
                    f"{enum.__name__} has {', '.join(wanted)}; the database has {', '.join(have) or 'none'}",
                )


def _unfinished(connection: Connection) -> Iterator[Finding]:
    for name in connection.scalars(_INVALID_INDEXES):
        yield Finding(
            "invalid_index", "error", name, f"its build was interrupted: DROP INDEX CONCURRENTLY stemma.{name}, and run the migration again"
        )
    for row in connection.execute(_CHECKS):
        if not row.validated:
            yield Finding(
                "unvalidated_constraint",
                "warning",
                f"{row.table}.{row.name}",
                f"older rows were not looked at: ALTER TABLE stemma.{row.table} VALIDATE CONSTRAINT {row.name}",
            )


def _ownership(tables: Collection[Row[Any]]) -> Iterator[Finding]:
    owners = sorted({row.owner for row in tables})
    if len(owners) > 1:
        yield Finding("several_owners", "warning", "stemma", f"its tables belong to {', '.join(owners)}: migrations need one owner")


def _grants(connection: Connection, tables: dict[str, Row[Any]]) -> Iterator[Finding]:
    held = {(row.role, row.table): set(row.privileges) for row in connection.execute(_GRANTS)}
    for role in connection.scalars(_ROLES).all():
        for name in sorted(tables):
            if tables[name].owner == role:
                continue
            have, want = held.get((role, name), set()), _privileges(name)
            if missing := sorted(want - have):
                yield Finding("missing_grant", "error", name, f"{role} lacks {', '.join(missing)}: run stemmadb migrate up")
            if excess := sorted(have - want):
                yield Finding("excess_grant", "error", name, f"{role} may {', '.join(excess)} and should not: run stemmadb migrate up")
        for row in connection.execute(_UNUSABLE, {"role": role}):
            yield Finding("missing_grant", "error", row.name, f"{role} may not use this {row.kind}: run stemmadb migrate up")
    for role, name in sorted(held):
        if role == "public":
            yield Finding("public_grant", "error", name, f"every login may use it: REVOKE ALL ON stemma.{name} FROM PUBLIC")


def _privileges(table: str) -> set[str]:
    if table == VERSION_TABLE:
        return {"SELECT"}
    if table in ("audit_logs", "security_events"):
        return {"SELECT", "INSERT"}
    return {"SELECT", "INSERT", "UPDATE", "DELETE"}
