"""
Typed data access for PostgreSQL.

Entities say what the data is. Documents say what is inside a JSONB column. Query modules say what can be done
with it. The kernel says how it reaches PostgreSQL.

    import stemmadb
    from stemmadb.evaluation import definitions

    db = stemmadb.connect(workspace="lab")
    with db.session() as session:
        print(definitions.list_all(session))
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stemmadb import errors
    from stemmadb._entry import connect, use
    from stemmadb.database import Database, Isolation, PoolStats
    from stemmadb.documents import Document, RawDocument, load_document
    from stemmadb.entity import Entity, Id, WorkspaceEntity, metadata
    from stemmadb.errors import StemmaError
    from stemmadb.paging import Page
    from stemmadb.repository import Repository
    from stemmadb.settings import Settings

__version__ = "0.1.0.dev0"

__all__ = [
    "Database",
    "Document",
    "Entity",
    "Id",
    "Isolation",
    "Page",
    "PoolStats",
    "RawDocument",
    "Repository",
    "Settings",
    "StemmaError",
    "WorkspaceEntity",
    "__version__",
    "connect",
    "errors",
    "load_document",
    "metadata",
    "use",
]

# Name by name on first use: importing the package costs what bare Python costs, the stack is paid for when it is needed.
_HOMES = {
    "Database": "database",
    "Isolation": "database",
    "PoolStats": "database",
    "connect": "_entry",
    "use": "_entry",
    "Document": "documents",
    "RawDocument": "documents",
    "load_document": "documents",
    "Entity": "entity",
    "Id": "entity",
    "WorkspaceEntity": "entity",
    "metadata": "entity",
    "StemmaError": "errors",
    "Page": "paging",
    "Repository": "repository",
    "Settings": "settings",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _HOMES:
        value = getattr(import_module(f"stemmadb.{_HOMES[name]}"), name)
    elif name == "errors":
        value = import_module("stemmadb.errors")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
