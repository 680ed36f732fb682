"""The WebSocket transport: RFC 6455 by `websockets`' sans-IO protocol on a bare Trio stream.

permessage-deflate is never negotiated: it costs some 300 KiB of memory for each connection
(https://github.com/socketio/socket.io/issues/3477) to save bytes on messages of a few hundred.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import Protocol, Side, State
from websockets.server import ServerProtocol

from coach.socketio.frontdoor import BadRequest

if TYPE_CHECKING:
    from coach.socketio.stream import Stream

CLOSE_TIMEOUT: Final = 1.0
"""Seconds for the closing handshake."""

# At debug level the library writes every frame, and with it what people say, to its log.
_logger = logging.getLogger("coach.socketio.websocket")
_logger.setLevel(logging.WARNING)


def answer_handshake(head: bytes) -> tuple[bytes, bool]:
    """Answer a WebSocket's opening handshake (RFC 6455, 4.2).

    Return what to send, and whether the WebSocket is open then. The library's handshake is no
    part of the connection itself, which would hold both sides' headers as long as it lives.

    Raises:
        BadRequest: it is no handshake, such as one with a body.
    """
    handshake = ServerProtocol(logger=_logger)
    handshake.receive_data(head)
    for request in handshake.events_received():
        if isinstance(request, Request):
            handshake.send_response(handshake.accept(request))
    answer = b"".join(handshake.data_to_send())
    if not answer:
        raise BadRequest(400)
    return answer, handshake.state is State.OPEN


class WebSocket:
    """One open WebSocket, seen as a pipe of Engine.IO packets; `received` came already.

    `receive` belongs to one task and `flush` to another: only `flush` writes to the stream.
    """

    __slots__ = ("_failed", "_fragments", "_opcode", "_protocol", "_stream", "_unsent")

    def __init__(self, stream: Stream, max_payload: int, received: bytes) -> None:
        self._stream = stream
        self._protocol = Protocol(Side.SERVER, max_size=max_payload, logger=_logger)
        self._unsent = b""
        self._fragments = bytearray()
        self._opcode = Opcode.TEXT
        self._failed = False
        self._protocol.receive_data(received)

    @property
    def unsent(self) -> int:
        """The bytes that wait to be written: packets, pongs, close frames."""
        return len(self._unsent) + sum(map(len, self._protocol.writes))

    async def receive(self) -> list[str | bytes] | None:
        """Wait for the peer; return the packets that came whole, perhaps none; None at the end."""
        if not self._protocol.events:
            if self._protocol.eof_sent or self._protocol.state is State.CLOSED:
                return None
            try:
                data = await self._stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if data:
                self._protocol.receive_data(data)
            else:
                self._protocol.receive_eof()
        packets = []
        for event in self._protocol.events_received():
            packet = self._assemble(event) if isinstance(event, Frame) else None
            if self._failed:
                break
            if packet is not None:
                packets.append(packet)
        return packets

    def _assemble(self, frame: Frame) -> str | bytes | None:
        """Return the message that this frame completes."""
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return None
        data = bytes(frame.data)
        if frame.opcode is not Opcode.CONT:
            self._opcode = frame.opcode
        if not frame.fin:
            self._fragments += data
            return None
        if self._fragments:
            data = bytes(self._fragments + data)
            self._fragments.clear()
        if self._opcode is Opcode.BINARY:
            return data
        try:
            return data.decode()
        except UnicodeDecodeError:
            self._failed = True  # Nothing more counts (RFC 6455, 7.1.7).
            self._protocol.fail(CloseCode.INVALID_DATA)
            return None

    def send(self, packets: list[str | bytes]) -> None:
        """Queue packets, one message each, for `flush`. A closing connection drops them."""
        if self._protocol.state is not State.OPEN:
            return
        for packet in packets:
            if isinstance(packet, bytes):
                self._protocol.send_binary(packet)
            else:
                self._protocol.send_text(packet.encode())

    async def flush(self) -> None:
        """Write what is queued. Cancelled, it keeps what is left for the next call.

        Raises:
            trio.BrokenResourceError: the peer is gone.
        """
        self._unsent += b"".join(self._protocol.data_to_send())
        while self._unsent:
            sent = await self._stream.send_some(self._unsent)
            self._unsent = self._unsent[sent:]

    def close(self) -> None:
        """Queue a close frame without a status, as engine.io's own server sends it."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close()

    async def hang_up(self) -> None:
        """Do the closing handshake (RFC 6455, 7.1.1), within `CLOSE_TIMEOUT`."""
        with trio.move_on_after(CLOSE_TIMEOUT):
            self.close()
            await self.flush()
            while await self.receive() is not None:
                await self.flush()
