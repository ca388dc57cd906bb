"""Taking a segment, or all segments of a conversation, out of the archive, the lake and its copy.

Archived files are written again without the rows that mention the id. The parts and bad rows that
came from these files are deleted; loading from the archive then brings back all other rows.
"""

import gzip
import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, NamedTuple

import pyarrow.compute as pc

from etl.archive.reader import version_name, versions_by_path
from etl.decode.unpack import GZIP_MAGIC, Unpacked
from etl.lake.layout import QUARANTINE, bad_rows_name, read_layout, to_partition
from etl.lake.receipts import UnreadablePartError, read_receipts, source_rows
from etl.model.errors import FileError, RunError, UsageError
from etl.model.paths import BreakdownPath, Partition
from etl.storage.store import Store, StoreError, replace_file

_ID: Final = re.compile(r'account:[^:\s"\\]+:conversation:[^:\s"\\]+')
_ESCAPE: Final = re.compile(r"\\u([0-9A-Fa-f]{4})")
_DECODER: Final = json.JSONDecoder()
# Where the next value of a file begins, or the next element of an array or its end.
_VALUE: Final = re.compile(r"[^ \t\r\n\ufeff]")
_ELEMENT: Final = re.compile(r"[^ \t\r\n,]")
_PIECE_BYTES: Final = 256


class Wanted:
    """The id of a segment, or of a conversation and so of all its segments."""

    def __init__(self, text: str) -> None:
        if not _ID.fullmatch(text):
            raise UsageError(
                f"{text!r}: write account:…:conversation:…, a segment's whole id, or without its "
                "last -number for all segments of a conversation"
            )
        self.text = text
        # Segment 1 is not segment 10.
        self._pattern = re.compile(re.escape(text) + "(?![0-9A-Za-z])")

    def is_in(self, text: str) -> bool:
        """Return whether a text mentions the id, also with JSON's escapes."""
        plain = _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), text)
        return self._pattern.search(plain) is not None


@dataclass(frozen=True, slots=True)
class Erasure:
    """The names of all files to change, in their stores. Nothing is changed yet.

    `hours` must be loaded again from the archive, and `days` copied again.
    """

    rows: int
    archived: tuple[tuple[BreakdownPath, str], ...]
    parts: tuple[str, ...]
    bad_rows: tuple[str, ...]
    copied_parts: tuple[str, ...]
    hours: tuple[Partition, ...]
    days: tuple[Partition, ...]


class _Source(NamedTuple):
    """A source of a part, and how many of its rows mention the id."""

    part: str
    path: str
    rows: int


def find(lake: Store, archive: Store, copy: Store | None, wanted: Wanted) -> Erasure:
    """Return what mentions the id. Blocking.

    Raises RunError if nothing does, if a run uses the archive, or if other rows would be lost:
    those of sources that are not archived. Raises StoreError if a file cannot be read.
    """
    for name, store in (("lake.uri", lake), ("raw.uri", archive), ("compact.uri", copy)):
        if store is not None and not store.check_readable():
            raise RunError(f"{store.place} does not exist or is empty; check {name}")
    if archive.is_held():
        raise RunError(f"a run uses the archive {archive.place}; erase when none is active")
    archived = versions_by_path(archive.walk(_refuse))
    in_lake = list(_sources(lake, wanted))
    in_copy = list(_sources(copy, wanted)) if copy is not None else []
    files = [
        (versions.path, file.name)
        for versions in archived.values()
        for file in versions.files
        if _without(_content(archive, file.name), wanted) is not None
    ]
    sources = {source.path for source in in_lake if source.rows}
    sources |= {*(path.text for path, _ in files), *_bad_rows(lake, wanted)}
    copied = sources.union(source.path for source in in_copy if source.rows)
    if not copied:
        raise RunError(f"nothing mentions {wanted.text}; nothing was changed")
    parts = _parts(in_lake, sources, {*archived}, "in the lake and not in the archive")
    known = {*archived}.union(source.path for source in in_lake)
    where = "in the copy, and neither in the lake nor in the archive"
    copied_parts = _parts(in_copy, copied, known, where)
    return Erasure(
        rows=sum(source.rows for source in in_lake),
        archived=tuple(files),
        parts=parts,
        bad_rows=tuple(
            file.name
            for file in lake.walk(_refuse, QUARANTINE)
            if file.name in set(map(bad_rows_name, sources))
        ),
        copied_parts=copied_parts,
        hours=tuple(sorted({BreakdownPath.parse(source).partition for source in sources})),
        days=tuple(
            sorted({day for name in copied_parts if (day := to_partition(name.rpartition("/")[0]))})
        ),
    )


def erase(
    found: Erasure,
    lake: Store,
    archive: Store,
    copy: Store | None,
    wanted: Wanted,
    done: Callable[[str], None],
) -> None:
    """Change and delete what `find` has found; `done` gets a line for each. Blocking.

    Raises StoreError. The files that would bring the rows back go first, so a second call after an
    interruption finds the rest.
    """
    archive.prepare()
    for path, name in found.archived:
        left = _without(_content(archive, name), wanted)
        if left is None:
            continue
        done(f"written again: {name}")
        plain = path.text.removeprefix("/")
        new = name if name == plain else version_name(plain, sha256(left).hexdigest())
        replace_file(archive, new, io.BytesIO(left))
        if new != name:
            archive.delete(name)
    of_lake = ((lake, name) for name in (*found.parts, *found.bad_rows))
    of_copy = ((copy, name) for name in found.copied_parts if copy is not None)
    for store, name in (*of_lake, *of_copy):
        done(f"deleted: {name}")
        store.delete(name)


def _refuse(_: str, error: StoreError) -> None:
    raise error


def _sources(store: Store, wanted: Wanted) -> Iterator[_Source]:
    layout = read_layout(store)
    for damage in (*layout.unlistable.values(), *layout.damaged_folders):
        raise StoreError(damage.message)
    for file in (file for files in layout.parts.values() for file in files):
        try:
            with store.open(file.name) as stream:
                receipts = read_receipts(stream).sources
                for receipt, batches in source_rows(stream, file.bytes, receipts):
                    rows = sum(_mentions(batch, wanted) for batch in batches)
                    yield _Source(file.name, receipt.path, rows)
        except UnreadablePartError as error:
            message = f"{file.name} is {error}; nothing was changed: aht-etl verify says more"
            raise StoreError(message) from None


def _mentions(batch: Any, wanted: Wanted) -> int:
    """Return how many rows mention the id."""
    # Arrow looks first: most rows have neither the id nor an escape.
    in_id = pc.match_substring(batch["segmentId"], wanted.text)
    in_extras = pc.match_substring_regex(batch["extras"], re.escape(wanted.text) + r"|\\u")
    near = batch.select(["segmentId", "extras"]).filter(pc.or_kleene(in_id, in_extras))
    return sum(any(wanted.is_in(text or "") for text in row.values()) for row in near.to_pylist())


def _bad_rows(lake: Store, wanted: Wanted) -> Iterator[str]:
    """Yield the sources of bad rows that mention the id."""
    for file in lake.walk(_refuse, QUARANTINE):
        for line in _content(lake, file.name).splitlines():
            row = json.loads(line)
            if wanted.is_in(row["raw"]):
                yield row["sourcePath"]


def _parts(
    held: Sequence[_Source], sources: set[str], known: set[str], where: str
) -> tuple[str, ...]:
    """Return the parts that hold any of the `sources`.

    Raises RunError if they hold others than the `known` ones.
    """
    parts = {source.part for source in held if source.path in sources}
    if lost := {source.path for source in held if source.part in parts} - known:
        raise RunError(f"{min(lost)} and {len(lost) - 1} others are {where}; nothing was changed")
    return tuple(sorted(parts))


def _content(store: Store, name: str) -> bytes:
    with store.open(name) as stream:
        return stream.read()


def _without(packed: bytes, wanted: Wanted) -> bytes | None:
    """Return an archived file without the rows that mention the id; None if there are none."""
    is_gzip = packed.startswith(GZIP_MAGIC)
    text = (_unpacked(packed) if is_gzip else packed).decode("utf-8", "surrogateescape")
    if not wanted.is_in(text):
        return None
    rows = list(_rows(text))
    kept = [row for row in rows if not wanted.is_in(row)]
    if len(kept) == len(rows):
        return None
    left = "".join(f"{row}\n" for row in kept).encode("utf-8", "surrogateescape")
    return gzip.compress(left, mtime=0) if is_gzip else left


class _SmallPieces(io.BytesIO):
    """A body that is read in small pieces: of damaged gzip, all text before the damage is found."""

    def read(self, size: int | None = -1, /) -> bytes:
        del size
        return super().read(_PIECE_BYTES)


def _unpacked(packed: bytes) -> bytes:
    """Return the text in gzip, as far as it can be read."""
    pieces: list[bytes] = []
    with suppress(FileError):
        pieces.extend(Unpacked(_SmallPieces(packed), sys.maxsize))
    return b"".join(pieces)


def _rows(text: str) -> Iterator[str]:
    """Yield the text of each row, as decoding reads it: text that is not JSON ends with its line.

    Elements of an array of rows are rows.
    """
    at, in_array = 0, False
    while start := (_ELEMENT if in_array else _VALUE).search(text, at):
        at = start.start()
        if in_array and text[at] == "]":
            at, in_array = at + 1, False
            continue
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            newline = text.find("\n", at)
            value, end = None, newline if newline >= 0 else len(text)
        if not in_array and isinstance(value, list) and any(isinstance(v, dict) for v in value):
            at, in_array = at + 1, True
            continue
        yield text[at:end]
        at = end
