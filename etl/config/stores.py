"""Where a configuration says that the lake, the raw archive and the coarse copy lie."""

from collections.abc import Mapping
from pathlib import Path

from etl.config.settings import Settings
from etl.model.errors import UsageError
from etl.storage.local import LocalStore
from etl.storage.places import Place, is_remote
from etl.storage.store import Store


def open_lake(settings: Settings, *, patient: bool = True) -> Store:
    """Return the lake's place, `lake.uri`; nothing is read or written yet.

    Not `patient`, an object store's requests that fail are not repeated.
    """
    return _open(settings.lake.uri, settings.lake_options, patient=patient)


def open_archive(settings: Settings, *, patient: bool = True) -> Store | None:
    """Return the raw archive's place, `raw.uri`, None without one; nothing is done there yet."""
    if settings.raw.uri is None:
        return None
    return _open(settings.raw.uri, settings.raw_options, patient=patient)


def open_copy(settings: Settings) -> Store:
    """Return the coarse copy's place, `compact.uri`. Raises UsageError without one."""
    if settings.compact.uri is None:
        raise UsageError("compact.uri: is missing; set AHT_ETL_COMPACT__URI or the YAML's key")
    return _open(settings.compact.uri, settings.compact_options, patient=True)


def _open(uri: str, options: Mapping[str, str], *, patient: bool) -> Store:
    if not is_remote(uri):
        return LocalStore(Path(uri))
    from etl.storage.objects import ObjectStore  # noqa: PLC0415 - no folder needs obstore

    try:
        return ObjectStore(Place.parse(uri), options, patient=patient)
    except ValueError as error:
        # The environment has changed since the settings were judged.
        raise UsageError(f"options of {uri}: {error}") from None
