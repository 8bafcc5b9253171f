"""
SQLSTATE and constraint name to the library's errors.

Nothing here looks at a server's sentences, which are translated into its language, but in the places that say why. The message of a
result never holds a value of a row or a parameter: PostgreSQL's DETAIL does ("Key (email)=(a@b.c) already exists"), and so does the text
of SQLAlchemy's exceptions. For the same reason callers raise the result ``from None``: a traceback shows the constraint and the code,
kept as a note, and a debugger still finds the original in ``__context__``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psycopg
import pydantic
from psycopg import errors as pg
from sqlalchemy import exc
from sqlalchemy.orm import exc as orm_exc

from stemmadb import errors
from stemmadb._catalogue import entity_name, foreign_key_field, unique_fields
from stemmadb._fields import SCHEMA

# Behind Citus a table on a worker is called as the table, then the number of the shard.
_SHARD = re.compile(r"_\d{6,}$")
# What servers put around names, in the languages that they speak.
_QUOTED = re.compile(r'["«»„“”「]([^"«»„“”」]+)["«»„“”」]')
# The names of the guards' rules (triggers that keep rows from changing); a CHECK's name ends in _check.
_GUARD = re.compile(r"_(immutable|frozen|planned|append_only)$")


def translate(error: Exception) -> errors.StemmaError:
    """
    Return the library's error for one of SQLAlchemy or psycopg.

    A StemmaError, also one that SQLAlchemy has wrapped because it was raised while a parameter was converted, comes back as it is.
    """
    if isinstance(error, errors.StemmaError):
        return error
    if isinstance(error, exc.StatementError) and error.orig is not None and not isinstance(error.orig, psycopg.Error):
        return translate(error.orig) if isinstance(error.orig, Exception) else errors.DatabaseError(None)
    if isinstance(error, exc.DBAPIError) and isinstance(error.orig, psycopg.Error):
        return _with_note(_from_psycopg(error.orig, error.statement, error.connection_invalidated), error.orig)
    if isinstance(error, psycopg.Error):
        # Without SQLAlchemy around it the statement is not known: an INSERT or a COMMIT, so the careful answers are given.
        return _with_note(_from_psycopg(error, None, _broken(error)), error)
    return _from_python(error)


def refused(sqlstate: str, diagnostics: Mapping[str, str]) -> errors.StemmaError:
    """
    Return the library's error for what a server said of a statement that the caller wrote, through another driver than psycopg.

    Args:
        sqlstate: the code.
        diagnostics: what the driver passes on, by libpq's names in small letters.
    """
    said = diagnostics.get
    refusal = _Refusal(
        sqlstate=sqlstate,
        text=said("message_primary", _condition(sqlstate)),
        schema=said("schema_name"),
        table=said("table_name"),
        column=said("column_name"),
        constraint=said("constraint_name"),
        function=None,
        statement="SELECT",
    )
    if sqlstate == "25006":
        return errors.DatabaseError(sqlstate, "The statement writes, and it was to read only")
    # A name that is not there is the statement's fault: the schema was looked at when the pool connected.
    build = _syntax if sqlstate in _OF_THE_STATEMENT else _BY_SQLSTATE.get(sqlstate) or _BY_CLASS.get(sqlstate[:2], _other)
    result = build(refusal)
    result.add_note(f"SQLSTATE {sqlstate} ({_condition(sqlstate)})")
    return result


def _from_python(error: Exception) -> errors.StemmaError:
    """Translate what was raised before or after the server had a say."""
    match error:
        case exc.TimeoutError():
            return errors.PoolTimeoutError()
        case TimeoutError():
            return errors.QueryTimeoutError("deadline")
        case orm_exc.StaleDataError():
            # SQLAlchemy's own sentence: "UPDATE statement on table 'definitions' expected to update 1 row(s); 0 were matched."
            named = re.search(r"on table '(?:\w+\.)?(\w+)'", str(error))
            return errors.VersionConflictError(entity_name(named[1]) if named else "The row", None)
        case exc.NoResultFound() | orm_exc.ObjectDeletedError():
            return errors.NotFoundError("The row", None)
        case exc.PendingRollbackError():
            # Its text repeats the first error, parameters and all.
            return errors.DatabaseError(None, "An earlier statement of this session failed: roll back before the next one")
        case pydantic.ValidationError():
            details = tuple(f"/{'/'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors(include_input=False))
            return errors.ValidationError(f"{error.title} is not valid: {'; '.join(details)}", None, details)
        case UnicodeEncodeError():
            return errors.ValidationError("A text holds a lone surrogate, which PostgreSQL cannot store: remove it")
        case exc.InvalidRequestError() | exc.ArgumentError() | exc.CompileError() | orm_exc.FlushError():
            return errors.DatabaseError(None, f"The session cannot do this: {error}")
        case ValueError() | TypeError() | ArithmeticError():
            return errors.ValidationError(f"A value cannot be stored ({type(error).__name__}): check the types of what was given")
    return errors.DatabaseError(None, f"The database layer failed with {type(error).__name__}")


@dataclass(frozen=True, slots=True)
class _Refusal:
    """What a server said, as far as errors are made of it."""

    sqlstate: str
    text: str
    schema: str | None
    table: str | None
    column: str | None
    constraint: str | None
    function: str | None
    statement: str | None

    @property
    def entity(self) -> str:
        if not self.table:
            return "The row"
        # A host may have a table of the same name in a schema of its own.
        return entity_name(self.table) if self.schema in (None, SCHEMA) else self.table

    @property
    def in_transaction(self) -> bool:
        """Whether it met a statement, so that nothing was committed; else it may have met the COMMIT."""
        return self.statement is not None


def _from_psycopg(error: psycopg.Error, statement: str | None, broken: bool) -> errors.StemmaError:
    if error.sqlstate is None:
        return _without_sqlstate(error, statement, broken)
    diag = error.diag
    text = diag.message_primary or ""
    constraint = diag.constraint_name
    if constraint is None and error.sqlstate.startswith("23"):
        # Citus passes on the sentence alone, with the name of a shard. The constraint is the last name in it, for a foreign key met
        # from the other side the one before.
        names = [_SHARD.sub("", name) for name in _QUOTED.findall(text)]
        position = -2 if len(names) > 2 else -1
        constraint = names[position] if names and error.sqlstate != "23502" else None
    refusal = _Refusal(
        sqlstate=error.sqlstate,
        text=text,
        schema=diag.schema_name,
        table=_SHARD.sub("", diag.table_name) if diag.table_name else None,
        column=diag.column_name,
        constraint=_SHARD.sub("", constraint) if constraint else None,
        function=diag.source_function,
        statement=statement,
    )
    build = _BY_SQLSTATE.get(error.sqlstate) or _BY_CLASS.get(error.sqlstate[:2], _other)
    return build(refusal)


def _without_sqlstate(error: psycopg.Error, statement: str | None, broken: bool) -> errors.StemmaError:
    """Translate what the driver says by itself: no connection was made, it broke, or a value cannot be sent."""
    if error.pgconn is not None or isinstance(error, pg.ConnectionTimeout):
        return _refused_connection(error)
    if broken:
        return errors.ConnectionLostError(safe_to_retry=statement is not None)
    if isinstance(error, psycopg.DataError):
        return errors.ValidationError(
            "A value cannot be stored: PostgreSQL's text holds no NUL character, and its times end with the year 9999"
        )
    if isinstance(error, psycopg.ProgrammingError | psycopg.NotSupportedError):
        return errors.ValidationError("A value has a type that PostgreSQL does not know: check the types of what was given")
    if statement is None:
        return errors.DatabaseUnavailableError(f"The database cannot be reached: {_first_line(error)}", safe_to_retry=True)
    return errors.DatabaseError(None, f"The statement could not be sent: {_first_line(error)}")


# A refused connection has no SQLSTATE: libpq keeps it to itself. These are the server's (and PgBouncer's) English words; in another
# language a refused login reads as an unreachable database, whose message carries the server's own.
_LOGIN = re.compile(
    r"authentication failed|does not exist|no pg_hba\.conf entry|not permitted to log in|no such (user|database)|permission denied"
)


def _refused_connection(error: psycopg.Error) -> errors.StemmaError:
    pgconn = error.pgconn
    if pgconn is not None and "FATAL" in str(error) and (pgconn.needs_password or _LOGIN.search(str(error))):
        return errors.ConfigurationError(
            "The database refused the login: check user, password and database name",
            pgconn.host.decode(errors="replace"),
            int(pgconn.port) if pgconn.port else None,
            pgconn.db.decode(errors="replace"),
            pgconn.user.decode(errors="replace"),
        )
    return errors.DatabaseUnavailableError(f"The database cannot be reached: {_first_line(error)}", safe_to_retry=True)


def _unique(refusal: _Refusal) -> errors.StemmaError:
    return errors.ConflictError(refusal.entity, unique_fields(refusal.table, refusal.constraint))


def _foreign_key(refusal: _Refusal) -> errors.StemmaError:
    """
    Tell the two ends of a foreign key apart.

    The diagnostics are the same for both: the table is always the referring one. The statement's verb says it for INSERT and DELETE. For
    the others (UPDATE, WITH, a deferred check at COMMIT) the number of names does, in any language: a row still referred to is reported
    with its own table, the constraint and the referring table, a missing one with the referring table and the constraint.
    """
    field = foreign_key_field(refusal.table, refusal.constraint)
    verb = _verb(refusal.statement)
    if refusal.sqlstate == "23001" or verb == "DELETE" or (verb != "INSERT" and len(_QUOTED.findall(refusal.text)) > 2):
        return errors.StillReferencedError(refusal.constraint, field, (refusal.table,) if refusal.table else ())
    return errors.ReferenceNotFoundError(refusal.constraint, field)


def _check(refusal: _Refusal) -> errors.StemmaError:
    constraint = refusal.constraint
    if constraint is not None and _GUARD.search(constraint):
        # The sentence is the guard's own and names the rule, never a value.
        return errors.FrozenError(refusal.entity, None, refusal.text)
    return errors.ConstraintViolationError(constraint, refusal.column)


def _not_null(refusal: _Refusal) -> errors.StemmaError:
    column = refusal.column or next(iter(_QUOTED.findall(refusal.text)), None)
    if column == "workspace_id":
        return errors.WorkspaceNotSetError()
    return errors.ConstraintViolationError(None, column, f"{column or 'A field'} is required: give it a value")


def _denied(refusal: _Refusal) -> errors.StemmaError:
    names = _QUOTED.findall(refusal.text)
    if refusal.function == "ExecWithCheckOptions":
        return errors.TenantViolationError(entity_name(names[-1]) if names else None)
    return errors.PermissionDeniedError("database", f"The database login may not do this: {refusal.text}; ask its owner for the grant")


def _schema(_: _Refusal) -> errors.StemmaError:
    return errors.SchemaOutOfDateError()


def _lost(refusal: _Refusal) -> errors.StemmaError:
    return errors.ConnectionLostError(safe_to_retry=refusal.in_transaction, sqlstate=refusal.sqlstate)


def _busy(refusal: _Refusal) -> errors.StemmaError:
    message = "The database takes no work now; try again in a moment"
    return errors.DatabaseUnavailableError(message, safe_to_retry=refusal.in_transaction, sqlstate=refusal.sqlstate)


def _read_only(refusal: _Refusal) -> errors.StemmaError:
    message = "The server, or this session, only reads: after a failover connect again; to write, open a session that is not read_only"
    return errors.DatabaseUnavailableError(message, safe_to_retry=refusal.in_transaction, sqlstate=refusal.sqlstate)


def is_stale_plan(error: psycopg.Error) -> bool:
    """Whether a statement that the driver had prepared does not fit the tables any more: one of its columns changed its type."""
    return error.sqlstate == "0A000" and error.diag.source_function == "RevalidateCachedQuery"


def _unsupported(refusal: _Refusal) -> errors.StemmaError:
    if refusal.function == "RevalidateCachedQuery":
        message = "The tables changed while the connection was open, and it was given up: open a new session and repeat the work"
        return errors.ConnectionLostError(message, safe_to_retry=refusal.in_transaction, sqlstate=refusal.sqlstate)
    return _other(refusal)


def _bad_value(message: str) -> Callable[[_Refusal], errors.StemmaError]:
    return lambda refusal: errors.ValidationError(message, refusal.column)


def _bad_data(refusal: _Refusal) -> errors.StemmaError:
    return errors.ValidationError(f"The database cannot work with a value ({_condition(refusal.sqlstate)}): correct it", refusal.column)


def _configuration(_: _Refusal) -> errors.StemmaError:
    return errors.ConfigurationError("The database refused the login: check user, password and database name")


def _syntax(refusal: _Refusal) -> errors.StemmaError:
    # Names of objects and types, never values.
    return errors.DatabaseError(refusal.sqlstate, f"The database refused the statement: {refusal.text}")


def _other(refusal: _Refusal) -> errors.StemmaError:
    return errors.DatabaseError(refusal.sqlstate, f"The database refused the statement: {_condition(refusal.sqlstate)}")


_BY_SQLSTATE: dict[str, Callable[[_Refusal], errors.StemmaError]] = {
    "0A000": _unsupported,
    "22001": _bad_value("A text is longer than its column allows: shorten it"),
    "22003": _bad_value("A number is outside of what its column can hold"),
    "22P02": _bad_value("A text does not have the form of its type, such as a number or a UUID"),
    "22P05": _bad_value("A text holds a character that the database cannot store: remove it"),
    "23001": _foreign_key,  # PostgreSQL 18 reports ON DELETE RESTRICT so, earlier versions as 23503
    "23502": _not_null,
    "23503": _foreign_key,
    "23505": _unique,
    "23514": _check,
    "23P01": _unique,
    "25006": _read_only,
    "25P02": lambda r: errors.DatabaseError(r.sqlstate, "An earlier statement of this transaction failed: roll back before the next one"),
    "25P03": lambda r: errors.QueryTimeoutError("idle", r.sqlstate),
    "25P04": lambda r: errors.QueryTimeoutError("deadline", r.sqlstate),
    "28000": _configuration,
    "28P01": _configuration,
    "3D000": _configuration,
    "3F000": _schema,
    "40001": lambda r: errors.SerializationError(r.sqlstate),
    "40003": lambda _: errors.CommitUnknownError(),
    "40P01": lambda r: errors.SerializationError(r.sqlstate),
    "42501": _denied,
    "42703": _schema,
    "42P01": _schema,
    "53100": lambda _: errors.StorageFullError(),
    "53300": _busy,
    "54000": _bad_value("A value is larger than PostgreSQL can hold: split it"),
    "55P03": lambda _: errors.LockTimeoutError(),
    "57014": lambda r: errors.QueryTimeoutError("statement", r.sqlstate),
    "57P01": _lost,
    "57P02": _lost,
    "57P03": _busy,
    "57P05": _lost,
}
_OF_THE_STATEMENT = ("0A000", "3F000", "42703", "42P01")
_BY_CLASS: dict[str, Callable[[_Refusal], errors.StemmaError]] = {
    "08": _lost,
    "22": _bad_data,
    "23": _check,
    "42": _syntax,
    "53": _busy,
}


def _with_note(result: errors.StemmaError, error: psycopg.Error) -> errors.StemmaError:
    """Add what the server named, so that a traceback without its cause still says where to look."""
    if error.sqlstate is not None:
        diag = error.diag
        names = {"table": diag.table_name, "column": diag.column_name, "constraint": diag.constraint_name}
        parts = [f"SQLSTATE {error.sqlstate} ({_condition(error.sqlstate)})", *(f"{k} {v}" for k, v in names.items() if v)]
        result.add_note(", ".join(parts))
    return result


def _condition(sqlstate: str) -> str:
    """Return PostgreSQL's own name of a code in words: ``unique violation``."""
    try:
        name = pg.lookup(sqlstate).__name__
    except KeyError:
        return f"SQLSTATE {sqlstate}"
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower()


def _verb(statement: str | None) -> str:
    """Return the first word of a statement, behind comments."""
    bare = re.sub(r"^(\s+|--[^\n]*\n|/\*.*?\*/)+", "", statement or "", flags=re.DOTALL)
    return bare.split(None, 1)[0].upper() if bare else ""


def _broken(error: psycopg.Error) -> bool:
    """Whether a bare error without SQLSTATE means that the connection is gone. The sentences are psycopg's own."""
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and bool(
        re.search(r"connection is (closed|lost|bad)|consuming input failed|sending query failed|server closed|flushing failed", str(error))
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
