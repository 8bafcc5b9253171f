"""Counting stored documents by their version, over all workspaces."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, case, func, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from stemmadb import errors
from stemmadb.documents._column import DocumentColumn
from stemmadb.documents._guard import stored_version
from stemmadb.documents._registered import registered_columns
from stemmadb.documents._reports import ColumnCensus
from stemmadb.documents._write_version import write_version

if TYPE_CHECKING:
    from stemmadb.database import Database
    from stemmadb.documents._document import Document

# Tables that are not there are left out: a pack that is not installed has none.
_TABLES = text(
    """
    SELECT wanted.name, pg_class.relrowsecurity AS has_policies,
           EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'stemma_maintenance') AS has_role
      FROM unnest(CAST(:names AS text[])) AS wanted (name)
      JOIN pg_catalog.pg_class ON pg_class.oid = pg_catalog.to_regclass(wanted.name)
    """
)
_quoted = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]


def census(db: Database, column: Any = None) -> tuple[ColumnCensus, ...]:
    """
    Count the rows of document columns by the version at which they are stored.

    Reads every row, but a large document only where its table has no ``<column>_version``. Where a table belongs to workspaces it counts
    all of them, as stemma_maintenance, and leaves a record in audit_logs.

    Args:
        db: where.
        column: ``"transcripts.metrics"``, or the attribute of a mapped class; None counts every column of the installed packs.

    Returns:
        One for each column, in the order of the packs, without those whose tables are not in the database.

    Raises:
        PermissionDeniedError: a table belongs to workspaces, and the login may not read all of them.
        ValidationError: there is no such column.
    """
    columns = registered_columns() if column is None else dict([find_column(column)])
    with every_row(db, columns.values(), "documents.census") as (session, tables):
        return tuple(count(session, name, found) for name, found in columns.items() if table_of(found) in tables)


def find_column(wanted: Any) -> tuple[str, Column[Any]]:
    """
    Return a document column, under its name ``table.column``.

    Args:
        wanted: this name, for a column of an installed pack; or a mapped attribute, or a column.

    Raises:
        ValidationError: it is none.
    """
    if isinstance(wanted, str):
        columns = registered_columns()
        if wanted not in columns:
            raise errors.ValidationError(f"{wanted!r} is no column of documents: use one of {', '.join(columns)}", "column")
        return wanted, columns[wanted]
    mapped = getattr(wanted, "property", None)
    column = wanted if mapped is None else mapped.columns[0]
    if not isinstance(column, Column) or not isinstance(column.type, DocumentColumn):
        raise errors.ValidationError("this is no column of documents: give table.column, or an attribute that holds documents", "column")
    return f"{column.table.name}.{column.name}", column


@contextlib.contextmanager
def every_row(db: Database, columns: Iterable[Column[Any]], reason: str) -> Iterator[tuple[Session, frozenset[str]]]:
    """
    Open a session that sees every row of the columns' tables; what is raised inside becomes a StemmaError.

    Args:
        db: where.
        columns: of which tables.
        reason: what the record in audit_logs says, when a table belongs to workspaces.

    Yields:
        The session, and those of the tables that the database has.

    Raises:
        PermissionDeniedError: a table belongs to workspaces, and the login may not read all of them.
    """
    # The query module imports this package.
    from stemmadb.query import translated

    with db.session(read_only=True) as session, translated():
        found = session.execute(_TABLES, {"names": sorted({table_of(column) for column in columns})}).all()
    with contextlib.ExitStack() as stack:
        if any(table.has_policies for table in found):
            _require_maintenance(db, has_role=found[0].has_role)
            session = stack.enter_context(db.all_workspaces(reason=reason))
        else:
            session = stack.enter_context(db.session())
        stack.enter_context(translated())
        yield session, frozenset(table.name for table in found)


def _require_maintenance(db: Database, *, has_role: bool) -> None:
    if db._host is not None:
        message = "documents of all workspaces cannot be reached through the engine of a host: use stemmadb.connect() with a URL"
        raise errors.PermissionDeniedError("stemma_maintenance", message)
    if not has_role:
        message = "documents of all workspaces need the role stemma_maintenance: make it with stemmadb migrate roles"
        raise errors.PermissionDeniedError("stemma_maintenance", message)


def count(session: Session, name: str, column: Column[Any]) -> ColumnCensus:
    """Count the rows of one column."""
    version = case((column.is_(None), None), else_=stored_version(column)).label("version")
    rows = session.connection().execute(select(version, func.count()).select_from(column.table).group_by(version))
    counted: dict[int | None, int] = {found: number for found, number in rows}  # noqa: C416  (a row is no pair to type checkers)
    kind: Any = column.type
    document: type[Document] = kind.document
    return ColumnCensus(
        column=name,
        document=document.__name__,
        newest_version=document.newest_version,
        write_version=write_version(document),
        versions={found: counted[found] for found in sorted(found for found in counted if found is not None and found >= 0)},
        malformed=counted.get(-1, 0),
        without=counted.get(None, 0),
    )


def table_of(column: Column[Any]) -> str:
    """Return the name of a column's table as SQL takes it."""
    return _quoted.format_table(column.table)
