"""Hosts in all spellings, proxies, and the first connection of a check."""

import asyncio
import base64
import hashlib
import hmac
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote

import pytest

from etl.api.auth import OAuth1
from etl.api.transport import Transport
from etl.config.sections import ApiSettings, AuthSettings
from etl.model.errors import FailureKind, FileError, RunError
from tests.api.servers import sockets, transport
from tests.certificates import certified

KEYS = {
    "consumer_key": "invented-key",
    "consumer_secret": "invented-secret",
    "access_token": "invented-token",
    "access_token_secret": "invented-token-secret",
}
TARGET = "/api/files?path=/year=2022/month=6/x.json.gz&source=aht_etl"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the proxies of this machine."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@dataclass
class Heard:
    """A server's port, and the heads of the requests that it received."""

    port: int = 0
    heads: list[str] = field(default_factory=list)

    def header(self, name: str) -> str:
        """Return a header of the only request."""
        (head,) = self.heads
        found = re.search(rf"(?im)^{name}: (.*?)\r$", head)
        return found[1] if found else ""


@asynccontextmanager
async def listening(host: str, to: int | None = None) -> AsyncIterator[Heard]:
    """Answer each request; as a proxy, connect each CONNECT request to the port `to`."""
    heard = Heard()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(2**16):
            writer.write(piece)
        writer.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        heard.heads.append(head)
        if head.startswith("CONNECT") and to is not None:
            there = await asyncio.open_connection("127.0.0.1", to)
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))
            return
        status = b"403 No" if head.startswith("CONNECT") else b"200 OK"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    async with sockets(handle, host) as heard.port:
        yield heard


async def ask(opened: Transport, url: str) -> bytes:
    """Send a signed request."""
    async with opened.get(url, OAuth1(AuthSettings.model_validate(KEYS))) as answer:
        return b"".join([chunk async for chunk in answer.chunks])


def assert_signed(heard: Heard, scheme: str, target: str) -> None:
    """Fail unless the signature is that of the URL that the server sees (RFC 5849, section 3.4.1).

    Its host is the header's, in small letters, without the scheme's own port.
    """
    given = dict(re.findall(r'(\w+)="([^"]*)"', heard.header("Authorization")))
    path, _, query = target.partition("?")
    parameters = [(quote(k, safe="~"), quote(v, safe="~")) for k, v in parse_qsl(query)]
    parameters += [(key, value) for key, value in given.items() if key != "oauth_signature"]
    normal = "&".join(f"{key}={value}" for key, value in sorted(parameters))
    host = heard.header("Host").lower().removesuffix(":80" if scheme == "http" else ":443")
    base = "&".join(quote(part, safe="~") for part in ("GET", f"{scheme}://{host}{path}", normal))
    key = f"{KEYS['consumer_secret']}&{KEYS['access_token_secret']}".encode()
    signature = hmac.new(key, base.encode(), hashlib.sha1).digest()
    assert base64.b64encode(signature).decode() == unquote(given["oauth_signature"])


def listens(host: str) -> bool:
    """Return whether a name or address is this machine."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as opened:
            opened.bind(address)
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "sent"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("LocalHost", "localhost"),
        ("localhost.", "localhost"),
        ("[::1]", "[::1]"),
        ("[0:0:0:0:0:0:0:1]", "[::1]"),
    ],
)
async def test_what_is_signed_is_what_is_sent(host: str, sent: str) -> None:
    """Also with a last dot, in capital letters, and for an address in any form."""
    name = host.strip("[]")
    if not listens(name):
        pytest.skip(f"{name} is not this machine")
    async with listening(name) as heard, transport() as opened:
        assert await ask(opened, f"http://{host}:{heard.port}{TARGET}") == b"ok"
    assert heard.header("Host") == f"{sent}:{heard.port}"
    assert_signed(heard, "http", TARGET)


@pytest.mark.parametrize(
    ("host", "sent"),
    [
        ("api.example", "api.example"),
        ("API.Example.", "api.example"),
        ("api.example:80", "api.example"),
        ("api.example:8080", "api.example:8080"),
        ("[FE80:0::1]:80", "[fe80::1]"),
    ],
)
async def test_a_proxy_gets_what_is_signed(
    monkeypatch: pytest.MonkeyPatch, host: str, sent: str
) -> None:
    """It forwards the host of the target; only the proxy gets its own user and password."""
    async with listening("127.0.0.1") as heard, transport(use_proxy=True) as opened:
        monkeypatch.setenv("HTTP_PROXY", f"http://me:pass%20word@127.0.0.1:{heard.port}")
        assert await ask(opened, f"http://{host}{TARGET}") == b"ok"
    assert heard.heads[0].split()[:2] == ["GET", f"http://{sent}{TARGET}"]
    assert heard.header("Host") == sent
    expected = base64.b64encode(b"me:pass word").decode()
    assert heard.header("Proxy-Authorization") == f"Basic {expected}"
    assert_signed(heard, "http", TARGET)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://LocalHost.:99/", "http://LocalHost:99"),
        ("http://localhost.", "http://localhost"),
        ("http://[0:0:0:0:0:0:0:1]:99", "http://[0:0:0:0:0:0:0:1]:99"),
        ("https://api.example.:443/", "https://api.example.:443"),
        ("https://localhost.example.", "https://localhost.example."),
    ],
)
def test_a_full_name_of_this_machine_is_looked_up_without_its_dot(url: str, origin: str) -> None:
    """Some resolvers do not know it with the dot. Plain http is allowed. Other names stay."""
    assert ApiSettings(base_url=url).base_url == origin


@pytest.mark.parametrize("no_proxy", ["127.0.0.1", "*", "other.example,127.0.0.1"])
async def test_no_proxy_is_obeyed(monkeypatch: pytest.MonkeyPatch, no_proxy: str) -> None:
    """Requests to its hosts go directly, and all requests do without `use_proxy`."""
    async with listening("127.0.0.1") as heard:
        url = f"http://127.0.0.1:{heard.port}{TARGET}"
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        async with transport() as opened:
            assert await ask(opened, url) == b"ok"
        async with transport(use_proxy=True) as opened:
            with pytest.raises(FileError, match=r"to the proxy 127.0.0.1:1 \(HTTP_PROXY\)"):
                await ask(opened, url)
            monkeypatch.setenv("NO_PROXY", no_proxy)
            assert await ask(opened, url) == b"ok"


@pytest.mark.parametrize("named", ["socks5://127.0.0.1:1", "::::", "http://", "http://a:b:c/"])
async def test_an_invalid_proxy_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """The error does not show its value, which may hold a password."""
    monkeypatch.setenv("HTTP_PROXY", named)
    async with transport(use_proxy=True) as opened:
        with pytest.raises(RunError, match=r"^HTTP_PROXY: names no proxy that can be used; write"):
            await ask(opened, "http://api.example/")


@dataclass
class Tunnel:
    """A transport, a proxy that connects it to a server that speaks TLS, and one that refuses."""

    opened: Transport
    proxy: Heard
    refusing: Heard


@pytest.fixture
async def tunnel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Tunnel]:
    """Serve api.example, whose certificate is trusted, behind both proxies."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        writer.close()

    context, authority = certified(tmp_path, "api.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    async with (
        sockets(answer, tls=context) as port,
        listening("127.0.0.1", port) as proxy,
        listening("127.0.0.1") as refusing,
        transport(use_proxy=True) as opened,
    ):
        yield Tunnel(opened, proxy, refusing)


async def test_https_goes_through_a_tunnel(monkeypatch: pytest.MonkeyPatch, tunnel: Tunnel) -> None:
    """The server's certificate is verified; an error names the proxy without its password."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{tunnel.proxy.port}")
    assert await ask(tunnel.opened, f"https://api.example{TARGET}") == b"ok"
    assert tunnel.proxy.heads[0].startswith("CONNECT api.example:443 HTTP/1.1")
    assert "Authorization" not in tunnel.proxy.heads[0]
    with pytest.raises(FileError, match=r"not trusted: .*other\.example") as caught:
        await ask(tunnel.opened, f"https://other.example{TARGET}")
    assert (FailureKind.CONNECTION, False) == (caught.value.kind, caught.value.retryable)
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:hidden-word@127.0.0.1:{tunnel.refusing.port}")
    with pytest.raises(FileError, match="answers with status 403") as caught:
        await ask(tunnel.opened, f"https://api.example{TARGET}")
    assert (False, False) == (caught.value.retryable, "hidden-word" in caught.value.message)


async def test_a_check_shakes_hands_through_the_tunnel(
    monkeypatch: pytest.MonkeyPatch, tunnel: Tunnel
) -> None:
    """As requests do. If the proxy refuses, its reason is shown, without the password."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:word@127.0.0.1:{tunnel.proxy.port}")
    assert "with api.example" in await tunnel.opened.connect_once("https://api.example")
    assert tunnel.proxy.header("Proxy-Authorization") == "Basic bWU6d29yZA=="
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:hidden-word@127.0.0.1:{tunnel.refusing.port}")
    with pytest.raises(FileError, match=r"\(HTTPS_PROXY\): .* status 403") as caught:
        await tunnel.opened.connect_once("https://api.example")
    assert "hidden-word" not in str(caught.value)
