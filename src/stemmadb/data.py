"""What callers hand in: data objects, checked when they are made, so that nothing malformed is ever sent."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, Self, TypeVar, cast

import pydantic
from pydantic import BaseModel, ConfigDict

from stemmadb.errors import StemmaError, ValidationError

__all__ = ["DataObject"]

V = TypeVar("V", bound=StrEnum)


class DataObject(BaseModel):
    """
    The input of a query function.

    Unknown fields are refused; in an ``...Update`` object a field that was not given means unchanged (``changes()``).
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, strict=False)

    noun: ClassVar[str] = ""
    """What the object describes, for messages: ``Definition content is required``."""

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except pydantic.ValidationError as error:
            raise explain(error, self.noun or type(self).__name__) from None
        for name, value in self.__dict__.items():
            # Pydantic makes text of bytes, and takes what PostgreSQL does not.
            fault = _fault_of(data[name] if isinstance(data.get(name), bytes | bytearray) else value) if isinstance(value, str) else None
            if fault is not None:
                raise ValidationError(f"{self.noun or type(self).__name__} {name}: {fault}", field=name)

    def changes(self) -> dict[str, Any]:
        """Return the fields that were given, with their values."""
        return {name: getattr(self, name) for name in self.model_fields_set}

    @classmethod
    def of(cls, value: Any) -> Self:
        """Return the value as this object; a mapping is read."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise ValidationError(f"expected {cls.__name__}, or a mapping of its fields", field="data")
        return cls(**value)


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
    fault = _fault_of(value)
    if fault is not None:
        raise ValidationError(f"{field} {fault}", field=field)
    return cast("str", value)


def _fault_of(value: object) -> str | None:
    """Return why PostgreSQL cannot store a value as text; None when it can."""
    if not isinstance(value, str):
        return "is not a text"
    if "\0" in value:
        return "contains the character U+0000, which PostgreSQL cannot store in text"
    try:
        _ = value.isascii() or value.encode()
    except UnicodeEncodeError:
        return "contains half of a surrogate pair, which PostgreSQL cannot store in text"
    return None


def checked_member(value: object, vocabulary: type[V], field: str) -> V:
    """
    Return a member of a vocabulary: the one given, or that of the label given.

    Raises:
        ValidationError: there is none; ``field`` says which value.
    """
    try:
        return vocabulary(cast("str", value))
    except ValueError:
        raise ValidationError(f"{field} is one of {', '.join(vocabulary)}", field=field) from None
