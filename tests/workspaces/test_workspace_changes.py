"""How a workspace changes, is handed over, deleted, brought back and removed."""

from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session
from tests.full_databases import fill
from tests.neighbours import rows_of

from stemmadb import connect, tenancy
from stemmadb.accounts import api_keys, users
from stemmadb.aio.accounts import users as ausers
from stemmadb.aio.workspaces import workspaces as aworkspaces
from stemmadb.database import Database
from stemmadb.errors import (
    AuthenticationError,
    ConflictError,
    InvalidTransitionError,
    NotFoundError,
    ReferenceNotFoundError,
    UnknownSchemaVersionError,
    ValidationError,
)
from stemmadb.testing import assert_max_queries, count_queries, make_workspace, run_together
from stemmadb.workspaces import members, workspaces
from stemmadb.workspaces.documents import WorkspaceSettings
from stemmadb.workspaces.entities import Workspace
from stemmadb.workspaces.vocabularies import WorkspaceRole
from stemmadb.workspaces.workspaces import WorkspaceUpdate


def somebody(session: Session) -> UUID:
    """The id of a new user."""
    return users.create(session, f"{uuid4().hex}@example.com").id


def owned(session: Session, name: str = "Lab") -> Workspace:
    """A new workspace with an owner of its own."""
    return workspaces.create(session, somebody(session), name, description="first")


def setting_of(session: Session) -> str:
    """The workspace of the transaction, as the database has it."""
    return str(session.scalar(text("SELECT current_setting('stemma.workspace_id', true)")))


def roles_of(session: Session) -> dict[UUID, WorkspaceRole]:
    """The role of each member of the session's workspace."""
    return {member.user_id: WorkspaceRole(member.role) for member in members.list_all(session)}


# ------------------------------------------------------------------------------------------------------------------- update


def test_update(session: Session) -> None:
    """What is given changes, in one statement, and the object that the caller holds follows; what is absent stays."""
    made = owned(session)
    slug = f"new-{uuid4().hex[:8]}"
    with assert_max_queries(1):
        changed = workspaces.update(session, str(made.id), WorkspaceUpdate(name="Other", slug=slug))
    assert changed is made
    assert (made.name, made.slug, made.description) == ("Other", slug, "first")
    assert workspaces.get_by_slug(session, slug) is made
    workspaces.update(session, made.id, WorkspaceUpdate(description=None, settings=WorkspaceSettings(locale="de")))
    assert (made.name, made.description, made.settings.locale) == ("Other", None, "de")
    assert workspaces.update(session, made.id, WorkspaceUpdate()) is made


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", " "),
        ("name", None),
        ("name", "a\0"),
        ("slug", "A"),
        ("slug", "0190a000-0000-7000-8000-000000000000"),
        ("slug", None),
        ("settings", None),
    ],
)
def test_update_refuses_what_no_column_can_have(session: Session, field: str, value: object) -> None:
    """ValidationError that names the field; nothing is sent."""
    made = owned(session)
    with count_queries() as sent, pytest.raises(ValidationError) as caught:
        workspaces.update(session, made.id, {field: value})  # type: ignore[arg-type]
    assert (caught.value.field, sent.count) == (field, 0)


def test_update_keeps_slugs_apart(session: Session) -> None:
    """ConflictError for a slug that is taken; nothing changed, and the transaction goes on. The slug of a deleted one is free."""
    first, second = owned(session, "first"), owned(session, "second")
    with pytest.raises(ConflictError) as caught:
        workspaces.update(session, second.id, WorkspaceUpdate(name="changed", slug=first.slug))
    assert (caught.value.entity, caught.value.fields) == ("Workspace", ("slug",))
    assert workspaces.get(session, second.id).name == "second"
    workspaces.soft_delete(session, first.id)
    assert workspaces.update(session, second.id, WorkspaceUpdate(slug=first.slug)).slug == first.slug


def test_update_keeps_settings_of_a_newer_release(session: Session) -> None:
    """They are not overwritten: UnknownSchemaVersionError, and the transaction goes on."""
    made = owned(session)
    session.execute(text("""UPDATE stemma.workspaces SET settings = '{"schema_version": 99}' WHERE id = :id"""), {"id": made.id})
    with pytest.raises(UnknownSchemaVersionError):
        workspaces.update(session, made.id, WorkspaceUpdate(settings=WorkspaceSettings()))
    assert session.scalar(text("SELECT settings ->> 'schema_version' FROM stemma.workspaces WHERE id = :id"), {"id": made.id}) == "99"


@pytest.mark.parametrize("id", [UUID(int=1), "nonsense"])
def test_unknown_ids(session: Session, id: UUID | str) -> None:
    """NotFoundError, whatever is asked for."""
    user = somebody(session)
    for call in (
        lambda: workspaces.update(session, id, WorkspaceUpdate(name="x")),
        lambda: workspaces.update(session, id, WorkspaceUpdate()),
        lambda: workspaces.transfer_ownership(session, id, user),
        lambda: workspaces.soft_delete(session, id),
        lambda: workspaces.restore(session, id),
        lambda: workspaces.purge(session, id),
    ):
        with pytest.raises(NotFoundError) as caught:
            call()
        assert caught.value.entity == "Workspace"


# ------------------------------------------------------------------------------------------------------- transfer_ownership


def test_ownership_goes_to_a_member(committed_db: Database, committed_workspace: UUID) -> None:
    """The new owner is OWNER, the old one ADMIN, everybody else stays; objects that the session holds follow."""
    with committed_db.session(workspace=committed_workspace) as session:
        old = workspaces.get(session, committed_workspace).owner_id
        new, other, viewer = (somebody(session) for _ in range(3))
        for user, role in ((new, WorkspaceRole.MEMBER), (other, WorkspaceRole.OWNER), (viewer, WorkspaceRole.VIEWER)):
            members.add(session, user, role)
        held = members.get(session, new)
        moved = workspaces.transfer_ownership(session, committed_workspace, new)
        assert (moved.owner_id, held.role) == (new, WorkspaceRole.OWNER)
        assert setting_of(session) == str(committed_workspace)
    with committed_db.session(workspace=committed_workspace) as session:
        assert roles_of(session) == {
            old: WorkspaceRole.ADMIN,
            new: WorkspaceRole.OWNER,
            other: WorkspaceRole.OWNER,
            viewer: WorkspaceRole.VIEWER,
        }


def test_ownership_is_handed_over_from_anywhere(committed_db: Database, committed_workspace: UUID) -> None:
    """In a session without a workspace, and in one of another, which stays what it was."""
    elsewhere = make_workspace(committed_db)
    with committed_db.session(workspace=committed_workspace) as session:
        first, second = somebody(session), somebody(session)
        for user in (first, second):
            members.add(session, user)
    with committed_db.session() as session:
        workspaces.transfer_ownership(session, committed_workspace, first)
        assert session.scalar(text("SELECT count(*) FROM stemma.workspace_members")) == 0
    with committed_db.session(workspace=elsewhere) as session:
        before = roles_of(session)
        workspaces.transfer_ownership(session, committed_workspace, second)
        assert roles_of(session) == before
        assert setting_of(session) == str(elsewhere)
    with committed_db.session(workspace=committed_workspace) as session:
        assert [user for user, role in roles_of(session).items() if role == WorkspaceRole.OWNER] == [second]


def test_ownership_of_whom_it_belongs_to(session: Session, workspace: UUID) -> None:
    """It changes nothing; an owner who had stepped down is OWNER again, and one who left is not brought back as ADMIN."""
    owner = workspaces.get(session, workspace).owner_id
    second, third = somebody(session), somebody(session)
    members.add(session, second, WorkspaceRole.OWNER)
    members.change_role(session, owner, WorkspaceRole.VIEWER)
    assert workspaces.transfer_ownership(session, workspace, owner).owner_id == owner
    assert roles_of(session) == {owner: WorkspaceRole.OWNER, second: WorkspaceRole.OWNER}
    members.remove(session, owner)
    members.add(session, third)
    workspaces.transfer_ownership(session, workspace, third)
    assert roles_of(session) == {second: WorkspaceRole.OWNER, third: WorkspaceRole.OWNER}


def test_only_live_members_can_own(session: Session, workspace: UUID) -> None:
    """A stranger, nobody, a deleted member: ReferenceNotFoundError; nothing changed, the setting neither, and the transaction goes on."""
    owner = workspaces.get(session, workspace).owner_id
    stranger, gone = somebody(session), somebody(session)
    members.add(session, gone)
    users.soft_delete(session, gone)
    other = owned(session)
    for target in (workspace, other.id):
        for user in (stranger, uuid4(), gone):
            with pytest.raises(ReferenceNotFoundError) as caught:
                workspaces.transfer_ownership(session, target, user)
            assert caught.value.field == "new_owner_id"
            assert setting_of(session) == str(workspace)
    assert workspaces.get(session, workspace).owner_id == owner
    assert roles_of(session)[owner] == WorkspaceRole.OWNER
    with pytest.raises(ValidationError):
        workspaces.transfer_ownership(session, workspace, "nonsense")
    workspaces.soft_delete(session, other.id)
    with pytest.raises(NotFoundError):
        workspaces.transfer_ownership(session, other.id, other.owner_id)


@pytest.mark.race
def test_of_ten_transfers_at_once_the_last_holds(committed_db: Database, committed_workspace: UUID) -> None:
    """Whoever they are handed to: afterwards there is one member with the role OWNER, and it is the owner."""
    with committed_db.session(workspace=committed_workspace) as session:
        candidates = [somebody(session) for _ in range(10)]
        for user in candidates:
            members.add(session, user)
    results = run_together(10, lambda number: committed_db.run(workspaces.transfer_ownership, committed_workspace, candidates[number]))
    assert [type(result) for result in results] == [Workspace] * 10
    with committed_db.session(workspace=committed_workspace) as session:
        owner = workspaces.get(session, committed_workspace).owner_id
        assert [user for user, role in roles_of(session).items() if role == WorkspaceRole.OWNER] == [owner]


@pytest.mark.race
def test_a_transfer_and_a_departure_leave_an_owner(committed_db: Database) -> None:
    """The new owner leaves while the workspace is handed to them: either goes first, and somebody owns it afterwards, ten times."""
    for _ in range(10):
        workspace_id = make_workspace(committed_db)
        with committed_db.session(workspace=workspace_id) as session:
            new = somebody(session)
            members.add(session, new)

        def go(number: int, workspace_id: UUID = workspace_id, new: UUID = new) -> None:
            if number:
                committed_db.run(workspaces.transfer_ownership, workspace_id, new)
            else:
                committed_db.run(members.remove, new, workspace=workspace_id)

        outcomes = [type(result).__name__ for result in run_together(2, go)]
        assert outcomes in (["NoneType", "ReferenceNotFoundError"], ["LastOwnerError", "NoneType"])
        with committed_db.session(workspace=workspace_id) as session:
            assert WorkspaceRole.OWNER in roles_of(session).values()


# ------------------------------------------------------------------------------------------------ soft_delete, restore, purge


def test_soft_delete_and_restore(session: Session) -> None:
    """Hidden and back, with its settings; a second deletion finds nothing, a second restoration nothing to do."""
    made = owned(session)
    with assert_max_queries(1):
        assert workspaces.soft_delete(session, made.id) is made
    assert made.deleted_at is not None
    assert workspaces.find(session, made.id) is None
    with pytest.raises(NotFoundError):
        workspaces.soft_delete(session, made.id)
    with pytest.raises(NotFoundError):
        workspaces.update(session, made.id, WorkspaceUpdate(name="x"))
    with assert_max_queries(1):
        assert workspaces.restore(session, made.id) is made
    assert made.deleted_at is None
    assert workspaces.restore(session, made.id) is made


def test_a_deletion_revokes_the_keys(session: Session, workspace: UUID) -> None:
    """Those of the workspace, for good; personal keys and those of other workspaces hold."""
    made = owned(session)
    owner = made.owner_id
    mine, personal, other = (api_keys.issue(session, owner, "k", workspace_id=of).token for of in (made.id, None, workspace))
    workspaces.soft_delete(session, made.id)
    workspaces.restore(session, made.id)
    with pytest.raises(AuthenticationError):
        api_keys.verify(session, mine)
    assert [api_keys.verify(session, token).workspace_id for token in (personal, other)] == [None, workspace]


def test_restore_needs_the_slug(session: Session) -> None:
    """ConflictError while another workspace has it, and the transaction goes on; then it comes back."""
    made = owned(session)
    workspaces.soft_delete(session, made.id)
    taker = workspaces.create(session, made.owner_id, "taker", slug=made.slug)
    with pytest.raises(ConflictError) as caught:
        workspaces.restore(session, made.id)
    assert (caught.value.entity, caught.value.fields) == ("Workspace", ("slug",))
    assert workspaces.get_by_slug(session, made.slug) is taker
    workspaces.update(session, taker.id, WorkspaceUpdate(slug=f"other-{uuid4().hex[:8]}"))
    assert workspaces.restore(session, made.id).deleted_at is None


@pytest.mark.race
def test_of_two_restorations_to_one_slug_one_wins(committed_db: Database) -> None:
    """Two deleted workspaces with the same slug, restored at once: one is back, the other is refused."""
    ids = []
    for _ in range(2):
        ids.append(make_workspace(committed_db, "same"))
        committed_db.run(workspaces.soft_delete, ids[-1])
    results = run_together(2, lambda number: committed_db.run(workspaces.restore, ids[number]))
    assert sorted(type(result).__name__ for result in results) == ["ConflictError", "Workspace"]


@pytest.mark.requirement("TN-028")
def test_purge_takes_everything_along(committed_db: Database) -> None:
    """Only of a deleted workspace: one DELETE, every table of it, and the neighbour stays as it was."""
    ours, theirs = fill(committed_db, "ours"), fill(committed_db, "theirs")
    with committed_db.session() as session:
        before = rows_of(session, ours.workspace_id)
    with committed_db.session() as session:
        with pytest.raises(InvalidTransitionError) as caught:
            workspaces.purge(session, theirs.workspace_id)
        assert caught.value.current == "LIVE"
        api_keys.issue(session, theirs.ids["user"], "k", workspace_id=theirs.workspace_id)
        held = workspaces.soft_delete(session, theirs.workspace_id)
        with assert_max_queries(1):
            workspaces.purge(session, theirs.workspace_id)
        assert held not in session
        assert workspaces.find(session, theirs.workspace_id) is None
    with committed_db.session() as session:
        assert {count for _, count, _ in rows_of(session, theirs.workspace_id)} == {0}
        assert rows_of(session, ours.workspace_id) == before
        assert session.scalar(text("SELECT count(*) FROM stemma.api_keys WHERE workspace_id IS NOT NULL")) == 0


def opens(db: Database, workspace: object) -> UUID | None:
    """The id of the workspace that a session opens in; None when there is no such workspace."""
    try:
        with db.session(workspace=workspace) as session:  # type: ignore[arg-type]
            return tenancy.workspace_of(session)
    except NotFoundError:
        return None


@pytest.mark.requirement("TN-028")
def test_a_process_forgets_at_once_what_it_changed(committed_db: Database) -> None:
    """Every Database of the process: a slug that was renamed, deleted or given to another leads nowhere, or to the other."""
    first = make_workspace(committed_db, "lab")
    with connect(committed_db.url.render_as_string(hide_password=False)) as other:
        for db in (committed_db, other):
            assert opens(db, "lab") == opens(db, first) == first
        committed_db.run(workspaces.update, first, WorkspaceUpdate(slug="old-lab"))
        assert [opens(db, "lab") for db in (committed_db, other)] == [None, None]
        owner = committed_db.run(workspaces.get, first).owner_id
        second = committed_db.run(workspaces.create, owner, "Lab", slug="lab").id
        assert [opens(db, name) for db in (committed_db, other) for name in ("lab", "old-lab")] == [second, first] * 2
        committed_db.run(workspaces.soft_delete, second)
        assert [opens(db, name) for db in (committed_db, other) for name in ("lab", second)] == [None] * 4
        committed_db.run(workspaces.restore, second)
        assert [opens(db, name) for db in (committed_db, other) for name in ("lab", second)] == [second] * 4


def test_a_slug_is_not_taken_for_the_one_that_had_it(committed_db: Database, owner: Engine) -> None:
    """Somebody else deletes the workspace; a new one of its name, made here, is the one that sessions open in."""
    first = make_workspace(committed_db, "lab")
    assert opens(committed_db, "lab") == first
    with owner.begin() as connection:
        connection.execute(text("UPDATE stemma.workspaces SET deleted_at = now()"))
        user = connection.scalar(text("SELECT owner_id FROM stemma.workspaces"))
    second = committed_db.run(workspaces.create, user, "Lab", slug="lab").id
    assert opens(committed_db, "lab") == second


def test_what_is_rolled_back_is_not_forgotten(committed_db: Database) -> None:
    """Nothing is asked again for a change that did not happen."""
    first = make_workspace(committed_db, "lab")
    assert opens(committed_db, "lab") == first
    with pytest.raises(ZeroDivisionError), committed_db.session() as session:
        workspaces.soft_delete(session, first)
        _ = 1 / 0
    with count_queries() as sent:
        assert opens(committed_db, "lab") == first
    assert sent.count == 0


async def test_twins(async_session: object) -> None:
    """The async twins do the same work."""
    owner = (await ausers.create(async_session, f"{uuid4().hex}@example.com")).id  # type: ignore[arg-type]
    made = await aworkspaces.create(async_session, owner, "Async")  # type: ignore[arg-type]
    await aworkspaces.update(async_session, made.id, WorkspaceUpdate(name="Other"))  # type: ignore[arg-type]
    await aworkspaces.transfer_ownership(async_session, made.id, owner)  # type: ignore[arg-type]
    await aworkspaces.soft_delete(async_session, made.id)  # type: ignore[arg-type]
    assert (await aworkspaces.restore(async_session, made.id)).name == "Other"  # type: ignore[arg-type]
    await aworkspaces.soft_delete(async_session, made.id)  # type: ignore[arg-type]
    await aworkspaces.purge(async_session, made.id)  # type: ignore[arg-type]
    assert await aworkspaces.find(async_session, made.id) is None  # type: ignore[arg-type]
    assert tenancy.workspace_of(async_session.sync_session) != made.id  # type: ignore[attr-defined]
