"""Approvals: a queue that people work off, each item decided once."""

import pickle
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from stemmadb.accounts import users
from stemmadb.aio.accounts import users as ausers
from stemmadb.aio.workspaces import approvals as aapprovals
from stemmadb.database import Database
from stemmadb.errors import (
    InvalidCursorError,
    InvalidTransitionError,
    NotFoundError,
    ReferenceNotFoundError,
    ValidationError,
    VersionConflictError,
)
from stemmadb.testing import assert_max_queries, count_queries, run_together
from stemmadb.workspaces import approvals
from stemmadb.workspaces.approvals import ApprovalCreate, ApprovalPriority, ApprovalStatus
from stemmadb.workspaces.documents import ApprovalPayload
from stemmadb.workspaces.entities import ApprovalItem


@pytest.fixture
def user(session: Session) -> UUID:
    """The id of somebody."""
    return somebody(session)


def somebody(session: Session) -> UUID:
    """The id of a new user."""
    return users.create(session, f"{uuid4().hex}@example.com").id


def item(session: Session, title: str = "Publish", **data: object) -> ApprovalItem:
    """A new item."""
    return approvals.create(session, ApprovalCreate(type=str(data.pop("type", "content.publish")), title=title, **data))


# ------------------------------------------------------------------------------------------------------------ create, get


def test_create_and_get(session: Session, user: UUID) -> None:
    """PENDING, of nobody, with all that was given; one statement each."""
    due = datetime(2030, 1, 1, tzinfo=UTC)
    with assert_max_queries(1):
        made = item(
            session,
            description="d",
            payload=ApprovalPayload(entity="runs", proposal={"a": 1}),
            priority=ApprovalPriority.HIGH,
            confidence_score=Decimal("12.50"),
            due_at=due,
            requested_by_id=str(user),
        )
    assert (made.status, made.version, made.assigned_to_id, made.decided_at) == (ApprovalStatus.PENDING, 1, None, None)
    session.expunge_all()
    with assert_max_queries(1):
        found = approvals.get(session, str(made.id))
    assert (found.type, found.title, found.description, found.due_at) == ("content.publish", "Publish", "d", due)
    assert (found.payload.entity, found.payload.proposal) == ("runs", {"a": 1})
    assert (found.priority, found.confidence_score, found.requested_by_id) == (ApprovalPriority.HIGH, Decimal("12.50"), user)
    assert approvals.find(session, found.id) is found


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"title": " "}, "title"),
        ({"type": ""}, "type"),
        ({"title": "a\0"}, "title"),
        ({"confidence_score": 101}, "confidence_score"),
        ({"due_at": datetime(2030, 1, 1)}, "due_at"),
        ({"requested_by_id": "nonsense"}, "requested_by_id"),
        ({"status": "APPROVED"}, "status"),
    ],
)
def test_create_refuses_what_cannot_be(session: Session, data: dict[str, object], field: str) -> None:
    """ValidationError that names the field; nothing is sent."""
    with count_queries() as sent, pytest.raises(ValidationError) as caught:
        approvals.create(session, {"type": "t", "title": "t", **data})  # type: ignore[arg-type]
    assert (caught.value.field, sent.count) == (field, 0)


def test_nobody_requests_nothing(session: Session) -> None:
    """An unknown user is named, and the transaction goes on."""
    with pytest.raises(ReferenceNotFoundError) as caught:
        item(session, requested_by_id=uuid4())
    assert caught.value.field == "requested_by_id"
    assert len(approvals.list_all(session)) == 0


@pytest.mark.parametrize("id", [UUID(int=1), "nonsense"])
def test_unknown_ids(session: Session, user: UUID, id: UUID | str) -> None:
    """get and every verb raise, find returns None."""
    assert approvals.find(session, id) is None
    for call in (
        lambda: approvals.get(session, id),
        lambda: approvals.assign(session, id, user),
        lambda: approvals.decide(session, id, "APPROVED", decided_by_id=user),
        lambda: approvals.cancel(session, id),
    ):
        with pytest.raises(NotFoundError) as caught:
            call()
        assert caught.value.entity == "ApprovalItem"


# -------------------------------------------------------------------------------------------------------------- list_all


def test_the_most_urgent_first(session: Session) -> None:
    """By priority downwards, then by age; pages join, whatever their size; the cursor is good for its list only."""
    made = [
        item(session, str(number), priority=priority)
        for number, priority in enumerate([*ApprovalPriority, *reversed(ApprovalPriority), *ApprovalPriority])
    ]
    expected = [found.title for found in sorted(made, key=lambda found: (-found.priority, found.created_at, found.id))]
    assert [made[int(title)].priority for title in expected[:3]] == [ApprovalPriority.URGENT] * 3
    for limit in (1, 5, 200):
        found, cursor = [], None
        while True:
            page = approvals.list_all(session, cursor=cursor, limit=limit)
            found += [row.title for row in page]
            if (cursor := page.next_cursor) is None:
                break
        assert found == expected
    first = approvals.list_all(session, limit=1)
    with pytest.raises(InvalidCursorError):
        approvals.list_all(session, type="other", cursor=first.next_cursor)


def test_lists_are_narrowed(session: Session, user: UUID) -> None:
    """By status, type and assignee, in one statement."""
    first, second, third = item(session, "1"), item(session, "2", type="other"), item(session, "3")
    approvals.assign(session, second.id, user)
    approvals.cancel(session, third.id)
    with assert_max_queries(1):
        assert list(approvals.list_all(session, status=ApprovalStatus.PENDING)) == [first, second]
    assert list(approvals.list_all(session, type="other")) == [second]
    assert list(approvals.list_all(session, assigned_to_id=str(user))) == [second]
    assert list(approvals.list_all(session, status=ApprovalStatus.CANCELLED, type="content.publish")) == [third]
    with pytest.raises(ValidationError):
        approvals.list_all(session, assigned_to_id="nonsense")


@pytest.mark.requirement("AD-020")
def test_the_queue_is_read_in_the_order_of_an_index(committed_db: Database, committed_workspace: UUID) -> None:
    """Under row-level security too, a page of what is pending is no scan and no sort."""
    with committed_db.session(workspace=committed_workspace) as session:
        session.execute(
            text("INSERT INTO stemma.approval_items (type, title, priority) SELECT 't', 'x', n % 4 FROM generate_series(1, 2000) AS n")
        )
        plan = session.execute(
            text(
                """
                EXPLAIN SELECT id FROM stemma.approval_items
                 WHERE workspace_id = :id AND status = 'PENDING' ORDER BY priority DESC, created_at, id LIMIT 10
                """
            ),
            {"id": committed_workspace},
        ).scalars()
        found = "\n".join(plan)
        assert "approval_items_queue_idx" in found
        assert "Sort" not in found


# ----------------------------------------------------------------------------------------------------- assign, claim_next


def test_assign(session: Session, user: UUID) -> None:
    """To somebody, to somebody else, to nobody; one statement, and the version counts."""
    made = item(session)
    with assert_max_queries(1):
        assert approvals.assign(session, str(made.id), str(user)) is made
    assert (made.assigned_to_id, made.version) == (user, 2)
    other = somebody(session)
    assert approvals.assign(session, made.id, other).assigned_to_id == other
    assert approvals.assign(session, made.id, None).assigned_to_id is None


def test_assign_to_nobody_known(session: Session, user: UUID) -> None:
    """An unknown or deleted user is named; nothing changes, and the transaction goes on."""
    made = item(session)
    users.soft_delete(session, user)
    for nobody in (uuid4(), user):
        with pytest.raises(ReferenceNotFoundError) as caught:
            approvals.assign(session, made.id, nobody)
        assert caught.value.field == "user_id"
        with pytest.raises(ReferenceNotFoundError):
            approvals.claim_next(session, nobody)
        with pytest.raises(ReferenceNotFoundError) as caught:
            approvals.decide(session, made.id, "REJECTED", decided_by_id=nobody)
        assert caught.value.field == "decided_by_id"
    assert (approvals.get(session, made.id).assigned_to_id, made.version) == (None, 1)


def test_claim_next(session: Session, user: UUID) -> None:
    """The most urgent, then the oldest, of what is pending and free; of one type if asked; None when there is none."""
    low, high, other = item(session, "low"), item(session, "high", priority=ApprovalPriority.HIGH), item(session, "other", type="other")
    with assert_max_queries(1):
        assert approvals.claim_next(session, user) is high
    assert high.assigned_to_id == user
    assert approvals.claim_next(session, user, type="other") is other
    assert approvals.claim_next(session, user, type="other") is None
    assert approvals.claim_next(session, user) is low
    assert approvals.claim_next(session, user) is None
    approvals.assign(session, low.id, None)
    approvals.cancel(session, low.id)
    assert approvals.claim_next(session, user) is None


def test_payloads_of_a_newer_release_are_left_to_it(session: Session, user: UUID) -> None:
    """An item that this release cannot read does not stop the queue."""
    urgent, plain = item(session, priority=ApprovalPriority.URGENT), item(session)
    session.execute(text("""UPDATE stemma.approval_items SET payload = '{"schema_version": 99}' WHERE id = :id"""), {"id": urgent.id})
    assert approvals.claim_next(session, user) is plain
    assert approvals.claim_next(session, user) is None


@pytest.mark.race
def test_of_ten_who_claim_each_gets_another(committed_db: Database, committed_workspace: UUID) -> None:
    """Ten callers and eight items, held until all have asked: eight different items, and two get none. Nobody waits."""
    with committed_db.session(workspace=committed_workspace) as session:
        user = somebody(session)
        for _ in range(8):
            item(session)
    with committed_db.session(workspace=committed_workspace) as holder:
        first = approvals.claim_next(holder, user)

        def claim(_: int) -> UUID | None:
            with committed_db.session(workspace=committed_workspace) as session:
                session.execute(text("SET LOCAL lock_timeout = '2s'"))
                found = approvals.claim_next(session, user)
                return found.id if found else None

        results = run_together(9, claim)
    assert first is not None
    claimed = [first.id, *results]
    assert claimed.count(None) == 2
    assert len(set(claimed)) == 9


# --------------------------------------------------------------------------------------------------------- decide, cancel


@pytest.mark.parametrize("decision", ["APPROVED", "REJECTED", ApprovalStatus.APPROVED])
def test_decide(session: Session, user: UUID, decision: str) -> None:
    """Who, when, what and why are kept; one statement. A second decision is refused, whatever it says."""
    made = item(session)
    with assert_max_queries(1):
        assert approvals.decide(session, made.id, decision, decided_by_id=user, note="fine", expected_version=1) is made  # type: ignore[arg-type]
    assert (made.status, made.decided_by_id, made.decision_note, made.version) == (decision, user, "fine", 2)
    assert made.decided_at is not None
    for call in (
        lambda: approvals.decide(session, made.id, "APPROVED", decided_by_id=user),
        lambda: approvals.decide(session, made.id, "REJECTED", decided_by_id=user, expected_version=1),
        lambda: approvals.assign(session, made.id, None),
        lambda: approvals.cancel(session, made.id),
    ):
        with assert_max_queries(2), pytest.raises(InvalidTransitionError) as caught:
            call()
        assert caught.value.current == decision
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert approvals.get(session, made.id).decision_note == "fine"


@pytest.mark.parametrize("decision", ["CANCELLED", "PENDING", "approved", ""])
def test_what_is_no_decision(session: Session, user: UUID, decision: str) -> None:
    """ValidationError before anything is sent."""
    with count_queries() as sent, pytest.raises(ValidationError) as caught:
        approvals.decide(session, uuid4(), decision, decided_by_id=user)  # type: ignore[arg-type]
    assert (caught.value.field, sent.count) == ("decision", 0)


def test_decide_what_was_seen(session: Session, user: UUID) -> None:
    """An item that changed after it was read is not decided: VersionConflictError with both versions."""
    made = item(session)
    approvals.assign(session, made.id, user)
    with pytest.raises(VersionConflictError) as caught:
        approvals.decide(session, made.id, "APPROVED", decided_by_id=user, expected_version=1)
    assert (caught.value.seen, caught.value.current) == (1, 2)
    assert approvals.decide(session, made.id, "APPROVED", decided_by_id=user, expected_version=2).status == ApprovalStatus.APPROVED


def test_cancel(session: Session, user: UUID) -> None:
    """It is CANCELLED, without a decision, and stays so."""
    made = item(session)
    with assert_max_queries(1):
        assert approvals.cancel(session, made.id).status == ApprovalStatus.CANCELLED
    assert made.decided_at is None
    for call in (lambda: approvals.cancel(session, made.id), lambda: approvals.decide(session, made.id, "APPROVED", decided_by_id=user)):
        with pytest.raises(InvalidTransitionError):
            call()


@pytest.mark.race
def test_of_ten_deciders_one_wins(committed_db: Database, committed_workspace: UUID) -> None:
    """Approving, rejecting, cancelling and expiring one item at once, in ten rounds: one of them is done, the others are told."""
    with committed_db.session(workspace=committed_workspace) as session:
        user = somebody(session)
    for _ in range(10):
        with committed_db.session(workspace=committed_workspace) as session:
            made = item(session, due_at=datetime.now(UTC) - timedelta(minutes=1)).id

        def end(number: int, made: UUID = made) -> str:
            with committed_db.session(workspace=committed_workspace) as session:
                if number == 8:
                    return approvals.cancel(session, made).status
                if number == 9:
                    return "EXPIRED" if approvals.expire_due(session) else "nothing"
                decision = "APPROVED" if number % 2 else "REJECTED"
                return approvals.decide(session, made, decision, decided_by_id=user).status  # type: ignore[arg-type]

        results = run_together(10, end)
        winners = [result for result in results if isinstance(result, str) and result != "nothing"]
        assert len(winners) == 1
        assert {type(result).__name__ for result in results} <= {"ApprovalStatus", "str", "InvalidTransitionError"}
        with committed_db.session(workspace=committed_workspace) as session:
            assert approvals.get(session, made).status == winners[0]


# ------------------------------------------------------------------------------------------------------------- expire_due


def test_expire_due(session: Session) -> None:
    """What is pending and overdue, the longest overdue first, a batch at a time; objects that the session holds follow."""
    now = datetime.now(UTC)
    late, later, never, future = (
        item(session, due_at=due) for due in (now - timedelta(hours=2), now - timedelta(hours=1), None, now + timedelta(hours=1))
    )
    cancelled = item(session, due_at=now - timedelta(hours=3))
    approvals.cancel(session, cancelled.id)
    with assert_max_queries(1):
        assert approvals.expire_due(session, batch=1) == 1
    assert [row.status for row in (late, later, never, future)] == ["EXPIRED", "PENDING", "PENDING", "PENDING"]
    assert late.version == 2
    assert approvals.expire_due(session) == 1
    assert approvals.expire_due(session) == 0
    assert approvals.expire_due(session, now=now + timedelta(hours=2)) == 1
    assert [row.status for row in (later, never, future, cancelled)] == ["EXPIRED", "PENDING", "EXPIRED", "CANCELLED"]
    # An object that was brought up to date can be saved.
    late.description = "too late"
    session.flush()
    assert approvals.get(session, late.id).version == 3


@pytest.mark.parametrize(
    ("arguments", "field"),
    [({"batch": 0}, "batch"), ({"batch": 10_001}, "batch"), ({"batch": True}, "batch"), ({"now": datetime(2030, 1, 1)}, "now")],
)
def test_expire_due_refuses(session: Session, arguments: dict[str, object], field: str) -> None:
    """A batch out of bounds and a time without a zone, before anything is sent."""
    with count_queries() as sent, pytest.raises(ValidationError) as caught:
        approvals.expire_due(session, **arguments)  # type: ignore[arg-type]
    assert (caught.value.field, sent.count) == (field, 0)


def test_an_unreadable_payload_expires_too(session: Session) -> None:
    """A payload of a newer release keeps nothing from expiring."""
    made = item(session, due_at=datetime.now(UTC) - timedelta(hours=1))
    session.execute(text("""UPDATE stemma.approval_items SET payload = '{"schema_version": 99}' WHERE id = :id"""), {"id": made.id})
    assert approvals.expire_due(session) == 1


@pytest.mark.race
def test_several_expire_at_once(committed_db: Database, committed_workspace: UUID) -> None:
    """Five callers share forty items: each expires once; one that somebody holds is left alone and nobody waits for it."""
    with committed_db.session(workspace=committed_workspace) as session:
        user = somebody(session)
        due = datetime.now(UTC) - timedelta(minutes=1)
        held, *_ = [item(session, str(number), due_at=due) for number in range(41)]
    with committed_db.session(workspace=committed_workspace) as holder:
        approvals.assign(holder, held.id, user)

        def expire(_: int) -> int:
            with committed_db.session(workspace=committed_workspace) as session:
                session.execute(text("SET LOCAL lock_timeout = '2s'"))
                return sum(iter(lambda: approvals.expire_due(session, batch=3), 0))

        results = run_together(5, expire)
    assert sum(result for result in results if isinstance(result, int)) == 40
    with committed_db.session(workspace=committed_workspace) as session:
        assert approvals.get(session, held.id).status == ApprovalStatus.PENDING
        assert approvals.expire_due(session) == 1


async def test_twins(async_session: object) -> None:
    """The async twins do the same work."""
    user = (await ausers.create(async_session, f"{uuid4().hex}@example.com")).id  # type: ignore[arg-type]
    made = await aapprovals.create(async_session, ApprovalCreate(type="t", title="t"))  # type: ignore[arg-type]
    assert await aapprovals.claim_next(async_session, user) is made  # type: ignore[arg-type]
    await aapprovals.assign(async_session, made.id, None)  # type: ignore[arg-type]
    assert (await aapprovals.decide(async_session, made.id, "APPROVED", decided_by_id=user)).version == 4  # type: ignore[arg-type]
    assert [row.id for row in await aapprovals.list_all(async_session)] == [made.id]  # type: ignore[arg-type]
