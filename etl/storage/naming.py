"""A file on a local disk gets its name in one step: a new name, or that of an older file."""

import ctypes
import errno
import os
import tempfile
from pathlib import Path
from typing import Final

_AT_FDCWD: Final = -100
_RENAME_NOREPLACE: Final = 1
_NO_HARD_LINKS: Final = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NO_EXCLUSIVE_CREATE: Final = (
    "this disk has neither hard links nor a rename that does not replace, so two runs could "
    "overwrite each other; put the lake on another one"
)


def give_name(source: Path, target: str) -> None:
    """Name a file `target` too, or instead. Raises FileExistsError or another OSError."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        _rename_new(source, target)


def _rename_new(source: Path, target: str) -> None:
    """Rename without replacing (renameat2), for disks that have no hard links."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        renameat2 = libc.renameat2
    except AttributeError:
        raise OSError(errno.ENOTSUP, _NO_EXCLUSIVE_CREATE) from None
    names = (os.fsencode(source), os.fsencode(target))
    if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE) == 0:
        return
    code = ctypes.get_errno()
    if code in {errno.EINVAL, errno.ENOSYS}:
        raise OSError(errno.ENOTSUP, _NO_EXCLUSIVE_CREATE)
    raise OSError(code, os.strerror(code))


def write_whole(text: str, file: Path) -> None:
    """Write a file whole or not at all, over an older one. Raises OSError.

    What is no plain file (a pipe, a device) or cannot be replaced (a file that is mounted on its
    own, as a container's termination log is) is written to as it stands.
    """
    file = file.resolve()
    if file.exists() and not file.is_file():
        file.write_text(text, encoding="utf-8")
        return
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(file)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        if error.errno != errno.EBUSY:
            raise
        file.write_text(text, encoding="utf-8")
