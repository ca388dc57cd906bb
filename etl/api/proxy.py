"""Which proxy the environment names for a server: HTTP_PROXY, HTTPS_PROXY and NO_PROXY."""

import os
from base64 import b64encode
from dataclasses import dataclass, field
from urllib.request import getproxies_environment, proxy_bypass

from yarl import URL

from etl.model.errors import RunError


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
