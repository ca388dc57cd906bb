"""External programs that tests run: Prometheus, and tools that build and run containers."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

import pytest

_PACKAGES: Final = {"promtool": "prometheus"}


def program(name: str) -> str:
    """Return the program's path. If it is not installed, skip the test; in CI, fail it."""
    found = shutil.which(name)
    if found is None:
        _skip_or_fail(f"{name} is not installed (Debian's package {_PACKAGES.get(name, name)})")
    return found


def as_root() -> None:
    """Skip the test if the user is not root; in CI, fail it."""
    if os.geteuid() != 0:
        _skip_or_fail("only root can do this")


def _skip_or_fail(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def listening(name: str, *arguments: str) -> Iterator[str]:
    """Run one of the Prometheus servers on a free port; yield its URL."""
    process = subprocess.Popen(
        [program(name), "--web.listen-address=127.0.0.1:0", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if match := re.search(r'Listening on" address=(\S+)', line):
                break
        else:
            pytest.fail(f"{name} ended")
        yield f"http://{match[1]}"
    finally:
        process.terminate()
        process.communicate()
