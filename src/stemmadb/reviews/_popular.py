"""
The most liked reviews, page by page, in the order of the first page, whoever likes meanwhile.

The first page notes which transactions its statement saw, and its cursors carry that on. On a later page each review stands where it stood
then: at its present place, unless transactions that were not seen have moved it; else at the place before the first of those moves, which
``past_places`` has. For a walk a review is never at two places, so it is not met twice, and if it stays it is not missed.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, Integer, Text
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from stemmadb._cursors import fingerprint_of, read_cursor, write_cursor
from stemmadb.errors import ExpiredCursorError, InvalidCursorError
from stemmadb.paging import Page, check_limit
from stemmadb.query import EntityStatement, sql, sql_rows
from stemmadb.reviews.entities import Review

_CLUSTER = "(SELECT system_identifier FROM pg_control_system())"
# Another one after a restore to an earlier time, which uses the same numbers again.
_TIMELINE = "(SELECT timeline_id FROM pg_control_checkpoint())"
# A transaction sees its own moves before it commits, and a snapshot does not tell them from those that follow. Their numbers do.
_OWN = "(CAST(CAST(pg_current_xact_id_if_assigned() AS text) AS bigint))"
_FIRST: Final = f"""
    SELECT {{columns}}, (SELECT CAST(pg_current_snapshot() AS text)) AS snapshot, (SELECT pg_is_in_recovery()) AS is_standby,
           {_CLUSTER} AS cluster_id, {_TIMELINE} AS timeline, (SELECT {_OWN}) AS own,
           (SELECT max(number) FROM stemma.past_places WHERE transaction_id = {_OWN}) AS last_own
      FROM stemma.reviews
     WHERE reviews.status = 'PUBLISHED'
     ORDER BY reviews.like_count DESC, reviews.id DESC
     LIMIT {{fetch}}
"""  # noqa: S608  (constants only)
_TOLD_FIRST: Final[dict[str, TypeEngine[Any]]] = {
    "snapshot": Text(),
    "is_standby": Boolean(),
    "cluster_id": BigInteger(),
    "timeline": Integer(),
    "own": BigInteger(),
    "last_own": BigInteger(),
}

# Whether the first page did not see a move. A range with two ends is short, PostgreSQL thinks; of one with one end it takes a third of the
# table for granted as long as it does not know the number, and then plans each page anew.
_UNSEEN = """
    {0}.cluster_id = CAST(:cluster_id AS bigint) AND {0}.transaction_id BETWEEN CAST(:xmin AS bigint) AND 9223372036854775807
    AND CASE WHEN {0}.transaction_id = CAST(:own AS bigint) THEN {0}.number > CAST(:last_own AS bigint)
             ELSE {0}.transaction_id >= CAST(:xmax AS bigint) OR {0}.transaction_id = ANY (CAST(:running AS bigint[])) END
"""
# Whether an unseen move is the review's first. Mostly the one before it tells: of the moves of a review that is liked all the time only
# those around the first page are compared.
_FIRST_UNSEEN = f"""
    CASE WHEN was.previous_transaction_id < CAST(:xmin AS bigint) THEN true
         WHEN was.previous_transaction_id >= CAST(:xmax AS bigint) AND was.previous_transaction_id IS DISTINCT FROM CAST(:own AS bigint)
         THEN false
         ELSE (SELECT 1 FROM stemma.past_places AS earlier
                WHERE earlier.review_id = was.review_id AND earlier.number < was.number AND {_UNSEEN.format("earlier")} LIMIT 1) IS NULL END
"""  # noqa: S608  (constants only)
_IS_GOOD = f"""
    {_CLUSTER} = CAST(:cluster_id AS bigint) AND {_TIMELINE} = CAST(:timeline AS integer)
    AND CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint) >= CAST(:xmax AS bigint)
    AND NOT EXISTS (SELECT 1 FROM stemma.past_places AS removed
                     WHERE removed.review_id IS NULL AND removed.cluster_id = CAST(:cluster_id AS bigint)
                       AND removed.transaction_id >= CAST(:xmin AS bigint))
"""  # noqa: S608  (constants only)
# Scalar subqueries, and neither EXISTS nor joins: of those PostgreSQL may make a hash of a whole table, for a page of twenty. Not IS NULL,
# which it takes for rare: it then reckons with thousands of rows for a page, and thinks no plan good enough to be kept.
_NEXT: Final = f"""
    WITH kept AS MATERIALIZED (
        SELECT {{columns}}, reviews.like_count AS place
          FROM stemma.reviews
         WHERE reviews.status = 'PUBLISHED'
           AND (reviews.like_count, reviews.id) < (CAST(:like_count AS integer), CAST(:id AS uuid))
           AND coalesce((SELECT false FROM stemma.past_places AS later
                          WHERE later.review_id = reviews.id AND {_UNSEEN.format("later")} LIMIT 1), true)
         ORDER BY reviews.like_count DESC, reviews.id DESC
         LIMIT {{fetch}}
    ), bottom AS MATERIALIZED (
        SELECT kept.place, kept.id FROM kept ORDER BY kept.place DESC, kept.id DESC OFFSET {{fetch}} - 1
    ), moved AS MATERIALIZED (
        SELECT was.review_id, was.like_count AS place
          FROM stemma.past_places AS was
         WHERE was.like_count IS NOT NULL AND {_UNSEEN.format("was")}
           AND (was.like_count, was.review_id) < (CAST(:like_count AS integer), CAST(:id AS uuid))
           AND (was.like_count, was.review_id)
               > (coalesce((SELECT bottom.place FROM bottom), -1),
                  coalesce((SELECT bottom.id FROM bottom), uuid '00000000-0000-0000-0000-000000000000'))
           AND {_FIRST_UNSEEN}
           AND (SELECT reviews.status FROM stemma.reviews WHERE reviews.id = was.review_id) = 'PUBLISHED'
         ORDER BY was.like_count DESC, was.review_id DESC
         LIMIT {{fetch}}
    )
    SELECT {{columns}}, reviews.place, (SELECT {_IS_GOOD}) AS is_good
      FROM (SELECT {{columns}}, reviews.place FROM kept AS reviews
             UNION ALL
            SELECT {{columns}}, moved.place FROM moved JOIN stemma.reviews ON reviews.id = moved.review_id) AS reviews
     ORDER BY reviews.place DESC, reviews.id DESC
     LIMIT {{fetch}}
"""  # noqa: S608  (constants only)
_TOLD_NEXT: Final[dict[str, TypeEngine[Any]]] = {"place": Integer(), "is_good": Boolean()}
_GOOD: Final = sql_rows(f"SELECT {_IS_GOOD}")
_FINGERPRINT: Final = fingerprint_of(b"stemmadb.reviews.reviews.feed popular", ())
_SNAPSHOT: Final = re.compile(r"[0-9]{1,19}(?:,[0-9]{1,19})+", re.ASCII)
_TOP: Final = (2**31 - 1, UUID(int=2**128 - 1))


@dataclass(frozen=True, slots=True)
class _Walk:
    """What the first page saw."""

    cluster_id: int
    timeline: int
    xmin: int
    """The transactions below had ended."""
    xmax: int
    """The transactions from here on had not."""
    running: tuple[int, ...]
    """Those between that had not, ascending."""
    own: int | None
    """The transaction of the first page itself, if it had written by then."""
    last_own: int
    """The number of the last move by it that the page saw."""

    @classmethod
    def of(cls, row: Sequence[Any]) -> "_Walk":
        """Return the walk that begins with a first page."""
        snapshot, is_standby, cluster_id, timeline, own, last_own = row
        xmin, xmax, running = snapshot.split(":")
        walk = cls(cluster_id, timeline, int(xmin), int(xmax), tuple(map(int, filter(None, running.split(",")))), own, last_own or 0)
        # A standby does not tell which transactions are running: whatever may be counts as not seen.
        return replace(walk, xmax=walk.xmin, running=()) if is_standby else walk

    @classmethod
    def read(cls, cursor: str) -> tuple["_Walk", tuple[int, UUID]]:
        """
        Return a cursor's walk, and where the page before ended.

        Raises:
            InvalidCursorError: it is none of ours; nothing was sent.
        """
        values = read_cursor(cursor, _FINGERPRINT, [None] * 7)
        like_count, id, cluster_id, timeline, own, last_own, snapshot = values
        numbers = (like_count, cluster_id, timeline, last_own, 0 if own is None else own)
        if any(type(number) is not int or not 0 <= number < 2**63 for number in numbers) or max(like_count, timeline) >= 2**31:
            raise InvalidCursorError
        if type(id) is not UUID or type(snapshot) is not str or not _SNAPSHOT.fullmatch(snapshot):
            raise InvalidCursorError
        xmax, xmin, *steps = map(int, snapshot.split(","))
        running = tuple(accumulate(steps, initial=xmin))[1:]
        if not xmin <= xmax < 2**63 or not all(steps[1:]) or (running and running[-1] >= xmax):
            raise InvalidCursorError
        return cls(cluster_id, timeline, xmin, xmax, running, own, last_own), (like_count, id)

    def write(self, place: tuple[int, UUID]) -> str:
        """Return the cursor of the page behind a place."""
        # As distances: a busy server has hundreds of transactions.
        edges = (self.xmin, *self.running)
        steps = [after - before for before, after in zip(edges, self.running, strict=False)]
        snapshot = ",".join(map(str, (self.xmax, self.xmin, *steps)))
        return write_cursor([*place, self.cluster_id, self.timeline, self.own, self.last_own, snapshot], _FINGERPRINT)

    def parameters(self) -> dict[str, Any]:
        """Return what the statements ask for."""
        return {
            "cluster_id": self.cluster_id,
            "timeline": self.timeline,
            "xmin": self.xmin,
            "xmax": self.xmax,
            "running": list(self.running),
            "own": self.own,
            "last_own": self.last_own,
        }


# With the number in its text a statement gets a plan for any parameters, which is kept; without it PostgreSQL plans each page anew.
@functools.cache
def _statement(text: str, fetch: int) -> EntityStatement[Review]:
    """Return the statement for a page of so many rows."""
    return sql(Review, text.replace("{fetch}", str(fetch)), beside=_TOLD_FIRST if text is _FIRST else _TOLD_NEXT)


def popular(session: Session, cursor: str | None, limit: int) -> Page[Review]:
    """
    Return a page of the reviews that were published when the walk began and still are, the most liked of then first. One statement.

    An empty page behind a cursor takes two, and so does the first page on a standby.

    Raises:
        ExpiredCursorError: the server no longer knows, or does not know yet, what the first page saw.
        InvalidCursorError: the cursor is not of this list; nothing was sent.
        ValidationError: the limit is out of bounds; nothing was sent.
    """
    check_limit(limit)
    if cursor is None:
        found = _statement(_FIRST, limit + 1).pairs(session)
        if not found:
            return Page([])
        walk = _Walk.of(found[0][1])
        if found[0][1][1]:
            return _later(session, walk, _TOP, limit)
        return _page([(review, review.like_count) for review, _ in found], walk, limit)
    walk, place = _Walk.read(cursor)
    return _later(session, walk, place, limit)


def _later(session: Session, walk: _Walk, place: tuple[int, UUID], limit: int) -> Page[Review]:
    parameters = walk.parameters()
    found = _statement(_NEXT, limit + 1).pairs(session, like_count=place[0], id=place[1], **parameters)
    if not (found[0][1][1] if found else _GOOD.scalar(session, **parameters)):
        raise ExpiredCursorError
    return _page([(review, beside[0]) for review, beside in found], walk, limit)


def _page(found: Sequence[tuple[Review, int]], walk: _Walk, limit: int) -> Page[Review]:
    has_more = len(found) > limit
    shown = found[:limit]
    following = walk.write((shown[-1][1], shown[-1][0].id)) if has_more else None
    return Page([review for review, _ in shown], following, has_more)
