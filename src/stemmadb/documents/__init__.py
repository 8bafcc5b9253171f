"""
Versioned JSONB documents.

Every JSONB column holds a pydantic model with a ``schema_version``. Whatever release wrote a row, reading gives the newest shape;
nothing is rewritten for that, and nothing is lost.
"""

from stemmadb.documents._census import census
from stemmadb.documents._column import DocumentColumn
from stemmadb.documents._document import Document, DocumentPart, dump_document, load_document
from stemmadb.documents._dump import content_hash, dump_json
from stemmadb.documents._guard import stored_version, version_guard
from stemmadb.documents._registered import registered_documents
from stemmadb.documents._reports import ColumnCensus, UpgradeReport
from stemmadb.documents._schema import json_schema
from stemmadb.documents._steps import Raw, Upcaster, check_upcasters, register_upcaster
from stemmadb.documents._unreadable import OnInvalid, RawDocument, attach_documents, keep_unreadable, resolve_unreadable
from stemmadb.documents._upgrade import upgrade
from stemmadb.documents._values import FrozenDict, escape, unescape
from stemmadb.documents._write_version import Downcaster, register_downcaster, set_write_version, write_version

__all__ = [
    "Document",
    "DocumentPart",
    "DocumentColumn",
    "FrozenDict",
    "Raw",
    "Upcaster",
    "load_document",
    "dump_document",
    "dump_json",
    "register_upcaster",
    "check_upcasters",
    "Downcaster",
    "register_downcaster",
    "set_write_version",
    "write_version",
    "content_hash",
    "RawDocument",
    "OnInvalid",
    "attach_documents",
    "keep_unreadable",
    "resolve_unreadable",
    "stored_version",
    "version_guard",
    "escape",
    "unescape",
    "census",
    "ColumnCensus",
    "upgrade",
    "UpgradeReport",
    "json_schema",
    "registered_documents",
]
