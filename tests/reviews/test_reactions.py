"""Likes and bookmarks: one of each, counted exactly, without deadlocks."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from tests.reviews.shelves import book, drift, reader, readers, review

from stemmadb.accounts import users
from stemmadb.aio.reviews import reactions as areactions
from stemmadb.database import Database
from stemmadb.errors import InvalidCursorError, NotFoundError
from stemmadb.reviews import Bookmark, Like, Review, reactions, reviews
from stemmadb.testing import assert_max_queries, run_together

React = Callable[[Session, UUID, UUID], bool]
KINDS: dict[str, tuple[React, React, React, type[Like | Bookmark], str]] = {
    "like": (reactions.like, reactions.unlike, reactions.toggle_like, Like, "like_count"),
    "bookmark": (reactions.bookmark, reactions.unbookmark, reactions.toggle_bookmark, Bookmark, "bookmark_count"),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
@pytest.mark.requirement("RF-003", "RF-004", "RF-019", "RF-024")
def test_twice_is_as_once(session: Session, kind: str) -> None:
    """One statement each; what is new is told, the count follows, and the other count does not."""
    add, remove, _, entity, count = KINDS[kind]
    user, made = reader(session), review(session)
    for call, told, number in ((add, True, 1), (add, False, 1), (remove, True, 0), (remove, False, 0)):
        with assert_max_queries(1):
            assert call(session, user.id, made.id) is told
        session.refresh(made)
        assert getattr(made, count) == made.like_count + made.bookmark_count == number
    assert session.query(entity).count() == 0


@each_kind
def test_toggle(session: Session, kind: str) -> None:
    """The state afterwards, in one statement."""
    _, _, toggle, _, count = KINDS[kind]
    user, made = reader(session), review(session)
    for expected in (True, False, True):
        with assert_max_queries(1):
            assert toggle(session, user.id, str(made.id)) is expected
        session.refresh(made)
        assert getattr(made, count) == expected


@each_kind
def test_who_and_what_must_be_there(session: Session, kind: str) -> None:
    """Unknown and malformed ids are not found, the transaction stays usable, and there is nothing to take back from them."""
    add, remove, toggle, _, _ = KINDS[kind]
    user, made = reader(session), review(session)
    for call in (add, toggle):
        for who, what, missing in ((uuid4(), made.id, "User"), (user.id, uuid4(), "Review")):
            with pytest.raises(NotFoundError, match=missing):
                call(session, who, what)
    assert remove(session, uuid4(), made.id) is remove(session, user.id, uuid4()) is False
    for call in (add, remove, toggle):
        with pytest.raises(NotFoundError):
            call(session, "x", made.id)  # type: ignore[arg-type]
        with pytest.raises(NotFoundError):
            call(session, user.id, "x")  # type: ignore[arg-type]
    assert add(session, user.id, made.id)


@each_kind
def test_a_hidden_review_can_be_left(session: Session, kind: str) -> None:
    """What was given to a review that was deleted since can be taken back."""
    add, remove, _, _, count = KINDS[kind]
    user, made = reader(session), review(session)
    add(session, user.id, made.id)
    reviews.soft_delete(session, made.id)
    assert remove(session, user.id, made.id)
    session.refresh(made)
    assert getattr(made, count) == 0


@pytest.mark.requirement("RF-011")
def test_list_bookmarks(session: Session) -> None:
    """The newest bookmark first, as the feed shows reviews, in two statements; drafts and deleted reviews are left out."""
    user, made = reader(session), [review(session) for _ in range(5)]
    for number in (2, 0, 1, 4, 3):
        reactions.bookmark(session, user.id, made[number].id)
    reactions.like(session, user.id, made[1].id)
    reviews.soft_delete(session, made[4].id)
    expected = [made[number].id for number in (3, 1, 0, 2)]
    with assert_max_queries(2):
        found = reactions.list_bookmarks(session, user.id)
    assert [item.review.id for item in found] == expected
    assert [(item.liked_by_viewer, item.bookmarked_by_viewer) for item in found] == [
        (False, True),
        (True, True),
        (False, True),
        (False, True),
    ]
    first = reactions.list_bookmarks(session, user.id, limit=1)
    rest = reactions.list_bookmarks(session, user.id, limit=3, cursor=first.next_cursor)
    assert [item.review.id for item in (*first, *rest)] == expected
    assert not rest.has_more
    with pytest.raises(InvalidCursorError):
        reactions.list_bookmarks(session, reader(session).id, cursor=first.next_cursor)
    assert len(reactions.list_bookmarks(session, uuid4())) == 0
    with pytest.raises(NotFoundError):
        reactions.list_bookmarks(session, "x")


def test_list_likers(session: Session) -> None:
    """The newest like first; deleted users are left out, and so is everybody once the review is hidden."""
    made, fans = review(session), [reader(session) for _ in range(4)]
    for fan in fans:
        reactions.like(session, fan.id, made.id)
    users.soft_delete(session, fans[1].id)
    expected = [fans[number].id for number in (3, 2, 0)]
    assert [fan.id for fan in reactions.list_likers(session, made.id)] == expected
    first = reactions.list_likers(session, made.id, limit=1)
    assert [fan.id for fan in (*first, *reactions.list_likers(session, made.id, cursor=first.next_cursor))] == expected
    reviews.soft_delete(session, made.id)
    assert len(reactions.list_likers(session, made.id)) == len(reactions.list_likers(session, uuid4())) == 0
    with pytest.raises(NotFoundError):
        reactions.list_likers(session, "x")


def test_recount(session: Session) -> None:
    """Only what is wrong is changed, of all reviews or of those named."""
    made = [review(session) for _ in range(4)]
    fans = readers(session, 3)
    for fan in fans:
        reactions.like(session, fan, made[0].id)
    for wrong in made[:3]:
        session.execute(text("UPDATE stemma.reviews SET like_count = 9, bookmark_count = 9 WHERE id = :id"), {"id": wrong.id})
    assert drift(session) == 3
    with assert_max_queries(2):
        assert reactions.recount(session, [made[1].id, str(made[3].id), uuid4()]) == 1
    assert reactions.recount(session) == 2
    assert reactions.recount(session) == reactions.recount(session, []) == drift(session) == 0
    for each in made:
        session.refresh(each)
    assert [each.like_count for each in made] == [3, 0, 0, 0]
    with pytest.raises(NotFoundError):
        reactions.recount(session, ["x"])


async def test_twins(async_session: AsyncSession) -> None:
    """The same functions, awaited."""
    found: list[Any] = []
    await async_session.run_sync(lambda session: found.extend((reader(session).id, review(session).id)))
    user, made = found
    assert await areactions.like(async_session, user, made)
    assert await areactions.bookmark(async_session, user, made)
    assert [item.review.id for item in await areactions.list_bookmarks(async_session, user)] == [made]
    assert [fan.id for fan in await areactions.list_likers(async_session, made)] == [user]
    assert await areactions.unlike(async_session, user, made)
    assert await areactions.unbookmark(async_session, user, made)
    assert await areactions.toggle_like(async_session, user, made)
    assert await areactions.toggle_bookmark(async_session, user, made)
    assert await areactions.recount(async_session, [made]) == 0


# --------------------------------------------------------------------------------------------------------- whatever is attempted


class Reactions(RuleBasedStateMachine):
    """
    Reviews and users that come, react and go, by functions and by SQL of many rows, some of it rolled back.

    Beside the database a plain model keeps who liked and bookmarked what.
    """

    session: ClassVar[Session]

    def __init__(self) -> None:
        super().__init__()
        self.users: set[UUID] = set()
        self.reviews: dict[UUID, UUID] = {}
        self.hidden: set[UUID] = set()
        self.given: dict[str, set[tuple[UUID, UUID]]] = {"like": set(), "bookmark": set()}

    @initialize()
    def begin(self) -> None:
        """Three users and two reviews."""
        self.session.execute(text("DELETE FROM stemma.reviews"))
        self.book = book(self.session)
        for _ in range(3):
            self.come()
        for _ in range(2):
            self.write(min(self.users))

    def _one(self, data: st.DataObject, among: Any) -> UUID:
        return data.draw(st.sampled_from(sorted(among)))

    @rule()
    def come(self) -> None:
        """A new user."""
        self.users.add(reader(self.session).id)

    def write(self, user: UUID) -> None:
        made = review(self.session, users.get(self.session, user), self.book)
        self.reviews[made.id] = user

    @precondition(lambda self: self.users)
    @rule(data=st.data())
    def write_one(self, data: st.DataObject) -> None:
        """A new review."""
        self.write(self._one(data, self.users))

    @precondition(lambda self: self.users and self.reviews)
    @rule(data=st.data(), kind=st.sampled_from(sorted(KINDS)), what=st.sampled_from(range(3)), undone=st.booleans())
    def react(self, data: st.DataObject, kind: str, what: int, undone: bool) -> None:
        """Add, remove or toggle; what is rolled back never was."""
        pair = self._one(data, self.users), self._one(data, self.reviews)
        given, before = self.given[kind], pair in self.given[kind]
        savepoint = self.session.begin_nested()
        if pair[1] in self.hidden and what != 1:
            with pytest.raises(NotFoundError):
                KINDS[kind][what](self.session, *pair)
            savepoint.commit()
            return
        told = KINDS[kind][what](self.session, *pair)
        assert told is (not before, before, not before)[what]
        if undone:
            savepoint.rollback()
            return
        savepoint.commit()
        after = (True, False, not before)[what]
        (given.add if after else given.discard)(pair)

    @precondition(lambda self: self.users and self.reviews)
    @rule(kind=st.sampled_from(sorted(KINDS)))
    def everybody_reacts(self, kind: str) -> None:
        """One statement of raw SQL with a row for each user and review that lacks one."""
        self.session.execute(
            text(
                f"INSERT INTO stemma.{kind}s (user_id, review_id) SELECT users.id, reviews.id FROM stemma.users, stemma.reviews "
                "WHERE users.id = ANY(:users) ON CONFLICT DO NOTHING"
            ),
            {"users": list(self.users)},
        )
        self.given[kind] |= {(user, each) for user in self.users for each in self.reviews}

    @precondition(lambda self: self.reviews)
    @rule(data=st.data(), kind=st.sampled_from(sorted(KINDS)))
    def clear(self, data: st.DataObject, kind: str) -> None:
        """One statement removes every reaction to some reviews."""
        some = data.draw(st.lists(st.sampled_from(sorted(self.reviews)), min_size=1, unique=True))
        self.session.execute(text(f"DELETE FROM stemma.{kind}s WHERE review_id = ANY(:some)"), {"some": some})
        self.given[kind] = {pair for pair in self.given[kind] if pair[1] not in some}

    @precondition(lambda self: self.reviews)
    @rule(data=st.data())
    def hide_or_restore(self, data: st.DataObject) -> None:
        """Reactions stay with a hidden review."""
        one = self._one(data, self.reviews)
        (reviews.restore if one in self.hidden else reviews.soft_delete)(self.session, one)
        self.hidden ^= {one}

    @precondition(lambda self: self.reviews)
    @rule(data=st.data())
    def remove_review(self, data: st.DataObject) -> None:
        """By SQL; its reactions go with it."""
        one = self._one(data, self.reviews)
        self.session.execute(text("DELETE FROM stemma.reviews WHERE id = :id"), {"id": one})
        self._forget({one}, set())

    @precondition(lambda self: self.users)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """A user is purged, with reviews and reactions."""
        one = self._one(data, self.users)
        users.purge(self.session, one)
        self._forget({each for each, author in self.reviews.items() if author == one}, {one})

    def _forget(self, gone: set[UUID], left: set[UUID]) -> None:
        self.users -= left
        self.hidden -= gone
        self.reviews = {each: author for each, author in self.reviews.items() if each not in gone}
        for kind, pairs in self.given.items():
            self.given[kind] = {pair for pair in pairs if pair[1] not in gone and pair[0] not in left}

    @invariant()
    def counts_are_the_number_of_rows(self) -> None:
        """Of the rows of the database, and of those of the model."""
        found = self.session.execute(text("SELECT id, like_count, bookmark_count FROM stemma.reviews")).all()
        expected = {kind: Counter(review_id for _, review_id in pairs) for kind, pairs in self.given.items()}
        assert {row.id: (row.like_count, row.bookmark_count) for row in found} == {
            each: (expected["like"][each], expected["bookmark"][each]) for each in self.reviews
        }
        assert drift(self.session) == 0


@pytest.mark.property
@pytest.mark.parametrize("examples", [6, pytest.param(80, marks=pytest.mark.slow)])
@pytest.mark.requirement("RF-024", "RF-025")
def test_counts_under_any_interleaving(session: Session, examples: int) -> None:
    """Whatever is liked, unliked, hidden, removed and undone in whatever order, counts are the numbers of rows."""
    machine = type("ReactionsHere", (Reactions,), {"session": session})
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    wanted = settings(max_examples=examples, stateful_step_count=20, deadline=None, suppress_health_check=checks)
    run_state_machine_as_test(machine, settings=wanted)


# ------------------------------------------------------------------------------------------------------------------------ races


@pytest.mark.race
@each_kind
@pytest.mark.requirement("RF-019", "RF-024")
def test_one_of_many_adds(committed_db: Database, kind: str) -> None:
    """Of sixteen additions of one pair at once one is new; of sixteen removals one removes."""
    add, remove, _, _, _ = KINDS[kind]
    with committed_db.session() as session:
        user, made = reader(session).id, review(session).id
    for call in (add, remove):

        def once(_number: int, call: React = call) -> bool:
            with committed_db.session() as session:
                return call(session, user, made)

        assert Counter(run_together(16, once)) == {True: 1, False: 15}
    with committed_db.session() as session:
        assert drift(session) == 0


@pytest.mark.race
@each_kind
def test_no_toggle_is_lost(committed_db: Database, kind: str) -> None:
    """Of twelve toggles of one pair at once six end with it and six without, and it is as at the beginning."""
    _, _, toggle, entity, _ = KINDS[kind]
    with committed_db.session() as session:
        user, made = reader(session).id, review(session).id

    def once(_number: int) -> bool:
        with committed_db.session() as session:
            return toggle(session, user, made)

    assert Counter(run_together(12, once)) == {True: 6, False: 6}
    with committed_db.session() as session:
        assert session.query(entity).count() == drift(session) == 0


@pytest.mark.race
@pytest.mark.requirement("RF-025")
def test_counts_stay_right_while_users_and_reviews_go(committed_db: Database) -> None:
    """Eight writers react at random while users are purged and reviews removed: no error of the database, and no count drifts."""
    with committed_db.session() as session:
        fans, authors, of = readers(session, 24), [reader(session) for _ in range(4)], book(session)
        made = [review(session, authors[number % 4], of).id for number in range(12)]

    def work(number: int) -> Counter[str]:
        chance, met = random.Random(number), Counter[str]()
        if number < 2:
            for gone in (*fans[number:8:2], authors[number].id):
                with committed_db.session() as session:
                    users.purge(session, gone)
            with committed_db.session() as session:
                session.execute(text("DELETE FROM stemma.reviews WHERE id = :id"), {"id": made[2 + number]})
            return met
        for _ in range(60):
            call = chance.choice([call for calls in KINDS.values() for call in calls[:3]])
            try:
                with committed_db.session() as session:
                    call(session, chance.choice(fans), chance.choice(made))
                met["done"] += 1
            except NotFoundError:
                met["gone"] += 1
        return met

    results = run_together(9, work)
    assert [each for each in results if isinstance(each, BaseException)] == []
    with committed_db.session() as session:
        assert drift(session) == 0
        assert session.query(Review).count() == 4
        assert session.query(Like).count() > 0


@pytest.mark.race
@pytest.mark.requirement("RF-021", "RF-025")
def test_users_who_like_each_other_leave_at_once(committed_db: Database) -> None:
    """Of eight users, each of whom reacted to all reviews of all, eight are purged at once; nobody waits in a circle, or tries again."""
    with committed_db.session() as session:
        people, of = [reader(session) for _ in range(9)], book(session)
        made = [review(session, each, of).id for each in people for _ in range(2)]
        for each in people:
            for number, id in enumerate(made):
                (reactions.like, reactions.bookmark)[number % 2](session, each.id, id)

    def leave(number: int) -> None:
        with committed_db.session() as session:
            users.purge(session, people[number].id)

    assert run_together(8, leave) == [None] * 8
    with committed_db.session() as session:
        assert drift(session) == 0
        assert session.query(Review).count() == 2


@pytest.mark.race
def test_recount_beside_reactions(committed_db: Database) -> None:
    """Repairs and reactions at once leave exact counts."""
    with committed_db.session() as session:
        fans, made = readers(session, 10), [review(session).id for _ in range(3)]
        session.execute(text("UPDATE stemma.reviews SET like_count = 100"))

    def work(number: int) -> None:
        for each in made:
            with committed_db.session() as session:
                if number < 2:
                    reactions.recount(session)
                else:
                    reactions.like(session, fans[number], each)

    assert run_together(8, work) == [None] * 8
    with committed_db.session() as session:
        reactions.recount(session)
        assert drift(session) == 0
        assert {each.like_count for each in session.query(Review)} == {6}


@pytest.mark.race
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.requirement("RF-024", "RF-025")
def test_ten_thousand_reactions_without_a_deadlock(committed_db: Database) -> None:
    """Sixteen workers, 10,000 reactions to few reviews, users removed between them: PostgreSQL counts no deadlock, and nothing drifts."""
    with committed_db.session() as session:
        fans, authors, of = readers(session, 60), [reader(session) for _ in range(6)], book(session)
        made = [review(session, authors[number % 6], of).id for number in range(10)]
    calls = [call for calls in KINDS.values() for call in calls[:3]]

    def work(number: int) -> int:
        chance, done = random.Random(number), 0
        for turn in range(625):
            if number == 0 and turn % 50 == 49:
                with suppress(NotFoundError):
                    with committed_db.session() as session:
                        users.purge(session, fans[turn // 50])
            with suppress(NotFoundError):
                with committed_db.session() as session:
                    chance.choice(calls)(session, chance.choice(fans), chance.choice(made))
            done += 1
        return done

    results = run_together(16, work)
    assert [each for each in results if isinstance(each, BaseException)] == []
    assert sum(results) == 10_000  # type: ignore[arg-type]
    with committed_db.session() as session:
        assert drift(session) == 0
        # Counted when a backend reports, at the latest a second after its transaction.
        session.execute(text("SELECT pg_stat_force_next_flush()"))
        assert session.scalar(text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")) == 0
