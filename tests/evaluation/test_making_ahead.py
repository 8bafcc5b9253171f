"""Rows are made while the statement for those before is executed, and not while it is sent."""

import threading
from collections.abc import Sequence

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from stemmadb.evaluation._making_ahead import made_ahead


def test_the_next_rows_are_made_once_the_statement_is_sent(session: Session) -> None:
    """Not before, although the thread is free; and before the caller asks for them."""
    second = threading.Event()

    def make(group: Sequence[int]) -> list[int]:
        if group[0] == 3:
            second.set()
        return list(group)

    made = made_ahead(session, iter([(1, 2), (3,)]), make)
    assert next(made) == [1, 2]
    assert not second.wait(0.2)
    session.execute(text("SELECT 1"))
    assert second.wait(20)
    assert list(made) == [[3]]


def test_the_first_of_several_groups_is_divided(session: Session) -> None:
    """Into 100, 300 and the rest; a single one is not."""
    groups = [range(1000), range(1000), range(10)]
    assert [len(part) for part in made_ahead(session, iter(groups), list)] == [100, 300, 600, 1000, 10]
    assert [len(part) for part in made_ahead(session, iter([range(250), range(5)]), list)] == [100, 150, 5]
    assert [len(part) for part in made_ahead(session, iter(groups[:1]), list)] == [1000]
    assert list(made_ahead(session, iter([]), list)) == []


def test_a_connection_that_is_gone_leaves_no_thread_waiting(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller learns of it, and the thread ends."""

    def gone(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(session, "connection", gone)
    with pytest.raises(ZeroDivisionError):
        list(made_ahead(session, iter([(1,), (2,)]), list))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("stemmadb-rows")]
