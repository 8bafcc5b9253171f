"""A private module with a function that callers know from another one."""

from sqlalchemy.orm import Session

from stemmadb.query import query


@query
def hidden(session: Session) -> None:
    """Do nothing."""
