"""Measures this server beside Node's socket.io with the same handlers, in one run.

Both serve the same clients in turn, several rounds of it; what counts is the ratio. A client here
is a bare TCP connection with ready-made frames, so that it costs little beside the servers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import msgspec
import trio
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT: Final = Path(__file__).parent.parent
JS: Final = ROOT / "tests/js"
KEY: Final = "bench"
TEXT: Final = "We already have a website and we are quite happy with it, thank you."
SHORT: Final = 125
"""Bytes of a frame whose length fits its header's first byte pair."""

START_TIMEOUT: Final = 15.0
ANSWER_TIMEOUT: Final = 30.0
HANDSHAKE: Final = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: bench\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Load(msgspec.Struct, frozen=True):
    """How much is measured. `pause` is the seconds between a caller's sentences."""

    rounds: int
    calls: int
    pause: float
    seconds: float
    flood: int
    pings: int
    idle_calls: int


FULL: Final = Load(
    rounds=5, calls=1000, pause=2.0, seconds=10.0, flood=1000, pings=3000, idle_calls=2000
)
QUICK: Final = Load(rounds=1, calls=50, pause=0.2, seconds=1.0, flood=20, pings=200, idle_calls=200)

FIGURES: Final = {
    "cpu": ("CPU per TRANSCRIPT, {calls} calls, one each {pause} s", "µs", 2.0),
    "flood": ("CPU per TRANSCRIPT, 20 calls without a pause", "µs", None),
    "memory": ("memory per idle call", "KiB", 0.8),
    "ping_p50": ("PING round trip, p50", "ms", None),
    "ping_p95": ("PING round trip, p95", "ms", None),
}
"""What is measured, in which unit, and how many times Node's it may be."""


class Server:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.pid = process.pid
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def cpu_seconds(self) -> float:
        """What all its threads used so far (proc(5), schedstat)."""
        threads = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((t / "schedstat").read_text("ascii").split()[0]) for t in threads) / 1e9

    async def collect_garbage(self) -> None:
        """Let it tidy its memory up, if it is one that can be asked to."""
        async with httpx.AsyncClient() as http:
            await http.get(f"{self.url}/usage")

    def resident_kib(self) -> int:
        """Its memory (proc(5), status)."""
        status = Path(f"/proc/{self.pid}/status").read_text("ascii")
        return int(status.partition("VmRSS:")[2].split()[0])


@asynccontextmanager
async def serving(name: str) -> AsyncIterator[Server]:
    """One of the two servers, ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if name == "coach":
        command = [sys.executable, "-m", "coach", "serve"]
        env = {"BACKEND_API_KEY": KEY, "TIP_ENGINE": "playbook", "HOST": "127.0.0.1"}
        env |= {"NODE_ENV": "production", "LOG_LEVEL": "error"}
    else:
        command = ["node", "--expose-gc", str(JS / "reference_server.mjs")]
        env = {"API_KEY": KEY, "WARMUP_MS": "180000"}
    process = subprocess.Popen(  # noqa: ASYNC220, S603 - our own command; it starts at once
        command,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | env | {"PORT": str(port)},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    try:
        server = Server(process, port)
        with trio.fail_after(START_TIMEOUT):
            await answering(server)
        yield server
    finally:
        process.terminate()
        process.wait()


async def answering(server: Server) -> None:
    """Poll until the server is healthy."""
    async with httpx.AsyncClient() as http:
        while True:
            try:
                if (await http.get(f"{server.url}/health")).is_success:
                    return
            except httpx.TransportError:
                await trio.sleep(0.05)


def frame(text: str) -> bytes:
    """Return a client's text frame (RFC 6455, 5.2), masked with zeros."""
    data = text.encode()
    size = len(data)
    length = bytes([0x80 | size]) if size <= SHORT else b"\xfe" + size.to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + data


class Call:
    """An agent's browser in a call."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.sent = 0
        self._stream = stream
        self._id = ""

    async def begin(self) -> None:
        """Connect and start a conversation."""
        await self._stream.send_all(HANDSHAKE)
        await self.until(b"pingInterval")
        await self._stream.send_all(frame("40" + json.dumps({"apiKey": KEY})))
        await self.until(b'40{"sid"')
        await self.emit("START_CONVERSATION", {"agentId": "agent-1"})
        answer = await self.until(b"CONVERSATION_STARTED")
        self._id = answer.partition(b'"conversationId":"')[2].partition(b'"')[0].decode()

    async def emit(self, name: str, *args: Any) -> None:
        """Send an event."""
        await self._stream.send_all(frame("42" + json.dumps([name, *args])))

    async def say(self) -> None:
        """Send a sentence of its own moment."""
        self.sent += 1
        line = {"conversationId": self._id, "speaker": "caller", "text": TEXT, "isFinal": True}
        await self.emit("TRANSCRIPT", line | {"timestamp": self.sent})

    async def ping(self) -> None:
        """Wait until the server has served all that was sent."""
        await self.emit("PING")
        await self.until(b'"PONG"')

    async def until(self, mark: bytes) -> bytes:
        """Read until an answer holds `mark`; the server's pings are answered."""
        received = b""
        with trio.fail_after(ANSWER_TIMEOUT):
            while mark not in received:
                received += (data := await self._stream.receive_some())
                if not data:
                    raise ConnectionError("the server closed the connection")
                if b"\x81\x012" in data:
                    await self._stream.send_all(frame("3"))
        return received

    async def talk(self, pause: float, delay: float) -> None:
        """Say a sentence every `pause` seconds, until cancelled."""
        await trio.sleep(delay)
        while True:
            await self.say()
            await trio.sleep(pause)

    async def flood(self, count: int) -> None:
        """Say so many sentences, as fast as the server serves them."""
        for number in range(count):
            await self.say()
            if number % 10 == 0:
                await self.ping()

    async def close(self) -> None:
        """Hang up."""
        await trio.aclose_forcefully(self._stream)


@asynccontextmanager
async def calls(server: Server, count: int) -> AsyncIterator[list[Call]]:
    """So many calls at once."""
    begun = []
    for _ in range(count):
        call = Call(await trio.open_tcp_stream("127.0.0.1", server.port))
        await call.begin()
        begun.append(call)
    try:
        yield begun
    finally:
        for call in begun:
            await call.close()


async def measure_talk(server: Server, load: Load) -> float:
    """CPU microseconds per sentence at the pace of real calls."""
    async with calls(server, load.calls) as talking:
        used = said = 0.0
        async with trio.open_nursery() as nursery:
            for number, call in enumerate(talking):
                delay = load.pause * number / len(talking)
                nursery.start_soon(call.talk, load.pause, delay)
            await trio.sleep(load.pause)
            used, said = server.cpu_seconds(), sum(call.sent for call in talking)
            await trio.sleep(load.seconds)
            nursery.cancel_scope.cancel()
        said = sum(call.sent for call in talking) - said
        return (server.cpu_seconds() - used) / said * 1e6


async def measure_flood(server: Server, load: Load) -> float:
    """CPU microseconds per sentence of 20 clients that never rest."""
    async with calls(server, 20) as talking:
        used = server.cpu_seconds()
        async with trio.open_nursery() as nursery:
            for call in talking:
                nursery.start_soon(call.flood, load.flood)
        return (server.cpu_seconds() - used) / (load.flood * len(talking)) * 1e6


async def measure_pings(server: Server, load: Load) -> tuple[float, float]:
    """Milliseconds of a PING's round trip: the median and the 95th percentile."""
    async with calls(server, 1) as [call]:
        took = []
        for _ in range(load.pings):
            began = time.perf_counter()
            await call.ping()
            took.append((time.perf_counter() - began) * 1000)
    percentiles = statistics.quantiles(took, n=20)
    return percentiles[9], percentiles[18]


async def measure_memory(server: Server, load: Load) -> float:
    """KiB that one more idle call takes."""
    async with calls(server, load.idle_calls // 10):
        await server.collect_garbage()
        before = server.resident_kib()
        async with calls(server, load.idle_calls):
            await server.collect_garbage()
            return (server.resident_kib() - before) / load.idle_calls


async def measure(name: str, load: Load) -> dict[str, float]:
    """Take all figures of one server."""
    async with serving(name) as server:
        memory = await measure_memory(server, load)
    async with serving(name) as server:
        talk = await measure_talk(server, load)
        flood = await measure_flood(server, load)
        p50, p95 = await measure_pings(server, load)
    return {"cpu": talk, "flood": flood, "memory": memory, "ping_p50": p50, "ping_p95": p95}


async def run(load: Load, console: Console) -> dict[str, dict[str, list[float]]]:
    """Take all figures of both servers, in turns."""
    taken: dict[str, dict[str, list[float]]] = {name: {} for name in ("coach", "node")}
    for number in range(load.rounds):
        for name, figures in taken.items():
            console.print(f"round {number + 1} of {load.rounds}: {name} ...", style="dim")
            for figure, value in (await measure(name, load)).items():
                figures.setdefault(figure, []).append(value)
    return taken


def show(taken: dict[str, dict[str, list[float]]], load: Load, console: Console) -> bool:
    """Print the figures; return whether each is as good as it has to be."""
    table = Table(title=f"{versions()}; median of {load.rounds} (range)")
    for heading in ("", "coach", "node", "ratio", "at most"):
        table.add_column(heading, justify="left" if not heading else "right")
    reached = True
    for figure, (text, unit, target) in FIGURES.items():
        ours, theirs = taken["coach"][figure], taken["node"][figure]
        ratio = statistics.median(ours) / statistics.median(theirs)
        reached = reached and (target is None or ratio <= target)
        table.add_row(
            text.format(calls=load.calls, pause=load.pause),
            spread(ours, unit),
            spread(theirs, unit),
            f"{ratio:.2f}",
            f"{target}" if target else "",
        )
    console.print(table)
    return reached


def spread(values: list[float], unit: str) -> str:
    """Return the median and the range of some values."""
    digits = 3 if unit == "ms" else 1
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f}) {unit}"


def versions() -> str:
    """Say what is compared on what."""
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)  # noqa: S607 - the one on PATH
    package = json.loads((JS / "node_modules/socket.io/package.json").read_text("utf-8"))
    return (
        f"Python {platform.python_version()}, Node {node.stdout.strip()}, "
        f"socket.io {package['version']}, {os.cpu_count()} CPUs"
    )


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(description="Compare coach with Node's socket.io.")
    parser.add_argument("--quick", action="store_true", help="a short run, without targets")
    parser.add_argument("--rounds", type=int, help="how often each server is measured")
    parser.add_argument("--json", type=Path, help="write all figures to this file, too")
    options = parser.parse_args()
    if shutil.which("node") is None or not (JS / "node_modules").is_dir():
        print(
            "bench: needs Node.js 18 and tests/js/node_modules: run scripts/test", file=sys.stderr
        )
        return 2
    load = QUICK if options.quick else FULL
    load = msgspec.structs.replace(load, rounds=options.rounds or load.rounds)
    console = Console()
    taken = trio.run(run, load, console)
    if options.json:
        options.json.write_text(json.dumps(taken))
    reached = show(taken, load, console)
    if not reached and not options.quick:
        print("bench: a figure is worse than it has to be", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
