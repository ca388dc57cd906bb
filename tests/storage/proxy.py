"""A proxy in front of an object store's server: it records requests and injects faults.

It also sends puts one after another, because the emulators' conditional puts are not atomic.
"""

import asyncio
import io
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import ClientSession, web
from yarl import URL

_HOP: Final = {"connection", "keep-alive", "transfer-encoding", "content-length"}
# What aiohttp would add: some stores sign what is there and what is not.
_ADDED: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")

CONFLICT: Final = (
    409,
    "<Error><Code>ConditionalRequestConflict</Code><Message>A conflicting conditional operation "
    "is in progress</Message></Error>",
)
SLOW_DOWN: Final = (503, "<Error><Code>SlowDown</Code><Message>Please reduce</Message></Error>")
DENIED: Final = (403, "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that was passed on, and the size of its answer."""

    method: str
    path: str
    query: str
    range: str | None
    body_bytes: int
    answer_bytes: int
    status: int


@dataclass(slots=True)
class Fault:
    """A fault that happens `times` times, to requests that `concerns` selects.

    `lose_answer`: the server does it, then the connection breaks. `break_body`: the connection
    breaks before the server has the request. `cut_answer`: it breaks in the middle of the answer.
    `reset`: it breaks with a reset, not with an end. `answer`: the proxy answers instead of the
    server. `delay_s`: the answer, or the break before it, comes later. `strip`: headers that are
    not passed on.
    """

    concerns: Callable[[web.Request], bool]
    times: int = 1
    lose_answer: bool = False
    break_body: bool = False
    cut_answer: bool = False
    reset: bool = False
    answer: tuple[int, str] | None = None
    delay_s: float = 0
    strip: tuple[str, ...] = ()


def puts(request: web.Request) -> bool:
    """Return whether a request puts a part."""
    return request.method == "PUT" and request.path.endswith(".parquet")


@dataclass
class Proxy:
    """A running proxy; `google` makes an S3 server behind it look like Google's."""

    upstream: int
    google: bool = False
    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    #: Called with each request just before it is passed on.
    on_request: Callable[[web.Request], None] = lambda _: None
    _session: Any = None
    _one_put: Any = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def of(self, method: str) -> list[Seen]:
        """Return the requests with this method."""
        return [seen for seen in self.seen if seen.method == method]

    def _fault(self, request: web.Request) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and fault.concerns(request):
                fault.times -= 1
                return fault
        return None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        fault = self._fault(request)
        self.on_request(request)
        if fault is not None and fault.break_body:
            await request.content.readany()
            await self._wait(fault)
            return _break(request, fault)
        body = await request.read()
        if fault is not None and fault.answer is not None:
            status, text = fault.answer
            self._note(request, body, status, b"")
            return web.Response(status=status, text=text, content_type="application/xml")
        status, headers, answer = await self._forward(request, body, fault.strip if fault else ())
        if fault is not None:
            await self._wait(fault)
        self._note(request, body, status, answer)
        if fault is not None and fault.lose_answer:
            return _break(request, fault)
        if fault is not None and fault.cut_answer:
            response = web.StreamResponse(status=status, headers=headers)
            response.content_length = len(answer)
            await response.prepare(request)
            await response.write(answer[: len(answer) // 2])
            if fault.reset:
                await asyncio.sleep(0.1)  # a reset can overtake the part that was sent
            _break(request, fault)
            return response
        if request.method == "HEAD":
            response = web.StreamResponse(status=status, headers=headers)
            response.content_length = int(headers.get("Content-Length", 0))
            return response
        headers.pop("Content-Length", None)
        return web.Response(status=status, headers=headers, body=answer)

    async def _wait(self, fault: Fault) -> None:
        if fault.delay_s:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), fault.delay_s)

    async def _forward(
        self, request: web.Request, body: bytes, strip: tuple[str, ...]
    ) -> tuple[int, dict[str, str], bytes]:
        drop = {*_HOP, *strip}
        headers = {k: v for k, v in request.headers.items() if k.lower() not in drop}
        if self.google and headers.pop("x-goog-if-generation-match", None) == "0":
            headers["If-None-Match"] = "*"
        if request.method in {"PUT", "POST", "DELETE"}:
            async with self._one_put:
                return await self._send(request, headers, body)
        return await self._send(request, headers, body)

    async def _send(
        self, request: web.Request, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        url = f"http://127.0.0.1:{self.upstream}{request.raw_path}"
        async with self._session.request(
            request.method,
            URL(url, encoded=True),
            headers=headers,
            data=io.BytesIO(body) if body else None,
            skip_auto_headers=_ADDED,
            allow_redirects=False,
        ) as answer:
            found = {
                k: v
                for k, v in answer.headers.items()
                if k.lower() not in {*_HOP, "date", "server"} - {"content-length"}
            }
            if self.google:
                found["x-goog-generation"] = "1"
            return answer.status, found, await answer.read()

    def _note(self, request: web.Request, body: bytes, status: int, answer: bytes) -> None:
        self.seen.append(
            Seen(
                request.method,
                request.path,
                request.query_string,
                request.headers.get("Range") or request.headers.get("x-ms-range"),
                len(body),
                len(answer),
                status,
            )
        )


def _break(request: web.Request, fault: Fault) -> web.Response:
    """Break the connection; the answer returned goes nowhere."""
    assert request.transport is not None
    if fault.reset:
        # Closing a socket that may not linger sends a reset.
        at_once = struct.pack("ii", 1, 0)
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    request.transport.abort()
    return web.Response()


@contextmanager
def proxied(upstream: int, *, google: bool = False) -> Iterator[Proxy]:
    """Run a proxy in a thread of its own until the block ends."""
    proxy = Proxy(upstream, google)
    ready, loop = threading.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        proxy._one_put = asyncio.Lock()
        async with ClientSession(auto_decompress=False) as proxy._session:
            application = web.Application(client_max_size=2**30)
            application.router.add_route("*", "/{path:.*}", proxy.handle)
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=3)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            proxy.port = runner.addresses[0][1]
            ready.set()
            await proxy._stop.wait()
            await runner.cleanup()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(serve())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10)
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(proxy._stop.set)
        thread.join()
