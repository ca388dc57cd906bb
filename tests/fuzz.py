"""Fuzz decoding, guided by coverage: `python -m tests.fuzz -runs=100000` (libFuzzer's options).

For any bytes, plain or gzip, decoding gives the same rows and bad rows as an independent reader,
or raises a FileError. It never fails in another way.
"""

import gzip
import io
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["etl.decode"]):
    from etl.decode import unpack
    from etl.decode.file import DecodeLimits, decode

from etl.model.errors import FileError
from tests.decode.oracle import truth
from tests.decode.test_file import load

LIMITS = DecodeLimits(max_file_size=2**20, max_bad_row_ratio=1.0, spill_bytes=2**12)
SEEDS = (
    b'{"segmentId":"a","sequence":1,"startTimestamp":1654113886437,"new":[null,"\\u00fc"]}\n' * 3,
    b'\xef\xbb\xbf[{"segmentId": "a", "sequence": "7"},\r\n {"segmentId": "b", "sequence": 3.0}]',
    b'{"segmentId": "a"} {"segmentId": null}oops\n\n{"segmentId": "c", "handleTimeMillis": 1e3}',
)


def one(data: bytes) -> None:
    """Decode one invented body: first as it is, then as a file's text, in blocks of any size."""
    try:
        with decode(io.BytesIO(data), "/fuzz", LIMITS, scratch=Path("/tmp")):
            pass
    except FileError:
        pass
    block, text = data[:1], data[1:]
    if text.startswith(b"\x1f\x8b"):
        return
    setattr(unpack, "_TEXT_PIECE_BYTES", 1 + 3 * block[0] if block else 2**20)  # noqa: B010 - Final
    assert truth(text) == load(gzip.compress(text, 1))


def main() -> None:
    """Start fuzzing. libFuzzer ends the process and writes failing input to a file."""
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(SEEDS):
            Path(corpus, f"text-{number}").write_bytes(b"\x05" + seed)
            Path(corpus, f"file-{number}").write_bytes(gzip.compress(seed))
        atheris.Setup([*sys.argv, "-len_control=0", "-max_len=600", corpus], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
