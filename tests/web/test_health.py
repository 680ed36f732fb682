"""HTTP beside Socket.IO, on the whole server: health, refusals, one request per connection."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest
import trio
from quart_trio import QuartTrio

from coach.server import origin_allowed
from coach.settings import EXAMPLES
from coach.socketio import Server
from coach.web import serving as serving_module
from tests.harness import Browser, browsing, make_settings, serving
from tests.socketio.harness import RawClient, upgrade

if TYPE_CHECKING:
    from coach.server import Running

ORIGIN = "chrome-extension://abcdefghijklmnopabcdefghijklmnop"
GET = b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in EXAMPLES:
        monkeypatch.delenv(name, raising=False)


async def request(
    server: Running, path: str = "/health", method: str = "GET", **options: Any
) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
        return await http.request(method, server.url + path, **options)


async def health(server: Running) -> dict[str, Any]:
    answer = await request(server)
    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    return body


async def dial(url: str) -> RawClient:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return RawClient(await trio.open_tcp_stream(parts.hostname, parts.port))


# Health


async def test_health_is_three_fields() -> None:
    async with serving() as server:
        before = time.time_ns() // 1_000_000
        body = await health(server)
        after = time.time_ns() // 1_000_000
        timestamp = body.pop("timestamp")
        assert body == {"status": "healthy", "activeConversations": 0}
        assert isinstance(timestamp, int)
        assert before <= timestamp <= after + 1


async def test_health_counts_the_conversations_that_run() -> None:
    async def active() -> int:
        count: int = (await health(server))["activeConversations"]
        return count

    async with serving() as server:
        async with browsing(server.url) as first, browsing(server.url) as second:
            assert await active() == 0
            await first.start()
            assert await active() == 1
            await second.start()
            await second.start(agent_id="agent-2")
            assert await active() == 3
            await first.end()
            await first.expect("CONVERSATION_ENDED")
            assert await active() == 2
        assert await active() == 0


async def test_health_tells_nobody_who_is_on_the_phone() -> None:
    async with serving() as server, browsing(server.url) as browser:
        await _talk(browser)
        assert "canary" not in (await request(server)).text


async def _talk(browser: Browser) -> None:
    await browser.start(agent_id="canary-agent", agentName="canary-name")
    await browser.caller("canary-words")
    assert await browser.is_alive()


async def test_health_of_a_server_on_its_way_down() -> None:
    async with serving() as server:
        server.server.draining = True
        answer = await request(server)
        assert answer.status_code == 503
        assert answer.json().keys() == {"status", "timestamp", "activeConversations"}
        assert answer.json()["status"] == "draining"


# Other requests


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/", 404, {"error": "Not Found"}),
        ("GET", "/health/", 404, {"error": "Not Found"}),
        ("GET", "/socket.io", None, None),
        ("GET", "/%00%ff", 404, {"error": "Not Found"}),
        ("POST", "/health", 405, {"error": "Method Not Allowed"}),
        ("GET", "/socket.io/?EIO=3&transport=polling", 400, {"code": 5}),
        ("POST", "/socket.io/?EIO=4&transport=polling&sid=x", 400, {"code": 1}),
        ("GET", "/socket.io/?EIO=4&transport=websocket", 400, {"code": 3}),
    ],
)
async def test_every_answer_is_the_last_of_its_connection(
    method: str, path: str, status: int | None, body: dict[str, Any] | None
) -> None:
    async with serving() as server:
        answer = await request(server, path, method)
        assert answer.headers["connection"] == "close"
        assert "server" not in answer.headers
        if status is not None and body is not None:
            assert answer.status_code == status
            assert answer.headers["content-type"] == "application/json"
            assert answer.json().items() >= body.items()


@pytest.mark.parametrize("second", [GET, upgrade(), b"nonsense\r\n\r\n"])
@pytest.mark.parametrize(
    "first", [GET, GET.replace(b"GET", b"HEAD"), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]
)
async def test_a_second_request_on_a_connection_is_not_served(first: bytes, second: bytes) -> None:
    async with serving() as server:
        client = await dial(server.url)
        async with client.stream:
            await client.send(first, second)
            answers = await client.rest()
        assert answers.count(b"HTTP/1.1 ") == 1
        assert not server.server.sessions


@pytest.mark.parametrize(
    "headers",
    [
        b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n",
        b"UPGRADE:h2c\r\nConnection: upgrade\r\n",
        b"upgrade: h2c\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n",
        upgrade("/health").partition(b"\r\nHost: test\r\n")[2][:-2],
    ],
)
async def test_no_upgrade_is_made_beside_socket_io(headers: bytes) -> None:
    async with serving() as server:
        client = await dial(server.url)
        async with client.stream:
            await client.send(GET[:-2], headers, b"\r\n")
            assert (await client.rest()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("path", ["/health", "/nowhere", "/socket.io/"])
async def test_the_server_closes_a_connection_that_was_answered(path: str) -> None:
    """RFC 9112, 9.6: who sends `Connection: close` closes, whatever the other side does."""
    async with serving() as server:
        client = await dial(server.url)
        async with client.stream:
            await client.send(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            assert (await client.rest()).startswith(b"HTTP/1.1 ")


async def test_head_is_answered_without_a_body() -> None:
    async with serving() as server:
        answer = await request(server, method="HEAD")
        assert answer.status_code == 200
        assert int(answer.headers["content-length"]) > 0
        assert answer.content == b""


async def test_a_request_may_come_in_single_bytes() -> None:
    async with serving() as server:
        client = await dial(server.url)
        async with client.stream:
            for byte in GET:
                await client.send(bytes([byte]))
            assert (await client.rest()).startswith(b"HTTP/1.1 200 ")


async def test_a_body_is_taken_and_not_wanted() -> None:
    async with serving() as server:
        answer = await request(server, method="POST", content=b"x" * 50_000)
        assert answer.status_code == 405
        assert await health(server)


@pytest.mark.parametrize("path", ["/health", "/socket.io/", "/nowhere"])
@pytest.mark.parametrize("head", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
async def test_a_body_that_is_too_long_harms_nobody(path: str, head: str) -> None:
    async with serving() as server:
        client = await dial(server.url)
        async with client.stream:
            await client.send(f"POST {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
            chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
            await client.send(chunk)
            answer = await client.head()
            assert answer.status in (400, 404, 405, 413)
        assert await health(server)


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    ],
)
async def test_a_body_of_two_lengths_hides_no_second_request(body: bytes) -> None:
    """RFC 9112, 11.2: request smuggling."""
    async with serving() as server:
        client = await dial(server.url)
        async with client.stream:
            await client.send(b"POST /health HTTP/1.1\r\nHost: test\r\n", body, GET)
            answers = await client.rest()
        assert answers.count(b"HTTP/1.1 ") == 1
        assert b" 200 " not in answers


# Shutdown


async def test_clients_that_do_not_read_do_not_hold_up_the_end() -> None:
    clients = []
    with trio.fail_after(4):
        async with serving() as server:
            for _ in range(10):
                client = await dial(server.url)
                await client.send(GET * 1000)
                clients.append(client)
            await health(server)
    for client in clients:
        await trio.aclose_forcefully(client.stream)


async def test_an_answer_that_nobody_takes_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving_module, "SEND_TIMEOUT", 0.1)
    app = QuartTrio(__name__)
    asked = trio.Event()

    @app.get("/big")
    async def big() -> bytes:
        asked.set()
        return b"x" * 20_000_000

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    with trio.fail_after(4):
        async with serving_module.serving(app) as http, trio.open_nursery() as nursery:
            await nursery.start(Server({}).serve, listeners, http)
            client = await dial(f"http://127.0.0.1:{port}")
            await client.send(GET.replace(b"/health", b"/big"))
            await asked.wait()
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
    await trio.aclose_forcefully(client.stream)


# Origins

ORIGINS = [
    (None, True, True),
    (ORIGIN, True, True),
    (ORIGIN.replace("abc", "bcd"), False, False),
    (ORIGIN + "/", False, False),
    (ORIGIN.upper(), False, False),
    ("", False, False),
    ("null", False, False),
    ("https://evil.com", False, False),
    ("https://localhost.evil.com", False, False),
    ("http://localhost.evil.com", False, False),
    ("http://evil.com/localhost", False, False),
    ("http://localhost@evil.com", False, False),
    ("http://evil-localhost", False, False),
    ("https://localhost:3000", False, False),
    ("http://localhost", True, False),
    ("http://localhost:3000", True, False),
    ("http://127.0.0.1:5173", True, False),
    ("http://127.0.0.1.evil.com", False, False),
    ("http://[::1", False, False),
    ("://", False, False),
]
"""An origin, and whether it may connect in development and in production."""


@pytest.mark.parametrize(("origin", "development", "production"), ORIGINS)
def test_origins(origin: str | None, development: bool, production: bool) -> None:
    for node_env, expected in (("development", development), ("production", production)):
        check = origin_allowed(make_settings(cors_origin=(ORIGIN,), node_env=node_env))
        assert check(origin) is expected


@pytest.mark.parametrize("node_env", ["development", "production"])
async def test_origins_of_websockets(node_env: str) -> None:
    async with serving(cors_origin=(ORIGIN,), node_env=node_env) as server:
        for origin, development, production in ORIGINS:
            client = await dial(server.url)
            async with client.stream:
                await client.send(upgrade(Origin=origin))
                answer = await client.head()
                allowed = production if node_env == "production" else development
                assert answer.status == (101 if allowed else 403), origin
                assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origins", [(ORIGIN, "https://evil.com"), ("https://evil.com", ORIGIN)])
async def test_two_origins_are_no_way_in(origins: tuple[str, str]) -> None:
    async with serving(cors_origin=(ORIGIN,), node_env="production") as server:
        client = await dial(server.url)
        async with client.stream:
            await client.send(upgrade(Origin="\r\nOrigin: ".join(origins)))
            assert (await client.head()).status in (400, 403)
