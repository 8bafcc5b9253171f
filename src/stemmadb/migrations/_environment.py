"""What ``alembic/env.py`` does: the settings of Alembic that every command shares."""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import Connection, MetaData

from stemmadb.errors import MigrationError
from stemmadb.migrations import _operations
from stemmadb.migrations._connection import SCHEMA, VERSION_TABLE

__all__ = ["compare_options", "run"]

_operations.register()


def run() -> None:
    """
    Run the command that Alembic was started with.

    Raises:
        MigrationError: the connection is missing or has begun a transaction. Alembic would take that one for the caller's, and closing
            the connection would undo the migrations without a word.
    """
    attributes = context.config.attributes
    options: dict[str, Any] = {
        "version_table": VERSION_TABLE,
        "version_table_schema": SCHEMA,
        "transaction_per_migration": True,
        **attributes.get("options", {}),
    }
    if context.is_offline_mode():
        context.configure(dialect_name="postgresql", literal_binds=True, dialect_opts={"paramstyle": "named"}, **options)
    else:
        connection: Connection | None = attributes.get("connection")
        if connection is None:
            raise MigrationError("these migrations are run by the command stemmadb migrate, not by alembic itself")
        if connection.in_transaction():
            raise MigrationError("migrations need a connection on which no transaction is open: commit or roll back first")
        context.configure(connection=connection, **options)
    with context.begin_transaction():
        context.run_migrations()


def compare_options(metadata: MetaData, tables: frozenset[str]) -> dict[str, Any]:
    """
    Return the settings of Alembic for comparing these tables, and no others, with a database.

    Args:
        metadata: the library's tables.
        tables: names without schema.
    """

    def include_name(name: str | None, type: str, _parents: object) -> bool:
        if type == "schema":
            return name == SCHEMA
        return type != "table" or name in tables

    def include_object(_object: object, name: str | None, type: str, _reflected: bool, _other: object) -> bool:
        return type != "table" or name in tables

    return {
        "target_metadata": metadata,
        "include_schemas": True,
        "include_name": include_name,
        "include_object": include_object,
        "compare_type": True,
        "compare_server_default": True,
        "autogenerate_plugins": ["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname"],
    }
