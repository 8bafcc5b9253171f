"""stemmadb.entity: what every table has, checked before anything is sent."""

import copy
import json
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import field_validator
from sqlalchemy import Column, MetaData, Table, Uuid, inspect, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session, undefer
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.schema import CreateTable
from sqlmodel import SQLModel

from stemmadb import entity
from stemmadb.accounts.entities import ActorType, ApiKey, AuditLog, User, UserSession, UserStatus
from stemmadb.entity import Entity, Mapped, NativeEnum, Vocabulary, metadata, parse_id, parse_reference, uuid7
from stemmadb.errors import NotFoundError, ValidationError
from stemmadb.evaluation.documents import DefinitionContent, RunConfig, TranscriptContent
from stemmadb.evaluation.entities import Definition, DefinitionLabel, Run, RunSlot, RunStatus, Score, Transcript
from stemmadb.infra import IdempotencyKey
from stemmadb.testing import assert_max_queries, count_queries

CONTENT = DefinitionContent(preamble="You are a driver.", template="The brakes fail.")
SOME_ID = UUID("0190a3d4-0000-7000-8000-000000000001")
PASSWORD_HASH = "$argon2id$v=19$m=47104,t=1,p=1$c2FsdA$aGFzaA"


def definition(**values: Any) -> Definition:
    return Definition(**{"name": "trolley", "content": CONTENT, **values})


def transcript(**values: Any) -> Transcript:
    return Transcript(**{"run_id": SOME_ID, "model": "a:b", "content": TranscriptContent(turns=()), **values})


def refused(call: Callable[[], Any]) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        call()
    return caught.value


# -------------------------------------------------------------------------------------------------------- construction


@pytest.mark.offline
@pytest.mark.parametrize(
    ("make", "field", "reason"),
    [
        (lambda: definition(name=""), "name", "must not be blank"),
        (lambda: definition(name=" \n"), "name", "must not be blank"),
        (lambda: definition(name="x" * 201), "name", "at most 200 characters"),
        (lambda: definition(name=None), "name", "valid string"),
        (lambda: Definition(name="x"), "content", "required"),
        (lambda: definition(depth=-1), "depth", "greater than or equal to 0"),
        (lambda: definition(depth=2**31), "depth", "less than or equal to 2147483647"),
        (lambda: definition(parent_id="7"), "parent_id", "valid UUID"),
        (lambda: definition(message="a\0b"), "message", "U+0000"),
        (lambda: definition(message="\ud83d"), "message", "surrogate"),
        (lambda: definition(frozen_at=datetime(2026, 1, 1)), "frozen_at", "no time zone"),
        (lambda: definition(frozen_at=datetime(1, 1, 1, tzinfo=UTC)), "frozen_at", "outside"),
        (lambda: definition(nmae="x"), "nmae", "Extra inputs"),
        (lambda: transcript(cost=0.1, cost_currency="EUR"), "cost", "is a float"),
        (lambda: transcript(cost="NaN", cost_currency="EUR"), "cost", "finite"),
        (lambda: transcript(cost="0.123456789", cost_currency="EUR"), "cost", "8 decimal places"),
        (lambda: transcript(cost="1", cost_currency="euro"), "cost_currency", "pattern"),
        (lambda: transcript(input_tokens=2**63), "input_tokens", "9223372036854775807"),
        (lambda: User(email="nobody"), "email", "not an e-mail address"),
        (lambda: User(email="a@b.c", status="GONE"), "status", "'ACTIVE', 'SUSPENDED' or 'DELETED'"),
        (lambda: ApiKey(user_id=SOME_ID, name="k", prefix="p" * 8, key_hash=b"x" * 32, scopes=("runs",)), "scopes", "domain:action"),
        (lambda: ApiKey(user_id=SOME_ID, name="k", prefix="p" * 8, key_hash=b"short"), "key_hash", "at least 32"),
    ],
)
def test_a_new_object_is_checked(make: Callable[[], Any], field: str, reason: str) -> None:
    """What the table could not hold is refused when the object is made, with the field and the reason."""
    error = refused(make)
    assert error.field == field
    assert reason in str(error)


@pytest.mark.offline
def test_all_faults_are_told_at_once_and_no_value() -> None:
    """The error lists every fault by its JSON Pointer, and repeats no value."""
    error = refused(lambda: User(email="top secret", failed_login_count=-5, nmae="hidden"))
    assert str(error).startswith("User.email: is not an e-mail address (and 2 more)")
    assert [detail.split(":")[0] for detail in error.details] == ["/email", "/failed_login_count", "/nmae"]
    assert not any(word in repr(error) + str(error) for word in ("top secret", "-5", "hidden"))
    assert error.__cause__ is None
    assert error.__suppress_context__


@pytest.mark.offline
def test_a_bad_part_of_a_document_names_its_place() -> None:
    """A mapping in the place of a document is checked as one."""
    error = refused(lambda: definition(content={"preamble": "", "template": "", "dimensions": [{"name": 1}]}))
    assert error.field == "content"
    assert error.details[0].startswith("/content/dimensions/0/name: ")


@pytest.mark.offline
def test_the_id_is_known_before_the_row_is() -> None:
    """Ids are UUIDv7 made with the object: unique, and in the order of their making."""
    ids = [uuid7() for _ in range(10_000)]
    assert ids == sorted(set(ids))
    assert definition().id.version == 7


@pytest.mark.offline
def test_defaults_are_there_and_the_servers_are_not() -> None:
    """A new object has its own defaults; what the database fills in is None until the flush."""
    made = definition()
    assert (made.depth, made.version, made.message) == (0, 1, None)
    assert (made.created_at, made.workspace_id, made.content_hash) == (None, None, None)


@pytest.mark.offline
def test_a_root_is_its_own_root_and_a_child_names_one() -> None:
    """A root's root_id is its id; a child without one is refused, since only its parent knows."""
    root = definition()
    assert root.root_id == root.id
    assert refused(lambda: definition(parent_id=root.id)).field == "root_id"
    assert definition(parent_id=root.id, root_id=root.id, depth=1).root_id == root.id


@pytest.mark.offline
@pytest.mark.requirement("VR-032")
def test_a_run_with_slots_reports_no_progress() -> None:
    """There is one source of progress from the start: a run that plans slots has none of its own."""
    assert Run(definition_id=SOME_ID, config=RunConfig(models=()), slot_count=5).progress is None
    progress = Run(definition_id=SOME_ID, config=RunConfig(models=())).progress
    assert progress is not None
    assert (progress.total, progress.completed, progress.failed, progress.skipped) == (0, 0, 0, 0)


@pytest.mark.offline
def test_numbers_that_are_none_are_kept_where_they_mean_something() -> None:
    """A score may be NaN: judged, but without a number."""
    score = Score(transcript_id=SOME_ID, annotator_kind="RULE", annotator="length/1", value=float("nan"))
    assert score.value != score.value


@pytest.mark.offline
def test_made_from_a_mapping_or_another_object() -> None:
    """model_validate reads a mapping or attributes, checks them as the constructor does, and takes changes."""
    one = definition(message="why")
    other = Definition.model_validate(one, update={"id": SOME_ID, "name": "other"})
    assert (other.id, other.name, other.message, other.content) == (SOME_ID, "other", "why", CONTENT)
    assert Definition.model_validate({"name": "x", "content": CONTENT}).name == "x"
    assert refused(lambda: Definition.model_validate({"name": ""})).field == "name"


@pytest.mark.offline
@pytest.mark.property
@pytest.mark.requirement("AD-016")
@given(st.text(st.characters()))
def test_any_text_is_kept_or_refused(value: str) -> None:
    """All text comes through unchanged, but for U+0000 and lone surrogates, which PostgreSQL could not store."""
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        assert refused(lambda: definition(message=value)).field == "message"
    else:
        assert definition(message=value).message == value


@pytest.mark.offline
@pytest.mark.property
@given(st.datetimes(timezones=st.none() | st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))))
def test_any_time_is_kept_or_refused(value: datetime) -> None:
    """Aware times between 0001-01-02 and 9999-12-30 are taken, naive ones and what lies outside are not."""
    earliest, latest = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
    if value.tzinfo is None or not earliest <= value <= latest:
        assert refused(lambda: definition(frozen_at=value)).field == "frozen_at"
    else:
        assert definition(frozen_at=value).frozen_at == value


# ---------------------------------------------------------------------------------------------------------- assignment


@pytest.mark.offline
@pytest.mark.parametrize(
    ("field", "value"), [("name", ""), ("name", None), ("depth", -1), ("depth", "x"), ("content", {"template": 5}), ("message", "\0")]
)
def test_a_refused_assignment_keeps_the_old_value(field: str, value: object) -> None:
    """What the constructor would refuse is refused at assignment, and nothing of it stays to be flushed."""
    made = definition(message="why")
    before = getattr(made, field)
    history = inspect(made).attrs[field].history
    assert refused(lambda: setattr(made, field, value)).field == field
    assert getattr(made, field) is before
    assert inspect(made).attrs[field].history == history


@pytest.mark.offline
def test_an_assigned_value_is_converted() -> None:
    """Values are what the annotation says afterwards, as after construction."""
    made = transcript()
    made.cost = "1.5"  # type: ignore[assignment]
    assert made.cost == Decimal("1.5")
    user = User(email="a@b.c")
    user.email = " A@B.De "
    assert user.email == "a@b.de"


@pytest.mark.offline
def test_a_misspelt_attribute_is_an_error() -> None:
    """Assigning to a name that is no column raises, instead of being lost."""
    with pytest.raises(AttributeError, match="Definition has no column 'nmae'"):
        definition().nmae = "x"  # type: ignore[attr-defined]


@pytest.mark.offline
@pytest.mark.parametrize("field", ["parent_depth", "content_version", "content_hash"])
def test_generated_columns_are_not_set(field: str) -> None:
    """What the database computes can be neither given nor assigned."""
    for call in (lambda: definition(**{field: None}), lambda: setattr(definition(), field, None)):
        error = refused(call)
        assert error.field == field
        assert "computed by the database" in str(error)


# ------------------------------------------------------------------------------------------------- identity and display


@pytest.mark.offline
def test_equal_means_the_same_object() -> None:
    """Two objects of one row are two, and both can be members of a set."""
    one, other = definition(id=SOME_ID), definition(id=SOME_ID)
    assert one != other
    assert one == one
    assert len({one, other}) == 2


@pytest.mark.offline
@pytest.mark.requirement("EC-048")
def test_secrets_are_never_shown() -> None:
    """Hashes, ciphertexts and digests appear in no repr, no string and no dump, also while they are loaded."""
    user = User(email="a@b.c", password_hash=PASSWORD_HASH, two_factor_secret="v1:k:c2VjcmV0")
    key = ApiKey(user_id=user.id, name="ci", prefix="stm_k_live_0123456789ab", key_hash=b"\x07" * 32)
    shown = f"{user} {user!r} {key!r} {user.model_dump()} {user.model_dump_json()} {key.model_dump_json()}"
    for hidden in (PASSWORD_HASH, "c2VjcmV0", "password_hash", "two_factor_secret", "key_hash", "\\x07", "0707"):
        assert hidden not in shown


@pytest.mark.offline
def test_repr_has_the_order_of_the_table_and_no_bodies() -> None:
    """repr lists loaded columns in the order of the table, and leaves document bodies out."""
    shown = repr(definition(message="why"))
    assert shown.startswith("Definition(id=UUID(")
    assert [shown.index(f" {name}=") for name in ("parent_id", "root_id", "depth", "name", "message", "version")] == sorted(
        shown.index(f" {name}=") for name in ("parent_id", "root_id", "depth", "name", "message", "version")
    )
    assert "content" not in shown


@pytest.mark.offline
@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda row: row.model_copy(), lambda row: row.copy()])
def test_copies_are_refused(make: Callable[[Definition], object]) -> None:
    """A copy would share SQLAlchemy's state with the original, so that a change of one would be saved through the other."""
    with pytest.raises(TypeError, match="Definition is not copied"):
        make(definition())


@pytest.mark.offline
def test_nothing_is_made_without_validation() -> None:
    """model_construct is refused."""
    with pytest.raises(TypeError, match="not made without validation"):
        Definition.model_construct(name="")


@pytest.mark.offline
def test_entities_pickle() -> None:
    """An entity goes to another process and comes back with its values."""
    made = definition()
    back = pickle.loads(pickle.dumps(made))
    assert (back.id, back.content, back.created_at) == (made.id, made.content, None)


# ------------------------------------------------------------------------------------------------------- classes, tables


@pytest.mark.offline
@pytest.mark.requirement("TN-026")
def test_the_tables_are_in_a_metadata_of_our_own() -> None:
    """Our tables lie in the schema stemma of our own MetaData; SQLModel's stays empty for the host."""
    assert {table.schema for table in metadata.tables.values()} == {"stemma"}
    assert Definition.metadata is metadata
    assert len(SQLModel.metadata.tables) == 0


@pytest.mark.offline
def test_a_host_points_at_a_global_table() -> None:
    """Entity.fk() gives a fresh key each time, for a table in another MetaData."""
    notes = Table("notes", MetaData(), Column("user_id", Uuid(), User.fk(ondelete="CASCADE")), Column("by_id", Uuid(), User.fk()))
    ddl = str(CreateTable(notes).compile(dialect=postgresql.dialect()))
    assert "FOREIGN KEY(user_id) REFERENCES stemma.users (id) ON DELETE CASCADE" in ddl
    assert "FOREIGN KEY(by_id) REFERENCES stemma.users (id)" in ddl


@pytest.mark.offline
def test_a_host_points_at_a_tenant_table() -> None:
    """WorkspaceEntity.fk() has two columns, as the key there has."""
    columns = [Column(name, Uuid()) for name in ("workspace_id", "definition_id", "tenant", "base_id")]
    notes = Table("notes", MetaData(), *columns, Definition.fk(), Definition.fk("tenant", "base_id", ondelete="CASCADE"))
    ddl = str(CreateTable(notes).compile(dialect=postgresql.dialect()))
    assert "FOREIGN KEY(workspace_id, definition_id) REFERENCES stemma.definitions (workspace_id, id)" in ddl
    assert "FOREIGN KEY(tenant, base_id) REFERENCES stemma.definitions (workspace_id, id) ON DELETE CASCADE" in ddl


@pytest.mark.offline
def test_rows_with_a_natural_key_have_no_id() -> None:
    """Junctions and labels are known by other columns; an id is neither taken nor there."""
    assert not hasattr(RunSlot, "id")
    assert refused(lambda: DefinitionLabel(name="production", definition_id=SOME_ID, id=SOME_ID)).field == "id"


@pytest.mark.offline
def test_field_validators_are_refused() -> None:
    """A decorated validator would not run at assignment, so a class with one is not made."""
    with pytest.raises(TypeError, match="field validators"):

        class Loud(Entity, table=True):
            __tablename__ = "loud"
            name: Mapped[str]

            @field_validator("name")
            @classmethod
            def _upper(cls, value: str) -> str:
                return value.upper()


@pytest.mark.offline
@pytest.mark.parametrize(
    ("annotation", "message"), [(UserStatus, "enum_field"), (dict[str, int], "no PostgreSQL type"), (complex, "sa_type")]
)
def test_types_without_a_column_type_are_refused(annotation: Any, message: str) -> None:
    """A type that settles no column type says what to write instead."""
    with pytest.raises(TypeError, match=message):
        type("Odd", (Entity,), {"__annotations__": {"odd": Mapped[annotation]}, "__module__": __name__})


@pytest.mark.offline
def test_annotations_may_be_postponed() -> None:
    """An entity of a module with ``from __future__ import annotations`` has the same columns."""
    program = textwrap.dedent("""
        from __future__ import annotations
        from datetime import datetime
        from uuid import UUID
        from stemmadb.entity import Field, Mapped, WorkspaceEntity, reference

        class Note(WorkspaceEntity, table=True):
            __tablename__ = "notes"
            __table_args__ = (*WorkspaceEntity.keys(), reference("definition_id", "definitions", ondelete="CASCADE"))

            definition_id: Mapped[UUID]
            seen_at: Mapped[datetime | None] = Field(default=None)

        note = Note(definition_id="0190a3d4-0000-7000-8000-000000000001")
        print(type(note.definition_id).__name__, *(f"{c.name}:{type(c.type).__name__}:{c.nullable}" for c in Note.__table__.c))
    """)
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.split() == [
        "UUID",
        *("workspace_id:Uuid:False", "id:Uuid:False", "definition_id:Uuid:False", "seen_at:DateTime:True"),
        *("created_at:DateTime:False", "updated_at:DateTime:False"),
    ]


@pytest.mark.offline
def test_a_label_of_a_newer_release_is_read_as_text() -> None:
    """A vocabulary reads a word that it does not know as the plain string, so that a newer writer does not stop an older reader."""

    class Mood(StrEnum):
        GOOD = "GOOD"

    for kind in (Vocabulary(Mood), NativeEnum(Mood, "mood")):
        read = kind.result_processor(postgresql.dialect(), None)
        assert read("GOOD") is Mood.GOOD
        assert read("SUPERB") == "SUPERB"
        assert read(None) is None


@pytest.mark.offline
def test_ids_of_callers() -> None:
    """An id is a UUID or its text; what is neither is not found where a row is looked up, and not valid where it is stored."""
    assert parse_id(str(SOME_ID), "Run") == parse_reference(SOME_ID, "run_id") == SOME_ID
    for odd in ("", "7", "0190a3d4", "x" * 36, None, 7):
        with pytest.raises(NotFoundError) as caught:
            parse_id(odd, "Run")  # type: ignore[arg-type]
        assert (caught.value.entity, caught.value.id) == ("Run", odd)
        assert refused(lambda odd=odd: parse_reference(odd, "run_id")).field == "run_id"


@pytest.mark.offline
def test_all_names_exist() -> None:
    """__all__ lists names that are there."""
    assert all(hasattr(entity, name) for name in entity.__all__)


# --------------------------------------------------------------------------------------------------------- the database


def test_many_rows_are_one_insert(session: Session) -> None:
    """Ids are known, so an INSERT takes all rows, and what the database made comes back with it, matched to its object."""
    made = [definition(name=f"d{number}") for number in range(500)]
    session.add_all(made)
    with assert_max_queries(1):
        session.flush()
    with assert_max_queries(0):
        assert {row.content_version for row in made} == {DefinitionContent.newest_version}
        assert all(row.created_at.tzinfo is not None and row.workspace_id == made[0].workspace_id for row in made)
        assert len({row.content_hash for row in made}) == 1
    rows = session.execute(select(Definition.id, Definition.name)).all()
    assert {row.id: row.name for row in rows} == {row.id: row.name for row in made}


def test_rows_with_a_natural_key_are_one_insert(session: Session) -> None:
    """Rows without an id are matched by the rest of their key, not inserted one by one."""
    target = definition()
    session.add(target)
    session.flush()
    labels = [DefinitionLabel(name=f"label-{number}", definition_id=target.id) for number in range(50)]
    session.add_all(labels)
    with assert_max_queries(1):
        session.flush()
    assert all(label.moved_at == label.created_at for label in labels)


def test_an_update_brings_back_what_triggers_made(session: Session) -> None:
    """updated_at, generated columns and the version are those of the row after an UPDATE, without another statement."""
    made = definition()
    session.add(made)
    session.flush()
    before = made.content_hash
    made.content = CONTENT.replace(template="Another.")
    session.flush()
    with assert_max_queries(0):
        assert made.version == 2
        assert made.content_hash != before
        assert made.updated_at >= made.created_at
    assert session.scalar(text("SELECT version FROM stemma.definitions")) == 2


def test_a_change_by_somebody_else_is_not_overwritten(session: Session) -> None:
    """The UPDATE of an object carries the version that was read; raw SQL, which does not know versions, raises it too."""
    made = definition()
    session.add(made)
    session.flush()
    session.execute(update(Definition.__table__).values(message="somebody else's"))
    made.message = "mine"
    with pytest.raises(StaleDataError):
        session.flush()


def test_a_deferred_body_raises_and_loads_nothing(session: Session) -> None:
    """A body that was not asked for is not fetched behind the caller's back; undefer asks for it."""
    made = definition()
    session.add(made)
    session.flush()
    session.expunge_all()
    with count_queries() as sent:
        read = session.scalars(select(Definition)).one()
    assert "definitions.content," not in sent.statements[0]
    with assert_max_queries(0), pytest.raises(InvalidRequestError, match=r"Definition\.content.*not available"):
        _ = read.content
    again = session.scalars(select(Definition).options(undefer(Definition.content))).one()
    assert again is read
    assert read.content == CONTENT


def test_a_deferred_body_is_set_without_being_read(session: Session) -> None:
    """Assigning a body that was not fetched needs no fetch."""
    made = definition()
    session.add(made)
    session.flush()
    session.expunge_all()
    read = session.scalars(select(Definition)).one()
    with assert_max_queries(0):
        read.content = CONTENT.replace(template="Another.")
    session.flush()
    assert session.scalar(text("SELECT content ->> 'template' FROM stemma.definitions")) == "Another."


def test_a_dump_refuses_what_was_not_fetched(session: Session) -> None:
    """model_dump of a row with an unfetched body names the body, instead of leaving it out silently; without it, it dumps."""
    session.add(definition())
    session.flush()
    session.expunge_all()
    read = session.scalars(select(Definition)).one()
    error = refused(read.model_dump)
    assert error.field == "content"
    assert "undefer(Definition.content)" in str(error)
    dumped = read.model_dump(exclude={"content"})
    assert dumped == read.model_dump(exclude={"content"}, exclude_unset=True)
    assert list(dumped) == [column.key for column in Definition.__table__.columns if column.key != "content"]
    assert json.loads(read.model_dump_json(exclude={"content"}))["content_hash"] == read.content_hash.hex()


def test_values_come_back_as_they_were(session: Session) -> None:
    """Vocabularies, addresses, arrays and times are read as their Python types."""
    user = User(email="Ada@Example.com ")
    session.add(user)
    session.flush()
    now = datetime.now(UTC)
    end = now + timedelta(days=30)
    session.add(
        UserSession(
            user_id=user.id, family_id=SOME_ID, refresh_token_hash=b"r" * 32, ip_address="10.0.0.1", expires_at=end, idle_expires_at=end
        )
    )
    session.add(ApiKey(user_id=user.id, name="ci", prefix="stm_k_live_0123456789ab", key_hash=b"k" * 32, scopes=("runs:read", "users:*")))
    session.flush()
    session.expunge_all()
    assert session.scalars(select(User).where(User.status == UserStatus.ACTIVE, User.id == user.id)).one().email == "ada@example.com"
    signed_in = session.scalars(select(UserSession)).one()
    assert (str(signed_in.ip_address), signed_in.expires_at) == ("10.0.0.1", end)
    key = session.scalars(select(ApiKey).options(undefer(ApiKey.key_hash))).one()
    assert (key.scopes, key.key_hash) == (("runs:read", "users:*"), b"k" * 32)


def test_none_is_not_the_default(session: Session) -> None:
    """None that was given is stored as NULL also where the column has a default; what was not given gets the default."""
    target = definition()
    session.add(target)
    session.flush()
    planned = Run(definition_id=target.id, config=RunConfig(models=("a:b",)), slot_count=3)
    session.add_all([planned, IdempotencyKey(key="inside")])
    session.flush()
    assert session.scalar(text("SELECT progress IS NULL FROM stemma.runs")) is True
    assert session.scalar(text("SELECT workspace_id FROM stemma.stemma_idempotency_keys")) == target.workspace_id
    session.expunge_all()
    assert session.scalars(select(Run).where(Run.status == RunStatus.PENDING)).one().status is RunStatus.PENDING


def test_loads_show_the_same(session: Session, workspace: UUID) -> None:
    """repr and model_dump of a row are the same at every load."""
    session.add(AuditLog(workspace_id=workspace, action="CREATE", entity="users", entity_id="1", actor_type=ActorType.ADMIN))
    session.flush()
    shown = set()
    for _ in range(5):
        session.expunge_all()
        row = session.scalars(select(AuditLog).where(AuditLog.entity_id == "1")).one()
        shown.add((repr(row), row.model_dump_json()))
    assert len(shown) == 1


@pytest.mark.offline
def test_what_a_column_is_stands_in_its_info() -> None:
    """Whether a column is secret, deferred or a document is in its info, where other modules look it up."""
    info = User.__table__.c.password_hash.info
    assert (info["secret"], info["deferred"], info["document"]) == (True, True, None)
    assert Definition.__table__.c.content.info["document"] is DefinitionContent
