"""Reviews: books, what readers write about them, and how others react."""

from stemmadb.packs import Pack
from stemmadb.reviews import entities
from stemmadb.reviews.entities import Book, Bookmark, ExternalSource, Like, PastPlace, ReadStatus, Review, ReviewStatus

__all__ = ["PACK", "Book", "Review", "Like", "Bookmark", "PastPlace", "ExternalSource", "ReadStatus", "ReviewStatus"]

PACK = Pack(
    name="reviews",
    branch="reviews",
    requires=("accounts",),
    entities=(entities.Book, entities.Review, entities.Like, entities.Bookmark, entities.PastPlace),
    seeds=("stemmadb.reviews.seed:SEEDS",),
    commands="stemmadb.reviews.commands:register",
    factories="stemmadb.reviews.factories:FACTORIES",
)
