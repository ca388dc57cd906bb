"""Programs of others that tests run for real: Prometheus, its Pushgateway, its tool."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

_PACKAGES: Final = {"promtool": "prometheus"}


def program(name: str) -> str:
    """Return the program's file; skip the test where it is not installed, fail it in CI."""
    found = shutil.which(name)
    if found is not None:
        return found
    reason = f"{name} is not installed (Debian's package {_PACKAGES.get(name, name)})"
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
