"""Members of zip archives, also those compressed with Zstandard, which the standard library reads from Python 3.14 on."""

import contextlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from stemmadb.errors import MissingDependencyError
from stemmadb.evaluation.importers._json_stream import MAX_VALUE, loads
from stemmadb.evaluation.importers._nodes import Node, Place

_ZSTANDARD: Final = 93
_LOCAL_HEADER: Final = struct.Struct("<4s5H3L2H")


@contextlib.contextmanager
def archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """
    Open a zip archive.

    Raises:
        MalformedFileError: it is none, or it was cut off.
    """
    try:
        opened = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
        raise Place(str(path)).error(f"this is no zip archive that can be read: {error}") from None
    with opened:
        yield opened


def read_member(opened: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> Node:
    """
    Read a member that is one JSON value.

    Raises:
        MalformedFileError: the member cannot be read, is too large, or is not JSON; the error names it.
        MissingDependencyError: it is compressed with Zstandard, and nothing that reads it is installed.
    """
    place = Place(str(path), info.filename)
    if info.file_size > MAX_VALUE:
        raise place.error(f"a single value has over {MAX_VALUE} bytes")
    try:
        data = _decompressed(opened, info)
    except MissingDependencyError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error) as error:
        raise place.error(f"the member cannot be read: {error}") from None
    return Node(loads(data, place), place)


def _decompressed(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.compress_type != _ZSTANDARD or hasattr(zipfile, "ZIP_ZSTANDARD"):
        with opened.open(info) as member:
            # One byte more than it says it has: what is longer is refused by the checksum, and never unpacked as a whole.
            return member.read(info.file_size + 1)
    return _from_zstandard(opened, info)


def _from_zstandard(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        import zstandard
    except ImportError:
        raise MissingDependencyError("importers") from None
    file: Any = opened.fp
    raw: BinaryIO = file
    raw.seek(info.header_offset)
    header = _LOCAL_HEADER.unpack(raw.read(_LOCAL_HEADER.size))
    if header[0] != b"PK\x03\x04":
        raise zipfile.BadZipFile("its header is not where the directory says")
    raw.seek(header[-2] + header[-1], 1)
    compressed = raw.read(info.compress_size)
    try:
        with zstandard.ZstdDecompressor().stream_reader(compressed, read_across_frames=True) as reader:
            data = bytes(reader.read(info.file_size + 1))
    except zstandard.ZstdError as error:
        raise zipfile.BadZipFile(str(error)) from None
    if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
        raise zipfile.BadZipFile("its checksum is wrong")
    return data
