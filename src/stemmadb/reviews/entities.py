"""The tables of the pack ``reviews``: books, what readers write about them, and how others react."""

from datetime import date, datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, PrimaryKeyConstraint, SmallInteger, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import TSVECTOR

from stemmadb.entity import Entity, Field, Mapped, NaturalKey, NotBlank, SoftDelete, enum_field, generated_field
from stemmadb.reviews._isbn import Isbn
from stemmadb.reviews.vocabularies import ExternalSource, ReadStatus, ReviewStatus

__all__ = ["Book", "Review", "Like", "Bookmark", "PastPlace", "ExternalSource", "ReadStatus", "ReviewStatus"]


class Book(Entity, table=True):
    """A book as an external catalogue described it, or as it was entered by hand."""

    __tablename__ = "books"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        CheckConstraint("isbn IS NULL OR isbn ~ '^([0-9]{9}[0-9X]|[0-9]{13})$'", name="isbn_format"),
        CheckConstraint("page_count IS NULL OR page_count > 0", name="page_count"),
        CheckConstraint("btrim(title) <> ''", name="title"),
        CheckConstraint("(external_source IS NULL OR external_source = 'MANUAL') OR external_id IS NOT NULL", name="external"),
        UniqueConstraint("isbn"),
        UniqueConstraint("external_source", "external_id"),
        Index("books_title_idx", "title"),
        Index("books_author_idx", "author"),
        Index("books_search_vector_idx", "search_vector", postgresql_using="gin"),
    )

    isbn: Mapped[Isbn | None] = Field(default=None)
    """Thirteen digits; an ISBN of ten is given its newer form."""
    title: Mapped[NotBlank]
    author: Mapped[str]
    """As the catalogue has it; several authors in one text."""
    publisher: Mapped[str | None] = Field(default=None)
    published_date: Mapped[date | None] = Field(default=None)
    cover_image_url: Mapped[str | None] = Field(default=None)
    description: Mapped[str | None] = Field(default=None)
    page_count: Mapped[int | None] = Field(default=None, gt=0)
    language: Mapped[str] = Field(default="ko", min_length=2, max_length=35)
    """A BCP 47 tag: ``ko``, ``en-GB``."""
    external_source: Mapped[ExternalSource | None] = enum_field(ExternalSource, "external_source", default=None)
    external_id: Mapped[str | None] = Field(default=None)
    """What the source calls the book; there for every source but MANUAL."""
    external_fetched_at: Mapped[datetime | None] = Field(default=None)
    """When the source was last asked; None for a book that did not come from one."""
    search_vector: Mapped[str | None] = generated_field(
        "setweight(to_tsvector('simple', coalesce(title, '')), 'A') || setweight(to_tsvector('simple', coalesce(author, '')), 'B')",
        sa_type=TSVECTOR(),
        # Of use to PostgreSQL alone: neither fetched nor dumped.
        secret=True,
    )
    """The words of the title, and below them in rank those of the author; without stemming, since titles are in any language."""


class Review(SoftDelete, Entity, table=True):
    """What a reader writes about a book. One reader may review a book more than once."""

    __tablename__ = "reviews"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        CheckConstraint("rating IS NULL OR rating BETWEEN 1 AND 5", name="rating"),
        CheckConstraint("like_count >= 0 AND bookmark_count >= 0", name="counts"),
        CheckConstraint("(status = 'DELETED') = (deleted_at IS NOT NULL)", name="soft_delete"),
        CheckConstraint("status <> 'PUBLISHED' OR published_at IS NOT NULL", name="published"),
        CheckConstraint("btrim(content) <> ''", name="content"),
        # The feed, newest first: a page is one stretch of it.
        Index("reviews_status_published_at_idx", "status", text("published_at DESC"), text("id DESC")),
        Index("reviews_user_id_created_at_idx", "user_id", text("created_at DESC")),
        Index("reviews_book_id_status_published_at_id_idx", "book_id", "status", text("published_at DESC"), text("id DESC")),
        # The feed, most liked first.
        Index("reviews_like_count_id_idx", text("like_count DESC"), text("id DESC"), postgresql_where=text("status = 'PUBLISHED'")),
        Index("reviews_deleted_at_idx", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
    )

    user_id: Mapped[UUID] = Field(foreign_key="users.id", ondelete="CASCADE")
    book_id: Mapped[UUID] = Field(foreign_key="books.id", ondelete="RESTRICT")
    title: Mapped[str | None] = Field(default=None)
    content: Mapped[NotBlank]
    rating: Mapped[int | None] = Field(default=None, ge=1, le=5, sa_type=SmallInteger())
    """1 to 5; None when the reader gave none."""
    is_recommended: Mapped[bool] = Field(default=False)
    read_status: Mapped[ReadStatus] = enum_field(ReadStatus, "read_status", default=ReadStatus.COMPLETED)
    status: Mapped[ReviewStatus] = enum_field(ReviewStatus, "review_status", default=ReviewStatus.PUBLISHED)
    like_count: Mapped[int] = Field(default=0, ge=0)
    """The number of likes; kept by a trigger on ``likes``, in the transaction that likes."""
    bookmark_count: Mapped[int] = Field(default=0, ge=0)
    """The number of bookmarks; kept likewise."""
    published_at: Mapped[datetime | None] = Field(default=None)
    """When it was first published; a trigger sets it where nothing was given. None for a draft that never was."""


class Like(Entity, table=True):
    """That a user likes a review."""

    __tablename__ = "likes"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        UniqueConstraint("user_id", "review_id"),
        Index("likes_review_id_idx", "review_id"),
    )

    user_id: Mapped[UUID] = Field(foreign_key="users.id", ondelete="CASCADE")
    review_id: Mapped[UUID] = Field(foreign_key="reviews.id", ondelete="CASCADE")


class Bookmark(Entity, table=True):
    """That a user keeps a review for later."""

    __tablename__ = "bookmarks"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        UniqueConstraint("user_id", "review_id"),
        Index("bookmarks_review_id_idx", "review_id"),
        Index("bookmarks_user_id_created_at_idx", "user_id", text("created_at DESC")),
    )

    user_id: Mapped[UUID] = Field(foreign_key="users.id", ondelete="CASCADE")
    review_id: Mapped[UUID] = Field(foreign_key="reviews.id", ondelete="CASCADE")


class PastPlace(NaturalKey, table=True):
    """
    Where a review stood among the most liked before a transaction moved it, so that all pages of a walk tell of one moment.

    Triggers on ``reviews`` write it; ``reviews.prune_places`` removes old rows.
    """

    __tablename__ = "past_places"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        # By transaction: what moved since a page was read.
        PrimaryKeyConstraint("transaction_id", "number"),
        CheckConstraint("review_id IS NOT NULL OR like_count IS NULL", name="review"),
        # By place: who stood there when a page was read.
        Index(
            "past_places_like_count_review_id_idx",
            text("like_count DESC"),
            text("review_id DESC"),
            postgresql_where=text("like_count IS NOT NULL"),
        ),
        Index("past_places_review_id_transaction_id_idx", "review_id", "transaction_id"),
    )

    transaction_id: Mapped[int] = Field(sa_type=BigInteger())
    """The transaction that moved it, as ``pg_current_xact_id()`` calls it."""
    previous_transaction_id: Mapped[int | None] = Field(default=None, sa_type=BigInteger())
    """The last of those that had moved it before, by their ids; None when no row tells of any."""
    number: Mapped[int] = Field(sa_type=BigInteger(), column_options={"server_default": Identity()})
    """Puts the moves of one review, and those by one transaction, in their order."""
    cluster_id: Mapped[int] = Field(sa_type=BigInteger())
    """The ``system_identifier`` of the server. Of another one's rows, from a dump, the transactions are not those of this one."""
    review_id: Mapped[UUID | None] = Field(default=None, foreign_key="reviews.id", ondelete="CASCADE")
    """None in a row that stands for those that were removed: of its transaction, and of earlier ones."""
    like_count: Mapped[int | None] = Field(default=None, ge=0)
    """How many likes it had; None when it was not there: a draft, deleted, or not yet written."""
