"""Which id a workspace has that was named by its slug or id; remembered for a minute, so that a session costs no look-up."""

import time
import weakref
from uuid import UUID

from sqlalchemy import Engine, event, text
from sqlalchemy.orm import Session

from stemmadb import tenancy
from stemmadb._sqlstates import translate
from stemmadb.errors import NotFoundError, StemmaError

_TTL_S = 60.0
_MAX_KNOWN = 10_000
_BY_SLUG = text("SELECT id FROM stemma.workspaces WHERE slug = :slug AND deleted_at IS NULL")
_BY_ID = text("SELECT id FROM stemma.workspaces WHERE id = :id AND deleted_at IS NULL")


class WorkspaceIds:
    """What one Database knows of workspaces."""

    def __init__(self) -> None:
        self._known: dict[str | UUID, tuple[UUID, float]] = {}
        _all.add(self)

    def resolve(self, slug_or_id: str | UUID, engine: Engine) -> UUID:
        """
        Return the id of a live workspace.

        Raises:
            NotFoundError: there is none of that name.
            ValidationError: it is neither a text nor a UUID; nothing was sent.
        """
        wanted = tenancy.parse(slug_or_id)
        known = self._known.get(wanted)
        if known is not None and known[1] > time.monotonic():
            return known[0]
        asked_of = self._known
        statement, parameters = (_BY_ID, {"id": wanted}) if isinstance(wanted, UUID) else (_BY_SLUG, {"slug": wanted})
        try:
            with engine.connect() as connection:
                found: UUID | None = connection.scalar(statement, parameters)
        except StemmaError:
            raise
        except Exception as error:
            raise translate(error) from None
        if found is None:
            raise NotFoundError("Workspace", wanted)
        if len(asked_of) >= _MAX_KNOWN:
            asked_of.clear()
        # Not into what took its place meanwhile: the answer may be older than the change that it was forgotten for.
        asked_of[wanted] = found, time.monotonic() + _TTL_S
        return found

    def forget(self) -> None:
        """Ask again from now on."""
        self._known = {}


_all: "weakref.WeakSet[WorkspaceIds]" = weakref.WeakSet()


def forget_at_commit(session: Session) -> None:
    """
    Let every Database of this process ask again once the session has committed: a slug leads elsewhere then, or nowhere.

    Other processes go on with what they know for up to 60 seconds.
    """

    def forget(_session: Session) -> None:
        for known in list(_all):
            known.forget()

    event.listen(session, "after_commit", forget, once=True)
