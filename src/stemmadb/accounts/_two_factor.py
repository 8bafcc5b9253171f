"""Second factors: the secret, encrypted, and the codes for the day when it is lost."""

import base64
import hmac
import secrets
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy.orm import Session

from stemmadb import _secrets
from stemmadb._secrets import Place
from stemmadb.accounts import _security_events
from stemmadb.accounts._credentials import log
from stemmadb.accounts.data import TwoFactorSetup
from stemmadb.accounts.entities import MfaSettings, User
from stemmadb.accounts.vocabularies import MfaMethod, SecurityEventType
from stemmadb.entity import Id, parse_id, uuid7
from stemmadb.errors import NotFoundError, ValidationError
from stemmadb.query import query, sql, sql_rows

_CODES = 10
_CODE_BYTES = 10
_LONGEST_SECRET = 1024

_ENABLE = sql(
    User,
    """
    UPDATE stemma.users SET two_factor_secret = :secret, two_factor_enabled = true
     WHERE id = :id AND deleted_at IS NULL
    RETURNING {columns}
    """,
)
_SETTINGS = sql(
    MfaSettings,
    """
    INSERT INTO stemma.mfa_settings (id, user_id, method, backup_code_hashes, enabled_at)
    VALUES (:id, :user_id, CAST(:method AS stemma.mfa_method), CAST(:hashes AS bytea[]), now())
    ON CONFLICT (user_id) DO UPDATE
       SET method = excluded.method, backup_code_hashes = excluded.backup_code_hashes, enabled_at = now(), last_used_at = NULL
    RETURNING {columns}
    """,
)


@query
def enable_two_factor(session: Session, user_id: Id, secret: SecretStr, *, method: MfaMethod = MfaMethod.TOTP) -> TwoFactorSetup:
    """
    Give a live user a second factor, in the place of the one before, and ten backup codes, which are shown this once.

    The secret is stored encrypted, and moves to no other row; of the codes, HMACs. Writes a security event.

    Args:
        session: the caller's session; needs no workspace.
        user_id: whose.
        secret: what the codes are computed from; up to 1024 characters. Ask for a code before: a user who mistyped it is locked out.
        method: how the factor reaches the user.

    Raises:
        ConfigurationError: STEMMADB_SECRET_KEYS holds no key.
        MissingDependencyError: the extra ``auth`` is not installed.
        NotFoundError: no live user has this id.
        ValidationError: an empty or long secret, or one that is no SecretStr; nothing was sent.
    """
    key, text = parse_id(user_id, "User"), _checked_secret(secret)
    sealed = _secrets.encrypt(text, _place(key))
    codes = [_new_code() for _ in range(_CODES)]
    newest = _code_keys()[0]
    with session.begin_nested():
        if _ENABLE.write(session, id=key, secret=sealed) is None:
            raise NotFoundError("User", user_id)
        hashes = [_code_digest(newest, key, code) for code in codes]
        settings = _SETTINGS.write_all(session, id=uuid7(), user_id=key, method=MfaMethod(method).value, hashes=hashes)[0]
        _security_events.record(session, SecurityEventType.TWO_FACTOR_ENABLED, key, details={"method": settings.method})
    log.info("second factor enabled", extra={"user_id": str(key)})
    return TwoFactorSetup(settings, [SecretStr(code) for code in codes])


_READ_SECRET = sql_rows("SELECT two_factor_secret FROM stemma.users WHERE id = :id AND two_factor_enabled AND deleted_at IS NULL")


@query
def get_two_factor_secret(session: Session, user_id: Id) -> SecretStr:
    """
    Return the secret of a live user's second factor, decrypted, to compare a code with.

    Raises:
        ConfigurationError: STEMMADB_SECRET_KEYS does not hold the key, or the stored text was altered or moved here.
        MissingDependencyError: the extra ``auth`` is not installed.
        NotFoundError: no live user with a second factor has this id.
    """
    key = parse_id(user_id, "User")
    stored = _READ_SECRET.scalar(session, id=key)
    if stored is None:
        raise NotFoundError("User with a second factor", user_id)
    return SecretStr(_secrets.decrypt(stored, _place(key)))


_DISABLE = sql(
    User,
    """
    UPDATE stemma.users SET two_factor_secret = NULL, two_factor_enabled = false
     WHERE id = :id AND deleted_at IS NULL
    RETURNING {columns}
    """,
)
_FORGET = sql_rows("DELETE FROM stemma.mfa_settings WHERE user_id = :id")


@query
def disable_two_factor(session: Session, user_id: Id) -> None:
    """
    Take a live user's second factor away, with the backup codes; twice is as once. Writes a security event.

    Raises:
        NotFoundError: no live user has this id.
    """
    key = parse_id(user_id, "User")
    if _DISABLE.write(session, id=key) is None:
        raise NotFoundError("User", user_id)
    if _FORGET.run(session, id=key):
        _security_events.record(session, SecurityEventType.TWO_FACTOR_DISABLED, key)
        log.info("second factor disabled", extra={"user_id": str(key)})


# Of two callers at once the second waits for the row, and finds the code gone.
_CONSUME = sql_rows(
    """
    UPDATE stemma.mfa_settings
       SET last_used_at = now(),
           backup_code_hashes = ARRAY(SELECT kept.digest FROM unnest(backup_code_hashes) AS kept (digest)
                                       WHERE kept.digest <> ALL (CAST(:hashes AS bytea[])))
      FROM stemma.users
     WHERE users.id = mfa_settings.user_id AND users.id = :user_id AND users.status = 'ACTIVE'
       AND mfa_settings.backup_code_hashes && CAST(:hashes AS bytea[])
    """
)


@query
def consume_backup_code(session: Session, user_id: Id, code: SecretStr) -> bool:
    """
    Return whether this is a backup code of an active user, and take it away. One statement: a code works once, also concurrently.

    Count what is wrong with ``record_failed_login``.

    Args:
        session: the caller's session; needs no workspace.
        user_id: whose.
        code: as it was typed: letter case, spaces and hyphens do not count.

    Raises:
        ConfigurationError: STEMMADB_SECRET_KEYS holds no key.
    """
    try:
        key = parse_id(user_id, "User")
    except NotFoundError:
        return False
    hashes = [_code_digest(secret, key, code.get_secret_value()) for secret in _code_keys()]
    found = _CONSUME.run(session, user_id=key, hashes=hashes) == 1
    if found:
        log.info("backup code used", extra={"user_id": str(key)})
    return found


def _place(user_id: UUID) -> Place:
    return Place("users", "two_factor_secret", user_id)


def _checked_secret(secret: SecretStr) -> str:
    if not isinstance(secret, SecretStr):
        raise ValidationError("secret is a pydantic SecretStr, which no log and no traceback shows", field="secret")
    text = secret.get_secret_value()
    if not 1 <= len(text) <= _LONGEST_SECRET or not text.isascii():
        raise ValidationError(f"secret has 1 to {_LONGEST_SECRET} ASCII characters", field="secret")
    return text


def _new_code() -> str:
    """Return 80 random bits as people can copy them: four groups of four letters and digits."""
    text = base64.b32encode(secrets.token_bytes(_CODE_BYTES)).decode()
    return "-".join(text[start : start + 4] for start in range(0, 16, 4))


def _code_keys() -> list[bytes]:
    return [_secrets.subkey(key.reveal(), "backup codes") for _, key in _secrets.secret_keys()]


def _code_digest(key: bytes, user_id: UUID, code: str) -> bytes:
    normal = "".join(code.split()).replace("-", "").upper()
    # "replace": half a character is in no code.
    return hmac.digest(key, f"{user_id}/{normal}".encode(errors="replace"), "sha256")
