"""Roles and what they may do."""

from __future__ import annotations

from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import create_engine
from tests.migrations.places import Place, Revisions

from stemmadb import migrations
from stemmadb.errors import PermissionDeniedError


@pytest.mark.requirement("AD-029")
def test_the_application_may_use_tables_and_not_empty_them(migrated: Place) -> None:
    """SELECT, INSERT, UPDATE and DELETE on a table; TRUNCATE, DDL and the version table are refused."""
    with migrated.connect("stemma_app") as app:
        app.execute("INSERT INTO stemma.users (email) VALUES ('a@example.com')")
        app.execute("UPDATE stemma.users SET name = 'A'")
        assert app.execute("SELECT name FROM stemma.users").fetchall() == [("A",)]
        app.execute("DELETE FROM stemma.users")
        versions = app.execute("SELECT version_num FROM stemma.stemma_alembic_version ORDER BY version_num").fetchall()
        assert versions == [("evaluation_0001",), ("reviews_0001",)]
        for refused in (
            "TRUNCATE stemma.users CASCADE",
            "ALTER TABLE stemma.users ADD COLUMN x text",
            "DELETE FROM stemma.stemma_alembic_version",
            "UPDATE stemma.audit_logs SET action = 'X'",
            "DELETE FROM stemma.security_events",
            "CREATE TABLE stemma.mine ()",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                app.execute(refused.encode())


@pytest.mark.requirement("AD-029")
def test_a_table_of_the_newest_revision_is_usable_at_once(migrated: Place, revisions: Revisions) -> None:
    """Grants and the maintenance policy come with the upgrade, without a step of their own."""
    revisions.add(
        "evaluation",
        "op.execute('CREATE TABLE stemma.notes (workspace_id uuid NOT NULL, id uuid PRIMARY KEY)'); op.enable_tenant('notes')",
        "op.execute('DROP TABLE stemma.notes')",
        depends_on=None,
    )
    migrations.upgrade(migrated)
    workspace, other = uuid4(), uuid4()
    with migrated.connect("stemma_app") as app, app.transaction():
        app.execute(f"SET LOCAL stemma.workspace_id = '{workspace}'".encode())
        app.execute("INSERT INTO stemma.notes VALUES (%s, %s)", [workspace, uuid4()])
        with pytest.raises(psycopg.errors.InsufficientPrivilege), app.transaction():
            app.execute("INSERT INTO stemma.notes VALUES (%s, %s)", [other, uuid4()])
    with migrated.connect("stemma_app") as app:
        assert app.execute("SELECT count(*) FROM stemma.notes").fetchone() == (0,)
        app.execute("SET ROLE stemma_maintenance")
        assert app.execute("SELECT count(*) FROM stemma.notes").fetchone() == (1,)


@pytest.mark.requirement("AD-029", "AD-021")
def test_only_maintenance_sees_every_workspace(migrated: Place) -> None:
    """Every table under row-level security has its policy for stemma_maintenance, and stemma_app does not inherit it."""
    guarded = migrated.ask("SELECT relname::text FROM pg_class WHERE relnamespace = 'stemma'::regnamespace AND relrowsecurity ORDER BY 1")
    policies = migrated.ask("SELECT tablename::text FROM pg_policies WHERE roles = '{stemma_maintenance}' ORDER BY 1")
    assert len(guarded) == 19
    assert policies == guarded
    assert migrated.ask("SELECT pg_has_role('stemma_app', 'stemma_maintenance', 'USAGE')") == [False]
    assert migrated.ask("SELECT pg_has_role('stemma_app', 'stemma_maintenance', 'SET')") == [True]


def test_an_upgrade_takes_back_what_was_granted_by_hand(migrated: Place) -> None:
    """Too much is revoked and too little granted, as every upgrade ends."""
    before = sorted(migrated.dump().splitlines())
    migrated.do("GRANT TRUNCATE ON stemma.users TO stemma_app", "REVOKE SELECT ON stemma.runs FROM stemma_app")
    migrated.do("REVOKE EXECUTE ON FUNCTION stemma.stemma_uuidv7() FROM PUBLIC", "DROP POLICY runs_maintenance ON stemma.runs")
    migrations.upgrade(migrated)
    migrated.do("GRANT EXECUTE ON FUNCTION stemma.stemma_uuidv7() TO PUBLIC")
    migrated.do("REVOKE EXECUTE ON FUNCTION stemma.stemma_uuidv7() FROM stemma_app, stemma_maintenance")
    # PostgreSQL lists grants in the order in which they were made.
    assert sorted(migrated.dump().splitlines()) == before


@pytest.mark.requirement("PF-053")
def test_roles_are_made_by_a_login_with_createrole(plain: Place) -> None:
    """``migrate roles`` first: the schema then belongs to stemma_owner, and the login acts as each of the roles."""
    assert migrations.roles(plain) == ("stemma_owner", "stemma_app", "stemma_maintenance")
    assert migrations.roles(plain) == ()
    migrations.upgrade(plain)
    login = plain.direct_url.username
    assert login
    assert set(
        plain.ask("SELECT pg_get_userbyid(relowner)::text FROM pg_class WHERE relnamespace = 'stemma'::regnamespace", user="postgres")
    ) == {"stemma_owner"}
    with plain.connect(login) as connection:
        for role in ("stemma_app", "stemma_maintenance"):
            connection.execute(f"SET ROLE {role}".encode())
            assert connection.execute("SELECT count(*) FROM stemma.runs").fetchone() == (0,)
        connection.execute("RESET ROLE")
        assert connection.execute("SELECT pg_has_role('stemma_maintenance', 'USAGE')").fetchone() == (False,)


def test_roles_may_come_after_the_schema(plain: Place) -> None:
    """Without the roles a database migrates as well; made later, they get their grants and policies at once."""
    migrations.upgrade(plain)
    assert plain.ask("SELECT count(*) FROM pg_policies WHERE policyname LIKE '%%maintenance'", user="postgres") == [0]
    plain.do("CREATE ROLE web_login LOGIN")
    try:
        migrations.roles(plain, login="web_login")
        with plain.connect("web_login") as connection:
            connection.execute("SET ROLE stemma_app")
            assert connection.execute("SELECT count(*) FROM stemma.users").fetchone() == (0,)
            connection.execute("SET ROLE stemma_maintenance")
            assert connection.execute("SELECT count(*) FROM stemma.definitions").fetchone() == (0,)
        migrations.upgrade(plain)
        assert migrations.status(plain).up_to_date
    finally:
        plain.do("DROP OWNED BY web_login", "DROP ROLE web_login")


def test_a_login_without_createrole_is_told(plain: Place) -> None:
    """The message names the login and the roles that an administrator would have to make."""
    plain.do(f"ALTER ROLE {plain.direct_url.username} NOCREATEROLE")
    with pytest.raises(PermissionDeniedError, match=f"{plain.direct_url.username} may not make roles.*stemma_owner, stemma_app"):
        migrations.roles(plain)


def test_grants_are_for_callers_with_a_connection_too(migrated: Place) -> None:
    """``renew_grants`` on a connection of the owner, in the caller's transaction."""
    migrated.do("REVOKE SELECT ON stemma.runs FROM stemma_app")
    engine = create_engine(migrated.direct_url)
    with engine.connect() as connection:
        migrations.renew_grants(connection)
        connection.rollback()
        assert migrated.ask("SELECT has_table_privilege('stemma_app', 'stemma.runs', 'SELECT')") == [False]
        migrations.renew_grants(connection)
        connection.commit()
    engine.dispose()
    assert migrated.ask("SELECT has_table_privilege('stemma_app', 'stemma.runs', 'SELECT')") == [True]


def test_roles_are_for_callers_with_a_connection_too(plain: Place) -> None:
    """``ensure_roles`` on a connection makes what is missing, in the caller's transaction; the second time that is nothing."""
    engine = create_engine(plain.direct_url)
    with engine.connect() as connection:
        assert len(migrations.ensure_roles(connection)) == 3
        connection.rollback()
        assert migrations.ensure_roles(connection) == ("stemma_owner", "stemma_app", "stemma_maintenance")
        connection.commit()
        assert migrations.ensure_roles(connection) == ()
        connection.rollback()
    engine.dispose()
