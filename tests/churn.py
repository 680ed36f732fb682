"""Clients that come and go at every stage, over real sockets: nothing of them may stay.

As a program: `python -m tests.churn --cycles N [--seed S]`; `scripts/churn` runs the long form.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import struct
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import trio
from rich.console import Console
from rich.progress import Progress

from coach.coaching.selection import Timing
from coach.handlers import admission
from coach.llm import PlaybookEngine
from coach.log import configure_logging
from coach.registry import Registry
from coach.socketio import Server
from coach.web.app import make_app
from coach.web.serving import serving
from coach.wire.engine import Config
from tests.harness import KEY, KEYS, PLAYBOOK
from tests.socketio.harness import text, upgrade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

AT_ONCE = 50
RESET = struct.pack("ii", 1, 0)
SETTLE_TIMEOUT = 15.0
CONFIG = Config(ping_interval=0.3, ping_timeout=0.3, connect_timeout=1.0)
PATH = "/socket.io/?EIO=4&transport="


class Counts(msgspec.Struct, frozen=True):
    """What a client could leave behind."""

    tasks: int
    descriptors: int
    sessions: int
    active_calls: int


class House(msgspec.Struct, frozen=True):
    """The whole server with short heartbeats, and a look at what it holds."""

    port: int
    server: Server
    registry: Registry

    def counts(self) -> Counts:
        """Count what is there now."""
        return Counts(
            tasks=trio.lowlevel.current_statistics().tasks_living,
            descriptors=len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - a count, no paths
            sessions=len(self.server.sessions),
            active_calls=self.registry.active,
        )


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    registry = Registry(
        PLAYBOOK, PlaybookEngine(PLAYBOOK), Timing(), window=0.1, time_scale_allowed=True
    )
    server = Server({"/": admission(KEYS, registry)}, config=CONFIG)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with (
        serving(make_app(server, lambda: registry.active)) as http,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(registry.sweep)
        await nursery.start(server.serve, listeners, http)
        yield House(listeners[0].socket.getsockname()[1], server, registry)
        nursery.cancel_scope.cancel()


class Visitor:
    """A client that goes after so many steps of what a client does."""

    def __init__(self, port: int, chance: random.Random) -> None:
        self._port = port
        self._chance = chance

    async def visit(self) -> None:
        stages = self._chance.choice([self._websocket(), self._polling(), self._upgrade()])
        stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        try:
            for data in stages[: self._chance.randint(0, len(stages))]:
                part = data[: self._chance.randint(1, len(data))]
                is_torn = self._chance.random() < 0.1
                await stream.send_all(part if is_torn else data)
                if is_torn or self._chance.random() < 0.1:
                    break
                if self._chance.random() < 0.8:
                    with trio.move_on_after(0.05):
                        await stream.receive_some()
        except trio.BrokenResourceError:
            pass  # The server was faster.
        if self._chance.random() < 0.5:  # a reset in place of a farewell
            stream.setsockopt(
                trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        await trio.aclose_forcefully(stream)

    def _websocket(self) -> list[bytes]:
        start = ["START_CONVERSATION", {"agentId": "agent-1"}]
        return [
            upgrade(PATH + "websocket"),
            text("40" + json.dumps({"apiKey": KEY})),
            text("42" + json.dumps(start)),
            text('42["REQUEST_NEXT_TIP",{"conversationId":"?"}]'),
            text('42["PING"]') * 20,
            text("1"),
        ]

    def _polling(self) -> list[bytes]:
        return [f"GET {PATH}polling HTTP/1.1\r\nHost: x\r\n\r\n".encode()]

    def _upgrade(self) -> list[bytes]:
        return [upgrade(PATH + "websocket&sid=nobody"), text("2probe"), text("5")]


class Poller(Visitor):
    """A client that polls, with several connections, and goes with some of them open."""

    async def visit(self) -> None:
        opened = await self._request("GET", "")
        if b'"sid":"' not in opened:
            return
        sid = opened.partition(b'"sid":"')[2].partition(b'"')[0].decode()
        query = f"&sid={sid}"
        await self._request("POST", query, ("40" + json.dumps({"apiKey": KEY})).encode())
        match self._chance.randint(0, 4):
            case 0:
                await self._request("POST", query, b"1")
            case 1:
                await self._request("GET", query, patience=0.01)
            case 2:
                await self._request("POST", query, b"abc")
            case 3:
                await self._take_over(query)
            case _:
                pass  # It is never heard of again.

    async def _request(
        self, method: str, query: str, body: bytes = b"", patience: float = 1.0
    ) -> bytes:
        answer = b""
        stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        head = f"{method} {PATH}polling{query} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
        with trio.move_on_after(patience):
            try:
                await stream.send_all(head.encode() + b"\r\n\r\n" + body)
                async for data in stream:
                    answer += data
            except trio.BrokenResourceError:
                pass
        await trio.aclose_forcefully(stream)
        return answer

    async def _take_over(self, query: str) -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        stages = [upgrade(PATH + "websocket" + query), text("2probe"), text("5"), text("3")]
        for data in stages[: self._chance.randint(1, 4)]:
            await stream.send_all(data)
            with trio.move_on_after(0.05):
                await stream.receive_some()
        await trio.aclose_forcefully(stream)


async def churn(
    cycles: int, seed: int, tell: Callable[[], None] = lambda: None
) -> tuple[Counts, Counts]:
    """Let so many clients come and go; return what the server holds before and after.

    It has `SETTLE_TIMEOUT` seconds to get back to where it was.
    """
    chance = random.Random(seed)  # noqa: S311 - a test that can be repeated
    async with house() as server:
        await Visitor(server.port, chance).visit()  # what is made once is made now
        await Poller(server.port, chance).visit()
        await trio.sleep(CONFIG.ping_interval + CONFIG.ping_timeout + 0.5)  # and these are gone
        gc.collect()
        before = server.counts()
        limiter = trio.CapacityLimiter(AT_ONCE)

        async def cycle(kind: type[Visitor]) -> None:
            async with limiter:
                await kind(server.port, chance).visit()
            tell()

        for _ in range(0, cycles, AT_ONCE):
            async with trio.open_nursery() as nursery:
                for _ in range(AT_ONCE):
                    nursery.start_soon(cycle, chance.choice([Visitor, Visitor, Poller]))
        after = server.counts()
        with trio.move_on_after(SETTLE_TIMEOUT):
            while after != before:
                await trio.sleep(0.1)
                gc.collect()
                after = server.counts()
    return before, after


def main() -> int:
    """Run as a program; return the exit code."""
    parser = argparse.ArgumentParser(description="Let clients come and go at random stages.")
    parser.add_argument("--cycles", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))  # noqa: S311
    options = parser.parse_args()
    configure_logging("warning", json=False)
    console = Console()
    console.print(f"{options.cycles} cycles, --seed {options.seed}")
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("cycles", total=options.cycles)
        before, after = trio.run(
            churn, options.cycles, options.seed, lambda: progress.advance(task)
        )
    console.print(f"before: {before}", f"after: {after}", sep="\n")
    return 0 if before == after else 1


if __name__ == "__main__":
    sys.exit(main())
