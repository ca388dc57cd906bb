"""Which proxy the environment names for a server: HTTP_PROXY, HTTPS_PROXY and NO_PROXY."""

import os
from base64 import b64encode
from dataclasses import dataclass, field
from urllib.request import getproxies_environment, proxy_bypass

from yarl import URL


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

    Names are read as urllib reads them: in lower case too, which wins.
    """
    name = f"{url.scheme}_proxy"
    found = getproxies_environment().get(url.scheme)
    if not found or proxy_bypass(url.host or ""):
        return None
    variable = name if os.environ.get(name) else name.upper()
    return Proxy(variable, URL(found if "://" in found else f"http://{found}"))
