"""Storing the samples of a log, a batch to a transaction, so that a killed import goes on where it stopped."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy.orm import Session

from stemmadb.documents import dump_json
from stemmadb.errors import ConflictError
from stemmadb.evaluation import definitions, runs, scenarios, transcripts
from stemmadb.evaluation._score_rows import SCORE_RECORD, SCORE_TYPES, judgement_json
from stemmadb.evaluation.data import AddReport, DefinitionCreate, RunCreate, ScenarioCreate, TranscriptCreate
from stemmadb.evaluation.documents import RunConfig, RunProgress, TranscriptContent
from stemmadb.evaluation.importers._records import Log, Sample
from stemmadb.evaluation.vocabularies import RunStatus
from stemmadb.query import sql_rows

_LOCK: Final = sql_rows("SELECT pg_advisory_xact_lock(hashtextextended(CAST(:workspace_id AS text) || :key, 0))")
_RUN: Final = sql_rows(
    """
    SELECT runs.id, runs.status, runs.config #>> '{source,sha256}' AS sha256
      FROM stemma.runs
     WHERE runs.workspace_id = :workspace_id AND runs.definition_id = :definition_id AND runs.config #>> '{source,key}' = :key
     ORDER BY runs.created_at, runs.id
     LIMIT 1
    """
)


@dataclass(frozen=True, slots=True)
class Opened:
    """The run of a log. Ids are None in a dry run, for what is not there yet."""

    definition_id: UUID | None
    run_id: UUID | None
    status: RunStatus
    sha256: str | None
    """Of the file that the run was made from."""
    definitions: int
    runs: int


def open_run(session: Session, log: Log, config: RunConfig, *, dry_run: bool) -> Opened:
    """Return the run of a log, which is made if it is missing. Of two imports at once one makes it, and the other waits."""
    if not dry_run:
        _LOCK.scalar(session, key=log.key)
    definition_id = next((each.id for each in definitions.find_by_content(session, log.content) if each.name == log.definition_name), None)
    row = None if definition_id is None else _RUN.first(session, definition_id=definition_id, key=log.key)
    if row is not None:
        return Opened(definition_id, row.id, RunStatus(row.status), row.sha256, 0, 0)
    made = int(definition_id is None)
    if dry_run:
        return Opened(definition_id, None, RunStatus.RUNNING, None, made, 1)
    if definition_id is None:
        message = f"imported from {log.source['format']}"
        data = DefinitionCreate(name=log.definition_name, content=log.content, message=message)
        definition_id = definitions.create(session, data).id
    run = runs.create(session, RunCreate(definition_id=definition_id, config=config, name=log.run_name))
    runs.start(session, run.id, plan=False)
    return Opened(definition_id, run.id, RunStatus.RUNNING, str(log.source["sha256"]), made, 1)


# ------------------------------------------------------------------------------------------------------------------ batches


@dataclass(frozen=True, slots=True)
class Stored:
    """What a batch came to."""

    scenarios: int = 0
    transcripts: int = 0
    scores: int = 0
    present: int = 0
    differing: int = 0

    def __add__(self, other: "Stored") -> "Stored":
        return Stored(
            self.scenarios + other.scenarios,
            self.transcripts + other.transcripts,
            self.scores + other.scores,
            self.present + other.present,
            self.differing + other.differing,
        )


# Also a transcript that was invalidated is there: importing again does not bring it back. OFFSET 0 makes the planner begin with the
# transcripts of the scenario: of a table that has just grown it knows nothing, and walked all of the run for each sample.
_FIND: Final = sql_rows(
    """
    WITH given AS MATERIALIZED (
        SELECT given.n, given.model, given.sample_index, stemma.stemma_document_hash(given.content) AS content_hash
          FROM json_to_recordset(CAST(:rows AS json)) AS given (n integer, model text, sample_index integer, content jsonb)
    )
    SELECT known.id AS scenario_id, found.id AS transcript_id, found.digest
      FROM given
      LEFT JOIN LATERAL (
        SELECT scenarios.id
          FROM stemma.scenarios
         WHERE scenarios.workspace_id = :workspace_id
           AND scenarios.definition_id = :definition_id
           AND scenarios.content_hash = given.content_hash
         LIMIT 1) AS known ON true
      LEFT JOIN LATERAL (
        SELECT one.id, one.content #>> '{source,digest}' AS digest
          FROM (SELECT transcripts.id, transcripts.run_id, transcripts.model, transcripts.sample_index, transcripts.invalidated_at,
                       transcripts.content
                  FROM stemma.transcripts
                 WHERE transcripts.workspace_id = :workspace_id AND transcripts.scenario_id = known.id AND NOT CAST(:is_new AS boolean)
                OFFSET 0) AS one
         WHERE one.run_id = :run_id AND one.model = given.model AND one.sample_index = given.sample_index
         ORDER BY one.invalidated_at DESC NULLS FIRST
         LIMIT 1) AS found ON true
     ORDER BY given.n
    """
)
_SELECT: Final = sql_rows(
    """
    INSERT INTO stemma.run_scenario_selection (workspace_id, run_id, scenario_id)
    SELECT :workspace_id, :run_id, given.id
      FROM unnest(CAST(:scenario_ids AS uuid[])) AS given (id)
     ORDER BY given.id
        ON CONFLICT DO NOTHING
    """
)
_SCORES: Final = f"json_to_recordset(CAST(:rows AS json)) AS given (transcript_id uuid, {SCORE_RECORD})"
_ADD_SCORES: Final = sql_rows(
    f"""
    INSERT INTO stemma.scores (workspace_id, transcript_id, {", ".join(SCORE_TYPES)})
    SELECT :workspace_id, given.transcript_id, {", ".join(f"given.{column}" for column in SCORE_TYPES)}
      FROM {_SCORES}
     ORDER BY given.transcript_id, given.name
        ON CONFLICT ON CONSTRAINT scores_annotation_key DO NOTHING
    """  # noqa: S608  (of constants only)
)
_COUNT_SCORES: Final = sql_rows(
    f"""
    SELECT count(*)
      FROM {_SCORES}
     WHERE NOT EXISTS (
        SELECT FROM stemma.scores AS old
         WHERE old.workspace_id = :workspace_id AND old.transcript_id = given.transcript_id AND old.rubric_id IS NULL
           AND old.name = given.name AND old.annotator_kind = given.annotator_kind AND old.annotator = given.annotator)
    """  # noqa: S608  (of constants only)
)


def store(session: Session, log: Log, opened: Opened, batch: Sequence[Sample], *, dry_run: bool) -> Stored:
    """Store what is missing of a batch; in a dry run, count it."""
    found = _find(session, opened, batch)
    if dry_run:
        return _counted(session, batch, found)
    if opened.definition_id is None or opened.run_id is None:
        raise ValueError
    made, scenario_ids = _scenarios(session, opened.definition_id, batch, [row.scenario_id for row in found])
    new = [number for number, row in enumerate(found) if row.transcript_id is None]
    digests = {number: digest_of(batch[number]) for number in new}
    items = [
        batch[number].transcript.model_copy(
            update={
                "scenario_id": scenario_ids[number],
                "content": _with_source(batch[number], str(log.source["sha256"]), digests[number]),
            }
        )
        for number in new
    ]
    if items:
        _SELECT.run(session, run_id=opened.run_id, scenario_ids=list(set(scenario_ids.values())))
    report = _add(session, opened.run_id, items)
    ids = {number: row.transcript_id for number, row in enumerate(found)} | dict(zip(new, report.ids, strict=True))
    rows = _score_rows(batch, ids)
    present = [row.digest != digest_of(batch[number]) for number, row in enumerate(found) if row.transcript_id is not None]
    return Stored(
        scenarios=made,
        transcripts=report.inserted,
        scores=_ADD_SCORES.run(session, rows=rows) if rows else 0,
        present=len(present) + report.skipped,
        differing=sum(present),
    )


def _add(session: Session, run_id: UUID, items: Sequence[TranscriptCreate]) -> AddReport:
    """Store transcripts that were not there a moment ago. To look for each again takes longer the more the run has: not at first."""
    try:
        return transcripts.add_many(session, run_id, items)
    except ConflictError:
        # Another import came between, or two samples are the same.
        return transcripts.add_many(session, run_id, items, on_conflict="skip")


def _find(session: Session, opened: Opened, batch: Sequence[Sample]) -> Sequence[Any]:
    """Return for each sample the ids of its scenario and transcript, as far as they are there."""
    rows = ",".join(
        f'{{"n":{number},"model":{json.dumps(sample.transcript.model)},"sample_index":{sample.transcript.sample_index},'
        f'"content":{dump_json(sample.scenario.content)}}}'
        for number, sample in enumerate(batch)
    )
    return _FIND.all(session, rows=f"[{rows}]", definition_id=opened.definition_id, run_id=opened.run_id, is_new=bool(opened.runs))


def _scenarios(session: Session, definition_id: UUID, batch: Sequence[Sample], known: Sequence[UUID | None]) -> tuple[int, dict[int, UUID]]:
    """Make the scenarios that are missing, and return how many, and the scenario of each sample."""
    wanted: dict[str, ScenarioCreate] = {}
    forms: dict[int, str] = {}
    for number, sample in enumerate(batch):
        if known[number] is None:
            forms[number] = dump_json(sample.scenario.content)
            wanted.setdefault(forms[number], sample.scenario)
    ids: dict[str, UUID] = {}
    if wanted:
        try:
            made = scenarios.create_many(session, definition_id, wanted.values())
        except ConflictError:
            # A scenario of another content has the name already: the data set changed, and kept its ids.
            renamed = [
                item.model_copy(update={"name": f"{item.name} ({hashlib.sha256(form.encode()).hexdigest()[:12]})"})
                for form, item in wanted.items()
            ]
            made = scenarios.create_many(session, definition_id, renamed)
        ids = {form: row.id for form, row in zip(wanted, made, strict=True)}
    found = {number: key for number, key in enumerate(known) if key is not None}
    return len(ids), found | {number: ids[form] for number, form in forms.items()}


def digest_of(sample: Sample) -> str:
    """Return the SHA-256 of a dialogue, by which a later import tells whether it is still the same."""
    return hashlib.sha256(dump_json(TranscriptContent(turns=sample.transcript.content.turns)).encode()).hexdigest()


def _with_source(sample: Sample, sha256: str, digest: str) -> TranscriptContent:
    content = sample.transcript.content
    part = {"part": sample.place.part} if sample.place.part else {}
    origin = {**(content.model_extra or {}).get("source", {}), "sha256": sha256, **part, "pointer": sample.place.pointer, "digest": digest}
    return content.replace(source=origin)


def _score_rows(batch: Sequence[Sample], ids: dict[int, UUID | None]) -> str:
    rows = [
        f'{{"transcript_id":"{ids[number]}",{judgement_json(score)[1:]}'
        for number, sample in enumerate(batch)
        if ids[number] is not None
        for score in sample.scores
    ]
    return f"[{','.join(rows)}]" if rows else ""


def _counted(session: Session, batch: Sequence[Sample], found: Sequence[Any]) -> Stored:
    missing = {dump_json(sample.scenario.content) for sample, row in zip(batch, found, strict=True) if row.scenario_id is None}
    there = {number: row.transcript_id for number, row in enumerate(found)}
    rows = _score_rows(batch, there)
    new = {
        (dump_json(sample.scenario.content), sample.transcript.model, sample.transcript.sample_index): len(sample.scores)
        for sample, row in zip(batch, found, strict=True)
        if row.transcript_id is None
    }
    return Stored(
        scenarios=len(missing),
        transcripts=len(new),
        scores=sum(new.values()) + (int(_COUNT_SCORES.scalar(session, rows=rows)) if rows else 0),
        present=len(found) - len(new),
        differing=sum(row.transcript_id is not None and row.digest != digest_of(sample) for sample, row in zip(batch, found, strict=True)),
    )


# ------------------------------------------------------------------------------------------------------------------- the end

_COUNT: Final = sql_rows(
    """
    SELECT count(*) AS stored, count(*) FILTER (WHERE transcripts.error_message IS NOT NULL) AS failed
      FROM stemma.transcripts
     WHERE transcripts.workspace_id = :workspace_id AND transcripts.run_id = :run_id AND transcripts.invalidated_at IS NULL
    """
)
_FINISH: Final = sql_rows(
    """
    UPDATE stemma.runs
       SET status = :status,
           progress = CAST(:progress AS jsonb),
           error_code = :error_code,
           error_message = :error_message,
           started_at = coalesce(CAST(:started_at AS timestamptz), runs.started_at),
           completed_at = CASE
               WHEN :status <> 'RUNNING'
               THEN greatest(coalesce(CAST(:completed_at AS timestamptz), now()), coalesce(CAST(:started_at AS timestamptz), now())) END
     WHERE runs.workspace_id = :workspace_id AND runs.id = :run_id AND runs.status = 'RUNNING'
       AND (:status <> 'RUNNING' OR runs.progress <> CAST(:progress AS jsonb))
    """
)


def finish(session: Session, log: Log, run_id: UUID) -> tuple[RunStatus, bool]:
    """Give a run the status and the times of its log, unless it has a final status; return it, and whether it changed."""
    counted = _COUNT.all(session, run_id=run_id)[0]
    total = max(log.total or 0, counted.stored)
    done = counted.stored - counted.failed if counted.stored else min(log.completed or 0, total)
    status = log.status
    if status == RunStatus.COMPLETED and counted.failed:
        status = RunStatus.PARTIAL if done else RunStatus.FAILED
    changed = _FINISH.run(
        session,
        run_id=run_id,
        status=str(status),
        progress=dump_json(RunProgress(total=total, completed=done, failed=counted.failed)),
        error_code="imported_error" if status == RunStatus.FAILED else None,
        error_message=log.error,
        started_at=log.started_at,
        completed_at=log.completed_at,
    )
    run = runs.get(session, run_id)
    return run.status, bool(changed)
