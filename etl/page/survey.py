"""Reading a lake for the page: every part once, some side by side, in bounded memory."""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import Final

from etl.lake.store import LakeError, LocalStore
from etl.page.facts import Damage, Facts
from etl.page.part import read_part
from etl.page.quarantine import read_quarantine
from etl.paths import BreakdownPath, InvalidPathError, Partition

_LEVELS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"year=[0-9]{4}",
        r"month=[0-9]{1,2}",
        r"day=[0-9]{1,2}",
        r"hour=[0-9]{1,2}",
        r"accountId=[a-zA-Z0-9]+",
    )
)
_THREADS: Final = min(8, os.cpu_count() or 1)
_AT_A_TIME: Final = 256


def survey(store: LocalStore, account: str | None) -> Facts:
    """Return the facts of a lake, or of one account in it. Blocking.

    What cannot be read is among them as damage. Raises LakeError if the lake itself is no folder
    that can be read; one that does not exist yet is empty.
    """
    store.check_readable()
    facts = Facts()
    parts = _parts(store, account, facts.damage)
    with ThreadPoolExecutor(_THREADS) as pool:
        while some := list(islice(parts, _AT_A_TIME)):
            for part in pool.map(lambda found: read_part(store, *found), some):
                if part is not None:
                    facts.add(part)
    facts.damage.sort(key=lambda damage: damage.path)
    facts.quarantine = read_quarantine(store, account)
    return facts


def _parts(
    store: LocalStore, account: str | None, damage: list[Damage]
) -> Iterator[tuple[Partition, str]]:
    for partition in _partitions(store, "", 0, damage):
        if account is not None and not partition.directory.endswith(f"/accountId={account}"):
            continue
        for name in _names(store, partition.directory, damage):
            if name.startswith("part-") and name.endswith(".parquet"):
                yield partition, name


def _partitions(
    store: LocalStore, folder: str, level: int, damage: list[Damage]
) -> Iterator[Partition]:
    if level == len(_LEVELS):
        with suppress(InvalidPathError):  # no real hour: nothing that the job would write
            yield BreakdownPath.parse(f"/{folder}/_.json.gz").partition
        return
    for name in _names(store, folder or ".", damage):
        if _LEVELS[level].fullmatch(name):
            yield from _partitions(store, f"{folder}/{name}".lstrip("/"), level + 1, damage)


def _names(store: LocalStore, folder: str, damage: list[Damage]) -> list[str]:
    try:
        return store.names(folder)
    except LakeError as error:
        damage.append(Damage(folder, str(error)))
        return []
