"""Rubrics: versions under a name that never change."""

import uuid
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from tests.evaluation.judged_runs import Bench, judgement

from stemmadb.aio.evaluation import rubrics as async_rubrics
from stemmadb.database import Database
from stemmadb.errors import (
    InvalidCursorError,
    NotFoundError,
    ReferenceNotFoundError,
    StemmaError,
    StillReferencedError,
    UnknownSchemaVersionError,
    ValidationError,
)
from stemmadb.evaluation import rubrics, scores
from stemmadb.evaluation.documents import RubricContent, RubricValue
from stemmadb.testing import assert_max_queries, make_workspace, run_together


def content(*keys: str) -> RubricContent:
    return RubricContent(values=tuple(RubricValue(key=key, label=key.title()) for key in keys))


@pytest.mark.requirement("VR-038", "AD-010")
def test_versions_count_up(session: Session) -> None:
    """Another content is the next version; the same content again is the version that is there."""
    with assert_max_queries(4):
        first = rubrics.create_version(session, "care", content("harm"))
    second = rubrics.create_version(session, "care", content("harm", "duty"))
    assert (first.version, second.version) == (1, 2)
    assert rubrics.create_version(session, "care", content("harm", "duty")) is second
    third = rubrics.create_version(session, "care", content("harm"))
    assert third.version == 3
    assert rubrics.create_version(session, "other", content("harm")).version == 1
    assert rubrics.get_content(session, second.id) == content("harm", "duty")
    assert rubrics.get_version(session, "care", 2) is second
    assert [rubric.version for rubric in rubrics.list_versions(session, "care")] == [3, 2, 1]


@pytest.mark.requirement("VR-038")
def test_the_highest_active_version_is_found(session: Session) -> None:
    """Versions can be taken out and put back; a version may be stored without being active."""
    first = rubrics.create_version(session, "care", content("a"))
    second = rubrics.create_version(session, "care", content("b"))
    rubrics.create_version(session, "care", content("c"), active=False)
    assert rubrics.get_active(session, "care") is second
    assert not rubrics.set_active(session, second.id, False).is_active
    assert rubrics.get_active(session, "care") is first
    rubrics.create_version(session, "bias", content("a"))
    assert [(rubric.name, rubric.version) for rubric in rubrics.list_all(session)] == [("bias", 1), ("care", 1)]
    everything = rubrics.list_all(session, active_only=False, limit=2)
    assert [(rubric.name, rubric.version) for rubric in everything] == [("bias", 1), ("care", 3)]
    assert len(rubrics.list_all(session, active_only=False, cursor=everything.next_cursor)) == 2


@pytest.mark.requirement("AD-010")
def test_a_version_never_changes(session: Session) -> None:
    """The database refuses another content, name or number."""
    rubric = rubrics.create_version(session, "care", content("a"))
    for change in ('content = \'{"schema_version": 1, "values": []}\'', "name = 'x'", "version = 9"):
        with pytest.raises(Exception, match="a rubric version never changes"), session.begin_nested():
            session.execute(text(f"UPDATE stemma.rubrics SET {change} WHERE id = :id"), {"id": rubric.id})


@pytest.mark.requirement("VR-038")
def test_what_scores_name_stays(session: Session) -> None:
    """A version that scores were made by cannot be deleted; another one can."""
    bench = Bench(session, 1)
    run = bench.run([None])
    rubric = rubrics.create_version(session, "care", content("harm"))
    scores.record(session, bench.transcript(run), judgement(1.0, name="harm", rubric_id=rubric.id))
    with pytest.raises(StillReferencedError):
        rubrics.delete(session, rubric.id)
        session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
    unused = rubrics.create_version(session, "care", content("duty"))
    rubrics.delete(session, unused.id)
    assert rubrics.find(session, unused.id) is None


def test_what_is_not_there_is_not_found(session: Session) -> None:
    """Unknown ids, names and versions raise NotFoundError where find returns None."""
    rubrics.create_version(session, "care", content("a"))
    unknown = uuid.uuid4()
    for call in (
        lambda: rubrics.get(session, unknown),
        lambda: rubrics.get(session, "no id"),
        lambda: rubrics.get_content(session, unknown),
        lambda: rubrics.get_active(session, "Care"),
        lambda: rubrics.get_version(session, "care", 2),
        lambda: rubrics.get_version(session, "care", 2**40),
        lambda: rubrics.set_active(session, unknown, True),
        lambda: rubrics.delete(session, unknown),
    ):
        with pytest.raises(NotFoundError):
            call()
    assert rubrics.find(session, "no id") is None
    for name in ("", " ", "a\0"):
        with pytest.raises(ValidationError):
            rubrics.create_version(session, name, content("a"))
    with pytest.raises(ReferenceNotFoundError):
        rubrics.create_version(session, "care", content("b"), created_by_id=unknown)
        session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
    with pytest.raises(InvalidCursorError):
        rubrics.list_versions(session, "care", cursor="edited")


def test_a_newer_content_is_refused_and_kept(session: Session) -> None:
    """Reading what a newer release wrote raises; the row is as it was."""
    session.execute(text("INSERT INTO stemma.rubrics (name, content) VALUES ('n', '{\"schema_version\": 99, \"values\": []}')"))
    rubric = rubrics.get_active(session, "n")
    with pytest.raises(UnknownSchemaVersionError):
        rubrics.get_content(session, rubric.id)


@pytest.mark.race
@pytest.mark.requirement("VR-038")
def test_of_eight_at_once_each_has_a_number(committed_db: Database) -> None:
    """Eight who store other contents at once get the versions 1 to 8; eight who store the same get one."""
    workspace_id = make_workspace(committed_db, "race")

    def store(*keys: str) -> int:
        with committed_db.session(workspace=workspace_id) as session:
            return rubrics.create_version(session, keys[0], content(*keys[1:])).version

    def other(number: int) -> Any:
        return store("care", f"key{number}")

    found = run_together(8, other)
    assert not [each for each in found if isinstance(each, StemmaError)]
    assert sorted(found) == list(range(1, 9))
    assert set(run_together(8, lambda _: store("same", "key"))) == {1}


@pytest.mark.requirement("AD-027")
async def test_the_twins_do_the_same(async_session: AsyncSession) -> None:
    """What is stored through a twin is read through another."""
    made = await async_rubrics.create_version(async_session, "care", content("a"))
    assert await async_rubrics.get_active(async_session, "care") is made
