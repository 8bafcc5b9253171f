"""Writing one column of many rows anew, batch by batch, beside running writers: what rotating secrets and upgrading documents share."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import JSON, Column, ColumnElement, Text, Update, bindparam, cast, func, select, text, tuple_, update
from sqlalchemy import column as plain_column
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

MAX_BATCH: Final = 10_000
PASSES: Final = 3
"""How often a run goes over its table: for rows that were locked, or written by a process of an older release, while a pass went by."""

# Told to the tables' triggers: such an UPDATE is no change of the row.
_REWRITE = text("SET LOCAL stemma.rewrite = 'on'")


class Rewrite:
    """
    The rows of a column that are to be written anew.

    Args:
        session: commits are the caller's, after each batch.
        column: the column.
        old: which rows; one that has been written is none of them any more.
        stored: the type of what is written.
    """

    def __init__(self, session: Session, column: Column[Any], old: ColumnElement[bool], stored: TypeEngine[Any]) -> None:
        self._session = session
        self._column = column
        self._old = old
        self._key: list[Column[Any]] = list(column.table.primary_key)
        self._update = self._statement(stored)

    def batches(self, size: int, *, locked: bool) -> Iterator[Sequence[Any]]:
        """
        Yield rows of the primary key and the column's text, so many at once, in the order of the key.

        Rows are locked until the transaction ends, and those that others hold are passed over; not so unless *locked*.
        """
        after: tuple[Any, ...] | None = None
        while True:
            statement = select(*self._key, cast(self._column, Text)).where(self._old).order_by(*self._key).limit(size)
            if after is not None:
                statement = statement.where(tuple_(*self._key) > tuple_(*after))
            if locked:
                self._session.execute(_REWRITE)
                # The lock of an UPDATE that changes no key: rows that refer to it can still be added.
                statement = statement.with_for_update(key_share=True, skip_locked=True)
            rows = self._session.connection().execute(statement).all()
            if rows:
                yield rows
                after = tuple(rows[-1][:-1])
            if len(rows) < size:
                return

    def write(self, rows: Iterable[tuple[Sequence[Any], str]]) -> int:
        """Give each row, named by its key, the value of a JSON text; return how many there were. One statement, one parameter."""
        values = []
        for key, value in rows:
            named = json.dumps({f"key_{position}": part for position, part in enumerate(key)}, default=str)
            values.append(f'{named[:-1]},"value":{value}}}')
        result: Any = self._session.connection().execute(self._update, {"rows": f"[{','.join(values)}]"})
        return int(result.rowcount)

    def _statement(self, stored: TypeEngine[Any]) -> Update:
        table: Any = self._column.table
        types = [plain_column(f"key_{position}", part.type) for position, part in enumerate(self._key)]
        given = (
            func.json_to_recordset(cast(bindparam("rows", type_=Text), JSON))
            .table_valued(*types, plain_column("value", stored), name="given")
            .render_derived(with_types=True)
        )
        same = [part == given.c[f"key_{position}"] for position, part in enumerate(self._key)]
        # It is no change of the row: what SQLAlchemy would set with every UPDATE stays.
        kept = {other: other for other in table.columns if other.onupdate is not None}
        return update(table).values({self._column: given.c.value, **kept}).where(*same, self._old)
