"""``stemmadb users`` and ``stemmadb keys``: what they print, as text and as JSON, and how they refuse."""

from __future__ import annotations

import getpass
import io
import json
import sys
from collections.abc import Callable
from subprocess import CompletedProcess
from typing import Any

import pytest
import typer
from pydantic import SecretStr
from tests.test_cli import call

from stemmadb import __version__, _console
from stemmadb.accounts import api_keys, audit, users
from stemmadb.accounts.commands import keys_app, users_app
from stemmadb.audit import find_current_actor
from stemmadb.database import Database
from stemmadb.errors import ConfigurationError
from stemmadb.testing import make_workspace

Run = Callable[..., CompletedProcess[str]]
PASSWORD = "correct horse battery staple"


@pytest.fixture
def run(committed_db: Database) -> Run:
    """The command line on the test's database."""
    url = committed_db.url.render_as_string(hide_password=False)
    return lambda *arguments, **options: call(*arguments, DATABASE_URL=url, **options)


def ask(run: Run, *arguments: str, **options: str) -> Any:
    """What a command prints as JSON."""
    done = run(*arguments, "--json", **options)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(done.stdout)


def commands_of(group: typer.Typer) -> dict[str, Any]:
    return getattr(typer.main.get_command(group), "commands", {})


@pytest.mark.offline
@pytest.mark.requirement("TN-054")
@pytest.mark.parametrize("group", [users_app, keys_app], ids=["users", "keys"])
def test_every_command_has_json(group: typer.Typer) -> None:
    """And none takes a password as an option or an argument with a value."""
    for name, command in commands_of(group).items():
        assert "--json" in {option for found in command.params for option in found.opts}, name
        for found in command.params:
            assert "password" not in str(found.name) or found.is_flag, name


def test_a_user_from_first_to_last(run: Run) -> None:
    """Made, found, changed, kept out, let in, deleted, restored, removed; each step is told as text and as JSON."""
    made = ask(run, "users", "create", "Ada@Example.com", "--name", "Ada [bold]")
    assert (made["email"], made["name"], made["status"], made["deleted_at"]) == ("ada@example.com", "Ada [bold]", "ACTIVE", None)
    id = made["id"]
    got = ask(run, "users", "get", "ada@example.com")
    assert got == {**made, "roles": [], "permissions": []}
    shown = run("users", "get", id).stdout
    assert "email:         ada@example.com" in shown
    assert "last_login_at: -" in shown
    assert "Ada [bold]" in run("users", "list").stdout
    assert run("users", "update", id, "--name", "Ada Lovelace").stdout == "updated ada@example.com\n"
    assert ask(run, "users", "update", id, "--email", "countess@example.com")["email"] == "countess@example.com"
    assert run("users", "suspend", id, "--reason", "left").stdout == "suspended countess@example.com\n"
    assert [row["id"] for row in ask(run, "users", "list", "--status", "suspended")] == [id]
    assert ask(run, "users", "reinstate", id)["status"] == "ACTIVE"
    deleted = ask(run, "users", "delete", id)
    assert (deleted["status"], deleted["deleted_at"] is None) == ("DELETED", False)
    assert ask(run, "users", "list") == []
    assert [row["id"] for row in ask(run, "users", "list", "--deleted")] == [id]
    assert ask(run, "users", "restore", id)["status"] == "ACTIVE"
    refused = run("users", "purge", id)
    assert (refused.returncode, "--yes" in refused.stderr) == (1, True)
    assert "production" in run("users", "purge", id, "--yes", STEMMADB_ENV="production").stderr
    assert run("users", "purge", id, "--yes").stdout == "removed countess@example.com\n"
    assert "was not found" in run("users", "get", id).stderr


def test_what_commands_change_is_on_record_as_theirs(run: Run, committed_db: Database) -> None:
    """An administrator's, with the release and the login of the shell; the actor is gone with the command."""
    id = ask(run, "users", "create", "ada@example.com")["id"]
    with committed_db.session() as session:
        (made,) = audit.history(session, "users", id).items
    assert (made.action, made.actor_type, made.user_id) == ("CREATE", "ADMIN", None)
    assert made.user_agent == f"stemmadb {__version__} ({getpass.getuser()})"
    assert find_current_actor() is None


@pytest.mark.requirement("EC-008")
def test_a_password_comes_on_stdin(run: Run, committed_db: Database) -> None:
    """It is no argument, and nothing prints it; too short, or none at all, is one line and nothing is made."""
    made = run("users", "create", "ada@example.com", "--password", "--json", stdin=f"{PASSWORD}\n")
    assert made.returncode == 0
    assert PASSWORD not in made.stdout + made.stderr
    run("users", "create", "bob@example.com")
    assert run("users", "password", "bob@example.com", stdin=f"{PASSWORD}\n").stdout == "new password for bob@example.com\n"
    with committed_db.session() as session:
        for email in ("ada@example.com", "bob@example.com"):
            assert users.verify_password(session, email, SecretStr(PASSWORD)) is not None
    for typed in ("short\n", ""):
        refused = run("users", "create", "eve@example.com", "--password", stdin=typed)
        assert (refused.returncode, refused.stdout, len(refused.stderr.splitlines())) == (1, "", 1)
        assert typed.strip() not in refused.stderr or not typed
    assert "was not found" in run("users", "get", "eve@example.com").stderr


def test_a_password_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for twice, unseen, and the question is no result: it goes to stderr."""
    asked: dict[str, Any] = {}

    def prompt(text: str, **options: Any) -> str:
        asked.update(options, text=text)
        return PASSWORD

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(_console.typer, "prompt", prompt)
    assert _console.read_password("Password").get_secret_value() == PASSWORD
    assert asked == {"text": "Password", "hide_input": True, "confirmation_prompt": True, "err": True}
    monkeypatch.setattr(_console.typer, "prompt", lambda *_, **__: "")
    with pytest.raises(ConfigurationError):
        _console.read_password("Password")


def test_lists_of_many_pages(run: Run, committed_db: Database) -> None:
    """--limit is no page: it goes on until there are as many, and says when there are more."""
    with committed_db.session() as session:
        for number in range(205):
            users.create(session, f"u{number:03}@example.com")
    assert len(ask(run, "users", "list", "--limit", "1000")) == 205
    some = run("users", "list", "--limit", "203", "--json")
    assert len(json.loads(some.stdout)) == 203
    assert some.stderr == "stemmadb: there are more than 203: raise --limit to see them\n"
    assert [row["email"] for row in ask(run, "users", "list", "--query", "u007")] == ["u007@example.com"]


def test_a_key_from_first_to_last(run: Run, committed_db: Database) -> None:
    """Issued, found by id and by prefix, listed by owner and by workspace, rotated, restricted, revoked, removed."""
    make_workspace(committed_db, "lab")
    run("users", "create", "ada@example.com")
    issued = ask(run, "keys", "issue", "ada@example.com", "laptop", "--scope", "evaluation:read", "--workspace", "lab")
    token, id = issued.pop("token"), issued["id"]
    with committed_db.session() as session:
        assert api_keys.verify(session, SecretStr(token), required_scope="evaluation:read").key_id is not None
    for got in (ask(run, "keys", "get", id), ask(run, "keys", "get", issued["prefix"])):
        assert {**got, "last_used_at": None} == issued
    assert "scopes:        evaluation:read" in run("keys", "get", id).stdout
    assert [row["id"] for row in ask(run, "keys", "list", "ada@example.com")] == [id]
    assert [row["id"] for row in ask(run, "keys", "list", "--workspace", "lab")] == [id]
    rotated = ask(run, "keys", "rotate", id, "--overlap-hours", "1")
    assert rotated["token"] != token
    assert rotated["scopes"] == ["evaluation:read"]
    assert run("keys", "scopes", id, "--scope", "evaluation:*").stdout == "evaluation:*\n"
    assert ask(run, "keys", "scopes", id)["scopes"] == []
    assert ask(run, "keys", "revoke", id)["revoked_at"] is not None
    assert run("keys", "revoke", id).stdout == f"revoked {issued['prefix']}\n"
    assert [row["id"] for row in ask(run, "keys", "list", "ada@example.com", "--live")] == [rotated["id"]]
    assert "--yes" in run("keys", "delete", id).stderr
    assert run("keys", "delete", id, "--yes").stdout == f"removed {issued['prefix']}\n"
    refused = run("keys", "rotate", id)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)


@pytest.mark.requirement("AD-023")
def test_a_token_is_printed_once(run: Run) -> None:
    """By issue and by rotate, alone on its line; nothing else prints it, nor its digest."""
    run("users", "create", "ada@example.com")
    token = run("keys", "issue", "ada@example.com", "laptop").stdout.strip()
    assert api_keys.looks_like_token(token)
    (listed,) = ask(run, "keys", "list", "ada@example.com")
    successor = run("keys", "rotate", listed["id"]).stdout.strip()
    assert api_keys.looks_like_token(successor)
    said = "".join(
        run(*arguments).stdout
        for arguments in (
            ("keys", "list", "ada@example.com"),
            ("keys", "list", "ada@example.com", "--json"),
            ("keys", "get", listed["id"]),
            ("keys", "revoke", listed["id"], "--json"),
        )
    )
    assert token not in said
    assert successor not in said
    assert "hash" not in said


BAD = {
    "unknown user": (("users", "get", "nobody@example.com"), "User nobody@example.com was not found"),
    "malformed id": (("users", "suspend", "nonsense", "--reason", "x"), "nonsense was not found"),
    "malformed e-mail": (("users", "create", "nonsense"), "e-mail"),
    "taken e-mail": (("users", "create", "ada@example.com"), "already exists"),
    "no reason": (("users", "suspend", "ada@example.com", "--reason", ""), "reason"),
    "nothing to change": (("users", "update", "ada@example.com"), "nothing to change"),
    "malformed scope": (("keys", "issue", "ada@example.com", "x", "--scope", "ALL"), "scope"),
    "keys of nobody": (("keys", "list"), "keys of whom"),
    "unknown key": (("keys", "get", "stm_k_live_000000000000"), "was not found"),
    "unknown workspace": (("keys", "issue", "ada@example.com", "x", "-w", "nowhere"), "nowhere was not found"),
}


@pytest.mark.fault
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(run: Run, case: str) -> None:
    """On stderr, with exit code 1 and without a traceback."""
    run("users", "create", "ada@example.com")
    arguments, said = BAD[case]
    for more in ((), ("--json",)):
        failed = run(*arguments, *more)
        assert (failed.returncode, failed.stdout, len(failed.stderr.splitlines())) == (1, "", 1)
        assert said in failed.stderr


def test_what_is_stored_does_not_steer_a_terminal(run: Run) -> None:
    """A name is shown as text, whatever is in it."""
    run("users", "create", "eve@example.com", "--name", "\x1b[31mred\u202e")
    for shown in (run("users", "list").stdout, run("users", "get", "eve@example.com").stdout):
        assert "\x1b[31m" not in shown
        assert "\u202e" not in shown
        assert "red" in shown
