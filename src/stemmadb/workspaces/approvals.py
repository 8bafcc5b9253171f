"""
What waits for a person's decision: a queue, the most urgent first.

    PENDING -> APPROVED, REJECTED    decide
    PENDING -> CANCELLED             cancel
    PENDING -> EXPIRED               expire_due

Each is one guarded UPDATE, so that of concurrent callers one wins. Nothing leads back to PENDING.
"""

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.util import identity_key

from stemmadb.documents import OnInvalid
from stemmadb.entity import Id, parse_id, parse_reference
from stemmadb.errors import (
    InvalidTransitionError,
    NotFoundError,
    ReferenceNotFoundError,
    StemmaError,
    ValidationError,
    VersionConflictError,
)
from stemmadb.paging import Page, page
from stemmadb.query import read, sql, sql_rows, tenant_query
from stemmadb.tenancy import workspace_of
from stemmadb.workspaces.data import ApprovalCreate
from stemmadb.workspaces.documents import ApprovalPayload
from stemmadb.workspaces.entities import ApprovalItem
from stemmadb.workspaces.vocabularies import ApprovalPriority, ApprovalStatus

__all__ = [
    "ApprovalCreate",
    "ApprovalPriority",
    "ApprovalStatus",
    "create",
    "get",
    "find",
    "list_all",
    "assign",
    "claim_next",
    "decide",
    "cancel",
    "expire_due",
]

logger: Final = logging.getLogger(__name__)

_MAX_BATCH = 10_000


@tenant_query
def create(session: Session, data: ApprovalCreate) -> ApprovalItem:
    """
    Put something into the queue, PENDING and assigned to nobody. One INSERT in a savepoint.

    Raises:
        ReferenceNotFoundError: no user has the id ``requested_by_id``. The transaction stays usable.
    """
    given = ApprovalCreate.of(data).changes()
    if given.get("requested_by_id") is not None:
        given["requested_by_id"] = parse_reference(given["requested_by_id"], "requested_by_id")
    item = ApprovalItem(**given)
    with session.begin_nested():
        session.add(item)
    logger.info("approval item created: %s", item.type, extra={"item_id": str(item.id)})
    return item


@tenant_query
def get(session: Session, item_id: Id) -> ApprovalItem:
    """
    Return an item by id.

    Raises:
        NotFoundError: no item of this workspace has this id.
    """
    item = find(session, item_id)
    if item is None:
        logger.warning("approval item not found", extra={"item_id": str(item_id)})
        raise NotFoundError("ApprovalItem", item_id)
    return item


@tenant_query
def find(session: Session, item_id: Id) -> ApprovalItem | None:
    """Return an item by id, or None."""
    try:
        key = parse_id(item_id, "ApprovalItem")
    except NotFoundError:
        return None
    logger.debug("reading approval item", extra={"item_id": str(key)})
    return read(session, ApprovalItem, key)


@tenant_query
def list_all(
    session: Session,
    *,
    status: ApprovalStatus | None = None,
    type: str | None = None,
    assigned_to_id: Id | None = None,
    cursor: str | None = None,
    limit: int = 50,
    on_invalid: OnInvalid = "raise",
) -> Page[ApprovalItem]:
    """
    Return items, the highest priority first, then the oldest, by (priority, created_at, id).

    Args:
        session: the caller's session, in a workspace.
        status: only these; with it an index gives the order.
        type: only those of this type.
        assigned_to_id: only those of this user.
        cursor: ``next_cursor`` of the page before; None starts at the first.
        limit: 1 to 200.
        on_invalid: what becomes of an item whose payload cannot be read: "raise" refuses the page, "skip" leaves it out (the page is
            shorter then), "raw" puts a RawDocument in its place.

    Raises:
        CorruptDocumentError, UnknownSchemaVersionError: a payload cannot be read and on_invalid is "raise".
        InvalidCursorError: the cursor is not of this list with these filters.
    """
    statement = select(ApprovalItem)
    if status is not None:
        statement = statement.where(ApprovalItem.status == status)
    if type is not None:
        statement = statement.where(ApprovalItem.type == type)
    if assigned_to_id is not None:
        statement = statement.where(ApprovalItem.assigned_to_id == parse_reference(assigned_to_id, "assigned_to_id"))
    order = [ApprovalItem.priority.desc(), ApprovalItem.created_at, ApprovalItem.id]
    return page(session, statement, order_by=order, cursor=cursor, limit=limit, on_invalid=on_invalid)


# ------------------------------------------------------------------------------------------------------------- who decides

# A user who is missing is a condition, not an error of the database, so that the caller's transaction stays usable.
_ASSIGN = sql(
    ApprovalItem,
    """
    UPDATE stemma.approval_items SET assigned_to_id = :user_id
     WHERE approval_items.workspace_id = :workspace_id AND approval_items.id = :id AND approval_items.status = 'PENDING'
       AND (CAST(:user_id AS uuid) IS NULL
            OR EXISTS (SELECT FROM stemma.users WHERE users.id = :user_id AND users.deleted_at IS NULL))
    RETURNING {columns}
    """,
)


@tenant_query
def assign(session: Session, item_id: Id, user_id: Id | None) -> ApprovalItem:
    """
    Give a pending item to a user, whoever had it, or to nobody. One guarded UPDATE; a second statement, when it met no row, tells why.

    Args:
        session: the caller's session, in a workspace.
        item_id: which one.
        user_id: a live user; whether it is a member is not asked. None puts the item back for ``claim_next``.

    Raises:
        InvalidTransitionError: it is not PENDING any more.
        NotFoundError: no item of this workspace has this id.
        ReferenceNotFoundError: no live user has this id.
    """
    key = parse_id(item_id, "ApprovalItem")
    user = None if user_id is None else parse_reference(user_id, "user_id")
    item = _ASSIGN.write(session, id=key, user_id=user)
    if item is None:
        raise _refusal(session, key, wanted="ASSIGNED", field="user_id")
    logger.info("approval item assigned", extra={"item_id": str(key), "user_id": str(user)})
    return item


# The item is locked as it is chosen, and nobody waits for it. Items with a payload of a newer release are left to that release.
_CLAIM = sql(
    ApprovalItem,
    """
    UPDATE stemma.approval_items SET assigned_to_id = :user_id
     WHERE approval_items.workspace_id = :workspace_id
       AND approval_items.id = (
            SELECT queue.id
              FROM stemma.approval_items AS queue
             WHERE queue.workspace_id = :workspace_id AND queue.status = 'PENDING' AND queue.assigned_to_id IS NULL
               AND queue.type = coalesce(CAST(:type AS text), queue.type)
               AND coalesce(stemma.stemma_document_version(queue.payload), 0) BETWEEN 0 AND :known_version
               AND EXISTS (SELECT FROM stemma.users WHERE users.id = :user_id AND users.deleted_at IS NULL)
             ORDER BY queue.priority DESC, queue.created_at, queue.id
             LIMIT 1
               FOR UPDATE OF queue SKIP LOCKED)
    RETURNING {columns}
    """,
)
_USER_EXISTS = sql_rows("SELECT 1 FROM stemma.users WHERE id = :id AND deleted_at IS NULL")


@tenant_query
def claim_next(session: Session, user_id: Id, *, type: str | None = None) -> ApprovalItem | None:
    """
    Assign the next item that is pending and assigned to nobody, the highest priority first, then the oldest.

    Of concurrent callers each gets another one, and none waits (FOR UPDATE SKIP LOCKED). An item that is overdue counts until
    ``expire_due`` has ended it.

    Args:
        session: the caller's session, in a workspace.
        user_id: a live user; whether it is a member is not asked.
        type: only items of this type.

    Returns:
        The item, now assigned to the user, or None when there is none.

    Raises:
        ReferenceNotFoundError: no live user has this id.
    """
    user = parse_reference(user_id, "user_id")
    item = _CLAIM.write(session, user_id=user, type=type, known_version=ApprovalPayload.newest_version)
    if item is None:
        if _USER_EXISTS.first(session, id=user) is None:
            raise ReferenceNotFoundError("approval_items_assigned_to_id_fkey", "user_id")
        return None
    logger.info("approval item claimed", extra={"item_id": str(item.id), "user_id": str(user)})
    return item


# ---------------------------------------------------------------------------------------------------------------- the end

# Compare and swap: the second of two deciders waits for the first, and then finds nothing pending.
_DECIDE = sql(
    ApprovalItem,
    """
    UPDATE stemma.approval_items
       SET status = :decision, decided_by_id = :decided_by_id, decided_at = now(), decision_note = :note
     WHERE approval_items.workspace_id = :workspace_id AND approval_items.id = :id AND approval_items.status = 'PENDING'
       AND approval_items.version = coalesce(CAST(:expected_version AS integer), approval_items.version)
       AND EXISTS (SELECT FROM stemma.users WHERE users.id = :decided_by_id AND users.deleted_at IS NULL)
    RETURNING {columns}
    """,
)


@tenant_query
def decide(
    session: Session,
    item_id: Id,
    decision: Literal["APPROVED", "REJECTED"],
    *,
    decided_by_id: Id,
    note: str | None = None,
    expected_version: int | None = None,
) -> ApprovalItem:
    """
    Approve or reject a pending item: of any number of deciders exactly one wins, and does what follows from it.

    One guarded UPDATE; a second statement, when it met no row, tells why. Who may decide, the assignee for example, is the caller's rule.

    Args:
        session: the caller's session, in a workspace.
        item_id: which one.
        decision: ``"APPROVED"`` or ``"REJECTED"``.
        decided_by_id: a live user; whether it is a member is not asked.
        note: why.
        expected_version: the ``version`` of what the decider saw; None decides whatever is there.

    Raises:
        InvalidTransitionError: it is not PENDING any more.
        NotFoundError: no item of this workspace has this id.
        ReferenceNotFoundError: no live user has the id ``decided_by_id``.
        VersionConflictError: it is pending, and was changed after the decider saw it.
    """
    if decision not in (ApprovalStatus.APPROVED, ApprovalStatus.REJECTED):
        raise ValidationError("decision is APPROVED or REJECTED", field="decision")
    key, wanted = parse_id(item_id, "ApprovalItem"), str(ApprovalStatus(decision))
    by = parse_reference(decided_by_id, "decided_by_id")
    item = _DECIDE.write(session, id=key, decision=wanted, decided_by_id=by, note=note, expected_version=expected_version)
    if item is None:
        raise _refusal(session, key, wanted=wanted, field="decided_by_id", expected_version=expected_version)
    logger.info("approval item decided: %s", wanted, extra={"item_id": str(key), "user_id": str(by)})
    return item


_CANCEL = sql(
    ApprovalItem,
    """
    UPDATE stemma.approval_items SET status = 'CANCELLED'
     WHERE approval_items.workspace_id = :workspace_id AND approval_items.id = :id AND approval_items.status = 'PENDING'
    RETURNING {columns}
    """,
)


@tenant_query
def cancel(session: Session, item_id: Id) -> ApprovalItem:
    """
    Take a pending item back: nobody decides it any more.

    Raises:
        InvalidTransitionError: it is not PENDING any more.
        NotFoundError: no item of this workspace has this id.
    """
    key = parse_id(item_id, "ApprovalItem")
    item = _CANCEL.write(session, id=key)
    if item is None:
        raise _refusal(session, key, wanted="CANCELLED")
    logger.info("approval item cancelled", extra={"item_id": str(key)})
    return item


# Chosen apart, so that no plan chooses twice. Rows, not entities: a payload that cannot be read keeps no item from expiring.
_EXPIRE = sql_rows(
    """
    WITH due AS MATERIALIZED (
        SELECT id
          FROM stemma.approval_items
         WHERE workspace_id = :workspace_id AND status = 'PENDING' AND due_at < coalesce(CAST(:now AS timestamptz), now())
         ORDER BY due_at, id
         LIMIT :batch
           FOR UPDATE SKIP LOCKED
    )
    UPDATE stemma.approval_items SET status = 'EXPIRED'
      FROM due
     WHERE approval_items.workspace_id = :workspace_id AND approval_items.id = due.id
    RETURNING approval_items.id, approval_items.version, approval_items.updated_at
    """
)


@tenant_query
def expire_due(session: Session, *, now: datetime | None = None, batch: int = 1000) -> int:
    """
    End pending items whose time has passed, the longest overdue first. Call it until it returns 0.

    One statement. Items that somebody has locked are left for the next call (FOR UPDATE SKIP LOCKED): several callers share the work.

    Args:
        session: the caller's session, in a workspace.
        now: with a time zone; None: the time of the transaction, by the database's clock.
        batch: how many at most, 1 to 10,000.

    Returns:
        How many items expired.
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= _MAX_BATCH:
        raise ValidationError(f"batch must be a whole number from 1 to {_MAX_BATCH}", field="batch")
    if now is not None and now.tzinfo is None:
        raise ValidationError("now needs a time zone", field="now")
    expired = _EXPIRE.all(session, now=now, batch=batch)
    _tell_held(session, expired)
    if expired:
        logger.info("approval items expired: %d", len(expired))
    return len(expired)


def _tell_held(session: Session, expired: Sequence[Row[Any]]) -> None:
    """Bring the items that the session holds up to date."""
    workspace_id = workspace_of(session)
    for row in expired:
        held = session.identity_map.get(identity_key(ApprovalItem, (workspace_id, row.id)))
        if held is not None:
            set_committed_value(held, "status", ApprovalStatus.EXPIRED)
            set_committed_value(held, "version", row.version)
            set_committed_value(held, "updated_at", row.updated_at)


def _refusal(session: Session, key: UUID, *, wanted: str, field: str | None = None, expected_version: int | None = None) -> StemmaError:
    """Return why an UPDATE of a pending item met no row; ``field`` is the parameter that named a user."""
    item = read(session, ApprovalItem, key)
    if item is None:
        logger.warning("approval item not found", extra={"item_id": str(key)})
        return NotFoundError("ApprovalItem", key)
    if item.status != ApprovalStatus.PENDING or field is None:
        return InvalidTransitionError(str(item.status), wanted, "ApprovalItem")
    if expected_version not in (None, item.version):
        return VersionConflictError("ApprovalItem", key, expected_version, item.version)
    return ReferenceNotFoundError(
        "approval_items_decided_by_id_fkey" if field == "decided_by_id" else "approval_items_assigned_to_id_fkey", field
    )
