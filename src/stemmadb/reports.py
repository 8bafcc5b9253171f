"""What the library says about a database: health, findings, migrations. Plain read-only records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Finding", "Severity", "CheckReport", "Health", "MigrationStatus", "BranchStatus", "RevisionInfo"]

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    code: str
    """What kind of thing, in snake case: ``missing_policy``. It never changes, so that scripts may look for it."""
    severity: Severity
    """``error`` makes a report fail; ``warning`` and ``info`` do not."""
    object: str
    """The thing itself: a table, ``table.column``, a constraint, a setting."""
    message: str
    """What is wrong, and what to do."""


@dataclass(frozen=True)
class CheckReport:
    """What ``stemmadb migrate check`` and ``stemmadb doctor`` found."""

    findings: list[Finding] = field(default_factory=list)
    server_version: str = ""
    latency_ms: float = 0.0
    """One round trip to the server."""
    pending_migrations: int = 0

    @property
    def ok(self) -> bool:
        """True when no finding is an error."""
        return not any(finding.severity == "error" for finding in self.findings)


@dataclass(frozen=True)
class Health:
    """Whether a database can be used now."""

    ok: bool
    server_version: str | None
    """None when the server could not be asked."""
    latency_ms: float
    """The question and its answer, a connection included when none was open."""
    pending_migrations: int
    error: str | None = None
    """Why it cannot be used; None when it can."""


@dataclass(frozen=True)
class BranchStatus:
    """How far one branch of the migrations is in a database."""

    branch: str
    installed: str | None
    """The newest revision that the database has; None when the branch is not installed."""
    head: str
    """The newest revision that this release ships."""
    pending: tuple[str, ...]
    """What ``stemmadb migrate up`` would run, in order."""


@dataclass(frozen=True)
class MigrationStatus:
    """How far a database is."""

    branches: tuple[BranchStatus, ...]
    found: tuple[str, ...]
    """The rows of the version table. A revision that another row depends on is left out of it."""
    unknown: tuple[str, ...]
    """Revisions of a newer release."""

    @property
    def pending(self) -> tuple[str, ...]:
        """The revisions that are still to run, over all branches."""
        return tuple(revision for branch in self.branches for revision in branch.pending)

    @property
    def up_to_date(self) -> bool:
        """True when nothing is to run and nothing unknown was found."""
        return not self.pending and not self.unknown


@dataclass(frozen=True)
class RevisionInfo:
    """One shipped migration, for ``stemmadb migrate history``."""

    revision: str
    branch: str
    phase: str
    """``expand`` runs before the release is deployed, ``contract`` after it."""
    why: str
    """The first paragraph of its description."""
    depends_on: tuple[str, ...]
    file: str
