"""Roles and permissions: given once, taken once, asked for with one statement, refused on record."""

from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from stemmadb.accounts import roles, users
from stemmadb.aio.accounts import roles as aroles
from stemmadb.aio.accounts import users as ausers
from stemmadb.database import Database
from stemmadb.errors import ConflictError, NotFoundError, PermissionDeniedError, ValidationError
from stemmadb.testing import assert_max_queries, count_queries, run_together


@pytest.fixture
def user(session: Session) -> UUID:
    """Somebody who may do nothing."""
    return users.create(session, f"{uuid4().hex}@example.com").id


@pytest.fixture
def editor(session: Session) -> str:
    """A role that gives posts:write and every right over drafts."""
    roles.create(session, "editor", description="Writes")
    for key in ("posts:write", "posts:read", "drafts:*"):
        roles.create_permission(session, key)
    roles.grant_to_role(session, "editor", "posts:write")
    roles.grant_to_role(session, "editor", "drafts:*")
    return "editor"


@pytest.mark.requirement("EC-042", "EC-043")
def test_create_and_read_back(session: Session) -> None:
    """By name; a second one of the name is refused, and the transaction goes on."""
    role = roles.create(session, "editor", description="Writes")
    assert roles.get_by_name(session, "editor") is role
    assert not role.is_system
    permission = roles.create_permission(session, "posts:*", description="Everything about posts")
    for call, field in ((lambda: roles.create(session, "editor"), "name"), (lambda: roles.create_permission(session, "posts:*"), "key")):
        with pytest.raises(ConflictError) as caught:
            call()
        assert tuple(caught.value.fields) == (field,)
    assert permission in list(roles.list_permissions(session, domain="posts"))
    with pytest.raises(NotFoundError):
        roles.get_by_name(session, "nobody")


@pytest.mark.parametrize("name", ["", "Editor", "1st", "a b", "x" * 64, "a\x00"])
def test_malformed_names_are_refused_before_anything_is_sent(session: Session, name: str) -> None:
    """Of roles and of permissions."""
    with count_queries() as sent:
        for call in (roles.create, roles.create_permission):
            with pytest.raises(ValidationError):
                call(session, name)
        with pytest.raises(ValidationError):
            roles.has_permission(session, uuid4(), name)
    assert sent.count == 0


def test_lists_are_by_name(session: Session) -> None:
    """Joined pages are everything, by name; a domain is what stands before the colon, and nothing else."""
    for name in ("cc", "aa", "bb"):
        roles.create(session, name)
        roles.create_permission(session, f"posts:{name}")
    roles.create_permission(session, "posts_old:aa")
    found, cursor = [], None
    while True:
        page = roles.list_all(session, limit=2, cursor=cursor)
        found += [role.name for role in page]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == sorted(found)
    assert {"aa", "bb", "cc"} <= set(found)
    assert [row.key for row in roles.list_permissions(session, domain="posts")] == ["posts:aa", "posts:bb", "posts:cc"]
    assert len(roles.list_permissions(session, domain="posts", limit=1)) == 1


@pytest.mark.requirement("EC-044", "EC-045", "EC-079", "EC-081", "EC-163")
def test_a_role_gives_what_it_holds(session: Session, user: UUID, editor: str) -> None:
    """Once assigned; a wildcard covers its domain and no other; what is taken from the role is gone at once."""
    assert roles.permissions_of(session, user) == frozenset()
    assert roles.assign(session, user, editor)
    assert not roles.assign(session, user, editor)
    with assert_max_queries(1):
        assert roles.permissions_of(session, user) == {"posts:write", "drafts:*"}
    with assert_max_queries(1):
        assert roles.has_permission(session, user, "posts:write")
    assert roles.has_permission(session, user, "drafts:delete")
    assert roles.has_permission(session, user, "drafts:*")
    assert not roles.has_permission(session, user, "posts:read")
    assert not roles.has_permission(session, user, "posts:*")
    assert not roles.has_permission(session, user, "draft:read")
    assert not roles.grant_to_role(session, editor, "posts:write")
    assert roles.revoke_from_role(session, editor, "posts:write")
    assert not roles.revoke_from_role(session, editor, "posts:write")
    assert not roles.has_permission(session, user, "posts:write")
    assert roles.remove(session, user, editor)
    assert not roles.remove(session, user, editor)
    assert roles.permissions_of(session, user) == frozenset()


@pytest.mark.requirement("EC-046", "EC-080")
def test_a_direct_grant(session: Session, user: UUID, editor: str) -> None:
    """Beside the roles; taking it back leaves what the role gives."""
    roles.assign(session, user, editor)
    assert roles.grant(session, user, "posts:write")
    assert roles.grant(session, user, "posts:read")
    assert not roles.grant(session, user, "posts:read")
    assert roles.permissions_of(session, user) == {"posts:write", "posts:read", "drafts:*"}
    assert roles.revoke(session, user, "posts:write")
    assert not roles.revoke(session, user, "posts:write")
    assert roles.has_permission(session, user, "posts:write")


def test_only_the_active_may(session: Session, user: UUID, editor: str) -> None:
    """A suspended and a deleted user may do nothing, and nobody neither; the record of what was given stays."""
    roles.assign(session, user, editor)
    session.execute(text("UPDATE stemma.users SET status = 'SUSPENDED' WHERE id = :id"), {"id": user})
    assert not roles.has_permission(session, user, "posts:write")
    assert "posts:write" in roles.permissions_of(session, user)
    users.soft_delete(session, user)
    assert not roles.has_permission(session, user, "posts:write")
    assert not roles.has_permission(session, uuid4(), "posts:write")
    assert not roles.has_permission(session, "nonsense", "posts:write")


def test_what_is_not_there_is_named(session: Session, user: UUID, editor: str) -> None:
    """An unknown user, role or permission is NotFoundError, and the transaction goes on."""
    cases = (
        ("Role", lambda: roles.assign(session, user, "nobody")),
        ("Role", lambda: roles.remove(session, user, "nobody")),
        ("Role", lambda: roles.grant_to_role(session, "nobody", "posts:write")),
        ("Role", lambda: roles.revoke_from_role(session, "nobody", "posts:write")),
        ("Role", lambda: roles.delete(session, "nobody")),
        ("Permission", lambda: roles.grant_to_role(session, editor, "posts:burn")),
        ("Permission", lambda: roles.grant(session, user, "posts:burn")),
        ("Permission", lambda: roles.revoke(session, user, "posts:burn")),
        ("User", lambda: roles.assign(session, uuid4(), editor)),
        ("User", lambda: roles.grant(session, "nonsense", "posts:write")),
        ("User", lambda: roles.permissions_of(session, uuid4())),
    )
    for entity, call in cases:
        with pytest.raises(NotFoundError) as caught:
            call()
        assert caught.value.entity == entity
    assert roles.assign(session, user, editor)


def test_delete(session: Session, user: UUID, editor: str) -> None:
    """What the role gave goes with it; a role of the library's own stays."""
    roles.assign(session, user, editor)
    roles.delete(session, editor)
    assert roles.permissions_of(session, user) == frozenset()
    session.execute(text("INSERT INTO stemma.roles (name, is_system) VALUES ('warden', true)"))
    with pytest.raises(PermissionDeniedError, match="warden"):
        roles.delete(session, "warden")
    assert roles.get_by_name(session, "warden").is_system


@pytest.mark.requirement("EC-047")
def test_a_refusal_outlives_the_rollback(committed_db: Database) -> None:
    """Whoever may passes; whoever may not is on record, also when the caller's transaction is rolled back; nobody is on record as none."""
    with committed_db.session() as session:
        user = users.create(session, "a@example.com").id
        roles.create_permission(session, "posts:read")
        roles.grant(session, user, "posts:read")
        roles.require(session, user, "posts:read")
    for who in (user, uuid4(), "nonsense"):
        with pytest.raises(PermissionDeniedError) as caught, committed_db.session() as session:
            roles.require(session, who, "posts:write")
        assert caught.value.permission == "posts:write"
    with committed_db.session() as session:
        found = session.execute(
            text("SELECT user_id, type, payload ->> 'details' FROM stemma.security_events ORDER BY created_at, id")
        ).all()
    assert [(row[0], row[1]) for row in found] == [(user, "PERMISSION_DENIED"), (None, "PERMISSION_DENIED"), (None, "PERMISSION_DENIED")]
    assert all("posts:write" in row[2] for row in found)


def test_a_refusal_of_somebody_new(committed_db: Database) -> None:
    """A user whom only the caller's transaction sees is refused all the same."""
    with committed_db.session() as session:
        user = users.create(session, "a@example.com").id
        with pytest.raises(PermissionDeniedError):
            roles.require(session, user, "posts:write")
        assert session.scalar(text("SELECT count(*) FROM stemma.security_events")) == 1


@pytest.mark.fault
def test_a_refusal_that_cannot_be_recorded_is_one(committed_db: Database, owner: object, caplog: pytest.LogCaptureFixture) -> None:
    """The log says that the event is missing, and the user is refused."""
    with owner.begin() as connection:  # type: ignore[attr-defined]
        connection.execute(text("REVOKE INSERT ON stemma.security_events FROM stemma_app"))
    with committed_db.session() as session, pytest.raises(PermissionDeniedError, match="posts:write"):
        roles.require(session, uuid4(), "posts:write")
    assert "was not written" in caplog.text


@pytest.mark.race
def test_of_ten_concurrent_assignments_one_is_new(committed_db: Database) -> None:
    """Ten callers give the same role: one row, one True."""
    with committed_db.session() as session:
        user = users.create(session, "a@example.com").id
        roles.create(session, "editor")

    def assign(_: int) -> bool:
        with committed_db.session() as session:
            return roles.assign(session, user, "editor")

    assert sorted(map(str, run_together(10, assign))) == ["False"] * 9 + ["True"]


async def test_twins(async_session: object) -> None:
    """The async twins do the same work."""
    user = await ausers.create(async_session, f"{uuid4().hex}@example.com")  # type: ignore[arg-type]
    await aroles.create_permission(async_session, "posts:read")  # type: ignore[arg-type]
    await aroles.grant(async_session, user.id, "posts:read")  # type: ignore[arg-type]
    assert await aroles.has_permission(async_session, user.id, "posts:read")  # type: ignore[arg-type]
    with pytest.raises(PermissionDeniedError):
        await aroles.require(async_session, user.id, "posts:write")  # type: ignore[arg-type]
