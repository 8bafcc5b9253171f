"""An application beside us in the same database: its connections, its tables, its own Alembic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, Text, Uuid, create_engine
from tests.migrations.places import Place

from stemmadb import entity, migrations

Rows = Callable[..., Any]


@pytest.fixture
def host(migrated: Place) -> Any:
    """A connection of a host: neither role nor search path is ours, the workspace is set for its session."""
    with migrated.connect("postgres") as connection:
        connection.execute("SET search_path = public")
        owner = connection.execute("INSERT INTO stemma.users (email) VALUES ('o@example.com') RETURNING id").fetchone()
        assert owner
        workspace = connection.execute(
            "INSERT INTO stemma.workspaces (owner_id, name, slug) VALUES (%s, 'W', 'w') RETURNING id", [owner[0]]
        ).fetchone()
        assert workspace
        connection.execute(f"SET stemma.workspace_id = '{workspace[0]}'".encode())
        yield connection


def _one(connection: psycopg.Connection[Any], query: str, *params: object) -> Any:
    row = connection.execute(query.encode(), params or None).fetchone()
    assert row
    return row[0] if len(row) == 1 else row


def _definition(host: psycopg.Connection[Any], **columns: object) -> UUID:
    values = {"name": "d", "content": "{}", **columns}
    names = ", ".join(values)
    places = ", ".join(["%s"] * len(values))
    made: UUID = _one(host, f"INSERT INTO stemma.definitions ({names}) VALUES ({places}) RETURNING id", *values.values())
    return made


def _refused(host: psycopg.Connection[Any], constraint: str, statement: str, *params: object) -> None:
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        host.execute(statement.encode(), params or None)
    assert refused.value.diag.constraint_name == constraint


@pytest.mark.requirement("AD-030", "AD-028")
def test_defaults_and_trees_work_without_our_search_path(host: psycopg.Connection[Any]) -> None:
    """Ids, the workspace, the root of a tree, generated versions and hashes."""
    root = _definition(host, content='{"schema_version": 3}')
    assert _one(host, "SELECT root_id, depth, content_version, octet_length(content_hash) FROM stemma.definitions") == (root, 0, 3, 32)
    child = _definition(host, parent_id=root, root_id=root, depth=1)
    assert _one(host, "SELECT root_id, parent_depth FROM stemma.definitions WHERE id = %s", child) == (root, 0)
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        _definition(host, parent_id=child, root_id=root, depth=7)


@pytest.mark.requirement("AD-030")
def test_ids_are_version_7_and_in_order(host: psycopg.Connection[Any]) -> None:
    """On every supported version, from PostgreSQL's own function or the substitute."""
    ids = []
    for number in range(5):
        ids.append(_definition(host, name=f"d{number}"))
        host.execute("SELECT pg_sleep(0.002)")
    assert {id.version for id in ids} == {7}
    assert {id.variant for id in ids} == {"specified in RFC 4122"}
    assert ids == sorted(ids)


@pytest.mark.requirement("AD-030", "AD-002", "AD-010", "AD-011")
def test_guards_refuse_without_our_search_path(host: psycopg.Connection[Any]) -> None:
    """Each guard by its constraint name."""
    frozen = _definition(host)
    host.execute("UPDATE stemma.definitions SET name = 'draft'")
    host.execute("UPDATE stemma.definitions SET frozen_at = now()")
    _refused(host, "definitions_frozen", "UPDATE stemma.definitions SET name = 'x'")
    _refused(host, "definitions_frozen", "UPDATE stemma.definitions SET frozen_at = NULL")
    _refused(host, "definitions_parent_immutable", "UPDATE stemma.definitions SET depth = 1")
    host.execute("INSERT INTO stemma.scenarios (definition_id, name, content) VALUES (%s, 's', '{}')", [frozen])
    _refused(host, "scenarios_immutable", "UPDATE stemma.scenarios SET content = '{\"a\": 1}'")
    experiment = _one(host, "INSERT INTO stemma.experiments (name, analysis_plan, plan_frozen_at) VALUES ('e', '{}', now()) RETURNING id")
    _refused(host, "experiments_plan_frozen", "UPDATE stemma.experiments SET analysis_plan = NULL, plan_frozen_at = NULL")
    host.execute("INSERT INTO stemma.experiment_amendments (experiment_id, sequence, plan, reason) VALUES (%s, 1, '{}', 'r')", [experiment])
    _refused(host, "experiment_amendments_immutable", "UPDATE stemma.experiment_amendments SET reason = 'x'")
    run = _one(
        host,
        "INSERT INTO stemma.runs (definition_id, config, slot_count, progress, started_at) VALUES (%s, '{}', 2, NULL, now()) RETURNING id",
        frozen,
    )
    _refused(host, "runs_config_frozen", "UPDATE stemma.runs SET config = '{\"a\": 1}'")
    _refused(host, "runs_slots_planned", "UPDATE stemma.runs SET slot_count = 3")
    _refused(host, "runs_definition_immutable", "UPDATE stemma.runs SET definition_id = gen_random_uuid()")
    host.execute("INSERT INTO stemma.rubrics (name, content) VALUES ('r', '{}')")
    _refused(host, "rubrics_immutable", "UPDATE stemma.rubrics SET content = '{\"a\": 1}'")
    host.execute(
        "INSERT INTO stemma.analysis_results (run_id, analysis_type, input_hash, output) VALUES (%s, 'a', sha256(''), '{}')", [run]
    )
    _refused(host, "analysis_results_immutable", "UPDATE stemma.analysis_results SET version = 2")


@pytest.mark.requirement("AD-030")
def test_counters_and_times_move_without_our_search_path(host: psycopg.Connection[Any]) -> None:
    """version and updated_at move with raw SQL, not twice, and not when documents are rewritten."""
    id = _one(host, "INSERT INTO stemma.cohorts (name) VALUES ('c') RETURNING id")
    stamp = "SELECT version, updated_at FROM stemma.cohorts"
    version, at = _one(host, stamp)
    host.execute("UPDATE stemma.cohorts SET description = 'x'")
    raw = _one(host, stamp)
    assert raw[0] == version + 1
    assert raw[1] > at
    host.execute("UPDATE stemma.cohorts SET description = 'y', version = version + 1 WHERE id = %s", [id])
    assert _one(host, stamp)[0] == version + 2
    before = _one(host, stamp)
    with host.transaction():
        host.execute("SET LOCAL stemma.rewrite = 'on'")
        host.execute("UPDATE stemma.cohorts SET criteria = '{\"schema_version\": 2}'")
    assert _one(host, stamp) == before


@pytest.mark.requirement("AD-030")
def test_logs_only_grow_without_our_search_path(host: psycopg.Connection[Any]) -> None:
    """UPDATE and DELETE are refused, but deleting a user or a workspace empties what points at it."""
    user = _one(host, "INSERT INTO stemma.users (email) VALUES ('gone@example.com') RETURNING id")
    host.execute(
        "INSERT INTO stemma.audit_logs (user_id, workspace_id, action, entity, entity_id) "
        "VALUES (%s, stemma.stemma_workspace_id(), 'CREATE', 'runs', '1')",
        [user],
    )
    _refused(host, "audit_logs_append_only", "UPDATE stemma.audit_logs SET action = 'X'")
    _refused(host, "audit_logs_append_only", "DELETE FROM stemma.audit_logs")
    host.execute("DELETE FROM stemma.users WHERE id = %s", [user])
    assert _one(host, "SELECT user_id, workspace_id IS NULL FROM stemma.audit_logs WHERE entity = 'runs'") == (None, False)
    host.execute("DELETE FROM stemma.workspaces")
    assert _one(host, "SELECT workspace_id FROM stemma.audit_logs WHERE entity = 'runs'") is None


def _host_tables() -> MetaData:
    metadata = MetaData()
    users = entity.metadata.tables["stemma.users"]
    Table("users", metadata, Column("id", Integer, primary_key=True), Column("name", Text))
    Table("orders", metadata, Column("id", Integer, primary_key=True), Column("user_id", Uuid, ForeignKey(users.c.id)))
    return metadata


def _host_diff(place: Place, metadata: Any, **options: Any) -> list[Any]:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = create_engine(place.direct_url)
    try:
        with engine.connect() as connection:
            found: list[Any] = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
            return found
    finally:
        engine.dispose()


@pytest.mark.requirement("VR-093")
def test_a_hosts_autogenerate_sees_none_of_our_tables(migrated: Place) -> None:
    """A host has tables called users and orders, one pointing at ours: its Alembic proposes nothing about ours."""
    from stemmadb.packs import packs

    packs()
    metadata = _host_tables()
    engine = create_engine(migrated.direct_url.set(username="postgres"))
    with engine.begin() as connection:
        metadata.create_all(connection)
    engine.dispose()
    assert _host_diff(migrated, metadata) == []

    def not_ours(name: str | None, type: str, _parents: object) -> bool:
        return type != "schema" or name != "stemma"

    assert _host_diff(migrated, metadata, include_schemas=True, include_name=not_ours) == []


def test_a_hosts_own_version_table_is_left_alone(empty: Place, tmp_path: Path) -> None:
    """Ours has a name and a schema of its own, up and down."""
    empty.do("CREATE TABLE public.alembic_version (version_num text)", "INSERT INTO public.alembic_version VALUES ('host')")
    migrations.upgrade(empty)
    migrations.downgrade(empty, "base@base", with_dependents=True)
    assert empty.ask("SELECT version_num FROM public.alembic_version", user="postgres") == ["host"]


def test_the_version_table_is_ours_alone(migrated: Place) -> None:
    """A host's ``alembic_version`` stays its own."""
    assert migrated.ask("SELECT relname::text FROM pg_class WHERE relname LIKE '%alembic%version' AND relkind = 'r'") == [
        "stemma_alembic_version"
    ]
