"""One HTTP attempt: limited, signed, sent once, its status and its errors made sense of."""

import asyncio
import ipaddress
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Final, Self

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from yarl import URL

from etl.api.auth import Anonymous, Authenticator
from etl.api.error_responses import clock_off, read_refusal, retry_after_s, why_unauthorized
from etl.api.limiter import Limiter, Slot
from etl.api.network import Proxy, explain_handshake, may_pass, proxy_for, trusted
from etl.api.responses import MINUTE_S, Answer, paced
from etl.api.retry import Attempts, Unauthorized
from etl.config.sections import FetchSettings, RetrySettings
from etl.model.errors import FailureKind, FileError, RunError
from etl.model.events import log
from etl.model.machine import lack
from etl.model.printable import one_line
from etl.model.version import __version__

# Servers close idle connections after five seconds or more; a request that meets the close would
# be sent in vain.
_KEEPALIVE_S: Final = 4.0
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
    # nonce. It does so for the two errors below only; under another name they reach `_send`, which
    # signs anew.
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _NotRepeatedError(error) from error


async def _note_reuse(_: object, request: SimpleNamespace, __: object) -> None:
    request.trace_request_ctx.kept = True


@dataclass(frozen=True, slots=True)
class _Sent:
    """A request that was answered: with what it was sent, and its place at the limiter."""

    response: ClientResponse
    header: str | None
    slot: Slot


class Transport:
    """The session, its limits and counts; an async context manager.

    Redirects are never followed, bodies never decompressed, cookies never kept. What a server says
    in an error passes `redact`: it may quote what it was sent. `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        limiter: Limiter,
        retry: RetrySettings,
        fetch: FetchSettings,
        counts: HttpCounts,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        redact: Callable[[str], str] = str,
        *,
        use_proxy: bool = False,
    ) -> None:
        self._sleep = sleep
        #: Takes secrets out of what a server says.
        self.redact = redact
        self.counts = counts
        self._last_head: tuple[Mapping[str, str], datetime] | None = None
        self._limiter = limiter
        self._retry = retry
        self._timeout_s = fetch.timeout.total_seconds()
        self._least_rate = float(fetch.least_rate)
        self._clock = clock
        self._use_proxy = use_proxy
        self._trusted: asyncio.Future[ssl.SSLContext] | None = None

    async def __aenter__(self) -> Self:
        self._session = self._open(aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S))
        # For what is sent again because its kept connection was closed: no other kept one.
        self._afresh = self._open(aiohttp.TCPConnector(limit=0, force_close=True))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._afresh.close()

    def _open(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_reuse)
        return aiohttp.ClientSession(
            connector=connector,
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
            trace_configs=[trace],
        )

    @property
    def clock_off_s(self) -> float | None:
        """How many seconds this clock was ahead of the server's at the last answer, if known."""
        return None if self._last_head is None else clock_off(*self._last_head)

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
    ) -> AsyncIterator[Answer]:
        """Send one request and yield the answer, its status among `accept`, its body not yet read.

        `url` is sent as it stands: it must be percent-encoded already. Any other status, a broken
        connection or a timeout, also while the body is read inside the block, is a FileError of
        its kind, or Unauthorized. Nothing is retried here, except a request that met a kept
        connection which the server had closed: it is sent again at once, signed anew.
        """
        async with (
            self._limiter.slot() as slot,
            self._answered(await self._send("GET", url, auth, None, slot), auth, accept) as answer,
        ):
            yield answer

    @asynccontextmanager
    async def post(self, url: str, form: dict[str, str]) -> AsyncIterator[Answer]:
        """Send one form without credentials in the header; all else as `get`.

        It takes no place of its own among the requests in flight: it is sent for the sake of a
        request that holds one and waits for it.
        """
        slot = await self._limiter.gate()
        sent = await self._send("POST", url, Anonymous(), form, slot)
        async with self._answered(sent, None, frozenset({200})) as answer:
            yield answer

    @asynccontextmanager
    async def _answered(
        self, sent: _Sent, auth: Authenticator | None, accept: frozenset[int]
    ) -> AsyncIterator[Answer]:
        response = sent.response
        chunks = paced(response.content.iter_any(), self._least_rate, self._clock)
        answer = Answer(response.status, response.headers, chunks)
        try:
            async with response:
                if answer.status not in accept:
                    raise await self._refusal(answer, auth, sent)
                yield answer
        except TimeoutError as error:
            raise self._silent() from error
        except (aiohttp.ClientError, ConnectionError) as error:
            if (reason := lack(error)) is not None:
                raise RunError(reason) from error
            message = "the connection broke before the answer's end"
            raise FileError(FailureKind.TRUNCATED, message) from error

    async def _send(
        self, method: str, url: str, auth: Authenticator, form: dict[str, str] | None, slot: Slot
    ) -> _Sent:
        """Send a request until it is answered, or fails on a new connection."""
        target = URL(url, encoded=True)
        host = _host_header(target)
        https = target.scheme == "https"
        judge = await self._judge() if https else True
        proxy = proxy_for(target) if self._use_proxy else None
        if proxy is not None:
            # A proxy sends the host of the target, not that of the header (RFC 9112, 3.2.2).
            target = URL(f"{target.scheme}://{host}{target.raw_path_qs}", encoded=True)
        session = self._session
        while True:
            # What is signed is what is sent: the host as the server will see it.
            header = await auth.header(f"{target.scheme}://{host}{target.raw_path_qs}")
            headers = {"Host": host} | ({"Authorization": header} if header else {})
            if proxy is not None and not https:
                headers |= proxy.headers
            await self._sleep(0)  # which nothing does that is told to end
            self.counts.requests += 1
            connection = SimpleNamespace(kept=False)
            try:
                # A server that drips the head of its answer is given up as well.
                async with asyncio.timeout(2 * self._timeout_s + MINUTE_S):
                    response = await session.request(
                        method,
                        target,
                        data=form,
                        headers=headers,
                        ssl=judge,
                        allow_redirects=False,
                        trace_request_ctx=connection,
                        proxy=proxy.url.with_user(None) if proxy else None,
                        proxy_headers=proxy.headers if proxy and https else None,
                    )
            except TimeoutError as error:
                raise self._silent() from error
            except (_NotRepeatedError, aiohttp.ClientError, ConnectionError) as error:
                cause = error.cause if isinstance(error, _NotRepeatedError) else error
                if (reason := lack(cause)) is not None:
                    raise RunError(reason) from error
                if not (connection.kept and session is self._session and _unanswered(cause)):
                    raise self._broken(cause, proxy) from error
                # Servers close connections when they like. The token's POST may be repeated too:
                # another token does no harm.
                session = self._afresh
                slot = await self._limiter.gate()
                continue
            self._last_head = response.headers, datetime.now(UTC)
            return _Sent(response, header, slot)

    async def _judge(self) -> ssl.SSLContext:
        """Return what judges servers; the first who asks has it read, by a thread."""
        if self._trusted is None:
            self._trusted = asyncio.ensure_future(asyncio.to_thread(trusted))
        return await asyncio.shield(self._trusted)

    def _silent(self) -> FileError:
        return FileError(
            FailureKind.TIMEOUT,
            f"no byte arrived for {self._timeout_s:g} s; raise fetch.timeout if that is normal",
        )

    def _broken(self, cause: Exception, proxy: Proxy | None) -> FileError:
        text, passing = _unconnected(cause, proxy) or (
            f"no answer: {cause or type(cause).__name__}",
            True,
        )
        message = one_line(self.redact(text))[:_MESSAGE_MAX_CHARS]
        return FileError(FailureKind.CONNECTION, message, passing=passing)

    async def _refusal(self, answer: Answer, auth: Authenticator | None, sent: _Sent) -> FileError:
        status = answer.status
        wait_s = retry_after_s(
            answer.headers.get("Retry-After"), answer.headers.get("Date"), datetime.now(UTC)
        )
        if status == 429:
            self.counts.throttled += 1
            self._limiter.refused(sent.slot, throttled=True)
            self._pause(max(self._retry.throttle_delay, wait_s))
            return FileError(
                FailureKind.THROTTLED,
                "429, too many requests; lower fetch.concurrency or set fetch.rate",
                status=status,
            )
        if status == 503:
            self._limiter.refused(sent.slot, throttled=False)
            self._pause(wait_s)
        said = await read_refusal(answer, self.redact)
        if status == 401:
            keys_sent = auth is None or sent.header is not None
            why = why_unauthorized(said, keys_sent=keys_sent, clock_off_s=self.clock_off_s)
            hope = await (auth or Anonymous()).refused(sent.header)
            return Unauthorized(f"status 401{said}; {why}", hope)
        if status == 404:
            return FileError(FailureKind.NOT_FOUND, f"404, not found{said}", status=status)
        shown = ", a redirect, which is never followed" if 300 <= status < 400 else said
        return FileError(FailureKind.HTTP, f"status {status}{shown}", status=status)

    def _pause(self, seconds: float) -> None:
        if seconds > 60:
            log.warning("throttle.long", seconds=seconds, reason="the server asked to wait")
        self._limiter.pause(seconds)


def _host_header(url: URL) -> str:
    """Return the host as it is sent and signed: RFC 9110 section 4.2.3, RFC 5849 section 3.4.1.2.

    In small letters, without the last dot of a full name, an address in its short form, and
    without the scheme's own port.
    """
    host = (url.raw_host or "").rstrip(".").lower()
    if ":" in host:
        host = f"[{ipaddress.IPv6Address(host).compressed}]"
    return host if url.is_default_port() else f"{host}:{url.port}"


def _unanswered(cause: Exception) -> bool:
    """Tell whether a connection ended before the answer began."""
    if isinstance(cause, aiohttp.ServerDisconnectedError):
        return isinstance(cause.message, str)  # else it is the head that has come so far
    return isinstance(cause, aiohttp.ClientOSError | ConnectionError)


def _unconnected(cause: Exception, proxy: Proxy | None) -> tuple[str, bool] | None:
    """Say why there is no connection and whether to try again; None if it is not that."""
    by = f" by the proxy {proxy.place} ({proxy.variable})" if proxy else ""
    if isinstance(cause, aiohttp.ClientHttpProxyError):
        # Its own text has the proxy's URL.
        return f"no connection{by}: it answers with status {cause.status}", cause.status >= 500
    if isinstance(cause, aiohttp.ClientConnectorCertificateError):
        error = cause.certificate_error
        if isinstance(error, ssl.SSLError):
            return explain_handshake(cause.host, cause.port or 443, error), may_pass(error)
    if not isinstance(cause, aiohttp.ClientConnectorError):
        return None
    if isinstance(cause.os_error, ssl.SSLError):
        error = cause.os_error
        return explain_handshake(cause.host, cause.port or 443, error), may_pass(error)
    number = cause.os_error.errno or 0
    if isinstance(cause, aiohttp.ClientConnectorDNSError):
        reason = "the name cannot be looked up"
    else:
        reason = os.strerror(number).lower() if number > 0 else str(cause.os_error)
    place = f"{cause.host}:{cause.port}{by}"
    advice = f"check {proxy.variable}" if proxy else "check api.base_url"
    return f"no connection to {place}: {reason}; {advice} and the network (aht-etl check)", True
