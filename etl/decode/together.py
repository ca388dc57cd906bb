"""Several small files decoded side by side: what a call costs is paid once for all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from etl.decode.decoded import Decoded, Sized
from etl.decode.fast import read
from etl.decode.file import decode
from etl.decode.limits import DecodeLimits
from etl.decode.template import learn
from etl.decode.unpack import Unpacked
from etl.errors import FileError

# Beyond this a file is decoded by itself, block by block.
_SMALL_FILE_BYTES: Final = 2**18
_SMALL_TEXT_BYTES: Final = 2**21
_SPACE: Final = b" \t\r\n"
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Packed:
    """A downloaded file: its bytes, the vendor's path, what its answer's header said."""

    stream: BinaryIO
    size: int
    path: str
    declared_gzip: bool


@dataclass(frozen=True, slots=True)
class _Lines:
    """A small file's text, whole lines."""

    number: int
    unpacked: Unpacked
    text: bytes
    count: int


def decode_all(
    files: Sequence[Packed], limits: DecodeLimits, scratch: Path
) -> list[Decoded | Exception]:
    """Decode each file as `decode` does; return what it returns or raises, in their order.

    Small files of lines are read as one text: 12 files of 500 rows take a quarter of the time that
    they take one by one.
    """
    found = _read_together(files, limits, scratch) if len(files) > 1 else {}
    return [
        found[number] if number in found else _decoded(file, limits, scratch)
        for number, file in enumerate(files)
    ]


def _decoded(file: Packed, limits: DecodeLimits, scratch: Path) -> Decoded | Exception:
    try:
        return decode(
            file.stream, file.path, limits, scratch=scratch, declared_gzip=file.declared_gzip
        )
    except Exception as error:  # noqa: BLE001 - each file's error is its own
        return error


def _lines(number: int, file: Packed, most_bytes: int) -> _Lines | None:
    """Unpack a small file of lines; None if it is not one, whatever else it may be."""
    if file.size > _SMALL_FILE_BYTES:
        return None
    unpacked = Unpacked(file.stream, most_bytes, declared_gzip=file.declared_gzip)
    try:
        text = b"".join(unpacked)
    except FileError:
        return None
    text = text.removeprefix(_BOM)
    if not text.startswith(b"{"):
        return None
    if not text.endswith(b"\n"):
        text += b"\n"
    return _Lines(number, unpacked, text, text.count(b"\n"))


def _read_together(
    files: Sequence[Packed], limits: DecodeLimits, scratch: Path
) -> dict[int, Decoded]:
    """Read the small files of lines as one text; nothing if they do not fit one template."""
    most_bytes = min(_SMALL_TEXT_BYTES, limits.spill_bytes // 8)
    small: list[_Lines] = []
    total = 0
    for number, file in enumerate(files):
        lines = _lines(number, file, most_bytes) if total < limits.spill_bytes // 4 else None
        if lines is not None:
            small.append(lines)
            total += len(lines.text)
    template = learn(small[0].text) if len(small) > 1 else None
    if template is None or not template.is_line:
        return {}
    batch = read(b"".join([lines.text for lines in small]), template)
    # Blank lines are no rows; without any, each file has as many rows as lines.
    if batch is None or batch.num_rows != sum(lines.count for lines in small):
        return {}
    found = {}
    first = 0
    row_bytes = batch.nbytes / max(1, batch.num_rows)  # the rows share their memory
    for lines in small:
        decoded = Decoded(files[lines.number].path, limits.spill_bytes, scratch)
        decoded.fast_blocks = 1
        rows = batch.slice(first, lines.count)
        decoded.add(Sized(rows, int(row_bytes * lines.count)))
        decoded.finish(lines.unpacked)
        found[lines.number] = decoded
        first += lines.count
    return found
