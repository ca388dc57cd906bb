"""The files that the emulator serves: handling-time units (HTUs), generated from a seed.

All times are epoch milliseconds.
"""

import gzip
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

from etl.model.paths import BreakdownPath, InvalidPathError
from etl.model.times import to_millis

DEFAULT_ACCOUNT: Final = "le79344075"
_HOUR_MS: Final = 3_600_000
_MINUTE_MS: Final = 60_000
_ALWAYS: Final = (-(2**62), 2**62)

# The load of a contact centre in each hour (UTC), relative to its average.
_LOAD: Final = (
    0.2, 0.1, 0.1, 0.1, 0.2, 0.4, 0.8, 1.2, 1.6, 1.9, 2.0, 1.9,
    1.7, 1.7, 1.8, 1.8, 1.7, 1.5, 1.2, 0.9, 0.7, 0.5, 0.4, 0.3,
)  # fmt: skip
# The reasons that start and end a unit. Its length is log-normal: the start reason gives the median
# in seconds and the spread, the end reason a factor. `_WEIGHTS` is how often each reason comes.
_STARTS: Final = {
    "consumerMessage": (25, 1.0), "focusIn": (8, 0.7), "agentResponse": (45, 0.9),
    "stepUp": (120, 0.5),
}  # fmt: skip
_ENDS: Final = {"agentResponse": 1.3, "focusOut": 0.5, "consumerMessage": 0.9, "agentLogout": 2.5}
_WEIGHTS: Final = (60, 25, 12, 3)
_CLOSE_FACTOR: Final = 0.7
_NUMBERS: Final = (
    "sequence", "handleTimeMillis", "startTimestamp", "endTimestamp", "insertTimestamp",
)  # fmt: skip

Rows = list[dict[str, Any]]
_Shape = tuple[Callable[[Rows, random.Random], Rows], Callable[[Rows, random.Random], str | bytes]]


@dataclass(frozen=True, slots=True)
class EmulatedFile:
    """One file: its gzip, the span in which its segments closed, the time it was written.

    `rows` are its JSON objects in order, None if unknown.
    """

    path: str
    content: bytes
    closed_ms: tuple[int, int]
    available_from_ms: int
    rows: tuple[dict[str, Any], ...] | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """The files by their paths."""

    files: dict[str, EmulatedFile]

    @classmethod
    def of(cls, files: Mapping[str, bytes]) -> Self:
        """Return a dataset of these bytes; their segments closed in the hour of the path.

        Every window lists an invalid path.
        """
        return cls(
            {
                path: EmulatedFile(path, content, _hour_of(path), _ALWAYS[0])
                for path, content in files.items()
            }
        )

    @classmethod
    def generate(
        cls,
        seed: int,
        start: datetime,
        end: datetime,
        *,
        account: str = DEFAULT_ACCOUNT,
        files_per_hour: float = 3,
        rows_per_file: float = 300,
        late_share: float = 0.05,
        mixed_shapes: bool = False,
    ) -> Self:
        """Generate the files of the hours in [start, end), the same for the same arguments.

        There are more files by day than by night; their sizes are log-normal around
        `rows_per_file`, and some are empty. `late_share` of them are written up to 18 days after
        their hour, the others within 90 minutes. `mixed_shapes` uses every shape that a reader
        must accept; otherwise all files have one object a line.
        """
        rng = random.Random(seed)  # noqa: S311 - test data
        files: dict[str, EmulatedFile] = {}
        hour = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        while hour < end:
            count = max(1, int(files_per_hour * _LOAD[hour.hour] + rng.random()))
            for _ in range(count):
                file = _generate_file(
                    rng, hour, account, rows_per_file, late_share, mixed_shapes=mixed_shapes
                )
                files[file.path] = file
            hour += timedelta(hours=1)
        return cls(files)

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each row with the path of its file, as a complete lake holds them."""
        for file in self.files.values():
            for row in file.rows or ():
                yield file.path, row


def _hour_of(path: str) -> tuple[int, int]:
    try:
        hour = to_millis(BreakdownPath.parse(path).partition.hour)
    except InvalidPathError:
        return _ALWAYS
    return hour, hour + _HOUR_MS - 1


def _generate_file(
    rng: random.Random,
    hour: datetime,
    account: str,
    rows_per_file: float,
    late_share: float,
    *,
    mixed_shapes: bool,
) -> EmulatedFile:
    hour_ms = to_millis(hour)
    if rng.random() < late_share:
        written_ms = hour_ms + _HOUR_MS + rng.randrange(6 * _HOUR_MS, 18 * 24 * _HOUR_MS)
    else:
        written_ms = hour_ms + _HOUR_MS + rng.randrange(5 * _MINUTE_MS, 90 * _MINUTE_MS)
    count = 0 if rng.random() < 0.01 else 1 + int(rows_per_file * rng.lognormvariate(0, 0.8))
    rows = units(rng, account, hour_ms, written_ms, count)
    at = datetime.fromtimestamp(written_ms / 1000, UTC)
    path = (
        f"/year={hour.year}/month={hour.month}/day={hour.day}/hour={hour.hour}"
        f"/accountId={account}/sequences.{written_ms}.{at:%Y%m%d%H%M%S}"
        f".{rng.randrange(100_000):05d}.json.gz"
    )
    change, write = rng.choice(_SHAPES) if mixed_shapes else _SHAPES[0]
    rows = change(rows, rng)
    written = write(rows, rng)
    content = written if isinstance(written, bytes) else pack(written)
    closed = (hour_ms, hour_ms + _HOUR_MS - 1)
    return EmulatedFile(path, content, closed, written_ms, tuple(rows))


def units(rng: random.Random, account: str, hour_ms: int, written_ms: int, count: int) -> Rows:
    """Return `count` HTUs, grouped by segment; the segments closed in this hour."""
    rows: Rows = []
    while len(rows) < count:
        conversation = f"{rng.getrandbits(128):032x}"
        segment_id = f"account:{account}:conversation:{conversation}-{rng.randrange(4)}"
        units = min(count - len(rows), 1 + int(rng.expovariate(0.3)))
        at = hour_ms + rng.randrange(_HOUR_MS)
        # From the close backwards, so that no unit ends after it.
        for sequence in range(units, 0, -1):
            spread = rng.lognormvariate(0, 1)
            start = rng.choices([*_STARTS], _WEIGHTS)[0]
            end = "close" if sequence == units else rng.choices([*_ENDS], _WEIGHTS)[0]
            median_s, sigma = _STARTS[start]
            duration = int(1000 * median_s * spread**sigma * _ENDS.get(end, _CLOSE_FACTOR))
            rows.append(
                {
                    "segmentId": segment_id,
                    "sequence": sequence,
                    "startReason": start,
                    "endReason": end,
                    "startTimestamp": at - duration,
                    "endTimestamp": at,
                    "handleTimeMillis": duration,
                    "insertTimestamp": written_ms - rng.randrange(4 * _MINUTE_MS),
                }
            )
            at -= duration + int(rng.expovariate(1 / 30_000))
        rows[-units:] = reversed(rows[-units:])
    return rows


def pack(text: str) -> bytes:
    """Return the gzip of a text, always the same bytes."""
    return gzip.compress(text.encode(), 6, mtime=0)


def _lines(rows: Rows, **how: Any) -> str:
    return "".join(json.dumps(row, **how) + "\n" for row in rows)


def _in_members(rows: Rows, rng: random.Random) -> bytes:
    """Cut the text into several gzip members, with zeros behind the last one."""
    text = _lines(rows)
    cuts = sorted(rng.randrange(len(text) + 1) for _ in range(3))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    return b"".join(map(pack, pieces)) + bytes(rng.randrange(512))


def _numbers_as(kind: type) -> Callable[[Rows, random.Random], Rows]:
    def change(rows: Rows, _: random.Random) -> Rows:
        return [{**row, **{name: kind(row[name]) for name in _NUMBERS}} for row in rows]

    return change


def _other_order_nulls_missing(rows: Rows, rng: random.Random) -> Rows:
    changed = []
    for row in rows:
        keys = list(row)
        rng.shuffle(keys)
        other = {key: row[key] for key in keys} | dict.fromkeys(rng.sample(_NUMBERS, 2))
        del other[rng.choice(["startReason", "endReason", *_NUMBERS])]
        changed.append(other)
    return changed


def _unchanged(rows: Rows, _: random.Random) -> Rows:
    return rows


def _as_lines(rows: Rows, _: random.Random) -> str:
    return _lines(rows)


_UNKNOWN: Final = {"skill": "Rechnungsübersicht 😀", "meta": {"tags": [1.5, None, "a\n\\"], "v": 2}}
_LONG: Final = {"note": "lorem ipsum " * 40_000}

# The forms of the vendor's files that its documentation shows, suggests or allows: how the rows
# change, and how they are written. The first one is what the names of the files suggest.
_SHAPES: Final[tuple[_Shape, ...]] = (
    (_unchanged, lambda rows, _: _lines(rows, separators=(",", ":"))),
    (_unchanged, lambda rows, _: _lines(rows, indent=2)),
    (_unchanged, lambda rows, _: _lines(rows).replace("\n", "")),
    (_unchanged, lambda rows, rng: json.dumps(rows, indent=rng.choice([None, 2]))),
    (_unchanged, lambda rows, _: "\ufeff" + _lines(rows)),
    (_unchanged, lambda rows, _: _lines(rows).replace("\n", "\r\n")),
    (_unchanged, lambda rows, _: "\n" + _lines(rows).replace("\n", "\n\n").rstrip("\n")),
    (_unchanged, _in_members),
    (_numbers_as(str), _as_lines),
    (_numbers_as(float), _as_lines),
    (_other_order_nulls_missing, _as_lines),
    (
        lambda rows, _: [row | _UNKNOWN for row in rows],
        lambda rows, rng: _lines(rows, ensure_ascii=rng.random() < 0.5),
    ),
    (lambda rows, _: [row | _LONG for row in rows[:1]] + rows[1:], _as_lines),
    (lambda _, __: [], _as_lines),
)
