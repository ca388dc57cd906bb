"""A body → its text: gzip is recognised by its bytes, and each member is checked to its trailer."""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import BinaryIO, Final

from isal import igzip_lib
from isal.igzip_lib import IsalError

from etl.model.errors import FailureKind, FileError

GZIP_MAGIC: Final = b"\x1f\x8b"
_BOM: Final = b"\xef\xbb\xbf"
_WHITE_SPACE: Final = b" \t\r\n"
# Pieces that stay in the processor's cache: half the time of unpacking in one call. The C library
# allocates text of this size from its heap: larger buffers are mapped and faulted in each time.
_PIECE_BYTES: Final = 64 * 2**10
_TEXT_PIECE_BYTES: Final = 2**17 - 2**8
# Longer than nearly all rows.
_HEAD_BYTES: Final = 2**12
# The file's own gzip, and one or two transport encodings on top of it.
_MAX_LAYERS: Final = 3


class _Counted:
    """Pieces of bytes, counted and hashed while they pass."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self._hash = hashlib.sha256()
        self.bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self._hash.update(piece)
            self.bytes += len(piece)
            yield piece

    @property
    def sha256(self) -> str:
        """In hexadecimal digits."""
        return self._hash.hexdigest()


class Unpacked:
    """The text in a body, in pieces; iterate once.

    After that, `file` has the size and the checksum of the file: of its gzip bytes without any
    transport encoding, or of the plain body if there was no gzip. `decompressed` is the length of
    the text in bytes, `encodings` the number of transport encodings.

    Iterating raises FileError: truncated if the body or a gzip member ends too early; corrupt if
    gzip does not check, if other bytes than zeros follow it, or if a body is neither gzip nor JSON;
    too_large beyond `max_bytes`. `declared_gzip` means that the answer named gzip as its transport
    encoding: a web page in such gzip is an error page, which is corrupt.
    """

    def __init__(self, body: BinaryIO, max_bytes: int, *, declared_gzip: bool = False) -> None:
        self._body = body
        self._max_bytes = max_bytes
        self._declared_gzip = declared_gzip
        self.file = _Counted(())
        self.decompressed = 0
        self.encodings = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._text():
            self.decompressed += len(piece)
            if self.decompressed > self._max_bytes:
                raise _too_large(self._max_bytes)
            yield piece

    def _text(self) -> Iterator[bytes]:
        head, pieces = _look_ahead(without_encodings(self._body, 0, self._max_bytes))
        if not head:
            raise FileError(FailureKind.TRUNCATED, "an answer without a single byte")
        self.file = _Counted(pieces)
        if not head.startswith(GZIP_MAGIC[: len(head)]):
            return _json_only(self.file)
        for layer in range(_MAX_LAYERS):
            self.encodings = layer
            head, pieces = _look_ahead(_gunzip(self.file, self._max_bytes))
            if not head.startswith(GZIP_MAGIC):
                text = head.removeprefix(_BOM).lstrip(_WHITE_SPACE)
                if self._declared_gzip and text.startswith(b"<"):
                    raise _not_json()
                return pieces
            # Gzip in gzip: the outer one was a transport encoding; the innermost is the file.
            self.file = _Counted(pieces)
        raise FileError(FailureKind.CORRUPT, f"gzip in gzip, more than {_MAX_LAYERS} times")


class Window:
    """The part of a text that is in memory, and the position up to which it was read.

    Only a little of the next piece is copied, so that the row that continues in it can be read. The
    rest is read where it is: copying all text takes a sixth of the time of decoding it.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = b""  # the buffer ends with its first _HEAD_BYTES bytes, if it is not empty
        self.buffer = b""
        self.position = 0
        #: Whether the text ends with the buffer.
        self.final = False

    @property
    def unread(self) -> int:
        """How many bytes of the buffer were not read yet."""
        return len(self.buffer) - self.position

    def extend(self) -> None:
        """Read more. Two calls at least double the unread text, so that trying again pays."""
        unread = self.unread
        if self._piece and unread <= _HEAD_BYTES:
            self.buffer, self._piece = self._piece, b""
            self.position = _HEAD_BYTES - unread
            return
        parts = [self.buffer[self.position :], self._piece[_HEAD_BYTES:]]
        self._piece = b""
        size = sum(map(len, parts))
        while size <= 2 * unread and not self.final:
            piece = next(self._pieces, None)
            if piece is None:
                self.final = True
            elif 0 < size < _HEAD_BYTES < len(piece):
                self._piece = piece
                parts.append(piece[:_HEAD_BYTES])
                break
            else:
                parts.append(piece)
                size += len(piece)
        parts = [part for part in parts if part]
        self.buffer = parts[0] if len(parts) == 1 else b"".join(parts)
        self.position = 0

    def take_line(self, keep: int) -> bytes:
        """Read to the end of the line, at any distance; return its first bytes, `keep` at most.

        The newline itself stays unread.
        """
        kept = b""
        while (end := self.buffer.find(b"\n", self.position)) < 0:
            kept += self.buffer[self.position : self.position + keep - len(kept)]
            self.position = len(self.buffer)
            if self.final:
                return kept
            self.extend()
        kept += self.buffer[self.position : min(end, self.position + keep - len(kept))]
        self.position = end
        return kept


def without_encodings(body: BinaryIO, encodings: int, max_bytes: int) -> Iterator[bytes]:
    """Yield a body without this number of transport encodings. Raises FileError as Unpacked."""
    body.seek(0)
    pieces = iter(lambda: body.read(_PIECE_BYTES), b"")
    for _ in range(encodings):
        pieces = _gunzip(pieces, max_bytes)
    return pieces


def removable_encodings(body: BinaryIO, max_bytes: int) -> int:
    """Return the number of transport encodings around a file that cannot be decoded.

    It is 0 if they are damaged themselves or unpack to more than `max_bytes`.
    """
    unpacked = Unpacked(body, max_bytes)
    with contextlib.suppress(FileError):
        next(iter(unpacked), None)
    try:
        for _ in without_encodings(body, unpacked.encodings, max_bytes):
            pass
    except FileError:
        return 0
    return unpacked.encodings


def _look_ahead(pieces: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Return the first bytes, at least two if there are two, and all pieces."""
    seen: list[bytes] = []
    for piece in pieces:
        seen.append(piece)
        if sum(map(len, seen)) >= len(GZIP_MAGIC):
            break
    return b"".join(seen), chain(seen, pieces)


def _json_only(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces of a plain body if it starts as JSON does."""
    started = False
    for number, piece in enumerate(pieces):
        if not started:
            text = (piece if number else piece.removeprefix(_BOM)).lstrip(_WHITE_SPACE)
            if text and text[:1] not in b"{[":
                break
            started = bool(text)
        yield piece
    if not started:
        raise _not_json()


def _gunzip(pieces: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    """Unpack the members of a gzip stream; zeros may follow each.

    The decompressor checks the length and the CRC of each member, but not whether a trailer is
    missing or bytes are left over: only `eof` and `unused_data` show that.
    """
    member, head, total = _new_member(), b"", 0
    for packed in pieces:
        piece = packed
        while piece:
            if member.eof:
                piece = piece.lstrip(b"\0")
                if not piece:
                    break
                member, head = _new_member(), b""
            if len(head) < len(GZIP_MAGIC):
                # Checked here, because the decompressor waits until it has a whole header.
                head = (head + piece)[: len(GZIP_MAGIC)]
                if not GZIP_MAGIC.startswith(head):
                    message = "bytes other than zeros follow the gzip"
                    raise FileError(FailureKind.CORRUPT, message)
            for text in _decompressed(member, piece):
                total += len(text)
                if total > max_bytes:
                    raise _too_large(max_bytes)
                yield text
            piece = member.unused_data if member.eof else b""
    if not member.eof:
        raise FileError(FailureKind.TRUNCATED, "the gzip in the answer ends too early")


def _new_member() -> igzip_lib.IgzipDecompressor:
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


def _decompressed(member: igzip_lib.IgzipDecompressor, piece: bytes) -> Iterator[bytes]:
    try:
        text = member.decompress(piece, _TEXT_PIECE_BYTES)
        while text:
            yield text
            if member.eof or len(text) < _TEXT_PIECE_BYTES:
                return
            text = member.decompress(b"", _TEXT_PIECE_BYTES)
    except IsalError as error:  # type: ignore[misc]  # its stub calls it a value
        raise FileError(FailureKind.CORRUPT, f"damaged gzip: {error}") from None
    except EOFError:
        return  # the member's end came together with its last text


def _too_large(max_bytes: int) -> FileError:
    return FileError(
        FailureKind.TOO_LARGE,
        f"unpacks to more than {max_bytes} bytes; if that is right, raise limits.max_file_size",
    )


def _not_json() -> FileError:
    return FileError(
        FailureKind.CORRUPT, "the answer is neither gzip nor JSON (an error page, perhaps)"
    )
