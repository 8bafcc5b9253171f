"""How workspaces and what waits in them are made up for tests."""

from collections.abc import Iterable, Mapping
from typing import ClassVar

from sqlalchemy.orm import Session

from stemmadb.query import sql_rows, translated
from stemmadb.testing import _values
from stemmadb.testing.factories import EntityFactory, PostGenerated, Use
from stemmadb.workspaces._entering import entered
from stemmadb.workspaces.entities import ApprovalItem, ApprovalStatus, Workspace

__all__ = ["FACTORIES", "WorkspaceFactory", "ApprovalItemFactory"]

_ADD_OWNER = sql_rows("INSERT INTO stemma.workspace_members (workspace_id, user_id, role) VALUES (:id, :owner_id, 'OWNER')")
_DECIDED = (ApprovalStatus.APPROVED, ApprovalStatus.REJECTED)


class WorkspaceFactory(EntityFactory[Workspace]):
    """A workspace with its owner, who is its member."""

    slug: ClassVar[object] = Use(lambda: f"w-{_values.token()}")

    @classmethod
    def create_each(cls, session: Session, rows: Iterable[Mapping[str, object]]) -> list[Workspace]:
        """Store the workspaces, and the memberships of their owners, each inside its own."""
        with translated(), session.begin_nested():
            made = super().create_each(session, rows)
            for workspace in made:
                with entered(session, workspace.id):
                    _ADD_OWNER.run(session, id=workspace.id, owner_id=workspace.owner_id)
        return made


class ApprovalItemFactory(EntityFactory[ApprovalItem]):
    """An item that waits. ``status=APPROVED`` or ``REJECTED`` brings ``decided_at``, and ``decided_at`` an approval."""

    status: ClassVar[object] = PostGenerated(
        lambda _, values: ApprovalStatus.APPROVED if values.get("decided_at") else ApprovalStatus.PENDING
    )
    decided_at: ClassVar[object] = PostGenerated(lambda _, values: _values.moment() if values["status"] in _DECIDED else None)


FACTORIES = (WorkspaceFactory, ApprovalItemFactory)
