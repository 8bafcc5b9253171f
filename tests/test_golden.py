"""Released documents stay what they were: their shapes, what older releases stored, and what that is read as."""

import gc
import json
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import Field
from sqlalchemy import text
from tests.golden import record as recording
from tests.golden.edits import edited
from tests.golden.examples import AT_LEAST, examples, examples_of_version_0
from tests.golden.fingerprints import fingerprint, shape
from tests.golden.record import RecordError, record
from tests.golden.shapes import Example, problems, read_examples, read_lock, released, shape_problems, write_examples, write_lock
from tests.kernel.document_releases import NewNote, OldNote

from stemmadb.database import Database
from stemmadb.documents import Document, DocumentPart, Raw, set_write_version
from stemmadb.evaluation.vocabularies import RunStatus

offline = pytest.mark.offline
DOCUMENTS = released()
VERSIONS = [(name, version) for name, document in DOCUMENTS.items() for version in range(document.newest_version + 1)]
each_document = pytest.mark.parametrize("name", DOCUMENTS)


# ---------------------------------------------------------------------------------------------------------------- what is recorded


@offline
@pytest.mark.requirement("VR-014", "VR-018", "VR-102")
def test_released_documents_are_as_recorded() -> None:
    """No released shape has changed, every version has its examples, and each is read as it was when it was recorded."""
    assert problems(DOCUMENTS) == []


@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_examples_through_the_database(db: Database, name: str, version: int) -> None:
    """As jsonb gives them back, examples are read as the same documents."""
    recorded = read_examples(name, version)
    assert len(recorded) >= AT_LEAST
    statement = text(
        "SELECT CAST(item AS text) FROM jsonb_array_elements(CAST(:stored AS jsonb)) WITH ORDINALITY AS t (item, n) ORDER BY n"
    )
    with db.session() as session:
        given_back = session.scalars(statement, {"stored": json.dumps([example.stored for example in recorded])}).all()
    for example, stored in zip(recorded, given_back, strict=True):
        assert DOCUMENTS[name].load(stored) == DOCUMENTS[name].load(example.newest)


@offline
@pytest.mark.requirement("VR-017")
@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_examples_are_of_every_kind(name: str, version: int) -> None:
    """With and without optional keys, with keys that the class does not know, in version 0 also without a version; no two are the same."""
    stored = [example.stored for example in read_examples(name, version)]
    objects = [raw for raw in stored if isinstance(raw, dict)]
    assert len({json.dumps(raw, sort_keys=True) for raw in stored}) == len(stored)
    assert len({frozenset(raw) for raw in objects}) > 2
    assert any(set(raw) - set(DOCUMENTS[name].model_fields) for raw in objects)
    if version == 0:
        assert any("schema_version" not in raw for raw in objects)
        assert any("schema_version" in raw for raw in objects)


# ---------------------------------------------------------------------------------------------------------------------- mutations


@offline
@each_document
def test_every_edit_of_a_field_is_seen(name: str) -> None:
    """Removed, renamed, of another type, with another default, another bound, or one more: of every field, of every part."""
    lock = read_lock()
    seen: dict[str, list[str]] = {edit: shape_problems(name, document, lock) for edit, document in edited(DOCUMENTS[name])}
    assert seen.pop("unchanged") == []
    fields = [field for field in DOCUMENTS[name].model_fields if field != "schema_version"]
    assert len(seen) > 5 * len(fields)
    assert {field for field in fields if any(edit.startswith(f"{name}.{field}: ") for edit in seen)} == set(fields)
    assert [edit for edit, found in seen.items() if not found] == []


class Mark(DocumentPart):
    """A part, for its shape."""

    at: datetime | None = None
    kind: RunStatus = RunStatus.PENDING


class Everything(Document, version=1):
    """A document with a field of every kind."""

    name: str = Field(min_length=1, pattern="[a-z]+")
    counts: Mapping[str, int] = {}
    share: Annotated[float, Field(gt=0, le=100)] | None = None
    marks: tuple[Mark, ...] = ()
    pair: tuple[bool, UUID] | Literal["none", 0] = "none"
    note: Any = None


@offline
def test_shapes_are_in_words_of_our_own() -> None:
    """So a released shape has the same hash under every pydantic: what is hashed is this, and nothing that pydantic writes."""
    mark = {
        "at": {"type": {"any of": ["moment with a zone", "null"]}, "default": None},
        "kind": {"type": {"one of": [status.value for status in RunStatus]}, "default": "PENDING"},
    }
    assert shape(Everything) == {
        "schema_version": {"type": {"one of": [1]}, "default": 1},
        "name": {"type": "string", "rules": [{"min_length": 1}, {"pattern": "[a-z]+"}]},
        "counts": {"type": {"keys": "string", "values": "integer"}, "default": {}},
        "share": {"type": {"any of": [{"type": "number", "rules": [{"gt": 0}, {"le": 100}]}, "null"]}, "default": None},
        "marks": {"type": {"list of": {"part": mark}}, "default": []},
        "pair": {"type": {"any of": [{"row of": ["boolean", "uuid"]}, {"one of": ["none", 0]}]}, "default": "none"},
        "note": {"type": "anything", "default": None},
    }
    assert fingerprint(Everything) == "60bd52beab468811b5b8042773a7d0a6e94ab7c63ca1716f8a17c88a6b1b4a95"


@pytest.fixture(autouse=True, scope="module")
def _forget_edited() -> Any:
    yield
    gc.collect()


# ---------------------------------------------------------------------------------------------------------------- the check itself


class Part(DocumentPart):
    size: int = 0


class First(Document, version=1):
    """A document as it was released first."""

    name: str
    parts: tuple[Part, ...] = ()


class Second(Document, version=2):
    """The same, one release later: the name is a title."""

    title: str
    parts: tuple[Part, ...] = ()


def _name_is_there(raw: Raw) -> Raw:
    return {"name": "", **raw}


def _name_becomes_title(raw: Raw) -> Raw:
    kept = dict(raw)
    name = kept.pop("name")
    return {**kept, "title": name}


First.upcast(0)(_name_is_there)
Second.upcast(0)(_name_is_there)
Second.upcast(1)(_name_becomes_title)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The first release of a document, recorded."""
    assert record({"Thing": First}, tmp_path) == ["Thing v0", "Thing v1"]
    assert problems({"Thing": First}, tmp_path) == []
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    """Everything that is recorded."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


@offline
def test_recording_again_changes_nothing(folder: Path) -> None:
    """Nor does it in another folder: examples are made the same way each time, and are one in a line."""
    before = files(folder)
    assert record({"Thing": First}, folder) == []
    assert files(folder) == before
    shutil.rmtree(folder / "Thing")
    folder.joinpath("schemas.lock").unlink()
    record({"Thing": First}, folder)
    assert files(folder) == before
    assert len(before["Thing/v1.json"].splitlines()) == AT_LEAST + 2


@offline
def test_a_version_that_rises_needs_examples(folder: Path) -> None:
    """Until they are recorded the check fails; afterwards the examples of earlier versions are there still, read as the new version."""
    before = {version: read_examples("Thing", version, folder) for version in (0, 1)}
    found = problems({"Thing": Second}, folder)
    assert any("version 2 of Thing is not recorded" in problem for problem in found)
    assert any("version 2 of Thing has 0 stored examples" in problem for problem in found)
    assert any("read-as-2" in problem for problem in found)
    assert record({"Thing": Second}, folder) == ["Thing v2"]
    assert problems({"Thing": Second}, folder) == []
    for version in (0, 1):
        after = read_examples("Thing", version, folder)
        assert [example.stored for example in after] == [example.stored for example in before[version]]
        assert all(example.newest["schema_version"] == 2 and "title" in example.newest for example in after)
    lock = read_lock(folder)
    assert ("Thing", 1, "schema") in lock
    assert ("Thing", 2, "schema") in lock
    assert [problem for problem in problems({"Thing": First}, folder) if "never goes back" in problem] != []


class Wider(Document, version=1):
    """The first release, with another shape and no other version."""

    name: str | None
    parts: tuple[Part, ...] = ()


Wider.upcast(0)(_name_is_there)


class Otherwise(Document, version=1):
    """The first release, with another step."""

    name: str
    parts: tuple[Part, ...] = ()


Otherwise.upcast(0)(lambda raw: {"name": "changed", **raw})


@offline
@pytest.mark.parametrize(
    ("document", "said"),
    [(Wider, "the shape of Thing is not that of version 1: raise version="), (Otherwise, "a step that was released never changes")],
)
def test_what_was_released_cannot_be_recorded_away(folder: Path, document: type[Document], said: str) -> None:
    """A changed shape and a changed step fail the check, and recording refuses them, unless that version was never released."""
    before = files(folder)
    found = problems({"Thing": document}, folder)
    assert any(said in problem for problem in found)
    with pytest.raises(RecordError):
        record({"Thing": document}, folder)
    assert files(folder) == before
    assert record({"Thing": document}, folder, anew=["Thing"]) == ["Thing v0", "Thing v1"]
    assert problems({"Thing": document}, folder) == []


@offline
def test_anew_keeps_what_was_released(folder: Path) -> None:
    """Of a document with two versions only the newest is forgotten."""
    record({"Thing": Second}, folder)
    before = files(folder)
    assert record({"Thing": Second}, folder, anew=["Thing"]) == ["Thing v2"]
    assert files(folder) == before


def _drop(folder: Path) -> None:
    write_examples("Thing", 1, read_examples("Thing", 1, folder)[:-1], folder)


def _edit_stored(folder: Path) -> None:
    found = read_examples("Thing", 1, folder)
    write_examples("Thing", 1, [*found[1:], Example({**found[0].stored, "x": 1}, {**found[0].newest, "x": 1})], folder)


def _edit_newest(folder: Path) -> None:
    found = read_examples("Thing", 0, folder)
    write_examples("Thing", 0, [*found[:-1], Example(found[-1].stored, {**found[-1].newest, "name": "other"})], folder)


def _edit_lock(what: str) -> Any:
    def edit(folder: Path) -> None:
        write_lock({key: ("0" * 64 if key[1:] == (1, what) else digest) for key, digest in read_lock(folder).items()}, folder)

    return edit


TAMPERED: Mapping[str, tuple[Any, str]] = {
    "an example is gone": (_drop, "24 stored examples, and 25 are needed"),
    "a file is gone": (lambda folder: folder.joinpath("Thing/v0.json").unlink(), "version 0 of Thing has 0 stored examples"),
    "an example is edited": (_edit_stored, "not the recorded ones (stored)"),
    "an outcome is edited": (_edit_newest, "is read as something else"),
    "the lock is gone": (lambda folder: folder.joinpath("schemas.lock").unlink(), "version 1 of Thing is not recorded"),
    "a schema in the lock is edited": (_edit_lock("schema"), "the shape of Thing is not that of version 1"),
    "a digest in the lock is edited": (_edit_lock("stored"), "not the recorded ones (stored)"),
}


@offline
@pytest.mark.parametrize("case", TAMPERED)
def test_files_that_were_changed_are_seen(folder: Path, case: str) -> None:
    """Whoever edits what is recorded is told to restore it."""
    tamper, said = TAMPERED[case]
    tamper(folder)
    assert any(said in problem for problem in problems({"Thing": First}, folder))


@offline
def test_a_document_that_is_gone_is_seen(folder: Path) -> None:
    """Its rows are still stored somewhere."""
    assert problems({}, folder) == ["Thing was released and is gone: keep it, or migrate what is stored"]


@offline
def test_examples_that_are_gone_are_not_made_up(folder: Path) -> None:
    """Examples of an earlier version can only be restored: the class that wrote them is no more."""
    folder.joinpath("Thing/v1.json").unlink()
    with pytest.raises(RecordError, match="the examples of version 1 of Thing are gone"):
        record({"Thing": Second}, folder)


@offline
@pytest.mark.parametrize(
    ("arguments", "code", "said"), [([], 0, "everything was recorded"), (["Nothing"], 2, ""), (["--anew", "Nothing"], 2, "")]
)
def test_the_command(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It says what it recorded, and refuses names that are none."""
    few = {name: DOCUMENTS[name] for name in ("RunConfig", "ScenarioContent")}
    monkeypatch.setattr(recording, "released", lambda: few)
    monkeypatch.setattr(recording, "record", lambda documents, anew=(): record(documents, tmp_path, anew))
    record(few, tmp_path)
    assert recording.main(arguments) == code
    shown = capsys.readouterr()
    assert said in shown.out
    assert ("no such document: Nothing" in shown.err) == (code == 2)


# ------------------------------------------------------------------------------------------------------------------- the examples


@offline
@each_document
def test_examples_are_made_the_same_way_each_time(name: str) -> None:
    """From the name, the version and the types of the fields alone."""
    document = DOCUMENTS[name]
    assert json.dumps(examples(document)) == json.dumps(examples(document))
    assert json.dumps(examples_of_version_0(document)) == json.dumps(examples_of_version_0(document))


@offline
@pytest.mark.parametrize("name", [*DOCUMENTS, "NewNote"])
def test_steps_down_keep_what_the_older_version_holds(name: str) -> None:
    """What an older version stored is read, written at that version, and read again: it is the same document."""
    document: type[Document] = {**DOCUMENTS, "NewNote": NewNote}[name]
    for version in range(document.newest_version - 1, -1, -1):
        if version + 1 not in document._steps_down:
            break
        stored = examples(OldNote) if document is NewNote else [example.stored for example in read_examples(name, version)]
        set_write_version(document, version)
        try:
            for raw in stored:
                read = document.load(raw)
                assert read.dump()["schema_version"] == version
                assert document.load(read.dump()) == read
        finally:
            set_write_version(document, None)
