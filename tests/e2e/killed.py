"""Run `aht-etl` and kill the process right before its N-th effect on the disk.

Arguments: N, then those of the command. Effects are the calls that change the lake or make a change
durable: make a folder; create, link, rename, remove or sync a file. A kill before an effect is also
a kill after the effect before it.
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
