"""How workspaces and what waits in them are made up for tests."""

from stemmadb.testing import _values
from stemmadb.testing.factories import EntityFactory, PostGenerated, Use
from stemmadb.workspaces.entities import ApprovalItem, ApprovalStatus, Workspace

__all__ = ["FACTORIES", "WorkspaceFactory", "ApprovalItemFactory"]

_DECIDED = (ApprovalStatus.APPROVED, ApprovalStatus.REJECTED)


class WorkspaceFactory(EntityFactory[Workspace]):
    """The row of a workspace, and its owner. Nobody is a member of it yet: ``stemmadb.testing.make_workspace`` makes one to work in."""

    slug = Use(lambda: f"w-{_values.token()}")


class ApprovalItemFactory(EntityFactory[ApprovalItem]):
    """An item that waits. ``status=APPROVED`` or ``REJECTED`` brings ``decided_at``, and ``decided_at`` an approval."""

    status = PostGenerated(lambda _, values: ApprovalStatus.APPROVED if values.get("decided_at") else ApprovalStatus.PENDING)
    decided_at = PostGenerated(lambda _, values: _values.moment() if values["status"] in _DECIDED else None)


FACTORIES = (WorkspaceFactory, ApprovalItemFactory)
