"""
What changed between versions of a definition, and who changed it. Import these functions from ``stemmadb.evaluation.definitions``.

Contents are compared in their newest shape, so a step from one schema version to the next is no change.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from stemmadb.entity import Id, parse_reference
from stemmadb.errors import CorruptDocumentError, ValidationError
from stemmadb.evaluation._blaming import blame_values
from stemmadb.evaluation._definition_rows import key_of, log, missing, read_content
from stemmadb.evaluation._lineage import PAIRS, lineage
from stemmadb.evaluation._lineage_data import ABSENT, BlameEntry, MergeConflict, MergeResult
from stemmadb.evaluation._merging import merge_documents
from stemmadb.evaluation._patches import ContentDiff, changes_between, document_of, values_of
from stemmadb.evaluation.documents import DefinitionContent
from stemmadb.evaluation.entities import Definition
from stemmadb.notebook import Table
from stemmadb.query import sql_rows, tenant_query

_CONTENTS = sql_rows(
    """
    SELECT id, CAST(content AS text) AS content
      FROM stemma.definitions
     WHERE workspace_id = :workspace_id AND id IN (:a_id, :b_id)
    """
)


@tenant_query
def diff(session: Session, a_id: Id, b_id: Id) -> ContentDiff:
    """
    Return what leads from the content of one version to that of another, related or not: ``diff(a, b).apply(a) == b``. One statement.

    Raises:
        CorruptDocumentError, UnknownSchemaVersionError: a content cannot be read.
        NotFoundError: no definition of this workspace has one of the ids.
    """
    a_key, b_key = key_of(a_id), key_of(b_id)
    log.debug("reading contents of definitions %s and %s", a_key, b_key)
    found = {row.id: row.content for row in _CONTENTS.all(session, a_id=a_key, b_id=b_key)}
    a, b = (_values(found, key) for key in (a_key, b_key))
    return ContentDiff(changes_between(a, b))


def _values(found: Mapping[UUID, str], key: UUID) -> dict[str, Any]:
    if key not in found:
        raise missing(key)
    return values_of(read_content(key, found[key]))


# A version that only repeats its parent's content is not fetched with it.
_CONTENTS_OF_LINE = sql_rows(
    """
    WITH RECURSIVE line AS (
        SELECT id, parent_id
          FROM stemma.definitions
         WHERE workspace_id = :workspace_id AND id = :id
     UNION ALL
        SELECT parent.id, parent.parent_id
          FROM line,
               LATERAL (SELECT id, parent_id
                          FROM stemma.definitions
                         WHERE workspace_id = :workspace_id AND id = line.parent_id
                        OFFSET 0) AS parent
    )
    SELECT definitions.id, definitions.created_by_id, definitions.created_at,
           CASE WHEN definitions.content_hash IS DISTINCT FROM lag(definitions.content_hash) OVER (ORDER BY definitions.depth)
                THEN CAST(definitions.content AS text) END AS content
      FROM line
      JOIN stemma.definitions ON definitions.workspace_id = :workspace_id AND definitions.id = line.id
     ORDER BY definitions.depth
    """
)


@tenant_query
def blame(session: Session, definition_id: Id) -> list[BlameEntry]:
    """
    Return, for every value in the content of a version, the version that last changed it.

    What ``diff`` from a parent to its child leaves alone keeps its version, wherever it stands: an item behind one that was inserted into a
    list is the item that it was. Of items that changed places as few as possible are new. Values are the scalars, and empty objects and
    lists, which are of the version that emptied them; ``schema_version`` is none. One statement, which reads the contents of all ancestors
    (``benchmarks/lineage.py``).

    Returns:
        By pointer, in the order of its text. Notebooks show it as a table.

    Raises:
        CorruptDocumentError, UnknownSchemaVersionError: the content of a version in the line cannot be read.
        NotFoundError: no definition of this workspace has this id.
    """
    key = key_of(definition_id)
    log.debug("reading contents of definition %s and its ancestors", key)
    line = _CONTENTS_OF_LINE.all(session, id=key)
    if not line:
        raise missing(definition_id)
    found = blame_values((row, values_of(read_content(row.id, row.content))) for row in line if row.content is not None)
    del found["/schema_version"]
    return Table(BlameEntry(place, row.id, row.created_by_id, row.created_at) for place, row in sorted(found.items()))


_CONTENTS_TO_MERGE = sql_rows(
    PAIRS  # noqa: S608  (of constants only)
    + """
    SELECT definitions.id, CAST(definitions.content AS text) AS content,
           coalesce(definitions.id = (SELECT a_id FROM pair WHERE a_id = b_id), false) AS is_base
      FROM stemma.definitions
     WHERE definitions.workspace_id = :workspace_id
       AND definitions.id = ANY (ARRAY(SELECT a_id FROM pair WHERE a_id = b_id
                                       UNION ALL SELECT CAST(:a_id AS uuid) UNION ALL SELECT CAST(:b_id AS uuid)))
    """
)


@tenant_query
def merge(session: Session, ours_id: Id, theirs_id: Id) -> MergeResult:
    """
    Merge the contents of two versions against that of their merge base. Nothing is written: fork with the content.

    What one side changed is taken from it, what both changed alike is taken once; what they changed differently is a conflict, which
    ``MergeResult.resolve`` decides. Parts of a list that do not overlap merge. Where they overlap, items are merged one by one: by their
    places if nothing was inserted or removed, objects only if they kept their names; else by their names (``id``, ``key``, ``name`` or
    ``label``), if all have one. Versions of different trees merge against an empty content. One statement.

    Returns:
        The merged content, or the conflicts in the order of their places. One of the whole content (the pointer is empty) says that what
        both changed does not make a content together.

    Raises:
        CorruptDocumentError, UnknownSchemaVersionError: a content cannot be read.
        NotFoundError: no definition of this workspace has one of the ids.
    """
    ours_key, theirs_key = key_of(ours_id), key_of(theirs_id)
    log.debug("reading contents of definitions %s and %s and their merge base", ours_key, theirs_key)
    rows = _CONTENTS_TO_MERGE.all(session, a_id=ours_key, b_id=theirs_key)
    found = {row.id: row.content for row in rows}
    ours, theirs = (_values(found, key) for key in (ours_key, theirs_key))
    base = next((_values(found, row.id) for row in rows if row.is_base), None)
    return _merged(base, ours, theirs)


def _merged(base: dict[str, Any] | None, ours: dict[str, Any], theirs: dict[str, Any]) -> MergeResult:
    merged, conflicts = merge_documents(base or {}, ours, theirs)
    if conflicts:
        return MergeResult(None, conflicts, merged)
    try:
        return MergeResult(document_of(DefinitionContent, merged))
    except CorruptDocumentError:
        # Each change is right by itself, and together they are not: two axes of one name, say.
        conflict = MergeConflict("", ABSENT if base is None else base, ours, theirs)
        return MergeResult(None, [conflict], conflict)


@tenant_query
def bisect(session: Session, *, good_id: Id, bad_id: Id, results: Mapping[UUID, bool] | None = None) -> Definition | None:
    """
    Return the version to run next to find the one from which on a metric is bad.

    Run the version that comes back, note what came out in ``results``, and ask again. Of n versions below the good one this takes at
    most log2(n) runs, rounded up. One statement.

    Args:
        session: the caller's session, in a workspace.
        good_id: an ancestor known to be good.
        bad_id: its descendant, known to be bad.
        results: for versions between the two, True where the run was good. Others are ignored.

    Returns:
        The middle of what is open. None when nothing is: the first bad version is the nearest to the good one that is False in
        ``results``, or else ``bad_id``.

    Raises:
        NotFoundError: no definition of this workspace has one of the ids.
        ValidationError: the bad version does not descend from the good one.
    """
    line = lineage(session, good_id, bad_id)
    if len(line) < 2 or line[-1].depth - line[0].depth != len(line) - 1:
        raise ValidationError("bad_id must descend from good_id: the first bad version is looked for between the two", "bad_id")
    known = {parse_reference(key, "results"): good for key, good in (results or {}).items()}
    last_good, first_bad = 0, len(line) - 1
    for place in range(1, first_bad):
        good = known.get(line[place].id)
        if good is False:
            first_bad = place
            break
        if good:
            last_good = place
    return line[(last_good + first_bad) // 2] if first_bad - last_good > 1 else None
