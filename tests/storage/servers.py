"""Object stores to test against, each a server of its own: moto's for S3, Azurite for Azure.

No emulator of Google Cloud Storage has the XML API and is in a registry. Its requests go to moto's,
because the API is modelled on S3's; the proxy in front rewrites the one header that differs.
"""

import base64
import hashlib
import hmac
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Final

import pytest

#: The account and the key that every Azurite has; they are in its documentation.
AZURE_ACCOUNT: Final = "devstoreaccount1"
AZURE_KEY: Final = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
_AZURITE: Final = Path(__file__).parents[2] / ".ci/azurite/node_modules/.bin/azurite-blob"


@contextmanager
def moto() -> Iterator[int]:
    """Run moto's server; yield its port."""
    port = _free_port()
    with _running([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port):
        yield port


@contextmanager
def azurite() -> Iterator[int]:
    """Run Azurite's blob service; yield its port."""
    found = shutil.which("azurite-blob") or (str(_AZURITE) if _AZURITE.exists() else None)
    if found is None:
        reason = "Azurite is not installed (npm install --prefix .ci/azurite azurite)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    port = _free_port()
    command = [found, "--blobPort", str(port), "--inMemoryPersistence", "--skipApiVersionCheck"]
    with _running([*command, "--disableTelemetry", "--silent"], port):
        yield port


def new_bucket(port: int, name: str) -> None:
    """Make a bucket in moto's server."""
    url = f"http://127.0.0.1:{port}/{name}"
    with urllib.request.urlopen(urllib.request.Request(url, method="PUT")):
        pass


def new_container(port: int, name: str) -> None:
    """Make a container in Azurite."""
    date, version = formatdate(usegmt=True), "2021-08-06"
    resource = f"/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/{name}\nrestype:container"
    signed = f"PUT{chr(10) * 12}x-ms-date:{date}\nx-ms-version:{version}\n{resource}"
    digest = hmac.new(base64.b64decode(AZURE_KEY), signed.encode(), hashlib.sha256).digest()
    signature = base64.b64encode(digest).decode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/{AZURE_ACCOUNT}/{name}?restype=container",
        method="PUT",
        headers={
            "x-ms-date": date,
            "x-ms-version": version,
            "Authorization": f"SharedKey {AZURE_ACCOUNT}:{signature}",
        },
    )
    with urllib.request.urlopen(request):
        pass


@contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert process.poll() is None, process.args
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"nothing listens: {process.args!r}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
