"""Where files are decoded, how many at once, and how unexpected errors are reported."""

import asyncio
import gzip
import io
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from etl.api.responses import Body
from etl.decode import DecodeLimits
from etl.decode.file import Decoded, decode
from etl.decode.unpack import Unpacked
from etl.model.errors import FileError, RunError
from etl.pipeline.load import Decoder
from etl.pipeline.stop import Stop
from tests.decode.test_file import ROW, ROWS, lines

LIMITS = DecodeLimits(max_file_size=2**30, max_bad_row_ratio=0.5, spill_bytes=2**26)
SMALL = gzip.compress(lines(ROWS).encode())
LARGE = gzip.compress(
    lines(
        [{**ROW, "segmentId": random.Random(n).randbytes(40).hex()} for n in range(2000)]
    ).encode()
)


def body(content: bytes) -> Body:
    return Body(len(content), io.BytesIO(content), in_memory=True)


async def test_small_files_are_decoded_in_the_loop_and_large_ones_in_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The number of threads that decode at once is limited."""
    lock, now, most, names = threading.Lock(), 0, 0, set()

    def observed(*args: Any, **more: Any) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            names.add(threading.current_thread() is threading.main_thread())
        try:
            return decode(*args, **more)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr("etl.decode.file.decode", observed)
    decoder = Decoder(LIMITS, Stop(), at_once=2)
    small = await decoder.decode("/small", body(SMALL))
    assert (5, {True}) == (small.rows, names)
    names.clear()

    async def load(number: int) -> int:
        large = body(LARGE)
        async with decoder.slot(large):
            return (await decoder.decode(f"/{number}", large)).rows

    assert [2000] * 12 == await asyncio.gather(*map(load, range(12)))
    assert ({False}, True) == (names, most <= 2)


@pytest.mark.parametrize(
    ("error", "becomes", "says"),
    [
        (ValueError("x"), FileError, "cannot be decoded: ValueError"),
        (OSError(28, "No space left on device"), FileError, "make room"),
        (MemoryError(), RunError, "memory"),
    ],
)
async def test_an_error_that_is_not_caused_by_the_file_is_explained(
    error: Exception, becomes: type[Exception], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the error, the same scanner decodes the next file."""

    def broken(*_: Any, **__: Any) -> Any:
        raise error

    decoder = Decoder(LIMITS, Stop(), at_once=1)
    with monkeypatch.context() as patch:
        patch.setattr("etl.decode.file.decode", broken)
        with pytest.raises(becomes, match=says):
            await decoder.decode("/x", body(SMALL))
    assert 5 == (await decoder.decode("/x", body(SMALL))).rows


async def test_a_file_on_disk_is_decoded_in_place(tmp_path: Path) -> None:
    """A thread decodes it, whatever its size, because reading may block."""
    file = tmp_path / "file"
    file.write_bytes(SMALL)
    with file.open("rb") as stream:
        spooled = Body(len(SMALL), stream, in_memory=False)
        assert 5 == (await Decoder(LIMITS, Stop(), at_once=1).decode("/x", spooled)).rows


async def test_a_small_file_that_unpacks_to_a_large_one_is_decoded_in_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Meanwhile the event loop can handle signals."""
    in_loop = []

    def observed(self: Decoded, unpacked: Unpacked) -> None:
        in_loop.append(threading.current_thread() is threading.main_thread())
        finish(self, unpacked)

    finish = Decoded.finish
    monkeypatch.setattr(Decoded, "finish", observed)
    content = gzip.compress(b" " * 2**24 + lines(ROWS).encode())
    assert len(content) < 2**15
    decoder = Decoder(LIMITS, Stop(), at_once=1)
    assert (5, [False]) == ((await decoder.decode("/x", body(content))).rows, in_loop)
