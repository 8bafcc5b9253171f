"""Frames: what a statement returns as a table of polars, pandas or Arrow."""

import contextlib
import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args
from uuid import UUID

import psycopg
from sqlalchemy import Connection, Executable, text
from sqlalchemy.orm import Session

from stemmadb import tenancy
from stemmadb._arrow import Source, driver_of, reading, require_adbc, source_of
from stemmadb.errors import MissingDependencyError, ValidationError
from stemmadb.query import translated

Backend: TypeAlias = Literal["polars", "pandas", "arrow"]
"""Whose frames are given: ``polars.DataFrame``, ``pandas.DataFrame`` or ``pyarrow.Table``."""

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

    Frame: TypeAlias = polars.DataFrame | pandas.DataFrame | pyarrow.Table
    """What a backend gives."""
    Batches: TypeAlias = pyarrow.RecordBatchReader
else:
    # None of them need be installed.
    Frame = Batches = object

_PANDAS: Final = "pandas"
_READS: Final = re.compile(r"(\s|\(|--[^\n]*\n|/\*.*?\*/)*(select|with|values|table)\b", re.IGNORECASE | re.DOTALL)


class Question:
    """A statement with its values, and where it is asked: all that is needed of the session."""

    def __init__(self, source: Source, statement: str) -> None:
        self._source = source
        self._statement = statement

    def frame(self, backend: Backend, finish: "Callable[[pyarrow.Table], pyarrow.Table] | None" = None) -> Frame:
        """Return every row, as ``finish`` leaves them."""
        with reading(self._source, self._statement) as reader:
            return reader.whole(lambda table: converted(table if finish is None else finish(table), backend))

    @contextlib.contextmanager
    def batches(self) -> Iterator[Batches]:
        """Give the rows as they come, inside the block."""
        import pyarrow

        with reading(self._source, self._statement) as reader:
            yield pyarrow.RecordBatchReader.from_batches(reader.schema, iter(reader.next_batch, None))


def check(backend: Backend) -> None:
    """
    Refuse a backend that is unknown, or not there. Nothing of it is imported.

    Raises:
        MissingDependencyError: it is not installed.
        ValidationError: it is none.
    """
    if backend not in get_args(Backend):
        raise ValidationError(f"backend is one of {', '.join(get_args(Backend))}", "backend")
    require_adbc()
    if backend != "arrow" and importlib.util.find_spec(backend) is None:
        raise MissingDependencyError(_PANDAS if backend == _PANDAS else "frames")


def question(session: Session, statement: Executable | str, params: Mapping[str, Any] | None, function: str) -> Question:
    """
    Take from a session what is needed to ask a statement elsewhere. The session's transaction begins, if it has not.

    Args:
        session: in a workspace.
        statement: SQL text, or a statement of SQLAlchemy. Text without ``params`` is sent as it is, colons and all.
        params: values for its ``:name`` parameters.
        function: who asks, for messages.

    Raises:
        WorkspaceNotSetError: the session has no workspace; nothing was sent.
    """
    workspace_id = tenancy.require(session, function)
    with translated():
        connection = tenancy.connection_of(session)
        return Question(source_of(connection, workspace_id), _text_of(connection, statement, params, workspace_id))


def _text_of(connection: Connection, statement: Executable | str, params: Mapping[str, Any] | None, workspace_id: UUID) -> str:
    """
    Return the statement with its values written into it, by the rules of the connection that they were adapted for.

    What is read with parameters is not streamed by ADBC, nor can it be copied.
    """
    if isinstance(statement, str):
        if params is None:
            return _bare(statement)
        statement = text(statement)
    made: Any = tenancy.narrowed(statement, workspace_id)
    compiled = made.compile(dialect=connection.dialect)
    given = dict(params or {})
    if missing := sorted(bind.key for bind in compiled.binds.values() if bind.required and bind.key not in given):
        raise ValidationError(f"the statement has parameters without a value: {', '.join(missing)}", "params")
    state = compiled.construct_expanded_state(given)
    processors = {**compiled._bind_processors, **state.processors}
    values = {name: processors[name](value) if name in processors else value for name, value in state.parameters.items()}
    driver = driver_of(connection)
    cursor = psycopg.ClientCursor(driver) if isinstance(driver, psycopg.Connection) else psycopg.AsyncClientCursor(driver)
    return _bare(cursor.mogrify(state.statement, values))


def _bare(statement: str) -> str:
    """
    Return a statement that can be put into another.

    Raises:
        ValidationError: it is none that returns rows by reading.
    """
    if _READS.match(statement) is None:
        raise ValidationError("a frame is made from a statement that reads: SELECT, WITH, VALUES or TABLE", "statement")
    # A comment at its end must not swallow what follows.
    return statement.strip().rstrip(";") + "\n"


def converted(table: "pyarrow.Table", backend: Backend) -> Frame:
    """Return the frame of an Arrow table."""
    if backend == "arrow":
        return table
    if backend == "polars":
        import polars

        return polars.DataFrame(table)
    import pandas
    import pyarrow

    # Whole numbers and truth values stay what they are beside NULL, of which NumPy's arrays know nothing.
    exact: dict[Any, Any] = {
        pyarrow.bool_(): pandas.BooleanDtype(),
        pyarrow.int16(): pandas.Int16Dtype(),
        pyarrow.int32(): pandas.Int32Dtype(),
        pyarrow.int64(): pandas.Int64Dtype(),
    }
    return table.to_pandas(types_mapper=exact.get, date_as_object=False)
