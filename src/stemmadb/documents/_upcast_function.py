"""The steps of a document as a function of PostgreSQL."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, func
from sqlalchemy.dialects.postgresql import JSONB

from stemmadb import errors
from stemmadb.documents._sql_text import quote_stored
from stemmadb.documents._step import VERSION_KEY, Steps
from stemmadb.documents._steps import check_steps

if TYPE_CHECKING:
    from stemmadb.documents._document import Document

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
# Citus adds to names, and PostgreSQL cuts what is too long.
_MAX_NAME = 50


def upcast_function_name(document: type[Document], version: int | None = None, *, schema: str = "stemma") -> str:
    """
    Return the name of the function that brings a document to a version: ``stemma.survey_v3``.

    Raises:
        ConfigurationError: as ``upcast_function``, except that the steps are not looked at.
    """
    version = _version(document, version)
    name = f"{_WORD.sub('_', document.__name__).lower()}_v{version}"
    if not (_NAME.fullmatch(name) and _NAME.fullmatch(schema)) or len(name) > _MAX_NAME:
        raise errors.ConfigurationError(
            f"{schema}.{name} cannot be the name of a function: it has at most {_MAX_NAME} letters of a to z, digits and underscores"
        )
    return f"{schema}.{name}"


def upcast_function(document: type[Document], version: int | None = None, *, schema: str = "stemma") -> str:
    """
    Return the CREATE FUNCTION of a document's steps: a function from what is stored, of any version, to the version in its name.

    It changes what it is given as the steps do in Python, and leaves alone what Python refuses to read, or need not change: a malformed
    version, what is no object, the version itself, and every newer one. It is IMMUTABLE and may stand in an index. Changing the body of
    such a function would corrupt the index without a word, which is why each version has a name of its own and there is no OR REPLACE.

    The text is all ASCII and has no character that Alembic, SQLAlchemy or psycopg would read as its own, so ``op.execute`` takes it.

    Args:
        document: a class all of whose steps up to that version are ``Steps``.
        version: the one to bring to; None is the newest.
        schema: where the function is. Documents of an application keep theirs in a schema of its own.

    Raises:
        ConfigurationError: a step is a function of Python, a step is missing, or there is no such version or name.
    """
    version = _version(document, version)
    name = upcast_function_name(document, version, schema=schema)
    steps = "".join(_step(document, number) for number in range(version))
    return (
        f"CREATE FUNCTION {name}(document jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$\n"
        "DECLARE\n"
        "  stored_version integer := stemma.stemma_document_version(document);\n"
        "BEGIN\n"
        f"  IF jsonb_typeof(document) <> 'object' OR stored_version NOT BETWEEN 0 AND {version - 1} THEN\n"
        "    RETURN document;\n"
        "  END IF;\n"
        f"{steps}"
        f"  RETURN document || jsonb_build_object({quote_stored(VERSION_KEY)}, {version});\n"
        "END\n"
        "$$"
    )


def drop_upcast_function(document: type[Document], version: int | None = None, *, schema: str = "stemma") -> str:
    """Return the DROP FUNCTION that undoes ``upcast_function``. It fails while an index or a column uses the function."""
    return f"DROP FUNCTION {upcast_function_name(document, version, schema=schema)}(jsonb)"


def upcast_expression(column: Any, version: int | None = None, *, schema: str = "stemma") -> ColumnElement[Any]:
    """
    Return the documents of a column, brought to a version by the database, for use in a statement.

        select(Plan.id).where(upcast_expression(Plan.content)["title"].astext == "Places")

    The function has to be there (``op.create_document_function``). What is of a newer version, or malformed, comes as it is stored.

    Args:
        column: a document column, ``Plan.content``.
        version: the one to bring to; None is the newest.
        schema: where the function is.
    """
    name = upcast_function_name(column.type.document, version, schema=schema)
    function: Any = func
    for part in name.split("."):
        function = getattr(function, part)
    expression: ColumnElement[Any] = function(column, type_=JSONB())
    return expression


def _version(document: type[Document], version: int | None) -> int:
    newest = document.newest_version
    if version is not None and not 1 <= version <= newest:
        raise errors.ConfigurationError(f"{document.__name__} has the versions 1 to {newest}, and no version {version}")
    return newest if version is None else version


def _step(document: type[Document], number: int) -> str:
    """Return the statements that bring documents from one version to the next."""
    check_steps(document)
    upcaster = document._steps[number]
    if not isinstance(upcaster, Steps):
        raise errors.ConfigurationError(
            f"the step of {document.__name__} from version {number} is a function of Python, which the database cannot run: "
            "declare it with stemmadb.documents.steps, or upgrade the documents through Python"
        )
    return _statements(upcaster, number)


def _statements(steps: Steps, number: int) -> str:
    if not steps.steps:
        return ""
    changes = "".join(
        # The function has made sure that the document itself is an object.
        f"    document := {step._apply_sql('document', step.at) if step.at else step._change_sql('document')};\n"
        for step in steps.steps
    )
    return f"  IF stored_version <= {number} THEN\n{changes}  END IF;\n"
