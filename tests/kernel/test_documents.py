"""stemmadb.documents without a database: versions, what survives, what is refused."""

import copy
import json
import pickle
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID, uuid4

import pydantic
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stemmadb import errors
from stemmadb.documents import (
    Document,
    DocumentPart,
    FrozenDict,
    Raw,
    check_upcasters,
    content_hash,
    dump_document,
    dump_json,
    escape,
    load_document,
    register_upcaster,
    unescape,
)
from stemmadb.documents._canonical import canonical

pytestmark = pytest.mark.offline


class Colour(StrEnum):
    RED = "red"


class Level(DocumentPart):
    score: int
    label: str = ""


class Content(Document, version=2):
    """As the content of a definition: its matching rule became a list of rules with version 2."""

    preamble: str
    template: str = ""
    levels: tuple[Level, ...] = ()
    rules: tuple[str, ...] = ()
    values: Mapping[str, str | int] = {}
    extra: Any = None


@Content.upcast(0)
def _fill_what_was_optional(raw: Raw) -> Raw:
    return {"preamble": "", "template": "", **raw}


@Content.upcast(1)
def _rules_become_a_list(raw: Raw) -> Raw:
    rule = raw.get("rules")
    return {**raw, "rules": [rule] if rule else []}


class Everything(Document, version=1):
    """One field of each kind."""

    number: int | None = None
    ratio: float | None = None
    amount: Decimal | None = None
    at: datetime | None = None
    key: UUID | None = None
    colour: Colour = Colour.RED
    kind: Literal["a", "b"] = "a"
    pair: tuple[int, str] = (0, "")
    bag: Mapping[str, Any] = {}
    parts: Mapping[str, Level] = {}
    anything: Any = None


register_upcaster(Everything, 0)(lambda raw: raw)

# Also surrogates, and those most often that mean something to the escape.
characters = st.characters() | st.sampled_from("\x00\x1a\ud800\udc00\udfff0018adf")
texts = st.text(characters, max_size=12)
# pydantic takes no others for the names of fields that it does not know.
unknown_names = texts.filter(lambda name: name not in Content.model_fields and not any("\ud800" <= c <= "\udfff" for c in name))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


# ---------------------------------------------------------------------------------------------------------------- versions


@pytest.mark.requirement("VR-008", "VR-014", "VR-018", "VR-102")
@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (None, Content(preamble="")),
        ({}, Content(preamble="")),
        ({"preamble": "p", "rules": "r"}, Content(preamble="p", rules=("r",))),
        ({"schema_version": None, "preamble": "p"}, Content(preamble="p")),
        ({"schema_version": 0, "preamble": "p"}, Content(preamble="p")),
        ({"schema_version": 1, "preamble": "p", "template": "t", "rules": "r"}, Content(preamble="p", template="t", rules=("r",))),
        ({"schema_version": 2, "preamble": "p", "rules": ["r"]}, Content(preamble="p", rules=("r",))),
    ],
    ids=["None", "empty", "no version", "null", "0", "1", "2"],
)
def test_a_document_of_any_version_is_read_as_the_newest(raw: Raw | None, expected: Content) -> None:
    """A dict, its text and its bytes give the same document, of the newest version, and the dict is not touched."""
    before = copy.deepcopy(raw)
    assert Content.load(raw) == expected
    assert load_document(raw, Content).schema_version == 2
    if raw is not None:
        assert Content.load(json.dumps(raw)) == expected
        assert Content.load(json.dumps(raw).encode()) == expected
    assert raw == before


@pytest.mark.requirement("VR-014", "VR-020", "VR-102")
@pytest.mark.parametrize("found", [3, 4, 10**9, 10**30])
def test_a_newer_version_is_never_parsed(found: int) -> None:
    """Even where its shape would do, a newer document is refused, and the error says what to do."""
    raw = {"schema_version": found, "preamble": "p", "template": "t"}
    for given_as in (raw, json.dumps(raw), json.dumps(raw).encode()):
        with pytest.raises(errors.UnknownSchemaVersionError, match="Unknown schema version") as raised:
            Content.load(given_as)
        assert (raised.value.found, raised.value.known) == (found, 2)


@pytest.mark.parametrize("version", [-1, 1.0, 2.0, 1.5, "2", True, [2], {}])
def test_a_version_is_a_whole_number(version: object) -> None:
    """Anything else in its place is corrupt, and is not taken for a number."""
    raw = {"schema_version": version, "preamble": "p"}
    for given_as in (raw, json.dumps(raw)):
        with pytest.raises(errors.CorruptDocumentError) as raised:
            Content.load(given_as)  # type: ignore[arg-type]
        assert raised.value.pointer == "/schema_version"


@pytest.mark.requirement("VR-015")
@pytest.mark.parametrize("raw", [[], ["a"], 1, 1.5, True, "text", '"text"', "[]", "null", "", "{", b"\xff", {1: 2}, object()])
def test_what_is_no_document_is_corrupt(raw: Any) -> None:
    """Any other value, JSON or not, is a CorruptDocumentError."""
    with pytest.raises(errors.CorruptDocumentError):
        Content.load(raw)


def test_an_array_of_version_0_reaches_the_first_step() -> None:
    """What was stored as a list before there were versions can be read."""

    class Flags(Document, version=1):
        flags: tuple[str, ...] = ()

    @Flags.upcast(0)
    def _list_form(raw: Raw | list[str]) -> Raw:
        return {"flags": raw} if isinstance(raw, list) else raw

    assert Flags.load('["a", "b"]').flags == ("a", "b")
    assert Flags.load(["c"]).flags == ("c",)  # type: ignore[arg-type]


def test_steps_get_a_copy() -> None:
    """A step that changes what it is given, against the rules, cannot change the caller's value."""

    class Careless(Document, version=1):
        inner: Mapping[str, Any] = {}

    @Careless.upcast(0)
    def _in_place(raw: Raw) -> Raw:
        raw.setdefault("inner", {})["touched"] = True
        return raw

    raw = {"inner": {"a": [1]}}
    assert Careless.load(raw).inner["touched"] is True
    assert raw == {"inner": {"a": [1]}}


@pytest.mark.parametrize("result", [None, [], "text"])
def test_a_step_that_fails_is_a_corrupt_document(result: Any) -> None:
    """Neither a step's exception nor its nonsense gets out."""

    class Broken(Document, version=2):
        pass

    @Broken.upcast(0)
    def _fails(raw: Raw) -> Raw:
        return {"a": raw["nothing"]}

    @Broken.upcast(1)
    def _nonsense(raw: Raw) -> Raw:
        nonsense: Raw = result
        return nonsense

    for version in (0, 1):
        with pytest.raises(errors.CorruptDocumentError, match=f"version {version}|version 2"):
            Broken.load({"schema_version": version})


def test_steps_are_registered_once_and_without_gaps() -> None:
    """A second step, one beyond the newest version, and a missing one are configuration errors."""

    class Gappy(Document, version=3):
        pass

    Gappy.upcast(0)(lambda raw: raw)
    Gappy.upcast(2)(lambda raw: raw)
    with pytest.raises(errors.ConfigurationError, match="two steps from version 0"):
        Gappy.upcast(0)
    for wrong in (-1, 3):
        with pytest.raises(errors.ConfigurationError, match="no step from"):
            register_upcaster(Gappy, wrong)
    with pytest.raises(errors.ConfigurationError, match="Gappy has no step from version 1"):
        check_upcasters([Gappy])
    with pytest.raises(errors.ConfigurationError, match="Gappy has no step from version 1"):
        Gappy.load({})
    assert Gappy.load({"schema_version": 3}).schema_version == 3
    Gappy.upcast(1)(lambda raw: raw)
    check_upcasters([Gappy, Content])
    assert Gappy.load({}).schema_version == 3


def test_two_registrations_taken_at_once_do_not_replace_each_other() -> None:
    """The second of two decorators made before either was used is refused."""

    class Twice(Document, version=1):
        pass

    first, second = Twice.upcast(0), Twice.upcast(0)
    first(lambda raw: raw)
    with pytest.raises(errors.ConfigurationError, match="two steps"):
        second(lambda raw: raw)


@pytest.mark.parametrize("version", [0, -1, 10**9])
def test_the_version_of_a_class_is_checked(version: int) -> None:
    """Version 0 is what has none, and the database tells versions up to nine digits."""
    with pytest.raises(TypeError, match="whole number from 1"):
        type("Odd", (Document,), {"__module__": __name__}, version=version)


def test_a_class_without_a_version_cannot_be_read() -> None:
    """It only holds fields for others."""

    class Shared(Document):
        name: str = ""

    class Named(Shared, version=1):
        pass

    register_upcaster(Named, 0)(lambda raw: raw)
    assert Named.load({"name": "a"}).name == "a"
    with pytest.raises(errors.ConfigurationError, match="version=1"):
        Shared.load({})


@pytest.mark.property
@given(st.integers(0, 2), st.dictionaries(unknown_names, json_values, max_size=5))
def test_every_version_loads_and_settles(version: int, others: dict[str, Any]) -> None:
    """Whatever else stands in a document of a known version: once read, writing and reading it again changes nothing."""
    raw = {**others, "schema_version": version, "preamble": "p"}
    document = Content.load(json.dumps(_stored(raw)))
    assert Content.load(document.dump()) == document
    assert Content.load(dump_json(document)) == document


# ------------------------------------------------------------------------------------------------------------ what survives


@pytest.mark.requirement("VR-017")
@pytest.mark.property
@given(st.integers(0, 2), st.dictionaries(unknown_names, json_values, max_size=4))
def test_unknown_keys_survive_read_change_and_write(version: int, unknown: dict[str, Any]) -> None:
    """What a newer writer added stands there still after this release has changed something else, also inside of parts."""
    raw = {"schema_version": version, "preamble": "p", "levels": [{"score": 1, **unknown}], **unknown}
    changed = Content.load(json.dumps(_stored(raw))).replace(template="t")
    stored = json.loads(dump_json(changed))
    for holder in (stored, stored["levels"][0]):
        for key, value in _stored(unknown).items():
            if key != "score" and key != "label":
                assert holder[key] == value


@pytest.mark.requirement("AD-016")
@pytest.mark.property
@settings(max_examples=max(300, settings.default.max_examples))
@example("\x1a0000")
@example("\x1a\x1a001a")
@example("\ud83d\ude00")
@example("\ufffd")
@given(texts)
def test_every_string_comes_back_exactly(text: str) -> None:
    """All of Unicode, NUL and lone surrogates too, in fields, keys and unknown keys; what is stored is plain JSON that jsonb takes."""
    assert unescape(escape(text)) == text
    document = Content(preamble=text, values={text: text}, extra={text: [text, {text: 1}]}, unknown={text: text})
    stored = dump_json(document)
    stored.encode()
    assert "\\u0000" not in stored
    assert Content.load(stored) == document
    assert Content.load(document.dump()) == document
    if not set(text) & {"\x00", "\x1a"} and text.isprintable():
        assert document.dump()["preamble"] == text


@pytest.mark.requirement("AD-016")
def test_what_the_escape_did_not_write_is_left_alone() -> None:
    """A U+001A by raw SQL without one of the codes behind it is itself."""
    for text in ("\x1a", "\x1a00", "\x1a0041", "\x1aD800", "\x1a00 00", "a\x1a"):
        assert unescape(text) == text
        assert Content.load({"schema_version": 2, "preamble": text}).preamble == text
        assert Content.load(json.dumps({"schema_version": 2, "preamble": text})).preamble == text


def test_keys_that_become_the_same_are_not_merged() -> None:
    """Two keys of which one reads as the other would lose a value: corrupt."""
    with pytest.raises(errors.CorruptDocumentError, match="two keys are the same"):
        Content.load('{"schema_version": 2, "preamble": "", "x": {"\\u001a": 1, "\\u001a001a": 2}}')


def test_an_unknown_field_named_with_a_lone_surrogate_is_refused() -> None:
    """It cannot be an attribute, and is not quietly renamed; inside of mappings and open values such keys are fine."""
    with pytest.raises(errors.CorruptDocumentError):
        Content.load({"schema_version": 2, "preamble": "", "\x1ad800": 1})
    assert Content.load({"schema_version": 2, "preamble": "", "values": {"\x1ad800": 1}}).values == {"\ud800": 1}


def test_text_with_lone_surrogates_is_read() -> None:
    """JSON text from elsewhere may hold what jsonb does not."""
    assert Content.load('{"schema_version": 2, "preamble": "\\ud800"}').preamble == "\ud800"


@pytest.mark.requirement("VR-051", "VR-054")
@pytest.mark.property
@given(
    st.builds(
        Everything,
        number=st.none() | st.integers(),
        ratio=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        amount=st.none() | st.decimals(allow_nan=False, allow_infinity=False, places=4),
        at=st.none() | st.datetimes(timezones=st.just(UTC)),
        key=st.none() | st.uuids(),
        pair=st.tuples(st.integers(), texts),
        bag=st.dictionaries(texts, json_values, max_size=3),
        parts=st.dictionaries(texts, st.builds(Level, score=st.integers(), label=texts), max_size=2),
        anything=json_values,
    )
)
def test_typed_fields_come_back(document: Everything) -> None:
    """Numbers, times, ids and open values survive writing and reading, and the version is always written."""
    assert json.loads(dump_json(document))["schema_version"] == 1
    assert Everything.load(dump_json(document)) == document
    assert Everything.load(dump_document(document)) == document
    assert pickle.loads(pickle.dumps(document)) == document


def test_a_computed_field_is_not_stored() -> None:
    """It would come back as a key that nobody knows."""

    class Progress(Document, version=1):
        total: int = 0

        @pydantic.computed_field  # type: ignore[prop-decorator]
        @property
        def twice(self) -> int:
            return 2 * self.total

    assert json.loads(dump_json(Progress(total=2))) == {"schema_version": 1, "total": 2}
    assert json.loads(dump_json(Progress(total=2, note="\x00")))["note"] == "\x1a0000"


# ------------------------------------------------------------------------------------------------------------------ frozen


def edits(document: Content) -> Iterator[Callable[[], object]]:
    """Ways to change a document where it stands."""
    yield lambda: setattr(document, "preamble", "x")
    yield lambda: delattr(document, "preamble")
    yield lambda: setattr(document.levels[0], "score", 2)
    yield lambda: document.levels.append(Level(score=2))  # type: ignore[attr-defined]
    for mapping in (document.values, document.extra, document.extra["deep"][0], document.model_extra, document.unknown):  # type: ignore[attr-defined]
        yield lambda mapping=mapping: mapping.__setitem__("a", 2)
        yield lambda mapping=mapping: mapping.__delitem__("a")
        yield lambda mapping=mapping: mapping.update(a=2)
        yield lambda mapping=mapping: mapping.pop("a")
        yield lambda mapping=mapping: mapping.popitem()
        yield lambda mapping=mapping: mapping.clear()
        yield lambda mapping=mapping: mapping.setdefault("b", 2)
        yield lambda mapping=mapping: mapping.__ior__({"a": 2})
    yield lambda: document.extra["deep"].append(1)
    yield lambda: document.model_copy(update={"preamble": 1})


@pytest.mark.parametrize(
    "make",
    [
        lambda raw: Content(**raw),
        lambda raw: Content.load({"schema_version": 2, **raw}),
        lambda raw: Content.load(json.dumps({"schema_version": 2, **raw})),
        lambda raw: Content.load({"schema_version": 1, **raw}),
        lambda raw: Content(preamble="q").replace(**raw),
        lambda raw: pickle.loads(pickle.dumps(Content(**raw))),
        lambda raw: copy.deepcopy(Content(**raw)),
    ],
    ids=["made", "dict", "text", "old", "replaced", "pickled", "copied"],
)
def test_nothing_in_a_document_can_be_edited_in_place(make: Callable[[Raw], Content]) -> None:
    """Fields, parts, mappings and whatever is inside an open value or an unknown key are read-only."""
    raw = {"preamble": "p", "values": {"a": 1}, "extra": {"a": 1, "deep": [{"a": 1}]}, "unknown": {"a": [1]}}
    document = make({**raw, "levels": [{"score": 1}]})
    before = dump_json(document)
    for edit in edits(document):
        with pytest.raises((TypeError, AttributeError, pydantic.ValidationError)):
            edit()
    assert dump_json(document) == before


def test_a_document_does_not_follow_what_it_was_made_of() -> None:
    """Open values are copied, so that the caller's own dict stays the caller's."""
    mine: Raw = {"a": [1]}
    document = Content(preamble="", extra=mine, unknown=mine)
    mine["a"].append(2)
    assert document.extra == {"a": (1,)}
    document.dump()["extra"]["a"].append(3)
    assert document.extra == {"a": (1,)}


def test_defaults_are_frozen() -> None:
    """A dict as a default is shared by all documents, and read-only."""

    class Defaulted(Document, version=1):
        plain: Mapping[str, int] = {"a": 1}
        made: Mapping[str, int] = pydantic.Field(default_factory=dict)
        open: Any = {"a": [1]}

    document = Defaulted()
    for mapping in (document.plain, document.made, document.open):
        assert isinstance(mapping, FrozenDict)
    assert document.open == {"a": (1,)}


def test_documents_are_values() -> None:
    """Equal documents have equal hashes; mappings compare with dicts; copies of mappings with changes are plain."""
    first, second = (Content(preamble="p", values={"a": 1}) for _ in range(2))
    assert hash(first) == hash(second)
    assert first.values == {"a": 1}
    assert {**first.values, "b": 2} == {"a": 1, "b": 2} == first.values | {"b": 2}
    assert repr(first.values) == "{'a': 1}"
    assert copy.copy(first.values) is first.values


def test_replace_validates() -> None:
    """The copy is checked like a new document, keeps unknown keys, and the error names each place."""
    document = Content(preamble="p", unknown=[1])
    changed = document.replace(levels=(Level(score=3),), values={"a": "b"})
    assert (changed.preamble, changed.levels[0].score, changed.unknown) == ("p", 3, (1,))  # type: ignore[attr-defined]
    with pytest.raises(errors.ValidationError) as raised:
        document.replace(preamble=1, values={"a/b": 1.5})
    assert {line.partition(":")[0] for line in raised.value.details} == {"/preamble", "/values/a~1b"}
    with pytest.raises(errors.ValidationError):
        document.replace(schema_version=1)


# ------------------------------------------------------------------------------------------------------------ types of fields


class _Loose(pydantic.BaseModel):
    pass


@dataclass
class _Data:
    name: str


@pytest.mark.parametrize(
    ("annotation", "advice"),
    [
        (list[int], r"tuple\[X, ...\]"),
        (dict[str, int], r"Mapping\[str, X\]"),
        (set[int], "tuple"),
        (frozenset[int], "no order"),
        (Sequence[int], "tuple"),
        (Mapping[int, int], "keys of a JSON object are strings"),
        (tuple[list[int], ...], "tuple"),
        (list[int] | None, "tuple"),
        (Mapping[str, list[int]], "tuple"),
        (_Loose, "DocumentPart"),
        (_Data, "DocumentPart"),
    ],
)
def test_types_that_could_be_edited_in_place_are_refused(annotation: Any, advice: str) -> None:
    """The class is not made, and the message says which type to use."""
    with pytest.raises(TypeError, match=advice):
        type("Refused", (Document,), {"__module__": __name__, "__annotations__": {"field": annotation}}, version=1)


def test_a_part_cannot_hold_itself() -> None:
    """Documents have a fixed depth, apart from open values."""
    with pytest.raises(TypeError, match="cannot hold itself"):

        class Node(DocumentPart):
            children: "tuple[Node, ...]" = ()


def test_a_type_that_is_not_there_yet_is_refused() -> None:
    """A class that is completed later would escape the checks."""
    with pytest.raises(TypeError, match="not defined yet"):
        type("Early", (Document,), {"__module__": __name__, "__annotations__": {"field": "tuple[NotThere, ...]"}}, version=1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("number", "1"),
        ("number", 1.0),
        ("number", True),
        ("ratio", "1.5"),
        ("ratio", float("nan")),
        ("ratio", float("inf")),
        ("at", datetime(2024, 1, 1)),
        ("at", "2024-01-01T00:00:00"),
        ("pair", (1, 2)),
        ("pair", (1, b"text")),
        ("kind", "c"),
    ],
)
def test_values_are_not_converted(field: str, value: object) -> None:
    """A string is no number, nor the reverse; a time without a zone is no time."""
    with pytest.raises(pydantic.ValidationError):
        Everything(**{field: value})  # type: ignore[arg-type]
    with pytest.raises(errors.CorruptDocumentError) as raised:
        Everything.load({"schema_version": 1, field: value})
    assert raised.value.pointer.startswith(f"/{field}")


# ------------------------------------------------------------------------------------------------------------------- limits


@pytest.mark.requirement("AD-017")
@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("-inf"),
        {1, 2},
        b"bytes",
        Decimal(1),
        datetime(2024, 1, 1),
        datetime(2024, 1, 1, tzinfo=UTC),
        uuid4(),
        object(),
        {1: 2},
        10**5000,
        struct,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_does_not_have_is_refused_with_its_place(value: object) -> None:
    """Where no type says what it is, only JSON goes in: in open fields, in unknown keys, deep inside."""
    for field in ("anything", "bag", "unknown"):
        with pytest.raises(errors.CorruptDocumentError) as raised:
            Everything.load({"schema_version": 1, field: {"a/b": [0, value]}})
        assert raised.value.pointer == f"/{field}/a~1b/1" or type(value) is dict
        with pytest.raises(pydantic.ValidationError):
            Everything(**{field: {"a/b": [0, value]}})  # type: ignore[arg-type]


@pytest.mark.requirement("AD-017")
@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1" * 5000])
def test_text_with_numbers_that_are_none_is_refused(text: str) -> None:
    """The same for JSON text, which JSON itself does not allow, or Python cannot read."""
    with pytest.raises(errors.CorruptDocumentError):
        Everything.load(f'{{"schema_version": 1, "anything": {text}}}')


def nested(levels: int) -> Any:
    """Arrays and objects inside one another."""
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


@pytest.mark.requirement("AD-017")
def test_a_document_is_nested_64_levels_and_no_more() -> None:
    """The document is the first level. The 65th is refused with its place, in whatever way it comes."""
    # Everything is one level, its bag the second, or a part in a mapping the second and third.
    Everything(anything=nested(63))
    assert Everything.load(dump_json(Everything(anything=nested(63)))).anything == Everything(anything=nested(63)).anything
    for levels in (64, 100, 500):
        with pytest.raises(pydantic.ValidationError, match="64 levels"):
            Everything(anything=nested(levels))
        with pytest.raises(errors.CorruptDocumentError, match="64 levels"):
            Everything.load({"schema_version": 1, "anything": nested(levels)})
    deep = Everything(parts={"a": Level(score=1, more=nested(62))})
    with pytest.raises(errors.CorruptDocumentError, match="64 levels") as raised:
        dump_json(deep)
    assert raised.value.pointer.startswith("/parts/a/more/")
    dump_json(Everything(parts={"a": Level(score=1, more=nested(61))}))


@pytest.mark.requirement("AD-017")
@pytest.mark.parametrize("levels", [65, 300, 6000, 100_000])
def test_text_of_any_depth_is_an_error_of_ours(levels: int) -> None:
    """Thousands of levels neither crash the parser nor get in."""
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        text = f'{{"schema_version": 1, "anything": {opening * levels}1{closing * levels}}}'
        with pytest.raises(errors.CorruptDocumentError):
            Everything.load(text)


def test_a_wide_document_is_not_deep() -> None:
    """Many brackets side by side, or inside of strings, are no nesting."""
    document = Everything(anything=[[{}]] * 200, bag={"text": '["{' * 200})
    assert Everything.load(dump_json(document)) == document


def test_a_value_that_holds_itself_is_refused() -> None:
    """A cycle is deeper than any document."""
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(pydantic.ValidationError, match="64 levels"):
        Everything(anything=cycle)
    with pytest.raises(errors.CorruptDocumentError):
        Everything.load({"schema_version": 1, "anything": cycle})


@pytest.mark.requirement("AD-017")
def test_a_document_has_16_megabytes_and_no_more() -> None:
    """Counted in bytes as they are sent; the error says how many there are."""
    limit = 16 * 1024 * 1024
    overhead = len(dump_json(Content(preamble="")).encode())
    exact = Content(preamble="é" * ((limit - overhead) // 2))
    assert limit - 2 < len(dump_json(exact).encode()) <= limit
    assert Content.load(dump_json(exact)) == exact
    large = Content(preamble="é" * ((limit - overhead) // 2 + 1))
    with pytest.raises(errors.DocumentTooLargeError) as raised:
        large.dump()
    assert (raised.value.size, raised.value.limit) == (len(large.model_dump_json().encode()), limit)
    with pytest.raises(errors.CorruptDocumentError, match="bytes"):
        Content.load(large.model_dump_json())


def test_a_number_that_cannot_be_read_back_is_not_written() -> None:
    """Python reads numbers of at most 4,300 digits, and a string of digits is no number."""
    with pytest.raises(errors.CorruptDocumentError):
        dump_json(Everything(number=10**4400))
    assert Everything.load(dump_json(Everything(anything="1" * 5000))).anything == "1" * 5000


@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        ({"schema_version": 2}, "/preamble"),
        ({"schema_version": 2, "preamble": "", "levels": [{"score": 1}, {"score": "2"}]}, "/levels/1/score"),
        ({"schema_version": 2, "preamble": "", "levels": [{}]}, "/levels/0/score"),
        ({"schema_version": 2, "preamble": "", "values": {"~": []}}, "/values/~0"),
        ({"schema_version": 2, "preamble": "", "levels": {}}, "/levels"),
        ({"schema_version": 1, "preamble": "", "template": "", "rules": {}}, ""),
        ({"preamble": 1}, "/preamble"),
    ],
)
def test_errors_name_the_place(raw: Raw, pointer: str) -> None:
    """The JSON Pointer of the first thing that is wrong, in the shape of the newest version."""
    for given_as in (raw, json.dumps(raw)):
        if pointer or raw.get("rules"):
            with pytest.raises(errors.CorruptDocumentError) as raised:
                Content.load(given_as)
            assert raised.value.pointer == pointer
        else:
            Content.load(given_as)


def test_errors_hold_no_values() -> None:
    """Documents hold what must not stand in logs."""
    with pytest.raises(errors.CorruptDocumentError) as raised:
        Content.load({"schema_version": 2, "preamble": ["hunter2"], "values": {"a": {"hunter2": 1}}})
    assert "hunter2" not in str(raised.value) + repr(raised.value)
    with pytest.raises(pydantic.ValidationError) as made:
        Content(preamble=["hunter2"])  # type: ignore[arg-type]
    assert "hunter2" not in str(made.value)


# ----------------------------------------------------------------------------------------------------------- canonical text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", "{}"),
        ("[]", "[]"),
        ('{"b":1,"a":[true,false,null]}', '{"a": [true, false, null], "b": 1}'),
        ('{"aaa":1,"z":2,"é":3}', '{"z": 2, "é": 3, "aaa": 1}'),
        ('{"a":1,"a":2}', '{"a": 2}'),
        ("[1.50,1e3,1.5e-3,1.0e2,-0,-0.0,0e5,12e-1]", "[1.50, 1000, 0.0015, 100, 0, 0.0, 0, 1.2]"),
        ('"\\u001f\\n\\t\\b\\f\\r\\"\\\\\\/\\u007f\\u00e9"', '"\\u001f\\n\\t\\b\\f\\r\\"\\\\/\x7fé"'),
    ],
)
@pytest.mark.requirement("AD-004")
def test_canonical_text(text: str, expected: str) -> None:
    """What PostgreSQL 16 to 18 write for these; test_document_column.py compares with the server at hand."""
    assert canonical(text) == expected


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    """Equal content has equal hashes, of 32 bytes."""
    first, second = Content(preamble="", extra={"a": 1, "b": 2}), Content(preamble="", extra={"b": 2, "a": 1})
    assert content_hash(first) == content_hash(second)
    assert len(content_hash(first)) == 32
    assert content_hash(first) != content_hash(first.replace(preamble="x"))


def _stored(value: Any) -> Any:
    """Escape every string, as the library does before it stores them."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, dict):
        return {escape(key): _stored(item) for key, item in value.items()}
    return [_stored(item) for item in value] if isinstance(value, list) else value
