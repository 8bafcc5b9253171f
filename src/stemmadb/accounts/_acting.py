"""Changes that are recorded as an administrator's, whoever acts in the session."""

import contextlib
from collections.abc import Iterator
from typing import Final

from sqlalchemy.orm import Session

from stemmadb.query import sql_rows

_RISE: Final = sql_rows(
    """
    WITH now AS MATERIALIZED (
        SELECT coalesce(pg_catalog.current_setting('stemma.actor', true), '') AS before, stemma.stemma_actor() AS actor
    )
    SELECT now.before, pg_catalog.set_config('stemma.actor', CAST(now.actor || jsonb_build_object('type', 'ADMIN') AS text), true) FROM now
    """
)
_STEP_BACK: Final = sql_rows("SELECT pg_catalog.set_config('stemma.actor', :before, true)")


@contextlib.contextmanager
def as_admin(session: Session) -> Iterator[None]:
    """
    Let what the statements inside change be recorded with the actor type ADMIN, and the user who acts. Two small statements more.

    When one fails, the transaction is of no use until it is rolled back, which takes the setting back too.
    """
    before = _RISE.scalar(session)
    yield
    _STEP_BACK.run(session, before=before)
