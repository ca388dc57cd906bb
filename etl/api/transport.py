"""One HTTP attempt: limited, signed, sent once, its status and its errors made sense of."""

import asyncio
import json
import os
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import aiohttp
import structlog
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from yarl import URL

from etl import __version__
from etl.api.auth import Authenticator
from etl.api.retry import Attempts, Unauthorized, retry_after_s
from etl.api.throttle import Limiter, Slot
from etl.api.trust import trusted
from etl.errors import FailureKind, FileError
from etl.printable import one_line
from etl.settings import RetrySettings

log = structlog.stdlib.get_logger()

# Servers close idle connections after five seconds or more; a request that meets the close would
# cost a retry and its delay.
_KEEPALIVE_S: Final = 4.0
_ERROR_BODY_MAX_BYTES: Final = 8192
_MESSAGE_MAX_CHARS: Final = 300


@dataclass(slots=True)
class HttpCounts:
    """What was sent, for the report."""

    requests: int = 0
    retries: int = 0
    throttled: int = 0
    #: Where the limiter settled: requests in flight at most, requests a second if it found a limit.
    concurrency: int = 0
    rate: float | None = None

    def add(self, more: "HttpCounts") -> None:
        """Count what another sent as well."""
        self.requests += more.requests
        self.retries += more.retries
        self.throttled += more.throttled


class _NotRepeatedError(Exception):
    """Wraps a broken connection so that aiohttp does not send the request again by itself."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


async def _send_once(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    # aiohttp repeats a GET whose kept-alive connection was dropped, with the same headers: a used
    # nonce. It does so for the two errors below only; under another name they reach our own retry,
    # which signs anew and is counted.
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _NotRepeatedError(error) from error


class Transport:
    """The session, its limits and counts; an async context manager.

    Redirects are never followed, bodies never decompressed, cookies never kept. What a server says
    in an error passes `redact`: it may quote what it was sent.
    """

    def __init__(
        self,
        limiter: Limiter,
        retry: RetrySettings,
        timeout: timedelta,
        counts: HttpCounts,
        sleep: Callable[[float], Awaitable[None]],
        redact: Callable[[str], str] = str,
    ) -> None:
        self._sleep = sleep
        self._redact = redact
        self.counts = counts
        self._limiter = limiter
        self._retry = retry
        self._timeout_s = timeout.total_seconds()
        self._trusted: asyncio.Future[ssl.SSLContext] | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S),
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=self._timeout_s,
                sock_connect=self._timeout_s,
                sock_read=self._timeout_s,
            ),
            headers={"User-Agent": f"aht-etl/{__version__}", "Accept-Encoding": "gzip"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(_send_once,),
            read_bufsize=2**18,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    def attempts(self, what: str) -> Attempts:
        """Return the attempts of one request by the vendor's policy; `what` is for the log."""

        def on_retry(error: FileError, attempt: int) -> None:
            self.counts.retries += 1
            log.warning(
                "request.retry",
                what=what,
                kind=error.kind.value,
                reason=error.message,
                attempt=attempt,
            )

        return Attempts(
            self._retry.server_delays, self._retry.throttle_attempts, self._sleep, on_retry
        )

    @asynccontextmanager
    async def get(
        self,
        url: str,
        auth: Authenticator,
        accept: frozenset[int] = frozenset({200}),
    ) -> AsyncIterator[ClientResponse]:
        """Send one request and yield the answer, its status among `accept`, its body not yet read.

        `url` is sent as it stands: it must be percent-encoded already. Any other status, a broken
        connection or a timeout, also while the body is read inside the block, is a FileError of
        its kind (README, "The report"), or Unauthorized. Nothing is retried here.
        """
        async with self._limiter.slot() as slot:
            header = await auth.header(url)
            headers = {"Authorization": header} if header else {}
            async with self._send("GET", url, headers, None) as response:
                if response.status not in accept:
                    raise await self._refusal(response, auth, header, slot)
                yield response

    @asynccontextmanager
    async def post(self, url: str, form: dict[str, str]) -> AsyncIterator[ClientResponse]:
        """Send one form without credentials in the header; all else as `get`.

        It takes no place of its own among the requests in flight: it is sent for the sake of a
        request that holds one and waits for it.
        """
        slot = await self._limiter.gate()
        async with self._send("POST", url, {}, form) as response:
            if response.status != 200:
                raise await self._refusal(response, None, None, slot)
            yield response

    @asynccontextmanager
    async def _send(
        self, method: str, url: str, headers: dict[str, str], form: dict[str, str] | None
    ) -> AsyncIterator[ClientResponse]:
        target = URL(url, encoded=True)
        judge = await self._judge() if target.scheme == "https" else True
        await self._sleep(0)  # which nothing does that is told to end
        self.counts.requests += 1
        answered = False
        try:
            async with self._session.request(
                method, target, data=form, headers=headers, ssl=judge, allow_redirects=False
            ) as response:
                answered = True
                yield response
        except (TimeoutError, _NotRepeatedError, aiohttp.ClientError, ConnectionError) as error:
            raise self._broken(error, answered=answered) from error

    async def _judge(self) -> ssl.SSLContext:
        """Return what judges servers; the first who asks has it read, by a thread."""
        if self._trusted is None:
            self._trusted = asyncio.ensure_future(asyncio.to_thread(trusted))
        return await asyncio.shield(self._trusted)

    def _broken(self, error: Exception, *, answered: bool) -> FileError:
        if isinstance(error, TimeoutError):
            return FileError(
                FailureKind.TIMEOUT,
                f"no byte arrived for {self._timeout_s:g} s; raise fetch.timeout if that is normal",
            )
        cause = error.cause if isinstance(error, _NotRepeatedError) else error
        if answered:
            return FileError(FailureKind.TRUNCATED, "the connection broke before the answer's end")
        text = self._redact(_unconnected(cause) or f"no answer: {cause or type(cause).__name__}")
        return FileError(FailureKind.CONNECTION, text.splitlines()[0][:_MESSAGE_MAX_CHARS])

    async def _refusal(
        self, response: ClientResponse, auth: Authenticator | None, header: str | None, slot: Slot
    ) -> FileError:
        status = response.status
        wait_s = retry_after_s(response.headers.get("Retry-After"), datetime.now(UTC))
        if status == 429:
            self.counts.throttled += 1
            self._limiter.refused(slot, throttled=True)
            self._pause(max(self._retry.throttle_delay, wait_s))
            return FileError(
                FailureKind.THROTTLED,
                "429, too many requests; lower fetch.concurrency or set fetch.rate",
                status=status,
            )
        if status == 503:
            self._limiter.refused(slot, throttled=False)
            self._pause(wait_s)
        said = await _said(response, self._redact)
        if status == 401:
            if auth is not None and header is None:
                why = "no keys are set (auth.*), and the server asks for some; they need"
            else:
                why = "the keys are wrong, or lack"
            return Unauthorized(
                f"status 401{said}; {why} the permission Data > Workforce Management > Agent "
                "Activity API",
                renewable=auth is not None and await auth.refused(header),
            )
        if status == 404:
            return FileError(FailureKind.NOT_FOUND, f"404, not found{said}", status=status)
        if 300 <= status < 400:
            said = ", a redirect, which is never followed"
        return FileError(FailureKind.HTTP, f"status {status}{said}", status=status)

    def _pause(self, seconds: float) -> None:
        if seconds > 60:
            log.warning("throttle.long", seconds=seconds, reason="the server asked to wait")
        self._limiter.pause(seconds)


def _unconnected(cause: Exception) -> str | None:
    """Say why there is no connection: refused, no route, no such name. None if it is not that."""
    if not isinstance(cause, aiohttp.ClientConnectorError) or isinstance(
        cause, aiohttp.ClientSSLError
    ):
        return None
    number = cause.os_error.errno or 0
    if isinstance(cause, aiohttp.ClientConnectorDNSError):
        reason = "the name cannot be looked up"
    else:
        reason = os.strerror(number).lower() if number > 0 else str(cause.os_error)
    return (
        f"no connection to {cause.host}:{cause.port}: {reason}; check api.base_url and the "
        "network (aht-etl check)"
    )


async def _said(response: ClientResponse, redact: Callable[[str], str]) -> str:
    """Return what an error's body says, in the fields that the vendor documents, to be appended."""
    try:
        body = await response.content.read(_ERROR_BODY_MAX_BYTES)
    except (TimeoutError, aiohttp.ClientError, OSError):
        return ""
    try:
        if body.startswith(b"\x1f\x8b"):
            body = zlib.decompressobj(wbits=31).decompress(body, _ERROR_BODY_MAX_BYTES)
        content: Any = json.loads(body)
    except (ValueError, RecursionError, zlib.error):
        return ""
    if not isinstance(content, dict):
        return ""
    causes = content.get("causes")
    parts = [content.get("reason"), content.get("internalCode"), content.get("message")]
    parts += causes if isinstance(causes, list) else [causes]
    text = "; ".join(dict.fromkeys(str(part) for part in parts if part not in (None, "")))
    text = one_line(redact(text))[:_MESSAGE_MAX_CHARS]  # redacted whole, before it is cut
    return f": {text}" if text else ""
