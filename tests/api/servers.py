"""Small servers on loopback that respond as a test says, and a transport to call them."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from aiohttp import web

from etl.api.transport import Traffic, Transport
from etl.config.sections import ApiSettings, FetchSettings, RetrySettings
from etl.config.settings import Redactor, Settings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Answer:
    """A server's address and the requests that it received."""

    url: str = ""
    requests: list[web.Request] = field(default_factory=list)


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Answer]:
    """Answer every request with the handler."""
    answer = Answer()

    async def handle(request: web.Request) -> web.StreamResponse:
        answer.requests.append(request)
        return await handler(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    answer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield answer
    finally:
        await runner.cleanup()


@asynccontextmanager
async def sockets(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Handle each connection; yield the port."""
    async with await asyncio.start_server(handle, host, 0, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def transport(
    timeout_s: float = 5,
    slept: list[float] | None = None,
    retry: RetrySettings | None = None,
    clock: Callable[[], float] | None = None,
    redactor: Redactor | None = None,
    *,
    use_proxy: bool = False,
) -> AsyncIterator[Transport]:
    """Open a transport whose clock advances only by its sleeps, unless `clock` is given."""
    naps = [] if slept is None else slept

    async def sleep(seconds: float) -> None:
        if seconds > 0:
            naps.append(seconds)

    settings = Settings(
        api=ApiSettings(use_proxy=use_proxy),
        fetch=FetchSettings(concurrency=8, timeout=timedelta(seconds=timeout_s)),
        retry=retry or RetrySettings(),
    )
    clock = clock or (lambda: sum(naps))
    async with Transport(settings, Traffic(), clock, sleep, redactor or Redactor()) as opened:
        yield opened
