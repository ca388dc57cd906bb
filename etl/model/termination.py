"""Why the process ended, left where Kubernetes looks for it: `kubectl describe pod` shows it.

The kubelet gives each container an empty file, `terminationMessagePath`, and reads it when the
container has ended. Elsewhere there is no such file, and nothing happens.
"""

import os
import stat
from contextlib import suppress
from typing import Final

from etl.model.printable import one_line

#: Names the file where a container's `terminationMessagePath` is not the default.
VARIABLE: Final = "AHT_ETL_TERMINATION_LOG"

_DEFAULT: Final = "/dev/termination-log"
#: What is longer the kubelet cuts, in the middle of a character too.
_LONGEST_BYTES: Final = 4096


def leave(reason: str) -> None:
    """Leave the reason as one line of printable text; the last one counts.

    The caller has taken secrets out. The text goes into a plain file that exists already: none is
    made, no link is followed, and what cannot be written is lost.
    """
    text = one_line(reason).encode()[:_LONGEST_BYTES].decode("utf-8", "ignore")
    with suppress(OSError, ValueError):
        descriptor = os.open(
            os.environ.get(VARIABLE) or _DEFAULT, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        )
        with os.fdopen(descriptor, "wb") as file:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                file.truncate(0)
                file.write(text.encode())
