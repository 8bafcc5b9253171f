"""
Steps that are wrong in one way each, for seeing whether the properties of the right ones find it.

Some are compiled wrongly, and some do wrongly in Python what the database does right.
"""

import re

from tests.kernel.step_programs import STEPS, thawed

from stemmadb.documents import Raw
from stemmadb.documents._sql_text import quote_stored
from stemmadb.documents.steps import Default, Drop, Listify, MapValues, Move, Rename, Wrap


class RenameKeepsOld(Rename):
    def _change_sql(self, found: str) -> str:
        return super()._change_sql(found).replace(f"({found} - {quote_stored(self.old)}::text)", found)


class RenameYields(Rename):
    def _change_sql(self, found: str) -> str:
        old, new = quote_stored(self.old), quote_stored(self.new)
        return f"CASE WHEN {found} ? {old} THEN jsonb_build_object({new}, {found} -> {old}) || ({found} - {old}::text) ELSE {found} END"


class RenameTakesAbsentForNull(Rename):
    def _change_sql(self, found: str) -> str:
        old, new = quote_stored(self.old), quote_stored(self.new)
        return f"({found} - {old}::text) || jsonb_build_object({new}, {found} -> {old})"


class DefaultOverwrites(Default):
    def _change_sql(self, found: str) -> str:
        value, _, rest = super()._change_sql(found).rpartition(" || ")
        return f"{rest} || {value}"


class DefaultTakesNullForAbsent(Default):
    def _change_sql(self, found: str) -> str:
        key = quote_stored(self.key)
        return super()._change_sql(f"(CASE WHEN {found} ->> {key} IS NULL THEN {found} - {key}::text ELSE {found} END)")


class DefaultTakesTrueForOne(Default):
    def _change_sql(self, found: str) -> str:
        return Default(self.key, 1 if self.value is True else self.value, at=self.at)._change_sql(found)


class DropSetsNull(Drop):
    def _change_sql(self, found: str) -> str:
        return f"{found} || jsonb_build_object({quote_stored(self.key)}, NULL)"


class DropStopsAtNull(Drop):
    def _change_sql(self, found: str) -> str:
        return f"CASE WHEN {found} ->> {quote_stored(self.key)} IS NULL THEN {found} ELSE {super()._change_sql(found)} END"


class WrapTakesAbsentForNull(Wrap):
    def _change_sql(self, found: str) -> str:
        key = quote_stored(self.key)
        return f"{found} || jsonb_build_object({key}, jsonb_build_object({quote_stored(self.inner)}, {found} -> {key}))"


class WrapSkipsObjects(Wrap):
    def _change_sql(self, found: str) -> str:
        key = quote_stored(self.key)
        return f"CASE WHEN jsonb_typeof({found} -> {key}) = 'object' THEN {found} ELSE {super()._change_sql(found)} END"


class ListifyWrapsArrays(Listify):
    def _change_sql(self, found: str) -> str:
        return super()._change_sql(found).replace("= 'array'", "= 'arrays'")


class ListifyKeepsNull(Listify):
    def _change_sql(self, found: str) -> str:
        return super()._change_sql(found).replace("= 'null'", "= 'nulls'")


class ListifyTakesAbsentForNull(Listify):
    def _change_sql(self, found: str) -> str:
        return f"{found} || jsonb_build_object({quote_stored(self.key)}, jsonb_build_array({found} -> {quote_stored(self.key)}))"


class MapComparesText(MapValues):
    """Takes "1" for 1, and "true" for true."""

    def _change_sql(self, found: str) -> str:
        key = quote_stored(self.key)
        return re.sub(
            r"WHEN (E?'(?:[^']|'')*'::jsonb) THEN",
            r"WHEN \1 #>> '{}' THEN",
            super()._change_sql(found).replace(f"CASE {found} -> {key}", f"CASE {found} ->> {key}", 1),
        )


class MapComparesFloats(MapValues):
    """Takes 2**53 for 2**53 + 1."""

    def _change_sql(self, found: str) -> str:
        key = quote_stored(self.key)
        value = f"({found} -> {key})"
        rounded = f"CASE jsonb_typeof({value}) WHEN 'number' THEN to_jsonb({value}::float8::numeric) ELSE {value} END"
        return super()._change_sql(found).replace(f"CASE {found} -> {key}", f"CASE {rounded}", 1)


class MapFallsThrough(MapValues):
    """Takes two pairs one after the other, so that what the first made is changed by the second."""

    def _change_sql(self, found: str) -> str:
        if len(self.values) != 2:
            return super()._change_sql(found)
        for pair in self.values:
            found = f"({MapValues(self.key, (pair,), at=self.at)._change_sql(found)})"
        return found


class MapSkipsNull(MapValues):
    def _change_sql(self, found: str) -> str:
        return super()._change_sql(found).replace(
            "CASE ", f"CASE WHEN {found} ->> {quote_stored(self.key)} IS NULL THEN {found} ELSE CASE ", 1
        ) + (" END" if self.values else "")


class MapTakesTrueForOne(MapValues):
    """In Python, as a dict does."""

    def _change(self, found: Raw) -> Raw:
        plain = [new for old, new in self.values if self.key in found and old == found[self.key]]
        return {**found, self.key: thawed(plain[0])} if plain else found


class MapReadsIntegersAsFloats(MapValues):
    """In Python, as a JSON parser without integers does."""

    def _change(self, found: Raw) -> Raw:
        value = found.get(self.key)
        return super()._change({**found, self.key: int(float(value))} if type(value) is int and abs(value) > 2**53 else found)


class MapDropsOthers(MapValues):
    def _change_sql(self, found: str) -> str:
        key = quote_stored(self.key)
        return super()._change_sql(found).replace(f" ELSE {found} END", f" ELSE {found} - {key}::text END") if self.values else found


class MoveLeavesACopy(Move):
    def _change_sql(self, found: str) -> str:
        return re.sub(r"\(" + re.escape(found) + r" #- ARRAY\[.*?\]\)", lambda _: f"({found})", super()._change_sql(found))


class MoveReplacesWhatIsInTheWay(Move):
    def _change_sql(self, found: str) -> str:
        return super()._change_sql(found).replace("IN ('object', 'null')", "IS NOT NULL")


class MoveStopsAtNull(Move):
    def _change_sql(self, found: str) -> str:
        return re.sub(
            r"coalesce\((.*?), 'null'\) IN \('object', 'null'\)", r"coalesce(\1, 'object') = 'object'", super()._change_sql(found)
        )


class MoveForgetsItsNeighbours(Move):
    def _change_sql(self, found: str) -> str:
        return re.sub(r"CASE jsonb_typeof\((.*?)\) WHEN 'object' THEN \1 ELSE '\{\}'::jsonb END", "'{}'::jsonb", super()._change_sql(found))


class MoveReachesIntoArrays(Move):
    def _change_sql(self, found: str) -> str:
        path = f"ARRAY[{', '.join(map(quote_stored, self.old))}]"
        into = Default(self.new[0], 0, at=self.at)._change_sql(f"({found} #- {path})").replace("'0'::jsonb", f"{found} #> {path}", 1)
        return f"CASE WHEN {found} #> {path} IS NOT NULL THEN {into} ELSE {found} END" if len(self.new) == 1 else super()._change_sql(found)


DEFECTS = [kind for base in STEPS for kind in base.__subclasses__()]
"""All of the above."""

# What every function has around its steps, written wrongly: what is to be found in it, and what stands there instead.
EDITS = {
    "elements reversed": (r"ORDER BY (item\d)\.place", r"ORDER BY \1.place DESC"),
    "elements unordered": (r"ORDER BY (item\d)\.place", r"ORDER BY \1.value"),
    "an empty array becomes null": (r"coalesce\(jsonb_agg\((.*)\), '\[\]'::jsonb\)", r"jsonb_agg(\1)"),
    "elements of what is no array": (r"jsonb_typeof\((?:[^()]|\([^()]*\))*\) = 'array' THEN \(SELECT", "true THEN (SELECT"),
    "a step on what is no object": (r"jsonb_typeof\((item\d\.value)\) = 'object' THEN", "jsonb_typeof(\\1) <> 'string' THEN"),
    "a key of what is no object": (r"jsonb_typeof\(document\) = 'object' AND document \? ('\w'|E'[^']*') THEN", "true THEN"),
    "a missing version is 1": (r"stemma\.stemma_document_version\(document\)", "coalesce((document ->> 'schema_version')::integer, 1)"),
    "a malformed version is cast": (
        r"stemma\.stemma_document_version\(document\)",
        "coalesce((document ->> 'schema_version')::integer, 0)",
    ),
    "a malformed version is 0": (r"stemma\.stemma_document_version\(document\)", "greatest(stemma.stemma_document_version(document), 0)"),
    "a newer version is changed": (r"NOT BETWEEN 0 AND \d", "< 0"),
    "no object is changed": (r"jsonb_typeof\(document\) <> 'object' OR", ""),
    "a step is skipped": (r"IF stored_version <= 1", "IF stored_version < 1"),
    "a step is taken twice": (r"IF stored_version <= 0", "IF stored_version <= 1"),
    "the version stays": (r"document \|\| jsonb_build_object\('schema_version', \d\)", "document"),
    "the version is text": (r"jsonb_build_object\('schema_version', (\d)\)", r"jsonb_build_object('schema_version', '\1')"),
    "escaped keys are looked for as they are": (r"\\u001a0000", r"\\u001a"),
    "surrogates are lost": (r"\\u001ad800", ""),
}
