"""A body → the text in it: gzip recognised by its bytes, every member checked to its trailer."""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import BinaryIO, Final

from isal import igzip_lib
from isal.igzip_lib import IsalError

from etl.model.errors import FailureKind, FileError

_MAGIC: Final = b"\x1f\x8b"
_BOM: Final = b"\xef\xbb\xbf"
_WHITE_SPACE: Final = b" \t\r\n"
# Pieces that stay in the processor's cache: half the time of unpacking in one call. Text comes in
# pieces that the C library takes from its heap: larger ones are mapped and faulted in each time.
_PIECE_BYTES: Final = 64 * 2**10
_TEXT_PIECE_BYTES: Final = 2**17 - 2**8
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
        return self._hash.hexdigest()


class Unpacked:
    """The text in a body, in pieces; iterate once.

    After that, `file_bytes` and `sha256` are those of the file: its gzip bytes after any transport
    encoding is taken off, or the plain body if there was no gzip. `decompressed` is the text's
    length in bytes. Iterating raises FileError: truncated where the body or a gzip member ends
    too early, corrupt where gzip does not check, other bytes than zeros stand behind it, or a
    body is neither gzip nor JSON; too_large beyond `max_bytes`. A web page in `declared_gzip`, gzip
    that the answer called its transport encoding, is a body that is neither: an error page.
    """

    def __init__(self, body: BinaryIO, max_bytes: int, *, declared_gzip: bool = False) -> None:
        self._body = body
        self._max_bytes = max_bytes
        self._declared_gzip = declared_gzip
        self._file = _Counted(())
        self.decompressed = 0
        #: How many transport encodings the file came in.
        self.encodings = 0

    @property
    def file_bytes(self) -> int:
        """How many bytes the file has."""
        return self._file.bytes

    @property
    def sha256(self) -> str:
        """The file's SHA-256, in hexadecimal digits."""
        return self._file.sha256

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._text():
            self.decompressed += len(piece)
            if self.decompressed > self._max_bytes:
                raise too_large(self._max_bytes)
            yield piece

    def _text(self) -> Iterator[bytes]:
        self._body.seek(0)
        head, pieces = _look_ahead(iter(lambda: self._body.read(_PIECE_BYTES), b""))
        if not head:
            raise FileError(FailureKind.TRUNCATED, "an answer without a single byte")
        self._file = _Counted(pieces)
        if not head.startswith(_MAGIC[: len(head)]):
            return _checked(self._file)
        for _ in range(_MAX_LAYERS):
            head, pieces = _look_ahead(_gunzip(self._file, self._max_bytes))
            if not head.startswith(_MAGIC):
                if self._declared_gzip and _begins_with(head, b"<"):
                    raise _no_file()
                return pieces
            # There is gzip in the gzip: what was unpacked so far was a transport encoding, and
            # the innermost gzip is the file.
            self._file = _Counted(pieces)
            self.encodings += 1
        raise FileError(FailureKind.CORRUPT, f"gzip in gzip, more than {_MAX_LAYERS} times")


def file_pieces(body: BinaryIO, max_bytes: int) -> Iterator[bytes]:
    """Yield the file in a body: its gzip without transport encodings, or what else came, as it is.

    Where a layer is damaged, what lies under it is not looked for. Raises FileError (too_large)
    where a transport encoding unpacks to more than `max_bytes`.
    """
    layers = 0
    with contextlib.suppress(FileError):
        while layers < _MAX_LAYERS and _look_ahead(unwrapped(body, layers, max_bytes))[
            0
        ].startswith(_MAGIC):
            layers += 1
    return unwrapped(body, max(0, layers - 1), max_bytes)


def unwrapped(body: BinaryIO, encodings: int, max_bytes: int) -> Iterator[bytes]:
    """Yield a body without so many transport encodings. Raises FileError as Unpacked does."""
    body.seek(0)
    pieces = iter(lambda: body.read(_PIECE_BYTES), b"")
    for _ in range(encodings):
        pieces = _gunzip(pieces, max_bytes)
    return pieces


def too_large(max_bytes: int) -> FileError:
    """Return what to tell of a file that unpacks to more than is allowed."""
    return FileError(
        FailureKind.TOO_LARGE,
        f"unpacks to more than {max_bytes} bytes; if that is right, raise limits.max_file_size",
    )


def _look_ahead(pieces: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Return the first bytes, at least two if there are so many, and all pieces as they were."""
    seen: list[bytes] = []
    for piece in pieces:
        seen.append(piece)
        if sum(map(len, seen)) >= len(_MAGIC):
            break
    return b"".join(seen), chain(seen, pieces)


def _checked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Pass a plain body on, if it begins as JSON does."""
    begun = False
    first = True
    for piece in pieces:
        if not begun:
            rest = (piece.removeprefix(_BOM) if first else piece).lstrip(_WHITE_SPACE)
            if rest and rest[:1] not in b"{[":
                break
            begun = bool(rest)
            first = False
        yield piece
    if not begun:
        raise _no_file()


def _begins_with(text: bytes, character: bytes) -> bool:
    return text.removeprefix(_BOM).lstrip(_WHITE_SPACE).startswith(character)


def _no_file() -> FileError:
    return FileError(
        FailureKind.CORRUPT, "the answer is neither gzip nor JSON (an error page, perhaps)"
    )


def _gunzip(pieces: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    members = _Members()
    total = 0
    for piece in pieces:
        for text in members.feed(piece):
            total += len(text)
            if total > max_bytes:
                raise too_large(max_bytes)
            yield text
    members.end()


class _Members:
    """Unpacks the members of a gzip stream; zeros may stand behind each.

    The decompressor checks length and CRC of each member but is silent when a trailer is missing
    or when bytes are left over: only `eof` and `unused_data` tell.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        self._head = b""

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yield what so many more bytes unpack to. Raises FileError (corrupt)."""
        while piece:
            if self._member.eof:
                piece = piece.lstrip(b"\0")
                if not piece:
                    return
                self._begin()
            if len(self._head) < len(_MAGIC):
                self._check_magic(piece)
            yield from self._unpack(piece)
            piece = self._member.unused_data if self._member.eof else b""

    def _check_magic(self, piece: bytes) -> None:
        # Looked at here, because the decompressor waits until it has a whole header.
        self._head = (self._head + piece)[: len(_MAGIC)]
        if not _MAGIC.startswith(self._head):
            raise FileError(FailureKind.CORRUPT, "bytes other than zeros stand behind the gzip")

    def _unpack(self, piece: bytes) -> Iterator[bytes]:
        try:
            text = self._member.decompress(piece, _TEXT_PIECE_BYTES)
            while text:
                yield text
                if self._member.eof or len(text) < _TEXT_PIECE_BYTES:
                    return
                text = self._member.decompress(b"", _TEXT_PIECE_BYTES)
        except IsalError as error:  # type: ignore[misc]  # its stub calls it a value
            raise FileError(FailureKind.CORRUPT, f"damaged gzip: {error}") from None
        except EOFError:
            return  # the member's end came together with its last text

    def end(self) -> None:
        """Raise FileError (truncated) unless the last member was whole."""
        if not self._member.eof:
            raise FileError(FailureKind.TRUNCATED, "the gzip in the answer ends too early")
