"""The commands of the pack ``workspaces``: workspaces and members."""

from typing import Annotated, Any, Final

import typer
from sqlalchemy.orm import Session

from stemmadb import tenancy
from stemmadb._console import AsJson, Limit, Url, WorkspaceOption, Yes, gathered, open_database, output, refuse_in_production, show_table
from stemmadb._display import printable
from stemmadb.accounts import users
from stemmadb.entity import Id
from stemmadb.errors import ConfigurationError
from stemmadb.workspaces import members, workspaces
from stemmadb.workspaces.data import WorkspaceUpdate
from stemmadb.workspaces.entities import Workspace, WorkspaceMember
from stemmadb.workspaces.vocabularies import WorkspaceRole

workspaces_app: Final = typer.Typer(no_args_is_help=True, help="Workspaces, the tenants.")
members_app: Final = typer.Typer(no_args_is_help=True, help="Who belongs to a workspace.")

Owner = Annotated[str, typer.Option("--owner", help="id or e-mail")]
Person = Annotated[str, typer.Argument(help="id or e-mail")]
Role = Annotated[WorkspaceRole, typer.Option("--role", case_sensitive=False)]
Which = Annotated[str, typer.Argument(help="slug or id", metavar="WORKSPACE")]
WhichId = Annotated[str, typer.Argument(help="id: its slug is free for others", metavar="ID")]


def register(app: typer.Typer) -> None:
    """Add the groups ``workspaces`` and ``members``."""
    app.add_typer(workspaces_app, name="workspaces")
    app.add_typer(members_app, name="members")


def _workspace(row: Workspace) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "slug": row.slug,
        "name": row.name,
        "description": row.description,
        "owner_id": str(row.owner_id),
        "created_at": row.created_at.isoformat(),
        "deleted_at": None if row.deleted_at is None else row.deleted_at.isoformat(),
    }


def _member(row: WorkspaceMember) -> dict[str, Any]:
    return {"user_id": str(row.user_id), "role": str(row.role), "joined_at": row.joined_at.isoformat()}


def _person(session: Session, person: str) -> str:
    return str((users.get_by_email(session, person) if "@" in person else users.get(session, person)).id)


def _id(session: Session, workspace: str) -> Id:
    return workspace if tenancy.as_id(workspace) is not None else workspaces.get_by_slug(session, workspace).id


# -------------------------------------------------------------------------------------------------------------- workspaces


@workspaces_app.command("list")
def list_workspaces(
    url: Url = None,
    limit: Limit = 200,
    deleted: Annotated[bool, typer.Option("--deleted", help="Deleted workspaces, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List live workspaces, newest first."""
    with open_database(url) as db, db.session(read_only=True) as session:

        def read(cursor: str | None, size: int) -> Any:
            return workspaces.list_all(session, include_deleted=deleted, cursor=cursor, limit=size)

        rows = [_workspace(row) for row in gathered(read, limit)]
    columns = {"id": "id", "slug": "slug", "name": "name", **({"deleted_at": "deleted"} if deleted else {})}
    output(rows, as_json, lambda: show_table(rows, columns))


@workspaces_app.command("get")
def get_workspace(workspace: Which, url: Url = None, as_json: AsJson = False) -> None:
    """Show a workspace."""
    with open_database(url) as db, db.session(read_only=True) as session:
        row = _workspace(workspaces.get(session, _id(session, workspace), include_deleted=True))

    def show() -> None:
        for name, value in row.items():
            print(f"{name + ':':<13}{'-' if value is None else printable(str(value))}")

    output(row, as_json, show)


@workspaces_app.command("create")
def create_workspace(
    name: str, owner: Owner, url: Url = None, slug: Annotated[str | None, typer.Option("--slug")] = None, as_json: AsJson = False
) -> None:
    """Make a workspace, with its owner as its first member."""
    with open_database(url) as db, db.session() as session:
        row = _workspace(workspaces.create(session, _person(session, owner), name, slug=slug))
    output(row, as_json, lambda: print(row["slug"]))


@workspaces_app.command("update")
def update_workspace(
    workspace: Which,
    url: Url = None,
    name: Annotated[str | None, typer.Option("--name")] = None,
    slug: Annotated[str | None, typer.Option("--slug", help="Addresses with the old one lead nowhere then.")] = None,
    description: Annotated[str | None, typer.Option("--description", help="An empty one takes it away.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change the name, the slug or the description of a workspace."""
    given: dict[str, Any] = {key: value for key, value in {"name": name, "slug": slug}.items() if value is not None}
    if description is not None:
        given["description"] = description or None
    if not given:
        raise ConfigurationError("nothing to change: give --name, --slug or --description")
    with open_database(url) as db, db.session() as session:
        row = _workspace(workspaces.update(session, _id(session, workspace), WorkspaceUpdate(**given)))
    output(row, as_json, lambda: print(f"updated {row['slug']}"))


@workspaces_app.command("transfer")
def transfer_workspace(
    workspace: Which, owner: Annotated[str, typer.Option("--to", help="id or e-mail of a member")], url: Url = None, as_json: AsJson = False
) -> None:
    """Hand a workspace over to one of its members, who becomes OWNER; who owned it becomes ADMIN."""
    with open_database(url) as db, db.session() as session:
        row = _workspace(workspaces.transfer_ownership(session, _id(session, workspace), _person(session, owner)))
    output(row, as_json, lambda: print(f"{row['slug']} belongs to {owner}"))


@workspaces_app.command("delete")
def delete_workspace(workspace: Which, url: Url = None, as_json: AsJson = False) -> None:
    """Hide a workspace, and revoke the keys that open it. It can be restored."""
    with open_database(url) as db, db.session() as session:
        row = _workspace(workspaces.soft_delete(session, _id(session, workspace)))
    output(row, as_json, lambda: print(f"deleted {row['slug']} ({row['id']})"))


@workspaces_app.command("restore")
def restore_workspace(workspace_id: WhichId, url: Url = None, as_json: AsJson = False) -> None:
    """Bring a deleted workspace back."""
    with open_database(url) as db, db.session() as session:
        row = _workspace(workspaces.restore(session, workspace_id))
    output(row, as_json, lambda: print(f"restored {row['slug']}"))


@workspaces_app.command("purge")
def purge_workspace(workspace_id: WhichId, url: Url = None, yes: Yes = False, as_json: AsJson = False) -> None:
    """Remove a deleted workspace for good, with everything in it. There is no way back."""
    refuse_in_production(yes, f"remove the workspace {workspace_id} for good, with everything in it")
    with open_database(url) as db, db.session() as session:
        row = _workspace(workspaces.get(session, workspace_id, include_deleted=True))
        workspaces.purge(session, workspace_id)
    output(row, as_json, lambda: print(f"removed {row['slug']}"))


# ----------------------------------------------------------------------------------------------------------------- members


@members_app.command("list")
def list_members(
    workspace: WorkspaceOption = None,
    role: Annotated[WorkspaceRole | None, typer.Option("--role", case_sensitive=False, help="Only these.")] = None,
    limit: Limit = 200,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List the members of a workspace, by time of joining."""
    with open_database(url, workspace) as db, db.session(read_only=True) as session:

        def read(cursor: str | None, size: int) -> Any:
            return members.list_all(session, role=role, cursor=cursor, limit=size)

        rows = [_member(row) for row in gathered(read, limit)]
    output(rows, as_json, lambda: show_table(rows, {"user_id": "user", "role": "role", "joined_at": "joined"}))


@members_app.command("get")
def get_member(person: Person, workspace: WorkspaceOption = None, url: Url = None, as_json: AsJson = False) -> None:
    """Show the role of a member."""
    with open_database(url, workspace) as db, db.session(read_only=True) as session:
        row = _member(members.get(session, _person(session, person)))
    output(row, as_json, lambda: print(f"{row['role']} since {row['joined_at']}"))


@members_app.command("add")
def add_member(
    person: Person, workspace: WorkspaceOption = None, role: Role = WorkspaceRole.MEMBER, url: Url = None, as_json: AsJson = False
) -> None:
    """Make a user a member."""
    with open_database(url, workspace) as db, db.session() as session:
        row = _member(members.add(session, _person(session, person), role))
    output(row, as_json, lambda: print(f"added as {row['role']}"))


@members_app.command("role")
def change_role(
    person: Person,
    role: Annotated[WorkspaceRole, typer.Argument(case_sensitive=False)],
    workspace: WorkspaceOption = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Give a member another role."""
    with open_database(url, workspace) as db, db.session() as session:
        row = _member(members.change_role(session, _person(session, person), role))
    output(row, as_json, lambda: print(f"now {row['role']}"))


@members_app.command("remove")
def remove_member(person: Person, workspace: WorkspaceOption = None, url: Url = None, as_json: AsJson = False) -> None:
    """End a membership."""
    with open_database(url, workspace) as db, db.session() as session:
        user_id = _person(session, person)
        row = _member(members.get(session, user_id))
        members.remove(session, user_id)
    output(row, as_json, lambda: print("removed"))
