"""Where the database is and how it is used, read from the environment once, on request, never at import."""

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import pydantic
from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import URL

from stemmadb._urls import masked, parse_url, read_url
from stemmadb.errors import ConfigurationError

__all__ = ["Settings", "load_settings", "SecretBytes", "KeyRing"]


class SecretBytes:
    """Bytes that no repr, log or dump shows."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """Return the bytes themselves."""
        return self._value

    def __repr__(self) -> str:
        return "SecretBytes('**********')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretBytes) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


KeyRing = tuple[tuple[str, SecretBytes], ...]
"""Keys with their ids, newest first: the first one writes, every one reads."""


def _parse_keys(value: object) -> object:
    if not isinstance(value, str):
        return value
    keys: list[tuple[str, SecretBytes]] = []
    for item in filter(None, (part.strip() for part in value.split(","))):
        name, colon, encoded = item.partition(":")
        try:
            raw = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if not colon or not name or len(raw) < 16:
            message = "expected id:base64,id:base64 with at least 16 bytes behind each id"
            raise ValueError(message)
        keys.append((name, SecretBytes(raw)))
    if len({name for name, _ in keys}) != len(keys):
        message = "two keys have the same id"
        raise ValueError(message)
    return tuple(keys)


def _parse_versions(value: object) -> object:
    if not isinstance(value, str):
        return value
    versions: dict[str, int] = {}
    for item in filter(None, (part.strip() for part in value.split(","))):
        name, _, version = (part.strip() for part in item.partition(":"))
        if not name.isidentifier() or not (version.isascii() and version.isdecimal()):
            message = "expected names of documents with versions: DefinitionContent:1,RunConfig:1"
            raise ValueError(message)
        if name in versions:
            message = f"{name} stands there twice"
            raise ValueError(message)
        versions[name] = int(version)
    return tuple(versions.items())


def _parse_url(value: object) -> object:
    if not isinstance(value, str | URL):
        return value
    try:
        parse_url(value)
        # With the parameters that libpq does not know: what they say is asked for by whoever connects.
        return read_url(value)
    except ConfigurationError as error:
        # As pydantic knows it, so that the message names the variable.
        raise ValueError(str(error)) from None


def _parse_direct_url(value: object) -> object:
    found = _parse_url(value)
    return parse_url(found).url if isinstance(found, URL) else found


_Url = Annotated[URL | None, BeforeValidator(_parse_url)]
_DirectUrl = Annotated[URL | None, BeforeValidator(_parse_direct_url)]
_Keys = Annotated[KeyRing, NoDecode, BeforeValidator(_parse_keys)]
_Versions = Annotated[tuple[tuple[str, int], ...], NoDecode, BeforeValidator(_parse_versions)]


class Settings(BaseSettings):
    """
    Everything that the environment can say, as one frozen value.

    ``Settings()`` reads the environment; keyword arguments win over it. Passwords and keys are masked in the repr.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        arbitrary_types_allowed=True,
        populate_by_name=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    database_url: _Url = Field(default=None, validation_alias="DATABASE_URL")
    """Run-time connections, through a pooler if there is one; None: the embedded server."""
    direct_database_url: _DirectUrl = Field(default=None, validation_alias="DIRECT_URL")
    """Migrations, as the owner and past any pooler; None: ``database_url``, with a warning."""
    pool_min: int = Field(default=5, ge=0, le=1000, validation_alias="DATABASE_POOL_MIN")
    """Connections kept open, of those that were needed once; 0 is as 1. No more than ``pool_max``, unless it is given."""
    pool_max: int = Field(default=20, ge=2, le=1000, validation_alias="DATABASE_POOL_MAX")
    """Connections open at most. At least 2: what must survive a rollback is written on a second one."""
    pool_timeout_s: float = Field(default=5.0, gt=0, le=86_400, validation_alias="DATABASE_POOL_TIMEOUT_S")
    """Seconds to wait for a connection before PoolTimeoutError."""
    connect_timeout_ms: int = Field(default=5000, ge=1000, le=3_600_000, validation_alias="DATABASE_CONNECT_TIMEOUT_MS")
    """Milliseconds for a connection attempt; libpq counts whole seconds, two at least, so it is rounded up."""
    query_timeout_ms: int = Field(default=0, ge=0, lt=2**31, validation_alias="QUERY_TIMEOUT_MS")
    """Milliseconds per statement, as ``SET LOCAL statement_timeout``; 0: none."""
    slow_query_ms: int = Field(default=200, ge=0, validation_alias="SLOW_QUERY_MS")
    """Statements that take longer are logged as warnings; 0: none is."""
    workspace: str | None = Field(default=None, validation_alias="STEMMADB_WORKSPACE")
    """Slug or id: the default workspace of sessions."""
    data_dir: Path | None = Field(default=None, validation_alias="STEMMADB_DATA_DIR")
    """Where the embedded cluster lives; None: the per-user data folder."""
    log_queries: bool = Field(default=False, validation_alias="STEMMADB_LOG_QUERIES")
    """Whether every statement is logged at DEBUG, without its parameters."""
    environment: Literal["development", "test", "production"] = Field(default="development", validation_alias="STEMMADB_ENV")
    """``production`` makes destructive commands refuse."""
    write_versions: _Versions = Field(default=(), validation_alias="STEMMADB_WRITE_VERSIONS")
    """Documents that are stored at an older version than the newest, for the whole process: ``DefinitionContent:1,RunConfig:1``."""
    token_peppers: _Keys = Field(default=(), validation_alias="STEMMADB_TOKEN_PEPPERS", repr=False)
    """Peppers of API key digests, newest first; an id is a whole number, stored as ``pepper_version``."""
    secret_keys: _Keys = Field(default=(), validation_alias="STEMMADB_SECRET_KEYS", repr=False)
    """Keys that sign cursors and encrypt stored secrets, newest first."""

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, masked(value) if isinstance(value, URL) else value

    @pydantic.model_validator(mode="after")
    def _pool_bounds(self) -> Self:
        if "pool_min" not in self.model_fields_set:
            # Whoever only says how many there are at most need not know how many are kept by default.
            object.__setattr__(self, "pool_min", min(self.pool_min, self.pool_max))
        if self.pool_min > self.pool_max:
            message = f"DATABASE_POOL_MIN ({self.pool_min}) is above DATABASE_POOL_MAX ({self.pool_max})"
            raise ValueError(message)
        for name, _ in self.token_peppers:
            if not name.isdecimal() or int(name) > 32767:
                message = "the id of a pepper in STEMMADB_TOKEN_PEPPERS is a whole number up to 32767"
                raise ValueError(message)
        return self

    @classmethod
    def serverless(cls, **overrides: Any) -> Self:
        """Return settings for short-lived processes behind a pooler: one connection is kept, at most 2 are open."""
        return cls(**{"pool_min": 0, "pool_max": 2, "connect_timeout_ms": 3000, **overrides})


_VARIABLES = {name: field.validation_alias for name, field in Settings.model_fields.items() if isinstance(field.validation_alias, str)}


def load_settings() -> Settings:
    """
    Read the environment.

    Raises:
        ConfigurationError: a variable is malformed; the message names it and not its value.
    """
    try:
        return Settings()
    except pydantic.ValidationError as error:
        # The input may hold a password: only the variable's name and the rule are repeated.
        reasons = []
        for item in error.errors():
            name = str(item["loc"][0]) if item["loc"] else "settings"
            reasons.append(f"{_VARIABLES.get(name, name)}: {item['msg'].removeprefix('Value error, ')}")
        raise ConfigurationError("; ".join(reasons)) from None
