"""
Pages and streams of transcripts. Import these functions from ``stemmadb.evaluation.transcripts``.

A stored document that cannot be read costs its own row at most: ``on_invalid`` says what becomes of it.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, Final
from typing import cast as as_type

from sqlalchemy import Select, Text, bindparam, cast, select
from sqlalchemy.orm import Session

from stemmadb.documents import OnInvalid, attach_documents, keep_unreadable, resolve_unreadable
from stemmadb.documents._unreadable import check_on_invalid
from stemmadb.entity import Id
from stemmadb.errors import ValidationError
from stemmadb.evaluation._run_rows import get_run
from stemmadb.evaluation._run_rows import key_of as run_key_of
from stemmadb.evaluation._scenario_rows import key_of as scenario_key_of
from stemmadb.evaluation._transcript_rows import log
from stemmadb.evaluation.entities import Transcript
from stemmadb.paging import Page, page
from stemmadb.query import tenant_query

_BODY: Final = cast(Transcript.content, Text)


@tenant_query
def list_for_run(
    session: Session,
    run_id: Id,
    *,
    model: str | None = None,
    scenario_id: Id | None = None,
    include_invalidated: bool = False,
    with_content: bool = False,
    on_invalid: OnInvalid = "raise",
    cursor: str | None = None,
    limit: int = 50,
) -> Page[Transcript]:
    """
    Return a page of a run's transcripts, oldest first. One statement.

    Args:
        session: the caller's session, in a workspace.
        run_id: whose transcripts. An unknown one has none.
        model: only those of this model.
        scenario_id: only those of this scenario.
        include_invalidated: also those that were invalidated.
        with_content: also fetch the dialogues. Without, ``content`` raises when it is read; ``preview`` is there.
        on_invalid: what becomes of a row whose documents cannot be read: "raise" refuses the page, "skip" leaves the row out (the page is
            shorter then, and the next one begins where it should), "raw" puts a RawDocument in the document's place.
        cursor: the ``next_cursor`` of the page before.
        limit: the most transcripts, 1 to 200.

    Raises:
        UnknownSchemaVersionError, CorruptDocumentError: a document cannot be read and on_invalid is "raise".
        InvalidCursorError: the cursor is not of this list.
    """
    key = run_key_of(run_id)
    log.debug("listing transcripts of run %s", key)
    wanted = _selected(with_content).where(Transcript.run_id == key)
    if model is not None:
        wanted = wanted.where(Transcript.model == model)
    if scenario_id is not None:
        wanted = wanted.where(Transcript.scenario_id == scenario_key_of(scenario_id))
    if not include_invalidated:
        wanted = wanted.where(Transcript.invalidated_at.is_(None))
    return _page(session, wanted, with_content=with_content, on_invalid=on_invalid, cursor=cursor, limit=limit)


@tenant_query
def list_for_scenario(
    session: Session,
    scenario_id: Id,
    *,
    model: str | None = None,
    on_invalid: OnInvalid = "raise",
    cursor: str | None = None,
    limit: int = 50,
) -> Page[Transcript]:
    """
    Return a page of a scenario's live transcripts over all runs, newest first, without their dialogues.

    Args:
        session: the caller's session, in a workspace.
        scenario_id: whose transcripts. An unknown one has none.
        model: only those of this model.
        on_invalid: as for list_for_run.
        cursor: the ``next_cursor`` of the page before.
        limit: the most transcripts, 1 to 200.

    Raises:
        UnknownSchemaVersionError, CorruptDocumentError: the metrics of a row cannot be read and on_invalid is "raise".
        InvalidCursorError: the cursor is not of this list.
    """
    key = scenario_key_of(scenario_id)
    log.debug("listing transcripts of scenario %s", key)
    wanted = _selected(with_content=False).where(Transcript.scenario_id == key, Transcript.invalidated_at.is_(None))
    if model is not None:
        wanted = wanted.where(Transcript.model == model)
    return _page(session, wanted, with_content=False, on_invalid=on_invalid, cursor=cursor, limit=limit, newest_first=True)


@tenant_query
def iter_for_run(
    session: Session, run_id: Id, *, batch: int = 500, with_content: bool = True, on_invalid: OnInvalid = "raise"
) -> Iterator[Transcript]:
    """
    Yield the live transcripts of a run by id, in constant memory.

    A server-side cursor in the caller's transaction: it sees the rows as they were when it began, and ends with the transaction.

    Args:
        session: the caller's session, in a workspace.
        run_id: whose transcripts.
        batch: how many rows are fetched at once, at least 1.
        with_content: also fetch the dialogues.
        on_invalid: as for list_for_run.

    Raises:
        NotFoundError: no run of this workspace has this id.
        UnknownSchemaVersionError, CorruptDocumentError: a document cannot be read and on_invalid is "raise"; batches before were yielded.
    """
    if batch < 1:
        raise ValidationError("batch must be at least 1", "batch")
    check_on_invalid(on_invalid)
    key = run_key_of(run_id)
    log.debug("streaming transcripts of run %s", key)
    statement = _STREAM[with_content]
    result = session.execute(statement, {"run_id": key}, execution_options={"stream_results": True, "max_row_buffer": batch})
    yielded = False
    with contextlib.closing(result):
        while True:
            # Rows are made in here, the stream's memory of them included; nothing is yielded with the documents kept.
            with keep_unreadable():
                rows = result.fetchmany(batch)
            if not rows:
                break
            yielded = True
            yield from _resolved(rows, with_content=with_content, on_invalid=on_invalid)
            del rows
    if not yielded:
        get_run(session, key)


def _selected(with_content: bool) -> Select[Any]:
    # The body comes beside the entity and as text, so that one that cannot be read does not cost the page.
    selected: Any = select(Transcript, _BODY) if with_content else select(Transcript)
    return as_type("Select[Any]", selected)


_STREAM: Final = {
    with_content: _selected(with_content)
    .where(Transcript.run_id == bindparam("run_id"), Transcript.invalidated_at.is_(None))
    .order_by(Transcript.id)
    for with_content in (True, False)
}


def _page(
    session: Session,
    wanted: Select[Any],
    *,
    with_content: bool,
    on_invalid: OnInvalid,
    cursor: str | None,
    limit: int,
    newest_first: bool = False,
) -> Page[Transcript]:
    order = Transcript.created_at.desc() if newest_first else Transcript.created_at.asc()
    found = page(session, wanted, order_by=[order], cursor=cursor, limit=limit, on_invalid=on_invalid)
    return dataclasses.replace(found, items=_with_bodies(found.items, on_invalid)) if with_content else found


def _resolved(rows: Any, *, with_content: bool, on_invalid: OnInvalid) -> list[Transcript]:
    """Apply on_invalid to the metrics, which every row has, and to the dialogues where they were fetched."""
    kept = resolve_unreadable(rows, on_invalid)
    return _with_bodies(kept, on_invalid) if with_content else [row[0] for row in kept]


def _with_bodies(rows: Any, on_invalid: OnInvalid) -> list[Transcript]:
    return attach_documents(((row[0], row[1]) for row in rows), Transcript.content, on_invalid)
