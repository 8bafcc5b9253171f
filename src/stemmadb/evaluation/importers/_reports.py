"""What an import says it did. Import these names from ``stemmadb.evaluation.importers``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from stemmadb.evaluation.vocabularies import RunStatus


@dataclass(frozen=True, slots=True)
class ImportedLog:
    """What became of one evaluation of a file; in a dry run, what would."""

    file: str
    sha256: str
    """Of the file, in hexadecimal; of several that belong together, over all of them."""
    tool: str
    """Who wrote the file, and its version where the file says it: ``inspect_ai 0.3.135``."""
    name: str
    """Of the run."""
    run_id: UUID | None
    """None in a dry run, for a run that is not there yet."""
    status: RunStatus
    """Of the run, afterwards."""
    definitions: int
    """How many were made: 0 or 1. The others likewise."""
    runs: int
    scenarios: int
    transcripts: int
    scores: int
    present: int
    """Samples whose transcripts were there already, from an earlier import or from further up in the file."""
    differing: int
    """Transcripts among them whose dialogue is another than that of the file: they were kept as they are."""
    status_changed: bool
    """Whether a run that was there already was finished by this import."""

    @property
    def changed(self) -> bool:
        """Whether anything was stored."""
        return self.status_changed or any((self.definitions, self.runs, self.scenarios, self.transcripts, self.scores))


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did."""

    logs: list[ImportedLog]
    """In the order of the files, and of the evaluations within each."""
    dry_run: bool
    """Whether nothing was stored, and the numbers say what would be."""

    @property
    def changed(self) -> bool:
        """Whether anything was stored, or in a dry run would be."""
        return any(log.changed for log in self.logs)

    def count(self, of: Literal["definitions", "runs", "scenarios", "transcripts", "scores", "present", "differing"]) -> int:
        """Return a number over all logs."""
        return sum(int(getattr(log, of)) for log in self.logs)


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """How far an import is."""

    file: str
    phase: Literal["reading", "storing"]
    """A file is read to its end before anything of it is stored."""
    done: int
    """Samples of this evaluation, in this phase."""
    total: int | None
    """How many there are; None while they are being read for the first time."""


OnProgress = Callable[[ImportProgress], None]
"""Is told after each batch."""
