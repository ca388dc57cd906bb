"""Which proxy the environment names for a server: HTTP_PROXY, HTTPS_PROXY and NO_PROXY."""

import os
from base64 import b64encode
from dataclasses import dataclass, field
from urllib.request import getproxies_environment, proxy_bypass

from yarl import URL

from etl.errors import RunError


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

    Raises RunError where what is named is no URL of a proxy; its text is not shown, since it may
    hold a password.
    """
    variable = proxy_variable(url)
    if variable is None:
        return None
    named = os.environ[variable]
    try:
        proxy = URL(named if "://" in named else f"http://{named}")
        usable = proxy.scheme == "http" and bool(proxy.host) and proxy.port is not None
    except ValueError:
        usable = False
    if not usable:
        raise RunError(f"{variable}: names no proxy that can be used; write http://host:port")
    return Proxy(variable, proxy)


def proxy_variable(url: URL) -> str | None:
    """Return the variable that names a proxy for this URL, if any does.

    Names are read as urllib reads them: in small letters too, which win.
    """
    name = f"{url.scheme}_proxy"
    if not getproxies_environment().get(url.scheme) or proxy_bypass(url.host or ""):
        return None
    return name if os.environ.get(name) else name.upper()
