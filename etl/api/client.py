"""The vendor's API for one account: what the rest of the program knows of it."""

import ipaddress
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from etl.api.auth import Anonymous, Authenticator, OAuth1, OAuth2
from etl.api.listing import Listing, list_windows
from etl.api.responses import Body, download, read_json
from etl.api.retry import Attempts
from etl.api.transport import Transport
from etl.config.settings import Settings
from etl.model.errors import FileError, RunError
from etl.model.machine import is_loopback
from etl.model.paths import BreakdownPath
from etl.model.times import Window

#: Service names of the Domain API.
AGENT_ACTIVITY: Final = "agentActivityDomain"
SENTINEL: Final = "sentinel"

_HOST: Final = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?")
_SERVICE: Final = "/api/account/{account}/agent-segments"


class Client:
    """Lists and downloads files of one account. Made by `connect`."""

    def __init__(
        self,
        transport: Transport,
        auth: Authenticator,
        account: str,
        source: str,
        base: str,
        sentinel: str | None,
        *,
        any_404_is_empty: bool,
    ) -> None:
        self._transport = transport
        self._auth = auth
        self._base = base + _SERVICE.format(account=account)
        self._source = source
        self._any_404_is_empty = any_404_is_empty
        #: The servers that it talks to (`https://host`): the API's and, with OAuth 2.0, the one
        #: that gives tokens.
        self.origins = (base,) if sentinel is None else (base, sentinel)

    async def authenticate(self) -> None:
        """Get what proves who is calling, where a request is needed for it; RunError if refused."""
        await self._auth.header(self._base)

    async def list(self, windows: list[Window]) -> Listing:
        """List each window; RunError if one is refused or cannot be had."""
        return await list_windows(
            self._transport,
            self._auth,
            f"{self._base}/breakdown",
            self._source,
            windows,
            any_404_is_empty=self._any_404_is_empty,
        )

    def attempts(self, path: BreakdownPath) -> Attempts:
        """Return the attempts of one file, by the vendor's retry policy."""
        return self._transport.attempts(path.text)

    async def download(self, path: BreakdownPath, memory_bytes: int, max_bytes: int) -> Body:
        """Make one attempt to download a file, whole; FileError says what went wrong."""
        # A path's characters (the documented pattern) may all stand in a query as they are, and
        # there are servers that compare the parameter undecoded.
        url = f"{self._base}/files?path={path.text}&source={self._source}"
        async with self._transport.get(url, self._auth) as answer:
            return await download(answer, memory_bytes, max_bytes)


async def connect(
    transport: Transport,
    settings: Settings,
    account: str,
    clock: Callable[[], float],
    on_token: Callable[[str], None],
) -> Client:
    """Find the vendor's hosts and prepare the authentication.

    `on_token` hears of every access token, so that it can be kept out of the logs. Raises
    RunError.
    """

    async def host(service: str) -> str:
        return await look_up(transport, settings.api.domain_url, account, service)

    base = settings.api.base_url or await host(AGENT_ACTIVITY)
    sentinel = None
    auth: Authenticator
    match settings.auth.scheme:
        case "oauth1":
            auth = OAuth1(settings.auth)
        case "oauth2":
            sentinel = await host(SENTINEL)
            url = f"{sentinel}/sentinel/api/v2/account/{account}/app/token"
            ask = partial(_token, transport, url, settings)
            auth = OAuth2(ask, clock, on_token)
        case "none":
            auth = Anonymous()
    api = settings.api
    any_404 = api.any_404_is_empty
    return Client(transport, auth, account, api.source, base, sentinel, any_404_is_empty=any_404)


async def _token(transport: Transport, url: str, settings: Settings) -> Any:
    """Ask for an access token (RFC 6749 section 4.4); RunError if there is none to be had."""
    client_id, client_secret = settings.auth.client_id, settings.auth.client_secret
    assert client_id is not None  # noqa: S101 - the scheme is set
    assert client_secret is not None  # noqa: S101
    form = {
        "client_id": client_id.get_secret_value(),
        "client_secret": client_secret.get_secret_value(),
        "grant_type": "client_credentials",
    }
    try:
        async for attempt in transport.attempts("OAuth 2.0 token"):
            with attempt:
                async with transport.post(url, form) as answer:
                    return await read_json(answer)
    except FileError as error:
        advice = (
            "; check auth.client_id and auth.client_secret" if error.status in {400, 401} else ""
        )
        raise RunError(f"authentication: no OAuth 2.0 token: {error.message}{advice}") from error
    raise AssertionError  # attempts end with an answer or an error


async def look_up(transport: Transport, domain_url: str, account: str, service: str) -> str:
    """Return the origin (`https://host`) of a service for this account.

    Always https, but for a host on loopback, which is called by the Domain API's own scheme.
    Raises RunError.
    """
    url = f"{domain_url}/api/account/{account}/service/{service}/baseURI.json?version=1.0"
    where = f"looking up the host of {service} at {domain_url}"
    advice = "check account and api.domain_url" + (
        ", or set api.base_url" if service == AGENT_ACTIVITY else ""
    )
    try:
        async for attempt in transport.attempts(where):
            with attempt:
                async with transport.get(url, Anonymous()) as answer:
                    found = await read_json(answer)
    except FileError as error:
        raise RunError(f"{where}: {error.message}; {advice}") from error
    host = _base_uri(found, service)
    match = _HOST.fullmatch(host) if host else None
    if match is None or int(match["port"] or 0) > 65535 or not _is_host(match["host"]):
        raise RunError(f"{where}: the answer names no host; {advice}")
    name = match["host"].strip("[]")
    scheme = urlsplit(domain_url).scheme if is_loopback(name) else "https"
    return f"{scheme}://{host}"


def _is_host(text: str) -> bool:
    """Tell whether what stands in brackets, if anything does, is an address."""
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
