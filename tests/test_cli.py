"""The command line: what a newcomer does works, and what cannot work is one line and exit code 1."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stemmadb import cli
from stemmadb.database import Database

Run = Callable[..., subprocess.CompletedProcess[str]]
PROGRAM = [sys.executable, "-W", "error", "-m", "stemmadb"]


def call(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process, as a terminal without a keyboard would; a process of its own takes a second to import."""
    out, error = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        for name in [name for name in os.environ if name.startswith(("STEMMADB_", "DATABASE_", "DIRECT_"))]:
            patch.delenv(name)
        for name, value in {"COLUMNS": "160", **environment}.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["stemmadb", *arguments])
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        try:
            cli.main()
        except SystemExit as left:
            code = left.code
    return subprocess.CompletedProcess(arguments, code if isinstance(code, int) else 1, out.getvalue(), error.getvalue())


def spawn(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process of its own, with warnings as errors."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STEMMADB_", "DATABASE_", "DIRECT_"))}
    return subprocess.run(
        [*PROGRAM, *arguments],
        env={**kept, "COLUMNS": "160", **environment},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    """A folder for an embedded cluster; the account of the server can enter it, also when root runs the tests."""
    folder = Path(tempfile.mkdtemp(prefix="stemmadb-cli-"))
    folder.chmod(0o755)
    yield folder / "data"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def run(committed_db: Database) -> Run:
    """The command line on the test's database."""
    url = committed_db.url.render_as_string(hide_password=False)
    direct = committed_db.direct_url.render_as_string(hide_password=False)
    return lambda *arguments, **environment: call(*arguments, DATABASE_URL=url, DIRECT_URL=direct, **environment)


def test_version_and_help() -> None:
    """The program says its version, and what it can do."""
    assert spawn("--version").stdout.startswith("stemmadb 0.")
    for command in ("demo", "migrate", "seed", "health", "pg", "tree", "diff", "blame", "users", "keys", "workspaces", "members"):
        assert command in call("--help").stdout


def test_the_workspace_of_the_environment_need_not_exist_yet(run: Run) -> None:
    """Commands about tables of no workspace do not look for it, least of all the one that makes it; commands in it do."""
    here = {"STEMMADB_WORKSPACE": "lab"}
    assert run("seed", "run", "--profile", "prod", **here).returncode == 0
    assert run("seed", "status", **here).returncode == 0
    assert run("users", "create", "me@example.com", **here).returncode == 0
    assert "lab was not found" in run("members", "list", **here).stderr
    assert run("workspaces", "create", "Lab", "--owner", "me@example.com", **here).stdout.strip() == "lab"
    assert run("workspaces", "list", **here).returncode == 0
    assert "OWNER" in run("members", "list", **here).stdout


@pytest.mark.slow
def test_demo_twice(data_dir: Path) -> None:
    """On a cluster of its own: everything that README promises is printed, and a second run changes nothing."""
    first = spawn("demo", STEMMADB_DATA_DIR=str(data_dir))
    assert (first.returncode, first.stderr.count("Traceback")) == (0, 0), first.stderr
    for said in (
        "The last place",
        "ancestors",
        "108/108 slots",
        "stand-ins, not models",
        "version 0 in the table",
        "as it was",
        "verified for",
        "stemmadb.connect",
    ):
        assert said in first.stdout, said
    second = spawn("demo", STEMMADB_DATA_DIR=str(data_dir))
    assert second.returncode == 0
    assert "nothing was changed" in second.stdout
    asked = spawn("pg", "psql", "-Atc", "SELECT count(*) FROM stemma.api_keys", STEMMADB_DATA_DIR=str(data_dir))
    assert asked.stdout.strip() == "0", asked.stderr


@pytest.mark.requirement("EC-121", "EC-122", "EC-127", "TN-054", "TN-058", "EC-129")
def test_migrate(run: Run) -> None:
    """status, check, history, sql, down, up and reset, without a terminal."""
    assert "up to date" in run("migrate", "up").stdout
    assert json.loads(run("migrate", "status", "--json").stdout)["up_to_date"] is True
    assert run("migrate", "check").returncode == 0
    assert "base_0001" in run("migrate", "history").stdout
    assert "CREATE TABLE stemma.users" in run("migrate", "sql").stdout
    refused = run("migrate", "down", "evaluation@base")
    assert (refused.returncode, "--yes" in refused.stderr) == (1, True)
    assert run("migrate", "down", "evaluation@base", "--yes").returncode == 0
    assert "evaluation_0001" in run("migrate", "up").stdout
    refused = run("migrate", "reset", "--yes", STEMMADB_ENV="production")
    assert (refused.returncode, "production" in refused.stderr) == (1, True)
    assert run("migrate", "reset", "--yes", "--no-seed").returncode == 0
    assert run("users", "list", "--json").stdout.strip() == "[]"


@pytest.mark.requirement("EC-149", "EC-150", "EC-151", "PF-078", "RF-064")
def test_seed_and_tree(run: Run) -> None:
    """Seeds by profile, their status, and a tree drawn. The profile of suites is not offered."""
    seeded = run("seed", "run", "--profile", "dev")
    assert "evaluation.family" in seeded.stdout
    assert "no password" in seeded.stderr
    assert "unchanged" in run("seed", "run", "--profile", "dev").stdout
    assert "applied" in run("seed", "status", "--profile", "dev").stdout
    assert run("seed", "run", "--profile", "nonsense").returncode == 1
    assert run("seed", "run", "--profile", "test").returncode == 1
    assert {row["profile"] for row in json.loads(run("seed", "status", "--json").stdout)} == {"dev", "qa", "prod", "demo"}


def test_users_keys_workspaces_members(run: Run) -> None:
    """Make a person, a workspace, a member and a key, and take them back."""
    owner = run("users", "create", "Ada@Example.com", "--name", "Ada").stdout.strip()
    assert run("workspaces", "create", "The Lab", "--owner", "ada@example.com").stdout.strip() == "the-lab"
    assert json.loads(run("workspaces", "list", "--json").stdout)[0]["slug"] == "the-lab"
    run("users", "create", "bob@example.com")
    assert "added as VIEWER" in run("members", "add", "bob@example.com", "-w", "the-lab", "--role", "viewer").stdout
    assert "now ADMIN" in run("members", "role", "bob@example.com", "admin", "-w", "the-lab").stdout
    assert len(json.loads(run("members", "list", "-w", "the-lab", "--json").stdout)) == 2
    assert run("members", "remove", "bob@example.com", "-w", "the-lab").returncode == 0
    issued = json.loads(run("keys", "issue", owner, "laptop", "--scope", "evaluation:read", "--json").stdout)
    assert issued["token"].startswith(issued["prefix"])
    listed = run("keys", "list", "ada@example.com").stdout
    assert issued["prefix"] in listed
    assert issued["token"] not in listed
    assert run("keys", "revoke", issued["id"]).returncode == 0
    assert run("users", "delete", "ada@example.com").returncode == 0
    assert run("users", "restore", owner).stdout.strip() == "restored ada@example.com"


BAD = {
    "malformed id": (("tree", "nonsense", "-w", "test"), "was not found"),
    "unknown workspace": (("members", "list", "-w", "nowhere"), "Workspace nowhere was not found"),
    "no workspace": (("members", "list"), "workspace"),
    "unknown user": (("users", "delete", "nobody@example.com"), "User nobody@example.com was not found"),
    "malformed e-mail": (("users", "create", "nonsense"), "e-mail"),
}


@pytest.mark.fault
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(run: Run, case: str) -> None:
    """One line on stderr that says what to do, exit code 1, no traceback."""
    arguments, said = BAD[case]
    failed = run(*arguments)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert said in failed.stderr
    assert len(failed.stderr.splitlines()) == 1


@pytest.mark.fault
@pytest.mark.requirement("TN-061")
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:hunter2@127.0.0.1:9/x", "cannot be reached"),
        ("mysql://u:hunter2@127.0.0.1/x", "DATABASE_URL"),
        ("nonsense hunter2", "DATABASE_URL"),
    ],
)
def test_a_wrong_address_is_one_line(url: str, said: str) -> None:
    """A refused host, another kind of database, no address at all: named without the password."""
    for arguments in (("users", "list"), ("migrate", "status"), ("migrate", "up")):
        failed = call(*arguments, DATABASE_URL=url)
        assert failed.returncode == 1
        assert said in failed.stderr
        assert "hunter2" not in failed.stderr
        assert "Traceback" not in failed.stderr


@pytest.mark.fault
def test_an_unknown_database_and_a_schema_that_is_behind(committed_db: Database) -> None:
    """The server is there: a database that is not, and one that was never migrated."""
    for name, said in (("nowhere", "nowhere"), ("postgres", "stemmadb migrate up")):
        failed = call("users", "list", DATABASE_URL=committed_db.url.set(database=name).render_as_string(hide_password=False))
        assert failed.returncode == 1
        assert said in failed.stderr
        assert len(failed.stderr.splitlines()) == 1


@pytest.mark.fault
def test_a_folder_that_cannot_be_used_is_one_line(data_dir: Path) -> None:
    """The data folder is a file: one line that names it."""
    data_dir.parent.joinpath("file").write_text("not a folder")
    failed = call("users", "list", STEMMADB_DATA_DIR=str(data_dir.parent / "file"))
    assert failed.returncode == 1
    assert str(data_dir.parent / "file") in failed.stderr
    assert "Traceback" not in failed.stderr
