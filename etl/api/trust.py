"""Whose certificates are trusted: the machine's, read when a request goes over https, once."""

import os
import ssl


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

    `SSL_CERT_FILE` and `SSL_CERT_DIR` name the certificates, if not the machine's.
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
