"""``stemmadb migrate check``: the revisions, the entities, and a database made from them."""

from __future__ import annotations

import time

from sqlalchemy import Connection, text

from stemmadb import _heads
from stemmadb.migrations import _shadow
from stemmadb.migrations._connection import HasDirectUrl, connected, found
from stemmadb.migrations._drift import inspect
from stemmadb.migrations._entities import metadata, tables_of
from stemmadb.migrations._lint import lint
from stemmadb.reports import CheckReport, Finding

_SERVER = text("SELECT current_setting('server_version')")


def check(db: HasDirectUrl) -> CheckReport:
    """
    Tell whether revisions, entities and a database agree.

    Looks at the revisions (one line in each branch, names, descriptions, SQL that can be written down, statements that hold up traffic)
    and at the database: tables, columns, constraints, indexes, enums, policies, triggers, functions and grants, each compared with what
    the entities and the revisions say. Changes nothing: the entities' tables are made in a schema of their own and rolled back.

    Args:
        db: over its ``direct_url``, whose login may create a schema.

    Returns:
        A report that is ``ok`` when no finding is an error.
    """
    findings = lint()
    diverged = any(finding.code == "diverged_heads" for finding in findings)
    with connected(db) as connection:
        version, latency = _ask(connection)
        rows = found(connection)
        todo = [] if diverged else _heads.pending(rows)
        if todo:
            findings.append(Finding("pending_migrations", "error", ", ".join(todo), "run stemmadb migrate up, then check again"))
        elif not diverged:
            findings += _database(connection, rows)
    return CheckReport(findings, version, latency, len(todo))


def drift(connection: Connection) -> list[Finding]:
    """
    Compare the catalogue of a database with its revisions and the entities, as far as the connection's login may look.

    Only reads, in the caller's transaction: policies, triggers, functions, enums, vocabularies, invalid indexes and grants.

    Args:
        connection: of any login that may use the schema and read its version table.
    """
    rows = tuple(connection.scalars(text("SELECT version_num FROM stemma.stemma_alembic_version")))
    return inspect(connection, tables_of(_branches(rows)), rows)


def _database(connection: Connection, rows: tuple[str, ...]) -> list[Finding]:
    tables = tables_of(_branches(rows))
    findings = _shadow.compare(connection, metadata(), tables)
    with connection.begin() as transaction:
        findings += inspect(connection, tables, rows)
        transaction.rollback()
    return findings


def _branches(rows: tuple[str, ...]) -> set[str]:
    return {_heads.branch_of(id) for id in _heads.installed(rows)}


def _ask(connection: Connection) -> tuple[str, float]:
    """Return the server's version, and the milliseconds of one round trip."""
    started = time.perf_counter()
    version = str(connection.scalar(_SERVER))
    latency = (time.perf_counter() - started) * 1000
    connection.rollback()
    return version, latency
