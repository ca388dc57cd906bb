"""Whether a server can be reached at all: its name, a connection, its certificate."""

import asyncio
import os
import socket
import ssl
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from yarl import URL

from etl.api.proxy import Proxy
from etl.api.tls import explain_handshake, trusted
from etl.model.errors import RunError
from etl.model.machine import is_loopback

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


async def greet(origin: str, timeout_s: float, proxy: Proxy | None = None) -> str:
    """Connect to `https://host` and shake hands as every request does; return what was seen.

    The certificate is judged as the API client judges it. By a `proxy` if there is one. Raises
    RunError.
    """
    host, port = _host_and_port(origin)
    place = (proxy.url.host or "", proxy.url.port or 80) if proxy else (host, port)
    context = trusted() if origin.startswith("https:") else None
    name = host.rstrip(".")
    writer = None
    try:
        async with asyncio.timeout(timeout_s):
            direct = context if proxy is None else None
            reader, writer = await asyncio.open_connection(
                *place,
                ssl=direct,
                server_hostname=name if direct else None,
                happy_eyeballs_delay=_NEXT_ADDRESS_AFTER_S,
            )
            if proxy is not None and context is not None:
                await _tunnel(proxy, URL(origin), reader, writer)
                await writer.start_tls(context, server_hostname=name)
        return _seen(host, writer.get_extra_info("ssl_object"))
    except ssl.SSLError as error:
        raise RunError(explain_handshake(host, port, error)) from error
    except OSError as error:
        where = f"the proxy {proxy.place} ({proxy.variable})" if proxy else f"{host} on port {port}"
        raise RunError(
            f"no connection to {where}: {_reason(error)}; check the URL, and whether a firewall or "
            "a proxy is in the way"
        ) from error
    finally:
        if writer is not None:
            writer.transport.abort()


async def _tunnel(
    proxy: Proxy, target: URL, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Ask a proxy for a connection to a server (RFC 9110, section 9.3.6). Raises RunError."""
    place = f"{target.host_subcomponent}:{target.port}"
    headers = "".join(f"{name}: {value}\r\n" for name, value in proxy.headers.items())
    writer.write(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{headers}\r\n".encode())
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        head = "no answer"
    if head.split()[1:2] != ["200"]:
        raise RunError(
            f"the proxy {proxy.place} ({proxy.variable}) makes no connection to {place}: "
            f"{head.splitlines()[0][:100]}; check its address, user and password"
        )


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
