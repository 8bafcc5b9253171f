"""What the library says about a database: health, findings, migrations. Plain read-only records."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stemmadb._tables import items_html

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = [
    "Finding",
    "FindingKind",
    "Check",
    "Severity",
    "CheckReport",
    "Health",
    "TableSize",
    "MigrationStatus",
    "BranchStatus",
    "RevisionInfo",
]

_ENDING = re.compile(r"[^\w .,()@:/%+=-]")

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
    remedy: str = ""
    """A command or SQL that puts it right, where ``stemmadb doctor`` found it; else empty, and ``message`` says it."""


@dataclass(frozen=True)
class FindingKind:
    """What findings of one code have in common."""

    severity: Severity
    wrong: str
    """What is wrong, in one sentence; ``{name}`` stands for what a finding says of itself."""
    remedy: str
    """A command or SQL, with the same names."""

    def finding(self, code: str, object: str, /, **said: object) -> Finding:
        """
        Return a finding of this kind.

        Args:
            code: the code of the kind.
            object: what it is about; also ``{object}`` in the texts, and ``{table}`` and ``{name}`` before and behind its first dot.
            said: the other names in the texts.
        """
        table, _, name = object.partition(".")
        names = {"object": object, "table": table, "name": name or table, **said}
        # Names come from the database, and remedies are copied into a terminal: nothing in them ends a statement or a word there.
        plain = {key: _ENDING.sub("?", str(value)) if key != "remedy" else value for key, value in names.items()}
        return Finding(code, self.severity, object, self.wrong.format(**names), self.remedy.format(**plain))


@dataclass(frozen=True)
class Check:
    """What a pack looks at in its rows when ``stemmadb doctor`` runs."""

    kinds: Mapping[str, FindingKind]
    """By code."""
    look: Callable[[Session], Iterable[Finding]]
    """Reads only, in a session that sees every workspace, in a few statements that do not read every row."""


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

    def _repr_html_(self) -> str:
        server = f"PostgreSQL {self.server_version}, {self.latency_ms:.1f} ms, {self.pending_migrations} migrations pending"
        return items_html(self.findings, caption=f"{'ok' if self.ok else 'not ok'}: {server}")


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
class TableSize:
    """How large a table is, the rows of all workspaces together."""

    name: str
    rows: int | None
    """About how many, as the server's statistics have it; None for a table that they know nothing of yet, as when it is empty."""
    table_bytes: int
    """On the disk, with long values that are stored apart."""
    index_bytes: int


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
