"""The kinds of text and numbers in the data objects of this pack: what columns hold, checked before anything is sent."""

from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints


def storable(value: str) -> str:
    """Refuse what PostgreSQL cannot store in text: U+0000 and lone surrogates, which pydantic lets pass."""
    if "\0" in value:
        message = "contains the character U+0000, which PostgreSQL cannot store in text"
        raise ValueError(message)
    try:
        value.encode()
    except UnicodeEncodeError:
        message = "contains a lone surrogate, which PostgreSQL cannot store in text"
        raise ValueError(message) from None
    return value


Text = Annotated[str, AfterValidator(storable)]
"""Text that a column can hold."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"\S"), AfterValidator(storable)]
"""Text of 1 to 200 characters that is not blank."""
Word = Annotated[str, StringConstraints(min_length=1, pattern=r"\S"), AfterValidator(storable)]
"""Text that is not blank."""
Count = Annotated[int, Field(ge=0, lt=2**63)]
"""A whole number that fits a bigint."""
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
Cost = Annotated[Decimal, Field(ge=0, max_digits=19, decimal_places=8, allow_inf_nan=False)]
