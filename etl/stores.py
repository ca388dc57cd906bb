"""Where a configuration says that the lake and the raw archive lie."""

from pathlib import Path

from etl.lake.local import LocalStore
from etl.lake.store import Store
from etl.settings import Settings


def open_lake(settings: Settings) -> Store:
    """Return the lake's place, `lake.uri`; nothing is read or written yet."""
    return LocalStore(Path(settings.lake.uri))


def open_archive(settings: Settings) -> Store | None:
    """Return the raw archive's place, `raw.uri`, None without one; nothing is done there yet."""
    return None if settings.raw.uri is None else LocalStore(Path(settings.raw.uri))
