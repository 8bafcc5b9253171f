"""Cursors as text: the values of a page's last row, typed, signed, and good for one list only."""

import base64
import binascii
import datetime
import enum
import functools
import hashlib
import hmac
import json
import os
from collections.abc import Callable, Collection, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from stemmadb.errors import InvalidCursorError, ValidationError
from stemmadb.settings import load_settings

_VERSION = b"\x01"
_MAC_BYTES = 16

# What signs when no key is configured. It protects nothing: a cursor grants no access, the signature only tells an edited or foreign one.
_FIXED_KEY = b"stemmadb cursors without STEMMADB_SECRET_KEYS"

_Reader = Callable[[str], Any]

# Exact types: a datetime is a date, a bool is an int, and an enum's member may be a str.
_WRITERS: dict[type, tuple[str, Callable[[Any], str]]] = {
    str: ("s", str),
    int: ("i", str),
    bool: ("b", lambda value: "1" if value else "0"),
    float: ("f", float.hex),
    Decimal: ("n", str),
    UUID: ("u", lambda value: value.hex),
    bytes: ("x", bytes.hex),
    datetime.datetime: ("t", datetime.datetime.isoformat),
    datetime.date: ("d", datetime.date.isoformat),
    datetime.time: ("h", datetime.time.isoformat),
    datetime.timedelta: ("p", lambda value: str(value // datetime.timedelta(microseconds=1))),
}
_READERS: dict[str, _Reader] = {
    "s": str,
    "i": int,
    "b": "1".__eq__,
    "f": float.fromhex,
    "n": Decimal,
    "u": UUID,
    "x": bytes.fromhex,
    "t": datetime.datetime.fromisoformat,
    "d": datetime.date.fromisoformat,
    "h": datetime.time.fromisoformat,
    "p": lambda text: datetime.timedelta(microseconds=int(text)),
}


def write_cursor(values: Sequence[Any], fingerprint: bytes) -> str:
    """
    Return the cursor that stands behind a row with these values of the order's terms.

    Raises:
        ValidationError: a value of a type that no page can be ordered by.
    """
    payload = json.dumps([_write(value) for value in values], separators=(",", ":"), ensure_ascii=False).encode()
    body = _VERSION + payload
    return _encode(_mac(_signing_keys()[0], fingerprint, body) + body)


def read_cursor(cursor: str, fingerprint: bytes, enums: Sequence[type[enum.Enum] | None]) -> list[Any]:
    """
    Return the values in a cursor that was written for this fingerprint, with one entry of ``enums`` for each.

    Raises:
        InvalidCursorError: it was edited, or written for another list, or with a key that is no longer known.
    """
    raw = _decode(cursor)
    mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    if not any(hmac.compare_digest(mac, _mac(key, fingerprint, body)) for key in _signing_keys()) or body[:1] != _VERSION:
        raise InvalidCursorError
    try:
        pairs = json.loads(body[1:])
        return [_read(pair, kind) for pair, kind in zip(pairs, enums, strict=True)]
    except (ValueError, LookupError, TypeError, InvalidOperation):
        # Signed by us for this list, and no longer readable: an enum has lost a member since.
        raise InvalidCursorError from None


def fingerprint_of(text: bytes, values: Collection[Any]) -> bytes:
    """Return what a cursor is bound to: a digest of the statement's text and, in order, of its parameters."""
    digest = hashlib.sha256(text)
    for value in values:
        item = _canonical(value).encode("utf-8", "surrogatepass")
        digest.update(len(item).to_bytes(8, "big") + item)
    return digest.digest()


def _canonical(value: Any) -> str:
    writer = _WRITERS.get(type(value))
    if writer is not None:
        return writer[0] + writer[1](value)
    if isinstance(value, set | frozenset):
        # The order of a set of strings differs from process to process.
        return f"{{{','.join(sorted(map(_canonical, value)))}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_canonical, value))}]"
    return f"{type(value).__qualname__}:{value!r}"


def _write(value: Any) -> list[str] | None:
    if value is None:
        return None
    if isinstance(value, enum.Enum):
        return ["e", value.name]
    writer = _WRITERS.get(type(value))
    if writer is None:
        message = f"A page cannot be ordered by a column of {type(value).__name__} values: order by columns with plain values"
        raise ValidationError(message, "order_by")
    return [writer[0], writer[1](value)]


def _read(pair: list[str] | None, kind: type[enum.Enum] | None) -> Any:
    if pair is None:
        return None
    tag, text = pair
    return kind[text] if tag == "e" and kind is not None else _READERS[tag](text)


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decode(cursor: str) -> bytes:
    try:
        raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (AttributeError, UnicodeEncodeError, binascii.Error):
        raise InvalidCursorError from None
    # The last character has bits that decode to nothing; only one spelling is ours.
    if len(raw) <= _MAC_BYTES or _encode(raw) != cursor:
        raise InvalidCursorError
    return raw


def _mac(key: bytes, fingerprint: bytes, body: bytes) -> bytes:
    return hmac.digest(key, fingerprint + body, "sha256")[:_MAC_BYTES]


def _signing_keys() -> tuple[bytes, ...]:
    """Return the keys of the environment, newest first; the fixed key when there is none."""
    return _derived(os.environ.get("STEMMADB_SECRET_KEYS", ""))


@functools.lru_cache(maxsize=8)
def _derived(_configured: str) -> tuple[bytes, ...]:
    # The configured keys also encrypt: cursors are signed with keys derived from them, so that the two uses never meet.
    secrets = [secret.reveal() for _, secret in load_settings().secret_keys] or [_FIXED_KEY]
    return tuple(hmac.digest(secret, b"stemmadb.paging cursor", "sha256") for secret in secrets)
