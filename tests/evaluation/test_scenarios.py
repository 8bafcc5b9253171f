"""Scenarios: one row for equal content, fixed from birth, generated and sampled."""

import logging
import uuid
from collections.abc import Callable, Iterator
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from stemmadb.aio.evaluation import definitions as async_definitions
from stemmadb.aio.evaluation import scenarios as async_scenarios
from stemmadb.database import Database
from stemmadb.entity import uuid7
from stemmadb.errors import (
    ConflictError,
    CorruptDocumentError,
    FrozenError,
    InvalidCursorError,
    NotFoundError,
    ReferenceNotFoundError,
    StillReferencedError,
    UnknownSchemaVersionError,
    ValidationError,
    WorkspaceNotSetError,
)
from stemmadb.evaluation import definitions, scenarios
from stemmadb.evaluation._expansion import expand
from stemmadb.evaluation.data import DefinitionCreate, ScenarioCreate
from stemmadb.evaluation.documents import DefinitionContent, Dimension, DimensionLevel, RunConfig, ScenarioContent
from stemmadb.evaluation.entities import Definition, Run, RunScenarioSelection, RunSlot, Scenario
from stemmadb.query import translated
from stemmadb.testing import assert_max_queries, count_queries, make_workspace, run_together

TROLLEY = DefinitionContent(
    preamble="Decide.",
    template="A {vehicle} comes, {stakes} people on the track.",
    dimensions=(
        Dimension(name="vehicle", values=("tram", "train")),
        Dimension(name="stakes", levels=(DimensionLevel(score=1, label="few"), DimensionLevel(score=5, label="many"))),
    ),
)


def define(session: Session, content: DefinitionContent = TROLLEY) -> Definition:
    return definitions.create(session, DefinitionCreate(name="Trolley", content=content))


def item(prompt: str, name: str | None = None, **values: str | int) -> ScenarioCreate:
    return ScenarioCreate(name=name or prompt, content=ScenarioContent(prompt=prompt, dimension_values=values))


def count(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(Scenario)) or 0


def insert_raw(session: Session, definition_id: uuid.UUID, content: str) -> uuid.UUID:
    scenario_id = uuid7()
    session.execute(
        text(
            """
            INSERT INTO stemma.scenarios (id, definition_id, name, content)
            VALUES (:id, :definition_id, :name, CAST(:content AS jsonb))
            """
        ),
        {"id": scenario_id, "definition_id": definition_id, "name": str(scenario_id), "content": content},
    )
    return scenario_id


# ------------------------------------------------------------------------------------------------------------- creating


@pytest.mark.requirement("VR-034")
def test_create_stores_and_freezes(session: Session) -> None:
    """A scenario comes back with its content, and its definition is frozen from then on."""
    definition = define(session)
    assert definition.frozen_at is None
    made = scenarios.create(session, definition.id, item("Pull it?", "first", lever=1))
    assert (made.definition_id, made.name, made.content.prompt) == (definition.id, "first", "Pull it?")
    assert definition.frozen_at is not None
    with pytest.raises(FrozenError):
        definitions.update(session, definition.id, definitions.DefinitionUpdate(name="other"))


def test_freezing_twice_keeps_the_time(session: Session) -> None:
    """The second scenario leaves the definition as the first one left it."""
    definition = define(session)
    scenarios.create(session, definition.id, item("one"))
    before = (definition.frozen_at, definition.version)
    scenarios.create(session, definition.id, item("two"))
    assert (definition.frozen_at, definition.version) == before


def test_create_refuses_a_name_that_is_taken(session: Session) -> None:
    """A second scenario of one name is a conflict about the name, and the transaction goes on."""
    definition = define(session)
    scenarios.create(session, definition.id, item("one", "same"))
    with pytest.raises(ConflictError) as caught:
        scenarios.create(session, definition.id, item("two", "same"))
    assert caught.value.fields == ("definition_id", "name")
    assert count(session) == 1


@pytest.mark.requirement("VR-034")
def test_create_refuses_equal_content(session: Session) -> None:
    """Equal content under another name is a conflict that says so, whatever the order of the keys was."""
    definition = define(session)
    scenarios.create(session, definition.id, item("one", "first", a=1, b=2))
    with pytest.raises(ConflictError, match="equal content") as caught:
        scenarios.create(session, definition.id, item("one", "second", b=2, a=1))
    assert caught.value.fields == ("definition_id", "content")
    assert count(session) == 1


def test_other_definitions_may_say_the_same(session: Session) -> None:
    """Names and contents are unique under one definition only."""
    first, second = define(session), define(session)
    assert scenarios.create(session, first.id, item("one")).id != scenarios.create(session, second.id, item("one")).id


def test_an_unknown_definition_is_a_missing_reference(session: Session) -> None:
    """A definition that is not there cannot get scenarios, and a malformed id is refused before anything is sent."""
    with pytest.raises(ReferenceNotFoundError) as caught:
        scenarios.create(session, uuid.uuid4(), item("one"))
    assert caught.value.field == "definition_id"
    with count_queries() as sent, pytest.raises(ValidationError):
        scenarios.create_many(session, "no id", [item("one")])
    assert sent.count == 0


def test_text_that_no_column_holds_is_refused(session: Session) -> None:
    """U+0000 is refused in a name and kept in a content."""
    definition = define(session)
    with pytest.raises(ValidationError):
        item("one", "na\0me")
    made = scenarios.create(session, definition.id, item("one\0\ud800\x1a", "name"))
    assert scenarios.get_content(session, made.id).prompt == "one\0\ud800\x1a"


def test_create_logs_the_name(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """A creation is logged at INFO with the name."""
    definition = define(session)
    with caplog.at_level(logging.INFO, "stemmadb.evaluation.scenarios"):
        scenarios.create(session, definition.id, item("one", "the name"))
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "the name" in caplog.text


@pytest.mark.requirement("VR-034")
def test_create_many_twice_adds_nothing(session: Session) -> None:
    """The same scenarios given again are the same rows, in the order given, whatever they are called now."""
    definition = define(session)
    prompts = ["c", "a", "b"]
    first = scenarios.create_many(session, definition.id, [item(prompt) for prompt in prompts])
    assert [scenario.name for scenario in first] == prompts
    again = scenarios.create_many(session, definition.id, [item(prompt, f"new {prompt}") for prompt in reversed(prompts)])
    assert [scenario.id for scenario in again] == [scenario.id for scenario in reversed(first)]
    assert [scenario.name for scenario in again] == list(reversed(prompts))
    assert count(session) == 3


def test_create_many_mixes_old_and_new(session: Session) -> None:
    """Existing and new contents come back in the order given, each content once, with its first name."""
    definition = define(session)
    old = scenarios.create(session, definition.id, item("old"))
    made = scenarios.create_many(session, definition.id, [item("x"), item("old", "o"), item("y"), item("x", "x again"), item("old", "o2")])
    assert [scenario.name for scenario in made] == ["x", "old", "y"]
    assert made[1] is old
    assert count(session) == 3


def test_create_many_takes_one_statement_for_a_thousand(session: Session) -> None:
    """2,500 scenarios are three statements beside the lock and the freeze, also for contents that repeat in another thousand."""
    definition = define(session)
    prompts = [f"prompt {number % 2400}" for number in range(2500)]
    with assert_max_queries(5):
        made = scenarios.create_many(session, definition.id, (item(prompt) for prompt in prompts))
    assert [scenario.name for scenario in made] == prompts[:2400]
    with assert_max_queries(4):
        again = scenarios.create_many(session, definition.id, (item(prompt) for prompt in prompts))
    assert again == made
    page = scenarios.list_for_definition(session, definition.id, limit=200)
    assert [scenario.name for scenario in page] == prompts[:200]


def test_create_many_of_nothing_does_nothing(session: Session) -> None:
    """No items: no statement, and the definition stays editable."""
    definition = define(session)
    with count_queries() as sent:
        assert scenarios.create_many(session, definition.id, iter(())) == []
    assert sent.count == 0
    assert definitions.get(session, definition.id).frozen_at is None


def test_create_many_is_all_or_none(session: Session) -> None:
    """A name that belongs to other content refuses all of them, freezes nothing, and leaves the transaction usable."""
    definition = define(session)
    with pytest.raises(ConflictError) as caught:
        scenarios.create_many(session, definition.id, [item("a", "same"), item("b", "same")])
    assert caught.value.fields == ("definition_id", "name")
    assert count(session) == 0
    assert definitions.get(session, definition.id).frozen_at is None


def test_create_many_can_refuse_what_is_there(session: Session) -> None:
    """With on_conflict="error" equal content is a conflict, and any other word is refused."""
    definition = define(session)
    made = scenarios.create_many(session, definition.id, [item("b"), item("a")], on_conflict="error")
    assert [scenario.name for scenario in made] == ["b", "a"]
    with pytest.raises(ConflictError, match="equal content"):
        scenarios.create_many(session, definition.id, [item("c"), item("a", "other")], on_conflict="error")
    assert count(session) == 2
    with pytest.raises(ValidationError):
        scenarios.create_many(session, definition.id, [item("c")], on_conflict="replace")  # type: ignore[arg-type]


def test_an_error_while_items_are_made_stores_nothing(session: Session) -> None:
    """A generator that fails in the second thousand takes the first one with it."""
    definition = define(session)

    def failing() -> Iterator[ScenarioCreate]:
        yield from (item(f"prompt {number}") for number in range(1000))
        raise LookupError

    with pytest.raises(LookupError):
        scenarios.create_many(session, definition.id, failing())
    assert count(session) == 0


@pytest.mark.race
@pytest.mark.requirement("VR-034")
def test_equal_content_at_once_is_one_row(committed_db: Database, committed_workspace: uuid.UUID) -> None:
    """Of eight callers who add the same contents at the same moment, all get the same rows, and none an error."""
    with committed_db.session(committed_workspace) as session:
        definition = define(session)

    def add(number: int) -> set[uuid.UUID]:
        with committed_db.session(committed_workspace) as session:
            prompts = [f"prompt {place}" for place in range(50)]
            shifted = prompts[number:] + prompts[:number]
            return {scenario.id for scenario in scenarios.create_many(session, definition.id, [item(prompt) for prompt in shifted])}

    results = run_together(8, add)
    assert all(isinstance(result, set) for result in results), results
    assert len(set().union(*results)) == 50  # type: ignore[arg-type]
    with committed_db.session(committed_workspace) as session:
        assert count(session) == 50


# ----------------------------------------------------------------------------------------------------------- generating


@pytest.mark.requirement("VR-034")
def test_generate_makes_every_combination(session: Session) -> None:
    """Each combination is one scenario, the last dimension varying fastest: values and labels in the prompt, scores in dimension_values."""
    definition = define(session)
    made = scenarios.generate(session, definition.id)
    assert [scenario.name for scenario in made] == [
        "vehicle=tram, stakes=1 few",
        "vehicle=tram, stakes=5 many",
        "vehicle=train, stakes=1 few",
        "vehicle=train, stakes=5 many",
    ]
    content = scenarios.get_content(session, made[1].id)
    assert content == ScenarioContent(
        prompt="A tram comes, many people on the track.", preamble="Decide.", dimension_values={"vehicle": "tram", "stakes": 5}
    )
    assert definition.frozen_at is not None


@pytest.mark.requirement("VR-034")
def test_generate_twice_adds_nothing(session: Session) -> None:
    """Generating again returns the same rows, also when one was renamed; a limit returns the first of them."""
    definition = define(session)
    first = scenarios.generate(session, definition.id, limit=3)
    assert len(first) == 3
    scenarios.rename(session, first[0].id, "renamed")
    again = scenarios.generate(session, definition.id)
    assert [scenario.id for scenario in again[:3]] == [scenario.id for scenario in first]
    assert (again[0].name, len(again), count(session)) == ("renamed", 4, 4)
    with assert_max_queries(4):
        assert scenarios.generate(session, definition.id, limit=3) == again[:3]


def test_generate_without_dimensions_makes_one(session: Session) -> None:
    """A definition without dimensions has one scenario, which is its template under its name."""
    definition = define(session, DefinitionContent(preamble="", template="Tell {me}."))
    (made,) = scenarios.generate(session, definition.id)
    assert (made.name, scenarios.get_content(session, made.id)) == ("Trolley", ScenarioContent(prompt="Tell {me}."))


def test_generate_reads_documents_of_any_version(session: Session) -> None:
    """A content that was stored before documents had a version is expanded in its newest shape."""
    definition_id = uuid7()
    session.execute(
        text(
            """
            INSERT INTO stemma.definitions (id, root_id, name, content)
            VALUES (:id, :id, 'old', '{"template": "Old {x}", "dimensions": [{"name": "x", "values": ["y"]}]}')
            """
        ),
        {"id": definition_id},
    )
    (made,) = scenarios.generate(session, definition_id)
    assert scenarios.get_content(session, made.id).prompt == "Old y"


@pytest.mark.parametrize(
    "dimensions",
    [(Dimension(name="empty"),), (Dimension(name="twice", values=("a",)), Dimension(name="twice", values=("b",)))],
    ids=["empty", "twice"],
)
def test_generate_refuses_what_cannot_be_expanded(session: Session, dimensions: tuple[Dimension, ...]) -> None:
    """A dimension without choices, or a name used twice, is refused, and the definition stays editable."""
    definition = define(session, TROLLEY.replace(dimensions=dimensions))
    with pytest.raises(ValidationError) as caught:
        scenarios.generate(session, definition.id)
    assert caught.value.field == "dimensions"
    assert definitions.get(session, definition.id).frozen_at is None


def test_generate_needs_a_definition(session: Session) -> None:
    """An unknown id is not found, a limit below 1 is refused, and a content of a newer release is not parsed."""
    for unknown in (uuid.uuid4(), "no id"):
        with pytest.raises(NotFoundError, match="Definition"):
            scenarios.generate(session, unknown)
    definition = define(session)
    with pytest.raises(ValidationError):
        scenarios.generate(session, definition.id, limit=0)
    newer = uuid7()
    session.execute(
        text("INSERT INTO stemma.definitions (id, root_id, name, content) VALUES (:id, :id, 'new', '{\"schema_version\": 99}')"),
        {"id": newer},
    )
    with pytest.raises(UnknownSchemaVersionError) as caught:
        scenarios.generate(session, newer)
    assert (caught.value.table, caught.value.column, caught.value.key) == ("definitions", "content", newer)


WORDS = st.text("ab{}xy ", min_size=1, max_size=6)


@pytest.mark.property
@pytest.mark.offline
@given(axes=st.dictionaries(st.text("xyz", min_size=1, max_size=3), st.lists(WORDS, min_size=1, max_size=4, unique=True), max_size=3))
def test_expansion_is_the_product(axes: dict[str, list[str]]) -> None:
    """There is one scenario for each combination, whose prompt says its values, also those that look like placeholders."""
    template = "|".join(f"{{{name}}}" for name in axes)
    content = DefinitionContent(
        preamble="", template=template, dimensions=tuple(Dimension(name=name, values=tuple(values)) for name, values in axes.items())
    )
    made = list(expand(content, "name"))
    chosen = [scenario.content.dimension_values for scenario in made]
    assert len({tuple(values.items()) for values in chosen}) == len(made) == prod(map(len, axes.values()))
    assert [scenario.content.prompt for scenario in made] == ["|".join(str(values[name]) for name in axes) for values in chosen]


# -------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.requirement("VR-087", "VR-088")
def test_reading_logs(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """A read logs its id at DEBUG before the query, and a missing row logs it at WARNING."""
    made = scenarios.create(session, define(session).id, item("one"))
    unknown = uuid.uuid4()
    with caplog.at_level(logging.DEBUG, "stemmadb.evaluation.scenarios"):
        caplog.clear()
        assert scenarios.get(session, str(made.id)) is made
        assert scenarios.find(session, unknown) is None
        assert scenarios.find(session, "no id") is None
    assert [record.levelname for record in caplog.records] == ["DEBUG", "DEBUG", "WARNING", "WARNING"]
    assert str(made.id) in caplog.records[0].getMessage()
    assert str(unknown) in caplog.records[2].getMessage()


@pytest.mark.parametrize(
    "call",
    [scenarios.get, scenarios.get_content, scenarios.delete, lambda session, key: scenarios.rename(session, key, "name")],
    ids=["get", "get_content", "delete", "rename"],
)
def test_what_is_missing_is_not_found(session: Session, call: Callable[[Session, str | uuid.UUID], object]) -> None:
    """An unknown id, one of another workspace and one that is none read the same."""
    made = scenarios.create(session, define(session).id, item("one"))
    other = make_other(session)
    for unknown in (uuid.uuid4(), other, "no id"):
        with pytest.raises(NotFoundError) as caught:
            call(session, unknown)
        assert str(caught.value) == str(NotFoundError("Scenario", unknown))
    assert scenarios.get(session, made.id).name == "one"


def make_other(session: Session) -> uuid.UUID:
    """A scenario of another workspace, in the same transaction."""
    connection = session.connection()
    mine = session.info["stemma"].workspace_id
    other, definition_id, scenario_id = uuid7(), uuid7(), uuid7()
    owner = connection.scalar(text("SELECT owner_id FROM stemma.workspaces WHERE id = :id"), {"id": mine})
    name = f"other-{other.hex}"
    connection.execute(
        text("INSERT INTO stemma.workspaces (id, owner_id, name, slug) VALUES (:id, :owner, :name, :name)"),
        {"id": other, "owner": owner, "name": name},
    )
    connection.exec_driver_sql(f"SET LOCAL stemma.workspace_id = '{other}'")
    connection.execute(
        text("INSERT INTO stemma.definitions (id, root_id, name, content) VALUES (:id, :id, 'theirs', '{\"schema_version\": 1}')"),
        {"id": definition_id},
    )
    connection.execute(
        text(
            """
            INSERT INTO stemma.scenarios (id, definition_id, name, content)
            VALUES (:id, :definition_id, 'theirs', '{"schema_version": 1}')
            """
        ),
        {"id": scenario_id, "definition_id": definition_id},
    )
    connection.exec_driver_sql(f"SET LOCAL stemma.workspace_id = '{mine}'")
    return scenario_id


@pytest.mark.parametrize(
    "call",
    [
        lambda session, key: scenarios.create(session, key, item("x")),
        lambda session, key: scenarios.create_many(session, key, [item("x")]),
        scenarios.generate,
        scenarios.get,
        scenarios.find,
        scenarios.get_content,
        scenarios.list_for_definition,
        lambda session, key: scenarios.rename(session, key, "x"),
        lambda session, key: scenarios.sample(session, key, count=1),
        scenarios.delete,
    ],
)
def test_nothing_is_sent_without_a_workspace(db: Database, call: Callable[[Session, uuid.UUID], object]) -> None:
    """Every function refuses a session without a workspace before a statement is sent, and names itself."""
    with db.session() as session, count_queries() as sent:
        with pytest.raises(WorkspaceNotSetError, match=r"evaluation\.scenarios\."):
            call(session, uuid.uuid4())
        assert sent.count == 0


def test_content_is_read_in_its_newest_shape(session: Session) -> None:
    """A content without a version is upcast, one of a newer release or without sense is an error with its place, and the row stays."""
    definition = define(session)
    old = insert_raw(session, definition.id, '{"unknown": 1}')
    content = scenarios.get_content(session, old)
    assert (content.prompt, content.schema_version, content.model_extra) == ("", 1, {"unknown": 1})
    newer = insert_raw(session, definition.id, '{"schema_version": 2, "prompt": "x"}')
    with pytest.raises(UnknownSchemaVersionError) as unknown:
        scenarios.get_content(session, newer)
    assert (unknown.value.key, unknown.value.found) == (newer, 2)
    corrupt = insert_raw(session, definition.id, '{"schema_version": 1, "prompt": 7}')
    with pytest.raises(CorruptDocumentError) as broken:
        scenarios.get_content(session, corrupt)
    assert (broken.value.table, broken.value.column, broken.value.key, broken.value.pointer) == ("scenarios", "content", corrupt, "/prompt")
    assert scenarios.get(session, corrupt).content_version == 1


def test_pages_are_oldest_first_and_complete(session: Session) -> None:
    """Joined pages are all scenarios in the order in which they were made; a foreign cursor is refused; an unknown definition has none."""
    definition = define(session)
    names = [f"{number}" for number in range(7)]
    scenarios.create_many(session, definition.id, [item(name) for name in names])
    found: list[str] = []
    cursor = None
    for _ in range(4):
        page = scenarios.list_for_definition(session, definition.id, cursor=cursor, limit=2)
        found += [scenario.name for scenario in page]
        cursor = page.next_cursor
    assert (found, cursor) == (names, None)
    first = scenarios.list_for_definition(session, definition.id, limit=2)
    with pytest.raises(InvalidCursorError):
        scenarios.list_for_definition(session, uuid.uuid4(), cursor=first.next_cursor, limit=2)
    assert len(scenarios.list_for_definition(session, uuid.uuid4())) == 0


def test_pages_can_be_narrowed_to_values(session: Session) -> None:
    """Only scenarios with all the values are listed, numbers and their texts are different, and what jsonb cannot hold is found as well."""
    definition = define(session)
    items = [item("a", lever=1, who="Ann"), item("b", lever=2, who="Ann"), item("c", lever="1", who="Bo"), item("d", **{"nul\0": "\ud800"})]
    scenarios.create_many(session, definition.id, items)

    def found(**values: str | int) -> list[str]:
        return [scenario.name for scenario in scenarios.list_for_definition(session, definition.id, dimension_values=values)]

    assert found(who="Ann") == ["a", "b"]
    assert found(who="Ann", lever=2) == ["b"]
    assert (found(lever=1), found(lever="1"), found(lever=3)) == (["a"], ["c"], [])
    assert found(**{"nul\0": "\ud800"}) == ["d"]


def test_listing_fetches_no_contents(session: Session) -> None:
    """A page is one statement that leaves the contents where they are."""
    definition = define(session)
    scenarios.create_many(session, definition.id, [item("a")])
    session.expunge_all()
    with assert_max_queries(1):
        (scenario,) = scenarios.list_for_definition(session, definition.id)
    assert "content" not in scenario.__dict__


# -------------------------------------------------------------------------------------------------- renaming, sampling


def test_rename_changes_the_name_alone(session: Session) -> None:
    """A new name is kept, a taken one is a conflict that leaves the transaction usable, a blank one is refused."""
    definition = define(session)
    first, second = scenarios.create_many(session, definition.id, [item("a"), item("b")])
    assert scenarios.rename(session, first.id, "other") is first
    assert first.name == "other"
    with pytest.raises(ConflictError) as caught:
        scenarios.rename(session, second.id, "other")
    assert caught.value.fields == ("definition_id", "name")
    for refused in ("", "  ", "a\0b"):
        with pytest.raises(ValidationError):
            scenarios.rename(session, second.id, refused)
    assert [scenario.name for scenario in scenarios.list_for_definition(session, definition.id)] == ["other", "b"]


@pytest.mark.requirement("VR-034")
@pytest.mark.parametrize("change", ['content = \'{"schema_version": 1, "prompt": "x"}\'', "definition_id = gen_random_uuid()"])
def test_content_never_changes(session: Session, change: str) -> None:
    """The database refuses to change a scenario's content or definition, whoever asks."""
    made = scenarios.create(session, define(session).id, item("a"))
    with pytest.raises(FrozenError), translated(), session.begin_nested():
        session.execute(text(f"UPDATE stemma.scenarios SET {change} WHERE id = :id"), {"id": made.id})
    assert scenarios.get_content(session, made.id).prompt == "a"


def test_a_sample_is_the_same_for_a_seed(session: Session) -> None:
    """A seed gives the same scenarios, by id, wherever they are stored, and a larger sample holds the smaller one."""
    first, second = define(session), define(session)
    for definition in (first, second):
        scenarios.create_many(session, definition.id, [item(f"prompt {number}") for number in range(40)])
    with assert_max_queries(1):
        small = scenarios.sample(session, first.id, percentage=25, seed=7)
    assert [scenario.id for scenario in small] == sorted(scenario.id for scenario in small)
    assert len(small) == 10
    assert scenarios.sample(session, first.id, count=10, seed=7) == small
    assert set(small) < set(scenarios.sample(session, first.id, count=20, seed=7))
    assert {scenario.name for scenario in scenarios.sample(session, second.id, count=10, seed=7)} == {scenario.name for scenario in small}
    assert scenarios.sample(session, first.id, count=10, seed=8) != small
    assert len(scenarios.sample(session, first.id, count=99)) == 40
    assert scenarios.sample(session, uuid.uuid4(), count=1) == []
    for wrong in ({}, {"count": 0}, {"percentage": 0.0}, {"percentage": 101.0}, {"count": 1, "percentage": 1.0}):
        with pytest.raises(ValidationError):
            scenarios.sample(session, first.id, **wrong)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------- deleting


def test_an_unused_scenario_can_be_deleted(session: Session) -> None:
    """What no run has used goes, and its content may be given again."""
    definition = define(session)
    made = scenarios.create(session, definition.id, item("a"))
    scenarios.delete(session, made.id)
    assert scenarios.find(session, made.id) is None
    assert scenarios.create(session, definition.id, item("a")).id != made.id


@pytest.mark.parametrize("use", ["run_scenario_selection", "run_slots", "transcripts"])
def test_a_used_scenario_stays(session: Session, use: str) -> None:
    """A scenario that a run selected, planned or transcribed cannot be deleted, and the refusal leaves the transaction usable."""
    definition = define(session)
    made = scenarios.create(session, definition.id, item("a"))
    run = Run(definition_id=definition.id, config=RunConfig(models=("m",)))
    session.add(run)
    session.flush()
    if use == "run_scenario_selection":
        session.add(RunScenarioSelection(run_id=run.id, scenario_id=made.id))
    elif use == "run_slots":
        session.add(RunSlot(run_id=run.id, scenario_id=made.id, model="m"))
    else:
        session.execute(
            text(
                """
                INSERT INTO stemma.transcripts (run_id, scenario_id, model, content)
                VALUES (:run_id, :id, 'm', '{"schema_version": 1}')
                """
            ),
            {"run_id": run.id, "id": made.id},
        )
    with pytest.raises(StillReferencedError) as caught:
        scenarios.delete(session, made.id)
    assert caught.value.by == (use,)
    assert scenarios.get(session, made.id) is made


@pytest.mark.requirement("VR-044")
def test_scenarios_go_with_their_definition(session: Session) -> None:
    """Deleting a definition deletes its scenarios."""
    definition = define(session)
    scenarios.generate(session, definition.id)
    assert count(session) == 4
    definitions.delete(session, definition.id)
    assert count(session) == 0


# ---------------------------------------------------------------------------------------------------------------- async


async def test_the_twins_do_the_same(async_session: AsyncSession) -> None:
    """Each function has an async twin that does the same."""
    definition = await async_definitions.create(async_session, DefinitionCreate(name="Trolley", content=TROLLEY))
    first = await async_scenarios.create(async_session, definition.id, item("one"))
    assert first.content.prompt == "one"
    made = await async_scenarios.create_many(async_session, definition.id, [item("one"), item("two")])
    assert made[0] is first
    assert len(await async_scenarios.generate(async_session, definition.id, limit=2)) == 2
    assert (await async_scenarios.get(async_session, first.id)).id == first.id
    assert await async_scenarios.find(async_session, uuid.uuid4()) is None
    assert (await async_scenarios.get_content(async_session, made[1].id)).prompt == "two"
    assert len(await async_scenarios.list_for_definition(async_session, definition.id)) == 4
    assert (await async_scenarios.rename(async_session, first.id, "uno")).name == "uno"
    assert len(await async_scenarios.sample(async_session, definition.id, percentage=50, seed=1)) == 2
    await async_scenarios.delete(async_session, first.id)
    with pytest.raises(NotFoundError):
        await async_scenarios.get(async_session, first.id)


def test_workspaces_do_not_see_each_other(committed_db: Database) -> None:
    """A definition of another workspace cannot get scenarios, with the same answer as for an unknown one."""
    mine, theirs = make_workspace(committed_db), make_workspace(committed_db)
    with committed_db.session(theirs) as session:
        foreign = define(session).id
    with committed_db.session(mine) as session:
        with pytest.raises(ReferenceNotFoundError):
            scenarios.create(session, foreign, item("x"))
        with pytest.raises(NotFoundError):
            scenarios.generate(session, foreign)
        assert len(scenarios.list_for_definition(session, foreign)) == 0
        assert scenarios.sample(session, foreign, count=1) == []
