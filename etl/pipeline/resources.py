"""What a run uses of its machine: memory, and threads for blocking work."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from etl.config.settings import Settings
from etl.model.errors import RunError
from etl.model.machine import cores, resource_shortage
from etl.storage.places import is_remote

_KIB: Final = 2**10
_MIB: Final = 2**20
# Threads that libraries start: Arrow, and the client of an object store.
_LIBRARY_THREADS: Final = 6
# More threads: they wait for the disk of an archive, or for an object store.
_ARCHIVE_THREADS: Final = 2
_STORE_THREADS: Final = 8


@dataclass(frozen=True, slots=True)
class Memory:
    """How `limits.memory` is shared out, in bytes.

    Every share is fixed, and data beyond it goes to disk. So nobody waits for memory while holding
    some, and nothing can deadlock. A quarter each is for downloaded files, for files being decoded
    and for rows that wait for their partition; a quarter is left for encoding.
    """

    download: int
    decode: int
    pending: int
    decoders: int

    @classmethod
    def share_out(cls, budget: int, downloads: int) -> "Memory":
        """Share out the budget among this many downloaded files, and one decoder a core."""
        decoders = max(1, min(cores(), downloads, budget // (32 * _MIB)))
        return cls(
            download=max(64 * _KIB, min(4 * _MIB, budget // 4 // downloads)),
            decode=max(_MIB, min(64 * _MIB, budget // 4 // decoders)),
            pending=budget // 4,
            decoders=decoders,
        )


def threads_for(settings: Settings) -> ThreadPoolExecutor:
    """Return the thread pool for the event loop of a job, with at least one thread.

    One thread for each core decodes, and as many commit, read receipts or write spool files. There
    are fewer where `ulimit -u` or a cgroup's `pids.max` allows fewer. Raises RunError where no
    thread can be started. More threads cost memory: with asyncio's default number the peak was an
    eighth higher.
    """
    raw = settings.raw.uri
    more = _ARCHIVE_THREADS if raw else 0
    if is_remote(settings.lake.uri) or (raw and is_remote(raw)):
        more = _STORE_THREADS
    wanted = 2 * max(2, cores()) + more
    allowed = _startable(wanted + _LIBRARY_THREADS) - _LIBRARY_THREADS
    pool = ThreadPoolExecutor(max(1, min(wanted, allowed)), "aht-etl")
    try:
        pool.submit(int).result()  # start the first thread
    except RuntimeError as error:
        raise RunError(resource_shortage(error) or str(error)) from error
    return pool


def _startable(most: int) -> int:
    """Return how many threads can be started now, up to a number."""
    tasks = Path("/proc/self/task")
    before = len(list(tasks.iterdir()))
    over = threading.Event()
    started = []
    with suppress(RuntimeError):
        for _ in range(most):
            thread = threading.Thread(target=over.wait, daemon=True)
            thread.start()
            started.append(thread)
    over.set()
    for thread in started:
        thread.join()
    # A joined thread counts until the kernel has removed it from its list.
    ends_at = time.monotonic() + 1
    while len(started) < most and len(list(tasks.iterdir())) > before:
        if time.monotonic() > ends_at:
            break
        time.sleep(0.001)
    return len(started)
