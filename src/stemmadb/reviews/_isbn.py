"""ISBNs: their check digits, and the one form in which they are stored."""

import re
from typing import Annotated

from pydantic import AfterValidator

_SEPARATORS = re.compile(r"[-\u2010-\u2013 ]")
_TEN = re.compile(r"[0-9]{9}[0-9X]", re.ASCII)
_THIRTEEN = re.compile(r"97[89][0-9]{10}", re.ASCII)


def normalize_isbn(text: str) -> str:
    """
    Return an ISBN as thirteen digits.

    Hyphens and spaces are taken out. An ISBN of ten becomes the one of thirteen that names the same book, so that a book has one row
    whichever of the two a source gives.

    Raises:
        ValueError: it has neither form, or its check digit is wrong.
    """
    digits = _SEPARATORS.sub("", text).upper()
    if _TEN.fullmatch(digits):
        if _check_of_ten(digits) != digits[-1]:
            raise ValueError("is not an ISBN: its check digit is wrong")
        body = "978" + digits[:9]
        return body + _check_of_thirteen(body)
    if not _THIRTEEN.fullmatch(digits):
        raise ValueError("is not an ISBN: ten digits, of which the last may be X, or thirteen that begin with 978 or 979")
    if _check_of_thirteen(digits) != digits[-1]:
        raise ValueError("is not an ISBN: its check digit is wrong")
    return digits


def forms_of(isbn: str) -> list[str]:
    """Return the forms in which SQL of others may have stored an ISBN of thirteen digits: itself, and the one of ten if there is one."""
    if not isbn.startswith("978"):
        return [isbn]
    body = isbn[3:12]
    return [isbn, body + _check_of_ten(body)]


def _check_of_ten(digits: str) -> str:
    """Weights 10 to 2; the sum with the check digit is a multiple of 11, and X stands for ten."""
    rest = -sum(weight * int(digit) for weight, digit in zip(range(10, 1, -1), digits, strict=False)) % 11
    return "X" if rest == 10 else str(rest)


def _check_of_thirteen(digits: str) -> str:
    """Weights 1 and 3 in turn; the sum with the check digit is a multiple of 10."""
    return str(-sum((1, 3)[place % 2] * int(digit) for place, digit in enumerate(digits[:12])) % 10)


Isbn = Annotated[str, AfterValidator(normalize_isbn)]
"""Given as ten or thirteen digits, with or without hyphens; kept as thirteen."""
