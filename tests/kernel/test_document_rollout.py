"""Two releases at work on one database: the older one neither reads nor overwrites what the newer one wrote, whatever either does."""

import json
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, NullPool, bindparam, create_engine, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased, load_only
from tests.kernel.document_releases import AnyRow, NewNote, NewRow, OldNote, OldRow, act_as, changes, drop_tables, make_tables

from stemmadb import documents, errors
from stemmadb.database import Database
from stemmadb.documents import Document, OnInvalid, RawDocument, keep_unreadable, resolve_unreadable, set_write_version, version_guard
from stemmadb.testing import run_together

# STEMMADB_TEST_PAIRS=100000 for the figure that the documentation names.
PAIRS = int(os.environ.get("STEMMADB_TEST_PAIRS", "1500"))


@pytest.fixture(scope="module")
def engine(stemmadb_database: Database) -> Iterator[Engine]:
    """An engine of the owner; the table stands while the module runs."""
    made = create_engine(stemmadb_database.direct_url, poolclass=NullPool)
    make_tables(made)
    yield made
    drop_tables(made)


@pytest.fixture(autouse=True)
def _as_before(engine: Engine) -> Iterator[None]:
    yield
    set_write_version(NewNote, None)
    with engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE probe_releases.notes, probe_releases.changes")


def store(engine: Engine, notes: dict[int, Any]) -> None:
    """Store JSON values in rows, as whoever wrote them."""
    rows = [{"id": id, "note": None if note is None else json.dumps(note)} for id, note in notes.items()]
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO probe_releases.notes (id, note) VALUES (:id, CAST(:note AS jsonb))"), rows)


def stored(engine: Engine) -> dict[int, Any]:
    """Every document as it is stored, by the id of its row."""
    with engine.connect() as connection:
        return {row.id: row.note for row in connection.execute(text("SELECT id, note FROM probe_releases.notes ORDER BY id"))}


def note_of(row: AnyRow, written: str, **more: Any) -> Any:
    """Return a document as a release makes it."""
    return OldNote.load({"schema_version": 2, "text": written, **more}) if row is OldRow else NewNote(body=written).replace(**more)


def text_of(note: Any) -> str:
    """What a document of either release says."""
    said: str = note.text if isinstance(note, OldNote) else note.body
    return said


# -------------------------------------------------------------------------------------------- every operation on every version

READS = ("entity", "column", "get", "refresh", "returning", "list raise", "list skip", "list raw")
ASSIGNMENTS = ("assign", "assign unread", "assign stale", "assign none", "merge", "update by key")
UPDATES = ("guarded update", "plain update", "table update", "connection update", "upsert")
OTHERS = ("other column", "delete")
VERSIONS: list[Any] = [None, 0, 1, 2, 3, 4, 5, 999_999_999, 10**9, 10**12, -1, 2.5, "3", [2]]
RELEASES: list[tuple[AnyRow, int | None]] = [(OldRow, None), (NewRow, None), (NewRow, 2)]


def document_of(version: Any, number: int) -> dict[str, Any]:
    """Return a document that a release of this version could have stored."""
    body = {"text": f"t{number}", "body": f"t{number}", "tags": [], "labels": {}}
    return body if version is None else {"schema_version": version, **body}


def knows(row: AnyRow, version: Any) -> bool:
    """Whether a release knows a version."""
    newest = row.__table__.c.note.type.document.newest_version
    return version is None or (type(version) is int and 0 <= version <= newest)


class Actor:
    """A release that does one thing to row 1, in a transaction."""

    def __init__(self, db: Database, row: AnyRow) -> None:
        self.db = db
        self.row = row
        self.mine = note_of(row, "mine")
        self.found: Any = None
        self.matched: int | None = None

    def act(self, operation: str, between: Callable[[], None]) -> None:
        """Do it; somebody else commits ``between``, before the row is written, and for all but a stale assignment before it is read."""
        if operation != "assign stale":
            between()
        with self.db.session() as session:
            act_as(session.connection(), self.row.__name__)
            if operation in READS:
                self.found = self._read(session, operation)
            else:
                self._write(session, operation, between)

    def _read(self, session: Session, operation: str) -> Any:
        row = self.row
        match operation:
            case "entity":
                return session.scalars(select(row)).one().note
            case "column":
                return session.scalars(select(row.note)).one()
            case "get":
                return session.get_one(row, 1).note
            case "refresh":
                held = session.scalars(select(row).options(load_only(row.id))).one()
                session.refresh(held, ["note"])
                return held.note
            case "returning":
                return session.scalars(update(row).values(title="t").returning(row.note)).one()
            case _:
                on_invalid: Any = operation.split()[1]
                with keep_unreadable():
                    rows = session.scalars(select(row)).all()
                return [held.note for held in resolve_unreadable(rows, on_invalid)]

    def _write(self, session: Session, operation: str, between: Callable[[], None]) -> None:
        row: Any = self.row
        match operation:
            case "assign unread" | "assign none":
                held = session.scalars(select(row).options(load_only(row.id))).one()
                held.note = None if operation == "assign none" else self.mine
            case "assign":
                held = session.get_one(row, 1)
                assert held.note is not None
                held.note = self.mine
            case "assign stale":
                held = session.get_one(row, 1)
                between()
                held.note = self.mine
            case "merge":
                session.merge(row(id=1, note=self.mine, title=None, version=1))
            case "update by key":
                session.execute(update(row), [{"id": 1, "note": self.mine}])
            case "guarded update":
                self.matched = _matched(session.execute(update(row).where(version_guard(row.note)).values(note=self.mine)))
            case "plain update":
                self.matched = _matched(session.execute(update(row).values(note=self.mine)))
            case "table update":
                self.matched = _matched(session.execute(update(row.__table__).values(note=self.mine)))
            case "connection update":
                guarded = update(row.__table__).where(version_guard(row.note)).values(note=self.mine)
                self.matched = _matched(session.connection().execute(guarded))
            case "upsert":
                statement = insert(row.__table__).values(id=1, note=self.mine, version=1, updated_at=text("now()"))
                changed = {"note": statement.excluded.note}
                upsert = statement.on_conflict_do_update(index_elements=["id"], set_=changed, where=version_guard(row.note))
                self.matched = len(session.connection().execute(upsert.returning(row.__table__.c.id)).all())
            case "other column":
                session.scalars(select(row).options(load_only(row.id, row.title))).one().title = "t"
            case "delete":
                session.delete(session.scalars(select(row).options(load_only(row.id))).one())


def _matched(result: Any) -> int:
    count: int = result.rowcount
    return count


@pytest.mark.property
@pytest.mark.slow
@pytest.mark.timeout(120 + PAIRS // 40)
@pytest.mark.requirement("AD-015", "VR-014", "VR-020", "VR-102")
def test_nothing_of_an_unknown_version_is_read_or_overwritten(db: Database, engine: Engine) -> None:
    """Of generated pairs of a stored version and an operation, none silently reads or overwrites what its release does not know."""
    chance = random.Random(PAIRS)
    with engine.connect() as connection:
        for number in range(PAIRS):
            row, written = chance.choice(RELEASES)
            set_write_version(NewNote, written)
            _require(db, connection, row, chance.choice(VERSIONS), chance.choice(READS + ASSIGNMENTS + UPDATES + OTHERS), number)


def _require(db: Database, connection: Connection, row: AnyRow, version: Any, operation: str, number: int) -> None:
    """Require that one operation on a row of one version does what its release may."""
    raw = document_of(version, number)
    connection.exec_driver_sql(
        "DELETE FROM probe_releases.notes; DELETE FROM probe_releases.changes; INSERT INTO probe_releases.notes (id, note) VALUES (1, '{}')"
    )
    connection.commit()

    def between() -> None:
        connection.execute(text("UPDATE probe_releases.notes SET note = CAST(:raw AS jsonb)"), {"raw": json.dumps(raw)})
        connection.commit()

    actor, known = Actor(db, row), knows(row, version)
    refused: errors.DocumentError | None = None
    try:
        actor.act(operation, between)
    except errors.DocumentError as error:
        refused = error
    found = connection.execute(text("SELECT note FROM probe_releases.notes")).scalars().all()
    overwritten = [change for change in changes(connection) if change[1] == row.__name__]
    connection.commit()
    place = f"{row.__name__}, version {version!r}, {operation}"
    if operation == "delete":
        assert (found, refused) == ([], None), place
    elif operation in READS or operation == "other column":
        assert (found, overwritten) == ([raw], []), place
        _require_read(actor, operation, raw, refused, known=known)
    elif known:
        assert refused is None, place
        wanted = None if operation == "assign none" else actor.mine.dump()
        assert found == [wanted], place
    else:
        assert (found, overwritten) == ([raw], []), place
        assert actor.matched == 0 if operation in UPDATES else refused is not None, place


def _require_read(actor: Actor, operation: str, raw: Any, refused: errors.DocumentError | None, *, known: bool) -> None:
    """Require that a release got the document, or was told that it is of another release."""
    if operation == "other column":
        assert refused is None
        return
    document: type[Document] = type(actor.mine)
    many = operation.startswith("list")
    if known:
        wanted = document.load(raw)
        assert actor.found == ([wanted] if many else wanted)
    elif operation == "list skip":
        assert actor.found == []
    elif operation == "list raw":
        (held,) = actor.found
        assert isinstance(held, RawDocument)
        assert held.raw == raw
        assert held.error.key == 1
    else:
        assert refused is not None
        assert (refused.table, refused.column) == ("notes", "note")
        assert isinstance(refused, errors.UnknownSchemaVersionError) == (type(raw["schema_version"]) is int and raw["schema_version"] > 0)


# --------------------------------------------------------------------------------------------------------------- a rolling upgrade


def read_all(db: Database, row: AnyRow, on_invalid: OnInvalid = "raise") -> list[Any]:
    """Return the documents that a release gets, in the order of their rows."""
    with db.session() as session:
        with keep_unreadable():
            rows = session.scalars(select(row).order_by(row.id)).all()
        return [held.note for held in resolve_unreadable(rows, on_invalid)]


def write_all(db: Database, row: AnyRow, written: str) -> int:
    """Write every row that a release may write, in one statement, and return how many."""
    with db.session() as session:
        act_as(session.connection(), row.__name__)
        result: Any = session.execute(update(row).where(version_guard(row.note)).values(note=note_of(row, written)))
        return int(result.rowcount)


def change(db: Database, row: AnyRow, id: int, written: str, **more: Any) -> None:
    """Read a document, change it, and store it."""
    with db.session() as session:
        act_as(session.connection(), row.__name__)
        held = session.get_one(row, id)
        said = {"text": written} if row is OldRow else {"body": written}
        assert held.note is not None
        held.note = held.note.replace(**said, **more)


def versions(engine: Engine) -> Counter[int]:
    """How many rows are stored at which version."""
    return Counter(note["schema_version"] for note in stored(engine).values())


@pytest.mark.requirement("VR-014", "VR-017", "VR-018", "VR-102")
def test_a_rolling_upgrade_and_back(db: Database, engine: Engine) -> None:
    """Readers first: both releases work with every row. Writers later: the older one is refused what is new. Back: it works again."""
    store(engine, {id: {"schema_version": 2, "text": f"t{id}", "tags": ["a"], "x": id} for id in range(100)})

    # The new release is deployed beside the old one, and writes what that reads.
    set_write_version(NewNote, 2)
    for id in range(100):
        change(db, NewRow if id % 2 else OldRow, id, f"changed {id}")
    for id in range(50):
        change(db, OldRow if id % 2 else NewRow, id, f"again {id}", **({} if id % 2 else {"labels": {"a": 5, "b": 1}}))
    assert versions(engine) == {2: 100}
    assert [note.text for note in read_all(db, OldRow)] == [f"again {id}" if id < 50 else f"changed {id}" for id in range(100)]
    assert [note.labels for note in read_all(db, NewRow)] == [
        {"a": 5, "b": 1} if id < 50 and id % 2 == 0 else {"a": 1} for id in range(100)
    ]
    assert [note.x for note in read_all(db, NewRow)] == list(range(100))
    assert write_all(db, OldRow, "all") == write_all(db, NewRow, "all") == 100

    # The old processes are thought to be gone, and the new version is written. One was forgotten.
    set_write_version(NewNote, None)
    for id in range(0, 100, 4):
        change(db, NewRow, id, f"new {id}", labels={"a": 7})
    assert versions(engine) == {2: 75, 3: 25}
    assert len(read_all(db, NewRow)) == 100
    with pytest.raises(errors.UnknownSchemaVersionError) as raised:
        read_all(db, OldRow)
    assert (raised.value.key, raised.value.found, raised.value.known) == (0, 3, 2)
    assert len(read_all(db, OldRow, "skip")) == 75
    raw = [note for note in read_all(db, OldRow, "raw") if isinstance(note, RawDocument)]
    assert [note.raw["body"] for note in raw] == [f"new {id}" for id in range(0, 100, 4)]
    before = {id: note for id, note in stored(engine).items() if id % 4 == 0}
    assert write_all(db, OldRow, "theirs") == 75
    assert {id: note for id, note in stored(engine).items() if id % 4 == 0} == before
    assert documents.upgrade(db, NewRow.note, batch=10).upgraded == 75
    assert versions(engine) == {3: 100}
    assert write_all(db, OldRow, "theirs") == 0

    # Something is wrong with the new release. It is told to write the old version again, and brings rows back as it changes them.
    set_write_version(NewNote, 2)
    for id in range(0, 100, 4):
        change(db, NewRow, id, "back")
    assert versions(engine) == {2: 25, 3: 75}
    kept = read_all(db, OldRow, "skip")
    assert [(note.text, note.tags, note.weights) for note in kept] == [("back", ("a",), {"a": 7})] * 25
    change(db, OldRow, 0, "by the old one")
    assert read_all(db, NewRow)[0] == NewNote(body="by the old one", labels={"a": 7})
    with engine.connect() as connection:
        assert {found for _, release, found, _ in changes(connection) if release == "OldRow"} == {2}


@pytest.mark.requirement("AD-015")
def test_many_rows_in_one_flush(db: Database, engine: Engine) -> None:
    """One row of a newer release among a hundred assigned ones: the flush is refused whole, and nothing of it is stored."""
    store(engine, {id: {"schema_version": 2, "text": "t", "tags": []} for id in range(100)})
    with pytest.raises(errors.UnknownSchemaVersionError) as raised:
        with db.session() as session:
            rows = session.scalars(select(OldRow).order_by(OldRow.id)).all()
            change(db, NewRow, 70, "new")
            for row in rows:
                row.note = OldNote(text="mine")
    assert (raised.value.key, raised.value.found) == (70, 3)
    found = stored(engine)
    assert found.pop(70) == {"schema_version": 3, "body": "new", "labels": {}}
    assert {note["text"] for note in found.values()} == {"t"}


THEIRS = {"schema_version": 3, "body": "theirs", "labels": {}}
COLUMNS: Any = OldRow.__table__.c
SPELLINGS: dict[str, Callable[[Session, OldNote], object]] = {
    "by name": lambda session, mine: session.execute(update(OldRow).values(note=mine)),
    "by attribute": lambda session, mine: session.execute(update(OldRow).values({OldRow.note: mine})),
    "ordered": lambda session, mine: session.execute(update(OldRow).ordered_values((OldRow.note, mine))),
    "evaluated": lambda session, mine: session.execute(
        update(OldRow).values(note=mine), execution_options={"synchronize_session": "evaluate"}
    ),
    "not synchronized": lambda session, mine: session.execute(
        update(OldRow).values(note=mine).execution_options(synchronize_session=False)
    ),
    "aliased": lambda session, mine: session.execute(update(aliased(OldRow)).values(note=mine)),
    "of a table": lambda session, mine: session.execute(update(OldRow.__table__).values(note=mine)),
    "of an aliased table": lambda session, mine: session.execute(update(OldRow.__table__.alias()).values(note=mine)),
    "returning": lambda session, mine: session.scalars(update(OldRow).values(note=mine).returning(OldRow)).all(),
    "from a statement": lambda session, mine: session.scalars(
        select(OldRow).from_statement(update(OldRow).values(note=mine).returning(OldRow))
    ).all(),
    "parameters": lambda session, mine: [
        session.execute(update(OldRow).where(OldRow.id == bindparam("key")), {"key": key, "note": mine}) for key in (1, 2)
    ],
    "many parameters": lambda session, mine: session.execute(
        update(OldRow.__table__).where(COLUMNS.id == bindparam("key")), [{"key": 1, "note": mine}, {"key": 2, "note": mine}]
    ),
    "query": lambda session, mine: session.query(OldRow).update({"note": mine}),
}


@pytest.mark.requirement("AD-015")
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_update_needs_no_guard_of_its_own(db: Database, engine: Engine, spelling: str) -> None:
    """However an UPDATE is written, a session gives it the condition: rows of the older release are changed, others are not."""
    store(engine, {1: {"schema_version": 2, "text": "old"}, 2: THEIRS})
    with db.session() as session:
        SPELLINGS[spelling](session, OldNote(text="mine"))
    assert stored(engine) == {1: OldNote(text="mine").dump(), 2: THEIRS}


def test_an_update_by_keys_is_refused_whole(db: Database, engine: Engine) -> None:
    """SQLAlchemy lets no condition be added to it: the error names the row, and those that set no document do not count."""
    store(engine, {1: {"schema_version": 2, "text": "old"}, 2: THEIRS})
    with pytest.raises(errors.UnknownSchemaVersionError) as raised, db.session() as session:
        session.execute(update(OldRow), [{"id": id, "note": OldNote(text="mine")} for id in (1, 2)])
    assert raised.value.key == 2
    with db.session() as session:
        session.execute(update(OldRow), [{"id": id, "title": "t"} for id in (1, 2)])
        session.execute(update(OldRow), [{"id": 1, "note": OldNote(text="mine")}])
    assert stored(engine) == {1: OldNote(text="mine").dump(), 2: THEIRS}


# ----------------------------------------------------------------------------------------------------------------------- threads

ROWS = 8
TURNS = 120


class Worker:
    """A thread of one release, which reads, changes and counts up documents until its turns are over."""

    def __init__(self, db: Database, row: AnyRow, number: int) -> None:
        self.db = db
        self.row = row
        self.chance = random.Random(number)
        self.counted: Counter[int] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.read: list[str] = []

    def turn(self) -> None:
        """Do one thing to one row."""
        id = self.chance.randrange(ROWS)
        action = self.chance.choice(["read", "list", "change", "change unread", "bulk"])
        try:
            with self.db.session() as session:
                act_as(session.connection(), self.row.__name__)
                getattr(self, f"_{action.replace(' ', '_')}")(session, id)
        except errors.DocumentError:
            self.outcomes["refused"] += 1
        else:
            self.outcomes[action] += 1
            self.counted[id] += action == "change"

    def _read(self, session: Session, id: int) -> None:
        self.read.append(text_of(session.get_one(self.row, id).note))

    def _list(self, session: Session, _id: int) -> None:
        with keep_unreadable():
            rows = session.scalars(select(self.row)).all()
        self.read += [text_of(row.note) for row in resolve_unreadable(rows, "skip")]

    def _change(self, session: Session, id: int) -> None:
        row = session.get_one(self.row, id, with_for_update=True)
        assert row.note is not None
        row.note = note_of(self.row, self._said(), count=row.note.count + 1)

    def _change_unread(self, session: Session, id: int) -> None:
        count = session.scalars(text("SELECT note ->> 'count' FROM probe_releases.notes WHERE id = :id FOR UPDATE"), {"id": id}).one()
        held: Any = session.scalars(select(self.row).where(self.row.id == id).options(load_only(self.row.id))).one()
        held.note = note_of(self.row, self._said(), count=int(count))

    def _bulk(self, session: Session, id: int) -> None:
        column = self.row.note
        statement = update(self.row).where(self.row.id == id, version_guard(column)).values(title=self._said(), note=column)
        session.execute(statement)

    def _said(self) -> str:
        return f"{self.row.__name__} at {documents.write_version(self.row.__table__.c.note.type.document)}"


@pytest.mark.race
@pytest.mark.slow
@pytest.mark.requirement("AD-015", "VR-014", "VR-020")
def test_threads_of_two_releases(db: Database, engine: Engine) -> None:
    """While the version that is written goes up and down, the older release never gets nor replaces a newer document; no count is lost."""
    store(engine, {id: {"schema_version": 2, "text": "", "tags": [], "count": 0} for id in range(ROWS)})
    workers = [Worker(db, OldRow if number % 2 else NewRow, number) for number in range(6)]
    phases: list[int | None] = [2, None, 2]
    barrier = threading.Barrier(len(workers), action=lambda: set_write_version(NewNote, phases.pop(0)))

    def work(number: int) -> None:
        for _ in range(3):
            barrier.wait()
            for _ in range(TURNS // 3):
                workers[number].turn()

    assert run_together(len(workers), work) == [None] * len(workers)
    with engine.connect() as connection:
        made = changes(connection)
    assert [entry for entry in made if entry[1] == "OldRow" and (entry[2] != 2 or entry[3] != 2)] == []
    assert {entry[3] for entry in made if entry[1] == "NewRow"} == {2, 3}
    old, new = [worker for worker in workers if worker.row is OldRow], [worker for worker in workers if worker.row is NewRow]
    assert sum(worker.outcomes["refused"] for worker in new) == 0
    assert sum(worker.outcomes["refused"] for worker in old) > 0
    assert "NewRow at 3" not in {said for worker in old for said in worker.read}
    assert "NewRow at 3" in {said for worker in new for said in worker.read}
    counted = sum((worker.counted for worker in workers), Counter())
    assert {id: note["count"] for id, note in stored(engine).items()} == {id: counted[id] for id in range(ROWS)}
