"""Workspaces: the tenants, found by slug or id, and a person's own list of them."""

from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from stemmadb import tenancy
from stemmadb.accounts import users
from stemmadb.accounts.entities import User
from stemmadb.aio.workspaces import workspaces as aworkspaces
from stemmadb.database import Database
from stemmadb.errors import ConflictError, NotFoundError, ReferenceNotFoundError, ValidationError
from stemmadb.evaluation import definitions
from stemmadb.evaluation.data import DefinitionCreate
from stemmadb.evaluation.documents import DefinitionContent
from stemmadb.testing import assert_max_queries, count_queries, run_together
from stemmadb.workspaces import members, workspaces
from stemmadb.workspaces.documents import WorkspaceSettings
from stemmadb.workspaces.vocabularies import WorkspaceRole


@pytest.fixture
def user(session: Session) -> User:
    """Somebody."""
    return users.create(session, f"{uuid4().hex}@example.com")


@pytest.mark.requirement("TN-019")
def test_create_and_find(session: Session, user: User, workspace: UUID) -> None:
    """By id and by slug; the owner is its first member; the session stays in its own workspace."""
    made = workspaces.create(session, user.id, "Trolley Lab", slug="trolley-lab", settings=WorkspaceSettings(locale="de"))
    assert workspaces.get(session, made.id) is made
    assert workspaces.get(session, str(made.id)) is made
    assert workspaces.get_by_slug(session, "trolley-lab") is made
    assert made.settings.locale == "de"
    assert tenancy.workspace_of(session) == workspace
    assert session.scalar(text("SELECT current_setting('stemma.workspace_id')")) == str(workspace)
    assert [(item.workspace.id, item.role) for item in workspaces.list_for_user(session, user.id)] == [(made.id, WorkspaceRole.OWNER)]
    assert members.find(session, user.id) is None


def test_the_new_workspace_can_be_worked_in(committed_db: Database) -> None:
    """Made in a session without a workspace, opened by slug in the next one."""
    with committed_db.session() as session:
        owner = users.create(session, "a@example.com")
        made = workspaces.create(session, owner.id, "Lab")
    with committed_db.session(workspace="lab") as session:
        assert tenancy.workspace_of(session) == made.id
        assert members.get(session, owner.id).role == WorkspaceRole.OWNER
        assert definitions.create(session, DefinitionCreate(name="d", content=DefinitionContent(preamble="", template=""))).depth == 0


@pytest.mark.parametrize(("name", "slug"), [("Café  Über 9", "cafe-uber-9"), ("---", "workspace"), ("日本", "workspace")])
def test_a_slug_is_made_from_the_name(session: Session, user: User, name: str, slug: str) -> None:
    """Plain letters, digits and hyphens; a second one of the name gets a suffix."""
    assert workspaces.create(session, user.id, name).slug == slug
    assert workspaces.create(session, user.id, name).slug.startswith(f"{slug}-")


def test_a_slug_that_is_taken_is_refused(session: Session, user: User) -> None:
    """ConflictError for a slug that was given, and the transaction goes on."""
    workspaces.create(session, user.id, "one", slug="same")
    with pytest.raises(ConflictError):
        workspaces.create(session, user.id, "two", slug="same")
    assert workspaces.get_by_slug(session, "same").name == "one"


@pytest.mark.race
def test_of_ten_concurrent_claims_of_a_slug_one_wins(committed_db: Database) -> None:
    """One workspace, nine ConflictErrors."""
    with committed_db.session() as session:
        owner = users.create(session, "a@example.com").id
    results = run_together(10, lambda _: committed_db.run(workspaces.create, owner, "Lab", slug="lab"))
    assert sum(isinstance(result, ConflictError) for result in results) == 9


@pytest.mark.parametrize("slug", ["Upper", "a--b", "-a", "a_b", "", "0190a000-0000-7000-8000-000000000000", "x" * 0])
def test_a_malformed_slug_is_refused_before_anything_is_sent(session: Session, user: User, slug: str) -> None:
    """Upper case, double hyphens, underscores, and what would be read as an id."""
    with count_queries() as sent, pytest.raises(ValidationError) as caught:
        workspaces.create(session, user.id, "x", slug=slug)
    assert (caught.value.field, sent.count) == ("slug", 0)


def test_an_unknown_owner_is_refused(session: Session, user: User) -> None:
    """Nobody, or somebody deleted: ReferenceNotFoundError, and the transaction goes on."""
    users.soft_delete(session, user.id)
    for owner in (uuid4(), user.id):
        with pytest.raises(ReferenceNotFoundError) as caught:
            workspaces.create(session, owner, "x")
        assert caught.value.field == "owner_id"
    assert workspaces.find_by_slug(session, "x") is None


def test_unknown_workspaces(session: Session) -> None:
    """get raises, find returns None, for ids and slugs."""
    for wanted in (uuid4(), "nonsense"):
        assert workspaces.find(session, wanted) is None
        with pytest.raises(NotFoundError):
            workspaces.get(session, wanted)
    assert workspaces.find_by_slug(session, "no-such") is None
    assert workspaces.find_by_slug(session, "'; --") is None
    with pytest.raises(NotFoundError):
        workspaces.get_by_slug(session, "no-such")


def test_deleted_workspaces_are_hidden(session: Session, user: User) -> None:
    """From get, find and lists, unless asked for."""
    made = workspaces.create(session, user.id, "gone")
    session.execute(text("UPDATE stemma.workspaces SET deleted_at = now() WHERE id = :id"), {"id": made.id})
    assert workspaces.find(session, made.id) is None
    assert workspaces.find_by_slug(session, "gone") is None
    assert workspaces.get(session, made.id, include_deleted=True).deleted_at is not None
    assert made.id not in {row.id for row in workspaces.list_all(session, limit=200)}
    assert made.id in {row.id for row in workspaces.list_all(session, include_deleted=True, limit=200)}
    assert len(workspaces.list_for_user(session, user.id)) == 0


def test_list_all_is_newest_first(session: Session, user: User) -> None:
    """Joined pages are all of them, in order."""
    made = [workspaces.create(session, user.id, f"w{number}").id for number in range(5)]
    first = workspaces.list_all(session, limit=3)
    second = workspaces.list_all(session, limit=3, cursor=first.next_cursor)
    assert [row.id for row in [*first, *second]][:5] == made[::-1]


@pytest.mark.requirement("TN-037")
def test_list_for_user_crosses_workspaces_for_that_user_only(committed_db: Database) -> None:
    """By name, paged, in one statement; the policy that shows them is closed again, and nobody else's are seen."""
    with committed_db.session() as session:
        owner, guest = (users.create(session, f"{name}@example.com").id for name in ("owner", "guest"))
        made = [workspaces.create(session, owner, name).id for name in ("b", "a", "c")]
    with committed_db.session(workspace=made[0]) as session:
        members.add(session, guest, WorkspaceRole.VIEWER)
        with assert_max_queries(1):
            first = workspaces.list_for_user(session, owner, limit=2)
        second = workspaces.list_for_user(session, owner, limit=2, cursor=first.next_cursor)
        assert [item.workspace.name for item in [*first, *second]] == ["a", "b", "c"]
        assert [(item.workspace.id, item.role) for item in workspaces.list_for_user(session, guest)] == [(made[0], WorkspaceRole.VIEWER)]
        assert session.scalar(text("SELECT count(*) FROM stemma.workspace_members")) == 2
        assert len(workspaces.list_for_user(session, uuid4())) == 0
    with committed_db.session() as session:
        assert len(workspaces.list_for_user(session, owner)) == 3
        assert session.scalar(text("SELECT count(*) FROM stemma.workspace_members")) == 0


@pytest.mark.requirement("TN-037")
def test_a_refused_list_for_user_leaves_nothing_open(committed_db: Database) -> None:
    """A cursor of another list, a limit out of bounds: no membership of another workspace is seen afterwards in the same transaction."""
    with committed_db.session() as session:
        owner = users.create(session, "owner@example.com").id
        made = [workspaces.create(session, owner, name).id for name in ("a", "b")]
    with committed_db.session(workspace=made[0]) as session:
        foreign = workspaces.list_all(session, limit=1).next_cursor
        for options in ({"cursor": foreign}, {"limit": 0}, {"cursor": "nonsense"}):
            with pytest.raises(ValidationError):
                workspaces.list_for_user(session, owner, **options)  # type: ignore[arg-type]
            assert session.scalar(text("SELECT count(*) FROM stemma.workspace_members")) == 1


async def test_twins(async_session: object) -> None:
    """The async twins do the same work."""
    from stemmadb.aio.accounts import users as ausers

    owner = await ausers.create(async_session, f"{uuid4().hex}@example.com")  # type: ignore[arg-type]
    made = await aworkspaces.create(async_session, owner.id, "Async")  # type: ignore[arg-type]
    assert [item.workspace.id for item in await aworkspaces.list_for_user(async_session, owner.id)] == [made.id]  # type: ignore[arg-type]
