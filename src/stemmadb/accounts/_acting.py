"""Changes that are recorded as an administrator's, whoever acts in the session."""

import contextlib
import dataclasses
from collections.abc import Iterator

from sqlalchemy.orm import Session

from stemmadb import audit
from stemmadb.audit import Actor, ActorType, actor_of
from stemmadb.tenancy import connection_of


@contextlib.contextmanager
def as_admin(session: Session) -> Iterator[None]:
    """
    Let what the statements inside change be recorded with the actor type ADMIN, and the user who acts. Two settings more.

    When a statement fails, the transaction is of no use until it is rolled back, which takes the setting back too.
    """
    acting = actor_of(session)
    # What the session still holds back is flushed before, as its own actor's.
    session.flush()
    connection = connection_of(session)
    audit.send(connection, Actor(type=ActorType.ADMIN) if acting is None else dataclasses.replace(acting, type=ActorType.ADMIN))
    yield
    audit.send(connection, acting)
