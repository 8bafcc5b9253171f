"""Repository: rows of any entity by key and by name, with the closed lists, the versions and the deleted ones."""

import logging
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, exc
from sqlalchemy.orm import Session, undefer

from stemmadb.accounts.entities import ApiKey, Permission, Role, User, UserRole, UserSession
from stemmadb.database import Database
from stemmadb.entity import Entity, SoftDelete, WorkspaceEntity
from stemmadb.errors import (
    ConflictError,
    ConstraintViolationError,
    ForeignKeyError,
    InvalidCursorError,
    NotFoundError,
    StillReferencedError,
    UnknownFieldError,
    UnknownSchemaVersionError,
    ValidationError,
    VersionConflictError,
    WorkspaceNotSetError,
)
from stemmadb.evaluation.documents import CohortCriteria, DefinitionContent
from stemmadb.evaluation.entities import Cohort, Definition, DefinitionLabel
from stemmadb.packs import packs
from stemmadb.repository import Repository
from stemmadb.testing import assert_max_queries, count_queries, run_together
from stemmadb.workspaces.entities import Workspace

pytestmark = pytest.mark.requirement("EC-154", "EC-156", "EC-157")

cohorts = Repository(Cohort)
definitions = Repository(Definition)
labels = Repository(DefinitionLabel)
roles = Repository(Role)
users = Repository(User)
user_roles = Repository(UserRole)
workspaces = Repository(Workspace)

CONTENT = DefinitionContent(preamble="", template="t")
ENTITIES = sorted((entity for pack in packs() for entity in pack.entities), key=lambda entity: entity.__name__)


def email() -> str:
    return f"{uuid4().hex}@example.com"


def names(rows: Any) -> list[str]:
    return [row.name for row in rows]


@pytest.fixture
def alphabet(session: Session) -> list[Cohort]:
    """Cohorts a to e, oldest first; b and d have a description."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        {"name": name, "description": f"100%_{name}" if name in "bd" else None, "created_at": at + timedelta(days=day)}
        for day, name in enumerate("abcde")
    ]
    return cohorts.create_many(session, rows)


# -------------------------------------------------------------------------------------------------------------- every entity


@pytest.mark.parametrize("entity", ENTITIES, ids=lambda entity: entity.__name__)
def test_every_entity_can_be_read_by_every_name_on_offer(session: Session, entity: type[Entity]) -> None:
    """Each column can be fetched, sorted by and filtered on as far as it is on offer; keys of other rows are not found."""
    repository = Repository(entity)
    criteria = repository._criteria
    key: Any = tuple(uuid4() for _ in repository._key.names)
    assert repository.find(session, key) is None
    assert repository.exists(session, key) is False
    assert repository.get_many(session, [key, key]) == []
    repository.count(session)
    repository.list_all(session, with_total=True, include_deleted=True, filters=dict.fromkeys(criteria.filters))
    repository.list_all(session, fields=criteria.columns, filters=dict.fromkeys(criteria.filters, ("is_null", False)))
    for name in criteria.orders:
        for sort in (name, f"-{name}"):
            repository.list_all(session, sort=[sort], limit=1)
    for _ in repository.iter_all(session, filters=dict.fromkeys(criteria.filters, ("ne", None))):
        pass


@pytest.mark.offline
def test_secrets_and_the_workspace_are_not_on_offer() -> None:
    """A digest cannot be filtered by, sorted by or fetched, nor can the workspace be named."""
    for entity in ENTITIES:
        criteria = Repository(entity)._criteria
        secrets = {column.key for column in entity.__table__.columns if column.info["secret"]}
        if issubclass(entity, WorkspaceEntity):
            secrets.add("workspace_id")
        assert secrets.isdisjoint(criteria.columns)
        assert set(criteria.orders) <= set(criteria.filters) <= set(criteria.columns)


def test_tenant_entities_need_a_workspace(db: Database) -> None:
    """Every method refuses a session without one, by name, before anything is sent."""
    calls: dict[str, Any] = {
        "get": lambda session: cohorts.get(session, uuid4()),
        "find": lambda session: cohorts.find(session, uuid4()),
        "get_many": lambda session: cohorts.get_many(session, [uuid4()]),
        "list_all": lambda session: cohorts.list_all(session),
        "exists": lambda session: cohorts.exists(session, uuid4()),
        "count": lambda session: cohorts.count(session),
        "iter_all": lambda session: cohorts.iter_all(session),
        "create": lambda session: cohorts.create(session, {"name": "a"}),
        "create_many": lambda session: cohorts.create_many(session, [{"name": "a"}]),
        "update": lambda session: cohorts.update(session, uuid4(), {"name": "a"}),
        "upsert": lambda session: cohorts.upsert(session, {"name": "a"}, on=["name"]),
        "delete": lambda session: cohorts.delete(session, uuid4()),
    }
    with db.session() as session, count_queries() as sent:
        for name, call in calls.items():
            with pytest.raises(WorkspaceNotSetError, match=rf"Repository\(Cohort\)\.{name} "):
                call(session)
    assert sent.count == 0


def test_rows_of_another_workspace_are_not_there(db: Database, session: Session) -> None:
    """By key, in lists, counts and changes: another workspace's rows read as if they did not exist."""
    row = cohorts.create(session, {"name": "a"})
    with db.session_on(session.connection(), workspace=uuid4()) as other:
        assert cohorts.find(other, row.id) is None
        assert cohorts.get_many(other, [row.id]) == []
        assert cohorts.count(other) == len(cohorts.list_all(other)) == len(list(cohorts.iter_all(other))) == 0
        for call in (lambda: cohorts.update(other, row.id, {"name": "b"}), lambda: cohorts.delete(other, row.id)):
            with pytest.raises(NotFoundError):
                call()
    assert cohorts.get(session, row.id).name == "a"


# --------------------------------------------------------------------------------------------------------------------- keys


def test_get_raises_and_find_does_not(session: Session) -> None:
    """An unknown key and a malformed one are both not found; one statement, or none for the malformed."""
    for key in (uuid4(), "nonexistent-id", 5, None, (uuid4(), uuid4()), ()):
        with pytest.raises(NotFoundError):
            roles.get(session, key)  # type: ignore[arg-type]
        assert roles.find(session, key) is None  # type: ignore[arg-type]
        assert roles.exists(session, key) is False  # type: ignore[arg-type]
        with pytest.raises(NotFoundError):
            roles.update(session, key, {"description": "x"})  # type: ignore[arg-type]
        with pytest.raises(NotFoundError):
            roles.delete(session, key)  # type: ignore[arg-type]
    role = roles.create(session, {"name": "reader"})
    with assert_max_queries(3):
        assert roles.get(session, role.id) is roles.get(session, str(role.id)) is role
        assert roles.exists(session, role.id)


def test_keys_of_several_columns(session: Session) -> None:
    """A natural key is the tuple of its columns, without the workspace; a key of one text column may stand alone."""
    user, role = users.create(session, {"email": email()}), roles.create(session, {"name": "reader"})
    granted = user_roles.create(session, {"user_id": user.id, "role_id": role.id})
    key = (user.id, str(role.id))
    assert user_roles.get(session, key) is granted
    assert user_roles.get_many(session, [key, (role.id, user.id), "x"]) == [granted]
    user_roles.delete(session, key)
    assert not user_roles.exists(session, key)
    definition = definitions.create(session, {"name": "d", "content": CONTENT})
    label = labels.create(session, {"name": "production", "definition_id": definition.id})
    assert labels.get(session, "production") is labels.get(session, ("production",)) is label
    assert labels.find(session, "bad\0name") is None


def test_get_many_keeps_the_order_of_the_keys(session: Session, alphabet: list[Cohort]) -> None:
    """Rows come in the order given, a repeated key twice, a missing one not at all; one statement for a thousand."""
    keys = [alphabet[3].id, uuid4(), "malformed", str(alphabet[0].id), alphabet[3].id]
    with assert_max_queries(1):
        assert names(cohorts.get_many(session, keys)) == ["d", "a", "d"]
    with assert_max_queries(3):
        assert names(cohorts.get_many(session, [*(uuid4() for _ in range(2500)), alphabet[1].id])) == ["b"]
    with assert_max_queries(0):
        assert cohorts.get_many(session, []) == []


# ------------------------------------------------------------------------------------------------------------------ filters


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, "abcde"),
        ({"name": "c"}, "c"),
        ({"name": ("eq", "c")}, "c"),
        ({"name": ("ne", "c")}, "abde"),
        ({"name": ("lt", "c")}, "ab"),
        ({"name": ("lte", "c")}, "abc"),
        ({"name": ("gt", "c")}, "de"),
        ({"name": ("gte", "c")}, "cde"),
        ({"name": ("in", ["a", "e", "x"])}, "ae"),
        ({"name": ("in", {"a"})}, "a"),
        ({"name": ("in", [])}, ""),
        ({"name": [("gt", "a"), ("lt", "d")]}, "bc"),
        ({"description": ("contains", "%_")}, "bd"),
        ({"description": ("contains", "%b")}, ""),
        ({"description": ("contains", "0%_d")}, "d"),
        ({"description": ("starts_with", "100%")}, "bd"),
        ({"description": ("starts_with", "1_0")}, ""),
        ({"description": ("is_null", True)}, "ace"),
        ({"description": ("is_null", False)}, "bd"),
        ({"description": None}, "ace"),
        ({"description": ("ne", None)}, "bd"),
        ({"description": ("ne", "100%_b")}, "acde"),
        ({"description": ("ne", "100%_b"), "name": ("lt", "c")}, "a"),
        ({"created_at": ("gte", datetime(2026, 1, 4, tzinfo=UTC))}, "de"),
        ({"created_at": ("lt", "2026-01-02T00:00:00+00:00")}, "a"),
        ({"version": 1}, "abcde"),
        ({"version": ("gt", 1)}, ""),
    ],
)
def test_filters(session: Session, alphabet: list[Cohort], filters: dict[str, Any], found: str) -> None:
    """Every operator, alone and together; % and _ are themselves, `ne` includes NULL; lists, counts and streams agree."""
    assert "".join(names(cohorts.list_all(session, filters=filters, sort=["name"]))) == found
    assert cohorts.count(session, filters=filters) == len(found)
    assert sorted(names(cohorts.iter_all(session, filters=filters))) == list(found)


def test_filters_on_ids_enums_and_bytes(session: Session) -> None:
    """An id may be text, a label of a vocabulary too; a digest of a document is bytes."""
    user = users.create(session, {"email": email()})
    assert list(users.list_all(session, filters={"id": str(user.id), "status": "ACTIVE", "email_verified": False})) == [user]
    assert users.count(session, filters={"id": user.id, "status": ("in", ["SUSPENDED", "DELETED"])}) == 0
    cohort = cohorts.create(session, {"name": "a"})
    assert cohort.criteria_hash is not None
    assert cohorts.count(session, filters={"criteria_hash": cohort.criteria_hash, "id": cohort.id}) == 1


@pytest.mark.parametrize(
    "filters",
    [
        {"name": ("regex", ".*")},
        {"name": ("eq",)},
        {"name": ("eq", "a", "b")},
        {"name": ("eq", 5)},
        {"name": ("in", "abc")},
        {"name": ("in", 5)},
        {"name": ("in", [None])},
        {"name": ("lt", None)},
        {"name": ("contains", None)},
        {"name": ("contains", 5)},
        {"name": "a\0b"},
        {"version": ("contains", "1")},
        {"version": "1"},
        {"version": True},
        {"version": 2**31},
        {"description": ("is_null", "yes")},
        {"id": "not-a-uuid"},
        {"created_at": datetime(2026, 1, 1)},
        {"created_at": "yesterday"},
        {"created_at": ("contains", "2026")},
        [("name", "a")],
        "name",
    ],
    ids=repr,
)
def test_filters_that_mean_nothing_are_refused(session: Session, filters: Any) -> None:
    """Unknown operators and values that the column cannot have: ValidationError, and nothing is sent."""
    for call in (cohorts.list_all, cohorts.count, cohorts.iter_all):
        with count_queries() as sent, pytest.raises(ValidationError):
            call(session, filters=filters)  # type: ignore[operator]
        assert sent.count == 0


def test_a_thousand_terms_are_enough(session: Session) -> None:
    """Each value of an `in` is a term; the thousand and first is refused and nothing is sent."""
    assert cohorts.count(session, filters={"name": ("in", [str(number) for number in range(1000)])}) == 0
    with count_queries() as sent, pytest.raises(ValidationError, match="1000"):
        cohorts.count(session, filters={"name": ("in", [str(number) for number in range(1000)]), "version": 1})
    assert sent.count == 0


HOSTILE = [
    "",
    "-",
    "--name",
    "-name ",
    "name; DROP TABLE stemma.users",
    "name' OR '1'='1",
    'name"',
    "name--",
    "NAME",
    "nаme",  # Cyrillic
    "name\0",
    "workspace_id",
    "password_hash",
    "two_factor_secret",
    "key_hash",
    "__class__",
    "__table__",
    "metadata",
    "registry",
    "cohorts.name",
    "stemma.users.password_hash",
    "(SELECT 1)",
    "1",
    "*",
    "name,id",
    "name desc",
    "criteria->>'x'",
    "%(name)s",
    ":name",
    "{columns}",
    "\u202ename",
    "a" * 100_000,
]


SUFFIXES = ["", " ", " --", " ASC", " NULLS LAST", "')", "::text", "; SELECT pg_sleep(9)", "\n", "\x1b", "☃", "%", "_", "$$", "\\"]


def hostile_names() -> Iterator[str]:
    yield from HOSTILE
    for prefix in ("", "-", "stemma.", "cohorts.", "(", "'", '"', "\\", "/*", "$1 "):
        for name in ("nam", "naem", "id'", "id)", "id;", "created_at/", "x"):
            for suffix in SUFFIXES:
                yield f"{prefix}{name}{suffix}"


@pytest.mark.parametrize("repository", [cohorts, users, Repository(ApiKey), Repository(UserSession)], ids=repr)
def test_hostile_names_never_reach_the_database(session: Session, repository: Repository[Any]) -> None:
    """Names in filters, orders and fields come from closed lists: over a thousand others are refused, and nothing is sent."""
    refused = [name for name in hostile_names() if name.removeprefix("-") not in repository._criteria.columns]
    assert len(refused) > 1000
    with count_queries() as sent:
        for name in refused:
            with pytest.raises(UnknownFieldError):
                repository.list_all(session, filters={name: "x"})
            with pytest.raises(UnknownFieldError):
                repository.list_all(session, sort=[name])
            with pytest.raises(UnknownFieldError):
                repository.list_all(session, fields=[name])
    assert sent.count == 0


@pytest.mark.property
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.text() | st.none() | st.integers() | st.binary(),
    value=st.none() | st.text() | st.integers() | st.tuples(st.text(), st.text()),
)
def test_any_other_name_is_unknown(session: Session, name: Any, value: Any) -> None:
    """Whatever is no name on offer raises UnknownFieldError, whatever the value."""
    if name in cohorts._criteria.filters:
        return
    with count_queries() as sent:
        for filters, sort, fields in ({name: value}, [], []), ({}, [name], []), ({}, [], [name]):
            with pytest.raises(UnknownFieldError):
                cohorts.list_all(session, filters=filters, sort=sort, fields=fields)
    assert sent.count == 0


@pytest.mark.property
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text("ab%_\\", max_size=4), min_size=1, max_size=6, unique=True), part=st.text("ab%_\\", min_size=1, max_size=3))
def test_patterns_match_as_python_does(session: Session, texts: list[str], part: str) -> None:
    """`contains` and `starts_with` agree with Python on text full of wildcards and backslashes."""
    session.execute(sa.delete(Cohort))
    cohorts.create_many(session, [{"name": str(number), "description": text} for number, text in enumerate(texts)])

    def found(operator: str) -> set[str]:
        return {row.description or "" for row in cohorts.iter_all(session, filters={"description": (operator, part)})}

    assert found("contains") == {text for text in texts if part in text}
    assert found("starts_with") == {text for text in texts if text.startswith(part)}


# --------------------------------------------------------------------------------------------------------------------- lists


def test_lists_are_newest_first_unless_sorted(session: Session, alphabet: list[Cohort]) -> None:
    """Without `sort` by creation, downwards; names may be given with and without a minus; NULLs last upwards, first downwards."""
    assert "".join(names(cohorts.list_all(session))) == "edcba"
    assert "".join(names(cohorts.list_all(session, sort=["name"]))) == "abcde"
    assert "".join(names(cohorts.list_all(session, sort=["-name"]))) == "edcba"
    assert "".join(names(cohorts.list_all(session, sort=["description", "-name"]))) == "bdeca"
    assert "".join(names(cohorts.list_all(session, sort=["-description", "name"]))) == "acedb"


def test_pages_of_a_list(session: Session, alphabet: list[Cohort]) -> None:
    """Cursors lead through a sorted, filtered list, one statement a page, and are refused by another one."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        with assert_max_queries(1):
            part = cohorts.list_all(session, sort=["-description"], filters={"name": ("ne", "c")}, limit=2, cursor=cursor, with_total=True)
        assert part.total == 4
        found += names(part)
        cursor = part.next_cursor
        if cursor is None:
            break
        for other in ({"sort": ["description"]}, {"sort": ["-description"], "filters": {"name": ("ne", "d")}}, {}):
            with pytest.raises(InvalidCursorError):
                cohorts.list_all(session, cursor=cursor, **other)  # type: ignore[arg-type]
    assert found == ["e", "a", "d", "b"]


@pytest.mark.requirement("EC-173")
def test_only_the_fields_asked_for_are_fetched(session: Session, alphabet: list[Cohort]) -> None:
    """The statement names those columns, the key and the version; the other ones raise, and are not loaded behind the caller's back."""
    session.expunge_all()
    with count_queries() as sent:
        (row,) = cohorts.list_all(session, fields=["name"], filters={"name": "a"})
    (statement,) = sent.statements
    assert "description" not in statement
    assert "criteria" not in statement
    assert row.name == "a"
    with assert_max_queries(0), pytest.raises(exc.InvalidRequestError):
        _ = row.description
    row.name = "renamed"
    session.flush()
    assert cohorts.get(session, row.id).version == 2


def test_documents_are_fetched_when_they_are_named(session: Session) -> None:
    """A deferred body is among the fields only when asked for."""
    definitions.create(session, {"name": "d", "content": CONTENT})
    session.expunge_all()
    (row,) = definitions.list_all(session)
    with pytest.raises(exc.InvalidRequestError):
        _ = row.content
    session.expunge_all()
    (row,) = definitions.list_all(session, fields=["content"])
    assert row.content == CONTENT


@pytest.mark.requirement("EC-175")
def test_a_list_and_its_related_rows_are_two_statements(session: Session, alphabet: list[Cohort]) -> None:
    """Ten rows and the rows that they refer to: two statements, since nothing loads one by one."""
    author = users.create(session, {"email": email()})
    cohorts.create_many(session, [{"name": f"by-{number}", "created_by_id": author.id} for number in range(10)])
    with assert_max_queries(2):
        rows = cohorts.list_all(session, limit=10, filters={"created_by_id": ("is_null", False)})
        assert users.get_many(session, {row.created_by_id for row in rows if row.created_by_id}) == [author]


# -------------------------------------------------------------------------------------------------------------------- writing


@pytest.mark.requirement("EC-159", "EC-160", "EC-161")
def test_refused_writes_name_their_fields(session: Session) -> None:
    """Unique, foreign key and CHECK refusals are typed; inside a savepoint the transaction goes on."""
    role = roles.create(session, {"name": "reader"})
    with pytest.raises(ConflictError) as conflict, session.begin_nested():
        roles.create(session, {"name": "reader"})
    assert conflict.value.fields == ("name",)
    assert "already exists" in str(conflict.value)
    with pytest.raises(ForeignKeyError) as reference, session.begin_nested():
        user_roles.create(session, {"user_id": uuid4(), "role_id": role.id})
    assert reference.value.field == "user_id"
    with pytest.raises(ConstraintViolationError), session.begin_nested():
        users.create(session, {"email": email(), "email_verified": True})
    with pytest.raises(NotFoundError):
        roles.get(session, "nonexistent-id")
    definition = definitions.create(session, {"name": "d", "content": CONTENT})
    labels.create(session, {"name": "production", "definition_id": definition.id})
    with pytest.raises(StillReferencedError), session.begin_nested():
        definitions.delete(session, definition.id)
    assert roles.get(session, role.id) is role


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"name": "a", "nmae": "b"}, UnknownFieldError),
        ({"name": "a", "criteria_hash": b"x"}, UnknownFieldError),
        ({}, ValidationError),
        ({"name": " "}, ValidationError),
        ({"name": "a", "created_at": datetime(2026, 1, 1)}, ValidationError),
        ({"name": "a", "criteria": {"schema_version": 1, "models": 5}}, ValidationError),
    ],
)
@pytest.mark.requirement("EC-193")
def test_rows_are_checked_before_they_are_sent(session: Session, data: dict[str, Any], error: type[Exception]) -> None:
    """Unknown names, missing values and values that do not fit, a naive time among them: refused and nothing is sent."""
    with count_queries() as sent:
        for call in (
            lambda: cohorts.create(session, data),
            lambda: cohorts.create_many(session, [{"name": "fine"}, data]),
            lambda: cohorts.upsert(session, data, on=["name"]),
        ):
            with pytest.raises(error):
                call()
    assert sent.count == 0
    assert cohorts.count(session) == 0


def test_create_many_is_all_or_nothing(session: Session, alphabet: list[Cohort]) -> None:
    """One refused row refuses all, and the transaction goes on; ids are in the order given."""
    with pytest.raises(ConflictError):
        cohorts.create_many(session, [{"name": "new"}, {"name": "a"}])
    assert cohorts.count(session) == 5
    with assert_max_queries(2):
        rows = cohorts.create_many(session, ({"name": f"n{number}"} for number in range(1200)))
    assert names(rows) == [f"n{number}" for number in range(1200)]
    assert cohorts.create_many(session, []) == []


@pytest.mark.requirement("EC-158")
def test_repositories_share_a_unit_of_work(session: Session) -> None:
    """What one wrote, another sees; a savepoint undoes both and leaves what came before."""
    kept = users.create(session, {"email": email()})
    with pytest.raises(RuntimeError), session.begin_nested():
        role = roles.create(session, {"name": "reader"})
        user_roles.create(session, {"user_id": kept.id, "role_id": role.id})
        raise RuntimeError
    assert users.exists(session, kept.id)
    assert roles.count(session, filters={"name": "reader"}) == 0


def test_updates_are_one_statement(session: Session, alphabet: list[Cohort]) -> None:
    """Named fields change and the others stay; the held object shows it, its document too."""
    row = alphabet[0]
    with assert_max_queries(1):
        changed = cohorts.update(session, row.id, {"description": "new", "criteria": CohortCriteria()})
    assert changed is row
    assert (row.name, row.description, row.version) == ("a", "new", 2)
    with assert_max_queries(1):
        assert cohorts.update(session, row.id, {}) is row
    assert row.version == 2


def test_a_body_that_the_session_holds_is_not_stale_after_an_update(session: Session) -> None:
    """Deferred columns do not come back with the statement, so one that was loaded raises until it is fetched again."""
    row = definitions.create(session, {"name": "d", "content": CONTENT})
    session.expunge_all()
    held = session.scalars(sa.select(Definition).options(undefer(Definition.content))).one()  # type: ignore[arg-type]
    content = CONTENT.replace(template="changed")
    assert definitions.update(session, row.id, {"content": content}) is held
    with pytest.raises(exc.InvalidRequestError):
        _ = held.content
    (again,) = definitions.list_all(session, fields=["content"])
    assert again.content == content


@pytest.mark.parametrize("name", ["id", "workspace_id", "created_at", "updated_at", "version", "criteria_hash", "nmae", "__class__", 5])
@pytest.mark.requirement("EC-193")
def test_what_never_changes_is_no_field_of_an_update(session: Session, alphabet: list[Cohort], name: Any) -> None:
    """The key, the times, the version and computed columns are refused, and nothing is sent."""
    with count_queries() as sent, pytest.raises(UnknownFieldError):
        cohorts.update(session, alphabet[0].id, {name: None})
    assert sent.count == 0


@pytest.mark.requirement("EC-194")
def test_an_update_from_an_old_reading_is_refused(session: Session, alphabet: list[Cohort]) -> None:
    """With expected_version, a row that was saved since is left alone and the error says which version it has."""
    row = alphabet[0]
    assert cohorts.update(session, row.id, {"description": "one"}, expected_version=1).version == 2
    for data in ({"description": "two"}, {}):
        with pytest.raises(VersionConflictError) as caught:
            cohorts.update(session, row.id, data, expected_version=1)
        assert (caught.value.entity, caught.value.seen, caught.value.current) == ("Cohort", 1, 2)
    assert row.description == "one"
    with pytest.raises(NotFoundError):
        cohorts.update(session, uuid4(), {"description": "x"}, expected_version=1)
    with pytest.raises(ValidationError, match="no version"):
        roles.update(session, uuid4(), {"description": "x"}, expected_version=1)
    session.execute(sa.text("UPDATE stemma.cohorts SET description = 'raw' WHERE id = :id"), {"id": row.id})
    assert cohorts.update(session, row.id, {"description": "orm"}, expected_version=3).version == 4


@pytest.mark.race
def test_one_of_ten_concurrent_updates_wins(committed_db: Database, committed_workspace: UUID) -> None:
    """Of ten updates from one reading, run at once, exactly one is kept and nine are told."""
    with committed_db.session(committed_workspace) as session:
        key = cohorts.create(session, {"name": "a"}).id

    def save(number: int) -> str | None:
        with committed_db.session(committed_workspace) as session:
            return cohorts.update(session, key, {"description": str(number)}, expected_version=1).description

    results = run_together(10, save)
    kept = [result for result in results if isinstance(result, str)]
    assert len(kept) == 1
    assert sum(isinstance(result, VersionConflictError) for result in results) == 9
    with committed_db.session(committed_workspace) as session:
        row = cohorts.get(session, key)
        assert (row.description, row.version) == (kept[0], 2)


def test_a_document_of_a_newer_release_is_not_overwritten(session: Session) -> None:
    """Update and upsert leave it as it is and say which version was found; other fields of the row can be changed."""
    row = cohorts.create(session, {"name": "a"})
    session.execute(sa.text("""UPDATE stemma.cohorts SET criteria = '{"schema_version": 99, "x": 1}'"""))
    session.expunge_all()
    for call in (
        lambda: cohorts.update(session, row.id, {"criteria": CohortCriteria()}),
        lambda: cohorts.upsert(session, {"name": "a", "criteria": CohortCriteria()}, on=["name"]),
    ):
        with pytest.raises(UnknownSchemaVersionError) as caught:
            call()
        assert caught.value.found == 99
    assert session.scalar(sa.text("SELECT criteria ->> 'x' FROM stemma.cohorts")) == "1"


# --------------------------------------------------------------------------------------------------------------------- upsert


def test_upsert_inserts_or_changes(session: Session) -> None:
    """One statement each; the key and what is not named stay; the version counts on."""
    with assert_max_queries(2):
        first = cohorts.upsert(session, {"name": "a", "description": "one"}, on=["name"])
        key, made = first.id, first.created_at
        second = cohorts.upsert(session, {"name": "a", "criteria": CohortCriteria()}, on=["name"])
    assert second is first
    assert (second.id, second.created_at, second.description, second.version) == (key, made, "one", 2)
    assert cohorts.upsert(session, {"name": "a"}, on="name").id == key
    assert cohorts.count(session) == 1


def test_upsert_on_other_keys(session: Session) -> None:
    """The primary key, a key of several columns and the unique key of live rows only serve as well."""
    role = roles.create(session, {"name": "reader"})
    assert roles.upsert(session, {"id": role.id, "name": "writer"}, on=["id"]) is role
    assert role.name == "writer"
    user = users.create(session, {"email": email()})
    for _ in range(2):
        assert user_roles.upsert(session, {"user_id": user.id, "role_id": role.id}, on=["role_id", "user_id"]).role_id == role.id
    slug = uuid4().hex
    first = workspaces.upsert(session, {"slug": slug, "name": "one", "owner_id": user.id}, on=["slug"])
    assert workspaces.upsert(session, {"slug": slug, "name": "two", "owner_id": user.id}, on=["slug"]) is first
    assert first.name == "two"


@pytest.mark.parametrize(
    ("on", "error"),
    [([], ValidationError), (["description"], ValidationError), (["name", "id"], UnknownFieldError), (["x;"], UnknownFieldError)],
)
def test_upsert_needs_a_unique_key(session: Session, on: list[str], error: type[Exception]) -> None:
    """Columns that are no unique key, or have no value, are refused and nothing is sent."""
    with count_queries() as sent, pytest.raises(error):
        cohorts.upsert(session, {"name": "a", "description": "b"}, on=on)
    assert sent.count == 0


@pytest.mark.race
def test_concurrent_upserts_make_one_row(committed_db: Database, committed_workspace: UUID) -> None:
    """Ten at once: none fails, one row, and its version counts the other nine."""

    def save(number: int) -> UUID:
        with committed_db.session(committed_workspace) as session:
            return cohorts.upsert(session, {"name": "a", "description": str(number)}, on=["name"]).id

    assert len(set(run_together(10, save))) == 1
    with committed_db.session(committed_workspace) as session:
        (row,) = cohorts.list_all(session)
        assert row.version == 10


# ---------------------------------------------------------------------------------------------------------------- soft delete


@pytest.fixture
def shop(session: Session) -> Workspace:
    """A row that can be soft-deleted."""
    owner = users.create(session, {"email": email()})
    return workspaces.create(session, {"name": "shop", "slug": uuid4().hex, "owner_id": owner.id})


@pytest.mark.requirement("EC-172")
def test_deleted_rows_are_left_out_unless_asked_for(session: Session, shop: Workspace) -> None:
    """By key, in lists, counts, streams and updates a soft-deleted row is not there; include_deleted and restore find it."""
    only = {"id": shop.id}
    with assert_max_queries(1):
        deleted = workspaces.soft_delete(session, shop.id)
    assert deleted is shop
    assert shop.deleted_at is not None
    assert workspaces.find(session, shop.id) is None
    assert not workspaces.exists(session, shop.id)
    assert workspaces.get_many(session, [shop.id]) == []
    assert workspaces.count(session, filters=only) == 0
    assert len(workspaces.list_all(session, filters=only)) == 0
    assert list(workspaces.iter_all(session, filters=only)) == []
    for call in (lambda: workspaces.update(session, shop.id, {"name": "x"}), lambda: workspaces.soft_delete(session, shop.id)):
        with pytest.raises(NotFoundError):
            call()
    assert list(workspaces.list_all(session, filters=only, include_deleted=True)) == [shop]
    assert workspaces.restore(session, shop.id) is shop
    assert shop.deleted_at is None
    assert workspaces.restore(session, shop.id) is workspaces.get(session, shop.id)


def test_a_restored_row_may_meet_its_successor(session: Session, shop: Workspace) -> None:
    """A live row that took the unique value meanwhile makes restore a conflict."""
    workspaces.soft_delete(session, shop.id)
    workspaces.create(session, {"name": "next", "slug": shop.slug, "owner_id": shop.owner_id})
    with pytest.raises(ConflictError) as caught, session.begin_nested():
        workspaces.restore(session, shop.id)
    assert caught.value.fields == ("slug",)


def test_only_entities_with_deleted_at_are_soft_deleted(session: Session) -> None:
    """The others are deleted, and the message says so; nothing is sent."""
    assert not issubclass(Role, SoftDelete)
    with count_queries() as sent:
        for call in (roles.soft_delete, roles.restore):
            with pytest.raises(ValidationError, match="no deleted_at"):
                call(session, uuid4())
    assert sent.count == 0


def test_delete_removes_for_good(session: Session) -> None:
    """A deleted row is gone, from the session too; deleting it again is not found."""
    role = roles.create(session, {"name": "reader"})
    with assert_max_queries(1):
        roles.delete(session, role.id)
    assert roles.find(session, role.id) is None
    with pytest.raises(NotFoundError):
        roles.delete(session, role.id)


# ------------------------------------------------------------------------------------------------------------------ streaming


def test_streams_come_by_key_from_a_server_side_cursor(session: Session, alphabet: list[Cohort]) -> None:
    """All rows in batches; a stream that is given up closes its cursor, and the session goes on."""
    assert [row.id for row in cohorts.iter_all(session, batch=2)] == sorted(row.id for row in alphabet)
    stream = cohorts.iter_all(session, batch=1)
    next(stream)
    assert session.scalar(sa.text("SELECT count(*) FROM pg_cursors WHERE name LIKE 'c_%'")) == 1
    stream.close()  # type: ignore[attr-defined]
    assert session.scalar(sa.text("SELECT count(*) FROM pg_cursors WHERE name LIKE 'c_%'")) == 0
    for batch in (0, -1, 10_001, True, 1.5):
        with pytest.raises(ValidationError):
            cohorts.iter_all(session, batch=batch)  # type: ignore[arg-type]


@pytest.mark.slow
def test_streams_need_constant_memory(session: Session) -> None:
    """Five times the rows take the memory of a batch, not five times as much."""

    def peak(rows: int) -> int:
        session.execute(sa.delete(Permission))
        session.execute(
            sa.text(
                "INSERT INTO stemma.permissions (key, description) SELECT 'p:x' || n, repeat('x', 500) FROM generate_series(1, :rows) AS n"
            ),
            {"rows": rows},
        )
        tracemalloc.start()
        count = sum(1 for _ in Repository(Permission).iter_all(session, batch=100))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == rows
        return size

    peak(1000)
    assert peak(10_000) < 1.5 * peak(2_000)


# ---------------------------------------------------------------------------------------------------------------------- logs


@pytest.mark.requirement("VR-087", "VR-088", "VR-089", "EC-162")
def test_calls_are_logged(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """DEBUG with the key before a read, WARNING with the key when there is no row, INFO when one is made."""
    missing = uuid4()
    with caplog.at_level(logging.DEBUG, logger="stemmadb.repository"):
        row = cohorts.create(session, {"name": "a"})
        with pytest.raises(NotFoundError):
            cohorts.get(session, missing)
    records = [(record.levelno, record.getMessage()) for record in caplog.records if record.name == "stemmadb.repository"]
    assert records == [
        (logging.INFO, f"Cohort {row.id} created"),
        (logging.DEBUG, f"reading Cohort {missing}"),
        (logging.WARNING, f"Cohort {missing} was not found"),
    ]


def test_the_owner_is_not_needed(owner: Engine, session: Session) -> None:
    """Everything here ran as the application's role, which owns nothing."""
    with owner.connect() as connection:
        assert connection.scalar(sa.text("SELECT current_user")) != session.scalar(sa.text("SELECT current_user"))
