"""The emulator's authentication: OAuth 1.0a signatures and OAuth 2.0 tokens, with invented keys."""

import base64
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any, Final, Literal

from aiohttp import web
from oauthlib.oauth1 import RequestValidator
from oauthlib.oauth1.rfc5849.endpoints import ResourceEndpoint

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
