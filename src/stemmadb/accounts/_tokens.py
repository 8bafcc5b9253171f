"""Tokens of the form ``stm_<kind>_<env>_<id12>_<secret43><crc6>``: what a leak scanner can tell, and what a typo cannot pass."""

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass
from typing import Literal

from stemmadb.settings import KeyRing

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM = re.compile(r"(stm_[ksr]_(?:live|test)_[0-9A-Za-z]{12})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})")

Kind = Literal["k", "s", "r"]


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """A token in its parts."""

    text: str
    prefix: str
    """What is stored in the clear and looked up: everything before the secret."""

    @property
    def last_four(self) -> str:
        """What a person recognises a token by."""
        return self.text[-4:]


def generate(kind: Kind, *, live: bool) -> Token:
    """Return a new token: 71 bits of id, 256 of secret."""
    prefix = f"stm_{kind}_{'live' if live else 'test'}_{_random(12)}"
    body = f"{prefix}_{_random(43)}"
    return Token(body + _checksum(body), prefix)


def parse(text: str, kind: Kind) -> Token | None:
    """Return the token when form and checksum are right; nothing is looked up."""
    match = _FORM.fullmatch(text) if isinstance(text, str) else None
    if match is None or text[4] != kind or not hmac.compare_digest(match[3], _checksum(text[:-6])):
        return None
    return Token(text, match[1])


def digest(token: str, pepper: bytes | None) -> bytes:
    """Return the 32 bytes that are stored. The secret has 256 bits: a slow hash would add nothing."""
    raw = token.encode()
    return hashlib.sha256(raw).digest() if pepper is None else hmac.digest(pepper, raw, "sha256")


def newest_pepper(peppers: KeyRing) -> tuple[int | None, bytes | None]:
    """Return version and key of the pepper that new digests take; None and None without one."""
    return (int(peppers[0][0]), peppers[0][1].reveal()) if peppers else (None, None)


def pepper_of(peppers: KeyRing, version: int | None) -> bytes | None:
    """Return the key of a pepper version; None for a digest made without one, and for a version that is no longer known."""
    return next((key.reveal() for name, key in peppers if version is not None and int(name) == version), None)


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(body: str) -> str:
    value, digits = zlib.crc32(body.encode()), ""
    for _ in range(6):
        value, digit = divmod(value, 62)
        digits = _ALPHABET[digit] + digits
    return digits
