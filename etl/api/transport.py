"""One attempt of a request: limited, signed, sent once; its status and its errors explained."""

import asyncio
import operator
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, astuple, dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Final, Self

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from yarl import URL

from etl.api.auth import Anonymous, Authenticator
from etl.api.errors import (
    KeptConnectionClosedError,
    UnauthorizedError,
    describe_clock,
    explain_401,
    quoted,
    read_error_details,
    retry_after_s,
)
from etl.api.limiter import Limiter, Slot
from etl.api.network import (
    Proxy,
    describe_connection,
    explain_connection_error,
    proxy_for,
    trusted_certificates,
    was_closed_before,
)
from etl.api.responses import MINUTE_S, Response, require_rate
from etl.api.retry import Attempts
from etl.config.settings import Redactor, Settings
from etl.model import __version__
from etl.model.errors import FailureKind, FileError, RunError
from etl.model.machine import resource_shortage
from etl.model.text import log

# Servers close idle connections after five seconds or more. A request on a connection that closes
# is lost, so we close them earlier.
_KEEPALIVE_S: Final = 4.0
_OK: Final = frozenset({200})
_THROTTLE_DELAY_LEAST_S: Final = 0.05


@dataclass(slots=True)
class Traffic:
    """Requests sent, and bytes of the files that came down. The source counts them."""

    requests: int = 0
    retries: int = 0
    throttled: int = 0
    downloaded_bytes: int = 0

    def add(self, more: "Traffic") -> None:
        """Add the counts of another source."""
        for name, count in asdict(more).items():
            setattr(self, name, getattr(self, name) + count)

    def since(self, before: "Traffic") -> "Traffic":
        """Return what was counted after `before`, an earlier copy of these counts."""
        return Traffic(*map(operator.sub, astuple(self), astuple(before)))


class _BrokenConnectionError(Exception):
    """Hides a broken connection from aiohttp, which would send the request again by itself."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


async def _send_once(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    # If a kept connection was dropped, aiohttp sends a GET again with the same headers: with a
    # nonce that is used. It does so only for these two errors, so they get another type here. The
    # retry policy sends a request that is signed again.
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _BrokenConnectionError(error) from error


async def _note_reuse(_: object, request: SimpleNamespace, __: object) -> None:
    request.trace_request_ctx.reused = True


@dataclass(frozen=True, slots=True)
class _Sent:
    """A request that got a response: its Authorization header, its slot at the limiter."""

    response: ClientResponse
    header: str | None
    slot: Slot


class Transport:
    """The HTTP session, its limiter and its counts. An async context manager.

    It follows no redirects, decompresses no bodies and keeps no cookies. `redactor` hides secrets
    in the messages of errors, because a server may quote them. `clock` is monotonic, in seconds.
    `sleep` raises StoppedError if the run has a stop request, also for 0 seconds.
    """

    def __init__(
        self,
        settings: Settings,
        traffic: Traffic,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        redactor: Redactor,
    ) -> None:
        fetch, self._retry = settings.fetch, settings.retry
        self._timeout_s = fetch.timeout.total_seconds()
        self._least_bytes_per_s = float(fetch.least_rate)
        self._use_proxy = settings.api.use_proxy
        self._sleep = sleep
        self.traffic = traffic
        self.clock = clock
        self.redactor = redactor
        self.limiter = Limiter(
            fetch.concurrency,
            fetch.rate,
            clock,
            sleep,
            # One request per pause after a 429 obeys the vendor: the rate need not be lower.
            rate_least=1 / max(self._retry.throttle_delay, _THROTTLE_DELAY_LEAST_S),
        )
        self._last_head: tuple[Mapping[str, str], datetime] | None = None
        self._certificates: asyncio.Future[Any] | None = None

    async def __aenter__(self) -> Self:
        self._connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S)
        self._session = self._open(self._connector)
        # For a request whose connection broke: another kept one may be closed, too.
        self._fresh_session = self._open(aiohttp.TCPConnector(limit=0, force_close=True))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._fresh_session.close()

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
    def wrong_clock(self) -> str:
        """How this clock differed from the server's at the last response; "" if it did not."""
        return "" if self._last_head is None else describe_clock(*self._last_head)

    def attempts(self, what: str) -> Attempts:
        """Return the attempts of one request, by the retry policy; the log names it `what`."""

        def on_retry(error: FileError, attempt: int) -> None:
            self.traffic.retries += 1
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
        accept: frozenset[int] = _OK,
        *,
        new_connection: bool = False,
    ) -> AsyncIterator[Response]:
        """Send one request; yield the response, its status in `accept`, its body not yet read.

        `url` must be percent-encoded already. Any other status, a broken connection or a timeout,
        also while the block reads the body, raises a FileError of its kind, or UnauthorizedError.
        It is KeptConnectionClosedError if the connection was kept from an earlier request, which
        `new_connection` prevents.
        """
        async with (
            self.limiter.slot() as slot,
            self._exchange(
                "GET", url, auth, slot, accept, new_connection=new_connection
            ) as response,
        ):
            yield response

    @asynccontextmanager
    async def post(
        self, url: str, form: dict[str, str], *, new_connection: bool = False
    ) -> AsyncIterator[Response]:
        """Send one form, whose fields have the credentials; otherwise as `get`.

        It does not count as another request in flight: a request that has a slot waits for it.
        """
        slot = await self.limiter.wait_to_start()
        async with self._exchange(
            "POST", url, Anonymous(), slot, form=form, new_connection=new_connection
        ) as response:
            yield response

    @asynccontextmanager
    async def _exchange(
        self,
        method: str,
        url: str,
        auth: Authenticator,
        slot: Slot,
        accept: frozenset[int] = _OK,
        form: dict[str, str] | None = None,
        *,
        new_connection: bool,
    ) -> AsyncIterator[Response]:
        session = self._fresh_session if new_connection else self._session
        try:
            sent = await self._send(method, url, auth, slot, form, session)
            async with sent.response as received:
                chunks = require_rate(
                    received.content.iter_any(), self._least_bytes_per_s, self.clock
                )
                response = Response(received.status, received.headers, chunks)
                if response.status not in accept:
                    keys_sent = form is not None or sent.header is not None
                    raise await self._status_error(response, auth, sent, keys_sent=keys_sent)
                yield response
        except TimeoutError as error:
            raise self._timeout_error() from error
        except (aiohttp.ClientError, ConnectionError) as error:
            if (reason := resource_shortage(error)) is not None:
                raise RunError(reason) from error
            message = "the connection broke before the answer's end"
            raise FileError(FailureKind.TRUNCATED, message) from error

    async def _send(
        self,
        method: str,
        url: str,
        auth: Authenticator,
        slot: Slot,
        form: dict[str, str] | None,
        session: aiohttp.ClientSession,
    ) -> _Sent:
        """Send a request and return its response, whose body is not read yet."""
        target = URL(url, encoded=True)
        # As the server sees it (RFC 9110 section 4.2.3, RFC 5849 section 3.4.1.2): in lower case,
        # without the last dot of a full name and without the scheme's default port.
        host = URL(str(target.origin())).host_port_subcomponent or ""
        signed = f"{target.scheme}://{host}{target.raw_path_qs}"
        proxy, connection = await self._connection_to(target)
        if proxy is not None:
            # A proxy sends the host of the target, not that of the header (RFC 9112, 3.2.2).
            target = URL(signed, encoded=True)
        header = await auth.header(signed)
        while self.limiter.paused_s:  # since this request got its slot: the token took time
            slot = await self.limiter.wait_to_start()
            header = await auth.header(signed)
        headers = {"Host": host} | ({"Authorization": header} if header else {})
        if proxy is not None and target.scheme == "http":
            headers |= proxy.headers
        await self._sleep(0)  # no request after a stop request
        self.traffic.requests += 1
        seen = SimpleNamespace(reused=False)
        try:
            # This limit ends a response whose head arrives byte by byte.
            async with asyncio.timeout(2 * self._timeout_s + MINUTE_S):
                response = await session.request(
                    method,
                    target,
                    data=form,
                    headers=headers,
                    allow_redirects=False,
                    trace_request_ctx=seen,
                    **connection,
                )
        except TimeoutError as error:
            raise self._timeout_error() from error
        except (_BrokenConnectionError, aiohttp.ClientError, ConnectionError) as error:
            cause = error.cause if isinstance(error, _BrokenConnectionError) else error
            if (reason := resource_shortage(cause)) is not None:
                raise RunError(reason) from error
            if seen.reused and was_closed_before(cause):
                raise KeptConnectionClosedError from error
            raise self._connection_error(cause, proxy) from error
        self._last_head = response.headers, datetime.now(UTC)
        return _Sent(response, header, slot)

    async def connect_once(self, origin: str) -> str:
        """Connect to `https://host` as a request does, then close; return what was seen.

        Raises a FileError, as `get` does if there is no response.
        """
        url = URL(origin)
        proxy, connection = await self._connection_to(url)
        loop = asyncio.get_running_loop()
        request = ClientRequest("GET", url, loop=loop, session=self._session, **connection)
        try:
            connected = await self._connector.connect(request, [], self._session.timeout)
        except TimeoutError as error:
            raise self._timeout_error() from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise self._connection_error(error, proxy) from error
        try:
            return describe_connection(url.host or "", connected.transport)
        finally:
            connected.close()

    async def _connection_to(self, url: URL) -> tuple[Proxy | None, dict[str, Any]]:
        """Return the proxy for a URL, and aiohttp's arguments for a connection.

        The first https request reads the certificates to trust, in a thread.
        """
        https = url.scheme == "https"
        proxy = proxy_for(url) if self._use_proxy else None
        if https and self._certificates is None:
            self._certificates = asyncio.ensure_future(asyncio.to_thread(trusted_certificates))
        return proxy, {
            "ssl": await asyncio.shield(self._certificates) if self._certificates else True,
            "proxy": proxy.url.with_user(None) if proxy else None,
            "proxy_headers": proxy.headers if proxy and https else None,
        }

    def _timeout_error(self) -> FileError:
        return FileError(
            FailureKind.TIMEOUT,
            f"no byte arrived for {self._timeout_s:g} s; raise fetch.timeout if that is normal",
        )

    def _connection_error(self, cause: Exception, proxy: Proxy | None) -> FileError:
        kind, text, retryable = explain_connection_error(cause, proxy)
        return FileError(kind, quoted(text, self.redactor.text), retryable=retryable)

    async def _status_error(
        self, response: Response, auth: Authenticator, sent: _Sent, *, keys_sent: bool
    ) -> FileError:
        """Return the error for a status; a 429 or 503 slows all requests down."""
        status = response.status
        now = datetime.now(UTC)
        wait_s = retry_after_s(response.headers, now)
        if status == 429:
            self.traffic.throttled += 1
            self.limiter.refused(sent.slot, throttled=True)
            self._pause(max(self._retry.throttle_delay, wait_s))
            return FileError(
                FailureKind.THROTTLED,
                "429, too many requests; lower fetch.concurrency or set fetch.rate",
                status=status,
            )
        if status == 503:
            self.limiter.refused(sent.slot, throttled=False)
            self._pause(wait_s)
        details = await read_error_details(response, self.redactor.text)
        if status == 401:
            clock = describe_clock(response.headers, now)
            why = explain_401(details, clock, keys_sent=keys_sent)
            resends = await auth.refused(sent.header)
            return UnauthorizedError(f"status 401{details}; {why}", resends)
        if status == 404:
            return FileError(FailureKind.NOT_FOUND, f"404, not found{details}", status=status)
        shown = ", a redirect, which is never followed" if 300 <= status < 400 else details
        return FileError(FailureKind.HTTP, f"status {status}{shown}", status=status)

    def _pause(self, seconds: float) -> None:
        if seconds > 60:
            log.warning("throttle.long", seconds=seconds, reason="the server asked to wait")
        self.limiter.pause(seconds)
