"""The vendor's API for one account: finding its hosts, listing, downloading."""

import ipaddress
import re
from typing import Any, Final
from urllib.parse import urlsplit

from etl.api.auth import Anonymous, AuthenticationError, Authenticator, OAuth1, OAuth2
from etl.api.errors import Attempts
from etl.api.listing import Listing, list_windows
from etl.api.responses import Body, download, read_json
from etl.api.transport import Transport
from etl.config.sections import AuthSettings
from etl.config.settings import Settings
from etl.model.errors import FileError, RunError
from etl.model.machine import is_loopback
from etl.model.paths import BreakdownPath
from etl.model.times import Window

#: Service names of the Domain API.
AGENT_ACTIVITY: Final = "agentActivityDomain"
SENTINEL: Final = "sentinel"

_HOST: Final = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?")


class Client:
    """Lists and downloads files of one account. Made by `connect`."""

    def __init__(
        self,
        transport: Transport,
        auth: Authenticator,
        settings: Settings,
        origins: tuple[str, ...],
    ) -> None:
        self._transport = transport
        self._auth = auth
        self._api = settings.api
        self._base = f"{origins[0]}/api/account/{settings.account}/agent-segments"
        #: The servers (`https://host`): the API and, with OAuth 2.0, the token server.
        self.origins = origins

    async def authenticate(self) -> None:
        """Get a token, if this scheme needs one. Raises AuthenticationError."""
        await self._auth.header(self._base)

    async def list(self, windows: list[Window]) -> Listing:
        """List each window. Raises RunError; see `list_windows`."""
        return await list_windows(
            self._transport,
            self._auth,
            f"{self._base}/breakdown",
            self._api.source,
            windows,
            any_404_is_empty=self._api.any_404_is_empty,
        )

    def attempts(self, path: BreakdownPath) -> Attempts:
        """Return the attempts to download one file."""
        return self._transport.attempts(path.text)

    async def download(self, path: BreakdownPath, memory_bytes: int, max_bytes: int) -> Body:
        """Make one attempt to download a whole file. Raises FileError."""
        # All characters of a path (the documented pattern) are allowed in a query, and some
        # servers compare the parameter without decoding it.
        url = f"{self._base}/files?path={path.text}&source={self._api.source}"
        async with self._transport.get(url, self._auth) as response:
            body = await download(response, memory_bytes, max_bytes)
        self._transport.traffic.downloaded_bytes += body.size
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
    assert auth.client_id is not None  # noqa: S101 - the scheme is OAuth 2.0
    assert auth.client_secret is not None  # noqa: S101
    form = {
        "client_id": auth.client_id.get_secret_value(),
        "client_secret": auth.client_secret.get_secret_value(),
        "grant_type": "client_credentials",
    }
    try:
        async for attempt in transport.attempts("OAuth 2.0 token"):
            with attempt:
                async with transport.post(url, form) as response:
                    return await read_json(response)
    except FileError as error:
        advice = (
            "; check auth.client_id and auth.client_secret" if error.status in {400, 401} else ""
        )
        raise AuthenticationError(
            f"authentication: no OAuth 2.0 token: {error.message}{advice}"
        ) from error
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
        async for attempt in transport.attempts(where):
            with attempt:
                async with transport.get(url, Anonymous()) as response:
                    answer = await read_json(response)
    except FileError as error:
        raise RunError(f"{where}: {error.message}; {advice}") from error
    host = _base_uri(answer, service)
    match = _HOST.fullmatch(host) if host else None
    if match is None or int(match["port"] or 0) > 65535 or not _is_host(match["host"]):
        raise RunError(f"{where}: the answer names no host; {advice}")
    name = match["host"].strip("[]")
    scheme = urlsplit(domain_url).scheme if is_loopback(name) else "https"
    return f"{scheme}://{host}"


def _is_host(text: str) -> bool:
    """Return False for brackets without an IPv6 address in them."""
    try:
        return not text.startswith("[") or bool(ipaddress.IPv6Address(text.strip("[]")))
    except ValueError:
        return False


def _base_uri(answer: Any, service: str) -> str | None:
    if not isinstance(answer, dict):
        return None
    services = answer.get("baseURIs")
    for entry in services if isinstance(services, list) else [answer]:
        if isinstance(entry, dict) and entry.get("service", service) == service:
            host = entry.get("baseURI")
            return host if isinstance(host, str) else None
    return None
