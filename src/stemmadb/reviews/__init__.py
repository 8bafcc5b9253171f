"""Reviews: books, what readers write about them, and how others react."""

from stemmadb.packs import Pack
from stemmadb.reviews import entities
from stemmadb.reviews.entities import Book, Bookmark, ExternalSource, Like, ReadStatus, Review, ReviewStatus

__all__ = ["PACK", "Book", "Review", "Like", "Bookmark", "ExternalSource", "ReadStatus", "ReviewStatus"]

PACK = Pack(
    name="reviews",
    branch="reviews",
    requires=("accounts",),
    entities=(entities.Book, entities.Review, entities.Like, entities.Bookmark),
    seeds=("stemmadb.reviews.seed:SEEDS",),
    factories="stemmadb.reviews.factories:FACTORIES",
)
