"""Authentication: OAuth 1.0a signatures, OAuth 2.0 tokens, or none."""

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from oauthlib import oauth1
from pydantic import SecretStr

from etl.config.sections import AuthSettings
from etl.model.errors import RunError

# A token is renewed before it expires: this share of its life, at most this many seconds.
_MARGIN_SHARE: Final = 0.2
_MARGIN_MAX_S: Final = 60.0
# How many 401s a request survives with a token that is fetched for it, and with one that was
# fetched while it was in flight. That a token expires then is bad luck; more than three times in a
# row is not.
_RESENDS_WITH_NEW: Final = 1
_RESENDS_WITH_NEWER: Final = 3


class AuthenticationError(RunError):
    """There is no token: the keys are wrong, or the token server does not answer."""


class Authenticator(Protocol):
    """Makes the Authorization header of each attempt."""

    async def header(self, url: str) -> str | None:
        """Return the header for one GET of this URL; send it once. None: no header."""
        ...

    async def refused(self, header: str | None) -> int:
        """Handle a 401 to this header; return how many 401s the request survives in all."""
        ...


class Anonymous:
    """No authentication."""

    async def header(self, url: str) -> None:
        """Return None."""

    async def refused(self, header: str | None) -> int:  # noqa: ARG002
        """Return 0."""
        return 0


class OAuth1:
    """One-legged OAuth 1.0a (RFC 5849): a fresh nonce, timestamp and signature for each attempt."""

    def __init__(self, auth: AuthSettings) -> None:
        self._client = oauth1.Client(
            reveal(auth.consumer_key),
            client_secret=reveal(auth.consumer_secret),
            resource_owner_key=reveal(auth.access_token),
            resource_owner_secret=reveal(auth.access_token_secret),
            signature_method=auth.signature_method,
        )

    async def header(self, url: str) -> str:
        """Sign one GET of this URL."""
        _, headers, _ = self._client.sign(url, http_method="GET")
        return str(headers["Authorization"])

    async def refused(self, header: str | None) -> int:  # noqa: ARG002
        """Return 0: the keys are wrong or lack a permission, and a new signature has the same."""
        return 0


class OAuth2:
    """OAuth 2.0 client credentials: one token for all workers, and one request for it at a time.

    `request` returns the token server's JSON; it retries, and raises AuthenticationError if there
    is none. `on_token` receives each new token.
    """

    def __init__(
        self,
        request: Callable[[], Awaitable[Any]],
        clock: Callable[[], float],
        on_token: Callable[[str], None],
    ) -> None:
        self._request = request
        self._clock = clock
        self._on_token = on_token
        self._header: str | None = None
        self._renew_at = 0.0
        self._renewing = asyncio.Lock()

    async def header(self, url: str) -> str:  # noqa: ARG002
        """Return the header with a token that does not expire soon."""
        async with self._renewing:
            if self._header is None or self._clock() >= self._renew_at:
                requested_at = self._clock()
                token, life_s = parse_token(await self._request())
                self._on_token(token)
                self._header = f"Bearer {token}"
                self._renew_at = requested_at + life_s - min(_MARGIN_MAX_S, life_s * _MARGIN_SHARE)
            return self._header

    async def refused(self, header: str | None) -> int:
        """Drop the token if it is still the refused one.

        Waits for a renewal in flight: a new token may be the reason why the old one was refused.
        """
        async with self._renewing:
            if self._header not in {None, header}:
                return _RESENDS_WITH_NEWER
            self._header = None
            return _RESENDS_WITH_NEW


def reveal(key: SecretStr | None) -> str:
    """Return the text of a key."""
    return key.get_secret_value() if key else ""


def parse_token(answer: Any) -> tuple[str, float]:
    """Read a token server's JSON; return the token and its life in seconds.

    `expires_in` may be missing: then the JWT's own `exp` counts. If both are missing, the life is
    infinite: the token is used until it is refused. Raises AuthenticationError, which never quotes
    the answer: it may hold a token.
    """
    value = answer.get("access_token") if isinstance(answer, dict) else None
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        raise AuthenticationError(
            "authentication: the OAuth 2.0 server's answer holds no access_token"
        )
    return value, _seconds(answer.get("expires_in")) or _jwt_life_s(value) or float("inf")


def _seconds(value: Any) -> float | None:
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if 0 < seconds < float("inf") else None


def _jwt_life_s(token: str) -> float | None:
    """Return the seconds until a JWT's `exp` (RFC 7519 section 4.1.4); None if it has none.

    They are not more than its life from `iat` to `exp`, even if this machine's clock is wrong.
    """
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        ends_at = float(claims["exp"])
        left_s = _seconds(ends_at - datetime.now(UTC).timestamp())
        life_s = _seconds(ends_at - float(claims["iat"])) if "iat" in claims else None
        return min((seconds for seconds in (left_s, life_s) if seconds), default=None)
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return None
