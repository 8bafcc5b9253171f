"""Counting stored documents by version, and rewriting old ones: what is written, what is left alone, what is refused."""

import json
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, DateTime, Engine, Integer, MetaData, NullPool, Table, create_engine, func, text
from tests.kernel.document_releases import NewNote, NewRow, OldRow, act_as, changes, drop_tables, make_tables

import stemmadb
from stemmadb import documents, errors
from stemmadb._test_server import DatabaseServer
from stemmadb.database import Database
from stemmadb.documents import DocumentColumn, UpgradeReport, _census, _upgrade
from stemmadb.testing import make_workspace, run_together

KEPT = "2001-02-03 04:05:06+00"
CORRUPT = [{"text": 7}, {"schema_version": 1, "tag": "no text"}, {"schema_version": 2, "text": "t", "tags": 7}]
MALFORMED = [{"schema_version": "2"}, {"schema_version": -1}, {"schema_version": 1.5}, {"schema_version": 10**12}]
NEWER = [{"schema_version": 4}, {"schema_version": 999_999_999, "body": "theirs"}]
CURRENT = [{"schema_version": 3, "body": "b", "labels": {"x": 2}}]


def old(number: int) -> dict[str, Any]:
    """Return a document of version 0, 1 or 2 that can be read."""
    match number % 3:
        case 0:
            return {"x": number} if number % 2 else {"text": f"t{number}", "tag": None}
        case 1:
            return {"schema_version": 1, "text": f"\u001a0000 {number}", "tag": "t", "x": {"y": [number, 1.50]}}
        case _:
            return {"schema_version": 2, "text": "", "tags": ["a", "b"], "weights": {"a": number}}


@pytest.fixture(scope="module")
def engine(stemmadb_database: Database) -> Iterator[Engine]:
    """An engine of the owner; the table stands while the module runs."""
    made = create_engine(stemmadb_database.direct_url, poolclass=NullPool)
    make_tables(made)
    yield made
    drop_tables(made)


@pytest.fixture(autouse=True)
def _empty(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    documents.set_write_version(NewNote, None)
    if "engine" in request.fixturenames:
        clear(request.getfixturevalue("engine"))


def clear(engine: Engine) -> None:
    """Take every row away."""
    with engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE probe_releases.notes, probe_releases.changes")


def store(engine: Engine, notes: list[Any]) -> None:
    """Store JSON values as rows 0, 1, ... of long ago; None is a row without a document."""
    rows = [{"id": id, "note": None if note is None else json.dumps(note)} for id, note in enumerate(notes)]
    with engine.begin() as connection:
        statement = f"INSERT INTO probe_releases.notes (id, note, version, updated_at) VALUES (:id, CAST(:note AS jsonb), 5, '{KEPT}')"
        if rows:
            connection.execute(text(statement), rows)


def stored(engine: Engine) -> list[tuple[Any, ...]]:
    """Everything in the table but the documents' bytes: id, document, version, time of the last change."""
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id, note, version, CAST(updated_at AS text) FROM probe_releases.notes ORDER BY id"))
        return [tuple(row) for row in rows]


def bytes_of(engine: Engine) -> dict[int, tuple[str, str]]:
    """The text of each document, and the transaction that wrote its row."""
    with engine.connect() as connection:
        return {
            id: (note, xmin) for id, note, xmin in connection.execute(text("SELECT id, note::text, xmin::text FROM probe_releases.notes"))
        }


# -------------------------------------------------------------------------------------------------------------------- census


def test_a_census_counts_every_version(db: Database, engine: Engine) -> None:
    """Each version by itself, also those of newer releases; malformed ones and rows without a document apart."""
    store(engine, [*(old(n) for n in range(9)), *CURRENT, *NEWER, *MALFORMED, None, None])
    (found,) = documents.census(db, NewRow.note)
    assert found == documents.ColumnCensus("notes.note", "NewNote", 3, 3, {0: 3, 1: 3, 2: 3, 3: 1, 4: 1, 999_999_999: 1}, 4, 2)
    assert list(found.versions) == sorted(found.versions)
    assert (found.old, found.newer) == (9, 2)
    (found,) = documents.census(db, OldRow.note)
    assert (found.old, found.newer) == (6, 3)
    documents.set_write_version(NewNote, 2)
    (found,) = documents.census(db, NewRow.__table__.c.note)
    assert (found.write_version, found.old, found.newer) == (2, 6, 2)


@pytest.mark.requirement("AD-021")
def test_a_census_is_over_all_workspaces(committed_db: Database, owner: Engine) -> None:
    """Rows of every workspace are counted, in the order of the packs, and audit_logs says who looked."""
    store_metrics(committed_db, owner, [make_workspace(committed_db) for _ in range(3)])
    found = {row.column: row for row in documents.census(committed_db)}
    assert len(found) == 21
    assert list(found)[:2] == ["oauth_accounts.profile", "security_events.payload"]
    assert (found["transcripts.metrics"].versions, found["transcripts.metrics"].old) == ({0: 6, 1: 3}, 9)
    assert found["workspaces.settings"].versions == {1: 3}
    with owner.connect() as connection:
        reasons = (
            connection.execute(text("SELECT after -> 'data' ->> 'reason' FROM stemma.audit_logs WHERE entity_id = '*'")).scalars().all()
        )
    assert reasons == ["documents.census"]


def test_tables_that_are_not_there_are_left_out(committed_db: Database, owner: Engine) -> None:
    """A pack need not be installed; to upgrade one of its columns is refused."""
    with owner.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE stemma.oauth_accounts RENAME TO elsewhere")
    assert "oauth_accounts.profile" not in {row.column for row in documents.census(committed_db)}
    assert documents.census(committed_db, "oauth_accounts.profile") == ()
    with pytest.raises(errors.SchemaOutOfDateError):
        documents.upgrade(committed_db, "oauth_accounts.profile")


@pytest.mark.parametrize("column", ["nonsense", "definitions.name", "definitions", OldRow.title, OldRow, 7, None])
def test_what_is_no_document_column_is_told(db: Database, column: Any) -> None:
    """A name that is none, an attribute of another type, anything else."""
    with pytest.raises(errors.ValidationError, match="column of documents"):
        documents.upgrade(db, column)


# ------------------------------------------------------------------------------------------------------------------- upgrade


@pytest.mark.requirement("VR-016", "AD-015")
def test_an_upgrade_writes_what_reading_gives(db: Database, engine: Engine) -> None:
    """Old rows that can be read become the newest; the rest stays byte for byte, and no time or version moves."""
    rows = [*(old(n) for n in range(20)), *CURRENT, *CORRUPT, *NEWER, *MALFORMED, None]
    store(engine, rows)
    before, bytes_before = stored(engine), bytes_of(engine)
    report = documents.upgrade(db, NewRow.note, batch=3)
    assert (report.column, report.version, report.dry_run) == ("notes.note", 3, False)
    assert (report.upgraded, report.corrupt, report.newer, report.left) == (20, len(CORRUPT) + len(MALFORMED), 2, 0)
    assert report.seconds > 0
    after = stored(engine)
    assert [row[1] for row in after[:20]] == [NewNote.load(row[1]).dump() for row in before[:20]]
    assert [row[2:] for row in after] == [row[2:] for row in before]
    untouched = {id: kept for id, kept in bytes_of(engine).items() if id >= 20}
    assert untouched == {id: kept for id, kept in bytes_before.items() if id >= 20}


def test_twice_is_as_once(db: Database, engine: Engine) -> None:
    """A second run finds nothing to do, and writes nothing."""
    store(engine, [old(n) for n in range(10)])
    assert documents.upgrade(db, NewRow.note).upgraded == 10
    before = bytes_of(engine)
    assert documents.upgrade(db, NewRow.note).upgraded == 0
    assert bytes_of(engine) == before


def test_a_dry_run_writes_nothing(db: Database, engine: Engine) -> None:
    """It counts what a run would do, and the report says so."""
    store(engine, [*(old(n) for n in range(10)), *CORRUPT, *NEWER, *MALFORMED])
    before = bytes_of(engine)
    dry = documents.upgrade(db, NewRow.note, batch=4, dry_run=True)
    assert dry.dry_run
    assert bytes_of(engine) == before
    done = documents.upgrade(db, NewRow.note, batch=4)
    assert (dry.upgraded, dry.corrupt, dry.newer, dry.left) == (done.upgraded, done.corrupt, done.newer, done.left) == (10, 7, 2, 0)


@pytest.mark.property
@settings(
    max_examples=max(15, settings.default.max_examples // 10), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kinds=st.lists(st.sampled_from(["old", "current", "corrupt", "newer", "malformed", "none"]), max_size=40),
    batch=st.integers(1, 9),
)
def test_every_old_row_is_written_once(db: Database, engine: Engine, kinds: list[str], batch: int) -> None:
    """Whatever lies between them, and wherever batches end."""
    clear(engine)
    others = {"current": CURRENT, "corrupt": CORRUPT, "newer": NEWER, "malformed": MALFORMED, "none": [None]}
    store(engine, [old(n) if kind == "old" else others[kind][n % len(others[kind])] for n, kind in enumerate(kinds)])
    report = documents.upgrade(db, NewRow.note, batch=batch)
    wanted = [n for n, kind in enumerate(kinds) if kind == "old"]
    with engine.connect() as connection:
        assert [change[0] for change in changes(connection)] == wanted
    assert report.upgraded == len(wanted)
    assert report.corrupt == sum(kind in ("corrupt", "malformed") for kind in kinds)
    assert report.newer == kinds.count("newer")


def test_it_goes_on_where_it_was_stopped(db: Database, engine: Engine) -> None:
    """What was done stays done; another run does the rest."""
    store(engine, [old(n) for n in range(50)])
    seen: list[UpgradeReport] = []

    def stop(report: UpgradeReport) -> None:
        seen.append(report)
        if report.upgraded >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        documents.upgrade(db, NewRow.note, batch=10, progress=stop)
    assert [report.upgraded for report in seen] == [10, 20]
    assert [row[1].get("schema_version") == 3 for row in stored(engine)] == [True] * 20 + [False] * 30
    assert documents.upgrade(db, NewRow.note, batch=10).upgraded == 30


@pytest.mark.requirement("D6")
def test_it_brings_rows_to_the_version_that_is_written(db: Database, engine: Engine) -> None:
    """While an older version is written, rows are brought to that one, and newer ones stay."""
    store(engine, [old(0), old(1), old(2), *CURRENT])
    before = bytes_of(engine)
    documents.set_write_version(NewNote, 2)
    report = documents.upgrade(db, NewRow.note)
    assert (report.version, report.upgraded) == (2, 2)
    assert [row[1].get("schema_version") for row in stored(engine)] == [2, 2, 2, 3]
    assert {id: bytes_of(engine)[id] for id in (2, 3)} == {id: before[id] for id in (2, 3)}


def test_large_batches_are_sent_in_parts(db: Database, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is one transaction, and one statement for each part that a statement can take."""
    monkeypatch.setattr(_upgrade, "_CHUNK_CHARACTERS", 200)
    store(engine, [{"text": "x" * 90 * (n % 4)} for n in range(40)])
    assert documents.upgrade(db, NewRow.note, batch=40).upgraded == 40
    assert {row[1]["schema_version"] for row in stored(engine)} == {3}


def test_what_sqlalchemy_sets_with_every_update_stays(db: Database, engine: Engine) -> None:
    """A host's column with onupdate= does not move either."""
    table = Table(
        "notes",
        MetaData(schema="probe_releases"),
        Column("id", Integer, primary_key=True),
        Column("note", DocumentColumn(NewNote)),
        Column("updated_at", DateTime(timezone=True), onupdate=func.now()),
    )
    store(engine, [old(0)])
    assert documents.upgrade(db, table.c.note).upgraded == 1
    assert stored(engine)[0][3].startswith("2001-02-03")


@pytest.mark.parametrize("arguments", [{"batch": 0}, {"batch": 10_001}, {"rate": 0.0}, {"rate": -1.0}, {"rate": float("nan")}])
def test_arguments_out_of_bounds(db: Database, arguments: dict[str, Any]) -> None:
    """Refused before anything is sent; the error names the argument."""
    with pytest.raises(errors.ValidationError) as raised:
        documents.upgrade(db, NewRow.note, **arguments)
    assert raised.value.field == next(iter(arguments))


@pytest.mark.parametrize(("rate", "batch", "batches"), [(10.0, 500, 3), (1000.0, 5, 5), (0.5, 100, 25)])
def test_the_rate_is_kept(db: Database, engine: Engine, monkeypatch: pytest.MonkeyPatch, rate: float, batch: int, batches: int) -> None:
    """Between batches it waits as long as the rows of the last one take at this rate; a batch has the rows of a second at most."""
    store(engine, [old(n) for n in range(25)])
    waited: list[float] = []
    monkeypatch.setattr(_upgrade, "_sleep", waited.append)
    sizes: list[int] = []
    documents.upgrade(db, NewRow.note, rate=rate, batch=batch, progress=lambda report: sizes.append(report.upgraded))
    size = min(batch, max(1, int(rate)))
    assert sizes[: -1 if 25 % size else None][:2] == [size, 2 * size]
    assert len(set(sizes)) == batches
    assert all(0 <= pause <= size / rate for pause in waited)
    assert len(waited) >= 25 // size
    if rate < 100:
        assert sum(waited) > 25 // size * size / rate * 0.9


# --------------------------------------------------------------------------------------------------------------- beside others


@pytest.mark.race
def test_rows_that_others_hold_are_left(db: Database, engine: Engine) -> None:
    """It does not wait for a lock: the row is counted as left, and the next run takes it. References can be added meanwhile."""
    store(engine, [old(n) for n in range(10)])
    with engine.begin() as connection:
        connection.execute(text("SELECT FROM probe_releases.notes WHERE id IN (3, 9) FOR UPDATE"))
        connection.execute(text("SELECT FROM probe_releases.notes WHERE id = 5 FOR KEY SHARE"))
        report = documents.upgrade(db, NewRow.note, batch=4)
        assert (report.upgraded, report.left) == (8, 2)
    assert documents.upgrade(db, NewRow.note).upgraded == 2


@pytest.mark.race
def test_rows_that_were_let_go_are_taken_in_the_same_run(db: Database, engine: Engine) -> None:
    """Another pass finds them."""
    store(engine, [old(n) for n in range(10)])
    with engine.connect() as connection:
        connection.execute(text("SELECT FROM probe_releases.notes WHERE id = 0 FOR UPDATE"))
        report = documents.upgrade(db, NewRow.note, batch=4, progress=lambda report: connection.rollback())
    assert (report.upgraded, report.left) == (10, 0)


@pytest.mark.race
def test_several_runs_share_the_work(db: Database, engine: Engine) -> None:
    """Four at once: every row is written once, by one of them."""
    store(engine, [old(n) for n in range(200)])
    reports = run_together(4, lambda number: documents.upgrade(db, NewRow.note, batch=7))
    assert all(isinstance(report, UpgradeReport) for report in reports), reports
    with engine.connect() as connection:
        assert [change[0] for change in changes(connection)] == list(range(200))
    assert sum(report.upgraded for report in reports if isinstance(report, UpgradeReport)) == 200


@pytest.mark.race
def test_no_change_of_a_writer_is_lost(db: Database, engine: Engine) -> None:
    """Writers of the release before count up in documents while these are upgraded again and again: no count is lost."""
    store(engine, [{"schema_version": 1, "text": "0"} for _ in range(6)])
    documents.set_write_version(NewNote, 2)
    done = threading.Event()

    def count_up(number: int) -> None:
        for turn in range(60):
            id = (number + turn) % 6
            with db.session() as session:
                row = session.get_one(OldRow, id, with_for_update=True)
                act_as(session.connection(), "old")
                assert row.note is not None
                # As the first release stored it: it is to be upgraded again.
                again = {"schema_version": 1, "text": str(int(row.note.text) + 1), "tag": "t"}
                statement = text("UPDATE probe_releases.notes SET note = CAST(:note AS jsonb) WHERE id = :id")
                session.connection().execute(statement, {"note": json.dumps(again), "id": id})

    def upgrade(_number: int) -> None:
        while not done.is_set():
            documents.upgrade(db, NewRow.note, batch=2)

    upgraders = [threading.Thread(target=upgrade, args=(number,)) for number in range(2)]
    for thread in upgraders:
        thread.start()
    results = run_together(4, count_up)
    done.set()
    for thread in upgraders:
        thread.join()
    assert results == [None] * 4
    documents.upgrade(db, NewRow.note)
    notes = [row[1] for row in stored(engine)]
    assert sum(int(note["text"]) for note in notes) == 4 * 60
    assert {note["schema_version"] for note in notes} == {2}


# ------------------------------------------------------------------------------------------------------ workspaces and rights


def store_metrics(db: Database, owner: Engine, workspaces: list[UUID]) -> None:
    """Store in each workspace two transcripts with metrics of version 0, and one of version 1."""
    for workspace in workspaces:
        with owner.begin() as connection:
            connection.exec_driver_sql(f"SET LOCAL stemma.workspace_id = '{workspace}'")
            connection.exec_driver_sql(
                """
                WITH definition AS (
                    INSERT INTO stemma.definitions (name, content) VALUES ('d', '{"schema_version": 1, "preamble": "", "template": ""}')
                    RETURNING workspace_id, id
                ), run AS (
                    INSERT INTO stemma.runs (workspace_id, definition_id, name, config)
                    SELECT workspace_id, id, 'r', '{"schema_version": 1, "models": []}' FROM definition RETURNING workspace_id, id
                )
                INSERT INTO stemma.transcripts (workspace_id, run_id, model, content, metrics, updated_at)
                SELECT workspace_id, id, 'm' || place, '{"schema_version": 1, "turns": []}', CAST(metrics AS jsonb), '2001-01-01'
                  FROM run, unnest(ARRAY['{"values": {"a": 1}}', '{"decision": "d", "x": 1}', '{"schema_version": 1}'])
                       WITH ORDINALITY AS given (metrics, place)
                """
            )


@pytest.mark.requirement("AD-021", "TN-048")
def test_an_upgrade_is_over_all_workspaces(committed_db: Database, owner: Engine) -> None:
    """Rows of every workspace are rewritten, none changes its workspace, and audit_logs says which column."""
    workspaces = [make_workspace(committed_db) for _ in range(3)]
    store_metrics(committed_db, owner, workspaces)
    report = documents.upgrade(committed_db, "transcripts.metrics", batch=2)
    assert (report.upgraded, report.left) == (9, 0)
    with committed_db.all_workspaces(reason="test") as session:
        found = session.execute(text("SELECT workspace_id, metrics, updated_at FROM stemma.transcripts ORDER BY id")).all()
        reasons = session.scalars(text("SELECT after -> 'data' ->> 'reason' FROM stemma.audit_logs WHERE entity_id = '*'")).all()
    assert {row.workspace_id for row in found} == set(workspaces)
    assert {row.metrics["schema_version"] for row in found} == {2}
    assert sorted(row.metrics.get("x", 0) for row in found) == [0] * 6 + [1] * 3
    assert {row.updated_at.year for row in found} == {2001}
    assert sorted(reasons) == ["documents.upgrade transcripts.metrics", "test"]


# Section 3.4 of the data dictionary.
CONTENT_ADDRESSED = {
    "definitions.content",
    "scenarios.content",
    "runs.config",
    "rubrics.content",
    "experiments.analysis_plan",
    "experiment_amendments.plan",
    "cohorts.criteria",
}
APPEND_ONLY = {"audit_logs.before", "audit_logs.after", "security_events.payload"}


@pytest.mark.requirement("AD-004")
def test_columns_that_are_never_rewritten(db: Database) -> None:
    """Content-addressed ones are refused as frozen, those of logs because nobody may change a log; every other column can be upgraded."""
    refused: dict[type[Exception], set[str]] = {errors.FrozenError: set(), errors.PermissionDeniedError: set()}
    for column in documents.census(db):
        try:
            documents.upgrade(db, column.column, dry_run=True)
        except (errors.FrozenError, errors.PermissionDeniedError) as error:
            if "old documents are read as the newest" in str(error):
                refused[type(error)].add(column.column)
    assert refused == {errors.FrozenError: CONTENT_ADDRESSED, errors.PermissionDeniedError: APPEND_ONLY}


@pytest.mark.fault
def test_a_rule_of_the_table_stops_it(db: Database, engine: Engine) -> None:
    """A guard that refuses a row is a FrozenError; batches before it were kept."""
    store(engine, [old(n) for n in range(6)])
    with engine.begin() as connection:
        connection.exec_driver_sql(
            """
            CREATE FUNCTION probe_releases.guard() RETURNS trigger LANGUAGE plpgsql AS
              $$ BEGIN PERFORM stemma.stemma_refuse('notes', 'notes_frozen', 'note', 'frozen'); RETURN NEW; END $$;
            CREATE TRIGGER notes_guard BEFORE UPDATE ON probe_releases.notes FOR EACH ROW WHEN (OLD.id = 4)
              EXECUTE FUNCTION probe_releases.guard()
            """
        )
    try:
        with pytest.raises(errors.FrozenError):
            documents.upgrade(db, NewRow.note, batch=2)
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TRIGGER notes_guard ON probe_releases.notes; DROP FUNCTION probe_releases.guard()")
    assert [row[1].get("schema_version") == 3 for row in stored(engine)] == [True] * 4 + [False] * 2


@pytest.mark.fault
@pytest.mark.requirement("AD-021")
def test_a_login_that_may_not_see_all_workspaces_is_told(committed_db: Database, stemmadb_server: DatabaseServer) -> None:
    """One that was not granted stemma_maintenance, and the engine of a host: nothing is counted rather than too little."""
    if stemmadb_server.embedded is not None:
        name = str(committed_db.url.database)
        login = f"stemma_reader_{uuid4().hex[:8]}"
        with psycopg.connect(stemmadb_server.embedded._superuser_conninfo(name), autocommit=True) as superuser:
            for statement in (f"CREATE ROLE {login} LOGIN", f"GRANT USAGE ON SCHEMA stemma TO {login}"):
                superuser.execute(statement.encode())
            superuser.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA stemma TO {login}".encode())
        with stemmadb.connect(stemmadb_server.embedded.url(name, login)) as db:
            for call in (documents.census, lambda db: documents.upgrade(db, "transcripts.metrics")):
                with pytest.raises(errors.PermissionDeniedError, match="stemma_maintenance"):
                    call(db)
            assert documents.census(db, "workspaces.settings")[0].versions == {}
    engine = create_engine(committed_db.url)
    try:
        with pytest.raises(errors.PermissionDeniedError, match="engine of a host"):
            documents.census(stemmadb.use(engine))
        assert documents.census(stemmadb.use(engine), "workspaces.settings")[0].versions == {}
    finally:
        engine.dispose()


@pytest.mark.fault
def test_without_the_role_it_says_how_to_make_it(committed_db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database without roles works, but for what sees all workspaces."""
    monkeypatch.setattr(_census, "_TABLES", text(_census._TABLES.text.replace("'stemma_maintenance'", "'stemma_nobody'")))
    with pytest.raises(errors.PermissionDeniedError, match="stemmadb migrate roles"):
        documents.census(committed_db)


@pytest.mark.fault
def test_a_database_that_cannot_be_reached_is_told() -> None:
    """As every function does."""
    with stemmadb.connect("postgresql://u@127.0.0.1:9/x") as db, pytest.raises(errors.DatabaseUnavailableError):
        documents.census(db)


# --------------------------------------------------------------------------------------------------------------- JSON Schema


@pytest.mark.offline
def test_the_json_schema_of_a_document() -> None:
    """It says which keys there are, of which types, with which defaults; the version is required and fixed."""
    schema = documents.json_schema(NewNote)
    assert schema["title"] == "NewNote"
    assert schema["required"] == ["schema_version", "body"]
    assert schema["properties"]["schema_version"] == {"const": 3, "title": "Schema Version", "type": "integer"}
    assert schema["properties"]["labels"] == {
        "additionalProperties": {"type": "integer"},
        "default": {},
        "title": "Labels",
        "type": "object",
    }
    json.dumps(schema)


@pytest.mark.offline
def test_every_document_has_a_json_schema() -> None:
    """Also the defaults that a function makes are in it, and nothing is left that JSON cannot say."""
    found = {name: documents.json_schema(kind) for name, kind in documents.registered_documents().items()}
    assert len(found) == 19
    assert list(found) == sorted(found)
    assert found["TranscriptMetrics"]["properties"]["values"]["default"] == {}
    for name, schema in found.items():
        assert schema["$schema"].endswith("2020-12/schema")
        assert schema["properties"]["schema_version"]["const"] == documents.registered_documents()[name].newest_version
        assert json.loads(json.dumps(schema)) == schema
