"""Verify a lake: read every part to its end, and compare it with its receipts and with the others.

operations.md, "What verify finds", lists the findings and the notes.

A flipped bit in a page is always found if the page has a checksum. In parts that were written
without checksums it is found only if the page cannot be decompressed.

A run may write to the lake meanwhile. A part appears whole, after its quarantine files and its
archived files. Parts that appear after the lake was listed are not verified.
"""

from collections.abc import Callable
from itertools import groupby

from etl.audit.verify import (
    FindingKind,
    Verification,
    VerifiedPart,
    home_of,
    in_order,
    misplaced,
    verify_part,
)
from etl.audit.verify_archive import ArchiveCheck
from etl.lake.commit import read_state
from etl.lake.layout import Layout, Selection, part_number, read_layout, to_minute, to_partition
from etl.lake.receipts import read_receipts
from etl.model.machine import cores
from etl.model.paths import Partition
from etl.storage.store import Store, StoredFile, StoreError


def verify(
    store: Store,
    selection: Selection,
    archive: ArchiveCheck | None,
    on_part: Callable[[int, int], None],
) -> Verification:
    """Verify the selected partitions on all cores. Blocking; nothing is written.

    Each thread reads one part, and has one row group of it in memory. `on_part` gets the bytes that
    are done, and all bytes. Raises StoreError if the root of the lake or of the archive cannot be
    read.
    """
    layout = read_layout(store)
    result = Verification()
    _add_folders(layout, selection, result)
    todo = [
        (partition, file)
        for partition in sorted(layout.parts)
        if selection.includes(partition)
        for file in layout.parts[partition]
    ]
    total = sum(file.bytes for _, file in todo)

    def read(item: tuple[Partition, StoredFile]) -> VerifiedPart | None:
        check = None if archive is None else archive.check
        return verify_part(store, item[1].name, check, is_copy=layout.is_copy)

    parts = in_order(read, todo, threads=max(cores(), store.readers))
    astray: dict[str, list[str]] = {}
    for partition, group in groupby(parts, key=lambda pair: pair[0][0]):
        seen: dict[str, str] = {}
        names = []
        for (_, file), part in group:
            result.bytes += file.bytes
            on_part(result.bytes, total)
            if part is not None:
                names.append(file.name)
                _add_part(part, seen, astray, result)
        _note_missing_numbers(store, partition, names, result)
    _find_misplaced_twice(store, astray, result, is_copy=layout.is_copy)
    for stray in layout.strays:
        _add_stray(store, stray, selection, result)
    if archive is not None:
        archive.find_not_loaded(store, selection, result)
    if result.empty:
        result.note(FindingKind.EMPTY, "lake.uri", _why_empty(store.place, layout, selection))
    return result


def _why_empty(place: str, layout: Layout, selection: Selection) -> str:
    if not layout.exists:
        return f"there is no lake at {place}: check the place for a typing error (--lake, lake.uri)"
    if not layout.parts:
        return (
            f"{place} holds no parts: check the place for a typing error (--lake, lake.uri); if "
            "nothing was loaded yet, run aht-etl run first"
        )
    hours = sorted(layout.parts)
    accounts = sorted({partition.account for partition in hours})
    more = f" and {len(accounts) - 3} more" if len(accounts) > 3 else ""
    return (
        f"{place} holds no parts {selection.describe()}; it holds parts of account "
        f"{', '.join(accounts[:3])}{more} from {to_minute(hours[0].hour)} to "
        f"{to_minute(hours[-1].hour)}: check --account, --from and --to"
    )


def _add_folders(layout: Layout, selection: Selection, result: Verification) -> None:
    """Add the folders that cannot be listed."""
    unlistable = [
        damage for partition, damage in layout.unlistable.items() if selection.includes(partition)
    ]
    for damage in (*layout.damaged_folders, *unlistable):
        message = f"{damage.message}; check its permissions and its disk"
        result.find(FindingKind.UNREADABLE, damage.name, message)


def _add_part(
    part: VerifiedPart, seen: dict[str, str], astray: dict[str, list[str]], result: Verification
) -> None:
    """Add a part. `seen` has the sources of the partition's earlier parts, with their part."""
    result.parts += 1
    result.files += len(part.sources)
    result.rows += part.rows
    result.findings += part.findings
    again = [source.path for source in part.sources if source.path in seen]
    if again:
        _find_duplicates(part.name, again, seen[again[0]], result)
    for path in misplaced(part):
        astray.setdefault(path, []).append(part.name)
    for source in part.sources:
        seen.setdefault(source.path, part.name)


def _find_duplicates(name: str, paths: list[str], where: str, result: Verification) -> None:
    message = (
        f"{len(paths):,} of its sources are in the lake twice, the first {paths[0]}, also in "
        f"{where}; delete this part while no run is active and run again: sources that only this "
        "part holds are then loaded again"
    )
    result.find(FindingKind.DUPLICATE, name, message)


def _note_missing_numbers(
    store: Store, partition: Partition, names: list[str], result: Verification
) -> None:
    try:
        # A listing is not a snapshot: it may show a new part and not the one just before it.
        names = [*names, *store.names(partition.directory)]
    except StoreError:
        return  # it was listed a moment ago, so it is being deleted
    found = (part_number(name.rpartition("/")[2]) for name in names)
    numbers = {number for number in found if number is not None}
    missing = max(numbers, default=-1) + 1 - len(numbers)
    if missing:
        message = (
            f"{missing:,} part numbers below the highest, {max(numbers)}, are not there; no harm "
            "if an operator deleted them"
        )
        result.note(FindingKind.NUMBER_GAP, partition.directory, message)


def _find_misplaced_twice(
    store: Store, astray: dict[str, list[str]], result: Verification, *, is_copy: bool
) -> None:
    """Find the misplaced sources that are also in another part.

    `astray` has the parts of each source that is in a wrong partition.
    """

    def home(path: str) -> str:
        return home_of(path, is_copy=is_copy)

    for folder, group in groupby(sorted(astray, key=home), key=home):
        loaded = read_state(store, folder).loaded if to_partition(folder) else set()
        twice: dict[tuple[str, str], list[str]] = {}
        for path in group:
            first, *others = astray[path]
            if path in loaded:
                twice.setdefault((first, folder), []).append(path)
            for other in others:
                twice.setdefault((other, first), []).append(path)
        for (name, where), paths in twice.items():
            _find_duplicates(name, paths, where, result)


def _add_stray(store: Store, file: StoredFile, selection: Selection, result: Verification) -> None:
    """Add a Parquet file that readers read, and that by its name or place is not a part."""
    partition = to_partition(file.name.rpartition("/")[0])
    if not (selection.includes(partition) if partition else selection.everything):
        return
    try:
        with store.open(file.name) as stream:
            sources = read_receipts(stream).sources
    except FileNotFoundError:
        return
    except StoreError:
        message = "is no part, and the job leaves it alone, but readers of the lake read it too"
        result.note(FindingKind.FOREIGN, file.name, message)
        return
    message = (
        f"holds {len(sources):,} sources by its receipts, and readers read them, but the job does "
        "not count it: it is not named like a part, or is not in a partition's folder; delete it, "
        "or move it to its place under the next number"
    )
    result.find(FindingKind.FOREIGN, file.name, message)
