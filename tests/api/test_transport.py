"""One attempt of a request: sent once, its response, its errors."""

import asyncio
import errno
import gzip
import os
import re
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from etl.api.auth import Anonymous
from etl.api.errors import KeptConnectionClosedError
from etl.api.responses import download, read_json
from etl.api.transport import Transport
from etl.model.errors import FailureKind, FileError
from tests.api.servers import serving, sockets, transport


class Signing(Anonymous):
    """A new header for each attempt, like a signature."""

    def __init__(self) -> None:
        self.count = 0

    async def header(self, url: str) -> str:  # type: ignore[override]
        self.count += 1
        return f"Signature {self.count}"


async def fetch(opened: Transport, url: str, **how: Any) -> bytes:
    new_connection = how.get("new_connection", False)
    async with opened.get(
        url, how.get("auth", Anonymous()), new_connection=new_connection
    ) as response:
        with await download(response, how.get("memory", 2**20), how.get("most", 2**30)) as body:
            body.stream.seek(0)
            return body.stream.read()


async def fetch_by_policy(opened: Transport, url: str) -> bytes:
    auth = Signing()
    async for attempt in opened.attempts("a file"):
        with attempt:
            return await fetch(opened, url, auth=auth, new_connection=attempt.new_connection)
    raise AssertionError


async def failure(answer: Callable[[], web.StreamResponse], **how: Any) -> FileError:
    async def handle(_: web.Request) -> web.StreamResponse:
        return answer()

    async with serving(handle) as server, transport() as opened:
        with pytest.raises(FileError) as caught:
            await fetch(opened, server.url, **how)
        assert len(server.requests) == opened.traffic.requests == 1
        return caught.value


@asynccontextmanager
async def closing_kept_alive(last: bytes = b"") -> AsyncIterator[tuple[str, list[bytes]]]:
    """Answer the first request of each connection; close the connection at the second one."""
    seen: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", last):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            seen.append(next(line for line in head.split(b"\r\n") if b"Signature" in line))
            writer.write(answer)
        writer.close()

    async with sockets(handle) as port:
        yield f"http://127.0.0.1:{port}", seen


async def test_a_request_on_a_dropped_kept_connection_is_signed_and_sent_again() -> None:
    """Aiohttp would send it with the same header. The retry is counted, but does not wait."""
    auth, slept = Signing(), list[float]()
    async with closing_kept_alive() as (url, seen), transport(slept=slept) as opened:
        assert await fetch(opened, url, auth=auth) == b"ok"
        with pytest.raises(KeptConnectionClosedError):
            await fetch(opened, url, auth=auth)
        assert len(seen) == len(set(seen)) == opened.traffic.requests == 2
        assert await fetch(opened, url, auth=auth) == b"ok"
        assert await fetch_by_policy(opened, url) == b"ok"
        assert (5, 1, []) == (len(seen), opened.traffic.retries, slept)


async def test_many_kept_connections_that_are_dropped_cost_one_request_each() -> None:
    """The request is sent again on a new connection, not on another kept one."""
    slept: list[float] = []
    async with closing_kept_alive() as (url, seen), transport(slept=slept) as opened:
        for _ in range(2):
            await asyncio.gather(*(fetch_by_policy(opened, url) for _ in range(8)))
        assert len(seen) == opened.traffic.requests == 8 + 2 * 8
        assert (8, []) == (opened.traffic.retries, slept)


@pytest.mark.parametrize("answers", [1, 10, 100])
async def test_a_server_that_closes_connections_now_and_then_costs_no_time(answers: int) -> None:
    """The server closes right after a response, when the next request may be on its way."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(answers):
            try:
                await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    slept: list[float] = []
    async with sockets(handle) as port, transport(slept=slept) as opened:

        async def some() -> None:
            for _ in range(50):
                assert await fetch_by_policy(opened, f"http://127.0.0.1:{port}") == b"ok"

        await asyncio.gather(*(some() for _ in range(8)))
        assert slept == []


async def test_the_retry_after_a_reset_of_a_kept_connection_waits() -> None:
    """A server that resets a connection has seen the request; one that closes it may not have."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.readuntil(b"\r\n\r\n")
        # Closing with this option sends a reset.
        option = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
        writer.transport.abort()

    async with sockets(handle) as port, transport() as opened:
        url = f"http://127.0.0.1:{port}"
        await fetch(opened, url)
        with pytest.raises(FileError) as caught:
            await fetch(opened, url)
        assert FailureKind.CONNECTION is caught.value.kind
        assert not isinstance(caught.value, KeptConnectionClosedError)


async def test_a_pause_holds_a_request_that_waited_for_a_token() -> None:
    """It had its turn before the server asked to wait."""
    slept: list[float] = []

    class Renewing(Anonymous):
        async def header(self, url: str) -> None:
            if not slept:
                opened.limiter.pause(3)

    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=b"ok", headers={"X-Slept": f"{sum(slept):g}"})

    async with serving(handle) as server, transport(slept=slept) as opened:
        async with opened.get(server.url, Renewing()) as response:
            assert response.headers["X-Slept"] == "3"
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: 9",
        "Connection: close\r\nContent-Length: 9",
        "Transfer-Encoding: chunked",
        "Content-Length: nine",
    ],
)
async def test_an_answer_that_breaks_http_is_corrupt_and_is_not_quoted(head: str) -> None:
    """It may hold rows, which never reach a log or a report."""
    body = '{"segmentId": "of-a-person"}\n' * 2

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}".encode())
        writer.close()

    async with sockets(handle) as port, transport() as opened:
        with pytest.raises(FileError) as caught:
            await fetch(opened, f"http://127.0.0.1:{port}")
        error = caught.value
        assert (FailureKind.CORRUPT, True) == (error.kind, error.retryable)
        assert "HTTP" in error.message
        assert not {"segmentId", "person"} & set(re.findall(r"\w+", error.message))


@pytest.mark.parametrize("begun", [b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Le"])
async def test_an_answer_that_began_is_not_asked_for_again_at_once(begun: bytes) -> None:
    """Nor is a request on a new connection: the retries send them again, after their delays."""
    async with closing_kept_alive(begun) as (url, seen), transport() as opened:
        await fetch(opened, url, auth=Signing())
        with pytest.raises(FileError) as caught:
            await fetch(opened, url, auth=Signing())
        assert (FailureKind.CONNECTION, True) == (caught.value.kind, caught.value.retryable)
        assert len(seen) == opened.traffic.requests == 2


async def test_redirects_are_not_followed() -> None:
    """Credentials never go to another server."""
    error = await failure(
        lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"})
    )
    assert (FailureKind.HTTP, 302, False) == (error.kind, error.status, error.retryable)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"causes": ["a", "b"], "message": "Bad"}', "status 418: Bad; a; b"),
        (b'{"reason": "r", "message": "m"}', "status 418: r; m"),
        (b'{"internalCode": 7, "message": "m"}', "status 418: 7; m"),
        (b'{"causes": "one", "message": "two\\nlines"}', "status 418: two lines; one"),
        (b'{"message": "a\\u001b[31m\\u0000b"}', "status 418: a [31m b"),
        (gzip.compress(b'{"causes": ["a"]}'), "status 418: a"),
        (gzip.compress(b'{"causes": ["a"]}')[:-14], "status 418"),
        (b"<html>", "status 418"),
        (b"[1]", "status 418"),
        (b"[" * 5000, "status 418"),
        (b'{"message": "' + b"x" * 9000 + b'"}', "status 418"),
    ],
)
async def test_what_an_error_says(body: bytes, shown: str) -> None:
    """The message has the documented fields in one line, and nothing else of the body."""
    error = await failure(lambda: web.Response(status=418, body=body))
    assert shown == error.message


@pytest.mark.parametrize(
    ("status", "kind", "passing"),
    [
        (204, FailureKind.HTTP, False),
        (206, FailureKind.HTTP, False),
        (401, FailureKind.HTTP, False),
        (404, FailureKind.NOT_FOUND, False),
        (429, FailureKind.THROTTLED, False),
        (500, FailureKind.HTTP, True),
        (599, FailureKind.HTTP, True),
    ],
)
async def test_kinds_of_statuses(status: int, kind: FailureKind, passing: bool) -> None:
    """Each status has its kind, and is retryable or not."""
    error = await failure(lambda: web.Response(status=status))
    assert (kind, status, passing) == (error.kind, error.status, error.retryable)


async def test_more_bytes_than_allowed() -> None:
    """The response is not read to its end."""
    error = await failure(lambda: web.Response(body=bytes(2**20)), most=2**10)
    assert error.kind is FailureKind.TOO_LARGE


@pytest.mark.parametrize("memory", [0, 10, 2**20])
async def test_large_answers_are_spooled(memory: int) -> None:
    """The bytes are the same in memory and on disk."""
    content = bytes(range(256)) * 1000

    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=content, headers={"Content-Encoding": "gzip"})

    async with serving(handle) as server, transport() as opened:
        assert content == await fetch(opened, server.url, memory=memory)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.ENOENT])
async def test_a_temporary_folder_that_refuses(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the file that does not fit into memory fails; the error says what to do."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(tempfile, "gettempdir", refuse)
    if number != errno.ENOENT:
        monkeypatch.setattr(tempfile, "gettempdir", lambda: "/tmp")
    error = await failure(lambda: web.Response(body=bytes(2**10)), memory=10)
    assert (FailureKind.LAKE, False) == (error.kind, error.retryable)
    assert "set TMPDIR to another" in error.message


async def test_a_server_that_says_nothing() -> None:
    """If no byte arrives in time, before or within the response, the error is a timeout."""
    ended = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if request.path == "/middle":
            await response.prepare(request)
            await response.write(b"begun")
        await ended.wait()
        return response

    async with serving(handle) as server, transport(timeout_s=0.1) as opened:
        for path in ("/", "/middle"):
            with pytest.raises(FileError) as caught:
                await fetch(opened, server.url + path)
            assert caught.value.kind is FailureKind.TIMEOUT
        ended.set()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1", "127.0.0.1:1: connection refused"),
        ("http://nowhere.invalid", "nowhere.invalid:80: the name cannot be looked up"),
    ],
)
async def test_no_connection(url: str, said: str) -> None:
    """A refused connection or an unknown name; the error says what to do."""
    async with transport() as opened:
        with pytest.raises(FileError) as caught:
            await fetch(opened, url)
    assert (FailureKind.CONNECTION, True) == (caught.value.kind, caught.value.retryable)
    advice = "check api.base_url and the network (aht-etl check)"
    assert f"no connection to {said}; {advice}" == caught.value.message


@pytest.mark.parametrize("begin", [b"<!doctype html>", b"\n\n <HTML>", b"\xef\xbb\xbf<?xml?>"])
async def test_a_web_page_instead_of_a_file(begin: bytes) -> None:
    """The error says that it is a web page; it is retryable."""
    error = await failure(lambda: web.Response(body=begin + bytes(2000)))
    assert (FailureKind.CORRUPT, True) == (error.kind, error.retryable)
    assert error.message.startswith("a web page, not the API's answer")


@asynccontextmanager
async def dripping(bytes_a_second: int) -> AsyncIterator[tuple[str, Callable[[], float]]]:
    """Send this many bytes a second, by a clock that advances with each piece."""
    now = 0.0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal now
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(150):
            now += 1
            await response.write(bytes(bytes_a_second))
            await asyncio.sleep(0.001)
        return response

    async with serving(handle) as server:
        yield server.url, lambda: now


async def test_an_answer_that_drips_is_a_timeout() -> None:
    """Less than `fetch.least_rate` over a minute is a timeout, which is retryable."""
    async with dripping(1000) as (url, clock), transport(clock=clock) as opened:
        with pytest.raises(FileError, match="lower fetch") as caught:
            await fetch(opened, url)
    assert (FailureKind.TIMEOUT, True) == (caught.value.kind, caught.value.retryable)


async def test_a_slow_response_is_read() -> None:
    """At the least rate, a response may take any time."""
    async with dripping(2000) as (url, clock), transport(clock=clock) as opened:
        assert 150 * 2000 == len(await fetch(opened, url))


@pytest.mark.parametrize(
    ("status", "header", "pause_s"),
    [(429, None, 1), (429, "0", 1), (429, "7", 7), (503, "7", 7), (503, None, None)],
)
async def test_pauses_hold_back_the_next_request(
    status: int, header: str | None, pause_s: float | None
) -> None:
    """A 429 pauses for at least a second; a 429 and a 503 pause as long as Retry-After says."""
    headers = {"Retry-After": header} if header else {}
    answers = [web.Response(status=status, headers=headers), web.Response(body=b"ok")]

    async def handle(_: web.Request) -> web.Response:
        return answers.pop(0)

    slept: list[float] = []
    async with serving(handle) as server, transport(slept=slept) as opened:
        with pytest.raises(FileError):
            await fetch(opened, server.url)
        assert await fetch(opened, server.url) == b"ok"
    assert ([] if pause_s is None else [pause_s]) == slept


async def test_json_in_gzip() -> None:
    """A listing may be gzipped, whether or not the headers say so."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(b'{"a": 1}'))

    async with (
        serving(handle) as server,
        transport() as opened,
        opened.get(server.url, Anonymous()) as response,
    ):
        assert await read_json(response) == {"a": 1}
