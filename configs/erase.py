"""Take a segment, or all segments of a conversation, out of a raw archive and its lake.

    python configs/erase.py ./lake ./raw account:12345678:conversation:0a1b2c-0

Folders, or `s3://`, `gs://` and `abfs://` places with credentials as pyarrow finds them; while no
run is active. Archived files are written again without the rows that mention the text; bad rows and
parts that came from these files are deleted, and the runs that it prints load them anew from the
archive. Interrupted, start it again. What else there is to think of: configs/archive.md.
"""

import gzip
import hashlib
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs


class Place:
    """A lake, or an archive."""

    def __init__(self, uri: str) -> None:
        uri = uri if "://" in uri else Path(uri).resolve().as_uri()
        self.store, self.root = fs.FileSystem.from_uri(uri)

    def files(self, folder: str = "") -> list[str]:
        """Return the names of all files below a folder."""
        selector = fs.FileSelector(self.path(folder), recursive=True, allow_not_found=True)
        found = self.store.get_file_info(selector)
        names = [f.path[len(self.root) :] for f in found if f.type == fs.FileType.File]
        return sorted(name.strip("/") for name in names)

    def path(self, name: str) -> str:
        """Return where a name is."""
        return f"{self.root}/{name}".rstrip("/")

    def read(self, name: str) -> bytes:
        """Return what is in a file."""
        with self.store.open_input_file(self.path(name)) as stream:
            content: bytes = stream.read()
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file, over an older one, whole or not at all."""
        temporary = self.path(f"{name.rpartition('/')[0]}/.erase.tmp")
        with self.store.open_output_stream(temporary, compression=None) as stream:
            stream.write(content)
        self.store.move(temporary, self.path(name))

    def delete(self, name: str) -> None:
        """Delete a file."""
        print(f"deleted: {name}")
        self.store.delete_file(self.path(name))


def main() -> None:
    """Erase what the arguments say."""
    lake, raw, wanted = Place(sys.argv[1]), Place(sys.argv[2]), sys.argv[3]
    archived = [name for name in raw.files() if ".json.gz" in name and not name.endswith(".txt")]
    parts = {n: lake.path(n) for n in lake.files() if n[0] != "_" and n.endswith(".parquet")}
    sources = {source for part in parts.values() for source in _mentioning(lake, part, wanted)}
    for name in lake.files("_quarantine"):
        rows = map(json.loads, lake.read(name).decode().splitlines())
        sources.update(row["sourcePath"] for row in rows if wanted in row["raw"])
    sources.update(_source(name) for name in archived if _left(raw.read(name), wanted) is not None)

    doomed = {name: held for name, part in parts.items() if sources & (held := _held(lake, part))}
    lost = {source for held in doomed.values() for source in held} - set(map(_source, archived))
    if lost:
        sys.exit(f"{min(lost)} and {len(lost) - 1} others are in the lake and not in the archive")

    # In this order: what would bring the rows back goes first, so that a second try finds the rest.
    for name in archived:
        if (left := _left(raw.read(name), wanted)) is not None:
            _replace(raw, name, left)
    for name in doomed:
        lake.delete(name)
    quarantined = {f"_quarantine{source.removesuffix('.json.gz')}.ndjson" for source in sources}
    for name in quarantined.intersection(lake.files("_quarantine")):
        lake.delete(name)
    hours = {tuple(level.partition("=")[2] for level in name.split("/")[1:5]) for name in sources}
    for year, month, day, hour in sorted(hours):
        at = f"{year}-{month:0>2}-{day:0>2}T{hour:0>2}"
        print(f"now: aht-etl run --from-archive --from {at}:00:00Z --to {at}:59:59Z")


def _source(archived: str) -> str:
    """Return the vendor's path of an archived file, also of one that lies beside another."""
    return f"/{archived.partition('.json.gz')[0]}.json.gz"


def _replace(raw: Place, name: str, content: bytes) -> None:
    plain = _source(name)[1:]
    beside = f"{plain}.sha256-{hashlib.sha256(content).hexdigest()[:12]}"
    print(f"written again: {name}")
    raw.write(name if name == plain else beside, content)
    if name not in (plain, beside):
        raw.delete(name)


def _left(packed: bytes, wanted: str) -> bytes | None:
    """Return an archived file without the rows that mention the text; None if none does."""
    text = _unpacked(packed).decode("utf-8", "surrogateescape")
    if wanted not in text and "\\u" not in text:
        return None
    rows = list(_rows(text))
    kept = [row for row in rows if wanted not in row and wanted not in _plain(row)]
    if len(kept) == len(rows):
        return None
    left = "".join(f"{row}\n" for row in kept).encode("utf-8", "surrogateescape")
    return gzip.compress(left, mtime=0) if packed.startswith(b"\x1f\x8b") else left


def _unpacked(packed: bytes) -> bytes:
    """Unpack every gzip member; of a damaged one as much as can be read."""
    text = []
    while packed.startswith(b"\x1f\x8b"):
        member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            # In pieces: what comes before the damage is read.
            for start in range(0, len(packed), 256):
                text.append(member.decompress(packed[start : start + 256]))
                if member.eof:
                    packed = (member.unused_data + packed[start + 256 :]).lstrip(b"\0")
                    break
            else:
                packed = b""
        except zlib.error:
            packed = b""
    return b"".join(text) + packed


def _rows(text: str) -> Iterator[str]:
    """Yield each row's text, as the job reads it: what is no JSON ends with its line."""
    text = f"{text}\n"
    decoder = json.JSONDecoder()
    at = _skipped(text, 1 if text.startswith("\ufeff") else 0)
    first = True
    while at < len(text):
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            value, end = None, text.index("\n", at)
        if first and isinstance(value, list):
            yield from map(json.dumps, value)
        else:
            yield text[at:end]
        first = False
        at = _skipped(text, end)


def _skipped(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _plain(row: str) -> str:
    """Return a row's text without escapes, as far as it is JSON."""
    try:
        return json.dumps(json.loads(row), ensure_ascii=False)
    except (ValueError, RecursionError):
        return row


def _mentioning(lake: Place, part: str, wanted: str) -> set[str]:
    """Return the sources of a part's rows that mention the text."""
    found: set[str] = set()
    with lake.store.open_input_file(part) as stream:
        table: Any = pq.read_table(stream, columns=["segmentId", "extras", "sourcePath"])
    for column in ("segmentId", "extras"):
        mentions = pc.fill_null(pc.match_substring(table[column], wanted), False)
        found.update(table.filter(mentions)["sourcePath"].to_pylist())
    return found


def _held(lake: Place, part: str) -> set[str]:
    """Return the sources that a part holds, by its receipts."""
    with lake.store.open_input_file(part) as stream:
        metadata: Any = pq.read_metadata(stream).metadata
    return {source["path"] for source in json.loads(metadata[b"aht_etl.sources"])}


if __name__ == "__main__":
    main()
