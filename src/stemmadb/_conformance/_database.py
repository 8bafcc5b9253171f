"""A pack in a database: what its revisions make of it, up and down and up again, beside what its entities say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, text

from stemmadb import _heads, migrations
from stemmadb._conformance import _seeds
from stemmadb.database import Database
from stemmadb.entity import Entity, Versioned
from stemmadb.errors import StemmaError
from stemmadb.migrations import _drift, _shadow
from stemmadb.migrations._connection import SCHEMA, connected
from stemmadb.packs import Pack
from stemmadb.reports import Finding

_PRESENT = text("SELECT relname::text FROM pg_class WHERE relnamespace = to_regnamespace('stemma') AND relkind IN ('r', 'p')")


def check(pack: Pack, db: Database) -> Iterator[Finding]:
    """Yield what is wrong with a pack in a database, which is migrated and filled for it."""
    if pack.branch not in _heads.branches():
        yield Finding("missing_branch", "error", pack.name, f"there are no migrations of the branch {pack.branch}")
        return
    try:
        migrations.upgrade(db)
        yield from (finding for finding in migrations.check(db).findings if finding.severity == "error")
        yield from _triggers(pack, db)
        yield from _round_trip(pack, db)
    except StemmaError as error:
        yield Finding("migration_failed", "error", pack.branch, str(error))
        return
    yield from _seeds.check_twice(pack, db)


# ---------------------------------------------------------------------------------------------------------------- triggers


def _triggers(pack: Pack, db: Database) -> Iterator[Finding]:
    with connected(db) as connection:
        definitions = {(row.table, row.name): row.definition for row in connection.execute(_drift._TRIGGERS)}
    for entity in pack.entities:
        for name, function in _needed(entity):
            table = entity.__tablename__
            definition = definitions.get((table, f"{table}_{name}"), "")
            if "BEFORE UPDATE ON" not in definition or f"EXECUTE FUNCTION stemma.{function}()" not in definition:
                message = f"raw SQL gets past it: CREATE TRIGGER {table}_{name} BEFORE UPDATE ... EXECUTE FUNCTION stemma.{function}()"
                yield Finding("table_without_trigger", "error", f"{table}.{table}_{name}", message)


def _needed(entity: type[Entity]) -> list[tuple[str, str]]:
    version = [("bump_version", "stemma_bump_version")] if issubclass(entity, Versioned) else []
    return [("set_updated_at", "stemma_set_updated_at"), *version]


# -------------------------------------------------------------------------------------------------------------- up, down, up


def _round_trip(pack: Pack, db: Database) -> Iterator[Finding]:
    before = _snapshot(db)
    migrations.downgrade(db, f"{pack.branch}@base", with_dependents=True)
    left = _tables(db) & {entity.__tablename__ for entity in pack.entities}
    for table in sorted(left):
        yield Finding("leftover_table", "error", table, f"stemmadb migrate down {pack.branch}@base leaves it: drop it in downgrade()")
    migrations.upgrade(db)
    after = _snapshot(db)
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            message = f"up, down and up again, it is {after.get(key, 'gone')}; it was {before.get(key, 'not there')}"
            yield Finding("changed_by_round_trip", "error", " ".join(key), message)


def _tables(db: Database) -> set[str]:
    with connected(db) as connection:
        return set(connection.scalars(_PRESENT))


def _snapshot(db: Database) -> dict[tuple[str, str], Any]:
    """Return the definition of everything in the schema, by kind and name."""
    with connected(db) as connection:
        found = _shadow._read(connection, SCHEMA)
        return {
            **{(kind, name): definition for kind, things in found.items() for name, definition in things.items()},
            **_rows(connection, "policy", _drift._POLICIES, 2),
            **_rows(connection, "trigger", _drift._TRIGGERS, 2),
            **_rows(connection, "function", _drift._FUNCTIONS, 1),
            **_rows(connection, "grants", _drift._GRANTS, 2),
        }


def _rows(connection: Connection, kind: str, statement: Any, key_length: int) -> dict[tuple[str, str], Any]:
    return {(kind, ".".join(row[:key_length])): tuple(row[key_length:]) for row in connection.execute(statement)}
