"""stemmadb documents: what its commands print, and how they leave."""

import io
import json
import sys
from collections.abc import Callable, Iterator
from subprocess import CompletedProcess
from typing import Any

import pytest
from sqlalchemy import Engine, text
from tests.test_cli import call

from stemmadb import _document_commands, documents, errors
from stemmadb.database import Database
from stemmadb.documents import UpgradeReport
from stemmadb.evaluation.documents import RunConfig, TranscriptMetrics
from stemmadb.testing import make_workspace

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def run(committed_db: Database, owner: Engine) -> Run:
    """The command line on a database with workspaces: two of version 0, one that cannot be read, one of a newer release."""
    url = committed_db.url.render_as_string(hide_password=False)
    for settings in ('{"locale": "de"}', "{}", '{"locale": 7}', '{"schema_version": 2}'):
        id = make_workspace(committed_db)
        with owner.begin() as connection:
            connection.execute(
                text("UPDATE stemma.workspaces SET settings = CAST(:settings AS jsonb) WHERE id = :id"), {"settings": settings, "id": id}
            )
    return lambda *arguments, **environment: call("documents", *arguments, DATABASE_URL=url, **environment)


def test_status(run: Run) -> None:
    """A table of every column, or one as JSON."""
    shown = run("status")
    assert shown.returncode == 0
    line = next(line for line in shown.stdout.splitlines() if "workspaces.settings" in line)
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells == ["workspaces.settings", "WorkspaceSettings 1", "0: 3, 2: 1", "3", "1", "", ""]
    assert "transcripts.metrics" in shown.stdout
    (found,) = json.loads(run("status", "workspaces.settings", "--json").stdout)
    assert found == {
        "column": "workspaces.settings",
        "document": "WorkspaceSettings",
        "newest_version": 1,
        "write_version": 1,
        "versions": {"0": 3, "2": 1},
        "malformed": 0,
        "without": 0,
        "old": 3,
        "newer": 1,
    }


def test_upgrade(run: Run) -> None:
    """A dry run says what a run would do; a run does it, and says what it left."""
    said = (
        "2 rows of workspaces.settings to version 1; 1 cannot be read and stay as they are; 1 are of a newer release and stay as they are\n"
    )
    assert run("upgrade", "workspaces.settings", "--dry-run").stdout == f"would upgrade {said}"
    assert run("upgrade", "workspaces.settings", "--batch", "1", "--rate", "1000").stdout == f"upgraded {said}"
    report = json.loads(run("upgrade", "workspaces.settings", "--json").stdout)
    assert (report["upgraded"], report["corrupt"], report["newer"], report["left"], report["version"]) == (0, 1, 1, 0, 1)


@pytest.mark.race
def test_rows_that_others_hold_are_exit_code_1(run: Run, owner: Engine) -> None:
    """So that a script runs it again."""
    with owner.begin() as connection:
        connection.execute(text("SELECT FROM stemma.workspaces FOR UPDATE"))
        done = run("upgrade", "workspaces.settings")
    assert done.returncode == 1
    assert "3 are still old, because others held them: run it again" in done.stdout


@pytest.mark.fault
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("status", "nonsense"), "is no column of documents: use one of oauth_accounts.profile"),
        (("upgrade", "definitions.content"), "content_hash is the hash of what is stored"),
        (("upgrade", "audit_logs.after"), "only added, never changed"),
        (("upgrade", "workspaces.settings", "--rate", "0"), "rate is a number of rows per second above 0"),
        (("schema", "Nonsense"), "no document is called 'Nonsense'"),
    ],
)
def test_what_cannot_be_done_is_one_line(run: Run, arguments: tuple[str, ...], said: str) -> None:
    """On stderr, with exit code 1."""
    failed = run(*arguments)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert said in failed.stderr
    assert len(failed.stderr.splitlines()) == 1


def test_a_setting_that_cannot_be_applied_is_one_line(run: Run) -> None:
    """It names the variable."""
    failed = run("status", STEMMADB_WRITE_VERSIONS="RunConfig:9")
    assert failed.returncode == 1
    assert failed.stderr == "stemmadb: STEMMADB_WRITE_VERSIONS: RunConfig has versions up to 1: it cannot be written at 9\n"


@pytest.fixture
def _written_at_0() -> Iterator[None]:
    """As if a release had a step down for metrics; steps cannot be taken away by other means."""
    TranscriptMetrics.downcast(1)(lambda raw: raw)
    yield
    documents.set_write_version(TranscriptMetrics, None)
    del TranscriptMetrics._steps_down[1]


@pytest.mark.usefixtures("_written_at_0")
def test_status_says_what_is_written(run: Run) -> None:
    """Where an older version is written."""
    assert "TranscriptMetrics 2, written at 1" in run("status", STEMMADB_WRITE_VERSIONS="TranscriptMetrics:1").stdout


@pytest.mark.offline
def test_schema() -> None:
    """Of one document, and of all; without a database."""
    one = call("documents", "schema", "RunConfig", DATABASE_URL="postgresql://u@127.0.0.1:9/x")
    assert json.loads(one.stdout) == documents.json_schema(RunConfig)
    every = json.loads(call("documents", "schema").stdout)
    assert set(every) == set(documents.registered_documents())
    assert every["RunConfig"] == documents.json_schema(RunConfig)


class Terminal(io.StringIO):
    """Somebody who looks."""

    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal(committed_db: Database, owner: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts the rows that are done, of those that were old."""
    for _ in range(3):
        make_workspace(committed_db)
    with owner.begin() as connection:
        connection.exec_driver_sql("UPDATE stemma.workspaces SET settings = '{}'")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with _document_commands._bar(committed_db, "workspaces.settings") as progress:
        assert progress is not None
        documents.upgrade(committed_db, "workspaces.settings", batch=2, progress=progress)
    assert "workspaces.settings" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()


def test_interrupted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C says that the work is kept, and leaves with the exit code of an interrupted program."""

    def interrupt(*_arguments: Any, **_options: Any) -> UpgradeReport:
        raise KeyboardInterrupt

    monkeypatch.setattr(documents, "upgrade", interrupt)
    left = run("upgrade", "workspaces.settings")
    assert left.returncode == 130
    assert left.stderr == "stemmadb: stopped: what was upgraded stays; run the command again to go on\n"


@pytest.mark.fault
def test_a_server_that_goes_away(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line."""

    def fail(*_arguments: Any, **_options: Any) -> UpgradeReport:
        raise errors.ConnectionLostError("gone", False)

    monkeypatch.setattr(documents, "upgrade", fail)
    assert run("upgrade", "workspaces.settings").returncode == 1
