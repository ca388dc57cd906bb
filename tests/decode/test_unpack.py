"""Half a gzip stream never counts as a whole one; encodings and padding are recognised."""

import contextlib
import gzip
import hashlib
import io
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.decode.unpack import Unpacked
from etl.model.errors import FileError

TEXT = b'{"segmentId":"account:1:conversation:2"}\n' * 50
FILE = gzip.compress(TEXT, mtime=0)


def unpack(body: bytes, max_bytes: int = 2**30) -> tuple[bytes, Unpacked]:
    unpacked = Unpacked(io.BytesIO(body), max_bytes)
    return b"".join(unpacked), unpacked


def kind_of(body: bytes, max_bytes: int = 2**30) -> str:
    with pytest.raises(FileError) as caught:
        unpack(body, max_bytes)
    return caught.value.kind.value


@pytest.mark.parametrize(
    "transport",
    [
        lambda file: file,
        gzip.compress,
        lambda file: gzip.compress(gzip.compress(file)),
    ],
    ids=["as it is", "gzip on top", "gzip on top twice"],
)
def test_the_file_is_what_the_innermost_gzip_is(transport: Callable[[bytes], bytes]) -> None:
    """Size and checksum are those of the gzip file, with any transport encoding around it."""
    text, unpacked = unpack(transport(FILE))
    expected = (TEXT, len(FILE), hashlib.sha256(FILE).hexdigest(), len(TEXT))
    assert expected == (text, unpacked.file.bytes, unpacked.file.sha256, unpacked.decompressed)


@pytest.mark.parametrize("page", [b"<html>", b"\xef\xbb\xbf \r\n<!doctype html>"])
def test_a_web_page_that_was_packed_on_its_way_is_no_file(page: bytes) -> None:
    """A proxy sends error pages so; gzip that was not declared is a file with any content."""
    body = gzip.compress(page)
    assert b"".join(Unpacked(io.BytesIO(body), 2**30)) == page
    with pytest.raises(FileError, match="error page"):
        b"".join(Unpacked(io.BytesIO(body), 2**30, declared_gzip=True))
    assert b"".join(Unpacked(io.BytesIO(FILE), 2**30, declared_gzip=True)) == TEXT


def test_a_plain_body_is_its_own_file() -> None:
    """Without gzip, size and checksum are those of the plain body."""
    text, unpacked = unpack(TEXT)
    expected = (TEXT, len(TEXT), hashlib.sha256(TEXT).hexdigest())
    assert expected == (text, unpacked.file.bytes, unpacked.file.sha256)


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.integers(0, 1000))
def test_several_members_and_zeros_behind_them(texts: list[bytes], zeros: int) -> None:
    """Zeros may follow each member; the text is that of all members."""
    body = b"".join(gzip.compress(text) + bytes(zeros) for text in texts)
    if b"".join(texts).startswith(b"\x1f\x8b"):
        return
    text, unpacked = unpack(body)
    assert (b"".join(texts), len(body)) == (text, unpacked.file.bytes)


@given(st.integers(1, len(FILE) - 1))
def test_a_cut_anywhere_is_noticed(size: int) -> None:
    """A gzip file without its last bytes is truncated, even if only the trailer is cut."""
    assert kind_of(FILE[:size]) == "truncated"


@given(st.integers(1, len(FILE) - 1))
def test_a_cut_in_a_later_member_is_noticed(size: int) -> None:
    """The last of several members is checked like the first."""
    assert kind_of(FILE + FILE[:size]) == "truncated"


@given(st.integers(10, len(FILE) - 1), st.integers(1, 255))
def test_a_changed_byte_is_noticed(position: int, change: int) -> None:
    """Damage after the header never gives other text."""
    damaged = bytearray(FILE)
    damaged[position] ^= change
    text = TEXT
    with contextlib.suppress(FileError):
        text, _ = unpack(bytes(damaged))
    assert TEXT == text


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "truncated"),
        (b"\x1f", "truncated"),
        (b"\x1f\x8b", "truncated"),
        (FILE + b"x", "corrupt"),
        (FILE + b"\0\0x", "corrupt"),
        (FILE + b"\x1fx", "corrupt"),
        (b"<html>busy</html>", "corrupt"),
        (b"  \n <html>", "corrupt"),
        (b" \n ", "corrupt"),
        (b"\xef\xbb\xbf", "corrupt"),
        (gzip.compress(gzip.compress(gzip.compress(gzip.compress(TEXT)))), "corrupt"),
        (gzip.compress(FILE[:-4]), "truncated"),
        (FILE[:-8] + bytes([FILE[-8] ^ 1]) + FILE[-7:], "corrupt"),
        (FILE[:-1] + bytes([FILE[-1] ^ 1]), "corrupt"),
        (zlib.compress(TEXT), "corrupt"),
    ],
)
def test_what_is_no_whole_file(body: bytes, kind: str) -> None:
    """Each kind of damage has its failure kind."""
    assert kind == kind_of(body)


@pytest.mark.parametrize("body", [b'\xef\xbb\xbf \r\n\t{"a":1}', b" " * 300_000 + b"[]"])
def test_white_space_and_a_byte_order_mark_may_stand_before_json(body: bytes) -> None:
    """The first character after them shows whether a plain body is JSON."""
    assert body == unpack(body)[0]


def test_more_than_is_allowed() -> None:
    """A decompression bomb stops at the limit, also inside another gzip."""
    bomb = gzip.compress(bytes(10_000_000))
    kinds = [
        kind_of(bomb, 1_000_000),
        kind_of(gzip.compress(bomb), 1_000_000),
        kind_of(TEXT, len(TEXT) - 1),
    ]
    assert ["too_large"] * 3 == kinds
    assert TEXT == unpack(FILE, len(TEXT))[0]
