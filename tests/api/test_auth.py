"""OAuth 2.0 tokens and OAuth 1.0a signatures."""

import asyncio
import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from etl.api.auth import OAuth1, OAuth2, parse_token
from etl.api.errors import UnauthorizedError
from etl.api.transport import Transport
from etl.config.sections import AuthSettings
from etl.model.errors import RunError
from tests.api.servers import serving, transport

URL = "http://127.0.0.1:1/files?path=/year=2022/month=6/x.json.gz&source=aht_etl"


def jwt(**claims: Any) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{payload}.c2ln"


class Server:
    """A token server that lets other tasks run before it returns a token."""

    def __init__(self, life_s: float) -> None:
        self.life_s = life_s
        self.asked = 0
        self.now = 0.0

    async def request(self) -> dict[str, Any]:
        self.asked += 1
        number = self.asked
        await asyncio.sleep(0)
        return {"access_token": f"token-{number}", "expires_in": self.life_s}

    def clock(self) -> float:
        return self.now


async def test_one_renewal_serves_all() -> None:
    """Many workers that need a token at once get the same one."""
    server = Server(3600)
    auth = OAuth2(server.request, server.clock, lambda _: None)
    headers = await asyncio.gather(*(auth.header(URL) for _ in range(50)))
    assert set(headers) == {"Bearer token-1"}
    assert server.asked == 1


@pytest.mark.parametrize(("life_s", "renewed_at"), [(3600, 3540), (10, 8)])
async def test_renewed_before_it_ends(life_s: float, renewed_at: float) -> None:
    """The token is renewed when a fifth of its life, at most 60 s, is left."""
    server = Server(life_s)
    auth = OAuth2(server.request, server.clock, lambda _: None)
    await auth.header(URL)
    server.now = renewed_at - 0.01
    assert await auth.header(URL) == "Bearer token-1"
    server.now = renewed_at
    assert await auth.header(URL) == "Bearer token-2"


async def test_many_401s_renew_once() -> None:
    """Workers whose old token was refused share one new token."""
    server = Server(3600)
    auth = OAuth2(server.request, server.clock, lambda _: None)
    old = await auth.header(URL)

    async def again() -> str:
        assert await auth.refused(old)
        return await auth.header(URL)

    assert set(await asyncio.gather(*(again() for _ in range(16)))) == {"Bearer token-2"}
    assert server.asked == 2


async def test_a_renewal_that_is_under_way_is_waited_for() -> None:
    """A new token may end the old one before it arrives: no second token is fetched."""
    server = Server(3600)
    auth = OAuth2(server.request, server.clock, lambda _: None)
    old = await auth.header(URL)
    server.now = 3600
    renewal = asyncio.ensure_future(auth.header(URL))
    await asyncio.sleep(0)
    assert (await auth.refused(old), await renewal) == (3, "Bearer token-2")
    assert await auth.header(URL) == "Bearer token-2"
    assert await auth.refused("Bearer token-2") == 1
    assert server.asked == 2


@pytest.mark.parametrize(
    ("answer", "life_s"),
    [
        ({"access_token": "t", "expires_in": "100"}, 100),
        ({"access_token": "t", "expires_in": 100}, 100),
        ({"access_token": "t"}, float("inf")),
        ({"access_token": "t", "expires_in": None}, float("inf")),
        ({"access_token": "a.b.c", "expires_in": "soon"}, float("inf")),
        ({"access_token": jwt(sub="x")}, float("inf")),
    ],
)
def test_the_life_of_a_token(answer: dict[str, Any], life_s: float) -> None:
    """The life is a number or a string; without it, the token is used until it is refused."""
    assert parse_token(answer) == (answer["access_token"], life_s)


def test_the_jwt_itself_says_when_it_ends() -> None:
    """Without `expires_in` the token's own `exp` counts."""
    _, life_s = parse_token({"access_token": jwt(exp=datetime.now(UTC).timestamp() + 1000)})
    assert life_s == pytest.approx(1000, abs=5)


@pytest.mark.parametrize("behind_s", [0, 10**6, -(10**6)])
def test_a_token_ends_by_its_own_life_whatever_this_clock_says(behind_s: int) -> None:
    """A clock that is set back does not make a token valid forever, nor one that is ahead."""
    issued_at = datetime.now(UTC).timestamp() + behind_s
    _, life_s = parse_token({"access_token": jwt(iat=issued_at, exp=issued_at + 1000)})
    assert life_s == pytest.approx(1000, abs=5)


@pytest.mark.parametrize("answer", [None, [], {}, {"access_token": 1}, {"access_token": "a\nb"}])
def test_no_token_is_an_error(answer: Any) -> None:
    """A response without a usable token ends the run; the error does not quote it."""
    with pytest.raises(RunError, match="access_token"):
        parse_token(answer)


async def test_every_signature_is_new() -> None:
    """Signing the same URL twice gives two nonces and two signatures."""
    keys = {
        "consumer_key": "ck",
        "consumer_secret": "cs",
        "access_token": "at",
        "access_token_secret": "ats",
    }
    auth = OAuth1(AuthSettings.model_validate(keys))
    first, second = await auth.header(URL), await auth.header(URL)
    assert first.startswith("OAuth ")
    assert first != second
    assert await auth.refused(first) == 0


async def ask(opened: Transport, url: str, auth: OAuth2) -> None:
    """Send a request with the vendor's retry policy."""
    async for attempt in opened.attempts(url):
        with attempt:
            async with opened.get(url, auth):
                pass


async def test_a_request_outlives_the_tokens_that_end_while_it_is_in_flight() -> None:
    """If the server ends the old token for each new one, the request is sent with the newer one."""
    tokens = Server(3600)
    arrived = asyncio.Event()
    let_go = asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        sent = request.headers["Authorization"]
        if request.path == "/slow":
            arrived.set()
            await let_go.wait()
        return web.Response(status=200 if sent == f"Bearer token-{tokens.asked}" else 401)

    async with serving(handle) as server, transport(clock=tokens.clock) as opened:
        auth = OAuth2(tokens.request, tokens.clock, lambda _: None)

        slow = asyncio.ensure_future(ask(opened, f"{server.url}/slow", auth))
        for number in (2, 3):
            await arrived.wait()
            arrived.clear()
            tokens.now += 3600
            await ask(opened, f"{server.url}/quick", auth)
            assert number == tokens.asked
            let_go.set()
            let_go.clear()
        await arrived.wait()
        let_go.set()
        await slow
    assert 3 == tokens.asked


async def test_a_token_that_is_fetched_for_a_request_and_refused_is_the_end() -> None:
    """A 401 to each token: the request fetches a second token, but no third one."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=401)

    tokens = Server(3600)
    auth = OAuth2(tokens.request, tokens.clock, lambda _: None)
    async with serving(handle) as server, transport() as opened:
        with pytest.raises(UnauthorizedError) as caught:
            await ask(opened, server.url, auth)
    assert (2, 2) == (tokens.asked, caught.value.attempts)
