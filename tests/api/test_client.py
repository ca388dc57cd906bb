"""The vendor's hosts, as the Domain API names them."""

from typing import Any

import pytest
from aiohttp import web

from etl.api.client import AGENT_ACTIVITY, SENTINEL, look_up
from etl.model.errors import RunError
from tests.api.servers import serving, transport

HOSTS = [
    ({"service": "x", "account": "a1", "baseURI": "va.api.example"}, "https://va.api.example"),
    ({"baseURI": "va.api.example:8443"}, "https://va.api.example:8443"),
    ({"baseURI": "127.0.0.1:99"}, "http://127.0.0.1:99"),
    ({"baseURI": "[::1]:99"}, "http://[::1]:99"),
    ({"baseURI": "LocalHost.:99"}, "http://LocalHost:99"),
    (
        {
            "baseURIs": [
                {"service": "sentinel", "baseURI": "s.example"},
                {"service": "agentActivityDomain", "baseURI": "a.example"},
            ]
        },
        "https://a.example",
    ),
]


@pytest.mark.parametrize(("answer", "origin"), HOSTS)
async def test_hosts_that_are_looked_up(answer: Any, origin: str) -> None:
    """The scheme is https; on loopback it is the Domain API's own."""

    async def handle(_: web.Request) -> web.Response:
        return web.json_response({**answer} if "service" not in answer else {**answer, **NAMED})

    async with serving(handle) as server, transport() as opened:
        assert origin == await look_up(opened, server.url, "a1", AGENT_ACTIVITY)
        (request,) = server.requests
        expected = "/api/account/a1/service/agentActivityDomain/baseURI.json?version=1.0"
        assert expected == request.path_qs


NAMED = {"service": AGENT_ACTIVITY}


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        None,
        {"baseURI": None},
        {"baseURI": ""},
        {"baseURI": "https://a.example"},
        {"baseURI": "a.example/path"},
        {"baseURI": "user@a.example"},
        {"baseURI": "a.example:99999"},
        {"baseURI": "[::::]"},
        {"baseURIs": [{"service": "other", "baseURI": "a.example"}]},
        {"service": "other", "baseURI": "a.example"},
    ],
)
async def test_answers_that_name_no_host(answer: Any) -> None:
    """They end the run; the error says what to check."""

    async def handle(_: web.Request) -> web.Response:
        return web.json_response(answer)

    async with serving(handle) as server, transport() as opened:
        with pytest.raises(RunError, match="names no host; check account"):
            await look_up(opened, server.url, "a1", SENTINEL)


async def test_a_web_page_instead_of_a_look_up() -> None:
    """The error says that it is a web page, and what to check."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(text="<html>Please log in</html>", content_type="text/html")

    async with serving(handle) as server, transport() as opened:
        with pytest.raises(RunError, match=r"a web page, not the API's answer.*; check account"):
            await look_up(opened, server.url, "a1", SENTINEL)
