"""
Analyses: what an application has computed of a run, in versions, with a hash of everything it was computed from.

    key = analyses.input_hash(session, run.id)
    found = analyses.find_cached(session, key, analysis_type="basic")
    if found is None:
        found = analyses.save(session, run.id, "basic", AnalysisOutput(summary={"n": 12}), input_hash=key)

Nothing is ever overwritten: the highest version is the current one, and whether it is stale is computed when it is asked.
"""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy import SQLColumnExpression, bindparam, select
from sqlalchemy import delete as delete_from
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from stemmadb._exports import adopt
from stemmadb.data import checked_text
from stemmadb.documents import dump_json
from stemmadb.entity import Id, parse_id, parse_reference, uuid7
from stemmadb.errors import ConflictError, DocumentError, NotFoundError, ValidationError
from stemmadb.evaluation._analysis_inputs import hash_of, input_hash, log
from stemmadb.evaluation._run_rows import key_of as run_key_of
from stemmadb.evaluation.documents import AnalysisOutput
from stemmadb.evaluation.entities import AnalysisResult
from stemmadb.paging import Page, page
from stemmadb.query import read, sql, sql_rows, tenant_query

__all__ = [
    "save",
    "get",
    "find",
    "get_output",
    "get_latest",
    "find_latest",
    "get_version",
    "list_versions",
    "input_hash",
    "is_stale",
    "find_cached",
    "delete",
]

_ROUNDS: Final = 4
"""How often a version is numbered anew that others have taken, and once."""

_OF_KEY: Final = """
           analysis_results.workspace_id = :workspace_id
       AND analysis_results.run_id = :run_id
       AND analysis_results.analysis_type = :analysis_type
       AND analysis_results.rubric_id IS NOT DISTINCT FROM CAST(:rubric_id AS uuid)
       AND analysis_results.cohort_id IS NOT DISTINCT FROM CAST(:cohort_id AS uuid)"""
_SAVE: Final = sql(
    AnalysisResult,
    f"""
    INSERT INTO stemma.analysis_results
           (workspace_id, id, run_id, rubric_id, cohort_id, analysis_type, version, code_version, input_hash, output)
    SELECT :workspace_id, :id, :run_id, CAST(:rubric_id AS uuid), CAST(:cohort_id AS uuid), :analysis_type,
           coalesce(max(analysis_results.version), 0) + 1, CAST(:code_version AS text), CAST(:input_hash AS bytea), CAST(:output AS jsonb)
      FROM stemma.analysis_results
     WHERE {_OF_KEY}
        ON CONFLICT (workspace_id, run_id, analysis_type, rubric_id, cohort_id, version) DO NOTHING
    RETURNING {{columns}}
    """,  # noqa: S608  (of constants only)
)


@tenant_query
def save(
    session: Session,
    run_id: Id,
    analysis_type: str,
    output: AnalysisOutput,
    *,
    rubric_id: Id | None = None,
    cohort_id: Id | None = None,
    code_version: str | None = None,
    input_hash: bytes | None = None,
) -> AnalysisResult:
    """
    Store an output as the next version; those before stay. One statement, and one more for each version that others store meanwhile.

    Args:
        session: the caller's session, in a workspace.
        run_id: what was analysed.
        analysis_type: ``basic``, ``win_rate``, or the application's own: small letters, digits, ``_``, ``.``, ``-``, at most 100.
        output: what was found.
        rubric_id: the version of a rubric that it was made by. Each rubric has versions of its own.
        cohort_id: the cohort that it was made of, likewise.
        code_version: of the code that computed it.
        input_hash: 32 bytes, of ``input_hash`` before the computation; None: of the inputs as they are now, a statement more.

    Raises:
        ConflictError: others stored a version each time that this one was numbered.
        ReferenceNotFoundError: the run, the rubric or the cohort does not exist in this workspace.
        ValidationError: the type, an id or the hash is malformed.
    """
    parameters = _key(parse_reference(run_id, "run_id"), analysis_type, rubric_id, cohort_id)
    if code_version is not None:
        checked_text(code_version, "code_version")
    with session.begin_nested():
        digest = input_hash
        if digest is None:
            # Where the run, the rubric or the cohort does not exist, the foreign keys refuse what follows.
            digest = hash_of(session, parameters["run_id"], parameters["rubric_id"], parameters["cohort_id"], None) or bytes(32)
        for _ in range(_ROUNDS):
            stored = _SAVE.write(
                session, **parameters, id=uuid7(), code_version=code_version, input_hash=_checked_hash(digest), output=dump_json(output)
            )
            if stored is not None:
                break
        else:
            raise ConflictError("AnalysisResult", ("run_id", "analysis_type", "rubric_id", "cohort_id", "version"))
    set_committed_value(stored, "output", output)
    log.info("saved version %d of analysis %r of run %s: %s", stored.version, analysis_type, stored.run_id, stored.id)
    return stored


@tenant_query
def get(session: Session, analysis_id: Id) -> AnalysisResult:
    """
    Return a result, without its output.

    Raises:
        NotFoundError: no result of this workspace has this id.
    """
    return _get(session, _key_of(analysis_id))


@tenant_query
def find(session: Session, analysis_id: Id) -> AnalysisResult | None:
    """Return a result, without its output, or None."""
    try:
        return _get(session, _key_of(analysis_id))
    except NotFoundError:
        return None


_OUTPUT: Final = sql_rows(
    """
    SELECT CAST(analysis_results.output AS text)
      FROM stemma.analysis_results
     WHERE analysis_results.workspace_id = :workspace_id AND analysis_results.id = :id
    """
)


@tenant_query
def get_output(session: Session, analysis_id: Id) -> AnalysisOutput:
    """
    Return what an analysis found, in the newest shape; the stored row is as it was.

    Raises:
        NotFoundError: no result of this workspace has this id.
        UnknownSchemaVersionError: a newer release wrote it.
        CorruptDocumentError: it is not what its version says.
    """
    key = _key_of(analysis_id)
    log.debug("reading the output of analysis %s", key)
    stored = _OUTPUT.scalar(session, id=key)
    if stored is None:
        raise _missing(analysis_id)
    try:
        return AnalysisOutput.load(stored)
    except DocumentError as error:
        raise error.located("analysis_results", "output", key) from None


_LATEST: Final = sql(
    AnalysisResult,
    f"""
    SELECT {{columns}}
      FROM stemma.analysis_results
     WHERE {_OF_KEY}
       AND (CAST(:version AS integer) IS NULL OR analysis_results.version = CAST(:version AS integer))
     ORDER BY analysis_results.version DESC
     LIMIT 1
    """,  # noqa: S608  (of constants only)
)


@tenant_query
def get_latest(
    session: Session, run_id: Id, analysis_type: str, *, rubric_id: Id | None = None, cohort_id: Id | None = None
) -> AnalysisResult:
    """
    Return the highest version of an analysis, without its output. One statement.

    Raises:
        NotFoundError: there is none of this run, type, rubric and cohort.
        ValidationError: rubric_id or cohort_id is malformed.
    """
    found = find_latest(session, run_id, analysis_type, rubric_id=rubric_id, cohort_id=cohort_id)
    if found is None:
        raise NotFoundError("AnalysisResult", f"{analysis_type} of run {run_id}")
    return found


@tenant_query
def find_latest(
    session: Session, run_id: Id, analysis_type: str, *, rubric_id: Id | None = None, cohort_id: Id | None = None
) -> AnalysisResult | None:
    """
    Return the highest version of an analysis, without its output, or None. One statement.

    Raises:
        NotFoundError: run_id is malformed.
        ValidationError: rubric_id or cohort_id is malformed.
    """
    parameters = _key(run_key_of(run_id), analysis_type, rubric_id, cohort_id)
    log.debug("reading the latest analysis %r of run %s", analysis_type, run_id)
    return _LATEST.write(session, **parameters, version=None)


@tenant_query
def get_version(
    session: Session, run_id: Id, analysis_type: str, version: int, *, rubric_id: Id | None = None, cohort_id: Id | None = None
) -> AnalysisResult:
    """
    Return a version of an analysis by its number, without its output. One statement.

    Raises:
        NotFoundError: there is no such version.
        ValidationError: rubric_id or cohort_id is malformed.
    """
    parameters = _key(run_key_of(run_id), analysis_type, rubric_id, cohort_id)
    log.debug("reading version %s of analysis %r of run %s", version, analysis_type, run_id)
    known = not isinstance(version, bool) and isinstance(version, int) and 0 < version < 2**31
    found = _LATEST.write(session, **parameters, version=version) if known else None
    if found is None:
        raise _missing(f"{analysis_type} {version} of run {run_id}")
    return found


@tenant_query
def list_versions(
    session: Session, run_id: Id, analysis_type: str | None = None, *, cursor: str | None = None, limit: int = 50
) -> Page[AnalysisResult]:
    """
    Return a page of a run's results, by type, then highest version first, without their outputs.

    Args:
        session: the caller's session, in a workspace.
        run_id: whose results. An unknown one has none.
        analysis_type: only results of this type.
        cursor: the ``next_cursor`` of the page before.
        limit: the most results, 1 to 200.

    Raises:
        InvalidCursorError: the cursor is not of this list.
    """
    key = run_key_of(run_id)
    log.debug("listing analyses of run %s", key)
    wanted = select(AnalysisResult).where(AnalysisResult.run_id == key)
    if analysis_type is not None:
        wanted = wanted.where(AnalysisResult.analysis_type == checked_text(analysis_type, "analysis_type"))
    order: list[SQLColumnExpression[Any]] = [AnalysisResult.analysis_type.asc(), AnalysisResult.version.desc()]
    return page(session, wanted, order_by=order, cursor=cursor, limit=limit)


@tenant_query
def is_stale(session: Session, analysis_id: Id, *, parameters: Mapping[str, str | int | float | bool | None] | None = None) -> bool:
    """
    Return whether the inputs of a result are others now. Computed when it is asked. Two statements.

    Args:
        session: the caller's session, in a workspace.
        analysis_id: which result.
        parameters: those that its ``input_hash`` was computed with.

    Raises:
        NotFoundError: no result of this workspace has this id.
    """
    found = _get(session, _key_of(analysis_id))
    return hash_of(session, found.run_id, found.rubric_id, found.cohort_id, parameters) != found.input_hash


_CACHED: Final = sql(
    AnalysisResult,
    """
    SELECT {columns}
      FROM stemma.analysis_results
     WHERE analysis_results.workspace_id = :workspace_id
       AND analysis_results.input_hash = CAST(:input_hash AS bytea)
       AND analysis_results.analysis_type = :analysis_type
       AND (CAST(:code_version AS text) IS NULL OR analysis_results.code_version = CAST(:code_version AS text))
     ORDER BY analysis_results.version DESC, analysis_results.id DESC
     LIMIT 1
    """,
)


@tenant_query
def find_cached(session: Session, input_hash: bytes, *, analysis_type: str, code_version: str | None = None) -> AnalysisResult | None:
    """
    Return the newest result that was computed from these inputs, without its output, or None. One statement over an index.

    Args:
        session: the caller's session, in a workspace.
        input_hash: 32 bytes, of ``input_hash``.
        analysis_type: of which type.
        code_version: only results of this version of the code; None: of any.

    Raises:
        ValidationError: the hash has not 32 bytes.
    """
    log.debug("looking for a cached analysis %r", analysis_type)
    if code_version is not None:
        checked_text(code_version, "code_version")
    return _CACHED.write(
        session,
        input_hash=_checked_hash(input_hash),
        analysis_type=checked_text(analysis_type, "analysis_type"),
        code_version=code_version,
    )


_DELETE: Final = delete_from(AnalysisResult).where(AnalysisResult.id == bindparam("id"))


@tenant_query
def delete(session: Session, analysis_id: Id) -> None:
    """
    Delete a version of a result. Its number is given again only if it was the highest.

    Raises:
        NotFoundError: no result of this workspace has this id.
    """
    key = _key_of(analysis_id)
    if not session.execute(_DELETE, {"id": key}).rowcount:  # type: ignore[attr-defined]
        raise _missing(analysis_id)
    log.info("deleted analysis %s", key)


def _key(run_id: UUID, analysis_type: str, rubric_id: Id | None, cohort_id: Id | None) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "analysis_type": checked_text(analysis_type, "analysis_type"),
        "rubric_id": None if rubric_id is None else parse_reference(rubric_id, "rubric_id"),
        "cohort_id": None if cohort_id is None else parse_reference(cohort_id, "cohort_id"),
    }


def _checked_hash(digest: bytes) -> bytes:
    if not isinstance(digest, bytes) or len(digest) != 32:
        raise ValidationError("input_hash has 32 bytes", "input_hash")
    return digest


def _key_of(analysis_id: Id) -> UUID:
    try:
        return parse_id(analysis_id, "AnalysisResult")
    except NotFoundError:
        log.warning("analysis %r was not found: that is no id", analysis_id)
        raise


def _missing(analysis: Id) -> NotFoundError:
    log.warning("analysis %s was not found", analysis)
    return NotFoundError("AnalysisResult", analysis)


def _get(session: Session, key: UUID) -> AnalysisResult:
    log.debug("reading analysis %s", key)
    found = read(session, AnalysisResult, key)
    if found is None:
        raise _missing(key)
    return found


adopt(globals())
