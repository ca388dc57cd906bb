"""Proving a lake: every part read to its end, every receipt held against what it vouches for.

Each finding has a kind, a path (of a part, of a quarantine file, of an archived file) and a message
that says what to do:

| kind | what is wrong → what to do |
|---|---|
| `unreadable` | a part, or a folder, cannot be read to its end → mend it, or delete it |
| `receipts` | a file is named like a part and has no, or damaged, receipts → the same |
| `schema` | a part's columns are not the lake's → the same |
| `rows` | a part has other rows, of a source or in all, than its receipts say → the same |
| `duplicate` | a source is in two parts, or twice in one → delete the part that is named |
| `misplaced` | a part holds sources of another partition → move it back, or delete it |
| `quarantine` | bad rows are missing, too few, too many or unreadable → mend, or delete the part |
| `foreign` | a part, but not by its name or place: only readers read it → delete or move it |
| `archive_missing` | a source is in the lake, not in the archive → get it back, or do without |
| `archive_differs` | an archived file is damaged, or not the one that is loaded → get it back |
| `archive_rows` | an archived file decodes to other counts → delete the part |
| `not_loaded` | a file is in the archive, not in the lake → run `--from-archive` over its hour |

The last four are of `--deep`; those of `--copy` are in `etl.audit.verify_copy`.
A part is deleted while no run is active; the next run loads what it held anew, as far as the vendor
still has it.

Notes are no findings: `number_gap` (parts that an operator deleted: nothing is wrong with it),
`foreign` (a Parquet file without receipts, which readers read all the same), `unloadable` (kept in
the archive because its rows could not be read), `not_loaded` while a run is active (in an object
store, where nobody knows, for a day) and `empty` (there is no lake, or no part of what was chosen:
nothing is proved).

A bit that flipped inside a page is seen for sure where the page has a checksum; where a part was
written without, only if the page no longer unpacks.

A run may write to the lake meanwhile. A part appears whole, after its quarantine files and its
archived files; what appears after it was looked for is not seen, and nothing is told of it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from etl.audit.parallel import in_order
from etl.audit.verify_archive import ArchiveCheck
from etl.audit.verify_part import Finding, FindingKind, PartProof, home_of, misplaced, prove_part
from etl.lake.commit import read_state
from etl.lake.layout import Layout, Selection, read_layout, to_minute, to_partition
from etl.lake.receipts import Receipt, UnreadablePartError, read_receipts
from etl.model.machine import cores
from etl.model.paths import Partition
from etl.storage.store import LakeError, Store, StoredFile

_NUMBER: Final = re.compile(r"part-([0-9]{5,})\.parquet")
_AHEAD: Final = 4


@dataclass(slots=True)
class Verification:
    """What was read, and what is wrong."""

    parts: int = 0
    files: int = 0
    rows: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether there was nothing to verify; a note says why."""
        return not self.parts and not self.findings

    @property
    def ok(self) -> bool:
        """Whether the lake is proved: something was read, and nothing is wrong with it."""
        return self.parts > 0 and not self.findings


def verify(
    store: Store,
    selection: Selection,
    archive: ArchiveCheck | None,
    on_part: Callable[[int, int], None],
) -> Verification:
    """Prove what is selected of the lake, on all cores. Blocking; nothing is written.

    One part at a time per core is read, of an object store some more, a row group of each in
    memory. `on_part` hears how many of all bytes are done. Raises LakeError where the root of the
    lake, or of the archive, cannot be read.
    """
    layout = read_layout(store)
    result = Verification()
    todo = [
        (partition, file)
        for partition in sorted(layout.parts)
        if selection.includes(partition)
        for file in layout.parts[partition]
    ]
    _refusals(layout, selection, result)
    total = sum(file.bytes for _, file in todo)
    astray: dict[str, list[str]] = {}

    def prove(item: tuple[Partition, StoredFile]) -> PartProof | None:
        more = _no_more if archive is None else archive.check
        return prove_part(store, item[1].name, more, is_copy=layout.is_copy)

    proofs = in_order(prove, todo, threads=max(cores(), store.readers), ahead=_AHEAD)
    for partition, group in groupby(proofs, key=lambda proved: proved[0][0]):
        seen: dict[str, str] = {}
        names = []
        for (_, file), proof in group:
            result.bytes += file.bytes
            on_part(result.bytes, total)
            if proof is not None:
                names.append(file.name)
                _take(proof, seen, astray, result)
        _numbers(store, partition, names, result)
    _doubles_of(store, astray, result, is_copy=layout.is_copy)
    for stray in layout.strays:
        _stray(store, stray, selection, result)
    if archive is not None:
        archive.look_for_forgotten(store, selection, result.findings, result.notes)
    if result.empty:
        message = _nothing(store.place, layout, selection)
        result.notes.append(Finding(FindingKind.EMPTY, "lake.uri", message))
    return result


def _nothing(place: str, layout: Layout, selection: Selection) -> str:
    """Return why there is nothing to verify, and what to look at."""
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


def _no_more(_: Receipt) -> None:
    return None


def _refusals(layout: Layout, selection: Selection, result: Verification) -> None:
    """Tell of folders that cannot be read."""
    shut = [
        damage for partition, damage in layout.unlistable.items() if selection.includes(partition)
    ]
    for damage in (*layout.damaged_folders, *shut):
        message = f"{damage.message}; check its permissions and its disk"
        result.findings.append(Finding(FindingKind.UNREADABLE, damage.name, message))


def _take(
    proof: PartProof, seen: dict[str, str], astray: dict[str, list[str]], result: Verification
) -> None:
    """Add a part's proof; `seen` are the sources of its partition's earlier parts."""
    result.parts += 1
    result.files += len(proof.sources)
    result.rows += proof.rows
    result.findings += proof.findings
    again = [source.path for source in proof.sources if source.path in seen]
    if again:
        where = seen[again[0]]
        result.findings.append(_double(proof.name, again, where))
    for path in misplaced(proof):
        astray.setdefault(path, []).append(proof.name)
    seen.update((source.path, proof.name) for source in proof.sources if source.path not in seen)


def _double(name: str, paths: list[str], where: str) -> Finding:
    return Finding(
        FindingKind.DUPLICATE,
        name,
        f"{len(paths):,} of its sources are in the lake twice, the first {paths[0]}, also in "
        f"{where}; delete this part while no run is active and run again: what only it holds is "
        "loaded anew",
    )


def _numbers(store: Store, partition: Partition, names: list[str], result: Verification) -> None:
    """Note which numbers below the highest are missing: an operator may delete a part."""
    try:
        # A listing is no snapshot: it may show a part that is new and not the one just before it.
        names = [*names, *store.names(partition.directory)]
    except LakeError:
        return  # it could be listed a moment ago: it is on its way out
    matches = (_NUMBER.fullmatch(name.rpartition("/")[2]) for name in names)
    numbers = {int(match[1]) for match in matches if match}
    missing = max(numbers, default=-1) + 1 - len(numbers)
    if missing:
        message = (
            f"{missing:,} part numbers below the highest, {max(numbers)}, are not there; no harm "
            "if an operator deleted them"
        )
        result.notes.append(Finding(FindingKind.NUMBER_GAP, partition.directory, message))


def _doubles_of(
    store: Store, astray: dict[str, list[str]], result: Verification, *, is_copy: bool
) -> None:
    """Look whether sources in a wrong partition are in another one too."""

    def home(path: str) -> str:
        return home_of(path, is_copy=is_copy)

    for folder, group in groupby(sorted(astray, key=home), key=home):
        loaded = read_state(store, folder).loaded if to_partition(folder) else set()
        doubles: dict[tuple[str, str], list[str]] = {}
        for path in group:
            first, *others = astray[path]
            if path in loaded:
                doubles.setdefault((first, folder), []).append(path)
            for other in others:
                doubles.setdefault((other, first), []).append(path)
        for (name, where), paths in doubles.items():
            result.findings.append(_double(name, paths, where))


def _stray(store: Store, file: StoredFile, selection: Selection, result: Verification) -> None:
    """Tell of a Parquet file that is no part by its name or its place, but readers read it."""
    partition = to_partition(file.name.rpartition("/")[0])
    if not (selection.includes(partition) if partition else selection.everything):
        return
    try:
        with store.open(file.name) as stream:
            sources = read_receipts(stream).sources
    except FileNotFoundError:
        return
    except (UnreadablePartError, LakeError):
        result.notes.append(
            Finding(
                FindingKind.FOREIGN,
                file.name,
                "is no part, and the job leaves it alone, but readers of the lake read it too",
            )
        )
        return
    result.findings.append(
        Finding(
            FindingKind.FOREIGN,
            file.name,
            f"holds {len(sources):,} sources by its receipts, and readers read them, but the job "
            "does not count it: it is not named like a part, or lies in no partition's folder; "
            "delete it, or move it to its place under the next number",
        )
    )
