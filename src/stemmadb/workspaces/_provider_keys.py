"""
Configurations and their keys, in and out. Import these functions from ``stemmadb.workspaces.providers``.

What is encrypted is bound to the id of its row, so that an upsert has to know the row before it encrypts.
"""

import logging
from typing import Any, Final
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import update as sa_update
from sqlalchemy.orm import Session

from stemmadb import _writes as writes
from stemmadb._secrets import Place, decrypt, encrypt
from stemmadb.accounts import _audit_rows
from stemmadb.accounts.vocabularies import AuditAction
from stemmadb.data import checked_text
from stemmadb.documents import dump_json
from stemmadb.entity import Id, parse_id
from stemmadb.errors import ConflictError, NotFoundError, ValidationError
from stemmadb.query import read, sql, sql_rows, tenant_query
from stemmadb.tenancy import workspace_of
from stemmadb.workspaces.data import ProviderConfigUpdate
from stemmadb.workspaces.entities import AIProviderConfig
from stemmadb.workspaces.vocabularies import AIProvider

# The private modules of the pack log under the name that callers import.
logger: Final = logging.getLogger("stemmadb.workspaces.providers")

_TRIES = 5
# Of a shorter key the last four characters would give too much away.
_SHORTEST_WITH_HINT = 12

_FIND_KEY = sql_rows(
    "SELECT id FROM stemma.ai_provider_configs WHERE workspace_id = :workspace_id AND provider = :provider AND label = :label"
)
# Nothing happens on a conflict: the row of whoever was first is changed then, in a transaction that is still usable.
_INSERT = sql(
    AIProviderConfig,
    """
    INSERT INTO stemma.ai_provider_configs (workspace_id, id, provider, label, api_key, api_key_hint, base_url, default_model, is_enabled,
            daily_token_limit, settings)
    VALUES (:workspace_id, :id, :provider, :label, :api_key, :api_key_hint, :base_url, :default_model, :is_enabled,
            :daily_token_limit, CAST(:settings AS jsonb))
    ON CONFLICT (workspace_id, provider, label) DO NOTHING
    RETURNING {columns}
    """,
)


@tenant_query
def upsert(
    session: Session,
    provider: AIProvider,
    *,
    label: str = "default",
    api_key: SecretStr | None = None,
    data: ProviderConfigUpdate | None = None,
) -> AIProviderConfig:
    """
    Make the configuration of a provider with this label, or change the one that is there. Two statements.

    A new key is stored encrypted, with its last four characters to recognise it by (from 12 characters on), and forgets what was found
    out about the old one (``last_validated_at``, ``last_error``).

    Args:
        session: the caller's session, in a workspace.
        provider: whose models.
        label: tells several configurations of one provider apart; together with the provider it is the key.
        api_key: the provider's key; None leaves what is stored.
        data: what else is said or changes; absent fields stay, None clears. None changes nothing.

    Raises:
        ConflictError: others made and deleted it again and again meanwhile.
        ConfigurationError: a key is given, and STEMMADB_SECRET_KEYS holds none to encrypt it with.
        MissingDependencyError: a key is given, and the extra ``auth`` is not installed.
        UnknownSchemaVersionError: a newer release wrote the settings, which are not overwritten.
        ValidationError: an empty key, a blank label, or a field that cannot be; nothing was sent.
    """
    kind, secret = checked_provider(provider), None if api_key is None else _checked_key(api_key)
    given = {} if data is None else ProviderConfigUpdate.of(data).changes()
    # Made as an entity first: its rules are those of the columns.
    draft = AIProviderConfig(provider=kind, label=label, **given)
    for _ in range(_TRIES):
        found: UUID | None = _FIND_KEY.scalar(session, provider=kind.value, label=label)
        if found is None:
            config = _insert(session, draft, secret)
        else:
            config = _update(session, found, {**given, **_encrypted(session, found, secret)})
        if config is not None:
            logger.info("provider configured: %s", kind.value, extra={"config_id": str(config.id), "new_key": secret is not None})
            return config
    raise ConflictError("AIProviderConfig", ("provider", "label"), "the configuration is made and deleted all the time: try again")


def _insert(session: Session, draft: AIProviderConfig, secret: str | None) -> AIProviderConfig | None:
    """Return the new configuration; None when somebody made one of that key meanwhile."""
    encrypted = _encrypted(session, draft.id, secret)
    return _INSERT.write(
        session,
        id=draft.id,
        provider=draft.provider,
        label=draft.label,
        api_key=encrypted.get("api_key"),
        api_key_hint=encrypted.get("api_key_hint"),
        base_url=draft.base_url,
        default_model=draft.default_model,
        is_enabled=draft.is_enabled,
        daily_token_limit=draft.daily_token_limit,
        settings=dump_json(draft.settings),
    )


def _update(session: Session, key: UUID, changes: dict[str, Any]) -> AIProviderConfig | None:
    """Return the changed configuration; None when somebody deleted it meanwhile."""
    if not changes:
        return read(session, AIProviderConfig, key)
    where = [AIProviderConfig.id == key]
    statement = sa_update(AIProviderConfig).where(*where).values(**changes).returning(AIProviderConfig)
    config = session.scalars(statement, execution_options=writes.FRESH).one_or_none()
    if config is None:
        refused = writes.refusal(session, AIProviderConfig, where, key, changes, None)
        if not isinstance(refused, NotFoundError):
            raise refused
    return config


def _encrypted(session: Session, key: UUID, secret: str | None) -> dict[str, Any]:
    """Return the columns of a new key, for the row of this id; none for None."""
    if secret is None:
        return {}
    hint = secret[-4:] if len(secret) >= _SHORTEST_WITH_HINT else None
    return {"api_key": encrypt(secret, _place(session, key)), "api_key_hint": hint, "last_validated_at": None, "last_error": None}


def _place(session: Session, key: UUID) -> Place:
    return Place("ai_provider_configs", "api_key", key, workspace_of(session))


def _checked_key(api_key: SecretStr) -> str:
    if not isinstance(api_key, SecretStr):
        raise ValidationError("api_key is a SecretStr, so that nothing shows it", field="api_key")
    secret = checked_text(api_key.get_secret_value(), "api_key")
    if not secret.strip():
        raise ValidationError("api_key is empty: leave it out to keep what is stored", field="api_key")
    return secret


_CIPHERTEXT = sql_rows("SELECT api_key FROM stemma.ai_provider_configs WHERE workspace_id = :workspace_id AND id = :id")


@tenant_query
def reveal_key(session: Session, config_id: Id) -> SecretStr:
    """
    Return the provider's key: the only way to it.

    That it was asked for is in the audit trail first (REVEAL_KEY), in a transaction of its own that outlives the caller's rollback.

    Raises:
        ConfigurationError: STEMMADB_SECRET_KEYS does not hold the key that it was encrypted with; or the ciphertext was altered, or
            moved here from another row.
        ConflictError: no key is stored.
        MissingDependencyError: the extra ``auth`` is not installed.
        NotFoundError: no configuration of this workspace has this id.
    """
    key = parse_id(config_id, "AIProviderConfig")
    row = _CIPHERTEXT.first(session, id=key)
    if row is None:
        raise missing(config_id)
    if row.api_key is None:
        raise ConflictError("AIProviderConfig", ("api_key",), "no API key is stored: give one with upsert")
    _audit_rows.insert_apart(session, AuditAction.REVEAL_KEY, "ai_provider_configs", str(key))
    logger.info("provider key revealed", extra={"config_id": str(key)})
    return SecretStr(decrypt(row.api_key, _place(session, key)))


def checked_provider(provider: AIProvider) -> AIProvider:
    """
    Return the provider, also when its name was given.

    Raises:
        ValidationError: there is none of this name.
    """
    try:
        return AIProvider(provider)
    except ValueError:
        raise ValidationError(f"provider is one of {', '.join(AIProvider)}", field="provider") from None


def missing(config_id: Id) -> NotFoundError:
    """Log that there is no such configuration in the session's workspace, and return the error that says so."""
    logger.warning("provider configuration not found", extra={"config_id": str(config_id)})
    return NotFoundError("AIProviderConfig", config_id)
