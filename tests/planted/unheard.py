"""A module of functions without twins, which log nowhere."""

import logging

from sqlalchemy.orm import Session

from stemmadb.query import query

__all__ = ["nothing"]

log = logging.getLogger("planted")


@query
def nothing(session: Session) -> None:
    """Do nothing."""
    log.debug("nothing")
