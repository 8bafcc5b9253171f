"""
Operations that revisions may use beside Alembic's own.

    op.backfill("definitions", "UPDATE stemma.definitions SET message = '' WHERE workspace_id = :workspace_id AND message IS NULL")
    op.enable_tenant("definition_notes")
    op.create_index_concurrently("definitions_message_idx", "ON stemma.definitions (workspace_id, message)")
    op.create_document_function(DefinitionContent, 2)
"""

from __future__ import annotations

from typing import Any

from alembic.operations import MigrateOperation, Operations
from sqlalchemy import text

from stemmadb.documents import Document
from stemmadb.documents.steps import drop_upcast_function, upcast_function
from stemmadb.errors import MigrationError
from stemmadb.migrations._connection import LOCK_TIMEOUT, SCHEMA

WORKSPACE_RULE = "workspace_id = nullif(current_setting('stemma.workspace_id', true), '')::uuid"

_INDEX = text(
    """
    SELECT indisvalid AND indisready
      FROM pg_index
      JOIN pg_class ON pg_class.oid = indexrelid
      JOIN pg_namespace ON pg_namespace.oid = relnamespace
     WHERE nspname = :schema AND relname = :name
    """
)
# Deleted workspaces too: their rows are still there.
_WORKSPACES = text("SELECT id FROM stemma.workspaces ORDER BY id")


class _Backfill(MigrateOperation):
    def __init__(self, table: str, statement: str, *, repeat: bool) -> None:
        if ":workspace_id" not in statement:
            # An owner that bypasses row-level security would otherwise change every workspace, as often as there are workspaces.
            raise MigrationError(f"the backfill of {table} does not name :workspace_id: add it to the WHERE clause of every tenant table")
        self.table = table
        self.statement = statement
        self.repeat = repeat

    @classmethod
    def backfill(cls, operations: Operations, table: str, statement: str, *, repeat: bool = False) -> int:
        """
        Change the rows of a tenant table, one transaction for each workspace.

        The owner is under row-level security as everybody else, and migrations turn the silence of a policy into an error; so the
        workspace of each transaction is set. What was done stays done when a later workspace fails: write the statement so that it can
        run again (``AND new_column IS NULL``).

        Args:
            operations: ``op``, given by Alembic.
            table: the table, for messages.
            statement: names ``:workspace_id`` for every tenant table.
            repeat: run it in each workspace until it changes no row, for a statement that limits itself to a batch.

        Returns:
            How many rows were changed; 0 when the SQL is only written down.
        """
        return int(operations.invoke(cls(table, statement, repeat=repeat)))


class _EnableTenant(MigrateOperation):
    def __init__(self, table: str, schema: str) -> None:
        self.table = table
        self.schema = schema

    @classmethod
    def enable_tenant(cls, operations: Operations, table: str, *, schema: str = SCHEMA) -> None:
        """
        Put a table with a column ``workspace_id`` under row-level security, its owner included.

        Args:
            operations: ``op``, given by Alembic.
            table: the table.
            schema: where it is; an application's own tables may be scoped as well.
        """
        operations.invoke(cls(table, schema))


class _CreateIndexConcurrently(MigrateOperation):
    def __init__(self, name: str, definition: str, *, unique: bool) -> None:
        self.name = name
        self.definition = definition
        self.unique = unique

    @classmethod
    def create_index_concurrently(cls, operations: Operations, name: str, definition: str, *, unique: bool = False) -> None:
        """
        Build an index beside running writes, also where an earlier try broke off.

        An interrupted build leaves an invalid index, of which IF NOT EXISTS says that all is well: it is dropped and built again. Let it
        be the only statement of its revision, because it commits what came before.

        Args:
            operations: ``op``, given by Alembic.
            name: the index.
            definition: what follows the name: ``ON stemma.definitions (workspace_id, name)``.
            unique: whether equal keys are refused.
        """
        operations.invoke(cls(name, definition, unique=unique))


class _CreateDocumentFunction(MigrateOperation):
    def __init__(self, statement: str) -> None:
        self.statement = statement

    @classmethod
    def create_document_function(cls, operations: Operations, document: type[Document], version: int, *, schema: str = SCHEMA) -> None:
        """
        Make the function that brings stored documents to a version inside the database: ``stemma.definition_content_v2(jsonb)``.

        The version is part of the name, and the revision says which, so that it makes the same function when there are newer ones. When a
        release changes steps that were released, ``stemmadb migrate check`` and ``doctor`` find that the function is another one.

        Args:
            operations: ``op``, given by Alembic.
            document: a class whose steps up to that version are declared (``stemmadb.documents.steps``).
            version: the one that the function leads to.
            schema: where the function is made.

        Raises:
            ConfigurationError: a step is a function of Python.
        """
        operations.invoke(cls(upcast_function(document, version, schema=schema)))


class _DropDocumentFunction(_CreateDocumentFunction):
    @classmethod
    def drop_document_function(cls, operations: Operations, document: type[Document], version: int, *, schema: str = SCHEMA) -> None:
        """
        Drop a function made by ``op.create_document_function``. Refused while an index or a column uses it.

        Args:
            operations: ``op``, given by Alembic.
            document: as it was given there.
            version: likewise.
            schema: likewise.
        """
        operations.invoke(cls(drop_upcast_function(document, version, schema=schema)))


def register() -> None:
    """Make the operations known to Alembic; more than once does no harm."""
    if hasattr(Operations, "backfill"):
        return
    Operations.register_operation("backfill")(_Backfill)
    Operations.register_operation("enable_tenant")(_EnableTenant)
    Operations.register_operation("create_index_concurrently")(_CreateIndexConcurrently)
    Operations.register_operation("create_document_function")(_CreateDocumentFunction)
    Operations.register_operation("drop_document_function")(_DropDocumentFunction)
    Operations.implementation_for(_Backfill)(_backfill)
    Operations.implementation_for(_EnableTenant)(_enable_tenant)
    Operations.implementation_for(_CreateIndexConcurrently)(_create_index_concurrently)
    Operations.implementation_for(_CreateDocumentFunction)(_document_function)
    Operations.implementation_for(_DropDocumentFunction)(_document_function)


def _backfill(operations: Operations, operation: _Backfill) -> int:
    context = operations.get_context()
    if context.as_sql:
        operations.execute(text(_as_loop(operation)))
        return 0
    changed = 0
    with context.autocommit_block():
        connection = operations.get_bind()
        for (id,) in connection.execute(_WORKSPACES).all():
            while True:
                connection.exec_driver_sql("BEGIN")
                # The policy is meant to apply here, so it must not raise.
                connection.exec_driver_sql(f"SET LOCAL row_security = on; SET LOCAL stemma.workspace_id = '{id}'")
                count = connection.execute(text(operation.statement), {"workspace_id": id}).rowcount
                connection.exec_driver_sql("COMMIT")
                changed += count
                if not operation.repeat or count == 0:
                    break
    return changed


def _as_loop(operation: _Backfill) -> str:
    """Write a backfill as SQL that finds the workspaces when it runs."""
    statement = operation.statement.strip().rstrip(";").replace(":workspace_id", "the_workspace")
    again = "      GET DIAGNOSTICS changed = ROW_COUNT;\n      EXIT WHEN changed = 0;\n" if operation.repeat else "      EXIT;\n"
    return (  # the statement is a revision's own text
        "DO $backfill$\nDECLARE the_workspace uuid; changed bigint;\nBEGIN\n"  # noqa: S608
        "  SET LOCAL row_security = on;\n"
        "  FOR the_workspace IN SELECT id FROM stemma.workspaces ORDER BY id LOOP\n"
        "    PERFORM set_config('stemma.workspace_id', the_workspace::text, true);\n"
        f"    LOOP\n      {statement};\n{again}    END LOOP;\n  END LOOP;\nEND $backfill$"
    )


def _enable_tenant(operations: Operations, operation: _EnableTenant) -> None:
    quote = operations.get_context().dialect.identifier_preparer.quote
    table = f"{quote(operation.schema)}.{quote(operation.table)}"
    operations.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    operations.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    policy = quote(f"{operation.table}_tenant")
    operations.execute(f"CREATE POLICY {policy} ON {table} USING ({WORKSPACE_RULE}) WITH CHECK ({WORKSPACE_RULE})")


def _create_index_concurrently(operations: Operations, operation: _CreateIndexConcurrently) -> None:
    context = operations.get_context()
    quote: Any = context.dialect.identifier_preparer.quote
    unique = "UNIQUE " if operation.unique else ""
    create = f"CREATE {unique}INDEX CONCURRENTLY {quote(operation.name)} {operation.definition}"
    drop = f"DROP INDEX CONCURRENTLY IF EXISTS {SCHEMA}.{quote(operation.name)}"
    with context.autocommit_block():
        if context.as_sql:
            operations.execute(drop)
            operations.execute(create)
            return
        connection = operations.get_bind()
        valid = connection.scalar(_INDEX, {"schema": SCHEMA, "name": operation.name})
        if valid:
            return
        # It waits for transactions to end, and nobody waits for it meanwhile.
        connection.exec_driver_sql("SET lock_timeout = 0")
        try:
            connection.execute(text(drop))
            connection.execute(text(create))
        finally:
            connection.exec_driver_sql(f"SET lock_timeout = '{LOCK_TIMEOUT}'")


def _document_function(operations: Operations, operation: _CreateDocumentFunction) -> None:
    operations.execute(operation.statement)
