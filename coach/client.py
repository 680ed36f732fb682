"""A small Socket.IO client on Trio, for replays, benchmarks and tests."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec
import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    ConnectionTimeout,
    DisconnectionTimeout,
    HandshakeError,
    WebSocketConnection,
    open_websocket_url,
)

from coach.wire.engine import MESSAGE, PING, PONG
from coach.wire.errors import ProtocolError
from coach.wire.packet import Decoder, Packet, PacketType, encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CONNECT_TIMEOUT: Final = 5.0
CLOSE_TIMEOUT: Final = 1.0
_SCHEMES: Final = {"http": "ws", "https": "wss"}


class ClientError(Exception):
    """The connection cannot be made or is gone; the message says why."""


class ServerEvent(msgspec.Struct, frozen=True):
    """An event that the server sent."""

    name: str
    args: list[Any]


class Client:
    """A connection that joined the main namespace.

    Iterating gives the server's events, until the connection closes. Acks and heartbeats are
    served there too, so somebody has to iterate.
    """

    def __init__(self, websocket: WebSocketConnection) -> None:
        self._websocket = websocket
        self._decoder = Decoder()
        self._ack_ids = count()
        self._acks: dict[int, trio.MemorySendChannel[list[Any]]] = {}

    async def emit(self, name: str, *args: Any) -> None:
        """Send an event.

        Raises:
            ClientError: the connection is gone.
        """
        await self._send(Packet(PacketType.EVENT, data=[name, *args]))

    async def call(self, name: str, *args: Any) -> list[Any]:
        """Send an event and wait for its ack; return what it holds.

        Raises:
            ClientError: the connection is gone.
        """
        ack_id = next(self._ack_ids)
        self._acks[ack_id], answer = trio.open_memory_channel[list[Any]](1)
        try:
            await self._send(Packet(PacketType.EVENT, data=[name, *args], id=ack_id))
            return await answer.receive()
        except trio.EndOfChannel:
            raise ClientError("the connection was closed") from None
        finally:
            self._acks.pop(ack_id, None)

    def __aiter__(self) -> Client:
        return self

    async def __anext__(self) -> ServerEvent:
        try:
            while True:
                packet = await self._receive()
                if packet is None or packet.data is None:
                    continue
                if packet.type is PacketType.EVENT:
                    return ServerEvent(packet.data[0], packet.data[1:])
                if packet.type is PacketType.ACK and packet.id in self._acks:
                    self._acks[packet.id].send_nowait(packet.data)
        except ClientError:
            for waiting in self._acks.values():
                waiting.close()
            raise StopAsyncIteration from None

    async def join(self, auth: dict[str, Any] | None) -> None:
        """Join the main namespace.

        Raises:
            ClientError: the server does not let this client in.
        """
        await self._send(Packet(PacketType.CONNECT, data=auth))
        packet = None
        while packet is None:
            packet = await self._receive()
        if packet.type is PacketType.CONNECT_ERROR:
            raise ClientError(f"the server refused: {packet.data.get('message')}")

    async def _receive(self) -> Packet | None:
        try:
            message = await self._websocket.get_message()
            if isinstance(message, bytes):
                return self._decoder.receive(message)
            if message == PING:
                await self._websocket.send_message(PONG)
            elif message.startswith(MESSAGE):
                return self._decoder.receive(message[1:])
        except ConnectionClosed:
            raise ClientError("the connection was closed") from None
        except ProtocolError as error:
            raise ClientError(f"the server broke the protocol: {error}") from None
        return None

    async def _send(self, packet: Packet) -> None:
        try:
            for message in encode(packet):
                text = message if isinstance(message, bytes) else MESSAGE + message
                await self._websocket.send_message(text)
        except ConnectionClosed:
            raise ClientError("the connection was closed") from None


@asynccontextmanager
async def connect(url: str, auth: dict[str, Any] | None) -> AsyncIterator[Client]:
    """Connect to the server at `url`, http or https; the connection closes with the block.

    Raises:
        ClientError: no server answers there, or it does not let this client in.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.netloc:
        raise ClientError(f"{url} is not of the form http://host:port")
    opening = open_websocket_url(
        f"{_SCHEMES[parts.scheme]}://{parts.netloc}/socket.io/?EIO=4&transport=websocket",
        connect_timeout=CONNECT_TIMEOUT,
        disconnect_timeout=CLOSE_TIMEOUT,
    )
    async with AsyncExitStack() as stack:
        with suppress(DisconnectionTimeout):
            async with AsyncExitStack() as connection:
                try:
                    websocket = await connection.enter_async_context(opening)
                except HandshakeError as error:
                    raise ClientError(f"cannot connect to {url}: {_reason(error)}") from None
                # trio-websocket 0.12 leaves the socket of a connection that the server closed open.
                stack.push_async_callback(trio.aclose_forcefully, websocket._stream)  # noqa: SLF001
                client = Client(websocket)
                with trio.move_on_after(CONNECT_TIMEOUT) as scope:
                    await client.join(auth)
                if scope.cancelled_caught:
                    raise ClientError("the server did not answer")
                yield client


def _reason(error: HandshakeError) -> str:
    match error:
        case ConnectionRejected():
            return f"the server answered with status {error.status_code}"
        case ConnectionTimeout():
            return f"no answer within {CONNECT_TIMEOUT:.0f} s"
        case _:
            return "no server listens there" if error.__cause__ else str(error)
