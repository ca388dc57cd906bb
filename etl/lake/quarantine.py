"""Bad rows, kept beside the lake where no reader of its parts looks."""

import shutil
from typing import BinaryIO, Final

from etl.storage.store import LakeError, Store

FOLDER: Final = "_quarantine"


def bad_rows_name(source_path: str) -> str:
    """Return the name in the lake of the file that keeps a source's bad rows."""
    return FOLDER + source_path.removesuffix(".json.gz") + ".ndjson"


def write_bad_rows(store: Store, source_path: str, bad_rows: BinaryIO) -> None:
    """Write the bad rows of one source file, whole; the same again changes nothing.

    Blocking. Raises LakeError.
    """
    name = bad_rows_name(source_path)
    try:
        staged = store.stage()
    except OSError as error:
        raise LakeError.of("writing", store.staged_in or name, error) from error
    try:
        shutil.copyfileobj(bad_rows, staged.stream)
        store.replace(staged, name)
    except OSError as error:
        raise LakeError.of("writing", store.staged_in or name, error) from error
    finally:
        staged.close()
