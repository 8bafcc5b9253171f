"""Errors about the state that the database is in: the request was well formed, and another row or an earlier step stands against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stemmadb._error import StemmaError, _key_text


class ConflictError(StemmaError):
    """
    Another row has these values already, or the present state does not allow the change. HTTP 409.

    Args:
        entity: the class of the row.
        fields: the fields that must be unique together; empty when it is not about uniqueness.
        message: instead of the standard text.
    """

    def __init__(self, entity: str, fields: Sequence[str] = (), message: str | None = None) -> None:
        super().__init__(entity, tuple(fields), message)
        self.entity = entity
        self.fields: tuple[str, ...] = tuple(fields)
        self.message = message

    def __str__(self) -> str:
        if self.message:
            return self.message
        same = f" with this {' and '.join(self.fields)}" if self.fields else ""
        return f"{self.entity}{same} already exists: choose another value, or change the row that is there"


class VersionConflictError(ConflictError):
    """The row changed after the caller read it. Read it again and retry. HTTP 409."""

    def __init__(self, entity: str, key: object, seen: int | None = None, current: int | None = None) -> None:
        super().__init__(entity)
        self.args: tuple[Any, ...] = (entity, key, seen, current)
        self.key = key
        self.seen = seen
        self.current = current

    def __str__(self) -> str:
        name = self.entity if self.key is None else f"{self.entity} {_key_text(self.key)}"
        if self.seen is None or self.current is None:
            return f"{name} was changed or deleted after it was read: read it again, reapply the change, and save"
        return f"{name} is at version {self.current}, not {self.seen}: read it again, reapply the change, and save with the new version"


class FrozenError(ConflictError):
    """The row, or this part of it, can no longer change. HTTP 409."""

    def __init__(self, entity: str, key: object, reason: str) -> None:
        super().__init__(entity)
        self.args: tuple[Any, ...] = (entity, key, reason)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.entity if self.key is None else f'{self.entity} {_key_text(self.key)}'} cannot change: {self.reason}"


class InvalidTransitionError(ConflictError):
    """The row's status does not lead to the wanted one. HTTP 409."""

    def __init__(self, current: str, wanted: str, entity: str = "The row") -> None:
        super().__init__(entity)
        self.args: tuple[Any, ...] = (current, wanted, entity)
        self.current = current
        self.wanted = wanted

    def __str__(self) -> str:
        return f"{self.entity} is {self.current} and cannot become {self.wanted}: read it again and decide by its present status"


class LeaseLostError(ConflictError):
    """The lease ran out and somebody else may hold the work. Nothing was written. HTTP 409."""

    def __init__(self, key: object = None) -> None:
        super().__init__("RunSlot")
        self.args: tuple[Any, ...] = (key,)
        self.key = key

    def __str__(self) -> str:
        name = "The slot" if self.key is None else f"Slot {_key_text(self.key)}"
        return f"{name} is no longer held under this lease: drop the result and claim the next one"


class LabelMovedError(ConflictError):
    """A label points elsewhere than the caller expected. ``actual`` is the id it points to, None when it is gone. HTTP 409."""

    def __init__(self, actual: object, label: str | None = None) -> None:
        super().__init__("DefinitionLabel")
        self.args: tuple[Any, ...] = (actual, label)
        self.actual = actual
        self.label = label

    def __str__(self) -> str:
        name = "The label" if self.label is None else f"Label {self.label!r}"
        return f"{name} is now at {self.actual}: look at what it points to, and move it with that as the expected definition"


class ProgressDerivedError(ConflictError):
    """The progress of a run with slots is counted from them and cannot be reported. HTTP 409."""

    def __init__(self, run_id: object = None) -> None:
        super().__init__("Run")
        self.args: tuple[Any, ...] = (run_id,)
        self.run_id = run_id

    def __str__(self) -> str:
        name = "The run" if self.run_id is None else f"Run {self.run_id}"
        return f"{name} has slots, and its progress is counted from them: record outcomes instead of reporting progress"


class LastOwnerError(ConflictError):
    """A workspace must keep one owner. HTTP 409."""

    def __init__(self, workspace_id: object = None) -> None:
        super().__init__("WorkspaceMember")
        self.args: tuple[Any, ...] = (workspace_id,)
        self.workspace_id = workspace_id

    def __str__(self) -> str:
        return "The workspace would be left without an owner: make another member an owner first"


class InsufficientStockError(ConflictError):
    """Fewer pieces are in stock than were asked for. HTTP 409."""

    def __init__(self, requested: int | None = None, available: int | None = None) -> None:
        super().__init__("Inventory")
        self.args: tuple[Any, ...] = (requested, available)
        self.requested = requested
        self.available = available

    def __str__(self) -> str:
        counts = "" if self.available is None else f": {self.requested} were asked for and {self.available} are there"
        return f"There is not enough in stock{counts}; ask for fewer, or wait for stock"


class InsufficientHoldingError(ConflictError):
    """The portfolio holds less than the transaction takes. HTTP 409."""

    def __init__(self, asset: str | None = None) -> None:
        super().__init__("PortfolioHolding")
        self.args: tuple[Any, ...] = (asset,)
        self.asset = asset

    def __str__(self) -> str:
        return f"The portfolio does not hold enough{f' of {self.asset}' if self.asset else ''}: take a smaller quantity"


class QuotaExceededError(ConflictError):
    """A limit of the plan or the period is used up. HTTP 429."""

    def __init__(self, quota: str | None = None, limit: int | None = None) -> None:
        super().__init__("Quota")
        self.args: tuple[Any, ...] = (quota, limit)
        self.quota = quota
        self.limit = limit

    def __str__(self) -> str:
        limit = "" if self.limit is None else f" of {self.limit}"
        return f"The quota{limit}{f' for {self.quota}' if self.quota else ''} is used up: wait for the next period, or raise the quota"


class EmptyCartError(ConflictError):
    """There is nothing in the cart to order. HTTP 409."""

    def __init__(self) -> None:
        super().__init__("Cart")
        self.args: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return "The cart is empty: put something into it before ordering"


class CurrencyMismatchError(ConflictError):
    """Two amounts of different currencies meet. HTTP 409."""

    def __init__(self, expected: str | None = None, found: str | None = None) -> None:
        super().__init__("Money")
        self.args: tuple[Any, ...] = (expected, found)
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        which = "The amounts have different currencies" if self.found is None else f"The amount is in {self.found}, not in {self.expected}"
        return f"{which}: give all amounts in one currency"


class CouponError(ConflictError):
    """The coupon cannot be used. ``reason`` says why. HTTP 409."""

    def __init__(self, reason: str) -> None:
        super().__init__("Coupon")
        self.args: tuple[Any, ...] = (reason,)
        self.reason = reason

    def __str__(self) -> str:
        return f"The coupon cannot be used: {self.reason}"


class ForeignKeyError(ConflictError):
    """
    A foreign key stands against the change.

    Args:
        constraint: the name of the foreign key; None when the server did not say.
        field: the column that holds the reference, without the workspace's; None when it is not known.
    """

    def __init__(self, constraint: str | None, field: str | None = None) -> None:
        super().__init__("The row", () if field is None else (field,))
        self.args: tuple[Any, ...] = (constraint, field)
        self.constraint = constraint
        self.field = field

    def __str__(self) -> str:
        return f"The change breaks the reference {self.field or self.constraint or 'to another row'}: check the rows on both ends of it"


class ReferenceNotFoundError(ForeignKeyError):
    """The row that is referred to does not exist, or not in this workspace. HTTP 409."""

    def __str__(self) -> str:
        return f"The row that {self.field or self.constraint or 'a reference'} refers to does not exist: create it, or give another id"


class StillReferencedError(ForeignKeyError):
    """Other rows refer to the row that was to go. ``by`` names them when they are known. HTTP 409."""

    def __init__(self, constraint: str | None, field: str | None = None, by: Sequence[str] = ()) -> None:
        super().__init__(constraint, field)
        self.args: tuple[Any, ...] = (constraint, field, tuple(by))
        self.by: tuple[str, ...] = tuple(by)

    def __str__(self) -> str:
        others = ", ".join(self.by) or self.constraint or "other rows"
        return f"The row is still referred to by {others}: delete or change those first"
