"""Encrypting the secrets of a column anew, in small transactions beside running writers."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Column, Text
from sqlalchemy.orm import Session

from stemmadb._ciphertexts import count, key_of, place_of
from stemmadb._rewrites import PASSES, Rewrite
from stemmadb._secrets import decrypt, encrypt
from stemmadb.errors import ConfigurationError
from stemmadb.settings import KeyRing

log = logging.getLogger("stemmadb.secrets")


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
        self.report = RotationReport(self.name, self.keys[0][0], self.dry_run)
        known = [name for name, _ in self.keys[1:]]
        # Only what a key of the ring can open: rows of unknown keys are neither read nor locked.
        self.rows = Rewrite(self.session, self.column, key_of(self.column).in_(known), Text())
        self.started = time.monotonic()

    def run(self) -> RotationReport:
        """Pass over the table until nothing is left to do. What others keep locking is left to another run."""
        for _ in range(1 if self.dry_run else PASSES):
            before = self.report.rotated
            self.report = replace(self.report, unreadable=0)
            for rows in self.rows.batches(self.batch, locked=not self.dry_run):
                self._rotate(rows)
                self.session.commit()
                self._tell()
            self._count()
            if self.report.left == 0 or self.report.rotated == before:
                break
        self._tell()
        return self.report

    def _rotate(self, rows: Sequence[Any]) -> None:
        sealed = [(row, after) for row in rows if (after := self._sealed(row)) is not None]
        written = len(sealed)
        if sealed and not self.dry_run:
            written = self.rows.write((row[:-1], json.dumps(after)) for row, after in sealed)
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
