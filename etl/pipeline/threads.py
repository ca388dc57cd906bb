"""The threads of a run: as many as help, and no more than the machine allows."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from etl.config.settings import Settings
from etl.model.machine import cores
from etl.storage.places import is_remote

# Threads that libraries start: Arrow, and the client of an object store.
_LIBRARY_THREADS: Final = 6
# More threads: they wait for the disk of an archive, or for an object store.
_ARCHIVE_THREADS: Final = 2
_STORE_THREADS: Final = 8


def threads_for(settings: Settings) -> ThreadPoolExecutor:
    """Return the thread pool for the event loop of a job, with at least one thread.

    One thread for each core decodes, and as many commit, read receipts or write spool files. There
    are fewer where `ulimit -u` or a cgroup's `pids.max` allows fewer. Raises RuntimeError where no
    thread can be started. More threads cost memory: with asyncio's default number the peak was an
    eighth higher.
    """
    raw = settings.raw.uri
    more = _ARCHIVE_THREADS if raw else 0
    if is_remote(settings.lake.uri) or (raw and is_remote(raw)):
        more = _STORE_THREADS
    most = 2 * max(2, cores()) + more
    allowed = _startable(most + _LIBRARY_THREADS) - _LIBRARY_THREADS
    pool = ThreadPoolExecutor(max(1, min(most, allowed)), "aht-etl")
    pool.submit(int).result()  # start the first thread
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
