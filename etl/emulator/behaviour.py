"""How the emulator behaves: as documented, slow, limited, faulty; and whom it serves."""

import asyncio
import base64
import json
import secrets
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from aiohttp import web
from oauthlib.oauth1 import RequestValidator
from oauthlib.oauth1.rfc5849.endpoints import ResourceEndpoint

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
        request.transport.abort()


class OAuth1Gate:
    """Verifies signatures (RFC 5849, section 3.2); each nonce is valid once."""

    def __init__(self) -> None:
        self._endpoint = ResourceEndpoint(_Validator())

    def refusal(self, request: web.Request) -> str | None:
        """Return why the request is refused, or None."""
        valid, seen = self._endpoint.validate_protected_resource_request(
            str(request.url), request.method, None, dict(request.headers)
        )
        if valid:
            return None
        if seen is not None and getattr(seen, "nonce_used", False):
            return "oauth_problem=nonce_used"
        problem = "signature_invalid" if seen is not None else "parameter_absent"
        return f"oauth_problem={problem}"


class _Validator(RequestValidator):
    """The keys and nonces, as oauthlib's interface requires."""

    enforce_ssl = False
    timestamp_lifetime = _TIMESTAMP_LIFE_S
    dummy_client = "unknown"
    dummy_access_token = "unknown"  # noqa: S105

    def __init__(self) -> None:
        super().__init__()
        self._nonces: set[tuple[str, str]] = set()

    def check_client_key(self, _: str) -> bool:
        return True

    def check_access_token(self, _: str) -> bool:
        return True

    def check_nonce(self, nonce: str) -> bool:
        return bool(nonce)

    def validate_client_key(self, client_key: str, _: Any) -> bool:
        return client_key == KEYS["oauth1"]["consumer_key"]

    def validate_access_token(self, _: str, token: str, __: Any) -> bool:
        return token == KEYS["oauth1"]["access_token"]

    def validate_realms(self, *_: Any, **__: Any) -> bool:
        return True

    def get_client_secret(self, *_: Any) -> str:
        return KEYS["oauth1"]["consumer_secret"]

    def get_access_token_secret(self, *_: Any) -> str:
        return KEYS["oauth1"]["access_token_secret"]

    def validate_timestamp_and_nonce(self, *values: Any, **_: Any) -> bool:
        _, timestamp, nonce, request = values
        request.nonce_used = (timestamp, nonce) in self._nonces
        self._nonces.add((timestamp, nonce))
        return not request.nonce_used


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
