"""E-mail addresses as they are stored and looked up."""

import re
from typing import Annotated

from pydantic import AfterValidator

_MAX_LENGTH = 320
_FORM = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


def normalize_email(address: str) -> str:
    """
    Return the address in lower case and without surrounding white space, as ``users.email`` holds it.

    Raises:
        ValueError: it has not the form ``name@domain.tld``. The message does not repeat it.
    """
    normal = address.strip().lower() if isinstance(address, str) else ""
    if len(normal) > _MAX_LENGTH or not normal.isprintable() or not _FORM.fullmatch(normal):
        raise ValueError("is not an e-mail address")
    return normal


Email = Annotated[str, AfterValidator(normalize_email)]
"""An e-mail address, normalised when it is set."""
