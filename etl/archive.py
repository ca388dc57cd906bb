"""The raw archive: files as they were downloaded, byte for byte, under the vendor's own paths."""

import hashlib
from typing import BinaryIO

import structlog

from etl.decode.unpack import file_pieces
from etl.errors import FailureKind, FileError
from etl.lake.store import AlreadyExistsError, LakeError, Store

log = structlog.stdlib.get_logger()


def name_beside(name: str, sha256: str) -> str:
    """Return under which name a file is kept where another one has its own."""
    return f"{name}.sha256-{sha256[:12]}"


class Archive:
    """A folder of raw files.

    A file appears whole and synced or not at all, and is never replaced: the same again changes
    nothing; another one under the same path is kept beside it, with its checksum behind the name.
    """

    def __init__(self, store: Store, max_file_size: int) -> None:
        self._store = store
        self._max_file_size = max_file_size

    def prepare(self) -> None:
        """Make sure that the archive can be written. Raises LakeError."""
        self._store.prepare()
        self._store.clean_up()
        try:
            # From the first file that is kept until its rows are in the lake: whoever compares
            # the two must not take what is under way for forgotten.
            self._store.hold()
        except OSError as error:
            raise LakeError.of("writing to", "raw.uri", error) from error

    def keep(self, path: str, body: BinaryIO) -> None:
        """Keep the file in a downloaded body, any transport encoding taken off.

        Blocking. Raises FileError (lake, or too_large).
        """
        name = path.removeprefix("/")
        try:
            staged = self._store.stage()
            try:
                digest = hashlib.sha256()
                for piece in file_pieces(body, self._max_file_size):
                    digest.update(piece)
                    staged.stream.write(piece)
                try:
                    self._store.create(staged, name)
                except AlreadyExistsError:
                    if self._sha256(name) == digest.hexdigest():
                        return
                    beside = name_beside(name, digest.hexdigest())
                    log.warning("archive.differs", path=path, kept_as=beside)
                    self._store.replace(staged, beside)
            finally:
                staged.close()
        except (LakeError, OSError) as error:
            raise FileError(FailureKind.LAKE, f"the raw archive: {error}; check raw.uri") from error

    def _sha256(self, name: str) -> str:
        with self._store.open(name) as there:
            digest = hashlib.file_digest(there, "sha256")  # type: ignore[arg-type] # it is buffered
            return digest.hexdigest()
