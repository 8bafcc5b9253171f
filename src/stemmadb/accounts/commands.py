"""The commands of the pack ``accounts``: users and keys."""

from datetime import timedelta
from typing import Annotated, Any, Final

import typer
from sqlalchemy.orm import Session

from stemmadb import tenancy
from stemmadb._console import (
    AsJson,
    Limit,
    Url,
    Yes,
    gathered,
    open_database,
    output,
    read_password,
    refuse_in_production,
    show_table,
)
from stemmadb._display import printable
from stemmadb.accounts import api_keys, users
from stemmadb.accounts.data import UserUpdate
from stemmadb.accounts.entities import ApiKey, User
from stemmadb.accounts.vocabularies import UserStatus
from stemmadb.errors import ConfigurationError
from stemmadb.workspaces import workspaces

users_app: Final = typer.Typer(no_args_is_help=True, help="People and services.")
keys_app: Final = typer.Typer(no_args_is_help=True, help="API keys.")

Person = Annotated[str, typer.Argument(help="id or e-mail")]
Owner = Annotated[str, typer.Argument(help="id or e-mail of the owner")]
Scopes = Annotated[list[str] | None, typer.Option("--scope", help="domain:action or domain:*; may be repeated.")]
Name = Annotated[str | None, typer.Option("--name", help="How the person is shown.")]

_USERS = {"id": "id", "email": "e-mail", "name": "name", "status": "status"}
_KEYS = {"id": "id", "name": "name", "prefix": "prefix", "expires_at": "expires", "revoked_at": "revoked"}


def register(app: typer.Typer) -> None:
    """Add the groups ``users`` and ``keys``."""
    app.add_typer(users_app, name="users")
    app.add_typer(keys_app, name="keys")


def _time(value: Any) -> str | None:
    return None if value is None else str(value.isoformat())


def _user(row: User) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "email": row.email,
        "name": row.name,
        "status": row.status,
        "created_at": _time(row.created_at),
        "last_login_at": _time(row.last_login_at),
        "deleted_at": _time(row.deleted_at),
    }


def _key(row: ApiKey) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "user_id": str(row.user_id),
        "name": row.name,
        "prefix": row.prefix,
        "scopes": list(row.scopes),
        "workspace_id": None if row.workspace_id is None else str(row.workspace_id),
        "created_at": _time(row.created_at),
        "expires_at": _time(row.expires_at),
        "revoked_at": _time(row.revoked_at),
        "last_used_at": _time(row.last_used_at),
    }


def _found(session: Session, person: str) -> User:
    return users.get_by_email(session, person) if "@" in person else users.get(session, person)


def _lines(row: dict[str, Any]) -> None:
    for name, value in row.items():
        said = ", ".join(value) if isinstance(value, list) else "-" if value is None else str(value)
        print(f"{name + ':':<15}{printable(said)}")


# ------------------------------------------------------------------------------------------------------------------- users


@users_app.command("list")
def list_users(
    url: Url = None,
    limit: Limit = 50,
    query: Annotated[str | None, typer.Option("--query", help="Part of the e-mail or the name.")] = None,
    status: Annotated[UserStatus | None, typer.Option("--status", case_sensitive=False)] = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Deleted users, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List live users, newest first."""
    with open_database(url) as db, db.session(read_only=True) as session:

        def read(cursor: str | None, size: int) -> Any:
            return users.list_all(session, status=status, query=query, include_deleted=deleted, cursor=cursor, limit=size)

        rows = [_user(row) for row in gathered(read, limit)]
    output(rows, as_json, lambda: show_table(rows, _USERS))


@users_app.command("get")
def get_user(user: Person, url: Url = None, as_json: AsJson = False) -> None:
    """Show a user, with roles and permissions."""
    with open_database(url) as db, db.session(read_only=True) as session:
        found = users.get_with_roles(session, _found(session, user).id)
        row = {**_user(found.user), "roles": [role.name for role in found.roles], "permissions": sorted(found.permissions)}
    output(row, as_json, lambda: _lines(row))


@users_app.command("create")
def create_user(
    email: str,
    url: Url = None,
    name: Name = None,
    password: Annotated[bool, typer.Option("--password", help="Ask for a password; without a terminal it is read from stdin.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a user, without a password unless one is asked for."""
    given = read_password("Password") if password else None
    with open_database(url) as db, db.session() as session:
        made = users.create(session, email, name=name)
        row = _user(made if given is None else users.set_password(session, made.id, given))
    output(row, as_json, lambda: print(row["id"]))


@users_app.command("update")
def update_user(
    user: Person,
    url: Url = None,
    name: Name = None,
    email: Annotated[str | None, typer.Option("--email", help="The new address, which has to be confirmed again.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change the name or the e-mail of a user."""
    given: dict[str, Any] = {key: value for key, value in {"name": name, "email": email}.items() if value is not None}
    if not given:
        raise ConfigurationError("nothing to change: give --name or --email")
    with open_database(url) as db, db.session() as session:
        row = _user(users.update(session, _found(session, user).id, UserUpdate(**given)))
    output(row, as_json, lambda: print(f"updated {row['email']}"))


@users_app.command("password")
def set_password(user: Person, url: Url = None, as_json: AsJson = False) -> None:
    """Give a user a new password, asked for twice; without a terminal it is read from stdin. Ends the user's sessions."""
    given = read_password("New password")
    with open_database(url) as db, db.session() as session:
        row = _user(users.set_password(session, _found(session, user).id, given))
    output(row, as_json, lambda: print(f"new password for {row['email']}"))


@users_app.command("suspend")
def suspend_user(
    user: Person,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")],
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Keep a user out until reinstated: sessions end, keys and passwords are good for nothing."""
    with open_database(url) as db, db.session() as session:
        row = _user(users.suspend(session, _found(session, user).id, reason=reason))
    output(row, as_json, lambda: print(f"suspended {row['email']}"))


@users_app.command("reinstate")
def reinstate_user(user: Person, url: Url = None, as_json: AsJson = False) -> None:
    """Let a suspended user in again."""
    with open_database(url) as db, db.session() as session:
        row = _user(users.reinstate(session, _found(session, user).id))
    output(row, as_json, lambda: print(f"reinstated {row['email']}"))


@users_app.command("delete")
def delete_user(user: Person, url: Url = None, as_json: AsJson = False) -> None:
    """Hide a user, and revoke its sessions and keys. It can be restored."""
    with open_database(url) as db, db.session() as session:
        row = _user(users.soft_delete(session, _found(session, user).id))
    output(row, as_json, lambda: print(f"deleted {row['email']}"))


@users_app.command("restore")
def restore_user(user_id: str, url: Url = None, as_json: AsJson = False) -> None:
    """Bring a deleted user back."""
    with open_database(url) as db, db.session() as session:
        row = _user(users.restore(session, user_id))
    output(row, as_json, lambda: print(f"restored {row['email']}"))


@users_app.command("purge")
def purge_user(user_id: str, url: Url = None, yes: Yes = False, as_json: AsJson = False) -> None:
    """Remove a user for good. There is no way back."""
    refuse_in_production(yes, f"remove the user {user_id} for good")
    with open_database(url) as db, db.session() as session:
        row = _user(users.get(session, user_id, include_deleted=True))
        users.purge(session, user_id)
    output(row, as_json, lambda: print(f"removed {row['email']}"))


# -------------------------------------------------------------------------------------------------------------------- keys


@keys_app.command("issue")
def issue_key(
    user: Owner,
    name: Annotated[str, typer.Argument(help="what it is for")],
    url: Url = None,
    scope: Scopes = None,
    workspace: Annotated[str | None, typer.Option("--workspace", "-w", help="Slug or id of the workspace that it opens.")] = None,
    days: Annotated[int, typer.Option("--days", min=1, help="How long it holds.")] = 365,
    as_json: AsJson = False,
) -> None:
    """Make a key, and print its token, this once."""
    with open_database(url) as db, db.session() as session:
        owner = _found(session, user)
        if workspace is not None and tenancy.as_id(workspace) is None:
            workspace = str(workspaces.get_by_slug(session, workspace).id)
        issued = api_keys.issue(session, owner.id, name, workspace_id=workspace, scopes=scope or (), expires_in=timedelta(days=days))
        row = {**_key(issued.key), "token": issued.token.get_secret_value()}
    output(row, as_json, lambda: print(row["token"]))


@keys_app.command("list")
def list_keys(
    user: Annotated[str | None, typer.Argument(help="id or e-mail of the owner", show_default=False)] = None,
    url: Url = None,
    workspace: Annotated[str | None, typer.Option("--workspace", "-w", help="Slug or id: the keys that open it.")] = None,
    limit: Limit = 200,
    live: Annotated[bool, typer.Option("--live", help="Without revoked keys.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the keys of a user or of a workspace, newest first."""
    if (user is None) == (workspace is None):
        raise ConfigurationError("keys of whom? Give a user, or --workspace")
    with open_database(url) as db, db.session(workspace, read_only=True) as session:
        owner = None if user is None else _found(session, user).id

        def read(cursor: str | None, size: int) -> Any:
            if owner is None:
                return api_keys.list_for_workspace(session, include_revoked=not live, cursor=cursor, limit=size)
            return api_keys.list_for_user(session, owner, include_revoked=not live, cursor=cursor, limit=size)

        rows = [_key(row) for row in gathered(read, limit)]
    output(rows, as_json, lambda: show_table([{**row, "expires_at": row["expires_at"] or "never"} for row in rows], _KEYS))


@keys_app.command("get")
def get_key(key: Annotated[str, typer.Argument(help="id or prefix")], url: Url = None, as_json: AsJson = False) -> None:
    """Show a key; its token is stored nowhere."""
    with open_database(url) as db, db.session(read_only=True) as session:
        row = _key(api_keys.get_by_prefix(session, key) if key.startswith("stm_") else api_keys.get(session, key))
    output(row, as_json, lambda: _lines(row))


@keys_app.command("rotate")
def rotate_key(
    key_id: str,
    url: Url = None,
    overlap_hours: Annotated[float, typer.Option("--overlap-hours", min=0, max=8760, help="How long the old one still holds.")] = 24.0,
    as_json: AsJson = False,
) -> None:
    """Make a key in another's place, and print its token, this once."""
    with open_database(url) as db, db.session() as session:
        issued = api_keys.rotate(session, key_id, overlap=timedelta(hours=overlap_hours))
        row = {**_key(issued.key), "token": issued.token.get_secret_value()}
    output(row, as_json, lambda: print(row["token"]))


@keys_app.command("scopes")
def set_key_scopes(key_id: str, url: Url = None, scope: Scopes = None, as_json: AsJson = False) -> None:
    """Say anew what a key may do: all of it. Without --scope it may do nothing."""
    with open_database(url) as db, db.session() as session:
        row = _key(api_keys.set_scopes(session, key_id, scope or ()))
    output(row, as_json, lambda: print(", ".join(row["scopes"]) or "nothing"))


@keys_app.command("revoke")
def revoke_key(key_id: str, url: Url = None, as_json: AsJson = False) -> None:
    """End a key, from now on."""
    with open_database(url) as db, db.session() as session:
        row = _key(api_keys.revoke(session, key_id))
    output(row, as_json, lambda: print(f"revoked {row['prefix']}"))


@keys_app.command("delete")
def delete_key(key_id: str, url: Url = None, yes: Yes = False, as_json: AsJson = False) -> None:
    """Remove a key and its row for good; to end one, revoke it."""
    refuse_in_production(yes, f"remove the key {key_id} for good")
    with open_database(url) as db, db.session() as session:
        row = _key(api_keys.get(session, key_id))
        api_keys.delete(session, key_id)
    output(row, as_json, lambda: print(f"removed {row['prefix']}"))
