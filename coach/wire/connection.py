"""One client's Socket.IO connection: which namespaces it joined, what it may send when (S).

Commands return the messages to send; `receive` returns what happened.
"""

from __future__ import annotations

from math import inf
from typing import Any

import msgspec

from coach.wire.errors import ProtocolError
from coach.wire.packet import Decoder, Packet, PacketType, encode


class ConnectRequested(msgspec.Struct, frozen=True):
    """The client wants to join a namespace; answer with `accept` or `refuse`."""

    namespace: str
    auth: dict[str, Any] | None


class EventReceived(msgspec.Struct, frozen=True):
    """An event; with `ack_id` the client waits for an ack."""

    namespace: str
    name: str | float
    args: list[Any]
    ack_id: int | None


class AckReceived(msgspec.Struct, frozen=True):
    """The client's answer to an event that carried this ack id."""

    namespace: str
    ack_id: int
    args: list[Any]


class Left(msgspec.Struct, frozen=True):
    """The client left a namespace."""

    namespace: str


Event = ConnectRequested | EventReceived | AckReceived | Left
Messages = list[str | bytes]


class Connection:
    """The server's side of a Socket.IO connection over one Engine.IO session.

    `deadline` is when a client that has joined no namespace has to be given up.
    """

    __slots__ = ("_decoder", "_joined", "deadline")

    def __init__(self, connect_timeout: float, now: float) -> None:
        self.deadline = now + connect_timeout
        self._decoder = Decoder()
        self._joined: set[str] = set()

    def receive(self, message: str | bytes) -> Event | None:
        """Take in one message; return what it means, if it means anything.

        Raises:
            ProtocolError: the client broke a rule; by S the whole connection has to be closed.
        """
        packet = self._decoder.receive(message)
        if packet is None:
            return None
        namespace = packet.namespace
        if packet.type is PacketType.CONNECT:
            if namespace in self._joined:
                raise ProtocolError("namespace joined twice")
            return ConnectRequested(namespace, packet.data)
        if namespace not in self._joined:
            raise ProtocolError("packet for a namespace that was not joined")
        match packet.type:
            case PacketType.EVENT if packet.data is not None:
                return EventReceived(namespace, packet.data[0], packet.data[1:], packet.id)
            case PacketType.ACK if packet.data is not None and packet.id is not None:
                return AckReceived(namespace, packet.id, packet.data)
            case PacketType.DISCONNECT:
                self._joined.discard(namespace)
                return Left(namespace)
            case PacketType.CONNECT_ERROR:
                raise ProtocolError("only servers send CONNECT_ERROR")
        return None

    def accept(self, namespace: str, sid: str) -> Messages:
        """Let the client in; `sid` names it in this namespace only."""
        self._joined.add(namespace)
        self.deadline = inf
        return encode(Packet(PacketType.CONNECT, namespace, {"sid": sid}))

    def refuse(self, namespace: str, message: str) -> Messages:
        """Keep the client out of a namespace; the connection stays."""
        return encode(Packet(PacketType.CONNECT_ERROR, namespace, {"message": message}))

    def emit(self, namespace: str, name: str, *args: Any, ack_id: int | None = None) -> Messages:
        """Send an event; with `ack_id` the client is asked for an ack.

        Nothing is sent to a namespace that the client is not in.
        """
        return self._send(Packet(PacketType.EVENT, namespace, [name, *args], ack_id))

    def ack(self, namespace: str, ack_id: int, *args: Any) -> Messages:
        """Answer an event that came with `ack_id`."""
        return self._send(Packet(PacketType.ACK, namespace, list(args), ack_id))

    def disconnect(self, namespace: str) -> Messages:
        """Put the client out of a namespace; it will not come back by itself."""
        messages = self._send(Packet(PacketType.DISCONNECT, namespace))
        self._joined.discard(namespace)
        return messages

    def _send(self, packet: Packet) -> Messages:
        return encode(packet) if packet.namespace in self._joined else []
