"""The root of the library's errors, and those about what the caller gave: ids, fields, documents, workspaces, rights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Self

_MAX_KEY = 200


class StemmaError(Exception):
    """
    Whatever the library raises on purpose.

    Errors pickle: the fields of a class are its constructor's parameters and stand in ``args``, in the same order.
    """

    code: ClassVar[str] = "stemma"
    """The name of the class in snake case without ``Error``. It never changes: answers to clients may carry it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__.removesuffix("Error"))
        cls.code = words.lower()


class NotFoundError(StemmaError):
    """There is no such row for this caller. An id of another workspace and an id that is none read the same. HTTP 404."""

    def __init__(self, entity: str, id: object) -> None:
        super().__init__(entity, id)
        self.entity = entity
        self.id = id

    def __str__(self) -> str:
        name = self.entity if self.id is None else f"{self.entity} {_key_text(self.id)}"
        return f"{name} was not found: check the id, and that the session is in the right workspace"


class ValidationError(StemmaError):
    """
    The input is not acceptable, and nothing was stored. HTTP 422.

    Args:
        message: what is wrong and what would be right.
        field: the name of the parameter or field; None when no single one is to blame.
        details: one line for each thing that is wrong, ``/json/pointer: reason``. Never values.
    """

    def __init__(self, message: str, field: str | None = None, details: Sequence[str] = ()) -> None:
        super().__init__(message, field, tuple(details))
        self.message = message
        self.field = field
        self.details: tuple[str, ...] = tuple(details)

    def __str__(self) -> str:
        return self.message


class ConstraintViolationError(ValidationError):
    """The database refused a value: a CHECK or NOT NULL rule, named by ``constraint``. HTTP 422."""

    def __init__(self, constraint: str | None, column: str | None = None, message: str | None = None) -> None:
        place = f" in {column}" if column else ""
        rule = f"rule {constraint}" if constraint else "a rule of the table"
        super().__init__(message or f"A value{place} breaks {rule}: correct it and send it again", column)
        self.args: tuple[Any, ...] = (constraint, column, self.message)
        self.constraint = constraint
        self.column = column


class UnknownFieldError(ValidationError):
    """A filter, sort order or field list names a field that the entity does not offer. HTTP 422."""

    def __init__(self, entity: str, name: str, allowed: Sequence[str] = ()) -> None:
        known = f": use one of {', '.join(allowed)}" if allowed else ""
        super().__init__(f"{entity} has no field {name!r} for this{known}", name)
        self.args: tuple[Any, ...] = (entity, name, tuple(allowed))
        self.entity = entity
        self.name = name
        self.allowed: tuple[str, ...] = tuple(allowed)


class InvalidCursorError(ValidationError):
    """The cursor was edited, or belongs to another function, filter or order. HTTP 422."""

    def __init__(self) -> None:
        super().__init__("This cursor does not belong to this list with these filters and this order: start at the first page", "cursor")
        self.args: tuple[Any, ...] = ()


class ExpiredCursorError(InvalidCursorError):
    """The cursor is of this list, but the server does not know, or no longer, what its first page saw: begin anew. HTTP 410."""

    def __init__(self) -> None:
        ValidationError.__init__(self, "The pages of this walk cannot be told any more: start at the first page", "cursor")
        self.args: tuple[Any, ...] = ()


class DocumentError(ValidationError):
    """
    A JSON document cannot be read or written. HTTP 422 for a document that was sent, 500 for a stored one.

    Args:
        table: the table of the stored document; None for a document outside a table.
        column: its column, likewise.
        key: the key of its row; None when it is not known.
        message: what is wrong.
    """

    def __init__(self, table: str | None, column: str | None, key: object, message: str) -> None:
        place = _place(table, column, key)
        super().__init__(f"{place[0].upper()}{place[1:]} {message}" if table is None else f"{place} {message}", column)
        self.args: tuple[Any, ...] = (table, column, key, message)
        self.table = table
        self.column = column
        self.key = key

    def located(self, table: str | None, column: str | None, key: object) -> Self:
        """Return the same error about the document in this place."""
        return type(self)(table, column, key, *self.args[3:])


class UnknownSchemaVersionError(DocumentError):
    """The document was written by a newer release. It was not parsed and is not overwritten. HTTP 500."""

    def __init__(self, table: str | None, column: str | None, key: object, found: int, known: int) -> None:
        super().__init__(table, column, key, "")
        self.args: tuple[Any, ...] = (table, column, key, found, known)
        self.message: str = (
            f"Unknown schema version {found} in {_place(table, column, key)}: this release knows versions up to {known}; "
            "update stemmadb, or read the stored value as it is"
        )
        self.found = found
        self.known = known


class CorruptDocumentError(DocumentError):
    """The document is not what its type says. ``pointer`` is the JSON Pointer of the place, empty for the whole. HTTP 422 or 500."""

    def __init__(self, table: str | None, column: str | None, key: object, reason: str, pointer: str = "") -> None:
        super().__init__(table, column, key, f"is not valid at {pointer!r}: {reason}" if pointer else f"is not valid: {reason}")
        self.args: tuple[Any, ...] = (table, column, key, reason, pointer)
        self.reason = reason
        self.pointer = pointer


class DocumentTooLargeError(DocumentError):
    """The document has more bytes than one may have. HTTP 413."""

    def __init__(self, table: str | None, column: str | None, key: object, size: int, limit: int) -> None:
        super().__init__(table, column, key, f"has {size} bytes, and {limit} is the most: split it, or keep large content elsewhere")
        self.args: tuple[Any, ...] = (table, column, key, size, limit)
        self.size = size
        self.limit = limit


class MalformedFileError(ValidationError):
    """
    A file that was to be imported is not what it should be. HTTP 422.

    Args:
        file: its path, as it was given.
        part: ``line 3``, or the member of an archive; empty for a file of one JSON value.
        pointer: the JSON Pointer of the place inside of that, empty for the whole.
        reason: what is wrong there.
    """

    def __init__(self, file: str, part: str, pointer: str, reason: str) -> None:
        place = ", ".join(_key_text(each) for each in (file, part, pointer) if each)
        super().__init__(f"{place}: {reason}: correct the file, or leave it out")
        self.args: tuple[Any, ...] = (file, part, pointer, reason)
        self.file = file
        self.part = part
        self.pointer = pointer
        self.reason = reason


class CoverageError(ValidationError):
    """Two runs do not cover the same scenarios, models and samples, and the plan asks that they do. HTTP 422."""

    def __init__(self, matched: int, only_baseline: int, only_comparison: int) -> None:
        super().__init__(
            f"The runs share {matched} samples; {only_baseline} are only in the baseline and {only_comparison} only in the comparison: "
            'complete the runs, or compare them under a plan with coverage="overlap"'
        )
        self.args: tuple[Any, ...] = (matched, only_baseline, only_comparison)
        self.matched = matched
        self.only_baseline = only_baseline
        self.only_comparison = only_comparison


class TenancyError(StemmaError):
    """Something about the session's workspace."""


class WorkspaceNotSetError(TenancyError):
    """A function of a workspace was called without one. Nothing was sent. HTTP 400."""

    def __init__(self, function: str | None = None) -> None:
        super().__init__(function)
        self.function = function

    def __str__(self) -> str:
        return (
            f"{self.function or 'This'} needs a workspace and the session has none: "
            'open it with db.session(workspace="..."), or run inside "with stemmadb.tenancy.workspace(...)"'
        )


class TenantViolationError(TenancyError):
    """A row-level security policy refused the row: it belongs to another workspace than the session's. HTTP 403."""

    def __init__(self, entity: str | None = None) -> None:
        super().__init__(entity)
        self.entity = entity

    def __str__(self) -> str:
        return f"{self.entity or 'The row'} is not of the session's workspace and was refused: open a session in its workspace"


class AllWorkspacesRequiredError(TenancyError):
    """The function reads across workspaces and was called in a session that may not. HTTP 403."""

    def __init__(self, function: str) -> None:
        super().__init__(function)
        self.function = function

    def __str__(self) -> str:
        return f'{self.function} reads across workspaces: call it inside "with db.all_workspaces(reason=...)"'


class AuthenticationError(StemmaError):
    """The credential is unknown, wrong, expired or revoked. Which of them is never said. HTTP 401."""

    def __init__(self) -> None:
        super().__init__()

    def __str__(self) -> str:
        return "The credentials are not valid: sign in again, or ask for new ones"


class PermissionDeniedError(StemmaError):
    """The caller may not do this. ``permission`` names what is missing. HTTP 403."""

    def __init__(self, permission: str, message: str | None = None) -> None:
        super().__init__(permission, message)
        self.permission = permission
        self.message = message

    def __str__(self) -> str:
        return self.message or f"This needs the permission {self.permission!r}: ask somebody who may grant it"


def _place(table: str | None, column: str | None, key: object) -> str:
    """Name a document for a message: ``definitions.content of 0192...``."""
    name = ".".join(part for part in (table, column) if part) or "the document"
    return name if key is None else f"{name} of {_key_text(key)}"


def _key_text(key: object) -> str:
    """Write a key, which may be a tuple or anything that a caller took for one, for a message: one line, and a short one."""
    text = ", ".join(str(part) for part in key) if isinstance(key, tuple) else str(key)
    shown = text if len(text) <= _MAX_KEY else f"{text[:_MAX_KEY]}..."
    return shown if shown.isprintable() else shown.encode("unicode_escape").decode()
