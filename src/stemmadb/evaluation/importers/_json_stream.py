"""
Reading JSON piece by piece, so that a file of any size takes the memory of its largest piece.

The standard library reads a value as a whole, and the streaming parsers that there are refuse NaN and change lone surrogates, both of which
logs of evaluations hold. So only the borders of values are looked for here, and the standard library reads each.
"""

import json
import re
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO, Final

from stemmadb.evaluation.importers._nodes import Node, Place

MAX_VALUE: Final = 256 * 1024 * 1024
"""The most bytes of a value that is read as a whole: a sample, a line, a member of an archive."""

_CHUNK: Final = 1024 * 1024
# A string, of which the first group is the closing quote, or a bracket. The quantifiers are possessive: nothing is tried twice.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+("?)|[{}\[\]]', re.DOTALL)
_MAX_SCALAR: Final = 1_000_000
_BLANK: Final = re.compile(rb"[ \t\r\n]*+")
_SCALAR_END: Final = re.compile(rb"[,\]} \t\r\n]")
_BOM: Final = b"\xef\xbb\xbf"


def loads(text: bytes, place: Place) -> Any:
    """
    Read a JSON value. Lone surrogates, NaN, infinity and control characters are let through.

    Raises:
        MalformedFileError: it is none; the error names the place, and how far into the value the fault is.
    """
    try:
        return json.loads(text.decode("utf-8", "surrogatepass"), strict=False)
    except json.JSONDecodeError as error:
        raise place.error(f"this is not JSON: {error.msg}, at character {error.pos}") from None
    except UnicodeDecodeError as error:
        raise place.error(f"this is not UTF-8, at byte {error.start}") from None
    except RecursionError:
        raise place.error("this is nested too deeply") from None
    except ValueError:
        raise place.error("a number has too many digits") from None


class JsonStream:
    """
    One JSON value in a file, read from its beginning.

    Args:
        file: opened for reading, at its beginning.
        place: of the value, for errors.
        inside: the JSON Pointers of the objects and arrays that are taken apart, ``*`` for any key; all others are read as a whole.
        skip: the JSON Pointers of what is not read at all.
    """

    def __init__(self, file: BinaryIO, place: Place, *, inside: Collection[str], skip: Collection[str] = ()) -> None:
        self._file = file
        self._place = place
        self._inside = frozenset(inside)
        self._skip = frozenset(skip)
        self._data = file.read(_CHUNK)
        self._at = len(_BOM) if self._data.startswith(_BOM) else 0

    def __iter__(self) -> Iterator[Node]:
        """Yield the values that are not taken apart, in the order of the file."""
        yield from self._values(self._place, "")
        if self._peek():
            raise self._place.error("something follows the end of the JSON value")

    def _values(self, place: Place, pattern: str) -> Iterator[Node]:
        first = self._peek()
        if pattern in self._inside and first == b"{":
            yield from self._members(place, pattern)
        elif pattern in self._inside and first == b"[":
            yield from self._elements(place, pattern)
        elif pattern in self._skip:
            self._take(place, keep=False)
        else:
            yield Node(loads(self._take(place), place), place)

    def _members(self, place: Place, pattern: str) -> Iterator[Node]:
        self._at += 1
        if self._peek() == b"}":
            self._at += 1
            return
        while True:
            if (found := self._peek()) != b'"':
                raise place.error("expected a key" if found else "the file ends in the middle")
            key = loads(self._take(place), place)
            self._expect(b":", place)
            yield from self._values(place.under(key), self._pattern(pattern, place.under(key).pointer.rpartition("/")[2]))
            if self._expect(b",}", place) == b"}":
                return

    def _elements(self, place: Place, pattern: str) -> Iterator[Node]:
        self._at += 1
        if self._peek() == b"]":
            self._at += 1
            return
        index = 0
        while True:
            yield from self._values(place.under(index), self._pattern(pattern, str(index)))
            index += 1
            if self._expect(b",]", place) == b"]":
                return

    def _pattern(self, pattern: str, key: str) -> str:
        named = f"{pattern}/{key}"
        return named if named in self._inside or named in self._skip else f"{pattern}/*"

    def _peek(self) -> bytes:
        """Return the next character that is no white space, without consuming it; nothing at the end of the file."""
        while True:
            self._at = _BLANK.match(self._data, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._data):
                return self._data[self._at : self._at + 1]
            if not self._more(self._at):
                return b""

    def _expect(self, allowed: bytes, place: Place) -> bytes:
        found = self._peek()
        if not found or found not in allowed:
            wanted = " or ".join(chr(each) for each in allowed)
            raise place.error(f"expected {wanted}" if found else "the file ends in the middle")
        self._at += 1
        return found

    def _more(self, start: int) -> bool:
        """Read on; what stands before *start* is given up, and ``_at`` is the new place of *start*. Doubles, so that all is linear."""
        kept = self._data[start:]
        read = self._file.read(max(_CHUNK, len(kept)))
        self._data, self._at = kept + read, 0
        return bool(read)

    def _take(self, place: Place, *, keep: bool = True) -> bytes:
        """Consume a value, and return its bytes if they are to be kept."""
        first = self._peek()
        if not first:
            raise place.error("the file ends in the middle")
        if first in b'{["':
            return self._take_long(place, keep)
        scanned = self._at
        while (end := _SCALAR_END.search(self._data, scanned)) is None:
            length = len(self._data) - self._at
            if length > _MAX_SCALAR:
                raise place.error("this is not JSON")
            if not self._more(self._at):
                break
            scanned = length
        return self._cut(len(self._data) if end is None else end.start())

    def _take_long(self, place: Place, keep: bool) -> bytes:
        depth = 0
        scan = self._at
        while True:
            for token in _TOKEN.finditer(self._data, scan):
                scan = token.start()
                bracket = token.group() if token.group(1) is None else b""
                if token.group(1) == b"":
                    break
                depth += (bracket in (b"{", b"[")) - (bracket in (b"}", b"]"))
                scan = token.end()
                if depth == 0:
                    return self._cut(scan)
            else:
                scan = len(self._data)
            start = self._at if keep else scan
            if len(self._data) - start > MAX_VALUE:
                raise place.error(f"a single value has over {MAX_VALUE} bytes")
            scan -= start
            if not self._more(start):
                raise place.error("the file ends in the middle")

    def _cut(self, end: int) -> bytes:
        taken = self._data[self._at : end]
        self._at = end
        return taken


def json_lines(file: BinaryIO, name: str) -> Iterator[Node]:
    """
    Yield the values of a file with one JSON value on each line; blank lines are left out.

    Raises:
        MalformedFileError: a line is no JSON; the error names it.
    """
    number = 0
    while line := file.readline(MAX_VALUE + 1):
        number += 1
        place = Place(name, f"line {number}")
        if len(line) > MAX_VALUE:
            raise place.error(f"a single value has over {MAX_VALUE} bytes")
        if number == 1:
            line = line.removeprefix(_BOM)
        if line.strip():
            yield Node(loads(line, place), place)
