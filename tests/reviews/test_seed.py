"""The sample data of the pack: Korean books, reviews of every kind, and twice as if once."""

import json
from datetime import date

import pytest
from sqlalchemy import text

from stemmadb import seeding
from stemmadb.accounts import users
from stemmadb.database import Database
from stemmadb.errors import SeedError
from stemmadb.reviews import books, reviews
from stemmadb.reviews import seed as module
from stemmadb.reviews.seed import sample_review_id
from stemmadb.seeding import Seed
from stemmadb.testing import run_together

TABLES = ("books", "reviews", "likes", "bookmarks")


def rows(db: Database) -> dict[str, list[object]]:
    """Everything in the tables of the pack, times of changes included."""
    with db.session() as session:
        return {table: session.scalars(text(f"SELECT to_jsonb(t) FROM stemma.{table} t ORDER BY id")).all() for table in TABLES}


def scalar(db: Database, sql: str) -> object:
    """The one value of a query."""
    with db.session() as session:
        return session.scalar(text(sql))


@pytest.fixture(scope="module")
def seeded(stemmadb_server) -> object:
    """A freshly migrated database with the profile dev."""
    name = stemmadb_server.create()
    db = stemmadb_server.connect(name)
    try:
        seeding.run(db, "dev")
        yield db
    finally:
        db.close()
        stemmadb_server.drop(name)


@pytest.mark.requirement("RF-051", "RF-052", "RF-064", "RF-065", "RF-066", "RF-071")
def test_a_new_database_has_books_and_reviews(seeded: Database) -> None:
    """Every table of the pack has rows after one run."""
    assert scalar(seeded, "SELECT count(*) FROM stemma.books") >= 3
    assert scalar(seeded, "SELECT count(*) FROM stemma.reviews") >= 10
    assert all(found for found in rows(seeded).values())


@pytest.mark.requirement("RF-053")
def test_books_are_korean(seeded: Database) -> None:
    """They come back letter by letter, and can be found by their words."""
    with seeded.session() as session:
        book = books.find_by_isbn(session, "9788936433598")
        assert book is not None
        assert (book.title, book.author, book.publisher) == ("채식주의자", "한강", "창비")
        assert (book.published_date, book.page_count, book.language) == (date(2007, 10, 30), 192, "ko")
        assert (book.external_source, book.external_id) == ("ALADIN", "K432433598")
        assert {found.title for found in books.search(session, "한강")} == {"채식주의자", "소년이 온다", "작별하지 않는다"}


@pytest.mark.requirement("RF-054", "RF-055", "RF-056", "RF-057", "RF-058", "RF-059", "RF-060")
def test_reviews_are_of_every_kind(seeded: Database) -> None:
    """All states of reading, all ratings and none, recommended and not, drafts, and dates all over the year."""
    assert scalar(seeded, "SELECT array_agg(DISTINCT read_status::text ORDER BY read_status::text) FROM stemma.reviews") == [
        *("COMPLETED", "DROPPED", "READING")
    ]
    assert scalar(seeded, "SELECT array_agg(DISTINCT rating ORDER BY rating) FROM stemma.reviews") == [1, 2, 3, 4, 5, None]
    assert scalar(seeded, "SELECT count(DISTINCT is_recommended) FROM stemma.reviews") == 2
    assert scalar(seeded, "SELECT count(*) FROM stemma.reviews WHERE status = 'DRAFT' AND published_at IS NULL") >= 1
    assert scalar(seeded, "SELECT count(DISTINCT date_trunc('month', published_at)) FROM stemma.reviews") >= 8
    with seeded.session() as session:
        found = reviews.get(session, sample_review_id("quiet-refusal")).review
        assert found.title == "조용한 거부의 힘"
        assert found.content.startswith("고기를 먹지 않겠다는")
        assert (found.rating, found.is_recommended, found.read_status, found.status) == (5, True, "COMPLETED", "PUBLISHED")
        assert found.published_at is not None


@pytest.mark.requirement("RF-061", "RF-068", "RF-069")
def test_reviews_have_authors_and_books(seeded: Database) -> None:
    """Some are by the people of the accounts' own seeds; the joins that people type by hand give rows."""
    with seeded.session() as session:
        dev = users.get_by_email(session, "dev@valuerank.ai")
        assert len(reviews.list_for_user(session, dev.id, include_drafts=True)) >= 3
        joined = session.execute(
            text(
                "SELECT r.id, r.title, b.title, u.name AS author FROM reviews r "
                "JOIN books b ON r.book_id = b.id JOIN users u ON r.user_id = u.id LIMIT 5"
            )
        ).all()
        assert len(joined) == 5
        assert all(row.author for row in joined)
        assert session.execute(text("SELECT * FROM reviews JOIN books ON reviews.book_id = books.id LIMIT 1")).one()


def test_counts_are_those_of_the_reactions(seeded: Database) -> None:
    """Likes and bookmarks are counted, and the feed shows them."""
    wrong = "SELECT count(*) FROM stemma.reviews r WHERE like_count <> (SELECT count(*) FROM stemma.likes l WHERE l.review_id = r.id)"
    assert scalar(seeded, wrong) == 0
    assert scalar(seeded, "SELECT sum(bookmark_count) FROM stemma.reviews") == scalar(seeded, "SELECT count(*) FROM stemma.bookmarks")
    with seeded.session() as session:
        viewer = users.get_by_email(session, "seoyeon@example.com")
        first, *_ = reviews.feed(session, sort="popular", viewer_id=viewer.id)
        assert first.like_count == 3
        assert reviews.feed(session).items[0].review.id == sample_review_id("store")


@pytest.mark.requirement("RF-062", "EC-135")
@pytest.mark.parametrize("profile", ["dev", "qa", "demo", "test"])
def test_twice_is_as_once(committed_db: Database, profile: str) -> None:
    """Also without the record of what was applied: no row is added, and none is touched."""
    seeding.run(committed_db, profile)
    before = rows(committed_db)
    with committed_db.session() as session:
        session.execute(text("DELETE FROM stemma.stemma_seed_history"))
    seeding.run(committed_db, profile)
    assert rows(committed_db) == before


def test_what_somebody_changed_stays(committed_db: Database) -> None:
    """A review that was edited, and a book that was there under another id, are left as they are."""
    with committed_db.session() as session:
        mine = books.create(session, {"title": "아몬드 (큰글자)", "author": "손원평", "isbn": "9788936434267"})
    seeding.run(committed_db, "dev")
    edited = sample_review_id("almond")
    with committed_db.session() as session:
        reviews.update(session, edited, {"content": "다시 썼다."})
        session.execute(text("DELETE FROM stemma.stemma_seed_history"))
    seeding.run(committed_db, "dev")
    with committed_db.session() as session:
        found = reviews.get(session, edited)
        assert (found.review.content, found.book.id, found.book.title) == ("다시 썼다.", mine.id, "아몬드 (큰글자)")


@pytest.mark.race
@pytest.mark.requirement("RF-062")
def test_eight_at_once_are_as_one(committed_db: Database) -> None:
    """Whoever comes first applies a module; the eight together leave what one leaves, with or without the record."""
    for _ in range(2):
        results = run_together(8, lambda _: seeding.run(committed_db, "dev"))
        assert [result for result in results if isinstance(result, BaseException)] == []
        assert {table: len(found) for table, found in rows(committed_db).items()} == {
            "books": len(module.BOOKS),
            "reviews": len(module.REVIEWS),
            "likes": len(module.LIKES),
            "bookmarks": len(module.BOOKMARKS),
        }
        with committed_db.session() as session:
            session.execute(text("DELETE FROM stemma.stemma_seed_history"))


@pytest.mark.requirement("EC-148", "EC-153")
def test_profiles(committed_db: Database) -> None:
    """prod has none of it; demo has no one of the development data; qa has more than dev."""
    seeding.run(committed_db, "prod")
    assert {table: len(found) for table, found in rows(committed_db).items()} == dict.fromkeys(TABLES, 0)
    seeding.run(committed_db, "demo")
    assert scalar(committed_db, "SELECT count(*) FROM stemma.reviews r JOIN stemma.users u ON u.id = user_id WHERE email LIKE 'dev@%'") == 0
    demo = scalar(committed_db, "SELECT count(*) FROM stemma.reviews")
    seeding.run(committed_db, "dev")
    dev = scalar(committed_db, "SELECT count(*) FROM stemma.reviews")
    seeding.run(committed_db, "qa")
    assert 10 <= demo < dev < scalar(committed_db, "SELECT count(*) FROM stemma.reviews") - 150


@pytest.mark.fault
@pytest.mark.requirement("RF-063", "EC-137")
@pytest.mark.parametrize(
    ("name", "broken", "row"),
    [
        ("reviews.books", [{**module.BOOKS[0], "isbn": "9788936433590"}], "book 0 (채식주의자)"),
        ("reviews.reviews", [module.REVIEWS[0], {**module.REVIEWS[1], "rating": 6}], "review 1 (three-voices)"),
    ],
)
def test_a_broken_row_is_named(
    committed_db: Database, monkeypatch: pytest.MonkeyPatch, name: str, broken: list[dict[str, object]], row: str
) -> None:
    """The error says which module and which row; nothing of the module was written."""
    changed = [Seed(seed.name, seed.profiles, broken, seed.apply, check=seed.check) if seed.name == name else seed for seed in module.SEEDS]
    monkeypatch.setattr(module, "SEEDS", tuple(changed))
    with pytest.raises(SeedError) as caught:
        seeding.run(committed_db, "dev")
    assert (caught.value.module, caught.value.row) == (name, row)
    assert scalar(committed_db, f"SELECT count(*) FROM stemma.{name.partition('.')[2]}") == 0


@pytest.mark.offline
@pytest.mark.requirement("PF-088")
def test_the_data_holds_no_secret_and_nobody_real() -> None:
    """No password and no key; addresses are of domains that nobody has, but for those of the accounts' seeds."""
    data = json.dumps([seed.data for seed in module.SEEDS], ensure_ascii=False)
    assert "password" not in data
    addresses = {value for review in module.REVIEWS for value in [review["by"]]} | {person["email"] for person in module.READERS}
    assert {address for address in addresses if not address.endswith("@example.com")} == {"dev@valuerank.ai"}
