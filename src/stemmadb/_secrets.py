"""
Secrets that must be read back: AES-256-GCM under the keys of STEMMADB_SECRET_KEYS.

    stored = encrypt("JBSWY3DP...", Place("users", "two_factor_secret", user.id))
    decrypt(stored, Place("users", "two_factor_secret", user.id))

A ciphertext belongs to one row: its place is authenticated with it, so that it does not open in another row, column or workspace.
"""

import base64
import binascii
import hmac
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from stemmadb.errors import ConfigurationError, MissingDependencyError
from stemmadb.settings import KeyRing, load_settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_VERSION = "v1"
# Random, 96 bits: one key is good for 2^32 secrets.
_NONCE = 12
_TAG = 16


@dataclass(frozen=True, slots=True)
class Place:
    """Where a ciphertext is stored."""

    table: str
    column: str
    row_id: UUID
    workspace_id: UUID | None = None
    """None: the table belongs to no workspace."""

    def __str__(self) -> str:
        return f"{self.table}.{self.column} of {self.row_id}"

    @property
    def authenticated(self) -> bytes:
        """What is authenticated with the ciphertext; neither part can hold the separator."""
        return f"{self.table}/{self.column}/{self.workspace_id or '-'}/{self.row_id}".encode()


def encrypt(secret: str, place: Place, keys: KeyRing | None = None) -> str:
    """
    Return the text that is stored: ``v1:<key id>:<base64 of nonce, ciphertext and tag>``, under the newest key.

    Args:
        secret: what is to be kept.
        place: where it will be stored.
        keys: newest first; None reads the environment.

    Raises:
        ConfigurationError: STEMMADB_SECRET_KEYS holds no key.
        MissingDependencyError: the extra ``auth`` is not installed.
    """
    name, key = (keys or secret_keys())[0]
    nonce = os.urandom(_NONCE)
    sealed = _cipher(key.reveal()).encrypt(nonce, secret.encode(), place.authenticated)
    return f"{_VERSION}:{name}:{base64.b64encode(nonce + sealed).decode()}"


def decrypt(stored: str, place: Place, keys: KeyRing | None = None) -> str:
    """
    Return the secret of a stored text. Any key of the ring opens what it closed.

    Args:
        stored: what ``encrypt`` returned.
        place: where it is stored.
        keys: in any order; None reads the environment.

    Raises:
        ConfigurationError: the key is not in STEMMADB_SECRET_KEYS, or is another one of that name; or the text was altered, or moved
            here from another row.
        MissingDependencyError: the extra ``auth`` is not installed.
    """
    from_key, sealed = _parse(stored, place)
    key = next((key.reveal() for name, key in keys or secret_keys() if name == from_key), None)
    if key is None:
        raise ConfigurationError(f"{place} was encrypted with the key {from_key!r}, which STEMMADB_SECRET_KEYS does not hold: add it again")
    cipher = _cipher(key)
    from cryptography.exceptions import InvalidTag

    try:
        return cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], place.authenticated).decode()
    except InvalidTag:
        raise _unreadable(place, f"the key {from_key!r} is another one than it was written with, or it was altered or moved here") from None


def secret_keys() -> KeyRing:
    """
    Return the keys of STEMMADB_SECRET_KEYS, newest first, at least one.

    Raises:
        ConfigurationError: there is none.
    """
    keys = load_settings().secret_keys
    if not keys:
        raise ConfigurationError("secrets are stored encrypted: set STEMMADB_SECRET_KEYS to id:base64, with 32 random bytes behind the id")
    return keys


def require_extra() -> None:
    """
    Refuse to go on without what encrypts.

    Raises:
        MissingDependencyError: the extra ``auth`` is not installed.
    """
    _cipher(bytes(32))


def subkey(key: bytes, purpose: str) -> bytes:
    """Return the 32 bytes that stand for a key in one use: the same keys sign cursors, and no key does two things."""
    return hmac.digest(key, f"stemmadb {purpose} v1".encode(), "sha256")


def _parse(stored: str, place: Place) -> tuple[str, bytes]:
    version, _, rest = stored.partition(":")
    name, _, encoded = rest.partition(":")
    try:
        sealed = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        sealed = b""
    if version != _VERSION or len(sealed) < _NONCE + _TAG:
        raise _unreadable(place, "it is no ciphertext of this release")
    return name, sealed


def _unreadable(place: Place, reason: str) -> ConfigurationError:
    return ConfigurationError(f"{place} cannot be decrypted: {reason}")


def _cipher(key: bytes) -> "AESGCM":
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise MissingDependencyError("auth") from None
    return AESGCM(subkey(key, "secrets"))
