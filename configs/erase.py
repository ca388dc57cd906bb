"""Take a segment, or all segments of a conversation, out of a raw archive, its lake and its copy.

    .venv/bin/python configs/erase.py --dry-run ./lake ./raw account:12345678:conversation:0a1b2c-0
    .venv/bin/python configs/erase.py ./lake ./raw account:12345678:conversation:0a1b2c-0
    .venv/bin/python configs/erase.py --copy ./coarse ./lake ./raw account:12345678:conversation:…

In a clone, for it is no part of the package. Folders, or `s3://`, `gs://` and `abfs://` places with
credentials as pyarrow finds them; while no run is active. Archived files are written again without
the rows that mention the text; bad rows and parts that came from these files are deleted, and the
runs that it prints load them anew from the archive. With --copy the parts of the lake's coarse copy
that hold any of it are deleted too, and the `aht-etl compact` that it prints copies their days
anew, behind the runs. It prints all that before it changes anything, and with --dry-run changes
nothing. Interrupted, start it again, and run all that either has printed.
It ends with 1 where it finds nothing. What else there is to think of: configs/docs/archive.md.
"""

import argparse
import functools
import gzip
import hashlib
import json
import re
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
        if self.store.get_file_info(self.root).type != fs.FileType.Directory:
            sys.exit(f"{uri} is no folder, or holds nothing; nothing was changed")

    def files(self, folder: str = "") -> list[str]:
        """Return the names of all files below a folder."""
        selector = fs.FileSelector(self.path(folder), recursive=True, allow_not_found=True)
        found = self.store.get_file_info(selector)
        names = [f.path[len(self.root) :] for f in found if f.type == fs.FileType.File]
        return sorted(name.strip("/") for name in names)

    def parts(self) -> list[str]:
        """Return the names of all parts."""
        return [n for n in self.files() if n[0] != "_" and n.endswith(".parquet")]

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
        print(f"deleted: {name}", flush=True)
        self.store.delete_file(self.path(name))


class Wanted:
    """What is to go: a segment, or all segments of a conversation."""

    def __init__(self, text: str) -> None:
        if not re.fullmatch(r'account:[^:\s"\\]+:conversation:[^:\s"\\]+', text):
            raise argparse.ArgumentTypeError(
                "write account:…:conversation:…, a segment's whole id, or without its last -number "
                "for all segments of a conversation"
            )
        self.text = text
        # Segment 1 is not segment 10.
        self._pattern = re.compile(re.escape(text) + "(?![0-9A-Za-z])")

    def in_(self, text: str) -> bool:
        """Whether a text mentions it, behind JSON's escapes too."""
        plain = re.sub(r"\\u([0-9A-Fa-f]{4})", lambda escape: chr(int(escape[1], 16)), text)
        return self._pattern.search(plain) is not None


def main() -> None:
    """Erase what the arguments say."""
    parser = argparse.ArgumentParser(
        description="Take a segment, or all segments of a conversation, out of lake, archive, copy."
    )
    parser.add_argument(
        "lake", metavar="LAKE", help="a folder or a place: ./lake, s3://bucket/lake"
    )
    parser.add_argument("archive", metavar="ARCHIVE", help="as LAKE: ./raw, s3://bucket/raw")
    parser.add_argument("wanted", metavar="TEXT", type=Wanted, help="account:…:conversation:…")
    parser.add_argument("--copy", metavar="COPY", help="the lake's coarse copy, as LAKE: ./coarse")
    parser.add_argument("--dry-run", action="store_true", help="say what would go, change nothing")
    said = parser.parse_args()
    lake, raw, wanted = Place(said.lake), Place(said.archive), said.wanted
    copies = [Place(said.copy)] if said.copy else []

    archived = [name for name in raw.files() if ".json.gz" in name and not name.endswith(".txt")]
    rows = _mentioning(lake, wanted)
    sources = set(rows)
    for name in lake.files("_quarantine"):
        bad = map(json.loads, lake.read(name).decode().splitlines())
        sources.update(row["sourcePath"] for row in bad if wanted.in_(row["raw"]))
    files = [name for name in archived if _left(raw.read(name), wanted) is not None]
    sources.update(map(_source, files))
    in_copies = {source for copy in copies for source in _mentioning(copy, wanted)}
    if not sources and not in_copies:
        sys.exit(f"nothing mentions {wanted.text}; nothing was changed")

    known = set(map(_source, archived))
    doomed = _doomed(lake, sources)
    _refuse_to_lose(doomed, known, "are in the lake and not in the archive")
    known.update(source for held in _receipts(lake).values() for source in held)
    of_copies = [(copy, _doomed(copy, sources | in_copies)) for copy in copies]
    for _, parts in of_copies:
        _refuse_to_lose(parts, known, "are in the copy, and neither in the lake nor in the archive")
    quarantined = {f"_quarantine{source.removesuffix('.json.gz')}.ndjson" for source in sources}
    quarantined.intersection_update(lake.files("_quarantine"))

    print(f"found: {len(rows)} rows of the lake; archived files that mention it: {len(files)}")
    print(f"to be deleted: parts: {len(doomed)}, files of bad rows: {len(quarantined)}", end="")
    print(*(f", parts of the copy: {len(parts)}" for _, parts in of_copies))
    _say_what_then(sources, {name for _, parts in of_copies for name in parts})
    if said.dry_run:
        return

    # In this order: what would bring the rows back goes first, so that a second try finds the rest.
    for name in files:
        if (left := _left(raw.read(name), wanted)) is not None:
            _replace(raw, name, left)
    for name in [*doomed, *sorted(quarantined)]:
        lake.delete(name)
    for copy, parts in of_copies:
        for name in parts:
            copy.delete(name)


def _refuse_to_lose(doomed: dict[str, set[str]], known: set[str], reason: str) -> None:
    lost = {source for held in doomed.values() for source in held} - known
    if lost:
        sys.exit(f"{min(lost)} and {len(lost) - 1} others {reason}")


def _say_what_then(sources: set[str], parts_of_copies: set[str]) -> None:
    """Print the calls that bring back what is deleted besides."""
    hours = {tuple(level.partition("=")[2] for level in name.split("/")[1:5]) for name in sources}
    for year, month, day, hour in sorted(hours):
        at = f"{year}-{month:0>2}-{day:0>2}T{hour:0>2}"
        print(f"then: aht-etl run --from-archive --from {at}:00:00Z --to {at}:59:59Z", flush=True)
    days = {tuple(level.partition("=")[2] for level in n.split("/")[:3]) for n in parts_of_copies}
    for year, month, day in sorted(days):
        at = f"{year}-{month:0>2}-{day:0>2}"
        print(f"then: aht-etl compact --from {at} --to {at}T23:59:59Z", flush=True)


def _source(archived: str) -> str:
    """Return the vendor's path of an archived file, also of one that lies beside another."""
    return f"/{archived.partition('.json.gz')[0]}.json.gz"


def _replace(raw: Place, name: str, content: bytes) -> None:
    plain = _source(name)[1:]
    beside = f"{plain}.sha256-{hashlib.sha256(content).hexdigest()[:12]}"
    print(f"written again: {name}", flush=True)
    raw.write(name if name == plain else beside, content)
    if name not in (plain, beside):
        raw.delete(name)


def _left(packed: bytes, wanted: Wanted) -> bytes | None:
    """Return an archived file without the rows that mention the text; None if none does."""
    text = _unpacked(packed).decode("utf-8", "surrogateescape")
    if not wanted.in_(text):
        return None
    rows = list(_rows(text))
    kept = [row for row in rows if not wanted.in_(row)]
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


def _mentioning(place: Place, wanted: Wanted) -> list[str]:
    """Return the source of each row of a lake or a copy that mentions the text."""
    return [source for name in place.parts() for source in _mentioning_in(place, name, wanted)]


def _mentioning_in(place: Place, name: str, wanted: Wanted) -> list[str]:
    with place.store.open_input_file(place.path(name)) as stream:
        table: Any = pq.read_table(stream, columns=["segmentId", "extras", "sourcePath"])
    # As most rows hold neither, they are sorted out before Python looks at them.
    found = [pc.match_substring(table[name], wanted.text) for name in ("segmentId", "extras")]
    found.append(pc.match_substring(table["extras"], "\\u"))
    near = table.filter(functools.reduce(pc.or_, (pc.fill_null(mask, False) for mask in found)))
    return [
        row["sourcePath"]
        for row in near.to_pylist()
        if any(wanted.in_(row[name] or "") for name in ("segmentId", "extras"))
    ]


def _doomed(place: Place, sources: set[str]) -> dict[str, set[str]]:
    """Return the parts that hold any of these sources, each with all that it holds."""
    return {name: held for name, held in _receipts(place).items() if sources & held}


def _receipts(place: Place) -> dict[str, set[str]]:
    """Return the sources that each part holds, by its receipts."""
    found = {}
    for name in place.parts():
        with place.store.open_input_file(place.path(name)) as stream:
            metadata: Any = pq.read_metadata(stream).metadata
        found[name] = {source["path"] for source in json.loads(metadata[b"aht_etl.sources"])}
    return found


if __name__ == "__main__":
    main()
