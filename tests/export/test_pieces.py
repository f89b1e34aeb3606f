"""Pieces joined are the stream, whatever it was written in."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from convkit.compress import record
from convkit.export import pieces


@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(1, 50))
def test_joined_they_are_what_was_written(written: Sequence[bytes], size: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with pieces.Splitter(folder, "stream", size) as stream:
            for data in written:
                assert stream.write(data) == len(data)
        files = sorted(folder.iterdir())
        contents = [file.read_bytes() for file in files]
        assert b"".join(contents) == b"".join(written)
        assert all(len(content) == size for content in contents[:-1])
        found = [(file.name, len(content)) for file, content in zip(files, contents, strict=True)]
        assert [(piece.name, piece.bytes) for piece in stream.pieces] == found
        assert [piece.digest for piece in stream.pieces] == [record.digest_file(file) for file in files]
