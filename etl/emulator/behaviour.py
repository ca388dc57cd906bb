"""How the emulator behaves: as documented, slow, limited, faulty; and whom it serves."""

import asyncio
import base64
import json
import secrets
import socket
import ssl
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, Final, Literal

from aiohttp import web
from oauthlib.oauth1.rfc5849.signature import (
    collect_parameters,
    verify_hmac_sha1,
    verify_hmac_sha256,
)

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


Scheme = Literal["none", "oauth1", "oauth2"]

KEYS: Final[Mapping[Scheme, Mapping[str, str]]] = {
    "none": {},
    "oauth1": {
        "consumer_key": "emulator-consumer-key-0001",
        "consumer_secret": "emulator-consumer-secret-0001",
        "access_token": "emulator-access-token-0001",
        "access_token_secret": "emulator-access-token-secret-0001",
    },
    "oauth2": {
        "client_id": "emulator-client-id-0001",
        "client_secret": "emulator-client-secret-0001",
    },
}
_SIGNATURE_METHODS: Final = {"HMAC-SHA1": verify_hmac_sha1, "HMAC-SHA256": verify_hmac_sha256}
_TIMESTAMP_LIFE_S: Final = 300
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
    auth: Scheme = "none"
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
        # With this option closing sends a reset. Without it, the connection ends in order.
        option = struct.pack("ii", 1, 0)
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
        request.transport.abort()


class OAuth1Gate:
    """Verifies signatures (RFC 5849, section 3.2); each nonce is valid once."""

    def __init__(self) -> None:
        self._nonces: set[tuple[str, str]] = set()

    def refusal(self, request: web.Request) -> str | None:
        """Return why the request is refused, or None."""
        headers, query = dict(request.headers), request.url.raw_query_string
        try:
            signed = collect_parameters(query, None, headers, exclude_oauth_signature=False)
            given = dict(signed)
            key, token = given["oauth_consumer_key"], given["oauth_token"]
            timestamp, nonce = given["oauth_timestamp"], given["oauth_nonce"]
            verify = _SIGNATURE_METHODS[given["oauth_signature_method"]]
            message: Any = SimpleNamespace(  # as oauthlib reads it
                http_method=request.method,
                uri=str(request.url),
                params=[each for each in signed if each[0] != "oauth_signature"],
                signature=given["oauth_signature"],
            )
            if abs(time.time() - int(timestamp)) > _TIMESTAMP_LIFE_S:
                return "oauth_problem=timestamp_refused"
        except (KeyError, ValueError):
            return "oauth_problem=parameter_absent"
        if (timestamp, nonce) in self._nonces:
            return "oauth_problem=nonce_used"
        self._nonces.add((timestamp, nonce))
        keys = KEYS["oauth1"]
        known = (key, token) == (keys["consumer_key"], keys["access_token"])
        if known and verify(message, keys["consumer_secret"], keys["access_token_secret"]):
            return None
        return "oauth_problem=signature_invalid"


class OAuth2Gate:
    """Issues and verifies access tokens of client credentials (RFC 6749, section 4.4)."""

    def __init__(self) -> None:
        self._ends_at: dict[str, float] = {}

    def issue(self, life_s: float) -> str:
        """Return a new token, a JWT with `exp`."""
        ends_at = time.time() + life_s
        claims = {"exp": int(ends_at), "jti": secrets.token_hex(8)}
        token = ".".join((_part({"alg": "HS256", "typ": "JWT"}), _part(claims), "c2lnbmF0dXJl"))
        self._ends_at[token] = ends_at
        return token

    def revoke_all(self) -> None:
        """Make all tokens invalid."""
        self._ends_at.clear()

    def refusal(self, request: web.Request) -> str | None:
        """Return why the request is refused, or None."""
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind != "Bearer":
            return "token missing"
        return None if self._ends_at.get(token, 0) > time.time() else "token invalid"


def _part(content: Mapping[str, Any]) -> str:
    raw = base64.urlsafe_b64encode(json.dumps(content).encode())
    return raw.rstrip(b"=").decode()
