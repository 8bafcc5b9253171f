"""
What users of type checkers see. Never run: mypy and pyright read it.

``assert_type`` states a type. ``type: ignore`` states an error: both checkers report an ignore that hides none.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from collections.abc import Sequence
from datetime import datetime
from typing import assert_type
from uuid import UUID

import pandas
import polars
import pyarrow
from matplotlib.axes import Axes
from sqlalchemy import BinaryExpression, ColumnElement, ForeignKey, ForeignKeyConstraint, Row, UnaryExpression, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, Session, undefer

from stemmadb.accounts.entities import User, UserStatus
from stemmadb.aio.evaluation import definitions as aio_definitions
from stemmadb.aio.evaluation import frames as aio_frames
from stemmadb.database import Backend, Database
from stemmadb.entity import Id, parse_id, parse_reference
from stemmadb.evaluation import definitions, frames, plots
from stemmadb.evaluation.data import PairwiseCell
from stemmadb.evaluation.documents import DefinitionContent, RunConfig, load_definition_content
from stemmadb.evaluation.entities import Definition, Run, RunStatus, Transcript
from stemmadb.notebook import Table
from stemmadb.packs import Pack, packs
from stemmadb.reports import TableSize
from stemmadb.testing.factories import EntityFactory, factory_of

CONTENT = DefinitionContent(preamble="", template="")


def columns_are_expressions() -> None:
    assert_type(Definition.name, InstrumentedAttribute[str])
    assert_type(Definition.name == "x", ColumnElement[bool])
    assert_type(Definition.created_at.desc(), UnaryExpression[datetime])
    assert_type(Definition.parent_id.is_(None), BinaryExpression[bool])
    assert_type(Definition.name.ilike("%x%"), BinaryExpression[bool])
    assert_type(Run.status.in_([RunStatus.PENDING]), BinaryExpression[bool])
    undefer(Definition.content)
    _ = Definition.nmae  # type: ignore  # a column that is not there


def attributes_have_types(definition: Definition, run: Run, transcript: Transcript, user: User) -> None:
    assert_type(definition.id, UUID)
    assert_type(definition.workspace_id, UUID)
    assert_type(definition.parent_id, UUID | None)
    assert_type(definition.content, DefinitionContent)
    assert_type(definition.content_hash, bytes | None)
    assert_type(definition.created_at, datetime)
    assert_type(run.status, RunStatus)
    assert_type(run.config, RunConfig)
    assert_type(run.config.models, tuple[str, ...])
    assert_type(transcript.input_tokens, int | None)
    assert_type(user.status, UserStatus)
    definition.name = "another"
    definition.depth = "3"  # type: ignore  # a string for a number


def constructors_check_their_arguments() -> None:
    Definition(name="trolley", content=CONTENT)
    Definition(name="trolley", content=CONTENT, parent_id=None, message="first")
    Definition(name="trolley")  # type: ignore  # content is missing
    Definition(name="trolley", content=CONTENT, nmae="x")  # type: ignore  # misspelt
    Definition(name=1, content=CONTENT)  # type: ignore  # a number for a string
    Definition("trolley", CONTENT)  # type: ignore  # by position
    Definition(name="trolley", content=CONTENT, content_hash=b"")  # type: ignore  # computed by the database


def statements_are_typed(session: Session) -> None:
    rows = session.execute(select(Definition.name, Definition.depth)).all()
    assert_type(rows, Sequence[Row[str, int]])
    assert_type(session.scalars(select(Definition)).all(), Sequence[Definition])
    assert_type(session.scalars(select(Definition).options(undefer(Definition.content))).one(), Definition)
    assert_type(session.get(User, UUID(int=0)), User | None)


def keys_for_hosts() -> None:
    assert_type(User.fk(), ForeignKey)
    assert_type(Definition.fk(), ForeignKeyConstraint)


def ids(given: Id) -> None:
    assert_type(parse_id(given, "Definition"), UUID)
    assert_type(parse_reference(given, "definition_id"), UUID)
    parse_id(5, "Definition")  # type: ignore  # neither a UUID nor text


def documents() -> None:
    assert_type(load_definition_content({}), DefinitionContent)
    assert_type(CONTENT.replace(template="x"), DefinitionContent)
    RunConfig()  # type: ignore  # models are missing


def the_packs() -> None:
    assert_type(packs(), tuple[Pack, ...])


def lineage_is_typed(session: Session, a: Id, b: Id) -> None:
    assert_type(definitions.diff(session, a, b).apply(CONTENT), DefinitionContent)
    merged = definitions.merge(session, a, b)
    assert_type(merged.content, DefinitionContent | None)
    assert_type(merged.resolve({"/template": definitions.ABSENT}), definitions.MergeResult)
    assert_type([entry.definition_id for entry in definitions.blame(session, a)], list[UUID])
    assert_type(definitions.bisect(session, good_id=a, bad_id=b), Definition | None)
    assert_type([node.definition for node in definitions.tree(session, a)], list[Definition])
    definitions.bisect(session, a, b)  # type: ignore  # by position


async def lineage_is_typed_in_twins(session: AsyncSession, a: Id, b: Id) -> None:
    assert_type((await aio_definitions.diff(session, a, b)).changes, list[definitions.Change])
    assert_type(await aio_definitions.merge(session, a, b), definitions.MergeResult)
    assert_type(await aio_definitions.lineage(session, a, b), list[Definition])


class AdminFactory(EntityFactory[User]):
    name = "Admin"


def factories_make_what_they_are_of(session: Session) -> None:
    assert_type(factory_of(User), type[EntityFactory[User]])
    assert_type(factory_of(User).build(name="Ada"), User)
    assert_type(factory_of(User).batch(3), list[User])
    assert_type(factory_of(Run).create(session, status=RunStatus.RUNNING), Run)
    assert_type(factory_of(Run).create_many(session, 3), list[Run])
    assert_type(factory_of(Run).create_each(session, [{"name": "first"}]), list[Run])
    assert_type(AdminFactory.create(session), User)
    factory_of(str)  # type: ignore  # no entity
    factory_of(User).create_many(session, "3")  # type: ignore  # text for a number


async def factories_are_async(session: AsyncSession) -> None:
    assert_type(await factory_of(User).acreate(session), User)
    assert_type(await factory_of(User).acreate_many(session, 3), list[User])
    factory_of(User).create(session)  # type: ignore  # an async session for a sync one


def frames_are_of_their_backend(db: Database, session: Session, statement: str, backend: Backend) -> None:
    assert_type(db.frame(statement), polars.DataFrame)
    assert_type(db.frame(statement, {"n": 1}, workspace="lab", backend="pandas"), pandas.DataFrame)
    assert_type(db.frame(statement, backend="arrow"), pyarrow.Table)
    assert_type(db.frame(select(Definition.name), backend=backend), polars.DataFrame | pandas.DataFrame | pyarrow.Table)
    with db.frame_batches(statement) as batches:
        assert_type(batches, pyarrow.RecordBatchReader)
    assert_type(frames.definitions_df(session), polars.DataFrame)
    assert_type(frames.transcripts_df(session, [], with_content=True, backend="arrow"), pyarrow.Table)
    db.frame(statement, backend="dask")  # type: ignore  # no backend


async def frames_are_of_their_backend_beside_the_event_loop(db: Database, session: AsyncSession, statement: str) -> None:
    assert_type(await db.aframe(statement), polars.DataFrame)
    assert_type(await db.aframe(statement, backend="arrow"), pyarrow.Table)
    assert_type(await aio_frames.runs_df(session), polars.DataFrame)
    assert_type(await aio_frames.scores_df(session, [], backend="pandas"), pandas.DataFrame)


def notebooks_show_lists_and_axes(db: Database, rows: list[Definition], cells: list[PairwiseCell], ax: Axes) -> None:
    assert_type(Table(rows), Table[Definition])
    assert_type(Table(rows)[0], Definition)
    assert_type(db.table_sizes(), list[TableSize])
    assert_type(plots.forest(cells), Axes)
    assert_type(plots.forest({"right": cells[0].statistics}, ax=ax), Axes)
    plots.forest(rows)  # type: ignore  # no comparisons
    plots.trend({})
