"""Cohorts: transcripts that meet criteria, looked up each time."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from tests.evaluation.judged_runs import Bench

from stemmadb.aio.evaluation import cohorts as async_cohorts
from stemmadb.documents import RawDocument
from stemmadb.errors import (
    ConflictError,
    CorruptDocumentError,
    NotFoundError,
    UnknownSchemaVersionError,
    ValidationError,
    VersionConflictError,
)
from stemmadb.evaluation import cohorts, definitions, runs, scenarios, transcripts
from stemmadb.evaluation.data import CohortCreate, CohortUpdate, DefinitionCreate, RunCreate, TranscriptCreate
from stemmadb.evaluation.documents import CohortCriteria, DefinitionContent, Dimension, DimensionLevel, RunConfig, TranscriptContent
from stemmadb.evaluation.entities import Cohort
from stemmadb.testing import assert_max_queries

TALK = TranscriptContent(turns=())


def make(session: Session, name: str = "c", **criteria: object) -> Cohort:
    return cohorts.create(session, CohortCreate(name=name, criteria=CohortCriteria(**criteria)))


@pytest.mark.requirement("VR-040")
def test_members_meet_all_criteria(session: Session) -> None:
    """Models, definitions, experiments, times and values of dimensions narrow; numbers and texts compare as text."""
    dimensions = (
        Dimension(name="fruit", values=("apple", "pear")),
        Dimension(name="stakes", levels=(DimensionLevel(score=1, label="low"), DimensionLevel(score=5, label="high"))),
    )
    definition = definitions.create(
        session, DefinitionCreate(name="d", content=DefinitionContent(preamble="", template="{fruit}{stakes}", dimensions=dimensions))
    )
    made = scenarios.generate(session, definition.id)
    run = runs.create(session, RunCreate(definition_id=definition.id, config=RunConfig(models=("a", "b"))))
    items = [TranscriptCreate(model=model, scenario_id=each.id, content=TALK) for each in made for model in ("a", "b")]
    ids = transcripts.add_many(session, run.id, items).ids
    plain = transcripts.add(session, run.id, TranscriptCreate(model="a", content=TALK)).id
    now = datetime.now(UTC)

    everything = make(session, "all")
    with assert_max_queries(2):
        assert cohorts.resolve(session, everything.id) == sorted([*ids, plain])
    for number, (criteria, count) in enumerate(
        [
            ({"models": ("a",)}, 5),
            ({"models": ("a", "b"), "definition_ids": (definition.id,)}, 9),
            ({"definition_ids": (uuid.uuid4(),)}, 0),
            ({"experiment_ids": (uuid.uuid4(),)}, 0),
            ({"created_from": now - timedelta(hours=1), "created_to": now + timedelta(hours=1)}, 9),
            ({"created_to": now - timedelta(hours=1)}, 0),
            ({"dimension_values": {"fruit": ("apple",)}}, 4),
            ({"dimension_values": {"stakes": ("5", "7")}, "models": ("b",)}, 2),
            ({"dimension_values": {"fruit": ("pear",), "stakes": ("1",)}}, 2),
            ({"dimension_values": {"colour": ("red",)}}, 0),
            ({"dimension_values": {"fruit": ()}}, 0),
        ]
    ):
        cohort = make(session, f"c{number}", **criteria)
        assert (cohorts.count(session, cohort.id), len(cohorts.resolve(session, cohort.id))) == (count, count), criteria
    transcripts.invalidate(session, plain, reason="a test")
    assert cohorts.count(session, everything.id) == 8
    assert len(cohorts.resolve(session, everything.id, include_invalidated=True)) == 9


@pytest.mark.requirement("VR-040")
def test_a_change_is_guarded_by_the_version(session: Session) -> None:
    """What is not given stays, the hash follows the criteria, and of two who read the same version the second is told."""
    cohort = cohorts.create(session, CohortCreate(name="a", description="what"))
    before = cohort.criteria_hash
    changed = cohorts.update(session, cohort.id, CohortUpdate(criteria=CohortCriteria(models=("m",))), expected_version=1)
    assert (changed.name, changed.description, changed.version, changed.criteria.models) == ("a", "what", 2, ("m",))
    assert changed.criteria_hash != before
    with pytest.raises(VersionConflictError):
        cohorts.update(session, cohort.id, CohortUpdate(name="b"), expected_version=1)
    assert cohorts.update(session, cohort.id, CohortUpdate(name="b", description=None)).description is None
    assert cohorts.find_by_name(session, "b") is cohort
    assert cohorts.find_by_name(session, "a") is None
    with pytest.raises(ValidationError, match="cannot be removed"):
        CohortUpdate(name=None)


@pytest.mark.requirement("VR-040")
def test_names_are_unique(session: Session) -> None:
    """A second cohort of a name is refused, when it is made and when it is renamed; lists come by name."""
    make(session, "b")
    other = make(session, "a")
    with pytest.raises(ConflictError):
        make(session, "a")
    with pytest.raises(ConflictError):
        cohorts.update(session, other.id, CohortUpdate(name="b"))
    first = cohorts.list_all(session, limit=1)
    assert [each.name for each in (*first, *cohorts.list_all(session, cursor=first.next_cursor))] == ["a", "b"]
    cohorts.delete(session, other.id)
    assert cohorts.find(session, other.id) is None
    assert cohorts.find(session, "no id") is None
    for call in (cohorts.get, cohorts.resolve, cohorts.count, cohorts.delete):
        with pytest.raises(NotFoundError):
            call(session, other.id)
    with pytest.raises(NotFoundError):
        cohorts.update(session, other.id, CohortUpdate(name="c"))


def test_criteria_that_cannot_be_read_cost_their_own_row(session: Session) -> None:
    """A newer document is refused and never overwritten, a broken one too; a list survives both."""
    bench = Bench(session, 1)
    bench.run([1.0])
    insert = text("INSERT INTO stemma.cohorts (name, criteria) VALUES (:name, CAST(:criteria AS jsonb)) RETURNING id")
    newer = session.scalar(insert, {"name": "newer", "criteria": '{"schema_version": 99}'})
    broken = session.scalar(insert, {"name": "broken", "criteria": '{"schema_version": 1, "models": 7}'})
    make(session, "good")
    assert newer is not None
    assert broken is not None
    with pytest.raises(UnknownSchemaVersionError):
        cohorts.update(session, newer, CohortUpdate(criteria=CohortCriteria()))
    with pytest.raises(CorruptDocumentError):
        cohorts.count(session, broken)
    with pytest.raises((CorruptDocumentError, UnknownSchemaVersionError)):
        cohorts.list_all(session)
    assert [each.name for each in cohorts.list_all(session, on_invalid="skip")] == ["good"]
    assert sum(isinstance(each.criteria, RawDocument) for each in cohorts.list_all(session, on_invalid="raw")) == 2


@pytest.mark.requirement("AD-027")
async def test_the_twins_do_the_same(async_session: AsyncSession) -> None:
    """What is stored through a twin is read through another."""
    made = await async_cohorts.create(async_session, CohortCreate(name="a"))
    assert await async_cohorts.resolve(async_session, made.id) == []
    assert await async_cohorts.count(async_session, made.id) == 0
