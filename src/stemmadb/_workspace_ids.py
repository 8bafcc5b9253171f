"""Which id a workspace has that was named by its slug or id; remembered for a minute, so that a session costs no look-up."""

import time
from uuid import UUID

from sqlalchemy import Engine, text

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
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[wanted] = found, time.monotonic() + _TTL_S
        return found
