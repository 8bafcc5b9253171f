"""What the functions of this pack take and give besides entities."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Annotated, ClassVar, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from stemmadb.data import DataObject
from stemmadb.entity import NotBlank
from stemmadb.reviews._isbn import Isbn
from stemmadb.reviews.entities import Book, ExternalSource, ReadStatus, Review, ReviewStatus

LanguageTag = Annotated[str, StringConstraints(min_length=2, max_length=35)]
PageCount = Annotated[int, Field(gt=0, lt=2**31)]
Rating = Annotated[int, Field(ge=1, le=5)]


class BookCreate(DataObject):
    """A book as a catalogue describes it, or as it is entered by hand."""

    noun: ClassVar[str] = "Book"

    title: NotBlank
    author: str
    """Several authors in one text."""
    isbn: Isbn | None = None
    """Ten or thirteen digits, hyphens allowed; stored as thirteen."""
    publisher: str | None = None
    published_date: date | None = None
    cover_image_url: str | None = None
    description: str | None = None
    page_count: PageCount | None = None
    language: LanguageTag = "ko"
    """A BCP 47 tag."""
    external_source: ExternalSource | None = None
    external_id: str | None = None
    """What the source calls the book; needed for every source but MANUAL."""

    @model_validator(mode="after")
    def _id_of_the_source(self) -> Self:
        if self.external_source not in (None, ExternalSource.MANUAL) and self.external_id is None:
            raise ValueError(f"a book of {self.external_source} has an external_id")
        return self


class BookUpdate(DataObject):
    """What an update changes; an absent field is unchanged, None clears it (but not title, author and language)."""

    noun: ClassVar[str] = "Book"

    title: NotBlank = ""
    author: str = ""
    isbn: Isbn | None = None
    publisher: str | None = None
    published_date: date | None = None
    cover_image_url: str | None = None
    description: str | None = None
    page_count: PageCount | None = None
    language: LanguageTag = ""
    external_source: ExternalSource | None = None
    external_id: str | None = None


class ReviewCreate(DataObject):
    """A new review."""

    noun: ClassVar[str] = "Review"

    content: NotBlank
    title: str | None = None
    rating: Rating | None = None
    """1 to 5; None for none."""
    is_recommended: bool = False
    read_status: ReadStatus = ReadStatus.COMPLETED
    status: Literal[ReviewStatus.DRAFT, ReviewStatus.PUBLISHED] = ReviewStatus.PUBLISHED
    published_at: AwareDatetime | None = None
    """For a review that was published elsewhere before; None: now. A draft has none."""

    @model_validator(mode="after")
    def _no_time_of_a_draft(self) -> Self:
        if self.status is ReviewStatus.DRAFT and self.published_at is not None:
            raise ValueError("a draft has no published_at: it is set when the draft is published")
        return self


class ReviewUpdate(DataObject):
    """What an update changes; an absent field is unchanged, None clears title and rating."""

    noun: ClassVar[str] = "Review"

    content: NotBlank = ""
    title: str | None = None
    rating: Rating | None = None
    is_recommended: bool = False
    read_status: ReadStatus = ReadStatus.COMPLETED


@dataclass(frozen=True, slots=True)
class Author:
    """Who wrote a review, as others see them."""

    id: UUID
    name: str | None
    """None for a user without one."""


@dataclass(frozen=True, slots=True)
class ReviewDetail:
    """A review with what is shown beside it."""

    review: Review
    book: Book
    author: Author
    like_count: int
    bookmark_count: int
    liked_by_viewer: bool
    """False without a viewer."""
    bookmarked_by_viewer: bool
    """False without a viewer."""


@dataclass(frozen=True, slots=True)
class FeedItem(ReviewDetail):
    """A review as lists show it, with what is shown beside it."""


@dataclass(frozen=True, slots=True)
class RatingSummary:
    """The ratings of a book's published reviews."""

    count: int
    """How many gave one."""
    average: Decimal | None
    """To two places, halves up; None without a rating."""
    histogram: Mapping[int, int]
    """How many gave 1, 2, 3, 4 and 5."""
