"""
The keys that a workspace brings for AI providers, and what it uses them for.

A key is stored encrypted, bound to its row, and comes back through ``reveal_key`` alone: no list, repr, dump or log has it, nor its
ciphertext. The keys that encrypt are those of STEMMADB_SECRET_KEYS; the ciphers come with the extra ``auth``.
"""

import logging
from datetime import date, datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.util import identity_key

from stemmadb._exports import adopt
from stemmadb.data import checked_text
from stemmadb.documents import OnInvalid
from stemmadb.entity import Id, parse_id
from stemmadb.errors import NotFoundError, QuotaExceededError, ValidationError
from stemmadb.paging import Page, page
from stemmadb.query import read, sql, sql_rows, tenant_query
from stemmadb.tenancy import workspace_of
from stemmadb.workspaces._provider_keys import checked_provider, missing, reveal_key, upsert
from stemmadb.workspaces.data import ProviderConfigUpdate
from stemmadb.workspaces.entities import AIProviderConfig
from stemmadb.workspaces.vocabularies import AIProvider

__all__ = [
    "AIProvider",
    "ProviderConfigUpdate",
    "upsert",
    "get",
    "find",
    "get_default",
    "set_default",
    "reveal_key",
    "list_all",
    "consume_tokens",
    "mark_validated",
    "delete",
]

logger: Final = logging.getLogger(__name__)

# ----------------------------------------------------------------------------------------------------------------- reading


@tenant_query
def get(session: Session, config_id: Id) -> AIProviderConfig:
    """
    Return a configuration by id, without its key.

    Raises:
        NotFoundError: no configuration of this workspace has this id.
    """
    config = find(session, config_id)
    if config is None:
        raise missing(config_id)
    return config


@tenant_query
def find(session: Session, config_id: Id) -> AIProviderConfig | None:
    """Return a configuration by id, without its key, or None."""
    try:
        key = parse_id(config_id, "AIProviderConfig")
    except NotFoundError:
        return None
    logger.debug("reading provider configuration", extra={"config_id": str(key)})
    return read(session, AIProviderConfig, key)


_DEFAULT = sql(
    AIProviderConfig,
    """
    SELECT {columns}
      FROM stemma.ai_provider_configs
     WHERE ai_provider_configs.workspace_id = :workspace_id AND ai_provider_configs.is_enabled
       AND ai_provider_configs.provider = coalesce(CAST(:provider AS text), ai_provider_configs.provider)
       AND (ai_provider_configs.is_default OR (CAST(:provider AS text) IS NOT NULL AND ai_provider_configs.label = 'default'))
     ORDER BY ai_provider_configs.is_default DESC
     LIMIT 1
    """,
)


@tenant_query
def get_default(session: Session, provider: AIProvider | None = None) -> AIProviderConfig:
    """
    Return the configuration to use when none is named. One statement.

    Args:
        session: the caller's session, in a workspace.
        provider: of this one, the workspace's default if it is of this provider, else the one labelled ``default``; None: the
            workspace's default.

    Raises:
        NotFoundError: there is none, or it is disabled.
    """
    kind = None if provider is None else checked_provider(provider).value
    # As it is now, also when the session has read it before.
    config = _DEFAULT.write(session, provider=kind)
    if config is None:
        raise missing(kind or "default")
    return config


@tenant_query
def list_all(
    session: Session,
    *,
    enabled_only: bool = False,
    cursor: str | None = None,
    limit: int = 50,
    on_invalid: OnInvalid = "raise",
) -> Page[AIProviderConfig]:
    """
    Return the configurations, by provider, label; keys and their ciphertexts are not fetched.

    Args:
        session: the caller's session, in a workspace.
        enabled_only: whether disabled ones are left out.
        cursor: ``next_cursor`` of the page before; None starts at the first.
        limit: 1 to 200.
        on_invalid: what becomes of a configuration whose settings cannot be read: "raise" refuses the page, "skip" leaves it out (the page
            is shorter then), "raw" puts a RawDocument in their place.

    Raises:
        CorruptDocumentError, UnknownSchemaVersionError: settings cannot be read and on_invalid is "raise".
        InvalidCursorError: the cursor is not of this list.
    """
    statement = select(AIProviderConfig)
    if enabled_only:
        statement = statement.where(AIProviderConfig.is_enabled)
    order = [AIProviderConfig.provider, AIProviderConfig.label]
    return page(session, statement, order_by=order, cursor=cursor, limit=limit, on_invalid=on_invalid)


# ---------------------------------------------------------------------------------------------------------------- changing

# Of whoever changes the default, one at a time: the unique key would refuse the second, or both would wait for each other's rows.
_LOCK = sql_rows("SELECT 1 FROM stemma.workspaces WHERE id = :workspace_id FOR NO KEY UPDATE")
_CLEAR_DEFAULT = sql_rows(
    """
    UPDATE stemma.ai_provider_configs SET is_default = false
     WHERE workspace_id = :workspace_id AND is_default AND id <> :id
    RETURNING id, updated_at
    """
)
_SET_DEFAULT = sql(
    AIProviderConfig,
    """
    UPDATE stemma.ai_provider_configs SET is_default = true
     WHERE ai_provider_configs.workspace_id = :workspace_id AND ai_provider_configs.id = :id
    RETURNING {columns}
    """,
)


@tenant_query
def set_default(session: Session, config_id: Id) -> AIProviderConfig:
    """
    Make a configuration the workspace's default, in the place of the one before. Locks the workspace row until the transaction ends.

    In a savepoint: a refused call leaves the default as it was.

    Raises:
        NotFoundError: no configuration of this workspace has this id.
    """
    key = parse_id(config_id, "AIProviderConfig")
    with session.begin_nested():
        _LOCK.run(session)
        cleared = _CLEAR_DEFAULT.first(session, id=key)
        config = _SET_DEFAULT.write(session, id=key)
        if config is None:
            raise missing(config_id)
    if cleared is not None:
        before = session.identity_map.get(identity_key(AIProviderConfig, (workspace_of(session), cleared.id)))
        if before is not None:
            set_committed_value(before, "is_default", False)
            set_committed_value(before, "updated_at", cleared.updated_at)
    logger.info("provider configuration is the default", extra={"config_id": str(key)})
    return config


# One UPDATE, so that concurrent callers add up, and none passes the limit on what another is about to use. A day that is over is not
# counted any more: what is reported late counts for the day that is on record.
_CONSUME = sql(
    AIProviderConfig,
    """
    UPDATE stemma.ai_provider_configs
       SET tokens_used_today = :count + CASE WHEN tokens_reset_on >= :on THEN tokens_used_today ELSE 0 END,
           tokens_reset_on = greatest(tokens_reset_on, :on)
     WHERE ai_provider_configs.workspace_id = :workspace_id AND ai_provider_configs.id = :id
       AND (daily_token_limit IS NULL OR :count <= daily_token_limit - CASE WHEN tokens_reset_on >= :on THEN tokens_used_today ELSE 0 END)
    RETURNING {columns}
    """,
)


@tenant_query
def consume_tokens(session: Session, config_id: Id, count: int, *, on: date) -> AIProviderConfig:
    """
    Count tokens against the daily limit: exact under concurrency, and nothing is counted when they do not fit. One UPDATE.

    The row stays locked until the transaction ends: count in a transaction of its own, not around a call of the model.

    Args:
        session: the caller's session, in a workspace.
        config_id: which configuration.
        count: how many, 0 or more.
        on: the day that they count for, in the caller's time zone. A later day than the one on record starts at 0; an earlier one, reported
            late, counts for the day on record.

    Returns:
        The configuration with what is used of the day.

    Raises:
        NotFoundError: no configuration of this workspace has this id.
        QuotaExceededError: more than the limit would be used; ``limit`` is the limit.
        ValidationError: a count that is no whole number from 0, or a day that is no date; nothing was sent.
    """
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count < 2**63:
        raise ValidationError("count is a whole number, 0 or more", field="count")
    if not isinstance(on, date) or isinstance(on, datetime):
        raise ValidationError("on is a date", field="on")
    key = parse_id(config_id, "AIProviderConfig")
    config = _CONSUME.write(session, id=key, count=count, on=on)
    if config is None:
        current = get(session, key)
        raise QuotaExceededError("tokens of the day", current.daily_token_limit)
    return config


_MARK_VALIDATED = sql(
    AIProviderConfig,
    """
    UPDATE stemma.ai_provider_configs SET last_validated_at = now(), last_error = :error
     WHERE ai_provider_configs.workspace_id = :workspace_id AND ai_provider_configs.id = :id
    RETURNING {columns}
    """,
)


@tenant_query
def mark_validated(session: Session, config_id: Id, *, error: str | None = None) -> AIProviderConfig:
    """
    Note that the key was tried just now, and how that went. One UPDATE.

    Args:
        session: the caller's session, in a workspace.
        config_id: which configuration.
        error: what the provider said, shown to whoever sees the configuration: without the key in it. None: it worked.

    Raises:
        NotFoundError: no configuration of this workspace has this id.
    """
    key = parse_id(config_id, "AIProviderConfig")
    config = _MARK_VALIDATED.write(session, id=key, error=None if error is None else checked_text(error, "error"))
    if config is None:
        raise missing(config_id)
    return config


_DELETE = sql_rows("DELETE FROM stemma.ai_provider_configs WHERE workspace_id = :workspace_id AND id = :id")


@tenant_query
def delete(session: Session, config_id: Id) -> None:
    """
    Remove a configuration and its key for good. If it was the default, there is none then.

    Raises:
        NotFoundError: no configuration of this workspace has this id.
    """
    key = parse_id(config_id, "AIProviderConfig")
    if _DELETE.run(session, id=key) == 0:
        raise missing(config_id)
    held = session.identity_map.get(identity_key(AIProviderConfig, (workspace_of(session), key)))
    if held is not None:
        session.expunge(held)
    logger.info("provider configuration deleted", extra={"config_id": str(key)})


adopt(globals())
