"""The bytes of an answer: small ones whole in memory, files in memory or spooled to disk."""

import asyncio
import gzip
import io
import json
import tempfile
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Self

from aiofiles.threadpool import wrap

from etl.model.errors import FailureKind, FileError
from etl.storage.scratch import scratch_error, scratch_folder

# An answer that is read whole: a million paths are about 130 MB.
_JSON_MAX_BYTES: Final = 256 * 2**20
# Each write is a hand-over to a thread and back.
_SPOOLED_AT_ONCE_BYTES: Final = 2**20
_GZIP_MAGIC: Final = b"\x1f\x8b"
_A_PAGE: Final = (
    "a web page, not the API's answer: a proxy, a login page or another server answers in its place"
)
# What is looked at to tell a web page from a file.
_BEGIN_BYTES: Final = 256
#: The span over which the least rate of an answer is judged.
MINUTE_S: Final = 60.0


class ForeignError(FileError):
    """The answer is not the API's: its status or its body shows that something else gave it.

    It is asked for again: what is in between may go away.
    """

    def __init__(
        self, message: str, *, kind: FailureKind = FailureKind.HTTP, status: int | None = None
    ) -> None:
        super().__init__(kind, message, status=status, passing=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered; `chunks` is its body, which is read once."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


async def paced(
    chunks: AsyncIterator[bytes], least_rate: float, clock: Callable[[], float]
) -> AsyncIterator[bytes]:
    """Yield the chunks as long as `least_rate` bytes a second arrive, judged once a minute.

    Raises FileError (timeout): a server that sends a byte now and then would never be given up.
    How long the first byte may take is another limit.
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
    """A downloaded answer, seekable; closing it frees memory and disk."""

    size: int
    #: How many of its bytes are held in memory, not on disk.
    in_memory: int
    stream: BinaryIO
    #: Whether the answer said that gzip is its transport encoding.
    declared_gzip: bool
    #: What lets go of the stream of an archived file, which is read where it lies.
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


async def download(answer: Answer, memory_bytes: int, max_bytes: int) -> Body:
    """Read a file's answer to its end, beyond `memory_bytes` into an unnamed temporary file.

    Raises FileError (too_large) beyond `max_bytes`, ForeignError (corrupt) for a web page. Whether
    the answer was whole is known to the transport (the length on the wire) and to the decoder (the
    gzip trailer), not here.
    """
    memory = io.BytesIO()
    raw: BinaryIO | None = None
    size = 0
    try:
        async for chunk in answer.chunks:
            if not size and _is_page(chunk):
                raise ForeignError(_A_PAGE, kind=FailureKind.CORRUPT)
            size += len(chunk)
            if size > max_bytes:
                raise FileError(
                    FailureKind.TOO_LARGE,
                    f"more than {max_bytes} bytes came; if right, raise limits.max_file_size",
                )
            memory.write(chunk)
            if memory.tell() <= (memory_bytes if raw is None else _SPOOLED_AT_ONCE_BYTES):
                continue
            if raw is None:
                raw = _scratch_file()
            await _spool(memory, raw)
        if raw is not None:
            await _spool(memory, raw)
    except BaseException:
        if raw is not None:
            raw.close()
        raise
    declared_gzip = "gzip" in answer.headers.get("Content-Encoding", "").lower()
    if raw is not None:
        return Body(size, 0, raw, declared_gzip)
    return Body(size, size, memory, declared_gzip)


def _scratch_file() -> BinaryIO:
    """Return an unnamed file: a killed run leaves nothing behind. Raises FileError."""
    try:
        return tempfile.TemporaryFile(dir=scratch_folder())
    except OSError as error:
        raise scratch_error(error) from error


async def _spool(memory: io.BytesIO, raw: BinaryIO) -> None:
    """Move what memory holds to the end of a file. Raises FileError."""
    try:
        await wrap(raw).write(memory.getvalue())
    except OSError as error:
        raise scratch_error(error) from error
    memory.seek(0)
    memory.truncate()


async def read_json(answer: Answer) -> Any:
    """Read an answer that should be JSON, packed by gzip or not, whatever its headers say.

    Raises ForeignError where it is no JSON, FileError where nothing or half of its gzip came.
    """
    body = bytearray()
    async for chunk in answer.chunks:
        body += chunk
        if len(body) > _JSON_MAX_BYTES:
            raise FileError(
                FailureKind.TOO_LARGE, f"an answer of more than {_JSON_MAX_BYTES} bytes"
            )
    return await asyncio.to_thread(_parse, bytes(body))


async def read_begin(answer: Answer, most_bytes: int) -> bytes:
    """Read this much of an answer, unpacked where it is gzip; what is damaged is left out."""
    body = bytearray()
    async for chunk in answer.chunks:
        body += chunk
        if len(body) >= most_bytes:
            break
    if body.startswith(_GZIP_MAGIC):
        try:
            return zlib.decompressobj(wbits=31).decompress(bytes(body), most_bytes)
        except zlib.error:
            return b""
    return bytes(body[:most_bytes])


def _parse(body: bytes) -> Any:
    if not body:
        raise FileError(FailureKind.TRUNCATED, "an answer without a body")
    try:
        if body.startswith(_GZIP_MAGIC):
            with gzip.GzipFile(fileobj=io.BytesIO(body)) as unpacked:
                body = unpacked.read(_JSON_MAX_BYTES + 1)
    except EOFError:
        raise FileError(FailureKind.TRUNCATED, "an answer whose gzip ends too early") from None
    except (OSError, zlib.error):
        raise FileError(FailureKind.CORRUPT, "an answer whose gzip is damaged") from None
    if len(body) > _JSON_MAX_BYTES:
        raise FileError(FailureKind.TOO_LARGE, f"an answer of more than {_JSON_MAX_BYTES} bytes")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        message = _A_PAGE if _is_page(body) else "an answer that is not JSON"
        raise ForeignError(message, kind=FailureKind.CORRUPT) from None


def _is_page(begin: bytes) -> bool:
    """Tell whether a body is HTML or XML: no answer of the API begins so."""
    return begin[:_BEGIN_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<"
