"""Why a value of an entity is refused."""

import pydantic

from stemmadb.documents._values import pointer
from stemmadb.errors import ValidationError


def invalid(entity: str, error: pydantic.ValidationError, field: str | None = None) -> ValidationError:
    """Return our error for pydantic's: the first reason as the message, every reason in the details, no value anywhere."""
    places: list[tuple[str, ...]] = []
    reasons: list[str] = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        places.append(tuple(str(part) for part in ((field,) if field else ()) + fault["loc"]))
        reasons.append(fault["msg"].removeprefix("Value error, "))
    more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    where = ".".join((entity, *places[0]))
    details = [f"{pointer(list(place))}: {reason}" for place, reason in zip(places, reasons, strict=True)]
    return ValidationError(f"{where}: {reasons[0]}{more}", places[0][0] if places[0] else None, details)


def generated(entity: str, name: str) -> ValidationError:
    """Return the error for a value that is given to a generated column."""
    return ValidationError(f"{entity}.{name} is computed by the database and cannot be set", name)
