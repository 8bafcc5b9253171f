"""What callers hand in: data objects, checked when they are made, so that nothing malformed is ever sent."""

from typing import Any, ClassVar, Self

import pydantic
from pydantic import BaseModel, ConfigDict

from stemmadb.errors import StemmaError, ValidationError

__all__ = ["DataObject"]


class DataObject(BaseModel):
    """
    The input of a query function.

    Unknown fields are refused; in an ``...Update`` object a field that was not given means unchanged (``changes()``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, strict=False)

    noun: ClassVar[str] = ""
    """What the object describes, for messages: ``Definition content is required``."""

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except pydantic.ValidationError as error:
            raise explain(error, self.noun or type(self).__name__) from None

    def changes(self) -> dict[str, Any]:
        """Return the fields that were given, with their values."""
        return {name: getattr(self, name) for name in self.model_fields_set}

    @classmethod
    def of(cls, value: Any) -> Self:
        """Return the value as this object; a mapping is read."""
        return value if isinstance(value, cls) else cls(**value)


def explain(error: pydantic.ValidationError, noun: str) -> StemmaError:
    """Make pydantic's error ours: the first problem is the message, all of them are in the details. Values are not repeated."""
    problems = []
    for item in error.errors(include_url=False, include_input=False):
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, StemmaError):
            return cause
        field = ".".join(map(str, item["loc"])) or None
        message = (
            f"{noun} {field} is required"
            if item["type"] == "missing"
            else f"{noun} {field or 'value'}: {item['msg'].removeprefix('Value error, ')}"
        )
        problems.append((field, message))
    field, message = problems[0]
    return ValidationError(message, field=field, details=tuple(text for _, text in problems))


def checked_text(value: object, field: str) -> str:
    """
    Return a text that PostgreSQL can store.

    Raises:
        ValidationError: it is no ``str``, or holds U+0000 or a lone surrogate; ``field`` says which value.
    """
    if not isinstance(value, str):
        raise ValidationError(f"{field} is not a text", field=field)
    if "\0" in value:
        raise ValidationError(f"{field} contains the character U+0000, which PostgreSQL cannot store in text", field=field)
    try:
        _ = value.isascii() or value.encode()
    except UnicodeEncodeError:
        raise ValidationError(f"{field} contains half of a surrogate pair, which PostgreSQL cannot store in text", field=field) from None
    return value
