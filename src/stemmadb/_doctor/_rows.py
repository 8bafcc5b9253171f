"""What is stored: documents, secrets, and what packs look at; in one session that sees every workspace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, text
from sqlalchemy.orm import Session

from stemmadb import _ciphertexts
from stemmadb._doctor._kinds import finding
from stemmadb.documents._census import count
from stemmadb.documents._registered import registered_columns
from stemmadb.documents._reports import ColumnCensus
from stemmadb.errors import PermissionDeniedError, StemmaError
from stemmadb.packs import Pack, packs
from stemmadb.query import translated
from stemmadb.reports import Check, Finding

if TYPE_CHECKING:
    from stemmadb.database import Database

_REASON = "stemmadb doctor"
# Of each question: a table may be large, or locked, and what takes longer is not worth it here.
_PATIENCE = text("SELECT pg_catalog.set_config('statement_timeout', '5s', true), pg_catalog.set_config('lock_timeout', '1s', true)")
_PRESENT = text("SELECT relname::text FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.to_regnamespace('stemma') AND relkind = 'r'")


def examine_rows(db: Database) -> Iterator[Finding]:
    """Say what is wrong with rows; where the login may not read all of them, that they were not looked at."""
    try:
        with db.all_workspaces(reason=_REASON) as session, translated():
            session.execute(_PATIENCE)
            present = frozenset(session.scalars(_PRESENT))
            yield from _documents(session, present)
            yield from _secrets(session, present)
            yield from _of_packs(session, present)
    except PermissionDeniedError:
        yield finding(
            "not_checked", "rows", why="the login may not act as stemma_maintenance", remedy="stemmadb migrate roles --login NAME"
        )
    except StemmaError as error:
        yield finding("not_checked", "rows", why=str(error), remedy="stemmadb health")


def _each(session: Session, object: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    """Return what one question finds; when it takes too long, that it was not answered."""
    try:
        with session.begin_nested(), translated():
            return look()
    except StemmaError as error:
        return [finding("not_checked", object, why=str(error), remedy="ask for it by itself, with more time")]


def _documents(session: Session, present: frozenset[str]) -> Iterator[Finding]:
    for name, column in registered_columns().items():
        if column.table.name in present:
            yield from _each(session, name, partial(_documents_of, session, name, column))


def _documents_of(session: Session, name: str, column: Column[Any]) -> list[Finding]:
    return list(_census(count(session, name, column)))


def _census(found: ColumnCensus) -> Iterator[Finding]:
    if found.newer:
        yield finding("newer_documents", found.column, count=found.newer, newest=found.newest_version)
    if found.malformed:
        yield finding("malformed_documents", found.column, count=found.malformed)
    if found.write_version < found.newest_version:
        yield finding("old_write_version", found.column, written=found.write_version, newest=found.newest_version)


def _secrets(session: Session, present: frozenset[str]) -> Iterator[Finding]:
    for name, column in _ciphertexts.columns().items():
        if column.table.name in present:
            yield from _each(session, name, partial(_keys_of, session, name, column))


def _keys_of(session: Session, name: str, column: Column[Any]) -> list[Finding]:
    return list(_judged(_ciphertexts.count(session, name, column)))


def _judged(found: _ciphertexts.SecretCounts) -> Iterator[Finding]:
    known = _ciphertexts.key_names()
    total = sum(found.keys.values())
    if total and not _ciphertexts.can_open():
        yield finding("extra_missing", found.column)
    if total and not known:
        yield finding("secret_keys_missing", found.column, count=total)
        return
    for key, number in found.keys.items():
        if key not in known:
            yield finding("unknown_secret_key", found.column, key=key, count=number)
        elif key != known[0]:
            yield finding("old_secret_key", found.column, key=key, count=number)
    if found.malformed:
        yield finding("unreadable_secrets", found.column, count=found.malformed)


def _of_packs(session: Session, present: frozenset[str]) -> Iterator[Finding]:
    for pack in packs():
        if not _tables(pack) <= present:
            continue
        for check in pack.load_checks():
            yield from _each(session, f"rows of {pack.name}", partial(_seen, check, session))


def _seen(check: Check, session: Session) -> list[Finding]:
    return list(check.look(session))


def _tables(pack: Pack) -> set[str]:
    return {entity.__tablename__ for entity in pack.entities}
