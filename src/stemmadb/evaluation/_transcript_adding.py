"""
Storing transcripts. Import these functions from ``stemmadb.evaluation.transcripts``.

A run has one live transcript for each scenario, model and sample. The database keeps it so, whoever writes.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal
from uuid import UUID

import pydantic_core
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from stemmadb.entity import Id, parse_reference, uuid7
from stemmadb.errors import ConflictError, ValidationError
from stemmadb.evaluation._making_ahead import give_way, made_ahead
from stemmadb.evaluation._transcript_rows import TranscriptRow, log, row_of, scenario_of, sent
from stemmadb.evaluation._transcript_writes import ADD, ADD_ALL, SKIP_LIVE, SUPERSEDE_LIVE
from stemmadb.evaluation.data import AddReport, TranscriptCreate
from stemmadb.evaluation.entities import Transcript
from stemmadb.query import tenant_query

CHUNK: Final = 1000
"""How many transcripts one statement stores."""
_CHUNK_LENGTH: Final = 32 * 1024 * 1024
"""How long the JSON of a statement gets before it is sent with fewer, and how long the turns are that are read ahead."""
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
    stored = ADD.write(session, **_parameters([_given(data)]), run_id=key)
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

    One statement for each 1,000, or for fewer when their JSON is longer than 32 MB or a key repeats; a row whose key others fill at the
    same moment is tried again with another statement. Of more than 1,000 the first go in statements of 100, 300 and 600: a thread makes
    the JSON of the next items while the database stores those before. Locks the slots that match, in key order, and with "supersede" the
    run (FOR NO KEY UPDATE) before them.

    Args:
        session: the caller's session, in a workspace.
        run_id: whose transcripts.
        items: read as they are stored, at most 2,000 of them ahead, by the caller's thread: a generator will do, also one that uses the
            session.
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
    prepared = made_ahead(session, _groups(items), functools.partial(_made, repeats=on_conflict == "skip"))
    with session.begin_nested(), contextlib.closing(prepared):
        for chunk in itertools.chain.from_iterable(prepared):
            live, new, old = _store(session, key, chunk, on_conflict)
            ids += live
            inserted += new
            superseded += old
    report = AddReport(inserted=inserted, skipped=len(ids) - inserted, superseded=superseded, ids=ids)
    log.info("added %d transcripts to run %s, skipped %d, superseded %d", inserted, key, report.skipped, superseded)
    return report


_Key = tuple[UUID | None, str, int]


@dataclasses.dataclass(frozen=True, slots=True)
class _Given:
    """An item on its way, under the id that it will have."""

    id: UUID
    key: _Key
    row: TranscriptRow


@dataclasses.dataclass(frozen=True, slots=True)
class _Chunk:
    """The items of one statement."""

    given: list[_Given]
    first: dict[_Key, _Given]
    """The first of each key."""
    parameters: dict[str, Any]


def _given(data: TranscriptCreate) -> _Given:
    transcript_id, scenario_id = uuid7(), scenario_of(data)
    row = row_of(transcript_id, data, scenario_id=scenario_id)
    return _Given(transcript_id, (scenario_id, data.model, data.sample_index), row)


def _chunk(given: list[_Given]) -> _Chunk:
    first: dict[_Key, _Given] = {}
    for each in given:
        first.setdefault(each.key, each)
    return _Chunk(given, first, _parameters(first.values()))


def _parameters(given: Iterable[_Given]) -> dict[str, Any]:
    """Return rows as the statements take them: by key, so that of two callers with the same keys one waits for the other."""
    rows = sorted(given, key=_place)
    names = ("scenario_id", "model", "sample_index")
    keys = [{"id": each.id, **dict(zip(names, each.key, strict=True))} for each in rows]
    return {"keys": pydantic_core.to_json(keys).decode(), **sent([each.row for each in rows])}


def _place(given: _Given) -> tuple[bytes, str, int]:
    scenario_id, model, sample_index = given.key
    return b"" if scenario_id is None else scenario_id.bytes, model, sample_index


def _groups(items: Iterable[TranscriptCreate]) -> Iterator[list[TranscriptCreate]]:
    """Yield what is read ahead: 1,000 items, or fewer long ones."""
    group: list[TranscriptCreate] = []
    length = 0
    for item in items:
        data = TranscriptCreate.of(item)
        size = 0
        for turn in data.content.turns:
            size += len(turn.content)
        if group and (len(group) == CHUNK or length + size > _CHUNK_LENGTH):
            yield group
            group, length = [], 0
        group.append(data)
        length += size
    if group:
        yield group


def _made(group: Sequence[TranscriptCreate], repeats: bool) -> list[_Chunk]:
    """Return a group as chunks. Unless *repeats*, a key that repeats begins another one."""
    chunks: list[_Chunk] = []
    chunk: list[_Given] = []
    keys: set[_Key] = set()
    length = 0
    for number, data in enumerate(group):
        give_way(number)
        given = _given(data)
        size = given.row.size
        if chunk and (length + size > _CHUNK_LENGTH or (not repeats and given.key in keys)):
            chunks.append(_chunk(chunk))
            chunk, keys, length = [], set(), 0
        chunk.append(given)
        keys.add(given.key)
        length += size
    return [*chunks, _chunk(chunk)] if chunk else chunks


def _store(session: Session, run_id: UUID, chunk: _Chunk, on_conflict: str) -> tuple[list[UUID], int, int]:
    """Store a chunk, and return the live ids in its order, how many are new, and how many were superseded."""
    if on_conflict == "error":
        ADD_ALL.run(session, **chunk.parameters, run_id=run_id)
        return [given.id for given in chunk.given], len(chunk.given), 0
    waiting = {given.id: given for given in chunk.first.values()}
    live: dict[UUID, UUID] = {}
    skipped = superseded = 0
    parameters = chunk.parameters
    for _ in range(_ROUNDS):
        if on_conflict == "skip":
            found = {row.given_id: row.live_id for row in SKIP_LIVE.all(session, **parameters, run_id=run_id)}
        else:
            rows = SUPERSEDE_LIVE.all(session, **parameters, run_id=run_id)
            found = {row.given_id: None for row in rows if row.given_id is not None}
            superseded += len(rows) - len(found)
        live |= {id: id for id in waiting if id not in found}
        there = {id: other for id, other in found.items() if other is not None}
        live |= there
        skipped += len(there)
        waiting = {id: given for id, given in waiting.items() if id not in live}
        if not waiting:
            return [live[chunk.first[given.key].id] for given in chunk.given], len(live) - skipped, superseded
        parameters = _parameters(waiting.values())
    raise ConflictError("Transcript", _KEY)
