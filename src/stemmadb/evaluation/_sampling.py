"""
Which scenarios of a definition a sample holds.

Scenarios are ordered by a hash of the seed and their content, and the sample is the head of that order: the same for the same seed whatever
the ids, in every workspace that holds the same scenarios, and a larger sample contains the smaller one.
"""

import secrets
from typing import Any, Final
from uuid import UUID

from sqlalchemy.orm import Session

from stemmadb.errors import ValidationError
from stemmadb.evaluation.entities import Scenario
from stemmadb.query import sql

# The content hash has a fixed length and stands last, so that no two pairs of seed and hash are the same text.
_SAMPLE: Final = sql(
    Scenario,
    """
    WITH ranked AS (
        SELECT scenarios.id,
               row_number() OVER (ORDER BY sha256(convert_to(:seed, 'UTF8') || scenarios.content_hash), scenarios.id) AS place,
               count(*) OVER () AS total
          FROM stemma.scenarios
         WHERE scenarios.workspace_id = :workspace_id AND scenarios.definition_id = :definition_id
    )
    SELECT {columns}
      FROM ranked
      JOIN stemma.scenarios ON scenarios.workspace_id = :workspace_id AND scenarios.id = ranked.id
     WHERE ranked.place <= coalesce(CAST(:count AS bigint), ceil(ranked.total * CAST(:percentage AS numeric) / 100))
     ORDER BY scenarios.id
    """,
)


def sample(session: Session, definition_id: UUID, *, percentage: float | None, count: int | None, seed: int | None) -> list[Scenario]:
    """
    Return a sample of a definition's scenarios, by id. One statement; writes nothing.

    Args:
        session: the caller's session, in a workspace.
        definition_id: whose scenarios. An unknown one has none.
        percentage: how much of them, over 0 to 100, rounded up to whole scenarios.
        count: how many of them, at least 1; all when there are fewer. Give either this or percentage.
        seed: makes the sample repeatable; None draws a new one each time.

    Raises:
        ValidationError: neither or both of percentage and count are given, or one is out of bounds; nothing was sent.
    """
    return _SAMPLE.all(session, definition_id=definition_id, **_checked(percentage, count), seed=str(_drawn() if seed is None else seed))


def _checked(percentage: float | None, count: int | None) -> dict[str, Any]:
    if (percentage is None) == (count is None):
        raise ValidationError("give either a percentage or a count of the scenarios", "percentage")
    if percentage is not None and not 0 < percentage <= 100:
        raise ValidationError("percentage must be over 0 and at most 100", "percentage")
    if count is not None and not 1 <= count < 2**63:
        raise ValidationError("count must be at least 1", "count")
    return {"percentage": percentage, "count": count}


def _drawn() -> int:
    return secrets.randbits(63)
