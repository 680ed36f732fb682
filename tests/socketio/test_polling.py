"""HTTP long-polling and the change to WebSocket, over real sockets against the whole server."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

from tests.conformance_app import serve_conformance_app
from tests.socketio.harness import upgrade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

POLLING = {"EIO": "4", "transport": "polling"}
OPEN = {"sid", "upgrades", "pingInterval", "pingTimeout", "maxPayload"}


class Poller:
    """A client of the Engine.IO echo that polls."""

    def __init__(self, http: httpx.AsyncClient, sid: str) -> None:
        self.http = http
        self.sid = sid
        self.query = POLLING | {"sid": sid}
        self._posting = trio.Lock()

    async def get(self) -> httpx.Response:
        return await self.http.get("/engine.io/", params=self.query)

    async def post(self, body: bytes | str, **options: Any) -> httpx.Response:
        async with self._posting:  # One at a time, as the protocol wants it.
            return await self.http.post("/engine.io/", params=self.query, content=body, **options)

    async def packets(self) -> list[str]:
        """The next packets that are no pings; those are answered."""
        while True:
            packets = (await self.get()).text.split("\x1e")
            if "2" in packets:
                packets.remove("2")
                await self.post("3")
            if packets:
                return packets

    @asynccontextmanager
    async def websocket(self) -> AsyncIterator[WebSocketConnection]:
        url = str(self.http.base_url).replace("http", "ws")
        query = f"EIO=4&transport=websocket&sid={self.sid}"
        async with AsyncExitStack() as stack:
            opening = open_websocket_url(f"{url}/engine.io/?{query}")
            websocket = await stack.enter_async_context(opening)
            # trio-websocket 0.12 leaves the socket open if the server closed first.
            stack.push_async_callback(trio.aclose_forcefully, websocket._stream)
            yield websocket


@asynccontextmanager
async def polling() -> AsyncIterator[Poller]:
    async with serve_conformance_app() as url, httpx.AsyncClient(base_url=url) as http:
        answer = await http.get("/engine.io/", params=POLLING)
        packet = answer.text
        assert packet.startswith("0")
        yield Poller(http, httpx.Response(200, content=packet[1:]).json()["sid"])


def is_unknown(answer: httpx.Response) -> bool:
    return (answer.status_code, answer.json()["code"]) == (400, 1)


async def test_the_handshake_tells_what_the_client_has_to_know() -> None:
    async with serve_conformance_app() as url, httpx.AsyncClient(base_url=url) as http:
        answer = await http.get("/engine.io/", params=POLLING)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/plain; charset=UTF-8"
        assert answer.headers["cache-control"] == "no-store"
        opened = httpx.Response(200, content=answer.text[1:]).json()
        assert opened.keys() == OPEN
        assert opened["upgrades"] == ["websocket"]
        assert len(opened["sid"]) >= 20


@pytest.mark.parametrize(
    ("method", "query", "code"),
    [
        ("GET", {}, 0),
        ("GET", {"EIO": "4", "transport": "abc"}, 0),
        ("GET", {"EIO": "4", "transport": "polling", "sid": "nobody"}, 1),
        ("POST", {"EIO": "4", "transport": "polling"}, 2),
        ("PUT", {"EIO": "4", "transport": "polling"}, 2),
        ("GET", {"EIO": "4", "transport": "websocket"}, 3),
        ("GET", {"EIO": "3", "transport": "polling"}, 5),
        ("GET", {"transport": "polling"}, 5),
    ],
)
async def test_a_request_that_opens_nothing_is_answered_with_its_code(
    method: str, query: dict[str, str], code: int
) -> None:
    async with serve_conformance_app() as url, httpx.AsyncClient(base_url=url) as http:
        answer = await http.request(method, "/engine.io/", params=query)
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["code"] == code


async def test_messages_travel_in_batches_both_ways() -> None:
    async with polling() as client:
        answer = await client.post("4one\x1e4two\x1ebAQID\x1e4€")
        assert (answer.status_code, answer.text) == (200, "ok")
        assert answer.headers["content-type"] == "text/html"
        assert await client.packets() == ["4one", "4two", "bAQID", "4€"]


async def test_a_get_is_held_until_there_is_something() -> None:
    async with polling() as client, trio.open_nursery() as nursery:
        got: list[str] = []

        async def wait() -> None:
            got.extend(await client.packets())

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked(0.05)
        await client.post("4late")
        with trio.fail_after(2):
            while not got:
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert got == ["4late"]


@pytest.mark.parametrize("body", ["abc", "", "2", "4a\x1e", "b!", b"\xff"])
async def test_a_payload_that_breaks_a_rule_closes_the_session(body: str | bytes) -> None:
    async with polling() as client:
        assert (await client.post(body)).status_code == 400
        assert is_unknown(await client.get())


async def test_a_second_get_at_the_same_time_closes_the_session() -> None:
    async with polling() as client, trio.open_nursery() as nursery:
        answers: list[tuple[int, str]] = []

        async def get() -> None:
            answer = await client.get()
            answers.append((answer.status_code, answer.text))

        nursery.start_soon(get)
        await trio.testing.wait_all_tasks_blocked(0.05)
        nursery.start_soon(get)
        with trio.fail_after(2):
            while len(answers) < 2:
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert sorted(answers) == [(200, "1"), (400, "")]
        assert is_unknown(await client.get())


async def test_a_second_post_at_the_same_time_closes_the_session() -> None:
    async with polling() as client:
        port = client.http.base_url.port
        assert port is not None
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            path = f"/engine.io/?EIO=4&transport=polling&sid={client.sid}"
            head = f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\n"
            await stream.send_all(head.encode() + b"4un")
            with trio.fail_after(2):
                while (await client.post("4x")).status_code == 200:
                    await trio.testing.wait_all_tasks_blocked(0.01)
        assert is_unknown(await client.get())


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_refused_and_the_session_stays(chunked: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"4" + b"x" * 99_999

    async with polling() as client:
        body: Any = pieces() if chunked else b"4" + b"x" * 1_000_000
        assert (await client.post(body)).status_code == 413
        await client.post("4still here")
        assert await client.packets() == ["4still here"]


async def test_binary_bodies_are_not_of_this_version() -> None:
    async with polling() as client:
        answer = await client.post(b"4x", headers={"Content-Type": "application/octet-stream"})
        assert answer.status_code == 400
        assert is_unknown(await client.get())


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_other_methods_are_refused_and_the_session_stays(method: str) -> None:
    async with polling() as client:
        answer = await client.http.request(method, "/engine.io/", params=client.query)
        assert answer.status_code == 400
        await client.post("4still here")
        assert await client.packets() == ["4still here"]


async def test_pings_keep_a_session_alive_that_answers() -> None:
    async with polling() as client:
        started = trio.current_time()
        for _ in range(4):
            with trio.fail_after(1):
                assert (await client.get()).text == "2"
            assert (await client.post("3")).text == "ok"
        assert trio.current_time() - started >= 1.2
        await client.post("4alive")
        assert await client.packets() == ["4alive"]


async def test_a_session_that_answers_no_ping_is_closed() -> None:
    async with polling() as client:
        assert (await client.get()).text == "2"
        with trio.fail_after(1):
            assert (await client.get()).text == "1"
        assert is_unknown(await client.get())


async def test_a_session_that_is_not_polled_is_closed_too() -> None:
    async with polling() as client:
        await trio.sleep(0.6)  # It is silence that is shown: a ping falls due, and its answer.
        assert is_unknown(await client.get())


async def test_a_client_that_closes_ends_its_held_request() -> None:
    async with polling() as client, trio.open_nursery() as nursery:
        answers: list[str] = []

        async def get() -> None:
            answers.append((await client.get()).text)

        nursery.start_soon(get)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert (await client.post("1")).text == "ok"
        with trio.fail_after(2):
            while not answers:
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert answers == ["6"]
        assert is_unknown(await client.get())


async def test_a_get_that_its_client_gives_up_closes_the_session() -> None:
    async with polling() as client:
        with trio.move_on_after(0.1):
            await client.get()
        with trio.fail_after(2):
            while not is_unknown(await client.http.post("/engine.io/", params=client.query)):
                await trio.testing.wait_all_tasks_blocked(0.01)


# The change to WebSocket


async def echo(websocket: WebSocketConnection, message: str) -> str | bytes:
    """Send a message and return the next one, pings left out."""
    await websocket.send_message(message)
    while (answer := await websocket.get_message()) == "2":
        await websocket.send_message("3")
    return answer


async def test_a_websocket_takes_over_and_nothing_is_lost_or_reordered() -> None:
    async with polling() as client:
        got: list[str] = []

        async def poll() -> None:
            while "6" not in (packets := await client.packets()):
                got.extend(packets)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll)
            for number in range(20):
                await client.post(f"4{number}")
            async with client.websocket() as websocket:
                await websocket.send_message("2probe")
                assert await websocket.get_message() == "3probe"
                for number in range(20, 40):
                    await client.post(f"4{number}")
                await websocket.send_message("5")
                for number in range(40, 60):
                    await websocket.send_message(f"4{number}")
                with trio.fail_after(3):
                    while len(got) < 60:
                        message = await websocket.get_message()
                        if message == "2":
                            await websocket.send_message("3")
                        else:
                            got.append(str(message))
                assert got == [f"4{number}" for number in range(60)]
                answer = await client.post("4too late")
                assert (answer.status_code, answer.json()["code"]) == (400, 3)


async def test_a_held_get_ends_at_once_when_a_websocket_probes() -> None:
    async with polling() as client, trio.open_nursery() as nursery:
        answers: list[str] = []

        async def get() -> None:
            answers.append((await client.get()).text)

        nursery.start_soon(get)
        await trio.testing.wait_all_tasks_blocked(0.05)
        async with client.websocket() as websocket:
            await websocket.send_message("2probe")
            assert await websocket.get_message() == "3probe"
            with trio.fail_after(0.2):
                while not answers:
                    await trio.testing.wait_all_tasks_blocked(0.01)
            assert answers == ["6"]


@pytest.mark.parametrize("first", ["4hello", "2", "abc", b"\x01"])
async def test_a_websocket_that_does_not_probe_is_closed_alone(first: str | bytes) -> None:
    async with polling() as client:
        async with client.websocket() as websocket:
            await websocket.send_message(first)
            with pytest.raises(ConnectionClosed):
                await websocket.get_message()
        await client.post("4still here")
        assert await client.packets() == ["4still here"]


async def test_a_change_that_is_given_up_leaves_polling_as_it_was() -> None:
    async with polling() as client:
        async with client.websocket() as websocket:
            await websocket.send_message("2probe")
            assert await websocket.get_message() == "3probe"
        await client.post("4still here")
        while (packets := await client.packets()) == ["6"]:
            pass
        assert packets == ["4still here"]


async def test_a_second_websocket_for_a_session_is_closed_alone() -> None:
    async with polling() as client, client.websocket() as first:
        await first.send_message("5")
        assert await echo(first, "4it has taken over") == "4it has taken over"
        async with client.websocket() as second:
            with pytest.raises(ConnectionClosed):
                await second.get_message()
        assert await echo(first, "4still here") == "4still here"


async def test_a_websocket_of_an_unknown_session_is_refused() -> None:
    async with polling() as client:
        stream = await trio.open_tcp_stream("127.0.0.1", client.http.base_url.port or 0)
        async with stream:
            await stream.send_all(upgrade("/engine.io/?EIO=4&transport=websocket&sid=nobody"))
            answer = bytes(await stream.receive_some())
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.endswith(b'{"code":1,"message":"Session ID unknown"}')


# CORS


@pytest.mark.parametrize("origin", ["https://a.example", None])
async def test_pages_may_read_every_answer(origin: str | None) -> None:
    headers = {"Origin": origin} if origin else {}
    async with polling() as client:
        for query in (POLLING, client.query | {"sid": "nobody"}, {}):
            answer = await client.http.get("/engine.io/", params=query, headers=headers)
            assert answer.headers.get("access-control-allow-origin") == origin
        preflight = await client.http.options(
            "/engine.io/", headers=headers | {"Access-Control-Request-Headers": "x-custom"}
        )
        assert preflight.status_code == 204
        if origin:
            assert preflight.headers["access-control-allow-headers"] == "x-custom"
            assert preflight.headers["vary"] == "Origin"
