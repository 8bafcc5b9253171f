"""
Storing transcripts. Import these functions from ``stemmadb.evaluation.transcripts``.

A run has one live transcript for each scenario, model and sample. The database keeps it so, whoever writes.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Final, Literal
from uuid import UUID

from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from stemmadb.entity import Id, parse_reference, uuid7
from stemmadb.errors import ConflictError, ValidationError
from stemmadb.evaluation._transcript_rows import array_of, as_json, log, scenario_of
from stemmadb.evaluation._transcript_writes import ADD, ADD_ALL, SKIP_LIVE, SUPERSEDE_LIVE
from stemmadb.evaluation.data import AddReport, TranscriptCreate
from stemmadb.evaluation.entities import Transcript
from stemmadb.query import tenant_query

CHUNK: Final = 1000
"""How many transcripts one statement stores."""
_CHUNK_LENGTH: Final = 32 * 1024 * 1024
"""How long the JSON of a statement gets before it is sent with fewer."""
_ROUNDS: Final = 5
"""How often a row is tried again whose key others fill while the statement runs."""

_KEY: Final = ("run_id", "scenario_id", "model", "sample_index")


@tenant_query
def add(session: Session, run_id: Id, data: TranscriptCreate) -> Transcript:
    """
    Store a transcript.

    ``turn_count`` is counted, and ``preview`` is the start of the last assistant turn unless it is given. A slot of the run with the same
    scenario, model and sample gets the transcript as its outcome, unless a worker holds its lease. One statement; locks the slot.

    Raises:
        ReferenceNotFoundError: the run or the scenario is not in this workspace.
        ConflictError: there is a live transcript of this run, scenario, model and sample: invalidate that one first.
        ValidationError: an id is malformed.
        DocumentTooLargeError: the content has over 16 MB.
    """
    data = TranscriptCreate.of(data)
    key = parse_reference(run_id, "run_id")
    stored = ADD.write(session, rows=array_of([as_json(0, uuid7(), data)]), run_id=key)
    if stored is None:
        raise ConflictError("Transcript", _KEY)
    set_committed_value(stored, "content", data.content)
    log.info("added a transcript of %s to run %s: %s", stored.model, key, stored.id)
    return stored


@tenant_query
def add_many(
    session: Session, run_id: Id, items: Iterable[TranscriptCreate], *, on_conflict: Literal["error", "skip", "supersede"] = "error"
) -> AddReport:
    """
    Store many transcripts of one run, as ``add`` does each. All or none.

    One statement for each 1,000, or for fewer when their JSON is longer than 32 MB; a row whose key others fill at the same moment is tried
    again with another statement. Locks the slots that match, in key order, and with "supersede" the run (FOR NO KEY UPDATE) before them.

    Args:
        session: the caller's session, in a workspace.
        run_id: whose transcripts.
        items: read as they are stored, so a generator will do.
        on_conflict: what becomes of an item whose run, scenario, model and sample have a live transcript, be it of an earlier item:
            "error" refuses them all, "skip" keeps the one that is there, "supersede" invalidates it and stores the item.

    Returns:
        How many were inserted and skipped, how many were there before and are superseded, and for each item in the order given the id of
        the transcript that was live in its place once it was stored or skipped.

    Raises:
        ReferenceNotFoundError: the run or a scenario is not in this workspace.
        ConflictError: a live transcript is there and on_conflict is "error".
        ValidationError: an id is malformed, or on_conflict is something else.
        DocumentTooLargeError: a content has over 16 MB.
    """
    if on_conflict not in ("error", "skip", "supersede"):
        raise ValidationError('on_conflict is "error", "skip" or "supersede"', "on_conflict")
    key = parse_reference(run_id, "run_id")
    ids: list[UUID] = []
    inserted = superseded = 0
    with session.begin_nested():
        for chunk in _chunks(items, repeats=on_conflict != "supersede"):
            live, new, old = _store(session, key, chunk, on_conflict)
            ids += live
            inserted += new
            superseded += old
    report = AddReport(inserted=inserted, skipped=len(ids) - inserted, superseded=superseded, ids=ids)
    log.info("added %d transcripts to run %s, skipped %d, superseded %d", inserted, key, report.skipped, superseded)
    return report


@dataclasses.dataclass(frozen=True, slots=True)
class _Given:
    """An item on its way, under the id that it will have."""

    id: UUID
    key: tuple[UUID | None, str, int]
    json: str


def _chunks(items: Iterable[TranscriptCreate], *, repeats: bool) -> Iterator[list[_Given]]:
    """Yield the items in chunks of at most 1,000. Unless *repeats*, a key that repeats begins another chunk."""
    chunk: list[_Given] = []
    keys: set[tuple[UUID | None, str, int]] = set()
    length = 0
    for number, item in enumerate(items):
        data = TranscriptCreate.of(item)
        transcript_id = uuid7()
        given = _Given(transcript_id, (scenario_of(data), data.model, data.sample_index), as_json(number, transcript_id, data))
        full = len(chunk) == CHUNK or length + len(given.json) > _CHUNK_LENGTH
        if chunk and (full or (not repeats and given.key in keys)):
            yield chunk
            chunk, keys, length = [], set(), 0
        chunk.append(given)
        keys.add(given.key)
        length += len(given.json)
    if chunk:
        yield chunk


def _store(session: Session, run_id: UUID, chunk: list[_Given], on_conflict: str) -> tuple[list[UUID], int, int]:
    """Store a chunk, and return the live ids in its order, how many are new, and how many were superseded."""
    if on_conflict == "error":
        ADD_ALL.run(session, rows=array_of(given.json for given in chunk), run_id=run_id)
        return [given.id for given in chunk], len(chunk), 0
    statement = SKIP_LIVE if on_conflict == "skip" else SUPERSEDE_LIVE
    live: dict[UUID, UUID] = {}
    inserted = superseded = rounds = 0
    while waiting := [given for given in chunk if given.id not in live]:
        if rounds == _ROUNDS:
            raise ConflictError("Transcript", _KEY)
        rounds += 1
        for row in statement.all(session, rows=array_of(given.json for given in waiting), run_id=run_id):
            inserted += row.is_new
            if row.given_id is None:
                superseded += 1
            elif row.id is not None:
                live[row.given_id] = row.id
    return [live[given.id] for given in chunk], inserted, superseded
