"""Whether a folder can hold a lake: tried with a small file, of which nothing is left."""

import errno
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final

from etl.storage.local import LocalStore
from etl.storage.store import AlreadyExistsError, LakeError

_NAME: Final = "probe.tmp"
_CONTENT: Final = b"aht-etl check was here and should have removed this file\n"
_IN_USE: Final = {errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY}


def probe(root: Path) -> bool:
    """Write a file as a part is written, read it back, remove it and each folder made for it.

    Blocking. The file lies in a folder of its own, whose name readers pass over, so that nothing
    of a run beside this is touched. Returns whether the root was there already. Raises LakeError,
    which says what was refused; nothing is left behind then either, as far as the disk allows.
    """
    store = LocalStore(root)
    store.check_readable()
    folder = root / f"_check-{uuid.uuid4().hex[:12]}"
    new = [parent for parent in (root, *root.parents) if not parent.exists()]
    try:
        inside = LocalStore(folder)
        inside.prepare()
        if store.staging.exists():
            # A run writes into this one, which somebody else may have made.
            store.prepare()
        _write_and_read(inside)
    except BaseException:
        with suppress(OSError):
            _remove(folder, new)
        raise
    try:
        _remove(folder, new)
    except OSError as error:
        raise LakeError.of("removing the probe in", str(folder), error) from error
    return root not in new


def _write_and_read(store: LocalStore) -> None:
    _create(store)
    with store.open(_NAME) as there:
        if there.read() != _CONTENT:
            raise LakeError(f"reading {store.root}: what was written came back otherwise")
    with suppress(AlreadyExistsError):
        _create(store)
        raise LakeError(
            f"creating in {store.root}: a file that was there was replaced, so two runs could "
            "overwrite each other; put the lake on another disk"
        )


def _create(store: LocalStore) -> None:
    try:
        staged = store.stage()
        try:
            staged.stream.write(_CONTENT)
            store.create(staged, _NAME)
        finally:
            staged.close()
    except OSError as error:
        raise LakeError.of("writing in", str(store.root), error) from error


def _remove(folder: Path, new: list[Path]) -> None:
    """Remove the probe's folder, and the lake's own and its parents where they were not there."""
    with suppress(FileNotFoundError):
        (folder / _NAME).unlink()
    for made in (LocalStore(folder).staging, folder):
        with suppress(FileNotFoundError):
            made.rmdir()
    for made in new:
        try:
            made.rmdir()
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in _IN_USE:
                return  # another process has begun to use it
            raise
