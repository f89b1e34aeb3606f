"""Qt binary resources (`.rcc`): big-endian, a header `>4sIIII` = 'qres', version, offsets of tree, data, names.

A tree entry is `>IH` name offset and flags, then for a folder (flag 2) `>II` child count and first child, else the
data offset at +10; it takes 14 bytes in version 1 and 22 later. Names are `>H` length, a hash of 4 bytes, UTF-16BE.
Data is `>I` length, then bytes: with flag 1 a 4-byte length and a zlib stream.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

_FOLDER, _COMPRESSED = 2, 1


def files(archive: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """(path inside the archive, function that reads the content) of each file."""
    content = archive.read_bytes()
    magic, version, tree, data, names = struct.unpack_from(">4sIIII", content)
    if magic != b"qres":
        raise SystemExit(f"{archive} is no Qt resource file")
    size = 14 if version == 1 else 22

    def name(offset: int) -> str:
        (length,) = struct.unpack_from(">H", content, names + offset)
        start = names + offset + 6
        return content[start : start + 2 * length].decode("utf-16-be")

    def read(offset: int, flags: int) -> bytes:
        (length,) = struct.unpack_from(">I", content, data + offset)
        raw = content[data + offset + 4 : data + offset + 4 + length]
        return zlib.decompress(raw[4:]) if flags & _COMPRESSED else raw

    def walk(entry: int, prefix: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
        at = tree + entry * size
        name_offset, flags = struct.unpack_from(">IH", content, at)
        path = f"{prefix}/{name(name_offset)}" if entry else ""
        if flags & _FOLDER:
            count, first = struct.unpack_from(">II", content, at + 6)
            for child in range(first, first + count):
                yield from walk(child, path)
        else:
            (offset,) = struct.unpack_from(">I", content, at + 10)
            yield path.lstrip("/"), lambda: read(offset, flags)

    return walk(0, "")
