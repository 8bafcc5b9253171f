"""The JSON Schema of a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pydantic_core
from pydantic.json_schema import GenerateJsonSchema

if TYPE_CHECKING:
    from stemmadb.documents._document import Document

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _WithDefaults(GenerateJsonSchema):
    """Pydantic's own, which leaves out defaults that a function makes, and those that are read-only mappings."""

    def get_default_value(self, schema: Any) -> Any:
        factory = schema.get("default_factory")
        if factory is not None and not schema.get("default_factory_takes_data"):
            return factory()
        return super().get_default_value(schema)

    def encode_default(self, dft: Any) -> Any:
        return pydantic_core.to_jsonable_python(dft)


def json_schema(type: type[Document]) -> dict[str, Any]:
    """
    Return the JSON Schema (draft 2020-12) of a document's newest version: what is stored, and may be.

    Rules over several fields are not part of it. Keys that it does not name are allowed.
    """
    schema = type.model_json_schema(schema_generator=_WithDefaults)
    # In Python the version has a default. Stored JSON without it is of version 0.
    schema["properties"]["schema_version"].pop("default")
    required = ["schema_version", *schema.get("required", ())]
    return {"$schema": DIALECT, **schema, "required": required}
