"""The vendor's API for one account: finding its hosts, listing, downloading."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from etl.api.auth import Anonymous, AuthenticationError, Authenticator, OAuth1, OAuth2, reveal
from etl.api.listing import Listing, list_windows
from etl.api.responses import Body, Response, download, read_json
from etl.api.retry import Attempts
from etl.api.transport import Transport
from etl.config.sections import AuthSettings
from etl.config.settings import Settings
from etl.config.values import host_url
from etl.model.errors import FileError, RunError
from etl.model.machine import is_loopback
from etl.model.paths import BreakdownPath
from etl.model.times import Window

#: Service names of the Domain API.
AGENT_ACTIVITY: Final = "agentActivityDomain"
SENTINEL: Final = "sentinel"


@dataclass(frozen=True, slots=True)
class Client:
    """Lists and downloads files of one account. Made by `connect`."""

    transport: Transport
    auth: Authenticator
    settings: Settings
    #: The servers (`https://host`): the API and, with OAuth 2.0, the token server.
    origins: tuple[str, ...]

    @property
    def _base(self) -> str:
        return f"{self.origins[0]}/api/account/{self.settings.account}/agent-segments"

    async def authenticate(self) -> None:
        """Get a token, if this scheme needs one. Raises AuthenticationError."""
        await self.auth.header(self._base)

    async def list(self, windows: list[Window], listing: Listing) -> None:
        """List each window into `listing`. Raises RunError; see `list_windows`."""
        url = f"{self._base}/breakdown"
        await list_windows(self.transport, self.auth, url, self.settings.api, windows, listing)

    def attempts(self, path: BreakdownPath) -> Attempts:
        """Return the attempts to download one file."""
        return self.transport.attempts(path.text)

    async def download(
        self,
        path: BreakdownPath,
        memory_bytes: int,
        max_bytes: int,
        *,
        new_connection: bool = False,
    ) -> Body:
        """Make one attempt to download a whole file. Raises FileError."""
        # All characters of a path (the documented pattern) are allowed in a query, and some
        # servers compare the parameter without decoding it.
        url = f"{self._base}/files?path={path.text}&source={self.settings.api.source}"
        async with self.transport.get(url, self.auth, new_connection=new_connection) as response:
            body = await download(response, memory_bytes, max_bytes)
        self.transport.traffic.downloaded_bytes += body.size
        return body


async def connect(transport: Transport, settings: Settings) -> Client:
    """Find the vendor's hosts and prepare the authentication. Raises RunError.

    `settings.account` must be set. The transport's redactor hides every access token.
    """
    account, domain_url = settings.account or "", settings.api.domain_url
    base = settings.api.base_url or await look_up(transport, domain_url, account, AGENT_ACTIVITY)
    match settings.auth.scheme:
        case "oauth1":
            return Client(transport, OAuth1(settings.auth), settings, (base,))
        case "oauth2":
            sentinel = await look_up(transport, domain_url, account, SENTINEL)
            url = f"{sentinel}/sentinel/api/v2/account/{account}/app/token"
            auth = OAuth2(
                lambda: _request_token(transport, url, settings.auth),
                transport.clock,
                transport.redactor.add,
            )
            return Client(transport, auth, settings, (base, sentinel))
        case "none":
            return Client(transport, Anonymous(), settings, (base,))


async def _request_token(transport: Transport, url: str, auth: AuthSettings) -> Any:
    """Request an access token (RFC 6749 section 4.4). Raises AuthenticationError."""
    form = {
        "client_id": reveal(auth.client_id),
        "client_secret": reveal(auth.client_secret),
        "grant_type": "client_credentials",
    }
    try:
        return await _ask(transport, "OAuth 2.0 token", partial(transport.post, url, form))
    except FileError as error:
        advice = (
            "; check auth.client_id and auth.client_secret" if error.status in {400, 401} else ""
        )
        raise AuthenticationError(
            f"authentication: no OAuth 2.0 token: {error.message}{advice}"
        ) from error


async def _ask(
    transport: Transport,
    what: str,
    send: Callable[..., AbstractAsyncContextManager[Response]],
) -> Any:
    """Return the JSON that a server sends, by the retry policy. Raises FileError."""
    async for attempt in transport.attempts(what):
        with attempt:
            async with send(new_connection=attempt.new_connection) as response:
                return await read_json(response)
    raise AssertionError  # attempts end with a response or an error


async def look_up(transport: Transport, domain_url: str, account: str, service: str) -> str:
    """Ask the Domain API for the origin (`https://host`) of a service for this account.

    A host on loopback gets the scheme of `domain_url`. Raises RunError.
    """
    url = f"{domain_url}/api/account/{account}/service/{service}/baseURI.json?version=1.0"
    where = f"looking up the host of {service} at {domain_url}"
    advice = "check account and api.domain_url" + (
        ", or set api.base_url" if service == AGENT_ACTIVITY else ""
    )
    try:
        answer = await _ask(transport, where, partial(transport.get, url, Anonymous()))
    except FileError as error:
        raise RunError(f"{where}: {error.message}; {advice}") from error
    host = _base_uri(answer, service) or ""
    try:
        origin = host_url(f"https://{host}" if "/" not in host else "")
    except ValueError:
        raise RunError(f"{where}: the answer names no host; {advice}") from None
    if is_loopback(urlsplit(origin).hostname or ""):
        return origin.replace("https", urlsplit(domain_url).scheme, 1)
    return origin


def _base_uri(answer: Any, service: str) -> str | None:
    if not isinstance(answer, dict):
        return None
    services = answer.get("baseURIs")
    for entry in services if isinstance(services, list) else [answer]:
        if isinstance(entry, dict) and entry.get("service", service) == service:
            host = entry.get("baseURI")
            return host if isinstance(host, str) else None
    return None
