"""
Scenarios: the variants of a definition that models are asked about.

    made = scenarios.generate(session, definition.id)
    few = scenarios.sample(session, definition.id, percentage=10, seed=7)

A scenario's content is fixed from birth, and equal content under one definition is one row: adding it twice adds nothing. The first
scenario freezes its definition.
"""

import itertools
from collections.abc import Iterable, Mapping
from typing import Literal

from sqlalchemy import bindparam, select
from sqlalchemy import delete as delete_from
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from stemmadb.documents import escape
from stemmadb.entity import Id, parse_reference
from stemmadb.errors import DocumentError, NotFoundError, ValidationError
from stemmadb.evaluation import _sampling
from stemmadb.evaluation._definition_rows import key_of as definition_key_of
from stemmadb.evaluation._definition_rows import missing as definition_missing
from stemmadb.evaluation._definition_rows import read_content
from stemmadb.evaluation._expansion import expand
from stemmadb.evaluation._freezing import hold_frozen
from stemmadb.evaluation._scenario_rows import key_of, log, missing, store
from stemmadb.evaluation.data import ScenarioCreate
from stemmadb.evaluation.documents import ScenarioContent
from stemmadb.evaluation.entities import Scenario
from stemmadb.paging import Page, page
from stemmadb.query import read, sql, sql_rows, tenant_query

__all__ = [
    "create",
    "create_many",
    "generate",
    "get",
    "find",
    "get_content",
    "list_for_definition",
    "rename",
    "sample",
    "delete",
    "ScenarioCreate",
]


@tenant_query
def create(session: Session, definition_id: Id, data: ScenarioCreate) -> Scenario:
    """
    Store a scenario and freeze its definition.

    Locks the definition FOR NO KEY UPDATE until the transaction ends.

    Raises:
        ReferenceNotFoundError: no definition of this workspace has this id.
        ConflictError: the definition has a scenario of this name, or one of equal content under whatever name.
    """
    data = ScenarioCreate.of(data)
    (scenario,) = store(session, parse_reference(definition_id, "definition_id"), [data], on_conflict="error")
    set_committed_value(scenario, "content", data.content)
    log.info("created scenario %r of definition %s: %s", scenario.name, scenario.definition_id, scenario.id)
    return scenario


@tenant_query
def create_many(
    session: Session, definition_id: Id, items: Iterable[ScenarioCreate], *, on_conflict: Literal["error", "skip"] = "skip"
) -> list[Scenario]:
    """
    Store many scenarios of one definition and freeze it. Given the same again, it adds nothing and returns the same rows.

    One statement for each 1,000, under a lock on the definition (FOR NO KEY UPDATE) until the transaction ends. All or none.

    Args:
        session: the caller's session, in a workspace.
        definition_id: whose scenarios.
        items: read as they are stored, so a generator will do. None at all does nothing, and freezes nothing.
        on_conflict: "skip" takes the row that is there for equal content, whatever its name; "error" refuses it.

    Returns:
        One row for each distinct content, in the order of its first item, those that existed included. Contents are not fetched.

    Raises:
        ReferenceNotFoundError: no definition of this workspace has this id.
        ConflictError: a name belongs to a scenario of other content; with "error" also equal content.
        ValidationError: on_conflict is something else.
    """
    if on_conflict not in ("error", "skip"):
        raise ValidationError('on_conflict is "error" or "skip"', "on_conflict")
    return store(session, parse_reference(definition_id, "definition_id"), items, on_conflict=on_conflict)


@tenant_query
def generate(session: Session, definition_id: Id, *, limit: int | None = None) -> list[Scenario]:
    """
    Store the scenarios that a definition describes: every combination of one choice from each dimension.

    ``{severity}`` in the template becomes the choice of the dimension ``severity``: a value, or the label of a level, of which
    ``dimension_values`` keeps the score. Other braces stay as they are, and so does the preamble. ``matching_rules`` are words for
    people: to leave combinations out, make the scenarios yourself and give them to ``create_many``. A definition without dimensions has one
    scenario, its template.

    Generating again adds nothing. Statements and locks as create_many, and one more that reads the content.

    Args:
        session: the caller's session, in a workspace.
        definition_id: what is expanded; it is frozen.
        limit: the most scenarios, at least 1; None for all of them. The last dimension varies fastest.

    Returns:
        The scenarios in that order, those that existed included.

    Raises:
        NotFoundError: no definition of this workspace has this id.
        ValidationError: a dimension has neither values nor levels, two dimensions have one name, or limit is below 1.
        UnknownSchemaVersionError, CorruptDocumentError: the content cannot be read.
    """
    if limit is not None and limit < 1:
        raise ValidationError("limit must be at least 1, or None for all scenarios", "limit")
    key = definition_key_of(definition_id)
    with session.begin_nested():
        # Before the content is read: from here on it cannot change.
        definition = hold_frozen(session, key)
        if definition is None:
            raise definition_missing(definition_id)
        content = read_content(key, _DEFINITION_CONTENT.scalar(session, id=key))
        made = store(session, key, itertools.islice(expand(content, definition.name), limit), on_conflict="skip")
    log.info("generated %d scenarios of definition %s", len(made), key)
    return made


@tenant_query
def get(session: Session, scenario_id: Id) -> Scenario:
    """
    Return a scenario, without its content.

    Raises:
        NotFoundError: no scenario of this workspace has this id.
    """
    scenario = _find(session, scenario_id)
    if scenario is None:
        raise NotFoundError("Scenario", scenario_id)
    return scenario


@tenant_query
def find(session: Session, scenario_id: Id) -> Scenario | None:
    """Return a scenario, without its content, or None."""
    return _find(session, scenario_id)


_CONTENT = sql_rows(
    "SELECT CAST(scenarios.content AS text) FROM stemma.scenarios WHERE scenarios.workspace_id = :workspace_id AND scenarios.id = :id"
)


@tenant_query
def get_content(session: Session, scenario_id: Id) -> ScenarioContent:
    """
    Return what a scenario says, in the newest shape; the stored row is as it was.

    Raises:
        NotFoundError: no scenario of this workspace has this id.
        UnknownSchemaVersionError: a newer release wrote it.
        CorruptDocumentError: it is not what its version says.
    """
    key = key_of(scenario_id)
    log.debug("reading the content of scenario %s", key)
    stored = _CONTENT.scalar(session, id=key)
    if stored is None:
        raise missing(scenario_id)
    try:
        return ScenarioContent.load(stored)
    except DocumentError as error:
        raise error.located("scenarios", "content", key) from None


@tenant_query
def list_for_definition(
    session: Session,
    definition_id: Id,
    *,
    dimension_values: Mapping[str, str | int] | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[Scenario]:
    """
    Return a page of a definition's scenarios, oldest first, without their contents.

    Args:
        session: the caller's session, in a workspace.
        definition_id: whose scenarios. An unknown one has none.
        dimension_values: only scenarios that have all of these values; ``1`` and ``"1"`` are different values.
        cursor: the ``next_cursor`` of the page before.
        limit: the most scenarios, 1 to 200.

    Raises:
        InvalidCursorError: the cursor is not of this list.
    """
    key = definition_key_of(definition_id)
    log.debug("listing scenarios of definition %s", key)
    wanted = select(Scenario).where(Scenario.definition_id == key)
    if dimension_values:
        # Stored strings are escaped, so what is looked for is escaped too.
        values = {escape(name): escape(value) if isinstance(value, str) else value for name, value in dimension_values.items()}
        wanted = wanted.where(Scenario.content["dimension_values"].contains(values))
    return page(session, wanted, order_by=[Scenario.created_at.asc()], cursor=cursor, limit=limit)


_RENAME = sql(
    Scenario,
    """
    UPDATE stemma.scenarios
       SET name = :name
     WHERE scenarios.workspace_id = :workspace_id AND scenarios.id = :id
    RETURNING {columns}
    """,
)


@tenant_query
def rename(session: Session, scenario_id: Id, name: str) -> Scenario:
    """
    Give a scenario another name. Its content never changes: for other content, create another scenario.

    Raises:
        NotFoundError: no scenario of this workspace has this id.
        ConflictError: another scenario of the definition has this name.
        ValidationError: the name is blank.
    """
    key = key_of(scenario_id)
    checked = ScenarioCreate(name=name, content=ScenarioContent(prompt="")).name
    with session.begin_nested():
        scenario = _RENAME.write(session, id=key, name=checked)
        if scenario is None:
            raise missing(scenario_id)
    return scenario


@tenant_query
def sample(
    session: Session, definition_id: Id, *, percentage: float | None = None, count: int | None = None, seed: int | None = None
) -> list[Scenario]:
    """
    Return some of a definition's scenarios, by id. Writes nothing.

    The order is that of a hash of the seed and the content, so the same seed gives the same scenarios wherever they are stored, and a
    larger sample holds the smaller one. One statement.

    Args:
        session: the caller's session, in a workspace.
        definition_id: whose scenarios. An unknown one has none.
        percentage: over 0 to 100, rounded up to whole scenarios. Give either this or count.
        count: how many, at least 1; all of them when there are fewer.
        seed: None draws another sample each time.

    Raises:
        ValidationError: neither or both of percentage and count, or one out of bounds; nothing was sent.
    """
    key = definition_key_of(definition_id)
    log.debug("sampling scenarios of definition %s", key)
    return _sampling.sample(session, key, percentage=percentage, count=count, seed=seed)


_DELETE = delete_from(Scenario).where(Scenario.id == bindparam("id"))


@tenant_query
def delete(session: Session, scenario_id: Id) -> None:
    """
    Delete a scenario that no run has used.

    Raises:
        NotFoundError: no scenario of this workspace has this id.
        StillReferencedError: a run selected it, planned it, or has a transcript of it.
    """
    key = key_of(scenario_id)
    with session.begin_nested():
        if not session.execute(_DELETE, {"id": key}).rowcount:  # type: ignore[attr-defined]
            raise missing(scenario_id)
    log.info("deleted scenario %s", key)


_DEFINITION_CONTENT = sql_rows(
    """
    SELECT CAST(definitions.content AS text)
      FROM stemma.definitions
     WHERE definitions.workspace_id = :workspace_id AND definitions.id = :id
    """
)


def _find(session: Session, scenario_id: Id) -> Scenario | None:
    try:
        key = key_of(scenario_id)
    except NotFoundError:
        return None
    log.debug("reading scenario %s", key)
    scenario = read(session, Scenario, key)
    if scenario is None:
        log.warning("scenario %s was not found", key)
    return scenario
