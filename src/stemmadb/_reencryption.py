"""Encrypting the secrets of a column anew, in small transactions beside running writers."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import JSON, Column, Text, Update, bindparam, cast, func, select, text, tuple_, update
from sqlalchemy import column as plain_column
from sqlalchemy.orm import Session

from stemmadb._ciphertexts import count, key_of, place_of
from stemmadb._secrets import decrypt, encrypt
from stemmadb.errors import ConfigurationError
from stemmadb.settings import KeyRing

log = logging.getLogger("stemmadb.secrets")

MAX_BATCH = 10_000
# Rows that were locked, or written by a process with the ring of before, while a pass went by.
_PASSES = 3
_REWRITE = text("SET LOCAL stemma.rewrite = 'on'")


@dataclass(frozen=True)
class RotationReport:
    """What a rotation did in one column."""

    column: str
    """``users.two_factor_secret``"""
    key: str
    """The id of the newest key, which the secrets were encrypted with."""
    dry_run: bool
    rotated: int = 0
    """Rows that were written; in a dry run: that would be."""
    unknown: dict[str, int] = field(default_factory=dict)
    """Rows that were left, by the id of their key, which STEMMADB_SECRET_KEYS does not hold."""
    unreadable: int = 0
    """Rows that were left because no key opens them: altered, moved here from another row, or no ciphertext at all."""
    left: int = 0
    """Rows that others held all the time: run it again."""
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """True when every secret of the column is under the newest key; of a dry run: would be."""
        return not self.unknown and not self.unreadable and not self.left


@dataclass
class Reencryption:
    """One run over one column."""

    session: Session
    name: str
    column: Column[Any]
    keys: KeyRing
    batch: int
    dry_run: bool
    progress: Callable[[RotationReport], object] | None

    def __post_init__(self) -> None:
        self.key: list[Column[Any]] = list(self.column.table.primary_key)
        self.report = RotationReport(self.name, self.keys[0][0], self.dry_run)
        known = [name for name, _ in self.keys[1:]]
        # Only what a key of the ring can open: rows of unknown keys are neither read nor locked.
        self.old = key_of(self.column).in_(known)
        self.write = self._statement()
        self.started = time.monotonic()

    def _statement(self) -> Update:
        """Return the UPDATE that takes keys, and texts of before and after, as one JSON parameter."""
        table: Any = self.column.table
        types = [plain_column(f"key_{position}", part.type) for position, part in enumerate(self.key)]
        rows = cast(bindparam("rows", type_=Text), JSON)
        sealed = (
            func.json_to_recordset(rows)
            .table_valued(*types, plain_column("before", Text), plain_column("after", Text), name="sealed")
            .render_derived(with_types=True)
        )
        same = [part == sealed.c[f"key_{position}"] for position, part in enumerate(self.key)]
        # It is no change of the row: what SQLAlchemy would set with every UPDATE stays.
        kept = {other: other for other in table.columns if other.onupdate is not None}
        return update(table).values({self.column: sealed.c.after, **kept}).where(*same, self.column == sealed.c.before)

    def run(self) -> RotationReport:
        """Pass over the table until nothing is left to do. What others keep locking is left to another run."""
        for _ in range(1 if self.dry_run else _PASSES):
            before = self.report.rotated
            self.report = replace(self.report, unreadable=0)
            for rows in self._batches():
                self._rotate(rows)
                self.session.commit()
                self._tell()
            self._count()
            if self.report.left == 0 or self.report.rotated == before:
                break
        self._tell()
        return self.report

    def _batches(self) -> Iterator[Sequence[Any]]:
        """Yield the rows of older keys in the order of the primary key, locked until the transaction ends."""
        after: tuple[Any, ...] | None = None
        while True:
            statement = select(*self.key, self.column).where(self.old).order_by(*self.key).limit(self.batch)
            if after is not None:
                statement = statement.where(tuple_(*self.key) > tuple_(*after))
            if not self.dry_run:
                self.session.execute(_REWRITE)
                # The lock of an UPDATE that changes no key: rows that refer to it can still be added.
                statement = statement.with_for_update(key_share=True, skip_locked=True)
            rows = self.session.connection().execute(statement).all()
            if rows:
                yield rows
                after = tuple(rows[-1][:-1])
            if len(rows) < self.batch:
                return

    def _rotate(self, rows: Sequence[Any]) -> None:
        sealed = [(row, after) for row in rows if (after := self._sealed(row)) is not None]
        written = len(sealed)
        if sealed and not self.dry_run:
            values = [
                {**{f"key_{position}": str(part) for position, part in enumerate(row[:-1])}, "before": row[-1], "after": after}
                for row, after in sealed
            ]
            result: Any = self.session.connection().execute(self.write, {"rows": json.dumps(values)})
            written = result.rowcount
        unreadable = self.report.unreadable + len(rows) - len(sealed)
        self.report = replace(self.report, rotated=self.report.rotated + written, unreadable=unreadable)

    def _sealed(self, row: Any) -> str | None:
        """Return what a row is to hold; None when what it holds cannot be opened."""
        place = place_of(self.column, row[:-1])
        try:
            return encrypt(decrypt(row[-1], place, self.keys), place, self.keys)
        except ConfigurationError as error:
            # It names the row and the key, and neither secret nor ciphertext.
            log.warning("left a secret as it is: %s", error)
            return None

    def _count(self) -> None:
        """Look at what is stored now: how much is still under older keys, and under unknown ones."""
        found = count(self.session, self.name, self.column)
        self.session.commit()
        ring = [name for name, _ in self.keys]
        unknown = {name: number for name, number in found.keys.items() if name not in ring}
        older = sum(number for name, number in found.keys.items() if name in ring[1:])
        left = 0 if self.dry_run else max(0, older - self.report.unreadable)
        self.report = replace(self.report, unknown=unknown, unreadable=self.report.unreadable + found.malformed, left=left)

    def _tell(self) -> None:
        self.report = replace(self.report, seconds=time.monotonic() - self.started)
        if self.progress is not None:
            self.progress(self.report)
