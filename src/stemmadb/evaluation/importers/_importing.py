"""Importing files: each evaluation is read to its end and checked, and then stored in batches."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import UUID

from stemmadb.database import Database
from stemmadb.documents import dump_json
from stemmadb.errors import DocumentError, ValidationError
from stemmadb.evaluation.documents import RunConfig
from stemmadb.evaluation.importers._nodes import Place, masked, storable
from stemmadb.evaluation.importers._records import Log, Sample, Source
from stemmadb.evaluation.importers._reports import ImportedLog, ImportProgress, ImportReport, OnProgress
from stemmadb.evaluation.importers._storing import Opened, Stored, finish, open_run, store
from stemmadb.evaluation.vocabularies import RunStatus

# The private modules of the pack log under the name that callers import.
log = logging.getLogger("stemmadb.evaluation.importers")

_BATCH: Final = 200
_BATCH_CHARACTERS: Final = 4_000_000
_READ: Final = 1024 * 1024


@dataclass(slots=True)
class _Survey:
    """What the first reading of a log found."""

    count: int = 0
    models: dict[str, None] = field(default_factory=dict)
    samples: int = 1


def import_files(
    db: Database,
    sources: Sequence[Source],
    *,
    workspace: str | UUID | None,
    dry_run: bool,
    on_progress: OnProgress | None,
) -> ImportReport:
    """Import files one after the other. What was stored of those before stays when one is malformed."""
    report: list[ImportedLog] = []
    for source in sources:
        try:
            sha256 = sha256_of(source.parts)
            logs = source.logs(sha256)
            report.extend(_Import(db, each, source, workspace, dry_run, on_progress or _untold).run() for each in logs)
        except OSError as error:
            raise Place(str(source.path)).error(f"the file cannot be read: {error.strerror or error}") from None
    return ImportReport(logs=report, dry_run=dry_run)


def sha256_of(parts: Sequence[Path]) -> str:
    """Return the SHA-256 of a file in hexadecimal; of several, that of theirs one after the other."""
    digests = []
    for path in parts:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_READ):
                digest.update(chunk)
        digests.append(digest)
    return digests[0].hexdigest() if len(digests) == 1 else hashlib.sha256(b"".join(each.digest() for each in digests)).hexdigest()


def _untold(progress: ImportProgress) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class _Import:
    """One evaluation on its way into the database."""

    db: Database
    log: Log
    source: Source
    workspace: str | UUID | None
    dry_run: bool
    told: OnProgress

    def run(self) -> ImportedLog:
        survey = self._survey()
        opened = self.db.run(open_run, self.log, self._config(survey), dry_run=self.dry_run, workspace=self.workspace)
        log.debug("importing %s into run %s", self.log.place.file, opened.run_id)
        if opened.status != RunStatus.RUNNING and opened.sha256 == self.log.source["sha256"]:
            # This very file was imported to its end.
            return self._report(opened, Stored(present=survey.count), opened.status, changed=False)
        total = Stored()
        done = 0
        for batch in _batches(self.log.samples()):
            total += self.db.run(store, self.log, opened, batch, dry_run=self.dry_run, workspace=self.workspace)
            done += len(batch)
            self.told(ImportProgress(str(self.source.path), "storing", done, survey.count))
        if self.dry_run or opened.run_id is None:
            status = self.log.status if opened.runs else opened.status
            return self._report(opened, total, status, changed=False)
        status, changed = self.db.run(finish, self.log, opened.run_id, workspace=self.workspace)
        return self._report(opened, total, status, changed=changed and not opened.runs)

    def _survey(self) -> _Survey:
        """Read all samples once, so that nothing of a malformed file is stored, and the run can say its models."""
        found = _Survey(models=dict.fromkeys(self.log.models))
        for sample in self.log.samples():
            _check(sample)
            found.count += 1
            found.models[sample.transcript.model] = None
            found.samples = max(found.samples, sample.transcript.sample_index + 1)
            if found.count % _BATCH == 0:
                self.told(ImportProgress(str(self.source.path), "reading", found.count, None))
        return found

    def _config(self, survey: _Survey) -> RunConfig:
        log = self.log
        try:
            config = RunConfig(
                models=tuple(survey.models),
                temperature=log.temperature,
                samples_per_scenario=survey.samples,
                seed=log.seed,
                **{"source": storable(masked({"key": log.key, "file": Path(log.place.file).name, **log.source}))},  # noqa: PIE804  (a key that the document keeps)
            )
            dump_json(config)
        except ValidationError as error:
            raise log.place.error(f"what it says about itself cannot be stored: {error}") from None
        return config

    def _report(self, opened: Opened, stored: Stored, status: RunStatus, *, changed: bool) -> ImportedLog:
        said = ImportedLog(
            file=str(self.source.path),
            sha256=str(self.log.source["sha256"]),
            tool=str(self.log.source["tool"]),
            name=self.log.run_name,
            run_id=opened.run_id,
            status=status,
            definitions=opened.definitions,
            runs=opened.runs,
            scenarios=stored.scenarios,
            transcripts=stored.transcripts,
            scores=stored.scores,
            present=stored.present,
            differing=stored.differing,
            status_changed=changed,
        )
        if not self.dry_run:
            log.info("imported %s into run %s: %d transcripts", said.file, said.run_id, said.transcripts)
        return said


def _check(sample: Sample) -> None:
    """Refuse what could not be stored, while nothing is."""
    try:
        dump_json(sample.transcript.content)
        dump_json(sample.scenario.content)
    except DocumentError as error:
        raise sample.place.error(f"it cannot be stored: {error}") from None


def _batches(samples: Iterator[Sample]) -> Iterator[list[Sample]]:
    batch: list[Sample] = []
    size = 0
    for sample in samples:
        length = sum(len(turn.content) for turn in sample.transcript.content.turns)
        if batch and (len(batch) == _BATCH or size + length > _BATCH_CHARACTERS):
            yield batch
            batch, size = [], 0
        batch.append(sample)
        size += length
    if batch:
        yield batch
