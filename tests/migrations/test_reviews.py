"""The branch of the pack reviews, up, down and up again beside rows."""

from __future__ import annotations

import pytest
from tests.migrations.places import Place

from stemmadb import migrations
from stemmadb.errors import MigrationError

_ENUMS = (
    "SELECT typname::text FROM pg_type WHERE typnamespace = to_regnamespace('stemma') AND typtype = 'e' "
    "AND typname IN ('external_source', 'read_status', 'review_status') ORDER BY 1"
)
_OURS = ("bookmarks", "books", "likes", "past_places", "reviews")
_ROWS = (
    "INSERT INTO stemma.users (email) VALUES ('a@example.com'), ('b@example.com')",
    "INSERT INTO stemma.books (title, author, external_source, external_id) VALUES ('채식주의자', '한강', 'ALADIN', 'K432433598')",
    "INSERT INTO stemma.reviews (user_id, book_id, content) SELECT users.id, books.id, 'x' FROM stemma.users, stemma.books",
    "INSERT INTO stemma.likes (user_id, review_id) SELECT users.id, reviews.id FROM stemma.users, stemma.reviews",
)


def _rest(place: Place) -> list[str]:
    """What the catalogue says about the tables of the other packs, but for the constraints that point at them."""
    return place.ask(
        "SELECT attrelid::regclass || '.' || attname || ' ' || atttypid::regtype || ' ' || attnotnull FROM pg_attribute "
        "JOIN pg_class ON pg_class.oid = attrelid WHERE relnamespace = 'stemma'::regnamespace AND attnum > 0 "
        "AND NOT attisdropped AND NOT attrelid::regclass::text ~ 'stemma.(bookmarks|books|likes|past_places|reviews)(_.*)?$' ORDER BY 1"
    )


@pytest.mark.requirement("RF-036", "RF-037", "RF-039", "RF-046", "RF-027")
def test_up_down_up_beside_rows(empty: Place) -> None:
    """Types go and come with the tables; users keep their rows and their columns, and the other packs are untouched."""
    migrations.upgrade(empty, ["base", "evaluation"])
    empty.do(_ROWS[0], user="stemma_app")
    before = _rest(empty)
    migrations.upgrade(empty, ["reviews"])
    empty.do(*_ROWS[1:], user="stemma_app")
    assert empty.ask("SELECT like_count FROM stemma.reviews") == [2, 2]
    first = empty.dump()
    migrations.downgrade(empty, "reviews@base")
    assert empty.ask(_ENUMS) == []
    assert set(_OURS).isdisjoint(empty.tables())
    assert empty.ask(
        "SELECT count(*) FROM pg_proc WHERE proname ~ '^stemma_(count_reactions|keep_place|remove_in_turn|reviews_publish)$'"
    ) == [0]
    assert _rest(empty) == before
    assert empty.ask("SELECT count(*) FROM stemma.users") == [2]
    migrations.upgrade(empty, ["reviews"])
    assert empty.ask(_ENUMS) == ["external_source", "read_status", "review_status"]
    assert empty.dump() == first
    assert _rest(empty) == before
    empty.do(*_ROWS[1:], user="stemma_app")
    assert empty.ask("SELECT like_count FROM stemma.reviews") == [2, 2]


@pytest.mark.fault
@pytest.mark.requirement("RF-042")
@pytest.mark.parametrize("obstacle", ["CREATE TABLE stemma.books (id integer)", "CREATE TYPE stemma.review_status AS ENUM ('X')"])
def test_an_obstacle_leaves_the_database_as_it_was(empty: Place, obstacle: str) -> None:
    """A table or a type of the same name stops the revision, which says so and leaves nothing half done."""
    migrations.upgrade(empty, ["base"])
    empty.do(obstacle)
    before = empty.dump()
    with pytest.raises(MigrationError, match="already exists") as refused:
        migrations.upgrade(empty, ["reviews"])
    assert refused.value.revision == "reviews_0001"
    assert empty.dump() == before
