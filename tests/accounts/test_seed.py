"""Seeded people: with the password of the environment, or with none."""

import sys

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from stemmadb import seeding
from stemmadb.accounts import users
from stemmadb.database import Database
from stemmadb.errors import SeedError

PASSWORD = "a password of the environment"


def hashes(db: Database) -> dict[str, str | None]:
    """What the people of the seeds have."""
    with db.session() as session:
        rows = session.execute(text("SELECT email, password_hash FROM stemma.users WHERE email IN ('dev@valuerank.ai', 'admin@lumi.com')"))
        return {row[0]: row[1] for row in rows}


@pytest.mark.requirement("EC-141", "VR-098")
def test_people_get_the_password_of_the_environment(committed_db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashed, each with a salt of its own; whoever has one keeps it when the seeds run again; the roles are there."""
    monkeypatch.setenv("STEMMADB_SEED_PASSWORD", PASSWORD)
    seeding.run(committed_db, "dev")
    first = hashes(committed_db)
    assert len(set(first.values())) == 2
    assert all((value or "").startswith("$argon2id$") for value in first.values())
    with committed_db.session() as session:
        admin = users.verify_password(session, "admin@lumi.com", SecretStr(PASSWORD))
        assert admin is not None
        assert [role.name for role in users.get_with_roles(session, admin.id).roles] == ["admin"]
        own = users.set_password(session, admin.id, SecretStr("a password of their own"))
        session.execute(text("DELETE FROM stemma.stemma_seed_history"))
    seeding.run(committed_db, "dev")
    with committed_db.session() as session:
        assert users.verify_password(session, own.email, SecretStr("a password of their own")) is not None
    assert hashes(committed_db)["dev@valuerank.ai"] == first["dev@valuerank.ai"]


@pytest.mark.requirement("EC-141")
@pytest.mark.parametrize("reason", ["not set", "no extra", "another profile"])
def test_else_they_have_none(committed_db: Database, monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    """Where the variable is not set, the extra is not installed, or suites would wait for it."""
    if reason != "not set":
        monkeypatch.setenv("STEMMADB_SEED_PASSWORD", PASSWORD)
    if reason == "no extra":
        monkeypatch.setitem(sys.modules, "argon2", None)
    seeding.run(committed_db, "test" if reason == "another profile" else "dev")
    assert hashes(committed_db) == {"dev@valuerank.ai": None, "admin@lumi.com": None}


def test_a_short_password_is_refused(committed_db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is made, and the message does not repeat it."""
    monkeypatch.setenv("STEMMADB_SEED_PASSWORD", "hunter2")
    with pytest.raises(SeedError) as caught:
        seeding.run(committed_db, "dev")
    assert "hunter2" not in str(caught.value) + repr(caught.value)
    assert hashes(committed_db) == {}
