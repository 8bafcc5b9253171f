"""Tables in notebooks: escaped, bounded, of what is loaded, and the same of a closed session."""

import pickle
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from tests.evaluation.version_trees import make
from tests.shown_tables import NASTY, table_of

from stemmadb._display import printable
from stemmadb.accounts.entities import User
from stemmadb.database import Database
from stemmadb.evaluation import definitions
from stemmadb.evaluation.entities import Definition
from stemmadb.notebook import Table
from stemmadb.paging import Page
from stemmadb.reports import CheckReport, Finding
from stemmadb.testing import count_queries


class Point(NamedTuple):
    """A row of no entity."""

    name: str
    size: float | None = None
    nothing: None = None


@pytest.mark.offline
def test_a_table_is_a_list() -> None:
    """It compares, pickles and slices as one; a notebook shows its fields as columns, without those that hold nothing."""
    points = Table([Point("a", 0.123456), Point(NASTY)])
    assert points == [Point("a", 0.123456), Point(NASTY)]
    assert pickle.loads(pickle.dumps(points)) == points
    found = table_of(points)
    assert found.said == ["name", "size", "a", "0.1235", printable(NASTY)]
    assert table_of(Table()).said == ["no rows"]
    assert table_of(Table([1, None, [NASTY]])).said[:2] == ["value", "1"]


@pytest.mark.offline
def test_tables_are_bounded() -> None:
    """In rows, in the text of a cell and in all, however much there is; and say what is left out."""
    found = table_of(Table({"number": number} for number in range(10_000)))
    assert found.said[-1] == "… and 9,500 more"
    found = table_of(Table(["&" * 10**6]))
    assert found.said[1:] == ["&" * 400 + "…"]
    wide = Table({f"column {place}": "&" * 500 for place in range(20)} for _ in range(500))
    assert len(wide._repr_html_()) < 600_000
    assert table_of(wide).said[-1].startswith("… and 4")


@pytest.mark.offline
def test_cells() -> None:
    """Times say their zone, digests are cut, numbers are rounded, and what is nested is JSON."""
    found = table_of(
        Table([{"at": datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC), "id": UUID(int=1), "n": 12345, "is": True, "in": {"a": [1.5]}}])
    )
    assert found.said[5:] == ["2026-05-04 03:02:01Z", str(UUID(int=1)), "12,345", "True", '{"a": [1.5]}']


def test_entities_show_what_is_loaded(session: Session) -> None:
    """No statement, no body, no secret; also when the row was expired and the session is gone."""
    definition = make(session, NASTY)
    user = User(email="ada@example.com", password_hash="$argon2id$secret")
    session.add(user)
    session.flush()
    listed = Table(definitions.ancestors(session, definition.id, include_self=True))
    session.expire(user, ["email"])
    with count_queries() as sent:
        found = table_of(definition)
        assert {"field", "value", "Definition", printable(NASTY), str(definition.id)} <= set(found.said)
        assert "content" not in found.said
        assert not {"email", "password_hash", "$argon2id$secret"} & set(table_of(user).said)
        assert "workspace_id" not in table_of(listed).said
    assert sent.count == 0
    session.expunge_all()
    assert printable(NASTY) in table_of(definition).said
    assert str(definition.id) in table_of(Table([definition])).said


def test_pages(session: Session) -> None:
    """Entities and rows of a statement; the caption says how many there are."""
    make(session, NASTY)
    found = table_of(definitions.list_all(session, with_total=True))
    assert found.said[0] == "1 of 1 rows; the last page"
    assert printable(NASTY) in found.said
    rows = session.execute(select(Definition.name, Definition.depth)).all()
    assert table_of(Page(list(rows), has_more=True)).said == ["1 rows; there are more", "name", "depth", printable(NASTY), "0"]


def test_findings(db: Database) -> None:
    """A report says in words whether it is good."""
    assert table_of(CheckReport([Finding("x", "error", NASTY, "wrong")])).said[0].startswith("not ok: PostgreSQL")
    assert table_of(CheckReport()).said[0].startswith("ok: PostgreSQL")
