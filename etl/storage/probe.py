"""Whether a folder can hold a lake: tried with a small file, of which nothing is left."""

import errno
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from etl.storage.store import AlreadyExistsError, LakeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from etl.storage.local import LocalStore

_NAME: Final = "probe.tmp"
_CONTENT: Final = b"aht-etl check was here and should have removed this file\n"
_IN_USE: Final = {errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY}


def probe(root: Path, store_in: "Callable[[Path], LocalStore]") -> bool:
    """Write a file as a part is written, read it back, remove it and each folder made for it.

    Blocking. The file lies in a folder of its own, whose name readers pass over, so that nothing
    of a run beside this is touched. Returns whether the root was there already. Raises LakeError,
    which says what was refused; nothing is left behind then either, as far as the disk allows.
    """
    store = store_in(root)
    store.check_readable()
    folder = root / f"_check-{uuid.uuid4().hex[:12]}"
    new = [parent for parent in (root, *root.parents) if not parent.exists()]
    inside = store_in(folder)
    try:
        inside.prepare()
        if store.staging.exists():
            # A run writes into this one, which somebody else may have made.
            store.prepare()
        _write_and_read(inside)
    except BaseException:
        with suppress(OSError):
            _remove(inside, new)
        raise
    try:
        _remove(inside, new)
    except OSError as error:
        raise LakeError.of("removing the probe in", str(folder), error) from error
    return root not in new


def _write_and_read(store: "LocalStore") -> None:
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


def _create(store: "LocalStore") -> None:
    try:
        staged = store.stage()
        try:
            staged.stream.write(_CONTENT)
            store.create(staged, _NAME)
        finally:
            staged.close()
    except OSError as error:
        raise LakeError.of("writing in", str(store.root), error) from error


def _remove(store: "LocalStore", new: list[Path]) -> None:
    """Remove the probe's folder, and the lake's own and its parents where they were not there."""
    with suppress(FileNotFoundError):
        (store.root / _NAME).unlink()
    for made in (store.staging, store.root):
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
