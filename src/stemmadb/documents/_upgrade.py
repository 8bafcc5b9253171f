"""
Rewriting stored documents of old versions, in small transactions beside running writers.

Nothing has to be: old documents are read as the newest. It makes queries in SQL simpler, and lets steps of long ago be dropped. A batch is
one transaction: rows that nobody holds are locked, stepped up and written back, and where it was killed nothing is half done. The stored
version says what is left, so that to go on is to start again.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, and_, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from stemmadb import errors
from stemmadb._rewrites import MAX_BATCH, PASSES, Rewrite
from stemmadb.documents._census import count, every_row, find_column, table_of
from stemmadb.documents._dump import dump_json
from stemmadb.documents._guard import stored_version
from stemmadb.documents._reports import UpgradeReport
from stemmadb.documents._write_version import write_version

if TYPE_CHECKING:
    from stemmadb.database import Database
    from stemmadb.documents._document import Document

log = logging.getLogger("stemmadb.documents")

# What one UPDATE is sent at most; PostgreSQL takes no parameter of 1 GB.
_CHUNK_CHARACTERS = 16 * 1024 * 1024

_MAY_UPDATE = text("SELECT pg_catalog.has_table_privilege(:table, 'UPDATE')")
_HASH = re.compile(r"stemma_document_hash\(\s*\"?(\w+)\"?\s*\)")

_sleep = time.sleep


def upgrade(
    db: Database,
    column: Any,
    *,
    batch: int = 500,
    rate: float | None = None,
    dry_run: bool = False,
    progress: Callable[[UpgradeReport], object] | None = None,
) -> UpgradeReport:
    """
    Rewrite the documents of a column that are stored below the version that is written, in the order of their keys.

    Each batch is a transaction of its own. Rows that somebody holds are passed over, and tried again at the end; what cannot be read and
    what a newer release wrote stays as it is. ``updated_at`` and ``version`` do not move. It may be killed at any point, run again, and
    run several times at once. Where the table belongs to workspaces it takes all of them, as stemma_maintenance, and leaves a record in
    audit_logs.

    Args:
        db: where.
        column: ``"transcripts.metrics"``, or the attribute of a mapped class. A column with a content hash is refused: its bytes are its
            identity, and it is stepped up as it is read for ever.
        batch: rows in a transaction, 1 to 10,000. Their documents are in memory together.
        rate: rows per second at most; None does not wait.
        dry_run: whether documents are only read and counted. Nothing is locked.
        progress: called after each batch with what was done so far.

    Raises:
        FrozenError: the column has a content hash, or the table's rules keep a row as it is. Batches before were kept.
        PermissionDeniedError: the login may not read all workspaces, or nobody may change rows of the table.
        SchemaOutOfDateError: the database has no such table.
        ValidationError: there is no such column, or an argument is out of bounds.
    """
    if not 1 <= batch <= MAX_BATCH:
        raise errors.ValidationError(f"batch is 1 to {MAX_BATCH} rows", "batch")
    if rate is not None and not rate > 0:
        raise errors.ValidationError("rate is a number of rows per second above 0; leave it out to go on without waiting", "rate")
    name, found = find_column(column)
    _require_no_hash(found)
    with every_row(db, [found], f"documents.upgrade {name}") as (session, tables):
        if not tables:
            raise errors.SchemaOutOfDateError()
        _require_right(session, found)
        # The record of who saw all workspaces stays, whatever becomes of the rest.
        session.commit()
        return _Upgrade(session, name, found, batch, rate, dry_run, progress).run()


def _require_no_hash(column: Column[Any]) -> None:
    for other in column.table.columns:
        generated = "" if other.computed is None else str(other.computed.sqltext)
        if column.name in _HASH.findall(generated):
            reason = (
                f"{other.name} is the hash of what is stored, and a document with other bytes would be another one. "
                "Nothing needs to be done: old documents are read as the newest"
            )
            raise errors.FrozenError(f"{column.table.name}.{column.name}", None, reason)


def _require_right(session: Session, column: Column[Any]) -> None:
    table = table_of(column)
    if not session.scalar(_MAY_UPDATE, {"table": table}):
        message = f"rows of {table} are only added, never changed. Nothing needs to be done: old documents are read as the newest"
        raise errors.PermissionDeniedError(f"UPDATE on {table}", message)


@dataclass
class _Upgrade:
    """One run over one column."""

    session: Session
    name: str
    column: Column[Any]
    batch: int
    rate: float | None
    dry_run: bool
    progress: Callable[[UpgradeReport], object] | None

    def __post_init__(self) -> None:
        column: Any = self.column
        self.document: type[Document] = column.type.document
        self.report = UpgradeReport(self.name, write_version(self.document), self.dry_run, 0, 0, 0, 0, 0.0)
        old = and_(column.is_not(None), stored_version(column).between(0, self.report.version - 1))
        self.rows = Rewrite(self.session, column, old, JSONB())
        # With a rate, a batch takes about a second at most: the rate is one of seconds and not of batches.
        self.size = self.batch if self.rate is None else min(self.batch, max(1, int(self.rate)))
        self.started = time.monotonic()

    def run(self) -> UpgradeReport:
        """Pass over the table until nothing is left to do. What others keep locking is left to another run."""
        for _ in range(1 if self.dry_run else PASSES):
            before = self.report.upgraded
            self.report = replace(self.report, corrupt=0)
            began = time.monotonic()
            for rows in self.rows.batches(self.size, locked=not self.dry_run):
                self._step_up(rows)
                self.session.commit()
                self._tell()
                if self.rate is not None and len(rows) == self.size:
                    _sleep(max(0.0, len(rows) / self.rate - (time.monotonic() - began)))
                began = time.monotonic()
            self._count()
            if self.report.left == 0 or self.report.upgraded == before:
                break
        log.info("%s: upgraded %s rows to version %s", self.name, self.report.upgraded, self.report.version)
        return self.report

    def _step_up(self, rows: Sequence[Any]) -> None:
        """Write the rows of a batch back, but those that cannot be read."""
        stepped = [(tuple(row[:-1]), document) for row in rows if (document := self._stepped(row)) is not None]
        written = len(stepped)
        if not self.dry_run:
            written = sum(self.rows.write(chunk) for chunk in _chunks(stepped))
        upgraded, corrupt = self.report.upgraded + written, self.report.corrupt + len(rows) - len(stepped)
        self.report = replace(self.report, upgraded=upgraded, corrupt=corrupt)

    def _stepped(self, row: Any) -> str | None:
        """Return what a row is to hold; None when what it holds cannot be read."""
        try:
            return dump_json(self.document.load(row[-1]))
        except errors.DocumentError as error:
            key = row[0] if len(row) == 2 else tuple(row[:-1])
            log.warning("left a row as it is: %s", error.located(self.column.table.name, self.column.name, key))
            return None

    def _count(self) -> None:
        """Look at what is stored now: how much is still old, of a newer release, or of no version."""
        found = count(self.session, self.name, self.column)
        self.session.commit()
        left = 0 if self.dry_run else max(0, found.old - self.report.corrupt)
        self.report = replace(self.report, corrupt=self.report.corrupt + found.malformed, newer=found.newer, left=left)
        self._tell()

    def _tell(self) -> None:
        self.report = replace(self.report, seconds=time.monotonic() - self.started)
        if self.progress is not None:
            self.progress(self.report)


def _chunks(rows: Sequence[tuple[tuple[Any, ...], str]]) -> Iterator[Sequence[tuple[tuple[Any, ...], str]]]:
    """Cut rows into parts that one statement can take."""
    size, first = 0, 0
    for position, (_, document) in enumerate(rows):
        if size and size + len(document) > _CHUNK_CHARACTERS:
            yield rows[first:position]
            size, first = 0, position
        size += len(document)
    if rows[first:]:
        yield rows[first:]
