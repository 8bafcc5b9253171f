"""What ``stemmadb doctor`` looks at in the rows of this pack: whether every workspace has somebody who may run it."""

from collections.abc import Iterator

from sqlalchemy.orm import Session

from stemmadb.query import sql_rows
from stemmadb.reports import Check, Finding, FindingKind

_KINDS = {
    "workspace_without_owner": FindingKind(
        "error",
        "the workspace {object} has no live member who is an OWNER: nobody may run it",
        "stemmadb members role PERSON OWNER --workspace {object}, or stemmadb members add PERSON --role OWNER",
    ),
}
_MOST = 20
_OWNERLESS = sql_rows(
    """
    SELECT workspaces.slug AS slug
      FROM stemma.workspaces
     WHERE workspaces.deleted_at IS NULL
       AND NOT EXISTS (SELECT FROM stemma.workspace_members
                         JOIN stemma.users ON users.id = workspace_members.user_id AND users.deleted_at IS NULL
                        WHERE workspace_members.workspace_id = workspaces.id AND workspace_members.role = 'OWNER')
     ORDER BY workspaces.created_at, workspaces.id
     LIMIT :most
    """
)


def _look(session: Session) -> Iterator[Finding]:
    for row in _OWNERLESS.all(session, most=_MOST):
        yield _KINDS["workspace_without_owner"].finding("workspace_without_owner", row.slug)


CHECK = Check(_KINDS, _look)
