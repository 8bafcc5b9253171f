"""
Definitions, runs, transcripts and scores as frames of polars, pandas or Arrow, for analysis.

    frame = frames.transcripts_df(session, [run.id])
    frame.group_by("model").agg(polars.col("output_tokens").sum())

A frame is read on a connection of its own, in the session's role and workspace: rows that the session has not committed are not in it.
The columns of each function are always the same, in the same order, also without rows. Ids are text, costs exact decimals, times UTC. Of
documents only the dialogues of transcripts are given, on request and in their newest shape; the others have functions that read them.

The extra ``frames`` is needed, for pandas the extra ``pandas``.
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, overload
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, SQLColumnExpression, Text, Uuid, bindparam, case, cast, func, literal_column, select
from sqlalchemy.orm import Session

from stemmadb import _frames
from stemmadb._frames import Backend, Frame
from stemmadb.data import checked_text
from stemmadb.documents import OnInvalid
from stemmadb.documents._unreadable import check_on_invalid
from stemmadb.entity import Id, parse_id
from stemmadb.errors import NotFoundError, ValidationError
from stemmadb.evaluation._filtering import definition_conditions, run_conditions
from stemmadb.evaluation._frame_documents import newest_contents
from stemmadb.evaluation._run_progress import REPORTED
from stemmadb.evaluation.data import DefinitionFilters, RunFilters
from stemmadb.evaluation.documents import RunProgress
from stemmadb.evaluation.entities import Definition, Run, RunSlot, Scenario, Score, SlotStatus, Transcript
from stemmadb.query import AnySelect, tenant_query

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

__all__ = ["definitions_df", "runs_df", "transcripts_df", "scores_df", "Backend", "Frame", "OnInvalid"]

log: Final = logging.getLogger("stemmadb.evaluation.frames")

_CONTENT_HASH: Final = func.encode(Definition.content_hash, "hex").label("content_hash")
_DEFINITIONS: Final[AnySelect] = select(
    *(Definition.id, Definition.parent_id, Definition.root_id, Definition.depth, Definition.name, Definition.message, _CONTENT_HASH),
    *(Definition.version, Definition.frozen_at, Definition.created_by_id, Definition.created_at, Definition.updated_at),
).order_by(Definition.created_at.desc(), Definition.id.desc())


@overload
def definitions_df(
    session: Session, /, filters: DefinitionFilters | None = None, *, backend: Literal["polars"] = "polars"
) -> "polars.DataFrame": ...


@overload
def definitions_df(session: Session, /, filters: DefinitionFilters | None = None, *, backend: Literal["pandas"]) -> "pandas.DataFrame": ...


@overload
def definitions_df(session: Session, /, filters: DefinitionFilters | None = None, *, backend: Literal["arrow"]) -> "pyarrow.Table": ...


@overload
def definitions_df(session: Session, /, filters: DefinitionFilters | None = None, *, backend: Backend) -> Frame: ...


@tenant_query
def definitions_df(session: Session, filters: DefinitionFilters | None = None, *, backend: Backend = "polars") -> Frame:
    """
    Return definitions, newest first, without their contents. One statement.

    Columns: id, parent_id, root_id, depth, name, message, content_hash (hexadecimal: equal contents have one), version, frozen_at,
    created_by_id, created_at, updated_at.

    Args:
        session: the caller's session, in a workspace.
        filters: which ones; None: all.
        backend: "polars", "pandas" or "arrow".

    Raises:
        MissingDependencyError: the extra ``frames`` or ``pandas`` is not installed.
        ValidationError: a filter is malformed, or the backend is unknown.
    """
    log.debug("reading a frame of definitions")
    return _frame(session, _DEFINITIONS.where(*definition_conditions(filters)), {}, backend)


def _slots(status: SlotStatus) -> SQLColumnExpression[int]:
    return func.count().filter(RunSlot.status == status).label(status.value.lower())


# One scan of an index alone for each run; a run without slots counts what it reported, unless a newer release did so in its own way.
_SLOTS: Final = (
    select(*(_slots(status) for status in SlotStatus))
    .where(RunSlot.workspace_id == Run.workspace_id, RunSlot.run_id == Run.id)
    .correlate(Run)
    .lateral("slot")
)
_IS_READABLE: Final = f"stemma.stemma_document_version(runs.progress) BETWEEN 0 AND {RunProgress.newest_version}"


def _count(name: str, reported: str, counted: Any) -> Any:
    said: Any = literal_column(f"CASE WHEN {_IS_READABLE} THEN {reported} END")
    return cast(case((Run.slot_count.is_(None), said), else_=counted), BigInteger).label(name)


_PENDING: Final = "{total} - {completed} - {failed} - {skipped}".format_map(REPORTED)
_RUNS: Final[AnySelect] = (
    select(
        *(Run.id, Run.definition_id, Definition.name.label("definition_name"), Run.experiment_id, Run.name, Run.status),
        _count("total", REPORTED["total"], Run.slot_count),
        *(_count(name, REPORTED[name], _SLOTS.c[name]) for name in ("completed", "failed", "skipped")),
        _count("running", "0", _SLOTS.c.running),
        _count("queued", _PENDING, _SLOTS.c.queued),
        *(Run.error_code, Run.error_message, Run.cancel_requested_at, Run.started_at, Run.completed_at),
        *(Run.created_by_id, Run.created_at, Run.updated_at),
    )
    .join(Definition, (Definition.workspace_id == Run.workspace_id) & (Definition.id == Run.definition_id))
    .join(_SLOTS, literal_column("true"))
    .order_by(Run.created_at.desc(), Run.id.desc())
)


@overload
def runs_df(session: Session, /, filters: RunFilters | None = None, *, backend: Literal["polars"] = "polars") -> "polars.DataFrame": ...


@overload
def runs_df(session: Session, /, filters: RunFilters | None = None, *, backend: Literal["pandas"]) -> "pandas.DataFrame": ...


@overload
def runs_df(session: Session, /, filters: RunFilters | None = None, *, backend: Literal["arrow"]) -> "pyarrow.Table": ...


@overload
def runs_df(session: Session, /, filters: RunFilters | None = None, *, backend: Backend) -> Frame: ...


@tenant_query
def runs_df(session: Session, filters: RunFilters | None = None, *, backend: Backend = "polars") -> Frame:
    """
    Return runs with their progress, newest first. One statement; the slots of each run are counted by a scan of an index alone.

    Columns: id, definition_id, definition_name, experiment_id, name, status, total, completed, failed, skipped, running, queued,
    error_code, error_message, cancel_requested_at, started_at, completed_at, created_by_id, created_at, updated_at. Counts are as
    ``runs.progress`` has them, NULL where it would raise.

    Args:
        session: the caller's session, in a workspace.
        filters: which ones; None: all.
        backend: "polars", "pandas" or "arrow".

    Raises:
        MissingDependencyError: the extra ``frames`` or ``pandas`` is not installed.
        ValidationError: a filter is malformed, or the backend is unknown.
    """
    log.debug("reading a frame of runs")
    return _frame(session, _RUNS.where(*run_conditions(filters)), {}, backend)


_RUN_IDS: Final = bindparam("run_ids", type_=ARRAY(Uuid()))
_LIVE: Final = Transcript.invalidated_at.is_(None)
_TRANSCRIPTS: Final[AnySelect] = (
    select(
        *(Transcript.id, Transcript.run_id, Transcript.scenario_id, Scenario.name.label("scenario_name")),
        *(Transcript.model, Transcript.model_version, Transcript.sample_index, Transcript.turn_count),
        *(Transcript.input_tokens, Transcript.output_tokens, Transcript.reasoning_tokens),
        *(Transcript.cache_read_tokens, Transcript.cache_write_tokens, Transcript.duration_ms, Transcript.ttft_ms),
        *(Transcript.cost, Transcript.cost_currency, Transcript.stop_reason, Transcript.error_message, Transcript.preview),
        *(Transcript.invalidated_at, Transcript.invalidated_reason, Transcript.created_at),
    )
    .outerjoin(Scenario, (Scenario.workspace_id == Transcript.workspace_id) & (Scenario.id == Transcript.scenario_id))
    .where(Transcript.run_id == func.any(_RUN_IDS))
)
_WITH_CONTENT: Final = _TRANSCRIPTS.add_columns(cast(Transcript.content, Text).label("content"), Transcript.content_version)


@overload
def transcripts_df(
    session: Session,
    /,
    run_ids: Sequence[Id],
    *,
    with_content: bool = False,
    include_invalidated: bool = False,
    on_invalid: OnInvalid = "raise",
    backend: Literal["polars"] = "polars",
) -> "polars.DataFrame": ...


@overload
def transcripts_df(
    session: Session,
    /,
    run_ids: Sequence[Id],
    *,
    with_content: bool = False,
    include_invalidated: bool = False,
    on_invalid: OnInvalid = "raise",
    backend: Literal["pandas"],
) -> "pandas.DataFrame": ...


@overload
def transcripts_df(
    session: Session,
    /,
    run_ids: Sequence[Id],
    *,
    with_content: bool = False,
    include_invalidated: bool = False,
    on_invalid: OnInvalid = "raise",
    backend: Literal["arrow"],
) -> "pyarrow.Table": ...


@overload
def transcripts_df(
    session: Session,
    /,
    run_ids: Sequence[Id],
    *,
    with_content: bool = False,
    include_invalidated: bool = False,
    on_invalid: OnInvalid = "raise",
    backend: Backend,
) -> Frame: ...


@tenant_query
def transcripts_df(
    session: Session,
    run_ids: Sequence[Id],
    *,
    with_content: bool = False,
    include_invalidated: bool = False,
    on_invalid: OnInvalid = "raise",
    backend: Backend = "polars",
) -> Frame:
    """
    Return the transcripts of runs, in no order. One statement.

    Columns: id, run_id, scenario_id, scenario_name, model, model_version, sample_index, turn_count, input_tokens, output_tokens,
    reasoning_tokens, cache_read_tokens, cache_write_tokens, duration_ms, ttft_ms, cost (exact), cost_currency, stop_reason,
    error_message, preview, invalidated_at, invalidated_reason, created_at; ``with_content`` adds content. What is unknown is NULL,
    never 0.

    Args:
        session: the caller's session, in a workspace.
        run_ids: whose transcripts. Runs that this workspace does not have are left out.
        with_content: also give the dialogues, as JSON text in the newest shape. Those that are stored in it are given as they are; older
            ones are brought to it one by one, in Python.
        include_invalidated: also transcripts that were invalidated.
        on_invalid: what becomes of an older dialogue that cannot be brought to the newest shape: "raise" refuses the frame, "skip" leaves
            its row out, "raw" gives it as it is stored.
        backend: "polars", "pandas" or "arrow".

    Raises:
        CorruptDocumentError, UnknownSchemaVersionError: a dialogue cannot be read and on_invalid is "raise".
        MissingDependencyError: the extra ``frames`` or ``pandas`` is not installed.
        ValidationError: the backend is unknown, or run_ids is one id.
    """
    log.debug("reading a frame of transcripts")
    check_on_invalid(on_invalid)
    wanted = _WITH_CONTENT if with_content else _TRANSCRIPTS
    if not include_invalidated:
        wanted = wanted.where(_LIVE)
    question = _asked(session, wanted, {"run_ids": _keys(run_ids)}, backend)
    return question.frame(backend, (lambda table: newest_contents(table, on_invalid)) if with_content else None)


_SCORES: Final[AnySelect] = (
    select(
        *(Score.id, Score.transcript_id, Transcript.run_id, Transcript.scenario_id, Transcript.model, Transcript.sample_index),
        *(Score.rubric_id, Score.name, Score.annotator_kind, Score.annotator, Score.annotator_user_id),
        *(Score.value, Score.label, Score.duration_ms, Score.cost, Score.cost_currency, Score.created_at, Score.updated_at),
    )
    .join(Transcript, (Transcript.workspace_id == Score.workspace_id) & (Transcript.id == Score.transcript_id))
    .where(Transcript.run_id == func.any(_RUN_IDS))
)


@overload
def scores_df(
    session: Session,
    /,
    run_ids: Sequence[Id],
    *,
    name: str | None = None,
    include_invalidated: bool = False,
    backend: Literal["polars"] = "polars",
) -> "polars.DataFrame": ...


@overload
def scores_df(
    session: Session, /, run_ids: Sequence[Id], *, name: str | None = None, include_invalidated: bool = False, backend: Literal["pandas"]
) -> "pandas.DataFrame": ...


@overload
def scores_df(
    session: Session, /, run_ids: Sequence[Id], *, name: str | None = None, include_invalidated: bool = False, backend: Literal["arrow"]
) -> "pyarrow.Table": ...


@overload
def scores_df(
    session: Session, /, run_ids: Sequence[Id], *, name: str | None = None, include_invalidated: bool = False, backend: Backend
) -> Frame: ...


@tenant_query
def scores_df(
    session: Session, run_ids: Sequence[Id], *, name: str | None = None, include_invalidated: bool = False, backend: Backend = "polars"
) -> Frame:
    """
    Return what was said of the transcripts of runs, in no order, without the rationales. One statement.

    Columns: id, transcript_id, run_id, scenario_id, model, sample_index, rubric_id, name, annotator_kind, annotator, annotator_user_id,
    value, label, duration_ms, cost (exact), cost_currency, created_at, updated_at. A value is NaN where it was judged without a
    number, and NULL where there is a label alone; pandas tells these two apart by the label.

    Args:
        session: the caller's session, in a workspace.
        run_ids: whose scores. Runs that this workspace does not have are left out.
        name: only scores of this name.
        include_invalidated: also those of transcripts that were invalidated.
        backend: "polars", "pandas" or "arrow".

    Raises:
        MissingDependencyError: the extra ``frames`` or ``pandas`` is not installed.
        ValidationError: the backend is unknown, or run_ids is one id.
    """
    log.debug("reading a frame of scores")
    wanted = _SCORES if include_invalidated else _SCORES.where(_LIVE)
    if name is not None:
        wanted = wanted.where(Score.name == checked_text(name, "name"))
    return _frame(session, wanted, {"run_ids": _keys(run_ids)}, backend)


def _asked(session: Session, statement: AnySelect, params: dict[str, Any], backend: Backend) -> _frames.Question:
    _frames.check(backend)
    return _frames.question(session, statement, params, "evaluation.frames")


def _frame(session: Session, statement: AnySelect, params: dict[str, Any], backend: Backend) -> Frame:
    return _asked(session, statement, params, backend).frame(backend)


def _keys(run_ids: Sequence[Id]) -> list[UUID]:
    """Return the ids that runs can have."""
    if isinstance(run_ids, str | UUID):
        raise ValidationError("run_ids is a list of ids: put the one into brackets", "run_ids")
    found = []
    for run_id in run_ids:
        try:
            found.append(parse_id(run_id, "Run"))
        except NotFoundError:
            log.debug("%r is no id of a run", run_id)
    return found
