"""The plain tables of the feed as users of SQLModel, advanced-alchemy and Django declare them."""

from __future__ import annotations

import importlib.util
import warnings
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import sqlmodel
from sqlalchemy import DateTime, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column, relationship

from benchmarks.datasets import Dataset
from benchmarks.harness import watch
from benchmarks.peers import HAS_ALCHEMY as HAS_ALCHEMY

HAS_DJANGO = importlib.util.find_spec("django") is not None

_PLAIN = {"schema": "plain"}


class PlainBook(sqlmodel.SQLModel, table=True):
    """A book in SQLModel."""

    __tablename__ = "books"
    __table_args__ = _PLAIN

    id: UUID = sqlmodel.Field(primary_key=True)
    title: str
    author: str


class PlainReader(sqlmodel.SQLModel, table=True):
    """A user in SQLModel."""

    __tablename__ = "readers"
    __table_args__ = _PLAIN

    id: UUID = sqlmodel.Field(primary_key=True)
    name: str | None = None


class PlainReview(sqlmodel.SQLModel, table=True):
    """A review in SQLModel."""

    __tablename__ = "reviews"
    __table_args__ = _PLAIN

    id: UUID = sqlmodel.Field(primary_key=True)
    user_id: UUID = sqlmodel.Field(foreign_key="plain.readers.id")
    book_id: UUID = sqlmodel.Field(foreign_key="plain.books.id")
    content: str
    rating: int | None = None
    status: str
    like_count: int
    bookmark_count: int
    published_at: datetime | None = sqlmodel.Field(default=None, sa_type=DateTime(timezone=True))


class PlainLike(sqlmodel.SQLModel, table=True):
    """A like in SQLModel."""

    __tablename__ = "likes"
    __table_args__ = _PLAIN

    id: UUID = sqlmodel.Field(primary_key=True)
    user_id: UUID
    review_id: UUID


class PlainBookmark(sqlmodel.SQLModel, table=True):
    """A bookmark in SQLModel."""

    __tablename__ = "bookmarks"
    __table_args__ = _PLAIN

    id: UUID = sqlmodel.Field(primary_key=True)
    user_id: UUID
    review_id: UUID


if HAS_ALCHEMY:
    with warnings.catch_warnings():
        # Of SQLAlchemy 2.1 it uses what that has deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        from advanced_alchemy.base import DefaultBase
        from advanced_alchemy.filters import LimitOffset as LimitOffset
        from advanced_alchemy.filters import OrderBy as OrderBy
        from advanced_alchemy.repository import SQLAlchemySyncRepository

    class AlchemyBook(DefaultBase):
        """A book in advanced-alchemy."""

        __tablename__ = "books"
        __table_args__ = _PLAIN

        id: Mapped[UUID] = mapped_column(primary_key=True)
        title: Mapped[str]
        author: Mapped[str]

    class AlchemyReader(DefaultBase):
        """A user in advanced-alchemy."""

        __tablename__ = "readers"
        __table_args__ = _PLAIN

        id: Mapped[UUID] = mapped_column(primary_key=True)
        name: Mapped[str | None]

    class AlchemyReview(DefaultBase):
        """A review in advanced-alchemy."""

        __tablename__ = "reviews"
        __table_args__ = _PLAIN

        id: Mapped[UUID] = mapped_column(primary_key=True)
        user_id: Mapped[UUID] = mapped_column(ForeignKey("plain.readers.id"))
        book_id: Mapped[UUID] = mapped_column(ForeignKey("plain.books.id"))
        content: Mapped[str]
        rating: Mapped[int | None]
        status: Mapped[str]
        like_count: Mapped[int]
        bookmark_count: Mapped[int]
        published_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
        book: Mapped[AlchemyBook] = relationship(lazy="raise")
        reader: Mapped[AlchemyReader] = relationship(lazy="raise")

    class AlchemyLike(DefaultBase):
        """A like in advanced-alchemy."""

        __tablename__ = "likes"
        __table_args__ = _PLAIN

        id: Mapped[UUID] = mapped_column(primary_key=True)
        user_id: Mapped[UUID]
        review_id: Mapped[UUID]

    class AlchemyBookmark(DefaultBase):
        """A bookmark in advanced-alchemy."""

        __tablename__ = "bookmarks"
        __table_args__ = _PLAIN

        id: Mapped[UUID] = mapped_column(primary_key=True)
        user_id: Mapped[UUID]
        review_id: Mapped[UUID]

    class AlchemyReviews(SQLAlchemySyncRepository[AlchemyReview]):
        """Their repository of reviews."""

        model_type = AlchemyReview

    class AlchemyLikes(SQLAlchemySyncRepository[AlchemyLike]):
        """Their repository of likes."""

        model_type = AlchemyLike

    class AlchemyBookmarks(SQLAlchemySyncRepository[AlchemyBookmark]):
        """Their repository of bookmarks."""

        model_type = AlchemyBookmark


_models: list[SimpleNamespace] = []


def django(dataset: Dataset) -> tuple[Any, str]:
    """Return Django's models of the plain tables, and the alias of its connection to this data set."""
    from django.conf import settings

    if not settings.configured:
        settings.configure(DATABASES={}, USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField")
        import django

        django.setup()
    if not _models:
        _models.append(_declare())
    return _models[0], _connect(dataset)


def _connect(dataset: Dataset) -> str:
    from django.db import connections

    url = dataset.owner_url
    alias = url.database or ""
    if alias not in connections.settings:
        host = url.host or url.query.get("host") or ""
        port = url.port or url.query.get("port") or ""
        given = {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": url.database,
            "USER": url.username,
            "PASSWORD": url.password or "",
            "HOST": host,
            "PORT": str(port),
        }
        plain = {"TEST": {}, "ATOMIC_REQUESTS": False, "AUTOCOMMIT": True, "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": False}
        connections.settings[alias] = {**plain, "OPTIONS": {}, "TIME_ZONE": None, **given}
        connections[alias].ensure_connection()
        watch(connections[alias].connection)
        dataset._opened.callback(connections[alias].close)
    return alias


def _declare() -> SimpleNamespace:
    from django.db import models, transaction

    class _Meta:
        app_label = "plain"
        managed = False

    class Book(models.Model):
        """A book in Django."""

        id = models.UUIDField(primary_key=True)
        title = models.TextField()
        author = models.TextField()

        class Meta(_Meta):
            db_table = 'plain"."books'

    class Reader(models.Model):
        """A user in Django."""

        id = models.UUIDField(primary_key=True)
        name = models.TextField(null=True)

        class Meta(_Meta):
            db_table = 'plain"."readers'

    class Review(models.Model):
        """A review in Django."""

        id = models.UUIDField(primary_key=True)
        user = models.ForeignKey(Reader, models.CASCADE)
        book = models.ForeignKey(Book, models.CASCADE)
        content = models.TextField()
        rating = models.SmallIntegerField(null=True)
        status = models.TextField()
        like_count = models.IntegerField()
        bookmark_count = models.IntegerField()
        published_at = models.DateTimeField(null=True)

        class Meta(_Meta):
            db_table = 'plain"."reviews'

    class Like(models.Model):
        """A like in Django."""

        id = models.UUIDField(primary_key=True)
        user_id = models.UUIDField()
        review_id = models.UUIDField()

        class Meta(_Meta):
            db_table = 'plain"."likes'

    class Bookmark(models.Model):
        """A bookmark in Django."""

        id = models.UUIDField(primary_key=True)
        user_id = models.UUIDField()
        review_id = models.UUIDField()

        class Meta(_Meta):
            db_table = 'plain"."bookmarks'

    return SimpleNamespace(
        Review=Review,
        Like=Like,
        Bookmark=Bookmark,
        Exists=models.Exists,
        F=models.F,
        OuterRef=models.OuterRef,
        atomic=transaction.atomic,
    )
