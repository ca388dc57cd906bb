"""Where files are decoded, and that a run stays within its memory, whatever a server sends."""

import asyncio
import gzip
import io
import random
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.api.responses import Body
from etl.api.retry import Attempts
from etl.config.sections import LimitSettings
from etl.config.settings import Settings
from etl.decode.file import Decoded, decode
from etl.decode.unpack import Unpacked
from etl.emulator import Dataset
from etl.model.errors import FailureKind, FileError, RunError
from etl.model.paths import BreakdownPath
from etl.pipeline.load import Decoder, Memory, _Loader
from etl.pipeline.stop import Stop
from tests.conftest import COMMAND, Serve, environment
from tests.decode.test_file import ROW as FIRST
from tests.decode.test_file import ROWS, lines

MIB = 2**20
HOUR = "/year=2022/month=6/day=1/hour=6/accountId=a1/{}.json.gz"
# Runs the command in its arguments, prints its peak memory in KiB, and exits with its code.
PEAK = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""

Peak = Callable[..., tuple[int, int, str]]


@pytest.fixture
def peak(tmp_path: Path) -> Peak:
    """Run the command with little memory; return exit code, peak in bytes and standard error."""

    def run(url: str, *more: str, **env: str) -> tuple[int, int, str]:
        command = [COMMAND, "run", "--account", "a1", "--base-url", url, *more]
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *command],
            env=environment(AHT_ETL_LIMITS__MEMORY="64MiB", **env),
            cwd=tmp_path,
            check=False,
            capture_output=True,
            text=True,
        )
        return done.returncode, int(done.stdout.splitlines()[-1]) * 1024, done.stderr

    return run


@given(st.integers(64 * MIB, 64 * 1024 * MIB), st.integers(1, 500))
def test_shares_are_within_the_budget(budget: int, workers: int) -> None:
    """Downloads, decoding and pending rows get at most a quarter each."""
    memory = Memory.share_out(budget, workers)
    assert memory.download * workers <= max(budget // 4, 64 * 2**10 * workers)
    assert memory.decode * memory.decoders <= budget // 4
    assert memory.pending <= budget // 4
    assert 1 <= memory.decoders <= workers


def packed(*pieces: bytes | int) -> bytes:
    """Return these bytes as gzip; a number means this many MiB of one character."""
    pack = zlib.compressobj(1, zlib.DEFLATED, 31)
    out = []
    for piece in pieces:
        if isinstance(piece, int):
            out += [pack.compress(b"x" * MIB) for _ in range(piece)]
        else:
            out.append(pack.compress(piece))
    return b"".join([*out, pack.flush()])


ROW = b'{"segmentId":"a","sequence":1,"startReason":"b"}\n'
ATTACKS = {
    "millions of rows": (packed(ROW * (150 * MIB // len(ROW))), 0),
    "millions of blank lines": (packed(b"\n" * (150 * MIB)), 0),
    "one endless line": (packed(b'{"segmentId":"', 512, b'"}\n' + ROW), 0),
    "a bomb": (packed(b'{"segmentId":"', 512, b'"}\n'), 3),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_file_that_unpacks_to_very_many_bytes(
    name: str, serve: Serve, peak: Peak, tmp_path: Path
) -> None:
    """It is streamed, so its extra memory over a file of one row is bounded. It has an outcome."""
    content, code = ATTACKS[name]
    limit = {"AHT_ETL_LIMITS__MAX_FILE_SIZE": "256MiB"} if code else {}
    emulator = serve(Dataset.of({HOUR.format(1): gzip.compress(ROW), HOUR.format(2): content}))
    peaks = []
    for number, expected in ((1, 0), (2, code)):
        (tmp_path / "paths").write_text(HOUR.format(number))
        ended, bytes_, err = peak(emulator.base_url, "--paths", "paths", **limit)
        assert expected == ended, err
        peaks.append(bytes_)
    assert peaks[1] - peaks[0] < 2 * 64 * MIB


@pytest.fixture
def endless_listing() -> Iterator[str]:
    """Serve a listing without an end, as fast as the client reads it."""

    class Endless(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            try:
                self.wfile.write(b'{"files":["')
                while True:
                    self.wfile.write(b"x" * MIB)
            except OSError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_listing_that_does_not_end(endless_listing: str, peak: Peak) -> None:
    """The run ends in bounded memory, with advice."""
    ended, bytes_, err = peak(endless_listing, "--from", "2022-06-01", "--to", "2022-06-02")
    assert (1, True) == (ended, "lower api.request_window" in err)
    assert bytes_ < 768 * MIB


def test_a_listing_of_very_many_paths(serve: Serve, peak: Peak, tmp_path: Path) -> None:
    """The run plans all of them and fetches none."""
    paths = "\n".join(HOUR.format(f"sequences.{number:020d}") for number in range(100_000))
    (tmp_path / "paths").write_text(paths)
    url = serve(Dataset.of({})).base_url
    ended, bytes_, err = peak(url, "--paths", "paths", AHT_ETL_FETCH__SKIP='["*"]')
    assert 0 == ended, err
    assert bytes_ < 512 * MIB


async def test_no_more_files_are_in_memory_than_the_budget_is_shared_among() -> None:
    """All workers are free at first; they must not all download before the first is decoded."""
    held = 0
    decoding = asyncio.Event()

    class Source:
        def attempts(self, _: Any) -> Attempts:
            return Attempts((), 0, asyncio.sleep, lambda *_: None)

        async def download(self, *_: Any, **__: Any) -> Body:
            nonlocal held
            await asyncio.sleep(0)  # as the limiter of requests
            held += 1
            return Body(2**20, io.BytesIO(), in_memory=True)

    class Waiting(Decoder):
        async def decode(self, path: str, body: Body) -> Decoded:
            await decoding.wait()
            raise FileError(FailureKind.MALFORMED, f"{path}: {body.size}")

    class NoSink:
        async def failed(self, _: Any) -> None:
            pass

    job: Any = SimpleNamespace(archive_only=False, settings=Settings())
    memory = Memory(download=4 * MIB, decode=64 * MIB, pending=64 * MIB, decoders=2)
    parts: list[Any] = [Waiting(LimitSettings(), memory), None, None, NoSink(), memory.download]
    failed: list[Any] = []
    outcomes: Any = SimpleNamespace(failed=lambda *what: failed.append(what))
    source: Any = Source()
    loader = _Loader(job, outcomes, Stop(), source, asyncio.Semaphore(5), *parts)
    paths = [BreakdownPath.parse(HOUR.format(f"sequences.{n}")) for n in range(50)]
    files: Iterator[Any] = ((None, path) for path in paths)
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(loader.work(files))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert held == 5
        decoding.set()
    assert (50, 50) == (held, len(failed))


def decoder_of(decoders: int) -> Decoder:
    memory = Memory(download=4 * MIB, decode=64 * MIB, pending=64 * MIB, decoders=decoders)
    return Decoder(LimitSettings(), memory)


SMALL = gzip.compress(lines(ROWS).encode())
LARGE = gzip.compress(
    lines(
        [{**FIRST, "segmentId": random.Random(n).randbytes(40).hex()} for n in range(2000)]
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

    monkeypatch.setattr("etl.pipeline.load.decode", observed)
    decoder = decoder_of(2)
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

    decoder = decoder_of(1)
    with monkeypatch.context() as patch:
        patch.setattr("etl.pipeline.load.decode", broken)
        with pytest.raises(becomes, match=says):
            await decoder.decode("/x", body(SMALL))
    assert 5 == (await decoder.decode("/x", body(SMALL))).rows


async def test_a_file_on_disk_is_decoded_in_place(tmp_path: Path) -> None:
    """A thread decodes it, whatever its size, because reading may block."""
    file = tmp_path / "file"
    file.write_bytes(SMALL)
    with file.open("rb") as stream:
        spooled = Body(len(SMALL), stream, in_memory=False)
        assert 5 == (await decoder_of(1).decode("/x", spooled)).rows


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
    decoder = decoder_of(1)
    assert (5, [False]) == ((await decoder.decode("/x", body(content))).rows, in_loop)
