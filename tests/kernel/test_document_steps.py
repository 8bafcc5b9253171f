"""stemmadb.documents.steps: what each step does, and that PostgreSQL does the same."""

import copy
import dataclasses
import json
import pickle
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Connection, Integer, MetaData, NullPool, Table, create_engine, select, text
from sqlalchemy.exc import DBAPIError
from tests.kernel import step_programs as made
from tests.kernel.defective_steps import DEFECTS, EDITS
from tests.kernel.step_programs import Program, programs

from stemmadb import errors
from stemmadb.database import Database
from stemmadb.documents import Document, DocumentColumn, Raw, check_upcasters, dump_json, escape, register_upcaster
from stemmadb.documents._canonical import canonical
from stemmadb.documents._load import _version
from stemmadb.documents._values import map_strings
from stemmadb.documents.steps import (
    Default,
    Drop,
    Listify,
    MapValues,
    Move,
    Rename,
    Step,
    Steps,
    Wrap,
    drop_upcast_function,
    upcast_expression,
    upcast_function,
    upcast_function_name,
)

# ------------------------------------------------------------------------------------------------------- what each step does

CASES: list[tuple[Step, Any, Any]] = [
    (Rename("a", "b"), {"a": 1, "c": 2}, {"b": 1, "c": 2}),
    (Rename("a", "b"), {"c": 2}, {"c": 2}),
    (Rename("a", "b"), {"a": None}, {"b": None}),
    (Rename("a", "b"), {"a": 1, "b": 2}, {"b": 1}),
    (Default("a", []), {}, {"a": []}),
    (Default("a", 1), {"a": None}, {"a": None}),
    (Default("a", 1), {"a": 2}, {"a": 2}),
    (Drop("a"), {"a": 1, "b": 2}, {"b": 2}),
    (Drop("a"), {"b": 2}, {"b": 2}),
    (Wrap("a", "x"), {"a": [1]}, {"a": {"x": [1]}}),
    (Wrap("a", "x"), {"a": None}, {"a": {"x": None}}),
    (Wrap("a", "x"), {}, {}),
    (Listify("a"), {"a": 1}, {"a": [1]}),
    (Listify("a"), {"a": {"b": 1}}, {"a": [{"b": 1}]}),
    (Listify("a"), {"a": [1]}, {"a": [1]}),
    (Listify("a"), {"a": None}, {"a": []}),
    (Listify("a"), {}, {}),
    (MapValues("a", [("x", 1), ("y", None)]), {"a": "x"}, {"a": 1}),
    (MapValues("a", {"x": 1}), {"a": "z"}, {"a": "z"}),
    (MapValues("a", {"x": 1}), {"b": "x"}, {"b": "x"}),
    (MapValues("a", ((1, "one"),)), {"a": 1.0}, {"a": "one"}),
    (MapValues("a", ((1, "one"),)), {"a": True}, {"a": True}),
    (MapValues("a", ((0, "none"), (False, "no"))), {"a": False}, {"a": "no"}),
    (MapValues("a", ((2**53, "large"),)), {"a": 2**53 + 1}, {"a": 2**53 + 1}),
    (MapValues("a", ((None, ""),)), {"a": None}, {"a": ""}),
    (MapValues("a", ((None, ""),)), {}, {}),
    (MapValues("a", (([1, {"b": True}], "whole"),)), {"a": [1.0, {"b": True}]}, {"a": "whole"}),
    (MapValues("a", (([1, {"b": True}], "whole"),)), {"a": [1, {"b": 1}]}, {"a": [1, {"b": 1}]}),
    (MapValues("a", ((1, 2), (2, 3))), {"a": 1}, {"a": 2}),
    (MapValues("a", ()), {"a": 1}, {"a": 1}),
    (Move("a", ("x", "y")), {"a": 1}, {"x": {"y": 1}}),
    (Move("a", ("x", "y")), {"a": 1, "x": {"z": 2}}, {"x": {"z": 2, "y": 1}}),
    (Move("a", ("x", "y")), {"a": 1, "x": {"y": 2}}, {"x": {"y": 1}}),
    (Move("a", ("x", "y")), {"a": 1, "x": None}, {"x": {"y": 1}}),
    (Move("a", ("x", "y")), {"a": 1, "x": [2]}, {"a": 1, "x": [2]}),
    (Move("a", ("x", "y")), {"a": 1, "x": 0}, {"a": 1, "x": 0}),
    (Move("a", ("x", "y")), {"x": None}, {"x": None}),
    (Move(("m", "a"), "a"), {"m": {"a": 1}}, {"m": {}, "a": 1}),
    (Move(("m", "a"), ("m", "b", "c")), {"m": {"a": 1, "z": 2}}, {"m": {"z": 2, "b": {"c": 1}}}),
    (Move(("m", "0"), "a"), {"m": [1]}, {"m": [1]}),
    (Rename("a", "b", at=("m",)), {"m": {"a": 1}}, {"m": {"b": 1}}),
    (Rename("a", "b", at=("m",)), {"m": ["a"]}, {"m": ["a"]}),
    (Rename("a", "b", at=("m",)), {"n": 1}, {"n": 1}),
    (Drop("a", at=("m", "*")), {"m": [{"a": 1}, "a", ["a"], {"b": 1}]}, {"m": [{}, "a", ["a"], {"b": 1}]}),
    (Drop("a", at=("m", "*")), {"m": {"a": 1}}, {"m": {"a": 1}}),
    (
        Default("a", 0, at=("m", "*", "n", "*")),
        {"m": [{"n": [{}, {}]}, {"n": []}, {}]},
        {"m": [{"n": [{"a": 0}, {"a": 0}]}, {"n": []}, {}]},
    ),
    (Default("schema_version", 1, at=("m",)), {"m": {}}, {"m": {"schema_version": 1}}),
    (Drop("*"), {"*": 1, "a": 2}, {"a": 2}),
]
cases = pytest.mark.parametrize(("step", "before", "after"), CASES, ids=lambda value: repr(value) if isinstance(value, Step) else "")


@pytest.mark.offline
@cases
def test_a_step_changes_what_it_says(step: Step, before: Raw, after: Raw) -> None:
    """It changes the objects at its place, leaves anything else alone, and does not touch what it was given."""
    kept = copy.deepcopy(before)
    changed = Steps(step)(before)
    assert (repr(changed), changed) == (repr(changed), after)
    assert json.dumps(changed, sort_keys=True) == json.dumps(after, sort_keys=True)
    assert before == kept
    assert changed is not before


@pytest.mark.offline
def test_what_a_step_puts_in_is_nobody_elses() -> None:
    """A value of a step is copied for each document, so that a later step may change it."""
    steps = Steps(Default("a", {"b": [1]}), MapValues("c", (("x", [2]),)))
    first = steps({"c": "x"})
    first["a"]["b"].append(3)
    first["c"].append(3)
    assert steps({"c": "x"}) == {"a": {"b": [1]}, "c": [2]}


@pytest.mark.offline
def test_steps_can_be_looked_at() -> None:
    """They are values: equal when they say the same, of which true and 1 are not, and good for sets, pickles and copies."""
    steps = Steps(Default("a", 1), Rename("b", "c", at="d"))
    assert [step.at for step in steps.steps] == [(), ("d",)]
    assert steps == Steps(Default("a", 1.0), Rename("b", "c", at=("d",)))
    assert steps != Steps(Default("a", True), Rename("b", "c", at=("d",)))
    assert len({Default("a", 1), Default("a", True), Default("a", [1]), Default("a", [1])}) == 3
    assert Default("a", 1) != Drop("a")
    mapped = Steps(MapValues("a", {"x": [1]}))
    for copied in (pickle.loads(pickle.dumps(mapped)), copy.deepcopy(mapped)):
        assert copied == mapped
        assert copied({"a": "x"}) == {"a": [1]}
    with pytest.raises(dataclasses.FrozenInstanceError):
        steps.steps[0].at = ()  # type: ignore[misc]


@pytest.mark.offline
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Rename("schema_version", "a"), "schema_version"),
        (lambda: Rename("a", "schema_version"), "schema_version"),
        (lambda: Default("schema_version", 1), "schema_version"),
        (lambda: Move("a", ("schema_version", "b")), "schema_version"),
        (lambda: Drop("a", at=("schema_version",)), "schema_version"),
        (lambda: Rename("a", "a"), "the new name is the old one"),
        (lambda: Drop("a", at=("*", "b")), "does not begin with"),
        (lambda: Drop("a\x1a"), r"U\+001A"),
        (lambda: Drop("a", at=("\x1a",)), r"U\+001A"),
        (lambda: MapValues("a", (("\x1a", 1),)), r"U\+001A"),
        (lambda: MapValues("a", (([{"\x1a": 1}], 1),)), r"U\+001A"),
        (lambda: MapValues("a", {1: 2}), "pairs"),  # type: ignore[dict-item]
        (lambda: MapValues("a", ((1, 2), (1.0, 3))), "same value"),
        (lambda: Default("a", float("nan")), "NaN"),
        (lambda: Default("a", {1: 2}), "keys are strings"),
        (lambda: Default("a", object()), "object is not JSON"),
        (lambda: Drop(1), "keys are strings, not int"),  # type: ignore[arg-type]
        (lambda: Drop("a", at=("b",) * 65), "64 levels"),
        (lambda: Move("a", "a"), "inside of the other"),
        (lambda: Move("a", ("a", "b")), "inside of the other"),
        (lambda: Move(("a", "b"), "a"), "inside of the other"),
        (lambda: Move((), "a"), "inside of the other"),
    ],
)
def test_a_step_that_cannot_be_right_is_refused(make: Callable[[], Step], reason: str) -> None:
    """As it is made, with the reason."""
    with pytest.raises(errors.ConfigurationError, match=reason):
        make()


# ------------------------------------------------------------------------------------------------------------------ documents


class Option(Document, version=1):
    """Every step is declared, with keys that mean something to SQL."""

    labels: Mapping[str, str] = {}


Option.upcast(0)(Steps(Rename("%s", "labels"), Wrap("labels", "$$"), Rename("$$", "'\\:x\t", at="labels")))


class Survey(Document, version=3):
    """Every step is declared."""

    title: str
    questions: tuple[str, ...] = ()
    state: str | None = None
    owner: Mapping[str, str] = {}


Survey.upcast(0)(Steps(Default("title", "")))
Survey.upcast(1)(Steps(Rename("question", "questions"), Listify("questions")))
register_upcaster(Survey, 2)(Steps(MapValues("state", ((1, "open"), (True, "on"), (0, None))), Move("name", ("owner", "name"))))


class Mixed(Document, version=2):
    """Has a step that only Python can take."""


Mixed.upcast(0)(Steps(Drop("a")))
Mixed.upcast(1)(lambda raw: raw)


@pytest.mark.offline
def test_a_document_is_read_through_declared_steps() -> None:
    """They are upcasters like any other, also beside functions."""
    check_upcasters([Survey, Mixed])
    assert Survey.load({"question": "Who?", "state": True, "name": "Ada"}) == Survey(
        title="", questions=("Who?",), state="on", owner={"name": "Ada"}
    )
    assert Survey.load({"schema_version": 2, "title": "t", "state": 1}).state == "open"
    assert Mixed.load({"a": 1, "b": 2}).model_extra == {"b": 2}
    with pytest.raises(errors.CorruptDocumentError, match="no object"):
        Survey.load("[1]")


@pytest.mark.offline
def test_the_function_has_the_version_in_its_name() -> None:
    """An older version can be had as well, as a revision made it."""
    assert upcast_function(Survey).startswith(
        "CREATE FUNCTION stemma.survey_v3(document jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$\n"
    )
    assert "survey_v2(" in upcast_function(Survey, 2)
    assert "owner" in upcast_function(Survey, schema="mine")
    assert "owner" not in upcast_function(Survey, 2)
    assert "mine.survey_v3(" in upcast_function(Survey, schema="mine")
    assert drop_upcast_function(Survey, 2) == "DROP FUNCTION stemma.survey_v2(jsonb)"
    named = {"DefinitionContent": "definition_content_v1", "AIProviderSettings": "ai_provider_settings_v1", "Level2Part": "level2_part_v1"}
    for name, expected in named.items():
        document = type(name, (Document,), {"__module__": __name__}, version=1)
        assert upcast_function_name(document) == f"stemma.{expected}"


@pytest.mark.offline
def test_what_cannot_be_compiled_is_refused() -> None:
    """A step of Python, a missing step, a version that is not there, and a name that PostgreSQL would cut or has to quote."""
    with pytest.raises(errors.ConfigurationError, match="Mixed from version 1 is a function of Python"):
        upcast_function(Mixed)
    assert "mixed_v1" in upcast_function(Mixed, 1)

    class Gappy(Document, version=2):
        pass

    Gappy.upcast(0)(Steps())
    with pytest.raises(errors.ConfigurationError, match="no step from version 1"):
        upcast_function(Gappy)
    for version in (0, 4):
        with pytest.raises(errors.ConfigurationError, match="the versions 1 to 3"):
            upcast_function(Survey, version)
    for name in ("A" + "b" * 50, "Größe"):
        with pytest.raises(errors.ConfigurationError, match="cannot be the name"):
            upcast_function_name(type(name, (Document,), {"__module__": __name__}, version=1))
    with pytest.raises(errors.ConfigurationError, match="cannot be the name"):
        upcast_function(Survey, schema="my schema")


@pytest.mark.offline
@pytest.mark.property
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(program=programs())
def test_the_text_of_a_function_is_plain(program: Program) -> None:
    """Nothing in it is read by anybody on the way: no parameter of SQLAlchemy or psycopg, no tab, no dollar quote, nothing but ASCII."""
    body = function_of(program.upcasters()).partition("$$")[2].rpartition("$$")[0]
    assert re.fullmatch(r"[ -~\n]*", body)
    assert not set(body) & set("%$")
    assert str(text(body)) == body
    assert text(body)._bindparams == {}


# ---------------------------------------------------------------------------------------------------- Python and PostgreSQL


@pytest.fixture(scope="module")
def connection(stemmadb_database: Database) -> Iterator[Connection]:
    """A connection of the owner. Functions that tests make in it are rolled back."""
    engine = create_engine(stemmadb_database.direct_url, poolclass=NullPool)
    with engine.connect() as made:
        yield made


class Probe(Document, version=made.NEWEST):
    """Takes the steps of one program after the other."""


def function_of(upcasters: dict[int, Steps]) -> str:
    """The function of a program."""
    Probe._steps, Probe._complete = dict(upcasters), False
    return upcast_function(Probe)


def upcast_in_python(upcasters: dict[int, Steps], stored: Any) -> Any:
    """What reading does before it validates; what it refuses stays as it is."""
    try:
        version = _version(Probe, stored)
    except errors.DocumentError:
        return stored
    if isinstance(stored, list):
        # Steps make no object of it, so it is refused.
        return stored
    value = copy.deepcopy(stored)
    for number in range(version, made.NEWEST):
        value = {**upcasters[number](value), "schema_version": number + 1}
    return value


def as_stored(value: Any) -> str:
    """The text of a jsonb value that holds a document."""
    return canonical(json.dumps(map_strings(value, escape)))


def upcast_in_database(connection: Connection, function: str, documents: Sequence[Any]) -> list[str]:
    """What a function makes of documents, in one statement; the function is gone afterwards."""
    (name,) = re.findall(r"CREATE FUNCTION ([^(]+)", function)
    given_documents = "jsonb_array_elements(CAST(:documents AS jsonb)) WITH ORDINALITY AS given (value, place)"
    statement = text(f"SELECT {name}(value)::text FROM {given_documents} ORDER BY place")
    transaction = connection.begin()
    try:
        connection.execute(text(function))
        return list(connection.scalars(statement, {"documents": f"[{', '.join(map(as_stored, documents))}]"}))
    finally:
        transaction.rollback()


Replace = Callable[[Step], Step]
Edit = Callable[[str], str]


def require_equal(connection: Connection, program: Program, replace: Replace = lambda step: step, edit: Edit = lambda sql: sql) -> None:
    """
    Require that the function gives what Python gives.

    Steps may be replaced by defective ones, which make the function where their SQL is what is wrong, and else do the work in Python; and
    the text of the function may be edited.
    """
    replaced = program.upcasters(replace)
    for_sql = any("_change_sql" in vars(type(step)) and type(step) not in made.STEPS for group in replaced.values() for step in group.steps)
    taken = program.upcasters() if for_sql else replaced
    in_python = [as_stored(upcast_in_python(taken, document)) for document in program.documents]
    function = edit(function_of(replaced if for_sql else program.upcasters()))
    try:
        in_database = upcast_in_database(connection, function, program.documents)
    except DBAPIError as error:
        raise AssertionError(f"the function fails: {error.orig}") from error
    for document, expected, found in zip(program.documents, in_python, in_database, strict=True):
        assert found == expected, f"{program.steps} on {document!r}"


# A run with a profile of more examples makes more of them here too.
MANY = max(250, settings.default.max_examples)
generated = settings(max_examples=MANY, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.property
@pytest.mark.parametrize("kind", made.STEPS, ids=lambda kind: kind.__name__)
def test_the_database_does_what_python_does(connection: Connection, kind: type[Step]) -> None:
    """Any program, on any documents of any version, gives the same jsonb text in Python and in PostgreSQL."""

    @generated
    @given(program=programs(including=kind))
    def equal(program: Program) -> None:
        require_equal(connection, program)

    equal()


@cases
def test_a_step_in_the_database(connection: Connection, step: Step, before: Raw, after: Raw) -> None:
    """Each of the cases above."""
    require_equal(connection, Program(((), (), (step,)), ({**before, "schema_version": 2}, before)))
    assert json.loads(upcast_in_database(connection, function_of({0: Steps(), 1: Steps(), 2: Steps(step)}), (before,))[0]) == {
        **after,
        "schema_version": 3,
    }


@pytest.mark.parametrize("version", [*made.VERSIONS, "absent"], ids=repr)
def test_versions_in_the_database(connection: Connection, version: Any) -> None:
    """Missing and null are 0; the newest, a newer and a malformed one are returned as they are, to the letter."""
    document = {"a": 1} if version == "absent" else {"schema_version": version, "a": 1}
    program = Program(((Rename("a", "b"),), (Rename("b", "c"),), (Rename("c", "d"),)), (document,))
    require_equal(connection, program)
    old = version in (None, "absent") or (type(version) is int and 0 <= version < 3)
    found = json.loads(upcast_in_database(connection, function_of(program.upcasters()), (document,))[0])
    assert (found != document) == old


@pytest.mark.parametrize("document", [[{"a": 1}], [], "a", "", 1, None, True], ids=repr)
def test_what_is_no_object_stays(connection: Connection, document: Any) -> None:
    """Python refuses to read it."""
    program = Program(((Default("a", 1),), (), (Default("a", 1, at=("b",)),)), (document,))
    require_equal(connection, program)
    with pytest.raises(errors.CorruptDocumentError):
        Probe.load(json.dumps(document))


def test_null_stays_null(connection: Connection) -> None:
    """The function is strict."""
    with connection.begin() as transaction:
        connection.execute(text(upcast_function(Survey)))
        assert connection.scalar(text("SELECT stemma.survey_v3(NULL) IS NULL"))
        transaction.rollback()


@pytest.mark.property
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_document_reads_the_same_before_and_after(connection: Connection, data: st.DataObject) -> None:
    """What the function made of a stored document loads as the document did; what could not be read cannot be read afterwards either."""
    flat = [step for upcaster in Survey._steps.values() if isinstance(upcaster, Steps) for step in upcaster.steps]
    garden = made.Garden(data.draw(st.integers(0, 2**32)), flat)
    documents = [garden.document() for _ in range(100)]
    after = upcast_in_database(connection, upcast_function(Survey), documents)
    for document, upgraded in zip(documents, after, strict=True):
        assert _read(as_stored(document)) == _read(upgraded)


def _read(stored: str) -> Any:
    try:
        return canonical(dump_json(Survey.load(stored)))
    except errors.DocumentError as error:
        return type(error)


surveys = Table("surveys", MetaData(), Column("id", Integer), Column("content", DocumentColumn(Survey)), prefixes=["TEMPORARY"])


def test_the_function_in_a_statement(connection: Connection) -> None:
    """Conditions see the newest shape of rows of any version, and an index on the function serves them."""
    raws = [{"schema_version": version, "title": str(id), "state": id % 2, "question": "Who?"} for version in range(3) for id in range(200)]
    newest = upcast_expression(surveys.c.content)
    is_open = select(surveys.c.id).where(newest["state"].astext == "open")
    with connection.begin() as transaction:
        connection.execute(text(upcast_function(Survey)))
        surveys.create(connection)
        rows = [{"id": id, "content": as_stored(raw)} for id, raw in enumerate(raws)]
        connection.execute(text("INSERT INTO surveys VALUES (:id, CAST(:content AS jsonb))"), rows)
        found = connection.scalars(is_open.where(newest["questions"].contains(["Who?"]))).all()
        # The step from 1 made a list of the question, and documents of version 2 have none.
        loaded = [Survey.load(raw) for raw in raws]
        assert sorted(found) == [id for id, survey in enumerate(loaded) if survey.state == "open" and survey.questions == ("Who?",)]
        assert len(found) > 50
        connection.exec_driver_sql("CREATE INDEX surveys_state_idx ON surveys ((stemma.survey_v3(content) ->> 'state'))")
        connection.exec_driver_sql("ANALYZE surveys")
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        compiled = is_open.compile(connection)
        plan = connection.exec_driver_sql(f"EXPLAIN {compiled}", compiled.construct_params()).scalars().all()
        assert any("surveys_state_idx" in line for line in plan), plan
        transaction.rollback()
    assert "mine.survey_v2(" in str(upcast_expression(surveys.c.content, 2, schema="mine"))


# ------------------------------------------------------------------------------------------------------------ planted defects


def require_counterexample(connection: Connection, kind: type[Step], **planted: Callable[[Any], Any]) -> None:
    """Require that the property above fails with a defect planted."""

    @settings(generated, max_examples=1000, phases=[Phase.generate], database=None, derandomize=True, report_multiple_bugs=False)
    @given(program=programs(including=kind))
    def equal(program: Program) -> None:
        require_equal(connection, program, **planted)

    with pytest.raises(AssertionError):
        equal()


@pytest.mark.property
@pytest.mark.fault
@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__)
def test_a_step_compiled_wrongly_is_found(connection: Connection, defect: type[Step]) -> None:
    """With one of the kinds of step compiled wrongly, the property fails."""
    (kind,) = defect.__bases__

    def replace(step: Step) -> Step:
        if type(step) is not kind:
            return step
        return defect(**{field.name: getattr(step, field.name) for field in dataclasses.fields(step)})

    require_counterexample(connection, kind, replace=replace)


@pytest.mark.property
@pytest.mark.fault
@pytest.mark.parametrize(("pattern", "instead"), EDITS.values(), ids=EDITS)
def test_a_function_written_wrongly_is_found(connection: Connection, pattern: str, instead: str) -> None:
    """With something around the steps written wrongly, the property fails."""
    require_counterexample(connection, Drop, edit=lambda function: re.sub(pattern, instead, function))
