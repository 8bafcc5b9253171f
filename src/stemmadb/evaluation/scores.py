"""
Scores: what people, models and rules say of transcripts.

    scores.record(session, transcript.id, ScoreCreate(annotator_kind="MODEL", annotator="openai:gpt-4o", name="fairness", value=0.8))
    for summary in scores.summarize(session, run.id, name="fairness"):
        print(summary.model, summary.mean, summary.low, summary.high)

There is one score for each transcript, rubric version, name, kind of annotator and annotator, so judging again replaces it explicitly, and
a repeated delivery changes nothing. What has no number is counted, and never taken for 0.
"""

from typing import Any

from sqlalchemy import Select, bindparam, select
from sqlalchemy import delete as delete_from
from sqlalchemy.orm import Session

from stemmadb._exports import adopt
from stemmadb.data import checked_member, checked_text
from stemmadb.documents import OnInvalid
from stemmadb.entity import Id, parse_reference
from stemmadb.errors import NotFoundError
from stemmadb.evaluation._run_rows import key_of as run_key_of
from stemmadb.evaluation._score_rows import key_of, log, missing
from stemmadb.evaluation._score_summary import agreement, summarize
from stemmadb.evaluation._score_writes import record, record_many
from stemmadb.evaluation._transcript_rows import key_of as transcript_key_of
from stemmadb.evaluation.data import Agreement, AgreementPair, ScoreCreate, ScoreSummary
from stemmadb.evaluation.entities import Score, Transcript
from stemmadb.evaluation.transcripts import AddReport
from stemmadb.evaluation.vocabularies import AnnotatorKind
from stemmadb.paging import Page, page
from stemmadb.query import read, tenant_query

__all__ = [
    "record",
    "record_many",
    "get",
    "find",
    "list_for_transcript",
    "list_for_run",
    "summarize",
    "agreement",
    "delete",
    "ScoreCreate",
    "ScoreSummary",
    "Agreement",
    "AgreementPair",
    "AddReport",
    "OnInvalid",
]


@tenant_query
def get(session: Session, score_id: Id) -> Score:
    """
    Return a score.

    Raises:
        NotFoundError: no score of this workspace has this id.
        UnknownSchemaVersionError, CorruptDocumentError: its rationale cannot be read.
    """
    score = _find(session, score_id)
    if score is None:
        raise NotFoundError("Score", score_id)
    return score


@tenant_query
def find(session: Session, score_id: Id) -> Score | None:
    """
    Return a score, or None.

    Raises:
        UnknownSchemaVersionError, CorruptDocumentError: its rationale cannot be read.
    """
    return _find(session, score_id)


@tenant_query
def list_for_transcript(
    session: Session, transcript_id: Id, *, cursor: str | None = None, limit: int = 50, on_invalid: OnInvalid = "raise"
) -> Page[Score]:
    """
    Return a page of what was said of a transcript, oldest first. One statement.

    Args:
        session: the caller's session, in a workspace.
        transcript_id: whose scores. An unknown one has none.
        cursor: the ``next_cursor`` of the page before.
        limit: the most scores, 1 to 200.
        on_invalid: what becomes of a score whose rationale cannot be read: "raise" refuses the page, "skip" leaves the score out (the page
            is shorter then), "raw" puts a RawDocument in the rationale's place.

    Raises:
        UnknownSchemaVersionError, CorruptDocumentError: a rationale cannot be read and on_invalid is "raise".
        InvalidCursorError: the cursor is not of this list.
    """
    key = transcript_key_of(transcript_id)
    log.debug("listing scores of transcript %s", key)
    return _page(session, select(Score).where(Score.transcript_id == key), cursor=cursor, limit=limit, on_invalid=on_invalid)


@tenant_query
def list_for_run(
    session: Session,
    run_id: Id,
    *,
    name: str | None = None,
    rubric_id: Id | None = None,
    annotator_kind: AnnotatorKind | None = None,
    include_invalidated: bool = False,
    cursor: str | None = None,
    limit: int = 50,
    on_invalid: OnInvalid = "raise",
) -> Page[Score]:
    """
    Return a page of what was said of a run's transcripts, oldest first. One statement.

    Args:
        session: the caller's session, in a workspace.
        run_id: whose scores. An unknown one has none.
        name: only scores of this name.
        rubric_id: only scores by this version of a rubric.
        annotator_kind: only scores of this kind of annotator.
        include_invalidated: also those of transcripts that were invalidated.
        cursor: the ``next_cursor`` of the page before.
        limit: the most scores, 1 to 200.
        on_invalid: as for list_for_transcript.

    Raises:
        UnknownSchemaVersionError, CorruptDocumentError: a rationale cannot be read and on_invalid is "raise".
        InvalidCursorError: the cursor is not of this list with these filters.
    """
    key = run_key_of(run_id)
    log.debug("listing scores of run %s", key)
    of_run = select(Transcript.id).where(Transcript.run_id == key)
    if not include_invalidated:
        of_run = of_run.where(Transcript.invalidated_at.is_(None))
    wanted = select(Score).where(Score.transcript_id.in_(of_run))
    if name is not None:
        wanted = wanted.where(Score.name == checked_text(name, "name"))
    if rubric_id is not None:
        wanted = wanted.where(Score.rubric_id == parse_reference(rubric_id, "rubric_id"))
    if annotator_kind is not None:
        wanted = wanted.where(Score.annotator_kind == checked_member(annotator_kind, AnnotatorKind, "annotator_kind"))
    return _page(session, wanted, cursor=cursor, limit=limit, on_invalid=on_invalid)


_DELETE = delete_from(Score).where(Score.id == bindparam("id"))


@tenant_query
def delete(session: Session, score_id: Id) -> None:
    """
    Delete a score. What was computed from it is stale from now on. One statement.

    Raises:
        NotFoundError: no score of this workspace has this id.
    """
    key = key_of(score_id)
    if not session.execute(_DELETE, {"id": key}).rowcount:  # type: ignore[attr-defined]
        raise missing(score_id)
    log.info("deleted score %s", key)


def _page(session: Session, wanted: Select[Any], *, cursor: str | None, limit: int, on_invalid: OnInvalid) -> Page[Score]:
    # A judgement may have been replaced by SQL that the session did not see.
    wanted = wanted.execution_options(populate_existing=True)
    return page(session, wanted, order_by=[Score.created_at.asc()], cursor=cursor, limit=limit, on_invalid=on_invalid)


def _find(session: Session, score_id: Id) -> Score | None:
    try:
        key = key_of(score_id)
    except NotFoundError:
        return None
    log.debug("reading score %s", key)
    score = read(session, Score, key)
    if score is None:
        log.warning("score %s was not found", key)
    return score


adopt(globals())
