"""What the modules about scenarios share: ids as callers give them, rows that are missing, and how many rows are stored at once."""

import itertools
import json
import logging
from collections.abc import Iterable, Iterator
from typing import Final, Literal
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from stemmadb._sqlstates import translate
from stemmadb.documents import dump_json
from stemmadb.entity import Id, parse_id, uuid7
from stemmadb.errors import ConflictError, NotFoundError, ReferenceNotFoundError, StemmaError
from stemmadb.evaluation._freezing import hold_frozen
from stemmadb.evaluation.data import ScenarioCreate
from stemmadb.evaluation.entities import Scenario
from stemmadb.query import sql

# The private modules of the pack log under the name that callers import.
log = logging.getLogger("stemmadb.evaluation.scenarios")

CHUNK: Final = 1000
"""How many scenarios one statement stores."""

_GIVEN: Final = """
    WITH given AS MATERIALIZED (
        SELECT given.n, given.id, given.name, given.content
          FROM json_to_recordset(CAST(:rows AS json)) AS given (n integer, id uuid, name text, content jsonb)
    ), added AS (
        INSERT INTO stemma.scenarios (workspace_id, id, definition_id, name, content)
        SELECT :workspace_id, given.id, :definition_id, given.name, given.content
          FROM given
         ORDER BY given.n
"""
_RETURNED: Final = """
        RETURNING scenarios.workspace_id, scenarios.id, scenarios.definition_id, scenarios.name, scenarios.content_version,
                  scenarios.content_hash, scenarios.created_at, scenarios.updated_at
    )
"""

_IN_ORDER: Final = """
    SELECT {columns}
      FROM given
      JOIN added AS scenarios ON scenarios.id = given.id
     ORDER BY given.n
"""
_UNLESS_THERE: Final = """
        ON CONFLICT (workspace_id, definition_id, content_hash) DO NOTHING
"""
# What was there is read from the table and what is new from the INSERT, whose rows this statement does not see in the table.
_WITH_FOUND: Final = """
    , wanted AS (
        SELECT stemma.stemma_document_hash(given.content) AS content_hash, min(given.n) AS place
          FROM given
         GROUP BY 1
    ), found AS (
        SELECT added.workspace_id, added.id, added.definition_id, added.name, added.content_version, added.content_hash, added.created_at,
               added.updated_at
          FROM added
     UNION ALL
        SELECT old.workspace_id, old.id, old.definition_id, old.name, old.content_version, old.content_hash, old.created_at, old.updated_at
          FROM wanted
          JOIN stemma.scenarios AS old
            ON old.workspace_id = :workspace_id AND old.definition_id = :definition_id AND old.content_hash = wanted.content_hash
    )
    SELECT {columns}
      FROM found AS scenarios
      JOIN wanted ON wanted.content_hash = scenarios.content_hash
     ORDER BY wanted.place
"""
_CREATE: Final = sql(Scenario, "".join((_GIVEN, _RETURNED, _IN_ORDER)))
_CREATE_OR_FIND: Final = sql(Scenario, "".join((_GIVEN, _UNLESS_THERE, _RETURNED, _WITH_FOUND)))


def key_of(scenario_id: Id) -> UUID:
    """
    Return the id as a UUID.

    Raises:
        NotFoundError: it is malformed, so no scenario has it.
    """
    try:
        return parse_id(scenario_id, "Scenario")
    except NotFoundError:
        log.warning("scenario %r was not found: that is no id", scenario_id)
        raise


def missing(scenario_id: Id) -> NotFoundError:
    """Log that there is no such scenario in the session's workspace, and return the error that says so."""
    log.warning("scenario %s was not found", scenario_id)
    return NotFoundError("Scenario", scenario_id)


def store(
    session: Session, definition_id: UUID, items: Iterable[ScenarioCreate], *, on_conflict: Literal["error", "skip"]
) -> list[Scenario]:
    """
    Store scenarios under a lock on their definition, which is frozen: one statement for each 1,000, all or none.

    The lock makes the rows of others visible before the first statement: nobody adds a scenario to the definition meanwhile.

    Raises:
        ReferenceNotFoundError: there is no such definition.
        ConflictError: a name is taken; with "error" also equal content.
    """
    statement = _CREATE if on_conflict == "error" else _CREATE_OR_FIND
    stored: dict[UUID, Scenario] = {}
    with session.begin_nested():
        for number, rows in enumerate(_chunks(items)):
            if number == 0 and hold_frozen(session, definition_id) is None:
                raise ReferenceNotFoundError("scenarios_definition_id_fkey", "definition_id")
            try:
                found = statement.all(session, rows=rows, definition_id=definition_id)
            except IntegrityError as error:
                raise _explained(translate(error)) from None
            # Equal content in a later chunk is the row of the earlier one, and stays in its place.
            stored |= {scenario.id: scenario for scenario in found if scenario.id not in stored}
    return list(stored.values())


def _explained(error: StemmaError) -> StemmaError:
    """Say what a hash stands for."""
    if isinstance(error, ConflictError) and "content_hash" in error.fields:
        message = "The definition has a scenario of equal content already: use that one (create_many returns it), or give other content"
        return ConflictError("Scenario", ("definition_id", "content"), message)
    return error


def _chunks(items: Iterable[ScenarioCreate]) -> Iterator[str]:
    """Yield scenarios as JSON arrays of at most 1,000 rows."""
    pending = iter(items)
    while chunk := [ScenarioCreate.of(item) for item in itertools.islice(pending, CHUNK)]:
        yield f"[{','.join(_row(number, item) for number, item in enumerate(chunk))}]"


def _row(number: int, item: ScenarioCreate) -> str:
    plain = json.dumps({"n": number, "id": str(uuid7()), "name": item.name}, ensure_ascii=False)
    return f'{plain[:-1]},"content":{dump_json(item.content)}}}'
