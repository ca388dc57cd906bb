"""Certificates that a test CA signs."""

import ssl
from datetime import datetime
from pathlib import Path

import trustme


def certified(
    folder: Path, name: str, not_after: datetime | None = None
) -> tuple[ssl.SSLContext, Path]:
    """Return the server's certificate for this name, and the file with the CA that signed it."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, not_after=not_after).configure_cert(context)
    file = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return context, file
