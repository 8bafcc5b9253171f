"""The commands of the pack ``workspaces``: workspaces and members."""

from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy.orm import Session

from stemmadb._console import AsJson, Url, WorkspaceOption, open_database, output
from stemmadb.accounts import users
from stemmadb.workspaces import members, workspaces
from stemmadb.workspaces.entities import Workspace
from stemmadb.workspaces.vocabularies import WorkspaceRole

workspaces_app: Final = typer.Typer(no_args_is_help=True, help="Workspaces, the tenants.")
members_app: Final = typer.Typer(no_args_is_help=True, help="Who belongs to a workspace.")

Owner = Annotated[str, typer.Option("--owner", help="id or e-mail")]
Person = Annotated[str, typer.Argument(help="id or e-mail")]
Role = Annotated[WorkspaceRole, typer.Option("--role", case_sensitive=False)]


def register(app: typer.Typer) -> None:
    """Add the groups ``workspaces`` and ``members``."""
    app.add_typer(workspaces_app, name="workspaces")
    app.add_typer(members_app, name="members")


def _workspace(row: Workspace) -> dict[str, object]:
    return {"id": str(row.id), "slug": row.slug, "name": row.name, "created_at": row.created_at.isoformat()}


def _person(session: Session, person: str) -> str:
    return str((users.get_by_email(session, person) if "@" in person else users.get(session, person)).id)


@workspaces_app.command("list")
def list_workspaces(url: Url = None, as_json: AsJson = False) -> None:
    """List live workspaces, newest first."""
    with open_database(url) as db, db.session(read_only=True) as session:
        rows = [_workspace(row) for row in workspaces.list_all(session, limit=200)]

    def show() -> None:
        table = Table("id", "slug", "name")
        for row in rows:
            table.add_row(str(row["id"]), str(row["slug"]), str(row["name"]))
        Console().print(table)

    output(rows, as_json, show)


@workspaces_app.command("create")
def create_workspace(
    name: str, owner: Owner, url: Url = None, slug: Annotated[str | None, typer.Option()] = None, as_json: AsJson = False
) -> None:
    """Make a workspace, with its owner as its first member."""
    with open_database(url) as db, db.session() as session:
        row = _workspace(workspaces.create(session, _person(session, owner), name, slug=slug))
    output(row, as_json, lambda: print(row["slug"]))


@members_app.command("list")
def list_members(workspace: WorkspaceOption = None, url: Url = None, as_json: AsJson = False) -> None:
    """List the members of a workspace, by time of joining."""
    with open_database(url, workspace) as db, db.session(read_only=True) as session:
        rows = [
            {"user_id": str(row.user_id), "role": str(row.role), "joined_at": row.joined_at.isoformat()}
            for row in members.list_all(session, limit=200)
        ]

    def show() -> None:
        table = Table("user", "role", "joined")
        for row in rows:
            table.add_row(row["user_id"], row["role"], row["joined_at"])
        Console().print(table)

    output(rows, as_json, show)


@members_app.command("add")
def add_member(person: Person, workspace: WorkspaceOption = None, role: Role = WorkspaceRole.MEMBER, url: Url = None) -> None:
    """Make a user a member."""
    with open_database(url, workspace) as db, db.session() as session:
        member = members.add(session, _person(session, person), role)
    print(f"added as {member.role}")


@members_app.command("role")
def change_role(
    person: Person, role: Annotated[WorkspaceRole, typer.Argument(case_sensitive=False)], workspace: WorkspaceOption = None, url: Url = None
) -> None:
    """Give a member another role."""
    with open_database(url, workspace) as db, db.session() as session:
        print(f"now {members.change_role(session, _person(session, person), role).role}")


@members_app.command("remove")
def remove_member(person: Person, workspace: WorkspaceOption = None, url: Url = None) -> None:
    """End a membership."""
    with open_database(url, workspace) as db, db.session() as session:
        members.remove(session, _person(session, person))
    print("removed")
