"""What becomes of a connection's first request."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from coach.socketio.frontdoor import (
    HEAD_TIMEOUT,
    MAX_HEAD_BYTES,
    BadRequest,
    Request,
    read_request,
)
from tests.socketio.harness import PATH, serving, upgrade

GET = b"GET /health?a=1&b=&a=2 HTTP/1.1\r\nHost: test\r\nX-Name: J\xf6rg\r\n\r\n"
ORIGIN = "chrome-extension://abcdefghijklmnopabcdefghijklmnop"


class Sliced:
    """A client that sends `data`, `at_once` bytes every so many seconds."""

    def __init__(self, data: bytes, at_once: int, every: float, *, ends: bool) -> None:
        self._slices = [data[at : at + at_once] for at in range(0, len(data), at_once)]
        self._every = every
        self._ends = ends

    async def receive_some(self, _max_bytes: int | None = None) -> bytes:
        await trio.sleep(self._every)
        if self._slices:
            return self._slices.pop(0)
        if not self._ends:
            await trio.sleep_forever()
        return b""


async def read(
    data: bytes, *, at_once: int = 1 << 14, every: float = 0.0, ends: bool = False
) -> Request | None:
    """Let the front door read what a client sends."""
    stream: Any = Sliced(data, at_once, every, ends=ends)  # All that is asked of it while reading.
    return await read_request(stream)


def padded(size: int) -> bytes:
    """A request whose head is that long."""
    start = b"GET / HTTP/1.1\r\nHost: test\r\nX-Padding: "
    return start + b"x" * (size - len(start) - 4) + b"\r\n\r\n"


# Reading a head


async def test_a_head_is_parsed_and_kept() -> None:
    request = await read(GET + b"beyond")
    assert request == Request(
        method="GET",
        path="/health",
        query={"a": "2", "b": ""},
        headers={"host": "test", "x-name": "J\xf6rg"},
        head=GET,
        rest=b"beyond",
    )


async def test_a_head_may_come_in_single_bytes() -> None:
    whole, sliced = await read(GET), await read(GET, at_once=1)
    assert whole is not None
    assert sliced == whole


async def test_a_client_may_leave_without_a_word() -> None:
    assert await read(b"", ends=True) is None


async def test_a_client_may_leave_in_the_head() -> None:
    assert await read(GET[:20], ends=True) is None


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: test\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: test\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : test\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: te\x00st\r\n\r\n", 400),
        (b"GET http://[::1 HTTP/1.1\r\nHost: test\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: test\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1, 2\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / HTTP/0.9\r\nHost: test\r\n\r\n", 505),
        (b"GET / HTTP/3.0\r\nHost: test\r\n\r\n", 505),
        (padded(MAX_HEAD_BYTES + 1), 431),
        (padded(2 * MAX_HEAD_BYTES - 1), 431),
        (padded(3 * MAX_HEAD_BYTES), 431),
        (b"GET /" + b"x" * 3 * MAX_HEAD_BYTES, 431),
    ],
    ids=lambda value: repr(value[:60]) if isinstance(value, bytes) else None,
)
@pytest.mark.parametrize("at_once", [1000, 1 << 14])
async def test_what_is_no_request_is_told_so(data: bytes, status: int, at_once: int) -> None:
    with pytest.raises(BadRequest) as caught:
        await read(data, at_once=at_once)
    assert caught.value.status == status


async def test_a_head_of_the_greatest_length_is_read() -> None:
    request = await read(padded(MAX_HEAD_BYTES))
    assert request is not None
    assert len(request.head) == MAX_HEAD_BYTES


async def test_a_client_that_says_nothing_is_left(autojump_clock: trio.testing.MockClock) -> None:
    started = trio.current_time()
    assert await read(b"") is None
    assert trio.current_time() - started == HEAD_TIMEOUT


async def test_a_client_that_says_too_little_too_slowly_is_told_so(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """RFC 9110, 15.5.9."""
    started = trio.current_time()
    with pytest.raises(BadRequest) as caught:
        await read(GET, at_once=1, every=0.9)
    assert caught.value.status == 408
    assert trio.current_time() - started == HEAD_TIMEOUT


# Over sockets: who is served by whom


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /" + b"x" * 3 * MAX_HEAD_BYTES, 431),
    ],
)
async def test_what_is_no_request_is_answered_and_closed(data: bytes, status: int) -> None:
    async with serving() as house:
        client = await house.dial()
        async with client.stream:
            await client.send(data)
            answer = await client.head()
            assert (answer.status, answer.headers["connection"]) == (status, "close")
            assert await client.rest() == b""
        assert not house.app.requests


@pytest.mark.parametrize(
    "head",
    [
        GET,
        upgrade("/"),
        upgrade("/socket.io"),
        upgrade("/socket.io/x?EIO=4&transport=websocket"),
        upgrade("/Socket.IO/?EIO=4&transport=websocket"),
        upgrade(Upgrade=None),
        upgrade(Upgrade="h2c"),
        upgrade(PATH.replace("websocket", "polling"), Upgrade=None),
    ],
)
async def test_all_that_is_no_upgrade_at_the_path_goes_to_http(head: bytes) -> None:
    async with serving() as house:
        client = await house.dial()
        async with client.stream:
            await client.send(head, b"beyond")
            assert (await client.head()).status == 404
            assert await client.rest() == b'{"from":"http"}'
        [request] = house.app.requests
        assert request.head + request.rest == head + b"beyond"


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        ("", 0, "Transport unknown"),
        ("?EIO=4", 0, "Transport unknown"),
        ("?EIO=4&transport=webtransport", 0, "Transport unknown"),
        ("?EIO=4&transport=__proto__", 0, "Transport unknown"),
        ("?EIO=4&transport=websocket&sid=unknown", 1, "Session ID unknown"),
        ("?EIO=4&transport=websocket&sid=", 1, "Session ID unknown"),
        ("?EIO=4&transport=polling", 3, "Bad request"),
        ("?transport=websocket", 5, "Unsupported protocol version"),
        ("?EIO=3&transport=websocket", 5, "Unsupported protocol version"),
        ("?EIO=&transport=websocket", 5, "Unsupported protocol version"),
    ],
)
async def test_a_wrong_handshake_is_refused(query: str, code: int, message: str) -> None:
    async with serving() as house:
        client = await house.dial()
        async with client.stream:
            await client.send(upgrade("/socket.io/" + query))
            answer = await client.head()
            assert answer.status == 400
            assert answer.headers["content-type"] == "application/json"
            assert await client.rest() == f'{{"code":{code},"message":"{message}"}}'.encode()
        assert not house.server.sessions


@pytest.mark.parametrize("origin", ["https://evil.example", "null", ORIGIN.upper(), ORIGIN + "."])
async def test_a_foreign_origin_is_refused_before_the_upgrade(origin: str) -> None:
    async with serving(origin_allowed=_is_ours) as house:
        client = await house.dial()
        async with client.stream:
            await client.send(upgrade(Origin=origin))
            answer = await client.head()
            assert answer.status == 403
            assert "access-control-allow-origin" not in answer.headers
            assert await client.rest() == b'{"code":4,"message":"Forbidden"}'
        assert not house.server.sessions


@pytest.mark.parametrize("origin", [None, ORIGIN])
async def test_our_origin_is_let_in(origin: str | None) -> None:
    async with serving(origin_allowed=_is_ours) as house:
        client = await house.dial()
        async with client.stream:
            await client.send(upgrade(Origin=origin))
            assert (await client.head()).status == 101


def _is_ours(origin: str | None) -> bool:
    return origin in (None, ORIGIN)
