"""
Transcripts: what models said, what it took, and what was measured of it.

    transcripts.add(session, run.id, TranscriptCreate(model="openai:gpt-4o", scenario_id=scenario.id, content=content, output_tokens=212))
    for transcript in transcripts.iter_for_run(session, run.id):
        print(transcript.model, transcript.preview)

A run has one live transcript for each scenario, model and sample. A transcript is corrected by invalidating it and adding another, never by
editing: only its metrics can be set later. Counts and costs that are not known are None, never 0.
"""

from uuid import UUID

from sqlalchemy import bindparam
from sqlalchemy import delete as delete_from
from sqlalchemy.orm import Session

from stemmadb._exports import adopt
from stemmadb.documents import OnInvalid, dump_json
from stemmadb.entity import Id, parse_reference
from stemmadb.errors import CorruptDocumentError, DocumentError, NotFoundError, UnknownSchemaVersionError, ValidationError
from stemmadb.evaluation._transcript_adding import add, add_many
from stemmadb.evaluation._transcript_reading import iter_for_run, list_for_run, list_for_scenario
from stemmadb.evaluation._transcript_rows import key_of, log, missing
from stemmadb.evaluation._transcript_summary import summarize_run
from stemmadb.evaluation._transcript_writes import REVALIDATE
from stemmadb.evaluation.data import AddReport, ModelMetrics, RunMetrics, SlotKey, TranscriptCreate
from stemmadb.evaluation.documents import TranscriptContent, TranscriptMetrics
from stemmadb.evaluation.entities import Transcript
from stemmadb.query import read, sql, sql_rows, tenant_query

__all__ = [
    "add",
    "add_many",
    "get",
    "find",
    "find_by_slot",
    "get_content",
    "list_for_run",
    "list_for_scenario",
    "iter_for_run",
    "set_metrics",
    "invalidate",
    "revalidate",
    "summarize_run",
    "delete",
    "TranscriptCreate",
    "AddReport",
    "SlotKey",
    "RunMetrics",
    "ModelMetrics",
    "OnInvalid",
]


@tenant_query
def get(session: Session, transcript_id: Id) -> Transcript:
    """
    Return a transcript, invalidated or not, without its dialogue.

    Raises:
        NotFoundError: no transcript of this workspace has this id.
        UnknownSchemaVersionError, CorruptDocumentError: its metrics cannot be read.
    """
    transcript = _find(session, transcript_id)
    if transcript is None:
        raise NotFoundError("Transcript", transcript_id)
    return transcript


@tenant_query
def find(session: Session, transcript_id: Id) -> Transcript | None:
    """
    Return a transcript, invalidated or not, without its dialogue, or None.

    Raises:
        UnknownSchemaVersionError, CorruptDocumentError: its metrics cannot be read.
    """
    return _find(session, transcript_id)


_BY_SLOT = sql(
    Transcript,
    """
    SELECT {columns}
      FROM stemma.transcripts
     WHERE transcripts.workspace_id = :workspace_id
       AND transcripts.run_id = :run_id
       AND transcripts.scenario_id = :scenario_id
       AND transcripts.model = :model
       AND transcripts.sample_index = :sample_index
       AND transcripts.invalidated_at IS NULL
    """,
)


@tenant_query
def find_by_slot(session: Session, key: SlotKey) -> Transcript | None:
    """
    Return the live transcript of a run, scenario, model and sample, without its dialogue, or None. Slots need not have been planned.

    Raises:
        UnknownSchemaVersionError, CorruptDocumentError: its metrics cannot be read.
    """
    log.debug("reading the transcript of slot %s", key)
    transcript = _BY_SLOT.write(session, run_id=key.run_id, scenario_id=key.scenario_id, model=key.model, sample_index=key.sample_index)
    if transcript is None:
        log.warning("slot %s has no live transcript", key)
    return transcript


_CONTENT = sql_rows(
    """
    SELECT CAST(transcripts.content AS text)
      FROM stemma.transcripts
     WHERE transcripts.workspace_id = :workspace_id AND transcripts.id = :id
    """
)


@tenant_query
def get_content(session: Session, transcript_id: Id) -> TranscriptContent:
    """
    Return a dialogue in the newest shape; the stored row is as it was.

    Raises:
        NotFoundError: no transcript of this workspace has this id.
        UnknownSchemaVersionError: a newer release wrote it.
        CorruptDocumentError: it is not what its version says.
    """
    key = key_of(transcript_id)
    log.debug("reading the content of transcript %s", key)
    stored = _CONTENT.scalar(session, id=key)
    if stored is None:
        raise missing(transcript_id)
    try:
        return TranscriptContent.load(stored)
    except DocumentError as error:
        raise error.located("transcripts", "content", key) from None


_SET_METRICS = sql(
    Transcript,
    """
    UPDATE stemma.transcripts
       SET metrics = CAST(:metrics AS jsonb)
     WHERE transcripts.workspace_id = :workspace_id AND transcripts.id = :id
       AND stemma.stemma_document_version(transcripts.metrics) BETWEEN 0 AND :known
    RETURNING {columns}
    """,
)
_METRICS_VERSION = sql_rows(
    """
    SELECT stemma.stemma_document_version(transcripts.metrics)
      FROM stemma.transcripts
     WHERE transcripts.workspace_id = :workspace_id AND transcripts.id = :id
    """
)


@tenant_query
def set_metrics(session: Session, transcript_id: Id, metrics: TranscriptMetrics) -> Transcript:
    """
    Replace the metrics of a transcript, all of them. One statement.

    Raises:
        NotFoundError: no transcript of this workspace has this id.
        UnknownSchemaVersionError: a newer release wrote the metrics that are there; they stay.
        CorruptDocumentError: those that are there have no version that makes sense; they stay.
    """
    key = key_of(transcript_id)
    known = TranscriptMetrics.newest_version
    changed = _SET_METRICS.write(session, id=key, metrics=dump_json(metrics), known=known)
    if changed is not None:
        return changed
    found = _METRICS_VERSION.scalar(session, id=key)
    if found is None:
        raise missing(transcript_id)
    if found < 0:
        raise CorruptDocumentError("transcripts", "metrics", key, "a version is a whole number from 0", "/schema_version")
    raise UnknownSchemaVersionError("transcripts", "metrics", key, found, known)


_INVALIDATE = sql(
    Transcript,
    """
    UPDATE stemma.transcripts
       SET invalidated_at = now(), invalidated_reason = :reason, invalidated_by_id = :by_id
     WHERE transcripts.workspace_id = :workspace_id AND transcripts.id = :id AND transcripts.invalidated_at IS NULL
    RETURNING {columns}
    """,
)


@tenant_query
def invalidate(session: Session, transcript_id: Id, *, reason: str, by_user_id: Id | None = None) -> Transcript:
    """
    Take a transcript out of what is compared and analysed; it stays readable.

    Its place is free for another transcript. A slot whose outcome it is stays as it is until it is filled again: by ``add``, or by a worker
    after ``runs.retry_slots``. What was computed from it is stale from now on, because the hash of the inputs is another one.

    Idempotent: of a transcript that is invalidated, time, reason and user stay what they are. One statement, then two.

    Args:
        session: the caller's session, in a workspace.
        transcript_id: which one.
        reason: why, for people; not blank.
        by_user_id: who says so.

    Raises:
        NotFoundError: no transcript of this workspace has this id.
        ReferenceNotFoundError: there is no such user.
        ValidationError: the reason is blank, or by_user_id is malformed.
    """
    if not reason.strip() or "\0" in reason:
        raise ValidationError("reason must say why, without U+0000", "reason")
    key = key_of(transcript_id)
    by_id: UUID | None = None if by_user_id is None else parse_reference(by_user_id, "by_user_id")
    changed = _INVALIDATE.write(session, id=key, reason=reason, by_id=by_id)
    if changed is None:
        return get(session, key)
    log.info("invalidated transcript %s of run %s", key, changed.run_id)
    return changed


@tenant_query
def revalidate(session: Session, transcript_id: Id) -> Transcript:
    """
    Take an invalidation back. Idempotent.

    A slot of the run with the same scenario, model and sample has the transcript as its outcome again, unless a worker holds its lease.
    One statement, then two; locks the slot.

    Raises:
        NotFoundError: no transcript of this workspace has this id.
        ConflictError: another transcript is live in its place meanwhile.
    """
    key = key_of(transcript_id)
    with session.begin_nested():
        changed = REVALIDATE.write(session, id=key)
    if changed is None:
        return get(session, key)
    log.info("revalidated transcript %s of run %s", key, changed.run_id)
    return changed


_DELETE = delete_from(Transcript).where(Transcript.id == bindparam("id"))


@tenant_query
def delete(session: Session, transcript_id: Id) -> None:
    """
    Delete a transcript with its scores.

    Raises:
        NotFoundError: no transcript of this workspace has this id.
        StillReferencedError: it is the outcome of a slot. Invalidate it instead.
    """
    key = key_of(transcript_id)
    with session.begin_nested():
        if not session.execute(_DELETE, {"id": key}).rowcount:  # type: ignore[attr-defined]
            raise missing(transcript_id)
    log.info("deleted transcript %s", key)


def _find(session: Session, transcript_id: Id) -> Transcript | None:
    try:
        key = key_of(transcript_id)
    except NotFoundError:
        return None
    log.debug("reading transcript %s", key)
    transcript = read(session, Transcript, key)
    if transcript is None:
        log.warning("transcript %s was not found", key)
    return transcript


adopt(globals())
