"""Storing scores. Import these functions from ``stemmadb.evaluation.scores``."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Final, Literal
from uuid import UUID

from sqlalchemy.orm import Session

from stemmadb.entity import Id, parse_reference, uuid7
from stemmadb.errors import ConflictError, ValidationError
from stemmadb.evaluation._score_rows import SCORE_RECORD, SCORE_TYPES, JudgementKey, as_json, judgement_of, log
from stemmadb.evaluation.data import AddReport, ScoreCreate
from stemmadb.evaluation.entities import Score
from stemmadb.query import read, sql_rows, tenant_query

_CHUNK: Final = 1000
_CHUNK_LENGTH: Final = 32 * 1024 * 1024
_ROUNDS: Final = 5
"""How often a row is tried again whose judgement others store while the statement runs."""

_COLUMNS: Final = tuple(SCORE_TYPES)
_IDENTITY: Final = ("rubric_id", "name", "annotator_kind", "annotator")
_CHANGING: Final = tuple(name for name in _COLUMNS if name not in _IDENTITY)

# A name that is no value of its rubric keeps the whole statement from storing anything: it comes back under its number instead.
# "overall" is a verdict on the whole rubric.
_STORE: Final = f"""
    WITH given AS MATERIALIZED (
        SELECT given.n, given.id, given.transcript_id, given.rubric_key, {", ".join(f"given.{name}" for name in _COLUMNS)}
          FROM json_to_recordset(CAST(:rows AS json)) AS given (n integer, id uuid, transcript_id uuid, rubric_key text, {SCORE_RECORD})
    ), odd AS MATERIALIZED (
        SELECT given.n
          FROM given
          JOIN stemma.rubrics ON rubrics.workspace_id = :workspace_id AND rubrics.id = given.rubric_id
         WHERE given.name <> 'overall'
           AND NOT rubrics.content @> jsonb_build_object('values', jsonb_build_array(jsonb_build_object('key', given.rubric_key)))
    ), written AS (
        INSERT INTO stemma.scores (workspace_id, id, transcript_id, {", ".join(_COLUMNS)})
        SELECT :workspace_id, given.id, given.transcript_id, {", ".join(f"given.{name}" for name in _COLUMNS)}
          FROM given
         WHERE NOT EXISTS (SELECT FROM odd)
         ORDER BY given.transcript_id, given.rubric_id, given.name, given.annotator_kind, given.annotator
        <on conflict>
        RETURNING scores.id, scores.transcript_id, scores.rubric_id, scores.name, scores.annotator_kind, scores.annotator
    )
    SELECT given.n, coalesce(written.id, present.id) AS id, coalesce(written.id = given.id, false) AS is_new,
           written.id IS NOT NULL AS is_written, odd.n IS NOT NULL AS is_odd
      FROM given
      LEFT JOIN odd ON odd.n = given.n
      LEFT JOIN written
        ON written.transcript_id = given.transcript_id
       AND written.rubric_id IS NOT DISTINCT FROM given.rubric_id
       AND written.name = given.name
       AND written.annotator_kind = given.annotator_kind
       AND written.annotator = given.annotator
      LEFT JOIN stemma.scores AS present
        ON present.workspace_id = :workspace_id
       AND present.transcript_id = given.transcript_id
       AND (present.rubric_id = given.rubric_id OR (present.rubric_id IS NULL AND given.rubric_id IS NULL))
       AND present.name = given.name
       AND present.annotator_kind = given.annotator_kind
       AND present.annotator = given.annotator
     ORDER BY given.n
"""  # noqa: S608  (of constants only)
_KEY: Final = "ON CONFLICT (workspace_id, transcript_id, rubric_id, name, annotator_kind, annotator)"
# What is as it was is not written again: a repeated delivery changes no row.
_UPDATE: Final = f"""{_KEY} DO UPDATE
           SET {", ".join(f"{name} = excluded.{name}" for name in _CHANGING)}
         WHERE ({", ".join(f"scores.{name}" for name in _CHANGING)})
               IS DISTINCT FROM ({", ".join(f"excluded.{name}" for name in _CHANGING)})"""  # noqa: S608  (of constants only)
_STATEMENTS: Final = {
    "error": sql_rows(_STORE.replace("<on conflict>", "")),
    "skip": sql_rows(_STORE.replace("<on conflict>", f"{_KEY} DO NOTHING")),
    "update": sql_rows(_STORE.replace("<on conflict>", _UPDATE)),
}


@tenant_query
def record(session: Session, transcript_id: Id, data: ScoreCreate, *, on_conflict: Literal["error", "update"] = "error") -> Score:
    """
    Store a judgement of a transcript. Two statements.

    There is one score for each transcript, rubric version, name, kind of annotator and annotator. With "update" a judgement that is there
    is replaced: the row keeps its id, and everything that is not given becomes None.

    Args:
        session: the caller's session, in a workspace.
        transcript_id: what was judged.
        data: the judgement. With a rubric, its name is the key of one of the rubric's values, or ``overall``.
        on_conflict: "error" refuses a second judgement of one annotator, "update" takes it.

    Raises:
        ConflictError: this annotator has judged it, and on_conflict is "error".
        ReferenceNotFoundError: the transcript, the rubric or the user does not exist in this workspace.
        ValidationError: the name is not a value of the rubric, or an id is malformed.
    """
    if on_conflict not in ("error", "update"):
        raise ValidationError('on_conflict is "error" or "update"', "on_conflict")
    with session.begin_nested():
        report = _store_all(session, [(transcript_id, data)], on_conflict)
        (score_id,) = report.ids
        stored = read(session, Score, score_id)
    if stored is None:
        raise ConflictError("Score", ("transcript_id", *_IDENTITY))
    log.info("recorded score %s of transcript %s", score_id, stored.transcript_id)
    return stored


@tenant_query
def record_many(
    session: Session, items: Iterable[tuple[Id, ScoreCreate]], *, on_conflict: Literal["error", "skip", "update"] = "update"
) -> AddReport:
    """
    Store many judgements, as ``record`` does each. All or none; given the same again, it changes nothing.

    One statement for each 1,000, or for fewer when their JSON is longer than 32 MB; a judgement that stands there twice begins another
    statement. Rows are written in the order of their keys, so that two callers wait for each other instead of locking each other out.

    Args:
        session: the caller's session, in a workspace.
        items: the id of the transcript and the judgement; read as they are stored, so a generator will do.
        on_conflict: what becomes of a judgement that is there: "update" replaces it, "skip" keeps it, "error" refuses all.

    Returns:
        How many were inserted, updated, and skipped because they were there (with "update": exactly so), and for each item in the order
        given the id of the score.

    Raises:
        ConflictError: a judgement is there, and on_conflict is "error".
        ReferenceNotFoundError: a transcript, a rubric or a user does not exist in this workspace.
        ValidationError: a name is not a value of its rubric, or an id is malformed.
    """
    if on_conflict not in _STATEMENTS:
        raise ValidationError('on_conflict is "error", "skip" or "update"', "on_conflict")
    with session.begin_nested():
        report = _store_all(session, items, on_conflict)
    log.info("recorded %d scores, updated %d, skipped %d", report.inserted, report.updated, report.skipped)
    return report


@dataclasses.dataclass(frozen=True, slots=True)
class _Given:
    """A judgement on its way, under the id that it has if it is new."""

    number: int
    key: JudgementKey
    json: str


def _store_all(session: Session, items: Iterable[tuple[Id, ScoreCreate]], on_conflict: str) -> AddReport:
    ids: dict[int, UUID] = {}
    inserted = updated = 0
    for chunk in _chunks(items, repeats=on_conflict == "error"):
        waiting = chunk
        for _ in range(_ROUNDS):
            found, new, changed = _send(session, waiting, on_conflict)
            ids |= found
            inserted += new
            updated += changed
            waiting = [given for given in waiting if given.number not in ids]
            if not waiting:
                break
        else:
            raise ConflictError("Score", ("transcript_id", *_IDENTITY))
    skipped = len(ids) - inserted - updated
    # Objects that the session holds of rows that were written say what was: the next reading brings them up to date.
    return AddReport(inserted=inserted, skipped=skipped, updated=updated, ids=[ids[number] for number in sorted(ids)])


def _send(session: Session, chunk: list[_Given], on_conflict: str) -> tuple[dict[int, UUID], int, int]:
    rows = _STATEMENTS[on_conflict].all(session, rows=f"[{','.join(given.json for given in chunk)}]")
    odd = sum(row.is_odd for row in rows)
    if odd:
        raise ValidationError(f"{odd} of the scores have a name that is neither the key of a value of their rubric nor overall", "name")
    new = sum(row.is_new for row in rows)
    return {row.n: row.id for row in rows if row.id is not None}, new, sum(row.is_written for row in rows) - new


def _chunks(items: Iterable[tuple[Id, ScoreCreate]], *, repeats: bool) -> Iterator[list[_Given]]:
    """Yield the items in chunks of at most 1,000. Unless *repeats*, a judgement that repeats begins another chunk."""
    chunk: list[_Given] = []
    keys: set[JudgementKey] = set()
    length = 0
    for number, (transcript_id, item) in enumerate(items):
        data = ScoreCreate.of(item)
        transcript = parse_reference(transcript_id, "transcript_id")
        given = _Given(number, judgement_of(transcript, data), as_json(number, uuid7(), transcript, data))
        full = len(chunk) == _CHUNK or length + len(given.json) > _CHUNK_LENGTH
        if chunk and (full or (not repeats and given.key in keys)):
            yield chunk
            chunk, keys, length = [], set(), 0
        chunk.append(given)
        keys.add(given.key)
        length += len(given.json)
    if chunk:
        yield chunk
