"""What a deletion takes along: one case for each foreign key that the entities declare."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Connection, Engine, ForeignKeyConstraint, NullPool, create_engine, text
from sqlalchemy.exc import IntegrityError
from tests.full_databases import Filled, fill, fill_accounts

from stemmadb._conformance._tables import is_tenant_table
from stemmadb._test_server import DatabaseServer
from stemmadb.entity import metadata
from stemmadb.packs import packs

packs()
KEYS = [key for table in metadata.sorted_tables for key in sorted(table.foreign_key_constraints, key=lambda key: str(key.name))]


@dataclass(frozen=True)
class Full:
    """A database with rows in every table."""

    owner: Engine
    filled: Filled


@pytest.fixture(scope="module")
def full(stemmadb_server: DatabaseServer) -> Iterator[Full]:
    """A full database, which every test leaves as it was."""
    name = stemmadb_server.create()
    db = stemmadb_server.connect(name)
    owner = create_engine(db.direct_url, poolclass=NullPool)
    try:
        filled = fill(db, "full")
        with db.session(workspace=filled.workspace_id) as session:
            fill_accounts(session, filled.ids["user"], filled.workspace_id)
        yield Full(owner, filled)
    finally:
        owner.dispose()
        db.close()
        stemmadb_server.drop(name)


def name_of(key: ForeignKeyConstraint) -> str:
    return f"{key.table.name}.{key.name}"


def condition(columns: list[str], values: list[object]) -> str:
    """A WHERE clause on these columns; the values are ids and numbers of the database's own."""
    return " AND ".join(f"{column} = '{value}'" for column, value in zip(columns, values, strict=True))


def leave_only(connection: Connection, key: ForeignKeyConstraint) -> None:
    """Drop every other foreign key, for this transaction: what happens is then the doing of this one."""
    for other in KEYS:
        if other is not key:
            connection.exec_driver_sql(f"ALTER TABLE stemma.{other.table.name} DROP CONSTRAINT {other.name}")


def test_the_catalogue_has_these_keys(full: Full) -> None:
    """No foreign key of the database goes untested, and each says itself what a deletion does."""
    letters = {"a": "NO ACTION", "c": "CASCADE", "n": "SET NULL", "r": "RESTRICT"}
    with full.owner.connect() as connection:
        rows = connection.execute(
            text("SELECT conname, confdeltype::text FROM pg_constraint WHERE contype = 'f' AND connamespace = 'stemma'::regnamespace")
        ).all()
    assert {name: letters[rule] for name, rule in rows} == {key.name: key.ondelete for key in KEYS}
    assert len(rows) == len(KEYS) > 60


@pytest.mark.parametrize("key", KEYS, ids=name_of)
@pytest.mark.requirement("VR-105", "EC-002", "EC-092", "VR-043", "VR-044", "VR-045", "VR-046", "VR-047", "VR-048", "VR-049", "TN-028")
def test_a_deletion_does_what_the_key_says(full: Full, key: ForeignKeyConstraint) -> None:
    """CASCADE removes the rows that refer to it, SET NULL frees them, NO ACTION and RESTRICT keep the row that is referred to."""
    table, parent = key.table.name, key.referred_table.name
    ours, theirs = list(key.column_keys), [element.column.name for element in key.elements]
    with full.owner.connect() as connection:
        connection.exec_driver_sql(f"SET LOCAL stemma.workspace_id = '{full.filled.workspace_id}'")
        # Of the logs, rows that lose their workspace are no longer seen in it.
        connection.exec_driver_sql(f"ALTER TABLE stemma.{table} NO FORCE ROW LEVEL SECURITY")
        whole = " AND ".join(f"{column} IS NOT NULL" for column in ours)
        values = list(connection.exec_driver_sql(f"SELECT {', '.join(ours)} FROM stemma.{table} WHERE {whole} LIMIT 1").one())
        children = f"SELECT count(*) FROM stemma.{table} WHERE {condition(ours, values)}"
        before = connection.exec_driver_sql(children).scalar_one()
        total = connection.exec_driver_sql(f"SELECT count(*) FROM stemma.{table}").scalar_one()
        leave_only(connection, key)
        deletion = f"DELETE FROM stemma.{parent} WHERE {condition(theirs, values)}"
        if key.ondelete in ("NO ACTION", "RESTRICT"):
            with pytest.raises(IntegrityError) as refused:
                connection.exec_driver_sql(deletion)
            assert isinstance(refused.value.orig, psycopg.errors.ForeignKeyViolation | psycopg.errors.RestrictViolation)
            assert refused.value.orig.diag.constraint_name == key.name
        else:
            assert connection.exec_driver_sql(deletion).rowcount == 1
            assert connection.exec_driver_sql(children).scalar_one() == 0
            left = connection.exec_driver_sql(f"SELECT count(*) FROM stemma.{table}").scalar_one()
            # The deletion itself is on record.
            recorded = table == "audit_logs"
            assert left == (total - (table == parent) + recorded if key.ondelete == "SET NULL" else total - before)
            if key.ondelete == "SET NULL" and is_tenant_table(key.table):
                kept = connection.exec_driver_sql(f"SELECT DISTINCT workspace_id FROM stemma.{table}").scalars().all()
                assert kept == [UUID(str(full.filled.workspace_id))]
        connection.rollback()


@pytest.mark.parametrize("key", [key for key in KEYS if key.ondelete == "NO ACTION"], ids=name_of)
@pytest.mark.requirement("VR-108", "VR-105")
def test_what_is_in_use_goes_with_what_uses_it(full: Full, key: ForeignKeyConstraint) -> None:
    """NO ACTION looks at the end of the statement: one that removes both rows is accepted, so a workspace goes as a whole."""
    table, parent = key.table.name, key.referred_table.name
    with full.owner.connect() as connection:
        connection.exec_driver_sql(f"SET LOCAL stemma.workspace_id = '{full.filled.workspace_id}'")
        leave_only(connection, key)
        users = "" if table == parent else f"WITH gone AS (DELETE FROM stemma.{table}) "
        assert connection.exec_driver_sql(f"{users}DELETE FROM stemma.{parent}").rowcount > 0
        assert connection.exec_driver_sql(f"SELECT count(*) FROM stemma.{table}").scalar_one() == 0
        connection.rollback()
