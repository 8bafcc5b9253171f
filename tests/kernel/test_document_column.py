"""DocumentColumn on PostgreSQL: what is stored, what reading leaves alone, what is never overwritten."""

import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    Connection,
    Engine,
    NullPool,
    Text,
    cast,
    create_engine,
    delete,
    event,
    func,
    insert,
    literal,
    literal_column,
    select,
    text,
    type_coerce,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, load_only, mapped_column, undefer

from stemmadb import errors
from stemmadb.database import Database
from stemmadb.documents import (
    Document,
    DocumentColumn,
    DocumentPart,
    OnInvalid,
    Raw,
    RawDocument,
    attach_documents,
    content_hash,
    dump_json,
    keep_unreadable,
    resolve_unreadable,
    stored_version,
    version_guard,
)
from stemmadb.documents._canonical import canonical


class Point(DocumentPart):
    x: int


class Settings(Document, version=2):
    name: str = ""
    size: int | None = None
    points: tuple[Point, ...] = ()
    labels: Mapping[str, str] = {}
    open: Any = None


@Settings.upcast(0)
def _nothing_changed(raw: Raw) -> Raw:
    return raw


@Settings.upcast(1)
def _title_became_name(raw: Raw) -> Raw:
    return {**{key: value for key, value in raw.items() if key != "title"}, "name": raw.get("title", "")}


class _Model(DeclarativeBase):
    pass


class Device(_Model):
    """Has a body that is fetched only when asked for, with its version beside it."""

    __tablename__ = "devices"
    __table_args__ = {"schema": "probe_documents"}

    group_id: Mapped[int] = mapped_column(primary_key=True, default=1)
    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str | None]
    settings: Mapped[Settings | None] = mapped_column(DocumentColumn(Settings))
    body: Mapped[Settings | None] = mapped_column(DocumentColumn(Settings), deferred=True, deferred_raiseload=True)
    body_version: Mapped[int | None] = mapped_column(server_default=text("0"), deferred=True)


TABLES = """
CREATE SCHEMA probe_documents;
CREATE TABLE probe_documents.devices (
  group_id integer NOT NULL DEFAULT 1,
  id integer NOT NULL,
  note text,
  settings jsonb,
  body jsonb,
  body_version integer GENERATED ALWAYS AS (stemma.stemma_document_version(body)) STORED,
  PRIMARY KEY (group_id, id)
);
"""


@pytest.fixture(scope="module")
def engine(stemmadb_database: Database) -> Iterator[Engine]:
    """An engine of the owner, and the table."""
    made = create_engine(stemmadb_database.direct_url, poolclass=NullPool)
    with made.begin() as connection:
        connection.exec_driver_sql(TABLES)
    yield made
    with made.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA probe_documents CASCADE")


@pytest.fixture(autouse=True)
def _empty(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "engine" in request.fixturenames:
        with request.getfixturevalue("engine").begin() as connection:
            connection.execute(delete(Device))


@pytest.fixture(scope="module")
def connection(engine: Engine) -> Iterator[Connection]:
    """One connection for many small statements."""
    with engine.connect() as made:
        yield made


def store(engine: Engine, id: int, settings: str | None = None, body: str | None = None) -> None:
    """Store JSON text as another program would."""
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO probe_documents.devices (id, settings, body) VALUES (:id, CAST(:settings AS jsonb), CAST(:body AS jsonb))"),
            {"id": id, "settings": settings, "body": body},
        )


def stored(engine: Engine) -> list[tuple[Any, ...]]:
    """Everything in the table, with the transaction that wrote each row."""
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id, note, settings::text, body::text, xmin::text FROM probe_documents.devices ORDER BY id"))
        return [tuple(row) for row in rows]


# ------------------------------------------------------------------------------------------------------- reading and writing


@pytest.mark.requirement("VR-016", "VR-111")
@pytest.mark.parametrize(
    "old", ['{"title": "t", "size":   1e2, "more": [1.50]}', '{"schema_version": 1, "title": "t"}', '{"schema_version": 2, "size": 1}']
)
def test_reading_leaves_the_row_alone(engine: Engine, old: str) -> None:
    """After a load, a change of another column elsewhere, a flush and a commit, the stored bytes and xmin are what they were."""
    store(engine, 1, old, old)
    before = stored(engine)
    with Session(engine) as session:
        device = session.scalars(select(Device).options(undefer(Device.body))).one()
        assert device.settings is not None
        assert device.body == device.settings
        assert device.settings.schema_version == 2
        assert not session.dirty
        assert not session.is_modified(device)
        session.flush()
        session.commit()
    assert stored(engine) == before


def test_setting_an_equal_document_is_no_change(engine: Engine) -> None:
    """The row is not written; but 1 and True are different JSON, and a change."""
    with Session(engine) as session:
        session.add(Device(id=1, settings=Settings(name="a", open=1)))
        session.commit()
        before = stored(engine)
        device = session.get_one(Device, (1, 1))
        device.settings = Settings(name="a", open=1)
        session.commit()
        assert stored(engine) == before
        device.settings = Settings(name="a", open=True)
        session.commit()
    assert json.loads(stored(engine)[0][2])["open"] is True


@pytest.mark.requirement("VR-017")
def test_unknown_keys_survive_a_change(engine: Engine) -> None:
    """What a newer writer added to a document of this version is there still after a change by this one."""
    store(engine, 1, '{"schema_version": 2, "name": "a", "added": {"by": [1, null]}, "points": [{"x": 1, "y": 2}]}')
    with Session(engine) as session:
        device = session.get_one(Device, (1, 1))
        assert device.settings is not None
        device.settings = device.settings.replace(name="b")
        session.commit()
    changed = json.loads(stored(engine)[0][2])
    assert (changed["name"], changed["added"], changed["points"]) == ("b", {"by": [1, None]}, [{"x": 1, "y": 2}])


@pytest.mark.requirement("AD-016")
def test_strings_that_jsonb_cannot_hold(engine: Engine) -> None:
    """They are stored, found by the same text in queries through the column, and come back."""
    text_ = "\x00\ud800'%\x1a0000\\"
    with Session(engine) as session:
        session.add(Device(id=1, settings=Settings(name=text_, labels={text_: text_})))
        session.commit()
        session.expunge_all()
        found = session.scalars(select(Device).where(Device.settings == Settings(name=text_, labels={text_: text_}))).one()
        assert found.settings is not None
        assert (found.settings.name, dict(found.settings.labels)) == (text_, {text_: text_})


def test_queries_look_inside(engine: Engine) -> None:
    """Index, path, containment, key and comparison operators of JSONB work, and their results are plain JSON."""
    with Session(engine) as session:
        session.add_all([Device(id=1, settings=Settings(name="a", labels={"k": "v"}, points=(Point(x=1),))), Device(id=2, settings=None)])
        session.flush()
        column = Device.settings
        for condition in (
            column["name"].astext == "a",
            column["points"][0]["x"].as_integer() == 1,
            column[("labels", "k")].astext == "v",
            column.contains({"name": "a"}),
            column.has_key("labels"),  # type: ignore[attr-defined]
            column == Settings(name="a", labels={"k": "v"}, points=(Point(x=1),)),
            column.op("->>")("name") == "a",
            func.jsonb_array_length(column["points"]) == 1,
        ):
            assert session.scalars(select(Device.id).where(condition)).all() == [1]
        assert session.scalars(select(Device.id).where(column.is_(None))).all() == [2]
        assert session.scalars(select(column["labels"]).where(Device.id == 1)).one() == {"k": "v"}
        assert session.scalars(select(column.op("||")(type_coerce({"z": 1}, JSONB))).where(Device.id == 1)).one()["z"] == 1


def test_documents_come_out_of_any_statement(engine: Engine) -> None:
    """Columns, subqueries, unions, aliased entities, RETURNING and literals give documents, and NULL gives None."""
    with Session(engine) as session:
        document = Settings(name="it's 100% \\ :x")
        session.add(Device(id=1, settings=document))
        session.flush()
        inner = select(Device.id, Device.settings).distinct().subquery()
        other = aliased(Device, select(Device).cte())
        for statement in (
            select(Device.settings),
            select(inner.c.settings),
            union_all(select(Device.settings)),
            select(other.settings),
            select(literal(document, DocumentColumn(Settings))),
            update(Device).values(note="n").returning(Device.settings),
            select(func.coalesce(Device.settings, Device.body)),
        ):
            assert session.execute(statement).scalars().all() == [document]
        assert session.scalars(insert(Device).values(id=2, settings=None).returning(Device.settings)).one() is None
        compiled = select(Device.id).where(Device.settings == document).compile(engine, compile_kwargs={"literal_binds": True})
        assert session.connection().exec_driver_sql(str(compiled)).scalars().all() == [1]
        many = session.scalars(insert(Device).returning(Device.settings), [{"id": n, "settings": Settings(size=n)} for n in range(3, 9)])
        assert [item and item.size for item in many] == list(range(3, 9))


@pytest.mark.parametrize("value", [{"name": "a"}, "text", Point(x=1), RawDocument({}, errors.DocumentError(None, None, None, "odd"))])
def test_only_documents_of_the_class_are_written(engine: Engine, value: Any) -> None:
    """The error names the class that the column takes; nothing is sent."""
    with Session(engine) as session, pytest.raises(errors.ValidationError, match="settings takes a Settings"):
        session.execute(insert(Device).values(id=1, settings=value))


@pytest.mark.requirement("AD-017")
def test_a_document_beyond_a_limit_is_not_sent(engine: Engine) -> None:
    """The error names table and column."""
    with Session(engine) as session:
        session.add(Device(id=1, settings=Settings(name="x" * 17_000_000)))
        with pytest.raises(errors.DocumentTooLargeError) as raised:
            session.flush()
    assert (raised.value.table, raised.value.column) == ("devices", "settings")


def test_errors_of_reading_name_table_and_column(engine: Engine) -> None:
    """Also where only the column was selected."""
    store(engine, 1, '{"schema_version": 3}')
    with Session(engine) as session:
        for statement in (select(Device), select(Device.settings), select(aliased(Device).settings)):
            with pytest.raises(errors.UnknownSchemaVersionError) as raised:
                session.execute(statement).all()
            assert (raised.value.table, raised.value.column, raised.value.found) == ("devices", "settings", 3)


# ------------------------------------------------------------------------------------------------- hashes, numbers, strings

characters = st.characters() | st.sampled_from('\x00\x1a\x1f"\\/\x7f\ud800')
texts = st.text(characters, max_size=10)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1e16, 1e-7, 1e300, 5e-324, 10**60])
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=10,
)
documents = st.builds(
    Settings,
    name=texts,
    size=st.none() | st.integers(),
    points=st.lists(st.builds(Point, x=st.integers()), max_size=2).map(tuple),
    labels=st.dictionaries(texts, texts, max_size=3),
    open=values,
)
# A run with --hypothesis-profile of more examples makes more of them here too.
MANY = max(500, settings.default.max_examples)


@pytest.mark.property
@pytest.mark.requirement("AD-004")
@settings(max_examples=MANY, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=documents)
def test_the_hash_is_the_databases(connection: Connection, document: Settings) -> None:
    """For every document, content_hash gives the 32 bytes that stemma_document_hash gives, and the stored text reads as the document."""
    written = dump_json(document)
    statement = text("SELECT d::text, stemma.stemma_document_hash(d) FROM (SELECT CAST(:written AS jsonb) AS d) AS given")
    shown, hashed = connection.execute(statement, {"written": written}).one()
    assert canonical(written) == shown
    assert content_hash(document) == bytes(hashed)
    assert Settings.load(shown) == document


@pytest.mark.property
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    number=st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?", fullmatch=True),
    key=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=4),
)
def test_canonical_text_is_the_databases(connection: Connection, number: str, key: str) -> None:
    """Any number that JSON can write, and any order of keys."""
    given_text = f'{{{json.dumps(key)}: {number}, "é": 1, "aaaa": 2, "z": 3}}'
    assert canonical(given_text) == connection.execute(select(cast(cast(literal(given_text, Text), JSONB), Text))).scalar_one()


# ------------------------------------------------------------------------------------------------------------------- guards

OPERATIONS = ("assign loaded", "assign unread", "assign none", "update", "other column", "delete")


@pytest.mark.property
@pytest.mark.requirement("AD-015", "VR-014", "VR-020")
@settings(max_examples=max(150, settings.default.max_examples), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    version=st.sampled_from([0, 1, 2, 3, 4, 999_999_999, 10**9, 10**12, -1, 2.5, "3"]),
    operation=st.sampled_from(OPERATIONS),
    column=st.sampled_from(["settings", "body"]),
)
def test_a_newer_document_is_never_overwritten(engine: Engine, version: object, operation: str, column: str) -> None:
    """Whatever is done: a document of an unknown version stays as it is, and one of a known version is replaced."""
    raw = json.dumps({"schema_version": version, "name": "theirs"})
    known = type(version) is int and 0 <= version <= 2
    with engine.begin() as connection:
        connection.execute(delete(Device))
    store(engine, 1, '{"schema_version": 2}', '{"schema_version": 2}')
    with Session(engine) as session:
        options = (undefer(Device.body),) if operation == "assign loaded" else (load_only(Device.id, Device.note),)
        device = session.scalars(select(Device).options(*options)).one()
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE probe_documents.devices SET {column} = CAST(:raw AS jsonb)"), {"raw": raw})
        refused: errors.DocumentError | None = None
        try:
            _act(session, device, operation, column)
            session.commit()
        except errors.DocumentError as error:
            refused = error
            session.rollback()
    assert (refused is not None) == (operation.startswith("assign") and not known)
    assert refused is None or (refused.table, refused.column, refused.key) == ("devices", column, 1)
    rows = stored(engine)
    if operation == "delete":
        assert rows == []
        return
    kept = rows[0][2] if column == "settings" else rows[0][3]
    if operation == "other column" or not known:
        assert kept is not None
        assert json.loads(kept) == json.loads(raw)
    else:
        assert kept is None if operation == "assign none" else json.loads(kept)["name"] == "mine"
    assert (rows[0][1] == "n") == (operation == "other column")


def _act(session: Session, device: Device, operation: str, column: str) -> None:
    match operation:
        case "assign loaded" | "assign unread":
            setattr(device, column, Settings(name="mine"))
        case "assign none":
            setattr(device, column, None)
        case "update":
            attribute = getattr(Device, column)
            session.execute(update(Device).where(version_guard(attribute)).values({column: Settings(name="mine")}))
        case "other column":
            device.note = "n"
        case "delete":
            session.execute(delete(Device))


def test_a_document_set_to_null_can_be_written(engine: Engine) -> None:
    """NULL is of version 0."""
    store(engine, 1)
    with Session(engine) as session:
        session.get_one(Device, (1, 1)).settings = Settings(name="a")
        session.commit()
        assert session.scalars(select(stored_version(Device.settings))).one() == 2
        assert session.scalars(select(stored_version(Device.body))).one() == 0


def test_a_refused_flush_leaves_the_transaction_usable(engine: Engine) -> None:
    """The refusal comes before any UPDATE of the flush: nothing is half done, and the session goes on."""
    store(engine, 1, '{"schema_version": 2}')
    store(engine, 2, '{"schema_version": 9}')
    with Session(engine) as session:
        first, second = session.scalars(select(Device).options(load_only(Device.id)).order_by(Device.id))
        first.settings = second.settings = Settings(name="mine")
        with pytest.raises(errors.UnknownSchemaVersionError):
            session.flush()
        session.expire(second)
        session.commit()
    assert [json.loads(row[2]).get("name") for row in stored(engine)] == ["mine", None]


def test_the_guard_costs_one_statement_for_a_flush(engine: Engine) -> None:
    """Not one for each row, none when no document is changed, and none on insert."""
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    with Session(engine) as session:
        session.add_all(Device(id=n, settings=Settings()) for n in range(5))
        session.flush()
        assert not [item for item in statements if "FOR NO KEY UPDATE" in item]
        for device in session.scalars(select(Device)):
            device.note = "n"
        session.flush()
        assert not [item for item in statements if "FOR NO KEY UPDATE" in item]
        for device in session.scalars(select(Device)):
            device.settings = Settings(name="b")
            device.body = Settings(name="c")
        session.flush()
        assert len([item for item in statements if "FOR NO KEY UPDATE" in item]) == 1
        assert "devices.body_version" in next(item for item in statements if "FOR NO KEY UPDATE" in item)


@pytest.mark.race
def test_a_newer_writer_between_reading_and_writing_wins(engine: Engine) -> None:
    """A flush waits for the row, and sees the newer document that was committed meanwhile."""
    store(engine, 1, '{"schema_version": 2}')
    locked = threading.Event()
    outcome: list[BaseException | None] = []

    def write_late() -> None:
        with Session(engine) as session:
            device = session.get_one(Device, (1, 1))
            device.settings = Settings(name="mine")
            locked.wait(10)
            try:
                session.commit()
                outcome.append(None)
            except errors.StemmaError as error:
                outcome.append(error)

    with engine.connect() as newer, newer.begin():
        newer.exec_driver_sql("""UPDATE probe_documents.devices SET settings = '{"schema_version": 3}'""")
        thread = threading.Thread(target=write_late)
        thread.start()
        locked.set()
        with engine.connect() as watcher:
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
            while thread.is_alive() and not watcher.exec_driver_sql(waiting).scalar_one():
                watcher.rollback()
    thread.join(30)
    assert isinstance(outcome[0], errors.UnknownSchemaVersionError)
    assert json.loads(stored(engine)[0][2]) == {"schema_version": 3}


async def test_the_guard_works_under_asyncio(engine: Engine) -> None:
    """An AsyncSession flushes through the same check."""
    store(engine, 1, '{"schema_version": 3}')
    async_engine = create_async_engine(engine.url, poolclass=NullPool)
    async with AsyncSession(async_engine) as session:
        device = (await session.scalars(select(Device).options(load_only(Device.id)))).one()
        device.settings = Settings(name="mine")
        with pytest.raises(errors.UnknownSchemaVersionError):
            await session.commit()
    await async_engine.dispose()
    assert json.loads(stored(engine)[0][2]) == {"schema_version": 3}


# --------------------------------------------------------------------------------------------------------- unreadable documents

BAD = {
    2: '{"schema_version": 9, "name": "newer"}',
    3: '{"schema_version": "x"}',
    4: '{"schema_version": 2, "size": "large"}',
    5: "[1]",
    6: '{"schema_version": 2, "open": ' + "[" * 6000 + "]" * 6000 + "}",
    7: '{"schema_version": 2, "name": "' + "x" * 17_000_000 + '"}',
}


@pytest.fixture
def page(engine: Engine) -> Engine:
    """Two good rows, and between them one of each that cannot be read."""
    for id, raw in {1: '{"name": "a"}', **BAD, 8: '{"schema_version": 2, "name": "b"}'}.items():
        store(engine, id, raw, raw)
    return engine


def fetch_entities(session: Session, on_invalid: OnInvalid) -> list[Device]:
    """Fetch entities with their documents."""
    with keep_unreadable():
        devices = session.scalars(select(Device).order_by(Device.id)).all()
    return resolve_unreadable(devices, on_invalid)


def fetch_beside(session: Session, on_invalid: OnInvalid) -> list[Device]:
    """Fetch the documents' text beside entities without them."""
    pairs = session.execute(select(Device, cast(Device.body, Text)).options(load_only(Device.id)).order_by(Device.id)).all()
    return attach_documents(((device, raw) for device, raw in pairs), Device.body, on_invalid)


@pytest.mark.requirement("AD-017", "VR-020")
@pytest.mark.parametrize(("fetch", "attribute"), [(fetch_entities, "settings"), (fetch_beside, "body")])
def test_a_row_that_cannot_be_read_does_not_break_its_page(page: Engine, fetch: Any, attribute: str) -> None:
    """ "raise" names the row, "skip" leaves it out, "raw" gives what is stored; no entity is changed by it, and nothing is written."""
    before = stored(page)
    with Session(page) as session:
        with pytest.raises(errors.UnknownSchemaVersionError) as raised:
            fetch(session, "raise")
        assert (raised.value.table, raised.value.column, raised.value.key) == ("devices", attribute, 2)
    with Session(page) as session:
        assert [device.id for device in fetch(session, "skip")] == [1, 8]
    with Session(page) as session:
        devices = fetch(session, "raw")
        assert [device.id for device in devices] == list(range(1, 9))
        assert [getattr(device, attribute).name for device in devices if device.id in (1, 8)] == ["", "b"]
        for device in devices[1:-1]:
            held = getattr(device, attribute)
            assert isinstance(held, RawDocument)
            assert held.error.key == device.id
            device.note = "n"
        assert devices[1].__dict__[attribute].raw == {"schema_version": 9, "name": "newer"}
        assert [type(getattr(device, attribute).error) for device in devices[2:-1]] == [errors.CorruptDocumentError] * 5
        session.commit()
    assert [row[2:4] for row in stored(page)] == [row[2:4] for row in before]


def test_an_unreadable_document_can_be_replaced_only_when_its_version_is_known(page: Engine) -> None:
    """A RawDocument in the attribute changes nothing about the guard."""
    with Session(page) as session:
        devices = {device.id: device for device in fetch_entities(session, "raw")}
        devices[4].settings = Settings(name="repaired")
        session.commit()
        for id in (2, 3):
            devices[id].settings = Settings(name="mine")
            with pytest.raises(errors.DocumentError):
                session.commit()
            session.rollback()
    assert [json.loads(row[2]).get("name") for row in stored(page) if row[0] in (2, 3, 4)] == ["newer", None, "repaired"]


def test_attached_documents_count_as_loaded(engine: Engine) -> None:
    """The entity is not dirty, the deferred attribute can be read, NULL is None, and what the driver made of JSON does as well."""
    store(engine, 1, None, '{"title": "a", "schema_version": 1}')
    store(engine, 2)
    with Session(engine) as session:
        pairs = session.execute(select(Device, literal_column("body", JSONB)).options(load_only(Device.id)).order_by(Device.id)).all()
        first, second = attach_documents(((device, raw) for device, raw in pairs), Device.body)
        assert first.body is not None
        assert (first.body.name, second.body) == ("a", None)
        assert not session.dirty
