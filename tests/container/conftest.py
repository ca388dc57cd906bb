"""One image for all tests of a session. The first test worker that needs it builds it."""

import fcntl
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.container.containers import Container
from tests.container.images import Image, build

Contain = Callable[..., Container]


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Build the image, or use the one that another worker built. The last worker deletes it."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "image"
    built, users = folder / "built", folder / "users"
    with _locked(folder):
        if not built.exists():
            shutil.rmtree(folder, ignore_errors=True)
            users.mkdir(parents=True)
            built.write_bytes(pickle.dumps(build(folder)))
        (users / str(os.getpid())).touch()
    yield pickle.loads(built.read_bytes())
    with _locked(folder):
        (users / str(os.getpid())).unlink()
        if not list(users.iterdir()):
            shutil.rmtree(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def contain(image: Image, tmp_path: Path) -> Iterator[Contain]:
    """Make containers of the image; kill those that still run at the end."""
    made: list[Container] = []

    def make(**options: Any) -> Container:
        folder = tmp_path / f"container-{len(made)}"
        folder.mkdir()
        made.append(Container(image, folder, **options))
        return made[-1]

    yield make
    for container in made:
        container.kill()
