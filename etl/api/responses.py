"""The bodies of responses: JSON read whole, files in memory or spooled to disk."""

import asyncio
import gzip
import io
import json
import tempfile
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Self

from aiofiles.threadpool import wrap

from etl.model.errors import FailureKind, FileError
from etl.storage.disk import scratch_error, scratch_folder

# The limit of a response that is read whole: a million paths are about 130 MB.
_JSON_MAX_BYTES: Final = 256 * 2**20
# Each write is a hand-over to a thread and back.
_SPOOLED_AT_ONCE_BYTES: Final = 2**20
_GZIP_MAGIC: Final = b"\x1f\x8b"
_WEB_PAGE: Final = (
    "a web page, not the API's answer: a proxy, a login page or another server answers in its place"
)
# How much of a body shows whether it is a web page.
_START_BYTES: Final = 256
#: The least rate of a response is checked over this span.
MINUTE_S: Final = 60.0


class ForeignResponseError(FileError):
    """The status or the body shows that something else than the API responded.

    The request is sent again: the fault may pass.
    """

    def __init__(
        self, message: str, *, kind: FailureKind = FailureKind.HTTP, status: int | None = None
    ) -> None:
        super().__init__(kind, message, status=status, retryable=True)


@dataclass(frozen=True, slots=True)
class Response:
    """A server's response; `chunks` is its body, which can be read once."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


async def require_rate(
    chunks: AsyncIterator[bytes], least_rate: float, clock: Callable[[], float]
) -> AsyncIterator[bytes]:
    """Yield the chunks while at least `least_rate` bytes a second arrive, checked once a minute.

    Raises FileError (timeout): no other limit ends a response that sends a byte now and then. The
    first minute starts with the first chunk.
    """
    since, size = float("inf"), 0
    async for chunk in chunks:
        now = clock()
        if since > now:
            since = now
        else:
            size += len(chunk)
        if now - since >= MINUTE_S:
            if size < least_rate * (now - since):
                raise FileError(
                    FailureKind.TIMEOUT,
                    f"{size:,} bytes arrived in {now - since:.0f} s, less than {least_rate:,.0f} a "
                    "second; lower fetch.least_rate if that is normal",
                )
            since, size = now, 0
        yield chunk


@dataclass(frozen=True, slots=True)
class Body:
    """A downloaded file, seekable. Closing it frees memory and disk."""

    size: int
    stream: BinaryIO
    #: False if the bytes are on disk, or still in the archive.
    in_memory: bool
    #: Whether the response names gzip as its transport encoding.
    declared_gzip: bool = False
    #: Closes the archive's stream, for an archived file that is read from its place.
    release: Callable[[], None] | None = None

    def close(self) -> None:
        """Free what is held."""
        self.stream.close()
        if self.release is not None:
            self.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def download(response: Response, memory_bytes: int, max_bytes: int) -> Body:
    """Read a file to its end; if it is larger than `memory_bytes`, into a temporary file.

    Raises FileError (too_large) beyond `max_bytes`, ForeignResponseError (corrupt) for a web page.
    Whether the file is whole is checked elsewhere: the transport checks the length on the wire,
    the decoder the trailer of the gzip.
    """
    memory = io.BytesIO()
    spooled: BinaryIO | None = None
    size = 0
    with ExitStack() as on_error:
        async for chunk in response.chunks:
            if not size and _is_web_page(chunk):
                raise ForeignResponseError(_WEB_PAGE, kind=FailureKind.CORRUPT)
            size += len(chunk)
            if size > max_bytes:
                raise FileError(
                    FailureKind.TOO_LARGE,
                    f"more than {max_bytes} bytes came; if right, raise limits.max_file_size",
                )
            memory.write(chunk)
            if memory.tell() > (_SPOOLED_AT_ONCE_BYTES if spooled else memory_bytes):
                spooled = spooled or on_error.enter_context(_scratch_file())
                await _spool(memory, spooled)
        if spooled:
            await _spool(memory, spooled)
        on_error.pop_all()
    return Body(
        size,
        spooled or memory,
        in_memory=spooled is None,
        declared_gzip="gzip" in response.headers.get("Content-Encoding", "").lower(),
    )


def _scratch_file() -> BinaryIO:
    """Return a file without a name: a killed run leaves nothing behind. Raises FileError."""
    try:
        return tempfile.TemporaryFile(dir=scratch_folder())
    except OSError as error:
        raise scratch_error(error) from error


async def _spool(memory: io.BytesIO, file: BinaryIO) -> None:
    """Move the bytes in memory to the end of the file. Raises FileError."""
    try:
        await wrap(file).write(memory.getvalue())
    except OSError as error:
        raise scratch_error(error) from error
    memory.seek(0)
    memory.truncate()


async def read_json(response: Response) -> Any:
    """Read a response that should be JSON, gzipped or not, whatever its headers say.

    Raises ForeignResponseError if it is not JSON, FileError if it is too large, empty, cut off or
    damaged.
    """
    return await asyncio.to_thread(_parse, await _read(response, _JSON_MAX_BYTES + 1))


async def read_start(response: Response, max_bytes: int) -> bytes:
    """Read at most this much of a response, decompressed; b"" if its gzip is damaged."""
    body = await _read(response, max_bytes)
    if body.startswith(_GZIP_MAGIC):
        try:
            return zlib.decompressobj(wbits=31).decompress(body, max_bytes)
        except zlib.error:
            return b""
    return body[:max_bytes]


async def _read(response: Response, enough_bytes: int) -> bytes:
    """Read chunks until there are this many bytes."""
    body = bytearray()
    async for chunk in response.chunks:
        body += chunk
        if len(body) >= enough_bytes:
            break
    return bytes(body)


def _parse(body: bytes) -> Any:
    if not body:
        raise FileError(FailureKind.TRUNCATED, "an answer without a body")
    try:
        if body.startswith(_GZIP_MAGIC) and len(body) <= _JSON_MAX_BYTES:
            with gzip.GzipFile(fileobj=io.BytesIO(body)) as decompressed:
                body = decompressed.read(_JSON_MAX_BYTES + 1)
    except EOFError:
        raise FileError(FailureKind.TRUNCATED, "an answer whose gzip ends too early") from None
    except (OSError, zlib.error):
        raise FileError(FailureKind.CORRUPT, "an answer whose gzip is damaged") from None
    if len(body) > _JSON_MAX_BYTES:
        raise FileError(FailureKind.TOO_LARGE, f"an answer of more than {_JSON_MAX_BYTES} bytes")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        message = _WEB_PAGE if _is_web_page(body) else "an answer that is not JSON"
        raise ForeignResponseError(message, kind=FailureKind.CORRUPT) from None


def _is_web_page(start: bytes) -> bool:
    """Return whether a body is HTML or XML: no response of the API starts with a tag."""
    return start[:_START_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<"
