"""Stored secrets come under another key: all of them, none lost, whoever writes and whatever is killed meanwhile."""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text
from tests.kernel import rotated_secrets
from tests.test_cli import call

from stemmadb import _ciphertexts, secrets
from stemmadb._secrets import Place, decrypt, encrypt
from stemmadb.accounts import users
from stemmadb.accounts.data import OAuthLink
from stemmadb.database import Database
from stemmadb.errors import ConfigurationError, MissingDependencyError, PermissionDeniedError, ValidationError
from stemmadb.packs import Pack
from stemmadb.secrets import RotationReport, SecretCounts
from stemmadb.testing import make_workspace, run_together
from stemmadb.workspaces import providers
from stemmadb.workspaces.providers import AIProvider

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("STEMMADB_TEST_KILLS", "4"))


def key(name: str) -> str:
    return f"{name}:{base64.b64encode(name[:1].encode() * 32).decode()}"


OLD, NEW = key("old"), key("new")
TOTP = "users.two_factor_secret"


@pytest.fixture(autouse=True)
def _old_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", OLD)


def secret_of(number: int) -> str:
    return f"SECRET{number}"


def make_people(owner: Engine, count: int) -> list[UUID]:
    """People with a secret of a second factor each, under the old key."""
    with owner.begin() as connection:
        ids = list(
            connection.scalars(
                text(
                    "INSERT INTO stemma.users (email) SELECT 'u' || n || '@example.com' FROM generate_series(1, :count) AS n RETURNING id"
                ),
                {"count": count},
            )
        )
        rows = [{"id": id, "stored": encrypt(secret_of(number), Place("users", "two_factor_secret", id))} for number, id in enumerate(ids)]
        connection.execute(
            text(
                "UPDATE stemma.users SET two_factor_secret = :stored, two_factor_enabled = true, updated_at = '2001-01-01' WHERE id = :id"
            ),
            rows,
        )
    return ids


def stored(owner: Engine) -> dict[UUID, str]:
    with owner.connect() as connection:
        rows = connection.execute(text("SELECT id, two_factor_secret FROM stemma.users WHERE two_factor_secret IS NOT NULL"))
        return {row.id: row.two_factor_secret for row in rows}


def opened(owner: Engine) -> dict[UUID, str]:
    return {id: decrypt(value, Place("users", "two_factor_secret", id)) for id, value in stored(owner).items()}


# ---------------------------------------------------------------------------------------------------------------- as a whole


@pytest.mark.requirement("AD-026")
def test_every_kind_of_secret_is_rotated(committed_db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Provider keys of every workspace, OAuth tokens and secrets of second factors; afterwards the old key is needed no more."""
    configs = []
    for name in ("a", "b"):
        workspace = make_workspace(committed_db)
        with committed_db.session(workspace) as session:
            configs.append((workspace, providers.upsert(session, AIProvider.OPENAI, api_key=SecretStr(f"sk-{name}-0123456789")).id))
    with committed_db.session() as session:
        user = users.create(session, "ada@example.com")
        users.enable_two_factor(session, user.id, SecretStr("JBSWY3DP"))
        link = OAuthLink(provider="github", provider_account_id="1", access_token=SecretStr("access"), refresh_token=SecretStr("refresh"))
        account = users.link_oauth(session, user.id, link)
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", f"{NEW},{OLD}")
    names = (TOTP, "oauth_accounts.access_token", "oauth_accounts.refresh_token", "ai_provider_configs.api_key")
    assert [(each.column, each.keys) for each in secrets.status(committed_db)] == [
        (name, {"old": 2 if name.endswith("api_key") else 1}) for name in names
    ]
    planned = secrets.rotate(committed_db, dry_run=True)
    assert [(report.rotated, report.dry_run, report.complete) for report in planned] == [(1, True, True)] * 3 + [(2, True, True)]
    assert secrets.status(committed_db, TOTP) == (SecretCounts(TOTP, {"old": 1}),)
    done = secrets.rotate(committed_db)
    assert [(report.column, report.key, report.rotated, report.complete) for report in done] == [
        (name, "new", 2 if name.endswith("api_key") else 1, True) for name in names
    ]
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", NEW)
    for number, (workspace, config) in enumerate(configs):
        with committed_db.session(workspace) as session:
            assert providers.reveal_key(session, config).get_secret_value() == f"sk-{'ab'[number]}-0123456789"
    with committed_db.session() as session:
        assert users.get_two_factor_secret(session, user.id).get_secret_value() == "JBSWY3DP"
        tokens = users.get_oauth_tokens(session, account.id)
        assert (tokens.access_token, tokens.refresh_token) == (SecretStr("access"), SecretStr("refresh"))
    assert [report.rotated for report in secrets.rotate(committed_db)] == [0, 0, 0, 0]


def test_no_row_looks_changed(committed_db: Database, owner: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """``updated_at`` stays, since the secret is the same; in small batches each row is written once."""
    make_people(owner, 7)
    with owner.connect() as connection:
        before = connection.scalars(text("SELECT updated_at FROM stemma.users ORDER BY id")).all()
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", f"{NEW},{OLD}")
    told: list[RotationReport] = []
    (report,) = secrets.rotate(committed_db, TOTP, batch=3, progress=told.append)
    assert report.rotated == 7
    assert [each.rotated for each in told[:3]] == [3, 6, 7]
    with owner.connect() as connection:
        assert connection.scalars(text("SELECT updated_at FROM stemma.users ORDER BY id")).all() == before
    assert sorted(opened(owner).values()) == sorted(secret_of(number) for number in range(7))


def test_the_audit_trail_holds_no_ciphertext(committed_db: Database, owner: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """That a secret was encrypted anew is on record, row by row, and neither the text of before nor that of after is."""
    make_people(owner, 2)
    before = stored(owner)
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", f"{NEW},{OLD}")
    secrets.rotate(committed_db, TOTP)
    with committed_db.all_workspaces(reason="test") as session:
        trail = [str(row) for row in session.execute(text("SELECT entity, action, before, after FROM stemma.audit_logs"))]
    assert sum("two_factor_secret" in row and "'UPDATE'" in row for row in trail) >= 2
    for value in (*before.values(), *stored(owner).values()):
        assert value not in "".join(trail)


# ------------------------------------------------------------------------------------------------------------ what stays


@pytest.mark.fault
def test_what_no_key_opens_is_told_and_left(
    committed_db: Database, owner: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Under an unknown key, moved here from another row, altered, no ciphertext: each stays byte for byte; the rest is rotated."""
    ids = make_people(owner, 6)
    first = stored(owner)
    planted = {
        ids[0]: first[ids[0]].replace("v1:old:", "v1:lost:"),
        ids[1]: first[ids[5]],
        ids[2]: first[ids[2]][:-8] + "AAAAAAA=",
        ids[3]: "plain",
    }
    with owner.begin() as connection:
        for id, value in planted.items():
            connection.execute(text("UPDATE stemma.users SET two_factor_secret = :value WHERE id = :id"), {"id": id, "value": value})
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", f"{NEW},{OLD}")
    assert secrets.status(committed_db, TOTP) == (SecretCounts(TOTP, {"lost": 1, "old": 4}, malformed=1),)
    (report,) = secrets.rotate(committed_db, TOTP, batch=2)
    assert (report.rotated, report.unknown, report.unreadable, report.left, report.complete) == (2, {"lost": 1}, 3, 0, False)
    after = stored(owner)
    assert {id: after[id] for id in planted} == planted
    assert all(after[id].startswith("v1:new:") for id in ids[4:])
    assert not any(value in caplog.text for value in planted.values())
    assert "SECRET" not in caplog.text


@pytest.mark.fault
@pytest.mark.requirement("AD-026")
def test_a_ciphertext_does_not_become_another_rows(committed_db: Database, owner: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rotation does not launder what was copied into a row: it does not open there, before and after."""
    ids = make_people(owner, 2)
    with owner.begin() as connection:
        connection.execute(
            text("UPDATE stemma.users SET two_factor_secret = :value WHERE id = :id"), {"id": ids[0], "value": stored(owner)[ids[1]]}
        )
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", f"{NEW},{OLD}")
    (report,) = secrets.rotate(committed_db, TOTP)
    assert (report.rotated, report.unreadable) == (1, 1)
    with committed_db.session() as session, pytest.raises(ConfigurationError):
        users.get_two_factor_secret(session, ids[0])


# ------------------------------------------------------------------------------------------------------------------- races


@pytest.mark.race
def test_rows_that_others_hold_are_left(committed_db: Database, owner: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for nobody, says how many are left, and takes them the next time."""
    ids = make_people(owner, 4)
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", f"{NEW},{OLD}")
    with owner.begin() as connection:
        connection.execute(text("SELECT FROM stemma.users WHERE id = ANY(:ids) FOR UPDATE"), {"ids": ids[:2]})
        (report,) = secrets.rotate(committed_db, TOTP)
    assert (report.rotated, report.left, report.complete) == (2, 2, False)
    (report,) = secrets.rotate(committed_db, TOTP)
    assert (report.rotated, report.left, report.complete) == (2, 0, True)


@pytest.mark.race
def test_writers_beside_it_lose_nothing(committed_db: Database, owner: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """People change their secrets while it runs, some processes with the ring of before: what each wrote last is what is there."""
    ids = make_people(owner, 60)
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", f"{NEW},{OLD}")
    last = {id: secret_of(number) for number, id in enumerate(ids)}
    stop, written = threading.Event(), [0]

    def write(worker: int) -> None:
        chance = random.Random(worker)
        mine = ids[worker::3]
        # Of an older process the newest key is the old one.
        keys = None if worker else tuple(reversed(_ring()))
        while not stop.is_set():
            id = chance.choice(mine)
            secret = f"W{worker}N{written[0]}"
            value = encrypt(secret, Place("users", "two_factor_secret", id), keys)
            with owner.begin() as connection:
                connection.execute(text("UPDATE stemma.users SET two_factor_secret = :value WHERE id = :id"), {"id": id, "value": value})
            last[id] = secret
            written[0] += 1

    def rotate(_: int) -> None:
        try:
            # As long as it takes for writers to have been everywhere.
            while written[0] < 150:
                secrets.rotate(committed_db, TOTP, batch=5)
        finally:
            stop.set()

    results = run_together(4, lambda number: rotate(number) if number == 3 else write(number))
    assert [result for result in results if result is not None] == []
    assert opened(owner) == last
    (report,) = secrets.rotate(committed_db, TOTP)
    assert report.complete
    assert opened(owner) == last
    assert {value.split(":")[1] for value in stored(owner).values()} == {"new"}


def _ring() -> tuple[tuple[str, object], ...]:
    from stemmadb._secrets import secret_keys

    return secret_keys()


@pytest.mark.race
def test_several_at_once_rotate_each_row_once(committed_db: Database, owner: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four rotations share the work."""
    make_people(owner, 40)
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", f"{NEW},{OLD}")
    results = run_together(4, lambda _: secrets.rotate(committed_db, TOTP, batch=3)[0].rotated)
    assert sum(result for result in results if isinstance(result, int)) == 40, results
    assert sorted(opened(owner).values()) == sorted(secret_of(number) for number in range(40))


@pytest.mark.fault
@pytest.mark.slow
def test_killed_and_run_again(committed_db: Database, owner: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the middle of a batch, again and again, it leaves each row under one key or the other; at last all are under the new."""
    make_people(owner, KILLS * 20 + 20)
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", f"{NEW},{OLD}")
    expected = opened(owner)
    url = committed_db.url.render_as_string(hide_password=False)

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", rotated_secrets.__file__, url, "5"]
        return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)

    chance = random.Random(KILLS)
    for _ in range(KILLS):
        process = start()
        assert process.stdout is not None
        for _ in range(chance.randint(1, 4)):
            process.stdout.readline()
        time.sleep(chance.uniform(0, 0.006))
        process.kill()
        assert process.wait() == -9
        process.stdout.close()
        assert opened(owner) == expected
    assert {value.split(":")[1] for value in stored(owner).values()} == {"old", "new"}
    # The server may still be busy with the last batch of a dead client.
    for _ in range(20):
        out, _ = start().communicate(timeout=60)
        if out.splitlines()[-1] == "complete True":
            break
    assert opened(owner) == expected
    assert {value.split(":")[1] for value in stored(owner).values()} == {"new"}


# ---------------------------------------------------------------------------------------------------------------- refusals


def test_refusals(committed_db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """No keys, no extra, no such column, a batch out of bounds: nothing is done."""
    with pytest.raises(ValidationError, match=TOTP):
        secrets.rotate(committed_db, "users.email")
    with pytest.raises(ValidationError, match=TOTP):
        secrets.status(committed_db, "nonsense")
    for batch in (0, 10_001):
        with pytest.raises(ValidationError, match="batch"):
            secrets.rotate(committed_db, batch=batch)
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", "")
    with pytest.raises(ConfigurationError, match="STEMMADB_SECRET_KEYS"):
        secrets.rotate(committed_db)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(MissingDependencyError):
        secrets.rotate(committed_db)


def test_without_the_right(committed_db: Database) -> None:
    """A host's engine reaches one workspace only."""
    from stemmadb import use

    with pytest.raises(PermissionDeniedError):
        secrets.status(use(committed_db.engine))


@pytest.mark.offline
def test_generate_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """32 random bytes under an id, as the setting takes them; another each time."""
    made = secrets.generate_key("2027a")
    assert made.startswith("2027a:")
    assert len(base64.b64decode(made.partition(":")[2])) == 32
    assert secrets.generate_key("2027a") != made
    assert secrets.generate_key().startswith("k20")
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", made)
    assert _ciphertexts.key_names() == ["2027a"]
    for id in ("", "a:b", "a,b", "ä", "a b"):
        with pytest.raises(ValidationError):
            secrets.generate_key(id)


@pytest.mark.offline
def test_a_pack_declares_columns_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in a declaration is told before anything is read."""
    monkeypatch.setattr(_ciphertexts, "packs", lambda: (Pack("odd", "odd", secrets=("users.nothing",)),))
    with pytest.raises(ConfigurationError, match=r"users\.nothing"):
        _ciphertexts.columns()


# ------------------------------------------------------------------------------------------------------------ command line


def test_the_commands(committed_db: Database, owner: Engine) -> None:
    """status as a table and as JSON, rotate with its exit codes, generate without a database; no secret is ever printed."""
    ids = make_people(owner, 3)
    url = committed_db.url.render_as_string(hide_password=False)
    both = {"DATABASE_URL": url, "STEMMADB_SECRET_KEYS": f"{NEW},{OLD}"}
    shown = call("secrets", "status", **both)
    assert (shown.returncode, shown.stderr) == (0, "")
    line = next(line for line in shown.stdout.splitlines() if TOTP in line)
    assert [cell.strip() for cell in line.strip("│").split("│")] == [TOTP, "old", "3", "older"]
    said = json.loads(call("secrets", "status", TOTP, "--json", **both).stdout)
    assert said == {"keys": ["new", "old"], "columns": [{"column": TOTP, "keys": {"old": 3}, "malformed": 0}]}
    planned = call("secrets", "rotate", TOTP, "--dry-run", **both)
    assert (planned.returncode, planned.stdout) == (0, f"{TOTP}: would encrypt 3 with the key new\n")
    with owner.begin() as connection:
        connection.execute(text("UPDATE stemma.users SET two_factor_secret = 'v1:lost:AAAA' WHERE id = :id"), {"id": ids[0]})
    done = call("secrets", "rotate", TOTP, "--batch", "1", **both)
    assert done.returncode == 1
    assert done.stdout == f"{TOTP}: encrypted 2 with the key new; 1 are under the key lost, which is not known, and stay as they are\n"
    (report,) = json.loads(call("secrets", "rotate", TOTP, "--json", **both).stdout)
    assert (report["rotated"], report["unknown"], report["complete"]) == (0, {"lost": 1}, False)
    failed = call("secrets", "rotate", DATABASE_URL=url)
    assert (failed.returncode, failed.stdout, len(failed.stderr.splitlines())) == (1, "", 1)
    made = json.loads(call("secrets", "generate", "--id", "k9", "--json").stdout)
    assert (made["id"], made["key"].partition(":")[0]) == ("k9", "k9")
    assert call("secrets", "generate").stdout.startswith("k20")
    assert call("secrets", "generate", "--id", "a b").returncode == 1


def test_progress_on_a_terminal(committed_db: Database, owner: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody looks a bar is drawn, on stderr, and the result stays as it is."""
    from stemmadb import _secret_commands

    make_people(owner, 3)
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", f"{NEW},{OLD}")
    monkeypatch.setattr(_secret_commands.sys.stderr, "isatty", lambda: True, raising=False)
    with _secret_commands._bar(committed_db, TOTP) as progress:
        assert progress is not None
        (report,) = secrets.rotate(committed_db, TOTP, batch=1, progress=progress)
    assert report.rotated == 3


def test_stopped_by_hand(committed_db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says what stays, and the exit code of an interrupt."""

    def interrupt(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(secrets, "rotate", interrupt)
    stopped = call("secrets", "rotate", DATABASE_URL=committed_db.url.render_as_string(hide_password=False), STEMMADB_SECRET_KEYS=NEW)
    assert stopped.returncode == 130
    assert "run the command again" in stopped.stderr
