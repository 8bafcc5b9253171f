"""The version that is written: the newest, or an older one while releases that know no other are running."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import URL
from tests.kernel.document_releases import NewNote, OldNote

import stemmadb
from stemmadb import errors
from stemmadb.documents import (
    Document,
    Raw,
    content_hash,
    dump_document,
    dump_json,
    register_downcaster,
    set_write_version,
    write_version,
)
from stemmadb.documents._canonical import digest
from stemmadb.evaluation.documents import RunConfig
from stemmadb.settings import Settings, load_settings

pytestmark = pytest.mark.offline

texts = st.text(st.characters() | st.sampled_from("\x00\x1a\ud800"), max_size=8)
unknown = st.dictionaries(
    st.text("abcxyz", min_size=1, max_size=3), st.none() | st.integers() | texts | st.lists(texts, max_size=2), max_size=3
)
new_notes = st.builds(NewNote, body=texts, labels=st.dictionaries(texts, st.integers(-5, 5), max_size=4))
old_notes = st.builds(OldNote, text=texts, tags=st.lists(texts, max_size=4, unique=True).map(tuple))
MANY = max(300, settings.default.max_examples)


@pytest.fixture(autouse=True)
def _newest() -> Iterator[None]:
    yield
    for document in (OldNote, NewNote, RunConfig):
        set_write_version(document, None)


# --------------------------------------------------------------------------------------------------------------- both directions


@pytest.mark.property
@pytest.mark.requirement("VR-014", "VR-102")
@settings(max_examples=MANY, deadline=None)
@given(note=new_notes, extra=unknown)
def test_the_release_before_reads_what_the_new_one_writes(note: NewNote, extra: Raw) -> None:
    """Written at version 2, a document of version 3 is read by both, and comes back to the new release whole, unknown keys included."""
    note = note.replace(**{f"x_{key}": value for key, value in extra.items()})
    set_write_version(NewNote, 2)
    written = dump_json(note)
    before = OldNote.load(written)
    assert json.loads(written)["schema_version"] == before.schema_version == 2
    assert (before.text, before.tags) == (note.body, tuple(note.labels))
    assert NewNote.load(written) == note
    # It survives a change by the release before as well: what that does not know, it keeps.
    changed = NewNote.load(dump_json(before.replace(text="changed")))
    assert changed == note.replace(body="changed")


@pytest.mark.property
@settings(max_examples=MANY, deadline=None)
@given(note=old_notes, extra=unknown)
def test_what_the_older_version_holds_comes_back(note: OldNote, extra: Raw) -> None:
    """Up and down again changes nothing about a document of the older version: no step loses what both can hold."""
    note = note.replace(**{f"x_{key}": value for key, value in extra.items()})
    set_write_version(NewNote, 2)
    again = dump_document(NewNote.load(dump_json(note)))
    assert again == dump_document(note)


@pytest.mark.property
@settings(max_examples=MANY, deadline=None)
@given(note=new_notes)
def test_hashes_follow_what_is_stored(note: NewNote) -> None:
    """The hash of a document is that of its stored bytes, at whatever version; back at the newest it is what it was."""
    newest = content_hash(note)
    set_write_version(NewNote, 2)
    assert content_hash(note) == digest(dump_json(note)) != newest
    set_write_version(NewNote, None)
    assert content_hash(note) == newest


@pytest.mark.property
@settings(max_examples=MANY, deadline=None)
@given(note=new_notes)
def test_writing_changes_no_document(note: NewNote) -> None:
    """What is written at an older version stays the newest in memory, twice gives the same, and no step sees what another changed."""
    before = note.replace()
    set_write_version(NewNote, 2)
    assert dump_json(note) == dump_json(note)
    assert note == before
    assert note.schema_version == 3


# ------------------------------------------------------------------------------------------------------------------ what is refused


def chain(version: int, *down: int) -> type[Document]:
    """Return a class of this version, with the steps down from these."""
    made: Any = type(f"Chain{version}", (Document,), {"__annotations__": {"n": int}, "n": 0, "__module__": __name__}, version=version)
    for source in range(version):
        made.upcast(source)(lambda raw: {**raw, "n": raw.get("n", 0) + 1})
    for source in down:
        made.downcast(source)(lambda raw: {**raw, "n": raw["n"] - 1})
    return made


def test_steps_down_are_chained() -> None:
    """From 4 to 1 every step is taken, in order, and reading takes them back."""
    document = chain(4, 4, 3, 2)
    for version in (4, 3, 2, 1):
        set_write_version(document, version)
        assert write_version(document) == version
        stored = dump_document(document(n=10))
        assert stored == {"schema_version": version, "n": 10 - (4 - version)}
        assert document.load(stored) == document(n=10)
    set_write_version(document, None)
    assert write_version(document) == 4


def test_version_0_is_written_when_there_is_a_step_to_it() -> None:
    """For the readers of before documents had versions."""
    document = chain(1, 1)
    set_write_version(document, 0)
    assert dump_document(document(n=3)) == {"schema_version": 0, "n": 2}
    assert document.load({"n": 2}) == document(n=3)


@pytest.mark.parametrize(("version", "said"), [(1, "no step down from 2"), (0, "no step down from 2, 1"), (5, "up to 4"), (-1, "up to 4")])
def test_a_version_without_steps_is_refused(version: int, said: str) -> None:
    """When it is configured, not when the first document is written; what was written before is written still."""
    document = chain(4, 4, 3)
    set_write_version(document, 3)
    with pytest.raises(errors.ConfigurationError, match=said):
        set_write_version(document, version)
    assert write_version(document) == 3


def test_two_steps_down_from_a_version_are_refused() -> None:
    """As two steps up are, and steps from versions that there are not."""
    document = chain(2, 2)
    with pytest.raises(errors.ConfigurationError, match="two steps down from version 2"):
        document.downcast(2)(lambda raw: raw)
    for version in (0, 3):
        with pytest.raises(errors.ConfigurationError, match=f"versions 1 to 2, so no step leads down from {version}"):
            register_downcaster(document, version)


def _fails(raw: Raw) -> Raw:
    raise KeyError("secret")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("step", "said"),
    [
        (_fails, "the step down from version 2 failed with KeyError"),
        (lambda raw: [raw], "gave no object"),
        (lambda raw: {**raw, "n": object()}, "gave what is not JSON"),
        (lambda raw: {**raw, "n": "secret"}, "cannot be read back"),
        (lambda raw: {**raw, "x": [float("nan")]}, "cannot be read back"),
    ],
)
def test_what_a_broken_step_gives_is_not_stored(step: Any, said: str) -> None:
    """A step down that fails, or makes what no release could read, is an error before anything is sent. It names no value."""
    document = chain(2)
    document.downcast(2)(step)
    set_write_version(document, 1)
    with pytest.raises(errors.CorruptDocumentError, match=said) as raised:
        dump_json(document())
    assert "secret" not in str(raised.value)


@pytest.mark.fault
def test_limits_hold_for_what_is_stored() -> None:
    """A step down that makes a document too large or too deep."""
    document = chain(2)
    grown: dict[str, Any] = {"value": "x" * 17_000_000}
    document.downcast(2)(lambda raw: {**raw, "n": 0, "x": grown["value"]})
    set_write_version(document, 1)
    with pytest.raises(errors.DocumentTooLargeError):
        dump_json(document())
    grown["value"] = json.loads("[" * 70 + "]" * 70)
    with pytest.raises(errors.CorruptDocumentError, match="at most 64 levels"):
        dump_json(document())


def test_a_class_derived_with_a_version_is_another_document() -> None:
    """The write version of its base is not its own."""
    base = chain(2, 2)
    set_write_version(base, 1)
    derived: Any = type("Derived", (base,), {"__module__": __name__}, version=2)
    assert write_version(derived) == 2


@pytest.mark.race
def test_a_document_is_of_one_version_whole() -> None:
    """While one thread changes the write version, every other writes documents of either version, never a mixture."""
    note = NewNote(body="b", labels={"t": 2})
    shapes = set()
    for version in (2, 3):
        set_write_version(NewNote, version)
        shapes.add(dump_json(note))
    done = threading.Event()
    written: list[set[str]] = [set(), set(), set()]

    def write(kept: set[str]) -> None:
        while not done.is_set():
            kept.add(dump_json(note))

    threads = [threading.Thread(target=write, args=(kept,)) for kept in written]
    for thread in threads:
        thread.start()
    for turn in range(2000):
        set_write_version(NewNote, 2 + turn % 2)
    done.set()
    for thread in threads:
        thread.join()
    assert set.union(*written) <= shapes


# ----------------------------------------------------------------------------------------------------------------------- the setting


def test_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of documents with versions, applied for the process as it connects."""
    monkeypatch.setenv("STEMMADB_WRITE_VERSIONS", " NewNote:2 , RunConfig:1,")
    assert load_settings().write_versions == (("NewNote", 2), ("RunConfig", 1))
    stemmadb.connect("postgresql://nobody@nowhere/none").close()
    assert (write_version(NewNote), write_version(RunConfig)) == (2, 1)


def test_the_setting_as_an_argument() -> None:
    """Settings(...) takes pairs."""
    settings = Settings(database_url=URL.create("postgresql", host="nowhere"), write_versions=(("NewNote", 2),))
    stemmadb.connect(settings=settings).close()
    assert write_version(NewNote) == 2


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("RunConfig", "expected names of documents with versions"),
        ("RunConfig:-1", "expected names of documents with versions"),
        ("Run Config:1", "expected names of documents with versions"),
        ("RunConfig:1,RunConfig:1", "RunConfig stands there twice"),
        ("RunConfig:2", "up to 1"),
        ("RunConfig:0", "no step down from 1"),
        ("Nothing:1", "no document is called 'Nothing'"),
        ("Twice:1", "documents are called Twice"),
    ],
)
def test_a_wrong_setting_is_told(monkeypatch: pytest.MonkeyPatch, value: str, said: str) -> None:
    """As the process connects, with the name of the variable."""
    twice = [type("Twice", (Document,), {"__module__": __name__}, version=1) for _ in range(2)]
    monkeypatch.setenv("STEMMADB_WRITE_VERSIONS", value)
    with pytest.raises(errors.ConfigurationError, match="STEMMADB_WRITE_VERSIONS") as raised:
        stemmadb.connect("postgresql://nobody@nowhere/none")
    assert said in str(raised.value)
    assert len(twice) == 2


def test_without_the_setting_nothing_is_imported_for_it() -> None:
    """connect() loads packs only when a setting names their documents."""
    program = (
        "import sys, stemmadb; stemmadb.connect('postgresql://nobody@nowhere/none'); "
        "raise SystemExit('stemmadb.evaluation.documents' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
