"""
Cohorts: named segments of transcripts, looked up by their criteria each time.

    cohort = cohorts.create(session, CohortCreate(name="hard", criteria=CohortCriteria(dimension_values={"stakes": ("5",)})))
    print(cohorts.count(session, cohort.id))

A transcript belongs to a cohort when it meets all criteria that are given.
"""

import logging
from typing import Any, Final
from uuid import UUID

from sqlalchemy import bindparam, select
from sqlalchemy import delete as delete_from
from sqlalchemy.orm import Session

from stemmadb._exports import adopt
from stemmadb.data import checked_text
from stemmadb.documents import OnInvalid, dump_json
from stemmadb.entity import Id, parse_id, parse_reference
from stemmadb.errors import NotFoundError, VersionConflictError
from stemmadb.evaluation._cohort_members import MEMBERS, parameters_of
from stemmadb.evaluation.data import CohortCreate, CohortUpdate
from stemmadb.evaluation.documents import CohortCriteria
from stemmadb.evaluation.entities import Cohort
from stemmadb.paging import Page, page
from stemmadb.query import read, sql, sql_rows, tenant_query

__all__ = [
    "create",
    "get",
    "find",
    "find_by_name",
    "list_all",
    "update",
    "resolve",
    "count",
    "delete",
    "CohortCreate",
    "CohortUpdate",
    "OnInvalid",
]

log: Final = logging.getLogger(__name__)


@tenant_query
def create(session: Session, data: CohortCreate) -> Cohort:
    """
    Store a cohort.

    Raises:
        ConflictError: the workspace has a cohort of this name.
        ReferenceNotFoundError: there is no such user.
    """
    data = CohortCreate.of(data)
    created_by = None if data.created_by_id is None else parse_reference(data.created_by_id, "created_by_id")
    cohort = Cohort(name=data.name, description=data.description, criteria=data.criteria, created_by_id=created_by)
    with session.begin_nested():
        session.add(cohort)
        session.flush()
    log.info("created cohort %r: %s", cohort.name, cohort.id)
    return cohort


@tenant_query
def get(session: Session, cohort_id: Id) -> Cohort:
    """
    Return a cohort.

    Raises:
        NotFoundError: no cohort of this workspace has this id.
        UnknownSchemaVersionError, CorruptDocumentError: its criteria cannot be read.
    """
    return _get(session, _key_of(cohort_id))


@tenant_query
def find(session: Session, cohort_id: Id) -> Cohort | None:
    """
    Return a cohort, or None.

    Raises:
        UnknownSchemaVersionError, CorruptDocumentError: its criteria cannot be read.
    """
    try:
        key = _key_of(cohort_id)
    except NotFoundError:
        return None
    return _find(session, key)


_BY_NAME: Final = sql(Cohort, "SELECT {columns} FROM stemma.cohorts WHERE cohorts.workspace_id = :workspace_id AND cohorts.name = :name")


@tenant_query
def find_by_name(session: Session, name: str) -> Cohort | None:
    """
    Return the cohort of a name, or None. Letter case counts.

    Raises:
        UnknownSchemaVersionError, CorruptDocumentError: its criteria cannot be read.
    """
    log.debug("reading cohort %r", name)
    cohort = _BY_NAME.write(session, name=checked_text(name, "name"))
    if cohort is None:
        log.warning("cohort %r was not found", name)
    return cohort


@tenant_query
def list_all(session: Session, *, cursor: str | None = None, limit: int = 50, on_invalid: OnInvalid = "raise") -> Page[Cohort]:
    """
    Return a page of cohorts, by name.

    Args:
        session: the caller's session, in a workspace.
        cursor: the ``next_cursor`` of the page before.
        limit: the most cohorts, 1 to 200.
        on_invalid: what becomes of a cohort whose criteria cannot be read: "raise" refuses the page, "skip" leaves it out, "raw" puts a
            RawDocument in their place.

    Raises:
        UnknownSchemaVersionError, CorruptDocumentError: criteria cannot be read and on_invalid is "raise".
        InvalidCursorError: the cursor is not of this list.
    """
    log.debug("listing cohorts")
    wanted = select(Cohort).execution_options(populate_existing=True)
    return page(session, wanted, order_by=[Cohort.name.asc()], cursor=cursor, limit=limit, on_invalid=on_invalid)


_UPDATE: Final = sql(
    Cohort,
    """
    UPDATE stemma.cohorts
       SET name = CASE WHEN :has_name THEN CAST(:name AS text) ELSE cohorts.name END,
           description = CASE WHEN :has_description THEN CAST(:description AS text) ELSE cohorts.description END,
           criteria = coalesce(CAST(:criteria AS jsonb), cohorts.criteria)
     WHERE cohorts.workspace_id = :workspace_id AND cohorts.id = :id
       AND (CAST(:expected AS integer) IS NULL OR cohorts.version = CAST(:expected AS integer))
       AND (CAST(:criteria AS jsonb) IS NULL OR stemma.stemma_document_version(cohorts.criteria) BETWEEN 0 AND :known)
    RETURNING {columns}
    """,
)


@tenant_query
def update(session: Session, cohort_id: Id, data: CohortUpdate, *, expected_version: int | None = None) -> Cohort:
    """
    Change a cohort. With other criteria the analyses made with it are stale. One guarded UPDATE.

    Args:
        session: the caller's session, in a workspace.
        cohort_id: which one.
        data: what changes.
        expected_version: the version that the caller read; None takes whatever is there.

    Raises:
        ConflictError: another cohort has this name.
        NotFoundError: no cohort of this workspace has this id.
        VersionConflictError: somebody saved first.
        UnknownSchemaVersionError: a newer release wrote the stored criteria; they stay.
    """
    key = _key_of(cohort_id)
    changes = CohortUpdate.of(data).changes()
    criteria = changes.get("criteria")
    values: dict[str, Any] = {"name": changes.get("name"), "description": changes.get("description")}
    with session.begin_nested():
        cohort = _UPDATE.write(
            session,
            id=key,
            has_name="name" in changes,
            has_description="description" in changes,
            criteria=None if criteria is None else dump_json(criteria),
            expected=expected_version,
            known=CohortCriteria.newest_version,
            **values,
        )
        if cohort is None:
            present = _get(session, key)
            raise VersionConflictError("Cohort", key, expected_version, present.version)
    return cohort


_IDS: Final = sql_rows(MEMBERS + " SELECT members.id FROM members ORDER BY members.id")  # noqa: S608  (of constants only)
_COUNT: Final = sql_rows(MEMBERS + " SELECT count(*) FROM members")  # noqa: S608  (of constants only)


@tenant_query
def resolve(session: Session, cohort_id: Id, *, include_invalidated: bool = False) -> list[UUID]:
    """
    Return the ids of the transcripts that belong to a cohort, by id. Two statements.

    Args:
        session: the caller's session, in a workspace.
        cohort_id: which one. Without criteria it has every transcript of the workspace.
        include_invalidated: also those that were invalidated.

    Raises:
        NotFoundError: no cohort of this workspace has this id.
        UnknownSchemaVersionError, CorruptDocumentError: its criteria cannot be read.
    """
    cohort = _get(session, _key_of(cohort_id))
    parameters = parameters_of(cohort.criteria, include_invalidated=include_invalidated)
    return [row.id for row in _IDS.all(session, **parameters)]


@tenant_query
def count(session: Session, cohort_id: Id) -> int:
    """
    Return how many live transcripts belong to a cohort. Two statements.

    Raises:
        NotFoundError: no cohort of this workspace has this id.
        UnknownSchemaVersionError, CorruptDocumentError: its criteria cannot be read.
    """
    cohort = _get(session, _key_of(cohort_id))
    found: int = _COUNT.scalar(session, **parameters_of(cohort.criteria))
    return found


_DELETE: Final = delete_from(Cohort).where(Cohort.id == bindparam("id"))


@tenant_query
def delete(session: Session, cohort_id: Id) -> None:
    """
    Delete a cohort; its transcripts stay.

    Raises:
        NotFoundError: no cohort of this workspace has this id.
        StillReferencedError: analyses were made with it.
    """
    key = _key_of(cohort_id)
    with session.begin_nested():
        if not session.execute(_DELETE, {"id": key}).rowcount:  # type: ignore[attr-defined]
            log.warning("cohort %s was not found", cohort_id)
            raise NotFoundError("Cohort", cohort_id)
    log.info("deleted cohort %s", key)


def _key_of(cohort_id: Id) -> UUID:
    try:
        return parse_id(cohort_id, "Cohort")
    except NotFoundError:
        log.warning("cohort %r was not found: that is no id", cohort_id)
        raise


def _find(session: Session, key: UUID) -> Cohort | None:
    log.debug("reading cohort %s", key)
    cohort = read(session, Cohort, key)
    if cohort is None:
        log.warning("cohort %s was not found", key)
    return cohort


def _get(session: Session, key: UUID) -> Cohort:
    cohort = _find(session, key)
    if cohort is None:
        raise NotFoundError("Cohort", key)
    return cohort


adopt(globals())
