"""The bytes of an answer: small ones whole in memory, files in memory or spooled to disk."""

import asyncio
import errno
import gzip
import io
import json
import os
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Self

from aiofiles.threadpool import wrap
from aiohttp import ClientResponse

from etl.errors import FailureKind, FileError

# An answer that is read whole: a million paths are about 130 MB.
_JSON_MAX_BYTES: Final = 256 * 2**20
# Each write is a hand-over to a thread and back.
_SPOOLED_AT_ONCE_BYTES: Final = 2**20
_GZIP_MAGIC: Final = b"\x1f\x8b"
#: What a folder says that cannot be written to: no file that is read says it.
NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def scratch_folder() -> str:
    """Return the temporary folder, also where none can be written to: whoever tries will say so."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return os.environ.get("TMPDIR", "/tmp")  # noqa: S108


def scratch_error(error: OSError) -> FileError:
    """Return what to tell when the temporary folder refuses."""
    return FileError(
        FailureKind.LAKE,
        f"the temporary folder {scratch_folder()}: {error.strerror or error}; make room, or "
        "set TMPDIR to another",
    )


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


async def download(response: ClientResponse, memory_bytes: int, max_bytes: int) -> Body:
    """Read an answer to its end, beyond `memory_bytes` into an unnamed temporary file.

    Raises FileError (too_large) beyond `max_bytes`. Whether the answer was whole is known to the
    transport (the length on the wire) and to the decoder (the gzip trailer), not here.
    """
    memory = io.BytesIO()
    raw: BinaryIO | None = None
    size = 0
    try:
        async for chunk in response.content.iter_any():
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
    declared_gzip = "gzip" in response.headers.get("Content-Encoding", "").lower()
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


async def read_json(response: ClientResponse) -> Any:
    """Read an answer that should be JSON, packed by gzip or not, whatever its headers say.

    Raises FileError: truncated where nothing or half of it came, corrupt where it is no JSON.
    """
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _JSON_MAX_BYTES:
            raise FileError(
                FailureKind.TOO_LARGE, f"an answer of more than {_JSON_MAX_BYTES} bytes"
            )
    return await asyncio.to_thread(_parse, bytes(body))


def _parse(body: bytes) -> Any:
    if not body:
        raise FileError(FailureKind.TRUNCATED, "an answer without a body")
    try:
        if body.startswith(_GZIP_MAGIC):
            with gzip.GzipFile(fileobj=io.BytesIO(body)) as unpacked:
                body = unpacked.read(_JSON_MAX_BYTES + 1)
        if len(body) > _JSON_MAX_BYTES:
            raise FileError(
                FailureKind.TOO_LARGE, f"an answer of more than {_JSON_MAX_BYTES} bytes"
            )
        return json.loads(body)
    except EOFError:
        raise FileError(FailureKind.TRUNCATED, "an answer whose gzip ends too early") from None
    except (ValueError, RecursionError, OSError, zlib.error):
        raise FileError(FailureKind.CORRUPT, "an answer that is not JSON") from None
