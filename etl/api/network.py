"""How a server is reached: the proxy in between, the certificates to trust, a first connection."""

import asyncio
import os
import socket
import ssl
from base64 import b64encode
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from yarl import URL

from etl.model.errors import RunError
from etl.model.machine import is_loopback

# X509_V_ERR_… of OpenSSL: the host's name, or its address, is not in the certificate; its end.
_OTHER_HOST: Final = {62, 64}
_EXPIRED: Final = 10
# What OpenSSL says where the other side does not speak TLS, or none of its versions that we speak.
_NO_TLS: Final = {
    "HTTP_REQUEST",
    "NO_PROTOCOLS_AVAILABLE",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
    "TLSV1_ALERT_PROTOCOL_VERSION",
    "UNKNOWN_PROTOCOL",
    "UNSUPPORTED_PROTOCOL",
    "WRONG_VERSION_NUMBER",
}
_PORTS: Final = {"https": 443, "http": 80}
_SOON: Final = timedelta(days=14)
# RFC 8305, "Happy Eyeballs": where IPv6 leads nowhere, IPv4 is not waited for.
_NEXT_ADDRESS_AFTER_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy and the variable that names it; its URL may hold a password."""

    variable: str
    url: URL = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """What tells the proxy who is calling, if its URL has a user."""
        if not self.url.user:
            return {}
        credentials = f"{self.url.user}:{self.url.password or ''}".encode()
        return {"Proxy-Authorization": f"Basic {b64encode(credentials).decode()}"}

    @property
    def place(self) -> str:
        """The proxy's host and port, for people."""
        return f"{self.url.host}:{self.url.port}"


def proxy_for(url: URL) -> Proxy | None:
    """Return the proxy that the environment names for this URL, unless NO_PROXY exempts its host.

    Names are read as urllib reads them: in small letters too, which win. Raises RunError where what
    is named is no URL of a proxy; its text is not shown, since it may hold a password.
    """
    name = f"{url.scheme}_proxy"
    named = getproxies_environment().get(url.scheme)
    if not named or proxy_bypass(url.host or ""):
        return None
    variable = name if os.environ.get(name) else name.upper()
    try:
        proxy = URL(named if "://" in named else f"http://{named}")
        usable = proxy.scheme == "http" and bool(proxy.host) and proxy.port is not None
    except ValueError:
        usable = False
    if not usable:
        raise RunError(f"{variable}: names no proxy that can be used; write http://host:port")
    return Proxy(variable, proxy)


def variables_set() -> list[str]:
    """Return the variables that name a proxy, whatever it is for."""
    names = ("http_proxy", "https_proxy", "all_proxy")
    return [each for name in names for each in (name, name.upper()) if os.environ.get(each)]


def import_aiohttp() -> None:
    """Import aiohttp without the machine's certificates; for a process that is this package's.

    aiohttp reads them when it is imported, twice: 45 of the 320 ms before the first request. Its
    own defaults trust nobody then: requests bring what `trusted` returns.
    """
    given = os.environ.get("SSL_CERT_FILE")
    os.environ["SSL_CERT_FILE"] = os.devnull
    try:
        import aiohttp  # noqa: F401, PLC0415
    finally:
        del os.environ["SSL_CERT_FILE"]
        if given is not None:
            os.environ["SSL_CERT_FILE"] = given


def trusted() -> ssl.SSLContext:
    """Return what judges a server; it is read from disk, some 20 ms.

    `SSL_CERT_FILE` and `SSL_CERT_DIR` name the certificates, if not the machine's. Raises RunError
    where there are none by these names: nobody would be trusted.
    """
    try:
        if file := os.environ.get("SSL_CERT_FILE"):
            ssl.create_default_context(cafile=file)
        if (folder := os.environ.get("SSL_CERT_DIR")) and not any(
            os.path.isdir(each)  # noqa: PTH112 - as OpenSSL takes it
            for each in folder.split(os.pathsep)
        ):
            raise RunError(f"SSL_CERT_DIR={folder}: there is no such folder; correct or unset it")
    except OSError as error:
        reason = "holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise RunError(
            f"SSL_CERT_FILE={file}: {reason}; name the file of the certificates to trust, or "
            "unset it"
        ) from error
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def explain_handshake(host: str, port: int, error: ssl.SSLError) -> str:
    """Return why there is no TLS connection, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _OTHER_HOST:
            advice = "check the URL, and whether a proxy is in the way"
        elif error.verify_code == _EXPIRED:
            advice = "check this machine's clock; if it is right, the server needs a new one"
        else:
            advice = "if your network has a CA of its own, name its file in SSL_CERT_FILE"
        return f"{host} shows a certificate that is not trusted: {error.verify_message}; {advice}"
    reason = (error.reason or str(error)).replace("_", " ").lower()
    return (
        f"{host} does not speak TLS on port {port}: {reason}; check the URL, and whether a proxy "
        "is in the way"
    )


def may_pass(error: ssl.SSLError) -> bool:
    """Tell whether a handshake that failed may succeed the next time."""
    return not isinstance(error, ssl.SSLCertVerificationError) and error.reason not in _NO_TLS


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
