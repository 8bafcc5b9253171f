"""What ``stemmadb doctor`` looks at in the rows of this pack: whether what is built upon is frozen."""

from collections.abc import Iterator

from sqlalchemy.orm import Session

from stemmadb.query import sql_rows
from stemmadb.reports import Check, Finding, FindingKind

_KINDS = {
    "unfrozen_definition": FindingKind(
        "error",
        "the definition {object} has versions, scenarios or runs built on it, and can still be changed under them",
        "UPDATE stemma.definitions SET frozen_at = now() WHERE workspace_id = '{workspace}' AND id = '{object}'",
    ),
}
_MOST = 20
_UNFROZEN = sql_rows(
    """
    SELECT definitions.workspace_id AS workspace_id, definitions.id AS id
      FROM stemma.workspaces
      JOIN stemma.definitions ON definitions.workspace_id = workspaces.id
     WHERE definitions.frozen_at IS NULL
       AND (EXISTS (SELECT FROM stemma.definitions AS child
                     WHERE child.workspace_id = definitions.workspace_id AND child.parent_id = definitions.id)
            OR EXISTS (SELECT FROM stemma.scenarios
                        WHERE scenarios.workspace_id = definitions.workspace_id AND scenarios.definition_id = definitions.id)
            OR EXISTS (SELECT FROM stemma.runs
                        WHERE runs.workspace_id = definitions.workspace_id AND runs.definition_id = definitions.id))
     LIMIT :most
    """
)


def _look(session: Session) -> Iterator[Finding]:
    for row in _UNFROZEN.all(session, most=_MOST):
        yield _KINDS["unfrozen_definition"].finding("unfrozen_definition", str(row.id), workspace=row.workspace_id)


CHECK = Check(_KINDS, _look)
