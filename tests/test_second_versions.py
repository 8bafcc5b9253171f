"""
The second versions of documents that the packs have: old rows stay as they are, new code reads, lists, finds and changes them.

The rows are stored by SQL, as releases that knew version 1 wrote them.
"""

import dataclasses
import hashlib
import json
import os
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self
from uuid import UUID, uuid4

import pytest
from pydantic import Field, model_validator
from sqlalchemy import select, text
from sqlalchemy.orm import Session, undefer
from tests.evaluation.run_setups import make_definition, make_run
from tests.golden.examples import examples
from tests.golden.fingerprints import fingerprint
from tests.golden.shapes import read_examples, read_lock

from stemmadb import errors
from stemmadb.accounts import users
from stemmadb.accounts.data import OAuthLink
from stemmadb.accounts.documents import OAuthProfile
from stemmadb.accounts.entities import OAuthAccount
from stemmadb.documents import Document, census, dump_json, set_write_version
from stemmadb.documents._canonical import canonical
from stemmadb.documents.search import search_differences, search_equals, search_expression, search_keys
from stemmadb.evaluation import definitions, runs, transcripts
from stemmadb.evaluation.data import DefinitionUpdate, TranscriptCreate
from stemmadb.evaluation.documents import DecisionSource, DefinitionContent, Dimension, RunProgress, TranscriptContent, TranscriptMetrics
from stemmadb.evaluation.entities import Definition, Run, Transcript
from stemmadb.evaluation.vocabularies import AnnotatorKind
from stemmadb.workspaces.entities import Workspace

STEPPED = int(os.environ.get("STEMMADB_TEST_STEPPED", "300"))
"""How many documents each step is given."""

TABLES: dict[type[Document], tuple[Any, str]] = {
    DefinitionContent: (Definition, "content"),
    RunProgress: (Run, "progress"),
    TranscriptMetrics: (Transcript, "metrics"),
    OAuthProfile: (OAuthAccount, "profile"),
}
each_document = pytest.mark.parametrize("document", TABLES, ids=lambda document: document.__name__)


@dataclasses.dataclass(frozen=True)
class Old:
    """A row as version 1 wrote it."""

    id: UUID
    raw: dict[str, Any]


OLD: dict[type[Document], dict[str, Any]] = {
    DefinitionContent: {
        "schema_version": 1,
        "preamble": "p",
        "template": "old",
        "dimensions": [],
        "matching_rules": "not both",
        "owner": "ada",
    },
    RunProgress: {"schema_version": 1, "total": 8, "completed": 3, "failed": 1, "stage": "warm-up"},
    TranscriptMetrics: {"schema_version": 1, "values": {"x": 0.5}, "decision": "pull", "decision_source": "first-word", "note": 1},
    OAuthProfile: {"schema_version": 1, "subject": "7", "name": "Ada", "picture": "https://example.test/a.png", "raw": {"sub": "7"}},
}
NEW: dict[type[Document], Document] = {
    DefinitionContent: DefinitionContent.load({**OLD[DefinitionContent], "schema_version": 2, "matching_rules": ["not both"]}),
    RunProgress: RunProgress.load({**OLD[RunProgress], "schema_version": 2, "skipped": 0}),
    TranscriptMetrics: TranscriptMetrics.load({**OLD[TranscriptMetrics], "schema_version": 2, "decision_source": {"name": "first-word"}}),
    OAuthProfile: OAuthProfile.load(
        {"schema_version": 2, "subject": "7", "name": "Ada", "picture_url": "https://example.test/a.png", "raw": {"sub": "7"}}
    ),
}


def make_row(session: Session, document: type[Document]) -> Any:
    """A row of the document's table."""
    if document is DefinitionContent:
        return make_definition(session)
    if document is OAuthProfile:
        user = users.create(session, f"{uuid4()}@example.test")
        return users.link_oauth(session, user.id, OAuthLink(provider="github", provider_account_id=str(uuid4())))
    run = make_run(session, started=False)
    if document is RunProgress:
        return run
    return transcripts.add(session, run.id, TranscriptCreate(model="m", content=TranscriptContent(turns=())))


def store(session: Session, document: type[Document], raw: Any, id: UUID) -> None:
    """Store JSON as it is, as another release would."""
    table, column = TABLES[document]
    session.flush()
    statement = text(f"UPDATE stemma.{table.__tablename__} SET {column} = CAST(:raw AS jsonb) WHERE id = :id")
    session.connection().execute(statement, {"raw": json.dumps(raw), "id": id})
    session.expunge_all()


def row_of(session: Session, document: type[Document], id: UUID) -> tuple[Any, ...]:
    """The row's own version, what is stored to the last byte, and the hash of it where the table has one."""
    table, column = TABLES[document]
    hashed = f"{column}_hash" if f"{column}_hash" in table.__table__.columns else "NULL"
    statement = text(f"SELECT xmin::text, {column}::text, {hashed} FROM stemma.{table.__tablename__} WHERE id = :id")
    return tuple(session.connection().execute(statement, {"id": id}).one())


@pytest.fixture
def old(request: pytest.FixtureRequest, session: Session, workspace: UUID) -> Old:
    """A row of version 1."""
    document: type[Document] = request.getfixturevalue("document")
    row_id: UUID = make_row(session, document).id
    store(session, document, OLD[document], row_id)
    return Old(row_id, OLD[document])


def read(session: Session, document: type[Document], id: UUID) -> Any:
    """Read the row's document as an entity has it."""
    table, column = TABLES[document]
    session.expunge_all()
    entity = session.scalars(select(table).where(table.id == id).options(undefer(getattr(table, column)))).one()
    return getattr(entity, column)


# ------------------------------------------------------------------------------------------------------------------- reading

READS: dict[type[Document], list[Callable[[Session, UUID], Any]]] = {
    DefinitionContent: [
        lambda session, key: definitions.get_with_content(session, key).content,
        lambda session, key: definitions.find(session, key) and NEW[DefinitionContent],
        lambda session, key: NEW[DefinitionContent] if key in {row.id for row in definitions.list_all(session)} else None,
    ],
    RunProgress: [
        lambda session, key: runs.get(session, key).progress,
        lambda session, key: next(row.progress for row in runs.list_all(session) if row.id == key),
        lambda session, key: NEW[RunProgress] if runs.progress(session, key).queued == 4 else None,
    ],
    TranscriptMetrics: [
        lambda session, key: transcripts.get(session, key).metrics,
        lambda session, key: next(row.metrics for row in transcripts.iter_for_run(session, transcripts.get(session, key).run_id)),
        lambda session, key: transcripts.list_for_run(session, transcripts.get(session, key).run_id)[0].metrics,
    ],
    OAuthProfile: [
        lambda session, key: users.list_oauth(session, session.get_one(OAuthAccount, key).user_id)[0].profile,
        lambda session, key: session.get_one(OAuthAccount, key).profile,
    ],
}


@pytest.mark.requirement("VR-016", "VR-018", "VR-111", "AD-018")
@each_document
def test_old_rows_are_read_and_stay(session: Session, document: type[Document], old: Old) -> None:
    """Read one by one and in lists, they have the newest shape; after a flush each is the same to the last byte, its hash too."""
    before = row_of(session, document, old.id)
    for reading in READS[document]:
        assert reading(session, old.id) == NEW[document]
        session.expunge_all()
    assert read(session, document, old.id) == NEW[document]
    assert not session.dirty
    session.flush()
    assert row_of(session, document, old.id) == before
    if before[2] is not None:
        # The hash is the one that releases of version 1 knew this row by.
        assert before[2] == hashlib.sha256(canonical(json.dumps(old.raw)).encode()).digest()


# ------------------------------------------------------------------------------------------------------------------ changing

CHANGES: dict[type[Document], Callable[[Session, UUID], object]] = {
    DefinitionContent: lambda session, key: definitions.update(
        session,
        key,
        DefinitionUpdate(content=definitions.get_with_content(session, key).content.replace(matching_rules=("not both", "nor none"))),
        expected_version=definitions.get(session, key).version,
    ),
    RunProgress: lambda session, key: runs.increment_progress(session, key, completed=1, skipped=2),
    TranscriptMetrics: lambda session, key: transcripts.set_metrics(
        session,
        key,
        transcripts.get(session, key).metrics.replace(decision_source=DecisionSource(kind=AnnotatorKind.RULE, name="first-word")),
    ),
    OAuthProfile: lambda session, key: _assign_profile(session, key),
}
CHANGED: dict[type[Document], dict[str, Any]] = {
    DefinitionContent: {"matching_rules": ["not both", "nor none"]},
    RunProgress: {"completed": 4, "skipped": 2},
    TranscriptMetrics: {"decision_source": {"kind": "RULE", "name": "first-word"}},
    OAuthProfile: {"picture_url": None},
}


def _assign_profile(session: Session, id: UUID) -> None:
    account = session.get_one(OAuthAccount, id)
    account.profile = account.profile.replace(picture_url=None)
    session.flush()


@pytest.mark.requirement("VR-017", "VR-018")
@each_document
def test_old_rows_are_changed(session: Session, document: type[Document], old: Old) -> None:
    """A change writes the whole document at the newest version, keys that nobody knows included."""
    CHANGES[document](session, old.id)
    stored = json.loads(row_of(session, document, old.id)[1])
    assert stored == {**NEW[document].dump(), **CHANGED[document]}
    assert read(session, document, old.id).dump() == stored


@pytest.mark.requirement("VR-020", "AD-015")
@each_document
def test_the_guard_knows_both_versions(session: Session, document: type[Document], old: Old) -> None:
    """A document of version 3 is not changed by the functions that change those of versions 1 and 2."""
    newer = {**old.raw, "schema_version": 3}
    store(session, document, newer, old.id)
    with pytest.raises(errors.UnknownSchemaVersionError), session.begin_nested():
        CHANGES[document](session, old.id)
    assert json.loads(row_of(session, document, old.id)[1]) == newer


# ------------------------------------------------------------------------------------------------------------------ searching


@pytest.mark.requirement("VR-018")
def test_definitions_are_found_by_content_of_either_version(session: Session, workspace: UUID) -> None:
    """The hash is of what is stored, and the content is looked for in both forms; one statement."""
    contents = [DefinitionContent(preamble="p", template="t", matching_rules=rules) for rules in ((), ("a",), ("a", "b"), ("a\nb",), ("",))]
    ids: dict[int, list[UUID]] = {}
    for number, content in enumerate(contents):
        ids[number] = []
        for version in (1, 2):
            row = make_definition(session)
            store(session, DefinitionContent, json.loads(dump_json(content, version)), row.id)
            ids[number].append(row.id)
    for number, content in enumerate(contents):
        assert {row.id for row in definitions.find_by_content(session, content)} == set(ids[number])


def test_rows_of_both_versions_are_found_by_search_keys(session: Session, workspace: UUID) -> None:
    """One condition and one order for all of them."""
    first, second = make_row(session, TranscriptMetrics).id, make_row(session, TranscriptMetrics).id
    store(session, TranscriptMetrics, OLD[TranscriptMetrics], first)
    transcripts.set_metrics(session, second, TranscriptMetrics(decision="pull", decision_source=DecisionSource(name="first-word")))
    found = session.scalars(select(Transcript.id).where(search_equals(Transcript.metrics, "decision_source", "first-word")))
    assert set(found) == {first, second}
    assert set(session.scalars(select(search_expression(Transcript.metrics, "decision")).where(Transcript.id.in_([first, second])))) == {
        "pull"
    }


@each_document
def test_search_keys_mean_the_same_in_sql_and_in_python(session: Session, document: type[Document]) -> None:
    """On every document that was ever stored, of every version, and on what steps down make of the newest ones."""
    stored = [example.stored for version in range(document.newest_version + 1) for example in read_examples(document.__name__, version)]
    stored += [json.loads(dump_json(document.load(raw), 1)) for raw in stored]
    assert search_differences(session, document, stored) == []
    assert bool(search_keys(document)) == (document is TranscriptMetrics)


# ---------------------------------------------------------------------------------------------------------------- an older library


@pytest.fixture
def writes_1(request: pytest.FixtureRequest) -> Iterator[None]:
    """This release, told to write version 1."""
    document: type[Document] = request.getfixturevalue("document")
    set_write_version(document, 1)
    yield
    set_write_version(document, None)


class ContentBefore(Document, version=1):
    """DefinitionContent as version 1 was released; the lock says that it is."""

    preamble: str
    template: str
    dimensions: tuple[Dimension, ...] = ()
    matching_rules: str | None = None


class ProgressBefore(Document, version=1):
    total: int = Field(default=0, ge=0)
    completed: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _at_most_total(self) -> Self:
        if self.completed + self.failed > self.total:
            raise ValueError("completed and failed are together more than total")
        return self


class MetricsBefore(Document, version=1):
    values: Mapping[str, float] = Field(default_factory=dict)
    decision: str | None = None
    decision_source: str | None = None


class ProfileBefore(Document, version=1):
    subject: str | None = None
    name: str | None = None
    picture: str | None = None
    raw: Mapping[str, Any] = Field(default_factory=dict)


BEFORE: dict[type[Document], type[Document]] = {
    DefinitionContent: ContentBefore,
    RunProgress: ProgressBefore,
    TranscriptMetrics: MetricsBefore,
    OAuthProfile: ProfileBefore,
}
CHANGED_BEFORE: dict[type[Document], tuple[dict[str, Any], dict[str, Any]]] = {
    DefinitionContent: ({"matching_rules": "any"}, {"matching_rules": ("any",)}),
    RunProgress: ({"total": 10**30}, {"total": 10**30}),
    TranscriptMetrics: ({"decision_source": "other"}, {"decision_source": DecisionSource(name="other")}),
    OAuthProfile: ({"picture": "https://example.test/b.png"}, {"picture_url": "https://example.test/b.png"}),
}
"""What the release before changes, and what this one reads then."""


@pytest.mark.offline
@pytest.mark.requirement("VR-017", "VR-020")
@each_document
def test_the_release_before_reads_and_changes_what_is_written_for_it(document: type[Document]) -> None:
    """Every document that was ever stored, written at version 1: nothing is lost on the way, and its changes count."""
    before = BEFORE[document]
    assert fingerprint(before) == read_lock()[document.__name__, 1, "schema"]
    theirs, ours = CHANGED_BEFORE[document]
    for version in range(3):
        for example in read_examples(document.__name__, version):
            read = document.load(example.stored)
            written = dump_json(read, 1)
            assert document.load(written) == read
            kept = before.load(written)
            assert document.load(kept.dump()) == read
            changed = document.load(kept.replace(**theirs).dump())
            assert changed == read.replace(**ours)


_ODD: list[Any] = [None, True, 0, 7, -1, 2.5, 10**30, "", "first-word", [], ["a", 1], ["a", "b"], {}, {"name": "x"}, {"name": None}]
_ASIDE = ["all_matching_rules", "whole_decision_source", "skipped"]


@pytest.mark.offline
@pytest.mark.property
@pytest.mark.requirement("VR-018")
@each_document
def test_steps_take_whatever_their_version_allows(document: type[Document]) -> None:
    """
    Of hundreds of documents of version 1 none fails a step; none is changed by it, and two runs agree.

    The release before may have stored anything under the keys where a step down puts things aside.
    """
    step, down = document._steps[1], document._steps_down[2]
    chance = random.Random(document.__name__)
    made = examples(BEFORE[document], STEPPED)
    assert len(made) > STEPPED // 2
    for number, raw in enumerate(made):
        given = {**raw, chance.choice(_ASIDE): chance.choice(_ODD)} if number % 2 else raw
        before = json.dumps(given)
        stepped = step(given)
        assert json.dumps(given) == before
        assert json.dumps(step(given)) == json.dumps(stepped)
        loaded = document.load(given)
        assert loaded.dump() == document.load({**stepped, "schema_version": 2}).dump()
        newest = loaded.dump()
        kept = json.dumps(newest)
        assert json.dumps(down(newest)) == json.dumps(down(newest))
        assert json.dumps(newest) == kept
        assert document.load(dump_json(loaded, 1)) == loaded


RELEASED_1 = {
    DefinitionContent: {"preamble", "template", "dimensions", "matching_rules"},
    RunProgress: {"total", "completed", "failed"},
    TranscriptMetrics: {"values", "decision", "decision_source"},
    OAuthProfile: {"subject", "name", "picture", "raw"},
}
"""The keys of version 1 as it was released."""


@pytest.mark.requirement("VR-020")
@pytest.mark.usefixtures("writes_1")
@each_document
def test_an_older_release_works_beside(session: Session, document: type[Document], old: Old) -> None:
    """Told to write version 1, this release stores what the older one reads, and loses nothing by it."""
    CHANGES[document](session, old.id)
    stored = json.loads(row_of(session, document, old.id)[1])
    assert stored["schema_version"] == 1
    types = {key: {type(value) for value in (old.raw[key], None)} for key in RELEASED_1[document] & old.raw.keys()}
    assert all(type(stored[key]) in allowed for key, allowed in types.items())
    assert read(session, document, old.id).dump() == stored
    set_write_version(document, None)
    assert read(session, document, old.id).dump() == {**NEW[document].dump(), **CHANGED[document]}


@pytest.mark.offline
def test_what_a_step_down_put_aside_does_not_outlive_a_change() -> None:
    """A release of version 1 keeps the key that it does not know; the value that it has changed counts."""
    rules = json.loads(dump_json(DefinitionContent(preamble="", template="", matching_rules=("a", "b")), 1))
    assert DefinitionContent.load({**rules, "matching_rules": "c"}).dump()["matching_rules"] == ["c"]
    assert DefinitionContent.load({**rules, "matching_rules": None}).model_extra == {}
    source = DecisionSource(kind=AnnotatorKind.MODEL, name="judge", note="kept")
    told = json.loads(dump_json(TranscriptMetrics(decision_source=source), 1))
    assert TranscriptMetrics.load(told).decision_source == source
    assert TranscriptMetrics.load({**told, "decision_source": "other"}).decision_source == DecisionSource(name="other")
    assert TranscriptMetrics.load({**told, "decision_source": None}).model_extra == {}
    progress = json.loads(dump_json(RunProgress(total=10, completed=5, skipped=4), 1))
    assert RunProgress.load({**progress, "completed": 8}).skipped == 2


def test_the_census_tells_the_versions_apart(session: Session, workspace: UUID, db: Any) -> None:
    """Old and new rows of one column, as they are stored; a row that raw SQL made has the column's default, which is of version 1."""
    assert session.get(Workspace, workspace) is not None
    found = {one.column: one for one in census(db)}
    for document, (table, column) in TABLES.items():
        one = found[f"{table.__tablename__}.{column}"]
        assert (one.document, one.newest_version, one.write_version) == (document.__name__, 2, 2)
