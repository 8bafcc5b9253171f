"""Documents: one that can be edited, one with a gap in its versions, one without a version."""

from pydantic import ConfigDict

from stemmadb.documents import Document, DocumentPart, Raw


class Loose(DocumentPart):
    """Can be edited in place."""

    model_config = ConfigDict(frozen=False)

    text: str = ""


class WithLoosePart(Document, version=1):
    """Frozen itself."""

    part: Loose | None = None


@WithLoosePart.upcast(0)
def _first(raw: Raw) -> Raw:
    return raw


class WithGap(Document, version=2):
    """Nothing leads from version 1 to version 2."""

    text: str = ""


@WithGap.upcast(0)
def _second(raw: Raw) -> Raw:
    return raw


class Unversioned(Document):
    """Says no version."""
