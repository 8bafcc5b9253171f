"""The roles and the database that the library works with, made by the bootstrap superuser."""

from __future__ import annotations

from psycopg import Connection, connect, sql

# Held while roles and databases are made, so that processes that start at once find them or make them, and never half of both.
_LOCK = 7_310_577_423_906_154

_ROLES = {
    "stemma_owner": sql.SQL("LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS"),
    "stemma_app": sql.SQL("LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS"),
    "stemma_maintenance": sql.SQL("NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS"),
}


def prepare_database(conninfo: str, database: str) -> None:
    """Make what is missing of the three roles and of *database*, which stemma_owner owns. Attributes of existing roles are put right."""
    with connect(conninfo, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
        _make_roles(connection)
        if connection.execute("SELECT FROM pg_database WHERE datname = %s", [database]).fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER stemma_owner").format(sql.Identifier(database)))


def _make_roles(connection: Connection) -> None:
    for name, attributes in _ROLES.items():
        known = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [name]).fetchone() is not None
        verb = sql.SQL("ALTER" if known else "CREATE")
        connection.execute(sql.SQL("{} ROLE {} {}").format(verb, sql.Identifier(name), attributes))
    # Not inherited: a policy TO a role holds for whoever inherits that role, and every session would see all workspaces.
    connection.execute("GRANT stemma_maintenance TO stemma_app, stemma_owner WITH INHERIT FALSE, SET TRUE")
