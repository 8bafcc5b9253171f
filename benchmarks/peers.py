"""The plain tables as users of SQLModel and of advanced-alchemy declare them, and the version of psycopg's rows."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlmodel
from sqlalchemy import Column, DateTime, ForeignKey, Integer, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from stemmadb.entity import uuid7

HAS_ALCHEMY = importlib.util.find_spec("advanced_alchemy") is not None


@dataclass(slots=True)
class Version:
    """What a floor makes of a row: no content, as the others leave it out too."""

    id: UUID
    parent_id: UUID | None
    name: str
    message: str | None
    version: int
    created_at: datetime
    updated_at: datetime


VERSION_COLUMNS = "id, parent_id, name, message, version, created_at, updated_at"

_version = Column("version", Integer, nullable=False)


class PlainDefinition(sqlmodel.SQLModel, table=True):
    """A definition in SQLModel, with SQLAlchemy's own version counter."""

    __tablename__ = "definitions"
    __table_args__ = {"schema": "plain"}
    __mapper_args__ = {"version_id_col": _version}

    id: UUID = sqlmodel.Field(default_factory=uuid7, primary_key=True)
    parent_id: UUID | None = sqlmodel.Field(default=None, foreign_key="plain.definitions.id", index=True)
    name: str
    content: dict[str, Any] = sqlmodel.Field(sa_type=JSONB)
    message: str | None = None
    version: int | None = sqlmodel.Field(default=None, sa_column=_version)
    created_at: datetime | None = sqlmodel.Field(
        default=None, sa_type=DateTime(timezone=True), sa_column_kwargs={"server_default": func.now()}
    )
    updated_at: datetime | None = sqlmodel.Field(
        default=None, sa_type=DateTime(timezone=True), sa_column_kwargs={"server_default": func.now(), "onupdate": func.now()}
    )


if HAS_ALCHEMY:
    with warnings.catch_warnings():
        # Of SQLAlchemy 2.1 it uses what that has deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        from advanced_alchemy.base import DefaultBase
        from advanced_alchemy.filters import LimitOffset as LimitOffset
        from advanced_alchemy.filters import OrderBy as OrderBy
        from advanced_alchemy.repository import SQLAlchemySyncRepository

    class AlchemyDefinition(DefaultBase):
        """A definition in advanced-alchemy, with SQLAlchemy's own version counter."""

        __tablename__ = "definitions"
        __table_args__ = {"schema": "plain"}  # noqa: RUF012

        id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
        parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("plain.definitions.id"), index=True)
        name: Mapped[str]
        content: Mapped[dict[str, Any]] = mapped_column(JSONB)
        message: Mapped[str | None]
        version: Mapped[int] = mapped_column()
        created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
        updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now(), onupdate=func.now())

        __mapper_args__ = {"version_id_col": version}  # noqa: RUF012

    class AlchemyDefinitions(SQLAlchemySyncRepository[AlchemyDefinition]):
        """Their repository."""

        model_type = AlchemyDefinition
