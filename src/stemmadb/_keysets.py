"""
The order of a page, and the statement that continues behind a row.

The rows behind a row fall into disjoint segments, each of which an index in the order of the page can serve from its first row on.
Where the directions agree and no value that sorts last is NULL there is one, a row comparison. Otherwise each segment gives its
first keys, and the page is the first rows of these few.
"""

import dataclasses
import enum
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import (
    Alias,
    BooleanClauseList,
    Column,
    ColumnElement,
    FromClause,
    Integer,
    Join,
    Label,
    Select,
    Table,
    UnaryExpression,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.sql import coercions, operators, roles
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, _label_reference

from stemmadb.errors import ValidationError

_DIRECTIONS: dict[Any, bool] = {operators.asc_op: False, operators.desc_op: True}
_NULLS: dict[Any, bool] = {operators.nulls_first_op: True, operators.nulls_last_op: False}

# Rendered into the text: with a parameter PostgreSQL plans for a tenth of the table, and at most 200 texts can arise.
FETCH = bindparam("page_fetch", type_=Integer(), literal_execute=True)
"""How many rows the statement fetches: one more than the page shows."""


@dataclasses.dataclass(frozen=True)
class Term:
    """One expression of an order."""

    expression: ColumnElement[Any]
    descending: bool
    nulls_first: bool
    nullable: bool
    key: bool
    """Whether it is part of the key of the rows."""

    @property
    def ordered(self) -> ColumnElement[Any]:
        """The expression as ORDER BY has it."""
        by = self.expression.desc() if self.descending else self.expression.asc()
        # Left out where they say nothing: PostgreSQL matches an index by the words, even for a column that has no NULLs.
        if not self.nullable or self.nulls_first == self.descending:
            return by
        return by.nulls_first() if self.nulls_first else by.nulls_last()

    @property
    def enum(self) -> type[enum.Enum] | None:
        """The class of the expression's values when they are members of an enum."""
        kind = self.expression.type
        found = getattr(kind, "enum_class", None) or getattr(kind, "enum", None)
        return found if isinstance(found, type) and issubclass(found, enum.Enum) else None


def terms_of(statement: Select[Any], order_by: Sequence[Any], constant: Sequence[ColumnElement[Any]] = ()) -> tuple[Term, ...]:
    """
    Return the order of the page: what was asked for, then the keys of the selected tables in the direction of the last term.

    Columns that an equality in WHERE fixes order nothing and are left out, and so are those in ``constant``.

    Raises:
        ValidationError: an order that is no expression, or a statement without a key or with a limit of its own.
    """
    _check(statement)
    keys = key_of(statement)
    settled = [*constant, *_fixed(statement)]
    optional = {table for joined in statement.get_final_froms() for table in _optional(joined)}
    asked = [_parse(item) for item in order_by]
    descending = asked[-1][1] if asked else False
    asked += [(column, descending, None) for column in keys]
    terms: list[Term] = []
    for expression, downwards, nulls_first in asked:
        if not _holds(settled, expression):
            settled.append(expression)
            nulls = downwards if nulls_first is None else nulls_first
            terms.append(Term(expression, downwards, nulls, _nullable(expression, optional), _holds(keys, expression)))
    return tuple(terms)


def key_of(statement: Select[Any]) -> list[ColumnElement[Any]]:
    """
    Return the primary keys of the tables that the statement selects from.

    Raises:
        ValidationError: there is none, so rows cannot be told apart.
    """
    tables = dict.fromkeys(column.table for column in statement.selected_columns if getattr(column, "table", None) is not None)
    keys = [column for table in tables for column in table.primary_key]
    if not keys:
        message = "Pages need rows with a key: select at least one column of a table with a primary key"
        raise ValidationError(message, "statement")
    return keys


def marks(statement: Select[Any], terms: Sequence[Term], *, total: bool) -> list[ColumnElement[Any]]:
    """Return the columns behind the statement's own: the values of its order, and with ``total`` the number of all rows."""
    # Read beside the entity, not from it: an entity that the session already holds keeps the values it was loaded with.
    columns: list[Any] = [term.expression.label(f"page_mark_{number}") for number, term in enumerate(terms)]
    return [*columns, count_of(statement).label("page_total")] if total else columns


def count_of(statement: Select[Any]) -> Any:
    """Return the number of the statement's rows as a scalar subquery."""
    rows = statement.order_by(None).with_only_columns(*key_of(statement), maintain_column_froms=True).subquery("page_rows")
    return select(func.count()).select_from(rows).scalar_subquery()


def ordered(statement: Select[Any], terms: Sequence[Term], fetch: int | None = None) -> Select[Any]:
    """Return the statement in this order, with the limit: a number, or the parameter."""
    limit = FETCH if fetch is None else literal_column(str(fetch), Integer())
    return statement.order_by(None).order_by(*[term.ordered for term in terms]).limit(limit)


def behind(statement: Select[Any], terms: Sequence[Term], nulls: Sequence[bool]) -> ColumnElement[bool]:
    """
    Return the condition that a row of the statement comes behind the row with these values.

    Args:
        statement: what is paged, before order and limit.
        terms: its order, which ends in the key.
        nulls: for each term, whether the value of the row is NULL. The others are the parameters ``page_after_0``, ...
    """
    segments = list(_segments(terms, nulls))
    if len(segments) == 1:
        return segments[0]
    if any(term.nullable for term in terms if term.key):
        # The key of an outer-joined table may be NULL, which IN does not find.
        return or_(*segments)
    keys = [term.expression for term in terms if term.key]
    narrow = statement.with_only_columns(*keys, maintain_column_froms=True)
    first = [ordered(narrow.where(segment), terms) for segment in segments]
    found = union_all(*first).subquery("page_keys")
    key: Any = tuple_(*keys) if len(keys) > 1 else keys[0]
    return key.in_(select(*found.c))  # type: ignore[no-any-return]


def parameter(number: int) -> str:
    """Return the name of the parameter for the value of this term."""
    return f"page_after_{number}"


def _segments(terms: Sequence[Term], nulls: Sequence[bool]) -> Iterator[ColumnElement[bool]]:
    """Yield conditions for the rows behind the given one: no row meets two of them, and together they miss none."""
    start = 0
    same: tuple[ColumnElement[bool], ...] = ()
    while start < len(terms):
        end = _run(terms, nulls, start)
        values = [_value(terms, number) for number in range(start, end)]
        if values:
            yield and_(*same, _beyond(terms[start:end], values))
        for number in range(start, end):
            term = terms[number]
            if term.nullable and not term.nulls_first:
                equal = [terms[before].expression == _value(terms, before) for before in range(start, number)]
                yield and_(*same, *equal, term.expression.is_(None))
        same = (*same, *[terms[number].expression == _value(terms, number) for number in range(start, end)])
        start = end
        if start < len(terms) and nulls[start]:
            term = terms[start]
            if term.nulls_first:
                yield and_(*same, term.expression.is_not(None))
            same = (*same, term.expression.is_(None))
            start += 1


def _run(terms: Sequence[Term], nulls: Sequence[bool], start: int) -> int:
    """Return the end of the terms from ``start`` on that one row comparison covers: the same direction, and no NULL among the values."""
    end = start
    while end < len(terms) and not nulls[end] and terms[end].descending == terms[start].descending:
        end += 1
    return end


def _value(terms: Sequence[Term], number: int) -> BindParameter[Any]:
    return bindparam(parameter(number), type_=terms[number].expression.type)


def _beyond(terms: Sequence[Term], values: Sequence[BindParameter[Any]]) -> ColumnElement[bool]:
    left: Any = terms[0].expression
    right: Any = values[0]
    if len(terms) > 1:
        left, right = tuple_(*[term.expression for term in terms]), tuple_(*values)
    return left < right if terms[0].descending else left > right  # type: ignore[no-any-return]


def _check(statement: Select[Any]) -> None:
    if statement._limit_clause is not None or statement._offset_clause is not None or statement._fetch_clause is not None:
        message = "A page sets the limit itself: put a statement with LIMIT, OFFSET or FETCH in a subquery and select from that"
        raise ValidationError(message, "statement")
    if statement._distinct or statement._distinct_on:
        message = "A page adds the key to the columns, which would undo DISTINCT: put the statement in a subquery and select from that"
        raise ValidationError(message, "statement")


def _parse(asked: Any) -> tuple[ColumnElement[Any], bool, bool | None]:
    """Return the expression, whether it goes down, and whether NULLs come first; None when that was not said."""
    expression: Any = None if isinstance(asked, str) else coercions.expect(roles.OrderByRole, asked)
    descending = False
    nulls_first: bool | None = None
    while isinstance(expression, UnaryExpression | _label_reference | Label):
        modifier = getattr(expression, "modifier", None)
        if isinstance(expression, UnaryExpression) and modifier is None:
            break
        descending = _DIRECTIONS.get(modifier, descending)
        nulls_first = _NULLS.get(modifier, nulls_first)
        expression = expression.element
    if not isinstance(expression, ColumnElement):
        message = "order_by takes column expressions, each with asc() or desc() and nulls_first() or nulls_last() as needed"
        raise ValidationError(message, "order_by")
    return expression, descending, nulls_first


def _nullable(expression: ColumnElement[Any], optional: set[FromClause]) -> bool:
    """Return whether the expression may be NULL in a row of the statement, as far as can be told."""
    if not isinstance(expression, Column) or expression.nullable:
        return True
    table = expression.table
    # A column of a subquery is NOT NULL in its table, and may still be NULL in the subquery.
    return table in optional or not isinstance(table.element if isinstance(table, Alias) else table, Table)


def _optional(joined: Any) -> Iterator[FromClause]:
    """Yield the tables whose columns are NULL in rows without a partner."""
    if not isinstance(joined, Join):
        return
    for side, missing in ((joined.left, joined.full), (joined.right, joined.isouter or joined.full)):
        if missing:
            yield from side._from_objects
        else:
            yield from _optional(side)


def _fixed(statement: Select[Any]) -> Iterator[ColumnElement[Any]]:
    """Yield the columns that WHERE compares for equality with one value."""
    pending: list[Any] = [] if statement.whereclause is None else [statement.whereclause]
    while pending:
        condition = pending.pop()
        if isinstance(condition, BooleanClauseList) and condition.operator is operators.and_:
            pending.extend(condition.clauses)
        elif isinstance(condition, BinaryExpression) and condition.operator is operators.eq and isinstance(condition.right, BindParameter):
            yield condition.left


def _holds(expressions: Sequence[ColumnElement[Any]], wanted: ColumnElement[Any]) -> bool:
    return any(expression.compare(wanted) for expression in expressions)
