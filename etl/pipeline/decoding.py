"""Downloaded files → rows: small files in the event loop, a bounded number of others in threads."""

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Final

from etl.api.responses import Body
from etl.archive.reader import archive_error
from etl.decode import DecodeLimits
from etl.decode.file import Decoded, decode
from etl.decode.kernel import Scanner
from etl.model.errors import FailureKind, FileError, RunError
from etl.model.events import log
from etl.model.machine import resource_shortage
from etl.pipeline.stop import Stop
from etl.storage.disk import CANNOT_WRITE, scratch_error, scratch_folder
from etl.storage.store import StoreError

# A smaller file is decoded in the event loop: in threads W1 takes 1.3 times as long (tests/bench).
_IN_LOOP_BYTES: Final = 2**15
# If it unpacks to more than this it goes to a thread after all, so that the loop does not wait.
_IN_LOOP_TEXT_BYTES: Final = 2**18


class Decoder:
    """Decodes files: small ones in the event loop, others in threads. `limits` are of one file."""

    def __init__(self, limits: DecodeLimits, stop: Stop, *, at_once: int) -> None:
        self._limits = limits
        self._stop = stop
        self._slots = asyncio.Semaphore(at_once)
        self._scanners: list[Scanner] = []  # free ones, to be used again

    def slot(self, body: Body) -> AbstractAsyncContextManager[None]:
        """Return a context to hold from before a file is decoded until its rows are in a part.

        It limits files that are large when downloaded to `at_once`, so their rows take bounded
        memory. A small file that unpacks to more is limited only while it is decoded.
        """
        return nullcontext() if _is_small(body) else self._slots

    async def decode(self, path: str, body: Body) -> Decoded:
        """Decode a file. Raises FileError; RunError where the machine lacks something."""
        if not _is_small(body):
            return await asyncio.to_thread(self._decode, path, body, self._limits)
        most = min(self._limits.max_file_size, _IN_LOOP_TEXT_BYTES)
        try:
            return self._decode(path, body, replace(self._limits, max_file_size=most))
        except FileError as error:
            if error.kind is not FailureKind.TOO_LARGE:
                raise
        async with self._slots:
            return await asyncio.to_thread(self._decode, path, body, self._limits)

    def _decode(self, path: str, body: Body, limits: DecodeLimits) -> Decoded:
        try:
            scanner = self._scanners.pop()
        except IndexError:
            scanner = Scanner()
        try:
            return decode(
                body.stream,
                path,
                limits,
                scratch=Path(scratch_folder()),
                declared_gzip=body.declared_gzip,
                scanner=scanner,
            )
        except FileError:
            raise
        except Exception as error:
            raise self._explained(error, path, body) from error
        finally:
            self._scanners.append(scanner)

    def _explained(self, error: Exception, path: str, body: Body) -> FileError | RunError:
        """Return the error to report where the file itself is not the cause."""
        if (reason := resource_shortage(error)) is not None:
            return RunError(reason)
        if isinstance(error, StoreError):  # an archived file, read while it is decoded
            return archive_error(error)
        if isinstance(error, OSError):
            archived = body.release is not None and error.errno not in CANNOT_WRITE
            return archive_error(error) if archived else scratch_error(error)
        # The boundary of a work item: an unexpected file must not end the run.
        if not self._stop.requested():  # otherwise its body may have been closed
            log.debug("file.undecodable", path=path, exc_info=error)
        return FileError(
            FailureKind.MALFORMED,
            f"cannot be decoded: {type(error).__name__}; please report it, with what "
            "--log-level debug shows",
        )


def _is_small(body: Body) -> bool:
    return body.size <= _IN_LOOP_BYTES and body.in_memory
