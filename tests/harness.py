"""Servers and agents' browsers for tests: the real ones, on loopback or on memory streams."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import trio
import trio.testing
from trio_websocket import WebSocketConnection, wrap_client_stream

from coach.client import Client, connect
from coach.coaching.selection import Timing
from coach.handlers import admission
from coach.llm import PlaybookEngine, TipEngine
from coach.registry import Registry
from coach.server import Running, default_playbook, serve
from coach.settings import Settings, load_settings
from coach.socketio import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from coach.coaching.situation import Draft, Situation
    from coach.socketio import SocketStream

KEY = "test-key"
OTHER_KEY = "other-key"
KEYS = {"ours": KEY, "theirs": OTHER_KEY}

PLAYBOOK = default_playbook()


def make_settings(**overrides: Any) -> Settings:
    """Settings that need nothing of this machine."""
    defaults = {
        "backend_api_key": KEY,
        "host": "127.0.0.1",
        "port": 0,
        "tip_engine": "playbook",
        "node_env": "development",
    }
    return load_settings(env_file=None, **(defaults | overrides))


@asynccontextmanager
async def serving(**overrides: Any) -> AsyncIterator[Running]:
    """A whole server on a free port; it knows both KEYS."""
    async with trio.open_nursery() as nursery:
        running = await nursery.start(partial(serve, make_settings(**overrides), KEYS))
        yield running
        nursery.cancel_scope.cancel()


class Browser:
    """An agent's browser: sends what the extension sends, remembers what comes and when."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.events: list[tuple[float, str, dict[str, Any]]] = []
        self.conversation_id = ""
        self.is_closed = False
        self._read = 0
        self._news = trio.Condition()

    async def listen(self) -> None:
        async for event in self.client:
            envelope = event.args[0]
            assert envelope["type"] == event.name
            async with self._news:
                self.events.append((trio.current_time(), event.name, envelope["payload"]))
                self._news.notify_all()
        async with self._news:
            self.is_closed = True
            self._news.notify_all()

    def received(self, name: str) -> list[dict[str, Any]]:
        return [payload for _, event, payload in self.events if event == name]

    @property
    def tips(self) -> list[tuple[float, str]]:
        """When each tip came, and why."""
        return [(at, tip["trigger"]) for at, name, tip in self.events if name == "AI_TIP"]

    async def expect(self, name: str, within: float = 3.0) -> dict[str, Any]:
        """Wait for the next event of that name; those before it count as read."""
        with trio.fail_after(within):
            async with self._news:
                while True:
                    while self._read < len(self.events):
                        _, event, payload = self.events[self._read]
                        self._read += 1
                        if event == name:
                            return payload
                    assert not self.is_closed, f"closed, and no {name}"
                    await self._news.wait()

    async def closed(self, within: float = 3.0) -> None:
        with trio.fail_after(within):
            async with self._news:
                while not self.is_closed:
                    await self._news.wait()

    async def send(self, name: str, **fields: Any) -> None:
        await self.client.emit(name, {"conversationId": self.conversation_id, **fields})

    async def ask(self, name: str, *args: Any) -> dict[str, Any]:
        """Send with an ack; return what it holds."""
        with trio.fail_after(3):
            [answer] = await self.client.call(name, *args)
        assert isinstance(answer, dict)
        return answer

    async def start(self, agent_id: str = "agent-1", **metadata: Any) -> str:
        await self.client.emit("START_CONVERSATION", {"agentId": agent_id, "metadata": metadata})
        started = await self.expect("CONVERSATION_STARTED")
        self.conversation_id = started["conversationId"]
        return self.conversation_id

    async def agent(self, text: str = "So tell me a bit about your business.") -> None:
        await self.send("TRANSCRIPT", speaker="agent", text=text, isFinal=True)

    async def caller(self, text: str = "We already have a website.") -> None:
        await self.send("TRANSCRIPT", speaker="caller", text=text, isFinal=True)

    async def select(self, tip: dict[str, Any], option: int = 1) -> None:
        chosen = {"recommendationId": tip["recommendationId"], "selectedOption": option}
        await self.client.emit("OPTION_SELECTED", chosen)

    async def request(self, **fields: Any) -> None:
        await self.send("REQUEST_NEXT_TIP", transcriptHistory=[], **fields)

    async def alternative(self) -> None:
        await self.send("REQUEST_ALTERNATIVE_TIP", currentStage="DISCOVERY")

    async def end(self) -> None:
        await self.send("END_CONVERSATION")

    async def is_alive(self) -> bool:
        """Whether the server still answers, after all that was sent before."""
        await self.client.emit("PING")
        return bool(await self.expect("PONG"))


@asynccontextmanager
async def browsing(url: str, key: str = KEY) -> AsyncIterator[Browser]:
    """A browser connected to the server at `url`."""
    async with connect(url, {"apiKey": key}) as client, trio.open_nursery() as nursery:
        browser = Browser(client)
        nursery.start_soon(browser.listen)
        yield browser
        nursery.cancel_scope.cancel()


class TimedEngine:
    """The local matcher, `seconds` late; counts what it is asked and what is called off."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.asked: list[Situation] = []
        self.finished = 0
        self._matcher = PlaybookEngine(PLAYBOOK)

    async def draft(self, situation: Situation) -> Draft:
        self.asked.append(situation)
        await trio.sleep(self.seconds)
        draft = await self._matcher.draft(situation)
        self.finished += 1
        return draft


class MemoryStream:
    """Half of a pair of memory streams, with what the server needs of a connection."""

    def __init__(self, stream: trio.StapledStream[Any, Any]) -> None:
        self.receive_some = stream.receive_some
        self.send_all = stream.send_all
        self.aclose = stream.aclose

    async def send_some(self, data: bytes) -> int:
        await self.send_all(data)
        return len(data)


class House:
    """The real server over memory streams, where time is the test's: no sockets, no waiting."""

    def __init__(self, nursery: trio.Nursery, engine: TipEngine, window: float = 300.0) -> None:
        self.registry = Registry(PLAYBOOK, engine, Timing(), window=window, time_scale_allowed=True)
        self._server = Server({"/": admission(KEYS, self.registry)})
        self._nursery = nursery
        nursery.start_soon(self.registry.sweep)

    async def browser(self, key: str = KEY) -> Browser:
        """Connect a browser; `hang_up` drops it."""
        ours, theirs = trio.testing.memory_stream_pair()
        stream = cast("SocketStream", MemoryStream(theirs))
        self._nursery.start_soon(self._server._admit, stream, _no_http)
        path = "/socket.io/?EIO=4&transport=websocket"
        websocket: WebSocketConnection = await wrap_client_stream(
            self._nursery, cast("trio.SocketStream", ours), "coach", path
        )
        client = Client(websocket)
        await client.join({"apiKey": key})
        browser = Browser(client)
        self._nursery.start_soon(browser.listen)
        return browser


async def hang_up(browser: Browser) -> None:
    """Drop the connection as a lost network does: without a word."""
    await trio.aclose_forcefully(browser.client._websocket._stream)
    await browser.closed()


async def _no_http(stream: object, request: object) -> None:
    raise AssertionError("an agent's browser asks for a WebSocket")


@asynccontextmanager
async def house(engine: TipEngine | None = None, window: float = 300.0) -> AsyncIterator[House]:
    """A house whose clock is the test's."""
    async with trio.open_nursery() as nursery:
        yield House(nursery, engine or TimedEngine(), window)
        nursery.cancel_scope.cancel()
