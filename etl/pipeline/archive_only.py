"""Landing first: a run that fills the raw archive and no lake. The archive is its ledger."""

from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

from etl.archive.names import versions_by_path
from etl.archive.writer import sha256_of
from etl.lake.commit import PartitionState
from etl.pipeline.gather import SourceFile
from etl.pipeline.plan import PartitionPlan
from etl.pipeline.stop import Stop
from etl.pipeline.tally import Tally
from etl.storage.store import LakeError, Store


def read_archived(store: Store, directories: Sequence[str]) -> list[PartitionState]:
    """Tell what an archive holds of some hours: the files that can be decoded. Blocking.

    As etl.lake.commit.read_states does of a lake; an archive that refuses is told as damage.
    """
    with ThreadPoolExecutor(store.readers) as pool:
        return list(pool.map(partial(_read, store), directories))


def _read(store: Store, directory: str) -> PartitionState:
    state = PartitionState()

    def refused(_: str, error: LakeError) -> None:
        state.damage = str(error)

    for text, versions in versions_by_path(store.walk(refused, directory)).items():
        try:
            _, decodable = versions.best(partial(sha256_of, store))
        except FileNotFoundError:
            continue  # an operator deleted it
        except (LakeError, OSError) as error:
            state.damage = str(error)
            continue
        if decodable:
            state.loaded.add(text)
    return state


class Landing:
    """Takes decoded files as `Sink` does, when they are in the archive, and lets them go."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def expect(self, plan: PartitionPlan) -> None:
        """Prepare for nothing: files of an hour do not wait for each other."""

    async def add(self, _: PartitionPlan, file: SourceFile) -> None:
        """Take a file and close it."""
        file.decoded.close()
        self._tally.archived(file.path, by_others=file.kept_before)

    @asynccontextmanager
    async def patient(self, _: Stop) -> AsyncIterator[None]:
        """Yield: nothing waits here."""
        yield

    async def failed(self, plan: PartitionPlan) -> None:
        """Take note that a file will not come: nobody waits for it."""

    async def close(self) -> None:
        """End: nothing is left."""

    def discard(self) -> None:
        """Throw away what is not committed: nothing."""
