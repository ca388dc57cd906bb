"""How a server is reached: the proxy in between, the certificates to trust, a first connection."""

import asyncio
import os
import socket
import ssl
from base64 import b64encode
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.request import getproxies_environment, proxy_bypass

import aiohttp
from yarl import URL

from etl.model.errors import RunError
from etl.model.machine import is_loopback

# X509_V_ERR_… of OpenSSL: the certificate is not for this host name or address; it has expired.
_OTHER_HOST: Final = {62, 64}
_EXPIRED: Final = 10
# OpenSSL's reasons if the other side does not speak TLS, or only versions that we do not speak.
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
_EXPIRES_SOON: Final = timedelta(days=14)
# RFC 8305, "Happy Eyeballs": if IPv6 gets no answer, try IPv4 after this time.
_NEXT_ADDRESS_AFTER_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy and the variable that names it; its URL may hold a password."""

    variable: str
    url: URL = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """The header that authenticates us to the proxy, if its URL has a user."""
        if not self.url.user:
            return {}
        credentials = f"{self.url.user}:{self.url.password or ''}".encode()
        return {"Proxy-Authorization": f"Basic {b64encode(credentials).decode()}"}

    @property
    def place(self) -> str:
        """The proxy's host and port, for people."""
        return f"{self.url.host}:{self.url.port}"

    def __str__(self) -> str:
        return f"the proxy {self.place} ({self.variable})"


def proxy_for(url: URL) -> Proxy | None:
    """Return the proxy that the environment names for this URL; None if NO_PROXY has its host.

    The variables are HTTP_PROXY and HTTPS_PROXY. As in urllib, their lower-case forms win. Raises
    RunError if the value is not a proxy's URL; the value is not shown, it may hold a password.
    """
    name = f"{url.scheme}_proxy"
    value = getproxies_environment().get(url.scheme)
    if not value or proxy_bypass(url.host or ""):
        return None
    variable = name if os.environ.get(name) else name.upper()
    try:
        proxy = URL(value if "://" in value else f"http://{value}")
        usable = proxy.scheme == "http" and bool(proxy.host) and proxy.port is not None
    except ValueError:
        usable = False
    if not usable:
        raise RunError(f"{variable}: names no proxy that can be used; write http://host:port")
    return Proxy(variable, proxy)


def proxy_variables() -> list[str]:
    """Return the environment variables that name a proxy for any scheme."""
    names = ("http_proxy", "https_proxy", "all_proxy")
    return [each for name in names for each in (name, name.upper()) if os.environ.get(each)]


def import_aiohttp() -> None:
    """Import aiohttp without the machine's certificates; only for a process that is our own.

    aiohttp reads them twice when it is imported: 45 of the 320 ms before the first request. Its
    default contexts then trust no server: requests use what `trusted_certificates` returns.
    """
    given = os.environ.get("SSL_CERT_FILE")
    os.environ["SSL_CERT_FILE"] = os.devnull
    try:
        import aiohttp  # noqa: F401, PLC0415
    finally:
        del os.environ["SSL_CERT_FILE"]
        if given is not None:
            os.environ["SSL_CERT_FILE"] = given


def trusted_certificates() -> ssl.SSLContext:
    """Read the certificates to trust from disk, in about 20 ms.

    They are the machine's, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name. Raises RunError
    if these name none: no server would be trusted.
    """
    try:
        if file := os.environ.get("SSL_CERT_FILE"):
            ssl.create_default_context(cafile=file)
        if (folder := os.environ.get("SSL_CERT_DIR")) and not any(
            os.path.isdir(each)  # noqa: PTH112 - as OpenSSL reads it
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
    """Return why a TLS handshake failed, and what to do."""
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
    """Return whether the next handshake may succeed."""
    return not isinstance(error, ssl.SSLCertVerificationError) and error.reason not in _NO_TLS


async def resolve(origin: str, proxy: Proxy | None, timeout_s: float) -> str:
    """Look up the name of `https://host`, or of the proxy; return the origin and what was found.

    A name behind a proxy is the proxy's to look up. Raises RunError.
    """
    url = proxy.url if proxy else URL(origin)
    host = url.raw_host or ""
    try:
        async with asyncio.timeout(timeout_s):
            found = await asyncio.get_running_loop().getaddrinfo(
                host, url.port, type=socket.SOCK_STREAM
            )
    except (OSError, UnicodeError) as error:
        raise RunError(
            f"the name {host} cannot be looked up: {_reason(error)}; check it, and this machine's "
            "DNS"
        ) from error
    if proxy:
        return f"{origin} (by the proxy {proxy.place}, {proxy.variable})"
    address = str(found[0][4][0])
    return origin if address == host else f"{origin} ({address})"


async def connect_once(origin: str, proxy: Proxy | None, timeout_s: float) -> str:
    """Connect to `https://host` as a request does, then close; return what was seen.

    The certificate is verified as for requests. Raises RunError.
    """
    target = URL(origin)
    host, port = target.raw_host or "", target.port or 0
    first = proxy.url if proxy else target
    context = trusted_certificates() if target.scheme == "https" else None
    name = host.rstrip(".")
    direct = context if proxy is None else None
    writer = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(
                first.raw_host,
                first.port,
                ssl=direct,
                server_hostname=name if direct else None,
                happy_eyeballs_delay=_NEXT_ADDRESS_AFTER_S,
            )
            if proxy is not None and context is not None:
                await _open_tunnel(proxy, target, reader, writer)
                await writer.start_tls(context, server_hostname=name)
        return _describe_connection(host, writer.get_extra_info("ssl_object"))
    except ssl.SSLError as error:
        raise RunError(explain_handshake(host, port, error)) from error
    except OSError as error:
        raise RunError(
            f"no connection to {proxy or f'{host} on port {port}'}: {_reason(error)}; check the "
            "URL, and whether a firewall or a proxy is in the way"
        ) from error
    finally:
        if writer is not None:
            writer.transport.abort()


async def _open_tunnel(
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
            f"{proxy} makes no connection to {place}: {head.splitlines()[0][:100]}; check its "
            "address, user and password"
        )


def _describe_connection(host: str, tls: ssl.SSLObject | None) -> str:
    if tls is None:
        if is_loopback(host):
            return f"connected to {host}; plain http, which does not leave this machine"
        return f"connected to {host}; plain http: the keys can be read on the way"
    version = f"{tls.version()} with {host}"
    expires = (tls.getpeercert() or {}).get("notAfter")
    if not isinstance(expires, str):
        return version
    until = datetime.fromtimestamp(ssl.cert_time_to_seconds(expires), UTC)
    soon = ", which is soon" if until - datetime.now(UTC) < _EXPIRES_SOON else ""
    return f"{version}, its certificate is good until {until:%Y-%m-%d}{soon}"


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "nothing came in time (fetch.timeout)"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return str(getattr(error, "strerror", None) or error)


def ended_before_response(cause: Exception) -> bool:
    """Return whether a connection ended before the first byte of the response."""
    if isinstance(cause, aiohttp.ServerDisconnectedError):
        return isinstance(cause.message, str)  # otherwise it is the part of the head that came
    return isinstance(cause, aiohttp.ClientOSError | ConnectionError)


def explain_connection_error(cause: Exception, proxy: Proxy | None) -> tuple[str, bool]:
    """Return what went wrong before the response, and whether to try again."""
    by = f" by {proxy}" if proxy else ""
    match cause:
        case aiohttp.ClientHttpProxyError():
            # Its own text has the proxy's URL.
            return f"no connection{by}: it answers with status {cause.status}", cause.status >= 500
        case (
            aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLError() as error)
            | aiohttp.ClientConnectorError(os_error=ssl.SSLError() as error)
        ):
            return explain_handshake(cause.host, cause.port or 443, error), may_pass(error)
        case aiohttp.ClientConnectorDNSError():
            reason = "the name cannot be looked up"
        case aiohttp.ClientConnectorError():
            number = cause.os_error.errno or 0
            reason = os.strerror(number).lower() if number > 0 else str(cause.os_error)
        case _:
            return f"no answer: {cause or type(cause).__name__}", True
    place = f"{cause.host}:{cause.port}{by}"
    advice = f"check {proxy.variable}" if proxy else "check api.base_url"
    return f"no connection to {place}: {reason}; {advice} and the network (aht-etl check)", True
