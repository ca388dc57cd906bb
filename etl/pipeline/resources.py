"""What a run takes of its machine: the threads that do its blocking work."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from etl.config.settings import Settings
from etl.model.errors import RunError
from etl.model.machine import cores, resource_shortage
from etl.storage.places import is_remote

# Threads that libraries start by themselves: Arrow's, those of an object store's client.
_SPARE_THREADS: Final = 6


# Some more wait for an archive's disk, as many more for an object store to take what is committed.
_KEEPING_THREADS: Final = 2


_WAITING_THREADS: Final = 8


def threads_for(settings: Settings) -> ThreadPoolExecutor:
    """Return the threads of a loop that does jobs with such a lake, one at least.

    One for each core decodes, as many more commit, read receipts or spool. They are fewer where
    fewer can be started: `ulimit -u` or a cgroup's `pids.max` may allow few. Raises RunError where
    there is none.

    Each thread keeps memory of its own: with asyncio's number of them the peak was an eighth
    higher.
    """
    raw = settings.raw.uri
    more = _KEEPING_THREADS if raw else 0
    if is_remote(settings.lake.uri) or (raw and is_remote(raw)):
        more = _WAITING_THREADS
    wanted = 2 * max(2, cores()) + more
    allowed = _startable(wanted + _SPARE_THREADS) - _SPARE_THREADS
    pool = ThreadPoolExecutor(max(1, min(wanted, allowed)), "aht-etl")
    try:
        pool.submit(int).result()  # the first thread is there from now on
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
    # Joined, a thread counts until the kernel has taken it off its list.
    ends_at = time.monotonic() + 1
    while len(started) < most and len(list(tasks.iterdir())) > before:
        if time.monotonic() > ends_at:
            break
        time.sleep(0.001)
    return len(started)
