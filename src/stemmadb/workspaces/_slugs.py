"""What a slug may be, and the one that is made from a name."""

import re
import unicodedata
from typing import Final

from stemmadb import tenancy
from stemmadb.errors import ValidationError

_MAX_LENGTH: Final = 200
_FORM: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def is_slug(text: str) -> bool:
    """Return whether the text has the form of a slug."""
    return isinstance(text, str) and _FORM.fullmatch(text) is not None


def checked_slug(slug: str) -> str:
    """
    Return the slug.

    Raises:
        ValidationError: it is malformed, too long, or reads as a UUID.
    """
    if is_slug(slug) and len(slug) > _MAX_LENGTH:
        raise ValidationError(f"a slug has {_MAX_LENGTH} characters at most", field="slug")
    if not is_slug(slug):
        raise ValidationError("a slug has lower-case letters, digits and single hyphens between them", field="slug")
    if tenancy.as_id(slug) is not None:
        raise ValidationError("a slug that reads as a UUID would be taken for an id", field="slug")
    return slug


def slug_of(name: str) -> str:
    """Return a slug for a name: up to 60 plain letters, digits and hyphens."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    made = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:60].strip("-") or "workspace"
    return made if tenancy.as_id(made) is None else f"workspace-{made}"
