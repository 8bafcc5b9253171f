"""A newer release of the packs' documents in the database: the functions of this release neither read nor overwrite what it wrote."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, undefer
from tests.evaluation.run_setups import make_definition, make_run

from stemmadb import Repository, errors
from stemmadb.documents import Document, DocumentColumn, RawDocument, set_write_version, write_version
from stemmadb.documents._registered import registered_columns
from stemmadb.evaluation import definitions, runs, transcripts
from stemmadb.evaluation.data import DefinitionFork, DefinitionUpdate, RunUpdate, TranscriptCreate
from stemmadb.evaluation.documents import (
    DefinitionContent,
    RunConfig,
    RunProgress,
    ScoreRationale,
    TranscriptContent,
    TranscriptMetrics,
)
from stemmadb.evaluation.entities import Definition, Score
from stemmadb.evaluation.vocabularies import AnnotatorKind
from stemmadb.workspaces.documents import WorkspaceSettings
from stemmadb.workspaces.entities import Workspace

# ------------------------------------------------------------------------------------------------------------ the newer release


class NewerContent(Document, version=9):
    """As DefinitionContent of a release to come."""

    text: str


class NewerConfig(Document, version=9):
    """As RunConfig of a release to come."""

    asked: tuple[str, ...]


class NewerMetrics(Document, version=9):
    """As TranscriptMetrics of a release to come."""

    measured: float


class NewerSettings(Document, version=9):
    """As WorkspaceSettings of a release to come."""

    language: str


class NewerTurns(Document, version=9):
    """As TranscriptContent of a release to come."""

    said: tuple[str, ...]


class _Newer(DeclarativeBase):
    pass


class NewerDefinition(_Newer):
    """The tables as a release to come sees them."""

    __tablename__ = "definitions"
    __table_args__ = {"schema": "stemma"}
    workspace_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    content: Mapped[NewerContent] = mapped_column(DocumentColumn(NewerContent))


class NewerRun(_Newer):
    __tablename__ = "runs"
    __table_args__ = {"schema": "stemma"}
    workspace_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    config: Mapped[NewerConfig] = mapped_column(DocumentColumn(NewerConfig))
    progress: Mapped[NewerMetrics | None] = mapped_column(DocumentColumn(NewerMetrics))


class NewerTranscript(_Newer):
    __tablename__ = "transcripts"
    __table_args__ = {"schema": "stemma"}
    workspace_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    content: Mapped[NewerTurns] = mapped_column(DocumentColumn(NewerTurns))
    metrics: Mapped[NewerMetrics] = mapped_column(DocumentColumn(NewerMetrics))


class NewerScore(_Newer):
    __tablename__ = "scores"
    __table_args__ = {"schema": "stemma"}
    workspace_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    rationale: Mapped[NewerMetrics | None] = mapped_column(DocumentColumn(NewerMetrics))


class NewerWorkspace(_Newer):
    __tablename__ = "workspaces"
    __table_args__ = {"schema": "stemma"}
    id: Mapped[UUID] = mapped_column(primary_key=True)
    settings: Mapped[NewerSettings] = mapped_column(DocumentColumn(NewerSettings))


CONTENT = DefinitionContent(preamble="mine", template="")
SETTINGS = WorkspaceSettings(locale="mine")
CONFIG = RunConfig(models=("mine",))
METRICS = TranscriptMetrics(decision="mine")

Rows = dict[str, Any]
Place = tuple[str, str]


@pytest.fixture
def rows(session: Session, workspace: UUID) -> Rows:
    """A row of each table, by the table's name; the release to come has then written into one of its columns."""
    run = make_run(session, started=False)
    turns = TranscriptContent(turns=())
    made: Rows = {"definitions": make_definition(session), "runs": run, "workspaces": session.get_one(Workspace, workspace)}
    made["transcripts"] = transcripts.add(session, run.id, TranscriptCreate(model="m", content=turns))
    made["scores"] = Score(
        transcript_id=made["transcripts"].id,
        annotator_kind=AnnotatorKind.MODEL,
        annotator="m",
        value=1.0,
        rationale=ScoreRationale(text="r"),
    )
    session.add(made["scores"])
    session.flush()
    return made


NEWER: dict[Place, tuple[Any, Document]] = {
    ("definitions", "content"): (NewerDefinition, NewerContent(text="theirs")),
    ("runs", "config"): (NewerRun, NewerConfig(asked=("theirs",))),
    ("runs", "progress"): (NewerRun, NewerMetrics(measured=1.0)),
    ("transcripts", "content"): (NewerTranscript, NewerTurns(said=("theirs",))),
    ("transcripts", "metrics"): (NewerTranscript, NewerMetrics(measured=1.0)),
    ("scores", "rationale"): (NewerScore, NewerMetrics(measured=1.0)),
    ("workspaces", "settings"): (NewerWorkspace, NewerSettings(language="theirs")),
}


KNOWN = {place: registered_columns()[".".join(place)].type.document.newest_version for place in NEWER}


def write_newer(session: Session, place: Place, row: Any) -> Document:
    """Let the release to come replace a document, and return what it wrote. It sees the table in another session of the transaction."""
    mapped, document = NEWER[place]
    session.flush()
    with Session(session.connection(), join_transaction_mode="create_savepoint") as theirs:
        theirs.connection().execute(update(mapped.__table__).where(mapped.id == row.id).values({place[1]: document}))
        theirs.commit()
        assert theirs.scalars(select(getattr(mapped, place[1])).where(mapped.id == row.id)).one() == document
    return document


def stored(session: Session, place: Place, id: UUID) -> Any:
    """Return what is stored, as JSON."""
    return session.connection().execute(text(f"SELECT {place[1]} FROM stemma.{place[0]} WHERE id = :id"), {"id": id}).scalar_one()


# ------------------------------------------------------------------------------------------------------------------ writing

Write = Callable[[Session, Any], object]


def _assign(name: str, document: Document) -> Write:
    def write(session: Session, row: Any) -> None:
        setattr(row, name, document)
        session.flush()

    return write


WRITES: dict[str, tuple[Place, Write]] = {
    "definitions.update": (
        ("definitions", "content"),
        lambda session, row: definitions.update(session, row.id, DefinitionUpdate(content=CONTENT)),
    ),
    "definitions.update and its name": (
        ("definitions", "content"),
        lambda session, row: definitions.update(
            session, row.id, DefinitionUpdate(content=CONTENT, name="mine"), expected_version=row.version
        ),
    ),
    "definition assigned": (("definitions", "content"), _assign("content", CONTENT)),
    "repository of definitions": (
        ("definitions", "content"),
        lambda session, row: Repository(Definition).update(session, row.id, {"content": CONTENT}),
    ),
    "runs.update": (("runs", "config"), lambda session, row: runs.update(session, row.id, RunUpdate(config=CONFIG))),
    "run assigned": (("runs", "config"), _assign("config", CONFIG)),
    "runs.report_progress": (
        ("runs", "progress"),
        lambda session, row: runs.report_progress(session, row.id, RunProgress(total=1)),
    ),
    "runs.increment_progress": (("runs", "progress"), lambda session, row: runs.increment_progress(session, row.id, completed=0)),
    "transcripts.set_metrics": (("transcripts", "metrics"), lambda session, row: transcripts.set_metrics(session, row.id, METRICS)),
    "transcript assigned": (("transcripts", "metrics"), _assign("metrics", METRICS)),
    "content assigned": (("transcripts", "content"), _assign("content", TranscriptContent(turns=(), mine=True))),
    "score assigned": (("scores", "rationale"), _assign("rationale", ScoreRationale(text="mine"))),
    "workspace assigned": (("workspaces", "settings"), _assign("settings", SETTINGS)),
    "repository of workspaces": (
        ("workspaces", "settings"),
        lambda session, row: Repository(Workspace).update(session, row.id, {"settings": SETTINGS}),
    ),
    "repository of workspaces, with a version": (
        ("workspaces", "settings"),
        lambda session, row: Repository(Workspace).update(session, row.id, {"settings": SETTINGS, "name": "mine"}),
    ),
}


@pytest.mark.requirement("AD-015", "VR-014", "VR-020")
@pytest.mark.parametrize("write", WRITES)
def test_no_function_overwrites_what_a_newer_release_wrote(session: Session, rows: Rows, write: str) -> None:
    """The error names table, column, row and both versions; the stored document stays, and the transaction can go on."""
    place, act = WRITES[write]
    row = rows[place[0]]
    id = row.id
    theirs = write_newer(session, place, row)
    with pytest.raises(errors.UnknownSchemaVersionError) as raised, session.begin_nested():
        act(session, row)
    assert (raised.value.table, raised.value.column) == place
    assert raised.value.key in (id, None)  # some functions meet it as they read
    assert (raised.value.found, raised.value.known) == (9, KNOWN[place])
    assert stored(session, place, id) == theirs.dump()


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("version", ['"1"', "1.5", "-1", "10000000000"])
def test_no_function_overwrites_a_version_that_nobody_knows(session: Session, rows: Rows, write: str, version: str) -> None:
    """A malformed version, or one of more than nine digits, may be of any release."""
    place, act = WRITES[write]
    row = rows[place[0]]
    raw = f'{{"schema_version": {version}, "total": 9}}'
    id = row.id
    session.flush()
    session.connection().execute(
        text(f"UPDATE stemma.{place[0]} SET {place[1]} = CAST(:raw AS jsonb) WHERE id = :id"), {"raw": raw, "id": id}
    )
    before = stored(session, place, id)
    with pytest.raises(errors.DocumentError) as raised, session.begin_nested():
        act(session, row)
    assert (raised.value.table, raised.value.column) == place
    assert stored(session, place, id) == before


# ------------------------------------------------------------------------------------------------------------------ reading

READS: dict[str, tuple[Place, Callable[[Session, Any], object]]] = {
    "definitions.get_with_content": (
        ("definitions", "content"),
        lambda session, row: definitions.get_with_content(session, row.id),
    ),
    "definitions.fork": (("definitions", "content"), lambda session, row: definitions.fork(session, row.id, DefinitionFork(name="f"))),
    "definition undeferred": (
        ("definitions", "content"),
        lambda session, row: session.get(Definition, (row.workspace_id, row.id), options=[undefer(Definition.content)]),
    ),
    "runs.get": (("runs", "config"), lambda session, row: runs.get(session, row.id)),
    "runs.list_all": (("runs", "config"), lambda session, row: runs.list_all(session)),
    "runs.get, progress": (("runs", "progress"), lambda session, row: runs.get(session, row.id)),
    "transcripts.get": (("transcripts", "metrics"), lambda session, row: transcripts.get(session, row.id)),
    "transcripts.get_content": (("transcripts", "content"), lambda session, row: transcripts.get_content(session, row.id)),
    "transcripts.list_for_run": (
        ("transcripts", "content"),
        lambda session, row: transcripts.list_for_run(session, row.run_id, with_content=True),
    ),
    "transcripts.iter_for_run": (("transcripts", "content"), lambda session, row: list(transcripts.iter_for_run(session, row.run_id))),
    "repository of workspaces": (("workspaces", "settings"), lambda session, row: Repository(Workspace).get(session, row.id)),
    "score": (("scores", "rationale"), lambda session, row: session.get_one(Score, (row.workspace_id, row.id))),
}


@pytest.mark.requirement("VR-014", "VR-020", "VR-102")
@pytest.mark.parametrize("read", READS)
def test_no_function_reads_what_a_newer_release_wrote(session: Session, rows: Rows, read: str) -> None:
    """The error says where and which; the row stays as it is."""
    place, act = READS[read]
    row = rows[place[0]]
    id = row.id
    theirs = write_newer(session, place, row)
    session.expunge_all()
    with pytest.raises(errors.UnknownSchemaVersionError) as raised, session.begin_nested():
        act(session, row)
    assert (raised.value.table, raised.value.column, raised.value.found, raised.value.known) == (*place, 9, KNOWN[place])
    assert stored(session, place, id) == theirs.dump()


@pytest.mark.requirement("AD-017", "VR-020")
def test_lists_take_on_invalid(session: Session, rows: Rows) -> None:
    """ "raise" names the row, "skip" leaves it out, "raw" brings what is stored: one row does not break a page."""
    run = rows["runs"]
    other = transcripts.add(session, run.id, TranscriptCreate(model="other", content=TranscriptContent(turns=())))
    write_newer(session, ("transcripts", "content"), rows["transcripts"])
    write_newer(session, ("runs", "config"), run)
    good = make_run(session, started=False)
    session.expunge_all()
    lists: dict[str, Callable[[Any], Any]] = {
        "config": lambda on_invalid: runs.list_all(session, on_invalid=on_invalid).items,
        "content": lambda on_invalid: transcripts.list_for_run(session, run.id, with_content=True, on_invalid=on_invalid).items,
        "content, streamed": lambda on_invalid: list(transcripts.iter_for_run(session, run.id, on_invalid=on_invalid)),
    }
    readable = {"config": {good.id}, "content": {other.id}, "content, streamed": {other.id}}
    for name, listed in lists.items():
        with pytest.raises(errors.UnknownSchemaVersionError):
            listed("raise")
        session.expunge_all()
        assert {row.id for row in listed("skip")} == readable[name]
        session.expunge_all()
        held = {row.id: row.__dict__[name.split(",")[0]] for row in listed("raw")}
        unreadable = [document for id, document in held.items() if id not in readable[name]]
        assert len(unreadable) == 1
        assert isinstance(unreadable[0], RawDocument)
        assert unreadable[0].raw["schema_version"] == 9
        session.expunge_all()


# -------------------------------------------------------------------------------------------------------------- a lower version


@pytest.fixture
def _written_at_0() -> Iterator[None]:
    """Contents are stored as before documents had a version; steps cannot be taken away by other means."""
    DefinitionContent.downcast(1)(lambda raw: raw)
    set_write_version(DefinitionContent, 0)
    yield
    set_write_version(DefinitionContent, None)
    del DefinitionContent._steps_down[1]


@pytest.mark.usefixtures("_written_at_0")
def test_functions_write_the_version_that_is_configured(session: Session) -> None:
    """Creating, changing and forking store it, also where SQL copies the content of a parent; hashes and look-ups follow."""
    place = ("definitions", "content")
    made = make_definition(session)
    assert stored(session, place, made.id)["schema_version"] == write_version(DefinitionContent) == 0
    changed = definitions.update(session, made.id, DefinitionUpdate(content=CONTENT))
    assert stored(session, place, made.id)["schema_version"] == 0
    assert [row.id for row in definitions.find_by_content(session, CONTENT)] == [made.id]
    assert definitions.get_with_content(session, changed.id).content == CONTENT
    copied = definitions.fork(session, made.id)
    assert stored(session, place, copied.id)["schema_version"] == 0
    set_write_version(DefinitionContent, None)
    newest = definitions.fork(session, copied.id)
    assert stored(session, place, newest.id)["schema_version"] == DefinitionContent.newest_version
    set_write_version(DefinitionContent, 0)
    back = definitions.fork(session, newest.id)
    assert stored(session, place, back.id)["schema_version"] == 0
    assert definitions.get_with_content(session, back.id).content == CONTENT
