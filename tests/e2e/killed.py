"""Runs `aht-etl` and kills it, for good, right before its N-th effect on the disk.

Arguments: N, then the command's own. Effects are what changes the lake or makes it last: making a
folder, creating, linking, renaming, removing, syncing a file. Killed before the next effect is
killed behind the last one.
"""

import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from etl import cli

EFFECTS = ("link", "rename", "replace", "unlink", "mkdir", "fsync")


def main() -> None:
    at = int(sys.argv.pop(1))
    count = 0
    lock = threading.Lock()

    def deadly(effect: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal count
            with lock:
                count += 1
                mine = count
            if mine == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return effect(*args, **options)

        return call

    for name in EFFECTS:
        setattr(os, name, deadly(getattr(os, name)))
    plain_open = io.open
    deadly_open = deadly(plain_open)
    io.open = lambda file, mode="r", *args, **options: (  # type: ignore[assignment]
        deadly_open if set(mode) & set("wxa") else plain_open
    )(file, mode, *args, **options)
    cli.main()


if __name__ == "__main__":
    main()
