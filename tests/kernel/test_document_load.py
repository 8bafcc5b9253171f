"""What has no escaped characters and is of the newest version is read in one go; all else the longer way, and both come to the same."""

import copy
import json
import random
import re
import sys
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.golden.shapes import read_examples, released

from stemmadb import errors
from stemmadb.documents import Document, DocumentPart, _load
from stemmadb.documents.steps import Default, Drop, MapValues, Rename, Steps

offline = pytest.mark.offline
DOCUMENTS = released()

LEADS = ["\x1a0000", "\x1ad800", "\x1a001a", "\x1a", "\x1a000", "\x1adfffx", "a\x1a0000b", "\x1a0000\x1a0000", "x" * 26]


class Mood(StrEnum):
    GOOD = "good"


class Inner(DocumentPart):
    word: str = ""
    open: Any = None


class Words(Document, version=2):
    """Strings in every place that a field may have."""

    text: str = ""
    several: tuple[str, ...] = ()
    pair: tuple[int, str] | None = None
    named: Mapping[str, str] = {}
    opened: Mapping[str, Any] = {}
    anything: Any = None
    either: str | int | None = None
    inner: Inner = Inner()
    inners: Mapping[str, tuple[Inner, ...]] = {}
    choice: Literal["a", "b"] = "a"
    mood: Mood = Mood.GOOD
    id: UUID | None = None


Words.upcast(0)(Steps(Default("text", "")))
Words.upcast(1)(Steps(Rename("word", "text"), Drop("gone"), MapValues("choice", [("\0", "a"), ("z", "b")])))


def the_longer_way(document: type[Document], raw: Any) -> Any:
    """What comes of a stored value when nothing is left out: the document, or the place and reason of the error."""
    value = _load._unescaped(copy.deepcopy(raw)) if raw is not None else {}
    return _outcome(lambda: _load._upcast(document, value))


def _outcome(load: Any) -> Any:
    try:
        made = load()
    except errors.DocumentError as error:
        return type(error), error.__dict__.get("reason"), error.__dict__.get("pointer")
    return type(made), made, made.model_fields_set, made.dump()


def agrees(document: type[Document], raw: Any) -> None:
    """Both ways, from an object, from text and from bytes, come to the same; and the object is as it was."""
    before = copy.deepcopy(raw)
    try:
        expected = the_longer_way(document, raw)
    except errors.CorruptDocumentError:
        # Two keys that are the same once they are read: told while the escapes are read.
        with pytest.raises(errors.CorruptDocumentError):
            document.load(raw)
        return
    assert _outcome(lambda: document.load(raw)) == expected
    assert raw == before
    for text in (json.dumps(raw), json.dumps(raw, separators=(",", ":"), ensure_ascii=False)):
        assert _outcome(lambda text=text: document.load(text)) == expected
        assert _outcome(lambda text=text: document.load(text.encode())) == expected


_TEXT = st.sampled_from(["", "a", "zz", "größe", *LEADS]) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**60) | st.floats(-1e6, 1e6) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_INNER = st.fixed_dictionaries({}, optional={"word": _TEXT, "open": _JSON, "unknown": _JSON})
_WORDS = st.fixed_dictionaries(
    {},
    optional={
        "schema_version": st.sampled_from([0, 1, 2, 2, 2, 2, 3, None, "2", 2.0, True]),
        "text": _TEXT,
        "word": _TEXT,
        "gone": _TEXT,
        "several": st.lists(_TEXT, max_size=3),
        "pair": st.none() | st.tuples(st.integers(), _TEXT).map(list),
        "named": st.dictionaries(_TEXT, _TEXT, max_size=3),
        "opened": st.dictionaries(_TEXT, _JSON, max_size=2),
        "anything": _JSON,
        "either": _TEXT | st.integers() | st.none(),
        "inner": _INNER,
        "inners": st.dictionaries(_TEXT, st.lists(_INNER, max_size=2), max_size=2),
        "choice": st.sampled_from(["a", "b", "z", "\x1a0000"]),
        "mood": st.sampled_from(["good", "\x1a0000"]),
        "id": st.sampled_from([None, str(UUID(int=7)), "\x1a0000"]),
        "\x1a0000": _JSON,
        "unknown": _JSON,
    },
)


@offline
@pytest.mark.property
@pytest.mark.requirement("AD-016", "VR-019")
@settings(max_examples=600, deadline=None)
@given(_WORDS)
def test_both_ways_come_to_the_same(raw: dict[str, Any]) -> None:
    """With escaped characters in every place, in values and keys, in every version; errors included."""
    agrees(Words, raw)


@offline
@pytest.mark.parametrize("name", DOCUMENTS)
def test_released_documents_are_read_as_by_the_longer_way(name: str) -> None:
    """Every stored example of every version; and each again with an escaped character in one of its strings or keys."""
    document = DOCUMENTS[name]
    chance = random.Random(name)
    for version in range(document.newest_version + 1):
        for example in read_examples(name, version):
            agrees(document, example.stored)
            places = list(_places(example.stored))
            for place in chance.sample(places, min(5, len(places))):
                agrees(document, _with(example.stored, place, chance.choice(LEADS)))


def _places(value: Any) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key != "schema_version":
                yield (key, "key")
                yield from ((key, *rest) for rest in _places(item))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from ((position, *rest) for rest in _places(item))
    elif isinstance(value, str):
        yield ("value",)


def _with(value: Any, place: tuple[Any, ...], text: str) -> Any:
    """Return a copy with a string replaced, or a key."""
    if place == ("value",):
        return text
    step, rest = place[0], place[1:]
    if rest == ("key",):
        return {(text if key == step else key): item for key, item in value.items()}
    if isinstance(value, dict):
        return {key: _with(item, rest, text) if key == step else item for key, item in value.items()}
    return [_with(item, rest, text) if position == step else item for position, item in enumerate(value)]


DEFECTS: Mapping[str, tuple[str, Any]] = {
    "no escape is seen in objects": ("may_be_escaped", lambda packed: False),
    "no escape is seen in text": ("_LEAD", re.compile("nothing")),
    "steps of Python get the caller's object": ("_is_declared", lambda document, version: True),
}


@offline
@pytest.mark.fault
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_short_way_that_is_wrong_is_found(defect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above sees it."""
    name, planted = DEFECTS[defect]
    longer = {key: the_longer_way(document, raw) for key, (document, raw) in enumerate(TELLING)}
    monkeypatch.setattr(_load, name, planted)
    found = 0
    for key, (document, raw) in enumerate(TELLING):
        given_raw = copy.deepcopy(raw)
        found += _outcome(lambda document=document, raw=given_raw: document.load(raw)) != longer[key] or given_raw != raw
        found += _outcome(lambda document=document, raw=raw: document.load(json.dumps(raw))) != longer[key]
    assert found


class Careless(Document, version=1):
    """Its step edits what it is given."""

    words: tuple[str, ...] = ()


@Careless.upcast(0)
def _more_words(raw: Any) -> Any:
    raw["words"].append("more")
    return raw


TELLING: list[tuple[type[Document], Any]] = [
    (Words, {"schema_version": 2, "text": "\x1a0000"}),
    (Words, {"schema_version": 2, "\x1a0000": "key"}),
    (Words, {"schema_version": 1, "word": "a"}),
    (Careless, {"words": ["a"]}),
]


@offline
@pytest.mark.parametrize(("document", "raw"), TELLING)
def test_both_ways_come_to_the_same_here(document: type[Document], raw: Any) -> None:
    """Those by which the defects are found."""
    agrees(document, raw)


@offline
def test_a_length_is_no_escape() -> None:
    """A string of 26 characters is as common as any other, and so is the 26th string: neither makes reading several times as long."""
    raw = Words(several=tuple(f"word {number:021}" for number in range(40)) * 2).dump()
    assert _calls(lambda: Words.load(raw)) < 15


@offline
def test_a_class_that_derives_from_a_document_is_itself() -> None:
    """It has no version of its own, and is read as what it is."""

    class More(Words):
        more: str = ""

    made = More.load({"schema_version": 2, "text": "a", "more": "b"})
    assert (type(made), made.more) == (More, "b")
    assert type(Words.load({"schema_version": 2, "more": "b"})) is Words


@offline
@pytest.mark.requirement("VR-019")
def test_the_short_way_is_short() -> None:
    """Counted in calls of Python, which no busy machine changes: what is of the newest version takes a handful, whatever its size."""
    raw = Words(several=tuple(f"word {number}" for number in range(1000)), inner=Inner(word="a")).dump()
    for stored in (raw, json.dumps(raw)):
        Words.load(stored)
        assert _calls(lambda stored=stored: Words.load(stored)) < 15


def _calls(work: Any) -> int:
    count = 0

    def seen(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count
