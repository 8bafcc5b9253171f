"""The catalogue of a migrated database, over all packs: what every table has, what guards it, and which index answers what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, NullPool, Table, Uuid, create_engine, text
from sqlalchemy.orm import Session
from tests.full_databases import fill, fill_accounts

from stemmadb import tenancy
from stemmadb._conformance._tables import is_tenant_table
from stemmadb._test_server import DatabaseServer
from stemmadb.database import Database
from stemmadb.entity import Entity, NaturalKey, SoftDelete, Versioned, WorkspaceEntity, metadata
from stemmadb.packs import packs
from stemmadb.testing import make_workspace

packs()
TABLES = metadata.sorted_tables
TENANTS = [table for table in TABLES if is_tenant_table(table)]


def name_of(table: Table) -> str:
    return table.name


def entities() -> list[type[Entity]]:
    """Every entity with a table."""
    return [mapper.class_ for mapper in Entity.__dict__["_sa_registry"].mappers if mapper.class_.__table__ in TABLES]


# ------------------------------------------------------------------------------------------------------------- every table


@pytest.mark.requirement("VR-041", "TN-026", "EC-042", "EC-043", "EC-044", "EC-045", "EC-046", "EC-047")
def test_the_database_has_the_tables_of_the_entities(session: Session) -> None:
    """Those, under their names in snake case, and the table of the migrations."""
    found = set(session.execute(text("SELECT table_name FROM information_schema.tables WHERE table_schema = 'stemma'")).scalars())
    assert found == {table.name for table in TABLES} | {"stemma_alembic_version"}
    assert {"users", "api_keys", "definitions", "runs", "transcripts", "scenarios", "experiments", "run_comparisons"} <= found
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in found)


@pytest.mark.requirement("EC-020", "EC-245")
def test_every_row_has_its_times(session: Session) -> None:
    """created_at and updated_at are timestamptz NOT NULL DEFAULT now() in all tables, junctions and logs included."""
    rows = session.execute(
        text(
            "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns "
            "WHERE table_schema = 'stemma' AND column_name IN ('created_at', 'updated_at')"
        )
    ).all()
    assert {(table, column) for table, column, *_ in rows} == {
        (table.name, column) for table in TABLES for column in ("created_at", "updated_at")
    }
    assert {tuple(facts) for _, _, *facts in rows} == {("timestamp with time zone", "NO", "now()")}


@pytest.mark.requirement("EC-021")
def test_raw_sql_moves_the_times_and_versions(committed_db: Database, owner: Engine) -> None:
    """An UPDATE of raw SQL moves updated_at in every table, and the version where there is one; document rewrites move neither."""
    filled = fill(committed_db, "full")
    with committed_db.session(workspace=filled.workspace_id) as session:
        fill_accounts(session, filled.ids["user"], filled.workspace_id)
    versioned = {entity.__tablename__ for entity in entities() if issubclass(entity, Versioned)}
    assert versioned >= {"definitions", "experiments", "cohorts"}
    with owner.connect() as connection:
        connection.exec_driver_sql(f"SET LOCAL stemma.workspace_id = '{filled.workspace_id}'")
        for table in TABLES:
            if table.name == "stemma_seed_history":
                continue
            version = "version" if table.name in versioned else "0"
            before = connection.exec_driver_sql(f"SELECT max(updated_at), max({version}) FROM stemma.{table.name}").one()
            # Guards refuse changes of what is frozen; this changes nothing.
            column = next(column.name for column in table.columns if column.computed is None and column.name not in _KEPT)
            for rewrite, moved in (("on", False), ("off", True)):
                connection.exec_driver_sql(f"SET LOCAL stemma.rewrite = '{rewrite}'")
                if table.name in ("audit_logs", "security_events"):
                    continue  # append-only
                connection.exec_driver_sql(f"UPDATE stemma.{table.name} SET {column} = {column}")
                after = connection.exec_driver_sql(f"SELECT max(updated_at), max({version}) FROM stemma.{table.name}").one()
                assert (after[0] > before[0]) is moved, table.name
                assert after[1] - before[1] == (1 if moved and table.name in versioned else 0), table.name
        connection.rollback()


_KEPT = ("workspace_id", "id", "created_at", "updated_at", "version")


@pytest.mark.requirement("EC-022")
def test_ids_are_made_by_the_database_too(session: Session) -> None:
    """Every id has a default that makes a UUIDv7, ordered by time; tables without one have a key of their own."""
    rows = session.execute(
        text("SELECT table_name, column_default FROM information_schema.columns WHERE table_schema = 'stemma' AND column_name = 'id'")
    ).all()
    assert {table for table, _ in rows} == {entity.__tablename__ for entity in entities() if not issubclass(entity, NaturalKey)}
    assert {re.sub(r"stemma\.", "", default) for _, default in rows} == {"stemma_uuidv7()"}
    made = [session.scalar(text("SELECT stemma.stemma_uuidv7()")) for _ in range(3)]
    assert {id.version for id in made} == {7}
    milliseconds = [id.int >> 80 for id in made]
    assert milliseconds == sorted(milliseconds)


# Ids of things outside the database, of a family that is no table, and of rows of any table.
_NO_REFERENCES = {
    *(("oauth_accounts", "provider_account_id"), ("books", "external_id")),
    *(("user_sessions", "family_id"), ("audit_logs", "entity_id")),
    *(("past_places", "cluster_id"), ("past_places", "previous_transaction_id")),
}


@pytest.mark.offline
@pytest.mark.requirement("EC-002")
def test_every_id_of_another_row_is_a_reference() -> None:
    """A column called ..._id has a foreign key, but for those that name no row of ours."""
    bare = {
        (table.name, column.name)
        for table in TABLES
        for column in table.columns
        if column.name.endswith("_id") and not column.foreign_keys and not column.primary_key
    }
    assert bare == _NO_REFERENCES
    assert [name for table, name in bare if isinstance(metadata.tables[f"stemma.{table}"].columns[name].type, Uuid)] == ["family_id"]


@pytest.mark.offline
@pytest.mark.requirement("EC-023")
def test_what_is_hidden_is_indexed() -> None:
    """Tables with deleted_at have an index on it, of the deleted rows alone."""
    hidden = {table.name for table in TABLES if "deleted_at" in table.columns}
    assert hidden == {entity.__tablename__ for entity in entities() if issubclass(entity, SoftDelete)} == {"users", "workspaces", "reviews"}
    for name in hidden:
        (index,) = [index for index in metadata.tables[f"stemma.{name}"].indexes if index.name == f"{name}_deleted_at_idx"]
        assert str(index.dialect_options["postgresql"]["where"]) == "deleted_at IS NOT NULL"


@pytest.mark.offline
@pytest.mark.requirement("TN-041", "TN-037")
def test_every_table_is_either_a_workspaces_or_global() -> None:
    """By its class, and so by its key: there is no list that could be forgotten."""
    for entity in entities():
        assert tenancy.is_tenant(entity) is issubclass(entity, WorkspaceEntity) is is_tenant_table(entity.__table__)
    assert len(TENANTS) == 17


# ----------------------------------------------------------------------------------------------------- row-level security


@pytest.mark.requirement("TN-042", "TN-045")
def test_one_policy_text_guards_every_tenant_table(owner: Engine) -> None:
    """ENABLE and FORCE on each of the 17, and one policy with the same text for what is seen and what is written."""
    with owner.connect() as connection:
        tables = connection.execute(
            text(
                "SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class "
                "WHERE relnamespace = 'stemma'::regnamespace AND relkind = 'r' AND relrowsecurity"
            )
        ).all()
        policies = connection.execute(
            text(
                "SELECT tablename, policyname, permissive, roles::text[], cmd, qual, with_check FROM pg_policies "
                "WHERE schemaname = 'stemma' AND policyname = tablename || '_tenant'"
            )
        ).all()
    guarded = {name for name, enabled, forced in tables if enabled and forced}
    # The two with a nullable workspace_id show, outside of a workspace, the rows of none.
    special = {"audit_logs", "stemma_idempotency_keys"}
    assert guarded == {table.name for table in TENANTS} | special
    rules = {(permissive, tuple(roles), *rule) for name, _, permissive, roles, *rule in policies if name not in special}
    assert len([name for name, *_ in policies if name not in special]) == 17
    assert len(rules) == 1
    (rule,) = rules
    permissive, roles, command, visible, writable = rule
    assert (permissive, roles, command) == ("PERMISSIVE", ("public",), "ALL")
    assert visible == writable
    assert "stemma.workspace_id" in visible


@pytest.mark.requirement("TN-043")
def test_the_application_is_held_by_the_policies(session: Session) -> None:
    """Sessions act as stemma_app, which owns nothing, is no superuser and bypasses nothing."""
    facts = session.execute(
        text(
            "SELECT rolname, rolsuper, rolbypassrls, EXISTS (SELECT FROM pg_class WHERE relowner = pg_roles.oid) "
            "FROM pg_roles WHERE rolname = current_user"
        )
    ).one()
    assert tuple(facts) == ("stemma_app", False, False, False)


# ----------------------------------------------------------------------------------------------------------------- indexes


def plan_of(session: Session, statement: str) -> str:
    """The plan of a statement, as the application's role."""
    return "\n".join(session.execute(text(f"EXPLAIN (COSTS OFF) {statement}")).scalars())


@pytest.fixture(scope="module")
def busy(stemmadb_server: DatabaseServer) -> Iterator[tuple[Database, UUID]]:
    """A database with thousands of rows in a workspace, of which the planner knows."""
    name = stemmadb_server.create()
    db = stemmadb_server.connect(name)
    owner = create_engine(db.direct_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    try:
        workspaces = [make_workspace(db, slug) for slug in ("busy", "busier")]
        for workspace_id in workspaces:
            with db.session(workspace=workspace_id) as session:
                for statement in _BUSY:
                    session.execute(text(statement))
        with owner.connect() as connection:
            for statement in _BUSY_ACCOUNTS:
                connection.execute(text(statement))
            connection.exec_driver_sql("ANALYZE")
        yield db, workspaces[0]
    finally:
        owner.dispose()
        db.close()
        stemmadb_server.drop(name)


# One in twenty is waiting.
_BUSY = (
    "INSERT INTO stemma.definitions (name, content) SELECT 'Root ' || n, '{}' FROM generate_series(1, 400) AS n",
    """
    INSERT INTO stemma.definitions (parent_id, root_id, depth, name, content)
    SELECT id, id, 1, name, '{}' FROM stemma.definitions, generate_series(1, 5) WHERE depth = 0
    """,
    "INSERT INTO stemma.scenarios (definition_id, name, content) SELECT id, 'one', '{}' FROM stemma.definitions WHERE depth = 0",
    """
    INSERT INTO stemma.runs (definition_id, config, status)
    SELECT id, '{}', CASE WHEN row_number() OVER () % 20 = 0 THEN 'RUNNING' ELSE 'PENDING' END FROM stemma.definitions
    """,
    """
    INSERT INTO stemma.transcripts (run_id, scenario_id, model, content)
    SELECT runs.id, scenarios.id, 'a:b', '{}'
      FROM stemma.runs JOIN stemma.scenarios ON scenarios.workspace_id = runs.workspace_id
     WHERE runs.status = 'RUNNING'
     LIMIT 6000
    """,
    """
    INSERT INTO stemma.run_slots (run_id, scenario_id, model, status, finished_at)
    SELECT run.id, scenarios.id, 'a:' || n, CASE WHEN n = 1 THEN 'QUEUED' ELSE 'SKIPPED' END, CASE WHEN n > 1 THEN now() END
      FROM (SELECT id FROM stemma.runs ORDER BY id LIMIT 2) AS run, stemma.scenarios, generate_series(1, 10) AS n
    """,
    """
    INSERT INTO stemma.approval_items (type, title, status)
    SELECT 'run', 'Item ' || n, CASE WHEN n % 20 = 0 THEN 'PENDING' ELSE 'CANCELLED' END FROM generate_series(1, 3000) AS n
    """,
)

# Few sessions are over and not yet cleaned up.
_BUSY_ACCOUNTS = (
    "INSERT INTO stemma.users (email) SELECT 'user' || n || '@busy.example' FROM generate_series(1, 3000) AS n",
    """
    INSERT INTO stemma.user_sessions (user_id, family_id, refresh_token_hash, created_at, expires_at, idle_expires_at, revoked_at)
    SELECT id, gen_random_uuid(), sha256(convert_to(id || '-' || n, 'UTF8')), now() - interval '60 days',
           now() + make_interval(days => 10 - n * 10), now() + make_interval(days => 10 - n * 10), CASE WHEN n = 1 THEN now() END
      FROM stemma.users, generate_series(0, 2) AS n
     WHERE n < 2 OR hashtext(email) % 20 = 0
    """,
    "INSERT INTO stemma.roles (name) SELECT 'busy' || n FROM generate_series(1, 30) AS n",
    """
    INSERT INTO stemma.user_roles (user_id, role_id)
    SELECT users.id, roles.id FROM stemma.users, stemma.roles WHERE roles.name LIKE 'busy1%'
    """,
    """
    INSERT INTO stemma.audit_logs (action, entity, entity_id, created_at)
    SELECT 'UPDATE', 'users', id::text, now() - n * interval '1 day' FROM stemma.users, generate_series(1, 2) AS n
    """,
    """
    INSERT INTO stemma.security_events (user_id, type, created_at)
    SELECT id, CASE n WHEN 1 THEN 'LOGIN' ELSE 'LOGIN_FAILED' END, now() - n * interval '1 day'
      FROM stemma.users, generate_series(1, 9) AS n
    """,
)


@pytest.mark.requirement("AD-020", "TN-027", "EC-015")
@pytest.mark.parametrize(
    ("statement", "index", "column"),
    [
        ("SELECT id FROM stemma.runs WHERE {own} AND status = 'RUNNING'", "runs_status_created_at_idx", "status"),
        ("SELECT id FROM stemma.runs WHERE status = 'RUNNING' ORDER BY created_at DESC LIMIT 9", "runs_status_created_at_idx", "status"),
        (
            "SELECT model FROM stemma.run_slots WHERE {own} AND run_id = '{some}' AND status = 'QUEUED'",
            "run_slots_run_id_status_available_at_idx",
            "status",
        ),
        (
            "SELECT id FROM stemma.approval_items WHERE {own} AND status = 'PENDING' ORDER BY priority DESC, created_at LIMIT 9",
            "approval_items_queue_idx",
            "status",
        ),
        ("SELECT id FROM stemma.definitions WHERE {own} AND parent_id = '{some}'", "definitions_parent_id_idx", "parent_id"),
        ("SELECT id FROM stemma.transcripts WHERE {own} AND scenario_id = '{some}'", "transcripts_scenario_id_idx", "scenario_id"),
    ],
)
def test_conditions_stay_index_conditions_under_row_level_security(
    busy: tuple[Database, UUID], statement: str, index: str, column: str
) -> None:
    """Vocabularies are text, whose comparison is leakproof: a status is looked up in the index, not filtered behind the policy."""
    db, workspace_id = busy
    with db.session(workspace=workspace_id) as session:
        plan = plan_of(session, statement.format(own=f"workspace_id = '{workspace_id}'", some=uuid4()))
    looked_up, filtered = ("".join(re.findall(rf"{kind}: (.*)", plan)) for kind in ("Index Cond", r"(?<!One-Time )Filter"))
    assert index in plan
    assert column in looked_up
    assert "workspace_id" in looked_up
    assert column not in filtered


@pytest.mark.requirement("EC-105", "EC-115", "EC-116", "EC-118", "EC-041", "EC-047")
@pytest.mark.parametrize(
    ("statement", "index"),
    [
        ("SELECT id FROM stemma.user_sessions WHERE user_id = '{w}'", "user_sessions_user_id_revoked_at_idx"),
        ("SELECT id FROM stemma.user_sessions WHERE expires_at < now() AND revoked_at IS NULL", "user_sessions_expires_at_revoked_at_idx"),
        ("SELECT role_id FROM stemma.user_roles WHERE user_id = '{w}'", "user_roles_pkey"),
        ("SELECT user_id FROM stemma.user_roles WHERE role_id = '{w}'", "user_roles_role_id_idx"),
        (
            "SELECT id FROM stemma.audit_logs WHERE entity = 'users' AND entity_id = 'x' ORDER BY created_at DESC LIMIT 10",
            "audit_logs_entity_entity_id_created_at_idx",
        ),
        ("SELECT id FROM stemma.audit_logs WHERE created_at > now() ORDER BY created_at", "audit_logs_created_at_idx"),
        ("SELECT id FROM stemma.security_events WHERE type = 'LOGIN' ORDER BY created_at DESC", "security_events_type_created_at_idx"),
        ("SELECT id FROM stemma.security_events WHERE user_id = '{w}'", "security_events_user_id_created_at_idx"),
    ],
)
def test_common_questions_have_an_index(busy: tuple[Database, UUID], statement: str, index: str) -> None:
    """Clean-up, history, and whatever is asked on every request are answered by an index, without sorting."""
    db, _ = busy
    with db.session() as session:
        session.execute(text("SET LOCAL enable_seqscan = off"))
        session.execute(text("SET LOCAL enable_bitmapscan = off"))
        plan = plan_of(session, statement.format(w=uuid4()))
    assert index in plan
    assert "Sort" not in plan
