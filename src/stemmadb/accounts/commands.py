"""The commands of the pack ``accounts``: users and keys."""

from datetime import timedelta
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from stemmadb import tenancy
from stemmadb._console import AsJson, Url, open_database, output
from stemmadb.accounts import api_keys, users
from stemmadb.accounts.entities import ApiKey, User
from stemmadb.workspaces import workspaces

users_app: Final = typer.Typer(no_args_is_help=True, help="People and services.")
keys_app: Final = typer.Typer(no_args_is_help=True, help="API keys.")

Limit = Annotated[int, typer.Option("--limit", min=1, max=200, help="How many, newest first.")]


def register(app: typer.Typer) -> None:
    """Add the groups ``users`` and ``keys``."""
    app.add_typer(users_app, name="users")
    app.add_typer(keys_app, name="keys")


def _user(row: User) -> dict[str, object]:
    return {"id": str(row.id), "email": row.email, "name": row.name, "status": row.status, "created_at": row.created_at.isoformat()}


def _key(row: ApiKey) -> dict[str, object]:
    return {
        "id": str(row.id),
        "name": row.name,
        "prefix": row.prefix,
        "scopes": list(row.scopes),
        "workspace_id": None if row.workspace_id is None else str(row.workspace_id),
        "expires_at": None if row.expires_at is None else row.expires_at.isoformat(),
        "revoked_at": None if row.revoked_at is None else row.revoked_at.isoformat(),
    }


@users_app.command("list")
def list_users(url: Url = None, limit: Limit = 50, query: Annotated[str | None, typer.Option()] = None, as_json: AsJson = False) -> None:
    """List live users, newest first."""
    with open_database(url) as db, db.session(read_only=True) as session:
        rows = [_user(row) for row in users.list_all(session, query=query, limit=limit)]

    def show() -> None:
        table = Table("id", "e-mail", "name", "status")
        for row in rows:
            table.add_row(str(row["id"]), str(row["email"]), str(row["name"] or ""), str(row["status"]))
        Console().print(table)

    output(rows, as_json, show)


@users_app.command("create")
def create_user(email: str, url: Url = None, name: Annotated[str | None, typer.Option()] = None, as_json: AsJson = False) -> None:
    """Make a user without a password."""
    with open_database(url) as db, db.session() as session:
        row = _user(users.create(session, email, name=name))
    output(row, as_json, lambda: print(row["id"]))


@users_app.command("delete")
def delete_user(user: Annotated[str, typer.Argument(help="id or e-mail")], url: Url = None) -> None:
    """Hide a user, and revoke its sessions and keys. It can be restored."""
    with open_database(url) as db, db.session() as session:
        found = users.get_by_email(session, user) if "@" in user else users.get(session, user)
        users.soft_delete(session, found.id)
    print(f"deleted {found.email}")


@users_app.command("restore")
def restore_user(user_id: str, url: Url = None) -> None:
    """Bring a deleted user back."""
    with open_database(url) as db, db.session() as session:
        print(f"restored {users.restore(session, user_id).email}")


@keys_app.command("issue")
def issue_key(
    user: Annotated[str, typer.Argument(help="id or e-mail of the owner")],
    name: Annotated[str, typer.Argument(help="what it is for")],
    url: Url = None,
    scope: Annotated[list[str] | None, typer.Option("--scope", help="domain:action or domain:*; may be repeated.")] = None,
    workspace: Annotated[str | None, typer.Option("--workspace", "-w", help="Slug or id of the workspace that it opens.")] = None,
    days: Annotated[int, typer.Option("--days", min=1, help="How long it holds.")] = 365,
    as_json: AsJson = False,
) -> None:
    """Make a key, and print its token, this once."""
    with open_database(url) as db, db.session() as session:
        owner = users.get_by_email(session, user) if "@" in user else users.get(session, user)
        if workspace is not None and tenancy.as_id(workspace) is None:
            workspace = str(workspaces.get_by_slug(session, workspace).id)
        issued = api_keys.issue(session, owner.id, name, workspace_id=workspace, scopes=scope or (), expires_in=timedelta(days=days))
        row = {**_key(issued.key), "token": issued.token.get_secret_value()}
    output(row, as_json, lambda: print(row["token"]))


@keys_app.command("list")
def list_keys(user: Annotated[str, typer.Argument(help="id or e-mail of the owner")], url: Url = None, as_json: AsJson = False) -> None:
    """List a user's keys, newest first."""
    with open_database(url) as db, db.session(read_only=True) as session:
        owner = users.get_by_email(session, user) if "@" in user else users.get(session, user)
        rows = [_key(row) for row in api_keys.list_for_user(session, owner.id, limit=200)]

    def show() -> None:
        table = Table("id", "name", "prefix", "expires", "revoked")
        for row in rows:
            table.add_row(
                str(row["id"]), str(row["name"]), str(row["prefix"]), str(row["expires_at"] or "never"), str(row["revoked_at"] or "")
            )
        Console().print(table)

    output(rows, as_json, show)


@keys_app.command("revoke")
def revoke_key(key_id: str, url: Url = None) -> None:
    """End a key, from now on."""
    with open_database(url) as db, db.session() as session:
        print(f"revoked {api_keys.revoke(session, key_id).prefix}")
