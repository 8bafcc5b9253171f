"""Walks through the most liked reviews: of one moment, however long they take, or refused."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session
from tests.reviews.shelves import book, many_reviews, reader, review
from typer.testing import CliRunner

from stemmadb._cursors import write_cursor
from stemmadb.aio.reviews import reviews as areviews
from stemmadb.cli import application
from stemmadb.database import Database
from stemmadb.errors import ExpiredCursorError, InvalidCursorError, ValidationError
from stemmadb.reviews import reviews
from stemmadb.reviews._popular import _FINGERPRINT, _Walk
from stemmadb.testing import count_queries

_SHOWN = text("SELECT id FROM stemma.reviews WHERE status = 'PUBLISHED' ORDER BY like_count DESC, id DESC")
_MOVES = {
    "like": "UPDATE stemma.reviews SET like_count = like_count + 1 WHERE id = :id",
    "leap": "UPDATE stemma.reviews SET like_count = (like_count * 7 + 3) % 10 WHERE id = :id",
    "hide": "UPDATE stemma.reviews SET status = 'DELETED', deleted_at = now() WHERE id = :id",
    "show": "UPDATE stemma.reviews SET status = 'PUBLISHED', deleted_at = NULL WHERE id = :id",
    "write": "INSERT INTO stemma.reviews (user_id, book_id, content, like_count) SELECT user_id, book_id, 'new', like_count + 1 "
    "FROM stemma.reviews WHERE id = :id",
    "remove": "DELETE FROM stemma.reviews WHERE id = :id",
}


def ids_of(session: Session, cursor: str | None, limit: int) -> tuple[list[UUID], str | None]:
    """The ids of a page, and where the next one begins."""
    page = reviews.feed(session, sort="popular", cursor=cursor, limit=limit)
    return [item.review.id for item in page], page.next_cursor


def shown(session: Session) -> list[UUID]:
    """What a reader sees now, in its order."""
    return list(session.scalars(_SHOWN))


def like(session: Session, id: UUID, times: int = 1) -> None:
    """As if so many had liked it, one after the other."""
    for _ in range(times):
        session.execute(text(_MOVES["like"]), {"id": id})


def values_in(cursor: str) -> list[Any]:
    """What a cursor says."""
    walk, place = _Walk.read(cursor)
    steps = [after - before for before, after in zip((walk.xmin, *walk.running), walk.running, strict=False)]
    return [*place, walk.cluster_id, walk.timeline, walk.own, walk.last_own, ",".join(map(str, (walk.xmax, walk.xmin, *steps)))]


# ---------------------------------------------------------------------------------------------------------------- one moment


class Writer:
    """Somebody with a transaction that may stay open, and with reviews that nobody else touches, so that nobody waits."""

    def __init__(self, connection: Connection, own: list[UUID], *, removes: bool) -> None:
        self.connection, self.own, self.removes = connection, own, removes

    def act(self, move: str, number: int, *, undone: bool) -> None:
        """Move one of the reviews; what is undone never was. Only one of two removes: removals wait for each other."""
        move = "hide" if move == "remove" and not self.removes else move
        nested = self.connection.begin_nested()
        self.connection.execute(text(_MOVES[move]), {"id": self.own[number % len(self.own)]})
        nested.rollback() if undone else nested.commit()


@contextlib.contextmanager
def reading(db: Database, connection: Connection | None) -> Iterator[Session]:
    """A session of its own, or one in the middle of a writer's transaction."""
    if connection is None:
        with db.session(isolation="repeatable read") as session:
            yield session
        return
    with db.session_on(connection) as session:
        yield session


@pytest.mark.property
@pytest.mark.requirement("RF-032")
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data(), limit=st.integers(1, 5), whose=st.sampled_from([None, None, 0]))
def test_a_walk_tells_of_one_moment(committed_db: Database, owner: Engine, data: st.DataObject, limit: int, whose: int | None) -> None:
    """
    Whatever moves between the pages, and whenever it commits, a walk is the list of its first page, without what has gone.

    Two transactions overlap the pages as they like; the reader is somebody else, or in the middle of one of them.
    """
    with committed_db.session() as session:
        session.execute(text("DELETE FROM stemma.reviews"))
        many_reviews(session, 12)
        session.execute(text("UPDATE stemma.reviews SET like_count = (like_count * 5) % 7"))
        ids = shown(session)
    step = st.tuples(st.sampled_from([0, 1]), st.sampled_from(sorted(_MOVES)), st.integers(0, 5), st.booleans(), st.booleans())
    with owner.connect() as one, owner.connect() as other:
        writers = [Writer(one, ids[0::2], removes=True), Writer(other, ids[1::2], removes=False)]

        def write() -> None:
            for who, move, number, undone, ends in data.draw(st.lists(step, max_size=6)):
                writers[who].act(move, number, undone=undone)
                if ends:
                    # What the reader saw in a transaction must not be taken back afterwards.
                    writers[who].connection.rollback() if undone and who != whose else writers[who].connection.commit()

        write()
        connection = None if whose is None else writers[whose].connection
        with reading(committed_db, connection) as session:
            whole = shown(session)
            found, cursor = ids_of(session, None, limit)
        staying = set(whole)
        while cursor is not None:
            write()
            with reading(committed_db, connection) as session:
                staying &= set(shown(session)) | set(found)
                more, cursor = ids_of(session, cursor, limit)
            found += more
        one.rollback()
        other.rollback()
    assert len(set(found)) == len(found)
    assert found == [id for id in whole if id in set(found)]
    assert set(found) >= staying


@pytest.mark.requirement("RF-032")
def test_items_tell_the_likes_of_now(session: Session) -> None:
    """The order is that of the first page, the numbers are today's; what was published since is left out."""
    made = [review(session).id for _ in range(4)]
    for place, id in enumerate(made):
        like(session, id, 4 - place)
    first = reviews.feed(session, sort="popular", limit=2)
    like(session, made[3], 9)
    review(session)
    rest = reviews.feed(session, sort="popular", cursor=first.next_cursor)
    assert [(item.review.id, item.like_count) for item in (*first, *rest)] == list(zip(made, (4, 3, 2, 10), strict=True))
    assert reviews.feed(session, sort="popular")[0].review.id == made[3]


def test_of_a_transaction_that_was_running_nothing_is_seen(committed_db: Database, owner: Engine) -> None:
    """A like that was there, but not committed, when the first page was read, moves nothing in its walk."""
    with committed_db.session() as session:
        many_reviews(session, 6)
        ids = shown(session)
    with owner.connect() as early, owner.connect() as late:
        for connection, id in ((early, ids[5]), (late, ids[4])):
            connection.execute(text("UPDATE stemma.reviews SET like_count = 100 WHERE id = :id"), {"id": id})
        late.commit()
        with committed_db.session() as session:
            found, cursor = ids_of(session, None, 1)
            assert int(str(early.scalar(text("SELECT CAST(pg_current_xact_id() AS text)")))) in _Walk.read(str(cursor))[0].running
        early.commit()
        with committed_db.session() as session:
            assert [*found, *ids_of(session, cursor, 10)[0]] == [ids[4], *ids[:4], ids[5]]


def test_a_standby_counts_what_may_be_running_as_unseen(session: Session) -> None:
    """Its snapshots do not tell which transactions run: whoever is at or above the first that may, moves nothing."""
    told = ("10:20:12,15", True, 1, 1, None, None)
    assert _Walk.of(told) == _Walk(1, 1, 10, 10, (), None, 0)
    assert _Walk.of(("10:20:12,15", False, 1, 1, 17, 3)) == _Walk(1, 1, 10, 20, (12, 15), 17, 3)
    # The moves of one review need not be in the order of their transactions: then none is at two places, and none at no place.
    made = [review(session).id for _ in range(3)]
    session.execute(text("DELETE FROM stemma.past_places"))
    like(session, made[0], 3)
    found, cursor = ids_of(session, None, 1)
    assert cursor is not None
    values = values_in(cursor)
    now = session.scalars(text("SELECT DISTINCT transaction_id FROM stemma.past_places")).one()
    # As if the three likes had been committed by transactions now + 2, now - 1 and now + 1.
    for order, (transaction, before) in enumerate(((now + 2, None), (now - 1, now + 2), (now + 1, now + 2))):
        session.execute(
            text(
                "UPDATE stemma.past_places SET transaction_id = :transaction, previous_transaction_id = :before "
                "WHERE number = (SELECT number FROM stemma.past_places WHERE transaction_id = :now OR transaction_id > :far "
                "ORDER BY number OFFSET :place LIMIT 1)"
            ),
            {"transaction": transaction, "before": before, "now": now, "far": now - 2, "place": order},
        )
    top = [2**31 - 1, UUID(int=2**128 - 1), values[2], values[3], None, 0, f"{now},{now}"]
    assert ids_of(session, write_cursor(top, _FINGERPRINT), 5)[0] == [made[2], made[1], made[0]]
    assert found == [made[0]]


# ------------------------------------------------------------------------------------------------------------------- cursors


def test_no_cursor_is_taken_at_its_word(session: Session) -> None:
    """Whatever else is in a signed cursor is refused before anything is sent: without a key of their own anybody can sign."""
    many_reviews(session, 3)
    cursor = reviews.feed(session, sort="popular", limit=1).next_cursor
    assert cursor is not None
    good = values_in(cursor)
    assert write_cursor(good, _FINGERPRINT) == cursor
    bad = [
        {0: -1}, {0: 2**31}, {0: True}, {0: None}, {1: "x"}, {1: None}, {2: -1}, {2: 2**63}, {2: None}, {3: None}, {3: 2**31},
        {4: "1"}, {4: -1}, {5: None}, {6: ""}, {6: "1"}, {6: "5,6"}, {6: "9,3,0,0"}, {6: "9,3,6"}, {6: "9,3,-1"}, {6: "x,y"}, {6: None},
        {6: "9" * 20 + ",1"}, {6: f"{2**63},1"}, {6: "٣,٢"},
    ]  # fmt: skip
    with count_queries() as sent:
        for change in bad:
            values = [change.get(place, value) for place, value in enumerate(good)]  # type: ignore[call-overload]
            with pytest.raises(InvalidCursorError):
                reviews.feed(session, sort="popular", cursor=write_cursor(values, _FINGERPRINT))
        with pytest.raises(InvalidCursorError):
            reviews.feed(session, sort="popular", cursor=write_cursor(good[:6], _FINGERPRINT))
        for limit in (0, 201, True, "1"):
            with pytest.raises(ValidationError):
                reviews.feed(session, sort="popular", limit=limit)  # type: ignore[arg-type]
    assert sent.count == 0


@pytest.mark.parametrize("change", [{2: 1}, {3: 9}, {6: f"{2**62},{2**62}"}], ids=["server", "past", "server ahead"])
@pytest.mark.parametrize("like_count", [2**31 - 1, 0])
def test_a_cursor_of_another_history_has_expired(session: Session, change: dict[int, Any], like_count: int) -> None:
    """Transactions are numbered anew after a restore elsewhere, and again after one to an earlier time: told also where nothing follows."""
    many_reviews(session, 3)
    good = values_in(str(reviews.feed(session, sort="popular", limit=1).next_cursor))
    good[:2] = like_count, UUID(int=0)
    assert len(reviews.feed(session, sort="popular", cursor=write_cursor(good, _FINGERPRINT))) == (3 if like_count else 0)
    values = [change.get(place, value) for place, value in enumerate(good)]
    with count_queries() as sent:
        with pytest.raises(ExpiredCursorError):
            reviews.feed(session, sort="popular", cursor=write_cursor(values, _FINGERPRINT))
    assert sent.count <= 2


def test_rows_of_another_server_say_nothing(session: Session) -> None:
    """What a dump brought along is passed over, until it is removed."""
    many_reviews(session, 5)
    whole = shown(session)
    found, cursor = ids_of(session, None, 2)
    session.execute(text("UPDATE stemma.past_places SET cluster_id = 1, transaction_id = 4000000000, like_count = 30"))
    assert [*found, *ids_of(session, cursor, 9)[0]] == whole


def test_a_cursor_stays_short(session: Session) -> None:
    """Of 500 transactions that were running, in a cursor of 3,000 characters."""
    chance = random.Random(1)
    running = tuple(sorted(chance.sample(range(10**12, 10**12 + 5_000), 500)))
    walk = _Walk(2**62, 1, running[0], 10**12 + 5_000, running, None, 0)
    cursor = walk.write((5, uuid4()))
    assert len(cursor) < 3_000
    assert _Walk.read(cursor)[0] == walk


# ------------------------------------------------------------------------------------------------------------------- pruning


def _age(db: Database, hours: int) -> None:
    with db.session() as session:
        session.execute(text("UPDATE stemma.past_places SET created_at = created_at - :age"), {"age": timedelta(hours=hours)})


def test_what_is_old_is_removed_and_walks_of_then_are_refused(committed_db: Database) -> None:
    """In batches; younger walks go on, and the table says with one row how far it was emptied."""
    with committed_db.session() as session:
        many_reviews(session, 30)
    with committed_db.session() as session:
        ids = shown(session)
        _, old = ids_of(session, None, 5)
    with committed_db.session() as session:
        like(session, ids[20], 3)
    _age(committed_db, 25)
    with committed_db.session() as session:
        values = values_in(str(ids_of(session, None, 5)[1]))
    # As if no transaction of another database had been running, for longer than what is old has been there.
    young = write_cursor([*values[:6], ",".join([values[6].split(",")[0]] * 2)], _FINGERPRINT)
    with committed_db.session() as session:
        like(session, ids[10])
    with committed_db.session() as session:
        assert reviews.prune_places(session, older_than=timedelta(hours=26)) == 0
        assert len(ids_of(session, old, 50)[0]) == 25
    # The reviews' own rows come first: the walk began later, and loses nothing.
    assert [committed_db.run(reviews.prune_places, batch=16) for _ in range(4)] == [16, 16, 1, 0]
    with committed_db.session() as session:
        with pytest.raises(ExpiredCursorError):
            ids_of(session, old, 5)
        with pytest.raises(ExpiredCursorError):
            ids_of(session, old, 200)
        assert len(ids_of(session, young, 50)[0]) == 25
        rows = session.execute(text("SELECT review_id, like_count FROM stemma.past_places ORDER BY number")).all()
        assert [row.review_id for row in rows] == [ids[10], None]
        for wrong in ({"batch": 0}, {"batch": True}, {"older_than": timedelta(-1)}, {"older_than": 5}):
            with pytest.raises(ValidationError):
                reviews.prune_places(session, **wrong)


async def test_twins(async_session: Any) -> None:
    """The same, awaited."""
    await async_session.run_sync(lambda session: many_reviews(session, 3))
    page = await areviews.feed(async_session, sort="popular", limit=2)
    assert len(await areviews.feed(async_session, sort="popular", cursor=page.next_cursor)) == 1
    assert await areviews.prune_places(async_session) == 0


def test_the_command(committed_db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """``stemmadb reviews prune`` removes all that is older, and says how much."""
    with committed_db.session() as session:
        many_reviews(session, 4)
    _age(committed_db, 25)
    with committed_db.session() as session:
        review(session, reader(session), book(session))
    monkeypatch.setenv("DATABASE_URL", committed_db.engine.url.render_as_string(hide_password=False))
    for command, said in ((["prune"], "removed 4"), (["prune", "--older-than-h", "0", "--json"], '"removed": 1')):
        result = CliRunner().invoke(application(), ["reviews", *command])
        assert result.exit_code == 0, result.output
        assert said in result.output
