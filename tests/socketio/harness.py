"""A Socket.IO server on loopback with an application for tests, and a client down to the bits."""

from __future__ import annotations

import json
import struct
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import trio
import trio.testing

from coach.socketio import Refused, Server, Socket, frontdoor
from coach.wire.engine import Config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from coach.socketio import Ack, Request

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
PATH = "/socket.io/?EIO=4&transport=websocket"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # the example of RFC 6455, 1.3
CANARY = "canary-words"


class Application:
    """Lets everybody in but those without manners; does what its events are called."""

    def __init__(self) -> None:
        self.events: list[tuple[str | float, list[Any]]] = []
        self.left: list[str] = []
        self.requests: list[Request] = []
        self._changed = trio.Event()

    def connect(self, socket: Socket, auth: dict[str, Any] | None) -> Handler:
        match (auth or {}).get("password"):
            case "wrong":
                raise Refused("Wrong password")
            case "faulty":
                raise RuntimeError(CANARY)
        return Handler(self, socket)

    async def http(self, stream: Any, request: Request) -> None:
        self.requests.append(request)
        await frontdoor.respond(stream, 404, b'{"from":"http"}')

    def changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, happened: Callable[[], bool], within: float = 5.0) -> None:
        with trio.fail_after(within):
            while not happened():
                await self._changed.wait()


class Handler:
    """One client of the application."""

    def __init__(self, app: Application, socket: Socket) -> None:
        self._app = app
        self._socket = socket
        self._fails_on_leaving = False

    def event(self, name: str | float, args: list[Any], ack: Ack | None) -> None:
        self._app.events.append((name, args))
        self._app.changed()
        if ack is not None:
            ack(*args)
            ack("a second answer is none")
        elif name == "question":
            self._socket.emit("question", *args, acked=self._acked)
        else:
            self._obey(name, args)

    def _obey(self, name: str | float, args: list[Any]) -> None:
        match name:
            case "echo":
                self._socket.emit("echo", *args)
            case "flood":
                count, size = args
                for number in range(count):
                    self._socket.emit("flood", number, "x" * size)
            case "leave":
                self._socket.disconnect()
                self._socket.emit("too late")
            case "close":
                self._socket.emit("goodbye", *args)
                self._socket.disconnect(close=True)
                self._socket.emit("too late")
            case "raise":
                raise RuntimeError(CANARY)
            case "raise in task":
                self._socket.nursery.start_soon(_fail_in_groups)
            case "fail on leaving":
                self._fails_on_leaving = True
            case "start":
                self._socket.nursery.start_soon(trio.sleep_forever)

    def _acked(self, *args: Any) -> None:
        self._app.events.append(("acked", list(args)))
        self._app.changed()

    def disconnected(self, reason: str) -> None:
        self._app.left.append(reason)
        self._app.changed()
        if self._fails_on_leaving:
            raise RuntimeError(CANARY)


async def _fail_in_groups() -> NoReturn:
    raise ExceptionGroup(CANARY, [ExceptionGroup(CANARY, [KeyError(CANARY)]), ValueError(CANARY)])


class House(NamedTuple):
    """A server that listens, and its application."""

    server: Server
    app: Application
    port: int

    async def dial(self, receive_buffer: int | None = None) -> RawClient:
        """Open a connection that says nothing yet."""
        socket = trio.socket.socket()
        if receive_buffer is not None:
            socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
        await socket.connect(("127.0.0.1", self.port))
        return RawClient(trio.SocketStream(socket))

    @asynccontextmanager
    async def client(self, receive_buffer: int | None = None) -> AsyncIterator[RawClient]:
        """A client with an open WebSocket that has read the open packet."""
        client = await self.dial(receive_buffer)
        async with client.stream:
            await client.send(upgrade())
            assert (await client.head()).status == 101
            assert (await client.text()).startswith("0{")
            yield client

    @asynccontextmanager
    async def member(self, receive_buffer: int | None = None) -> AsyncIterator[RawClient]:
        """A client that is in the main namespace."""
        async with self.client(receive_buffer) as client:
            await client.join()
            yield client

    async def is_empty(self, tasks: int, within: float = 5.0) -> None:
        """Wait until no session is left and the process has as few tasks as before."""
        with trio.fail_after(within):
            while self.server.sessions or trio.lowlevel.current_statistics().tasks_living > tasks:
                await trio.testing.wait_all_tasks_blocked(0.001)


@asynccontextmanager
async def serving(
    *, origin_allowed: Callable[[str | None], bool] = lambda _: True, **config: Any
) -> AsyncIterator[House]:
    """Serve the application on a free port; `config` goes to `coach.wire.engine.Config`."""
    app = Application()
    server = Server(
        {"/": app.connect, "/side": app.connect},
        config=Config(**config),
        origin_allowed=origin_allowed,
    )
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, listeners, app.http)
        yield House(server, app, listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


def upgrade(path: str = PATH, /, **headers: str | None) -> bytes:
    """An opening handshake (RFC 6455, 4.1); None takes a header away."""
    fields: dict[str, str | None] = {
        "Host": "test",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}\r\n" for name, value in fields.items() if value is not None]
    return f"GET {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode("latin-1")


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True
) -> bytes:
    """A frame as RFC 6455, 5.2 draws it, right or wrong."""
    first = fin << 7 | rsv << 4 | opcode
    size, mask_bit = len(payload), masked << 7
    if size < 126:
        head = struct.pack("!BB", first, mask_bit | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, mask_bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, mask_bit | 127, size)
    if not masked:
        return head + payload
    mask = b"\x37\xfa\x21\x3d"
    key = int.from_bytes((mask * (size // 4 + 1))[:size])
    return head + mask + (int.from_bytes(payload) ^ key).to_bytes(size)


def text(packet: str) -> bytes:
    return frame(TEXT, packet.encode())


def event(name: str, *args: Any, ack_id: int | str = "") -> bytes:
    """An event in the main namespace, as a frame."""
    return text(f"42{ack_id}{json.dumps([name, *args])}")


class Frame(NamedTuple):
    """A frame from the server."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0


class Answer(NamedTuple):
    """The head of an HTTP answer, in lower case."""

    status: int
    headers: dict[str, str]


class RawClient:
    """A client that sends any bytes and looks at every frame."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._received = bytearray()

    async def send(self, *data: bytes) -> None:
        with trio.fail_after(5):
            await self.stream.send_all(b"".join(data))

    async def head(self) -> Answer:
        """Read the head of an HTTP answer."""
        raw = b""
        while not raw.endswith(b"\r\n\r\n"):
            raw += await self._exactly(1)
        status_line, *lines = raw.decode("latin-1").split("\r\n")[:-2]
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return Answer(int(status_line.split(" ")[1]), headers)

    async def frame(self) -> Frame | None:
        """Read the next frame; None when the server has closed the connection."""
        try:
            first, second = await self._exactly(2)
        except EOFError:
            return None
        assert not second >> 7, "RFC 6455, 5.1: a server must not mask"
        size = second
        if size == 126:
            size = int.from_bytes(await self._exactly(2))
        elif size == 127:
            size = int.from_bytes(await self._exactly(8))
        payload = await self._exactly(size)
        return Frame(first & 15, payload, bool(first >> 7), first >> 4 & 7)

    async def text(self) -> str:
        """Read the next packet; the frame has to be of text."""
        got = await self.frame()
        assert got is not None, "closed"
        assert (got.opcode, got.fin, got.rsv) == (TEXT, True, 0), got
        return got.payload.decode()

    async def event(self) -> list[Any]:
        """Read the next event; heartbeats are let pass."""
        while (packet := await self.text()) == "2":
            pass
        assert packet.startswith("42"), packet
        decoded: list[Any] = json.loads(packet[2:])
        return decoded

    async def join(self, auth: str = "") -> None:
        await self.send(text(f"40{auth}"))
        assert (await self.text()).startswith('40{"sid":"')

    async def is_alive(self) -> bool:
        """Whether the server still answers, after all that was sent before."""
        await self.send(event("echo", "alive"))
        return await self.event() == ["echo", "alive"]

    async def closed(self) -> int | None:
        """Read up to the end; return the status of the close frame, 1005 for none in it.

        None means that the connection ended without a close frame. One that comes is echoed.
        """
        status = None
        while (got := await self.frame()) is not None:
            if got.opcode == CLOSE:
                status = int.from_bytes(got.payload[:2]) if got.payload else 1005
                with suppress(trio.BrokenResourceError):
                    await self.send(frame(CLOSE, got.payload))
        return status

    async def rest(self) -> bytes:
        """Read all there is until the server closes."""
        while data := await self._receive():
            self._received += data
        return bytes(self._received)

    async def _receive(self) -> bytes:
        with trio.fail_after(5):
            try:
                return bytes(await self.stream.receive_some())
            except trio.BrokenResourceError:
                return b""

    async def _exactly(self, size: int) -> bytes:
        while len(self._received) < size:
            data = await self._receive()
            if not data:
                raise EOFError
            self._received += data
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken

    async def abort(self) -> None:
        """Reset the connection, as a lost network does."""
        linger = struct.pack("ii", 1, 0)
        self.stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)
        await trio.aclose_forcefully(self.stream)
