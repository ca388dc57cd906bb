"""A store in a folder: walking through it, and whether a process writes to it."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from etl.storage.local import LocalStore
from etl.storage.store import StoreError


def walked(root: Path) -> tuple[list[str], list[str]]:
    """Return the names of the files that a walk yields, and of the folders that it cannot read."""
    refused: list[str] = []

    def refuse(name: str, error: StoreError) -> None:
        assert name in str(error)
        refused.append(name)

    return [file.name for file in LocalStore(root).walk(refuse)], refused


def test_a_walk_skips_hidden_names(tmp_path: Path) -> None:
    """Hidden folders, and hidden files in the root; the rest is ordered, with size and time."""
    for name in ("b/2", "b/1", "a", "_x/1", ".y", "_y", "b/_z", "b/_x/1", "c/d/e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    os.utime(tmp_path / "a", (0, 1_654_113_886))
    assert (["a", "b/1", "b/2", "b/_z", "c/d/e"], []) == walked(tmp_path)
    first = next(LocalStore(tmp_path).walk(lambda *_: None))
    assert (1, 1_654_113_886) == (first.bytes, first.modified.timestamp())


def test_a_walk_with_circular_links_ends(tmp_path: Path) -> None:
    """A link to a folder is followed, each folder once."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    root = tmp_path / "root"
    root.mkdir()
    (root / "away").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(tmp_path / "elsewhere")
    (root / "round").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    assert (["self", "again/file"], []) == walked(root)


def test_every_name_like_parquet_is_yielded(tmp_path: Path) -> None:
    """Opening it fails if it is not a file."""
    (tmp_path / "a.parquet").mkdir()
    (tmp_path / "b.parquet").symlink_to("nowhere")
    assert (["a.parquet", "b.parquet"], []) == walked(tmp_path)


def test_a_walk_through_nothing(tmp_path: Path) -> None:
    """A missing folder has no files; a file is not a readable folder."""
    (tmp_path / "file").touch()
    assert ([], []) == walked(tmp_path / "missing")
    assert 1 == len(walked(tmp_path / "file" / "x")[1])


def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is unknown whether the store is held."""
    store = LocalStore(tmp_path)
    store.prepare()

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert store.is_held() is None


def test_a_store_is_held_as_long_as_its_holder_lives(tmp_path: Path) -> None:
    """By one or several, in this process or in another, even if that is killed."""
    store = LocalStore(tmp_path)
    assert not store.is_held()
    store.prepare()
    assert not store.is_held()
    first, second = LocalStore(tmp_path), LocalStore(tmp_path)
    first.hold()
    second.hold()
    del first
    assert store.is_held()
    del second
    assert not store.is_held()
    code = (
        "import pathlib, sys; from etl.storage.local import LocalStore; "
        "store = LocalStore(pathlib.Path(sys.argv[1])); store.hold(); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert store.is_held()
        process.kill()
        process.wait()
        assert not store.is_held()
