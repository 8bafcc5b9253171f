"""
What is stored encrypted under STEMMADB_SECRET_KEYS, and how it comes under another key.

    from stemmadb import secrets

    for counts in secrets.status(db):
        print(counts.column, counts.keys)
    reports = secrets.rotate(db)

Put the new key in front of the old one, deploy that everywhere, rotate, and take the old key away when ``status`` counts nothing under it.
``stemmadb secrets`` does the same on the command line.
"""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Column

from stemmadb import _ciphertexts, errors
from stemmadb._ciphertexts import SecretCounts
from stemmadb._exports import adopt
from stemmadb._reencryption import Reencryption, RotationReport
from stemmadb._rewrites import MAX_BATCH
from stemmadb._secrets import require_extra, secret_keys
from stemmadb.documents._census import every_row, table_of

if TYPE_CHECKING:
    from stemmadb.database import Database

__all__ = ["SecretCounts", "RotationReport", "status", "rotate", "generate_key"]

log: Final = logging.getLogger("stemmadb.secrets")


def status(db: Database, column: str | None = None) -> tuple[SecretCounts, ...]:
    """
    Count stored secrets by the id of their key, over all workspaces. Decrypts nothing.

    Args:
        db: where.
        column: ``"users.two_factor_secret"``; None counts every column of the installed packs.

    Returns:
        One for each column, in the order of the packs, without those whose tables are not in the database.

    Raises:
        PermissionDeniedError: a table belongs to workspaces, and the login may not read all of them.
        ValidationError: there is no such column.
    """
    columns = _chosen(column)
    with every_row(db, columns.values(), "secrets.status") as (session, tables):
        return tuple(_ciphertexts.count(session, name, found) for name, found in columns.items() if table_of(found) in tables)


def rotate(
    db: Database,
    column: str | None = None,
    *,
    batch: int = 500,
    dry_run: bool = False,
    progress: Callable[[RotationReport], object] | None = None,
) -> tuple[RotationReport, ...]:
    """
    Encrypt stored secrets anew with the newest key of STEMMADB_SECRET_KEYS.

    Each batch is a transaction of its own, and what has the newest key is passed over: it may be killed at any point, run again, and run
    several times at once. Rows that somebody holds are passed over, and tried again at the end. A row that changed meanwhile keeps its
    change. What no key of the ring opens stays as it is, and is counted. ``updated_at`` and ``version`` do not move. Where a table belongs
    to workspaces it takes all of them, as stemma_maintenance, and leaves a record in audit_logs.

    Args:
        db: where.
        column: ``"users.two_factor_secret"``; None rotates every column of the installed packs.
        batch: rows in a transaction, 1 to 10,000.
        dry_run: whether secrets are only opened and counted. Nothing is locked or written.
        progress: called after each batch with what was done so far in its column.

    Returns:
        One report for each column, in the order of the packs.

    Raises:
        ConfigurationError: STEMMADB_SECRET_KEYS holds no key.
        MissingDependencyError: the extra ``auth`` is not installed.
        PermissionDeniedError: a table belongs to workspaces, and the login may not act on all of them.
        ValidationError: there is no such column, or ``batch`` is out of bounds.
    """
    if not 1 <= batch <= MAX_BATCH:
        raise errors.ValidationError(f"batch is 1 to {MAX_BATCH} rows", "batch")
    require_extra()
    columns, keys = _chosen(column), secret_keys()
    reports = []
    with every_row(db, columns.values(), "secrets.rotate") as (session, tables):
        # The record of who saw all workspaces stays, whatever becomes of the rest.
        session.commit()
        for name, found in columns.items():
            if table_of(found) in tables:
                report = Reencryption(session, name, found, keys, batch, dry_run, progress).run()
                log.info("%s: encrypted %s secrets with the key %s", name, report.rotated, report.key)
                reports.append(report)
    return tuple(reports)


def generate_key(id: str | None = None) -> str:
    """
    Return a new key as STEMMADB_SECRET_KEYS and STEMMADB_TOKEN_PEPPERS take it: ``id:base64`` of 32 random bytes.

    Args:
        id: letters, digits, ``_`` and ``-``; of a pepper a whole number. None: ``k`` and the date and time of now, in UTC.

    Raises:
        ValidationError: the id has other characters.
    """
    name = f"k{datetime.now(UTC):%Y%m%d%H%M%S}" if id is None else id
    if not name or not all(letter.isascii() and (letter.isalnum() or letter in "_-") for letter in name):
        raise errors.ValidationError("the id of a key has letters, digits, _ and -", "id")
    return f"{name}:{base64.b64encode(os.urandom(32)).decode()}"


def _chosen(column: str | None) -> dict[str, Column[Any]]:
    columns = _ciphertexts.columns()
    if column is None:
        return columns
    if column not in columns:
        raise errors.ValidationError(f"{column!r} is no column of secrets: use one of {', '.join(columns)}", "column")
    return {column: columns[column]}


adopt(globals())
