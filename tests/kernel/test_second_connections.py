"""What is written beside the caller's transaction is there whatever becomes of it, and makes nobody wait for connections."""

import time
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from stemmadb import Entity, _apart, connect
from stemmadb.accounts import api_keys, users
from stemmadb.accounts.data import IssuedApiKey
from stemmadb.database import Database
from stemmadb.errors import PoolTimeoutError
from stemmadb.settings import Settings
from stemmadb.testing import make_workspace, run_together

ADD = "INSERT INTO stemma.users (email) VALUES (:email) RETURNING id"


def email() -> str:
    """An address that nobody has."""
    return f"{uuid4().hex}@example.com"


@pytest.fixture
def issued(committed_db: Database) -> IssuedApiKey:
    """A key that was never used."""
    with committed_db.session() as session:
        return api_keys.issue(session, users.create(session, email()).id, "k")


def last_use(db: Database, issued: IssuedApiKey) -> Any:
    """When the key was used."""
    with db.session() as session:
        return api_keys.get(session, issued.key.id).last_used_at


@pytest.mark.parametrize(
    "options", [{"read_only": True}, {"isolation": "serializable"}, {"read_only": True, "isolation": "repeatable read"}]
)
def test_what_the_session_was_told_does_not_hold_apart(committed_db: Database, issued: IssuedApiKey, options: dict[str, Any]) -> None:
    """A session that only reads verifies a key, and the use is noted."""
    with committed_db.session(**options) as session:
        api_keys.verify(session, issued.token)
    assert last_use(committed_db, issued) is not None


def test_a_session_of_all_workspaces_writes_apart_as_the_application(committed_db: Database, issued: IssuedApiKey) -> None:
    """stemma_maintenance may only read."""
    with committed_db.all_workspaces(reason="test") as session:
        api_keys.verify(session, issued.token)
    assert last_use(committed_db, issued) is not None


def test_of_several_binds_the_one_of_our_entities_is_written_to(committed_db: Database, issued: IssuedApiKey) -> None:
    """In a host's session with tables elsewhere."""
    engine = create_engine(committed_db.url)
    with Session(binds={Entity: engine}) as session:
        api_keys.verify(session, issued.token)
        assert _apart.settle(session, ADD, {"email": email()}) is not None
        session.rollback()
    engine.dispose()
    assert last_use(committed_db, issued) is not None


@pytest.mark.race
def test_a_full_pool_of_callers_that_write_apart_does_not_stop(committed_db: Database, issued: IssuedApiKey) -> None:
    """Each of two callers holds one of two connections and would wait five seconds for the other's: both are through at once."""
    url = committed_db.url.render_as_string(hide_password=False)
    with connect(url, settings=Settings(pool_max=2, pool_timeout_s=5)) as db:

        def verify(_: int) -> float:
            with db.session() as session:
                session.execute(text("SELECT pg_sleep(0.1)"))
                began = time.monotonic()
                api_keys.verify(session, issued.token)
                return time.monotonic() - began

        results = run_together(2, verify)
    assert all(isinstance(result, float) and result < 1 for result in results), results


def test_what_must_be_written_is_written_in_the_callers_transaction_then(committed_db: Database) -> None:
    """Without a second connection settle() takes the first; execute() says so."""
    address = email()
    with connect(committed_db.url.render_as_string(hide_password=False), settings=Settings(pool_max=2, pool_timeout_s=5)) as db:
        with db.session() as session, db.session() as other:
            other.execute(text("SELECT 1"))
            session.execute(text("SELECT 1"))
            with pytest.raises(PoolTimeoutError):
                _apart.execute(session, ADD, {"email": email()})
            assert _apart.settle(session, ADD, {"email": address}) is not None
        with db.session() as session:
            assert users.find_by_email(session, address) is not None


def test_a_caller_that_holds_nothing_waits_as_long_as_the_pool_allows(committed_db: Database) -> None:
    """The bound is for second connections only."""
    make_workspace(committed_db)
    with connect(committed_db.url.render_as_string(hide_password=False), settings=Settings(pool_max=2, pool_timeout_s=0.7)) as db:
        with db.session() as one, db.session() as two, db.session() as session:
            one.execute(text("SELECT 1"))
            two.execute(text("SELECT 1"))
            began = time.monotonic()
            with pytest.raises(PoolTimeoutError):
                _apart.execute(session, ADD, {"email": email()})
            assert time.monotonic() - began > 0.6
