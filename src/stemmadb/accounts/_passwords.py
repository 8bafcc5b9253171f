"""
Passwords: what one may be, and how it is hashed and compared.

Argon2id with 46 MiB, one pass and one lane. bcrypt hashes of earlier systems are compared too. The work is done off the event loop, by as
many threads at once as there are processors: each holds 46 MiB.
"""

import os
import re
import threading
import unicodedata
from typing import TYPE_CHECKING

from pydantic import SecretStr

from stemmadb.aio import in_thread
from stemmadb.errors import MissingDependencyError, ValidationError

if TYPE_CHECKING:
    from argon2 import PasswordHasher

LONGEST = 1024
SHORTEST = 15
SHORTEST_WITH_SECOND_FACTOR = 8

_MEMORY_KIB = 46 * 1024
_PASSES = 1
_LANES = 1
# 19 MiB and two passes are the least; fewer passes take more memory, as ours do.
_LEAST_MEMORY_KIB = 19 * 1024
_LEAST_WORK = 2 * _LEAST_MEMORY_KIB

_ARGON2 = re.compile(r"\$argon2id\$v=\d+\$m=(\d{1,9}),t=(\d{1,9}),p=(\d{1,9})\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+")
_BCRYPT = re.compile(r"\$2[aby]\$\d\d\$[A-Za-z0-9./]{53}")
# bcrypt looks at no more, so that a longer password would be as good as its beginning.
_BCRYPT_BYTES = 72

# Of nobody's password: whoever is unknown costs what somebody costs.
_NOBODY = f"$argon2id$v=19$m={_MEMORY_KIB},t={_PASSES},p={_LANES}$bm9ib2R5J3Mgc2FsdC4uLg$bm9ib2R5J3MgcGFzc3dvcmQgaGFzaCwgMzIgYnl0ZXM"

_GATE = threading.BoundedSemaphore(os.cpu_count() or 1)


def require_extra() -> None:
    """
    Ask for the libraries before anything is done.

    Raises:
        MissingDependencyError: the extra ``auth`` is not installed.
    """
    try:
        import argon2  # noqa: F401
        import bcrypt  # noqa: F401
    except ImportError:
        raise MissingDependencyError("auth") from None


def checked_password(password: SecretStr, *, second_factor: bool, field: str = "password") -> str:
    """
    Return a new password as it is hashed: in Unicode's form NFKC, so that it is the same on every keyboard.

    Raises:
        ValidationError: it is too short or too long, or holds NUL or half a character. The message does not repeat it.
    """
    shortest = SHORTEST_WITH_SECOND_FACTOR if second_factor else SHORTEST
    text = _revealed(password, field)
    normal = _normalized(text)
    if normal is None or len(normal) < shortest:
        raise ValidationError(f"a password has {shortest} to {LONGEST} characters, and no NUL", field=field)
    return normal


def hash_password(normal: str) -> str:
    """
    Return the PHC string of a password that was checked. Takes some 50 ms, off the event loop.

    Raises:
        MissingDependencyError: the extra ``auth`` is not installed.
    """
    require_extra()
    return in_thread(_hash, normal)


def matches(stored: str | None, password: SecretStr) -> bool:
    """
    Return whether this is the password of a stored hash. Takes some 50 ms, off the event loop, whatever the answer.

    Args:
        stored: the hash; None for whoever has none, which costs the same and is False.
        password: as it was typed.

    Raises:
        MissingDependencyError: the extra ``auth`` is not installed.
        ValidationError: ``password`` is no SecretStr.
    """
    require_extra()
    return in_thread(_matches, stored, _revealed(password, "password"))


def normalized(password: SecretStr) -> str:
    """Return a password that has matched as it is hashed."""
    return unicodedata.normalize("NFKC", password.get_secret_value())


def is_current(stored: str) -> bool:
    """Return whether a hash is one that this release would make."""
    found = _ARGON2.fullmatch(stored)
    return found is not None and tuple(map(int, found.groups())) == (_MEMORY_KIB, _PASSES, _LANES)


def is_acceptable(stored: str) -> bool:
    """Return whether a hash is bcrypt, or Argon2id with no less work than 19 MiB and two passes."""
    found = _ARGON2.fullmatch(stored)
    if found is None:
        return _BCRYPT.fullmatch(stored) is not None
    memory, passes, lanes = map(int, found.groups())
    return memory >= _LEAST_MEMORY_KIB and memory * passes >= _LEAST_WORK and lanes >= 1


def _revealed(password: SecretStr, field: str) -> str:
    if not isinstance(password, SecretStr):
        raise ValidationError("a password is a pydantic SecretStr, which no log and no traceback shows", field=field)
    return password.get_secret_value()


def _normalized(text: str) -> str | None:
    """Return the text in form NFKC; None when it is nobody's password."""
    # Before it is normalised, which makes long texts longer.
    if len(text) > LONGEST or "\x00" in text:
        return None
    normal = unicodedata.normalize("NFKC", text)
    try:
        normal.encode()
    except UnicodeEncodeError:
        return None
    return normal if len(normal) <= LONGEST else None


def _hasher() -> "PasswordHasher":
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=_PASSES, memory_cost=_MEMORY_KIB, parallelism=_LANES, hash_len=32, salt_len=16)


def _hash(normal: str) -> str:
    with _GATE:
        return _hasher().hash(normal)


def _matches(stored: str | None, typed: str) -> bool:
    normal = _normalized(typed)
    with _GATE:
        if stored is None or normal is None or not is_acceptable(stored):
            _matches_argon2(_NOBODY, normal or "")
            return False
        return _matches_argon2(stored, normal) if stored.startswith("$argon2id$") else _matches_bcrypt(stored, typed)


def _matches_argon2(stored: str, normal: str) -> bool:
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        return _hasher().verify(stored, normal)
    except (VerificationError, InvalidHashError):
        return False


def _matches_bcrypt(stored: str, typed: str) -> bool:
    import bcrypt

    # As it was typed: earlier systems hashed it so.
    raw = typed.encode()
    return len(raw) <= _BCRYPT_BYTES and bcrypt.checkpw(raw, stored.encode())
