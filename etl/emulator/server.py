"""The emulator's server: the two API calls, the Domain API and the token endpoint."""

import asyncio
import gzip
import re
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, Literal, Self

from aiohttp import web

from etl.emulator.behaviour import (
    KEYS,
    EmulatorOptions,
    Endpoint,
    Fault,
    OAuth1Gate,
    OAuth2Gate,
    misbehave,
)
from etl.emulator.dataset import Dataset
from etl.model.times import Window, parse_rfc3339, rfc3339, to_millis

# The patterns of the vendor's documentation.
_SOURCE: Final = re.compile(r"[a-zA-Z0-9_]{1,20}")
_PATH: Final = re.compile(
    r"/year=[0-9]{4}/month=[0-9]{1,2}/day=[0-9]{1,2}/hour=[0-9]{1,2}/accountId=[a-zA-Z0-9]+"
    r"/[a-zA-Z0-9_.-]+\.json\.gz"
)
_MILLIS: Final = re.compile(r"[0-9]{1,16}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY: Final = timedelta(days=1)
_SERVICES: Final = ("agentActivityDomain", "sentinel")
# The rate limit accepts requests that come this much too early.
_BURST_S: Final = 0.1

_Handler = Callable[[web.Request], Awaitable[web.Response]]


@dataclass(frozen=True, slots=True)
class Request:
    """One request; the status is 0 if it got no response."""

    at_s: float
    endpoint: Endpoint
    path: str | None
    status: int
    authorization: str | None


class _RefusedError(Exception):
    """Ends a request with an error response."""

    def __init__(
        self, status: int, content: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status)
        self.response = web.json_response(content, status=status, headers=headers)


def _bad_request(*causes: str) -> _RefusedError:
    return _RefusedError(400, {"causes": list(causes), "message": "Bad request"})


class Emulator:
    """Serves a dataset on loopback. An async context manager.

    You may replace `dataset` and `options` while it runs; the counts of the faults then restart.
    """

    def __init__(self, dataset: Dataset, options: EmulatorOptions | None = None) -> None:
        self.dataset = dataset
        self.base_url = ""
        self.requests: list[Request] = []
        self.most_at_once = 0
        self.in_flight = 0
        self._rate_ready_at_s = 0.0
        self._oauth1 = OAuth1Gate()
        self._oauth2 = OAuth2Gate()
        self.options = options or EmulatorOptions()
        self._runner: web.AppRunner | None = None

    @property
    def options(self) -> EmulatorOptions:
        """The behaviour."""
        return self._options

    @options.setter
    def options(self, options: EmulatorOptions) -> None:
        self._options = options
        self._faults_left = [fault.times for fault in options.faults]

    @property
    def keys(self) -> dict[str, str]:
        """The accepted keys, named like the settings' `auth.*`."""
        return dict(KEYS[self.options.auth])

    def revoke_tokens(self) -> None:
        """Make all OAuth 2.0 tokens invalid."""
        self._oauth2.revoke_all()

    def count(self, endpoint: Endpoint | None = None, status: int | None = None) -> int:
        """Return how many requests an endpoint got, or how many got this status."""
        return sum(
            endpoint in {None, request.endpoint} and status in {None, request.status}
            for request in self.requests
        )

    def file_requests(self) -> Counter[str]:
        """Return how often each file was requested."""
        return Counter(request.path for request in self.requests if request.path is not None)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 is any free port. Raises OSError."""
        app = web.Application()
        account = "account/{account:[a-zA-Z0-9]+}"
        listing = partial(self._respond, "listing", self._listing)
        file = partial(self._respond, "file", self._file)
        domain = partial(self._respond, "domain", self._domain)
        token = partial(self._respond, "token", self._token)
        app.router.add_get(f"/api/{account}/agent-segments/breakdown", listing)
        app.router.add_get(f"/api/{account}/agent-segments/files", file)
        app.router.add_get(f"/api/{account}/service/{{name}}/baseURI.json", domain)
        app.router.add_get(f"/api/{account}/service/baseURI.json", domain)
        app.router.add_post(f"/sentinel/api/v2/{account}/app/token", token)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=self.options.tls)
        try:
            await site.start()
        except OSError:
            await self.stop()
            raise
        scheme = "https" if self.options.tls else "http"
        self.base_url = f"{scheme}://{host}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Stop, also while requests are in flight."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _respond(
        self, endpoint: Endpoint, handler: _Handler, request: web.Request
    ) -> web.StreamResponse:
        path = request.query.get("path") if endpoint == "file" else None
        self.in_flight += 1
        self.most_at_once = max(self.most_at_once, self.in_flight)
        at_s = time.monotonic()
        response: web.StreamResponse | None = None
        try:
            self._check_limits()
            if self.options.latency_s:
                await asyncio.sleep(self.options.latency_s)
            fault = self._fault(endpoint, path, request.query_string)
            if fault is None:
                response = await handler(request)
            elif fault.kind in {"status", "hang", "reset_before"}:
                response = await misbehave(fault, request, b"")
            else:
                body = (await handler(request)).body
                good = body if isinstance(body, bytes) else b""
                response = await misbehave(fault, request, good)
        except _RefusedError as refused:
            response = refused.response
        finally:
            self.in_flight -= 1
            status = 0 if response is None else response.status
            self.requests.append(
                Request(at_s, endpoint, path, status, request.headers.get("Authorization"))
            )
        return response

    def _check_limits(self) -> None:
        options = self.options
        now = time.monotonic()
        too_fast = False
        if options.rate is not None:
            ready_at = max(self._rate_ready_at_s, now)
            too_fast = ready_at - now > _BURST_S
            if not too_fast:
                self._rate_ready_at_s = ready_at + 1 / options.rate
        too_many = options.max_concurrent is not None and self.in_flight > options.max_concurrent
        if too_fast or too_many:
            headers = {"Retry-After": options.retry_after} if options.retry_after else None
            raise _RefusedError(429, {"message": "Too many requests"}, headers)

    def _fault(self, endpoint: Endpoint, path: str | None, query: str) -> Fault | None:
        for index, fault in enumerate(self.options.faults):
            left = self._faults_left[index]
            fits = fault.endpoint == endpoint and fault.path in {None, path}
            if fits and fault.query in query and left != 0:
                self._faults_left[index] = None if left is None else left - 1
                return fault
        return None

    def _knows(self, request: web.Request) -> bool:
        return self.options.account in {None, request.match_info["account"]}

    def _check_caller(self, request: web.Request) -> None:
        reason = None if self._knows(request) else "oauth_problem=permission_denied"
        if reason is None and self.options.auth == "oauth1":
            reason = self._oauth1.refusal(request)
        elif reason is None and self.options.auth == "oauth2":
            reason = self._oauth2.refusal(request)
        if reason is not None:
            raise _RefusedError(401, {"reason": reason, "message": "Unauthorized"})
        if not _SOURCE.fullmatch(request.query.get("source", "")):
            raise _bad_request("source must match ^[a-zA-Z0-9_]+$, 20 characters at most")

    def _now(self) -> datetime:
        return self.options.now or datetime.now(UTC)

    async def _listing(self, request: web.Request) -> web.Response:
        self._check_caller(request)
        window = self._window(request)
        start_ms, end_ms = to_millis(window.start), to_millis(window.end)
        now_ms = to_millis(self._now())
        files = [
            file.path
            for file in self.dataset.files.values()
            if file.closed_ms[0] <= end_ms
            and file.closed_ms[1] >= start_ms
            and file.available_from_ms <= now_ms
        ]
        missing = any(p.start < window.end and window.start < p.end for p in self.options.partial)
        if not files and not missing:
            raise _RefusedError(404, {"message": "No paths for this window"})
        number = int if self.options.numeric_timeframe else str
        timeframe = {
            "startTime": rfc3339(window.start),
            "endTime": rfc3339(window.end),
            "startTimeL": number(start_ms),
            "endTimeL": number(end_ms),
        }
        content = {"timeframe": timeframe, "files": files}
        return web.json_response(content, status=206 if missing else 200)

    def _window(self, request: web.Request) -> Window:
        start = _window_end(request, "from")
        end = _window_end(request, "to")
        if end is None:
            end = self._now() if start is None else start + _DAY
        if start is None:
            start = end - _DAY
        causes = []
        if start >= end:
            causes.append("from must be before to")
        if end - start > _DAY:
            causes.append(f"the window must not be longer than {_DAY}")
        if self.options.oldest is not None and start < self._now() - self.options.oldest:
            causes.append(f"the window must not be older than {self.options.oldest}")
        if causes:
            raise _bad_request(*causes)
        return Window(start, end)

    async def _file(self, request: web.Request) -> web.Response:
        self._check_caller(request)
        path = request.query.get("path", "")
        if not _PATH.fullmatch(path):
            raise _bad_request("path does not match the pattern of a file's path")
        file = self.dataset.files.get(path)
        if file is None or file.available_from_ms > to_millis(self._now()):
            raise _RefusedError(404, {"message": "No such file"})
        match self.options.encoding:
            case "plain":
                return web.Response(body=gzip.decompress(file.content))
            case "on_top":
                headers = {"Content-Encoding": "gzip"}
                return web.Response(body=gzip.compress(file.content, 1), headers=headers)
            case "declared":
                return web.Response(body=file.content, headers={"Content-Encoding": "gzip"})
        return web.Response(body=file.content, content_type="application/gzip")

    async def _domain(self, request: web.Request) -> web.Response:
        if request.query.get("version") != "1.0":
            raise _bad_request("version must be 1.0")
        if not self._knows(request):
            raise _RefusedError(404, {"message": "No such account"})
        account = request.match_info["account"]
        entries = [
            {"service": name, "account": account, "baseURI": request.host} for name in _SERVICES
        ]
        name = request.match_info.get("name")
        if name is None:
            return web.json_response({"baseURIs": entries})
        for entry in entries:
            if entry["service"] == name:
                return web.json_response(entry)
        raise _RefusedError(404, {"message": "No such service"})

    async def _token(self, request: web.Request) -> web.Response:
        if not self._knows(request):
            raise _RefusedError(404, {"message": "No such account"})
        form = await request.post()
        if form.get("grant_type") != "client_credentials":
            raise _bad_request("grant_type must be client_credentials")
        keys = KEYS["oauth2"]
        if any(form.get(name) != keys[name] for name in keys):
            content = {"error": "invalid_client", "error_description": "unknown client or secret"}
            raise _RefusedError(401, content)
        life_s = self.options.token_life_s
        token = {"access_token": self._oauth2.issue(life_s), "token_type": "Bearer"}
        return web.json_response(
            token | ({"expires_in": life_s} if self.options.expires_in else {})
        )


def _window_end(request: web.Request, name: Literal["from", "to"]) -> datetime | None:
    millis, text = request.query.get(f"{name}Millis"), request.query.get(name)
    if millis is not None and text is not None:
        raise _bad_request(f"{name} and {name}Millis must not both be given")
    try:
        if millis is not None:
            if not _MILLIS.fullmatch(millis):
                raise ValueError(millis)
            return _EPOCH + timedelta(milliseconds=int(millis))
        return None if text is None else parse_rfc3339(text)
    except (ValueError, OverflowError):
        raise _bad_request(f"{name}Millis must be epoch milliseconds, {name} RFC 3339") from None


@contextmanager
def run_in_thread(dataset: Dataset, options: EmulatorOptions | None = None) -> Iterator[Emulator]:
    """Serve from another thread, for callers that are not async."""
    emulator = Emulator(dataset, options)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="emulator", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(emulator.start(), loop).result()
        yield emulator
    finally:
        asyncio.run_coroutine_threadsafe(emulator.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
