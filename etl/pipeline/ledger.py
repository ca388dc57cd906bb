"""The ledger of a run: the lake's receipts, or the archive's files in a run that fills only that.

The plan (etl.pipeline.plan) subtracts the files of the ledger from the listed ones.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from etl.archive.reader import versions_by_path
from etl.config.settings import open_archive, open_lake
from etl.lake.commit import PartitionState, read_states
from etl.model.errors import RunError
from etl.pipeline.job import Job
from etl.storage.store import Store, StoreError


@dataclass(frozen=True, slots=True)
class Ledger:
    """The store that a run fills; `read` returns the states of partitions by their directories."""

    store: Store
    read: Callable[[Sequence[str]], Sequence[PartitionState]]


async def open_ledger(job: Job) -> Ledger:
    """Return the job's ledger. Raises RunError where its store cannot be read."""
    if job.archive_only:
        store = open_archive(job.settings)
        assert store is not None  # noqa: S101 - `require` checked it
        key, read = "raw.uri", _read_archived
    else:
        store = open_lake(job.settings)
        key, read = "lake.uri", read_states
    try:
        await asyncio.to_thread(store.check_readable)
    except StoreError as error:
        raise RunError(f"{error}; check {key}") from error
    return Ledger(store, partial(read, store))


def _read_archived(store: Store, directories: Sequence[str]) -> list[PartitionState]:
    """Return the files of some hours that an archive holds and that can be decoded. Blocking.

    An archive that refuses is reported as damage, as etl.lake.commit.read_states does of a lake.
    """
    with ThreadPoolExecutor(store.readers) as pool:
        return list(pool.map(partial(_read_hour, store), directories))


def _read_hour(store: Store, directory: str) -> PartitionState:
    state = PartitionState()

    def refused(_: str, error: StoreError) -> None:
        state.damage = str(error)

    for text, copies in versions_by_path(store.walk(refused, directory)).items():
        try:
            _, decodable = copies.best(store)
        except FileNotFoundError:
            continue  # an operator deleted it
        except (StoreError, OSError) as error:
            state.damage = str(error)
            continue
        if decodable:
            state.loaded.add(text)
    return state
