"""Whose certificates are trusted: the machine's, read when a request goes over https, once."""

import os
import ssl
from typing import Final

from etl.model.errors import RunError

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
