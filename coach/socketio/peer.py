"""Socket.IO over an Engine.IO session: namespaces, their handlers, acks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from coach.socketio.faults import places
from coach.socketio.session import new_sid
from coach.socketio.socket import Refused, Socket
from coach.wire.connection import (
    AckReceived,
    Connection,
    ConnectRequested,
    EventReceived,
    Left,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import trio

    from coach.socketio.session import Session
    from coach.socketio.socket import Connect, Handler

log = structlog.get_logger(__name__)


class SocketIO:
    """A client's side of the server: what it joined, and who handles it there."""

    __slots__ = ("_acks", "_connection", "_handlers", "_namespaces", "_next_ack", "_session")

    def __init__(
        self,
        session: Session,
        namespaces: Mapping[str, Connect],
        connect_timeout: float,
        now: float,
    ) -> None:
        self._session = session
        self._namespaces = namespaces
        self._connection = Connection(connect_timeout, now)
        self._handlers: dict[str, Handler] = {}
        self._acks: dict[tuple[str, int], Callable[..., None]] | None = None
        self._next_ack = 0

    @property
    def nursery(self) -> trio.Nursery:
        """Owns whatever serves this client."""
        return self._session.nursery

    @property
    def deadline(self) -> float:
        """When the client has to have joined a namespace."""
        return self._connection.deadline

    def receive(self, message: str | bytes) -> None:
        """Take in a message.

        Raises:
            ProtocolError: it breaks a rule.
        """
        match self._connection.receive(message):
            case EventReceived(namespace, name, args, ack_id):
                ack = None if ack_id is None else partial(self._ack, namespace, [ack_id])
                self._handlers[namespace].event(name, args, ack)
            case ConnectRequested(namespace, auth):
                self._connect(namespace, auth)
            case Left(namespace):
                self._handlers.pop(namespace).disconnected("client namespace disconnect")
            case AckReceived(namespace, ack_id, args):
                # Unknown ones are ignored (S, "ACK").
                if self._acks and (acked := self._acks.pop((namespace, ack_id), None)):
                    acked(*args)

    def closed(self, reason: str) -> None:
        """Tell all handlers that the session is over."""
        while self._handlers:
            try:
                self._handlers.popitem()[1].disconnected(reason)
            except Exception as error:  # noqa: BLE001 - it costs no other handler its turn
                log.error("fault in a session", faults=list(places(error)))

    def emit(
        self, namespace: str, name: str, args: tuple[Any, ...], acked: Callable[..., None] | None
    ) -> None:
        """Send an event; `acked` gets what the client's ack holds."""
        ack_id = None
        if acked is not None:
            ack_id, self._next_ack = self._next_ack, self._next_ack + 1
            if self._acks is None:
                self._acks = {}
            self._acks[namespace, ack_id] = acked
        self._session.send(self._connection.emit(namespace, name, *args, ack_id=ack_id))

    def leave(self, namespace: str, reason: str) -> None:
        """Put the client out of one namespace; the connection stays."""
        self._session.send(self._connection.disconnect(namespace))
        if handler := self._handlers.pop(namespace, None):
            handler.disconnected(reason)

    def close(self, reason: str) -> None:
        """Close the client's whole connection."""
        self._session.close(reason)

    def _connect(self, namespace: str, auth: dict[str, Any] | None) -> None:
        connect = self._namespaces.get(namespace)
        if connect is None:
            self._session.send(self._connection.refuse(namespace, "Invalid namespace"))
            return
        socket = Socket(self, namespace, new_sid())
        try:
            handler = connect(socket, auth)
        except Refused as refusal:
            self._session.send(self._connection.refuse(namespace, str(refusal)))
            return
        self._handlers[namespace] = handler
        self._session.send(self._connection.accept(namespace, socket.id))

    def _ack(self, namespace: str, unanswered: list[int], *args: Any) -> None:
        if unanswered:
            self._session.send(self._connection.ack(namespace, unanswered.pop(), *args))
