"""Document: a frozen pydantic model with a schema version, read from any version and written at the newest."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self, TypeVar, Unpack

import pydantic
import pydantic_core
from pydantic import BaseModel, BeforeValidator, ConfigDict

from stemmadb import errors
from stemmadb.documents._dump import dump_json
from stemmadb.documents._fields import JsonAny, settle
from stemmadb.documents._load import load_object, load_text, problem
from stemmadb.documents._steps import Raw, U, Upcaster, known_documents, register_upcaster
from stemmadb.documents._values import FrozenDict, freeze
from stemmadb.documents._write_version import Downcaster, S, register_downcaster

D = TypeVar("D", bound="Document")


def _whole(version: Any) -> Any:
    """Refuse 2.0 for a version: a Literal takes it for 2, and the database takes it for malformed."""
    if type(version) is not int:
        raise ValueError("a version is a whole number from 0")
    return version


# The largest version that the database's stemma_document_version() tells from a malformed one.
_MAX_VERSION = 999_999_999


class DocumentPart(BaseModel):
    """
    A part of a document: a model inside of one. Frozen, and keeps the keys that it does not know.

    Fields are scalars, enums, UUIDs, datetimes with a time zone, Decimals, ``tuple[X, ...]``, ``Mapping[str, X]``, other parts, and
    unions of these; ``Any`` is any JSON value. What could be changed in place is refused when the class is made. Strings are not made
    numbers, nor the reverse. In an ``Any``, a float from 1e16 on becomes the equal int, since jsonb writes no exponents.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        extra="allow",
        allow_inf_nan=False,
        # Were one to get in past validation, the database is to refuse it: the default would store null.
        ser_json_inf_nan="constants",
        # Documents hold what must not stand in logs.
        hide_input_in_errors=True,
        protected_namespaces=(),
    )

    # Older releases of pydantic look the name of a quoted type up where a subclass is made: this module quotes none.
    # Field(init=False) keeps type checkers from taking it for a parameter; it does nothing at run time.
    __pydantic_extra__: dict[str, JsonAny] = pydantic.Field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride] -- pydantic reads the type

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if not cls.__pydantic_fields_complete__:
            raise TypeError(f"{cls.__qualname__}: a field's type is not defined yet; define parts above the documents that hold them")
        for name, field in cls.model_fields.items():
            if name not in cls.__annotations__:
                continue
            try:
                field.annotation = settle(field.annotation, DocumentPart, cls)
            except TypeError as error:
                raise TypeError(f"{cls.__qualname__}.{name}: {error}") from None
            # A default is shared by all documents, and is not validated.
            field.default = freeze(field.default) if isinstance(field.default, dict | list) else field.default
            field.validate_default = True if field.default_factory is not None else field.validate_default
        cls.model_rebuild(force=True)

    @property
    def model_extra(self) -> dict[str, Any] | None:
        """The keys that the class does not know. Read-only, as everything here."""
        extra = self.__pydantic_extra__
        return None if extra is None else FrozenDict(extra)

    def model_copy(self, *, update: Any = None, deep: bool = False) -> Self:
        """Return a copy. Changes go through ``replace``, which validates them."""
        if update:
            raise TypeError("model_copy(update=...) does not validate: use replace(...)")
        return super().model_copy(deep=deep)

    def replace(self, **changes: Any) -> Self:
        """
        Return a copy with some fields changed; unknown keys are kept.

        Raises:
            ValidationError: a value is not acceptable. ``details`` names every place by its JSON Pointer.
        """
        values = {name: getattr(self, name) for name in type(self).model_fields}
        values = {**values, **(self.__pydantic_extra__ or {}), **changes}
        try:
            return type(self).model_validate(values)
        except pydantic.ValidationError as error:
            problems = [problem(item, values) for item in error.errors(include_url=False, include_input=False)]
            details = tuple(f"{place or '/'}: {reason}" for place, reason in problems)
            raise errors.ValidationError(f"{type(self).__name__} is not valid: {'; '.join(details)}", None, details) from None


class Document(DocumentPart):
    """
    What a JSONB column holds: a model with a version.

    Whatever release wrote a row, ``load`` gives the newest shape; nothing stored changes by it. A document of a newer release is
    refused, never parsed.

        class DefinitionContent(Document, version=2):
            preamble: str
            matching_rules: tuple[str, ...] = ()

        @DefinitionContent.upcast(1)
        def _rules_become_a_list(raw: Raw) -> Raw:
            rules = raw.get("matching_rules")
            return {**raw, "matching_rules": [rules] if rules else []}
    """

    schema_version: int = 0
    """The version of this class. Not to be set."""

    newest_version: ClassVar[int] = 0
    """The newest version that is read, and what is written unless ``set_write_version`` says otherwise. 0 for a class without one."""

    _steps: ClassVar[dict[int, Upcaster]] = {}
    _complete: ClassVar[bool] = False
    _steps_down: ClassVar[dict[int, Downcaster]] = {}
    _write_version: ClassVar[int | None] = None

    def __init_subclass__(cls, version: int | None = None, **kwargs: Unpack[ConfigDict]) -> None:
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, version: int | None = None, **kwargs: Any) -> None:
        if version is not None:
            if not 1 <= version <= _MAX_VERSION:
                raise TypeError(f"{cls.__qualname__}: a document's version is a whole number from 1, not {version!r}")
            cls.newest_version = version
            cls._steps = {}
            cls._complete = False
            cls._steps_down = {}
            cls._write_version = None
            field = cls.model_fields["schema_version"]
            field.annotation, field.default = Literal[version], version  # type: ignore[assignment]
            field.metadata = [BeforeValidator(_whole)]
            known_documents.add(cls)
        super().__pydantic_init_subclass__(**kwargs)

    @classmethod
    def upcast(cls, from_version: int) -> Callable[[U], U]:
        """Register the function below as the step from a version to the next."""
        return register_upcaster(cls, from_version)

    @classmethod
    def downcast(cls, from_version: int) -> Callable[[S], S]:
        """Register the function below as the step from a version to the one before, for ``set_write_version``."""
        return register_downcaster(cls, from_version)

    @classmethod
    def load(cls, raw: Raw | str | bytes | None) -> Self:
        """
        Read a stored document of any version.

        Args:
            raw: the JSON text, or the object that it stands for, which is not changed. None is an empty document of version 0.

        Raises:
            UnknownSchemaVersionError: a newer release wrote it; it was not parsed.
            CorruptDocumentError: it is not what its version says; ``pointer`` names the place.
        """
        if isinstance(raw, (str, bytes)):
            return load_text(cls, raw)
        return load_object(cls, raw)

    def dump(self) -> Raw:
        """
        Return what is stored of this document, as a new dict.

        Raises:
            DocumentTooLargeError: it has over 16 MB.
            CorruptDocumentError: it is nested over 64 levels.
        """
        stored: Raw = pydantic_core.from_json(dump_json(self))
        return stored


def load_document(raw: Raw | str | bytes | None, type: type[D]) -> D:
    """Read a stored document of any version. See ``Document.load``."""
    return type.load(raw)


def dump_document(document: Document) -> Raw:
    """Return what is stored of a document, as a new dict. See ``Document.dump``."""
    return document.dump()
