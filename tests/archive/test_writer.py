"""The archive's writer: each file once, whatever the store answers, and nothing is replaced."""

import asyncio
import gzip
import io
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from etl.api.responses import Body
from etl.archive.reader import failure_note_name
from etl.archive.writer import ArchiveWriter, Download
from etl.decode.file import DecodeLimits, decode
from etl.model.errors import FailureKind, FileError
from etl.storage.local import LocalStore
from etl.storage.store import RepeatableError, StagedFile, StoreError

PATH = "/year=2022/month=6/day=1/hour=6/accountId=le79344075/a.json.gz"
CONTENT = gzip.compress(b'{"segmentId":"a"}\n', mtime=0)


def add(store: LocalStore, content: bytes, *, failed: FileError | None = None) -> bool:
    """Add a file that was decoded, or that failed; return whether it is new."""

    async def added() -> bool:
        writer = ArchiveWriter(store, 2**20)
        writer.prepare()
        stream = io.BytesIO(content)
        body = Body(len(content), stream, in_memory=True)
        if failed is not None:
            return await writer.add(Download(PATH, body, failed))
        with decode(stream, PATH, DecodeLimits(2**20, 0.5, 2**20), scratch=Path("/tmp")) as decoded:
            return await writer.add(Download(PATH, body, decoded))

    return asyncio.run(added())


class NeverReplaces(LocalStore):
    """Has an object lock: a file that exists cannot be written again."""

    def replace(self, staged: StagedFile, name: str) -> None:
        if (self.root / name).exists():
            raise StoreError(f"writing {name}: locked")
        super().replace(staged, name)


def test_a_file_that_fails_again_changes_nothing(tmp_path: Path) -> None:
    """Its note stays, also where the store has object lock."""
    store = NeverReplaces(tmp_path / "raw")
    for message in ("first", "second"):
        add(store, b"junk", failed=FileError(FailureKind.CORRUPT, message))
    note = store.root / failure_note_name(PATH, sha256(b"junk").hexdigest())[1:]
    assert b"junk" == (store.root / PATH[1:]).read_bytes()
    assert "corrupt: first\n" == note.read_text()


class LosesTheFirst(LocalStore):
    """Gives no answer to the first creation; `done` says whether it was done."""

    done = False
    lost = False

    def create_all(self, files: Sequence[tuple[StagedFile, str]]) -> list[StoreError | None]:
        if self.lost:
            return super().create_all(files)
        self.lost = True
        if self.done:
            super().create_all(files)
        return [RepeatableError("no answer") for _ in files]


@pytest.mark.parametrize("done", [False, True])
def test_a_creation_without_an_answer_makes_a_new_file(tmp_path: Path, *, done: bool) -> None:
    """It does not count as another run's, whether it was done or had to be repeated."""
    store = LosesTheFirst(tmp_path / "raw")
    store.done = done
    assert add(store, CONTENT)
    assert CONTENT == (store.root / PATH[1:]).read_bytes()
    assert not add(LocalStore(store.root), CONTENT)
