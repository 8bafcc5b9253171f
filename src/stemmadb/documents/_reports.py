"""What is said about stored documents: at which versions they are, and what an upgrade did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ColumnCensus:
    """At which versions the documents of one column are stored."""

    column: str
    """``table.column``"""
    document: str
    """The name of the document's class."""
    newest_version: int
    """The newest version that this code reads."""
    write_version: int
    """The version that it writes."""
    versions: Mapping[int, int]
    """How many rows there are of each version, lowest version first. 0 is what was stored before documents had a version."""
    malformed: int
    """Rows whose version is not a number of a version."""
    without: int
    """Rows without a document."""

    @property
    def old(self) -> int:
        """Rows below the version that is written: what an upgrade would rewrite."""
        return sum(count for version, count in self.versions.items() if version < self.write_version)

    @property
    def newer(self) -> int:
        """Rows that a newer release wrote: neither read nor overwritten here."""
        return sum(count for version, count in self.versions.items() if version > self.newest_version)


@dataclass(frozen=True)
class UpgradeReport:
    """What an upgrade did, or would do."""

    column: str
    """``table.column``"""
    version: int
    """What rows were upgraded to: the version that is written."""
    dry_run: bool
    """Whether nothing was written; ``upgraded`` is then what would have been."""
    upgraded: int
    corrupt: int
    """Rows that were left as they are, because they cannot be read. The log names them."""
    newer: int
    """Rows of a newer release, which are left as they are."""
    left: int
    """Rows that are still old: somebody held them, or wrote them meanwhile. Run it again. 0 in a dry run."""
    seconds: float
