"""What walks through the most liked reviews need of the past, and when it is removed."""

import logging
from datetime import timedelta
from typing import Final

from sqlalchemy.orm import Session

from stemmadb.errors import ValidationError
from stemmadb.query import query, sql_rows

log: Final = logging.getLogger("stemmadb.reviews.reviews")

# The row that is written instead tells cursors that what they need may be gone, in the transaction that removes it.
_PRUNE: Final = sql_rows(
    """
    WITH here AS MATERIALIZED (
        SELECT system_identifier AS cluster_id FROM pg_control_system()
    ), due AS MATERIALIZED (
        SELECT past_places.transaction_id, past_places.number
          FROM stemma.past_places
         WHERE past_places.review_id IS NOT NULL AND past_places.created_at < now() - CAST(:older_than AS interval)
         ORDER BY past_places.transaction_id, past_places.number
         LIMIT :batch
           FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM stemma.past_places USING due
         WHERE past_places.transaction_id = due.transaction_id AND past_places.number = due.number
        RETURNING past_places.transaction_id, past_places.cluster_id
    ), last AS MATERIALIZED (
        SELECT max(gone.transaction_id) AS transaction_id FROM gone JOIN here ON here.cluster_id = gone.cluster_id
    ), noted AS (
        INSERT INTO stemma.past_places (transaction_id, cluster_id)
        SELECT last.transaction_id, here.cluster_id FROM last, here WHERE last.transaction_id IS NOT NULL
    ), outdated AS (
        DELETE FROM stemma.past_places USING here, last
         WHERE past_places.review_id IS NULL
           AND (past_places.cluster_id <> here.cluster_id OR past_places.transaction_id <= last.transaction_id)
    )
    SELECT count(*) FROM gone
    """
)
_MAX_BATCH: Final = 100_000


@query
def prune_places(session: Session, *, older_than: timedelta = timedelta(days=1), batch: int = 10_000) -> int:
    """
    Remove what only old walks through ``feed(sort="popular")`` need. Call it until it returns less than ``batch``; commit between.

    One statement. A walk that began before what was removed is refused from then on with ExpiredCursorError. Beside other callers it
    takes other rows, and it waits for no reaction.

    Args:
        session: the caller's session; needs no workspace.
        older_than: the age of what is removed; at least 0. A walk can be continued for so long.
        batch: how many rows at most, 1 to 100,000.

    Returns:
        How many rows were removed.
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= _MAX_BATCH:
        raise ValidationError(f"batch must be a whole number from 1 to {_MAX_BATCH:,}", field="batch")
    if not isinstance(older_than, timedelta) or older_than < timedelta(0):
        raise ValidationError("older_than must be a timedelta, and not negative", field="older_than")
    removed = int(_PRUNE.scalar(session, older_than=older_than, batch=batch))
    log.debug("past places removed", extra={"rows": removed})
    return removed
