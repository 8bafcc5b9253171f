"""Factories: every entity has one, what it builds is stored, and what it stores is what the library itself would have stored."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, undefer

from stemmadb import infra
from stemmadb.accounts.entities import ApiKey, AuditLog, MfaSettings, User, UserSession, UserStatus
from stemmadb.database import Database
from stemmadb.entity import Entity
from stemmadb.errors import (
    ConflictError,
    ReferenceNotFoundError,
    StemmaError,
    ValidationError,
    WorkspaceNotSetError,
)
from stemmadb.evaluation import definitions, runs, scenarios
from stemmadb.evaluation.entities import Definition, Run, RunComparison, RunSlot, RunStatus, Scenario, Score, SlotStatus, Transcript
from stemmadb.packs import packs
from stemmadb.testing import assert_max_queries, count_queries
from stemmadb.testing.factories import factory_of, seed
from stemmadb.workspaces.entities import ApprovalItem, ApprovalStatus, Workspace, WorkspaceMember

ENTITIES = [*(entity for pack in packs() for entity in pack.entities), infra.SeedHistory, infra.IdempotencyKey]
BUILDS = 50

each_entity = pytest.mark.parametrize("entity", ENTITIES, ids=lambda entity: entity.__name__)


@pytest.fixture(autouse=True)
def _unseeded() -> Iterator[None]:
    """Other tests go on with values that nobody knows."""
    yield
    from stemmadb.testing import _values

    _values.RANDOM.seed()
    _values._ids.seeded = None


def columns_of(row: Entity) -> dict[str, object]:
    """Everything that a row holds, times of the database left out."""
    left_out = {"created_at", "updated_at"}
    return {name: value for name, value in row.__dict__.items() if name in type(row).model_fields and name not in left_out}


# ------------------------------------------------------------------------------------------------------------ every entity


@each_entity
@pytest.mark.property
@pytest.mark.requirement("PF-077", "EC-134", "EC-223")
def test_fifty_builds_of_each_entity_are_stored(session: Session, entity: type[Entity]) -> None:
    """Whatever the values are, PostgreSQL takes all of them, one by one or in a batch, and gives the same back."""
    factory = factory_of(entity)
    made = [*factory.create_many(session, BUILDS), *(factory.create(session) for _ in range(3))]
    assert len(made) == BUILDS + 3
    assert all(inspect(row).persistent for row in made)
    before = {inspect(row).identity: columns_of(row) for row in made}
    session.expunge_all()
    bodies = [undefer(getattr(entity, column.key)) for column in entity.__table__.columns if column.info["deferred"]]
    read = {inspect(row).identity: row for row in session.scalars(select(entity).options(*bodies))}
    for key, expected in before.items():
        assert {name: getattr(read[key], name) for name in expected} == expected


@each_entity
@pytest.mark.property
@pytest.mark.offline
@pytest.mark.requirement("PF-077")
def test_a_build_needs_no_database_and_no_two_are_alike(entity: type[Entity]) -> None:
    """What is built is no row, whole, and another each time."""
    with count_queries() as sent:
        built = factory_of(entity).batch(BUILDS)
    assert sent.count == 0
    assert all(inspect(row).transient for row in built)
    assert len({tuple(map(repr, columns_of(row).values())) for row in built}) == BUILDS


@each_entity
@pytest.mark.requirement("PF-077", "PF-071")
def test_every_word_of_every_vocabulary_can_be_asked_for(session: Session, entity: type[Entity]) -> None:
    """A status brings along what its CHECKs want."""
    for column in entity.__table__.columns:
        kind = getattr(column.type, "enum", None)
        for member in kind if isinstance(kind, type) and issubclass(kind, Enum) else ():
            row = factory_of(entity).create(session, **{column.key: member})
            assert getattr(row, column.key) is member


def change(session: Session, row: Entity) -> tuple[str, object] | None:
    """Give the first column that the table lets another value, and return both; a row that only links others has its time. None: none."""
    table, others = type(row).__table__, factory_of(type(row)).batch(5)
    told = {element.name for constraint in table.foreign_key_constraints for element in constraint.columns}
    left_out = told | {column.name for column in table.primary_key} | {"version", "deleted_at"}
    names = [column.name for column in table.columns if column.name not in left_out and column.name in columns_of(others[0])]
    found = [(name, columns_of(other)[name]) for name in names for other in others]
    for name, value in [*found, ("created_at", datetime(2020, 1, 1, tzinfo=UTC))]:
        if value is None or value == row.__dict__.get(name):
            continue
        try:
            with session.begin_nested():
                setattr(row, name, value)
                session.flush()
        except (StemmaError, DBAPIError):
            continue
        return name, value
    return None


@each_entity
@pytest.mark.requirement("PF-073")
def test_every_entity_is_created_read_changed_and_deleted(session: Session, entity: type[Entity]) -> None:
    """Its row is found by its key, can be changed where the table lets it, and is gone when it was deleted."""
    row = factory_of(entity).create(session)
    key = inspect(row).identity
    assert session.get(entity, key) is row
    if entity.__tablename__ in ("audit_logs", "security_events"):
        return  # only ever added to
    changed = change(session, row)
    assert changed is not None
    where = [part == value for part, value in zip(inspect(entity).primary_key, key, strict=True)]
    assert session.scalars(select(getattr(entity, changed[0])).where(*where)).one() == changed[1]
    session.delete(row)
    session.flush()
    assert session.get(entity, key) is None


@each_entity
@pytest.mark.offline
@pytest.mark.requirement("PF-077")
def test_a_seed_repeats_itself(entity: type[Entity]) -> None:
    """The same seed gives the same entities, ids and documents included; another gives others."""

    def built(number: int) -> list[dict[str, object]]:
        seed(number)
        return [columns_of(row) for row in factory_of(entity).batch(5)]

    assert repr(built(7)) == repr(built(7)) != repr(built(8))


def test_a_seed_repeats_what_is_stored(session: Session) -> None:
    """The rows that it needs come out alike as well."""

    def stored() -> list[object]:
        seed(11)
        with session.begin_nested() as savepoint:
            score = factory_of(Score).create(session)
            transcript = session.get_one(Transcript, (score.workspace_id, score.transcript_id))
            found = [columns_of(score), columns_of(transcript)]
            savepoint.rollback()
        session.expunge_all()
        return found

    assert repr(stored()) == repr(stored())


# ----------------------------------------------------------------------------------------------------- rows and their rows


def test_parents_are_made_or_taken(session: Session) -> None:
    """A required reference without a value gets a row of its own; one that is given is taken as it is."""
    ada = factory_of(User).create(session)
    theirs, own = factory_of(UserSession).create(session, user_id=ada.id), factory_of(UserSession).create(session)
    assert theirs.user_id == ada.id
    assert own.user_id != ada.id
    assert session.get(User, own.user_id) is not None
    assert factory_of(ApiKey).create(session).workspace_id is None


def test_a_batch_is_few_statements(session: Session) -> None:
    """Five hundred rows of a table that needs two others are three INSERTs, and one that freezes; with the parent given, one."""
    with count_queries() as sent:
        factory_of(Transcript).create_many(session, 500)
    inserts = [statement for statement in sent.statements if statement.lstrip().startswith("INSERT")]
    assert len(inserts) == 3
    run = factory_of(Run).create(session)
    with assert_max_queries(1):
        factory_of(Transcript).create_many(session, 500, run_id=run.id)


def test_rows_of_their_own(session: Session) -> None:
    """create_each takes what each row has of its own, and keeps the order; of nothing it makes nothing."""
    made = factory_of(User).create_each(session, [{"name": "Ada"}, {}, {"name": "Grace", "status": UserStatus.SUSPENDED}])
    assert (made[0].name, made[2].name, made[2].status) == ("Ada", "Grace", UserStatus.SUSPENDED)
    assert factory_of(User).create_each(session, []) == []
    assert factory_of(User).create_many(session, 0) == []


@pytest.mark.requirement("VR-010")
def test_children_lie_in_their_trees(session: Session) -> None:
    """A child is stored with its parent alone; walks find it, and the parent is frozen as by a fork."""
    root = factory_of(Definition).create(session)
    children = factory_of(Definition).create_many(session, 3, parent_id=root.id)
    leaf = factory_of(Definition).create(session, parent_id=str(children[0].id))
    assert [row.id for row in definitions.ancestors(session, leaf.id)] == [root.id, children[0].id]
    assert {row.id for row in definitions.descendants(session, root.id)} == {leaf.id, *(row.id for row in children)}
    assert root.frozen_at is not None
    with pytest.raises(ReferenceNotFoundError):
        factory_of(Definition).create(session, parent_id=uuid4())


def test_what_is_referred_to_is_frozen(session: Session) -> None:
    """As by the query functions: a scenario and a run freeze their definition, and query functions take it from there."""
    definition = factory_of(Definition).create(session)
    scenario = factory_of(Scenario).create(session, definition_id=definition.id)
    assert definition.frozen_at is not None
    run = factory_of(Run).create(session, definition_id=definition.id)
    assert scenarios.get(session, scenario.id).id == scenario.id
    assert runs.start(session, run.id).status == RunStatus.RUNNING
    assert definitions.get(session, factory_of(Run).create(session).definition_id).frozen_at is not None


def test_doctor_finds_nothing_in_what_is_stored(committed_db: Database, committed_workspace: UUID) -> None:
    """A row of every entity, with all that it needs, breaks none of the rules that the packs look at."""
    before = {(finding.code, finding.object) for finding in committed_db.check().findings}
    with committed_db.session(committed_workspace) as session:
        for entity in ENTITIES:
            factory_of(entity).create_many(session, 2)
    assert {(finding.code, finding.object) for finding in committed_db.check().findings} - before == set()


def test_runs_and_scenarios_belong_together(session: Session) -> None:
    """Of whatever is given the rest is made of the same definition."""

    def definition_of(kind: type[Run] | type[Scenario], id: UUID) -> UUID:
        return session.scalars(select(kind.definition_id).where(kind.id == id)).one()

    def together(slot: RunSlot | Transcript) -> None:
        assert slot.scenario_id is not None
        assert definition_of(Run, slot.run_id) == definition_of(Scenario, slot.scenario_id)

    run, scenario = factory_of(Run).create(session), factory_of(Scenario).create(session)
    for given in ({}, {"run_id": run.id}, {"scenario_id": scenario.id}):
        together(factory_of(RunSlot).create(session, **given))
    together(factory_of(Transcript).create(session, scenario_id=scenario.id))
    pair = factory_of(RunComparison).create(session, comparison_run_id=run.id)
    assert definition_of(Run, pair.baseline_run_id) == run.definition_id
    slot = factory_of(RunSlot).create(session, status=SlotStatus.RUNNING)
    assert (slot.lease_owner is None, slot.lease_expires_at is None) == (False, False)
    with pytest.raises(ReferenceNotFoundError):
        factory_of(RunSlot).create(session, run_id=uuid4())


def test_either_of_a_pair_brings_the_other(session: Session) -> None:
    """A time says the status that it belongs to, as a status says the time."""
    user = factory_of(User).build()
    assert (user.status, user.deleted_at, user.email_verified) == (UserStatus.ACTIVE, None, False)
    gone = factory_of(User).create(session, status=UserStatus.DELETED)
    assert gone.deleted_at is not None
    assert factory_of(User).create(session, deleted_at=gone.deleted_at).status == UserStatus.DELETED
    assert factory_of(User).create(session, email_verified=True).email_verified_at is not None
    assert factory_of(User).create(session, two_factor_enabled=True).two_factor_secret is not None
    assert factory_of(ApprovalItem).create(session, decided_at=gone.deleted_at).status == ApprovalStatus.APPROVED
    assert factory_of(Run).create(session, completed_at=gone.deleted_at).status == RunStatus.COMPLETED
    assert factory_of(Transcript).create(session, invalidated_reason="wrong").invalidated_at is not None


async def test_async_sessions(async_session: AsyncSession) -> None:
    """acreate and acreate_many do the same on an async session."""
    member = await factory_of(WorkspaceMember).acreate(async_session)
    assert await async_session.get(User, member.user_id) is not None
    made = await factory_of(Score).acreate_many(async_session, 20)
    assert len({score.transcript_id for score in made}) == 20


# ------------------------------------------------------------------------------------------------------------------ refusals


def test_a_refused_row_leaves_the_transaction_usable(session: Session) -> None:
    """What is refused is the library's error, and nothing of the call stays."""
    ada = factory_of(User).create(session)
    before = session.scalar(text("SELECT count(*) FROM stemma.users"))
    with pytest.raises(ConflictError):
        factory_of(User).create_each(session, [{}, {"email": ada.email}])
    factory_of(MfaSettings).create(session, user_id=ada.id)
    with pytest.raises(ConflictError):
        factory_of(MfaSettings).create(session, user_id=ada.id)
    assert session.scalar(text("SELECT count(*) FROM stemma.users")) == before


def test_values_are_checked(session: Session) -> None:
    """A column that is not there, and a value that does not fit, are refused before anything is sent."""
    with count_queries() as sent:
        with pytest.raises(ValidationError, match="nmae"):
            factory_of(User).create(session, nmae="Ada")
        with pytest.raises(ValidationError):
            factory_of(User).create(session, email="nowhere")
    assert sent.count == 0


def test_a_tenant_row_wants_a_workspace(db: Database) -> None:
    """Without one nothing is sent; global rows need none, and records of none are of none."""
    with db.session() as session, count_queries() as sent:
        with pytest.raises(WorkspaceNotSetError):
            factory_of(Run).create(session)
        assert sent.count == 0
        assert factory_of(AuditLog).create(session).workspace_id is None
        assert factory_of(Workspace).create(session).owner_id is not None
        session.rollback()


@pytest.mark.offline
def test_without_the_extra_the_message_names_it() -> None:
    """Importing the module without polyfactory says what to install; the plug-in itself does not need it."""
    program = (
        "import sys\n"
        "sys.modules['polyfactory'] = None\n"
        "import stemmadb.testing\n"
        "try:\n"
        "    import stemmadb.testing.factories\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "MissingDependencyError This needs the extra 'testing': pip install \"stemmadb[testing]\""


# ------------------------------------------------------------------------------------------------------- an application's own


def test_an_application_has_factories_for_its_own() -> None:
    """In a process of its own, since the entities of an application stay in the library's registry."""
    program = Path(__file__).with_name("application_factories.py")
    ran = subprocess.run([sys.executable, "-m", "pytest", "-q", "-n", "0", str(program)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
