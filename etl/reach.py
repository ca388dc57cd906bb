"""Whether a server can be reached at all: its name, a connection, its certificate."""

import asyncio
import os
import socket
import ssl
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from etl.api.trust import trusted
from etl.errors import RunError
from etl.scalars import is_loopback

_PORTS: Final = {"https": 443, "http": 80}
_SOON: Final = timedelta(days=14)
# RFC 8305, "Happy Eyeballs": where IPv6 leads nowhere, IPv4 is not waited for.
_NEXT_ADDRESS_AFTER_S: Final = 0.25


async def resolve(origin: str, timeout_s: float) -> str:
    """Look the name of `https://host` up; return the origin with its first address. RunError."""
    host, port = _host_and_port(origin)
    try:
        async with asyncio.timeout(timeout_s):
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            )
    except (OSError, UnicodeError) as error:
        raise RunError(
            f"the name {host} cannot be looked up: {_reason(error)}; check it, and this machine's "
            "DNS"
        ) from error
    address = str(found[0][4][0])
    return origin if address == host else f"{origin} ({address})"


async def greet(origin: str, timeout_s: float) -> str:
    """Connect to `https://host` and shake hands as every request does; return what was seen.

    The certificate is judged as the API client judges it. Raises RunError.
    """
    host, port = _host_and_port(origin)
    context = trusted() if origin.startswith("https:") else None
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(
                host, port, ssl=context, happy_eyeballs_delay=_NEXT_ADDRESS_AFTER_S
            )
    except ssl.SSLCertVerificationError as error:
        raise RunError(
            f"{host} shows a certificate that is not trusted: {error.verify_message}; if your "
            "network has a CA of its own, name its file in SSL_CERT_FILE"
        ) from error
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        raise RunError(
            f"{host} does not speak TLS on port {port}: {reason}; check the URL, and whether a "
            "proxy is in the way"
        ) from error
    except OSError as error:
        raise RunError(
            f"no connection to {host} on port {port}: {_reason(error)}; check the URL, and "
            "whether a firewall or a proxy is in the way"
        ) from error
    try:
        return _seen(host, writer.get_extra_info("ssl_object"))
    finally:
        writer.transport.abort()


def _seen(host: str, tls: ssl.SSLObject | None) -> str:
    if tls is None:
        if is_loopback(host):
            return f"connected to {host}; plain http, which does not leave this machine"
        return f"connected to {host}; plain http: the keys can be read on the way"
    seen = f"{tls.version()} with {host}"
    certificate = tls.getpeercert() or {}
    ends = certificate.get("notAfter")
    if not isinstance(ends, str):
        return seen
    until = datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), UTC)
    soon = ", which is soon" if until - datetime.now(UTC) < _SOON else ""
    return f"{seen}, its certificate is good until {until:%Y-%m-%d}{soon}"


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "nothing came in time (fetch.timeout)"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return str(getattr(error, "strerror", None) or error)


def _host_and_port(origin: str) -> tuple[str, int]:
    url = urlsplit(origin)
    return url.hostname or "", url.port or _PORTS[url.scheme]
