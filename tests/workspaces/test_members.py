"""Members: one role each, and always an owner left."""

from uuid import UUID, uuid4

import pytest
from sqlalchemy.orm import Session

from stemmadb.accounts import audit, users
from stemmadb.aio.workspaces import members as amembers
from stemmadb.database import Database
from stemmadb.errors import ConflictError, LastOwnerError, NotFoundError, PermissionDeniedError, ReferenceNotFoundError, ValidationError
from stemmadb.testing import assert_max_queries, make_workspace, run_together
from stemmadb.workspaces import members
from stemmadb.workspaces.vocabularies import WorkspaceRole


def somebody(session: Session) -> UUID:
    """The id of a new user."""
    return users.create(session, f"{uuid4().hex}@example.com").id


def owner_of(session: Session) -> UUID:
    """The id of the workspace's owner."""
    return members.list_all(session, role=WorkspaceRole.OWNER).items[0].user_id


def test_add_and_get(session: Session) -> None:
    """A member once; by user id; one statement."""
    user = somebody(session)
    with assert_max_queries(1):
        member = members.add(session, user, WorkspaceRole.ADMIN)
    assert members.get(session, user) is member
    assert members.get(session, str(user)).role == WorkspaceRole.ADMIN
    with pytest.raises(ConflictError):
        members.add(session, user)
    assert members.find(session, uuid4()) is None
    assert members.find(session, "nonsense") is None
    with pytest.raises(NotFoundError):
        members.get(session, uuid4())


def test_add_nobody(session: Session) -> None:
    """An unknown user is refused by name, a malformed id before anything is sent."""
    with pytest.raises(ValidationError):
        members.add(session, "nonsense")
    with pytest.raises(ReferenceNotFoundError) as caught:
        members.add(session, uuid4())
    assert caught.value.field == "user_id"


def test_list_by_time_of_joining(session: Session) -> None:
    """The owner first; pages join; a role narrows."""
    made = [
        members.add(session, somebody(session), role).user_id for role in (WorkspaceRole.ADMIN, WorkspaceRole.VIEWER, WorkspaceRole.VIEWER)
    ]
    first = members.list_all(session, limit=2)
    second = members.list_all(session, limit=2, cursor=first.next_cursor)
    assert [row.user_id for row in [*first, *second]][1:] == made
    assert {row.user_id for row in members.list_all(session, role=WorkspaceRole.VIEWER)} == set(made[1:])


def test_change_role_and_remove(session: Session) -> None:
    """Roles change, members leave, strangers are not found."""
    user = somebody(session)
    members.add(session, user)
    assert members.change_role(session, user, WorkspaceRole.ADMIN).role == WorkspaceRole.ADMIN
    members.remove(session, user)
    assert members.find(session, user) is None
    for call in (lambda: members.remove(session, user), lambda: members.change_role(session, user, WorkspaceRole.OWNER)):
        with pytest.raises(NotFoundError):
            call()


def test_the_last_owner_stays(session: Session) -> None:
    """Neither stepping down nor leaving, until there is another owner."""
    owner, second = owner_of(session), somebody(session)
    for call in (lambda: members.remove(session, owner), lambda: members.change_role(session, owner, WorkspaceRole.ADMIN)):
        with pytest.raises(LastOwnerError):
            call()
    assert members.change_role(session, owner, WorkspaceRole.OWNER).role == WorkspaceRole.OWNER
    members.add(session, second, WorkspaceRole.OWNER)
    assert members.change_role(session, owner, WorkspaceRole.MEMBER).role == WorkspaceRole.MEMBER
    with pytest.raises(LastOwnerError):
        members.remove(session, second)


@pytest.mark.race
@pytest.mark.parametrize("leave", [True, False], ids=["both leave", "both step down"])
def test_two_owners_cannot_go_at_once(committed_db: Database, committed_workspace: UUID, leave: bool) -> None:
    """Of two owners who go at the same moment one is kept, twenty times."""
    for _ in range(20):
        with committed_db.session(workspace=committed_workspace) as session:
            first = owner_of(session)
            second = somebody(session)
            members.add(session, second, WorkspaceRole.OWNER)
        owners = (first, second)

        def go(number: int, owners: tuple[UUID, UUID] = owners) -> None:
            if leave:
                committed_db.run(members.remove, owners[number], workspace=committed_workspace)
            else:
                committed_db.run(members.change_role, owners[number], WorkspaceRole.MEMBER, workspace=committed_workspace)

        results = run_together(2, go)
        assert sorted(type(result).__name__ for result in results) == ["LastOwnerError", "NoneType"]


def test_require_role(session: Session) -> None:
    """OWNER > ADMIN > MEMBER > VIEWER; a stranger is none of them."""
    user = somebody(session)
    ranks = [WorkspaceRole.VIEWER, WorkspaceRole.MEMBER, WorkspaceRole.ADMIN, WorkspaceRole.OWNER]
    members.add(session, user, WorkspaceRole.VIEWER)
    for held, role in enumerate(ranks):
        members.change_role(session, user, role)
        for asked, needed in enumerate(ranks):
            if asked <= held:
                assert members.require_role(session, user, needed).user_id == user
            else:
                with pytest.raises(PermissionDeniedError):
                    members.require_role(session, user, needed)
    with pytest.raises(PermissionDeniedError):
        members.require_role(session, uuid4(), WorkspaceRole.VIEWER)


def test_a_role_that_is_refused_is_on_record(committed_db: Database) -> None:
    """Of members and strangers, also when the caller's transaction is rolled back."""
    with committed_db.session() as session:
        member, stranger = somebody(session), somebody(session)
    workspace = make_workspace(committed_db)
    with committed_db.session(workspace=workspace) as session:
        members.add(session, member, WorkspaceRole.MEMBER)
    for user in (member, stranger):
        with pytest.raises(PermissionDeniedError), committed_db.session(workspace=workspace) as session:
            members.require_role(session, user, WorkspaceRole.ADMIN)
    with committed_db.session() as session:
        found = audit.list_security_events(session, type="PERMISSION_DENIED").items
    assert [(row.user_id, row.payload.details) for row in found] == [
        (user, {"permission": "workspace:admin"}) for user in (stranger, member)
    ]


def test_a_member_elsewhere_is_none_here(committed_db: Database) -> None:
    """The same user in two workspaces: two memberships, each seen in its own."""
    here, there = make_workspace(committed_db), make_workspace(committed_db)
    with committed_db.session(workspace=here) as session:
        user = somebody(session)
        members.add(session, user, WorkspaceRole.ADMIN)
    with committed_db.session(workspace=there) as session:
        assert members.find(session, user) is None
        members.add(session, user, WorkspaceRole.VIEWER)
        assert members.get(session, user).role == WorkspaceRole.VIEWER


async def test_twins(async_session: object) -> None:
    """The async twins do the same work."""
    from stemmadb.aio.accounts import users as ausers

    user = await ausers.create(async_session, f"{uuid4().hex}@example.com")  # type: ignore[arg-type]
    await amembers.add(async_session, user.id)  # type: ignore[arg-type]
    assert (await amembers.get(async_session, user.id)).role == WorkspaceRole.MEMBER  # type: ignore[arg-type]
