"""How a server is reached: the proxy in between, the certificates to trust, why it is not."""

import asyncio
import errno
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

from etl.model.errors import FailureKind, RunError
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

    def __str__(self) -> str:
        return f"the proxy {self.url.host}:{self.url.port} ({self.variable})"


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
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, TimeoutError):
            reason = "nothing came in time (fetch.timeout)"
        raise RunError(
            f"the name {host} cannot be looked up: {reason}; check it, and this machine's DNS"
        ) from error
    if proxy:
        return f"{origin}, by {proxy}"
    address = str(found[0][4][0])
    return origin if address == host else f"{origin} ({address})"


def describe_connection(host: str, connection: asyncio.BaseTransport | None) -> str:
    """Return how safe a connection is, and how long the server's certificate is good."""
    tls = connection.get_extra_info("ssl_object") if connection else None
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


def was_closed_before(cause: Exception) -> bool:
    """Return whether the server may have closed a kept connection before the request reached it.

    Then it ends in order, without a byte of a response. A server that resets the connection has
    seen the request.
    """
    if isinstance(cause, aiohttp.ServerDisconnectedError):
        return isinstance(cause.message, str)  # otherwise it is the part of the head that came
    return isinstance(cause, aiohttp.ClientConnectionResetError) or (
        isinstance(cause, OSError) and cause.errno == errno.EPIPE
    )


def explain_connection_error(
    cause: Exception, proxy: Proxy | None
) -> tuple[FailureKind, str, bool]:
    """Return what went wrong before the response could be read, and whether to try again."""
    kind = FailureKind.CONNECTION
    match cause:
        case aiohttp.ClientHttpProxyError():
            # Its own text has the proxy's URL.
            message = f"no connection by {proxy}: it answers with status {cause.status}"
            return kind, message, cause.status >= 500
        case aiohttp.ClientResponseError():
            # After the first paragraph, its own text has bytes of the answer, which may be rows.
            reason = " ".join(cause.message.partition("\n\n")[0].split())
            return FailureKind.CORRUPT, f"the answer breaks the rules of HTTP: {reason}", True
        case (
            aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLError() as error)
            | aiohttp.ClientConnectorError(os_error=ssl.SSLError() as error)
        ):
            return kind, *_explain_handshake(cause.host, cause.port or 443, error)
        case aiohttp.ClientConnectorDNSError():
            reason = "the name cannot be looked up"
        case aiohttp.ClientConnectorError():
            number = cause.os_error.errno or 0
            reason = os.strerror(number).lower() if number > 0 else str(cause.os_error)
        case aiohttp.ServerDisconnectedError():
            # Its own text has the part of the head that came.
            return kind, "no answer: the server closed the connection", True
        case _:
            return kind, f"no answer: {cause or type(cause).__name__}", True
    place = proxy or f"{cause.host}:{cause.port}"
    advice = f"check {proxy.variable}" if proxy else "check api.base_url"
    message = f"no connection to {place}: {reason}; {advice} and the network (aht-etl check)"
    return kind, message, True


def _explain_handshake(host: str, port: int, error: ssl.SSLError) -> tuple[str, bool]:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _OTHER_HOST:
            advice = "check the URL, and whether a proxy is in the way"
        elif error.verify_code == _EXPIRED:
            advice = "check this machine's clock; if it is right, the server needs a new one"
        else:
            advice = "if your network has a CA of its own, name its file in SSL_CERT_FILE"
        shows = f"{host} shows a certificate that is not trusted: {error.verify_message}"
        return f"{shows}; {advice}", False
    reason = (error.reason or str(error)).replace("_", " ").lower()
    return (
        f"{host} does not speak TLS on port {port}: {reason}; check the URL, and whether a proxy "
        "is in the way"
    ), error.reason not in _NO_TLS
