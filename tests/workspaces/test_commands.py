"""``stemmadb workspaces`` and ``stemmadb members``: what they print, as text and as JSON, and how they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from subprocess import CompletedProcess
from typing import Any

import pytest
import typer
from tests.test_cli import call

from stemmadb.database import Database
from stemmadb.workspaces.commands import members_app, workspaces_app

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def run(committed_db: Database) -> Run:
    """The command line on a database with Ada, Bob and Ada's workspace ``lab``."""
    url = committed_db.url.render_as_string(hide_password=False)

    def run(*arguments: str, **options: str) -> CompletedProcess[str]:
        return call(*arguments, DATABASE_URL=url, **options)

    for name in ("ada", "bob"):
        assert run("users", "create", f"{name}@example.com").returncode == 0
    assert run("workspaces", "create", "Lab", "--owner", "ada@example.com").stdout == "lab\n"
    return run


def ask(run: Run, *arguments: str, **options: str) -> Any:
    """What a command prints as JSON."""
    done = run(*arguments, "--json", **options)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(done.stdout)


@pytest.mark.offline
@pytest.mark.requirement("TN-054")
@pytest.mark.parametrize("group", [workspaces_app, members_app], ids=["workspaces", "members"])
def test_every_command_has_json(group: typer.Typer) -> None:
    """So that a script need not read what is meant for people."""
    for name, command in getattr(typer.main.get_command(group), "commands", {}).items():
        assert "--json" in {option for found in command.params for option in found.opts}, name


def test_a_workspace_from_first_to_last(run: Run) -> None:
    """Made, found, renamed, handed over, deleted, restored, removed."""
    made = ask(run, "workspaces", "create", "The Shop", "--owner", "ada@example.com", "--slug", "shop")
    assert (made["slug"], made["name"], made["deleted_at"]) == ("shop", "The Shop", None)
    id = made["id"]
    assert ask(run, "workspaces", "get", "shop") == made == ask(run, "workspaces", "get", id)
    assert "slug:        shop" in run("workspaces", "get", "shop").stdout
    assert [row["slug"] for row in ask(run, "workspaces", "list")] == ["shop", "lab"]
    assert "The Shop" in run("workspaces", "list").stdout
    changed = ask(run, "workspaces", "update", "shop", "--name", "A shop", "--slug", "store", "--description", "What we sell")
    assert (changed["name"], changed["slug"], changed["description"]) == ("A shop", "store", "What we sell")
    assert ask(run, "workspaces", "update", "store", "--description", "")["description"] is None
    assert run("workspaces", "update", id, "--slug", "shop").stdout == "updated shop\n"
    run("members", "add", "bob@example.com", "-w", "shop")
    assert run("workspaces", "transfer", "shop", "--to", "bob@example.com").stdout == "shop belongs to bob@example.com\n"
    assert ask(run, "workspaces", "get", "shop")["owner_id"] == ask(run, "users", "get", "bob@example.com")["id"]
    assert run("workspaces", "delete", "shop").stdout == f"deleted shop ({id})\n"
    assert [row["slug"] for row in ask(run, "workspaces", "list")] == ["lab"]
    assert [row["slug"] for row in ask(run, "workspaces", "list", "--deleted")] == ["shop", "lab"]
    assert "deleted" in run("workspaces", "list", "--deleted").stdout
    assert ask(run, "workspaces", "restore", id)["deleted_at"] is None
    assert "--yes" in run("workspaces", "purge", id).stderr
    live = run("workspaces", "purge", id, "--yes")
    assert (live.returncode, len(live.stderr.splitlines())) == (1, 1)
    run("workspaces", "delete", id)
    assert "production" in run("workspaces", "purge", id, "--yes", STEMMADB_ENV="production").stderr
    assert run("workspaces", "purge", id, "--yes").stdout == "removed shop\n"
    assert "was not found" in run("workspaces", "get", id).stderr


def test_members_from_first_to_last(run: Run) -> None:
    """Added, found, given another role, removed; by --workspace or by the environment."""
    added = ask(run, "members", "add", "bob@example.com", "--workspace", "lab", "--role", "viewer")
    assert added["role"] == "VIEWER"
    assert ask(run, "members", "get", "bob@example.com", "-w", "lab") == added
    assert run("members", "get", "bob@example.com", "-w", "lab").stdout.startswith("VIEWER since 2")
    assert [row["role"] for row in ask(run, "members", "list", STEMMADB_WORKSPACE="lab")] == ["OWNER", "VIEWER"]
    assert [row["role"] for row in ask(run, "members", "list", "-w", "lab", "--role", "owner")] == ["OWNER"]
    assert "VIEWER" in run("members", "list", "-w", "lab").stdout
    assert ask(run, "members", "role", "bob@example.com", "admin", "-w", "lab")["role"] == "ADMIN"
    assert run("members", "role", "bob@example.com", "member", "-w", "lab").stdout == "now MEMBER\n"
    assert ask(run, "members", "remove", "bob@example.com", "-w", "lab")["role"] == "MEMBER"
    assert "was not found" in run("members", "get", "bob@example.com", "-w", "lab").stderr
    assert run("members", "add", "bob@example.com", "-w", "lab").stdout == "added as MEMBER\n"
    assert run("members", "remove", "bob@example.com", "-w", "lab").stdout == "removed\n"


BAD = {
    "unknown workspace": (("workspaces", "get", "nowhere"), "nowhere was not found"),
    "malformed slug": (("workspaces", "create", "X", "--owner", "ada@example.com", "--slug", "Not A Slug"), "slug"),
    "taken slug": (("workspaces", "create", "X", "--owner", "ada@example.com", "--slug", "lab"), "already exists"),
    "unknown owner": (("workspaces", "create", "X", "--owner", "nobody@example.com"), "was not found"),
    "nothing to change": (("workspaces", "update", "lab"), "nothing to change"),
    "no member": (("workspaces", "transfer", "lab", "--to", "bob@example.com"), "new_owner_id"),
    "no workspace": (("members", "list"), "workspace"),
    "a member already": (("members", "add", "ada@example.com", "-w", "lab"), "already exists"),
    "the last owner": (("members", "remove", "ada@example.com", "-w", "lab"), "owner"),
    "the only owner": (("members", "role", "ada@example.com", "viewer", "-w", "lab"), "owner"),
}


@pytest.mark.fault
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(run: Run, case: str) -> None:
    """On stderr, with exit code 1 and without a traceback."""
    arguments, said = BAD[case]
    for more in ((), ("--json",)):
        failed = run(*arguments, *more)
        assert (failed.returncode, failed.stdout, len(failed.stderr.splitlines())) == (1, "", 1)
        assert said in failed.stderr
