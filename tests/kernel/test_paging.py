"""Keyset pages: complete in every order, bounded by their index, and tied to their list."""

import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column, undefer

from stemmadb import _keysets as keysets
from stemmadb.accounts.entities import User
from stemmadb.database import Database
from stemmadb.errors import InvalidCursorError, ValidationError, WorkspaceNotSetError
from stemmadb.evaluation.documents import DefinitionContent
from stemmadb.evaluation.entities import Definition
from stemmadb.paging import Page, page
from stemmadb.testing import assert_max_queries, count_queries, make_workspace

pytestmark = pytest.mark.requirement("EC-155", "EC-157", "EC-186")


CONTENT = DefinitionContent(preamble="", template="t")


class Plain(DeclarativeBase):
    """Tables of a host application; temporary, so that each test has its own."""


class Shelf(Plain):
    __tablename__ = "page_shelves"
    __table_args__ = {"prefixes": ["TEMPORARY"]}

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Item(Plain):
    __tablename__ = "page_items"
    __table_args__ = {"prefixes": ["TEMPORARY"]}

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    low: Mapped[int | None]
    rank: Mapped[int | None]
    kind: Mapped[int]
    title: Mapped[str | None]
    shelf_id: Mapped[int | None]


class Value(Plain):
    __tablename__ = "page_values"
    __table_args__ = {"prefixes": ["TEMPORARY"]}

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    number: Mapped[int | None] = mapped_column(sa.BigInteger)
    text: Mapped[str | None] = mapped_column(sa.Text)
    amount: Mapped[Decimal | None] = mapped_column(sa.Numeric)
    flag: Mapped[bool | None]
    raw: Mapped[bytes | None]
    day: Mapped[date | None]
    ratio: Mapped[float | None] = mapped_column(sa.Double)


@pytest.fixture
def items(session: Session) -> Iterator[Session]:
    """The session, with empty tables."""
    Plain.metadata.create_all(session.connection(), checkfirst=False)
    return session


def put(session: Session, rows: Sequence[tuple[Any, ...]]) -> None:
    session.execute(sa.delete(Item))
    if rows:
        session.execute(sa.insert(Item), [dict(zip(("id", "low", "rank", "kind", "title"), row, strict=True)) for row in rows])


def walk(session: Session, statement: Any, order: Sequence[Any], limit: int) -> list[Any]:
    """All pages, one behind another."""
    found: list[Any] = []
    cursor: str | None = None
    for _ in range(1000):
        part = page(session, statement, order_by=order, cursor=cursor, limit=limit)
        found += part.items
        assert part.has_more == (part.next_cursor is not None)
        assert len(part) == limit or not part.has_more
        if part.next_cursor is None:
            return found
        cursor = part.next_cursor
    raise AssertionError("the pages do not end")


small = st.integers(0, 2)
rows_of_items = st.lists(
    st.tuples(st.none() | small, st.none() | small, small, st.none() | st.sampled_from(["", "a", "b%", "Ä"])), max_size=25
).map(lambda rows: [(number * 3, *row) for number, row in enumerate(rows)])
names = st.sampled_from(["id", "low", "rank", "kind", "title"])
terms = st.lists(st.tuples(names, st.booleans(), st.sampled_from([None, True, False])), min_size=1, max_size=3)


def order_of(asked: Sequence[tuple[str, bool, bool | None]]) -> list[Any]:
    order = []
    for name, down, nulls_first in asked:
        column = getattr(Item, name).desc() if down else getattr(Item, name).asc()
        order.append(column if nulls_first is None else column.nulls_first() if nulls_first else column.nulls_last())
    return order


def with_key(asked: Sequence[tuple[str, bool, bool | None]]) -> list[Any]:
    return [*order_of(asked), Item.id.desc() if asked[-1][1] else Item.id.asc()]


generated = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.property
@generated
@given(rows=rows_of_items, asked=terms, limit=st.integers(1, 6), columns=st.booleans())
def test_joined_pages_equal_the_unpaged_result(items: Session, rows: list[Any], asked: list[Any], limit: int, columns: bool) -> None:
    """Whatever the rows, ties, NULLs, directions and limit, the pages together are the whole result in its order."""
    put(items, rows)
    statement = select(Item.low, Item.id) if columns else select(Item)
    whole = items.execute(statement.order_by(*with_key(asked))).all()
    assert walk(items, statement, order_of(asked), limit) == ([tuple(row) for row in whole] if columns else [row[0] for row in whole])


@pytest.mark.property
@generated
@given(rows=rows_of_items, asked=terms, limit=st.integers(1, 4), added=rows_of_items, data=st.data())
def test_pages_neither_skip_nor_repeat_while_rows_are_inserted(
    items: Session, rows: list[Any], asked: list[Any], limit: int, added: list[Any], data: st.DataObject
) -> None:
    """Every row that was there from first to last page is on exactly one page, whatever is inserted and deleted in between."""
    put(items, rows)
    waiting = [{"id": row[0] + 1, "low": row[1], "rank": row[2], "kind": row[3], "title": row[4]} for row in added]
    gone: set[int] = set()
    seen: list[int] = []
    cursor: str | None = None
    while True:
        part = page(items, select(Item.id), order_by=order_of(asked), cursor=cursor, limit=limit)
        seen += [row.id for row in part]
        if part.next_cursor is None:
            break
        cursor = part.next_cursor
        if waiting:
            items.execute(sa.insert(Item), [waiting.pop()])
        if data.draw(st.booleans()):
            chosen = data.draw(st.sampled_from([row[0] for row in rows]))
            items.execute(sa.delete(Item).where(Item.id == chosen))
            gone.add(chosen)
    assert len(seen) == len(set(seen))
    assert {row[0] for row in rows} - gone <= set(seen)


@pytest.mark.property
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(
        st.fixed_dictionaries(
            {
                "at": st.none() | st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),
                "number": st.none() | st.integers(-(2**63), 2**63 - 1),
                "text": st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
                "amount": st.none() | st.decimals(allow_infinity=False, places=6, min_value=-(10**20), max_value=10**20),
                "flag": st.none() | st.booleans(),
                "raw": st.none() | st.binary(),
                "day": st.none() | st.dates(),
                "ratio": st.none() | st.floats(),
            }
        ),
        min_size=2,
        max_size=8,
    ),
    name=st.sampled_from(["at", "number", "text", "amount", "flag", "raw", "day", "ratio"]),
    down=st.booleans(),
)
def test_every_type_goes_through_a_cursor_unchanged(items: Session, values: list[dict[str, Any]], name: str, down: bool) -> None:
    """Times to the microsecond, NaN, long numbers, bytes and any text: a page that begins behind such a value begins there exactly."""
    items.execute(sa.delete(Value))
    items.execute(sa.insert(Value), [{"id": uuid.uuid4(), **value} for value in values])
    order = [getattr(Value, name).desc() if down else getattr(Value, name).asc()]
    whole = items.execute(select(Value.id).order_by(*order, Value.id.desc() if down else Value.id.asc())).all()
    assert walk(items, select(Value.id), order, 1) == whole


# ------------------------------------------------------------------------------------------------------------- statements


def test_a_page_is_one_statement(items: Session) -> None:
    """First page, later page and total: one statement each, and no more rows than one beyond the page."""
    put(items, [(number, number, None, 0, None) for number in range(20)])
    with assert_max_queries(1):
        first = page(items, select(Item), order_by=[Item.low.desc()], limit=5, with_total=True)
    with assert_max_queries(1):
        second = page(items, select(Item), order_by=[Item.low.desc()], limit=5, cursor=first.next_cursor, with_total=True)
    assert [item.id for item in (*first, *second)] == list(range(19, 9, -1))
    assert first.total == second.total == 20


def test_the_total_counts_the_filtered_list(items: Session) -> None:
    """The total is that of all pages, the same on each, and 0 for an empty list; it is None unless asked for."""
    put(items, [(number, number % 2, None, 0, None) for number in range(9)])
    odd = select(Item).where(Item.low == 1)
    first = page(items, odd, order_by=[Item.id], limit=3, with_total=True)
    rest = page(items, odd, order_by=[Item.id], limit=3, with_total=True, cursor=first.next_cursor)
    assert (first.total, rest.total, len(rest), rest.has_more) == (4, 4, 1, False)
    assert page(items, odd.where(Item.kind == 5), order_by=[Item.id], with_total=True).total == 0
    assert page(items, odd, order_by=[Item.id]).total is None


def test_a_total_survives_the_loss_of_its_page(items: Session) -> None:
    """When all rows behind a cursor were deleted, the page is empty and the total is that of what is left."""
    put(items, [(number, None, None, 0, None) for number in range(6)])
    first = page(items, select(Item), order_by=[Item.id], limit=2)
    items.execute(sa.delete(Item).where(Item.id > 1))
    rest = page(items, select(Item), order_by=[Item.id], limit=2, cursor=first.next_cursor, with_total=True)
    assert (list(rest), rest.has_more, rest.next_cursor, rest.total) == ([], False, None, 2)


def test_the_cursor_comes_from_the_row_and_not_from_the_object(items: Session) -> None:
    """An object that the session holds with an older value does not lead the next page astray."""
    put(items, [(number, number, None, 0, None) for number in range(6)])
    held = items.get_one(Item, 2)
    items.execute(sa.update(Item.__table__).values(low=Item.__table__.c.low + 100))  # behind the session's back
    assert held.low == 2
    assert [item.id for item in walk(items, select(Item), [Item.low], 3)] == list(range(6))


def test_expressions_and_aliases_order_pages(items: Session) -> None:
    """An order may be any expression, and the statement may select an alias, a join with NULLs, or a labelled column."""
    put(items, [(1, 2, None, 0, "B"), (2, 1, None, 0, "a"), (3, None, None, 0, "C")])
    items.execute(sa.update(Item).where(Item.id == 2).values(shelf_id=7))
    items.execute(sa.insert(Shelf), [{"id": 7}])
    other = aliased(Item)
    label = sa.func.lower(Item.title).label("lowered")
    assert [item.id for item in walk(items, select(other), [sa.func.lower(other.title)], 1)] == [2, 1, 3]
    assert [row.id for row in walk(items, select(Item.id, label), [label.desc()], 1)] == [3, 1, 2]
    joined = select(Item, Shelf).outerjoin(Shelf, Shelf.id == Item.shelf_id)
    for order in ([Shelf.id, Item.id], [Shelf.id.desc(), Item.id], [Item.low]):
        assert walk(items, joined, order, 1) == list(items.execute(joined.order_by(*order, Shelf.id)))


def test_an_index_serves_every_order_of_pages(items: Session) -> None:
    """Each form of the condition bounds the scan of an index: of 20,000 rows a page reads some hundreds, wherever it is."""
    items.execute(
        sa.text(
            "INSERT INTO page_items (id, low, rank, kind) "
            "SELECT n, n / 7, CASE WHEN n % 3 > 0 THEN n / 5 END, n % 2 FROM generate_series(1, 20000) AS n"
        )
    )
    for columns in ("low, id", "rank, id", "rank DESC NULLS LAST, id DESC", "kind, id DESC"):
        items.execute(sa.text(f"CREATE INDEX ON page_items ({columns})"))
    items.execute(sa.text("ANALYZE page_items"))
    orders: list[list[Any]] = [
        [Item.id.desc()],
        [Item.low, Item.id],
        [Item.low.desc(), Item.id.desc()],
        [Item.rank, Item.id],
        [Item.rank.desc(), Item.id.desc()],
        [Item.rank.desc().nulls_last(), Item.id.desc()],
        [Item.kind, Item.id.desc()],
        [Item.kind.desc(), Item.id],
    ]
    for order in orders:
        cursor = None
        for _ in range(75):
            cursor = page(items, select(Item), order_by=order, cursor=cursor, limit=200).next_cursor
        assert rows_read(plan_of(items, select(Item), order, cursor)) < 300, [str(term) for term in order]


def plan_of(session: Session, statement: Any, order: Sequence[Any], cursor: str | None) -> dict[str, Any]:
    """How PostgreSQL ran the statement of one page."""
    caught: list[tuple[str, Any]] = []

    def catch(_connection: Any, _cursor: Any, text: str, parameters: Any, _context: Any, _many: bool) -> None:
        caught.append((text, parameters))

    connection = session.connection()
    event.listen(connection, "before_cursor_execute", catch)
    try:
        page(session, statement, order_by=order, cursor=cursor, limit=20)
    finally:
        sa.event.remove(connection, "before_cursor_execute", catch)
    text, parameters = caught[-1]
    plan: dict[str, Any] = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}", parameters).scalar_one()[0]["Plan"]
    return plan


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes_of(below)


def rows_read(plan: dict[str, Any]) -> float:
    """The rows that the scans of tables pass on or throw away."""
    scans = [node for node in nodes_of(plan) if "Relation Name" in node]
    assert scans
    assert all(node["Node Type"] != "Seq Scan" for node in scans)
    return sum((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in scans)


def test_a_uniform_order_bounds_the_index_behind_row_level_security(session: Session) -> None:
    """(created_at, id) is one row comparison, and with the workspace in front of it the condition of the tenant's index."""
    for number in range(3):
        session.add(Definition(name=f"d{number}", content=CONTENT))
    order = [Definition.created_at.desc()]
    first = page(session, select(Definition), order_by=order, limit=1)
    session.execute(sa.text("SET LOCAL enable_seqscan = off"))
    session.execute(sa.text("SET LOCAL enable_sort = off"))
    nodes = list(nodes_of(plan_of(session, select(Definition), order, first.next_cursor)))
    (scan,) = [node for node in nodes if "Index Cond" in node]
    assert scan["Index Name"] == "definitions_created_at_id_idx"
    assert "workspace_id = " in scan["Index Cond"]
    assert "ROW(created_at, id) < ROW(" in scan["Index Cond"]
    assert not [node for node in nodes if "Sort" in node["Node Type"]]


def test_columns_that_a_filter_fixes_are_not_compared(items: Session) -> None:
    """`kind = 1` leaves (low, id) to order by, so that an index on (kind, low, id) is one range."""
    put(items, [(number, number, None, 1, None) for number in range(4)])
    statement = select(Item).where(Item.kind == 1, Item.title.is_(None))
    first = page(items, statement, order_by=[Item.kind.desc(), Item.id], limit=2)
    with count_queries() as sent:
        second = page(items, statement, order_by=[Item.kind.desc(), Item.id], limit=2, cursor=first.next_cursor)
    assert [item.id for item in second] == [2, 3]
    assert "ORDER BY page_items.id ASC" in sent.statements[0]


def test_a_statement_is_built_once(items: Session) -> None:
    """Calls that differ in their values only share one statement, and SQLAlchemy compiles it once."""
    put(items, [(number, number % 3, None, 0, None) for number in range(9)])

    def ask(low: int, cursor: str | None = None) -> Page[Any]:
        return page(items, select(Item).where(Item.low == low), order_by=[Item.rank.desc(), Item.id], limit=2, cursor=cursor)

    firsts = [ask(low) for low in range(3)]
    assert [[item.id for item in first] for first in firsts] == [[0, 3], [1, 4], [2, 5]]
    seconds = [ask(low, first.next_cursor) for low, first in enumerate(firsts)]
    assert [[item.id for item in second] for second in seconds] == [[6], [7], [8]]
    compiled = len(items.connection().engine._compiled_cache)
    for low, first in enumerate(firsts):
        ask(low)
        ask(low, first.next_cursor)
    assert len(items.connection().engine._compiled_cache) == compiled


class Doubled(sa.TypeDecorator[int]):
    """A type that a host wrote without saying whether statements with it may be cached."""

    impl = sa.Integer
    cache_ok = False

    def process_bind_param(self, value: int | None, dialect: sa.Dialect) -> int | None:
        return None if value is None else value * 2


def test_statements_that_cannot_be_cached_have_pages_too(items: Session) -> None:
    """A host's type that forbids caching costs time and nothing else: the filter holds, and binds the cursor."""
    put(items, [(number, number % 4, None, 0, None) for number in range(12)])
    statement = select(Item).where(sa.type_coerce(Item.low, Doubled) == 1)
    assert [item.id for item in walk(items, statement, [Item.id], 2)] == [2, 6, 10]
    cursor = cursor_of(items, statement, [Item.id])
    with pytest.raises(InvalidCursorError):
        page(items, select(Item).where(sa.type_coerce(Item.low, Doubled) == 0), order_by=[Item.id], cursor=cursor)


# ---------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("limit", [0, -1, 201, 10**9, True, None, "5", 2.0])
def test_limits_out_of_bounds_are_refused(items: Session, limit: Any) -> None:
    """A limit is a whole number from 1 to 200; anything else is refused and nothing is sent."""
    with count_queries() as sent, pytest.raises(ValidationError) as caught:
        page(items, select(Item), order_by=[Item.id], limit=limit)
    assert caught.value.field == "limit"
    assert sent.count == 0


@pytest.mark.parametrize(
    ("statement", "order", "field"),
    [
        (select(Item).limit(5), [Item.id], "statement"),
        (select(Item).offset(5), [Item.id], "statement"),
        (select(Item).fetch(5), [Item.id], "statement"),
        (select(Item.kind).distinct(), [Item.kind], "statement"),
        (select(sa.func.now()), [sa.func.now()], "statement"),
        (select(Item), ["id"], "order_by"),
        (select(Item), [sa.text("id")], "order_by"),
    ],
)
def test_statements_that_have_no_pages_are_refused(items: Session, statement: Any, order: list[Any], field: str) -> None:
    """A limit of its own, DISTINCT, no key or a text in the place of an expression: ValidationError, and nothing is sent."""
    with count_queries() as sent, pytest.raises(ValidationError) as caught:
        page(items, statement, order_by=order)
    assert caught.value.field == field
    assert sent.count == 0


def test_columns_without_plain_values_order_no_page(items: Session) -> None:
    """A cursor holds plain values: an array in the order is refused with the reason."""
    put(items, [(1, None, None, 0, None), (2, None, None, 0, None)])
    with pytest.raises(ValidationError, match="plain values"):
        page(items, select(Item), order_by=[sa.func.array_append(sa.text("ARRAY[1]"), Item.id, type_=sa.ARRAY(sa.Integer))], limit=1)


def cursor_of(session: Session, statement: Any, order: Sequence[Any] = (Item.low.desc(),)) -> str:
    cursor = page(session, statement, order_by=order, limit=1).next_cursor
    assert cursor is not None
    return cursor


def test_a_cursor_is_good_for_its_list_only(items: Session) -> None:
    """A cursor of another filter value, order, column list or table is refused; one of another limit is not."""
    put(items, [(number, number % 2, 1, 0, "a") for number in range(9)])
    statement = select(Item).where(Item.low == 1)
    cursor = cursor_of(items, statement)
    assert len(page(items, statement, order_by=[Item.low.desc()], limit=3, cursor=cursor)) == 3
    for other, order in [
        (select(Item).where(Item.low == 0), [Item.low.desc()]),
        (select(Item).where(Item.low == 1, Item.kind == 0), [Item.low.desc()]),
        (statement, [Item.low.desc(), Item.title]),
        (statement, [Item.rank.desc()]),
        (select(Item.id).where(Item.low == 1), [Item.low.desc()]),
        (select(User), [User.created_at.desc()]),
    ]:
        with count_queries() as sent, pytest.raises(InvalidCursorError):
            page(items, other, order_by=order, cursor=cursor)
        assert sent.count == 0


def test_values_and_types_of_filters_tell_lists_apart(items: Session) -> None:
    """IN lists in another order of values, 1 and True, and a number and its text are other filters."""
    put(items, [(number, 1, 1, 1, "1") for number in range(3)])
    cursor = cursor_of(items, select(Item).where(Item.id.in_([0, 1, 2])))
    page(items, select(Item).where(Item.id.in_([0, 1, 2])), order_by=[Item.low.desc()], cursor=cursor)
    with pytest.raises(InvalidCursorError):
        page(items, select(Item).where(Item.id.in_([0, 1, 3])), order_by=[Item.low.desc()], cursor=cursor)


def test_a_cursor_is_good_in_its_workspace_only(db: Database, session: Session, workspace: uuid.UUID) -> None:
    """A cursor from one workspace is refused in another, before anything is sent."""
    for number in range(2):
        session.add(Definition(name=f"d{number}", content=CONTENT))
    cursor = cursor_of(session, select(Definition), [Definition.created_at.desc()])
    with db.session_on(session.connection(), workspace=uuid.uuid4()) as other, pytest.raises(InvalidCursorError):
        page(other, select(Definition), order_by=[Definition.created_at.desc()], cursor=cursor)


def test_tenant_rows_need_a_workspace(db: Database) -> None:
    """Paging tenant rows in a session without a workspace is refused before anything is sent."""
    with db.session() as session, count_queries() as sent, pytest.raises(WorkspaceNotSetError, match=r"paging\.page"):
        page(session, select(Definition), order_by=[Definition.created_at])
    assert sent.count == 0


def test_pages_across_all_workspaces(committed_db: Database) -> None:
    """Maintenance pages through the rows of every workspace; the workspace is then part of the key, and of what a cursor is good for."""
    for slug in ("ours", "theirs"):
        with committed_db.session(make_workspace(committed_db, slug)) as session:
            session.add_all([Definition(name=f"{slug}{number}", content=CONTENT) for number in range(3)])
    with committed_db.all_workspaces(reason="test") as session:
        found = walk(session, select(Definition), [Definition.depth], 2)
        cursor = cursor_of(session, select(Definition), [Definition.depth])
    assert found == sorted(found, key=lambda row: (row.workspace_id, row.id))
    assert len(found) == 6
    with committed_db.session("ours") as session, pytest.raises(InvalidCursorError):
        page(session, select(Definition), order_by=[Definition.depth], cursor=cursor)


def test_a_page_is_a_sequence(items: Session) -> None:
    """A page has a length, is iterated, indexed and sliced, and an empty one is false."""
    put(items, [(number, None, None, 0, None) for number in range(3)])
    part = page(items, select(Item.id), order_by=[Item.id])
    assert len(part) == 3
    assert [row.id for row in part] == [part[0].id, *(row.id for row in part[1:])] == [0, 1, 2]
    assert part[-1] in part
    assert not Page([])


@pytest.mark.requirement("VR-101")
@pytest.mark.offline
def test_the_statement_of_a_page_is_checked_without_a_server() -> None:
    """Mixed directions: each segment behind the row is a range of its own; no offset, no window, and a limit in the text."""
    statement = select(Item.id)
    terms = keysets.terms_of(statement, [Item.kind.asc(), Item.id.desc()])
    behind = keysets.ordered(statement.where(keysets.behind(statement, terms, (False, False))), terms)
    text = str(behind.compile(dialect=postgresql.dialect()))
    assert "page_items.kind > " in text
    assert "page_items.kind = " in text
    assert "UNION ALL" in text
    assert "OFFSET" not in text
    assert "OVER" not in text
    assert text.count("LIMIT") == 3


def test_old_pages_cost_what_the_first_costs(items: Session) -> None:
    """Rows inserted a moment ago in front of the first page change nothing behind it."""
    put(items, [(number, number, None, 0, None) for number in range(10)])
    first = page(items, select(Item), order_by=[Item.low.desc()], limit=4)
    items.execute(sa.insert(Item), [{"id": 100 + number, "low": 50 + number, "kind": 0} for number in range(5)])
    second = page(items, select(Item), order_by=[Item.low.desc()], limit=4, cursor=first.next_cursor)
    assert [item.low for item in (*first, *second)] == [9, 8, 7, 6, 5, 4, 3, 2]


def test_ties_to_the_microsecond_are_kept_apart_by_the_key(session: Session) -> None:
    """Definitions made at the same instant come in the order of their ids, one page each."""
    at = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    for number in range(6):
        session.add(Definition(name=f"d{number}", content=CONTENT, created_at=at + timedelta(microseconds=number // 3)))
    session.flush()
    whole = session.scalars(select(Definition).order_by(Definition.created_at.desc(), Definition.id.desc())).all()
    assert walk(session, select(Definition), [Definition.created_at.desc()], 1) == list(whole)


@pytest.mark.parametrize("with_total", [False, True])
def test_pages_are_the_same_with_and_without_sqlalchemys_loading(session: Session, with_total: bool) -> None:
    """A session whose loading somebody listens to gets the same entities, cursors and totals by another way."""
    session.add_all(Definition(name=f"Version {number}", content=CONTENT) for number in range(5))
    session.flush()
    session.expunge_all()

    def walk(order_by: Sequence[Any]) -> list[tuple[list[Definition], str | None, int | None]]:
        found, cursor = [], None
        while not found or cursor is not None:
            got = page(session, select(Definition), order_by=order_by, cursor=cursor, limit=2, with_total=with_total)
            cursor = got.next_cursor
            found.append((got.items, cursor, got.total))
        return found

    orders = [Definition.name.desc()], [sa.func.lower(Definition.name), Definition.created_at.desc()]
    ours = [walk(order_by) for order_by in orders]
    event.listen(session, "loaded_as_persistent", lambda _session, _object: None)
    assert [walk(order_by) for order_by in orders] == ours
    assert [definition.name for items, _, _ in ours[0] for definition in items] == [f"Version {number}" for number in (4, 3, 2, 1, 0)]


def test_a_pages_statement_keeps_its_options(session: Session) -> None:
    """What the caller asks of SQLAlchemy's loading is done: deferred columns are fetched, objects brought up to date."""
    session.add(Definition(name="Trolley", content=CONTENT))
    session.flush()
    (held,) = page(session, select(Definition), order_by=[Definition.id])
    session.execute(sa.text("UPDATE stemma.definitions SET name = 'Other'"))
    session.expire(held, ["content"])
    statement = select(Definition).options(undefer(Definition.content)).execution_options(populate_existing=True)
    assert page(session, statement, order_by=[Definition.id]).items == [held]
    assert (held.name, held.content) == ("Other", CONTENT)


def test_what_the_session_holds_is_brought_up_to_date_when_asked(session: Session) -> None:
    """populate_existing on the statement, also after a page without it; global entities are read like those of workspaces."""
    user = User(email=f"{uuid.uuid4().hex}@paging.example", name="before")
    session.add(user)
    session.flush()
    session.execute(sa.text("UPDATE stemma.users SET name = 'after' WHERE id = :id"), {"id": user.id})
    statement = select(User).where(User.id == user.id)
    with count_queries() as sent:
        assert page(session, statement, order_by=[User.created_at])[0] is user
        assert user.name == "before"
        fresh = statement.execution_options(populate_existing=True)
        assert page(session, fresh, order_by=[User.created_at])[0].name == "after"
    assert sent.count == 2
    user.name = "mine"
    session.flush()
    session.execute(sa.text("UPDATE stemma.users SET name = 'theirs' WHERE id = :id"), {"id": user.id})
    assert page(session, statement, order_by=[User.created_at])[0].name == "mine"
