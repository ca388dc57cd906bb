"""Receipts: a part's own metadata lists the source files that are whole in it."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from etl.model import __version__
from etl.storage.store import TAIL_BYTES, StoreError

_SCHEMA: Final = "1"
_SOURCES: Final = b"aht_etl.sources"
_COMMIT: Final = b"aht_etl.commit"
_RUN: Final = b"aht_etl.run"


class UnreadablePartError(StoreError):
    """A part that is no Parquet file, or one without receipts."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """One source file that is whole in a part."""

    path: str
    rows: int
    quarantined: int
    bytes: int
    sha256: str


_TYPES: Final[dict[str, Any]] = {field.name: field.type for field in fields(Receipt)}


@dataclass(frozen=True, slots=True)
class PartReceipts:
    """A part's metadata."""

    commit: str
    sources: tuple[Receipt, ...]
    run: str = ""


def to_metadata(sources: Sequence[Receipt], commit: str, run_id: str) -> dict[str, str]:
    """Return a part's Parquet metadata (how-it-works.md, "Receipts")."""
    return {
        _SOURCES.decode(): json.dumps(
            [{name: getattr(source, name) for name in _TYPES} for source in sources]
        ),
        _COMMIT.decode(): commit,
        _RUN.decode(): run_id,
        "aht_etl.version": __version__,
        "aht_etl.schema": _SCHEMA,
    }


def read_receipts(part: BinaryIO) -> PartReceipts:
    """Read a part's receipts from its footer. Raises UnreadablePartError."""
    try:
        try:
            # Arrow's calls into Python cost more than the bytes, which mostly hold the footer.
            part.seek(max(0, part.seek(0, os.SEEK_END) - TAIL_BYTES))
            found = pq.read_metadata(pa.BufferReader(part.read()))
        except (pa.ArrowException, OSError):
            part.seek(0)
            found = pq.read_metadata(part)
        metadata: dict[bytes, bytes] = found.metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise UnreadablePartError(f"no readable Parquet file: {first_line(error)}") from None
    try:
        text = metadata[_SOURCES]
    except KeyError:
        raise UnreadablePartError("a Parquet file without receipts") from None
    try:
        # A later version may write more fields of a source; the known ones are required.
        sources = tuple(_receipt(source) for source in json.loads(text))
        commit, run = (metadata.get(key, b"").decode() for key in (_COMMIT, _RUN))
        return PartReceipts(commit, sources, run)
    except (ValueError, TypeError, KeyError):
        raise UnreadablePartError("a Parquet file with damaged receipts") from None


def _receipt(source: Any) -> Receipt:
    values = {name: source[name] for name in _TYPES}
    for name, expected in _TYPES.items():
        if type(values[name]) is not expected:
            raise TypeError(name)
    return Receipt(**values)


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, at most 200 characters."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
