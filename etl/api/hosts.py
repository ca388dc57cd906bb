"""Finding the vendor's hosts through the Domain API (LivePerson's "Domain API")."""

import ipaddress
import re
from typing import Any, Final
from urllib.parse import urlsplit

from etl.api.answers import read_json
from etl.api.auth import Anonymous
from etl.api.transport import Transport
from etl.model.errors import FileError, RunError
from etl.model.machine import is_loopback

#: Service names of the Domain API.
AGENT_ACTIVITY: Final = "agentActivityDomain"
SENTINEL: Final = "sentinel"

_HOST: Final = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?")


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
