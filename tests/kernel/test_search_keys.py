"""stemmadb.documents.search: one expression and one index for rows of every version, and the same value in Python."""

import json
import random
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any, Literal
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Computed, Connection, Engine, MetaData, NullPool, Table, create_engine, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column

from stemmadb import errors
from stemmadb.database import Database
from stemmadb.documents import Document, DocumentColumn, DocumentPart, Raw, escape, unescape
from stemmadb.documents._canonical import canonical
from stemmadb.documents._values import map_strings
from stemmadb.documents.search import (
    search_column,
    search_differences,
    search_equals,
    search_expression,
    search_index,
    search_key,
    search_keys,
    search_sql,
    search_text,
    search_value,
)
from stemmadb.documents.steps import Default, Listify, Move, Rename, Steps
from stemmadb.paging import page


class Kind(StrEnum):
    PLAIN = "plain"
    ODD = "odd"


class Part(DocumentPart):
    name: str | None = None


ODD_KEY = "it's/a~%s:x \\ é\x00"
ODD_POINTER = "/values/" + ODD_KEY.replace("~", "~0").replace("/", "~1")


@search_key("template", {0: "/tmpl", 1: "/template"}, default="")
@search_key("rule", {0: ("/rules/0", "/rules"), 2: "/rules/0"})
@search_key("kind", {0: None, 2: "/kind"}, default="plain")
@search_key("city", {0: "/city", 3: "/address/city"})
@search_key("score")
@search_key("rank")
@search_key("shown")
@search_key("first", "/parts/0/name")
@search_key("odd", ODD_POINTER)
class Talk(Document, version=3):
    """Every version moved something."""

    template: str = ""
    rules: tuple[str, ...] = ()
    kind: Kind = Kind.PLAIN
    address: Mapping[str, str | None] = {}
    score: float | None = None
    rank: Literal[1, 2, "last"] | None = None
    shown: bool | None = None
    parts: tuple[Part, ...] = ()
    values: Mapping[str, Any] = {}


Talk.upcast(0)(Steps(Rename("tmpl", "template"), Default("template", "")))
Talk.upcast(1)(Steps(Listify("rules"), Default("kind", "plain")))
Talk.upcast(2)(Steps(Move("city", ("address", "city"))))  # type: ignore[arg-type]

# ------------------------------------------------------------------------------------------------------------------- documents

TEXTS = ["", "a", "b", "A", "é", "true", "1", "1.5", "null", "😀" * 300, "\x00", "a\x00", "\ud800", "\x1a", "\x1a0041", "\x1a0000", " a "]
# Around the length at which a text is cut, also in the middle of an escape.
TEXTS += [
    "x" * length + end for length in (495, 496, 497, 498, 499, 500, 501, 900) for end in ("", "y", "\x00", "\ud8ff", "\x1a", "\x1ad8")
]
NUMBERS = [0, 1, -1, 1.0, 1.5, -0.0, 0.1, 1e16, 1e22, 1e-7, 2**53 + 1, 10**30, 1.25e-300]
ANYTHING: list[Any] = [None, True, False, *TEXTS[:17], *NUMBERS, [], ["a"], [1.0], {}, {"a": "b"}]


def talk(chance: random.Random, version: int) -> Raw:
    """A document as a release of that version wrote it, with some keys absent."""

    def maybe(value: Any) -> Any:
        return value if chance.randrange(5) else None

    words = chance.choice(TEXTS)
    rules = [chance.choice(TEXTS) for _ in range(chance.randrange(3))]
    raw: Raw = {
        "schema_version": version,
        "tmpl" if version == 0 else "template": words,
        "rules": rules if version > 1 or not chance.randrange(3) else maybe(chance.choice(TEXTS)),
        "score": maybe(float(chance.choice(NUMBERS))),
        "rank": chance.choice([1, 2, "last", None]),
        "shown": chance.choice([True, False, None]),
        "parts": [{"name": maybe(chance.choice(TEXTS))} for _ in range(chance.randrange(3))],
        "values": {ODD_KEY: chance.choice(ANYTHING)} if chance.randrange(5) else {},
    }
    if version > 1:
        raw["kind"] = chance.choice(["plain", "odd"])
    raw |= {"address": {"city": maybe(chance.choice(TEXTS))}} if version > 2 else {"city": maybe(chance.choice(TEXTS))}
    return {key: value for key, value in raw.items() if key == "schema_version" or chance.randrange(6)}


def as_stored(value: Any, *, bare: bool = False) -> str:
    """The text that is stored of a document; with ``bare``, as raw SQL stores it, which escapes nothing that jsonb takes."""
    stored = map_strings(value, escape)
    return canonical(json.dumps(map_strings(stored, lambda item: item.replace("\x1a001a", "\x1a")) if bare else stored))


# --------------------------------------------------------------------------------------------------------------- declarations


@pytest.mark.offline
def test_keys_can_be_looked_at() -> None:
    """By name, with the place in each version; a class that shares the versions of its base has its keys."""
    assert set(search_keys(Talk)) == {"template", "rule", "kind", "city", "score", "rank", "shown", "first", "odd"}
    assert dict(search_keys(Talk)["rule"].places) == {0: ("/rules/0", "/rules"), 2: ("/rules/0",)}
    assert search_keys(Talk)["kind"].default == "plain"

    @search_key("name")
    class Shared(Document):
        name: str = ""

    class Same(Talk):
        pass

    class Own(Talk, version=1):
        pass

    @search_key("more")
    class Named(Shared, version=1):
        more: str = ""

    assert set(search_keys(Same)) == set(search_keys(Talk))
    assert search_keys(Own) == {}
    assert set(search_keys(Named)) == {"name", "more"}
    with pytest.raises(TypeError):
        search_keys(Talk)["template"].places[5] = ()  # type: ignore[index]


class Wrong(Document, version=2):
    text: str = ""
    at: datetime | None = None
    id: UUID | None = None
    amount: Decimal | None = None
    tags: tuple[str, ...] = ()
    pair: tuple[int, datetime] | None = None
    part: Part | None = None
    mixed: str | datetime = ""
    flag: Literal[True] | None = None
    number: Literal[1] = 1


class Level(IntEnum):
    ONE = 1


class Leveled(Document, version=1):
    level: Level = Level.ONE
    anything: Any = None


@pytest.mark.offline
@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (lambda: search_key("Text"), "cannot name a search key"),
        (lambda: search_key("a" * 41), "cannot name a search key"),
        (lambda: search_key("text", {3: "/text"}), "versions 0 to 2"),
        (lambda: search_key("text", {-1: "/text"}), "versions 0 to 2"),
        (lambda: search_key("text", {True: "/text"}), "versions 0 to 2"),
        (lambda: search_key("text", {}), "versions 0 to 2"),
        (lambda: search_key("text", {0: "/text", 1: None}), "nowhere in the newest Wrong"),
        (lambda: search_key("title"), "no field at /title"),
        (lambda: search_key("text", "text"), "no JSON Pointer"),
        (lambda: search_key("text", ""), "no JSON Pointer"),
        (lambda: search_key("text", "/text~2"), "no JSON Pointer"),
        (lambda: search_key("text", {0: "/old/-1", 1: "/text"}), "place in an array"),
        (lambda: search_key("text", {0: "/old/01", 1: "/text"}), "place in an array"),
        (lambda: search_key("text", {0: "/old/ 1", 1: "/text"}), "place in an array"),
        (lambda: search_key("text", {0: "/o\x1a", 1: "/text"}), r"U\+001A"),
        (lambda: search_key("text", "/text/0"), "no field at"),
        (lambda: search_key("tags"), "no field at /tags"),
        (lambda: search_key("tag", "/tags/x"), "no field at"),
        (lambda: search_key("pair", "/pair/2"), "no field at"),
        (lambda: search_key("pair", "/pair/1"), "atetime, and what is stored"),
        (lambda: search_key("part"), "no field at"),
        (lambda: search_key("part", "/part/nothing"), "no field at"),
        (lambda: search_key("at"), "atetime, and what is stored"),
        (lambda: search_key("id"), "type UUID"),
        (lambda: search_key("amount"), "type Decimal"),
        (lambda: search_key("mixed"), "atetime, and what is stored"),
        (lambda: search_key("flag"), "Literal"),
        (lambda: search_key("text", default=float("nan")), "not float"),
    ],
)
def test_a_key_that_cannot_be_right_is_refused(key: Callable[[], Callable[[type[Wrong]], type[Wrong]]], reason: str) -> None:
    """As it is declared, with the reason."""
    with pytest.raises(errors.ConfigurationError, match=reason):
        key()(Wrong)
    assert search_keys(Wrong) == {}


@pytest.mark.offline
def test_a_name_is_taken_once() -> None:
    """A second key of the same name is refused, and so is asking for one that is not there."""

    class Twice(Document, version=1):
        text: str = ""
        number: Literal[1] = 1

    search_key("text")(Twice)
    search_key("number")(Twice)
    with pytest.raises(errors.ConfigurationError, match="two search keys called text"):
        search_key("text")(Twice)
    with pytest.raises(errors.ConfigurationError, match=r"no search key title \(it has: text, number\)"):
        search_value(Twice(), "title")
    for pointer in ("/level", "/anything", "/anything/deep/0"):
        search_key(f"key_{len(pointer)}", pointer)(Leveled)


@pytest.mark.offline
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", "a"), ("", ""), ("1.50", "1.50"), ("\x00", "\x1a0000"), ("x" * 600, "x" * 500), (None, None), (True, "true"),
        (False, "false"), (1, "1"), (1.0, "1"), (1.5, "1.5"), (-0.0, "0"), (100, "100"), (100.0, "100"), (1e-7, "0.0000001"),
        (10**20, "1" + "0" * 20),
    ],
)  # fmt: skip
def test_the_text_of_a_value(value: Any, expected: str | None) -> None:
    """Numbers that are equal have one text."""
    assert search_text(value) == expected


@pytest.mark.offline
def test_the_value_of_a_document() -> None:
    """At its place in the newest version; the default where there is nothing."""
    talk = Talk(template="t", rules=("r", "s"), address={"city": "Oslo"}, score=2, parts=(Part(), Part(name="n")), values={ODD_KEY: [1]})
    found = {name: search_value(talk, name) for name in search_keys(Talk)}
    assert found == {
        **dict.fromkeys(("rank", "shown", "first", "odd")),
        "template": "t",
        "rule": "r",
        "kind": "plain",
        "city": "Oslo",
        "score": "2",
    }
    assert search_value(Talk(), "template") == ""


# --------------------------------------------------------------------------------------------------------- Python = PostgreSQL


class _Model(DeclarativeBase):
    pass


class Lecture(_Model):
    """A global table: an index on the expression."""

    __tablename__ = "lectures"
    __table_args__ = {"schema": "probe_search"}

    id: Mapped[int] = mapped_column(primary_key=True)
    content: Mapped[Talk | None] = mapped_column(DocumentColumn(Talk))


class Speech(_Model):
    """A table of workspaces: a column that the database computes."""

    __tablename__ = "speeches"
    __table_args__ = {"schema": "probe_search"}

    workspace_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(primary_key=True)
    content: Mapped[Talk] = mapped_column(DocumentColumn(Talk), deferred=True, deferred_raiseload=True)
    content_template: Mapped[str | None] = mapped_column(Computed(search_sql(Talk, "template", "content"), persisted=True), deferred=True)


TABLES = """
CREATE SCHEMA probe_search;
CREATE TABLE probe_search.lectures (id integer PRIMARY KEY, content jsonb);
CREATE TABLE probe_search.speeches (workspace_id uuid, id integer, content jsonb NOT NULL, PRIMARY KEY (workspace_id, id));
GRANT USAGE ON SCHEMA probe_search TO stemma_app;
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA probe_search TO stemma_app;
ALTER TABLE probe_search.speeches ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY speeches_tenant ON probe_search.speeches
  USING (workspace_id = nullif(current_setting('stemma.workspace_id', true), '')::uuid);
"""


@pytest.fixture(scope="module")
def engine(stemmadb_database: Database) -> Iterator[Engine]:
    """An engine of the owner, and two tables with the column and the indexes that the library writes down."""
    made = create_engine(stemmadb_database.direct_url, poolclass=NullPool)
    with made.begin() as connection:
        connection.exec_driver_sql(TABLES)
        connection.execute(text(search_column(Speech.content, "template")))
        for column in (Lecture.content, Speech.content):
            name, definition = search_index(column, "template")
            connection.execute(text(f"CREATE INDEX {name} {definition}"))
    yield made
    with made.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA probe_search CASCADE")


@pytest.fixture(scope="module")
def connection(engine: Engine) -> Iterator[Connection]:
    """One connection for many small statements."""
    with engine.connect() as made:
        yield made


@pytest.fixture
def lectures(engine: Engine) -> Iterator[Session]:
    """A session in which documents of every version are stored; rolled back."""
    chance = random.Random(11)
    with Session(engine) as session:
        rows = [{"id": id, "content": as_stored(talk(chance, id % 4), bare=id % 3 == 0)} for id in range(2000)]
        session.execute(text("INSERT INTO probe_search.lectures VALUES (:id, CAST(:content AS jsonb))"), rows)
        session.execute(text("ANALYZE probe_search.lectures"))
        yield session
        session.rollback()


@pytest.mark.property
@settings(max_examples=max(40, settings.default.max_examples // 2), deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), version=st.integers(0, 3), bare=st.booleans())
def test_the_database_finds_what_python_reads(connection: Connection, seed: int, version: int, bare: bool) -> None:
    """For documents of every version, each key is in SQL what it is for the loaded document."""
    chance = random.Random(seed)
    stored = [as_stored(talk(chance, version), bare=bare) for _ in range(100)]
    assert search_differences(connection, Talk, stored) == []


@pytest.mark.property
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    words=st.lists(st.text(st.characters() | st.sampled_from("\x00\x1a\ud8000d"), max_size=12), min_size=20, max_size=20),
    length=st.integers(480, 505),
)
def test_any_text_is_the_same_in_both(connection: Connection, words: list[str], length: int) -> None:
    """All of Unicode, escaped or stored by raw SQL as it is, short or cut."""
    documents = [{"schema_version": 3, "template": "x" * (index % 2 * length) + word} for index, word in enumerate(words)]
    assert search_differences(connection, Talk, [as_stored(document, bare=bare) for document in documents for bare in (True, False)]) == []


@pytest.mark.fault
@pytest.mark.parametrize(
    ("declare", "name"),
    [
        (search_key("template"), "template"),
        (search_key("template", {0: "/tmpl", 1: "/template"}), "template"),
        (search_key("rule", "/rules/0"), "rule"),
        (search_key("rule", {0: "/rules", 2: "/rules/0"}), "rule"),
        (search_key("city", "/address/city"), "city"),
        (search_key("city", {0: "/city", 2: "/address/city"}), "city"),
        (search_key("kind", {2: "/kind"}), "kind"),
    ],
    ids=[
        "a place too few",
        "no default",
        "one shape only",
        "the other shape only",
        "only the newest place",
        "moved too early",
        "no default before",
    ],
)
def test_a_key_that_is_declared_wrongly_is_found(connection: Connection, declare: Any, name: str) -> None:
    """The comparison says which key, for which document, and both values."""
    wrong = type("Wrong", (Talk,), {"__module__": __name__}, version=3)
    wrong._steps = dict(Talk._steps)
    declare(wrong)
    chance = random.Random(3)
    differences = search_differences(connection, wrong, [talk_ for n in range(200) if (talk_ := as_stored(talk(chance, n % 4)))])
    assert {difference.name for difference in differences} == {name}
    first = differences[0]
    assert first.in_database != first.in_python == search_value(wrong.load(json.dumps(first.stored)), name)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({"schema_version": "3", "template": "a"}, None),
        ({"schema_version": -1, "template": "a"}, None),
        ({"schema_version": 1.0, "template": "a"}, None),
        ({"schema_version": 10**9, "template": "a"}, None),
        ({"schema_version": 4, "template": "a"}, "a"),
        ({"schema_version": None, "tmpl": "a"}, "a"),
        ({"tmpl": "a", "template": "b"}, "a"),
        ({"schema_version": 1, "tmpl": "a", "template": "b"}, "b"),
        ({"schema_version": 1, "template": ["b"]}, ""),
        ({"schema_version": 1, "template": 1.50}, "1.5"),
        ({"schema_version": 1, "template": {"b": 1}}, ""),
    ],
)
def test_what_counts_in_the_database(connection: Connection, stored: Raw, expected: str | None) -> None:
    """Nothing of a malformed version; of a newer one what stands where it stood; of scalars their text."""
    statement = text(f"SELECT {search_sql(Talk, 'template', 'stored')} FROM (SELECT CAST(:stored AS jsonb) AS stored) AS given")
    assert connection.scalar(statement, {"stored": json.dumps(stored)}) == expected


def test_null_has_no_value(engine: Engine) -> None:
    """A row without a document is found by the absence of a value."""
    with Session(engine) as session:
        session.add(Lecture(id=1, content=None))
        session.flush()
        assert session.scalars(select(Lecture.id).where(search_equals(Lecture.content, "template", None))).all() == [1]
        session.rollback()


# --------------------------------------------------------------------------------------------------------- filters and orders


@pytest.mark.parametrize("name", ["template", "rule", "score", "shown", "odd"])
def test_a_filter_finds_rows_of_every_version(lectures: Session, name: str) -> None:
    """Exactly those whose loaded document has the value, long or escaped as it may be."""
    places: dict[str, Callable[[Talk], Any]] = {
        "template": lambda talk: talk.template,
        "rule": lambda talk: talk.rules[0] if talk.rules else None,
        "score": lambda talk: talk.score,
        "shown": lambda talk: talk.shown,
        "odd": lambda talk: value if not isinstance(value := talk.values.get(ODD_KEY), tuple | Mapping) else None,
    }
    loaded = {lecture.id: places[name](lecture.content) for lecture in lectures.scalars(select(Lecture)) if lecture.content is not None}
    for value in {_text(value): value for value in loaded.values()}.values():
        found = lectures.scalars(select(Lecture.id).where(search_equals(Lecture.content, name, value))).all()
        assert found
        assert set(found) == {id for id, other in loaded.items() if _text(other) == _text(value)}, value


def _text(value: Any) -> str | None:
    """The whole text of a value."""
    return value if value is None or isinstance(value, str) else search_text(value)


def test_a_prefix_is_found(lectures: Session) -> None:
    """With the text of the value, and whatever operator text has."""
    expression = search_expression(Lecture.content, "template")
    found = lectures.scalars(select(Lecture).where(expression.startswith(search_text("a\x00"), autoescape=True))).all()
    assert found
    assert {lecture.content.template for lecture in found if lecture.content} == {"a\x00"}


def test_an_order_is_that_of_all_versions(lectures: Session) -> None:
    """Pages in the order of a key hold every row once, whatever their versions."""
    expression = search_expression(Lecture.content, "template")
    in_order = [tuple(row) for row in lectures.execute(select(expression, Lecture.id).order_by(expression, Lecture.id))]
    assert [unescape(words or "") for words, _ in in_order] == [
        unescape(search_value(lecture.content, "template") or "") if lecture.content else ""
        for lecture in lectures.scalars(select(Lecture).order_by(expression, Lecture.id))
    ]
    seen: list[int] = []
    cursor = None
    while True:
        found = page(lectures, select(Lecture.id), order_by=[expression], cursor=cursor, limit=190)
        seen += [row[0] for row in found]
        cursor = found.next_cursor
        if cursor is None:
            break
    assert seen == [id for _, id in in_order]


def test_an_alias_is_searched_by_its_own_column(lectures: Session) -> None:
    """Not by that of the table, which would join every row with every other."""
    other = aliased(Lecture)
    assert str(select(search_expression(other.content, "template"))).count("FROM probe_search.lectures AS") == 1
    assert "FROM probe_search.speeches AS" in str(select(search_expression(aliased(Speech).content, "template")))
    assert "jsonb_extract" not in str(select(search_expression(aliased(Speech).content, "template")))
    same = select(func.count()).select_from(other).where(search_equals(other.content, "template", "a"))
    assert lectures.scalar(same) == lectures.scalar(select(func.count()).where(search_equals(Lecture.content, "template", "a")))


# -------------------------------------------------------------------------------------------------------------------- indexes


def plan_of(session: Session, statement: Any) -> str:
    """The plan of a statement, with the parameters that it is sent with."""
    compiled = statement.compile(session.get_bind(), compile_kwargs={"render_postcompile": True})
    rows = session.connection().exec_driver_sql(f"EXPLAIN {compiled}", compiled.construct_params())
    return "\n".join(row[0] for row in rows)


def test_a_filter_uses_the_index_on_the_expression(lectures: Session) -> None:
    """Also a long value, whose rest is compared in what the index found, and an order."""
    for value in ("b", "x" * 900):
        plan = plan_of(lectures, select(Lecture.id).where(search_equals(Lecture.content, "template", value)))
        assert "lectures_content_template_idx" in plan
        assert "Cond:" in plan
    ordered = select(Lecture.id).order_by(search_expression(Lecture.content, "template")).limit(5)
    assert "Index Scan using lectures_content_template_idx" in plan_of(lectures, ordered)


def test_a_row_with_a_long_value_can_be_stored(lectures: Session) -> None:
    """An index entry has room for it, whatever the characters: 500 of four bytes that do not compress."""
    chance = random.Random(1)
    words = "".join(chr(chance.randrange(0x10000, 0x10FFFF)) for _ in range(20_000))
    lectures.add(Lecture(id=-1, content=Talk(template=words)))
    lectures.flush()
    assert lectures.scalars(select(Lecture.id).where(search_equals(Lecture.content, "template", words))).all() == [-1]
    assert lectures.scalars(select(Lecture.id).where(search_equals(Lecture.content, "template", words[:-1]))).all() == []


def test_under_row_level_security_the_column_is_used(engine: Engine, stemmadb_database: Database) -> None:
    """The computed column and its index serve a workspace's filter; an index on the expression does not."""
    chance = random.Random(5)
    one, two = "018f0000-0000-7000-8000-000000000001", "018f0000-0000-7000-8000-000000000002"
    with engine.begin() as owner:
        owner.exec_driver_sql(
            f"CREATE INDEX speeches_expression_idx ON probe_search.speeches (workspace_id, ({search_sql(Talk, 'template', 'content')}))"
        )
    app = create_engine(stemmadb_database.url, poolclass=NullPool)
    with Session(app) as session:
        for workspace in (one, two):
            session.execute(text(f"SET LOCAL stemma.workspace_id = '{workspace}'"))
            rows = [{"w": workspace, "id": id, "content": as_stored(talk(chance, id % 4))} for id in range(3000)]
            session.execute(text("INSERT INTO probe_search.speeches VALUES (CAST(:w AS uuid), :id, CAST(:content AS jsonb))"), rows)
        session.commit()
    with engine.begin() as owner:
        owner.exec_driver_sql("ANALYZE probe_search.speeches")
    with Session(app) as session:
        session.execute(text(f"SET LOCAL stemma.workspace_id = '{one}'"))
        statement = select(Speech.id).where(Speech.workspace_id == UUID(one), search_equals(Speech.content, "template", "b"))
        plan = plan_of(session, statement)
        assert "speeches_content_template_idx" in plan
        assert "content_template = 'b'" in plan.partition("Index Cond:")[2].partition("\n")[0]
        found = session.scalars(statement).all()
        expression = text(f"{search_sql(Talk, 'template', 'content')} = 'b'")
        unaided = plan_of(session, select(Speech.id).where(Speech.workspace_id == UUID(one), expression))
        assert "Index Cond" not in unaided or "regexp_replace" not in unaided.partition("Index Cond:")[2].partition("\n")[0]
        assert sorted(session.scalars(select(Speech.id).where(expression))) == sorted(found)
    with engine.begin() as owner:
        owner.exec_driver_sql("TRUNCATE probe_search.speeches")
    app.dispose()


@pytest.mark.offline
def test_the_ddl_says_what_it_is_for() -> None:
    """A column and an index that begins with the workspace for tables of workspaces, an index on the expression for others."""
    assert search_column(Speech.content, "template").startswith(
        "ALTER TABLE probe_search.speeches ADD COLUMN content_template text GENERATED ALWAYS AS (left("
    )
    assert search_index(Speech.content, "template") == (
        "speeches_content_template_idx",
        "ON probe_search.speeches (workspace_id, content_template)",
    )
    name, definition = search_index(Lecture.content, "rule")
    assert name == "lectures_content_rule_idx"
    assert definition == f"ON probe_search.lectures (({search_sql(Talk, 'rule', 'content')}))"
    for made in (search_column(Speech.content, "odd"), search_index(Lecture.content, "odd")[1]):
        assert str(text(made)) == made
        assert made.isascii()
        assert "%" not in made
    long = Table("a" * 50, MetaData(), Column("content", DocumentColumn(Talk)))
    with pytest.raises(errors.ConfigurationError, match="too long a name"):
        search_index(long.c.content, "template")


def test_the_expression_of_an_entity_is_that_of_the_revision(engine: Engine) -> None:
    """What metadata makes of ``search_sql`` and what ``search_column`` adds is the same to PostgreSQL."""
    generated = text(
        """
        SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef JOIN pg_class ON pg_class.oid = adrelid
         WHERE relname = 'speeches' AND relnamespace IN ('probe_search'::regnamespace, 'probe_search_made'::regnamespace)
        """
    )
    with engine.connect() as connection, connection.begin() as transaction:
        connection.exec_driver_sql("CREATE SCHEMA probe_search_made")
        elsewhere = connection.execution_options(schema_translate_map={"probe_search": "probe_search_made"})
        Speech.metadata.create_all(elsewhere, checkfirst=False)
        one, other = connection.scalars(generated)
        assert one == other
        transaction.rollback()
