"""How the emulator behaves: as documented, slow, limited, or faulty on the socket."""

import asyncio
import gzip
import json
import ssl
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

from aiohttp import web

from etl.model.times import Window

Endpoint = Literal["domain", "token", "listing", "file"]
Kind = Literal[
    "status",  # `status` with `body` and `headers`
    "reset_before",  # the connection is reset before the answer
    "reset_middle",  # and in the middle of one
    "short",  # fewer bytes than Content-Length says, then the end
    "chunked_cut",  # a chunked answer without its last chunk
    "half_gzip",  # a whole answer holding half of the file
    "bad_trailer",  # the gzip's CRC is wrong
    "bad_middle",  # a byte in the middle is wrong
    "html",  # 200 and a web page
    "empty",  # 200 and nothing
    "redirect",  # 302 to `body`
    "drip",  # a byte at a time, `delay_s` apart
    "hang",  # nothing, until the server stops
]


_PAGE: Final = "<!doctype html><html><body>We are working on it</body></html>"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing to go wrong: where, for which file (None: any), how often (None: always).

    `query` is a text that the request's query must hold, for example of a listing's window.
    """

    endpoint: Endpoint
    kind: Kind
    path: str | None = None
    times: int | None = 1
    status: int = 500
    body: bytes = b'{"internalCode": 17, "message": "something broke"}'
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.01
    query: str = ""


@dataclass(frozen=True, slots=True)
class EmulatorOptions:
    """What can be asked of the emulator.

    `account` is the only one that it has (None: it answers for any). `now` is the clock by which
    windows are judged and late files appear (None: the real one). `oldest` None lists windows of
    any age. `partial` are windows for which a listing answers 206. `encoding` is how a file's gzip
    is sent: as it is, as it is but declared as Content-Encoding, with another gzip on top, or
    unpacked. `rate` is in requests a second, without bursts. `tls` makes it serve https.
    """

    account: str | None = None
    auth: Literal["none", "oauth1", "oauth2"] = "none"
    now: datetime | None = None
    max_window: timedelta = timedelta(days=1)
    oldest: timedelta | None = timedelta(days=31)
    partial: tuple[Window, ...] = ()
    numeric_timeframe: bool = False
    latency_s: float = 0.0
    rate: float | None = None
    max_concurrent: int | None = None
    retry_after: str | None = None
    encoding: Literal["as_is", "declared", "on_top", "plain"] = "as_is"
    token_life_s: float = 3600
    expires_in: bool = True
    tls: ssl.SSLContext | None = None
    faults: tuple[Fault, ...] = ()


async def misbehave(fault: Fault, request: web.Request, good: bytes) -> web.StreamResponse:
    """Answer a request as the fault says; `good` is what a good answer would hold."""
    match fault.kind:
        case "status":
            return web.Response(status=fault.status, body=fault.body, headers=fault.headers)
        case "redirect":
            return web.Response(status=302, headers={"Location": fault.body.decode()})
        case "html":
            return web.Response(text=_PAGE, content_type="text/html")
        case "empty" | "half_gzip" | "bad_trailer" | "bad_middle":
            return web.Response(body=_spoilt(fault.kind, good))
        case "hang":
            await asyncio.Event().wait()
        case "reset_before":
            _reset(request)
    return await _break_off(fault, request, good)


def _spoilt(kind: Kind, good: bytes) -> bytes:
    half = len(good) // 2
    if kind == "empty":
        return b""
    if kind == "half_gzip":
        return good[:half]
    at = len(good) - 8 if kind == "bad_trailer" else half
    return good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :]


async def _break_off(fault: Fault, request: web.Request, good: bytes) -> web.StreamResponse:
    """Begin a good answer and do not end it well."""
    response = web.StreamResponse()
    if fault.kind in {"short", "reset_middle"}:
        response.content_length = len(good)
    else:
        response.enable_chunked_encoding()
    try:
        await response.prepare(request)
        if fault.kind == "drip":
            for index in range(len(good)):
                await response.write(good[index : index + 1])
                await asyncio.sleep(fault.delay_s)
            return response
        await response.write(good[: len(good) // 2])
    except ConnectionError:
        return response
    if fault.kind == "reset_middle":
        _reset(request)
    elif request.transport is not None:
        request.transport.close()
    return response


def _reset(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def json_body(content: object) -> bytes:
    """Return an answer's JSON as bytes."""
    return json.dumps(content).encode()


def packed(text: bytes) -> bytes:
    """Return gzip as a server's transport encoding makes it."""
    return gzip.compress(text, 1)
