"""How the emulator behaves: as documented, slow, limited, or faulty on the socket."""

import asyncio
import ssl
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

from aiohttp import web

from etl.model.times import Window

Endpoint = Literal["domain", "token", "listing", "file"]
Kind = Literal[
    "status",  # respond with `status`, `body` and `headers`
    "reset_before",  # reset the connection before the response
    "reset_middle",  # reset it in the middle of the response
    "short",  # send fewer bytes than Content-Length, then close
    "chunked_cut",  # send a chunked response without its last chunk
    "half_gzip",  # send a whole response with half of the file
    "bad_trailer",  # change the gzip's CRC
    "bad_middle",  # change a byte in the middle
    "html",  # respond with 200 and a web page
    "empty",  # respond with 200 and no body
    "redirect",  # respond with 302 to `body`
    "drip",  # send a byte each `delay_s`
    "hang",  # send nothing until the server stops
]


_WEB_PAGE: Final = "<!doctype html><html><body>We are working on it</body></html>"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of an endpoint: for which file (None: any), how often (None: always).

    It applies to requests whose query contains `query`, for example a listing's window.
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
    """How the emulator behaves; by default as the vendor documents.

    `account` is the only account (None: any). `now` is the time at which windows are checked and
    late files appear (None: the real time). `oldest` is the age of the oldest window (None: any).
    `partial` are windows for which a listing returns 206. `encoding` says how a file is sent: its
    gzip as it is, declared as Content-Encoding, inside another gzip, or decompressed. `rate` is in
    requests a second, without bursts. `tls` makes it serve https.
    """

    account: str | None = None
    auth: Literal["none", "oauth1", "oauth2"] = "none"
    now: datetime | None = None
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
    """Respond as the fault says; `good` is the body of the response without it."""
    match fault.kind:
        case "status":
            return web.Response(status=fault.status, body=fault.body, headers=fault.headers)
        case "redirect":
            return web.Response(status=302, headers={"Location": fault.body.decode()})
        case "html":
            return web.Response(text=_WEB_PAGE, content_type="text/html")
        case "empty" | "half_gzip" | "bad_trailer" | "bad_middle":
            return web.Response(body=_damaged(fault.kind, good))
        case "hang":
            await asyncio.Event().wait()
        case "reset_before":
            _reset(request)
    return await _break_off(fault, request, good)


def _damaged(kind: Kind, good: bytes) -> bytes:
    half = len(good) // 2
    if kind == "empty":
        return b""
    if kind == "half_gzip":
        return good[:half]
    at = len(good) - 8 if kind == "bad_trailer" else half
    return good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :]


async def _break_off(fault: Fault, request: web.Request, good: bytes) -> web.StreamResponse:
    """Start the response without the fault, and do not complete it."""
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
