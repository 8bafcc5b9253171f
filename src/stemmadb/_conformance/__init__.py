"""What every pack promises, whoever wrote it. ``stemmadb.testing.pack_conformance`` is the way in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stemmadb._conformance import _database, _documents, _errors, _functions, _seeds, _statements, _tables, _twins
from stemmadb._conformance._sources import sources_of
from stemmadb.packs import Pack, packs
from stemmadb.reports import Finding

if TYPE_CHECKING:
    from stemmadb.database import Database

__all__ = ["findings"]


def findings(pack: Pack, db: Database | None, package: str | None) -> list[Finding]:
    """Return everything in which the pack does not do as packs do. See ``stemmadb.testing.pack_conformance``."""
    packs()
    sources = sources_of(pack, package)
    found = [
        *_tables.check(pack),
        *_documents.check(pack),
        *_seeds.check(pack),
        *_functions.check(sources),
        *_twins.check(sources),
        *_statements.check(sources.modules),
        *_errors.check(sources.modules),
    ]
    with _given_or_own(db) as disposable:
        found += _database.check(pack, disposable)
    return found


@contextmanager
def _given_or_own(db: Database | None) -> Iterator[Database]:
    if db is not None:
        yield db
        return
    import os

    from stemmadb._test_server import open_server

    server = open_server(os.environ)
    try:
        made = server.connect(server.create())
        try:
            yield made
        finally:
            made.close()
    finally:
        server.close()
