"""Cursors: opaque, typed, signed, and refused after any edit."""

import base64
import enum
import string
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemmadb._cursors import fingerprint_of, read_cursor, write_cursor
from stemmadb.errors import InvalidCursorError, ValidationError

pytestmark = [pytest.mark.offline, pytest.mark.requirement("EC-186")]

LIST = fingerprint_of(b"SELECT", [])
VALUES: list[Any] = [
    UUID("0192aaaa-bbbb-7ccc-8ddd-eeeeffff0001"),
    datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC),
    datetime(2026, 3, 4, 5, 6, 7, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    datetime(2026, 3, 4),
    date(2026, 3, 4),
    time(1, 2, 3, 4),
    timedelta(days=-1, microseconds=1),
    10**30,
    -1,
    True,
    False,
    None,
    "",
    'a"\\\u2028 ß 🧵',
    b"",
    b"\x00\xff",
    Decimal("1.500"),
    Decimal("NaN"),
    0.1,
    -0.0,
    float("inf"),
]

plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
    | st.uuids()
    | st.decimals(allow_nan=False)
    | st.dates()
    | st.datetimes(timezones=st.timezones())
)


def key(name: str, fill: bytes) -> str:
    return f"{name}:{base64.b64encode(fill * 32).decode()}"


@pytest.fixture
def secret_keys(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets STEMMADB_SECRET_KEYS."""
    return lambda *keys: monkeypatch.setenv("STEMMADB_SECRET_KEYS", ",".join(keys))


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_back_as_they_were(value: Any) -> None:
    """Value and type are kept: microseconds, zones, scale, NaN, the sign of zero, and 1 is not True."""
    (back,) = read_cursor(write_cursor([value], LIST), LIST, [None])
    assert type(back) is type(value)
    assert repr(back) == repr(value)


@pytest.mark.property
@given(st.lists(plain, max_size=5))
def test_any_plain_values_come_back(values: list[Any]) -> None:
    """Whatever a row may hold, the cursor gives it back, in text that a URL takes as it is."""
    cursor = write_cursor(values, LIST)
    back = read_cursor(cursor, LIST, [None] * len(values))
    assert [(type(value), str(value)) for value in back] == [(type(value), str(value)) for value in values]
    assert set(cursor) <= set(string.ascii_letters + string.digits + "-_")


def test_every_edit_of_one_character_is_refused() -> None:
    """Each character replaced by each other one, left out, doubled, or exchanged with its neighbour: all refused."""
    cursor = write_cursor([UUID(int=7), datetime(2026, 1, 1, tzinfo=UTC), "x"], LIST)
    alphabet = string.ascii_letters + string.digits + "-_=+/ .\0é"
    edits = {cursor[:at] + char + cursor[at + 1 :] for at in range(len(cursor)) for char in alphabet}
    edits |= {cursor[:at] + cursor[at + 1 :] for at in range(len(cursor))}
    edits |= {cursor[:at] + char + cursor[at:] for at in range(len(cursor) + 1) for char in "A=_"}
    edits |= {cursor[:at] + cursor[at : at + 2][::-1] + cursor[at + 2 :] for at in range(len(cursor) - 1)}
    edits |= {cursor + "\n", " " + cursor, cursor + cursor, ""}
    edits.discard(cursor)
    assert len(edits) > 5000
    for edit in edits:
        with pytest.raises(InvalidCursorError):
            read_cursor(edit, LIST, [None, None, None])


@pytest.mark.property
@given(st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("=")))
def test_made_up_cursors_are_refused(text: str) -> None:
    """Text that is no cursor, or one that nobody signed, is refused with the one error."""
    with pytest.raises(InvalidCursorError):
        read_cursor(text, LIST, [None])


@pytest.mark.parametrize("cursor", [None, 5, b"abc", ["a"]])
def test_what_is_no_text_is_no_cursor(cursor: Any) -> None:
    """Values of other types are refused in the same way."""
    with pytest.raises(InvalidCursorError):
        read_cursor(cursor, LIST, [None])


def test_a_cursor_of_another_list_is_refused() -> None:
    """The fingerprint is signed along with the values."""
    with pytest.raises(InvalidCursorError):
        read_cursor(write_cursor([1], LIST), fingerprint_of(b"SELECT", [1]), [None])


def test_any_known_key_verifies_and_the_newest_signs(secret_keys: Callable[..., None]) -> None:
    """Keys can be rotated: a cursor of the old key holds while that key is known, and no longer."""
    secret_keys(key("old", b"a"))
    old = write_cursor([1], LIST)
    secret_keys(key("new", b"b"), key("old", b"a"))
    assert read_cursor(old, LIST, [None]) == [1]
    new = write_cursor([1], LIST)
    assert new != old
    secret_keys(key("new", b"b"))
    assert read_cursor(new, LIST, [None]) == [1]
    with pytest.raises(InvalidCursorError):
        read_cursor(old, LIST, [None])


def test_the_fixed_key_is_for_processes_without_keys(secret_keys: Callable[..., None]) -> None:
    """Without keys, cursors work in every process; with one, a cursor of the fixed key is foreign."""
    unsigned = write_cursor([1], LIST)
    assert read_cursor(unsigned, LIST, [None]) == [1]
    secret_keys(key("k", b"k"))
    with pytest.raises(InvalidCursorError):
        read_cursor(unsigned, LIST, [None])


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


class Renamed(enum.Enum):
    GREEN = 2


def test_members_of_enums_go_by_name() -> None:
    """An enum comes back as its member; a member that is gone since makes the cursor invalid, not the process."""
    cursor = write_cursor([Colour.RED], LIST)
    assert read_cursor(cursor, LIST, [Colour]) == [Colour.RED]
    with pytest.raises(InvalidCursorError):
        read_cursor(cursor, LIST, [Renamed])


def test_other_values_are_refused_when_the_page_is_made() -> None:
    """A list or a document has no place in a cursor, and the message names its type."""
    with pytest.raises(ValidationError, match="list"):
        write_cursor([[1]], LIST)


def test_fingerprints_tell_values_and_types_apart() -> None:
    """1, True, "1" and 1.0 are different filters; the order of a set is not."""
    plain: list[Any] = [1, True, "1", 1.0, Decimal(1), b"1", None, date(2026, 1, 1), Colour.RED, Colour.GREEN]
    distinct = [*plain, [1], ["1"], [[1]], [1, 1], (Colour.RED,), (Colour.GREEN,)]
    assert len({fingerprint_of(b"s", [value]) for value in distinct}) == len(distinct)
    assert fingerprint_of(b"s", ["ab", "c"]) != fingerprint_of(b"s", ["a", "bc"])
    assert fingerprint_of(b"s", [{"a", "b", "c"}]) == fingerprint_of(b"s", [frozenset(["c", "b", "a"])])
