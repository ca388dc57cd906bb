"""Programs of others that tests run for real: of Prometheus, builders and runners of containers."""

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
    """Return the program's file; skip the test where it is not installed, fail it in CI."""
    found = shutil.which(name)
    if found is None:
        _do_without(f"{name} is not installed (Debian's package {_PACKAGES.get(name, name)})")
    return found


def as_root() -> None:
    """Skip the test where the user is not root, fail it in CI."""
    if os.geteuid() != 0:
        _do_without("only root can do this")


def _do_without(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def listening(name: str, *arguments: str) -> Iterator[str]:
    """Run one of Prometheus's servers on a free port; yield its URL."""
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
